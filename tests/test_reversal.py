"""What `convert` did is undone: names, axes and kinds of elements become what they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptparse

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"


def numbered(*shape: int) -> np.ndarray[Any, Any]:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


VALUES: dict[str, Any] = {
    "dense/kernel": numbered(2, 3),
    "conv/kernel": numbered(2, 3, 4, 5),
    "deep/depthwise_kernel": numbered(2, 3, 4, 5),
    "dense/bias": numbered(3),
    "step": np.int64(7),
}


def same(got: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return got.keys() == wanted.keys() and all(
        np.array_equal(got[name], value) and got[name].dtype == value.dtype
        for name, value in wanted.items()
    )


@pytest.mark.parametrize("ending", [".safetensors", ".npz", ""])
def test_names_axes_and_kinds_come_back(ending: str, tmp_path: Path) -> None:
    source = ckptparse.write(tmp_path / "in", VALUES)
    target = f"{tmp_path / 'x'}{ending}"
    rules = [("/(depthwise_)?kernel$", ".weight"), ("/bias$", ".bias")]
    done = ckptparse.convert(source, target, rename=rules, layout="torch", dtype="float64")
    ckptparse.convert(target, tmp_path / "back", rename=done.reverse())
    assert same(ckptparse.read(tmp_path / "back"), VALUES)


def test_a_dry_run_is_enough_to_undo_it(tmp_path: Path) -> None:
    source = ckptparse.write(tmp_path / "in", VALUES)
    options: Any = {"rename": [("kernel", "weight")], "layout": "torch"}
    ckptparse.convert(source, tmp_path / "x.npz", **options)
    done = ckptparse.convert(source, tmp_path / "x.npz", dry_run=True, overwrite=True, **options)
    back = ckptparse.convert(tmp_path / "x.npz", tmp_path / "back", rename=done.reverse())
    assert same(ckptparse.read(tmp_path / "back"), VALUES)
    assert {row.done[0] for row in back.rows} == {"restored"}


def test_the_names_of_variables_become_keys_again(tmp_path: Path) -> None:
    original = FIXTURES / "objects" / "keras2_optimizer" / "ckpt-1"
    done = ckptparse.convert(original, tmp_path / "x.safetensors", naming="variable")
    undo = done.reverse()
    ckptparse.convert(tmp_path / "x.safetensors", tmp_path / "m", rename=undo, object_graph="make")
    with ckptparse.open(original) as source, ckptparse.open(tmp_path / "m") as made:
        assert list(made) == list(source) and made.object_graph is not None
        assert same(made.read(), source.read())


def test_names_that_nobody_gave_stay(tmp_path: Path) -> None:
    source = ckptparse.write(tmp_path / "in", {"a": numbered(2)})
    undo = ckptparse.convert(source, tmp_path / "x", rename={"a": "b"}).reverse()
    more = ckptparse.write(tmp_path / "more", {"b": numbered(2), "new": numbered(3)})
    ckptparse.convert(more, tmp_path / "back", rename=undo)
    assert same(ckptparse.read(tmp_path / "back"), {"a": numbered(2), "new": numbered(3)})


def test_a_tensor_of_another_shape_is_not_what_was_converted(tmp_path: Path) -> None:
    source = ckptparse.write(tmp_path / "in", {"a": numbered(2, 3)})
    undo = ckptparse.convert(source, tmp_path / "x", rename={"a": "b"}).reverse()
    other = ckptparse.write(tmp_path / "other", {"b": numbered(3, 2)})
    with pytest.raises(ckptparse.UnsupportedError, match="which the conversion gave it") as caught:
        ckptparse.convert(other, tmp_path / "back", rename=undo)
    assert caught.value.tensor == "b"


def test_what_was_cut_into_parts_is_not_one_to_one(tmp_path: Path) -> None:
    source = ckptparse.write(tmp_path / "in", {"qkv/w": numbered(2, 6)})
    done = ckptparse.convert(source, tmp_path / "x", split={"qkv": 3})
    with pytest.raises(ckptparse.UnsupportedError, match="cut into parts") as caught:
        done.reverse()
    assert caught.value.tensor == "qkv/w"


def test_the_table_says_what_each_tensor_was(tmp_path: Path) -> None:
    source = ckptparse.write(tmp_path / "in", {"kernel": numbered(2, 3)})
    done = ckptparse.convert(source, tmp_path / "x", layout="torch", dtype="float16", dry_run=True)
    (row,) = done.rows
    assert row.stored == ckptparse.StoredTensor("kernel", "float32", (2, 3))
    assert (row.axes, row.shape, row.dtype) == ((1, 0), (3, 2), "float16")
    assert row.to_dict()["stored"] == {"name": "kernel", "dtype": "float32", "shape": [2, 3]}
    assert repr(done.reverse()) == "<Reversal of 1 tensors>"


def test_keys_of_an_object_graph_that_was_made_become_names_again(tmp_path: Path) -> None:
    arrays = {"dense/kernel": np.ones((2, 3), np.float32), "a.b/_c": np.arange(4)}
    done = ckptparse.convert(arrays, tmp_path / "made", object_graph="make")
    assert set(ckptparse.read(tmp_path / "made")).isdisjoint(arrays)
    ckptparse.convert(tmp_path / "made", tmp_path / "back", rename=done.reverse())
    back = ckptparse.read(tmp_path / "back")
    assert list(back) == sorted(arrays)
    assert all(np.array_equal(back[name], array) for name, array in arrays.items())
