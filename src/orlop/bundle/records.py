"""Containers of the command on disk: one directory below --root for each, as long as it exists.

    <root>/<id>/state.json    what other commands need to know; replaced by rename
    <root>/<id>/config.json   the document as it was at create
    <root>/<id>/start         the socket at which init waits; gone once it was started

What a container does now is never stored: it follows from these files and the kernel (`status`).
A crash in the middle leaves a directory whose container is "stopped", which `delete` removes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from orlop.bundle.config import SPEC_VERSION, Config, parse_config
from orlop.bundle.refusal import ContainerExists, ContainerMissing, Refused
from orlop.kernel import cgroup
from orlop.kernel.process import pidfd_open, start_ticks

__all__ = ["Record", "Status", "Store", "oci_state", "read_limited"]

MAX_DOCUMENT_BYTES = 16 << 20
_ID = re.compile(r"[A-Za-z0-9_+.-]{1,255}\Z")
Status = str


@dataclass(frozen=True, slots=True)
class Record:
    """state.json. `pid_start` tells the process from a later one of the same number."""

    id: str
    bundle: str
    rootfs: str
    created: str
    owner: str
    pid: int = 0
    pid_start: int = 0
    cgroup_path: str = ""
    is_set_up: bool = False
    has_pid_namespace: bool = True
    version: str = SPEC_VERSION
    annotations: dict[str, str] = field(default_factory=dict)

    def cgroup(self) -> cgroup.Cgroup:
        """The container's cgroup on this host."""
        return cgroup.Cgroup(self.cgroup_path, cgroup.detect())

    def pidfd(self) -> int | None:
        """The first process, or None when it has ended; the caller closes it."""
        if not self.pid:
            return None
        try:
            fd = pidfd_open(self.pid)
        except OSError:
            return None
        if start_ticks(self.pid) != self.pid_start:  # asked after the open: the pid cannot change hands
            os.close(fd)
            return None
        return fd


class Store:
    """The directory that --root names."""

    def __init__(self, root: str) -> None:
        self.root = root

    def path(self, container_id: str) -> str:
        """The directory of a container.

        Raises:
            Refused: no valid id.
        """
        if not _ID.match(container_id) or container_id in (".", ".."):
            raise Refused(f"invalid container ID format: {container_id!r}")
        return os.path.join(self.root, container_id)

    def create(self, container_id: str) -> str:
        """Take the id; returns its directory."""
        path = self.path(container_id)
        os.makedirs(self.root, 0o711, exist_ok=True)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            raise ContainerExists from None
        return path

    def save(self, record: Record) -> None:
        """Write state.json, whole or not at all."""
        path = os.path.join(self.path(record.id), "state.json")
        fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump(asdict(record), file)
        os.rename(f"{path}.new", path)

    def load(self, container_id: str) -> Record:
        """Read a record.

        Raises:
            ContainerMissing: there is none.
        """
        try:
            data = read_limited(os.path.join(self.path(container_id), "state.json"))
        except (FileNotFoundError, NotADirectoryError):
            raise ContainerMissing from None
        document = json.loads(data)
        return Record(**{name: document[name] for name in Record.__dataclass_fields__ if name in document})

    def config(self, container_id: str) -> Config:
        """The document as it was at create."""
        return parse_config(read_limited(os.path.join(self.path(container_id), "config.json")))

    def ids(self) -> Iterator[str]:
        """Every container, by name."""
        with contextlib.suppress(FileNotFoundError):
            for name in sorted(os.listdir(self.root)):
                if os.path.exists(os.path.join(self.root, name, "state.json")):
                    yield name

    def remove(self, container_id: str) -> None:
        """Forget a container; may be repeated."""
        shutil.rmtree(self.path(container_id), ignore_errors=True)

    def start_socket(self, container_id: str) -> str:
        """Where init listens until it is started."""
        return os.path.join(self.path(container_id), "start")

    def status(self, record: Record) -> Status:
        """creating, created, running, paused or stopped."""
        if not record.pid or start_ticks(record.pid) != record.pid_start:
            return "creating" if not record.is_set_up and not record.pid else "stopped"
        if not record.is_set_up:
            return "creating"
        if os.path.exists(self.start_socket(record.id)):
            return "created"
        with contextlib.suppress(OSError):
            if record.cgroup().is_frozen():
                return "paused"
        return "running"


def oci_state(record: Record, status: Status) -> dict[str, Any]:
    """The state as the spec has it (runtime.md, "State"), which hooks get and `state` prints."""
    state: dict[str, Any] = {"ociVersion": record.version, "id": record.id, "status": status}
    state["pid"] = 0 if status == "stopped" else record.pid
    state["bundle"] = record.bundle
    if record.annotations:
        state["annotations"] = record.annotations
    return state


def read_limited(path: str) -> bytes:
    """A document of the caller's, never more than the limit."""
    with open(path, "rb") as file:
        data = file.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise Refused(f"{path} is larger than {MAX_DOCUMENT_BYTES >> 20} MiB")
    return data
