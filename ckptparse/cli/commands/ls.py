"""`ckptparse ls`: names, kinds of element, shapes and sizes."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

import ckptparse
from ckptparse.cli.output import Column, Output
from ckptparse.cli.parameters import Naming, NamingOption, PathArgument
from ckptparse.cli.running import GOOD, Run
from ckptparse.cli.text import count, describe_opened, dtype_name, escape, shape_text, size_text

__all__ = ["ls"]


def ls(
    run: Run,
    path: PathArgument,
    *,
    globs: Annotated[
        list[str] | None,
        typer.Argument(metavar="GLOB", help="Only names that match one; '*' crosses '/'."),
    ] = None,
    long: Annotated[
        bool, typer.Option("--long", "-l", help="With shard, offset and checksum.")
    ] = False,
    naming: NamingOption = Naming.CHECKPOINT,
) -> Listing:
    """List the tensors of a checkpoint: name, type, shape, size.

    ckptparse ls fixtures/saver/my_model
    ckptparse ls --long fixtures/slices/partitioned_variable 'parted/*'
    """
    with ckptparse.open(path, naming=naming.value) as checkpoint:
        run.detail(describe_opened(checkpoint))
        rows = tuple((name, checkpoint[name]) for name in checkpoint if _matches(name, globs or ()))
        return Listing(checkpoint.path, checkpoint.format, rows, long)


def _matches(name: str, globs: Sequence[str]) -> bool:
    return not globs or any(fnmatch.fnmatchcase(name, glob) for glob in globs)


@dataclass(frozen=True, slots=True)
class Listing:
    """The tensors that were found, by their keys."""

    path: str
    format: str
    rows: tuple[tuple[str, ckptparse.Tensor], ...]
    long: bool
    code: int = GOOD

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        tensors = [tensor_to_dict(name, tensor) for name, tensor in self.rows]
        return {
            "path": self.path,
            "format": self.format,
            "tensors": tensors,
            "elements": sum(tensor.size for _, tensor in self.rows),
            "bytes": sum(tensor.nbytes for _, tensor in self.rows),
        }

    def write(self, out: Output) -> None:
        """Write a row for each tensor, and the totals."""
        columns = [
            Column("NAME", folds=True, style="cyan"),
            Column("TYPE", style="green"),
            Column("SHAPE", folds=True),
            Column("SIZE", "right"),
        ]
        if self.long:
            columns += [
                Column("KIND"),
                Column("SHARD", "right"),
                Column("OFFSET", "right"),
                Column("CRC32C"),
            ]
        out.table(columns, self._cells(exact=not out.terminal))
        out.summary(self._totals())

    def _cells(self, *, exact: bool) -> Iterator[list[str]]:
        for name, tensor in self.rows:
            size = str(tensor.nbytes) if exact else size_text(tensor.nbytes)
            cells = [escape(name), dtype_name(tensor.data_type), shape_text(tensor.shape), size]
            yield cells + _place(tensor) if self.long else cells

    def _totals(self) -> str:
        elements = sum(tensor.size for _, tensor in self.rows)
        size = sum(tensor.nbytes for _, tensor in self.rows)
        return f"{count(len(self.rows), 'tensor')}, {count(elements, 'element')}, {size_text(size)}"


def _place(tensor: ckptparse.Tensor) -> list[str]:
    place = tensor.location
    where = ["-", "-"] if place is None else [str(place.shard), str(place.offset)]
    crc = "-" if tensor.crc32c is None else f"{tensor.crc32c:08x}"
    return [tensor.kind, *where, crc]


def tensor_to_dict(name: str, tensor: ckptparse.Tensor) -> dict[str, Any]:
    """Return what is known of a tensor without its data, as JSON has it."""
    place = tensor.location
    return {
        "name": name,
        "stored_name": tensor.name,
        "dtype": dtype_name(tensor.data_type),
        "shape": list(tensor.shape),
        "bytes": tensor.nbytes,
        "kind": tensor.kind,
        "crc32c": tensor.crc32c,
        "location": None
        if place is None
        else {
            "path": place.path,
            "shard": place.shard,
            "offset": place.offset,
            "size": place.size,
        },
    }
