"""`--storage-opt size=`: how large a container's own layer may become."""

from __future__ import annotations

import re
from collections.abc import Mapping

from orlop.aio import offload
from orlop.base.errors import InvalidInput
from orlop.engine.requests import HostConfig
from orlop.store import writablequota
from orlop.store.snapshots import Workspace

__all__ = ["check_storage_opts", "limit_layer", "parse_storage_opts"]

_SIZE = re.compile(r"([0-9]{1,15})(\.[0-9]{1,6})? ?([kmgtp]?)i?b?\Z", re.IGNORECASE)
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}


def parse_storage_opts(options: Mapping[str, str] | None) -> int:
    """The size in bytes; 0 = no limit.

    Raises:
        InvalidInput: another option, or no size.
    """
    size = 0
    for name, value in (options or {}).items():
        if name.lower() != "size":
            raise InvalidInput(f"Storage opt {name[:60]} not supported")
        found = _SIZE.match(value.strip())
        if not found:
            raise InvalidInput(f"invalid size: '{value[:40]}'")
        size = int(float(found[1] + (found[2] or "")) * (1 << _UNITS[found[3].lower()]))
    return size


async def check_storage_opts(host: HostConfig, data_root: str) -> None:
    """Refuse at create what could not be had at the start.

    Raises:
        InvalidInput, QuotaUnavailable: as named.
    """
    if parse_storage_opts(host.storage_opt) and not await offload.thread(
        writablequota.is_available, data_root
    ):
        raise writablequota.unavailable()


async def limit_layer(host: HostConfig, workspace: Workspace) -> None:
    """Limit the layer of a container that asks for it; at create, and again at every start.

    Raises:
        QuotaUnavailable: the file system cannot.
    """
    size = parse_storage_opts(host.storage_opt)
    if size and workspace.upper and workspace.work:
        await offload.thread(writablequota.limit, workspace.key, workspace.upper, workspace.work, size)
