"""Outputs: what lies where we are to write is never followed, never replaced unasked."""

from __future__ import annotations

import os
import stat
import sys
import unicodedata
from collections.abc import Callable
from itertools import product
from pathlib import Path

import builder as b
import numpy as np
import pytest
from attacking import run_child

import ckptparse
from ckptparse.sinks import npy

Writer = Callable[[str, Path], object]


def source(folder: Path) -> str:
    made = b.Bundle()
    made.add("w", np.arange(40_000, dtype=np.float32))
    return made.write(folder / "in" / "m")


WRITERS: dict[str, tuple[str, Writer]] = {
    "npz": ("out.npz", ckptparse.convert),
    "safetensors": ("out.safetensors", ckptparse.convert),
    "hdf5": ("out.h5", ckptparse.convert),
    "npy": ("out", lambda path, out: ckptparse.convert(path, out, format="npy")),
    "v2": ("out.index", lambda path, out: ckptparse.convert(path, out.with_suffix(""))),
    "write": ("out.index", lambda path, out: ckptparse.write(out.with_suffix(""), {"w": [1.0]})),
    "recovery": ("out.npz", lambda path, out: ckptparse.recover(path).write(out)),
    "page": ("out.html", lambda path, out: ckptparse.report_page(path, out, statistics=False)),
}


@pytest.mark.parametrize("kind", ["file", "link", "dangling", "directory", "fifo"])
@pytest.mark.parametrize("writer", WRITERS)
def test_what_lies_where_a_result_goes_stays_as_it_is(
    tmp_path: Path, writer: str, kind: str
) -> None:
    name, write = WRITERS[writer]
    path = source(tmp_path)
    place, other = tmp_path / "to" / name, tmp_path / "other"
    place.parent.mkdir()
    other.write_bytes(b"precious")
    if kind == "file":
        place.write_bytes(b"precious")
    elif kind == "link":
        place.symlink_to(other)
    elif kind == "dangling":
        place.symlink_to(tmp_path / "nowhere")
    elif kind == "directory":
        place.mkdir()
        (place / "kept").write_bytes(b"precious")
    else:
        os.mkfifo(place)
    before = sorted(place.parent.iterdir())
    with pytest.raises(ckptparse.OutputExistsError):
        write(path, place)
    assert sorted(place.parent.iterdir()) == before
    assert other.read_bytes() == b"precious"
    assert not (tmp_path / "nowhere").exists()


REPLACERS: dict[str, tuple[str, Writer]] = {
    "npz": ("out.npz", lambda path, out: ckptparse.convert(path, out, overwrite=True)),
    "safetensors": (
        "out.safetensors",
        lambda path, out: ckptparse.convert(path, out, overwrite=True),
    ),
    "hdf5": ("out.h5", lambda path, out: ckptparse.convert(path, out, overwrite=True)),
    "npy": (
        "out",
        lambda path, out: ckptparse.convert(path, out, format="npy", overwrite=True),
    ),
    "v2": (
        "out.index",
        lambda path, out: ckptparse.convert(path, out.with_suffix(""), overwrite=True),
    ),
    "write": (
        "out.index",
        lambda path, out: ckptparse.write(out.with_suffix(""), {"w": [1.0]}, overwrite=True),
    ),
    "recovery": ("out.npz", lambda path, out: ckptparse.recover(path).write(out, overwrite=True)),
    "page": (
        "out.html",
        lambda path, out: ckptparse.report_page(path, out, statistics=False, overwrite=True),
    ),
}


def make_device(place: Path) -> None:
    """A device of zeros of its own: nothing that goes wrong here may reach that of the system."""
    try:
        os.mknod(place, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    except (AttributeError, PermissionError):
        pytest.skip("only the administrator of a POSIX system makes devices")


@pytest.mark.parametrize("kind", ["FIFO", "device"])
@pytest.mark.parametrize("linked", [False, True], ids=["itself", "by a link"])
@pytest.mark.parametrize("writer", REPLACERS)
def test_who_asks_to_overwrite_replaces_no_device_and_no_fifo(
    tmp_path: Path, writer: str, linked: bool, kind: str
) -> None:
    """`-o /dev/null` by the administrator would take the device from the whole system."""
    name, write = REPLACERS[writer]
    path = source(tmp_path)
    (tmp_path / "to").mkdir()
    named = tmp_path / "to" / name
    place = tmp_path / "special" if linked else named
    if kind == "FIFO":
        os.mkfifo(place)
    else:
        make_device(place)
    if linked:
        named.symlink_to(place)
    mode = place.lstat().st_mode
    with pytest.raises(ckptparse.OutputExistsError):
        write(path, named)
    assert place.lstat().st_mode == mode
    assert sorted(one.name for one in named.parent.iterdir()) == [name]


LIMITED = """
import resource, signal, sys
# Python would leave its compiled modules cut off, for every later process to stumble over.
sys.dont_write_bytecode = True
from ckptparse.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
sys.argv = ["ckptparse", *sys.argv[1:]]
main()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits are those of Linux")
@pytest.mark.parametrize(
    "command",
    [
        ["show", "PATH", "w", "--npy", "OUT.npy"],
        ["convert", "PATH", "OUT.npz"],
        ["convert", "PATH", "OUT"],
        ["recover", "PATH", "-o", "OUT"],
        ["page", "PATH", "OUT.html"],
    ],
    ids=" ".join,
)
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, command: list[str]) -> None:
    path, out = source(tmp_path), tmp_path / "to" / "out"
    out.parent.mkdir()
    words = [word.replace("PATH", path).replace("OUT", str(out)) for word in command]
    code = LIMITED.replace("main()\n", "try:\n    main()\nexcept SystemExit as error:\n    ")
    found = run_child(code + "print(error.code)\n", *words).splitlines()[-1]
    assert found == "2"
    assert list(out.parent.iterdir()) == []


def test_names_that_differ_by_case_alone_are_different_files(tmp_path: Path) -> None:
    """On a disk that does not tell them apart, one would replace the other."""
    names = [
        "w",
        "W",
        "a/b",
        "a%2Fb",
        "report",
        "Report",
        "w.missing",
        "..",
        "CON",
        "w~2",
        "\0",
        "",
    ]
    made = b.Bundle()
    for number, name in enumerate(names):
        if name:
            made.add(name, np.full(2, number, np.float32))
    path = made.write(tmp_path / "in" / "m")
    ckptparse.recover(path).write(tmp_path / "out")
    ckptparse.convert(path, tmp_path / "npy", format="npy")
    for folder in (tmp_path / "out", tmp_path / "npy"):
        files = [file.name for file in folder.iterdir()]
        assert len({name.casefold() for name in files}) == len(files)
        assert len([name for name in files if name.endswith(".npy")]) == len(names) - 1
        assert all(file.parent == folder for file in folder.rglob("*"))
    assert sorted(tmp_path.iterdir()) == [tmp_path / "in", tmp_path / "npy", tmp_path / "out"]


LETTERS = ["w", "W", "\u00e9", "e\u0301", "\u00c9", "ss", "\u00df", "SS", "k", "\u212a"]
"""Names that one disk or the other takes for the same: capitals, accents, signs."""


@pytest.mark.parametrize("to", ["v2", "npz", "npy", "safetensors", "hdf5"])
def test_names_that_a_disk_takes_for_the_same_are_all_kept(tmp_path: Path, to: str) -> None:
    if to in ("safetensors", "hdf5"):
        pytest.importorskip({"hdf5": "h5py"}.get(to, to))
    path, target = tmp_path / "m", tmp_path / "out" / f"made{ENDINGS[to]}"
    arrays = {name: np.full(2, number, np.float32) for number, name in enumerate(LETTERS)}
    ckptparse.write(path, arrays)
    target.parent.mkdir()
    ckptparse.convert(path, target, format=to)
    assert len(ckptparse.diff(path, target).equal) == len(LETTERS)
    names = [unicodedata.normalize("NFD", one.name).casefold() for one in target.parent.rglob("*")]
    assert len(set(names)) == len(names)


ENDINGS = {"v2": "", "npz": ".npz", "npy": "", "safetensors": ".safetensors", "hdf5": ".h5"}


def test_many_names_of_one_file_cost_a_look_each(tmp_path: Path) -> None:
    """They begin alike, and are cut; or differ by capitals."""

    class Counted(dict[str, int]):
        asked = 0

        def __contains__(self, name: object) -> bool:
            Counted.asked += 1
            return super().__contains__(name)

    long = [f"{'x' * 300}{number}" for number in range(500)]
    capitals = ["".join(one) for one in product(*["aA"] * 9)]
    taken = Counted()
    files = [npy._free_name(name, taken) for name in long + capitals]
    assert len({name.casefold() for name in files}) == len(files) == 1012
    assert Counted.asked < 3 * len(files)
    assert files[:2] == [f"{'x' * 200}.npy", f"{'x' * 200}~2.npy"]


@pytest.mark.parametrize("name", ["con", "NUL", "Com1.x", "aux ", "lpt9", "~con", "console"])
def test_no_name_of_a_tensor_is_that_of_a_device_of_windows(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m"
    ckptparse.write(path, {name: np.float32([1]), f"~{name}": np.float32([2])})
    ckptparse.convert(path, tmp_path / "npy", format="npy")
    files = sorted(file.name for file in (tmp_path / "npy").iterdir())
    first = name if name == "console" else f"~{name.removeprefix('~')}"
    assert f"{first}.npy" in files and len(files) == 3
    assert ckptparse.diff(path, tmp_path / "npy").equal


@pytest.mark.parametrize("name", ["../x", "/x", "a\0b", "x" * 300, "\x1b[2J", "a\nb", "."])
def test_no_name_of_a_tensor_leads_out_of_the_output(tmp_path: Path, name: str) -> None:
    made = b.Bundle()
    made.add(name, np.float32(1))
    path = made.write(tmp_path / "in" / "m")
    ckptparse.recover(path).write(tmp_path / "out")
    ckptparse.convert(path, tmp_path / "npy", format="npy")
    assert sorted(tmp_path.iterdir()) == [tmp_path / "in", tmp_path / "npy", tmp_path / "out"]
    assert len(list((tmp_path / "out").rglob("*.npy"))) == 1


def test_nothing_is_written_beside_the_input(tmp_path: Path) -> None:
    path = source(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    ckptparse.read(path)
    ckptparse.verify(path)
    ckptparse.recover(path)
    list(ckptparse.annotate(path))
    ckptparse.identify(path)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["\0\0\x01\0", "\0w\0\x01\x01\x01\udc80\x7f"])
def test_a_name_that_would_be_a_slice_is_refused_and_not_lost(tmp_path: Path, name: str) -> None:
    made = tmp_path / "m"
    with pytest.raises(ckptparse.UnsupportedError, match="slice"):
        ckptparse.write(made, {"w": np.zeros(2), name: np.zeros(2)})
    assert not list(tmp_path.iterdir())
    ckptparse.write(made, {"\0w": np.ones(2)})
    assert list(ckptparse.read(made)) == ["\0w"]


@pytest.mark.parametrize("graph", [np.float32(1), np.zeros(3), np.array([b"a", b"b"], object)])
def test_an_object_graph_that_is_no_string_is_made_anew(tmp_path: Path, graph: object) -> None:
    key = "w/.ATTRIBUTES/VARIABLE_VALUE"
    made = b.Bundle()
    made.add(key, np.float32([1, 2]))
    made.add("_CHECKPOINTABLE_OBJECT_GRAPH", graph)
    path = made.write(tmp_path / "in" / "m")
    assert "object_graph.damaged" in {one.code for one in ckptparse.verify(path).problems}
    written = ckptparse.recover(path).write(tmp_path / "out.ckpt")
    assert written.object_graph == "made"
    with ckptparse.open(written.path) as checkpoint:
        assert list(checkpoint) == [key] and checkpoint.object_graph is not None


@pytest.mark.parametrize(
    "names",
    [
        ["n" * 65_531, "n" * 65_532, "n" * 65_533],
        ["é" * 32_765 + "n", "é" * 32_766],
        ["\\" * 30_000, "\\" * 30_001],
        ["a\0", "a%00~", "a%00~~", "b"],
    ],
    ids=["long", "wide", "quoted", "alike"],
)
def test_a_name_that_no_member_of_an_archive_can_have_is_kept(
    names: list[str], tmp_path: Path
) -> None:
    values = {name: np.full(2, number, np.float32) for number, name in enumerate(names)}
    prefix = ckptparse.write(tmp_path / "m", values)
    ckptparse.convert(prefix, tmp_path / "m.npz")
    assert sorted(ckptparse.diff(prefix, tmp_path / "m.npz").equal) == sorted(names)
