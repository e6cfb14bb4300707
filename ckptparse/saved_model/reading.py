"""The SavedModel message, in any of its three files (docs/format.md, sections 8.1 and 8.3).

saved_model.pb      SavedModel: 1 saved_model_schema_version   2 meta_graphs*
saved_model.pbtxt   the same as text; if both exist `.pb` wins, and `.pbtxt` is not even read
saved_model.cpb     the same cut into chunks
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from google.protobuf.message import EncodeError

from ckptparse.errors import CheckpointNotFoundError, LimitError, MalformedError, located
from ckptparse.filenames import SAVED_MODEL_FILES
from ckptparse.files.context import Context
from ckptparse.files.storage import Source, Storage, is_file
from ckptparse.limits import Limits, Objects
from ckptparse.proto.meta_graph_pb2 import MetaGraphDef
from ckptparse.proto.parsing import parse_text
from ckptparse.proto.saved_model_pb2 import SavedModel as SavedModelProto
from ckptparse.proto.wire import BYTES, VARINT, Buffer, for_threads, iter_fields, read_varint
from ckptparse.saved_model.chunked import read_chunked_message

__all__ = [
    "SerializedModel",
    "find_saved_model_file",
    "parse_saved_model",
    "read_saved_model",
]

_SCHEMA_VERSION, _META_GRAPHS = 1, 2
_OBJECTS_A_META_GRAPH = 8
"""Objects that a meta graph counts as, whatever it holds; see `Limits.objects`."""


@dataclass(frozen=True, slots=True)
class SerializedModel:
    """A SavedModel message, taken apart.

    Attributes:
        schema_version: 1 in every SavedModel so far.
        meta_graphs: Serialized, in the order of the file.
        objects: How many objects it may become, with the meta graphs counted.
    """

    schema_version: int
    meta_graphs: Sequence[Buffer]
    objects: Objects


def find_saved_model_file(storage: Storage, directory: str) -> str | None:
    """Return the path of a SavedModel's file that counts; None if there is none."""
    paths = (storage.join(directory, name) for name in SAVED_MODEL_FILES)
    return next((path for path in paths if is_file(storage, path)), None)


def read_saved_model(directory: str, context: Context, *, verify: bool) -> SerializedModel:
    """Read the SavedModel message of a directory.

    Raises:
        CheckpointNotFoundError: There is none.
        DataLossError: It does not parse.
        LimitError: It asks for more than the limits allow.
        UnsupportedError: It is chunked, and a package to read it is missing.
    """
    path = find_saved_model_file(context.storage, directory)
    if path is None:
        raise CheckpointNotFoundError("The directory has no saved_model.pb", path=directory)
    with closing(context.storage.open(path)) as source, located(path=path):
        model = _read(source, limits=context.limits, verify=verify)
        if not model.meta_graphs:
            raise MalformedError("Expected a SavedModel with at least one meta graph, found none")
        return model


def _read(source: Source, *, limits: Limits, verify: bool) -> SerializedModel:
    objects = Objects(limits, source.size, path=source.path)
    if source.path.endswith(".cpb"):
        message = read_chunked_message(SavedModelProto, source, limits=limits, verify=verify)
        return _serialize(message, objects)
    limits.check("message_bytes", source.size, "The size of the SavedModel")
    data = source.read_at(0, source.size)
    if source.path.endswith(".pbtxt"):
        return parse_saved_model(data, limits=limits)
    return _split(data, objects)


def parse_saved_model(text: bytes, *, limits: Limits, path: str | None = None) -> SerializedModel:
    """Parse a SavedModel that is text.

    Raises:
        MalformedError: The text is no such message, or not UTF-8.
        LimitError: The text is too long, or nested too deep.
    """
    what = "a SavedModel"
    message = parse_text(SavedModelProto, text, limits=limits, path=path, what=what)
    return _serialize(message, Objects(limits, len(text), path=path))


def _split(data: bytes, objects: Objects) -> SerializedModel:
    view = for_threads(data)
    version, meta_graphs = 0, []
    for number, wire, start, end in iter_fields(view):
        objects.take()
        if (number, wire) == (_META_GRAPHS, BYTES):
            objects.take(_OBJECTS_A_META_GRAPH - 1)
            meta_graphs.append(view[start:end])
        elif (number, wire) == (_SCHEMA_VERSION, VARINT):
            version = read_varint(view, start, end)[0]
    return SerializedModel(version, meta_graphs, objects)


def _serialize(message: SavedModelProto, objects: Objects) -> SerializedModel:
    """Serialize each meta graph, since graphs are read on the wire."""
    objects.take(_OBJECTS_A_META_GRAPH * len(message.meta_graphs))
    parts = [_serialize_meta_graph(meta_graph) for meta_graph in message.meta_graphs]
    return SerializedModel(message.saved_model_schema_version, parts, objects)


def _serialize_meta_graph(message: MetaGraphDef) -> bytes:
    try:
        data: bytes = message.SerializeToString()
    except (EncodeError, ValueError) as error:
        raise LimitError(
            f"The merged meta graph is larger than protobuf can serialize: {error}"
        ) from error
    return data
