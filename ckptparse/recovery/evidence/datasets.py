"""Datasets of an HDF5 file, if h5py is installed.

Those that do not lie there in one piece (chunked, compressed, compact) are read by it: each is a
file of its own here, of its elements in C order, of which nothing is read before something of its
size is sought. Of those that do, it tells the names.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from typing import Any

import numpy as np

from ckptparse.errors import LimitError, MalformedError, UnsupportedError
from ckptparse.files.memory import MemorySource
from ckptparse.files.storage import Source
from ckptparse.files.views import JoinedSource, Range
from ckptparse.foreign import load_h5py
from ckptparse.limits import Limits, Members
from ckptparse.recovery.evidence.bounds import Note, ignore
from ckptparse.sources.hdf5_objects import iter_dataset_ids
from ckptparse.sources.hdf5_pieces import Packed, check_pieces, held_bytes
from ckptparse.sources.hdf5_stream import open_hdf5

__all__ = ["DatasetSource", "NamedDataset", "iter_datasets"]

_DAMAGED = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError)
"""What h5py raises of damaged files."""


class DatasetSource:
    """The elements of one dataset, as the bytes of a file; read when first asked for."""

    gap = 0
    concurrency = None
    piece = 1 << 20

    def __init__(self, source: Source, name: str, size: int, opened: Any) -> None:
        """Take the file, the path of the dataset in it, its size in bytes, and the open file.

        That may be closed before the dataset is read: it is opened again then.
        """
        self.path = f"{source.path}:{name}"
        self.size = size
        self._file = source
        self._name = name
        self._opened = opened

    @cached_property
    def _read(self) -> MemorySource:
        try:
            if self._opened:
                data = _bytes_of(self._opened[self._name])
            else:
                with _open(self._file) as file:
                    data = _bytes_of(file[self._name])
        except _DAMAGED as error:
            raise MalformedError(f"The dataset cannot be read: {error}", path=self.path) from error
        if len(data) != self.size:
            raise MalformedError("The dataset has changed its size", path=self.path)
        return MemorySource(self.path, data)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes at `offset`."""
        return self._read.read_at(offset, size)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer with the bytes at `offset`."""
        self._read.read_into(offset, buffer)

    def map(self) -> mmap.mmap | None:
        """Return None: it is not mapped."""
        return None

    def close(self) -> None:
        """Do nothing: the file is closed by whoever opened it."""

    def within(self, source: Source) -> DatasetSource:
        """Return the same dataset of the file, opened again."""
        return DatasetSource(source, self._name, self.size, None)


class NamedDataset(JoinedSource):
    """A dataset that lies in one piece of the file."""

    __slots__ = ("file", "offset")

    def __init__(self, source: Source, name: str, offset: int, size: int) -> None:
        """Take the file, the path of the dataset in it, and where it lies."""
        super().__init__(f"{source.path}:{name}", [Range(source, offset, size)])
        self.file = source
        self.offset = offset


def _open(source: Source) -> Any:
    return open_hdf5(load_h5py(), source)


def _bytes_of(dataset: Any) -> bytes:
    check_pieces(load_h5py(), dataset.id)
    order = dataset.dtype.newbyteorder("<")
    return np.ascontiguousarray(dataset[()], order).tobytes()


def iter_datasets(
    source: Source, *, limits: Limits, members: Members | None = None, note: Note = ignore
) -> Iterator[DatasetSource | NamedDataset]:
    """Iterate over the datasets of numbers, those first that only h5py can read.

    Nothing if it is not installed, or the file is damaged. Those that would take more than
    `Limits.decompressed_bytes` are left out, and those beyond `Limits.members`.

    Args:
        source: The file.
        limits: The bounds.
        members: Counts groups and datasets, if the file is a member of another.
        note: Is told what is left out.
    """
    members = members or Members(limits, source.size)
    try:
        with _open(source) as file:
            packed, named = _list_datasets(source, file, limits, members, note)
            for name, size in packed:
                yield DatasetSource(source, name, size, file)
        yield from named
    except (UnsupportedError, LimitError) as error:
        note(error.message)
    except (MalformedError, *_DAMAGED):
        return


def _list_datasets(
    source: Source, file: Any, limits: Limits, members: Members, note: Note
) -> tuple[list[tuple[str, int]], list[NamedDataset]]:
    """Return the datasets of numbers that only h5py can read, with their sizes, and the others."""
    h5py = load_h5py()
    bounds = Packed(h5py, source.size, members)
    packed, named = [], []
    try:
        for name, dataset in iter_dataset_ids(h5py, file, limits, members, size=source.size):
            # One of no shape is empty.
            if dataset.shape is None or dataset.dtype.kind not in "iufcb":
                continue
            offset, size = dataset.get_offset(), dataset.get_storage_size()
            if offset is not None:
                if offset <= source.size - size:
                    named.append(NamedDataset(source, name, offset, size))
                continue
            with suppress(UnsupportedError):
                bounds.take(dataset)
                size = math.prod(map(int, dataset.shape)) * dataset.dtype.itemsize
                if held_bytes(h5py, dataset, size) > limits.decompressed_bytes:
                    note(
                        f"a dataset has more bytes than Limits.decompressed_bytes "
                        f"({limits.decompressed_bytes}) allows (raise the limit)"
                    )
                elif size:
                    packed.append((name, size))
    except LimitError as error:
        # What was listed before is no less than it is.
        note(error.message)
    return packed, named
