"""From what was checked to a report: problems, and the map of every file."""

from __future__ import annotations

import os
import warnings
from collections import defaultdict
from collections.abc import Iterator

from ckptparse.dtypes import DataType
from ckptparse.errors import CheckpointError
from ckptparse.examination.case import Assessed, Case, Part
from ckptparse.examination.check import Check
from ckptparse.examination.index_view import OBJECT_GRAPH, Stored
from ckptparse.examination.report import FileRange, FileReport, Report, TensorReport
from ckptparse.files.local import LocalSource
from ckptparse.graph.state import STATE_FILE_NAME, find_listed, iter_newest_first, read_state
from ckptparse.problems import Cause, Problem, Severity, Status

__all__ = ["make_report", "sort_problems", "state_problems"]

_CODES = {
    Cause.ZEROS: "tensor.zeros",
    Cause.TRUNCATED: "tensor.truncated",
    Cause.ENTRY: "tensor.entry",
    Cause.NO_CHECKSUM: "tensor.no_checksum",
    Cause.SLICE: "slice.missing",
}


def make_report(case: Case, problems: list[Problem]) -> Report:
    """Sum up a V2 checkpoint: what its checks, its files and its surroundings tell."""
    tensors = {name: assessed.report() for name, assessed in case.tensors.items()}
    graph = tensors.pop(OBJECT_GRAPH, None)
    found = [*_iter_index_problems(case), *problems]
    files: dict[str, FileReport] = {}
    for view in case.views:
        if view.file is not None:
            files[view.path] = view.file
    found += _shard_problems(case, files)
    for assessed in case.tensors.values():
        found += _iter_tensor_problems(assessed)
    found += _iter_orphan_problems(case)
    found += _iter_graph_problems(case, graph)
    found += state_problems(case.survey.directory, case)
    found += _iter_leftover_problems(case, files)
    found += _fingerprint_problems(case, files)
    return Report(
        case.survey.prefix,
        "v2",
        _sorted(tensors),
        files,
        sort_problems(found),
        graph,
    )


def _sorted(tensors: dict[str, TensorReport]) -> dict[str, TensorReport]:
    return {
        name: tensors[name]
        for name in sorted(tensors, key=lambda name: name.encode("utf-8", "surrogateescape"))
    }


def sort_problems(problems: list[Problem]) -> tuple[Problem, ...]:
    """Put errors before warnings, what concerns files before what concerns tensors; no doubles."""
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
    """Report a broken index; that of a leftover only where tensors had to come from it."""
    main = case.main
    if main is None:
        message = "there is no index"
        if case.tensors:
            message += "; what the save left behind gave the tensors"
        else:
            message += _describe_unnamed(case)
        yield Problem.of("index.missing", f"{case.survey.prefix}.index", message)
    for view in case.views:
        for problem in view.problems:
            if view.leftover:
                yield Problem.of(
                    problem.code,
                    problem.where,
                    problem.message,
                    severity=None if main is None else Severity.WARNING,
                )
            else:
                yield problem
    if case.survey.leftovers and (main is None or case.unfinished):
        yield Problem.of(
            "set.unfinished",
            case.survey.prefix,
            "the save ended before it was done; its parts lie in temporary files",
        )


def _describe_unnamed(case: Case) -> str:
    """Say how much data there is that no index names."""
    paths = [*case.survey.data_files.values()]
    paths += [path for path in case.survey.leftovers if ".data-" in path]
    total = sum(os.path.getsize(path) for path in paths if os.path.isfile(path))
    if not total:
        return ""
    files = "1 data file" if len(paths) == 1 else f"{len(paths)} data files"
    return f", so nothing names the values in {files} of {total} bytes"


# ---------------------------------------------------------------------------------------- shards


def _shard_problems(case: Case, files: dict[str, FileReport]) -> list[Problem]:
    problems: list[Problem] = []
    by_path: dict[str, list[tuple[Stored, Check]]] = defaultdict(list)
    for part in _iter_parts(case):
        if part.stored is not None and not part.stored.entry.slices:
            by_path[part.stored.path].append((part.stored, part.check))
    for path in dict.fromkeys([*_expected_paths(case), *by_path]):
        stored = sorted(by_path.get(path, []), key=lambda pair: pair[0].entry.offset)
        size = case.files.size(path)
        files[path] = FileReport(path, "shard", size, tuple(_map_shard(stored, size)))
        failure = case.files.failure(path)
        if failure is not None and os.path.lexists(path):
            problems.append(Problem.of("file.unreadable", path, failure.message))
        elif size is None:
            problems.append(_missing_shard(stored, path))
        else:
            problems += _iter_layout_problems(path, stored, size)
    for path in case.survey.data_files.values():
        if path not in files:
            _add_unused(case, path, files)
    return problems


def _iter_parts(case: Case) -> Iterator[Part]:
    for assessed in case.tensors.values():
        yield from assessed.parts
    for _, _, part in case.orphans:
        yield part


def _expected_paths(case: Case) -> list[str]:
    """Return the data files that the index expects, those without a tensor included."""
    from ckptparse.bundle.naming import shard_path

    main = case.main
    if main is None or main.header is None:
        return []
    count = main.num_shards
    if count > 10_000:
        return []
    return [shard_path(case.survey.prefix, number, count) for number in range(count)]


def _missing_shard(stored: list[tuple[Stored, Check]], path: str) -> Problem:
    if stored:
        total = sum(pair[0].entry.size for pair in stored)
        message = f"it is not there; the index expects {len(stored)} tensors of {total} bytes in it"
        return Problem.of("shard.missing", path, message)
    return Problem.of(
        "shard.missing",
        path,
        "it is not there; no tensor is known to lie in it",
        severity=Severity.WARNING,
    )


def _iter_layout_problems(
    path: str, stored: list[tuple[Stored, Check]], size: int
) -> Iterator[Problem]:
    """Report gaps, overlaps, an early end and bytes after the last tensor."""
    end = 0
    for one, _ in stored:
        entry = one.entry
        if not entry.size:
            continue
        if entry.offset > end:
            yield Problem.of("shard.gap", path, f"{entry.offset - end} bytes at offset {end}")
        if entry.offset < end:
            yield Problem.of("shard.overlap", path, f"at offset {entry.offset}")
        end = max(end, entry.offset + entry.size)
    if end > size:
        yield Problem.of(
            "shard.truncated", path, f"it ends at byte {size}, and the index expects {end} bytes"
        )
    if stored and size > end:
        yield Problem.of(
            "shard.trailing", path, f"{size - end} bytes after the last tensor, which ends at {end}"
        )
    holes = sum(stop - start for _, check in stored for start, stop in check.holes)
    if holes:
        yield Problem.of("shard.zeros", path, f"{holes} bytes in runs of zeros")


def _map_shard(stored: list[tuple[Stored, Check]], size: int | None) -> Iterator[FileRange]:
    """Map a data file: runs of tensors in the same state are one range."""
    ranges: list[FileRange] = []
    position = 0
    for one, check in stored:
        start, stop = one.entry.offset, one.entry.offset + one.entry.size
        if start > position:
            ranges.append(FileRange(position, start, "unreferenced"))
        ranges += _map_payload(max(start, position), start, stop, check)
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
    """Call what lies beyond the end of the file absent."""
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


def _add_unused(case: Case, path: str, files: dict[str, FileReport]) -> None:
    size = case.files.size(path)
    whole = (FileRange(0, size, "unreferenced"),) if size else ()
    files[path] = FileReport(path, "shard", size, whole)


# --------------------------------------------------------------------------------------- tensors


def _iter_tensor_problems(assessed: Assessed) -> Iterator[Problem]:
    if assessed.layout is not None:
        yield Problem.of("slice.layout", assessed.name, assessed.layout)
    for part in assessed.parts:
        code = _code_of(part.check)
        if code is not None:
            yield Problem.of(code, assessed.name, part.check.note or str(part.check.status))


def _code_of(check: Check) -> str | None:
    if check.status is Status.VERIFIED:
        return None
    if check.cause in _CODES and check.cause is not None:
        if check.cause is Cause.ENTRY and check.status is Status.CORRUPT:
            return "tensor.checksum"
        return _CODES[check.cause]
    if check.status is Status.MISSING:
        return "tensor.missing"
    return "tensor.checksum" if check.computed is not None else "tensor.decode"


def _iter_orphan_problems(case: Case) -> Iterator[Problem]:
    for name, piece, _ in case.orphans:
        yield Problem.of("slice.orphan", name, f"slice {piece} is stored, and no tensor lists it")


# --------------------------------------------------------------------------- what lies around


def _iter_graph_problems(case: Case, graph: TensorReport | None) -> Iterator[Problem]:
    """Report an object graph that cannot be parsed, or names values that no entry holds."""
    assessed = case.tensors.get(OBJECT_GRAPH)
    if assessed is None or graph is None:
        return
    if graph.status is not Status.VERIFIED:
        yield Problem.of("object_graph.damaged", case.survey.prefix, f"it is {graph.status}")
        return
    try:
        missing = _missing_keys(case, assessed)
    except CheckpointError as error:
        yield Problem.of("object_graph.damaged", case.survey.prefix, error.message)
        return
    if missing and case.main is not None and case.main.complete:
        yield Problem.of(
            "object_graph.damaged",
            case.survey.prefix,
            f"it names {len(missing)} values that the index does not have: {missing[0]!r}",
            severity=Severity.WARNING,
        )


def _missing_keys(case: Case, assessed: Assessed) -> list[str]:
    from ckptparse.bundle.strings import decode_strings
    from ckptparse.proto.parsing import parse_message
    from ckptparse.proto.trackable_object_graph_pb2 import TrackableObjectGraph

    stored = assessed.parts[0].stored
    if stored is None or stored.entry.data_type != DataType.DT_STRING:
        return []
    data = bytes(case.files.read(stored.path, stored.entry.offset, stored.entry.size))
    (text,) = decode_strings(data, 1, big_endian=stored.big_endian, crc=None)
    graph = parse_message(TrackableObjectGraph, text, limits=case.limits, what="the object graph")
    keys = (attribute.checkpoint_key for node in graph.nodes for attribute in node.attributes)
    # A key may be the stem of several, as for tables and iterators.
    names = sorted(case.tensors)
    return [key for key in keys if key and not _is_held(key, case.tensors, names)]


def _is_held(key: str, tensors: dict[str, Assessed], names: list[str]) -> bool:
    from bisect import bisect_left

    if key in tensors:
        return True
    place = bisect_left(names, key)
    return place < len(names) and names[place].startswith(key)


def state_problems(directory: str, case: Case | None = None) -> list[Problem]:
    """Report a state file that cannot be read, or that names checkpoints not there."""
    path = os.path.join(directory, STATE_FILE_NAME)
    if not os.path.isfile(path) or (case is not None and case.survey.saved_model):
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = read_state(path)
    except CheckpointError as error:
        return [Problem.of("state.damaged", path, error.message)]
    absent = [one for one in iter_newest_first(state) if find_listed(directory, one) is None]
    if not absent:
        return []
    names = ", ".join(os.path.basename(one) for one in absent[:3])
    return [Problem.of("state.stale", path, f"it names {len(absent)} that are not there: {names}")]


def _iter_leftover_problems(case: Case, files: dict[str, FileReport]) -> Iterator[Problem]:
    for path in case.survey.leftovers:
        size = os.path.getsize(path) if os.path.isfile(path) else None
        whole = (FileRange(0, size, "unreferenced"),) if size else ()
        files.setdefault(path, FileReport(path, "leftover", size, whole))
    if case.survey.leftovers:
        count = len(case.survey.leftovers)
        names = ", ".join(os.path.basename(path) for path in case.survey.leftovers[:3])
        yield Problem.of(
            "leftover.temporary", case.survey.prefix, f"{count} temporary files: {names}"
        )


def _fingerprint_problems(case: Case, files: dict[str, FileReport]) -> list[Problem]:
    """Compare a SavedModel's fingerprint with its index."""
    folder = case.survey.saved_model
    path = os.path.join(folder, "fingerprint.pb") if folder else ""
    if not folder or not os.path.isfile(path) or case.main is None:
        return []
    from ckptparse.proto.fingerprint_pb2 import FingerprintDef
    from ckptparse.proto.parsing import parse_message

    try:
        with LocalSource.open(path) as source:
            case.limits.check("message_bytes", source.size, "The size of the fingerprint")
            data = source.read_at(0, source.size)
        proto = parse_message(FingerprintDef, data, limits=case.limits, path=path)
        hashed = _hash_index(case.main.path)
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
            f"it states {proto.checkpoint_hash} for the index, whose hash is {hashed}",
        )
    ]


def _hash_index(path: str) -> int:
    from ckptparse.saved_model.farmhash import fingerprint64

    with LocalSource.open(path) as source:
        return fingerprint64(source.read_at(0, source.size))
