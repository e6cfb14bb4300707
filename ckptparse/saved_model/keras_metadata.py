"""What Keras 2 wrote of its objects: classes and configurations (docs/format.md, section 8.1).

    keras_metadata.pb   1 nodes*: 2 node_id   3 node_path `root.layer-0`   4 identifier
                        5 metadata, JSON   6 version

Before TensorFlow 2.5 the JSON was in the SavedModel's user objects instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ckptparse.errors import MalformedError
from ckptparse.files.context import Context
from ckptparse.graph.object_config import LayerDescription, describe_layer
from ckptparse.limits import Objects
from ckptparse.proto.parsing import parse_message
from ckptparse.proto.saved_metadata_pb2 import SavedMetadata
from ckptparse.text import brief_repr

__all__ = ["KERAS_METADATA_FILE", "KerasObject", "count_json", "read_keras_metadata"]

KERAS_METADATA_FILE = "keras_metadata.pb"
_PREFIX = "_tf_keras_"
_NO_LAYER = "_tf_keras_metric"
_TUPLES = ("__tuple__", "TensorShape")
_JSON_AN_OBJECT = 8
"""Objects and lists in JSON that count as one object; see `Limits.objects`."""


@dataclass(frozen=True, repr=False)
class KerasObject:
    """What Keras wrote of one object.

    Attributes:
        node_id: Number of its node among the SavedModel's objects.
        path: `root`, `root.layer-0` ...: the local names from the root.
        identifier: Its kind, such as `_tf_keras_layer`.
        metadata: JSON.
    """

    node_id: int
    path: str
    identifier: str
    metadata: str

    @cached_property
    def values(self) -> Mapping[str, Any]:
        """The JSON, decoded; tuples that Keras marked as such are tuples.

        Raises:
            MalformedError: It is no JSON object.
        """
        try:
            marked = any(mark in self.metadata for mark in _TUPLES) or "\\u" in self.metadata
            found = json.loads(self.metadata, object_hook=_unmark if marked else None)
        except (ValueError, RecursionError) as error:
            raise MalformedError(
                f"Expected JSON for the Keras object {self.path!r}, found what does not parse: "
                f"{error}"
            ) from error
        if not isinstance(found, dict):
            raise MalformedError(f"Expected a JSON object for the Keras object {self.path!r}")
        return found

    @property
    def is_layer(self) -> bool:
        """Whether it is a layer or a model."""
        return self.identifier.startswith(_PREFIX) and self.identifier != _NO_LAYER

    def describe(self) -> LayerDescription:
        """Say what it is as a layer; a field of another type than Keras writes counts as absent."""
        return describe_layer(self.values)

    def __repr__(self) -> str:
        return brief_repr(self)


def read_keras_metadata(path: str, context: Context) -> list[KerasObject]:
    """Read a `keras_metadata.pb`.

    Raises:
        CheckpointNotFoundError: There is none.
        MalformedError: It does not parse.
        LimitError: It is of more objects than `Limits.objects` allows.
    """
    data = context.read_whole(path, "message_bytes", "The size of the Keras metadata")
    message = parse_message(
        SavedMetadata, data, limits=context.limits, path=path, what="Keras metadata"
    )
    objects = Objects(context.limits, len(data), path=path)
    objects.take(len(message.nodes))
    found = []
    for node in message.nodes:
        metadata = node.metadata
        count_json(metadata, objects)
        found.append(KerasObject(node.node_id, node.node_path, node.identifier, metadata))
    return found


def count_json(text: str, objects: Objects) -> None:
    """Count the objects and lists of a JSON text, before it is decoded.

    Raises:
        LimitError: They are more than `Limits.objects` allows.
    """
    objects.take((text.count("{") + text.count("[")) / _JSON_AN_OBJECT)


def _unmark(value: dict[str, Any]) -> Any:
    items = value.get("items")
    if value.get("class_name") in _TUPLES and isinstance(items, list):
        return tuple(items)
    return value
