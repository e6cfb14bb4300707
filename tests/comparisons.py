"""What differs between two checkpoints, worked out from their whole values, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import ckptparse


@dataclass(frozen=True)
class Change:
    dtype: tuple[str, str]
    shape: tuple[tuple[int, ...], tuple[int, ...]]
    largest: float | None = None
    mean: float | None = None
    share: float | None = None


@dataclass(frozen=True)
class Changes:
    paths: tuple[str, str]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]
    changed: Mapping[str, Change]
    equal: tuple[str, ...]


def compare(a: str | Path, b: str | Path) -> Changes:
    before, after = ckptparse.read(a), ckptparse.read(b)
    shared = [name for name in after if name in before]
    same = [name for name in shared if np.array_equal(before[name], after[name])]
    return Changes(
        (str(a), str(b)),
        tuple(name for name in after if name not in before),
        tuple(name for name in before if name not in after),
        (),
        {name: change(before[name], after[name]) for name in shared if name not in same},
        tuple(same),
    )


def change(old: np.ndarray[Any, Any], new: np.ndarray[Any, Any]) -> Change:
    names = str(old.dtype), str(new.dtype)
    if old.shape != new.shape or "object" in names:
        return Change(names, (old.shape, new.shape))
    apart = np.abs(new.astype(np.float64) - old.astype(np.float64))
    return Change(
        names, (old.shape, new.shape), float(apart.max()), float(apart.mean()),
        float((apart != 0).mean()),
    )  # fmt: skip
