"""Attach this terminal to a container: shared by run, start, attach and exec."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orlop.base.errors import OrlopError
from orlop.cli.context import Context
from orlop.cli.streams import Detached, parse_detach_keys, pump, raw_terminal, watch_resize
from orlop.client.client import path_of

__all__ = ["Attachment", "attach", "forward_signals"]

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


@dataclass
class Attachment:
    """An open attached stream of a container or an exec."""

    context: Context
    resize_path: str
    connection: socket.socket
    leftover: bytes
    is_multiplexed: bool
    has_tty: bool
    has_stdin: bool
    detach_keys: str = ""

    def serve(self) -> bool:
        """Copy until the end; False when the user detached."""
        keys = parse_detach_keys(self.detach_keys) if self.has_tty and self.has_stdin else None
        with raw_terminal(is_wanted=self.has_tty and self.has_stdin):
            if self.has_tty:
                watch_resize(self._resize)
            try:
                pump(
                    self.connection,
                    self.leftover,
                    is_multiplexed=self.is_multiplexed and not self.has_tty,
                    has_stdin=self.has_stdin,
                    detach_keys=keys,
                )
            except Detached:
                return False
        return True

    def _resize(self, rows: int, columns: int) -> None:
        self.context.client.call("POST", self.resize_path, {"h": rows, "w": columns})


def attach(
    context: Context,
    container: str,
    config: dict[str, Any],
    *,
    streams: dict[str, bool],
    detach_keys: str = "",
) -> Attachment:
    """Open the stream; bytes flow when `serve` is called. `streams` has stdin, stdout, stderr, logs."""
    connection, leftover, is_multiplexed = context.client.hijack(
        path_of("containers", container, "attach"), {"stream": True, **streams, "detachKeys": detach_keys}
    )
    return Attachment(
        context,
        path_of("containers", container, "resize"),
        connection,
        leftover,
        is_multiplexed=is_multiplexed or not config.get("Tty"),
        has_tty=bool(config.get("Tty")),
        has_stdin=bool(streams.get("stdin")),
        detach_keys=detach_keys,
    )


@contextlib.contextmanager
def forward_signals(context: Context, container: str) -> Iterator[None]:
    """Give the signals that this process gets to the container while inside (--sig-proxy)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def give_on(number: int, _frame: object) -> None:
        name = signal.Signals(number).name
        with contextlib.suppress(OrlopError):
            context.client.call("POST", path_of("containers", container, "kill"), {"signal": name})

    before = {number: signal.signal(number, give_on) for number in _FORWARDED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
