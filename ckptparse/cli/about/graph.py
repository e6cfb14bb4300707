"""What `info` tells of a graph: a GraphDef, or a MetaGraphDef."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import ckptparse
from ckptparse.cli.about.common import Row, ask
from ckptparse.cli.about.effects import describe_effects, effect_rows
from ckptparse.cli.running import Run
from ckptparse.text import count, escape, open_shape_text, size_text

__all__ = ["describe_graph", "graph_rows"]

_MOST_OPS = 12
"""Kinds of ops that are named, the most frequent ones: they fit into three lines."""


def describe_graph(run: Run, graph: ckptparse.Graph) -> dict[str, Any]:
    """Describe a graph as JSON has it."""
    return {
        "path": graph.path,
        "meta_graph": graph.is_meta_graph,
        "tensorflow_version": graph.tensorflow_version,
        "producer": graph.producer,
        "min_consumer": graph.min_consumer,
        "tags": list(graph.tags),
        "nodes": len(graph.nodes),
        "ops": dict(Counter(graph.nodes.op(name) for name in graph.nodes).most_common()),
        "functions": sorted(graph.functions),
        "constants": ask(run, lambda: _describe_constants(graph)),
        "variables": ask(run, lambda: _describe_variables(graph)),
        "savers": ask(run, lambda: _describe_savers(graph)),
        "effects": ask(run, lambda: describe_effects(graph.effects)),
        "collections": {name: len(graph.collections[name]) for name in graph.collections},
    }


def _describe_constants(graph: ckptparse.Graph) -> dict[str, int]:
    constants = list(graph.constants.values())
    return {"count": len(constants), "bytes": sum(constant.nbytes for constant in constants)}


def _describe_variables(graph: ckptparse.Graph) -> list[dict[str, Any]]:
    return [
        {
            "name": variable.name,
            "dtype": ckptparse.element_name(variable.data_type),
            "shape": None if variable.shape is None else list(variable.shape),
            "trainable": variable.trainable,
        }
        for variable in graph.variables.values()
    ]


def _describe_savers(graph: ckptparse.Graph) -> list[dict[str, Any]]:
    return [
        {
            "version": saver.version,
            "sharded": saver.sharded,
            "files": len(saver.ops),
            "tensors": len(saver.names),
        }
        for saver in graph.savers
    ]


def graph_rows(about: dict[str, Any]) -> Iterator[Row]:
    """Iterate over names and values, as a person reads them."""
    kind = "meta graph" if about["meta_graph"] else "graph"
    if about["path"]:
        yield kind, escape(about["path"])
    if about["tensorflow_version"]:
        yield "written by", f"TensorFlow {about['tensorflow_version']}"
    yield "versions", f"producer {about['producer']}, min consumer {about['min_consumer']}"
    if about["tags"]:
        yield "tags", ", ".join(map(escape, about["tags"]))
    yield "nodes", f"{about['nodes']:,}, of {count(len(about['ops']), 'op')}"
    ops = [f"{escape(op)} {number}" for op, number in list(about["ops"].items())[:_MOST_OPS]]
    more = len(about["ops"]) - len(ops)
    if ops:
        yield "ops", ", ".join(ops) + (f" and {more} more" if more > 0 else "")
    yield from effect_rows(about["effects"])
    yield from _content_rows(about)


def _content_rows(about: dict[str, Any]) -> Iterator[Row]:
    if about["functions"]:
        yield "functions", f"{len(about['functions']):,}"
    constants = about["constants"]
    if constants is not None:
        yield "constants", f"{constants['count']:,}, {size_text(constants['bytes'])}"
    for name, number in about["collections"].items():
        yield "collection", f"{escape(name)}  {number:,}"
    for saver in about["savers"] or ():
        files = count(saver["files"], "file")
        yield "saver", f"version {saver['version']}, {count(saver['tensors'], 'tensor')} in {files}"
    for variable in about["variables"] or ():
        shape = open_shape_text(variable["shape"])
        yield "variable", f"{escape(variable['name'])}  {variable['dtype']} {shape}"
