"""A checkpoint on a disk that another save replaces, in whole or in part, while it is read."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import builder as b
import numpy as np
import pytest
import v1_builder as v1

import ckptparse


def save(folder: Path, form: str, step: int) -> Path:
    """A checkpoint each of whose values is the step."""
    folder.mkdir(exist_ok=True)
    if form == "v1":
        legacy = v1.LegacyFile()
        for name in "abc":
            legacy.add(name, np.full(64, step, np.float32))
        return legacy.write(folder / "m", block_size=1)
    made = b.Bundle()
    for name in "abc":
        made.add(name, np.full(64, step, np.float32))
    made.add("s", np.array([b"%d" % step], object))
    return Path(made.write(folder / "m"))


@pytest.mark.parametrize("form", ["v1", "v2"])
@pytest.mark.parametrize("which", [".index", ".data-00000-of-00001", ""])
@pytest.mark.parametrize("when", ["opened", "listed", "read once"])
@pytest.mark.parametrize("mmap", [False, True])
def test_values_of_two_saves_are_never_mixed_on_a_disk(
    tmp_path: Path, form: str, which: str, when: str, mmap: bool
) -> None:
    path = save(tmp_path / "now", form, 1)
    other = save(tmp_path / "next", form, 2)
    names = [file for file in other.parent.iterdir() if file.name.endswith(which)]
    found: set[float] = set()
    with ckptparse.open(path, mmap=mmap) as checkpoint:
        if when == "listed":
            assert next(iter(checkpoint)) == "a"
        if when == "read once":
            found.update(checkpoint["a"].read().tolist())
        for file in names:
            file.replace(path.parent / file.name)
        for name in "abc":
            with suppress(ckptparse.CheckpointError):
                found.update(checkpoint[name].read().tolist())
        if form == "v2":
            with suppress(ckptparse.CheckpointError):
                found.update(float(one) for one in checkpoint["s"].read())
    assert found <= {1}
    with suppress(ckptparse.CheckpointError):
        values = {float(one.flat[0]) for one in ckptparse.read(path).values()}
        assert len(values) == 1
