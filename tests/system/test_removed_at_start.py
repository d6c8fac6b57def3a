"""A container that is removed by force while it is being started leaves nothing that runs."""

import subprocess

import pytest

pytestmark = pytest.mark.system


def test_what_is_removed_while_it_starts_does_not_run(fresh_engine):
    for _ in range(6):
        name = fresh_engine.docker("create", "--network", "none", "busybox", "sleep", "60").stdout.strip()
        starting = fresh_engine.popen("start", name, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        fresh_engine.docker("rm", "-f", name)
        starting.communicate()

    assert fresh_engine.docker("ps", "-aq").stdout == ""  # its end finds processes that were left behind
