"""Members of archives that lead elsewhere: by names, by links, by paths, by their bounds."""

from __future__ import annotations

import io
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import builder as b
import numpy as np
import pytest

import ckptparse
from ckptparse.errors import (
    CheckpointNotFoundError,
    DataLossError,
    MalformedError,
    NotACheckpointError,
    TruncatedError,
)
from ckptparse.files.archives.listing import _describe_sparse
from ckptparse.files.archives.storage import ArchiveStorage
from ckptparse.files.local import LOCAL
from ckptparse.files.memory import MemoryStorage
from ckptparse.limits import DEFAULT_LIMITS


def make_zip(files: Mapping[str, bytes], links: Mapping[str, str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        for name, target in links.items():
            info = zipfile.ZipInfo(name)
            info.create_system = 3
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, target)
    return out.getvalue()


def make_tar(
    files: Mapping[str, bytes], links: Mapping[str, str], kind: bytes = tarfile.SYMTYPE
) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, target in links.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    return out.getvalue()


def opened(data: bytes) -> ArchiveStorage:
    return ArchiveStorage(MemoryStorage({"x": data}), "x", DEFAULT_LIMITS)


# Each names, if what leads out is left out of it, a member that is there.
OUT = {
    "b/up": "../../secret",
    "b/far": "../../../../secret",
    "b/through": "../c/../../secret",
    "b/absolute": "/secret",
    "b/drive": "../C:/secret",
    "up": "../secret",
    "round": "round",
}
FILES = {"secret": b"inside", "b/secret": b"beside", "C/secret": b"drive"}


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_link_that_leads_out_of_an_archive_leads_nowhere(make: Callable[..., bytes]) -> None:
    storage = opened(make(FILES, {**OUT, "b/in": "../secret", "in": "b/in", "b/here": "secret"}))
    for name, wanted in (("b/in", b"inside"), ("in", b"inside"), ("b/here", b"beside")):
        assert storage.open(f"x/{name}").read_at(0, 6) == wanted
    for name, target in OUT.items():
        status = storage.stat(f"x/{name}")
        assert status is not None and (status.kind, status.target) == ("dangling", target)
        with pytest.raises(CheckpointNotFoundError):
            storage.open(f"x/{name}")


def test_a_hard_link_names_a_member_from_the_top_or_leads_nowhere() -> None:
    links = {"b/up": "../secret", "b/far": "b/../../secret", "b/drive": "C:/secret"}
    inside = {"b/top": "secret", "b/slash": "/secret"}
    storage = opened(make_tar(FILES, {**links, **inside}, tarfile.LNKTYPE))
    for name in inside:
        assert storage.open(f"x/{name}").read_at(0, 6) == b"inside"
    for name in links:
        with pytest.raises(CheckpointNotFoundError):
            storage.open(f"x/{name}")


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize(
    "name", ["../secret", "b/../../secret", "b/../secret", "/../secret", "C:/secret", "C:secret"]
)
def test_a_name_that_leads_out_is_told_and_is_no_file(
    make: Callable[..., bytes], name: str
) -> None:
    storage = opened(make({"m": b"1", name: b"not yours"}, {}))
    assert list(storage.listing().members) == ["m"]
    assert storage.listing().outside == [name]
    assert list(storage.list("x")) == ["m"]
    for path in (f"x/{name}", "x/secret"):
        assert storage.stat(path) is None
        with pytest.raises(CheckpointNotFoundError):
            storage.open(path)


def test_a_name_with_a_zero_is_no_file() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("m", "m\0x"):
            info = tarfile.TarInfo("m")
            info.pax_headers = {"path": name}
            archive.addfile(info)
    storage = opened(out.getvalue())
    assert list(storage.listing().members) == ["m"] and storage.listing().outside == ["m\0x"]


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_path_below_an_archive_leads_to_nothing_beside_it(
    make: Callable[..., bytes], tmp_path: Path
) -> None:
    made = b.Bundle()
    made.add("w", np.arange(3, dtype=np.int8))
    prefix = made.write(tmp_path / "m")
    packed = tmp_path / "in" / "a.zip"
    packed.parent.mkdir()
    packed.write_bytes(make({"b/x": b"1"}, {}))
    storage = ArchiveStorage(LOCAL, str(packed), DEFAULT_LIMITS)
    assert ckptparse.read(prefix)["w"].tolist() == [0, 1, 2]
    for way in ("../../m", "b/../../../m", "/../../m"):
        assert storage.stat(f"{packed}/{way}.index") is None
        with pytest.raises(CheckpointNotFoundError):
            storage.open(f"{packed}/{way}.index")
        with pytest.raises(ckptparse.CheckpointError):
            ckptparse.read(f"{packed}/{way}")


def test_what_is_no_file_is_not_opened() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind in (("c", tarfile.CHRTYPE), ("b", tarfile.BLKTYPE), ("f", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type = kind
            archive.addfile(info)
    storage = opened(out.getvalue())
    for name in "cbf":
        status = storage.stat(f"x/{name}")
        assert status is not None and status.kind == "other"
        with pytest.raises(NotACheckpointError, match="something else"):
            storage.open(f"x/{name}")


def test_a_link_in_a_zip_that_is_longer_than_any_path_is_a_file() -> None:
    """What it says is not read to list the archive: it may unpack to gigabytes."""
    target = "b/" * 2048 + "c"
    storage = opened(make_zip({}, {"long": target, "least": target[1:]}))
    kinds = {name: status.kind for name, status in storage.list("x").items()}
    assert kinds == {"long": "file", "least": "dangling"}


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_member_has_no_bytes_beyond_its_end(make: Callable[..., bytes]) -> None:
    storage = opened(make({"a": b"mine", "b": b"yours"}, {}))
    source = storage.open("x/a")
    assert source.read_at(1, 3) == b"ine"
    for offset, size in ((0, 5), (4, 1), (3, 2), (-1, 2)):
        with pytest.raises(TruncatedError):
            source.read_at(offset, size)
        with pytest.raises(TruncatedError):
            source.read_into(offset, memoryview(bytearray(size)))


def test_a_member_of_a_zip_lies_behind_a_header_of_its_own_and_in_the_archive() -> None:
    data = make_zip({"a": b"mine", "b": b"yours"}, {})
    second, directory = data.index(b"PK\3\4", 4), data.index(b"PK\1\2")
    for place, kind, value in (
        (directory + 42, "<L", 5),
        (directory + 42, "<L", len(data) - 29),
        (directory + 42, "<L", len(data) + 5),
        (26, "<H", 60_000),
        (28, "<H", len(data)),
        (directory + 24, "<L", 5),
        (second, "4s", b"PK\1\2"),
    ):
        changed = bytearray(data)
        struct.pack_into(kind, changed, place, value)
        storage = opened(bytes(changed))
        broken, right = ("b", "a") if place == second else ("a", "b")
        with pytest.raises(DataLossError):
            storage.open(f"x/{broken}")
        assert storage.open(f"x/{right}").read_at(0, 4) == {"a": b"mine", "b": b"your"}[right]


@pytest.mark.parametrize(
    "pairs", [[(0, 4), (2, 2)], [(4, -1)], [(5, 4)], [(0, 2), (8, 1)], [(-1, 2)], [(9, 0)]]
)
def test_a_sparse_member_is_laid_out_within_its_size(pairs: list[tuple[int, int]]) -> None:
    source = MemoryStorage({"x": bytes(100)}).open("x")
    held = _describe_sparse(10, 8, [(1, 2), (4, 3)], source)
    assert held.stretches == ((None, 1), (10, 2), (None, 1), (12, 3), (None, 1))
    with pytest.raises(MalformedError, match="sparse"):
        _describe_sparse(10, 8, pairs, source)


def test_two_members_of_one_name_are_told_when_one_is_opened() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("/w", b"1")
        archive.writestr("./w", b"2")
        archive.writestr("v", b"3")
    storage = opened(out.getvalue())
    assert storage.open("x/v").read_at(0, 1) == b"3"
    with pytest.raises(MalformedError, match="Two members"):
        storage.open("x/w")


def test_a_header_that_leads_back_to_an_earlier_one_is_damage() -> None:
    """The size of a sparse member is negative, and the one that it says to have is not."""
    data = bytearray(make_tar({"a": b"mine", "b": b"yours"}, {})[:2048])
    info = tarfile.TarInfo("s")
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    # Base 256, as GNU's tar writes what is too large for digits: from byte 2560 back to 1024.
    header[124:136] = (-1536).to_bytes(12, "big", signed=True)
    header[483:495] = b"00000000010\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    storage = opened(bytes(data + header + bytes(1024)))
    # Later releases of Python see it themselves, and say that it is no header.
    with pytest.raises(MalformedError, match=r"earlier place|header of a member"):
        storage.listing()
