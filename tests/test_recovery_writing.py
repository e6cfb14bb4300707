"""What was got back, written: as a checkpoint, in other formats, with its report beside it."""

from __future__ import annotations

import copy
import gzip
import io
import json
import tarfile
import zipfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import builder
import faults
import numpy as np
import pytest
from packages import ml_dtypes

import ckptparse
from ckptparse import OutputExistsError, UnsupportedError
from ckptparse.examination.readers import DataFile
from ckptparse.files.local import LocalSource, LocalStorage
from ckptparse.files.memory import MemorySource
from ckptparse.files.storage import Source
from ckptparse.graph.object_graph import ObjectGraph
from ckptparse.recovery.chosen import Chosen
from ckptparse.recovery.opened import OpenedFiles

GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
FORMATS = ("out.ckpt", "out.safetensors", "out.npz", "out")


def save(prefix: Path, arrays: dict[str, Any]) -> Path:
    made = builder.Bundle()
    for name, array in arrays.items():
        made.add(name, array)
    prefix.parent.mkdir(exist_ok=True)
    made.write(prefix)
    return prefix


def data_of(prefix: Path) -> Path:
    return Path(f"{prefix}.data-00000-of-00001")


def odd_run(directory: Path) -> ckptparse.Recovery:
    """Tensors of odd names and kinds, the last one cut off."""
    arrays = {
        "../escape": np.arange(3.0),
        "A": np.ones(2, np.float32),
        "a": np.zeros(2, np.float32),
        "half": np.array([1.5, -2], ml_dtypes.bfloat16),
        "report": np.int32(1),
        "strings": np.array([[b"x\0", b""], [b"yy", b"\xff"]], object),
        "zz": np.arange(1.0, 101.0),
    }
    prefix = save(directory / "run" / "m", arrays)
    data_of(prefix).write_bytes(data_of(prefix).read_bytes()[:-80])
    return ckptparse.recover(prefix)


def report_of(target: Path) -> dict[str, Any]:
    beside = target / "report.json" if target.is_dir() else Path(f"{target}.report.json")
    content: dict[str, Any] = json.loads(beside.read_text())
    return content


def arrays_of(target: Path, place: Path) -> dict[str, Any]:
    """Read what was written, as `convert` reads it."""
    if target.suffix != ".ckpt":
        ckptparse.convert(target, place / "converted")
        target = place / "converted"
    return ckptparse.read(target)


# What is written


@pytest.mark.parametrize("name", FORMATS)
def test_what_came_back_is_saved_with_its_report(name: str, tmp_path: Path) -> None:
    recovery = odd_run(tmp_path)
    target = tmp_path / "there" / name
    target.parent.mkdir()
    written = recovery.write(target, offer="plausible")
    got = arrays_of(target, tmp_path)
    for tensor in recovery:
        if tensor in written.left_out:
            assert name == "out.safetensors" and tensor == "strings"
            continue
        wanted = recovery[tensor].read(fill=0)
        assert builder.same(got[tensor], wanted), tensor
    assert got["half"].dtype == ml_dtypes.bfloat16
    assert not got["zz"][90:].any() and got["zz"][89] == 90
    assert written.filled == {"zz": ((90, 100),)}
    told = report_of(target)
    assert told["output"] == written.to_dict()
    assert told["report"]["tensors"]["zz"]["ranges"] == [[0, 90]]
    assert not (tmp_path / "escape.npy").exists()
    assert {path.name for path in tmp_path.iterdir()} <= {
        "run",
        "there",
        *made_by_convert(tmp_path),
    }


def made_by_convert(directory: Path) -> set[str]:
    return {path.name for path in directory.glob("converted.*")}


def test_a_mask_stands_beside_what_was_filled_in_numpys_formats(tmp_path: Path) -> None:
    recovery = odd_run(tmp_path)
    for name in ("out.npz", "out"):
        written = recovery.write(tmp_path / name)
        assert written.offer == "plausible" and written.masks == {"zz": "zz.missing"}
        mask = arrays_of(tmp_path / name, tmp_path)["zz.missing"]
        assert mask.sum() == 10 and mask[90:].all()
        for path in tmp_path.glob("converted.*"):
            path.unlink()


def test_a_mask_takes_no_tensors_name(tmp_path: Path) -> None:
    arrays = {"w": np.arange(1.0, 9.0), "w.missing": np.ones(3), "z": np.arange(1.0, 101.0)}
    prefix = save(tmp_path / "run" / "m", {"w.missing": arrays["w.missing"], "w": arrays["z"]})
    data_of(prefix).write_bytes(data_of(prefix).read_bytes()[:-80])
    written = ckptparse.recover(prefix).write(tmp_path / "out.npz")
    assert written.masks == {"w": "w.missing~2"}
    with np.load(tmp_path / "out.npz") as archive:
        assert archive["w.missing"].tolist() == [1, 1, 1] and archive["w.missing~2"].sum() == 10


@pytest.mark.parametrize("name", ["out.ckpt", "out.safetensors"])
def test_only_what_is_proved_is_written_unless_more_is_asked_for(name: str, tmp_path: Path) -> None:
    recovery = odd_run(tmp_path)
    written = recovery.write(tmp_path / name)
    assert written.offer == "proved" and written.withheld == ("zz",) and not written.filled
    assert "zz" not in arrays_of(tmp_path / name, tmp_path)
    assert report_of(tmp_path / name)["output"]["withheld"] == ["zz"]


def test_an_output_in_which_nothing_would_be_is_refused(tmp_path: Path) -> None:
    prefix = save(tmp_path / "run" / "m", {"w": np.random.default_rng(1).normal(size=5000)})
    raw = bytearray(data_of(prefix).read_bytes())
    raw[8192:8704] = bytes(512)
    data_of(prefix).write_bytes(raw)
    recovery = ckptparse.recover(prefix)
    with pytest.raises(UnsupportedError, match="Expected proved tensors, found none") as caught:
        recovery.write(tmp_path / "out.ckpt")
    assert "--offer plausible" in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_what_looks_wrong_is_filled_as_asked(tmp_path: Path) -> None:
    value = np.random.default_rng(1).normal(size=5000)
    prefix = save(tmp_path / "run" / "m", {"w": value, "n": np.arange(5000) % 7})
    raw = bytearray(data_of(prefix).read_bytes())
    raw[8192:8704] = bytes(512)
    data_of(prefix).write_bytes(raw)
    recovery = ckptparse.recover(prefix)
    ((start, stop),) = recovery["w"].suspect
    for fill, keep in ((0, False), (np.nan, False), (-1, False), (7, True)):
        name = f"out-{fill}-{keep}.ckpt"
        written = recovery.write(tmp_path / name, offer="plausible", fill=fill, keep_suspect=keep)
        got = ckptparse.read(tmp_path / name)["w"]
        there = np.full(stop - start, 0.0 if keep else fill)
        assert np.array_equal(got[start:stop], there, equal_nan=True)
        assert np.array_equal(got[:start], value[:start])
        assert written.filled == ({} if keep else {"w": ((start, stop),)})
        told = report_of(tmp_path / name)
        assert told["report"]["tensors"]["w"]["suspect"] == [[start, stop]]


@pytest.mark.parametrize(
    ("dtype", "fill", "wanted"),
    [
        (np.int8, np.nan, 0),
        (np.uint16, 7, 7),
        (np.bool_, 1, True),
        (np.float16, np.inf, np.inf),
        (np.complex64, 2, 2),
        (ml_dtypes.bfloat16, -1, -1),
        (ml_dtypes.int4, np.nan, 0),
    ],
)
def test_every_kind_is_filled(dtype: Any, fill: Any, wanted: Any, tmp_path: Path) -> None:
    value = (np.arange(6000) % 3).astype(dtype)
    prefix = save(tmp_path / "run" / "m", {"w": value})
    raw = data_of(prefix).read_bytes()
    data_of(prefix).write_bytes(raw[: len(raw) // 2])
    recovery = ckptparse.recover(prefix)
    written = recovery.write(tmp_path / "out.ckpt", offer="plausible", fill=fill)
    assert written.filled == {"w": ((3000, 6000),)}
    got = ckptparse.read(tmp_path / "out.ckpt")["w"]
    assert got.dtype == np.dtype(dtype)
    assert (got[:3000] == value[:3000]).all() and (got[3000:] == wanted).all()


def test_a_fill_that_a_kind_does_not_have_is_refused(tmp_path: Path) -> None:
    prefix = save(tmp_path / "run" / "m", {"w": np.arange(6000).astype(np.uint8)})
    data_of(prefix).write_bytes(data_of(prefix).read_bytes()[:3000])
    with pytest.raises(UnsupportedError, match="A tensor of uint8 cannot have the value 300"):
        ckptparse.recover(prefix).write(tmp_path / "out.npz", fill=300)
    assert not (tmp_path / "out.npz").exists()


def test_a_kind_that_the_format_lacks_is_left_out_with_the_reason(tmp_path: Path) -> None:
    written = odd_run(tmp_path).write(tmp_path / "out.safetensors")
    assert list(written.left_out) == ["strings"]
    assert "cannot hold" in written.left_out["strings"]


def test_slices_are_written_as_a_whole_tensor(tmp_path: Path) -> None:
    made = builder.Bundle()
    value = np.arange(60, dtype=np.float32).reshape(10, 6)
    made.add_sliced("t", value, [[(0, 4), None], [(4, 6), None]], shards=[0, 1])
    (tmp_path / "run").mkdir()
    made.write(tmp_path / "run" / "m")
    (tmp_path / "run" / "m.data-00001-of-00002").unlink()
    recovery = ckptparse.recover(tmp_path / "run" / "m")
    written = recovery.write(tmp_path / "out.ckpt", offer="plausible")
    assert written.filled == {"t": ((24, 60),)}
    got = ckptparse.read(tmp_path / "out.ckpt")["t"]
    assert (got[:4] == value[:4]).all() and not got[4:].any()


def test_the_bytes_of_a_checkpoint_are_those_that_were_lost(tmp_path: Path) -> None:
    arrays = {"a": np.random.default_rng(1).normal(size=900), "b": np.float32(3)}
    prefix = save(tmp_path / "run" / "m", arrays)
    whole = {end: Path(f"{prefix}{end}").read_bytes() for end in (".index", ".data-00000-of-00001")}
    raw = bytearray(whole[".data-00000-of-00001"])
    raw[5000] ^= 16
    data_of(prefix).write_bytes(raw)
    written = ckptparse.recover(prefix).write(tmp_path / "out.ckpt")
    assert (
        Path(f"{tmp_path}/out.ckpt.data-00000-of-00001").read_bytes()
        == whole[".data-00000-of-00001"]
    )
    assert [Path(file.path).name for file in written.files] == [
        "out.ckpt.data-00000-of-00001",
        "out.ckpt.index",
    ]


# The object graph


def keys_of(prefix: Path) -> set[str]:
    with ckptparse.open(prefix) as checkpoint:
        graph = checkpoint.object_graph
        assert graph is not None
        return {attribute.checkpoint_key for _, attribute in graph.iter_attributes()}


def graph_run(directory: Path) -> Path:
    (directory / "run").mkdir()
    names = {name: np.random.default_rng(n).normal(size=2000) for n, name in enumerate("abc")}
    ckptparse.write(directory / "run" / "m", names, object_graph="make")
    return directory / "run" / "m"


def test_the_object_graph_is_kept_byte_for_byte_if_nothing_is_lost(tmp_path: Path) -> None:
    prefix = graph_run(tmp_path)
    raw = bytearray(data_of(prefix).read_bytes())
    raw[700] ^= 1
    data_of(prefix).write_bytes(raw)
    ckptparse.recover(prefix).write(tmp_path / "out.ckpt")
    with ckptparse.open(prefix) as old, ckptparse.open(tmp_path / "out.ckpt") as new:
        assert old.object_graph is not None and new.object_graph is not None
        assert new.object_graph.serialized == old.object_graph.serialized


def test_the_object_graph_is_read_within_the_limits_of_the_recovery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = graph_run(tmp_path)
    used: list[ckptparse.Limits] = []
    read = ObjectGraph.from_bytes

    def note(data: bytes, *, limits: ckptparse.Limits) -> ObjectGraph:
        used.append(limits)
        return read(data, limits=limits)

    given = ckptparse.Limits(nesting=99)
    with data_of(prefix).open("r+b") as damaged:
        damaged.seek(700)
        damaged.write(b"another")
    recovery = ckptparse.recover(prefix, limits=given)
    monkeypatch.setattr(ObjectGraph, "from_bytes", note)
    recovery.write(tmp_path / "out.ckpt")
    assert used == [given]


def test_keys_of_lost_tensors_are_dropped_from_the_object_graph(tmp_path: Path) -> None:
    prefix = graph_run(tmp_path)
    before = keys_of(prefix)
    raw = bytearray(data_of(prefix).read_bytes())
    raw[17000:17512] = np.random.default_rng(5).bytes(512)
    data_of(prefix).write_bytes(raw)
    recovery = ckptparse.recover(prefix)
    lost = {name for name, tensor in recovery.items() if not tensor.status.proved}
    assert len(lost) == 1
    recovery.write(tmp_path / "out.ckpt")
    assert keys_of(tmp_path / "out.ckpt") == before - lost
    recovery.write(tmp_path / "all.ckpt", offer="plausible")
    assert keys_of(tmp_path / "all.ckpt") == before


@pytest.mark.parametrize("damage", ["wild", "zeros", "cut"])
def test_an_object_graph_that_is_damaged_is_made_anew_of_the_names(
    damage: str, tmp_path: Path
) -> None:
    prefix = graph_run(tmp_path)
    before = keys_of(prefix)
    with ckptparse.open(prefix) as checkpoint:
        assert checkpoint.object_graph is not None
        place = data_of(prefix).read_bytes().index(checkpoint.object_graph.serialized)
    raw = bytearray(data_of(prefix).read_bytes())
    if damage == "cut":
        del raw[place + 5 :]
    else:
        raw[place + 5 : place + 40] = bytes(range(35)) if damage == "wild" else bytes(35)
    data_of(prefix).write_bytes(raw)
    for offer in ("proved", "plausible"):
        out = tmp_path / f"{offer}.ckpt"
        written = ckptparse.recover(prefix).write(out, offer=offer)
        assert written.object_graph == "made"
        assert written.to_dict()["object_graph"] == "made"
        assert keys_of(out) == before


def test_the_object_graph_made_of_names_knows_slots_and_tables(tmp_path: Path) -> None:
    names = [
        "net/w/.ATTRIBUTES/VARIABLE_VALUE",
        "net/w/.OPTIMIZER_SLOT/opt/m/.ATTRIBUTES/VARIABLE_VALUE",
        "words/.ATTRIBUTES/table-keys",
        "words/.ATTRIBUTES/table-values",
    ]
    (tmp_path / "run").mkdir()
    ckptparse.write(tmp_path / "run" / "m", {name: np.arange(3.0) for name in names})
    ckptparse.recover(tmp_path / "run" / "m").write(tmp_path / "out.ckpt")
    with ckptparse.open(tmp_path / "out.ckpt") as checkpoint:
        graph = checkpoint.object_graph
        assert graph is not None
        keys = {attribute.checkpoint_key for _, attribute in graph.iter_attributes()}
        assert keys == {*names[:2], "words/.ATTRIBUTES/table"}
        (slots,) = graph.slots_by_variable.values()
        assert [name for _, name, _ in slots] == ["m"]


def test_names_of_no_objects_need_no_object_graph(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    ckptparse.write(tmp_path / "run" / "m", {"w": np.arange(3.0)})
    written = ckptparse.recover(tmp_path / "run" / "m").write(tmp_path / "out.ckpt")
    assert written.object_graph is None
    with ckptparse.open(tmp_path / "out.ckpt") as checkpoint:
        assert checkpoint.object_graph is None


# Where it is written


@pytest.mark.parametrize("name", FORMATS)
def test_an_existing_output_is_refused(name: str, tmp_path: Path) -> None:
    recovery = odd_run(tmp_path)
    recovery.write(tmp_path / name)
    before = faults.snapshot(tmp_path)
    with pytest.raises(OutputExistsError, match="nothing is replaced unless you ask for it"):
        recovery.write(tmp_path / name)
    assert faults.snapshot(tmp_path) == before
    recovery.write(tmp_path / name, overwrite=True)
    assert faults.snapshot(tmp_path).keys() == before.keys()


@pytest.mark.parametrize("name", ["out.npz", "out.ckpt"])
def test_a_report_beside_an_output_is_not_replaced_unasked(name: str, tmp_path: Path) -> None:
    recovery = odd_run(tmp_path)
    beside = tmp_path / f"{name}.report.json"
    beside.write_text("mine")
    with pytest.raises(OutputExistsError):
        recovery.write(tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {"run", beside.name}
    assert beside.read_text() == "mine"
    assert recovery.write(tmp_path / name, report=False).report is None


@pytest.mark.parametrize("name", [*FORMATS, "deeper/out.npz"])
def test_nothing_is_written_into_the_directory_of_an_input(name: str, tmp_path: Path) -> None:
    recovery = odd_run(tmp_path)
    (tmp_path / "run" / "deeper").mkdir()
    before = faults.snapshot(tmp_path)
    with pytest.raises(UnsupportedError, match="directory of an input"):
        recovery.write(tmp_path / "run" / name)
    with pytest.raises(UnsupportedError, match="directory of an input"):
        recovery.write(tmp_path / "out.npz", report=tmp_path / "run" / "r.json")
    assert faults.snapshot(tmp_path) == before


def test_only_a_directory_that_holds_a_recovery_is_replaced(tmp_path: Path) -> None:
    recovery = odd_run(tmp_path)
    recovery.write(tmp_path / "out")
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="has other files than those that may be replaced"):
        recovery.write(tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("name", FORMATS)
def test_a_failed_write_leaves_nothing_behind(name: str, tmp_path: Path) -> None:
    recovery = odd_run(tmp_path)
    data_of(tmp_path / "run" / "m").write_bytes(b"")
    with pytest.raises(ckptparse.CheckpointError):
        recovery.write(tmp_path / name)
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("name", FORMATS)
def test_what_cannot_be_read_any_more_is_left_out_and_named(name: str, tmp_path: Path) -> None:
    recovery = odd_run(tmp_path)
    data = bytearray(data_of(tmp_path / "run" / "m").read_bytes())
    faults.flip(data, 3, 3)
    data_of(tmp_path / "run" / "m").write_bytes(data)
    written = recovery.write(tmp_path / name)
    assert "changed" in written.left_out["../escape"]
    arrays = arrays_of(tmp_path / name, tmp_path)
    assert "../escape" not in arrays and arrays["report"] == 1
    assert report_of(tmp_path / name)["left_out"] == written.left_out


def test_many_that_cannot_be_read_any_more_are_found_in_one_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = {f"w{number:02}": np.arange(8.0) + number for number in range(40)}
    prefix = save(tmp_path / "run" / "m", arrays)
    recovery = ckptparse.recover(prefix)
    raw = bytearray(data_of(prefix).read_bytes())
    for number in range(0, 40, 2):
        raw[64 * number] ^= 1
    data_of(prefix).write_bytes(raw)
    asked = dict.fromkeys(arrays, 0)
    read = Chosen.read_masked

    def noted(self: Chosen) -> Any:
        asked[self.name] += 1
        return read(self)

    monkeypatch.setattr(Chosen, "read_masked", noted)
    written = recovery.write(tmp_path / "out.npz")
    assert list(written.left_out) == [f"w{number:02}" for number in range(0, 40, 2)]
    assert all("changed" in why for why in written.left_out.values())
    assert max(asked.values()) <= 3
    with np.load(tmp_path / "out.npz") as made:
        assert (made["w39"] == arrays["w39"]).all()


@pytest.mark.parametrize("name", ["x.pt", "x.pb", "x.zip", "x.gguf"])
def test_the_ending_of_a_format_that_is_not_written_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="writes no format with this ending"):
        odd_run(tmp_path).write(tmp_path / name)


def test_a_format_can_be_named_whatever_the_ending(tmp_path: Path) -> None:
    recovery = odd_run(tmp_path)
    assert recovery.write(tmp_path / "plain", format="v2").format == "v2"
    assert "A" in ckptparse.read(tmp_path / "plain")
    with pytest.raises(ValueError, match="format is one of"):
        recovery.write(tmp_path / "x", format="nix")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="offer is one of"):
        recovery.write(tmp_path / "x", offer="nix")  # type: ignore[arg-type]


@pytest.mark.parametrize("ending", [".gz", ".tar.gz", ".zip"])
def test_a_packed_file_is_unpacked_once_for_all_tensors_that_are_written(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(0).standard_normal((30, 2000))
    prefix = save(tmp_path / "run" / "m", {f"t{n:02}": row for n, row in enumerate(values)})
    raw = data_of(prefix).read_bytes()
    data_of(prefix).unlink()
    packed = tmp_path / "kept" / f"backup{ending}"
    packed.parent.mkdir()
    packed.write_bytes(pack(raw, ending))
    recovery = ckptparse.recover(prefix, evidence=[packed])
    opened: list[str] = []
    real = LocalSource.open

    def watched(path: str) -> LocalSource:
        opened.append(path)
        return real(path)

    monkeypatch.setattr(LocalSource, "open", watched)
    (tmp_path / "out").mkdir()
    recovery.write(tmp_path / "out" / "m.ckpt", hashes=False)
    assert opened.count(str(packed)) == 1
    for name, row in zip(recovery, values, strict=True):
        np.testing.assert_array_equal(recovery[name].read(), row)
    assert opened.count(str(packed)) == 1 + len(values)
    opened.clear()
    with recovery.keep_open(), recovery.keep_open():
        np.testing.assert_array_equal([recovery[name].read() for name in recovery], values)
    assert opened.count(str(packed)) == 1
    again = copy.deepcopy(recovery["t07"])
    np.testing.assert_array_equal(again.read(), values[7])


def test_nothing_stays_open_if_the_last_that_keeps_it_ends_while_it_is_opened() -> None:
    files = OpenedFiles()
    file = DataFile("x", lambda source: source)
    storage = Leaving(files.keep())
    with files.borrow(file, storage) as source:
        assert source.size == 3
    with files.keep(), files.borrow(file, storage):
        assert storage.opened == 2


class Leaving(LocalStorage):
    """Ends a `with` statement of another thread while the first file is opened."""

    def __init__(self, kept: AbstractContextManager[None]) -> None:
        self.opened = 0
        self.kept = kept
        kept.__enter__()

    def open(self, path: str) -> Source:  # type: ignore[override]
        self.opened += 1
        if self.opened == 1:
            self.kept.__exit__(None, None, None)
        return MemorySource(path, b"abc")


def pack(raw: bytes, ending: str) -> bytes:
    stream = io.BytesIO()
    if ending == ".zip":
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("run/m.data", raw)
        return stream.getvalue()
    if ending == ".tar.gz":
        with tarfile.open(fileobj=stream, mode="w") as archive:
            info = tarfile.TarInfo("run/m.data")
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
        raw = stream.getvalue()
    return gzip.compress(raw, 1)
