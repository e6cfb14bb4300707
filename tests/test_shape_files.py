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
from ckptparse.recovery.rebuild.shape_files import parse_shapes_text
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
        {"class_name": "Sequential", "config": {}},
        {"class_name": "Sequential", "config": {"layers": 5}},
    ],
)
def test_a_configuration_that_keras_does_not_write_is_malformed(config: Any) -> None:
    with pytest.raises(MalformedError):
        parse_shapes_text(json.dumps(config))


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
