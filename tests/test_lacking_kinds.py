"""Without ml_dtypes: bfloat16 becomes float32 all the same, and kinds keep their bits if turned."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest
from packages import h5py, ml_dtypes

import ckptparse
from ckptparse.dtypes import numpy_dtype

BITS = np.array([[0x3F80, 0xC000, 0x7F80], [0x7F81, 0xFFC1, 0x0001]], np.uint16)
"""1, -2, infinity; a signalling NaN, a quiet one with a payload, and the smallest of all."""
WIDE = (BITS.astype(np.uint32) << 16).view(np.float32)


@pytest.fixture(autouse=True)
def _no_ml_dtypes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    numpy_dtype.cache_clear()
    yield
    numpy_dtype.cache_clear()


@pytest.fixture(params=["little", "big", "sliced"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A checkpoint of one tensor of bfloat16, and another."""
    bundle = b.Bundle(big=request.param == "big")
    if request.param == "sliced":
        rows = [((row, 1), None) for row in range(2)]
        bundle.add_sliced("w", BITS, rows, dtype=b.BFLOAT16)
    else:
        bundle.add("w", BITS, dtype=b.BFLOAT16)
    bundle.add("step", np.int64(7))
    (tmp_path / "source").mkdir()
    return Path(bundle.write(tmp_path / "source" / "m"))


def same_bits(found: Any, wanted: Any) -> bool:
    return bool(found.dtype == wanted.dtype and found.tobytes() == wanted.tobytes())


def test_bfloat16_becomes_float32_to_the_bit(source: Path, tmp_path: Path) -> None:
    ckptparse.convert(source, tmp_path / "x.npz", dtype="float32")
    with np.load(tmp_path / "x.npz") as found:
        assert same_bits(found["w"], WIDE) and found["w"].shape == (2, 3)


def test_its_bits_are_copied_where_they_stay(source: Path, tmp_path: Path) -> None:
    ckptparse.convert(source, tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as found:
        assert np.array_equal(found["w"]["bfloat16"], BITS)


def test_it_is_renamed_turned_and_made_float64_on_the_way(source: Path, tmp_path: Path) -> None:
    ckptparse.convert(
        source, tmp_path / "x.npz", rename={"w": "v"}, layout="torch", dtype="float64"
    )
    with np.load(tmp_path / "x.npz") as found, np.errstate(invalid="ignore"):
        assert np.array_equal(found["v"], WIDE.T.astype(np.float64), equal_nan=True)


def test_bits_are_turned_without_being_read_as_numbers(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.add("kernel", BITS, dtype=b.BFLOAT16)
    bundle.add("w", np.arange(6, dtype=np.uint8).reshape(2, 3), dtype=b.FLOAT8_E5M2)
    source = bundle.write(tmp_path / "m")
    ckptparse.convert(source, tmp_path / "x.npz", layout="torch")
    with np.load(tmp_path / "x.npz") as found:
        assert np.array_equal(found["kernel"]["bfloat16"], BITS.T)
        assert found["w"]["float8_e5m2"].tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize("ending", [".npz", ".safetensors", ".h5", "/"])
def test_files_of_other_formats_are_sources_too(ending: str, tmp_path: Path) -> None:
    if ending == ".h5":
        assert h5py.version  # Else the test is skipped.
    bundle = b.Bundle()
    bundle.add("w", BITS, dtype=b.BFLOAT16)
    middle = f"{tmp_path}/middle{ending}"
    ckptparse.convert(bundle.write(tmp_path / "m"), middle)
    ckptparse.convert(middle, tmp_path / "x.npz", dtype="float32")
    with np.load(tmp_path / "x.npz") as found:
        assert same_bits(found["w"], WIDE)


def test_workers_widen_as_well(source: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as executor:
        ckptparse.convert(source, tmp_path / "x.npz", dtype="float32", executor=executor)
    with np.load(tmp_path / "x.npz") as found:
        assert same_bits(found["w"], WIDE)


def test_damage_is_found_while_it_is_widened(source: Path, tmp_path: Path) -> None:
    (data,) = source.parent.glob("*.data-*")
    raw = bytearray(data.read_bytes())
    raw[0] ^= 1
    data.write_bytes(raw)
    with pytest.raises(ckptparse.ChecksumError):
        ckptparse.convert(source, tmp_path / "x.npz", dtype="float32")


def test_what_only_the_package_can_convert_names_it(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.add("w", np.zeros(3, np.uint8), dtype=b.FLOAT8_E5M2)
    source = bundle.write(tmp_path / "m")
    with pytest.raises(ckptparse.UnsupportedError, match="float8_e5m2") as caught:
        ckptparse.convert(source, tmp_path / "x.npz", dtype="float32")
    assert caught.value.hint == "Install it: pip install 'ckptparse[ml-dtypes]'"
    assert not (tmp_path / "x.npz").exists()


def test_what_is_read_says_that_float32_needs_no_package(source: Path) -> None:
    with pytest.raises(ckptparse.UnsupportedError) as caught:
        ckptparse.read(source)
    assert "to float32, which needs no package" in str(caught.value.hint)


def test_statistics_are_those_of_the_values(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ckptparse.stats(source, histogram=True)["w"]
    assert (found.elements, found.nan, found.infinite, found.smallest) == (6, 2, 1, -2.0)
    monkeypatch.undo()
    numpy_dtype.cache_clear()
    assert ml_dtypes.bfloat16
    assert ckptparse.stats(source, histogram=True)["w"] == found


def test_what_changed_is_told_as_of_the_values(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = b.Bundle()
    bundle.add("w", BITS + np.uint16([[0, 0x40, 0], [0, 0, 0]]), dtype=b.BFLOAT16)
    bundle.add("step", np.int64(7))
    other = bundle.write(tmp_path / "other")
    assert ckptparse.diff(source, source, read_data=True).equal == ("step", "w")
    found = ckptparse.diff(source, other)
    change = found.changed["w"]
    assert (change.dtype, change.largest) == (("bfloat16", "bfloat16"), 1.0)
    assert change.share == pytest.approx(1 / 6)
    wide = ckptparse.diff(source, {"w": WIDE, "step": np.int64(7)}).changed["w"]
    assert (wide.dtype, wide.share) == (("bfloat16", "float32"), 0)
    monkeypatch.undo()
    numpy_dtype.cache_clear()
    assert ml_dtypes.bfloat16
    assert ckptparse.diff(source, other) == found
