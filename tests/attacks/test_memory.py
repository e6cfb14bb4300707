"""Files that would take far more memory than they hold: one budget counts what they become."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest
import v1_builder as v
from packages import h5py

import ckptparse
from ckptparse import Limits
from ckptparse.bundle.index import _Keys
from ckptparse.crc.field import WideTable
from ckptparse.errors import LimitError, MalformedError
from ckptparse.examination.carving import iter_blocks
from ckptparse.files.memory import MemorySource
from ckptparse.json_text import parse_json
from ckptparse.recovery.rebuild.shapes import parse_shapes
from ckptparse.table.block import Block
from ckptparse.table.reader import Table
from ckptparse.table.together import decode_together

NAMES, LENGTH = 3_000, 1_000
TAKEN = NAMES * (2 * LENGTH + 350)
"""What so many names of that length take, about, in bytes."""


def write_names(directory: Path, stem: bytes = b"a" * LENGTH) -> Path:
    """An index of 200 kB whose names share all but the last bytes; the tensors have no bytes."""
    entry = b.Entry(b.FLOAT, (0,), crc=b.masked_crc(b"")).to_bytes()
    pairs = [(b"", b.Header().to_bytes(1))]
    pairs += [(stem + b"%06d" % number, entry) for number in range(NAMES)]
    (directory / "m.index").write_bytes(b.table(pairs).data)
    (directory / "m.data-00000-of-00001").write_bytes(b"")
    return directory / "m"


def test_names_that_share_their_bytes_are_counted_as_what_they_take(tmp_path: Path) -> None:
    prefix = write_names(tmp_path)
    assert len(ckptparse.list_variables(prefix, limits=Limits(memory_bytes=TAKEN))) == NAMES
    with pytest.raises(LimitError, match="memory_bytes") as caught:
        ckptparse.list_variables(prefix, limits=Limits(memory_bytes=TAKEN // 2))
    assert caught.value.limit == "memory_bytes"
    report = ckptparse.verify(prefix, limits=Limits(memory_bytes=TAKEN // 2))
    assert [one.code for one in report.problems] == ["limit.reached"]


def test_two_checkpoints_that_are_open_together_share_what_a_call_may_take(tmp_path: Path) -> None:
    prefix = write_names(tmp_path)
    limits = Limits(memory_bytes=3 * TAKEN // 2)
    assert len(ckptparse.list_variables(prefix, limits=limits)) == NAMES
    for call in (
        lambda: ckptparse.diff(prefix, prefix, limits=limits),
        lambda: ckptparse.average([prefix, prefix], limits=limits),
    ):
        with pytest.raises(LimitError, match="memory_bytes"):
            call()
    assert ckptparse.diff(prefix, prefix, limits=Limits(memory_bytes=2 * TAKEN)).same


def test_a_small_list_is_not_counted_against_a_limit_that_is_meant_for_values(
    tmp_path: Path,
) -> None:
    made = b.Bundle()
    made.add("a", np.arange(3.0))
    made.write(tmp_path / "m")
    assert ckptparse.list_variables(tmp_path / "m", limits=Limits(memory_bytes=0))


def test_keys_are_let_go_as_they_become_names(tmp_path: Path) -> None:
    prefix = write_names(tmp_path)
    with ckptparse.open(prefix) as opened:
        assert len(opened) == NAMES
    source = MemorySource("m.index", (tmp_path / "m.index").read_bytes())
    tables = list(Table.open(source, limits=Limits()).iter_columns())
    assert len(_Keys(tables, ()).pop_names(0)) == NAMES
    assert tables == []


def one_block(count: int, length: int) -> Block:
    pairs = [(b"k" * length + b"%06d" % number, b"v") for number in range(count)]
    return Block.from_bytes(b.block(pairs))


def test_the_keys_of_one_block_take_a_part_of_what_a_call_may() -> None:
    block = one_block(2_000, 2_000)
    key_bytes = sum(map(len, block.decode_entries(limits=Limits()).keys))
    most = 8 * (key_bytes - 2 * len(block.contents))
    block.decode_entries(limits=Limits(memory_bytes=most))
    with pytest.raises(LimitError) as caught:
        block.decode_entries(limits=Limits(memory_bytes=most - 8))
    assert caught.value.limit == "memory_bytes"
    assert f"is {most}, and Limits.memory_bytes allows {most - 8}" in str(caught.value)


def test_one_block_has_a_part_of_the_entries_that_its_table_may_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ckptparse.table.block._FREE_ENTRIES", 100)
    block = one_block(200, 10)
    for limits in (Limits(entries=200 * 16), Limits(entries=200 * 16 + 5)):
        assert len(block.decode_entries(limits=limits).keys) == 200
        assert decode_together([block], limits=limits) is not None
    limits = Limits(entries=200 * 16 - 1)
    assert decode_together([block], limits=limits) is None
    with pytest.raises(LimitError, match="16 times the number of entries of one block is 3200"):
        block.decode_entries(limits=limits)
    assert len(one_block(100, 10).decode_entries(limits=Limits(entries=100)).keys) == 100


def test_rows_of_keys_that_take_too_much_at_once_are_left_to_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    block = one_block(160, 200)
    assert decode_together([block], limits=Limits()) is not None
    monkeypatch.setattr("ckptparse.table.together._MOST_ROOM", 160 * 200)
    assert decode_together([block], limits=Limits()) is None


def write_slices(directory: Path, name: bytes) -> Path:
    """One tensor in 1,000 slices, none of which is stored."""
    slices = tuple(b.split_rows(1_000, 1_000, 1))
    entry = b.Entry(b.FLOAT, (1_000,), slices=slices).to_bytes()
    pairs = [(b"", b.Header().to_bytes(1)), (name, entry)]
    (directory / "m.index").write_bytes(b.table(pairs).data)
    (directory / "m.data-00000-of-00001").write_bytes(b"")
    return directory / "m"


@pytest.mark.parametrize("length", [4_095, 50_000])
def test_slices_of_a_tensor_with_a_long_name_count_more_each_repeats_it(
    length: int, tmp_path: Path
) -> None:
    prefix = write_slices(tmp_path, b"n" * length)
    names = [problem.code for problem in ckptparse.verify(prefix).problems]
    if length < 4_096:
        assert len(ckptparse.list_variables(prefix)) == 1 and "limit.reached" not in names
        return
    with pytest.raises(LimitError, match="single_entries"):
        ckptparse.list_variables(prefix)
    assert names == ["limit.reached"]


def test_so_do_those_of_a_v1_checkpoint(tmp_path: Path) -> None:
    for length in (3_000, 50_000):
        made = v.LegacyFile()
        listed = made.declare("n" * length, (1_000,), b.FLOAT)
        for number in range(1_000):
            made.add_slice(listed, [(number, 1)], np.float32([number]))
        listed.slices[1:] = [replace(one, stored=False) for one in listed.slices[1:]]
        path = made.write(tmp_path / "m")
        if length == 3_000:
            assert len(ckptparse.list_variables(path)) == 1
            continue
        with pytest.raises(LimitError, match="single_entries"):
            ckptparse.list_variables(path)
        assert "limit.reached" in [one.code for one in ckptparse.verify(path).problems]


@pytest.mark.parametrize("names", [["d"], ["d1", "d2", "d3"]])
def test_paths_of_groups_in_groups_are_counted(names: list[str], tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as file:
        group = file
        for _ in range(20):
            group = group.create_group("g" * 10_000)
            for name in names:
                group.create_dataset(name, data=np.float32(1))
    taken = 4 * 10_000 * (1 + len(names)) * sum(range(1, 21))
    limits = Limits(memory_bytes=2 * taken, small_tensors=100_000)
    assert ckptparse.diff(path, path, limits=limits).same
    with pytest.raises(LimitError, match="memory_bytes"):
        ckptparse.diff(path, path, limits=Limits(memory_bytes=taken))


def test_json_that_becomes_more_than_a_call_may_take_is_not_parsed() -> None:
    text = json.dumps({"w": list(range(1_000, 301_000))})
    assert len(text) > 1 << 20
    assert parse_json(text, Limits()) == parse_json(text.encode(), Limits()) == json.loads(text)
    for given in (text, text.encode()):
        with pytest.raises(LimitError, match="memory_bytes"):
            parse_json(given, Limits(memory_bytes=20_000_000))
        assert parse_json(given, Limits(memory_bytes=20_000_000), held=10_000_000)
    wide = text.replace("w", "\N{GRINNING FACE}")
    with pytest.raises(LimitError, match="memory_bytes"):
        parse_json(wide, Limits(memory_bytes=30_000_000 - len(wide)))


def test_json_of_very_many_lists_is_not_parsed() -> None:
    text = b"[" + b"[]," * 400_000 + b"[]]"
    with pytest.raises(LimitError) as caught:
        parse_json(text, Limits())
    assert caught.value.limit == "members"
    assert len(parse_json(text, Limits(members=400_002))) == 400_001


SAFETENSORS: dict[str, Callable[[Path], Any]] = {
    "diff": lambda path: ckptparse.diff(path, path),
    "shapes": lambda path: ckptparse.recover(
        ckptparse.write(path.parent / "m", {"w": np.arange(3.0)}), shapes=path
    ),
}


@pytest.mark.parametrize("call", SAFETENSORS)
def test_a_safetensors_file_of_very_many_lists_is_refused(call: str, tmp_path: Path) -> None:
    header = b'{"w":[' + b"[]," * 400_000 + b"[]]}"
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert ckptparse.identify(path).kind
    with pytest.raises(LimitError, match="members"):
        SAFETENSORS[call](path)


def test_a_shape_has_no_more_dimensions_than_tensorflow_allows() -> None:
    """The product of a million numbers takes the square of their number."""
    (given,) = parse_shapes({"w": [2] * 254})
    assert given.shape == (2,) * 254
    for value in ([2] * 255, {"shape": [9] * 1_000_000}, ["a"], "text", (2,) * 255):
        with pytest.raises(MalformedError, match="up to 254 numbers") as caught:
            parse_shapes({"w": value})
        assert len(str(caught.value)) < 300


def test_where_blocks_begin_is_looked_for_at_few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = b.Entry(b.FLOAT, (3,), size=12, offset=77, crc=0x12345678).to_bytes()
    pairs = [(b"w%06d" % number, entry) for number in range(5_000)]
    data = b.table(pairs, block_size=1 << 12).data
    multiply = WideTable.multiply
    multiplied = []

    def noted(self: WideTable, values: Any) -> Any:
        multiplied.append(values.size)
        return multiply(self, values)

    monkeypatch.setattr(WideTable, "multiply", noted)
    blocks = list(iter_blocks(data))
    assert len(blocks) > 15 and blocks[0][0] == 0
    assert sum(multiplied) < len(data)
    multiplied.clear()
    # Among zeros each byte may begin one: then all are taken together.
    zeros = data[: blocks[1][1] + 5] + bytes(4 * len(data))
    assert list(iter_blocks(zeros))[:2] == blocks[:2]
    assert sum(multiplied) < 8 * len(zeros)
