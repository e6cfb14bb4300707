"""A report in words: the same words in a terminal, in a log and as `str(report)`."""

from __future__ import annotations

import re
from pathlib import Path

import faults
import pytest

import ckptparse
from ckptparse.rendering.text import render_report
from ckptparse.text import cell_width, chance_text


@pytest.fixture
def damaged(tmp_path: Path) -> ckptparse.Report:
    """Return the report of a checkpoint whose data file is cut off in the middle."""
    faults.write_run(tmp_path)
    shard = faults.Files(tmp_path).shard(0)
    shard.write_bytes(shard.read_bytes()[:-40])
    return ckptparse.verify(tmp_path / faults.BASE)


def test_a_report_is_as_good_as_its_verdict(damaged: ckptparse.Report, fixtures: Path) -> None:
    whole = ckptparse.verify(fixtures / "saver" / "my_model")
    assert (bool(whole), whole.ok, whole.verdict) == (True, True, "ok")
    assert (bool(damaged), damaged.ok, damaged.verdict) == (False, False, "damaged")


def test_a_report_prints_as_it_is_rendered_without_folding(damaged: ckptparse.Report) -> None:
    assert str(damaged) == damaged.render() == render_report(damaged)
    (problem,) = (p for p in damaged.problems if p.code == "shard.truncated")
    assert f"\n      {problem.message}\n" in str(damaged)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_is_wider_than_asked_but_for_a_command_to_copy(
    width: int, damaged: ckptparse.Report
) -> None:
    for line in damaged.render(width=width, maps=True, everything=True).splitlines():
        a_long_path = any(cell_width(word) > width - 8 for word in line.split())
        assert cell_width(line) <= width or a_long_path or "`ckptparse recover " in line


def test_a_command_to_copy_stays_in_one_line(damaged: ckptparse.Report) -> None:
    command = re.search(r"`ckptparse recover [^`]+`", damaged.next_step)
    assert command is not None
    assert command[0] in damaged.render(width=30).splitlines()


def test_styles_change_no_word(damaged: ckptparse.Report) -> None:
    styled = damaged.render(paint=lambda text, style: f"<{style}>{text}</>" if style else text)
    assert "<bold red>damaged</>" in styled
    assert re.sub(r"<[a-z ]*>|</>", "", styled) == damaged.render()


def test_advice_and_whole_tensors_are_left_out_or_told_as_asked(damaged: ckptparse.Report) -> None:
    assert "Next: " not in damaged.render(advice=False)
    whole = [t.name for t in damaged.tensors.values() if t.status == "verified"]
    assert whole
    assert all(f"  {name}  " in damaged.render(everything=True) for name in whole)
    assert not any(f"  {name}  " in damaged.render() for name in whole)


def test_a_name_cannot_move_the_cursor(damaged: ckptparse.Report) -> None:
    from dataclasses import replace

    name = "evil\x1b[2J\n"
    tensor = replace(next(t for t in damaged.tensors.values() if t.status != "verified"), name=name)
    text = replace(damaged, path=name, tensors={name: tensor}).render(maps=True)
    assert "\x1b" not in text
    assert "evil\\x1b[2J\\n" in text


@pytest.mark.parametrize(
    ("chance", "said"),
    [(2.4e-4, "1 in 4,100"), (0.001, "1 in 1,000"), (1 / 3, "1 in 3"), (0.75, "75%")],
)
def test_a_chance_is_said_in_whole_numbers(chance: float, said: str) -> None:
    assert chance_text(chance) == said


def test_a_recovery_says_whether_anything_is_lost_and_whether_anything_was_mended(
    tmp_path: Path, fixtures: Path
) -> None:
    good = ckptparse.recover(fixtures / "saver" / "my_model")
    assert (good.whole, good.untouched) == (True, True)
    faults.write_run(tmp_path, siblings=False)
    shard = faults.Files(tmp_path).shard(0)
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    mended = ckptparse.recover(tmp_path / faults.BASE)
    assert (mended.whole, mended.untouched) == (True, False)
    shard.unlink()
    lost = ckptparse.recover(tmp_path / faults.BASE)
    assert (lost.whole, lost.untouched) == (False, False)


def test_the_repr_of_a_report_is_one_short_line(damaged: ckptparse.Report) -> None:
    assert re.fullmatch(r"<Report of '.+': damaged, \d+ tensors, \d+ problems>", repr(damaged))
