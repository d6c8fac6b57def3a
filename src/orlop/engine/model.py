"""A container's three sides, kept apart: what was asked, what we believe, what we hold.

`Record` is the configuration document, `State` the last known state; both are values, stored in
one row (0003_containers.sql) and replaced whole. `Container` is the entry in memory that holds
the current two and the handles: the task, the lock, the waiters. Readers (`ps`, `inspect`)
take the values from it and never a lock.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orlop.base.ids import ContainerId
from orlop.engine.idmaps import IdMap
from orlop.engine.lifecycle import Status
from orlop.engine.network_model import LiveNetwork
from orlop.engine.requests import (
    NO_EXTRAS,
    ContainerConfig,
    HostConfig,
    Mount,
    NetworkingConfig,
    OrlopConfig,
    PortBinding,
)
from orlop.engine.views import HealthLog, MountPoint, Port, SummaryHost, SummaryNetworks

if TYPE_CHECKING:
    from orlop.runtime.contract import Attachment, Task
    from orlop.store.snapshots import Workspace

__all__ = ["Container", "MountRecord", "Record", "RowParts", "Settings", "State"]

_HEALTH_LOG_ENTRIES = 5  # dockerd keeps five


@dataclass(frozen=True, slots=True)
class MountRecord:
    """A resolved mount: what inspect shows of it, and how it is made.

    `options` are fstab words. `copy_up` says that a volume that is still empty gets the
    image's content of that directory.
    """

    point: MountPoint
    options: tuple[str, ...] = ()
    copy_up: bool = False
    is_anonymous: bool = False
    create_source: bool = False  # dockerd makes the source of -v when it is missing
    subpath: str = ""  # of a volume or image: what is mounted, resolved inside it at every start
    image: str = ""  # id of the image that is mounted


@dataclass(frozen=True, slots=True)
class Settings:
    """What of a record an amendment can change. `points` are the mounts resolved, `Record.mounts`."""

    config: ContainerConfig
    binds: tuple[str, ...] | None
    mounts: tuple[Mount, ...] | None
    tmpfs: dict[str, str] | None
    port_bindings: dict[str, tuple[PortBinding, ...] | None] | None
    points: tuple[MountRecord, ...]
    orlop: OrlopConfig


@dataclass(frozen=True, slots=True)
class Record:
    """What was asked for, with every default decided. Changes by rename and update only."""

    id: ContainerId
    name: str
    created_ns: int
    image_id: str
    image_name: str
    layers: tuple[str, ...]
    platform: str
    path: str
    args: tuple[str, ...]
    config: ContainerConfig
    host: HostConfig
    networking: NetworkingConfig
    mounts: tuple[MountRecord, ...]
    orlop: OrlopConfig = NO_EXTRAS
    pending: Settings | None = None  # changed while it ran: its own from the next start on
    id_map: IdMap | None = None  # of its user namespace; None = the ids of the host

    @property
    def all_mounts(self) -> tuple[MountRecord, ...]:
        """Its mounts, and those that it will have: their volumes are in use."""
        return (*self.mounts, *(self.pending.points if self.pending else ()))


@dataclass(frozen=True, slots=True)
class State:
    """What we believe. Times are 0 for never. `health` is empty without a check."""

    status: Status = Status.CREATED
    exit_code: int = 0
    error: str = ""
    pid: int = 0
    started_ns: int = 0
    finished_ns: int = 0
    is_oom_killed: bool = False
    restart_count: int = 0
    was_stopped: bool = False  # by a user: `unless-stopped` stays down
    health: str = ""
    boot_id: str = ""  # of the boot in which it was last started
    restarts_after_exit: bool = False  # it is being ended for that, or an engine left it to the next one
    failing_streak: int = 0  # of health checks


@dataclass(frozen=True, slots=True)
class RowParts:
    """What the row of a list says that depends on the record and its networks; made at the first list."""

    record: Record
    names: tuple[str, ...]
    command: str
    created: int
    live: LiveNetwork | None
    ports: tuple[Port, ...]
    labels: dict[str, str]
    host: SummaryHost
    networks: SummaryNetworks
    mounts: tuple[MountPoint, ...]


class Container:
    """The entry in memory. Owned by the catalogue; all access is from the event loop."""

    __slots__ = (
        "attachments",
        "backoff",
        "exec_ids",
        "exit_waiters",
        "health_log",
        "is_starting",
        "keeps_after_exit",
        "lock",
        "network",
        "record",
        "removal_waiters",
        "restart_delay_s",
        "row_parts",
        "state",
        "task",
        "told_oom_kills",
        "watcher",
        "workspace",
    )

    def __init__(self, record: Record, state: State) -> None:
        self.record = record
        self.state = state
        self.lock = asyncio.Lock()  # start, pause, remove, rename, update; never held by readers or stop
        self.task: Task | None = None
        self.watcher: asyncio.Task[None] | None = None
        self.backoff: asyncio.Task[None] | None = None
        self.restart_delay_s = 0.0
        self.keeps_after_exit = False  # the coming exit is part of a restart: no AutoRemove
        self.is_starting = False  # between the decision and the program's first instruction
        self.exit_waiters: set[asyncio.Future[State]] = set()
        self.removal_waiters: set[asyncio.Future[State]] = set()
        self.attachments: list[Attachment] = []
        self.exec_ids: set[str] = set()
        self.told_oom_kills = 0  # of this run
        self.health_log: deque[HealthLog] = deque(maxlen=_HEALTH_LOG_ENTRIES)
        self.row_parts: RowParts | None = None
        self.network: LiveNetwork | None = None  # of this run; set by `endpoints` only
        self.workspace: Workspace | None = None  # layers mounted; None until it is needed

    @property
    def id(self) -> ContainerId:
        return self.record.id

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def status(self) -> Status:
        return self.state.status

    def change(self, **changes: object) -> None:
        """Replace the state by one with these fields changed."""
        self.state = replace(self.state, **changes)  # type: ignore[arg-type]

    def wake_exit_waiters(self) -> None:
        """Tell everybody who waits for the next exit."""
        _answer(self.exit_waiters, self.state)

    def wake_removal_waiters(self) -> None:
        """Tell everybody who waits for the removal."""
        _answer(self.removal_waiters, self.state)


def _answer(waiters: set[asyncio.Future[State]], state: State) -> None:
    for waiter in tuple(waiters):
        if not waiter.done():
            waiter.set_result(state)
    waiters.clear()
