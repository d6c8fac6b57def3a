"""Options of the local volume driver: what is mounted in a volume's place, and how large it may grow. Pure.

Grammar and texts: dockerd's local driver (`type`, `o`, `device`, `size`), mount(8) for the words of `o`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orlop.base.errors import InvalidInput
from orlop.kernel import mount

__all__ = ["LocalMount", "check_options", "local_mount", "size_limit"]

_NEEDS = {"type": ("device",), "device": ("type",), "o": ("device", "type"), "size": ()}
_MAX_BYTES = 4095  # mount(2): one page of options
_MS_SYNCHRONOUS, _MS_MANDLOCK, _MS_DIRSYNC, _MS_NOSYMFOLLOW = 16, 64, 128, 256
_MS_NOATIME, _MS_NODIRATIME, _MS_RELATIME, _MS_STRICTATIME = 1024, 2048, 1 << 21, 1 << 24
_SET = {
    "ro": mount.MS_RDONLY,
    "nosuid": mount.MS_NOSUID,
    "nodev": mount.MS_NODEV,
    "noexec": mount.MS_NOEXEC,
    "sync": _MS_SYNCHRONOUS,
    "mand": _MS_MANDLOCK,
    "dirsync": _MS_DIRSYNC,
    "nosymfollow": _MS_NOSYMFOLLOW,
    "noatime": _MS_NOATIME,
    "nodiratime": _MS_NODIRATIME,
    "relatime": _MS_RELATIME,
    "strictatime": _MS_STRICTATIME,
    "bind": mount.MS_BIND,
    "rbind": mount.MS_BIND | mount.MS_REC,
}
_CLEAR = {
    "rw": mount.MS_RDONLY,
    "suid": mount.MS_NOSUID,
    "dev": mount.MS_NODEV,
    "exec": mount.MS_NOEXEC,
    "async": _MS_SYNCHRONOUS,
    "atime": _MS_NOATIME,
    "diratime": _MS_NODIRATIME,
    "norelatime": _MS_RELATIME,
    "nostrictatime": _MS_STRICTATIME,
}
_KINDS = {
    "private": mount.MS_PRIVATE,
    "slave": mount.MS_SLAVE,
    "shared": mount.MS_SHARED,
    "unbindable": mount.MS_UNBINDABLE,
}
_PROPAGATION = _KINDS | {f"r{word}": flag | mount.MS_REC for word, flag in _KINDS.items()}
_IGNORED = frozenset({"", "defaults"})
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}


@dataclass(frozen=True, slots=True)
class LocalMount:
    """The arguments of mount(2); `propagation` needs a call of its own."""

    kind: str
    device: str
    flags: int = 0
    data: str = ""
    propagation: int = 0

    @property
    def host(self) -> str:
        """The name in `addr=`, which the kernel wants as a number; "" for none."""
        if self.kind not in ("nfs", "nfs4", "cifs"):
            return ""
        words = (word.partition("=") for word in self.data.split(","))
        return next((value for name, _, value in words if name == "addr"), "")

    def with_address(self, address: str) -> str:
        """The data, with the host's address in place of its name."""
        words = self.data.split(",")
        return ",".join(f"addr={address}" if word.startswith("addr=") else word for word in words)

    def without_secrets(self, text: str) -> str:
        """An error's text that may be shown."""
        for word in self.data.split(","):
            name, _, value = word.partition("=")
            if name in ("password", "pass", "password2") and value:
                text = text.replace(value, "********")
        return text


def check_options(options: Mapping[str, str]) -> None:
    """Refuse what a volume cannot have.

    Raises:
        InvalidInput: with dockerd's text.
    """
    for name, value in options.items():
        if name not in _NEEDS:
            raise InvalidInput(
                f'invalid option: "{name[:60]}"', hint="the local driver has type, device, o and size"
            )
        if "\0" in value or len(value.encode()) > _MAX_BYTES:
            raise InvalidInput(f'invalid option: "{name}": too long, or no text')
    for name in sorted(options):
        for needed in _NEEDS[name]:
            if not options.get(needed):
                raise InvalidInput(f'missing required option: "{needed}"')
    size_limit(options)
    local_mount(options)


def size_limit(options: Mapping[str, str] | None) -> int:
    """The bytes of `size`; 0 = no limit."""
    text = (options or {}).get("size", "").strip().lower()
    if not text:
        return 0
    number = text.rstrip("bkmgtpi")
    unit = text[len(number) :].removesuffix("b").removesuffix("i")
    try:
        size = int(float(number) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        raise InvalidInput(f"invalid size: '{text[:60]}'") from None
    if size <= 0:
        raise InvalidInput(f"invalid size: '{text[:60]}'")
    return size


def local_mount(options: Mapping[str, str] | None) -> LocalMount | None:
    """What to mount in the volume's place; None for a plain directory."""
    if not options or not options.get("type"):
        return None
    flags = propagation = 0
    data = []
    for word in options.get("o", "").split(","):
        if word in _SET:
            flags |= _SET[word]
        elif word in _CLEAR:
            flags &= ~_CLEAR[word]
        elif word in _PROPAGATION:
            propagation = _PROPAGATION[word]
        elif word not in _IGNORED:
            data.append(word)
    kind = options["type"]
    if any(not (char.isalnum() or char in "._-") for char in kind) or not kind.isascii():
        raise InvalidInput(f'invalid option: "type": {kind[:60]!r} is no file system')
    return LocalMount(kind, options["device"], flags, ",".join(data), propagation)
