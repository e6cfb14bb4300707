"""What a graph says of the checkpoint beside it: the order of variables, and who updates which.

    Adam/update_w/ApplyAdam       inputs w, w/Adam, w/Adam_1, beta1_power, beta2_power ...
    train/Adam_1/update_v/...     another optimizer

The op that updates a variable takes its slots; what stands before `/update` in its name is the
optimizer's. Sparse updates of some optimizers have no such op.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckptparse.graph.flow import Flow, Place
from ckptparse.graph.nodes import Node
from ckptparse.graph.roles import GraphRoles, GraphSlot

if TYPE_CHECKING:
    from ckptparse.graph.graph import Graph

__all__ = ["read_graph_roles", "stored_names"]

_BETA1, _BETA2 = "beta1_power", "beta2_power"
_INPUTS: dict[str, tuple[str, ...]] = {
    "AdaMax": ("m", "v", _BETA1),
    "Adadelta": ("accum", "accum_update"),
    "Adagrad": ("accumulator",),
    "AdagradDA": ("gradient_accumulator", "gradient_squared_accumulator"),
    "AdagradV2": ("accumulator",),
    "Adam": ("m", "v", _BETA1, _BETA2),
    "AdamWithAmsgrad": ("m", "v", "vhat", _BETA1, _BETA2),
    "AddSign": ("m",),
    "CenteredRMSProp": ("mg", "rms", "momentum"),
    "Ftrl": ("accum", "linear"),
    "FtrlV2": ("accum", "linear"),
    "KerasMomentum": ("momentum",),
    "Momentum": ("momentum",),
    "PowerSign": ("m",),
    "ProximalAdagrad": ("accumulator",),
    "RMSProp": ("rms", "momentum"),
}
"""What ops take after the variable."""

_APPLY = re.compile(r"(?:Resource)?(?:Sparse)?Apply(\w+)")


def read_graph_roles(graph: Graph) -> GraphRoles:
    """Read the order of a graph's variables, and what its updating ops say of slots."""
    stored = stored_names(graph)
    slots: dict[str, GraphSlot] = {}
    others: dict[str, str] = {}
    for owner, variable, kept in _updates(graph):
        for slot, name in kept:
            key = stored.get(name, name)
            if slot in (_BETA1, _BETA2):
                others[key] = owner
            else:
                slots[key] = GraphSlot(stored.get(variable, variable), slot, owner)
    order = dict.fromkeys(stored.get(name, name) for name in graph.variables)
    return GraphRoles(tuple(order), slots, others)


def stored_names(graph: Graph) -> dict[str, str]:
    """Return the name in the checkpoint of each variable that a Saver calls otherwise."""
    names: dict[str, str] = {}
    for variable in graph.variables.values():
        if variable.slice_info is not None:
            names[variable.name] = variable.slice_info.full_name
    for saver in graph.savers:
        for op in saver.ops:
            for tensor in op.tensors:
                if tensor.variable is not None:
                    names.setdefault(tensor.variable, tensor.name)
    return names


def _updates(graph: Graph) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """Iterate over updates: the optimizer, the variable, and what the op takes by its name."""
    flow = Flow(graph)
    nodes = {node: name for name, item in graph.variables.items() for node in item.nodes}
    for name in graph.nodes:
        kind = _APPLY.fullmatch(graph.nodes.op(name))
        taken = _INPUTS.get(kind[1]) if kind is not None else None
        if taken is None:
            continue
        sources = list(_sources(flow, graph.nodes[name], Place(graph.nodes, name), len(taken) + 1))
        variable, *kept = (nodes.get(source) for source in sources)
        if variable is not None:
            owner = name.partition("/update")[0]
            found = [(slot, one) for slot, one in zip(taken, kept, strict=False) if one is not None]
            yield owner, variable, found


def _sources(flow: Flow, node: Node, place: Place, count: int) -> Iterator[str]:
    """Iterate over the nodes of the graph that the first inputs come from."""
    for text in node.data_inputs[:count]:
        source = flow.source(place, text)
        yield source.name if source is not None and source.table.function is None else ""
    yield from [""] * (count - len(node.data_inputs))
