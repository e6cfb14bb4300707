"""Long lists (of entries, names, files) that once cost more than they had to: calls are counted."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import builder
import numpy as np
import pytest

import ckptparse
from ckptparse import filenames, json_text, text
from ckptparse.bundle.naming import decode_names
from ckptparse.cli.app import PROGRAM
from ckptparse.examination.plain_rows import PlainRows
from ckptparse.examination.report import ExaminedTensors
from ckptparse.files import walking
from ckptparse.files.context import begin
from ckptparse.files.local import LOCAL, Listing
from ckptparse.inventory import by_directory, identities, parts
from ckptparse.inventory.folders import Folders
from ckptparse.jobs import diff as diff_module
from ckptparse.limits import DEFAULT_LIMITS, Limits
from ckptparse.recovery.evidence import gather
from ckptparse.rendering.page import choosing
from ckptparse.rendering.page import subject as page_subject
from ckptparse.rendering.page.subject import Subject
from ckptparse.sinks import npy, options
from ckptparse.table import block as block_module
from ckptparse.table.block import Block
from ckptparse.table.columns import TableColumns

Counted = Callable[[Any, str], list[Any]]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """Note the calls of a function, which goes on as before: what each was given last."""

    def count(owner: Any, name: str) -> list[Any]:
        real, calls = getattr(owner, name), []

        def stand_in(*args: Any, **options: Any) -> Any:
            calls.append(args[-1] if args else None)
            return real(*args, **options)

        monkeypatch.setattr(owner, name, stand_in)
        return calls

    return count


@pytest.mark.parametrize("shared", [3, 127, 128, 300, (1 << 14) - 1])
def test_keys_that_share_much_are_decoded_where_they_lie(shared: int, counted: Counted) -> None:
    keys = [b"k" * shared + bytes([number]) for number in range(100)]
    contents = builder.block([(key, b"v%d" % key[-1]) for key in keys], restart_interval=1000)
    one_by_one = counted(block_module, "decode_entry")
    entries = Block.from_bytes(contents).decode_entries(limits=DEFAULT_LIMITS)
    assert entries.keys == keys
    values = zip(entries.starts, entries.ends, strict=True)
    assert [contents[start:end] for start, end in values] == [b"v%d" % n for n in range(100)]
    # The first key is stored in full.
    assert len(one_by_one) == (shared >= 127)


def test_names_with_a_zero_byte_are_cut_out_of_one_column(counted: Counted) -> None:
    keys = [b"", b"a", b"a\x00b", b"\xff\x00", "\u00e9\x00".encode()]
    columns = TableColumns.of_blocks(
        [
            Block.from_bytes(builder.block(sorted((key, b"") for key in keys))).decode_entries(
                limits=DEFAULT_LIMITS
            )
        ]
    )
    by_themselves = counted(TableColumns, "key")
    expected = [key.decode("utf-8", "surrogateescape") for key in sorted(keys)]
    for first in range(len(keys) + 1):
        assert decode_names(columns, first) == expected[first:]
    assert not by_themselves


def test_usual_characters_of_a_name_are_not_looked_at_one_by_one(counted: Counted) -> None:
    looked = counted(text, "_escape_character")
    assert text.escape("a" * 1000 + "\x00\\b\n") == "a" * 1000 + r"\x00\\b\n"
    assert text.clean("a" * 1000 + "\x00\\b\n") == "a" * 1000 + "\\x00\\b "
    assert looked == ["\x00", "\n", "\x00"]


def damaged(folder: Path, count: int, bad: int) -> str:
    """Write so many scalars, of which some have another checksum."""
    made = builder.Bundle()
    for number in range(count):
        made.add(f"w{number:04}", np.float32(number))
        if number < bad:
            made.change(f"w{number:04}", crc=7)
    return made.write(folder / "m")


def test_the_bytes_of_a_tensor_are_described_once(tmp_path: Path, counted: Counted) -> None:
    report = ckptparse.verify(damaged(tmp_path, 1500, 1400))
    described = counted(PlainRows, "payload")
    statuses = [str(one.status) for one in report.tensors.values()]
    assert statuses == ["corrupt"] * 1400 + ["verified"] * 100
    assert len(described) == len(set(described)) > 1000


@pytest.mark.parametrize("words", [["--map"], []])
def test_the_records_of_a_report_make_the_tensors_that_they_tell_of(
    tmp_path: Path, counted: Counted, words: list[str]
) -> None:
    path = damaged(tmp_path, 400, 5)
    made = counted(ExaminedTensors, "__getitem__")
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        PROGRAM.main(["verify", *words, path], prog_name="ckptparse", standalone_mode=False)
    told = [line.split("\t")[1] for line in out.getvalue().splitlines() if line[:7] == "tensor\t"]
    assert told == [f"w{number:04}" for number in range(5)]
    assert set(made) == set(told)
    report = ckptparse.verify(path)
    made.clear()
    assert "and 5 more" not in report.render(maps=True)
    assert set(made) == set(told)


def test_names_of_ascii_are_not_searched_for_what_is_not_utf_8(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(options, "_LONE_SURROGATE", None)
    assert npy._member("a" * 1000) == ""
    assert npy._member("a\\b") == "a%5Cb~"
    monkeypatch.undo()
    assert npy._member("\u00e9") == ""
    assert npy._member("\u00e9\udcff") == "%C3%A9%FF~"


def test_256_characters_of_a_name_count_as_a_tensor(tmp_path: Path) -> None:
    made = builder.Bundle()
    for number in range(3):
        made.add("n" * 5000 + str(number), np.float32(number))
    path = made.write(tmp_path / "m")
    held = sum(file.stat().st_size for file in tmp_path.iterdir()) // 512
    copy = str(tmp_path / "copy.npz")
    enough, less = (Limits(small_tensors=2 * (3 + 57) - held - few) for few in (0, 1))
    ckptparse.convert(path, copy, limits=enough)
    jobs: list[Callable[[], object]] = [
        lambda: ckptparse.convert(path, copy, limits=less, overwrite=True),
        lambda: ckptparse.stats(path, limits=Limits(small_tensors=3)),
    ]
    for job in jobs:
        with pytest.raises(
            ckptparse.LimitError, match="and of 256 characters of their names"
        ) as caught:
            job()
        assert caught.value.limit == "small_tensors"
    ckptparse.stats(path, limits=Limits(small_tensors=3 + 57 - held))
    with (
        ckptparse.open(path, limits=Limits(small_tensors=3)) as opened,
        pytest.raises(ckptparse.LimitError, match="and of 256 characters of their names"),
    ):
        assert opened.optimizers is None
    recovery = ckptparse.recover(path, limits=Limits(small_tensors=8))
    with pytest.raises(ckptparse.LimitError, match="number of recovered tensors"):
        recovery.write(tmp_path / "saved")


def test_a_directory_is_listed_without_asking_about_each_file(
    tmp_path: Path, counted: Counted
) -> None:
    path = damaged(tmp_path, 3, 1)
    for number in range(300):
        (tmp_path / f"m.index.tempstate{number}").touch()
        (tmp_path / f"other{number}").touch()
    folders = Folders(begin(path)[1])
    asked = counted(os, "stat")
    names = folders.names(str(tmp_path))
    assert len(names) == len(folders.files(str(tmp_path))) == 602
    assert names == sorted(names)
    assert not asked
    ckptparse.read(path, verify=False)
    assert len(asked) < 30


@pytest.mark.parametrize("kind", ["files", "folders"])
@pytest.mark.parametrize("files_first", [True, False])
def test_what_a_walk_does_not_reach_is_asked_nothing(
    tmp_path: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch, kind: str, files_first: bool
) -> None:
    monkeypatch.setattr(walking, "MOST_FOLDERS", 4)
    for number in range(300):
        if kind == "files":
            (tmp_path / f"{number:03}").touch()
        else:
            (tmp_path / f"{number:03}").mkdir()
            (tmp_path / f"{number:03}" / "a").touch()
    status = LOCAL.stat(str(tmp_path))
    assert status is not None
    asked = counted(os, "stat")
    found = walking.Walk(LOCAL).iter_files(str(tmp_path), status, files_first=files_first)
    assert len(list(islice(found, 3))) == 3
    assert len(asked) < 10


def test_folders_beyond_those_that_are_listed_are_asked_nothing(
    tmp_path: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walking, "MOST_FOLDERS", 4)
    for number in range(300):
        (tmp_path / f"{number:03}").mkdir()
    asked = counted(os, "stat")
    assert not Folders(begin(tmp_path)[1]).names(str(tmp_path))
    (problem,) = ckptparse.scan(tmp_path).problems
    assert "directories were looked at" in problem.message
    below = [path for path in asked if str(path).startswith(f"{tmp_path}{os.sep}")]
    assert 3 < len(below) < 30


@pytest.mark.skipif(os.name != "posix", reason="links and FIFOs are those of POSIX")
def test_what_a_listing_says_of_a_name_is_what_the_path_says(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"four")
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "to directory").symlink_to("directory")
    (tmp_path / "nothing").symlink_to("nowhere")
    (tmp_path / "itself").symlink_to("itself")
    os.mkfifo(tmp_path / "fifo")
    listed = LOCAL.list(str(tmp_path))
    assert list(listed) == sorted(os.listdir(tmp_path))
    kinds = {name: one.kind for name, one in listed.items()}
    assert kinds == {
        "file": "file",
        "directory": "directory",
        "link": "file",
        "to directory": "directory",
        "nothing": "dangling",
        "itself": "dangling",
        "fifo": "other",
    }
    for name in set(kinds) - {"itself"}:
        assert listed[name] == LOCAL.stat(str(tmp_path / name))
    assert isinstance(listed, Listing)
    assert listed.file_names() == ["file", "link"]
    assert listed["file"].size == 4
    assert "other" not in listed and len(listed) == 7
    with pytest.raises(KeyError):
        listed["other"]
    assert repr(listed) == repr(dict(listed))
    (tmp_path / "directory" / "late").touch()
    late = LOCAL.list(str(tmp_path / "directory"))
    (tmp_path / "directory" / "late").unlink()
    assert late["late"].kind == "dangling"


def report_of(prefix: str, path: Path, **asked: object) -> Path:
    """Write the report of a recovery of which something else was asked, too."""
    told = {"report": ckptparse.recover(prefix, hashes=True).report.to_dict()}
    told["report"]["options"].update(asked)
    path.write_text(json.dumps(told))
    return path


def test_a_replayed_report_names_as_many_files_as_evidence_as_its_size_allows(
    tmp_path: Path, counted: Counted
) -> None:
    prefix = damaged(tmp_path, 3, 1)
    ways = [f"{tmp_path}{'/.' * number}/m" for number in range(2000)]
    report = report_of(prefix, tmp_path / "report.json", evidence=ways)
    listed = counted(Folders, "beginning")
    replayed = ckptparse.replay(report)
    assert replayed.recovery.report.options["evidence"] == ways[:1]
    assert len(listed) < 10
    many = report_of(prefix, tmp_path / "report.json", evidence=["nowhere"] * 10_200)
    assert many.stat().st_size < 200 << 10
    with pytest.raises(ckptparse.LimitError, match=r"Limits\.members"):
        ckptparse.replay(many)


def test_a_replayed_report_has_as_many_shapes_as_a_file_of_shapes(tmp_path: Path) -> None:
    prefix = damaged(tmp_path, 3, 1)
    shapes = {f"{number}": [] for number in range(40_000)}
    report = report_of(prefix, tmp_path / "report.json", shapes=shapes)
    with pytest.raises(ckptparse.LimitError, match=r"Limits\.small_tensors"):
        ckptparse.replay(report)
    report_of(prefix, report, shapes={"w": [1]})
    assert ckptparse.replay(report).recovery.report.options["shapes"] == {"w": [1]}


def test_prefixes_as_evidence_look_their_files_up_in_one_sorted_list(
    tmp_path: Path, counted: Counted
) -> None:
    for number in range(100):
        (tmp_path / f"m-{number}.index").touch()
    damaged(tmp_path, 3, 1)
    asked = counted(gather, "belongs_to")
    found = gather.Evidence([str(tmp_path / f"m-{n}") for n in range(100)], begin("m")[1])
    assert len(found.files) == 100
    # `m-1` begins `m-10` to `m-19`, too.
    assert len(asked) == 100 + 9 * 10


def long_names(folder: Path, count: int, size: int) -> str:
    """Write so many scalars whose names have so many characters."""
    made = builder.Bundle()
    for number in range(count):
        name = "n" * (size - 4) + f"{number:04}"
        made.add(name, np.float32(number))
    folder.mkdir(exist_ok=True)
    return made.write(folder / "m")


@pytest.mark.parametrize("job", ["ls", "report", "page"])
def test_lists_of_long_names_end_earlier(tmp_path: Path, job: str) -> None:
    path = long_names(tmp_path / "in", 60, 10 << 10)
    held = sum(file.stat().st_size for file in (tmp_path / "in").iterdir())
    # Each counts as 41.
    if job == "ls":
        few = 20 * 41 - held // 512
        command = ["ls", path, "--json", "--limit", f"small_tensors={few}"]
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
            PROGRAM.main(command, prog_name="ckptparse", standalone_mode=False)
        told = json.loads(out.getvalue())
        assert len(told["result"]["tensors"]) == 20
        assert f"--limit small_tensors={60 * 41} lists" in told["warnings"][0]
    elif job == "report":
        few = 8 * (20 * 41 - held // 2048)
        told = ckptparse.verify(path, limits=Limits(small_tensors=few)).to_dict()
        assert len(told["tensors"]) == 20
        assert told["unlisted"] == 40
    else:
        subject = Subject("", path, report=ckptparse.verify(path))
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(choosing, "_MOST", 20 * 41 - held // choosing._BYTES_EACH)
            patched.setattr(choosing, "_LEAST", 0)
            assert len(choosing.choose_shown(subject, held)[0]) == 20


def test_a_comparison_in_words_names_some_of_very_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = long_names(tmp_path / "a", 60, 2048)
    other = long_names(tmp_path / "b", 60, 2047)
    others = {"n" * 2044 + f"{number:04}": np.float32(-1) for number in range(60)}
    assert str(ckptparse.diff(path, other)).count("\n") == 60
    monkeypatch.setattr(diff_module, "_MOST_LINES", 90)
    for found, mark in (
        (ckptparse.diff(path, {}), "-"),
        (ckptparse.diff({}, path), "+"),
        (ckptparse.diff(path, other), ">"),
        (ckptparse.diff(path, others), "~"),
    ):
        *named, more, counts = str(found).splitlines()
        assert more == f"{mark} … and {60 - len(named)} more: `to_dict()` has all of them"
        assert len(named) == 90 // 9
        assert counts.count("60") == 1
        assert len(str(found.to_dict())) > 60 * 2047


def test_json_is_written_by_the_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_text, "_PIECE", 100)
    value = {"a": {"b": [{"c": [1, 2.5, None]}, [], {}, "d" * 30] * 20, "e": ()}, "f": True}
    pieces = list(json_text.iter_json(value, indent=2))
    assert "".join(pieces) == json_text.format_json(value, indent=2) == json.dumps(value, indent=2)
    assert len(pieces) > 10
    assert max(map(len, pieces)) < 300
    for plain in (1, "a", None, [], {}, [[]], {"a": {}}):
        assert "".join(json_text.iter_json(plain, indent=1)) == json.dumps(plain, indent=1)


def test_a_report_in_a_notebook_makes_the_rows_that_it_shows(
    tmp_path: Path, counted: Counted
) -> None:
    report = ckptparse.verify(damaged(tmp_path, 1500, 700))
    order = sorted(report.tensors.values(), key=lambda one: one.status.proved)
    made = counted(ExaminedTensors, "__getitem__")
    shown = report._repr_html_()
    assert made == [one.name for one in order[: len(made)]]
    assert len(made) == 150
    assert all(f"{name}<" in shown for name in made)
    assert "… and 1,350 more" in shown


def test_a_page_does_not_list_again_what_a_report_has_left_out(
    tmp_path: Path, counted: Counted
) -> None:
    path = damaged(tmp_path, 1500, 1400)
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    opened = counted(page_subject, "open_checkpoint")
    few = Limits(small_tensors=299 - size // 512)
    report = ckptparse.verify(path, limits=few)
    assert (len(report.tensors), report.left_out) == (100 + 299, 1400 - 299)
    ckptparse.report_page(path, tmp_path / "page.html", limits=few)
    assert not opened
    assert b"No values are shown of 1,500 tensors" in (tmp_path / "page.html").read_bytes()


@pytest.mark.parametrize("block_size", [1 << 12, 1 << 20])
def test_entries_in_long_runs_count_as_a_32nd_of_those_that_are_looked_at_one_by_one(
    tmp_path: Path, block_size: int
) -> None:
    made = builder.Bundle()
    for number in range(1000):
        made.add(f"w{number:04}", np.float32(number))
    path = made.write(tmp_path / "m", restart_interval=1 << 30, block_size=block_size)
    table = (tmp_path / "m.index").stat().st_size
    # The header is an entry, too.
    most = -(-(1001 - table // 128) // 32)
    few, enough = (Limits(single_entries=most - less) for less in (1, 0))
    assert len(ckptparse.read(path, limits=enough)) == 1000
    assert ckptparse.verify(path, limits=enough).ok
    for ask in (ckptparse.read, ckptparse.list_variables):
        with pytest.raises(ckptparse.LimitError, match="key in full") as caught:
            ask(path, limits=few)
        assert caught.value.limit == "single_entries"
    report = ckptparse.verify(path, limits=few)
    assert [one.code for one in report.problems] == ["limit.reached"]
    assert "key in full" in report.problems[0].message
    assert not ckptparse.recover(path, limits=few)


def test_runs_of_64_entries_are_not_long(tmp_path: Path) -> None:
    made = builder.Bundle()
    for number in range(1000):
        made.add(f"w{number:04}", np.float32(number))
    path = made.write(tmp_path / "m", restart_interval=64)
    none = Limits(single_entries=0)
    assert len(ckptparse.read(path, limits=none)) == 1000
    assert ckptparse.verify(path, limits=none).ok


def test_what_a_directory_without_a_checkpoint_means_is_told_once(
    tmp_path: Path, counted: Counted
) -> None:
    for number in range(300):
        (tmp_path / f"{number:03}").mkdir()
    (tmp_path / "m_temp").mkdir()
    told = counted(by_directory, "take_directory")
    taken = [counted(parts, "strip_temporary"), counted(identities, "strip_temp_directory")]
    with pytest.raises(ckptparse.NotACheckpointError, match="is not a model itself"):
        ckptparse.recover(tmp_path)
    assert len(told) == 1
    assert {name for names in taken for name in names} == {"m_temp"}


@pytest.mark.parametrize(
    ("name", "is_kept"),
    [
        ("m.index", True),
        ("m.data-00000-of-00001", True),
        ("m.data-00000-of-00001.tempstate7", True),
        ("m.tempstate7", True),
        ("m_temp", True),
        (f"m_temp_{'0' * 32}", True),
        ("part-00000-of-00001.index", True),
        ("m.part-00000-of-00001.data-00000-of-00001", True),
        ("m\\n.index", True),
        ("m", False),
        ("m-00000-of-00001", False),
        ("m.meta", False),
        ("temporary", False),
    ],
)
def test_of_many_names_those_of_a_save_are_kept(name: str, is_kept: bool) -> None:
    assert filenames.keep_saved([name]) == [name] * is_kept
    tell = (
        filenames.split_data_path,
        filenames.split_part,
        filenames.strip_temporary,
        filenames.strip_temp_directory,
    )
    assert is_kept or not any(function(name) for function in tell)


def test_arrays_alike_get_one_head(tmp_path: Path, counted: Counted) -> None:
    values = {f"w{number:03}": np.full(3, number, "f4") for number in range(50)}
    (tmp_path / "in").mkdir()
    prefix = ckptparse.write(tmp_path / "in" / "m", values)
    made = counted(np.lib.format, "write_array_header_1_0")
    ckptparse.recover(prefix).write(tmp_path / "m.npz")
    assert len(made) <= 1
    with np.load(tmp_path / "m.npz") as saved:
        assert all((saved[name] == value).all() for name, value in values.items())


def test_the_maps_of_a_reader_are_not_made_for_each_tensor_that_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ckptparse.tf.inspecting import print_tensors_in_checkpoint_file
    from ckptparse.tf.readers import CheckpointReader

    prefix = ckptparse.write(tmp_path / "p", {f"w{n}": np.zeros(1) for n in range(50)})
    calls: list[object] = []
    real = CheckpointReader.get_variable_to_shape_map
    monkeypatch.setattr(
        CheckpointReader,
        "get_variable_to_shape_map",
        lambda reader: calls.append(reader) or real(reader),
    )
    print_tensors_in_checkpoint_file(prefix, "", all_tensors=True)
    assert len(calls) < 5
