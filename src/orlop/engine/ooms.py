"""Event `oom`: a process of a running container was killed for lack of memory.

The supervisor counts; one request per running container waits for the count to grow. What is not told
while the container runs is told with its end (`running.py`).
"""

from __future__ import annotations

from orlop.base.errors import OrlopError
from orlop.engine.model import Container
from orlop.engine.services import Services, emit
from orlop.runtime.contract import Task

__all__ = ["OomEvents"]


class OomEvents:
    """The watches of all running containers; each ends with its container."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def started(self, container: Container) -> None:
        """Tell of every kill from now on."""
        self._begin(container, 0)

    def adopted(self, container: Container) -> None:
        """Go on where the engine before this one was: earlier kills are not told again."""
        self._begin(container, None)

    def _begin(self, container: Container, seen: int | None) -> None:
        assert container.task is not None, "hooks run while the container does"
        container.told_oom_kills = 0
        self._services.later(self._watch(container, container.task, seen), f"oom {container.id[:12]}")

    async def _watch(self, container: Container, task: Task, seen: int | None) -> None:
        while container.task is task:
            try:
                count = await task.wait_oom(seen)
            except OrlopError:
                return  # it has ended, or its supervisor is of an engine that did not count
            if container.task is not task:
                return
            if seen is not None:
                container.told_oom_kills = count
                container.change(is_oom_killed=True)
                emit(self._services, container, "oom")
            seen = count
