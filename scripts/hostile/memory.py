"""Names that take far more in memory than in their file, and files that are many objects."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import builder as b
import h5py
import numpy as np

import ckptparse
from hostile import named
from hostile.files import _safetensors, _save
from hostile.tables import DATA, WRONG, write

__all__ = ["KINDS"]


def _pairs(size: int, each: int, stem: bytes, crc: int | None = None) -> Iterable[b.Pair]:
    """Pairs of scalars that take about `each` bytes of an index, and lie end to end."""
    for number in range(size // each):
        at = number * 4 % (len(DATA) // 2)
        made = b.masked_crc(DATA[at : at + 4]) if crc is None else crc
        entry = b.Entry(b.FLOAT, (), offset=at, size=4, crc=made)
        yield stem + b"%08d" % number, entry.to_bytes()


def _stem(length: int) -> bytes:
    return b"a/" * (length // 2)


def sound_deep_names(directory: Path, size: int) -> Path:
    """Names of 1,000 bytes which share all but the last ones, of tensors that are whole."""
    return write(directory, _pairs(size, 85, _stem(1000)))


def deeper_names(directory: Path, size: int) -> Path:
    """Names of 12 KB which share all but the last ones."""
    return write(directory, _pairs(size, 790, _stem(12_000)))


def one_run(directory: Path, size: int) -> Path:
    """Keys without full ones among them: the square of their number."""
    head = b"a" * 200
    pairs = (
        (head + bytes([*n.to_bytes(3, "big")]), entry)
        for n, (_, entry) in enumerate(_pairs(size, 22, b""))
    )
    return write(directory, pairs, restart_interval=1 << 30)


def one_block_of_names(directory: Path, size: int) -> Path:
    """All entries in one block, whose keys are 16 times as long as it is."""
    return write(directory, _pairs(size, 85, _stem(1000)), block_size=1 << 40)


def one_block_of_entries(directory: Path, size: int) -> Path:
    """All entries in one block, and as many of them as fit."""
    return write(directory, _pairs(size, 24, b""), block_size=1 << 40)


def two_with_many_names(directory: Path, size: int) -> Path:
    """Two checkpoints of small tensors that are all different: for `beside`."""
    second = directory / "second"
    second.mkdir()
    write(second, _pairs(size // 2, 24, b"", WRONG))
    return write(directory, _pairs(size // 2, 24, b""))


def two_with_other_names(directory: Path, size: int) -> Path:
    """Two checkpoints of long names that are all different: for `beside`."""
    second = directory / "second"
    second.mkdir()
    write(second, _pairs(size // 2, 85, b"b" + _stem(1000), WRONG))
    return write(directory, _pairs(size // 2, 85, _stem(1000)))


def long_name_of_slices(directory: Path, size: int) -> Path:
    """A tensor with a name of a quarter of the file in 4,000 slices: each key repeats the name."""
    slices = b.split_rows(4000, 4000, 1)
    name = b"n" * (size // 2)
    entry = b.Entry(b.FLOAT, (4000,), slices=tuple(slices)).to_bytes()
    return write(directory, [(name, entry)])


def stored_long_slices(directory: Path, size: int) -> Path:
    """The same, and the slices are stored: their keys share the name."""
    count = 4000
    name = "n" * (size // 300)
    made = b.Bundle()
    made.add_sliced(name, np.arange(count, dtype=np.float32), b.split_rows(count, count, 1))
    return Path(made.write(directory / "m"))


def hdf5_deep_names(directory: Path, size: int) -> Path:
    """An HDF5 file of groups with long names, one in another, with a dataset in each."""
    path = directory / "m.h5"
    with h5py.File(path, "w", libver="latest") as file:
        group = file
        length = min(60_000, size // 900)
        for _ in range(min(800, size // (length + 600))):
            group = group.create_group("g" * length)
            group.create_dataset("d", data=np.float32(1))
    return path


def hdf5_datasets_below(directory: Path, size: int) -> Path:
    """An HDF5 file of groups with long names, one in another, and many datasets in the last."""
    path = directory / "m.h5"
    with h5py.File(path, "w", libver="latest") as file:
        group = file
        for _ in range(max(1, min(600, size // 2 // 60_000))):
            group = group.create_group("g" * 60_000)
        for number in range(min(4_000, size // 600)):
            group.create_dataset(f"d{number}", data=np.float32(1))
    return path


def safetensors_lists(directory: Path, size: int) -> Path:
    """A safetensors file whose header is empty lists."""
    return _safetensors(directory, b'{"w":[' + b"[]," * (size // 3) + b"[]]}")


def safetensors_strings(directory: Path, size: int) -> Path:
    """A safetensors file whose header is short strings, one of them with a wide character."""
    return _safetensors(directory, b'{"w":["\xf0\x9f\x98\x80",' + b'"ab",' * (size // 5) + b"0]}")


def safetensors_numbers(directory: Path, size: int) -> Path:
    """A safetensors file whose header is numbers."""
    return _safetensors(directory, b'{"w":[' + b"999," * (size // 4) + b"0]}")


def _report(directory: Path, size: int, **asked: object) -> Path:
    """A report of a recovery without its data file, of which something else was asked, too."""
    prefix = str(_save(directory / "m"))
    (directory / "m.data-00000-of-00001").unlink()
    told = {"report": ckptparse.recover(prefix, hashes=True).report.to_dict()}
    told["report"]["options"].update(asked)
    path = directory / "report.json"
    path.write_text(json.dumps(told).ljust(size))
    return path


def report_of_evidence(directory: Path, size: int) -> Path:
    """A report that names one prefix of a directory in all ways to write it, as evidence."""
    count = 10_000 + (size >> 10) - 10
    ways = ("".join("/." if n >> bit & 1 else "/" for bit in range(16)) for n in range(count))
    for number in range(size // 400):
        (directory / f"m-{number}.index").touch()
    return _report(directory, size, evidence=[f"{directory}{way}/m" for way in ways])


def report_of_files(directory: Path, size: int) -> Path:
    """A report that names many prefixes of one directory as evidence."""
    prefixes = [f"m-{number}" for number in range(size // 400)]
    for name in prefixes:
        (directory / f"{name}.index").touch()
    evidence = [f"{directory}/{name}" for name in prefixes[: 10_000 + (size >> 10) - 10]]
    return _report(directory, size, evidence=evidence)


def report_of_shapes(directory: Path, size: int) -> Path:
    """A report that names shapes for which there is nothing."""
    return _report(directory, size, shapes={f"{n}": [] for n in range(20_000 + size // 40 - 10)})


KINDS = named(
    sound_deep_names,
    deeper_names,
    one_run,
    one_block_of_names,
    one_block_of_entries,
    two_with_many_names,
    two_with_other_names,
    long_name_of_slices,
    stored_long_slices,
    hdf5_deep_names,
    hdf5_datasets_below,
    safetensors_lists,
    safetensors_strings,
    safetensors_numbers,
    report_of_evidence,
    report_of_files,
    report_of_shapes,
)
