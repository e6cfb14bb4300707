"""Checkpoints beside others, which say the same of their tensors, and much evidence."""

from __future__ import annotations

from pathlib import Path

import builder as b
import numpy as np

from hostile import named
from hostile.tables import DATA, ENTRY_BYTES

__all__ = ["KINDS"]


def _two_saves(directory: Path, size: int, *, block: int, header: bool) -> Path:
    """Write two saves of the same tensors; of the first one all data and an index block is lost."""
    made = b.Bundle()
    for number in range(size // 2 // (ENTRY_BYTES + 8)):
        made.add(f"w{number:07}", np.float32(number))
    first = made.write(directory / "m-1", block_size=block)
    made.write(directory / "m-2", block_size=block)
    data = Path(first + ".data-00000-of-00001")
    data.write_bytes(bytes(byte ^ 0x55 for byte in data.read_bytes()))
    index = Path(first + ".index")
    held = bytearray(index.read_bytes())
    at = 1000 if header else len(held) // 2
    held[at : at + 10] = b"\xff" * 10
    index.write_bytes(held)
    return Path(first)


def torn_index(directory: Path, size: int) -> Path:
    """Lose one block of an index of which all others are another save's, too."""
    return _two_saves(directory, size, block=4096, header=False)


def torn_index_of_large_blocks(directory: Path, size: int) -> Path:
    """The same, with blocks as large as a writer makes them."""
    return _two_saves(directory, size, block=1 << 18, header=False)


def index_without_header(directory: Path, size: int) -> Path:
    """Lose the header, beside another save of the same."""
    return _two_saves(directory, size, block=4096, header=True)


def many_files(directory: Path, size: int) -> Path:
    """As many files as bytes allow, with nothing in them, as evidence beside a checkpoint."""
    return _files(directory, size, b"", each=16)


def many_small_files(directory: Path, size: int) -> Path:
    """Files of a few bytes each, as evidence."""
    return _files(directory, size, DATA[:64], each=64 + 16)


def many_data_files(directory: Path, size: int) -> Path:
    """Files that are named as copies of a data file are."""
    return _files(directory, size, DATA[:64], each=64 + 40, name="m{:06}.data-00000-of-00001")


def many_folders(directory: Path, size: int) -> Path:
    """Folders of one file each."""
    return _files(directory, size, b"x", each=16, name="{:06}/a")


def many_links(directory: Path, size: int) -> Path:
    """Links that lead to each other's folders."""
    made = directory / "made"
    made.mkdir()
    (made / "file").write_bytes(DATA)
    for number in range(size // 64):
        (made / f"link{number:06}").symlink_to(made if number % 2 else made / "file")
    return made


def _files(directory: Path, size: int, data: bytes, *, each: int, name: str = "f{:06}.bin") -> Path:
    made = directory / "made"
    made.mkdir()
    for number in range(min(100_000, size // each)):
        path = made / name.format(number)
        if "/" in name:
            path.parent.mkdir()
        path.write_bytes(data)
    return made


KINDS = named(
    torn_index,
    torn_index_of_large_blocks,
    index_without_header,
    many_files,
    many_small_files,
    many_data_files,
    many_folders,
    many_links,
)
