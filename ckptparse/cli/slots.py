"""An optimizer's slots beside their variables, however the checkpoint tells them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import ckptparse

__all__ = ["Slot", "iter_slots"]

_TF1_SLOTS = frozenset(
    {
        *("Adadelta", "Adadelta_1", "Adagrad", "AdagradDA", "AdagradDA_1", "Adam", "Adam_1"),
        *("AdaMax", "AdaMax_1", "AdamWeightDecayOptimizer", "ExponentialMovingAverage", "Ftrl"),
        *("Ftrl_1", "LARSOptimizer", "Momentum", "ProximalAdagrad", "RMSProp", "RMSProp_1"),
        *("RMSProp_2", "adam_m", "adam_v", "LAMB", "LAMB_1", "Nadam", "Nadam_1"),
    }
)
"""What TF1's optimizers put after a variable's name and a slash."""


@dataclass(frozen=True, slots=True)
class Slot:
    """What an optimizer keeps for a variable, under which name."""

    variable: str
    slot: str
    tensor: ckptparse.Tensor


def iter_slots(checkpoint: ckptparse.Checkpoint) -> Iterator[Slot]:
    """Iterate over slots: by the object graph, else by the names that TF1's optimizers give."""
    optimizer = checkpoint.optimizer
    if optimizer is not None:
        for variable, slots in optimizer.slots.items():
            for slot, tensor in slots.items():
                yield Slot(variable, slot, tensor)
        return
    if checkpoint.object_graph is not None:
        return
    for name in checkpoint:
        variable, _, slot = name.rpartition("/")
        if slot in _TF1_SLOTS and variable in checkpoint:
            yield Slot(variable, slot, checkpoint[name])
