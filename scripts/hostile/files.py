"""Files that are no checkpoints: what lists them, what holds them, what other programs write."""

from __future__ import annotations

import functools
import gzip
import io
import json
import operator
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import builder as b
import numpy as np

from hostile import named

__all__ = ["KINDS"]

LEAST = 16
"""Fewest entries, however small the input."""


def _write(directory: Path, data: bytes, name: str) -> Path:
    path = directory / name
    path.write_bytes(data)
    return path


def _save(prefix: Path) -> Path:
    """A checkpoint of one small tensor."""
    prefix.parent.mkdir(exist_ok=True)
    return Path(_bundle(np.float32(1)).write(prefix))


def _bundle(value: Any) -> b.Bundle:
    made = b.Bundle()
    made.add("w", value)
    return made


def _repeat(part: bytes, size: int) -> bytes:
    return part * max(LEAST, size // len(part))


_MIB = bytes(1 << 20)


def _deflate_zeros(count: int, start: bytes = b"") -> tuple[bytes, int]:
    """Deflate so many MiB of zeros behind a start; return it with the CRC of what it holds.

    One MiB is deflated, and what comes of it repeated. So are its effects on the CRC: it is linear.
    """
    packer = zlib.compressobj(wbits=-15)
    first = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    one = packer.compress(_MIB) + packer.flush(zlib.Z_FULL_FLUSH)
    base = zlib.crc32(_MIB)
    effects = [zlib.crc32(_MIB, 1 << bit) ^ base for bit in range(32)]
    crc = zlib.crc32(start)
    for _ in range(count):
        changed = (effects[bit] for bit in range(32) if crc >> bit & 1)
        crc = functools.reduce(operator.xor, changed, base)
    return first + one * count + packer.flush(), crc


def _zip_of_zeros(path: Path, name: bytes, count: int, start: bytes = b"") -> None:
    """Write a zip archive, or add to one, of one deflated member: so many MiB of zeros."""
    data, crc = _deflate_zeros(count, start)
    size = len(start) + (count << 20)
    sizes = struct.pack("<HHQQ", 1, 16, size, len(data))
    told = (45, 0, 8, 0, 0, crc, *(0xFFFFFFFF,) * 2, len(name), len(sizes))
    local = struct.pack("<4s5H3I2H", b"PK\3\4", *told) + name + sizes
    central = struct.pack("<4s6H3I5H2I", b"PK\1\2", 45, *told, 0, 0, 0, 0, 0) + name + sizes
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(central), len(local) + len(data), 0)
    path.write_bytes(local + data + central + end)


def _touch(path: Path) -> None:
    """Make a file of no bytes, at the least cost."""
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))


# ---- state files


def _state(directory: Path, size: int, part: bytes) -> Path:
    _save(directory / "m")
    # Less than `Limits.state_bytes`, with what comes first.
    first = b'model_checkpoint_path: "m"\n'
    _write(directory, first + _repeat(part, size - 100), "checkpoint")
    return directory


def state_paths(directory: Path, size: int) -> Path:
    """A state file that lists a path again and again."""
    return _state(directory, size, b'all_model_checkpoint_paths: "m"\n')


def state_lost_paths(directory: Path, size: int) -> Path:
    """A state file whose paths are all different, and there is nothing at any of them."""
    _save(directory / "m")
    paths = b"".join(
        b'all_model_checkpoint_paths: "/lost/m-%d"\n' % number
        for number in range(max(LEAST, size // 46))
    )
    _write(directory, b'model_checkpoint_path: "/lost/m"\n' + paths, "checkpoint")
    return directory


def state_patterns(directory: Path, size: int) -> Path:
    """A state file whose paths are patterns of V1 files, each of which takes a look at all."""
    _save(directory / "m")
    paths = b"".join(
        b'all_model_checkpoint_paths: "m-%d-?????-of-?????"\n' % number
        for number in range(max(LEAST, size // 55))
    )
    first = b'model_checkpoint_path: "m-?????-of-?????"\n'
    _write(directory, first + paths, "checkpoint")
    return directory


def state_times(directory: Path, size: int) -> Path:
    """A state file of timestamps only."""
    return _state(directory, size, b"all_model_checkpoint_timestamps: 1.5\n")


def state_short_times(directory: Path, size: int) -> Path:
    """A state file with lists of timestamps, at two bytes each."""
    return _state(directory, size, b"all_model_checkpoint_timestamps: [" + b"1," * 1000 + b"1]\n")


def state_long_line(directory: Path, size: int) -> Path:
    """A state file of one path that is nearly as long as the file."""
    _save(directory / "m")
    _write(directory, b'model_checkpoint_path: "' + b"a" * (size - 100) + b'"\n', "checkpoint")
    return directory


def state_long_parts(directory: Path, size: int) -> Path:
    """A state file of one path of many directories."""
    _save(directory / "m")
    path = _repeat(b"a/", size - 100)
    _write(directory, b'model_checkpoint_path: "' + path + b'"\n', "checkpoint")
    return directory


def state_escapes(directory: Path, size: int) -> Path:
    """A state file of one path in which every byte is escaped."""
    _save(directory / "m")
    path = _repeat(b"\\141", size - 100)
    _write(directory, b'model_checkpoint_path: "' + path + b'"\n', "checkpoint")
    return directory


def state_pieces(directory: Path, size: int) -> Path:
    """A state file of one path that comes in pieces of no bytes."""
    _save(directory / "m")
    _write(directory, b'model_checkpoint_path: "m"' + _repeat(b'""', size - 100), "checkpoint")
    return directory


def state_nesting(directory: Path, size: int) -> Path:
    """A state file of unknown messages, one in another."""
    return _state(directory, size, b"a{")


def state_comments(directory: Path, size: int) -> Path:
    """A state file of empty comments."""
    return _state(directory, size, b"#\n")


def state_unknown(directory: Path, size: int) -> Path:
    """A state file of fields that no version knows."""
    return _state(directory, size, b"a:1\n")


def state_blanks(directory: Path, size: int) -> Path:
    """A state file of blanks."""
    return _state(directory, size, b" ")


# ---- event files: records of a length, its checksum, the bytes, their checksum


def _record(data: bytes) -> bytes:
    length = b.fixed64(len(data))
    return length + b.fixed32(b.masked_crc(length)) + data + b.fixed32(b.masked_crc(data))


def event_records(directory: Path, size: int) -> Path:
    """An event file of records without bytes."""
    data = _record(b"\x1a\x0dbrain.Event:2") + _repeat(_record(b""), size)
    return _write(directory, data, "events.out.tfevents.1")


def event_numbers(directory: Path, size: int) -> Path:
    """An event file whose records have a step only."""
    data = _record(b"\x1a\x0dbrain.Event:2") + _repeat(_record(b"\x10\x01"), size)
    return _write(directory, data, "events.out.tfevents.1")


def event_lengths(directory: Path, size: int) -> Path:
    """An event file of which every record states a length of 2^63, under a checksum that agrees."""
    length = b.fixed64(1 << 62)
    data = _repeat(length + b.fixed32(b.masked_crc(length)), size)
    return _write(directory, data, "events.out.tfevents.1")


def event_graphs(directory: Path, size: int) -> Path:
    """An event file of which every record holds a graph with one node."""
    node = b.field(1, b.field(1, b"w") + b.field(2, b"VariableV2"))
    data = _record(b"\x1a\x0dbrain.Event:2") + _repeat(_record(b.field(4, node)), size)
    return _write(directory, data, "events.out.tfevents.1")


# ---- archives


def _zip_of_empty(directory: Path, names: Iterable[str]) -> Path:
    path = directory / "m.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return path


def zip_members(directory: Path, size: int) -> Path:
    """A zip archive of empty members, each named as the index of a checkpoint."""
    names = (f"m{number:05}.index" for number in range(max(LEAST, size // 114)))
    return _zip_of_empty(directory, names)


def zip_folders(directory: Path, size: int) -> Path:
    """A zip archive of empty members, each in a directory of its own, as a SavedModel has it."""
    names = (f"{number:05}/saved_model.pb" for number in range(max(LEAST, size // 134)))
    return _zip_of_empty(directory, names)


def zip_saves(directory: Path, size: int) -> Path:
    """A zip archive of checkpoints without tensors."""
    path = directory / "m.zip"
    made = b.Bundle()
    index = made.index()
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(max(1, size // (240 + len(index)))):
            archive.writestr(f"m{number:05}.index", index)
            archive.writestr(f"m{number:05}.data-00000-of-00001", b"")
    return path


def zip_deep(directory: Path, size: int) -> Path:
    """A zip archive of members below a thousand directories each."""
    path = directory / "m.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(max(2, size // 4100)):
            archive.writestr("a/" * 1000 + f"m{number:05}.index", b"")
    return path


def _overlap(path: Path, body: bytes, name: bytes, count: int) -> None:
    """Write a zip archive of which every member is the same."""
    crc = zlib.crc32(body)
    local = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, 0, 0, 0, 0, crc, len(body), len(body), 1, 0)
    data = bytearray(local + b"m" + body)
    start, count = len(data), min(65_535, max(LEAST, count))
    for number in range(count):
        own = name % number
        data += struct.pack(
            "<4sHHHHHHIIIHHHHHII",
            *(b"PK\1\2", 20, 20, 0, 0, 0, 0, crc, len(body), len(body)),
            *(len(own), 0, 0, 0, 0, 0, 0),
        )
        data += own
    end = (0, 0, count, count, len(data) - start, start, 0)
    path.write_bytes(data + struct.pack("<4sHHHHIIH", b"PK\5\6", *end))


def zip_overlapping(directory: Path, size: int) -> Path:
    """A zip archive of members that are all the same megabyte: fifty bytes a member."""
    _overlap(directory / "m.zip", bytes(size // 2), b"m%05d.data", size // 2 // 60)
    return directory / "m.zip"


def zip_messages(directory: Path, size: int) -> Path:
    """The same of a message all of which may be lengths of what is sought: each is searched."""
    body = b"\x0a\xc0\x3e" * (size // 6)
    _overlap(directory / "m.zip", body, b"m%05d.data", size // 2 // 60)
    return directory / "m.zip"


def zip_bomb(directory: Path, size: int) -> Path:
    """A zip archive of a data file that is deflated a thousand to one."""
    made = _bundle(np.zeros(4, np.float32))
    path = directory / "m.zip"
    _zip_of_zeros(path, b"m.data-00000-of-00001", max(1, size // 1024))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("m.index", made.index())
    return path


def zip_nested(directory: Path, size: int) -> Path:
    """A zip archive of zip archives, of which each holds an empty index."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("m.index", b"")
    path = directory / "m.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(max(LEAST, size // 240)):
            archive.writestr(f"m{number:05}.zip", inner.getvalue())
    return path


def _tar(path: Path, names: list[str], data: bytes = b"", mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def tar_members(directory: Path, size: int) -> Path:
    """A tar archive of empty members."""
    names = [f"m{number:06}.index" for number in range(max(LEAST, size // 512))]
    return _tar(directory / "m.tar", names)


def tar_compressed(directory: Path, size: int) -> Path:
    """The same, compressed: there are fifty times more."""
    count = max(LEAST, size // 15)
    header = np.frombuffer(tarfile.TarInfo("m000000.index").tobuf(), np.uint8)
    total = int(header[:148].sum() + header[156:].sum()) + 8 * 0x20
    path = directory / "m.tar.gz"
    with gzip.open(path, "wb", compresslevel=6) as archive:
        for start in range(0, count, 1 << 14):
            numbers = np.arange(start, min(count, start + (1 << 14)))[:, None]
            digits = numbers // 10 ** np.arange(5, -1, -1) % 10
            sums = (total + digits.sum(axis=1))[:, None] >> np.arange(15, -1, -3) & 7
            made = np.tile(header, (len(numbers), 1))
            made[:, 1:7] += digits.astype(np.uint8)
            made[:, 148:154] = sums + ord("0")
            archive.write(made.tobytes())
        archive.write(bytes(1024))
    return path


def tar_long_names(directory: Path, size: int) -> Path:
    """A tar archive whose members have names of 16 KiB, in headers of their own."""
    name = "a/" * 8000
    names = [f"{name}m{number:06}.index" for number in range(max(2, size // 18_000))]
    return _tar(directory / "m.tar", names)


def tar_headers(directory: Path, size: int) -> Path:
    """A tar archive with one member, before which come headers about headers."""
    body = b"".join(b"%d k%07d=\n" % (14, n) for n in range(max(LEAST, size // 14)))
    header = tarfile.TarInfo("h")
    header.type, header.size = tarfile.XHDTYPE, len(body)
    data = header.tobuf() + body + bytes(-len(body) % 512)
    data += tarfile.TarInfo("m.index").tobuf() + bytes(1024)
    return _write(directory, data, "m.tar")


def tar_header_chain(directory: Path, size: int) -> Path:
    """A tar archive of headers, each about the next one."""
    header = tarfile.TarInfo("h")
    header.type, header.size = tarfile.XHDTYPE, 512
    body = b"12 path=aaa\n".ljust(512, b"\0")
    last = tarfile.TarInfo("m.index").tobuf() + bytes(1024)
    return _write(directory, _repeat(header.tobuf() + body, size) + last, "m.tar")


def tar_pax_members(directory: Path, size: int) -> Path:
    """A tar archive whose members have a pax header each, of which the next one overrides all."""
    path = directory / "m.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for number in range(max(2, size // 2048)):
            info = tarfile.TarInfo(f"m{number:06}.index")
            info.pax_headers = {"path": f"m{number:06}.index", "comment": "c" * 200}
            archive.addfile(info)
    return path


def tar_global_headers(directory: Path, size: int) -> Path:
    """A tar archive of global pax headers, each of which is valid for all that comes after it."""
    body = b"".join(b"16 k%07d=%d\n" % (n, n % 10) for n in range(30))
    header = tarfile.TarInfo("h")
    header.type, header.size = tarfile.XGLTYPE, len(body)
    one = header.tobuf() + body.ljust(512, b"\0") + tarfile.TarInfo("m.index").tobuf()
    return _write(directory, _repeat(one, size) + bytes(1024), "m.tar")


def tar_sparse(directory: Path, size: int) -> Path:
    """A tar archive whose members state a size of 8 GiB each."""
    data = bytearray()
    for number in range(max(2, size // 512)):
        info = tarfile.TarInfo(f"m{number:06}.index")
        info.size = 0
        data += info.tobuf()
    info = tarfile.TarInfo("m.data-00000-of-00001")
    info.size = 8 << 30
    return _write(directory, bytes(data) + info.tobuf(), "m.tar")


def tar_of_tars(directory: Path, size: int) -> Path:
    """A tar archive of tar archives."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("m.index"))
    names = [f"m{number:06}.tar" for number in range(max(2, size // 2048))]
    return _tar(directory / "m.tar", names, inner.getvalue()[:1024])


def gzip_members(directory: Path, size: int) -> Path:
    """An index in gzip, and then streams without bytes."""
    index = _bundle(np.float32(1)).index()
    data = gzip.compress(index) + _repeat(gzip.compress(b""), size)
    return _write(directory, data, "m.index.gz")


def gzip_nested(directory: Path, size: int) -> Path:
    """An index in gzip, in gzip, and so on, and then bytes."""
    data = _bundle(np.float32(1)).index() + np.random.default_rng(1).bytes(size)
    for _ in range(30):
        data = gzip.compress(data, compresslevel=1)
    return _write(directory, data, "m.index.gz")


def zip64_members(directory: Path, size: int) -> Path:
    """A zip archive whose members state their sizes in extra fields."""
    path = directory / "m.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(max(LEAST, size // 160)):
            with archive.open(f"m{number:05}.index", "w", force_zip64=True):
                pass
    return path


def zip_extras(directory: Path, size: int) -> Path:
    """A zip archive of members with extra fields of four bytes, as many as fit."""
    path = directory / "m.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(max(1, size // 120_000)):
            info = zipfile.ZipInfo(f"m{number:05}.index")
            info.extra = b"\xfe\xca\0\0" * 15_000
            archive.writestr(info, b"")
    return path


def zip_addresses(directory: Path, size: int) -> Path:
    """A zip archive of names that are like URLs, and lead up and down."""
    names = (
        f"http://host:{number}/../../a%2f..%2f/gs://b/m{number:05}.index"
        for number in range(max(LEAST, size // 200))
    )
    return _zip_of_empty(directory, names)


def gzip_bomb(directory: Path, size: int) -> Path:
    """Zeros in gzip, a thousand to one."""
    count = max(1, size // 1024)
    data, crc = _deflate_zeros(count)
    end = struct.pack("<II", crc, (count << 20) & 0xFFFFFFFF)
    return _write(directory, b"\x1f\x8b\x08" + bytes(7) + data + end, "m.gz")


# ---- arrays of other programs


def npz_arrays(directory: Path, size: int) -> Path:
    """An npz file of scalars."""
    path = directory / "m.npz"
    held = io.BytesIO()
    np.lib.format.write_array(held, np.array(np.float32(1)))
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(max(LEAST, size // 252)):
            archive.writestr(f"w{number:05}.npy", held.getvalue())
    return path


def npz_bomb(directory: Path, size: int) -> Path:
    """An npz file of zeros, deflated a thousand to one."""
    path = directory / "m.npz"
    count = max(1, size // 1024) << 18
    header = io.BytesIO()
    told = {"descr": "<f4", "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(header, told)
    _zip_of_zeros(path, b"w.npy", count >> 18, header.getvalue())
    return path


def npz_overlapping(directory: Path, size: int) -> Path:
    """An npz file whose members are all the same half of it."""
    body = _npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (%d,), }" % (size // 2))
    _overlap(directory / "m.npz", body + bytes(size // 2), b"m%05d.npy", size // 2 // 60)
    return directory / "m.npz"


def npz_odd_headers(directory: Path, size: int) -> Path:
    """An npz file of packed arrays whose headers are long, and not as numpy writes them."""
    told = b"{'descr': '<f4'" + b" ''" * 3000 + b", 'fortran_order': False, 'shape': (1,), }"
    path = directory / "m.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(max(LEAST, size // 260)):
            archive.writestr(f"w{number:05}.npy", _npy(told, bytes(4)))
    return path


def _npy(told: bytes, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x02\x00" + b.fixed32(len(told)) + told + data


def npy_pickle(directory: Path, size: int) -> Path:
    """A npy file of objects: a pickle, which nobody loads."""
    told = b"{'descr': '|O', 'fortran_order': False, 'shape': (%d,), }" % size
    return _write(directory, _npy(told, b"\x80\x04]" + b"N" * size), "m.npy")


def npz_pickles(directory: Path, size: int) -> Path:
    """An npz file of pickles."""
    told = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    path = directory / "m.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(max(LEAST, size // 220)):
            archive.writestr(f"w{number:05}.npy", _npy(told, b"\x80\x04]N."))
    return path


def npz_long_headers(directory: Path, size: int) -> Path:
    """An npz file of arrays of a hundred dimensions."""
    told = b"{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }" % (b"1," * 60)
    path = directory / "m.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(max(LEAST, size // 320)):
            archive.writestr(f"w{number:05}.npy", _npy(told, bytes(4)))
    return path


def tflite_tables(directory: Path, size: int) -> Path:
    """A TFLite file of vtables, of which each refers to the next one."""
    return _write(directory, b"\x1c\0\0\0TFL3" + b"\x04\0\0\0" * (size // 4), "m.tflite")


def npy_header(directory: Path, size: int) -> Path:
    """A npy file whose header is blanks."""
    told = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }".ljust(size, b" ")
    return _write(directory, _npy(told, bytes(4)), "m.npy")


def npy_shape(directory: Path, size: int) -> Path:
    """A npy file whose shape has as many dimensions as fit."""
    ones = b"1," * (size // 2)
    told = b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + ones + b"), }"
    return _write(directory, _npy(told, bytes(4)), "m.npy")


def npy_nesting(directory: Path, size: int) -> Path:
    """A npy file whose header has brackets in brackets."""
    deep = b"(" * (size // 2) + b")" * (size // 2)
    told = b"{'descr': '<f4', 'fortran_order': False, 'shape': " + deep + b", }"
    return _write(directory, _npy(told, bytes(4)), "m.npy")


def npy_fields(directory: Path, size: int) -> Path:
    """A npy file of one element with many fields."""
    fields = b",".join(b"('f%d','<f4')" % number for number in range(max(LEAST, size // 16)))
    told = b"{'descr': [" + fields + b"], 'fortran_order': False, 'shape': (1,), }"
    return _write(directory, _npy(told, bytes(4 * max(LEAST, size // 16))), "m.npy")


def _safetensors(directory: Path, header: bytes, data: bytes = b"") -> Path:
    return _write(directory, b.fixed64(len(header)) + header + data, "m.safetensors")


def safetensors_scalars(directory: Path, size: int) -> Path:
    """A safetensors file of scalars."""
    count = max(LEAST, size // 64)
    told = {
        f"w{n}": {"dtype": "F32", "shape": [], "data_offsets": [4 * n, 4 * n + 4]}
        for n in range(count)
    }
    return _safetensors(directory, json.dumps(told).encode(), bytes(4 * count))


def safetensors_same_bytes(directory: Path, size: int) -> Path:
    """A safetensors file whose tensors are all the same half of it."""
    half = size // 2 // 4 * 4
    one = {"dtype": "F32", "shape": [half // 4], "data_offsets": [0, half]}
    told = {f"w{n}": one for n in range(max(LEAST, half // 72))}
    return _safetensors(directory, json.dumps(told).encode(), bytes(half))


def safetensors_empty(directory: Path, size: int) -> Path:
    """A safetensors file of tensors without elements."""
    one = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    told = {f"w{n}": one for n in range(max(LEAST, size // 60))}
    return _safetensors(directory, json.dumps(told).encode())


def safetensors_rank(directory: Path, size: int) -> Path:
    """A safetensors file of one tensor with as many dimensions as fit."""
    told = {"w": {"dtype": "F32", "shape": [1] * (size // 3), "data_offsets": [0, 4]}}
    return _safetensors(directory, json.dumps(told).encode(), bytes(4))


def safetensors_metadata(directory: Path, size: int) -> Path:
    """A safetensors file of metadata."""
    told = {"__metadata__": {f"k{n}": "" for n in range(max(LEAST, size // 12))}}
    return _safetensors(directory, json.dumps(told).encode())


def safetensors_nesting(directory: Path, size: int) -> Path:
    """A safetensors file with brackets in brackets."""
    return _safetensors(directory, b'{"a":' + b"[" * (size // 2) + b"]" * (size // 2) + b"}")


def message_lengths(directory: Path, size: int) -> Path:
    """A message in which at every third byte something of the size that is sought may begin."""
    return _write(directory, b"\x0a\xc0\x3e" * (size // 3), "m.pb")


def message_tags(directory: Path, size: int) -> Path:
    """A message of tags, each before the next one."""
    return _write(directory, b"\x0a" * size, "m.pb")


def _hdf5(directory: Path, name: str = "m.h5") -> Any:
    import h5py

    return h5py.File(directory / name, "w", libver="latest")


def hdf5_groups(directory: Path, size: int) -> Path:
    """An HDF5 file of empty groups."""
    with _hdf5(directory) as file:
        for number in range(max(LEAST, size // 180)):
            file.create_group(f"g{number}")
    return directory / "m.h5"


def hdf5_deep(directory: Path, size: int) -> Path:
    """An HDF5 file of groups, one in another."""
    with _hdf5(directory) as file:
        group = file
        for _ in range(max(LEAST, size // 200)):
            group = group.create_group("g")
    return directory / "m.h5"


def hdf5_scalars(directory: Path, size: int) -> Path:
    """An HDF5 file of scalars."""
    with _hdf5(directory) as file:
        for number in range(max(LEAST, size // 320)):
            file[f"w{number}"] = np.float32(1)
    return directory / "m.h5"


def hdf5_links(directory: Path, size: int) -> Path:
    """An HDF5 file of one dataset under many names."""
    with _hdf5(directory) as file:
        file["w"] = np.zeros(16, np.float32)
        for number in range(max(LEAST, size // 40)):
            file.id.links.create_hard(b"w%d" % number, file.id, b"w")
    return directory / "m.h5"


def hdf5_cycles(directory: Path, size: int) -> Path:
    """An HDF5 file of few groups, of which each contains each, so that there is no end of paths."""
    with _hdf5(directory) as file:
        groups = [file.create_group(f"g{n}") for n in range(max(4, int((size / 40) ** 0.5)))]
        for group in groups:
            for number in range(len(groups)):
                group.id.links.create_hard(b"l%d" % number, file.id, b"g%d" % number)
    return directory / "m.h5"


def hdf5_attributes(directory: Path, size: int) -> Path:
    """An HDF5 file of attributes."""
    from h5py import h5a, h5s, h5t

    with _hdf5(directory) as file:
        space = h5s.create(h5s.SCALAR)
        one = np.array(1, np.int8)
        for number in range(max(LEAST, size // 60)):
            h5a.create(file.id, b"a%d" % number, h5t.STD_I8LE, space).write(one)
    return directory / "m.h5"


def hdf5_unwritten(directory: Path, size: int) -> Path:
    """An HDF5 file of datasets that state a terabyte each, and of which nothing is stored."""
    with _hdf5(directory) as file:
        for number in range(max(LEAST, size // 400)):
            file.create_dataset(f"w{number}", (1 << 38,), np.float32, chunks=(1 << 20,))
    return directory / "m.h5"


def hdf5_packed(directory: Path, size: int) -> Path:
    """An HDF5 file of small datasets that are packed, each of the size that is sought."""
    with _hdf5(directory) as file:
        for number in range(max(LEAST, size // 550)):
            file.create_dataset(f"w{number}", data=np.zeros(1000), chunks=(1000,), compression=9)
    return directory / "m.h5"


def hdf5_layouts(directory: Path, size: int) -> Path:
    """An HDF5 file that is nothing but the marks of datasets of the size that is sought."""
    mark = b"\x03\x01" + b.fixed64(16) + b.fixed64(8000)
    return _write(directory, b"\x89HDF\r\n\x1a\n" + _repeat(mark, size), "m.h5")


def hdf5_bomb(directory: Path, size: int) -> Path:
    """An HDF5 file of zeros, compressed a thousand to one."""
    with _hdf5(directory) as file:
        held = file.create_dataset(
            "w", (max(1, size // 1100) << 18,), np.float32, chunks=(1 << 18,), compression="gzip"
        )
        packed = zlib.compress(_MIB)
        for start in range(0, len(held), 1 << 18):
            held.id.write_direct_chunk((start,), packed)
    return directory / "m.h5"


def _keras(directory: Path, config: bytes) -> Path:
    import h5py

    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        file["layers/dense/vars/0"] = np.zeros((2, 2), np.float32)
    path = directory / "m.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", b'{"keras_version": "3.0.0"}')
        archive.writestr("config.json", config)
        archive.writestr("model.weights.h5", weights.getvalue())
    return path


def keras_layers(directory: Path, size: int) -> Path:
    """A Keras file whose config lists layers."""
    one = {"class_name": "Dense", "config": {"name": "d", "units": 2}}
    layers = [one] * max(LEAST, size // 66)
    told = {"class_name": "Sequential", "config": {"name": "m", "layers": layers}}
    return _keras(directory, json.dumps(told).encode())


def keras_nesting(directory: Path, size: int) -> Path:
    """A Keras file whose config has models in models."""
    deep = b'{"class_name":"Sequential","config":{"layers":['
    count = min(900, size // 50)
    config = deep * count + b"{}" * 1 + b"]}}" * count
    return _keras(directory, config.ljust(size, b" "))


def keras_inputs(directory: Path, size: int) -> Path:
    """A Keras file whose config has layers of long shapes, and names that are all the same."""
    one = {
        "class_name": "Dense",
        "config": {"name": "d", "units": 1, "dtype": {"config": {"name": "float32"}}},
        "build_config": {"input_shape": [None, *[1] * 100]},
        "inbound_nodes": [[["d", 0, 0, {}]] * 4],
    }
    layers = [one] * max(LEAST, size // len(json.dumps(one)))
    told = {"class_name": "Functional", "config": {"name": "m", "layers": layers}}
    return _keras(directory, json.dumps(told).encode())


def keras_config(directory: Path, size: int) -> Path:
    """The config alone, as a file of shapes."""
    one = {
        "class_name": "Dense",
        "config": {"name": "d", "units": 2, "batch_input_shape": [None, 2]},
    }
    layers = [one] * max(LEAST, size // len(json.dumps(one)))
    told = {"class_name": "Sequential", "config": {"name": "m", "layers": layers}}
    return _write(directory, json.dumps(told).encode(), "config.json")


def keras_brackets(directory: Path, size: int) -> Path:
    """A Keras file whose config has brackets in brackets."""
    return _keras(directory, b"[" * (size // 2) + b"]" * (size // 2))


# ---- directories


def folder_of_saves(directory: Path, size: int) -> Path:
    """A directory of checkpoints without a state file, in three files of no bytes each."""
    for number in range(max(LEAST, size // 160)):
        for end in (".index", ".data-00000-of-00001", ".meta"):
            _touch(directory / f"m-{number}{end}")
    (directory / "padding").write_bytes(bytes(size))
    return directory


def folder_of_copies(directory: Path, size: int) -> Path:
    """A directory of indexes without bytes, each named as a browser names another download."""
    for number in range(max(LEAST, size // 160)):
        _touch(directory / f"m ({number}).index")
        _touch(directory / f"m{number}.data-00000-of-00001")
    (directory / "padding").write_bytes(bytes(size))
    return directory


def folder_of_shards(directory: Path, size: int) -> Path:
    """A checkpoint, and beside it data files of others without an index."""
    for number in range(max(LEAST, size // 52)):
        _touch(directory / f"n-{number}.data-00000-of-00001")
    (directory / "padding").write_bytes(bytes(size))
    damaged = _save(directory / "m")
    _write(directory, b"\1\2\3\4", "m.data-00000-of-00001")
    return damaged


def folder_of_leftovers(directory: Path, size: int) -> Path:
    """A checkpoint, and beside it temporary files of saves."""
    for number in range(max(LEAST, size // 52)):
        _touch(directory / f"m.data-00000-of-00001.tempstate{number}")
        _touch(directory / f"m.index.tempstate{number}")
    (directory / "padding").write_bytes(bytes(size))
    damaged = _save(directory / "m")
    _write(directory, b"\1\2\3\4", "m.data-00000-of-00001")
    return damaged


def folder_of_lists(directory: Path, size: int) -> Path:
    """A directory of small checkpoints, all in its state file."""
    count = max(LEAST, size // 350)
    index = _bundle(np.float32(1)).index()
    for number in range(count):
        _write(directory, index, f"m-{number}.index")
        _write(directory, bytes(4), f"m-{number}.data-00000-of-00001")
    lines = "".join(f'all_model_checkpoint_paths: "m-{number}"\n' for number in range(count))
    _write(directory, f'model_checkpoint_path: "m-1"\n{lines}'.encode(), "checkpoint")
    return directory


def folder_of_arrays(directory: Path, size: int) -> Path:
    """A directory of arrays of one element each."""
    one = io.BytesIO()
    np.lib.format.write_array(one, np.array(np.float32(1)))
    for number in range(max(LEAST, size // 200)):
        _write(directory, one.getvalue(), f"w{number}.npy")
    return directory


def folder_of_folders(directory: Path, size: int) -> Path:
    """A directory of directories, of which each looks like a SavedModel."""
    for number in range(max(LEAST, size // 400)):
        (directory / f"{number}" / "variables").mkdir(parents=True)
        (directory / f"{number}" / "saved_model.pb").touch()
    (directory / "padding").write_bytes(bytes(size))
    return directory


KINDS = named(
    state_paths,
    state_lost_paths,
    state_patterns,
    state_times,
    state_short_times,
    state_long_line,
    state_long_parts,
    state_escapes,
    state_pieces,
    state_nesting,
    state_comments,
    state_unknown,
    state_blanks,
    event_records,
    event_numbers,
    event_lengths,
    event_graphs,
    zip_members,
    zip_folders,
    zip_saves,
    zip_deep,
    zip_overlapping,
    zip_messages,
    zip_bomb,
    zip_nested,
    tar_members,
    tar_compressed,
    tar_long_names,
    tar_headers,
    tar_header_chain,
    tar_pax_members,
    tar_global_headers,
    tar_sparse,
    tar_of_tars,
    gzip_members,
    gzip_nested,
    zip64_members,
    zip_extras,
    zip_addresses,
    gzip_bomb,
    npz_arrays,
    npz_bomb,
    npz_overlapping,
    npz_odd_headers,
    npy_pickle,
    npz_pickles,
    npz_long_headers,
    tflite_tables,
    npy_header,
    npy_shape,
    npy_nesting,
    npy_fields,
    safetensors_scalars,
    safetensors_same_bytes,
    safetensors_empty,
    safetensors_rank,
    safetensors_metadata,
    safetensors_nesting,
    message_lengths,
    message_tags,
    hdf5_groups,
    hdf5_deep,
    hdf5_scalars,
    hdf5_links,
    hdf5_cycles,
    hdf5_attributes,
    hdf5_unwritten,
    hdf5_packed,
    hdf5_layouts,
    hdf5_bomb,
    keras_layers,
    keras_nesting,
    keras_inputs,
    keras_config,
    keras_brackets,
    folder_of_saves,
    folder_of_copies,
    folder_of_shards,
    folder_of_leftovers,
    folder_of_lists,
    folder_of_arrays,
    folder_of_folders,
)
