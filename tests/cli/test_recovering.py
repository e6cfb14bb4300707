"""`ckptparse recover`: checkpoints as outputs, replays, exports; and what their JSON says."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import fastjsonschema
import pytest

import ckptparse

Call = Callable[[str], Any]


@pytest.fixture
def damaged(tmp_path: Path, fixtures: Path) -> Path:
    """A checkpoint of two tensors: one bit of one is flipped, the other is cut off."""
    (tmp_path / "run").mkdir()
    for end in (".index", ".data-00000-of-00001"):
        raw = bytearray((fixtures / "saver" / f"my_model{end}").read_bytes())
        if end != ".index":
            raw[5] ^= 4
            raw = raw[:40]
        (tmp_path / "run" / f"m{end}").write_bytes(raw)
    return tmp_path / "run" / "m"


@pytest.fixture(scope="module")
def validate(project: Path) -> Callable[[Any], Any]:
    schema = json.loads((project / "docs" / "cli.schema.json").read_text())
    compiled: Callable[[Any], Any] = fastjsonschema.compile(schema)
    return compiled


@pytest.mark.usefixtures("damaged")
def test_a_checkpoint_is_written_with_what_is_proved(call: Call, tmp_path: Path) -> None:
    done = call("ckptparse recover run/m -o out.ckpt")
    assert done.code == 1
    assert "; 1 that is not proved is left out (--offer plausible)" in done.err
    assert list(ckptparse.read(tmp_path / "out.ckpt")) == ["bias"]
    assert sorted(path.name for path in tmp_path.glob("out*")) == [
        "out.ckpt.data-00000-of-00001",
        "out.ckpt.index",
        "out.ckpt.report.json",
    ]


@pytest.mark.usefixtures("damaged")
def test_a_checkpoint_is_written_with_all_and_the_holes_filled(call: Call, tmp_path: Path) -> None:
    done = call("ckptparse recover run/m -o out.ckpt --offer plausible --fill 7 --report r.json")
    assert done.code == 1
    got = ckptparse.read(tmp_path / "out.ckpt")
    told = json.loads((tmp_path / "r.json").read_text())
    ((start, stop),) = told["output"]["filled"]["weights"]
    assert (got["weights"].reshape(-1)[start:stop] == 7).all() and stop == got["weights"].size
    assert not (tmp_path / "out.ckpt.report.json").exists(), "the report was to be r.json"


@pytest.mark.usefixtures("damaged")
def test_a_package_that_the_format_needs_is_missed_before_the_work(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def recover(*_: Any, **__: Any) -> None:
        pytest.fail("it was recovered for nothing")

    monkeypatch.setitem(sys.modules, "h5py", None)
    monkeypatch.setattr(ckptparse, "recover", recover)
    done = call("ckptparse recover run/m -o out.h5")
    assert done.code == 2
    assert "pip install 'ckptparse[hdf5]'" in done.err
    assert not list(tmp_path.glob("out*"))


@pytest.mark.usefixtures("damaged")
def test_a_replay_says_whether_all_is_the_same(
    call: Call, tmp_path: Path, validate: Callable[[Any], Any]
) -> None:
    assert call("ckptparse recover run/m -o out.ckpt").code == 1
    done = call("ckptparse recover --replay out.ckpt.report.json")
    assert done.code == 0
    assert "the same as in out.ckpt.report.json; the values of 1 tensors were compared" in done.err
    answer = json.loads(
        call("ckptparse recover --replay out.ckpt.report.json -o again.ckpt --json").out
    )
    validate(answer)
    assert answer["result"]["replay"]["same"] and answer["exit"] == 0
    for end in (".index", ".data-00000-of-00001"):
        first, second = (tmp_path / f"{name}.ckpt{end}" for name in ("out", "again"))
        assert first.read_bytes() == second.read_bytes()
    report = tmp_path / "out.ckpt.report.json"
    report.write_text(report.read_text().replace('"corrected"', '"verified"'))
    done = call("ckptparse recover --replay out.ckpt.report.json")
    assert done.code == 1
    assert 'difference\tbias\tstatus\t"verified"\t"corrected"' in done.out


def test_an_input_that_has_changed_is_named_by_a_replay(
    call: Call, damaged: Path, tmp_path: Path
) -> None:
    assert call("ckptparse recover run/m -o out.ckpt").code == 1
    Path(f"{damaged}.index").write_bytes(b"other")
    done = call("ckptparse recover --replay out.ckpt.report.json -o again.ckpt")
    assert done.code == 1 and "run/m.index" in done.err and "SHA-256" in done.err
    assert not list(tmp_path.glob("again*"))


@pytest.mark.usefixtures("damaged")
def test_an_export_is_an_xml_document(call: Call, tmp_path: Path) -> None:
    assert call("ckptparse recover run/m -o out.ckpt --dfxml out.xml").code == 1
    root = ET.fromstring((tmp_path / "out.xml").read_bytes())  # noqa: S314 - made here
    names = [one.text for one in root.iter() if one.tag.endswith("}filename")]
    assert names == [
        "run/m.index", "run/m.data-00000-of-00001", "bias", "weights",
        "out.ckpt.data-00000-of-00001", "out.ckpt.index",
    ]  # fmt: skip
    assert call("ckptparse recover run/m -o other.ckpt --dfxml out.xml").code == 2
    assert not list(tmp_path.glob("other*"))


@pytest.mark.usefixtures("damaged")
@pytest.mark.parametrize("option", ["", " --hash", " --no-hash"])
def test_what_was_read_is_hashed_if_a_report_is_written_or_it_is_asked_for(
    option: str, call: Call, validate: Callable[[Any], Any], tmp_path: Path
) -> None:
    answer = json.loads(call(f"ckptparse recover run/m -o out.npz --json{option}").out)
    validate(answer)
    hashed = {one["sha256"] is not None for one in answer["result"]["report"]["inputs"]}
    assert hashed == {option != " --no-hash"}
    told = json.loads((tmp_path / "out.npz.report.json").read_text())
    assert told["report"]["inputs"] == answer["result"]["report"]["inputs"]
    dry = json.loads(call(f"ckptparse recover run/m --dry-run --json{option}").out)
    hashed = {one["sha256"] is not None for one in dry["result"]["report"]["inputs"]}
    assert hashed == {option == " --hash"}


def test_verify_hashes_if_asked_for(call: Call, validate: Callable[[Any], Any]) -> None:
    answer = json.loads(call("ckptparse verify --hash fixtures/saver/my_model --json").out)
    validate(answer)
    (report,) = answer["result"]["checkpoints"]
    assert all(one["sha256"] for one in report["inputs"])
    lines = call("ckptparse verify --hash fixtures/saver/my_model").out.splitlines()
    assert [line.split("\t")[:3] for line in lines if line.startswith("input")] == [
        ["input", one["path"], one["role"]] for one in report["inputs"]
    ]


@pytest.mark.parametrize(
    "command",
    [
        "recover",
        "recover run/m",
        "recover run/m --replay r.json",
        "recover run/m -o out.pt",
        "recover run/m -o out.ckpt --offer nix",
        "recover --replay nowhere.json",
    ],
)
@pytest.mark.usefixtures("damaged")
def test_what_cannot_be_meant_is_refused(command: str, call: Call, tmp_path: Path) -> None:
    assert call(f"ckptparse {command}").code == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fixtures", "run"]


@pytest.mark.usefixtures("damaged")
@pytest.mark.parametrize("name", ["out.ckpt.report.json", "out.ckpt.index", "r.json"])
def test_what_is_there_is_refused_before_the_work(name: str, call: Call, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    report = " --report r.json" if name == "r.json" else ""
    done = call(f"ckptparse recover run/m -o out.ckpt{report}")
    assert done.code == 2 and "is already there" in done.err
    assert (tmp_path / name).read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["fixtures", "run", name])


@pytest.mark.usefixtures("damaged")
def test_a_map_lists_the_bytes_that_were_patched(call: Call) -> None:
    out = call("ckptparse recover run/m --dry-run --map").out
    assert "range\trun/m.data-00000-of-00001\t5\t6\tpatched" in out
    assert "patch\trun/m.data-00000-of-00001\t5\t1\t04\t00" in out


@pytest.mark.usefixtures("damaged")
def test_a_limit_that_a_report_names_can_be_changed(call: Call) -> None:
    assert "Limits.attempts" in call("ckptparse recover run/m --dry-run --limit attempts=0").out
    assert "Limits.parts allows 2" in call("ckptparse dump run/m --limit parts=2").out
    assert "Limits.attempts" not in call("ckptparse recover run/m --dry-run").out
    done = call("ckptparse verify run/m --limit entries=1 --limit single_entries=9")
    assert "Limits.entries allows 1" in done.out


@pytest.mark.usefixtures("damaged")
@pytest.mark.parametrize("limit", ["single_entries", "attempts=-1", "attempts=1e3", "nix=1", "=1"])
def test_a_limit_that_is_none_is_refused(call: Call, limit: str) -> None:
    for command in ("verify run/m", "recover run/m --dry-run"):
        done = call(f"ckptparse {command} --limit {limit}")
        assert done.code == 2
        assert "Expected" in done.err
