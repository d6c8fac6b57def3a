"""Parser: a logical line to the instruction it is.

Spec: Dockerfile reference. Error texts are those of BuildKit, which clients print.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from orlop.build.dockerfile import instructions as ins
from orlop.build.dockerfile.durations import parse_go_duration
from orlop.build.dockerfile.errors import DockerfileError, did_you_mean
from orlop.build.dockerfile.flags import BOOLEAN, LIST, TEXT, Flags
from orlop.build.dockerfile.lines import Heredoc, LogicalLine, Source, find_heredoc, read_source
from orlop.build.dockerfile.words import Command, json_list, split_command, split_key_values, split_words

__all__ = ["parse", "parse_trigger"]

_STAGE_NAME = re.compile(r"[a-z][a-z0-9_.-]*\Z")
_BLANKS = re.compile(r"[\t\v\f\r ]+")
_MILLISECOND_NS = 1_000_000
_MAX_RETRIES = (1 << 31) - 1


def parse(data: bytes) -> tuple[Source, list[ins.Instruction]]:
    """All instructions of a Dockerfile in order.

    Raises:
        DockerfileError: with line, quoted source and, for a near miss, a suggestion.
    """
    source = read_source(data)
    try:
        return source, [_Parser(line, source.escape).parse() for line in source.logical]
    except DockerfileError as error:
        raise error.with_source(source.lines) from None


def parse_trigger(expression: str, line: int) -> ins.Instruction:
    """The instruction of an ONBUILD trigger, placed at `line` of the Dockerfile that fires it.

    Raises:
        DockerfileError: it is not exactly one instruction that may be a trigger.
    """
    try:
        _, found = parse(expression.encode("utf-8", "surrogatepass"))
    except DockerfileError as error:
        text = error.message.partition(": ")[2] if error.line else error.message
        raise _bad_trigger(expression, text, line) from None
    if len(found) != 1:
        raise _bad_trigger(expression, "onbuild trigger should be a single expression", line)
    if isinstance(found[0], ins.Onbuild | ins.From | ins.Maintainer):
        raise _bad_trigger(expression, "FROM, MAINTAINER and ONBUILD cannot be triggers", line)
    (trigger,) = found
    fields = {name: getattr(trigger, name) for name in _field_names(trigger)}
    return type(trigger)(**(fields | {"line": line}))


def _bad_trigger(expression: str, reason: str, line: int) -> DockerfileError:
    return DockerfileError(f"ONBUILD trigger {expression[:200]!r} of the base image: {reason}", line)


def _field_names(value: object) -> list[str]:
    import dataclasses

    return [field.name for field in dataclasses.fields(value)]  # type: ignore[arg-type]


class _Parser:
    def __init__(self, line: LogicalLine, escape: str) -> None:
        self._line = line
        self._escape = escape
        self._command = split_command(line.text, escape)
        self._where = (line.text.strip(), line.first)

    def parse(self) -> ins.Instruction:
        name = self._command.name
        method = _METHODS.get(name.upper())
        if method is None:
            known = did_you_mean(name, _METHODS)
            raise DockerfileError(f"unknown instruction: {name}{known}", self._line.first, mark=name)
        try:
            return method(self, self._command)
        except ValueError as error:
            raise DockerfileError(str(error), self._line.first) from None

    # one method per instruction

    def from_(self, command: Command) -> ins.From:
        words = _words(command.rest)
        flags = Flags(command.flags, {"platform": TEXT})
        name = ""
        if len(words) == 3 and words[1].upper() == "AS":
            name = words[2].lower()
            if not _STAGE_NAME.match(name):
                raise ValueError(
                    f'invalid name for build stage: "{words[2]}", '
                    "name can't start with a number or contain symbols"
                )
        elif len(words) != 1:
            raise ValueError("FROM requires either one or three arguments")
        return ins.From(*self._where, words[0], name, flags.text("platform"))

    def arg(self, command: Command) -> ins.Arg:
        Flags(command.flags, {})
        words = split_words(command.rest, self._escape)
        if not words:
            raise ValueError("ARG requires at least one argument")
        pairs = []
        for word in words:
            key, equals, default = word.partition("=")
            if not key:
                raise ValueError("ARG names can not be blank")
            pairs.append(ins.ArgPair(key, default if equals else None))
        return ins.Arg(*self._where, tuple(pairs))

    def env(self, command: Command) -> ins.Env:
        return ins.Env(*self._where, self._pairs(command, "ENV"))

    def label(self, command: Command) -> ins.Label:
        return ins.Label(*self._where, self._pairs(command, "LABEL"))

    def _pairs(self, command: Command, name: str) -> tuple[ins.KeyValue, ...]:
        Flags(command.flags, {})
        return tuple(ins.KeyValue(*pair) for pair in split_key_values(command.rest, self._escape, name))

    def run(self, command: Command) -> ins.Run:
        flags = Flags(command.flags, {"mount": LIST, "network": TEXT, "security": TEXT, "device": LIST})
        if flags.text("security", "sandbox") != "sandbox":
            raise ValueError("security mode insecure is not allowed: RUN always runs sandboxed here")
        if flags.all("device"):
            raise ValueError("RUN --device is not supported")
        network = flags.text("network", "default")
        if network not in ("default", "none", "host"):
            known = did_you_mean(network, ("default", "none", "host"))
            raise ValueError(f'invalid network mode "{network}"{known}')
        if not command.rest:
            raise ValueError("RUN requires at least one argument")
        return ins.Run(*self._where, self._command_line(command.rest), network, flags.all("mount"))

    def cmd(self, command: Command) -> ins.Cmd:
        Flags(command.flags, {})
        return ins.Cmd(*self._where, self._command_line(command.rest))

    def entrypoint(self, command: Command) -> ins.Entrypoint:
        Flags(command.flags, {})
        return ins.Entrypoint(*self._where, self._command_line(command.rest))

    def _command_line(self, rest: str) -> ins.CommandLine:
        words = json_list(rest)
        if words is not None:
            return ins.CommandLine(tuple(words), is_shell=False)
        shell_words = (rest,) if rest else ()
        return ins.CommandLine(shell_words, is_shell=True, heredocs=self._line.heredocs)

    def copy(self, command: Command) -> ins.Copy:
        flags = Flags(
            command.flags,
            {
                "chown": TEXT,
                "from": TEXT,
                "chmod": TEXT,
                "link": BOOLEAN,
                "exclude": LIST,
                "parents": BOOLEAN,
            },
        )
        if flags.find_boolean("parents"):
            raise ValueError("COPY --parents is not supported yet")
        return ins.Copy(
            *self._where,
            self._sources(command.rest, "COPY"),
            flags.text("from"),
            flags.text("chown"),
            flags.text("chmod"),
            flags.all("exclude"),
            flags.find_boolean("link") or False,
        )

    def add(self, command: Command) -> ins.Add:
        flags = Flags(
            command.flags,
            {
                "chown": TEXT,
                "chmod": TEXT,
                "link": BOOLEAN,
                "keep-git-dir": BOOLEAN,
                "checksum": TEXT,
                "unpack": BOOLEAN,
                "exclude": LIST,
            },
        )
        return ins.Add(
            *self._where,
            self._sources(command.rest, "ADD"),
            flags.text("chown"),
            flags.text("chmod"),
            flags.all("exclude"),
            flags.find_boolean("link") or False,
            flags.text("checksum"),
            flags.find_boolean("unpack"),
        )

    def _sources(self, rest: str, name: str) -> ins.Sources:
        listed = json_list(rest)
        words = _words(rest) if listed is None else listed
        if len(words) < 2:
            raise ValueError(
                f"{name} requires at least two arguments, but only one was provided. "
                "Destination could not be determined"
            )
        *froms, destination = words
        if listed is not None:
            return ins.Sources(tuple(froms), (), destination)
        if find_heredoc(destination):
            raise ValueError(f"{name} cannot accept a heredoc as a destination")
        bodies = {heredoc.name: heredoc for heredoc in self._line.heredocs}
        paths: list[str] = []
        files: list[Heredoc] = []
        for word in froms:
            found = find_heredoc(word)
            if found and found[0] in bodies:
                files.append(bodies[found[0]])
            else:
                paths.append(word)
        return ins.Sources(tuple(paths), tuple(files), destination)

    def workdir(self, command: Command) -> ins.Workdir:
        return ins.Workdir(*self._where, self._one(command, "WORKDIR"))

    def user(self, command: Command) -> ins.User:
        return ins.User(*self._where, self._one(command, "USER"))

    def stopsignal(self, command: Command) -> ins.StopSignal:
        return ins.StopSignal(*self._where, self._one(command, "STOPSIGNAL"))

    def maintainer(self, command: Command) -> ins.Maintainer:
        return ins.Maintainer(*self._where, self._one(command, "MAINTAINER"))

    def _one(self, command: Command, name: str) -> str:
        Flags(command.flags, {})
        if not command.rest:
            raise ValueError(f"{name} requires exactly one argument")
        return command.rest

    def expose(self, command: Command) -> ins.Expose:
        Flags(command.flags, {})
        if not command.rest:
            raise ValueError("EXPOSE requires at least one argument")
        return ins.Expose(*self._where, tuple(sorted(_words(command.rest))))

    def volume(self, command: Command) -> ins.Volume:
        Flags(command.flags, {})
        listed = json_list(command.rest)
        paths = _words(command.rest) if listed is None else listed
        if not paths:
            raise ValueError("VOLUME requires at least one argument")
        if not all(path.strip() for path in paths):
            raise ValueError("VOLUME specified can not be an empty string")
        return ins.Volume(*self._where, tuple(path.strip() for path in paths))

    def shell(self, command: Command) -> ins.Shell:
        Flags(command.flags, {})
        words = json_list(command.rest)
        if not command.rest or words == []:
            raise ValueError("SHELL requires at least one argument")
        if words is None:
            raise ValueError(f"SHELL requires the arguments to be in JSON form: {self._line.text.strip()}")
        return ins.Shell(*self._where, tuple(words))

    def healthcheck(self, command: Command) -> ins.Healthcheck:
        kind, _, rest = _BLANKS.sub(" ", command.rest, count=1).partition(" ")
        if not kind:
            raise ValueError("HEALTHCHECK requires at least one argument")
        if kind.upper() == "NONE":
            if rest.strip():
                raise ValueError("HEALTHCHECK NONE takes no arguments")
            return ins.Healthcheck(*self._where, ("NONE",))
        times = ("interval", "timeout", "start-period", "start-interval")
        flags = Flags(command.flags, dict.fromkeys((*times, "retries"), TEXT))
        if kind.upper() != "CMD":
            raise ValueError(f'Unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)')
        words = json_list(rest)
        test = ("CMD-SHELL", rest.strip()) if words is None else ("CMD", *words)
        if len(test) < 2 or not test[1]:
            raise ValueError("Missing command after HEALTHCHECK CMD")
        interval, timeout, start_period, start_interval = (
            _interval(name, flags.text(name)) for name in times
        )
        retries = _retries(flags.text("retries"))
        return ins.Healthcheck(*self._where, test, interval, timeout, start_period, start_interval, retries)

    def onbuild(self, command: Command) -> ins.Onbuild:
        Flags(command.flags, {})
        if not command.rest:
            raise ValueError("ONBUILD requires at least one argument")
        trigger = split_command(command.rest, self._escape).name.upper()
        if trigger == "ONBUILD":
            raise ValueError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
        if trigger in ("MAINTAINER", "FROM"):
            raise ValueError(f"{trigger} isn't allowed as an ONBUILD trigger")
        if trigger not in _METHODS:
            known = did_you_mean(trigger, _METHODS)
            raise ValueError(f"unknown instruction: {trigger}{known}")
        expression = re.sub(r"(?i)\A\s*ONBUILD\s*", "", self._line.text)
        for heredoc in self._line.heredocs:
            expression += f"\n{heredoc.content}{heredoc.name}"
        return ins.Onbuild(*self._where, expression)


def _words(rest: str) -> list[str]:
    return _BLANKS.split(rest) if rest else []


def _interval(name: str, text: str) -> int:
    if not text:
        return 0
    value = parse_go_duration(text)
    if value != 0 and value < _MILLISECOND_NS:
        raise ValueError(f'Interval "{name}" cannot be less than 1ms')
    return value


def _retries(text: str) -> int:
    if not text:
        return 0
    if not re.fullmatch(r"[+-]?[0-9]{1,10}", text) or abs(int(text)) > _MAX_RETRIES:
        raise ValueError(f'--retries: invalid number "{text[:40]}"')
    if int(text) < 0:
        raise ValueError(f"--retries cannot be negative ({text})")
    return int(text)


_METHODS: dict[str, Callable[[_Parser, Command], ins.Instruction]] = {
    "ADD": _Parser.add,
    "ARG": _Parser.arg,
    "CMD": _Parser.cmd,
    "COPY": _Parser.copy,
    "ENTRYPOINT": _Parser.entrypoint,
    "ENV": _Parser.env,
    "EXPOSE": _Parser.expose,
    "FROM": _Parser.from_,
    "HEALTHCHECK": _Parser.healthcheck,
    "LABEL": _Parser.label,
    "MAINTAINER": _Parser.maintainer,
    "ONBUILD": _Parser.onbuild,
    "RUN": _Parser.run,
    "SHELL": _Parser.shell,
    "STOPSIGNAL": _Parser.stopsignal,
    "USER": _Parser.user,
    "VOLUME": _Parser.volume,
    "WORKDIR": _Parser.workdir,
}
