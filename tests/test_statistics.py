"""Statistics of tensors: as numpy gives them, of every kind of element, in little memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from packages import ml_dtypes

import ckptparse
from ckptparse.statistics import codes, gathering
from ckptparse.statistics.distribution import BINS, QUANTILES
from ckptparse.statistics.gathering import Gatherer, iter_pieces, measure
from ckptparse.statistics.summary import Summary, summarize

MANY = 50_000
"""Elements that are counted rather than kept."""
SMALL_FLOATS = [
    *(np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2),
    *(ml_dtypes.float8_e4m3fnuz, ml_dtypes.float8_e5m2fnuz, ml_dtypes.float8_e4m3b11fnuz),
]
FLOATS = [np.float32, np.float64, *SMALL_FLOATS]
INTEGERS = [*(np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32), np.int64, np.uint64]


def normal(size: int, seed: int = 0) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal(size)


def assert_summary(found: Summary, values: npt.NDArray[Any]) -> None:
    """Compare with what numpy says of the values as float64."""
    numbers = values.reshape(-1).astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    assert found.elements == numbers.size
    assert found.finite == finite.size
    assert found.nan == np.isnan(numbers).sum()
    assert found.infinite == np.isinf(numbers).sum()
    assert found.zeros == (finite == 0).sum()
    if not finite.size:
        assert found.smallest is found.largest is found.mean is found.deviation is None
        return
    assert found.smallest == finite.min()
    assert found.largest == finite.max()
    assert found.mean is not None
    assert found.deviation is not None
    scale = max(abs(finite.max()), abs(finite.min()), 1e-300)
    assert found.mean == pytest.approx(finite.mean(), rel=1e-9, abs=1e-12 * scale)
    assert found.deviation == pytest.approx(finite.std(), rel=1e-6, abs=1e-9 * scale)


# Summaries


@pytest.mark.parametrize("size", [0, 1, 7, 1000, MANY])
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda dtype: np.dtype(dtype).name)
def test_floats_are_summed_up_as_numpy_does(dtype: Any, size: int) -> None:
    values = normal(size).astype(dtype)
    assert_summary(measure(values).summary, values)


@pytest.mark.parametrize("size", [5, MANY])
@pytest.mark.parametrize("dtype", INTEGERS, ids=lambda dtype: np.dtype(dtype).name)
def test_integers_are_summed_up_and_stay_exact(dtype: Any, size: int) -> None:
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(1)
    values = rng.integers(limits.min, limits.max, size, dtype=dtype, endpoint=True)
    values[:2] = limits.min, limits.max
    found = measure(values).summary
    assert (found.smallest, found.largest) == (limits.min, limits.max)
    assert type(found.smallest) is int
    assert found.mean == pytest.approx(values.astype(np.float64).mean(), rel=1e-9, abs=1)


@pytest.mark.parametrize("size", [3, MANY])
@pytest.mark.parametrize("name", ["int4", "uint4"])
def test_integers_of_four_bits_are_summed_up(name: str, size: int) -> None:
    values = np.resize([-3, 0, 7] if name == "int4" else [15, 0, 7], size)
    found = measure(values.astype(getattr(ml_dtypes, name))).summary
    assert (found.smallest, found.largest) == (values.min(), values.max())
    assert found.zeros == (values == 0).sum()
    assert found.mean == pytest.approx(values.mean())


@pytest.mark.parametrize("size", [10, MANY])
def test_of_complex_numbers_the_magnitudes_count(size: int) -> None:
    values = (normal(size) + 1j * normal(size, 1)).astype(np.complex64)
    values[1] = complex(math.nan, 0)
    assert_summary(measure(values).summary, np.abs(values.astype(np.complex128)))


@pytest.mark.parametrize("size", [4, MANY])
def test_bools_are_zeros_and_ones(size: int) -> None:
    values = np.resize([True, False, True, True], size)
    found = measure(values).summary
    assert (found.smallest, found.largest, found.zeros) == (0, 1, size // 4)


@pytest.mark.parametrize("repeats", [1, MANY])
def test_of_strings_the_lengths_count(repeats: int) -> None:
    values = np.array([b"", b"abc", b"\xff"] * repeats, dtype=object)
    found = measure(values, histogram=True)
    assert (found.summary.smallest, found.summary.largest) == (0, 3)
    assert found.summary.zeros == repeats


@pytest.mark.parametrize("size", [100, MANY])
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda dtype: np.dtype(dtype).name)
def test_nan_and_infinities_are_counted_and_left_out(dtype: Any, size: int) -> None:
    numbers = normal(size)
    numbers[3], numbers[5], numbers[8], numbers[9] = math.nan, math.inf, -math.inf, -0.0
    values = numbers.astype(dtype)
    assert_summary(measure(values).summary, values)
    assert measure(values).summary.nan >= 1


@pytest.mark.parametrize("size", [2, MANY])
def test_values_at_the_ends_of_the_range_do_not_overflow(size: int) -> None:
    largest = np.finfo(np.float64).max
    found = measure(np.resize([largest, -largest], size), histogram=True)
    assert (found.summary.smallest, found.summary.largest) == (-largest, largest)
    assert found.summary.mean == pytest.approx(0, abs=largest * 1e-9)
    assert found.summary.deviation is not None
    assert found.summary.infinite == 0
    assert found.distribution is not None
    assert sum(found.distribution.counts) == size


arrays = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.float16, np.int16, np.int64]),
    st.integers(0, 60),
)


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(hnp.arrays(np.float32, st.integers(0, 40)), max_size=5))
def test_the_summary_of_parts_is_that_of_the_whole(parts: list[npt.NDArray[Any]]) -> None:
    whole = np.concatenate([np.empty(0, np.float32), *parts])
    merged = Summary()
    for part in parts:
        merged = merged.merge(summarize(part))
    assert_summary(merged, whole)


@settings(max_examples=60, deadline=None)
@given(values=arrays)
def test_few_elements_of_any_value_are_measured_exactly(values: npt.NDArray[Any]) -> None:
    found = measure(values, histogram=True)
    finite = np.sort(values[np.isfinite(values)].astype(np.float64))
    assert found.summary.finite == finite.size
    if found.distribution is None:
        assert not finite.size
        return
    assert sum(found.distribution.counts) == finite.size
    assert found.distribution.exact
    assert set(found.distribution.quantiles) <= set(finite.tolist())


@pytest.mark.parametrize("size", [3, MANY])
def test_signalling_nans_are_counted_without_a_warning(size: int) -> None:
    values = np.resize(np.array([0x7F800001, 0x3F800000], np.uint32), size).view(np.float32)
    found = measure(values, histogram=True, heat_map=(2, 2))
    assert found.summary.nan == (size + 1) // 2
    assert found.summary.largest == 1


# Distributions


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_a_histogram_is_that_of_numpy_but_for_the_edges(dtype: Any) -> None:
    values = normal(200_000).astype(dtype)
    found = measure(values, histogram=True).distribution
    assert found is not None
    numbers = values.astype(np.float64)
    expected, _ = np.histogram(numbers, BINS, (found.low, found.high))
    assert sum(found.counts) == values.size
    np.testing.assert_allclose(found.counts, expected, atol=0.03 * expected.max())
    np.testing.assert_allclose(
        found.quantiles, np.quantile(numbers, QUANTILES), rtol=0.02, atol=0.01
    )


def test_values_close_together_are_counted_in_their_own_range() -> None:
    values = (1 + normal(100_000) * 1e-4).astype(np.float32)
    found = measure(values, histogram=True).distribution
    assert found is not None
    expected, _ = np.histogram(values.astype(np.float64), BINS, (found.low, found.high))
    np.testing.assert_allclose(found.counts, expected, atol=0.05 * expected.max())
    np.testing.assert_allclose(found.quantiles, np.quantile(values, QUANTILES), atol=1e-6)


def test_a_constant_is_one_bin() -> None:
    for size in (3, MANY):
        found = measure(np.full(size, 2.5, np.float32), histogram=True).distribution
        assert found is not None
        assert (found.low, found.high) == (2.5, 2.5)
        assert found.counts[0] == sum(found.counts) == size
        assert set(found.quantiles) == {2.5}


def test_the_smallest_numbers_there_are_do_not_divide_by_zero() -> None:
    for dtype in (np.float32, np.float64):
        tiny = np.finfo(dtype).smallest_subnormal
        found = measure(np.resize(np.array([tiny, 0], dtype), MANY), histogram=True).distribution
        assert found is not None
        assert (found.counts[0], found.counts[-1]) == (MANY // 2, MANY // 2)


def test_without_a_finite_value_there_is_no_distribution() -> None:
    for size in (0, 3, MANY):
        assert measure(np.full(size, np.nan, np.float32), histogram=True).distribution is None


def test_strings_are_measured_once_for_all_that_is_told_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def count(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        asked.append(values.size)
        return codes.to_numbers(values)

    monkeypatch.setattr(gathering, "to_numbers", count)
    gatherer = Gatherer(np.dtype(object))
    gatherer.add(np.array([b"a", b"bcd"], object))
    distribution = gatherer.distribution()
    assert gatherer.summary().largest == 3 and distribution is not None
    assert asked == [2]
    gatherer.add(np.array([b"efghi"], object))
    assert gatherer.summary().largest == 5


def test_without_being_asked_there_is_no_distribution() -> None:
    assert measure(normal(MANY)).distribution is None


# Pieces


class Recorded:
    """An array that remembers how many bytes it was asked for at once."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.most = 0

    def __getitem__(self, index: Any) -> Any:
        part = self.array[index]
        self.most = max(self.most, part.nbytes)
        return part


@pytest.mark.parametrize(
    "shape", [(1000,), (10, 100), (2, 5000), (7, 3, 11), (1, 1, 999), (5000, 2), (), (3, 0, 2)]
)
def test_no_more_than_a_piece_is_read_at_once(shape: tuple[int, ...]) -> None:
    array = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    source = Recorded(array)
    got = [part.copy() for part in iter_pieces(source, 256)]
    assert source.most <= 256
    np.testing.assert_array_equal(np.concatenate([*got, np.empty(0)]), array.reshape(-1))
    assert_summary(measure(Recorded(array), piece=256).summary, array)


def test_elements_that_are_masked_do_not_count() -> None:
    values = np.ma.masked_array(np.arange(10.0), np.arange(10) < 5)
    gatherer = Gatherer(values.dtype)
    gatherer.add(values)
    assert gatherer.summary().elements == 5
    assert gatherer.summary().smallest == 5


def test_a_hole_shows_in_the_heat_map_and_does_not_count() -> None:
    values = np.ma.masked_array(np.ones((4, 4), np.float32), np.eye(4, dtype=bool))
    found = measure(values, heat_map=(4, 4))
    assert found.summary.elements == 12
    assert found.heat_map is not None
    assert np.isnan(found.heat_map.means).sum() == 4


def test_a_tensor_of_a_checkpoint_is_measured_as_it_lies(fixtures: Path) -> None:
    with ckptparse.open(fixtures / "saver" / "my_model") as checkpoint:
        tensor = checkpoint["weights"]
        found = measure(tensor, histogram=True, heat_map=(8, 8), piece=16)
        assert_summary(found.summary, tensor.read())
        assert found.heat_map is not None
        np.testing.assert_allclose(found.heat_map.means, tensor.read())


# Heat maps


def blocks(matrix: npt.NDArray[Any], most: tuple[int, int]) -> npt.NDArray[Any]:
    """Take the means of blocks one by one."""
    tall, wide = (-(-size // many) for size, many in zip(matrix.shape, most, strict=True))
    return np.array(
        [
            [
                matrix[row : row + tall, column : column + wide].mean(dtype=np.float64)
                for column in range(0, matrix.shape[1], wide)
            ]
            for row in range(0, matrix.shape[0], tall)
        ]
    )


@pytest.mark.parametrize("piece", [64, 100, 1000, 1 << 20])
@pytest.mark.parametrize("shape", [(5, 7), (100, 33), (33, 100), (1, 500), (500, 1), (3, 3, 2, 40)])
def test_a_heat_map_has_the_means_of_blocks(shape: tuple[int, ...], piece: int) -> None:
    values = normal(math.prod(shape)).astype(np.float32).reshape(shape)
    found = measure(values, heat_map=(8, 16), piece=piece).heat_map
    assert found is not None
    matrix = values.reshape(-1, shape[-1])
    assert found.shape == matrix.shape
    assert found.means.shape <= (8, 16)
    np.testing.assert_allclose(found.means, blocks(matrix, (8, 16)), rtol=1e-5, atol=1e-7)


def test_nan_shows_in_its_block_of_the_heat_map() -> None:
    values = np.zeros((64, 64), np.float32)
    values[40, 9] = np.nan
    found = measure(values, heat_map=(8, 8)).heat_map
    assert found is not None
    assert np.argwhere(np.isnan(found.means)).tolist() == [[5, 1]]


NO_MATRICES = [np.float32(1), np.zeros(5), np.zeros((3, 0)), np.array([[b"a"]], object)]


@pytest.mark.parametrize("values", NO_MATRICES)
def test_what_is_no_matrix_of_numbers_has_no_heat_map(values: Any) -> None:
    assert measure(np.asarray(values), heat_map=(8, 8)).heat_map is None


def test_statistics_become_json() -> None:
    found = measure(np.arange(3, dtype=np.int64)).summary.to_dict()
    assert found["largest"] == 2
    assert next(iter(found)) == "elements"


def test_importing_statistics_needs_numpy_alone(fresh_python: Callable[[str], str]) -> None:
    printed = fresh_python(
        "import sys, ckptparse.statistics.gathering\nprint('ml_dtypes' in sys.modules)"
    )
    assert printed.strip() == "False"
