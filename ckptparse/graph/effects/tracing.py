"""Where the name of a file comes from: the Saver, an asset, the graph itself, the caller.

    saver_filename (Placeholder) ─ call of traced_save(file_prefix) ─ StringJoin(file_prefix, …)
        ─ ShardedFilename ─ SaveV2                         the checkpoint's own name

A name may come from several places: a function is called by many, a Select picks one of two. All
are followed, and only what all of them are is believed.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from ckptparse.errors import CheckpointError
from ckptparse.graph.attributes import FunctionCall, make_constant
from ckptparse.graph.effects.effect import PathOrigin
from ckptparse.graph.effects.known_ops import KNOWN_OPS
from ckptparse.graph.effects.table import FUNCTION_OPS
from ckptparse.graph.nodes import Node, NodeTable, split_input
from ckptparse.graph.parts import GraphParts

__all__ = ["Call", "Name", "Names", "Tracer", "function_calls", "literal_strings"]

_MOST_NAMES = 16
_MOST_STEPS = 2000
_MOST_HOPS = 60
_LONGEST_NAME = 4096
"""Bounds for graphs that are made to take long: names, steps, depth, bytes of a name. With more
names, steps or depth, a name counts as computed, and with more steps than `Limits.steps` allows
for all names together. 4096 bytes is the longest path on Linux."""
_MOST_NESTED = 40
"""Functions given to functions as attributes; of more, protobuf would not read the graph."""
_SAVER_DEFAULT = "model"
"""What a Saver's filename is until someone gives another: `tf.train.Saver` writes it so."""

_ALL, _FIRST, _CHOICE = slice(None), slice(1), slice(1, None)
_PASSED = {
    **dict.fromkeys(("Identity", "Snapshot", "Enter", "RefEnter", "RefIdentity"), _FIRST),
    **dict.fromkeys(("StopGradient", "ExpandDims", "Squeeze", "Reshape"), _FIRST),
    **dict.fromkeys(("ReadVariableOp", "ShardedFilespec"), _FIRST),
    **dict.fromkeys(("Select", "SelectV2"), _CHOICE),
    **dict.fromkeys(("Pack", "Merge"), _ALL),
    "ConcatV2": slice(-1),
}
"""Operations whose result is names of their inputs, and which of those."""
_JOINS = frozenset({"StringJoin", "ShardedFilename"})
_VARIABLES = frozenset(["VarHandleOp", "Variable", "VariableV2"])
_ASSIGNS = ("AssignVariableOp", "Assign")
_SKIPPED = {"If": 1, "StatelessIf": 1, "_If": 1, "Case": 1, "StatelessCase": 1}
"""Inputs of a call that come before the arguments of the function."""
_EXACT = frozenset(
    {
        *("PartitionedCall", "StatefulPartitionedCall", "If", "StatelessIf"),
        *("While", "StatelessWhile", "Case", "StatelessCase"),
    }
)
"""Calls whose inputs are the arguments of the function, one by one."""


class Name(NamedTuple):
    """One name that may be used, or where it comes from.

    An asset with a text is a constant, in whose place the asset's path is put while the model is
    loaded, and at no other time.
    """

    origin: PathOrigin
    text: str | None = None


class Call(NamedTuple):
    """A node that calls a function."""

    table: NodeTable
    node: str


@dataclass(frozen=True)
class Names:
    """What is known of names from outside of the graph.

    Attributes:
        savers: Nodes that a Saver is given its filename through.
        assets: Nodes that are given the path of an asset, and what that is: an asset, or the name
            of a file if it leads out of the model's directory.
        takes_default: Whether a name that is what `tf.train.Saver` writes for want of another is
            taken for the Saver's: a graph of TF1 may have more Savers than it says.
        bound: What the objects of a SavedModel bind to the last arguments of a function; None for
            what is no name.
    """

    savers: frozenset[str] = frozenset()
    assets: Mapping[str, Name] = field(default_factory=dict)
    takes_default: bool = False
    bound: Mapping[str, tuple[Name, ...]] = field(default_factory=dict)


class Tracer:
    """Follows names through one graph; each place is followed once."""

    def __init__(self, graph: GraphParts, names: Names) -> None:
        self._graph = graph
        self._names = names
        self._known: dict[tuple[str | None, str], tuple[Name, ...]] = {}
        self._strings: dict[tuple[str | None, str], list[bytes]] = {}
        self._steps = 0
        self._steps_left = graph.most_steps
        self._assigned: list[tuple[NodeTable, Node]] | None = None

    def trace(self, table: NodeTable, text: str) -> tuple[Name, ...]:
        """Return the names that a tensor may hold; what cannot be followed is `COMPUTED`."""
        self._steps = 0
        return self._trace(table, text, frozenset())

    def literals(self, table: NodeTable, text: str) -> Iterator[bytes]:
        """Iterate over the strings of every constant that a tensor may be, whole."""
        pending, seen = [(table, text)], set[tuple[str | None, str]]()
        while pending and len(seen) < _MOST_STEPS:
            where, tensor = pending.pop()
            name, _ = split_input(tensor)
            if (where.function, name) in seen:
                continue
            seen.add((where.function, name))
            self._steps_left -= 1
            if self._steps_left < 0:
                return
            if name not in where:
                pending += self._given_by_callers(where, name)
                continue
            node = where[name]
            if node.op == "Const":
                yield from self._strings_of(node)
            elif node.op in _PASSED or node.op == "PlaceholderWithDefault":
                pending += [(where, source) for source in node.data_inputs]

    def _strings_of(self, node: Node) -> list[bytes]:
        """Return the strings of a constant, which are decoded once."""
        key = node.function, node.name
        if key not in self._strings:
            self._strings[key] = literal_strings(self._graph, node)
        return self._strings[key]

    def _given_by_callers(self, table: NodeTable, name: str) -> Iterator[tuple[NodeTable, str]]:
        """Iterate over what callers give for an argument, if a call says it one by one."""
        function = self._graph.functions.get(table.function or "")
        if function is None or name not in function.inputs:
            return
        position = function.inputs.index(name)
        for call in self.calls.get(function.name, ()):
            node = call.table[call.node]
            place = position + _SKIPPED.get(node.op, 0)
            exact = node.op in _EXACT or node.op == function.name
            if exact and place < len(node.data_inputs):
                yield call.table, node.data_inputs[place]

    @cached_property
    def calls(self) -> Mapping[str, list[Call]]:
        """The nodes that call each function."""
        found: dict[str, list[Call]] = {}
        for call, names in self._callees.values():
            for name in names:
                found.setdefault(name, []).append(call)
        return found

    @cached_property
    def _callees(self) -> Mapping[tuple[str | None, str], tuple[Call, Sequence[str]]]:
        """The nodes that call functions, by function and name, and what each calls."""
        found: dict[tuple[str | None, str], tuple[Call, Sequence[str]]] = {}
        for table in self._graph.tables():
            for node in table:
                names = list(_called(self._graph, table, node))
                if names:
                    found[table.function, node] = Call(table, node), names
        return found

    @cached_property
    def called(self) -> frozenset[str]:
        """The functions that something calls: the graph itself, an object, a function of these."""
        wanted = [name for name, calls in self.calls.items() if _from_outside(calls)]
        wanted += self._names.bound
        inside = self._stand_ins()
        for name, calls in self.calls.items():
            for call in calls:
                inside[call.table.function or ""].append(name)
        found: set[str] = set()
        while wanted:
            name = wanted.pop()
            if name not in found:
                found.add(name)
                wanted += inside.get(name, ())
        return frozenset(found)

    def _stand_ins(self) -> dict[str, list[str]]:
        """Return what may run besides a function: its gradient, and others that implement the same.

        TensorFlow puts one function in place of another if both say that they implement one thing
        (`api_implements`), as Keras does for each kind of device.
        """
        found: dict[str, list[str]] = defaultdict(list)
        alike: dict[object, list[str]] = defaultdict(list)
        for name, function in self._graph.functions.items():
            implements = function.attributes.get("api_implements")
            if isinstance(implements, bytes) and implements:
                alike[implements].append(name)
        for names in alike.values():
            # Each leads to the next, and the last to the first: no more than one pair a name.
            for name, other in zip(names, names[1:] + names[:1], strict=True):
                found[name].append(other)
        for name, gradient in self._graph.gradients.items():
            found[name].append(gradient)
        return found

    def _trace(
        self, table: NodeTable, text: str, above: frozenset[tuple[str | None, str]]
    ) -> tuple[Name, ...]:
        name, _ = split_input(text)
        key = table.function, name
        if key in self._known:
            return self._known[key]
        self._steps += 1
        self._steps_left -= 1
        if key in above:
            return ()
        if self._steps > _MOST_STEPS or len(above) > _MOST_HOPS or self._steps_left < 0:
            return (Name(PathOrigin.COMPUTED),)
        above |= {key}
        follow = self._follow_node if name in table else self._follow_argument
        found = _merge(follow(table, name, above))
        if len(above) == 1:
            self._known[key] = found
        return found

    def _follow_node(
        self, table: NodeTable, name: str, above: frozenset[tuple[str | None, str]]
    ) -> Iterator[Name]:
        known = self._given(table, name)
        if known is not None:
            yield from known
            return
        node = table[name]
        if node.op == "Const":
            yield from self._literals(node)
        elif node.op in _VARIABLES:
            yield from self._follow_variable(table, name, above)
        elif node.op.startswith("Placeholder"):
            yield from self._follow_placeholder(table, node, above)
        else:
            yield from self._follow_inputs(table, node, above)

    def _follow_placeholder(
        self, table: NodeTable, node: Node, above: frozenset[tuple[str | None, str]]
    ) -> Iterator[Name]:
        """Follow what the caller gives, and what counts if nobody gives anything."""
        defaults = [name for text in node.data_inputs for name in self._trace(table, text, above)]
        if set(defaults) != {_SAVER}:
            yield Name(PathOrigin.CALLER)
        yield from defaults

    def _follow_inputs(
        self, table: NodeTable, node: Node, above: frozenset[tuple[str | None, str]]
    ) -> Iterator[Name]:
        if node.op in _JOINS and node.data_inputs:
            yield from self._follow_join(table, node, above)
        elif node.op in _PASSED:
            for text in node.data_inputs[_PASSED[node.op]]:
                yield from self._trace(table, text, above)
        else:
            yield from self._follow_results(table, node, above)

    def _given(self, table: NodeTable, name: str) -> Iterable[Name] | None:
        """Return what a node of the graph itself is fed with; None if it is nothing known."""
        if table.function is not None:
            return None
        op = table.op(name)
        asset = self._names.assets.get(name)
        if asset is not None and op in ("Placeholder", "Const"):
            if asset.origin is not PathOrigin.ASSET:
                return [asset]
            texts = self._literals(table[name]) if op == "Const" else [asset]
            return [Name(PathOrigin.ASSET, found.text) for found in texts]
        if name not in self._names.savers:
            return None
        if op == "Const":
            defaults = list(self._literals(table[name]))
        elif op.startswith("Placeholder"):
            inputs = table[name].data_inputs
            defaults = [found for text in inputs for found in self._trace(table, text, _NONE)]
        else:
            return None
        # Its default is what counts if nobody gives another: no file may be hidden there.
        expected = (Name(PathOrigin.CALLER), _SAVER, Name(PathOrigin.LITERAL, _SAVER_DEFAULT))
        return [_SAVER, *(found for found in defaults if found not in expected)]

    def _literals(self, node: Node) -> Iterator[Name]:
        found = literal_strings(self._graph, node)
        for item in found[:_MOST_NAMES]:
            text = item[:_LONGEST_NAME].decode("utf-8", "surrogateescape")
            is_default = (
                self._names.takes_default and node.function is None and text == _SAVER_DEFAULT
            )
            yield _SAVER if is_default else Name(PathOrigin.LITERAL, text)
        if not found or len(found) > _MOST_NAMES:
            yield Name(_COMPUTED)

    def _follow_variable(
        self, table: NodeTable, name: str, above: frozenset[tuple[str | None, str]]
    ) -> Iterator[Name]:
        """Follow what is assigned to a variable of strings by the graph itself."""
        if table.function is not None:
            yield Name(_COMPUTED)
            return
        found = False
        for where, node in self._assignments():
            target, value = node.data_inputs[:2]
            if where.function is None and split_input(target)[0] == name:
                found = True
                yield from self._trace(where, value, above)
        if not found:
            yield Name(_COMPUTED)

    def _assignments(self) -> list[tuple[NodeTable, Node]]:
        if self._assigned is None:
            self._assigned = [
                (table, table[name])
                for table in self._graph.tables()
                for name in table.with_op(*_ASSIGNS)
                if len(table[name].data_inputs) > 1
            ]
        return self._assigned

    def _follow_join(
        self, table: NodeTable, node: Node, above: frozenset[tuple[str | None, str]]
    ) -> Iterator[Name]:
        """Follow a name with something behind it, which must not lead elsewhere."""
        head, *rest = (list(self._trace(table, text, above)) for text in node.data_inputs)
        if node.op == "ShardedFilename":
            yield from head
            return
        texts = [names[0].text for names in (head, *rest) if len(names) == 1]
        if len(texts) == len(node.data_inputs) and head[0].origin is PathOrigin.LITERAL:
            known = [text for text in texts if text is not None]
            if len(known) == len(texts):
                separator = node.attributes.find_bytes("separator").decode("utf-8", "replace")
                yield Name(PathOrigin.LITERAL, separator.join(known)[:_LONGEST_NAME])
                return
        yield from head
        for name in (name for names in rest for name in names):
            if name.text is None or ".." in name.text or ":" in name.text:
                yield Name(_COMPUTED)

    def _follow_results(
        self, table: NodeTable, node: Node, above: frozenset[tuple[str | None, str]]
    ) -> Iterator[Name]:
        """Follow what a called function gives, any of its results."""
        _, called = self._callees.get((table.function, node.name), (None, ()))
        if not called or (node.op not in _EXACT and node.op not in self._graph.functions):
            yield Name(_COMPUTED)
            return
        for name in called:
            function = self._graph.functions[name]
            for text in function.outputs.values():
                yield from self._trace(function.nodes, text, above)

    def _follow_argument(
        self, table: NodeTable, name: str, above: frozenset[tuple[str | None, str]]
    ) -> Iterator[Name]:
        """Follow what each caller gives for an argument."""
        function = self._graph.functions.get(table.function or "")
        if function is None or name not in function.inputs:
            yield Name(_COMPUTED)
            return
        position = function.inputs.index(name)
        bound = self._names.bound.get(function.name)
        if bound is not None:
            free = len(function.inputs) - len(bound)
            yield bound[position - free] if position >= free else Name(PathOrigin.CALLER)
        elif function.name not in self.calls:
            yield Name(PathOrigin.CALLER)
        for call in self.calls.get(function.name, ()):
            node = call.table[call.node]
            inputs = node.data_inputs
            place = position + _SKIPPED.get(node.op, 0)
            exact = node.op in _EXACT or node.op == function.name
            if not exact or place >= len(inputs):
                yield Name(_COMPUTED)
            else:
                yield from self._trace(call.table, inputs[place], above)


_COMPUTED = PathOrigin.COMPUTED
_SAVER = Name(PathOrigin.SAVER)
_NONE: frozenset[tuple[str | None, str]] = frozenset()


def _from_outside(calls: Iterable[Call]) -> bool:
    return any(call.table.function is None for call in calls)


def function_calls(node: Node) -> Iterator[tuple[str, FunctionCall]]:
    """Iterate over the attributes of a node that name functions, and the functions.

    A function may be given others in turn, which take the place of its own attributes.
    """
    attributes = node.attributes
    names = filter(attributes.may_hold_functions, attributes)
    pending = deque((name, attributes[name], 0) for name in names)
    while pending:
        attribute, value, depth = pending.popleft()
        if isinstance(value, list):
            pending.extend((attribute, item, depth) for item in value)
        elif isinstance(value, FunctionCall):
            yield attribute, value
            if depth < _MOST_NESTED:
                inner = value.attributes
                names = filter(inner.may_hold_functions, inner)
                pending.extend((attribute, inner[name], depth + 1) for name in names)


def literal_strings(graph: GraphParts, node: Node) -> list[bytes]:
    """Return the strings of a Const node; none if it has no strings, or cannot be read."""
    data = node.attributes.find_tensor("value")
    if data is None:
        return []
    try:
        tensor = make_constant(node.name, data, graph.limits, graph.path)
        if tensor.kind != "string":
            return []
        return [item for item in tensor.read().ravel().tolist() if isinstance(item, bytes)]
    except CheckpointError:
        return []


def _called(graph: GraphParts, table: NodeTable, name: str) -> Iterator[str]:
    """Iterate over the functions of the library that a node calls."""
    op = table.op(name)
    if op in graph.functions:
        yield op
    if op in FUNCTION_OPS or op not in KNOWN_OPS:
        for _, call in function_calls(table[name]):
            if call.name in graph.functions:
                yield call.name


def _merge(names: Iterable[Name]) -> tuple[Name, ...]:
    """Leave each name once, and no more than a few."""
    found = tuple(dict.fromkeys(names))
    if len(found) <= _MOST_NAMES:
        return found
    return (*found[:_MOST_NAMES], Name(_COMPUTED))
