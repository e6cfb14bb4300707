"""A disk is asked early, and in the order of the file, for what will be read."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import ckptparse
from ckptparse.files import local
from ckptparse.files.local import LocalSource
from ckptparse.files.memory import MemorySource
from ckptparse.files.storage import expect

MIB = 1 << 20
pytestmark = pytest.mark.skipif(not local._HAS_ADVICE, reason="this system takes no such advice")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> str:
    prefix = tmp_path_factory.mktemp("large") / "ckpt"
    values = {name: np.zeros(24 * MIB, np.uint8) for name in ("a", "b", "c", "d")}
    values["e"] = np.zeros(5, np.float32)
    ckptparse.write(str(prefix), values)
    return str(prefix)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What files are asked for: offsets and sizes in bytes."""
    found: list[tuple[int, int]] = []
    monkeypatch.setattr(LocalSource, "expect", lambda _, *where: found.append(where))
    return found


@pytest.mark.parametrize(
    ("work", "first"),
    [
        (ckptparse.read, 16 * MIB),
        (lambda path: ckptparse.read(path, mmap=True), 16 * MIB),
        (ckptparse.verify, 0),
    ],
    ids=["read", "map", "verify"],
)
def test_what_comes_later_is_asked_for_once_in_order(
    work: Callable[[str], object],
    first: int,
    large: str,
    asked: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ckptparse.parallel.most_threads", lambda: 1)
    work(large)
    assert asked[0][0] == first
    assert all(low + size == high for (low, size), (high, _) in pairwise(asked))
    # What is left is too little to be worth the question.
    assert 0 <= os.path.getsize(f"{large}.data-00000-of-00001") - sum(asked[-1]) < MIB


def test_tensors_that_are_not_wanted_are_not_asked_for(
    large: str, asked: list[tuple[int, int]]
) -> None:
    ckptparse.read(large, names=["a", "c"], threads=1)
    assert all(low + size <= 24 * MIB or 48 * MIB <= low < 72 * MIB for low, size in asked)
    asked.clear()
    ckptparse.read(large, names=["e"])
    assert not asked


def test_only_what_the_system_does_not_hold_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(3 * MIB))
    fetched: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _, *where: fetched.append(where[:2]))
    with LocalSource.open(str(path)) as source:
        monkeypatch.setattr(os, "preadv", lambda *_: 1)
        source.expect(0, 3 * MIB)
        assert not fetched
        monkeypatch.setattr(os, "preadv", _would_wait)
        source.expect(5, 2 * MIB + 1)
        assert fetched == [(5, MIB), (5 + MIB, MIB), (5 + 2 * MIB, 1)]


def _would_wait(*_: object) -> int:
    raise BlockingIOError


def test_advice_never_fails(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"abc")
    source = LocalSource.open(str(path))
    source.expect(0, 3)
    source.expect(1 << 40, 1 << 20)
    source.expect(1 << 64, 5)
    source.expect(-1, 5)
    source.close()
    source.expect(0, 3)
    expect(MemorySource("m", b"abc"), 0, 3)  # Nothing has to be fetched there.
