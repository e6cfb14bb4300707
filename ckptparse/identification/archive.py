"""Names inside zip, tar, gzip and Zstandard files, from bounded reads.

zip    … central directory at the end: 50 4b 01 02, sizes, name; then 50 4b 05 06 with its place
tar    512-byte headers: name[100] … size[12, octal] at 124, type at 156, `ustar` at 257
gzip   1f 8b 08, flags, …, the original name where flag 08 is set; then Deflate
zstd   28 b5 2f fd
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any, cast

from ckptparse.foreign import METADATA_NAME
from ckptparse.identification.identity import Finding, looks_like_checkpoint
from ckptparse.identification.sample import WINDOW, Sample

__all__ = ["find_archive", "is_tar"]

_MOST_UNPACKED = 1 << 26
"""Bytes of a compressed archive that are unpacked to list its names."""
_MOST_NAMES = 10_000
"""Members that are looked at; those beyond are not listed."""
_MOST_DIRECTORY = 1 << 24
"""Bytes of a zip file's central directory that are read: some 200,000 members."""
_MOST_WINDOW = 1 << 27
"""Bytes of the window that a Zstandard stream may ask for: `zstd --long` takes 128 MiB."""
_TAR_BLOCK = 512
"""Bytes of a tar header; data is padded to multiples of it."""
_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")
"""A member, or the end of an archive without members."""

_Read = Callable[[int, int], bytes]


def find_archive(sample: Sample) -> Finding | None:
    """Find an archive or a compressed stream, and the names of checkpoints inside."""
    if sample.head.startswith(_ZIP_STARTS):
        return _find_zip(sample)
    if is_tar(sample.head):
        return _find_tar(sample)
    if sample.head.startswith(b"\x1f\x8b\x08"):
        return _find_gzip(sample)
    if sample.head.startswith(b"\x28\xb5\x2f\xfd"):
        return _find_zstd(sample)
    return None


def is_tar(head: bytes) -> bool:
    """Tell a tar archive by its first header."""
    return head[257:262] == b"ustar" and len(head) >= _TAR_BLOCK


def _find_zip(sample: Sample) -> Finding:
    names = _list_zip(sample)
    if names is None:
        return Finding("truncated", {"of": "zip"})
    return Finding(_name_zip(names), {"members": len(names)}, _checkpoints(names))


def _name_zip(names: list[str]) -> str:
    files = [name for name in names if not name.endswith("/")]
    if files and all(name.endswith(".npy") or name == METADATA_NAME for name in files):
        return "npz"
    if {"config.json", "metadata.json"} <= set(files) or "model.weights.h5" in files:
        return "keras-zip"
    if any(re.fullmatch(r"[^/]+/data\.pkl|data\.pkl|[^/]+/constants\.pkl", name) for name in files):
        return "pytorch-zip"
    return "zip"


def _list_zip(sample: Sample) -> list[str] | None:
    """List a zip file's members from its central directory; None if it has none."""
    place = _find_directory(sample)
    if place is None:
        return None
    start, size = place
    data = sample.source.read_at(start, min(size, _MOST_DIRECTORY))
    names: list[str] = []
    position = 0
    # An entry has 46 bytes, at 28 the lengths of what follows them: name, extra field, comment.
    while data.startswith(b"PK\x01\x02", position) and position + 46 <= len(data):
        lengths = struct.unpack_from("<HHH", data, position + 28)
        name = data[position + 46 : position + 46 + lengths[0]]
        names.append(name.decode("utf-8", "replace"))
        position += 46 + sum(lengths)
        if len(names) == _MOST_NAMES:
            break
    return names


def _find_directory(sample: Sample) -> tuple[int, int] | None:
    """Find where the central directory lies; None if the end of the file is missing."""
    end = sample.tail.rfind(b"PK\x05\x06")
    if end < 0 or end + 22 > len(sample.tail):
        return None
    size, start = struct.unpack_from("<II", sample.tail, end + 12)
    # zip64: if the place is all ones, another record of 56 bytes has it: at 40, in 8 bytes each.
    wide = sample.tail.rfind(b"PK\x06\x06", 0, end)
    if start == 0xFFFFFFFF and wide >= 0 and wide + 56 <= len(sample.tail):
        size, start = struct.unpack_from("<QQ", sample.tail, wide + 40)
    return (start, size) if start + size <= sample.size else None


def _find_tar(sample: Sample) -> Finding:
    names, whole = _list_tar(sample.peek, sample.size)
    detail: dict[str, object] = {"members": len(names)}
    if not whole:
        return Finding("truncated", {"of": "tar"} | detail, _checkpoints(names))
    return Finding("tar", detail, _checkpoints(names))


def _list_tar(read: _Read, size: int) -> tuple[list[str], bool]:
    """List a tar archive's members; tell whether the last of them lies within its size."""
    names: list[str] = []
    position, long_name = 0, ""
    while position + _TAR_BLOCK <= size and len(names) < _MOST_NAMES:
        header = read(position, _TAR_BLOCK)
        if header[257:262] != b"ustar":
            break
        length = _decode_tar_size(header[124:136])
        kind, data = header[156:157], position + _TAR_BLOCK
        position = data + -(-length // _TAR_BLOCK) * _TAR_BLOCK
        if kind in (b"L", b"x"):
            long_name = _decode_long_name(kind, read(data, min(length, 1 << 14)))
            continue
        if kind != b"g":
            names.append(long_name or _decode_tar_name(header))
            long_name = ""
    return names, position <= size


def _decode_tar_size(code: bytes) -> int:
    if code[0] & 0x80:
        return int.from_bytes(code[1:], "big")
    digits = code.strip(b"\0 ")
    return int(digits, 8) if re.fullmatch(rb"[0-7]+", digits) else 0


def _decode_tar_name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0].decode("utf-8", "replace")
    # Only POSIX archives (`ustar` and a NUL) have the directory here; GNU's have other fields.
    prefix = header[345:500].partition(b"\0")[0].decode("utf-8", "replace")
    return f"{prefix}/{name}" if prefix and header[257:263] == b"ustar\0" else name


def _decode_long_name(kind: bytes, data: bytes) -> str:
    if kind == b"x":
        match = re.search(rb"(?:\A|\n)\d+ path=([^\n]*)\n", data)
        data = match.group(1) if match else b""
    return data.partition(b"\0")[0].decode("utf-8", "replace")


def _find_gzip(sample: Sample) -> Finding:
    data, whole = _unpack_gzip(sample)
    detail: dict[str, object] = {}
    name = _decode_gzip_name(sample.head)
    if name:
        detail["name"] = name
    if whole is False:
        return Finding("truncated", {"of": "gzip"} | detail)
    return _describe_stream("gzip", data, detail)


def _unpack_gzip(sample: Sample) -> tuple[bytes, bool | None]:
    """Unpack the start of a gzip stream; tell whether it ends (None if that was not reached)."""
    stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
    most = min(_MOST_UNPACKED, sample.limits.decompressed_bytes)
    unpacked = bytearray()
    try:
        for chunk in sample.iter_chunks():
            unpacked += stream.decompress(chunk, most - len(unpacked))
            if stream.eof or len(unpacked) >= most:
                return bytes(unpacked), True if stream.eof else None
    except zlib.error:
        return bytes(unpacked), None
    return bytes(unpacked), False


def _decode_gzip_name(head: bytes) -> str:
    position = 10
    if len(head) < position or not head[3] & 0x08:
        return ""
    if head[3] & 0x04:
        position += 2 + int.from_bytes(head[10:12], "little")
    return head[position : position + 1024].partition(b"\0")[0].decode("latin-1")


def _find_zstd(sample: Sample) -> Finding:
    try:
        import zstandard
    except ImportError:
        return Finding("zstd", {"note": "Listing what is inside takes the extra `chunked`."})
    most = min(_MOST_UNPACKED, sample.limits.decompressed_bytes)
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW)
    unpacked = bytearray()
    try:
        with decompressor.stream_reader(cast(Any, _Stream(sample))) as stream:
            while len(unpacked) < most and (piece := stream.read(WINDOW)):
                unpacked += piece
    except zstandard.ZstdError as error:
        return Finding("zstd", {"damage": str(error)})
    return _describe_stream("zstd", bytes(unpacked), {})


class _Stream:
    """A file from its start, as the decompressor of Zstandard reads it."""

    def __init__(self, sample: Sample) -> None:
        self._sample = sample
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        size = WINDOW if size < 0 else size
        data = self._sample.peek(self._position, size)
        self._position += len(data)
        return data


def _describe_stream(kind: str, data: bytes, detail: dict[str, object]) -> Finding:
    if is_tar(data):
        names, _ = _list_tar(lambda offset, size: data[offset : offset + size], len(data))
        return Finding(kind, detail | {"what": "tar", "members": len(names)}, _checkpoints(names))
    name = str(detail.get("name", ""))
    return Finding(kind, detail, _checkpoints([name]) if name else ())


def _checkpoints(names: list[str]) -> tuple[str, ...]:
    return tuple(_iter_checkpoints(names))


def _iter_checkpoints(names: list[str]) -> Iterator[str]:
    return (name for name in names if looks_like_checkpoint(name))
