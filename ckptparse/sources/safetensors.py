"""Safetensors files, and the index that joins several.

    size      8 bytes, little-endian: of the header
    header    JSON: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...,
              "__metadata__": {"key": "text"}}
    data      the elements, little-endian and C-ordered; the ranges fill it without holes

An index is JSON too: {"metadata": {...}, "weight_map": {"name": "model-00001-of-00002..."}}.
Kinds that the format lacks are stored as other ones if the writer was told so; the key
`ckptparse.kinds` of the metadata then says which they are.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptparse.bundle.strings import decode_strings
from ckptparse.dtypes import DataType, item_size, plain_dtype
from ckptparse.elements import shaped
from ckptparse.errors import LimitError, MalformedError, UnsupportedError, located
from ckptparse.files.context import Context
from ckptparse.files.storage import Source
from ckptparse.foreign import KINDS_KEY, SAFETENSORS_DTYPES
from ckptparse.json_text import parse_json
from ckptparse.limits import Limits, check_members
from ckptparse.sources.stored import LoadedTensor, OpenFiles, StoredTensor, check_shape
from ckptparse.tensor_like import TensorLike

__all__ = ["TENSOR", "SafetensorsSource"]

_LENGTH_SIZE = 8
"""The header's length comes first, as a 64-bit number."""


TENSOR = 0.5
"""How many members of an archive a tensor takes as long as."""


class SafetensorsSource(OpenFiles):
    """The tensors of one file, or of all that an index names."""

    @classmethod
    def open(cls, path: str, context: Context) -> SafetensorsSource:
        """Open a file, or an index.

        Raises:
            CheckpointError: It is not there, or breaks the rules of the format.
        """
        made = cls(context)
        try:
            if path.endswith(".json"):
                made._open_index(path, context)
            else:
                made._open_file(path, context)
        except BaseException:
            made.close()
            raise
        return made

    def _open_index(self, path: str, context: Context) -> None:
        source = self._open(path)
        with located(path=path):
            context.limits.check("message_bytes", source.size, "The size of the index")
            said = _parse(source.read_at(0, source.size), context.limits)
            names = _field(said, "weight_map", dict)
            if not all(isinstance(name, str) and "/" not in name for name in names.values()):
                raise MalformedError("Expected names of files beside the index in weight_map")
            files = dict.fromkeys(names.values())
        directory = context.storage.split(path)[0]
        for name in files:
            self._open_file(context.storage.join(directory, name), context)
        missing = names.keys() - self.tensors.keys()
        if missing:
            raise MalformedError(
                f"The index names {len(missing)} tensors that its files lack: {min(missing)!r}",
                path=path,
            )

    def _open_file(self, path: str, context: Context) -> None:
        source = self._open(path)
        with located(path=path):
            header, start = _read_header(source, context.limits)
            metadata = header.pop("__metadata__", {})
            if not isinstance(metadata, dict):
                raise MalformedError("Expected an object under __metadata__")
            self.metadata.update({str(key): str(value) for key, value in metadata.items()})
            kinds = _parse(_text_of(metadata, KINDS_KEY), context.limits)
            check_members(context.limits, len(header), source.size, weight=TENSOR, path=path)
            _check_layout(header, source.size - start)
            for name, said in header.items():
                if name in self.tensors:
                    raise MalformedError(f"Two files hold the tensor {name!r}")
                with located(tensor=name):
                    stored = _make_tensor(name, said, source, start, context.limits)
                    kind = kinds.get(name)
                    self.tensors[name] = stored if kind is None else _restore(stored, kind)


def _parse(text: str | bytes, limits: Limits, held: int | None = None) -> dict[str, Any]:
    try:
        found = parse_json(text, limits, held=held)
    except LimitError:
        raise
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"Expected JSON: {error}") from None
    if not isinstance(found, dict):
        raise MalformedError(f"Expected a JSON object, found {type(found).__name__}")
    return found


def _text_of(metadata: dict[str, Any], key: str) -> str:
    text = metadata.get(key, "{}")
    if not isinstance(text, str):
        raise MalformedError(f"Expected text under {key}, found {type(text).__name__}")
    return text


def _field(said: object, key: str, kind: type) -> Any:
    value = said.get(key) if isinstance(said, dict) else None
    if not isinstance(value, kind):
        raise MalformedError(f"Expected {key!r} with a {kind.__name__}, found {value!r}")
    return value


def _read_header(source: Source, limits: Limits) -> tuple[dict[str, Any], int]:
    """Return the header, and where the data starts."""
    (size,) = struct.unpack("<Q", source.read_at(0, _LENGTH_SIZE))
    if size > source.size - _LENGTH_SIZE:
        raise MalformedError(
            f"Expected a header of {size} bytes, found a file of {source.size} bytes"
        )
    limits.check("message_bytes", size, "The size of the header")
    header = _parse(source.read_at(_LENGTH_SIZE, size), limits, source.size)
    return header, _LENGTH_SIZE + size


def _check_layout(header: Mapping[str, Any], size: int) -> None:
    """Check that the tensors fill the data, one after another."""
    ranges = []
    for said in header.values():
        offsets = _field(said, "data_offsets", list)
        if len(offsets) != 2 or not all(type(offset) is int for offset in offsets):
            raise MalformedError(f"Expected two offsets in data_offsets, found {offsets!r}")
        ranges.append(tuple(offsets))
    end = 0
    for start, stop in sorted(ranges):
        if start != end or stop < start:
            raise MalformedError(
                f"Expected the next tensor at byte {end} of the data, found it at byte {start}"
            )
        end = stop
    if end != size:
        raise MalformedError(f"Expected {end} bytes of data, found {size}")


def _make_tensor(
    name: str, said: dict[str, Any], source: Source, start: int, limits: Limits
) -> StoredTensor:
    dtype, shape = _field(said, "dtype", str), _field(said, "shape", list)
    limits.check("rank", len(shape), "The number of dimensions of a tensor")
    check_shape(shape)
    kind = SAFETENSORS_DTYPES.get(dtype)
    if kind is None:
        raise UnsupportedError(f"TensorFlow has no kind of element for {dtype!r}")
    first, last = said["data_offsets"]
    wanted = math.prod(shape) * (item_size(kind) or 0)
    if last - first != wanted:
        raise MalformedError(
            f"Expected {wanted} bytes for {dtype} of {shape}, found {last - first}"
        )
    return StoredTensor(name, tuple(shape), kind, source, start + first)


def _restore(stored: StoredTensor, said: object) -> TensorLike:
    """Return the tensor that was stored as another kind."""
    kind, shape = _parse_kind(said)
    count = math.prod(shape)
    if kind == DataType.DT_STRING:
        if count > stored.nbytes:
            raise MalformedError(f"{stored.nbytes} bytes do not hold {count} strings")
    elif count * (item_size(kind) or -1) != stored.nbytes:
        raise MalformedError(f"{stored.nbytes} bytes do not hold {kind.name} of shape {shape}")

    def load() -> npt.NDArray[Any]:
        flat = np.ascontiguousarray(stored.read()).reshape(-1).view(np.uint8)
        if kind == DataType.DT_STRING:
            texts = decode_strings(flat.tobytes(), count, big_endian=False, crc=None)
            return shaped(texts, shape)
        return shaped(flat.view(plain_dtype(kind)), shape)

    return LoadedTensor(stored.name, shape, kind, load, nbytes=stored.nbytes)


def _parse_kind(said: object) -> tuple[DataType, tuple[int, ...]]:
    """Return kind and shape of an element of `ckptparse.kinds`: `["STRING", [2, 3]]`."""
    if isinstance(said, list) and len(said) == 2 and isinstance(said[1], list):
        kind = next((code for code in DataType if code.name == f"DT_{said[0]}"), None)
        if kind is not None:
            return kind, check_shape(said[1])
    raise MalformedError(f"Expected a kind and a shape under {KINDS_KEY}, found {said!r}")
