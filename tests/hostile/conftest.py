"""One engine for hostile images and racing processes; every test leaves it alive and its log without a fault."""

import os

import pytest

from support import hostile, images, leftovers, orlopd
from support.door import Door

FAULTS = ("Traceback", "handler failed")


def pytest_configure():
    os.umask(0o022)


@pytest.fixture(scope="session", autouse=True)
def _needs_a_machine():
    if reason := orlopd.missing():
        pytest.skip(reason)
    leftovers.sweep_abandoned()


@pytest.fixture(scope="session")
def engine():
    with orlopd.Orlopd() as running:
        running.docker("load", input=images.busybox_archive("busybox:latest"))
        yield running


@pytest.fixture(scope="session")
def door(engine):
    with Door(str(engine.socket)) as way:
        yield way


@pytest.fixture
def canary():
    with hostile.new_canary() as place:
        yield place


@pytest.fixture
def started(door):
    """Start a container that stays; its id."""
    names = []

    def start(image="busybox", *words, **config):
        made = door.create(image, *(words or ("sleep", "1000")), **config)
        assert made.status == 201, made.message
        names.append(made.value()["Id"])
        reply = door.ask("POST", f"/containers/{names[-1]}/start")
        assert reply.status == 204, reply.message
        return names[-1]

    yield start
    for name in names:
        door.ask("DELETE", f"/containers/{name}", force=1, v=1)


@pytest.fixture(autouse=True)
def _stays_alive(request):
    """No container is left, the engine answers, and its log tells of no fault of its own."""
    if "engine" not in request.fixturenames:
        yield
        return
    running, door = request.getfixturevalue("engine"), request.getfixturevalue("door")
    seen = len(running.log())
    yield
    for item in door.ask("GET", "/containers/json", all=1).value():
        door.ask("DELETE", f"/containers/{item['Id']}", force=1, v=1)
    assert door.ask("GET", "/_ping").body == b"OK"
    told = running.log()[seen:]
    assert [word for word in FAULTS if word in told] == [], told[-3000:]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed and isinstance(running := getattr(item, "funcargs", {}).get("engine"), orlopd.Orlopd):
        report.sections.append(("log of the engine", running.log_tail()))
