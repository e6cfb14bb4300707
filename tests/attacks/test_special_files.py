"""FIFOs, directories, devices, sockets and loops of links, each where a file of data should be.

Opening a FIFO waits for a writer, and a device may have bytes without end. Every call must say at
once that there is no file.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import builder as b
import graph_builder as g
import numpy as np
import pytest
import v1_builder as v1
from attacking import attempt_each

import ckptparse
from ckptparse.files import walking
from ckptparse.files.local import LocalStorage

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")


def put_socket(place: Path) -> None:
    """The path of a socket may have some 100 bytes: it is made under a short name."""
    made = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    try:
        os.chdir(place.parent)
        made.bind(place.name)
    finally:
        os.chdir(here)
        made.close()


KINDS: dict[str, Callable[[Path], object]] = {
    "FIFO": os.mkfifo,
    "directory": Path.mkdir,
    "device of zeros": lambda place: place.symlink_to("/dev/zero"),
    "device of noise": lambda place: place.symlink_to("/dev/urandom"),
    "socket": put_socket,
    "loop": lambda place: place.symlink_to(place.name),
}


def bundle() -> b.Bundle:
    made = b.Bundle()
    made.add("w", np.arange(9, dtype=np.float32))
    made.add("s", np.array([b"x"], object))
    return made


def beside_a_bundle(name: str) -> Callable[[Path], tuple[Path, Path]]:
    def make(folder: Path) -> tuple[Path, Path]:
        bundle().write(folder / "m")
        return folder / name, folder / "m"

    return make


def state(folder: Path) -> tuple[Path, Path]:
    bundle().write(folder / "m")
    return folder / "checkpoint", folder


def v1_whole(folder: Path) -> tuple[Path, Path]:
    return folder / "m", folder / "m"


def v1_part(folder: Path) -> tuple[Path, Path]:
    made = v1.LegacyFile()
    made.add("w", np.float32(1))
    made.write(folder / "m-00000-of-00002")
    return folder / "m-00001-of-00002", folder / "m"


def in_a_model(name: str) -> Callable[[Path], tuple[Path, Path]]:
    def make(folder: Path) -> tuple[Path, Path]:
        (folder / "variables").mkdir()
        bundle().write(folder / "variables" / "variables")
        meta = b.field(1, b.field(4, b"serve")) + b.field(2, g.graph([g.node("n", "NoOp")]))
        (folder / "saved_model.pb").write_bytes(b"\x08\x01" + b.field(2, meta))
        return folder / name, folder

    return make


def itself(name: str) -> Callable[[Path], tuple[Path, Path]]:
    return lambda folder: (folder / name, folder / name)


DATA = "m.data-00000-of-00001"
NOT_FOUND, NO_FILE = "CheckpointNotFoundError", "NotACheckpointError"
PLACES: dict[str, tuple[Callable[[Path], tuple[Path, Path]], set[str]]] = {
    "index": (beside_a_bundle("m.index"), {NOT_FOUND}),
    "index itself": (itself("m.index"), {NO_FILE, NOT_FOUND}),
    "data": (beside_a_bundle(DATA), {NO_FILE, "MissingShardError", "UnsupportedError"}),
    "data itself": (itself(DATA), {NO_FILE, NOT_FOUND}),
    "meta graph": (beside_a_bundle("m.meta"), {"value"}),
    "state file": (state, {"value"}),
    "V1": (v1_whole, {NO_FILE, NOT_FOUND}),
    "part of V1": (v1_part, {"MissingShardError"}),
    "index of a model": (in_a_model("variables/variables.index"), {NOT_FOUND}),
    "data of a model": (
        in_a_model(f"variables/variables.{DATA[2:]}"),
        {NO_FILE, "MissingShardError", "UnsupportedError"},
    ),
    "message of a model": (in_a_model("saved_model.pb"), {"value", NO_FILE, NOT_FOUND}),
    "fingerprint of a model": (in_a_model("fingerprint.pb"), {"value"}),
    "chunked model": (itself("saved_model.cpb"), {NO_FILE, NOT_FOUND}),
    "graph": (itself("graph.pb"), {NO_FILE, NOT_FOUND}),
    "text of a graph": (itself("graph.pbtxt"), {NO_FILE, NOT_FOUND}),
    "archive": (itself("m.zip"), {NO_FILE, NOT_FOUND}),
    "packed archive": (itself("m.tar.gz"), {NO_FILE, NOT_FOUND}),
}
"""What to make, which is the place and what is read; and what `read` gives: what is no file, and is
not needed for the values, counts as absent."""


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_said_at_once_wherever_it_lies(tmp_path: Path, kind: str) -> None:
    paths = []
    for number, (make, _) in enumerate(PLACES.values()):
        folder = tmp_path / str(number)
        folder.mkdir()
        place, path = make(folder)
        place.unlink(missing_ok=True)
        KINDS[kind](place)
        paths.append(path)
    found = attempt_each(paths)
    wrong = {
        place: one["read"]
        for (place, (_, verdicts)), one in zip(PLACES.items(), found, strict=True)
        if one["read"] not in verdicts
    }
    assert wrong == {}
    assert {one["identify"] for one in found} <= {"value", NOT_FOUND, "UnsupportedError"}
    assert all(one["recover"] != "LimitError" for one in found)


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_file_that_is_no_file_names_nothing(tmp_path: Path, kind: str) -> None:
    KINDS[kind](tmp_path / "checkpoint")
    assert ckptparse.latest_checkpoint(tmp_path) is None
    assert ckptparse.checkpoint_state(tmp_path) is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_scan_passes_over_what_is_no_file(tmp_path: Path, kind: str) -> None:
    bundle().write(tmp_path / "m")
    for name in ("n.index", "n.data-00000-of-00001", "checkpoint", "saved_model.pb", "disk.img"):
        KINDS[kind](tmp_path / name)
    assert [found["w"].read().tolist() for found in _recoveries(tmp_path)] == [list(range(9))]


def _recoveries(folder: Path) -> list[ckptparse.Recovery]:
    return [one.recover() for one in ckptparse.scan(folder) if one.nbytes]


def _look_below(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Take a directory as evidence, and scan it; return the directories that were listed below."""
    damaged = bundle()
    damaged.change("w", crc=7)
    (tmp_path / "damaged").mkdir()
    prefix = Path(damaged.write(tmp_path / "damaged" / "m"))
    listed = []
    list_folder = LocalStorage.list

    def note(self: LocalStorage, directory: str) -> object:
        listed.append(directory)
        return list_folder(self, directory)

    monkeypatch.setattr(LocalStorage, "list", note)
    ckptparse.recover(prefix, evidence=[folder], siblings=False)
    assert ckptparse.scan(folder).checkpoints == ()
    return [name for name in listed if Path(name).is_relative_to(folder)]


def test_links_to_a_directory_lead_to_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    for number in range(4):
        (folder / f"here{number}").symlink_to(".")
        (folder / "inner" / f"up{number}").symlink_to("..")
    # Twice each: as evidence, and for the scan.
    assert len(_look_below(folder, tmp_path, monkeypatch)) == 4


def test_directories_may_lie_deeper_than_calls_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for _ in range(1100):
        Path("a").mkdir()
        os.chdir("a")
    assert len(_look_below(folder, tmp_path, monkeypatch)) == 2 * 1101
    # What removes temporary directories calls itself, too.
    for _ in range(1100):
        os.chdir("..")
        Path("a").rmdir()


def test_of_directories_without_files_some_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walking, "MOST_FOLDERS", 9)
    folder = tmp_path / "folder"
    for number in range(20):
        (folder / str(number)).mkdir(parents=True)
    assert len(_look_below(folder, tmp_path, monkeypatch)) == 2 * 9
