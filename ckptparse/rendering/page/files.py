"""The files of a page: what each range is, with what was mended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ckptparse.errors import CheckpointError
from ckptparse.examination.outcome import Span, merge_spans
from ckptparse.examination.report import FileReport, Report
from ckptparse.files.context import Context
from ckptparse.problems import Status
from ckptparse.rendering.page.subject import Subject
from ckptparse.text import escape

__all__ = ["make_files", "number_files"]

_MOST_RANGES = 4000
_PATCHED = "patched"
_PATCHING = (Status.CORRECTED, Status.DERIVED)


def number_files(subject: Subject) -> dict[str, int]:
    """Give every file of a page a number, those of the report first."""
    report = subject.report
    names = [*(report.files if report is not None else ()), *subject.files]
    return {path: number for number, path in enumerate(dict.fromkeys(names))}


def make_files(subject: Subject, numbers: dict[str, int], context: Context) -> list[dict[str, Any]]:
    """Describe every file: role, size, and its ranges as (start, stop, kind)."""
    report = subject.report
    patched = dict(_patched(report)) if report is not None else {}
    return [_describe(subject, path, patched.get(path, ()), context) for path in numbers]


def _describe(
    subject: Subject, path: str, patched: tuple[Span, ...], context: Context
) -> dict[str, Any]:
    found = subject.report.files.get(path) if subject.report is not None else None
    if found is None:
        size = _size(path, context)
        return {"path": escape(path), "role": "file", "size": size, "ranges": []}
    ranges = list(_with_patches(found, patched))
    return {
        "path": escape(path),
        "role": found.role,
        "size": found.size,
        "ranges": ranges[:_MOST_RANGES],
        "more": max(0, len(ranges) - _MOST_RANGES),
    }


def _size(path: str, context: Context) -> int | None:
    try:
        found = context.storage.stat(path)
    except (CheckpointError, OSError):
        return None
    return None if found is None else found.size


def _patched(report: Report) -> Iterator[tuple[str, tuple[Span, ...]]]:
    """Iterate over files and the ranges in them of tensors that were mended."""
    spans: dict[str, list[Span]] = {}
    for tensor in report.tensors.values():
        if tensor.status in _PATCHING and tensor.source is not None:
            start = tensor.source.offset
            spans.setdefault(tensor.source.path, []).append((start, start + tensor.source.size))
    for path, listed in spans.items():
        yield path, merge_spans(listed)


def _with_patches(file: FileReport, patched: tuple[Span, ...]) -> Iterator[list[Any]]:
    """Iterate over a file's ranges, cut where patched ones begin and end."""
    pending = list(patched)
    for part in file.ranges:
        start = part.start
        while pending and pending[0][0] < part.stop:
            first, last = pending[0]
            if start < first:
                yield [start, first, part.kind]
            stop = min(last, part.stop)
            if max(start, first) < stop:
                yield [max(start, first), stop, _PATCHED]
            start = max(start, stop)
            if last > part.stop:
                break
            pending.pop(0)
        if start < part.stop:
            yield [start, part.stop, part.kind]
