"""`orlop port`."""

from __future__ import annotations

from typing import Any

from orlop.base.errors import NotFound
from orlop.cli.context import Context
from orlop.cli.flags import Command, Parsed
from orlop.client.client import path_of

COMMAND = Command(
    "port CONTAINER [PRIVATE_PORT[/PROTO]]",
    "List port mappings or a specific mapping for the container",
    min_args=1,
    max_args=2,
)


def run(context: Context, parsed: Parsed) -> int:
    """Print `80/tcp -> 0.0.0.0:8080` lines, or the addresses of one port."""
    name = parsed.args[0]
    settings = context.client.call("GET", path_of("containers", name, "json"))["NetworkSettings"]
    ports: dict[str, Any] = settings.get("Ports") or {}
    if len(parsed.args) == 1:
        for port in sorted(ports, key=_order):
            for line in _addresses(ports[port]):
                context.print(f"{port} -> {line}")
        return 0
    number, _, protocol = parsed.args[1].partition("/")
    wanted = f"{number}/{protocol or 'tcp'}"
    lines = _addresses(ports.get(wanted))
    if not lines:
        raise NotFound(f"no public port '{wanted}' published for {name}")
    for line in lines:
        context.print(line)
    return 0


def _order(port: str) -> tuple[int, str]:
    number, _, protocol = port.partition("/")
    return int(number) if number.isdecimal() else 0, protocol


def _addresses(bindings: list[dict[str, str]] | None) -> list[str]:
    return [f"{_host(item.get('HostIp', ''))}:{item.get('HostPort', '')}" for item in bindings or []]


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
