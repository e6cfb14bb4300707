"""The variables of a graph: nodes, and what collections say of them (docs/format.md, section 6.3).

    VariableV2, Variable, VarHandleOp      attributes dtype, shape, shared_name, container
    VariableDef                            the name `w:0`, trainable, the slice of a partitioned one

Two handles of one shared name are one variable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ckptparse.dtypes import base_data_type, numpy_dtype
from ckptparse.graph.attributes import Shape
from ckptparse.graph.nodes import Node, split_input
from ckptparse.graph.parts import GraphParts
from ckptparse.proto.variable_pb2 import VariableDef

__all__ = ["VARIABLE_OPS", "GraphVariable", "SliceInfo", "find_variables"]

VARIABLE_OPS = ("VariableV2", "Variable", "VarHandleOp")
_RESOURCE_OP = "VarHandleOp"
# TensorFlow writes this in place of a shared name for a variable that is not to be shared.
_NOT_SHARED = frozenset({b"", b"cd2c89b7-88b7-44c8-ad83-06c2a9158347"})


@dataclass(frozen=True, slots=True)
class SliceInfo:
    """Which part of a partitioned variable one variable is."""

    full_name: str
    full_shape: tuple[int, ...]
    offset: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GraphVariable:
    """A variable of a graph."""

    name: str
    data_type: int
    """DataType number; 0 if the node has none."""
    shape: Shape
    nodes: tuple[str, ...]
    """Its nodes: several if the variable is shared."""
    is_resource: bool
    trainable: bool | None = None
    """None if no collection says it."""
    slice_info: SliceInfo | None = None

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Its numpy type; of a reference, that of its base.

        Raises:
            MalformedError: The node has none.
            UnsupportedError: The installed ml_dtypes has no such type.
        """
        return numpy_dtype(base_data_type(self.data_type))


def find_variables(
    graph: GraphParts, definitions: Mapping[str, Iterable[VariableDef]]
) -> dict[str, GraphVariable]:
    """Find a graph's variables by name, in the order of the file.

    Args:
        graph: The graph.
        definitions: The collections of VariableDefs, by name.
    """
    groups: dict[object, list[Node]] = {}
    for name in graph.nodes.with_op(*VARIABLE_OPS):
        node = graph.nodes[name]
        groups.setdefault(_identity(node), []).append(node)
    known = _index_definitions(definitions)
    variables = (_make_variable(nodes, known) for nodes in groups.values())
    return {variable.name: variable for variable in variables}


def _identity(node: Node) -> object:
    """Return what two nodes of one variable have in common."""
    shared = node.attributes.find_bytes("shared_name")
    if shared in _NOT_SHARED:
        return node.name
    return node.op == _RESOURCE_OP, node.attributes.find_bytes("container"), shared


def _make_variable(
    nodes: list[Node], known: Mapping[str, tuple[VariableDef, bool]]
) -> GraphVariable:
    first = next((node for node in nodes if node.name in known), nodes[0])
    definition, trainable = known.get(first.name, (None, None))
    info = None
    if definition is not None and definition.HasField("save_slice_info_def"):
        part = definition.save_slice_info_def
        info = SliceInfo(
            part.full_name, tuple(part.full_shape), tuple(part.var_offset), tuple(part.var_shape)
        )
    return GraphVariable(
        first.name,
        first.attributes.find_type("dtype"),
        first.attributes.find_shape("shape"),
        tuple(node.name for node in nodes),
        first.op == _RESOURCE_OP,
        trainable,
        info,
    )


def _index_definitions(
    collections: Mapping[str, Iterable[VariableDef]],
) -> dict[str, tuple[VariableDef, bool]]:
    """Index VariableDefs by the name of their node, with whether they are trainable.

    The field `trainable` came in 2018: before, the collection of trainable variables says it.
    """
    found: dict[str, tuple[VariableDef, bool]] = {}
    trainable: set[str] = set()
    for collection, definitions in collections.items():
        for definition in definitions:
            name, _ = split_input(definition.variable_name)
            found.setdefault(name, (definition, definition.trainable))
            if collection == "trainable_variables":
                trainable.add(name)
    return {name: (item[0], item[1] or name in trainable) for name, item in found.items()}
