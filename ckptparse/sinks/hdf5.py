"""HDF5 files: one dataset for each tensor, in groups as its name says.

h5py lays the file out, and the elements are then written to where they belong as a stream. A name
that is no path of groups (`w` beside `w/Adam`, an empty part, a dot) gives a dataset of another
path, and stands in its attribute `ckptparse.name`.
"""

from __future__ import annotations

import io
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ckptparse.dtypes import DataType, is_numeric, plain_dtype
from ckptparse.errors import UnsupportedError, located
from ckptparse.files.placing import place_file
from ckptparse.foreign import MOST_GROUPS, NAME_ATTRIBUTE, load_h5py
from ckptparse.sinks.options import (
    SinkOptions,
    check_kinds,
    check_names,
    fixed_strings,
    is_variant,
    write_elements,
)
from ckptparse.sinks.small import iter_held
from ckptparse.tensor_like import TensorLike

__all__ = ["check_hdf5", "write_hdf5"]

_MOST_AXES = 32
"""Dimensions of an HDF5 dataset at most: its own bound."""
_MOST_BYTES = 1 << 62
"""Bytes of all tensors at most. Offsets in a file are numbers of 63 bits."""


def check_hdf5(tensors: Sequence[TensorLike], options: SinkOptions) -> None:  # noqa: ARG001 - a sink
    """Refuse what an HDF5 file cannot hold.

    Raises:
        UnsupportedError: Some are variants, have more than 32 axes, names that are not UTF-8 or
            stand in more than 1,000 groups inside each other; all of them take more bytes than any
            file has; or h5py is not installed.
    """
    load_h5py()
    total = sum(tensor.nbytes for tensor in tensors)
    if total > _MOST_BYTES:
        # The places of all tensors are fixed before one is read, and found to be cut off.
        raise UnsupportedError(
            f"Expected tensors of at most {_MOST_BYTES} bytes together, found {total}: no file is "
            "so large",
            hint="`ckptparse verify` says which entry of the index is damaged",
        )

    def lacks(tensor: TensorLike) -> bool:
        odd = "\0" in tensor.name or tensor.name.count("/") > MOST_GROUPS
        return odd or is_variant(tensor) or len(tensor.shape) > _MOST_AXES

    check_names(tensors, what="An HDF5 file")
    check_kinds(tensors, lacks, what="An HDF5 file")


def write_hdf5(path: str, tensors: Sequence[TensorLike], options: SinkOptions) -> tuple[str, ...]:
    """Write a file; return its path.

    Raises:
        CheckpointError: A tensor cannot be read, or the file cannot be written.
    """
    check_hdf5(tensors, options)
    meter = options.meter(tensors)
    with place_file(path, overwrite=options.overwrite, storage=options.storage) as stream:
        places = _lay_out(stream, tensors, options)
        left = [
            tensor for tensor, offset in zip(tensors, places, strict=True) if offset is not None
        ]
        offsets = [offset for offset in places if offset is not None]
        for tensor, offset in zip(iter_held(left), offsets, strict=True):
            stream.seek(offset)
            write_elements(tensor, meter.counting(stream.write))
        stream.seek(0, io.SEEK_END)
    return (path,)


def _lay_out(
    stream: BinaryIO, tensors: Sequence[TensorLike], options: SinkOptions
) -> list[int | None]:
    """Make all datasets; return where the elements of each lie, None if they are there already."""
    h5py = load_h5py()
    with h5py.File(stream, "w", libver=("earliest", "v108"), track_order=False) as file:
        for key, value in options.metadata.items():
            file.attrs[key] = value
        paths = _paths([one.name for one in tensors])
        maker = _Maker(h5py, file)
        return [
            maker.make(path, tensor) for tensor, path in zip(iter_held(tensors), paths, strict=True)
        ]


class _Maker:
    """Makes the datasets of one file, by HDF5's own calls: h5py's take five times as long."""

    def __init__(self, h5py: Any, file: Any) -> None:
        self._h5py = h5py
        self._file = file
        self._group, self._group_id = b"", file.id
        self._types: dict[np.dtype[Any], Any] = {}
        self._plain = self._make_options()
        # Its place in the file is fixed at once, and nothing is written there by the library.
        self._early = self._make_options()
        self._early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        self._early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)

    def _make_options(self) -> Any:
        options = self._h5py.h5p.create(self._h5py.h5p.DATASET_CREATE)
        options.set_obj_track_times(False)
        options.set_attr_creation_order(0)
        return options

    def make(self, path: str, tensor: TensorLike) -> int | None:
        """Make a dataset; return where its elements lie, None if they are there already."""
        with located(tensor=tensor.name):
            if is_numeric(tensor.data_type):
                return self._make_numbers(path, tensor)
            strings = fixed_strings(tensor)
            made = self._create(path, tensor, strings.dtype, self._plain)
            self._fill(made, strings)
            return None

    def _make_numbers(self, path: str, tensor: TensorLike) -> int | None:
        boolean = tensor.data_type == DataType.DT_BOOL
        dtype = np.dtype(bool) if boolean else plain_dtype(tensor.data_type)
        made = self._create(path, tensor, dtype, self._early if tensor.shape else self._plain)
        offset = made.get_offset()
        if offset is None:
            # A scalar is given no place of its own before it is written, no elements none at all.
            raw = bytearray()
            write_elements(tensor, raw.extend)
            if raw:
                self._fill(made, np.frombuffer(raw, dtype).reshape(tensor.shape))
        return None if offset is None else int(offset)

    def _create(self, path: str, tensor: TensorLike, dtype: np.dtype[Any], options: Any) -> Any:
        h5py = self._h5py
        kind = self._types.get(dtype)
        if kind is None:
            kind = self._types[dtype] = h5py.h5t.py_create(dtype, logical=True)
        group, _, own = path.encode().rpartition(b"/")
        if group != self._group:
            self._group = group
            self._group_id = self._file.require_group(group).id if group else self._file.id
        space = h5py.h5s.create_simple(tensor.shape)
        made = h5py.h5d.create(self._group_id, own, kind, space, dcpl=options)
        if path != tensor.name:
            h5py.Dataset(made).attrs[NAME_ATTRIBUTE] = tensor.name
        return made

    def _fill(self, made: Any, values: npt.NDArray[Any]) -> None:
        # In memory they are as they are there: else h5py makes a type of each array anew.
        kind = self._types[values.dtype]
        made.write(self._h5py.h5s.ALL, self._h5py.h5s.ALL, values, kind)


def _paths(names: Sequence[str]) -> Iterator[str]:
    """Give each name a path, of which none is a group of another."""
    wanted = ["/".join(_split(name)) for name in names]
    # Sorted, and not all groups by their names: those of one deep name alone are its square.
    ordered = sorted(wanted)

    def is_group(path: str) -> bool:
        below = bisect_left(ordered, f"{path}/")
        return below < len(ordered) and ordered[below].startswith(f"{path}/")

    taken: set[str] = set()
    for own in wanted:
        path, number = own, 1
        while path in taken or is_group(path):
            number += 1
            path = f"{own}~{number}"
        taken.add(path)
        yield path


def _split(name: str) -> list[str]:
    """Split a name into parts that HDF5 takes: not empty, and no dots alone."""
    return [part if part.strip(".") else f"~{part}" for part in name.split("/")]
