"""What `info` tells of a SavedModel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ckptparse
from ckptparse.cli.about.checkpoint import describe_checkpoint, parameter_rows
from ckptparse.cli.about.common import (
    Row,
    ask,
    average_rows,
    describe_layers,
    describe_optimizers,
    file_rows,
    layer_rows,
    optimizer_rows,
    tensor_info,
)
from ckptparse.cli.about.effects import describe_effects, effect_rows
from ckptparse.cli.running import Run
from ckptparse.text import count, escape, open_shape_text, size_text

__all__ = ["describe_saved_model", "saved_model_rows"]


def describe_saved_model(run: Run, model: ckptparse.SavedModel) -> dict[str, Any]:
    """Describe a SavedModel as JSON has it; what is damaged is None, and reported."""
    meta_graphs = ask(run, lambda: model.meta_graphs)
    has_variables = meta_graphs is None or ask(run, lambda: model.has_variables)
    variables = ask(run, lambda: model.variables) if has_variables else None
    return {
        "path": model.path,
        "file": model.file,
        "hub_module": model.is_hub_module,
        "schema_version": None if meta_graphs is None else model.schema_version,
        "meta_graphs": [_describe_meta_graph(run, graph) for graph in meta_graphs or ()],
        "effects": None
        if meta_graphs is None
        else ask(run, lambda: describe_effects(model.effects)),
        "step": None if variables is None else ask(run, lambda: model.step),
        "layers": ask(run, lambda: describe_layers(model.layers)),
        "optimizers": ask(run, lambda: describe_optimizers(model.optimizers)),
        "averages": ask(run, lambda: len(model.averages)),
        "fingerprint": ask(run, lambda: _describe_fingerprint(model)),
        "variables": _describe_values(run, model, variables),
    }


def _describe_values(
    run: Run, model: ckptparse.SavedModel, variables: ckptparse.Checkpoint | None
) -> dict[str, Any] | None:
    """Describe the variables; of a frozen model, which has none, its constants."""
    if variables is not None:
        return describe_checkpoint(run, variables)
    try:
        with ckptparse.open(model.path) as constants:
            return describe_checkpoint(run, constants) if constants.format == "graph" else None
    except ckptparse.CheckpointError:
        # What is wrong has been said by those who asked for the variables.
        return None


def _describe_meta_graph(run: Run, graph: ckptparse.MetaGraph) -> dict[str, Any]:
    return {
        "tags": list(graph.tags),
        "tensorflow_version": graph.tensorflow_version,
        "nodes": ask(run, lambda: len(graph.graph.nodes)),
        "functions": ask(run, lambda: len(graph.graph.functions)),
        "assets": ask(run, lambda: dict(graph.assets)),
        "signatures": {
            name: {
                "method": signature.method_name,
                "inputs": {key: tensor_info(info) for key, info in signature.inputs.items()},
                "outputs": {key: tensor_info(info) for key, info in signature.outputs.items()},
            }
            for name, signature in graph.signatures.items()
        },
    }


def _describe_fingerprint(model: ckptparse.SavedModel) -> dict[str, Any] | None:
    fingerprint = model.fingerprint
    if fingerprint is None:
        return None
    try:
        matches: bool | None = fingerprint.matches_checkpoint
        why = None
    except ckptparse.CheckpointError as error:
        matches, why = None, error.message
    # As text: hashes of 64 bits are more than the numbers of many readers of JSON hold.
    return {
        "singleprint": fingerprint.singleprint,
        "saved_model_checksum": str(fingerprint.saved_model_checksum),
        "uuid": fingerprint.uuid,
        "version": fingerprint.version,
        "matches_variables": matches,
        "unchecked_because": why,
    }


def saved_model_rows(about: dict[str, Any]) -> Iterator[Row]:
    """Iterate over names and values, as a person reads them."""
    yield "SavedModel", escape(about["path"])
    if about["hub_module"]:
        yield "is", "a TF-Hub module"
    for graph in about["meta_graphs"]:
        yield from _meta_graph_rows(graph)
    yield from effect_rows(about["effects"])
    if about["step"] is not None:
        yield "step", f"{about['step']:,}"
    yield from _fingerprint_rows(about["fingerprint"])
    variables = about["variables"]
    if variables is not None:
        totals = f"{count(variables['tensors'], 'tensor')}, {size_text(variables['bytes'])}"
        name = "constants" if variables["format"] == "graph" else "variables"
        yield name, f"{escape(variables['path'])}  {totals}"
        yield from parameter_rows(variables["parameters"])
        yield from file_rows(variables["files"])
    yield from optimizer_rows(about["optimizers"])
    yield from average_rows(about["averages"])
    yield from layer_rows(about["layers"])


def _meta_graph_rows(graph: dict[str, Any]) -> Iterator[Row]:
    tags = ", ".join(map(escape, graph["tags"])) or "(no tags)"
    version = graph["tensorflow_version"]
    yield "meta graph", tags + (f"  TensorFlow {version}" if version else "")
    if graph["nodes"] is not None:
        yield "  graph", f"{count(graph['nodes'], 'node')}, {count(graph['functions'], 'function')}"
    for name, signature in graph["signatures"].items():
        method = signature["method"]
        yield "  signature", escape(name) + (f"  {escape(method)}" if method else "")
        for way in ("inputs", "outputs"):
            for key, info in signature[way].items():
                said = f"{escape(key)}  {_kind_text(info)}  {escape(info['name'])}"
                yield f"    {way[:-1]}", said.rstrip()
    for name in graph["assets"] or ():
        yield "  asset", escape(name)


def _kind_text(info: dict[str, Any]) -> str:
    """Write type and shape; a signature may name an operation, which gives no tensor."""
    if info["dtype"] == "invalid":
        return "(no tensor)"
    return f"{info['dtype']} {open_shape_text(info['shape'])}"


def _fingerprint_rows(fingerprint: dict[str, Any] | None) -> Iterator[Row]:
    if fingerprint is None:
        return
    verdicts = {True: "fits the variables", False: "DOES NOT FIT the variables"}
    says = verdicts.get(fingerprint["matches_variables"], "not checked")
    yield "fingerprint", f"{fingerprint['singleprint']}  {says}"
