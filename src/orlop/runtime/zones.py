"""Names of a network, as its containers' supervisors read them: a file that the engine replaces.

`{"names": {"web": ["10.9.0.2"]}, "pointers": {"10.9.0.2": "web.front"}}`, names in lower case. It is
read again when it is another file than before; while there is no engine, the last one holds.
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Sequence

__all__ = ["Zone", "Zones"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_MAX_BYTES = 8 << 20


class Zone:
    """One network's names; a path of our own."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._seen: tuple[int, int] | None = None
        self._names: dict[str, list[Address]] = {}
        self._pointers: dict[str, str] = {}

    def addresses(self, name: str) -> list[Address]:
        """What a name leads to; empty when the network has no such name."""
        self._refresh()
        return self._names.get(name, [])

    def name_of(self, address: Address) -> str:
        """The name of an address, or ""."""
        self._refresh()
        return self._pointers.get(str(address), "")

    def _refresh(self) -> None:
        try:
            status = os.stat(self.path)
        except OSError:  # between two engines, or the network is gone
            return
        seen = (status.st_ino, status.st_mtime_ns)
        if seen == self._seen or status.st_size > _MAX_BYTES:
            return
        try:
            with open(self.path, "rb") as file:
                data = json.loads(file.read())
            names = {
                str(name): [ipaddress.ip_address(text) for text in texts]
                for name, texts in data["names"].items()
            }
            pointers = {str(address): str(name) for address, name in data["pointers"].items()}
        except (OSError, ValueError, KeyError, AttributeError):
            return
        self._seen, self._names, self._pointers = seen, names, pointers


class Zones:
    """All networks of a container: a name is looked up in one after the other."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._zones = [Zone(path) for path in paths]

    def use(self, paths: Sequence[str]) -> None:
        """The container has come to another set of networks."""
        known = {zone.path: zone for zone in self._zones}
        self._zones = [known.get(path) or Zone(path) for path in paths]

    def addresses(self, name: str) -> list[Address]:
        """Of the first network that knows the name."""
        return next((found for zone in self._zones if (found := zone.addresses(name))), [])

    def name_of(self, address: Address) -> str:
        """Of the first network that has the address."""
        return next((found for zone in self._zones if (found := zone.name_of(address))), "")
