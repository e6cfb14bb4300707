"""Reports of parts of a checkpoint: cut from that of the whole, and put together to it again."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from ckptparse.examination.inputs import HashedFile
from ckptparse.examination.outcome import Span, merge_spans
from ckptparse.examination.summary import sort_problems

if TYPE_CHECKING:
    from ckptparse.examination.report import FileRange, FileReport, Report

__all__ = ["merge_reports", "restrict"]

_NOT_READ = "unverified"
"""What a range is that no part has read yet."""
_PART, _PARTS = "part", "parts"
"""The options of a report that is one of several."""


def restrict(report: Report, names: set[str], spans: Mapping[str, Sequence[Span]]) -> Report:
    """Return what a report says of some tensors, and of what is no tensor's.

    Args:
        report: Of a whole checkpoint, the bytes of other tensors taken for right.
        names: The tensors; the name of the object graph stands for it.
        spans: Where their bytes lie, by data file.
    """
    graph = report.object_graph
    files = {
        path: _unread(file, merge_spans(list(spans.get(path, ()))))
        if file.role == "shard"
        else file
        for path, file in report.files.items()
    }
    return replace(
        report,
        tensors={name: report.tensors[name] for name in report.tensors if name in names},
        files=files,
        object_graph=graph if graph is not None and graph.name in names else None,
        others=(),
    )


def _unread(file: FileReport, own: Sequence[Span]) -> FileReport:
    """Call `unverified` what is right only because it was not looked at."""
    found: list[FileRange] = []
    for part in file.ranges:
        if part.kind != "verified":
            found.append(part)
            continue
        done = part.start
        for low, high in own:
            start, stop = max(low, part.start), min(high, part.stop)
            if start >= stop:
                continue
            if done < start:
                found.append(replace(part, start=done, stop=start, kind=_NOT_READ))
            found.append(replace(part, start=start, stop=stop))
            done = stop
        if done < part.stop:
            found.append(replace(part, start=done, kind=_NOT_READ))
    return replace(file, ranges=tuple(found))


def merge_reports(reports: Iterable[Report]) -> Report:
    """Put the reports of all parts together; see `Report.merge`."""
    given = list(reports)
    chosen = _all_of(given)
    if len(chosen) == 1:
        first = chosen[0]
        kept = {key: value for key, value in first.options.items() if key not in (_PART, _PARTS)}
        return replace(first, options=kept)
    first = chosen[0]
    tensors = {name: one for report in chosen for name, one in report.tensors.items()}
    problems = dict.fromkeys(problem for report in chosen for problem in report.problems)
    graphs = [report.object_graph for report in chosen if report.object_graph is not None]
    inputs: dict[str, HashedFile] = {one.path: one for report in chosen for one in report.inputs}
    return replace(
        first,
        tensors={name: tensors[name] for name in sorted(tensors, key=_stored)},
        files={
            path: _merge_file([report.files[path] for report in chosen if path in report.files])
            for path in dict.fromkeys(path for report in chosen for path in report.files)
        },
        problems=sort_problems(list(problems)),
        object_graph=graphs[0] if graphs else None,
        options={key: value for key, value in first.options.items() if key not in (_PART, _PARTS)},
        inputs=tuple(inputs.values()),
    )


def _stored(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _all_of(reports: Sequence[Report]) -> list[Report]:
    """Return one report of each part, in their order; raise unless all are there."""
    if not reports:
        raise ValueError("Expected the reports of all parts of a checkpoint, found none")
    wholes = {(one.path, one.format, one.options.get(_PARTS)) for one in reports}
    (path, _, count), *others = wholes
    if others:
        raise ValueError(
            f"Expected the parts of one checkpoint, found those of {path!r} and of "
            f"{others[0][0]!r}, or parts of different sizes"
        )
    if count is None:
        raise ValueError("Expected reports of Part.verify, found one of a whole checkpoint")
    found: dict[int, Report] = {}
    for one in reports:
        # An engine may do a part again whose worker it lost.
        found.setdefault(int(one.options[_PART]), one)
    missing = [number for number in range(count) if number not in found]
    if missing:
        raise ValueError(
            f"Expected the reports of {count} parts, found {len(found)}: that of part "
            f"{missing[0] + 1} is missing"
        )
    return [found[number] for number in range(count)]


def _merge_file(files: Sequence[FileReport]) -> FileReport:
    """Say of each byte what the part says that has read it."""
    first = files[0]
    if all(file.ranges == first.ranges for file in files):
        return first
    ranges = [part for file in files for part in file.ranges]
    edges = sorted({part.start for part in ranges} | {part.stop for part in ranges})
    return replace(first, ranges=tuple(_joined(_iter_ranges(files, edges))))


def _iter_ranges(files: Sequence[FileReport], edges: Sequence[int]) -> Iterator[FileRange]:
    starts = [[part.start for part in file.ranges] for file in files]
    for low, high in pairwise(edges):
        kinds: dict[str, FileRange] = {}
        for file, begins in zip(files, starts, strict=True):
            number = bisect_right(begins, low) - 1
            if number >= 0 and low < file.ranges[number].stop:
                part = file.ranges[number]
                kinds[part.kind] = replace(part, start=low, stop=high)
        told = [kind for kind in kinds if kind not in (_NOT_READ, "verified")]
        for kind in (*told, "verified", _NOT_READ):
            if kind in kinds:
                yield kinds[kind]
                break


def _joined(ranges: Iterable[FileRange]) -> list[FileRange]:
    joined: list[FileRange] = []
    for part in ranges:
        if joined and joined[-1].kind == part.kind and joined[-1].stop == part.start:
            joined[-1] = replace(joined[-1], stop=part.stop)
        else:
            joined.append(part)
    return joined
