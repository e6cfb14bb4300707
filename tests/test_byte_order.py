"""The byte order of data files whose index has lost its header, or is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builder
import faults
import numpy as np
import pytest
from packages import ml_dtypes

import ckptparse

HALF = np.float16 if ml_dtypes is None else ml_dtypes.bfloat16


def arrays_of(dtype: Any, seed: int = 1) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    weights = {f"layer{n:02}": rng.normal(0, 0.05, (40, 25)).astype(dtype) for n in range(30)}
    return {"counts": rng.integers(0, 1 << 40, 9), **weights, "step": np.int64(1000)}


def write(directory: Path, arrays: dict[str, Any], *, big: bool, block_size: int) -> Path:
    bundle = builder.Bundle(big=big)
    for name, array in arrays.items():
        bundle.add(name, array)
    return Path(bundle.write(directory / "m", block_size=block_size))


def damage_header(prefix: Path) -> None:
    """Overwrite the first entry, which is the header, and the key of the next one."""
    index = Path(f"{prefix}.index")
    raw = bytearray(index.read_bytes())
    raw[3:16] = b"\xaa" * 13
    index.write_bytes(raw)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, HALF])
def test_weights_prove_the_byte_order_of_whole_blocks(
    dtype: Any, big: bool, tmp_path: Path
) -> None:
    arrays = arrays_of(dtype)
    prefix = write(tmp_path, arrays, big=big, block_size=300)
    damage_header(prefix)
    for report in (ckptparse.verify(prefix), ckptparse.recover(prefix).report):
        assert report.tensors["layer29"].status == "verified"
        assert report.tensors["step"].status == "verified"
    recovery = ckptparse.recover(prefix)
    assert faults.judge(recovery, arrays).wrong == ()
    for name, tensor in recovery.items():
        assert faults.same(tensor.read(), arrays[name]), name


@pytest.mark.parametrize("big", [False, True])
def test_entries_of_a_damaged_block_are_read_in_the_byte_order_of_weights(
    big: bool, tmp_path: Path
) -> None:
    arrays = arrays_of(np.float32)
    prefix = write(tmp_path, arrays, big=big, block_size=1 << 18)
    damage_header(prefix)
    recovery = ckptparse.recover(prefix)
    assert int(recovery["step"].read()) == 1000
    assert {str(tensor.status) for tensor in recovery.values()} == {"unverified"}
    assert faults.same(recovery["layer29"].read(), arrays["layer29"])


@pytest.mark.parametrize("big", [False, True])
def test_a_lost_index_is_rebuilt_in_the_byte_order_of_weights(big: bool, tmp_path: Path) -> None:
    arrays = arrays_of(np.float32)
    prefix = write(tmp_path, arrays, big=big, block_size=1 << 18)
    Path(f"{prefix}.index").unlink()
    recovery = ckptparse.recover(prefix, shapes=arrays)
    for name, array in arrays.items():
        assert faults.same(recovery[name].read(), array), name


def test_numbers_and_constants_prove_no_byte_order(tmp_path: Path) -> None:
    arrays = {f"n{n:02}": np.full(60, n, np.int32) for n in range(30)}
    arrays |= {f"w{n:02}": np.full(600, 1.0, np.float32) for n in range(30)}
    prefix = write(tmp_path, arrays, big=False, block_size=300)
    damage_header(prefix)
    tensor = ckptparse.recover(prefix)["w29"]
    assert tensor.status == "unverified"
    assert "states the byte order" in tensor.note


def test_noise_tells_no_byte_order(tmp_path: Path) -> None:
    """Of a thousand random tensors none is taken for weights in either order."""
    rng = np.random.default_rng(3)
    arrays = {f"n{n:04}": np.frombuffer(rng.bytes(4 * 64), np.float32) for n in range(1000)}
    prefix = write(tmp_path, arrays, big=False, block_size=300)
    damage_header(prefix)
    assert set(ckptparse.verify(prefix).counts) == {"unverified"}


@pytest.mark.parametrize("dtype", [np.float32, np.float16, HALF])
def test_weights_that_lie_a_byte_further_on_tell_no_other_byte_order(
    dtype: Any, tmp_path: Path
) -> None:
    arrays = arrays_of(dtype)
    prefix = write(tmp_path, arrays, big=False, block_size=300)
    damage_header(prefix)
    data = Path(f"{prefix}.data-00000-of-00001")
    data.write_bytes(b"?" + data.read_bytes())
    recovery = ckptparse.recover(prefix)
    assert int(recovery["step"].read()) == 1000
    assert faults.same(recovery["layer29"].read(), arrays["layer29"])
