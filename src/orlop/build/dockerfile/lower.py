"""Lowering: stages to a graph. Pure; images are asked for by raising `BasesNeeded`.

Only stages that the target needs are lowered. An image's ONBUILD triggers run right behind
the FROM that names it, may need further stages or images, and are not inherited further.

Spec: Dockerfile reference; BuildKit's dockerfile2llb for what the reference leaves open.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from orlop.base.errors import InvalidInput
from orlop.build import graph as g
from orlop.build.dockerfile import draft as d
from orlop.build.dockerfile import instructions as ins
from orlop.build.dockerfile.errors import DockerfileError, did_you_mean
from orlop.build.dockerfile.options import BaseRequest, BasesNeeded, FrontendOptions, Lowered, Step
from orlop.build.dockerfile.parser import parse, parse_trigger
from orlop.build.dockerfile.scope import GlobalScope, expand, global_scope, proxy_variables
from orlop.build.dockerfile.stage_lowering import StageLowering, from_text, image_edge
from orlop.build.dockerfile.stages import Dockerfile, Stage, find_stage, group_stages
from orlop.oci.platform import Platform, parse_platform
from orlop.oci.reference import parse_reference

__all__ = ["lower", "read_dockerfile"]

_SCRATCH = "scratch"
_MAX_TRIGGERS = 1_000
_BUILT_IN = re.compile(r"(?:(?:index\.)?docker\.io/)?docker/dockerfile(?:-upstream)?(?:[:@].*)?\Z")
_IMAGE_ID = re.compile(r"(?:sha256:)?[0-9a-f]{64}\Z")


def read_dockerfile(data: bytes) -> Dockerfile:
    """Parse a Dockerfile into stages.

    Raises:
        DockerfileError: with line and quoted source.
    """
    source, instructions = parse(data)
    warnings = list(source.warnings)
    syntax = source.directives.get("syntax", "")
    if syntax and not _BUILT_IN.match(syntax):
        warnings.append(f"the frontend {syntax[:200]} is not run; the built-in one reads the Dockerfile")
    return group_stages(instructions, source.lines, source.escape, tuple(warnings))


def lower(
    dockerfile: Dockerfile, options: FrontendOptions, bases: Mapping[BaseRequest, d.BaseImage]
) -> Lowered:
    """The graph of the target stage.

    Raises:
        BasesNeeded: images that are not in `bases` yet.
        DockerfileError: what the Dockerfile says cannot be built.
    """
    try:
        return _Lowering(dockerfile, options, bases).run()
    except DockerfileError as error:
        raise error.with_source(dockerfile.lines) from None


class _Lowering:
    def __init__(
        self, dockerfile: Dockerfile, options: FrontendOptions, bases: Mapping[BaseRequest, d.BaseImage]
    ) -> None:
        self._file = dockerfile
        self._stages = dockerfile.stages
        self._options = options
        self._bases = bases
        self._target = self._find_target()
        self._globals = self._global_scope()
        self._base_names = [self._expand_base(stage) for stage in self._stages]
        self._vertices: dict[g.VertexId, g.Vertex] = {}
        self._done: dict[int, StageLowering] = {}
        self._used_args: set[str] = set()

    def run(self) -> Lowered:
        needed = self._reachable()
        steps: list[Step] = []
        for stage in self._stages:
            if stage.index in needed:
                self._lower_stage(stage)
                steps += self._done[stage.index].steps
        final = self._done[self._target.index]
        draft, steps = self._with_labels(final, steps)
        known = set(self._globals.values) | self._used_args
        unused = sorted(
            name for name in self._options.build_args if name not in known and not _is_proxy(name)
        )
        definition = g.Definition(self._vertices, final.edge)
        return Lowered(definition, draft, tuple(steps), tuple(unused), self._file.warnings)

    def _with_labels(self, final: StageLowering, steps: list[Step]) -> tuple[d.Draft, list[Step]]:
        """Labels of the request come last and leave no history."""
        labels = self._options.labels
        if not labels:
            return final.draft, steps
        draft = replace(final.draft, run=d.set_labels(final.draft.run, labels))
        text = "LABEL " + " ".join(f"{key}={value}" for key, value in sorted(labels.items()))
        step = Step(text, 0, self._target.index, final.edge, draft)
        return draft, [*steps, step]

    def _find_target(self) -> Stage:
        name = self._options.target
        if not name:
            return self._stages[-1]
        found = find_stage(self._stages, name)
        if found is None and name.isdecimal() and len(name) < 6 and int(name) < len(self._stages):
            found = self._stages[int(name)]  # the classic builder took numbers too
        if found is None:
            names = [stage.start.name for stage in self._stages if stage.start.name]
            # docker-py and CLI users know this text from the classic builder
            raise DockerfileError(
                f"failed to reach build target {name} in Dockerfile{did_you_mean(name, names)}"
            )
        return found

    def _global_scope(self) -> GlobalScope:
        return global_scope(
            self._file.global_args,
            self._options.build_args,
            build=self._options.host,
            target=self._options.platform,
            stage_name=self._target.start.name,
            escape=self._file.escape,
        )

    def _expand_base(self, stage: Stage) -> str:
        name = expand(stage.start.image, self._globals.values, stage.start, self._file.escape)
        if not name:
            raise DockerfileError(
                f"base name ({stage.start.image}) should not be blank",
                stage.start.line,
                hint="an ARG in FROM must stand above the first FROM and have a value",
            )
        return name

    # --- who needs whom ---

    def _reachable(self) -> set[int]:
        """Stages the target needs; all images those need are known afterwards."""
        found: set[int] = set()
        missing: list[BaseRequest] = []
        pending = [self._target]
        while pending:
            stage = pending.pop()
            if stage.index in found:
                continue
            found.add(stage.index)
            base = self._base_stage(stage)
            if base is not None:
                pending.append(base)
            else:
                self._want(self._base_request(stage), missing)
            for instruction in (*self._triggers(stage), *stage.body):
                if isinstance(instruction, ins.Copy) and instruction.origin:
                    origin = self._copy_origin(stage, instruction)
                    if isinstance(origin, Stage):
                        pending.append(origin)
                    else:
                        self._want(origin, missing)
        if missing:
            first = self._stages[min(found)]
            count = sum(1 + len(self._stages[index].body) for index in found)
            raise BasesNeeded(
                tuple(dict.fromkeys(missing)),
                from_text(first, self._base_names[first.index]),
                count + bool(self._options.labels),
            )
        return found

    def _want(self, request: BaseRequest | None, missing: list[BaseRequest]) -> None:
        if request is not None and request not in self._bases:
            missing.append(request)

    def _base_stage(self, stage: Stage) -> Stage | None:
        return find_stage(self._stages[: stage.index], self._base_names[stage.index])

    def _base_request(self, stage: Stage) -> BaseRequest | None:
        name = self._base_names[stage.index]
        if name == _SCRATCH:
            return None
        return self._image_request(name, self._stage_platform(stage), stage.start)

    def _image_request(self, name: str, platform: str, instruction: ins.Instruction) -> BaseRequest:
        if _IMAGE_ID.match(name):
            return BaseRequest(name, platform, instruction.line)
        try:
            parse_reference(name)
        except InvalidInput as error:
            names = [stage.start.name for stage in self._stages if stage.start.name]
            raise DockerfileError(
                f'failed to parse stage name "{name}": {error.message}{did_you_mean(name, names)}',
                instruction.line,
                is_syntax=False,
                mark=name,
            ) from None
        return BaseRequest(name, platform, instruction.line)

    def _stage_platform(self, stage: Stage) -> str:
        if not stage.start.platform:
            return ""
        text = expand(stage.start.platform, self._globals.values, stage.start, self._file.escape)
        if not text:
            raise DockerfileError(
                f"empty platform value from expression {stage.start.platform}", stage.start.line
            )
        try:
            platform = parse_platform(text)
        except InvalidInput as error:
            raise DockerfileError(
                f"failed to parse platform {text}: {error.message}", stage.start.line, mark=text
            ) from None
        self._check_platform(platform, stage)
        return str(platform)

    def _check_platform(self, platform: Platform, stage: Stage) -> None:
        if not platform.runs_on(self._options.host):
            raise DockerfileError(
                f"platform {platform} cannot be built here: this machine is {self._options.host}",
                stage.start.line,
                is_syntax=False,
                hint="building for another architecture needs emulation, which is not available",
            )

    def _copy_origin(self, stage: Stage, copy: ins.Copy) -> Stage | BaseRequest | None:
        """The stage or image of `--from`; None is an empty tree."""
        name = copy.origin
        found = find_stage(self._stages, name)
        if found is None and name.isdecimal():
            if len(name) > 5 or int(name) >= len(self._stages):
                raise DockerfileError(f"invalid stage index {name[:20]}", copy.line, mark=name)
            found = self._stages[int(name)]
        if found is None:
            return None if name == _SCRATCH else self._image_request(name, "", copy)
        if found.index >= stage.index:
            raise DockerfileError(
                f'cannot copy from stage "{name}", it needs to be defined before '
                f'current stage "{stage.start.name or stage.index}"',
                copy.line,
                is_syntax=False,
                mark=name,
            )
        return found

    def _triggers(self, stage: Stage) -> list[ins.Instruction]:
        """ONBUILD instructions of the base, if the base is known yet."""
        base = self._base_stage(stage)
        if base is not None:
            expressions = [step.expression for step in base.body if isinstance(step, ins.Onbuild)]
        else:
            request = self._base_request(stage)
            image = self._bases.get(request) if request else None
            expressions = list(image.config.run.on_build) if image else []
        if len(expressions) > _MAX_TRIGGERS:
            raise DockerfileError(f"more than {_MAX_TRIGGERS} ONBUILD triggers", stage.start.line)
        return [parse_trigger(expression, stage.start.line) for expression in expressions]

    # --- one stage ---

    def _lower_stage(self, stage: Stage) -> None:
        base = self._base_stage(stage)
        if base is not None:
            lowering = self._done[base.index].fork()
        else:
            request = self._base_request(stage)
            image = self._bases[request] if request else None
            lowering = StageLowering.begin(
                self._vertices, self._options, self._globals, self._file.escape, image
            )
        lowering.enter(stage, self._base_names[stage.index])
        triggers = self._triggers(stage)
        for number, instruction in enumerate((*triggers, *stage.body)):
            is_trigger = number < len(triggers)
            note = f"# Executing {len(triggers)} build trigger{'s'[: len(triggers) > 1]}"
            lowering.take(
                instruction,
                self._origin_edge(stage, instruction),
                is_trigger=is_trigger,
                note=note if triggers and number == 0 else "",
            )
        self._used_args |= lowering.scope.used_args
        self._done[stage.index] = lowering

    def _origin_edge(self, stage: Stage, instruction: ins.Instruction) -> g.Edge | None:
        if not isinstance(instruction, ins.Copy) or not instruction.origin:
            return None
        origin = self._copy_origin(stage, instruction)
        if isinstance(origin, Stage):
            return self._done[origin.index].edge
        return None if origin is None else image_edge(self._vertices, self._bases[origin])


def _is_proxy(name: str) -> bool:
    return bool(proxy_variables({name: ""}))
