"""Shapes that no two tensors share, entries of other files, and sets of very many V1 files."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest
import v1_builder

import ckptparse
from ckptparse import CheckpointError, LimitError, Limits
from ckptparse.bundle import shapes
from ckptparse.bundle.shapes import Shapes
from ckptparse.examination import carving
from ckptparse.files import local
from ckptparse.recovery import outlook
from ckptparse.slices import TensorSlice

Make = Callable[[int], bytes]


def own_shape(number: int) -> bytes:
    return b.Entry(b.FLOAT, (number + 1, 0), crc=b.masked_crc(b"")).to_bytes()


def odd_shape(number: int) -> bytes:
    named = b.field(2, b.field(1, number + 1) + b.field(2, b"x")) + b.field(2, b"")
    return b.field(1, b.FLOAT) + b.field(2, named) + b.field32(6, b.masked_crc(b""))


def write(path: Path, make: Make, count: int) -> Path:
    head = (b"", b.Header().to_bytes(1))
    pairs = [(b"w%06d" % number, make(number)) for number in range(count)]
    path.with_name(path.name + ".index").write_bytes(b.table([head, *pairs]).data)
    path.with_name(path.name + ".data-00000-of-00001").write_bytes(b"")
    return path


def test_shapes_that_no_two_tensors_share_are_decoded_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = write(tmp_path / "m", own_shape, 2_000)
    singly: list[bytes] = []
    decode = shapes.decode_plain_shape

    def noted(data: bytes) -> Any:
        singly.append(data)
        return decode(data)

    monkeypatch.setattr(shapes, "decode_plain_shape", noted)
    listed = ckptparse.list_variables(prefix)
    assert [shape for _, shape in listed] == [(number + 1, 0) for number in range(2_000)]
    assert len(singly) < 100


def test_shapes_that_nothing_writes_so_meet_a_limit(tmp_path: Path) -> None:
    prefix = write(tmp_path / "m", odd_shape, 300)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    enough = Limits(small_tensors=300 - size // 512)
    assert len(ckptparse.list_variables(prefix, limits=enough)) == 300
    assert ckptparse.verify(prefix, limits=enough).ok
    limits = Limits(small_tensors=300 - size // 512 - 1, single_entries=20)
    with pytest.raises(LimitError, match="not written as protobuf writes them") as caught:
        ckptparse.list_variables(prefix, limits=limits)
    assert caught.value.limit == "small_tensors"
    report = ckptparse.verify(prefix, limits=limits)
    assert [one for one in report.problems if one.code == "limit.reached"]
    assert 20 <= len(report.tensors) < 300


def test_one_shape_that_nothing_writes_so_counts_once(tmp_path: Path) -> None:
    prefix = write(tmp_path / "m", lambda _: odd_shape(1), 300)
    listed = ckptparse.list_variables(prefix, limits=Limits(small_tensors=0))
    assert {shape for _, shape in listed} == {(2, 0)}


def test_behind_an_entry_that_is_none_no_shape_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table of V1 records looks like entries without a kind, each of another shape."""
    made = v1_builder.LegacyFile()
    for number in range(2_000):
        listed = made.declare(f"w{number:06}", (), b.FLOAT)
        listed.slices.append(v1_builder.Slice([], b"\x2a\x04\x00\x00\x80\x3f"))
    made.has_meta = False
    made.write(tmp_path / "m.index")
    found: list[int] = []
    find = Shapes.find

    def noted(self: Shapes, padded: bytes, starts: Any, ends: Any) -> Any:
        found.append(len(starts))
        return find(self, padded, starts, ends)

    monkeypatch.setattr(Shapes, "find", noted)
    ckptparse.verify(tmp_path / "m")
    assert found and sum(found) < 20


def _files(directory: Path, count: int) -> Path:
    for number in range(count):
        made = v1_builder.LegacyFile()
        listed = made.declare("w", (count,), b.FLOAT)
        listed.slices.append(v1_builder.Slice([(number, 1)], b"\x2a\x04\x00\x00\x80\x3f"))
        made.write(directory / f"m-{number:05}-of-{count:05}")
    return directory / "m"


def test_of_more_v1_files_than_the_limit_none_is_opened_to_learn_its_size(tmp_path: Path) -> None:
    prefix = _files(tmp_path, 40)
    report = ckptparse.verify(prefix, limits=Limits(shards=10))
    assert [one.code for one in report.problems] == ["limit.reached"]
    assert len(report.inputs) < 5
    assert len(ckptparse.verify(prefix, limits=Limits(shards=160)).inputs) == 40


def test_the_directory_of_many_v1_files_is_listed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = _files(tmp_path, 40)
    listed: list[Any] = []
    scandir = local.os.scandir

    def noted(path: Any) -> Any:
        listed.append(path)
        return scandir(path)

    monkeypatch.setattr(local.os, "scandir", noted)
    monkeypatch.setattr(outlook, "_look_ahead", lambda *_: None)
    assert ckptparse.verify(prefix, limits=Limits(shards=10)).problems
    assert listed == [str(tmp_path)]


@pytest.mark.parametrize("v1", [False, True])
def test_blocks_of_a_table_with_other_line_ends_are_not_sought_by_their_checksums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, v1: bool
) -> None:
    rng = np.random.default_rng(0)
    arrays = {f"w{number:03}": rng.normal(size=4).astype("f4") for number in range(300)}
    if v1:
        made = v1_builder.LegacyFile()
        for name, value in arrays.items():
            made.add(name, value)
        path = prefix = made.write(tmp_path / "m")
    else:
        prefix = ckptparse.write(tmp_path / "m", arrays)
        path = tmp_path / "m.index"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    monkeypatch.setattr(carving, "iter_blocks", None)
    report = ckptparse.verify(prefix)
    assert ("v1.text" if v1 else "index.text") in {one.code for one in report.problems}
    assert report.counts["verified"] == 300


def test_slices_that_are_too_many_are_counted_before_they_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = b.Bundle()
    made.add_sliced("v", np.arange(800, dtype=np.float32), b.split_rows(800, 800, 1))
    made.add("w", np.float32(1))
    prefix = str(made.write(tmp_path / "m"))
    count: list[int] = []
    read = TensorSlice.from_proto

    def noted(proto: Any) -> TensorSlice:
        count.append(1)
        return read(proto)

    monkeypatch.setattr(TensorSlice, "from_proto", noted)
    assert ckptparse.verify(prefix).ok and len(count) >= 800
    count.clear()
    limits = Limits(single_entries=20)
    with pytest.raises(LimitError, match="number of slices") as caught:
        ckptparse.list_variables(prefix, limits=limits)
    assert caught.value.limit == "single_entries"
    report = ckptparse.verify(prefix, limits=limits)
    assert [one.code for one in report.problems] == ["limit.reached"]
    assert not count


def _foreign(path: Path, kind: str) -> Path:
    """Write a file of another program whose tensor has no elements, and no array of numpy."""
    shape = (0, 1 << 40, 1 << 22)
    if kind == "safetensors":
        said = {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}
        head = json.dumps({"w": said}).encode()
        path.write_bytes(len(head).to_bytes(8, "little") + head)
        return path
    said = {"descr": kind, "fortran_order": False, "shape": shape}
    text = repr(said).encode() + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.npy", b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text)
    return path


@pytest.mark.parametrize(
    ("name", "kind"), [("m.safetensors", "safetensors"), ("m.npz", "<f8"), ("m.npz", "|S1")]
)
def test_a_shape_without_elements_that_numpy_has_no_array_of_is_unsupported(
    tmp_path: Path, name: str, kind: str
) -> None:
    path = _foreign(tmp_path / name, kind)
    with pytest.raises(CheckpointError, match="cannot make an array"):
        ckptparse.diff(path, path)
    with pytest.raises(CheckpointError, match="cannot make an array"):
        ckptparse.average([path, path], tmp_path / "out.npz")
    assert not (tmp_path / "out.npz").exists()
