"""The search for effects: through the graph, each function, and graphs inside of constants."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from ckptparse.errors import CheckpointError
from ckptparse.graph.effects.effect import Effect, EffectKind, PathOrigin
from ckptparse.graph.effects.known_ops import KNOWN_OPS, TENSORFLOW
from ckptparse.graph.effects.table import FUNCTION_OPS, OPERATIONS, Operation
from ckptparse.graph.effects.tracing import Name, Names, Tracer, function_calls
from ckptparse.graph.nodes import Node, NodeTable
from ckptparse.graph.parts import GraphParts
from ckptparse.limits import limit_error

__all__ = ["find_effects"]

_DEEPEST = 8
"""Graphs inside of graphs that are looked into."""
_STEPS_A_NODE = 4
"""What a node that may do something counts as, of `Limits.steps`: it is decoded, and traced."""
_CARRIES_GRAPH = "DatasetFromGraph"
_MOST_REPEATED = 1 << 18
"""Bytes of graphs that are looked into again, since several nodes carry the same. Of more, what
they do is told of the first node alone."""
_FED = frozenset({"InitializeTableFromTextFile", "InitializeTableFromTextFileV2"})
"""Operations that run while a model is loaded, when assets take the place of constants."""
_REGISTRY = "tensorflow/core/framework/op.h"
_LOCAL_SCHEMES = frozenset({"file", "ram", "stdout", "stderr", "log"})
_ORDER = (
    PathOrigin.LITERAL,
    PathOrigin.COMPUTED,
    PathOrigin.CALLER,
    PathOrigin.ASSET,
    PathOrigin.SAVER,
)
"""Of names from several places, the one that is told: the least ordinary first."""

_SAYS = {
    PathOrigin.SAVER: "under the name that its Saver is given",
    PathOrigin.ASSET: "one of the model's own assets",
    PathOrigin.LITERAL: "whose name is written in the graph",
    PathOrigin.CALLER: "whose name the caller gives",
    PathOrigin.COMPUTED: "whose name is computed while it runs",
}


_Make = Callable[..., Effect]
"""Makes an effect; what is the same for all of one table is filled in."""


@dataclass(slots=True)
class _Search:
    """What was looked at of a graph, and of those that it carries as data.

    Attributes:
        graph: The outermost.
        left: How many bytes of graphs that were looked into may be seen again.
        seen: Those graphs.
        steps: How many nodes were looked at that may do something.
    """

    graph: GraphParts
    left: int
    seen: set[bytes] = field(default_factory=set)
    steps: int = 0

    def is_to_be_seen(self, data: bytes) -> bool:
        """Tell whether a graph is to be looked into, and note that it is."""
        if data in self.seen:
            self.left -= len(data)
            return self.left >= 0
        self.seen.add(data)
        return True

    def count(self, nodes: int) -> None:
        """Count nodes, before they are looked at."""
        self.steps += nodes
        if self.steps > self.graph.most_steps:
            what = "The number of nodes of a graph that may do something beyond computing"
            raise limit_error(self.graph.limits, "steps", self.steps, what, path=self.graph.path)


def find_effects(
    graph: GraphParts, names: Names, *, tags: tuple[str, ...] = ()
) -> Iterator[Effect]:
    """Iterate over the effects of a graph, in the order of the file; nothing is run.

    Args:
        graph: It, and its functions.
        names: What is known of names of files from outside of the graph.
        tags: Of the meta graph, for the effects.

    Raises:
        LimitError: More nodes may do something than `Limits.steps` allows.
    """
    return _find(graph, names, tags, (), _Search(graph, _MOST_REPEATED))


def _find(
    graph: GraphParts,
    names: Names,
    tags: tuple[str, ...],
    within: tuple[str, ...],
    search: _Search,
) -> Iterator[Effect]:
    """Iterate over the effects of a graph that the data of some nodes, outermost first, hold."""
    acting = sum(_may_act(table.op(name)) for table in graph.tables() for name in table)
    search.count(_STEPS_A_NODE * acting)
    tracer = Tracer(graph, names)
    for table in graph.tables():
        called = table.function is None or table.function in tracer.called
        make = partial(Effect, function=table.function, within=within, tags=tags, called=called)
        for name in table:
            yield from _look_at(graph, tracer, table, name, make)
            if table.op(name) == _CARRIES_GRAPH and len(within) < _DEEPEST:
                node = table[name]
                for inner in _carried(graph, tracer, table, node, search):
                    yield from _find(inner, Names(), tags, (*within, node.path), search)


def _may_act(op: str) -> bool:
    """Tell whether a node of an op is looked at: it may have effects, or call what has."""
    return op not in KNOWN_OPS or op in OPERATIONS or op in FUNCTION_OPS


def _look_at(
    graph: GraphParts, tracer: Tracer, table: NodeTable, name: str, make: _Make
) -> Iterator[Effect]:
    """Iterate over the effects of one node; most have none, and are not decoded."""
    op = table.op(name)
    known = op in KNOWN_OPS
    if op in OPERATIONS:
        yield from _examine(tracer, table, table[name], make)
    elif not known and op not in graph.functions:
        yield _unknown(name, op, make)
    if op in FUNCTION_OPS or not known:
        yield from _named_functions(graph, table[name], make)


def _examine(tracer: Tracer, table: NodeTable, node: Node, make: _Make) -> Iterator[Effect]:
    """Say what a node of the table does; nothing if its name says that it does nothing."""
    operation = OPERATIONS[node.op]
    names = list(_names_of(tracer, table, node, operation))
    takes_name = bool(operation.inputs) or operation.attribute is not None
    if operation.only_if_named and not any(_is_named(name, operation) for name in names):
        return
    told = min(names, key=lambda name: _ORDER.index(name.origin)) if names else None
    if told is None and takes_name:
        told = Name(PathOrigin.COMPUTED)
    kind = _kind(operation.kind, names)
    says = f", {_SAYS[told.origin]}" if told else ""
    yield make(
        kind=kind,
        ordinary=bool(names) and all(name.origin is operation.own for name in names),
        op=node.op,
        node=node.name,
        path=told.text if told and told.origin is PathOrigin.LITERAL else None,
        origin=told.origin if told else None,
        reason=operation.does + says,
        source=operation.source,
    )


def _names_of(tracer: Tracer, table: NodeTable, node: Node, operation: Operation) -> Iterator[Name]:
    if operation.attribute is not None:
        value = node.attributes.get(operation.attribute)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, bytes):
                yield Name(PathOrigin.LITERAL, item.decode("utf-8", "surrogateescape"))
        return
    inputs = node.data_inputs
    for number in operation.inputs:
        if number >= len(inputs):
            yield Name(PathOrigin.COMPUTED)
            continue
        for name in tracer.trace(table, inputs[number]):
            is_fed = name.origin is not PathOrigin.ASSET or node.op in _FED
            yield name if is_fed or name.text is None else Name(PathOrigin.LITERAL, name.text)


def _is_named(name: Name, operation: Operation) -> bool:
    """Tell whether something may be named; in attributes of several uses, an address alone."""
    if name.text is None:
        return True
    if name.text.startswith(operation.harmless):
        return False
    if operation.kind is EffectKind.WRITES_FILE and operation.attribute is not None:
        return "://" in name.text
    return name.text != ""


def _kind(kind: EffectKind, names: Iterable[Name]) -> EffectKind:
    """Take what names another machine for the network, whatever is done with it."""
    if kind not in (EffectKind.READS_FILE, EffectKind.WRITES_FILE):
        return kind
    for name in names:
        scheme, found, _ = (name.text or "").partition("://")
        if found and scheme.rpartition(";")[2].lower() not in _LOCAL_SCHEMES:
            return EffectKind.NETWORK
    return kind


def _unknown(name: str, op: str, make: _Make) -> Effect:
    return make(
        kind=EffectKind.NEEDS_LIBRARY,
        ordinary=False,
        op=op,
        node=name,
        path=None,
        origin=None,
        reason=f"No operation of TensorFlow {TENSORFLOW}: it needs a library that defines it",
        source=_REGISTRY,
    )


def _named_functions(graph: GraphParts, node: Node, make: _Make) -> Iterator[Effect]:
    """Iterate over operations of the table that a node calls as if they were functions."""
    for attribute, call in function_calls(node):
        operation = OPERATIONS.get(call.name)
        if operation is not None and call.name not in graph.functions:
            yield make(
                kind=operation.kind,
                ordinary=False,
                op=call.name,
                node=node.name,
                path=None,
                origin=PathOrigin.COMPUTED if operation.inputs else None,
                reason=f"{operation.does}, called by {node.op} as its {attribute}",
                source=operation.source,
            )


def _carried(
    graph: GraphParts, tracer: Tracer, table: NodeTable, node: Node, search: _Search
) -> Iterator[GraphParts]:
    """Iterate over the graphs that a node is given as the bytes of a constant."""
    if node.data_inputs:
        for data in tracer.literals(table, node.data_inputs[0]):
            if not search.is_to_be_seen(data):
                continue
            inner = _graph_of_bytes(data, graph)
            if inner is not None:
                yield inner


def _graph_of_bytes(data: bytes, outer: GraphParts) -> GraphParts | None:
    """Take bytes for a graph; None if they are none, and cannot be run as one."""
    try:
        return GraphParts(data, limits=outer.limits, path=outer.path)
    except CheckpointError:
        return None
