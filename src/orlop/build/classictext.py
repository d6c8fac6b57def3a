"""The text of the classic builder: steps in order of the Dockerfile, each with what it wrote.

Stages run at the same time, text does not: what belongs to the step that is next to be told
goes out at once, what belongs to a later one waits, up to a limit. Clients match on these lines:
docker-py looks for `Successfully built`, test suites count `Using cache`.

Source: moby daemon/builder/dockerfile, whose words these are.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from orlop.build.dockerfile.options import Step
from orlop.build.executor import STDERR
from orlop.build.graph import ExecOp, Vertex, VertexId

__all__ = ["ClassicText", "StepView", "TextStream"]

MAX_WAITING_CHARS = 2 << 20  # of one step that is not next; BuildKit clips at the same size
_HIGH_WATER = 256


class TextStream:
    """Messages for the client: added without waiting, taken one by one, `drain` holds back writers."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[dict[str, object] | None] = asyncio.Queue()
        self._drained = asyncio.Event()
        self._drained.set()

    def add(self, message: dict[str, object]) -> None:
        """Append a message."""
        self._messages.put_nowait(message)
        if self._messages.qsize() > _HIGH_WATER:
            self._drained.clear()

    def say(self, text: str) -> None:
        """Append text."""
        self.add({"stream": text})

    def end(self) -> None:
        """No more messages come."""
        self._messages.put_nowait(None)

    async def drain(self) -> None:
        """Wait until the client has taken most of what there is."""
        await self._drained.wait()

    async def take(self) -> dict[str, object] | None:
        """The next message; None at the end."""
        message = await self._messages.get()
        if self._messages.qsize() <= _HIGH_WATER // 2:
            self._drained.set()
        return message


@dataclass(frozen=True, slots=True)
class StepView:
    """What is behind a step: the image id at that point, and whether the step was cached."""

    image_id: str
    is_cached: bool


_NOT_NEEDED = StepView("", is_cached=True)


class ClassicText:
    """Turns the events of a build into text: the `Observer` of the runner.

    Args:
        steps: all steps, in order.
        stream: takes the text.
        view: the state behind a step, None while it is unknown.
        removes: tell that the container of a step is gone (`rm=1`).
        is_first_told: the line of the first step is out already.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        stream: TextStream,
        view: Callable[[int], Awaitable[StepView | None]],
        *,
        removes: bool,
        is_first_told: bool = False,
    ) -> None:
        self._steps = steps
        self._stream = stream
        self._view = view
        self._removes = removes
        self._next = 0
        self._is_told = is_first_told  # the line of step `_next` is out
        self._total = sum(not step.is_trigger for step in steps)
        self._number = int(is_first_told)
        self._waiting: defaultdict[VertexId, list[str]] = defaultdict(list)
        self._waiting_chars: defaultdict[VertexId, int] = defaultdict(int)
        self._containers: dict[VertexId, str] = {}
        self._owner = _owners(steps)
        self._changed = asyncio.Event()
        self._changed.set()

    # --- Observer ---

    def started(self, vertex: Vertex, token: str) -> None:
        """An operation runs; only processes have something to show for it."""
        if isinstance(vertex.op, ExecOp):
            self._containers[vertex.id] = token[:12]
            self._say(vertex.id, f" ---> Running in {token[:12]}\n")

    async def output(self, vertex: Vertex, stream: int, data: bytes) -> None:
        """The process wrote something; errors are red, as the classic builder paints them."""
        text = data.decode("utf-8", "replace")
        self._say(vertex.id, f"\x1b[91m{text}\x1b[0m" if stream == STDERR else text)
        await self._stream.drain()

    def finished(self, vertex: VertexId) -> None:  # noqa: ARG002 - whatever is new, look at the next step
        """A state became known."""
        self._changed.set()

    # --- telling ---

    async def follow(self) -> None:
        """Tell steps as they become known, until cancelled or all are told."""
        while self._next < len(self._steps):
            await self._changed.wait()
            self._changed.clear()
            await self.advance()

    async def advance(self) -> None:
        """Tell as many steps as are known."""
        while self._next < len(self._steps):
            self._begin()
            view = await self._view(self._next)
            if view is None:
                return
            self._end(self._steps[self._next], view)
            self._next += 1
            self._is_told = False

    async def finish(self) -> None:
        """Tell the rest of a build that succeeded.

        A step without a state was not needed: one that stands on it was in the cache, whether
        its own result still is or not.
        """
        await self.advance()
        while self._next < len(self._steps):
            self._end(self._steps[self._next], _NOT_NEEDED)
            self._next += 1
            self._is_told = False
            await self.advance()

    def fail(self, vertex: Vertex) -> None:
        """Tell what a failing step, perhaps a later one, had written."""
        for text in self._waiting.pop(vertex.id, ()):
            self._stream.say(text)

    def _begin(self) -> None:
        if self._is_told:
            return
        self._is_told = True
        step = self._steps[self._next]
        if step.note:
            self._stream.say(f"{step.note}\n")
        if not step.is_trigger:
            self._number += 1
            self._stream.say(f"Step {self._number}/{self._total} : {step.text}\n")
        if step.edge is not None and self._owner.get(step.edge.vertex) == self._next:
            for text in self._waiting.pop(step.edge.vertex, ()):
                self._stream.say(text)

    def _end(self, step: Step, view: StepView) -> None:
        vertex = step.edge.vertex if step.edge and step.makes_layer else None
        if vertex in self._containers and self._removes:
            self._stream.say(f" ---> Removed intermediate container {self._containers[vertex]}\n")
        if view.is_cached and not step.is_from:
            self._stream.say(" ---> Using cache\n")
        if view.image_id or step.is_from:
            self._stream.say(f" ---> {view.image_id[:12]}\n")

    def _say(self, vertex: VertexId, text: str) -> None:
        if self._owner.get(vertex) == self._next and self._is_told:
            self._stream.say(text)
            return
        size = self._waiting_chars[vertex] = self._waiting_chars[vertex] + len(text)
        if size <= MAX_WAITING_CHARS:
            self._waiting[vertex].append(text)
        elif size - len(text) <= MAX_WAITING_CHARS:
            self._waiting[vertex].append("[output clipped, log limit 2MiB reached]\n")


def _owners(steps: Sequence[Step]) -> Mapping[VertexId, int]:
    """The step that tells of a vertex: the first that has it as its own."""
    found: dict[VertexId, int] = {}
    for index, step in enumerate(steps):
        if step.makes_layer and step.edge is not None:
            found.setdefault(step.edge.vertex, index)
    return found
