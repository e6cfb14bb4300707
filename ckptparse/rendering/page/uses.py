"""The graph of variables and who uses them, collapsed by scope; nothing is run.

    variable w ──> scope dense ──> scope loss        an arrow: what one gives, the other takes

A scope holds the nodes whose names begin alike, of one function. Names are cut shorter until no
more than 200 things are left to draw. What only saves, restores or initializes is left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ckptparse.graph.graph import Graph
from ckptparse.graph.nodes import Node, split_input
from ckptparse.rendering.page.subject import Subject
from ckptparse.text import escape

__all__ = ["make_uses"]

_MOST_DRAWN = 200
_DEEPEST = 8
_MOST_NODES = 200_000
"""The uses in a graph of more nodes are not searched. Scopes are drawn up to 8 deep, or less deep
if there would be more than 200 boxes: a drawing of more cannot be read."""
_MOST_USES = 100_000
"""Nor if variables are used more often, all together: each call of a function uses all it has."""
_UNINTERESTING = frozenset(
    {
        *("SaveV2", "Save", "SaveSlices", "RestoreV2", "Restore", "RestoreSlice", "NoOp"),
        *("AssignVariableOp", "Assign", "VarIsInitializedOp", "IsVariableInitialized"),
        *("DisableCopyOnRead", "MergeV2Checkpoints", "ReadVariableOp", "Identity"),
        *("HistogramSummary", "ScalarSummary", "MergeSummary", "DestroyResourceOp"),
    }
)


@dataclass(frozen=True)
class _Use:
    """A variable and a node that takes its value."""

    variable: str
    function: str | None
    node: str


def make_uses(subject: Subject) -> dict[str, Any] | None:
    """Make the graph of a page: things to draw and arrows between them; None without any."""
    for graph in _graphs(subject):
        uses = subject.ask(lambda found=graph: _find_uses(found))  # type: ignore[misc]
        if uses:
            return subject.ask(
                lambda found=graph, told=uses: _collapse(found, told)  # type: ignore[misc]
            )
    return None


def _graphs(subject: Subject) -> Iterator[Graph]:
    if subject.graph is not None:
        yield subject.graph
    model = subject.model
    if model is not None:
        for meta_graph in subject.ask(lambda: model.meta_graphs) or ():
            graph = subject.ask(lambda found=meta_graph: found.graph)  # type: ignore[misc]
            if graph is not None:
                yield graph


def _find_uses(graph: Graph) -> list[_Use]:
    """Return the uses of every variable; none if they are too many to be drawn."""
    if sum(len(table) for table in graph.tables()) > _MOST_NODES:
        return []
    uses: list[_Use] = []
    left = _MOST_USES
    for variable in graph.variables.values():
        nodes = graph.consumers(variable.nodes[0])
        left -= len(nodes)
        if left < 0:
            return []
        uses += [
            _Use(variable.name, node.function, node.name)
            for node in nodes
            if node.op not in _UNINTERESTING and not _is_upkeep(node)
        ]
    return uses


def _is_upkeep(node: Node) -> bool:
    """Tell whether a node belongs to saving, or to an optimizer's step of training."""
    first = node.name.partition("/")[0]
    return first.startswith(("save", "gradients")) or node.op.startswith(
        ("Apply", "ResourceApply", "ResourceSparseApply", "AssignAdd", "AssignSub")
    )


def _collapse(graph: Graph, uses: list[_Use]) -> dict[str, Any]:
    """Cut names shorter until few enough things are left."""
    functions = list(dict.fromkeys(use.function for use in uses))
    flows = list(_flows(graph, functions, uses))
    for depth in range(_DEEPEST, 0, -1):
        drawn = _draw(uses, flows, depth, variables_apart=True)
        if len(drawn["nodes"]) <= _MOST_DRAWN:
            return drawn
    drawn = _draw(uses, flows, 1, variables_apart=False)
    if len(drawn["nodes"]) <= _MOST_DRAWN:
        return drawn
    kept = drawn["nodes"][:_MOST_DRAWN]
    edges = [edge for edge in drawn["edges"] if edge[0] < len(kept) and edge[1] < len(kept)]
    return {"nodes": kept, "edges": edges, "more": len(drawn["nodes"]) - len(kept)}


Place = tuple[str | None, str]


def _flows(
    graph: Graph, functions: Iterable[str | None], uses: Iterable[_Use]
) -> Iterator[tuple[Place, Place]]:
    """Iterate over pairs of nodes of one function, the one taking what the other gives."""
    takers = {(use.function, use.node) for use in uses}
    for function in functions:
        table = graph.nodes if function is None else graph.functions[function].nodes
        wanted = {name for where, name in takers if where == function}
        reached = _reached(table, wanted)
        for name in reached:
            for text in table[name].data_inputs:
                source, _ = split_input(text)
                if source in reached:
                    yield (function, source), (function, name)


def _reached(table: Mapping[str, Node], start: set[str]) -> set[str]:
    """Return the nodes that are given, near or far, what some nodes make; and those themselves."""
    users: dict[str, list[str]] = defaultdict(list)
    for name in table:
        for text in table[name].data_inputs:
            users[split_input(text)[0]].append(name)
    found, pending = set(start), list(start)
    while pending:
        for user in users.get(pending.pop(), ()):
            if user not in found and not user.startswith(("save", "gradients")):
                found.add(user)
                pending.append(user)
    return found


def _draw(
    uses: list[_Use], flows: list[tuple[Place, Place]], depth: int, *, variables_apart: bool
) -> dict[str, Any]:
    drawing = _Drawing()
    for use in uses:
        name = use.variable if variables_apart else _scope(use.variable, 1)
        source = drawing.node("variable", None, name)
        target = drawing.node("scope", use.function, _scope(use.node, depth))
        drawing.edge(source, target)
        drawing.nodes[source]["users"].add(target)
    for giver, taker in flows:
        source = drawing.node("scope", giver[0], _scope(giver[1], depth))
        target = drawing.node("scope", taker[0], _scope(taker[1], depth))
        if source != target:
            drawing.edge(source, target)
    return drawing.to_dict()


def _scope(name: str, depth: int) -> str:
    """Return the first parts of a name; of one without parts, itself."""
    parts = name.split("/")
    return "/".join(parts[: min(depth, max(1, len(parts) - 1))])


class _Drawing:
    """Things and arrows, each once."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self._numbers: dict[tuple[str, str | None, str], int] = {}
        self._edges: dict[tuple[int, int], None] = {}

    def node(self, kind: str, function: str | None, name: str) -> int:
        """Return the number of a thing."""
        number = self._numbers.setdefault((kind, function, name), len(self.nodes))
        if number == len(self.nodes):
            self.nodes.append({"kind": kind, "name": name, "function": function, "users": set()})
        return number

    def edge(self, source: int, target: int) -> None:
        """Note an arrow."""
        self._edges[source, target] = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it; a variable of several users is marked."""
        return {
            "nodes": [
                [
                    "shared" if len(node["users"]) > 1 else node["kind"],
                    escape(node["name"]),
                    escape(node["function"] or ""),
                ]
                for node in self.nodes
            ],
            "edges": [list(edge) for edge in self._edges],
            "more": 0,
        }
