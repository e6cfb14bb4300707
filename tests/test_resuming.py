"""Entries behind damage in a block of an index or a V1 file: what is stored in full is read on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builder
import numpy as np
import pytest
import v1_builder

import ckptparse
from ckptparse.examination.index_reading import _looks_right
from ckptparse.examination.resuming import Budget, iter_resumed
from ckptparse.limits import DEFAULT_LIMITS

LAYERS = [f"model/layer{n:02}/{kind}" for n in range(40) for kind in ("bias", "kernel")]


def entries(names: list[str]) -> list[tuple[bytes, bytes]]:
    """The pairs of an index with so many small tensors."""
    made = builder.Bundle()
    for number, name in enumerate(names):
        made.add(name, np.full(5, number, np.float32))
    return list(made.pairs())


def resumed(contents: bytes, *, whole: bool = True) -> list[bytes]:
    budget = Budget(DEFAULT_LIMITS, len(contents))
    return [key for key, _ in iter_resumed(contents, _looks_right, budget, whole=whole)]


def damage(contents: bytes, at: int, new: bytes) -> bytes:
    return contents[:at] + new + contents[at + len(new) :]


def place_of(contents: bytes, pairs: list[tuple[bytes, bytes]], number: int) -> int:
    """Where an entry's value begins: values are told apart by their offsets."""
    return contents.index(pairs[number][1])


@pytest.mark.parametrize("byte", range(9))
def test_damage_in_the_header_entry_loses_the_header_alone(byte: int) -> None:
    pairs = entries(["layer0", "layer1", "layer2"])
    contents = builder.block(pairs)
    found = resumed(damage(contents, byte, b"\xff"))
    assert [key for key in found if key] == [b"layer0", b"layer1", b"layer2"]


@pytest.mark.parametrize("interval", [1, 4, 16])
@pytest.mark.parametrize("part", ["shared", "key size", "value size"])
def test_behind_a_damaged_length_the_next_key_in_full_is_read(part: str, interval: int) -> None:
    pairs = entries([f"{letter}{number}" for letter in "abcdefgh" for number in range(3)])
    contents = builder.block(pairs, restart_interval=interval)
    number = 10  # c0 is entry 7, so that d0 is this one: it shares nothing with c2.
    start = place_of(contents, pairs, number - 1) + len(pairs[number - 1][1])
    at = start + ["shared", "key size", "value size"].index(part)
    found = resumed(damage(contents, at, b"\x7f"))
    kept = [key for key, _ in pairs]
    # d1 shares a letter with d0, unless it is at a restart.
    lost = kept[10:11] if interval == 1 else kept[10:12] if interval == 4 else kept[10:13]
    assert found == [key for key in kept if key not in lost]


@pytest.mark.parametrize(
    ("number", "lost"),
    [
        pytest.param(35, 6, id="layer17 to layer19: layer20 shares `model/layer`, as layer23"),
        pytest.param(43, 2, id="layer21: layer22 shares `model/layer2`, as layer23"),
        pytest.param(47, 1, id="the last before a restart"),
    ],
)
def test_a_key_is_known_if_it_shares_what_all_keys_up_to_the_next_restart_share(
    number: int, lost: int
) -> None:
    pairs = entries(LAYERS)
    names = [key for key, _ in pairs]
    assert names[48] == b"model/layer23/kernel"
    contents = builder.block(pairs)
    start = place_of(contents, pairs, number - 1) + len(pairs[number - 1][1])
    found = resumed(damage(contents, start, b"\xff\xff\xff"))
    assert found == names[:number] + names[number + lost :]


def test_a_damaged_restart_loses_no_entry() -> None:
    pairs = entries(LAYERS)
    contents = builder.block(pairs)
    count = int.from_bytes(contents[-4:], "little")
    assert count > 3
    for number in range(count + 1):
        at = len(contents) - 4 * (number + 1)
        value = int.from_bytes(contents[at : at + 4], "little")
        for changed in (0, 1, value + 1, value + 4, max(value - 1, 0), 0xFFFFFFFF):
            found = resumed(damage(contents, at, changed.to_bytes(4, "little")))
            assert found == [key for key, _ in pairs], (number, changed)


def test_a_lost_restart_array_loses_no_entry() -> None:
    pairs = entries(LAYERS)
    contents = builder.block(pairs)
    count = int.from_bytes(contents[-4:], "little")
    for lost in (bytes(4 * count + 4), b"\xff" * (4 * count + 4)):
        assert resumed(damage(contents, len(contents) - len(lost), lost)) == [k for k, _ in pairs]


def test_no_name_is_made_up_behind_damage_that_keeps_the_keys() -> None:
    rng = np.random.default_rng(0)
    pairs = entries(LAYERS)
    names = {key for key, _ in pairs}
    contents = builder.block(pairs)
    for _ in range(300):
        number = int(rng.integers(1, len(pairs)))
        start = place_of(contents, pairs, number - 1) + len(pairs[number - 1][1])
        found = resumed(damage(contents, start, rng.bytes(3)))
        wrong = [key for key in found if key not in names]
        # At most the entry itself, if its lengths still lead to its value.
        assert len(wrong) <= 1, wrong


def test_a_hostile_block_ends_at_a_number_of_places() -> None:
    budget = Budget(DEFAULT_LIMITS, 1 << 20)
    contents = b"\x00\x01\x01" * 200_000
    before = budget.starts + budget.left
    assert list(iter_resumed(contents, lambda _, __: False, budget)) == []
    assert before - budget.starts - budget.left < 1 << 18 and budget.is_spent


def test_restarts_at_which_nothing_begins_are_tried_up_to_a_number() -> None:
    count = 1 << 17
    body = np.random.default_rng(0).integers(0, 128, 4 * count, np.uint8).tobytes()
    contents = builder.close_block(body, range(0, 4 * count, 4))
    budget = Budget(DEFAULT_LIMITS, len(contents))
    tried = 0

    def refuse(_: bytes, __: bytes) -> bool:
        nonlocal tried
        tried += 1
        return False

    assert list(iter_resumed(contents, refuse, budget)) == []
    assert budget.is_spent and tried < 1 << 14


def save(path: Path, count: int) -> dict[str, Any]:
    arrays = {f"layer{n}": np.full(9, n, np.float32) for n in range(count)}
    made = builder.Bundle()
    for name, array in arrays.items():
        made.add(name, array)
    made.write(path)
    return arrays


def test_tensors_behind_a_damaged_header_come_back(tmp_path: Path) -> None:
    arrays = save(tmp_path / "model", 3)
    index = tmp_path / "model.index"
    index.write_bytes(damage(index.read_bytes(), 0, b"\xff\xff\xff\xff"))
    for report in (
        ckptparse.verify(tmp_path / "model"),
        ckptparse.recover(tmp_path / "model").report,
    ):
        assert sorted(report.tensors) == sorted(arrays)
    recovery = ckptparse.recover(tmp_path / "model")
    for name, array in arrays.items():
        assert recovery[name].status == "unverified"
        assert (recovery[name].read() == array).all()


def test_records_of_a_v1_file_behind_a_damaged_list_come_back(tmp_path: Path) -> None:
    made = v1_builder.LegacyFile()
    arrays = {f"{letter}0": np.arange(9, dtype=np.float32) + n for n, letter in enumerate("abc")}
    for name, array in arrays.items():
        made.add(name, array)
    path = made.write(tmp_path / "model")
    path.write_bytes(damage(path.read_bytes(), 0, b"\xff\xff\xff\xff"))
    recovery = ckptparse.recover(path)
    assert sorted(recovery) == sorted(arrays)
    assert all((recovery[name].read() == array).all() for name, array in arrays.items())
