"""The command line: global flags, the table of verbs, how errors are told.

An error is one line on standard error; with --log also one in that file, as text or JSON, which
is where podman, conmon and containerd look for the reason.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TextIO, cast

from orlop.base import log
from orlop.base.clock import SystemClock, format_rfc3339_nano
from orlop.base.errors import OrlopError
from orlop.base.version import VERSION
from orlop.bundle.command import changing, creating, ending, looking
from orlop.bundle.command.calling import Call
from orlop.bundle.command.flags import Flag, Parsed, parse_flags
from orlop.bundle.config import SPEC_VERSION
from orlop.bundle.records import Store
from orlop.bundle.refusal import Refused

__all__ = ["VERBS", "run_command"]

VERBS = creating.VERBS | ending.VERBS | looking.VERBS | changing.VERBS

_GLOBAL = {
    "root": Flag(help="directory of the containers' states (default: /run/orlop-runtime)"),
    "log": Flag(help="file that gets errors, too"),
    "log-format": Flag(help="text or json"),
    "debug": Flag("flag", help="tell more"),
    "systemd-cgroup": Flag("flag", help="not supported"),
    "rootless": Flag(help="accepted; as found"),
    "criu": Flag(help="accepted; nothing is checkpointed"),
    "version": Flag("flag", "v", "print the version"),
    "help": Flag("flag", "h", "print this"),
}


def run_command(words: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run one command line in the caller's environment; returns the exit code."""
    settings = Parsed()
    try:
        settings = parse_flags(words, _GLOBAL)
        return _dispatch(settings, environment)
    except (OrlopError, OSError, ValueError) as error:
        message = str(error) if isinstance(error, OrlopError) else _os_text(error)
        _tell(settings, message)
        code = error.facts.get("exit_code", 1) if isinstance(error, OrlopError) else 1
        return code if isinstance(code, int) else 1


def _dispatch(settings: Parsed, environment: Mapping[str, str]) -> int:
    if settings.is_set("version"):
        sys.stdout.write(f"orlop-runtime version {VERSION}\nspec: {SPEC_VERSION}\n")
        return 0
    if settings.is_set("help") or not settings.words or settings.words[0] == "help":
        sys.stdout.write(_help())
        return 0
    log.set_level("debug" if settings.is_set("debug") else "warning")
    if settings.text("log-format", "text") not in ("text", "json"):
        raise Refused(f"invalid log-format {settings.text('log-format')!r}")
    if settings.text("log"):  # standard error may be the container's own
        log.set_stream(cast("TextIO", _Warnings(settings)))
    if settings.is_set("systemd-cgroup"):
        raise Refused(
            "--systemd-cgroup is not supported: this runtime makes its cgroups itself",
            hint="use the cgroupfs manager of the caller",
        )
    name = settings.words[0]
    verb = VERBS.get(name)
    if verb is None:
        raise Refused(f"No help topic for '{name}'", hint="orlop-runtime --help lists the verbs")
    flags = {**verb.flags, "help": Flag("flag", "h", "print this")}
    parsed = parse_flags(settings.words[1:], flags)
    if parsed.is_set("help"):
        sys.stdout.write(_verb_help(name))
        return 0
    if parsed.words and name not in {"exec", "ps"}:  # callers put flags behind the id as well
        rest = parse_flags(parsed.words[1:], flags)
        parsed.values |= rest.values
        parsed.words = [parsed.words[0], *rest.words]
    verb.check_words(name, len(parsed.words))
    return verb.run(
        Call(Store(_root(settings, environment)), name, parsed, environment, settings.is_set("root"))
    )


def _root(settings: Parsed, environment: Mapping[str, str]) -> str:
    if given := settings.text("root"):
        return os.path.abspath(given)
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    return os.path.join(runtime if os.geteuid() and runtime else "/run", "orlop-runtime")


def _tell(settings: Parsed, message: str) -> None:
    line = message.replace("\n", " ")
    sys.stderr.write(f"{line}\n")
    if settings.text("log"):
        _append(settings, "error", line)


def _append(settings: Parsed, level: str, line: str) -> None:
    """One line for the file of --log."""
    path, moment = settings.text("log"), format_rfc3339_nano(SystemClock().now_ns())
    if settings.text("log-format") == "json":
        entry = json.dumps({"level": level, "msg": line, "time": moment})
    else:
        entry = f'time="{moment}" level={level} msg={json.dumps(line)}'
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except OSError as error:
        sys.stderr.write(f"cannot write {path}: {error.strerror}\n")
        return
    os.write(fd, entry.encode() + b"\n")
    os.close(fd)


class _Warnings(io.TextIOBase):
    """Where the log's lines go: into the same file, in the same form."""

    def __init__(self, settings: Parsed) -> None:
        self._settings = settings

    def write(self, text: str) -> int:
        _, level, message = text.rstrip("\n").split(maxsplit=2)
        _append(self._settings, level.lower(), message)
        return len(text)


def _os_text(error: Exception) -> str:
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    place = f"{error.filename}: " if isinstance(error.filename, str) else ""
    return f"{place}{error.strerror}"


def _help() -> str:
    lines = [
        "orlop-runtime - run containers from OCI bundles",
        "",
        "Usage: orlop-runtime [flags] <verb> ...",
        "",
    ]
    lines += [f"  {name:<10} {verb.summary}" for name, verb in VERBS.items()]
    return "\n".join([*lines, "", *_flag_lines(_GLOBAL), ""])


def _verb_help(name: str) -> str:
    verb = VERBS[name]
    head = [
        f"orlop-runtime {name} - {verb.summary}",
        "",
        f"Usage: orlop-runtime {name} [flags] {verb.usage}",
        "",
    ]
    return "\n".join([*head, *_flag_lines(verb.flags), ""])


def _flag_lines(flags: Mapping[str, Flag]) -> list[str]:
    lines = []
    for name, flag in flags.items():
        short, value = f", -{flag.short}" if flag.short else "", "" if flag.kind == "flag" else " value"
        lines.append(f"  --{name}{short}{value}\n      {flag.help}")
    return lines
