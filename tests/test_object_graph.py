"""Object graphs: every node of the fixtures, trees, names, steps, and graphs that lie."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import builder
import expected
import numpy as np
import pytest
from google.protobuf.internal import api_implementation
from hypothesis import given
from hypothesis import strategies as st

import ckptparse
from ckptparse.bundle.naming import encode_name
from ckptparse.errors import CheckpointError, LimitError, MalformedError, TensorNotFoundError
from ckptparse.graph import tree
from ckptparse.graph.layer_search import LayerSearch
from ckptparse.graph.layers import find_layers
from ckptparse.graph.object_graph import ObjectGraph
from ckptparse.graph.object_node import ObjectNode, escape_name, unescape_name
from ckptparse.graph.optimizer import find_optimizers
from ckptparse.graph.tree import object_tree
from ckptparse.graph.variable_names import name_variables
from ckptparse.limits import Limits
from ckptparse.proto.trackable_object_graph_pb2 import TrackableObjectGraph
from ckptparse.tensor import Tensor

pytestmark = pytest.mark.proto

GRAPHS = {
    f"{case.name}:{row.data['prefix']}": row
    for case in expected.cases()
    for row in case.checkpoints
    if "object_graph" in row.data
}
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
MANY = Limits(objects=2_000_000)


def graph_of(
    nodes: Iterable[Mapping[str, Any]], tensors: Mapping[str, Tensor] | None = None
) -> ObjectGraph:
    """Make a graph of nodes: children {name: id}, attributes [name, full name, key], slots."""
    message = TrackableObjectGraph()
    for row in nodes:
        node = message.nodes.add()
        for name, node_id in row.get("children", {}).items():
            node.children.add(node_id=node_id, local_name=name)
        for name, full_name, key in row.get("attributes", ()):
            node.attributes.add(name=name, full_name=full_name, checkpoint_key=key)
        for variable, name, slot in row.get("slots", ()):
            node.slot_variables.add(
                original_variable_node_id=variable, slot_name=name, slot_variable_node_id=slot
            )
    return ObjectGraph.from_bytes(message.SerializeToString(), limits=MANY)


def variable(key: str, full_name: str = "") -> dict[str, Any]:
    return {"attributes": [("VARIABLE_VALUE", full_name, key)]}


# What TensorFlow wrote


@pytest.mark.parametrize("name", GRAPHS)
def test_every_node_is_as_tensorflow_wrote_it(name: str) -> None:
    row = GRAPHS[name]
    facts = row.data["object_graph"]
    with ckptparse.open(row.path) as checkpoint:
        graph = checkpoint.object_graph
        assert graph is not None
        assert hashlib.sha256(graph.serialized).hexdigest() == facts["sha256"]
        assert graph.node_count == len(facts["nodes"])
        for node, fact in zip(graph.nodes(), facts["nodes"], strict=True):
            assert_node(node, fact)


def assert_node(node: ObjectNode, fact: Mapping[str, Any]) -> None:
    children = [[name, child.node_id] for name, child in node.children.items()]
    assert children == fact.get("children", [])
    kept = node.attributes.values()
    assert [[a.name, a.full_name, a.checkpoint_key] for a in kept] == fact.get("attributes", [])
    slots = [[s.variable.node_id, s.slot_name, s.slot.node_id] for s in node.slot_variables]
    assert slots == fact.get("slots", [])
    saver = node.registered_saver
    assert (saver and [saver.name, saver.object_name]) == fact.get("registered_saver")
    assert node.has_checkpoint_values == fact.get("has_values")


@pytest.mark.parametrize("name", GRAPHS)
def test_every_variable_is_found_by_its_path_and_reads_as_stored(name: str) -> None:
    row = GRAPHS[name]
    with ckptparse.open(row.path) as checkpoint:
        graph = checkpoint.object_graph
        assert graph is not None
        for node_id, key in graph.keys_by_node.items():
            node = graph.node(node_id)
            path = node.path
            assert path is not None
            assert f"{path}{VALUE}" == key
            if ".OPTIMIZER_SLOT" not in path:
                assert graph.find_node(path) == node
            expected.assert_matches(node.read(), row.tensors[key])
            assert node.shape == row.tensors[key].shape
            assert node.checkpoint_key == key


@pytest.mark.parametrize("name", GRAPHS)
def test_the_keys_of_no_object_are_those_that_no_attribute_has_or_begins(name: str) -> None:
    row = GRAPHS[name]
    facts = row.data["object_graph"]["nodes"]
    claimed = {key for fact in facts for _, _, key in fact.get("attributes", [])}
    with ckptparse.open(row.path) as checkpoint:
        assert checkpoint.object_graph is not None
        left = {key for key in row.tensors if not key.startswith(tuple(claimed))}
        assert set(checkpoint.object_graph.other_keys) == left


@pytest.mark.parametrize("name", GRAPHS)
def test_names_of_variables_are_unique_and_lead_to_the_same_values(name: str) -> None:
    row = GRAPHS[name]
    with ckptparse.open(row.path, naming="variable") as checkpoint:
        assert len(checkpoint) == len(row.tensors)
        assert len(set(checkpoint)) == len(checkpoint)
        assert [checkpoint[key].name for key in checkpoint] == sorted(row.tensors, key=encode_name)
        for key, tensor in checkpoint.items():
            assert tensor.shape == row.tensors[tensor.name].shape
            assert checkpoint[f"{key}:0"] is tensor
        read = checkpoint.read()
        assert list(read) == list(checkpoint)
    assert [key for key, _ in ckptparse.list_variables(row.path, naming="variable")] == list(read)


@pytest.mark.parametrize("name", GRAPHS)
def test_the_tree_shows_every_tensor_once(name: str) -> None:
    row = GRAPHS[name]
    with ckptparse.open(row.path) as checkpoint:
        shown = [
            key
            for entry in checkpoint.tree()
            for key, t in (entry.tensors or {}).items()
            if t is not None
        ]
        assert sorted(shown) == sorted(row.tensors)
        assert len(list(checkpoint.tree(everything=True))) >= len(list(checkpoint.tree()))


# Names and paths


@pytest.mark.checklist(95)
@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ("a/b/c", "a.Sb.Sc"),
        ("c/", "c.S"),
        (".S", "..S"),
        (".ATTRIBUTES/f", "..ATTRIBUTES.Sf"),
        ("x.y", "x..y"),
        ("..", "...."),
        ("", ""),
    ],
)
def test_local_names_are_escaped_as_tensorflow_escapes_them(name: str, escaped: str) -> None:
    assert escape_name(name) == escaped
    assert unescape_name(escaped) == name


@given(st.text(alphabet="./Sab", max_size=12))
def test_escaping_can_always_be_undone(name: str) -> None:
    escaped = escape_name(name)
    assert "/" not in escaped
    assert unescape_name(escaped) == name


@pytest.mark.checklist(96)
def test_a_child_may_be_called_as_the_marks_are() -> None:
    case = expected.load("objects/names_to_escape")
    with ckptparse.open(case.checkpoint.path) as checkpoint:
        graph = checkpoint.object_graph
        assert graph is not None
        keys = [node.checkpoint_key for node in graph.nodes() if node.is_variable]
        assert "..ATTRIBUTES/a/.ATTRIBUTES/VARIABLE_VALUE" in keys


@pytest.mark.checklist(97)
def test_objects_in_a_loop_are_walked_once() -> None:
    with ckptparse.open(expected.load("objects/loop").checkpoint.path) as checkpoint:
        graph = checkpoint.object_graph
        assert graph is not None
        assert len(list(graph.walk())) == graph.node_count
        assert len({node.path for node in graph.walk()}) == graph.node_count
        assert str(checkpoint.tree())


@pytest.mark.checklist(98)
def test_an_object_with_two_names_has_the_path_of_the_first() -> None:
    graph = graph_of(
        [{"children": {"b": 1, "a": 1, "c": 2}}, variable("b" + VALUE), {"children": {"d": 1}}]
    )
    assert graph["b"] == graph["a"] == graph["c"]["d"]
    assert graph["c"]["d"].path == "b"
    assert "(also a)" in str(object_tree(graph))


@pytest.mark.checklist(102)
@pytest.mark.parametrize(
    "number", range(len(expected.load("objects/root_and_attributes").checkpoints))
)
def test_the_root_may_be_any_object_with_others_beside_its_children(number: int) -> None:
    row = expected.load("objects/root_and_attributes").checkpoints[number]
    with ckptparse.open(row.path) as checkpoint:
        graph = checkpoint.object_graph
        assert graph is not None
        own = {node.checkpoint_key for node in (graph.root, *graph.values()) if node.is_variable}
        assert own <= set(checkpoint)
        assert own


@pytest.mark.checklist(106)
def test_objects_that_keep_nothing_are_left_out_of_the_tree() -> None:
    with ckptparse.open(expected.load("objects/empty_containers").checkpoint.path) as checkpoint:
        shown = {entry.node for entry in checkpoint.tree()}
        every = {entry.node for entry in checkpoint.tree(everything=True)}
        empty = {node for node in every if node is not None and node.has_checkpoint_values is False}
        assert empty
        assert shown.isdisjoint(empty)


@pytest.mark.checklist(114)
def test_what_a_registered_saver_wrote_is_told_apart() -> None:
    with ckptparse.open(expected.load("objects/registered_saver").checkpoint.path) as checkpoint:
        graph = checkpoint.object_graph
        assert graph is not None
        savers = [node.registered_saver for node in graph.nodes() if node.registered_saver]
        assert len(savers) == 1
        assert graph.other_keys
        assert "(keys of no object)" in str(checkpoint.tree())


@pytest.mark.checklist(115)
def test_a_stem_leads_to_all_tensors_under_it() -> None:
    case = expected.load("objects/iterator_and_tables")
    with ckptparse.open(case.checkpoint.path) as checkpoint:
        graph = checkpoint.object_graph
        assert graph is not None
        under = {
            attribute.name: list(graph.node(node_id).tensors)
            for node_id, attribute in graph.iter_attributes()
        }
        (table,) = {name for name in under if name == "table"}
        assert [key.rpartition("/")[2] for key in under[table]] == ["table-keys", "table-values"]
        assert [key.rpartition("/")[2] for key in under["ITERATOR"]] == ["ITERATOR_STATE"]
        node = next(n for n in graph.nodes() if "table" in n.attributes)
        with pytest.raises(TensorNotFoundError, match="keeps 2 tensors") as caught:
            node.read()
        assert caught.value.closest == tuple(node.tensors)


def test_an_object_without_a_value_says_so() -> None:
    graph = graph_of([{"children": {"a": 1}}, {}])
    with pytest.raises(TensorNotFoundError, match="keeps no tensors"):
        graph["a"].read()
    with pytest.raises(KeyError):
        graph["b"]
    assert graph.find_node("a/b") is None


def test_a_name_that_two_variables_share_is_no_name() -> None:
    graph = graph_of(
        [
            {"children": {"a": 1, "b": 2, "c": 3, "d": 4}},
            variable("a", "w"),
            variable("b", "w"),
            variable("c", "own"),
            variable("d", ""),
        ]
    )
    assert name_variables("abcd", graph.names_by_key) == {"a": "a", "b": "b", "own": "c", "d": "d"}


def test_a_name_that_is_another_tensors_key_is_not_taken() -> None:
    assert name_variables(["a", "b"], {"a": "b"}) == {"a": "a", "b": "b"}
    assert name_variables(["a", "b"], {"a": "b", "b": "a"}) == {"a": "a", "b": "b"}
    assert name_variables(["a", "b"], {"a": "a", "b": "c"}) == {"a": "a", "c": "b"}


@given(
    st.lists(st.sampled_from("abcdef"), unique=True),
    st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("abcdefgh"), max_size=6),
)
def test_chosen_names_are_unique_and_lead_to_every_tensor(
    stored: list[str], names: dict[str, str]
) -> None:
    unique = {key: name for key, name in names.items() if list(names.values()).count(name) == 1}
    chosen = name_variables(stored, unique)
    assert list(chosen.values()) == stored


# Step


@pytest.mark.parametrize(
    ("case", "step"),
    [
        ("objects/keras3_optimizer", 3),
        ("objects/keras2_legacy_optimizer", 3),
        ("objects/keras2_optimizer", 3),
        ("objects/write", None),
    ],
)
def test_the_step_is_that_of_the_optimizer(case: str, step: int | None) -> None:
    with ckptparse.open(expected.load(case).checkpoint.path) as checkpoint:
        assert checkpoint.step == step


def test_the_step_of_a_plain_checkpoint_is_its_save_counter() -> None:
    for number, row in enumerate(expected.load("objects/nested").checkpoints, start=1):
        with ckptparse.open(row.path) as checkpoint:
            assert checkpoint.step == number


def test_the_step_of_a_name_based_checkpoint_is_its_global_step() -> None:
    for row in expected.load("saver/scopes").checkpoints:
        with ckptparse.open(row.path) as checkpoint:
            assert checkpoint.step == int(checkpoint["global_step"].read()[()])
    with ckptparse.open(expected.load("saver/my_model").checkpoint.path) as checkpoint:
        assert checkpoint.step is None


# Name-based checkpoints


def test_a_name_based_checkpoint_has_scopes_and_no_objects() -> None:
    row = expected.load("saver/scopes").checkpoints[0]
    with ckptparse.open(row.path) as checkpoint:
        assert checkpoint.object_graph is None
        assert checkpoint.optimizer is None
        assert checkpoint.layers_source == "names"
        by_name = {layer.name: layer for layer in checkpoint.layers}
        np.testing.assert_array_equal(
            by_name["scope1"].get_weights()[0], checkpoint["scope1/weights"].read()
        )
        names = [entry.name for entry in checkpoint.tree() if entry.depth == 0]
        assert names == ["global_step", "scope1", "scope2"]
        assert "weights" in str(checkpoint.tree())
    with ckptparse.open(row.path, naming="variable") as checkpoint:
        assert list(checkpoint) == sorted(row.tensors, key=encode_name)


# Graphs that lie


@pytest.mark.parametrize("node_id", [2, -1, -(2**31), 2**31 - 1])
def test_a_child_that_is_not_there_is_malformed(node_id: int) -> None:
    graph = graph_of([{"children": {"a": 1, "b": node_id}}, {}])
    assert graph["a"].node_id == 1
    for ask in (
        lambda: graph["b"],
        lambda: graph.root.children,
        lambda: list(graph.walk()),
        lambda: graph["a"].path,
        lambda: str(object_tree(graph)),
    ):
        with pytest.raises(MalformedError, match=f"found node {node_id}"):
            ask()


@pytest.mark.parametrize("slot", [(7, "m", 1), (1, "m", 7), (-1, "m", 1)])
def test_a_slot_that_is_not_there_is_malformed(slot: tuple[int, str, int]) -> None:
    graph = graph_of([{"children": {"a": 1, "o": 2}}, variable("a"), {"slots": [slot]}])
    with pytest.raises(MalformedError):
        _ = graph["o"].slot_variables
    with pytest.raises(MalformedError):
        _ = graph["a"].path


def test_a_graph_without_nodes_has_no_root() -> None:
    with pytest.raises(MalformedError, match="one of 0 nodes"):
        _ = ObjectGraph.from_bytes(b"").root


def test_slots_of_slots_and_optimizers_that_are_slots_end() -> None:
    graph = graph_of(
        [
            {"children": {"v": 1}},
            variable("v"),
            {"slots": [(1, "m", 3), (3, "n", 2)]},
            {"slots": [(1, "m", 2), (2, "n", 3)]},
        ]
    )
    assert [node.path for node in graph.nodes()] == [
        "",
        "v",
        "v/.OPTIMIZER_SLOT/m",
        "v/.OPTIMIZER_SLOT/m",
    ]
    assert str(object_tree(graph))
    assert find_optimizers(graph) == []


def timed(limit: float, what: Any) -> Any:
    start = time.process_time()
    found = what()
    assert time.process_time() - start < limit
    return found


def test_a_chain_of_forty_thousand_objects_is_no_recursion_and_no_blow_up() -> None:
    length = 40_000
    rows: list[dict[str, Any]] = [{"children": {"c": index + 1}} for index in range(length)]
    rows.append(variable("deep"))
    graph = graph_of(rows)
    assert timed(10, lambda: len(list(graph.walk()))) == length + 1
    assert timed(10, lambda: graph.node(length).path) == "/".join("c" * length)
    assert timed(10, lambda: graph.path_of(length, at_most=2)) == ".../c/c"
    text = timed(10, lambda: str(object_tree(graph)))
    assert len(text) < 10_000
    assert text.endswith("...")
    assert "..." in repr(graph.node(length))
    assert timed(20, lambda: find_optimizers(graph)) == []


def test_a_chain_of_variables_costs_no_path_for_each() -> None:
    from ckptparse.graph.layers import find_layers

    length = 10_000
    rows: list[dict[str, Any]] = [
        {"children": {"0": index + 1, "1": length + 1 + index}} for index in range(length)
    ]
    rows.append({})
    rows += [{"children": {"v": 2 * length + 1 + index}} for index in range(length)]
    rows += [variable(f"v{index}") for index in range(length)]
    graph = graph_of(rows)
    graph.limits = replace(MANY, steps=100_000)
    layers, _ = timed(20, lambda: find_layers(graph))
    assert len(layers) == length
    assert max(len(layer.name) for layer in layers) < 100


def test_long_names_are_not_copied_into_the_path_of_each_layer_below() -> None:
    count = 20
    rows: list[dict[str, Any]] = [{"children": {"a" * 100_000: 1}}]
    rows.append({"children": {f"layer-{i}": i + 2 for i in range(count)}})
    rows += [{"children": {"kernel": count + 2 + i}} for i in range(count)]
    rows += [{"attributes": [("VARIABLE_VALUE", "", f"k{i}")]} for i in range(count)]
    graph = graph_of(rows)
    layers, _ = find_layers(graph)
    assert [layer.name for layer in layers] == [f".../layer-{i}" for i in range(count)]
    assert layers[0].path == "a" * 100_000 + "/layer-0"


def test_layers_that_share_all_they_have_are_refused() -> None:
    from ckptparse.graph.layers import find_layers

    count = 3000
    rows: list[dict[str, Any]] = [{"children": {f"layer-{i}": i + 1 for i in range(count)}}]
    rows += [{"children": {"x": count + 1}} for _ in range(count)]
    rows += [{"children": {"x": count + 2 + index}} for index in range(count)]
    rows.append(variable("v"))
    with pytest.raises(LimitError):
        find_layers(graph_of(rows))


def test_a_million_nodes_are_walked_in_seconds() -> None:
    # The runtime in plain Python is slow with any number.
    count = 1_000_000 if api_implementation.Type() == "upb" else 50_000
    child = b"\x0a\x03\x12\x01a"  # a child "a", node 0
    data = (b"\x0a" + bytes([len(child)]) + child) * count
    graph = ObjectGraph.from_bytes(data, limits=MANY)
    assert graph.node_count == count
    assert timed(60, lambda: len(list(graph.walk()))) == 1
    assert graph.other_keys == ()


def test_the_size_of_a_graph_is_bounded() -> None:
    with pytest.raises(LimitError, match="message_bytes"):
        ObjectGraph.from_bytes(bytes(200), limits=Limits(message_bytes=100))


def checkpoint_of(directory: Path, rows: Sequence[Mapping[str, Any]], padding: int) -> str:
    bundle = builder.Bundle()
    bundle.add("v", np.zeros(padding, np.uint8))
    bundle.add_strings(builder.OBJECT_GRAPH, [graph_of(rows).serialized], ())
    return str(bundle.write(directory / "m"))


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([{}] * 250, id="objects"),
        pytest.param([{"children": {str(n): 0 for n in range(1000)}}], id="children"),
        pytest.param([{"attributes": [("a", "", "k")] * 1000}], id="attributes"),
        pytest.param([{"slots": [(0, "m", 0)] * 1000}], id="slots"),
    ],
)
def test_a_graph_has_no_more_objects_than_its_files_allow(
    rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    few = Limits(objects=200)
    path = checkpoint_of(tmp_path, rows, 1000)
    with ckptparse.open(path, limits=few) as checkpoint:
        with pytest.raises(LimitError, match="objects") as caught:
            _ = checkpoint.object_graph
        assert caught.value.limit == "objects"
        assert list(checkpoint) == ["v"], "tensors are read without it"
    for limits, padding in ((Limits(objects=250), 1000), (few, 50 * 512)):
        path = checkpoint_of(tmp_path, rows, padding)
        with ckptparse.open(path, limits=limits) as checkpoint:
            assert checkpoint.object_graph is not None


def small_graph() -> bytes:
    path = expected.load("objects/keras2_legacy_optimizer").checkpoint.path
    with ckptparse.open(path) as checkpoint:
        assert checkpoint.object_graph is not None
        return checkpoint.object_graph.serialized


def use(data: bytes) -> None:
    """Ask everything of a graph that may be damaged."""
    from ckptparse.graph.layers import find_layers

    graph = ObjectGraph.from_bytes(data)
    str(object_tree(graph, everything=True))
    find_layers(graph)
    for optimizer in find_optimizers(graph):
        _ = list(optimizer.slots), list(optimizer.tensors)
    _ = graph.names_by_key, graph.other_keys
    for node in graph.nodes():
        _ = node.path, node.children, node.slot_variables, node.registered_saver


def test_a_damaged_graph_gives_answers_or_an_error_of_ours() -> None:
    data = small_graph()
    for size in range(0, len(data), 11):
        check(data[:size])
    for index in range(0, len(data), 3):
        damaged = bytearray(data)
        damaged[index] ^= 1 << index % 8
        check(bytes(damaged))


def check(data: bytes) -> None:
    try:
        use(data)
    except CheckpointError:
        return


def test_names_that_a_terminal_would_act_on_are_escaped_in_the_tree() -> None:
    graph = graph_of([{"children": {"a\x1b[2J\n": 1}}, variable("k", "n\x07")])
    text = str(object_tree(graph))
    assert text.isprintable()
    assert "a\\x1b[2J\\n" in text


# Costs


class Watched:
    """A node's message that counts how often its children are walked."""

    walks = 0

    def __init__(self, message: Any) -> None:
        self._message = message

    def __getattr__(self, name: str) -> Any:
        Watched.walks += name == "children"
        return getattr(self._message, name)


def test_the_children_of_an_object_are_decoded_once_for_all_that_look_at_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    message = TrackableObjectGraph()
    root = message.nodes.add()
    for number in range(1, 200):
        root.children.add(node_id=number, local_name=f"v{number}")
        node = message.nodes.add()
        node.children.add(node_id=0, local_name="root")
        node.attributes.add(name="VARIABLE_VALUE", checkpoint_key=f"v{number}/.ATTRIBUTES/V")
    graph = ObjectGraph([Watched(node) for node in message.nodes])
    monkeypatch.setattr(Watched, "walks", 0)
    for number in range(1, 200):
        assert graph[f"v{number}"].get("root") == graph.root
    for _ in range(3):
        assert find_optimizers(graph) == []
        assert find_layers(graph)[0] is not None
        assert str(object_tree(graph)).count("\n") == 198
    assert Watched.walks < 5 * 200


def test_a_tree_that_is_printed_is_made_no_deeper_than_it_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    message = TrackableObjectGraph()
    for number in range(500):
        message.nodes.add().children.add(node_id=number + 1, local_name="a")
    message.nodes.add().attributes.add(name="VARIABLE_VALUE", checkpoint_key="k")
    graph = ObjectGraph(message.nodes)
    made = []
    entry = tree._entry
    monkeypatch.setattr(tree, "_entry", lambda *args: made.append(1) or entry(*args))
    assert str(object_tree(graph)).endswith("...")
    assert len(made) < 50
    assert len(list(object_tree(graph))) == 500


def test_small_objects_that_share_much_meet_a_limit_in_the_search_for_layers() -> None:
    message = TrackableObjectGraph()
    for number in range(20_000):
        message.nodes.add().children.add(node_id=number + 1, local_name="a")
    message.nodes.add().attributes.add(name="VARIABLE_VALUE", checkpoint_key="k")
    graph = ObjectGraph.from_bytes(message.SerializeToString(), limits=MANY)
    search = LayerSearch(graph)
    assert search._left < 16 * graph.node_count


def sharing_optimizers(count: int) -> TrackableObjectGraph:
    """Optimizers of Keras 3 that all share one long list of variables."""
    message = TrackableObjectGraph()
    root, variable, listed = message.nodes.add(), message.nodes.add(), message.nodes.add()
    variable.attributes.add(name="VARIABLE_VALUE", checkpoint_key="k")
    for number in range(count):
        listed.children.add(node_id=1, local_name=str(number))
        root.children.add(node_id=3 + number, local_name=f"o{number}")
        optimizer = message.nodes.add()
        for name in ("_trainable_variables", "_variables", "_iterations", "_momentums"):
            optimizer.children.add(node_id=2, local_name=name)
    return message


def test_optimizers_that_share_their_variables_meet_a_limit() -> None:
    few = ObjectGraph.from_bytes(sharing_optimizers(20).SerializeToString())
    assert [len(optimizer.slot_nodes) for optimizer in find_optimizers(few)] == [1] * 20
    many = ObjectGraph.from_bytes(sharing_optimizers(1000).SerializeToString())
    with pytest.raises(LimitError, match="for the optimizers of a model") as caught:
        _ = [optimizer.slot_nodes for optimizer in find_optimizers(many)]
    assert caught.value.limit == "steps"
    data = sharing_optimizers(100).SerializeToString()
    with pytest.raises(LimitError, match="steps allows 100"):
        _ = [
            item.slot_nodes
            for item in find_optimizers(ObjectGraph.from_bytes(data, limits=Limits(steps=100)))
        ]
    more = ObjectGraph.from_bytes(data, limits=Limits(steps=1_000_000))
    assert len([optimizer.slot_nodes for optimizer in find_optimizers(more)]) == 100


def test_more_optimizers_than_any_model_has_meet_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 2000
    rows: list[dict[str, Any]] = [{"children": {f"o{index}": index + 1 for index in range(count)}}]
    rows += [{"children": {"iter": count + 1, "learning_rate": count + 1}} for _ in range(count)]
    graph = graph_of([*rows, variable("v")])
    # None of them is made.
    monkeypatch.setattr("ckptparse.graph.optimizer.ObjectOptimizer", None)
    for _ in range(2):
        with pytest.raises(LimitError, match=r"optimizers of a model .* Limits.steps"):
            find_optimizers(graph)


def test_what_optimizers_keep_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = ObjectGraph.from_bytes(sharing_optimizers(5).SerializeToString())
    first = [(item.slot_nodes, item.nodes) for item in find_optimizers(graph)]
    monkeypatch.setattr(graph, "follow", None)
    assert [(item.slot_nodes, item.nodes) for item in find_optimizers(graph)] == first
