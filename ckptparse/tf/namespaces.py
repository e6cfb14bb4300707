"""The modules of TensorFlow that scripts look for, each with the names that are served here.

    tf.compat.v1.train.NewCheckpointReader          tensorflow.python.pywrap_tensorflow
    tf.contrib.framework.load_variable              tensorflow.python.tools.inspect_checkpoint

They are made from the table below, under any name: as parts of `ckptparse.tf`, and of the
`tensorflow` that stands in for the real one.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

from ckptparse.tf import dtypes, errors, inspecting, train

__all__ = ["VERSION", "make_modules"]

VERSION = "2.21.0"
"""The TensorFlow whose results these are; scripts that ask for it expect three numbers."""

_TRAIN = ("NewCheckpointReader", *(name for name in train.__all__ if name[0].islower()))
_UTILS = ("load_checkpoint", "load_variable", "list_variables")
_MANAGEMENT = (
    "checkpoint_exists",
    "get_checkpoint_mtimes",
    "get_checkpoint_state",
    "latest_checkpoint",
)
_READERS = ("NewCheckpointReader", "CheckpointReader")
_ERRORS = tuple(
    name for name in errors.__all__ if name not in ("as_tensorflow_error", "translated")
)


def _names(module: ModuleType, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(module, name) for name in names}


_TOP: dict[str, Any] = {
    "__version__": VERSION,
    "VERSION": VERSION,
    "DType": dtypes.DType,
    "as_dtype": dtypes.as_dtype,
    **dtypes.DTYPES,
}
_DTYPES: dict[str, Any] = {key: value for key, value in _TOP.items() if key.lower() != "version"}
_DTYPES.pop("__version__")

_MODULES: dict[str, dict[str, Any]] = {
    "": _TOP,
    "train": _names(train, _TRAIN),
    "errors": _names(errors, _ERRORS),
    "dtypes": _DTYPES,
    "version": {"VERSION": VERSION},
    "compat": {},
    "compat.v1": _TOP,
    "compat.v1.train": _names(train, _TRAIN),
    "compat.v1.errors": _names(errors, _ERRORS),
    "compat.v2": _TOP,
    "compat.v2.train": _names(train, _TRAIN),
    "compat.v2.errors": _names(errors, _ERRORS),
    "contrib": {},
    "contrib.framework": _names(train, _UTILS),
    "python": {},
    "python.pywrap_tensorflow": _names(train, _READERS),
    "python.framework": {},
    "python.framework.dtypes": _DTYPES,
    "python.framework.errors": _names(errors, _ERRORS),
    "python.framework.errors_impl": _names(errors, _ERRORS),
    "python.tools": {},
    "python.tools.inspect_checkpoint": _names(inspecting, ("print_tensors_in_checkpoint_file",)),
    "python.training": {},
    "python.training.checkpoint_management": _names(train, _MANAGEMENT),
    "python.training.checkpoint_utils": _names(
        train, (*_UTILS, "checkpoints_iterator", "wait_for_new_checkpoint")
    ),
    "python.training.py_checkpoint_reader": _names(train, _READERS),
    "python.training.saver": _names(train, _MANAGEMENT),
    "python.training.training": _names(train, _TRAIN),
}
"""Path below the package -> what stands in the module, besides the modules in it."""


def make_modules(root: str) -> dict[str, ModuleType]:
    """Make every module anew.

    Args:
        root: The name of the package: `tensorflow`.

    Returns:
        The modules by their whole names, parents before what is in them.
    """
    made: dict[str, ModuleType] = {}
    for path, values in _MODULES.items():
        name = f"{root}.{path}" if path else root
        module = _make_module(name)
        vars(module).update(values)
        made[name] = module
        above, _, last = name.rpartition(".")
        if above in made:
            setattr(made[above], last, module)
    return made


def _make_module(name: str) -> ModuleType:
    module = ModuleType(name, "Stands in for TensorFlow's module: it reads checkpoints.")
    module.__spec__ = ModuleSpec(name, None, origin="ckptparse.tf", is_package=True)
    # No folder: what is not made here cannot be imported from it.
    module.__path__ = []
    module.__package__ = name

    def missing(attribute: str) -> NoReturn:
        raise AttributeError(
            f"module {name!r} has no attribute {attribute!r}: it is ckptparse.tf, which reads "
            "checkpoints and does nothing else of TensorFlow"
        )

    vars(module)["__getattr__"] = missing
    return module


def is_ours(module: object) -> bool:
    """Tell whether a module was made here."""
    spec = getattr(module, "__spec__", None)
    return isinstance(spec, ModuleSpec) and spec.origin == "ckptparse.tf"


def publish(root: str) -> None:
    """Make the modules below a package importable: `import ckptparse.tf.compat.v1 as tf`."""
    package = sys.modules[root]
    for name, module in make_modules(root).items():
        below = name.removeprefix(f"{root}.")
        if name == root or name in sys.modules:
            continue
        sys.modules[name] = module
        if "." not in below and not hasattr(package, below):
            setattr(package, below, module)
