"""Files of other formats that are damaged, or lie: an error of ours, and nothing is written."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest

import ckptparse
from ckptparse.files.context import Context
from ckptparse.sources.npy import NpySource
from ckptparse.statistics.gathering import iter_pieces


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asanyarray(array))
    return stream.getvalue()


def npy_of(header: str, data: bytes = b"") -> bytes:
    text = header.encode()
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text + data


def safetensors(header: Any, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def zipped(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytearray:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return bytearray(stream.getvalue())


def refuse(
    tmp_path: Path, name: str, data: bytes, error: type[Exception], match: str, **limits: Any
) -> None:
    """Hold each job to the same refusal; nothing is written."""
    options: dict[str, Any] = {"store": {name: bytes(data)}}
    options["limits"] = ckptparse.Limits(**limits)
    jobs: tuple[Callable[[], object], ...] = (
        lambda: ckptparse.convert(name, tmp_path / "out.npz", **options),
        lambda: ckptparse.diff(name, name, **options),
        lambda: ckptparse.average([name, name], **options),
        lambda: ckptparse.stats(name, **options),
    )
    for job in jobs[: 1 if error is ckptparse.UnsupportedError else 4]:
        with pytest.raises(error, match=match):
            job()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3,",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), 'x': \0}",
        "(" * 9000,
        "'''",
    ],
    ids=["cut", "nul", "deep", "open"],
)
def test_a_header_of_numpy_that_python_cannot_parse_is_malformed(
    header: str, tmp_path: Path
) -> None:
    data = npy_of(header, bytes(12))
    refuse(tmp_path, "x.npy", data, ckptparse.MalformedError, "cannot be read")


@pytest.mark.parametrize("length", [-1, 3, 1 << 40])
def test_a_string_that_is_longer_than_its_field_is_malformed(length: int, tmp_path: Path) -> None:
    array = np.array([(b"ab", length)], [("string", "S2"), ("length", "<i8")])
    with pytest.raises(ckptparse.MalformedError, match="lengths of 0 to 2"):
        ckptparse.convert("x.npy", tmp_path / "o.npz", store={"x.npy": npy(array)})


@pytest.mark.parametrize("name", ["x.npy", "x.safetensors"])
def test_a_shape_of_more_elements_than_there_can_be_is_malformed(name: str, tmp_path: Path) -> None:
    size = 1 << 62
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({size}, 4, 0)}}\n"
    data = npy_of(header)
    if name.endswith(".safetensors"):
        data = safetensors({"w": {"dtype": "F32", "shape": [size, 4, 0], "data_offsets": [0, 0]}})
    refuse(tmp_path, name, data, ckptparse.MalformedError, "2\\*\\*63 - 1 elements")


def test_an_empty_tensor_that_numpy_cannot_shape_is_unsupported_by_every_job() -> None:
    data = safetensors({"w": {"dtype": "F32", "shape": [0, 1 << 62], "data_offsets": [0, 0]}})
    store = {"x.safetensors": data}
    with pytest.raises(ckptparse.UnsupportedError, match="cannot make an array"):
        ckptparse.average(["x.safetensors", "x.safetensors"], store=store)
    made = b.Bundle()
    made.put_entry("w", b"", b.masked_crc(b""), dtype=1, shape=(0, 1 << 62))
    with pytest.raises(ckptparse.UnsupportedError, match="cannot make an array"):
        ckptparse.average(["m", "m"], store=made.files("m"))


@pytest.mark.parametrize("kinds", [3, {"w": 1}, None, ["x"]], ids=str)
def test_kinds_that_are_no_text_are_malformed(kinds: Any, tmp_path: Path) -> None:
    data = safetensors({"__metadata__": {"ckptparse.kinds": kinds}})
    refuse(tmp_path, "x.safetensors", data, ckptparse.MalformedError, "Expected text under")


ARRAY = npy(np.arange(2000, dtype=np.float32))
METHODS = [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("place", [60, 100, -200])
def test_a_packed_array_that_is_damaged_is_malformed(
    method: int, place: int, tmp_path: Path
) -> None:
    data = zipped([("w.npy", ARRAY)], method)
    end = data.index(b"PK\1\2")
    data[place if place > 0 else end + place] ^= 0xFF
    refuse(tmp_path, "x.npz", data, ckptparse.MalformedError, ".")


def test_an_encrypted_array_is_unsupported(tmp_path: Path) -> None:
    data = zipped([("w.npy", ARRAY)])
    data[data.index(b"PK\1\2") + 8] |= 1
    data[6] |= 1
    refuse(tmp_path, "x.npz", data, ckptparse.UnsupportedError, "encrypted")


def test_a_directory_that_leads_before_the_start_is_malformed(tmp_path: Path) -> None:
    data = zipped([("w.npy", ARRAY)], zipfile.ZIP_STORED)
    place = data.index(b"PK\5\6")
    data[place + 12 : place + 16] = struct.pack("<I", len(data) * 2)
    refuse(tmp_path, "x.npz", data, ckptparse.MalformedError, ".")
    data = zipped([("w.npy", ARRAY)], zipfile.ZIP_STORED)
    place = data.index(b"PK\1\2")
    data[place + 42 : place + 46] = struct.pack("<I", len(data) * 2)
    refuse(tmp_path, "x.npz", data, ckptparse.MalformedError, ".")


def test_two_arrays_of_one_name_are_malformed(tmp_path: Path) -> None:
    data = zipped([("w.npy", ARRAY), ("v.npy", ARRAY)]).replace(b"v.npy", b"w.npy")
    refuse(tmp_path, "x.npz", data, ckptparse.MalformedError, "Two members")


@pytest.mark.parametrize("method", METHODS)
def test_what_unpacks_to_more_than_it_says_takes_no_more_memory(
    method: int, tmp_path: Path
) -> None:
    data = zipped([("w.npy", npy(np.zeros(1 << 21, np.float64)))], method)
    place = data.index(b"PK\1\2") + 24
    data[place : place + 4] = struct.pack("<I", 128 + 8)
    tracemalloc.start()
    try:
        refuse(tmp_path, "x.npz", data, ckptparse.MalformedError, ".")
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()


def test_arrays_that_say_they_hold_more_than_allowed_in_all_are_refused(tmp_path: Path) -> None:
    data = zipped([(f"{n}.npy", ARRAY) for n in range(9)])
    limits = {"decompressed_bytes": 10_000, "unpacked_bytes": 50_000}
    refuse(tmp_path, "x.npz", data, ckptparse.LimitError, "unpacks to", **limits)
    limits = {"decompressed_bytes": 1_000}
    refuse(tmp_path, "x.npz", data, ckptparse.LimitError, "size of the array", **limits)


def test_packed_arrays_are_what_they_were(tmp_path: Path) -> None:
    arrays = {"a": np.arange(12.0).reshape(3, 4), "b": np.asfortranarray(np.ones((2, 3), ">i2"))}
    arrays["text"] = np.array([b"x", b"yz"])
    for method in (zipfile.ZIP_STORED, *METHODS):
        members = [(f"{name}.npy", npy(array)) for name, array in arrays.items()]
        store = {"x.npz": bytes(zipped(members, method))}
        ckptparse.convert("x.npz", tmp_path / str(method), store=store)
        found = ckptparse.read(tmp_path / str(method))
        assert list(found) == list(arrays)
        assert all((found[name] == array).all() for name, array in arrays.items())


def test_damaged_weights_in_an_archive_of_keras_are_malformed(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    data = zipped([("model.weights.h5", bytes(range(256)) * 9)])
    damaged = bytearray(data)
    damaged[80] ^= 0xFF
    for one in (damaged, data[:-30]):
        refuse(tmp_path, "x.keras", bytes(one), ckptparse.MalformedError, ".")
    data[6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    refuse(tmp_path, "x.keras", data, ckptparse.UnsupportedError, "encrypted")


@pytest.mark.parametrize("shape", [[0, 1 << 70], [-1, -2], [True, 2], [2.0], ["2"]], ids=str)
def test_dimensions_that_are_none_are_malformed(shape: list[Any], tmp_path: Path) -> None:
    size = 8 if shape in ([-1, -2], [True, 2], [2.0]) else 0
    data = safetensors({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}})
    refuse(tmp_path, "x.safetensors", data + bytes(size), ckptparse.MalformedError, "dimensions")
    kinds = {"ckptparse.kinds": json.dumps({"w": ["INT4", shape]})}
    said = {"__metadata__": kinds, "w": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}
    data = safetensors(said, bytes(2))
    refuse(tmp_path, "x.safetensors", data, ckptparse.MalformedError, "dimensions")


@pytest.mark.parametrize("file", [{"x": 1}, ["a"], 3, None, "../a.safetensors"], ids=str)
def test_an_index_that_names_no_files_is_malformed(file: Any, tmp_path: Path) -> None:
    data = json.dumps({"weight_map": {"w": file}}).encode()
    refuse(tmp_path, "m.safetensors.index.json", data, ckptparse.MalformedError, "names of files")


@pytest.mark.parametrize("dtype", [{"names": ["a"]}, [1, 2], ["x", "y"], "f4,(", 7], ids=str)
def test_a_kind_of_element_that_is_none_is_malformed_among_shapes(dtype: Any) -> None:
    said = json.dumps({"w": {"shape": [2], "dtype": dtype}}).encode()
    store = {"m.data-00000-of-00001": bytes(8), "s.json": said}
    with pytest.raises(ckptparse.MalformedError, match="Expected a dtype"):
        ckptparse.recover("m", shapes="s.json", store=store)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    "array",
    [np.arange(600.0), np.asfortranarray(np.ones((20, 30))), np.array([b"ab", b"c"] * 300)],
    ids=["plain", "columns", "strings"],
)
def test_a_member_whose_checksum_is_another_one_is_refused(
    tmp_path: Path, method: int, array: np.ndarray
) -> None:
    plain = npy(array)
    data = zipped([("w.npy", plain)], method)
    # Bytes that were changed in the archive, and the archive's directory with another checksum.
    crc = struct.pack("<I", zipfile.crc32(plain))
    assert data.count(crc) == 2
    refuse(
        tmp_path,
        "x.npz",
        data.replace(crc, b"\1\2\3\4"),
        ckptparse.MalformedError,
        "checksum|CRC-32",
    )
    if method == zipfile.ZIP_STORED:
        data[-300] ^= 4
        refuse(tmp_path, "x.npz", data, ckptparse.MalformedError, "Copy or download the archive")


def test_a_member_that_is_read_by_pieces_is_checked_after_the_last(tmp_path: Path) -> None:
    data = zipped([("w.npy", npy(np.arange(600.0).reshape(30, 20)))], zipfile.ZIP_STORED)
    data[-300] ^= 4
    (tmp_path / "x.npz").write_bytes(data)
    opened = NpySource.open(str(tmp_path / "x.npz"), Context())
    tensor = opened.tensors["w"]
    assert tensor[:29].shape == (29, 20)
    pieces = iter_pieces(tensor, 320)
    for _ in range(14):
        next(pieces)
    with pytest.raises(ckptparse.MalformedError, match="checksum"):
        next(pieces)
    opened.close()


def test_a_tensor_without_a_name_is_no_tensor_of_a_checkpoint(tmp_path: Path) -> None:
    store = {"x.npz": bytes(zipped([(".npy", npy(np.ones(3)))]))}
    with pytest.raises(ckptparse.UnsupportedError, match="name is empty"):
        ckptparse.convert("x.npz", tmp_path / "out", store=store)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [3, None, {"w": 1}], ids=str)
def test_a_mapping_that_holds_no_file_is_a_mistake_of_the_caller(value: Any) -> None:
    with pytest.raises(TypeError, match="Expected bytes or a file object"):
        ckptparse.read("m", store={"m.index": value})
