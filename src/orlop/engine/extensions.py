"""What callers may ask for beyond Docker's API: one object `Orlop` in a body, which plain clients never send.

The fields of a create are in `requests.OrlopConfig`.
"""

from __future__ import annotations

from dataclasses import dataclass

from orlop.engine.requests import HealthConfig, Labels, Mount, PortBinding, Strings, UpdateRequest
from orlop.wire.gojson import field

__all__ = ["Additions", "Amendment", "Removals", "UpdateBody"]


@dataclass(frozen=True, slots=True)
class Additions:
    """What a container gets in addition; the fields are those of a create."""

    env: Strings | None = None
    labels: Labels | None = None
    binds: Strings | None = None
    mounts: tuple[Mount, ...] | None = None
    tmpfs: Labels | None = None
    port_bindings: dict[str, tuple[PortBinding, ...] | None] | None = None


@dataclass(frozen=True, slots=True)
class Removals:
    """What it shall not have any more: names of variables and labels, paths of mounts, container ports."""

    env: Strings | None = None
    labels: Strings | None = None
    mounts: Strings | None = None
    ports: Strings | None = None


@dataclass(frozen=True, slots=True)
class Amendment:
    """`Orlop` of an update: removals first, then additions; of the health check only what is given.

    `restart`: stop and start it now, if it runs; otherwise the next start brings the change.
    """

    add: Additions | None = None
    remove: Removals | None = None
    healthcheck: HealthConfig | None = None
    health_on_failure: str = ""
    restart: bool = False
    timeout: int | None = field(default=None, omit_none=True)


@dataclass(frozen=True, slots=True)
class UpdateBody(UpdateRequest):
    """The JSON of an update: Docker's fields and ours."""

    orlop: Amendment | None = None
