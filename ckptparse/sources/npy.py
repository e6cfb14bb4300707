"""numpy's own files: an archive (`.npz`), a directory of `.npy` files, or one of them.

A kind that numpy lacks is a type of one field, called as the kind is (`bfloat16`); strings that end
in NULs are a type of two, the bytes and their length. A directory that `convert` or
`Recovery.write` wrote says in a file which name each of its files has.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptparse.dtypes import DataType
from ckptparse.elements import allocate, shaped
from ckptparse.errors import (
    CheckpointNotFoundError,
    LimitError,
    MalformedError,
    located,
)
from ckptparse.files.archives.members import ZipMembers
from ckptparse.files.context import Context
from ckptparse.files.storage import Source
from ckptparse.foreign import (
    INDEX_NAME,
    LENGTH_FIELD,
    METADATA_NAME,
    NAMES_KEY,
    REPORT_NAME,
    STRING_FIELD,
)
from ckptparse.json_text import parse_json
from ckptparse.limits import Limits
from ckptparse.sources.npy_heads import LONGEST_HEAD, Head, HeadParser
from ckptparse.sources.stored import LoadedTensor, OpenFiles, StoredTensor
from ckptparse.tensor_like import TensorLike

__all__ = ["NpySource", "strings_of"]


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
            heads = HeadParser(source.size, self._context.limits)
            self.tensors[name] = _tensor_of_file(name, source, heads)

    def _open_directory(self, path: str) -> None:
        storage = self._context.storage
        names = [name for name in storage.list(path) if name.endswith(".npy")]
        said = self._read_index(path)
        if not names and said is None:
            raise CheckpointNotFoundError("No .npy file lies in the directory", path=path)
        files = {name.removesuffix(".npy"): name for name in names} if said is None else said
        there = set(names)
        for name, file in files.items():
            if file not in there:
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
                found = _parse(source.read_at(0, source.size), self._context.limits)
                self.metadata.update(_strings_of(found.get("metadata", {})))
                key, end = ("tensors", "") if name == INDEX_NAME else ("arrays", ".npy")
                files = _strings_of(found.get(key))
                return {known: file + end for known, file in files.items()}
        return None

    def _open_archive(self, path: str) -> None:
        source, limits = self._open(path), self._context.limits
        with located(path=path):
            members = ZipMembers(source, limits)
            heads = HeadParser(source.size, limits)
            names = self._read_metadata(members)
            for member in members.names:
                stem = member.removesuffix(".npy")
                if stem != member:
                    name = names.get(stem, stem)
                    with located(tensor=name):
                        self.tensors[name] = _tensor_of_member(name, source, members, member, heads)

    def _read_metadata(self, members: ZipMembers) -> dict[str, str]:
        """Read what an archive says of itself; return the names that its members cannot have."""
        if METADATA_NAME not in members.names:
            return {}
        size = members.size(METADATA_NAME)
        limits = self._context.limits
        limits.check("message_bytes", size, "The size of the metadata")
        self.metadata.update(_strings_of(_parse(members.read(METADATA_NAME), limits)))
        return _strings_of(_parse(self.metadata.pop(NAMES_KEY, "{}").encode(), limits))


def _parse(data: bytes, limits: Limits) -> dict[str, Any]:
    try:
        found = parse_json(data, limits)
    except LimitError:
        raise
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"Expected JSON: {error}") from None
    if not isinstance(found, dict):
        raise MalformedError(f"Expected a JSON object, found {type(found).__name__}")
    return found


def _strings_of(said: object) -> dict[str, str]:
    if not isinstance(said, dict) or not all(isinstance(value, str) for value in said.values()):
        raise MalformedError(f"Expected a JSON object whose values are strings, found {said!r:.80}")
    return dict(said)


def _tensor_of_file(name: str, source: Source, heads: HeadParser) -> TensorLike:
    """Return the tensor of a `.npy` file."""
    head = heads.parse(source.read_at(0, min(source.size, LONGEST_HEAD)), source.size)
    if head.is_plain:
        big = head.is_big_endian
        return StoredTensor(name, head.shape, head.kind, source, head.start, big_endian=big)
    return _load_later(name, head, lambda: source.read_at(head.start, source.size - head.start))


def _tensor_of_member(
    name: str, source: Source, members: ZipMembers, member: str, heads: HeadParser
) -> TensorLike:
    """Return the tensor of a member of an archive; a packed one is unpacked when it is read."""
    stored, size = members.find_stored(member), members.size(member)
    if stored is None:
        heads.limits.check("decompressed_bytes", size, "The size of the array")
    start = members.read(member, most=LONGEST_HEAD)
    head = heads.parse(start, size)
    if stored is not None and head.is_plain:
        return StoredTensor(
            name,
            head.shape,
            head.kind,
            source,
            stored[0] + head.start,
            big_endian=head.is_big_endian,
            checksum=members.checksum(member, start[: head.start]),
        )
    return _load_later(name, head, lambda: members.read(member)[head.start :])


def _load_later(name: str, head: Head, read: Callable[[], bytes]) -> LoadedTensor:
    def load() -> npt.NDArray[Any]:
        array = np.frombuffer(read(), head.dtype)
        return _own(shaped(array, head.shape, order="F" if head.columns else "C"), head.kind)

    return LoadedTensor(
        name, head.shape, head.kind, load, nbytes=math.prod(head.shape) * head.dtype.itemsize
    )


def _own(array: npt.NDArray[Any], kind: DataType) -> npt.NDArray[Any]:
    """Return an array of memory of its own, in native byte order; strings as we have them."""
    if kind == DataType.DT_STRING:
        return strings_of(array)
    own: npt.NDArray[Any] = np.array(array, array.dtype.newbyteorder("="), order="C")
    return own


def strings_of(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return strings, however numpy holds them, as an object array of `bytes`."""
    out = allocate(array.shape, np.dtype(object))
    flat = out.reshape(-1)
    if array.dtype.names:
        texts, lengths = array[STRING_FIELD], array[LENGTH_FIELD]
        width = texts.dtype.itemsize
        if ((lengths < 0) | (lengths > width)).any():
            raise MalformedError(f"Expected lengths of 0 to {width} bytes for strings of {width}")
        pairs = zip(texts.reshape(-1).tolist(), lengths.reshape(-1).tolist(), strict=True)
        # numpy drops the NULs at the end; the length tells how many there were.
        flat[:] = [text.ljust(length, b"\0")[:length] for text, length in pairs]
    elif array.dtype.kind == "U":
        flat[:] = _encoded(array)
    else:
        values = array.reshape(-1).tolist()
        if str in set(map(type, values)):
            values = [
                text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
                for text in values
            ]
        flat[:] = values
    return out


def _encoded(texts: npt.NDArray[Any]) -> list[bytes]:
    """Return texts as UTF-8.

    Raises:
        MalformedError: A character is none, or half of one.
    """
    highest = 0
    if texts.size and texts.dtype.itemsize:
        # Of what is no character numpy makes no text, and says so in many ways.
        words = np.ascontiguousarray(texts).reshape(-1).view(f"{texts.dtype.byteorder}u4")
        highest = int(words.max())
    try:
        if highest > sys.maxunicode:
            raise MalformedError(f"Expected characters up to 0x10ffff, found {highest:#x}")
        return [text.encode("utf-8", "surrogateescape") for text in texts.reshape(-1).tolist()]
    except UnicodeEncodeError as error:
        found = ord(error.object[error.start])
        raise MalformedError(f"Expected characters, found half of one, {found:#x}") from None
