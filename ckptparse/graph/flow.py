"""How tensors flow between nodes, through calls of functions and through nodes that pass them on.

VarHandleOp w ─ StatefulPartitionedCall ─┐ function f(arg)
                                         └ arg ─ ReadVariableOp ─ MatMul    consumers of w
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ckptparse.graph.attributes import FunctionCall
from ckptparse.graph.nodes import Node, NodeTable, split_input
from ckptparse.graph.parts import GraphFunction, GraphParts
from ckptparse.limits import limit_error

__all__ = ["Flow", "Place", "Use"]

_PASSING = frozenset(
    {"Identity", "ReadVariableOp", "Snapshot", "Enter", "RefEnter", "RefIdentity", "StopGradient"}
)
"""Ops whose only result is their first input."""

_CALLS: dict[str, tuple[tuple[str, ...], int]] = {
    "PartitionedCall": (("f",), 0),
    "StatefulPartitionedCall": (("f",), 0),
    "If": (("then_branch", "else_branch"), 1),
    "StatelessIf": (("then_branch", "else_branch"), 1),
    "While": (("cond", "body"), 0),
    "StatelessWhile": (("cond", "body"), 0),
    "Case": (("branches",), 1),
    "StatelessCase": (("branches",), 1),
}
"""Ops that call functions: the attributes that name them, and the inputs before the arguments."""


_Edges = dict[str, dict[str, list[int]]]
"""Of each node, who takes its results, and as which of its inputs: one node may take it often."""


@dataclass(frozen=True, slots=True)
class Place:
    """A node of the graph, or of a function with the call that led into it."""

    table: NodeTable
    name: str
    call: Place | None = None
    """The calling node; None in the graph itself."""


@dataclass(frozen=True, slots=True)
class Use:
    """A node that takes a tensor, and as which of its inputs."""

    node: Node
    positions: tuple[int, ...]


class Flow:
    """The edges of a graph, found once.

    Attributes:
        steps: How many edges were followed so far, of all questions.
    """

    def __init__(self, graph: GraphParts) -> None:
        self.steps = 0
        self._graph = graph
        self._edges: dict[str | None, _Edges] = {}
        self._arguments: dict[str, dict[str, int]] = {}
        self._ranks: dict[str | None, tuple[int, NodeTable]] | None = None

    def consumers(self, names: Iterable[str]) -> list[Node]:
        """Return the nodes that use any of some nodes of the graph, in the order of the file.

        Nodes that pass a tensor on, and calls of functions, are seen through.
        """
        return [use.node for use in self.uses(names)]

    def uses(self, names: Iterable[str], *, passing: Collection[str] = ()) -> list[Use]:
        """Return the same nodes, and as which of their inputs they take it.

        Args:
            names: Nodes of the graph.
            passing: More ops that are seen through, if they take it as their first input.
        """
        found = self._walk([(self._graph.nodes, name) for name in names], passing)
        return [Use(table[name], positions) for table, name, positions in found]

    def places(self, names: Iterable[str]) -> list[Place]:
        """Return where the consumers of some nodes of the graph stand, undecoded."""
        found = self._walk([(self._graph.nodes, name) for name in names], ())
        return [Place(table, name) for table, name, _ in found]

    def uses_of(self, node: Node, *, passing: Collection[str] = ()) -> list[Use]:
        """Return the uses of what a node of the graph, or of a function, results in."""
        found = self._walk([(self.table_of(node), node.name)], passing)
        return [Use(table[name], positions) for table, name, positions in found]

    def table_of(self, node: Node) -> NodeTable:
        """Return the nodes that a node is one of: of the graph, or of a function."""
        graph = self._graph
        return graph.nodes if node.function is None else graph.functions[node.function].nodes

    def _walk(
        self, pending: list[tuple[NodeTable, str]], passing: Collection[str]
    ) -> list[tuple[NodeTable, str, tuple[int, ...]]]:
        """Return the users of some nodes, and as which of their inputs they take them.

        Raises:
            LimitError: They take them through more edges than `Limits.steps` allows.
        """
        most = self.steps + self._graph.most_steps
        found: dict[tuple[str | None, str], tuple[NodeTable, set[int]]] = {}
        seen: set[tuple[str | None, str]] = set()
        while pending:
            table, name = pending.pop()
            if (table.function, name) in seen:
                continue
            seen.add((table.function, name))
            users = self.users(table).get(name)
            if users is None:
                continue
            self.steps += len(users)
            self._check(self.steps - most + self._graph.most_steps)
            for user, positions in users.items():
                op = table.op(user)
                calls = op in _CALLS or op in self._graph.functions
                inner = list(self._enter(table[user], positions)) if calls else []
                if inner:
                    pending.extend(inner)
                elif op in _PASSING or (op in passing and 0 in positions):
                    pending.append((table, user))
                else:
                    found.setdefault((table.function, user), (table, set()))[1].update(positions)
        return [
            (found[key][0], key[1], tuple(sorted(found[key][1]))) for key in self._in_order(found)
        ]

    def check_all(self) -> None:
        """Make sure that all questions together follow no more edges than one may.

        Raises:
            LimitError: They do.
        """
        self._check(self.steps)

    def _check(self, steps: int) -> None:
        graph = self._graph
        if steps > graph.most_steps:
            what = "The number of edges that lead to the users of a graph's nodes"
            raise limit_error(graph.limits, "steps", steps, what, path=graph.path)

    def source(self, place: Place, text: str) -> Place | None:
        """Return the node that a tensor comes from, seen through calls and what passes it on.

        Args:
            place: The node whose input it is.
            text: The input.

        Returns:
            None if the input is an argument of a function that nobody called.
        """
        seen: set[tuple[str | None, str]] = set()
        table, call = place.table, place.call
        name, _ = split_input(text)
        while (table.function, name) not in seen:
            seen.add((table.function, name))
            self.steps += 1
            if name in table:
                if table.op(name) not in _PASSING or not table[name].data_inputs:
                    return Place(table, name, call)
                name, _ = split_input(table[name].data_inputs[0])
                continue
            argument = self._argument(table, name, call)
            if argument is None or call is None:
                return None
            table, name, call = call.table, split_input(argument)[0], call.call
        return None

    def called(self, place: Place) -> Iterator[tuple[GraphFunction, int]]:
        """Iterate over the functions that a node calls, with the inputs before their arguments."""
        node = place.table[place.name]
        yield from self._functions(node)

    def _functions(self, node: Node) -> Iterator[tuple[GraphFunction, int]]:
        attributes, skipped = _CALLS.get(node.op, ((), 0))
        for attribute in attributes:
            value = node.attributes.get(attribute)
            for call in value if isinstance(value, list) else [value]:
                if isinstance(call, FunctionCall) and call.name in self._graph.functions:
                    yield self._graph.functions[call.name], skipped
        # Until 2018 a function was called by an op of its own name.
        if node.op in self._graph.functions:
            yield self._graph.functions[node.op], 0

    def _enter(self, node: Node, positions: Sequence[int]) -> Iterator[tuple[NodeTable, str]]:
        """Iterate over the arguments that some inputs of a call become."""
        called = {function.name: (function, skipped) for function, skipped in self._functions(node)}
        for function, skipped in called.values():
            for position in positions:
                if position - skipped >= len(function.inputs):
                    break
                if position >= skipped:
                    yield function.nodes, function.inputs[position - skipped]

    def _argument(self, table: NodeTable, name: str, call: Place | None) -> str | None:
        """Return the input of a call that an argument of the called function is."""
        if call is None or table.function is None:
            return None
        number = self._argument_numbers(table.function).get(name)
        if number is None:
            return None
        caller = call.table[call.name]
        position = number + _CALLS.get(caller.op, ((), 0))[1]
        given = caller.data_inputs
        return given[position] if position < len(given) else None

    def _argument_numbers(self, function: str) -> Mapping[str, int]:
        """Return the number of each argument of a function by its name."""
        known = self._arguments.get(function)
        if known is None:
            names = self._graph.functions[function].inputs
            known = {name: len(names) - 1 - place for place, name in enumerate(reversed(names))}
            self._arguments[function] = known
        return known

    def users(self, table: NodeTable) -> Mapping[str, Mapping[str, Sequence[int]]]:
        """Return, for each node of a table, who takes its results, and as which of its inputs."""
        edges = self._edges.get(table.function)
        if edges is None:
            edges = self._edges[table.function] = _find_edges(table)
        return edges

    def _in_order(self, found: Iterable[tuple[str | None, str]]) -> list[tuple[str | None, str]]:
        if self._ranks is None:
            tables = enumerate(self._graph.tables())
            self._ranks = {table.function: (rank, table) for rank, table in tables}
        ranks = self._ranks

        # Looking through all nodes at each question would make questions about all quadratic.
        def place(one: tuple[str | None, str]) -> tuple[int, int]:
            rank, table = ranks[one[0]]
            return rank, table.offset(one[1])

        return sorted(found, key=place)


def _find_edges(table: NodeTable) -> _Edges:
    edges: _Edges = {}
    for name in table:
        for position, text in enumerate(table.data_inputs(name)):
            users = edges.setdefault(split_input(text)[0], {})
            users.setdefault(name, []).append(position)
    return edges
