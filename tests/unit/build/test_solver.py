"""The solver alone: a cache in a dictionary, operations that only note that they ran."""

import pytest

from orlop.build import graph as g
from orlop.build import solver as s
from orlop.build.cachekey import content_key
from orlop.build.results import BuiltLayer, ContextResult, LayersResult
from orlop.oci.platform import Platform

BASE = "sha256:" + "b" * 64
PLATFORM = Platform("linux", "amd64")


class World:
    """Answers commands; remembers records between builds like the real cache."""

    def __init__(self):
        self.links = set()
        self.records = {}
        self.content = "c1"
        self.stage_content = ""
        self.ran = []
        self.hashed = []
        self.queried = 0

    def build(self, definition):
        self.ran, self.hashed, self.queried = [], [], 0
        solver = s.Solver(definition, PLATFORM)
        pending = solver.start()
        while pending and not solver.is_done:
            event = self.answer(definition, pending.pop(0))
            if event:
                pending += solver.handle(event)
        for command in pending:
            if isinstance(command, s.Save | s.Link):
                self.answer(definition, command)
        assert solver.is_done
        return solver

    def answer(self, definition, command):
        match command:
            case s.Query():
                self.queried += 1
                sets = [
                    {
                        t
                        for (k, n, d, sel, t) in self.links
                        if (k, sel) in row and n == i and d == command.digest
                    }
                    for i, row in enumerate(command.inputs)
                ]
                keys = set.intersection(*sets) if sets else {command.digest}
                if not sets and command.digest not in self.records:
                    keys = set()
                return s.Queried(command.vertex, tuple(s.Match(k, self.records.get(k)) for k in sorted(keys)))
            case s.Hash():
                self.hashed.append(command.vertex)
                name = self.content
                if not isinstance(command.result, ContextResult):
                    name = self.stage_content or str(command.result.diff_ids)
                return s.Hashed(command.vertex, command.input, content_key([name]))
            case s.Run():
                name = definition.vertices[command.vertex].name
                self.ran.append(name)
                layers = next((r for r in command.inputs if isinstance(r, LayersResult)), LayersResult())
                return s.Ran(command.vertex, layers.plus(BuiltLayer(f"sha256:{name}", 1)))
            case s.Save():
                self.records[command.key] = command.result
                self.add_links(command)
            case s.Link():
                self.add_links(command)
        return None

    def add_links(self, command):
        for number, row in enumerate(command.inputs):
            self.links |= {(k, number, command.digest, sel, command.key) for k, sel in row}


class Graph:
    def __init__(self):
        self.vertices = {}

    def image(self, layer=BASE):
        return g.add_vertex(self.vertices, g.SourceOp("docker-image://x", (layer,)), ())

    def context(self):
        return g.add_vertex(self.vertices, g.SourceOp("local://context"), ())

    def run(self, base, text, **fields):
        return g.add_vertex(self.vertices, g.ExecOp((text,), (), "/"), (base,), name=text, **fields)

    def copy(self, base, source, path="/a", **fields):
        action = g.FileAction(g.CopyAction(path, "/"), 0, 1, 0)
        return g.add_vertex(self.vertices, g.FileOp((action,)), (base, source), name=f"copy{path}", **fields)

    def done(self, target):
        return g.Definition(self.vertices, target)


def chain(*texts, image=BASE, **fields):
    graph = Graph()
    edge = graph.image(image)
    for text in texts:
        edge = graph.run(edge, text, **fields)
    return graph.done(edge)


def test_everything_runs_once_in_order():
    world = World()

    solver = world.build(chain("one", "two"))

    assert world.ran == ["one", "two"]
    assert [layer.diff_id for layer in solver.result_of(chain("one", "two").target.vertex).layers] == [
        BASE,
        "sha256:one",
        "sha256:two",
    ]


def test_a_second_build_runs_nothing():
    world = World()
    world.build(chain("one", "two"))

    solver = world.build(chain("one", "two"))

    assert world.ran == []
    assert solver.is_cached(chain("one", "two").target.vertex)


def test_only_what_follows_a_change_runs():
    world = World()
    world.build(chain("one", "two", "three"))

    world.build(chain("one", "zwei", "three"))

    assert world.ran == ["zwei", "three"]


def test_another_base_image_misses():
    world = World()
    world.build(chain("one"))

    world.build(chain("one", image="sha256:" + "c" * 64))

    assert world.ran == ["one"]


def test_what_the_target_does_not_need_is_never_started():
    graph = Graph()
    used = graph.run(graph.image(), "used")
    graph.run(graph.image(), "unused")
    world = World()

    world.build(graph.done(used))

    assert world.ran == ["used"]


def test_stages_are_asked_for_at_the_same_time():
    graph = Graph()
    left, right = graph.run(graph.image(), "left"), graph.run(graph.image(), "right")
    target = graph.copy(left, right)

    commands = s.Solver(graph.done(target), PLATFORM).start()

    assert {command.vertex for command in commands} == {left.vertex, right.vertex}


def copied_context():
    graph = Graph()
    edge = graph.copy(graph.image(), graph.context())
    return graph.done(graph.run(edge, "after"))


def test_a_context_is_found_by_its_content():
    world = World()
    world.build(copied_context())

    world.build(copied_context())
    assert world.ran == []

    world.content = "c2"
    world.build(copied_context())
    assert world.ran == ["copy/a", "after"]


def stage_copied(build="build"):
    graph = Graph()
    built = graph.run(graph.image("sha256:" + "d" * 64), build)
    edge = graph.copy(graph.image(), built)
    return graph.done(graph.run(edge, "after"))


def test_a_copy_from_a_stage_is_found_without_hashing_it():
    world = World()
    world.build(stage_copied())
    assert world.hashed

    world.build(stage_copied())

    assert (world.ran, world.hashed) == ([], [])


def test_a_copy_from_a_changed_stage_with_equal_files_is_found_by_content():
    world = World()
    world.stage_content = "same"
    world.build(stage_copied())

    world.build(stage_copied("another way"))
    assert world.ran == ["another way"]

    world.build(stage_copied("another way"))
    assert (world.ran, world.hashed) == ([], [])


def test_a_lost_intermediate_result_is_not_needed_when_the_end_is_cached():
    world = World()
    world.build(chain("one", "two"))
    first = next(key for key, result in world.records.items() if len(result.layers) == 2)
    del world.records[first]

    world.build(chain("one", "two"))

    assert world.ran == []


def test_a_lost_intermediate_result_is_made_again_when_something_hangs_on_it():
    world = World()
    world.build(chain("one", "two"))
    del world.records[next(key for key, result in world.records.items() if len(result.layers) == 2)]

    world.build(chain("one", "new"))

    assert world.ran == ["one", "new"]


def test_a_lost_final_result_is_made_from_the_cached_one_below():
    world = World()
    world.build(chain("one", "two"))
    del world.records[next(key for key, result in world.records.items() if len(result.layers) == 3)]

    world.build(chain("one", "two"))

    assert world.ran == ["two"]
    world.build(chain("one", "two"))
    assert world.ran == []


def test_ignoring_the_cache_runs_everything_and_keeps_the_results():
    world = World()
    world.build(chain("one"))

    world.build(chain("one", ignores_cache=True))
    assert (world.ran, world.queried) == (["one"], 0)

    world.build(chain("one"))
    assert world.ran == []


def test_a_context_copied_without_the_cache_is_found_by_the_next_build():
    graph = Graph()
    first = graph.done(graph.copy(graph.image(), graph.context(), ignores_cache=True))
    world = World()
    world.build(first)

    again = Graph()
    world.build(again.done(again.copy(again.image(), again.context())))

    assert world.ran == []


def test_an_operation_without_inputs_is_its_own_key():
    def document():
        graph = Graph()
        make = g.FileOp((g.FileAction(g.MkfileAction("/x", 0o644, b"1"), g.SCRATCH, output=0),))
        return graph.done(g.add_vertex(graph.vertices, make, (), name="make"))

    world = World()
    world.build(document())

    world.build(document())

    assert world.ran == []


def test_an_empty_definition_is_done_at_once():
    solver = s.Solver(g.Definition({}, None), PLATFORM)

    assert (solver.start(), solver.is_done) == ([], True)


@pytest.mark.parametrize("count", [800])
def test_a_long_chain_does_not_recurse(count):
    world = World()
    texts = [f"r{number}" for number in range(count)]

    world.build(chain(*texts))
    world.build(chain(*texts))
    assert world.ran == []

    world.records.clear()
    world.build(chain(*texts))
    assert world.ran == texts
