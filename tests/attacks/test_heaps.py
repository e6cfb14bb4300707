"""Heaps of HDF5 files that its library would never leave, and pieces that do not unpack."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from packages import h5py

import ckptparse
from ckptparse.files.memory import MemorySource
from ckptparse.limits import DEFAULT_LIMITS
from ckptparse.recovery.evidence.datasets import iter_datasets
from ckptparse.sources.hdf5_stream import _CheckedStream, open_hdf5

WEIGHTS = np.arange(3, dtype=np.float32)
ENDLESS = [
    pytest.param(0, id="0"),
    pytest.param((1 << 64) - 16, id="its header makes it none"),
    pytest.param((1 << 64) - 24, id="before itself"),
    pytest.param(1 << 63, id="far before itself"),
]
"""Sizes of an object. If it has no bytes, what follows counts as the next one: that has no size."""


def made(strings: list[str], **options: Any) -> bytes:
    """A file of weights, and of strings among the datasets, or of the file's attributes."""
    stream = io.BytesIO()
    with h5py.File(stream, "w", **options) as file:
        file["w"] = WEIGHTS
        file.create_dataset("s", data=np.array(strings, object), dtype=h5py.string_dtype())
    return stream.getvalue()


def with_size(data: bytes, size: int, heap: int = 0) -> bytes:
    """Change the size of the first object of a heap."""
    out = bytearray(data)
    place = heap or data.index(b"GCOL\x01")
    out[place + 24 : place + 32] = struct.pack("<Q", size)
    return bytes(out)


def read(data: bytes) -> Mapping[str, Any]:
    return ckptparse.stats("x.h5", store={"x.h5": data})


@pytest.mark.parametrize("size", ENDLESS)
def test_a_heap_that_the_library_would_never_leave_is_malformed(size: int) -> None:
    data = made(["abc", "defg"])
    assert list(read(data)) == ["s", "w"]
    with pytest.raises(ckptparse.MalformedError, match=r"Bad heap at byte \d+: expected an object"):
        read(with_size(data, size))


@pytest.mark.parametrize("size", ENDLESS[1:])
def test_an_attribute_in_such_a_heap_is_malformed(size: int) -> None:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["w"] = WEIGHTS
        file.attrs["backend"] = "tensorflow"
    with pytest.raises(ckptparse.MalformedError, match="Bad heap"):
        read(with_size(stream.getvalue(), size))


def test_such_a_file_gives_no_evidence() -> None:
    """A virtual dataset has its parts in a heap."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["w"] = np.arange(64, dtype=np.float32)
        layout = h5py.VirtualLayout((64,), "f4")
        layout[:] = h5py.VirtualSource(file["w"])
        file.create_virtual_dataset("v", layout)
    data = with_size(stream.getvalue(), 0)
    assert list(iter_datasets(MemorySource("x.h5", data), limits=DEFAULT_LIMITS)) == []


def test_a_heap_that_is_damaged_otherwise_fails_only_who_needs_it() -> None:
    data = with_size(made(["abc", "defg"]), 4096)
    with open_hdf5(h5py, MemorySource("x.h5", data)) as file:
        assert file["w"][()].tolist() == WEIGHTS.tolist()
    with pytest.raises(ckptparse.MalformedError, match="cannot be read"):
        read(data)


def test_heaps_of_many_strings_and_of_long_ones_are_read() -> None:
    strings = [*(str(number) * (number % 7) for number in range(9000)), "x" * 200_000, ""]
    found = read(made(strings))["s"]
    assert (found.elements, found.largest) == (len(strings), 200_000)


@pytest.mark.parametrize("width", [1, 3, 5, 4096, 1 << 20])
def test_a_heap_is_found_however_it_is_read(width: int) -> None:
    data = with_size(made(["abc", "defg"]), 0)
    assert data.count(b"GCOL") == 1
    stream = _CheckedStream(MemorySource("x", data))
    with pytest.raises(ckptparse.MalformedError, match="Bad heap"):
        list(iter(lambda: stream.read(width), b""))


def test_bytes_that_only_look_like_a_heap_are_read() -> None:
    odd = b"GCOL\x01" * 2000 + b"GCOL\x01\0\0\0" + bytes(8) + b"GCOL\x01\0\0\0" + b"\xff" * 5000
    stream = _CheckedStream(MemorySource("x", odd))
    assert stream.read(len(odd)) == odd


def test_heaps_that_lie_over_each_other_are_malformed() -> None:
    """Each goes to the end of the file: to look at all would take the square of them."""
    count = 4096
    heaps = [struct.pack("<8sQ", b"GCOL\x01", 16 * (count - n)) for n in range(count)]
    stream = _CheckedStream(MemorySource("x", b"".join(heaps)))
    with pytest.raises(ckptparse.MalformedError, match="expected none that overlaps others"):
        stream.read(16 * count)


def test_sizes_of_another_width_are_not_supported() -> None:
    plan = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    plan.set_sizes(8, 4)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fapl_core(backing_store=False)
    identifier = h5py.h5f.create(b"x", h5py.h5f.ACC_TRUNC, plan, access)
    with h5py.File(identifier) as file:
        file["w"] = WEIGHTS
        file.flush()
        data = identifier.get_file_image()
    with pytest.raises(ckptparse.UnsupportedError, match="sizes of 8 bytes in the file, found 4"):
        read(data)


@pytest.mark.parametrize("end", [1, 4, 20])
def test_a_piece_that_does_not_unpack_is_malformed(end: int) -> None:
    """Also if only the checksum at its end is another."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        array = np.arange(4096, dtype="<i4")
        file.create_dataset("w", data=array, compression="gzip", chunks=(4096,))
    data = bytearray(stream.getvalue())
    packed = zlib.compress(array.tobytes(), 4)
    place = bytes(data).index(packed) + len(packed) - end
    data[place] ^= 1
    with pytest.raises(ckptparse.MalformedError, match="cannot be"):
        read(bytes(data))
    with pytest.raises(ckptparse.MalformedError, match="cannot be"):
        ckptparse.diff("x.h5", "x.h5", store={"x.h5": bytes(data)})
