"""The sectors of data files: so bytes are found whose sectors lie in another order.

The stripes of an array of disks may be put together in a wrong order, or blocks of a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from ckptparse.examination.readers import DataFile, DataFiles
from ckptparse.recovery.statistics import SECTOR

__all__ = ["Sectors"]

_PIECE = 1 << 20
_MOST_BYTES = 1 << 30
"""Bytes of the data files that are looked at; of larger ones nothing is known."""
_LEAST = 2
"""Sectors of a tensor, at least."""
_FACTORS = np.multiply.accumulate(np.full(SECTOR // 8, 0x9E3779B97F4A7C15, np.uint64))
"""What the words of a sector are multiplied by: the sum stands for it."""

Words = npt.NDArray[np.uint64]


class Sectors:
    """The sectors of some files, each known by a number of 64 bits."""

    def __init__(self, files: DataFiles, paths: Iterable[str]) -> None:
        """Read the files once."""
        sizes = {path: files.size(DataFile(path)) or 0 for path in paths}
        known: list[Words] = [np.zeros(0, np.uint64)]
        if sum(sizes.values()) <= _MOST_BYTES:
            known += [
                found
                for path, size in sizes.items()
                for found in _iter_sums(files, DataFile(path), size)
            ]
        self._known = np.unique(np.concatenate(known))

    def hold(self, data: npt.NDArray[np.uint8], offset: int) -> bool:
        """Tell whether all sectors of some bytes are among them.

        Args:
            data: The bytes.
            offset: Where they belong in their file: sectors begin at its multiples of 512.
        """
        ahead = -offset % SECTOR
        wanted = _sums(data[ahead:])
        if len(wanted) < _LEAST or not len(self._known):
            return False
        places = np.minimum(np.searchsorted(self._known, wanted), len(self._known) - 1)
        return bool((self._known[places] == wanted).all())


def _iter_sums(files: DataFiles, file: DataFile, size: int) -> Iterator[Words]:
    for start in range(0, size, _PIECE):
        data = files.read(file, start, min(_PIECE, size - start))
        yield _sums(np.frombuffer(data, np.uint8))


def _sums(data: npt.NDArray[np.uint8]) -> Words:
    """Return what stands for each whole sector; of a fill nothing does, since it lies anywhere."""
    rows = data[: len(data) // SECTOR * SECTOR].reshape(-1, SECTOR)
    words = np.ascontiguousarray(rows).view(np.uint64)
    varied = (words[:, 1:] != words[:, :1]).any(axis=1)
    sums: Words = (words[varied] * _FACTORS).sum(axis=1, dtype=np.uint64)
    return sums
