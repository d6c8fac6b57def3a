"""What a Dockerfile can say: one frozen value per instruction.

Values hold the text as written; expansion happens when a stage is lowered, because only then
are the variables known.
"""

from __future__ import annotations

from dataclasses import dataclass

from orlop.build.dockerfile.lines import Heredoc

__all__ = [
    "Add",
    "Arg",
    "ArgPair",
    "Cmd",
    "CommandLine",
    "Copy",
    "Entrypoint",
    "Env",
    "Expose",
    "From",
    "Healthcheck",
    "Instruction",
    "KeyValue",
    "Label",
    "Maintainer",
    "Onbuild",
    "Run",
    "Shell",
    "Sources",
    "StopSignal",
    "User",
    "Volume",
    "Workdir",
]


@dataclass(frozen=True, slots=True)
class Instruction:
    """Where it stands and how it was written (continuations joined)."""

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A pair of ENV or LABEL; quotes still in place. `is_legacy` for `ENV key value`."""

    key: str
    value: str
    is_legacy: bool = False


@dataclass(frozen=True, slots=True)
class ArgPair:
    """A build argument and its default, if any."""

    key: str
    default: str | None


@dataclass(frozen=True, slots=True)
class CommandLine:
    """Words of CMD, ENTRYPOINT, RUN: exec form, or one string for the shell."""

    words: tuple[str, ...]
    is_shell: bool
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True)
class Sources:
    """What COPY and ADD take, and where it goes."""

    paths: tuple[str, ...]
    files: tuple[Heredoc, ...]
    destination: str


@dataclass(frozen=True, slots=True)
class From(Instruction):
    image: str
    name: str
    platform: str


@dataclass(frozen=True, slots=True)
class Arg(Instruction):
    pairs: tuple[ArgPair, ...]


@dataclass(frozen=True, slots=True)
class Env(Instruction):
    pairs: tuple[KeyValue, ...]


@dataclass(frozen=True, slots=True)
class Label(Instruction):
    pairs: tuple[KeyValue, ...]


@dataclass(frozen=True, slots=True)
class Run(Instruction):
    command: CommandLine
    network: str = "default"
    mounts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Copy(Instruction):
    sources: Sources
    origin: str = ""  # --from
    owner: str = ""
    mode: str = ""
    excludes: tuple[str, ...] = ()
    is_link: bool = False


@dataclass(frozen=True, slots=True)
class Add(Instruction):
    sources: Sources
    owner: str = ""
    mode: str = ""
    excludes: tuple[str, ...] = ()
    is_link: bool = False
    checksum: str = ""
    unpack: bool | None = None


@dataclass(frozen=True, slots=True)
class Workdir(Instruction):
    path: str


@dataclass(frozen=True, slots=True)
class User(Instruction):
    user: str


@dataclass(frozen=True, slots=True)
class Expose(Instruction):
    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Volume(Instruction):
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cmd(Instruction):
    command: CommandLine


@dataclass(frozen=True, slots=True)
class Entrypoint(Instruction):
    command: CommandLine


@dataclass(frozen=True, slots=True)
class StopSignal(Instruction):
    signal: str


@dataclass(frozen=True, slots=True)
class Shell(Instruction):
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Healthcheck(Instruction):
    """`test` is empty only for a bug; times in nanoseconds, 0 = inherit."""

    test: tuple[str, ...]
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Onbuild(Instruction):
    expression: str


@dataclass(frozen=True, slots=True)
class Maintainer(Instruction):
    name: str
