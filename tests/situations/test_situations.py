"""Situations that people are in, each with what must come back.

Of bytes offered unmasked as verified, corrected, derived or partial, none differs from the
original. Of those offered as unverified, the share that differs is stated for each situation.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from packages import h5py, safetensors
from situations.harness import (
    MODEL,
    Given,
    Situation,
    check,
    lose_index,
    noise,
    shapes_of,
    zero_sectors,
)
from situations.models import make_model, write

# ---------------------------------------------------------------------------------- situations


def index_lost_sibling_left(directory: Path) -> Given:
    write(MODEL, directory / "ckpt-2")
    write(make_model(1), directory / "ckpt-1")
    lose_index(directory / "ckpt-2")
    return Given(directory / "ckpt-2")


def index_lost_shapes_known(directory: Path) -> Given:
    write(MODEL, directory / "model")
    lose_index(directory / "model")
    shapes = {name: array.shape for name, array in MODEL.arrays.items()}
    return Given(directory / "model", {"shapes": shapes})


def index_lost_shapes_in_a_file(directory: Path) -> Given:
    write(MODEL, directory / "model")
    lose_index(directory / "model")
    path = directory / "shapes.json"
    path.write_text(json.dumps(shapes_of(MODEL)))
    return Given(directory / "model", {"shapes": path})


def data_lost(directory: Path, name: str, data: bytes) -> Given:
    write(MODEL, directory / "run" / "model").unlink()
    (directory / name).write_bytes(data)
    return Given(directory / "run" / "model", {"evidence": [directory / name]})


def data_lost_npz_left(directory: Path) -> Given:
    stream = io.BytesIO()
    np.savez(stream, **{name.replace("/", "."): array for name, array in MODEL.arrays.items()})
    return data_lost(directory, "weights.npz", stream.getvalue())


def data_lost_keras_left(directory: Path) -> Given:
    inside, outside = io.BytesIO(), io.BytesIO()
    with h5py.File(inside, "w") as file:
        for number, (name, array) in enumerate(MODEL.arrays.items()):
            if "Adam" not in name:
                file[f"layers/{number}/vars/0"] = array
    with zipfile.ZipFile(outside, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", inside.getvalue())
    return data_lost(directory, "model.keras", outside.getvalue())


def data_lost_safetensors_left(directory: Path) -> Given:
    arrays = {name: np.ascontiguousarray(array) for name, array in MODEL.arrays.items()}
    return data_lost(directory, "model.safetensors", safetensors.numpy.save(arrays))


def data_lost_raw_bytes_left(directory: Path) -> Given:
    """A file of no known kind, in which each tensor lies at some multiple of four."""
    parts = [b"no known kind"]
    for name in ("layer_0/kernel", "layer_1/kernel", "layer_2/kernel"):
        parts += [
            bytes(-len(b"".join(parts)) % 4),
            noise(4 * len(name)),
            MODEL.arrays[name].tobytes(),
        ]
    return data_lost(directory, "heap.bin", b"".join(parts))


def two_damaged_copies(directory: Path) -> Given:
    zero_sectors(write(MODEL, directory / "a" / "model"), 20, seed=1)
    zero_sectors(write(MODEL, directory / "b" / "model"), 20, seed=2)
    return Given(directory / "a" / "model", {"evidence": [directory / "b"]})


def two_damaged_copies_one_without_an_index(directory: Path) -> Given:
    zero_sectors(write(MODEL, directory / "a" / "model"), 20, seed=1)
    zero_sectors(write(MODEL, directory / "b" / "model"), 20, seed=2, filler=255)
    lose_index(directory / "b" / "model")
    return Given(directory / "a" / "model", {"evidence": [directory / "b"]})


def three_copies_with_many_bad_sectors(directory: Path) -> Given:
    for number, name in enumerate("abc"):
        zero_sectors(write(MODEL, directory / name / "model"), 60, seed=number)
    return Given(directory / "a" / "model", {"evidence": [directory / "b", directory / "c"]})


def converted(directory: Path, convert: Callable[[bytes], bytes]) -> Given:
    data = write(MODEL, directory / "model")
    data.write_bytes(convert(data.read_bytes()))
    return Given(directory / "model")


def compressed(directory: Path) -> Given:
    return converted(directory, lambda data: gzip.compress(data, 1))


def base64_encoded(directory: Path) -> Given:
    return converted(directory, base64.encodebytes)


def latin1_to_utf8(directory: Path) -> Given:
    return converted(directory, lambda data: data.decode("latin-1").encode())


def cp1252_to_utf8(directory: Path) -> Given:
    """As Windows reads text: five bytes have no letter, and become control characters."""
    letters = [bytes([n]).decode("cp1252", "ignore") or chr(n) for n in range(256)]
    return converted(directory, lambda data: "".join(map(letters.__getitem__, data)).encode())


def widened_to_utf16(directory: Path) -> Given:
    return converted(directory, lambda data: data.decode("latin-1").encode("utf-16"))


def all_converted(directory: Path, convert: Callable[[bytes], bytes]) -> Given:
    """All files took the same way, so the index is converted, too."""
    given = converted(directory, convert)
    index = directory / "model.index"
    index.write_bytes(convert(index.read_bytes()))
    return given


def all_compressed(directory: Path) -> Given:
    return all_converted(directory, lambda data: gzip.compress(data, 1))


def all_mailed(directory: Path) -> Given:
    return all_converted(directory, lambda data: base64.encodebytes(data).replace(b"\n", b"\r\n"))


def all_latin1_to_utf8(directory: Path) -> Given:
    return all_converted(directory, lambda data: data.decode("latin-1").encode())


def all_widened_to_utf16(directory: Path) -> Given:
    return all_converted(directory, lambda data: data.decode("latin-1").encode("utf-16-be"))


def returns_lost(directory: Path) -> Given:
    return converted(directory, lambda data: data.replace(b"\r\n", b"\n"))


def returns_added(directory: Path) -> Given:
    return converted(directory, lambda data: data.replace(b"\n", b"\r\n"))


def stripes_in_the_wrong_order(directory: Path) -> Given:
    def mix(data: bytes) -> bytes:
        out = bytearray(data)
        size, row = 65536, 4 * 65536
        for start in range(0, len(data) // row * row, row):
            for number, there in enumerate([2, 0, 3, 1]):
                piece = data[start + number * size : start + (number + 1) * size]
                out[start + there * size : start + (there + 1) * size] = piece
        return bytes(out)

    return converted(directory, mix)


def in_an_image(directory: Path, cuts: list[int], block: int) -> Given:
    """Put the data file into an image, in stretches that end at some blocks."""
    data = write(MODEL, directory / "run" / "model")
    raw = data.read_bytes()
    data.unlink()
    image = bytearray(noise(37 * block))
    edges = [0, *(cut * block for cut in cuts), len(raw)]
    for number, (start, stop) in enumerate(pairwise(edges)):
        image += raw[start:stop]
        image += noise(-len(image) % block + 5 * block, seed=number)
    (directory / "disk.img").write_bytes(image)
    return Given(directory / "run" / "model", {"evidence": [directory / "disk.img"]})


def image_in_one_stretch(directory: Path) -> Given:
    return in_an_image(directory, [], 4096)


def image_in_three_stretches(directory: Path) -> Given:
    return in_an_image(directory, [97, 250], 4096)


def image_of_two_kibibytes(directory: Path) -> Given:
    return in_an_image(directory, [333], 2048)


def image_of_sectors(directory: Path) -> Given:
    return in_an_image(directory, [1777], 512)


def image_of_small_blocks(directory: Path) -> Given:
    return in_an_image(directory, [1001], 1024)


SITUATIONS = [
    Situation("the index is lost, a sibling is left", index_lost_sibling_left, 1.0, 0.0),
    Situation("the index is lost, the shapes are known", index_lost_shapes_known, 1.0, 0.0),
    Situation("the index is lost, the shapes are in a file", index_lost_shapes_in_a_file, 1.0, 0.0),
    Situation("the data is lost, an npz is left", data_lost_npz_left, 1.0, 1.0),
    Situation("the data is lost, a .keras file is left", data_lost_keras_left, 0.33, 0.33),
    Situation("the data is lost, a safetensors is left", data_lost_safetensors_left, 1.0, 1.0),
    Situation("the data is lost, raw bytes are left", data_lost_raw_bytes_left, 0.027, 0.027),
    Situation("two damaged copies", two_damaged_copies, 1.0, 1.0),
    Situation(
        "two damaged copies, one without index", two_damaged_copies_one_without_an_index, 1.0, 1.0
    ),
    Situation(
        "three copies with 60 bad sectors each", three_copies_with_many_bad_sectors, 1.0, 1.0
    ),
    Situation("the data is compressed", compressed, 1.0, 1.0),
    Situation("the data is base64", base64_encoded, 1.0, 1.0),
    Situation("latin-1 to UTF-8", latin1_to_utf8, 1.0, 1.0),
    Situation("cp1252 to UTF-8", cp1252_to_utf8, 1.0, 1.0),
    Situation("every byte became two", widened_to_utf16, 1.0, 1.0),
    Situation("index and data are compressed", all_compressed, 1.0, 1.0),
    Situation("index and data are base64", all_mailed, 1.0, 1.0),
    Situation("index and data, latin-1 to UTF-8", all_latin1_to_utf8, 1.0, 1.0),
    Situation("index and data, every byte became two", all_widened_to_utf16, 1.0, 1.0),
    Situation("carriage returns were lost", returns_lost, 1.0, 1.0),
    Situation("carriage returns were added", returns_added, 1.0, 1.0),
    Situation("stripes in the wrong order", stripes_in_the_wrong_order, 1.0, 1.0),
    Situation("an image, in one stretch", image_in_one_stretch, 1.0, 1.0),
    Situation("an image, in three stretches", image_in_three_stretches, 1.0, 1.0),
    Situation("an image of blocks of 2 KiB", image_of_two_kibibytes, 1.0, 1.0),
    Situation("an image of blocks of 512 bytes", image_of_sectors, 1.0, 1.0),
    Situation("an image of blocks of 1 KiB", image_of_small_blocks, 1.0, 1.0),
]


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.name)
def test_what_must_come_back_does(situation: Situation, tmp_path: Path) -> None:
    check(situation, tmp_path)
