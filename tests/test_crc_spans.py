"""Checksums of runs of many sizes, by the registers at their ends."""

from __future__ import annotations

import numpy as np
import pytest
from crc32c import crc32c

from ckptparse.crc import prefixes
from ckptparse.crc.prefixes import Prefixes
from ckptparse.crc.spans import SpanChecksums
from ckptparse.files.memory import MemorySource

SIZE = 30_001


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Bytes in several blocks, of which two are kept."""
    monkeypatch.setattr(prefixes, "_SHIFT", 12)
    monkeypatch.setattr(prefixes, "_BLOCK", 1 << 12)
    monkeypatch.setattr(prefixes, "_MOST_HELD", 2)
    return np.random.default_rng(3).bytes(SIZE)


def test_a_register_is_that_of_all_bytes_before_it(data: bytes) -> None:
    registers = Prefixes(MemorySource("x", data))
    places = np.array([SIZE, 0, 1, 4096, 4095, 20_000, 8191, 8192], np.int64)
    told = registers.at(places) ^ np.uint32(0xFFFFFFFF)
    assert told.tolist() == [crc32c(data[:place]) for place in places.tolist()]
    assert registers.one(SIZE) ^ 0xFFFFFFFF == crc32c(data)


def test_registers_near_each_other_are_computed_once(data: bytes) -> None:
    registers = Prefixes(MemorySource("x", data))
    registers.at(np.arange(100, 200, dtype=np.int64))
    work = registers.work
    registers.at(np.arange(3000, 4000, dtype=np.int64))
    assert registers.work == work


def test_checksums_of_all_sizes_are_those_of_the_bytes(data: bytes) -> None:
    sizes = np.array([1, 2, 3, 5, 100, 4096, 5001, 20_000], np.int64)
    spans = SpanChecksums(Prefixes(MemorySource("x", data)), sizes)
    for start in (0, 1, 4097, SIZE - 20_000):
        told = [crc32c(data[start : start + size]) for size in sizes.tolist()]
        assert spans.behind(start, len(sizes)).tolist() == told
        assert spans.behind(start, 3).tolist() == told[:3]
    starts = SIZE - sizes
    told = [crc32c(data[start:]) for start in starts.tolist()]
    assert spans.between(starts, starts + sizes).tolist() == told
