"""Published ports: what a container asks for, and which ports of the host it gets. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from orlop.base.errors import InvalidInput, Kind, OrlopError
from orlop.engine.network_model import LivePort
from orlop.engine.requests import ContainerConfig, HostConfig, PortBinding
from orlop.network.ipam import Address

__all__ = ["PortInUse", "PortWish", "choose_ports", "read_wishes"]

_PORT = re.compile(r"([0-9]{1,5})(?:/(tcp|udp|sctp))?\Z", re.ASCII)
_SPAN = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?\Z", re.ASCII)
_MAX_PORT = 65535

Taken = Collection[tuple[str, str, int]]  # protocol, address of the host, port
IsFree = Callable[[str, str, int], bool]  # whether no process of the host has it


class PortInUse(OrlopError):
    """A port of the host is somebody else's."""

    kind = Kind.CONFLICT
    code = "port-in-use"


@dataclass(frozen=True, slots=True)
class PortWish:
    """One binding. `first` 0: any port. Without an address it is every address of the host."""

    port: str  # as inspect shows it
    protocol: str
    target: int
    host_ip: str = ""
    first: int = 0
    last: int = 0


def read_wishes(host: HostConfig, config: ContainerConfig) -> list[PortWish]:
    """What `-p` and `-P` ask for.

    Raises:
        InvalidInput: with dockerd's texts.
    """
    bindings = dict(host.port_bindings or {})
    if host.publish_all_ports:
        for port in config.exposed_ports or ():
            for single in _expand(port):
                if not bindings.get(single):
                    bindings[single] = (PortBinding(),)
    return [_wish(port, binding) for port in sorted(bindings, key=_order) for binding in bindings[port] or ()]


def _expand(port: str) -> Iterator[str]:
    """`8000-8002/tcp` is three ports."""
    span, _, protocol = port.partition("/")
    found = _SPAN.match(span)
    if found:
        for number in range(int(found[1]), int(found[2] or found[1]) + 1):
            yield f"{number}/{protocol or 'tcp'}"


def _order(port: str) -> tuple[int, str]:
    number = port.partition("/")[0]
    return (int(number) if number.isdecimal() else 0), port


def _wish(port: str, binding: PortBinding) -> PortWish:
    found = _PORT.match(port)
    target = int(found[1]) if found else 0
    if found is None or not 0 < target <= _MAX_PORT:
        raise InvalidInput(f"invalid port specification: {port[:60]!r}")
    if binding.host_ip:
        try:
            ipaddress.ip_address(binding.host_ip)
        except ValueError as error:
            raise InvalidInput(f"invalid IP address: {binding.host_ip[:60]}") from error
    protocol = found[2] or "tcp"
    first, last = _span(binding.host_port)
    return PortWish(f"{target}/{protocol}", protocol, target, binding.host_ip, first, last)


def _span(text: str) -> tuple[int, int]:
    if text in ("", "0"):
        return 0, 0
    found = _SPAN.match(text)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 0 < first <= last <= _MAX_PORT:
        raise InvalidInput(f'Invalid port specification: "{text[:60]}"')
    return first, last


@dataclass(slots=True)
class _Chooser:
    """Ports that are given one after the other."""

    addresses: Sequence[Address]  # of the endpoint
    default_ip: str
    taken: set[tuple[str, str, int]]
    is_free: IsFree
    dynamic: Sequence[int]

    def choose(self, wish: PortWish) -> list[LivePort]:
        pairs = self._pairs(wish)
        candidates: Iterable[int] = range(wish.first, wish.last + 1) if wish.first else self.dynamic
        refusal: PortInUse | None = None
        for number in candidates:
            problem = self._problem(wish, pairs, number)
            if problem is None:
                self.taken |= {(wish.protocol, ip, number) for ip, _ in pairs}
                return [
                    LivePort(wish.port, wish.protocol, ip, number, str(address), wish.target)
                    for ip, address in pairs
                ]
            refusal = refusal or problem
        if wish.first and refusal is not None:
            raise refusal
        raise PortInUse("all ports are allocated", hint="remove containers that publish ports")

    def _pairs(self, wish: PortWish) -> list[tuple[str, Address]]:
        """Addresses of the host, and of the endpoint in the same version."""
        wanted = wish.host_ip or self.default_ip
        hosts = [wanted] if wanted else ["0.0.0.0", "::"]
        pairs = []
        for text in hosts:
            host = ipaddress.ip_address(text)
            address = next((one for one in self.addresses if one.version == host.version), None)
            if address is not None:
                pairs.append((str(host), address))
        if not pairs:
            version = ipaddress.ip_address(wanted).version if wanted else 4
            raise InvalidInput(
                f"cannot publish {wish.port} on {wanted or 'this host'}: "
                f"the container has no IPv{version} address",
                hint="use a network with --ipv6" if version == 6 else None,
            )
        return pairs

    def _problem(self, wish: PortWish, pairs: list[tuple[str, Address]], number: int) -> PortInUse | None:
        for ip, address in pairs:
            shown = f"[{ip}]:{number}" if ":" in ip else f"{ip}:{number}"
            if any(_clash(one, (wish.protocol, ip, number)) for one in self.taken):
                return PortInUse(f"Bind for {shown} failed: port is already allocated")
            if not self.is_free(wish.protocol, ip, number):
                return PortInUse(
                    f"failed to bind host port for {shown}:{address}:{wish.target}/{wish.protocol}: "
                    "address already in use"
                )
        return None


def _clash(one: tuple[str, str, int], other: tuple[str, str, int]) -> bool:
    if one[0] != other[0] or one[2] != other[2]:
        return False
    first, second = ipaddress.ip_address(one[1]), ipaddress.ip_address(other[1])
    same_version = first.version == second.version
    return same_version and (first == second or first.is_unspecified or second.is_unspecified)


def choose_ports(
    wishes: Iterable[PortWish],
    addresses: Sequence[Address],
    *,
    default_ip: str,
    taken: Taken,
    is_free: IsFree,
    dynamic: Sequence[int],
) -> list[LivePort]:
    """A port of the host for each wish; fixed ones first, so that a random one does not take theirs.

    Args:
        wishes: what is asked for.
        addresses: of the endpoint that they lead to.
        default_ip: the host's address of wishes that name none; "" = every address.
        taken: ports that lead to other endpoints.
        is_free: asks the host.
        dynamic: where random ports come from, in the order of trying.

    Raises:
        PortInUse: with dockerd's text.
    """
    chooser = _Chooser(addresses, default_ip, set(taken), is_free, dynamic)
    ordered = sorted(wishes, key=lambda wish: not wish.first)
    return [port for wish in ordered for port in chooser.choose(wish)]
