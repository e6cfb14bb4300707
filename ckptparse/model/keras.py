"""What Keras 2 wrote of the objects of a SavedModel: by their numbers, and by paths of its own."""

from __future__ import annotations

from collections.abc import Mapping

from ckptparse.graph.object_config import LayerDescription
from ckptparse.graph.object_node import ObjectNode, unescape_name
from ckptparse.saved_model.keras_metadata import KerasObject, count_json
from ckptparse.saved_model.objects import SavedObjectNode, SavedObjects

__all__ = ["Describer", "list_user_objects"]

_LONGEST_PATH = 200
"""Local names of a path that are kept: models are not nested so deep, and hostile graphs are."""


class Describer:
    """Gives what Keras wrote of an object, by its number among the SavedModel's or by its path."""

    def __init__(self, metadata: Mapping[str, KerasObject]) -> None:
        self._by_path = metadata
        self._by_number = {item.node_id: item for item in metadata.values()}

    def __call__(self, node: ObjectNode) -> LayerDescription | None:
        """Return what Keras wrote of a layer; None for any other object."""
        if isinstance(node, SavedObjectNode):
            found = self._by_number.get(node.node_id)
        else:
            found = self._by_path.get(_path_of(node))
        return found.describe() if found is not None and found.is_layer else None


def list_user_objects(objects: SavedObjects | None) -> list[KerasObject]:
    """Take the metadata that Keras kept in the objects before it had a file of its own."""
    found: list[KerasObject] = []
    if objects is None:
        return found
    for node in objects.walk():
        user = node.user_object if isinstance(node, SavedObjectNode) else None
        if user is not None and user.identifier.startswith("_tf_keras_") and user.metadata:
            count_json(user.metadata, objects.made)
            path = _path_of(node)
            found.append(KerasObject(node.node_id, path, user.identifier, user.metadata))
    return found


def _path_of(node: ObjectNode) -> str:
    """Return the path of an object as Keras writes it: `root.layer-0.kernel`."""
    graph, number = node.graph, node.node_id
    if not graph.leads_to(number):
        path = graph.path_of(number, at_most=_LONGEST_PATH) or ""
        return ".".join(("root", *map(unescape_name, filter(None, path.split("/")))))
    names, is_whole = graph.names_to(number, at_most=_LONGEST_PATH)
    return ".".join(("root" if is_whole else "root...", *filter(None, names)))
