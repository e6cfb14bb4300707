"""Damaged copies of data files: what of them is offered though nothing makes it whole."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import builder
import numpy as np
import numpy.typing as npt
import pytest

import ckptparse
from ckptparse.examination.case import Case
from ckptparse.examination.index_view import IndexView
from ckptparse.examination.payload import Payload
from ckptparse.examination.readers import DataFiles
from ckptparse.files.context import Context
from ckptparse.identification import tables
from ckptparse.inventory.survey import Survey
from ckptparse.problems import EvidenceRule
from ckptparse.recovery import other_indexes, siblings
from ckptparse.recovery.offering import Offerer

DATA = "model.data-00000-of-00001"
Arrays = dict[str, npt.NDArray[Any]]


def weights(seed: int, count: int = 60, most: int = 90) -> Arrays:
    rng = np.random.default_rng(seed)
    shapes = [(int(rows), int(columns)) for rows, columns in rng.integers(1, most, (count, 2))]
    return {f"t{n:04d}": rng.normal(0, 0.05, shape).astype("<f4") for n, shape in enumerate(shapes)}


def write(prefix: Path, arrays: Arrays) -> None:
    prefix.parent.mkdir(parents=True, exist_ok=True)
    made = builder.Bundle()
    for name, array in arrays.items():
        made.add(name, array)
    made.write(prefix)


def spoil(path: Path, sectors: int, seed: int = 0) -> None:
    """Overwrite sectors with noise."""
    rng = np.random.default_rng(seed)
    raw = bytearray(path.read_bytes())
    for sector in rng.choice(len(raw) // 512, sectors, replace=False).tolist():
        raw[sector * 512 : sector * 512 + 512] = rng.bytes(512)
    path.write_bytes(raw)


def index_and_copy(directory: Path, arrays: Arrays, sectors: int = 40) -> tuple[Path, Path]:
    """Make an index alone, and a damaged copy of the checkpoint."""
    write(directory / "B/model", arrays)
    (directory / "A").mkdir()
    shutil.copy(directory / "B/model.index", directory / "A")
    spoil(directory / "B" / DATA, sectors)
    return directory / "A/model", directory / "B"


def wrong_bytes(recovery: ckptparse.Recovery, arrays: Arrays) -> int:
    """Count the elements that are offered unmasked and are not those of the original."""
    wrong = 0
    for name, tensor in recovery.items():
        read = np.ma.array(tensor.read())
        differ = np.asarray(read.data) != arrays[name]
        if tensor.status.proved:
            assert not differ.any()
        wrong += int((differ & ~np.ma.getmaskarray(read)).sum())
    return wrong


@pytest.mark.parametrize(
    ("kept", "own", "count"),
    [
        ("its index", "lost", 60),
        ("no index", "lost", 60),
        ("its index", "cut off", 60),
        # So many that they are rows of columns.
        ("no index", "lost", 350),
    ],
)
def test_damaged_tensors_of_a_copy_are_offered_as_the_copy_itself_offers_them(
    kept: str, own: str, count: int, tmp_path: Path
) -> None:
    arrays = weights(1, count, 64 if count == 60 else 28)
    prefix, copy = index_and_copy(tmp_path, arrays)
    of_copy = ckptparse.recover(copy / "model")
    if own == "cut off":
        (prefix.parent / DATA).write_bytes((copy / DATA).read_bytes()[:5000])
    if kept == "no index":
        (copy / "model.index").unlink()
    recovery = ckptparse.recover(prefix, evidence=[copy])
    # Small tensors of noise alone are not offered in either.
    assert list(recovery) == list(of_copy) and len(of_copy) > 0.95 * count
    # If no byte of it is there, a value of one element follows from its checksum.
    damaged = [
        name
        for name, tensor in of_copy.items()
        if tensor.status == "unverified" and recovery[name].status != "derived"
    ]
    assert len(damaged) > 15
    taken = 0
    for name in damaged:
        found, there = recovery[name], of_copy[name]
        assert found.status == "unverified"
        assert (found.ranges, found.suspect) == (there.ranges, there.suspect)
        if EvidenceRule.COPY in [record.rule for record in found.evidence]:
            taken += 1
            assert found.source is not None and found.source.path == str(copy / DATA)
            assert "at its place in a copy" in found.note
    assert taken >= len(damaged) - 1
    assert wrong_bytes(recovery, arrays) <= wrong_bytes(of_copy, arrays) < 10


def test_the_copy_of_which_more_looks_right_is_taken(tmp_path: Path) -> None:
    arrays = weights(2, 3)
    arrays["t0001"] = np.random.default_rng(7).normal(0, 0.05, (400, 64)).astype("<f4")
    prefix, copy = index_and_copy(tmp_path, arrays, 30)
    write(tmp_path / "C/model", arrays)
    spoil(tmp_path / "C" / DATA, 12, seed=1)
    recovery = ckptparse.recover(prefix, evidence=[copy, tmp_path / "C"])
    tensor = recovery["t0001"]
    better = ckptparse.recover(tmp_path / "C/model")["t0001"]
    if not tensor.status.proved:
        assert tensor.source is not None and tensor.source.path == str(tmp_path / "C" / DATA)
        assert tensor.suspect == better.suspect
    assert wrong_bytes(recovery, arrays) == 0


def test_its_own_bytes_are_kept_unless_a_copy_has_more(tmp_path: Path) -> None:
    arrays = weights(3)
    prefix, copy = index_and_copy(tmp_path, arrays, 60)
    write(tmp_path / "whole/model", arrays)
    shutil.copy(tmp_path / "whole" / DATA, prefix.parent)
    spoil(prefix.parent / DATA, 3, seed=9)
    alone = ckptparse.recover(prefix)
    recovery = ckptparse.recover(prefix, evidence=[copy])
    for name, tensor in recovery.items():
        if tensor.status == "unverified":
            assert tensor.source == alone[name].source
    assert wrong_bytes(recovery, arrays) == 0


@pytest.mark.parametrize(("kept", "same"), [("its index", 12), ("no index", 12), ("its index", 50)])
def test_the_data_file_of_another_step_is_no_copy(kept: str, same: int, tmp_path: Path) -> None:
    """What training did not change is in both, at the same places."""
    arrays = weights(4)
    frozen = {name: array for number, (name, array) in enumerate(arrays.items()) if number < same}
    other = {name: frozen.get(name, array * np.float32(1.01)) for name, array in arrays.items()}
    prefix, copy = index_and_copy(tmp_path, arrays)
    write(copy / "model", other)
    # Sectors behind what is frozen: so their checksums are those of neither save.
    raw = bytearray((copy / DATA).read_bytes())
    start = sum(array.nbytes for array in frozen.values()) + 100
    for place in range(start, len(raw), 2000):
        raw[place : place + 40] = np.random.default_rng(place).bytes(40)
    (copy / DATA).write_bytes(raw[: sum(array.nbytes for array in arrays.values())])
    if kept == "no index":
        (copy / "model.index").unlink()
    recovery = ckptparse.recover(prefix, evidence=[copy])
    assert all(recovery[name].status == "corrected" for name in frozen)
    for name in set(recovery) - set(frozen):
        assert EvidenceRule.COPY not in [one.rule for one in recovery[name].evidence]


def test_a_part_of_a_copy_that_is_of_another_save_is_not_offered(tmp_path: Path) -> None:
    arrays = weights(5)
    changed = {name: array * np.float32(1.01) for name, array in arrays.items()}
    prefix, copy = index_and_copy(tmp_path, arrays, 1)
    write(tmp_path / "B/other", changed)
    write(tmp_path / "C/model", arrays)
    one = (tmp_path / "C" / DATA).read_bytes()
    two = (tmp_path / "B" / DATA.replace("model", "other")).read_bytes()
    half = len(one) // 2 // 512 * 512
    (copy / DATA).write_bytes(one[:half] + two[half:])
    recovery = ckptparse.recover(prefix, evidence=[copy])
    assert wrong_bytes(recovery, arrays) < 8100
    of_copy = [
        tensor
        for tensor in recovery.values()
        if EvidenceRule.COPY in [one.rule for one in tensor.evidence]
    ]
    # At most the tensor into which both saves reach.
    assert len(of_copy) <= 1


def test_so_many_files_are_weighed_as_copies(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arrays = weights(10, 4)
    arrays["t0001"] = np.random.default_rng(7).normal(0, 0.05, (400, 64)).astype("<f4")
    prefix, copy = index_and_copy(tmp_path, arrays, 0)
    raw = bytearray((copy / DATA).read_bytes())
    start = arrays["t0000"].nbytes
    for number in range(12):
        spoiled = raw.copy()
        spoiled[start : start + 3000] = np.random.default_rng(1).bytes(3000)
        (tmp_path / f"C{number:02d}").mkdir()
        (tmp_path / f"C{number:02d}" / DATA).write_bytes(spoiled)
    (copy / DATA).write_bytes(spoiled)
    weighed = []
    offer = Offerer.offer

    def counted(self: Offerer, payload: Payload, *rest: Any, **options: Any) -> Any:
        weighed.append(payload.file.path)
        return offer(self, payload, *rest, **options)

    monkeypatch.setattr(Offerer, "offer", counted)
    recovery = ckptparse.recover(prefix, evidence=[copy, *sorted(tmp_path.glob("C*"))])
    assert recovery["t0001"].status == "unverified"
    # Eight copies, and its own place.
    assert len(weighed) == 9


def test_a_tensor_of_a_copy_counts_as_an_attempt(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    arrays = {f"t{n:04d}": rng.normal(0, 1, (8, 3)).astype("<f4") for n in range(900)}
    prefix, copy = index_and_copy(tmp_path, arrays, 0)
    (copy / DATA).write_bytes(rng.normal(0, 1, 900 * 24).astype("<f4").tobytes())
    recovery = ckptparse.recover(prefix, evidence=[copy])
    held = sum(path.stat().st_size for path in copy.iterdir())
    assert 0 < len(recovery) <= 256 + held // (1 << 15) + 1


def test_entries_that_share_bytes_of_a_copy_end_at_the_limit(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    value = rng.normal(0, 1, (128, 128)).astype("<f4")
    made = builder.Bundle()
    for number in range(250):
        made.add(f"t{number:04d}", value, at=0)
    made.write(tmp_path / "B/model")
    (tmp_path / "A").mkdir()
    shutil.copy(tmp_path / "B/model.index", tmp_path / "A")
    (tmp_path / "B" / DATA).write_bytes(rng.normal(0, 1, value.shape).astype("<f4").tobytes())
    recovery = ckptparse.recover(tmp_path / "A/model", evidence=[tmp_path / "B"])
    # 256 attempts of 32 KiB, and as much as the copy has.
    assert 0 < len(recovery) <= (256 * (1 << 15)) // value.nbytes + 2


def test_two_damaged_copies_make_a_lost_data_file_whole(tmp_path: Path) -> None:
    arrays = weights(9)
    prefix, copy = index_and_copy(tmp_path, arrays, 0)
    write(tmp_path / "C/model", arrays)
    whole = (copy / DATA).read_bytes()
    for path, sectors in ((copy, range(4, 40, 12)), (tmp_path / "C", range(10, 46, 12))):
        raw = bytearray(whole)
        for sector in sectors:
            raw[sector * 512 : sector * 512 + 512] = np.random.default_rng(sector).bytes(512)
        (path / DATA).write_bytes(raw)
    recovery = ckptparse.recover(prefix, evidence=[copy, tmp_path / "C"])
    assert list(recovery) == list(arrays)
    assert wrong_bytes(recovery, arrays) == 0
    merged = [one for one in recovery.values() if one.patches]
    assert merged and all(one.status == "corrected" for one in recovery.values())
    for one in merged:
        assert all(patch.path == str(prefix.parent / DATA) for patch in one.patches)
    (tmp_path / "out").mkdir()
    recovery.write(tmp_path / "out/model.ckpt")
    written = ckptparse.read(tmp_path / "out/model.ckpt")
    assert all((written[name] == array).all() for name, array in arrays.items())


def test_the_index_of_a_copy_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives layouts if the own index is damaged, and entries when tensors are mended."""
    write(tmp_path / "B/model", weights(1, count=300, most=20))
    index = bytearray((tmp_path / "B/model.index").read_bytes())
    index[1000:1100] = bytes(100)
    (tmp_path / "B/model.index").write_bytes(index)
    shutil.copytree(tmp_path / "B", tmp_path / "A")
    spoil(tmp_path / "A" / DATA, 40)
    opened: list[str] = []
    open_case = other_indexes.open_case

    def note(survey: Survey, context: Context) -> Case:
        opened.append(survey.prefix)
        return open_case(survey, context)

    monkeypatch.setattr(other_indexes, "open_case", note)
    found = ckptparse.recover(tmp_path / "A/model", siblings=False, evidence=[tmp_path / "B"])
    assert opened == [str(tmp_path / "B/model")]
    for kept in (0, 1 << 30):
        # What is too large to be kept is read anew, and gives the same.
        monkeypatch.setattr(other_indexes, "_MOST_KEPT", kept)
        opened.clear()
        again = ckptparse.recover(tmp_path / "A/model", siblings=False, evidence=[tmp_path / "B"])
        assert len(opened) == (1 if kept else 2)
        assert str(again.report) == str(found.report)


def test_a_data_file_is_identified_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For that, 10,000 entries of its index are read."""
    prefix, copy = index_and_copy(tmp_path, weights(2))
    shutil.copy(copy / DATA, prefix.parent)
    looked_at: list[str] = []
    open_index = tables._open_index

    def note(path: str, context: Context) -> Any:
        looked_at.append(path)
        return open_index(path, context)

    monkeypatch.setattr(tables, "_open_index", note)
    ckptparse.recover(prefix, siblings=False, evidence=[copy])
    assert sorted(looked_at) == [f"{prefix}.index", str(copy / "model.index")]


def harm_index(path: Path, seed: int) -> None:
    """Damage an index: zeros, flipped bits, its start or its end lost, its header, or nothing."""
    rng = np.random.default_rng(seed)
    index = bytearray(path.read_bytes())
    at = int(rng.integers(100, len(index) - 200))
    match seed % 6:
        case 1:
            index[at : at + 100] = bytes(100)
        case 2:
            for place in rng.integers(0, len(index) - 60, 3).tolist():
                index[place] ^= 1 << int(rng.integers(8))
        case 3:
            del index[:at]
        case 4:
            del index[at:]
        case 5:
            index[3] ^= 0x10  # The header is in the first block.
            index[at] ^= 0x10
    path.write_bytes(index)


@pytest.mark.parametrize("seed", range(18))
def test_an_index_that_is_the_checkpoints_own_is_believed_as_if_it_were_read(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(seed)
    made = builder.Bundle(big=seed % 5 == 4)
    for number, (name, array) in enumerate(weights(seed, count=150, most=30).items()):
        kind = (array, (array * 100).astype(np.int8), array[:1, :1])[number % 3]
        made.add(name, kind, shard=number % (1 + seed % 2))
    (tmp_path / "A").mkdir()
    made.write(tmp_path / "A/model", block_size=512 if seed % 3 else 4096)
    harm_index(tmp_path / "A/model.index", seed)
    shutil.copytree(tmp_path / "A", tmp_path / "B")
    for path in (tmp_path / "A").glob("*.data*"):
        spoil(path, 20, seed)
    if seed % 4 == 3:
        next((tmp_path / "A").glob("*.data*")).write_bytes(rng.bytes(5000))
    copy = tmp_path / "B"
    found = ckptparse.recover(tmp_path / "A/model", siblings=False, evidence=[copy])
    opened: list[bool] = []
    has_index = other_indexes.OtherIndexes.has_index

    def deny(self: other_indexes.OtherIndexes, prefix: str, own: IndexView | None) -> bool:
        opened.append(has_index(self, prefix, own))
        return False

    monkeypatch.setattr(other_indexes.OtherIndexes, "has_index", deny)
    again = ckptparse.recover(tmp_path / "A/model", siblings=False, evidence=[copy])
    assert str(again.report.to_dict()) == str(found.report.to_dict())
    assert {name: one.read(fill=0).tobytes() for name, one in again.items()} == {
        name: one.read(fill=0).tobytes() for name, one in found.items()
    }
    assert any(opened) or seed % 6


def test_of_tensors_of_many_kinds_with_one_checksum_each_is_checked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = builder.Bundle()
    for number in range(200):
        made.put_entry(f"t{number:03}", b"abcd", 12345, dtype=60 + number % 20, shape=(1,))
    (tmp_path / "A").mkdir()
    made.write(tmp_path / "A/model")
    shutil.copytree(tmp_path / "A", tmp_path / "B")
    asked: list[Payload] = []
    fits = siblings.fits

    def note(files: DataFiles, payload: Payload) -> bool:
        asked.append(payload)
        return fits(files, payload)

    monkeypatch.setattr(siblings, "fits", note)
    ckptparse.recover(tmp_path / "A/model", siblings=False, evidence=[tmp_path / "B"])
    assert 0 < len(asked) <= 200


def test_a_copy_of_the_same_bytes_has_no_more_of_a_tensor(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    values = {f"w{n}": rng.normal(0, 0.05, 4_000).astype("<f4") for n in range(5)}
    (tmp_path / "m").mkdir()
    ckptparse.write(tmp_path / "m" / "m", values)
    data = tmp_path / "m" / "m.data-00000-of-00001"
    raw = bytearray(data.read_bytes())
    # Within the third tensor bytes were put in, and others changed: nothing tells where.
    raw[2 * 16_000 + 7_000 : 2 * 16_000 + 7_000] = values["w0"][:512].tobytes()
    for at in (2 * 16_000 + 500, 2 * 16_000 + 17_000):
        raw[at : at + 40] = values["w1"][:10].tobytes()
    data.write_bytes(raw)
    shutil.copytree(tmp_path / "m", tmp_path / "copy")
    alone = ckptparse.recover(tmp_path / "m" / "m", siblings=False)
    merged = ckptparse.recover(tmp_path / "m" / "m", siblings=False, evidence=[tmp_path / "copy"])
    known, found = alone.report.tensors["w2"].outcome, merged.report.tensors["w2"].outcome
    assert known.suspect == known.ranges == ((0, 4_000),)
    assert (found.ranges, found.suspect, found.source) == (
        known.ranges,
        known.suspect,
        known.source,
    )
