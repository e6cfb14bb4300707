"""Checkpoints as people have them, made by the tests' builder: small, slots and counters too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import builder
import numpy as np
import numpy.typing as npt

__all__ = ["Model", "make_model", "write"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Model:
    """Tensors in the order in which they are stored."""

    arrays: dict[str, Array]

    @property
    def size(self) -> int:
        """Bytes of the data file."""
        return sum(array.nbytes for array in self.arrays.values())


def make_model(seed: int = 0, *, width: int = 64, layers: int = 4, rows: int = 2000) -> Model:
    """Make a model after some steps of Adam: rows of its embedding that were never seen are zeros
    in its slots.
    """
    rng = np.random.default_rng(seed)
    arrays: dict[str, Array] = {"embedding": rng.normal(0, 0.05, (rows, width))}
    for layer in range(layers):
        arrays[f"layer_{layer}/bias"] = rng.normal(0, 0.01, width)
        arrays[f"layer_{layer}/kernel"] = rng.normal(0, 0.05, (width, width))
    for name, array in list(arrays.items()):
        first = rng.normal(0, 1e-3, array.shape)
        second = first**2 * rng.uniform(1, 30, array.shape)
        if name == "embedding":
            seen = rng.random((rows, 1)) < 0.6
            first, second = first * seen, second * seen
        arrays[f"{name}/Adam"], arrays[f"{name}/Adam_1"] = first, second
    floats = {name: array.astype("<f4") for name, array in arrays.items()}
    floats["beta1_power"] = np.float32(0.9**7)
    floats["global_step"] = np.array(70_000 + seed)
    return Model(dict(sorted(floats.items())))


def write(model: Model, prefix: Path) -> Path:
    """Write a checkpoint of one data file; return the data file."""
    made = builder.Bundle()
    for name, array in model.arrays.items():
        made.add(name, np.asarray(array))
    prefix.parent.mkdir(parents=True, exist_ok=True)
    made.write(prefix)
    return Path(f"{prefix}.data-00000-of-00001")
