"""Tensors of a damaged checkpoint that are whole stay rows of columns: the answers are the same."""

from __future__ import annotations

import json
import pickle
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import builder
import numpy as np
import pytest
from instruments import noting_payloads

import ckptparse
from ckptparse.examination.row_mapping import RowMapping

COUNT = 400


def bundle() -> builder.Bundle:
    made = builder.Bundle()
    values = np.random.default_rng(0).normal(size=(COUNT, 3)).astype(np.float32)
    for number in range(COUNT):
        made.add(f"layer_{number:04d}/w", values[number], shard=number % 2)
    for number in range(20):
        made.add(f"step_{number}", np.int64(number), shard=1)
        made.add(f"text_{number}", np.array([b"a" * number, b""], object))
        made.add(f"flags_{number}", np.arange(number) % 2 == 0)
    made.add_sliced("wide", values, builder.split_rows(COUNT, 4, 2), shards=[0, 1, 0, 1])
    made.add("odd\0name", np.float32(1))
    made.add(b"\0first", np.float32(2))
    made.add(b"\xff\xfe", np.float32(3))
    made.add("bare", np.float32(4), crc=0)
    return made


def cut_footer(index: bytearray, data: bytearray) -> None:
    del index[-48:]


def zero_block(index: bytearray, data: bytearray) -> None:
    index[3000:4200] = bytes(1200)


def lose_first_block(index: bytearray, data: bytearray) -> None:
    index[:1000] = bytes(1000)


def flip_bit(index: bytearray, data: bytearray) -> None:
    index[5000] ^= 4


def cut_index(index: bytearray, data: bytearray) -> None:
    del index[4096:]


def cut_data(index: bytearray, data: bytearray) -> None:
    del data[len(data) // 2 :]


def shift_data(index: bytearray, data: bytearray) -> None:
    data[1000:1000] = b"abc"


def flip_data(index: bytearray, data: bytearray) -> None:
    for at in random.Random(2).sample(range(len(data)), 20):
        data[at] ^= 16


DAMAGES = [
    cut_footer,
    zero_block,
    lose_first_block,
    flip_bit,
    cut_index,
    cut_data,
    shift_data,
    flip_data,
]


def write(made: builder.Bundle, prefix: Path, damage: Any = None) -> str:
    files = {name: bytearray(data) for name, data in made.files("m", block_size=1000).items()}
    if damage is not None:
        damage(files["m.index"], files["m.data-00000-of-00002"])
    for name, data in files.items():
        (prefix.parent / name).write_bytes(data)
    return str(prefix)


def told(path: str) -> tuple[str, ...]:
    report, recovery = ckptparse.verify(path), ckptparse.recover(path)
    dicts = json.dumps([report.to_dict(), recovery.to_dict()])
    return dicts, str(report), str(recovery), repr([list(report.tensors), list(recovery)])


def decode_singly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no entry decoded with others."""
    name = "ckptparse.examination.index_reading._Builder._columns_of"
    monkeypatch.setattr(name, lambda _, runs: [None] * len(runs))


@pytest.mark.parametrize("damage", DAMAGES)
def test_rows_and_single_entries_say_the_same(
    tmp_path: Path, damage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(bundle(), tmp_path / "m", damage)
    by_rows = told(path)
    decode_singly(monkeypatch)
    assert told(path) == by_rows


def test_what_shares_bytes_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bundle()
    made.change("layer_0004/w", offset=2)
    made.reseal("layer_0004/w")
    made.change("layer_0009/w", offset=1 << 60)
    path = write(made, tmp_path / "m", zero_block)
    by_rows = told(path)
    decode_singly(monkeypatch)
    assert told(path) == by_rows


def test_a_key_that_occurs_twice_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = bundle().pairs()
    again = [*pairs[:300], *pairs[200:]]
    (tmp_path / "m.index").write_bytes(builder.table(again, block_size=1000).data)
    for name, data in bundle().files("m").items():
        if name != "m.index":
            (tmp_path / name).write_bytes(data)
    path = str(tmp_path / "m")
    by_rows = told(path)
    decode_singly(monkeypatch)
    assert told(path) == by_rows


def test_of_a_damaged_checkpoint_only_what_is_doubtful_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = noting_payloads(monkeypatch)
    path = write(bundle(), tmp_path / "m", cut_footer)
    assert len(ckptparse.recover(path)) > COUNT
    assert not made
    # A shard with one flipped bit: its own tensor, and few beside it that are looked at.
    data = tmp_path / "m.data-00001-of-00002"
    data.write_bytes(bytes([data.read_bytes()[0] ^ 1]) + data.read_bytes()[1:])
    assert ckptparse.recover(path)["layer_0001/w"].status == "corrected"
    assert 0 < len(made) < 20


def test_values_and_reports_are_made_when_they_are_asked_for(tmp_path: Path) -> None:
    made = bundle()
    del made.entries[b"bare"]
    path = write(made, tmp_path / "m")
    wanted = ckptparse.read(path)
    write(made, tmp_path / "m", cut_footer)
    recovery = ckptparse.recover(path)
    assert list(recovery) == list(wanted)
    for name, value in wanted.items():
        assert recovery[name].read().tolist() == value.tolist()
    report = recovery.report
    assert report.counts == {"verified": len(wanted)}
    assert report == pickle.loads(pickle.dumps(report))  # noqa: S301
    assert "layer_0003/w" in report.tensors and "layer" not in report.tensors
    with pytest.raises(KeyError):
        report.tensors["layer"]
    with pytest.raises(ckptparse.TensorNotFoundError):
        recovery["layer"]


def test_blocks_are_found_all_at_once_if_trying_their_ends_takes_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bundle()
    del made.entries[b"bare"]
    path = write(made, tmp_path / "m", cut_footer)
    wanted = ckptparse.recover(path).to_dict()
    monkeypatch.setattr("ckptparse.examination.carving._LEAST_WORK", 0)
    monkeypatch.setattr("ckptparse.examination.carving._WORK_A_BYTE", 0)
    found = ckptparse.recover(path)
    assert found.to_dict() == wanted
    assert found.report.counts == {"verified": len(found.report.tensors)}


def test_rows_that_are_damaged_count_as_what_they_become(tmp_path: Path) -> None:
    made = builder.Bundle()
    for number in range(COUNT):
        made.add(f"layer_{number:04d}/w", np.full(4, number, np.float32))
    path = made.write(tmp_path / "m")
    (tmp_path / "m.data-00000-of-00001").unlink()
    limits = replace(ckptparse.DEFAULT_LIMITS, memory_bytes=400_000)
    report = ckptparse.verify(path, limits=limits)
    assert "limit.reached" in {one.code for one in report.problems}
    assert not report.tensors and not report.complete
    assert len(ckptparse.verify(path).tensors) == COUNT


def test_keys_that_swell_count_over_all_blocks_of_a_damaged_index(tmp_path: Path) -> None:
    header = builder.entry(b"", builder.Header().to_bytes(1))
    value = builder.Entry(builder.FLOAT, (0,), crc=builder.mask(0)).to_bytes()
    blocks = []
    for number in range(4):
        first = builder.entry(b"%d" % number, value)
        body = first + b"".join(builder.entry(b"x", value, shared=n) for n in range(1, 1200))
        contents = builder.close_block(body if number else header + body)
        blocks.append(builder.Stored(contents, key=b"%dy" % number))
    data = builder.assemble(blocks).data
    (tmp_path / "m.index").write_bytes(data[:-48])
    (tmp_path / "m.data-00000-of-00001").write_bytes(b"")
    keys = 1200 * 1201 // 2
    for key_bytes, reached in ((5 * keys, False), (2 * keys, True)):
        limits = replace(ckptparse.DEFAULT_LIMITS, key_bytes=key_bytes)
        report = ckptparse.verify(tmp_path / "m", limits=limits)
        assert ("limit.reached" in {one.code for one in report.problems}) == reached


def test_a_mapping_keeps_the_order_of_rows_and_values() -> None:
    mapping = RowMapping(lambda name, row: f"{name}{row}")
    mapping.add_rows(["a", "b", "c"], range(3))
    mapping["b"] = "held"
    mapping["d"] = "new"
    assert dict(mapping) == {"a": "a0", "b": "held", "c": "c2", "d": "new"}
    assert mapping.rows() == {"a": 0, "c": 2} and mapping.held == {"b": "held", "d": "new"}
    others = mapping.remade(lambda _, row: row, lambda _, value: None if value == "new" else -1)
    assert dict(others) == {"a": 0, "b": -1, "c": 2}
    del mapping["a"], mapping["b"]
    assert list(mapping) == ["c", "d"] and len(mapping) == 2 and "a" not in mapping
    assert dict(RowMapping.of({"x": 1})) == {"x": 1}


def test_rows_keep_their_names_without_looking_them_up() -> None:
    class Counted(str):
        __slots__ = ()
        hashed = 0

        def __hash__(self) -> int:
            type(self).hashed += 1
            return super().__hash__()

    names = [Counted(f"w{number}") for number in range(1000)]
    mapping = RowMapping(lambda name, row: f"{name}{row}")
    mapping.add_rows(names, range(1000))
    Counted.hashed = 0
    assert list(mapping.remade(lambda _, row: row, lambda _, value: value, names)) == names
    some = mapping.remade(lambda _, row: row, lambda _, value: value, names[2:-1])
    assert list(some) == names[2:-1]
    held = mapping.with_held(lambda _, row: row, {names[3]: -3})
    assert list(held) == names
    assert mapping.names_without(np.arange(3, 1000)) == names[:3]
    assert Counted.hashed < 20
    assert held[names[3]] == -3 and held[names[4]] == 4 and some.rows()[names[2]] == 2
    assert held.names_without(np.arange(1000)) == [names[3]]
    turned = mapping.remade(lambda _, row: row, lambda _, value: value, names[::-2])
    assert dict(turned) == {name: int(name[1:]) for name in names[::-2]}
    odd = names[:5] + names[9:4:-1]
    assert list(mapping.remade(lambda _, row: row, lambda _, value: value, odd)) == odd


def test_rows_that_are_too_many_are_left_out_and_what_is_held_stays() -> None:
    mapping = RowMapping(lambda name, row: f"{name}{row}")
    mapping.add_rows(["a", "b", "c", "d"], range(5, 9))
    mapping["b"] = "held"
    mapping.keep(np.array([8, 5]))
    assert dict(mapping) == {"a": "a5", "b": "held", "d": "d8"}
    mapping.keep(np.array([], np.int64))
    assert dict(mapping) == {"b": "held"}
