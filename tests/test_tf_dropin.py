"""`ckptparse.tf` as scripts use it; tests/tensorflow compares each result with TensorFlow's."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import expected
import numpy as np
import pytest
from builder import Bundle

import ckptparse
from ckptparse import errors as own
from ckptparse import tf

MODEL = expected.load("saver/my_model")
PREFIX = str(MODEL.checkpoint.path)


# Reading


def test_a_script_of_tensorflow_2_reads_with_one_line_changed() -> None:
    reader = tf.train.load_checkpoint(PREFIX)
    assert reader.get_variable_to_shape_map() == {"bias": [4], "weights": [3, 4]}
    assert reader.get_variable_to_dtype_map() == {"bias": tf.float32, "weights": tf.float32}
    assert tf.train.list_variables(PREFIX) == [("bias", [4]), ("weights", [3, 4])]
    for name, fact in MODEL.checkpoint.tensors.items():
        for asked in (name, name.encode()):
            expected.assert_matches(reader.get_tensor(asked), fact)
            assert reader.has_tensor(asked)
        expected.assert_matches(tf.train.load_variable(PREFIX, f"{name}:0"), fact)
    assert reader.debug_string() == b"bias (DT_FLOAT) [4]\nweights (DT_FLOAT) [3,4]\n"
    assert PREFIX in repr(reader)


def test_scripts_of_tensorflow_1_find_their_functions() -> None:
    for function in (
        tf.train.NewCheckpointReader,
        tf.compat.v1.train.NewCheckpointReader,
        tf.python.pywrap_tensorflow.NewCheckpointReader,
        tf.python.training.py_checkpoint_reader.NewCheckpointReader,
    ):
        assert function(PREFIX).has_tensor("bias")
    assert tf.contrib.framework.list_variables(PREFIX) == tf.train.list_variables(PREFIX)
    assert tf.contrib.framework.load_variable(PREFIX, "bias").shape == (4,)
    assert tf.compat.v1.train.checkpoint_exists(PREFIX)
    assert not tf.compat.v1.train.checkpoint_exists(f"{PREFIX}x")
    (when,) = tf.train.get_checkpoint_mtimes([PREFIX, f"{PREFIX}x"])
    assert when == int(os.stat(f"{PREFIX}.index").st_mtime)


def test_the_modules_below_can_be_imported() -> None:
    old = importlib.import_module("ckptparse.tf.compat.v1")
    assert old.train.list_variables(PREFIX)
    reading = importlib.import_module("ckptparse.tf.python.training.py_checkpoint_reader")
    assert reading.NewCheckpointReader is tf.train.NewCheckpointReader
    assert ckptparse.tf is tf


def test_scalars_are_numpys_and_scalar_strings_bytes(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add("number", np.array(3, np.int64))
    bundle.add("text", np.array(b"hello", object))
    bundle.add("texts", np.array([b"a", b""], object))
    bundle.write(tmp_path / "m")
    load = tf.train.load_variable
    assert type(load(tmp_path / "m", "number")) is np.int64
    assert load(str(tmp_path / "m").encode(), "text") == b"hello"
    assert type(load(tmp_path / "m", "text")) is bytes
    assert load(tmp_path / "m", "texts").tolist() == [b"a", b""]
    first, second = (load(tmp_path / "m", "texts") for _ in range(2))
    assert first is not second
    assert first.flags.writeable


def test_the_object_graph_is_a_tensor_here() -> None:
    path = expected.load("objects/write").checkpoint.path
    key = "_CHECKPOINTABLE_OBJECT_GRAPH"
    assert (key, []) in tf.train.list_variables(path)
    with ckptparse.open(path) as checkpoint:
        assert checkpoint.object_graph is not None
        assert tf.train.load_variable(path, key) == checkpoint.object_graph.serialized
        assert key not in checkpoint


def test_the_names_of_a_reader_are_exact() -> None:
    reader = tf.train.load_checkpoint(PREFIX)
    assert not reader.has_tensor("bias:0")
    with pytest.raises(tf.errors.NotFoundError, match="Key bias:0 not found in checkpoint"):
        reader.get_tensor("bias:0")
    for name in (None, 3):
        with pytest.raises(TypeError, match="Expected binary or unicode string"):
            reader.get_tensor(name)  # type: ignore[arg-type]


def test_names_that_are_not_utf8_are_found_by_their_bytes(tmp_path: Path) -> None:
    bundle = Bundle()
    bundle.add(b"\xff", np.array([1], np.float32))
    bundle.write(tmp_path / "m")
    reader = tf.train.load_checkpoint(tmp_path / "m")
    assert reader.has_tensor(b"\xff")
    assert reader.get_tensor(b"\xff").tolist() == [1]
    assert reader.debug_string() == b"\xff (DT_FLOAT) [1]\n"


@pytest.mark.parametrize("suffix", ["", ".index", ".data-00000-of-00001"])
def test_every_spelling_of_a_path_is_taken(suffix: str) -> None:
    assert [name for name, _ in tf.train.list_variables(PREFIX + suffix)] == ["bias", "weights"]


def test_state_files_are_read() -> None:
    directory = str(MODEL.root)
    assert tf.train.latest_checkpoint(directory) == PREFIX
    state = tf.train.get_checkpoint_state(directory)
    assert state is not None
    assert state.model_checkpoint_path == PREFIX
    assert list(state.all_model_checkpoint_paths) == [PREFIX]
    assert tf.train.get_checkpoint_state(directory, "nothing") is None
    assert tf.train.load_checkpoint(directory).has_tensor("bias")


def test_a_state_file_may_have_another_name(tmp_path: Path) -> None:
    write(tmp_path / "m-1", 1)
    (tmp_path / "best").write_text('model_checkpoint_path: "m-1"\n')
    assert tf.train.latest_checkpoint(tmp_path) is None
    assert tf.train.latest_checkpoint(tmp_path, latest_filename="best") == str(tmp_path / "m-1")
    state = tf.train.get_checkpoint_state(tmp_path, latest_filename="best")
    assert state is not None and state.model_checkpoint_path == str(tmp_path / "m-1")


def test_a_reader_takes_the_pattern_of_several_files() -> None:
    folder = expected.load("v1/sharded").root
    first = min(path for path in folder.iterdir() if "-of-" in path.name and path.suffix != ".meta")
    pattern = str(first).replace("00000-of", "?????-of")
    reader = tf.compat.v1.train.NewCheckpointReader(pattern)
    assert len(reader.get_variable_to_shape_map()) > 1


def test_new_checkpoints_are_iterated_over(tmp_path: Path) -> None:
    def save(number: int) -> None:
        bundle = Bundle()
        bundle.add("v", np.array(number, np.float32))
        bundle.write(tmp_path / f"m-{number}")
        (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "m-{number}"\n')

    asked = []

    def timeout_fn() -> bool:
        asked.append(True)
        return len(asked) == 2

    save(1)
    found = []
    iterator = tf.train.checkpoints_iterator(
        tmp_path, min_interval_secs=0.01, timeout=0, timeout_fn=timeout_fn
    )
    for path in iterator:
        found.append(Path(path).name)
        if len(found) < 3:
            save(len(found) + 1)
    assert found == ["m-1", "m-2", "m-3"]
    assert len(asked) == 2
    assert list(tf.train.checkpoints_iterator(tmp_path / "nothing", timeout=0)) == []


# Readers that are kept


def write(prefix: Path, value: float) -> None:
    bundle = Bundle()
    bundle.add("v", np.array(value, np.float32))
    bundle.write(prefix)


def test_a_reader_is_kept_as_long_as_its_files_are_the_same(tmp_path: Path) -> None:
    write(tmp_path / "m", 1)
    first = tf.train.load_checkpoint(tmp_path / "m")
    assert tf.train.load_checkpoint(tmp_path / "m") is first
    write(tmp_path / "m", 2)
    os.utime(tmp_path / "m.index", ns=(1, 1))
    assert tf.train.load_variable(tmp_path / "m", "v") == 2
    assert tf.train.load_checkpoint(tmp_path / "m") is not first


def test_a_changed_data_file_alone_is_seen(tmp_path: Path) -> None:
    write(tmp_path / "m", 1)
    assert tf.train.load_variable(tmp_path / "m", "v") == 1
    data = tmp_path / "m.data-00000-of-00001"
    data.write_bytes(np.array([7], "<f4").tobytes())
    os.utime(data, ns=(1, 1))
    with pytest.raises(tf.errors.DataLossError, match="Checksum does not match"):
        tf.train.load_variable(tmp_path / "m", "v")


def test_a_directory_means_its_newest_checkpoint_at_every_call(tmp_path: Path) -> None:
    for number in (1, 2):
        write(tmp_path / f"m-{number}", number)
        (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "m-{number}"\n')
        os.utime(tmp_path / "checkpoint", ns=(number, number))
        assert tf.train.load_variable(tmp_path, "v") == number


def test_a_checkpoint_that_is_gone_is_not_found_any_more(tmp_path: Path) -> None:
    write(tmp_path / "m", 1)
    assert tf.train.load_variable(tmp_path / "m", "v") == 1
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(tf.errors.NotFoundError):
        tf.train.load_variable(tmp_path / "m", "v")


def test_a_reader_outlives_many_others(tmp_path: Path) -> None:
    write(tmp_path / "first", 0)
    first = tf.train.load_checkpoint(tmp_path / "first")
    for number in range(12):
        write(tmp_path / f"m-{number}", number)
        assert tf.train.load_variable(tmp_path / f"m-{number}", "v") == number
    assert first.get_tensor("v") == 0


# Errors


def damaged(tmp_path: Path) -> Path:
    for path in MODEL.root.glob("my_model.*"):
        if path.suffix != ".json":
            shutil.copy(path, tmp_path)
    return tmp_path / "my_model"


def test_no_tensor_of_a_name_is_all_that_callers_catch() -> None:
    for kind in (tf.errors.NotFoundError, tf.errors.OpError, own.TensorNotFoundError, KeyError):
        with pytest.raises(kind) as caught:
            tf.train.load_variable(PREFIX, "bia")
        error: Any = caught.value
        assert error.message == "Key bia not found in checkpoint"
        assert error.error_code == tf.errors.NOT_FOUND == 5
        assert (error.node_def, error.op) == (None, None)
        assert error.closest == ("bias",)


def test_no_checkpoint_is_all_that_callers_catch(tmp_path: Path) -> None:
    for kind in (tf.errors.NotFoundError, own.CheckpointNotFoundError, FileNotFoundError):
        with pytest.raises(kind) as caught:
            tf.train.load_checkpoint(tmp_path / "nothing")
        assert caught.value.errno == 2  # type: ignore[attr-defined]


def test_a_directory_without_checkpoints_is_a_value_error_too(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"."):
        tf.train.load_checkpoint(tmp_path)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "gone"\n')
    with pytest.raises(ValueError, match="Couldn't find 'checkpoint' file or checkpoints"):
        tf.train.load_checkpoint(tmp_path)
    with pytest.raises(tf.errors.NotFoundError):
        tf.train.load_checkpoint(tmp_path)


def test_a_cut_file_is_all_that_callers_catch(tmp_path: Path) -> None:
    prefix = damaged(tmp_path)
    data = Path(f"{prefix}.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:5])
    kinds = (tf.errors.OutOfRangeError, tf.errors.DataLossError, own.TruncatedError, IndexError)
    for kind in (*kinds, EOFError, ValueError):
        with pytest.raises(kind):
            tf.train.load_variable(prefix, "weights")


def test_a_missing_data_file_is_all_that_callers_catch(tmp_path: Path) -> None:
    prefix = damaged(tmp_path)
    Path(f"{prefix}.data-00000-of-00001").unlink()
    assert tf.train.list_variables(prefix)
    kinds = (tf.errors.NotFoundError, tf.errors.DataLossError, own.MissingShardError)
    for kind in (*kinds, FileNotFoundError):
        with pytest.raises(kind):
            tf.train.load_variable(prefix, "weights")


ERRORS: list[own.CheckpointError] = [
    own.CheckpointError("m"),
    own.CheckpointNotFoundError("m", path="p"),
    own.PermissionDeniedError("m", path="p"),
    own.OutputExistsError("m", path="p"),
    own.ClosedError("m"),
    own.NotACheckpointError("m", identity=3),
    own.TensorNotFoundError("m", closest=("a",), tensor="b"),
    own.AmbiguousError("m", candidates=("a", "b")),
    own.DataLossError("m", offset=3, size=4),
    own.ChecksumError("m", stored=1, computed=2),
    own.TruncatedError("m"),
    own.MissingShardError("m", path="p"),
    own.MalformedError("m"),
    own.LimitError("m", limit="entries"),
    own.UnsupportedError("m", hint="h"),
    own.StorageError("m", path="p"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("more", [(), (ValueError,), (KeyError,)])
def test_every_error_has_both_classes_and_says_the_same(
    error: own.CheckpointError, more: tuple[type[Exception], ...]
) -> None:
    made = tf.errors.as_tensorflow_error(error, *more)
    for kind in (type(error), tf.errors.OpError, *more):
        assert isinstance(made, kind)
    assert str(made) == str(error)
    assert vars(made) == vars(error)
    assert tf.errors.as_tensorflow_error(made) is made
    assert type(tf.errors.as_tensorflow_error(error, *more)) is type(made)
    again = pickle.loads(pickle.dumps(made))  # noqa: S301 - our own
    assert type(again) is type(made)
    assert (str(again), vars(again)) == (str(made), vars(made))


def test_every_error_of_ours_has_one_of_tensorflows() -> None:
    assert {type(error) for error in ERRORS} >= {
        kind
        for kind in vars(own).values()
        if isinstance(kind, type)
        and issubclass(kind, own.CheckpointError)
        and not kind.__name__.startswith("_")
        # What concerns outputs is not raised by reading.
        and not kind.__name__.startswith("Output")
    }


# Kinds of element


def test_kinds_of_element_are_compared_as_scripts_do() -> None:
    kind = tf.train.load_checkpoint(PREFIX).get_variable_to_dtype_map()["bias"]
    assert kind == tf.float32 == tf.dtypes.float32
    assert kind == np.float32
    assert kind == "float32"
    assert kind != tf.int32
    assert kind != None  # noqa: E711 - scripts do that
    assert kind != object()
    assert kind in (tf.float16, tf.float32)
    assert {tf.float32: 1}[kind] == 1
    assert (kind.name, kind.as_numpy_dtype, kind.size) == ("float32", np.float32, 4)
    assert (repr(kind), str(kind)) == ("tf.float32", "<dtype: 'float32'>")
    assert kind.is_compatible_with(np.dtype("f4"))
    assert pickle.loads(pickle.dumps(kind)) == kind  # noqa: S301 - our own
    assert tf.as_dtype("float32_ref").base_dtype is not None
    assert tf.as_dtype(101).base_dtype == kind
    with pytest.raises(TypeError, match="number of a DataType"):
        tf.DType(77)


@pytest.mark.parametrize("module", [tf, tf.dtypes, tf.train, tf.errors, tf.compat.v1])
def test_what_is_not_there_is_said_so(module: ModuleType) -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'keras': it .*reads checkpoints"):
        _ = module.keras


# What is printed


def test_what_a_checkpoint_holds_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    show = tf.python.tools.inspect_checkpoint.print_tensors_in_checkpoint_file
    show(PREFIX, "bias", False)
    assert capsys.readouterr().out == (
        "tensor: bias (float32) [4]\n[ 0.5 -1.   2.   0. ]\n# Total number of params: 16\n"
    )
    show(PREFIX, "", False, True, "^wei")
    assert capsys.readouterr().out == (
        "tensor: bias (float32) [4]\n"
        "tensor: weights (float32) [3, 4]\n"
        "# Excluding 1 tensors (12 params) that match ^wei when counting.\n"
        "# Total number of params: 4\n"
    )
    show(PREFIX, "nothing", False)
    assert capsys.readouterr().out == "Tensor nothing not found in checkpoint\n"
    show(f"{PREFIX}x", "", True)
    assert "No such checkpoint" in capsys.readouterr().out


# In the place of tensorflow


@pytest.fixture
def free() -> Iterator[None]:
    """Take away what else is called tensorflow, as the folder of our tests is."""
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if is_tensorflow(name)}
    yield
    assert not any(map(is_tensorflow, sys.modules))
    sys.modules.update(kept)


def is_tensorflow(name: str) -> bool:
    return name.partition(".")[0] == "tensorflow"


IMPORTS = [
    "import tensorflow as tf",
    "import tensorflow.compat.v1 as tf",
    "from tensorflow import compat, train, errors, float32",
    "from tensorflow.python import pywrap_tensorflow",
    "from tensorflow.python.training import checkpoint_utils, py_checkpoint_reader",
    "from tensorflow.python.tools.inspect_checkpoint import print_tensors_in_checkpoint_file",
    "from tensorflow.contrib.framework import load_variable, list_variables",
    "from tensorflow.python.framework.errors_impl import NotFoundError",
    "from tensorflow.python.framework.errors import OpError",
    "from tensorflow.errors import DataLossError",
]


@pytest.mark.parametrize("line", IMPORTS)
@pytest.mark.usefixtures("free")
def test_code_inside_finds_what_it_imports(line: str) -> None:
    with tf.as_tensorflow() as module:
        exec(line, {})  # noqa: S102 - the lines above
        assert sys.modules["tensorflow"] is module
        spec = importlib.util.find_spec("tensorflow")
        assert spec is not None
        assert spec.name == "tensorflow"
        assert module.__version__.split(".")[0] == "2"
        assert module.train.list_variables(PREFIX) == tf.train.list_variables(PREFIX)


@pytest.mark.usefixtures("free")
def test_nothing_of_it_is_left_whatever_happens_inside() -> None:
    before = dict(sys.modules)
    with pytest.raises(ImportError), tf.as_tensorflow():
        exec("import tensorflow.python.training.saver, nothing", {})  # noqa: S102
    assert sys.modules == before


@pytest.mark.usefixtures("free")
def test_it_may_be_used_inside_of_itself() -> None:
    with tf.as_tensorflow() as outer:
        with tf.as_tensorflow() as inner:
            assert inner is outer
        assert sys.modules["tensorflow"] is outer
    assert "tensorflow" not in sys.modules


@pytest.mark.usefixtures("free")
def test_what_it_does_not_do_is_an_error_that_says_so() -> None:
    with tf.as_tensorflow() as module:
        with pytest.raises(AttributeError, match=r"'keras': it is ckptparse\.tf, which reads"):
            _ = module.keras
        with pytest.raises(ImportError):
            importlib.import_module("tensorflow.keras")
        with pytest.raises(ImportError):
            exec("from tensorflow.train import AdamOptimizer", {})  # noqa: S102


@pytest.mark.parametrize("name", ["tensorflow", "tensorflow.python"])
@pytest.mark.usefixtures("free")
def test_a_tensorflow_that_is_there_is_not_replaced(name: str) -> None:
    real = sys.modules[name] = ModuleType(name)
    try:
        with pytest.raises(ckptparse.UnsupportedError, match="imported already"):
            tf.as_tensorflow().__enter__()
        assert sys.modules[name] is real
    finally:
        del sys.modules[name]
    with tf.as_tensorflow():
        pass


def test_the_real_one_can_be_imported_afterwards(
    fresh_python: Callable[[str], str], tmp_path: Path
) -> None:
    package = tmp_path / "tensorflow"
    package.mkdir()
    (package / "__init__.py").write_text("real = True\n")
    (package / "train.py").write_text("")
    printed = fresh_python(
        "import sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "import ckptparse\n"
        "import ckptparse.tf\n"
        "with ckptparse.tf.as_tensorflow():\n"
        "    import tensorflow.train\n"
        "    assert tensorflow.VERSION\n"
        "import tensorflow\n"
        "import tensorflow.train\n"
        "print(tensorflow.real, tensorflow.train.__file__ is not None)"
    )
    assert printed.split() == ["True", "True"]


def test_importing_the_package_alone_brings_none_of_it(fresh_python: Callable[[str], str]) -> None:
    printed = fresh_python(
        "import sys, ckptparse\n"
        "print(any(name.startswith('ckptparse.tf') for name in sys.modules))\n"
        "with ckptparse.tf.as_tensorflow():\n"
        "    print('tensorflow' in sys.modules)"
    )
    assert printed.split() == ["False", "True"]


def test_a_kind_of_element_that_tensorflow_does_not_know_is_an_error_of_both(
    tmp_path: Path,
) -> None:
    bundle = Bundle()
    bundle.add("known", np.zeros(2, np.float32))
    bundle.add("odd", np.zeros(2, np.float32))
    bundle.change("odd", dtype=255)
    reader = tf.train.load_checkpoint(bundle.write(tmp_path / "m"))
    assert reader.get_variable_to_shape_map() == {"known": [2], "odd": [2]}
    with pytest.raises(TypeError, match="255") as caught:
        reader.get_variable_to_dtype_map()
    assert isinstance(caught.value, (own.UnsupportedError, tf.errors.UnimplementedError))
    assert caught.value.tensor == "odd"
    assert reader.get_tensor("known").tolist() == [0, 0]
    with pytest.raises(tf.errors.UnimplementedError):
        reader.get_tensor("odd")
