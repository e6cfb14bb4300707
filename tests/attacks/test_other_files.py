"""Files of other programs that once cost much more than their size: what is done is counted."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest
from packages import h5py

import ckptparse
from ckptparse import LimitError, Limits, MalformedError, UnsupportedError
from ckptparse.crc.windows import Wanted
from ckptparse.files.archives import listing
from ckptparse.files.context import Context
from ckptparse.files.local import LocalSource
from ckptparse.files.memory import MemorySource
from ckptparse.limits import DEFAULT_LIMITS, Members, check_members
from ckptparse.recovery.evidence import containers, datasets, graphs, payloads
from ckptparse.recovery.evidence.containers import iter_parts
from ckptparse.recovery.evidence.gather import Evidence
from ckptparse.sources import npy_heads
from ckptparse.sources.hdf5_objects import iter_dataset_ids


def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[None]:
    """Return a list that grows by one with each call of a function."""
    function: Callable[..., Any] = getattr(owner, name)
    calls: list[None] = []

    def stand_in(*args: Any, **options: Any) -> Any:
        calls.append(None)
        return function(*args, **options)

    monkeypatch.setattr(owner, name, stand_in)
    return calls


def safetensors_of(count: int) -> bytes:
    told = {
        f"w{n}": {"dtype": "F32", "shape": [], "data_offsets": [4 * n, 4 * n + 4]}
        for n in range(count)
    }
    header = json.dumps(told).encode()
    return struct.pack("<Q", len(header)) + header + np.arange(count, dtype="<f4").tobytes()


def npz_of(count: int, method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for number in range(count):
            one = io.BytesIO()
            np.lib.format.write_array(one, np.array(np.float32(number)))
            archive.writestr(f"w{number}.npy", one.getvalue())
    return out.getvalue()


def hdf5_of(fill: Callable[[Any], None], **options: Any) -> bytes:
    out = io.BytesIO()
    with h5py.File(out, "w", **options) as file:
        fill(file)
    return out.getvalue()


def write(tmp_path: Path, name: str, data: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


# Small tensors.


@pytest.mark.parametrize(
    ("name", "make"), [("m.safetensors", safetensors_of), ("m.npz", npz_of)], ids=["st", "npz"]
)
def test_small_tensors_of_a_file_are_read_together(
    name: str, make: Callable[[int], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, name, make(500))
    reads = counted(monkeypatch, LocalSource, "read_into")
    found = ckptparse.stats(path)
    assert [found[f"w{n}"].largest for n in (0, 7, 499)] == [0, 7, 499]
    assert ckptparse.diff(path, path).same
    assert ckptparse.average([path, path])["w499"] == 499
    assert len(reads) < 20


def test_small_tensors_that_are_read_together_are_those_that_are_read_singly(
    tmp_path: Path,
) -> None:
    arrays = {
        "plain": np.arange(5, dtype="<f4"),
        "large end": np.arange(4, dtype=">i4"),
        "bool": np.array([True, False]),
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "nothing": np.zeros((0, 3)),
        "scalar": np.float64(2),
        "text": np.array([b"a", b"bc"]),
    }
    np.savez(tmp_path / "m.npz", **arrays)
    whole = ckptparse.average([tmp_path / "m.npz"])
    for name, array in arrays.items():
        assert whole[name].tolist() == np.asarray(array).tolist()


def test_a_small_array_whose_bytes_have_changed_is_an_error(tmp_path: Path) -> None:
    data = bytearray(npz_of(50))
    data[data.index(np.float32(7).tobytes())] ^= 1
    path = write(tmp_path, "m.npz", bytes(data))
    with pytest.raises(ckptparse.DataLossError, match="w7"):
        ckptparse.stats(path)


# Headers of numpy.


def test_usual_headers_are_not_read_as_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "m.npz", npz_of(50))
    calls = counted(monkeypatch, npy_heads, "_read_as_python")
    assert len(ckptparse.stats(path)) == 50
    assert not calls


HEADERS = [
    "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }",
    "{'descr': '<f4', 'fortran_order': True, 'shape': (), }\n",
    "{'descr': '>i8', 'fortran_order': False, 'shape': (7,), }   \n",
    "{'descr': '|S5', 'fortran_order': False, 'shape': (2,), }",
    "{'descr': [('bfloat16', '<V2')], 'fortran_order': False, 'shape': (2,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (3), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (03,), }",
    "{'descr': 'none', 'fortran_order': False, 'shape': (3,), }",
    "{'descr': '<f4', 'x': 1, 'fortran_order': False, 'shape': (3,), }",
    "{'shape': (3,), 'descr': '<f4', 'fortran_order': False}",
]


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("text", HEADERS)
def test_a_usual_header_says_what_numpy_reads_in_it(text: str, version: int) -> None:
    width = 2 if version == 1 else 4
    data = b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(width, "little")
    data += text.encode()
    found = npy_heads._read_usual(data + b"elements")
    try:
        told = npy_heads._read_as_python(io.BytesIO(data))
    except ckptparse.MalformedError:
        assert found is None
    else:
        assert found is None or found == (len(data), *told)


def test_headers_of_no_usual_form_are_bounded_together(tmp_path: Path) -> None:
    told = b"{'descr': '<f4'" + b" ''" * 3000 + b", 'fortran_order': False, 'shape': (1,), }"
    one = b"\x93NUMPY\x01\0" + struct.pack("<H", len(told)) + told + bytes(4)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(100):
            archive.writestr(f"w{number}.npy", one)
    path = write(tmp_path, "m.npz", out.getvalue())
    with pytest.raises(LimitError) as caught:
        ckptparse.stats(path)
    assert caught.value.limit == "text_bytes"


# Members.


def test_a_small_file_may_have_fewer_members_than_a_large_one() -> None:
    check_members(DEFAULT_LIMITS, 10_001, 1 << 10)
    check_members(DEFAULT_LIMITS, 100_000, 1 << 30)
    check_members(Limits(members=1_000_000), 100_000, 0)
    for limits, count, size in [
        (DEFAULT_LIMITS, 10_002, 1 << 10),
        (DEFAULT_LIMITS, 100_001, 1 << 30),
        (Limits(members=2), 3, 1 << 30),
    ]:
        with pytest.raises(LimitError) as caught:
            check_members(limits, count, size)
        assert caught.value.limit == "members"


def test_members_of_a_zip_are_counted_before_each_becomes_an_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(12_000):
            archive.writestr(f"{number}.index", b"")
    path = write(tmp_path, "m.zip", out.getvalue())
    made = counted(monkeypatch, listing.zipfile, "ZipInfo")
    with pytest.raises(LimitError) as caught:
        ckptparse.read(path)
    assert caught.value.limit == "members"
    assert not made


def test_more_tensors_than_a_small_safetensors_file_has_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "m.safetensors", safetensors_of(25_000))
    with pytest.raises(LimitError, match="members"):
        ckptparse.stats(path)


def test_arrays_that_lie_over_each_other_are_refused(tmp_path: Path) -> None:
    data = bytearray(npz_of(2))
    first = data.index(b"PK\1\2")
    second = data.index(b"PK\1\2", first + 4)
    # Both are twice as large as they are.
    for at in (first, second):
        struct.pack_into("<II", data, at + 20, len(data), len(data))
    path = write(tmp_path, "m.npz", bytes(data))
    with pytest.raises(ckptparse.DataLossError):
        ckptparse.stats(path)


# HDF5.


def test_the_datasets_are_those_that_h5py_visits() -> None:
    def fill(file: Any) -> None:
        file["b/c/d"] = np.arange(3)
        file["b/a"] = np.arange(3)
        file["a/again"] = file["b/c"]
        file["a/same"] = file["b/a"]
        file["b/c/top"] = file["/"]
        file["a/soft"] = h5py.SoftLink("/b/a")
        file["z/else"] = h5py.ExternalLink("other.h5", "/a")
        file["z/kind"] = np.dtype("f4")

    data = hdf5_of(fill)
    with h5py.File(io.BytesIO(data), "r") as file:
        visited: list[str] = []
        file.visititems(
            lambda name, item: visited.append(name) if isinstance(item, h5py.Dataset) else None
        )
        members = Members(DEFAULT_LIMITS, len(data))
        walked = iter_dataset_ids(h5py, file, DEFAULT_LIMITS, members, size=len(data))
        found = [name for name, _ in walked]
    assert found == visited == ["a/again/d", "a/same"]


def deep(file: Any) -> None:
    for _ in range(1_050):
        file = file.create_group("g")


def linked(file: Any) -> None:
    file["w"] = np.zeros(4)
    for number in range(8_000):
        file[f"w{number}"] = file["w"]


def described(file: Any) -> None:
    for number in range(3_000):
        file.attrs[f"a{number}"] = np.int8(1)


def unwritten(file: Any) -> None:
    file.create_dataset("w", (1 << 38,), np.float32, chunks=(1 << 28,))


def in_tiny_pieces(file: Any) -> None:
    """None of them is stored, and the library looks for each."""
    file.create_dataset("w", (100 << 20,), np.int8, chunks=(1,))


@pytest.mark.parametrize(
    ("fill", "limit"),
    [
        (deep, "nesting"),
        (linked, "members"),
        (described, "members"),
        (unwritten, "decompressed_bytes"),
        (in_tiny_pieces, "members"),
    ],
)
def test_an_hdf5_file_that_is_nothing_but_overhead_is_refused(
    fill: Callable[[Any], None], limit: str, tmp_path: Path
) -> None:
    path = write(tmp_path, "m.h5", hdf5_of(fill, libver="latest"))
    with pytest.raises(LimitError) as caught:
        ckptparse.stats(path)
    assert caught.value.limit == limit


def test_datasets_in_pieces_are_read_however_they_are_packed(tmp_path: Path) -> None:
    values = np.arange(1000, dtype=np.int32).reshape(10, 100)
    packings: list[dict[str, Any]] = [
        {},
        {"compression": "gzip"},
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"compression": "lzf", "shuffle": True},
        {"scaleoffset": 0},
        {"fletcher32": True},
    ]

    def fill(file: Any) -> None:
        for number, packing in enumerate(packings):
            file.create_dataset(f"w{number}", data=values, chunks=(3, 7), **packing)
            # Nothing is stored of this one.
            file.create_dataset(f"v{number}", values.shape, np.int32, chunks=(3, 7), **packing)
            # The pieces of this one reach far beyond it.
            name, wide = f"x{number}", {"chunks": (500, 70), "maxshape": (None, None)}
            file.create_dataset(name, data=values, **wide, **packing)

    target = tmp_path / "out.npz"
    ckptparse.convert(write(tmp_path, "m.h5", hdf5_of(fill)), target)
    with np.load(target) as found:
        for number in range(len(packings)):
            assert np.array_equal(found[f"w{number}"], values)
            assert np.array_equal(found[f"x{number}"], values)
            assert not found[f"v{number}"].any()


def bomb_of_gzip(file: Any) -> None:
    made = file.create_dataset("w", (1024,), np.float32, chunks=(1024,), compression="gzip")
    made.id.write_direct_chunk((0,), zlib.compress(bytes(4 << 20)))


def bomb_of_lzf(file: Any) -> None:
    """A zero, and then very often: repeat what is one byte before, 264 times."""
    made = file.create_dataset("w", (1024,), np.float32, chunks=(1024,), compression="lzf")
    made.id.write_direct_chunk((0,), b"\0\0" + b"\xe0\xff\0" * 1000)


def larger_than_it_is(file: Any) -> None:
    made = file.create_dataset("w", (1024,), np.float32, chunks=(1024,), compression="gzip")
    made.id.write_direct_chunk((0,), zlib.compress(np.random.default_rng(1).bytes(1 << 20)))


def packed_twice(file: Any) -> None:
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((1024,))
    plan.set_deflate(9)
    plan.set_deflate(9)
    space = h5py.h5s.create_simple((1024,))
    h5py.h5d.create(file.id, b"w", h5py.h5t.IEEE_F32LE, space, plan)


@pytest.mark.parametrize("fill", [bomb_of_gzip, bomb_of_lzf, larger_than_it_is, packed_twice])
def test_a_piece_of_a_dataset_unpacks_to_no_more_than_a_piece_has(
    fill: Callable[[Any], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, "m.h5", hdf5_of(fill))
    read = counted(monkeypatch, h5py.Dataset, "__getitem__")
    with pytest.raises(MalformedError):
        ckptparse.stats(path)
    source = MemorySource("m.h5", path.read_bytes())
    (found,) = datasets.iter_datasets(source, limits=Limits())
    with pytest.raises(MalformedError):
        found.read_at(0, 1)
    assert not read


def test_elements_in_other_files_are_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(range(16)))
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = np.arange(16)

    def outside(file: Any) -> None:
        file.create_dataset("w", (16,), np.uint8, external=[(str(secret), 0, 16)])

    def virtual(file: Any) -> None:
        layout = h5py.VirtualLayout((16,), np.int64)
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (16,))
        file.create_virtual_dataset("w", layout)

    for fill in (outside, virtual):
        path = write(tmp_path, "m.h5", hdf5_of(fill, libver="latest"))
        with pytest.raises(UnsupportedError, match="in other files"):
            ckptparse.convert(path, tmp_path / "out.npz")
        source = MemorySource("m.h5", path.read_bytes())
        assert not list(datasets.iter_datasets(source, limits=Limits()))


def test_a_packed_dataset_is_unpacked_once_to_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(file: Any) -> None:
        values = np.arange(1 << 20, dtype=np.float32)
        file.create_dataset("w", data=values, compression="gzip", chunks=(1 << 18,))

    path = write(tmp_path, "m.h5", hdf5_of(fill))
    reads = counted(monkeypatch, h5py.Dataset, "__getitem__")
    assert ckptparse.stats(path)["w"].largest == (1 << 20) - 1
    assert len(reads) == 1


# Evidence.


def zeros_of(count: int, size: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(count):
            archive.writestr(f"m{number}", bytes(size))
    return out.getvalue()


def test_members_of_evidence_are_bounded_together() -> None:
    """Each lies within the limit; all together do not."""
    limits = Limits(decompressed_bytes=1 << 20)
    parts = list(iter_parts(MemorySource("m.zip", zeros_of(20, 1 << 19)), limits=limits))
    assert [part.size for part in parts] == [1 << 19] * 2
    packed = gzip.compress(np.random.default_rng(1).bytes(100_000) + bytes(3 << 20))
    assert not list(iter_parts(MemorySource("m.gz", packed), limits=limits))


def test_archives_in_an_archive_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = zeros_of(1, 1)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(50):
            archive.writestr(f"m{number}.zip", inner)
    opened = counted(monkeypatch, containers, "open_zip")
    list(iter_parts(MemorySource("m.zip", out.getvalue()), limits=Limits(members=100)))
    assert len(opened) <= 1 + 100 // 4


def test_hdf5_files_in_an_archive_are_opened_up_to_a_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inner = hdf5_of(lambda file: file.create_group("g"))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(50):
            archive.writestr(f"m{number}.h5", inner)
    opened = counted(monkeypatch, datasets, "_open")
    parts = list(iter_parts(MemorySource("m.zip", out.getvalue()), limits=Limits(members=200)))
    assert len(parts) == 50
    # Each counts as 32 members, and its group as one and a half.
    assert len(opened) == 6


def test_places_that_a_container_names_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"\x0a\xc0\x3e" * 50_000
    tried = counted(monkeypatch, payloads, "stream_crc")
    source = MemorySource("m.pb", data)
    assert not list(payloads.find_payloads(source, [Wanted(8000, 1)], limits=DEFAULT_LIMITS))
    assert len(tried) == 10_000 + len(data) // 256


def test_an_hdf5_file_is_opened_once_for_all_its_packed_datasets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fill(file: Any) -> None:
        for number in range(20):
            file.create_dataset(f"w{number}", data=np.full(100, number), chunks=(50,))

    source = MemorySource("m.h5", hdf5_of(fill))
    opened = counted(monkeypatch, datasets, "_open")
    values = [
        part.read_at(0, part.size) for part in datasets.iter_datasets(source, limits=Limits())
    ]
    assert len(values) == 20
    assert len(opened) == 1
    kept = list(datasets.iter_datasets(source, limits=Limits()))
    assert [part.read_at(0, part.size) for part in kept] == values


def test_small_files_in_directories_of_evidence_are_bounded(tmp_path: Path) -> None:
    for number in range(1_100):
        (tmp_path / f"{number:04}").touch()
    assert len(Evidence([str(tmp_path)], Context()).files) == 1_000
    (tmp_path / "0000").write_bytes(bytes(1 << 20))
    assert len(Evidence([str(tmp_path)], Context()).files) == 1_100


def test_a_directory_of_many_checkpoints_is_listed_once_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "others"
    other.mkdir()
    for number in range(100):
        ckptparse.write(other / f"m-{number}", {"w": np.arange(3.0)})
    prefix = ckptparse.write(tmp_path / "damaged", {"v": np.arange(1000.0)})
    Path(f"{prefix}.index").unlink()
    evidence = Evidence([str(other)], Context())
    assert len(evidence.prefixes) == 64
    lists = counted(monkeypatch, type(Context().storage), "list")
    ckptparse.recover(prefix, evidence=[other])
    assert len(lists) < 40


def test_records_and_graphs_of_an_event_file_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    def record(data: bytes) -> bytes:
        length = b.fixed64(len(data))
        return length + b.fixed32(b.masked_crc(length)) + data + b.fixed32(b.masked_crc(data))

    nothing = MemorySource("events", record(b"") * 30_000)
    checked = counted(monkeypatch, graphs, "crc32c")
    assert not list(graphs.iter_graphs(nothing, "tfrecord", limits=Limits()))
    assert len(checked) == 2 * (10_000 + nothing.size // 48)
    node = b.field(1, b.field(1, b"w") + b.field(2, b"VariableV2"))
    many = MemorySource("events", record(b.field(4, node)) * 20)
    assert len(list(graphs.iter_graphs(many, "tfrecord", limits=Limits(members=5)))) == 5
