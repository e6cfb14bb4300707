"""Saves that ended early, as TensorFlow left them: the diagnosis, and what comes back."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import expected
import pytest

import ckptparse

UNFINISHED = [
    "data_without_index",
    "index_tempstate",
    "new_data_old_index",
    "sharded_part_moved",
    "temp_directory",
    "truncated_index",
    "v1_tempstate",
]


def interrupted(name: str) -> tuple[Path, dict[str, expected.ExpectedTensor]]:
    """The prefix that was being saved, and the values that were on their way."""
    case = expected.load(f"crash/{name}")
    facts = case.data["interrupted"]
    tensors = {row["name"]: expected.ExpectedTensor.from_json(row) for row in facts["tensors"]}
    return case.root / facts["prefix"], tensors


def codes(report: ckptparse.Report) -> set[str]:
    return {problem.code for problem in report.problems}


@pytest.mark.checklist(124, 125, 126, 127)
@pytest.mark.parametrize("name", UNFINISHED)
def test_a_save_that_lost_nothing_but_its_end_is_finished_virtually(name: str) -> None:
    prefix, tensors = interrupted(name)
    recovery = ckptparse.recover(prefix)
    assert set(recovery) == set(tensors)
    for key, tensor in recovery.items():
        assert tensor.status == "verified"
        expected.assert_matches(tensor.read(), tensors[key])


@pytest.mark.checklist(124, 125, 127)
@pytest.mark.parametrize("name", [*UNFINISHED, "data_tempstate"])
def test_a_save_that_ended_early_is_called_so(name: str) -> None:
    prefix, _ = interrupted(name)
    report = ckptparse.verify(prefix)
    assert not report.ok and "set.unfinished" in codes(report)


@pytest.mark.parametrize("name", UNFINISHED)
def test_the_first_lines_tell_that_readers_do_not_use_what_a_save_left_behind(name: str) -> None:
    prefix, tensors = interrupted(name)
    report = ckptparse.verify(prefix)
    first, second, *_, last = str(report).splitlines()
    total = len(tensors)
    assert first.endswith(f"  damaged  {total} tensors: {total} verified")
    assert second.startswith(
        "  The save did not finish. These tensors come from files that it left"
    )
    assert "`ckptparse recover` saves them." in second
    assert last.startswith("Next: `ckptparse recover ") and f"saves all {total} tensors" in last
    with pytest.raises(ckptparse.CheckpointError):
        ckptparse.read(prefix)


@pytest.mark.parametrize("name", [*UNFINISHED, "data_tempstate"])
def test_the_directory_of_a_save_that_ended_early_means_that_save(name: str) -> None:
    prefix, _ = interrupted(name)
    found = ckptparse.verify(prefix.parent)
    # That of the directory says first why this save is meant.
    problems = [problem for problem in found.problems if problem.code != "path.taken"]
    assert replace(found, problems=tuple(problems)) == ckptparse.verify(prefix)


@pytest.mark.checklist(124)
def test_data_without_any_index_is_an_incomplete_save_of_so_many_bytes() -> None:
    prefix, _ = interrupted("data_tempstate")
    report = ckptparse.verify(prefix)
    (missing,) = (p for p in report.problems if p.code == "index.missing")
    assert "the tensors in 1 data file of 56 bytes have no names" in missing.message
    assert not report.tensors


@pytest.mark.checklist(125)
def test_an_index_that_was_not_renamed_is_believed_by_its_own_checksums(tmp_path: Path) -> None:
    prefix, tensors = interrupted("index_tempstate")
    copy = Path(shutil.copytree(prefix.parent, tmp_path / "copy"))
    (index,) = copy.glob("*.index.tempstate*")
    index.write_bytes(index.read_bytes()[:-20])
    recovery = ckptparse.recover(copy / prefix.name)
    assert "index.footer" in codes(recovery.report)
    assert {tensor.status for tensor in recovery.values()} == {"verified"}
    assert set(recovery) == set(tensors)


@pytest.mark.checklist(126)
def test_the_directory_of_parts_can_be_given_itself() -> None:
    prefix, tensors = interrupted("temp_directory")
    recovery = ckptparse.recover(prefix.parent / "model_temp")
    assert {tensor.status for tensor in recovery.values()} == {"verified"}
    assert set(recovery) == set(tensors)
    part = prefix.parent / "model_temp" / "part-00000-of-00001"
    assert set(ckptparse.recover(part)) == set(tensors) and ckptparse.verify(part).ok


def test_leftovers_of_a_failed_save_beside_a_whole_checkpoint_are_a_warning(
    tmp_path: Path,
) -> None:
    """A later save into the same place died; the checkpoint that is there is none the worse."""
    good = expected.load("saver/my_model")
    whole = good.checkpoint.path
    for path in whole.parent.glob(f"{whole.name}.*"):
        shutil.copy(path, tmp_path / path.name.replace(whole.name, "model"))
    parts, _ = interrupted("temp_directory")
    shutil.copytree(parts.parent / "model_temp", tmp_path / "model_temp")
    report = ckptparse.verify(tmp_path / "model")
    assert report.ok and codes(report) == {"leftover.temporary"}
    assert set(ckptparse.recover(tmp_path / "model")) == set(good.checkpoint.tensors)


def test_a_newer_save_that_the_state_file_does_not_know_is_another_checkpoint() -> None:
    case = expected.load("crash/state_not_written")
    assert ckptparse.verify(case.root).path.endswith("ckpt-1")
    assert ckptparse.verify(case.root / "ckpt-2").ok
