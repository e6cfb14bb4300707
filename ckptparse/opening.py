"""From what a path means to an open checkpoint, and what to say where that fails.

The newest checkpoint that a state file names is taken or nothing is: where it is not whole, the
error names the newest that is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ckptparse.bundle.naming import INDEX_SUFFIX
from ckptparse.bundle.reader import BundleReader
from ckptparse.checkpoint import Backend, Checkpoint
from ckptparse.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    DataLossError,
    MissingShardError,
    TruncatedError,
)
from ckptparse.files.local import LocalSource
from ckptparse.limits import Limits
from ckptparse.resolve import Resolved, not_a_checkpoint, resolve_path

if TYPE_CHECKING:
    from ckptparse.graph.graph import Graph
    from ckptparse.saved_model.saved_model import SavedModel

__all__ = [
    "find_graph_beside",
    "find_newest_whole",
    "judge_model",
    "open_backend",
    "open_variables",
    "read_graph",
]

_SHARD = re.compile(r"-[\d?]+-of-\d+$")
"""What a V1 checkpoint of several files has behind its prefix."""

_JUDGED_BY_ITS_READER = ("v2-index", "truncated", "empty", "zeros", "unknown")


def open_backend(resolved: Resolved, *, limits: Limits) -> Backend:
    """Open what a path means.

    Raises:
        CheckpointNotFoundError: A state file names what is not there.
        NotACheckpointError: The index is something else.
        DataLossError: The checkpoint is damaged.
        UnsupportedError: It needs a newer reader.
        LimitError: It asks for more than the limits allow.
    """
    try:
        backend = _open(resolved, limits)
        if resolved.others and isinstance(backend, BundleReader):
            _check_files_exist(backend)
    except CheckpointError as error:
        other = find_newest_whole(resolved.others, limits=limits)
        if other is not None:
            error.hint = _join(error.hint, f"The newest whole one that is listed: {other}")
        raise
    return backend


def open_variables(model: SavedModel, *, verify: bool, limits: Limits) -> Checkpoint:
    """Open the variables of a SavedModel: an empty checkpoint where it has none.

    Raises:
        CheckpointNotFoundError: They are not there, and the model has some, or nobody can say.
        DataLossError: Their index is damaged.
    """
    from ckptparse.saved_model.no_variables import NoVariables

    prefix = os.path.join(model.path, "variables", "variables")
    if not os.path.isfile(prefix + INDEX_SUFFIX) and not _may_have_variables(model):
        return Checkpoint(NoVariables(), prefix, limits=limits)
    backend = open_backend(Resolved("v2", prefix), limits=limits)
    return Checkpoint(
        backend, prefix, verify=verify, limits=limits, graph=lambda: _first_graph(model)
    )


def find_graph_beside(path: str, *, limits: Limits) -> Graph | None:
    """Read the `.meta` beside a checkpoint; None if there is none.

    Raises:
        CheckpointError: It cannot be read.
    """
    from ckptparse.resolve import resolve_graph

    meta = _SHARD.sub("", path) + ".meta"
    if not os.path.isfile(meta):
        return None
    return read_graph(*resolve_graph(meta, limits=limits), limits=limits)


def _first_graph(model: SavedModel) -> Graph | None:
    """Return the graph of a SavedModel; of several that with the most: training knows more."""
    graphs = [meta_graph.graph for meta_graph in model.meta_graphs]
    return max(graphs, key=lambda graph: len(graph.nodes), default=None)


def judge_model(path: str, error: DataLossError, *, limits: Limits) -> CheckpointError:
    """Say what a `saved_model.pb` is that does not parse: damaged, or something else altogether."""
    from ckptparse.identification import identify

    identity = identify(path, limits=limits)
    if identity.kind in _JUDGED_BY_ITS_READER or identity.kind.startswith("saved-model"):
        if identity.kind == "truncated":
            error.hint = _join(error.hint, identity.advice)
        return error
    return not_a_checkpoint(identity, "a SavedModel")


def _may_have_variables(model: SavedModel) -> bool:
    try:
        return model.has_variables
    except CheckpointError:
        return True


def read_graph(path: str, kind: str, encoding: str, *, limits: Limits) -> Graph:
    """Read a file that holds a graph: `graph` or `meta-graph`, `binary` or `text`."""
    from ckptparse.graph.graph import Graph

    with LocalSource.open(path) as source:
        limits.check("message_bytes", source.size, "The size of the graph", path=path)
        data = source.read_at(0, source.size)
    is_meta = kind == "meta-graph"
    if encoding == "text":
        return Graph.from_text(data, is_meta=is_meta, limits=limits, path=path)
    decode = Graph.from_meta_graph if is_meta else Graph.from_graph_def
    return decode(data, limits=limits, path=path)


def find_newest_whole(paths: Iterable[str], *, limits: Limits) -> str | None:
    """Return the first of some checkpoints whose index can be read and whose data is all there."""
    return next((path for path in paths if _is_whole(path, limits)), None)


def _open(resolved: Resolved, limits: Limits) -> Backend:
    if resolved.absent_from is not None:
        raise CheckpointNotFoundError(
            f"The newest checkpoint that the state file names is not there: {resolved.path}",
            path=resolved.absent_from,
        )
    if resolved.format == "v1":
        return _open_legacy(resolved.files, limits)
    if resolved.format == "graph":
        from ckptparse.graph.backend import GraphBackend
        from ckptparse.resolve import resolve_graph

        graph = read_graph(*resolve_graph(resolved.path, limits=limits), limits=limits)
        return GraphBackend(graph, resolved.path)
    try:
        reader = BundleReader.open(resolved.path, limits=limits)
    except DataLossError as error:
        return _reconsider(resolved, error, limits)
    reader.explain_file = _explain_file
    return reader


def _open_legacy(files: tuple[str, ...], limits: Limits) -> Backend:
    from ckptparse.legacy.reader import LegacyReader

    try:
        return LegacyReader.open(files, limits=limits)
    except DataLossError as error:
        from ckptparse.identification import identify

        identity = identify(error.path or files[0], limits=limits)
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


def _reconsider(resolved: Resolved, error: DataLossError, limits: Limits) -> Backend:
    """Look into what is named as an index and is none: it may be a V1 file, or a web page."""
    from ckptparse.identification import identify

    identity = identify(resolved.path + INDEX_SUFFIX, limits=limits)
    if identity.kind == "v1":
        backend = _open(replace(resolved, format="v1", files=(identity.path,)), limits)
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


def _check_files_exist(reader: BundleReader) -> None:
    missing = [path for path in reader.files if not os.path.isfile(path)]
    if missing:
        reader.close()
        raise MissingShardError(
            f"Expected {reader.num_shards} data files, found {len(missing)} of them missing",
            path=missing[0],
        )


def _is_whole(path: str, limits: Limits) -> bool:
    try:
        resolved = resolve_path(path, limits=limits)
        backend = _open(resolved, limits)
    except CheckpointError:
        return False
    try:
        if isinstance(backend, BundleReader):
            _check_files_exist(backend)
            _check_sizes(backend)
    except CheckpointError:
        return False
    finally:
        backend.close()
    return True


def _check_sizes(reader: BundleReader) -> None:
    """Check that each data file is as long as the index says, by the end of its last tensor."""
    columns = reader.listing().columns
    # What is empty may lie beyond the end.
    ends = np.where(columns.sizes > 0, columns.offsets + columns.sizes, 0)
    for shard in np.unique(columns.shard_ids).tolist():
        path = reader.shard_path(shard)
        expected = int(ends[columns.shard_ids == shard].max())
        found = os.path.getsize(path)
        if found < expected:
            raise TruncatedError(f"Expected {expected} bytes of data, found {found}", path=path)


def _join(hint: str | None, more: str) -> str:
    return f"{hint}. {more}" if hint else more
