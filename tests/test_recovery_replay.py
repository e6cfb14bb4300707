"""A report says what it was made of, and a recovery done again from it gives the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import builder
import numpy as np
import pytest

import ckptparse
from ckptparse import (
    CheckpointNotFoundError,
    ChecksumError,
    LimitError,
    Limits,
    MalformedError,
)
from ckptparse.examination import inputs as inputs_module
from ckptparse.recovery import replaying

WEIGHTS = np.random.default_rng(1).normal(size=5000).astype(np.float32)
BIAS = np.random.default_rng(2).normal(size=100).astype(np.float32)


def save(prefix: Path, **arrays: Any) -> Path:
    made = builder.Bundle()
    for name, array in (arrays or {"b": BIAS, "w": WEIGHTS}).items():
        made.add(name, array)
    prefix.parent.mkdir(exist_ok=True)
    made.write(prefix)
    return prefix


def data_of(prefix: Path) -> Path:
    return Path(f"{prefix}.data-00000-of-00001")


def damage(prefix: Path, at: int = 4096) -> None:
    raw = bytearray(data_of(prefix).read_bytes())
    raw[at : at + 512] = bytes(512)
    data_of(prefix).write_bytes(raw)


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A checkpoint with a bad sector, and a copy of it with another."""
    prefix = save(tmp_path / "run" / "m")
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    damage(prefix)
    damage(tmp_path / "copy" / "m", 8192)
    return prefix


def told(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


# What a report was made of


@pytest.mark.parametrize("job", [ckptparse.verify, lambda path: ckptparse.recover(path).report])
def test_a_report_has_version_options_and_inputs(
    job: Callable[[Path], ckptparse.Report], damaged: Path
) -> None:
    report = job(damaged)
    content = report.to_dict()
    assert json.loads(json.dumps(content)) == content
    assert content["version"] == ckptparse.__version__
    assert content["options"]["path"] == str(damaged)
    assert [(one.path, one.role, one.size, one.sha256) for one in report.inputs] == [
        (f"{damaged}.index", "index", Path(f"{damaged}.index").stat().st_size, None),
        (f"{damaged}.data-00000-of-00001", "shard", 20400, None),
    ]


def test_every_file_is_hashed_if_asked_for(damaged: Path) -> None:
    copy = damaged.parent.parent / "copy"
    reports = [
        ckptparse.verify(damaged, hashes=True),
        ckptparse.recover(damaged, evidence=[copy], hashes=True).report,
    ]
    for report in reports:
        for one in report.inputs:
            assert one.sha256 == sha256(Path(one.path).read_bytes()).hexdigest()
    roles = {Path(one.path).parent.name: one.role for one in reports[1].inputs}
    assert roles == {"run": "shard", "copy": "evidence"}


def test_a_graph_has_inputs_too(fixtures: Path) -> None:
    report = ckptparse.verify(fixtures / "graphs" / "frozen_tf2" / "frozen.pb", hashes=True)
    assert [one.role for one in report.inputs] == ["graph"] and report.inputs[0].sha256


def test_a_sibling_that_was_read_is_an_input_and_one_that_was_not_is_none(tmp_path: Path) -> None:
    prefix = save(tmp_path / "run" / "m-1")
    other = WEIGHTS.copy()
    other[0] += 1
    save(tmp_path / "run" / "m-2", b=BIAS, w=other)
    damage(prefix)
    roles = {Path(one.path).name: one.role for one in ckptparse.recover(prefix).report.inputs}
    assert roles["m-2.index"] == "sibling"
    alone = ckptparse.recover(prefix, siblings=False).report
    assert {one.role for one in alone.inputs} == {"index", "shard"}


def test_an_image_is_the_input_of_what_lies_inside(tmp_path: Path) -> None:
    prefix = save(tmp_path / "run" / "m")
    parts = [Path(f"{prefix}.index").read_bytes(), data_of(prefix).read_bytes()]
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(8192) + b"".join(part + bytes(-len(part) % 4096) for part in parts))
    recovery = ckptparse.recover(image, hashes=True)
    assert [(one.path, one.role) for one in recovery.report.inputs] == [(str(image), "image")]
    assert recovery.report.inputs[0].sha256 == sha256(image.read_bytes()).hexdigest()
    inside = ckptparse.scan(image)[0].recover()
    inside.hash_inputs()
    assert inside.report.inputs == recovery.report.inputs
    assert inside.report.options["path"] == str(image)


def make_image(tmp_path: Path, *, flip: int) -> Path:
    """Put a checkpoint into an image, one bit of it flipped, and take its files away."""
    prefix = save(tmp_path / "run" / "m")
    parts = [Path(f"{prefix}.index").read_bytes(), data_of(prefix).read_bytes()]
    image = bytearray(bytes(8192) + b"".join(part + bytes(-len(part) % 4096) for part in parts))
    image[flip] ^= 8
    path = tmp_path / "disk" / "disk.img"
    path.parent.mkdir()
    path.write_bytes(image)
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "out").mkdir()
    return path


@pytest.mark.parametrize("as_image", [True, False])
def test_what_was_patched_in_an_image_is_told_as_a_place_in_the_image(
    as_image: bool, tmp_path: Path
) -> None:
    offset = 8192 + 4096 + 3 + BIAS.nbytes
    image = make_image(tmp_path, flip=offset)
    recovery = ckptparse.recover(image) if as_image else ckptparse.scan(image)[0].recover()
    (patch,) = [one for tensor in recovery.values() for one in tensor.patches]
    assert (patch.path, patch.offset, patch.size) == (str(image), offset, 1)
    assert patch.old == image.read_bytes()[offset : offset + 1]


def test_a_checkpoint_of_a_scan_can_be_replayed(tmp_path: Path) -> None:
    image = make_image(tmp_path, flip=8192 + 4096 + 3 + BIAS.nbytes)
    mapfile = image.with_suffix(".map")
    mapfile.write_text(f"0x0 + 1\n0x0 {image.stat().st_size:#x} +\n")
    (found,) = ckptparse.scan(image, mapfile=mapfile)
    written = found.recover().write(tmp_path / "out" / "m.ckpt")
    again = ckptparse.replay(written.report or "", tmp_path / "out" / "again.ckpt")
    assert again.same
    assert again.compared == 2
    assert {one.role for one in again.recovery.report.inputs} == {"image", "mapfile"}
    image.write_bytes(image.read_bytes()[:-1] + b"!")
    with pytest.raises(ChecksumError):
        ckptparse.replay(written.report or "")


def test_a_report_of_a_scan_that_lacks_its_place_is_refused(tmp_path: Path) -> None:
    image = make_image(tmp_path, flip=8192 + 4096 + 3 + BIAS.nbytes)
    written = ckptparse.scan(image)[0].recover().write(tmp_path / "out" / "m.ckpt")
    told = json.loads(Path(written.report or "").read_text())
    for key, value in [("offset", "far"), ("mapfile", 3), ("limits", None)]:
        options = {**told["report"]["options"], key: value}
        spoilt = {**told, "report": {**told["report"], "options": options}}
        (tmp_path / "r.json").write_text(json.dumps(spoilt))
        with pytest.raises(MalformedError):
            ckptparse.replay(tmp_path / "r.json")
    told["report"]["options"]["offset"] = 0
    (tmp_path / "r.json").write_text(json.dumps(told))
    with pytest.raises(CheckpointNotFoundError, match="offset 0"):
        ckptparse.replay(tmp_path / "r.json")


# Done again

ASKED: dict[str, Callable[[Path], dict[str, Any]]] = {
    "as it is": lambda _: {},
    "with a copy": lambda home: {"evidence": [home / "copy"]},
    "alone, with a limit": lambda _: {"siblings": False, "limits": Limits(entries=1000)},
}


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("name", ["out.ckpt", "out.npz", "out", "out.safetensors"])
def test_a_replay_gives_the_same_tensors_and_files(
    asked: str, name: str, damaged: Path, tmp_path: Path
) -> None:
    recovery = ckptparse.recover(damaged, **ASKED[asked](tmp_path))
    written = recovery.write(tmp_path / name, offer="plausible", fill=np.nan)
    report = Path(written.report or "")
    assert report.is_file()
    found = ckptparse.replay(report)
    assert found.same and found.compared == 2 and found.written is None
    (tmp_path / "again").mkdir()
    again = ckptparse.replay(report, tmp_path / "again" / f"other{Path(name).suffix}")
    assert again.same and again.compared == 2 and again.written is not None
    assert [one.sha256 for one in again.written.files] == [one.sha256 for one in written.files]
    assert again.recovery.report.options == recovery.report.options


def test_evidence_that_was_named_twice_is_asked_in_the_same_order(tmp_path: Path) -> None:
    prefix = save(tmp_path / "run" / "m")
    copies = [Path(shutil.copytree(tmp_path / "run", tmp_path / name)) for name in "ab"]
    data_of(prefix).unlink()
    recovery = ckptparse.recover(prefix, evidence=[*copies, copies[0]])
    written = recovery.write(tmp_path / "out.ckpt")
    assert written.report is not None
    assert ckptparse.replay(written.report).differences == ()


def test_the_shapes_of_a_lost_index_are_told_and_asked_again(tmp_path: Path) -> None:
    prefix = save(tmp_path / "run" / "m")
    Path(f"{prefix}.index").unlink()
    shapes = {"b": {"dtype": "float32", "shape": (100,)}, "w": np.zeros(5000, np.float32)}
    recovery = ckptparse.recover(prefix, shapes=shapes)
    assert sorted(recovery) == ["b", "w"]
    recovery.write(tmp_path / "out.npz")
    found = ckptparse.replay(tmp_path / "out.npz.report.json")
    assert found.same and sorted(found.recovery) == ["b", "w"]


def test_an_input_that_has_changed_is_refused_by_its_name(damaged: Path, tmp_path: Path) -> None:
    ckptparse.recover(damaged).write(tmp_path / "out.npz")
    damage(damaged, 12288)
    with pytest.raises(ChecksumError, match="The file is not the one of the report") as caught:
        ckptparse.replay(tmp_path / "out.npz.report.json")
    assert caught.value.path == str(data_of(damaged))
    data_of(damaged).unlink()
    with pytest.raises(CheckpointNotFoundError):
        ckptparse.replay(tmp_path / "out.npz.report.json")


def test_a_report_cannot_raise_limits(damaged: Path, tmp_path: Path) -> None:
    raised = Limits(objects=10**9)
    ckptparse.recover(damaged, limits=raised).write(tmp_path / "out.npz")
    report = tmp_path / "out.npz.report.json"
    with pytest.raises(LimitError, match=r"own Limits\.objects is 1000000000") as caught:
        ckptparse.replay(report)
    assert caught.value.limit == "objects"
    assert ckptparse.replay(report, limits=raised).same


def test_inputs_are_hashed_once_and_none_of_another_size(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ckptparse.recover(damaged).write(tmp_path / "out.npz")
    report = tmp_path / "out.npz.report.json"
    told = json.loads(report.read_text())
    inputs = told["report"]["inputs"]
    data = next(one for one in inputs if one["path"] == str(data_of(damaged)))
    inputs += [
        {**data, "path": f"{damaged.parent}/{'./' * n}{data_of(damaged).name}"} for n in (1, 2)
    ]
    report.write_text(json.dumps(told))
    hashed: list[str] = []

    def hash_files(files: Any, storage: Any) -> Any:
        hashed.extend(one.path for one in files)
        return inputs_module.hash_files(files, storage)

    monkeypatch.setattr(replaying, "hash_files", hash_files)
    ckptparse.replay(report)
    assert len(hashed) == len(inputs) - 2
    hashed.clear()
    with data_of(damaged).open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(ChecksumError, match="not the one of the report"):
        ckptparse.replay(report)
    assert str(data_of(damaged)) not in hashed


def test_what_differs_is_named(damaged: Path, tmp_path: Path) -> None:
    ckptparse.recover(damaged).write(tmp_path / "out.ckpt", offer="plausible")
    report = tmp_path / "out.ckpt.report.json"
    content = told(report)
    content["output"]["digests"]["b"] = "0" * 64
    content["output"]["files"][0]["sha256"] = "1" * 64
    content["report"]["tensors"]["w"]["status"] = "verified"
    del content["report"]["tensors"]["b"]
    report.write_text(json.dumps(content))
    found = ckptparse.replay(report, tmp_path / "again.ckpt")
    assert not found.same
    assert {(one.tensor, one.path, one.what) for one in found.differences} == {
        ("b", None, "sha256"),
        ("b", None, "tensor"),
        ("w", None, "status"),
        (None, f"{tmp_path}/again.ckpt.data-00000-of-00001", "sha256"),
    }


def test_a_sibling_that_came_since_is_a_difference(tmp_path: Path) -> None:
    prefix = save(tmp_path / "run" / "m-1")
    damage(prefix)
    ckptparse.recover(prefix).write(tmp_path / "out.npz")
    save(tmp_path / "run" / "m-2")
    found = ckptparse.replay(tmp_path / "out.npz.report.json")
    paths = {Path(one.path).name for one in found.differences if one.path is not None}
    assert not found.same and any(path.startswith("m-2.") for path in paths)


BROKEN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a list": lambda _: [],
    "no report": lambda content: {"output": content["output"]},
    "another job": lambda content: content["report"]["options"].update(job="verify"),
    "no path": lambda content: content["report"]["options"].pop("path"),
    "limits that are none": lambda content: content["report"]["options"].update(
        limits={"entries": "many"}
    ),
    "an unknown limit": lambda content: content["report"]["options"].update(limits={"nix": 3}),
    "no hashes": lambda content: content["report"]["inputs"][0].update(sha256=None),
    "an input without a size": lambda content: content["report"]["inputs"][0].pop("size"),
    "evidence of numbers": lambda content: content["report"]["options"].update(evidence=[3]),
    "an output of another kind": lambda content: content.update(output=[1]),
    "no way of writing": lambda content: content["output"].pop("fill"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_report_that_is_none_is_refused(kind: str, damaged: Path, tmp_path: Path) -> None:
    ckptparse.recover(damaged).write(tmp_path / "out.ckpt")
    report = tmp_path / "out.ckpt.report.json"
    content = told(report)
    changed = BROKEN[kind](content)
    broken = changed if isinstance(changed, list) or kind == "no report" else content
    report.write_text(json.dumps(broken))
    if kind == "no way of writing":
        content["output"].pop("format")
        report.write_text(json.dumps(content))
    with pytest.raises(MalformedError):
        ckptparse.replay(report)


@pytest.mark.parametrize("text", ["", "nix", "[" * 100_000, '{"report": 3}'])
def test_text_that_is_no_report_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(MalformedError):
        ckptparse.replay(tmp_path / "r.json")


def test_what_the_command_line_prints_can_be_replayed(damaged: Path, tmp_path: Path) -> None:
    recovery = ckptparse.recover(damaged, hashes=True)
    (tmp_path / "r.json").write_text(json.dumps({"result": recovery.to_dict()}))
    found = ckptparse.replay(tmp_path / "r.json")
    assert found.same and found.compared == 0
