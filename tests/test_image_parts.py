"""V1 files and indexes that lie in several parts of an image are put together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import builder
import numpy as np
import pytest
import v1_builder

import ckptparse
from ckptparse.files.memory import MemorySource
from ckptparse.limits import DEFAULT_LIMITS
from ckptparse.recovery.imaging.block_starts import BlockStart, find_starts, may_begin
from ckptparse.recovery.imaging.record_heads import find_elements
from ckptparse.table.reader import Table

BLOCK = 4096
SMALL = 3
"""In the V1 file of these sizes, a border of blocks that lies in the 20 floats of a block."""
SIZES = 3000, 20, 9000, 700, 5000, 12000
Arrays = Mapping[str, np.ndarray[Any, Any]]


def noise(blocks: int, seed: int) -> bytes:
    return np.random.default_rng(seed).bytes(blocks * BLOCK)


def pad(data: bytes, block: int = BLOCK) -> bytes:
    return data + bytes(-len(data) % block)


def weights(save: int, sizes: Iterable[int] = SIZES) -> Arrays:
    rng = np.random.default_rng(save)
    return {
        f"layer{n}/w": rng.normal(0, 0.05, size).astype(np.float32) for n, size in enumerate(sizes)
    }


def v1_file(arrays: Arrays, **options: Any) -> bytes:
    made = v1_builder.LegacyFile()
    for name, array in arrays.items():
        made.add(name, array)
    return made.data(**{"block_size": 8192, **options})


def cut(data: bytes, *borders: int, block: int = BLOCK) -> list[bytes]:
    """The parts of a file that is cut at blocks of these numbers."""
    edges = [0, *(border * block for border in borders), len(data)]
    return [data[low:high] for low, high in pairwise(edges)]


def write(directory: Path, parts: Sequence[bytes], *, apart: int = 2, block: int = BLOCK) -> Path:
    """An image of parts, with other bytes between them."""
    path = directory / "disk.img"
    pieces = [pad(part, block) + noise(apart, 50 + n) for n, part in enumerate(parts)]
    path.write_bytes(noise(2, 1) + b"".join(pieces))
    return path


def check(recovery: ckptparse.Recovery, arrays: Arrays) -> None:
    assert {name: str(recovery[name].status) for name in recovery} == dict.fromkeys(
        arrays, "verified"
    )
    for name, array in arrays.items():
        assert np.array_equal(recovery[name].read(), array)


def promised(recovery: ckptparse.Recovery) -> dict[str, Any]:
    return {
        name: found.read()
        for name, found in recovery.items()
        if found.status in ("verified", "corrected", "derived", "partial")
    }


def is_of_one(recovery: ckptparse.Recovery, saves: Sequence[Arrays]) -> bool:
    found = promised(recovery)
    return any(all(np.array_equal(found[name], save[name]) for name in found) for save in saves)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("border", [number for number in range(1, 30) if number != SMALL])
def test_a_v1_file_in_two_parts_is_whole(border: int, order: Sequence[int], tmp_path: Path) -> None:
    arrays = weights(1)
    parts = cut(v1_file(arrays), border)
    image = write(tmp_path, [parts[number] for number in order])
    (one,) = ckptparse.scan(image)
    assert (one.format, one.share) == ("v1", 1.0)
    check(one.recover(), arrays)
    assert one.offset == image.read_bytes().index(parts[0][:64])


def test_a_few_numbers_on_one_side_tie_nothing(tmp_path: Path) -> None:
    """Names and shapes are those of every save, and ten numbers may be equal by chance."""
    arrays = weights(1)
    data = v1_file(arrays)
    assert any(end - 100 < SMALL * BLOCK < end for end in block_ends(data))
    (one,) = ckptparse.scan(write(tmp_path, cut(data, SMALL)))
    recovery = one.recover()
    assert one.share == 1.0
    unsure = [name for name, found in recovery.items() if found.status == "unverified"]
    assert unsure == ["layer0/w"]
    assert "another save" in (recovery["layer0/w"].note or "")
    assert all(np.array_equal(recovery[name].read(), array) for name, array in arrays.items())


@pytest.mark.parametrize("kind", [builder.RAW, builder.SNAPPY])
@pytest.mark.parametrize("block", [512, 1024, 4096])
def test_a_v1_file_may_lie_in_many_parts(block: int, kind: int, tmp_path: Path) -> None:
    arrays = weights(2, (6000, 3000, 9000, 3000, 8000, 2000, 6000))
    data = v1_file(arrays, type=kind, index_type=kind)
    parts = cut(data, *(edge // block for edge in (20480, 57344, 98304, 131072)), block=block)
    image = write(tmp_path, [parts[number] for number in (3, 0, 4, 2, 1)], block=block)
    (one,) = ckptparse.scan(image)
    check(one.recover(), arrays)


def test_the_parts_may_be_files_that_were_rescued(tmp_path: Path) -> None:
    arrays = weights(1)
    folder = tmp_path / "lost+found"
    folder.mkdir()
    parts = cut(v1_file(arrays), 5, 12)
    for number, place in enumerate((2, 0, 1)):
        (folder / f"#{number}").write_bytes(parts[place])
    (one,) = ckptparse.scan(folder)
    check(one.recover(), arrays)


def test_a_scan_goes_on_with_a_table_whose_end_comes_first(tmp_path: Path) -> None:
    arrays = weights(1)
    image = write(tmp_path, cut(v1_file(arrays), 5, 12)[::-1])
    state = tmp_path / "state.json"
    first = ckptparse.scan(image, state=state)
    assert json.loads(state.read_bytes())["tables"][0][0] < 0
    again = ckptparse.scan(image, state=state)
    assert again.to_dict() == first.to_dict()
    check(again[0].recover(), arrays)


def test_what_is_put_together_is_written_and_repeated(tmp_path: Path) -> None:
    arrays = weights(1)
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").mkdir()
    image = write(tmp_path / "disk", cut(v1_file(arrays), 5, 12)[::-1])
    place = tmp_path / "out" / "model.ckpt"
    ckptparse.scan(image)[0].recover().write(place)
    assert ckptparse.replay(f"{place}.report.json").same
    written = ckptparse.read(place)
    assert all(np.array_equal(written[name], array) for name, array in arrays.items())


def test_the_parts_of_two_saves_are_told_apart(tmp_path: Path) -> None:
    saves = [weights(3), weights(4)]
    cuts = [cut(v1_file(arrays), 4, 11, 20) for arrays in saves]
    assert [len(part) for part in cuts[0]] == [len(part) for part in cuts[1]]
    image = write(tmp_path, [part for both in zip(*cuts, strict=True) for part in both])
    found = list(ckptparse.scan(image))
    assert [one.share for one in found] == [1.0, 1.0]
    left = list(saves)
    for one in found:
        recovery = one.recover()
        (mine,) = [
            save for save in left if np.array_equal(recovery["layer0/w"].read(), save["layer0/w"])
        ]
        check(recovery, mine)
        left.remove(mine)


def test_what_is_not_there_is_not_taken_from_another_save(tmp_path: Path) -> None:
    saves = [weights(5), weights(6)]
    mine, other = (cut(v1_file(arrays), 4, 11, 20) for arrays in saves)
    image = write(tmp_path, [other[0], mine[3], other[2], mine[2], other[1], mine[1]])
    (one,) = ckptparse.scan(image)
    recovery = one.recover()
    assert is_of_one(recovery, saves)
    found = promised(recovery)
    assert len(found) >= 3
    assert all(np.array_equal(found[name], saves[0][name]) for name in found)


def zeros_and_weights(save: int) -> Arrays:
    arrays = dict(weights(save))
    arrays["layer2/w"] = np.zeros(9000, np.float32)
    return arrays


def test_a_part_that_every_save_has_ties_nothing(tmp_path: Path) -> None:
    """The parts meet in zeros, which are the same in both saves: the checksum holds for each."""
    saves = [zeros_and_weights(7), zeros_and_weights(8)]
    files = [v1_file(arrays) for arrays in saves]
    border = files[0].index(b"layer2/w", 12000) // BLOCK + 4
    mine, other = (cut(data, border) for data in files)
    image = write(tmp_path, [other[0], mine[1]])
    (one,) = ckptparse.scan(image)
    recovery = one.recover()
    assert is_of_one(recovery, saves)
    assert len(promised(recovery)) >= 2
    assert any("another save" in (found.note or "") for found in recovery.values())
    # With the other first part beside it, it is not known either which is right.
    image = write(tmp_path, [other[0], mine[0], mine[1]])
    (one,) = ckptparse.scan(image)
    assert is_of_one(one.recover(), saves)


def test_a_part_that_another_precedes_by_chance_is_told(tmp_path: Path) -> None:
    """The parts of two saves lie end to end, and meet in zeros. The right first part is there."""
    saves = [zeros_and_weights(16), zeros_and_weights(17)]
    files = [v1_file(arrays) for arrays in saves]
    border = files[0].index(b"layer2/w", 12000) // BLOCK + 4
    mine, other = (cut(data, border) for data in files)
    image = write(tmp_path, [mine[0], other[0] + mine[1]])
    (one,) = ckptparse.scan(image)
    recovery = one.recover()
    assert is_of_one(recovery, saves)
    assert any("another save" in (found.note or "") for found in recovery.values())
    # A whole file beside another whole one is not doubted.
    found = list(ckptparse.scan(write(tmp_path, files)))
    assert len(found) == 2
    for one, arrays in zip(sorted(found, key=lambda one: one.offset), saves, strict=True):
        check(one.recover(), arrays)


def test_bytes_that_are_not_there_tie_nothing(tmp_path: Path) -> None:
    """They read as zeros, and the block in which they are missing holds zeros."""
    saves = [zeros_and_weights(18), zeros_and_weights(19)]
    files = [v1_file(arrays) for arrays in saves]
    first = files[0].index(b"layer2/w", 12000) // BLOCK + 2
    mine, other = (cut(data, first, first + 4) for data in files)
    (one,) = ckptparse.scan(write(tmp_path, [other[0], mine[2]]))
    recovery = one.recover()
    assert is_of_one(recovery, saves)
    assert np.array_equal(promised(recovery)["layer4/w"], saves[0]["layer4/w"])


def test_floats_go_on_behind_any_number_of_gaps(tmp_path: Path) -> None:
    arrays = weights(9, (2000, 300_000, 500))
    parts = cut(v1_file(arrays), 30, 90, 160, 230)
    gap = b"\xff" * 5000 + bytes(3192) + noise(2, 3) + bytes(BLOCK)
    path = tmp_path / "disk.img"
    path.write_bytes(noise(2, 1) + b"".join(pad(part) + gap for part in parts))
    (one,) = ckptparse.scan(path)
    check(one.recover(), arrays)
    # A sector that cannot be read costs no more than what lies around it.
    image = bytearray(path.read_bytes())
    place = image.index(parts[2]) + 40 * BLOCK
    image[place : place + 512] = noise(1, 4)[:512]
    path.write_bytes(image)
    (one,) = ckptparse.scan(path)
    recovery = one.recover()
    assert str(recovery["layer1/w"].status) == "unverified"
    assert str(recovery["layer0/w"].status) == "verified"
    read = recovery["layer1/w"].read(fill=0)
    same = np.count_nonzero(read == arrays["layer1/w"])
    assert same > 0.3 * read.size


def index_and_data(tensors: int, save: int = 0, size: int = 12) -> tuple[bytes, bytes, Arrays]:
    rng = np.random.default_rng([tensors, save])
    bundle = builder.Bundle()
    arrays = {
        f"model/dense_{n:05d}/kernel": rng.normal(size=size).astype("<f4") for n in range(tensors)
    }
    for name, array in arrays.items():
        bundle.add(name, array)
    files = bundle.files("m", block_size=5000)
    return files["m.index"], files["m.data-00000-of-00001"], arrays


def test_an_index_in_several_parts_is_put_together(tmp_path: Path) -> None:
    index, data, arrays = index_and_data(3000)
    parts = cut(index, 9, 17)
    image = write(tmp_path, [parts[1], parts[2], data, parts[0]])
    (one,) = ckptparse.scan(image)
    assert (one.format, one.tensors, one.share) == ("v2", 3000, 1.0)
    recovery = one.recover()
    assert {str(found.status) for found in recovery.values()} == {"verified"}
    assert all(np.array_equal(recovery[name].read(), array) for name, array in arrays.items())


@pytest.mark.parametrize("border", [9, 17])
def test_an_index_over_which_another_was_written_is_of_one_save(
    border: int, tmp_path: Path
) -> None:
    """Each block is whole but the one at the border, and the data of both saves are there."""
    mine, other = (index_and_data(3000, save, 300) for save in (1, 2))
    first, last = cut(other[0], border)[0], cut(mine[0], border)[1]
    image = write(tmp_path, [first + last, mine[1], other[1]])
    (one,) = ckptparse.scan(image)
    recovery = one.recover()
    assert is_of_one(recovery, [mine[2], other[2]])
    found = promised(recovery)
    assert len(found) > 1400
    others = [one for one in recovery.values() if one.status == "unverified"]
    assert sum("another save" in (one.note or "") for one in others) > 800


def index_that_ends_a_block_at(border: int, name: str, save: int) -> tuple[bytes, bytes, Arrays]:
    rng = np.random.default_rng(save)
    bundle = builder.Bundle()
    names = [name, *(f"w{number:03}" for number in range(600))]
    arrays = {one: rng.normal(size=300).astype("<f4") for one in names}
    for one, array in arrays.items():
        bundle.add(one, array)
    index, data = bundle.files("m", block_size=border - 25).values()
    return index, data, arrays


def test_whole_blocks_of_two_indexes_are_of_one_save(tmp_path: Path) -> None:
    """The borders of the image are those of the blocks, so that each of them is whole."""
    made = (
        ("a" * count, index_that_ends_a_block_at(8192, "a" * count, 1)) for count in range(1, 99)
    )
    name, mine = next(one for one in made if 8192 in block_ends(one[1][0]))
    other = index_that_ends_a_block_at(8192, name, 2)
    mixed = other[0][:8192] + mine[0][8192:]
    (one,) = ckptparse.scan(write(tmp_path, [mixed, mine[1], other[1]]))
    recovery = one.recover()
    assert is_of_one(recovery, [mine[2], other[2]])
    assert len(promised(recovery)) > 200
    (one,) = ckptparse.scan(write(tmp_path, [mine[0], mine[1]]))
    assert {str(found.status) for found in one.recover().values()} == {"verified"}


def test_data_in_one_part_ties_the_blocks_of_its_index(tmp_path: Path) -> None:
    """A damaged block keeps the blocks before it from those behind it."""
    index, data, arrays = index_and_data(3000)
    damaged = index[:37_000] + noise(1, 3)[:512] + index[37_512:]
    (one,) = ckptparse.scan(write(tmp_path, [damaged, data]))
    found = promised(one.recover())
    assert len(found) > 2_800
    assert all(np.array_equal(found[name], arrays[name]) for name in found)
    # Without the data of one side, nothing says that it is of this save.
    (one,) = ckptparse.scan(write(tmp_path, [damaged, cut(data, 17)[1]]))
    found = promised(one.recover())
    assert 1_000 < len(found) < 2_000
    assert all(np.array_equal(found[name], arrays[name]) for name in found)
    # Nor if another save's data is there: its tensors lie elsewhere.
    other = index_and_data(3000, 2)
    mixed = cut(other[0], 9)[0] + cut(index, 9)[1]
    (one,) = ckptparse.scan(write(tmp_path, [mixed, data, other[1]]))
    assert is_of_one(one.recover(), [arrays, other[2]])


def test_the_list_of_blocks_may_go_over_into_another_part(tmp_path: Path) -> None:
    arrays = {f"scope/of/variable_{n:04d}": np.full(300, n + 0.5, np.float32) for n in range(300)}
    arrays = {name: array + np.arange(300, dtype=np.float32) for name, array in arrays.items()}
    data = v1_file(arrays, block_size=512)
    border = (len(data) - 6000) // BLOCK
    assert border * BLOCK > data.rindex(b"scope/of/variable_0299", 0, len(data) - 13000)
    image = write(tmp_path, cut(data, border))
    (one,) = ckptparse.scan(image)
    assert one.share == 1.0
    found = promised(one.recover())
    assert all(np.array_equal(found[name], arrays[name]) for name in found)
    assert len(found) >= 290


@pytest.mark.parametrize("over", [0, 1, 3, 4, 5])
def test_parts_may_meet_at_the_end_of_a_block(over: int, tmp_path: Path) -> None:
    """The checksum of a block, or its end, lies at a border: it says nothing of the next block."""
    made = (first_end_at(number) for number in range(3000))
    arrays, data, border = next(one for one in made if one[2] % 512 == over)
    parts = [data[: border - over], data[border - over :]]
    image = write(tmp_path, parts, block=512)
    (one,) = ckptparse.scan(image)
    assert one.share == 1.0
    recovery = one.recover()
    assert is_of_one(recovery, [arrays])
    assert all(np.array_equal(recovery[name].read(), array) for name, array in arrays.items())
    sure = promised(recovery)
    # Behind a border that a whole checksum follows, it binds both.
    assert len(sure) == (2 if over < 4 else 3)


def first_end_at(number: int) -> tuple[Arrays, bytes, int]:
    """A V1 file, of which the first block ends somewhere else for each number."""
    more = weights(10, (2000 + number // 4, 3000, 4000)).values()
    arrays = dict(zip(["a" * (number % 4 + 1), "b", "c"], more, strict=True))
    data = v1_file(arrays)
    return arrays, data, min(block_ends(data))


def block_ends(data: bytes) -> set[int]:
    """Where the data blocks of a table end."""
    table = Table.open(MemorySource("f", data), limits=DEFAULT_LIMITS)
    return {handle.end for handle in table.handles}


def test_without_its_first_part_a_v1_file_gives_its_last_ones(tmp_path: Path) -> None:
    arrays = weights(11)
    parts = cut(v1_file(arrays), 3, 11)
    image = write(tmp_path, [parts[2], parts[1]])
    (one,) = ckptparse.scan(image)
    assert one.format == "v1"
    assert 0.5 < one.share < 1
    recovery = one.recover()
    # Only the list, in the first part, says their types and shapes.
    found = {name: found.read() for name, found in recovery.items() if found.status == "unverified"}
    assert np.array_equal(found["layer5/w"], arrays["layer5/w"])
    assert np.array_equal(found["layer4/w"], arrays["layer4/w"])


def test_two_saves_with_equal_lists_of_blocks_are_both_listed(tmp_path: Path) -> None:
    saves = [weights(12, [600] * 150), weights(13, [600] * 150)]
    files = [v1_file(arrays, block_size=512) for arrays in saves]
    assert files[0][-BLOCK:] == files[1][-BLOCK:]
    found = list(ckptparse.scan(write(tmp_path, files)))
    assert len(found) == 2
    for one, arrays in zip(sorted(found, key=lambda one: one.offset), saves, strict=True):
        check(one.recover(), arrays)
    # A copy of one is listed once.
    assert len(ckptparse.scan(write(tmp_path, [files[0], files[0]]))) == 1


def test_a_damaged_block_of_frozen_weights_takes_nothing_of_another_save(tmp_path: Path) -> None:
    """An older save holds the damaged block whole; what lies before it there is of that save."""
    saves = [dict(weights(14)), dict(weights(15))]
    saves[1]["layer2/w"] = saves[0]["layer2/w"]
    mine, other = (v1_file(arrays) for arrays in saves)
    place = mine.index(saves[0]["layer2/w"].tobytes()[:64]) + 2 * BLOCK
    damaged = mine[:place] + bytes(512) + mine[place + 512 :]
    image = write(tmp_path, [damaged, other[:-200]])
    (one,) = ckptparse.scan(image)
    recovery = one.recover()
    assert is_of_one(recovery, saves)


# -- where blocks begin


def start_of(**changes: Any) -> BlockStart:
    known = {"offset": 100, "size": 50, "after": b"a/b", "last": b"a/z", "packed": False}
    return BlockStart(**{**known, **changes})


ENTRY = b"\x00\x05\x10a/kernel-and-more".ljust(60, b"\x07")


@pytest.mark.parametrize(
    ("data", "changes", "found"),
    [
        (ENTRY, {}, True),
        (ENTRY, {"last": b"a/kerne"}, True),
        (ENTRY, {"last": b"a/b/z"}, False),
        (ENTRY, {"after": b"a/l"}, False),
        (ENTRY, {"after": None}, False),
        (ENTRY, {"size": 31}, False),
        (ENTRY, {"size": 32}, True),
        (b"\x01" + ENTRY[1:], {}, False),
        (b"\x00\x00\x10" + ENTRY[3:], {}, False),
        (b"\x00\x00\x10" + ENTRY[3:], {"after": None}, True),
        (b"\x00\x00\x00" + ENTRY[3:], {"after": None}, False),
        (b"\x00\x05\x90\x80" + ENTRY[3:], {}, False),
        (b"\x32\xf0\x31" + ENTRY, {}, False),
        (b"\x32\xf0\x31" + ENTRY, {"packed": True}, True),
        (b"\x32\xc4" + ENTRY, {"packed": True}, True),
        (b"\x32\xc5" + ENTRY, {"packed": True}, False),
        (b"\x12\xf0\x31" + ENTRY, {"packed": True}, False),
        (bytes(60), {"after": None}, False),
        (b"\xff" * 60, {"packed": True}, False),
        (b"\x00\x05", {}, False),
    ],
)
def test_a_block_begins_with_an_entry_of_its_own(
    data: bytes, changes: dict[str, Any], found: bool
) -> None:
    start = start_of(**changes)
    image = noise(1, 7)[:100] + data
    assert may_begin(MemorySource("i", image), 100, start) is found
    several = image.ljust(512, b"\xaa") * 3
    places = find_starts(MemorySource("i", several), [start], 512)
    if len(data) >= 50:
        assert places == ({start: [100, 612, 1124]} if found else {})


def test_a_block_begins_at_no_place_outside_of_the_image() -> None:
    image = MemorySource("i", ENTRY)
    assert may_begin(image, 0, start_of())
    assert not may_begin(image, -1, start_of())
    assert not may_begin(image, len(ENTRY), start_of())


# -- what elements a record has


@pytest.mark.parametrize(("kind", "number"), [("<f4", builder.FLOAT), ("<f8", builder.DOUBLE)])
def test_the_elements_of_a_record_are_found(kind: str, number: int) -> None:
    array = np.random.default_rng(3).normal(size=5000).astype(kind)
    data = v1_file({"v": array[:3], "w": array}, block_size=64)
    elements = find_elements(data[data.index(array.tobytes()) - 38 :][:100])
    place = data.index(array.tobytes())
    starts = [at for at in range(place - 60, place) if find_elements(data[at:][:4096]) is not None]
    found = {at + find_elements(data[at:][:4096]).lead for at in starts}  # type: ignore[union-attr]
    assert place in found
    assert elements is None or elements.data_type == number


def test_a_record_of_other_bytes_has_no_elements() -> None:
    assert find_elements(b"") is None
    assert find_elements(bytes(100)) is None
    assert find_elements(b"\xff" * 100) is None
    for seed in range(200):
        find_elements(np.random.default_rng(seed).bytes(64))
