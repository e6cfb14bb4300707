"""numpy's own files: an archive (`.npz`), or a directory of `.npy` files, written as streams.

Kinds that numpy lacks, strings and names are held as `ckptparse.foreign` says.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Collection, Sequence
from functools import lru_cache
from hashlib import sha256
from io import BytesIO
from typing import Any, BinaryIO
from urllib.parse import quote

import numpy as np

from ckptparse.dtypes import is_numeric, plain_dtype
from ckptparse.errors import UnsupportedError, located
from ckptparse.files.placing import place_directory, place_file
from ckptparse.foreign import INDEX_NAME, METADATA_NAME, NAMES_KEY, REPORT_NAME
from ckptparse.sinks.options import (
    Meter,
    SinkOptions,
    check_kinds,
    fixed_strings,
    has_surrogates,
    is_variant,
    write_elements,
)
from ckptparse.sinks.small import iter_held
from ckptparse.tensor_like import TensorLike

__all__ = ["check_npy", "write_npy", "write_npz"]

_LONGEST_NAME = 200
"""Characters of a file's name at most: file systems allow 255 bytes, with suffix and number."""
_LONGEST_MEMBER = 0xFFFF - len(".npy")
"""Bytes of a member's name at most: a zip states the length of the whole name in 16 bits."""
_DEVICES = {
    *("con", "prn", "aux", "nul"),
    *(f"{port}{number}" for port in ("com", "lpt") for number in range(10)),
}
"""Names that mean a device on Windows, in any directory, whatever stands after a dot."""


def check_npy(tensors: Sequence[TensorLike], options: SinkOptions) -> None:  # noqa: ARG001 - a sink
    """Refuse what a `.npy` file cannot hold.

    Raises:
        UnsupportedError: Some tensors are variants.
    """
    check_kinds(tensors, is_variant, what="A .npy file")


def write_npz(path: str, tensors: Sequence[TensorLike], options: SinkOptions) -> tuple[str, ...]:
    """Write an archive; return its path.

    Raises:
        CheckpointError: A tensor cannot be read, or the file cannot be written.
    """
    check_npy(tensors, options)
    meter = options.meter(tensors)
    with (
        place_file(path, overwrite=options.overwrite, storage=options.storage) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive,
    ):
        metadata = dict(options.metadata)
        members = _find_members(tensors)
        if members:
            names = {member: name for name, member in members.items()}
            metadata[NAMES_KEY] = json.dumps(names)
        for tensor in iter_held(tensors):
            # A member's time is the earliest there is: what is written is the same tomorrow.
            info = zipfile.ZipInfo(f"{members.get(tensor.name, tensor.name)}.npy")
            with archive.open(info, "w", force_zip64=True) as stream:
                _write_array(stream, tensor, meter)
        if metadata:
            archive.writestr(zipfile.ZipInfo(METADATA_NAME), json.dumps(metadata))
    return (path,)


def write_npy(path: str, tensors: Sequence[TensorLike], options: SinkOptions) -> tuple[str, ...]:
    """Write a directory of one file for each tensor; return its path.

    Raises:
        CheckpointError: A tensor cannot be read, or the directory cannot be written.
    """
    check_npy(tensors, options)
    meter = options.meter(tensors)
    files: dict[str, str] = {}
    taken = {INDEX_NAME.casefold(): 1, REPORT_NAME.casefold(): 1}
    with place_directory(
        path,
        overwrite=options.overwrite,
        may_replace=_is_one_of_ours,
        storage=options.storage,
    ) as directory:
        for tensor in iter_held(tensors):
            files[tensor.name] = name = _free_name(tensor.name, taken)
            with directory.open(name) as stream:
                _write_array(stream, tensor, meter)
        content = {"tensors": files, "metadata": dict(options.metadata)}
        with directory.open(INDEX_NAME) as stream:
            stream.write(json.dumps(content, indent=1).encode() + b"\n")
    return (path,)


def _find_members(tensors: Sequence[TensorLike]) -> dict[str, str]:
    """Return what the members of names are called that no member can have."""
    wanted = {tensor.name: member for tensor in tensors if (member := _member(tensor.name))}
    taken = {tensor.name for tensor in tensors if tensor.name not in wanted} if wanted else set()
    found: dict[str, str] = {}
    for name, member in wanted.items():
        free = member
        while free in taken:
            free += "~"
        taken.add(free)
        found[name] = free
    return found


def _member(name: str) -> str:
    """Return what the member of a name is called that no member can have; else nothing."""
    odd = "\0" in name or "\\" in name or has_surrogates(name)
    member = f"{_quoted(name)}~" if odd else ""
    if len((member or name).encode()) <= _LONGEST_MEMBER:
        return member
    digest = sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{_quoted(name[:_LONGEST_NAME])}~{digest}~"


def _quoted(name: str, safe: str = " /") -> str:
    try:
        return quote(name, safe=safe, errors="surrogateescape")
    except UnicodeEncodeError as error:
        raise UnsupportedError(
            f"The name has the character {name[error.start]!r}, which cannot be encoded",
            tensor=name,
            hint="Rename it: rename={...}",
        ) from None


def _is_one_of_ours(names: Collection[str]) -> bool:
    """Tell whether a directory holds nothing but what was written here before."""
    own = {INDEX_NAME, REPORT_NAME}
    others = [name for name in names if name not in own and not name.endswith(".npy")]
    return not others and (not names or not own.isdisjoint(names))


def _free_name(name: str, taken: dict[str, int]) -> str:
    """Return a file's name that no other has, since capitals may count as small letters.

    Args:
        name: The tensor's.
        taken: The names that are taken, in small letters; and of each the highest number that was
            added to it, so that many names alike are not tried again and again.
    """
    stem = _quoted(name, " ")[:_LONGEST_NAME]
    if stem.partition(".")[0].rstrip().casefold() in _DEVICES:
        stem = f"~{stem}"
    free = first = f"{stem}.npy"
    number = taken.get(first.casefold(), 0)
    while free.casefold() in taken:
        number += 1
        free = f"{stem}~{number}.npy"
    if number:
        taken[first.casefold()] = number
    taken[free.casefold()] = 1
    return free


def _write_array(stream: Any, tensor: TensorLike, meter: Meter) -> None:
    """Write one `.npy` file."""
    if not is_numeric(tensor.data_type):
        strings = fixed_strings(tensor)
        np.lib.format.write_array(stream, strings, allow_pickle=False)
        meter.advance(tensor.nbytes)
        return
    with located(tensor=tensor.name):
        write_head(stream, tensor.shape, plain_dtype(tensor.data_type))
    write_elements(tensor, meter.counting(stream.write))


def write_head(stream: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Write the head of a `.npy` file of C-ordered elements."""
    stream.write(_head(shape, dtype))


@lru_cache(maxsize=64)
def _head(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """Return a head; of many small tensors many have the same."""
    head = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": shape,
    }
    stream = BytesIO()
    np.lib.format.write_array_header_1_0(stream, head)
    return stream.getvalue()
