"""numpy's own files: an archive (`.npz`), a directory of `.npy` files, or one of them.

A kind that numpy lacks is a type of one field, called as the kind is (`bfloat16`); strings that end
in NULs are a type of two, the bytes and their length. A directory that `convert` or
`Recovery.write` wrote says in a file which name each of its files has.
"""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ckptparse.dtypes import DataType, data_type_of, numpy_dtype
from ckptparse.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    MalformedError,
    UnsupportedError,
    located,
)
from ckptparse.files.context import Context
from ckptparse.files.storage import Source
from ckptparse.files.stream import SourceStream
from ckptparse.foreign import (
    INDEX_NAME,
    LENGTH_FIELD,
    METADATA_NAME,
    NAMES_KEY,
    REPORT_NAME,
    STRING_FIELD,
)
from ckptparse.limits import Limits
from ckptparse.sources.stored import LoadedTensor, OpenFiles, StoredTensor
from ckptparse.tensor_like import TensorLike

__all__ = ["NpySource", "strings_of"]

_LONGEST_HEAD = 1 << 20
"""Bytes that are read for a header: real ones have some hundred."""
_LOCAL_HEADER = 30
"""Bytes of a zip member's local header; after it come the name, the extra field, and the data."""


class NpySource(OpenFiles):
    """The tensors of an archive, of a directory, or of one file."""

    @classmethod
    def open(cls, path: str, context: Context) -> NpySource:
        """Open what lies at a path.

        Raises:
            CheckpointError: It is not there, or breaks the rules of the format.
        """
        made = cls(context)
        status = context.storage.stat(path)
        try:
            if status is not None and status.kind == "directory":
                made._open_directory(path)
            elif path.endswith(".npy"):
                name = context.storage.split(path)[1].removesuffix(".npy")
                made._open_file(path, name)
            else:
                made._open_archive(path)
        except BaseException:
            made.close()
            raise
        return made

    def _open_file(self, path: str, name: str) -> None:
        source = self._open(path)
        with located(path=path, tensor=name):
            limits = self._context.limits
            self.tensors[name] = _tensor_at(name, source, 0, source.size, limits)

    def _open_directory(self, path: str) -> None:
        storage = self._context.storage
        names = [name for name in storage.list(path) if name.endswith(".npy")]
        said = self._read_index(path)
        if not names and said is None:
            raise CheckpointNotFoundError("No .npy file lies in the directory", path=path)
        files = {name.removesuffix(".npy"): name for name in names} if said is None else said
        for name, file in files.items():
            if file not in names:
                raise CheckpointNotFoundError(
                    f"The file of the tensor {name!r} is missing", path=storage.join(path, file)
                )
            self._open_file(storage.join(path, file), name)

    def _read_index(self, directory: str) -> dict[str, str] | None:
        """Return the file of each name, if the directory says so."""
        storage = self._context.storage
        for name in (INDEX_NAME, REPORT_NAME):
            path = storage.join(directory, name)
            if storage.stat(path) is None:
                continue
            source = self._open(path)
            with located(path=path):
                self._context.limits.check("message_bytes", source.size, "The size of the index")
                found = _parse(source.read_at(0, source.size))
                self.metadata.update(_strings_of(found.get("metadata", {})))
                key, end = ("tensors", "") if name == INDEX_NAME else ("arrays", ".npy")
                files = _strings_of(found.get(key))
                return {known: file + end for known, file in files.items()}
        return None

    def _open_archive(self, path: str) -> None:
        source = self._open(path)
        with located(path=path):
            try:
                with zipfile.ZipFile(io.BufferedReader(SourceStream(source))) as archive:
                    names = self._read_metadata(archive)
                    for info in archive.infolist():
                        self._add_member(archive, info, source, names)
            except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError) as error:
                if isinstance(error, CheckpointError):
                    raise
                raise MalformedError(f"The archive is damaged: {error}") from error

    def _read_metadata(self, archive: zipfile.ZipFile) -> dict[str, str]:
        """Read what an archive says of itself; return the names that its members cannot have."""
        if METADATA_NAME not in archive.namelist():
            return {}
        size = archive.getinfo(METADATA_NAME).file_size
        self._context.limits.check("message_bytes", size, "The size of the metadata")
        self.metadata.update(_strings_of(_parse(archive.read(METADATA_NAME))))
        return _strings_of(_parse(self.metadata.pop(NAMES_KEY, "{}").encode()))

    def _add_member(
        self,
        archive: zipfile.ZipFile,
        info: zipfile.ZipInfo,
        source: Source,
        names: Mapping[str, str],
    ) -> None:
        limits = self._context.limits
        member = info.filename.removesuffix(".npy")
        if info.is_dir() or member == info.filename:
            return
        name = names.get(member, member)
        with located(tensor=name):
            if info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1:
                offset = _data_offset(source, info)
                tensor = _tensor_at(name, source, offset, info.file_size, limits)
            else:
                limits.check("decompressed_bytes", info.file_size, "The size of the array")
                tensor = _compressed(name, archive.read(info))
        self.tensors[name] = tensor


def _parse(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"Expected JSON: {error}") from None
    if not isinstance(found, dict):
        raise MalformedError(f"Expected a JSON object, found {type(found).__name__}")
    return found


def _strings_of(said: object) -> dict[str, str]:
    if not isinstance(said, dict) or not all(isinstance(value, str) for value in said.values()):
        raise MalformedError(f"Expected a JSON object whose values are strings, found {said!r:.80}")
    return dict(said)


def _data_offset(source: Source, info: zipfile.ZipInfo) -> int:
    """Return where a member's bytes begin, by the header that stands before them."""
    head = source.read_at(info.header_offset, _LOCAL_HEADER)
    name_size, extra_size = struct.unpack("<HH", head[26:30])
    return int(info.header_offset + _LOCAL_HEADER + name_size + extra_size)


def _read_head(stream: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, whether columns come first, and type from the start of a `.npy` file."""
    try:
        version = np.lib.format.read_magic(stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read is None:
            # Version 3 is version 2 whose text is UTF-8; numpy reads it by a function of no name.
            read = np.lib.format.read_array_header_2_0
        shape, columns, dtype = read(stream)
    except (ValueError, SyntaxError, TypeError, RecursionError) as error:
        raise MalformedError(f"The header of the .npy file cannot be read: {error}") from None
    if dtype.hasobject:
        raise UnsupportedError(
            "The array holds pickled Python objects; to read them means to run code from the file",
            hint="Save the array anew, without objects: with strings as numpy's bytes (dtype 'S')",
        )
    return shape, columns, dtype


def _tensor_at(name: str, source: Source, offset: int, size: int, limits: Limits) -> TensorLike:
    """Return the tensor of the `.npy` file of `size` bytes that starts at an offset."""
    stream = io.BytesIO(source.read_at(offset, min(size, _LONGEST_HEAD)))
    shape, columns, dtype = _read_head(stream)
    limits.check("rank", len(shape), "The number of dimensions of a tensor")
    start, wanted = stream.tell(), math.prod(shape) * dtype.itemsize
    if start + wanted != size:
        raise MalformedError(
            f"Expected {start + wanted} bytes for {dtype} of shape {shape}, found {size}"
        )
    kind = _kind_of(dtype)
    if kind != DataType.DT_STRING and not columns:
        big = dtype.byteorder == ">" or (dtype.names is not None and dtype[0].byteorder == ">")
        return StoredTensor(name, shape, kind, source, offset + start, big_endian=big)
    if kind == DataType.DT_STRING:
        limits.check("strings", math.prod(shape), "The number of strings of a tensor")

    def load() -> npt.NDArray[Any]:
        data = source.read_at(offset + start, wanted)
        array = np.frombuffer(data, dtype).reshape(shape, order="F" if columns else "C")
        return _plain(array, kind)

    return LoadedTensor(name, shape, kind, load, nbytes=wanted)


def _compressed(name: str, data: bytes) -> TensorLike:
    stream = io.BytesIO(data)
    shape, columns, dtype = _read_head(stream)
    kind = _kind_of(dtype)
    wanted, found = math.prod(shape) * dtype.itemsize, len(data) - stream.tell()
    if wanted != found:
        raise MalformedError(f"Expected {wanted} bytes of {dtype} of shape {shape}, found {found}")
    flat = np.frombuffer(data, dtype, offset=stream.tell())
    array = flat.reshape(shape, order="F" if columns else "C")
    return LoadedTensor(name, shape, kind, lambda: _plain(array, kind), nbytes=wanted)


def _kind_of(dtype: np.dtype[Any]) -> DataType:
    if dtype.names == (STRING_FIELD, LENGTH_FIELD):
        return DataType.DT_STRING
    return data_type_of(dtype)


def _plain(array: npt.NDArray[Any], kind: DataType) -> npt.NDArray[Any]:
    """Return an array of our kinds, of memory of its own."""
    if kind == DataType.DT_STRING:
        return strings_of(array)
    own: npt.NDArray[Any] = np.array(array, array.dtype.newbyteorder("="), order="C")
    return own.view(numpy_dtype(kind)) if own.dtype.names else own


def strings_of(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return strings, however numpy holds them, as an object array of `bytes`."""
    out = np.empty(array.size, object)
    if array.dtype.names:
        texts, lengths = array[STRING_FIELD], array[LENGTH_FIELD]
        pairs = zip(texts.reshape(-1).tolist(), lengths.reshape(-1).tolist(), strict=True)
        # numpy drops the NULs at the end; the length tells how many there were.
        out[:] = [text.ljust(length, b"\0")[:length] for text, length in pairs]
    else:
        out[:] = [
            text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
            for text in array.reshape(-1).tolist()
        ]
    return out.reshape(array.shape)
