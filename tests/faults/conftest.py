"""Real engines that are made to fail."""

import os
import sys
from pathlib import Path

import pytest

from support import leftovers, orlopd, registry

sys.path.append(str(Path(__file__).parents[1] / "fakes"))


@pytest.fixture(scope="session", autouse=True)
def _needs_a_machine():
    os.umask(0o022)
    if reason := orlopd.missing():
        pytest.skip(reason)
    leftovers.sweep_abandoned()


@pytest.fixture(scope="session")
def docker_registry():
    if reason := registry.missing():
        pytest.skip(reason)
    with registry.DockerRegistry() as running:
        yield running
