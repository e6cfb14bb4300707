"""Tensors within which bytes were lost: another save of the run tells where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builder
import numpy as np
import pytest
from packages import ml_dtypes

import ckptparse
from ckptparse.recovery.seams import find_seam

Rng = np.random.Generator
NAMES = ("a", "b", "c")
COUNT = 1000


def saved(directory: Path, name: str, arrays: dict[str, Any]) -> Path:
    made = builder.Bundle()
    for key, array in arrays.items():
        made.add(key, array)
    made.write(directory / name)
    return directory / f"{name}.data-00000-of-00001"


def pair(rng: Rng, dtype: Any, directory: Path, *, related: bool = True) -> dict[str, Any]:
    """Write two saves; return the values of the later one, which has lost bytes 5,000 to 6,200."""
    older = {name: rng.normal(0, 0.05, (50, 48)) for name in NAMES}
    change = 0.05 if related else 100
    later = {
        name: (array + rng.normal(0, 0.05 * change, array.shape)).astype(dtype)
        for name, array in older.items()
    }
    saved(directory, "ckpt-1", {name: array.astype(dtype) for name, array in older.items()})
    data = saved(directory, "ckpt-2", later)
    raw, start = data.read_bytes(), later["a"].nbytes
    data.write_bytes(raw[: start + 2000] + raw[start + 3200 :])
    return later


TYPES = [np.float32, np.float64, np.float16, *([ml_dtypes.bfloat16] if ml_dtypes else [])]


@pytest.mark.parametrize("dtype", TYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_both_sides_of_lost_bytes_are_offered(dtype: Any, tmp_path: Path) -> None:
    later = pair(np.random.default_rng(1), dtype, tmp_path)
    tensor = ckptparse.recover(tmp_path / "ckpt-2")["b"]
    found = tensor.read()
    shown = ~np.ma.getmaskarray(found)
    width = np.dtype(dtype).itemsize
    right = np.asarray(np.ma.getdata(found)).view(f"V{width}") == later["b"].view(f"V{width}")
    assert right[shown].all()
    # Of what is masked, 1,200 bytes are lost, and a few elements beside them are not sure.
    assert 1200 // width <= (~shown).sum() <= 1200 // width + 40
    assert tensor.status == "unverified" and tensor.cause == "shifted"
    assert "1,200 bytes were lost within it" in tensor.note
    rules = [str(record.rule) for record in tensor.evidence]
    assert rules[-2:] == ["shifted", "like sibling"]


def test_nothing_is_said_of_a_seam_that_no_other_save_tells(tmp_path: Path) -> None:
    pair(np.random.default_rng(2), np.float32, tmp_path, related=False)
    tensor = ckptparse.recover(tmp_path / "ckpt-2")["b"]
    assert tensor.status == "unverified"
    assert "1,200 bytes were lost within it, and nothing tells where" in tensor.note


def test_a_thousand_seams_lie_where_they_are_said_to() -> None:
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(COUNT):
        count = int(rng.integers(400, 3000))
        lost = int(rng.integers(1, count // 2))
        place = int(rng.integers(0, count - lost + 1))
        theirs = rng.normal(size=count)
        ours = theirs + rng.normal(0, rng.choice([0.0, 0.01, 0.1, 0.3]), count)
        seam = find_seam(np.concatenate((ours[:place], ours[place + lost :])), theirs)
        if seam is not None:
            found += 1
            assert seam[0] <= place <= seam[1]
    assert found > COUNT / 2


def test_a_thousand_pairs_of_unrelated_weights_have_no_seam() -> None:
    rng = np.random.default_rng(4)
    for _ in range(COUNT):
        count = int(rng.integers(200, 5000))
        lost = int(rng.integers(1, count // 2))
        assert find_seam(rng.normal(size=count - lost), rng.normal(size=count)) is None
