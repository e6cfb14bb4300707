"""Many shapes of an index are decoded together; those of another form go to the bindings."""

from __future__ import annotations

import builder as b
import numpy as np
import pytest

from ckptparse.bundle import shapes
from ckptparse.bundle.shapes import Shapes
from ckptparse.errors import MalformedError

LARGEST = 2**63 - 1


class Decoding:
    """Decodes shapes, and notes which of them need the bindings."""

    def __init__(self, most_rank: int = 3) -> None:
        self.singly: list[bytes] = []
        self.odd: list[int] = []
        self.shapes = Shapes(self.decode_shape, most_rank=most_rank, take_odd=self.odd.append)

    def decode_shape(self, data: bytes) -> tuple[int, ...]:
        self.singly.append(data)
        if data.endswith(b"?"):
            raise MalformedError("no shape")
        return (2, 3)

    def find(self, *values: bytes) -> list[tuple[tuple[int, ...], int]]:
        """Return the shape and the elements of each."""
        ends = np.cumsum([len(value) for value in values], dtype=np.int64)
        starts = ends - np.array([len(value) for value in values], np.int64)
        found, counts = self.shapes.find(b"".join(values) + bytes(16), starts, ends)
        return list(zip(found, counts.tolist(), strict=True))


@pytest.fixture(autouse=True)
def _few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few shapes are enough to be decoded together, unless a test is about how many."""
    if "count" not in request.fixturenames:
        monkeypatch.setattr(shapes, "_FEW", 0)


@pytest.mark.parametrize(("count", "singly"), [(32, 32), (33, 0)])
def test_more_than_32_shapes_are_decoded_together(count: int, singly: int) -> None:
    decoding = Decoding()
    values = [b.shape_proto([2, 3, number]) for number in range(count)]
    assert len(decoding.find(*values)) == count
    assert len(decoding.singly) == singly and not decoding.odd


@pytest.mark.parametrize(
    "shape",
    [
        (),
        (0,),
        (1,),
        (127, 128),
        (LARGEST,),
        (LARGEST, 1),
        (1, LARGEST),
        (7, LARGEST // 7),
        (LARGEST // 7, 7, 1),
        (LARGEST, 0, 5),
    ],
    ids=str,
)
def test_a_shape_of_the_common_form_needs_no_bindings(shape: tuple[int, ...]) -> None:
    decoding = Decoding()
    count = int(np.prod(np.array(shape, object)))
    usual = b.shape_proto([4, 5])
    found = decoding.find(usual, b.shape_proto(list(shape)), usual)
    assert found == [((4, 5), 20), (shape, count), ((4, 5), 20)]
    assert not decoding.singly and not decoding.odd


@pytest.mark.parametrize(
    "shape",
    [(2, 2**62), (2**62, 2), (LARGEST, 2), (8, LARGEST // 7), (1, 1, 1, 1), (0, 0, 0, 0, 0)],
    ids=str,
)
def test_a_shape_that_breaks_a_rule_is_empty_and_has_minus_one_elements(
    shape: tuple[int, ...],
) -> None:
    decoding = Decoding(most_rank=3)
    usual = b.shape_proto([4])
    found = decoding.find(usual, b.shape_proto(list(shape)), usual)
    assert found == [((4,), 4), ((), -1), ((4,), 4)]
    assert not decoding.singly


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param("1a 02 08 02", id="another field"),
        pytest.param("12 02 10 02", id="another field of a dimension"),
        pytest.param("12 03 08 02 00", id="a dimension that is longer than its size"),
        pytest.param("12 04 08 02 12 00", id="the next dimension within this one"),
        pytest.param("12 01 12 00", id="a dimension of one byte"),
        pytest.param("12 02 08 82 00", id="a size that is longer than its dimension"),
        pytest.param("12 0b 08 82 80 80 80 80 80 80 80 80 00", id="a size of ten bytes"),
        pytest.param("12 0b 08 ff ff ff ff ff ff ff ff ff 01", id="a negative size"),
        pytest.param("12 0a 08 82 80 80 80 80 80 80 80 80", id="nine bytes, and no last one"),
        pytest.param("12 02 08", id="cut off"),
        pytest.param("12", id="a tag alone"),
        pytest.param("12 02 08 02 18 01", id="a rank that is not known"),
        pytest.param("12 05 08 02 12 01 78", id="a dimension with a name"),
    ],
)
def test_a_shape_of_another_form_is_left_to_the_bindings(odd: str) -> None:
    decoding = Decoding()
    value = bytes.fromhex(odd)
    usual = b.shape_proto([4, 5])
    assert decoding.find(usual, value, usual) == [((4, 5), 20), ((2, 3), 6), ((4, 5), 20)]
    assert decoding.singly == [value] and decoding.odd == [1]


def test_what_is_no_shape_at_all_is_empty_and_has_minus_one_elements() -> None:
    decoding = Decoding()
    assert decoding.find(b"\x1a\x01?", b"\x1a\x01?", b"") == [((), -1), ((), -1), ((), 1)]
    assert decoding.singly == [b"\x1a\x01?"] and decoding.odd == [1]


def test_shapes_of_another_form_are_counted_once_before_they_are_decoded() -> None:
    decoding = Decoding()
    values = [bytes([0x1A, 1, number]) for number in range(5)]
    assert decoding.find(*values, *values) == [((2, 3), 6)] * 10
    assert decoding.odd == [5] and sorted(decoding.singly) == values
    decoding.find(*values, bytes([0x1A, 1, 9]))
    assert decoding.odd == [5, 1] and len(decoding.singly) == 6


def test_more_than_may_be_are_refused_before_any_is_decoded() -> None:
    decoding = Decoding()

    def refuse(count: int) -> None:
        raise MalformedError(f"{count} are too many")

    made = Shapes(decoding.decode_shape, most_rank=3, take_odd=refuse)
    decoding.shapes = made
    with pytest.raises(MalformedError, match="2 are too many"):
        decoding.find(b"\x1a\x00", b"\x1a\x01\x00")
    assert not decoding.singly and not made
