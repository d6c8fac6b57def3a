"""`orlop fsck`: check what is stored while no engine uses it.

The command line knows nothing of the store: it becomes `orlopd --fsck`, which takes the engine's lock.
"""

from __future__ import annotations

import os
import sys

from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed

COMMAND = Command(
    "fsck [OPTIONS]",
    "Check what is stored, while the engine is stopped; nothing is changed",
    (
        Flag("data-root", text="Root directory of the engine's state (default: that of orlopd)"),
        Flag("config-file", text="Configuration file of the engine"),
    ),
    max_args=0,
)


def run(context: Context, parsed: Parsed) -> int:
    """Exit code 0 if everything is there and whole, 1 if not."""
    words = [sys.executable, "-m", "orlop.daemon", "--fsck"]
    words += [f"--{name}={parsed[name]}" for name in ("data-root", "config-file") if parsed[name]]
    context.out.flush()
    os.execv(sys.executable, words)  # noqa: S606 - no shell is wanted
