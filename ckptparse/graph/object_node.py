"""One object of an object graph: its children, its tensors, and what an optimizer keeps for it.

`object_graph` says how the graph of them is stored, and what paths and keys are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

import numpy as np
import numpy.typing as npt

from ckptparse.errors import TensorNotFoundError, name_not_found
from ckptparse.tensor import Tensor

if TYPE_CHECKING:
    from ckptparse.graph.object_graph import ObjectGraph

__all__ = [
    "VARIABLE_VALUE",
    "Attribute",
    "ObjectNode",
    "RegisteredSaver",
    "SlotVariable",
    "TensorSource",
    "escape_name",
    "unescape_name",
]

VARIABLE_VALUE = "VARIABLE_VALUE"
"""The attribute that holds a variable's value."""

_Default = TypeVar("_Default")


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


class ObjectNode(Mapping[str, "ObjectNode"]):
    """One object of a graph: a mapping from local names to its children, and what it keeps.

    Nodes are equal if they are the same node of the same graph.
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
        numbers = self.graph.children_of(self.node_id)
        return {name: self.graph.node(number) for name, number in numbers.items()}

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
        return iter(self.graph.children_of(self.node_id))

    def __len__(self) -> int:
        return len(self.graph.children_of(self.node_id))

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
        return self.graph.children_of(self.node_id).get(local_name)

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


def escape_name(local_name: str) -> str:
    """Escape a local name for a path or a key: `a.b/c` becomes `a..b.Sc`."""
    return local_name.replace(".", "..").replace("/", ".S")


def unescape_name(escaped: str) -> str:
    """Undo `escape_name`: `..` is a dot, `.S` a slash; any other dot stands as it is."""
    parts = escaped.split("..")
    return ".".join(part.replace(".S", "/") for part in parts)
