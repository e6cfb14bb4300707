"""Standard output: aligned, coloured and fitted to the width in a terminal; tab-separated piped.

Piped output is for programs: a record a line, fields separated by tabs, exact numbers, no header,
no totals, nothing that depends on the environment. `NO_COLOR` and `TERM=dumb` are honoured.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from ckptparse.text import cell_width, clean, escape

if TYPE_CHECKING:
    from rich.console import Console
    from rich.style import Style

__all__ = ["Column", "Output"]

_GAP = "  "
_NARROWEST = 12
"""Characters that a column keeps if the terminal is too narrow for it."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        title: Its head.
        align: Where its fields stand; numbers are right.
        folds: Whether its fields may take more than a line if the terminal is narrow.
        prose: Whether they then break between words; a field of another kind is a name, which is
            never cut, so that it can be copied: a line too long has it whole.
        style: How its fields look in a terminal.
    """

    title: str
    align: Literal["left", "right"] = "left"
    folds: bool = False
    prose: bool = False
    style: str = ""


class Output:
    """Standard output, whichever it is."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.terminal = sys.stdout.isatty()

    @cached_property
    def width(self) -> int:
        """Characters of a line of the terminal."""
        return max(20, shutil.get_terminal_size((80, 24)).columns)

    @cached_property
    def _console(self) -> Console:
        from rich.console import Console

        return Console(file=sys.stdout, highlight=False)

    def _style(self, style: str) -> Style | None:
        if not style or not self.terminal or self._console.color_system is None:
            return None
        if os.environ.get("NO_COLOR"):
            return None
        from rich.style import Style

        return Style.parse(style)

    def styled(self, text: str, style: str) -> str:
        """Return text with the codes of a style, if the output shows such."""
        parsed = self._style(style)
        return text if parsed is None else parsed.render(text)

    def line(self, text: str = "", style: str = "") -> None:
        """Write a line."""
        sys.stdout.write(self.styled(text, style) + "\n")

    def path(self, path: str) -> None:
        """Write a path: in a terminal escaped; piped as it is, to the byte."""
        if self.terminal:
            self.line(escape(path))
        else:
            sys.stdout.flush()
            sys.stdout.buffer.write(os.fsencode(path) + b"\n")

    def record(self, *fields: object) -> None:
        """Write a line of fields with tabs between them."""
        # Names come escaped; whatever else a file says, no terminal shall obey it.
        sys.stdout.write("\t".join(clean(str(field)) for field in fields) + "\n")

    def records(self, records: Iterable[str]) -> None:
        """Write records whose fields are clean and have tabs between them, piped."""
        sys.stdout.writelines(f"{record}\n" for record in records)

    def summary(self, text: str) -> None:
        """Write a closing line: below the answer in a terminal, else on standard error."""
        if self.terminal:
            self.line()
            self.line(text, "bold")
        elif not self.quiet:
            sys.stdout.flush()
            sys.stderr.write(f"{text}\n")

    def fields(self, rows: Iterable[tuple[str, object]]) -> None:
        """Write names with their values: a list in a terminal, records piped."""
        listed = [(name, str(value)) for name, value in rows]
        if not self.terminal:
            for name, value in listed:
                self.record(name, value)
            return
        columns = (Column("", style="cyan"), Column("", folds=True, prose=True))
        self.table(columns, listed, header=False)

    def table(
        self, columns: Sequence[Column], rows: Iterable[Sequence[str]], *, header: bool = True
    ) -> None:
        """Write a table whose rows have a text for each column."""
        if not self.terminal:
            for row in rows:
                self.record(*row)
            return
        listed = [list(map(clean, row)) for row in rows]
        titles = [column.title for column in columns] if header else [""] * len(columns)
        widths = self._fit(columns, [titles, *listed])
        if header:
            for line in _lay_out(columns, titles, widths, [None] * len(columns)):
                self.line(line, "bold")
        styles = [self._style(column.style) for column in columns]
        for row in listed:
            sys.stdout.writelines(f"{line}\n" for line in _lay_out(columns, row, widths, styles))

    def _fit(self, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[int]:
        """Find the width of each column: what it needs, and less for those that fold."""
        widths = [max(cell_width(row[i]) for row in rows) for i in range(len(columns))]
        excess = sum(widths) + len(_GAP) * (len(columns) - 1) - self.width
        folding = [i for i, column in enumerate(columns) if column.folds]
        for i in sorted(folding, key=lambda i: -widths[i]):
            if excess > 0:
                cut = min(excess, max(0, widths[i] - _NARROWEST))
                widths[i] -= cut
                excess -= cut
        return widths


def _fold(text: str, width: int, *, prose: bool) -> list[str]:
    """Cut a sentence into lines between its words; a name stays whole, however long."""
    if not prose or cell_width(text) <= width:
        return [text]
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]


def _lay_out(
    columns: Sequence[Column],
    row: Sequence[str],
    widths: Sequence[int],
    styles: Sequence[Style | None],
) -> list[str]:
    """Lay a row out as the lines it takes; what follows a name too long begins a new line."""
    folded = [
        _fold(text, width, prose=column.prose) if column.folds else [text]
        for column, text, width in zip(columns, row, widths, strict=True)
    ]
    lines = []
    for number in range(max(map(len, folded))):
        line, used, start = "", 0, 0
        for i, (column, parts, width) in enumerate(zip(columns, folded, widths, strict=True)):
            text = parts[number] if number < len(parts) else ""
            if used > start:
                lines.append(line.rstrip(" "))
                line, used = " " * start, start
            cells = cell_width(text)
            style = styles[i]
            shown = style.render(text) if style is not None and text else text
            blanks = " " * max(0, width - cells)
            line += (blanks + shown if column.align == "right" else shown + blanks) + _GAP
            used += max(cells, width) + len(_GAP)
            start += width + len(_GAP)
        lines.append(line.rstrip(" "))
    return lines
