"""The image that a stage is about to become: run config, author and history, as values.

Layers are not known yet; an entry says whether it brings one. Texts of the history are those
that BuildKit writes, because people and scanners read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from orlop.build.dockerfile import instructions as ins
from orlop.build.dockerfile.durations import format_go_duration
from orlop.oci.imageconfig import Healthcheck, ImageConfig, RunConfig
from orlop.oci.platform import Platform

__all__ = ["DEFAULT_PATH", "BaseImage", "Draft", "HistoryLine", "go_quote", "set_env", "shell_words"]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DEFAULT_SHELL = ("/bin/sh", "-c")
_GO_ESCAPES = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
    '"': '\\"',
}


@dataclass(frozen=True, slots=True)
class BaseImage:
    """An image that a build starts from or copies from; `reference` as it was resolved."""

    reference: str
    config: ImageConfig

    @property
    def layers(self) -> tuple[str, ...]:
        """Diff ids, bottom first."""
        return self.config.diff_ids


@dataclass(frozen=True, slots=True)
class HistoryLine:
    """One entry to come: who made it, and whether it has a layer."""

    created_by: str
    has_layer: bool


@dataclass(frozen=True, slots=True)
class Draft:
    """An image without layers. `base` is None for scratch."""

    platform: Platform
    run: RunConfig
    base: BaseImage | None = None
    author: str | None = None
    history: tuple[HistoryLine, ...] = ()

    @classmethod
    def scratch(cls, platform: Platform) -> Draft:
        """What `FROM scratch` gives."""
        return cls(platform, RunConfig(env=(f"PATH={DEFAULT_PATH}",), working_dir="/"))

    @classmethod
    def on_base(cls, base: BaseImage) -> Draft:
        """What `FROM image` gives: triggers are fired now and not inherited, PATH is always set."""
        run = replace(base.config.run, on_build=())
        if not any(entry.startswith("PATH=") for entry in run.env):
            run = replace(run, env=(*run.env, f"PATH={DEFAULT_PATH}"))
        return cls(base.config.platform, run, base)

    def add(self, created_by: str, run: RunConfig | None = None, *, has_layer: bool = False) -> Draft:
        """With one more line of history and, if given, a new run config."""
        line = HistoryLine(created_by, has_layer)
        return replace(self, run=run or self.run, history=(*self.history, line))


def set_env(env: tuple[str, ...], key: str, value: str) -> tuple[str, ...]:
    """Set a variable in place, or append it."""
    changed = [f"{key}={value}" if entry.partition("=")[0] == key else entry for entry in env]
    if not any(entry.partition("=")[0] == key for entry in env):
        changed.append(f"{key}={value}")
    return tuple(changed)


def set_labels(run: RunConfig, labels: Mapping[str, str]) -> RunConfig:
    """With these labels on top."""
    return replace(run, labels=dict(run.labels) | dict(labels)) if labels else run


def shell_words(run: RunConfig, words: tuple[str, ...]) -> tuple[str, ...]:
    """A shell form command: the image's SHELL and one string."""
    return (*(run.shell or _DEFAULT_SHELL), " ".join(words))


def set_cmd(draft: Draft, words: tuple[str, ...]) -> Draft:
    """CMD."""
    run = replace(draft.run, cmd=words, args_escaped=True)
    return draft.add(f"CMD {_quoted_list(words)}", run)


def set_entrypoint(draft: Draft, words: tuple[str, ...], *, keeps_cmd: bool) -> Draft:
    """ENTRYPOINT; an inherited CMD was meant for another one and goes."""
    run = replace(draft.run, entrypoint=words or None)
    if not keeps_cmd:
        run = replace(run, cmd=None)
    return draft.add(f"ENTRYPOINT {_quoted_list(words)}", run)


def set_healthcheck(draft: Draft, instruction: ins.Healthcheck) -> Draft:
    """HEALTHCHECK."""
    health = Healthcheck(
        instruction.test,
        instruction.interval_ns,
        instruction.timeout_ns,
        instruction.start_period_ns,
        instruction.start_interval_ns,
        instruction.retries,
    )
    times = " ".join(
        f'"{format_go_duration(value)}"'
        for value in (health.interval_ns, health.timeout_ns, health.start_period_ns, health.start_interval_ns)
    )
    # a pointer to a struct, printed by Go with %q: every field is quoted, the count as a character
    text = f"HEALTHCHECK &{{{_quoted_list(health.test)} {times} {_quoted_character(health.retries)}}}"
    return draft.add(text, replace(draft.run, healthcheck=health))


def go_quote(text: str) -> str:
    """A string as Go's %q prints it."""
    out = []
    for char in text:
        if char in _GO_ESCAPES:
            out.append(_GO_ESCAPES[char])
        elif char.isprintable():
            out.append(char)
        elif ord(char) < 0x80:
            out.append(f"\\x{ord(char):02x}")
        else:
            out.append(f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}")
    return '"' + "".join(out) + '"'


def _quoted_character(number: int) -> str:
    """A number as Go's %q prints it: the character with this code."""
    char = chr(number) if 0 <= number <= 0x10FFFF and not 0xD800 <= number < 0xE000 else "\ufffd"
    if char in "'\"":
        return "'\"'" if char == '"' else r"'\''"
    return f"'{go_quote(char)[1:-1]}'"


def _quoted_list(words: tuple[str, ...]) -> str:
    return "[" + " ".join(map(go_quote, words)) + "]"
