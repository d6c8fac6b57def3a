"""Aligned columns: three blanks between them, headings in capitals, as docker prints tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["ellipsis_text", "render"]

_GAP = 3
_MIN_WIDTH = 10  # docker's tabwriter is made with a cell of at least 10


def render(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The table as text with a final newline; headings alone when there are no rows."""
    table = [tuple(headings), *[tuple(row) for row in rows]]
    count = len(headings)
    widths = [max(_MIN_WIDTH - _GAP, *(len(row[column]) for row in table)) + _GAP for column in range(count)]
    lines = []
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        lines.append("".join([*cells, row[-1]]).rstrip())
    return "\n".join(lines) + "\n"


def ellipsis_text(text: str, width: int) -> str:
    """At most `width` characters, the last one `…` when something was cut."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"
