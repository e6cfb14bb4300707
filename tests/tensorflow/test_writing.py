"""What we write is what TensorFlow writes, byte for byte; and it restores what we write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_random_bundles import Piece, Plan, make_plan, random_array, save_all

import ckptparse
from ckptparse.bundle.content import content_of_array
from ckptparse.bundle.writer import BundleWriter
from ckptparse.files.placing import place_files
from ckptparse.slices import Extent, TensorSlice

tf = pytest.importorskip("tensorflow")


def write_plan(plan: Plan, prefix: str) -> None:
    with place_files() as files:
        writer = BundleWriter(files, prefix, num_shards=len(plan.shards))
        for shard, pieces in enumerate(plan.shards):
            for piece in pieces:
                content = content_of_array(piece.array, piece.number)
                if piece.extents is None:
                    shape = piece.array.shape
                    writer.add(piece.name, piece.number, shape, content, shard=shard)
                    continue
                extents = tuple(Extent() if e is None else Extent(*e) for e in piece.extents)
                where = TensorSlice(extents)
                writer.add_slice(piece.name, piece.number, piece.shape, where, content, shard=shard)
        writer.finish()


IN_LISTS = [
    number
    for number in (*b.NUMERIC_TYPES, b.STRING)
    if number not in b.QUANTIZED_TYPES and number not in b.SUB_BYTE_MASKS and number < 24
]
"""Kinds of which TensorFlow makes lists, but for the quantized: as arrays they are integers."""


class VariantPiece(Piece):
    """A tensor of lists of tensors, of optional values, or of nothing; its array is read later."""

    made: Any

    def tensor(self) -> Any:
        return self.made


def list_of(chance: st.DataObject) -> Any:
    """Make a variant without axes: a list of tensors of any kind, or an optional value."""
    number = chance.draw(st.sampled_from(IN_LISTS))
    shape = tuple(chance.draw(st.lists(st.integers(1, 3), min_size=1, max_size=2)))
    array = random_array(chance, number, shape)
    rows = Piece("", number, shape, None, array).tensor()
    kind = chance.draw(st.sampled_from(["list", "empty", "optional", "none"]))
    if kind == "optional":
        return tf.raw_ops.OptionalFromValue(components=[rows])
    if kind == "none":
        return tf.raw_ops.OptionalNone()
    if kind == "empty":
        return tf.raw_ops.EmptyTensorList(
            element_shape=tf.constant(shape[1:], tf.int32),
            max_num_elements=chance.draw(st.integers(-1, 5)),
            element_dtype=rows.dtype,
        )
    return tf.raw_ops.TensorListFromTensor(
        tensor=rows, element_shape=tf.constant(shape[1:], tf.int32)
    )


def add_variants(plan: Plan, chance: st.DataObject) -> list[VariantPiece]:
    """Add a tensor of variants or two, to any data file."""
    pieces = []
    for number in range(chance.draw(st.integers(0, 2))):
        lists = [list_of(chance) for _ in range(chance.draw(st.integers(1, 3)))]
        made = tf.stack(lists) if len(lists) > 1 or chance.draw(st.booleans()) else lists[0]
        piece = VariantPiece(f"variant {number}", b.VARIANT, tuple(made.shape), None, None)
        piece.made = made
        plan.shards[chance.draw(st.integers(0, len(plan.shards) - 1))].append(piece)
        pieces.append(piece)
    return pieces


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@settings(max_examples=150, deadline=None)
@given(chance=st.data())
def test_random_bundles_are_written_byte_for_byte_as_tensorflow_writes_them(
    tmp_path_factory: pytest.TempPathFactory, chance: st.DataObject
) -> None:
    plan = make_plan(chance, most_shards=3)
    variants = add_variants(plan, chance)
    theirs, ours = (tmp_path_factory.mktemp("random") for _ in range(2))
    prefix = save_all(plan, theirs)
    for piece in variants:
        piece.array = ckptparse.read(prefix, [piece.name])[piece.name]
    write_plan(plan, str(ours / "x"))
    assert files_of(ours) == files_of(theirs)


@pytest.mark.parametrize("count", [1, 9000])
def test_an_index_of_any_number_of_blocks_is_tensorflows(tmp_path: Path, count: int) -> None:
    values = {f"layer_{n % 97}/kernel_{n:05}": np.float32([n, 2]) for n in range(count)}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "a" / "x"),
        tensor_names=list(values),
        shape_and_slices=[""] * count,
        tensors=[tf.constant(value) for value in values.values()],
    )
    ckptparse.write(tmp_path / "b" / "x", values)
    assert files_of(tmp_path / "b") == files_of(tmp_path / "a")


def test_a_saver_restores_what_we_write(tmp_path: Path) -> None:
    wanted = {"scope/w": np.float32([[1, 2], [3, 4]]), "n": np.int64(7)}
    prefix = ckptparse.write(tmp_path / "model.ckpt-7", wanted, update_state=True)
    tf1 = tf.compat.v1
    with tf1.Graph().as_default(), tf1.Session() as session:
        variables = {
            name: tf1.get_variable(name, initializer=np.zeros_like(value))
            for name, value in wanted.items()
        }
        tf1.train.Saver().restore(session, tf.train.latest_checkpoint(str(tmp_path)))
        for name, value in wanted.items():
            assert np.array_equal(session.run(variables[name]), value)
    reader = tf.train.load_checkpoint(prefix)
    assert np.array_equal(reader.get_tensor("scope/w"), wanted["scope/w"])


class Layer(tf.Module):  # type: ignore[misc]
    def __init__(self, size: int) -> None:
        self.kernel = tf.Variable(tf.zeros([size, size]))
        self.bias = tf.Variable(tf.zeros([size]))


def test_a_checkpoint_restores_what_we_write_by_its_objects(tmp_path: Path) -> None:
    wanted = {
        "model/layers/0/kernel": np.float32([[1, 2], [3, 4]]),
        "model/layers/0/bias": np.float32([5, 6]),
        "model/layers/1/kernel": np.float32([[7]]),
        "model/layers/1/bias": np.float32([8]),
        "step": np.int64(9),
    }
    for most in (None, 12):
        prefix = ckptparse.write(
            tmp_path / f"m{most}", wanted, object_graph="make", max_shard_size=most
        )
        model = tf.Module()
        model.layers = [Layer(2), Layer(1)]
        step = tf.Variable(0, dtype=tf.int64)
        checkpoint = tf.train.Checkpoint(model=model, step=step)
        checkpoint.read(prefix).assert_consumed()
        assert int(step) == 9
        for number, layer in enumerate(model.layers):
            for name in ("kernel", "bias"):
                value = getattr(layer, name).numpy()
                assert np.array_equal(value, wanted[f"model/layers/{number}/{name}"])


def test_slot_variables_come_back_into_an_optimizer(tmp_path: Path) -> None:
    end = "/.ATTRIBUTES/VARIABLE_VALUE"
    slots = {
        f"w/.OPTIMIZER_SLOT/opt/{slot}{end}": np.float32([n, n]) for n, slot in [(3, "m"), (4, "v")]
    }
    numbers = {f"opt/{name}_power{end}": np.float32(0.5) for name in ("beta1", "beta2")}
    values = {f"w{end}": np.float32([1, 2]), **numbers, **slots}
    prefix = ckptparse.write(tmp_path / "m", values, object_graph="make")
    weights = tf.Variable([0.0, 0.0])
    optimizer = tf.compat.v1.train.AdamOptimizer()
    optimizer.apply_gradients([(tf.constant([0.0, 0.0]), weights)])
    tf.train.Checkpoint(w=weights, opt=optimizer).read(prefix).assert_existing_objects_matched()
    assert weights.numpy().tolist() == [1, 2]
    assert optimizer.get_slot(weights, "m").numpy().tolist() == [3, 3]
    assert optimizer.get_slot(weights, "v").numpy().tolist() == [4, 4]


def test_a_checkpoint_written_again_is_the_same_file(tmp_path: Path) -> None:
    model = tf.Module()
    model.layer = Layer(3)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    prefix = tf.train.Checkpoint(model=model).write(str(tmp_path / "a" / "x"))
    with ckptparse.open(prefix) as source:
        in_order: dict[str, Any] = {}
        places = sorted(source, key=lambda name: source[name].location.offset)
        for name in places:
            in_order[name] = source[name]
        ckptparse.write(tmp_path / "b" / "x", in_order, object_graph=source.object_graph)
    assert files_of(tmp_path / "b") == files_of(tmp_path / "a")


@pytest.mark.parametrize("number", [*b.NUMERIC_TYPES])
def test_a_kind_of_element_restores(tmp_path: Path, number: int) -> None:
    array = (np.arange(6) % 4).astype(np.float32).astype(b.NUMPY_TYPES[number]).reshape(2, 3)
    prefix = ckptparse.write(tmp_path / "x", {"w": array})
    with ckptparse.open(prefix) as made:
        assert made["w"].data_type == number or number in b.QUANTIZED_TYPES
        kind = tf.dtypes.as_dtype(made["w"].data_type)
    (got,) = tf.raw_ops.RestoreV2(
        prefix=prefix, tensor_names=["w"], shape_and_slices=[""], dtypes=[kind]
    )
    assert b.same(got.numpy(), array)
