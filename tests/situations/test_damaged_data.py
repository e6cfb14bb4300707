"""The index is whole, and the data file is not: what a disk, a download or a person did to it."""

from __future__ import annotations

import gzip
import itertools
import lzma
import shutil
from collections.abc import Callable
from pathlib import Path

import builder
import numpy as np
import pytest
from situations.harness import MODEL, SECTOR, Given, Situation, check, noise, zero_sectors
from situations.models import Model, make_model, write

LAST = MODEL.size
PAGE = 4096


def changed(directory: Path, change: Callable[[bytearray], object]) -> Given:
    """Change the data file in place, or return other bytes for it."""
    path = write(MODEL, directory / "model")
    data = bytearray(path.read_bytes())
    found = change(data)
    path.write_bytes(found if isinstance(found, (bytes, bytearray)) else data)
    return Given(directory / "model")


def place_of(name: str, model: Model = MODEL) -> int:
    """Return where a tensor begins in the data file."""
    names = itertools.takewhile(lambda known: known != name, model.arrays)
    return sum(model.arrays[known].nbytes for known in names)


# --------------------------------------------------------------------------------- bad sectors


def one_bad_sector(directory: Path) -> Given:
    zero_sectors(write(MODEL, directory / "model"), 1, seed=5)
    return Given(directory / "model")


def twenty_sectors_of_zeros(directory: Path) -> Given:
    zero_sectors(write(MODEL, directory / "model"), 20, seed=6)
    return Given(directory / "model")


def twenty_sectors_of_ones(directory: Path) -> Given:
    zero_sectors(write(MODEL, directory / "model"), 20, seed=7, filler=255)
    return Given(directory / "model")


def sectors_of_another_file(directory: Path) -> Given:
    def spoil(data: bytearray) -> None:
        text = b"2026-11-02 step 100: loss 0.3141, accuracy 0.97\n" * 11
        for sector in range(40, 3000, 300):
            data[sector * SECTOR : (sector + 1) * SECTOR] = text[:SECTOR]

    return changed(directory, spoil)


def a_page_of_noise(directory: Path) -> Given:
    def spoil(data: bytearray) -> None:
        data[100 * PAGE : 101 * PAGE] = noise(PAGE)

    return changed(directory, spoil)


def bad_sectors_and_a_sibling(directory: Path) -> Given:
    """Most tensors have changed since; those that have not are whole there."""
    older = make_model(1)
    frozen = {name: MODEL.arrays[name] for name in MODEL.arrays if "layer_0" in name}
    write(Model({**older.arrays, **frozen}), directory / "ckpt-70000")
    data = write(MODEL, directory / "ckpt-70001")
    raw = bytearray(data.read_bytes())
    start = place_of("layer_0/kernel") // SECTOR * SECTOR
    raw[start + SECTOR : start + 5 * SECTOR] = bytes(4 * SECTOR)
    data.write_bytes(raw)
    return Given(directory / "ckpt-70001")


# -------------------------------------------------------------------------- downloads and copies


def cut_in_the_middle(directory: Path) -> Given:
    return changed(directory, lambda data: data[: LAST // 2 + 3])


def cut_by_three_bytes(directory: Path) -> Given:
    return changed(directory, lambda data: data[:-3])


def preallocated_and_half_filled(directory: Path) -> Given:
    def spoil(data: bytearray) -> None:
        stop = LAST // 2 // PAGE * PAGE
        data[stop:] = bytes(LAST - stop)

    return changed(directory, spoil)


def zeros_from_an_odd_byte_on(directory: Path) -> Given:
    def spoil(data: bytearray) -> None:
        data[LAST // 2 + 1237 :] = bytes(LAST - LAST // 2 - 1237)

    return changed(directory, spoil)


def holes_of_a_parallel_download(directory: Path) -> Given:
    def spoil(data: bytearray) -> None:
        for start in range(16 * PAGE, LAST - 8 * PAGE, 64 * PAGE):
            data[start : start + 8 * PAGE] = bytes(8 * PAGE)

    return changed(directory, spoil)


def empty(directory: Path) -> Given:
    return changed(directory, lambda _: b"")


def all_zeros(directory: Path) -> Given:
    return changed(directory, lambda data: bytes(len(data)))


def all_noise(directory: Path) -> Given:
    return changed(directory, lambda data: noise(len(data)))


def the_text_of_a_pointer(directory: Path) -> Given:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1\n"
    return changed(directory, lambda _: pointer)


def the_text_of_a_pointer_and_a_copy(directory: Path) -> Given:
    given = the_text_of_a_pointer(directory / "clone")
    write(MODEL, directory / "backup" / "model")
    return Given(given.path, {"evidence": [directory / "backup"]})


def compressed_and_cut(directory: Path) -> Given:
    def spoil(data: bytearray) -> bytes:
        packed = gzip.compress(bytes(data), 1)
        return packed[: len(packed) // 2]

    return changed(directory, spoil)


def packed_by_xz(directory: Path) -> Given:
    return changed(directory, lambda data: lzma.compress(bytes(data), preset=0))


# ------------------------------------------------------------------------------ bits and shifts


def one_bit(directory: Path) -> Given:
    def spoil(data: bytearray) -> None:
        data[place_of("layer_1/kernel") + 777] ^= 4

    return changed(directory, spoil)


def a_bit_in_each_of_ten_tensors(directory: Path) -> Given:
    def spoil(data: bytearray) -> None:
        rng = np.random.default_rng(8)
        for name in [known for known in MODEL.arrays if "kernel" in known][:10]:
            data[place_of(name) + int(rng.integers(MODEL.arrays[name].nbytes))] ^= 16

    return changed(directory, spoil)


def one_byte(directory: Path) -> Given:
    def spoil(data: bytearray) -> None:
        data[place_of("layer_2/kernel") + 300] ^= 0xA5

    return changed(directory, spoil)


def bytes_in_front(directory: Path) -> Given:
    return changed(directory, lambda data: b"HTTP/1.1 200 OK\r\n\r\n" + data)


def bytes_lost_in_front(directory: Path) -> Given:
    return changed(directory, lambda data: data[13:])


def bytes_put_in(directory: Path) -> Given:
    return changed(directory, lambda data: data[: LAST // 3] + b"\r\n--edge--" + data[LAST // 3 :])


def a_block_twice(directory: Path) -> Given:
    start, stop = 100 * PAGE, 108 * PAGE
    return changed(directory, lambda data: data[:stop] + data[start:])


def a_block_skipped(directory: Path) -> Given:
    start, stop = 100 * PAGE, 108 * PAGE
    return changed(directory, lambda data: data[:start] + data[stop:])


def a_block_skipped_and_a_sector(directory: Path) -> Given:
    """The sector lies in the tensor behind the one that lost bytes: both are among whole ones."""
    names = list(MODEL.arrays)
    behind = sum(MODEL.arrays[name].nbytes for name in names[: names.index("embedding") + 1])
    start, stop = 100 * PAGE, 108 * PAGE

    def spoil(data: bytearray) -> None:
        data[behind + 4096 : behind + 4608] = noise(512)
        del data[start:stop]

    return changed(directory, spoil)


def bytes_in_front_and_bad_sectors(directory: Path) -> Given:
    given = bytes_in_front(directory)
    zero_sectors(directory / "model.data-00000-of-00001", 20, 5)
    return given


def bytes_put_in_twice(directory: Path) -> Given:
    first, second = 90 * PAGE, 110 * PAGE
    return changed(
        directory, lambda data: data[:first] + b"--" + data[first:second] + b"--" + data[second:]
    )


def a_block_skipped_beside_an_older_save(directory: Path) -> Given:
    """Of the tensor in which bytes were lost, another checkpoint tells where that was."""
    rng = np.random.default_rng(12)
    older = {
        name: (array * (1 + rng.normal(0, 0.03, array.shape)) if array.ndim else array).astype(
            array.dtype
        )
        for name, array in MODEL.arrays.items()
    }
    write(Model(older), directory / "model-1")
    given = a_block_skipped(directory)
    (directory / "model.index").replace(directory / "model-2.index")
    (directory / "model.data-00000-of-00001").replace(directory / "model-2.data-00000-of-00001")
    assert given.path
    return Given(directory / "model-2")


def more_behind(directory: Path) -> Given:
    return changed(directory, lambda data: data + noise(5000))


def encrypted_at_its_start(directory: Path) -> Given:
    """As some ransomware does: quickly, and not all of it."""

    def spoil(data: bytearray) -> None:
        data[: 64 * PAGE] = noise(64 * PAGE)

    return changed(directory, spoil)


def encrypted_every_other_page(directory: Path) -> Given:
    def spoil(data: bytearray) -> None:
        for start in range(0, LAST, 32 * PAGE):
            data[start : start + 16 * PAGE] = noise(16 * PAGE, seed=start)[: LAST - start]

    return changed(directory, spoil)


# ------------------------------------------------------------------------------------ mixed up


def of_another_save(directory: Path) -> Given:
    """The data file of one save, the index of another: the model is that of the data."""
    write(make_model(1), directory / "other")
    data = write(MODEL, directory / "model")
    (directory / "other.index").replace(directory / "model.index")
    for rest in directory.glob("other*"):
        rest.unlink()
    assert data.exists()
    return Given(directory / "model")


def of_a_save_beside(directory: Path, damage: Callable[[bytes], bytes] = bytes) -> Given:
    """The index of the checkpoint beside was copied over its own."""
    write(make_model(1), directory / "ckpt-1")
    data = write(MODEL, directory / "ckpt-2")
    data.write_bytes(damage(data.read_bytes()))
    shutil.copy(directory / "ckpt-1.index", directory / "ckpt-2.index")
    return Given(directory / "ckpt-2")


def of_a_save_beside_cut_and_shifted(directory: Path) -> Given:
    return of_a_save_beside(directory, lambda data: noise(8) + data[: LAST // 2])


def a_damaged_copy(directory: Path, damage: Callable[[bytes], bytes]) -> Given:
    """The checkpoint was copied under another name, and the copy damaged."""
    data = write(MODEL, directory / "ckpt-1").read_bytes()
    shutil.copy(directory / "ckpt-1.index", directory / "best.index")
    (directory / "best.data-00000-of-00001").write_bytes(damage(data))
    return Given(directory / "best")


def a_copy_with_bad_sectors(directory: Path) -> Given:
    def spoil(data: bytes) -> bytes:
        bad = bytearray(data)
        for start in range(0, len(bad) - SECTOR, 8 * SECTOR):
            bad[start : start + SECTOR] = bytes(SECTOR)
        return bytes(bad)

    return a_damaged_copy(directory, spoil)


def a_copy_that_lost_bytes(directory: Path) -> Given:
    return a_damaged_copy(directory, lambda data: data[: LAST // 3] + data[LAST // 3 + 513 :])


def a_copy_of_noise(directory: Path) -> Given:
    return a_damaged_copy(directory, lambda data: noise(len(data)))


def sharded(directory: Path, count: int = 3) -> list[Path]:
    made = builder.Bundle()
    names = list(MODEL.arrays)
    for number, name in enumerate(names):
        made.add(name, np.asarray(MODEL.arrays[name]), shard=number * count // len(names))
    made.write(directory / "model")
    return [directory / f"model.data-{n:05d}-of-{count:05d}" for n in range(count)]


def shards_swapped(directory: Path) -> Given:
    first, second, _ = sharded(directory)
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    return Given(directory / "model")


def shards_joined(directory: Path) -> Given:
    first, second, third = sharded(directory)
    first.write_bytes(first.read_bytes() + second.read_bytes() + third.read_bytes())
    second.unlink()
    third.unlink()
    return Given(directory / "model")


def a_shard_lost(directory: Path) -> Given:
    sharded(directory)[1].unlink()
    return Given(directory / "model")


def a_shard_under_another_name(directory: Path) -> Given:
    second = sharded(directory)[1]
    second.rename(directory / "download (1).bin")
    return Given(directory / "model")


def everything_lost_but_the_index(directory: Path) -> Given:
    write(MODEL, directory / "model").unlink()
    return Given(directory / "model")


WHOLE, MOST = 1.0, 0.999
SITUATIONS = [
    Situation("one bad sector", one_bad_sector, MOST, 0.7),
    Situation("twenty sectors of zeros", twenty_sectors_of_zeros, 0.99, 0.09),
    Situation("twenty sectors of 0xff", twenty_sectors_of_ones, 0.99, 0.11, 0.002),
    Situation("sectors of a log", sectors_of_another_file, 0.99, 0.11),
    Situation("a page of noise", a_page_of_noise, 0.99, 0.7),
    Situation("bad sectors, a sibling with frozen layers", bad_sectors_and_a_sibling, WHOLE, WHOLE),
    Situation("cut in the middle", cut_in_the_middle, 0.499, 0.29),
    # Three bytes of the last tensor can be solved for, with a chance of 1 in 256 to be wrong.
    Situation("cut by three bytes", cut_by_three_bytes, WHOLE, 0.99),
    Situation("preallocated, half filled", preallocated_and_half_filled, 0.49, 0.29),
    Situation("zeros from an odd byte on", zeros_from_an_odd_byte_on, 0.49, 0.29),
    Situation("holes of a parallel download", holes_of_a_parallel_download, 0.86, 0.08, 1e-4),
    Situation("empty", empty, 0.0, 0.0),
    Situation("all zeros", all_zeros, 0.0, 0.0),
    # Of noise an element here and there is looked at as one of weights.
    Situation("all noise", all_noise, 0.0, 0.0, 1.0),
    Situation("a Git LFS pointer", the_text_of_a_pointer, 0.0, 0.0),
    Situation("a Git LFS pointer, and a copy", the_text_of_a_pointer_and_a_copy, WHOLE, WHOLE),
    Situation("compressed and cut", compressed_and_cut, 0.44, 0.29),
    Situation("packed by xz", packed_by_xz, 0.0, 0.0, 1.0),
    Situation("one bit", one_bit, WHOLE, WHOLE),
    Situation("a bit in each of ten tensors", a_bit_in_each_of_ten_tensors, WHOLE, WHOLE),
    Situation("one byte", one_byte, WHOLE, WHOLE),
    Situation("bytes in front", bytes_in_front, WHOLE, WHOLE),
    Situation("bytes lost in front", bytes_lost_in_front, 0.7, 0.7),
    Situation("bytes put in", bytes_put_in, WHOLE, WHOLE),
    Situation("a block twice", a_block_twice, WHOLE, WHOLE),
    # Of the tensor in which bytes were lost, nothing tells which elements belong where they lie.
    Situation("a block skipped", a_block_skipped, 0.7, 0.7),
    Situation("a block skipped, a sector beside it", a_block_skipped_and_a_sector, 0.41, 0.41),
    # Of negative zeros some became positive ones.
    Situation("bytes in front, and bad sectors", bytes_in_front_and_bad_sectors, 0.99, 0.11, 2e-4),
    Situation("bytes put in twice", bytes_put_in_twice, 0.7, 0.7),
    Situation(
        "a block skipped, beside an older save", a_block_skipped_beside_an_older_save, 0.97, 0.7
    ),
    Situation("more behind", more_behind, WHOLE, WHOLE),
    Situation("encrypted at its start", encrypted_at_its_start, 0.84, 0.7),
    Situation("encrypted every other page", encrypted_every_other_page, 0.49, 0.04, 1e-4),
    Situation("of another save", of_another_save, MOST, 0.0),
    Situation("of another save, which is beside", of_a_save_beside, MOST, 0.0),
    Situation("the same, cut and shifted", of_a_save_beside_cut_and_shifted, 0.0, 0.0, 1.0),
    Situation("a damaged copy of one beside", a_copy_with_bad_sectors, WHOLE, WHOLE),
    Situation("a copy that lost bytes", a_copy_that_lost_bytes, WHOLE, WHOLE),
    Situation("a copy that is noise", a_copy_of_noise, WHOLE, WHOLE),
    Situation("shards swapped", shards_swapped, WHOLE, WHOLE),
    Situation("shards joined", shards_joined, WHOLE, WHOLE),
    Situation("a shard lost", a_shard_lost, 0.96, 0.96),
    Situation("a shard under another name", a_shard_under_another_name, WHOLE, WHOLE),
    Situation("everything lost but the index", everything_lost_but_the_index, 0.0, 0.0),
]


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.name)
def test_what_must_come_back_does(situation: Situation, tmp_path: Path) -> None:
    check(situation, tmp_path)
