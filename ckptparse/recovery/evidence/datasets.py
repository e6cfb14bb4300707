"""Datasets of an HDF5 file that do not lie there in one piece: chunked, compressed, compact.

h5py reads them, if it is installed; each is a file of its own here, of its elements in C order.
Nothing of it is read before something of its size is sought.
"""

from __future__ import annotations

import io
import mmap
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from typing import Any

import numpy as np

from ckptparse.errors import MalformedError, UnsupportedError
from ckptparse.files.memory import MemorySource
from ckptparse.files.storage import Source
from ckptparse.files.stream import SourceStream
from ckptparse.foreign import load_h5py
from ckptparse.limits import Limits

__all__ = ["DatasetSource", "iter_datasets"]

_MOST = 100_000
"""Datasets that are looked at."""
_DAMAGED = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError)
"""What h5py raises of damaged files."""


class DatasetSource:
    """The elements of one dataset, as the bytes of a file; read when first asked for."""

    gap = 0
    concurrency = None
    piece = 1 << 20

    def __init__(self, source: Source, name: str, size: int) -> None:
        """Take the file, the path of the dataset in it, and its size in bytes."""
        self.path = f"{source.path}:{name}"
        self.size = size
        self._file = source
        self._name = name

    @cached_property
    def _read(self) -> MemorySource:
        try:
            with load_h5py().File(io.BufferedReader(SourceStream(self._file)), "r") as file:
                dataset = file[self._name]
                order = dataset.dtype.newbyteorder("<")
                data = np.ascontiguousarray(dataset[()], order).tobytes()
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


def iter_datasets(source: Source, *, limits: Limits) -> Iterator[DatasetSource]:
    """Iterate over the datasets of numbers that only h5py can read.

    Nothing if it is not installed, or the file is damaged. Those that would take more than
    `Limits.decompressed_bytes` are left out.
    """
    found: list[DatasetSource] = []
    with suppress(UnsupportedError, *_DAMAGED):
        h5py = load_h5py()
        with h5py.File(io.BufferedReader(SourceStream(source)), "r") as file:

            def add(name: str, item: Any) -> object:
                if isinstance(item, h5py.Dataset) and _is_packed(item):
                    size = int(item.size) * item.dtype.itemsize
                    if 0 < size <= limits.decompressed_bytes:
                        found.append(DatasetSource(source, name, size))
                return True if len(found) >= _MOST else None

            file.visititems(add)
    yield from found


def _is_packed(dataset: Any) -> bool:
    """Tell whether a dataset holds numbers that do not lie in one piece of the file."""
    return dataset.dtype.kind in "iufcb" and dataset.id.get_offset() is None
