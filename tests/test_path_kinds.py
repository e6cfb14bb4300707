"""What people have at a path besides a plain checkpoint: copies, denied files, stand-ins."""

from __future__ import annotations

import errno
import gzip
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import builder
import graph_builder as g
import numpy as np
import pytest
from v1_builder import LegacyFile

import ckptparse
from ckptparse import (
    CheckpointError,
    CheckpointNotFoundError,
    MalformedError,
    MissingShardError,
    NotACheckpointError,
    PermissionDeniedError,
    TensorNotFoundError,
    TruncatedError,
)
from ckptparse.cli.app import PROGRAM
from ckptparse.files.local import LocalSource, LocalStorage

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
DIGEST = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393"
LFS = f"version https://git-lfs.github.com/spec/v1\noid sha256:{DIGEST}\nsize 12345\n".encode()


def save(prefix: Path, value: float = 1) -> Path:
    prefix.parent.mkdir(parents=True, exist_ok=True)
    bundle = builder.Bundle()
    bundle.add("w", np.full(100, value, np.float32))
    bundle.write(prefix)
    return prefix


def value_of(path: Path | str) -> float:
    return float(ckptparse.read(path)["w"][0])


def exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        PROGRAM.main(list(arguments), prog_name="ckptparse")
    return int(caught.value.code or 0)


# ---- copies of directories


@pytest.fixture
def copied(tmp_path: Path) -> tuple[Path, Path]:
    """A directory whose state file names absolute paths, and a copy of it with other values."""
    original, copy = tmp_path / "run", tmp_path / "usb"
    save(original / "m-2", 2)
    path = f"{original}/m-2"
    text = f'model_checkpoint_path: "{path}"\nall_model_checkpoint_paths: "{path}"\n'
    (original / "checkpoint").write_text(text)
    save(copy / "m-2", 7)
    (copy / "checkpoint").write_text(text)
    return original, copy


def test_a_copied_directory_means_its_own_files(copied: tuple[Path, Path]) -> None:
    original, copy = copied
    assert value_of(copy) == 7
    assert value_of(original) == 2
    assert ckptparse.latest_checkpoint(copy) == str(copy / "m-2")
    assert ckptparse.verify(copy).path == str(copy / "m-2")
    assert ckptparse.recover(copy).report.path == str(copy / "m-2")


def test_a_broken_copy_is_not_approved_because_the_original_is_whole(
    copied: tuple[Path, Path],
) -> None:
    _, copy = copied
    os.truncate(copy / "m-2.data-00000-of-00001", 100)
    assert not ckptparse.verify(copy).ok
    with pytest.raises(TruncatedError):
        ckptparse.read(copy)


def test_what_lies_elsewhere_only_is_taken_with_a_warning_that_names_it(
    copied: tuple[Path, Path],
) -> None:
    original, copy = copied
    for file in copy.glob("m-2.*"):
        file.unlink()
    with pytest.warns(UserWarning, match=f"{original}/m-2 is taken"):
        assert value_of(copy) == 2
    with pytest.warns(UserWarning, match=f"{original}/m-2"):
        assert ckptparse.latest_checkpoint(copy) == f"{original}/m-2"
    report = ckptparse.verify(copy)
    assert report.ok
    assert [problem.code for problem in report.problems] == ["state.elsewhere"]
    assert f"{original}/m-2" in report.problems[0].message


def test_a_moved_directory_of_a_relative_path_works(
    copied: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copied[1])
    assert value_of(".") == 7
    assert value_of("checkpoint") == 7


# ---- permission


def deny(monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    """Let the storage refuse to open files of a name, or to list directories of it."""
    plain_open, plain_list = LocalStorage.open, LocalStorage.list

    def denied(path: str) -> PermissionDeniedError:
        return PermissionDeniedError("It is there, and you may not read it", path=path)

    def open_file(self: LocalStorage, path: str) -> LocalSource:
        if path.endswith(ending):
            raise denied(path)
        return plain_open(self, path)

    def list_names(self: LocalStorage, directory: str) -> object:
        if directory.endswith(ending):
            raise denied(directory)
        return plain_list(self, directory)

    monkeypatch.setattr(LocalStorage, "open", open_file)
    monkeypatch.setattr(LocalStorage, "list", list_names)


DENIED = ["m-2.index", "m-2.data-00000-of-00001", "checkpoint", "run"]


@pytest.mark.parametrize("ending", DENIED)
def test_what_may_not_be_read_is_neither_missing_nor_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    save(tmp_path / "run" / "m-1")
    save(tmp_path / "run" / "m-2")
    (tmp_path / "run" / "checkpoint").write_text('model_checkpoint_path: "m-2"')
    deny(monkeypatch, ending)
    for function in (ckptparse.read, ckptparse.verify, ckptparse.recover):
        with pytest.raises(PermissionDeniedError) as caught:
            function(tmp_path / "run")
        assert isinstance(caught.value, PermissionError)
        assert caught.value.errno == errno.EACCES
        assert str(caught.value.filename).endswith(ending)
    assert exit_code("verify", str(tmp_path / "run")) == 2


def test_another_checkpoint_that_may_not_be_read_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "m-1")
    save(tmp_path / "m-2")
    os.truncate(tmp_path / "m-2.data-00000-of-00001", 10)
    deny(monkeypatch, "m-1.index")
    report = ckptparse.verify(tmp_path / "m-2")
    assert not report.ok
    assert report.others == ()
    ckptparse.recover(tmp_path / "m-2")


_AS_NOBODY = """
import encodings.utf_16_be, encodings.utf_16_le, os, sys
import ckptparse, ckptparse.api, ckptparse.bundle.reader, ckptparse.examination.verify
import ckptparse.recovery.recover, ckptparse.inventory.by_directory
ckptparse.verify({other!r})
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for function in (ckptparse.read, ckptparse.verify):
    try:
        function({path!r})
    except ckptparse.PermissionDeniedError as error:
        print(error.errno, error.filename)
    except BaseException as error:
        print(type(error).__name__, error)
"""


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="this system has no users to become")
@pytest.mark.parametrize("name", ["m.index", "m.data-00000-of-00001", "."])
def test_the_system_itself_denies_it(tmp_path: Path, name: str) -> None:
    save(tmp_path / "run" / "m")
    save(tmp_path / "other")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == Path(tmp_path).owner() and folder != folder.parent:
            try:
                folder.chmod(folder.stat().st_mode | 0o011)
            except PermissionError:
                break
    target = tmp_path / "run" / name
    target.chmod(0)
    code = _AS_NOBODY.format(path=str(tmp_path / "run" / "m"), other=str(tmp_path / "other"))
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    finally:
        target.chmod(0o755)
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"{errno.EACCES} {tmp_path}/run") for line in lines), lines


# ---- layouts


def copy_model(to: Path) -> Path:
    shutil.copytree(FIXTURES / "saved_model" / "keras2_sequential", to)
    return to


def flat(model: Path) -> None:
    for file in (model / "variables").iterdir():
        shutil.move(file, model / file.name)
    (model / "variables").rmdir()


def from_windows(model: Path) -> None:
    for file in (model / "variables").iterdir():
        shutil.move(file, model / f"variables\\{file.name}")
    (model / "variables").rmdir()


def twice_downloaded(model: Path) -> None:
    index = model / "variables" / "variables.index"
    index.rename(index.with_name("variables (1).index"))


def all_twice_downloaded(model: Path) -> None:
    for file in (model / "variables").iterdir():
        file.rename(file.with_name(file.name.replace("variables.", "variables (1).")))


def without_graph(model: Path) -> None:
    (model / "saved_model.pb").unlink()


@pytest.mark.skipif(os.sep == "\\", reason="a backslash is no part of a name here")
@pytest.mark.parametrize(
    "change", [flat, from_windows, twice_downloaded, all_twice_downloaded, without_graph]
)
def test_a_saved_model_is_read_however_it_was_unpacked(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    model = copy_model(tmp_path / "model")
    wanted = ckptparse.read(model)
    change(model)
    found = ckptparse.read(model)
    assert {name: array.tobytes() for name, array in found.items() if array.dtype != object} == {
        name: array.tobytes() for name, array in wanted.items() if array.dtype != object
    }
    report = ckptparse.verify(model)
    assert report.ok, str(report)
    if change is not without_graph:
        with ckptparse.open_saved_model(model) as opened:
            assert opened.layers[0].weights
            assert set(opened.variables) == set(wanted)


@pytest.mark.parametrize("gone", [True, False])
def test_a_saved_model_that_lost_its_variables_does_not_have_none(
    tmp_path: Path, *, gone: bool
) -> None:
    model = copy_model(tmp_path / "model")
    shutil.rmtree(model / "variables")
    if not gone:
        (model / "variables").mkdir()
    for function in (ckptparse.read, ckptparse.verify, ckptparse.recover):
        with pytest.raises(CheckpointNotFoundError, match="variables are missing"):
            function(model)
    with (
        ckptparse.open_saved_model(model) as opened,
        pytest.raises(CheckpointNotFoundError, match="variables are missing"),
    ):
        opened.variables  # noqa: B018 - opens


def frozen_model(to: Path) -> Path:
    constant = g.constant("w", builder.field(4, np.ones(3, np.float32).tobytes()), dims=[3])
    meta = g.meta_graph(g.graph([constant]), tensorflow="2.9.0")
    to.mkdir()
    (to / "saved_model.pb").write_bytes(builder.field(1, 1) + builder.field(2, meta))
    return to


def test_a_frozen_saved_model_gives_its_constants(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = frozen_model(tmp_path / "frozen")
    (model / "variables").mkdir()
    assert ckptparse.read(model)["w"].tolist() == [1, 1, 1]
    assert ckptparse.list_variables(model) == [("w", (3,))]
    assert exit_code("ls", str(model)) == 0
    assert exit_code("show", str(model), "w") == 0
    assert exit_code("info", str(model)) == 0
    said = capsys.readouterr().out
    assert "constants" in said
    assert "1 tensor" in said


# ---- what is absent


def test_a_lost_index_names_the_whole_neighbour(tmp_path: Path) -> None:
    for step in (100, 200, 300):
        save(tmp_path / f"m-{step}")
    (tmp_path / "m-300.index").unlink()
    with pytest.raises(CheckpointNotFoundError, match=f"one lies beside it: {tmp_path}/m-200"):
        ckptparse.read(tmp_path / "m-300")
    os.truncate(tmp_path / "m-200.data-00000-of-00001", 10)
    with pytest.raises(CheckpointNotFoundError, match=f"one lies beside it: {tmp_path}/m-100"):
        ckptparse.read(tmp_path / "m-300")


def test_a_listing_of_a_directory_needs_no_data_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (1, 2):
        save(tmp_path / f"m-{step}")
        (tmp_path / f"m-{step}.data-00000-of-00001").unlink()
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "m-2"')
    assert exit_code("ls", str(tmp_path)) == 0
    assert exit_code("info", str(tmp_path)) == 0
    assert "float32" in capsys.readouterr().out
    with pytest.raises(MissingShardError):
        ckptparse.read(tmp_path)


# ---- what stands in place of a file

STAND_INS = {
    "error-message": [
        b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code><Message>No such.</Message></Error>",
        b"404: Not Found",
        b'{"error": "Repository not found"}',
        b'{"message": "Bad credentials", "status": "401"}',
        b"Entry not found",
    ],
    "annex-pointer": [
        b"/annex/objects/SHA256E-s4928--1f2e",
        b"../.git/annex/objects/aa/bb/SHA256E-s4928--1f2e/SHA256E-s4928--1f2e\n",
    ],
    "dvc-pointer": [b"outs:\n- md5: 1f2e3d\n  size: 4928\n  path: m.index\n"],
    "xet-pointer": [b"# xet version 0\nfilesize = 4928\nhash = '1f2e'\n"],
    "link-text": [b"../../blobs/1f2e3d4c", b"/mnt/models/m.index"],
    "lfs-pointer": [LFS],
}
CASES = [(kind, data) for kind, examples in STAND_INS.items() for data in examples]


@pytest.mark.parametrize(("kind", "data"), CASES, ids=lambda value: str(value)[:20])
def test_what_stands_in_place_of_an_index_is_known_and_quoted(
    tmp_path: Path, kind: str, data: bytes
) -> None:
    path = tmp_path / "m.index"
    path.write_bytes(data)
    assert ckptparse.identify(path).kind == kind
    with pytest.raises(NotACheckpointError) as caught:
        ckptparse.read(tmp_path / "m")
    assert caught.value.identity.kind == kind
    detail = caught.value.identity.detail
    said = str(detail.get("quote") or detail.get("sha256"))
    assert said in caught.value.message
    if kind.endswith("-pointer"):
        assert f"{detail['size']} bytes" in caught.value.message


@pytest.mark.parametrize(("kind", "data"), CASES, ids=lambda value: str(value)[:20])
def test_what_stands_in_place_of_a_data_file_is_said(
    tmp_path: Path, kind: str, data: bytes
) -> None:
    save(tmp_path / "m")
    (tmp_path / "m.data-00000-of-00001").write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        ckptparse.read(tmp_path / "m")
    meaning = ckptparse.identify(tmp_path / "m.data-00000-of-00001").meaning
    assert ckptparse.identify(tmp_path / "m.data-00000-of-00001").kind == kind
    assert meaning in str(caught.value)


def test_gzip_around_a_data_file_is_said(tmp_path: Path) -> None:
    save(tmp_path / "m")
    data = tmp_path / "m.data-00000-of-00001"
    data.write_bytes(gzip.compress(data.read_bytes()))
    with pytest.raises(TruncatedError, match="gzip"):
        ckptparse.read(tmp_path / "m")


def test_the_size_and_hash_of_a_pointer_stand_in_the_message(tmp_path: Path) -> None:
    (tmp_path / "m.index").write_bytes(LFS)
    with pytest.raises(NotACheckpointError) as caught:
        ckptparse.read(tmp_path / "m")
    assert "12345 bytes" in caught.value.message
    assert DIGEST in caught.value.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('model_checkpoint_path: "m"'.encode("utf-16"), 'UTF-16: model_checkpoint_path: "m"'),
        ("model_checkpoint_path: “m”".encode(), "curly quotes: model_checkpoint_path: “m”"),
        (b"model_checkpoint_path: m", "without quotes: model_checkpoint_path: m"),
        (rb'model_checkpoint_path: "C:\Users\me\m"', r"a Windows path: model_checkpoint_path"),
        (rb'model_checkpoint_path: "\\server\Users\m"', "a Windows path"),
    ],
    ids=["UTF-16", "curly", "no quotes", "Windows", "share"],
)
def test_a_state_file_written_by_hand_is_quoted(tmp_path: Path, text: bytes, words: str) -> None:
    save(tmp_path / "m")
    (tmp_path / "checkpoint").write_bytes(text)
    with pytest.raises(MalformedError) as caught:
        ckptparse.read(tmp_path)
    assert words in caught.value.message
    assert caught.value.hint


def test_files_of_macos_are_named_and_are_no_checkpoints(tmp_path: Path) -> None:
    save(tmp_path / "m", 3)
    attributes = tmp_path / "._m.index"
    attributes.write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00" + bytes(150))
    assert value_of(tmp_path) == 3
    assert ckptparse.identify(attributes).kind == "apple-double"
    with pytest.raises(NotACheckpointError, match="AppleDouble"):
        ckptparse.read(attributes)


def test_the_small_files_of_a_saved_model_are_known() -> None:
    model = FIXTURES / "saved_model" / "keras2_sequential"
    assert ckptparse.identify(model / "fingerprint.pb").kind == "fingerprint"
    assert ckptparse.identify(model / "keras_metadata.pb").kind == "keras-metadata"


# ---- how a path is written


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("~/model/m", "expanduser"),
        ("run\\m", "Windows"),
        ("C:\\run\\m", "Windows"),
    ],
)
def test_a_path_that_is_written_oddly_gets_a_hint(path: str, words: str) -> None:
    with pytest.raises(CheckpointNotFoundError) as caught:
        ckptparse.read(path)
    assert words in str(caught.value.hint)
    assert "does not exist" not in str(caught.value)


def test_a_url_without_the_extra_says_which_one_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("obstore", "fsspec", "fsspec.core"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(CheckpointError) as caught:
        ckptparse.read("gs://bucket/m")
    assert "ckptparse[remote]" in str(caught.value)


@pytest.mark.parametrize("name", ["x.data", "x.data-?????-of-00001", "x*", "x.data-*"])
def test_a_pattern_of_data_files_gets_the_prefix(tmp_path: Path, name: str) -> None:
    save(tmp_path / "x")
    with pytest.raises(CheckpointNotFoundError) as caught:
        ckptparse.read(tmp_path / name)
    assert f"Give the prefix: '{tmp_path}/x'" in str(caught.value)
    assert "ckptparse.read" not in str(caught.value)


def test_a_pattern_that_matches_nothing_is_told_with_the_closest_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = builder.Bundle()
    for name in ("layer/kernel", "layer/bias"):
        bundle.add(name, np.float32(1))
    prefix = bundle.write(tmp_path / "m")
    for include in ("layer/kernle*", ["*", "layer/kernle"], iter(["layer/kernle"])):
        with pytest.raises(TensorNotFoundError) as caught:
            ckptparse.read(prefix, include=include)
        assert "layer/kernel" in caught.value.closest
    assert ckptparse.read(prefix, include=[]) == {}
    assert ckptparse.read(prefix, exclude="nothing*").keys() == {"layer/kernel", "layer/bias"}
    assert exit_code("ls", str(prefix), "layer/kernle*") == 1
    assert "layer/kernel" in capsys.readouterr().err
    for command in ("ls", "stats"):
        assert exit_code(command, str(prefix), "ker") == 1
        assert "must match a whole name: '*ker*' for a part of it" in capsys.readouterr().err
        assert exit_code(command, str(prefix), "*nothing*") == 1
        assert "`ckptparse ls` lists the names" in capsys.readouterr().err


def test_v1_files_under_odd_names_are_verified_as_such(tmp_path: Path) -> None:
    file = LegacyFile()
    file.add("w", np.float32(3))
    file.write(tmp_path / "odd name.h5")
    assert float(ckptparse.read(tmp_path / "odd name.h5")["w"]) == 3
    assert ckptparse.verify(tmp_path / "odd name.h5").format == "v1"


# ---- nothing there


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda folder: ckptparse.identify(folder / "saved"), "There is: .*saver"),
        (lambda folder: ckptparse.scan(folder / "qqqq"), "Nothing in .* like it"),
        (lambda folder: list(ckptparse.annotate(folder / "none" / "m.index")), "does not exist"),
        (lambda folder: ckptparse.scan(folder / "disk.mig"), "There is: .*disk.img"),
        (
            lambda folder: ckptparse.scan(folder / "disk.img", mapfile=folder / "disk.mop"),
            "There is: .*disk.map",
        ),
        (
            lambda folder: ckptparse.recover(folder / "saver", evidence=[folder / "disk.im"]),
            "There is: .*disk.img",
        ),
        (
            lambda folder: ckptparse.recover(folder / "saver", shapes=folder / "~/shapes.json"),
            "does not exist",
        ),
        (
            lambda folder: ckptparse.convert(folder / "saver", folder / "out", rename="brt"),
            "come along: albert, bert, electra, t5",
        ),
        (
            lambda folder: ckptparse.convert(
                folder / "saver", folder / "out", rename=folder / "rule.toml"
            ),
            "There is: .*rules.toml",
        ),
    ],
)
def test_a_name_at_which_nothing_is_gets_a_hint(
    call: Callable[[Path], object], words: str, tmp_path: Path
) -> None:
    ckptparse.write(tmp_path / "saver", {"w": np.zeros(3)})
    for name in ("disk.img", "disk.map", "rules.toml"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(CheckpointNotFoundError) as caught:
        call(tmp_path)
    assert re.search(words, str(caught.value.hint))


# ---- saves that were left unfinished beside a whole checkpoint


@pytest.mark.parametrize("save_of", ["temp_directory", "index_tempstate", "v1_tempstate"])
@pytest.mark.parametrize("way", ["state file", "only", "stale state file", "several"])
def test_a_save_that_was_killed_beside_another_is_told(
    save_of: str, way: str, tmp_path: Path, fixtures: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(fixtures / "crash" / save_of, run)
    (run / "checkpoint").unlink(missing_ok=True)
    save(run / "old")
    if way == "several":
        save(run / "older")
    if way != "only":
        newest = {"stale state file": "gone-7"}.get(way, "old")
        (run / "checkpoint").write_text(
            f'model_checkpoint_path: "{newest}"\nall_model_checkpoint_paths: "old"\n'
        )
    reports = [ckptparse.verify(run), ckptparse.recover(run).report]
    for report in reports:
        assert report.path == f"{run}/old"
        (told,) = [one for one in report.problems if one.code == "leftover.beside"]
        assert told.where == f"{run}/model"
        assert f"`ckptparse recover {run}/model`" in told.message
        assert report.verdict == ("damaged" if way == "stale state file" else "ok")
    assert exit_code("verify", str(run)) == (1 if way == "stale state file" else 0)
    assert ckptparse.recover(f"{run}/model")
    # Of a checkpoint that was named itself nothing else is told.
    assert not [one for one in ckptparse.verify(run / "old").problems if one.is_aside]


def test_of_many_unfinished_saves_a_few_are_named(tmp_path: Path) -> None:
    save(tmp_path / "old")
    for number in range(7):
        (tmp_path / f"m-{number}.index.tempstate5").write_bytes(b"x")
    report = ckptparse.verify(tmp_path)
    assert [one.code for one in report.problems] == ["leftover.beside"] * 5
    assert "3 more" in " ".join(one.message for one in report.problems)


def test_a_save_that_goes_on_from_the_same_prefix_is_told_once(tmp_path: Path) -> None:
    save(tmp_path / "old")
    (tmp_path / "old.index.tempstate5").write_bytes(b"x")
    codes = [one.code for one in ckptparse.verify(tmp_path).problems]
    assert "leftover.temporary" in codes and "leftover.beside" not in codes
