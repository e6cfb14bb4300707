"""Reports of `verify` and `recover`: for a person, for a pipe, and as maps of files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ckptparse.cli.errors import as_commands
from ckptparse.cli.output import Output
from ckptparse.text import clean, count, escape, shape_text, size_text

if TYPE_CHECKING:
    import ckptparse

__all__ = ["describe_counts", "verdict", "write_report"]

_VERDICT_STYLES = {"ok": "bold green", "warnings": "bold yellow", "damaged": "bold red"}
_MARKS = {
    "verified": ("#", "green"),
    "unverified": ("?", "yellow"),
    "unreferenced": (".", "dim"),
    "zeros": ("0", "yellow"),
    "bad": ("X", "red"),
    "absent": ("-", "red"),
}
"""How a map draws each kind of range. Of several in one cell, the last of these is drawn."""
_STATUS_STYLES = {
    "verified": "green",
    "corrected": "green",
    "derived": "green",
    "partial": "yellow",
    "unverified": "yellow",
    "corrupt": "red",
    "missing": "red",
}
_MOST_SHOWN = 50
_UNFINISHED = (
    "The save did not finish: these come through what it left behind, which `ckptparse dump` and "
    "`show` never use, and `ckptparse recover` saves them."
)


def verdict(report: ckptparse.Report) -> str:
    """Sum a report up in a word: `ok`, `warnings` or `damaged`."""
    if not report.ok:
        return "damaged"
    return "warnings" if report.problems else "ok"


def describe_counts(report: ckptparse.Report) -> str:
    """Say how many tensors are in which state."""
    states = ", ".join(f"{number:,} {status}" for status, number in report.counts.items())
    total = count(len(report.tensors), "tensor")
    return f"{total}: {states}" if states else total


def write_report(
    out: Output,
    report: ckptparse.Report,
    *,
    with_map: bool = False,
    all_tensors: bool = False,
    saved: bool = False,
) -> None:
    """Write a report; of the tensors those that are not simply whole, or all.

    What to do next is said unless what could be got back is `saved` already.
    """
    tensors = [
        tensor
        for tensor in report.tensors.values()
        if all_tensors or tensor.status.value != "verified"
    ]
    if out.terminal:
        _write_for_person(out, report, tensors, all_tensors=all_tensors)
        if with_map:
            _draw_maps(out, report.files.values())
        if report.next_step and not saved:
            out.line()
            out.paragraph(f"Next: {clean(report.next_step)}", 0)
    else:
        _write_records(out, report, tensors, with_map=with_map)


def _write_for_person(
    out: Output,
    report: ckptparse.Report,
    tensors: list[ckptparse.TensorReport],
    *,
    all_tensors: bool,
) -> None:
    word = verdict(report)
    counts = describe_counts(report)
    out.pieces([(escape(report.path), "bold"), (word, _VERDICT_STYLES[word]), (counts, "")], 0)
    if report.unfinished:
        out.paragraph(_UNFINISHED, 2)
    problems = [problem for problem in report.problems if not _is_told_below(problem, report)]
    if problems:
        out.line()
        _write_problems(out, problems)
    if tensors:
        out.line()
        _write_tensors(out, tensors if all_tensors else tensors[:_MOST_SHOWN])
        if not all_tensors and len(tensors) > _MOST_SHOWN:
            out.line(f"  … and {len(tensors) - _MOST_SHOWN:,} more: -v shows all of them")
    if report.others:
        out.line()
        out.line("Other checkpoints beside it, the best first:")
        for other in report.others:
            out.line(f"  {escape(other.path)}  {other.share:.0%} verified")


def _is_told_below(problem: ckptparse.Problem, report: ckptparse.Report) -> bool:
    """Tell whether a problem is that of one tensor, which has a line of its own."""
    graph = report.object_graph
    known = problem.where in report.tensors or (graph is not None and problem.where == graph.name)
    return known and problem.code.startswith(("tensor.", "slice."))


def _write_problems(out: Output, problems: Sequence[ckptparse.Problem]) -> None:
    for problem in problems[:_MOST_SHOWN]:
        style = "red" if problem.severity.value == "error" else "yellow"
        parts = [(problem.code, style), (problem.severity.value, ""), (clean(problem.where), "")]
        out.pieces(parts, 2)
        out.paragraph(as_commands(clean(problem.message)), 6)
    if len(problems) > _MOST_SHOWN:
        out.line(f"  … and {len(problems) - _MOST_SHOWN:,} more: --json has all of them")


def _write_tensors(out: Output, tensors: Sequence[ckptparse.TensorReport]) -> None:
    for tensor in tensors:
        status = tensor.status.value
        parts = [
            (escape(tensor.name), "cyan"),
            (_type(tensor), ""),
            (status, _STATUS_STYLES[status]),
        ]
        if tensor.cause is not None:
            parts.append((f"({tensor.cause})", ""))
        out.pieces(parts, 2)
        why = _why(tensor)
        if why:
            out.paragraph(why, 6)


def _type(tensor: ckptparse.TensorReport) -> str:
    shape = "" if tensor.shape is None else shape_text(tensor.shape)
    return f"{tensor.dtype or '?'} {shape}".rstrip()


def _why(tensor: ckptparse.TensorReport) -> str:
    parts = [as_commands(clean(tensor.note))] if tensor.note else []
    if tensor.method:
        parts.append(f"by {clean(tensor.method)}")
    if tensor.chance:
        parts.append(f"wrong with a chance of {tensor.chance:.1e}")
    return ", ".join(parts)


def _write_records(
    out: Output,
    report: ckptparse.Report,
    tensors: list[ckptparse.TensorReport],
    *,
    with_map: bool,
) -> None:
    out.record("checkpoint", escape(report.path), verdict(report), len(report.tensors))
    for problem in report.problems:
        message = as_commands(clean(problem.message))
        out.record("problem", problem.severity, problem.code, clean(problem.where), message)
    for tensor in tensors:
        cause = "-" if tensor.cause is None else tensor.cause
        shape = "-" if tensor.shape is None else shape_text(tensor.shape)
        out.record(
            "tensor",
            escape(tensor.name),
            tensor.dtype or "-",
            shape,
            tensor.status,
            cause,
            clean(tensor.note),
        )
    for file in report.files.values() if with_map else ():
        for part in file.ranges:
            out.record("range", escape(file.path), part.start, part.stop, part.kind)
    for other in report.others:
        out.record("other", escape(other.path), f"{other.share:.4f}")


# Maps


def _draw_maps(out: Output, files: Iterable[ckptparse.FileReport]) -> None:
    drawn = [file for file in files if file.ranges]
    for file in drawn:
        out.line()
        size = "not there" if file.size is None else size_text(file.size)
        out.line(f"{escape(file.path)}  {size}", "bold")
        _draw_map(out, file)
    if drawn:
        out.line()
        legend = (f"{out.styled(mark, style)} {kind}" for kind, (mark, style) in _MARKS.items())
        out.line("  ".join(legend))


def _draw_map(out: Output, file: ckptparse.FileReport) -> None:
    """Draw a file as lines of cells, each for as many bytes as make it fit some lines."""
    end = max(part.stop for part in file.ranges)
    digits = max(8, len(f"{end:x}"))
    cells = max(16, out.width - digits - 4)
    cells -= cells % 8
    step = max(1, -(-end // (cells * 4)))
    kinds = _cell_kinds(file, step, -(-end // step))
    for first in range(0, len(kinds), cells):
        row = kinds[first : first + cells]
        out.line(f"  {first * step:0{digits}x}  {_draw_row(out, row)}")


def _cell_kinds(file: ckptparse.FileReport, step: int, cells: int) -> list[str]:
    """Choose what each cell shows: the worst of what its bytes are."""
    order = list(_MARKS)
    worst = [-1] * cells
    for part in file.ranges:
        rank = order.index(part.kind)
        for cell in range(part.start // step, -(-part.stop // step)):
            worst[cell] = max(worst[cell], rank)
    return [order[rank] if rank >= 0 else "unreferenced" for rank in worst]


def _draw_row(out: Output, kinds: list[str]) -> str:
    pieces = []
    start = 0
    for end in range(1, len(kinds) + 1):
        if end == len(kinds) or kinds[end] != kinds[start]:
            mark, style = _MARKS[kinds[start]]
            pieces.append(out.styled(mark * (end - start), style))
            start = end
    return "".join(pieces)
