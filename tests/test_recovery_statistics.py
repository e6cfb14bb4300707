"""Pieces of a tensor that do not look like the rest of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builder
import numpy as np
import numpy.typing as npt
import pytest
from packages import ml_dtypes

import ckptparse
from ckptparse.dtypes import DataType
from ckptparse.recovery import statistics
from ckptparse.recovery.statistics import SECTOR, Judgement, _quantile, judge_elements

FLOATS = {
    DataType.DT_FLOAT: np.dtype("f4"),
    DataType.DT_DOUBLE: np.dtype("f8"),
    DataType.DT_HALF: np.dtype("f2"),
    DataType.DT_BFLOAT16: np.dtype(ml_dtypes.bfloat16),
}
COUNT = 1 << 16


def make_values(kind: str, seed: int = 0) -> npt.NDArray[np.float64]:
    """Make values as tensors of that kind have them."""
    rng = np.random.default_rng(seed)
    rows = 10.0 ** rng.uniform(-6, -1, (COUNT // 64, 1))
    seen = rng.random((COUNT // 64, 1)) < 0.6
    table = (rng.normal(0, 1, (COUNT // 64, 64)) * rows * seen).reshape(-1)
    kinds = {
        "kernel": rng.normal(0, 0.05, COUNT),
        "uniform": rng.uniform(-0.1, 0.1, COUNT),
        "second moments": rng.normal(0, 1e-4, COUNT) ** 2,
        "rows of many scales, some never seen": table,
        "around one": 1 + rng.normal(0, 0.01, COUNT),
        "heavy tails": rng.standard_cauchy(COUNT) * 0.01,
        "pruned": np.where(rng.random(COUNT) < 0.95, 0, rng.normal(0, 0.02, COUNT)),
        "one value": np.full(COUNT, 0.05),
        "zeros": np.zeros(COUNT),
        "masks": np.where(rng.random(COUNT) < 0.5, 0, -1e9),
    }
    return kinds[kind]


KINDS = (
    "kernel",
    "uniform",
    "second moments",
    "rows of many scales, some never seen",
    "around one",
    "heavy tails",
    "pruned",
    "one value",
    "zeros",
)


def noise(size: int) -> bytes:
    return np.random.default_rng(9).bytes(size)


def text(size: int) -> bytes:
    line = b"The quick brown fox jumps over the lazy dog, 0.125 times; then: return 1e-5\n"
    return (line * (size // len(line) + 1))[:size]


def numbers(size: int) -> bytes:
    values = np.random.default_rng(9).normal(size=size // 8)
    return b"\n".join(b"%.6f" % value for value in values)[:size]


GARBAGE = {"noise": noise, "text": text, "numbers as text": numbers}


def damage(raw: bytes, garbage: bytes, pieces: npt.NDArray[Any]) -> bytes:
    """Put garbage in place of pieces of 512 bytes."""
    damaged = bytearray(raw)
    for piece in pieces.tolist():
        start = piece * SECTOR
        source = start % (len(garbage) - SECTOR)
        damaged[start : start + SECTOR] = garbage[source : source + SECTOR]
    return bytes(damaged)


def as_mask(judgement: Judgement, count: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros(count, np.bool_)
    for start, stop in judgement.suspect:
        mask[start:stop] = True
    return mask


@pytest.mark.parametrize("data_type", FLOATS)
@pytest.mark.parametrize("kind", [*KINDS, "masks"])
def test_nothing_of_a_whole_tensor_is_suspect(kind: str, data_type: DataType) -> None:
    if kind == "masks" and data_type == DataType.DT_HALF:
        pytest.skip("a half has no number as large")
    values = make_values(kind).astype(FLOATS[data_type])
    assert judge_elements(values.tobytes(), data_type).suspect == ()


def test_a_thousand_tensors_of_random_scale_and_size_have_nothing_suspect() -> None:
    rng = np.random.default_rng(5)
    for _ in range(1000):
        values = rng.normal(0, 10.0 ** rng.uniform(-8, 2), rng.integers(1, 2000)).astype("f4")
        offset = int(rng.integers(0, 4096))
        assert judge_elements(values.tobytes(), DataType.DT_FLOAT, offset=offset).suspect == ()


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("data_type", [DataType.DT_FLOAT, DataType.DT_DOUBLE, DataType.DT_BFLOAT16])
@pytest.mark.parametrize("kind", ["kernel", "second moments", "around one"])
def test_exactly_the_damaged_sectors_are_suspect(
    kind: str, data_type: DataType, garbage: str, share: float
) -> None:
    values = make_values(kind).astype(FLOATS[data_type])
    raw = values.tobytes()
    count = len(raw) // SECTOR
    pieces = np.random.default_rng(3).permutation(count)[: max(1, int(share * count))]
    damaged = damage(raw, GARBAGE[garbage](1 << 16), pieces)
    mask = as_mask(judge_elements(damaged, data_type), len(values)).reshape(count, -1)
    expected = np.zeros(count, np.bool_)
    expected[pieces] = True
    assert (mask.any(axis=1) == expected).all() and (mask.all(axis=1) == expected).all()


@pytest.mark.parametrize("offset", [0, 1, 300, 511, 4095])
def test_pieces_are_those_of_the_file_and_no_part_of_a_cut_element_passes(offset: int) -> None:
    values = make_values("kernel").astype("<f4")
    file = bytearray(offset) + values.tobytes()
    start = 40 * SECTOR
    file[start : start + SECTOR] = noise(SECTOR)
    judgement = judge_elements(bytes(file[offset:]), DataType.DT_FLOAT, offset=offset)
    first, last = (start - offset) // 4, -(-(start + SECTOR - offset) // 4)
    mask = as_mask(judgement, len(values))
    assert mask[first : last - 1].all() and not mask[:first].any()
    # The last element, of which three bytes at most are damaged, may pass by its exponent.
    assert not mask[last:].any()


def test_noise_alone_is_suspect_throughout() -> None:
    judgement = judge_elements(noise(1 << 16), DataType.DT_FLOAT)
    assert judgement.judged and as_mask(judgement, 1 << 14).mean() > 0.99


def test_bytes_shifted_by_one_are_suspect() -> None:
    raw = make_values("kernel").astype("<f4").tobytes()
    half = len(raw) // 2
    shifted = raw[:half] + b"\0" + raw[half:-1]
    mask = as_mask(judge_elements(shifted, DataType.DT_FLOAT), COUNT)
    assert not mask[: COUNT // 2].any() and mask[COUNT // 2 :].all()


def test_one_wild_element_is_suspect_alone() -> None:
    values = make_values("kernel").astype("<f4")
    values[1000] = 1e30
    assert judge_elements(values.tobytes(), DataType.DT_FLOAT).suspect == ((1000, 1001),)


def test_big_endian_elements_are_judged_by_their_own_bytes() -> None:
    raw = make_values("kernel").astype(">f4").tobytes()
    assert judge_elements(raw, DataType.DT_FLOAT, big_endian=True).suspect == ()
    assert as_mask(judge_elements(raw, DataType.DT_FLOAT), COUNT).mean() > 0.9


def test_a_complex_element_is_suspect_where_either_part_is() -> None:
    values = make_values("kernel").astype("<f4").view("<c8")
    raw = damage(values.tobytes(), noise(4096), np.array([7]))
    assert judge_elements(raw, DataType.DT_COMPLEX64).suspect == ((7 * 64, 8 * 64),)


def test_noise_among_small_integers_is_suspect() -> None:
    values = np.random.default_rng(1).integers(-5000, 30000, COUNT).astype("<i4")
    raw = damage(values.tobytes(), noise(4096), np.array([3, 4]))
    assert judge_elements(raw, DataType.DT_INT32).suspect == ((3 * 128, 5 * 128),)


def test_a_bool_that_is_neither_is_suspect_with_its_sector() -> None:
    values = np.random.default_rng(1).integers(0, 2, COUNT).astype(np.bool_)
    raw = damage(values.tobytes(), noise(4096), np.array([3]))
    assert judge_elements(raw, DataType.DT_BOOL).suspect == ((3 * 512, 4 * 512),)


@pytest.mark.parametrize("data_type", [DataType.DT_UINT8, DataType.DT_INT64])
def test_evenly_spread_integers_tell_nothing(data_type: DataType) -> None:
    assert judge_elements(noise(1 << 16), data_type) == Judgement((), judged=False)


@pytest.mark.parametrize("data_type", [DataType.DT_STRING, DataType.DT_VARIANT])
def test_strings_tell_nothing(data_type: DataType) -> None:
    assert judge_elements(text(1 << 16), data_type) == Judgement((), judged=False)


def test_an_empty_tensor_tells_nothing() -> None:
    assert judge_elements(b"", DataType.DT_FLOAT) == Judgement((), judged=False)


def test_zeros_are_left_to_the_caller() -> None:
    values = make_values("kernel").astype("<f4")
    values[1024:4096] = 0
    assert judge_elements(values.tobytes(), DataType.DT_FLOAT).suspect == ()


def test_a_row_of_another_scale_passes() -> None:
    values = make_values("kernel").astype("<f4")
    values[2048:4096] /= 1000
    assert judge_elements(values.tobytes(), DataType.DT_FLOAT).suspect == ()


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize(
    "data_type", [DataType.DT_FLOAT, DataType.DT_HALF, DataType.DT_INT64, DataType.DT_COMPLEX128]
)
def test_few_elements_are_judged_quickly_as_they_are_at_length(
    data_type: int, big_endian: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(6)
    width = statistics.item_size(data_type) or 1
    order = ">" if big_endian else "<"
    told = []
    for number in range(300):
        values = rng.normal(0, 2.0 ** (number % 5), number % 18)
        kind = {2: "f2", 4: "f4", 8: "i8", 16: "f8"}[width]
        data = (values * (1 if kind[0] == "f" else 1000)).astype(order + kind).tobytes()
        data = data if number % 3 else rng.bytes(len(data))
        data = data[: len(data) // width * width]
        told.append((data, number * 37))

    def judge() -> list[Judgement]:
        return [
            judge_elements(data, data_type, offset=offset, big_endian=big_endian)
            for data, offset in told
        ]

    quick = judge()
    monkeypatch.setattr(statistics, "_FEW", 0)
    assert judge() == quick


def test_quantiles_are_those_of_numpy() -> None:
    rng = np.random.default_rng(1)
    for _ in range(500):
        count, most = int(rng.integers(1, 600)), int(rng.integers(1, 300))
        ordered = np.sort(rng.integers(0, most + 1, count))
        for share in (0.01, 0.5, 0.99):
            assert _quantile(ordered, share) == np.quantile(ordered, share)


@pytest.mark.parametrize(
    ("data_type", "highest"),
    [
        (DataType.DT_BOOL, 1),
        (DataType.DT_INT2, 3),
        (DataType.DT_UINT2, 3),
        (DataType.DT_INT4, 15),
        (DataType.DT_UINT4, 15),
        (DataType.DT_FLOAT4_E2M1FN, 15),
    ],
)
def test_bytes_that_no_writer_writes_look_wrong(data_type: int, highest: int) -> None:
    rng = np.random.default_rng(1)
    data = rng.integers(0, highest + 1, 3000).astype(np.uint8)
    assert judge_elements(data.tobytes(), data_type).suspect == ()
    data[[5, 6, 2999]] = highest + 1, 255, 0x53
    assert judge_elements(data.tobytes(), data_type).suspect == ((5, 7), (2999, 3000))


def test_of_very_many_bytes_that_no_writer_writes_pieces_are_told() -> None:
    size = (1 << 16) - 100
    data = np.zeros(size, np.uint8)
    data[1 << 10 :: 2] = 2
    assert judge_elements(data.tobytes(), DataType.DT_BOOL).suspect == ((1 << 10, size),)


def test_damaged_elements_of_four_bits_are_masked(tmp_path: Path) -> None:
    value = np.random.default_rng(2).integers(0, 16, 500).astype(np.uint8)
    made = builder.Bundle()
    made.add("w", value.astype(ml_dtypes.uint4))
    made.write(tmp_path / "m")
    data = tmp_path / "m.data-00000-of-00001"
    changed = bytearray(data.read_bytes())
    changed[100], changed[300], changed[400] = 0x43, 0xFF, 0x90
    data.write_bytes(changed)
    read = ckptparse.recover(tmp_path / "m")["w"].read()
    assert np.flatnonzero(np.ma.getmaskarray(read)).tolist() == [100, 300, 400]
