"""Every failpoint that an operation hits: crash there, restart, and nothing that was committed is lost.

Names are not listed here: a recording run of each operation says which failpoints it hits and how often.
`docs/internals/failpoints.md` says what each crash leaves and who sweeps it.
"""

from __future__ import annotations

import time

import pytest
from fault_api import EngineDied, Vanished, VanishingApi
from fault_world import World
from operations import OPERATIONS

from support.failpoint_names import declared

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]
NO_SPACE = "no space left on device"
# Hit while an engine starts: see test_starts.py.
AT_START = {"daemon.recovered", "reconcile.recovered", "db.create.before-rename"}
# Tried by tests/system/test_registry_faults.py, test_network_crashes.py and tests/system/test_volumes.py.
OF_OTHER_TESTS = ("registry.", "network.", "volume.")
DELAY_MS = 150
_MAX_HITS = 16  # of one failpoint in one operation that are tried
# What comes before these does I/O; an error at the others could not come from anywhere.
_CAN_FAIL = (".write", ".before", ".before-fsync", ".before-rename", ".before-row", ".before-image-row")


class Worlds:
    """The world of the moment: a fresh one after a round that broke the last one."""

    def __init__(self):
        self._world = None

    def get(self):
        if self._world is None:
            self._world = World().__enter__()
        return self._world

    def drop(self):
        """Throw away what may be broken."""
        world, self._world = self._world, None
        if world is not None:
            error = AssertionError()
            world.__exit__(type(error), error, None)

    def close(self):
        world, self._world = self._world, None
        if world is not None:
            world.__exit__(None, None, None)


@pytest.fixture(scope="module")
def worlds():
    holder = Worlds()
    yield holder
    holder.close()


@pytest.fixture(scope="module")
def tried():
    """Failpoints at which some operation was interrupted."""
    return set()


class Sweep:
    """Rounds of one operation, each interrupted in another way."""

    def __init__(self, worlds, registry, kind):
        self._worlds, self._registry, self._kind = worlds, registry, kind
        self._number = 0

    def record(self) -> dict[str, int]:
        """Failpoints that the uninterrupted operation hits, and how often."""
        operation = self._next()
        answer = []
        hits = operation.world.hits_of(lambda: answer.append(operation.run()))
        assert not answer[0].error, answer[0].error
        operation.check_done()
        operation.undo()
        operation.world.check()
        return hits

    def crash(self, setting) -> None:
        """The engine dies; after its restart all is there, and the operation can be done again."""
        operation = self._next()
        operation.world.arm(setting)
        try:
            answer = operation.run()
        except EngineDied:
            assert operation.world.is_dead(5.0)
        else:  # a worker died, or something behind the answer; or commits were joined into fewer
            is_elsewhere = setting.startswith("supervisor.") or not setting.endswith("@1")
            patience_s = 0.3 if answer.error or is_elsewhere else 10.0  # still armed: work goes on behind it
            assert operation.world.is_dead(patience_s) or answer.error or is_elsewhere, "no crash"
        operation.world.restart()
        self._finish(operation)

    def fail(self, setting) -> None:
        """The step fails, the engine goes on, says why, and the operation can be done again."""
        operation = self._next()
        operation.world.arm(setting)
        answer = operation.run()
        operation.world.disarm()
        assert not operation.world.is_dead(0.02)
        if answer.error:
            wanted = NO_SPACE if "enospc" in setting else "input/output error"
            assert wanted in answer.error.lower(), answer.error
        self._finish(operation, allowed=["orphan"])

    def leave(self, name) -> None:
        """The client leaves in the middle of a step; what it asked for is done or not, never half."""
        operation = self._next()
        world = operation.world
        world.forget_hits()
        world.arm(f"{name}=delay:{DELAY_MS}@1")
        operation.api = VanishingApi(world.port, lambda: world.wait_hit(name))
        with pytest.raises(Vanished):
            operation.run()
        operation.api = world.api
        time.sleep(2 * DELAY_MS / 1000)  # what was begun for it may go on to its end
        world.disarm()
        self._finish(operation, allowed=["orphan"])

    def _next(self):
        self._number += 1
        operation = self._kind(self._worlds.get(), self._registry, self._number)
        operation.prepare()
        return operation

    def _finish(self, operation, **options):
        answer = operation.run()
        assert not answer.error, answer.error
        operation.check_done()
        operation.undo()
        operation.world.check(**options)


@pytest.mark.parametrize("kind", OPERATIONS, ids=lambda kind: kind.__name__.lower())
def test_sweep(worlds, docker_registry, tried, kind):
    sweep = Sweep(worlds, docker_registry.address, kind)
    hits = sweep.record()
    failures = []

    for setting in _settings(hits):
        name, _, action = setting.partition("=")
        tried.add(name)
        try:
            (sweep.crash if action.startswith("crash") else sweep.fail)(setting)
        except (AssertionError, EngineDied) as error:
            failures.append(f"{setting}: {error}\n{worlds.get().engine.log_tail(30)}")
            worlds.drop()

    worlds.get().restart()
    worlds.get().check()
    assert failures == [], "\n".join(failures)


@pytest.mark.parametrize("kind", OPERATIONS, ids=lambda kind: kind.__name__.lower())
def test_clients_that_leave(worlds, docker_registry, kind):
    sweep = Sweep(worlds, docker_registry.address, kind)
    failures = []

    for name in sorted(sweep.record()):
        try:
            sweep.leave(name)
        except (AssertionError, EngineDied) as error:
            failures.append(f"{name}: {error}\n{worlds.get().engine.log_tail(30)}")
            worlds.drop()

    worlds.get().restart()
    worlds.get().check()
    assert failures == [], "\n".join(failures)


def _settings(hits):
    """Crash at every hit; let fail the first and the last of those that can.

    After a commit is the same moment as before the next one, but for the last.
    """
    settings = []
    for name, count in sorted(hits.items()):
        last = min(count, _MAX_HITS)
        first = last if name == "db.commit.after" else 1
        settings += [f"{name}=crash@{number}" for number in range(first, last + 1)]
        if name.endswith(_CAN_FAIL):
            settings += [f"{name}=error@1", f"{name}=enospc@{last}"]
    return settings


def test_every_failpoint_was_tried(tried):
    if len(tried) < 10:
        pytest.skip("needs the whole sweep")

    ours = {name for name in declared() if not name.startswith(OF_OTHER_TESTS)}
    assert ours - AT_START - tried == set()
