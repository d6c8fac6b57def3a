"""The event bus: what happened, told to everybody who listens, and kept for a while.

Publishing never waits: a subscriber that does not keep up loses its oldest events and is told so
by a log line, never blocks the engine. The ring of recent events answers `since`.
Events are published after the commit of what they tell.

Spec: Docker Engine API, `GET /events`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass

from orlop.base import log
from orlop.base.clock import Clock, SystemClock
from orlop.engine.filters import Filters
from orlop.oci.reference import InvalidReference, parse_reference
from orlop.wire.gojson import field

__all__ = ["Actor", "Event", "EventBus", "Subscription", "matches"]

_NANO = 1_000_000_000
_KEPT = 1024  # dockerd keeps 256; a compose project starts more than that
_QUEUE = 4096

_OBJECTS = tuple("config container daemon network node plugin secret service volume".split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """What it happened to."""

    id: str = field("ID")
    attributes: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event as clients see it; the lower-case fields are the old form, still sent."""

    status: str = field("status", omit_empty=True)
    id: str = field("id", omit_empty=True)
    origin: str = field("from", omit_empty=True)
    type: str
    action: str
    actor: Actor
    scope: str = field("scope")
    time: int = field("time")
    time_nano: int = field("timeNano")


class EventBus:
    """One per engine."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._kept: deque[Event] = deque(maxlen=_KEPT)
        self._subscriptions: set[Subscription] = set()
        self._last_ns = 0
        self.on_publish: Callable[[Event], None] | None = None  # counts; never waits, never raises

    def publish(self, type_: str, action: str, actor_id: str, attributes: Mapping[str, str]) -> Event:
        """Tell everybody; after the commit, never inside a transaction."""
        now_ns = max(self._clock.now_ns(), self._last_ns + 1)  # a strict order for `since`
        self._last_ns = now_ns
        legacy = type_ in ("container", "image")
        event = Event(
            status=action if legacy else "",
            id=actor_id if legacy else "",
            origin=attributes.get("image", "") if type_ == "container" else "",
            type=type_,
            action=action,
            actor=Actor(id=actor_id, attributes=dict(attributes)),
            scope="local",
            time=now_ns // _NANO,
            time_nano=now_ns,
        )
        self._kept.append(event)
        if self.on_publish is not None:
            self.on_publish(event)
        for subscription in tuple(self._subscriptions):
            subscription.offer(event)
        return event

    def subscribe(
        self,
        *,
        since_ns: int | None = None,
        until_ns: int | None = None,
        filters: Mapping[str, Iterable[str]] | None = None,
    ) -> Subscription:
        """Listen from now on, after the kept events since `since_ns`; close it when done.

        With `until_ns` alone all kept events come.

        The subscription exists when this returns: nothing published later is missed.
        """
        wanted = Filters(filters)  # keys that dockerd does not know either let everything pass
        subscription = Subscription(self, wanted, until_ns, self._clock)
        if since_ns is not None or until_ns is not None:
            for event in self._kept:
                if event.time_nano >= (since_ns or 0):
                    subscription.offer(event)
        self._subscriptions.add(subscription)
        return subscription

    def listener_count(self) -> int:
        """How many listen now."""
        return len(self._subscriptions)

    def forget(self, subscription: Subscription) -> None:
        """Used by `Subscription.close`."""
        self._subscriptions.discard(subscription)


class Subscription:
    """An async iterator of events; ends at `until`, or when closed."""

    def __init__(self, bus: EventBus, filters: Filters, until_ns: int | None, clock: Clock) -> None:
        self._bus = bus
        self._filters = filters
        self._until_ns = until_ns
        self._clock = clock
        self._queue: deque[Event] = deque()
        self._ready = asyncio.Event()
        self._lost = 0
        self._is_closed = False

    def offer(self, event: Event) -> None:
        """Queue the event when it passes the filters; used by the bus."""
        if self._until_ns is not None and event.time_nano > self._until_ns:
            return
        if not matches(self._filters, event):
            return
        if len(self._queue) >= _QUEUE:
            self._queue.popleft()
            self._lost += 1
        self._queue.append(event)
        self._ready.set()

    def close(self) -> None:
        """Stop listening; may be repeated. An iteration in progress ends."""
        self._is_closed = True
        self._bus.forget(self)
        self._ready.set()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while not self._queue:
            if self._is_closed or not await self._wait():
                self.close()
                raise StopAsyncIteration
        if self._lost:
            log.warning("a listener does not keep up with the events", lost=self._lost)
            self._lost = 0
        return self._queue.popleft()

    async def _wait(self) -> bool:
        """True when there may be an event; False when `until` has passed."""
        self._ready.clear()
        if self._until_ns is None:
            await self._ready.wait()
            return True
        left_s = (self._until_ns - self._clock.now_ns()) / _NANO
        try:
            async with asyncio.timeout(max(left_s, 0)):
                await self._ready.wait()
        except TimeoutError:
            return False
        return True


def matches(filters: Filters, event: Event) -> bool:
    """True when the event passes all the keys."""
    attributes = event.actor.attributes
    return (
        filters.matches_exactly("type", event.type)
        and _matches_action(filters, event.action)
        and filters.matches_exactly("scope", event.scope)
        and filters.matches_labels("label", attributes)
        and filters.excludes_labels("label!", attributes)
        and all(_matches_object(filters, event, type_) for type_ in _OBJECTS)
        and _matches_image(filters, event)
    )


def _matches_action(filters: Filters, action: str) -> bool:
    # `health_status: healthy` and `exec_start: sh` are found by their first word, too
    return filters.matches_exactly("event", action, action.partition(":")[0])


def _matches_object(filters: Filters, event: Event, type_: str) -> bool:
    """By the beginning of id or name, as dockerd does: `container=web` finds `web-1`, too."""
    wanted = filters.get(type_)
    name = event.actor.attributes.get("name", "")
    found = (event.actor.id, name)
    return not wanted or any(value in found or (value and _begins(found, value)) for value in wanted)


def _begins(texts: tuple[str, ...], prefix: str) -> bool:
    return any(text.startswith(prefix) for text in texts)


def _matches_image(filters: Filters, event: Event) -> bool:
    wanted = filters.get("image")
    if not wanted:
        return True
    attributes = event.actor.attributes
    names = {event.actor.id, attributes.get("name", "")} if event.type == "image" else set()
    names.add(attributes.get("image", ""))
    names |= {_untagged(name) for name in tuple(names)}
    return any(value in names for value in wanted)


def _untagged(name: str) -> str:
    try:
        return parse_reference(name).familiar_name
    except InvalidReference:
        return name
