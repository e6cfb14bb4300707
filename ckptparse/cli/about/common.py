"""Parts of `info` that several kinds of things have."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import ckptparse
from ckptparse.cli.running import Run
from ckptparse.text import count, escape, shape_text, size_text

__all__ = ["Row", "ask", "describe_layers", "describe_optimizers", "layer_rows", "tensor_info"]

Value = TypeVar("Value")
Row = tuple[str, str]


def ask(run: Run, question: Callable[[], Value]) -> Value | None:
    """Ask for one part; if it is damaged or missing, say so and go on without it."""
    try:
        return question()
    except (ckptparse.CheckpointError, OSError) as error:
        run.report(error)
        return None


def describe_layers(layers: Sequence[ckptparse.Layer] | None) -> list[dict[str, Any]] | None:
    """Describe layers as JSON has them; a weight that is not stored has no shape."""
    if layers is None:
        return None
    return [
        {
            "name": layer.name,
            "class": layer.class_name,
            "path": layer.path,
            "weights": list(_weights(layer)),
        }
        for layer in layers
    ]


def _weights(layer: ckptparse.Layer) -> Iterator[dict[str, Any]]:
    try:
        weights = layer.weights
    except ckptparse.CheckpointError:
        return
    for tensor in weights:
        yield {
            "stored_name": tensor.name,
            "dtype": ckptparse.element_name(tensor.data_type),
            "shape": list(tensor.shape),
        }


def layer_rows(layers: list[dict[str, Any]] | None) -> Iterator[Row]:
    """Iterate over a line for each layer."""
    for layer in layers or ():
        kind = f"{escape(layer['class'])}  " if layer["class"] else ""
        weights = "  ".join(
            f"{weight['dtype']} {shape_text(weight['shape'])}" for weight in layer["weights"]
        )
        yield "layer", f"{escape(layer['name'])}  {kind}{weights}".rstrip()


def describe_optimizers(optimizers: Sequence[ckptparse.Optimizer]) -> list[dict[str, Any]]:
    """Describe optimizers as JSON has them."""
    return [
        {
            "name": optimizer.name,
            "path": optimizer.path,
            "iterations": optimizer.iterations,
            "learning_rate": optimizer.learning_rate,
            "variables": len(optimizer.slots),
            "slots": sorted({slot for by_slot in optimizer.slots.values() for slot in by_slot}),
        }
        for optimizer in optimizers
    ]


def optimizer_rows(optimizers: Sequence[dict[str, Any]] | None) -> Iterator[Row]:
    """Iterate over a line for each optimizer."""
    for optimizer in optimizers or ():
        parts = []
        if optimizer["iterations"] is not None:
            parts.append(f"iterations {optimizer['iterations']:,}")
        if optimizer["learning_rate"] is not None:
            parts.append(f"learning rate {optimizer['learning_rate']:.6g}")
        if optimizer["slots"]:
            names = ", ".join(map(escape, optimizer["slots"]))
            parts.append(f"slots {names} of {count(optimizer['variables'], 'variable')}")
        name = escape(optimizer["name"])
        yield "optimizer", f"{name}  {'; '.join(parts)}".rstrip()


def average_rows(averages: int | None) -> Iterator[Row]:
    """Iterate over the line for moving averages, if there are some."""
    if averages:
        yield "averages", f"moving averages of {count(averages, 'variable')}"


def describe_file(path: str) -> dict[str, Any]:
    """Describe a file as JSON has it: its size is None if it is not there."""
    try:
        return {"path": path, "size": os.stat(path).st_size}
    except OSError:
        return {"path": path, "size": None}


def file_rows(files: Sequence[dict[str, Any]]) -> Iterator[Row]:
    """Iterate over a line for each file."""
    for file in files:
        size = "not there" if file["size"] is None else size_text(file["size"])
        yield "file", f"{escape(file['path'])}  {size}"


def tensor_info(info: ckptparse.TensorInfo) -> dict[str, Any]:
    """Describe an input or output of a signature as JSON has it."""
    return {
        "name": info.name,
        "dtype": ckptparse.element_name(info.data_type),
        "shape": None if info.shape is None else list(info.shape),
    }
