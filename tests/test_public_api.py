"""What is public is `ckptparse.__all__`: documented, annotated, and with flags by keyword only."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import ckptparse

FUNCTIONS = [name for name in ckptparse.__all__ if inspect.isfunction(getattr(ckptparse, name))]
CLASSES = [name for name in ckptparse.__all__ if inspect.isclass(getattr(ckptparse, name))]

STANDARD = {
    "CheckpointNotFoundError": FileNotFoundError,
    "PermissionDeniedError": PermissionError,
    "OutputExistsError": FileExistsError,
    "OutputError": OSError,
    "StorageError": OSError,
    "ClosedError": ValueError,
    "NotACheckpointError": ValueError,
    "TensorNotFoundError": KeyError,
    "DataLossError": ValueError,
    "TruncatedError": EOFError,
    "MissingShardError": FileNotFoundError,
    "LimitError": ValueError,
    "UnsupportedError": NotImplementedError,
}
DAMAGE = {"ChecksumError", "TruncatedError", "MissingShardError", "MalformedError"}


def test_all_names_what_is_public_and_nothing_else() -> None:
    """Names are resolved when first used: all of them are asked for before looking."""
    for name in ckptparse.__all__:
        assert getattr(ckptparse, name) is not None
    ours = {
        name
        for name, value in vars(ckptparse).items()
        if getattr(value, "__module__", "").startswith("ckptparse") and not name.startswith("_")
    }
    assert ours == {name for name in ckptparse.__all__ if name in ours}


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(ckptparse.__file__).read_text(encoding="utf-8"))
    choices = [node for node in tree.body if isinstance(node, ast.If)]
    (block,) = (node for node in choices if ast.unparse(node.test) == "TYPE_CHECKING")
    aliases = [
        alias for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    ]
    assert [alias.asname for alias in aliases] == [alias.name for alias in aliases]
    assert {alias.name for alias in aliases} == set(ckptparse.__all__)


def test_no_module_hides_a_public_name() -> None:
    package = Path(ckptparse.__file__).parent
    modules = {path.stem for path in package.iterdir()}
    assert modules & set(ckptparse.__all__) == set()


def test_all_is_sorted_and_names_nothing_twice() -> None:
    assert list(ckptparse.__all__) == sorted(set(ckptparse.__all__))


def test_what_a_reader_needs_is_there() -> None:
    needed = {"read", "open", "list_variables", "latest_checkpoint", "Checkpoint", "Tensor"}
    needed |= {"Limits", "CheckpointError", *STANDARD, *DAMAGE}
    assert needed <= set(ckptparse.__all__)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_is_documented_and_annotated(name: str) -> None:
    function = getattr(ckptparse, name)
    assert inspect.getdoc(function)
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_flag_is_given_by_keyword_only(name: str) -> None:
    for parameter in inspect.signature(getattr(ckptparse, name)).parameters.values():
        if isinstance(parameter.default, bool):
            assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, parameter


@pytest.mark.parametrize("name", CLASSES)
def test_a_public_class_and_its_public_methods_are_documented(name: str) -> None:
    cls = getattr(ckptparse, name)
    assert cls.__doc__
    for method, value in vars(cls).items():
        if not method.startswith("_") and (
            inspect.isfunction(value) or isinstance(value, property)
        ):
            assert inspect.getdoc(value), f"{name}.{method}"


@pytest.mark.parametrize(("name", "standard"), STANDARD.items())
def test_an_error_is_the_standard_exception_that_callers_already_catch(
    name: str, standard: type[Exception]
) -> None:
    error = getattr(ckptparse, name)
    assert issubclass(error, standard)
    assert issubclass(error, ckptparse.CheckpointError)


@pytest.mark.parametrize("name", sorted(DAMAGE))
def test_damage_is_one_family_of_errors(name: str) -> None:
    assert issubclass(getattr(ckptparse, name), ckptparse.DataLossError)


def test_the_version_is_that_of_the_package() -> None:
    try:
        installed = metadata.distribution("ckptparse")
    except metadata.PackageNotFoundError:
        pytest.skip("run from the sources, not installed")
    if Path(str(installed.locate_file("ckptparse/__init__.py"))) != Path(ckptparse.__file__):
        pytest.skip("run from the sources, beside what is installed")
    assert ckptparse.__version__ == installed.version


def test_the_command_without_its_extra_says_how_to_install_it(
    fresh_python: Callable[[str], str],
) -> None:
    printed = fresh_python(
        "import sys\n"
        "sys.modules['click'] = None\n"
        "sys.argv = ['ckptparse', 'ls', 'x']\n"
        "sys.stderr = sys.stdout\n"
        "from ckptparse.cli import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as stop:\n"
        "    print('exit:', stop.code)\n"
    )
    assert "pip install 'ckptparse[cli]'" in printed
    assert "Traceback" not in printed
    assert "exit: 2" in printed


@pytest.mark.parametrize("key", [3, None, b"bias", ("a", "b")])
def test_a_key_that_is_no_str_is_refused_by_its_type(fixtures: Path, key: Any) -> None:
    with ckptparse.open(fixtures / "saver" / "my_model") as checkpoint:
        assert key not in checkpoint
        with pytest.raises(TypeError, match=type(key).__name__):
            checkpoint[key]
        with pytest.raises(TypeError, match=type(key).__name__):
            checkpoint.read([key])


@pytest.mark.parametrize(("option", "value"), [("naming", "variables"), ("threads", 0)])
def test_an_option_that_means_nothing_is_refused(
    fixtures: Path, option: str, value: object
) -> None:
    options: dict[str, Any] = {option: value}
    with pytest.raises(ValueError, match=f"{option} is"):
        ckptparse.read(fixtures / "saver" / "my_model", **options)


def test_the_data_type_of_a_tensor_is_tensorflows_code(fixtures: Path) -> None:
    with ckptparse.open(fixtures / "saver" / "my_model") as checkpoint:
        assert checkpoint["bias"].data_type is ckptparse.DataType.DT_FLOAT
