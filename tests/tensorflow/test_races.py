"""TensorFlow saves over one prefix in a loop while we read: nothing mixed is ever called good.

Every save fills both tensors with its own number, so that a value, or two values together, that no
save wrote shows at once. Thirty seconds; CKPTPARSE_RACE_SECONDS says otherwise.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptparse

SECONDS = float(os.environ.get("CKPTPARSE_RACE_SECONDS", "30"))
SIZE = 30_000
WRITER = """
import sys
import tensorflow as tf
prefix, size = sys.argv[1], int(sys.argv[2])
number = 0
while True:
    number += 1
    values = [tf.fill([size], tf.cast(number, kind)) for kind in (tf.float32, tf.int64)]
    tf.raw_ops.SaveV2(
        prefix=prefix, tensor_names=["a", "b"], shape_and_slices=["", ""], tensors=values
    )
    if number == 1:
        print("ready", flush=True)
"""


@contextmanager
def saving(prefix: Path) -> Iterator[None]:
    """Let TensorFlow save over a prefix for as long as the context lasts."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(prefix), str(SIZE)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
        yield
        assert writer.poll() is None, "the writer ended"
    finally:
        writer.kill()
        writer.communicate()


def check_pair(arrays: dict[str, Any]) -> None:
    """Hold both tensors to one save: each is constant, and both say the same number."""
    numbers = {float(array[0]) for array in arrays.values()}
    assert all((array == array[0]).all() for array in arrays.values()), "a mixed tensor"
    assert len(numbers) == 1, f"tensors of several saves: {numbers}"


def opened(prefix: Path, **options: Any) -> dict[str, Any]:
    with ckptparse.open(prefix, **options) as checkpoint:
        return {name: tensor.read() for name, tensor in checkpoint.items()}


def recovered(prefix: Path) -> dict[str, Any]:
    recovery = ckptparse.recover(prefix)
    values = {name: tensor.read() for name, tensor in recovery.items() if tensor.status.proved}
    return {name: array for name, array in values.items() if not np.ma.is_masked(array)}


def verified(prefix: Path) -> dict[str, Any]:
    ckptparse.verify(prefix)
    return {}


def converted(prefix: Path) -> dict[str, Any]:
    target = prefix.parent / "out.npz"
    ckptparse.convert(prefix, target, overwrite=True)
    with np.load(target) as found:
        return {name: found[name] for name in ("a", "b")}


WAYS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "read": ckptparse.read,
    "read mapped": lambda prefix: ckptparse.read(prefix, mmap=True),
    "open": opened,
    "recover": recovered,
    "verify": verified,
    "convert": converted,
}


def test_what_tensorflow_saves_over_meanwhile_is_whole_or_an_error(tmp_path: Path) -> None:
    prefix = tmp_path / "run" / "m"
    prefix.parent.mkdir()
    outcomes: Counter[tuple[str, str]] = Counter()
    with saving(prefix):
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            for way, read in WAYS.items():
                # TensorFlow replaces both files by names of their own: a mapped one stays whole.
                try:
                    arrays = read(prefix)
                except ckptparse.CheckpointError as error:
                    outcomes[way, type(error).__name__] += 1
                    continue
                outcomes[way, "value"] += 1
                if arrays:
                    check_pair(arrays)
    print(dict(outcomes))
    for way in WAYS:
        assert outcomes[way, "value"], f"{way} never saw a whole checkpoint"


@pytest.mark.parametrize("mmap", [False, True])
def test_a_checkpoint_that_is_replaced_between_index_and_data_says_so(
    tmp_path: Path, mmap: bool
) -> None:
    import tensorflow as tf

    def save(number: int) -> None:
        values = [tf.fill([SIZE], tf.cast(number, tf.float32))]
        tf.raw_ops.SaveV2(
            prefix=str(tmp_path / "m"), tensor_names=["a"], shape_and_slices=[""], tensors=values
        )

    save(1)
    with ckptparse.open(tmp_path / "m", mmap=mmap) as checkpoint:
        list(checkpoint)
        save(2)
        with pytest.raises(ckptparse.StorageError, match="replaced"):
            checkpoint.read()
