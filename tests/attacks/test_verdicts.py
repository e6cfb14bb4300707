"""What is damaged is damaged for whoever asks: read, verify, recover, annotate, diff, convert."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest
import v1_builder as v1
from packages import h5py

import ckptparse
from ckptparse.table.reader import Table

Pairs = list[tuple[bytes, bytes]]

NOTHING = np.zeros((2, 0), np.float32)
IN_TWO = [[(0, 1), None], [(1, 1), None]]
IN_MANY = [[(row, 1), None] for row in range(20)]
GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


def whole_with_another_checksum(path: Path) -> None:
    made = b.Bundle()
    made.add("a", np.float32([1]))
    made.add("w", NOTHING, crc=5)
    made.write(path)


def one_of_two_with_another_checksum(path: Path) -> None:
    made = b.Bundle()
    made.add_sliced("w", NOTHING, IN_TWO)
    made.change(b.slice_key("w", IN_TWO[1]), crc=5)
    made.write(path)


def one_of_many_with_another_checksum(path: Path) -> None:
    made = b.Bundle()
    made.add_sliced("w", np.zeros((20, 0), np.float32), IN_MANY)
    made.change(b.slice_key("w", IN_MANY[3]), crc=5)
    made.write(path)


def a_record_that_is_not_there(path: Path) -> None:
    made = v1.LegacyFile()
    made.add("w", NOTHING).slices[0].stored = False
    made.write(path)


def a_record_with_a_value(path: Path) -> None:
    made = v1.LegacyFile()
    made.add("w", NOTHING).slices[0].values = b.field(5, b"abcd")
    made.write(path)


def one_record_of_two_that_is_not_there(path: Path) -> None:
    made = v1.LegacyFile()
    listed = made.declare("w", (2, 0), b.FLOAT)
    for extents in IN_TWO:
        made.add_slice(listed, extents, NOTHING[:1]).stored = extents is IN_TWO[0]
    made.write(path)


EMPTY = (
    whole_with_another_checksum,
    one_of_two_with_another_checksum,
    one_of_many_with_another_checksum,
    a_record_that_is_not_there,
    a_record_with_a_value,
    one_record_of_two_that_is_not_there,
)


@pytest.mark.parametrize("make", EMPTY)
def test_an_empty_tensor_that_is_damaged_is_so_for_whoever_asks(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "m"
    make(path)
    assert not ckptparse.verify(path).ok
    calls: dict[str, Callable[[], Any]] = {
        "read": lambda: ckptparse.read(path),
        "stats": lambda: ckptparse.stats(path),
        "average": lambda: ckptparse.average([path, path]),
    }
    if make is not whole_with_another_checksum:  # Of those, `diff` compares the checksums alone.
        calls["diff"] = lambda: ckptparse.diff(path, path)
    for call in calls.values():
        with pytest.raises(ckptparse.DataLossError):
            call()
    with ckptparse.open(path) as checkpoint, pytest.raises(ckptparse.DataLossError):
        checkpoint["w"].read()


@pytest.mark.parametrize("make", EMPTY)
@pytest.mark.parametrize("name", ["out", "out.npz", "out.safetensors", "out.h5", "out/"])
def test_an_empty_tensor_that_is_damaged_is_not_converted(
    tmp_path: Path, make: Callable[[Path], None], name: str
) -> None:
    if name.endswith(".h5"):
        assert h5py.File, "or the test is skipped"
    path = tmp_path / "m"
    make(path)
    there = sorted(tmp_path.iterdir())
    with pytest.raises(ckptparse.DataLossError):
        ckptparse.convert(path, f"{tmp_path}/{name}")
    assert sorted(tmp_path.iterdir()) == there


def test_keys_outside_of_their_separators_are_broken_for_annotate_too(tmp_path: Path) -> None:
    made = b.Bundle()
    for name in ("b", "c", "d", "e"):
        made.add(name, np.float32(1))
    pairs = made.pairs()
    blocks = [b.Stored(b.block(part), key=part[-1][0]) for part in (pairs[:2], pairs[2:4])]
    blocks.append(b.Stored(b.block(pairs[4:]), key=b"z"))
    path = f"{tmp_path}/m.index"

    def broken() -> list[str]:
        made.write(tmp_path / "m")
        Path(path).write_bytes(b.assemble(blocks).data)
        parts = [part for part in ckptparse.annotate(path) if part.broken]
        codes = {one.code for one in ckptparse.verify(path).problems}
        assert bool(parts) == ("index.order" in codes)
        assert {part.what for part in parts} <= {"entry"}
        return [part.value.strip("'") for part in parts]

    assert broken() == []
    blocks[0].key = b"c"
    assert broken() == ["c"], "it lies in the second block, and is looked for in the first"
    blocks[0].key, blocks[1].key = b"b", b"c"
    assert broken() == ["d"], "it is looked for in the third block"


@pytest.mark.parametrize("name", ["a", "A"])
@pytest.mark.parametrize("harm", ["none", "all"])
@pytest.mark.parametrize("count", [3, 300])
def test_a_graph_that_is_no_string_is_counted_by_itself(
    tmp_path: Path, name: str, harm: str, count: int
) -> None:
    made = b.Bundle()
    for number in range(count):
        made.add(f"{name}{number:03}", np.arange(9, dtype=np.float32) + number, at=36 * number)
    made.add("twin", np.arange(9, dtype=np.float32), at=0)
    made.add(GRAPH, np.arange(9, dtype=np.float32) - 1)
    if harm == "all":
        made.shards[0][::7] = bytes(len(made.shards[0][::7]))
    path = made.write(tmp_path / "m")
    for report in (ckptparse.verify(path), ckptparse.recover(path).report):
        assert len(report.tensors) == sum(report.counts.values()) == count + 1
        assert report.object_graph is not None and GRAPH not in report.tensors
        assert report.outlook is None or report.outlook.proved <= report.outlook.total


def test_a_graph_in_a_v1_file_is_counted_by_itself_and_decoded_as_a_record(tmp_path: Path) -> None:
    made = v1.LegacyFile()
    made.add("w", np.float32([1]))
    made.add(GRAPH, np.float32([2]))
    path = made.write(tmp_path / "m")
    report = ckptparse.verify(path)
    assert report.counts == {"verified": 1} and len(report.tensors) == 1
    assert [one.code for one in report.problems] == ["object_graph.damaged"]

    made = v1.LegacyFile()
    made.add("w", np.float32([1]))
    made.add(GRAPH, np.array(b.flat_object_graph(["w"]), object))
    path = made.write(tmp_path / "n")
    with ckptparse.open(path) as checkpoint:
        assert checkpoint.object_graph is not None
    assert ckptparse.verify(path).ok


def another_record_in_the_next_block(pairs: Pairs, other: bytes) -> list[b.Stored]:
    key = pairs[-1][0]
    last = b.Stored(b.block([(key, other)]), key=key + b"\xff")
    return [b.Stored(b.block(pairs), key=key), last]


def a_damaged_block_that_no_list_leads_to(pairs: Pairs, other: bytes) -> list[b.Stored]:
    key = pairs[-1][0] + b"\xff"
    last = b.Stored(b.block([(key, other)]), key=key, crc=5)
    return [b.Stored(b.block(pairs), key=pairs[-1][0]), last]


def an_unsorted_block_that_no_list_leads_to(pairs: Pairs, other: bytes) -> list[b.Stored]:
    key = pairs[-1][0] + b"\xff"
    last = b.Stored(b.block([(key, other), (key, other)]), key=key)
    return [b.Stored(b.block(pairs), key=pairs[-1][0]), last]


UNREAD = (
    another_record_in_the_next_block,
    a_damaged_block_that_no_list_leads_to,
    an_unsorted_block_that_no_list_leads_to,
)


@pytest.mark.parametrize("spread", UNREAD)
@pytest.mark.parametrize("files", [1, 2])
def test_a_block_of_a_v1_file_that_no_list_leads_to_is_damaged_for_whoever_reads(
    tmp_path: Path, spread: Callable[[Pairs, bytes], list[b.Stored]], files: int
) -> None:
    made, other = v1.LegacyFile(), v1.LegacyFile()
    made.add("w", np.float32([1, 2]))
    other.add("w", np.float32([3, 4]))
    path = tmp_path / ("m" if files == 1 else "m-00001-of-00002")
    path.write_bytes(b.assemble(spread(made.pairs(), other.pairs()[1][1])).data)
    if files == 2:
        first = v1.LegacyFile()
        first.add("a", np.float32([5]))
        first.write(tmp_path / "m-00000-of-00002")
    path = tmp_path / ("m" if files == 1 else "m-?????-of-00002")
    report = ckptparse.verify(path)
    assert not report.ok and {one.code for one in report.problems} <= {"v1.order", "v1.block"}
    for call in (ckptparse.read, ckptparse.stats):
        with pytest.raises(ckptparse.DataLossError):
            call(path)
    with pytest.raises(ckptparse.DataLossError):
        ckptparse.convert(path, tmp_path / "out.npz")
    with ckptparse.open(path) as checkpoint:
        assert "w" in checkpoint and list(checkpoint)[-1] == "w"
        for name in checkpoint:
            with pytest.raises(ckptparse.DataLossError):
                checkpoint[name].read()
    recovered = ckptparse.recover(path)
    assert not recovered.report.ok
    assert recovered.report.tensors["w"].status == ckptparse.Status.VERIFIED
    assert recovered["w"].read().tolist() == [1, 2]


def test_a_damaged_block_of_a_v1_file_is_the_damage_of_its_tensors_alone(tmp_path: Path) -> None:
    made = v1.LegacyFile()
    made.add("a", np.float32([1]))
    made.add("b", np.float32([2]))
    first, second = made.pairs()[:2], made.pairs()[2:]
    blocks = [
        b.Stored(b.block(first), key=first[-1][0]),
        b.Stored(b.block(second), key=second[-1][0], crc=5),
    ]
    path = tmp_path / "m"
    path.write_bytes(b.assemble(blocks).data)
    with ckptparse.open(path) as checkpoint:
        assert checkpoint["a"].read() == 1
        with pytest.raises(ckptparse.ChecksumError):
            checkpoint["b"].read()
    report = ckptparse.verify(path)
    assert report.tensors["a"].status == ckptparse.Status.VERIFIED


def test_a_damaged_block_of_a_v1_file_that_lists_no_tensor_is_damage(tmp_path: Path) -> None:
    other = v1.LegacyFile()
    other.add("w", np.float32([3, 4]))
    key, value = other.pairs()[1]
    first = b.Stored(b.block(v1.LegacyFile().pairs()), key=b"")
    path = tmp_path / "m"
    path.write_bytes(b.assemble([first, b.Stored(b.block([(key, value)]), key=key, crc=5)]).data)
    assert not ckptparse.verify(path).ok
    with pytest.raises(ckptparse.ChecksumError):
        ckptparse.read(path)


def test_a_sound_block_of_a_v1_file_that_no_list_leads_to_is_a_warning(tmp_path: Path) -> None:
    made, other = v1.LegacyFile(), v1.LegacyFile()
    made.add("w", np.float32([1, 2]))
    other.add("z", np.float32([3, 4]))
    blocks = [
        b.Stored(b.block(part), key=part[-1][0]) for part in (made.pairs(), other.pairs()[1:])
    ]
    path = tmp_path / "m"
    path.write_bytes(b.assemble(blocks).data)
    assert ckptparse.verify(path).verdict == "warnings"
    assert [*ckptparse.read(path)] == ["w"]


def test_a_v1_file_of_one_tensor_after_the_other_is_read_without_a_block_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = v1.LegacyFile()
    for number in range(9):
        made.add(f"w{number}", np.float32([number]))
    path = made.write(tmp_path / "m", block_size=1)
    looked: list[int] = []
    block = Table._block
    monkeypatch.setattr(Table, "_block", lambda one, at: (looked.append(at), block(one, at))[1])
    with ckptparse.open(path) as checkpoint:
        assert checkpoint["w3"].read() == 3
        assert sorted(set(looked)) == [0, 4], "the list of tensors, and the record"
        monkeypatch.setattr(Table, "check_others", None)
        assert checkpoint["w4"].read() == 4, "nothing else is checked again"


def in_odd_blocks(pairs: Pairs, rng: random.Random) -> list[b.Stored]:
    """The blocks of a table, one of them odd, each with the right checksum."""
    size = rng.randint(1, 4)
    parts = [pairs[at : at + size] for at in range(0, len(pairs), size)]
    interval = rng.choice([1, 2, 16])
    blocks = [b.Stored(b.block(part, restart_interval=interval), key=part[-1][0]) for part in parts]
    place = rng.randrange(len(blocks))
    odd, after = blocks[place], blocks[place].key or b""
    kind = rng.randrange(5)
    one = rng.choice(pairs)
    if kind == 0:
        blocks.insert(place + 1, b.Stored(b.block([one]), key=after + b"\x01"))
    elif kind == 1:
        contents = bytearray(odd.contents)
        contents[rng.randrange(len(contents))] ^= 1 << rng.randrange(8)
        odd.contents = bytes(contents)
    elif kind == 2:
        odd.key = one[0]
    elif kind == 3:
        chosen = [one, *parts[place]]
        rng.shuffle(chosen)
        odd.contents = b.block(chosen, restart_interval=interval)
    else:
        odd.key = after + b"\xff"
    return blocks


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("form", ["v1", "v2"])
def test_what_is_read_of_odd_blocks_is_verified_and_what_is_not_is_a_problem(
    tmp_path: Path, form: str, seed: int
) -> None:
    rng = random.Random(seed)
    names = ["a", "b", "c", "d", "e"]
    if form == "v1":
        path = table = tmp_path / "m"
        legacy = v1.LegacyFile()
        for name in names:
            legacy.add(name, np.frombuffer(name.encode() * 8, np.float32))
        pairs = legacy.pairs()
    else:
        path, table = tmp_path / "m", tmp_path / "m.index"
        made = b.Bundle()
        for name in names:
            made.add(name, np.frombuffer(name.encode() * 8, np.float32))
        made.add_sliced("s", np.arange(4, dtype=np.float32).reshape(2, 2), IN_TWO)
        made.write(path)
        pairs = made.pairs()
    table.write_bytes(b.assemble(in_odd_blocks(pairs, rng)).data)
    report = ckptparse.verify(path)
    try:
        read = ckptparse.read(path)
    except ckptparse.CheckpointError:
        assert not report.ok
    else:
        assert report.ok and set(read) == set(report.tensors)
    for name in (*names, "s"):
        tensor = report.tensors.get(name)
        try:
            value = ckptparse.open(path)[name].read()
        except (ckptparse.CheckpointError, KeyError):
            assert not report.ok or tensor is None
            continue
        assert tensor is not None and tensor.status == ckptparse.Status.VERIFIED
        assert ckptparse.recover(path)[name].read().tolist() == value.tolist()


@pytest.mark.parametrize("value", [b"", b"\x0a\x00", b"\x02"], ids=["empty", "right", "broken"])
def test_an_entry_of_a_v1_file_that_is_no_record_is_told_of(tmp_path: Path, value: bytes) -> None:
    """Its list is empty, so that nothing is read of the file."""
    path = tmp_path / "m"
    path.write_bytes(b.table([(b"", b""), (b"no slice", value)]).data)
    report = ckptparse.verify(path)
    assert report.format == "v1" and report.verdict == "warnings" and not report.tensors
    assert [one.code for one in report.problems] == ["v1.record"]
    assert ckptparse.read(path) == {}
    parts = list(ckptparse.annotate(path))
    assert {part.what for part in parts if "value:" in part.what} == {"value: SavedTensorSlices"}
    assert any(part.broken for part in parts) == (value == b"\x02")
