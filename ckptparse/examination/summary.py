"""Make a report of what was checked: problems, and the map of every file."""

from __future__ import annotations

import warnings
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence

from ckptparse.bundle.naming import shard_path
from ckptparse.dtypes import DataType
from ckptparse.errors import CheckpointError, PermissionDeniedError
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
from ckptparse.filenames import STATE_FILE_NAME
from ckptparse.graph.state import read_state
from ckptparse.inventory.folders import Folders
from ckptparse.inventory.listed import find_listed
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
_MOST_SHARDS = 10_000
"""Data files that a report lists even if they are not there. A header may state a million of them
(`Limits.shards`) and name one file; TensorFlow writes one for each device or host."""


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
    found += _state_problems(case)
    found += _iter_leftover_problems(case, files)
    found += _iter_rival_problems(case)
    found += _fingerprint_problems(case, files)
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
    paths += [path for path in case.survey.leftovers if ".data-" in path]
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
    if main is None or main.header is None or main.num_shards > _MOST_SHARDS:
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
        if part.payload is None:
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
    """Report an object graph that cannot be parsed, or that names values without an entry."""
    checked = case.tensors.get(OBJECT_GRAPH)
    if checked is None or graph is None:
        return
    if graph.status is not Status.VERIFIED:
        message = f"the object graph is {graph.status}"
        yield Problem.of("object_graph.damaged", case.survey.prefix, message)
        return
    try:
        missing = _missing_keys(case, checked)
    except CheckpointError as error:
        yield Problem.of("object_graph.damaged", case.survey.prefix, error.message)
        return
    if missing and case.main is not None and case.main.complete:
        yield Problem.of(
            "object_graph.damaged",
            case.survey.prefix,
            f"the object graph names {len(missing)} values that the index does not have, such as "
            f"{missing[0]!r}",
            severity=Severity.WARNING,
        )


def _missing_keys(case: Case, checked: CheckedTensor) -> list[str]:
    from ckptparse.bundle.strings import decode_strings
    from ckptparse.proto.parsing import parse_message
    from ckptparse.proto.trackable_object_graph_pb2 import TrackableObjectGraph

    payload = checked.parts[0].payload
    if payload is None or payload.data_type != DataType.DT_STRING:
        return []
    data = bytes(case.files.read(payload.file, payload.offset, payload.size))
    (text,) = decode_strings(data, 1, big_endian=payload.big_endian, crc=None)
    limits = case.context.limits
    graph = parse_message(TrackableObjectGraph, text, limits=limits, what="the object graph")
    keys = (attribute.checkpoint_key for node in graph.nodes for attribute in node.attributes)
    # Of tables and iterators, the attribute has only the beginning of their keys (section 7).
    names = sorted(case.tensors)
    return [key for key in keys if key and not _is_held(key, case.tensors, names)]


def _is_held(key: str, tensors: dict[str, CheckedTensor], names: list[str]) -> bool:
    if key in tensors:
        return True
    place = bisect_left(names, key)
    return place < len(names) and names[place].startswith(key)


def _state_problems(case: Case) -> list[Problem]:
    """Report a state file that cannot be read, or that names checkpoints which are not there."""
    directory, storage = case.survey.directory, case.context.storage
    path = storage.join(directory, STATE_FILE_NAME)
    if case.survey.saved_model is not None or not _is_file(case, path):
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = read_state(path, case.context)
    except PermissionDeniedError:
        return []
    except CheckpointError as error:
        return [Problem.of("state.damaged", path, error.message)]
    folders = Folders(case.context)
    absent = [one for one in state.newest_first() if find_listed(one, directory, folders) is None]
    if not absent:
        return []
    names = ", ".join(storage.split(one)[1] for one in absent[:3])
    message = f"the state file names {len(absent)} checkpoints that are not there: {names}"
    return [Problem.of("state.stale", path, message)]


def _is_file(case: Case, path: str) -> bool:
    found = case.context.storage.stat(path)
    return found is not None and found.kind == "file"


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


def _fingerprint_problems(case: Case, files: dict[str, FileReport]) -> list[Problem]:
    """Compare a SavedModel's fingerprint with its index."""
    folder = case.survey.saved_model
    path = case.context.storage.join(folder, "fingerprint.pb") if folder else ""
    if not folder or case.main is None or not _is_file(case, path):
        return []
    from ckptparse.proto.fingerprint_pb2 import FingerprintDef
    from ckptparse.proto.parsing import parse_message
    from ckptparse.saved_model.farmhash import fingerprint64

    limits = case.context.limits
    try:
        data = _read_whole(case, path)
        proto = parse_message(FingerprintDef, data, limits=limits, path=path)
        hashed = fingerprint64(_read_whole(case, case.main.path))
    except CheckpointError as error:
        return [Problem.of("fingerprint.damaged", path, error.message)]
    good = proto.checkpoint_hash in (0, hashed)
    kind = "verified" if good else "unverified"
    files[path] = FileReport(path, "fingerprint", len(data), (FileRange(0, len(data), kind),))
    if good:
        return []
    return [
        Problem.of(
            "fingerprint.mismatch",
            path,
            f"expected the hash {proto.checkpoint_hash} of the index, computed {hashed}",
        )
    ]


def _read_whole(case: Case, path: str) -> bytes:
    source = case.context.storage.open(path)
    try:
        case.context.limits.check("message_bytes", source.size, "The size of the file", path=path)
        return source.read_at(0, source.size)
    finally:
        source.close()
