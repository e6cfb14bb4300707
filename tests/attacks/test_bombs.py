"""Archives that cost far more than their size, and names in them that lead elsewhere."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import builder as b
import numpy as np
import pytest
from attacking import attempt, attempt_each

import ckptparse
from ckptparse.files.archives.listing import find_packed
from ckptparse.files.archives.storage import MemberSource
from ckptparse.files.archives.unpacking import iter_member
from ckptparse.files.memory import MemoryStorage
from ckptparse.limits import DEFAULT_LIMITS

LIMITS = {"decompressed_bytes": 8 << 20}
"""A bomb goes off up to here."""
PIECE = 1 << 20
COUNT = 24
"""So many pieces of zeros are what a bomb unpacks to: three times the limit."""
ERRORS = {
    name
    for name, kind in ((name, getattr(ckptparse, name)) for name in ckptparse.__all__)
    if isinstance(kind, type) and issubclass(kind, ckptparse.CheckpointError)
}
READERS = ("list", "read", "verify", "recover")


def write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def checkpoint() -> dict[str, bytes]:
    made = b.Bundle()
    made.add("w", np.arange(9, dtype=np.float32))
    return dict(made.files("m"))


# tar.


def head(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, leads_to: str = "") -> bytes:
    """The header of a member of a tar, whatever comes after it."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, leads_to
    return info.tobuf(tarfile.GNU_FORMAT)


def tar_of(files: dict[str, bytes]) -> bytes:
    parts = [head(name, len(data)) + data + bytes(-len(data) % 512) for name, data in files.items()]
    return b"".join(parts) + bytes(1024)


def extended(data: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """A header that describes the next one."""
    return head("x", len(data), kind) + data + bytes(-len(data) % 512)


def wide(key: str, value: str) -> bytes:
    """A line of a pax header, with its own length before it."""
    rest = f" {key}={value}\n"
    size = len(rest) + len(str(len(rest)))
    return f"{len(rest) + len(str(size))}{rest}".encode()


def zstd(data: bytes) -> bytes:
    packed: bytes = pytest.importorskip("zstandard").ZstdCompressor().compress(data)
    return packed


STREAMS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstd,
}
"""Each kind may hold several streams, one after the other: a bomb repeats one of zeros."""


@pytest.mark.parametrize("kind", STREAMS)
def test_a_packed_tar_of_zeros_is_refused_at_the_limit(tmp_path: Path, kind: str) -> None:
    """Some kilobytes that unpack to 24 MiB."""
    pack = STREAMS[kind]
    data = pack(head("m.index", COUNT * PIECE)) + COUNT * pack(bytes(PIECE))
    found = attempt(write(tmp_path, f"m.tar.{kind}", data), limits=LIMITS)
    assert found["identify"] == "value"
    assert {found[name] for name in READERS} == {"LimitError"}


@pytest.mark.parametrize("kind", STREAMS)
def test_packed_in_packed_is_unpacked_no_deeper_than_its_first_kind(
    tmp_path: Path, kind: str
) -> None:
    pack = STREAMS[kind]
    inner = pack(pack(head("m.index", COUNT * PIECE) + bytes(COUNT * PIECE)))
    found = attempt(write(tmp_path, f"m.tar.{kind}", inner), limits=LIMITS)
    assert found["identify"] == "value"
    # The dictionary that xz has by itself is as large as the limit.
    assert found["read"] == ("LimitError" if kind == "xz" else "NotACheckpointError")


def test_a_tar_of_very_many_members_is_refused_at_the_limit(tmp_path: Path) -> None:
    data = gzip.compress(b"".join(head(f"{number}") for number in range(6_000)) + bytes(1024))
    path = write(tmp_path, "m.tar.gz", data)
    found = attempt(path, *READERS, limits={"members": 5_000})
    assert set(found.values()) == {"LimitError"}


HEADERS = {
    "2**60 bytes": head("m.index", 1 << 60) + b"x",
    "2**62 bytes by pax": extended(wide("size", str(1 << 62))) + head("m.index"),
    "a negative size": extended(wide("size", "-1")) + head("m.index"),
    "a size of 6000 digits": extended(wide("size", "9" * 6_000)) + head("m.index"),
    "200,000 directories": extended(wide("path", "a/" * 200_000 + "m.index")) + head("m.index"),
    "no line of pax": extended(b"9" * 200_000) + head("m.index"),
    "a line's length that lies": extended(b"1 a=\n" * 100_000) + head("m.index"),
    "20,000 fields": extended(b"".join(wide(f"k{n}", "v") for n in range(20_000)))
    + head("m.index"),
    "headers of headers": extended(wide("a", "b")) * 5_000 + head("m.index"),
    "names of names": extended(b"m\0", tarfile.GNUTYPE_LONGNAME) * 5_000,
    "a name of a terabyte": head("x", 1 << 40, tarfile.GNUTYPE_LONGNAME) + b"x",
    "a sparse map of 50,000": extended(wide("GNU.sparse.map", "1,0," * 50_000 + "1,0"))
    + head("m.index"),
    "a sparse map that is cut": extended(
        wide("GNU.sparse.major", "1") + wide("GNU.sparse.minor", "0")
    )
    + head("m.index", 512)
    + b"99999999\n".ljust(512, b"1"),
    "a sparse map of the old kind": head("m.index", 512, tarfile.GNUTYPE_SPARSE) + bytes(512),
}


def test_a_header_of_a_tar_that_asks_for_much_costs_little(tmp_path: Path) -> None:
    paths = [
        write(tmp_path, f"{number}.tar", data + bytes(1024))
        for number, data in enumerate(HEADERS.values())
    ]
    attempt_each(paths, "identify", "read", "recover")


def test_a_sparse_member_of_a_terabyte_takes_neither_disk_nor_memory(tmp_path: Path) -> None:
    described = wide("GNU.sparse.major", "1") + wide("GNU.sparse.minor", "0")
    described += wide("GNU.sparse.name", "m.index") + wide("GNU.sparse.realsize", str(1 << 40))
    plan = b"1\n0\n3\n".ljust(512, b"\0") + b"abc"
    data = extended(described) + head("m.index", len(plan)) + plan + bytes(2048 - len(plan))
    found = attempt(write(tmp_path, "m.tar", data))
    assert found["read"] == found["list"] == "LimitError"


def test_links_to_links_by_the_thousand_lead_nowhere(tmp_path: Path) -> None:
    links = (head(f"{n}", 0, tarfile.SYMTYPE, f"{n + 1}") for n in range(4_000))
    loop = head("m.index", 0, tarfile.SYMTYPE, "m.index")
    found = attempt(write(tmp_path, "m.tar", b"".join(links) + loop + bytes(1024)))
    assert found["read"] in ERRORS


# zip.


@dataclass(frozen=True)
class Packed:
    """A member of a zip: what lies there, and what is said of it."""

    name: str
    data: bytes
    size: int
    method: int = zipfile.ZIP_DEFLATED
    attributes: int = 0
    checksum: int = 0


def zip_of(members: Sequence[Packed]) -> bytes:
    """A zip that says what it is told."""
    out, directory, count = bytearray(), bytearray(), len(members)
    for one in members:
        name = one.name.encode()
        fields = (20, 0, one.method, 0, 0, one.checksum, len(one.data), one.size, len(name), 0)
        rest = (0, 0, 0, one.attributes, len(out))
        out += struct.pack("<4s5H3L2H", b"PK\3\4", *fields) + name + one.data
        directory += struct.pack("<4s6H3L5H2L", b"PK\1\2", 0x314, *fields, *rest) + name
    end = (0, 0, count & 0xFFFF, count & 0xFFFF, len(directory), len(out), 0)
    return bytes(out + directory) + struct.pack("<4s4H2LH", b"PK\5\6", *end)


def deflated(count: int) -> bytes:
    """So many pieces of zeros: what comes after a full flush can be repeated."""
    packer = zlib.compressobj(wbits=-15)
    piece = packer.compress(bytes(PIECE)) + packer.flush(zlib.Z_FULL_FLUSH)
    return piece * count + packer.flush()


def stored(files: dict[str, bytes]) -> list[Packed]:
    return [Packed(name, data, len(data), zipfile.ZIP_STORED) for name, data in files.items()]


@pytest.mark.parametrize("said", [COUNT * PIECE, 100, 0xFFFFFFFE])
def test_a_packed_member_is_refused_at_the_limit_whatever_size_it_says(
    tmp_path: Path, said: int
) -> None:
    data = zip_of([Packed("m.index", deflated(COUNT), said)])
    found = attempt(write(tmp_path, "m.zip", data), limits=LIMITS)
    assert found["read"] == ("MalformedError" if said == 100 else "LimitError")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_methods_of_a_zip_are_bounded_too(tmp_path: Path, method: int) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr("m.index", bytes(COUNT * PIECE))
    found = attempt(write(tmp_path, "m.zip", out.getvalue()), limits=LIMITS)
    assert found["read"] == found["list"] == "LimitError"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_is_unpacked_at_once_is_a_piece(method: int) -> None:
    """`zipfile` would unpack all of it at once: gigabytes, of a few kilobytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr("m", bytes(5 * PIECE))
        (info,) = archive.infolist()
    source = MemoryStorage({"x": out.getvalue()}).open("x")
    start, size = find_packed(source, info)
    packed = MemberSource("x/m", source, start, size)
    pieces = [len(piece) for piece in iter_member(packed, info, DEFAULT_LIMITS)]
    assert max(pieces) <= PIECE and sum(pieces) == 5 * PIECE


def test_a_dictionary_of_four_gigabytes_in_a_zip_is_refused(tmp_path: Path) -> None:
    """The size that LZMA takes in memory stands in the file."""
    body = b"\x09\x04" + struct.pack("<H", 5) + b"\x5d" + struct.pack("<L", 0xFFFFFFFF) + bytes(99)
    data = zip_of([Packed("m.index", body, 100, zipfile.ZIP_LZMA)])
    assert attempt(write(tmp_path, "m.zip", data))["read"] == "LimitError"


def of_zeros(shards: int) -> bytes:
    """A checkpoint whose data files each unpack to 6 MiB, from kilobytes."""
    made = b.Bundle()
    zeros = bytes(6 * PIECE)
    crc = b.masked_crc(zeros)
    for shard in range(shards):
        made.shards[shard] = bytearray(zeros)
        made.entries[b"w%03d" % shard] = b.Entry(b.UINT8, (len(zeros),), shard, 0, len(zeros), crc)
    names = [name for name in made.files("m") if ".data-" in name]
    members = stored({"m.index": made.files("m")["m.index"]})
    members += [Packed(name, deflated(6), len(zeros), checksum=zlib.crc32(zeros)) for name in names]
    return zip_of(members)


def test_members_that_lie_over_each_other_are_refused(tmp_path: Path) -> None:
    """One header, of another name, for all."""
    data = bytearray(zip_of(stored(checkpoint())))
    first = data.index(b"PK\1\2")
    second = data.index(b"PK\1\2", first + 4)
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    assert attempt(write(tmp_path, "m.zip", bytes(data)))["read"] != "value"


def test_members_are_bounded_together(tmp_path: Path) -> None:
    """Each lies within the limit; there are as many as the index names."""
    path = write(tmp_path, "m.zip", of_zeros(20))
    found = attempt(path, "read", "verify", limits=LIMITS)
    assert found["read"] == "LimitError"


@pytest.mark.parametrize("count", [30_000, 300_000])
def test_a_zip_of_very_many_members_is_refused_at_the_limit(tmp_path: Path, count: int) -> None:
    data = zip_of([Packed("n", b"", 0)] * count)
    found = attempt(write(tmp_path, "m.zip", data), "list", limits={"members": 20_000})
    assert set(found.values()) == {"LimitError"}


def test_names_of_very_many_directories_cost_no_memory(tmp_path: Path) -> None:
    names = [f"{number}" + "/a" * 30_000 for number in range(20)]
    found = attempt(write(tmp_path, "m.zip", zip_of([Packed(name, b"", 0) for name in names])))
    assert found["read"] in ERRORS


def test_zips_in_zips_are_opened_as_far_as_the_path_goes(tmp_path: Path) -> None:
    data = zip_of(stored(checkpoint()))
    for _ in range(500):
        data = zip_of(stored({"a.zip": data}))
    path = write(tmp_path, "a.zip", data)
    assert attempt(path)["read"] in ERRORS
    for depth in (20, 500):
        attempt(f"{path}" + "/a.zip" * depth + "/m")


def test_a_zip_that_holds_itself_has_an_end(tmp_path: Path) -> None:
    """Its one member is stored, and its bytes are those of the whole zip."""
    data = bytearray(zip_of(stored({"m.zip": b"x"})))
    at = data.index(b"PK\1\2")
    for place, size in ((18, at), (22, at), (at + 20, at), (at + 24, at)):
        struct.pack_into("<L", data, place, size - 35)
    path = write(tmp_path, "m.zip", bytes(data))
    for name in ("", "/m.zip", "/m.zip/m.zip/m.zip"):
        attempt(f"{path}{name}")


# Names.


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_a_member_that_would_lie_elsewhere_is_opened_nowhere_and_writes_nothing(
    tmp_path: Path, kind: str
) -> None:
    names = ("../m", "a/../../m", "/../m", "C:/m", "..\\m", "\x1b[2J/m", "a\nb/m", "m/../m")
    folder = tmp_path / "in"
    folder.mkdir()
    paths: list[str] = []
    for number, name in enumerate(names):
        files = {f"{name}{Path(key).suffix}": data for key, data in checkpoint().items()}
        data = zip_of(stored(files)) if kind == "zip" else tar_of(files)
        packed = gzip.compress(data) if kind == "tar.gz" else data
        path = str(write(folder, f"{number}.{kind}", packed))
        paths += [path, f"{path}/{name}"]
    attempt_each(paths, "identify", "read", "recover")
    for number, path in enumerate(paths):
        with suppress(ckptparse.CheckpointError):
            ckptparse.recover(path).write(tmp_path / "out" / str(number))
    assert sorted(one.name for one in folder.iterdir()) == [
        f"{n}.{kind}" for n in range(len(names))
    ]
    assert {one.name for one in tmp_path.iterdir()} <= {"in", "out"}
