"""Tables of very many blocks, and tensors over each other: what is counted is never time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest

import ckptparse
from ckptparse import LimitError, Limits
from ckptparse.bundle import together
from ckptparse.bundle.arena import DenseRows
from ckptparse.bundle.payload import DensePayload
from ckptparse.bundle.sharing import find_sharing
from ckptparse.bundle.sliced import BundleSlices
from ckptparse.examination import salvaged_blocks
from ckptparse.files import local
from ckptparse.files.local import LOCAL
from ckptparse.table.reader import Table

VERIFYING: tuple[Callable[..., Any], ...] = (
    ckptparse.verify,
    lambda path, **options: ckptparse.recover(path, **options).report,
)


def many(count: int = 400) -> b.Bundle:
    made = b.Bundle()
    for number in range(count):
        made.add(f"w{number:05}", np.float32(number))
    return made


def write(made: b.Bundle, path: Path, **options: Any) -> str:
    for name, data in made.files("m", **options).items():
        (path.parent / name).write_bytes(data)
    return str(path)


def test_more_blocks_than_any_writer_makes_meet_a_limit(tmp_path: Path) -> None:
    path = write(many(), tmp_path / "m", block_size=64)
    source = LOCAL.open(f"{path}.index")
    blocks = len(Table.open(source, limits=Limits()).handles) - (source.size >> 12)
    source.close()
    assert len(ckptparse.read(path, limits=Limits(blocks=blocks))) == 400
    for call in (ckptparse.read, ckptparse.list_variables, ckptparse.open):
        with pytest.raises(LimitError, match=r"Limits\.blocks allows") as caught:
            call(path, limits=Limits(blocks=blocks - 1))
        assert caught.value.limit == "blocks"


@pytest.mark.parametrize("call", VERIFYING)
def test_of_too_many_blocks_the_first_are_looked_at(
    tmp_path: Path, call: Callable[..., Any]
) -> None:
    path = write(many(), tmp_path / "m", block_size=64)
    report = call(path, limits=Limits(blocks=20))
    told = [one.message for one in report.problems if one.code == "limit.reached"]
    assert len(told) == 1
    assert "Limits.blocks allows 20" in told[0]
    assert 20 <= len(report.tensors) < 200
    ranges = report.files[f"{path}.index"].ranges
    assert {one.kind for one in ranges} == {"verified", "unverified"}


@pytest.mark.parametrize("call", VERIFYING)
def test_of_too_many_blocks_without_a_footer_the_first_are_looked_at(
    tmp_path: Path, call: Callable[..., Any]
) -> None:
    path = write(many(), tmp_path / "m", block_size=64)
    index = tmp_path / "m.index"
    index.write_bytes(index.read_bytes()[:-48])
    report = call(path, limits=Limits(blocks=20))
    assert [one.code for one in report.problems if one.code.startswith("limit")]
    assert 20 <= len(report.tensors) < 200


@pytest.mark.parametrize("damage", [False, True])
def test_entries_of_small_blocks_are_decoded_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bool
) -> None:
    path = write(many(), tmp_path / "m", block_size=64)
    if damage:
        data = bytearray((tmp_path / "m.index").read_bytes())
        data[5000] ^= 1
        (tmp_path / "m.index").write_bytes(data)
    calls: list[int] = []
    decode = together.EntryDecoder.decode

    def counted(self: Any, table: Any, skipped: int) -> Any:
        calls.append(len(table))
        return decode(self, table, skipped)

    monkeypatch.setattr(together.EntryDecoder, "decode", counted)
    report = ckptparse.verify(path)
    assert len(report.tensors) > 390
    assert len(calls) <= 4


def overlapping(path: Path, spans: Sequence[tuple[int, int]], bad: Sequence[int] = ()) -> str:
    """Write tensors of bytes at these offsets and sizes, some with a checksum that is wrong."""
    data = np.random.default_rng(0).bytes(200_000)
    made = b.Bundle()
    made.shards[0] = bytearray(data)
    for number, (offset, size) in enumerate(spans):
        crc = 7 if number in bad else b.masked_crc(data[offset : offset + size])
        entry = b.Entry(b.UINT8, (size,), offset=offset, size=size, crc=crc)
        made.entries[b"t%05d" % number] = entry
    return str(made.write(path))


SPANS = [
    *((place, 64) for place in range(0, 3000, 1)),
    *((150_000, size) for size in range(1, 200)),
    (100_000, 500),
    (100_500, 500),
    (199_999, 1),
]


def test_tensors_over_each_other_are_read_in_few_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = overlapping(tmp_path / "m", SPANS)
    data = (tmp_path / "m.data-00000-of-00001").read_bytes()
    reads: list[int] = []
    read_into = local.LocalSource.read_into

    def counted(self: Any, offset: int, buffer: Any) -> None:
        reads.append(len(buffer))
        read_into(self, offset, buffer)

    monkeypatch.setattr(local.LocalSource, "read_into", counted)
    arrays = ckptparse.read(path)
    assert len(reads) < 10
    for number, (offset, size) in enumerate(SPANS):
        array = arrays[f"t{number:05}"]
        assert array.tobytes() == data[offset : offset + size]
        array[...] = 0  # No other has its bytes.


@pytest.mark.parametrize("count", [0, 1000])
def test_of_tensors_over_each_other_the_first_that_is_damaged_is_told(
    tmp_path: Path, count: int
) -> None:
    spans = [(0, 10), (50, 50), (60, 10), (70, 50), (150_000, 4), (150_002, 4), (170_000, 9)]
    spans += [(180_000 + 4 * number, 4) for number in range(count)]
    for bad, first in (([6, 3, 2], 2), ([0, 2], 0), ([6, 5], 5), ([6], 6)):
        path = overlapping(tmp_path / "m", spans, bad)
        with pytest.raises(ckptparse.ChecksumError) as caught:
            ckptparse.read(path)
        assert caught.value.tensor == f"t{first:05}"
        assert len(ckptparse.read(path, verify=False)) == len(spans)


def rows_of(*rows: tuple[int, int, int]) -> DenseRows:
    columns = [np.array(column, np.int64) for column in zip(*rows, strict=True)]
    return DenseRows.of(np.arange(len(rows)), *columns, np.ones(len(rows), np.int64))


def test_runs_of_rows_that_share_bytes_end_at_gaps_and_at_data_files() -> None:
    rows = rows_of((0, 0, 9), (0, 9, 9), (0, 12, 2), (0, 30, 9), (0, 31, 2), (1, 0, 8), (1, 7, 2))
    found = find_sharing(rows)
    assert found is not None
    assert found.apart.tolist() == [0]
    assert found.shared.tolist() == [1, 2, 3, 4, 5, 6]
    assert found.bounds.tolist() == [0, 2, 4, 6]
    runs = found.runs
    assert runs.shard_ids.tolist() == [0, 0, 1]
    assert (runs.offsets.tolist(), runs.sizes.tolist()) == ([9, 30, 0], [9, 9, 9])


@pytest.mark.parametrize(
    "rows",
    [
        [(0, 0, 4), (0, 4, 4), (1, 3, 9)],
        [(0, 0, 2 << 20), (0, 4, 4)],
        [(0, 0, 4), (0, 1, 4), (1, 1 << 62, 4), (2, 0, 1)],
    ],
    ids=["apart", "large", "too far"],
)
def test_rows_that_are_left_as_they_are(rows: list[tuple[int, int, int]]) -> None:
    assert find_sharing(rows_of(*rows)) is None


def sliced(path: Path, parts: int = 100, wrong: int | None = None) -> str:
    value = np.arange(parts * 2, dtype=np.float32)
    slices = b.split_rows(parts * 2, parts, 1)
    made = b.Bundle()
    made.add_sliced("v", value, slices)
    if wrong is not None:
        made.change(b.slice_key("v", slices[wrong]), crc=7)
    return str(made.write(path))


def test_many_small_slices_are_verified_in_few_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ckptparse.open(sliced(tmp_path / "m")) as opened:
        tensor = opened["v"]
        monkeypatch.setattr(DensePayload, "verify", None)
        tensor.verify()
        monkeypatch.setattr(BundleSlices, "read_together", None)
        tensor.verify()  # Once is enough.


def test_of_many_small_slices_the_damaged_one_is_told(tmp_path: Path) -> None:
    with (
        ckptparse.open(sliced(tmp_path / "m", wrong=70)) as opened,
        pytest.raises(ckptparse.ChecksumError, match="140,2"),
    ):
        opened["v"].verify()


def test_variants_that_are_read_one_by_one_are_bounded(tmp_path: Path) -> None:
    made = b.Bundle()
    for number in range(30):
        made.add_variants(f"v{number}", [b.variant_proto("int", b"abc")], (1,))
    path = str(made.write(tmp_path / "m"))
    held = (tmp_path / "m.data-00000-of-00001").stat().st_size >> 12
    assert len(ckptparse.read(path, limits=Limits(single_entries=30 - held))) == 30
    with pytest.raises(LimitError, match=r"one by one .* is 30, and Limits.single_entries"):
        ckptparse.read(path, limits=Limits(single_entries=29 - held))


@pytest.mark.parametrize("lost", [48, 60])
def test_a_block_of_entries_is_told_from_an_index_block_by_its_first_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    path = write(many(), tmp_path / "m", block_size=1024)
    index = tmp_path / "m.index"
    index.write_bytes(index.read_bytes()[:-lost])
    looked = salvaged_blocks.BlockHandle.from_bytes
    seen: list[int] = []

    def counted(data: bytes, *args: int) -> Any:
        seen.append(len(data))
        return looked(data, *args)

    monkeypatch.setattr(salvaged_blocks.BlockHandle, "from_bytes", counted)
    for verify in VERIFYING:
        seen.clear()
        assert len(verify(path).tensors) == 400
        # The index block, some twenty entries; and two of each of as many blocks, twice.
        assert len(seen) < 150
