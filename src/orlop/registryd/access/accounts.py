"""Accounts from an htpasswd file with bcrypt hashes, read again when it changes.

A check costs what bcrypt is meant to cost, in a thread; what was right is remembered for some minutes
under a keyed hash, because clients send the password with every request. An unknown user costs the
same as a wrong password. Other hashes of htpasswd (MD5, SHA-1, crypt) are refused: they are broken.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Callable

from orlop.aio import offload
from orlop.base import log
from orlop.base.clock import Clock
from orlop.base.errors import InvalidInput, describe_os_error

__all__ = ["Accounts", "CheckHash", "parse_htpasswd"]

MAX_FILE_BYTES = 16 << 20
REMEMBER_S = 300.0
_MAX_REMEMBERED = 10_000
_MAX_PASSWORD_BYTES = 4096
_BCRYPT = re.compile(r"\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}\Z")
_USER = re.compile(r"[^:\x00-\x1f\x7f@][^:\x00-\x1f\x7f]{0,254}\Z")
_NOBODY = "$2b$10$abcdefghijklmnopqrstuuFTRkTLfmOgAbGyE8xwp4OI8wQdcgYPC"

CheckHash = Callable[[bytes, bytes], bool]


class Accounts:
    """Users and their passwords.

    Args:
        path: the htpasswd file.
        check: bcrypt's `checkpw`.
        clock: for how long a right password is remembered.
    """

    def __init__(self, path: str, check: CheckHash, clock: Clock) -> None:
        self._path = path
        self._check = check
        self._clock = clock
        self._key = os.urandom(32)
        self._remembered: dict[bytes, float] = {}
        self._version: tuple[int, int, int] = (0, 0, 0)
        self._hashes: dict[str, str] = {}
        self._read()

    def has(self, user: str) -> bool:
        """True when there is such a user now."""
        self._refresh()
        return user in self._hashes

    async def verify(self, user: str, password: str) -> bool:
        """True when the password is that user's."""
        self._refresh()
        secret = password.encode("utf-8", "surrogatepass")
        if len(secret) > _MAX_PASSWORD_BYTES:
            return False
        stored = self._hashes.get(user, _NOBODY)
        text = b"\0".join((user.encode("utf-8", "surrogatepass"), stored.encode(), secret))
        mark = hmac.new(self._key, text, hashlib.sha256).digest()
        now_s = self._clock.monotonic_s()
        if self._remembered.get(mark, -1.0) > now_s:
            return True
        is_right = await offload.thread(self._try, secret, stored) and user in self._hashes
        if is_right:
            if len(self._remembered) >= _MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[mark] = now_s + REMEMBER_S
        return is_right

    def _try(self, secret: bytes, stored: str) -> bool:
        try:
            return self._check(secret[:72], stored.encode())  # bcrypt reads 72 bytes; htpasswd does the same
        except ValueError:
            return False  # a NUL in the password

    def _refresh(self) -> None:
        try:
            status = os.stat(self._path)
            if (status.st_ino, status.st_mtime_ns, status.st_size) != self._version:
                self._read()
        except (OSError, InvalidInput) as error:
            log.error("cannot read the accounts again: the old ones stay", error=error)

    def _read(self) -> None:
        try:
            with open(self._path, "rb") as file:
                status = os.fstat(file.fileno())
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise InvalidInput(f'cannot read "{self._path}": {describe_os_error(error)}') from error
        self._hashes = parse_htpasswd(data)
        self._version = (status.st_ino, status.st_mtime_ns, status.st_size)


def parse_htpasswd(data: bytes) -> dict[str, str]:
    """User to hash.

    Raises:
        InvalidInput: a line is no `user:bcrypt hash`; the number of the line is named.
    """
    if len(data) > MAX_FILE_BYTES:
        raise InvalidInput(f"the htpasswd file is larger than {MAX_FILE_BYTES} bytes")
    found: dict[str, str] = {}
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        user, _, stored = text.partition(":")
        if not _USER.match(user) or not _BCRYPT.match(stored) or user in {"*", "anonymous"}:
            raise InvalidInput(
                f"line {number} of the htpasswd file is no user with a bcrypt hash",
                hint="make it with htpasswd -B",
            )
        found[user] = stored
    return found
