"""The jobs of the benchmark that concern recovery: each method on a known amount of bytes.

python scripts/benchmark.py recover
python scripts/benchmark.py search-grid hopeless
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["PREPARED"]

SHARD = ".data-00000-of-00001"
MIB = 1 << 20
Work = Callable[[str], Any]


def mapped(path: str, size: int | None = None) -> memoryview:
    """Map a data file, or the start of one."""
    file = os.open(path + SHARD, os.O_RDONLY)
    whole = os.fstat(file).st_size
    view = memoryview(mmap.mmap(file, whole, access=mmap.ACCESS_READ))
    os.close(file)
    return view[: whole if size is None else size]


def search_grid() -> Work:
    """Search 1 GiB on the grid of 4 KiB, four places of a block, 200 sizes together."""
    from ckptparse.crc.grid import GridRegisters
    from ckptparse.crc.windows import Wanted
    from ckptparse.files.local import LOCAL

    rng = np.random.default_rng(0)
    sizes = 1024 * rng.integers(4, 4096, 200)
    wanted = [Wanted(int(size), int(rng.integers(2**32))) for size in sizes]

    def work(path: str) -> object:
        registers = GridRegisters(4096, range(0, 4096, 1024))
        image = LOCAL.open(path + SHARD)
        registers.extend_from(image.read_into, 0, image.size)
        return registers.find_each(wanted)

    return work


def search_words() -> Work:
    """Search 64 MiB at steps of 4 bytes, ten sizes together."""
    from ckptparse.crc.search import Registers, Wanted

    rng = np.random.default_rng(0)
    sizes = 4 * rng.integers(1000, MIB, 10)
    wanted = [Wanted(int(size), int(rng.integers(2**32))) for size in sizes]
    return lambda path: Registers(mapped(path, 64 * MIB)).find_each(wanted)


def statistics() -> Work:
    """Judge 256 MiB of weights in sectors."""
    from ckptparse.dtypes import DataType
    from ckptparse.recovery.statistics import judge_elements

    return lambda path: judge_elements(mapped(path), DataType.DT_FLOAT)


def copies() -> Work:
    """Merge two copies of 64 MiB with ten bad sectors each."""
    from ckptparse.coding.checksum import crc32c
    from ckptparse.crc.copies import Copy, merge_copies

    def work(path: str) -> object:
        data = mapped(path, 64 * MIB)
        spoilt = [bytearray(data), bytearray(data)]
        for number, copy in enumerate(spoilt):
            for sector in range(number, 800, 80):
                copy[4096 * sector : 4096 * sector + 512] = bytes(512)
        merged = merge_copies([Copy(memoryview(copy)) for copy in spoilt], crc32c(data))
        if merged is None:
            raise SystemExit("the copies were not merged")
        return merged

    return work


def rebuild() -> Work:
    """Rebuild the index of 440 MB in 200 tensors from their shapes."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    from index_encoding import encode_index, entries_of

    import ckptparse
    from ckptparse.files.local import LocalSource
    from ckptparse.recovery.rebuild.fit import fit_layout
    from ckptparse.recovery.rebuild.shapes import layouts_of_shapes, parse_shapes

    def work(path: str) -> object:
        # Written in the order of the model: the shapes are given in that of the offsets.
        with ckptparse.open(path) as checkpoint:
            offsets = {name: tensor.location.offset for name, tensor in checkpoint.items()}
            shapes = {name: checkpoint[name].shape for name in sorted(offsets, key=offsets.get)}
        with LocalSource.open(path + SHARD) as source:
            layouts = layouts_of_shapes(parse_shapes(shapes), [source.size])
            fit = [fit_layout(layout, [source]) for layout in layouts][-1]
            return encode_index(entries_of(fit, [source]), 1)

    return work


def hopeless() -> Work:
    """Recover a checkpoint of 100 MB whose data file is noise: nothing is to be had."""
    import ckptparse

    return ckptparse.recover


def checksum() -> Work:
    """Compute one checksum over the file: the bare limit of all that reads every byte."""
    from crc32c import crc32c

    return lambda path: crc32c(mapped(path))


PREPARED: dict[str, tuple[str, str, Callable[[], Work]]] = {
    "search-grid": ("search 1 GiB on the grid of 4 KiB for 200 sizes", "large", search_grid),
    "search-words": ("search 64 MiB at steps of 4 bytes for ten sizes", "large", search_words),
    "statistics": ("judge 256 MiB of weights by statistics", "weights", statistics),
    "copies": ("merge two copies of 64 MiB", "weights", copies),
    "rebuild": ("rebuild the index of 440 MB in 200 tensors", "bert", rebuild),
    "hopeless": ("recover: nothing to be had in 100 MB", "noise", hopeless),
}
"""Name -> title, input, and what prepares the work."""
