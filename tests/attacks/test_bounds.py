"""What a small file can ask for, line by line of section 9.3: the files that no other test has.

All lie in directories of their own, and one child asks every call about each.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import builder as b
import graph_builder as g
import numpy as np
import pytest
from attacking import attempt_each
from riegeli_builder import BYTES, MESSAGE, chunked_field, chunked_file, chunked_message

Make = Callable[[], dict[str, bytes]]
HEADER = b.entry(b"", b.Header().to_bytes(1))
EMPTY = b.Entry(b.FLOAT, (0,), crc=b.mask(0)).to_bytes()


def of_index(data: bytes) -> dict[str, bytes]:
    return {"m.index": data, "m.data-00000-of-00001": bytes(64)}


def of_block(contents: bytes, *, type: int = 0, stored: bytes | None = None) -> dict[str, bytes]:
    return of_index(b.assemble([b.Stored(contents, type, key=b"\xff", stored=stored)]).data)


def entry(data: bytes = bytes(64), **fields: object) -> dict[str, bytes]:
    """A bundle of one entry that says what it is told, over a data file."""
    made = b.Bundle()
    made.put(data)
    said = {"dtype": b.FLOAT, "shape": (2,), "size": 8, "crc": 0, **fields}
    made.entries[b"w"] = b.Entry(**said)  # type: ignore[arg-type]
    return dict(made.files("m"))


def swollen(count: int) -> bytes:
    """A block whose keys each add a byte to the one before."""
    return b.close_block(
        HEADER + b"".join(b.entry(b"x", EMPTY, shared=number) for number in range(count))
    )


def overlapping() -> dict[str, bytes]:
    """Two handles, of which the second begins inside of the first block, where a block is too."""
    inner = b.Stored(b.block([(b"b", EMPTY)]), key=b"b").to_bytes()
    outer = b.Stored(b.block([(b"", b.Header().to_bytes(1)), (b"a", inner)]), key=b"a")
    within = outer.payload().index(inner)
    places = [(b"a", 0, len(outer.payload())), (b"b", within, len(inner) - 5)]
    index = b.Stored(b.block([(key, b.handle(*place)) for key, *place in places]))
    return of_index(b.assemble([outer], index=index).data)


def strings(shape: tuple[int, ...], lengths: bytes, values: bytes = b"") -> dict[str, bytes]:
    """Strings whose lengths are these bytes, with the right checksums of them."""
    data = lengths + bytes(4) + values
    return entry(data, dtype=b.STRING, shape=shape, size=len(data), crc=b.masked_crc(data))


def variants(*elements: bytes) -> dict[str, bytes]:
    made = b.Bundle()
    made.add_variants("v", list(elements), (len(elements),))
    return dict(made.files("m"))


def nested(levels: int) -> bytes:
    out = b.variant_proto("leaf")
    for _ in range(levels):
        out = b.variant_proto("list", tensors=[b.tensor_proto(b.VARIANT, (), b.field(15, out))])
    return out


def halves(extents: list[list[tuple[int, int] | None]]) -> dict[str, bytes]:
    return entry(shape=(1 << 20, 2), size=0, slices=extents)


def other_extents(count: int) -> dict[str, bytes]:
    """Slices that all lie beside each other but the last, which lies over the first."""
    parts: list[list[tuple[int, int] | None]] = [[(row, 1), None] for row in range(count)]
    return halves([*parts, [(0, 1), None]])


def chunked(
    chunks: list[tuple[int, bytes]], plan: bytes, infos: Callable[[list[bytes]], list[bytes]] = list
) -> dict[str, bytes]:
    return {"saved_model.cpb": chunked_file(chunks, plan, infos=infos)}


def plans(levels: int) -> bytes:
    plan: bytes = chunked_message(0)
    for _ in range(levels):
        plan = chunked_message(None, [chunked_field([], plan)])
    return plan


def lies(infos: list[bytes]) -> list[bytes]:
    """Every chunk is said to have a terabyte: ChunkInfo.size is field 2."""
    return [b.field(1, MESSAGE) + b.field(2, 1 << 40) + info[-2:] for info in infos]


def bomb(compression: str) -> dict[str, bytes]:
    """A model whose one node has 64 MiB of zeros: they take some hundred bytes."""
    module = {"brotli": "brotli", "zstd": "zstandard"}[compression]
    pytest.importorskip(module)
    chunks = [(MESSAGE, b""), (BYTES, bytes(64 << 20))]
    plan = chunked_message(
        0, [chunked_field([2, "#0", 2, 1, "#0", 5, ("s", "v"), 8, 4], chunked_message(1))]
    )
    return {"saved_model.cpb": chunked_file(chunks, plan, compression=compression)}


def with_asset(name: bytes) -> dict[str, bytes]:
    """A SavedModel whose one asset has this name (AssetFileDef.filename, 2)."""
    meta = b.field(1, b.field(4, b"serve")) + b.field(2, g.graph([g.node("n", "NoOp")]))
    meta += b.field(6, b.field(1, b.field(1, b"n:0")) + b.field(2, name))
    return {"saved_model.pb": b"\x08\x01" + b.field(2, meta)}


def named(name: bytes) -> dict[str, bytes]:
    made = b.Bundle()
    made.add(name, np.float32(1), crc=1)
    return dict(made.files("m"))


BOUNDS: dict[str, tuple[Make, set[str]]] = {
    "2 Snappy of 22 times its size": (
        lambda: of_block(b"", type=b.SNAPPY, stored=b.varint(1 << 31) + b"\xfe\x01\x00" * 1000),
        {"MalformedError"},
    ),
    "2 Snappy of swelling keys": (
        lambda: of_block(swollen(10_000), type=b.SNAPPY),
        {"LimitError"},
    ),
    "4 blocks that lie over each other": (overlapping, {"MalformedError", "value"}),
    "5 two thousand million shards": (
        lambda: of_block(
            b.block([(b"", b.Header(num_shards=(1 << 31) - 1).to_bytes(1)), (b"w", EMPTY)])
        ),
        {"LimitError"},
    ),
    "5 a first key that is not empty": (
        lambda: of_block(b.block([(b"a", EMPTY), (b"w", EMPTY)])),
        {"MalformedError", "NotACheckpointError"},
    ),
    "6 a hundred thousand dimensions": (
        lambda: entry(extra=b.field(2, b"\x12\x00" * 100_000)),
        {"LimitError", "MalformedError"},
    ),
    "6 an offset and a size that wrap": (
        lambda: entry(offset=(1 << 63) - 4, size=8),
        {"TruncatedError", "MalformedError"},
    ),
    "6 a terabyte that is not there": (
        lambda: entry(shape=(1 << 38,), size=1 << 40),
        {"TruncatedError"},
    ),
    "7 nothing of 2**40": (lambda: entry(shape=(1 << 40, 0), size=0, crc=b.mask(0)), {"value"}),
    "7 nothing of 2**62": (
        lambda: entry(shape=(0, 1 << 62), size=0, crc=b.mask(0)),
        {"value", "UnsupportedError"},
    ),
    "7 nothing of 2**62 by 2": (
        lambda: entry(shape=(0, 1 << 61, 3), size=0, crc=b.mask(0)),
        {"value", "UnsupportedError"},
    ),
    "8 more strings than bytes": (lambda: strings((1 << 20,), b"\x00"), {"MalformedError"}),
    "8 a length of eleven bytes": (
        lambda: strings((1,), b"\x80" * 10 + b"\x00"),
        {"MalformedError"},
    ),
    "8 a length of 2**64": (
        lambda: strings((1,), b"\x80" * 9 + b"\x02"),
        {"MalformedError"},
    ),
    "8 a length that wraps": (
        lambda: strings((2,), b"\x01" + b"\xff" * 9 + b"\x01", b"a"),
        {"ChecksumError", "MalformedError"},
    ),
    "8 as many empty strings as bytes": (
        lambda: strings((200_000,), bytes(200_000)),
        {"ChecksumError"},
    ),
    "9 a variant beyond its end": (
        lambda: entry(b"\x7fabc", dtype=b.VARIANT, shape=(1,), size=4),
        {"ChecksumError", "MalformedError"},
    ),
    "9 variants in variants": (lambda: variants(nested(3_000)), {"LimitError"}),
    "9 a value that stands for 2**40": (
        lambda: variants(b.variant_proto("t", tensors=[b.tensor_proto(3, (1 << 40,))])),
        {"LimitError"},
    ),
    "9 values that share a limit": (
        lambda: variants(
            *[b.variant_proto("t", tensors=[b.tensor_proto(b.INT8, (300 << 20,))])] * 8
        ),
        {"LimitError"},
    ),
    "10 four thousand slices, two of them one": (
        lambda: other_extents(4_000),
        {"MalformedError"},
    ),
    "10 an extent whose end wraps": (
        lambda: halves([[((1 << 63) - 1, (1 << 63) - 1), None]]),
        {"MalformedError"},
    ),
    "10 a slice more than may be": (
        lambda: entry(size=0, extra=b.field(7, b"\x0a\x02\x10\x01") * 20_001),
        {"LimitError"},
    ),
    "12 plans in plans": (
        lambda: chunked([(MESSAGE, b"")], plans(3_000)),
        {"MalformedError", "LimitError"},
    ),
    "12 a chunk that is not there": (
        lambda: chunked(
            [(MESSAGE, b"")],
            chunked_message(0, [chunked_field([2, "#0"], chunked_message((1 << 64) - 1))]),
        ),
        {"MalformedError"},
    ),
    "12 a chunk of a terabyte": (
        lambda: chunked([(MESSAGE, b"")], chunked_message(0), lies),
        {"MalformedError", "LimitError"},
    ),
    "12 brotli of zeros": (lambda: bomb("brotli"), {"LimitError", "MalformedError"}),
    "12 zstd of zeros": (lambda: bomb("zstd"), {"LimitError", "MalformedError"}),
    "14 a key with a zero": (lambda: named(b"a\0b"), {"ChecksumError"}),
    "14 a key with lines": (lambda: named(b"a\nb\r"), {"ChecksumError"}),
    "14 a key that leads up": (lambda: named(b"../../x"), {"ChecksumError"}),
    "14 a key for a terminal": (lambda: named(b"\x1b[2J\x07\xe2\x80\xae"), {"ChecksumError"}),
    "14 an asset that leads up": (lambda: with_asset(b"../../etc/passwd"), {"value"}),
    "14 an asset of the machine": (lambda: with_asset(b"/etc/passwd"), {"value"}),
}
"""Each by the number of its line: what lies in the directory, and what `read` may give."""


LIMITS = {"decompressed_bytes": 32 << 20, "key_bytes": 16 << 20, "slices": 20_000}


def test_every_bound_that_a_file_can_attack_holds(tmp_path: Path) -> None:
    paths, asked = [], []
    for number, (make, _) in enumerate(BOUNDS.values()):
        folder = tmp_path / str(number)
        folder.mkdir()
        made = make()
        for name, data in made.items():
            (folder / name).write_bytes(data)
        is_model = "m.index" not in made
        paths.append(folder if is_model else folder / "m")
        asked.append("model" if is_model else "read")
    found = attempt_each(paths, limits=LIMITS)
    wrong = {
        bound: one[call]
        for (bound, (_, verdicts)), call, one in zip(BOUNDS.items(), asked, found, strict=True)
        if one[call] not in verdicts
    }
    assert wrong == {}
