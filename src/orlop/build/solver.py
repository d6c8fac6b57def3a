"""The solver: which operation is looked up, hashed or run next. Pure; events in, commands out.

Theory of operation. Every vertex first wants a *key*, later perhaps a *result*.

    WAITING --inputs have keys--> LOOKING --hit--> KEYED
                                     | miss, and inputs whose content could decide
                                  HASHING --all hashed--> COMPARING --hit--> KEYED
                                     | nothing to hash          | miss
                                     v                          v
                                  UNKNOWN: it has to run, since whoever needs it needs its key
    KEYED or UNKNOWN --result demanded, inputs' results there--> RUNNING --> DONE

A key is found without the results of its inputs, so a build that is cached to the end loads
nothing in between. A result is demanded by the target, by an operation that runs, and by a
content query. Independent vertices move at the same time; that is all there is to parallel
stages. What nobody needs is never started.

Spec: BuildKit solver/edge.go, reduced to one output and one cache.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from orlop.build import graph as g
from orlop.build.cachekey import CacheMap, cache_map, output_key
from orlop.build.results import BuiltLayer, ContextResult, LayersResult, Result
from orlop.oci.digest import Digest, digest_of
from orlop.oci.platform import Platform

__all__ = [
    "Command",
    "Hash",
    "Hashed",
    "Link",
    "Match",
    "Queried",
    "Query",
    "Ran",
    "Run",
    "Save",
    "Solver",
]

KeyLink = tuple[str, str]  # (key of an input, selector)


# --- commands ---


@dataclass(frozen=True, slots=True)
class Query:
    """Look for keys that all inputs lead to; answer with `Queried`."""

    vertex: g.VertexId
    digest: str
    inputs: tuple[tuple[KeyLink, ...], ...]


@dataclass(frozen=True, slots=True)
class Hash:
    """Compute the content key of an input; answer with `Hashed`."""

    vertex: g.VertexId
    input: int
    result: Result


@dataclass(frozen=True, slots=True)
class Run:
    """Carry out the operation; answer with `Ran`."""

    vertex: g.VertexId
    inputs: tuple[Result, ...]


@dataclass(frozen=True, slots=True)
class Save:
    """Remember a result under a key and what leads to it; no answer."""

    vertex: g.VertexId
    digest: str
    inputs: tuple[tuple[KeyLink, ...], ...]
    key: str
    result: LayersResult


@dataclass(frozen=True, slots=True)
class Link:
    """Remember further ways to a key that was found by content; no answer."""

    digest: str
    inputs: tuple[tuple[KeyLink, ...], ...]
    key: str


Command = Query | Hash | Run | Save | Link


# --- events ---


@dataclass(frozen=True, slots=True)
class Match:
    """A key that was found; without a result when that was thrown away or is not allowed here."""

    key: str
    result: LayersResult | None


@dataclass(frozen=True, slots=True)
class Queried:
    """Answer to `Query`."""

    vertex: g.VertexId
    matches: tuple[Match, ...]


@dataclass(frozen=True, slots=True)
class Hashed:
    """Answer to `Hash`."""

    vertex: g.VertexId
    input: int
    key: str


@dataclass(frozen=True, slots=True)
class Ran:
    """Answer to `Run`."""

    vertex: g.VertexId
    result: LayersResult


Event = Queried | Hashed | Ran


class _Phase(enum.Enum):
    WAITING = enum.auto()
    LOOKING = enum.auto()
    HASHING = enum.auto()
    COMPARING = enum.auto()
    KEYED = enum.auto()
    UNKNOWN = enum.auto()
    RUNNING = enum.auto()
    DONE = enum.auto()


@dataclass(slots=True)
class _State:
    vertex: g.Vertex
    identity: CacheMap
    users: list[g.VertexId] = field(default_factory=list)
    phase: _Phase = _Phase.WAITING
    keys: list[str] = field(default_factory=list)
    result: Result | None = None
    is_wanted: bool = False
    is_cached: bool = False
    content: dict[int, str] = field(default_factory=dict)
    hashing: set[int] = field(default_factory=set)

    @property
    def digest(self) -> str:
        """Operation and output, as links name it."""
        return output_key(self.identity.digest, 0)


class Solver:
    """Solves one definition. Not reusable."""

    def __init__(
        self,
        definition: g.Definition,
        platform: Platform,
        *,
        on_done: Callable[[g.VertexId], None] | None = None,
    ) -> None:
        ordered = definition.ordered()
        self._states = {
            vertex.id: _State(vertex, cache_map(vertex.op, len(vertex.inputs), platform))
            for vertex in ordered
        }
        for vertex in ordered:
            for source in dict.fromkeys(edge.vertex for edge in vertex.inputs):
                self._states[source].users.append(vertex.id)
        self._order = [vertex.id for vertex in ordered]
        self._target = definition.target.vertex if definition.target else None
        self._on_done = on_done or (lambda _vertex: None)
        self._commands: list[Command] = []
        self._newly_wanted: list[_State] = []

    @property
    def is_done(self) -> bool:
        """True when the target has its result."""
        return self._target is None or self._states[self._target].result is not None

    def result_of(self, vertex: g.VertexId) -> Result | None:
        """The result, as far as it is known."""
        return self._states[vertex].result

    def is_cached(self, vertex: g.VertexId) -> bool:
        """True when the key was found, so that nothing had to run for it."""
        return self._states[vertex].is_cached

    def start(self) -> list[Command]:
        """What to do first."""
        if self._target is not None:
            self._states[self._target].is_wanted = True
        for vertex in self._order:
            state = self._states[vertex]
            if isinstance(state.vertex.op, g.SourceOp):
                self._begin_source(state, state.vertex.op)
        for vertex in self._order:
            if self._states[vertex].result is not None:
                self._on_done(vertex)
            self._advance(self._states[vertex])
        return self._take()

    def handle(self, event: Event) -> list[Command]:
        """Take an answer; what to do next."""
        state = self._states[event.vertex]
        match event:
            case Queried():
                self._queried(state, event.matches)
            case Hashed():
                state.content[event.input] = event.key
                state.hashing.discard(event.input)
                if not state.hashing:
                    self._compare(state)
            case Ran():
                self._ran(state, event.result)
        return self._take()

    def _take(self) -> list[Command]:
        while self._newly_wanted:
            self._advance(self._newly_wanted.pop())
        commands, self._commands = self._commands, []
        return commands

    # --- sources ---

    def _begin_source(self, state: _State, operation: g.SourceOp) -> None:
        if operation.identifier.startswith("docker-image://"):
            state.keys = [state.digest]
            layers = LayersResult(tuple(BuiltLayer(Digest(diff_id)) for diff_id in operation.layers))
            state.phase, state.result, state.is_cached = _Phase.DONE, layers, True
        elif operation.identifier.startswith("local://"):
            state.keys = [state.digest]
            state.phase, state.result = _Phase.DONE, ContextResult()
        else:  # nothing is known of a remote file before it is fetched
            state.phase = _Phase.UNKNOWN
            state.is_wanted = True

    # --- keys ---

    def _advance(self, state: _State) -> None:
        if state.phase is _Phase.WAITING and all(
            self._states[edge.vertex].keys for edge in state.vertex.inputs
        ):
            self._look(state)
        if state.is_wanted and state.result is None and state.phase in (_Phase.KEYED, _Phase.UNKNOWN):
            self._run_when_ready(state)
        if state.phase is _Phase.HASHING:
            self._hash_when_ready(state)

    def _look(self, state: _State) -> None:
        inputs = [self._states[edge.vertex] for edge in state.vertex.inputs]
        # the key of something sent once is in no record; and what must run is still filed by content
        if state.vertex.ignores_cache or any(source.identity.is_ephemeral for source in inputs):
            self._hash(state)
            return
        state.phase = _Phase.LOOKING
        self._commands.append(Query(state.vertex.id, state.digest, self._links(state)))

    def _links(self, state: _State) -> tuple[tuple[KeyLink, ...], ...]:
        """Everything that each input is known by and that means something to another build."""
        rows: list[tuple[KeyLink, ...]] = []
        for number, edge in enumerate(state.vertex.inputs):
            source = self._states[edge.vertex]
            selector = state.identity.dependencies[number].selector
            row = [] if source.identity.is_ephemeral else [(key, selector) for key in source.keys]
            if number in state.content:
                row.append((state.content[number], ""))
            rows.append(tuple(row))
        return tuple(rows)

    def _queried(self, state: _State, matches: Sequence[Match]) -> None:
        if not matches:
            if state.phase is _Phase.LOOKING:
                self._hash(state)
            else:
                self._unknown(state)
            return
        found_by_content = state.phase is _Phase.COMPARING
        best = next((match for match in matches if match.result is not None), matches[0])
        state.keys = [best.key, *(match.key for match in matches if match.key != best.key)]
        state.result = best.result
        state.phase = _Phase.KEYED
        state.is_cached = True
        if found_by_content:
            self._commands.append(Link(state.digest, self._links(state), best.key))
        self._key_known(state)

    def _hash(self, state: _State) -> None:
        """Ask for the content of the inputs for which only a part matters."""
        dependencies = state.identity.dependencies
        asked = {number for number, dependency in enumerate(dependencies) if dependency.selections}
        if not asked:
            self._unknown(state)
            return
        state.phase = _Phase.HASHING
        state.hashing = asked
        for number in asked:
            self._want(self._states[state.vertex.inputs[number].vertex])
        self._hash_when_ready(state)

    def _hash_when_ready(self, state: _State) -> None:
        results = {
            number: self._states[state.vertex.inputs[number].vertex].result for number in state.hashing
        }
        if any(result is None for result in results.values()):
            return
        state.phase = _Phase.COMPARING
        for number, result in sorted(results.items()):
            assert result is not None
            self._commands.append(Hash(state.vertex.id, number, result))

    def _compare(self, state: _State) -> None:
        if state.vertex.ignores_cache:
            self._unknown(state)
            return
        self._commands.append(Query(state.vertex.id, state.digest, self._links(state)))

    def _unknown(self, state: _State) -> None:
        """No key: it has to run, for those who need its key if not its result."""
        state.phase = _Phase.UNKNOWN
        state.is_wanted = True
        self._run_when_ready(state)

    def _key_known(self, state: _State) -> None:
        if state.is_wanted and state.result is None:
            self._run_when_ready(state)
        if state.result is not None:
            self._on_done(state.vertex.id)
        for user in state.users:
            self._advance(self._states[user])

    # --- results ---

    def _want(self, state: _State) -> None:
        """Demand a result; looked at when the event is done, so that long chains do not recurse."""
        if not state.is_wanted:
            state.is_wanted = True
            self._newly_wanted.append(state)

    def _run_when_ready(self, state: _State) -> None:
        inputs = [self._states[edge.vertex] for edge in state.vertex.inputs]
        for source in inputs:
            self._want(source)
        results = [source.result for source in inputs if source.result is not None]
        if len(results) == len(inputs) and state.phase is not _Phase.RUNNING:
            state.phase = _Phase.RUNNING
            self._commands.append(Run(state.vertex.id, tuple(results)))

    def _ran(self, state: _State, result: LayersResult) -> None:
        state.result = result
        links = self._links(state)
        if not state.keys or not state.is_cached:
            state.keys = [_new_key(state.digest, links)]
        state.is_cached = False
        state.phase = _Phase.DONE
        if all(links) or not links:
            self._commands.append(Save(state.vertex.id, state.digest, links, state.keys[0], result))
        self._on_done(state.vertex.id)
        for user in state.users:
            self._advance(self._states[user])


def _new_key(digest: str, links: tuple[tuple[KeyLink, ...], ...]) -> str:
    """The key of a new result: an operation without inputs is known by itself."""
    if not links:
        return digest
    text = "\n".join(
        f"{number} {key} {selector}" for number, row in enumerate(links) for key, selector in row
    )
    return digest_of(f"{digest}\n{text}".encode())
