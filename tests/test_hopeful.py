"""Parts of bytes that can hold no tensor are told from those that may, and none is left out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from test_false_matches import float_payload

from ckptparse.examination.hopeful import Hopes, Kind, is_all_text
from ckptparse.examination.places import NO_CHANCE, Place
from ckptparse.examination.readers import DataFile

SIZE = 1 << 18
FLOATS = {"<f4": 4, ">f4": 4, "<f8": 8, "<f2": 2, "<c8": 8}
HOPELESS: dict[str, Callable[[np.random.Generator], bytes]] = {
    "noise": lambda rng: rng.bytes(SIZE),
    "latin-1 as UTF-8": lambda rng: rng.bytes(SIZE).decode("latin-1").encode()[:SIZE],
    "UTF-16": lambda rng: rng.bytes(SIZE).decode("latin-1").encode("utf-16-le")[:SIZE],
    "U+FFFD": lambda rng: rng.bytes(SIZE).decode("utf-8", "replace").encode()[:SIZE],
    "letters": lambda rng: rng.bytes(SIZE).hex().encode()[:SIZE],
    "zeros": lambda rng: bytes(SIZE),
}


def weights(rng: np.random.Generator, dtype: str, count: int) -> np.ndarray:
    scale = 10.0 ** rng.uniform(-4, 1)
    if dtype == "<c8":
        return (rng.normal(0, scale, (count, 2)) @ (1, 1j)).astype(dtype)
    values = rng.normal(0, scale, count)
    # Second moments are squares, and spread over many powers of ten.
    spread = dtype != "<f2" and rng.integers(2)
    return (values**2 * np.exp(rng.normal(0, 3, count)) if spread else values).astype(dtype)


@pytest.mark.parametrize("kind", HOPELESS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_weights_among_what_can_hold_none_are_within_what_is_left(dtype: str, kind: str) -> None:
    rng = np.random.default_rng(3)
    around = HOPELESS[kind](rng)
    for _ in range(50):
        width = FLOATS[dtype]
        size = int(2.0 ** rng.uniform(10, 17)) // width * width
        run = weights(rng, dtype, size // width).tobytes()
        start = int(rng.integers(0, SIZE - size + 1))
        hopes = Hopes(around[:start] + run + around[start + size :])
        spans = hopes.spans(Kind(width, True), size)
        assert any(low <= start and start + size <= high for low, high in spans)
        # Of one byte repeated, as much on both sides may be a part of the run.
        left = sum(high - low for low, high in spans)
        assert left < 3 * size + (1 << 15) or (kind, width) == ("UTF-16", 2)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<c8"])
def test_weights_are_left_out_only_where_their_exponents_cannot_lie(dtype: str) -> None:
    rng = np.random.default_rng(6)
    width = FLOATS[dtype]
    kind = Kind(width, True, dtype.startswith(">"))
    for ahead in range(8):
        size = int(2.0 ** rng.uniform(12, 17)) // width * width
        run = weights(rng, dtype, size // width).tobytes()
        data = rng.bytes(10_000 + ahead) + run + rng.bytes(10_001)
        start = 10_000 + ahead
        hopes = Hopes(data)
        spans = [hopes.spans(kind, size, residue) for residue in range(4)]
        mine = spans.pop(start % 4)
        assert any(low <= start and start + size <= high for low, high in mine)
        assert all(
            any(low <= first and last <= high for low, high in hopes.spans(kind, size))
            for first, last in mine
        )
        if width == 4 or size > 1 << 15:
            assert spans.count(()) >= 2


@pytest.mark.parametrize("kind", HOPELESS)
def test_nothing_is_left_of_what_can_hold_no_weights(kind: str) -> None:
    data = HOPELESS[kind](np.random.default_rng(4))
    assert Hopes(data).spans(Kind(4, True), 1 << 15) == ()


@pytest.mark.parametrize(("low", "high"), [(0, 100), (-2, 3), (0, 50_000), (-(2**31), 2**31)])
@pytest.mark.parametrize("dtype", ["<i2", "<i4", "<i8"])
def test_integers_are_not_left_out(dtype: str, low: int, high: int) -> None:
    rng = np.random.default_rng(5)
    values = rng.integers(low, high, 5_000).astype(dtype)
    data = bytes(9_999) + values.tobytes()
    spans = Hopes(data).spans(Kind(values.itemsize, False), values.nbytes)
    assert any(start <= 9_999 and stop >= len(data) for start, stop in spans)


def test_of_few_bytes_and_of_elements_of_one_byte_nothing_is_said() -> None:
    data = b"text" * 1_000
    whole = ((0, len(data)),)
    assert Hopes(data).spans(Kind(1, False), 3_000) == whole
    assert Hopes(data).spans(Kind(4, True), 32) == whole
    assert Hopes(data[:1_000]).spans(Kind(4, True), 800) == ((0, 1_000),)
    assert Hopes(data).spans(Kind(1, False), 4_001) == ()


def test_text_is_text_from_start_to_end() -> None:
    text = "Größenordnungen ".encode() * 1_000
    assert is_all_text(memoryview(text))
    assert not is_all_text(memoryview(text[:500]))
    assert not is_all_text(memoryview(text + b"\xff" + text))
    assert not is_all_text(memoryview(bytes(20_000)))


def test_a_payload_that_lies_alone_by_chance_perhaps_borders_its_neighbours_only() -> None:
    place = Place(DataFile("x"), 4, None, "", 0.02, alone=(400, 800))
    # Of 100 elements each.
    before, after = (float_payload("x", 100, 1).moved(DataFile("x"), at) for at in (0, 800))
    far = float_payload("x", 100, 1).moved(DataFile("x"), 80_000)
    assert place.may_border(before)
    assert place.may_border(after)
    assert not place.may_border(far)
    sure = Place(DataFile("x"), 4, None, "", NO_CHANCE, alone=(400, 800))
    assert sure.may_border(far)
