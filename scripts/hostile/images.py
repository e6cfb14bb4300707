"""Images of disks, and files of no known kind, that are searched for checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import builder as b
import numpy as np
import v1_builder as v1

from ckptparse.files.local import LOCAL
from ckptparse.recovery.imaging.binding import identify_image

__all__ = ["KINDS"]

MAGIC = b.fixed64(b.MAGIC)


def _image(data: Callable[[int], bytes]) -> Callable[[Path, int], Path]:
    def make(directory: Path, size: int) -> Path:
        (directory / "disk.img").write_bytes(data(size))
        return directory / "disk.img"

    return make


def _noise(size: int) -> bytes:
    return np.random.default_rng(6).bytes(size)


def _magic_in_noise(size: int) -> bytes:
    noise = _noise(size)
    return b"".join(noise[at : at + 56] + MAGIC for at in range(0, size, 64))


def _small(size: int, *, tensors: int = 1, align: int = 1, index: bool = True) -> bytes:
    """Many small checkpoints, one behind the other."""
    image = bytearray()
    number = 0
    while len(image) < size:
        made = b.Bundle()
        for one in range(tensors):
            made.add(f"w{number}/{one}", np.full(4, number, np.float32))
        parts = made.files("m").values() if index else [bytes(16 * tensors)]
        for part in parts:
            image += bytes(part)
            image += bytes(-len(image) % align)
        number += 1
    return bytes(image)


def _one_of_scalars(size: int) -> bytes:
    """Make one checkpoint of as many scalars as fit."""
    made = b.Bundle()
    for number in range(max(16, size // 34)):
        made.add(f"w{number:06}", np.float32(number))
    files = made.files("m")
    return b"".join(bytes(one).ljust(-(-len(one) // 512) * 512, b"\0") for one in files.values())


def _many_shards(size: int) -> bytes:
    """Put indexes that each state a million data files one behind the other."""
    image = bytearray()
    while len(image) < size:
        header = b.Header(1_000_000).to_bytes(1)
        name = b"w%07d" % len(image)
        image += b.table([(b"", header), (name, b.Entry(size=4, crc=7).to_bytes())]).data
    return bytes(image)


def _same(size: int) -> bytes:
    """Repeat one checkpoint."""
    one = _small(1)
    return one * (size // len(one))


def _empty_tables(size: int) -> bytes:
    """Tables of nothing."""
    one = b.table([(b"", b.Header().to_bytes(1))]).data
    return one * (size // len(one))


def _nested(size: int) -> bytes:
    """Footers whose index blocks all begin at the start of the image."""
    made = bytearray()
    while len(made) < size:
        held = max(0, len(made) - 5)
        handles = b.handle(0, 8) + b.handle(0, held)
        made += handles.ljust(40, b"\x01") + MAGIC
    return bytes(made)


def _one_index(size: int) -> bytes:
    """One index, and a footer that leads to it for each 48 bytes behind it."""
    table = b.table([(b"", b.Header().to_bytes(1)), (b"w", b.Entry(size=4).to_bytes())])
    image = bytearray(table.data[:-48])
    while len(image) < size:
        image += table.data[-48:]
    return bytes(image)


def _pieces(size: int) -> bytes:
    """Put data blocks one behind the other: their tables have no footers."""
    made = bytearray()
    number = 0
    while len(made) < size:
        pairs = [(b"w%05d" % (number + one), b.Entry(size=4).to_bytes()) for one in range(20)]
        made += b.Stored(b.block(pairs)).to_bytes()
        made += bytes(-len(made) % 512)
        number += 20
    return bytes(made)


def _v1_like(size: int) -> bytes:
    """Bytes that begin like a V1 checkpoint's entries, everywhere."""
    return b"\x00\x00\x40\x0a\x3e\x0a" * (size // 6)


def _v1_files(size: int, *, tensor: int = 64, tensors: int = 8, block: int = 256) -> list[bytes]:
    """V1 files of the same names and sizes, as many as have so many bytes."""
    files: list[bytes] = []
    while sum(map(len, files)) < size:
        made = v1.LegacyFile()
        for number in range(tensors):
            values = np.random.default_rng([len(files), number]).normal(size=tensor)
            made.add(f"w{number}", values.astype(np.float32))
        data = made.data(block_size=block)
        files.append(data + bytes(-len(data) % 512))
    return files


def _v1_in_parts(size: int, **options: int) -> bytes:
    """Put the first parts of all V1 files before the second parts of all."""
    files = _v1_files(size, **options)
    middle = len(files[0]) // 1024 * 512
    return b"".join([*(one[:middle] for one in files), *(one[middle:] for one in files)])


def _v1_heads(size: int) -> bytes:
    """The last part of a V1 file, and the start of each of its blocks at each sector."""
    (data,) = _v1_files(1, tensor=size // 256, tensors=16, block=64)
    heads = [data[at - 3 : at + 509] for at in range(3, len(data)) if data[at : at + 2] == b"\0w"]
    many = b"".join(head.ljust(512, b"\0") for head in heads)
    return many * (size // 2 // len(many)) + data[len(data) // 1024 * 512 :]


def _half_magic(size: int) -> bytes:
    return (MAGIC[:4] + b"\0\0\0\0") * (size // 8)


_THIS_IMAGE = b"<this image>"
"""What a state file says of the image that it belongs to."""


def _beside(name: str, data: Callable[[int], bytes]) -> Callable[[Path, int], Path]:
    """Make a file that is given beside an image of one small checkpoint."""

    def make(directory: Path, size: int) -> Path:
        image = directory / "disk.img"
        image.write_bytes(_small(1 << 12, align=4096))
        with closing(LOCAL.open(str(image))) as source:
            told = identify_image(source, LOCAL, str(image))
        (directory / name).write_bytes(data(size).replace(_THIS_IMAGE, told.encode(), 1))
        return directory / name

    return make


def _lines(size: int, line: str) -> bytes:
    lines = "".join(line.format(2 * number) for number in range(size // len(line.format(size))))
    return f"0 ? 1\n{lines}".encode()


def _state(size: int, tables: str, placements: str) -> bytes:
    parts = [tables, placements]
    for number, one in enumerate(parts):
        if one:
            parts[number] = ",".join(one.format(n % 4096) for n in range(size // (len(one) + 3)))
    image = len(_small(1 << 12, align=4096))
    return (
        f'{{"format": 2, "size": {image}, "image": "{_THIS_IMAGE.decode()}", '
        f'"searched": {image}, "tables": [{parts[0]}], '
        f'"segments": 0, "placements": [{parts[1]}]}}'
    ).encode()


def _report(size: int, part: str, options: str = "{}") -> bytes:
    inputs = ",".join(part.format(number) for number in range(size // (len(part) + 4)))
    return f'{{"report": {{"inputs": [{inputs}], "options": {options}, "tensors": {{}}}}}}'.encode()


def _shapes(size: int, one: str) -> bytes:
    parts = ",".join(one.format(number) for number in range(size // (len(one) + 4)))
    return f"{{{parts}}}".encode()


_INPUT = '{{"path": "{}", "role": "index", "size": 1, "sha256": "0"}}'

KINDS = {
    "noise": _image(_noise),
    "zeros": _image(bytes),
    "ones": _image(lambda size: b"\xff" * size),
    "magic numbers": _image(lambda size: MAGIC * (size // 8)),
    "magic numbers in noise": _image(_magic_in_noise),
    "half of magic numbers": _image(_half_magic),
    "small checkpoints": _image(_small),
    "small checkpoints, in pages": _image(lambda size: _small(size, align=512)),
    "checkpoints of 50": _image(lambda size: _small(size, tensors=50)),
    "one checkpoint of scalars": _image(_one_of_scalars),
    "data without index": _image(lambda size: _small(size, index=False)),
    "indexes of many shards": _image(_many_shards),
    "the same checkpoint": _image(_same),
    "empty tables": _image(_empty_tables),
    "nested footers": _image(_nested),
    "one index, many footers": _image(_one_index),
    "blocks without footer": _image(_pieces),
    "like V1": _image(_v1_like),
    "V1 files in parts": _image(_v1_in_parts),
    "V1 files of small blocks in parts": _image(
        lambda size: _v1_in_parts(size // 2, tensor=16, tensors=size // 512, block=64)
    ),
    "V1 files of one tensor in parts": _image(
        lambda size: _v1_in_parts(size, tensor=size // 64, tensors=1)
    ),
    "second parts of V1 files": _image(
        lambda size: b"".join(one[len(one) // 1024 * 512 :] for one in _v1_files(2 * size))
    ),
    "heads of V1 blocks": _image(_v1_heads),
    "map of short lines": _beside("map", lambda size: _lines(size, "{} 1 -\n")),
    "map as ddrescue writes it": _beside(
        "map", lambda size: _lines(size, "{:#012x}  0x00000001  -\n")
    ),
    "map of one range": _beside("map", lambda size: _lines(size, "0 9 -\n")),
    "state of tables": _beside("state", lambda size: _state(size, '[{},48,"v2"]', "")),
    "state of odd tables": _beside("state", lambda size: _state(size, '["{}",[],0]', "")),
    "state of placements": _beside("state", lambda size: _state(size, "", "[0,{},4,1]")),
    "state of odd placements": _beside("state", lambda size: _state(size, "", '["",{},[],null]')),
    "report of inputs": _beside("report.json", lambda size: _report(size, _INPUT)),
    "report of brackets": _beside("report.json", lambda size: b"[" * size),
    "shapes of scalars": _beside("shapes.json", lambda size: _shapes(size, '"{}":[]')),
    "shapes of one": _beside("shapes.json", lambda size: _shapes(size, '"{}":[1]')),
    "shapes of types": _beside(
        "shapes.json", lambda size: _shapes(size, '"{}":{{"dtype":"float32","shape":[2,3]}}')
    ),
    "shapes of many dimensions": _beside(
        "shapes.json", lambda size: b'{"w":[' + b"1," * (size // 2) + b"1]}"
    ),
}
