"""Which variables a stage sees: build arguments, the environment, and what is global.

A value comes from the caller's build arguments first, then from the ARG's own default, then
from the ARG of that name above the first FROM. ENV and ARG write to one environment, in the
order they stand in; only ENV reaches the image.

Spec: Dockerfile reference, "Understand how ARG and FROM interact", "Scope",
    "expand", "Using ARG variables".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from orlop.build.dockerfile import instructions as ins
from orlop.build.dockerfile.errors import DockerfileError
from orlop.build.dockerfile.expansion import MAX_EXPANDED, ExpansionError, Rules, expand_word
from orlop.oci.platform import Platform

__all__ = ["GlobalScope", "Scope", "expand", "global_scope", "proxy_variables"]

_PROXY_NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
_MAX_ENVIRONMENT = 4 << 20  # characters; execve takes less


@dataclass(frozen=True, slots=True)
class GlobalScope:
    """Arguments of the caller, and the values that FROM lines see."""

    build_args: Mapping[str, str]
    values: Mapping[str, str]


def global_scope(
    args: Iterable[ins.Arg],
    build_args: Mapping[str, str],
    *,
    build: Platform,
    target: Platform,
    stage_name: str,
    escape: str,
) -> GlobalScope:
    """Values of the platform arguments and of the ARGs above the first FROM."""
    values: dict[str, str] = {}
    for prefix, platform in (("BUILD", build), ("TARGET", target)):
        values[f"{prefix}PLATFORM"] = str(platform)
        values[f"{prefix}OS"] = platform.os
        values[f"{prefix}OSVERSION"] = platform.os_version
        values[f"{prefix}ARCH"] = platform.architecture
        values[f"{prefix}VARIANT"] = platform.variant
    values["TARGETSTAGE"] = stage_name or "default"
    values |= {name: build_args[name] for name in values.keys() & build_args.keys()}
    for arg in args:
        for pair in arg.pairs:
            if pair.key in build_args:
                values[pair.key] = build_args[pair.key]
            elif pair.default is not None:
                values[pair.key] = expand(pair.default, values, arg, escape)
    return GlobalScope(build_args, values)


@dataclass(slots=True)
class Scope:
    """The variables of one stage while its instructions are lowered one by one."""

    escape: str
    outer: GlobalScope
    env: dict[str, str] = field(default_factory=dict)
    args: dict[str, str | None] = field(default_factory=dict)
    used_args: set[str] = field(default_factory=set)

    def fork(self) -> Scope:
        """What a stage that is based on this one starts with."""
        return Scope(self.escape, self.outer, dict(self.env), dict(self.args), self.used_args)

    def expand(self, text: str, instruction: ins.Instruction) -> str:
        """Expand one word.

        Raises:
            DockerfileError: bad substitution, or a limit.
        """
        return expand(text, self.env, instruction, self.escape)

    def expand_body(self, text: str, instruction: ins.Instruction) -> str:
        """Expand the body of a heredoc: quotes are text, the escape is always a backslash."""
        try:
            return expand_word(text, self.env, Rules(quotes_are_text=True))
        except ExpansionError as error:
            raise DockerfileError(error.message, instruction.line) from None

    def set_env(self, key: str, value: str, instruction: ins.Instruction) -> None:
        """Set a variable; the last one set stands last, as in BuildKit's environment list."""
        self.env.pop(key, None)
        self.env[key] = value
        if sum(map(len, self.env)) + sum(map(len, self.env.values())) > _MAX_ENVIRONMENT:
            raise DockerfileError(
                f"the environment is larger than {_MAX_ENVIRONMENT >> 20} MiB", instruction.line
            )

    def declare(self, arg: ins.Arg) -> str:
        """Take an ARG instruction; what the history says about it."""
        said: list[str] = []
        for pair in arg.pairs:
            value = self._value_of(pair, arg)
            self.args.pop(pair.key, None)
            self.args[pair.key] = value
            if value is None:
                said.append(pair.key)
                continue
            said.append(f"{pair.key}={value}")
            if not pair.key.startswith("BUILDKIT_SBOM_SCAN_"):
                self.set_env(pair.key, value, arg)
        return "ARG " + " ".join(said)

    def _value_of(self, pair: ins.ArgPair, arg: ins.Arg) -> str | None:
        if pair.key in self.outer.build_args:
            self.used_args.add(pair.key)
            return self.outer.build_args[pair.key]
        if pair.default is not None:
            return self.expand(pair.default, arg)
        return self.outer.values.get(pair.key)

    def run_prefix(self) -> list[str]:
        """The arguments as a RUN's history names them: `|2 A=1 B=`."""
        if not self.args:
            return []
        values = [f"{key}={self.env.get(key, value or '')}" for key, value in self.args.items()]
        return [f"|{len(values)}", *values]


def proxy_variables(build_args: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Proxy settings that reach every RUN undeclared: as named, and the other case where missing."""
    found: dict[str, str] = {}
    for name in sorted(build_args):
        if name.upper() in _PROXY_NAMES:
            found[name] = build_args[name]
    for name, value in list(found.items()):
        found.setdefault(name.upper(), value)
        found.setdefault(name.lower(), value)
    return tuple(sorted(found.items()))


def expand(text: str, env: Mapping[str, str], instruction: ins.Instruction, escape: str) -> str:
    """Expand one word of `instruction`.

    Raises:
        DockerfileError: bad substitution, or a limit.
    """
    try:
        value = expand_word(text, env, Rules(escape=escape))
    except ExpansionError as error:
        raise DockerfileError(error.message, instruction.line) from None
    if len(value) > MAX_EXPANDED:
        raise DockerfileError(f"a value is longer than {MAX_EXPANDED} characters", instruction.line)
    return value
