"""Every way to say which V2 checkpoint is meant (docs/format.md, section 5)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest

import ckptparse
from ckptparse import (
    CheckpointError,
    CheckpointNotFoundError,
    DataLossError,
    MissingShardError,
    NotACheckpointError,
)


def save(prefix: str | Path, value: float = 1, *, shards: int = 1) -> str:
    bundle = b.Bundle()
    for shard in range(shards):
        bundle.add(f"w{shard}", np.float32(value), shard=shard)
    return bundle.write(prefix)


def value_at(path: Any) -> float:
    return float(ckptparse.read(path)["w0"])


def state(folder: Path, newest: str, *others: str) -> None:
    lines = [f'model_checkpoint_path: "{newest}"']
    lines += [f'all_model_checkpoint_paths: "{path}"' for path in (*others, newest)]
    (folder / "checkpoint").write_text("\n".join(lines) + "\n", encoding="utf-8")


# ---- prefixes


@pytest.mark.checklist(83)
@pytest.mark.parametrize(
    "name",
    [
        "model", "model.ckpt", "model.ckpt-1000", "a.b.c.d", "with space", " lead and trail ",
        "[brackets]", "a[0-9]*?b", "{curly}", "back\\slash", "é ü/日本語 🙂", "new\nline", "tab\t",
        "x.index", "x.data-00000-of-00001", "x.meta", "checkpoint", "saved_model.pb", "-dash",
        "~home", "$VAR", "%d", "'quote\"", "sub/dir/model", "a" * 200, ".hidden", "..dots",
        "step=1,loss=0.5", "model.ckpt-?????-of-00002", "variables",
    ],
)  # fmt: skip
@pytest.mark.parametrize("spelling", ["prefix", "index", "shard", "Path", "bytes-like"])
def test_prefix_of_any_name_is_found_by_each_of_its_spellings(
    tmp_path: Path, name: str, spelling: str
) -> None:
    prefix = save(tmp_path / name, 7, shards=2)
    path: Any = {
        "prefix": prefix,
        "index": prefix + ".index",
        "shard": prefix + ".data-00001-of-00002",
        "Path": Path(prefix),
        "bytes-like": _Named(prefix),
    }[spelling]
    assert value_at(path) == 7
    with ckptparse.open(path) as checkpoint:
        assert str(checkpoint.path) == prefix
        assert set(map(str, checkpoint.files)) == {
            f"{prefix}{end}" for end in (".index", ".data-00000-of-00002", ".data-00001-of-00002")
        }
    assert ckptparse.list_variables(path) == [("w0", ()), ("w1", ())]


class _Named:
    """What only `os.fspath` knows the path of."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return self.path


def test_file_names_that_are_not_utf8_are_found(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    prefix = os.fsdecode(folder + b"/mod\xe8le")
    save(prefix, 3)
    assert value_at(prefix) == value_at(prefix + ".index") == value_at(os.fsdecode(folder)) == 3


@pytest.mark.parametrize("end", ["/", ""])
def test_prefix_of_an_empty_basename_is_found(tmp_path: Path, end: str) -> None:
    folder = tmp_path / "run"
    save(f"{folder}/", 5)
    assert sorted(os.listdir(folder)) == [".data-00000-of-00001", ".index"]
    assert value_at(f"{folder}{end}") == 5
    assert value_at(f"{folder}/.index") == 5
    assert value_at(f"{folder}/.data-00000-of-00001") == 5


def test_relative_paths_are_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "run" / "model", 4)
    monkeypatch.chdir(tmp_path / "run")
    for path in ("model", "./model", "../run/model", "model.index", Path("model"), "."):
        assert value_at(path) == 4


def test_checkpoint_stays_readable_when_the_working_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "model", 4)
    monkeypatch.chdir(tmp_path)
    with ckptparse.open("model") as checkpoint:
        checkpoint["w0"].read()
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path / "other")
        assert checkpoint["w0"].read() == 4


@pytest.mark.checklist(64)
def test_index_passed_directly_is_its_checkpoint_and_not_an_empty_one(tmp_path: Path) -> None:
    prefix = save(tmp_path / "model.ckpt-3")
    assert [name for name, _ in ckptparse.list_variables(prefix + ".index")] == ["w0"]


@pytest.mark.checklist(64)
def test_prefix_that_ends_in_index_wins_over_the_index_of_a_shorter_one(tmp_path: Path) -> None:
    save(tmp_path / "a", 1)
    save(tmp_path / "a.index", 2)
    assert value_at(tmp_path / "a") == 1
    assert value_at(tmp_path / "a.index") == 2
    assert value_at(tmp_path / "a.index.index") == 2


def test_prefix_that_looks_like_a_data_file_wins_over_that_file(tmp_path: Path) -> None:
    save(tmp_path / "a", 1)
    save(tmp_path / "a.data-00000-of-00001", 2)
    assert value_at(tmp_path / "a") == 1
    assert value_at(tmp_path / "a.data-00000-of-00001") == 2


def test_any_data_file_leads_to_its_checkpoint_though_others_are_missing(tmp_path: Path) -> None:
    prefix = save(tmp_path / "m", shards=3)
    (tmp_path / "m.data-00002-of-00003").unlink()
    with ckptparse.open(prefix + ".data-00001-of-00003") as checkpoint:
        assert checkpoint["w0"].read() == 1
        with pytest.raises(MissingShardError):
            checkpoint["w2"].read()


@pytest.mark.parametrize("meta", [b"\x0a\x00", b"anything"])
def test_meta_graph_leads_to_the_checkpoint_beside_it(tmp_path: Path, meta: bytes) -> None:
    prefix = save(tmp_path / "model-5", 6)
    Path(prefix + ".meta").write_bytes(meta)
    assert value_at(prefix) == 6
    try:
        got = value_at(prefix + ".meta")
    except NotACheckpointError:
        assert meta == b"anything"
    else:
        assert got == 6


def test_directory_of_the_prefix_own_name_does_not_hide_the_prefix(tmp_path: Path) -> None:
    save(tmp_path / "model", 2)
    (tmp_path / "model").mkdir()
    assert value_at(tmp_path / "model") == 2


def test_symbolic_links_to_index_and_data_are_followed(tmp_path: Path) -> None:
    save(tmp_path / "real" / "m", 2)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert value_at(tmp_path / "link" / "m") == value_at(tmp_path / "link") == 2
    for end in (".index", ".data-00000-of-00001"):
        (tmp_path / f"other{end}").symlink_to(tmp_path / "real" / f"m{end}")
    assert value_at(tmp_path / "other") == 2


# ---- directories


def test_directory_with_one_checkpoint_is_that_one(tmp_path: Path) -> None:
    save(tmp_path / "run" / "model", 2)
    (tmp_path / "run" / "notes.txt").write_text("hello")
    assert value_at(tmp_path / "run") == value_at(f"{tmp_path}/run/") == 2


def test_directory_with_several_checkpoints_lists_them(tmp_path: Path) -> None:
    for n in (1, 2, 10):
        save(tmp_path / f"model-{n}", n)
    with pytest.raises(NotACheckpointError, match="model-1") as caught:
        ckptparse.read(tmp_path)
    assert "model-2" in str(caught.value) and "model-10" in str(caught.value)


@pytest.mark.parametrize("content", ["nothing", "a text"])
def test_directory_without_checkpoints_is_none(tmp_path: Path, content: str) -> None:
    if content == "a text":
        (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(NotACheckpointError):
        ckptparse.read(tmp_path)


@pytest.mark.checklist(68)
@pytest.mark.parametrize("listed", ["model-2", "./model-2", "../run/model-2"])
def test_state_file_with_relative_paths_leads_to_the_newest(tmp_path: Path, listed: str) -> None:
    for n in (1, 2, 3):
        save(tmp_path / "run" / f"model-{n}", n)
    state(tmp_path / "run", listed, "model-1")
    assert value_at(tmp_path / "run") == 2
    assert value_at(tmp_path / "run" / "checkpoint") == 2


@pytest.mark.checklist(65, 70)
def test_state_file_with_absolute_paths_leads_to_the_newest(tmp_path: Path) -> None:
    save(tmp_path / "a" / "model-1", 1)
    state(tmp_path / "a", str(tmp_path / "a" / "model-1"))
    assert value_at(tmp_path / "a") == value_at(str(tmp_path / "a")) == 1


@pytest.mark.checklist(82)
def test_state_file_of_a_moved_directory_leads_to_the_sibling_of_that_name(tmp_path: Path) -> None:
    save(tmp_path / "old" / "model-1", 1)
    save(tmp_path / "old" / "model-2", 2)
    state(tmp_path / "old", str(tmp_path / "old" / "model-2"), str(tmp_path / "old" / "model-1"))
    shutil.move(tmp_path / "old", tmp_path / "new")
    assert value_at(tmp_path / "new") == 2


@pytest.mark.checklist(82)
@pytest.mark.parametrize("listed", ["C:\\runs\\model-1", "/gone/away/model-1", "gs://b/model-1"])
def test_paths_of_other_machines_lead_to_the_sibling_of_that_name(
    tmp_path: Path, listed: str
) -> None:
    save(tmp_path / "model-1", 1)
    state(tmp_path, listed.replace("\\", "\\\\"))
    try:
        assert value_at(tmp_path) == 1
    except CheckpointNotFoundError:
        assert listed.startswith("C:")


def test_state_file_whose_newest_is_gone_raises_and_names_the_newest_that_is_there(
    tmp_path: Path,
) -> None:
    save(tmp_path / "model-1", 1)
    state(tmp_path, "model-2", "model-1")
    with pytest.raises(CheckpointNotFoundError, match="model-2") as caught:
        ckptparse.read(tmp_path)
    assert "model-1" in str(caught.value)


def test_state_file_in_a_directory_of_odd_name(tmp_path: Path) -> None:
    folder = tmp_path / "run [1] é*?"
    save(folder / "model-1", 1)
    state(folder, "model-1")
    assert value_at(folder) == 1


def test_state_file_that_leads_to_itself_ends(tmp_path: Path) -> None:
    for newest in (".", "checkpoint", "..", "", "/", str(tmp_path)):
        state(tmp_path, newest)
        with pytest.raises(CheckpointError):
            ckptparse.read(tmp_path)


def test_state_files_that_lead_to_each_other_end(tmp_path: Path) -> None:
    for here, there in (("a", "b"), ("b", "a")):
        (tmp_path / here).mkdir()
        state(tmp_path / here, f"../{there}")
    with pytest.raises(CheckpointError):
        ckptparse.read(tmp_path / "a")


# ---- SavedModels


@pytest.mark.checklist(118)
@pytest.mark.parametrize("marker", ["saved_model.pb", "saved_model.pbtxt", "saved_model.cpb"])
def test_saved_model_leads_to_its_variables(tmp_path: Path, marker: str) -> None:
    model = tmp_path / "model"
    save(model / "variables" / "variables", 8)
    (model / marker).write_bytes(b"\x08\x01")
    for path in (
        model, f"{model}/", model / marker, model / "variables", f"{model}/variables/",
        model / "variables" / "variables", model / "variables" / "variables.index",
        model / "variables" / "variables.data-00000-of-00001",
    ):  # fmt: skip
        assert value_at(path) == 8


def test_saved_model_wins_over_a_state_file_beside_it(tmp_path: Path) -> None:
    save(tmp_path / "variables" / "variables", 8)
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01")
    save(tmp_path / "model-1", 1)
    state(tmp_path, "model-1")
    assert value_at(tmp_path) == 8


def test_saved_model_without_variables_says_so(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01")
    with pytest.raises(CheckpointNotFoundError, match="variables"):
        ckptparse.read(tmp_path)


# ---- what is not there, and what is something else


@pytest.mark.parametrize(
    "path", ["absent", "absent/model", "absent.index", "absent.meta", "absent/"]
)
def test_absent_paths_are_not_found(tmp_path: Path, path: str) -> None:
    with pytest.raises(CheckpointNotFoundError) as caught:
        ckptparse.read(f"{tmp_path}/{path}")
    assert isinstance(caught.value, FileNotFoundError) and caught.value.path is not None


@pytest.mark.parametrize("path", ["", "\0", "a\0b", "x" * 300, "x" * 5000, "/dev/null", "/"])
def test_impossible_paths_are_checkpoint_errors(path: str) -> None:
    for call in (ckptparse.read, ckptparse.open, ckptparse.list_variables):
        with pytest.raises(CheckpointError):
            call(path)


@pytest.mark.parametrize("path", [None, 5, object(), ["a"]])
def test_what_is_no_path_is_a_type_error(path: Any) -> None:
    with pytest.raises(TypeError):
        ckptparse.read(path)


def test_file_below_a_file_is_not_found(tmp_path: Path) -> None:
    save(tmp_path / "m")
    with pytest.raises(CheckpointNotFoundError):
        ckptparse.read(tmp_path / "m.index" / "below")


def test_data_file_without_its_index_says_what_is_missing(tmp_path: Path) -> None:
    prefix = save(tmp_path / "m")
    Path(prefix + ".index").unlink()
    for path in (prefix, prefix + ".data-00000-of-00001"):
        with pytest.raises(CheckpointError) as caught:
            ckptparse.read(path)
        assert "index" in str(caught.value), str(caught.value)


def test_fifo_by_the_name_of_an_index_is_an_error_and_no_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.index")
    for path in (tmp_path / "m", tmp_path / "m.index"):
        with pytest.raises(CheckpointError):
            ckptparse.read(path)


def test_directory_by_the_name_of_an_index_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "m.index").mkdir()
    for path in (tmp_path / "m", tmp_path / "m.index"):
        with pytest.raises(CheckpointError):
            ckptparse.read(path)


def test_dangling_link_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "m.index").symlink_to("gone")
    for path in (tmp_path / "m", tmp_path / "m.index"):
        with pytest.raises(CheckpointError):
            ckptparse.read(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12\n",
            "LFS",
        ),
        (b"<!DOCTYPE html><html><body>404</body></html>", "HTML"),
        (b"\x1f\x8b\x08\x00" + bytes(20), "gzip"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
    ],
    ids=["lfs", "html", "gzip", "hdf5"],
)
@pytest.mark.parametrize("name", ["model.ckpt", "model.index"])
def test_what_lies_there_instead_is_named(
    tmp_path: Path, content: bytes, words: str, name: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(NotACheckpointError, match=f"(?i){words}") as caught:
        ckptparse.read(tmp_path / name)
    assert caught.value.identity is not None


@pytest.mark.parametrize("size", [0, 4096])
def test_empty_file_and_zeros_are_no_checkpoint_and_as_an_index_lost_data(
    tmp_path: Path, size: int
) -> None:
    for name in ("model.ckpt", "model.index"):
        (tmp_path / name).write_bytes(bytes(size))
    with pytest.raises(NotACheckpointError, match="zero" if size else "empty"):
        ckptparse.read(tmp_path / "model.ckpt")
    with pytest.raises(DataLossError):
        ckptparse.read(tmp_path / "model.index")
