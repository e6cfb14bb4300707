"""Shapes in files of any kind, told apart by what they hold: nothing of their values is read.

JSON          shapes by name; the header of a safetensors file; Keras's `config.json`
.keras        the `config.json` in it
keras_metadata.pb  what Keras wrote of each layer: among evidence only
.npz          the headers of its members
safetensors   its header: the values may be cut off
HDF5          its datasets, if h5py is installed; of a whole model of Keras those of weights
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from typing import Any

from ckptparse.errors import CheckpointError, LimitError, MalformedError, located
from ckptparse.files.archives.members import ZipMembers
from ckptparse.files.context import Context
from ckptparse.files.file_urls import local_path
from ckptparse.files.storage import Source
from ckptparse.graph.object_node import escape_name
from ckptparse.inventory.nearby import open_named
from ckptparse.json_text import parse_json
from ckptparse.limits import DEFAULT_LIMITS, Limits, check_members, limit_error
from ckptparse.recovery.rebuild.keras_config import (
    LayerWeight,
    is_keras_config,
    iter_weights,
    iter_weights_of,
)
from ckptparse.recovery.rebuild.shapes import GivenTensor, parse_shapes
from ckptparse.saved_model.keras_metadata import KerasObject, read_keras_metadata
from ckptparse.sources.hdf5 import Hdf5Source
from ckptparse.sources.npy import NpySource
from ckptparse.sources.safetensors import TENSOR

__all__ = ["parse_shapes_text", "read_metadata_shapes", "read_shapes"]

_CONFIG = "config.json"
_MODEL_WEIGHTS = "model_weights"
_ZIP = b"PK\x03\x04"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_LENGTH = 8
_NAME_BYTES = 40
"""Of a name and its shape in JSON, for each beyond `Limits.small_tensors`; one takes 5 µs."""


def read_shapes(
    shapes: Mapping[str, Any] | str | os.PathLike[str] | None, context: Context
) -> list[GivenTensor]:
    """Take over shapes, or read the file that holds them.

    Raises:
        CheckpointNotFoundError: There is no such file.
        MalformedError: It holds no shapes.
        UnsupportedError: It is HDF5, and h5py is not installed; or a configuration of Keras with a
            layer that is not known.
    """
    if shapes is None:
        return []
    if isinstance(shapes, Mapping):
        return _parse(shapes)
    path = local_path(os.fsdecode(shapes))
    with located(path=path), closing(open_named(path, context)) as source:
        head = source.read_at(0, min(_LENGTH + 1, source.size))
        if head.startswith(_HDF5):
            return _of_hdf5(path, context)
        if head.startswith(_ZIP):
            return _of_archive(source, context)
        if head[_LENGTH:] == b"{":
            return _of_safetensors(source, context)
        context.limits.check("message_bytes", source.size, "The size of the file of shapes")
        return parse_shapes_text(source.read_at(0, source.size), context.limits)


def parse_shapes_text(text: str | bytes, limits: Limits = DEFAULT_LIMITS) -> list[GivenTensor]:
    """Parse JSON: names and shapes, the header of a safetensors file, a configuration of Keras.

    Raises:
        LimitError: It has more names than `Limits.small_tensors`, beyond one for each 40 bytes.
        MalformedError: It is no JSON object of shapes.
        UnsupportedError: It is a configuration of Keras with a layer that is not known.
    """
    try:
        found = parse_json(text, limits)
    except LimitError:
        raise
    except (ValueError, RecursionError) as error:
        raise MalformedError(
            f"Expected shapes as JSON, found what does not parse: {error}"
        ) from error
    if not isinstance(found, dict):
        raise MalformedError("Expected a JSON object of names and shapes, found another value")
    check_names(found, len(text), limits)
    return _parse(found)


def check_names(shapes: Mapping[str, Any], size: int, limits: Limits) -> None:
    """Refuse JSON of `size` bytes that has shapes of too many names.

    Raises:
        LimitError: It has more than `Limits.small_tensors`, beyond one for each 40 bytes.
    """
    beyond = len(shapes) - size // _NAME_BYTES
    if beyond > limits.small_tensors:
        what = f"The number of names, beyond one for each {_NAME_BYTES} bytes of the text,"
        raise limit_error(limits, "small_tensors", beyond, what)


def _parse(found: Mapping[str, Any]) -> list[GivenTensor]:
    if is_keras_config(found):
        return [GivenTensor(*weight) for weight in iter_weights(found)]
    return parse_shapes(found)


def read_metadata_shapes(path: str, context: Context) -> list[GivenTensor]:
    """Return the shapes of weights that a `keras_metadata.pb` tells; none if it cannot be read.

    Weights are called by the path of their layer (`layer_with_weights-1/cell/kernel`), and by its
    name (`dense/kernel`) if that is not taken. Layers that are not known are left out.
    """
    found: dict[str, GivenTensor] = {}
    by_name: dict[str, GivenTensor] = {}
    with suppress(CheckpointError):
        for layer in read_keras_metadata(path, context):
            if not layer.is_layer:
                continue
            for place, values in _layers_of(layer):
                for local, data_type, shape in _weights_of(values):
                    name = "/".join((*place, local))
                    found.setdefault(name, GivenTensor(name, data_type, shape))
                    name = f"{values['config'].get('name')}/{local}"
                    by_name.setdefault(name, GivenTensor(name, data_type, shape))
    return list((by_name | found).values())


def _layers_of(layer: KerasObject) -> Iterator[tuple[list[str], Mapping[str, Any]]]:
    """Iterate over a layer, and the one that a `TimeDistributed` holds, each with its path."""
    with suppress(CheckpointError):
        place = [escape_name(part) for part in layer.path.split(".")[1:]]
        yield place, layer.values
        inner = _inner_of(layer.values)
        if inner is not None:
            yield [*place, "layer"], inner


def _inner_of(values: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the layer that a `TimeDistributed` holds: it is built for the input of one step.

    Before Keras 2.11 that one does not say itself what it was built for.
    """
    built = values.get("build_input_shape")
    config = values.get("config")
    inner = config.get("layer") if isinstance(config, dict) else None
    if values.get("class_name") != "TimeDistributed" or not isinstance(inner, dict):
        return None
    if not isinstance(built, (tuple, list)) or len(built) < 3:
        return None
    return {**inner, "build_input_shape": (built[0], *built[2:])}


def _weights_of(layer: Mapping[str, Any]) -> list[LayerWeight]:
    with suppress(CheckpointError):
        return list(iter_weights_of(layer))
    return []


def _of_safetensors(source: Source, context: Context) -> list[GivenTensor]:
    size = int.from_bytes(source.read_at(0, _LENGTH), "little")
    context.limits.check("message_bytes", size, "The size of the header")
    found = parse_shapes_text(source.read_at(_LENGTH, size), context.limits)
    check_members(context.limits, len(found), source.size, weight=TENSOR)
    return found


def _of_hdf5(path: str, context: Context) -> list[GivenTensor]:
    with closing(Hdf5Source.open(path, context)) as opened:
        tensors = opened.tensors
        names = _weights_of_model(tensors) or {name: name for name in tensors}
        return [
            GivenTensor(called, tensors[name].data_type, tensors[name].shape)
            for called, name in names.items()
        ]


def _weights_of_model(names: Iterable[str]) -> dict[str, str]:
    """Return the datasets of the weights in Keras's `.h5` of a whole model, by the layers' names.

    model_weights/dense/sequential/dense/kernel       dense/kernel       (Keras 2: kernel:0)
    """
    found: dict[str, str] = {}
    for name in names:
        group, *inside = name.split("/")
        if group != _MODEL_WEIGHTS or len(inside) < 2:
            continue
        *layer, weight = inside
        weight = weight.removesuffix(":0")
        called = f"{layer[0]}/{weight}"
        # Of a model within the model the weights are called by its own layers.
        found[f"{layer[-1]}/{weight}" if called in found else called] = name
    return found


def _of_archive(source: Source, context: Context) -> list[GivenTensor]:
    """Read Keras's configuration in an archive, or the headers of numpy's arrays."""
    members = ZipMembers(source, context.limits)
    if _CONFIG in members.names:
        size = members.size(_CONFIG)
        context.limits.check("message_bytes", size, "The size of the configuration")
        return parse_shapes_text(members.read(_CONFIG), context.limits)
    with closing(NpySource.open(source.path, context)) as opened:
        found = [
            GivenTensor(name, tensor.data_type, tensor.shape)
            for name, tensor in opened.tensors.items()
        ]
    if not found:
        raise MalformedError("Expected arrays or a configuration of Keras in the archive")
    return found
