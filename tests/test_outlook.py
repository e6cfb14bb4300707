"""What `verify` promises of a large checkpoint: exactly what `recover` gives, or less."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import builder as b
import numpy as np
import pytest
import v1_builder

import ckptparse
from ckptparse.recovery import outlook


@pytest.fixture(autouse=True)
def _every_size_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlook, "_TRIED_BYTES", -1)


def write(directory: Path) -> str:
    bundle = b.Bundle()
    for n in range(30):
        bundle.add(f"layer_{n:02}/kernel", np.arange(64, dtype=np.float32) * 1.37 + n)
    bundle.add("names", np.array([b"a", b"bc"], object))
    return str(bundle.write(directory / "m"))


def promised_and_given(prefix: str) -> tuple[ckptparse.Report, int, int]:
    """Return the report, and of how many tensors `recover` proves how many."""
    report = ckptparse.verify(prefix)
    tensors = ckptparse.recover(prefix).report.tensors.values()
    return report, sum(one.status.proved for one in tensors), len(tensors)


def test_a_bit_of_the_index_is_flipped_back_before_anything_is_promised(tmp_path: Path) -> None:
    prefix = write(tmp_path)
    index = Path(f"{prefix}.index")
    whole = index.read_bytes()
    repaired = 0
    for position in range(0, len(whole), 23):
        index.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        report, proved, total = promised_and_given(prefix)
        found = report.outlook
        if report.ok:
            continue
        if found is None or not found.exact:
            least = ckptparse.Outlook.of(report).proved if found is None else found.proved
            assert least <= proved, position
            assert "at least" in report.next_step or "saves" not in report.next_step
            continue
        assert (found.proved, found.total) == (proved, total) == (31, 31), position
        assert f"saves all {total} tensors" in report.next_step
        repaired += 1
    assert repaired > len(whole) / 23 * 0.9


def test_data_that_is_damaged_besides_makes_the_promise_one_at_the_least(tmp_path: Path) -> None:
    prefix = write(tmp_path)
    index, data = Path(f"{prefix}.index"), Path(f"{prefix}.data-00000-of-00001")
    damaged = bytearray(index.read_bytes())
    damaged[200] ^= 4
    index.write_bytes(damaged)
    data.write_bytes(data.read_bytes()[:-3000])
    report, proved, total = promised_and_given(prefix)
    found = report.outlook
    assert found is not None and not found.exact
    assert 0 < found.proved <= proved < total == found.total
    assert f"saves at least {found.proved} of {total} tensors" in report.next_step


def test_damaged_data_alone_needs_no_look_at_the_index(tmp_path: Path) -> None:
    prefix = write(tmp_path)
    data = Path(f"{prefix}.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:-3000])
    report = ckptparse.verify(prefix)
    assert report.outlook is None
    assert "saves at least" in report.next_step


def test_a_v1_file_is_promised_no_more_than_it_gives(tmp_path: Path) -> None:
    file = v1_builder.LegacyFile()
    for n in range(6):
        file.add(f"v{n}", np.arange(300, dtype=np.float32) * 1.37 + n)
    whole = b.table(file.pairs(), block_size=512).data
    path = tmp_path / "v1.ckpt"
    exact = 0
    for position in range(40, len(whole), len(whole) // 12):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        report, proved, total = promised_and_given(str(path))
        found = report.outlook
        if found is not None and found.exact:
            exact += 1
            assert (found.proved, found.total) == (proved, total), position
        elif not report.ok:
            least = ckptparse.Outlook.of(report).proved if found is None else found.proved
            assert least <= proved, position
    assert exact >= 6


@pytest.mark.parametrize("convert", [base64.encodebytes, lambda data: data])
def test_no_names_are_lost_if_the_index_was_corrected_whatever_follows_the_tensors(
    convert: Callable[[bytes], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its block is whole once a bit is flipped back, or a conversion is undone."""
    made = b.Bundle()
    for name in "xyz":
        made.add(name, np.random.default_rng(ord(name)).normal(size=500))
    made.write(tmp_path / "model")
    index, data = tmp_path / "model.index", tmp_path / "model.data-00000-of-00001"
    raw = bytearray(index.read_bytes())
    if convert(b"x") == b"x":
        raw[30] ^= 4
    index.write_bytes(convert(raw))
    data.write_bytes(convert(data.read_bytes()) + b"more")
    monkeypatch.undo()
    report = ckptparse.recover(tmp_path / "model").report
    assert report.complete and report.unnamed_bytes
    assert report.next_step.endswith("saves all 3 tensors")
    assert ckptparse.verify(tmp_path / "model").next_step == report.next_step
