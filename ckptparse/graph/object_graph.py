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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import Any, Protocol, TypeVar, overload

import numpy as np
import numpy.typing as npt

from ckptparse.errors import MalformedError, TensorNotFoundError, name_not_found
from ckptparse.limits import DEFAULT_LIMITS, Limits
from ckptparse.proto.parsing import parse_message
from ckptparse.proto.trackable_object_graph_pb2 import TrackableObjectGraph
from ckptparse.tensor import Tensor

__all__ = [
    "VARIABLE_VALUE",
    "Attribute",
    "ObjectGraph",
    "ObjectNode",
    "RegisteredSaver",
    "SlotVariable",
    "TensorSource",
    "escape_name",
    "unescape_name",
]

VARIABLE_VALUE = "VARIABLE_VALUE"
"""The attribute that holds a variable's value."""
SAVE_COUNTER = "save_counter"
"""The child of the root that counts calls of `save()`."""

_Default = TypeVar("_Default")

_ROOT, _UNREACHED = -2, -1
_SLOT_MARK = ".OPTIMIZER_SLOT"
_EXPORTED, _EXPORTED_AGAIN = "variables", "_all_variables"
"""Lists of the same variables that `model.export` of Keras 3 stores, each with its own copies."""


class TensorSource(Protocol):
    """Where an object graph finds its tensors, by stored name."""

    def find(self, name: str) -> Tensor | None:
        """Return the tensor of a stored name, or None if there is none."""
        ...

    def names(self) -> Iterable[str]:
        """Iterate over every stored name but the object graph's, sorted as stored."""
        ...


@dataclass(frozen=True, slots=True)
class Attribute:
    """One value that a node keeps in the checkpoint.

    Attributes:
        name: `VARIABLE_VALUE` for variables.
        full_name: The variable's own name (`dense/kernel`), empty if it has none.
        checkpoint_key: Name of the tensor, or the stem of several tensors' names.
    """

    name: str
    full_name: str
    checkpoint_key: str


@dataclass(frozen=True, slots=True)
class RegisteredSaver:
    """The saver that a node's own code registered to write its tensors.

    Attributes:
        name: Of the saver.
        object_name: Of the object, as that saver calls it.
    """

    name: str
    object_name: str


@dataclass(frozen=True, slots=True)
class SlotVariable:
    """What an optimizer keeps for one variable.

    Attributes:
        variable: The variable's node.
        slot_name: Such as `m`.
        slot: The node of the variable that holds it.
    """

    variable: ObjectNode
    slot_name: str
    slot: ObjectNode


class ObjectGraph(Mapping[str, "ObjectNode"]):
    """Nodes by number, and by local name from the root: `graph["model"]["kernel"].read()`.

    Nodes are made when asked for; what concerns all of them is walked once, when first needed.

    Attributes:
        serialized: The bytes of the message.
    """

    node_type: type[ObjectNode]

    def __init__(
        self,
        nodes: Sequence[Any],
        *,
        serialized: bytes = b"",
        tensors: TensorSource | None = None,
        path: str | None = None,
    ) -> None:
        self.serialized = serialized
        self.path = path
        self._messages = nodes
        self._tensors = tensors
        self._keys: dict[int, str] | None = None

    @classmethod
    def from_bytes(
        cls,
        data: bytes,
        *,
        tensors: TensorSource | None = None,
        limits: Limits = DEFAULT_LIMITS,
        path: str | None = None,
    ) -> ObjectGraph:
        """Decode a serialized TrackableObjectGraph.

        Args:
            data: The message.
            tensors: Where its variables' values are found.
            limits: Bounds on its size and nesting.
            path: The file it is from, for errors.

        Raises:
            MalformedError: The bytes are no such message.
            LimitError: It is larger than `limits` allow.
        """
        message = parse_message(
            TrackableObjectGraph, data, limits=limits, path=path, what="the object graph"
        )
        return cls(message.nodes, serialized=data, tensors=tensors, path=path)

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
        for message in self._messages:
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
        for node_id in range(self.node_count):
            for attribute in self.attributes_of(node_id):
                yield node_id, attribute

    def attributes_of(self, node_id: int) -> Iterator[Attribute]:
        """Iterate over the attributes of one node."""
        for attribute in self._messages[node_id].attributes:
            yield Attribute(attribute.name, attribute.full_name, attribute.checkpoint_key)

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
            at_most: Up to so many local names from the end, `...` before them if there are more.
        """
        names: list[str] = []
        paths = self._paths
        if node_id in paths.slots:
            variable, optimizer, slot_name = paths.slots[node_id]
            parts = (self.path_of(variable, at_most=at_most), _SLOT_MARK)
            owned = paths.parents[optimizer] != _UNREACHED
            owner = self.path_of(optimizer, at_most=at_most) if owned else None
            return "/".join(filter(None, (*parts, owner, escape_name(slot_name))))
        if paths.parents[node_id] == _UNREACHED:
            return None
        while paths.parents[node_id] != _ROOT:
            if at_most is not None and len(names) == at_most:
                names.append("...")
                break
            names.append(escape_name(paths.local_names[node_id]))
            node_id = paths.parents[node_id]
        return "/".join(reversed(names))

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
        return _Paths.from_messages(self._messages, self._check_id)


class ObjectNode(Mapping[str, "ObjectNode"]):
    """One object of a graph: a mapping from local names to its children, and what it keeps.

    Nodes are equal where they are the same node of the same graph.
    """

    __slots__ = ("graph", "node_id")

    def __init__(self, graph: ObjectGraph, node_id: int) -> None:
        self.graph = graph
        self.node_id = node_id

    @property
    def path(self) -> str | None:
        """Its escaped local names from the root, joined by `/`; None if nothing leads to it."""
        return self.graph.path_of(self.node_id)

    @property
    def children(self) -> dict[str, ObjectNode]:
        """Its children by local name, in stored order.

        Raises:
            MalformedError: One of them is not there.
        """
        references = self.graph.message(self.node_id).children
        return {child.local_name: self.graph.node(child.node_id) for child in references}

    @property
    def attributes(self) -> dict[str, Attribute]:
        """What it keeps in the checkpoint, by the attribute's name."""
        return {item.name: item for item in self.graph.attributes_of(self.node_id)}

    @property
    def slot_variables(self) -> tuple[SlotVariable, ...]:
        """What it keeps, as an optimizer, for other variables.

        Raises:
            MalformedError: A node it names is not there.
        """
        node = self.graph.node
        return tuple(
            SlotVariable(
                node(slot.original_variable_node_id),
                slot.slot_name,
                node(slot.slot_variable_node_id),
            )
            for slot in self.graph.message(self.node_id).slot_variables
        )

    @property
    def registered_saver(self) -> RegisteredSaver | None:
        """The saver that its own code registered, or None."""
        message = self.graph.message(self.node_id)
        if not message.HasField("registered_saver"):
            return None
        saver = message.registered_saver
        return RegisteredSaver(saver.name, saver.object_name)

    @property
    def has_checkpoint_values(self) -> bool | None:
        """Whether it or a node below keeps something; None if the writer did not say."""
        message = self.graph.message(self.node_id)
        if not message.HasField("has_checkpoint_values"):
            return None
        return bool(message.has_checkpoint_values.value)

    @property
    def is_variable(self) -> bool:
        """Whether it keeps a variable's value."""
        return self.graph.is_variable(self.node_id)

    @property
    def checkpoint_key(self) -> str | None:
        """The stored name of its value: a variable's, else that of its only attribute; or None."""
        attribute = self._attribute
        return None if attribute is None else attribute.checkpoint_key

    @property
    def full_name(self) -> str | None:
        """The variable's own name (`dense/kernel`), or None."""
        attribute = self._attribute
        return attribute.full_name or None if attribute is not None else None

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Every tensor it keeps, by stored name; of a stem, all tensors under it."""
        found: dict[str, Tensor] = {}
        for attribute in self.attributes.values():
            found |= self.graph.tensors_under(attribute.checkpoint_key)
        return found

    @property
    def tensor(self) -> Tensor:
        """The lazy tensor of its value.

        Raises:
            TensorNotFoundError: It keeps none, several, or one that is not in the checkpoint.
        """
        key = self.checkpoint_key
        tensor = None if key is None else self.graph.find_tensor(key)
        if tensor is not None:
            return tensor
        if len(self.tensors) == 1:
            return next(iter(self.tensors.values()))
        raise self._no_tensor(key)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its value; errors are those of `tensor`."""
        return self.tensor.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of its value; errors are those of `tensor`."""
        return self.tensor.shape

    def read(self) -> npt.NDArray[Any]:
        """Read its value.

        Raises:
            TensorNotFoundError: It keeps none, several, or one that is not in the checkpoint.
            DataLossError: The value's bytes are damaged.
        """
        return self.tensor.read()

    def __getitem__(self, local_name: str) -> ObjectNode:
        found = self._find_child(local_name)
        if found is None:
            path = self.graph.path_of(self.node_id, at_most=8)
            message = f"The object {path!r} has no child of that name"
            raise name_not_found(message, local_name, self, path=self.graph.path)
        return self.graph.node(found)

    def __contains__(self, local_name: object) -> bool:
        return isinstance(local_name, str) and self._find_child(local_name) is not None

    @overload
    def get(self, key: str, default: None = None, /) -> ObjectNode | None: ...
    @overload
    def get(self, key: str, default: _Default, /) -> ObjectNode | _Default: ...
    def get(self, key: str, default: object = None, /) -> object:
        """Return a child by its local name, or the default."""
        found = self._find_child(key)
        return default if found is None else self.graph.node(found)

    def __iter__(self) -> Iterator[str]:
        references = self.graph.message(self.node_id).children
        return iter(dict.fromkeys(child.local_name for child in references))

    def __len__(self) -> int:
        return len({child.local_name for child in self.graph.message(self.node_id).children})

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ObjectNode):
            return NotImplemented
        return self.graph is other.graph and self.node_id == other.node_id

    def __hash__(self) -> int:
        return hash((id(self.graph), self.node_id))

    def __repr__(self) -> str:
        path = self.graph.path_of(self.node_id, at_most=8)
        return f"<{type(self).__name__} {self.node_id} {path!r}>"

    def _find_child(self, local_name: str) -> int | None:
        """Return the number of the last child of that name: of several, TensorFlow takes that."""
        found = None
        for child in self.graph.message(self.node_id).children:
            if child.local_name == local_name:
                found = child.node_id
        return found

    @property
    def _attribute(self) -> Attribute | None:
        attributes = self.attributes
        if VARIABLE_VALUE in attributes or len(attributes) != 1:
            return attributes.get(VARIABLE_VALUE)
        return next(iter(attributes.values()))

    def _no_tensor(self, key: str | None) -> TensorNotFoundError:
        keys = tuple(self.tensors)
        path = self.graph.path_of(self.node_id, at_most=8)
        return TensorNotFoundError(
            f"The object {path!r} keeps {len(keys) or 'no'} tensors, not one",
            closest=keys,
            tensor=key,
            path=self.graph.path,
            hint=f"Look into its .tensors: {', '.join(keys)}" if keys else None,
        )


ObjectGraph.node_type = ObjectNode


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
    def from_messages(cls, messages: Sequence[Any], check: Callable[[int], None]) -> _Paths:
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
        return cls(parents, local_names, order, _slots(messages, parents, check))


def _slots(
    messages: Sequence[Any], parents: Sequence[int], check: Callable[[int], None]
) -> dict[int, tuple[int, int, str]]:
    slots: dict[int, tuple[int, int, str]] = {}
    for optimizer, message in enumerate(messages):
        for slot in message.slot_variables:
            variable, slot_id = slot.original_variable_node_id, slot.slot_variable_node_id
            check(variable)
            check(slot_id)
            # A variable that is itself a slot of nothing reachable would make paths of paths.
            if parents[slot_id] == _UNREACHED and parents[variable] != _UNREACHED:
                slots.setdefault(slot_id, (variable, optimizer, slot.slot_name))
    return slots


def escape_name(local_name: str) -> str:
    """Escape a local name for a path or a key: `a.b/c` becomes `a..b.Sc`."""
    return local_name.replace(".", "..").replace("/", ".S")


def unescape_name(escaped: str) -> str:
    """Undo `escape_name`: `..` is a dot, `.S` a slash; any other dot stands as it is."""
    parts = escaped.split("..")
    return ".".join(part.replace(".S", "/") for part in parts)
