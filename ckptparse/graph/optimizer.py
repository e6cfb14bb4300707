"""Optimizers in an object graph: what each keeps for which variable (docs/format.md, section 7).

Keras 2 to 2.10, TF1    slot_variables: variable, slot's name, slot
Keras 2.11 and newer    _variables: `Adam/m/dense/kernel`, the optimizer, slot and variable
Keras 3                 _trainable_variables/i beside _momentums/i, _velocities/i ...
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ckptparse.errors import name_not_found
from ckptparse.graph.object_graph import ObjectGraph, ObjectNode
from ckptparse.tensor import Tensor

__all__ = ["Optimizer", "Slots", "find_optimizer", "find_optimizers", "is_optimizer"]

_ITERATIONS = ("_iterations", "iterations", "iter")
_LEARNING_RATES = ("_learning_rate", "learning_rate")
_TRAINABLE = "_trainable_variables"
_VARIABLES = "_variables"
_NO_SLOTS = {_TRAINABLE, _VARIABLES, "_trainable_variables_indices", "_index_dict"}


class Slots(Mapping[str, Mapping[str, Tensor]]):
    """What an optimizer keeps for each variable: `slots["dense/kernel"]["m"].read()`.

    A variable is called by its own name, by its checkpoint key where it has none or shares it; each
    is found by its key too. A slot is called as the optimizer calls it (`m`, `momentum` ...).
    """

    def __init__(self, graph: ObjectGraph, slots: Mapping[int, Mapping[str, int]]) -> None:
        self._graph = graph
        self._variables = list(slots)
        keys, names = graph.keys_by_node, graph.names_by_key
        self._slots: dict[str, Mapping[str, int]] = {}
        self._by_key: dict[str, str] = {}
        for variable, by_slot in slots.items():
            key = keys.get(variable)
            if key is not None:
                self._slots[names.get(key, key)] = by_slot
                self._by_key[key] = names.get(key, key)

    @property
    def variables(self) -> list[ObjectNode]:
        """The objects of the variables it keeps something for, in the order of the slots."""
        return [self._graph.node(node_id) for node_id in self._variables]

    def __getitem__(self, variable: str) -> Mapping[str, Tensor]:
        return {
            slot: self._graph.node(node_id).tensor
            for slot, node_id in self._slots[self._name_of(variable)].items()
        }

    def __contains__(self, variable: object) -> bool:
        return isinstance(variable, str) and self._find_name(variable) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._slots)

    def __len__(self) -> int:
        return len(self._slots)

    def __repr__(self) -> str:
        return f"<Slots of {len(self)} variables>"

    def _find_name(self, variable: str) -> str | None:
        for name in (variable, self._by_key.get(variable), variable.removesuffix(":0")):
            if name is not None and name in self._slots:
                return name
        return None

    def _name_of(self, variable: str) -> str:
        name = self._find_name(variable)
        if name is None:
            message = f"The optimizer keeps nothing for that variable, among {len(self)}"
            raise name_not_found(message, variable, self, path=self._graph.path)
        return name


@dataclass(frozen=True)
class Optimizer:
    """The state of one optimizer.

    Attributes:
        node: Its object.
    """

    node: ObjectNode

    @property
    def path(self) -> str | None:
        """Its path in the object graph."""
        return self.node.path

    @cached_property
    def slots(self) -> Slots:
        """What it keeps for each variable, by the variable and by the slot."""
        graph = self.node.graph
        slots = _legacy_slots(self.node) or _listed_slots(self.node) or _named_slots(self.node)
        return Slots(graph, slots)

    @property
    def iterations(self) -> int | None:
        """How many steps it has made; None where the checkpoint does not hold that.

        Raises:
            DataLossError: The number's bytes are damaged.
        """
        value = _scalar(self.node, _ITERATIONS, "iu")
        return None if value is None else int(value)

    @property
    def learning_rate(self) -> float | None:
        """Its learning rate; None where none is stored, as with a schedule.

        Raises:
            DataLossError: The number's bytes are damaged.
        """
        value = _scalar(self.node, _LEARNING_RATES, "f")
        return None if value is None else float(value)

    def __repr__(self) -> str:
        return f"<Optimizer {self.node.graph.path_of(self.node.node_id, at_most=8)!r}>"


def find_optimizer(graph: ObjectGraph) -> Optimizer | None:
    """Return the optimizer: the first that keeps something for variables, else the first at all."""
    found = find_optimizers(graph)
    return next((optimizer for optimizer in found if optimizer.slots), found[0] if found else None)


def find_optimizers(graph: ObjectGraph) -> list[Optimizer]:
    """Return every optimizer, breadth-first."""
    return [Optimizer(node) for node in graph.walk() if is_optimizer(node)]


def is_optimizer(node: ObjectNode) -> bool:
    """Tell whether an object is an optimizer, by what it keeps."""
    message = node.graph.message(node.node_id)
    if message.slot_variables:
        return True
    names = {child.local_name for child in message.children}
    if not names.isdisjoint(("_iterations", _TRAINABLE)) and _VARIABLES in names:
        return True
    return not names.isdisjoint(_ITERATIONS) and not names.isdisjoint(_LEARNING_RATES)


def _legacy_slots(optimizer: ObjectNode) -> dict[int, dict[str, int]]:
    slots: dict[int, dict[str, int]] = {}
    for slot in optimizer.slot_variables:
        slots.setdefault(slot.variable.node_id, {})[slot.slot_name] = slot.slot.node_id
    return slots


def _listed_slots(optimizer: ObjectNode) -> dict[int, dict[str, int]]:
    """Take Keras 3's lists, element by element beside the list of trainable variables."""
    trainable = optimizer.get(_TRAINABLE)
    if trainable is None:
        return {}
    variables = trainable.children
    slots: dict[int, dict[str, int]] = {node.node_id: {} for node in variables.values()}
    for name, child in optimizer.children.items():
        if name in _NO_SLOTS:
            continue
        for index, slot in child.children.items():
            variable = variables.get(index)
            if variable is not None and slot.is_variable:
                slots[variable.node_id][_slot_name(name, variable, slot)] = slot.node_id
    return {variable: by_slot for variable, by_slot in slots.items() if by_slot}


def _slot_name(list_name: str, variable: ObjectNode, slot: ObjectNode) -> str:
    """Name a slot by what its own name says after the variable's, else by its list."""
    prefix = (variable.full_name or "").replace("/", "_") + "_"
    own = (slot.full_name or "").rsplit("/", 1)[-1]
    if len(prefix) > 1 and own.startswith(prefix) and len(own) > len(prefix):
        return own.removeprefix(prefix)
    name = list_name.lstrip("_")
    return name.removesuffix("ies") + "y" if name.endswith("ies") else name.removesuffix("s")


def _named_slots(optimizer: ObjectNode) -> dict[int, dict[str, int]]:
    """Take the names of Keras 2.11: optimizer, slot and the variable's name.

    Variables that share a name come in the same order among the slots as in the graph.
    """
    holder = optimizer.get(_VARIABLES)
    if holder is None:
        return {}
    kept = list(dict.fromkeys(holder.children.values()))
    own = {node.node_id for node in kept} | {child.node_id for child in optimizer.values()}
    variables = _variables_by_name(optimizer.graph, own)
    slots: dict[int, dict[str, int]] = {}
    taken: dict[tuple[str, str], int] = {}
    for node in kept:
        slot, name = _split_slot_name(node.full_name or "", variables)
        number = taken.get((slot, name), 0)
        taken[slot, name] = number + 1
        if number < len(variables.get(name, ())):
            slots.setdefault(variables[name][number], {})[slot] = node.node_id
    return slots


def _variables_by_name(graph: ObjectGraph, excluded: set[int]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for node_id in graph.keys_by_node:
        name = graph.node(node_id).full_name
        if name and node_id not in excluded:
            found.setdefault(name, []).append(node_id)
    return found


def _split_slot_name(full_name: str, variables: Mapping[str, object]) -> tuple[str, str]:
    """Split `Adam/m/dense/kernel` into slot and the longest variable's name that fits.

    There may be scopes before the optimizer's name, or, in a LossScaleOptimizer, no name at all.
    """
    parts = full_name.split("/")
    for start in (*range(2, len(parts)), 1):
        name = "/".join(parts[start:])
        if name in variables:
            return parts[start - 1], name
    return "", ""


def _scalar(node: ObjectNode, names: tuple[str, ...], kinds: str) -> Any:
    """Read the first scalar of such a kind among the children of those names."""
    for name in names:
        child = node.get(name)
        if child is None or child.checkpoint_key is None:
            continue
        tensor = node.graph.find_tensor(child.checkpoint_key)
        if tensor is not None and tensor.shape == () and tensor.dtype.kind in kinds:
            return tensor.read()[()]
    return None
