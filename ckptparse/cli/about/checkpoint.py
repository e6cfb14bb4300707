"""What `info` tells of a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import ckptparse
from ckptparse.cli.about.common import (
    Row,
    ask,
    average_rows,
    describe_file,
    describe_layers,
    describe_optimizers,
    file_rows,
    layer_rows,
    optimizer_rows,
)
from ckptparse.cli.running import Run
from ckptparse.text import count, escape, size_text

__all__ = ["checkpoint_rows", "describe_checkpoint", "parameter_rows"]

_OBJECT_KEY = "/.ATTRIBUTES/VARIABLE_VALUE"
_COUNTERS = ("save_counter", "global_step")
_FORMATS = {
    "v2": "V2 checkpoint (tensor bundle)",
    "v1": "V1 checkpoint",
    "graph": "constants of a frozen graph",
}


def describe_checkpoint(run: Run, checkpoint: ckptparse.Checkpoint) -> dict[str, Any]:
    """Describe a checkpoint as JSON has it."""
    tensors = list(checkpoint.values())
    graph = ask(run, lambda: checkpoint.object_graph)
    # If it is damaged, the keys still tell.
    by_objects = graph is not None or any(name.endswith(_OBJECT_KEY) for name in checkpoint)
    return {
        "path": checkpoint.path,
        "format": checkpoint.format,
        "byte_order": checkpoint.byte_order,
        "num_shards": checkpoint.num_shards,
        "files": [describe_file(path) for path in checkpoint.files],
        "tensors": len(tensors),
        "elements": sum(tensor.size for tensor in tensors),
        "bytes": sum(tensor.nbytes for tensor in tensors),
        "types": _count_types(tensors),
        "parameters": ask(run, lambda: _count_parameters(checkpoint, tensors)),
        "orphan_slices": len(checkpoint.orphan_slices),
        "step": ask(run, lambda: checkpoint.step),
        "written_by": _find_writer(checkpoint, by_objects=by_objects),
        "tensorflow_version": _find_version(checkpoint.path),
        **_find_versions(checkpoint),
        "objects": None if graph is None else graph.node_count,
        "layers": ask(run, lambda: describe_layers(checkpoint.layers)),
        "optimizers": ask(run, lambda: describe_optimizers(checkpoint.optimizers)),
        "averages": ask(run, lambda: len(checkpoint.averages)),
    }


def _count_parameters(
    checkpoint: ckptparse.Checkpoint, tensors: list[ckptparse.Tensor]
) -> dict[str, int]:
    """Count elements by what they are for."""
    kinds: dict[str, str] = {}
    for optimizer in checkpoint.optimizers:
        kinds |= dict.fromkeys(optimizer.tensors, "counters")
        for slots in optimizer.slots.stored_names.values():
            kinds |= dict.fromkeys(slots.values(), "slots")
    kinds |= dict.fromkeys(checkpoint.averages.stored_names, "averages")
    counts = dict.fromkeys(("variables", "slots", "averages", "counters"), 0)
    for tensor in tensors:
        last = tensor.name.removesuffix(_OBJECT_KEY).rpartition("/")[2]
        usual = "counters" if last in _COUNTERS else "variables"
        counts[kinds.get(tensor.name, usual)] += tensor.size
    return counts


def _count_types(tensors: list[ckptparse.Tensor]) -> dict[str, dict[str, int]]:
    types: dict[str, dict[str, int]] = {}
    for tensor in tensors:
        known = types.setdefault(
            ckptparse.element_name(tensor.data_type), {"tensors": 0, "bytes": 0}
        )
        known["tensors"] += 1
        known["bytes"] += tensor.nbytes
    return dict(sorted(types.items(), key=lambda item: -item[1]["bytes"]))


def _find_writer(checkpoint: ckptparse.Checkpoint, *, by_objects: bool) -> str | None:
    """Say what kind of program writes such a checkpoint."""
    if checkpoint.format == "graph":
        return None
    if by_objects:
        return "tf.train.Checkpoint, or Keras (by objects)"
    return "tf.train.Saver, or an Estimator (by names)"


def _find_version(path: str) -> str | None:
    """Take the version of TensorFlow from a `.meta` beside it, if there is a readable one."""
    prefix = re.sub(r"-[\d?]+-of-\d+$", "", path)
    try:
        return ckptparse.open_graph(f"{prefix}.meta").tensorflow_version
    except ckptparse.CheckpointError:
        return None


def _find_versions(checkpoint: ckptparse.Checkpoint) -> dict[str, int | None]:
    """Take the versions of the format from the first entry of the index, or of the V1 file."""
    versions: dict[str, int | None] = {"producer": None, "min_consumer": None}
    if checkpoint.format == "graph":
        return versions
    versions = dict.fromkeys(versions, 0)
    entries = 0
    for part in ckptparse.annotate(checkpoint.files[0]):
        entries += part.what == "entry"
        if entries > 1:
            break
        if part.what in versions:
            versions[part.what] = int(part.value)
    return versions


def parameter_rows(parameters: dict[str, int] | None) -> Iterator[Row]:
    """Iterate over the line that counts elements by what they are for."""
    if parameters is not None:
        told = (f"{number:,} in {kind}" for kind, number in parameters.items() if number)
        yield "parameters", ", ".join(told) or "0"


def checkpoint_rows(about: dict[str, Any]) -> Iterator[Row]:
    """Iterate over names and values, as a person reads them."""
    yield "checkpoint", escape(about["path"])
    shards = count(about["num_shards"], "shard")
    yield "format", f"{_FORMATS[about['format']]}, {shards}, {about['byte_order']}-endian"
    if about["written_by"]:
        version = about["tensorflow_version"]
        yield "written by", about["written_by"] + (f", TensorFlow {version}" if version else "")
    if about["producer"] is not None:
        needed = about["min_consumer"]
        yield "versions", f"producer {about['producer']}, min consumer {needed}"
    if about["step"] is not None:
        yield "step", f"{about['step']:,}"
    totals = f"{count(about['tensors'], 'tensor')}, {count(about['elements'], 'element')}"
    yield "holds", f"{totals}, {size_text(about['bytes'])}"
    yield from parameter_rows(about["parameters"])
    for name, known in about["types"].items():
        yield "type", f"{name}  {count(known['tensors'], 'tensor')}, {size_text(known['bytes'])}"
    if about["orphan_slices"]:
        yield "orphans", f"{count(about['orphan_slices'], 'slice')} of tensors that are not listed"
    yield from file_rows(about["files"])
    if about["objects"] is not None:
        yield "objects", f"{about['objects']:,}"
    yield from optimizer_rows(about["optimizers"])
    yield from average_rows(about["averages"])
    yield from layer_rows(about["layers"])
