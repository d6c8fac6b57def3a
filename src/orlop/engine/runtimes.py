"""Which OCI runtime a name means: the embedded one, one that was configured, one that the host has.

`orlop` is the embedded runtime. A configured name comes before anything else, then crun, runc and
youki are looked for in PATH. `runc` on a host without it is the embedded runtime, too: clients
and Compose files write that name when they mean the usual one. The names of containerd's shims
(`io.containerd.NAME.v2`) mean NAME.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orlop.base.errors import InvalidInput
from orlop.runtime.spec import RuntimeSpec

__all__ = ["EMBEDDED", "RuntimeCatalog", "configured_runtimes", "find_runtimes", "parse_runtime"]

EMBEDDED = "orlop"
_USUAL = "runc"
_IN_PATH = ("crun", "runc", "youki")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\Z")
_SHIM = re.compile(r"io\.containerd\.([a-z0-9-]+)\.v[0-9]+\Z")


@dataclass(frozen=True, slots=True)
class RuntimeCatalog:
    """The runtimes of an engine, and which of them containers get that name none."""

    found: Mapping[str, RuntimeSpec] = field(default_factory=dict)
    default: str = EMBEDDED

    def shown(self) -> tuple[tuple[str, str], ...]:
        """Names and paths, for `docker info`; the embedded one has no path."""
        return ((EMBEDDED, ""), *((name, spec.path) for name, spec in sorted(self.found.items())))

    def choose(self, name: str) -> RuntimeSpec | None:
        """The runtime of a container; None is the embedded one.

        Raises:
            InvalidInput: there is none of this name, with dockerd's text.
        """
        wanted = name or self.default
        if wanted in self.found:
            return self.found[wanted]
        shim = _SHIM.match(wanted)
        plain = shim[1] if shim else wanted
        if plain in self.found:
            return self.found[plain]
        if plain in (EMBEDDED, _USUAL):
            return None
        known = ", ".join(item for item, _ in self.shown())
        raise InvalidInput(
            f"unknown or invalid runtime name: {wanted[:100]}",
            hint=f"this engine has {known}; others are added with orlopd --add-runtime NAME=PATH",
        )


def find_runtimes(
    configured: Iterable[RuntimeSpec],
    default: str,
    which: Callable[[str], str | None] = shutil.which,
) -> RuntimeCatalog:
    """The catalog of an engine.

    Args:
        configured: by flags or daemon.json; a path without a slash is looked for in PATH.
        default: the name for containers that name none; "" for the embedded one.
        which: finds a program in PATH.

    Raises:
        InvalidInput: the default does not exist.
    """
    found = {name: RuntimeSpec(name, path) for name in _IN_PATH if (path := which(name)) is not None}
    for spec in configured:
        path = spec.path if "/" in spec.path else which(spec.path) or spec.path
        found[spec.name] = RuntimeSpec(spec.name, os.path.abspath(path), spec.args)
    catalog = RuntimeCatalog(found, default or EMBEDDED)
    try:
        catalog.choose("")
    except InvalidInput as error:
        raise InvalidInput(f"specified default runtime '{default[:100]}' does not exist") from error
    return catalog


def parse_runtime(text: str) -> RuntimeSpec:
    """`NAME=PATH` of `--add-runtime`.

    Raises:
        InvalidInput: not of that form.
    """
    name, equals, path = text.partition("=")
    if not equals or not path:
        raise InvalidInput(f"invalid runtime flag format: {text[:100]}", hint="NAME=PATH is wanted")
    return _checked(RuntimeSpec(name, path))


def configured_runtimes(value: Any) -> list[RuntimeSpec]:
    """`runtimes` of daemon.json: names, each with `path` and `runtimeArgs`.

    Raises:
        InvalidInput: something else.
    """
    if not isinstance(value, dict):
        raise InvalidInput("runtimes: an object is wanted")
    return [_from_json(str(name), item) for name, item in value.items()]


def _from_json(name: str, item: Any) -> RuntimeSpec:
    if not isinstance(item, dict):
        raise InvalidInput(f"runtime {name[:100]!r}: an object is wanted")
    if item.get("runtimeType"):
        raise InvalidInput(
            f"runtime {name[:100]!r}: shims of containerd (runtimeType) are not supported",
            hint="name the runtime's program with path",
        )
    path, arguments = item.get("path"), item.get("runtimeArgs") or []
    if not isinstance(path, str) or not path:
        raise InvalidInput(f"runtime {name[:100]!r}: path is missing")
    if not isinstance(arguments, list) or not all(isinstance(word, str) for word in arguments):
        raise InvalidInput(f"runtime {name[:100]!r}: runtimeArgs is not a list of strings")
    return _checked(RuntimeSpec(name, path, tuple(arguments)))


def _checked(spec: RuntimeSpec) -> RuntimeSpec:
    if not _NAME.match(spec.name):
        raise InvalidInput(f"invalid runtime name: {spec.name[:100]!r}")
    if spec.name == EMBEDDED:
        raise InvalidInput(f"runtime name '{EMBEDDED}' is reserved")
    return spec
