"""EXPOSE: `[ip:][host:]container[-end][/protocol]` to the ports of an image."""

from __future__ import annotations

__all__ = ["parse_ports"]

_PROTOCOLS = ("tcp", "udp", "sctp")
_MAX_PORT = 65_535


def parse_ports(specs: list[str]) -> list[str]:
    """`8080-8081/UDP` is `8080/udp`, `8081/udp`; addresses and host ports are read and dropped.

    Raises:
        ValueError: in the words of the builder that users know.
    """
    found: dict[str, None] = {}
    for spec in specs:
        head, _, text = spec.rpartition(":")
        port, _, protocol = text.partition("/")
        if not port:
            raise ValueError(f'invalid port: "{spec}": no port specified')
        if (protocol.lower() or "tcp") not in _PROTOCOLS:
            raise ValueError(f'invalid port: "{spec}": invalid proto: {protocol}')
        first, last = _range(port, f"invalid containerPort: {port}")
        host = head.rpartition(":")[2] if not head.endswith("]") else ""
        if host and not host.startswith("["):
            _range(host, f"invalid hostPort: {host}")
        for number in range(first, last + 1):
            found[f"{number}/{protocol.lower() or 'tcp'}"] = None
    return list(found)


def _range(text: str, message: str) -> tuple[int, int]:
    start, dash, end = text.partition("-")
    first = _number(start, message)
    last = _number(end, message) if dash else first
    if last < first:
        raise ValueError(message)
    return first, last


def _number(text: str, message: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5) or int(text) > _MAX_PORT:
        raise ValueError(message)
    return int(text)
