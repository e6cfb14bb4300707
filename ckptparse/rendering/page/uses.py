"""The graph of variables and who uses them, collapsed by scope; nothing is run.

    variable w ──> scope dense ──> scope loss        an arrow: what one gives, the other takes

A scope holds the nodes whose names begin alike, of one function. Names are cut shorter until no
more than 200 things are left to draw. What only saves, restores or initializes is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ckptparse.errors import LimitError
from ckptparse.graph.flow import Flow
from ckptparse.graph.graph import Graph
from ckptparse.rendering.page.subject import Subject
from ckptparse.text import escape

__all__ = ["make_uses"]

_MOST_DRAWN = 200
_DEEPEST = 8
_MOST_NODES, _MOST_VARIABLES = 200_000, 20_000
"""The uses in a graph of more nodes or variables are not searched, nor if more edges lead from
variables to users than `Limits.steps` allows: each call of a function uses all it has. Scopes are
drawn up to 8 deep, or less deep if there would be more than 200 boxes: a drawing of more cannot be
read."""
_UNINTERESTING = frozenset(
    {
        *("SaveV2", "Save", "SaveSlices", "RestoreV2", "Restore", "RestoreSlice", "NoOp"),
        *("AssignVariableOp", "Assign", "VarIsInitializedOp", "IsVariableInitialized"),
        *("DisableCopyOnRead", "MergeV2Checkpoints", "ReadVariableOp", "Identity"),
        *("HistogramSummary", "ScalarSummary", "MergeSummary", "DestroyResourceOp"),
    }
)


class _Use(NamedTuple):
    """A variable and a node that takes its value; or the scopes of both."""

    variable: str
    function: str | None
    node: str


def make_uses(subject: Subject) -> dict[str, Any] | None:
    """Make the graph of a page: things to draw and arrows between them; None without any.

    Nothing to draw, but `left_out`, if the uses are too many to be searched.
    """
    for graph in _graphs(subject):
        drawn = subject.ask(lambda found=graph: _draw_uses(found))  # type: ignore[misc]
        if drawn is not None:
            return drawn
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


def _draw_uses(graph: Graph) -> dict[str, Any] | None:
    flow = Flow(graph)
    uses = _find_uses(graph, flow)
    if uses is None:
        return {"nodes": [], "edges": [], "more": 0, "left_out": True}
    return _collapse(graph, flow, uses) if uses else None


def _find_uses(graph: Graph, flow: Flow) -> list[_Use] | None:
    """Return the uses of every variable; None if they are too many to be drawn."""
    nodes = sum(len(table) for table in graph.tables())
    if nodes > _MOST_NODES or len(graph.variables) > _MOST_VARIABLES:
        return None if graph.variables else []
    uses: list[_Use] = []
    for variable in graph.variables.values():
        try:
            places = flow.places(variable.nodes)
            flow.check_all()
        except LimitError:
            return None
        uses += [
            _Use(variable.name, place.table.function, place.name)
            for place in places
            if not _is_upkeep(place.name, place.table.op(place.name))
        ]
    return uses


def _is_upkeep(name: str, op: str) -> bool:
    """Tell whether a node belongs to saving, or to an optimizer's step of training."""
    return (
        op in _UNINTERESTING
        or name.partition("/")[0].startswith(("save", "gradients"))
        or op.startswith(
            ("Apply", "ResourceApply", "ResourceSparseApply", "AssignAdd", "AssignSub")
        )
    )


Place = tuple[str | None, str]


def _collapse(graph: Graph, flow: Flow, uses: list[_Use]) -> dict[str, Any]:
    """Cut names shorter until few enough things are left."""
    flows = list(_flows(graph, flow, uses))
    for depth in range(_DEEPEST, 0, -1):
        # What was cut to nine parts and is cut to eight is as if it was cut to eight at once.
        uses = list(dict.fromkeys(_cut_use(use, depth) for use in uses))
        flows = list(dict.fromkeys(_cut_flow(pair, depth) for pair in flows))
        drawing = _Drawing()
        if drawing.draw(uses, flows, most=_MOST_DRAWN):
            return drawing.to_dict()
        if not any("/" in use.node for use in uses) and not any(
            "/" in name for pair in flows for _, name in pair
        ):
            break  # Nothing can be cut shorter.
    drawing = _Drawing()
    drawing.draw([use._replace(variable=_scope(use.variable, 1)) for use in uses], flows)
    return drawing.to_dict(_MOST_DRAWN)


def _cut_use(use: _Use, depth: int) -> _Use:
    return _Use(use.variable, use.function, _scope(use.node, depth))


def _cut_flow(pair: tuple[Place, Place], depth: int) -> tuple[Place, Place]:
    (giver, source), (taker, target) = pair
    return (giver, _scope(source, depth)), (taker, _scope(target, depth))


def _flows(graph: Graph, flow: Flow, uses: Iterable[_Use]) -> Iterator[tuple[Place, Place]]:
    """Iterate over pairs of nodes of one function, the one taking what the other gives."""
    wanted: dict[str | None, dict[str, None]] = {}
    for use in uses:
        wanted.setdefault(use.function, {})[use.node] = None
    for function, nodes in wanted.items():
        table = graph.nodes if function is None else graph.functions[function].nodes
        users = flow.users(table)
        reached = _reached(users, nodes)
        for source in reached:
            for name in users.get(source, ()):
                if name in reached:
                    yield (function, source), (function, name)


def _reached(users: Mapping[str, Iterable[str]], start: Iterable[str]) -> dict[str, None]:
    """Return the nodes that are given, near or far, what some nodes make; and those themselves."""
    found = dict.fromkeys(start)
    pending = list(found)
    while pending:
        for user in users.get(pending.pop(), ()):
            if user not in found and not user.startswith(("save", "gradients")):
                found[user] = None
                pending.append(user)
    return found


def _scope(name: str, depth: int) -> str:
    """Return the first parts of a name; of one without parts, itself."""
    parts = name.split("/", depth)
    return "/".join(parts[: min(depth, max(1, len(parts) - 1))])


class _Drawing:
    """Things and arrows, each once."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str | None, str], int] = {}
        self._edges: dict[tuple[int, int], None] = {}
        self._users: dict[int, int] = {}

    def draw(
        self,
        uses: Iterable[_Use],
        flows: Iterable[tuple[Place, Place]],
        *,
        most: int | None = None,
    ) -> bool:
        """Draw uses and flows; stop, and return False, when there are more things than allowed."""
        for use in uses:
            source = self._node("variable", None, use.variable)
            target = self._node("scope", use.function, use.node)
            if (source, target) not in self._edges:
                self._edges[source, target] = None
                self._users[source] = self._users.get(source, 0) + 1
            if most is not None and len(self._numbers) > most:
                return False
        for giver, taker in flows:
            source, target = self._node("scope", *giver), self._node("scope", *taker)
            if source != target:
                self._edges[source, target] = None
            if most is not None and len(self._numbers) > most:
                return False
        return True

    def _node(self, kind: str, function: str | None, name: str) -> int:
        """Return the number of a thing."""
        return self._numbers.setdefault((kind, function, name), len(self._numbers))

    def to_dict(self, most: int | None = None) -> dict[str, Any]:
        """Return it as JSON has it, at most so many things; a variable of several users is marked.

        `more` counts the things that are left out.
        """
        kept = list(self._numbers.items())[:most]
        return {
            "nodes": [
                [
                    "shared" if self._users.get(number, 0) > 1 else kind,
                    escape(name),
                    escape(function or ""),
                ]
                for (kind, function, name), number in kept
            ],
            "edges": [
                [source, target]
                for source, target in self._edges
                if source < len(kept) and target < len(kept)
            ],
            "more": len(self._numbers) - len(kept),
        }
