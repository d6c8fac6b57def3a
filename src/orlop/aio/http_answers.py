"""Heads of the server's answers, its own error answers, and who asked."""

from __future__ import annotations

import asyncio
import functools
import socket
import struct
import time

from orlop.aio.http_messages import FileResponse, Peer, Response, StreamResponse
from orlop.base.clock import SystemClock
from orlop.wire import gojson, http1

__all__ = ["HTTP2_REFUSAL", "answer_head", "message", "peer_of", "refusal"]

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_clock = SystemClock()

_REASONS = {
    101: "UPGRADED", 200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 206: "Partial Content",
    301: "Moved Permanently", 304: "Not Modified", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden",
    404: "Not Found", 405: "Method Not Allowed", 406: "Not Acceptable", 408: "Request Timeout",
    409: "Conflict", 413: "Request Entity Too Large", 416: "Range Not Satisfiable",
    417: "Expectation Failed",
    426: "Upgrade Required", 429: "Too Many Requests", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 501: "Not Implemented", 503: "Service Unavailable",
    507: "Insufficient Storage",
}  # fmt: skip

# SETTINGS, then GOAWAY(HTTP_1_1_REQUIRED); RFC 9113 sections 6.5 and 6.8
_GOAWAY_TEXT = b"HTTP/2 is not supported yet: use HTTP/1.1"
HTTP2_REFUSAL = (
    struct.pack(">I", 0)[1:] + b"\x04\x00\x00\x00\x00\x00"
    + struct.pack(">I", 8 + len(_GOAWAY_TEXT))[1:] + b"\x07\x00\x00\x00\x00\x00"
    + struct.pack(">II", 0, 0xD) + _GOAWAY_TEXT
)  # fmt: skip


def answer_head(
    response: Response | StreamResponse | FileResponse, head: http1.RequestHead, *, keeps_alive: bool
) -> tuple[bytes, bool]:
    """The head of an answer, and whether the connection may stay open after it."""
    fields = [*response.headers, ("Date", http_date(_clock.now_ns() // 1_000_000_000))]
    if isinstance(response, StreamResponse) and head.minor == 1:
        fields.append(("Transfer-Encoding", "chunked"))
    elif isinstance(response, StreamResponse):
        keeps_alive = False
    elif isinstance(response, FileResponse):
        fields.append(("Content-Length", str(response.length)))
    elif response.status not in (204, 304):
        fields.append(("Content-Length", str(len(response.body))))
    if not keeps_alive:
        fields.append(("Connection", "close"))
    elif head.minor == 0:
        fields.append(("Connection", "keep-alive"))
    return http1.encode_head(_status_line(response.status), fields), keeps_alive


@functools.lru_cache(maxsize=2)
def http_date(seconds: int) -> str:
    """`Mon, 23 Nov 2026 07:20:08 GMT`; RFC 9110, section 5.6.7. English in every locale."""
    moment = time.gmtime(seconds)
    day, month = _DAYS[moment.tm_wday], _MONTHS[moment.tm_mon - 1]
    return f"{day}, {moment.tm_mday:02} {month} {moment.tm_year} {time.strftime('%H:%M:%S', moment)} GMT"


def message(status: int, text: str) -> Response:
    """An error answer in the API's form."""
    return Response(status, gojson.encode({"message": text}), (("Content-Type", "application/json"),))


def refusal(status: int, text: str) -> bytes:
    """A whole error answer after which the connection closes."""
    answer = message(status, text)
    fields = (*answer.headers, ("Content-Length", str(len(answer.body))), ("Connection", "close"))
    return http1.encode_head(_status_line(status), fields) + answer.body


def _status_line(status: int) -> str:
    return f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}"


def peer_of(transport: asyncio.Transport) -> Peer:
    """Who is connected; unix peers with the credentials that the kernel vouches for."""
    sock = transport.get_extra_info("socket")
    is_tls = transport.get_extra_info("sslcontext") is not None
    if sock.family != socket.AF_UNIX:
        name = transport.get_extra_info("peername") or ("", 0)
        return Peer("tcp", f"{name[0]}:{name[1]}", is_tls=is_tls)
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, gid = struct.unpack("iII", credentials)
    return Peer("unix", "", pid, uid, gid)
