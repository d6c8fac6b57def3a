"""Names whose bytes are being published, so that a sweep never unlinks them.

Publishing is rename, then row; deleting is row, then unlink. Between the two halves of
either, the same name may come back. Whoever publishes announces the name first; whoever
sweeps checks announcement, row and then unlinks inside one database write, which is also
where rows are made. One instance per store of named files.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["InFlight"]


class InFlight:
    """The announced names."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: Counter[str] = Counter()

    @contextmanager
    def publish(self, name: str) -> Iterator[None]:
        """Announce `name` from before its file appears until its row is committed."""
        with self._lock:
            self._names[name] += 1
        try:
            yield
        finally:
            with self._lock:
                self._names[name] -= 1
                if not self._names[name]:
                    del self._names[name]

    def unless_publishing(self, name: str, action: Callable[[], int]) -> int:
        """Run `action` while nobody can announce `name`; 0 when somebody has.

        Call it inside a database write that has seen that `name` has no row.
        """
        with self._lock:
            return 0 if name in self._names else action()
