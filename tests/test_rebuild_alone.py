"""A data file of TensorFlow 2 alone, or with what is left of its index: what its graph tells."""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path
from typing import Any

import builder
import numpy as np
import numpy.typing as npt
import pytest

import ckptparse
from ckptparse.files.memory import MemorySource
from ckptparse.graph.object_graph import ObjectGraph
from ckptparse.problems import EvidenceRule
from ckptparse.proto.trackable_object_graph_pb2 import TrackableObjectGraph
from ckptparse.recovery.rebuild import states
from ckptparse.recovery.rebuild.counted import find_last_strings
from ckptparse.recovery.rebuild.inner_strings import LARGEST, find_inner_strings
from ckptparse.recovery.rebuild.items import iter_items
from ckptparse.recovery.rebuild.names import nearest_name
from ckptparse.recovery.rebuild.pairs import Pair, find_pairs
from ckptparse.recovery.rebuild.states import find_states

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
Floats = npt.NDArray[np.float32]


class Adam:
    """Variables and their slots after some steps of training, as Keras 3 stores them."""

    def __init__(self, shapes: list[tuple[str, tuple[int, ...]]], seed: int = 0) -> None:
        self.shapes = shapes
        self.rng = np.random.default_rng(seed)
        self.arrays: dict[str, Any] = {}
        self.graph = TrackableObjectGraph()
        self._make()

    def _make(self) -> None:
        names = [name for name, _ in self.shapes]
        self._node(save_counter=3, optimizer=1, model=2)
        pairs = range(8, 8 + 2 * len(names))
        variables = range(pairs.stop, pairs.stop + len(names))
        self._node(_iterations=4, _variables=5, _trainable_variables=6, _momentums=7, _velocities=7)
        layers = sorted({name.partition("/")[0] for name in names})
        first_layer = variables.stop + 2
        self._node(**{layer: first_layer + n for n, layer in enumerate(layers)})
        self._variable("save_counter", "save_counter", np.array(9))
        self._variable("optimizer/_iterations", "adam/iteration", np.array(12_345))
        self._node(**{str(n + 2): number for n, number in enumerate(pairs)})
        self._node(**{str(n): number for n, number in enumerate(variables)})
        self._node()
        for number, (name, shape) in enumerate(self.shapes):
            for offset, value in enumerate(self._slots(shape)):
                place = f"optimizer/_variables/{2 * number + offset + 2}"
                self._variable(place, f"adam/{name}_{offset}", value)
        for number, (name, shape) in enumerate(self.shapes):
            value = self.rng.normal(0, 0.05, shape).astype("<f4")
            self._variable(f"optimizer/_trainable_variables/{number}", name, value)
        message = self.graph.nodes[1]
        del message.children[3:]
        for n, local in enumerate(("_momentums", "_velocities")):
            child = message.children.add()
            child.local_name, child.node_id = local, variables.stop + n
            self._node(**{str(i): pairs[2 * i + n] for i in range(len(names))})
        for layer in layers:
            inside = {
                n.partition("/")[2]: i for i, n in enumerate(names) if n.startswith(layer + "/")
            }
            self._node(**{local: variables[i] for local, i in inside.items()})

    def _slots(self, shape: tuple[int, ...]) -> list[Floats]:
        scale = 10.0 ** self.rng.uniform(-5, -2, shape[-1:])
        mean, square = np.zeros(shape), np.zeros(shape)
        for _ in range(20):
            gradient = self.rng.normal(0, 1, shape) * scale
            mean = 0.9 * mean + 0.1 * gradient
            square = 0.999 * square + 0.001 * gradient**2
        return [mean.astype("<f4"), square.astype("<f4")]

    def _node(self, **children: int) -> Any:
        node = self.graph.nodes.add()
        for name, number in children.items():
            child = node.children.add()
            child.local_name, child.node_id = name, number
        return node

    def _variable(self, path: str, full_name: str, value: Any) -> None:
        attribute = self._node().attributes.add()
        attribute.name, attribute.full_name = "VARIABLE_VALUE", full_name
        attribute.checkpoint_key = path + VALUE
        self.arrays[path + VALUE] = np.asarray(value)

    def write(self, prefix: Path) -> dict[str, tuple[int, int]]:
        """Write a checkpoint; return offset and elements of each tensor."""
        made = builder.Bundle()
        places = {}
        offset = 0
        for name, array in self.arrays.items():
            made.add(name, array)
            places[name] = offset, array.size
            offset += array.nbytes
        made.add(GRAPH, np.array(self.graph.SerializeToString(), object))
        made.write(prefix)
        return places


def layers(count: int, widths: tuple[int, ...] = (64, 48, 33)) -> list[tuple[str, tuple[int, ...]]]:
    found: list[tuple[str, tuple[int, ...]]] = [("table/embeddings", (500, 32))]
    last = 32
    for number in range(count):
        width = widths[number % len(widths)]
        found.append((f"dense_{number}/kernel", (last, width)))
        found.append((f"dense_{number}/bias", (width,)))
        last = width
    return found


def places_of(recovery: ckptparse.Recovery) -> dict[str, tuple[int, int]]:
    found = {}
    for name, tensor in recovery.items():
        assert tensor.source is not None
        found[name] = tensor.source.offset, math.prod(tensor.shape)
    return found


# ------------------------------------------------------------------------- the data file alone


@pytest.mark.parametrize("case", ["keras3_optimizer", "tf1_optimizer", "manager"])
def test_a_data_file_alone_gives_names_and_sizes(case: str, fixtures: Path, tmp_path: Path) -> None:
    original = max((fixtures / "objects" / case).glob("*.index")).with_suffix("")
    prefix = tmp_path / original.name
    data = original.with_name(f"{original.name}.data-00000-of-00001")
    shutil.copy(data, tmp_path)
    recovery = ckptparse.recover(prefix)
    expected = ckptparse.read(original)
    assert set(recovery) == set(expected)
    for name, value in expected.items():
        assert recovery[name].status == "unverified"
        assert recovery[name].read().tobytes() == value.tobytes()
        assert "guess" in recovery[name].note
    assert recovery.object_graph is not None


def test_a_large_model_gives_its_sizes(tmp_path: Path) -> None:
    places = Adam(layers(12)).write(tmp_path / "model")
    (tmp_path / "model.index").unlink()
    found = places_of(ckptparse.recover(tmp_path / "model"))
    right = sum(found.get(name) == place for name, place in places.items())
    assert right == len(places) == 77


def test_every_rule_that_was_used_is_in_the_evidence(tmp_path: Path) -> None:
    Adam(layers(2)).write(tmp_path / "model")
    (tmp_path / "model.index").unlink()
    recovery = ckptparse.recover(tmp_path / "model")
    rules = {
        "save_counter": [EvidenceRule.COUNTER_SIZE],
        "optimizer/_variables/2": [EvidenceRule.PAIRS, EvidenceRule.SLOT_SIZE],
        "optimizer/_trainable_variables/0": [EvidenceRule.PAIRS, EvidenceRule.SLOT_SIZE],
    }
    for name, used in rules.items():
        found = [record.rule for record in recovery[name + VALUE].evidence]
        assert found[:2] == [EvidenceRule.OBJECT_GRAPH, EvidenceRule.GUESSED_SIZES]
        assert found[2 : 2 + len(used)] == used


def test_a_state_of_pythons_own_is_found_by_its_length(fixtures: Path, tmp_path: Path) -> None:
    shutil.copy(fixtures / "objects/python_state/model.data-00000-of-00001", tmp_path)
    recovery = ckptparse.recover(tmp_path / "model")
    (name,) = recovery
    expected = ckptparse.read(fixtures / "objects/python_state/model")[name]
    assert name == "counter/.ATTRIBUTES/py_state"
    assert recovery[name].read().item() == expected.item()
    assert EvidenceRule.STRING_SIZE in [one.rule for one in recovery[name].evidence]


def test_strings_of_a_variable_are_known_by_the_checksum_of_their_lengths(
    fixtures: Path, tmp_path: Path
) -> None:
    """Nothing in the graph says that they are strings. One variable is the first, one the last."""
    original = fixtures / "objects/keras3_strings/ckpt"
    recovery = ckptparse.recover(copy_data(original, tmp_path))
    expected = ckptparse.read(original)
    words = [name for name, value in expected.items() if value.dtype == object]
    assert len(words) == 2 and sorted(expected[name].size for name in words) == [1, 3]
    for name in words:
        assert recovery[name].read().tolist() == expected[name].tolist()
        assert EvidenceRule.STRING_SIZE in [one.rule for one in recovery[name].evidence]
    # A kernel of 3 elements and a bias of 1 may be 2 and 2: nothing tells that.
    sure = [name for name, value in expected.items() if value.size > 3 and name not in words]
    assert len(sure) == 3
    for name in sure:
        assert recovery[name].read().tobytes() == expected[name].tobytes()
    assert set(recovery) == set(expected)


STRINGS = [[b"one"], [b"a", b"", b"ccc"], [b"", b""], [b"long " * 40, b"x" * 20_000, b"y"]]


@pytest.mark.parametrize("strings", STRINGS)
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("counted", [True, False])
def test_strings_beside_weights_leave_them_their_bytes(
    strings: list[bytes], first: bool, counted: bool, tmp_path: Path
) -> None:
    words = np.array(strings, object)
    weights = np.random.default_rng(2).normal(0, 0.05, 1000).astype("<f4")
    values = [("words", words), ("weights", weights)][:: 1 if first else -1]
    message = TrackableObjectGraph()
    root, made = message.nodes.add(), builder.Bundle()
    counter = [("save_counter", np.array(3))] if counted else []
    for number, (name, value) in enumerate([*counter, *values] if first else [*values, *counter]):
        child = root.children.add()
        child.node_id, child.local_name = number + 1, name
        attribute = message.nodes.add().attributes.add()
        attribute.name, attribute.checkpoint_key = "VARIABLE_VALUE", name + VALUE
        made.add(name + VALUE, value)
    made.add(GRAPH, np.array(message.SerializeToString(), object))
    made.write(tmp_path / "ckpt")
    (tmp_path / "ckpt.index").unlink()
    recovery = ckptparse.recover(tmp_path / "ckpt")
    assert np.ravel(recovery["words" + VALUE].read()).tolist() == strings
    assert recovery["weights" + VALUE].read().tobytes() == weights.tobytes()
    assert recovery["words" + VALUE].status == "unverified"


def lost_index(
    directory: Path, values: list[tuple[str, str, Any]], **options: Any
) -> ckptparse.Recovery:
    """Get back a data file alone: variables by their keys' first parts, attributes and values."""
    message = TrackableObjectGraph()
    root, made = message.nodes.add(), builder.Bundle()
    for name, attribute, value in values:
        stem = f"{name}/.ATTRIBUTES/{attribute}"
        if not name.endswith("#"):
            child = root.children.add()
            child.node_id, child.local_name = len(message.nodes), name
            added = message.nodes.add().attributes.add()
            added.name, added.checkpoint_key = attribute, stem
        for suffix, array in value.items() if isinstance(value, dict) else [("", value)]:
            if isinstance(array, list):
                made.add_variants(stem + suffix, array, (len(array),))
            else:
                made.add(stem + suffix, array)
    made.add(GRAPH, np.array(message.SerializeToString(), object))
    made.write(directory / "ckpt")
    (directory / "ckpt.index").unlink()
    return ckptparse.recover(directory / "ckpt", **options)


def weights_of(count: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(count).normal(0, 0.05, count).astype("<f4")


def test_strings_between_weights_of_unknown_sizes_are_found(tmp_path: Path) -> None:
    words = np.array([b"one word", b"", b"another"], object)
    trained = [("a", weights_of(700)), ("words", words), ("z", weights_of(900))]
    recovery = lost_index(tmp_path, [(name, "VARIABLE_VALUE", value) for name, value in trained])
    assert recovery["words" + VALUE].read().tolist() == words.tolist()
    for name in ("a", "z"):
        assert recovery[name + VALUE].read().tobytes() == dict(trained)[name].tobytes()


def test_strings_that_one_of_several_variables_may_hold_are_none_of_them(tmp_path: Path) -> None:
    words = np.array([b"one word", b"", b"another"], object)
    values = [("a", weights_of(70)), ("b", weights_of(90)), ("words", words), ("z", weights_of(9))]
    recovery = lost_index(tmp_path, [(name, "VARIABLE_VALUE", value) for name, value in values])
    assert not [name for name in recovery if name.endswith(VALUE)]


@pytest.mark.parametrize("count", [0, 1, 30])
def test_the_tensors_of_a_table_and_those_around_it_are_found(tmp_path: Path, count: int) -> None:
    keys = np.array([b"word %d" % number for number in range(count)], object)
    table = {"-keys": keys, "-values": np.arange(count, dtype="<i8")}
    values = [
        ("a", "VARIABLE_VALUE", weights_of(700)),
        ("lookup", "table", table),
        ("z", "VARIABLE_VALUE", weights_of(900)),
    ]
    recovery = lost_index(tmp_path, values)
    assert recovery["a" + VALUE].read().tobytes() == weights_of(700).tobytes()
    assert recovery["z" + VALUE].read().tobytes() == weights_of(900).tobytes()
    assert recovery["lookup/.ATTRIBUTES/table-keys"].read().tolist() == keys.tolist()
    found = recovery["lookup/.ATTRIBUTES/table-values"].read()
    assert found.tolist() == list(range(count))
    assert {str(one.status) for one in recovery.values()} == {"unverified"}


def test_shapes_without_the_keys_of_a_table_leave_these_to_their_lengths(tmp_path: Path) -> None:
    """Formats that hold no strings, safetensors say, give the shapes of all else."""
    keys = np.array([b"one", b"two words", b"3"], object)
    values = [
        ("lookup", "table", {"-keys": keys, "-values": np.arange(3, dtype="<i8")}),
        ("a", "VARIABLE_VALUE", weights_of(30)),
        ("b", "VARIABLE_VALUE", weights_of(40)),
    ]
    shapes = {
        "lookup/.ATTRIBUTES/table-values": {"dtype": "int64", "shape": [3]},
        "a" + VALUE: [5, 6],
        "b" + VALUE: [40],
    }
    recovery = lost_index(tmp_path, values, shapes=shapes)
    assert recovery["lookup/.ATTRIBUTES/table-keys"].read().tolist() == keys.tolist()
    assert recovery["lookup/.ATTRIBUTES/table-values"].read().tolist() == [0, 1, 2]
    assert recovery["a" + VALUE].read().tobytes() == weights_of(30).tobytes()
    assert recovery["b" + VALUE].read().tobytes() == weights_of(40).tobytes()


def rules_of(tensor: ckptparse.RecoveredTensor) -> list[str]:
    return [str(record.rule) for record in tensor.evidence]


def test_what_gave_a_size_is_in_the_evidence_if_shapes_are_given(tmp_path: Path) -> None:
    values = [
        ("a", "VARIABLE_VALUE", weights_of(30)),
        ("save_counter", "VARIABLE_VALUE", np.int64(3)),
        ("b", "VARIABLE_VALUE", weights_of(40)),
        ("words", "VARIABLE_VALUE", np.array([b"some", b"words"], object)),
    ]
    shapes = {"a": [5, 6], "words": {"dtype": "string", "shape": [2]}}
    recovery = lost_index(tmp_path, values, shapes=shapes)
    found = {name.partition("/")[0]: rules_of(one) for name, one in recovery.items()}
    assert found == {
        "a": ["object graph", "given shapes", "place"],
        "save_counter": ["object graph", "size of a counter", "place"],
        "b": ["object graph", "rest", "place"],
        "words": ["object graph", "given shapes", "size of a string", "place"],
    }
    assert recovery["b" + VALUE].read().tobytes() == weights_of(40).tobytes()


def test_a_state_of_pythons_own_is_no_weights_if_shapes_are_given(tmp_path: Path) -> None:
    state = np.array(b"a few bytes", object)  # With their length and its checksum 16 bytes.
    values = [("a", "VARIABLE_VALUE", weights_of(30)), ("own", "py_state", state)]
    recovery = lost_index(tmp_path, values, shapes={"a": [30]})
    assert recovery["own/.ATTRIBUTES/py_state"].read()[()] == state[()]
    assert recovery["a" + VALUE].read().tobytes() == weights_of(30).tobytes()


@pytest.mark.parametrize("start", ["step_counter", "loss_scale/good_steps"])
def test_what_scales_the_loss_is_a_counter_and_a_number(start: str, tmp_path: Path) -> None:
    """Of Keras 3, which keeps both in the optimizer, and of Keras 2."""
    model = Adam(layers(2))
    held, _, steps = start.rpartition("/")
    scale = "current_loss_scale" if held else "dynamic_scale"
    owner = model.graph.nodes[1]
    if held:
        child = owner.children.add()
        child.local_name, child.node_id = held, len(model.graph.nodes)
        owner = model._node()
    for name, value in {steps: np.int64(56), scale: np.float32(32768)}.items():
        child = owner.children.add()
        child.local_name, child.node_id = name, len(model.graph.nodes)
        path = f"optimizer/{held}/{name}" if held else f"optimizer/{name}"
        model._variable(path, name, value)
    model.write(tmp_path / "model")
    (tmp_path / "model.index").unlink()
    recovery = ckptparse.recover(tmp_path / "model")
    assert {name for name in recovery if name != GRAPH} == set(model.arrays)
    for name, array in model.arrays.items():
        assert recovery[name].read().tobytes() == array.tobytes(), name


def test_shapes_of_another_model_take_nothing_away(tmp_path: Path) -> None:
    model = Adam(layers(3))
    model.write(tmp_path / "model")
    (tmp_path / "model.index").unlink()
    recovery = ckptparse.recover(tmp_path / "model", shapes={"dense_0/kernel": [31, 17]})
    assert "shapes.unused" in {problem.code for problem in recovery.report.problems}
    for name, array in model.arrays.items():
        assert recovery[name].read().tobytes() == array.tobytes(), name


def state_of(count: int) -> list[bytes]:
    """Return the variants of an iterator's state; the longest has a length of two bytes."""
    kind = "tensorflow::Iterator"
    return [builder.variant_proto(kind, b"Iterator::Root@" * (n + 1)) for n in range(count)]


@pytest.mark.parametrize("counts", [(1,), (16,), (3, 9)])
def test_states_of_iterators_and_the_tensors_around_them_are_found(
    counts: tuple[int, ...], tmp_path: Path
) -> None:
    values: list[tuple[str, str, Any]] = [("a", "VARIABLE_VALUE", weights_of(700))]
    for number, count in enumerate(counts):
        values.append((f"it{number}", "ITERATOR", {"_STATE": state_of(count)}))
    values.append(("z", "VARIABLE_VALUE", weights_of(900)))
    recovery = lost_index(tmp_path, values)
    assert recovery["a" + VALUE].read().tobytes() == weights_of(700).tobytes()
    assert recovery["z" + VALUE].read().tobytes() == weights_of(900).tobytes()
    for number, count in enumerate(counts):
        found = recovery[f"it{number}/.ATTRIBUTES/ITERATOR_STATE"].read()
        assert [one.metadata for one in found] == [
            b"Iterator::Root@" * (n + 1) for n in range(count)
        ]
    assert {str(one.status) for one in recovery.values()} == {"unverified"}


def test_states_of_which_one_is_damaged_are_not_placed(tmp_path: Path) -> None:
    good, bad = state_of(3), state_of(3)
    data = b"".join(builder.variant_payload(one)[0] for one in (good, bad))
    assert [(at, one.count) for at, one in find_states(MemorySource("x", data), 0, len(data))] == [
        (0, 3),
        (len(data) // 2, 3),
    ]
    changed = bytearray(data)
    changed[len(data) // 2 + 30] ^= 1
    found = find_states(MemorySource("x", bytes(changed)), 0, len(data))
    # What follows the damaged variant goes on from a checksum that nothing gives.
    assert [(at, one.count) for at, one in found] == [(0, 3)]


def test_states_that_are_more_than_the_graph_names_are_not_placed(tmp_path: Path) -> None:
    values = [
        ("a", "VARIABLE_VALUE", weights_of(700)),
        ("it", "ITERATOR", {"_STATE": state_of(3)}),
        ("other#", "ITERATOR", {"_STATE": state_of(3)}),  # The graph does not name this one.
        ("z", "VARIABLE_VALUE", weights_of(900)),
    ]
    recovery = lost_index(tmp_path, values)
    assert len(recovery) == 0
    assert {str(one.status) for one in recovery.report.tensors.values()} == {"missing"}


@pytest.mark.parametrize("size", [1, 100, 300, 20_000, 3_000_000])
def test_a_state_is_found_whatever_its_length(size: int) -> None:
    one = builder.variant_proto("tensorflow::Iterator", b"x" * size)
    data, crc = builder.variant_payload([one])
    raw = b"before" + data + b"behind"
    ((at, found),) = find_states(MemorySource("x", raw), 0, len(raw))
    assert (at, found.count, found.size, builder.mask(found.crc)) == (6, 1, len(data), crc)


def test_a_thousand_files_that_name_the_type_of_a_state_hold_none() -> None:
    rng = np.random.default_rng(9)
    for _ in range(1000):
        data = bytearray(rng.bytes(3000))
        for at in rng.integers(5, 2900, 5).tolist():
            # Its length is one that fits, as it would be.
            data[at - 2 : at + 22] = (
                builder.varint(int(rng.integers(128, 900)), width=2)
                + (b"\n\x14tensorflow::Iterator"[:22])
            )
        assert find_states(MemorySource("x", bytes(data)), 0, len(data)) == []


def test_states_that_say_any_length_are_sought_in_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[int] = []

    def count(data: bytes, running: int = 0) -> int:
        read.append(len(data))
        return builder.crc(data, running)

    monkeypatch.setattr(states, "crc32c", count)
    head = b"\n\x14tensorflow::Iterator"
    # Each says that it is as long as half the file.
    data = (builder.varint(13_000, width=3) + head) * 1000
    assert find_states(MemorySource("x", data), 0, len(data)) == []
    assert len(data) < sum(read) < 5 * len(data)


def test_a_saved_vocabulary_does_not_hide_the_weights(fixtures: Path, tmp_path: Path) -> None:
    original = fixtures / "roles/lookup/model"
    recovery = ckptparse.recover(copy_data(original, tmp_path))
    expected = ckptparse.read(original)
    assert len(recovery) == len(expected) == 3
    for name, value in expected.items():
        assert np.ravel(recovery[name].read()).tolist() == value.ravel().tolist()


def test_strings_within_a_file_are_found_and_hardly_anything_else() -> None:
    rng = np.random.default_rng(8)
    for number in range(100):
        lengths = (10 ** rng.uniform(0.3, 2.5, rng.integers(1, 60))).astype(int)
        made = builder.Bundle()
        made.add("w", np.array([b"words of text " * 30, *(b"x" * one for one in lengths)], object))
        parts = [weights_of(int(one)).tobytes() for one in rng.integers(1, 5000, 2)]
        data = parts[0] + bytes(made.shards[0]) + parts[1]
        found = find_inner_strings(MemorySource("x", data), 0, len(data))
        assert [(at, one.count) for at, one in found] == [(len(parts[0]), len(lengths) + 1)], number
        noise = MemorySource("x", parts[0] + parts[1])
        assert find_inner_strings(noise, 0, noise.size) == []


def test_strings_within_zeros_are_sought_in_bounded_time() -> None:
    begin = time.process_time()
    assert find_inner_strings(MemorySource("x", bytes(LARGEST)), 0, LARGEST) == []
    assert time.process_time() - begin < 8


def test_strings_that_end_a_file_are_found_behind_anything() -> None:
    rng = np.random.default_rng(5)
    for number in range(300):
        lengths = (10 ** rng.uniform(0, 3.5, rng.integers(1, 30))).astype(int) - 1
        made = builder.Bundle()
        made.add("w", np.array([rng.bytes(one) for one in lengths], object))
        noise = rng.bytes(int(rng.integers(0, 5000)))
        source = MemorySource("x", noise + bytes(made.shards[0]))
        assert find_last_strings(source) == len(noise), number
        assert find_last_strings(MemorySource("x", noise)) is None


def test_strings_are_found_in_bounded_time_behind_zeros() -> None:
    """Any number of zeros is as many strings that are empty."""
    begin = time.monotonic()
    assert find_last_strings(MemorySource("x", bytes(1 << 20))) is None
    assert time.monotonic() - begin < 5
    made = builder.Bundle()
    made.add("w", np.array([b"one", b"two"], object))
    source = MemorySource("x", bytes(1 << 19) + bytes(made.shards[0]))
    assert find_last_strings(source) == 1 << 19


@pytest.mark.parametrize("dtype", ["<i4", "<i8"])
def test_a_step_is_as_wide_as_its_bytes_tell(dtype: str, tmp_path: Path) -> None:
    message = TrackableObjectGraph()
    root = message.nodes.add()
    made = builder.Bundle()
    for number, (name, value) in enumerate((("step", np.array(5, dtype)), ("save_counter", 3)), 1):
        child = root.children.add()
        child.node_id, child.local_name = number, name
        attribute = message.nodes.add().attributes.add()
        attribute.name, attribute.checkpoint_key = "VARIABLE_VALUE", name + VALUE
        made.add(name + VALUE, np.asarray(value))
    made.add(GRAPH, np.array(message.SerializeToString(), object))
    made.write(tmp_path / "ckpt-3")
    (tmp_path / "ckpt-3.index").unlink()
    recovery = ckptparse.recover(tmp_path / "ckpt-3")
    step = recovery["step" + VALUE]
    assert step.read() == 5 and step.dtype == np.dtype(dtype)
    assert EvidenceRule.STEP_SIZE in [record.rule for record in step.evidence]
    assert recovery["save_counter" + VALUE].read() == 3


def copy_data(original: Path, directory: Path) -> Path:
    """Copy the data files of a checkpoint, and not its index."""
    for path in original.parent.glob(f"{original.name}.data-*"):
        shutil.copy(path, directory)
    return directory / original.name


ALL_NAMED = [
    "objects/names_to_escape/model",
    "objects/keras2_optimizer/ckpt-1",
    "objects/nested/ckpt-1",
    "objects/python_state/model",
    "saved_model/module/variables/variables",
    # Tables and iterators: of these the graph has the stem of the names only.
    "objects/iterator_and_tables/model",
    # Several data files: the graph does not say what lies in which.
    "saved_model/sharded/variables/variables",
]


@pytest.mark.parametrize("case", ALL_NAMED)
def test_a_data_file_alone_gives_all_names(case: str, fixtures: Path, tmp_path: Path) -> None:
    recovery = ckptparse.recover(copy_data(fixtures / case, tmp_path))
    with ckptparse.open(fixtures / case) as original:
        assert set(recovery.report.tensors) == set(original)
    lost = [one for name, one in recovery.report.tensors.items() if name not in recovery]
    assert lost
    for one in lost:
        assert (one.status, one.dtype, one.shape) == ("missing", None, None)
        assert "the object graph names it" in one.note
    assert recovery.object_graph is not None and recovery.object_graph.status == "unverified"


def test_a_name_that_another_programs_saver_made_is_not_guessed(
    fixtures: Path, tmp_path: Path
) -> None:
    original = fixtures / "objects/registered_saver/model"
    recovery = ckptparse.recover(copy_data(original, tmp_path))
    with ckptparse.open(original) as whole:
        assert set(recovery.report.tensors) == set(whole) - {"s/custom"}


def module(values: dict[str, npt.NDArray[Any]], *, shards: int = 1) -> builder.Bundle:
    """Make what `tf.train.Checkpoint` writes of a module with variables; its graph lies last."""
    message = TrackableObjectGraph()
    root = message.nodes.add()
    made = builder.Bundle()
    for number, (name, value) in enumerate(values.items(), 1):
        child = root.children.add()
        child.node_id, child.local_name = number, name
        attribute = message.nodes.add().attributes.add()
        attribute.name, attribute.checkpoint_key = "VARIABLE_VALUE", name + VALUE
        made.add(name + VALUE, value, shard=number % shards)
    made.add(GRAPH, np.array(message.SerializeToString(), object), shard=0)
    return made


def test_variables_without_slots_are_named_and_the_only_one_takes_the_rest(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    sizes = {"w": (64, 48), "b": (48,), "v": (48, 10)}
    net = {name: rng.normal(0, 1, shape).astype("<f4") for name, shape in sizes.items()}
    module({"step": np.array(7), **net}).write(tmp_path / "model")
    (tmp_path / "model.index").unlink()
    recovery = ckptparse.recover(tmp_path / "model")
    names = ["b" + VALUE, "step" + VALUE, "v" + VALUE, "w" + VALUE]
    assert list(recovery.report.tensors) == names and list(recovery) == [names[1]]
    codes = {one.where: one.code for one in recovery.report.problems}
    assert all(codes[name + VALUE] == "tensor.missing" for name in net)
    # With the shapes of two the third takes what they leave.
    shapes = {name: sizes[name] for name in ("w", "b")}
    recovery = ckptparse.recover(tmp_path / "model", shapes=shapes)
    for name, value in net.items():
        assert recovery[name + VALUE].status == "unverified"
        assert recovery[name + VALUE].read().tobytes() == value.tobytes()


def test_names_that_a_cut_index_of_several_data_files_lost_come_from_the_graph(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(2)
    values = {f"layer_{n:03d}": rng.normal(0, 1, (5, 7)).astype("<f4") for n in range(200)}
    module(values, shards=3).write(tmp_path / "model", block_size=1024)
    index = tmp_path / "model.index"
    index.write_bytes(index.read_bytes()[:4096])
    recovery = ckptparse.recover(tmp_path / "model")
    assert set(recovery.report.tensors) == {name + VALUE for name in values}
    assert 30 < len(recovery) < 170
    for name, tensor in recovery.items():
        assert tensor.read().tobytes() == values[name.removesuffix(VALUE)].tobytes()


def test_of_data_files_of_two_saves_no_graph_names_anything(tmp_path: Path) -> None:
    value = np.ones((3, 4), "<f4")
    for number, name in ((1, "a"), (2, "b")):
        module({name: value, "c": value}, shards=number).write(tmp_path / f"model-{number}")
        for path in tmp_path.glob(f"model-{number}.data-*"):
            path.rename(tmp_path / f"model.data{path.suffix.removeprefix('.data')}")
    recovery = ckptparse.recover(tmp_path / "model")
    assert not recovery.report.tensors


def test_what_no_rule_places_is_counted(fixtures: Path, tmp_path: Path) -> None:
    shutil.copy(fixtures / "objects/keras2_optimizer/ckpt-1.data-00000-of-00001", tmp_path)
    recovery = ckptparse.recover(tmp_path / "ckpt-1")
    assert len(recovery) == 3
    said = [(problem.code, problem.message) for problem in recovery.report.problems]
    (named,) = [text for code, text in said if code == "object_graph.damaged" and "names" in text]
    assert named.startswith("it names 12 values of which nothing tells the place: 'model/layer")
    (gap,) = [text for code, text in said if code == "shard.gap"]
    assert "112 bytes" in gap and " 20" in gap


def test_shapes_of_the_variables_give_those_of_their_slots(fixtures: Path, tmp_path: Path) -> None:
    original = fixtures / "objects/keras2_legacy_optimizer/weights"
    shutil.copy(f"{original}.data-00000-of-00001", tmp_path)
    shapes = {
        "first/kernel": (2, 2),
        "first/bias": (2,),
        "norm/gamma": (2,),
        "last/kernel": (2, 1),
    }
    recovery = ckptparse.recover(tmp_path / "weights", shapes=shapes)
    expected = ckptparse.read(original)
    assert set(recovery) == set(expected)
    for name, value in expected.items():
        assert recovery[name].read().tobytes() == value.tobytes(), name
    assert recovery["layer_with_weights-0/kernel" + VALUE].shape == (2, 2)


def test_other_data_behind_a_graph_gives_nothing_false(tmp_path: Path) -> None:
    model = Adam(layers(3))
    places = model.write(tmp_path / "model")
    (tmp_path / "model.index").unlink()
    data = tmp_path / "model.data-00000-of-00001"
    raw = bytearray(data.read_bytes())
    end = max(offset + 4 * count for offset, count in places.values())
    raw[16:end] = np.random.default_rng(3).bytes(end - 16)
    data.write_bytes(raw)
    found = places_of(ckptparse.recover(tmp_path / "model"))
    assert set(found) == {"save_counter" + VALUE, "optimizer/_iterations" + VALUE}


# ---------------------------------------------------------------------- what is left of an index


def test_what_a_cut_index_says_places_the_rest(tmp_path: Path) -> None:
    places = Adam(layers(40)).write(tmp_path / "model")
    index = tmp_path / "model.index"
    index.write_bytes(index.read_bytes()[:4096])
    recovery = ckptparse.recover(tmp_path / "model")
    by_entry = [one for one in recovery.values() if "no index describes it" not in one.note]
    assert 30 < len(by_entry) < len(places) - 30
    found = places_of(recovery)
    assert sum(found.get(name) == place for name, place in places.items()) == len(places)


def test_an_index_cut_at_a_page_without_a_graph_gives_its_whole_blocks(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    made = builder.Bundle()
    arrays = {f"layer_{n:03d}/kernel": rng.normal(0, 1, (7, 9)).astype("<f4") for n in range(200)}
    for name, array in arrays.items():
        made.add(name, array)
    made.write(tmp_path / "model", block_size=1024)
    index = tmp_path / "model.index"
    index.write_bytes(index.read_bytes()[:4096])
    recovery = ckptparse.recover(tmp_path / "model")
    known = [name for name in recovery if recovery[name].status == "verified"]
    assert len(known) > 30
    for name in recovery:
        assert recovery[name].read().tobytes() == arrays[name].tobytes()
    total = sum(array.nbytes for array in arrays.values())
    rest = total - sum(arrays[name].nbytes for name in recovery)
    (problem,) = [one for one in recovery.report.problems if one.code == "shard.trailing"]
    assert f"{rest} bytes" in problem.message


# ------------------------------------------------------------------------------- Adam's pairs


def test_names_that_a_changed_byte_turned_into_others_are_those_of_the_graph(
    tmp_path: Path,
) -> None:
    model = Adam(layers(3))
    model.write(tmp_path / "model")
    index = tmp_path / "model.index"
    raw = bytearray(index.read_bytes())
    # A name that is stored in full begins those of others: all of them are changed.
    at = raw.index(b"optimizer/_variables") + len("optimizer/_varia")
    raw[at : at + 1] = b"e"
    index.write_bytes(raw)
    recovery = ckptparse.recover(tmp_path / "model")
    assert set(recovery) == set(model.arrays)
    turned = [one for one in recovery.values() if "the damaged index calls it" in one.note]
    assert len(turned) > 1
    for name, array in model.arrays.items():
        assert recovery[name].shape == array.shape
        assert recovery[name].read().tobytes() == array.tobytes()
    assert {str(one.status) for one in turned} == {"unverified"}


def test_a_name_that_two_of_the_graph_are_like_stays_as_it_is() -> None:
    assert nearest_name("a1", ["a2", "a3"]) is None
    assert nearest_name("a1", ["a2", "b3"]) == "a2"
    assert nearest_name("abc", ["xyz"]) is None
    assert nearest_name("abc", []) is None


def test_a_thousand_files_of_noise_hold_no_pairs_that_add_up() -> None:
    rng = np.random.default_rng(5)
    pairs = [Pair(n) for n in range(4)]
    for _ in range(1000):
        values = rng.normal(0, 0.05, 400).astype("<f4")

        def adds_up(sizes: dict[int, int]) -> bool:
            return 3 * sum(sizes.values()) == 400 - 1

        assert find_pairs(values, pairs, adds_up) is None


def test_pairs_are_found_from_either_end() -> None:
    model = Adam(layers(4))
    sizes = [math.prod(shape) for _, shape in model.shapes]
    flat = [model.arrays[f"optimizer/_variables/{n}{VALUE}"] for n in range(2, 2 + 2 * len(sizes))]
    values = np.concatenate([array.reshape(-1) for array in flat])
    pairs = [Pair(number) for number in range(len(sizes))]
    for backwards in (False, True):
        found = find_pairs(
            values, pairs, lambda known: sum(known.values()) == sum(sizes), backwards=backwards
        )
        assert found == dict(enumerate(sizes))


def test_a_graph_of_a_wrong_node_gives_nothing(tmp_path: Path) -> None:
    message = TrackableObjectGraph()
    node = message.nodes.add()
    for name in ("_iterations", "_variables", "_trainable_variables"):
        child = node.children.add()
        child.node_id, child.local_name = 7, name
    text, _ = builder.string_payload([message.SerializeToString()])
    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(8) + text)
    with pytest.raises(ckptparse.CheckpointError):
        list(iter_items(ObjectGraph.from_bytes(message.SerializeToString())))
    assert len(ckptparse.recover(tmp_path / "m")) == 0


KERAS_2 = [
    "tf2.12/saved_model/keras2_sequential",
    "saved_model/keras2_digits",
    "saved_model/keras2_functional",
    "saved_model/keras2_sequential",
]


@pytest.mark.parametrize("name", KERAS_2)
def test_what_keras_2_wrote_of_its_layers_gives_sizes_to_a_data_file_alone(
    name: str, fixtures: Path, tmp_path: Path
) -> None:
    check_all_placed(fixtures / name / "variables", fixtures / name, tmp_path)


def test_layers_within_layers_give_sizes_to_a_data_file_alone(
    fixtures: Path, tmp_path: Path
) -> None:
    case = fixtures / "objects" / "keras2_cells"
    check_all_placed(case, case, tmp_path)


def check_all_placed(variables: Path, model: Path, directory: Path) -> None:
    shutil.copy(variables / "variables.data-00000-of-00001", directory)
    recovery = ckptparse.recover(
        directory / "variables", evidence=[model / "keras_metadata.pb"], siblings=False
    )
    with ckptparse.open(variables / "variables") as original:
        assert set(original) <= set(recovery)
        for key, tensor in original.items():
            found = recovery[key].read(keep_suspect=True)
            assert found.shape == tensor.shape and found.dtype == tensor.dtype, key
            assert np.asarray(found).tobytes() == np.asarray(tensor.read()).tobytes(), key
            assert recovery[key].status == "unverified"
