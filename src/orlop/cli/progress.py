"""Progress of long work: one line an id on a terminal, plain lines elsewhere.

Values are Docker's jsonmessages: `stream`, or `status` with `id` and `progressDetail`, `error`, `aux`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TextIO

from orlop.base.errors import OrlopError
from orlop.cli.context import is_terminal
from orlop.cli.units import human_size

__all__ = ["WorkFailed", "show_progress"]

_BAR_WIDTH = 50


class WorkFailed(OrlopError):
    """The stream ended with an error; the message is the engine's.

    `exit_code` is that of the command that failed in a build, else 1.
    """

    code = "work-failed"

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def show_progress(
    messages: Iterable[dict[str, Any]], out: TextIO, on_aux: Callable[[dict[str, Any]], object] | None = None
) -> None:
    """Show a stream of messages until it ends.

    Raises:
        WorkFailed: the stream carried an error.
    """
    screen = _Screen(out) if is_terminal(out) else None
    for message in messages:
        if "error" in message:
            detail = message.get("errorDetail") or {}
            raise WorkFailed(str(message["error"]), int(detail.get("code") or 1))
        if "aux" in message:
            if on_aux is not None:
                on_aux(message["aux"])
        elif "stream" in message:
            out.write(message["stream"])
        elif screen is not None:
            screen.show(message)
        elif not message.get("progressDetail"):
            identifier = f"{message['id']}: " if message.get("id") else ""
            out.write(f"{identifier}{message.get('status', '')}\n")
        out.flush()


class _Screen:
    """Lines that are rewritten in place, one per id."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._rows: dict[str, int] = {}

    def show(self, message: dict[str, Any]) -> None:
        identifier = message.get("id")
        if not identifier:
            self._rows.clear()
            self._out.write(f"{message.get('status', '')}\n")
            return
        text = f"{identifier}: {message.get('status', '')} {_bar(message.get('progressDetail') or {})}"
        if identifier not in self._rows:
            self._rows[identifier] = len(self._rows)
            self._out.write(text + "\n")
            return
        up = len(self._rows) - self._rows[identifier]
        self._out.write(f"\x1b[{up}A\x1b[2K\r{text}\r\x1b[{up}B")


def _bar(detail: dict[str, Any]) -> str:
    current, total = detail.get("current") or 0, detail.get("total") or 0
    if not current and not total:
        return ""
    if not total or current > total:
        return human_size(current)
    done = _BAR_WIDTH * current // total
    bar = "=" * done + (">" if done < _BAR_WIDTH else "")
    return f"[{bar:<{_BAR_WIDTH}}]  {human_size(current):>8}/{human_size(total)}"
