"""Spans: what a request spent its time on. Off, and then one `if`, until the composition root gives a sink.

The current span is a context variable, so tasks that are started inside a span belong to it. What a client
says of itself comes as `traceparent`; one that is not sampled there is not recorded here.
Spec: W3C Trace Context, "traceparent header"; OpenTelemetry, tracing API.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType

from orlop.base.clock import SystemClock
from orlop.base.errors import OrlopError

__all__ = ["INTERNAL", "SERVER", "Span", "begin", "is_on", "parse_traceparent", "set_sink", "span"]

INTERNAL, SERVER = 1, 2  # OpenTelemetry's SpanKind
MAX_ATTRIBUTES = 16
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z")
_NONE_TRACE, _NONE_SPAN = "0" * 32, "0" * 16

_clock = SystemClock()


class Span:
    """A piece of work; `end` tells it. Ending twice is harmless."""

    __slots__ = (
        "attributes",
        "ended_ns",
        "error",
        "is_sampled",
        "kind",
        "name",
        "parent_id",
        "span_id",
        "started_ns",
        "trace_id",
    )

    def __init__(self, name: str, kind: int, trace_id: str, parent_id: str, *, is_sampled: bool) -> None:
        self.name = name
        self.kind = kind
        self.trace_id = trace_id
        self.span_id = os.urandom(8).hex()
        self.parent_id = parent_id
        self.is_sampled = is_sampled
        self.started_ns = _clock.now_ns()
        self.ended_ns = 0
        self.attributes: dict[str, object] = {}
        self.error = ""

    def end(self, error: BaseException | None = None) -> None:
        """It is over."""
        if self.ended_ns:
            return
        self.ended_ns = max(_clock.now_ns(), self.started_ns)
        if error is not None:
            self.error = error.message if isinstance(error, OrlopError) else type(error).__name__
        if self.is_sampled and _Switch.sink is not None:
            _Switch.sink(self)

    def __enter__(self) -> Span:
        _current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end(error)


class _Child(Span):
    """A span whose block gives the current place back to its parent."""

    __slots__ = ("parent",)

    def __init__(self, name: str, parent: Span) -> None:
        super().__init__(name, INTERNAL, parent.trace_id, parent.span_id, is_sampled=parent.is_sampled)
        self.parent = parent

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _current.set(self.parent)
        self.end(error)


class _Nothing:
    """What `span` gives while nobody listens."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


_NOTHING = _Nothing()
_current: ContextVar[Span | None] = ContextVar("span", default=None)


class _Switch:
    sink: Callable[[Span], None] | None = None


def set_sink(sink: Callable[[Span], None] | None) -> None:
    """Tell ended spans to `sink`, which must neither wait nor raise; None switches off."""
    _Switch.sink = sink


def is_on() -> bool:
    """True while somebody listens."""
    return _Switch.sink is not None


def begin(name: str, traceparent: str) -> Span:
    """The span of a request, current in this task from now on; the caller ends it."""
    trace_id, parent_id, is_sampled = parse_traceparent(traceparent) or (os.urandom(16).hex(), "", True)
    span = Span(name, SERVER, trace_id, parent_id, is_sampled=is_sampled)
    _current.set(span)
    return span


def span(name: str, **attributes: object) -> Span | _Nothing:
    """A part of a request's work, for a `with` statement.

    What goes on after the request has ended (a watcher, a restart) is no part of it.
    """
    if _Switch.sink is None or (parent := _current.get()) is None or parent.ended_ns:
        return _NOTHING
    child = _Child(name, parent)
    child.attributes = attributes
    return child


def parse_traceparent(text: str) -> tuple[str, str, bool] | None:
    """Trace, parent, and whether it is sampled; None for what is no such header."""
    found = _PARENT.match(text) if len(text) <= 256 else None
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5]):
        return None
    if found[2] == _NONE_TRACE or found[3] == _NONE_SPAN:
        return None
    return found[2], found[3], bool(int(found[4], 16) & 1)
