"""Archives, and whatever `identify` is asked about."""

from __future__ import annotations

import gzip
import io
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from functools import cache
from typing import Literal

import ckptparse
from fuzz import mutators, seeds
from fuzz.oracle import LIMITS, BrokenPromiseError, attempt, check_printable, examine
from fuzz.targets.target import Target

__all__ = ["TARGETS", "archive_seeds"]

NAMES = ("m.zip", "m.tar", "m.gz", "m.npz", "m.safetensors", "m.h5")
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
    store = {name: data}
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


def tarred(members: list[tuple[str, bytes]], mode: Literal["w", "w:gz", "w:bz2"] = "w") -> bytes:
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
    yield tarred(members)
    yield tarred(members, "w:gz")
    yield gzip.compress(contents[0])


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
        return tarred(members, rng.choice(["w", "w:gz", "w:bz2"]))
    # zipfile warns of names that are there twice.
    members = list(dict(members).items())
    return zipped(
        members, rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
    )


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


TARGETS = [
    Target("identify", run_identify, identify_seeds, mutators.either(mutators.message)),
    Target("archive", run_archive, archive_seeds, mutate_archive),
]
