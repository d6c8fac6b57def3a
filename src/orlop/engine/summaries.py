"""`ps`: which containers a filter wants, and what a row says. Served from memory; never waits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from orlop.base.errors import InvalidInput
from orlop.engine.catalog import Catalog
from orlop.engine.filters import Filters
from orlop.engine.lifecycle import Status, is_active
from orlop.engine.model import Container, RowParts
from orlop.engine.network_model import NOTHING
from orlop.engine.network_wishes import endpoint_settings, networks_of
from orlop.engine.status import command_line, status_text
from orlop.engine.views import ContainerSummary, Port, SummaryHost, SummaryNetworks

__all__ = ["ListOptions", "parse_port", "select", "summarize"]

FILTER_KEYS = frozenset(
    "ancestor before exited expose health id is-task isolation label name network publish since status "
    "volume".split()
)
# in the order in which dockerd tells them
_STATES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")
_HEALTH = ("none", "starting", "healthy", "unhealthy")


@dataclass(frozen=True, slots=True)
class ListOptions:
    """The parameters of a list."""

    is_all: bool = False
    limit: int = 0
    filters: Filters = field(default_factory=Filters)


def select(
    catalog: Catalog, options: ListOptions, is_ancestor: Callable[[Container], bool]
) -> list[Container]:
    """The containers wanted, newest first.

    Args:
        catalog: all of them.
        options: what the client asked for.
        is_ancestor: whether the container comes of one of the `ancestor` images.

    Raises:
        InvalidInput, NoSuchContainer: a filter is wrong.
    """
    filters = options.filters
    filters.check_keys(FILTER_KEYS)
    _check_values(filters)
    older = [catalog.get(name).record.created_ns for name in filters.get("before")]
    newer = [catalog.get(name).record.created_ns for name in filters.get("since")]
    names_status = "status" in filters or "exited" in filters or older or newer
    shows_stopped = options.is_all or options.limit > 0 or bool(names_status)
    found = [
        container
        for container in catalog
        if (shows_stopped or is_active(container.status))
        and all(container.record.created_ns < limit for limit in older)
        and all(container.record.created_ns > limit for limit in newer)
        and (not filters or _matches(container, filters))
        and is_ancestor(container)
    ]
    found.sort(key=lambda container: container.record.created_ns, reverse=True)
    return found[: options.limit] if options.limit > 0 else found


def _check_values(filters: Filters) -> None:
    for value in filters.get("status"):
        if value not in _STATES:
            raise _invalid("status", "state", value, _STATES)
    for value in filters.get("health"):
        if value not in _HEALTH:
            raise _invalid("health", "health", value, _HEALTH)
    for value in filters.get("exited"):
        if not value.lstrip("-").isdecimal():
            told = f'strconv.Atoi: parsing "{value[:60]}": invalid syntax'
            raise InvalidInput(f"invalid filter 'exited={value[:60]}': {told}")
    filters.get_bool("is-task")
    for key in ("publish", "expose"):
        for text in filters.get(key):
            _check_ports(key, text)


def _check_ports(key: str, text: str) -> None:
    first, _, last = text.partition("/")[0].partition("-")
    for word, number in (("start", first), ("end", last or first)):
        if not (number.isascii() and number.isdecimal()):
            told = f"invalid {word} port '{number[:60]}': invalid syntax"
            raise InvalidInput(f"error while looking up for {key} {text[:60]}: {told}")


def _invalid(key: str, word: str, value: str, known: Iterable[str]) -> InvalidInput:
    shown = value[:60]
    told = f"invalid value for {word} ({shown}): must be one of {', '.join(known)}"
    return InvalidInput(f"invalid filter '{key}={shown}': {told}")


def _matches(container: Container, filters: Filters) -> bool:
    record, state = container.record, container.state
    return (
        (not filters.get("id") or any(record.id.startswith(value) for value in filters.get("id")))
        and _matches_name(filters, record.name)
        and filters.matches_exactly("status", state.status.value)
        and filters.matches_exactly("health", state.health or "none")
        and _matches_exit(filters, container)
        and filters.matches_labels("label", record.config.labels)
        and _matches_volume(filters, container)
        and filters.matches_exactly("network", *_network_names(container))
        and _matches_ports(filters.get("expose"), record.config.exposed_ports or ())
        and _matches_ports(filters.get("publish"), record.host.port_bindings or ())
        and not filters.get_bool("is-task")
    )


def _matches_name(filters: Filters, name: str) -> bool:
    return filters.matches_pattern("name", name) or filters.matches_pattern("name", f"/{name}")


def _matches_exit(filters: Filters, container: Container) -> bool:
    if "exited" not in filters:
        return True
    state = container.state
    return state.status is Status.EXITED and str(state.exit_code) in filters.get("exited")


def _matches_volume(filters: Filters, container: Container) -> bool:
    if "volume" not in filters:
        return True
    points = [mount.point for mount in container.record.mounts]
    known = {value for point in points for value in (point.name, point.source, point.destination) if value}
    return any(value in known for value in filters.get("volume"))


def _network_names(container: Container) -> tuple[str, ...]:
    """Names, and ids of those that it is on now."""
    live = container.network or NOTHING
    return (*networks_of(container.record), *(item.network_id for item in live.endpoints))


def _matches_ports(wanted: tuple[str, ...], ports: Iterable[str]) -> bool:
    if not wanted:
        return True
    have = {parse_port(port) for port in ports}
    for text in wanted:
        span, _, kind = text.partition("/")
        first, _, last = span.partition("-")
        low, high = int(first[:6]), int((last or first)[:6])
        if any(low <= number <= high and protocol == (kind or "tcp") for number, protocol in have):
            return True
    return False


def parse_port(text: str) -> tuple[int, str]:
    """`80/tcp` -> (80, "tcp"); nonsense is port 0."""
    number, _, protocol = text.partition("/")
    return (int(number[:6]) if number.isdecimal() else 0), (protocol or "tcp").lower()


def summarize(container: Container, now_ns: int, meant: str | None) -> ContainerSummary:
    """The row of one container, without sizes.

    Args:
        container: what to show.
        now_ns: for the words about times.
        meant: id of the image that its image name means now; when that is another, the id is shown.
    """
    record, state = container.record, container.state
    parts = container.row_parts
    if parts is None or parts.record is not record or parts.live is not container.network:
        parts = container.row_parts = _row_parts(container)
    return ContainerSummary(
        id=record.id,
        names=parts.names,
        image=record.image_name if meant == record.image_id else record.image_id,
        image_id=record.image_id,
        command=parts.command,
        created=parts.created,
        ports=parts.ports if is_active(state.status) else (),
        labels=parts.labels,
        state=state.status.value,
        status=status_text(state, now_ns),
        host_config=parts.host,
        network_settings=parts.networks,
        mounts=parts.mounts,
    )


def _ports(container: Container) -> tuple[Port, ...]:
    """Published ones with their place on the host, then those that are just exposed."""
    published = (container.network or NOTHING).ports
    exposed = sorted(parse_port(port) for port in container.record.config.exposed_ports or ())
    taken = {(port.target, port.protocol) for port in published}
    return (
        *(Port(port.host_ip, port.target, port.host_port, port.protocol) for port in published),
        *(Port(private_port=number, type=kind) for number, kind in exposed if (number, kind) not in taken),
    )


def _row_parts(container: Container) -> RowParts:
    record = container.record
    return RowParts(
        record=record,
        names=(f"/{record.name}",),
        command=command_line(record.path, record.args),
        created=record.created_ns // 1_000_000_000,
        live=container.network,
        ports=_ports(container),
        labels=record.config.labels or {},
        host=SummaryHost(record.host.network_mode, record.host.annotations),
        networks=SummaryNetworks(endpoint_settings(container)),
        mounts=tuple(mount.point for mount in record.mounts if mount.point.type != "tmpfs"),
    )
