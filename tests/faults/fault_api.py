"""A small client for tests that expect the engine to die: no pool, no retry, errors as values."""

from __future__ import annotations

import http.client
import json
import socket
import struct
from dataclasses import dataclass
from urllib.parse import quote, urlencode

__all__ = ["Answer", "Api", "EngineDied", "Vanished", "VanishingApi"]


class EngineDied(Exception):
    """The connection ended before the answer did."""


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def lines(self):
        """The messages of a progress stream."""
        return [json.loads(line) for line in self.body.split(b"\n") if line.strip()]

    @property
    def error(self) -> str:
        """What went wrong, by status or by the last line of a stream; "" when nothing did."""
        if self.status >= 400:
            return str(self.json["message"])
        if self.body.lstrip().startswith(b'{"') and (lines := self.lines) and isinstance(lines[-1], dict):
            return str(lines[-1].get("error") or "")
        return ""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self._path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)  # closed with the connection, connected or not
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Api:
    """One connection for every request."""

    def __init__(self, path, timeout_s=20):
        self._path = path
        self._timeout_s = timeout_s

    def send(self, method, path, body=None, headers=None, **query) -> http.client.HTTPConnection:
        """Send one request; the caller closes the connection."""
        connection = _Connection(self._path, self._timeout_s)
        try:
            _request(connection, method, path, body, headers, query)
        except BaseException:
            connection.close()
            raise
        return connection

    def __call__(self, method, path, body=None, headers=None, **query) -> Answer:
        """Send one request and read the whole answer.

        Raises:
            EngineDied: the engine went away meanwhile.
            AssertionError: it does not answer.
        """
        try:
            connection = self.send(method, path, body, headers, **query)
        except (ConnectionError, FileNotFoundError) as error:
            raise EngineDied(repr(error)) from error
        try:
            response = connection.getresponse()
            return Answer(response.status, response.read())
        except (ConnectionError, FileNotFoundError, http.client.HTTPException) as error:
            raise EngineDied(repr(error)) from error
        except TimeoutError as error:
            raise AssertionError(f"{method} {path}: no answer") from error
        finally:
            connection.close()

    def ok(self, method, path, body=None, headers=None, **query) -> Answer:
        """The answer of a request that has to succeed, its stream included."""
        answer = self(method, path, body, headers, **query)
        assert not answer.error, f"{method} {path}: {answer.status} {answer.error}"
        return answer


class VanishingApi:
    """Sends its first request over TCP and resets the connection once `wait` returns."""

    def __init__(self, port, wait):
        self._port, self._wait = port, wait

    def __call__(self, method, path, body=None, headers=None, **query):
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        _request(connection, method, path, body, headers, query)
        self._wait()
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        raise Vanished


class Vanished(Exception):
    """The client has left."""


def _request(connection, method, path, body, headers, query):
    fields = dict(headers or {})
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        fields["Content-Type"] = "application/json"
    elif body is not None:
        fields.setdefault("Content-Type", "application/x-tar")
    target = f"/v1.47{quote(path)}" + (f"?{urlencode(query, doseq=True)}" if query else "")
    connection.request(method, target, body, fields)
