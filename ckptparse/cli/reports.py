"""Reports of `verify` and `recover`: in words in a terminal, as records in a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckptparse.cli.output import Output
from ckptparse.text import as_commands, clean, escape, shape_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    import ckptparse

__all__ = ["write_report"]


def write_report(
    out: Output,
    report: ckptparse.Report,
    *,
    maps: bool = False,
    everything: bool = False,
    inputs: bool = False,
    saved: bool = False,
) -> None:
    """Write a report; of the tensors those that are not simply whole, or all.

    What to do next is said unless what could be got back is `saved` already.
    """
    if not out.terminal:
        _write_records(out, report, maps=maps, everything=everything)
        if inputs:
            _write_inputs(out, report)
        if report.next_step and not saved:
            out.summary(f"Next: {report.next_step}")  # For people: not among the records.
        return
    out.line(
        report.render(
            width=out.width,
            paint=out.styled,
            everything=everything,
            maps=maps,
            inputs=inputs,
            advice=not saved,
        )
    )


def _write_records(
    out: Output,
    report: ckptparse.Report,
    *,
    maps: bool,
    everything: bool,
) -> None:
    out.record("checkpoint", escape(report.path), report.verdict, len(report.tensors))
    for problem in report.problems:
        message = as_commands(clean(problem.message))
        out.record("problem", problem.severity, problem.code, clean(problem.where), message)
    for tensor in _told_tensors(report, everything=everything):
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
    unlisted = len(report.noted_names()) - len(report.listed_noted_names())
    if unlisted and not everything and report.format != "graph":
        out.record("unlisted", unlisted)
    if maps:
        _write_maps(out, report)
    for other in report.others:
        out.record("other", escape(other.path), f"{other.share:.4f}")


def _told_tensors(
    report: ckptparse.Report, *, everything: bool
) -> Iterable[ckptparse.TensorReport]:
    """Iterate over the tensors that have a record: all of them, or those that are not verified."""
    if everything:
        return report.tensors.values()
    if report.format == "graph":  # Unverified is usual there, and has a record.
        return (one for one in report.tensors.values() if one.status.value != "verified")
    # A report of a hundred thousand tensors makes those that are told, as many as JSON lists.
    return map(report.tensors.__getitem__, report.listed_noted_names())


def _write_inputs(out: Output, report: ckptparse.Report) -> None:
    """Write which files were read."""
    for one in report.inputs:
        out.record("input", escape(one.path), one.role, one.size, one.sha256 or "-")


def _write_maps(out: Output, report: ckptparse.Report) -> None:
    """Write what every range of the files is, and the bytes that were replaced."""
    for file in report.files.values():
        for part in file.ranges:
            out.record("range", escape(file.path), part.start, part.stop, part.kind)
    for patch in report.patches:
        old, new = patch.old, patch.new
        changed = patch.old_sha256, patch.new_sha256
        if old is not None and new is not None:
            changed = old.hex() or "-", new.hex()
        out.record("patch", escape(patch.path), patch.offset, patch.size, *changed)
