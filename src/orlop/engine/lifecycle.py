"""The life of a container as one table: state and event in, next state and effects out.

Pure: nothing here waits, reads a clock or touches a process. The engine feeds events in and
carries the effects out in the given order. `docs/internals/lifecycle.md` is generated from the table
(`render_table`), and a test compares the two.

`created` has never run. `restarting` waits for its back-off to elapse. `removing` is being taken
apart. `dead` could not be taken apart completely; only another removal is possible.
A start in progress is no state of its own: the container keeps the one it had until the
program runs, as users of `docker ps` expect.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from orlop.base.errors import Kind, OrlopError

__all__ = [
    "REQUESTS",
    "AlreadyThere",
    "Effect",
    "Event",
    "NotPossible",
    "Status",
    "Transition",
    "apply",
    "is_active",
    "render_table",
]


class Status(enum.Enum):
    """The words of Docker's `State.Status`."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    EXITED = "exited"
    REMOVING = "removing"
    DEAD = "dead"


class Event(enum.Enum):
    """What can happen to a container."""

    START = "start asked for"
    STARTED = "program runs"
    START_FAILED = "program could not run"
    STOP = "stop asked for"
    KILL = "kill asked for"
    SIGNAL = "another signal asked for"
    PAUSE = "pause asked for"
    UNPAUSE = "unpause asked for"
    UPDATE = "update asked for"
    RENAME = "rename asked for"
    EXITED = "exited for good"
    EXITED_TO_RESTART = "exited, to be restarted"
    START_WITH_ENGINE = "to be started with the engine"
    REMOVE = "remove asked for"
    FORCE_REMOVE = "forced remove"
    REMOVE_FAILED = "removal failed"


class Effect(enum.Enum):
    """What the engine does about it, beside the verb itself. None of these waits."""

    SAVE = "save"
    WATCH = "watch the task"
    EMIT_START = "emit start"
    EMIT_DIE = "emit die"
    EMIT_PAUSE = "emit pause"
    EMIT_UNPAUSE = "emit unpause"
    START_HEALTH = "start health checks"
    STOP_HEALTH = "stop health checks"
    ARM_BACKOFF = "arm back-off"
    CANCEL_BACKOFF = "cancel back-off"
    WAKE_WAITERS = "wake waiters"
    AUTO_REMOVE = "auto-remove"


class NotPossible(OrlopError):
    """The container's state does not allow what was asked."""

    kind = Kind.CONFLICT
    code = "container-state"


class AlreadyThere(OrlopError):
    """The container is in the asked-for state already: HTTP 304."""

    kind = Kind.NOT_MODIFIED
    code = "not-modified"


@dataclass(frozen=True, slots=True)
class Transition:
    """Where an event leads, and what to do on the way."""

    next: Status
    effects: tuple[Effect, ...] = ()


_S, _V, _E = Status, Event, Effect

_ENDED = (_E.STOP_HEALTH, _E.SAVE, _E.EMIT_DIE, _E.WAKE_WAITERS)
_GONE = Transition(_S.EXITED, (*_ENDED, _E.AUTO_REMOVE))
_AGAIN = Transition(_S.RESTARTING, (*_ENDED, _E.ARM_BACKOFF))
_UP = Transition(_S.RUNNING, (_E.SAVE, _E.WATCH, _E.EMIT_START, _E.START_HEALTH))
_NOT_UP = (_E.SAVE, _E.WAKE_WAITERS, _E.AUTO_REMOVE)
_TAKEN_APART = Transition(_S.REMOVING)
_CANCELLED = Transition(_S.EXITED, (_E.CANCEL_BACKOFF, *_NOT_UP))  # a stop between two restarts
_WITH_ENGINE = Transition(_S.RESTARTING, (_E.SAVE, _E.ARM_BACKOFF))

TABLE: dict[tuple[Status, Event], Transition] = {
    (_S.CREATED, _V.START): Transition(_S.CREATED),
    (_S.CREATED, _V.STARTED): _UP,
    (_S.CREATED, _V.START_FAILED): Transition(_S.CREATED, (_E.SAVE, _E.AUTO_REMOVE)),
    (_S.CREATED, _V.REMOVE): _TAKEN_APART,
    (_S.CREATED, _V.FORCE_REMOVE): _TAKEN_APART,
    (_S.RUNNING, _V.STOP): Transition(_S.RUNNING, (_E.SAVE,)),
    (_S.RUNNING, _V.KILL): Transition(_S.RUNNING, (_E.SAVE,)),
    (_S.RUNNING, _V.SIGNAL): Transition(_S.RUNNING),
    (_S.RUNNING, _V.PAUSE): Transition(_S.PAUSED, (_E.SAVE, _E.EMIT_PAUSE)),
    (_S.RUNNING, _V.EXITED): _GONE,
    (_S.RUNNING, _V.EXITED_TO_RESTART): _AGAIN,
    (_S.RUNNING, _V.FORCE_REMOVE): _TAKEN_APART,
    (_S.PAUSED, _V.STOP): Transition(_S.PAUSED, (_E.SAVE,)),
    (_S.PAUSED, _V.KILL): Transition(_S.PAUSED, (_E.SAVE,)),
    (_S.PAUSED, _V.SIGNAL): Transition(_S.PAUSED),
    (_S.PAUSED, _V.UNPAUSE): Transition(_S.RUNNING, (_E.SAVE, _E.EMIT_UNPAUSE)),
    (_S.PAUSED, _V.EXITED): _GONE,
    (_S.PAUSED, _V.EXITED_TO_RESTART): _AGAIN,
    (_S.PAUSED, _V.FORCE_REMOVE): _TAKEN_APART,
    (_S.RESTARTING, _V.START): Transition(_S.RESTARTING, (_E.CANCEL_BACKOFF,)),
    (_S.RESTARTING, _V.STARTED): _UP,
    (_S.RESTARTING, _V.START_FAILED): Transition(_S.EXITED, _NOT_UP),
    (_S.RESTARTING, _V.STOP): _CANCELLED,
    (_S.RESTARTING, _V.KILL): _CANCELLED,
    (_S.RESTARTING, _V.SIGNAL): Transition(_S.RESTARTING),  # nobody is there to take it; dockerd is content
    (_S.RESTARTING, _V.FORCE_REMOVE): Transition(_S.REMOVING, (_E.CANCEL_BACKOFF,)),
    (_S.EXITED, _V.START): Transition(_S.EXITED),
    (_S.EXITED, _V.STARTED): _UP,
    (_S.EXITED, _V.START_FAILED): Transition(_S.EXITED, (_E.SAVE, _E.AUTO_REMOVE)),
    (_S.EXITED, _V.START_WITH_ENGINE): _WITH_ENGINE,
    (_S.EXITED, _V.REMOVE): _TAKEN_APART,
    (_S.EXITED, _V.FORCE_REMOVE): _TAKEN_APART,
    (_S.REMOVING, _V.KILL): Transition(_S.REMOVING),  # helps a removal that waits for a deaf program
    (_S.REMOVING, _V.SIGNAL): Transition(_S.REMOVING),
    (_S.REMOVING, _V.EXITED): Transition(_S.REMOVING, _ENDED),
    (_S.REMOVING, _V.REMOVE_FAILED): Transition(_S.DEAD, (_E.SAVE, _E.WAKE_WAITERS)),
    (_S.DEAD, _V.REMOVE): _TAKEN_APART,
    (_S.DEAD, _V.FORCE_REMOVE): _TAKEN_APART,
    **{
        (status, event): Transition(status)
        for status in _S
        if status not in (_S.REMOVING, _S.DEAD)
        for event in (_V.UPDATE, _V.RENAME)
    },
}
REQUESTS = (
    *(_V.START, _V.STOP, _V.KILL, _V.SIGNAL, _V.PAUSE, _V.UNPAUSE, _V.UPDATE, _V.RENAME),
    *(_V.REMOVE, _V.FORCE_REMOVE),
)
"""What a client can ask for; the other events happen by themselves."""


def is_active(status: Status) -> bool:
    """Docker's `State.Running`: true while paused and between restarts, too."""
    return status in (Status.RUNNING, Status.PAUSED, Status.RESTARTING)


def apply(status: Status, event: Event, name: str, container_id: str) -> Transition:
    """The transition for an event.

    Args:
        status: the state the container is in.
        event: what happened or was asked for.
        name: the container's name without slash, for the message.
        container_id: its full id, for the message.

    Raises:
        NotPossible: with the text that dockerd uses.
        AlreadyThere: start of a running container, stop of one that does not run.
    """
    found = TABLE.get((status, event))
    if found is not None:
        return found
    raise _refusal(status, event, name, container_id)


def _refusal(status: Status, event: Event, name: str, container_id: str) -> OrlopError:
    match event:
        case Event.START:
            return _refuse_start(status)
        case Event.STOP:
            return AlreadyThere("container is not running")
        case Event.KILL | Event.SIGNAL:
            text = f"cannot kill container: {name}: container {container_id} is not running"
            return NotPossible(text)
        case Event.UPDATE | Event.RENAME:
            word = "updated" if event is Event.UPDATE else "renamed"
            return NotPossible(f"container is marked for removal and cannot be {word}")
        case Event.PAUSE | Event.UNPAUSE:
            return _refuse_freeze(status, event, container_id)
        case Event.REMOVE | Event.FORCE_REMOVE:
            return _refuse_removal(status, name)
        case _:
            return NotPossible(f"container {container_id} is {status.value}: {event.value} is not possible")


def _refuse_freeze(status: Status, event: Event, container_id: str) -> NotPossible:
    if event is Event.UNPAUSE:
        return NotPossible(f"Container {container_id} is not paused")
    match status:
        case Status.PAUSED:
            return NotPossible(f"Container {container_id} is already paused")
        case Status.RESTARTING:
            return NotPossible(f"Container {container_id} is restarting, wait until the container is running")
        case _:
            return NotPossible(f"container {container_id} is not running")


def _refuse_start(status: Status) -> OrlopError:
    match status:
        case Status.PAUSED:
            return NotPossible("cannot start a paused container, try unpause instead")
        case Status.RUNNING:
            return AlreadyThere("container is running already")
        case _:
            return NotPossible("container is marked for removal and cannot be started")


def _refuse_removal(status: Status, name: str) -> OrlopError:
    # docker CLI and docker-py users match on these texts
    subject = f'cannot remove container "/{name}": container is {status.value}'
    match status:
        case Status.REMOVING:
            return NotPossible(f"removal of container {name} is already in progress")
        case Status.PAUSED:
            return NotPossible(f"{subject} and must be unpaused first")
        case _:
            return NotPossible(f"{subject}: stop the container before removing or force remove")


def render_table() -> str:
    """The table as Markdown, for the documentation."""
    lines = ["| state | event | next | effects |", "|---|---|---|---|"]
    for (status, event), transition in TABLE.items():
        effects = ", ".join(effect.value for effect in transition.effects) or "-"
        lines.append(f"| {status.value} | {event.value} | {transition.next.value} | {effects} |")
    return "\n".join(lines) + "\n"
