"""One damaged checkpoint and one test for each code that a problem can have."""

from __future__ import annotations

import gzip
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import builder
import faults
import graph_builder as g
import numpy as np
import pytest
import v1_builder

import ckptparse
from ckptparse.problems import PROBLEM_CODES, Severity
from ckptparse.recovery.imaging import scan

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"

Made = tuple[Path, dict[str, Any]]
"""What to verify, and with which options."""
CASES: dict[str, Callable[[Path], Made]] = {}
MOST_FILES = 20
"""Files of a directory that a scan looks at: with as many as there may be, it takes ten seconds."""


def case(code: str) -> Callable[[Callable[[Path], Any]], None]:
    def register(make: Callable[[Path], Any]) -> None:
        def made(directory: Path) -> Made:
            found = make(directory)
            return found if isinstance(found, tuple) else (found, {})

        assert code not in CASES
        CASES[code] = made

    return register


def bundle() -> builder.Bundle:
    made = builder.Bundle()
    made.add("a", np.arange(1, 41, dtype=np.float32))
    made.add("b", np.linspace(1, 2, 50))
    made.add("s", np.array([b"one", b"two"], object))
    return made


def written(directory: Path, made: builder.Bundle | None = None, **options: Any) -> Path:
    (made or bundle()).write(directory / "m", **options)
    return directory / "m"


def index_of(prefix: Path) -> Path:
    return Path(f"{prefix}.index")


def data_of(prefix: Path, number: int = 0, count: int = 1) -> Path:
    return Path(f"{prefix}.data-{number:05d}-of-{count:05d}")


def edited(path: Path, edit: Callable[[bytearray], Any]) -> None:
    faults.change(path, edit)


# ------------------------------------------------------------------------------------------ index


@case("index.missing")
def _(directory: Path) -> Path:
    prefix = written(directory)
    index_of(prefix).unlink()
    return prefix


@case("index.foreign")
def _(directory: Path) -> Path:
    prefix = written(directory)
    index_of(prefix).write_bytes(faults.POINTER)
    return prefix


@case("index.footer")
def _(directory: Path) -> Path:
    prefix = written(directory)
    edited(index_of(prefix), lambda data: data.__delitem__(slice(-1, None)))
    return prefix


@case("index.index_block")
def _(directory: Path) -> Path:
    prefix = written(directory)
    edited(index_of(prefix), lambda d: faults.flip(d, faults.footer_of(d)[1][0] + 1, 0))
    return prefix


@case("index.block")
def _(directory: Path) -> Path:
    prefix = written(directory)
    edited(index_of(prefix), lambda data: faults.flip(data, 30, 0))
    return prefix


@case("index.metaindex")
def _(directory: Path) -> Path:
    prefix = written(directory)
    edited(index_of(prefix), lambda d: faults.flip(d, faults.footer_of(d)[0][0] + 1, 0))
    return prefix


@case("index.order")
def _(directory: Path) -> Path:
    prefix = written(directory)
    pairs = bundle().pairs()
    unsorted = [pairs[0], pairs[2], pairs[1], pairs[3]]
    index_of(prefix).write_bytes(builder.table(unsorted).data)
    return prefix


@case("index.header")
def _(directory: Path) -> Path:
    made = bundle()
    made.header = None
    return written(directory, made)


@case("index.entry")
def _(directory: Path) -> Path:
    made = bundle()
    made.entries[b"bad"] = b"\xff\xff"
    return written(directory, made)


@case("index.text")
def _(directory: Path) -> Path:
    made = bundle()
    for number in range(10):
        made.add(f"line\n{number}", np.float32(number))
    prefix = written(directory, made)
    index_of(prefix).write_bytes(index_of(prefix).read_bytes().replace(b"\n", b"\r\n"))
    return prefix


@case("index.unreferenced")
def _(directory: Path) -> Path:
    return written(directory, block_size=64, gap=b"stray")


# --------------------------------------------------------------------------------------------- V1


def legacy(directory: Path, **options: Any) -> Path:
    file = v1_builder.LegacyFile()
    file.add("a", np.arange(5, dtype=np.float32))
    file.add("b", np.arange(50, dtype=np.int32))
    return file.write(directory / "m.ckpt", **options)


def legacy_files(directory: Path) -> Path:
    for number in range(2):
        file = v1_builder.LegacyFile()
        file.add(f"t{number}", np.arange(5, dtype=np.float32))
        file.write(directory / f"m.ckpt-{number:05d}-of-00002")
    return directory / "m.ckpt-?????-of-00002"


@case("v1.foreign")
def _(directory: Path) -> Path:
    path = legacy_files(directory)
    (directory / "m.ckpt-00001-of-00002").write_bytes(faults.POINTER)
    return path


@case("v1.missing")
def _(directory: Path) -> Path:
    path = legacy_files(directory)
    (directory / "m.ckpt-00001-of-00002").unlink()
    return path


@case("v1.footer")
def _(directory: Path) -> Path:
    path = legacy(directory)
    edited(path, lambda data: data.__delitem__(slice(-10, None)))
    return path


@case("v1.index_block")
def _(directory: Path) -> Path:
    path = legacy(directory)
    edited(path, lambda data: faults.flip(data, faults.footer_of(data)[1][0] + 1, 0))
    return path


@case("v1.block")
def _(directory: Path) -> Path:
    path = legacy(directory)
    edited(path, lambda data: faults.flip(data, 100, 0))
    return path


@case("v1.metaindex")
def _(directory: Path) -> Path:
    path = legacy(directory)
    edited(path, lambda data: faults.flip(data, faults.footer_of(data)[0][0] + 1, 0))
    return path


def legacy_pairs() -> list[builder.Pair]:
    file = v1_builder.LegacyFile()
    file.add("a", np.arange(5, dtype=np.float32))
    file.add("b", np.arange(50, dtype=np.int32))
    return file.pairs()


@case("v1.order")
def _(directory: Path) -> Path:
    first, second, third = legacy_pairs()
    (directory / "m.ckpt").write_bytes(builder.table([first, third, second]).data)
    return directory / "m.ckpt"


@case("v1.meta")
def _(directory: Path) -> Path:
    (directory / "m.ckpt").write_bytes(builder.table(legacy_pairs()[1:]).data)
    return directory / "m.ckpt"


@case("v1.record")
def _(directory: Path) -> Path:
    first, second, (key, _) = legacy_pairs()
    broken = builder.table([first, second, (key, second[1])]).data
    (directory / "m.ckpt").write_bytes(broken)
    return directory / "m.ckpt"


@case("v1.text")
def _(directory: Path) -> Path:
    path = legacy(directory)
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    return path


@case("v1.unreferenced")
def _(directory: Path) -> Path:
    return legacy(directory, block_size=16, gap=b"stray")


# ------------------------------------------------------------------------------------- data files


@case("shard.missing")
def _(directory: Path) -> Path:
    prefix = written(directory)
    data_of(prefix).unlink()
    return prefix


@case("shard.foreign")
def _(directory: Path) -> Path:
    prefix = written(directory)
    data_of(prefix).write_bytes(faults.POINTER)
    return prefix


@case("shard.truncated")
def _(directory: Path) -> Path:
    prefix = written(directory)
    edited(data_of(prefix), lambda data: data.__delitem__(slice(100, None)))
    return prefix


@case("shard.trailing")
def _(directory: Path) -> Path:
    prefix = written(directory)
    edited(data_of(prefix), lambda data: data.extend(b"more"))
    return prefix


@case("shard.gap")
def _(directory: Path) -> Path:
    made = builder.Bundle(alignment=64)
    made.add("a", np.arange(3, dtype=np.float32))
    made.add("b", np.arange(3, dtype=np.float32))
    return written(directory, made)


@case("shard.overlap")
def _(directory: Path) -> Path:
    made = bundle()
    made.add("same", np.arange(1, 41, dtype=np.float32), at=0)
    return written(directory, made)


def with_hole(directory: Path) -> Path:
    made = builder.Bundle()
    made.add("a", np.arange(1, 5001, dtype=np.float32))
    prefix = written(directory, made)
    edited(data_of(prefix), lambda data: data.__setitem__(slice(4096, 8192), bytes(4096)))
    return prefix


@case("shard.zeros")
def _(directory: Path) -> Path:
    return with_hole(directory)


def run(directory: Path, name: str) -> Path:
    """The run of `faults`, one fault done to it."""
    import random

    faults.write_run(directory)
    files = faults.Files(directory)
    (fault,) = (fault for fault in faults.FAULTS if fault.name == name)
    fault.damage(files, random.Random(1))
    return files.prefix


@case("shard.swapped")
def _(directory: Path) -> Path:
    return run(directory, "shard/swapped")


@case("shard.renamed")
def _(directory: Path) -> Path:
    return run(directory, "shard/renamed")


@case("shard.shifted")
def _(directory: Path) -> Path:
    return run(directory, "shard/page in front")


@case("shard.text")
def _(directory: Path) -> Path:
    return run(directory, "shard/line feeds to CR LF")


# ---------------------------------------------------------------------------------------- tensors


@case("tensor.missing")
def _(directory: Path) -> Path:
    prefix = written(directory)
    data_of(prefix).unlink()
    return prefix


@case("tensor.truncated")
def _(directory: Path) -> Path:
    prefix = written(directory)
    edited(data_of(prefix), lambda data: data.__delitem__(slice(100, None)))
    return prefix


@case("tensor.checksum")
def _(directory: Path) -> Path:
    prefix = written(directory)
    edited(data_of(prefix), lambda data: faults.flip(data, 10, 3))
    return prefix


@case("tensor.zeros")
def _(directory: Path) -> Path:
    return with_hole(directory)


@case("tensor.no_checksum")
def _(directory: Path) -> Path:
    made = bundle()
    made.change("a", crc=None)
    return written(directory, made)


@case("tensor.decode")
def _(directory: Path) -> Path:
    made = bundle()
    made.add_strings("t", [b"one", b"two"], [2], lengths=[3, 9])
    return written(directory, made)


@case("tensor.entry")
def _(directory: Path) -> Path:
    prefix = written(directory)
    edited(index_of(prefix), lambda data: faults.flip(data, 30, 0))
    return prefix


# ----------------------------------------------------------------------------------------- slices


@case("slice.missing")
def _(directory: Path) -> Path:
    made = builder.Bundle()
    rows = builder.split_rows(6, 3, 2)
    made.add_sliced("t", np.ones((6, 2), np.float32), rows, missing=[1])
    return written(directory, made)


@case("slice.layout")
def _(directory: Path) -> Path:
    made = builder.Bundle()
    made.add_sliced("t", np.ones((6, 2), np.float32), [[(0, 4), None], [(2, 4), None]])
    return written(directory, made)


@case("slice.orphan")
def _(directory: Path) -> Path:
    made = bundle()
    made.add_sliced("t", np.ones((6, 2), np.float32), builder.split_rows(6, 2, 2))
    del made.entries[b"t"]
    return written(directory, made)


# ------------------------------------------------------------------------------- what lies around


@case("object_graph.damaged")
def _(directory: Path) -> Path:
    made = bundle()
    made.add(builder.OBJECT_GRAPH, np.array(b"\xff\xff no message", object))
    return written(directory, made)


def fingerprinted(directory: Path) -> Path:
    found = sorted((FIXTURES / "saved_model").rglob("fingerprint.pb"))
    folder = next(p.parent for p in found if (p.parent / "variables/variables.index").exists())
    return Path(shutil.copytree(folder, directory / "model"))


@case("fingerprint.mismatch")
def _(directory: Path) -> Path:
    folder = fingerprinted(directory)
    edited(
        folder / "variables" / "variables.index", lambda data: faults.flip(data, len(data) - 10, 1)
    )
    return folder


@case("fingerprint.damaged")
def _(directory: Path) -> Path:
    folder = fingerprinted(directory)
    (folder / "fingerprint.pb").write_bytes(b"\xff" * 20)
    return folder


@case("state.stale")
def _(directory: Path) -> Path:
    (directory / "checkpoint").write_text('model_checkpoint_path: "gone-7"\n')
    return written(directory)


@case("state.elsewhere")
def _(directory: Path) -> Path:
    (directory / "run").mkdir()
    written(directory)
    (directory / "run" / "checkpoint").write_text(f'model_checkpoint_path: "{directory}/m"\n')
    return directory / "run"


@case("path.taken")
def _(directory: Path) -> Path:
    prefix = written(directory)
    index_of(prefix).unlink()
    return directory


@case("path.refused")
def _(directory: Path) -> Path:
    prefix = written(directory)
    return Path(shutil.copy(index_of(prefix), f"{index_of(prefix)}.tempstate1"))


@case("graph.damaged")
def _(directory: Path) -> Path:
    short = g.constant("w", builder.field(4, b"12345"), dims=[2])
    (directory / "frozen.pb").write_bytes(g.graph([short]))
    return directory / "frozen.pb"


@case("state.damaged")
def _(directory: Path) -> Path:
    (directory / "checkpoint").write_text("model_checkpoint_path: {{{\n")
    return written(directory)


@case("set.mixed")
def _(directory: Path) -> Path:
    return run(directory, "shard/both of another step")


@case("set.unfinished")
def _(directory: Path) -> Path:
    return run(directory, "save/both parts moved, no index")


@case("leftover.conflict")
def _(directory: Path) -> Path:
    folder = directory / "m_temp"
    folder.mkdir(parents=True)
    for number in (0, 1):
        part = builder.Bundle()
        part.add("twice", np.float64(number))
        part.write(folder / f"part-{number:05d}-of-00002")
    return directory / "m"


@case("leftover.temporary")
def _(directory: Path) -> Path:
    prefix = written(directory)
    Path(f"{prefix}.data-00000-of-00001.tempstate77").write_bytes(b"left")
    return prefix


@case("leftover.beside")
def _(directory: Path) -> Path:
    shutil.copytree(FIXTURES / "crash" / "temp_directory", directory / "x")
    written(directory / "x")
    return directory / "x"


@case("archive.damaged")
def _(directory: Path) -> Path:
    packed = directory / "m.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(written(directory / "x").parent.iterdir(), reverse=True):
            archive.write(path, path.name)
    packed.write_bytes(packed.read_bytes()[:-10])
    return packed


@case("file.unreadable")
def _(directory: Path) -> Path:
    prefix = written(directory)
    data_of(prefix).unlink()
    data_of(prefix).mkdir()
    return prefix


@case("limit.reached")
def _(directory: Path) -> Made:
    return written(directory), {"limits": ckptparse.Limits(index_bytes=20)}


@case("evidence.unsearched")
def _(directory: Path) -> Made:
    prefix = written(directory)
    data_of(prefix).unlink()
    (directory / "old.gz").write_bytes(gzip.compress(bytes(1 << 22)))
    limits = ckptparse.Limits(decompressed_bytes=1 << 20)
    return prefix, {"evidence": [directory / "old.gz"], "limits": limits}


@case("shapes.unused")
def _(directory: Path) -> Made:
    prefix = written(directory)
    Path(f"{prefix}.index").unlink()
    return prefix, {"shapes": {"w": [3, 5]}, "evidence": []}


@case("scan.others")
def _(directory: Path) -> Made:
    found = directory / "found"
    written(found / "x")
    other = builder.Bundle()
    other.add("w", np.arange(7, dtype=np.float32))
    other.write(found / "y" / "m")
    return found, {"evidence": []}


@case("scan.unsearched")
def _(directory: Path) -> Made:
    prefix = written(directory)
    found = directory / "found"
    found.mkdir()
    (found / "a").write_bytes(Path(f"{prefix}.index").read_bytes())
    (found / "b").write_bytes(data_of(prefix).read_bytes())
    for number in range(MOST_FILES):
        (found / f"c{number}").touch()
    return found, {"evidence": []}


# ------------------------------------------------------------------------------------------ tests


@pytest.mark.parametrize("code", sorted(PROBLEM_CODES))
def test_a_checkpoint_damaged_so_has_a_problem_of_that_code(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "_MOST_FILES", MOST_FILES)
    path, options = CASES[code](tmp_path)
    before = faults.snapshot(tmp_path)
    if "evidence" in options:
        report = ckptparse.recover(path, **options).report
    else:
        report = ckptparse.verify(path, **options)
    found = {problem.code: problem for problem in report.problems}
    assert code in found, f"found {sorted(found)}"
    assert found[code].message and found[code].where
    assert set(found) <= set(PROBLEM_CODES)
    if report.format != "graph":
        ckptparse.recover(path, **options)
    assert faults.snapshot(tmp_path) == before


def test_every_code_has_a_case_and_no_other() -> None:
    assert set(CASES) == set(PROBLEM_CODES)


WARNINGS = {"index.unreferenced", "v1.unreferenced", "shard.trailing", "shard.gap"} | {
    "shard.overlap", "slice.orphan", "state.stale", "state.damaged",
    "leftover.temporary", "leftover.beside", "state.elsewhere",
}  # fmt: skip


@pytest.mark.parametrize("code", sorted(WARNINGS))
def test_what_no_reader_could_use_is_a_warning_and_the_report_is_ok(
    code: str, tmp_path: Path
) -> None:
    path, options = CASES[code](tmp_path)
    report = ckptparse.verify(path, **options)
    assert report.ok and {p.severity for p in report.problems} == {Severity.WARNING}
    assert {tensor.status for tensor in report.tensors.values()} <= {"verified"}


@pytest.mark.checklist(14)
def test_a_damaged_metaindex_block_is_an_error_though_tensorflow_never_reads_it(
    tmp_path: Path,
) -> None:
    path, _ = CASES["index.metaindex"](tmp_path)
    report = ckptparse.verify(path)
    assert not report.ok
    assert [problem.code for problem in report.problems] == ["index.metaindex"]
    assert {tensor.status for tensor in report.tensors.values()} == {"verified"}
    assert set(ckptparse.read(path)) == set(report.tensors)
