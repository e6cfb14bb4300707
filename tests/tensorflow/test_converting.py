"""TensorFlow and both Keras restore what was converted: without slots, renamed, and back again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptparse

tf = pytest.importorskip("tensorflow")

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
END = "/.ATTRIBUTES/VARIABLE_VALUE"


def kerases() -> list[Any]:
    keras = pytest.importorskip("keras")
    return [pytest.param(keras, id="keras3"), pytest.param("tf_keras", id="tf_keras")]


def make(keras: Any, name: str) -> Any:
    """Return a compiled model that has been trained a step, so that its optimizer has slots."""
    if keras == "tf_keras":
        keras = pytest.importorskip("tf_keras")
    keras.utils.set_random_seed({"trained": 1, "new": 2}[name])
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(3, name="first"),
            layers.BatchNormalization(name="norm"),
            layers.Dense(1, name="last"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(0.05), loss="mse")
    chance = np.random.default_rng(3)
    for _ in range({"trained": 3, "new": 1}[name]):
        model.train_on_batch(chance.normal(size=(4, 2)), chance.normal(size=(4, 1)))
    return model


def checkpoint_of(model: Any) -> Any:
    return tf.train.Checkpoint(model=model, optimizer=model.optimizer)


def assert_restored(prefix: str, trained: Any, new: Any) -> None:
    """Check that a compiled model gets every weight, bit by bit, and can be trained on."""
    status = checkpoint_of(new).read(prefix)
    status.expect_partial()
    for got, wanted in zip(new.get_weights(), trained.get_weights(), strict=True):
        assert got.tobytes() == wanted.tobytes()
    inputs = np.float32([[1, 2], [3, 4]])
    assert np.array_equal(new.predict(inputs, verbose=0), trained.predict(inputs, verbose=0))
    new.train_on_batch(inputs, inputs[:, :1])


@pytest.mark.parametrize("keras", kerases())
def test_a_compiled_model_is_restored_after_its_slots_were_dropped(
    keras: Any, tmp_path: Path
) -> None:
    trained, new = make(keras, "trained"), make(keras, "new")
    prefix = checkpoint_of(trained).write(str(tmp_path / "in"))
    done = ckptparse.convert(prefix, tmp_path / "out", drop_slots=True)
    assert len(done.kept) < len(done.rows)
    assert_restored(str(tmp_path / "out"), trained, new)
    with ckptparse.open(tmp_path / "out") as made:
        graph = made.object_graph
        assert graph is not None
        assert {one.checkpoint_key for _, one in graph.iter_attributes()} == {*made}


@pytest.mark.parametrize("keras", kerases())
def test_a_compiled_model_is_restored_after_its_variables_were_renamed(
    keras: Any, tmp_path: Path
) -> None:
    trained, new = make(keras, "trained"), make(keras, "new")
    prefix = checkpoint_of(trained).write(str(tmp_path / "in"))
    rules = [(r"^(.*)/\.ATTRIBUTES/", r"renamed/\1/.ATTRIBUTES/")]
    ckptparse.convert(prefix, tmp_path / "out", rename=rules)
    names = [name for name, _ in tf.train.list_variables(str(tmp_path / "out"))]
    assert all(name.startswith(("renamed/", "_CHECKPOINTABLE")) for name in names)
    assert_restored(str(tmp_path / "out"), trained, new)
    # Everything finds its place, the slots of the optimizer among it.
    checkpoint_of(new).read(str(tmp_path / "out")).assert_existing_objects_matched()


@pytest.mark.parametrize("keras", kerases())
@pytest.mark.parametrize("ending", [".safetensors", ".npz", ".h5"])
def test_a_model_is_restored_by_way_of_another_format(
    keras: Any, ending: str, tmp_path: Path
) -> None:
    trained, new = make(keras, "trained"), make(keras, "new")
    prefix = checkpoint_of(trained).write(str(tmp_path / "in"))
    ckptparse.convert(prefix, tmp_path / f"x{ending}")
    ckptparse.convert(tmp_path / f"x{ending}", tmp_path / "out", object_graph="make")
    assert_restored(str(tmp_path / "out"), trained, new)


def test_weights_that_keras_2_saved_are_loaded_by_it_without_slots(tmp_path: Path) -> None:
    trained, new = make("tf_keras", "trained"), make("tf_keras", "new")
    trained.save_weights(str(tmp_path / "in"), save_format="tf")
    ckptparse.convert(tmp_path / "in", tmp_path / "out", drop_slots=True)
    new.load_weights(str(tmp_path / "out")).expect_partial()
    for got, wanted in zip(new.get_weights(), trained.get_weights(), strict=True):
        assert got.tobytes() == wanted.tobytes()


def test_a_module_finds_what_is_kept_and_nothing_else(tmp_path: Path) -> None:
    def module() -> Any:
        made = tf.Module()
        made.w, made.v = tf.Variable([1.0, 2.0]), tf.Variable([3.0])
        return made

    prefix = tf.train.Checkpoint(model=module()).write(str(tmp_path / "in"))
    ckptparse.convert(prefix, tmp_path / "out", exclude=f"model/v{END}")
    new = module()
    new.w.assign([9.0, 9.0])
    new.v.assign([9.0])
    tf.train.Checkpoint(model=new).read(str(tmp_path / "out")).expect_partial()
    assert new.w.numpy().tolist() == [1, 2] and new.v.numpy().tolist() == [9]


def test_an_average_is_restored(tmp_path: Path) -> None:
    values = [np.float32([1, 2]), np.float32([3, 6])]
    prefixes = []
    for number, value in enumerate(values):
        checkpoint = tf.train.Checkpoint(w=tf.Variable(value), step=tf.Variable(number))
        prefixes.append(checkpoint.write(str(tmp_path / str(number))))
    mean = ckptparse.average(prefixes, tmp_path / "mean")
    got, step = tf.Variable(np.zeros(2, np.float32)), tf.Variable(0)
    tf.train.Checkpoint(w=got, step=step).read(str(mean)).assert_consumed()
    assert got.numpy().tolist() == [2, 4] and int(step) == 1


def test_a_saver_restores_without_slots_and_under_other_names(tmp_path: Path) -> None:
    tf1 = tf.compat.v1
    with tf1.Graph().as_default(), tf1.Session() as session:
        weights = tf1.get_variable("scope/w", initializer=np.float32([[1, 2], [3, 4]]))
        tf1.train.AdamOptimizer(0.1).minimize(tf1.reduce_sum(weights**2))
        session.run(tf1.global_variables_initializer())
        prefix = tf1.train.Saver().save(session, str(tmp_path / "in"))
    rules = [("^scope/", "model/")]
    ckptparse.convert(prefix, tmp_path / "out", drop_slots=True, rename=rules)
    assert tf.train.list_variables(str(tmp_path / "out")) == [("model/w", [2, 2])]
    with tf1.Graph().as_default(), tf1.Session() as session:
        found = tf1.get_variable("model/w", initializer=np.zeros((2, 2), np.float32))
        tf1.train.Saver().restore(session, str(tmp_path / "out"))
        assert session.run(found).tolist() == [[1, 2], [3, 4]]


# Every fixture, read by TensorFlow itself after it has been elsewhere.

DAMAGED = {"crash", "hole", "overlapping", "many_starts"}
PREFIXES = [
    path.with_suffix("").relative_to(FIXTURES)
    for path in sorted(FIXTURES.rglob("*.index"))
    if path.is_file() and not DAMAGED & {*path.parts}
]


def restore(prefix: Path, names: list[str]) -> dict[str, Any]:
    """Return what TensorFlow restores: the kind, the shape and the bytes of every tensor.

    Some kinds in slices it cannot put together; slices of nine axes end its process.
    """
    with ckptparse.open(prefix) as checkpoint:
        tensors = (checkpoint[name] for name in names)
        kinds = {one.name: one.data_type for one in tensors if one.kind != "sliced" or one.ndim < 9}
    found = {}
    for name, kind in kinds.items():
        try:
            (value,) = tf.raw_ops.RestoreV2(
                prefix=str(prefix),
                tensor_names=[name],
                shape_and_slices=[""],
                dtypes=[tf.dtypes.as_dtype(int(kind))],
            )
        except tf.errors.OpError:
            continue
        array = value.numpy()
        plain = isinstance(array, bytes) or array.dtype == object
        data = np.array(array, object).tolist() if plain else array.tobytes()
        found[name] = (int(kind), tuple(value.shape), data)
    return found


@pytest.mark.parametrize("ending", ["", ".safetensors", ".h5"])
@pytest.mark.parametrize("prefix", PREFIXES, ids=str)
def test_tensorflow_reads_the_same_after_a_round_trip(
    prefix: Path, ending: str, tmp_path: Path
) -> None:
    with ckptparse.open(FIXTURES / prefix) as source:
        names = [
            name
            for name, tensor in source.items()
            if tensor.kind != "variant"
            and tensor.ndim <= 32
            and "\0" not in name
            and not any("\ud800" <= one <= "\udfff" for one in name)
        ]
        target = f"{tmp_path / 'x'}{ending}"
        ckptparse.convert(source, target, names=names, store_bits=True)
    ckptparse.convert(target, tmp_path / "back")
    wanted, got = restore(FIXTURES / prefix, names), restore(tmp_path / "back", names)
    assert wanted.items() <= got.items() and got.keys() == {*names}
