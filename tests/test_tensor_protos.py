"""Constants that are read together are what each is by itself, and none of them is by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import builder as b
import graph_builder as g
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptparse
from ckptparse import tensor_proto, typed_fields
from ckptparse.dtypes import DataType as D
from ckptparse.errors import CheckpointError, LimitError
from ckptparse.graph import attributes
from ckptparse.limits import DEFAULT_LIMITS, Budget, Limits
from ckptparse.proto.wire import iter_fields
from ckptparse.tensor_proto import decode_tensor_bytes, decode_tensor_header
from ckptparse.tensor_protos import decode_part, decode_together
from ckptparse.typed_fields import TYPED_FIELDS

KINDS = [D.DT_FLOAT, D.DT_INT32, D.DT_INT64, D.DT_BOOL, D.DT_HALF, D.DT_UINT8, D.DT_COMPLEX64]
VARINTS = [b"\x01", b"\x80\x01", b"\xff" * 9 + b"\x01", b"\x81\x00", b"\xff" * 10, b"\x80"]


def alone(message: bytes) -> Any:
    try:
        return decode_tensor_bytes(message)
    except CheckpointError as error:
        return type(error)


def together(messages: list[bytes]) -> list[Any]:
    shapes = [decode_tensor_header(message).shape for message in messages]
    return decode_together(messages, shapes, budget=Budget(DEFAULT_LIMITS, 1 << 20))


def check(messages: list[bytes]) -> int:
    """Compare with the way of each; return how many were decoded together."""
    count = 0
    for message, found in zip(messages, together(messages), strict=True):
        if found is not None:
            expected = alone(message)
            assert expected.dtype == found.dtype
            assert expected.shape == found.shape
            assert expected.tobytes() == found.tobytes()
            assert found.flags.writeable
            assert found.flags.owndata
            count += 1
    return count


def typed(kind: int, count: int, value: bytes) -> bytes:
    return b.tensor_proto(kind, [count], b.field(TYPED_FIELDS[kind][0], value * count))


def content(kind: int, shape: list[int], value: bytes) -> bytes:
    return b.tensor_proto(kind, shape, b.field(4, value))


def test_plain_tensors_of_all_kinds_are_decoded_together() -> None:
    messages = [
        typed(D.DT_FLOAT, 1, np.float32(1.5).tobytes()),
        typed(D.DT_FLOAT, 3, b"\x01\x00\xa0\x7f"),
        typed(D.DT_DOUBLE, 2, np.float64(2.5).tobytes()),
        typed(D.DT_INT32, 3, b"\x96\x01"),
        typed(D.DT_INT8, 1, b"\xff" * 9 + b"\x01"),
        typed(D.DT_INT64, 200, b"\x81\x01"),
        typed(D.DT_BOOL, 2, b"\x02"),
        typed(D.DT_HALF, 2, b"\x80\x78"),
        typed(D.DT_INT4, 2, b"\x7f"),
        typed(D.DT_COMPLEX64, 2, np.complex64(1 + 2j).tobytes()),
        content(D.DT_FLOAT, [2, 1], bytes(range(8))),
        content(D.DT_BOOL, [3], b"\x00\x02\x01"),
        content(D.DT_INT4, [2], b"\xf7\x08"),
        content(D.DT_INT64, [1, 1, 1], bytes(range(8))),
        content(D.DT_FLOAT, [100], bytes(400)),
        b.tensor_proto(D.DT_FLOAT, [], b.field(5, b"\x00\x00\x80\x3f")),
        b.tensor_proto(D.DT_FLOAT, [0]),
        b.tensor_proto(D.DT_BOOL, [3, 0], b.field(11, b"")),
        b.tensor_proto(D.DT_INT64, [3, 0], b.field(4, b"")),
    ]
    assert check(messages) == len(messages)
    assert check(messages[::-1]) == len(messages)


@pytest.mark.parametrize(
    "message",
    [
        b.tensor_proto(D.DT_FLOAT, [1 << 20], b.field(5, b"\x00\x00\x80\x3f")),
        b.tensor_proto(D.DT_FLOAT, [2], b.field(4, b"\x00\x00\x80\x3f")),
        b.tensor_proto(D.DT_FLOAT, [1], b.field(5, b"\x00\x00\x80\x3f" * 2)),
        b.tensor_proto(D.DT_FLOAT, [2]),
        b.tensor_proto(D.DT_STRING, [0]),
        b.tensor_proto(D.DT_FLOAT, [0, 1 << 31, 1 << 31, 1 << 31]),
        b.tensor_proto(D.DT_FLOAT, [1], b.field(5, b"abc")),
        b.tensor_proto(D.DT_FLOAT, [1], b.field(4, b"abc")),
        b.tensor_proto(D.DT_FLOAT, [1], b.field32(5, 1)),
        b.tensor_proto(D.DT_FLOAT, [1], b.field(6, bytes(8))),
        b.tensor_proto(D.DT_FLOAT, [1], b.field(5, bytes(4)) + b.field(4, bytes(4))),
        b.tensor_proto(D.DT_INT32, [1], b.field(7, b"\x80")),
        b.tensor_proto(D.DT_INT32, [1], b.field(7, 3)),
        b.tensor_proto(D.DT_STRING, [1], b.field(8, b"a")),
        b.tensor_proto(99, [1], b.field(7, b"a")),
        b.tensor_proto(D.DT_FLOAT, [1] * 40, b.field(5, bytes(4))),
        b.field(2, b"") + b.field(1, D.DT_FLOAT) + b.field(5, bytes(4)),
        b"",
    ],
)
def test_other_tensors_are_left(message: bytes) -> None:
    plain = typed(D.DT_FLOAT, 1, bytes(4))
    assert together([plain, message, plain])[1] is None
    assert check([plain, message, plain]) == 2


def test_values_that_repeat_are_filled() -> None:
    two = b.field(5, bytes(4) + b"\x00\x00\x80\x3f")
    filled = [
        b.tensor_proto(D.DT_FLOAT, [2, 3], two),
        b.tensor_proto(D.DT_FLOAT, [1 << 14], b.field(5, bytes(4))),
        b.tensor_proto(D.DT_INT64, [5], b.field(10, b"\x01\x02")),
        b.tensor_proto(D.DT_BOOL, [5], b.field(11, b"\x01")),
        b.tensor_proto(D.DT_BFLOAT16, [5], b.field(13, b"\x80\x7f")),
        b.tensor_proto(D.DT_COMPLEX64, [5], b.field(9, bytes(8))),
    ]
    assert check(filled) == len(filled)
    shapes, none = [(2, 3)], Limits(fill_bytes=23)
    assert decode_together(filled[:1], shapes, budget=Budget(none, 1 << 20)) == [None]


def test_a_bad_varint_leaves_those_of_its_kind_alone() -> None:
    bad = typed(D.DT_INT32, 1, b"\xff" * 11 + b"\x01")
    good = typed(D.DT_INT32, 1, b"\x01"), typed(D.DT_INT64, 1, b"\x01")
    assert check([*good, bad]) == 1
    assert alone(bad) is ckptparse.MalformedError


@given(
    st.lists(
        st.tuples(
            st.sampled_from(KINDS),
            st.lists(st.integers(0, 3), max_size=3),
            st.sampled_from([4, 5, 7, 9, 10, 11, 13]),
            st.lists(
                st.sampled_from([*VARINTS, bytes(4), b"\x00\x00\x80\x3f", b"\x7f"]), max_size=4
            ),
        ),
        max_size=6,
    )
)
@settings(max_examples=300, deadline=None)
def test_any_tensors_are_the_same_as_alone(parts: list[Any]) -> None:
    check([b.tensor_proto(kind, shape, b.field(n, b"".join(v))) for kind, shape, n, v in parts])


def test_what_all_take_is_counted() -> None:
    messages = [typed(D.DT_FLOAT, 100, bytes(4))] * 10
    budget = Budget(Limits(memory_bytes=1000), 0)
    with pytest.raises(LimitError, match="memory_bytes"):
        decode_together(messages, [(100,)] * 10, budget=budget)


def runs_of(data: bytes) -> tuple[dict[tuple[int, int], bytes], str]:
    """All contents of each field, joined, and the error at the end."""
    found: dict[tuple[int, int], bytes] = {}
    try:
        for number, wire, piece in typed_fields.iter_runs(memoryview(data)):
            found[number, wire] = found.get((number, wire), b"") + bytes(piece)
    except CheckpointError as error:
        return found, error.message
    return found, ""


def fields_of(data: bytes) -> tuple[dict[tuple[int, int], bytes], str]:
    found: dict[tuple[int, int], bytes] = {}
    try:
        for number, wire, first, last in iter_fields(data):
            found[number, wire] = found.get((number, wire), b"") + data[first:last]
    except CheckpointError as error:
        return found, error.message
    return found, ""


FIELDS = [
    b"\x50\x01", b"\x50\x81\x00", b"\x50" + b"\xff" * 9 + b"\x01", b"\x50" + b"\xff" * 10 + b"\x01",
    b"\xd0\x00\x01", b"\x2d\x00\x50\x80\x3f", b"\x31\x50\x31" + bytes(6), b"\x52\x02\x50\x01",
    b"\x50\x50", b"\x50", b"\x53\x54", b"\x80\x01\x07", b"\x2d", b"\x08\x03", b"\x00\x00",
]  # fmt: skip


@given(
    st.lists(st.tuples(st.sampled_from(FIELDS), st.sampled_from([1, 2, 33, 40, 300])), max_size=6)
)
@settings(max_examples=400, deadline=None)
def test_runs_have_the_values_of_the_fields(parts: list[tuple[bytes, int]]) -> None:
    data = b"".join(field * count for field, count in parts)
    assert runs_of(data) == fields_of(data)


@pytest.mark.parametrize(
    "field", [b"\x50\x01", b"\x50\x80\x01", b"\x2d" + bytes(4), b"\x31" + bytes(8)]
)
def test_values_that_are_not_packed_are_not_walked_one_by_one(
    field: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    walked = 0

    def counted(*args: Any) -> Any:
        nonlocal walked
        for one in iter_fields(*args):
            walked += 1
            yield one

    monkeypatch.setattr(typed_fields, "iter_fields", counted)
    data = b.tensor_proto(D.DT_FLOAT, []) + field * 50_000 + b.field(4, b"")
    pieces = list(typed_fields.iter_runs(memoryview(data)))
    assert walked < 100
    assert sum(len(piece) for *_, piece in pieces) > 50_000 * (len(field) - 1)
    assert pieces[-1][:2] == (4, 2)


@pytest.mark.parametrize(
    "message",
    [
        content(D.DT_FLOAT, [4, 3], bytes(range(48))),
        content(D.DT_HALF, [4, 3], b"\x01\x7d" * 12),
        typed(D.DT_FLOAT, 12, b"\x01\x00\xa0\x7f"),
        b.tensor_proto(D.DT_DOUBLE, [4, 3], b.field(6, bytes(range(8)))),
    ],
)
def test_a_part_is_that_of_the_whole(message: bytes) -> None:
    whole = decode_tensor_bytes(message)
    index = (slice(1, 4, 2), slice(2, None, -1))[: whole.ndim]
    found = decode_part(message, index, limits=DEFAULT_LIMITS)
    assert found is not None
    assert found.dtype == whole.dtype
    assert found.tobytes() == whole[index].tobytes()
    assert found.flags.writeable
    assert found.flags.c_contiguous


@pytest.mark.parametrize(
    "message",
    [
        content(D.DT_BOOL, [2], b"\x02\x00"),
        content(D.DT_INT4, [2], b"\xff\x00"),
        content(D.DT_FLOAT, [2], bytes(4)),
        typed(D.DT_INT32, 2, b"\x01"),
        b.tensor_proto(D.DT_FLOAT, [3], b.field(5, bytes(8))),
        b.tensor_proto(D.DT_FLOAT, [2]),
        b.tensor_proto(D.DT_STRING, [2], b.field(8, b"abcd")),
        b.tensor_proto(99, [2], b.field(5, bytes(8))),
    ],
)
def test_a_part_of_other_tensors_is_left(message: bytes) -> None:
    assert decode_part(message, (slice(0, 1),), limits=DEFAULT_LIMITS) is None


def test_a_part_of_values_that_repeat_meets_the_limit_of_the_whole() -> None:
    message = b.tensor_proto(D.DT_FLOAT, [1000], b.field(5, bytes(4)))
    with pytest.raises(LimitError, match="fill_bytes"):
        decode_part(message, (slice(0, 1),), limits=Limits(fill_bytes=3999))


def test_parts_of_a_constant_are_read_without_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    made = g.constant("c", b.field(4, bytes(4000)), dims=[1000])
    tensor = ckptparse.open_graph("g.pb", store={"g.pb": g.graph([made])}).constants["c"]
    monkeypatch.setattr(attributes, "decode_tensor_bytes", None)
    assert tensor[5:10].tolist() == [0.0] * 5


CALLS: dict[str, Callable[[str, Path], object]] = {
    "read": lambda path, _: ckptparse.read(path),
    "stats": lambda path, _: ckptparse.stats(path),
    "verify": lambda path, _: ckptparse.verify(path),
    "page": lambda path, out: ckptparse.report_page(path, out / "page.html"),
}


@pytest.mark.parametrize("call", CALLS)
def test_small_constants_are_not_read_one_by_one(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [g.constant(f"c{n}", b.field(5, np.float32(n).tobytes())) for n in range(300)]
    path = tmp_path / "g.pb"
    path.write_bytes(g.graph(made))
    calls: list[object] = []

    def counted(data: Any, **options: Any) -> Any:
        calls.append(data)
        return decode_tensor_bytes(data, **options)

    monkeypatch.setattr(attributes, "decode_tensor_bytes", counted)
    monkeypatch.setattr(attributes, "check_tensor_bytes", counted)
    CALLS[call](str(path), tmp_path)
    assert not calls


def test_headers_of_plain_messages_are_not_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    message = typed(D.DT_FLOAT, 1, bytes(4))
    other = b.field(2, b.field(2, b.field(1, 1))) + b.field(1, D.DT_FLOAT) + b.field(5, bytes(4))
    expected = decode_tensor_header(message)
    assert decode_tensor_header(other) == expected
    monkeypatch.setattr(tensor_proto, "iter_runs", None)
    assert decode_tensor_header(message) == expected


def test_statistics_of_constants_are_those_of_their_values(tmp_path: Path) -> None:
    values = [float(n) for n in range(50)]
    made = [g.constant(f"c{n}", b.field(5, np.float32(n).tobytes())) for n in values]
    path = tmp_path / "g.pb"
    path.write_bytes(g.graph(made))
    found = ckptparse.stats(path)
    assert [found[f"c{n}"].mean for n in values] == values
