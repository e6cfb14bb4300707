"""What Keras wrote of a layer: its name, its class, its configuration.

Keras of 2019 (TensorFlow 1.14 to 2.1) kept it in the checkpoint, beside the layer's weights:

    layer-0/.ATTRIBUTES/OBJECT_CONFIG_JSON    {"class_name": "Dense", "config": {"name": ...}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ckptparse.errors import CheckpointError
from ckptparse.graph.object_node import ObjectNode

__all__ = ["LayerDescription", "describe_layer", "read_object_config"]

OBJECT_CONFIG = "OBJECT_CONFIG_JSON"
"""The attribute that holds a layer's configuration."""


@dataclass(frozen=True, slots=True)
class LayerDescription:
    """What Keras wrote of a layer.

    Attributes:
        name: Its name, or None.
        class_name: Its class (`Dense`), or None.
        config: What `get_config()` gave, or None.
    """

    name: str | None = None
    class_name: str | None = None
    config: Mapping[str, Any] | None = None


def describe_layer(values: Mapping[str, Any]) -> LayerDescription:
    """Take a layer's description; a field of another type than Keras writes counts as absent."""
    class_name, config = values.get("class_name"), values.get("config")
    config = config if isinstance(config, dict) else None
    name = values.get("name") or (config or {}).get("name")
    return LayerDescription(
        name if isinstance(name, str) else None,
        class_name if isinstance(class_name, str) else None,
        config,
    )


def read_object_config(node: ObjectNode | None) -> LayerDescription | None:
    """Read the configuration that an object keeps in the checkpoint.

    Returns:
        None if it keeps none, or none that can be read: a layer is a layer all the same.
    """
    attribute = None if node is None else node.attributes.get(OBJECT_CONFIG)
    if node is None or attribute is None:
        return None
    try:
        tensor = node.graph.find_tensor(attribute.checkpoint_key)
        values = None if tensor is None or tensor.shape != () else tensor.read().item()
        found = json.loads(values) if isinstance(values, bytes) else None
    except (CheckpointError, ValueError, RecursionError):
        return None
    return describe_layer(found) if isinstance(found, dict) else None
