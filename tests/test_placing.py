"""Files that are written appear whole or not at all, and replace nothing unasked."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptparse
from ckptparse.errors import (
    CheckpointNotFoundError,
    OutputError,
    OutputExistsError,
    PermissionDeniedError,
    TruncatedError,
)
from ckptparse.files import placing
from ckptparse.files.placing import place_directory, place_file, place_files

posix = pytest.mark.skipif(os.name == "nt", reason="modes and devices of POSIX systems")


def content(directory: Path) -> dict[str, str]:
    return {
        path.relative_to(directory).as_posix(): path.read_text()
        for path in directory.rglob("*")
        if path.is_file()
    }


def write_file(path: Path, text: bytes = b"new", *, overwrite: bool = False) -> None:
    with place_file(path, overwrite=overwrite) as file:
        file.write(text)


def write_files(
    directory: Path, *, overwrite: bool = False, between: Callable[[], Any] = lambda: None
) -> None:
    with place_files(overwrite=overwrite) as files:
        for name in ("m.data", "m.index"):
            with files.open(directory / name) as file:
                file.write(b"new")
        between()


def write_directory(path: Path, **options: Any) -> None:
    with place_directory(path, **options) as directory:
        for name in ("a", "b"):
            with directory.open(name) as file:
                file.write(b"new")


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


# One file.


def test_a_file_appears_when_it_is_whole_and_not_before(tmp_path: Path) -> None:
    with place_file(tmp_path / "out") as file:
        file.write(b"half")
        file.flush()
        assert not (tmp_path / "out").exists()
    assert content(tmp_path) == {"out": "half"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("mine"), TruncatedError("x")])
def test_what_ends_the_writing_leaves_nothing_and_passes_as_it_is(
    error: BaseException, tmp_path: Path
) -> None:
    with pytest.raises(type(error)) as caught, place_file(tmp_path / "out"):
        raise error
    assert caught.value is error
    assert content(tmp_path) == {}


def test_a_file_that_is_there_stays_and_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputExistsError) as caught, place_file(tmp_path / "out"):
        pytest.fail("the work was begun")
    assert caught.value.filename == str(tmp_path / "out")
    assert content(tmp_path) == {"out": "mine"}


def test_a_link_that_leads_nowhere_is_something_too(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputExistsError):
        write_file(tmp_path / "out")


@pytest.mark.parametrize("has_links", [True, False])
def test_what_came_into_being_meanwhile_stays(
    has_links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_links:
        monkeypatch.setattr(os, "link", failing(OSError(errno.EPERM, "no links here")))

    def write_late() -> None:
        with place_file(tmp_path / "out") as file:
            (tmp_path / "out").write_text("mine")
            file.write(b"new")

    with pytest.raises(OutputExistsError, match="meanwhile"):
        write_late()
    assert content(tmp_path) == {"out": "mine"}


def test_a_file_system_without_hard_links_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", failing(OSError(errno.EPERM, "no links here")))
    write_file(tmp_path / "out")
    assert content(tmp_path) == {"out": "new"}


def test_with_overwrite_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("old")
    with place_file(tmp_path / "out", overwrite=True) as file:
        file.write(b"new")
        assert (tmp_path / "out").read_text() == "old"
    assert content(tmp_path) == {"out": "new"}


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "real").write_text("old")
    (tmp_path / "link").symlink_to("there/real")
    write_file(tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert content(tmp_path / "there") == {"real": "new"}


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_file_takes_the_place_of_no_directory(overwrite: bool, tmp_path: Path) -> None:
    with pytest.raises(OutputExistsError, match="directory"):
        write_file(tmp_path, overwrite=overwrite)
    assert content(tmp_path) == {}


@posix
def test_a_new_file_has_the_usual_mode(tmp_path: Path) -> None:
    former = os.umask(0o027)
    try:
        write_file(tmp_path / "out")
    finally:
        os.umask(former)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o640


@posix
def test_a_private_file_stays_private_when_it_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("old")
    (tmp_path / "out").chmod(0o600)
    write_file(tmp_path / "out", overwrite=True)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o600


def test_a_name_as_long_as_names_can_be_is_written(tmp_path: Path) -> None:
    write_file(tmp_path / ("x" * 255))
    assert content(tmp_path) == {"x" * 255: "new"}


def test_a_file_and_its_directory_reach_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []

    def sync(descriptor: int) -> None:
        synced.append(stat.S_IFMT(os.fstat(descriptor).st_mode))
        assert (tmp_path / "out").exists() == (synced[-1] == stat.S_IFDIR)

    monkeypatch.setattr(os, "fsync", sync)
    write_file(tmp_path / "out")
    assert synced == [stat.S_IFREG] + [stat.S_IFDIR] * (os.name != "nt")


# What the system refuses.


@pytest.mark.parametrize("name", ["a\0b", "a\0b/c", "a/\ud800"])
@pytest.mark.parametrize("kind", ["v2", "npz", "npy"])
def test_a_name_that_no_file_can_have_is_an_error_that_says_so(
    tmp_path: Path, name: str, kind: str
) -> None:
    source = ckptparse.write(tmp_path / "m", {"w": np.float32([1])})
    there = sorted(tmp_path.iterdir())
    place = f"{tmp_path}/{name}"
    jobs: list[Callable[[], Any]] = [
        lambda: ckptparse.convert(source, place, format=kind),  # type: ignore[arg-type]
        lambda: ckptparse.write(place, {"w": np.float32([1])}),
        lambda: ckptparse.average([source], place),
        lambda: ckptparse.report_page(source, place),
        lambda: ckptparse.recover(source).write(place),
        lambda: ckptparse.scan(f"{source}.index", state=place),
    ]
    for job in jobs:
        with pytest.raises(ckptparse.CheckpointError) as caught:
            job()
        assert str(caught.value).isprintable()
    assert sorted(tmp_path.iterdir()) == there


def test_a_directory_that_is_not_there_is_named_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="directory to write into is not there"):
        write_file(tmp_path / "no" / "out")
    with pytest.raises(CheckpointNotFoundError, match="directory to write into is not there"):
        write_directory(tmp_path / "no" / "out")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_where_nobody_may_write_the_error_says_so(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "open", failing(OSError(number, os.strerror(number))))
    with pytest.raises(PermissionDeniedError, match="may not write there") as caught:
        write_file(tmp_path / "out")
    assert caught.value.path == str(tmp_path / "out")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("write", [write_file, write_directory])
def test_a_full_disk_is_named_and_nothing_stays(
    write: Callable[[Path], None], number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", failing(OSError(number, os.strerror(number))))
    with pytest.raises(OutputError, match="no space left") as caught:
        write(tmp_path / "out")
    assert caught.value.errno == number
    assert caught.value.filename == str(tmp_path / "out")
    assert content(tmp_path) == {}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_write_that_finds_no_space_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = placing.create_file

    def create(directory: str, mode: int | None, path: str | None) -> Any:
        temporary, stream = original(directory, mode, path)
        full = os.open("/dev/full", os.O_RDWR)
        os.dup2(full, stream.fileno())
        os.close(full)
        return temporary, stream

    monkeypatch.setattr(placing, "create_file", create)
    with pytest.raises(OutputError, match="no space left"):
        write_file(tmp_path / "out", bytes(1 << 20))
    assert content(tmp_path) == {}


def test_another_reason_stands_in_the_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", failing(OSError(errno.EIO, "the disk has died")))
    with pytest.raises(OutputError, match="the disk has died"):
        write_file(tmp_path / "out")


@pytest.mark.skipif(sys.platform == "win32", reason="its names cannot hold all of these")
def test_a_name_that_is_too_long_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        write_file(tmp_path / ("x" * 256))
    assert content(tmp_path) == {}


def test_an_error_about_another_file_passes_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, place_file(tmp_path / "out"):
        (tmp_path / "input").read_bytes()
    assert type(caught.value) is FileNotFoundError


# Several files.


def test_several_files_appear_together_in_the_order_they_were_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = []
    original = placing.give_name

    def note(temporary: str, place: str, *, overwrite: bool) -> None:
        named.append(os.path.basename(place))
        original(temporary, place, overwrite=overwrite)

    monkeypatch.setattr(placing, "give_name", note)
    write_files(tmp_path, between=lambda: named.append("all written"))
    assert named == ["all written", "m.data", "m.index"]
    assert content(tmp_path) == {"m.data": "new", "m.index": "new"}


def test_one_of_several_that_came_into_being_meanwhile_keeps_all_from_appearing(
    tmp_path: Path,
) -> None:
    with pytest.raises(OutputExistsError):
        write_files(tmp_path, between=lambda: (tmp_path / "m.index").write_text("mine"))
    assert content(tmp_path) == {"m.index": "mine"}


@pytest.mark.parametrize("failing_at", [0, 1])
def test_after_a_failure_several_files_are_as_they_were(
    failing_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = {"m.data": "old", "m.index": "old"}
    for name, text in former.items():
        (tmp_path / name).write_text(text)
    calls = []
    original = placing.give_name

    def fail(temporary: str, place: str, *, overwrite: bool) -> None:
        calls.append(place)
        if len(calls) > failing_at:
            raise OSError(errno.EIO, "the disk has died")
        original(temporary, place, overwrite=overwrite)

    monkeypatch.setattr(placing, "give_name", fail)
    with pytest.raises(OutputError):
        write_files(tmp_path, overwrite=True)
    assert content(tmp_path) == former


def test_an_old_index_never_lies_beside_new_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("m.data", "m.index"):
        (tmp_path / name).write_text("old")
    seen = []
    original = placing.give_name

    def look(temporary: str, place: str, *, overwrite: bool) -> None:
        seen.append({n: t for n, t in content(tmp_path).items() if not n.startswith(".")})
        original(temporary, place, overwrite=overwrite)

    monkeypatch.setattr(placing, "give_name", look)
    write_files(tmp_path, overwrite=True)
    assert seen == [{}, {"m.data": "new"}]
    assert content(tmp_path) == {"m.data": "new", "m.index": "new"}


def test_a_file_can_be_named_when_all_are_written(tmp_path: Path) -> None:
    with place_files() as files:
        with files.open(tmp_path / "m.0") as file:
            file.write(b"0")
        files.rename(tmp_path / "m.0", tmp_path / "m.0-of-1")
        with pytest.raises(ValueError, match="Expected a name in the directory"):
            files.rename(tmp_path / "m.0-of-1", tmp_path / "no" / "m")
        with pytest.raises(ValueError, match="created already"):
            files.open(tmp_path / "m.0-of-1")
    assert content(tmp_path) == {"m.0-of-1": "0"}


def test_a_file_that_is_left_open_is_closed_and_whole(tmp_path: Path) -> None:
    with place_files() as files:
        file = files.open(tmp_path / "out")
        file.write(b"new")
    assert file.closed
    assert content(tmp_path) == {"out": "new"}


def test_no_files_are_none(tmp_path: Path) -> None:
    with place_files(overwrite=True):
        pass
    assert content(tmp_path) == {}


# A directory.


def test_a_directory_appears_when_it_is_whole(tmp_path: Path) -> None:
    with place_directory(tmp_path / "out") as directory:
        with directory.open("a") as file:
            file.write(b"new")
        assert not (tmp_path / "out").exists()
    assert content(tmp_path) == {"out/a": "new"}


def test_a_directory_that_could_not_be_written_leaves_nothing(tmp_path: Path) -> None:
    def write_half() -> None:
        with place_directory(tmp_path / "out") as directory:
            directory.open("a").write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a"])
def test_no_name_leads_out_of_a_directory(name: str, tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="Expected the name of a file"),
        place_directory(tmp_path / "out") as directory,
    ):
        directory.open(name)
    assert list(tmp_path.iterdir()) == []


def test_two_files_of_a_directory_have_two_names(tmp_path: Path) -> None:
    def write_twice() -> None:
        with place_directory(tmp_path / "out") as directory:
            for _ in range(2):
                directory.open("a")

    with pytest.raises(OutputExistsError):
        write_twice()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_is_replaced_only_if_asked_and_only_if_it_is_known(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a").write_text("old")
    for options in ({}, {"overwrite": True}, {"may_replace": lambda _: True}):
        with pytest.raises(OutputExistsError):
            write_directory(out, **options)
        assert content(tmp_path) == {"out/a": "old"}
    write_directory(out, overwrite=True, may_replace=lambda names: set(names) <= {"a", "b"})
    assert content(tmp_path) == {"out/a": "new", "out/b": "new"}
    (out / "thesis").write_text("mine")
    with pytest.raises(OutputExistsError, match="other files"):
        write_directory(out, overwrite=True, may_replace=lambda names: set(names) <= {"a", "b"})
    assert (out / "thesis").read_text() == "mine"


def test_a_directory_takes_the_place_of_no_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputExistsError, match="found a file there"):
        write_directory(tmp_path / "out", overwrite=True)
    assert content(tmp_path) == {"out": "mine"}


def test_a_directory_that_fails_to_appear_gives_back_the_former(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a").write_text("old")
    original = placing.sync_directory

    def fail(directory: str) -> None:
        if directory == str(tmp_path):
            raise OSError(errno.EIO, "the disk has died")
        original(directory)

    monkeypatch.setattr(placing, "sync_directory", fail)
    with pytest.raises(OutputError):
        write_directory(out, overwrite=True, may_replace=lambda _: True)
    assert content(tmp_path) == {"out/a": "old"}


@pytest.mark.parametrize("failing_at", [0, 1, 2])
def test_a_former_file_that_cannot_be_moved_away_is_named_and_all_stay(
    failing_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = {name: np.arange(20.0) for name in "abc"}
    out = tmp_path / "x.safetensors"
    ckptparse.convert(arrays, out, max_shard_size=160)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    calls: list[str] = []
    original = os.rename

    def refuse(old: str, new: str) -> None:
        calls.append(old)
        if len(calls) == failing_at + 1:
            # As in a directory in which only the owner of a file may move it.
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), old, None, new)
        original(old, new)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(PermissionDeniedError) as caught:
        ckptparse.convert(arrays, out, max_shard_size=160, overwrite=True)
    assert caught.value.path == calls[failing_at]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_former_file_that_cannot_be_removed_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path, overwrite=False)

    def refuse(path: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    monkeypatch.setattr(os, "unlink", refuse)
    write_files(tmp_path, overwrite=True)
    found = content(tmp_path)
    assert found["m.data"] == found["m.index"] == "new" and len(found) == 4
