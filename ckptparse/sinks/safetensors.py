"""Safetensors files, written as a stream: a header, then the bytes of each tensor.

Tensors of wide elements come first, so that every one is aligned, as the format's own library lays
them out. Parts are named as Hugging Face names them: `model-00001-of-00003.safetensors` beside
`model.safetensors.index.json`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ckptparse.bundle.content import Write, content_of
from ckptparse.dtypes import describe_data_type, is_numeric, item_size
from ckptparse.errors import located
from ckptparse.files.placing import OutputFiles, place_file, place_files
from ckptparse.foreign import KINDS_KEY, SAFETENSORS_DTYPES
from ckptparse.sinks.options import (
    Meter,
    SinkOptions,
    check_kinds,
    check_names,
    is_variant,
    plan_parts,
    write_elements,
)
from ckptparse.sinks.small import iter_payloads
from ckptparse.tensor_like import TensorLike

__all__ = ["check_safetensors", "in_order", "write_safetensors"]

_SUFFIX = ".safetensors"
_ALIGNMENT = 8
"""The header is padded with spaces to a multiple of this, so the tensors' bytes are aligned."""
_DTYPES = {int(code): name for name, code in SAFETENSORS_DTYPES.items()}
_WAYS = (
    "Convert them (dtype='float32', for kinds of floats), leave them out (exclude=...), choose "
    "format='v2', or pass store_bits=True: their bytes are then stored as plain integers, and the "
    "metadata says what they are, so that only ckptparse reads them back as what they were"
)


@dataclass(frozen=True, slots=True)
class _Slot:
    """How a tensor lies in the file."""

    tensor: TensorLike
    dtype: str
    shape: tuple[int, ...]
    size: int
    kind: tuple[str, tuple[int, ...]] | None = None
    """What it is, if it is stored as something else."""


def check_safetensors(tensors: Sequence[TensorLike], options: SinkOptions) -> None:
    """Refuse what a safetensors file cannot hold.

    Raises:
        UnsupportedError: Some tensors are of kinds that the format lacks, or have odd names.
    """
    check_names(tensors, what="A safetensors file")
    lacks = is_variant if options.store_bits else _lacks
    check_kinds(tensors, lacks, what="A safetensors file", ways=_WAYS)


def write_safetensors(
    path: str, tensors: Sequence[TensorLike], options: SinkOptions
) -> tuple[str, ...]:
    """Write one file, or several and their index; return the paths.

    Raises:
        CheckpointError: A tensor cannot be read, or the file cannot be written.
    """
    check_safetensors(tensors, options)
    slots = [_plan(tensor) for tensor in tensors]
    meter = options.meter(tensors)
    parts = plan_parts([slot.size for slot in slots], options.max_shard_size)
    count = parts[-1] + 1 if parts else 1
    if count == 1:
        with place_file(path, overwrite=options.overwrite, storage=options.storage) as stream:
            _write_file(stream.write, slots, options, meter)
        return (path,)
    names = [_part_name(path, number, count) for number in range(count)]
    with place_files(overwrite=options.overwrite, storage=options.storage) as files:
        for number, name in enumerate(names):
            own = [slot for slot, part in zip(slots, parts, strict=True) if part == number]
            with files.open(name) as stream:
                _write_file(stream.write, own, options, meter)
        index = _write_index(files, path, slots, [names[part] for part in parts])
    return (*names, index)


def in_order(tensors: Sequence[TensorLike]) -> list[TensorLike]:
    """Return tensors in the order in which a file holds them."""
    slots = sorted(map(_plan, tensors), key=_alignment, reverse=True)
    return [slot.tensor for slot in slots]


def _lacks(tensor: TensorLike) -> bool:
    return tensor.data_type not in _DTYPES


def _plan(tensor: TensorLike) -> _Slot:
    """Choose how a tensor is stored, as something else if need be."""
    known = _DTYPES.get(tensor.data_type)
    shape = tensor.shape
    if known is not None:
        return _Slot(tensor, known, shape, tensor.nbytes)
    kind = (describe_data_type(tensor.data_type).removeprefix("DT_"), shape)
    if not is_numeric(tensor.data_type):
        with located(tensor=tensor.name):
            size = content_of(tensor).size
        return _Slot(tensor, "U8", (size,), size, kind)
    width = item_size(tensor.data_type) or 1
    if width > 8:
        return _Slot(tensor, "F64", (*shape, 2), tensor.nbytes, kind)
    stored = {1: "U8", 2: "U16", 4: "U32", 8: "U64"}[width]
    return _Slot(tensor, stored, shape, tensor.nbytes, kind)


def _write_file(
    write: Callable[[Any], object], slots: Sequence[_Slot], options: SinkOptions, meter: Meter
) -> None:
    ordered = sorted(slots, key=_alignment, reverse=True)
    write(_make_header(ordered, options))
    counting = meter.counting(write)
    for batch in iter_payloads(slot.tensor for slot in ordered):
        for is_small, run in groupby(batch, key=lambda row: row[1] is not None):
            if is_small:
                pieces = [payload[0] for _, payload in run if payload is not None]
                write(b"".join(pieces))
                meter.advance_each(map(len, pieces))
                continue
            for one, _ in run:
                _write_one(one.tensor, counting)


def _write_one(tensor: TensorLike, write: Write) -> None:
    if is_numeric(tensor.data_type):
        write_elements(tensor, write)
    else:
        with located(tensor=tensor.name):
            content_of(tensor).write_to(write)


def _alignment(slot: _Slot) -> int:
    return item_size(SAFETENSORS_DTYPES[slot.dtype]) or 1


def _make_header(slots: Sequence[_Slot], options: SinkOptions) -> bytes:
    kinds = {slot.tensor.name: slot.kind for slot in slots if slot.kind is not None}
    metadata = dict(options.metadata)
    if kinds:
        metadata[KINDS_KEY] = json.dumps(kinds)
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    offset = 0
    for slot in slots:
        end = offset + slot.size
        header[slot.tensor.name] = {
            "dtype": slot.dtype,
            "shape": list(slot.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def _part_name(path: str, number: int, count: int) -> str:
    stem = path.removesuffix(_SUFFIX)
    return f"{stem}-{number + 1:05d}-of-{count:05d}{_SUFFIX}"


def _write_index(
    files: OutputFiles, path: str, slots: Sequence[_Slot], names: Sequence[str]
) -> str:
    """Write the index, last: whoever finds it finds all that it names."""
    index = f"{path.removesuffix(_SUFFIX)}{_SUFFIX}.index.json"
    content = {
        "metadata": {"total_size": sum(slot.size for slot in slots)},
        "weight_map": {
            slot.tensor.name: name.replace("\\", "/").rpartition("/")[2]
            for slot, name in zip(slots, names, strict=True)
        },
    }
    with files.open(index) as stream:
        stream.write(json.dumps(content, indent=2, sort_keys=True).encode() + b"\n")
    return index
