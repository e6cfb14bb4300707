"""Graphs and meta graphs, binary and text, and the object graph."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace

import ckptparse
from ckptparse.bundle.strings import decode_strings
from ckptparse.errors import CheckpointError
from ckptparse.graph.object_graph import ObjectGraph
from fuzz import mutators, seeds
from fuzz.graphs_built import graphs_of_paths, listed_constants, used_kernels
from fuzz.oracle import LIMITS, BrokenPromiseError, attempt
from fuzz.packing import unpack
from fuzz.targets.target import Target, look

__all__ = ["TARGETS", "look_at_graph"]

_FEW = 30
_TIGHT = replace(LIMITS, nodes=10)
"""What a graph of some hundred bytes can pass: one input in four is held to it."""


def look_at_graph(graph: ckptparse.Graph) -> None:
    """Ask a graph for all that it tells."""
    for name in list(graph.nodes)[:_FEW]:
        attempt(lambda name: dict(graph.nodes[name].attributes), name)
        attempt(graph.consumers, name)
    for name in list(graph.constants)[:_FEW]:
        attempt(lambda name: graph.constants[name].read(), name)
    look(graph, "variables", "savers", "effects", "collections", "tensorflow_version", "tags")
    look(graph, "saver_nodes")


def run_file(name: str, data: bytes) -> None:
    """Open a graph, read its constants and verify it."""
    store = {name: data}
    limits = LIMITS if zlib.crc32(data) % 4 else _TIGHT
    graph = attempt(ckptparse.open_graph, name, store=store, limits=limits)
    if isinstance(graph, ckptparse.Graph):
        look_at_graph(graph)
    read = attempt(ckptparse.read, name, store=store, limits=limits)
    report = attempt(ckptparse.verify, name, store=store, limits=limits)
    if isinstance(read, ckptparse.DataLossError) and isinstance(report, ckptparse.Report):
        if report.ok:
            raise BrokenPromiseError(f"read says {read!r}, and verify that all is well")
    elif isinstance(read, dict) and not (isinstance(report, ckptparse.Report) and report.ok):
        raise BrokenPromiseError(f"read gives values, and verify says {report}")


def run_graph(data: bytes) -> None:
    """Open a GraphDef."""
    run_file("g.pb", data)


def run_meta_graph(data: bytes) -> None:
    """Open a MetaGraphDef."""
    run_file("m.meta", data)


def run_graph_text(data: bytes) -> None:
    """Open a GraphDef or MetaGraphDef in text."""
    run_file("g.pbtxt", data)


class _Nothing:
    """The tensors of an object graph that has none."""

    def find(self, name: str) -> None:
        """Return None."""

    def names(self) -> tuple[str, ...]:
        """Return no names."""
        return ()

    def find_graph(self) -> None:
        """Return None."""


def run_object_graph(data: bytes) -> None:
    """Look for layers and optimizers in an object graph."""
    graph = attempt(ObjectGraph.from_bytes, data, tensors=_Nothing(), limits=LIMITS, path="m")
    if isinstance(graph, CheckpointError):
        return
    from ckptparse.graph.layers import find_layers
    from ckptparse.graph.optimizer import find_averages, find_optimizers
    from ckptparse.graph.tree import object_tree

    attempt(find_layers, graph)
    attempt(lambda: find_averages(graph, find_optimizers(graph)))
    attempt(lambda: str(object_tree(graph, everything=True)))
    look(graph, "names_by_key")
    repr(graph)


def graph_seeds() -> Iterator[bytes]:
    """Give GraphDefs, and what else ends with `.pb`."""
    yield from seeds.files("*.pb")
    yield from graphs_of_paths()
    yield listed_constants()


def meta_seeds() -> Iterator[bytes]:
    """Give MetaGraphDefs."""
    yield from seeds.files("*.meta")
    yield from (files["m.meta"] for files in used_kernels())


def text_seeds() -> Iterator[bytes]:
    """Give graphs in text."""
    yield from seeds.files("*.pbtxt")
    constant = b"dtype: DT_INT32 tensor_shape { dim { size: 2 } } int_val: 7"
    yield b'node { name: "a" op: "Const" attr { key: "value" value { tensor { %b } } } }' % constant


def object_seeds() -> Iterator[bytes]:
    """Take the object graphs out of the fixtures' bundles."""
    for packed in seeds.bundles():
        index, shard, _ = unpack(packed, 3)
        pairs = dict(mutators.parse_table(index) or [])
        fields = mutators.parse_fields(pairs.get(b"_CHECKPOINTABLE_OBJECT_GRAPH", b"")) or []
        numbers = {number: value for number, _, value in fields if isinstance(value, int)}
        offset, size = numbers.get(4, 0), numbers.get(5, 0)
        if size:
            data = shard[offset : offset + size]
            try:
                yield decode_strings(data, 1, big_endian=False, crc=None)[0]
            except CheckpointError:
                continue


TARGETS = [
    Target("graph", run_graph, graph_seeds, mutators.message),
    Target("meta_graph", run_meta_graph, meta_seeds, mutators.message),
    Target("graph_text", run_graph_text, text_seeds, mutators.text),
    Target("object_graph", run_object_graph, object_seeds, mutators.message),
]
