"""The engine's door without a client: requests of bytes that no client would send, and quick short runs."""

from __future__ import annotations

import http.client
import json
import re
import socket
from dataclasses import dataclass
from urllib.parse import urlencode

from orlop.wire.stdstream import FrameDecoder

_TIMEOUT_S = 30


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str):
        super().__init__("engine", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_TIMEOUT_S)
        self.sock.connect(self._path)


@dataclass
class Reply:
    """One answer."""

    status: int
    body: bytes

    @property
    def message(self) -> str:
        """Docker's error text, "" when there is none."""
        return str(self.value().get("message", "")) if self.body[:1] == b"{" else ""

    def value(self):
        return json.loads(self.body)


@dataclass
class Run:
    """How a container ended; what it could not start with is told in `error`."""

    status: int
    error: str
    code: int
    output: str


class Door:
    """One kept connection to one engine."""

    def __init__(self, path: str):
        self._path = path
        self._connection = _UnixConnection(path)

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        self.close()

    def close(self) -> None:
        self._connection.close()

    def ask(self, method, path, body=None, headers=None, /, **query) -> Reply:
        """Send a request and read the answer; a body that is no bytes is sent as JSON.

        An answer that was cut off has the status 0.
        """
        target = f"{path}?{urlencode(query)}" if query else path
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} if data is not None else {}
        try:
            self._connection.request(method, target, data, sent | (headers or {}))
            response = self._connection.getresponse()
            return Reply(response.status, response.read())
        except http.client.IncompleteRead as cut:
            self._connection.close()
            return Reply(0, cut.partial)
        except (http.client.HTTPException, OSError):
            self._connection.close()
            raise

    def raw(self, data: bytes, timeout_s: float = _TIMEOUT_S) -> bytes:
        """Send these bytes on a connection of their own; the first answer, or what there is of it."""
        answer = b""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(timeout_s)
            sock.connect(self._path)
            try:
                sock.sendall(data)
                sock.settimeout(2)
                while (piece := sock.recv(1 << 16)) and not _is_whole(answer := answer + piece):
                    pass
            except (TimeoutError, ConnectionError):
                pass
        return answer

    def create(self, image: str, *words: str, host=None, **config) -> Reply:
        host = {"NetworkMode": "none", **(host or {})}
        body = {"Image": image, "HostConfig": host, **config}
        return self.ask("POST", "/containers/create", body | ({"Cmd": list(words)} if words else {}))

    def run(self, image: str, *words: str, host=None, **config) -> Run:
        """Create, start, wait and remove; a terminal unless told otherwise, so that the output is plain."""
        made = self.create(image, *words, host=host, **{"Tty": True} | config)
        if made.status != 201:
            return Run(made.status, made.message, -1, "")
        name = made.value()["Id"]
        try:
            started = self.ask("POST", f"/containers/{name}/start")
            if started.status != 204:
                return Run(started.status, started.message, -1, "")
            code = self.ask("POST", f"/containers/{name}/wait").value()["StatusCode"]
            output = self.ask("GET", f"/containers/{name}/logs", stdout=1, stderr=1).body
            if config.get("Tty") is False:
                output = b"".join(piece for _, piece in FrameDecoder().feed(output))
            return Run(204, "", code, output.decode(errors="replace").replace("\r\n", "\n"))
        finally:
            self.ask("DELETE", f"/containers/{name}", force=1, v=1)

    def execute(self, name: str, *words: str, **config) -> Run:
        """An exec in a running container, to its end."""
        body = {"Cmd": list(words), "AttachStdout": True, "AttachStderr": True, "Tty": True, **config}
        made = self.ask("POST", f"/containers/{name}/exec", body)
        if made.status != 201:
            return Run(made.status, made.message, -1, "")
        item = made.value()["Id"]
        head = f"POST /exec/{item}/start HTTP/1.1\r\nHost: engine\r\nContent-Type: application/json\r\n"
        data = b'{"Detach":false,"Tty":true}'
        answer = self._whole(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        status = int(answer.split(b" ", 2)[1])
        output = answer.partition(b"\r\n\r\n")[2].decode(errors="replace").replace("\r\n", "\n")
        code = self.ask("GET", f"/exec/{item}/json").value()["ExitCode"]
        return Run(status, output if status >= 400 else "", -1 if code is None else code, output)

    def _whole(self, data: bytes) -> bytes:
        answer = b""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_TIMEOUT_S)
            sock.connect(self._path)
            sock.sendall(data)
            while piece := sock.recv(1 << 16):
                answer += piece
        return answer


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.lower().partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: ([0-9]+)", head)
    return bool(end) and length is not None and len(body) >= int(length[1])
