"""Savers: which tensors a graph saves, and under which names (docs/format.md, section 6).

    Save         filename, tensor_names, tensor*                       V1
    SaveSlices   filename, tensor_names, shapes_and_slices, tensor*    V1
    SaveV2       prefix, tensor_names, shape_and_slices, tensor*       V2, attribute dtypes

The order of the names is the order of the tensors in the file. A sharded Saver has one such op for
each file, whose number is an input of the ShardedFilename that its filename comes from. The Saver
of a TF2 SavedModel calls a function of the library that holds the op.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptparse.graph.attributes import Shape, make_constant
from ckptparse.graph.flow import Flow, Place
from ckptparse.graph.nodes import Node, split_input
from ckptparse.graph.parts import GraphParts
from ckptparse.graph.variables import VARIABLE_OPS, GraphVariable
from ckptparse.limits import limit_error
from ckptparse.proto.saver_pb2 import SaverDef
from ckptparse.proto.wire import Buffer
from ckptparse.tensor import Tensor
from ckptparse.text import brief_repr

__all__ = ["SaveOp", "SavedTensor", "Saver", "find_savers"]

_FIRST_TENSOR = {"Save": 2, "SaveSlices": 3, "SaveV2": 3}


@dataclass(frozen=True, slots=True, repr=False)
class SavedTensor:
    """One tensor that an op saves."""

    name: str
    """The name in the checkpoint."""
    slice_spec: str
    """`dims slice` for a part of a tensor, such as `4 2 0,2:0,2`; empty for a whole one."""
    input: str
    """The tensor that is saved."""
    data_type: int | None
    """DataType number, if the graph tells it."""
    shape: Shape
    """Of what is saved, if the graph tells it."""
    variable: str | None
    """The variable it is the value of; None for any other tensor."""

    def __repr__(self) -> str:
        return brief_repr(self)


@dataclass(frozen=True, slots=True, repr=False)
class SaveOp:
    """An op that writes one file."""

    node: Node
    shard: int
    """The number of the file."""
    tensors: tuple[SavedTensor, ...]
    """In the order of the file."""

    def __repr__(self) -> str:
        return brief_repr(self)


@dataclass(frozen=True, slots=True, repr=False)
class Saver:
    """What one Saver writes."""

    definition: SaverDef | None
    """The message that describes it; None if the graph has only the ops."""
    ops: tuple[SaveOp, ...]
    """One for each file, in the order of their numbers."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the checkpoint, in the order of the files."""
        return tuple(tensor.name for op in self.ops for tensor in op.tensors)

    @property
    def sharded(self) -> bool:
        """Whether it writes a file for each device."""
        return self.definition.sharded if self.definition else len(self.ops) > 1

    @property
    def version(self) -> int:
        """Of the format: 1 or 2; 0 is V1 of before 2016."""
        if self.definition is not None:
            return int(self.definition.version)
        return 2 if any(op.node.op == "SaveV2" for op in self.ops) else 1

    def __repr__(self) -> str:
        return brief_repr(self)


def find_savers(
    graph: GraphParts,
    flow: Flow,
    variables: Iterable[GraphVariable],
    definitions: Iterable[SaverDef],
) -> list[Saver]:
    """Find a graph's Savers: those that messages describe, or one for each scope of save ops.

    Raises:
        LimitError: More edges lead to what they save than `Limits.steps` allows.
    """
    finder = _Finder(graph, flow, variables)
    known: dict[bytes, SaverDef] = {}
    for item in definitions:
        known.setdefault(item.SerializeToString(deterministic=True), item)
    if known:
        return [Saver(item, finder.reached_from(item.save_tensor_name)) for item in known.values()]
    scopes: dict[str, list[Place]] = {}
    for name in graph.nodes.with_op(*_FIRST_TENSOR):
        scopes.setdefault(name.rpartition("/")[0], []).append(Place(graph.nodes, name))
    return [Saver(None, finder.make_ops(places)) for places in scopes.values()]


class _Finder:
    """The search for save ops, and for where their inputs come from."""

    def __init__(self, graph: GraphParts, flow: Flow, variables: Iterable[GraphVariable]) -> None:
        self._graph = graph
        self._flow = flow
        self._variables = {node: variable for variable in variables for node in variable.nodes}
        self._reached: dict[str, tuple[SaveOp, ...]] = {}
        self._listed: dict[tuple[str | None, str], list[str]] = {}
        self._steps = -flow.steps

    def reached_from(self, tensor: str) -> tuple[SaveOp, ...]:
        """Return the save ops that run before a tensor is there."""
        start, _ = split_input(tensor)
        if start not in self._reached:
            self._reached[start] = self._search(start)
        return self._reached[start]

    def _search(self, start: str) -> tuple[SaveOp, ...]:
        pending = [Place(self._graph.nodes, start)] if start in self._graph.nodes else []
        seen: set[tuple[str | None, str]] = set()
        found: list[Place] = []
        while pending:
            place = pending.pop()
            if (place.table.function, place.name) in seen:
                continue
            seen.add((place.table.function, place.name))
            node = place.table[place.name]
            self._follow(1)
            if node.op in _FIRST_TENSOR:
                found.append(place)
                continue
            for text in node.inputs:
                name, _ = split_input(text)
                if name in place.table:
                    pending.append(Place(place.table, name, place.call))
            pending.extend(self._inside(place))
        return self.make_ops(found)

    def make_ops(self, places: Iterable[Place]) -> tuple[SaveOp, ...]:
        """Decode save ops, in the order of their files."""
        ops = [self._make_op(place) for place in places]
        return tuple(sorted(ops, key=lambda op: op.shard))

    def _follow(self, edges: int) -> None:
        """Count edges that are followed, of all Savers together."""
        graph = self._graph
        self._steps += edges
        steps = self._steps + self._flow.steps
        if steps > graph.most_steps:
            what = "The number of edges that lead to what the Savers of a graph save"
            raise limit_error(graph.limits, "steps", steps, what, path=graph.path)

    def _inside(self, place: Place) -> Iterator[Place]:
        """Iterate over the save ops, and the calls, of the functions that a node calls."""
        for function, _ in self._flow.called(place):
            for name in function.nodes:
                op = function.nodes.op(name)
                if op in _FIRST_TENSOR or op.endswith("PartitionedCall"):
                    yield Place(function.nodes, name, place)

    def _make_op(self, place: Place) -> SaveOp:
        node = place.table[place.name]
        first = _FIRST_TENSOR[node.op]
        inputs = node.data_inputs
        self._follow(len(inputs))
        names = self._strings(place, inputs[1]) if len(inputs) > 1 else []
        specs = self._strings(place, inputs[2]) if first == 3 and len(inputs) > 2 else []
        types = node.attributes.find_types("dtypes", "T")
        tensors = tuple(
            self._make_tensor(
                place,
                text,
                names[number] if number < len(names) else "",
                specs[number] if number < len(specs) else "",
                types[number] if number < len(types) else None,
            )
            for number, text in enumerate(inputs[first:])
        )
        return SaveOp(node, self._shard(place, inputs), tensors)

    def _make_tensor(
        self, place: Place, text: str, name: str, spec: str, data_type: int | None
    ) -> SavedTensor:
        source = self._flow.source(place, text)
        self._follow(0)
        shape: Shape = None
        variable = None
        if source is not None:
            node = source.table[source.name]
            if node.op in VARIABLE_OPS and source.table.function is None:
                found = self._variables.get(node.name)
                variable, shape = (found.name, found.shape) if found else (None, None)
            else:
                data = node.attributes.find_tensor("value")
                shape = None if data is None else self._make_constant(source, data).shape
        return SavedTensor(name, spec, text, data_type, shape, variable)

    def _shard(self, place: Place, inputs: tuple[str, ...]) -> int:
        """Return the number of the file that an op writes: 0 if it is not sharded."""
        source = self._flow.source(place, inputs[0]) if inputs else None
        if source is None:
            return 0
        node = source.table[source.name]
        if node.op != "ShardedFilename" or len(node.data_inputs) < 2:
            return 0
        origin = self._flow.source(source, node.data_inputs[1])
        number = None if origin is None else self._constant(origin)
        return int(number.reshape(-1)[0]) if number is not None and number.size else 0

    def _strings(self, place: Place, text: str) -> list[str]:
        source = self._flow.source(place, text)
        if source is None:
            return []
        key = source.table.function, source.name
        if key not in self._listed:
            found = self._constant(source)
            if found is None or found.dtype != object:
                found = np.empty(0, object)
            self._listed[key] = list(map(_decode, found.reshape(-1)))
        return self._listed[key]

    def _constant(self, source: Place) -> npt.NDArray[Any] | None:
        data = source.table[source.name].attributes.find_tensor("value")
        if data is None:
            return None
        return self._make_constant(source, data).read()

    def _make_constant(self, place: Place, data: Buffer) -> Tensor:
        return make_constant(place.name, data, self._graph.limits, self._graph.path)


def _decode(item: bytes) -> str:
    return item.decode("utf-8", "surrogateescape")
