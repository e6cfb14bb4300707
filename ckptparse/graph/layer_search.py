"""Where the layers of a model stand in an object graph, and which weights each has.

The layers are among the children of the model's object:

    Keras 2 SavedModel     keras_api/layers/0, 1 ...; the weights of each in its `variables`
    Keras 2                layer-0, layer-1 ... (`layer_with_weights-i` are other names of these)
    Keras 3                _operations/0, 1 ...; of a Sequential _functional/_operations
    subclassed             attributes, and the elements of attributes that are lists

A layer's own weights come before those of layers inside it. Keras 2 gives all trainable ones of a
layer before the others, Keras 3 those of each inner layer.

An object may point to any other, to the model that it is a part of as well: the weights of a layer
are not looked for in the objects on its own path, nor in other layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ckptparse.graph.object_graph import SAVE_COUNTER, ObjectGraph
from ckptparse.graph.object_node import ObjectNode
from ckptparse.graph.optimizer import find_optimizers

__all__ = ["LayerSearch", "find_models"]

_KERAS_API = "keras_api"
_OPERATIONS = "_operations"
_FUNCTIONAL = "_functional"
_NUMBERED = ("layer-", "layer_with_weights-")
_CONTAINERS = ("trackable_list_wrapper", "trackable_tuple_wrapper", "trackable_dict_wrapper")
_KERAS_MARKS = {_KERAS_API, "_losses_override", "call_signature_parameters", "_inbound_nodes"}
"""Children that every layer of Keras has in a SavedModel."""
_LOOKUP_LAYER, _LOOKUP_TABLE, _TOKEN_COUNTS = "_lookup_layer", "lookup_table", "token_counts"
_MOST_DIGITS = 9
"""Digits of a number in a name: a longer one is no counter."""

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

_WEIGHTS = {
    *("kernel", "bias", "depthwise_kernel", "pointwise_kernel", "recurrent_kernel", "embeddings"),
    *("gamma", "beta", "moving_mean", "moving_variance"),
}
"""What Keras calls the weights of its own layers."""

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


def find_models(graph: ObjectGraph) -> list[ObjectNode]:
    """Find the models: the root, or what a tf.train.Checkpoint was made of beside optimizers."""
    root = graph.root
    if _holds_layers(root) or not _KERAS_MARKS.isdisjoint(root) or root.get("root") == root:
        return [root]
    if _is_layer(root):
        return [root]
    holders = [
        node
        for name, node in _unique(root)
        if name not in _NO_LAYERS and not node.is_variable and not graph.is_optimizer(node.node_id)
    ]
    holders = [node for node in holders if node.node_id in graph.above_variables]
    if len(holders) == 1 or SAVE_COUNTER in root or any(map(_holds_layers, holders)):
        return holders
    return [root]


def _is_layer(root: ObjectNode) -> bool:
    """Tell whether a root is one layer: its variables are called as it calls them, in one scope.

    Without a scope, they are called as Keras calls weights.
    """
    known = root.graph.memo.get((_is_layer, root.node_id))
    if known is None:
        known = root.graph.memo[_is_layer, root.node_id] = _keeps_one_scope(root)
    return bool(known)


def _keeps_one_scope(root: ObjectNode) -> bool:
    full_names = root.graph.full_names
    names = {
        name.lstrip("_"): full_names[number]
        for name, number in root.graph.children_of(root.node_id).items()
        if number in full_names and name not in _NO_LAYERS
    }
    scopes = {full.rpartition("/")[0] for full in names.values()}
    if len(scopes) != 1 or (scopes == {""} and not names.keys() <= _WEIGHTS):
        return False
    return all(full.rpartition("/")[2] == name for name, full in names.items())


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
    graph, seen = node.graph, set[int]()
    for name, number in graph.children_of(node.node_id).items():
        if number not in seen:
            seen.add(number)
            yield name, graph.node(number)


def _numbered(node: ObjectNode) -> list[ObjectNode]:
    """Return `layer-0`, `layer-1` ... in the order of their numbers."""
    for prefix in _NUMBERED:
        found = [
            (number, node.graph.node(child))
            for name, child in node.graph.children_of(node.node_id).items()
            if name.startswith(prefix)
            and (number := _number(name.removeprefix(prefix))) is not None
        ]
        if found:
            return [child for _, child in sorted(found, key=lambda item: item[0])]
    return []


def _number(text: str) -> int | None:
    """Return the number that a local name is, or None."""
    return int(text) if text.isdecimal() and len(text) <= _MOST_DIGITS else None


def _operations(node: ObjectNode) -> list[ObjectNode]:
    """Return the operations of a Keras 3 model; a Sequential does not count its input."""
    inner = node.get(_FUNCTIONAL)
    operations = (inner if inner is not None else node).get(_OPERATIONS)
    found = [] if operations is None else list(operations.values())
    return found if inner is None else found[1:]


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Where the search for a layer's weights ends: what it is a part of, and what stands apart."""

    layer: ObjectNode
    apart: frozenset[int]

    def __contains__(self, number: int) -> bool:
        own = self.layer.node_id
        if number == own:
            return False
        return number in self.apart or self.layer.graph.is_above(number, own)


class LayerSearch:
    """Gathers layers and weights; counts its steps, since each layer walks what layers share.

    Attributes:
        ordered: Whether every model so far said the order of its layers.
    """

    def __init__(self, graph: ObjectGraph) -> None:
        self.ordered = True
        self._graph = graph
        self._left = graph.most_steps
        self._apart: frozenset[int] = frozenset()
        self._in_lists: dict[ObjectNode, None] = {}
        self._alone: set[ObjectNode] = set()
        self._trained = frozenset(
            graph.node(number)
            for optimizer in find_optimizers(graph)
            for number in optimizer.slot_nodes
        )
        self._keras_3 = any(
            name in (_OPERATIONS, _FUNCTIONAL, "_kernel", "_losses_override")
            for node in graph.walk()
            for name in node
        )

    def find(self) -> list[tuple[ObjectNode | None, list[ObjectNode]]]:
        """Find the layers of all models, in their order, each with its weights.

        A model that another one holds as a layer stands there with its own layers, and nowhere
        else. The variables of an object that holds no layers are one layer, or several if their
        names have several scopes. Variables in lists that no layer has follow at the end, likewise.
        """
        nodes = self._layers_of_all(dict.fromkeys(find_models(self._graph)))
        self._apart = frozenset(node.node_id for node in nodes)
        found: list[tuple[ObjectNode | None, list[ObjectNode]]] = []
        for node, ordered in nodes.items():
            weights = self.weights_of(node)
            scopes = _scopes(weights) if node in self._alone else {}
            if len(scopes) > 1 and "" not in scopes:
                found.extend((None, group) for group in scopes.values())
            elif weights or ordered:
                found.append((node, weights))
        held = {weight for _, weights in found for weight in weights}
        left = _scopes(node for node in self._in_lists if node not in held)
        alone = left.pop("", ())
        groups = [*left.values(), *([node] for node in alone)]
        return [*found, *((None, group) for group in groups)]

    def _layers_of_all(self, models: dict[ObjectNode, None]) -> dict[ObjectNode, bool]:
        """Return the layers of models, and whether their model said their order."""
        self._apart = frozenset(model.node_id for model in models)
        found: dict[ObjectNode, bool] = {}
        entered: set[ObjectNode] = set()
        for first in models:
            pending = [(first, True)]
            while pending:
                node, ordered = pending.pop()
                if node not in models or node in entered:
                    found.setdefault(node, ordered)
                    continue
                entered.add(node)
                layers, ordered = self.layers_of(node)
                inner = [layer for layer in layers if layer == node or layer not in entered]
                pending.extend((layer, ordered) for layer in reversed(inner))
        return found

    def layers_of(self, model: ObjectNode) -> tuple[list[ObjectNode], bool]:
        """Return the layers of a model, and whether it says their order."""
        found = _keras_layers(model) or _numbered(model) or _operations(model)
        self.ordered = self.ordered and bool(found)
        if found:
            return found, True
        found = list(self._attributes_of(model))
        if not found and (model.node_id != 0 or _is_layer(model)):
            self._alone.add(model)
            return [model], False
        return found, False

    def weights_of(self, layer: ObjectNode) -> list[ObjectNode]:
        """Return the weights of a layer, as near to Keras's order as the graph tells, each once."""
        if layer.is_variable:
            return [layer]
        bounds = _Bounds(layer, self._apart)
        weights: dict[ObjectNode, None] = {}
        pending, seen = [layer], set[int]()
        while pending:
            node = pending.pop()
            self._count()
            if node.node_id in seen or node.node_id in bounds:
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
                weights |= dict.fromkeys(self._block(node, bounds))
        return list(weights)

    def _attributes_of(self, model: ObjectNode) -> Iterator[ObjectNode]:
        """Iterate over the attributes of a subclassed model that are layers with weights."""
        bounds = _Bounds(model, frozenset())
        pending, seen = [model], set[int]()
        while pending:
            node = pending.pop()
            self._count()
            if node.node_id in seen:
                continue
            seen.add(node.node_id)
            if node != model and (node.node_id in self._apart or not self._holds_several(node)):
                yield node
                continue
            if node != model:
                variables = (child for child in node.values() if child.is_variable)
                self._in_lists |= dict.fromkeys(variables)
            inner = [child for _, child in self._inner(node) if child.node_id not in bounds]
            pending.extend(reversed(inner))

    def _holds_several(self, node: ObjectNode) -> bool:
        """Tell whether an object holds layers and is none, as lists and wrappers are.

        What has no weights itself is one if those below have names of several scopes: the layers
        of a layer share its own. Names without a scope say nothing.
        """
        if _is_container(node):
            return True
        inner = [child for _, child in self._inner(node)]
        if not inner or self._own_weights(node) or _holds_layers(node):
            return False
        if not _KERAS_MARKS.isdisjoint(node):
            return False
        names = [weight.full_name or "" for weight in self.weights_of(node)]
        firsts = {name.partition("/")[0] if "/" in name else "" for name in names}
        return len(firsts) > 1 and "" not in firsts

    def _block(self, layer: ObjectNode, bounds: _Bounds) -> list[ObjectNode]:
        """Gather the weights of one layer and all layers in it."""
        groups: list[list[tuple[str, ObjectNode]]] = []
        pending, seen = [layer], {layer.node_id}
        while pending:
            node = pending.pop()
            self._count()
            groups.append(self._own_weights(node))
            inner = [
                child
                for _, child in self._inner(node)
                if child.node_id not in seen and child.node_id not in bounds
            ]
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
            if not self._graph.is_optimizer(child.node_id):
                yield name, child

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise self._graph.too_many_steps(self._graph.most_steps + 1, "layers")


def _scopes(weights: Iterable[ObjectNode]) -> dict[str, list[ObjectNode]]:
    """Group weights by the scopes of their names, in the order of their first use."""
    scopes: dict[str, list[ObjectNode]] = {}
    for node in weights:
        scopes.setdefault((node.full_name or "").rpartition("/")[0], []).append(node)
    return scopes


def _vocabulary(node: ObjectNode) -> ObjectNode | None:
    """Return the table of a lookup layer that learnt its vocabulary, which is then a weight.

    A vocabulary that was given to the layer is part of its configuration, and no weight. One that
    the file does not hold is left out: a checkpoint has it only if the table itself was saved.
    """
    table = node.get(_LOOKUP_TABLE) if _TOKEN_COUNTS in node else None
    if table is None or table.attributes or getattr(table, "kind", None) == "resource":
        return table
    return None


def _fill_gaps(listed: ObjectNode, tables: Iterable[ObjectNode]) -> Iterator[ObjectNode]:
    """Iterate over a list of weights, of which the vocabularies of tables were left out."""
    left = iter(tables)
    index = 0
    for name, child in listed.children.items():
        while index < (_number(name) or 0):
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
        trained: Those of the layer's weights that an optimizer trains; none if nobody says.
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
    return all(_number(name) is not None for name in node)
