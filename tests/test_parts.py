"""`parts`: pieces of the work of `verify` that any engine may do, and one report of all of them."""

from __future__ import annotations

import multiprocessing
import pickle
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import builder
import numpy as np
import pytest
from storage_suite import CHECKPOINTS

import ckptparse
from ckptparse import Part, Report
from ckptparse.errors import StorageError


def many(directory: Path, shards: int = 5) -> Path:
    bundle = builder.Bundle()
    for number in range(60):
        value = np.full(1000 + number, number, np.float32)
        bundle.add(f"t{number:02d}", value, shard=number % shards)
    bundle.add("empty", np.zeros((0, 3), np.float32))
    bundle.add("text", np.array([b"a", b"bc"], object))
    bundle.write(directory / "m")
    return directory / "m"


def by_parts(path: Path, size: int, **options: Any) -> Report:
    found = ckptparse.parts(path, size=size, **options)
    assert [part.number for part in found] == list(range(len(found)))
    assert {part.count for part in found} == {len(found)}
    reports = [part.verify() for part in found]
    random.Random(0).shuffle(reports)
    return Report.merge(reports)


def same(found: Report, wanted: Report) -> None:
    """All but where else to look, which no part does."""
    left, right = found.to_dict(), replace(wanted, others=()).to_dict()
    assert sorted(map(str, left.pop("inputs"))) == sorted(map(str, right.pop("inputs")))
    assert left == right
    assert list(found.tensors) == list(wanted.tensors)


@pytest.mark.parametrize("size", [1, 5000, 60_000, 1 << 30])
def test_the_parts_together_say_what_verify_says(size: int, tmp_path: Path) -> None:
    path = many(tmp_path)
    found = ckptparse.parts(path, size=size)
    assert len(found) == {1: 61, 5000: 60, 60_000: 5, 1 << 30: 1}[size]
    assert sum(part.size for part in found) == 4 * sum(range(1000, 1060)) + 9
    same(by_parts(path, size), ckptparse.verify(path))


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing", "zeros", "longer", "text"])
def test_damage_is_said_once_and_by_whom_it_concerns(damage: str, tmp_path: Path) -> None:
    path = many(tmp_path)
    shard = tmp_path / ("m.data-00000-of-00005" if damage == "text" else "m.data-00003-of-00005")
    data = bytearray(shard.read_bytes())
    if damage == "missing":
        shard.unlink()
    else:
        if damage == "flipped":
            data[9000] ^= 1
        elif damage == "text":
            data[-1] ^= 1
        elif damage == "zeros":
            data[8192:16384] = bytes(8192)
        data = data[:30_000] if damage == "cut" else data + b"more" * (damage == "longer")
        shard.write_bytes(data)
    wanted = ckptparse.verify(path)
    found = by_parts(path, 20_000)
    if damage == "zeros":
        # Each part counts the zeros in its own tensors.
        assert {one.code for one in found.problems} == {one.code for one in wanted.problems}
        found = replace(found, problems=wanted.problems)
    same(found, wanted)
    reports = [part.verify() for part in ckptparse.parts(path, size=20_000)]
    lost = [
        {name for name, one in report.tensors.items() if not one.status.proved}
        for report in reports
    ]
    assert sum(map(len, lost)) == len(set().union(*lost))
    assert set().union(*lost) == {
        name for name, one in wanted.tensors.items() if not one.status.proved
    }


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_every_kind_of_checkpoint_has_parts(name: str, fixtures: Path) -> None:
    path = fixtures / CHECKPOINTS[name]
    same(by_parts(path, 16), ckptparse.verify(path))


def test_a_part_reads_its_own_bytes_only(tmp_path: Path) -> None:
    path = many(tmp_path)
    (first, *_), (*_, last) = (ckptparse.parts(path, size=50_000),) * 2
    for shard in range(1, 5):
        data = tmp_path / f"m.data-0000{shard}-of-00005"
        data.write_bytes(bytes(data.stat().st_size))
    assert first.verify().ok
    report = first.verify()
    assert {one.status.value for one in report.tensors.values()} == {"verified"}
    kinds = [part.kind for file in report.files.values() for part in file.ranges]
    assert kinds.count("unverified") >= 4
    assert not last.verify().ok


def _verify(part: Part) -> Report:
    return part.verify()


def test_parts_and_their_reports_go_to_other_processes(tmp_path: Path) -> None:
    path = many(tmp_path)
    found = ckptparse.parts(path, size=100_000)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        reports = list(executor.map(_verify, found))
    same(Report.merge(reports), ckptparse.verify(path))
    again = [pickle.loads(pickle.dumps(report)) for report in reports]  # noqa: S301 - our own
    same(Report.merge(again), ckptparse.verify(path))


def test_parts_of_what_lies_in_a_mapping(tmp_path: Path) -> None:
    many(tmp_path)
    files = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    found = pickle.loads(pickle.dumps(ckptparse.parts("m", size=90_000, store=files)))  # noqa: S301
    assert Report.merge(part.verify() for part in found).ok


def test_parts_of_a_checkpoint_in_an_archive(tmp_path: Path) -> None:
    import tarfile

    (tmp_path / "run").mkdir()
    path = many(tmp_path / "run")
    with tarfile.open(tmp_path / "run.tar.gz", "w:gz") as archive:
        for one in path.parent.iterdir():
            archive.add(one, one.name)
    found = pickle.loads(pickle.dumps(ckptparse.parts(tmp_path / "run.tar.gz", size=90_000)))  # noqa: S301
    assert len(found) == 3
    assert Report.merge(part.verify() for part in found).ok


def test_a_report_is_made_of_all_the_parts_or_not_at_all(tmp_path: Path) -> None:
    reports = [part.verify() for part in ckptparse.parts(many(tmp_path), size=90_000)]
    assert Report.merge([*reports, reports[0]]).ok
    (tmp_path / "b").mkdir()
    other = [part.verify() for part in ckptparse.parts(many(tmp_path / "b"), size=90_000)]
    wrong: list[tuple[Sequence[Report], str]] = [
        ((), "none"),
        (reports[1:], "part 1 is missing"),
        (reports[:-1], "part 3 is missing"),
        ([*reports[:-1], other[-1]], "one checkpoint"),
        ([ckptparse.verify(tmp_path / "m")], "Part.verify"),
    ]
    for given, said in wrong:
        with pytest.raises(ValueError, match=said):
            Report.merge(given)


def test_a_checkpoint_that_is_replaced_meanwhile_is_an_error_that_names_the_part(
    tmp_path: Path,
) -> None:
    found = ckptparse.parts(many(tmp_path), size=90_000)
    many(tmp_path, shards=4)
    with pytest.raises(StorageError, match="part 2 of 3 of"):
        found[1].verify()
    for path in tmp_path.glob("m.*"):
        path.unlink()
    with pytest.raises(StorageError, match="part 2 of 3 of"):
        found[1].verify()


def test_a_size_that_means_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 byte"):
        ckptparse.parts(many(tmp_path), size=0)
