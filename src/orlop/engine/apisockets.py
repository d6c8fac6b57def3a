"""A socket of the engine in a container, with a role: where it lies, and when it listens.

A directory is mounted, not the socket: an engine that starts makes the socket anew, and what was mounted by
itself would be the dead one. What listens there is given by the composition root; this module does not
know HTTP.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import replace

from orlop.base import log
from orlop.base.errors import InvalidInput, OrlopError
from orlop.engine.model import Container, Record
from orlop.engine.requests import ContainerConfig, HostConfig, OrlopConfig
from orlop.engine.securityopts import confining_options
from orlop.runtime.spec import ContainerSpec, MountSpec

__all__ = ["ROLES", "SOCKET_NAME", "ApiSockets", "as_child", "check_role", "with_address"]

ROLES = ("read-only", "build", "own-children")
SOCKET_NAME = "docker.sock"
_INSIDE = "/run/orlop"

Listen = Callable[[str, str, str], Awaitable[None]]  # container id, role, path of the socket
Close = Callable[[str], Awaitable[None]]


def check_role(wanted: OrlopConfig) -> None:
    """Refuse a role that does not exist.

    Raises:
        InvalidInput: naming those that do.
    """
    if wanted.api_socket and wanted.api_socket not in ROLES:
        raise InvalidInput(
            f"invalid role of an API socket {wanted.api_socket[:60]!r}", hint=f"use one of {', '.join(ROLES)}"
        )


def with_address(config: ContainerConfig, wanted: OrlopConfig) -> ContainerConfig:
    """Tell the container's clients where their socket is, unless they were told otherwise."""
    env = config.env or ()
    if not wanted.api_socket or any(text.startswith("DOCKER_HOST=") for text in env):
        return config
    return replace(config, env=(*env, f"DOCKER_HOST=unix://{_INSIDE}/{SOCKET_NAME}"))


def as_child(host: HostConfig, parent: Record) -> HostConfig:
    """The settings of a child, which must not be a way out of what its parent is confined by."""
    own = parent.host
    return replace(
        host,
        security_opt=confining_options(own.security_opt or ()) or None,
        cap_drop=tuple(dict.fromkeys((*(host.cap_drop or ()), *(own.cap_drop or ())))) or None,
        userns_mode="" if parent.id_map is None else "auto",
        network_mode="none" if own.network_mode == "none" else host.network_mode,
        runtime=own.runtime,
    )


class ApiSockets:
    """The sockets of all containers that have one. `listen` and `close` are set by the composition root."""

    def __init__(self, root: str = "") -> None:
        self._root = root
        self.listen: Listen | None = None
        self.close: Close | None = None

    def directory(self, container_id: str) -> str:
        """Where the socket of a container lies; short, as addresses of sockets are."""
        return os.path.join(self._root, container_id[:32])

    def leftovers(self, container_id: str) -> tuple[str, ...]:
        """What is to be deleted with a container."""
        return (self.directory(container_id),) if self._root else ()

    async def open(self, container: Container) -> None:
        """Listen for a container that has a role; before its program starts, and when an engine does."""
        role = container.record.orlop.api_socket
        if not role or self.listen is None:
            return
        directory = self.directory(container.id)
        os.makedirs(self._root, mode=0o700, exist_ok=True)
        os.makedirs(directory, mode=0o755, exist_ok=True)
        await self.listen(container.id, role, os.path.join(directory, SOCKET_NAME))

    async def reopen(self, container: Container) -> None:
        """Like `open`; a failure is logged, the container goes on without."""
        try:
            await self.open(container)
        except (OrlopError, OSError) as error:
            log.error("API socket of a container is gone", container=container.id, error=error)

    async def ended(self, container: Container) -> None:
        """Nobody is there any more to use it."""
        if container.record.orlop.api_socket and self.close is not None:
            await self.close(container.id)

    def mounted(self, spec: ContainerSpec, container: Container) -> ContainerSpec:
        """The spec with the directory mounted, if the container has a role."""
        if not container.record.orlop.api_socket:
            return spec
        mount = MountSpec("bind", _INSIDE, self.directory(container.id), ("bind", "rprivate", "ro"))
        return replace(spec, mounts=(*spec.mounts, mount))
