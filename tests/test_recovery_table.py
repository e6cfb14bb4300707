"""What comes back of a damaged checkpoint, by kind of damage: a table that may not fall.

`recovery_table.json` records for each fault, without and with sibling checkpoints, the share of
elements that is promised (verified, corrected, derived) and the share that is there and right at
all, averaged over tensors and seeds. CKPTPARSE_UPDATE_TABLE=1 writes it anew.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import faults
import legacy_faults
import pytest

import ckptparse

TABLE = Path(__file__).with_name("recovery_table.json")
SEEDS = 4
UPDATE = bool(os.environ.get("CKPTPARSE_UPDATE_TABLE"))
VERIFY_STATUSES = {"verified", "partial", "unverified", "corrupt", "missing"}


@cache
def recorded() -> dict[str, list[float]]:
    table: dict[str, list[float]] = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    return table


def hold(key: str, judgements: list[faults.Judgement]) -> None:
    """Compare with the table, or write into it."""
    found = [
        round(sum(getattr(j, field) for j in judgements) / len(judgements), 4)
        for field in ("proved", "held")
    ]
    if UPDATE:
        table = json.loads(TABLE.read_text()) if TABLE.exists() else {}
        table[key] = found
        TABLE.write_text(json.dumps(dict(sorted(table.items())), indent=1) + "\n")
        return
    assert key in recorded(), f"no line for {key!r}: CKPTPARSE_UPDATE_TABLE=1 writes it"
    for now, then, what in zip(found, recorded()[key], ("promised", "right"), strict=True):
        assert now >= then - 1e-4, f"{key}: {now:.1%} of the elements are {what}, before {then:.1%}"


def examine(path: Path, directory: Path, oracle: Any, *, siblings: bool) -> faults.Judgement:
    """Verify and recover one damaged checkpoint, and hold every invariant over both."""
    before = faults.snapshot(directory)
    report = ckptparse.verify(path)
    recovery = ckptparse.recover(path, siblings=siblings)
    judgement = faults.judge(recovery, oracle)
    assert faults.snapshot(directory) == before, "the input was written"
    assert not judgement.wrong, "promised, and not the original"
    hold_report(report, recovery, oracle)
    hold_promises(report, recovery, oracle)
    return judgement


def hold_promises(report: Any, recovery: Any, oracle: Any) -> None:
    """Hold what is said of the whole against what came back, and what `verify` said of that."""
    proved = [tensor.status.proved for tensor in recovery.report.tensors.values()]
    back = [faults.same(recovery[name].read(), oracle[name]) for name in oracle if name in recovery]
    everything = len(back) == len(oracle) and all(proved) and all(back)
    assert recovery.whole == everything
    if report.outlook is not None:
        assert report.outlook.proved == sum(proved)
        assert report.outlook.total == len(proved)
        assert ("saves all" in report.next_step) == everything


def hold_report(report: Any, recovery: Any, oracle: Any) -> None:
    for found in (report, recovery.report):
        assert {problem.code for problem in found.problems} <= set(ckptparse.PROBLEM_CODES)
        assert found.ok == (not any(p.severity == "error" for p in found.problems))
        json.dumps(found.to_dict(), allow_nan=False)
        assert str(found)
        for file in found.files.values():
            edges = [(part.start, part.stop) for part in file.ranges]
            assert all(start < stop for start, stop in edges)
            assert [a for a, _ in edges[1:]] == [b for _, b in edges[:-1]]
    assert {tensor.status.value for tensor in report.tensors.values()} <= VERIFY_STATUSES
    assert all(tensor.status == "verified" for tensor in report.tensors.values()) or not report.ok
    for name, tensor in report.tensors.items():
        if tensor.status == "verified":
            assert faults.same(recovery[name].read(), oracle[name])
    for tensor in recovery.values():
        if tensor.status in ("corrected", "derived"):
            assert tensor.chance is not None and tensor.chance <= 1e-3
    held = {"verified", "corrected", "derived", "partial", "unverified"}
    for name, tensor in recovery.report.tensors.items():
        assert (name in recovery) == (tensor.status.value in held)


@pytest.mark.parametrize("siblings", [False, True], ids=["alone", "siblings"])
@pytest.mark.parametrize("fault", faults.FAULTS, ids=lambda fault: fault.name)
def test_what_comes_back_of_each_fault_does_not_fall(
    fault: faults.Fault, siblings: bool, tmp_path: Path
) -> None:
    judgements = []
    for seed in range(SEEDS):
        directory = tmp_path / str(seed)
        oracle = faults.write_run(directory, siblings=siblings, zeros=fault.zeros)
        files = faults.Files(directory)
        fault.damage(files, random.Random(f"{fault.name} {seed}"))
        judgements.append(examine(files.prefix, directory, oracle, siblings=siblings))
        shutil.rmtree(directory)
    hold(f"{fault.name} ({'with siblings' if siblings else 'alone'})", judgements)


@pytest.mark.parametrize("fault", legacy_faults.FAULTS, ids=lambda fault: fault.name)
def test_what_comes_back_of_each_fault_of_a_v1_file_does_not_fall(
    fault: legacy_faults.LegacyFault, tmp_path: Path
) -> None:
    judgements = []
    for seed in range(SEEDS):
        directory = tmp_path / str(seed)
        oracle = legacy_faults.write_files(directory)
        path = directory / legacy_faults.STEM
        fault.damage(path, random.Random(f"{fault.name} {seed}"))
        judgements.append(examine(path, directory, oracle, siblings=False))
    hold(fault.name, judgements)


def test_the_table_has_a_line_for_every_fault_and_no_other() -> None:
    kinds = [
        f"{fault.name} ({how})" for fault in faults.FAULTS for how in ("alone", "with siblings")
    ]
    assert set(recorded()) == {*kinds, *(fault.name for fault in legacy_faults.FAULTS)}


def test_an_undamaged_run_is_whole(tmp_path: Path) -> None:
    oracle = faults.write_run(tmp_path)
    path = tmp_path / faults.BASE
    judgement = examine(path, tmp_path, oracle, siblings=True)
    assert (judgement.proved, judgement.held) == (1.0, 1.0)
    report = ckptparse.verify(path)
    assert report.ok and not report.problems
    assert set(report.tensors) == set(oracle)
