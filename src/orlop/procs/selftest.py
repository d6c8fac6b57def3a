"""Jobs that `orlop doctor` and the tests run to see that workers work."""

from __future__ import annotations

import os
import time
from typing import Any

from orlop.base.errors import InvalidInput
from orlop.procs.worker import Report

__all__ = ["echo"]


def echo(payload: dict[str, Any], fds: list[int], report: Report) -> dict[str, Any]:
    """Give back the payload and what the descriptors hold.

    `payload` may ask for `steps` progress reports, to `sleep_s`, to `fail` with a message
    or to `exit` without an answer.
    """
    for step in range(int(payload.get("steps", 0))):
        report({"step": step})
    time.sleep(float(payload.get("sleep_s", 0)))
    if "exit" in payload:
        os._exit(int(payload["exit"]))
    if "fail" in payload:
        raise InvalidInput(str(payload["fail"]), hint="do not ask for it", value=7)
    return {"payload": payload, "read": [os.read(fd, 4096).decode() for fd in fds]}
