"""The search for effects: through the graph, each function, and graphs inside of constants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from ckptparse.errors import CheckpointError
from ckptparse.graph.effects.effect import Effect, EffectKind, PathOrigin
from ckptparse.graph.effects.known_ops import KNOWN_OPS, TENSORFLOW
from ckptparse.graph.effects.table import FUNCTION_OPS, OPERATIONS, Operation
from ckptparse.graph.effects.tracing import Name, Names, Tracer, function_calls
from ckptparse.graph.nodes import Node, NodeTable
from ckptparse.graph.parts import GraphParts

__all__ = ["find_effects"]

_DEEPEST = 8
"""Graphs inside of graphs that are looked into."""
_CARRIES_GRAPH = "DatasetFromGraph"
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


def find_effects(
    graph: GraphParts, names: Names, *, tags: tuple[str, ...] = (), within: tuple[str, ...] = ()
) -> Iterator[Effect]:
    """Iterate over the effects of a graph, in the order of the file; nothing is run.

    Args:
        graph: It, and its functions.
        names: What is known of names of files from outside of the graph.
        tags: Of the meta graph, for the effects.
        within: The nodes whose data hold this graph.
    """
    tracer = Tracer(graph, names)
    for table in graph.tables():
        called = table.function is None or table.function in tracer.called
        for name in table:
            for effect in _look_at(graph, tracer, table, name):
                yield replace(effect, tags=tags, within=within, called=called)
            if table.op(name) == _CARRIES_GRAPH and len(within) < _DEEPEST:
                node = table[name]
                for inner in _carried(graph, tracer, table, node):
                    yield from find_effects(inner, Names(), tags=tags, within=(*within, node.path))


def _look_at(graph: GraphParts, tracer: Tracer, table: NodeTable, name: str) -> Iterator[Effect]:
    """Iterate over the effects of one node; most have none, and are not decoded."""
    op = table.op(name)
    known = op in KNOWN_OPS
    if op in OPERATIONS:
        yield from _examine(tracer, table, table[name])
    elif not known and op not in graph.functions:
        yield _unknown(table, name, op)
    if op in FUNCTION_OPS or not known:
        yield from _named_functions(graph, table[name])


def _examine(tracer: Tracer, table: NodeTable, node: Node) -> Iterator[Effect]:
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
    yield Effect(
        kind,
        bool(names) and all(name.origin is operation.own for name in names),
        node.op,
        node.name,
        table.function,
        (),
        told.text if told and told.origin is PathOrigin.LITERAL else None,
        told.origin if told else None,
        operation.does + says,
        operation.source,
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


def _unknown(table: NodeTable, name: str, op: str) -> Effect:
    reason = f"No operation of TensorFlow {TENSORFLOW}: it needs a library that defines it"
    return Effect(
        EffectKind.NEEDS_LIBRARY,
        False,
        op,
        name,
        table.function,
        (),
        None,
        None,
        reason,
        _REGISTRY,
    )


def _named_functions(graph: GraphParts, node: Node) -> Iterator[Effect]:
    """Iterate over operations of the table that a node calls as if they were functions."""
    for attribute, call in function_calls(node):
        operation = OPERATIONS.get(call.name)
        if operation is not None and call.name not in graph.functions:
            yield Effect(
                operation.kind,
                False,
                call.name,
                node.name,
                node.function,
                (),
                None,
                PathOrigin.COMPUTED if operation.inputs else None,
                f"{operation.does}, called by {node.op} as its {attribute}",
                operation.source,
            )


def _carried(
    graph: GraphParts, tracer: Tracer, table: NodeTable, node: Node
) -> Iterator[GraphParts]:
    """Iterate over the graphs that a node is given as the bytes of a constant."""
    if node.data_inputs:
        for data in tracer.literals(table, node.data_inputs[0]):
            inner = _graph_of_bytes(data, graph)
            if inner is not None:
                yield inner


def _graph_of_bytes(data: bytes, outer: GraphParts) -> GraphParts | None:
    """Take bytes for a graph; None if they are none, and cannot be run as one."""
    try:
        return GraphParts(data, limits=outer.limits, path=outer.path)
    except CheckpointError:
        return None
