"""Read graphs from files of any kind: `.meta`, frozen graphs, SavedModels, TensorBoard's events.

All but the events may be text (`.pbtxt`).

Event   1 wall_time   2 step   4 graph_def   9 meta_graph_def: both serialized, as bytes
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

from ckptparse.coding.checksum import crc32c, mask_crc
from ckptparse.errors import CheckpointError, LimitError
from ckptparse.files.storage import Source
from ckptparse.graph.graph import Graph
from ckptparse.limits import Limits, most_members
from ckptparse.proto.wire import BYTES, iter_fields
from ckptparse.recovery.evidence.bounds import Note, ignore
from ckptparse.saved_model.reading import parse_saved_model

__all__ = ["iter_event_graphs", "iter_graphs"]

_RECORD = struct.Struct("<QI")
"""A record's header: its length, and the masked CRC of these 8 bytes. The data follows, and then
the masked CRC of the data."""
_TRAILER = 4
"""Bytes of the masked CRC of a record's data."""
_FREE_RECORDS = 10_000
_BYTES_A_RECORD = 48
"""Records that are read of a file of any size, and how many bytes a further one has at least: with
a time, a step and one value, TensorFlow's have more."""
_GRAPH, _META_GRAPH = 4, 9
"""Fields of an Event: a serialized GraphDef, a serialized MetaGraphDef."""
_META_GRAPHS = 2
"""Field of a SavedModel: its meta graphs."""


def iter_graphs(
    source: Source, kind: str, *, limits: Limits, note: Note = ignore
) -> Iterator[Graph]:
    """Iterate over the graphs in a file. Damaged ones are left out.

    Args:
        source: The file.
        kind: Its kind, as `identify` says.
        limits: Bounds on what is read.
        note: Is told what was left out because of them.
    """
    try:
        if kind == "tfrecord":
            # Each takes as long as the member of an archive; a real file has one or two.
            most = most_members(limits, source.size)
            graphs = iter_event_graphs(source, limits=limits, note=note)
            yield from islice(graphs, most)
            if next(graphs, None) is not None:
                note(f"Limits.members ({limits.members}) allows {most} of its graphs")
            return
        limits.check("message_bytes", source.size, "The size of the graph", path=source.path)
        yield from _decode_all(source, kind, limits)
    except LimitError as error:
        note(error.message)
    except CheckpointError:
        return


def _decode_all(source: Source, kind: str, limits: Limits) -> Iterator[Graph]:
    """Iterate over the graphs of a file that is one message."""
    data, path = source.read_at(0, source.size), source.path
    if kind in ("meta-graph", "graph"):
        yield _decode(data, is_meta=kind == "meta-graph", limits=limits, path=path)
    elif kind == "saved-model-pbtxt":
        for meta in parse_saved_model(data, limits=limits, path=path).meta_graphs:
            yield Graph.from_meta_graph(meta, limits=limits, path=path)
    elif kind == "saved-model-pb":
        for number, wire, start, stop in iter_fields(data):
            if (number, wire) == (_META_GRAPHS, BYTES):
                yield Graph.from_meta_graph(data[start:stop], limits=limits, path=path)


def _decode(data: bytes, *, is_meta: bool, limits: Limits, path: str) -> Graph:
    """Decode a graph in binary or text form."""
    decode = Graph.from_meta_graph if is_meta else Graph.from_graph_def
    try:
        return decode(data, limits=limits, path=path)
    except LimitError:
        raise
    except CheckpointError:
        return Graph.from_text(data, is_meta=is_meta, limits=limits, path=path)


def iter_event_graphs(source: Source, *, limits: Limits, note: Note = ignore) -> Iterator[Graph]:
    """Iterate over the graphs in an event file, up to its first damaged record."""
    for record in _iter_records(source, limits, note):
        with suppress(CheckpointError):
            for number, wire, start, stop in iter_fields(record):
                if (number, wire) == (_META_GRAPH, BYTES):
                    yield Graph.from_meta_graph(record[start:stop], limits=limits, path=source.path)
                elif (number, wire) == (_GRAPH, BYTES):
                    yield Graph.from_graph_def(record[start:stop], limits=limits, path=source.path)


def _iter_records(source: Source, limits: Limits, note: Note) -> Iterator[bytes]:
    """Iterate over the records of an event file: of as many as a real one has, the whole ones."""
    position = 0
    left = _FREE_RECORDS + source.size // _BYTES_A_RECORD
    while left > 0 and position + _RECORD.size + _TRAILER <= source.size:
        head = source.read_at(position, _RECORD.size)
        size, checksum = _RECORD.unpack(head)
        end = position + _RECORD.size + size + _TRAILER
        if checksum != mask_crc(crc32c(head[:8])) or end > source.size:
            return
        if size <= limits.message_bytes:
            data = source.read_at(position + _RECORD.size, size + _TRAILER)
            if int.from_bytes(data[size:], "little") == mask_crc(crc32c(data[:size])):
                yield data[:size]
        else:
            note(
                f"Limits.message_bytes ({limits.message_bytes}) allows no record of {size} bytes "
                "(raise it)"
            )
        position = end
        left -= 1
    if not left and position < source.size:
        note("it has very many records, and not all of them were read")
