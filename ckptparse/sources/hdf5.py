"""HDF5 files: any, Keras's `.h5` and `.weights.h5`, and the one inside a `.keras` archive.

A tensor's name is the path of its dataset, unless the attribute `ckptparse.name` says another.
Kinds that HDF5 lacks are compounds of one field, called as the kind is; in Keras's files plain
bytes, whose kind the attribute `dtype` says. Links to other files are not followed. Read by h5py,
without Keras.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ckptparse.dtypes import DataType, data_type_of, item_size, plain_dtype
from ckptparse.errors import (
    CheckpointError,
    LimitError,
    MalformedError,
    UnsupportedError,
    located,
)
from ckptparse.files.archives.members import MemberSource, ZipMembers
from ckptparse.files.context import Context
from ckptparse.files.memory import MemorySource
from ckptparse.files.storage import Source
from ckptparse.foreign import LENGTH_FIELD, NAME_ATTRIBUTE, STRING_FIELD, load_h5py
from ckptparse.limits import Limits, Members, check_members
from ckptparse.sources.hdf5_objects import iter_dataset_ids
from ckptparse.sources.hdf5_pieces import Packed, check_pieces, held_bytes
from ckptparse.sources.hdf5_stream import open_hdf5
from ckptparse.sources.npy import strings_of
from ckptparse.sources.stored import LoadedTensor, StoredTensor
from ckptparse.tensor_like import TensorLike

__all__ = ["Hdf5Source"]

_ATTRIBUTE = 4
"""How many members an attribute of the file takes as long as."""
_RATIO = 32
"""How many times the file its packed datasets may take. Weights become hardly larger."""
_KERAS_WEIGHTS = "model.weights.h5"
_KERAS_KIND = "dtype"
"""The attribute in which Keras says what kind the bytes of a dataset are: bfloat16."""


class Hdf5Source:
    """The datasets of a file."""

    def __init__(self, context: Context) -> None:
        self.tensors: dict[str, TensorLike] = {}
        self.metadata: dict[str, str] = {}
        self.files: tuple[str, ...] = ()
        self._context = context
        self._source: Source | None = None
        self._file: Any = None
        self._growth = _Growth(0, context.limits)
        self._kinds = _Kinds()

    @classmethod
    def open(cls, path: str, context: Context) -> Hdf5Source:
        """Open a file.

        Raises:
            UnsupportedError: h5py is not installed.
            CheckpointError: It is not there, or breaks the rules of the format.
        """
        made = cls(context)
        try:
            made._open(path)
        except BaseException:
            made.close()
            raise
        return made

    def close(self) -> None:
        """Close it."""
        if self._file is not None:
            self._file.close()
        if self._source is not None:
            self._source.close()

    def _open(self, path: str) -> None:
        h5py = load_h5py()
        source = self._source = self._context.storage.open(path)
        self.files = (path,)
        with located(path=path), _understood():
            inner = source
            if source.read_at(0, min(4, source.size)) == b"PK\x03\x04":
                inner = _find_weights(source, self._context.limits)
            limits, self._growth = self._context.limits, _Growth(source.size, self._context.limits)
            self._file = open_hdf5(h5py, inner)
            check_members(limits, len(self._file.attrs), source.size, weight=_ATTRIBUTE, path=path)
            for key, value in self._file.attrs.items():
                if isinstance(value, str):
                    self.metadata[key] = value
            members = Members(limits, source.size, path=path)
            packed = Packed(h5py, inner.size, members)
            for name, found in iter_dataset_ids(
                h5py, self._file, limits, members, size=source.size
            ):
                self._add(h5py, name, found, inner, packed)

    def _add(self, h5py: Any, path: str, found: Any, source: Source, packed: Packed) -> None:
        name = path
        if h5py.h5a.exists(found, NAME_ATTRIBUTE.encode()):
            name = str(h5py.Dataset(found).attrs[NAME_ATTRIBUTE])
        with located(tensor=name):
            tensor = self._make_tensor(h5py, name, found, source)
            if isinstance(tensor, LoadedTensor):
                packed.take(found)
        if tensor is not None:
            self.tensors[name] = tensor

    def _make_tensor(self, h5py: Any, name: str, found: Any, source: Source) -> TensorLike | None:
        shape, kind = found.shape, self._kinds.find(h5py, found)
        if shape is None:  # An empty dataset has a type, and no shape at all.
            return None
        shape = tuple(map(int, shape))
        count = math.prod(shape)
        limits = self._context.limits
        limits.check("rank", len(shape), "The number of dimensions of a tensor")
        dtype, data_type = kind.dtype, kind.data_type
        if data_type == DataType.DT_STRING:
            limits.check("strings", count, "The number of strings of a tensor")
            if dtype.kind == "O" and not kind.is_text:
                raise UnsupportedError("Its elements are neither numbers nor strings")
        else:
            # None unless all lies in one piece.
            offset = found.get_offset()
            if offset is not None and not kind.is_enumeration:
                big_endian = kind.order == ">"
                return StoredTensor(name, shape, data_type, source, offset, big_endian=big_endian)
        growth, size = self._growth, count * dtype.itemsize

        def load() -> npt.NDArray[Any]:
            growth.check(name, held_bytes(h5py, found, size))
            with _understood():
                check_pieces(h5py, found)
                values = h5py.Dataset(found)[()]
                if kind.is_opaque:
                    return np.asarray(values).view(dtype)
                array = np.asarray(values, dtype if dtype.kind != "O" else object)
            if data_type == DataType.DT_STRING:
                return strings_of(array)
            own: npt.NDArray[Any] = np.array(array, array.dtype.newbyteorder("="), order="C")
            return own

        return LoadedTensor(name, shape, data_type, load, nbytes=size)


class _Kind(NamedTuple):
    """What the elements of a dataset are."""

    dtype: np.dtype[Any]
    data_type: int
    is_text: bool
    is_enumeration: bool
    order: str
    is_opaque: bool = False


class _Kinds:
    """What elements are, by HDF5's types. Most datasets of a file have one of a few."""

    def __init__(self) -> None:
        self._last: tuple[Any, _Kind] | None = None

    def find(self, h5py: Any, found: Any) -> _Kind:
        """Return what the elements of a dataset are."""
        stated = found.get_type()
        if stated.get_class() == h5py.h5t.OPAQUE:
            return _kind_of_bytes(h5py, found, stated.dtype)
        if self._last is None or not stated.equal(self._last[0]):
            self._last = stated, _kind_of(h5py, stated.dtype)
        return self._last[1]


def _kind_of(h5py: Any, dtype: np.dtype[Any]) -> _Kind:
    is_text = h5py.check_string_dtype(dtype) is not None
    is_enumeration = h5py.check_enum_dtype(dtype) is not None
    order = dtype[0].byteorder if dtype.names else dtype.byteorder
    if is_text or dtype.kind in "SO" or dtype.names == (STRING_FIELD, LENGTH_FIELD):
        return _Kind(dtype, DataType.DT_STRING, is_text, is_enumeration, order)
    return _Kind(dtype, data_type_of(dtype), is_text, is_enumeration, order)


def _kind_of_bytes(h5py: Any, found: Any, dtype: np.dtype[Any]) -> _Kind:
    """Return the kind that Keras says beside a dataset whose type is so many bytes."""
    said = None
    if h5py.h5a.exists(found, _KERAS_KIND.encode()):
        said = h5py.Dataset(found).attrs[_KERAS_KIND]
    if not isinstance(said, str):
        return _kind_of(h5py, dtype)  # It says that there is no such kind.
    data_type = data_type_of(np.dtype([(said, dtype)]))
    width = item_size(data_type)
    if width != dtype.itemsize:
        raise MalformedError(
            f"Expected elements of {width} bytes, as its attribute '{_KERAS_KIND}' says {said}, "
            f"found elements of {dtype.itemsize}"
        )
    return _Kind(plain_dtype(data_type), data_type, False, False, "<", is_opaque=True)


class _Growth:
    """What the datasets of a file that do not lie in one piece take in memory when they are read.

    They may be packed, or not stored at all: of a few bytes they state any size.
    """

    def __init__(self, size: int, limits: Limits) -> None:
        """Begin with none, of a file of so many bytes."""
        self.limits = limits
        self._size = size
        self._most = max(limits.decompressed_bytes // 8, _RATIO * size)
        self._taken: dict[str, int] = {}
        self._total = 0

    def check(self, name: str, size: int) -> None:
        """Count a dataset, once.

        Raises:
            LimitError: All of them together take too much.
        """
        self._total += size - self._taken.get(name, 0)
        self._taken[name] = size
        if self._total > self._most:
            raise LimitError(
                f"Datasets that are packed, or not stored, take {self._total} bytes: more than "
                f"{_RATIO} times the file, and than an eighth of Limits.decompressed_bytes",
                limit="decompressed_bytes",
            )


@contextmanager
def _understood() -> Iterator[None]:
    """Turn what h5py says of a damaged file into our error."""
    try:
        yield
    except CheckpointError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise MalformedError(f"The HDF5 file cannot be read: {error}") from error


def _find_weights(source: Source, limits: Limits) -> Source:
    """Return the HDF5 file in a `.keras` archive."""
    members = ZipMembers(source, limits)
    if _KERAS_WEIGHTS not in members.names:
        raise UnsupportedError(f"The archive holds no {_KERAS_WEIGHTS}")
    stored = members.find_stored(_KERAS_WEIGHTS)
    if stored is None:
        return MemorySource(source.path, members.read(_KERAS_WEIGHTS))
    return MemberSource(source.path, source, *stored)
