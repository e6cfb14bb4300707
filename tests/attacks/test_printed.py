"""Very many tiny tensors: what is printed, listed as JSON or written of them is bounded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import builder
import numpy as np
import pytest

import ckptparse
from ckptparse import DEFAULT_LIMITS, LimitError, Limits
from ckptparse.limits import check_listed
from ckptparse.recovery.chosen import Chosen

COUNT = 60


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A checkpoint of 60 scalars, of which the 50th is damaged."""
    bundle = builder.Bundle()
    for number in range(COUNT):
        bundle.add(f"w{number:02}", np.float32(number))
    prefix = Path(bundle.write(tmp_path / "in" / "m"))
    data = prefix.with_name("m.data-00000-of-00001")
    changed = bytearray(data.read_bytes())
    changed[200:204] = bytes(4)
    data.write_bytes(changed)
    return prefix


def test_a_report_lists_as_many_tensors_as_it_may_the_damaged_first(path: Path) -> None:
    report = ckptparse.verify(path, limits=Limits(small_tensors=40))
    told = report.to_dict()
    most = 40 // 8 + sum(file.size or 0 for file in report.files.values()) // 2048
    assert list(told["tensors"]) == [f"w{number:02}" for number in range(most - 1)] + ["w50"]
    assert told["unlisted"] == COUNT - most
    assert sum(told["counts"].values()) == COUNT == len(report.tensors)


def test_a_recovery_names_what_its_report_lists(path: Path) -> None:
    recovery = ckptparse.recover(path, limits=Limits(small_tensors=40))
    told = recovery.to_dict()
    assert told["recovered"] == [name for name in told["report"]["tensors"] if name in recovery]
    assert len(told["recovered"]) < len(recovery)
    assert "<filename>w59<" not in recovery.to_dfxml()


def test_a_report_that_may_lists_all(path: Path) -> None:
    told = ckptparse.verify(path).to_dict()
    assert list(told["tensors"]) == [f"w{number:02}" for number in range(COUNT)]
    assert "unlisted" not in told


@pytest.mark.parametrize("name", ["out.ckpt", "out.safetensors", "out.npz", "out.h5", "out/"])
def test_a_recovery_of_too_many_is_refused_before_any_is_read(
    name: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(_self: Any) -> Any:
        raise AssertionError("A tensor was read")

    monkeypatch.setattr(Chosen, "read_masked", read)
    recovery = ckptparse.recover(path, limits=Limits(small_tensors=40))
    with pytest.raises(LimitError, match="times the number of recovered tensors") as caught:
        recovery.write(tmp_path / "made" / name, offer="plausible")
    assert caught.value.limit == "small_tensors"
    # What the error says is enough, and no less.
    allowed = int(str(caught.value).split(" is ")[1].split(",")[0])
    enough = ckptparse.recover(path, limits=Limits(small_tensors=allowed))
    monkeypatch.undo()
    (tmp_path / "made").mkdir()
    assert enough.write(tmp_path / "made" / name, offer="plausible").files
    fewer = ckptparse.recover(path, limits=Limits(small_tensors=allowed - 8))
    with pytest.raises(LimitError):
        fewer.write(tmp_path / "made" / name, offer="plausible", overwrite=True)


@pytest.mark.parametrize(
    ("name", "weight"),
    [("out.ckpt", 1), ("out.safetensors", 1), ("out.npz", 1), ("out.h5", 3), ("out/", 4)],
)
def test_what_a_tensor_costs_in_a_format_is_what_it_counts(
    name: str, weight: int, path: Path, tmp_path: Path
) -> None:
    recovery = ckptparse.recover(path, limits=Limits(small_tensors=40))
    with pytest.raises(LimitError, match=f"^{8 * weight} times the number of recovered tensors"):
        recovery.write(tmp_path / name, offer="plausible")
    # With 10 KiB for each, as few as real models have, there is no bound for any format.
    check_listed(DEFAULT_LIMITS, 100_000, 100_000 * 10 << 10, weight=weight)


@pytest.mark.parametrize("job", ["convert", "stats", "diff", "average"])
def test_a_job_takes_as_many_tensors_of_a_recovery_as_are_written(
    job: str, path: Path, tmp_path: Path
) -> None:
    recovery = ckptparse.recover(path)
    assert len(recovery) > 5
    few = Limits(small_tensors=40)
    jobs: dict[str, Callable[[], object]] = {
        "convert": lambda: ckptparse.convert(recovery, tmp_path / "few.npz", limits=few),
        "stats": lambda: ckptparse.stats(recovery, limits=few),
        "diff": lambda: ckptparse.diff(recovery, path, limits=few, read_data=True),
        "average": lambda: ckptparse.average([recovery, recovery], limits=few),
    }
    with pytest.raises(LimitError, match="times the number of recovered tensors") as caught:
        jobs[job]()
    assert caught.value.limit == "small_tensors"
    assert ckptparse.convert(recovery, tmp_path / "c.npz").rows
