"""The marking half of collection: which nodes can nobody reach? Pure; see `collect`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

__all__ = ["Node", "unreachable"]

Node = tuple[str, str]  # (kind, key)


def unreachable(
    nodes: Iterable[Node], roots: Iterable[Node], edges: Iterable[tuple[Node, Node]]
) -> set[Node]:
    """The nodes that no chain of edges connects to a root.

    Edges and roots may name things that are not in `nodes`: they are followed, never
    returned. Cycles are fine: a cycle without a root is unreachable. Linear in the input.
    """
    targets: defaultdict[Node, list[Node]] = defaultdict(list)
    for source, target in edges:
        targets[source].append(target)
    reached = set(roots)
    frontier = list(reached)
    while frontier:
        for target in targets.get(frontier.pop(), ()):
            if target not in reached:
                reached.add(target)
                frontier.append(target)
    return set(nodes) - reached
