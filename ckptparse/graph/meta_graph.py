"""What surrounds the graph in a MetaGraphDef (docs/format.md, sections 6.1 and 6.2).

MetaGraphDef   1 meta_info   2 graph   3 saver   4 collection*: {1 name, 2 CollectionDef}
CollectionDef  one of   1 node_list   2 bytes_list   3 int64_list   4 float_list   5 any_list
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ckptparse.errors import located
from ckptparse.graph.attributes import decode_text
from ckptparse.limits import Limits
from ckptparse.proto.meta_graph_pb2 import CollectionDef, MetaGraphDef
from ckptparse.proto.parsing import parse_message
from ckptparse.proto.saver_pb2 import SaverDef
from ckptparse.proto.variable_pb2 import VariableDef
from ckptparse.proto.wire import BYTES, Buffer, for_threads, iter_fields

__all__ = ["AnyMessage", "MetaParts", "decode_meta_graph"]

_INFO, _GRAPH, _SAVER, _COLLECTION = 1, 2, 3, 4
_KEY, _VALUE = 1, 2
_ENTRIES_A_NODE = 4
"""Entries of collections that count as one node of `Limits.nodes`: some are messages."""
_SAVERS = "savers"
_VARIABLE_COLLECTIONS = (
    "variables",
    "trainable_variables",
    "local_variables",
    "model_variables",
    "moving_average_variables",
    "global_step",
)


class AnyMessage(NamedTuple):
    """A message of a collection, as it is stored."""

    type_url: str
    value: bytes


@dataclass(frozen=True, slots=True)
class MetaParts:
    """A MetaGraphDef, taken apart."""

    info: MetaGraphDef.MetaInfoDef
    graph: Buffer
    """The serialized GraphDef."""
    message: Buffer
    """The whole MetaGraphDef, serialized."""
    saver: SaverDef | None
    collections: Mapping[str, tuple[Any, ...]]
    """Values by name: `str` for nodes, `bytes`, `int`, `float` or `AnyMessage`."""
    limits: Limits

    def savers(self) -> list[SaverDef]:
        """Return the Saver of the graph, then those of its collection."""
        listed = [
            parse_message(SaverDef, data, limits=self.limits)
            for data in self.collections.get(_SAVERS, ())
            if isinstance(data, bytes)
        ]
        return ([self.saver] if self.saver is not None else []) + listed

    def variables(self) -> dict[str, list[VariableDef]]:
        """Return the variables that collections describe, by collection."""
        return {
            name: [
                parse_message(VariableDef, data, limits=self.limits)
                for data in self.collections[name]
                if isinstance(data, bytes)
            ]
            for name in _VARIABLE_COLLECTIONS
            if name in self.collections
        }


def decode_meta_graph(data: Buffer, *, limits: Limits, path: str | None) -> MetaParts:
    """Take a serialized MetaGraphDef apart, without parsing its graph.

    Raises:
        MalformedError: The bytes are no MetaGraphDef.
        LimitError: It is too large, or nested too deep, or lists more than `Limits.nodes` allows.
    """
    with located(path=path):
        limits.check("message_bytes", len(data), "The size of a meta graph")
        parts = _split(data, limits)
        info = parse_message(
            MetaGraphDef.MetaInfoDef,
            _merge(parts[_INFO]),
            limits=limits,
            what="the description of a meta graph",
        )
        saver = parts[_SAVER]
        return MetaParts(
            info,
            _merge(parts[_GRAPH]),
            data,
            parse_message(SaverDef, _merge(saver), limits=limits) if saver else None,
            _decode_collections(parts[_COLLECTION], len(data), limits),
            limits,
        )


def _split(data: Buffer, limits: Limits) -> dict[int, list[Buffer]]:
    """Split a meta graph into its fields, by their numbers."""
    view = for_threads(data)
    parts: dict[int, list[Buffer]] = {_INFO: [], _GRAPH: [], _SAVER: [], _COLLECTION: []}
    for count, (number, wire, start, end) in enumerate(iter_fields(data), 1):
        if count > limits.nodes:
            limits.check_nodes(count, len(data), "The number of fields of a meta graph")
        if wire == BYTES and number in parts:
            parts[number].append(view[start:end])
    return parts


def _split_entry(entry: Buffer, size: int, limits: Limits) -> tuple[str, Buffer]:
    """Return the name of a collection, and its values, of a meta graph of so many bytes."""
    view = for_threads(entry)
    parts: dict[int, list[Buffer]] = {_KEY: [], _VALUE: []}
    for count, (number, wire, start, end) in enumerate(iter_fields(entry), 1):
        if count > limits.nodes:
            limits.check_nodes(count, size, "The number of fields of a collection")
        if wire == BYTES and number in parts:
            parts[number].append(view[start:end])
    return decode_text(_merge(parts[_KEY])), _merge(parts[_VALUE])


def _merge(parts: list[Buffer]) -> Buffer:
    """Return a field that comes once; of one that comes more often the merge, as protobuf does."""
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _decode_collections(
    entries: list[Buffer], size: int, limits: Limits
) -> dict[str, tuple[Any, ...]]:
    """Decode the collections of a meta graph of so many bytes."""
    collections: dict[str, tuple[Any, ...]] = {}
    listed = 0
    for entry in entries:
        name, value = _split_entry(entry, size, limits)
        proto = parse_message(CollectionDef, value, limits=limits, what=f"collection {name!r}")
        kind = proto.WhichOneof("kind")
        values = () if kind is None else getattr(proto, kind).value
        listed += len(values)
        what = f"The number of entries of all collections, {_ENTRIES_A_NODE} as one,"
        limits.check_nodes(listed // _ENTRIES_A_NODE, size, what)
        if kind == "any_list":
            collections[name] = tuple(AnyMessage(one.type_url, one.value) for one in values)
        else:
            collections[name] = tuple(values)
    return collections
