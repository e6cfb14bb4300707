"""What is left out of the evidence at a bound, or without a package, is told."""

from __future__ import annotations

import gzip
import io
import lzma
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest
from packages import h5py

import ckptparse
from ckptparse.crc.windows import Wanted
from ckptparse.files.memory import MemorySource
from ckptparse.limits import DEFAULT_LIMITS, Limits
from ckptparse.recovery.evidence import axes, datasets, gather, payloads
from ckptparse.recovery.evidence.axes import TensorForm
from ckptparse.recovery.evidence.bounds import Bounds
from ckptparse.recovery.evidence.containers import iter_parts
from ckptparse.recovery.evidence.graphs import iter_graphs
from ckptparse.recovery.evidence.payloads import find_payloads


def noted(source: MemorySource, limits: Limits = DEFAULT_LIMITS) -> list[str]:
    """Return what is told of the parts of a file."""
    notes: list[str] = []
    list(iter_parts(source, limits=limits, note=notes.append))
    return list(dict.fromkeys(notes))


def zip_of(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> MemorySource:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return MemorySource("m.zip", out.getvalue())


def without_directory(source: MemorySource) -> MemorySource:
    data = source.read_at(0, source.size)
    return MemorySource("m.zip", data[: data.rindex(b"PK\x01\x02")])


def tar_of(members: dict[str, bytes]) -> MemorySource:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return MemorySource("m.tar", out.getvalue())


def nested(depth: int) -> MemorySource:
    source = zip_of({"w": b"weights"}, zipfile.ZIP_STORED)
    for _ in range(depth):
        source = zip_of({"in.zip": source.read_at(0, source.size)}, zipfile.ZIP_STORED)
    return source


WEIGHTS = np.random.default_rng(0).normal(size=1000)
ZEROS = {f"m{number}": bytes(1 << 19) for number in range(20)}
SMALL = Limits(decompressed_bytes=1 << 20)
TEXT = b'node { name: "w" op: "Const" }\n' * 100
BOUNDED: dict[str, tuple[Callable[[], MemorySource], Limits, str]] = {
    "members together": (lambda: zip_of(ZEROS), SMALL, "16 times its size"),
    "a member": (lambda: zip_of({"w": bytes(range(200))}), Limits(decompressed_bytes=9), "(9)"),
    "a member of a cut zip": (
        lambda: without_directory(zip_of({"w": bytes(range(200))})),
        Limits(decompressed_bytes=9),
        "decompressed_bytes",
    ),
    "very many members": (
        lambda: zip_of({str(n): b"" for n in range(20)}),
        Limits(members=1),
        "Limits.members",
    ),
    "very many members of a tar": (
        lambda: tar_of({str(n): b"" for n in range(20)}),
        Limits(members=1),
        "Limits.members",
    ),
    "a stream": (
        lambda: MemorySource("m.xz", lzma.compress(bytes(1 << 22))),
        SMALL,
        "decompressed_bytes",
    ),
    "gzip": (lambda: MemorySource("m.gz", gzip.compress(bytes(1 << 22))), SMALL, "16 times"),
    "four archives deep": (lambda: nested(4), DEFAULT_LIMITS, "3 deep"),
    "text": (lambda: MemorySource("m", TEXT), Limits(text_bytes=99), "Limits.text_bytes (99)"),
}


@pytest.mark.parametrize("kind", BOUNDED)
def test_what_is_left_out_of_a_file_is_told(kind: str) -> None:
    make, limits, told = BOUNDED[kind]
    found = noted(make(), limits)
    assert len(found) == 1
    assert told in found[0]


def test_members_behind_a_damaged_one_are_searched() -> None:
    weights = np.random.default_rng(0).bytes(5000)
    whole = zip_of({"a": bytes(range(250)) * 20, "w": weights})
    data = bytearray(whole.read_at(0, whole.size))
    for place in range(60, 90):
        data[place] ^= 0xFF
    parts = list(iter_parts(MemorySource("m.zip", bytes(data)), limits=DEFAULT_LIMITS))
    assert parts[-1].read_at(0, parts[-1].size) == weights


def test_members_without_sizes_before_them_are_found() -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise OSError

    out = Pipe()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"aaaaaaaaaaaaaa")
        archive.writestr("b", b"b" * 99)
    source = without_directory(without_directory(MemorySource("m.zip", out.getvalue())))
    parts = iter_parts(source, limits=DEFAULT_LIMITS)
    assert [part.read_at(0, part.size) for part in parts] == [b"aaaaaaaaaaaaaa", b"b" * 99]


def test_of_what_is_searched_whole_nothing_is_told() -> None:
    everything = [
        zip_of({"a": b"1234567", "b.zip": zip_of({"w": bytes(99)}).read_at(0, 99)}),
        tar_of(ZEROS),
        nested(2),
        MemorySource("m.gz", gzip.compress(np.random.default_rng(0).bytes(1 << 16))),
        MemorySource("m.xz", lzma.compress(np.random.default_rng(0).bytes(1 << 16))),
        MemorySource("m", TEXT),
    ]
    assert [noted(source) for source in everything] == [[]] * len(everything)


def test_archives_in_an_archive_that_are_not_opened_are_told() -> None:
    inner = zip_of({"w": b"1"})
    data = inner.read_at(0, inner.size)
    source = zip_of({f"{n}.zip": data for n in range(50)}, zipfile.ZIP_STORED)
    found = noted(source, Limits(members=100))
    assert any("Limits.members (100)" in one for one in found)


def hdf5_of(fill: Callable[[Any], None]) -> MemorySource:
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        fill(file)
    return MemorySource("m.h5", out.getvalue())


def test_datasets_that_are_left_out_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    source = hdf5_of(lambda file: file.create_dataset("w", data=np.zeros(99), compression="gzip"))
    assert noted(source) == []
    assert "decompressed_bytes (9)" in noted(source, Limits(decompressed_bytes=9))[0]
    monkeypatch.setattr(datasets, "load_h5py", missing)
    assert noted(source) == ["without h5py"]


def missing() -> None:
    raise ckptparse.UnsupportedError("without h5py")


def test_places_and_orders_that_are_not_tried_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    source = MemorySource("m.pb", b"\x0a\xc0\x3e" * 50_000)
    wanted = [Wanted(8000, 1)]
    list(find_payloads(source, wanted, limits=DEFAULT_LIMITS, note=notes.append))
    assert len(notes) == 1 and "places" in notes[0]
    notes.clear()
    array = np.zeros((9, 8), "<f4")
    form = {Wanted(array.nbytes, 1): [TensorForm((9, 8), 4)]}
    out = io.BytesIO()
    np.save(out, array)
    npy = MemorySource("m.npy", out.getvalue())
    list(find_payloads(npy, form, limits=DEFAULT_LIMITS, forms=form, note=notes.append))
    assert notes == []
    monkeypatch.setattr(payloads, "LARGEST_TURNED", array.nbytes - 1)
    list(find_payloads(npy, form, limits=DEFAULT_LIMITS, forms=form, note=notes.append))
    assert len(notes) == 1 and "axes" in notes[0]
    assert axes.LARGEST == 1 << 28


def record(data: bytes) -> bytes:
    length = b.fixed64(len(data))
    return length + b.fixed32(b.masked_crc(length)) + data + b.fixed32(b.masked_crc(data))


NODE = b.field(4, b.field(1, b.field(1, b"w") + b.field(2, b"VariableV2")))


@pytest.mark.parametrize(
    ("data", "kind", "limits", "told"),
    [
        (record(NODE) * 20, "tfrecord", Limits(members=5), "Limits.members (5)"),
        (record(b"") * 30_000, "tfrecord", DEFAULT_LIMITS, "records"),
        (record(NODE), "tfrecord", Limits(message_bytes=5), "Limits.message_bytes (5)"),
        (NODE[2:], "graph", Limits(message_bytes=5), "message_bytes"),
        (NODE[2:] * 20, "graph", Limits(nodes=5), "Limits.nodes"),
        (record(NODE) * 20, "tfrecord", DEFAULT_LIMITS, ""),
        (NODE[2:], "graph", DEFAULT_LIMITS, ""),
        (b"\xff" * 99, "graph", DEFAULT_LIMITS, ""),
    ],
)
def test_graphs_that_are_left_out_are_told(
    data: bytes, kind: str, limits: Limits, told: str
) -> None:
    notes: list[str] = []
    list(iter_graphs(MemorySource("m", data), kind, limits=limits, note=notes.append))
    assert len(notes) == bool(told)
    assert all(told in note for note in notes)


def lost(directory: Path) -> Path:
    """Write a checkpoint that has lost its data."""
    directory.mkdir()
    prefix = ckptparse.write(directory / "m", {"w": WEIGHTS})
    Path(f"{prefix}.data-00000-of-00001").unlink()
    return Path(prefix)


def unsearched(recovery: ckptparse.Recovery) -> list[tuple[str, str, str]]:
    return [
        (one.where, one.severity.value, one.message)
        for one in recovery.report.problems
        if one.code == "evidence.unsearched"
    ]


def test_the_report_names_the_file_that_was_searched_in_part(tmp_path: Path) -> None:
    prefix, file = lost(tmp_path / "damaged"), tmp_path / "m.zip"
    bomb = zip_of(ZEROS | {"w": WEIGHTS.tobytes()})
    file.write_bytes(bomb.read_at(0, bomb.size))
    limits = Limits(decompressed_bytes=1 << 20)
    # The weights are found in it: then nothing is missing.
    assert unsearched(ckptparse.recover(prefix, evidence=[file], limits=limits)) == []
    bomb = zip_of(ZEROS)
    file.write_bytes(bomb.read_at(0, bomb.size))
    ((where, severity, message),) = unsearched(
        ckptparse.recover(prefix, evidence=[file], limits=limits)
    )
    assert (where, severity) == (str(file), "warning")
    assert "not all of this evidence was searched: it unpacks to more than 16 times" in message
    assert unsearched(ckptparse.recover(prefix, evidence=[file])) == []


def test_files_and_checkpoints_of_a_directory_that_are_left_out_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix, others = lost(tmp_path / "damaged"), tmp_path / "others"
    others.mkdir()
    for number in range(5):
        ckptparse.write(others / f"m-{number}", {"v": np.arange(3.0)})
    assert unsearched(ckptparse.recover(prefix, evidence=[others])) == []
    monkeypatch.setattr(gather, "_FREE_CHECKPOINTS", 3)
    ((where, _, message),) = unsearched(ckptparse.recover(prefix, evidence=[others]))
    assert where == str(others / "m-3")
    assert "3 checkpoints were read" in message
    monkeypatch.setattr(gather, "_FREE_FILES", 4)
    ((where, _, message),) = unsearched(ckptparse.recover(prefix, evidence=[others]))
    assert where == str(others)
    assert "4 files were looked at" in message


def save_arrays(directory: Path, count: int) -> None:
    directory.mkdir()
    for number in range(count):
        np.save(directory / f"v{number}.npy", np.arange(number, number + 3, dtype=np.float32))


def test_four_npy_files_of_a_directory_count_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = lost(tmp_path / "damaged")
    monkeypatch.setattr(gather, "_FREE_FILES", 10)
    save_arrays(tmp_path / "arrays", 40)
    assert unsearched(ckptparse.recover(prefix, evidence=[tmp_path / "arrays"])) == []
    save_arrays(tmp_path / "more", 80)
    ((_, _, message),) = unsearched(ckptparse.recover(prefix, evidence=[tmp_path / "more"]))
    assert re.search("4. files were looked at", message)


def test_of_datasets_beyond_the_limit_the_first_are_read(tmp_path: Path) -> None:
    prefix = lost(tmp_path / "damaged")
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_dataset("a", data=WEIGHTS, compression="gzip")
        for number in range(20):
            file.create_dataset(f"b{number}", data=np.arange(9.0), compression="gzip")
    # Each counts as eight or nine; that of the weights as some more.
    recovery = ckptparse.recover(prefix, evidence=[tmp_path / "m.h5"], limits=Limits(members=100))
    assert recovery["w"].status == "corrected"
    assert np.array_equal(recovery["w"].read(), WEIGHTS)
    few = ckptparse.recover(prefix, evidence=[tmp_path / "m.h5"], limits=Limits(members=9))
    ((_, _, message),) = unsearched(few)
    assert "Limits.members" in message


def test_files_that_are_only_called_npy_count_as_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = lost(tmp_path / "damaged")
    monkeypatch.setattr(gather, "_MOST_MISNAMED", 2)
    save_arrays(tmp_path / "arrays", 3)
    for number in range(3):
        (tmp_path / "arrays" / f"x{number}.npy").write_bytes(b"something else" * 9)
    ((where, _, message),) = unsearched(ckptparse.recover(prefix, evidence=[tmp_path / "arrays"]))
    assert where == str(tmp_path / "arrays" / "x2.npy")
    assert "named .npy" in message


def test_one_problem_counts_the_files_beyond_twenty() -> None:
    bounds = Bounds()
    for number in range(23):
        bounds.note(f"f{number}", "one thing")
        bounds.of(f"f{number}")("another")
        bounds.note(f"f{number}", "one thing")
    found = bounds.problems("m")
    assert [one.where for one in found] == [*(f"f{number}" for number in range(20)), "m"]
    assert found[0].message.endswith("was searched: one thing; another")
    assert "3 more files" in found[-1].message
