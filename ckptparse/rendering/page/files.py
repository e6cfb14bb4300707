"""The files of a page: what each range is, with what was mended."""

from __future__ import annotations

from typing import Any

from ckptparse.errors import CheckpointError
from ckptparse.files.context import Context
from ckptparse.rendering.page.subject import Subject
from ckptparse.text import escape

__all__ = ["make_files", "number_files"]

_MOST_RANGES = 4000
"""Ranges of a file that are drawn: a screen has no more pixels. The page counts the rest."""


def number_files(subject: Subject) -> dict[str, int]:
    """Give every file of a page a number, those of the report first."""
    report = subject.report
    names = [*(report.files if report is not None else ()), *subject.files]
    return {path: number for number, path in enumerate(dict.fromkeys(names))}


def make_files(subject: Subject, numbers: dict[str, int], context: Context) -> list[dict[str, Any]]:
    """Describe every file: role, size, and its ranges as (start, stop, kind)."""
    return [_describe(subject, path, context) for path in numbers]


def _describe(subject: Subject, path: str, context: Context) -> dict[str, Any]:
    found = subject.report.files.get(path) if subject.report is not None else None
    if found is None:
        size = _size(path, context)
        return {"path": escape(path), "role": "file", "size": size, "ranges": []}
    ranges = [[part.start, part.stop, part.kind] for part in found.ranges]
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
