"""Command lines that two engines run, and what is compared of what they say.

A table is text. A line is run by a shell in a directory of the engine's own, where `docker` is the client. Comment lines
start with `#`; `## NAME` begins a group, whose lines run in order. Below a line may stand why ours is to say something else,
and what that is, all of it:

    docker kill gone
      ! newer engines name the operation
      > 1: Error response from daemon: cannot kill container: gone: No such container: gone

`! ` alone says that nothing is compared but that it fails or succeeds.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field

__all__ = ["Group", "Line", "Said", "normalised", "read_table", "run_group"]

_LINE_TIMEOUT_S = 60
_RULES = tuple(
    (re.compile(pattern), text)
    for pattern, text in (
        (r"\b[0-9a-f]{64}\b", "<id>"),
        (r"\b[0-9a-f]{12}\b", "<id>"),
        (r"\b0001-01-01T00:00:00Z", "<never>"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", "<time>"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)? [+-]\d{4} [A-Z]+", "<time>"),
        (r"(Less than a second|About a minute|About an hour|\d+ (seconds?|minutes?|hours?|months?))( ago)?", "<ago>"),
        (r"\b\d+(\.\d+)?(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)\b", "<size>"),
        (r"\d+\.\d\d%", "<percent>"),
        (r"/tmp/[^\s\"]+", "<path>"),
        (r"[ \t]+", " "),
    )
)  # fmt: skip
# The client's advice after every error, and what it logs when an upload ends early: that is a race.
_NOISE = re.compile(r"Run 'docker \w+ --help'|time=\S+ level=error msg=\"Can't ")


@dataclass(frozen=True)
class Line:
    """One command line, and what ours is to say when that is not what the peer says."""

    command: str
    number: int
    reason: str | None = None
    wanted: str | None = None


@dataclass
class Group:
    """Lines that belong together."""

    name: str
    lines: list[Line] = field(default_factory=list)


@dataclass(frozen=True)
class Said:
    """The exit code of a line, and its output, normalised."""

    code: int
    stdout: str
    stderr: str

    def __str__(self) -> str:
        return f"{self.code}: {self.stdout}{self.stderr}".strip()


def read_table(text: str) -> list[Group]:
    """The groups of a table."""
    groups: list[Group] = []
    for number, row in enumerate(text.splitlines(), 1):
        if row.startswith("## "):
            groups.append(Group(row[3:].strip()))
        elif row.startswith("  ! "):
            last = groups[-1].lines.pop()
            groups[-1].lines.append(Line(last.command, last.number, row[4:].strip()))
        elif row.startswith("  > "):
            last = groups[-1].lines.pop()
            wanted = row[4:] if last.wanted is None else f"{last.wanted}\n{row[4:]}"
            groups[-1].lines.append(Line(last.command, last.number, last.reason, wanted))
        elif row.strip() and not row.startswith("#"):
            groups[-1].lines.append(Line(row, number))
    return groups


def run_group(group: Group, env: dict[str, str], cwd: str) -> list[Said]:
    """Run the lines in order; what each said."""
    return [_run(line, env, cwd) for line in group.lines]


def normalised(text: str) -> str:
    """Text without what differs between any two runs."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    lines = (line.strip() for line in text.splitlines())
    return "".join(f"{line}\n" for line in lines if line and not _NOISE.match(line))


def _run(line: Line, env: dict[str, str], cwd: str) -> Said:
    done = subprocess.run(
        ["sh", "-c", line.command], env=env, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True,
        timeout=_LINE_TIMEOUT_S, check=False,
    )  # fmt: skip
    texts = (normalised(part.decode(errors="replace")) for part in (done.stdout, done.stderr))
    return Said(done.returncode, *texts)
