"""Every type that a public signature reaches is public too: exported, and documented."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import ckptparse

EXPORTED = set(ckptparse.__all__)
PACKAGE = Path(ckptparse.__file__).resolve().parent


@cache
def parsed(module: str) -> ast.Module:
    source = importlib.import_module(module).__file__
    assert source is not None
    return ast.parse(Path(source).read_text(encoding="utf-8"))


@cache
def homes(module: str) -> dict[str, tuple[str, str]]:
    """Say which module of ours each imported name of a module comes from, and its name there."""
    found = {}
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ckptparse"):
            for alias in node.names:
                found[alias.asname or alias.name] = (node.module or "", alias.name)
    return found


def assigned(module: str, name: str) -> ast.expr | None:
    """Find what a module assigns to a name, if it is an alias of types."""
    for node in parsed(module).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return None if isinstance(node.value, ast.Call) else node.value
    return None


def classes(module: str) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in parsed(module).body if isinstance(node, ast.ClassDef)}


def names_in(annotation: ast.expr) -> Iterator[str]:
    """Iterate over the names in an annotation, also in one that is written as a string."""
    for node in ast.walk(annotation):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from names_in(ast.parse(node.value, mode="eval").body)


def is_literal(annotation: ast.expr) -> bool:
    return isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Literal"


def of_function(function: ast.FunctionDef) -> Iterator[ast.expr]:
    """Iterate over the annotations of a function's parameters and of what it returns."""
    arguments = function.args
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        hidden = argument.arg.startswith("_")
        if argument.annotation is not None and not hidden:
            yield argument.annotation
    if function.returns is not None:
        yield function.returns


def of_class(node: ast.ClassDef) -> Iterator[ast.expr]:
    """Iterate over the annotations that users of a class see: fields, methods, properties."""
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and not ast.unparse(part.target).startswith("_"):
            yield part.annotation
        elif isinstance(part, ast.FunctionDef):
            special = part.name in ("__getitem__", "__iter__", "__call__")
            if special or not part.name.startswith("_"):
                yield from of_function(part)
    yield from node.bases


def annotations(module: str, name: str) -> Iterator[ast.expr]:
    """Iterate over the annotations that belong to a name of a module."""
    for node in parsed(module).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            yield from of_function(node)
    if name in classes(module):
        yield from of_class(classes(module)[name])
    alias = assigned(module, name)
    if alias is not None and not is_literal(alias):
        yield alias


def defined_in(module: ModuleType, name: str) -> tuple[str, str]:
    """Follow imports to the module of ours that defines a name."""
    where = module.__name__
    while name in homes(where):
        where, name = homes(where)[name]
    return where, name


def reached() -> dict[tuple[str, str], str]:
    """Return every type of ours that the public names reach, and the name that reaches it."""
    queue = [(defined_in(ckptparse, name), name) for name in ckptparse.__all__]
    found: dict[tuple[str, str], str] = {}
    while queue:
        (module, name), by = queue.pop()
        if (module, name) in found:
            continue
        found[module, name] = by
        for annotation in annotations(module, name):
            for used in set(names_in(annotation)):
                where = defined_in(importlib.import_module(module), used)
                if is_ours(*where):
                    queue.append((where, f"{by} -> {used}"))
    return found


def is_ours(module: str, name: str) -> bool:
    """Tell whether a name is a class of ours, or an alias that a module of ours defines."""
    return name in classes(module) or assigned(module, name) is not None


def test_every_class_that_a_public_signature_reaches_is_public() -> None:
    exported = {defined_in(ckptparse, name) for name in ckptparse.__all__}
    hidden = {
        f"{module}.{name}": by
        for (module, name), by in reached().items()
        if (module, name) not in exported and name in classes(module) and name[0] != "_"
    }
    assert hidden == {}


def test_every_public_type_is_documented() -> None:
    for module, name in reached():
        if name.startswith("_"):
            continue
        if name in classes(module):
            assert ast.get_docstring(classes(module)[name]), f"{module}.{name}"
        elif assigned(module, name) is not None:
            assert documented_alias(module, name), f"{module}.{name}"


def documented_alias(module: str, name: str) -> bool:
    """Tell whether a text stands below an alias."""
    body = parsed(module).body
    for node, below in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
    return False


def test_the_walk_finds_what_it_should() -> None:
    names = {name for _, name in reached()}
    assert {"Checkpoint", "Tensor", "Location", "TensorReport", "Status", "PathLike"} <= names


def test_a_public_function_keeps_its_annotations_at_run_time() -> None:
    function: Any = ckptparse.read
    assert inspect.signature(function).return_annotation


# How values look in a prompt.


def values(root: object, *, depth: int = 5) -> Iterator[object]:
    """Iterate over a value of ours and what its attributes lead to, one of each class."""
    seen: set[type] = set()
    queue = [(root, depth)]
    while queue:
        value, left = queue.pop()
        if not type(value).__module__.startswith("ckptparse") or type(value) in seen:
            continue
        seen.add(type(value))
        yield value
        for name in dir(value) if left else ():
            if name.startswith("_"):
                continue
            try:
                found = getattr(value, name)
            except Exception:  # noqa: BLE001, S112 - whatever a property refuses is another test's
                continue
            if isinstance(found, Mapping):
                queue += [(one, left - 1) for one in list(found.values())[:2]]
            elif isinstance(found, (list, tuple)):
                queue += [(one, left - 1) for one in found[:2]]
            queue.append((found, left - 1))


ROOTS = {
    "SavedModel": lambda home: ckptparse.open_saved_model(home / "saved_model/keras2_sequential"),
    "Graph": lambda home: ckptparse.open_graph(home / "saver/my_model.meta"),
    "Checkpoint": lambda home: ckptparse.open(home / "objects/tf1_optimizer"),
    "Recovery": lambda home: ckptparse.recover(home / "slices/hole/model"),
    "Identity": lambda home: ckptparse.identify(home / "saver"),
    "Explanation": lambda _: ckptparse.explain("not an sstable"),
    "CheckpointState": lambda home: ckptparse.checkpoint_state(home / "saver/scopes"),
}


@pytest.mark.parametrize("name", ROOTS)
def test_the_repr_of_a_value_is_one_short_line(name: str, fixtures: Path) -> None:
    for value in values(ROOTS[name](fixtures)):
        if type(value).__name__ in EXPORTED:
            # How long the way to the checkout is says nothing about the value.
            shown = repr(value).replace(str(fixtures), "fixtures")
            assert len(shown) <= 220 and "\n" not in shown, shown


def test_a_tensor_names_its_type_as_numpy_does(fixtures: Path) -> None:
    with ckptparse.open(fixtures / "saver/my_model") as checkpoint:
        assert repr(checkpoint["bias"]) == "<Tensor 'bias' shape=(4,) float32 dense>"


def test_limits_show_what_was_changed() -> None:
    assert repr(ckptparse.Limits()) == "Limits()"
    assert repr(ckptparse.Limits(entries=3)) == "Limits(entries=3)"
