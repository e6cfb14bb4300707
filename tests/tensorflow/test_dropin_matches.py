"""`ckptparse.tf` gives what TensorFlow gives: the same types, values, text and kinds of error."""

from __future__ import annotations

import os
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import expected
import numpy as np
import pytest

import ckptparse
import ckptparse.tf as ours

tf = pytest.importorskip("tensorflow")

CHECKPOINTS = [
    pytest.param(row.path, id=f"{case.name}:{row.path.name}")
    for case in expected.cases()
    for row in case.checkpoints
    if not row.data.get("rule") and "tensorflow_cannot_read" not in row.data
    # TensorFlow raises for names that are not UTF-8, and ends the process for slices of rank 0.
    if case.name not in ("names/not_utf8", "slices/names_to_escape", "slices/ranks")
]


def theirs(path: Path) -> Any:
    try:
        return tf.train.load_checkpoint(str(path))
    except (tf.errors.OpError, ValueError) as error:
        pytest.skip(f"TensorFlow does not read it: {error}")


def same(ours_: Any, theirs_: Any) -> bool:
    """Tell whether two results have the same type, shape, kind and bytes."""
    if type(ours_) is not type(theirs_):
        return False
    if isinstance(theirs_, bytes):
        return bool(ours_ == theirs_)
    if theirs_.dtype == object:
        return (
            ours_.dtype == object
            and ours_.shape == theirs_.shape
            and bool((ours_ == theirs_).all())
        )
    return (
        ours_.dtype == theirs_.dtype
        and ours_.shape == theirs_.shape
        and ours_.tobytes() == theirs_.tobytes()
    )


def debug_lines(reader: Any) -> set[bytes]:
    """Return the lines about whole tensors: of a sliced one TensorFlow tells the slices instead."""
    lines = reader.debug_string().rstrip(b"\n").split(b"\n")
    whole = (re.sub(rb", \d+ slices$", b"", line) for line in lines)
    return {line for line in whole if line and not line.startswith(b"\0")}


@pytest.mark.parametrize("path", CHECKPOINTS)
def test_names_shapes_and_kinds_are_the_same(path: Path) -> None:
    reader, reference = ours.train.load_checkpoint(str(path)), theirs(path)
    assert reader.get_variable_to_shape_map() == reference.get_variable_to_shape_map()
    kinds, wanted = reader.get_variable_to_dtype_map(), reference.get_variable_to_dtype_map()
    assert {name: kind.as_datatype_enum for name, kind in kinds.items()} == {
        name: kind.as_datatype_enum for name, kind in wanted.items()
    }
    lines = debug_lines(reader)
    if not any("\n" in name for name in kinds):
        assert len(lines) == len(kinds)
    assert debug_lines(reference) <= lines
    listed = ours.train.list_variables(str(path))
    assert listed == tf.train.list_variables(str(path))
    assert [type(size) for _, shape in listed for size in shape] == [
        int for _, shape in listed for _ in shape
    ]


@pytest.mark.parametrize("path", CHECKPOINTS)
def test_values_are_the_same_and_of_the_same_type(path: Path) -> None:
    reader, reference = ours.train.load_checkpoint(path), theirs(path)
    for name, kind in reference.get_variable_to_dtype_map().items():
        if kind == tf.variant:
            continue  # TensorFlow ends the process.
        try:
            wanted = reference.get_tensor(name)
        except (tf.errors.OpError, IndexError, TypeError, ValueError):
            continue
        assert same(reader.get_tensor(name), wanted), name
        assert same(ours.train.load_variable(path, f"{name}:0"), wanted), name
        assert reader.has_tensor(name)
        assert reader.has_tensor(f"{name}:0") == reference.has_tensor(f"{name}:0")


# Kinds of element

ATTRIBUTES = [
    *("name", "as_datatype_enum", "size", "is_bool", "is_complex", "is_floating", "is_integer"),
    *("is_numpy_compatible", "is_quantized", "is_unsigned"),
]


@pytest.mark.parametrize("name", ours.dtypes.DTYPES)
def test_a_kind_of_element_has_the_same_attributes(name: str) -> None:
    kind, wanted = getattr(ours, name), tf.as_dtype(name)
    for attribute in ATTRIBUTES:
        assert getattr(kind, attribute) == getattr(wanted, attribute), attribute
    assert (repr(kind), str(kind), hash(kind)) == (repr(wanted), str(wanted), hash(wanted))
    assert kind.real_dtype.name == wanted.real_dtype.name
    try:
        numpy_type = wanted.as_numpy_dtype
    except KeyError:
        with pytest.raises(KeyError):
            _ = kind.as_numpy_dtype
    else:
        assert kind.as_numpy_dtype == numpy_type
        assert kind == numpy_type
        assert ours.as_dtype(numpy_type).name == tf.as_dtype(numpy_type).name
    assert kind == name
    assert kind == kind.as_datatype_enum
    assert getattr(ours.dtypes, name) is kind


@pytest.mark.parametrize(
    "value",
    [
        *("float32", "float", "half", "double", "int32", "float32_ref", "nothing"),
        *(float, int, bool, str, object, np.float16, np.dtype("<i8"), np.dtype("S3")),
        *(1, 101, 0, 99, None, 3.5),
    ],
)
def test_a_value_means_the_same_kind_or_none(value: Any) -> None:
    try:
        wanted = tf.as_dtype(value)
    except (TypeError, KeyError):
        with pytest.raises(TypeError):
            ours.as_dtype(value)
    else:
        found = ours.as_dtype(value)
        assert (found.name, found.as_datatype_enum) == (wanted.name, wanted.as_datatype_enum)
        assert found.base_dtype.name == wanted.base_dtype.name


# State files

DIRECTORIES = sorted(
    {path.parent for path in expected.FIXTURES.rglob("checkpoint") if path.parent.name != "moved"}
)
"""In `moved` we find the checkpoint beside the state file, and TensorFlow does not."""


@pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)
def test_state_files_say_the_same(directory: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert ours.train.latest_checkpoint(directory) == tf.train.latest_checkpoint(directory)
        found = ours.train.get_checkpoint_state(directory)
        wanted = tf.train.get_checkpoint_state(directory)
    assert type(found).__name__ == type(wanted).__name__
    assert str(found) == str(wanted)
    prefixes = list(wanted.all_model_checkpoint_paths)
    old = tf.compat.v1.train
    assert [ours.compat.v1.train.checkpoint_exists(one) for one in prefixes] == [
        old.checkpoint_exists(one) for one in prefixes
    ]
    times = ours.compat.v1.train.get_checkpoint_mtimes(prefixes)
    assert times == [int(one) for one in old.get_checkpoint_mtimes(prefixes)]


def test_directories_without_a_state_file_have_no_state(tmp_path: Path) -> None:
    for train in (ours.train, tf.train):
        assert train.latest_checkpoint(tmp_path) is None
        assert train.get_checkpoint_state(tmp_path) is None
        assert train.latest_checkpoint(tmp_path / "nothing") is None
        with pytest.raises(ValueError, match=str(tmp_path)):
            train.load_checkpoint(str(tmp_path))


def test_new_checkpoints_are_told_once_each(tmp_path: Path) -> None:
    found: list[list[str]] = [[], []]
    for number, train in enumerate((ours.train, tf.train)):
        directory = tmp_path / str(number)
        saved = tf.train.Checkpoint(v=tf.Variable(1.0))
        saved.save(str(directory / "ckpt"))
        for path in train.checkpoints_iterator(str(directory), timeout=0.1):
            found[number].append(Path(path).name)
            if len(found[number]) < 3:
                saved.save(str(directory / "ckpt"))
    assert found[0] == found[1] == ["ckpt-1", "ckpt-2", "ckpt-3"]


# What is printed


@pytest.mark.parametrize(
    "arguments",
    [
        ("", False),
        ("", True),
        ("", False, True),
        ("weights", False),
        ("nothing", False),
        ("", False, True, "wei"),
        ("", False, False, "."),
    ],
)
def test_what_inspect_checkpoint_prints_is_the_same(
    arguments: tuple[Any, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    from tensorflow.python.tools import inspect_checkpoint

    path = str(expected.load("saver/my_model").checkpoint.path)
    inspect_checkpoint.print_tensors_in_checkpoint_file(path, *arguments)
    wanted = capsys.readouterr().out
    ours.python.tools.inspect_checkpoint.print_tensors_in_checkpoint_file(path, *arguments)
    assert capsys.readouterr().out == wanted


# Errors


def damaged(directory: Path) -> Path:
    for path in expected.load("saver/my_model").root.glob("my_model.*"):
        if path.suffix != ".json":
            shutil.copy(path, directory)
    return directory / "my_model"


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


DATA, INDEX = ".data-00000-of-00001", ".index"
SITUATIONS: dict[str, Callable[[Path], Any]] = {
    "no such tensor": lambda _: None,
    "a flipped bit": lambda prefix: flip(Path(f"{prefix}{DATA}"), 0),
    "cut data": lambda prefix: cut(Path(f"{prefix}{DATA}"), 5),
    "no data": lambda prefix: os.remove(f"{prefix}{DATA}"),
    "a flipped bit of the index": lambda prefix: flip(Path(f"{prefix}{INDEX}"), 10),
    "a cut index": lambda prefix: cut(Path(f"{prefix}{INDEX}"), 30),
    "no index": lambda prefix: os.remove(f"{prefix}{INDEX}"),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_what_catches_the_error_of_tensorflow_catches_ours(situation: str, tmp_path: Path) -> None:
    prefix = damaged(tmp_path)
    SITUATIONS[situation](prefix)
    name = "nothing" if situation == "no such tensor" else "bias"
    with pytest.raises((tf.errors.OpError, IndexError)) as reference:
        tf.train.load_variable(str(prefix), name)
    with pytest.raises(ckptparse.CheckpointError) as found:
        ours.train.load_variable(str(prefix), name)
    caught = {kind.__name__ for kind in type(found.value).__mro__}
    wanted = {kind.__name__ for kind in type(reference.value).__mro__ if kind is not object}
    assert wanted <= caught
    assert isinstance(found.value, ours.errors.OpError)
    if isinstance(reference.value, tf.errors.NotFoundError):
        assert found.value.error_code == reference.value.error_code


@pytest.mark.parametrize("name", [None, 3, 2.5, ["w"]])
def test_what_is_no_name_is_refused_alike(name: Any) -> None:
    path = str(expected.load("saver/my_model").checkpoint.path)
    for train in (ours.train, tf.train):
        for method in ("get_tensor", "has_tensor"):
            with pytest.raises(TypeError, match="Expected binary or unicode string"):
                getattr(train.load_checkpoint(path), method)(name)


@pytest.mark.parametrize("code", [name for name in ours.errors.__all__ if name.isupper()])
def test_numbers_of_errors_are_tensorflows(code: str) -> None:
    assert getattr(ours.errors, code) == getattr(tf.errors, code)


# One process with both


def test_the_real_tensorflow_is_never_replaced() -> None:
    with pytest.raises(RuntimeError, match="imported already"), ours.as_tensorflow():
        pass
    assert tf.train.list_variables is not ours.train.list_variables


@pytest.mark.parametrize("name", sorted(ours.namespaces.make_modules("tensorflow")))
def test_the_modules_that_stand_in_have_names_that_tensorflow_has(name: str) -> None:
    """But for those of TensorFlow 1."""
    import importlib

    old = (".contrib", ".pywrap_tensorflow", ".saver")
    if any(part in name for part in old):
        pytest.skip("TensorFlow 1 had it")
    module = ours.namespaces.make_modules("tensorflow")[name]
    path = name.removeprefix("tensorflow").lstrip(".")
    real: Any = importlib.import_module(name) if ".python" in name else tf
    for part in path.split(".") if ".python" not in name and path else ():
        real = getattr(real, part)
    served = [key for key in vars(module) if not key.startswith("_") and key != "VERSION"]
    missing = [key for key in served if not hasattr(real, key)]
    from_the_past = {"NewCheckpointReader", "wait_for_new_checkpoint", "get_checkpoint_mtimes"}
    from_the_past |= {"checkpoint_exists", "contrib", "pywrap_tensorflow", "compat", "DType"}
    from_the_past |= {"python", "checkpoint_management", "checkpoints_iterator", "saver"}
    assert [
        key for key in missing if key not in from_the_past and key not in ours.dtypes.DTYPES
    ] == []
