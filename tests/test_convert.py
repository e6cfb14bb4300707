"""`convert`: the same tensors in another format, under other names; every kind comes back."""

from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import builder as b
import expected
import numpy as np
import pytest
from instruments import allocating_at_most
from packages import h5py, ml_dtypes, safetensors

import ckptparse

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
ENDINGS = {"v2": "", "safetensors": ".safetensors", "npz": ".npz", "npy": "/", "hdf5": ".h5"}
DAMAGED = {"crash", "hole", "overlapping", "many_starts"}
"""Fixtures of which something is missing."""
PREFIXES = [
    path.with_suffix("").relative_to(FIXTURES)
    for path in sorted(FIXTURES.rglob("*.index"))
    if path.is_file() and not DAMAGED & {*path.parts}
]

VALUES: dict[str, Any] = {
    "scope/w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "scope/b": np.float32([1, 2, 3]),
    "step": np.int64(7),
}


def save(folder: Path, values: dict[str, Any] | None = None) -> str:
    folder.mkdir(exist_ok=True)
    return ckptparse.write(folder / "m", VALUES if values is None else values)


def refused(format: str, tensor: ckptparse.Tensor) -> bool:
    """Tell whether a format cannot hold a tensor, by what docs/convert.md says."""
    name = tensor.name
    if format == "v2":
        return False
    if tensor.kind == "variant" or (format == "hdf5" and (len(tensor.shape) > 32 or "\0" in name)):
        return True
    return format in ("hdf5", "safetensors") and any("\ud800" <= one <= "\udfff" for one in name)


# Round trips.


@pytest.mark.parametrize("format", ENDINGS)
@pytest.mark.parametrize("prefix", PREFIXES, ids=str)
def test_every_fixture_comes_back_with_the_same_kinds(
    prefix: Path, format: str, tmp_path: Path
) -> None:
    target = f"{tmp_path / 'x'}{ENDINGS[format]}"
    with ckptparse.open(FIXTURES / prefix) as source:
        odd = [name for name, tensor in source.items() if refused(format, tensor)]
        options: Any = {"format": format, "store_bits": True}
        if odd:
            with pytest.raises(ckptparse.UnsupportedError):
                ckptparse.convert(source, target, **options)
            assert list(tmp_path.iterdir()) == []
        wanted = [name for name in source if name not in odd]
        ckptparse.convert(source, target, names=wanted, **options)
        ckptparse.convert(target, tmp_path / "back")
        with ckptparse.open(tmp_path / "back") as back:
            assert sorted(back) == sorted(wanted)
            for name in wanted:
                assert back[name].data_type == source[name].data_type, name
                if source[name].kind != "variant":
                    assert b.same(back[name].read(), source[name].read()), name


@pytest.mark.parametrize("format", ["safetensors", "npz", "npy", "hdf5"])
def test_v1_files_graphs_and_recoveries_are_converted_too(format: str, tmp_path: Path) -> None:
    sources: list[Any] = [
        FIXTURES / "v1" / "unsharded" / "model.ckpt-2",
        FIXTURES / "graphs" / "frozen_tf1" / "frozen.pb",
        ckptparse.recover(FIXTURES / "crash" / "data_without_index" / "model"),
    ]
    for number, source in enumerate(sources):
        target = f"{tmp_path / str(number)}{ENDINGS[format]}"
        done = ckptparse.convert(source, target, format=format)  # type: ignore[arg-type]
        assert done.kept and done.files == (target.rstrip("/"),)


def test_a_v2_checkpoint_keeps_its_object_graph(tmp_path: Path) -> None:
    original = FIXTURES / "objects" / "nested" / "ckpt-1"
    ckptparse.convert(original, tmp_path / "m")
    with ckptparse.open(original) as source, ckptparse.open(tmp_path / "m") as made:
        assert source.object_graph is not None and made.object_graph is not None
        assert made.object_graph.serialized == source.object_graph.serialized


def test_the_object_graph_loses_what_is_dropped_and_learns_new_keys(tmp_path: Path) -> None:
    original = FIXTURES / "objects" / "keras2_legacy_optimizer" / "weights"
    end = "/.ATTRIBUTES/VARIABLE_VALUE"
    new = {f"layer_with_weights-0/kernel{end}": f"other/kernel{end}"}
    ckptparse.convert(original, tmp_path / "m", drop_slots=True, rename=new)
    with ckptparse.open(original) as source, ckptparse.open(tmp_path / "m") as made:
        graph, before = made.object_graph, source.object_graph
        assert graph is not None and before is not None
        assert {key for _, one in graph.iter_attributes() for key in [one.checkpoint_key]} == {
            *made
        }
        kernel = graph["layer_with_weights-0"]["kernel"]
        assert kernel.checkpoint_key == f"other/kernel{end}"
        assert b.same(kernel.read(), before["layer_with_weights-0"]["kernel"].read())
        assert (
            not graph["optimizer"].slot_variables and not graph["optimizer"].has_checkpoint_values
        )
        assert graph["layer_with_weights-0"].has_checkpoint_values


# What other libraries see.


def test_the_safetensors_library_reads_what_we_write(tmp_path: Path) -> None:
    values = {
        **VALUES,
        "half": np.float16([1.5]),
        "flags": np.array([True, False]),
        "byte": np.uint8([1, 2, 3]),
        "wide": np.float64([2.5]),
        "bf16": np.array([1, 2], ml_dtypes.bfloat16),
    }
    if not hasattr(np, "dtypes"):
        del values["bf16"]  # the library's first releases look for bfloat16 in numpy
    target = tmp_path / "x.safetensors"
    ckptparse.convert(save(tmp_path / "in", values), target)
    found = safetensors.numpy.load_file(target)
    assert found.keys() == values.keys()
    assert all(np.array_equal(found[name], value) for name, value in values.items())
    with safetensors.safe_open(target, "numpy") as file:
        assert file.metadata()["written_by"] == "ckptparse"
        assert file.metadata()["source"].endswith("m") and file.metadata()["format"] == "tf"


def test_what_the_safetensors_library_writes_is_read(tmp_path: Path) -> None:
    values = {name: np.asarray(value) for name, value in VALUES.items()}
    safetensors.numpy.save_file(values, tmp_path / "x.safetensors", metadata={"who": "me"})
    ckptparse.convert(tmp_path / "x.safetensors", tmp_path / "m")
    assert all(
        b.same(array, values[name]) for name, array in ckptparse.read(tmp_path / "m").items()
    )


def test_every_tensor_of_a_safetensors_file_is_aligned(tmp_path: Path) -> None:
    values = {"a": np.zeros(3, np.uint8), "b": np.float64([1]), "c": np.float16([1, 2, 3])}
    target = tmp_path / "x.safetensors"
    ckptparse.convert(save(tmp_path / "in", values), target)
    data = target.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    assert size % 8 == 0 and list(header)[1:] == ["b", "c", "a"]
    for name, array in values.items():
        assert header[name]["data_offsets"][0] % array.itemsize == 0


def test_parts_are_named_as_hugging_face_names_them(tmp_path: Path) -> None:
    values = {name: np.full(4, n, np.float32) for n, name in enumerate("abcde")}
    source = save(tmp_path / "in", values)
    done = ckptparse.convert(source, tmp_path / "model.safetensors", max_shard_size=32)
    names = [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    assert [Path(path).name for path in done.files] == [*names, "model.safetensors.index.json"]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": 80}
    assert index["weight_map"] == dict(zip("abcde", [names[n // 2] for n in range(5)], strict=True))
    for name, file in index["weight_map"].items():
        assert np.array_equal(safetensors.numpy.load_file(tmp_path / file)[name], values[name])
    for source_path in ("model.safetensors.index.json", "model.safetensors", "."):
        ckptparse.convert(tmp_path / source_path, tmp_path / "in" / "back", overwrite=True)
        assert ckptparse.read(tmp_path / "in" / "back").keys() == values.keys()


def test_numpy_opens_what_we_write(tmp_path: Path) -> None:
    values = {
        **VALUES,
        "s": np.array([b"a", b"bc"], object),
        "q": np.array([1], ml_dtypes.bfloat16),
    }
    source = save(tmp_path / "in", values)
    ckptparse.convert(source, tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as found:
        assert {name for name in found.files if not name.startswith("__")} == values.keys()
        assert np.array_equal(found["scope/w"], values["scope/w"])
        assert found["s"].tolist() == [b"a", b"bc"]
        assert found["q"]["bfloat16"].view(ml_dtypes.bfloat16).tolist() == [1]
    ckptparse.convert(source, f"{tmp_path / 'd'}/")
    files = json.loads((tmp_path / "d" / "tensors.json").read_text())["tensors"]
    assert np.array_equal(np.load(tmp_path / "d" / files["scope/w"]), values["scope/w"])


def test_thousands_of_small_tensors_come_back_from_hdf5(tmp_path: Path) -> None:
    values = {f"layer_{n // 4}/kernel_{n % 4}": np.float32(n) for n in range(5_000)}
    ckptparse.convert(save(tmp_path / "in", values), tmp_path / "x.h5")
    assert ckptparse.diff(tmp_path / "in", tmp_path / "x.h5").same


def test_h5py_opens_what_we_write(tmp_path: Path) -> None:
    values = {**VALUES, "scope/w/Adam": np.float32([4]), "flag": np.array([True, False])}
    ckptparse.convert(save(tmp_path / "in", values), tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5") as file:
        assert np.array_equal(file["scope/w~2"], values["scope/w"])
        assert file["scope/w~2"].attrs["ckptparse.name"] == "scope/w"
        assert file["scope/w/Adam"][()].tolist() == [4] and file["flag"].dtype == bool
        assert file.attrs["written_by"] == "ckptparse"


def test_keras_files_are_read_without_keras(tmp_path: Path) -> None:
    weights = {"layers/dense/vars/0": np.ones((2, 3), np.float32), "vars/0": np.int64([5])}
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        for name, value in weights.items():
            file[name] = value
        file.create_dataset("chunked", data=np.arange(9), chunks=(3,), compression="gzip")
        file.create_dataset("text", data=["a", "bc"], dtype=h5py.string_dtype())
        file["alias"] = h5py.SoftLink("/vars/0")
    import zipfile

    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "m.keras", "w", method) as archive:
            archive.write(tmp_path / "m.weights.h5", "model.weights.h5")
        for source in ("m.weights.h5", "m.keras"):
            ckptparse.convert(tmp_path / source, tmp_path / "back", overwrite=True)
            got = ckptparse.read(tmp_path / "back")
            assert got.keys() == {*weights, "chunked", "text"}
            assert got["text"].tolist() == [b"a", b"bc"]
            assert got["chunked"].tolist() == list(range(9))
            assert all(b.same(got[name], value) for name, value in weights.items())


def test_the_kind_that_keras_says_beside_bytes_of_hdf5_is_believed(tmp_path: Path) -> None:
    values = np.float32([[0.5, -2, 3], [1e30, 0, np.inf]]).astype(ml_dtypes.bfloat16)
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        file.create_dataset("vars/0", data=values.view("V2"))
        file.create_dataset("vars/1", data=values.view("V2"), chunks=(1, 3), compression="gzip")
        for found in file["vars"].values():
            found.attrs["dtype"] = "bfloat16"
    ckptparse.convert(tmp_path / "m.weights.h5", tmp_path / "back")
    got = ckptparse.read(tmp_path / "back")
    assert all(b.same(got[name], values) for name in ("vars/0", "vars/1"))
    ckptparse.convert(tmp_path / "m.weights.h5", tmp_path / "wide.npz", dtype="float32")
    assert b.same(np.load(tmp_path / "wide.npz")["vars/1"], values.astype(np.float32))


@pytest.mark.parametrize(
    ("said", "error", "match"),
    [
        (None, ckptparse.UnsupportedError, "no kind of element"),
        (7, ckptparse.UnsupportedError, "no kind of element"),
        ("float128", ckptparse.UnsupportedError, "no kind of element"),
        ("float8_e5m2", ckptparse.MalformedError, "Expected elements of 1 bytes, .* of 2"),
    ],
)
def test_bytes_of_hdf5_whose_kind_is_not_said_are_refused(
    tmp_path: Path, said: object, error: type[Exception], match: str
) -> None:
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        found = file.create_dataset("vars/0", data=np.zeros(3, "V2"))
        if said is not None:
            found.attrs["dtype"] = said
    with pytest.raises(error, match=match):
        ckptparse.convert(tmp_path / "m.weights.h5", tmp_path / "back")


def test_a_file_called_as_keras_calls_weights_is_warned_of_if_keras_cannot_load_it(
    tmp_path: Path,
) -> None:
    source = save(tmp_path / "in", {"dense/kernel": np.float32([1])})
    target = tmp_path / "m.weights.h5"
    (warning,) = ckptparse.convert(source, target, dry_run=True).warnings
    assert "paths are Keras's own" in warning and "dense/kernel" in warning
    rules = {"dense/kernel": "layers/dense/vars/0"}
    assert not ckptparse.convert(source, target, rename=rules, dry_run=True).warnings
    assert not ckptparse.convert(source, tmp_path / "m.h5", dry_run=True).warnings


# Refusals.


def test_kinds_that_safetensors_lack_are_refused_by_name_unless_their_bits_will_do(
    tmp_path: Path,
) -> None:
    values = {"i4": np.array([1, -2], ml_dtypes.int4), "c": np.complex128([1]), "s": b"text"}
    source = save(tmp_path / "in", values)
    target = tmp_path / "x.safetensors"
    with pytest.raises(ckptparse.UnsupportedError, match=r"'c' \(complex128\).*store_bits"):
        ckptparse.convert(source, target)
    assert not target.exists()
    ckptparse.convert(source, target, store_bits=True)
    raw = safetensors.numpy.load_file(target)
    assert raw["i4"].tolist() == [1, 14] and raw["c"].shape == (1, 2)


def test_names_that_collide_are_listed(tmp_path: Path) -> None:
    with pytest.raises(ckptparse.UnsupportedError, match=r"'x' of 'scope/w', 'scope/b'"):
        ckptparse.convert(save(tmp_path / "in"), tmp_path / "x.npz", rename=[("scope/.", "x")])


def test_strings_of_very_different_lengths_are_refused(tmp_path: Path) -> None:
    strings = np.array([b"x" * 200_000] + [b""] * 1000, object)
    with pytest.raises(ckptparse.UnsupportedError, match="differ too much"):
        ckptparse.convert(save(tmp_path / "in", {"s": strings}), tmp_path / "x.npz")
    assert not (tmp_path / "x.npz").exists()


@pytest.mark.parametrize("format", ENDINGS)
def test_nothing_is_replaced_unasked(format: str, tmp_path: Path) -> None:
    source, target = save(tmp_path / "in"), f"{tmp_path / 'x'}{ENDINGS[format]}"
    ckptparse.convert(source, target)
    for dry_run in (False, True):
        with pytest.raises(ckptparse.OutputExistsError):
            ckptparse.convert(source, target, dry_run=dry_run)
    ckptparse.convert(source, target, overwrite=True)


@pytest.mark.parametrize("format", ENDINGS)
def test_damage_leaves_nothing_behind(format: str, tmp_path: Path) -> None:
    source = save(tmp_path / "in")
    data = Path(f"{source}.data-00000-of-00001")
    data.write_bytes(b"\xff" + data.read_bytes()[1:])
    with pytest.raises(ckptparse.ChecksumError, match="scope/w"):
        ckptparse.convert(source, f"{tmp_path / 'x'}{ENDINGS[format]}")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_an_ending_of_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ckptparse.UnsupportedError, match="format="):
        ckptparse.convert(save(tmp_path / "in"), tmp_path / "model.bin")
    with pytest.raises(ValueError, match="format is one of"):
        ckptparse.convert(save(tmp_path / "in2"), tmp_path / "x", format="pt")  # type: ignore[arg-type]


# Choosing and changing.


def test_a_dry_run_says_the_same_and_writes_nothing(tmp_path: Path) -> None:
    source, target = save(tmp_path / "in"), tmp_path / "x.npz"
    options: Any = {"rename": {"step": None, "scope/w": "w"}, "dtype": "float16"}
    dry = ckptparse.convert(source, target, dry_run=True, **options)
    assert not target.exists() and dry.files == ()
    done = ckptparse.convert(source, target, **options)
    assert done.rows == dry.rows and str(done) == str(dry) and done.files == (str(target),)
    assert {row.old: row.new for row in done.rows} == {
        "scope/w": "w", "scope/b": "scope/b", "step": None,
    }  # fmt: skip
    assert json.loads(json.dumps(done.to_dict()))["nbytes"] == 18
    assert "scope/w -> w  float16 [2,3]  (from float32)" in str(done)
    assert "step  dropped: by a rule" in str(done)


def test_names_and_globs_choose(tmp_path: Path) -> None:
    source = save(tmp_path / "in")
    done = ckptparse.convert(source, tmp_path / "a.npz", include="scope/*", exclude=["*/b"])
    assert [row.new for row in done.kept] == ["scope/w"]
    done = ckptparse.convert(source, tmp_path / "b.npz", names=["step", "scope/b:0"])
    assert sorted(row.old for row in done.kept) == ["scope/b", "step"]
    with pytest.raises(ckptparse.TensorNotFoundError):
        ckptparse.convert(source, tmp_path / "c.npz", names=["scope/x"])
    with pytest.raises(TypeError, match="did you mean"):
        ckptparse.convert(source, tmp_path / "c.npz", names="step")


def test_floats_are_converted_and_nothing_else(tmp_path: Path) -> None:
    values = {"f": np.float32([1, 2.5]), "d": np.float64([3]), "i": np.int32([4]), "s": b"x"}
    source = save(tmp_path / "in", values)
    ckptparse.convert(source, tmp_path / "m", dtype="bfloat16")
    got = ckptparse.read(tmp_path / "m")
    assert got["f"].dtype == got["d"].dtype == ml_dtypes.bfloat16
    assert got["f"].tolist() == [1, 2.5] and got["i"].dtype == np.int32
    with pytest.raises(ValueError, match="dtype is one of"):
        ckptparse.convert(source, tmp_path / "n", dtype="int8")


@pytest.mark.parametrize(("dtype", "value"), [("float16", 70_000), ("float8_e4m3fn", 1000)])
def test_a_value_too_large_is_an_error_and_infinities_are_not(
    dtype: str, value: float, tmp_path: Path
) -> None:
    fine = {"w": np.float32([np.inf, 1])} if dtype == "float16" else {"w": np.float32([1])}
    ckptparse.convert(save(tmp_path / "fine", fine), tmp_path / "fine.npz", dtype=dtype)
    source = save(tmp_path / "in", {"w": np.float32([1, value])})
    with pytest.raises(ckptparse.UnsupportedError, match="cannot hold") as caught:
        ckptparse.convert(source, tmp_path / "x.npz", dtype=dtype)
    assert caught.value.tensor == "w" and not (tmp_path / "x.npz").exists()


def test_tensors_are_cut_along_their_last_axis(tmp_path: Path) -> None:
    values = {"l/qkv/kernel": np.arange(12).reshape(2, 6), "l/qkv_x/kernel": np.arange(3)}
    source = save(tmp_path / "in", values)
    ckptparse.convert(source, tmp_path / "a", split={"qkv": ["q", "k", "v"]})
    got = ckptparse.read(tmp_path / "a")
    assert got["l/k/kernel"].tolist() == [[2, 3], [8, 9]] and "l/qkv_x/kernel" in got
    ckptparse.convert(source, tmp_path / "b", split={"qkv": 3})
    assert "l/qkv_2/kernel" in ckptparse.read(tmp_path / "b")
    with pytest.raises(ckptparse.UnsupportedError, match="4 equal parts"):
        ckptparse.convert(source, tmp_path / "c", split={"qkv": 4})
    with pytest.raises(ValueError, match="split gives"):
        ckptparse.convert(source, tmp_path / "c", split={"qkv": 0})


KERNELS = {
    "dense/kernel": ((2, 3), (3, 2)),
    "conv1/kernel": ((2, 3, 4), (4, 3, 2)),
    "conv2/weights": ((2, 3, 4, 5), (5, 4, 2, 3)),
    "conv3/kernel": ((2, 3, 4, 5, 6), (6, 5, 2, 3, 4)),
    "deep/depthwise_kernel": ((2, 3, 4, 5), (20, 1, 2, 3)),
    "lstm_cell/kernel": ((2, 8), (2, 8)),
    "embeddings": ((2, 3), (2, 3)),
    "dense/bias": ((3,), (3,)),
    "cls/output_weights": ((2, 3), (2, 3)),
}


def test_kernels_are_turned_by_name_and_rank(tmp_path: Path) -> None:
    values = {name: np.random.default_rng(1).random(shape) for name, (shape, _) in KERNELS.items()}
    done = ckptparse.convert(save(tmp_path / "in", values), tmp_path / "x.npz", layout="torch")
    assert {row.old: row.shape for row in done.rows} == {
        name: wanted for name, (_, wanted) in KERNELS.items()
    }
    said = {row.old: " ".join(row.done) for row in done.rows}
    assert "by its name" in said["dense/kernel"] and "recurrent" in said["lstm_cell/kernel"]
    assert said["embeddings"].startswith("as it is: no name and no op") and not said["dense/bias"]
    with np.load(tmp_path / "x.npz") as found:
        assert np.array_equal(found["dense/kernel"], values["dense/kernel"].T)
        assert np.array_equal(found["conv2/weights"], values["conv2/weights"].transpose(3, 2, 0, 1))


@pytest.mark.parametrize(
    ("ema", "kept", "value"),
    [
        (None, {"w", "v"}, 1),
        ("prefer", {"w", "v"}, 5),
        ("only", {"w"}, 5),
        ("drop", {"w", "v"}, 1),
    ],
)
def test_slots_and_averages_are_told_from_weights(
    ema: Any, kept: set[str], value: int, tmp_path: Path
) -> None:
    names = {"w": 1, "v": 2, "w/Adam": 3, "w/Adam_1": 4, "w/ExponentialMovingAverage": 5}
    values: dict[str, Any] = {name: np.full(3, n, np.float32) for name, n in names.items()}
    values |= {"beta1_power": np.float32(0.5), "beta2_power": np.float32(0.5)}
    source = save(tmp_path / "in", values)
    ckptparse.convert(source, tmp_path / "m", drop_slots=True, ema=ema)
    got = ckptparse.read(tmp_path / "m")
    assert got.keys() == kept and got["w"].tolist() == [value] * 3
    with pytest.raises(ValueError, match="ema is"):
        ckptparse.convert(source, tmp_path / "n", ema="maybe")  # type: ignore[arg-type]


ROLES = {case.name: case for case in expected.cases() if case.data.get("roles")}


@pytest.mark.parametrize("name", ROLES)
def test_what_programs_say_is_an_optimizers_is_dropped_and_averages_take_their_place(
    name: str, tmp_path: Path
) -> None:
    roles, path = ROLES[name].data["roles"], ROLES[name].checkpoint.path
    slots = [by_slot for one in roles["optimizers"].values() for by_slot in one.values()]
    dropped = {stored for by_slot in slots for stored in by_slot.values()}
    dropped |= {stored for others in roles["others"].values() for stored in others}
    averages = set(roles["averages"].values())
    dry: Any = {"dry_run": True, "drop_slots": True}
    done = ckptparse.convert(path, tmp_path / "x", **dry)
    assert {row.old for row in done.rows if row.new is None} == dropped | averages
    ckptparse.convert(path, tmp_path / "x", drop_slots=True, ema="prefer")
    with ckptparse.open(path) as source, ckptparse.open(tmp_path / "x") as made:
        assert set(made) == set(source) - dropped - averages
        owners = {row.old: row for row in done.kept}
        found = 0
        for variable, kept in source.averages.by_variable().items():
            graph = source.object_graph
            keys = {} if graph is None else {n: key for key, n in graph.names_by_key.items()}
            key = keys.get(variable, variable)
            if key in owners:
                found += 1
                assert b.same(made[key].read(), kept[0].read())
        assert bool(found) == bool(averages)


def test_an_executor_gives_the_same_file(tmp_path: Path) -> None:
    values = {f"w{n}": np.full((40, n + 1), n, np.float32) for n in range(60)}
    source = save(tmp_path / "in", values)
    options: Any = {"dtype": "float16", "layout": "torch"}
    for ending in (".safetensors", ".npz", ""):
        one, other = (f"{tmp_path / name}{ending}" for name in ("one", "other"))
        ckptparse.convert(source, one, **options)
        with ThreadPoolExecutor(3) as executor:
            ckptparse.convert(source, other, executor=executor, **options)
    for name in ("one.safetensors", "one.npz", "one.index", "one.data-00000-of-00001"):
        assert (tmp_path / name).read_bytes() == (
            tmp_path / name.replace("one", "other")
        ).read_bytes()


def test_processes_give_the_same_file_whatever_the_source(tmp_path: Path) -> None:
    values = {f"w{n}": np.full((40, n + 1), n, np.float32) for n in range(12)}
    values["columns"] = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    source = save(tmp_path / "in", values)
    sources: list[Any] = [source, values, FIXTURES / "v1" / "unsharded" / "model.ckpt-2"]
    for ending in (".safetensors", ".npz", ".h5", "/"):
        ckptparse.convert(source, f"{tmp_path / 'copy'}{ending}")
        sources.append(f"{tmp_path / 'copy'}{ending}")
    np.savez_compressed(tmp_path / "small.npz", **values)
    sources.append(tmp_path / "small.npz")
    # Processes that are begun anew have nothing that is open here.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as executor, ckptparse.open(source) as opened:
        for number, one in enumerate([*sources, opened]):
            for place, workers in (("one", None), ("other", executor)):
                target = tmp_path / f"{place}{number}"
                ckptparse.convert(one, target, dtype="float16", layout="torch", executor=workers)
            for end in (".index", ".data-00000-of-00001"):
                made = [(tmp_path / f"{place}{number}{end}") for place in ("one", "other")]
                assert made[0].read_bytes() == made[1].read_bytes(), one
        large = save(tmp_path / "large", {"w": np.float32([1e30])})
        with pytest.raises(ckptparse.UnsupportedError, match="cannot hold") as caught:
            ckptparse.convert(large, tmp_path / "x", dtype="float16", executor=executor)
        assert caught.value.tensor == "w"
        # A file of the same name that has changed is another one.
        ckptparse.write(large, {"w": np.float32([2])}, overwrite=True)
        ckptparse.convert(large, tmp_path / "x", dtype="float16", executor=executor)
        assert ckptparse.read(tmp_path / "x")["w"].tolist() == [2]


def test_progress_rises_to_the_end(tmp_path: Path) -> None:
    source = save(tmp_path / "in", {"a": np.zeros(3 << 20, np.uint8), "b": np.zeros(5, np.uint8)})
    for ending in ENDINGS.values():
        told: list[tuple[int, int]] = []

        def tell(done: int, total: int, told: list[tuple[int, int]] = told) -> None:
            told.append((done, total))

        ckptparse.convert(source, f"{tmp_path / 'x'}{ending}", progress=tell)
        assert told == sorted(told) and told[-1] == ((3 << 20) + 5, (3 << 20) + 5)


@pytest.mark.parametrize("format", ENDINGS)
def test_a_large_tensor_is_copied_in_little_memory(format: str, tmp_path: Path) -> None:
    source = save(tmp_path / "in", {"a": np.zeros(24 << 20, np.uint8)})
    target = f"{tmp_path / 'x'}{ENDINGS[format]}"
    ckptparse.convert(save(tmp_path / "small"), f"{tmp_path / 'y'}{ENDINGS[format]}")
    with allocating_at_most(8 << 20):
        ckptparse.convert(source, target)
        ckptparse.convert(target, tmp_path / "back")


@pytest.mark.parametrize("ending", ["", ".safetensors"])
def test_a_large_kernel_is_turned_without_a_second_copy(ending: str, tmp_path: Path) -> None:
    values = {
        "deep/depthwise_kernel": np.zeros((3, 3, 1 << 18, 2), np.float32),
        "conv/kernel": np.zeros((3, 3, 1 << 9, 1 << 10), np.float32),
    }
    source = save(tmp_path / "in", values)
    options: Any = {"layout": "torch", "dtype": "float64"}
    ckptparse.convert(save(tmp_path / "small"), f"{tmp_path / 'y'}{ending}", **options)
    largest = max(value.nbytes for value in values.values())
    with allocating_at_most(largest + (16 << 20)):
        ckptparse.convert(source, f"{tmp_path / 'x'}{ending}", **options)


# Hostile files of other formats.


def header(content: object, data: bytes = b"") -> bytes:
    text = json.dumps(content).encode()
    return len(text).to_bytes(8, "little") + text + data


BAD_SAFETENSORS = {
    "short": b"\x01",
    "huge header": (1 << 40).to_bytes(8, "little") + b"{}",
    "no JSON": (2).to_bytes(8, "little") + b"{]",
    "deep JSON": (100_000).to_bytes(8, "little") + b"[" * 100_000,
    "a list": header([]),
    "no dtype": header({"a": {"shape": [], "data_offsets": [0, 0]}}),
    "a hole": header({"a": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}}, b"ab"),
    "too long": header({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}, b"ab"),
    "negative": header({"a": {"dtype": "U8", "shape": [-1], "data_offsets": [0, 0]}}),
    "wrong size": header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 1]}}, b"a"),
    "odd kind": header({"a": {"dtype": "F6", "shape": [1], "data_offsets": [0, 1]}}, b"a"),
    "bad kinds": header(
        {
            "__metadata__": {"ckptparse.kinds": '{"a": ["STRING", [99]]}'},
            "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        },
        b"a",
    ),
}


@pytest.mark.parametrize("case", BAD_SAFETENSORS)
def test_a_bad_safetensors_file_is_one_of_our_errors(case: str, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(BAD_SAFETENSORS[case])
    with pytest.raises(ckptparse.CheckpointError):
        ckptparse.convert(tmp_path / "x.safetensors", tmp_path / "m")
    assert not (tmp_path / "m.index").exists()


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".npy", ".keras"])
def test_every_cut_of_a_file_is_one_of_our_errors_or_reads(suffix: str, tmp_path: Path) -> None:
    whole = tmp_path / f"whole{suffix}"
    if suffix == ".npy":
        np.save(whole, np.arange(5))
    else:
        format = "npz" if suffix == ".npz" else "hdf5"
        ckptparse.convert(save(tmp_path / "in"), whole, format=format)  # type: ignore[arg-type]
    data = whole.read_bytes()
    cut = tmp_path / f"cut{suffix}"
    for size in sorted({*range(0, len(data), max(1, len(data) // 60)), len(data) - 1}):
        cut.write_bytes(data[:size])
        try:
            ckptparse.convert(cut, tmp_path / "m", overwrite=True)
        except ckptparse.CheckpointError:
            continue


def test_arrays_of_python_objects_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.array([{}, []], object))
    with pytest.raises(ckptparse.UnsupportedError, match="Python objects"):
        ckptparse.convert(tmp_path / "x.npz", tmp_path / "m")


def test_other_byte_orders_and_columns_first_are_read(tmp_path: Path) -> None:
    array = np.arange(6, dtype=">f4").reshape(2, 3)
    np.savez_compressed(tmp_path / "c.npz", a=array, f=np.asfortranarray(array))
    np.savez(tmp_path / "p.npz", a=array, f=np.asfortranarray(array), u=np.array(["ß"]))
    for name in ("c.npz", "p.npz"):
        ckptparse.convert(tmp_path / name, tmp_path / "m", overwrite=True)
        got = ckptparse.read(tmp_path / "m")
        assert np.array_equal(got["a"], array) and np.array_equal(got["f"], array)
    assert got["u"].tolist() == ["ß".encode()]


def test_what_a_recovery_wrote_is_read(tmp_path: Path) -> None:
    recovery = ckptparse.recover(FIXTURES / "saver" / "my_model")
    recovery.write(tmp_path / "d")
    ckptparse.convert(tmp_path / "d", tmp_path / "m")
    got, wanted = ckptparse.read(tmp_path / "m"), ckptparse.read(FIXTURES / "saver" / "my_model")
    assert all(b.same(got[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("size", [1 << 40, (1 << 62) + 4, (1 << 63) - 4])
@pytest.mark.parametrize("format", ENDINGS)
def test_a_tensor_that_takes_more_bytes_than_its_file_has_is_no_file(
    tmp_path: Path, format: str, size: int
) -> None:
    bundle = b.Bundle()
    bundle.add("w", np.float32(1))
    bundle.entries[b"w"] = b.Entry(b.FLOAT, (size // 4,), 0, 0, size, 1)
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    path = bundle.write(tmp_path / "in" / "m")
    target = f"{tmp_path / 'out' / 'x'}{ENDINGS[format]}"
    with pytest.raises(ckptparse.CheckpointError):
        ckptparse.convert(path, target, format=format)
    assert not [one for one in (tmp_path / "out").rglob("*") if one.is_file()]
