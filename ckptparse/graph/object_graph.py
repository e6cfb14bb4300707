"""The object graph of a TF2 checkpoint: which object holds which variable.

It is a TrackableObjectGraph, serialized in the scalar string tensor `_CHECKPOINTABLE_OBJECT_GRAPH`
(docs/format.md, section 7):

    nodes[0]   children         model -> 1, optimizer -> 2, save_counter -> 3
    nodes[1]   children         kernel -> 4
    nodes[2]   slot_variables   of node 4: m -> 5
    nodes[4]   attributes       VARIABLE_VALUE, full name `dense/kernel`,
                                key `model/kernel/.ATTRIBUTES/VARIABLE_VALUE`

Node 0 is the root. A node may have several parents, and be its own descendant; an object's path
is its first in breadth-first order. Local names in paths and keys are escaped: every `.` is `..`,
then every `/` is `.S`. A key is the path, `/.ATTRIBUTES/` and the attribute's name; that of a slot
variable has `/.OPTIMIZER_SLOT/`, the optimizer's path and the slot's name before that. Keys may be
stems: of the attribute `table` the bundle has `...table-keys` and `...table-values`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Any

from ckptparse.errors import LimitError, MalformedError
from ckptparse.graph.object_node import (
    VARIABLE_VALUE,
    Attribute,
    ObjectNode,
    TensorSource,
    escape_name,
    unescape_name,
)
from ckptparse.limits import DEFAULT_LIMITS, PARTS_AN_OBJECT, Limits, Objects, limit_error
from ckptparse.proto.parsing import parse_message
from ckptparse.proto.trackable_object_graph_pb2 import TrackableObjectGraph
from ckptparse.tensor import Tensor

__all__ = ["LEARNING_RATES", "SAVE_COUNTER", "STEPS", "ObjectGraph", "count_nodes"]

SAVE_COUNTER = "save_counter"
"""The child of the root that counts calls of `save()`."""

_ROOT, _UNREACHED = -2, -1
_SLOT_MARK = ".OPTIMIZER_SLOT"
_CHILDLESS: Mapping[str, int] = {}
_NODE_BYTES = 64
"""Bytes of a real object, about, with its names and keys: a hostile one takes two."""
_LONGEST_PATH = 4096
"""Characters of a path that is cut: many objects may stand below one of long names."""
_STEPS_AN_OBJECT = 4
"""How often a real object may be looked at for one question, beyond `Limits.steps`."""
STEPS = ("_iterations", "iterations", "iter")
LEARNING_RATES = ("_learning_rate", "learning_rate")
_VARIABLES, _OPTIMIZER_PARTS = "_variables", ("_iterations", "_trainable_variables")
"""What optimizers of Keras keep."""
_EXPORTED, _EXPORTED_AGAIN = "variables", "_all_variables"
"""Lists of the same variables that `model.export` of Keras 3 stores, each with its own copies."""


class ObjectGraph(Mapping[str, ObjectNode]):
    """Nodes by number, and by local name from the root: `graph["model"]["kernel"].read()`.

    Nodes are made when asked for; what concerns all of them is walked once, when first needed.

    Attributes:
        serialized: The bytes of the message.
        limits: Bounds; `steps` on how many objects are looked at.
        memo: What is found out about it once, by the question; numbers alone, no nodes.
    """

    node_type: type[ObjectNode] = ObjectNode

    def __init__(
        self,
        nodes: Sequence[Any],
        *,
        serialized: bytes = b"",
        tensors: TensorSource | None = None,
        limits: Limits = DEFAULT_LIMITS,
        path: str | None = None,
    ) -> None:
        self.serialized = serialized
        self.limits = limits
        self.path = path
        self._messages = nodes
        self._tensors = tensors
        self._keys: dict[int, str] | None = None
        self._children: dict[int, Mapping[str, int]] = {}
        self._optimizers: dict[int, bool] = {}
        self._steps = 0
        self.memo: dict[object, Any] = {}

    @classmethod
    def from_bytes(
        cls,
        data: bytes,
        *,
        tensors: TensorSource | None = None,
        limits: Limits = DEFAULT_LIMITS,
        path: str | None = None,
        held: Callable[[], int] | None = None,
    ) -> ObjectGraph:
        """Decode a serialized TrackableObjectGraph.

        Args:
            data: The message.
            tensors: Where its variables' values are found.
            limits: Bounds on its size, its nesting and its objects.
            path: The file it is from, for errors.
            held: Gives the bytes of the checkpoint's files; of the message if None.

        Raises:
            MalformedError: The bytes are no such message.
            LimitError: It is larger, or has more objects, than `limits` allow.
        """
        message = parse_message(
            TrackableObjectGraph, data, limits=limits, path=path, what="the object graph"
        )
        count_nodes(message.nodes, Objects(limits, len(data), held=held, path=path))
        return cls(message.nodes, serialized=data, tensors=tensors, limits=limits, path=path)

    @property
    def root(self) -> ObjectNode:
        """Node 0.

        Raises:
            MalformedError: The graph has no nodes.
        """
        return self.node(0)

    @property
    def node_count(self) -> int:
        """The number of nodes."""
        return len(self._messages)

    def node(self, node_id: int) -> ObjectNode:
        """Give a node by its number.

        Raises:
            MalformedError: There is no such node.
        """
        if not 0 <= node_id < len(self._messages):
            self._check_id(node_id)
        return self.node_type(self, node_id)

    def nodes(self) -> Iterator[ObjectNode]:
        """Iterate over all nodes in the order of their numbers, those nothing leads to as well."""
        return (self.node_type(self, node_id) for node_id in range(self.node_count))

    def walk(self) -> Iterator[ObjectNode]:
        """Iterate over the nodes that children lead to, each once, breadth-first from the root.

        Raises:
            MalformedError: A node refers to one that is not there.
        """
        return (self.node_type(self, node_id) for node_id in self._paths.order)

    def find_node(self, path: str) -> ObjectNode | None:
        """Return the node of a path of escaped local names (`model/kernel`), or None."""
        node = self.root
        for name in filter(None, path.split("/")):
            found = node.get(unescape_name(name))
            if found is None:
                return None
            node = found
        return node

    def find_tensor(self, key: str) -> Tensor | None:
        """Return the tensor of a stored name, or None if there is none."""
        return None if self._tensors is None else self._tensors.find(key)

    def children_of(self, node_id: int) -> Mapping[str, int]:
        """Return the numbers of a node's children by local name, in stored order.

        Of several children of one name TensorFlow takes the last. They need not be there.
        """
        found = self._children.get(node_id)
        if found is None:
            children = self._messages[node_id].children
            found = {child.local_name: child.node_id for child in children} or _CHILDLESS
            self._children[node_id] = found
        return found

    @cached_property
    def optimizer_groups(self) -> Mapping[int, Sequence[int]]:
        """Number of each optimizer's node -> itself and the optimizers in it; breadth-first.

        One that another wraps is among those of the other alone.
        """
        groups: dict[int, list[int]] = {}
        outermost: dict[int, int] = {}
        parents = self._paths.parents
        for node_id in self._paths.order:
            owner = outermost.get(parents[node_id])
            found_here = self.is_optimizer(node_id)
            if owner is None and found_here:
                owner = node_id
            if owner is not None:
                outermost[node_id] = owner
                if found_here:
                    groups.setdefault(owner, []).append(node_id)
        return groups

    def is_optimizer(self, node_id: int) -> bool:
        """Tell whether an object is an optimizer, by what it keeps."""
        known = self._optimizers.get(node_id)
        if known is None:
            known = self._optimizers[node_id] = self._is_optimizer(node_id)
        return known

    def _is_optimizer(self, node_id: int) -> bool:
        if node_id in self._slot_holders:
            return True
        names = self.children_of(node_id).keys()
        if not names:
            return False
        if _VARIABLES in names and not names.isdisjoint(_OPTIMIZER_PARTS):
            return True
        return not names.isdisjoint(STEPS) and not names.isdisjoint(LEARNING_RATES)

    def follow(self, steps: int) -> None:
        """Count objects that are looked at for optimizers, which may share them.

        Raises:
            LimitError: They are more than those of any real model.
        """
        self._steps += steps
        if self._steps > self.most_steps:
            raise self.too_many_steps(self._steps, "optimizers")

    def too_many_steps(self, steps: int, owners: str) -> LimitError:
        """Make the error that says that more objects are looked at than `most_steps`."""
        what = f"The number of objects that are looked at for the {owners} of a model"
        return limit_error(self.limits, "steps", steps, what, path=self.path)

    @cached_property
    def most_steps(self) -> int:
        """How many objects are looked at to answer one question; see `Limits.steps`.

        Of real graphs of more than 100 objects it is about one for each, at most four.
        """
        real = min(self.node_count, self.nbytes // _NODE_BYTES)
        return self.limits.steps + _STEPS_AN_OBJECT * real

    @cached_property
    def nbytes(self) -> int:
        """Bytes of the message."""
        return len(self.serialized)

    def message(self, node_id: int) -> Any:
        """Give the message of a node, for fields that have no property."""
        return self._messages[node_id]

    @property
    def keys_by_node(self) -> Mapping[int, str]:
        """Number of each variable's node -> the key of its value, in the order of the numbers."""
        if self._keys is None:
            self._keys = {
                node_id: attribute.checkpoint_key
                for node_id, attribute in self.iter_attributes()
                if attribute.name == VARIABLE_VALUE
            }
        return self._keys

    @cached_property
    def full_names(self) -> Mapping[int, str]:
        """Number of each variable's node -> its own name, `""` without one."""
        return {
            node_id: attribute.full_name
            for node_id, attribute in self.iter_attributes()
            if attribute.name == VARIABLE_VALUE
        }

    def is_variable(self, node_id: int) -> bool:
        """Tell whether a node keeps a variable's value."""
        if self._keys is not None:
            return node_id in self._keys
        return any(item.name == VARIABLE_VALUE for item in self.attributes_of(node_id))

    @cached_property
    def names_by_key(self) -> Mapping[str, str]:
        """Key of each variable's value -> its own name, if it has one and no other shares it.

        Copies do not count as others: the second list of a Keras 3 export's variables, and slots,
        which of a ShardedVariable have the name of their variable.
        """
        copies = self._copies
        named: dict[str, tuple[list[str], list[str]]] = {}
        for node_id, attribute in self.iter_attributes():
            if attribute.name == VARIABLE_VALUE and attribute.full_name:
                keys = named.setdefault(attribute.full_name, ([], []))[node_id in copies]
                if attribute.checkpoint_key not in keys[:1]:
                    keys.append(attribute.checkpoint_key)
        found = ((name, own or copied) for name, (own, copied) in named.items())
        return {keys[0]: name for name, keys in found if len(keys) == 1}

    @cached_property
    def _copies(self) -> frozenset[int]:
        """Numbers of the nodes that are slots, or stored a second time by a Keras 3 export."""
        found: set[int] = set()
        for message in self._slot_holders.values():
            found.update(slot.slot_variable_node_id for slot in message.slot_variables)
        root = self._messages[0].children if self._messages else ()
        children = {child.local_name: child.node_id for child in root}
        if _EXPORTED in children and _EXPORTED_AGAIN in children:
            first, again = children[_EXPORTED], children[_EXPORTED_AGAIN]
            found.update(child.node_id for child in self.message(self.node(again).node_id).children)
            found.difference_update(
                child.node_id for child in self.message(self.node(first).node_id).children
            )
        return frozenset(found)

    @cached_property
    def holders(self) -> frozenset[int]:
        """Numbers of the nodes that keep something, or whose descendants by first path do."""
        found = {node_id for node_id, _ in self.iter_attributes()}
        found |= {i for i in range(self.node_count) if self.node(i).registered_saver is not None}
        parents = self._paths.parents
        for node_id in reversed(self._paths.order):
            if node_id in found and parents[node_id] >= 0:
                found.add(parents[node_id])
        return frozenset(found)

    @cached_property
    def above_variables(self) -> frozenset[int]:
        """Numbers of the nodes that are variables, or from which children lead to one."""
        parents: dict[int, list[int]] = {}
        for node_id in self._paths.order:
            for child in self._messages[node_id].children:
                parents.setdefault(child.node_id, []).append(node_id)
        pending = list(self.keys_by_node)
        found = set(pending)
        for node_id in pending:
            new = [parent for parent in parents.get(node_id, ()) if parent not in found]
            found.update(new)
            pending += new
        return frozenset(found)

    def leads_to(self, node_id: int) -> bool:
        """Tell whether children lead from the root to a node."""
        return self._paths.parents[node_id] != _UNREACHED

    def parent_of(self, node_id: int) -> int | None:
        """Return the number of the parent on a node's first path; None for the root."""
        parent = self._paths.parents[node_id]
        return parent if parent >= 0 else None

    def is_above(self, upper: int, lower: int) -> bool:
        """Tell whether a node is on the first path of another, or is that itself."""
        start, end = self._spans[upper]
        return start <= self._spans[lower][0] < end

    @cached_property
    def _spans(self) -> Sequence[tuple[int, int]]:
        """For each node its place among first paths, in depth-first order, and where they end."""
        parents, order = self._paths.parents, self._paths.order
        sizes = [1] * self.node_count
        for node_id in reversed(order):
            if parents[node_id] >= 0:
                sizes[parents[node_id]] += sizes[node_id]
        free = [0] * self.node_count
        # What nothing leads to is above nothing, and below nothing.
        spans = [(-1, -1)] * self.node_count
        for node_id in order:
            parent = parents[node_id]
            start = 0 if parent < 0 else free[parent]
            if parent >= 0:
                free[parent] += sizes[node_id]
            free[node_id] = start + 1
            spans[node_id] = start, start + sizes[node_id]
        return spans

    def is_first_path(self, parent_id: int, local_name: str, child_id: int) -> bool:
        """Tell whether a child's path goes through this parent by this name."""
        paths = self._paths
        return paths.parents[child_id] == parent_id and paths.local_names[child_id] == local_name

    @cached_property
    def other_keys(self) -> tuple[str, ...]:
        """Stored names that no attribute of a node has, nor is the stem of, sorted as stored.

        These are written by registered savers.
        """
        claimed = {attribute.checkpoint_key for _, attribute in self.iter_attributes()}
        stored = set(self._stored_names)
        for stem in claimed - stored:
            stored.difference_update(self.tensors_under(stem))
        return tuple(name for name in self._stored_names if name in stored and name not in claimed)

    @cached_property
    def slots_by_variable(self) -> Mapping[int, Sequence[tuple[int, str, int]]]:
        """Number of a variable's node -> numbers of optimizer and slot with the slot's name."""
        found: dict[int, list[tuple[int, str, int]]] = {}
        for slot_id, (variable, optimizer, slot_name) in self._paths.slots.items():
            found.setdefault(variable, []).append((optimizer, slot_name, slot_id))
        return found

    def iter_attributes(self) -> Iterator[tuple[int, Attribute]]:
        """Iterate over the attributes of all nodes, in the order of the nodes' numbers."""
        for node_id, attributes in self._kept.items():
            for attribute in attributes:
                yield node_id, attribute

    def attributes_of(self, node_id: int) -> Iterator[Attribute]:
        """Iterate over the attributes of one node."""
        return iter(self._kept.get(node_id, ()))

    @cached_property
    def _kept(self) -> Mapping[int, Sequence[Attribute]]:
        """Numbers of the nodes that have attributes, and these."""
        return {
            number: [
                Attribute(attribute.name, attribute.full_name, attribute.checkpoint_key)
                for attribute in message.attributes
            ]
            for number, message in enumerate(self._messages)
            if message.attributes
        }

    @cached_property
    def _slot_holders(self) -> Mapping[int, Any]:
        """Numbers of the nodes that list slot variables, and their messages."""
        messages = enumerate(self._messages)
        return {number: message for number, message in messages if message.slot_variables}

    def tensors_under(self, key: str) -> dict[str, Tensor]:
        """Return the tensor of a key, or those of which the key is the stem."""
        exact = self.find_tensor(key)
        if exact is not None:
            return {key: exact}
        names = self._sorted_names
        start = bisect_left(names, key)
        under = takewhile(lambda name: name.startswith(key), names[start:])
        found = ((name, self.find_tensor(name)) for name in under if name[len(key)] in "-_")
        return {name: tensor for name, tensor in found if tensor is not None}

    def path_of(self, node_id: int, *, at_most: int | None = None) -> str | None:
        """Return a node's first path in breadth-first order; None if nothing leads to it.

        Args:
            node_id: The node.
            at_most: Up to so many local names from the end, and 4,096 characters; `...` stands
                before them if there are more.
        """
        paths = self._paths
        if node_id in paths.slots:
            variable, optimizer, slot_name = paths.slots[node_id]
            parts = (self.path_of(variable, at_most=at_most), _SLOT_MARK)
            owned = paths.parents[optimizer] != _UNREACHED
            owner = self.path_of(optimizer, at_most=at_most) if owned else None
            return "/".join(filter(None, (*parts, owner, escape_name(slot_name))))
        if paths.parents[node_id] == _UNREACHED:
            return None
        names, is_whole = self.names_to(node_id, at_most=at_most)
        return "/".join([*([] if is_whole else ["..."]), *map(escape_name, names)])

    def names_to(self, node_id: int, *, at_most: int | None = None) -> tuple[list[str], bool]:
        """Return the local names on the first path of a node that the root leads to.

        Returns:
            Up to so many names from the end, of 4,096 characters, as they are, and whether these
            are all.
        """
        parents, local_names = self._paths.parents, self._paths.local_names
        names: list[str] = []
        left = _LONGEST_PATH
        while parents[node_id] != _ROOT:
            left -= len(local_names[node_id])
            if at_most is not None and (len(names) == at_most or left < 0):
                return names[::-1], False
            names.append(local_names[node_id])
            node_id = parents[node_id]
        return names[::-1], True

    def __getitem__(self, local_name: str) -> ObjectNode:
        return self.root[local_name]

    def __contains__(self, local_name: object) -> bool:
        return local_name in self.root

    def __iter__(self) -> Iterator[str]:
        return iter(self.root)

    def __len__(self) -> int:
        return len(self.root)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.node_count} nodes>"

    def _check_id(self, node_id: int) -> None:
        if not 0 <= node_id < len(self._messages):
            raise MalformedError(
                f"Expected one of {len(self._messages)} nodes of the object graph, found node "
                f"{node_id}",
                path=self.path,
            )

    @cached_property
    def _stored_names(self) -> list[str]:
        return [] if self._tensors is None else list(self._tensors.names())

    @cached_property
    def _sorted_names(self) -> list[str]:
        return sorted(self._stored_names)

    @cached_property
    def _paths(self) -> _Paths:
        return _Paths.from_messages(self._messages, self._slot_holders, self._check_id)


def count_nodes(nodes: Sequence[Any], objects: Objects) -> None:
    """Count the nodes of a graph, and what they hold.

    Args:
        nodes: Their messages.
        objects: What bounds them.

    Raises:
        LimitError: They are more than `Limits.objects` allows.
    """
    if objects.is_idle:
        return
    objects.take(len(nodes))
    parts = 0
    for node in nodes:
        parts += len(node.children) + len(node.slot_variables)
        parts += len(getattr(node, "attributes", ()))
    objects.take(parts / PARTS_AN_OBJECT)


@dataclass(frozen=True, slots=True)
class _Paths:
    """How nodes are reached: by lists, since a graph may have millions of nodes."""

    parents: Sequence[int]
    """The first parent of each node."""
    local_names: Sequence[str]
    """What that parent calls it."""
    order: Sequence[int]
    """The reached nodes, breadth-first."""
    slots: Mapping[int, tuple[int, int, str]]
    """Number of a slot variable that is nobody's child -> variable, optimizer, slot's name."""

    @classmethod
    def from_messages(
        cls, messages: Sequence[Any], holders: Mapping[int, Any], check: Callable[[int], None]
    ) -> _Paths:
        check(0)
        parents, local_names = [_UNREACHED] * len(messages), [""] * len(messages)
        parents[0] = _ROOT
        order = [0]
        for node_id in order:
            for child in messages[node_id].children:
                child_id = child.node_id
                check(child_id)
                if parents[child_id] == _UNREACHED:
                    parents[child_id], local_names[child_id] = node_id, child.local_name
                    order.append(child_id)
        return cls(parents, local_names, order, _slots(holders, parents, check))


def _slots(
    holders: Mapping[int, Any], parents: Sequence[int], check: Callable[[int], None]
) -> dict[int, tuple[int, int, str]]:
    slots: dict[int, tuple[int, int, str]] = {}
    for optimizer, message in holders.items():
        for slot in message.slot_variables:
            variable, slot_id = slot.original_variable_node_id, slot.slot_variable_node_id
            check(variable)
            check(slot_id)
            # A variable that is itself a slot of nothing reachable would make paths of paths.
            if parents[slot_id] == _UNREACHED and parents[variable] != _UNREACHED:
                slots.setdefault(slot_id, (variable, optimizer, slot.slot_name))
    return slots
