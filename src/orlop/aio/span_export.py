"""Sends spans to a collector in the background: bounded, and nothing waits for it.

What does not fit into the queue, or what the collector does not take, is dropped and counted in a log
line, at most one a minute.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from orlop.aio.http_client import BytesBody, Dial, HttpClient
from orlop.aio.url import Url
from orlop.base import log
from orlop.base.clock import Clock, SystemClock
from orlop.base.errors import OrlopError
from orlop.base.trace import Span
from orlop.wire.otlp import encode_spans

__all__ = ["SpanExporter", "SpanTarget"]

QUEUE = 2048
BATCH = 512
_GATHER_S = 0.5
_TIMEOUT_S = 10.0
_LAST_S = 2.0
_LOG_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class SpanTarget:
    """Where spans go and what is said of their source."""

    url: Url
    resource: Mapping[str, object]
    version: str
    headers: Mapping[str, str] = field(default_factory=dict)
    dial: Dial = field(default_factory=Dial)


class SpanExporter:
    """One per engine that has a collector; `offer` is the sink of `base.trace`."""

    def __init__(
        self,
        target: SpanTarget,
        *,
        queue: int = QUEUE,
        gather_s: float = _GATHER_S,
        clock: Clock | None = None,
    ) -> None:
        self._target = target
        self._queue: deque[Span] = deque()
        self._capacity = queue
        self._gather_s = gather_s
        self._clock = clock or SystemClock()
        self._ready = asyncio.Event()
        self._client = HttpClient(user_agent=f"orlop/{target.version}", connect_timeout_s=_TIMEOUT_S)
        self._lost = 0
        self._logged_s = -_LOG_EVERY_S

    def offer(self, span: Span) -> None:
        """Queue a span; never waits."""
        if len(self._queue) >= self._capacity:
            self._lost += 1
            return
        self._queue.append(span)
        self._ready.set()

    async def run(self) -> None:
        """Send what is queued, for ever."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            await asyncio.sleep(self._gather_s)
            await self._send_all()

    async def aclose(self) -> None:
        """Send what is left, for two seconds at most."""
        try:
            async with asyncio.timeout(_LAST_S):
                await self._send_all()
        except TimeoutError:
            self._lost += len(self._queue)
        self._client.close()

    async def _send_all(self) -> None:
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
            problem = await self._send(batch)
            if problem:
                self._lost += len(batch)
            self._report(problem)

    async def _send(self, batch: list[Span]) -> str:
        """What went wrong; "" when the collector has them."""
        target = self._target
        body = BytesBody(encode_spans(batch, target.resource, target.version))
        headers = {"Content-Type": "application/json", **target.headers}
        try:
            async with (
                asyncio.timeout(_TIMEOUT_S),
                self._client.request(
                    "POST",
                    target.url,
                    headers=headers,
                    body=body,
                    dial=target.dial,
                    answer_timeout_s=_TIMEOUT_S,
                ) as response,
            ):
                return "" if 200 <= response.status < 300 else f"the collector answers {response.status}"
        except TimeoutError:
            return f"the collector takes longer than {_TIMEOUT_S:g} s"
        except (OrlopError, OSError) as error:
            return str(error)

    def _report(self, problem: str) -> None:
        now_s = self._clock.monotonic_s()
        if self._lost and now_s - self._logged_s >= _LOG_EVERY_S:
            log.warning(
                "spans were dropped",
                lost=self._lost,
                collector=str(self._target.url.origin),
                error=problem or "more spans than the collector takes",
            )
            self._lost, self._logged_s = 0, now_s
