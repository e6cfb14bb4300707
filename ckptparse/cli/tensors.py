"""A tensor's description, its data unread: as cells of a table, as totals, as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ckptparse
from ckptparse.cli.output import Column
from ckptparse.text import count, escape, shape_text, size_text

__all__ = ["describe_totals", "list_columns", "tensor_cells", "tensor_to_json"]


def list_columns(*, long: bool = False) -> list[Column]:
    """Return the columns of a list of tensors."""
    columns = [
        Column("NAME", folds=True, style="cyan"),
        Column("TYPE", style="green"),
        Column("SHAPE", folds=True),
        Column("SIZE", "right"),
    ]
    if long:
        columns += [
            Column("KIND"),
            Column("SHARD", "right"),
            Column("OFFSET", "right"),
            Column("CRC32C"),
        ]
    return columns


def tensor_cells(
    name: str, tensor: ckptparse.Tensor, *, long: bool = False, exact: bool
) -> list[str]:
    """Return a tensor's cells; sizes are in bytes if they are to be exact."""
    size = str(tensor.nbytes) if exact else size_text(tensor.nbytes)
    cells = [escape(name), ckptparse.element_name(tensor.data_type), shape_text(tensor.shape), size]
    if long:
        place = tensor.location
        cells += [tensor.kind, *(["-", "-"] if place is None else _place(place))]
        cells.append("-" if tensor.crc32c is None else f"{tensor.crc32c:08x}")
    return cells


def _place(place: ckptparse.Location) -> list[str]:
    return [str(place.shard), str(place.offset)]


def describe_totals(tensors: Sequence[ckptparse.Tensor]) -> str:
    """Sum tensors up: how many, their elements and bytes."""
    elements = sum(tensor.size for tensor in tensors)
    size = size_text(sum(tensor.nbytes for tensor in tensors))
    return f"{count(len(tensors), 'tensor')}, {count(elements, 'element')}, {size}"


def tensor_to_json(name: str, tensor: ckptparse.Tensor) -> dict[str, Any]:
    """Return what is known of a tensor without its data, as JSON has it."""
    place = tensor.location
    where = None
    if place is not None:
        where = {name: getattr(place, name) for name in ("path", "shard", "offset", "size")}
    return {
        "name": name,
        "stored_name": tensor.name,
        "dtype": ckptparse.element_name(tensor.data_type),
        "shape": list(tensor.shape),
        "bytes": tensor.nbytes,
        "kind": tensor.kind,
        "crc32c": tensor.crc32c,
        "location": where,
    }
