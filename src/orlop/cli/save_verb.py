"""`orlop save`."""

from __future__ import annotations

import os
import sys

from orlop.base.errors import InvalidInput
from orlop.cli.context import Context, is_terminal
from orlop.cli.flags import Command, Flag, Parsed

COMMAND = Command(
    "save [OPTIONS] IMAGE [IMAGE...]",
    "Save one or more images to a tar archive (streamed to STDOUT by default)",
    (Flag("output", "o", text="Write to a file, instead of STDOUT"),),
    min_args=1,
)


def run(context: Context, parsed: Parsed) -> int:
    """Write the archive; a file appears whole or not at all."""
    path = parsed["output"]
    if not path and is_terminal(sys.stdout):
        raise InvalidInput("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    exchange = context.client.open("GET", "/images/get", {"names": list(parsed.args)})
    if not path:
        for piece in exchange.chunks():
            sys.stdout.buffer.write(piece)
        return 0
    part = f"{path}.part-{os.getpid()}"
    try:
        with open(part, "xb") as file:
            file.writelines(exchange.chunks())
        os.rename(part, path)
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from error
    finally:
        if os.path.exists(part):
            os.unlink(part)
    return 0
