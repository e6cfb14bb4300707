"""A real TensorFlow save, killed: whatever it leaves can be recovered, and is told apart.

A child process saves a model over the same prefix again and again; it is killed with SIGKILL at a
moment that differs from run to run. What lies there then must be one of the two saves, each with
its own value throughout, or be reported as not whole.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import ckptparse

pytest.importorskip("tensorflow")

SAVER = """
import sys, tensorflow as tf
prefix, style, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
variables = [tf.Variable(tf.fill([300_000], -1.0), name=f"v{n}") for n in range(count)]
root = tf.train.Checkpoint(**{f"v{n}": v for n, v in enumerate(variables)})
names = [f"v{n}" for n in range(count)]
print("ready", flush=True)
step = 0
while True:
    for number, variable in enumerate(variables):
        variable.assign(tf.fill([300_000], float(100 * step + number)))
    if style == "object":
        root.write(prefix)
    else:
        tf.raw_ops.SaveV2(
            prefix=prefix, tensor_names=names, shape_and_slices=[""] * count,
            tensors=[v.read_value() for v in variables],
        )
    step += 1
    print(step, flush=True)
"""

COUNT = 8


def kill_a_save(prefix: Path, style: str, delay: float) -> None:
    """Start saving, let one save be done, and kill the process some time into the next ones."""
    child = subprocess.Popen(
        [sys.executable, "-c", SAVER, str(prefix), style, str(COUNT)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"},
        text=True,
    )
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "ready\n"
        assert child.stdout.readline() == "1\n"
        time.sleep(delay)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()


def leftovers(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*"))


@pytest.mark.parametrize("style", ["object", "plain"])
@pytest.mark.parametrize("delay", [0.0, 0.004, 0.009, 0.015, 0.023])
def test_what_a_killed_save_leaves_is_recovered(style: str, delay: float, tmp_path: Path) -> None:
    prefix = tmp_path / "model"
    kill_a_save(prefix, style, delay)
    report = ckptparse.verify(prefix)
    recovery = ckptparse.recover(prefix)
    there = leftovers(tmp_path)
    whole = {name: tensor for name, tensor in recovery.items() if tensor.status.proved}
    if not whole:
        # TensorFlow puts the data file in its place before it writes the index, and was killed
        # between. The old index says nothing of the new values: all are there, and none is proved.
        assert "set.mixed" in {problem.code for problem in report.problems}, (report, there)
        whole = {name: tensor for name, tensor in recovery.items() if not tensor.suspect}
    steps = set()
    for name, tensor in whole.items():
        values = tensor.read()
        number = int(name.split("/")[0].removeprefix("v")) if name.startswith("v") else None
        if number is None:
            continue
        assert values.shape == (300_000,) and np.all(values == values[0]), (name, there)
        steps.add((int(values[0]) - number) // 100)
        assert (int(values[0]) - number) % 100 == 0
    # One save at least was complete, so that all of one, the old or the new, must be there.
    assert len(whole) >= COUNT, (report, there)
    assert len(steps) == 1, (steps, there)
    if report.ok:
        read = ckptparse.read(prefix)
        assert {name: array.tobytes() for name, array in read.items()} == {
            name: tensor.read().tobytes() for name, tensor in whole.items()
        }
    else:
        assert report.problems and str(report)


def test_a_save_killed_before_any_was_done_is_told_apart(tmp_path: Path) -> None:
    """Kill before the first save is complete: nothing, leftovers, or all of it is there."""
    prefix = tmp_path / "model"
    child = subprocess.Popen(
        [sys.executable, "-c", SAVER, str(prefix), "object", str(COUNT)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"},
        text=True,
    )
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 30
        while not leftovers(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.0005)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    if not any(path.is_file() for path in tmp_path.rglob("*")):
        return
    recovery = ckptparse.recover(prefix)
    for tensor in recovery.values():
        if tensor.status.proved:
            values = tensor.read()
            assert np.all(values == values[0])
    assert recovery.report.ok or recovery.report.problems
