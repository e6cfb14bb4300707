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


def test_if_no_other_save_tells_where_a_seam_is_all_elements_are_suspect(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    later = pair(np.random.default_rng(2), np.float32, tmp_path / "run", related=False)
    recovery = ckptparse.recover(tmp_path / "run" / "ckpt-2")
    tensor = recovery["b"]
    assert tensor.status == "unverified" and tensor.cause == "shifted"
    assert "1,200 bytes were lost within it, and nothing tells where" in tensor.note
    assert tensor.ranges == tensor.suspect == ((0, 2100),)
    assert np.ma.getmaskarray(tensor.read()).all()
    kept = tensor.read(keep_suspect=True)
    assert (np.ma.getdata(kept).reshape(-1)[:500] == later["b"].reshape(-1)[:500]).all()
    # What would be filling alone is not written.
    (tmp_path / "out").mkdir()
    written = recovery.write(tmp_path / "out" / "all.ckpt", offer="plausible")
    assert sorted(written.digests) == ["a", "c"]
    assert "keep_suspect" in written.left_out["b"]
    kept_too = recovery.write(tmp_path / "out" / "kept.ckpt", offer="plausible", keep_suspect=True)
    assert sorted(kept_too.digests) == ["a", "b", "c"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_damaged_tensor_is_read_where_its_shifted_neighbours_lie(
    when: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(7)
    arrays = {name: rng.normal(0, 0.05, (50, 48)).astype("f4") for name in NAMES}
    data = saved(tmp_path, "m", arrays)
    raw = bytearray(data.read_bytes())
    if when == "before":
        raw[12_800:13_312] = bytes(512)
    raw[:0] = b"HTTP/1.1 200 OK\r\n\r\n"
    if when == "after":
        raw[12_800:13_312] = bytes(512)
    data.write_bytes(raw)
    tensor = ckptparse.recover(tmp_path / "m")["b"]
    assert tensor.status == "unverified"
    assert "it lies +19 bytes away" in tensor.note
    shown = ~np.ma.getmaskarray(tensor.read())
    assert (np.ma.getdata(tensor.read()) == arrays["b"])[shown].all()
    assert 0 < (~shown).sum() < 300


def test_the_twin_of_a_damaged_tensor_is_no_shift_of_its_neighbours(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    arrays = {name: rng.normal(0, 0.05, (50, 48)).astype("f4") for name in NAMES}
    arrays["d"] = arrays["a"].copy()
    data = saved(tmp_path, "m", arrays)
    raw = bytearray(data.read_bytes())
    raw[1024:1536] = bytes(512)  # In a, of which d has the bytes.
    raw[12_800:13_312] = bytes(512)  # In b.
    data.write_bytes(raw)
    recovery = ckptparse.recover(tmp_path / "m")
    assert recovery["a"].status == "corrected"
    shown = ~np.ma.getmaskarray(recovery["b"].read())
    assert (np.ma.getdata(recovery["b"].read()) == arrays["b"])[shown].all()
    assert (~shown).sum() < 300


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


def test_what_lies_between_two_losses_is_never_offered() -> None:
    rng = np.random.default_rng(5)
    found = shown = 0
    for _ in range(COUNT):
        count = int(rng.integers(600, 6000))
        parts = np.sort(rng.integers(1, count, 4))
        if np.diff(parts).min() < 1:
            continue
        theirs = rng.normal(size=count)
        ours = theirs + rng.normal(0, rng.choice([0.0, 0.01, 0.1, 0.3]), count)
        left = np.concatenate((ours[: parts[0]], ours[parts[1] : parts[2]], ours[parts[3] :]))
        seam = find_seam(left, theirs)
        if seam is not None:
            found += 1
            between = parts[2] - parts[1]
            # By chance an element beside a loss is nearest to where it would be without it.
            assert seam[0] <= parts[0] + 3 and seam[1] >= parts[0] + between - 3
            wrong = max(0, seam[0] - parts[0]) + max(0, parts[0] + between - seam[1])
            shown += int(wrong)
    assert found > COUNT / 5
    assert shown <= 4


def test_a_tensor_that_lost_bytes_twice_is_offered_without_what_lies_between(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(6)
    older = {name: rng.normal(0, 0.05, (50, 48)).astype("f4") for name in NAMES}
    later = {
        name: (array + rng.normal(0, 0.002, array.shape)).astype("f4")
        for name, array in older.items()
    }
    saved(tmp_path, "ckpt-1", older)
    data = saved(tmp_path, "ckpt-2", later)
    raw, start = data.read_bytes(), later["a"].nbytes
    data.write_bytes(raw[: start + 4000] + raw[start + 4400 : start + 4800] + raw[start + 5600 :])
    tensor = ckptparse.recover(tmp_path / "ckpt-2")["b"]
    found = tensor.read()
    shown = ~np.ma.getmaskarray(found)
    assert (np.ma.getdata(found) == later["b"])[shown].all()
    assert 400 <= (~shown).sum() <= 400 + 60
    assert "1,200 bytes were lost within it" in tensor.note


def test_a_thousand_pairs_of_unrelated_weights_have_no_seam() -> None:
    rng = np.random.default_rng(4)
    for _ in range(COUNT):
        count = int(rng.integers(200, 5000))
        lost = int(rng.integers(1, count // 2))
        assert find_seam(rng.normal(size=count - lost), rng.normal(size=count)) is None
