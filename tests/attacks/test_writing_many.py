"""Tensors of a file that are written or printed one by one: as many as its size allows."""

from __future__ import annotations

from pathlib import Path

import builder
import numpy as np
import pytest

import ckptparse
from ckptparse import LimitError, Limits
from ckptparse.tf import inspecting


def tiny(directory: Path, count: int) -> Path:
    made = builder.Bundle()
    for number in range(count):
        made.add(f"t{number:04}", np.zeros(1, np.float32))
    directory.mkdir()
    made.write(directory / "m")
    return directory / "m"


def test_tensors_of_an_open_checkpoint_are_written_if_its_size_allows_so_many(
    tmp_path: Path,
) -> None:
    path = tiny(tmp_path / "in", 300)
    with ckptparse.open(path, limits=Limits(small_tensors=400)) as opened:
        for tensors in (opened, dict(opened)):
            with pytest.raises(LimitError, match="2 times the number of tensors") as caught:
                ckptparse.write(tmp_path / "out", tensors)
            assert caught.value.limit == "small_tensors"
        ckptparse.write(tmp_path / "arrays", {name: opened[name].read() for name in opened})
    with ckptparse.open(path) as opened:
        ckptparse.write(tmp_path / "out", opened)


def test_values_of_a_checkpoint_are_printed_if_its_size_allows_so_many(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tiny(tmp_path / "in", 300)
    show = inspecting.print_tensors_in_checkpoint_file
    show(path, "", all_tensors=True, limits=Limits(small_tensors=600))
    assert "Limits.small_tensors" in capsys.readouterr().out
    for limits, values in ((Limits(small_tensors=900), True), (Limits(small_tensors=600), False)):
        show(path, "", all_tensors=values, all_tensor_names=True, limits=limits)
        assert capsys.readouterr().out.count("tensor: ") == 300
    ckptparse.write(tmp_path / "large", {"w": np.zeros(1000)})
    show(tmp_path / "large", "", all_tensors=True, limits=Limits(small_tensors=20))
    assert "Limits.small_tensors" in capsys.readouterr().out


def test_an_object_graph_is_made_of_so_many_parts_of_names(tmp_path: Path) -> None:
    deep = {"/".join(["a"] * 1000 + [str(number)]): np.zeros(1) for number in range(500)}
    with pytest.raises(ckptparse.UnsupportedError, match="at most 500,000 parts"):
        ckptparse.write(tmp_path / "deep", deep, object_graph="make")
    ckptparse.write(tmp_path / "deep", deep)
