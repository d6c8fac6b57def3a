"""`--change`: Dockerfile instructions applied to an image's configuration (commit and import)."""

from __future__ import annotations

from collections.abc import Sequence

from orlop.base.errors import InvalidInput
from orlop.build.dockerfile.draft import Draft
from orlop.build.dockerfile.errors import DockerfileError
from orlop.build.dockerfile.instructions import Instruction
from orlop.build.dockerfile.lines import Source
from orlop.build.dockerfile.options import FrontendOptions
from orlop.build.dockerfile.parser import parse
from orlop.build.dockerfile.scope import GlobalScope, Scope
from orlop.build.dockerfile.stage_lowering import StageLowering
from orlop.oci.imageconfig import RunConfig
from orlop.oci.platform import host_platform

__all__ = ["apply_changes"]

_ALLOWED = frozenset(
    "CMD ENTRYPOINT ENV EXPOSE HEALTHCHECK LABEL ONBUILD STOPSIGNAL USER VOLUME WORKDIR".split()
)


def apply_changes(run: RunConfig, changes: Sequence[str]) -> RunConfig:
    """The configuration after these instructions.

    Raises:
        InvalidInput: an instruction that does more than configure, or is wrong.
    """
    platform = host_platform()
    source, instructions = _parse(changes)
    scope = Scope(source.escape, GlobalScope({}, {}))
    for entry in run.env:
        name, _, value = entry.partition("=")
        scope.env[name] = value
    stage = StageLowering({}, FrontendOptions(platform=platform), scope, Draft(platform, run), None)
    for instruction in instructions:
        word = type(instruction).__name__.upper()
        if word not in _ALLOWED:
            raise InvalidInput(f"{word} is not a valid change command")
        stage.take(instruction, None)
    return stage.draft.run


def _parse(changes: Sequence[str]) -> tuple[Source, list[Instruction]]:
    """The instructions; errors as dockerd tells them, for there is no file to quote."""
    try:
        return parse("\n".join(changes).encode())
    except DockerfileError as error:
        if error.mark:
            raise InvalidInput(f"{error.mark[:60]} is not a valid change command") from error
        text = error.message.partition(": ")[2] if error.line else error.message
        raise InvalidInput(text) from error
