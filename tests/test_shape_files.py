"""Shapes for a lost index, read from files of any kind."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import builder
import numpy as np
import pytest
from packages import h5py, safetensors

import ckptparse
from ckptparse.dtypes import DataType
from ckptparse.errors import MalformedError, UnsupportedError
from ckptparse.files.context import Context
from ckptparse.recovery.rebuild.keras_config import iter_weights_of
from ckptparse.recovery.rebuild.shape_files import parse_shapes_text, read_shapes
from ckptparse.recovery.rebuild.shapes import GivenTensor

ARRAYS: dict[str, Any] = {
    "dense/bias": np.arange(4, dtype="<f4"),
    "dense/kernel": np.arange(12, dtype="<f4").reshape(3, 4),
    "last/kernel": np.arange(8, dtype="<f2").reshape(4, 2),
}


def dense(name: str, units: int, built: list[int | None] | None = None, **more: Any) -> Any:
    layer = {"class_name": "Dense", "config": {"name": name, "units": units, **more}}
    return layer if built is None else {**layer, "build_config": {"input_shape": built}}


def sequential(*layers: Any) -> Any:
    return {"class_name": "Sequential", "config": {"name": "m", "layers": list(layers)}}


CONFIG = sequential(
    dense("dense", 4, [None, 3], dtype="float32"),
    dense("last", 2, [None, 4], use_bias=False, dtype="float16"),
)


def as_npz(path: Path) -> None:
    # Of a path numpy makes one with an ending.
    with open(path, "wb") as stream:
        np.savez(stream, **ARRAYS)


def as_packed_npz(path: Path) -> None:
    np.savez_compressed(path, **ARRAYS)


def as_safetensors(path: Path) -> None:
    path.write_bytes(safetensors.numpy.save(ARRAYS))


def as_cut_safetensors(path: Path) -> None:
    path.write_bytes(safetensors.numpy.save(ARRAYS)[:-60])


def as_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name, array in ARRAYS.items():
            file[name] = array


def as_model(path: Path) -> None:
    """As Keras 3 writes a whole model with its optimizer."""
    with h5py.File(path, "w") as file:
        for name, array in ARRAYS.items():
            layer = name.split("/")[0]
            file[f"model_weights/{layer}/sequential/{name}"] = array
        file["optimizer_weights/adam/iteration"] = np.int64(3)


def as_old_model(path: Path) -> None:
    """As Keras 2 does."""
    with h5py.File(path, "w") as file:
        for name, array in ARRAYS.items():
            layer = name.split("/")[0]
            file[f"model_weights/{layer}/{name}:0"] = array
        file["optimizer_weights/Adam/iter:0"] = np.int64(3)


def as_json(path: Path) -> None:
    shapes = {n: {"shape": a.shape, "dtype": str(a.dtype)} for n, a in ARRAYS.items()}
    path.write_text(json.dumps(shapes))


def as_config(path: Path) -> None:
    path.write_text(json.dumps(CONFIG))


def as_keras(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", json.dumps(CONFIG))
        archive.writestr("model.weights.h5", b"\x89HDF")


KINDS = {
    "a.npz": as_npz,
    "packed.npz": as_packed_npz,
    "a.safetensors": as_safetensors,
    "cut.safetensors": as_cut_safetensors,
    "a.h5": as_hdf5,
    "model.h5": as_model,
    "old.h5": as_old_model,
    "a.json": as_json,
    "config.json": as_config,
    "a.keras": as_keras,
    "no.ending": as_npz,
}


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_gives_the_tensors_of_a_lost_index(name: str, tmp_path: Path) -> None:
    made = builder.Bundle()
    for key, array in ARRAYS.items():
        made.add(key, array)
    made.write(tmp_path / "run" / "model")
    (tmp_path / "run" / "model.index").unlink()
    KINDS[name](tmp_path / name)
    recovery = ckptparse.recover(tmp_path / "run" / "model", shapes=tmp_path / name)
    assert set(recovery) == set(ARRAYS)
    for key, array in ARRAYS.items():
        assert recovery[key].status == "unverified"
        assert recovery[key].shape == array.shape
        assert recovery[key].read().tobytes() == array.tobytes()


def test_layers_of_a_model_within_the_model_are_called_by_their_own_names(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        for layer, shape in {"conv": (3, 4), "dense": (4, 5)}.items():
            file[f"model_weights/inner/{layer}/kernel:0"] = np.zeros(shape, "f4")
        file["model_weights/top_level"] = np.zeros(3)
    found = read_shapes(tmp_path / "m.h5", Context())
    assert {(one.name, one.shape) for one in found} == {
        ("inner/kernel", (3, 4)),
        ("dense/kernel", (4, 5)),
    }


def test_a_chain_of_dense_layers_needs_the_first_shape_only() -> None:
    config = sequential(
        dense("a", 8, batch_input_shape=[None, 5]),
        {"class_name": "Dropout", "config": {"name": "d", "rate": 0.5}},
        dense("b", 3),
    )
    assert parse_shapes_text(json.dumps(config)) == [
        GivenTensor("a/kernel", None, (5, 8)),
        GivenTensor("a/bias", None, (8,)),
        GivenTensor("b/kernel", None, (8, 3)),
        GivenTensor("b/bias", None, (3,)),
    ]


def test_a_policy_of_mixed_precision_leaves_the_weights_as_they_are() -> None:
    policy = {"class_name": "DTypePolicy", "config": {"name": "mixed_float16"}}
    given = parse_shapes_text(json.dumps(sequential(dense("a", 2, [None, 3], dtype=policy))))
    assert [one.data_type for one in given] == [None, None]
    half = {"class_name": "DTypePolicy", "config": {"name": "bfloat16"}}
    given = parse_shapes_text(json.dumps(sequential(dense("a", 2, [None, 3], dtype=half))))
    assert [one.data_type for one in given] == [DataType.DT_BFLOAT16] * 2


def test_a_layer_that_is_not_known_is_named() -> None:
    config = sequential({"class_name": "MyLayer", "config": {"name": "mine"}})
    with pytest.raises(UnsupportedError, match="class 'MyLayer' are not known"):
        parse_shapes_text(json.dumps(config))
    own = {"class_name": "MyModel", "config": {"trainable": True}}
    with pytest.raises(UnsupportedError, match="a model of class 'MyModel' lists no layers"):
        parse_shapes_text(json.dumps(own))
    with pytest.raises(UnsupportedError, match="does not say what the layer 'a' was built for"):
        parse_shapes_text(json.dumps(sequential(dense("a", 3))))


@pytest.mark.parametrize(
    "config",
    [
        sequential({"class_name": "Dense", "config": {}}),
        sequential({"class_name": "Dense"}),
        sequential(7),
        sequential(dense("a", -3, [None, 4])),
        sequential(dense("a", 3, [None, "x"])),
        sequential(
            {
                "class_name": "Conv1D",
                "config": {"name": "a", "filters": 2, "kernel_size": 3, "groups": 0},
                "build_config": {"input_shape": [None, 5, 4]},
            }
        ),
        sequential({**dense("a", 1, [None, 4]), "config": {"name": "a", "units": float("inf")}}),
        {"class_name": "Sequential", "config": {}},
        {"class_name": "Sequential", "config": {"layers": 5}},
    ],
)
def test_a_configuration_that_keras_does_not_write_is_malformed(config: Any) -> None:
    with pytest.raises(MalformedError):
        parse_shapes_text(json.dumps(config))


CELLS: dict[str, tuple[dict[str, Any], list[int | None], dict[str, tuple[int, ...]]]] = {
    "LSTMCell": (
        {"units": 3},
        [None, 5],
        {"kernel": (5, 12), "recurrent_kernel": (3, 12), "bias": (12,)},
    ),
    "GRUCell": (
        {"units": 3, "reset_after": True},
        [None, 5],
        {"kernel": (5, 9), "recurrent_kernel": (3, 9), "bias": (2, 9)},
    ),
    "SimpleRNNCell": (
        {"units": 3, "use_bias": False},
        [None, 5],
        {"kernel": (5, 3), "recurrent_kernel": (3, 3)},
    ),
    "ConvLSTMCell": (
        {"filters": 2, "kernel_size": [3, 1]},
        [None, 8, 8, 5],
        {"kernel": (3, 1, 5, 8), "recurrent_kernel": (3, 1, 2, 8), "bias": (8,)},
    ),
    "DepthwiseConv2D": (
        {"kernel_size": [3, 3], "depth_multiplier": 2},
        [None, 8, 8, 5],
        {"depthwise_kernel": (3, 3, 5, 2), "bias": (10,)},
    ),
    "EinsumDense": (
        {"equation": "abc,cde->abde", "output_shape": [None, 2, 4], "bias_axes": "de"},
        [None, 6, 8],
        {"kernel": (8, 2, 4), "bias": (2, 4)},
    ),
    "PReLU": ({"shared_axes": [1]}, [None, 8, 4], {"alpha": (1, 4)}),
    "Normalization": ({"axis": [-1]}, [None, 4], {"mean": (4,), "variance": (4,), "count": ()}),
    "GroupNormalization": ({"axis": -1}, [None, 4], {"gamma": (4,), "beta": (4,)}),
}
"""Configuration, what it was built for, and the weights as Keras 2 makes them."""


@pytest.mark.parametrize("kind", CELLS)
def test_weights_follow_from_a_layer_and_what_it_was_built_for(kind: str) -> None:
    config, built, expected = CELLS[kind]
    values = {"class_name": kind, "config": {"name": "x", **config}, "build_input_shape": built}
    found = list(iter_weights_of(values))
    assert {name: shape for name, _, shape in found} == expected
    assert [data_type for _, data_type, _ in found] == [
        DataType.DT_INT64 if name == "count" else None for name in expected
    ]


def test_an_equation_that_leaves_out_its_last_axes_is_not_understood() -> None:
    config = {"name": "x", "equation": "ab...,bc->ac...", "output_shape": 4}
    values = {"class_name": "EinsumDense", "config": config, "build_input_shape": [None, 6, 8]}
    with pytest.raises(UnsupportedError, match="is not understood"):
        list(iter_weights_of(values))


def test_models_too_deep_within_each_other_are_malformed() -> None:
    config = sequential()
    for _ in range(60):
        config = sequential(config)
    with pytest.raises(MalformedError, match="inside each other"):
        parse_shapes_text(json.dumps(config))


def test_an_archive_without_shapes_is_malformed(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    (tmp_path / "x.zip").write_bytes(stream.getvalue())
    with pytest.raises(MalformedError, match="Expected arrays or a configuration"):
        ckptparse.recover(tmp_path / "none", shapes=tmp_path / "x.zip")


def test_datasets_in_no_group_give_their_names_and_shapes(tmp_path: Path) -> None:
    prefix = ckptparse.write(tmp_path / "m", {"w": np.arange(6.0).reshape(2, 3)})
    Path(f"{prefix}.index").unlink()
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["w"] = np.zeros((2, 3))
    recovery = ckptparse.recover(prefix, shapes=tmp_path / "w.h5")
    assert recovery["w"].read().tolist() == [[0, 1, 2], [3, 4, 5]]
