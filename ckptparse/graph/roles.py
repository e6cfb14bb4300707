"""What the tensors of a name-based checkpoint are for, as values: `name_roles` finds it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["GraphRoles", "GraphSlot", "NameRoles", "NamedOptimizer"]


@dataclass(frozen=True, slots=True)
class GraphSlot:
    """What a graph says of one slot: the op that updates the variable takes both.

    Attributes:
        variable: Stored name of the variable.
        slot: What the op calls it, such as `m`.
        optimizer: Name of the optimizer.
    """

    variable: str
    slot: str
    optimizer: str


@dataclass(frozen=True, slots=True)
class GraphRoles:
    """What a graph says of the tensors of its checkpoint.

    Attributes:
        order: Stored names of variables, in the order in which the program made them.
        slots: By stored name.
        others: Stored name of what else an optimizer keeps -> the optimizer's name.
    """

    order: tuple[str, ...] = ()
    slots: Mapping[str, GraphSlot] = field(default_factory=dict)
    others: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NamedOptimizer:
    """An optimizer of a name-based checkpoint, all by stored names.

    Attributes:
        name: With its scope, numbered if it is not the first: `train/Adam_1`.
        slots: Variable -> slot's name -> stored name.
        others: What else it keeps: counters and hyperparameters.
    """

    name: str
    slots: dict[str, dict[str, str]] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)

    def stored_names(self) -> list[str]:
        """Return every name that is this optimizer's."""
        return [name for slots in self.slots.values() for name in slots.values()] + self.others


@dataclass(frozen=True, slots=True)
class NameRoles:
    """What the names of a checkpoint are; those that stand nowhere here are variables.

    Attributes:
        optimizers: By name, sorted.
        averages: Variable -> stored names of its moving averages.
        counters: Steps, and what else counts and belongs to no optimizer.
    """

    optimizers: dict[str, NamedOptimizer]
    averages: dict[str, list[str]]
    counters: list[str]

    def state(self) -> set[str]:
        """Return every name that is no variable of the model."""
        names = set(self.counters)
        names.update(name for names in self.averages.values() for name in names)
        for optimizer in self.optimizers.values():
            names.update(optimizer.stored_names())
        return names
