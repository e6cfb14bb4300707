"""What a GraphDef holds: nodes, the constants among them, and a library of functions.

    GraphDef     1 node*   2 library   3 version (until 2015)   4 versions
    library      1 function*   2 gradient*: {1 function, 2 its gradient}
    FunctionDef  1 signature: OpDef {1 name, 2 input_arg*, 3 output_arg*}   3 node_def*
                 4 ret: {1 output_arg, 2 "node:output:0"}   5 attr*: {1 key, 2 AttrValue}

A frozen model keeps its weights in the attribute `value` of Const nodes (docs/format.md, sections
6.7 and 8.4).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from ckptparse.errors import MalformedError, located, name_not_found
from ckptparse.graph.attributes import Attributes, collect_entry, decode_text, make_constant
from ckptparse.graph.field_counts import VALUE, count_fields, may_have_fields
from ckptparse.graph.nodes import Node, NodeTable
from ckptparse.limits import (
    CONSTANT_COUNTS_AS,
    DEFAULT_LIMITS,
    FIELDS_A_NODE,
    Limits,
    check_small,
)
from ckptparse.proto.op_def_pb2 import OpDef
from ckptparse.proto.parsing import parse_message
from ckptparse.proto.versions_pb2 import VersionDef
from ckptparse.proto.wire import BYTES, VARINT, Buffer, for_threads, iter_fields, read_varint
from ckptparse.tensor import Tensor

__all__ = ["Constants", "GraphFunction", "GraphParts"]

_Field = tuple[int, int, int, int]
"""As `iter_fields` gives it."""

_NODE, _LIBRARY, _OLD_VERSION, _VERSIONS = 1, 2, 3, 4
_FUNCTION, _GRADIENT = 1, 2
_SIGNATURE, _NODE_DEF, _RET, _FUNCTION_ATTR = 1, 3, 4, 5
_CONSTANT_OP = "Const"
_VALUE_ATTRIBUTE = "value"
FUNCTION_PREFIX = "function:"
_FUNCTION_NODES = 8
"""What a function counts as, in nodes: so much longer it takes."""
_COUNTED_TOGETHER = 1024
_BYTES_A_STEP = 128
"""Bytes of a graph for each edge that is followed for one question beyond `Limits.steps`."""


@dataclass(frozen=True, slots=True)
class GraphFunction:
    """A function of the library."""

    name: str
    inputs: tuple[str, ...]
    """Names of its arguments, which its nodes take as inputs."""
    outputs: Mapping[str, str]
    """For each result the tensor of its nodes that is returned."""
    nodes: NodeTable
    attributes: Attributes
    """What it says of itself, such as `api_implements`."""

    def __repr__(self) -> str:
        return f"<GraphFunction {self.name!r} of {len(self.nodes)} nodes>"


class GraphParts:
    """What a GraphDef holds.

    Attributes:
        nodes: The nodes by name, in the order of the file.
        functions: The functions of the library by name.
        gradients: The function that computes the gradient of another, by the name of that.
        producer: Number of the TensorFlow version that wrote the graph (`GraphDef` versions); 0 if
            it does not say, as graphs of before December 2015.
        deprecated_version: The field that such graphs have instead, which counts otherwise.
        min_consumer: Number of the oldest version that may read it.
        nbytes: Bytes of the serialized GraphDef.
    """

    def __init__(
        self, data: Buffer, *, limits: Limits = DEFAULT_LIMITS, path: str | None = None
    ) -> None:
        """Index a serialized GraphDef, which is kept.

        Raises:
            MalformedError: The bytes are no GraphDef.
            LimitError: More nodes than `Limits.nodes` allows for its size.
        """
        self.limits = limits
        self.path = path
        self.nbytes = len(data)
        self._counted = 0
        with located(path=path):
            limits.check("message_bytes", len(data), "The size of a graph")
            self._scan(for_threads(data))

    @cached_property
    def constants(self) -> Constants:
        """The constants by name, lazy; those of functions as `function:FUNCTION/NAME`."""
        return Constants(self)

    @property
    def most_steps(self) -> int:
        """How many edges may be followed to answer one question; see `Limits.steps`."""
        return self.limits.steps + self.nbytes // _BYTES_A_STEP

    def tables(self) -> Iterator[NodeTable]:
        """Iterate over the nodes of the graph, and of each function."""
        yield self.nodes
        for function in self.functions.values():
            yield function.nodes

    def _scan(self, data: Buffer) -> None:
        spans: list[tuple[int, int]] = []
        versions: list[Buffer] = []
        self.gradients: dict[str, str] = {}
        functions: dict[str, GraphFunction] = {}
        old_version = 0
        for number, wire, start, end in self._counting(iter_fields(data)):
            if wire == BYTES and number == _NODE:
                spans.append((start, end))
            elif wire == BYTES and number == _LIBRARY:
                self._scan_library(data[start:end], functions)
            elif wire == BYTES and number == _VERSIONS:
                versions.append(data[start:end])
            elif wire == VARINT and number == _OLD_VERSION:
                old_version = read_varint(data, start, end)[0]
        version = parse_message(VersionDef, b"".join(versions), limits=self.limits)
        self.producer: int = version.producer
        self.deprecated_version = old_version
        self.min_consumer: int = version.min_consumer
        self._count(0)
        self.functions: Mapping[str, GraphFunction] = functions
        self.nodes = self._make_table(data, spans, None)
        self._check_fields(data)

    def _check_fields(self, data: Buffer) -> None:
        """Make sure that the nodes, and what is in them, have not more fields than may be walked.

        So may the attributes of functions.
        """
        most = FIELDS_A_NODE * self.limits.most_nodes(len(data))
        if not may_have_fields(data, most):
            return
        left = most = most + FIELDS_A_NODE
        for table in self.tables():
            left -= table.count_fields(left)
        for function in self.functions.values():
            for value in function.attributes.serialized():
                left -= count_fields(value, 0, len(value), kind=VALUE, most=left)
        self.limits.check_nodes(
            (most - left) // FIELDS_A_NODE,
            len(data),
            f"The number of fields of a graph's nodes, {FIELDS_A_NODE} as one,",
            path=self.path,
        )

    def _scan_library(self, data: Buffer, functions: dict[str, GraphFunction]) -> None:
        for number, wire, start, end in self._counting(iter_fields(data)):
            if wire == BYTES and number == _GRADIENT:
                self.gradients.update([_decode_pair(data[start:end])])
            if wire != BYTES or number != _FUNCTION:
                continue
            function = self._make_function(data[start:end])
            if function.name in functions:
                raise MalformedError(
                    f"Two functions of the library have the name {function.name!r}"
                )
            functions[function.name] = function
            self._count(_FUNCTION_NODES)

    def _make_function(self, data: Buffer) -> GraphFunction:
        signatures: list[Buffer] = []
        spans: list[tuple[int, int]] = []
        outputs: dict[str, str] = {}
        entries: dict[str, Buffer] = {}
        for number, wire, start, end in self._counting(iter_fields(data)):
            if wire == BYTES and number == _SIGNATURE:
                signatures.append(data[start:end])
            elif wire == BYTES and number == _NODE_DEF:
                spans.append((start, end))
            elif wire == BYTES and number == _RET:
                key, value = _decode_pair(data[start:end])
                outputs[key] = value
            elif wire == BYTES and number == _FUNCTION_ATTR:
                collect_entry(entries, data[start:end])
        # If a message comes twice, its parts, joined, parse to what both say.
        signature = parse_message(
            OpDef, b"".join(signatures), limits=self.limits, what="the signature of a function"
        )
        self._count(len(signature.input_arg) // FIELDS_A_NODE)
        inputs = tuple(argument.name for argument in signature.input_arg)
        table = self._make_table(data, spans, signature.name)
        attributes = Attributes(entries, signature.name, self.limits)
        return GraphFunction(signature.name, inputs, outputs, table, attributes)

    def _counting(self, fields: Iterator[_Field]) -> Iterator[_Field]:
        """Iterate over fields, each of which counts as a node: most are nodes."""
        while block := list(islice(fields, _COUNTED_TOGETHER)):
            self._count(len(block))
            yield from block

    def _count(self, nodes: int) -> None:
        """Count nodes before they are looked at."""
        self._counted += nodes
        self.limits.check_nodes(
            self._counted, self.nbytes, "The number of nodes of a graph", path=self.path
        )

    def _make_table(
        self, data: Buffer, spans: list[tuple[int, int]], function: str | None
    ) -> NodeTable:
        return NodeTable(data, spans, function=function, limits=self.limits, path=self.path)


class Constants(Mapping[str, Tensor]):
    """The Const nodes of a graph and of its functions, as lazy tensors by name."""

    def __init__(self, graph: GraphParts) -> None:
        self._graph = graph
        self._places: dict[str, tuple[NodeTable, str]] = {}
        for table in graph.tables():
            prefix = f"{FUNCTION_PREFIX}{table.function}/" if table.function else ""
            for name in table.with_op(_CONSTANT_OP):
                self._places[prefix + name] = (table, name)
        count = CONSTANT_COUNTS_AS * len(self._places)
        check_small(graph.limits, count, lambda: graph.nbytes, path=graph.path)

    def __getitem__(self, name: str) -> Tensor:
        """Return the constant of a name.

        Raises:
            TensorNotFoundError: The graph has none of that name.
            MalformedError: The node has no value, or one of no dtype or shape.
        """
        place = self._places.get(name)
        if place is None:
            message = "No constant of that name in the graph"
            raise name_not_found(message, name, self, path=self._graph.path)
        data = place[0].find_tensor(place[1], _VALUE_ATTRIBUTE)
        if data is None:
            raise MalformedError(
                "Expected a constant with a tensor in its attribute `value`, found none",
                path=self._graph.path,
                tensor=name,
            )
        return make_constant(name, data, self._graph.limits, self._graph.path)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def node(self, name: str) -> Node:
        """Return the Const node of a constant."""
        table, local = self._places[name]
        return table[local]

    def __repr__(self) -> str:
        return f"<{len(self)} constants>"


def _decode_pair(data: Buffer) -> tuple[str, str]:
    """Decode an entry of a map of strings."""
    parts = {1: "", 2: ""}
    for number, wire, start, end in iter_fields(data):
        if wire == BYTES and number in parts:
            parts[number] = decode_text(data[start:end])
    return parts[1], parts[2]
