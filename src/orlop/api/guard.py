"""Refuses what a browser on the same machine may send on behalf of a hostile page.

A web page cannot open a unix socket, so only TCP is checked: the Host must be an address, localhost
or a configured name (DNS rebinding), and a request that a page of another origin made is refused
(Origin, Sec-Fetch-Site). Clients that are not browsers send neither.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from orlop.aio.http_messages import Peer
from orlop.base.errors import Kind, OrlopError

__all__ = ["Forbidden", "check_origin"]

_ADDRESS = re.compile(r"(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|\[[0-9A-Fa-f:.]+\]|localhost)\Z")


class Forbidden(OrlopError):
    """The request looks like a browser's on behalf of another site."""

    kind = Kind.FORBIDDEN
    code = "forbidden-origin"
    remedy = "programs that are no browsers send neither Origin nor Sec-Fetch-Site"


def check_origin(headers: Mapping[str, str], peer: Peer, allowed_names: frozenset[str] = frozenset()) -> None:
    """Raise Forbidden for a request that must not be served.

    Args:
        headers: names in lower case.
        peer: unix peers pass.
        allowed_names: further host names under which this engine is reached.
    """
    if peer.transport == "unix":
        return
    host = headers.get("host", "").lower()
    name = host.rpartition(":")[0] if re.search(r":[0-9]+\Z", host) else host
    if name and not _ADDRESS.match(name) and name not in allowed_names:
        raise Forbidden(
            f"host {name[:80]!r} is not a name of this engine",
            hint="reach it by address or localhost, or allow the name in the configuration",
        )
    if headers.get("sec-fetch-site", "none").lower() not in ("none", "same-origin"):
        raise Forbidden("requests of other sites are refused")
    origin = headers.get("origin", "").lower()
    if origin and origin not in (f"http://{host}", f"https://{host}"):
        raise Forbidden(f"origin {origin[:80]!r} is refused")
