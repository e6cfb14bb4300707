"""TensorFlow restores what `recover` wrote, bit by bit, and leaves alone what was lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptparse

tf = pytest.importorskip("tensorflow")

ROWS = 4000


class Net(tf.Module):  # type: ignore[misc, name-defined, unused-ignore]
    """A few variables of several kinds, and an optimizer's slots beside them."""

    def __init__(self, seed: int | None) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        scale = 0 if seed is None else 1
        kernel = scale * rng.normal(size=(ROWS, 3)).astype(np.float32)
        self.kernel = tf.Variable(kernel, name="kernel")
        self.half = tf.Variable(tf.cast(scale * rng.normal(size=ROWS), tf.bfloat16), name="half")
        self.bias = tf.Variable(scale * rng.normal(size=30), name="bias")
        self.steps = tf.Variable(0 if seed is None else 1 << 40, dtype=tf.int64, name="steps")


def bits(value: Any) -> bytes:
    return np.asarray(value).tobytes()


def save(directory: Path) -> tuple[Net, str]:
    directory.mkdir()
    net = Net(1)
    return net, str(tf.train.Checkpoint(net=net).write(str(directory / "ckpt-1")))


def key(name: str) -> str:
    return f"net/{name}/.ATTRIBUTES/VARIABLE_VALUE"


def change(prefix: str, name: str, at: int, new: bytes) -> None:
    with ckptparse.open(prefix) as checkpoint:
        location = checkpoint[key(name)].location
        assert location is not None
    raw = bytearray(Path(location.path).read_bytes())
    raw[location.offset + at : location.offset + at + len(new)] = new
    Path(location.path).write_bytes(raw)


def test_a_corrected_checkpoint_is_restored_whole(tmp_path: Path) -> None:
    net, prefix = save(tmp_path / "run")
    was = np.asarray(net.kernel)[5, 1].tobytes()[2]
    change(prefix, "kernel", 4 * (3 * 5 + 1) + 2, bytes([was ^ 8]))
    with pytest.raises(tf.errors.DataLossError):
        tf.train.Checkpoint(net=Net(None)).read(prefix)
    ckptparse.recover(prefix).write(tmp_path / "out.ckpt")
    fresh = Net(None)
    status = tf.train.Checkpoint(net=fresh).read(str(tmp_path / "out.ckpt"))
    status.assert_consumed()
    for name in ("kernel", "half", "bias", "steps"):
        assert bits(getattr(fresh, name)) == bits(getattr(net, name)), name
    reader = tf.train.load_checkpoint(str(tmp_path / "out.ckpt"))
    assert bits(reader.get_tensor(key("kernel"))) == bits(net.kernel)


def test_what_was_lost_keeps_its_value_and_the_rest_is_restored(tmp_path: Path) -> None:
    net, prefix = save(tmp_path / "run")
    change(prefix, "kernel", 8192, np.random.default_rng(3).bytes(600))
    written = ckptparse.recover(prefix).write(tmp_path / "out.ckpt")
    assert written.withheld == (key("kernel"),)
    fresh = Net(None)
    status = tf.train.Checkpoint(net=fresh).read(str(tmp_path / "out.ckpt"))
    status.expect_partial()
    assert not np.asarray(fresh.kernel).any()
    for name in ("half", "bias", "steps"):
        assert bits(getattr(fresh, name)) == bits(getattr(net, name)), name
    names = dict(tf.train.list_variables(str(tmp_path / "out.ckpt")))
    assert key("kernel") not in names and key("half") in names


def test_all_that_is_plausible_is_restored_with_the_holes_filled(tmp_path: Path) -> None:
    net, prefix = save(tmp_path / "run")
    change(prefix, "kernel", 8192, bytes(1024))
    recovery = ckptparse.recover(prefix)
    written = recovery.write(tmp_path / "out.ckpt", offer="plausible", fill=np.nan)
    told = json.loads((tmp_path / "out.ckpt.report.json").read_text())
    spans = told["output"]["filled"][key("kernel")]
    assert spans == [list(span) for span in written.filled[key("kernel")]] and spans
    assert told["report"]["tensors"][key("kernel")]["suspect"] == spans
    fresh = Net(None)
    tf.train.Checkpoint(net=fresh).read(str(tmp_path / "out.ckpt")).assert_consumed()
    got, wanted = np.asarray(fresh.kernel).reshape(-1), np.asarray(net.kernel).reshape(-1).copy()
    for start, stop in spans:
        assert np.isnan(got[start:stop]).all()
        wanted[start:stop] = np.nan
    assert bits(np.isnan(got)) == bits(np.isnan(wanted))
    assert bits(np.nan_to_num(got)) == bits(np.nan_to_num(wanted))


@pytest.mark.parametrize("optimizer", [False, True])
def test_a_lost_object_graph_is_made_anew_and_everything_is_restored(
    tmp_path: Path, optimizer: bool
) -> None:
    net, prefix = save(tmp_path / "run")
    if optimizer:
        rate = tf.Variable(0.25)
        slots = tf.Module()
        slots.rate, slots.first = rate, tf.Variable(np.asarray(net.bias) + 1)
        prefix = tf.train.Checkpoint(net=net, slots=slots).write(str(tmp_path / "run" / "ckpt-2"))
    with ckptparse.open(prefix) as checkpoint:
        assert checkpoint.object_graph is not None
        graph = checkpoint.object_graph.serialized
    data = Path(f"{prefix}.data-00000-of-00001")
    data.write_bytes(data.read_bytes().replace(graph, bytes(len(graph))))
    written = ckptparse.recover(prefix).write(tmp_path / "out.ckpt")
    assert written.object_graph == "made"
    fresh = Net(None)
    extra = {"slots": tf.Module()} if optimizer else {}
    if optimizer:
        extra["slots"].rate = tf.Variable(0.0)
        extra["slots"].first = tf.Variable(np.zeros(30))
    status = tf.train.Checkpoint(net=fresh, **extra).read(str(tmp_path / "out.ckpt"))
    status.assert_consumed()
    for name in ("kernel", "half", "bias", "steps"):
        assert bits(getattr(fresh, name)) == bits(getattr(net, name)), name
    if optimizer:
        assert bits(extra["slots"].rate) == bits(rate)


def test_a_checkpoint_of_names_is_loaded_by_name(tmp_path: Path) -> None:
    tf1 = tf.compat.v1
    (tmp_path / "run").mkdir()
    rng = np.random.default_rng(1)
    values = {f"layer{n}/w": rng.normal(size=(200, 5)).astype(np.float32) for n in range(3)}
    with tf1.Graph().as_default(), tf1.Session() as session:
        for name, value in values.items():
            tf1.get_variable(name, initializer=value)
        session.run(tf1.global_variables_initializer())
        prefix = tf1.train.Saver().save(session, str(tmp_path / "run" / "model.ckpt"))
    data = Path(f"{prefix}.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:-2])  # solved for: two bytes follow from the checksum
    ckptparse.recover(prefix).write(tmp_path / "out.ckpt")
    reader = tf.train.load_checkpoint(str(tmp_path / "out.ckpt"))
    for name, value in values.items():
        assert bits(reader.get_tensor(name)) == bits(value)
