"""Stacks of layers: the tree is what overlay would show, and no byte is counted twice or lost."""

from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.store.layercompare import DIRECTORY, FILE, WHITEOUT, Node, Tree, compare

NAMES = st.sampled_from([b"a", b"b", b"c"])


@st.composite
def layers(draw):
    """Entries of one layer, parents first, as an index lists them; sizes are set by `placed`."""
    tree = {}

    def fill(prefix, depth):
        for name in sorted(draw(st.sets(NAMES, max_size=3))):
            path = prefix + name
            kind = draw(st.sampled_from([FILE, DIRECTORY, WHITEOUT] if depth < 2 else [FILE, WHITEOUT]))
            opaque = kind == DIRECTORY and draw(st.booleans())
            tree[path] = (kind, opaque, draw(st.integers(0, 9)) if kind == FILE else 0)
            if kind == DIRECTORY:
                fill(path + b"/", depth + 1)

    fill(b"", 0)
    return tree


def placed(layer, number):
    return [
        (path, Node(kind, size=size, length=size, is_opaque=opaque, place=(number, at), layer=number))
        for at, (path, (kind, opaque, size)) in enumerate(layer.items())
    ]


def overlay(stack):
    """The plain way: apply one layer after the other to a dict."""
    tree = {}
    for number, layer in enumerate(stack):
        for path, node in placed(layer, number):
            if node.kind != DIRECTORY or node.is_opaque or tree.get(path, node).kind != DIRECTORY:
                tree = {
                    name: item for name, item in tree.items()
                    if name != path and not (name.startswith(path + b"/") and item.layer < number)
                }  # fmt: skip
            if node.kind != WHITEOUT:
                tree[path] = node
    return tree


@settings(max_examples=150, deadline=None)
@given(st.lists(layers(), max_size=4))
def test_the_tree_is_the_merged_one_and_bytes_add_up(stack):
    tree = Tree()
    for number, layer in enumerate(stack):
        tree.add_layer(placed(layer, number))

    assert {path: node.kind for path, node in tree.nodes.items()} == {
        path: node.kind for path, node in overlay(stack).items()
    }
    seen = sum(node.size for node in tree.nodes.values())
    stored = sum(report.size_bytes for report in tree.reports)
    assert stored == seen + sum(report.hidden_bytes for report in tree.reports)


@settings(max_examples=100, deadline=None)
@given(st.lists(layers(), max_size=3), st.lists(layers(), max_size=3))
def test_a_difference_read_backwards_is_its_opposite(one, other):
    trees = []
    for stack in (one, other):
        trees.append(Tree())
        for number, layer in enumerate(stack):
            trees[-1].add_layer(placed(layer, number))

    def differ(_left, _right):
        return False

    there = {(change.kind, change.path, change.size) for change in compare(trees[0], trees[1], differ)}
    back = {(change.kind, change.path, change.size) for change in compare(trees[1], trees[0], differ)}
    opposite = {"A": "D", "D": "A", "C": "C"}

    assert {(opposite[kind], path, -size if kind == "C" else size) for kind, path, size in there} == back
    assert list(compare(trees[0], trees[0], differ)) == []
