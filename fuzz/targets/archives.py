"""Archives, and whatever `identify` is asked about."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from typing import Literal

import builder as b

import ckptparse
from fuzz import mutators, seeds
from fuzz.oracle import LIMITS, BrokenPromiseError, attempt, check_printable, examine
from fuzz.targets.target import Target

__all__ = ["TARGETS", "archive_seeds"]

NAMES = ("m.zip", "m.tar", "m.gz", "m.npz", "m.safetensors", "m.h5", "m.zip/run", "m.tar/run/m")
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
MODES: tuple[Literal["w", "w:gz", "w:bz2", "w:xz"], ...] = ("w", "w:gz", "w:bz2", "w:xz")
MEMBERS = ("run/m.index", "run/m.data-00000-of-00001", "run/checkpoint", "../x", "/x", "a\\b", "x")


def run_identify(data: bytes) -> None:
    """Whatever a file holds, `identify` says something about it."""
    found = attempt(ckptparse.identify, "f", store={"f": data}, limits=LIMITS)
    if isinstance(found, ckptparse.CheckpointError):
        raise BrokenPromiseError(f"identify raised {found!r}")
    check_printable(f"{found} {found.described}")


def run_archive(data: bytes) -> None:
    """Whatever an archive holds, opening it gives values or an error of the package."""
    name = NAMES[zlib.crc32(data) % len(NAMES)]
    store = {name.partition("/")[0]: data}
    attempt(ckptparse.read, name, store=store, limits=LIMITS)
    attempt(examine, name, store)
    attempt(ckptparse.recover, name, store=store, limits=LIMITS)


@cache
def small_bundle() -> tuple[bytes, bytes]:
    """Return a small index, and its data file."""
    index = min(seeds.FIXTURES.rglob("*.index"), key=lambda path: path.stat().st_size)
    data = index.with_name(index.name.removesuffix(".index") + ".data-00000-of-00001")
    return index.read_bytes(), data.read_bytes()


def zipped(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    """Make a zip."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return stream.getvalue()


def tarred(
    members: list[tuple[str, bytes]], mode: Literal["w", "w:gz", "w:bz2", "w:xz"] = "w"
) -> bytes:
    """Make a tar, compressed or not."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def archive_seeds() -> Iterator[bytes]:
    """Make archives of a bundle, with a member that leads elsewhere."""
    contents = (*small_bundle(), b'model_checkpoint_path: "m"\n', b"x")
    members = list(zip(MEMBERS, contents, strict=False))
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        yield zipped(members, method)
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        yield zipped(members, method)
    for mode in MODES:
        yield tarred(members, mode)
    yield gzip.compress(contents[0])
    whole = tarred(members)
    yield from (bz2.compress(whole), lzma.compress(whole), bz2.compress(contents[0]))
    yield whole[: len(whole) // 2]
    if find_spec("zstandard") is not None:
        import zstandard

        yield zstandard.ZstdCompressor().compress(whole)
    yield linked(members)
    yield linked_zip(members)
    yield sparse(contents[1])
    yield zipped([(name.replace("run/", "run\\"), data) for name, data in members])
    yield zipped([(f"{n}/{name}", data) for n in range(3) for name, data in members[:2]])


def linked(members: list[tuple[str, bytes]]) -> bytes:
    """Make a tar with links, a directory, a device, and names in the form of pax."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members:
            member = tarfile.TarInfo(f"real/{name}")
            member.size, member.pax_headers = len(content), {"comment": "ü", "mtime": "1.5"}
            archive.addfile(member, io.BytesIO(content))
        links = [("run/m.index", "../real/run/m.index"), ("run/x", "/etc/passwd")]
        links += [("run/m.data-00000-of-00001", "../real/run/m.data-00000-of-00001"), ("a", "a")]
        for name, target in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
        kinds = (tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)
        for number, kind in enumerate(kinds):
            member = tarfile.TarInfo(f"kind{number}")
            member.type, member.linkname = kind, "real/run/m.index"
            archive.addfile(member)
    return stream.getvalue()


def linked_zip(members: list[tuple[str, bytes]]) -> bytes:
    """Make a zip with a link and a directory."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.mkdir("run") if hasattr(archive, "mkdir") else None
        for name, content in members[:2]:
            archive.writestr(f"real/{name}", content)
            link = zipfile.ZipInfo(name)
            link.create_system, link.external_attr = 3, 0o120777 << 16
            archive.writestr(link, f"../real/{name}")
    return stream.getvalue()


def sparse(data: bytes) -> bytes:
    """Make a tar with a sparse member of GNU's old form: its second half is stored."""
    half = len(data) // 2
    header = bytearray(tarfile.TarInfo("run/m.data-00000-of-00001").tobuf(tarfile.GNU_FORMAT))
    stored = data[half:]
    header[124:136] = b"%011o\0" % len(stored)
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:410] = b"%011o\0%011o\0" % (half, len(stored))
    header[483:495] = b"%011o\0" % len(data)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + stored.ljust(-(-len(stored) // 512) * 512, b"\0") + bytes(1024)


def mutate_archive(data: bytes, rng: random.Random) -> bytes:
    """Make another archive of a changed bundle, or change the bytes of this one."""
    kind = rng.randrange(8)
    if kind > 4:
        return mutators.blind(data, rng)
    if kind == 4:
        return lie(data, rng)
    index, shard = small_bundle()
    contents = [mutators.table(index, rng), mutators.blind(shard, rng), index, data[:2000]]
    names = [rng.choice(MEMBERS) for _ in range(rng.randrange(5))]
    members = [(name, rng.choice(contents)) for name in names]
    if rng.randrange(2):
        members[:0] = [(MEMBERS[0], contents[0]), (MEMBERS[1], shard)]
    if kind == 0:
        return gzip.compress(tarred(members))
    if kind == 1:
        return tarred(members, rng.choice(MODES))
    # zipfile warns of names that are there twice.
    members = list(dict(members).items())
    return zipped(members, rng.choice(METHODS))


def lie(data: bytes, rng: random.Random) -> bytes:
    """Change a number in the directory of a zip."""
    places = [
        n for n in range(len(data) - 4) if data[n : n + 4] in (b"PK\1\2", b"PK\3\4", b"PK\5\6")
    ]
    if not places:
        return mutators.blind(data, rng)
    place = rng.choice(places) + rng.choice([6, 8, 10, 16, 20, 24, 28, 42])
    out = bytearray(data)
    out[place : place + 4] = struct.pack("<I", rng.choice([0, 1, 8, 99, 1 << 31, (1 << 32) - 1]))
    return bytes(out)


def identify_seeds() -> Iterator[bytes]:
    """Give files of every kind that has a fixture, and some that are none of ours."""
    yield from archive_seeds()
    yield from seeds.files("*.index", "*.pb", "*.meta", "*.pbtxt", "checkpoint", "*.cpb")
    yield b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12\n"
    yield b"<!DOCTYPE html><title>404</title>"
    yield b'{"format": 1, "weight_map": {}}'
    heads: tuple[bytes, ...] = (
        b"PK\3\4",
        b"\x80\x04\x95",
        b"\x89HDF\r\n\x1a\n",
        b"\x93NUMPY\x01\0",
        b"(\xb5/\xfd",
    )
    heads += (
        b"\x1c\0\0\0TFL3",
        b"\0\x05\x16\x07",
        b"\xfd7zXZ\0",
        b"BZh9",
        b"\x1f\x8b\x08",
        b"RIFF",
    )
    heads += (b"\0" * 64, b"<Error><Code>AccessDenied</Code></Error>", b'{"error": {"code": 403}}')
    heads += (b"\xef\xbf\xbd" * 40, b"\xff\xfeh\0i\0", b"%PDF-1.4", b"\x7fELF", b"version 1\n")
    yield from (head + bytes(80) for head in heads)
    keras = [("metadata.json", b"{}"), ("config.json", b"{}"), ("model.weights.h5", b"\x89HDF")]
    yield zipped(keras)
    yield zipped([("archive/data.pkl", b"\x80"), ("archive/version", b"3")])
    yield zipped([("a.npy", b"\x93NUMPY\x01\0")])
    yield b"\x0c\0\0\0\0\0\0\0" + b.fixed32(b.masked_crc(b"\x0c" + bytes(7))) + bytes(20)


TARGETS = [
    Target("identify", run_identify, identify_seeds, mutators.either(mutators.message)),
    Target("archive", run_archive, archive_seeds, mutate_archive),
]
