"""An object graph, made from names: so that `tf.train.Checkpoint` finds tensors by their objects.

    layer/kernel                                        a path of local names, or
    layer/kernel/.ATTRIBUTES/VARIABLE_VALUE             a key that TensorFlow would give it
    layer/kernel/.OPTIMIZER_SLOT/opt/m/.ATTRIBUTES/...  a slot variable of the optimizer `opt`

Each part of a path is an object, and the child of the one before; the ids are breadth-first, those
of slot variables last, as TensorFlow numbers them (docs/format.md, section 7).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ckptparse.errors import UnsupportedError
from ckptparse.graph.object_node import VARIABLE_VALUE, escape_name, unescape_name
from ckptparse.proto.trackable_object_graph_pb2 import TrackableObjectGraph

__all__ = ["ATTRIBUTES_MARK", "key_of", "make_object_graph"]

_SLOT_MARK = "/.OPTIMIZER_SLOT/"
_MOST_PARTS = 500_000
"""Parts of all names together: a model has some ten for each variable. A part takes 1 µs."""
ATTRIBUTES_MARK = "/.ATTRIBUTES/"
"""Between the path of an object and the name of its attribute, in every key of one."""


@dataclass(slots=True)
class _Object:
    """An object that holds others, values, or the slot variables of an optimizer."""

    children: dict[str, _Object] = field(default_factory=dict)
    attributes: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Name of the attribute -> full name of the variable, and key."""
    slots: list[tuple[_Object, str, _Object]] = field(default_factory=list)
    """Variable, name of the slot, slot variable."""

    def walk(self) -> list[_Object]:
        """Return this object and all below it, breadth-first."""
        found = [self]
        for one in found:
            found.extend(one.children.values())
        return found

    def reach(self, path: str) -> _Object:
        """Return the object at an escaped path, made if it is not there yet."""
        found = self
        for part in path.split("/") if path else ():
            found = found.children.setdefault(unescape_name(part), _Object())
        return found


def make_object_graph(names: Iterable[str]) -> tuple[dict[str, str], bytes]:
    """Make the object graph that has a value for every name.

    Args:
        names: Keys of an object-based checkpoint, or plain paths, which are given such keys.

    Returns:
        The key of every name; and the serialized TrackableObjectGraph.

    Raises:
        UnsupportedError: Two names have one key, a name is not UTF-8, or the names have more than
            500,000 parts together.
    """
    root = _Object()
    parts = 0
    keys: dict[str, str] = {}
    owners: dict[str, str] = {}
    for name in names:
        _check_name(name)
        parts += name.count("/") + 1
        if parts > _MOST_PARTS:
            raise UnsupportedError(
                f"Expected names of at most {_MOST_PARTS:,} parts together to make an object graph "
                f"of, found more up to {name!r:.60}",
                hint="Write fewer tensors, or give the object graph of another checkpoint",
            )
        path, attribute, key = _split(name)
        if key in owners:
            raise UnsupportedError(
                f"Two tensors would have the key {key!r}: {owners[key]!r} and {name!r}"
            )
        owners[key] = name
        keys[name] = key
        found = _find_slot(root, path) if _SLOT_MARK in path else root.reach(path)
        found.attributes[attribute] = (_full_name(path), key)
    return keys, _serialize(root)


def key_of(name: str) -> str:
    """Return the key that `make_object_graph` gives a name."""
    return _split(name)[2]


def _check_name(name: str) -> None:
    """Refuse what no string of a message holds; each protobuf runtime raises another error."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UnsupportedError(
            f"An object graph holds names in UTF-8, and the name {name!r} is not UTF-8"
        ) from None


def _split(name: str) -> tuple[str, str, str]:
    """Return path, name of the attribute, and key of a name."""
    path, mark, attribute = name.rpartition(ATTRIBUTES_MARK)
    if mark:
        return path, unescape_name(attribute), name
    path = "/".join(map(escape_name, name.split("/")))
    return path, VARIABLE_VALUE, f"{path}{ATTRIBUTES_MARK}{VARIABLE_VALUE}"


def _find_slot(root: _Object, path: str) -> _Object:
    """Return the slot variable that a path means; the variable and the optimizer hold it."""
    variable, _, rest = path.partition(_SLOT_MARK)
    optimizer, _, slot_name = rest.rpartition("/")
    slot = _Object()
    entry = (root.reach(variable), unescape_name(slot_name), slot)
    root.reach(optimizer).slots.append(entry)
    return slot


def _full_name(path: str) -> str:
    return "/".join(map(unescape_name, path.replace(_SLOT_MARK, "/").split("/")))


def _serialize(root: _Object) -> bytes:
    nodes = root.walk()
    slots = [slot for node in nodes for _, _, slot in node.slots]
    ids = {id(node): number for number, node in enumerate((*nodes, *slots))}
    graph = TrackableObjectGraph()
    for node in (*nodes, *slots):
        message = graph.nodes.add()
        for local_name, child in node.children.items():
            message.children.add(node_id=ids[id(child)], local_name=local_name)
        for attribute, (full_name, key) in node.attributes.items():
            message.attributes.add(name=attribute, full_name=full_name, checkpoint_key=key)
        for variable, slot_name, slot in node.slots:
            message.slot_variables.add(
                original_variable_node_id=ids[id(variable)],
                slot_name=slot_name,
                slot_variable_node_id=ids[id(slot)],
            )
        message.has_checkpoint_values.value = any(_values_below(node))
    return graph.SerializeToString(deterministic=True)


def _values_below(node: _Object) -> Iterator[bool]:
    return (bool(one.attributes or one.slots) for one in node.walk())
