"""What a situation is, and how what comes back of it is weighed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from situations.models import Model, make_model

import ckptparse

__all__ = [
    "MODEL",
    "SECTOR",
    "Given",
    "Outcome",
    "Situation",
    "check",
    "lose_index",
    "noise",
    "shapes_of",
    "weigh",
    "zero_sectors",
]

SURE = ("verified", "corrected", "derived", "partial")
SECTOR = 512
MODEL = make_model()


@dataclass
class Given:
    """What is left, and what else there is."""

    path: Path
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Situation:
    """What happened, and what must come back of it."""

    name: str
    happen: Callable[[Path], Given]
    share: float
    """The share of the bytes that must come back right, under any status."""
    proved: float
    """The share that must be verified, corrected or derived."""
    wrong: float = 0.0
    """The share of the bytes offered as unverified, and not masked, that may be wrong."""
    model: Model = MODEL
    """The original."""


def zero_sectors(path: Path, count: int, seed: int, filler: int = 0) -> list[int]:
    data = bytearray(path.read_bytes())
    sectors = np.random.default_rng(seed).permutation(len(data) // SECTOR)[:count].tolist()
    for sector in sectors:
        data[sector * SECTOR : (sector + 1) * SECTOR] = bytes([filler]) * SECTOR
    path.write_bytes(data)
    return sectors


def lose_index(prefix: Path) -> None:
    Path(f"{prefix}.index").unlink()


def shapes_of(model: Model) -> dict[str, Any]:
    return {
        name: {"dtype": str(array.dtype), "shape": list(array.shape)}
        for name, array in model.arrays.items()
    }


def noise(size: int, seed: int = 99) -> bytes:
    return np.random.default_rng(seed).bytes(size)


@dataclass
class Outcome:
    """Shares of the bytes of the original."""

    right: float = 0.0
    proved: float = 0.0
    offered: float = 0.0
    """As unverified, unmasked."""
    wrong: float = 0.0
    """Of these."""
    false: list[str] = field(default_factory=list)
    """Tensors that were promised and differ."""


def weigh(recovery: ckptparse.Recovery, model: Model) -> Outcome:
    outcome = Outcome()
    for name, original in model.arrays.items():
        tensor = recovery.get(name)
        if tensor is None:
            continue
        share = original.nbytes / model.size
        values = tensor.read()
        shown = ~np.ma.getmaskarray(values)
        bits = np.asarray(original).view(f"V{original.dtype.itemsize}")
        found = np.array(np.ma.getdata(values), order="C")
        if found.dtype != original.dtype or found.shape != original.shape:
            outcome.false.append(name)
            continue
        same = found.view(bits.dtype) == bits
        outcome.right += share * float((same & shown).mean())
        differing = float((~same & shown).mean())
        if tensor.status in SURE:
            outcome.proved += share if tensor.status != "partial" else 0
            outcome.false += [name] if differing else []
        else:
            outcome.offered += share * float(shown.mean())
            outcome.wrong += share * differing
    return outcome


def check(situation: Situation, directory: Path) -> None:
    """Let it happen, and see what comes back."""
    given = situation.happen(directory)
    outcome = weigh(ckptparse.recover(given.path, **given.options), situation.model)
    assert outcome.false == []
    assert outcome.right >= situation.share - 1e-9
    assert outcome.proved >= situation.proved - 1e-9
    assert outcome.wrong <= situation.wrong * max(outcome.offered, 1e-9) + 1e-12
