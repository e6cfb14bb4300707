"""The storages of this machine and of memory, by the suite of all storages."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from storage_suite import StorageSuite

import ckptparse
from ckptparse.errors import ClosedError, DataLossError, NotACheckpointError, TruncatedError
from ckptparse.files.context import begin, find_storage
from ckptparse.files.local import LOCAL
from ckptparse.files.memory import MemoryStorage
from ckptparse.files.storage import FileStat, Storage


class TestLocal(StorageSuite):
    def place(self, files: Mapping[str, bytes]) -> tuple[Storage, str]:
        for name, data in files.items():
            path = self.tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return LOCAL, str(self.tmp_path)


class TestMemory(StorageSuite):
    def place(self, files: Mapping[str, bytes]) -> tuple[Storage, str]:
        return MemoryStorage(files), ""


class TestMemoryBelowADirectory(StorageSuite):
    def place(self, files: Mapping[str, bytes]) -> tuple[Storage, str]:
        return MemoryStorage({f"/a b/ü/{name}": data for name, data in files.items()}), "/a b/ü"


class TestFileObjects(StorageSuite):
    picklable = False

    def place(self, files: Mapping[str, bytes]) -> tuple[Storage, str]:
        return MemoryStorage({name: io.BytesIO(data) for name, data in files.items()}), ""


# File objects.


class Stubborn(io.BytesIO):
    """Gives three bytes at a time."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(3, size or 0))


def test_a_file_object_that_gives_little_at_a_time_is_read_to_the_end() -> None:
    source = MemoryStorage({"x": Stubborn(b"0123456789")}).open("x")
    assert source.read_at(1, 8) == b"12345678"


def test_a_file_object_that_shrinks_is_an_error() -> None:
    file = io.BytesIO(b"0123456789")
    source = MemoryStorage({"x": file}).open("x")
    file.truncate(4)
    with pytest.raises(TruncatedError, match="found 4"):
        source.read_at(0, 8)


def test_a_closed_file_object_is_an_error() -> None:
    file = io.BytesIO(b"0123456789")
    storage = MemoryStorage({"x": file})
    source = storage.open("x")
    file.close()
    with pytest.raises(ClosedError):
        source.read_at(0, 8)
    with pytest.raises(ClosedError):
        storage.open("x")


class Broken(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        raise OSError("the line is dead")


class Pipe(io.BytesIO):
    def seek(self, *_: Any) -> int:
        raise io.UnsupportedOperation("underlying stream is not seekable")


def test_a_file_object_that_fails_is_damage_and_one_that_cannot_be_sought_is_no_checkpoint() -> (
    None
):
    storage = MemoryStorage({"broken": Broken(b"0123"), "pipe": Pipe(b"0123")})
    with pytest.raises(DataLossError, match="the line is dead"):
        storage.open("broken").read_at(0, 1)
    with pytest.raises(NotACheckpointError, match="can seek, found one that cannot"):
        storage.open("pipe")


# What a caller may give.


@pytest.mark.parametrize("store", [3, [], "s", b"", {1, 2}, object()])
def test_what_is_no_store_is_refused_by_its_type(store: Any) -> None:
    with pytest.raises(TypeError, match="Expected store to be"):
        find_storage("x", store)


@pytest.mark.parametrize("limits", [3, None, {"entries": 3}, ckptparse.Limits])
def test_what_is_no_limits_is_refused_by_its_type(limits: Any) -> None:
    with pytest.raises(TypeError, match="Expected limits to be"):
        begin("x", limits=limits)


def test_what_is_no_progress_or_no_path_is_refused_by_its_type() -> None:
    with pytest.raises(TypeError, match="Expected progress to be"):
        begin("x", progress=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        begin(3)  # type: ignore[arg-type]


def test_a_path_may_be_bytes_or_a_path(tmp_path: Any) -> None:
    assert begin(b"run/\xff")[0] == "run/\udcff"  # type: ignore[arg-type]
    assert begin(tmp_path)[0] == str(tmp_path)


def test_a_name_of_a_mapping_that_is_a_directory_too_is_a_file(fixtures: Any) -> None:
    files = {
        f"d/{path.name}": path.read_bytes() for path in (fixtures / "saver").glob("my_model.*")
    }
    files |= {f"{name}/x": b"x" for name in files}
    for store in (files, dict(reversed(files.items()))):
        whole = ckptparse.read("d/my_model", store=store)
        assert ckptparse.verify("d/my_model", store=store).ok
        assert set(ckptparse.verify("d/my_model", store=store).tensors) == set(whole)


# Names with slashes that a disk would take for one.


@pytest.mark.parametrize("prefix", ["run//m", "run///m", "//m", "/m", "/run//m", "a//b/m"])
@pytest.mark.parametrize(
    "stem", ["saver/my_model", "v1/unsharded/model.ckpt-1", "v1/sharded/model.ckpt-7"]
)
def test_names_with_several_slashes_are_names_like_others(
    fixtures: Path, prefix: str, stem: str
) -> None:
    written = fixtures / stem
    files = {
        f"{prefix}{path.name.removeprefix(written.name)}": path.read_bytes()
        for path in written.parent.glob(f"{written.name}*")
    }
    names = list(ckptparse.read(written))
    assert list(ckptparse.read(prefix, store=files)) == names
    verified = ckptparse.verify(prefix, store=files)
    recovered = ckptparse.recover(prefix, store=files)
    for report in (verified, recovered.report):
        assert report.ok
        assert list(report.tensors) == names


@pytest.mark.parametrize("path", ["a/m", "a//m", "/m", "//m", "a///b//m", "m"])
def test_a_name_comes_apart_and_together_again(path: str) -> None:
    storage = MemoryStorage({path: b"x"})
    directory, name = storage.split(path)
    assert name == "m"
    assert storage.join(directory, name) == path
    assert list(storage.list(directory)) == ["m"]


class Hiding(MemoryStorage):
    """Has a file that its directory does not list."""

    def list(self, directory: str) -> Mapping[str, FileStat]:
        return {}


def test_a_v1_file_that_its_directory_does_not_list_is_not_called_sound(fixtures: Path) -> None:
    store = Hiding({"d/m": (fixtures / "v1" / "shapes" / "model").read_bytes()})
    assert ckptparse.read("d/m", store=store)
    report = ckptparse.verify("d/m", store=store)
    assert not report.ok
    assert [problem.code for problem in report.problems] == ["v1.missing"]


def test_a_sharded_v1_checkpoint_whose_files_are_named_like_data_files_is_verified_as_a_whole(
    fixtures: Path,
) -> None:
    whole = fixtures / "v1" / "sharded" / "model.ckpt-7"
    files = {
        path.name.replace("model.ckpt-7", "d/m.data"): path.read_bytes()
        for path in whole.parent.glob("model.ckpt-7-*")
    }
    names = list(ckptparse.read(whole))
    for path in (*files, "d/m.data"):
        assert list(ckptparse.read(path, store=files)) == names
        assert list(ckptparse.verify(path, store=files).tensors) == names
    files.popitem()
    assert not ckptparse.verify(min(files), store=files).ok
