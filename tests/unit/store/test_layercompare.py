"""Stacking layers: what each does, what is hidden, how trees differ."""

import itertools

from orlop.store.layercompare import DIRECTORY, FILE, WHITEOUT, Change, Node, Tree, compare

PLACES = itertools.count(1000)


def file(size, layer=0, offset=None, **more):
    offset = next(PLACES) if offset is None else offset
    return Node(FILE, size=size, length=size, place=(layer, offset), layer=layer, **more)


def directory(**more):
    return Node(DIRECTORY, **more)


def stack(*layers):
    tree = Tree()
    for entries in layers:
        tree.add_layer(entries)
    return tree


def never(_one, _other):
    raise AssertionError("nobody should read files")


def kinds(report):
    return [(change.kind, change.path) for change in report.changes]


def test_a_file_that_is_replaced_is_hidden_where_it_lies():
    tree = stack([(b"a", file(10))], [(b"a", file(3, 1))])

    assert kinds(tree.reports[1]) == [("C", b"a")]
    assert [report.hidden_bytes for report in tree.reports] == [10, 0]


def test_a_deleted_directory_hides_all_below_it():
    below = [(b"d", directory()), (b"d/x", file(1)), (b"d/e", directory()), (b"d/e/y", file(2))]

    tree = stack(below, [(b"d", Node(WHITEOUT))])

    assert tree.nodes == {}
    assert kinds(tree.reports[1]) == [("D", b"d")]
    assert tree.reports[0].hidden_bytes == 3


def test_a_whiteout_of_nothing_is_no_change():
    assert kinds(stack([], [(b"a", Node(WHITEOUT))]).reports[1]) == []


def test_an_opaque_directory_hides_what_lies_below_it_and_not_its_own():
    tree = stack(
        [(b"d", directory()), (b"d/old", file(5))],
        [(b"d", directory(is_opaque=True)), (b"d/new", file(7, 1))],
    )

    assert set(tree.nodes) == {b"d", b"d/new"}
    assert kinds(tree.reports[1]) == [("D", b"d/old"), ("A", b"d/new")]


def test_a_directory_listed_again_is_no_change_unless_its_owner_is_another():
    tree = stack([(b"d", directory())], [(b"d", directory())], [(b"d", directory(uid=1))])

    assert [kinds(report) for report in tree.reports[1:]] == [[], [("C", b"d")]]


def test_a_directory_that_becomes_a_file_takes_its_children_along():
    tree = stack([(b"d", directory()), (b"d/x", file(4))], [(b"d", file(1, 1))])

    assert set(tree.nodes) == {b"d"}
    assert tree.reports[0].hidden_bytes == 4


def test_hide_all_leaves_nothing_of_the_layers_below():
    tree = stack([(b"d", directory()), (b"d/x", file(4)), (b"e", file(1))])

    tree.hide_all()
    tree.add_layer([(b"n", file(2, 1))])

    assert set(tree.nodes) == {b"n"}
    assert tree.reports[0].hidden_bytes == 5


def test_compare_reads_only_what_has_one_length_and_two_places():
    old = stack(
        [
            (b"same", file(5, offset=7)),
            (b"moved", file(6, offset=1)),
            (b"longer", file(1, offset=2)),
            (b"gone", file(9)),
        ]
    )
    new = stack(
        [(b"same", file(5, offset=7)), (b"moved", file(6, 1)), (b"longer", file(2, 1)), (b"new", file(3, 1))]
    )

    asked = []
    found = list(compare(old, new, lambda one, other: asked.append((one.length, other.length)) or True))

    assert found == [Change("D", b"gone", 9), Change("C", b"longer", 1), Change("A", b"new", 3)]
    assert asked == [(6, 6)]


def test_compare_ignores_nothing_but_times():
    old, new = stack([(b"a", file(1, mode=0o644))]), stack([(b"a", file(1, mode=0o600))])

    assert list(compare(old, new, never)) == [Change("C", b"a", 0)]
