"""Many tensors that fail stay rows of columns: the answers are those of objects."""

from __future__ import annotations

import dataclasses
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import builder
import numpy as np
import pytest
from instruments import noting_payloads

import ckptparse
from ckptparse.examination import file_maps, summary
from ckptparse.examination.many_spans import checksums_of, find_zeros
from ckptparse.examination.readers import DataFile, DataFiles, checksum_of, find_holes
from ckptparse.examination.report import ExaminedTensors
from ckptparse.examination.stored_spans import SpanColumns, Stored, join_spans
from ckptparse.files.context import begin
from ckptparse.limits import DEFAULT_LIMITS

COUNT = 60
KINDS = ((builder.FLOAT, 4), (builder.INT64, 8), (builder.BOOL, 1), (builder.BFLOAT16, 2))


def bundle(seed: int = 0, *, big: bool = False) -> builder.Bundle:
    """Make tensors of several kinds and sizes in two data files."""
    chosen = random.Random(1)
    made = builder.Bundle(big=big)
    rng = np.random.default_rng(seed)
    for number in range(COUNT):
        kind, width = chosen.choice(KINDS)
        count = chosen.choice((0, 1, 2, 5, 40, 1500))
        data = rng.normal(0, 0.05, max(1, count * width)).astype(np.float32).tobytes()
        data = data[: count * width]
        shard = chosen.choice((0, 0, 1))
        offset = made.put(data, shard=shard)
        entry = builder.Entry(kind, (count,), shard, offset, len(data), builder.masked_crc(data))
        made.entries[b"t%03d" % number] = entry
    made.add_sliced("wide", np.ones((6, 2), np.float32), builder.split_rows(6, 2, 2))
    return made


def wrong(made: builder.Bundle) -> None:
    """State another checksum for two tensors in three."""
    for number, name in enumerate(list(made.entries)[:COUNT]):
        if number % 3:
            made.change(name, crc=number + 1)


def cut(made: builder.Bundle) -> None:
    wrong(made)
    del made.shards[0][len(made.shards[0]) // 3 :]


def zeros(made: builder.Bundle) -> None:
    for start, size in ((100, 3000), (9000, 9000), (30_000, 500)):
        made.shards[0][start : start + size] = bytes(size)


def shared(made: builder.Bundle) -> None:
    """Let all lie over the same bytes; of a third these have the checksum."""
    size = len(made.shards[0])
    for number, name in enumerate(list(made.entries)[:COUNT]):
        entry = made.entries[name]
        assert isinstance(entry, builder.Entry)
        made.change(name, shard=0, offset=number * 7 % (size - entry.size))
        if number % 3:
            made.reseal(name)


def shifted(made: builder.Bundle) -> None:
    data = made.shards[0]
    data[5000:5000] = b"abc"
    data[20_000:20_000] = b"abcdefgh"


def swapped(made: builder.Bundle) -> None:
    made.shards[0], made.shards[1] = made.shards[1], made.shards[0]


def mixed(made: builder.Bundle) -> None:
    made.shards.update(bundle(1, big=made.big).shards)


def flipped(made: builder.Bundle) -> None:
    for at in random.Random(2).sample(range(len(made.shards[0])), 25):
        made.shards[0][at] ^= 16


def pointer(made: builder.Bundle) -> None:
    made.shards[0][:] = (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 123456\n"
    )


def text(made: builder.Bundle) -> None:
    made.shards[0][:] = bytes(made.shards[0]).replace(b"\n", b"\r\n")


def gone(made: builder.Bundle) -> None:
    del made.shards[1]


DAMAGES = [wrong, cut, zeros, shared, shifted, swapped, mixed, flipped, pointer, text, gone]


def told(path: str, attempts: int) -> list[Any]:
    """Return everything that a caller may see."""
    limits = ckptparse.Limits(attempts=attempts)
    found: list[Any] = []
    for job in (ckptparse.verify, ckptparse.recover):
        result = job(path, limits=limits)
        report = result.report if isinstance(result, ckptparse.Recovery) else result
        found += [result.to_dict(), list(report.tensors), report.counts, str(report)]
        if isinstance(result, ckptparse.Recovery):
            found += [list(result), [values_of(result[name]) for name in result]]
    return found


def values_of(tensor: ckptparse.RecoveredTensor) -> str:
    try:
        return repr(tensor.read().tolist())
    except ckptparse.CheckpointError as error:
        return str(error)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("attempts", [0, 7])
@pytest.mark.parametrize("damage", DAMAGES)
def test_rows_that_fail_are_told_as_objects_are(
    tmp_path: Path,
    damage: Callable[[builder.Bundle], None],
    attempts: int,
    big: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = bundle(big=big)
    damage(made)
    path = made.write(tmp_path / "m", block_size=900)
    by_rows = told(path, attempts)
    monkeypatch.setattr("ckptparse.examination.checking._find_failed", lambda *_: None)
    assert told(path, attempts) == by_rows


def test_rows_that_a_leftover_index_tells_better_of_are_taken_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bundle()
    path = made.write(tmp_path / "m")
    whole = (tmp_path / "m.index").read_bytes()
    (tmp_path / "m.index.tempstate1").write_bytes(whole)
    wrong(made)
    made.write(tmp_path / "m")
    by_rows = told(path, 3)
    assert by_rows[0]["counts"] == {"verified": COUNT + 1}
    monkeypatch.setattr("ckptparse.examination.checking._find_failed", lambda *_: None)
    assert told(path, 3) == by_rows


def test_of_many_tensors_that_fail_few_become_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = noting_payloads(monkeypatch)
    count = 2000
    bad = builder.Bundle()
    for number in range(count):
        bad.add(f"t{number:05}", np.arange(number, number + 5, dtype=np.float32), crc=number + 1)
    path = bad.write(tmp_path / "m")
    limits = ckptparse.Limits(attempts=10)
    report = ckptparse.verify(path, limits=limits)
    assert report.counts == {"corrupt": count}
    assert len([one for one in report.problems if one.code == "tensor.checksum"]) == count
    recovery = ckptparse.recover(path, limits=limits)
    assert len(made) < count / 5
    assert "Limits.attempts" in recovery.report.tensors["t01999"].note
    assert pickle.loads(pickle.dumps(report)) == report  # noqa: S301


def test_checksums_and_zeros_of_many_runs_are_those_of_each(tmp_path: Path) -> None:
    chosen = random.Random(3)
    pieces = [
        chosen.randbytes(chosen.randrange(9000)) + bytes(chosen.choice((0, 10, 5000, 50_000)))
        for _ in range(40)
    ]
    (tmp_path / "data").write_bytes(b"".join(pieces) + bytes(5000))
    path, context = begin(tmp_path / "data")
    files, file = DataFiles(context), DataFile(path)
    size = files.size(file) or 0
    starts = np.array([chosen.randrange(size) for _ in range(400)], np.int64)
    lengths = np.array([chosen.choice((0, 1, 4, 300, 7000, 60_000)) for _ in starts], np.int64)
    sizes = np.minimum(lengths, size - starts)
    runs = list(zip(starts.tolist(), sizes.tolist(), strict=True))
    found = checksums_of(files, file, starts, sizes).tolist()
    assert found == [checksum_of(files, file, *run) for run in runs]
    # Of such as do not overlap, in any order, one is longer than a piece.
    ends = np.cumsum([1, 0, 7, *range(100), (1 << 20) + 9])
    apart = chosen.sample(range(1, len(ends)), len(ends) - 1)
    bounds = [(int(ends[number - 1]), int(ends[number] - ends[number - 1])) for number in apart]
    (tmp_path / "long").write_bytes(chosen.randbytes(int(ends[-1])))
    long = DataFile(str(tmp_path / "long"))
    columns = np.array(bounds, np.int64).T
    assert checksums_of(files, long, *columns).tolist() == [
        checksum_of(files, long, *run) for run in bounds
    ]
    files.known = {(long.path, *run): number for number, run in enumerate(bounds)}
    assert checksums_of(files, long, *columns).tolist() == list(range(len(bounds)))
    files.known = {}
    wanted = [find_holes(files, file, *run) for run in runs if run[1]]
    filled = sizes > 0
    zeros = find_zeros(files, file, starts[filled], (starts + sizes)[filled])
    assert [zeros.within(low, low + size) for low, size in runs if size] == wanted
    counted = zeros.count(starts[filled], (starts + sizes)[filled]).tolist()
    assert counted == [sum(stop - start for start, stop in one) for one in wanted]
    files.close()


def test_bytes_that_many_tensors_share_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").write_bytes(random.Random(1).randbytes(100_000))
    path, context = begin(tmp_path / "data")
    files, file = DataFiles(context), DataFile(path)
    counted: list[int] = []
    real = ckptparse.examination.many_spans.crc32c

    def count(data: Any, crc: int = 0) -> int:
        counted.append(len(data))
        return real(data, crc)

    monkeypatch.setattr("ckptparse.examination.many_spans.crc32c", count)
    starts = np.arange(500, dtype=np.int64)
    checksums_of(files, file, starts, np.full(500, 90_000, np.int64))
    assert sum(counted) <= 100_000
    files.close()


def told_of_file(stored: list[Stored], size: int) -> tuple[list[Any], list[Any]]:
    """Return the map of a data file, and its problems."""
    problems = file_maps._iter_layout_problems("data", stored, size, used=True)
    return list(file_maps._map_shard(stored, size)), list(problems)


def test_spans_that_are_joined_as_columns_make_the_same_map_and_problems() -> None:
    chosen = random.Random(4)
    for _ in range(400):
        spans, at = [], 0
        for number in range(chosen.randrange(12)):
            start = chosen.choice((at, at, at, at + 2, max(0, at - chosen.randrange(9))))
            stop = start + chosen.randrange(1, 9)
            kind = chosen.choice(("bad", "bad", "bad", "verified", "unverified"))
            holes = ((0, 1),) if chosen.random() < 0.1 else ()
            one = Stored(start, stop, number, kind, len(holes), lambda holes=holes: holes)
            spans.append(one)
            at = chosen.choice((stop, max(at, stop)))
        each = sorted(spans, key=lambda one: (one.start, one.number))
        half = chosen.randrange(len(spans) + 1)
        joined = join_spans([SpanColumns.of(spans[:half]), SpanColumns.of(spans[half:])])
        assert told_of_file(joined, 40) == told_of_file(each, 40)


def test_spans_end_to_end_in_the_same_state_become_one_object() -> None:
    starts = np.arange(0, 40_000, 4, dtype=np.int64)
    whole = SpanColumns.whole(starts, starts + 4)
    assert [one[:2] for one in join_spans([whole, SpanColumns.of([])])] == [(0, 40_000)]
    top = Stored(2**63 - 1, 2**64 - 2, 0, "bad")
    assert join_spans([SpanColumns.of([top])])[0][:2] == top[:2]
    assert join_spans([SpanColumns.of([])]) == []


@pytest.mark.parametrize("corrected", [False, True])
def test_a_report_in_words_makes_the_lines_that_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corrected: bool
) -> None:
    made = builder.Bundle()
    for number in range(1500):
        made.add(f"w{number:04}", np.float32(number))
        if number % 2:
            made.change(f"w{number:04}", crc=7)
    prefix = made.write(tmp_path / "m")
    if corrected:
        table = made.table()
        (tmp_path / "m.index").write_bytes(table.flip(2000))
    asked: list[str] = []
    get = ExaminedTensors.__getitem__

    def noting(self: ExaminedTensors, name: str) -> Any:
        asked.append(name)
        return get(self, name)

    limits = dataclasses.replace(DEFAULT_LIMITS, attempts=10)
    reports = [ckptparse.recover(prefix, limits=limits).report]
    reports += [] if corrected else [ckptparse.verify(prefix, limits=limits)]
    for report in reports:
        assert isinstance(report.tensors, ExaminedTensors)
        noted = [name for name, one in report.tensors.items() if str(one.status) != "verified"]
        assert report.noted_names() == noted
        with monkeypatch.context() as patched:
            patched.setattr(ExaminedTensors, "__getitem__", noting)
            text = str(report)
        assert f"… and {len(noted) - 50:,} more" in text
        assert len(asked) == 50
        asked.clear()


def test_of_very_many_tensors_that_fail_the_first_have_a_problem_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = builder.Bundle()
    for number in range(200):
        made.add(f"w{number:04}", np.float32(number))
        made.change(f"w{number:04}", crc=7)
    prefix = made.write(tmp_path / "m")
    limits = dataclasses.replace(DEFAULT_LIMITS, attempts=10)
    before = ckptparse.verify(prefix, limits=limits)
    monkeypatch.setattr(summary, "_MOST_TOLD", 50)
    after = ckptparse.verify(prefix, limits=limits)
    codes = [(one.code, one.where) for one in before.problems]
    told = [(one.code, one.where) for one in after.problems]
    assert len(codes) - len(told) == 139
    assert told[-1] == ("tensor.checksum", prefix)
    assert "140 more tensors failed" in after.problems[-1].message
    assert dict(after.tensors) == dict(before.tensors)


def test_of_very_many_gaps_and_overlaps_the_first_have_a_problem_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = builder.Bundle()
    for number in range(20):
        for name in (f"a{number:02}", f"b{number:02}"):
            made.add(name, np.ones(4, np.float32), at=100 * number + 50)
    prefix = made.write(tmp_path / "m")
    whole = [one.code for one in ckptparse.verify(prefix).problems]
    assert whole.count("shard.gap") == whole.count("shard.overlap") == 20
    monkeypatch.setattr(file_maps, "_MOST_PLACES", 5)
    found = ckptparse.verify(prefix).problems
    gaps = [one.message for one in found if one.code == "shard.gap"]
    overlaps = [one.message for one in found if one.code == "shard.overlap"]
    assert len(gaps) == len(overlaps) == 6
    assert gaps[-1] == "there are 15 more such places"
    assert overlaps[-1] == "there are 15 more such places"
