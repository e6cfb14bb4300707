"""Make a report of what was checked: tensors, problems, and the maps of files (`file_maps`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from ckptparse.backend import OBJECT_GRAPH_KEY
from ckptparse.examination.around import fingerprint_problems, graph_problems, state_problems
from ckptparse.examination.case import Case, CheckedTensor
from ckptparse.examination.check import Check
from ckptparse.examination.failed_rows import FailedRows
from ckptparse.examination.file_maps import add_unused, map_files
from ckptparse.examination.readers import DataFile
from ckptparse.examination.report import (
    ExaminedTensors,
    FileReport,
    OtherCheckpoint,
    Report,
    TensorReport,
)
from ckptparse.filenames import is_data_file
from ckptparse.inventory.survey import Origin
from ckptparse.problems import Cause, Problem, Severity, Status
from ckptparse.text import clean, count

__all__ = ["make_report", "sort_names", "sort_problems"]

IntColumn = npt.NDArray[np.int64]

_CODES = {
    Cause.ZEROS: "tensor.zeros",
    Cause.TRUNCATED: "tensor.truncated",
    Cause.ENTRY: "tensor.entry",
    Cause.NO_CHECKSUM: "tensor.no_checksum",
    Cause.SLICE: "slice.missing",
}
_MOST_TOLD = 10_000
"""Rows that have failed of which each has a problem of its own: one problem counts the others.
Every tensor's report says what is wrong with it."""
_FEW = 5
"""Names that a message lists."""


def make_report(
    case: Case, problems: Sequence[Problem], others: Sequence[OtherCheckpoint] = ()
) -> Report:
    """Make the report of a checkpoint: of its tensors, its files, and what is beside them."""
    known = case.tensors.get(OBJECT_GRAPH_KEY)
    graph = None if known is None else known.report()
    found = [*_iter_index_problems(case), *problems]
    files: dict[str, FileReport] = {}
    for view in case.views:
        files.update(view.files)
    found += map_files(case, files)
    found += _iter_tensors_problems(case)
    found += _iter_orphan_problems(case)
    found += _iter_graph_problems(case, graph)
    found += state_problems(case.survey, case.context)
    found += _iter_leftover_problems(case, files)
    found += _iter_rival_problems(case)
    if case.main is not None:
        found += fingerprint_problems(case.survey, case.context, case.main.path, files)
    return Report(
        case.survey.prefix,
        case.survey.format,
        _report_tensors(case),
        files,
        sort_problems(found),
        graph,
        tuple(others),
        names_all=case.main is not None and case.main.complete,
        limits=case.context.limits,
        left_out=case.left_out,
    )


def _report_tensors(case: Case) -> Mapping[str, TensorReport]:
    """Report the tensors, sorted by the bytes of their names, as an index is sorted."""
    order = sort_names(name for name in case.tensors if name != OBJECT_GRAPH_KEY)
    if case.sound is None:
        return {name: case.tensors[name].report() for name in order}
    make = RowReports(case.tensors.make)
    tensors = case.tensors.remade(make, lambda _, one: one.report(), order)
    statuses = Counter({Status.VERIFIED: len(case.sound.names)})
    if case.failed is None:
        return ExaminedTensors(tensors, statuses)
    statuses.update(case.failed.statuses())
    numbers = np.flatnonzero(~case.failed.good).tolist()
    return ExaminedTensors(tensors, statuses, [case.failed.names[one] for one in numbers])


@dataclass(frozen=True, slots=True)
class RowReports:
    """Makes the reports of rows."""

    make: Callable[[str, int], CheckedTensor]

    def __call__(self, name: str, row: int) -> TensorReport:
        return self.make(name, row).report()


def sort_names(names: Iterable[str]) -> list[str]:
    """Sort by the bytes of the names, as an index is sorted."""
    listed = list(names)
    if "".join(listed).isascii():
        return sorted(listed)
    return sorted(listed, key=lambda name: name.encode("utf-8", "surrogateescape"))


def sort_problems(problems: list[Problem]) -> tuple[Problem, ...]:
    """Put errors before warnings, and problems of files before those of tensors; drop repeats."""
    ranked: tuple[list[Problem], ...] = ([], [], [], [])
    codes: dict[str, int] = {}
    for problem in dict.fromkeys(problems):
        rank = codes.get(problem.code)
        if rank is None:
            rank = codes[problem.code] = problem.code.startswith(("tensor.", "slice."))
        ranked[rank if problem.severity is Severity.ERROR else 2 + rank].append(problem)
    return tuple(chain.from_iterable(ranked))


# ----------------------------------------------------------------------------------------- index


def _iter_index_problems(case: Case) -> Iterator[Problem]:
    """Report a damaged index; of a leftover index an error only if there is no other index."""
    if case.absent is not None:
        message = f"there is no index{_describe_rebuilt(case)}"
        yield Problem.of("index.missing", case.absent, message)
    for view in case.views:
        for problem in view.problems:
            if view.origin.is_leftover and case.main is not None:
                yield Problem.of(
                    problem.code, problem.where, problem.message, severity=Severity.WARNING
                )
            else:
                yield problem
    if case.survey.leftovers and (case.main is None or case.unfinished):
        yield Problem.of(
            "set.unfinished",
            case.survey.prefix,
            "the save ended before it was done; its parts are in temporary files",
        )


def _describe_rebuilt(case: Case) -> str:
    """Say where the tensors come from if not from an index under its final name."""
    rebuilt = [view for view in case.views if view.origin is Origin.REBUILT]
    if any(name.tensor != OBJECT_GRAPH_KEY for view in rebuilt for name, _ in view.iter_payloads()):
        return "; one was rebuilt from other evidence"
    if rebuilt:
        return "; of its tensors an object graph tells the names, and nothing the places"
    if case.tensors:
        return "; the tensors come from temporary files of the save"
    return _describe_unnamed(case)


def _describe_unnamed(case: Case) -> str:
    """Say how much data there is that no index names."""
    paths = [*case.survey.data_files.values()]
    paths += [path for path in case.survey.leftovers if is_data_file(path)]
    total = sum(case.files.size(DataFile(path)) or 0 for path in paths)
    if not total:
        return ""
    files = count(len(paths), "data file")
    return f", so the tensors in {files} of {count(total, 'byte')} have no names"


# --------------------------------------------------------------------------------------- tensors


def _iter_tensors_problems(case: Case) -> Iterator[Problem]:
    """Iterate over what is wrong with tensors, in the order of the index."""
    failed = case.failed
    if failed is None:
        for checked in case.tensors.held.values():
            yield from _iter_tensor_problems(checked)
        return
    numbers = np.flatnonzero(~failed.good)
    told = _problems_of_rows(failed, numbers[:_MOST_TOLD])
    for name in case.tensors.doubtful_names(failed.numbers):
        held = case.tensors.held.get(name)
        if held is not None:
            yield from _iter_tensor_problems(held)
        elif name in told:
            yield told[name]
    if len(numbers) > len(told):
        more = count(len(numbers) - len(told), "more tensor")
        message = f"{more} failed; `tensors` of the report has what is wrong with each"
        yield Problem.of("tensor.checksum", case.survey.prefix, message)


def _problems_of_rows(failed: FailedRows, numbers: IntColumn) -> dict[str, Problem]:
    """Return what is wrong with some rows that have failed, by name."""
    # A sentence that was found later is about many rows, and names files.
    cleaned = {note: clean(note) for note in failed.said}
    codes = failed.codes_of(numbers, _code_of_status)
    rows = zip(numbers.tolist(), codes, failed.notes_of(numbers), strict=True)
    return {
        failed.names[number]: Problem(
            code, Severity.ERROR, failed.names[number], cleaned.get(note, note)
        )
        for number, code, note in rows
    }


def _iter_tensor_problems(checked: CheckedTensor) -> Iterator[Problem]:
    if checked.layout is not None:
        yield Problem.of("slice.layout", checked.name, checked.layout)
    for part in checked.parts:
        code = _code_of(part.check)
        if code is not None:
            note = part.check.outcome.note or str(part.check.status)
            yield Problem.of(code, checked.name, note)


def _code_of(check: Check) -> str | None:
    if check.status is Status.VERIFIED:
        return None
    if check.code is not None:
        return check.code
    return _code_of_status(check.status, check.cause, there=check.computed is not None)


def _code_of_status(status: Status, cause: Cause | None, *, there: bool) -> str:
    """Return the code of what is not verified; `there` tells whether a checksum was computed."""
    if cause in _CODES and cause is not None:
        if cause is Cause.ENTRY and status is Status.CORRUPT:
            return "tensor.checksum"
        return _CODES[cause]
    if status is Status.MISSING:
        return "tensor.missing"
    return "tensor.checksum" if there else "tensor.decode"


def _iter_orphan_problems(case: Case) -> Iterator[Problem]:
    for name, piece, _ in case.orphans:
        yield Problem.of("slice.orphan", name, f"slice {piece} is stored, but no tensor lists it")


# --------------------------------------------------------------------------- what lies around


def _iter_graph_problems(case: Case, graph: TensorReport | None) -> Iterator[Problem]:
    """Report an object graph that is damaged, or that says what cannot be."""
    checked = case.tensors.get(OBJECT_GRAPH_KEY)
    if checked is None or graph is None:
        return
    for view in case.views:
        if view.unplaced:
            first = ", ".join(repr(name) for name in view.unplaced[:_FEW])
            more = ", ..." if len(view.unplaced) > _FEW else ""
            what = f"it names {len(view.unplaced)} values of which nothing tells the place"
            yield Problem.of("object_graph.damaged", case.survey.prefix, f"{what}: {first}{more}")
    if graph.status is not Status.VERIFIED:
        message = f"the object graph is {graph.status}"
        yield Problem.of("object_graph.damaged", case.survey.prefix, message)
        return
    payload = checked.parts[0].payload
    if payload is not None:
        complete = case.main is not None and case.main.complete
        prefix, names = case.survey.prefix, case.tensors.keys()
        yield from graph_problems(prefix, case.files, payload, names, complete=complete)


def _iter_leftover_problems(case: Case, files: dict[str, FileReport]) -> Iterator[Problem]:
    leftovers = case.survey.leftovers
    for path in leftovers:
        add_unused(case, path, "leftover", files)
    if leftovers:
        names = ", ".join(case.context.storage.split(path)[1] for path in leftovers[:3])
        many = count(len(leftovers), "temporary file")
        message = f"a save left {many}: {names}"
        if case.survey.more_leftovers:
            message = f"a save left more than {many}, of which so many were looked at: {names}"
        yield Problem.of("leftover.temporary", case.survey.prefix, message)


def _iter_rival_problems(case: Case) -> Iterator[Problem]:
    """Report tensors that have different values in different parts of a save."""
    for name, rivals in case.rivals.items():
        paths = [one.tensor.payload.index for one in rivals if one.tensor.payload is not None]
        names = ", ".join(case.context.storage.split(path)[1] for path in paths)
        message = f"{len(rivals)} parts of the save have different values of it: {names}"
        yield Problem.of("leftover.conflict", name, message)
