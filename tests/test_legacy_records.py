"""Records and lists of V1 files that are as TensorFlow writes them, or nearly: which way is taken.

Most are decoded in a short way. Of one that is odd in a byte, the long way decides: what it says is
what counts. Calls are counted, since the values are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from builder import field, shape_proto, slice_proto, version_proto

import ckptparse
from ckptparse import DataType, LimitError, Limits, MalformedError
from ckptparse.legacy import metadata, record
from ckptparse.legacy.metadata import decode_metadata
from ckptparse.legacy.record import decode_record
from ckptparse.limits import DEFAULT_LIMITS, Budget
from ckptparse.proto import wire

pytestmark = pytest.mark.proto

FLOATS = bytes.fromhex("2a 08 0000803f 00000040")
"""A TensorProto: float_val, packed: 1.0 and 2.0."""


def saved(values: bytes, *, name: bytes = b"w", piece: bytes = b"\x0a\x00") -> bytes:
    """A record: the name, the slice, the TensorProto, and nothing else."""
    return field(2, field(1, name) + field(2, piece) + field(3, values))


def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[Any]:
    """Note what a function is given first; it goes on as before."""
    real, noted = getattr(owner, name), []

    def noted_call(first: Any, *given: Any, **options: Any) -> Any:
        noted.append(first)
        return real(first, *given, **options)

    monkeypatch.setattr(owner, name, noted_call)
    return noted


def answer(work: Callable[..., Any], *given: Any, **options: Any) -> Any:
    try:
        found = work(*given, **options)
    except ckptparse.CheckpointError as error:
        return type(error).__name__, error.message
    return found.dtype.str, found.tolist()


# ---- where a field begins and ends


@pytest.mark.parametrize(
    ("data", "at", "found"),
    [
        ("12 00", 0, (2, 2)),
        ("12 01 61", 0, (2, 3)),
        ("12 01 61 62", 0, (2, 3)),
        ("00 12 01 61", 1, (3, 4)),
        ("00 12 00", 1, (3, 3)),
        ("12 7f" + "61" * 127, 0, (2, 129)),
        ("12 8001" + "61" * 128, 0, (3, 131)),
        ("12 8101" + "61" * 129, 0, (3, 132)),
        ("00 12 8001" + "61" * 128, 1, (4, 132)),
        ("12 8000", 0, (3, 3)),
        # No such field: another tag, nothing after the tag, no start, content that is cut off, and
        # a length that is.
        ("0a 01 61", 0, (-1, -1)),
        ("12", 0, (-1, -1)),
        ("61 12", 1, (-1, -1)),
        ("12 00", 2, (-1, -1)),
        ("12 00", -1, (-1, -1)),
        ("00 12", -1, (-1, -1)),
        ("12 02 61", 0, (-1, -1)),
        ("12 05 61", 0, (-1, -1)),
        ("12 8001 61", 0, (-1, -1)),
        ("12 80", 0, (-1, -1)),
        ("12" + "80" * 10 + "01", 0, (-1, -1)),
    ],
)
def test_a_field_is_entered_if_it_has_the_tag_and_lies_within_the_bytes(
    data: str, at: int, found: tuple[int, int]
) -> None:
    wire = bytes.fromhex(data)
    assert record._enter(wire, at, len(wire), 0x12) == found


def test_a_field_ends_within_the_message_and_not_within_what_follows_it() -> None:
    assert record._enter(b"\x12\x02ab", 0, 4, 0x12) == (2, 4)
    assert record._enter(b"\x12\x02ab", 0, 3, 0x12) == (-1, -1)
    assert record._enter(b"\x12\x00", 0, 1, 0x12) == (-1, -1)
    assert record._enter(b"\x12\x80\x01" + b"a" * 128, 0, 2, 0x12) == (-1, -1)


# ---- records that are usual


@pytest.mark.parametrize("number", range(5, 14))
@pytest.mark.parametrize("content", [b"", b"\x01", b"\x00" * 200])
def test_a_record_with_one_field_of_values_is_usual(number: int, content: bytes) -> None:
    values = field(number, content)
    data = saved(values)
    assert record._usual_values(data) == len(data) - len(values)


@pytest.mark.parametrize("piece", ["", "0a00", "0a00 0a00", "0a02 0802", "0a04 0803 1002"])
@pytest.mark.parametrize("name", [b"", b"w", b"\xff", b"w" * 200])
def test_a_record_is_usual_whatever_its_name_and_its_extents(piece: str, name: bytes) -> None:
    for values in (b"", FLOATS):
        data = saved(values, name=name, piece=bytes.fromhex(piece))
        assert record._usual_values(data) == len(data) - len(values)


RUNS = {
    "one float": b"\x2d\x00\x00\x80\x3f",
    "floats": b"\x2d\x00\x00\x80\x3f" * 100,
    "integers": b"\x38\x01\x38\x80\x01" * 50,
    "strings": b"\x42\x01a\x42\x00" * 50,
    "strings, short and long ones": (b"\x42\x01a" + field(8, b"b" * 200)) * 50,
}
"""Values with a tag for each."""


@pytest.mark.parametrize("which", RUNS)
def test_a_record_with_a_tag_for_each_value_is_usual(
    which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(single_entries=1 << 20)
    data = saved(RUNS[which])
    assert record._usual_values(data) == len(data) - len(RUNS[which])
    numbers = [DataType.DT_FLOAT, DataType.DT_INT32]
    right, wrong = ([DataType.DT_STRING], numbers)[:: 1 if "strings" in which else -1]
    cases = [(kind, count) for kind in right for count in (0, 1, 99, 100, 101)]
    found = [answer(decode_record, data, kind, count) for kind, count in cases]
    assert any(not isinstance(one[1], str) for one in found)
    refused = {answer(decode_record, data, kind, 100)[0] for kind in wrong}
    # Where the list says otherwise, each field is looked at, and there may be one for 64 bytes.
    few = which in ("one float", "strings, short and long ones")
    assert refused == {"MalformedError" if few else "LimitError"}
    monkeypatch.setattr(record, "_usual_values", lambda *_: None)
    answers = [answer(decode_record, data, kind, count, limits=limits) for kind, count in cases]
    assert found == answers


@pytest.mark.parametrize(
    ("odd", "most"),
    [
        pytest.param(b"\xa0\x06\x01", 10, id="unknown numbers"),
        pytest.param(b"\x32\x00", 10, id="values of no bytes"),
        pytest.param(b"\x23\x24", 5, id="groups"),
        pytest.param(b"\x12\x00", 10, id="shapes"),
    ],
)
def test_a_record_has_few_fields_that_tensorflow_does_not_write(odd: bytes, most: int) -> None:
    # Six fields are around them.
    data = saved(odd * most + FLOATS)
    assert decode_record(data, DataType.DT_FLOAT, 2).tolist() == [1, 2]
    data = saved(odd * (most + 1) + FLOATS)
    with pytest.raises(LimitError, match=r"of Limits\.single_entries \(\d+\)") as caught:
        decode_record(data, DataType.DT_FLOAT, 2)
    assert caught.value.limit == "single_entries"
    enough = Limits(single_entries=4096 + 2 * 256)
    assert decode_record(data, DataType.DT_FLOAT, 2, limits=enough).tolist() == [1, 2]


def test_a_record_of_one_long_group_is_not_walked_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tags = counted(monkeypatch, wire, "_read_tag")
    with pytest.raises(LimitError, match="single_entries"):
        decode_record(saved(b"\x23" + b"\x28\x01" * 10_000 + b"\x24"), DataType.DT_FLOAT, 0)
    assert len(tags) < 1000


UNUSUAL = {
    "nothing": b"",
    "no field but the meta": field(1, b""),
    "the meta before the data": field(1, b"") + saved(FLOATS),
    "the data twice": saved(FLOATS) + saved(FLOATS),
    "a field after the data": saved(FLOATS) + b"\x18\x01",
    "the data cut off": saved(FLOATS)[:-1],
    "no name": field(2, field(2, b"\x0a\x00") + field(3, FLOATS)),
    "no slice": field(2, field(1, b"w") + field(3, FLOATS)),
    "no values": field(2, field(1, b"w") + field(2, b"\x0a\x00")),
    "the name last": field(2, field(2, b"\x0a\x00") + field(3, FLOATS) + field(1, b"w")),
    "a field before the values": field(2, b"\x0a\x01w\x12\x00\x20\x01" + field(3, FLOATS)),
    "a field after the values": field(2, b"\x0a\x01w\x12\x00" + field(3, FLOATS) + b"\x20\x01"),
    "the values twice": field(2, b"\x0a\x01w\x12\x00" + field(3, FLOATS) * 2),
    "values longer than the record": field(2, b"\x0a\x01w\x12\x00\x1a\x0b" + FLOATS),
    "the tag of the values alone": field(2, b"\x0a\x01w\x12\x00\x1a"),
    "the tag of the slice alone": field(2, b"\x0a\x01w\x12"),
    "a number for a name": field(2, b"\x08\x01\x12\x00" + field(3, FLOATS)),
    "a slice that is no message": saved(FLOATS, piece=b"\x0a\x05\x08"),
    "a slice with an end of no group": saved(FLOATS, piece=b"\x0c"),
    "a group in an extent": saved(FLOATS, piece=b"\x0a\x02\x0b\x0c"),
    "two groups in an extent": saved(FLOATS, piece=b"\x0a\x04\x0b\x13\x14\x0c"),
    "the dtype": saved(b"\x08\x01" + FLOATS),
    "a number alone": saved(b"\x08\x01"),
    "a shape alone": saved(field(2, b"\x12\x00")),
    "the content": saved(field(4, b"\x00\x00\x80\x3f")),
    "a resource": saved(field(14, b"")),
    "a resource that is no message": saved(field(14, b"\x0a")),
    "a variant": saved(field(15, b"")),
    "numbers of 32 bits": saved(field(16, b"\x01")),
    "two runs of floats": saved(field(5, b"\x00\x00\x80\x3f") * 2),
    "a dtype after the floats": saved(FLOATS + b"\x08\x01"),
    "strings, and a dtype": saved(field(8, b"a") + field(8, b"b") + b"\x08\x07"),
    "strings, of which the last is cut off": saved(field(8, b"a") * 2 + b"\x42\x02a"),
    "floats that are not packed, and one that is": saved(b"\x2d\x00\x00\x80\x3f" + FLOATS),
    "floats that are cut off": saved(FLOATS[:-1]),
    "floats without a length": saved(b"\x2a"),
    "a length that is no number": saved(b"\x2a" + b"\x80" * 10),
}


@pytest.mark.parametrize("which", UNUSUAL)
def test_a_record_with_anything_else_is_not_usual(which: str) -> None:
    assert record._usual_values(UNUSUAL[which]) is None


@pytest.mark.parametrize("which", UNUSUAL)
def test_a_record_that_is_not_usual_is_decoded_in_the_long_way(
    which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = [
        (kind, count)
        for kind in (DataType.DT_FLOAT, DataType.DT_INT32, DataType.DT_STRING)
        for count in range(3)
    ]

    def answers() -> list[Any]:
        return [answer(decode_record, UNUSUAL[which], kind, count) for kind, count in cases]

    long = counted(monkeypatch, record, "check_nesting")
    found = answers()
    assert sum(one == UNUSUAL[which] for one in long) == len(cases)
    monkeypatch.setattr(record, "_usual_values", lambda *_: None)
    assert found == answers()


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_a_group_in_an_extent_counts_as_a_level(depth: int) -> None:
    """The data, the slice and the extent are three levels: the group is a fourth."""
    data = UNUSUAL["a group in an extent"]
    if depth < 4:
        with pytest.raises(LimitError) as caught:
            decode_record(data, DataType.DT_FLOAT, 2, limits=Limits(nesting=depth))
        assert caught.value.limit == "nesting"
    else:
        assert decode_record(data, 1, 2, limits=Limits(nesting=depth)).tolist() == [1, 2]


# ---- how usual values are decoded

FIXED = {
    DataType.DT_FLOAT: (5, np.array([1.5, -2], "<f4")),
    DataType.DT_DOUBLE: (6, np.array([1.5, -2], "<f8")),
    DataType.DT_COMPLEX64: (9, np.array([1.5 + 1j, -2], "<c8")),
    DataType.DT_COMPLEX128: (12, np.array([1.5 + 1j, -2], "<c16")),
}


@pytest.mark.parametrize("kind", FIXED)
def test_values_that_are_stored_as_their_bytes_are_taken_as_they_are(
    kind: DataType, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, array = FIXED[kind]
    nesting = counted(monkeypatch, record, "find_values")
    decoded = counted(monkeypatch, record, "decode_saved_values")
    for values in (array, array[:1], np.repeat(array, 300)):
        found = decode_record(saved(field(number, values.tobytes())), kind, len(values))
        assert found.dtype == values.dtype.newbyteorder("=")
        assert found.tolist() == values.tolist()
        assert found.flags.writeable
    assert not nesting
    assert not decoded


def test_three_levels_of_messages_are_enough_for_the_short_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    long = counted(monkeypatch, record, "find_values")
    for nesting in (3, 4):
        found = decode_record(saved(FLOATS), DataType.DT_FLOAT, 2, limits=Limits(nesting=nesting))
        assert found.tolist() == [1, 2]
    assert not long
    # Two are enough for a slice without extents, and the long way decides it.
    flat = saved(FLOATS, piece=b"")
    assert decode_record(flat, DataType.DT_FLOAT, 2, limits=Limits(nesting=2)).tolist() == [1, 2]
    assert len(long) == 1


@pytest.mark.parametrize(
    ("kind", "count", "values"),
    [
        (DataType.DT_FLOAT, 1, FLOATS),
        (DataType.DT_FLOAT, 3, FLOATS),
        (DataType.DT_FLOAT, 4, FLOATS),
        (DataType.DT_FLOAT, 0, FLOATS),
        (DataType.DT_FLOAT, 0, b""),
        (DataType.DT_FLOAT, 1, b""),
        (DataType.DT_FLOAT, 0, field(5, b"")),
        (DataType.DT_FLOAT, 2, field(5, b"\x00" * 7)),
        # Of another type than the list says: their field is not looked at.
        (DataType.DT_DOUBLE, 1, FLOATS),
        (DataType.DT_DOUBLE, 0, FLOATS),
        (DataType.DT_FLOAT, 2, field(6, bytes(8))),
        (DataType.DT_FLOAT, 0, field(6, bytes(8))),
        (DataType.DT_COMPLEX64, 1, FLOATS),
        (DataType.DT_COMPLEX64, 1, field(9, bytes(12))),
        # Those of other types are decoded by what decodes them in every record.
        (DataType.DT_INT32, 2, field(7, b"\x01\x02")),
        (DataType.DT_INT32, 8, FLOATS),
        (DataType.DT_UINT8, 2, field(7, b"\x01\x02")),
        (DataType.DT_STRING, 1, field(8, b"ab")),
        (DataType.DT_HALF, 1, field(13, b"\x80\x78")),
        (DataType.DT_INVALID, 2, FLOATS),
        (999, 2, FLOATS),
    ],
)
def test_usual_records_are_decoded_to_what_the_long_way_says(
    kind: int, count: int, values: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = counted(monkeypatch, record, "find_values")
    data = saved(values)
    short = answer(decode_record, data, kind, count)
    assert not long
    monkeypatch.setattr(record, "_usual_values", lambda *_: None)
    assert answer(decode_record, data, kind, count) == short
    assert len(long) == 1


def test_the_bytes_of_the_values_are_taken_from_the_budget_of_the_call() -> None:
    data = saved(FLOATS)
    budget = Budget(Limits(memory_bytes=16), 0)
    decode_record(data, DataType.DT_FLOAT, 2, budget=budget)
    decode_record(data, DataType.DT_FLOAT, 2, budget=budget)
    with pytest.raises(LimitError) as caught:
        decode_record(data, DataType.DT_FLOAT, 2, budget=budget)
    assert caught.value.limit == "memory_bytes"
    # A call without one may take what the message holds.
    alone = decode_record(data, DataType.DT_FLOAT, 2, limits=Limits(memory_bytes=0))
    assert alone.tolist() == [1, 2]


# ---- lists


def listing(*tensors: bytes) -> bytes:
    return field(1, b"".join(field(1, one) for one in tensors) + field(2, version_proto()))


REST = field(2, shape_proto([8])) + b"\x18\x01"
"""What follows a name: the shape, and the DataType float."""
WHOLE = field(4, slice_proto([None]))


def names_of(*tensors: bytes) -> list[str]:
    return [one.name for one in decode_metadata(listing(*tensors), limits=DEFAULT_LIMITS)]


@pytest.mark.parametrize("name", [b"w", b"w" * 10, "é".encode(), b"w" * 127])
def test_what_follows_a_name_is_decoded_once_for_all_that_have_it(
    name: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = counted(monkeypatch, metadata._ListDecoder, "_take_apart")
    tensors = [field(1, one) + REST + WHOLE for one in (name, b"other", name, b"")]
    assert names_of(*tensors) == [name.decode(), "other", name.decode(), ""]
    assert len(taken) == 1


@pytest.mark.parametrize(("count", "times"), [(1, 1), (4, 1), (5, 2)])
def test_what_follows_a_name_is_kept_if_it_has_four_slices_at_most(
    count: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = counted(monkeypatch, metadata._ListDecoder, "_take_apart")
    slices = b"".join(field(4, slice_proto([(at, 1)])) for at in range(count))
    assert names_of(field(1, b"a") + REST + slices, field(1, b"b") + REST + slices) == ["a", "b"]
    assert len(taken) == times


def test_a_name_whose_length_takes_two_bytes_is_all_of_it() -> None:
    """If their first byte were taken for the length, both names would end with the same bytes."""
    for size in (128, 129, 200):
        names = [bytes([first]) * (size - 1) + b"z" for first in b"ab"]
        assert names_of(*(field(1, one) + REST + WHOLE for one in names)) == [
            one.decode() for one in names
        ]


def test_of_two_names_of_a_tensor_the_last_counts_also_for_those_after_it() -> None:
    twice = [field(1, one) + REST + WHOLE + field(1, b"last") for one in (b"a", b"b", b"c")]
    assert names_of(*twice) == ["last"] * 3
    assert names_of(field(1, b"a") + REST + WHOLE, *twice) == ["a", *["last"] * 3]


def test_a_name_that_is_not_first_counts_however_often_it_comes() -> None:
    late = REST + WHOLE + field(1, b"late")
    assert names_of(late, late, late) == ["late"] * 3
    # After a first name these bytes are the rest, and their name counts, too.
    assert names_of(late, field(1, b"a") + late) == ["late"] * 2


def test_a_tensor_without_a_name_is_not_taken_for_another_ones_rest() -> None:
    bare = REST + WHOLE
    assert names_of(bare, field(1, b"a") + bare, bare) == ["", "a", ""]


@pytest.mark.parametrize("cut", [b"\x0a\x05ab", b"\x0a\x01", b"\x0a\x7f", b"\x0a"])
def test_a_tensor_that_is_cut_off_within_its_name_is_malformed_after_any_other(cut: bytes) -> None:
    """A name alone is a tensor without slices, which is left out. What is cut off is no message."""
    assert names_of(b"\x0a\x01a", b"\x0a\x00", b"") == []
    for before in ([], [b"\x0a\x01a"], [b"\x0a\x00"], [field(1, b"a") + REST + WHOLE]):
        with pytest.raises(MalformedError):
            names_of(*before, cut)


def test_a_tensor_without_a_data_type_has_none() -> None:
    tensor = field(1, b"a") + field(2, shape_proto([8])) + WHOLE
    (found,) = decode_metadata(listing(tensor), limits=DEFAULT_LIMITS)
    assert (found.data_type, found.shape) == (0, (8,))
    assert [str(piece) for piece in found.slices] == ["-"]


def test_the_slices_of_a_tensor_are_as_many_as_the_limit_says_at_most() -> None:
    two = b"".join(field(4, slice_proto([(at, 1)])) for at in (0, 1))
    value = listing(field(1, b"a") + REST + two)
    (found,) = decode_metadata(value, limits=Limits(slices=2))
    assert len(found.slices) == 2
    with pytest.raises(LimitError, match="is 2") as caught:
        decode_metadata(value, limits=Limits(slices=1))
    assert (caught.value.limit, caught.value.tensor) == ("slices", "a")


def test_one_tensor_more_than_the_limit_allows_is_what_the_error_says() -> None:
    value = listing(*(field(1, one) + REST + WHOLE for one in (b"a", b"b", b"c")))
    with pytest.raises(LimitError, match="is 3, and") as caught:
        decode_metadata(value, limits=Limits(entries=2))
    assert caught.value.limit == "entries"


def test_a_slice_beyond_its_tensor_is_malformed_and_the_error_names_it() -> None:
    outside = field(4, slice_proto([(7, 2)]))
    with pytest.raises(MalformedError) as caught:
        names_of(field(1, b"a") + REST + outside)
    assert caught.value.tensor == "a"


def test_a_shape_of_more_elements_than_can_be_counted_is_malformed() -> None:
    huge = field(2, shape_proto([1 << 40, 1 << 40])) + b"\x18\x01"
    with pytest.raises(MalformedError):
        names_of(field(1, b"a") + huge + field(4, slice_proto([None, None])))


def test_the_versions_of_a_list_are_checked_as_all_their_fields_joined_say() -> None:
    tensor = field(1, field(1, b"a") + REST + WHOLE)

    def read(*versions: bytes) -> int:
        value = field(1, b"".join((tensor, *(field(2, one) for one in versions))))
        return len(decode_metadata(value, limits=DEFAULT_LIMITS))

    assert read(version_proto()) == read(b"", version_proto()) == 1
    with pytest.raises(ckptparse.UnsupportedError):
        read(version_proto(min_consumer=99))
    with pytest.raises(ckptparse.UnsupportedError):
        read(version_proto(min_consumer=99), version_proto())


@pytest.mark.parametrize("level", ["in the value", "in the list", "in a tensor"])
def test_a_list_has_few_fields_that_tensorflow_does_not_write(level: str) -> None:
    # One tensor or slice for each KiB, and ten tensors: eight fields for each, and 8 more, of which
    # four are taken.
    limits = Limits(small_tensors=30, single_entries=0)
    for count, allowed in ((84, True), (85, False)):
        odd = b"\xa0\x06\x01" * count
        tensor = odd if level == "in a tensor" else b""
        meta = field(1, field(1, b"w") + tensor) + (odd if level == "in the list" else b"")
        value = field(1, meta + field(2, b"\x08\x01")) + (odd if level == "in the value" else b"")
        if allowed:
            assert decode_metadata(value, limits=limits, held=1000) == []
            continue
        with pytest.raises(LimitError, match="fields of a list") as caught:
            decode_metadata(value, limits=limits, held=1000)
        assert caught.value.limit == "small_tensors"
        assert decode_metadata(value, limits=limits, held=2000) == []


@pytest.mark.parametrize("fields", [9998, 9999])
def test_a_group_has_less_than_ten_thousand_fields(fields: int) -> None:
    data = b"\x23" + b"\x28\x01" * fields + b"\x24"
    if fields == 9998:
        assert [one[:2] for one in wire.iter_fields(data)] == [(4, wire.GROUP)]
        return
    with pytest.raises(LimitError, match="less than 10000 fields in groups") as caught:
        list(wire.iter_fields(data))
    assert caught.value.limit == "nesting"


def test_what_is_in_the_groups_of_a_list_counts_as_fields() -> None:
    # 88 fields are allowed: two are taken for the meta and the group, and its tags are in between.
    limits = Limits(small_tensors=30, single_entries=0)
    for count, allowed in ((85, True), (87, False)):
        value = field(1, field(2, b"\x08\x01") + b"\x23" + b"\x28\x01" * count + b"\x24")
        if allowed:
            assert decode_metadata(value, limits=limits, held=1000) == []
            continue
        with pytest.raises(LimitError, match="fields of a list"):
            decode_metadata(value, limits=limits, held=1000)


def test_a_slice_of_more_dimensions_than_a_tensor_may_have_is_not_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = counted(monkeypatch, metadata.TensorSlice, "from_proto")
    tensor = field(1, b"w") + field(2, b"") + field(4, b"\x0a\x00" * 255)
    value = field(1, field(1, tensor) + field(2, b"\x08\x01"))
    with pytest.raises(LimitError, match=r"Limits\.rank allows 254"):
        decode_metadata(value, limits=DEFAULT_LIMITS)
    assert not made
