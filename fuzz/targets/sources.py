"""Files of other formats as the source of a job: safetensors, numpy's, HDF5, Keras's archives.

The first byte of an input says under which names its files lie, the second which job is done. What
is converted reads back the same.
"""

from __future__ import annotations

import io
import json
import random
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import builder as b
import numpy as np

import ckptparse
from fuzz import mutators
from fuzz.oracle import LIMITS, BrokenPromiseError, attempt, check_printable
from fuzz.packing import pack, unpack
from fuzz.targets.archives import lie, zipped
from fuzz.targets.target import Target

__all__ = ["TARGETS", "every_kind"]

Files = dict[str, bytes]

LAYOUTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("x.safetensors", ("x.safetensors",)),
    ("s", ("s/m.safetensors.index.json", "s/a.safetensors", "s/b.safetensors")),
    ("s/m.safetensors.index.json", ("s/m.safetensors.index.json", "s/a.safetensors", "s/c.x")),
    ("s", ("s/a.safetensors", "s/b.safetensors", "s/readme")),
    ("x.npz", ("x.npz",)),
    ("x.npy", ("x.npy",)),
    ("n", ("n/tensors.json", "n/a.npy", "n/b.npy")),
    ("n", ("n/report.json", "n/a.npy", "n/b.npy")),
    ("x.h5", ("x.h5",)),
    ("x.keras", ("x.keras",)),
)
"""What is opened, and under which names its files lie."""
_FORMATS: tuple[tuple[Literal["v2", "npz", "npy", "safetensors", "hdf5"], str], ...] = (
    ("v2", "o"),
    ("npz", "o.npz"),
    ("npy", "o"),
    ("safetensors", "o.safetensors"),
    ("hdf5", "o.h5"),
)
_OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"store_bits": True},
    {"max_shard_size": 64, "store_bits": True},
    {"dtype": "float16"},
    {"layout": "torch", "split": {"kernel": 2}},
    {"rename": [("a", "b/c")], "exclude": "half"},
    {"dry_run": True},
)
_SAME = 3
"""Of the ways above, in so many nothing is changed."""


def run_source(data: bytes) -> None:
    """Do a job with a file."""
    if len(data) < 2:
        return
    path, names = LAYOUTS[data[0] % len(LAYOUTS)]
    files = dict(zip(names, unpack(data[2:], len(names)), strict=True))
    JOBS[data[1] % len(JOBS)](path, {name: one for name, one in files.items() if one}, data[1])


def convert(path: str, files: Files, number: int) -> None:
    """Convert it: what was written is what was there."""
    format, out = _FORMATS[number // len(JOBS) % len(_FORMATS)]
    way = (number // len(JOBS) + len(files.get(path, b""))) % len(_OPTIONS)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, out)
        options: dict[str, Any] = {"format": format, "limits": LIMITS, **_OPTIONS[way]}
        done = attempt(ckptparse.convert, path, target, store=files, **options)
        if isinstance(done, ckptparse.CheckpointError) or options.get("dry_run"):
            if list(Path(folder).iterdir()):
                raise BrokenPromiseError(f"{done!r}, and something was written")
            return
        check_printable(str(done))
        if way < _SAME:
            check_copy(path, files, target)


def check_copy(path: str, files: Files, target: Path) -> None:
    """Hold what was written to what it was made of."""
    copies = {target.name: target} if target.is_file() else {}
    beside = target.parent.iterdir() if not target.is_dir() else target.iterdir()
    prefix = "" if not target.is_dir() else f"{target.name}/"
    copies |= {f"{prefix}{one.name}": one for one in beside}
    store = {**files, **{f"c/{name}": one.read_bytes() for name, one in copies.items()}}
    if not target.exists() and f"c/{target.name}.index.json" in store:
        target = target.with_name(f"{target.name}.index.json")
    found = attempt(ckptparse.diff, path, f"c/{target.name}", store=store, limits=LIMITS)
    if isinstance(found, ckptparse.UnsupportedError):
        # numpy has no array of some shapes without elements: they are copied, and not compared.
        alone = attempt(ckptparse.diff, path, path, store=store, limits=LIMITS)
        if isinstance(alone, ckptparse.UnsupportedError):
            return
    if not isinstance(found, ckptparse.Diff) or not found.same:
        raise BrokenPromiseError(f"converted {path}, and the copy: {found!r}")


def compare(path: str, files: Files, _: int) -> None:
    """Compare it to itself, which is the same; the mean of it and itself has the same names."""
    options: dict[str, Any] = {"store": files, "limits": LIMITS}
    found = attempt(ckptparse.diff, path, path, **options)
    if isinstance(found, ckptparse.Diff) and not found.same:
        raise BrokenPromiseError(f"a file differs from itself: {found}")
    mean = attempt(ckptparse.average, [path, path], **options)
    if isinstance(found, ckptparse.CheckpointError) and isinstance(mean, dict):
        raise BrokenPromiseError(f"average gives {list(mean)}, and diff {found!r}")
    summed = attempt(ckptparse.stats, path, histogram=True, **options)
    if isinstance(summed, dict) and isinstance(found, ckptparse.Diff):
        check_printable(str(found))


def give_as_evidence(path: str, files: Files, number: int) -> None:
    """Recover a checkpoint with it; what is proved is what was there."""
    arrays = plain()
    made = b.Bundle()
    for name, array in arrays.items():
        made.add(name, array)
    store = {**files, **made.files("d/m")}
    shard = store["d/m.data-00000-of-00001"]
    store["d/m.data-00000-of-00001"] = shard[: len(shard) // 2]
    options: dict[str, Any] = {"store": store, "limits": LIMITS}
    options |= {"shapes": path} if number % 2 else {"evidence": [path.partition("/")[0]]}
    if number % 2:
        del store["d/m.index"]
    found = attempt(ckptparse.recover, "d/m", **options)
    if not isinstance(found, ckptparse.Recovery):
        return
    check_printable(str(found.report))
    for name, tensor in found.items():
        value = attempt(tensor.read)
        if tensor.status.proved and name in arrays and not (tensor.chance or 0) > _SURE:
            wanted = arrays[name]
            if not isinstance(value, np.ndarray) or value.tobytes() != wanted.tobytes():
                raise BrokenPromiseError(f"{name!r} is {tensor.status}, and is {value!r}")


_SURE = 1e-5
"""A greater chance to be wrong is told, and no promise."""


def identify(path: str, files: Files, _: int) -> None:
    """Ask what each file is, and read it as if it were a checkpoint."""
    for name in (path, *files):
        found = attempt(ckptparse.identify, name, store=files, limits=LIMITS)
        if isinstance(found, ckptparse.Identity):
            check_printable(f"{found} {found.described}")
    attempt(ckptparse.read, path, store=files, limits=LIMITS)
    attempt(ckptparse.verify, path, store=files, limits=LIMITS)


JOBS: tuple[Callable[[str, Files, int], None], ...] = (
    convert,
    compare,
    convert,
    give_as_evidence,
    convert,
    identify,
)


# ---- what is converted


def plain() -> dict[str, Any]:
    """Return arrays that every format holds."""
    rng = np.random.default_rng(0)
    return {
        "a": rng.normal(size=(40, 8)).astype(np.float32),
        "b/kernel": rng.normal(size=(20, 4)).astype(np.float32),
        "b/bias": np.arange(4, dtype=np.int64),
        "half": rng.normal(size=30).astype(np.float16),
    }


def every_kind() -> b.Bundle:
    """Make a bundle of every kind of element, of odd names, strings and shapes."""
    made = b.Bundle()
    for number, kind in _KINDS.items():
        made.add(f"k/{number}", np.array([[1, 0], [1, 0]]).astype(kind), dtype=number)
    for number, kind in ((11, "i1"), (12, "u1"), (13, "i4"), (15, "i2"), (16, "u2")):
        made.add(f"k/{number}", np.array([1, 2], kind), dtype=number)
    for number, width in ((14, 2), *((number, 1) for number in range(24, 34))):
        values = np.arange(2, dtype=f"u{width}")
        made.put_entry(
            f"k/{number}",
            values.tobytes(),
            b.masked_crc(values.tobytes()),
            dtype=number,
            shape=(2,),
        )
    made.add("strings", np.array([[b"a\0", b""], [b"\xff", b"long text"]], object))
    made.add("none", np.zeros((0, 3), np.float32))
    made.add("none/of text", np.zeros((0,), object))
    made.add("one", np.float32(1.5))
    for odd in ("one/two", "x//y", "x/./y", "../up", "ü", "con", "A", "a", "k/", ":0"):
        made.add(odd, np.arange(3, dtype=np.int32))
    return made


_KINDS = {1: "f4", 2: "f8", 3: "i4", 4: "u1", 5: "i2", 6: "i1", 8: "c8", 9: "i8", 10: "?"}
_KINDS |= {17: "u2", 18: "c16", 19: "f2", 22: "u4", 23: "u8"}


def source_seeds() -> Iterator[bytes]:
    """Give files that the package wrote, that numpy and h5py did, and some that lie."""
    for number, (layout, files) in enumerate(_files()):
        for job in range(0, 2 * len(JOBS), 1 if number < 12 else 5):
            yield bytes([layout, (job + 7 * number) % 256]) + pack(files)


def _files() -> Iterator[tuple[int, list[bytes]]]:
    """Give files, each behind the number of its names."""
    yield from _converted()
    yield 4, [_npz(zipfile.ZIP_DEFLATED)]
    yield 4, [_npz(zipfile.ZIP_STORED)]
    yield from ((5, [one]) for one in _arrays())
    yield 1, _indexed({"a": "a.safetensors", "c": "b.safetensors"})
    yield 2, _indexed({"a": "a.safetensors", "c": "c.x"})
    yield 3, [*_indexed({})[1:], b""]
    yield 3, [_indexed({})[1], b"", b"x"]
    first, second = (_npy(np.arange(n, dtype=np.float32)) for n in (3, 4))
    yield 6, [b'{"tensors": {"x/y": "a.npy", "b": "b.npy"}, "metadata": {"k": "v"}}', first, second]
    yield 6, [b'{"tensors": {"x/y": "none.npy"}}', first, second]
    yield 6, [b"", first, second]
    yield 7, [b'{"arrays": {"x/y": "a", "b": "b"}}', first, second]
    yield from ((0, [one]) for one in _lying_headers())
    if find_spec("h5py") is not None:
        yield from ((8, [one]) for one in _hdf5())
        weights = next(_hdf5())
        for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            members = [("metadata.json", b"{}"), ("config.json", b"{}")]
            yield 9, [zipped([*members, ("model.weights.h5", weights)], method)]
        yield 9, [zipped([("config.json", b"{}")])]


def _converted() -> Iterator[tuple[int, list[bytes]]]:
    """Convert a bundle of every kind to every format."""
    store = every_kind().files("d/m")
    wanted = ((0, "o.safetensors"), (4, "o.npz"), (8, "o.h5"))
    for layout, name in wanted[: 3 if find_spec("h5py") is not None else 2]:
        for names in (None, ["a", "k/1", "k/14"], ["strings", "none/of text", "k/29", "k/18"]):
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder, name)
                ways: dict[str, Any] = {"store_bits": True, "names": names}
                done = attempt(ckptparse.convert, "d/m", out, store=store, **ways)
                if isinstance(done, ckptparse.Conversion):
                    yield layout, [out.read_bytes()]


def _npz(method: int) -> bytes:
    members = [(f"{name}.npy", _npy(array)) for name, array in plain().items()]
    names = json.dumps({"ckptparse.names": json.dumps({"a": "a:0"}), "source": "x"}).encode()
    return zipped([*members, ("__metadata__.json", names), ("other", b"x")], method)


def _npy(array: Any, version: tuple[int, int] | None = None) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.lib.format.write_array(stream, np.asanyarray(array), version)
    return stream.getvalue()


def _arrays() -> Iterator[bytes]:
    """Give files of numpy: every order, every version of the header, every kind of text."""
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    yield _npy(matrix)
    yield _npy(np.asfortranarray(matrix))
    yield _npy(matrix.astype(">f4"))
    yield _npy(np.asfortranarray(matrix.astype(">i2")))
    yield _npy(matrix.astype("c16"))
    yield _npy(np.array(1.5), (2, 0))
    yield _npy(np.arange(3), (3, 0))
    yield _npy(np.array(["ü", "text"]))
    yield _npy(np.array([b"a", b"text"]))
    yield _npy(np.array([(b"a", 2), (b"bc", 2)], [("string", "S2"), ("length", "<i8")]))
    yield _npy(np.array([(1,), (2,)], [("bfloat16", "<u2")]))
    yield _npy(np.array([(1,), (2,)], [("int4", "i1")]))
    yield _npy(np.array([(1, 2)], [("x", "<i4"), ("y", "<i4")]))
    yield _npy(np.array(["2020-01-01"], "M8[D]"))
    yield _npy(np.array([{}, []], object))
    yield _npy(np.zeros((0, 5)))
    for shape in (
        "(0, 4611686018427387904)",
        "(0, 9223372036854775808)",
        "(-1,)",
        "(1" + ",1" * 40 + ")",
    ):
        yield _npy_of("<f4", shape, bytes(4))
    yield _npy_of("<f4", "((((1,),),),)", b"")
    yield _npy_of("|V0", "(3,)", b"")
    yield _npy_of("<U4611686018427387904", "(1,)", b"")


def _npy_of(kind: str, shape: str, data: bytes) -> bytes:
    text = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text = text.ljust(-(-(len(text) + 11) // 64) * 64 - 11) + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text + data


def _safetensors(header: Any, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _of(dtype: str, shape: Any, *offsets: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}


def _indexed(names: dict[str, str]) -> list[bytes]:
    files = [_safetensors({name: _of("F32", [2], 0, 8)}, bytes(8)) for name in "ac"]
    return [json.dumps({"metadata": {"total_size": 16}, "weight_map": names}).encode(), *files]


def _lying_headers() -> Iterator[bytes]:
    """Give headers that are wrong in one way each."""
    shapes: tuple[Any, ...] = ([2], [1, -2], ["2"], [0, 1 << 62], [0, 1 << 70], [1] * 40, 2, [3])
    for shape in shapes:
        size = 8 if shape in ([2], [1, -2]) else 0
        yield _safetensors({"w": _of("F32", shape, 0, size)}, bytes(size))
    for offsets in ((0,), (0, 9), (1, 9), (0, "8"), (8, 0), (-8, 0)):
        yield _safetensors({"w": _of("F32", [2], *offsets)}, bytes(8))
    for kind in ("F4", "X", "BF16", "F8_E4M3", "C64", 3):
        yield _safetensors({"w": _of(kind, [1], 0, 2)}, bytes(2))  # type: ignore[arg-type]
    kinds: tuple[Any, ...] = (["STRING", [1]], ["STRING", [99]], ["INT4", [8]], ["X", [1]], "x", 5)
    kinds += (["STRING", [0, 1 << 70]], ["QINT32", [2]], ["COMPLEX128", [1]], ["INT4", [-1]])
    for kind in kinds:
        head = {"__metadata__": {"ckptparse.kinds": json.dumps({"w": kind})}}
        strings = b"\1" + b.fixed32(b.masked_crc(struct.pack("<I", 1))) + b"x"
        body = strings.ljust(8, b"\0") if kind != ["STRING", [1]] else strings
        yield _safetensors({**head, "w": _of("U8", [len(body)], 0, len(body))}, body)
    yield _safetensors({"__metadata__": 3}, b"")
    yield _safetensors({"__metadata__": {"ckptparse.kinds": "[]"}}, b"")
    yield _safetensors({"w": 3}, b"")
    yield from (_safetensors(text, b"") for text in (b"[]", b"{", b"\xff", b"[" * 100_000, b"{}"))
    yield b"\1"
    yield struct.pack("<Q", 1 << 40)


def _hdf5() -> Iterator[bytes]:
    """Give HDF5 files: of plain datasets, packed ones, text, enumerations, links and odd types."""
    import h5py

    for kind in range(4):
        stream = io.BytesIO()
        with h5py.File(stream, "w") as file:
            file.attrs["keras_version"], file.attrs["number"] = "3.0", 3
            for name, array in plain().items():
                packed = {"chunks": True, "compression": "gzip"} if kind == 1 else {}
                file.create_dataset(f"layers/{name}", data=array, **packed)
            if kind == 2:
                file["text"] = "one text"
                file["texts"] = ["some", "texts"]
                file["bytes"] = np.array([b"a", b"bc"])
                file["big"] = np.arange(4, dtype=">i4")
                file["flag"] = np.array([True, False])
                file.create_dataset("empty", dtype="f4")
                file.create_dataset("compact", data=np.float64(3))
                file["soft"] = h5py.SoftLink("/text")
                file["away"] = h5py.ExternalLink("other.h5", "/x")
                file["hard"] = file["big"]
            if kind == 3:
                file.create_dataset("enum", (2,), h5py.enum_dtype({"A": 0, "B": 1}, basetype="i1"))
                file["pair"] = np.array([(1, 2.0)], [("x", "<i4"), ("y", "<f4")])
                file.create_dataset("ragged", (2,), h5py.vlen_dtype(np.int32))
                file["of"] = np.array([(b"a", 2)], [("string", "S2"), ("length", "<i8")])
                file["brain"] = np.array([(1,)], [("bfloat16", "<u2")])
                file["brain"].attrs["ckptparse.name"] = "another/name"
        yield stream.getvalue()


# ---- what is changed


def mutate_source(data: bytes, rng: random.Random) -> bytes:
    """Change a file by the ways of its kind, or do another job."""
    if len(data) < 2:
        return bytes([rng.randrange(len(LAYOUTS)), rng.randrange(256)])
    layout, job = data[0] % len(LAYOUTS), data[1]
    if not rng.randrange(3):
        return bytes([layout, rng.randrange(256)]) + data[2:]
    names = LAYOUTS[layout][1]
    files = unpack(data[2:], len(names))
    place = rng.randrange(len(files))
    files[place] = change(names[place], files[place], rng)
    return bytes([layout, job]) + pack(files)


def change(name: str, data: bytes, rng: random.Random) -> bytes:
    """Change a file."""
    if name.endswith((".h5", ".keras")):
        # The library that reads them is not ours: what is cut off or put before is enough.
        return data[: rng.randrange(len(data) + 1)] if rng.randrange(4) else bytes(8) + data
    if not rng.randrange(4):
        return mutators.blind(data, rng)
    if name.endswith(".safetensors") and len(data) > 8:
        (size,) = struct.unpack("<Q", data[:8])
        if size <= len(data) - 8:
            text = change_json(data[8 : 8 + size], rng)
            return struct.pack("<Q", len(text)) + text + data[8 + size :]
    if name.endswith(".json"):
        return change_json(data, rng)
    return lie(data, rng) if name.endswith(".npz") else mutators.text(data, rng)


_VALUES: tuple[Any, ...] = (
    0,
    -1,
    1,
    1 << 62,
    1 << 70,
    1.5,
    None,
    True,
    "",
    "a",
    [],
    {},
    "F16",
    "U8",
)


def change_json(text: bytes, rng: random.Random) -> bytes:
    """Change one value, or one name, of JSON at any depth."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return mutators.text(text, rng)
    places: list[tuple[Any, Any]] = []
    pending = [said]
    while pending:
        one = pending.pop()
        keys = (
            list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        )
        places += [(one, key) for key in keys]
        pending += [one[key] for key in keys]
    if not places:
        return mutators.text(text, rng)
    holder, key = rng.choice(places)
    kind = rng.randrange(4)
    if kind == 0 and isinstance(holder, dict):
        holder[rng.choice(["w", "shape", "__metadata__", "a"])] = holder.pop(key)
    elif kind == 1:
        del holder[key]
    elif kind == 2 and isinstance(holder[key], int):
        holder[key] += rng.choice([-8, -1, 1, 4])
    else:
        other, known = rng.choice(places)
        holder[key] = rng.choice([rng.choice(_VALUES), json.loads(json.dumps(other[known]))])
    return json.dumps(said).encode()


TARGETS = [Target("source", run_source, source_seeds, mutate_source)]
