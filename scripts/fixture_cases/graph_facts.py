"""Describe graphs: nodes, constants as the runtime decodes them, functions, collections."""

from __future__ import annotations

from typing import Any

import numpy as np

from fixture_cases import describe
from fixture_cases.common import tf, tf1

SHOWN_NODES = 60


def describe_graph(graph: Any) -> dict[str, Any]:
    """Describe a GraphDef.

    constants: those of the graph itself as the runtime gives them; those of library functions,
        whose names begin with `function:NAME/`, as `tf.make_ndarray` does.
    """
    return {
        "producer": graph.versions.producer,
        "node_count": len(graph.node),
        "nodes": describe_nodes(graph),
        "functions": [function.signature.name for function in graph.library.function],
        "constants": main_constants(graph) + function_constants(graph),
    }


def describe_nodes(graph: Any) -> list[dict[str, Any]] | None:
    """Name the nodes of a small graph that are no constants, with their ops and inputs."""
    if len(graph.node) > SHOWN_NODES:
        return None
    return [
        describe.Row(name=node.name, op=node.op, inputs=list(node.input))
        for node in graph.node
        if node.op != "Const"
    ]


def main_constants(graph: Any) -> list[dict[str, Any]]:
    """Run the Const nodes of a graph, unoptimized, and describe what they give."""
    only = tf1.GraphDef(versions=graph.versions)
    for node in graph.node:
        if node.op == "Const":
            alone = only.node.add(name=node.name, op="Const")
            for attribute in ("dtype", "value"):
                alone.attr[attribute].CopyFrom(node.attr[attribute])
    config = tf1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config.graph_options.optimizer_options.opt_level = -1
    with tf1.Graph().as_default(), tf1.Session(config=config) as session:
        tf1.import_graph_def(only, name="")
        return [describe_constant(node, session.run(node.name + ":0")) for node in only.node]


def describe_constant(node: Any, value: Any) -> dict[str, Any]:
    """Describe a Const node of the graph itself."""
    return describe.describe_tensor(node.name, constant_dtype(node), value)


def constant_dtype(node: Any) -> str:
    """Return the name of a Const node's dtype."""
    return str(tf.as_dtype(node.attr["dtype"].type).name)


def function_constants(graph: Any) -> list[dict[str, Any]]:
    """Describe the Const nodes of the library's functions."""
    return [
        describe.describe_tensor(
            f"function:{function.signature.name}/{node.name}",
            constant_dtype(node),
            tf.make_ndarray(node.attr["value"].tensor),
        )
        for function in graph.library.function
        for node in function.node_def
        if node.op == "Const"
    ]


def describe_meta_graph(meta: Any) -> dict[str, Any]:
    """Describe a MetaGraphDef: versions, saver, collections and variables."""
    return {
        "tensorflow_version": meta.meta_info_def.tensorflow_version,
        "tags": list(meta.meta_info_def.tags),
        "saver": describe_saver(meta.saver_def) if meta.HasField("saver_def") else None,
        "collections": {
            name: describe_collection(collection)
            for name, collection in sorted(meta.collection_def.items())
        },
        "variables": variables(meta),
    }


def describe_saver(saver: Any) -> dict[str, Any]:
    """Describe a SaverDef."""
    return {
        "filename_tensor_name": saver.filename_tensor_name,
        "save_tensor_name": saver.save_tensor_name,
        "restore_op_name": saver.restore_op_name,
        "max_to_keep": saver.max_to_keep,
        "sharded": saver.sharded,
        "keep_checkpoint_every_n_hours": saver.keep_checkpoint_every_n_hours,
        "version": saver.version,
    }


def describe_collection(collection: Any) -> list[Any]:
    """Describe a collection: its kind, the number of values, and the values if they are plain."""
    kind = collection.WhichOneof("kind")
    values = list(getattr(collection, kind).value)
    if kind in ("int64_list", "node_list"):
        return [kind, len(values), values]
    if kind == "float_list":
        return [kind, len(values), [float(str(np.float32(value))) for value in values]]
    return [kind, len(values)]


def variables(meta: Any) -> list[dict[str, Any]]:
    """Describe the VariableDefs of the collection `variables`."""
    from tensorflow.core.framework import variable_pb2

    found = []
    for data in meta.collection_def["variables"].bytes_list.value:
        proto = variable_pb2.VariableDef.FromString(data)
        row = describe.Row(
            name=proto.variable_name, trainable=proto.trainable, is_resource=proto.is_resource
        )
        if proto.HasField("save_slice_info_def"):
            info = proto.save_slice_info_def
            row["slice"] = [
                info.full_name,
                list(info.full_shape),
                list(info.var_offset),
                list(info.var_shape),
            ]
        found.append(row)
    return found
