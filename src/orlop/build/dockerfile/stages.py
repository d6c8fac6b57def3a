"""Stages: instructions grouped by FROM, and how stages need each other."""

from __future__ import annotations

from dataclasses import dataclass

from orlop.build.dockerfile import instructions as ins
from orlop.build.dockerfile.errors import DockerfileError

__all__ = ["Dockerfile", "Stage", "find_stage", "group_stages"]

MAX_STAGES = 1_000


@dataclass(frozen=True, slots=True)
class Stage:
    """A FROM and what follows it."""

    index: int
    start: ins.From
    body: tuple[ins.Instruction, ...]


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """A parsed Dockerfile: ARGs before the first FROM, stages, source lines, escape character."""

    global_args: tuple[ins.Arg, ...]
    stages: tuple[Stage, ...]
    lines: list[str]
    escape: str
    warnings: tuple[str, ...] = ()


def group_stages(
    instructions: list[ins.Instruction], lines: list[str], escape: str, warnings: tuple[str, ...] = ()
) -> Dockerfile:
    """Group instructions by stage.

    Raises:
        DockerfileError: something other than ARG before the first FROM, no stage, too many.
    """
    global_args: list[ins.Arg] = []
    starts: list[tuple[ins.From, list[ins.Instruction]]] = []
    for instruction in instructions:
        if isinstance(instruction, ins.From):
            starts.append((instruction, []))
        elif starts:
            starts[-1][1].append(instruction)
        elif isinstance(instruction, ins.Arg):
            global_args.append(instruction)
        else:
            # the text of BuildKit, under the prefix of the parser
            error = DockerfileError(
                "no build stage in current context",
                instruction.line,
                hint="a Dockerfile begins with FROM; only ARG may stand before it",
            )
            raise error.with_source(lines)
        if len(starts) > MAX_STAGES:
            raise DockerfileError(f"more than {MAX_STAGES} build stages", instruction.line)
    if not starts:
        raise DockerfileError("dockerfile contains no stages to build", hint="add a FROM instruction")
    stages = tuple(Stage(index, start, tuple(body)) for index, (start, body) in enumerate(starts))
    return Dockerfile(tuple(global_args), stages, lines, escape, warnings)


def find_stage(stages: tuple[Stage, ...], name: str) -> Stage | None:
    """The last stage of that name, case-insensitive; None if there is none."""
    folded = name.lower()
    return next((stage for stage in reversed(stages) if stage.start.name == folded), None)
