"""A file system that is really full: an error that says so, and nothing half-made."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptparse

LARGE = {"w": np.arange(1 << 19, dtype=np.float32), "b": np.zeros(3, np.float32)}
"""More than the file system holds."""
SMALL = {"w": np.arange(1 << 10, dtype=np.float32), "b": np.ones(3, np.float32)}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Mount a file system of 1 MiB; skip the tests where that is not allowed."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root may mount a file system, on Linux")
    place = tmp_path_factory.mktemp("full")
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no command to mount a file system")
    if done.returncode != 0:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def target(full: Path) -> Iterator[Path]:
    """Return that file system, empty; and empty it afterwards."""
    assert list(full.iterdir()) == []
    yield full
    for path in full.iterdir():
        path.unlink()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return ckptparse.write(tmp_path_factory.mktemp("in") / "m", LARGE)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


CALLS: dict[str, Callable[[str, Path], object]] = {
    "write": lambda _, to: ckptparse.write(to / "m", LARGE, overwrite=True),
    "write in parts": lambda _, to: ckptparse.write(
        to / "m", {**SMALL, "x": LARGE["w"]}, max_shard_size=1 << 14, overwrite=True
    ),
    "convert to V2": lambda path, to: ckptparse.convert(path, to / "m", overwrite=True),
    "convert to safetensors": lambda path, to: ckptparse.convert(path, to / "m.safetensors"),
    "convert to safetensors in parts": lambda path, to: ckptparse.convert(
        path, to / "m.safetensors", max_shard_size=1 << 10
    ),
    "convert to npz": lambda path, to: ckptparse.convert(path, to / "m.npz"),
    "convert to npy": lambda path, to: ckptparse.convert(path, f"{to}/m/"),
    "convert to HDF5": lambda path, to: ckptparse.convert(path, to / "m.h5"),
    "average": lambda path, to: ckptparse.average([path, path], to / "m", overwrite=True),
    "write a recovery": lambda path, to: ckptparse.recover(path).write(to / "rescued"),
    "write a recovery to one file": lambda path, to: ckptparse.recover(path).write(to / "r.npz"),
}


@pytest.mark.parametrize("call", CALLS)
def test_an_error_says_that_there_is_no_space_and_nothing_is_left(
    call: str, target: Path, source: str
) -> None:
    with pytest.raises(ckptparse.OutputError, match="no space left") as caught:
        CALLS[call](source, target)
    assert isinstance(caught.value, OSError) and caught.value.errno is not None
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("call", ["write", "write in parts", "convert to V2", "average"])
def test_the_checkpoint_that_was_to_be_replaced_stays(call: str, target: Path, source: str) -> None:
    ckptparse.write(target / "m", SMALL)
    before = content(target)
    with pytest.raises(ckptparse.OutputError, match="no space left"):
        CALLS[call](source, target)
    assert content(target) == before
    assert ckptparse.verify(target / "m").ok


COMMANDS = {
    "convert": "convert {source} {target}/m.safetensors",
    "write": "write {source} {target}/m",
    "average": "average {source} {source} -o {target}/m",
    "show": "show {source} w --npy {target}/w.npy",
    "recover": "recover {source} -o {target}/rescued",
    "recover to one file": "recover {source} -o {target}/rescued.npz",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_so_too(command: str, target: Path, source: str) -> None:
    pytest.importorskip("click")
    words = COMMANDS[command].format(source=source, target=target).split()
    environment: dict[str, Any] = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    done = subprocess.run(
        [sys.executable, "-m", "ckptparse", *words],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode not in (0, 1, 3) and "no space left" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert list(target.iterdir()) == []


def test_there_is_space_for_what_is_small(target: Path) -> None:
    assert ckptparse.read(ckptparse.write(target / "m", SMALL)).keys() == SMALL.keys()
