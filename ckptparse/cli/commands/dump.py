"""`ckptparse dump`: what each byte of a file is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import typer

import ckptparse
from ckptparse.cli.completion import complete_path
from ckptparse.cli.output import Output
from ckptparse.cli.progress import working
from ckptparse.cli.running import DAMAGE, GOOD, Run
from ckptparse.cli.text import clean, escape

__all__ = ["dump"]


def dump(
    run: Run,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="An index, a data file, a V1 file, a .pb or .meta.",
            autocompletion=complete_path,
        ),
    ],
    *,
    depth: Annotated[
        int | None, typer.Option("--depth", "-d", min=0, help="Levels below the first to show.")
    ] = None,
) -> Dump:
    """Show what each byte of a file is, down to the fields.

    ckptparse dump fixtures/saver/my_model.index
    ckptparse dump --depth 0 fixtures/saver/my_model.data-00000-of-00001
    """
    with working(f"reading {escape(file)}", quiet=run.quiet):
        found = tuple(ckptparse.annotate(file, depth=depth))
    run.detail(f"{len(found)} parts")
    return Dump(file, found, DAMAGE if any(part.broken for part in found) else GOOD)


@dataclass(frozen=True, slots=True)
class Dump:
    """The parts of a file, in order, each before its own parts."""

    path: str
    parts: tuple[ckptparse.Annotation, ...]
    code: int

    def to_dict(self) -> dict[str, Any]:
        """Return them as JSON has them."""
        return {
            "path": self.path,
            "parts": [
                {name: getattr(part, name) for name in part.__dataclass_fields__}
                for part in self.parts
            ],
        }

    def write(self, out: Output) -> None:
        """Write a line for each: offset, size, what it is and what it says."""
        if not out.terminal:
            for part in self.parts:
                out.record(*_fields(part))
            return
        digits = max((len(f"{part.offset:x}") for part in self.parts), default=1)
        sizes = max((len(str(part.size)) for part in self.parts), default=1)
        for part in self.parts:
            out.line(_line(out, part, max(8, digits), sizes))


def _fields(part: ckptparse.Annotation) -> Iterator[object]:
    yield part.offset
    yield part.size
    yield part.depth
    yield "".join(letter for letter, on in (("!", part.broken), ("u", part.unpacked)) if on) or "-"
    yield clean(part.what)
    yield clean(part.value)


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
