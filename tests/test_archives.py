"""Checkpoints inside archives: by the archive's path, by a path into it, from anywhere."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import builder
import numpy as np
import pytest
from storage_suite import StorageSuite, tree

import ckptparse
from ckptparse.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    DataLossError,
    LimitError,
    MalformedError,
    NotACheckpointError,
    OutputError,
    TruncatedError,
    UnsupportedError,
)
from ckptparse.files.archives.damaged import iter_local_members
from ckptparse.files.archives.storage import ArchiveStorage
from ckptparse.files.local import LOCAL
from ckptparse.files.memory import MemoryStorage
from ckptparse.files.storage import Storage
from ckptparse.limits import DEFAULT_LIMITS, Limits

Pack = Callable[[Mapping[str, bytes]], bytes]


def pack_zip(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def pack_tar(files: Mapping[str, bytes], format: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for name, data in files.items():
            add(archive, name, data)
    return out.getvalue()


def add(archive: tarfile.TarFile, name: str, data: bytes = b"", **fields: Any) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    archive.addfile(info, io.BytesIO(data))


def tar_of(make: Callable[[tarfile.TarFile], None], **options: Any) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", **options) as archive:
        make(archive)
    return out.getvalue()


def pack_zstd(data: bytes) -> bytes:
    zstandard = pytest.importorskip("zstandard")
    packed: bytes = zstandard.ZstdCompressor().compress(data)
    return packed


PACKS: dict[str, Pack] = {
    ".zip": pack_zip,
    " stored.zip": lambda files: pack_zip(files, zipfile.ZIP_STORED),
    " bzip2.zip": lambda files: pack_zip(files, zipfile.ZIP_BZIP2),
    " lzma.zip": lambda files: pack_zip(files, zipfile.ZIP_LZMA),
    ".tar": pack_tar,
    " pax.tar": lambda files: pack_tar(files, tarfile.PAX_FORMAT),
    " ustar.tar": lambda files: pack_tar(files, tarfile.USTAR_FORMAT),
    ".tar.gz": lambda files: gzip.compress(pack_tar(files)),
    ".tgz of two streams": lambda files: (
        gzip.compress(pack_tar(files)[:1000]) + gzip.compress(pack_tar(files)[1000:])
    ),
    ".tar.bz2": lambda files: bz2.compress(pack_tar(files)),
    ".tar.xz": lambda files: lzma.compress(pack_tar(files)),
    ".tar.zst": lambda files: pack_zstd(pack_tar(files)),
}


class _Archive(StorageSuite):
    """The suite of storages, of one way to pack."""

    pack: Pack

    def place(self, files: Mapping[str, bytes]) -> tuple[Storage, str]:
        path = self.tmp_path / "a.b"
        path.write_bytes(type(self).pack(files))
        return ArchiveStorage(LOCAL, str(path), DEFAULT_LIMITS), str(path)


class TestZip(_Archive):
    pack = staticmethod(pack_zip)


class TestStoredZip(_Archive):
    pack = staticmethod(PACKS[" stored.zip"])


class TestTar(_Archive):
    pack = staticmethod(pack_tar)


class TestPackedTar(_Archive):
    pack = staticmethod(PACKS[".tar.gz"])


class TestTarInMemory(StorageSuite):
    def place(self, files: Mapping[str, bytes]) -> tuple[Storage, str]:
        storage = MemoryStorage({"x/a": pack_tar(files)})
        return ArchiveStorage(storage, "x/a", DEFAULT_LIMITS), "x/a"


# One checkpoint, by the path of the archive.


@pytest.fixture
def model(fixtures: Path) -> dict[str, bytes]:
    files = tree(fixtures / "saver")
    return {name: data for name, data in files.items() if name.startswith("saver/my_model.")}


@pytest.fixture
def wanted(fixtures: Path) -> dict[str, Any]:
    return ckptparse.read(fixtures / "saver" / "my_model")


def same(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("ending", PACKS)
def test_the_only_checkpoint_is_meant_by_the_archive(
    ending: str, tmp_path: Path, model: dict[str, bytes], wanted: dict[str, Any]
) -> None:
    path = tmp_path / f"m{ending}"
    path.write_bytes(PACKS[ending](model))
    same(ckptparse.read(path), wanted)
    assert ckptparse.verify(path).ok


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz"])
def test_content_tells_an_archive_and_not_its_name(
    ending: str, tmp_path: Path, model: dict[str, bytes], wanted: dict[str, Any]
) -> None:
    path = tmp_path / "download"
    path.write_bytes(PACKS[ending](model))
    same(ckptparse.read(path), wanted)
    # A directory may be called like an archive.
    folder = tmp_path / "folder.tar.gz"
    for name, data in model.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    same(ckptparse.read(folder / "saver" / "my_model"), wanted)


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz"])
@pytest.mark.parametrize("inside", ["saver/my_model", "saver/my_model.index", "saver", "saver/"])
def test_a_path_leads_into_an_archive(
    ending: str, inside: str, tmp_path: Path, model: dict[str, bytes], wanted: dict[str, Any]
) -> None:
    path = tmp_path / f"m{ending}"
    path.write_bytes(PACKS[ending](model))
    same(ckptparse.read(f"{path}/{inside}"), wanted)
    with pytest.raises(CheckpointNotFoundError):
        ckptparse.read(f"{path}/saver/no")


def test_every_reader_takes_an_archive(
    tmp_path: Path, model: dict[str, bytes], wanted: dict[str, Any], fixtures: Path
) -> None:
    path = tmp_path / "m.tar.gz"
    path.write_bytes(PACKS[".tar.gz"](model))
    plain = fixtures / "saver" / "my_model"
    assert ckptparse.list_variables(path) == ckptparse.list_variables(plain)
    with ckptparse.open(path) as checkpoint:
        assert checkpoint.path == f"{path}/saver/my_model"
        assert all(name.startswith(f"{path}/saver/my_model.") for name in checkpoint.files)
    same({name: one.read() for name, one in ckptparse.recover(path).items()}, wanted)
    assert next(iter(ckptparse.annotate(f"{path}/saver/my_model"))) is not None
    assert ckptparse.identify(f"{path}/saver/my_model").kind == "v2-prefix"
    (tmp_path / "out").mkdir()
    ckptparse.convert(path, tmp_path / "out" / "m")
    same(ckptparse.read(tmp_path / "out" / "m"), wanted)
    assert len(ckptparse.diff(path, plain).equal) == len(wanted)
    assert ckptparse.stats(path) == ckptparse.stats(plain)
    same(ckptparse.average([path, path]), wanted)
    # Of the archive itself it tells what it is.
    assert ckptparse.identify(path).kind == "gzip"


@pytest.mark.parametrize("command", ["ls", "info", "verify", "show", "dump"])
def test_every_command_takes_an_archive(
    command: str,
    tmp_path: Path,
    model: dict[str, bytes],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = pytest.importorskip("ckptparse.cli.app")
    (tmp_path / "m.tar.gz").write_bytes(PACKS[".tar.gz"](model))
    more = ["weights"] if command == "show" else []
    monkeypatch.setattr(sys, "argv", ["ckptparse", command, str(tmp_path / "m.tar.gz"), *more])
    with pytest.raises(SystemExit) as caught:
        app.run()
    assert not caught.value.code
    assert capsys.readouterr().out


def test_several_checkpoints_are_listed(tmp_path: Path, model: dict[str, bytes]) -> None:
    path = tmp_path / "two.zip"
    again = {f"again/{name}": data for name, data in model.items()}
    path.write_bytes(pack_zip({**model, **again}))
    with pytest.raises(NotACheckpointError) as caught:
        ckptparse.open(path)
    assert f"{path}/again/saver/my_model, {path}/saver/my_model" in str(caught.value)
    assert ckptparse.read(f"{path}/again/saver")


def test_of_several_in_one_directory_its_state_file_decides(tmp_path: Path) -> None:
    for number in (1, 2):
        bundle = builder.Bundle()
        bundle.add("w", np.float32(number))
        bundle.write(tmp_path / "run" / f"m-{number}")
    (tmp_path / "run" / "checkpoint").write_text('model_checkpoint_path: "m-1"\n')
    path = tmp_path / "run.tar"
    path.write_bytes(pack_tar(tree(tmp_path / "run")))
    assert float(ckptparse.read(path)["w"]) == 1


@pytest.mark.parametrize("ending", [".tar.gz", ".zip", ".tar"])
@pytest.mark.parametrize("top", ["", "./", "model/"])
def test_a_saved_model_of_a_hub_is_opened_as_it_comes(
    ending: str, top: str, tmp_path: Path, fixtures: Path
) -> None:
    """TF-Hub and Kaggle put `saved_model.pb` and `variables/` at the top of a tar archive."""
    files = {
        f"{top}{name.partition('/')[2]}": data
        for name, data in tree(fixtures / "saved_model" / "module").items()
    }
    path = tmp_path / f"hub{ending}"
    path.write_bytes(PACKS[ending](files))
    same(ckptparse.read(path), ckptparse.read(fixtures / "saved_model" / "module"))
    with ckptparse.open_saved_model(path) as model:
        assert model.variables.shapes()
        assert model.objects is not None


@pytest.mark.parametrize("name", ["v1/unsharded", "v1/sharded", "graphs/frozen_tf2"])
def test_v1_files_and_graphs_are_found_by_their_names(
    name: str, tmp_path: Path, fixtures: Path
) -> None:
    wanted = {
        "v1/unsharded": "model.ckpt-2",
        "v1/sharded": "model.ckpt-7",
        "graphs/frozen_tf2": "frozen.pb",
    }[name]
    files = {
        key: data
        for key, data in tree(fixtures / name).items()
        if Path(key).name.startswith(wanted) and not key.endswith((".meta", ".json"))
    }
    path = tmp_path / "old.tar.gz"
    path.write_bytes(PACKS[".tar.gz"](files))
    same(ckptparse.read(path), ckptparse.read(fixtures / name / wanted))


def test_what_holds_no_checkpoint_is_what_it_was(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", w=np.ones(3))
    with pytest.raises(NotACheckpointError) as caught:
        ckptparse.read(tmp_path / "x.npz")
    assert caught.value.identity.kind == "npz"
    (tmp_path / "notes.tar").write_bytes(pack_tar({"a.txt": b"1", "b.txt": b"2"}))
    with pytest.raises(NotACheckpointError) as caught:
        ckptparse.read(tmp_path / "notes.tar")
    assert caught.value.identity.kind == "tar"


# How much is read, and what is left behind.


class Watched:
    """A storage that notes which bytes are read."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.read = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def open(self, path: str) -> Any:
        source = self._storage.open(path)
        watched = self

        class Source:
            def __getattr__(self, name: str) -> Any:
                return getattr(source, name)

            def read_at(self, offset: int, size: int) -> bytes:
                watched.read += size
                return source.read_at(offset, size)

            def read_into(self, offset: int, buffer: memoryview) -> None:
                watched.read += len(buffer)
                source.read_into(offset, buffer)

        return Source()

    def stat(self, path: str) -> Any:
        return self._storage.stat(path)

    def list(self, directory: str) -> Any:
        return self._storage.list(directory)

    def join(self, directory: str, name: str) -> str:
        return self._storage.join(directory, name)

    def split(self, path: str) -> tuple[str, str]:
        return self._storage.split(path)

    def real(self, path: str) -> str:
        return self._storage.real(path)


def large() -> dict[str, bytes]:
    bundle = builder.Bundle()
    rng = np.random.default_rng(0)
    bundle.add("big", rng.standard_normal((1 << 20,)).astype(np.float32))
    bundle.add("small", np.arange(4, dtype=np.float32))
    with tempfile.TemporaryDirectory() as folder:
        bundle.write(Path(folder) / "m")
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.mark.parametrize("ending", [" stored.zip", ".tar", " pax.tar"])
def test_stored_members_are_read_by_range(ending: str) -> None:
    storage = Watched(MemoryStorage({"a": PACKS[ending](large())}))
    with ckptparse.open("a", store=storage) as checkpoint:
        assert checkpoint["small"].read().tolist() == [0, 1, 2, 3]
    assert storage.read < 600_000


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="tells open files of Linux")
@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
def test_what_is_unpacked_is_gone_at_close_and_has_no_name_before(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    path = tmp_path / f"m{ending}"
    path.write_bytes(PACKS[ending](large()))

    def unpacked() -> int:
        links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
        return sum(str(tmp_path) in os.readlink(one) for one in links if os.path.islink(one))

    with ckptparse.open(path) as checkpoint:
        checkpoint["big"].verify()
        assert unpacked() > 0
        assert not any((tmp_path / "tmp").iterdir())
    assert unpacked() == 0
    path.write_bytes(path.read_bytes()[:-50_000])
    with pytest.raises(CheckpointError):
        ckptparse.read(path)
    assert unpacked() == 0
    assert not any((tmp_path / "tmp").iterdir())


def test_a_packed_archive_is_unpacked_once() -> None:
    data = PACKS[".tar.gz"](large())
    storage = Watched(MemoryStorage({"a": data}))
    with ckptparse.open("a", store=storage) as checkpoint:
        checkpoint.read()
        checkpoint.read()
    # Its first bytes are looked at before.
    assert storage.read <= len(data) + (1 << 20)


def test_a_full_disk_is_told_as_such(
    tmp_path: Path, model: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.tar.gz").write_bytes(PACKS[".tar.gz"](model))

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OutputError, match="temporary file") as caught:
        ckptparse.read(tmp_path / "m.tar.gz")
    assert caught.value.errno == 28
    monkeypatch.undo()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(OutputError, match="TMPDIR"):
        ckptparse.read(tmp_path / "m.tar.gz")


# Archives that mean harm.


@pytest.mark.parametrize(
    "limits", [Limits(unpacked_bytes=100), Limits(members=2), Limits(unpacked_bytes=0)]
)
@pytest.mark.parametrize("ending", [".zip", ".tar.gz", ".tar.xz", ".tar.bz2", ".tar.zst"])
def test_more_than_the_limits_allow_is_refused(
    ending: str, limits: Limits, tmp_path: Path, model: dict[str, bytes]
) -> None:
    path = tmp_path / f"m{ending}"
    path.write_bytes(PACKS[ending](model))
    with pytest.raises(LimitError) as caught:
        ckptparse.read(path, limits=limits)
    assert caught.value.limit in ("unpacked_bytes", "members")


@pytest.mark.parametrize("ending", [".zip", ".tar.gz", ".tar.zst", ".tar.bz2"])
def test_a_bomb_is_refused_before_it_fills_the_disk(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"bomb{ending}"
    path.write_bytes(PACKS[ending]({"m.index": bytes(8 << 20), "m.data-00000-of-00001": b""}))
    with pytest.raises(LimitError) as caught:
        ckptparse.read(path, limits=Limits(decompressed_bytes=1 << 20, index_bytes=1 << 25))
    assert caught.value.limit == "decompressed_bytes"


def test_a_dictionary_of_xz_that_takes_all_memory_is_refused(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 26}]
    data = lzma.compress(pack_tar({"m.index": b"1"}), filters=filters)
    (tmp_path / "m.tar.xz").write_bytes(data)
    with pytest.raises(LimitError, match="memory"):
        ckptparse.read(tmp_path / "m.tar.xz", limits=Limits(decompressed_bytes=1 << 20))


@pytest.mark.parametrize("name", ["../my_model", "a/../../my_model", "C:/my_model", "../../etc/x"])
@pytest.mark.parametrize("ending", [".zip", ".tar"])
def test_a_name_that_leads_out_of_the_archive_is_no_file(
    ending: str, name: str, tmp_path: Path, model: dict[str, bytes]
) -> None:
    files = {f"{name}{Path(key).suffix}": data for key, data in model.items()}
    path = tmp_path / f"m{ending}"
    path.write_bytes(PACKS[ending](files))
    with pytest.raises(CheckpointError):
        ckptparse.read(path)
    with pytest.raises(CheckpointError):
        ckptparse.read(f"{path}/{name}")
    assert sorted(one.name for one in tmp_path.iterdir()) == [path.name]


@pytest.mark.parametrize("ending", [".zip", ".tar"])
def test_the_slash_before_a_name_does_not_count(
    ending: str, tmp_path: Path, model: dict[str, bytes], wanted: dict[str, Any]
) -> None:
    path = tmp_path / f"m{ending}"
    path.write_bytes(PACKS[ending]({f"/{name}": data for name, data in model.items()}))
    same(ckptparse.read(path), wanted)
    same(ckptparse.read(f"{path}/saver/my_model"), wanted)


def test_links_inside_a_tar_are_followed_and_others_lead_nowhere(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"not yours")

    def make(archive: tarfile.TarFile) -> None:
        add(archive, "a/blob", b"hello")
        for name, kind, target in [
            ("b/soft", tarfile.SYMTYPE, "../a/blob"),
            ("b/twice", tarfile.SYMTYPE, "soft"),
            ("b/hard", tarfile.LNKTYPE, "a/blob"),
            ("b/out", tarfile.SYMTYPE, "../../secret"),
            ("b/absolute", tarfile.SYMTYPE, str(secret)),
            ("b/hard_out", tarfile.LNKTYPE, "../secret"),
            ("b/round", tarfile.SYMTYPE, "round"),
            ("b/device", tarfile.CHRTYPE, ""),
            ("b/fifo", tarfile.FIFOTYPE, ""),
        ]:
            add(archive, name, type=kind, linkname=target)

    storage = ArchiveStorage(MemoryStorage({"x": tar_of(make)}), "x", DEFAULT_LIMITS)
    for name in ("soft", "twice", "hard"):
        assert storage.open(f"x/b/{name}").read_at(0, 5) == b"hello"
    for name in ("out", "absolute", "hard_out", "round"):
        status = storage.stat(f"x/b/{name}")
        assert status is not None and status.kind == "dangling"
        with pytest.raises(CheckpointNotFoundError):
            storage.open(f"x/b/{name}")
    for name in ("device", "fifo"):
        with pytest.raises(NotACheckpointError):
            storage.open(f"x/b/{name}")


def test_a_link_inside_a_zip_is_followed(model: dict[str, bytes], wanted: dict[str, Any]) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in model.items():
            archive.writestr(f"blobs/{Path(name).name}", data)
            info = zipfile.ZipInfo(f"run/{Path(name).name}")
            info.create_system = 3
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, f"../blobs/{Path(name).name}")
    store = {"a.zip": out.getvalue()}
    same(ckptparse.read("a.zip/run/my_model", store=store), wanted)


def test_two_members_of_one_name_are_refused_in_a_zip_and_the_last_counts_in_a_tar() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("w", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("w", b"2")
    storage = ArchiveStorage(MemoryStorage({"x": out.getvalue()}), "x", DEFAULT_LIMITS)
    for _ in range(2):
        with pytest.raises(MalformedError, match="Two members"):
            storage.open("x/w")

    def make(archive: tarfile.TarFile) -> None:
        add(archive, "w", b"1")
        add(archive, "w", b"2")

    # `tar --append` is how a newer version of a file gets in.
    storage = ArchiveStorage(MemoryStorage({"x": tar_of(make)}), "x", DEFAULT_LIMITS)
    assert storage.open("x/w").read_at(0, 1) == b"2"


def test_an_encrypted_member_is_told_as_such(model: dict[str, bytes]) -> None:
    data = bytearray(pack_zip(model))
    for magic, at in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        place = -1
        while (place := data.find(magic, place + 1)) >= 0:
            data[place + at] |= 1
    with pytest.raises(UnsupportedError, match="encrypted"):
        ckptparse.read("a", store={"a": bytes(data)})


def test_a_method_that_nobody_here_knows_is_told_as_such(model: dict[str, bytes]) -> None:
    data = bytearray(pack_zip(model))
    for magic, at in ((b"PK\x01\x02", 10), (b"PK\x03\x04", 8)):
        place = -1
        while (place := data.find(magic, place + 1)) >= 0:
            struct.pack_into("<H", data, place + at, 97)
    with pytest.raises(CheckpointError):
        ckptparse.read("a", store={"a": bytes(data)})


def test_wide_sizes_of_zip_are_read(model: dict[str, bytes], wanted: dict[str, Any]) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in model.items():
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(data)
    same(ckptparse.read("a", store={"a": out.getvalue()}), wanted)


def test_the_number_of_members_that_a_zip_states_bounds_no_memory() -> None:
    """The end of a zip that says its directory takes a gigabyte."""
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 9, 9, 1 << 30, 0, 0)
    with pytest.raises(CheckpointError):
        ckptparse.read("a", store={"a": pack_zip({"m.index": b""})[:-22] + end})


def sparse_tar(pairs: list[tuple[int, int]], size: int, data: bytes) -> bytes:
    """GNU's format 1.0: the map of what is held stands before it."""
    plan = "\n".join([str(len(pairs)), *(f"{a}\n{b}" for a, b in pairs), ""]).encode()
    body = plan + bytes(-len(plan) % 512) + data
    headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "m",
        "GNU.sparse.realsize": str(size),
    }
    return tar_of(
        lambda archive: add(archive, "GNUSparseFile.0/m", body, pax_headers=headers),
        format=tarfile.PAX_FORMAT,
    )


def test_a_sparse_member_has_its_zeros() -> None:
    data = sparse_tar([(10, 5), (100, 3)], 200, b"hello" + b"abc")
    storage = ArchiveStorage(MemoryStorage({"x": data}), "x", DEFAULT_LIMITS)
    source = storage.open("x/m")
    whole = bytes(10) + b"hello" + bytes(85) + b"abc" + bytes(97)
    assert source.size == 200
    assert source.read_at(0, 200) == whole


@pytest.mark.parametrize("pairs", [[(10, 5), (2, 3)], [(0, 500)], [(-1, 5)], [(10, -5)]])
def test_a_broken_map_of_a_sparse_member_is_an_error(pairs: list[tuple[int, int]]) -> None:
    storage = MemoryStorage({"x": sparse_tar(pairs, 200, bytes(600))})
    with pytest.raises(CheckpointError):
        ArchiveStorage(storage, "x", DEFAULT_LIMITS).open("x/m").read_at(0, 200)


def test_a_sparse_member_of_a_terabyte_is_refused() -> None:
    storage = MemoryStorage({"x": sparse_tar([(0, 3)], 1 << 40, b"abc")})
    with pytest.raises(LimitError):
        ArchiveStorage(storage, "x", DEFAULT_LIMITS).open("x/m")


def test_a_long_name_is_read_in_every_format(tmp_path: Path, model: dict[str, bytes]) -> None:
    long = "ü" * 90 + "/" + "d" * 150
    files = {f"{long}/{Path(name).name}": data for name, data in model.items()}
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        (tmp_path / "m.tar").write_bytes(pack_tar(files, format))
        with ckptparse.open(tmp_path / "m.tar") as checkpoint:
            assert checkpoint.path == f"{tmp_path}/m.tar/{long}/my_model"


# Damage.


def stream_zip(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Pack as to a pipe: the sizes of a member stand behind it."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise OSError

        def seek(self, *_: Any) -> int:
            raise OSError

    out = Pipe()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


STREAMED: dict[str, Pack] = {
    " streamed.zip": stream_zip,
    " streamed stored.zip": lambda files: stream_zip(files, zipfile.ZIP_STORED),
}


@pytest.mark.parametrize(
    "ending",
    [
        ".tar.gz",
        ".tar.bz2",
        ".tar.xz",
        ".tar.zst",
        ".tar",
        ".zip",
        " stored.zip",
        " bzip2.zip",
        " lzma.zip",
        *STREAMED,
    ],
)
def test_a_download_that_was_cut_is_an_error_and_recover_takes_what_came(
    ending: str, tmp_path: Path
) -> None:
    bundle = builder.Bundle()
    rng = np.random.default_rng(0)
    values = {f"t{number}": rng.standard_normal(60_000).astype(np.float32) for number in range(9)}
    for name, value in values.items():
        bundle.add(name, value)
    bundle.write(tmp_path / "m")
    files = {one.name: one.read_bytes() for one in sorted(tmp_path.glob("m.*"), reverse=True)}
    data = (PACKS | STREAMED)[ending](files)
    path = tmp_path / f"cut{ending}"
    path.write_bytes(data[: len(data) * 3 // 4])
    with pytest.raises(DataLossError) as caught:
        ckptparse.read(path)
    assert isinstance(caught.value, (TruncatedError, MalformedError))
    report = ckptparse.verify(path)
    assert not report.ok
    recovery = ckptparse.recover(path)
    for problems in (report.problems, recovery.report.problems):
        assert "archive.damaged" in {problem.code for problem in problems}
    whole = [name for name, tensor in recovery.items() if tensor.status.proved]
    assert len(whole) >= 3
    for name in whole:
        np.testing.assert_array_equal(recovery[name].read(), values[name])


def statuses(path: Path) -> tuple[list[str], list[tuple[str, str]]]:
    report = ckptparse.verify(path)
    told = [(one.code, one.where) for one in report.problems if one.code.startswith("archive.")]
    return [str(report.tensors[f"t{number}"].status) for number in range(9)], told


def nine_tensors(folder: Path) -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    bundle = builder.Bundle()
    for number in range(9):
        bundle.add(f"t{number}", rng.standard_normal(3000).astype(np.float32))
    (folder / "files").mkdir()
    bundle.write(folder / "files" / "m")
    return {one.name: one.read_bytes() for one in sorted((folder / "files").iterdir())}


@pytest.mark.parametrize("ending", [".zip", " bzip2.zip", " lzma.zip", ".tar.gz"])
def test_what_comes_before_a_flipped_bit_is_kept(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"m{ending}"
    data = bytearray(PACKS[ending](nine_tensors(tmp_path)))
    data[len(data) * 2 // 3] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(DataLossError):
        ckptparse.read(path)
    if ending == " bzip2.zip":
        # Its only block is damaged: nothing of it can be unpacked.
        assert statuses(path)[1]
        return
    found, told = statuses(path)
    member = path if ending == ".tar.gz" else f"{path}/m.data-00000-of-00001"
    assert told == [("archive.damaged", str(member))]
    assert found[:5] == ["verified"] * 5
    assert found != ["verified"] * 9
    recovery = ckptparse.recover(path)
    assert sum(tensor.status.proved for tensor in recovery.values()) >= 5
    assert told[0][0] in {problem.code for problem in recovery.report.problems}


@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
def test_what_has_only_a_wrong_checksum_is_whole_and_told(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"m{ending}"
    files = nine_tensors(tmp_path)
    data = bytearray(PACKS[ending](files))
    crc = zlib.crc32(files["m.data-00000-of-00001"] if ending == ".zip" else pack_tar(files))
    place = data.rfind(struct.pack("<I", crc))
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataLossError):
        ckptparse.read(path)
    found, told = statuses(path)
    assert found == ["verified"] * 9 and len(told) == 1
    assert not ckptparse.verify(path).ok


@pytest.mark.parametrize("ending", [".zip", " stored.zip", *STREAMED])
@pytest.mark.parametrize("lost", ["directory", "broken directory", "end"])
def test_members_are_found_without_the_directory(ending: str, lost: str, tmp_path: Path) -> None:
    path = tmp_path / f"m{ending}"
    data = bytearray((PACKS | STREAMED)[ending](nine_tensors(tmp_path)))
    begin = data.index(b"PK\x01\x02")
    if lost == "broken directory":
        data[begin + 1] ^= 1
    else:
        data = data[: begin if lost == "directory" else -3]
    path.write_bytes(data)
    with pytest.raises(CheckpointError):
        ckptparse.read(path)
    found, told = statuses(path)
    assert found == ["verified"] * 9
    assert told == [("archive.damaged", str(path))]
    few = replace(DEFAULT_LIMITS, members=1)
    with pytest.raises(LimitError):
        ckptparse.verify(path, limits=few)


@pytest.mark.parametrize("has_directory", [True, False])
def test_a_member_without_a_name_is_no_directory(has_directory: bool, tmp_path: Path) -> None:
    data = PACKS[" stored.zip"](nine_tensors(tmp_path))
    begin = data.index(b"PK\x01\x02")
    sizes = (zlib.crc32(b"abc"), 3, 3)
    nameless = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 0, *sizes, 0, 0) + b"abc"
    path = tmp_path / "m.zip"
    if not has_directory:
        path.write_bytes(nameless + data[:begin])
        assert statuses(path)[0] == ["verified"] * 9
        return
    central = struct.pack(
        "<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 0, *sizes, 0, 0, 0, 0, 0, 0, begin
    )
    directory = central + data[begin:-22]
    count = struct.unpack_from("<H", data, len(data) - 12)[0] + 1
    start = begin + len(nameless)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(directory), start, 0)
    path.write_bytes(data[:begin] + nameless + directory + end)
    assert len(ckptparse.read(path)) == 9
    assert statuses(path)[0] == ["verified"] * 9


def test_the_end_of_a_member_is_sought_in_about_its_own_bytes() -> None:
    archive = stream_zip({f"m{number}": b"abc" for number in range(300)})
    storage = Watched(MemoryStorage({"a": archive[: archive.index(b"PK\x01\x02")]}))
    found = list(iter_local_members(storage.open("a")))
    assert len(found) == 300 and {info.file_size for info, _, _ in found} == {3}
    # Small reads share a window of 64 KiB.
    assert storage.read < 300 * (2 << 10) + (1 << 17)


def test_a_member_without_its_header_is_as_if_empty(tmp_path: Path) -> None:
    path = tmp_path / "m.zip"
    files = dict(reversed(nine_tensors(tmp_path).items()))
    data = bytearray(pack_zip(files, zipfile.ZIP_STORED))
    start = data.index(b"m.data") - 30
    data[start : start + 36] = bytes(36)
    path.write_bytes(data)
    found, told = statuses(path)
    assert "verified" not in found
    assert told == [("archive.damaged", f"{path}/m.data-00000-of-00001")]


@pytest.mark.parametrize("method", [9, 12, 14, 93])
def test_a_method_that_is_not_what_packed_a_member_is_damage(method: int, tmp_path: Path) -> None:
    path = tmp_path / "m.zip"
    data = bytearray(pack_zip(nine_tensors(tmp_path)))
    place = data.index(b"PK\x01\x02") + 10
    assert data[place] == 8
    data[place] = method
    path.write_bytes(data)
    assert statuses(path)[1] == [("archive.damaged", f"{path}/m.data-00000-of-00001")]


def test_a_flipped_bit_in_a_packed_member_is_an_error(model: dict[str, bytes]) -> None:
    data = bytearray(pack_zip(model))
    place = data.find(b"my_model.index") + 40
    data[place] ^= 0x10
    with pytest.raises(CheckpointError):
        ckptparse.read("a", store={"a": bytes(data)})


@pytest.mark.parametrize("ending", [".zip", " stored.zip", ".tar", " pax.tar", ".tar.gz"])
def test_no_damage_to_an_archive_gives_another_exception(
    ending: str, model: dict[str, bytes]
) -> None:
    data = PACKS[ending](model)
    rng = np.random.default_rng(1)
    for place in [*range(0, min(len(data), 600), 13), *rng.integers(0, len(data), 60).tolist()]:
        for change in (0x01, 0x80, 0xFF):
            broken = bytearray(data)
            broken[place] ^= change
            with suppress(CheckpointError):
                ckptparse.read("a", store={"a": bytes(broken)})
        with suppress(CheckpointError):
            ckptparse.verify("a", store={"a": bytes(broken)})


@pytest.mark.parametrize("ending", [".zip", " stored.zip", ".tar", ".tar.gz", *STREAMED])
def test_no_cut_of_an_archive_gives_another_exception(ending: str, model: dict[str, bytes]) -> None:
    data = (PACKS | STREAMED)[ending](model)
    for size in range(0, len(data), max(1, len(data) // 60)):
        with suppress(CheckpointError):
            ckptparse.read("a", store={"a": data[:size]})
        with suppress(CheckpointError):
            ckptparse.verify("a", store={"a": data[:size]})


def test_what_unpacks_zstandard_is_named_if_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = PACKS[".tar.zst"]({"m.index": b""})
    (tmp_path / "m.tar.zst").write_bytes(data)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    monkeypatch.setitem(sys.modules, "compression", None)
    with pytest.raises(UnsupportedError, match="zstandard") as caught:
        ckptparse.read(tmp_path / "m.tar.zst")
    assert "ckptparse[chunked]" in str(caught.value)


def test_limits_hold_for_each_archive(tmp_path: Path, model: dict[str, bytes]) -> None:
    path = tmp_path / "m.tar"
    path.write_bytes(pack_tar(model))
    with pytest.raises(LimitError):
        ckptparse.read(path, limits=replace(DEFAULT_LIMITS, members=len(model) - 1))
    assert ckptparse.read(path, limits=replace(DEFAULT_LIMITS, members=len(model)))


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_streams_of_a_compressed_file_count_as_members(
    compress: Callable[[bytes], bytes], tmp_path: Path, model: dict[str, bytes]
) -> None:
    packed = pack_tar(model)
    path = tmp_path / "m.tar.packed"
    # Zeros between streams and after them do not count.
    parts = [compress(packed[:700]), bytes(70_000), *[compress(b"")] * 30, compress(packed[700:])]
    path.write_bytes(b"".join(parts) + bytes(512))
    assert ckptparse.read(path, limits=Limits(members=32))
    with pytest.raises(LimitError) as caught:
        ckptparse.read(path, limits=Limits(members=31))
    assert caught.value.limit == "members"


def test_extra_fields_of_a_zip_count_as_members(tmp_path: Path) -> None:
    path = tmp_path / "m.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(400):
            info = zipfile.ZipInfo(f"m{number:04}.index")
            info.extra = b"\xfe\xca\x00\x00" * 64
            archive.writestr(info, b"")
    with zipfile.ZipFile(path) as archive:
        assert len(archive.infolist()) == 400
    with pytest.raises(LimitError) as caught:
        ckptparse.read(path, limits=Limits(members=799))
    assert caught.value.limit == "members"
    with pytest.raises(ckptparse.NotACheckpointError):
        ckptparse.read(path, limits=Limits(members=800))
