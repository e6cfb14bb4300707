"""Checkpoints whose files went through programs that take them for text, or pack them."""

from __future__ import annotations

import base64
import binascii
import gzip
import io
import quopri
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import builder as b
import numpy as np

__all__ = ["KINDS"]

Convert = Callable[[bytes], bytes]

_ENTRY = 30
"""Bytes of an index for a scalar, and of the data file."""


def _dump(data: bytes) -> bytes:
    lines = (
        f"{at:08x}: {data[at : at + 16].hex(' ', 2):<39}  {'.' * 16}\n"
        for at in range(0, len(data), 16)
    )
    return "".join(lines).encode()


def _zipped(data: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m", data)
    return held.getvalue()


_WAYS: Mapping[str, Convert] = {
    "base64": base64.encodebytes,
    "one line of base64": base64.b64encode,
    "hex": binascii.hexlify,
    "lines of hex": lambda data: binascii.hexlify(data, "\n", 16),
    "dump": _dump,
    "quoted": lambda data: quopri.encodestring(data, quotetabs=True),
    "UTF-8": lambda data: data.decode("latin-1").encode(),
    "UTF-8 twice": lambda data: data.decode("latin-1").encode().decode("latin-1").encode(),
    "UTF-16": lambda data: data.decode("latin-1").encode("utf-16-le"),
    "CR LF": lambda data: data.replace(b"\n", b"\r\n"),
    "gzip": gzip.compress,
    "gzip of base64": lambda data: gzip.compress(base64.encodebytes(data)),
    "base64 of gzip": lambda data: base64.encodebytes(gzip.compress(data)),
    "base64 twice": lambda data: base64.encodebytes(base64.encodebytes(data)),
    "zip": _zipped,
}


def _change(data: bytes) -> bytes:
    """Change a byte of each 4 KiB."""
    changed = bytearray(data)
    for place in range(2048, len(changed), 4096):
        changed[place] ^= 0x11
    return bytes(changed)


_HARM: Mapping[str, Convert] = {
    "": lambda data: data,
    ", changed": _change,
    ", cut": lambda data: data[: len(data) * 2 // 3],
}


def _converted(
    way: Convert, harm: Convert, files: str, *, count: int | None
) -> Callable[[Path, int], Path]:
    """Write scalars, or a few tensors, and convert the index, the data file or both."""

    def write(directory: Path, size: int) -> Path:
        size = int(size / max(1.0, len(way(bytes(range(256)) * 16)) / 4096))
        number = max(1, size // (2 * _ENTRY)) if count is None else count
        values = np.random.default_rng(1).normal(size=max(number, size // 4)).astype("<f4")
        bundle = b.Bundle()
        each = 1 if count is None else len(values) // number
        for one in range(number):
            part = values[one * each : (one + 1) * each]
            bundle.add(f"t{one:06}", part[0] if count is None else part)
        prefix = directory / "m"
        bundle.write(prefix)
        for path in sorted(directory.iterdir()):
            if files in path.name:
                path.write_bytes(harm(way(path.read_bytes())))
        return prefix

    return write


KINDS = {
    f"{way} of {what}{harm}": _converted(_WAYS[way], _HARM[harm], files, count=count)
    for way in _WAYS
    for harm in _HARM
    for what, files, count in (
        ("an index", ".index", None),
        ("scalars", ".data", None),
        ("ten tensors", ".data", 10),
        ("both", "m.", 100),
    )
}
