"""`Checkpoint.places()`: where the bytes of all tensors lie, as columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest

import ckptparse
from ckptparse.bundle.naming import known_ones
from ckptparse.bundle.reader import BundleReader
from ckptparse.files.context import Context

CHECKPOINTS = [
    "saver/my_model",
    "dtypes/strings/model",
    "slices/columns/model",
    "v1/unsharded/model.ckpt-2",
    "v1/sharded/model.ckpt-7",
    "graphs/frozen_tf2/frozen.pb",
    "saved_model/module",
    "objects/keras3_model/ckpt",
]


def told_singly(checkpoint: ckptparse.Checkpoint) -> dict[str, Any]:
    return {name: (tensor.location, tensor.crc32c) for name, tensor in checkpoint.items()}


def told_together(checkpoint: ckptparse.Checkpoint) -> dict[str, Any]:
    places = checkpoint.places()
    found: dict[str, Any] = {}
    rows = zip(places.names, places.numbers, places.offsets, places.sizes, places.crcs, strict=True)
    for name, number, offset, size, crc in rows:
        where = None if number < 0 else (places.files[number], int(offset), int(size))
        found[name] = where, None if crc < 0 else int(crc)
    return found


@pytest.mark.parametrize("naming", ["checkpoint", "variable"])
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_columns_say_what_every_tensor_says(
    name: str, naming: ckptparse.Naming, fixtures: Path
) -> None:
    with ckptparse.open(fixtures / name, naming=naming) as checkpoint:
        found = told_together(checkpoint)
        assert list(found) == list(checkpoint)
        assert checkpoint.places().shapes == list(checkpoint.shapes().values())
        kinds = [tensor.data_type for tensor in checkpoint.values()]
        assert list(checkpoint.places().data_types) == kinds
        for key, (place, crc) in told_singly(checkpoint).items():
            where = None if place is None else (place.path, place.offset, place.size)
            assert found[key] == (where, crc), key


def test_the_order_of_the_files_is_that_of_the_bytes(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.add("a", np.zeros(4, np.float32), shard=1)
    bundle.add("b", np.zeros(4, np.float32), shard=0)
    bundle.add("z", np.zeros(4, np.float32), shard=0)
    bundle.write(tmp_path / "m")
    with ckptparse.open(tmp_path / "m") as checkpoint:
        places = checkpoint.places()
        assert places.in_file_order() == ["b", "z", "a"]
        assert [Path(file).name for file in places.files] == [
            "m.data-00000-of-00002",
            "m.data-00001-of-00002",
        ]


def test_no_tensor_has_no_rows(tmp_path: Path) -> None:
    b.Bundle().write(tmp_path / "m")
    with ckptparse.open(tmp_path / "m") as checkpoint:
        places = checkpoint.places()
        assert places.in_file_order() == []
        assert places.crcs.shape == (0,)


def test_a_closed_checkpoint_tells_nothing(fixtures: Path) -> None:
    checkpoint = ckptparse.open(fixtures / "saver" / "my_model")
    checkpoint.close()
    with pytest.raises(ckptparse.ClosedError):
        checkpoint.places()


def test_the_columns_are_those_of_the_index_and_cannot_be_written_into(tmp_path: Path) -> None:
    bundle = b.Bundle()
    bundle.add("a", np.zeros(4, np.float32))
    bundle.write(tmp_path / "m")
    with ckptparse.open(tmp_path / "m") as checkpoint:
        places = checkpoint.places()
        for column in (places.numbers, places.offsets, places.sizes, places.crcs):
            with pytest.raises(ValueError, match="read-only"):
                column[0] = 1
        assert checkpoint.places().offsets.base is places.offsets.base


@pytest.mark.parametrize("missing", [[], [0], [7], [99], range(0, 100, 3), range(100)])
def test_names_that_another_open_checkpoint_has_are_its_objects(
    missing: list[int], tmp_path: Path
) -> None:
    names = [f"layer/{number:02}" for number in range(100)]
    bundle = b.Bundle()
    for name in names:
        bundle.add(name, np.zeros(0, np.float32))
    bundle.write(tmp_path / "m")
    known = ["0", *(name for row, name in enumerate(names) if row not in missing), "z"]
    reader = BundleReader.open(str(tmp_path / "m"), Context(known_names=known))
    found = reader.places().names
    assert list(found) == names
    objects = {id(name) for name in known}
    assert [id(name) in objects for name in found] == [row not in missing for row in range(100)]
    reader.close()


def test_names_are_as_they_are_if_nothing_is_known_or_listed() -> None:
    names = ["a", "b"]
    assert known_ones(names, []) is names
    assert known_ones([], names) == []
