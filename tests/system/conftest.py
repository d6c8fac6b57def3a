"""Real engines for real clients: one that all tests share, and fresh ones for tests that kill."""

import os

import pytest

from support import images, leftovers, orlopd, registry
from support.contexts import write_web


def pytest_configure(config):
    os.umask(0o022)
    # docker-py leaves sockets of hijacked connections to the garbage collector
    config.addinivalue_line("filterwarnings", "ignore:unclosed:ResourceWarning")
    config.addinivalue_line("filterwarnings", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="session", autouse=True)
def _needs_a_machine():
    if reason := orlopd.missing():
        pytest.skip(reason)
    leftovers.sweep_abandoned()


@pytest.fixture(scope="session")
def docker_registry():
    if reason := registry.missing():
        pytest.skip(reason)
    with registry.DockerRegistry() as running:
        yield running


@pytest.fixture(scope="session")
def engine():
    """The shared engine, with `busybox:latest`; a test removes what it makes."""
    with orlopd.Orlopd() as running:
        load_busybox(running)
        yield running


@pytest.fixture
def fresh_engine():
    """An engine that only this test sees, with `busybox:latest`."""
    with orlopd.Orlopd() as running:
        load_busybox(running)
        yield running


@pytest.fixture
def web(tmp_path, engine):
    """A context that has not been built before."""
    engine.docker("builder", "prune", "-af")
    return write_web(tmp_path / "web")


@pytest.fixture(autouse=True)
def _tidy(request):
    """The shared engine has no containers before and after a test, and the base image only."""
    yield
    if "engine" in request.fixturenames:
        running = request.getfixturevalue("engine")
        running.remove_containers()
        tags = running.docker("images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").stdout.splitlines()
        for line in tags:
            tag, image = line.split()
            if tag != "busybox:latest":
                running.docker("rmi", "-f", image if "<none>" in tag else tag, check=False)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure shows the end of the log of every engine that the test drives."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, orlopd.Orlopd):
                report.sections.append((f"log of {name}", value.log_tail()))


def load_busybox(running):
    archive = images.busybox_archive("busybox:latest")
    running.docker("load", input=archive)
