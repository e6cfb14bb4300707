"""A report in words, for a terminal, a log or `str(report)`.

    path  damaged  2 tensors: 1 verified, 1 partial

      index.block  error  path.index                what is wrong with files
          the message

      name  float32 [5,4]  partial  (slice missing) each tensor that is not simply whole
          the note

    Other checkpoints beside it, the best first:
      path  100% verified

    Next: what to do

The words are the same everywhere; `paint` alone knows how a style looks where they are shown.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING

from ckptparse.text import (
    as_commands,
    cell_width,
    chance_text,
    clean,
    escape,
    shape_text,
    size_text,
    states_text,
)

if TYPE_CHECKING:
    from ckptparse.examination.report import FileReport, Report, TensorReport
    from ckptparse.problems import Problem

__all__ = ["Paint", "render_report"]

Paint = Callable[[str, str], str]
"""Takes a text and a style (`bold`, `cyan`, `bold red` ...), gives what shows it so."""

_GAP = "  "
_COMMAND = re.compile(r"`[^`\n]+`")
_HELD_BLANK = "\x00"
"""Stands for a blank at which no line ends; no text has it, since texts are cleaned first."""
_NEVER = 1 << 30
"""The width of a page whose lines are not folded."""
_WIDEST_MAP = 200
_MOST_SHOWN = 50
"""Problems, tensors and patches that are named; the others are counted, and the JSON has them."""
_MOST_BYTES = 8
"""Bytes of a patch that are shown in words; the JSON has up to 64."""
_MORE = ": `ckptparse verify -v` names all of them"
_VERDICT_STYLES = {"ok": "bold green", "warnings": "bold yellow", "damaged": "bold red"}
_STATUS_STYLES = {
    "verified": "green",
    "corrected": "green",
    "derived": "green",
    "partial": "yellow",
    "unverified": "yellow",
    "corrupt": "red",
    "missing": "red",
}
_MARKS = {
    "verified": ("#", "green"),
    "unverified": ("?", "yellow"),
    "unreferenced": (".", "dim"),
    "zeros": ("0", "yellow"),
    "bad": ("X", "red"),
    "absent": ("-", "red"),
    "patched": ("~", "cyan"),
}
"""How a map draws each kind of range. If a cell has several, the last of these is drawn."""
_RARE = frozenset({"patched"})
"""Kinds that are explained only if they are drawn."""
_UNFINISHED = (
    "The save did not finish. These tensors come from files that it left behind: `ckptparse show` "
    "and `ckptparse.read` never use those, and `ckptparse recover` saves them."
)
_GRAPH = "A graph stores no checksums. Only whether its constants can be decoded was checked."


def render_report(
    report: Report,
    *,
    width: int | None = None,
    paint: Paint | None = None,
    everything: bool = False,
    maps: bool = False,
    inputs: bool = False,
    advice: bool = True,
) -> str:
    """Write a report in words.

    Args:
        report: What was found.
        width: Cells of a line; no line is folded if None.
        paint: Gives a text its style; plain text if None.
        everything: Name every tensor and problem, however many, also those that are whole.
        maps: Draw each file: what every range of its bytes is.
        inputs: List the files that were read, and their SHA-256.
        advice: End with what to do next.
    """
    page = _Page(_NEVER if width is None else width, paint or _plain)
    sections = [
        _problem_lines(page, report, everything=everything),
        _tensor_lines(page, report, everything=everything),
        _other_lines(page, report),
        *(_map_sections(page, report.files.values()) if maps else ()),
        _patch_lines(page, report) if maps else (),
        _input_lines(page, report) if inputs else (),
    ]
    if advice and report.next_step:
        sections.append(page.paragraph(f"Next: {report.next_step}", 0))
    lines = [*_head_lines(page, report)]
    for section in sections:
        listed = list(section)
        lines += ["", *listed] if listed else []
    return "\n".join(lines)


def _plain(text: str, _style: str) -> str:
    return text


class _Page:
    """Lays texts out in lines of a width."""

    def __init__(self, width: int, paint: Paint) -> None:
        self.width = width
        self.paint = paint

    def pieces(self, parts: Sequence[tuple[str, str]], indent: int) -> Iterator[str]:
        """Lay texts with their styles side by side; what does not fit goes on in the next line."""
        line, used = " " * indent, indent
        for number, (text, style) in enumerate((clean(text), style) for text, style in parts):
            if number and used + len(_GAP) + cell_width(text) > self.width:
                yield line
                line, used = " " * (indent + 4), indent + 4
            elif number:
                line, used = line + _GAP, used + len(_GAP)
            # A name is never cut: it is there to be copied.
            line, used = line + self.paint(text, style), used + cell_width(text)
        yield line

    def paragraph(self, text: str, indent: int) -> list[str]:
        """Lay a sentence over as many lines as it takes, indented.

        A command between backticks stays in one line, however long: it is there to be copied.
        """
        blanks = " " * indent
        whole = _COMMAND.sub(lambda found: found[0].replace(" ", _HELD_BLANK), clean(text))
        lines = textwrap.wrap(
            whole,
            self.width,
            initial_indent=blanks,
            subsequent_indent=blanks,
            break_long_words=False,
            break_on_hyphens=False,
        )
        return [line.replace(_HELD_BLANK, " ") for line in lines]


def _head_lines(page: _Page, report: Report) -> Iterator[str]:
    word = report.verdict
    head = [(escape(report.path), "bold"), (word, _VERDICT_STYLES[word])]
    yield from page.pieces([*head, (states_text(report.counts, len(report.tensors)), "")], 0)
    if report.unfinished:
        yield from page.paragraph(_UNFINISHED, 2)
    if report.format == "graph":
        yield from page.paragraph(_GRAPH, 2)


def _problem_lines(page: _Page, report: Report, *, everything: bool) -> Iterator[str]:
    problems = [problem for problem in report.problems if not _is_told_below(problem, report)]
    shown = problems if everything else problems[:_MOST_SHOWN]
    for problem in shown:
        style = "red" if problem.severity.value == "error" else "yellow"
        parts = [(problem.code, style), (problem.severity.value, ""), (clean(problem.where), "")]
        yield from page.pieces(parts, 2)
        yield from page.paragraph(as_commands(clean(problem.message)), 6)
    if len(problems) > len(shown):
        yield f"  … and {len(problems) - len(shown):,} more{_MORE}"


def _is_told_below(problem: Problem, report: Report) -> bool:
    """Tell whether a problem is that of one tensor, which has a line of its own."""
    graph = report.object_graph
    known = problem.where in report.tensors or (graph is not None and problem.where == graph.name)
    return known and problem.code.startswith(("tensor.", "slice."))


def _tensor_lines(page: _Page, report: Report, *, everything: bool) -> Iterator[str]:
    names = list(report.tensors) if everything else report.noted_names()
    graph = report.object_graph
    told = () if graph is None or graph.status.proved else (graph,)
    total = len(names) + len(told)
    most = total if everything else _MOST_SHOWN
    # A report of a hundred thousand tensors makes those that are shown.
    listed = (report.tensors[name] for name in names)
    for tensor in islice(chain(listed, told), most):
        yield from page.pieces(_tensor_pieces(tensor), 2)
        yield from page.paragraph(_why(tensor), 6)
    if total > most:
        yield f"  … and {total - most:,} more{_MORE}"


def _tensor_pieces(tensor: TensorReport) -> list[tuple[str, str]]:
    shape = "" if tensor.shape is None else shape_text(tensor.shape)
    status = tensor.status.value
    parts = [
        (escape(tensor.name), "cyan"),
        (f"{tensor.dtype or '?'} {shape}".rstrip(), ""),
        (status, _STATUS_STYLES[status]),
    ]
    return parts if tensor.cause is None else [*parts, (f"({tensor.cause})", "")]


def _why(tensor: TensorReport) -> str:
    parts = [as_commands(clean(tensor.note)).rstrip(".")] if tensor.note else []
    # A note may tell method and chance itself: neither is said twice.
    if tensor.method and tensor.method not in tensor.note:
        parts.append(f"got back by {clean(tensor.method)}")
    chance = f"the chance that this is wrong is {chance_text(tensor.chance or 0.5)}"
    if tensor.chance and chance not in tensor.note:
        parts.append(chance)
    return "; ".join(parts)


def _other_lines(page: _Page, report: Report) -> Iterator[str]:
    if report.others:
        yield from page.paragraph("Other checkpoints beside it, the best first:", 0)
    for other in report.others:
        parts = [(escape(other.path), ""), (f"{other.share:.0%} verified", "")]
        yield from page.pieces(parts, 2)


# Maps


def _map_sections(page: _Page, files: Iterable[FileReport]) -> Iterator[list[str]]:
    drawn = [file for file in files if file.ranges]
    for file in drawn:
        size = "not there" if file.size is None else size_text(file.size)
        title = page.pieces([(escape(file.path), "bold"), (size, "bold")], 0)
        yield [*title, *_draw_map(page, file)]
    if drawn:
        yield [*_legend(page, {part.kind for file in drawn for part in file.ranges})]


def _patch_lines(page: _Page, report: Report) -> Iterator[str]:
    """List the bytes that were replaced."""
    patches = report.patches
    if patches:
        yield from page.paragraph("Bytes that were replaced, not in the file itself:", 0)
    for patch in patches[:_MOST_SHOWN]:
        at = f"{patch.size} bytes at {patch.offset:#x}"
        parts = [(escape(patch.path), ""), (at, "")]
        if patch.old is not None and patch.new is not None and patch.size <= _MOST_BYTES:
            parts.append((f"{patch.old.hex(' ') or 'nothing'} -> {patch.new.hex(' ')}", "cyan"))
        yield from page.pieces(parts, 2)
    if len(patches) > _MOST_SHOWN:
        yield f"  … and {len(patches) - _MOST_SHOWN:,} more: `--json` has all of them"


def _input_lines(page: _Page, report: Report) -> Iterator[str]:
    """List the files that were read, with their SHA-256 if it is known."""
    if report.inputs:
        yield from page.paragraph("Files that were read, and their SHA-256:", 0)
    for one in report.inputs:
        parts = [escape(one.path), one.role, size_text(one.size), one.sha256 or "not hashed"]
        yield from page.pieces([(part, "") for part in parts], 2)


def _legend(page: _Page, drawn: set[str]) -> Iterator[str]:
    """Say what the marks mean, in as many lines as it takes."""
    line, used = "", 0
    for kind, (mark, style) in _MARKS.items():
        if kind in _RARE - drawn:
            continue
        cells = len(f"{mark} {kind}")
        if used and used + len(_GAP) + cells > page.width:
            yield line
            line, used = "", 0
        gap = _GAP if used else ""
        line += f"{gap}{page.paint(mark, style)} {kind}"
        used += len(gap) + cells
    yield line


def _draw_map(page: _Page, file: FileReport) -> Iterator[str]:
    """Draw a file as lines of cells, each for as many bytes as make it fit some lines."""
    end = max(part.stop for part in file.ranges)
    digits = max(8, len(f"{end:x}"))
    cells = max(16, min(page.width, _WIDEST_MAP) - digits - 4)
    cells -= cells % 8
    step = max(1, -(-end // (cells * 4)))
    kinds = _cell_kinds(file, step, -(-end // step))
    for first in range(0, len(kinds), cells):
        yield f"  {first * step:0{digits}x}  {_draw_row(page, kinds[first : first + cells])}"


def _cell_kinds(file: FileReport, step: int, cells: int) -> list[str]:
    """Choose what each cell shows: the worst of what its bytes are."""
    order = list(_MARKS)
    worst = [-1] * cells
    for part in file.ranges:
        rank = order.index(part.kind)
        for cell in range(part.start // step, -(-part.stop // step)):
            worst[cell] = max(worst[cell], rank)
    return [order[rank] if rank >= 0 else "unreferenced" for rank in worst]


def _draw_row(page: _Page, kinds: list[str]) -> str:
    pieces = []
    start = 0
    for end in range(1, len(kinds) + 1):
        if end == len(kinds) or kinds[end] != kinds[start]:
            mark, style = _MARKS[kinds[start]]
            pieces.append(page.paint(mark * (end - start), style))
            start = end
    return "".join(pieces)
