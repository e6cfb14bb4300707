"""Packages that a test may need and that some platforms have no wheels of; PyPy lacks a module.

A test that uses one that is not there is skipped, and says which; a file that uses it while it is
imported is skipped as a whole.
"""

from __future__ import annotations

import importlib
from typing import Any

import pytest

__all__ = ["brotli", "h5py", "ml_dtypes", "safetensors", "tracemalloc", "zstandard"]


class _Lacking:
    """Stands for a package that is not installed."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        pytest.skip(f"needs the package {self._name}", allow_module_level=True)

    def __bool__(self) -> bool:
        return False


def _find(name: str, *submodules: str) -> Any:
    try:
        package = importlib.import_module(name)
        for submodule in submodules:
            importlib.import_module(f"{name}.{submodule}")
    except ModuleNotFoundError:
        return _Lacking(name)
    return package


brotli = _find("brotli")
ml_dtypes = _find("ml_dtypes")
h5py = _find("h5py")
safetensors = _find("safetensors", "numpy")
tracemalloc = _find("tracemalloc")
zstandard = _find("zstandard")
