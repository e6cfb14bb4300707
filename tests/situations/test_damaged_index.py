"""The data is whole, and the index is damaged, cut off, changed, or under another name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import builder
import numpy as np
import pytest
from situations.harness import MODEL, Given, Situation, check, noise
from situations.models import Model, make_model

MANY = Model(
    {
        f"block_{n:03d}/{what}": np.random.default_rng(n).normal(0, 0.05, shape).astype("<f4")
        for n in range(100)
        for what, shape in (("bias", 24), ("kernel", (24, 24)))
    }
)
"""200 tensors: their index has several blocks."""
BLOCK = 1024


def bundle_of(model: Model) -> builder.Bundle:
    made = builder.Bundle()
    for name, array in model.arrays.items():
        made.add(name, np.asarray(array))
    return made


def changed(
    directory: Path, change: Callable[[bytearray], object], model: Model = MANY, size: int = BLOCK
) -> Given:
    directory.mkdir(parents=True, exist_ok=True)
    bundle_of(model).write(directory / "model", block_size=size)
    path = directory / "model.index"
    data = bytearray(path.read_bytes())
    found = change(data)
    path.write_bytes(found if isinstance(found, (bytes, bytearray)) else data)
    return Given(directory / "model")


def footer_lost(directory: Path) -> Given:
    return changed(directory, lambda data: data[:-48])


def index_block_damaged(directory: Path) -> Given:
    def spoil(data: bytearray) -> None:
        data[-80] ^= 0xFF

    return changed(directory, spoil)


def cut_at_a_page(directory: Path) -> Given:
    return changed(directory, lambda data: data[:4096])


def cut_in_the_only_block(directory: Path) -> Given:
    return changed(directory, lambda data: data[:4096], size=1 << 18)


def a_sector_of_zeros(directory: Path) -> Given:
    def spoil(data: bytearray) -> None:
        data[2048:2560] = bytes(512)

    return changed(directory, spoil)


def a_sector_of_zeros_in_the_only_block(directory: Path) -> Given:
    def spoil(data: bytearray) -> None:
        data[2048:2560] = bytes(512)

    return changed(directory, spoil, size=1 << 18)


def a_key_that_reads_too_high(directory: Path) -> Given:
    def spoil(data: bytearray) -> None:
        place = data.index(b"block_0", 1500)
        data[place : place + 2] = b"zz"

    return changed(directory, spoil, size=1 << 18)


def a_key_that_reads_too_low(directory: Path) -> Given:
    def spoil(data: bytearray) -> None:
        place = data.index(b"block_0", 1500)
        data[place : place + 2] = b"aa"

    return changed(directory, spoil, size=1 << 18)


def one_bit(directory: Path) -> Given:
    def spoil(data: bytearray) -> None:
        data[1500] ^= 8

    return changed(directory, spoil)


def line_feeds_converted(directory: Path) -> Given:
    return changed(directory, lambda data: bytes(data).replace(b"\n", b"\r\n"))


def a_copy_behind_itself(directory: Path) -> Given:
    return changed(directory, lambda data: data + data)


def noise_in_its_place(directory: Path) -> Given:
    return changed(directory, lambda data: noise(len(data)))


def zeros_in_its_place_and_a_sibling(directory: Path) -> Given:
    given = changed(directory, lambda data: bytes(len(data)), MODEL)
    bundle_of(make_model(1)).write(directory / "older")
    return given


def cut_with_a_sibling(directory: Path) -> Given:
    given = changed(directory, lambda data: data[:400], MODEL)
    bundle_of(make_model(1)).write(directory / "older")
    return given


def under_a_name_of_a_file_rescuer(directory: Path) -> Given:
    given = changed(directory, lambda data: data, MODEL)
    (directory / "model.index").rename(directory / "f0001.ext")
    (directory / "model.data-00000-of-00001").rename(directory / "f0002.ext")
    assert given.path
    return Given(directory)


def of_a_save_that_did_not_finish(directory: Path) -> Given:
    given = changed(directory, lambda data: data, MODEL)
    folder = directory / "model_temp"
    folder.mkdir()
    part = "part-00000-of-00001"
    (directory / "model.index").rename(folder / f"{part}.index")
    data = directory / "model.data-00000-of-00001"
    data.rename(folder / f"{part}.data-00000-of-00001")
    return given


WHOLE = 1.0
SITUATIONS = [
    Situation("the footer is lost", footer_lost, WHOLE, WHOLE, model=MANY),
    Situation("the index block is damaged", index_block_damaged, WHOLE, WHOLE, model=MANY),
    Situation("cut at a page", cut_at_a_page, 0.64, 0.49, model=MANY),
    Situation("cut at a page, in its only block", cut_in_the_only_block, 0.65, 0.0, model=MANY),
    Situation("a sector of zeros", a_sector_of_zeros, 0.91, 0.66, model=MANY),
    Situation(
        "a sector of zeros in its only block",
        a_sector_of_zeros_in_the_only_block,
        0.8,
        0.0,
        model=MANY,
    ),
    Situation("a key that reads too high", a_key_that_reads_too_high, 0.9, 0.0, model=MANY),
    Situation("a key that reads too low", a_key_that_reads_too_low, 0.9, 0.0, model=MANY),
    Situation("one bit of the index", one_bit, WHOLE, WHOLE, model=MANY),
    Situation("line feeds converted", line_feeds_converted, WHOLE, WHOLE, model=MANY),
    Situation("a copy behind itself", a_copy_behind_itself, WHOLE, WHOLE, model=MANY),
    Situation("noise in its place", noise_in_its_place, 0.0, 0.0, model=MANY),
    Situation("zeros in its place, a sibling", zeros_in_its_place_and_a_sibling, WHOLE, 0.0),
    Situation("cut, a sibling", cut_with_a_sibling, WHOLE, 0.0),
    Situation("under a name of a file rescuer", under_a_name_of_a_file_rescuer, WHOLE, WHOLE),
    Situation("of a save that did not finish", of_a_save_that_did_not_finish, WHOLE, WHOLE),
]


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.name)
def test_what_must_come_back_does(situation: Situation, tmp_path: Path) -> None:
    check(situation, tmp_path)
