"""`ckptparse dump`: what each byte of a file is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import fields
from operator import attrgetter
from typing import Annotated, Any

import ckptparse
from ckptparse.cli.completion import complete_path
from ckptparse.cli.limits import LimitOption, read_limits
from ckptparse.cli.options import Argument, Option
from ckptparse.cli.output import Output
from ckptparse.cli.running import DAMAGE, GOOD, Run
from ckptparse.text import clean, escape

__all__ = ["dump"]

_NAMES = tuple(part.name for part in fields(ckptparse.Annotation))
_VALUES = attrgetter(*_NAMES)


def dump(
    run: Run,
    file: Annotated[
        str,
        Argument(
            metavar="FILE",
            help="An index, a data file, a V1 file, a .pb or .meta.",
            complete=complete_path,
        ),
    ],
    *,
    depth: Annotated[
        int | None,
        Option(
            "--depth",
            "-d",
            min=0,
            help="How many levels below the first to show; all if not given.",
        ),
    ] = None,
    limit: LimitOption = None,
) -> Dump:
    """Show what each byte of a file is, down to the fields.

    ckptparse dump model.ckpt-1000.index
    ckptparse dump --depth 0 model.ckpt-1000.data-00000-of-00001
    """
    run.detail(f"reading {escape(file)}")
    limits = read_limits(limit)
    parts = ckptparse.annotate(file, depth=depth, cache=run.cache, limits=limits)
    return Dump(file, parts, _size(file))


def _size(file: str) -> int:
    """Return the size of a file, or of a prefix's index: the columns are as wide as it needs."""
    sizes = (os.stat(path).st_size for path in (file, f"{file}.index") if os.path.isfile(path))
    return next(sizes, 0)


class Dump:
    """The parts of a file, in order, each before its own parts; made while they are written."""

    def __init__(self, path: str, parts: Iterator[ckptparse.Annotation], size: int) -> None:
        self.path = path
        self.size = size
        self.code = GOOD
        self._parts = parts

    def to_dict(self) -> dict[str, Any]:
        """Return them as JSON has them."""
        return {
            "path": self.path,
            "parts": [dict(zip(_NAMES, _VALUES(part), strict=True)) for part in self._iter_parts()],
        }

    def write(self, out: Output) -> None:
        """Write a line for each: offset, size, what it is and what it says."""
        digits, sizes = max(8, len(f"{self.size:x}")), len(str(self.size))
        if out.terminal:
            for part in self._iter_parts():
                out.line(_line(out, part, digits, sizes))
        else:
            out.records(map(_record, self._iter_parts()))

    def _iter_parts(self) -> Iterator[ckptparse.Annotation]:
        for part in self._parts:
            if part.broken:
                self.code = DAMAGE
            yield part


def _record(part: ckptparse.Annotation) -> str:
    """Return the fields of a part, with tabs between them."""
    flags = ("!" if part.broken else "") + ("u" if part.unpacked else "") or "-"
    what, value = clean(part.what), clean(part.value)
    return f"{part.offset}\t{part.size}\t{part.depth}\t{flags}\t{what}\t{value}"


def _line(out: Output, part: ckptparse.Annotation, digits: int, sizes: int) -> str:
    """Lay a part out, its value cut where the terminal ends."""
    mark = "+" if part.unpacked else " "
    head = f"{mark}{part.offset:0{digits}x} {part.size:{sizes}}  {'  ' * part.depth}"
    what, value = clean(part.what), clean(part.value)
    room = out.width - len(head) - len(what) - 2
    if len(value) > max(room, 8):
        value = value[: max(room, 8) - 1] + "…"
    style = "bold red" if part.broken else "cyan" if part.depth else "bold"
    shown = out.styled(head, "dim") + out.styled(what, style)
    return f"{shown}  {value}" if value else shown
