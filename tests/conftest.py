"""What every test file may use, and which tests this environment can run at all."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from packages import ml_dtypes

import ckptparse

TESTS = Path(__file__).resolve().parent


def _has(package: str) -> bool:
    spec = importlib.util.find_spec(package)
    # Our own folder tests/tensorflow is found too, as a namespace without an origin.
    return spec is not None and spec.origin is not None


collect_ignore = [] if _has("tensorflow") else ["tensorflow"]
collect_ignore += [] if _has("transformers") and _has("torch") else ["converters"]

# A slow machine is not a failure; in CI the same examples are drawn every time.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(scope="session")
def project() -> Path:
    """Return the project's root: fixtures/, README.md and the like are below it."""
    return TESTS.parent


@pytest.fixture(scope="session")
def fixtures(project: Path) -> Path:
    """Return the directory of the checkpoints that TensorFlow wrote."""
    return project / "fixtures"


@pytest.fixture
def fresh_python(tmp_path: Path) -> Callable[[str], str]:
    """Return a function that runs code in a new interpreter and gives what it printed.

    The new one finds the same packages as this one, and starts in an empty directory.
    """

    def run(code: str) -> str:
        search = os.pathsep.join(entry for entry in sys.path if entry)
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": search},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


OLD = (
    np.lib.NumpyVersion(np.__version__) < "2.0.0"
    or not ml_dtypes
    or not hasattr(ml_dtypes, "float4_e2m1fn")
)
LACKING = ("The installed ml_dtypes", "the installed numpy", "the package ml_dtypes has it")
"""How an error says which kinds, or how many dimensions, the installed release lacks."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """Skip a test that meets what the lowest releases of numpy and ml_dtypes cannot hold."""
    try:
        return (yield)
    except ckptparse.UnsupportedError as error:
        if OLD and any(words in str(error) for words in LACKING):
            pytest.skip(str(error))
        raise
