"""Optimizers: what each keeps for which variable, and the moving averages of variables.

An object graph tells them in one of three ways (docs/format.md, section 7):

    Keras 2 to 2.10, TF1    slot_variables: variable, slot's name, slot
    Keras 2.11 and newer    _variables: `Adam/m/dense/kernel`, the optimizer, slot and variable
    Keras 3                 _trainable_variables/i beside _momentums/i, _velocities/i ...

Without one the names do (`name_roles`). The slot `average`, of Keras's `use_ema` and of SWA, is a
moving average of its variable; so is a variable `w/ExponentialMovingAverage` beside `w`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from ckptparse.errors import AmbiguousError, name_not_found
from ckptparse.graph.name_roles import AVERAGE_SLOTS, is_average_name
from ckptparse.graph.object_graph import LEARNING_RATES, STEPS, ObjectGraph
from ckptparse.graph.object_node import ObjectNode
from ckptparse.graph.roles import NamedOptimizer
from ckptparse.graph.slot_search import find_slots, own_nodes
from ckptparse.tensor import Tensor

__all__ = [
    "Averages",
    "NameOptimizer",
    "ObjectOptimizer",
    "Optimizer",
    "Slots",
    "find_averages",
    "find_optimizers",
    "the_optimizer",
]

_COUNTED = "optimizers are counted"
_OPTIMIZER_STEPS = 32
"""What an optimizer counts as, of `ObjectGraph.most_steps`: all that is made of one, whatever it
keeps, takes as long as so many objects."""
_NAMED_STEPS = ("iterations", "iter", "iteration")
_NAMED_RATES = ("learning_rate", "lr")

Find = Callable[[str], Tensor]
"""Gives the tensor of a stored name."""


class Slots(Mapping[str, Mapping[str, Tensor]]):
    """What an optimizer keeps for each variable: `slots["dense/kernel"]["m"].read()`.

    A variable is called by its own name, by its checkpoint key if it has none or shares it; each
    is found by its key too. A slot is called as the optimizer calls it (`m`, `momentum` ...).
    """

    def __init__(
        self,
        slots: Mapping[str, Mapping[str, str]],
        find: Find,
        *,
        keys: Mapping[str, str] | None = None,
        path: str | None = None,
    ) -> None:
        """Take what was found.

        Args:
            slots: Variable -> slot -> stored name.
            find: Gives the tensor of a stored name.
            keys: Checkpoint key -> variable.
            path: The file, for errors.
        """
        self._slots = slots
        self._find = find
        self._by_key = keys or {}
        self._path = path

    @property
    def stored_names(self) -> Mapping[str, Mapping[str, str]]:
        """The names of all slots in the checkpoint, by variable and by slot."""
        return self._slots

    def __getitem__(self, variable: str) -> Mapping[str, Tensor]:
        slots = self._slots[self._name_of(variable)]
        return {slot: self._find(name) for slot, name in slots.items()}

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
            raise name_not_found(message, variable, self, path=self._path)
        return name


class Optimizer:
    """The state of one optimizer.

    Attributes:
        name: Its path in the object graph; in a name-based checkpoint what stands behind its
            variables' names, with the scope before them and a number (`train/Adam_1`).
        node: Its object; None in a name-based checkpoint.
    """

    name: str
    node: ObjectNode | None

    @property
    def path(self) -> str | None:
        """Its path in the object graph, or None."""
        return None if self.node is None else self.node.path

    @property
    def slots(self) -> Slots:
        """What it keeps for each variable, by the variable and by the slot."""
        raise NotImplementedError

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """All that it keeps, by stored name: slots, counters, hyperparameters."""
        raise NotImplementedError

    @property
    def iterations(self) -> int | None:
        """How many steps it has made; None if the checkpoint does not hold that.

        Raises:
            DataLossError: The number's bytes are damaged.
        """
        raise NotImplementedError

    @property
    def learning_rate(self) -> float | None:
        """Its learning rate; None if none is stored, as with a schedule.

        Raises:
            DataLossError: The number's bytes are damaged.
        """
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<Optimizer {self.name!r}>"


class ObjectOptimizer(Optimizer):
    """An optimizer of an object graph."""

    def __init__(self, node: ObjectNode, owner: ObjectNode | None = None) -> None:
        """Take its object, and the optimizer that wraps it, as a LossScaleOptimizer does."""
        self.node: ObjectNode = node
        self._owner = owner or node
        self.name = _name_of(node)

    @cached_property
    def slots(self) -> Slots:
        """What it keeps for each variable, by the variable and by the slot."""
        graph = self.node.graph
        keys, names = graph.keys_by_node, graph.names_by_key
        slots: dict[str, Mapping[str, str]] = {}
        by_key: dict[str, str] = {}
        for variable, by_slot in self.slot_nodes.items():
            key = keys.get(variable)
            if key is not None:
                by_key[key] = names.get(key, key)
                stored = {slot: keys.get(node, "") for slot, node in by_slot.items()}
                slots[names.get(key, key)] = {slot: one for slot, one in stored.items() if one}
        return Slots(slots, self._find, keys=by_key, path=graph.path)

    @cached_property
    def slot_nodes(self) -> Mapping[int, Mapping[str, int]]:
        """Number of a variable's node -> slot's name -> number of the slot's node."""
        return find_slots(self.node)

    @cached_property
    def nodes(self) -> tuple[int, ...]:
        """Numbers of the nodes of its slots, its own node, and those that it alone holds."""
        kept = own_nodes(self._owner, excluded=set(self.slot_nodes))
        slots = (number for slots in self.slot_nodes.values() for number in slots.values())
        return tuple(dict.fromkeys((*slots, *kept)))

    @cached_property
    def tensors(self) -> Mapping[str, Tensor]:
        """All that it keeps, by stored name: slots, counters, hyperparameters."""
        found: dict[str, Tensor] = {}
        for number in self.nodes:
            found |= self.node.graph.node(number).tensors
        return found

    @property
    def iterations(self) -> int | None:
        """How many steps it has made; None if the checkpoint does not hold that."""
        value = _scalar(map(self._child, STEPS), "iu")
        return None if value is None else int(value)

    @property
    def learning_rate(self) -> float | None:
        """Its learning rate; None if none is stored, as with a schedule."""
        value = _scalar(map(self._child, LEARNING_RATES), "f")
        return None if value is None else float(value)

    def _find(self, key: str) -> Tensor:
        tensor = self.node.graph.find_tensor(key)
        if tensor is None:
            message = "The optimizer's slot is not in the checkpoint"
            raise name_not_found(message, key, (), path=self.node.graph.path)
        return tensor

    def _child(self, name: str) -> Tensor | None:
        child = self.node.get(name)
        if child is None or child.checkpoint_key is None:
            return None
        return self.node.graph.find_tensor(child.checkpoint_key)


class NameOptimizer(Optimizer):
    """An optimizer that stored names tell of."""

    node = None

    def __init__(self, found: NamedOptimizer, find: Find, *, path: str | None = None) -> None:
        self.name = found.name
        self._found = found
        self._find = find
        self._path = path

    @cached_property
    def slots(self) -> Slots:
        """What it keeps for each variable, by the variable and by the slot."""
        return Slots(self._found.slots, self._find, path=self._path)

    @cached_property
    def tensors(self) -> Mapping[str, Tensor]:
        """All that it keeps, by stored name: slots, counters, hyperparameters."""
        return {name: self._find(name) for name in self._found.stored_names()}

    @property
    def iterations(self) -> int | None:
        """How many steps it has made; None if the checkpoint does not hold that."""
        value = _scalar(self._others(_NAMED_STEPS), "iu")
        return None if value is None else int(value)

    @property
    def learning_rate(self) -> float | None:
        """Its learning rate; None if none is stored, as with a schedule."""
        value = _scalar(self._others(_NAMED_RATES), "f")
        return None if value is None else float(value)

    def _others(self, wanted: Sequence[str]) -> Iterator[Tensor]:
        for last in wanted:
            for name in self._found.others:
                if name.rpartition("/")[2] == last:
                    yield self._find(name)


class Averages(Mapping[str, Tensor]):
    """The moving averages of variables: `averages["dense/kernel"].read()`.

    A variable is called by its own name, by its checkpoint key if it has none or shares it.

    Attributes:
        tensors: All of them by stored name: a variable may have several, of which the first is
            found by the variable.
        stored_names: The names in the checkpoint alone.
    """

    def __init__(
        self, averages: Mapping[str, Sequence[str]], find: Find, *, path: str | None = None
    ) -> None:
        """Take the stored names of each variable's averages."""
        self._averages = averages
        self._find = find
        self._path = path

    @property
    def stored_names(self) -> list[str]:
        """The names of all averages in the checkpoint."""
        return [name for names in self._averages.values() for name in names]

    def by_variable(self) -> dict[str, list[Tensor]]:
        """Return every average of each variable."""
        return {
            variable: list(map(self._find, names)) for variable, names in self._averages.items()
        }

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """Every average, by stored name."""
        return {name: self._find(name) for name in self.stored_names}

    def __getitem__(self, variable: str) -> Tensor:
        names = self._averages.get(variable) or self._averages.get(variable.removesuffix(":0"))
        if not names:
            message = f"No moving average of that variable, among {len(self)}"
            raise name_not_found(message, variable, self, path=self._path)
        return self._find(names[0])

    def __contains__(self, variable: object) -> bool:
        return variable in self._averages

    def __iter__(self) -> Iterator[str]:
        return iter(self._averages)

    def __len__(self) -> int:
        return len(self._averages)

    def __repr__(self) -> str:
        return f"<Averages of {len(self)} variables>"


def _name_of(node: ObjectNode) -> str:
    memo, key = node.graph.memo, ("name", node.node_id)
    if key not in memo:
        memo[key] = node.graph.path_of(node.node_id, at_most=8) or ""
    name: str = memo[key]
    return name


def find_optimizers(graph: ObjectGraph) -> list[ObjectOptimizer]:
    """Return every optimizer of a graph, breadth-first; one that wraps another counts as that.

    Raises:
        LimitError: They are more than those of any real model, or share too many objects.
    """
    if _COUNTED not in graph.memo:
        graph.follow(_OPTIMIZER_STEPS * sum(map(len, graph.optimizer_groups.values())))
        graph.memo[_COUNTED] = True
    return [
        optimizer
        for owner, numbers in graph.optimizer_groups.items()
        for optimizer in _unwrapped(graph.node(owner), list(map(graph.node, numbers)))
    ]


def _unwrapped(owner: ObjectNode, nodes: list[ObjectNode]) -> Iterator[ObjectOptimizer]:
    """Iterate over the optimizers that one holds: those with slots, else itself."""
    kept = nodes
    if len(nodes) > 1:
        kept = [node for node in nodes if find_slots(node)] or [owner]
    for node in kept:
        yield ObjectOptimizer(node, owner if len(kept) == 1 else node)


def the_optimizer(optimizers: Sequence[Optimizer], *, path: str | None = None) -> Optimizer | None:
    """Return the only optimizer, or None.

    Raises:
        AmbiguousError: There are several.
    """
    if len(optimizers) < 2:
        return optimizers[0] if optimizers else None
    names = tuple(optimizer.name for optimizer in optimizers)
    raise AmbiguousError(
        f"Expected one optimizer, found {len(names)}: {', '.join(map(repr, names))}",
        candidates=names,
        path=path,
        hint="Take one of .optimizers",
    )


def find_averages(graph: ObjectGraph, optimizers: Iterable[ObjectOptimizer]) -> Averages:
    """Find the moving averages of an object graph: slots of that name, and variables named so."""
    found: dict[str, list[str]] = {}
    for optimizer in optimizers:
        for variable, slots in optimizer.slots.stored_names.items():
            names = [name for slot, name in slots.items() if slot in AVERAGE_SLOTS]
            if names:
                found.setdefault(variable, []).extend(names)
    by_name = {name: key for key, name in graph.names_by_key.items()}
    for name, key in by_name.items():
        variable = name.rpartition("/")[0]
        if is_average_name(name) and _same_shape(graph, key, by_name.get(variable)):
            found.setdefault(variable, []).append(key)
    return Averages(found, _finder(graph), path=graph.path)


def _same_shape(graph: ObjectGraph, key: str, other: str | None) -> bool:
    first = graph.find_tensor(key)
    second = None if other is None else graph.find_tensor(other)
    return first is not None and second is not None and first.shape == second.shape


def _finder(graph: ObjectGraph) -> Find:
    def find(key: str) -> Tensor:
        tensor = graph.find_tensor(key)
        if tensor is None:
            raise name_not_found("It is not in the checkpoint", key, (), path=graph.path)
        return tensor

    return find


def _scalar(tensors: Iterable[Tensor | None], kinds: str) -> Any:
    """Read the first scalar of such a kind."""
    for tensor in tensors:
        if tensor is not None and tensor.shape == () and tensor.dtype.kind in kinds:
            return tensor.read()[()]
    return None
