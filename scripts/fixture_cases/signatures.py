"""Describe SavedModels: their meta graphs, tags, signatures, assets and fingerprints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fixture_cases.common import Output, tf


def describe_saved_model(out: Output, directory: str = ".") -> None:
    """Store what the messages of the SavedModel in `directory` say."""
    from tensorflow.python.saved_model import loader_impl

    root = out.root / directory
    proto = loader_impl.parse_saved_model(str(root))
    facts: dict[str, Any] = {
        "directory": directory,
        "schema_version": proto.saved_model_schema_version,
        "meta_graphs": [describe_meta_graph(graph) for graph in proto.meta_graphs],
    }
    if (root / "fingerprint.pb").exists():
        facts["fingerprint"] = describe_fingerprint(root)
    out.data.setdefault("saved_models", []).append(facts)


def describe_meta_graph(graph: Any) -> dict[str, Any]:
    """Describe one meta graph."""
    collections = sorted(graph.collection_def)
    return {
        "tags": list(graph.meta_info_def.tags),
        "tensorflow_version": graph.meta_info_def.tensorflow_version,
        "nodes": len(graph.graph_def.node),
        "functions": len(graph.graph_def.library.function),
        "collections": collections,
        "object_graph_nodes": len(graph.object_graph_def.nodes),
        "assets": [[a.tensor_info.name, a.filename] for a in asset_files(graph)],
        "signatures": {
            name: describe_signature(signature)
            for name, signature in sorted(graph.signature_def.items())
        },
    }


def asset_files(graph: Any) -> list[Any]:
    """Return the AssetFileDefs of a meta graph: TF1 keeps them in a collection."""
    from tensorflow.core.protobuf import meta_graph_pb2

    collected = graph.collection_def["saved_model_assets"].any_list.value
    parsed = [meta_graph_pb2.AssetFileDef.FromString(packed.value) for packed in collected]
    return [*graph.asset_file_def, *parsed]


def describe_signature(signature: Any) -> dict[str, Any]:
    """Describe a signature: method name and each input and output."""
    return {
        "method_name": signature.method_name,
        "inputs": {name: describe_info(info) for name, info in sorted(signature.inputs.items())},
        "outputs": {name: describe_info(info) for name, info in sorted(signature.outputs.items())},
    }


def describe_info(info: Any) -> dict[str, Any]:
    """Describe a TensorInfo; an unknown rank is a shape of null, an unknown dimension is -1."""
    shape = info.tensor_shape
    dims = None if shape.unknown_rank else [dim.size for dim in shape.dim]
    dtype = tf.dtypes.as_dtype(info.dtype).name if info.dtype else "invalid"
    return {"tensor": info.name, "dtype": dtype, "shape": dims}


def describe_fingerprint(root: Path) -> dict[str, Any]:
    """Describe fingerprint.pb; its numbers are given in decimal, as text."""
    from tensorflow.core.protobuf import fingerprint_pb2

    proto = fingerprint_pb2.FingerprintDef.FromString((root / "fingerprint.pb").read_bytes())
    numbers = {field.name: str(value) for field, value in proto.ListFields()}
    return {**numbers, "version": proto.version.producer}
