"""Binary files of other programs, known by their first bytes.

HDF5         89 48 44 46 0d 0a 1a 0a, at 0, 512, 1024, …
npy          93 4e 55 4d 50 59, version, length of a header in Python's notation
TFLite       at 4: 54 46 4c 33
TFRecord     length u64, masked CRC-32C of those 8 bytes, data, masked CRC-32C of the data
safetensors  length u64, JSON {"name": {"dtype", "shape", "data_offsets"}, …}, data
pickle       80, protocol 2-5, …, 2e
Riegeli      83 af 70 d1 0d 88 4a 3f (the container of saved_model.cpb)
"""

from __future__ import annotations

import math
import re
import struct

from ckptparse.coding.checksum import crc32c, mask_crc
from ckptparse.identification.identity import Finding
from ckptparse.identification.sample import Sample
from ckptparse.json_text import NOT_AS_EXPECTED, parse_json
from ckptparse.limits import DEFAULT_LIMITS

__all__ = ["find_magic"]

_HDF5 = b"\x89HDF\r\n\x1a\n"
_KERAS_WORDS = (
    b"keras_version",
    b"model_weights",
    b"layer_names",
    b"_layer_checkpoint_dependencies",
)
_MOST_SEARCHED = 1 << 22
"""Bytes of an HDF5 file that are searched for words of Keras: attributes come early in it."""
_TORCH_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa85019")
_MOST_HEADER = 100_000_000
"""Bytes that the safetensors package allows a header."""
_RIEGELI = bytes.fromhex("83af70d10d884a3f")

_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "RAR"),
    (b"\x89PNG\r\n\x1a\n", "PNG image"),
    (b"\xff\xd8\xff", "JPEG image"),
    (b"%PDF-", "PDF"),
    (b"\x7fELF", "ELF program"),
    (b"SQLite format 3\0", "SQLite database"),
    (b"GGUF", "GGUF model"),
)


def find_magic(sample: Sample) -> Finding | None:
    """Find the program that wrote a binary file; None if no signature is known."""
    for find in (
        _find_hdf5,
        _find_npy,
        _find_tflite,
        _find_riegeli,
        _find_safetensors,
        _find_tfrecord,
        _find_pickle,
        _find_other,
    ):
        finding = find(sample)
        if finding is not None:
            return finding
    return None


def _find_hdf5(sample: Sample) -> Finding | None:
    start = _find_superblock(sample)
    if start is None:
        return None
    missing = _measure_hdf5(sample.peek(start, 64)) + start - sample.size
    if missing > 0:
        return Finding("truncated", {"of": "hdf5", "missing": missing})
    parts = list(sample.iter_chunks(most=_MOST_SEARCHED))
    data = b"".join([*parts, sample.tail])
    if any(word in data for word in _KERAS_WORDS):
        return Finding("keras-h5")
    return Finding("hdf5")


def _find_superblock(sample: Sample) -> int | None:
    # At 0, or after a block of the user's own, whose size is a power of two from 512 on. The format
    # has no bound for it; this look ends at 1 MiB.
    start = 0
    while start < min(sample.size, 1 << 20):
        if sample.peek(start, len(_HDF5)) == _HDF5:
            return start
        start = start * 2 or 512
    return None


def _measure_hdf5(superblock: bytes) -> int:
    """Return the size that an HDF5 superblock states for its file; 0 if that is not known."""
    version = superblock[8] if len(superblock) > 8 else 255
    # Place of the size of offsets, and of the end-of-file address, by version.
    places = {0: (13, 40), 1: (13, 44), 2: (9, 28), 3: (9, 28)}
    width, place = places.get(version, (0, 0))
    if not width or len(superblock) < place + 8 or superblock[width] != 8:
        return 0  # Addresses of another width than 8 bytes: nothing writes them today.
    return int.from_bytes(superblock[place : place + 8], "little")


def _find_npy(sample: Sample) -> Finding | None:
    if not sample.head.startswith(b"\x93NUMPY"):
        return None
    match = re.search(
        rb"'descr': *'([^']*)'.*?'shape': *\(((?:\d+, *)*(?:\d+)?)\).*?\n",
        sample.head[:4096],
        re.DOTALL,
    )
    if not match:
        return Finding("npy")
    dtype = match.group(1).decode("latin-1")
    shape = tuple(int(size[:20]) for size in match.group(2).split(b",") if size.strip())
    missing = match.end() + math.prod(shape) * _width_of(dtype) - sample.size
    if missing > 0:
        return Finding("truncated", {"of": "npy", "missing": missing})
    return Finding("npy", {"dtype": dtype, "shape": shape})


def _width_of(dtype: str) -> int:
    """Return the bytes of an element by numpy's notation of its type, such as `<f4`."""
    match = re.fullmatch(r"[<>|=]?[biufcSV](\d{1,9})", dtype)
    return int(match.group(1)) if match else 0


def _find_tflite(sample: Sample) -> Finding | None:
    return Finding("tflite") if sample.head[4:8] == b"TFL3" else None


def _find_riegeli(sample: Sample) -> Finding | None:
    if not sample.head.startswith(_RIEGELI):
        return None
    return Finding("saved-model-cpb", {"container": "Riegeli"})


def _find_safetensors(sample: Sample) -> Finding | None:
    if len(sample.head) < 10 or sample.head[8:9] != b"{":
        return None
    (size,) = struct.unpack_from("<Q", sample.head)
    if not 2 <= size <= _MOST_HEADER or b'"' not in sample.head[8:32]:
        return None
    if 8 + size > sample.size:
        is_header = b'"data_offsets"' in sample.head
        return Finding("truncated", {"of": "safetensors"}) if is_header else None
    return _describe_safetensors(sample, size)


def _describe_safetensors(sample: Sample, size: int) -> Finding | None:
    try:
        header = parse_json(sample.source.read_at(8, size), DEFAULT_LIMITS, held=sample.size)
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        end = max((int(entry["data_offsets"][1]) for entry in tensors.values()), default=0)
    except NOT_AS_EXPECTED:
        return None
    missing = 8 + size + end - sample.size
    if missing > 0:
        return Finding("truncated", {"of": "safetensors", "missing": missing})
    return Finding("safetensors", {"tensors": len(tensors)})


def _find_tfrecord(sample: Sample) -> Finding | None:
    if len(sample.head) < 12:
        return None
    size, checksum = struct.unpack_from("<QI", sample.head)
    if checksum != mask_crc(crc32c(sample.head[:8])):
        return None
    if size + 16 > sample.size:
        return Finding("truncated", {"of": "tfrecord", "missing": size + 16 - sample.size})
    is_events = b"brain.Event:" in sample.head[12 : 12 + min(size, 256)]
    return Finding("tfrecord", {"what": "events for TensorBoard"} if is_events else {})


def _find_pickle(sample: Sample) -> Finding | None:
    head = sample.head
    if len(head) < 4 or head[0] != 0x80 or not 2 <= head[1] <= 5:
        return None
    if _TORCH_MAGIC in head[:32] or b"torch" in head:
        return Finding("pytorch-pickle", {"protocol": head[1]})
    if sample.tail.endswith(b"."):
        return Finding(
            "unknown",
            {
                "what": "a Python pickle",
                "advice": "It is no TensorFlow checkpoint. Unpickling runs code: "
                "do it only if you trust its source.",
            },
        )
    return None


def _find_other(sample: Sample) -> Finding | None:
    for start, what in _OTHERS:
        if sample.head.startswith(start):
            return Finding("unknown", {"what": what})
    return None
