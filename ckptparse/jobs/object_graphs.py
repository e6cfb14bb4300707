"""The object graph of a checkpoint, after tensors were dropped or given other keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ckptparse.graph.object_graph import ObjectGraph
from ckptparse.proto.trackable_object_graph_pb2 import TrackableObjectGraph

__all__ = ["change_keys"]


def change_keys(graph: ObjectGraph, keys: Mapping[str, str], known: Iterable[str]) -> bytes:
    """Give variables other keys, and take away those that have none any more.

    Objects stay: TensorFlow restores by them, into the same model, what still has a key.

    Args:
        graph: The object graph.
        keys: Old key -> new key, of all that is kept.
        known: All keys that the checkpoint has had: only these are taken away. A key of the graph
            may be the stem of several (`table` of `table-keys` and `table-values`).
    """
    message = TrackableObjectGraph.FromString(graph.serialized)
    lost = set(known) - keys.keys()
    stems = {key.rpartition("-")[0] for key in keys} | {key.rpartition("_")[0] for key in keys}
    stems |= {stem for key in keys if (stem := key.removesuffix("_STATE")) != key}
    lost_stems = {key.rpartition("-")[0] for key in lost} - stems
    gone: set[int] = set()
    for number, node in enumerate(message.nodes):
        kept = []
        for attribute in node.attributes:
            key = attribute.checkpoint_key
            if key in lost or (key in lost_stems and key not in keys):
                continue
            attribute.checkpoint_key = keys.get(key, key)
            kept.append(type(attribute).FromString(attribute.SerializeToString()))
        if node.attributes and not kept:
            gone.add(number)
        del node.attributes[:]
        node.attributes.extend(kept)
    for node in message.nodes:
        slots = [slot for slot in node.slot_variables if slot.slot_variable_node_id not in gone]
        if len(slots) < len(node.slot_variables):
            copies = [type(slot).FromString(slot.SerializeToString()) for slot in slots]
            del node.slot_variables[:]
            node.slot_variables.extend(copies)
    _mark_values(message)
    return message.SerializeToString(deterministic=True)


def _mark_values(message: TrackableObjectGraph) -> None:
    """Say anew which objects have values at or below them, if the graph says that at all."""
    holding = _find_holding(message)
    for number, node in enumerate(message.nodes):
        if node.HasField("has_checkpoint_values"):
            node.has_checkpoint_values.value = number in holding


def _find_holding(message: TrackableObjectGraph) -> set[int]:
    """Return the objects that have values, and all above them; the graph may have circles."""
    parents: dict[int, list[int]] = {}
    for number, node in enumerate(message.nodes):
        below = [child.node_id for child in node.children]
        below += [slot.slot_variable_node_id for slot in node.slot_variables]
        for child_id in below:
            parents.setdefault(child_id, []).append(number)
    holding = {
        number
        for number, node in enumerate(message.nodes)
        if node.attributes or node.HasField("registered_saver")
    }
    pending = list(holding)
    while pending:
        above = set(parents.get(pending.pop(), ())) - holding
        holding |= above
        pending.extend(above)
    return holding
