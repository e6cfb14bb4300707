"""What lies around the tensors: the object graph, the state file, the fingerprint."""

from __future__ import annotations

import warnings
from bisect import bisect_left
from collections.abc import Collection, Iterator

from ckptparse.dtypes import DataType, describe_data_type
from ckptparse.errors import CheckpointError, LimitError, MalformedError, PermissionDeniedError
from ckptparse.examination.check import read_record
from ckptparse.examination.payload import Payload
from ckptparse.examination.readers import DataFiles
from ckptparse.examination.report import FileRange, FileReport
from ckptparse.filenames import STATE_FILE_NAME
from ckptparse.files.context import Context
from ckptparse.graph.state import read_state
from ckptparse.inventory.folders import Folders
from ckptparse.inventory.listed import find_listed
from ckptparse.inventory.survey import Survey
from ckptparse.limits import Objects
from ckptparse.problems import Problem, Severity

__all__ = ["fingerprint_problems", "graph_problems", "state_problems"]


def graph_problems(
    prefix: str, files: DataFiles, payload: Payload, names: Collection[str], *, complete: bool
) -> Iterator[Problem]:
    """Report an object graph that cannot be parsed, or that names values without an entry.

    One of more objects than `Limits.objects` allows is not looked through, and it is said.

    Args:
        prefix: The checkpoint.
        files: Its data files.
        payload: The object graph's values, verified.
        names: Every name that the index has.
        complete: Whether that is all that the index ever had.
    """
    try:
        missing = _missing_keys(files, payload, names)
    except CheckpointError as error:
        if isinstance(error, LimitError) and error.limit == "objects":
            # Its bytes are whole, and tensors are read without it.
            message = f"The object graph was not compared with the index. {error.message}"
            yield Problem.of("limit.reached", prefix, message, severity=Severity.WARNING)
        else:
            yield Problem.of("object_graph.damaged", prefix, error.message)
        return
    if missing and complete:
        yield Problem.of(
            "object_graph.damaged",
            prefix,
            f"the object graph names {len(missing)} values that the index does not have, such as "
            f"{missing[0]!r}",
            severity=Severity.WARNING,
        )


def _missing_keys(files: DataFiles, payload: Payload, names: Collection[str]) -> list[str]:
    from ckptparse.bundle.strings import decode_strings
    from ckptparse.graph.object_graph import count_nodes
    from ckptparse.proto.parsing import parse_message
    from ckptparse.proto.trackable_object_graph_pb2 import TrackableObjectGraph

    if payload.data_type != DataType.DT_STRING or payload.shape:
        kind, shape = describe_data_type(payload.data_type), list(payload.shape)
        raise MalformedError(f"Expected a scalar string for the object graph, found {kind} {shape}")
    if payload.record is not None:
        (text,) = read_record(files, payload, payload.record)
    else:
        data = bytes(files.read(payload.file, payload.offset, payload.size))
        (text,) = decode_strings(data, 1, big_endian=payload.big_endian, crc=None)
    limits = files.context.limits
    graph = parse_message(TrackableObjectGraph, text, limits=limits, what="the object graph")
    count_nodes(graph.nodes, Objects(limits, len(text), held=lambda: files.held_bytes))
    keys = (attribute.checkpoint_key for node in graph.nodes for attribute in node.attributes)
    # Of tables and iterators, the attribute has only the beginning of their keys (section 7).
    absent = [key for key in keys if key and key not in names]
    if not absent:
        return []
    ordered = sorted(names)
    return [key for key in absent if not _begins_one(key, ordered)]


def _begins_one(key: str, names: list[str]) -> bool:
    """Tell whether one of the sorted names begins with a key."""
    place = bisect_left(names, key)
    return place < len(names) and names[place].startswith(key)


def state_problems(survey: Survey, context: Context) -> list[Problem]:
    """Report a state file that cannot be read, or that names checkpoints which are not there."""
    directory, storage = survey.directory, context.storage
    path = storage.join(directory, STATE_FILE_NAME)
    if survey.saved_model is not None or not _is_file(context, path):
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = read_state(path, context)
    except PermissionDeniedError:
        return []
    except CheckpointError as error:
        return [Problem.of("state.damaged", path, error.message)]
    folders = Folders(context)
    absent = [one for one in state.newest_first() if find_listed(one, directory, folders) is None]
    if not absent:
        return []
    names = ", ".join(storage.split(one)[1] for one in absent[:3])
    message = f"the state file names {len(absent)} checkpoints that are not there: {names}"
    return [Problem.of("state.stale", path, message)]


def _is_file(context: Context, path: str) -> bool:
    found = context.storage.stat(path)
    return found is not None and found.kind == "file"


def fingerprint_problems(
    survey: Survey, context: Context, index: str, files: dict[str, FileReport]
) -> list[Problem]:
    """Compare a SavedModel's fingerprint with its index."""
    folder = survey.saved_model
    path = context.storage.join(folder, "fingerprint.pb") if folder else ""
    if not folder or not _is_file(context, path):
        return []
    from ckptparse.proto.fingerprint_pb2 import FingerprintDef
    from ckptparse.proto.parsing import parse_message
    from ckptparse.saved_model.farmhash import fingerprint64

    limits = context.limits
    try:
        data = _read_whole(context, path)
        proto = parse_message(FingerprintDef, data, limits=limits, path=path)
        hashed = fingerprint64(_read_whole(context, index))
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


def _read_whole(context: Context, path: str) -> bytes:
    source = context.storage.open(path)
    try:
        context.limits.check("message_bytes", source.size, "The size of the file", path=path)
        return source.read_at(0, source.size)
    finally:
        source.close()
