"""Command lines as docker's users type them: pflag's grammar over tables of flags.

A verb is a `Command`: usage, flags, argument count. The same tables give parsing, `--help` and
shell completion. Grammar: `--name value`, `--name=value`, `-n value`, `-nvalue`, clusters of
boolean shorthands (`-it`), booleans with `=true|false`, `--` ends the flags; with
`is_interspersed` false (run, create, exec) the first argument ends them too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orlop.base.errors import InvalidInput

__all__ = ["Command", "Flag", "HelpRequested", "Parsed", "UsageError", "help_text", "parse"]

_TRUE = {"1", "t", "T", "true", "TRUE", "True"}
_FALSE = {"0", "f", "F", "false", "FALSE", "False"}


class UsageError(InvalidInput):
    """The command line does not follow the verb's grammar."""

    code = "usage"


class HelpRequested(Exception):
    """`--help` was given."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. `kind`: bool, string, list (repeatable), int, float; `value_name` is shown in help.

    The value of a list is a list; a flag that was not given has its `default`.
    """

    name: str
    short: str = ""
    kind: str = "string"
    default: Any = None
    text: str = ""
    value_name: str = ""
    is_hidden: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """A verb's grammar. `max_args` -1 means any number."""

    usage: str
    text: str
    flags: tuple[Flag, ...] = ()
    min_args: int = 0
    max_args: int = -1
    is_interspersed: bool = True

    @property
    def name(self) -> str:
        """The words before the first bracket or capital: `image ls`."""
        words = []
        for word in self.usage.split():
            if word[0] in "[<" or word.isupper():
                break
            words.append(word)
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class Parsed:
    """Values by flag name, the names that were really given, and the arguments."""

    values: Mapping[str, Any]
    given: frozenset[str]
    args: tuple[str, ...]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def has(self, name: str) -> bool:
        """True when the flag was on the command line."""
        return name in self.given


def _empty(flag: Flag) -> Any:
    if flag.default is not None:
        return flag.default
    return {"bool": False, "list": [], "int": 0, "float": 0.0}.get(flag.kind, "")


class _Parser:
    def __init__(self, command: Command, argv: Sequence[str]) -> None:
        self._command = command
        self._rest = list(argv)
        self._long = {flag.name: flag for flag in command.flags}
        self._short = {flag.short: flag for flag in command.flags if flag.short}
        self.values = {flag.name: _empty(flag) for flag in command.flags}
        self.given: set[str] = set()
        self.args: list[str] = []

    def fail(self, message: str) -> UsageError:
        return UsageError(message, hint=f"see 'orlop {self._command.name} --help'")

    def run(self) -> None:
        while self._rest:
            word = self._rest.pop(0)
            if word == "--":
                self.args += self._rest
                return
            if word.startswith("--"):
                self._take_long(word[2:])
            elif word.startswith("-") and word != "-":
                self._take_cluster(word[1:])
            else:
                self.args.append(word)
                if not self._command.is_interspersed:
                    self.args += self._rest
                    return

    def _take_long(self, body: str) -> None:
        name, equals, value = body.partition("=")
        flag = self._long.get(name)
        if flag is None:
            if name == "help":
                raise HelpRequested
            raise self.fail(f"unknown flag: --{name}")
        self._set(flag, value if equals else None, f"--{name}")

    def _take_cluster(self, letters: str) -> None:
        while letters:
            letter, letters = letters[0], letters[1:]
            flag = self._short.get(letter)
            if flag is None:
                if letter == "h":
                    raise HelpRequested
                raise self.fail(f"unknown shorthand flag: '{letter}' in -{letter}{letters}")
            if flag.kind == "bool" and not letters.startswith("="):
                self._set(flag, None, f"-{letter}")
                continue
            self._set(flag, letters.removeprefix("=") if letters else None, f"-{letter}")
            return

    def _set(self, flag: Flag, value: str | None, shown: str) -> None:
        if value is None and flag.kind != "bool":
            if not self._rest:
                raise self.fail(f"flag needs an argument: {shown}")
            value = self._rest.pop(0)
        self.given.add(flag.name)
        if flag.kind == "list":
            self.values[flag.name] = [*self.values[flag.name], value]
        else:
            self.values[flag.name] = self._convert(flag, value, shown)

    def _convert(self, flag: Flag, value: str | None, shown: str) -> Any:
        if flag.kind == "bool":
            if value is None or value in _TRUE:
                return True
            if value in _FALSE:
                return False
        elif flag.kind in {"int", "float"}:
            try:
                return int(value or "", 0) if flag.kind == "int" else float(value or "")
            except ValueError:
                pass
        else:
            return value
        raise self.fail(f'invalid argument "{value}" for "{shown}" flag: not a {flag.kind}')


def parse(command: Command, argv: Sequence[str]) -> Parsed:
    """Parse the words after the verb.

    Raises:
        HelpRequested: `--help` or `-h` was among the flags.
        UsageError: unknown flag, missing or bad value, wrong number of arguments.
    """
    parser = _Parser(command, argv)
    parser.run()
    count = len(parser.args)
    low, high = command.min_args, command.max_args
    if count < low or (high >= 0 and count > high):
        wanted = "no arguments" if high == 0 else _count_text(low, high)
        raise parser.fail(f"'orlop {command.name}' {'accepts' if high == 0 else 'requires'} {wanted}")
    return Parsed(parser.values, frozenset(parser.given), tuple(parser.args))


def _count_text(low: int, high: int) -> str:
    if low == high:
        return f"{low} argument{'s' if low != 1 else ''}"
    if high < 0:
        return f"at least {low} argument{'s' if low != 1 else ''}"
    return f"at most {high} argument{'s' if high != 1 else ''}"


def help_text(command: Command) -> str:
    """What `--help` prints."""
    lines = [f"Usage:  orlop {command.usage}", "", command.text]
    shown = [flag for flag in sorted(command.flags, key=lambda flag: flag.name) if not flag.is_hidden]
    if shown:
        lines += ["", "Options:"]
        left = [_flag_head(flag) for flag in shown]
        width = max(map(len, left))
        lines += [f"{head:<{width}}   {flag.text}" for head, flag in zip(left, shown, strict=True)]
    return "\n".join(lines) + "\n"


def _flag_head(flag: Flag) -> str:
    short = f"-{flag.short}, " if flag.short else "    "
    kind = flag.value_name or {"bool": "", "float": "decimal"}.get(flag.kind, flag.kind)
    return f"  {short}--{flag.name}{' ' + kind if kind else ''}"
