"""Where layers are looked for: small object graphs, each with one thing that models do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ckptparse.errors import AmbiguousError
from ckptparse.graph.layers import find_layers, layers_by_scope
from ckptparse.graph.object_graph import ObjectGraph
from ckptparse.graph.optimizer import find_optimizers, the_optimizer
from ckptparse.proto.trackable_object_graph_pb2 import TrackableObjectGraph

pytestmark = pytest.mark.proto


class Stem:
    """A table that was saved: its attribute is the stem of two tensors' names."""


def add_attribute(node: Any, path: str, value: Stem | str) -> None:
    if isinstance(value, Stem):
        node.attributes.add(name="table", checkpoint_key=path)
    else:
        node.attributes.add(name="VARIABLE_VALUE", full_name=value, checkpoint_key=path)


def graph_of(tree: Mapping[str, Any]) -> ObjectGraph:
    """Make a graph of nested names: a string is a variable of that name, `"=x"` the object `x`.

    The key of a variable is its own name, of an object the path that leads to it.
    """
    message = TrackableObjectGraph()
    numbers: dict[str, int] = {}
    links: list[tuple[int, str, str]] = []

    def add(path: str, value: Any) -> int:
        number = numbers[path] = len(message.nodes)
        node = message.nodes.add()
        if isinstance(value, (Stem, str)):
            add_attribute(node, path, value)
            return number
        for name, child in value.items():
            if isinstance(child, str) and child.startswith("="):
                links.append((number, name, child[1:]))
                message.nodes[number].children.add(local_name=name)
            else:
                own = add(f"{path}/{name}" if path else name, child)
                message.nodes[number].children.add(local_name=name, node_id=own)
        return number

    add("", tree)
    for number, name, target in links:
        for reference in message.nodes[number].children:
            if reference.local_name == name:
                reference.node_id = numbers[target]
    return ObjectGraph.from_bytes(message.SerializeToString())


def found(tree: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Return names and weights' keys of the layers."""
    layers, _ = find_layers(graph_of(tree))
    return [(layer.name, [cell_key(tensor) for tensor in layer._tensors]) for layer in layers]


def cell_key(tensor: Any) -> str:
    """Say which node a weight is read from."""
    (node,) = (cell.cell_contents for cell in tensor.__closure__)
    return str(node.checkpoint_key)


DENSE = {"kernel": "d/kernel", "bias": "d/bias"}
NORM = {
    "moving_mean": "n/moving_mean",
    "gamma": "n/gamma",
    "moving_variance": "n/moving_variance",
    "beta": "n/beta",
}


def test_numbered_layers_come_by_number_and_not_as_they_are_stored() -> None:
    tree = {"layer-10": DENSE, "layer-2": NORM, "layer_with_weights-0": "=layer-2", "layer-1": {}}
    assert [name for name, _ in found(tree)] == ["layer-1", "n", "d"]


def test_weights_that_training_leaves_alone_come_last() -> None:
    ((_, weights),) = found({"layer-0": NORM})
    assert [key.rpartition("/")[2] for key in weights] == [
        "gamma",
        "beta",
        "moving_mean",
        "moving_variance",
    ]


def test_a_layers_own_weights_come_before_those_of_layers_in_it() -> None:
    tree = {"layer-0": {"inner": {"kernel": "b/i/kernel"}, "scale": "b/scale"}}
    assert found(tree) == [("b", ["layer-0/scale", "layer-0/inner/kernel"])]


def test_a_subclassed_model_may_have_a_model_among_its_attributes() -> None:
    tree = {
        "first": DENSE,
        "inner": {"layer-0": {"kernel": "i/kernel"}},
        "blocks": {"0": {"w": "b0/w"}, "1": {"w": "b1/w"}},
        "offset": "offset",
        "root": "=",
    }
    assert [name for name, _ in found(tree)] == ["d", "i", "b0", "b1"]


def test_a_checkpoint_of_several_models_has_the_layers_of_each() -> None:
    tree = {
        "generator": {"layer-0": {"w": "g/w"}},
        "discriminator": {"a": {"w": "da/w"}, "b": {"w": "db/w"}},
        "optimizer": {"iter": "Adam/iter", "learning_rate": "Adam/lr"},
        "save_counter": "save_counter",
    }
    assert [name for name, _ in found(tree)] == ["g", "da", "db"]


def test_a_layer_by_itself_is_a_layer() -> None:
    assert found({"layer": DENSE, "save_counter": "save_counter"}) == [
        ("d", ["layer/kernel", "layer/bias"])
    ]


def test_bare_variables_have_scopes() -> None:
    graph = graph_of({"a": "s/w", "b": "s/b", "c": "c", "save_counter": "save_counter"})
    layers, source = find_layers(graph)
    assert source == "names"
    assert [layer.name for layer in layers] == ["s", "c"]
    assert [layer.name for layer in layers_by_scope(graph)] == ["s", "c"]
    assert {layer.path for layer in layers} == {None}


def test_the_optimizer_knows_what_is_trained() -> None:
    tree = {
        "layer-0": {"running": "b/running", "scale": "b/scale", "inner": {"w": "b/i/w"}},
        "layer-1": {
            "running": "f/running",
            "scale": "f/scale",
            "norm": NORM,
            "last": {"w": "f/l/w"},
        },
        "optimizer": {
            "_iterations": "iteration",
            "_variables": {"0": "Adam/m/b/scale", "1": "Adam/m/b/i/w"},
        },
    }
    (_, trained), (_, frozen) = found(tree)
    assert trained == ["layer-0/scale", "layer-0/inner/w", "layer-0/running"]
    # Of a frozen layer Keras gives each inner layer's weights together.
    assert [key.rpartition("/")[2] for key in frozen][:4] == ["running", "scale", "gamma", "beta"]
    assert frozen[-1] == "layer-1/last/w"


def test_layers_in_a_plain_list_of_keras_3_are_known_to_the_optimizer_alone() -> None:
    tree = {
        "model": {"b": {"_kernel": "m/kernel", "bias": "m/bias"}, "a": {"_kernel": "m/kernel"}},
        "optimizer": {
            "_variables": {},
            "_trainable_variables": {
                "0": "=model/b/_kernel",
                "1": "=model/b/bias",
                "2": "m/kernel",
                "3": "m/bias",
                "4": "m/kernel",
                "5": "=model/a/_kernel",
            },
        },
        "save_counter": "save_counter",
    }
    assert [weights for _, weights in found(tree)] == [
        ["model/b/_kernel", "model/b/bias"],
        ["optimizer/_trainable_variables/2", "optimizer/_trainable_variables/3"],
        ["optimizer/_trainable_variables/4"],
        ["model/a/_kernel"],
    ]


def test_the_input_of_a_keras_3_sequential_is_no_layer() -> None:
    inner = {"_operations": {"0": {}, "1": {"_kernel": "s/d/kernel"}, "2": {}}}
    tree = {"_functional": inner}
    assert [name for name, _ in found(tree)] == ["s/d", "_functional/_operations/2"]
    assert [name for name, _ in found(inner)] == ["_operations/0", "s/d", "_operations/2"]


def test_states_of_random_generators_are_no_weights() -> None:
    tree = {
        "layer-0": {
            "_random_generator": {"state": "r/state"},
            "seed_generator": {"state": "seed/state"},
            "kernel": "d/kernel",
        }
    }
    assert found(tree) == [("d", ["layer-0/kernel"])]


def test_a_vocabulary_that_a_layer_learnt_is_a_weight_if_its_table_was_saved() -> None:
    tree = {
        "layer-0": {
            "_lookup_layer": {"idf_weights": "idf", "lookup_table": Stem(), "token_counts": {}}
        },
        "layer-1": {"lookup_table": Stem(), "input_vocabulary": {}},
        "layer-2": {"idf_weights": "idf", "lookup_table": {}, "token_counts": Stem()},
    }
    graph = graph_of(tree)
    assert [len(layer._tensors) for layer in find_layers(graph)[0]] == [2, 0, 1]


def test_gaps_in_a_list_of_weights_are_vocabularies() -> None:
    tree = {
        "layer-0": {
            "keras_api": {},
            "variables": {"0": "idf", "2": "documents"},
            "lookup_table": Stem(),
            "token_counts": {},
        }
    }
    (layer,) = find_layers(graph_of(tree))[0]
    nodes = [next(cell.cell_contents for cell in t.__closure__ or ()) for t in layer._tensors]
    assert [node.path for node in nodes] == [
        "layer-0/variables/0",
        "layer-0/lookup_table",
        "layer-0/variables/2",
    ]


def test_slots_of_optimizers_without_a_name_are_found() -> None:
    tree = {
        "model": {"layer-0": {"kernel": "d/kernel"}},
        "optimizer": {
            "_iterations": "iteration",
            "_variables": {"0": "m/d/kernel", "1": "scope/Adam/v/d/kernel", "2": "unknown"},
        },
    }
    (optimizer,) = find_optimizers(graph_of(tree))
    assert optimizer.slots.stored_names == {
        "d/kernel": {"m": "optimizer/_variables/0", "v": "optimizer/_variables/1"}
    }
    assert "model/layer-0/kernel" in optimizer.slots


def test_of_several_optimizers_none_is_the_optimizer() -> None:
    tree = {
        "a": {"iter": "a/iter", "learning_rate": "a/lr"},
        "b": {"_iterations": "it", "_variables": {"0": "Adam/m/w"}},
        "w": "w",
    }
    optimizers = find_optimizers(graph_of(tree))
    assert [optimizer.path for optimizer in optimizers] == ["a", "b"]
    assert "'b'" in repr(optimizers[1])
    with pytest.raises(AmbiguousError, match="found 2: 'a', 'b'") as caught:
        the_optimizer(optimizers)
    assert caught.value.candidates == ("a", "b")
    assert the_optimizer(optimizers[1:]) is optimizers[1]
    assert the_optimizer([]) is None


@pytest.mark.parametrize("name", ["layer-" + "9" * 5000, "layer-x", "layer-", "layer-²"])
def test_numbers_that_no_layer_has_are_no_numbers(name: str) -> None:
    tree = {name: DENSE, "layer-1": {"keras_api": {}, "variables": {"9" * 5000: "w"}}}
    assert [layer for layer, _ in found(tree)] == ["layer-1"]


# Objects that point to what they are parts of.


def test_a_layer_ends_at_the_model_it_is_a_part_of_and_at_other_layers() -> None:
    tree = {
        "model": {
            "a": {"w": "a/w", "owner": "=model", "friend": "=model/b", "inner": {"v": "a/i/v"}},
            "b": {"w": "b/w", "registry": "=model/registry"},
            "registry": {"first": "=model/a", "second": "=model/b"},
        },
        "save_counter": "save_counter",
    }
    assert found(tree) == [
        ("a", ["model/a/w", "model/a/inner/v"]),
        ("b", ["model/b/w"]),
    ]


def test_a_model_within_another_gives_its_layers_once_and_in_its_place() -> None:
    tree = {
        "encoder": "=model/second",
        "model": {"first": {"w": "1/w"}, "second": {"x": {"w": "x/w"}, "y": {"w": "y/w"}}},
        "optimizer": {"iter": "it", "learning_rate": "lr"},
    }
    assert [name for name, _ in found(tree)] == ["x", "y", "1"]
    stacked = {
        "generator": {"layer-0": {"w": "g/w"}},
        "discriminator": {"layer-0": {"w": "d/w"}},
        "gan": {"layer-0": "=discriminator", "layer-1": "=generator"},
        "save_counter": "save_counter",
    }
    assert [name for name, _ in found(stacked)] == ["g", "d"]


def test_a_root_is_a_layer_if_its_variables_share_a_scope_and_its_names_for_them() -> None:
    layer = {"_kernel": "d/kernel", "bias": "d/bias"}
    assert found(layer) == [("d", ["_kernel", "bias"])]
    assert found({"kernel": "kernel", "bias": "bias"}) == [("", ["kernel", "bias"])]
    assert [name for name, _ in found({"kernel": "a/kernel", "bias": "b/bias"})] == ["a", "b"]
    assert [name for name, _ in found({"u": "u", "v": "v"})] == ["u", "v"]


def test_variables_of_one_object_are_as_many_layers_as_their_names_have_scopes() -> None:
    tree = {"model": {"emb": "emb/e", "k": "dense/k", "b": "dense/b"}, "save_counter": "sc"}
    assert found(tree) == [("emb", ["model/emb"]), ("dense", ["model/k", "model/b"])]
    tree = {"model": {"emb": "e", "k": "dense/k"}, "save_counter": "sc"}
    assert [weights for _, weights in found(tree)] == [["model/emb", "model/k"]]


def test_variables_in_lists_that_no_layer_has_go_by_the_scopes_of_their_names() -> None:
    tree = {
        "model": {
            "all": {"0": "=model/d/kernel", "1": "e/w", "2": "e/b", "3": "f/w"},
            "d": {"kernel": "d/kernel"},
        },
        "save_counter": "save_counter",
    }
    assert found(tree) == [
        ("d", ["model/d/kernel"]),
        ("e", ["model/all/1", "model/all/2"]),
        ("f", ["model/all/3"]),
    ]


def test_slots_and_counters_of_an_optimizer_are_no_layers_of_bare_variables() -> None:
    tree = {
        "w": "net/w",
        "average": "net/w/ExponentialMovingAverage",
        "optimizer": {
            "_iterations": "iteration",
            "_learning_rate": "learning_rate",
            "_variables": {"0": "Adam/m/net/w", "1": "Adam/v/net/w"},
        },
        "step": "global_step",
    }
    layers, source = find_layers(graph_of(tree))
    # Without tensors nobody knows whether the average fits its variable.
    assert [layer.name for layer in layers] == ["net", "net/w"]
    assert source == "names"


def test_names_of_one_variable_make_no_object_each(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of({"v": "v", **{f"v{number}": "=v" for number in range(1000)}})
    made: list[int] = []
    give = ObjectGraph.node

    def node(self: ObjectGraph, number: int) -> Any:
        made.append(number)
        return give(self, number)

    monkeypatch.setattr(ObjectGraph, "node", node)
    layers, _ = find_layers(graph)
    assert [layer.name for layer in layers] == ["v"]
    assert len(made) < 50
