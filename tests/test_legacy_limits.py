"""Tensors, slices, strings and fields of V1 files: as many as are allowed, and no more."""

from __future__ import annotations

from dataclasses import replace

import builder
import numpy as np
import pytest
from builder import field
from v1_builder import LegacyFile, Listed, Slice, record

import ckptparse
from ckptparse.dtypes import DataType
from ckptparse.errors import CheckpointError, LimitError, MalformedError
from ckptparse.legacy import metadata
from ckptparse.legacy.metadata import SliceList, decode_metadata, most_listed, strings_of
from ckptparse.legacy.record import check_record, decode_record
from ckptparse.limits import DEFAULT_LIMITS, Limits

pytestmark = pytest.mark.proto

ONES = np.ones(2, np.float32)
HELD = 1 << 12
"""Bytes of a file that allow one entry more, and four tensors more."""


def listed(name: str, rank: int = 1, slices: int = 1, *, number: int = builder.FLOAT) -> bytes:
    """A tensor of a list: of one slice it is whole, else it is cut along its first axis."""
    cuts = [None] if slices == 1 else [(start, 1) for start in range(slices)]
    pieces = [Slice([cut, *[None] * (rank - 1)][:rank], b"") for cut in cuts]
    return Listed(name.encode(), [slices] + [1] * (rank - 1), number, pieces).meta()


def meta(*tensors: bytes, more: bytes = b"") -> bytes:
    body = b"".join(field(1, one) for one in tensors)
    return field(1, body + field(2, builder.version_proto()) + more)


def names(found: list[SliceList]) -> list[str]:
    return [one.name for one in found]


def refused(value: bytes, limits: Limits, held: int | None = 0) -> LimitError:
    with pytest.raises(LimitError) as caught:
        decode_metadata(value, limits=limits, held=held)
    return caught.value


# ------------------------------------------------------------------------------- lists


def test_a_file_may_name_whole_tensors_and_others_by_its_size() -> None:
    limits = Limits(small_tensors=9, single_entries=2)
    assert most_listed(limits, 0) == 3 + 2
    assert most_listed(limits, HELD) == (3 + 4) + (2 + 1)


def test_as_many_tensors_as_a_file_may_have_are_listed_and_no_more() -> None:
    limits = Limits(small_tensors=9, single_entries=2)
    five = [listed(f"t{number}") for number in range(5)]
    assert len(decode_metadata(meta(*five), limits=limits, held=0)) == 5
    error = refused(meta(*five, listed("t5")), limits)
    assert error.limit == "small_tensors" and "list names is 6, and" in str(error)
    assert len(decode_metadata(meta(*five, listed("t5")), limits=limits, held=HELD)) == 6


@pytest.mark.parametrize(
    ("rank", "slices", "count"),
    [(7, 1, 0), (8, 1, 1), (15, 1, 1), (16, 1, 2), (1, 2, 2), (7, 3, 3), (8, 2, 4), (16, 3, 9)],
)
def test_slices_count_by_their_dimensions_and_whole_tensors_of_few_count_for_nothing(
    rank: int, slices: int, count: int
) -> None:
    value = meta(listed("a", rank, slices))
    limits = Limits(single_entries=count)
    assert names(decode_metadata(value, limits=limits, held=0)) == ["a"]
    if count:
        error = refused(value, replace(limits, single_entries=count - 1))
        assert error.limit == "single_entries" and f"dimensions, is {count}, and" in str(error)


@pytest.mark.parametrize("slices", [1, 2])
def test_slices_of_tensors_that_say_the_same_count_for_each(slices: int) -> None:
    """Only the first of them is decoded."""
    value = meta(*(listed(name, 8, slices) for name in "abc"))
    each = slices + slices * (slices > 1)
    limits = Limits(single_entries=3 * each)
    assert names(decode_metadata(value, limits=limits, held=0)) == ["a", "b", "c"]
    error = refused(value, replace(limits, single_entries=3 * each - 1))
    assert f"dimensions, is {3 * each}, and" in str(error)


def test_of_tensors_that_say_the_same_the_first_is_taken_apart_if_it_has_few_slices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[bytes] = []
    decode = metadata._ListDecoder._take_apart

    def count(self: metadata._ListDecoder, data: bytes) -> object:
        taken.append(data)
        return decode(self, data)

    monkeypatch.setattr(metadata._ListDecoder, "_take_apart", count)
    for slices, expected in ((4, 1), (5, 3)):
        taken.clear()
        value = meta(*(listed(name, 1, slices) for name in "abc"))
        assert names(decode_metadata(value, limits=DEFAULT_LIMITS)) == ["a", "b", "c"]
        assert len(taken) == expected


def test_a_tensor_that_is_cut_within_its_name_is_malformed_behind_one_that_is_a_name_alone() -> (
    None
):
    alone = field(1, b"a")
    assert decode_metadata(meta(alone), limits=DEFAULT_LIMITS) == []
    with pytest.raises(MalformedError):
        decode_metadata(meta(alone, field(1, b"abc")[:-1]), limits=DEFAULT_LIMITS)


def test_what_is_no_list_of_tensors_is_not_taken_for_one() -> None:
    """A message in another field, and a number in the list's own."""
    value = meta(listed("a"))
    body = field(1, listed("b"))
    for more in (field(2, body), field(9, body), field(1, 7), field(1, (1 << 63) | 0x0A)):
        assert names(decode_metadata(value + more, limits=DEFAULT_LIMITS)) == ["a"]


def test_fields_of_a_list_are_counted_and_the_error_says_how_many() -> None:
    limits = Limits(small_tensors=0, single_entries=0)
    # Eight for none: the list, and its versions, are two.
    value = meta(more=field(9, 0) * 6)
    assert decode_metadata(value, limits=limits, held=0) == []
    error = refused(meta(more=field(9, 0) * 7), limits)
    assert error.limit == "small_tensors" and "that is allowed, is 9, and" in str(error)


@pytest.mark.parametrize(("held", "count"), [(0, 0), (9, 0), (10, 5), (11, 5)])
def test_strings_that_a_file_has_no_room_for_count_for_nothing(held: int, count: int) -> None:
    five = int(DataType.DT_STRING), (5,)
    assert strings_of([five, (int(DataType.DT_FLOAT), (3,))], held) == count


def test_strings_of_more_than_half_the_bytes_count_for_nothing() -> None:
    assert strings_of([(int(DataType.DT_STRING), (6,))], 11) == 0


# ------------------------------------------------------------------------------- files


def opened(file: LegacyFile, limits: Limits) -> list[str]:
    with ckptparse.open("m", store={"m": file.data()}, limits=limits) as checkpoint:
        return list(checkpoint)


def of(whole: int = 0, cut: int = 0, strings: int = 0) -> LegacyFile:
    file = LegacyFile()
    for number in range(whole):
        file.add(f"w{number}", ONES)
    for number in range(cut):
        one = file.declare(f"c{number}", (2,), builder.FLOAT)
        for start in range(2):
            file.add_slice(one, [(start, 1)], ONES[:1])
    if strings:
        file.add("s", np.full(strings, b"", object))
    assert len(file.data()) < 1 << 10 or strings
    return file


def test_whole_tensors_are_as_many_as_the_files_may_have_and_slices_are_no_part_of_them() -> None:
    limits = Limits(small_tensors=9, single_entries=6)
    assert len(opened(of(3, 3), limits)) == 6
    with pytest.raises(LimitError) as caught:
        opened(of(4, 3), limits)
    assert caught.value.limit == "small_tensors"
    assert "each KiB of the files, is 8, and Limits.small_tensors allows 9" in str(caught.value)


def test_slices_are_as_many_as_the_files_may_have() -> None:
    limits = Limits(small_tensors=9, single_entries=6)
    assert len(opened(of(0, 3), limits)) == 3
    with pytest.raises(LimitError) as caught:
        opened(of(0, 3), replace(limits, single_entries=5))
    assert caught.value.limit == "single_entries"


def test_slices_of_all_files_count_together() -> None:
    """No file alone has too many, so that only who joins them sees it."""
    limits = Limits(small_tensors=9, single_entries=4)
    names = [f"m-{number:05d}-of-00002" for number in range(2)]
    parts = []
    for number in range(2):
        file = LegacyFile()
        one = file.declare("c", (6,), builder.FLOAT)
        for start in range(3 * number, 3 * number + 3):
            file.add_slice(one, [(start, 1)], ONES[:1])
        parts.append(file.data())
    store = dict(zip(names, parts, strict=True))
    found = ckptparse.read(
        "m-?????-of-00002", store=store, limits=replace(limits, single_entries=6)
    )
    assert found["c"].shape == (6,)
    for allowed in (5, 4):
        with pytest.raises(LimitError) as caught:
            ckptparse.read(
                "m-?????-of-00002", store=store, limits=replace(limits, single_entries=allowed)
            )
        assert caught.value.limit == "single_entries"
        assert "slices in V1 files is 6" in str(caught.value)


def test_strings_are_as_many_as_the_files_may_have() -> None:
    file = of(strings=2000)
    free = 2000 - (len(file.data()) >> 3)
    assert opened(file, Limits(strings=free << 8)) == ["s"]
    with pytest.raises(LimitError) as caught:
        opened(file, Limits(strings=(free << 8) - 1))
    assert caught.value.limit == "strings"


# ------------------------------------------------------------------------------- records


def of_values(values: bytes) -> bytes:
    return record(b"a", Slice([None], values))


USUAL = [
    *(field(number, bytes(16)) for number in (5, 6, 7, 9, 10, 11, 12, 13)),
    *(field(number, 1) * 100 for number in range(5, 14)),
    field(8, b"a") * 100,
    b"",
]
"""Values in one field, and such that are not packed."""


@pytest.mark.parametrize("values", USUAL)
def test_a_record_as_tensorflow_writes_it_may_have_any_number_of_values(values: bytes) -> None:
    """It counts for nothing: such of another form would have two fields too many."""
    check_record(of_values(values), DEFAULT_LIMITS)


def odd(fields: int, name: int) -> bytes:
    """A record of so many fields, of all levels; TensorFlow does not write those of its values."""
    return record(b"n" * name, Slice([None], field(1, 7) * (fields - 5)))


@pytest.mark.parametrize("entries", [0, 256 * 16, 256 * 20, 256 * 20 + 255])
@pytest.mark.parametrize("name", [1, 64 * 64])
def test_a_record_of_another_form_has_few_fields(entries: int, name: int) -> None:
    limits = Limits(single_entries=entries)
    fields = max(16, entries // 256)
    while fields < max(16, entries // 256) + len(odd(fields, name)) // 64:
        fields += 1
    check_record(odd(fields, name), limits)
    values = decode_record(odd(fields, name), DataType.DT_FLOAT, 0, limits=limits)
    assert values.shape == (0,)
    more = odd(fields + 1, name)
    for call in (
        lambda: check_record(more, limits),
        lambda: decode_record(more, DataType.DT_FLOAT, 0, limits=limits),
    ):
        with pytest.raises(LimitError) as caught:
            call()
        assert caught.value.limit == "single_entries"
        assert f"than {fields}: 1/256" in str(caught.value)


def test_a_record_that_is_no_message_is_refused_by_who_checks_it() -> None:
    with pytest.raises(CheckpointError):
        check_record(of_values(b"\xff"), DEFAULT_LIMITS)


def test_a_record_may_have_as_many_levels_as_are_allowed() -> None:
    # One of three levels is as TensorFlow writes it: its values are not counted.
    check_record(of_values(field(8, b"a") * 100), Limits(nesting=3))
    with pytest.raises(LimitError) as caught:
        check_record(of_values(field(5, bytes(8))), Limits(nesting=2))
    assert caught.value.limit == "nesting"


def test_strings_where_numbers_are_listed_are_fields_that_tensorflow_does_not_write() -> None:
    few = Limits(single_entries=0)
    strings = of_values(field(8, b"ab") * 40)
    assert decode_record(strings, DataType.DT_STRING, 40, limits=few).tolist() == [b"ab"] * 40
    with pytest.raises(LimitError):
        decode_record(strings, DataType.DT_INT32, 0, limits=few)
    numbers = of_values(field(7, 3) * 40)
    assert decode_record(numbers, DataType.DT_INT32, 40, limits=few).tolist() == [3] * 40
    with pytest.raises(LimitError):
        decode_record(numbers, DataType.DT_STRING, 0, limits=few)
