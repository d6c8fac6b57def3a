"""What a registry counts, as Prometheus reads it. Labels are ours: nobody can make more of them."""

from __future__ import annotations

from collections import Counter

from orlop.wire import promtext

__all__ = ["Meters"]

_BOUNDS_S = (0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})


class Meters:
    """Counters of one server. `is_public`: anybody may read them at /metrics."""

    content_type = promtext.CONTENT_TYPE

    def __init__(self, *, is_public: bool = False) -> None:
        self.is_public = is_public
        self.collections = 0
        self.freed_bytes = 0
        self.cache_hits = 0
        self.cache_misses = 0
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._sent_bytes: Counter[str] = Counter()
        self._took: dict[str, list[float]] = {}

    def count(self, operation: str, method: str, status: int, size: int, took_s: float) -> None:
        """One request has been answered."""
        name = operation if operation.replace("-", "").isalpha() and len(operation) < 20 else "other"
        self._requests[name, method if method in _METHODS else "other", status] += 1
        self._sent_bytes[name] += size
        row = self._took.setdefault(name, [0.0] * (len(_BOUNDS_S) + 2))
        for index, bound in enumerate(_BOUNDS_S):
            row[index] += took_s <= bound
        row[-2] += 1
        row[-1] += took_s

    def text(self) -> bytes:
        """The exposition."""
        requests = promtext.Family("orlop_registry_requests_total", "counter", "Requests answered.")
        for (name, method, status), value in sorted(self._requests.items()):
            labels = {"operation": name, "method": method, "code": str(status)}
            requests.add(value, promtext.label_text(labels))
        sent = promtext.Family("orlop_registry_sent_bytes_total", "counter", "Bytes of bodies sent.")
        for name, value in sorted(self._sent_bytes.items()):
            sent.add(value, promtext.label_text({"operation": name}))
        return promtext.encode((requests, sent, self._durations(), *self._upkeep()))

    def _durations(self) -> promtext.Family:
        family = promtext.Family(
            "orlop_registry_request_seconds", "histogram", "Seconds until an answer began."
        )
        for name, row in sorted(self._took.items()):
            for bound, value in zip((*map(str, _BOUNDS_S), "+Inf"), row[:-1], strict=True):
                family.add(int(value), promtext.label_text({"operation": name, "le": bound}), "_bucket")
            family.add(row[-1], promtext.label_text({"operation": name}), "_sum")
            family.add(int(row[-2]), promtext.label_text({"operation": name}), "_count")
        return family

    def _upkeep(self) -> list[promtext.Family]:
        rows = (
            ("collections", "Garbage collections done.", self.collections),
            ("freed_bytes", "Bytes that collections freed.", self.freed_bytes),
            ("cache_hits", "Requests to caching repositories answered from here.", self.cache_hits),
            ("cache_misses", "Requests to caching repositories that asked upstream.", self.cache_misses),
        )
        families = []
        for name, text, value in rows:
            family = promtext.Family(f"orlop_registry_{name}_total", "counter", text)
            family.add(value)
            families.append(family)
        return families
