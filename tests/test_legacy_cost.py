"""What many tensors of a V1 file cost: objects, calls and reads are counted, and no time is taken.

What is decoded in a short way is held equal to the long way, for damaged bytes too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import builder
import numpy as np
import pytest
import v1_builder
from hypothesis import given
from hypothesis import strategies as st
from v1_builder import LegacyFile

import ckptparse
from ckptparse import typed_fields
from ckptparse.examination import case, legacy_view, record_rows, tensor_checks
from ckptparse.examination.verify import verify_path
from ckptparse.files.context import Context, begin
from ckptparse.legacy import metadata, record
from ckptparse.legacy import reader as legacy_reader
from ckptparse.legacy.metadata import decode_metadata
from ckptparse.legacy.record import decode_record
from ckptparse.limits import DEFAULT_LIMITS
from ckptparse.table import reader
from ckptparse.table.block import Block
from ckptparse.typed_fields import count_strings, end_of_strings

COUNT = 300


class Counter:
    """Counts the calls of a function that it stands for."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.count = 0

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.count += 1
        return self.function(*args, **options)


def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> Counter:
    counter = Counter(getattr(owner, name))
    monkeypatch.setattr(owner, name, counter)
    return counter


def many(count: int = COUNT) -> LegacyFile:
    file = LegacyFile()
    for number in range(count):
        file.add(f"layer/{number:04d}", np.full((2, 2), number, np.float32))
    return file


def context_of(path: Path) -> tuple[str, Context]:
    return begin(path, store=None, cache=None, limits=DEFAULT_LIMITS, lenient=True)


def test_whole_tensors_are_verified_and_recovered_without_an_object_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = many().write(tmp_path / "m.ckpt")
    made = [counted(monkeypatch, one, "Payload") for one in (record_rows, legacy_view)]
    made += [counted(monkeypatch, one, "Part") for one in (case, tensor_checks)]
    report = ckptparse.verify(path)
    recovered = ckptparse.recover(path)
    assert report.ok
    assert len(report.tensors) == len(recovered) == COUNT
    assert sum(one.count for one in made) == 0
    assert report.tensors["layer/0007"].status == "verified"
    assert np.array_equal(recovered["layer/0007"].read(), np.full((2, 2), 7, np.float32))


def test_a_damaged_block_makes_objects_of_its_own_tensors_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = builder.table(many().pairs(), block_size=1024)
    offset, size = table.blocks[-1]
    (tmp_path / "m.ckpt").write_bytes(table.flip(offset + size // 2))
    made = [counted(monkeypatch, one, "Payload") for one in (record_rows, legacy_view)]
    found = context_of(tmp_path / "m.ckpt")
    report = verify_path(*found)
    assert 0 < sum(one.count for one in made) < COUNT // 10
    assert len(report.tensors) == COUNT
    assert sum(one.status != "verified" for one in report.tensors.values()) < COUNT // 10


def test_shapes_and_slices_that_tensors_share_are_parsed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = many().write(tmp_path / "m.ckpt")
    parsed = counted(monkeypatch, metadata, "parse_message")
    walked = counted(monkeypatch, record, "check_nesting")
    record._is_usual_slice.cache_clear()
    values = ckptparse.read(path)
    assert len(values) == COUNT
    assert parsed.count == 3, "a shape, a slice and the versions"
    assert walked.count == 1


def test_keys_of_a_block_are_decoded_once_for_all_that_are_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = many().write(tmp_path / "m.ckpt")
    sought = counted(monkeypatch, Block, "find")
    ckptparse.read(path)
    assert sought.count == 0


def test_a_large_block_of_many_tensors_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = LegacyFile()
    for number in range(100):
        file.add(f"w{number:03d}", np.full(4000, number, np.float32))
    path = file.write(tmp_path / "m.ckpt", block_size=1 << 30)
    read = counted(monkeypatch, reader, "read_block")
    with ckptparse.open(path) as checkpoint:
        for name, tensor in checkpoint.items():
            assert tensor.read()[0] == int(name[1:])
    assert read.count < 5, "the index block, and the block of data, when it is opened and then"


# ------------------------------------------------------------------------ the same as the long way


def answer(work: Callable[..., Any], *args: Any, **options: Any) -> Any:
    try:
        found = work(*args, **options)
    except ckptparse.CheckpointError as error:
        return type(error).__name__, error.message
    if not isinstance(found, np.ndarray):
        return found
    return found.dtype.str, found.tolist() if found.dtype == object else found.tobytes()


def changed(data: bytes) -> list[bytes]:
    """The bytes with each byte changed in a few ways, cut at each place, and doubled."""
    made = [data, data + data, data + b"\x12\x00", data + b"\x0b\x0c"]
    for at in range(len(data)):
        made.append(data[:at])
        made += [data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :] for bits in (1, 8, 128, 255)]
    return made


@pytest.mark.parametrize(
    ("array", "extents"),
    [
        (np.float32([1, 2, 3]), [None]),
        (np.float64(1), []),
        (np.array([[1 + 2j]], np.complex64), [(0, 1), None]),
        (np.int32([-1, 5]), [(3, 2)]),
        (np.array([True, False]), [None]),
        (np.array([b"ab"], object), [None]),
        (np.zeros((0, 3), np.float32), [None, None]),
        (np.zeros(50, np.float32), [None]),
    ],
)
def test_records_are_decoded_as_the_long_way_decodes_them(
    array: Any, extents: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    number = builder.number_of(np.asarray(array))
    piece = v1_builder.Slice(extents, v1_builder.values_proto(np.asarray(array), number))
    records = changed(v1_builder.record(b"name", piece))

    def answers() -> list[Any]:
        size = np.asarray(array).size
        kinds = {number, builder.FLOAT, builder.INT64}
        return [
            answer(decode_record, one, kind, count)
            for one in records
            for kind in sorted(kinds)
            for count in (size, size + 1)
        ]

    short = answers()
    monkeypatch.setattr(record, "_usual_values", lambda *_: None)
    assert short == answers()


def test_a_record_that_is_nested_deeper_than_allowed_is_refused_in_the_short_way_too() -> None:
    piece = v1_builder.Slice([None], v1_builder.values_proto(np.float32([1]), builder.FLOAT))
    data = v1_builder.record(b"name", piece)
    with pytest.raises(ckptparse.LimitError):
        decode_record(data, builder.FLOAT, 1, limits=ckptparse.Limits(nesting=2))
    assert decode_record(data, builder.FLOAT, 1, limits=ckptparse.Limits(nesting=3)) == 1


class Forgetful(dict[bytes, Any]):
    """Keeps nothing."""

    def __setitem__(self, key: bytes, value: Any) -> None:
        pass


def test_lists_are_decoded_as_each_tensor_of_them_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    file = LegacyFile()
    for name in (b"a", b"b\xff", b"c" * 130, b""):
        file.add(name, np.zeros((2, 1), np.float32))
    listed = file.declare("d", (4,), builder.FLOAT)
    for start in (0, 2):
        file.add_slice(listed, [(start, 2)], np.float32([1, 2]))
    lists = changed(file.meta_value())
    short = [answer(decode_metadata, one, limits=DEFAULT_LIMITS) for one in lists]

    def forget(self: Any, limits: Any, most: int, slices: int) -> None:
        self._limits, self._most, self._left = limits, most, most
        self._most_slices, self._slices = slices, 0
        self._shapes, self._pieces, self._rests = Forgetful(), Forgetful(), Forgetful()

    monkeypatch.setattr(metadata._ListDecoder, "__init__", forget)
    assert short == [answer(decode_metadata, one, limits=DEFAULT_LIMITS) for one in lists]


@pytest.mark.parametrize("sliced", [False, True])
def test_a_record_is_decoded_once_by_whoever_takes_its_tensor_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sliced: bool
) -> None:
    """Each piece would otherwise decode all of it: the square of its size."""
    values = np.arange(1_200_000, dtype=np.float32).reshape(4, -1)
    half = values.shape[1] // 2
    file = LegacyFile()
    if sliced:
        listed = file.declare("w", values.shape, builder.FLOAT)
        file.add_slice(listed, [None, (0, half)], values[:, :half])
        file.add_slice(listed, [None, (half, half)], values[:, half:])
    else:
        file.add("w", values)
    path = file.write(tmp_path / "m.ckpt")
    decoded = counted(monkeypatch, legacy_reader, "decode_record")
    assert ckptparse.stats(path)["w"].largest == 1_199_999
    records = 1 + sliced
    assert decoded.count <= 2 * records
    decoded.count = 0
    assert ckptparse.diff(path, path).same
    ckptparse.average([path, path])
    assert decoded.count <= 6 * records


def test_strings_where_the_list_says_numbers_are_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = LegacyFile()
    listed = file.declare("w", (2,), builder.FLOAT)
    listed.slices.append(v1_builder.Slice([None], b"\x42\x00" * 20_000))
    path = file.write(tmp_path / "m.ckpt")
    ended = counted(monkeypatch, record, "end_of_strings")
    with pytest.raises(ckptparse.CheckpointError):
        ckptparse.read(path)
    assert ended.count == 0


def test_short_strings_are_skipped_many_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"a" + b"\x42\x00\x42\x02ab\x42\x07abcdefg" * 10_000 + b"\x42\x08abcdefgh"
    stepped = counted(monkeypatch, typed_fields, "_plain_strings")
    assert end_of_strings(data, 1) == len(data)
    assert stepped.count <= 3


@given(
    st.binary(max_size=3),
    st.lists(st.integers(0, 10) | st.sampled_from([127, 128, 300]), max_size=12),
    st.integers(0, 40),
    st.binary(max_size=4),
)
def test_strings_end_where_they_end_one_by_one(
    before: bytes, sizes: list[int], cut: int, after: bytes
) -> None:
    data = b"".join(builder.field(8, bytes([size % 251]) * size) for size in sizes)
    data = data[: max(0, len(data) - cut)] + after
    assert (
        end_of_strings(before + data, len(before))
        == len(before) + (count_strings(memoryview(data))[1])
    )
