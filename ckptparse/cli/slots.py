"""What stands beside the variables: slots of optimizers, and moving averages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import ckptparse

__all__ = ["Slot", "iter_slots"]

_AVERAGE = "average"


@dataclass(frozen=True, slots=True)
class Slot:
    """What is kept for a variable, and by which optimizer: None for a moving average."""

    variable: str
    slot: str
    tensor: ckptparse.Tensor
    optimizer: str | None


def iter_slots(checkpoint: ckptparse.Checkpoint) -> Iterator[Slot]:
    """Iterate over the slots of every optimizer, then over moving averages that are none."""
    shown: set[str] = set()
    for optimizer in checkpoint.optimizers:
        for variable, slots in optimizer.slots.items():
            for slot, tensor in slots.items():
                shown.add(tensor.name)
                yield Slot(variable, slot, tensor, optimizer.name)
    for variable, averages in checkpoint.averages.by_variable().items():
        for tensor in averages:
            if tensor.name not in shown:
                yield Slot(variable, _AVERAGE, tensor, None)
