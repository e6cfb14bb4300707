"""Checkpoints whose values are known, damaged, and recovered with what else there is.

What is promised is right: every tensor that is proved has the values of the original (or of the
other checkpoint that was put in its place), and so has every part that is not masked.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import builder as b
import graph_builder
import numpy as np

import ckptparse
from fuzz import damaging
from fuzz.damaging import DAMAGES, KINDS, MODELS, Files, Model, damage, model_of, older, unmerged
from fuzz.oracle import LIMITS, BrokenPromiseError, attempt, check_printable
from fuzz.targets.archives import tarred, zipped
from fuzz.targets.target import Target

__all__ = ["TARGETS"]

_BLOCK = 4096
_SURE = 1e-5
"""A greater chance to be wrong is told, and no promise."""
_HEAD = 4
"""Bytes before the steps of the damage: the checkpoint, what else there is, a number, options."""

Given = tuple[Files, dict[str, Any], str]
"""Files besides, options of `recover`, and the path it gets."""


def _numbers(model: Model) -> dict[str, Any]:
    arrays = {name: np.asarray(array) for name, array in model.arrays.items()}
    return {name: array for name, array in arrays.items() if array.dtype.kind in "fib"}


def _data_of(model: Model) -> bytes:
    return b"".join(data for name, data in sorted(model.files.items()) if ".index" not in name)


def nothing(model: Model, _: int) -> Given:
    """Give nothing."""
    return {}, {}, model.path


def a_sibling(model: Model, number: int) -> Given:
    """Give what was saved before."""
    return dict(older(number).files), {}, model.path


def a_copy(model: Model, number: int) -> Given:
    """Give a copy, which is damaged elsewhere."""
    copy = {name.replace("d/", "e/"): data for name, data in model.files.items()}
    steps = random.Random(number).randbytes(5)
    steps = bytes([number % 18]) + steps[1:]
    return damage(copy, {}, steps), {"evidence": ["e"]}, model.path


def a_copied_index(model: Model, number: int) -> Given:
    """Give a sibling whose index is the same."""
    index = {"d/ckpt-1.index": model.files.get(f"{model.path}.index", b"")}
    data = {name: one for name, one in older(number).files.items() if ".index" not in name}
    return {**data, **index}, {}, model.path


def renamed(model: Model, _: int) -> Given:
    """Give the same weights under other names."""
    arrays = {f"renamed/{n}": array for n, array in enumerate(_numbers(model).values())}
    return dict(damaging.of_bundle(arrays, "e/export").files), {"evidence": ["e"]}, model.path


def hdf5(model: Model, number: int) -> Given:
    """Give an HDF5 file, packed or not."""
    stream = io.BytesIO()
    if find_spec("h5py") is not None:
        import h5py

        options: dict[str, Any] = {"chunks": True, "compression": "gzip"} if number % 2 else {}
        with h5py.File(stream, "w") as file:
            for name, array in _numbers(model).items():
                few = options if array.shape and array.size else {}
                file.create_dataset(f"weights/{name.replace('/', '.')}", data=array, **few)
    return {"e/model.h5": stream.getvalue()}, {"evidence": ["e/model.h5"]}, model.path


def arrays(model: Model, number: int) -> Given:
    """Give arrays as files of numpy, or in an archive of them."""
    files: Files = {}
    for place, array in enumerate(_numbers(model).values()):
        stream = io.BytesIO()
        np.save(stream, array)
        files[f"e/{place}.npy"] = stream.getvalue()
    if number % 2:
        method = zipfile.ZIP_DEFLATED if number % 4 == 1 else zipfile.ZIP_STORED
        files = {"e/all.npz": zipped(list(files.items()), method)}
    return files, {"evidence": ["e"]}, model.path


def safetensors(model: Model, _: int) -> Given:
    """Give a file of safetensors."""
    body, header = b"", {}
    for name, array in _numbers(model).items():
        raw = array.tobytes()
        offsets = [len(body), len(body) + len(raw)]
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": offsets}
        body += raw
    text = json.dumps(header).encode()
    data = struct.pack("<Q", len(text)) + text + body
    return {"e/a.safetensors": data}, {"evidence": ["e/a.safetensors"]}, model.path


def tflite(model: Model, _: int) -> Given:
    """Give a FlatBuffer."""
    out = bytearray(b"\x1c\0\0\0TFL3")
    for array in _numbers(model).values():
        raw = array.tobytes()
        out += bytes(-(len(out) + 4) % 16) + struct.pack("<I", len(raw)) + raw
    return {"e/a.tflite": bytes(out)}, {"evidence": ["e/a.tflite"]}, model.path


def frozen_graph(model: Model, number: int) -> Given:
    """Give a graph that holds the weights, alone or in a log of events."""
    nodes = [
        graph_builder.constant(name, b.field(4, array.tobytes()), dims=array.shape)
        for name, array in _numbers(model).items()
        if array.dtype == np.float32
    ]
    data = graph_builder.graph(nodes)
    if number % 2:
        data = _record(b.field64(1, 0) + b.field(3, b"brain.Event:2")) + _record(b.field(4, data))
        return {"e/events.out.tfevents.1.host": data}, {"evidence": ["e"]}, model.path
    return {"e/frozen.pb": data}, {"evidence": ["e/frozen.pb"]}, model.path


def _record(data: bytes) -> bytes:
    head = struct.pack("<Q", len(data))
    checks = [b.fixed32(b.masked_crc(part)) for part in (head, data)]
    return head + checks[0] + data + checks[1]


def archives(model: Model, number: int) -> Given:
    """Give the files in an archive."""
    members = [(name.replace("d/", "run/"), data) for name, data in model.files.items()]
    raw = _data_of(model)
    made: tuple[tuple[str, Callable[[], bytes]], ...] = (
        ("a.tar", lambda: tarred(members)),
        ("a.tar.gz", lambda: tarred(members, "w:gz")),
        ("a.zip", lambda: zipped(members, zipfile.ZIP_DEFLATED)),
        ("data.gz", lambda: gzip.compress(raw, 1)),
        ("b.zip", lambda: zipped([("readme", b"x"), ("part.bin", raw)])),
        ("b.tar.gz", lambda: gzip.compress(_tar_of(raw), 1)),
    )
    name, make = made[number % len(made)]
    return {f"e/{name}": make()}, {"evidence": [f"e/{name}"]}, model.path


def _tar_of(raw: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("part.bin")
        info.size = len(raw)
        archive.addfile(info, io.BytesIO(raw))
    return stream.getvalue()


def image_of(model: Model, number: int) -> bytes:
    """Make an image of a disk, in which the data file lies in stretches."""
    rng = random.Random(number)
    raw = _data_of(model)
    count = -(-len(raw) // _BLOCK)
    cuts = (
        sorted(rng.sample(range(1, count), min(count - 1, rng.randint(1, 5)))) if count > 1 else []
    )
    pieces = [raw[low * _BLOCK : high * _BLOCK] for low, high in pairwise([0, *cuts, count])]
    order = list(range(len(pieces)))
    if number % 3 == 0:
        rng.shuffle(order)
    image = bytearray(rng.randbytes(3 * _BLOCK))
    for name, data in model.files.items():
        if name.endswith(".index"):
            image += data.ljust(-(-len(data) // _BLOCK) * _BLOCK, b"\0")
    for place in order:
        image += pieces[place].ljust(-(-len(pieces[place]) // _BLOCK) * _BLOCK, b"\0")
        gap = rng.randint(1, 3) * _BLOCK
        image += rng.randbytes(gap) if rng.randrange(2) else bytes(gap)
    return bytes(image)


def image(model: Model, number: int) -> Given:
    """Give an image of the disk."""
    return {"e/disk.img": image_of(model, number)}, {"evidence": ["e/disk.img"]}, model.path


def image_with_map(model: Model, number: int) -> Given:
    """Give an image, and a map of what could not be read."""
    data = bytearray(image_of(model, number))
    place = random.Random(number).randrange(len(data) // 512) * 512
    data[place : place + 512] = bytes(512)
    lines = ["# Mapfile. Created by GNU ddrescue", "0x0 + 1", f"0x0 {place:#x} +"]
    lines += [f"{place:#x} 0x200 -", f"{place + 512:#x} {len(data) - place - 512:#x} +"]
    files = {"e/disk.img": bytes(data), "e/disk.map": "\n".join(lines).encode() + b"\n"}
    return files, {"evidence": ["e/disk.img"], "mapfile": "e/disk.map"}, model.path


def image_alone(model: Model, number: int) -> Given:
    """Give an image, and nothing else."""
    return {"e/disk.img": image_of(model, number)}, {}, "e/disk.img"


def unfinished(model: Model, number: int) -> Given:
    """Give the parts of a save that did not finish, beside what there is."""
    return unmerged(model, number), {}, model.path


def shapes(model: Model, number: int) -> Given:
    """Give the shapes, as a file or as they are."""
    told: dict[str, Any] = {
        name: {"dtype": str(np.asarray(array).dtype), "shape": list(np.shape(array))}
        for name, array in model.arrays.items()
    }
    if number % 4 == 1:
        told = {name: list(np.shape(array)) for name, array in model.arrays.items()}
    if number % 4 == 2:
        return {}, {"shapes": dict(model.arrays)}, model.path
    return {"e/shapes.json": json.dumps(told).encode()}, {"shapes": "e/shapes.json"}, model.path


def shapes_of_files(model: Model, number: int) -> Given:
    """Give the shapes by a file of another kind."""
    files = (hdf5, safetensors, arrays)[number % 3](model, 3 if number % 3 == 2 else 0)[0]
    name = next(iter(files))
    return files, {"shapes": name}, model.path


def nothing_named(_: Model, __: int) -> Given:
    """Give the directory only."""
    return {}, {}, "d"


BESIDES: tuple[Callable[[Model, int], Given], ...] = (
    nothing,
    a_sibling,
    a_copy,
    a_copied_index,
    renamed,
    hdf5,
    arrays,
    safetensors,
    tflite,
    frozen_graph,
    archives,
    image,
    image_with_map,
    image_alone,
    unfinished,
    shapes,
    shapes_of_files,
    nothing_named,
)
_NO_INDEX, _POOL, _HASHES, _WRITE, _ALONE = 1, 2, 4, 8, 16


def run_damage(data: bytes) -> None:
    """Damage a checkpoint, recover it, and hold what is promised to the original."""
    if len(data) < _HEAD:
        return
    which, besides, number, flags = data[:_HEAD]
    model = model_of(which % MODELS)
    other, options, path = BESIDES[besides % len(BESIDES)](
        model, which if besides % len(BESIDES) in (1, 3) else number
    )
    replaced = older(which % MODELS, model.path)
    files = damage(model.files, replaced.files, data[_HEAD : _HEAD + 20])
    if flags & _NO_INDEX:
        files.pop(f"{model.path}.index", None)
    if flags & _ALONE:
        options["siblings"] = False
    pool = ThreadPoolExecutor(2) if flags & _POOL else nullcontext()
    with pool as executor:
        found = attempt(
            ckptparse.recover,
            path,
            store={**files, **other},
            executor=executor,
            hashes=bool(flags & _HASHES),
            limits=LIMITS,
            **options,
        )
    if not isinstance(found, ckptparse.Recovery):
        return
    check_printable(str(found.report))
    contested = {"global_step": np.array(damaging.CONTESTED)}
    check_promises(found, [model.arrays, older(which % MODELS).arrays, contested])
    if flags & _WRITE:
        write_it(found, number)


def check_promises(found: ckptparse.Recovery, known: list[Any]) -> None:
    """Refuse a tensor that is promised, and is of no checkpoint that there was."""
    for name, tensor in found.items():
        promised = tensor.status.proved or tensor.status == "partial"
        value = attempt(tensor.read)
        attempt(tensor.read, fill=0, keep_suspect=True)
        if not promised or (tensor.chance or 0) > _SURE:
            continue
        if isinstance(value, ckptparse.CheckpointError):
            raise BrokenPromiseError(f"{name!r} is {tensor.status}, and: {value!r}")
        wanted = [np.asarray(arrays[name]) for arrays in known if name in arrays]
        if wanted and not any(is_right(value, one) for one in wanted):
            raise BrokenPromiseError(f"{name!r} is {tensor.status} ({tensor.method}), and wrong")


def is_right(value: Any, wanted: Any) -> bool:
    """Tell whether every element that is not masked is the right one, bit for bit."""
    if value.shape != wanted.shape or value.dtype != wanted.dtype.newbyteorder("="):
        return False
    shown = ~np.ma.getmaskarray(value)
    held = np.ma.getdata(value)
    if wanted.dtype == object:
        return bool((held == wanted)[shown].all())
    rows = (*wanted.shape, wanted.itemsize)
    mine, its = (
        np.frombuffer(np.ascontiguousarray(one).tobytes(), np.uint8).reshape(rows)
        for one in (held, wanted)
    )
    return bool((mine == its).all(axis=-1)[shown].all())


def write_it(found: ckptparse.Recovery, number: int) -> None:
    """Write what was got back in one of the ways."""
    ways: tuple[dict[str, Any], ...] = (
        {"offer": "plausible"},
        {"fill": 0},
        {"fill": "nan", "keep_suspect": True},
        {"format": "npy"},
        {},
    )
    endings = ("", ".npz", ".safetensors", "", ".ckpt")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, f"x{endings[number % 5]}")
        written = attempt(found.write, out, **ways[number % 5])
        if isinstance(written, ckptparse.CheckpointError) and list(Path(folder).iterdir()):
            raise BrokenPromiseError(f"{written!r}, and something was written")


def damage_seeds() -> Iterator[bytes]:
    """Give every damage to every file, and everything that may be besides, in turns."""
    rng = random.Random(0)
    for kind in range(KINDS):
        for which in range(MODELS):
            if (kind + which) % 3:
                steps = bytes([kind, rng.randrange(4), *rng.randbytes(3)])
                yield bytes([which, 0, rng.randrange(256), 0]) + steps
    for besides in range(len(BESIDES)):
        for kind in (len(DAMAGES), 6, 32, 5, 3):
            for flags in (0, _NO_INDEX | _WRITE):
                which, number = rng.randrange(MODELS), rng.randrange(256)
                steps = bytes([kind, rng.randrange(3), *rng.randbytes(3)])
                yield bytes([which, besides, number, flags | rng.choice([0, 2, 4, 8])]) + steps
    for which in range(MODELS):
        yield from (bytes([which, besides, which, _NO_INDEX]) for besides in (0, 1, 15))


def mutate_damage(data: bytes, rng: random.Random) -> bytes:
    """Let something else happen, or to another checkpoint, or with something else besides."""
    if len(data) < _HEAD:
        return bytes(_HEAD)
    out = bytearray(data[: _HEAD + 20])
    kind = rng.randrange(4)
    if kind == 0:
        out[rng.randrange(_HEAD)] = rng.randrange(256)
    elif kind == 1 and len(out) >= _HEAD + 10:
        del out[_HEAD : _HEAD + 5]
    elif kind == 2 and len(out) > _HEAD:
        out[rng.randrange(_HEAD, len(out))] = rng.randrange(256)
    else:
        out += bytes([rng.randrange(KINDS), rng.randrange(4), *rng.randbytes(3)])
    return bytes(out)


TARGETS = [Target("damage", run_damage, damage_seeds, mutate_damage)]
