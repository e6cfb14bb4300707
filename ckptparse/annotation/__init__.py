"""What each byte of a file is, for those who look at formats byte by byte.

Tables, data files and messages are taken apart as far as they can be read. This is no reader:
nothing here checks a tensor's checksum, and what is broken is marked rather than raised.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from importlib import import_module
from typing import TYPE_CHECKING

from ckptparse.annotation.messages import GROUP, annotate_message
from ckptparse.annotation.part import Annotation
from ckptparse.annotation.shards import annotate_shard
from ckptparse.annotation.tables import annotate_table
from ckptparse.bundle.index import held_bytes
from ckptparse.errors import NotACheckpointError, UnsupportedError
from ckptparse.filenames import INDEX_SUFFIX, split_data_path
from ckptparse.files.context import Cache, Context, Store, begin
from ckptparse.files.storage import Source, is_file
from ckptparse.identification import identify_file
from ckptparse.inventory.nearby import open_named
from ckptparse.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

__all__ = ["Annotation", "annotate"]

_MESSAGES = {
    "graph": ("graph_pb2", "GraphDef"),
    "meta-graph": ("meta_graph_pb2", "MetaGraphDef"),
    "saved-model-pb": ("saved_model_pb2", "SavedModel"),
    "fingerprint.pb": ("fingerprint_pb2", "FingerprintDef"),
    "keras_metadata.pb": ("saved_metadata_pb2", "SavedMetadata"),
}
"""The message in a file, by its kind, or by its name if it has no kind."""
_TABLES = ("v1", "v2-index")
_GROUP_BYTES = 8
"""Bytes of a group of fields that count as a part more."""


_DEEPEST = 1 << 20
"""Levels if the caller names none: more than any file has, since `Limits.nesting` bounds
messages."""


def annotate(
    path: str | os.PathLike[str],
    *,
    depth: int | None = None,
    store: Store = None,
    cache: Cache = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Iterator[Annotation]:
    """Iterate over the parts of a file: every byte of it, in order, each part before its own parts.

    Args:
        path: A V2 index (or its prefix), a data file beside its index, a V1 file, or a serialized
            graph, meta graph, `saved_model.pb`, `fingerprint.pb` or `keras_metadata.pb`.
        depth: Levels below the first that are wanted; all if None.
        store: As for `ckptparse.open`.
        cache: As for `open`.
        limits: Bounds on what is read and unpacked. `parts` bounds how many parts there are: what
            comes after them is one part more, which says so.

    Raises:
        CheckpointNotFoundError: Nothing is there.
        NotACheckpointError: The file is of another kind; `.identity` says what.
        UnsupportedError: The file is text, or a kind that is not taken apart.
        DataLossError: The index beside a data file is damaged.
    """
    place, context = begin(path, store=store, cache=cache, limits=limits)
    return _annotate(place, depth, context)


def _annotate(place: str, depth: int | None, context: Context) -> Iterator[Annotation]:
    storage = context.storage
    if not is_file(storage, place) and is_file(storage, place + INDEX_SUFFIX):
        place += INDEX_SUFFIX
    deepest = _DEEPEST if depth is None else depth
    with closing(open_named(place, context)) as source:
        data = split_data_path(place)
        if data is not None and is_file(storage, data[0] + INDEX_SUFFIX):
            prefix = data[0]
            parts = annotate_shard(source, prefix, data[1], depth=deepest, context=context)
        else:
            prefix = place.removesuffix(INDEX_SUFFIX)
            parts = _annotate_by_kind(source, deepest, context)
        limits, most = context.limits, context.limits.parts
        offset = taken = 0
        for part in parts:
            if taken >= most:
                held = max(source.size, held_bytes(prefix + INDEX_SUFFIX, storage, 0))
                most = limits.most_parts(held)
                if taken >= most:
                    yield _left_out(offset, source.size, most, limits)
                    return
            # What lies in a group is not told of, but was walked.
            taken += 1 + (part.size // _GROUP_BYTES if part.what.endswith(GROUP) else 0)
            if not part.unpacked:
                offset = part.offset
            if part.depth <= deepest:
                yield part


def _left_out(offset: int, end: int, most: int, limits: Limits) -> Annotation:
    """Tell of what is not told of, from where the last part begins."""
    says = (
        f"{most:,} parts were told of, and no more: Limits.parts allows {limits.parts:,}, "
        f"and one for each 128 bytes of the files; {_GROUP_BYTES} bytes of a group count as one"
    )
    return Annotation(offset, end - offset, 0, "bytes that were not looked at", says)


def _annotate_by_kind(source: Source, depth: int, context: Context) -> Iterator[Annotation]:
    limits = context.limits
    identity = identify_file(source.path, context)
    _, name = context.storage.split(source.path)
    if identity.kind in _TABLES or (
        identity.kind in ("truncated", "interrupted-save", "unknown")
        and name.endswith(INDEX_SUFFIX)
    ):
        yield from annotate_table(source, depth=depth, limits=limits)
        return
    message = _MESSAGES.get(identity.kind) or _MESSAGES.get(name)
    if message is None:
        raise NotACheckpointError(
            f"Expected a checkpoint's file, found {identity.meaning}",
            path=source.path,
            identity=identity,
            hint=identity.advice,
        )
    if identity.detail.get("encoding", "binary") != "binary":
        raise UnsupportedError("The file is text: any editor shows it", path=source.path)
    limits.check("message_bytes", source.size, "The size of the message", path=source.path)
    descriptor = _descriptor(*message)
    yield Annotation(0, source.size, 0, descriptor.name)
    whole = source.read_at(0, source.size)
    yield from annotate_message(whole, descriptor, base=0, depth=1, wanted=depth, limits=limits)


def _descriptor(module: str, name: str) -> Descriptor:
    found: Descriptor = getattr(import_module(f"ckptparse.proto.{module}"), name).DESCRIPTOR
    return found
