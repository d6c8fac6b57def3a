"""What init cannot do in a user namespace of its own, and how it gets it: as descriptors, from outside.

Two children of the supervisor make such a container. *init* is born into all the new namespaces and
has no power over the host's files. The *host side* (`hostside.py`) has that power and a mount
namespace to itself: it makes the idmapped layers and binds, the overlay and the device nodes, sends
them as detached mounts, and ends. init waits for them in the step `mount sources`.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from typing import Any

from orlop.kernel import mount, userns
from orlop.procs.channel import MAX_FDS, Channel
from orlop.runtime import cgroupfs
from orlop.runtime.rootfs import Source, options_of
from orlop.runtime.spec import ContainerSpec, IdMapping, MountSpec, UserNamespaceSpec
from orlop.runtime.speccodec import mount_spec_from_json

__all__ = [
    "HostSideFailed",
    "Made",
    "Outside",
    "enter_root_mount",
    "host_id",
    "join_cgroup",
    "receive",
    "send",
]

_FDS_A_MESSAGE = MAX_FDS - 1


class HostSideFailed(Exception):
    """The host side said what went wrong: `report` is what init would have said."""

    def __init__(self, report: dict[str, Any]) -> None:
        super().__init__(report.get("message", ""))
        self.report = report


@dataclass(frozen=True, slots=True)
class Outside:
    """What init inherits: the channel to the host side, its cgroup's files opened with the host's rights."""

    channel: Channel
    cgroup_fds: tuple[int, ...]

    def descriptors(self) -> list[int]:
        """All of them."""
        return [self.channel.fileno(), *self.cgroup_fds]


@dataclass(slots=True)
class Made:
    """What the host side made; -1 for nothing."""

    root: int = -1
    null: int = -1
    dev: int = -1
    shm: int = -1
    sources: list[Source] = field(default_factory=list)
    cgroup: cgroupfs.Sources | None = None


def host_id(mappings: tuple[IdMapping, ...], inside: int) -> int:
    """What an id of the container is on the host; ids without a place count as the container's root."""
    for item in mappings:
        if item.container_id <= inside < item.container_id + item.size:
            return item.host_id + inside - item.container_id
    return host_id(mappings, 0) if inside else 0


def send(channel: Channel, made: Made) -> None:
    """The host side's last word."""
    fds: list[int] = []

    def place(fd: int) -> int:
        if fd < 0:
            return -1
        fds.append(fd)
        return len(fds) - 1

    body: dict[str, Any] = {name: place(getattr(made, name)) for name in ("root", "null", "dev", "shm")}
    body["sources"] = [
        {"kind": item.spec.kind, "target": item.spec.target, "source": item.spec.source}
        | {"options": item.spec.options, "fd": place(item.fd)}
        for item in made.sources
    ]
    if made.cgroup is not None:
        body["cgroup"] = [(name, place(fd)) for name, fd in made.cgroup.mounts]
        body["links"] = made.cgroup.links
    for first in range(0, len(fds), _FDS_A_MESSAGE):
        channel.send({"more": True}, fds[first : first + _FDS_A_MESSAGE])
    channel.send({"made": body})


def receive(outside: Outside) -> Made:
    """What the host side made, as soon as it is there.

    Raises:
        HostSideFailed: it could not.
    """
    fds: list[int] = []
    while True:
        message = outside.channel.receive()
        if message is None:
            raise OSError(errno.EPIPE, "the host's side of the start ended early")
        fds += message.fds
        if "made" in message.body:
            return _made(message.body["made"], fds)
        if "more" not in message.body:
            raise HostSideFailed(message.body)


def _made(body: dict[str, Any], fds: list[int]) -> Made:
    def fd_of(place: int) -> int:
        return fds[place] if place >= 0 else -1

    made = Made(fd_of(body["root"]), fd_of(body["null"]), fd_of(body["dev"]), fd_of(body["shm"]))
    for item in body["sources"]:
        spec: MountSpec = mount_spec_from_json(item)
        made.sources.append(Source(spec, options_of(spec), fd_of(item["fd"])))
    if "cgroup" in body:
        mounts = tuple((name, fd_of(place)) for name, place in body["cgroup"])
        made.cgroup = cgroupfs.Sources(mounts, tuple((one, other) for one, other in body["links"]))
    return made


def enter_root_mount(spec: ContainerSpec, root_fd: int) -> None:
    """Attach the root where the host's ids still count, and become the container's root from there on."""
    mount.attach(root_fd, spec.run_dir)
    userns.become_root()


def join_cgroup(outside: Outside) -> None:
    """Move this process by files that were opened outside: the kernel asks who opened them."""
    for fd in outside.cgroup_fds:
        os.write(fd, b"0")


def check(spec: UserNamespaceSpec) -> None:
    """Refuse maps that a container cannot live with.

    Raises:
        ValueError: no root, or an empty range.
    """
    for mappings, word in ((spec.uids, "uid"), (spec.gids, "gid")):
        if not any(item.container_id == 0 for item in mappings) or any(item.size < 1 for item in mappings):
            raise ValueError(f"the user namespace maps no {word} 0")
