"""Damaged and odd files, one for each row of section 9.1: never worse than what TensorFlow does.

Where TensorFlow crashes, lists fewer names or gives wrong values, the verdict here is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import v1_builder as v1
from attacking import attempt_each

Make = Callable[[], dict[str, bytes]]


def bundle() -> b.Bundle:
    made = b.Bundle()
    made.add("a", np.arange(4, dtype=np.float32))
    made.add("s", np.array([b"one", b"three"], object))
    return made


def files(made: b.Bundle, **options: Any) -> dict[str, bytes]:
    return dict(made.files("m", **options))


def with_index(change: Callable[[b.TableFile], bytes]) -> dict[str, bytes]:
    made = bundle()
    return files(made) | {"m.index": change(made.table())}


def with_entry(key: str = "a", **changes: Any) -> dict[str, bytes]:
    made = bundle()
    made.change(key, **changes)
    return files(made)


def with_header(header: b.Header | bytes | None) -> dict[str, bytes]:
    made = bundle()
    made.header = header
    return files(made)


def with_block(contents: bytes, **options: Any) -> dict[str, bytes]:
    stored = b.Stored(contents, key=b"\xff", **options)
    return files(bundle()) | {"m.index": b.assemble([stored]).data}


def with_data(change: Callable[[bytes], bytes]) -> dict[str, bytes]:
    made = files(bundle())
    name = next(name for name in made if ".data-" in name)
    return made | {name: change(made[name])}


def with_handle(offset: int, size: int) -> dict[str, bytes]:
    return with_index(
        lambda table: table.data[:-48] + b.Footer(table.metaindex, (offset, size)).to_bytes()
    )


def with_strings(**options: Any) -> dict[str, bytes]:
    made = bundle()
    made.add_strings("s", [b"one", b"three"], (2,), **options)
    return files(made)


def sliced(slices: list[Any], **changes: Any) -> dict[str, bytes]:
    made = bundle()
    missing = changes.pop("missing", ())
    array = np.arange(8, dtype=np.float32).reshape(4, 2)
    made.add_sliced("p", array, slices, missing=missing, **changes)
    return files(made)


def listed(extents: list[Any]) -> dict[str, bytes]:
    """A tensor that lists slices of which none is stored."""
    made = bundle()
    made.entries[b"p"] = b.Entry(b.FLOAT, (4, 2), slices=extents)
    return files(made)


def other_slice(**changes: Any) -> dict[str, bytes]:
    made = bundle()
    halves: list[Any] = [[(0, 2), None], [(2, 2), None]]
    made.add_sliced("p", np.zeros((4, 2), np.float32), halves)
    made.change(b.slice_key("p", halves[1]), **changes)
    return files(made)


PAIRS = bundle().pairs()
HEADER = b.Header().to_bytes(1)
BIG = (1 << 62, 1 << 62)

ROWS: dict[str, tuple[Make, str]] = {
    "2,3 an index that is cut": (lambda: with_index(lambda t: t.data[-40:]), "TruncatedError"),
    "2,3 an empty index": (lambda: with_index(lambda t: b""), "TruncatedError"),
    "4,12 a handle beyond the end": (lambda: with_handle(1 << 20, 40), "TruncatedError"),
    "5 another magic": (lambda: with_index(lambda t: t.data[:-1] + b"x"), "MalformedError"),
    "14 a byte appended": (lambda: with_index(lambda t: t.data + b"x"), "MalformedError"),
    "6 the index block": (lambda: with_index(lambda t: t.flip(t.index[0] + 3)), "ChecksumError"),
    "7 a data block": (lambda: with_index(lambda t: t.flip(t.blocks[0][0] + 3)), "ChecksumError"),
    "8 the metaindex block": (lambda: with_index(lambda t: t.flip(t.metaindex[0])), "value"),
    "9 a varint without an end": (
        lambda: with_index(lambda t: t.replace(len(t.data) - 48, b"\xff" * 40)),
        "MalformedError",
    ),
    "10 an index block of 2**62 bytes": (lambda: with_handle(0, 1 << 62), "TruncatedError"),
    "11 an index block of 2**64 - 3 bytes": (
        lambda: with_handle(0, (1 << 64) - 3),
        "TruncatedError",
    ),
    "13 padding that is not zero": (
        lambda: with_index(
            lambda t: t.data[:-48] + b.Footer(t.metaindex, t.index, padding=b"x" * 40).to_bytes()
        ),
        "value",
    ),
    "16 block type 2": (lambda: with_block(b.block(PAIRS), type=2), "UnsupportedError"),
    "18 Snappy rubbish": (lambda: with_block(b"", type=1, stored=b"\x09abc"), "MalformedError"),
    "19 Snappy of 2**32 - 1 bytes": (
        lambda: with_block(b"", type=1, stored=b"\xff\xff\xff\xff\x0fabc"),
        "MalformedError",
    ),
    "20 no restarts": (
        lambda: with_block(b.block(PAIRS, restarts=[], count=0)),
        "MalformedError",
    ),
    "22 a restart beyond the end": (
        lambda: with_block(b.block(PAIRS, restarts=[0, 1 << 20])),
        "MalformedError",
    ),
    "44 an empty table": (lambda: with_block(b.EMPTY_BLOCK), "MalformedError"),
    "21 a bad restart count": (lambda: with_block(b.block(PAIRS, count=1 << 30)), "MalformedError"),
    "27 a block of three bytes": (lambda: with_block(b"abc"), "MalformedError"),
    "23 the first entry is hidden": (
        lambda: with_block(b.block(PAIRS, restarts=[5])),
        "MalformedError",
    ),
    "32 no header": (lambda: with_header(None), "MalformedError"),
    "24 more is shared than there is": (
        lambda: with_block(b.close_block(b.entry(b"", HEADER) + b.entry(b"a", b"", shared=9))),
        "MalformedError",
    ),
    "25 a value beyond the end": (
        lambda: with_block(
            b.close_block(b.entry(b"", HEADER) + b.entry(b"a", b"", value_length=99))
        ),
        "MalformedError",
    ),
    "26 lengths that wrap": (
        lambda: with_block(
            b.close_block(
                b.entry(b"", HEADER)
                + b.entry(b"a", b"", non_shared=0xFFFFFFFF, value_length=0xFFFFFFFF)
            )
        ),
        "MalformedError",
    ),
    "- a second data block": (
        lambda: with_index(lambda t: two_blocks().flip(two_blocks().blocks[1][0])),
        "ChecksumError",
    ),
    "28 keys that are not sorted": (
        lambda: with_block(b.block([PAIRS[0], PAIRS[2], PAIRS[1]])),
        "KeyOrderError",
    ),
    "29 a key twice": (
        lambda: with_block(b.block([PAIRS[0], PAIRS[1], PAIRS[1]])),
        "KeyOrderError",
    ),
    "30 varints longer than needed": (
        lambda: with_block(
            b.close_block(b"".join(b.entry(key, value, widths=(2, 2, 3)) for key, value in PAIRS))
        ),
        "value",
    ),
    "31 a stray byte": (lambda: with_block(b.block(PAIRS, stray=b"x")), "MalformedError"),
    "33 a header that says big-endian": (
        lambda: with_header(b.Header(endianness=b.BIG)),
        "ChecksumError",
    ),
    "34 min_consumer 2": (
        lambda: with_header(b.Header(version=b.version_proto(1, 2))),
        "UnsupportedError",
    ),
    "35 producer -1": (
        lambda: with_header(b.Header(version=b.version_proto(-1))),
        "MalformedError",
    ),
    "36 bad_consumers 1": (
        lambda: with_header(b.Header(version=b.version_proto(1, 0, [1]))),
        "UnsupportedError",
    ),
    "37 producer 99": (lambda: with_header(b.Header(version=b.version_proto(99))), "value"),
    "38 no version": (lambda: with_header(b.Header(version=None)), "value"),
    "39 no shards": (lambda: with_header(b.Header(num_shards=0)), "MalformedError"),
    "40 minus one shard": (lambda: with_header(b.Header(num_shards=-1)), "MalformedError"),
    "41 three shards": (
        lambda: files(bundle()) | {"m.index": shards_said(3)},
        "MissingShardError",
    ),
    "42 endianness 5": (lambda: with_header(b.Header(endianness=5)), "MalformedError"),
    "43 a header that does not parse": (lambda: with_header(b"\xff\xff"), "MalformedError"),
    "46 an entry that does not parse": (
        lambda: with_block(b.block([*PAIRS[:2], (b"s", b"\xff")])),
        "MalformedError",
    ),
    "47 an unknown field": (lambda: with_entry(extra=b.field(99, b"x")), "value"),
    "48 no checksum": (lambda: with_entry(crc=None), "ChecksumError"),
    "49 another checksum": (lambda: with_entry(crc=1), "ChecksumError"),
    "50 a size too small": (lambda: with_entry(size=15), "MalformedError"),
    "51 a size too big": (lambda: with_entry(size=17), "MalformedError"),
    "52 a negative size": (lambda: with_entry(size=-1), "MalformedError"),
    "53 a negative offset": (lambda: with_entry(offset=-1), "MalformedError"),
    "54 an offset beyond the end": (lambda: with_entry(offset=1 << 40), "TruncatedError"),
    "55 an end beyond the end": (lambda: with_entry(offset=20), "TruncatedError"),
    "56 data that is cut": (lambda: with_data(lambda data: data[:5]), "TruncatedError"),
    "57 no data file": (
        lambda: {"m.index": files(bundle())["m.index"]},
        "MissingShardError",
    ),
    "58 data longer than used": (lambda: with_data(lambda data: data + b"x" * 99), "value"),
    "59 a shard that is not there": (lambda: with_entry(shard=7), "MalformedError"),
    "60 shard -1": (lambda: with_entry(shard=-1), "MalformedError"),
    "61 dtype 0": (lambda: with_entry(dtype=0), "MalformedError"),
    "62 dtype 999": (lambda: with_entry(dtype=999), "UnsupportedError"),
    "63 dtype 101": (lambda: with_entry(dtype=101), "MalformedError"),
    "64 dtype RESOURCE": (lambda: with_entry(dtype=b.RESOURCE), "MalformedError"),
    "65 a variant of no bytes": (
        lambda: with_entry(dtype=b.VARIANT, size=0, crc=b.mask(0)),
        "MalformedError",
    ),
    "66 a negative dimension": (lambda: with_entry(shape=(-4,)), "MalformedError"),
    "68 too many elements": (lambda: with_entry(shape=BIG), "MalformedError"),
    "71 too many elements, and a 0": (
        lambda: with_entry(shape=(*BIG, 0), size=0, crc=b.mask(0)),
        "MalformedError",
    ),
    "67 an unknown rank": (
        lambda: with_entry(shape=(), unknown_rank=True, size=4, crc=b.masked_crc(bytes(4))),
        "value",
    ),
    "69 2**40 floats": (lambda: with_entry(shape=(1 << 40,), size=1 << 42), "TruncatedError"),
    "70 [2**33, 0]": (lambda: with_entry(shape=(1 << 33, 0), size=0, crc=b.mask(0)), "value"),
    "72 255 dimensions": (lambda: with_entry(shape=(1,) * 255, size=4), "LimitError"),
    "73 254 dimensions": (lambda: with_entry(shape=(1,) * 254, size=4), "UnsupportedError"),
    "74 an empty tensor without a checksum": (
        lambda: with_entry(shape=(0,), size=0, crc=None),
        "ChecksumError",
    ),
    "76 an empty tensor with another": (
        lambda: with_entry(shape=(0,), size=0, crc=7),
        "ChecksumError",
    ),
    "77 no shape": (
        lambda: with_entry(shape=None, size=4, crc=b.masked_crc(bytes(4))),
        "value",
    ),
    "78 a bool of 255": (
        lambda: with_entry(dtype=b.BOOL, shape=(16,)),
        "value",
    ),
    "80 strings with another checksum": (lambda: with_entry("s", crc=1), "ChecksumError"),
    "81 lengths with another checksum": (
        lambda: with_strings(lengths_crc=1),
        "ChecksumError",
    ),
    "82 a string size too small": (lambda: with_entry("s", size=9), "MalformedError"),
    "83 a string size beyond the end": (lambda: with_entry("s", size=1 << 20), "TruncatedError"),
    "84-86 a string size below the count": (lambda: with_entry("s", size=1), "MalformedError"),
    "87 a string of 2**40 bytes": (lambda: with_strings(lengths=[3, 1 << 40]), "MalformedError"),
    "88 2**33 strings": (lambda: with_entry("s", shape=(1 << 33,)), "LimitError"),
    "91 a slice without an entry": (
        lambda: sliced([[(0, 2), None], [(2, 2), None]], missing=[1]),
        "MalformedError",
    ),
    "92 slices that leave a gap": (lambda: sliced([[(0, 2), None]]), "MalformedError"),
    "93 a slice twice": (
        lambda: sliced([[(0, 2), None], [(0, 2), None]]),
        "MalformedError",
    ),
    "94 slices that overlap": (
        lambda: sliced([[(0, 3), None], [(2, 2), None]]),
        "MalformedError",
    ),
    "95 a slice out of bounds": (lambda: listed([[(2, 9), None]]), "MalformedError"),
    "98 a slice of another rank": (lambda: listed([[(0, 2)]]), "MalformedError"),
    "96 a negative start": (lambda: listed([[(-1, 2), None]]), "MalformedError"),
    "97 a length of 0": (lambda: listed([[(0, 0), None]]), "MalformedError"),
    "102 a start of 2**63 - 1": (
        lambda: listed([[((1 << 63) - 1, 2), None]]),
        "MalformedError",
    ),
    "99 a slice of another shape": (lambda: other_slice(shape=(4,)), "MalformedError"),
    "100 a slice of another dtype": (
        lambda: other_slice(dtype=b.INT32),
        "MalformedError",
    ),
    "101 a slice in slices": (
        lambda: other_slice(slices=[[(0, 1), None]]),
        "MalformedError",
    ),
    "- a key that is not UTF-8": (
        lambda: named(b"\xff\xfe"),
        "value",
    ),
}


def two_blocks() -> b.TableFile:
    parts = [PAIRS[:2], PAIRS[2:]]
    return b.assemble([b.Stored(b.block(part), key=part[-1][0]) for part in parts])


def shards_said(count: int) -> bytes:
    made = bundle()
    made.header = b.Header(num_shards=count)
    return made.index()


def named(name: bytes) -> dict[str, bytes]:
    made = bundle()
    made.add(name, np.zeros(2, np.float32))
    return files(made)


def test_every_row_of_what_tensorflow_does_with_odd_files_has_its_verdict(tmp_path: Path) -> None:
    prefixes = []
    for number, (make, _) in enumerate(ROWS.values()):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, data in make().items():
            (folder / name).write_bytes(data)
        prefixes.append(folder / "m")
    found = attempt_each(prefixes, "read", "list", "verify", "recover", "annotate", "identify")
    verdicts = {row: one["read"] for row, one in zip(ROWS, found, strict=True)}
    assert verdicts == {row: verdict for row, (_, verdict) in ROWS.items()}
    assert {one["verify"] for one in found} <= {"value", "NotACheckpointError"}


# ---- V1 files: the paragraph after the rows


def v1_file(change: Callable[[v1.LegacyFile], object] = lambda file: None) -> v1.LegacyFile:
    made = v1.LegacyFile()
    made.add("a", np.arange(4, dtype=np.float32).reshape(2, 2))
    change(made)
    return made


def v1_listed(**changes: Any) -> bytes:
    """A file whose one tensor says something else of itself."""

    def change(made: v1.LegacyFile) -> None:
        for name, value in changes.items():
            setattr(made.tensors[0], name, value)

    return v1_file(change).data()


def v1_extents(*extents: Any) -> bytes:
    return v1_file(lambda made: setattr(made.tensors[0].slices[0], "extents", extents)).data()


def v1_version(*numbers: Any) -> bytes:
    return v1_file(lambda made: setattr(made, "version", b.version_proto(*numbers))).data()


def v1_values(values: bytes) -> bytes:
    return v1_file(lambda made: setattr(made.tensors[0].slices[0], "values", values)).data()


def v1_halves() -> bytes:
    made = v1.LegacyFile()
    listed = made.declare("a", (2, 2), b.FLOAT)
    for row in range(2):
        made.add_slice(listed, [(row, 1), None], np.ones((1, 2), np.float32))
    return made.data()


V1_ROWS: dict[str, tuple[Callable[[], bytes], str]] = {
    "another magic": (lambda: v1_file().data()[:-1] + b"x", "TruncatedError"),
    "a file of 40 bytes": (lambda: v1_file().data()[-40:], "TruncatedError"),
    "cut at its begin": (lambda: v1_file().data()[9:], "TruncatedError"),
    "no list": (
        lambda: v1_file(lambda made: setattr(made, "has_meta", False)).data(),
        "NotACheckpointError",
    ),
    "min_consumer 2": (lambda: v1_version(1, 2), "UnsupportedError"),
    "producer -1": (lambda: v1_version(-1), "MalformedError"),
    "bad_consumers 1": (lambda: v1_version(1, 0, [1]), "UnsupportedError"),
    "a negative dimension": (lambda: v1_listed(shape=(2, -2)), "MalformedError"),
    "too many elements": (lambda: v1_listed(shape=BIG), "MalformedError"),
    "too many elements, and a 0": (lambda: v1_listed(shape=(*BIG, 0)), "MalformedError"),
    "a length of 0": (lambda: v1_extents((0, 0), None), "MalformedError"),
    "a start of -1": (lambda: v1_extents((-1, 1), None), "MalformedError"),
    "an end beyond 2**63": (lambda: v1_extents(((1 << 63) - 1, 2), None), "MalformedError"),
    "type 0": (lambda: v1_listed(data_type=0), "MalformedError"),
    "type 101": (lambda: v1_listed(data_type=101), "MalformedError"),
    "type RESOURCE": (lambda: v1_listed(data_type=b.RESOURCE), "MalformedError"),
    "too few values": (lambda: v1_values(b.field(5, bytes(12))), "MalformedError"),
    "too many values": (lambda: v1_values(b.field(5, bytes(20))), "MalformedError"),
    "no values": (lambda: v1_values(b""), "MalformedError"),
    "two slices": (v1_halves, "value"),
    "right": (lambda: v1_file().data(), "value"),
}


def test_every_v1_file_of_the_same_kinds_has_its_verdict(tmp_path: Path) -> None:
    """TensorFlow reads none of these but the last, and gives no tensor of two slices as a whole."""
    paths = []
    for number, (make, _) in enumerate(V1_ROWS.values()):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(make())
    found = attempt_each(paths, "read", "list", "verify", "recover", "annotate", "identify")
    verdicts = {row: one["read"] for row, one in zip(V1_ROWS, found, strict=True)}
    assert verdicts == {row: verdict for row, (_, verdict) in V1_ROWS.items()}


# ---- state files: section 5


STATES: dict[str, tuple[bytes, str]] = {
    "right": (b'model_checkpoint_path: "m"\n', "value"),
    "the last of two paths": (
        b'model_checkpoint_path: "gone"\nmodel_checkpoint_path: "m"\n',
        "value",
    ),
    "quotes, comments, pieces": (b"# x\r\nmodel_checkpoint_path: '' \"\\155\"\r\n", "value"),
    "a path that was moved": (b'model_checkpoint_path: "/gone/from/here/m"\n', "value"),
    "nothing of that name": (b'model_checkpoint_path: "x"\n', "CheckpointNotFoundError"),
    "empty": (b"", "MalformedError"),
    "no newest path": (b'all_model_checkpoint_paths: "m"\n', "MalformedError"),
    "a syntax error": (b"model_checkpoint_path: {", "MalformedError"),
    "an unknown field": (b'model_checkpoint_path: "m"\nx: 1\n', "MalformedError"),
    "a mark of byte order": (b'\xef\xbb\xbfmodel_checkpoint_path: "m"\n', "value"),
    "no UTF-8": (b'model_checkpoint_path: "\xff"\n', "MalformedError"),
}


def test_every_state_file_has_its_verdict(tmp_path: Path) -> None:
    folders = []
    for number, (text, _) in enumerate(STATES.values()):
        folders.append(tmp_path / str(number))
        folders[-1].mkdir()
        for name, data in files(bundle()).items():
            (folders[-1] / name).write_bytes(data)
        (folders[-1] / "checkpoint").write_bytes(text)
    found = attempt_each(folders, "read", "list", "verify", "recover", "identify")
    verdicts = {row: one["read"] for row, one in zip(STATES, found, strict=True)}
    assert verdicts == {row: verdict for row, (_, verdict) in STATES.items()}
