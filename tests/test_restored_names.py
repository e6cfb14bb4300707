"""Names that a damaged index changed, put right by the index of another checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builder
import faults
import numpy as np
import pytest

import ckptparse

STEMS = ("bias", "gamma", "kernel", "moving_mean")
NAMES = [f"model/layer_{n // 4:02}/{STEMS[n % 4]}" for n in range(120)]


def arrays_of(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(size=(4, 3 + n % 5)).astype(np.float32) for n, name in enumerate(NAMES)
    }


def write(directory: Path, stem: str, arrays: dict[str, Any]) -> Path:
    bundle = builder.Bundle()
    for name, array in arrays.items():
        bundle.add(name, array)
    return Path(bundle.write(directory / stem))


@pytest.mark.parametrize("seed", range(12))
def test_no_tensor_has_an_invented_name_beside_another_checkpoint(
    seed: int, tmp_path: Path
) -> None:
    arrays = arrays_of(1)
    prefix = write(tmp_path, "m", arrays)
    write(tmp_path, "m-2", arrays_of(2))
    rng = np.random.default_rng(seed)
    index = Path(f"{prefix}.index")
    raw = bytearray(index.read_bytes())
    for at in [*rng.integers(60, len(raw) - 80, 3), *rng.integers(20, 100, 2)]:
        raw[int(at)] ^= 1 << int(rng.integers(7))
    index.write_bytes(raw)
    recovery = ckptparse.recover(prefix)
    assert set(recovery) <= set(NAMES)
    assert faults.judge(recovery, arrays).wrong == ()
    assert sum(faults.same(tensor.read(), arrays[name]) for name, tensor in recovery.items()) == 120


def test_a_tensor_whose_name_is_restored_is_proved_by_the_other_index(tmp_path: Path) -> None:
    """The checksum proves its bytes, and the same entry there name, dtype and shape."""
    arrays = arrays_of(1)
    prefix = write(tmp_path, "m", arrays)
    write(tmp_path, "m-2", arrays_of(2))
    index = Path(f"{prefix}.index")
    raw = bytearray(index.read_bytes())
    at = raw.index(b"oving_mean")
    raw[at : at + 2] = b"##"
    index.write_bytes(raw)
    recovery = ckptparse.recover(prefix)
    assert set(recovery) == set(NAMES)
    tensor = recovery["model/layer_00/moving_mean"]
    assert tensor.status == "verified" and "m-2.index has the same entry" in tensor.note
    assert faults.judge(recovery, arrays).wrong == ()
