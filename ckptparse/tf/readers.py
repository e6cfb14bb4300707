"""Readers as TensorFlow has them, and those that are kept open from call to call.

`load_variable` opens the checkpoint at each call in TensorFlow, and converters call it in a loop.
Here a reader is used again as long as its files have the size and the time that they had.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from ckptparse.backend import Backend
from ckptparse.dtypes import describe_data_type
from ckptparse.errors import TensorNotFoundError, UnsupportedError, name_not_found
from ckptparse.filenames import INDEX_SUFFIX, STATE_FILE_NAME
from ckptparse.files.context import Cache, Context, Place, Store, begin
from ckptparse.files.storage import FileStat, Storage
from ckptparse.inventory.places import choose_strictly
from ckptparse.limits import DEFAULT_LIMITS, Limits
from ckptparse.locks import make_lock
from ckptparse.opening import open_inventory
from ckptparse.tensor import ReadOptions
from ckptparse.tf.dtypes import DType
from ckptparse.tf.errors import translated

__all__ = ["CheckpointReader", "Path", "begin_call", "find_begun", "find_reader"]

Path = Place | bytes | os.PathLike[bytes]

_Key = tuple[str, str | None, Limits]
"""By what a reader is found again: the path as it was given, directory of `cache`, limits."""

_OPTIONS = ReadOptions(verify=True, mmap=False, threads=None)
_MOST_READERS = 4
"""Readers that are kept open: a script reads one checkpoint, or compares a few."""
_MOST_STAMPED = 16
"""Files of a checkpoint whose size and time are looked at, of more the first and the last ones."""


class CheckpointReader:
    """A reader of one checkpoint: names, shapes, types and values, as TensorFlow gives them.

    The object graph is a tensor here (`_CHECKPOINTABLE_OBJECT_GRAPH`), as it is in TensorFlow.
    """

    def __init__(self, path: str, backend: Backend) -> None:
        """Take an open checkpoint; `NewCheckpointReader` opens one by its path."""
        self._path = path
        self._backend = backend

    @property
    def files(self) -> tuple[str, ...]:
        """Every path that the checkpoint consists of, there or not."""
        return self._backend.files

    def get_variable_to_shape_map(self) -> dict[str, list[int]]:
        """Return the shape of every tensor, as a list, by name."""
        with translated():
            return {name: list(shape) for name, shape in self._shapes.items()}

    def get_variable_to_dtype_map(self) -> dict[str, DType]:
        """Return the kind of element of every tensor, by name.

        Raises:
            UnimplementedError: TensorFlow does not know the kind of a tensor; a TypeError, too.
        """
        with translated(TypeError):
            return {name: self._kind_of(name, kind) for name, kind in self._kinds.items()}

    def has_tensor(self, tensor_str: str | bytes) -> bool:
        """Tell whether there is a tensor of exactly that name.

        Raises:
            TypeError: The name is neither text nor bytes.
        """
        with translated():
            return _as_name(tensor_str) in self._shapes

    def get_tensor(self, tensor_str: str | bytes) -> Any:
        """Read a tensor of exactly that name.

        Returns:
            A new numpy array; of a scalar numpy's scalar, of a scalar string its bytes.

        Raises:
            TypeError: The name is neither text nor bytes.
            NotFoundError: There is no such tensor.
            DataLossError: Its bytes are damaged, or its file is.
        """
        name = _as_name(tensor_str)
        with translated():
            tensor = self._backend.find(name, _OPTIONS)
            if tensor is None:
                raise self._not_found(name)
            array = tensor.read()
        return array[()] if array.shape == () else array

    def debug_string(self) -> bytes:
        """Return a line for each tensor: name, DataType, shape."""
        lines = (
            f"{name} ({describe_data_type(kind)}) [{','.join(map(str, self._shapes[name]))}]\n"
            for name, kind in self._kinds.items()
        )
        with translated():
            return "".join(lines).encode("utf-8", "surrogateescape")

    @cached_property
    def _shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self._backend.shapes()

    @cached_property
    def _kinds(self) -> dict[str, int]:
        found = self._backend.iter_tensors(_OPTIONS)
        return {tensor.name: int(tensor.data_type) for tensor in found}

    def _kind_of(self, name: str, kind: int) -> DType:
        try:
            return DType(kind)
        except TypeError as error:
            raise UnsupportedError(
                f"{kind} does not correspond to a valid DataType",
                path=self._path,
                tensor=name,
                hint="get_variable_to_shape_map lists it, and other tensors can be read",
            ) from error

    def _not_found(self, name: str) -> TensorNotFoundError:
        message = f"Key {name} not found in checkpoint"
        return name_not_found(message, name, self._shapes, path=self._path)

    def __repr__(self) -> str:
        return f"<CheckpointReader {self._path!r}>"


def begin_call(path: Path, store: Store, cache: Cache, limits: Limits) -> tuple[str, Context]:
    """Begin a call: return the path as text, and where it leads; errors are TensorFlow's too."""
    with translated():
        return begin(cast("Place", path), store=store, cache=cache, limits=limits)


def find_reader(
    path: Path, *, store: Store = None, cache: Cache = None, limits: Limits = DEFAULT_LIMITS
) -> CheckpointReader:
    """Return a reader of a checkpoint: of a prefix, any of its files, a V1 file, a directory.

    It may be one that is open already, if its files are as they were.

    Raises:
        NotFoundError: Nothing is there.
        DataLossError: It is damaged, or no checkpoint.
    """
    return find_begun(path, begin_call(path, store, cache, limits), store=store, cache=cache)


def find_begun(
    path: Path, begun: tuple[str, Context], *, store: Store, cache: Cache
) -> CheckpointReader:
    """Do what `find_reader` does, in a call that `begin_call` has begun."""
    if store is not None or not isinstance(path, (str, bytes, os.PathLike)):
        # Nobody says whether what a caller's store or file holds is as it was.
        return _open(*begun)[0]
    kept = os.fsdecode(path), None if cache is None else os.fsdecode(cache), begun[1].limits
    return _READERS.find(kept, *begun)


def _open(path: str, context: Context) -> tuple[CheckpointReader, tuple[str, ...]]:
    with translated():
        inventory = choose_strictly(path, context)
        _, backend = open_inventory(inventory, context)
        return CheckpointReader(inventory.checkpoint_path, backend), backend.files


@dataclass(frozen=True, slots=True)
class _Kept:
    """A reader, and what was seen of its files when it was opened."""

    reader: CheckpointReader
    seen: dict[str, object]


class _Readers:
    """The readers that were used last, each with what its files looked like."""

    def __init__(self) -> None:
        self._lock = make_lock()
        self._readers: OrderedDict[_Key, _Kept] = OrderedDict()

    def find(self, key: _Key, path: str, context: Context) -> CheckpointReader:
        storage = context.storage
        with self._lock:
            kept = self._readers.get(key)
            if kept is not None and _look_at(kept.seen, storage) == kept.seen:
                self._readers.move_to_end(key)
                return kept.reader
            # What a directory means may change while its checkpoints stay: it is looked at first.
            asked = (path, path + INDEX_SUFFIX, storage.join(path, STATE_FILE_NAME))
            seen = _look_at(asked, storage)
            reader, files = _open(path, context)
            seen |= _look_at(_chosen(files), storage)
            self._readers[key] = _Kept(reader, seen)
            self._readers.move_to_end(key)
            while len(self._readers) > _MOST_READERS:
                # Not closed: whoever has it may still read. Its files close when it is let go.
                self._readers.popitem(last=False)
            return reader


_READERS = _Readers()


def _chosen(files: tuple[str, ...]) -> tuple[str, ...]:
    if len(files) <= _MOST_STAMPED:
        return files
    return files[: _MOST_STAMPED // 2] + files[-_MOST_STAMPED // 2 :]


def _look_at(paths: Iterable[str], storage: Storage) -> dict[str, object]:
    """Return what is seen of files: size, time and number; nothing of what is not there."""
    with translated():
        return {path: _identity(storage.stat(path)) for path in paths}


def _identity(found: FileStat | None) -> object:
    if found is not None and found.kind == "file" and found.identity is None:
        return object()  # Nobody knows whether it changes: it equals nothing.
    return None if found is None else (found.kind, found.size, found.identity)


def _as_name(name: str | bytes) -> str:
    if isinstance(name, bytes):
        return name.decode("utf-8", "surrogateescape")
    if isinstance(name, str):
        return name
    raise TypeError(f"Expected binary or unicode string, got {name!r}")
