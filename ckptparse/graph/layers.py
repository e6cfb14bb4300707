"""Layers as a person thinks of them: a model's layers in its order, each with its weights.

Where a model's layers stand among the children of its object:

    Keras 2 SavedModel     keras_api/layers/0, 1 ...; the weights of each in its `variables`
    Keras 2                layer-0, layer-1 ... (`layer_with_weights-i` are other names of these)
    Keras 3                _operations/0, 1 ...; of a Sequential _functional/_operations
    subclassed             attributes, and the elements of attributes that are lists

Keras gives a layer's own weights before those of layers inside it; Keras 2 gives all trainable ones
of a layer before the others, Keras 3 those of each inner layer. A Keras 3 export holds no layers
but lists of variables, whose names have the scopes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy.typing as npt

from ckptparse.errors import LimitError
from ckptparse.graph.object_graph import SAVE_COUNTER, ObjectGraph, ObjectNode
from ckptparse.graph.optimizer import find_optimizers, is_optimizer
from ckptparse.tensor import Tensor

__all__ = ["Layer", "LayerDescription", "LayersSource", "find_layers", "layers_by_name"]

LayersSource = Literal["keras_metadata", "object_graph", "names"]

_KERAS: Final = "keras_metadata"
_KERAS_API = "keras_api"
_OPERATIONS = "_operations"
_FUNCTIONAL = "_functional"
_ALL_VARIABLES = "_all_variables"
_NUMBERED = ("layer-", "layer_with_weights-")
_CONTAINERS = ("trackable_list_wrapper", "trackable_tuple_wrapper", "trackable_dict_wrapper")
_KERAS_MARKS = {_KERAS_API, "_losses_override", "call_signature_parameters", "_inbound_nodes"}
"""Children that every layer of Keras has in a SavedModel."""
_LOOKUP_LAYER, _LOOKUP_TABLE, _TOKEN_COUNTS = "_lookup_layer", "lookup_table", "token_counts"
_LONGEST_NAME = 32
"""Local names that a path may have to be a layer's name."""

_NO_LAYERS = {
    _KERAS_API,
    SAVE_COUNTER,
    "variables",
    "trainable_variables",
    "non_trainable_variables",
    "regularization_losses",
    "signatures",
    "metrics",
    "_metrics",
    "compiled_metrics",
    "compiled_loss",
    # The states of random generators are variables, and no weights.
    "_random_generator",
    "random_generator",
    "seed_generator",
    "_seed_generators",
    "_generator",
}
"""Children of models and layers that are neither layers nor weights."""

_NOT_TRAINABLE = {
    "moving_mean",
    "moving_variance",
    "moving_stddev",
    "renorm_mean",
    "renorm_stddev",
    "mean",
    "variance",
    "count",
    "idf_weights",
    "lookup_table",
    "num_documents",
    "summary",
    "vector_u",
    "sn_u",
}
"""Local names of weights that training leaves alone, for checkpoints that do not tell."""


@dataclass(frozen=True, slots=True)
class LayerDescription:
    """What Keras wrote of a layer.

    Attributes:
        name: Its name, or None.
        class_name: Its class (`Dense`), or None.
        config: What `get_config()` gave, or None.
    """

    name: str | None = None
    class_name: str | None = None
    config: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a model.

    Attributes:
        name: Keras's name, or the scope of its variables' names, or its path.
        class_name: Its class (`Dense`), or None where the file does not hold it.
        config: Its configuration, or None where the file does not hold it.
        node: Its object, or None where no object is the layer.
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
        """Its weights, unread, in Keras's order.

        Raises:
            TensorNotFoundError: One of them is not in the checkpoint.
        """
        return [tensor() for tensor in self._tensors]

    def get_weights(self) -> list[npt.NDArray[Any]]:
        """Read its weights, in Keras's order.

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
    if _ALL_VARIABLES in graph:
        return layers_by_scope(graph), "names"
    walker = _Walker(graph)
    nodes = dict.fromkeys(node for model in _models(graph) for node in walker.layers_of(model))
    layers: list[_Found] = [(node, walker.weights_of(node)) for node in nodes]
    known = [describe(node) if describe is not None else None for node in nodes]
    if any(known):
        described = zip(layers, known, strict=True)
        return [_layer(*found, description) for found, description in described], _KERAS
    if any(weights for _, weights in layers):
        found = layers if walker.ordered else _in_training_order(graph, layers)
        return [_layer(node, weights, None) for node, weights in found], "object_graph"
    return layers_by_scope(graph), "names"


def layers_by_scope(graph: ObjectGraph) -> list[Layer]:
    """Make one layer of each scope of the variables' names, in the order of their first use."""
    listed = graph.root.get("variables") or graph.root.get(_ALL_VARIABLES)
    counter = graph.root.get(SAVE_COUNTER)
    nodes = listed.values() if listed is not None else graph.walk()
    scopes: dict[str, list[ObjectNode]] = {}
    for node in dict.fromkeys(nodes):
        if node.is_variable and node != counter:
            name = node.full_name or _short_path(node)
            scopes.setdefault(name.rpartition("/")[0] or name, []).append(node)
    return [
        Layer(name, None, None, None, tuple(_tensor_of(node) for node in nodes))
        for name, nodes in scopes.items()
    ]


def layers_by_name(names: Iterable[str], find: Callable[[str], Tensor | None]) -> list[Layer]:
    """Make one layer of each scope of stored names, in the order of their first use."""
    scopes: dict[str, list[Callable[[], Tensor]]] = {}
    for name in names:
        tensor = find(name)
        if tensor is not None:
            scope = name.rpartition("/")[0] or name
            scopes.setdefault(scope, []).append(lambda tensor=tensor: tensor)  # type: ignore[misc]
    return [Layer(name, None, None, None, tuple(tensors)) for name, tensors in scopes.items()]


def _layer(
    node: ObjectNode | None, weights: list[ObjectNode], description: LayerDescription | None
) -> Layer:
    known = description or LayerDescription()
    name = known.name or _common_scope(weights) or _short_path(node)
    tensors = tuple(_tensor_of(weight) for weight in weights)
    return Layer(name, known.class_name, known.config, node, tensors)


def _short_path(node: ObjectNode | None) -> str:
    """Return a node's path; of a path that no model has, its end."""
    path = None if node is None else node.graph.path_of(node.node_id, at_most=_LONGEST_NAME)
    return path or ""


def _tensor_of(node: ObjectNode) -> Callable[[], Tensor]:
    return lambda: node.tensor


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
    """Return what a Keras 3 optimizer trains, where there is one optimizer that says so."""
    optimizers = (optimizer.node for optimizer in find_optimizers(graph))
    lists = [node["_trainable_variables"] for node in optimizers if "_trainable_variables" in node]
    nodes = dict.fromkeys(lists[0].values()) if len(lists) == 1 else ()
    return [node for node in nodes if node.is_variable]


def _grouped(
    nodes: Iterable[ObjectNode], position: Mapping[ObjectNode, int]
) -> Iterator[list[ObjectNode]]:
    """Split consecutive weights into layers: a layer has one scope, and no name twice."""
    group: list[ObjectNode] = []
    for node in nodes:
        name = node.full_name or ""
        scope = name.rpartition("/")[0]
        if group and (
            position[node] != position[group[-1]] + 1
            or scope != (group[-1].full_name or "").rpartition("/")[0]
            or any(other.full_name == name for other in group)
        ):
            yield group
            group = []
        group.append(node)
    if group:
        yield group


# Where layers are


def _models(graph: ObjectGraph) -> list[ObjectNode]:
    """Find the models: the root, or what a tf.train.Checkpoint was made of beside optimizers."""
    root = graph.root
    if _holds_layers(root) or not _KERAS_MARKS.isdisjoint(root) or root.get("root") == root:
        return [root]
    holders = [
        node
        for name, node in _unique(root)
        if name not in _NO_LAYERS and not node.is_variable and not is_optimizer(node)
    ]
    holders = [node for node in holders if node.node_id in graph.above_variables]
    if len(holders) == 1 or SAVE_COUNTER in root or any(map(_holds_layers, holders)):
        return holders
    return [root]


def _holds_layers(node: ObjectNode) -> bool:
    if any(name in (_OPERATIONS, _FUNCTIONAL) or name.startswith(_NUMBERED) for name in node):
        return True
    return bool(_keras_layers(node))


def _keras_layers(node: ObjectNode) -> list[ObjectNode]:
    api = node.get(_KERAS_API)
    listed = api.get("layers") if api is not None else None
    return [] if listed is None else list(listed.values())


def _unique(node: ObjectNode) -> Iterator[tuple[str, ObjectNode]]:
    """Iterate over children, each by its first name."""
    seen: set[int] = set()
    for name, child in node.children.items():
        if child.node_id not in seen:
            seen.add(child.node_id)
            yield name, child


def _numbered(node: ObjectNode) -> list[ObjectNode]:
    """Return `layer-0`, `layer-1` ... in the order of their numbers."""
    for prefix in _NUMBERED:
        found = [
            (int(name.removeprefix(prefix)), child)
            for name, child in node.children.items()
            if name.startswith(prefix) and name.removeprefix(prefix).isdecimal()
        ]
        if found:
            return [child for _, child in sorted(found, key=lambda item: item[0])]
    return []


def _operations(node: ObjectNode) -> list[ObjectNode]:
    """Return the operations of a Keras 3 model; a Sequential does not count its input."""
    inner = node.get(_FUNCTIONAL)
    operations = (inner if inner is not None else node).get(_OPERATIONS)
    found = [] if operations is None else list(operations.values())
    return found if inner is None else found[1:]


class _Walker:
    """Gathers layers and weights; counts its steps, since each layer walks what layers share.

    Attributes:
        ordered: Whether every model so far said the order of its layers.
    """

    def __init__(self, graph: ObjectGraph) -> None:
        self.ordered = True
        self._graph = graph
        self._left = 16 * graph.node_count + 100_000
        self._trained = frozenset(
            node for optimizer in find_optimizers(graph) for node in optimizer.slots.variables
        )
        self._keras_3 = any(
            name in (_OPERATIONS, _FUNCTIONAL, "_kernel", "_losses_override")
            for node in graph.walk()
            for name in node
        )

    def layers_of(self, model: ObjectNode) -> list[ObjectNode]:
        """Return the layers of a model, in its order."""
        found = _keras_layers(model) or _numbered(model) or _operations(model)
        self.ordered = self.ordered and bool(found)
        found = found or list(self._attributes_of(model))
        return found or ([model] if model.node_id else [])

    def weights_of(self, layer: ObjectNode) -> list[ObjectNode]:
        """Return the weights of a layer, in Keras's order, each once."""
        if layer.is_variable:
            return [layer]
        weights: dict[ObjectNode, None] = {}
        pending, seen = [layer], set[int]()
        while pending:
            node = pending.pop()
            self._count()
            if node.node_id in seen:
                continue
            seen.add(node.node_id)
            listed = node.get("variables") if _KERAS_API in node else None
            inner = _numbered(node) or _operations(node)
            if listed is not None:
                weights |= dict.fromkeys(_fill_gaps(listed, self._vocabularies(node)))
            elif inner:
                weights |= dict.fromkeys(child for _, child in self._own_weights(node))
                pending.extend(reversed(inner))
            else:
                weights |= dict.fromkeys(self._block(node))
        return list(weights)

    def _attributes_of(self, model: ObjectNode) -> Iterator[ObjectNode]:
        """Iterate over the attributes of a subclassed model that are layers with weights."""
        pending, seen = [model], {model.node_id}
        while pending:
            node = pending.pop()
            self._count()
            if node is not model and not _is_container(node):
                yield node
                continue
            inner = [child for _, child in self._inner(node) if child.node_id not in seen]
            seen.update(child.node_id for child in inner)
            pending.extend(reversed(inner))

    def _block(self, layer: ObjectNode) -> list[ObjectNode]:
        """Gather the weights of one layer and all layers in it."""
        groups: list[list[tuple[str, ObjectNode]]] = []
        pending, seen = [layer], {layer.node_id}
        while pending:
            node = pending.pop()
            self._count()
            groups.append(self._own_weights(node))
            inner = [child for _, child in self._inner(node) if child.node_id not in seen]
            seen.update(child.node_id for child in inner)
            pending.extend(reversed(inner))
        trained = self._trained.intersection(node for group in groups for _, node in group)
        frozen = bool(self._trained) and not trained
        if not self._keras_3 and not frozen:
            groups = [[weight for group in groups for weight in group]]
        # Sorting is stable: trainable weights keep their order, and so do the others.
        ordered = (
            sorted(group, key=lambda item: _is_last(item[0], item[1], trained)) for group in groups
        )
        return [node for group in ordered for _, node in group]

    def _own_weights(self, node: ObjectNode) -> list[tuple[str, ObjectNode]]:
        table = _vocabulary(node)
        return [
            (name, child)
            for name, child in _unique(node)
            if (child.is_variable and name not in _NO_LAYERS) or child == table
        ]

    def _vocabularies(self, layer: ObjectNode) -> list[ObjectNode]:
        """Gather the tables in a layer whose vocabularies count as weights."""
        tables: list[ObjectNode] = []
        pending, seen = [layer], {layer.node_id}
        while pending:
            node = pending.pop()
            self._count()
            table = _vocabulary(node)
            tables += [] if table is None else [table]
            inner = [
                child
                for name, child in _unique(node)
                if name == _LOOKUP_LAYER or name.startswith(_NUMBERED)
            ]
            inner = [child for child in inner if child.node_id not in seen]
            seen.update(child.node_id for child in inner)
            pending.extend(reversed(inner))
        return tables

    def _inner(self, node: ObjectNode) -> Iterator[tuple[str, ObjectNode]]:
        """Iterate over children that keep weights below them."""
        for name, child in _unique(node):
            self._count()
            keeps = child.node_id in self._graph.above_variables or name == _LOOKUP_LAYER
            if not keeps or name in _NO_LAYERS or child.is_variable:
                continue
            if not is_optimizer(child):
                yield name, child

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise LimitError("The layers share more objects than layers of a model do")


def _vocabulary(node: ObjectNode) -> ObjectNode | None:
    """Return the table of a lookup layer that learnt its vocabulary, which is then a weight.

    A vocabulary that was given to the layer is part of its configuration, and no weight.
    """
    return node.get(_LOOKUP_TABLE) if _TOKEN_COUNTS in node else None


def _fill_gaps(listed: ObjectNode, tables: Iterable[ObjectNode]) -> Iterator[ObjectNode]:
    """Iterate over a list of weights, of which the vocabularies of tables were left out."""
    left = iter(tables)
    index = 0
    for name, child in listed.children.items():
        while name.isdecimal() and index < int(name):
            table = next(left, None)
            if table is None:
                break
            yield table
            index += 1
        index += 1
        if child.is_variable:
            yield child
    yield from left


def _is_last(name: str, node: ObjectNode, trained: frozenset[ObjectNode]) -> bool:
    """Tell whether training leaves a weight alone, which then comes after the others.

    Args:
        name: What its layer calls it.
        node: The weight.
        trained: Those of the layer's weights that an optimizer trains; none where nobody says.
    """
    trainable: bool | None = getattr(node, "trainable", None)
    if trainable is not None:
        return not trainable
    return name in _NOT_TRAINABLE or (bool(trained) and node not in trained)


def _is_container(node: ObjectNode) -> bool:
    """Tell whether an object is a list or a dictionary of layers, not a layer."""
    user_object = getattr(node, "user_object", None)
    if user_object is not None:
        return user_object.identifier in _CONTAINERS
    return all(name.isdecimal() for name in node) and not any(
        child.is_variable for child in node.values()
    )
