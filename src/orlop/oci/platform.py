"""Platforms: `os/arch[/variant]`, normalised as containerd and the docker CLI do."""

from __future__ import annotations

import platform as _platform
import re
from dataclasses import dataclass

from orlop.base.errors import InvalidInput

__all__ = ["InvalidPlatform", "Platform", "host_platform", "normalize_arch", "parse_platform"]

_COMPONENT = re.compile(r"[A-Za-z0-9_.-]+\Z")
_ARCHES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "i386": ("386", ""),
    "i686": ("386", ""),
}
_KNOWN_OS = frozenset(
    "aix android darwin dragonfly freebsd illumos ios js linux nacl netbsd openbsd plan9 "
    "solaris windows".split()
)
_KNOWN_ARCH = frozenset(
    "386 amd64 arm arm64 loong64 mips mipsle mips64 mips64le ppc64 ppc64le riscv64 s390x wasm".split()
)


class InvalidPlatform(InvalidInput):
    """The text does not name a platform."""

    code = "invalid-platform"


@dataclass(frozen=True, slots=True)
class Platform:
    """Operating system, architecture and variant; the empty variant is the default one."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    def runs_on(self, host: Platform) -> bool:
        """True when an image of this platform runs on `host` without emulation."""
        if self.os != host.os or self.architecture != host.architecture:
            return False
        return not self.variant or not host.variant or self.variant <= host.variant


def normalize_arch(arch: str, variant: str = "") -> tuple[str, str]:
    """The Go names of an architecture and variant: `aarch64` is `arm64`, `arm64/v8` is `arm64`."""
    arch, default = _ARCHES.get(arch.lower(), (arch.lower(), ""))
    variant = variant.lower() or default
    if (arch, variant) in {("arm64", "v8"), ("arm64", "8"), ("amd64", "v1")}:
        variant = ""
    if arch == "arm":
        variant = {"": "v7", "5": "v5", "6": "v6", "7": "v7", "8": "v8"}.get(variant, variant)
    return arch, variant


def parse_platform(text: str) -> Platform:
    """Parse `linux`, `amd64`, `linux/arm64` or `linux/arm/v7`.

    Raises:
        InvalidPlatform: bad characters, too many parts, or an unknown single word.
    """
    parts = text.split("/")
    if not 1 <= len(parts) <= 3 or not all(_COMPONENT.match(part) for part in parts):
        raise InvalidPlatform(
            f'"{text}": invalid platform: platform specifier must match os/arch[/variant]',
            hint="for example linux/amd64",
        )
    host = host_platform()
    if len(parts) == 1:
        word = parts[0].lower()
        if word in _KNOWN_OS:
            return Platform(word, host.architecture, host.variant)
        arch, variant = normalize_arch(word)
        if arch not in _KNOWN_ARCH:
            raise InvalidPlatform(f'"{text}": unknown operating system or architecture: invalid argument')
        return Platform(host.os, arch, variant)
    arch, variant = normalize_arch(parts[1], parts[2] if len(parts) == 3 else "")
    return Platform(parts[0].lower(), arch, variant)


def host_platform() -> Platform:
    """The platform of this kernel."""
    arch, variant = normalize_arch(_platform.machine())
    return Platform("linux", arch, variant)
