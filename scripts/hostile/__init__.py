"""Inputs of a stated size that were made to cost as much as they can, kind by kind.

Each module has `KINDS`: a name and a function that writes one below an empty directory, as large as
it is told (bytes, roughly), and returns the path that is to be opened.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path

__all__ = ["load_kinds", "named"]

Make = Callable[[Path, int], Path]

# The builders of odd files are those of the tests.
_TESTS = str(Path(__file__).resolve().parents[2] / "tests")


def load_kinds() -> dict[str, Make]:
    """Return every kind, as `module/name`."""
    if _TESTS not in sys.path:
        sys.path.insert(0, _TESTS)
    kinds: dict[str, Make] = {}
    for found in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{found.name}")
        kinds.update({f"{found.name}/{name}": make for name, make in module.KINDS.items()})
    return kinds


def named(*makes: Make) -> dict[str, Make]:
    """Return functions by their names, which are the names of their kinds."""
    return {make.__name__.replace("_", " "): make for make in makes}
