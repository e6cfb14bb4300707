"""Graphs that are text (`.pbtxt`), in the binary form of their message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckptparse.files.memory import MemorySource
from ckptparse.files.storage import Source
from ckptparse.identification.text import name_text
from ckptparse.limits import Limits
from ckptparse.proto.parsing import parse_text

if TYPE_CHECKING:
    from google.protobuf.message import Message

__all__ = ["HEAD", "is_graph", "read_binary"]

HEAD = 4096
"""Bytes that tell whether a file is the text of a graph, which may begin with comments."""
_KINDS = frozenset({"graph", "meta-graph", "saved-model-pbtxt"})
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def is_graph(head: bytes) -> bool:
    """Tell whether a file that begins so is the text of a graph."""
    return name_text(head) in _KINDS


def read_binary(source: Source, *, limits: Limits) -> Source:
    """Return a graph that is text in its binary form, the same bytes each time.

    Raises:
        MalformedError: The text is no such message, or not UTF-8.
        LimitError: It is longer than `Limits.text_bytes` or `message_bytes`, or nested too deep.
    """
    limits.check("text_bytes", source.size, "The size of a graph in text", path=source.path)
    text = source.read_at(0, source.size).removeprefix(_BYTE_ORDER_MARK)
    message_type = _message_of(name_text(text[:HEAD]))
    message = parse_text(message_type, text, limits=limits, path=source.path)
    return MemorySource(source.path, message.SerializeToString(deterministic=True))


def _message_of(kind: str | None) -> type[Message]:
    # Imported only now: few files are text.
    if kind == "meta-graph":
        from ckptparse.proto.meta_graph_pb2 import MetaGraphDef

        return MetaGraphDef
    if kind == "graph":
        from ckptparse.proto.graph_pb2 import GraphDef

        return GraphDef
    from ckptparse.proto.saved_model_pb2 import SavedModel

    return SavedModel
