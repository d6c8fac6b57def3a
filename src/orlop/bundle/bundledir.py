"""The directory of a bundle: ours alone, on the tmpfs of the run dir."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

__all__ = ["make", "remove", "write", "write_text"]


def make(directory: str, state_dir: str) -> None:
    """A fresh bundle directory, and no state of an earlier run."""
    for path in (directory, state_dir):
        remove(path)
        os.mkdir(path, 0o700)
    for name in ("rootfs", "sources"):
        os.mkdir(f"{directory}/{name}", 0o700)


def write(path: str, document: dict[str, Any]) -> None:
    """Write a document as JSON."""
    # Bytes that are no UTF-8 cannot be said in JSON: they become question marks.
    text = json.dumps(document, ensure_ascii=False).encode("utf-8", "replace").decode("utf-8")
    write_text(path, text)


def write_text(path: str, text: str) -> None:
    """Replace the content of a file."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)


def remove(directory: str) -> None:
    """Remove a tree that only we and the runtime write to; nothing there is fine."""
    for here, directories, files in os.walk(directory, topdown=False):
        for name in files:
            with contextlib.suppress(OSError):
                os.unlink(f"{here}/{name}")
        for name in directories:
            path = f"{here}/{name}"
            with contextlib.suppress(OSError):
                os.unlink(path) if os.path.islink(path) else os.rmdir(path)
    with contextlib.suppress(OSError):
        os.rmdir(directory)
