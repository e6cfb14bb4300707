"""What happens to checkpoints, each situation made so that its own repair is what gets them back.

The first byte of an input says which situation, the second a number that it is made of; then come
steps of more damage, five bytes each (`fuzz.damaging`). What is promised is what it was.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import io
import json
import random
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import cache, partial
from itertools import pairwise
from typing import Any

import builder as b
import graph_builder as g
import numpy as np

import ckptparse
from fuzz import damaging, mutators, seeds
from fuzz.damaging import KINDS, Files, damage
from fuzz.oracle import LIMITS, BrokenPromiseError, attempt, check_printable
from fuzz.targets.archives import zipped
from fuzz.targets.damage import check_promises
from fuzz.targets.folders import Elsewhere
from fuzz.targets.target import Target

__all__ = ["TARGETS"]

Arrays = Mapping[str, Any]
Made = tuple[Files, dict[str, Any], list[Arrays]]
"""Files, options of `recover`, and the values that may be promised."""
_DATA = f"{damaging.PREFIX}.data-00000-of-00001"
_INDEX = f"{damaging.PREFIX}.index"
_PAGE = 4096


def _of(arrays: Arrays, **options: Any) -> Files:
    return dict(damaging.of_bundle(arrays, **options).files)


def _weights(rng: Any, *shape: int, kind: Any = "<f4") -> Any:
    return rng.normal(0, 0.05, shape).astype(kind)


# ---- changed data files


def returns(number: int) -> Made:
    """Lose the carriage returns before some line feeds: few of a small tensor, or some of many."""
    rng = np.random.default_rng(number % 5)
    arrays: dict[str, Any] = {}
    for name, count, kind in (("a", 12_000, ("<f4", "<f8", "<f2")[number % 3]), ("b", 300, "<f4")):
        raw = bytearray(_weights(rng, count, kind=kind).tobytes().replace(b"\r\n", b"\r\r"))
        places = [len(raw) * n // 6 + 1 for n in range(1, 6 if name == "a" else 2)]
        for place in places[: 1 + number % 5]:
            raw[place : place + 5] = (b"\n\r\n\n\n", b"x\r\nyz")[number % 2]
        arrays[name] = np.frombuffer(bytes(raw), kind)
    arrays["c"] = _weights(rng, 64)
    files = _of(arrays)
    files[_DATA] = files[_DATA].replace(b"\r\n", b"\n")
    return files, {}, [arrays]


def torn(number: int) -> Made:
    """Lose bytes within a tensor, which another save is near to, or is not."""
    rng = np.random.default_rng(number % 7)
    kinds: list[Any] = ["<f4", "<f8", "<f2", "<i4"]
    kinds += [b.ml_dtypes.bfloat16] if b.ml_dtypes is not None else []
    kind = kinds[number % len(kinds)]
    width = np.dtype(kind).itemsize
    older = {name: rng.normal(0, 0.05, (40, 24)) for name in "abc"}
    noise = 100 if number & 32 else 0.05
    later = {
        name: (array + rng.normal(0, 0.05 * noise, array.shape)).astype(kind)
        for name, array in older.items()
    }
    files = _of(later)
    old = {name: array.astype(kind) for name, array in older.items()}
    files |= damaging.of_bundle(old, "d/ckpt-1").files
    start, lost = later["a"].nbytes, (100 + number) * width
    first = start + (number * 7 % 500) * width
    raw = files[_DATA]
    files[_DATA] = raw[:first] + raw[first + lost :]
    if number & 64:
        files[_DATA] = b"HTTP/1.1 200 OK\r\n\r\n" + files[_DATA]
    return files, {}, [later, old]


def moved(number: int) -> Made:
    """Put bytes before everything, and zeros into one tensor, before that or after."""
    rng = np.random.default_rng(number % 5)
    arrays = {name: _weights(rng, 50, 48) for name in "abc"}
    if number & 1:
        arrays["d"] = arrays["a"].copy()
    files = _of(arrays)
    raw = bytearray(files[_DATA])
    if number & 2:
        raw[12_800:13_312] = bytes(512)
    if number & 4:
        raw[1_024:1_536] = bytes(512)
    if not number & 8:
        raw[:0] = b"HTTP/1.1 200 OK\r\n\r\n"
    if not number & 2:
        raw[12_800:13_312] = bytes(512)
    files[_DATA] = bytes(raw)
    return files, {}, [arrays]


def stripes(number: int) -> Made:
    """Put the stripes of an array of disks together in another order."""
    rng = np.random.default_rng(number % 3)
    disks = 2 + number % 4
    sizes = [300 if number & 1 else 2_600] * 40 + [7_000, 9_000]
    arrays = {f"w{n:03}": _weights(rng, size) for n, size in enumerate(sizes)}
    if not number & 1:
        arrays = {name: arrays[name] for name in list(arrays)[:16]}
    files = _of(arrays)
    order = random.Random(number).sample(range(disks), disks)
    if order == sorted(order):
        order = order[1:] + order[:1]
    raw, row = bytearray(files[_DATA]), _PAGE * disks
    data = bytes(raw)
    for start in range(0, len(data) // row * row, row):
        for place, there in enumerate(order):
            piece = data[start + place * _PAGE : start + (place + 1) * _PAGE]
            raw[start + there * _PAGE : start + (there + 1) * _PAGE] = piece
    files[_DATA] = bytes(raw)
    return files, {}, [arrays]


def converted(number: int) -> Made:
    """Take the data file for text, or send it as text: in lines of any length; or pack it."""
    rng = np.random.default_rng(number % 3)
    arrays = {name: _weights(rng, 9_000) for name in "abc"}
    if number & 32:
        arrays["b"] *= np.float32(0)
    files = _of(arrays)
    raw = files[_DATA]
    text = base64.b64encode(raw)
    ways: tuple[Callable[[], bytes], ...] = (
        lambda: raw.decode("latin-1").encode("utf-16"),
        lambda: raw.decode("latin-1").encode("utf-16-be"),
        lambda: b"\n".join(text[n : n + 61] for n in range(0, len(text), 61)),
        lambda: b"begin-base64 644 x\n" + base64.encodebytes(raw) + b"====\n",
        lambda: b"-----BEGIN-----\n" + base64.encodebytes(raw) + b"-----END-----\n",
        lambda: base64.encodebytes(raw)[:-70] + b"!",
        lambda: b"".join(_cp1252()[byte].encode() for byte in raw),
        lambda: raw.decode("latin-1").encode()[: -1 - number % 9] + b"\xff",
        lambda: raw.replace(b"\n", b"\r\n"),
        lambda: binascii.hexlify(raw, b"\n", 7 + number),
        lambda: _dump(raw, "{:08x}: ", 2, "  ", 16),
        lambda: _dump(raw, "{:08x}  ", 1, "  |", 16) + b"%08x\n" % len(raw),
        lambda: _dump(raw, "{:06x} ", 1, " >", 8 + number % 9).replace(b"\n", b"\r\n"),
        lambda: binascii.b2a_qp(raw, istext=False),
        lambda: zipped([("d/", b""), (_DATA, raw), ("x", raw[:99])]),
        lambda: zipped([(_DATA, raw)], zipfile.ZIP_DEFLATED),
        lambda: gzip.compress(base64.encodebytes(raw)),
        lambda: _dump(gzip.compress(raw), "{:08x}: ", 2, "  ", 16),
    )
    files[_DATA] = ways[number % len(ways)]()
    return files, {}, [arrays]


def _dump(raw: bytes, offset: str, group: int, letters: str, width: int) -> bytes:
    """Print bytes in hex, as `xxd` and `hexdump` do; a `*` stands for rows as the one before."""
    lines, before, is_told = [], b"", False
    for at in range(0, len(raw), width):
        row = raw[at : at + width]
        if row == before and "|" in letters and at + width < len(raw):
            lines += [] if is_told else ["*"]
            is_told = True
            continue
        before, is_told = row, False
        digits = row.hex(" ", group) if group == 1 else row.hex(" ", -group)
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(offset.format(at) + digits + letters + shown)
    return "".join(line + "\n" for line in lines).encode()


@cache
def _cp1252() -> list[str]:
    """Return what each byte is read as; the five that are none stay what they are."""
    texts = [bytes([byte]).decode("cp1252", "replace") for byte in range(256)]
    return [chr(byte) if text == "\ufffd" else text for byte, text in enumerate(texts)]


# ---- indexes


def spliced(number: int) -> Made:
    """Put one block of another save's index into the index; some tensors are that one's, too."""
    rng = np.random.default_rng(number % 3)
    arrays: dict[str, Any] = {f"layer_{n:02}/kernel": _weights(rng, 20, 20) for n in range(12)}
    old = {
        name: array if n % 4 == number % 4 else (array * 1.01).astype("<f4")
        for n, (name, array) in enumerate(arrays.items())
    }
    files = _of(arrays, block=300)
    older = dict(damaging.of_bundle(old, "d/ckpt-1", block=300).files)
    mine, theirs = files[_INDEX], older["d/ckpt-1.index"]
    cut = _block_edges(mine)
    if len(mine) == len(theirs) and len(cut) > 2:
        low, high = cut[number % (len(cut) - 1)], cut[number % (len(cut) - 1) + 1]
        files[_INDEX] = mine[:low] + theirs[low:high] + mine[high:]
    if number & 64:
        raw = bytearray(files[_DATA])
        raw[700:800] = bytes(100)
        files[_DATA] = bytes(raw)
    return {**files, **older}, {}, [arrays, old]


def _block_edges(table: bytes) -> list[int]:
    """Return where the data blocks of a table begin, and where the last one ends."""
    footer = table[-48:]
    position, numbers = 0, []
    for _ in range(4):
        value, position = mutators.read_varint(footer, position) or (0, position + 1)
        numbers.append(value)
    edges, stop = [], 0
    for _, handle in mutators.read_block(table, numbers[2], numbers[3]) or []:
        offset, after = mutators.read_varint(handle, 0) or (0, 0)
        size, _ = mutators.read_varint(handle, after) or (0, 0)
        edges.append(offset)
        stop = offset + size + 5
    return [*edges, stop]


def of_another(number: int) -> Made:
    """Put another save's data file, or a part of it, in place of the data file."""
    rng = np.random.default_rng(number % 3)
    arrays = {name: _weights(rng, 30, 30) for name in "abcd"}
    old = {
        name: array if name == "b" else (array * 1.02).astype("<f4")
        for name, array in arrays.items()
    }
    files, older = _of(arrays), dict(damaging.of_bundle(old, "d/ckpt-1").files)
    raw, theirs = files[_DATA], older["d/ckpt-1.data-00000-of-00001"]
    cut = len(raw) * (number % 5) // 4
    files[_DATA] = theirs[:cut] + raw[cut:]
    if number & 64:
        files[_INDEX] = older["d/ckpt-1.index"]
        files[_DATA] = raw
    return {**files, **older}, {}, [arrays, old]


def counters(number: int) -> Made:
    """Lose a counter that the names of other saves, and their values, tell."""
    steps = [100 * n + number for n in (1, 2, 4)]
    files: Files = {}
    arrays: dict[str, Any] = {}
    for step in steps:
        values = {
            "step": np.array(step),
            "twice": np.array(2 * step + 7),
            "w": np.array([step], "<f4"),
        }
        files |= damaging.of_bundle(values, f"d/ckpt-{step}").files
        arrays = values
    name = f"d/ckpt-{steps[-1]}.data-00000-of-00001"
    files[name] = bytes(len(files[name])) if number & 1 else files[name][: number % 20]
    return files, {"path": f"d/ckpt-{steps[-1]}"}, [arrays]


def many_damaged(number: int) -> Made:
    """Damage more tensors than `verify` tries to get back, and the index or not."""
    rng = np.random.default_rng(number % 3)
    arrays = {f"w{n:04}": _weights(rng, 4) for n in range(300)}
    files = _of(arrays, block=600)
    raw = bytearray(files[_DATA])
    for place in range(0, len(raw), 16):
        raw[place + number % 16] ^= 1 << number % 8
    files[_DATA] = bytes(raw)
    if number & 1:
        index = bytearray(files[_INDEX])
        index[number * 5 % 600] ^= 4
        files[_INDEX] = bytes(index)
    return files, {}, [arrays]


# ---- evidence


def _two() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    shapes = {
        "a/kernel": (12, 20),
        "b/kernel": (3, 3, 4, 5),
        "c/bias": (20,),
        "d/kernel": (7, 2, 5),
    }
    return {name: _weights(rng, *shape) for name, shape in shapes.items()}


def _lost(arrays: Arrays) -> Files:
    files = _of(arrays)
    files[_DATA] = bytes(len(files[_DATA]))
    return files


_AXES = {2: (1, 0), 3: (2, 0, 1), 4: (3, 2, 0, 1)}


def turned(number: int) -> Made:
    """Give the same weights with their axes in another order, in files of several kinds."""
    arrays = _two()
    there = {
        name: np.ascontiguousarray(array.transpose(_AXES[array.ndim])) if array.ndim > 1 else array
        for name, array in arrays.items()
    }
    files = _lost(arrays)
    method = zipfile.ZIP_DEFLATED if number & 8 else zipfile.ZIP_STORED
    ways: tuple[tuple[str, Callable[[], bytes]], ...] = (
        ("x.npz", lambda: _npz(there, method)),
        ("f.npz", lambda: _npz({n: np.asfortranarray(one) for n, one in arrays.items()}, method)),
        ("x.safetensors", lambda: _safetensors(there)),
        ("x.tflite", lambda: _flatbuffer(there)),
        ("x.pb", lambda: _frozen(there)),
    )
    name, make = ways[number % len(ways)]
    files[f"e/{name}"] = make()
    return files, {"evidence": ["e"]}, [arrays]


def _npz(arrays: Arrays, method: int) -> bytes:
    members = []
    for name, array in arrays.items():
        stream = io.BytesIO()
        np.lib.format.write_array(stream, array)
        members.append((f"{name}.npy", stream.getvalue()))
    return zipped([("folder/", b""), *members], method)


def _safetensors(arrays: Arrays) -> bytes:
    body, header = b"", {}
    for name, array in arrays.items():
        offsets = [len(body), len(body) + array.nbytes]
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": offsets}
        body += array.tobytes()
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def _flatbuffer(arrays: Arrays) -> bytes:
    out = bytearray(b"\x1c\0\0\0TFL3")
    for array in arrays.values():
        out += bytes(-(len(out) + 4) % 16) + struct.pack("<I", array.nbytes) + array.tobytes()
    return bytes(out)


def _frozen(arrays: Arrays) -> bytes:
    return g.graph(
        [
            g.constant(name, b.field(4, array.tobytes()), dims=array.shape)
            for name, array in arrays.items()
        ]
    )


def told(number: int) -> Made:
    """Give what is no container, or a broken one: what it holds whole is still found."""
    arrays = _two()
    files = _lost(arrays)
    npz = bytearray(_npz(arrays, zipfile.ZIP_DEFLATED if number & 8 else zipfile.ZIP_STORED))
    if number % 7 == 0:
        npz[6] |= 1
        npz[npz.index(b"PK\1\2") + 8] |= 1
    text = _as_text(arrays)
    ways: tuple[bytes, ...] = (
        bytes(npz),
        bytes(npz[: len(npz) - 30]),
        text.encode(),
        b"\xef\xbb\xbf" + text.encode(),
        b"saved_model_schema_version: 1\nmeta_graphs { graph_def { %s } }" % text.encode(),
        b"graph_def { %s }\nmeta_info_def { }" % text.encode(),
        _safetensors(arrays)[: 100 + number],
        b"\x93NUMPY\x02\0",
        b"\x93NUMPY\x01\0" + struct.pack("<H", 9) + bytes(20),
        struct.pack("<Q", 4) + b"{  }" + arrays["a/kernel"].tobytes(),
    )
    name = ("x.npz", "x.npz", *("x.pbtxt",) * 4, "x.safetensors", "x.npy", "x.npy", "x.bin")
    files[f"e/{name[number % len(name)]}"] = ways[number % len(ways)]
    return files, {"evidence": ["e"]}, [arrays]


def _as_text(arrays: Arrays) -> str:
    """Return a graph of constants in protobuf's text."""
    nodes = []
    for name, array in arrays.items():
        content = "".join(f"\\{byte:03o}" for byte in array.tobytes())
        dims = "".join(f"dim {{ size: {size} }} " for size in array.shape)
        tensor = f'dtype: DT_FLOAT tensor_shape {{ {dims} }} tensor_content: "{content}"'
        value = f'attr {{ key: "value" value {{ tensor {{ {tensor} }} }} }}'
        nodes.append(f'node {{ name: "{name}" op: "Const" {value} }}')
    return "\n".join(nodes)


def logged(number: int) -> Made:
    """Take the index away, and give a log of events that holds the graph of the save."""
    folder = seeds.FIXTURES / "graphs" / "saver_to_rebuild"
    meta = (folder / "model.meta").read_bytes()
    shards = sorted(folder.glob("model.data-*"))
    files = {f"{damaging.PREFIX}{path.name[5:]}": path.read_bytes() for path in shards}
    values = ckptparse.read(folder / "model")
    kind = number % 4
    events = [b.field64(1, 0) + b.field(3, b"brain.Event:2")]
    if kind != 1:
        events.append(b.field(9, meta))
    if kind != 2:
        events.append(b.field(4, dict(_fields(meta)).get(2, b"")))
    data = b"".join(map(_record, events))
    if kind == 3:
        data = data[:-3] + bytes(number % 9)
    files["e/events.out.tfevents.1.host"] = data
    return files, {"evidence": ["e/events.out.tfevents.1.host"]}, [values]


def _fields(data: bytes) -> list[tuple[int, bytes]]:
    found = mutators.parse_fields(data) or []
    return [(number, value) for number, _, value in found if isinstance(value, bytes)]


def _record(data: bytes) -> bytes:
    head = struct.pack("<Q", len(data))
    checks = [b.fixed32(b.masked_crc(part)) for part in (head, data)]
    return head + checks[0] + data + checks[1]


# ---- images


def scattered(number: int) -> Made:
    """Scatter a data file over an image in stretches: alike, far away, or with a part lost."""
    rng = random.Random(number)
    arrays = {f"w{n}": _weights(np.random.default_rng(n), 2_500 + 700 * n) for n in range(4)}
    files = _of(arrays)
    raw = files.pop(_DATA)
    blocks = [raw[n : n + _PAGE].ljust(_PAGE, b"\0") for n in range(0, len(raw), _PAGE)]
    image: list[bytes] = [rng.randbytes(_PAGE) for _ in range(2)]
    cuts = sorted(rng.sample(range(1, len(blocks)), 3))
    pieces = [blocks[low:high] for low, high in zip([0, *cuts], [*cuts, len(blocks)], strict=True)]
    if number & 1:
        pieces = pieces[1:] + pieces[:1]
    if number & 2:
        pieces.reverse()
    for piece in pieces:
        image += piece
        image += [rng.choice([bytes(_PAGE), rng.randbytes(_PAGE)])] * (1 + rng.randrange(3))
    if number & 4:
        image[3 + number % 5] = bytes(_PAGE)
    if number & 8:
        # Some file systems write what is the same twice.
        image += pieces[0]
    files["e/disk.img"] = b"".join(image)
    return files, {"evidence": ["e/disk.img"]}, [arrays]


def fragments(number: int) -> Made:
    """Put the parts of V1 files, or of indexes and data files, of two saves into an image."""
    rng = random.Random(number)
    values = np.random.default_rng(number % 7)
    sizes = [values.integers(1, 900) for _ in range(3 + number % 9)]
    saves = [
        {f"layer/{n}": _weights(values, int(size)) for n, size in enumerate(sizes)}
        for _ in range(1 + number % 3)
    ]
    if number & 8:
        for save in saves:
            save["layer/1"] = np.zeros(2_000, "<f4")
    block = (512, 1024, _PAGE)[number % 3]
    make = partial(damaging.of_bundle, block=300) if number & 16 else damaging.of_v1
    parts: list[bytes] = []
    for save in saves:
        for data in make(save).files.values():
            borders = range(block, len(data), block)
            cuts = sorted(rng.sample(borders, min(len(borders), number >> 5)))
            parts += [data[low:high] for low, high in pairwise([0, *cuts, len(data)])]
    rng.shuffle(parts)
    if number & 4:
        del parts[0]
    image = [bytes(2 * _PAGE)]
    for part in parts:
        image.append(part + bytes(-len(part) % block))
        image.append(rng.choice([b"", bytes(block), rng.randbytes(block)]))
    return {"d/disk.img": b"".join(image)}, {"path": "d/disk.img"}, [*saves]


def lost_index(number: int) -> Made:
    """Take the index away: the object graph names the tensors, and rules give sizes."""
    rng = np.random.default_rng(number % 5)
    arrays: dict[str, Any] = {}
    for layer in range(1 + number % 4):
        for slot in ("", "/.OPTIMIZER_SLOT/optimizer/m", "/.OPTIMIZER_SLOT/optimizer/v"):
            arrays[f"layer-{layer}/kernel{slot}/.ATTRIBUTES/VARIABLE_VALUE"] = _weights(
                rng, 6, 5 + layer
            )
            arrays[f"layer-{layer}/bias{slot}/.ATTRIBUTES/VARIABLE_VALUE"] = _weights(
                rng, 5 + layer
            )
    arrays["optimizer/iter/.ATTRIBUTES/VARIABLE_VALUE"] = np.array(number)
    arrays["save_counter/.ATTRIBUTES/VARIABLE_VALUE"] = np.array(2)
    made = b.Bundle()
    made.add(b.OBJECT_GRAPH, np.array(b.flat_object_graph(arrays), object))
    for name, array in sorted(arrays.items()):
        made.add(name, array)
    files = {f"d/{name}": data for name, data in made.files("ckpt-2").items()}
    index = files.pop(_INDEX)
    if number & 8:
        files[_INDEX] = index[: len(index) * (number >> 4) // 16]
    options: dict[str, Any] = {}
    if number & 4:
        options["shapes"] = {
            name: array.shape for name, array in list(arrays.items())[: number >> 4]
        }
    return files, options, [arrays]


SITUATIONS: tuple[Callable[[int], Made], ...] = (
    returns,
    torn,
    moved,
    stripes,
    converted,
    spliced,
    of_another,
    counters,
    many_damaged,
    turned,
    told,
    logged,
    scattered,
    lost_index,
    fragments,
)


def run_situation(data: bytes) -> None:
    """Recover from a situation, and hold what is promised to the original."""
    if len(data) < 2:
        return
    files, options, known = SITUATIONS[data[0] % len(SITUATIONS)](data[1])
    files = damage(files, {}, data[2:12])
    path = options.pop("path", damaging.PREFIX)
    pools = (nullcontext(), ThreadPoolExecutor(2), Elsewhere(), nullcontext())
    with pools[len(data) % 4] as executor:
        found = attempt(
            ckptparse.recover, path, store=files, executor=executor, limits=LIMITS, **options
        )
    if isinstance(found, ckptparse.Recovery):
        check_printable(str(found.report))
        if SITUATIONS[data[0] % len(SITUATIONS)] is fragments:
            check_of_one(found, known)
        check_promises(found, known)
    if data[0] % len(SITUATIONS) in _VERIFIED:
        report = attempt(ckptparse.verify, path, store=files, limits=LIMITS)
        if isinstance(report, ckptparse.Report):
            check_printable(str(report))


def check_of_one(found: ckptparse.Recovery, known: list[Any]) -> None:
    """Refuse tensors that are promised, if they are not all of one save."""
    refused = [error for error in (_refusal(found, arrays) for arrays in known) if error]
    if len(refused) == len(known):
        raise refused[0]


def _refusal(found: ckptparse.Recovery, arrays: Arrays) -> BrokenPromiseError | None:
    try:
        check_promises(found, [arrays])
    except BrokenPromiseError as error:
        return error
    return None


_VERIFIED = (SITUATIONS.index(many_damaged), SITUATIONS.index(spliced))
"""`verify` has ways of its own with these."""


def situation_seeds() -> Iterator[bytes]:
    """Give each situation in some of its forms, and a few with more damage."""
    rng = random.Random(0)
    for which in range(len(SITUATIONS)):
        for number in (0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 14, 33, 66, 100):
            yield bytes([which, number])
    for number in range(32, 60):
        yield bytes([SITUATIONS.index(converted), number])
    for which in range(len(SITUATIONS)):
        steps = bytes([rng.randrange(KINDS), rng.randrange(4), *rng.randbytes(3)])
        yield bytes([which, rng.randrange(256)]) + steps


def mutate_situation(data: bytes, rng: random.Random) -> bytes:
    """Choose another situation, another form of it, or more damage."""
    if len(data) < 2:
        return bytes([rng.randrange(256), rng.randrange(256)])
    out = bytearray(data[:12])
    kind = rng.randrange(5)
    if kind < 2:
        out[kind] = rng.randrange(256)
    elif kind == 2 or len(out) > 6:
        del out[2:7]
    else:
        out += bytes([rng.randrange(KINDS), rng.randrange(4), *rng.randbytes(3)])
    return bytes(out)


TARGETS = [Target("situation", run_situation, situation_seeds, mutate_situation)]
