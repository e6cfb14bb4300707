"""Make a report of what was checked: problems, and the map of every file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from ckptparse.errors import PermissionDeniedError
from ckptparse.examination.around import fingerprint_problems, graph_problems, state_problems
from ckptparse.examination.case import Case, CheckedTensor, Part
from ckptparse.examination.check import Check
from ckptparse.examination.index_view import OBJECT_GRAPH
from ckptparse.examination.readers import DataFile
from ckptparse.examination.report import (
    FileRange,
    FileReport,
    OtherCheckpoint,
    Report,
    TensorReport,
)
from ckptparse.filenames import is_data_file, shard_path
from ckptparse.inventory.survey import Origin
from ckptparse.problems import Cause, Problem, Severity, Status
from ckptparse.text import count

__all__ = ["make_report", "sort_problems", "sort_tensors"]

_CODES = {
    Cause.ZEROS: "tensor.zeros",
    Cause.TRUNCATED: "tensor.truncated",
    Cause.ENTRY: "tensor.entry",
    Cause.NO_CHECKSUM: "tensor.no_checksum",
    Cause.SLICE: "slice.missing",
}
MOST_SHARDS = 10_000
"""Data files that a report lists even if they are not there. A header may state a million of them
(`Limits.shards`) and name one file; TensorFlow writes one for each device or host."""
_FEW = 5
"""Names that a message lists."""


def make_report(
    case: Case, problems: Sequence[Problem], others: Sequence[OtherCheckpoint] = ()
) -> Report:
    """Make the report of a checkpoint: of its tensors, its files, and what is beside them."""
    tensors = {name: checked.report() for name, checked in case.tensors.items()}
    graph = tensors.pop(OBJECT_GRAPH, None)
    found = [*_iter_index_problems(case), *problems]
    files: dict[str, FileReport] = {}
    for view in case.views:
        files.update(view.files)
    found += _shard_problems(case, files)
    for checked in case.tensors.values():
        found += _iter_tensor_problems(checked)
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
        sort_tensors(tensors),
        files,
        sort_problems(found),
        graph,
        tuple(others),
    )


def sort_tensors(tensors: dict[str, TensorReport]) -> dict[str, TensorReport]:
    """Sort by the bytes of the names, as an index is sorted."""
    return {
        name: tensors[name]
        for name in sorted(tensors, key=lambda name: name.encode("utf-8", "surrogateescape"))
    }


def sort_problems(problems: list[Problem]) -> tuple[Problem, ...]:
    """Put errors before warnings, and problems of files before those of tensors; drop repeats."""
    unique = dict.fromkeys(problems)
    return tuple(
        sorted(
            unique,
            key=lambda problem: (
                problem.severity is not Severity.ERROR,
                problem.code.startswith(("tensor.", "slice.")),
            ),
        )
    )


# ----------------------------------------------------------------------------------------- index


def _iter_index_problems(case: Case) -> Iterator[Problem]:
    """Report a damaged index; of a leftover index an error only if there is no other index."""
    if case.absent is not None:
        message = "there is no index"
        if any(view.origin is Origin.REBUILT for view in case.views):
            message += "; one was rebuilt from other evidence"
        elif case.tensors:
            message += "; the tensors come from temporary files of the save"
        else:
            message += _describe_unnamed(case)
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


def _describe_unnamed(case: Case) -> str:
    """Say how much data there is that no index names."""
    paths = [*case.survey.data_files.values()]
    paths += [path for path in case.survey.leftovers if is_data_file(path)]
    total = sum(case.files.size(DataFile(path)) or 0 for path in paths)
    if not total:
        return ""
    files = count(len(paths), "data file")
    return f", so the tensors in {files} of {count(total, 'byte')} have no names"


# ---------------------------------------------------------------------------------------- shards


def _shard_problems(case: Case, files: dict[str, FileReport]) -> list[Problem]:
    """Judge and map the data files: all files that hold payloads and are no index."""
    problems: list[Problem] = []
    by_path: dict[str, list[Part]] = defaultdict(list)
    for _, part in case.parts():
        if part.payload is not None and part.payload.file.path not in files:
            by_path[part.payload.file.path].append(part)
    for path in dict.fromkeys([*_expected_paths(case), *by_path]):
        parts = sorted(by_path.get(path, []), key=_offset)
        size = case.files.size(DataFile(path))
        files[path] = FileReport(path, "shard", size, tuple(_map_shard(parts, size)))
        failure = case.files.failure(DataFile(path))
        if failure is not None and _is_something(case, path):
            problems.append(Problem.of("file.unreadable", path, failure.message))
        elif size is None:
            problems.append(_missing_shard(parts, path))
        else:
            problems += _iter_layout_problems(path, parts, size)
    for path in case.survey.data_files.values():
        if path not in files:
            _add_unused(case, path, "shard", files)
    return problems


def _offset(part: Part) -> int:
    return part.payload.offset if part.payload else 0


def _expected_paths(case: Case) -> list[str]:
    """Return the data files that the index expects, also those without a tensor."""
    main = case.main
    if main is None or main.header is None or main.num_shards > MOST_SHARDS:
        return []
    shards = main.num_shards
    return [shard_path(case.survey.prefix, number, shards) for number in range(shards)]


def _missing_shard(parts: Sequence[Part], path: str) -> Problem:
    if parts:
        total = sum(part.payload.size for part in parts if part.payload)
        message = (
            f"the file is not there; the index expects {count(len(parts), 'tensor')} in it, "
            f"{count(total, 'byte')}"
        )
        return Problem.of("shard.missing", path, message)
    return Problem.of(
        "shard.missing",
        path,
        "the file is not there; no known tensor is in it",
        severity=Severity.WARNING,
    )


def _iter_layout_problems(path: str, parts: Sequence[Part], size: int) -> Iterator[Problem]:
    """Report gaps, overlaps, an early end and bytes after the last tensor."""
    end = 0
    for payload in [part.payload for part in parts if part.payload and part.payload.size]:
        if payload.offset > end:
            message = f"no tensor uses the {payload.offset - end} bytes at offset {end}"
            yield Problem.of("shard.gap", path, message)
        if payload.offset < end:
            message = f"two tensors use the bytes at offset {payload.offset}"
            yield Problem.of("shard.overlap", path, message)
        end = max(end, payload.end)
    if end > size:
        message = f"the index expects {end} bytes, and the file has {size}"
        yield Problem.of("shard.truncated", path, message)
    if parts and size > end:
        message = f"the last tensor ends at byte {end}, and {size - end} bytes follow it"
        yield Problem.of("shard.trailing", path, message)
    holes = sum(stop - start for part in parts for start, stop in part.check.holes)
    if holes:
        message = f"{holes} bytes of damaged tensors are in runs of zeros"
        yield Problem.of("shard.zeros", path, message)


def _map_shard(parts: Sequence[Part], size: int | None) -> Iterator[FileRange]:
    """Map a data file. Tensors in the same state that lie end to end are one range."""
    ranges: list[FileRange] = []
    position = 0
    for part in parts:
        # An empty tensor has no bytes, so its offset may be anything.
        if part.payload is None or not part.payload.size:
            continue
        start, stop = part.payload.offset, part.payload.end
        if start > position:
            ranges.append(FileRange(position, start, "unreferenced"))
        ranges += _map_payload(max(start, position), start, stop, part.check)
        position = max(position, stop)
    if size is not None and position < size:
        ranges.append(FileRange(position, size, "unreferenced"))
    yield from _join(_cut(ranges, size or 0))


def _map_payload(first: int, start: int, stop: int, check: Check) -> list[FileRange]:
    kind = {
        Status.VERIFIED: "verified",
        Status.UNVERIFIED: "unverified",
        Status.PARTIAL: "unverified",
    }.get(check.status, "bad")
    ranges: list[FileRange] = []
    position = first
    for hole_start, hole_stop in check.holes:
        low, high = max(position, start + hole_start), start + hole_stop
        if low < high:
            ranges += [FileRange(position, low, kind), FileRange(low, high, "zeros")]
            position = high
    return [*ranges, FileRange(position, stop, kind)]


def _cut(ranges: list[FileRange], size: int) -> Iterator[FileRange]:
    """Mark what is beyond the end of the file as `absent`."""
    for part in ranges:
        if part.start < min(part.stop, size):
            yield FileRange(part.start, min(part.stop, size), part.kind)
        if max(part.start, size) < part.stop:
            yield FileRange(max(part.start, size), part.stop, "absent")


def _join(ranges: Iterator[FileRange]) -> Iterator[FileRange]:
    waiting: FileRange | None = None
    for part in ranges:
        if waiting and waiting.kind == part.kind and waiting.stop == part.start:
            waiting = FileRange(waiting.start, part.stop, part.kind)
            continue
        if waiting:
            yield waiting
        waiting = part
    if waiting:
        yield waiting


def _add_unused(case: Case, path: str, role: str, files: dict[str, FileReport]) -> None:
    """Map a file that nothing refers to."""
    size = case.files.size(DataFile(path))
    whole = (FileRange(0, size, "unreferenced"),) if size else ()
    files.setdefault(path, FileReport(path, role, size, whole))


# --------------------------------------------------------------------------------------- tensors


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
    if check.cause in _CODES and check.cause is not None:
        if check.cause is Cause.ENTRY and check.status is Status.CORRUPT:
            return "tensor.checksum"
        return _CODES[check.cause]
    if check.status is Status.MISSING:
        return "tensor.missing"
    return "tensor.checksum" if check.computed is not None else "tensor.decode"


def _iter_orphan_problems(case: Case) -> Iterator[Problem]:
    for name, piece, _ in case.orphans:
        yield Problem.of("slice.orphan", name, f"slice {piece} is stored, but no tensor lists it")


# --------------------------------------------------------------------------- what lies around


def _iter_graph_problems(case: Case, graph: TensorReport | None) -> Iterator[Problem]:
    """Report an object graph that is damaged, or that says what cannot be."""
    checked = case.tensors.get(OBJECT_GRAPH)
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


def _is_something(case: Case, path: str) -> bool:
    """Tell whether there is anything at a path, even a link to nothing."""
    try:
        return case.context.storage.stat(path) is not None
    except PermissionDeniedError:
        return True


def _iter_leftover_problems(case: Case, files: dict[str, FileReport]) -> Iterator[Problem]:
    leftovers = case.survey.leftovers
    for path in leftovers:
        _add_unused(case, path, "leftover", files)
    if leftovers:
        names = ", ".join(case.context.storage.split(path)[1] for path in leftovers[:3])
        message = f"a save left {count(len(leftovers), 'temporary file')}: {names}"
        yield Problem.of("leftover.temporary", case.survey.prefix, message)


def _iter_rival_problems(case: Case) -> Iterator[Problem]:
    """Report tensors that have different values in different parts of a save."""
    for name, rivals in case.rivals.items():
        paths = [one.tensor.payload.index for one in rivals if one.tensor.payload is not None]
        names = ", ".join(case.context.storage.split(path)[1] for path in paths)
        message = f"{len(rivals)} parts of the save have different values of it: {names}"
        yield Problem.of("leftover.conflict", name, message)
