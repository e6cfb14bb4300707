"""One meta graph of a SavedModel: a graph under its tags (docs/format.md, section 8.1).

    MetaGraphDef   1 meta_info_def: tags, versions   2 graph_def   3 saver_def   4 collection_def
                   5 signature_def   6 asset_file_def   7 object_graph_def

The graph, mostly the largest part, is indexed on the wire when asked for; the rest is parsed
without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Protocol

from ckptparse.coding.varint import encode_varint
from ckptparse.files.context import Context
from ckptparse.graph.effects.effect import Effect, PathOrigin
from ckptparse.graph.graph import Graph
from ckptparse.graph.nodes import split_input
from ckptparse.graph.object_graph import ObjectGraph, count_nodes
from ckptparse.graph.object_node import TensorSource
from ckptparse.limits import NUMBERS_AN_OBJECT, Objects
from ckptparse.proto.meta_graph_pb2 import AssetFileDef, MetaGraphDef
from ckptparse.proto.parsing import parse_message
from ckptparse.proto.wire import BYTES, GROUP, Buffer, iter_fields
from ckptparse.saved_model.assets import asset_paths, find_leading_out
from ckptparse.saved_model.objects import ConcreteFunction, SavedObjects
from ckptparse.saved_model.signatures import Signature, count_signatures, decode_signatures

if TYPE_CHECKING:
    from ckptparse.graph.effects.tracing import Name

__all__ = ["MetaGraph", "VariablesSource"]

_GRAPH = 2
_ASSETS_COLLECTION = "saved_model_assets"


class VariablesSource(TensorSource, Protocol):
    """The variables of a SavedModel, opened when first asked for."""

    def find_graph(self) -> ObjectGraph | None:
        """Return the object graph of the variables; None if it cannot be read."""
        ...


class MetaGraph:
    """A graph of a SavedModel with its signatures.

    Attributes:
        tags: What it is for, such as `("serve",)`; their order means nothing.
        tensorflow_version: The TensorFlow that wrote it, such as `2.21.0`; None if not said.
        signatures: By name.
    """

    def __init__(
        self,
        data: Buffer,
        *,
        directory: str,
        variables: VariablesSource,
        context: Context,
        path: str | None,
        objects: Objects | None = None,
    ) -> None:
        """Parse a serialized MetaGraphDef, but for its graph.

        Args:
            data: The message; it is kept.
            directory: Of the SavedModel.
            variables: Where its objects find their tensors.
            context: Where the SavedModel lies, and how much it may ask for.
            path: The file, for errors.
            objects: How many objects its file may become; as many as its own bytes allow if None.

        Raises:
            MalformedError: The bytes are no MetaGraphDef.
            LimitError: It asks for more than the limits allow.
        """
        self._data = data
        self._directory = directory
        self._variables = variables
        self._context = context
        self._path = path
        self._objects = objects or Objects(context.limits, len(data), path=path)
        self._message = parse_message(
            MetaGraphDef,
            _without_graph(data, self._objects),
            limits=context.limits,
            path=path,
            what="a meta graph",
        )
        _count(self._message, self._objects)
        info = self._message.meta_info_def
        self.tags: tuple[str, ...] = tuple(info.tags)
        self.tensorflow_version: str | None = info.tensorflow_version or None
        self.signatures: Mapping[str, Signature] = decode_signatures(
            self._message, limits=context.limits, path=path
        )

    @cached_property
    def graph(self) -> Graph:
        """The graph: nodes, constants, variables, functions of the library.

        Raises:
            MalformedError: Its bytes are no graph.
        """
        return Graph.from_meta_graph(self._data, limits=self._context.limits, path=self._path)

    @cached_property
    def assets(self) -> Mapping[str, str]:
        """The files that the graph reads: name -> real path, never outside the directory.

        Raises:
            MalformedError: A name leads out of the directory.
        """
        return asset_paths(self._context.storage, self._directory, self._asset_names)

    @cached_property
    def effects(self) -> tuple[Effect, ...]:
        """What the graph would do beyond computing, if someone loaded or called it.

        Nothing is run. What it does with its own variables and assets is told apart
        (`Effect.ordinary`).

        Raises:
            MalformedError: The graph's bytes are no graph.
        """
        from ckptparse.graph.effects.finding import find_effects
        from ckptparse.graph.effects.tracing import Name, Names

        named, other = self._named_assets(), Name(PathOrigin.COMPUTED)
        bound = {} if self.objects is None else self.objects.bound_assets
        by_number: dict[int | None, Name] = dict(enumerate(named))
        nodes = (split_input(item.tensor_info.name)[0] for item in self._asset_defs)
        pairs = list(zip(nodes, named, strict=True))
        names = Names(
            self.graph.saver_nodes,
            # Of several names for one node, one that leads out counts.
            dict(sorted(pairs, key=lambda pair: pair[1].origin is not PathOrigin.ASSET)),
            takes_default=self.objects is None,
            bound={
                function: tuple(by_number.get(number, other) for number in numbers)
                for function, numbers in bound.items()
            },
        )
        return tuple(find_effects(self.graph, names, tags=self.tags))

    def _named_assets(self) -> list[Name]:
        """Say of each asset's name that it is one; of one that leads out, that it is any file."""
        from ckptparse.graph.effects.tracing import Name

        names, asset = self._asset_names, Name(PathOrigin.ASSET)
        leading_out = find_leading_out(self._context.storage, self._directory, names)
        return [Name(PathOrigin.LITERAL, name) if name in leading_out else asset for name in names]

    @cached_property
    def objects(self) -> SavedObjects | None:
        """The objects of a TF2 SavedModel; None for one of TF1."""
        if not self._message.HasField("object_graph_def"):
            return None
        return SavedObjects(
            self._message.object_graph_def,
            checkpoint_graph=self._variables.find_graph(),
            tensors=self._variables,
            constant=lambda name: self.graph.constants[name],
            assets=lambda: self.asset_list,
            objects=self._objects,
            limits=self._context.limits,
            path=self._path,
        )

    @property
    def has_variables(self) -> bool:
        """Whether its graph or its objects have variables."""
        nodes = self._message.object_graph_def.nodes
        return any(node.HasField("variable") for node in nodes) or bool(self.graph.variables)

    @property
    def functions(self) -> Mapping[str, ConcreteFunction]:
        """The functions that objects call, with what they take and give; empty for TF1."""
        return {} if self.objects is None else self.objects.concrete_functions

    @property
    def function_aliases(self) -> Mapping[str, str]:
        """Function of the library -> the name its program gave it."""
        return dict(self._message.meta_info_def.function_aliases)

    @property
    def asset_list(self) -> list[str]:
        """The paths of the assets in the order of their numbers; raises as `assets` does."""
        return [self.assets[name] for name in self._asset_names]

    @property
    def _asset_names(self) -> list[str]:
        return [asset.filename for asset in self._asset_defs]

    @cached_property
    def _asset_defs(self) -> list[AssetFileDef]:
        found = list(self._message.asset_file_def)
        if not found and _ASSETS_COLLECTION in self._message.collection_def:
            values = self._message.collection_def[_ASSETS_COLLECTION].any_list.value
            self._objects.take(len(values))
            limits, path = self._context.limits, self._path
            found = [
                parse_message(AssetFileDef, one.value, limits=limits, path=path) for one in values
            ]
        # Every directory on the way is looked at.
        self._objects.take(sum(asset.filename.count("/") for asset in found))
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle its bytes, and how its variables are opened."""
        make = partial(
            MetaGraph,
            directory=self._directory,
            variables=self._variables,
            context=self._context,
            path=self._path,
        )
        return make, (bytes(self._data),)

    def __repr__(self) -> str:
        return f"<MetaGraph {', '.join(self.tags) or '(no tags)'}>"


def _count(message: MetaGraphDef, objects: Objects) -> None:
    """Count what a meta graph lists, beside its fields.

    Raises:
        LimitError: It is more than `Limits.objects` allows.
    """
    if objects.is_idle:
        return
    info, functions = message.meta_info_def, message.object_graph_def.concrete_functions
    objects.take(len(info.tags) + len(info.function_aliases) + len(functions))
    count_signatures(message, objects)
    for function in functions.values():
        objects.take(len(function.bound_inputs) / NUMBERS_AN_OBJECT)
    count_nodes(message.object_graph_def.nodes, objects)


def _without_graph(data: Buffer, objects: Objects) -> bytes:
    """Serialize a message again without its graph; its fields count as objects."""
    pieces: list[Buffer] = []
    for number, wire, start, end in iter_fields(data):
        objects.take()
        if number == _GRAPH or wire == GROUP:
            continue
        pieces.append(encode_varint(number << 3 | wire))
        if wire == BYTES:
            pieces.append(encode_varint(end - start))
        pieces.append(data[start:end])
    return b"".join(pieces)
