"""A graph as its reader sees it: nodes, constants, variables, Savers, functions and versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

from ckptparse.errors import name_not_found
from ckptparse.graph.effects.effect import Effect
from ckptparse.graph.flow import Flow
from ckptparse.graph.meta_graph import MetaParts, decode_meta_graph
from ckptparse.graph.nodes import Node, split_input
from ckptparse.graph.parts import GraphParts
from ckptparse.graph.savers import Saver, find_savers
from ckptparse.graph.variables import GraphVariable, find_variables
from ckptparse.limits import DEFAULT_LIMITS, Limits
from ckptparse.proto.graph_pb2 import GraphDef
from ckptparse.proto.meta_graph_pb2 import MetaGraphDef
from ckptparse.proto.parsing import parse_text
from ckptparse.proto.wire import Buffer

__all__ = ["Graph"]

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Graph(GraphParts):
    """A GraphDef, or the one inside a MetaGraphDef with what that says of it.

    Attributes:
        nodes: Mapping name -> `Node` (`name op inputs device attributes`), in the file's order.
        functions: Mapping name -> `GraphFunction`, with `nodes` of its own.
        producer: Number of the TensorFlow that wrote it; TensorFlow's `graph_def_versions`. 0 if
            it does not say, as graphs of before December 2015.
        deprecated_version: The field `version` that those have instead; else 0.
        min_consumer: Number of the oldest TensorFlow that may read it.
        path: The file, or None.
    """

    def __init__(
        self,
        data: Buffer,
        *,
        meta: MetaParts | None = None,
        limits: Limits = DEFAULT_LIMITS,
        path: str | None = None,
    ) -> None:
        super().__init__(data, limits=limits, path=path)
        self._meta = meta
        self._message = data if meta is None else meta.message
        self._flow = Flow(self)

    @classmethod
    def from_graph_def(
        cls, data: Buffer, *, limits: Limits = DEFAULT_LIMITS, path: str | None = None
    ) -> Graph:
        """Index a serialized GraphDef.

        Raises:
            MalformedError: The bytes are no GraphDef.
            LimitError: It asks for more than the limits allow.
        """
        return cls(data, limits=limits, path=path)

    @classmethod
    def from_meta_graph(
        cls, data: Buffer, *, limits: Limits = DEFAULT_LIMITS, path: str | None = None
    ) -> Graph:
        """Index a serialized MetaGraphDef; raises as `from_graph_def` does."""
        meta = decode_meta_graph(data, limits=limits, path=path)
        return cls(meta.graph, meta=meta, limits=limits, path=path)

    @classmethod
    def from_text(
        cls, text: bytes, *, is_meta: bool, limits: Limits = DEFAULT_LIMITS, path: str | None = None
    ) -> Graph:
        """Parse a GraphDef or a MetaGraphDef that is text; raises as `from_graph_def` does."""
        text = text.removeprefix(_BYTE_ORDER_MARK)
        if is_meta:
            meta = parse_text(MetaGraphDef, text, limits=limits, path=path, what="a meta graph")
            return cls.from_meta_graph(meta.SerializeToString(), limits=limits, path=path)
        graph = parse_text(GraphDef, text, limits=limits, path=path, what="a graph")
        return cls.from_graph_def(graph.SerializeToString(), limits=limits, path=path)

    @property
    def is_meta_graph(self) -> bool:
        """Whether it comes with what a MetaGraphDef has beside the graph."""
        return self._meta is not None

    @property
    def tensorflow_version(self) -> str | None:
        """The TensorFlow that wrote the meta graph, such as `2.21.0`; None if it is not said."""
        return (self._meta.info.tensorflow_version or None) if self._meta else None

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags of the meta graph."""
        return tuple(self._meta.info.tags) if self._meta else ()

    @property
    def collections(self) -> Mapping[str, tuple[Any, ...]]:
        """The collections of the meta graph by name: `str` for nodes, else what is stored."""
        return self._meta.collections if self._meta else {}

    @cached_property
    def variables(self) -> Mapping[str, GraphVariable]:
        """The variables by name; several handles of one shared variable are one."""
        return find_variables(self, self._meta.variables() if self._meta else {})

    @cached_property
    def savers(self) -> tuple[Saver, ...]:
        """The Savers: which tensors each saves, under which names, in the order of the file."""
        definitions = self._meta.savers() if self._meta else []
        return tuple(find_savers(self, self._flow, self.variables.values(), definitions))

    @cached_property
    def effects(self) -> tuple[Effect, ...]:
        """What it would do beyond computing, if someone ran it; nothing is run.

        The operations that read or write files, run Python, need a library, or reach the network
        or the host, in the graph, its functions and the graphs that it carries as data.

        Raises:
            LimitError: More nodes may do something than `Limits.steps` allows, of which each counts
                as 4: one for each 128 bytes of the graph, and 10,000.
        """
        from ckptparse.graph.effects.finding import find_effects
        from ckptparse.graph.effects.tracing import Names

        names = Names(self.saver_nodes, takes_default=True)
        return tuple(find_effects(self, names, tags=self.tags))

    @property
    def saver_nodes(self) -> frozenset[str]:
        """The nodes through which its Savers are given the name of a checkpoint."""
        definitions = self._meta.savers() if self._meta else []
        return frozenset(split_input(item.filename_tensor_name)[0] for item in definitions)

    def consumers(self, name: str) -> tuple[Node, ...]:
        """Return the nodes that use a variable, or the results of any node of the graph.

        Seen through are nodes that pass a tensor on (Identity, ReadVariableOp) and calls of
        functions: what uses it inside a function is told by `Node.function`.

        Args:
            name: A variable, which may be shared by several nodes, or a node; `:0` is accepted.

        Raises:
            TensorNotFoundError: There is no node of that name.
            LimitError: More edges lead to them than `Limits.steps` allows.
        """
        node, _ = split_input(name)
        if node not in self.nodes:
            message = "No node of that name in the graph"
            raise name_not_found(message, name, self.nodes, path=self.path)
        return tuple(self._flow.consumers(self._sharing.get(node, (node,))))

    @cached_property
    def _sharing(self) -> Mapping[str, Sequence[str]]:
        """Of each node that is a variable, all nodes of that variable."""
        found: dict[str, Sequence[str]] = {}
        for variable in self.variables.values():
            for node in variable.nodes:
                found.setdefault(node, variable.nodes)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle its bytes: it needs no file any more."""
        make = Graph.from_graph_def if self._meta is None else Graph.from_meta_graph
        return partial(make, limits=self.limits, path=self.path), (bytes(self._message),)

    def __copy__(self) -> Graph:
        return self  # It does not change.

    def __deepcopy__(self, memo: dict[int, Any]) -> Graph:
        return self

    def __repr__(self) -> str:
        return f"<Graph of {len(self.nodes)} nodes and {len(self.functions)} functions>"
