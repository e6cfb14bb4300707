"""Evidence that once cost its size times the checkpoint's: calls are counted, no time."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import builder
import numpy as np
import pytest
from instruments import counted_reads

import ckptparse
from ckptparse.crc import registers
from ckptparse.examination import diagnose, readers
from ckptparse.examination import places as shifts
from ckptparse.examination.plain_rows import PlainRows
from ckptparse.limits import DEFAULT_LIMITS
from ckptparse.recovery import borrowing, doubt, images, matches, siblings
from ckptparse.recovery.evidence import places


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str], Counter[str]]:
    """Count the calls of functions, by their names."""
    counts: Counter[str] = Counter()

    def count(owner: Any, name: str) -> Counter[str]:
        function = getattr(owner, name)

        def stand_in(*args: Any, **options: Any) -> Any:
            counts[name] += 1
            return function(*args, **options)

        monkeypatch.setattr(owner, name, stand_in)
        return counts

    return count


def _save_of_other_weights(directory: Path, count: int, shift: int = 0) -> str:
    rng = np.random.default_rng(1)
    values = {f"w{n:02}": rng.normal(0, 0.05, 5_000).astype("<f4") for n in range(count)}
    ckptparse.write(directory / "m", values)
    data = directory / "m.data-00000-of-00001"
    other = rng.normal(0, 0.05, data.stat().st_size // 4).astype("<f4").tobytes()
    data.write_bytes(bytes(shift) + other[: len(other) - shift])
    return str(directory / "m")


@pytest.mark.parametrize("shift", [0, 1, 3])
def test_weights_are_sought_only_where_exponents_lie(
    tmp_path: Path, calls: Callable[[Any, str], Counter[str]], shift: int
) -> None:
    prefix = _save_of_other_weights(tmp_path, 20, shift)
    made = calls(shifts, "Registers")
    ckptparse.recover(prefix)
    # Every fourth byte is tried, and not each of them.
    assert made["Registers"] == 1


def test_one_whole_tensor_of_floats_in_a_file_is_enough_for_doubt(
    tmp_path: Path, calls: Callable[[Any, str], Counter[str]]
) -> None:
    prefix = _save_of_other_weights(tmp_path, 40)
    judged = calls(doubt, "judge_at")
    found = ckptparse.recover(prefix)
    assert {one.status for one in found.report.tensors.values()} == {ckptparse.Status.UNVERIFIED}
    assert judged["judge_at"] == 1


def test_a_copy_whose_checksums_are_all_the_same_is_checked_once(
    tmp_path: Path, calls: Callable[[Any, str], Counter[str]]
) -> None:
    count = 300
    for name in ("m", "copy"):
        bundle = builder.Bundle()
        bundle.put(np.random.default_rng(1).bytes(16 * count))
        for n in range(count):
            entry = builder.Entry(builder.FLOAT, (4,), offset=16 * n, size=16, crc=5)
            bundle.entries[b"t%04d" % n] = entry
        (tmp_path / name).mkdir()
        bundle.write(tmp_path / name / "m")
    tried = calls(siblings, "checksums_of")
    made = calls(PlainRows, "payload")
    ckptparse.recover(tmp_path / "m" / "m", siblings=False, evidence=[tmp_path / "copy"])
    assert 0 < tried["checksums_of"] <= 4
    assert made["payload"] <= 3 * count


@pytest.mark.parametrize("attempts", [256, 4])
def test_own_bytes_are_compared_once_with_those_of_a_copy_and_so_often_at_most(
    attempts: int, tmp_path: Path, calls: Callable[[Any, str], Counter[str]]
) -> None:
    count = 150
    rng = np.random.default_rng(3)
    values = {f"w{n:03}": rng.normal(0, 0.05, 64).astype("<f4") for n in range(count)}
    for name in ("m", "copy"):
        (tmp_path / name).mkdir()
        ckptparse.write(tmp_path / name / "m", values)
    path = tmp_path / "m" / "m.data-00000-of-00001"
    held = np.frombuffer(path.read_bytes(), np.uint8).reshape(count, -1).copy()
    held[:, 100:130] = rng.integers(0, 256, (count, 30))
    path.write_bytes(held.tobytes())
    compared = calls(borrowing, "_compare")
    limits = replace(DEFAULT_LIMITS, attempts=attempts)
    found = ckptparse.recover(
        tmp_path / "m" / "m", siblings=False, evidence=[tmp_path / "copy"], limits=limits
    )
    size = sum(one.stat().st_size for one in (tmp_path / "m").iterdir())
    assert 0 < compared["_compare"] <= min(count, 8 * (attempts + size // 32768))
    if attempts == 256:
        assert len(found) == count


def _in_shards(directory: Path, count: int) -> str:
    """Write damaged shards of one tensor each."""
    rng = np.random.default_rng(2)
    values = {f"w{n:04}": rng.normal(0, 0.05, 300).astype("<f4") for n in range(count)}
    directory.mkdir()
    ckptparse.write(directory / "m", values, max_shard_size=1_200)
    for path in directory.glob("m.data-*"):
        path.write_bytes(rng.bytes(path.stat().st_size))
    return str(directory / "m")


def test_files_of_evidence_and_damaged_files_are_not_paired_without_bound(
    tmp_path: Path, calls: Callable[[Any, str], Counter[str]]
) -> None:
    count = 120
    prefix = _in_shards(tmp_path / "m", count)
    shutil.copytree(tmp_path / "m", tmp_path / "copy")
    limits = replace(DEFAULT_LIMITS, attempts=40)
    looked = calls(places, "_in_image")
    described = calls(places, "_sought")
    telling = calls(images, "is_telling")
    found = ckptparse.recover(prefix, siblings=False, evidence=[tmp_path / "copy"], limits=limits)
    assert looked["_in_image"] <= 16 * (40 + 20) // count
    assert described["_sought"] <= count
    assert telling["is_telling"] <= count
    told = [one.message for one in found.report.problems if one.code == "evidence.unsearched"]
    assert any("Limits.attempts" in one for one in told)


def test_a_copy_with_the_same_damage_is_not_merged(
    tmp_path: Path, calls: Callable[[Any, str], Counter[str]]
) -> None:
    prefix = _in_shards(tmp_path / "m", 20)
    shutil.copytree(tmp_path / "m", tmp_path / "copy")
    merged = calls(matches, "merge_copies")
    ckptparse.recover(prefix, siblings=False, evidence=[tmp_path / "copy"])
    assert not merged["merge_copies"]


def test_whether_another_save_wrote_a_block_of_a_torn_index_is_asked_once(
    tmp_path: Path, calls: Callable[[Any, str], Counter[str]]
) -> None:
    made = builder.Bundle()
    count = 1_000
    for number in range(count):
        made.add(f"w{number:04}", np.float32(number))
    first = made.write(tmp_path / "m-1", block_size=1024)
    made.change("w0000", crc=1)
    made.write(tmp_path / "m-2", block_size=1024)
    data = Path(first + ".data-00000-of-00001")
    data.write_bytes(bytes(byte ^ 0x55 for byte in data.read_bytes()))
    index = bytearray(Path(first + ".index").read_bytes())
    index[len(index) // 2] ^= 0xFF
    Path(first + ".index").write_bytes(index)
    described = calls(PlainRows, "payload")
    found = ckptparse.recover(first)
    # All blocks but the first are the same in both: what they describe may be the other save.
    assert sum(one.note.endswith("that checkpoint instead") for one in found.values()) > 100
    assert described["payload"] < 20 * count


def test_what_a_lost_index_is_rebuilt_of_is_bounded(tmp_path: Path) -> None:
    for name in ("m-1", "m-2"):
        ckptparse.write(tmp_path / name, {f"w{n:03}": np.float32(n + 1) for n in range(100)})
    (tmp_path / "m-1.index").unlink()
    assert len(ckptparse.recover(tmp_path / "m-1")) == 100
    few = replace(DEFAULT_LIMITS, single_entries=10)
    found = ckptparse.recover(tmp_path / "m-1", limits=few)
    assert list(found) == [f"w{n:03}" for n in range(10)]
    said = [one.message for one in found.report.problems if one.code == "limit.reached"]
    assert len(said) == 1 and said[0].startswith("only 10 of the 100 tensors")
    assert "Limits.single_entries" in said[0]


@pytest.fixture
def mixed(tmp_path: Path) -> str:
    """A checkpoint of many small tensors, and its copy, with the pages of the data file mixed."""
    rng = np.random.default_rng(1)
    (tmp_path / "m").mkdir()
    values = {f"w{n:03}": rng.normal(0, 0.05, 524).astype("<f4") for n in range(400)}
    ckptparse.write(tmp_path / "m" / "m", values)
    data = tmp_path / "m" / "m.data-00000-of-00001"
    raw = np.frombuffer(data.read_bytes(), np.uint8)
    pages = raw[: len(raw) // 4096 * 4096].reshape(-1, 4096)
    mixed = pages[rng.permutation(len(pages))].tobytes()
    data.write_bytes(mixed + raw[len(mixed) :].tobytes())
    shutil.copytree(tmp_path / "m", tmp_path / "copy")
    return str(tmp_path / "m" / "m")


def _recover_with_copy(prefix: str) -> ckptparse.Recovery:
    return ckptparse.recover(prefix, siblings=False, evidence=[Path(prefix).parents[1] / "copy"])


def test_small_files_are_held_if_they_are_read_here_and_there(mixed: str) -> None:
    with counted_reads() as reads:
        found = _recover_with_copy(mixed)
    assert len(found) > 200
    own = [one for one in reads.done if one[0] == "m.data-00000-of-00001"]
    assert len(own) < 2 * 400


def test_bytes_that_agree_nowhere_are_not_judged_to_say_that_they_are_others(
    mixed: str, calls: Callable[[Any, str], Counter[str]]
) -> None:
    compared = calls(borrowing.Borrowing, "_compare")
    judged = calls(borrowing, "judge_at")
    _recover_with_copy(mixed)
    assert compared["_compare"] > 100
    assert judged["judge_at"] < compared["_compare"] // 20


def test_payloads_are_looked_for_together_at_each_distance(
    mixed: str, calls: Callable[[Any, str], Counter[str]]
) -> None:
    asked, computed = calls(shifts.Place, "holds"), calls(shifts, "checksum_of")
    _recover_with_copy(mixed)
    assert asked["holds"] < 40 * 400
    assert computed["checksum_of"] < 3 * 400


def test_the_registers_of_a_file_are_made_once_for_all_rounds(
    mixed: str, calls: Callable[[Any, str], Counter[str]]
) -> None:
    sought, made = calls(diagnose, "find_shifts"), calls(shifts, "Registers")
    _recover_with_copy(mixed)
    assert sought["find_shifts"] > 1
    assert made["Registers"] == 1


def test_small_data_files_are_kept_though_few_of_them_stay_open(
    tmp_path: Path, calls: Callable[[Any, str], Counter[str]]
) -> None:
    prefix = _in_shards(tmp_path / "m", 120)
    shutil.copytree(tmp_path / "m", tmp_path / "copy")
    opened = calls(readers.DataFile, "open")
    ckptparse.recover(prefix, siblings=False, evidence=[tmp_path / "copy"])
    assert opened["open"] <= 3 * 240


def test_a_small_member_is_searched_with_few_calls(
    calls: Callable[[Any, str], Counter[str]],
) -> None:
    data = np.random.default_rng(1).bytes(26_000)
    made = calls(registers, "crc32c")
    found = registers.word_registers(np.frombuffer(data, np.uint8))
    assert made["crc32c"] < len(data) // 32
    checked = range(0, len(found), 97)
    assert [int(found[n]) ^ 0xFFFFFFFF for n in checked] == [
        builder.crc(data[: 4 * n]) for n in checked
    ]


def test_members_of_one_archive_are_told_apart_by_their_hashes() -> None:
    # In a mapping of 20,000 with one hash each would be compared with all others.
    hashes = {hash(readers.DataFile("e.zip", None, f"m{number}.npy")) for number in range(1_000)}
    assert len(hashes) == 1_000
