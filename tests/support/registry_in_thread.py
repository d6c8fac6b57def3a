"""The fake registry for real engines: its loop runs in a thread of the test."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "fakes"))

from fake_registry import INDEX, FakeRegistry, Reply, error, sha256, tar_of

__all__ = ["INDEX", "RegistryInThread", "Reply", "error", "sha256", "tar_of"]


class RegistryInThread:
    """A context manager that gives the `FakeRegistry`; hooks run in its own thread."""

    def __enter__(self) -> FakeRegistry:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._fake = FakeRegistry()
        self._run(self._fake.__aenter__())
        return self._fake

    def __exit__(self, *error) -> None:
        self._run(self._fake.__aexit__(*error))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)
