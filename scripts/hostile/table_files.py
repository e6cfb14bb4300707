"""V2 checkpoints: damaged blocks, lost files, large files of data."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import builder as b
import numpy as np

from hostile.tables import DATA, numbered, write

__all__ = ["KINDS"]

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


@cache
def _scalars(size: int) -> list[b.Pair]:
    def value(number: int) -> bytes:
        at = number * 4 % (len(DATA) - 4)
        return b.Entry(
            b.FLOAT, (), offset=at, size=4, crc=b.masked_crc(DATA[at : at + 4])
        ).to_bytes()

    return list(numbered(size, value))


@cache
def _sound_index(size: int, **options: Any) -> bytes:
    """An index of sound scalars: most kinds begin with the same one."""
    return b.table([(b"", b.Header().to_bytes(1)), *_scalars(size)], **options).data


def _harmed(harm: Callable[[bytearray], object], **options: Any) -> Callable[[Path, int], Path]:
    """Return a kind: an index of sound scalars, of which bytes are then changed."""

    def make(directory: Path, size: int) -> Path:
        data = bytearray(_sound_index(size, **options))
        harm(data)
        (directory / "m.index").write_bytes(data)
        (directory / "m.data-00000-of-00001").write_bytes(DATA)
        return directory / "m"

    return make


def _zero(step: int, length: int) -> Callable[[bytearray], None]:
    def harm(data: bytearray) -> None:
        for at in range(step // 2, len(data) - 200, step):
            data[at : at + length] = bytes(length)

    return harm


def _flip(step: int) -> Callable[[bytearray], None]:
    def harm(data: bytearray) -> None:
        for at in range(step // 2, len(data) - 200, step):
            data[at] ^= 0x10

    return harm


def _cut(data: bytearray) -> None:
    del data[len(data) * 9 // 10 :]


def _lose_footer(data: bytearray) -> None:
    del data[-48:]


def _lose_start(data: bytearray) -> None:
    del data[: len(data) // 10]


def _blank(data: bytearray) -> None:
    data[:] = bytes(len(data))


def _noise(data: bytearray) -> None:
    data[:] = np.random.default_rng(2).bytes(len(data))


def block_named_often(directory: Path, size: int) -> Path:
    """One block to which all of the index block leads."""
    pairs = [(b"", b.Header().to_bytes(1)), *_scalars(3000)]
    place = b.handle(0, len(b.block(pairs)))
    stored = b.Stored(b.block(pairs), key=b"z")
    made = b.assemble([stored], handles=[place] * (size // 10))
    (directory / "m.index").write_bytes(made.data)
    (directory / "m.data-00000-of-00001").write_bytes(DATA)
    return directory / "m"


def blocks_over_each_other(directory: Path, size: int) -> Path:
    """Blocks of which each begins a byte behind the one before."""
    pairs = [(b"", b.Header().to_bytes(1)), *_scalars(size // 2)]
    contents = b.block(pairs)
    handles = [b.handle(at, len(contents) - at) for at in range(min(size // 16, len(contents)))]
    made = b.assemble([b.Stored(contents, key=b"z")], handles=handles)
    (directory / "m.index").write_bytes(made.data)
    (directory / "m.data-00000-of-00001").write_bytes(DATA)
    return directory / "m"


def empty_blocks(directory: Path, size: int) -> Path:
    """Blocks of no entries."""
    stored = [b.Stored(b.EMPTY_BLOCK, key=b"%07d" % number) for number in range(size // 30)]
    (directory / "m.index").write_bytes(b.assemble(stored).data)
    (directory / "m.data-00000-of-00001").write_bytes(DATA)
    return directory / "m"


def restarts(directory: Path, size: int) -> Path:
    """Blocks that are nothing but places to start from."""
    contents = b.close_block(b.entry(b"a", b""), [0] * 2000)
    stored = [b.Stored(contents, key=b"%07d" % number) for number in range(size // len(contents))]
    (directory / "m.index").write_bytes(b.assemble(stored).data)
    (directory / "m.data-00000-of-00001").write_bytes(DATA)
    return directory / "m"


def bad_blocks(directory: Path, size: int) -> Path:
    """Blocks of a few entries each, whose checksums are wrong."""
    pairs = _scalars(size)
    groups = [pairs[at : at + 10] for at in range(0, len(pairs), 10)]
    stored = [b.Stored(b.block(group), crc=7, key=group[-1][0]) for group in groups]
    (directory / "m.index").write_bytes(b.assemble(stored).data)
    (directory / "m.data-00000-of-00001").write_bytes(DATA)
    return directory / "m"


def snappy_blocks(directory: Path, size: int) -> Path:
    """Compressed blocks of long names."""
    pairs = list(numbered(size, lambda number: b.Entry(size=4, offset=number * 4).to_bytes()))
    return write(directory, pairs, type=b.SNAPPY)


def snappy_zeros(directory: Path, size: int) -> Path:
    """Compressed blocks that grow to 20 times their size, of noughts."""
    contents = bytes(1 << 18)
    one = b.Stored(contents, b.SNAPPY)
    count = max(1, size // len(one.to_bytes()))
    stored = [b.Stored(contents, b.SNAPPY, key=b"%07d" % number) for number in range(count)]
    (directory / "m.index").write_bytes(b.assemble(stored).data)
    (directory / "m.data-00000-of-00001").write_bytes(DATA)
    return directory / "m"


def leftovers(directory: Path, size: int) -> Path:
    """Write data files of a save that was interrupted, without an index."""
    place = directory / "m_temp"
    place.mkdir()
    for number in range(size >> 10):
        (place / f"part-{number:05}-of-99999.data-00000-of-00001").write_bytes(DATA[:1000])
    return directory / "m"


def tempstates(directory: Path, size: int) -> Path:
    """Files of saves that were interrupted, beside a checkpoint."""
    for number in range(size >> 10):
        (directory / f"m.data-00000-of-00001.tempstate{number:020}").write_bytes(DATA[:1000])
    return write(directory, _scalars(1000))


def many_checkpoints(directory: Path, size: int) -> Path:
    """Fill a directory with many small checkpoints."""
    for number in range(size // 400):
        made = b.Bundle()
        made.add("w", np.full(20, number, np.float32))
        made.write(directory / f"m-{number}")
    return directory


def many_names(directory: Path, size: int) -> Path:
    """Put a damaged checkpoint beside many small ones."""
    many_checkpoints(directory, size)
    made = b.Bundle()
    made.add("w", np.full(20, 7, np.float32))
    made.change("w", crc=7)
    return Path(made.write(directory / "m"))


def _lone(data: Callable[[int], bytes]) -> Callable[[Path, int], Path]:
    """Return a kind: a data file whose index is lost."""

    def make(directory: Path, size: int) -> Path:
        (directory / "m.data-00000-of-00001").write_bytes(data(size))
        return directory / "m"

    return make


def _random(size: int) -> bytes:
    return np.random.default_rng(3).bytes(size)


def _weights(size: int) -> bytes:
    return np.random.default_rng(4).normal(0, 0.05, size // 4).astype(np.float32).tobytes()


def _counted(size: int) -> bytes:
    return np.arange(size // 4, dtype=np.int32).tobytes()


def _large(
    count: int, harm: Callable[[Bytes], Bytes | None], data: Callable[[int], bytes] = _weights
) -> Callable[[Path, int], Path]:
    """Return a kind: so many large tensors, whose data is then changed."""

    def make(directory: Path, size: int) -> Path:
        made = b.Bundle()
        values = np.frombuffer(data(size), np.float32)
        for number, value in enumerate(np.array_split(values, count)):
            made.add(f"w{number:05}", value)
        path = Path(made.write(directory / "m"))
        place = directory / "m.data-00000-of-00001"
        there = np.frombuffer(place.read_bytes(), np.uint8).copy()
        changed = harm(there)
        place.write_bytes((there if changed is None else changed).tobytes())
        return path

    return make


def _flip_one(data: Bytes) -> None:
    data[len(data) // 2] ^= 4


def _flip_many(data: Bytes) -> None:
    data[100::4096] ^= 4


def _zero_pages(data: Bytes) -> None:
    for at in range(0, len(data), 16384):
        data[at : at + 4096] = 0


def _shift(data: Bytes) -> Bytes:
    return np.concatenate([data[:1000], data[1037:]])


def _insert(data: Bytes) -> Bytes:
    return np.concatenate([data[:1000], np.zeros(511, np.uint8), data[1000:]])


def _swap(data: Bytes) -> Bytes:
    return data[: len(data) // 4 * 4].reshape(-1, 4)[:, ::-1].ravel()


def _mix(data: Bytes) -> None:
    pages = data[: len(data) // 4096 * 4096].reshape(-1, 4096)
    pages[:] = pages[np.random.default_rng(5).permutation(len(pages))]


def _lines(data: Bytes) -> Bytes:
    return np.frombuffer(data.tobytes().replace(b"\n", b"\r\n"), np.uint8)


def _halve(data: Bytes) -> Bytes:
    return data[: len(data) // 2]


KINDS = {
    "data named twice": _harmed(lambda _: None),
    "4 KiB zeroed": _harmed(_zero(1 << 20, 4096)),
    "a hole in the middle": _harmed(lambda data: _zero(len(data), 4096)(data)),
    "holes in each block": _harmed(_zero(1 << 16, 512)),
    "holes in small blocks": _harmed(_zero(1 << 13, 512), block_size=4096),
    "a bit of each block": _harmed(_flip(1 << 18)),
    "bits of each block": _harmed(_flip(1 << 12)),
    "a bit of small blocks": _harmed(_flip(1 << 12), block_size=4096),
    "small blocks": _harmed(lambda _: None, block_size=64),
    "a bit of tiny blocks": _harmed(_flip(1 << 7), block_size=64),
    "cut at the end": _harmed(_cut),
    "without footer": _harmed(_lose_footer),
    "without start": _harmed(_lose_start),
    "a blank index": _harmed(_blank),
    "an index of noise": _harmed(_noise),
    "block named often": block_named_often,
    "blocks over each other": blocks_over_each_other,
    "empty blocks": empty_blocks,
    "restarts": restarts,
    "bad blocks": bad_blocks,
    "snappy blocks": snappy_blocks,
    "snappy zeros": snappy_zeros,
    "leftovers": leftovers,
    "tempstates": tempstates,
    "many checkpoints": many_checkpoints,
    "many beside": many_names,
    "lone zeros": _lone(bytes),
    "lone noise": _lone(_random),
    "lone weights": _lone(_weights),
    "lone numbers": _lone(_counted),
    "one tensor, a bit": _large(1, _flip_one),
    "one tensor, many bits": _large(1, _flip_many),
    "one tensor, holes": _large(1, _zero_pages),
    "one tensor, shifted": _large(1, _shift),
    "one tensor, mixed": _large(1, _mix),
    "one tensor, lines": _large(1, _lines),
    "one tensor, half": _large(1, _halve),
    "one of noughts, a bit": _large(1, _flip_one, bytes),
    "hundred tensors, many bits": _large(100, _flip_many),
    "hundred tensors, holes": _large(100, _zero_pages),
    "hundred tensors, shifted": _large(100, _shift),
    "hundred tensors, put in": _large(100, _insert),
    "hundred tensors, turned": _large(100, _swap),
    "hundred tensors, mixed": _large(100, _mix),
    "hundred tensors, lines": _large(100, _lines),
    "hundred tensors, half": _large(100, _halve),
    "hundred of noughts, many bits": _large(100, _flip_many, bytes),
    "2,000 tensors, many bits": _large(2000, _flip_many),
    "2,000 tensors, shifted": _large(2000, _shift),
    "2,000 tensors, mixed": _large(2000, _mix),
}
