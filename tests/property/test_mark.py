"""Marking against a model that is too simple to be wrong."""

from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.store.mark import unreachable

node = st.tuples(st.sampled_from(["blob", "layer", "image"]), st.sampled_from("abcdef"))


def naive(nodes, roots, edges):
    reached = set(roots)
    while True:
        grown = reached | {target for source, target in edges if source in reached}
        if grown == reached:
            return set(nodes) - reached
        reached = grown


@settings(max_examples=200, deadline=None)
@given(st.lists(node), st.lists(node), st.lists(st.tuples(node, node), max_size=30))
def test_marking_agrees_with_the_naive_model(nodes, roots, edges):
    assert unreachable(nodes, roots, edges) == naive(nodes, roots, edges)
