"""One stage while it is lowered: instruction by instruction, variables, graph and draft move on."""

from __future__ import annotations

import re
from dataclasses import replace

from orlop.build import graph as g
from orlop.build.dockerfile import copying, ports
from orlop.build.dockerfile import draft as d
from orlop.build.dockerfile import instructions as ins
from orlop.build.dockerfile.errors import DockerfileError
from orlop.build.dockerfile.expansion import ExpansionError, Rules, expand_words
from orlop.build.dockerfile.options import FrontendOptions, Step
from orlop.build.dockerfile.paths import absolute
from orlop.build.dockerfile.running import lower_run
from orlop.build.dockerfile.scope import GlobalScope, Scope
from orlop.build.dockerfile.stages import Stage

__all__ = ["StageLowering", "from_text", "image_edge"]

_SIGNAL_NAMES = frozenset(
    (
        "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP "
        "SYS TERM TRAP TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ RTMIN RTMAX"
    ).split()
)
_REALTIME = re.compile(r"RTMIN\+(?:[1-9]|1[0-5])\Z|RTMAX-(?:[1-9]|1[0-4])\Z")


def image_edge(vertices: dict[g.VertexId, g.Vertex], image: d.BaseImage) -> g.Edge | None:
    """The source of an image's files; None when it has no layers."""
    if not image.layers:
        return None
    operation = g.SourceOp(f"docker-image://{image.reference}", image.layers)
    return g.add_vertex(vertices, operation, (), name=f"FROM {image.reference}")


def from_text(stage: Stage, base_name: str) -> str:
    """A FROM with its variables filled in, as a step shows it."""
    return f"FROM {base_name} AS {stage.start.name}" if stage.start.name else f"FROM {base_name}"


class StageLowering:
    """The state of a stage behind the instructions taken so far."""

    def __init__(
        self,
        vertices: dict[g.VertexId, g.Vertex],
        options: FrontendOptions,
        scope: Scope,
        draft: d.Draft,
        edge: g.Edge | None,
    ) -> None:
        self._vertices = vertices
        self._options = options
        self._has_cmd = False
        self._stage = 0
        self.scope = scope
        self.draft = draft
        self.edge = edge
        self.steps: list[Step] = []

    @classmethod
    def begin(
        cls,
        vertices: dict[g.VertexId, g.Vertex],
        options: FrontendOptions,
        outer: GlobalScope,
        escape: str,
        base: d.BaseImage | None,
    ) -> StageLowering:
        """A stage on an image, or on nothing."""
        draft = d.Draft.on_base(base) if base else d.Draft.scratch(options.platform)
        scope = Scope(escape, outer)
        for entry in draft.run.env:
            key, _, value = entry.partition("=")
            scope.env[key] = value
        return cls(vertices, options, scope, draft, image_edge(vertices, base) if base else None)

    def fork(self) -> StageLowering:
        """A stage on top of this one; its ONBUILD triggers fire there and are not inherited."""
        draft = replace(self.draft, run=replace(self.draft.run, on_build=()))
        return StageLowering(self._vertices, self._options, self.scope.fork(), draft, self.edge)

    def enter(self, stage: Stage, base_name: str) -> None:
        """Begin the body of `stage`."""
        self._stage = stage.index
        text = from_text(stage, base_name)
        self.steps = [Step(text, stage.start.line, stage.index, self.edge, self.draft, is_from=True)]

    def take(
        self, instruction: ins.Instruction, origin: g.Edge | None, *, is_trigger: bool = False, note: str = ""
    ) -> None:
        """Lower one instruction. `origin` is what COPY --from copies from."""
        before = self.edge
        self._dispatch(instruction, origin)
        step = Step(
            _shown(instruction),
            instruction.line,
            self._stage,
            self.edge,
            self.draft,
            makes_layer=self.edge != before,
            is_trigger=is_trigger,
            note=note,
        )
        self.steps.append(step)

    def _dispatch(self, instruction: ins.Instruction, origin: g.Edge | None) -> None:
        match instruction:
            case ins.Run():
                self._run(instruction)
            case ins.Copy() | ins.Add():
                self._copy(instruction, origin)
            case ins.Workdir():
                self._workdir(instruction)
            case _:
                self.draft = self._configured(instruction)

    def _configured(self, instruction: ins.Instruction) -> d.Draft:  # noqa: C901, PLR0911, PLR0912 - one row each
        match instruction:
            case ins.Env():
                return self._env(instruction)
            case ins.Label():
                return self._label(instruction)
            case ins.Arg():
                return self.draft.add(self.scope.declare(instruction))
            case ins.User():
                return self._user(instruction)
            case ins.Expose():
                return self._expose(instruction)
            case ins.Volume():
                return self._volume(instruction)
            case ins.Cmd():
                self._has_cmd = True
                return d.set_cmd(self.draft, self._words(instruction.command))
            case ins.Entrypoint():
                words = self._words(instruction.command)
                return d.set_entrypoint(self.draft, words, keeps_cmd=self._has_cmd)
            case ins.StopSignal():
                return self._stop_signal(instruction)
            case ins.Shell():
                said = f"SHELL [{' '.join(instruction.words)}]"
                return self.draft.add(said, replace(self.draft.run, shell=instruction.words))
            case ins.Healthcheck():
                return d.set_healthcheck(self.draft, instruction)
            case ins.Onbuild():
                triggers = (*self.draft.run.on_build, instruction.expression)
                return replace(self.draft, run=replace(self.draft.run, on_build=triggers))
            case ins.Maintainer():
                return replace(self.draft.add(f"MAINTAINER {instruction.name}"), author=instruction.name)
            case _:
                raise AssertionError(f"no lowering for {type(instruction).__name__}")

    # --- instructions that make layers ---

    def _run(self, run: ins.Run) -> None:
        base = () if self.edge is None else (self.edge,)
        operation, extra, said = lower_run(
            run, self.scope, self.draft.run, self._options, self._vertices, has_base=bool(base)
        )
        self._advance(operation, (*base, *extra), run)
        self.draft = self.draft.add(f"RUN {said} # buildkit", has_layer=True)

    def _copy(self, copy: ins.Copy | ins.Add, origin: g.Edge | None) -> None:
        lowered = copying.lower_copy(
            copy,
            self.scope,
            self.draft.run.working_dir or "/",
            base=None if copy.is_link else self.edge,
            origin=origin,
            vertices=self._vertices,
        )
        below = self.edge
        self._advance(lowered.operation, lowered.inputs, copy)
        if copy.is_link and below is not None and self.edge is not None:
            self._advance(g.MergeOp(), (below, self.edge), copy)
        self.draft = self.draft.add(f"{lowered.said} # buildkit", has_layer=True)

    def _workdir(self, workdir: ins.Workdir) -> None:
        path = absolute(self.draft.run.working_dir or "/", self.scope.expand(workdir.path, workdir))
        run = replace(self.draft.run, working_dir=path)
        if path != "/":
            base = g.SCRATCH if self.edge is None else 0
            owner = copying.parse_owner(run.user, base) if run.user else None
            action = g.MkdirAction(path, 0o755, makes_parents=True, owner=owner)
            operation = g.FileOp((g.FileAction(action, base, output=0),))
            self._advance(operation, () if self.edge is None else (self.edge,), workdir)
        self.draft = self.draft.add(f"WORKDIR {path}", run, has_layer=path != "/")

    def _advance(self, operation: g.Op, inputs: tuple[g.Edge, ...], instruction: ins.Instruction) -> None:
        self.edge = g.add_vertex(
            self._vertices,
            operation,
            inputs,
            name=_shown(instruction),
            line=instruction.line,
            ignores_cache=self._options.ignores_cache,
        )

    # --- instructions that only configure ---

    def _env(self, env: ins.Env) -> d.Draft:
        pairs = self._pairs(env.pairs, env)
        entries = self.draft.run.env
        for key, value in pairs:
            self.scope.set_env(key, value, env)
            entries = d.set_env(entries, key, value)
        said = "ENV " + " ".join(f"{key}={value}" for key, value in pairs)
        return self.draft.add(said, replace(self.draft.run, env=entries))

    def _label(self, label: ins.Label) -> d.Draft:
        pairs = self._pairs(label.pairs, label)
        said = "LABEL " + " ".join(f"{key}={value}" for key, value in pairs)
        return self.draft.add(said, d.set_labels(self.draft.run, dict(pairs)))

    def _pairs(self, pairs: tuple[ins.KeyValue, ...], instruction: ins.Instruction) -> list[tuple[str, str]]:
        """All of one line expand against the environment before the line."""
        return [
            (self.scope.expand(pair.key, instruction), self.scope.expand(pair.value, instruction))
            for pair in pairs
        ]

    def _user(self, user: ins.User) -> d.Draft:
        name = self.scope.expand(user.user, user)
        return self.draft.add(f"USER {name}", replace(self.draft.run, user=name))

    def _expose(self, expose: ins.Expose) -> d.Draft:
        rules = Rules(escape=self.scope.escape)
        try:
            words = [word for text in expose.ports for word in expand_words(text, self.scope.env, rules)]
            found = ports.parse_ports(words)
        except (ExpansionError, ValueError) as error:
            raise DockerfileError(str(error), expose.line) from None
        exposed = tuple(dict.fromkeys((*self.draft.run.exposed_ports, *found)))
        return self.draft.add(f"EXPOSE [{' '.join(found)}]", replace(self.draft.run, exposed_ports=exposed))

    def _volume(self, volume: ins.Volume) -> d.Draft:
        paths = [self.scope.expand(path, volume) for path in volume.paths]
        if not all(paths):
            raise DockerfileError("VOLUME specified can not be an empty string", volume.line)
        volumes = tuple(dict.fromkeys((*self.draft.run.volumes, *paths)))
        return self.draft.add(f"VOLUME [{' '.join(paths)}]", replace(self.draft.run, volumes=volumes))

    def _words(self, command: ins.CommandLine) -> tuple[str, ...]:
        return d.shell_words(self.draft.run, command.words) if command.is_shell else command.words

    def _stop_signal(self, stop: ins.StopSignal) -> d.Draft:
        name = self.scope.expand(stop.signal, stop)
        if not _is_signal(name):
            raise DockerfileError(f"invalid signal: {name}", stop.line, mark=stop.signal)
        return self.draft.add(f"STOPSIGNAL {name}", replace(self.draft.run, stop_signal=name))


def _shown(instruction: ins.Instruction) -> str:
    """One line of a step: heredocs show their operator only."""
    text = instruction.text
    return text if len(text) <= 4096 else text[:4093] + "..."


def _is_signal(name: str) -> bool:
    if name.isdecimal():
        return len(name) < 4 and 1 <= int(name) <= 64
    short = name.upper().removeprefix("SIG")
    return short in _SIGNAL_NAMES or _REALTIME.match(short) is not None
