"""Flags about single devices: I/O limits, CDI names, GPUs. From docker's words to the API's."""

from __future__ import annotations

import csv
import re
from typing import Any

from orlop.base.errors import InvalidInput
from orlop.cli.flags import Parsed
from orlop.cli.units import parse_size

__all__ = ["device_limits", "device_requests", "is_cdi_name"]

_CDI = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*/[A-Za-z][A-Za-z0-9_.-]*=[A-Za-z0-9][A-Za-z0-9_.:-]*\Z")


def is_cdi_name(text: str) -> bool:
    """`vendor.com/class=name`, and no path."""
    return bool(_CDI.match(text))


def device_limits(parsed: Parsed) -> dict[str, Any]:
    """The I/O limits of single devices, as keys of HostConfig."""
    limits: dict[str, Any] = {}
    if parsed["blkio-weight-device"]:
        limits["BlkioWeightDevice"] = [_weight(text) for text in parsed["blkio-weight-device"]]
    for flag, key, is_size in (
        ("device-read-bps", "BlkioDeviceReadBps", True),
        ("device-write-bps", "BlkioDeviceWriteBps", True),
        ("device-read-iops", "BlkioDeviceReadIOps", False),
        ("device-write-iops", "BlkioDeviceWriteIOps", False),
    ):
        if parsed[flag]:
            limits[key] = [_rate(text, flag, is_size=is_size) for text in parsed[flag]]
    return limits


def device_requests(parsed: Parsed) -> list[dict[str, Any]]:
    """What `--gpus` and CDI names of `--device` ask for."""
    requests = [_gpus(parsed["gpus"])] if parsed["gpus"] else []
    names = [text for text in parsed["device"] if is_cdi_name(text)]
    if names:
        requests.append({"Driver": "cdi", "DeviceIDs": names})
    return requests


def _split(text: str, what: str) -> tuple[str, str]:
    path, colon, value = text.rpartition(":")
    if not colon or not path.startswith("/dev/"):
        raise InvalidInput(f"bad format: {text}" if not colon else f"bad format for device path: {text}")
    if not value:
        raise InvalidInput(f"invalid {what} for device: {text}")
    return path, value


def _weight(text: str) -> dict[str, Any]:
    path, value = _split(text, "weight")
    if not value.isdecimal() or (int(value[:6]) and not 10 <= int(value[:6]) <= 1000):
        raise InvalidInput(f"invalid weight for device: {text}")
    return {"Path": path, "Weight": int(value[:6])}


def _rate(text: str, flag: str, *, is_size: bool) -> dict[str, Any]:
    path, value = _split(text, "rate")
    if not is_size and not value.isdecimal():
        raise InvalidInput(f'invalid argument "{text}" for "--{flag}" flag: a positive number is wanted')
    return {"Path": path, "Rate": parse_size(value) if is_size else int(value[:18])}


def _gpus(text: str) -> dict[str, Any]:
    """`all`, a number, or fields: `count=`, `device=`, `capabilities=`, `driver=`."""
    request: dict[str, Any] = {"Driver": "", "Count": 0, "Capabilities": [["gpu"]], "Options": {}}
    for field in next(csv.reader([text])):
        key, equals, value = field.partition("=")
        if not equals or key == "count":
            request["Count"] = _count(value if equals else key)
        elif key == "device":
            request["DeviceIDs"] = value.split(",")
        elif key == "driver":
            request["Driver"] = value
        elif key == "capabilities":
            request["Capabilities"] = [["gpu", *(word for word in value.split(",") if word != "gpu")]]
        elif key == "options":
            request["Options"] = dict(item.partition("=")[::2] for item in value.split(","))
        else:
            raise InvalidInput(f"unexpected key '{key}' in '{field}'")
    if not request["Count"] and "DeviceIDs" not in request:
        request["Count"] = 1
    return request


def _count(text: str) -> int:
    if text == "all":
        return -1
    if not text.isdecimal() or len(text) > 9:
        raise InvalidInput(f'invalid count ({text}): value must be either "all" or an integer')
    return int(text)
