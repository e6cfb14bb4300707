"""Layers as a person thinks of them: a model's layers in its order, each with its weights.

Keras 3 exports hold no layers but lists of variables, whose names have the scopes; name-based
checkpoints have the scopes alone. What Keras 2 wrote of its layers gives their classes and
configurations; else a layer is called as the scope of its variables.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal

import numpy.typing as npt

from ckptparse.graph.layer_search import LayerSearch, find_models
from ckptparse.graph.name_roles import is_counter_name
from ckptparse.graph.object_config import LayerDescription, read_object_config
from ckptparse.graph.object_graph import SAVE_COUNTER, ObjectGraph
from ckptparse.graph.object_node import ObjectNode
from ckptparse.graph.optimizer import find_averages, find_optimizers
from ckptparse.tensor import Tensor

__all__ = ["Layer", "LayerDescription", "LayersSource", "find_layers", "layers_by_name"]

LayersSource = Literal["keras_metadata", "object_graph", "names"]
"""What layers were found by: the best of these that a model has."""

_KERAS: Final = "keras_metadata"
_ALL_VARIABLES = "_all_variables"
_ALL_ASSETS = "_all_assets"
"""What TF-Agents saves of a policy: its parts, in pairs and lists, which tell no layers."""
_TABLE_KEYS = "-keys"
_SEED = "seed_generator_state"
_LARGEST_STATE = 2
"""Elements of a random generator's state: a seed and a counter. A weight of that name is larger."""
_PART = re.compile(r"/part_\d{1,6}$")
"""What the parts of a partitioned variable have behind its name, if they were saved apart."""
_LONGEST_NAME = 32
"""Local names that a path may have to be a layer's name."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a model.

    Attributes:
        name: Keras's name, or the scope of its variables' names, or its path.
        class_name: Its class (`Dense`), or None if the file does not hold it.
        config: Its configuration, or None if the file does not hold it.
        node: Its object, or None if no object is the layer.
    """

    name: str
    class_name: str | None
    config: Mapping[str, Any] | None = field(repr=False)
    node: ObjectNode | None
    _tensors: tuple[Callable[[], Tensor], ...] = field(repr=False)

    @property
    def path(self) -> str | None:
        """Its path in the object graph, or None."""
        return None if self.node is None else self.node.path

    @property
    def weights(self) -> list[Tensor]:
        """Its weights, unread, in the order that the file tells.

        That is Keras's own order if Keras wrote it down, as in its SavedModels.

        Raises:
            TensorNotFoundError: One of them is not in the checkpoint.
        """
        return [tensor() for tensor in self._tensors]

    def _repr_html_(self) -> str:
        """Show it in a notebook."""
        from ckptparse.rendering.notebook import layer_html

        return layer_html(self)

    def get_weights(self) -> list[npt.NDArray[Any]]:
        """Read its weights, in the order of `weights`.

        Raises:
            TensorNotFoundError: One of them is not in the checkpoint.
            DataLossError: The bytes of one are damaged.
        """
        return [tensor.read() for tensor in self.weights]


def find_layers(
    graph: ObjectGraph, describe: Callable[[ObjectNode], LayerDescription | None] | None = None
) -> tuple[list[Layer], LayersSource]:
    """Find the layers of the model, or models one after another, that an object graph holds.

    Args:
        graph: The graph.
        describe: Gives what Keras wrote of an object, or None.

    Returns:
        The layers, and where they were found.
    """
    if _ALL_VARIABLES in graph or any(
        _ALL_ASSETS in node for node in (graph.root, *find_models(graph))
    ):
        return layers_by_scope(graph), "names"
    search = LayerSearch(graph)
    layers: list[_Found] = search.find()
    nodes = [node for node, _ in layers]
    known = [
        describe(node) if describe is not None and node is not None else None for node in nodes
    ]
    if any(known):
        described = [
            _layer(node, weights, description or read_object_config(node))
            for (node, weights), description in zip(layers, known, strict=True)
        ]
        return described, _KERAS
    if any(weights for _, weights in layers):
        found = layers if search.ordered else _in_training_order(graph, layers)
        return [
            _layer(node, weights, read_object_config(node)) for node, weights in found
        ], "object_graph"
    return layers_by_scope(graph), "names"


def layers_by_scope(graph: ObjectGraph) -> list[Layer]:
    """Make one layer of each scope of the variables' names, in the order of their first use."""
    listed = graph.root.get("variables") or graph.root.get(_ALL_VARIABLES)
    nodes = listed.values() if listed is not None else graph.walk()
    state = _state_nodes(graph)
    scopes: dict[str, list[ObjectNode]] = {}
    for node in dict.fromkeys(nodes):
        if node.is_variable and node.node_id not in state:
            name = graph.full_names[node.node_id] or _short_path(node)
            scopes.setdefault(name.rpartition("/")[0] or name, []).append(node)
    return [
        Layer(name, None, None, None, tuple(_tensor_of(node) for node in nodes))
        for name, nodes in scopes.items()
    ]


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _state_nodes(graph: ObjectGraph) -> set[int]:
    """Return the numbers of variables that are no weights.

    These are the slots and counters of optimizers, moving averages, steps, and the states of
    random generators.
    """
    optimizers = find_optimizers(graph)
    state = {number for optimizer in optimizers for number in optimizer.nodes}
    averages = set(find_averages(graph, optimizers).stored_names)
    counter = graph.root.get(SAVE_COUNTER)
    if counter is not None:
        state.add(counter.node_id)
    for number, key in graph.keys_by_node.items():
        name = graph.full_names[number]
        is_state = is_counter_name(name) or name.rpartition("/")[2] == _SEED
        if key in averages or (is_state and _is_small(graph.find_tensor(key))):
            state.add(number)
    return state


def _is_small(tensor: Tensor | None) -> bool:
    return tensor is None or tensor.size <= _LARGEST_STATE


def layers_by_name(names: Iterable[str], find: Callable[[str], Tensor | None]) -> list[Layer]:
    """Make one layer of each scope of variables' names, in the order of their first use.

    Args:
        names: Names of variables: no slots, no moving averages, no counters.
        find: Gives the tensor of a stored name.
    """
    scopes: dict[str, list[Callable[[], Tensor]]] = {}
    for name in names:
        tensor = find(name)
        if tensor is not None:
            whole = _PART.sub("", name)
            scope = whole.rpartition("/")[0] or whole
            scopes.setdefault(scope, []).append(partial(_same, tensor))
    return [Layer(name, None, None, None, tuple(tensors)) for name, tensors in scopes.items()]


def _layer(
    node: ObjectNode | None, weights: list[ObjectNode], description: LayerDescription | None
) -> Layer:
    known = description or LayerDescription()
    name = known.name or _common_scope(weights) or _short_path(node)
    if not name and len(weights) == 1:
        name = weights[0].full_name or _short_path(weights[0])
    tensors = tuple(_tensor_of(weight) for weight in weights)
    return Layer(name, known.class_name, known.config, node, tensors)


def _short_path(node: ObjectNode | None) -> str:
    """Return a node's path; of a path that no model has, its end."""
    path = None if node is None else node.graph.path_of(node.node_id, at_most=_LONGEST_NAME)
    return path or ""


def _tensor_of(node: ObjectNode) -> Callable[[], Tensor]:
    return lambda: _weight_tensor(node)


def _weight_tensor(node: ObjectNode) -> Tensor:
    """Return the tensor of a weight; of a table, its keys: they are the vocabulary."""
    if not node.is_variable:
        keys = [tensor for name, tensor in node.tensors.items() if name.endswith(_TABLE_KEYS)]
        if len(keys) == 1:
            return keys[0]
    return node.tensor


def _common_scope(weights: Iterable[ObjectNode]) -> str:
    scopes = [node.full_name.split("/")[:-1] for node in weights if node.full_name]
    if not scopes:
        return ""
    shared = scopes[0]
    for scope in scopes[1:]:
        while scope[: len(shared)] != shared:
            shared = shared[:-1]
    return "/".join(shared)


_Found = tuple[ObjectNode | None, list[ObjectNode]]


def _in_training_order(graph: ObjectGraph, layers: Sequence[_Found]) -> list[_Found]:
    """Sort the layers of a subclassed Keras 3 model as its optimizer trains them.

    That is the model's order. Keras 3 does not track Python lists of layers, so the optimizer may
    know weights that no attribute holds: these are layers too.
    """
    trained = _trained(graph)
    position = {node: index for index, node in enumerate(trained)}
    held = {weight for _, weights in layers for weight in weights}
    ranked: list[tuple[int, _Found]] = []
    last = -1
    for found in layers:
        last = min((position[weight] for weight in found[1] if weight in position), default=last)
        ranked.append((last, found))
    others = _grouped([node for node in trained if node not in held], position)
    ranked += [(position[group[0]], (None, group)) for group in others]
    return [found for _, found in sorted(ranked, key=lambda item: item[0])]


def _trained(graph: ObjectGraph) -> list[ObjectNode]:
    """Return what a Keras 3 optimizer trains, if there is one optimizer that says so."""
    optimizers = [optimizer.node for optimizer in find_optimizers(graph)]
    lists = [node["_trainable_variables"] for node in optimizers if "_trainable_variables" in node]
    nodes = dict.fromkeys(lists[0].values()) if len(lists) == 1 else ()
    return [node for node in nodes if node.is_variable]


def _grouped(
    nodes: Iterable[ObjectNode], position: Mapping[ObjectNode, int]
) -> Iterator[list[ObjectNode]]:
    """Split consecutive weights into layers: a layer has one scope, and no name twice."""
    group: list[ObjectNode] = []
    names: set[str] = set()
    for node in nodes:
        name = node.full_name or ""
        if group and (
            position[node] != position[group[-1]] + 1
            or name in names
            or name.rpartition("/")[0] != (group[-1].full_name or "").rpartition("/")[0]
        ):
            yield group
            group, names = [], set()
        group.append(node)
        names.add(name)
    if group:
        yield group
