"""The checkpoint is gone or damaged, and something else holds what was in it."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import builder
import graph_builder
import numpy as np
import pytest
import v1_builder
from packages import h5py
from situations.harness import MODEL, Given, Situation, check, noise
from situations.models import Model, make_model, write

WEIGHTS = {name: array for name, array in MODEL.arrays.items() if "Adam" not in name}
BLOCK = 4096


def data_lost(directory: Path, name: str, data: bytes) -> Given:
    write(MODEL, directory / "run" / "model").unlink()
    (directory / name).write_bytes(data)
    return Given(directory / "run" / "model", {"evidence": [directory / name]})


# ------------------------------------------------------------------------------ other formats


def as_hdf5(*, packed: bool) -> bytes:
    stream = io.BytesIO()
    options = {"chunks": True, "compression": "gzip"} if packed else {}
    with h5py.File(stream, "w") as file:
        for name, array in WEIGHTS.items():
            file.create_dataset(
                f"model_weights/{name}", data=array, **(options if array.shape else {})
            )
    return stream.getvalue()


def hdf5_left(directory: Path) -> Given:
    return data_lost(directory, "model.h5", as_hdf5(packed=False))


def packed_hdf5_left(directory: Path) -> Given:
    return data_lost(directory, "model.h5", as_hdf5(packed=True))


def as_frozen_graph() -> bytes:
    nodes = [
        graph_builder.node(
            name,
            "Const",
            value=graph_builder.of_tensor(builder.field(4, array.tobytes()), dims=array.shape),
        )
        for name, array in WEIGHTS.items()
    ]
    return graph_builder.graph(nodes)


def frozen_graph_left(directory: Path) -> Given:
    return data_lost(directory, "frozen.pb", as_frozen_graph())


def tflite_left(directory: Path) -> Given:
    out = bytearray(b"\x1c\0\0\0TFL3")
    for array in WEIGHTS.values():
        raw = array.tobytes()
        out += bytes(-(len(out) + 4) % 16) + struct.pack("<I", len(raw)) + raw
    return data_lost(directory, "model.tflite", bytes(out))


def as_npy_files(directory: Path) -> Given:
    given = data_lost(directory, "readme.txt", b"the arrays")
    folder = directory / "arrays"
    folder.mkdir()
    for number, array in enumerate(MODEL.arrays.values()):
        np.save(folder / f"{number}.npy", array)
    return Given(given.path, {"evidence": [folder]})


def as_tar(member: str) -> bytes:
    raw = b"".join(np.asarray(array).tobytes() for array in MODEL.arrays.values())
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo(member)
        info.size = len(raw)
        archive.addfile(info, io.BytesIO(raw))
    return stream.getvalue()


def tar_with_the_data_left(directory: Path) -> Given:
    return data_lost(directory, "backup.tar", as_tar("run/model.data-00000-of-00001"))


def packed_tar_with_the_data_left(directory: Path) -> Given:
    packed = gzip.compress(as_tar("run/model.data-00000-of-00001"), 1)
    return data_lost(directory, "backup.tar.gz", packed)


def packed_data_left(directory: Path) -> Given:
    raw = b"".join(np.asarray(array).tobytes() for array in MODEL.arrays.values())
    return data_lost(directory, "model.data.gz", gzip.compress(raw, 1))


def zip_with_the_data_left(directory: Path) -> Given:
    raw = b"".join(np.asarray(array).tobytes() for array in MODEL.arrays.values())
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("readme.txt", b"the run of last week")
        archive.writestr("run/part.bin", raw)
    return data_lost(directory, "backup.zip", stream.getvalue())


def zip_of_arrays_left(directory: Path) -> Given:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, array in enumerate(MODEL.arrays.values()):
            archive.writestr(f"arrays/{number}", np.asarray(array).tobytes())
    return data_lost(directory, "backup.zip", stream.getvalue())


def packed_tar_of_hdf5_left(directory: Path) -> Given:
    raw = as_hdf5(packed=False)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("model.h5")
        info.size = len(raw)
        archive.addfile(info, io.BytesIO(raw))
    return data_lost(directory, "backup.tar.gz", gzip.compress(stream.getvalue(), 1))


def another_checkpoint_left(directory: Path) -> Given:
    """Another program's checkpoint of the same weights, under other names."""
    other = Model({f"renamed/{n}": array for n, array in enumerate(WEIGHTS.values())})
    write(other, directory / "export" / "weights")
    given = data_lost(directory, "readme.txt", b"")
    return Given(given.path, {"evidence": [directory / "export"]})


# ------------------------------------------------------------------------------------- images


def stretches(directory: Path, cuts: list[int], *, seed: int = 3, index: bool = True) -> Path:
    """Write an image in which the data file lies in stretches, in a mixed order."""
    data = write(MODEL, directory / "run" / "model")
    raw = data.read_bytes()
    data.unlink()
    pieces = [raw[a * BLOCK : b * BLOCK] for a, b in pairwise([0, *cuts, -(-len(raw) // BLOCK)])]
    order = np.random.default_rng(seed).permutation(len(pieces)).tolist()
    image = bytearray(noise(17 * BLOCK))
    if not index:
        described = (directory / "run" / "model.index").read_bytes()
        image += described + bytes(-len(described) % BLOCK)
    for number in order:
        image += pieces[number]
        image += noise(-len(image) % BLOCK + (3 + number) * BLOCK, seed=number)
    path = directory / "disk.img"
    path.write_bytes(image)
    return path


def image_in_nine_stretches(directory: Path) -> Given:
    image = stretches(directory, [40, 90, 130, 180, 230, 270, 320, 370])
    return Given(directory / "run" / "model", {"evidence": [image]})


def image_with_stretches_of_small_tensors_only(directory: Path) -> Given:
    """Some stretches hold no large tensor as a whole: small ones tell where they lie."""
    at = {
        name: sum(np.asarray(a).nbytes for a in list(MODEL.arrays.values())[:n])
        for n, name in enumerate(MODEL.arrays)
    }
    cuts = []
    for layer in range(3):
        kernel = at[f"layer_{layer}/kernel"] // BLOCK
        second = at[f"layer_{layer}/kernel/Adam_1"] // BLOCK
        cuts += [kernel + 2, second + 2]
    image = stretches(directory, cuts)
    return Given(directory / "run" / "model", {"evidence": [image]})


def image_alone(directory: Path) -> Given:
    return Given(stretches(directory, [100, 200], index=False))


def image_with_a_stretch_lost(directory: Path) -> Given:
    image = stretches(directory, [150, 300])
    raw = bytearray(image.read_bytes())
    raw[-200 * BLOCK : -100 * BLOCK] = noise(100 * BLOCK, seed=44)
    image.write_bytes(raw)
    return Given(directory / "run" / "model", {"evidence": [image]})


def image_with_a_mapfile(directory: Path) -> Given:
    """What ddrescue could not read holds what was there before: it looks like weights."""
    write(MODEL, directory / "run" / "model")
    data = directory / "run" / "model.data-00000-of-00001"
    raw = data.read_bytes()
    older = write(make_model(9), directory / "older" / "model").read_bytes()
    data.unlink()
    image = bytearray(noise(9 * BLOCK) + raw)
    parts = []
    for start in (60 * BLOCK, 200 * BLOCK, 201 * BLOCK + 512):
        image[start : start + 512] = older[start : start + 512]
        parts.append((start, 512))
    (directory / "disk.img").write_bytes(image)
    lines, done = ["# Mapfile. Created by GNU ddrescue", "0x0 + 1"], 0
    for start, size in parts:
        lines += [f"{done:#x} {start - done:#x} +", f"{start:#x} {size:#x} -"]
        done = start + size
    lines.append(f"{done:#x} {len(image) - done:#x} +")
    (directory / "disk.map").write_text("\n".join(lines) + "\n")
    options = {"evidence": [directory / "disk.img"], "mapfile": directory / "disk.map"}
    return Given(directory / "run" / "model", options)


def what_a_rescuer_brought_up(directory: Path) -> Given:
    """No names, no directory: fragments under numbers."""
    data = write(MODEL, directory / "made" / "model")
    raw = data.read_bytes()
    found = directory / "recup_dir.1"
    found.mkdir()
    (found / "f0000.txt").write_bytes(b"a letter")
    (found / "f0100.idx").write_bytes((directory / "made" / "model.index").read_bytes())
    (found / "f0200.bin").write_bytes(raw[150 * BLOCK :])
    (found / "f0300.bin").write_bytes(raw[: 150 * BLOCK])
    return Given(found)


# ------------------------------------------------------------------------------- V1, and others


V1 = make_model(4, width=16, layers=3, rows=60)


def v1_file(directory: Path, *, packed: bool) -> Path:
    made = v1_builder.LegacyFile()
    for name, array in V1.arrays.items():
        made.add(name, np.asarray(array))
    path = directory / "model.ckpt"
    made.write(path, type=builder.SNAPPY if packed else builder.RAW, block_size=2048)
    return path


def v1_cut(directory: Path) -> Given:
    path = v1_file(directory, packed=False)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    return Given(path)


def v1_of_packed_blocks_cut(directory: Path) -> Given:
    path = v1_file(directory, packed=True)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    return Given(path)


def v1_one_bit(directory: Path) -> Given:
    path = v1_file(directory, packed=False)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 2
    path.write_bytes(data)
    return Given(path)


COUNTERS = Model(
    {
        f"counter_{n}": np.array(value)
        for n, value in enumerate(
            [0, 1, 70_000, 2**22 - 1, 2**22, 2**31, 2**33 + 5, 2**40 + 12_345]
        )
    }
    | {f"flags_{n}": np.arange(n) % 3 == 1 for n in (1, 5, 13, 22)}
    | {"rate": np.float32(3e-4), "ones": np.ones((30, 4), "<f4"), "zeros": np.zeros(999, "<f4")}
)


def small_values_lost(directory: Path) -> Given:
    write(COUNTERS, directory / "model").unlink()
    return Given(directory / "model")


def two_copies_cut_differently(directory: Path) -> Given:
    first = write(MODEL, directory / "a" / "model")
    second = write(MODEL, directory / "b" / "model")
    raw = bytearray(first.read_bytes())
    first.write_bytes(raw[: len(raw) * 2 // 3])
    raw[: len(raw) // 3] = bytes(len(raw) // 3)
    second.write_bytes(raw)
    return Given(directory / "a" / "model", {"evidence": [directory / "b"]})


def iter_situations() -> Iterator[Situation]:
    weights = sum(array.nbytes for array in WEIGHTS.values()) / MODEL.size - 0.001
    yield Situation("an HDF5 file is left", hdf5_left, weights, weights)
    yield Situation("a packed HDF5 file is left", packed_hdf5_left, weights, weights)
    yield Situation("a frozen graph is left", frozen_graph_left, weights, weights)
    yield Situation("a TFLite file is left", tflite_left, weights, weights)
    yield Situation("a directory of npy files is left", as_npy_files, 1.0, 1.0)
    yield Situation("a tar with the data file is left", tar_with_the_data_left, 1.0, 1.0)
    yield Situation("a packed tar with it is left", packed_tar_with_the_data_left, 1.0, 1.0)
    yield Situation("the data file is left, packed by gzip", packed_data_left, 1.0, 1.0)
    yield Situation("a zip with the data file is left", zip_with_the_data_left, 1.0, 1.0)
    yield Situation("a zip of arrays is left", zip_of_arrays_left, 1.0, 1.0)
    yield Situation("a packed tar of HDF5 is left", packed_tar_of_hdf5_left, weights, weights)
    yield Situation("another checkpoint is left", another_checkpoint_left, weights, weights)
    # The three largest tensors lie in three stretches or more each, and hold no small ones.
    yield Situation("an image, in nine stretches", image_in_nine_stretches, 1.0, 1.0)
    yield Situation(
        "an image, stretches of small tensors only",
        image_with_stretches_of_small_tensors_only,
        1.0,
        1.0,
    )
    yield Situation("an image alone", image_alone, 1.0, 1.0)
    yield Situation("an image, a stretch is lost", image_with_a_stretch_lost, 0.29, 0.115)
    yield Situation("an image, and a map file", image_with_a_mapfile, 0.999, 0.41)
    yield Situation("what a rescuer brought up", what_a_rescuer_brought_up, 1.0, 1.0)
    yield Situation("V1, cut", v1_cut, 0.64, 0.64, model=V1)
    yield Situation("V1 of packed blocks, cut", v1_of_packed_blocks_cut, 0.64, 0.64, model=V1)
    yield Situation("V1, one bit", v1_one_bit, 1.0, 1.0, model=V1)
    yield Situation("small values are lost", small_values_lost, 0.99, 0.99, 1.0, model=COUNTERS)
    yield Situation("two copies, cut differently", two_copies_cut_differently, 1.0, 1.0)


@pytest.mark.parametrize("situation", list(iter_situations()), ids=lambda situation: situation.name)
def test_what_must_come_back_does(situation: Situation, tmp_path: Path) -> None:
    check(situation, tmp_path)
