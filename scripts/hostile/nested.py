"""Archives, HDF5 files and directories: files in files, in pieces, as many as a limit allows."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import builder as b
import graph_builder as g
import numpy as np

from ckptparse.limits import DEFAULT_LIMITS, most_members
from hostile import named

__all__ = ["KINDS"]

LEAST = 16
"""Fewest entries, however small the input."""


def _fitting(size: int, entry: int, *, weight: float = 1) -> int:
    """Return how many entries of so many bytes fit, but no more than are allowed as members."""
    return max(LEAST, min(size // entry, int((most_members(DEFAULT_LIMITS, size) - 20) / weight)))


def _pad(path: Path, size: int) -> None:
    """Fill a directory up to a size."""
    held = sum(one.stat().st_size for one in path.iterdir() if one.is_file())
    (path / "padding").write_bytes(bytes(max(0, size - held)))


def _zip(directory: Path, size: int, name: str, members: Iterable[tuple[str, bytes]]) -> Path:
    """Write a zip archive of members, and of noughts up to the size."""
    path = directory / name
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in members:
            archive.writestr(member, data)
        left = size - archive.fp.tell() - 120 * len(archive.filelist)  # type: ignore[union-attr]
        archive.writestr("padding.npy", _npy(np.zeros(max(0, left // 4), np.float32)))
    return path


def _npy(value: np.ndarray[Any, Any]) -> bytes:
    held = io.BytesIO()
    np.lib.format.write_array(held, value)
    return held.getvalue()


def _hdf5(path: Path | io.BytesIO) -> Any:
    import h5py

    return h5py.File(path, "w", libver="latest")


# ---- as many as are allowed


def zip_allowed(directory: Path, size: int) -> Path:
    """A zip archive of as many indexes of checkpoints as are allowed."""
    index = b.Bundle().index()
    count = _fitting(size, 200 + len(index))
    return _zip(directory, size, "m.zip", ((f"m{n:05}.index", index) for n in range(count)))


def zip_deep_allowed(directory: Path, size: int) -> Path:
    """The same below many directories each, none of which has another."""
    count = _fitting(size, 400)
    names = (f"{n:05}/" + "a/" * 60 + "m.index" for n in range(count))
    return _zip(directory, size, "m.zip", ((name, b"") for name in names))


def npz_allowed(directory: Path, size: int) -> Path:
    """An npz file of as many scalars as are allowed."""
    one = _npy(np.array(np.float32(1)))
    return _zip(directory, size, "m.npz", ((f"w{n}.npy", one) for n in range(_fitting(size, 300))))


def safetensors_allowed(directory: Path, size: int) -> Path:
    """A safetensors file of as many scalars as are allowed, and of one more tensor."""
    count = _fitting(size, 64, weight=0.5)
    parts = [
        f'"w{n}":{{"dtype":"F32","shape":[],"data_offsets":[{4 * n},{4 * n + 4}]}}'
        for n in range(count)
    ]
    start = 4 * count
    large = max(1, (size - 56 * count) // 4)
    place = f"[{start},{start + 4 * large}]"
    parts.append(f'"padding":{{"dtype":"F32","shape":[{large}],"data_offsets":{place}}}')
    header = ("{" + ",".join(parts) + "}").encode()
    path = directory / "m.safetensors"
    path.write_bytes(b.fixed64(len(header)) + header + bytes(start + 4 * large))
    return path


def _hdf5_of(fill: Callable[[Any, int], None]) -> Callable[[Path, int], Path]:
    def make(directory: Path, size: int) -> Path:
        path = directory / "m.h5"
        with _hdf5(path) as file:
            fill(file, size)
            left = (size - path.stat().st_size) // 4
            if left > 0:
                file["padding"] = np.zeros(left, np.float32)
        return path

    make.__name__ = fill.__name__
    return make


@_hdf5_of
def hdf5_groups_allowed(file: Any, size: int) -> None:
    """As many groups as are allowed."""
    for number in range(_fitting(size, 200, weight=1.5)):
        file.create_group(f"g{number}")


@_hdf5_of
def hdf5_scalars_allowed(file: Any, size: int) -> None:
    """As many scalars as are allowed."""
    for number in range(_fitting(size, 320, weight=1.5)):
        file[f"w{number}"] = np.float32(1)


@_hdf5_of
def hdf5_packed_allowed(file: Any, size: int) -> None:
    """As many datasets as are allowed that are packed."""
    values = np.arange(20, dtype=np.float32)
    for number in range(_fitting(size, 600, weight=8.5)):
        file.create_dataset(f"w{number}", data=values, chunks=(20,), compression="gzip")


@_hdf5_of
def hdf5_attributes_allowed(file: Any, size: int) -> None:
    """As many attributes as are allowed, and then datasets."""
    for number in range(_fitting(size, 200, weight=4)):
        file.attrs[f"a{number}"] = "a"
    for number in range(_fitting(size, 600, weight=8.5)):
        file.create_dataset(f"w{number}", data=np.zeros(20, np.bool_))


@_hdf5_of
def hdf5_pieces_allowed(file: Any, size: int) -> None:
    """One dataset of as many pieces as are allowed, each packed."""
    count = _fitting(size, 40, weight=0.34)
    values = np.arange(count * 4, dtype=np.int8)
    file.create_dataset("w", data=values, chunks=(4,), compression="gzip")


# ---- HDF5, in pieces


@_hdf5_of
def hdf5_pieces(file: Any, size: int) -> None:
    """One dataset in pieces of a byte."""
    count = size // 9
    file.create_dataset("w", (count,), np.int8, chunks=(1,))[...] = 1


@_hdf5_of
def hdf5_pieces_unstored(file: Any, size: int) -> None:
    """One dataset in a hundred million pieces of a byte, of which none is there."""
    file.create_dataset("w", (100 * size,), np.int8, chunks=(1,))


@_hdf5_of
def hdf5_pieces_of_all_axes(file: Any, size: int) -> None:
    """One dataset of many dimensions, in pieces of a byte."""
    axes = size.bit_length()
    file.create_dataset("w", (2,) * axes, np.int8, chunks=(1,) * axes)


@_hdf5_of
def hdf5_piece_bomb(file: Any, size: int) -> None:
    """Pieces of 64 KiB that unpack to a thousand times what is stored."""
    made = file.create_dataset("w", (size,), np.int8, chunks=(1 << 16,), compression="gzip")
    bomb = zlib.compress(bytes(1 << 26))
    for start in range(0, size, 1 << 16):
        made.id.write_direct_chunk((start,), bomb)


@_hdf5_of
def hdf5_lzf(file: Any, size: int) -> None:
    """Pieces that LZF stores at two bytes for each."""
    half = size // 2 >> 13 << 13
    made = file.create_dataset("w", (half,), np.int8, chunks=(1 << 13,), compression="lzf")
    for start in range(0, half, 1 << 13):
        # Of more than the piece itself nothing is stored.
        made.id.write_direct_chunk((start,), b"\0\0" * (1 << 12) + b"\xe0\xff\0" * 15)


@_hdf5_of
def hdf5_strings(file: Any, size: int) -> None:
    """One dataset of strings of one byte."""
    file["w"] = np.full(size, b"a", "S1")


@_hdf5_of
def hdf5_long_strings(file: Any, size: int) -> None:
    """One dataset of strings of any length, all empty."""
    import h5py

    file.create_dataset("w", (size // 16,), h5py.string_dtype())[...] = ""


# ---- files in files


def _members(make: Callable[[int], bytes], end: str, entry: int) -> Callable[[Path, int], Path]:
    """A zip archive of small files of one kind, as many as are allowed."""

    def write(directory: Path, size: int) -> Path:
        # In another archive each counts as some members: so many as if it were no archive.
        count = _fitting(size, entry)
        made = ((f"m{n:05}.{end}", make(n)) for n in range(count))
        return _zip(directory, size, "m.zip", made)

    return write


def _small_hdf5(number: int) -> bytes:
    held = io.BytesIO()
    with _hdf5(held) as file:
        file.attrs["number"] = number
    return held.getvalue()


def _small_zip(number: int) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr(f"{number}", b"a")
    return held.getvalue()


def _small_text(number: int) -> bytes:
    return b'node{name:"%d" op:"NoOp"}' % number


def _small_safetensors(number: int) -> bytes:
    header = b'{"w":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}'
    return b.fixed64(len(header)) + header + b.fixed32(number)


def _small_flatbuffer(number: int) -> bytes:
    return b.fixed32(number) + b"TFL3" + b.fixed32(8000)


_IN_ZIP: dict[str, tuple[Callable[[int], bytes], int]] = {
    "h5": (_small_hdf5, 600),
    "zip": (_small_zip, 260),
    "gz": (lambda number: gzip.compress(b"%d" % number), 160),
    "xz": (lambda number: lzma.compress(b"%d" % number, preset=0), 200),
    "bz2": (lambda number: bz2.compress(b"%d" % number), 180),
    "pbtxt": (_small_text, 160),
    "safetensors": (_small_safetensors, 200),
    "tflite": (_small_flatbuffer, 140),
    "npy": (lambda number: _npy(np.array(np.float32(number))), 260),
    "pb": (lambda number: g.graph([g.node(f"n{number}", "NoOp")]), 160),
}


def _streams(end: str, one: bytes) -> Callable[[Path, int], Path]:
    """An index that is packed, and then streams without bytes."""

    def write(directory: Path, size: int) -> Path:
        packed = {"xz": lzma.compress, "bz2": bz2.compress}
        made = b.Bundle()
        made.add("w", np.float32(1))
        index = packed[end](made.index()) if end in packed else one
        path = directory / f"m.index.{end}"
        path.write_bytes(index + one * (size // len(one)))
        return path

    return write


# ---- directories


def folder_in_folder(directory: Path, size: int) -> Path:
    """Directories in directories, each with a small file."""
    here = Path.cwd()
    os.chdir(directory)
    for number in range(max(LEAST, min(1500, size // 4096))):
        Path("f.index").write_bytes(b"%d" % number)
        Path("a").mkdir()
        os.chdir("a")
    os.chdir(here)
    _pad(directory, size)
    return directory


def folder_of_links(directory: Path, size: int) -> Path:
    """Links from a directory to itself."""
    for number in range(20):
        (directory / f"link{number}").symlink_to(".")
    _pad(directory, size)
    return directory


def folder_of_empty_folders(directory: Path, size: int) -> Path:
    """Directories without files."""
    for number in range(max(LEAST, size // 400)):
        (directory / f"{number}").mkdir()
    _pad(directory, size)
    return directory


def folder_of_unknown(directory: Path, size: int) -> Path:
    """Files of no kind, as many as are looked at."""
    count = max(LEAST, size // 1024)
    for number in range(count):
        (directory / f"f{number:05}").write_bytes(np.random.default_rng(number).bytes(1000))
    return directory


def model_of_files(directory: Path, size: int) -> Path:
    """A SavedModel with assets, and data files that its index does not know, without end."""
    count = max(LEAST, min(10_000, size // 300))
    for name in ("assets", "assets.extra", "variables"):
        (directory / name).mkdir()
    for number in range(count):
        (directory / "assets" / f"vocab{number}.txt").touch()
        (directory / "assets.extra" / f"{number}").touch()
        (directory / "variables" / f"variables.data-{number:05}-of-99999").touch()
    made = b.Bundle()
    made.add("w", np.float32(1))
    made.write(directory / "variables" / "variables")
    graph = b.field(2, g.graph([g.node("n", "NoOp")]))
    (directory / "saved_model.pb").write_bytes(b.field(1, 1) + b.field(2, graph))
    _pad(directory, size)
    return directory


KINDS = {
    **named(
        zip_allowed,
        zip_deep_allowed,
        npz_allowed,
        safetensors_allowed,
        hdf5_groups_allowed,
        hdf5_scalars_allowed,
        hdf5_packed_allowed,
        hdf5_attributes_allowed,
        hdf5_pieces_allowed,
        hdf5_pieces,
        hdf5_pieces_unstored,
        hdf5_pieces_of_all_axes,
        hdf5_piece_bomb,
        hdf5_lzf,
        hdf5_strings,
        hdf5_long_strings,
    ),
    **{f"zip of {end}": _members(make, end, entry) for end, (make, entry) in _IN_ZIP.items()},
    "xz streams": _streams("xz", lzma.compress(b"")),
    "bz2 streams": _streams("bz2", bz2.compress(b"")),
    "zstd frames": _streams("zst", b"\x50\x2a\x4d\x18\0\0\0\0"),
    **named(
        folder_in_folder,
        folder_of_links,
        folder_of_empty_folders,
        folder_of_unknown,
        model_of_files,
    ),
}
