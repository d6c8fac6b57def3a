"""What the host says about a port: whether a process of its own has it, and which are for anybody."""

from __future__ import annotations

import errno
import ipaddress
import socket
from contextlib import suppress

__all__ = ["dynamic_range", "is_free"]

_FIRST, _LAST = 49153, 65535
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


def is_free(protocol: str, address: str, port: int) -> bool:
    """Whether nobody listens there; blocks for an instant.

    Only "in use" counts: an address that is not the host's yet, or a protocol that the kernel lacks, is
    no reason not to publish.
    """
    kind = _KINDS.get(protocol)
    if kind is None:
        return True
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    try:
        with socket.socket(family, kind) as sock:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if kind == socket.SOCK_STREAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, port))
            if kind == socket.SOCK_STREAM:
                sock.listen(1)
    except OSError as error:
        return error.errno != errno.EADDRINUSE
    return True


def dynamic_range(start: int) -> list[int]:
    """Ports for those who do not care, beginning anywhere: the kernel's, else Docker's of old."""
    first, last = _FIRST, _LAST
    with suppress(OSError, ValueError), open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        first, last = (int(word) for word in file.read().split()[:2])
    if not 0 < first <= last <= _LAST:
        first, last = _FIRST, _LAST
    begin = first + start % (last - first + 1)
    return [*range(begin, last + 1), *range(first, begin)]
