"""From what a path means to an open checkpoint, and what to say where that fails.

The newest checkpoint that a state file names is taken or nothing is: where it is not whole, the
error names the newest that is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ckptparse.backend import Backend, HeldTensors
from ckptparse.bundle.naming import INDEX_SUFFIX, encode_name
from ckptparse.bundle.reader import BundleReader
from ckptparse.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    DataLossError,
    MissingShardError,
    TruncatedError,
)
from ckptparse.files.context import Context
from ckptparse.files.storage import is_file
from ckptparse.resolve import Resolved, not_a_checkpoint, resolve_path

if TYPE_CHECKING:
    from ckptparse.graph.graph import Graph

__all__ = [
    "GraphBeside",
    "find_newest_whole",
    "judge_saved_model",
    "open_backend",
    "read_graph",
]

_SHARD = re.compile(r"-[\d?]+-of-\d+$")
"""What a V1 checkpoint of several files has behind its prefix."""

_JUDGED_BY_ITS_READER = ("v2-index", "truncated", "empty", "zeros", "unknown")


def open_backend(resolved: Resolved, context: Context) -> Backend:
    """Open what a path means.

    Raises:
        CheckpointNotFoundError: A state file names what is not there.
        NotACheckpointError: The index is something else.
        DataLossError: The checkpoint is damaged.
        UnsupportedError: It needs a newer reader.
        LimitError: It asks for more than the limits allow.
    """
    try:
        backend = _open(resolved, context)
        if resolved.others:
            _check_files_exist(backend, context)
    except CheckpointError as error:
        other = find_newest_whole(resolved.others, context)
        if other is not None:
            error.hint = _join(error.hint, f"The newest whole one that is listed: {other}")
        raise
    return backend


@dataclass(frozen=True, slots=True)
class GraphBeside:
    """The `.meta` beside a checkpoint, read if somebody asks."""

    path: str
    """Of the checkpoint."""
    context: Context

    def find_training_graph(self) -> Graph | None:
        """Read it; None if there is none.

        Raises:
            CheckpointError: It cannot be read.
        """
        from ckptparse.resolve import resolve_graph

        meta = _SHARD.sub("", self.path) + ".meta"
        if not is_file(self.context.storage, meta):
            return None
        found = resolve_graph(meta, limits=self.context.limits)
        return read_graph(*found, self.context)


def judge_saved_model(path: str, error: DataLossError, context: Context) -> CheckpointError:
    """Say what a `saved_model.pb` is that does not parse: damaged, or something else altogether."""
    from ckptparse.identification import identify

    identity = identify(path, limits=context.limits)
    if identity.kind in _JUDGED_BY_ITS_READER or identity.kind.startswith("saved-model"):
        if identity.kind == "truncated":
            error.hint = _join(error.hint, identity.advice)
        return error
    return not_a_checkpoint(identity, "a SavedModel")


def read_graph(path: str, kind: str, encoding: str, context: Context) -> Graph:
    """Read a file that holds a graph: `graph` or `meta-graph`, `binary` or `text`."""
    from ckptparse.graph.graph import Graph

    data = context.read_whole(path, "message_bytes", "The size of the graph")
    is_meta = kind == "meta-graph"
    if encoding == "text":
        return Graph.from_text(data, is_meta=is_meta, limits=context.limits, path=path)
    decode = Graph.from_meta_graph if is_meta else Graph.from_graph_def
    return decode(data, limits=context.limits, path=path)


def find_newest_whole(paths: Iterable[str], context: Context) -> str | None:
    """Return the first of some checkpoints whose index can be read and whose data is all there."""
    return next((path for path in paths if _is_whole(path, context)), None)


def _open(resolved: Resolved, context: Context) -> Backend:
    if resolved.absent_from is not None:
        raise CheckpointNotFoundError(
            f"The newest checkpoint that the state file names is not there: {resolved.path}",
            path=resolved.absent_from,
        )
    if resolved.format == "v1":
        return _open_legacy(resolved.files, context)
    if resolved.format == "graph":
        from ckptparse.resolve import resolve_graph

        found = resolve_graph(resolved.path, limits=context.limits)
        graph = read_graph(*found, context)
        names = sorted(graph.constants, key=encode_name)
        tensors = {name: graph.constants[name] for name in names}
        limits, held = context.limits, graph.nbytes
        return HeldTensors("graph", (resolved.path,), tensors, limits=limits, held=held)
    try:
        reader = BundleReader.open(resolved.path, context)
    except DataLossError as error:
        return _reconsider(resolved, error, context)
    reader.shards.explain_file = _explain_file
    return reader


def _open_legacy(files: tuple[str, ...], context: Context) -> Backend:
    from ckptparse.legacy.reader import LegacyReader

    try:
        return LegacyReader.open(files, context)
    except DataLossError as error:
        from ckptparse.identification import identify

        identity = identify(error.path or files[0], limits=context.limits)
        if identity.kind in ("v1", *_JUDGED_BY_ITS_READER) and identity.kind != "truncated":
            raise
        raise not_a_checkpoint(identity) from error


def _explain_file(path: str) -> str | None:
    """Say what lies in place of a data file; None where it may be one that is too short."""
    from ckptparse.identification import identify

    identity = identify(path)
    if identity.kind in ("v2-shard", "unknown") or identity.detail.get("of") == "v2-shard":
        return None
    return f"It is {identity.meaning}. {identity.advice}"


def _reconsider(resolved: Resolved, error: DataLossError, context: Context) -> Backend:
    """Look into what is named as an index and is none: it may be a V1 file, or a web page."""
    from ckptparse.identification import identify

    identity = identify(resolved.path + INDEX_SUFFIX, limits=context.limits)
    if identity.kind == "v1":
        backend = _open(replace(resolved, format="v1", files=(identity.path,)), context)
        if backend.shapes():
            return backend
        # A damaged header can look like an empty list of tensors, and then all would seem well.
        backend.close()
        raise error
    if identity.kind not in _JUDGED_BY_ITS_READER:
        raise not_a_checkpoint(identity) from error
    if identity.kind != "v2-index":
        error.hint = _join(error.hint, identity.advice)
    raise error


def _check_files_exist(backend: Backend, context: Context) -> None:
    missing = [path for path in backend.files if not is_file(context.storage, path)]
    if missing:
        backend.close()
        raise MissingShardError(
            f"Expected {backend.num_shards} data files, found {len(missing)} of them missing",
            path=missing[0],
        )


def _is_whole(path: str, context: Context) -> bool:
    try:
        resolved = resolve_path(path, limits=context.limits)
        backend = _open(resolved, context)
    except CheckpointError:
        return False
    try:
        _check_files_exist(backend, context)
        _check_sizes(backend, context)
    except CheckpointError:
        return False
    finally:
        backend.close()
    return True


def _check_sizes(backend: Backend, context: Context) -> None:
    """Check that each data file is as long as the index says, by the end of its last tensor."""
    for path, expected in backend.data_sizes().items():
        status = context.storage.stat(path)
        found = 0 if status is None else status.size
        if found < expected:
            raise TruncatedError(f"Expected {expected} bytes of data, found {found}", path=path)


def _join(hint: str | None, more: str) -> str:
    return f"{hint}. {more}" if hint else more
