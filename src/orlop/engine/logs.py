"""`docker logs`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from orlop.engine.model import Container
from orlop.engine.services import Services

__all__ = ["LogOptions", "LogStream", "open_logs"]


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What a client wants to see."""

    follow: bool = False
    has_stdout: bool = True
    has_stderr: bool = True
    since_ns: int = 0
    until_ns: int = 0
    has_timestamps: bool = False
    tail: int = -1
    has_details: bool = False


@dataclass(slots=True)
class LogStream:
    """Bytes for the client."""

    chunks: AsyncIterator[bytes]
    has_tty: bool


def open_logs(services: Services, container: Container, options: LogOptions) -> LogStream:
    """Open."""
    raise NotImplementedError
