"""Trees of names, to print and to walk.

    model
    ├─ layer_with_weights-0 (also layer-0)
    │  ├─ kernel  float32 (2, 3)  dense/kernel
    │  └─ bias  float32 (3,)  dense/bias
    └─ optimizer
       └─ iter  int64 ()  Adam/iter

An object graph is no tree: an object stands where its first path leads, and its other names beside
the same parent are told there. Names are printed with what a terminal would act on escaped.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from ckptparse.dtypes import element_name
from ckptparse.graph.object_graph import ObjectGraph
from ckptparse.graph.object_node import VARIABLE_VALUE, ObjectNode
from ckptparse.tensor import Tensor
from ckptparse.text import escape

__all__ = ["Tree", "TreeEntry", "name_tree", "object_tree"]

_BAR, _NO_BAR = "│  ", "   "
_MAX_DEPTH = 40
"""Deeper entries are counted in the text, not shown: indentation alone would be quadratic."""


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """One line of a tree.

    Attributes:
        depth: 0 for the root's children.
        name: Its local name.
        node: The object, or None in a tree of names.
        tensors: What it keeps, by stored name; a key that is not stored stands with None.
        also: Its other local names beside the same parent.
        full_name: The variable's own name, or None.
    """

    depth: int
    name: str
    node: ObjectNode | None = None
    tensors: Mapping[str, Tensor | None] | None = None
    also: tuple[str, ...] = ()
    full_name: str | None = None


class Tree:
    """Entries in the order they are printed: iterate over them, or print the whole."""

    def __init__(self, entries: Callable[[int], Iterator[TreeEntry]]) -> None:
        """Take what gives the entries of the levels up to a depth."""
        self._entries = entries

    def __iter__(self) -> Iterator[TreeEntry]:
        return self._entries(sys.maxsize)

    def __str__(self) -> str:
        return "\n".join(_lines(self._entries(_MAX_DEPTH)))

    def __repr__(self) -> str:
        return f"<Tree of {sum(1 for _ in self)} entries>"


def object_tree(graph: ObjectGraph, *, everything: bool = False) -> Tree:
    """Make the tree of an object graph.

    Args:
        graph: The graph.
        everything: Whether objects that keep nothing, nor any object below them, are shown too.
    """
    return Tree(lambda deepest: _iter_objects(graph, deepest, everything=everything))


def name_tree(names: Iterable[str], find: Callable[[str], Tensor | None]) -> Tree:
    """Make the tree of names that `/` splits into scopes.

    Args:
        names: Stored names, sorted.
        find: Gives the tensor of a stored name.
    """
    return Tree(lambda deepest: _iter_names(names, find, deepest))


def _iter_objects(graph: ObjectGraph, deepest: int, *, everything: bool) -> Iterator[TreeEntry]:
    # Looked at all at once, the index is cheaper than key by key.
    other_keys = graph.other_keys
    if graph.root.attributes:
        yield _entry(0, "(root)", graph.root, ())
    pending = [_children(graph.root, 0, everything=everything)]
    while pending:
        entry = next(pending[-1], None)
        if entry is None:
            pending.pop()
            continue
        yield entry
        if entry.node is not None and entry.depth < deepest:
            pending.append(_children(entry.node, entry.depth + 1, everything=everything))
    if other_keys:
        yield TreeEntry(0, "(keys of no object)")
        for key in other_keys:
            yield TreeEntry(1, key, tensors={key: graph.find_tensor(key)})


def _children(node: ObjectNode, depth: int, *, everything: bool) -> Iterator[TreeEntry]:
    """Iterate over what stands below a node: its children by first path, then its slots."""
    graph = node.graph
    children = node.children
    names: dict[int, list[str]] = {}
    for name, child in children.items():
        names.setdefault(child.node_id, []).append(name)
    for name, child in children.items():
        if not graph.is_first_path(node.node_id, name, child.node_id):
            continue
        if everything or child.node_id in graph.holders:
            also = tuple(other for other in names[child.node_id] if other != name)
            yield _entry(depth, name, child, also)
    for _, slot_name, slot_id in graph.slots_by_variable.get(node.node_id, ()):
        yield _entry(depth, f"slot {slot_name}", graph.node(slot_id), ())


def _entry(depth: int, name: str, node: ObjectNode, also: tuple[str, ...]) -> TreeEntry:
    tensors: dict[str, Tensor | None] = {}
    for attribute in node.attributes.values():
        under = node.graph.tensors_under(attribute.checkpoint_key)
        tensors.update(under or dict.fromkeys([attribute.checkpoint_key]))
    return TreeEntry(depth, name, node, tensors, also, node.full_name)


def _iter_names(
    names: Iterable[str], find: Callable[[str], Tensor | None], deepest: int
) -> Iterator[TreeEntry]:
    before = ""
    for name in names:
        scope = name[: name.rfind("/") + 1]
        shared = before[: _count_shared(before, scope)]
        shared = shared[: shared.rfind("/") + 1]
        depth = shared.count("/")
        for own in scope[len(shared) :].split("/")[:-1]:
            if depth <= deepest:
                yield TreeEntry(depth, own)
            depth += 1
        before = scope
        depth = scope.count("/")
        if depth <= deepest:
            yield TreeEntry(depth, name[len(scope) :], tensors={name: find(name)})


def _count_shared(first: str, second: str) -> int:
    """Count the first characters that two texts have in common, by halving: they may be long."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


# Text


def _lines(entries: Iterable[TreeEntry]) -> Iterator[str]:
    """Draw the branches; whether a line is the last of its level is known from what follows."""
    shown = list(entries)
    bars = [_NO_BAR] * (_MAX_DEPTH + 1)
    below = 0
    lines: list[str] = []
    for entry in reversed(shown):
        depth = entry.depth
        # What stands deeper belongs to a branch that ends above this line.
        for deeper in range(depth + 1, below + 1):
            bars[deeper] = _NO_BAR
        corner = "└─ " if bars[depth] is _NO_BAR else "├─ "
        lines.append("".join(bars[:depth]) + corner + _describe(entry))
        bars[depth], below = _BAR, depth
    yield from reversed(lines)


def _describe(entry: TreeEntry) -> str:
    name = escape(entry.name)
    if entry.also:
        name += f" (also {', '.join(map(escape, entry.also))})"
    if entry.depth == _MAX_DEPTH and entry.node is not None and len(entry.node):
        name += " ..."
    parts = [name, *_values(entry)]
    if entry.full_name:
        parts.append(escape(entry.full_name))
    if getattr(entry.node, "trainable", None) is False:
        parts.append("(not trainable)")
    return "  ".join(parts)


def _values(entry: TreeEntry) -> Iterator[str]:
    tensors = entry.tensors or {}
    plain = entry.node is None or VARIABLE_VALUE in entry.node.attributes
    for key, tensor in tensors.items():
        label = "" if plain and len(tensors) == 1 else escape(key.rsplit("/", 1)[-1]) + " "
        if tensor is None:
            yield f"{label}(not stored)"
        else:
            yield f"{label}{element_name(tensor.data_type)} {tensor.shape}"
