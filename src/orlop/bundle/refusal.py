"""Errors of the command: one line, in the words of other runtimes where callers look for them."""

from __future__ import annotations

from typing import ClassVar

from orlop.base.errors import Kind, OrlopError

__all__ = ["ContainerExists", "ContainerMissing", "Refused", "Unsupported", "WrongState"]


class Refused(OrlopError):
    """The caller's request cannot be carried out."""

    kind: ClassVar[Kind] = Kind.INVALID
    code: ClassVar[str] = "runtime-refused"


class Unsupported(Refused):
    """The bundle asks for something that this runtime or this host does not have."""

    kind: ClassVar[Kind] = Kind.UNSUPPORTED
    code: ClassVar[str] = "runtime-unsupported"


class ContainerMissing(Refused):
    """No container of that id; podman and containerd look for this text."""

    kind: ClassVar[Kind] = Kind.NOT_FOUND
    code: ClassVar[str] = "container-missing"

    def __init__(self) -> None:
        super().__init__("container does not exist")


class ContainerExists(Refused):
    """The id is taken."""

    kind: ClassVar[Kind] = Kind.CONFLICT
    code: ClassVar[str] = "container-exists"

    def __init__(self) -> None:
        super().__init__("container with given ID already exists")


class WrongState(Refused):
    """The container is in no state for this."""

    kind: ClassVar[Kind] = Kind.CONFLICT
    code: ClassVar[str] = "container-wrong-state"
