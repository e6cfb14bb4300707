"""Every truncation and every single-bit flip of a small index and of its data files.

Held against the intact values: nothing that is promised may differ, nothing may be called whole
that is not, and one flipped bit is always put right.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import builder
import faults
import numpy as np
import pytest
from packages import ml_dtypes

import ckptparse

Arrays = faults.Arrays


def small() -> tuple[Arrays, builder.Bundle]:
    arrays: Arrays = {
        "bias": np.zeros(4, np.float32),
        "flag": np.array(True),
        "half": np.array([1.5, -2], ml_dtypes.bfloat16),
        "kernel": (np.arange(6, dtype=np.float32) * 1.1).reshape(2, 3),
        "names": np.array([b"ab", b"", b"xyz"], object),
        "rate": np.array(0.1, np.float32),
        "rows": np.arange(8, dtype=np.int16).reshape(4, 2) * 1000,
        "step": np.array(7, np.int64),
    }
    made = builder.Bundle()
    for name, array in arrays.items():
        if name == "rows":
            made.add_sliced(name, array, [[(0, 3), None], [(3, 1), None]], shards=[0, 1])
        else:
            made.add(name, array)
    return arrays, made


class Checkpoint:
    """The small checkpoint in a directory, damaged anew for every test of a bit."""

    def __init__(self, directory: Path) -> None:
        self.arrays, made = small()
        self.prefix = directory / "m"
        made.write(self.prefix, block_size=120)
        self.whole = {path: path.read_bytes() for path in sorted(directory.iterdir())}

    @property
    def index(self) -> Path:
        return next(path for path in self.whole if path.suffix == ".index")

    @property
    def shard(self) -> Path:
        return next(path for path in self.whole if ".data-00000" in path.name)

    def examine(self, path: Path, data: bytes) -> faults.Judgement:
        """Verify and recover with other bytes in one file."""
        path.write_bytes(data)
        report = ckptparse.verify(self.prefix)
        recovery = ckptparse.recover(self.prefix)
        judgement = faults.judge(recovery, self.arrays)
        path.write_bytes(self.whole[path])
        assert not judgement.wrong
        for name, tensor in report.tensors.items():
            if tensor.status == "verified":
                assert name in self.arrays
        assert report.problems, "the damage went unseen"
        assert report.ok <= all(t.status == "verified" for t in report.tensors.values())
        return judgement


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return Checkpoint(tmp_path)


def test_an_index_cut_anywhere_gives_back_its_whole_blocks(checkpoint: Checkpoint) -> None:
    data = checkpoint.whole[checkpoint.index]
    shares = [checkpoint.examine(checkpoint.index, data[:size]).proved for size in range(len(data))]
    # Once all data blocks are there, so is every tensor; before, never fewer for a later cut.
    assert all(share == 1.0 for share in shares[faults.data_end(data) :])
    assert shares == sorted(shares)


def test_a_data_file_cut_anywhere_gives_back_what_is_before_the_cut(
    checkpoint: Checkpoint,
) -> None:
    data = checkpoint.whole[checkpoint.shard]
    for size in range(len(data)):
        judgement = checkpoint.examine(checkpoint.shard, data[:size])
        before = sum(
            made.shard == 0 and not made.slices and made.offset + made.size <= size
            for made in small()[1].entries.values()
            if isinstance(made, builder.Entry)
        )
        assert judgement.proved * len(checkpoint.arrays) >= before - 1
        assert judgement.held >= judgement.proved


def flips(data: bytes, step: int = 1) -> list[tuple[int, int]]:
    return [(n // 8, n % 8) for n in range(0, 8 * len(data), step)]


def hold_flips(
    checkpoint: Checkpoint, path: Path, check: Callable[[Any], None], step: int = 1
) -> None:
    for offset, bit in flips(checkpoint.whole[path], step):
        damaged = bytearray(checkpoint.whole[path])
        faults.flip(damaged, offset, bit)
        check(checkpoint.examine(path, bytes(damaged)))


def is_put_right(judgement: faults.Judgement) -> None:
    assert judgement.proved == 1.0


def test_some_flipped_bits_of_index_and_data_are_put_right(checkpoint: Checkpoint) -> None:
    hold_flips(checkpoint, checkpoint.index, is_put_right, step=37)
    hold_flips(checkpoint, checkpoint.shard, is_put_right, step=11)


@pytest.mark.bitflips
def test_every_flipped_bit_of_an_index_is_put_right(checkpoint: Checkpoint) -> None:
    hold_flips(checkpoint, checkpoint.index, is_put_right)


@pytest.mark.bitflips
def test_every_flipped_bit_of_a_data_file_is_put_right(checkpoint: Checkpoint) -> None:
    for path in checkpoint.whole:
        if ".data-" in path.name:
            hold_flips(checkpoint, path, is_put_right)
