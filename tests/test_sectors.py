"""Bytes whose sectors lie in the checkpoint's own files in another order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ckptparse.examination.readers import DataFiles
from ckptparse.files.context import begin
from ckptparse.recovery.sectors import Sectors


def sectors_of(path: Path, raw: bytes) -> Sectors:
    path.write_bytes(raw)
    _, context = begin(str(path))
    return Sectors(DataFiles(context), [str(path)])


def striped(raw: bytes, seed: int = 1) -> bytes:
    order = np.random.default_rng(seed).permutation(len(raw) // 512)
    return b"".join(raw[512 * n : 512 * (n + 1)] for n in order)


@pytest.mark.parametrize("offset", [0, 3, 500, 512, 1023])
def test_bytes_are_held_wherever_they_begin(offset: int, tmp_path: Path) -> None:
    raw = np.random.default_rng(0).bytes(1 << 21)
    held = sectors_of(tmp_path / "data", striped(raw))
    part = np.frombuffer(raw[offset : offset + 9000], np.uint8)
    assert held.hold(part, offset)
    assert not held.hold(part, offset + 1)


def test_one_changed_byte_of_a_whole_sector_is_seen(tmp_path: Path) -> None:
    raw = np.random.default_rng(0).bytes(1 << 16)
    held = sectors_of(tmp_path / "data", striped(raw))
    for at in (512, 1000, 4000, 8191):
        part = np.frombuffer(raw[:8192], np.uint8).copy()
        part[at] ^= 1
        assert not held.hold(part, 0)


def test_fills_and_short_bytes_are_never_held(tmp_path: Path) -> None:
    raw = bytes(8192) + np.random.default_rng(0).bytes(8192)
    held = sectors_of(tmp_path / "data", raw)
    assert not held.hold(np.zeros(4096, np.uint8), 0)
    assert not held.hold(np.frombuffer(raw[8192 : 8192 + 900], np.uint8), 0)
    assert held.hold(np.frombuffer(raw[7168 : 8192 + 1024], np.uint8), 7168)
    assert not sectors_of(tmp_path / "empty", b"").hold(np.frombuffer(raw, np.uint8), 0)


def test_a_thousand_random_runs_are_not_held(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    held = sectors_of(tmp_path / "data", rng.bytes(1 << 20))
    for _ in range(1000):
        assert not held.hold(np.frombuffer(rng.bytes(2048), np.uint8), int(rng.integers(512)))
