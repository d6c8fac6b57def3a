"""Messages of syslog: RFC 3164, RFC 5424, and the two shorter forms that dockerd sends by default.

A control character in the text could forge a second message on a stream: newlines inside it become spaces.
"""

from __future__ import annotations

import time

__all__ = ["FORMATS", "format_message"]

FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")
_NANO = 1_000_000_000


def format_message(
    kind: str, *, priority: int, time_ns: int, hostname: str, tag: str, pid: int, text: bytes, is_local: bool
) -> bytes:
    """One message without an end; `is_local`: for the host's own socket, which knows the host's name.

    Spec: RFC 3164, section 4.1; RFC 5424, section 6.
    """
    when = time.gmtime(time_ns // _NANO)
    body = text.replace(b"\n", b" ").replace(b"\r", b" ").replace(b"\0", b"")
    name, tag = _word(hostname), _word(tag)
    match kind:
        case "rfc5424" | "rfc5424micro":
            fraction = f".{time_ns % _NANO // 1000:06d}" if kind == "rfc5424micro" else ""
            stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', when)}{fraction}Z"
            head = f"<{priority}>1 {stamp} {name[:255]} {tag[:48]} {pid} {tag[:32]} - "
        case _ if kind == "" and not is_local:
            head = f"<{priority}>{time.strftime('%Y-%m-%dT%H:%M:%SZ', when)} {name} {tag}[{pid}]: "
        case _:
            # RFC 3164 has the host's local time, and days without a leading zero
            local = time.localtime(time_ns // _NANO)
            month = "JanFebMarAprMayJunJulAugSepOctNovDec"[local.tm_mon * 3 - 3 : local.tm_mon * 3]
            stamp = f"{month} {local.tm_mday:2d} {time.strftime('%H:%M:%S', local)}"
            head = f"<{priority}>{stamp} {'' if is_local else name + ' '}{tag}[{pid}]: "
    return head.encode("utf-8", "replace") + body


def _word(text: str) -> str:
    """Text as a field: printable, without blanks, never empty."""
    return "".join(char if char.isprintable() and not char.isspace() else "_" for char in text) or "-"
