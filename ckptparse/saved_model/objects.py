"""The objects of a TF2 SavedModel (docs/format.md, section 8.1).

    SavedObjectGraph   1 nodes*   2 concrete_functions: name -> SavedConcreteFunction
    SavedObject        1 children*   3 slot_variables*   and one of
                       4 user_object   5 asset   6 function   7 variable   8 bare_concrete_function
                       9 constant   10 resource   12 captured_tensor

Children are those of the object graph in the variables' checkpoint, but the numbers of nodes may
differ: the two graphs are walked side by side from their roots to learn each variable's key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np

from ckptparse.dtypes import numpy_dtype
from ckptparse.errors import MalformedError
from ckptparse.graph.attributes import Shape, shape_or_unknown
from ckptparse.graph.object_graph import ObjectGraph
from ckptparse.graph.object_node import (
    VARIABLE_VALUE,
    Attribute,
    ObjectNode,
    RegisteredSaver,
    TensorSource,
)
from ckptparse.limits import Limits, Objects
from ckptparse.proto.saved_object_graph_pb2 import SavedObjectGraph
from ckptparse.saved_model.structure import decode_structure
from ckptparse.tensor import Tensor
from ckptparse.text import brief_repr

__all__ = ["ConcreteFunction", "SavedObjectNode", "SavedObjects", "UserObject"]

_DEEPEST_GUESSED_KEY = 200
"""Local names of a path from which a key is made if no checkpoint tells it."""


@dataclass(frozen=True, slots=True)
class UserObject:
    """What the program said of an object of its own.

    Attributes:
        identifier: Its kind, such as `_generic_user_object` or `_tf_keras_layer`.
        metadata: What that kind keeps, as text; of Keras before TensorFlow 2.5 JSON.
        producer: Version of the code that wrote it.
    """

    identifier: str
    metadata: str
    producer: int


@dataclass(frozen=True, slots=True, repr=False)
class ConcreteFunction:
    """A function of the graph's library, as a program calls it.

    Attributes:
        name: Of the function in the library.
        input_signature: Positional arguments and keyword arguments, with a `TensorSpec` where a
            tensor goes.
        output_signature: What it gives, likewise.
        bound_inputs: Numbers of the nodes whose values it takes as its last arguments.
    """

    name: str
    input_signature: Any
    output_signature: Any
    bound_inputs: tuple[int, ...]

    def __repr__(self) -> str:
        return brief_repr(self)


class SavedObjectNode(ObjectNode):
    """One object of a SavedModel."""

    __slots__ = ()

    @property
    def kind(self) -> str | None:
        """`"user_object"`, `"variable"`, `"function"`, `"constant"`, `"asset"` ...; or None."""
        found: str | None = self._message.WhichOneof("kind")
        return found

    @property
    def user_object(self) -> UserObject | None:
        """What the program said of it, or None."""
        if self.kind != "user_object":
            return None
        found = self._message.user_object
        return UserObject(found.identifier, found.metadata, found.version.producer)

    @property
    def trainable(self) -> bool | None:
        """Of a variable, whether training changes it; None for any other object."""
        return bool(self._message.variable.trainable) if self.kind == "variable" else None

    @property
    def full_name(self) -> str | None:
        """The variable's own name, or None."""
        return super().full_name or self._message.variable.name or None

    @property
    def data_type(self) -> int | None:
        """Of a variable or a constant, its DataType number; else None. Reads no checkpoint."""
        if self.kind == "variable":
            return int(self._message.variable.dtype)
        return self.tensor.data_type if self.kind == "constant" else None

    @property
    def static_shape(self) -> Shape:
        """Of a variable, the shape it may have: None in it for an unknown dimension."""
        return shape_or_unknown(self._message.variable.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its value; for a variable without asking the checkpoint."""
        if self.kind == "variable":
            return numpy_dtype(self._message.variable.dtype)
        return super().dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of its value; for a variable of known shape without asking the checkpoint."""
        known = self.static_shape if self.kind == "variable" else None
        if known is None or None in known:
            return super().shape
        return cast("tuple[int, ...]", known)

    @property
    def tensor(self) -> Tensor:
        """The lazy tensor of a variable or a constant, or of a static table its keys.

        Errors are those of `ObjectNode.tensor`.
        """
        if self.kind == "constant":
            return self._objects.constant(self._message.constant.operation)
        keys = self._objects.initial_keys(self.node_id) if self.kind == "resource" else None
        return super().tensor if keys is None else keys.tensor

    @property
    def asset(self) -> str | None:
        """Of an asset, its real path; None for any other object.

        Raises:
            MalformedError: There is no such asset, or its name leads out of the directory.
        """
        if self.kind != "asset":
            return None
        return self._objects.asset(self._message.asset.asset_file_def_index)

    @property
    def functions(self) -> tuple[str, ...]:
        """Of a function, the names of its concrete functions."""
        if self.kind == "bare_concrete_function":
            return (self._message.bare_concrete_function.concrete_function_name,)
        return tuple(self._message.function.concrete_functions)

    @property
    def registered_name(self) -> str | None:
        """The name that its class is registered under, or None."""
        return self._message.registered_name or None

    @property
    def registered_saver(self) -> RegisteredSaver | None:
        """The saver that its own code registered, or None."""
        return self._objects.find_saver(self.node_id)

    @property
    def has_checkpoint_values(self) -> bool | None:
        """Whether it or an object below is a variable."""
        return self.node_id in self.graph.above_variables

    @property
    def _message(self) -> Any:
        return self.graph.message(self.node_id)

    @property
    def _objects(self) -> SavedObjects:
        return cast("SavedObjects", self.graph)


class SavedObjects(ObjectGraph):
    """The objects of a SavedModel: as an object graph, with what the SavedModel says of each.

    Attributes:
        made: How many objects its file may become.
    """

    node_type = SavedObjectNode

    def __init__(
        self,
        message: SavedObjectGraph,
        *,
        checkpoint_graph: ObjectGraph | None,
        tensors: TensorSource | None,
        constant: Callable[[str], Tensor],
        assets: Callable[[], Sequence[str]],
        objects: Objects,
        limits: Limits,
        path: str | None = None,
    ) -> None:
        """Take a parsed message.

        Args:
            message: The SavedObjectGraph.
            checkpoint_graph: The object graph of the variables; None if there is none.
            tensors: Where the variables' values are found.
            constant: Gives the constant of a node of the graph.
            assets: Gives the paths of the assets, in the order of their numbers.
            objects: How many objects the values in its functions' signatures may become.
            limits: As of `ObjectGraph`.
            path: The file, for errors.
        """
        super().__init__(message.nodes, tensors=tensors, limits=limits, path=path)
        self._message = message
        self._attributes: dict[int, tuple[Attribute, ...]] = {}
        self.constant = constant
        self._functions = message.concrete_functions
        self._checkpoint_graph = checkpoint_graph
        self._assets = assets
        self.made = objects

    @cached_property
    def nbytes(self) -> int:
        """Bytes of the message."""
        return int(self._message.ByteSize())

    @cached_property
    def concrete_functions(self) -> Mapping[str, ConcreteFunction]:
        """The functions that objects call, by name.

        Raises:
            LimitError: Their signatures have more values than `Limits.objects` allows.
        """
        return {
            name: ConcreteFunction(
                name,
                decode_structure(self._functions[name].canonicalized_input_signature, self.made),
                decode_structure(self._functions[name].output_signature, self.made),
                tuple(self._functions[name].bound_inputs),
            )
            for name in sorted(self._functions)
        }

    @property
    def bound_assets(self) -> Mapping[str, tuple[int | None, ...]]:
        """The numbers of the assets among the last arguments of each function; None for others."""
        return {
            name: tuple(self._asset_of(number) for number in self._functions[name].bound_inputs)
            for name in self._functions
        }

    def _asset_of(self, number: int) -> int | None:
        if not 0 <= number < len(self._messages):
            return None
        message = self._messages[number]
        return message.asset.asset_file_def_index if message.HasField("asset") else None

    def asset(self, number: int) -> str:
        """Return the path of an asset by its number.

        Raises:
            MalformedError: There is none of that number.
        """
        assets = self._assets()
        if not 0 <= number < len(assets):
            raise MalformedError(
                f"Expected one of {len(assets)} assets, found number {number}", path=self.path
            )
        return assets[number]

    def iter_attributes(self) -> Iterator[tuple[int, Attribute]]:
        """Iterate over what all nodes keep, in the order of the nodes' numbers."""
        for node_id in range(self.node_count):
            for attribute in self.attributes_of(node_id):
                yield node_id, attribute

    def attributes_of(self, node_id: int) -> Iterator[Attribute]:
        """Iterate over what a node keeps in the variables' checkpoint."""
        found = self._attributes.get(node_id)
        if found is None:
            found = self._attributes[node_id] = tuple(self._find_attributes(node_id))
        return iter(found)

    def _find_attributes(self, node_id: int) -> Iterator[Attribute]:
        graph, own = self._checkpoint_graph, self._numbers.get(node_id)
        found = list(graph.attributes_of(own)) if graph is not None and own is not None else []
        if found or self._messages[node_id].WhichOneof("kind") != "variable":
            yield from found
            return
        # A checkpoint without its object graph still has the keys that paths make.
        path = self.path_of(node_id, at_most=_DEEPEST_GUESSED_KEY)
        if path is not None and not path.startswith("..."):
            name = self._messages[node_id].variable.name
            yield Attribute(VARIABLE_VALUE, name, f"{path}/.ATTRIBUTES/{VARIABLE_VALUE}")

    def initial_keys(self, node_id: int) -> ObjectNode | None:
        """Return the constant that a static table takes its keys from, or None.

        The function that initializes a table takes the table, the keys and the values.
        """
        initialize = self.node(node_id).get("_initialize")
        names = initialize.functions if isinstance(initialize, SavedObjectNode) else ()
        for name in names:
            if name in self._functions:
                return self._first_constant(name)
        return None

    def _first_constant(self, function: str) -> ObjectNode | None:
        """Return the first constant that a function takes; many tables may share the function."""
        key = (SavedObjects._first_constant, function)
        if key not in self.memo:
            inputs = (self.node(number) for number in self._functions[function].bound_inputs)
            found = next(filter(self._is_constant, inputs), None)
            self.memo[key] = None if found is None else found.node_id
        number = self.memo[key]
        return None if number is None else self.node(number)

    def _is_constant(self, node: ObjectNode) -> bool:
        return bool(self._messages[node.node_id].WhichOneof("kind") == "constant")

    def find_saver(self, node_id: int) -> RegisteredSaver | None:
        """Return the registered saver of a node, or None."""
        graph, own = self._checkpoint_graph, self._numbers.get(node_id)
        return graph.node(own).registered_saver if graph is not None and own is not None else None

    @cached_property
    def _numbers(self) -> Mapping[int, int]:
        """Number of a node here -> its number in the object graph of the checkpoint."""
        if self._checkpoint_graph is None or not self.node_count:
            return {}
        return _pair_nodes(self, self._checkpoint_graph)


def _pair_nodes(ours: ObjectGraph, theirs: ObjectGraph) -> dict[int, int]:
    """Walk two graphs side by side from their roots, by local names."""
    pairs = {0: theirs.root.node_id}
    for node_id in (pending := [0]):
        other = theirs.message(pairs[node_id])
        numbers = {child.local_name: child.node_id for child in other.children}
        for child in ours.message(node_id).children:
            own = ours.node(child.node_id).node_id
            if child.local_name in numbers and own not in pairs:
                pairs[own] = theirs.node(numbers[child.local_name]).node_id
                pending.append(own)
    return pairs
