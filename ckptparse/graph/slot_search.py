"""Where an optimizer's object keeps what it has for which variable.

Keras 2 to 2.10, TF1    slot_variables: variable, slot's name, slot
Keras 2.11 and newer    _variables: `Adam/m/dense/kernel`, the optimizer, slot and variable
                        _momentums/i, _velocities/i ...: one for each variable, in one order
Keras 3                 _trainable_variables/i beside _momentums/i, _velocities/i ...

The slots of a ShardedVariable are called `ShardedVariable` by Keras 2.11: which variable they are
of follows from what stands at the same index of another list, else from the only variable of that
shape that has none.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from itertools import accumulate

from ckptparse.graph.object_graph import ObjectGraph
from ckptparse.graph.object_node import ObjectNode

__all__ = ["find_slots", "own_nodes"]

_TRAINABLE = "_trainable_variables"
_VARIABLES = "_variables"
_NO_SLOTS = {_TRAINABLE, _VARIABLES, "_trainable_variables_indices", "_index_dict"}
_AVERAGES_LIST = "_model_variables_moving_average"

_Slots = dict[int, dict[str, int]]
"""Number of a variable's node -> slot's name -> number of the slot's node."""


def find_slots(optimizer: ObjectNode) -> _Slots:
    """Find what an optimizer keeps for each variable.

    Returns:
        Number of a variable's node -> slot's name -> number of the slot's node.

    Raises:
        LimitError: The optimizers of the graph share too many objects.
    """
    memo, key = optimizer.graph.memo, ("slots", optimizer.node_id)
    if key not in memo:
        slots = _legacy_slots(optimizer) or _listed_slots(optimizer) or _named_slots(optimizer)
        memo[key] = slots
    found: _Slots = memo[key]
    return found


def own_nodes(optimizer: ObjectNode, *, excluded: set[int]) -> list[int]:
    """Return the numbers of an optimizer's object and of those that it alone holds.

    Args:
        optimizer: Its object.
        excluded: Numbers of the variables that it trains.

    Raises:
        LimitError: The optimizers of the graph share too many objects.
    """
    memo, key = optimizer.graph.memo, ("own", optimizer.node_id, frozenset(excluded))
    if key not in memo:
        memo[key] = _own_nodes(optimizer, excluded)
    found: list[int] = memo[key]
    return found


def _own_nodes(optimizer: ObjectNode, excluded: set[int]) -> list[int]:
    graph = optimizer.graph
    found = [optimizer.node_id]
    for number in found:
        node = graph.node(number)
        graph.follow(1 + len(node))
        for name, child in node.children.items():
            if name == _TRAINABLE or child.node_id in excluded:
                continue
            if graph.is_first_path(number, name, child.node_id):
                found.append(child.node_id)
    return found


def _legacy_slots(optimizer: ObjectNode) -> _Slots:
    slots: _Slots = {}
    optimizer.graph.follow(len(optimizer.graph.message(optimizer.node_id).slot_variables))
    for slot in optimizer.slot_variables:
        slots.setdefault(slot.variable.node_id, {})[slot.slot_name] = slot.slot.node_id
    return slots


def _listed_slots(optimizer: ObjectNode) -> _Slots:
    """Take Keras 3's lists, element by element beside the list of trainable variables."""
    trainable = optimizer.get(_TRAINABLE)
    if trainable is None:
        return {}
    optimizer.graph.follow(len(trainable))
    variables = trainable.children
    slots: _Slots = {node.node_id: {} for node in variables.values()}
    for name, child in optimizer.children.items():
        if name in _NO_SLOTS:
            continue
        optimizer.graph.follow(1 + len(child))
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
    return _list_slot(list_name)


def _list_slot(list_name: str) -> str:
    """Name a slot by the list it is in: `_velocities` holds velocities."""
    if list_name == _AVERAGES_LIST:
        return "average"
    name = list_name.lstrip("_")
    return name.removesuffix("ies") + "y" if name.endswith("ies") else name.removesuffix("s")


# Keras 2.11


def _named_slots(optimizer: ObjectNode) -> _Slots:
    """Take the names of Keras 2.11: optimizer, slot and the variable's name.

    Variables that share a name come in the same order among the slots as in the graph.
    """
    holder = optimizer.get(_VARIABLES)
    if holder is None:
        return {}
    optimizer.graph.follow(len(holder) + len(optimizer.graph.keys_by_node))
    kept = list(dict.fromkeys(holder.children.values()))
    own = {node.node_id for node in kept} | {child.node_id for child in optimizer.values()}
    variables = _variables_by_name(optimizer.graph, own)
    lengths = {len(name) for name in variables}
    slots: _Slots = {}
    taken: dict[tuple[str, str], int] = {}
    for node in kept:
        slot, name = _split_slot_name(node.full_name or "", variables, lengths)
        number = taken.get((slot, name), 0)
        taken[slot, name] = number + 1
        if number < len(variables.get(name, ())):
            slots.setdefault(variables[name][number], {})[slot] = node.node_id
    _place_nameless(optimizer, slots, own)
    return slots


def _variables_by_name(graph: ObjectGraph, excluded: set[int]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for node_id in graph.keys_by_node:
        name = graph.node(node_id).full_name
        if name and node_id not in excluded:
            found.setdefault(name, []).append(node_id)
    return found


def _split_slot_name(
    full_name: str, variables: Mapping[str, object], lengths: Container[int]
) -> tuple[str, str]:
    """Split `Adam/m/dense/kernel` into slot and the longest variable's name that fits.

    There may be scopes before the optimizer's name, or, in a LossScaleOptimizer, no name at all.

    Args:
        full_name: Of the slot.
        variables: By name.
        lengths: Of the names of variables: of a name of very many parts few need to be tried.
    """
    parts = full_name.split("/")
    left = [0, *accumulate(len(part) + 1 for part in reversed(parts))]
    for start in (*range(2, len(parts)), 1):
        length = left[len(parts) - start] - 1
        if length in lengths and (name := full_name[len(full_name) - length :]) in variables:
            return parts[start - 1], name
    return "", ""


def _place_nameless(optimizer: ObjectNode, slots: _Slots, own: set[int]) -> None:
    """Place the slots whose names tell no variable, by the lists they are in."""
    lists = _slot_lists(optimizer, own)
    names = _slots_by_node(slots)
    by_index: dict[str, int] = {}
    called: dict[str, str] = {}
    for list_name, elements in lists.items():
        for index, number in elements.items():
            if number in names:
                by_index[index], called[list_name] = names[number]
    left = [
        (index, list_name, number)
        for list_name, elements in lists.items()
        for index, number in elements.items()
        if number not in names
    ]
    by_index.update(_match_shapes(optimizer.graph, left, set(slots) | own, by_index))
    for index, list_name, number in left:
        if index in by_index:
            slot = called.get(list_name) or _list_slot(list_name)
            slots.setdefault(by_index[index], {}).setdefault(slot, number)


def _slot_lists(optimizer: ObjectNode, own: set[int]) -> dict[str, dict[str, int]]:
    """Return an optimizer's lists of slots: list's name -> index -> number of the slot's node."""
    found: dict[str, dict[str, int]] = {}
    for name, child in optimizer.children.items():
        if name not in _NO_SLOTS:
            elements = {index: item.node_id for index, item in child.children.items()}
            found[name] = {index: item for index, item in elements.items() if item in own}
    return found


def _slots_by_node(slots: _Slots) -> dict[int, tuple[int, str]]:
    return {
        number: (variable, slot)
        for variable, by_slot in slots.items()
        for slot, number in by_slot.items()
    }


def _match_shapes(
    graph: ObjectGraph,
    left: Iterable[tuple[str, str, int]],
    excluded: set[int],
    known: Mapping[str, int],
) -> Iterator[tuple[str, int]]:
    """Iterate over index and variable: the only one of that shape, or several in their order.

    Several are matched only if those that are known stand in the order of the graph.
    """
    by_shape: dict[tuple[int, ...], dict[str, None]] = {}
    for index, _, number in left:
        shape = _shape_of(graph, number)
        if shape is not None and index not in known:
            by_shape.setdefault(shape, {})[index] = None
    anchors = [known[index] for index in sorted(known, key=_order)]
    in_order = bool(anchors) and anchors == sorted(anchors)
    without: dict[tuple[int, ...] | None, list[int]] = {}
    for number in graph.keys_by_node if by_shape else ():
        if number not in excluded:
            without.setdefault(_shape_of(graph, number), []).append(number)
    for shape, indices in by_shape.items():
        free = without.get(shape, [])
        if len(free) == len(indices) and (len(free) == 1 or in_order):
            yield from zip(sorted(indices, key=_order), free, strict=True)


def _order(index: str) -> tuple[int, str]:
    return len(index), index


def _shape_of(graph: ObjectGraph, number: int) -> tuple[int, ...] | None:
    tensor = graph.find_tensor(graph.keys_by_node.get(number, ""))
    return None if tensor is None else tensor.shape
