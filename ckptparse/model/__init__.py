"""A SavedModel: the directory, opened; nothing of the model is run.

    saved_model.pb | .pbtxt | .cpb    meta graphs: signatures, graphs, objects
    variables/                        the variables' checkpoint
    assets/                           files that the graph reads
    fingerprint.pb                    hashes
    keras_metadata.pb                 layers of Keras 2
    tfhub_module.pb                   says that it is a TF-Hub module of TF1

Each part is read when asked for, and raises by itself: a broken `saved_model.pb` leaves the
variables and their layers readable (docs/format.md, sections 8.1 and 8.4).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ckptparse.backend import Origin
from ckptparse.checkpoint import Checkpoint
from ckptparse.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    ClosedError,
    DataLossError,
    LimitError,
)
from ckptparse.filenames import INDEX_SUFFIX
from ckptparse.files.context import Context
from ckptparse.files.fingerprint import fingerprint_path
from ckptparse.files.storage import is_file
from ckptparse.graph.effects.effect import Effect
from ckptparse.graph.layers import (
    Layer,
    LayersSource,
    find_layers,
)
from ckptparse.graph.object_graph import ObjectGraph
from ckptparse.graph.optimizer import (
    Averages,
    Optimizer,
    find_averages,
    find_optimizers,
    the_optimizer,
)
from ckptparse.graph.tree import Tree, object_tree
from ckptparse.inventory.by_model import take_saved_model
from ckptparse.inventory.folders import Folders
from ckptparse.inventory.inventory import Candidate, Inventory
from ckptparse.model.keras import Describer, list_user_objects
from ckptparse.model.variables import Fingerprints, Variables, VariablesOpener, open_none
from ckptparse.opening import (
    judge_saved_model,
    lost_variables,
    open_inventory,
)
from ckptparse.saved_model.fingerprint import FINGERPRINT_FILE, Fingerprint, read_fingerprint
from ckptparse.saved_model.hub import HUB_FILE, check_hub_module
from ckptparse.saved_model.keras_metadata import (
    KERAS_METADATA_FILE,
    KerasObject,
    read_keras_metadata,
)
from ckptparse.saved_model.meta_graph import MetaGraph
from ckptparse.saved_model.objects import SavedObjects
from ckptparse.saved_model.reading import SerializedModel, find_saved_model_file, read_saved_model

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["SavedModel"]

_VARIABLES = "variables"


class SavedModel:
    """A SavedModel, read part by part; a context manager, which closes its variables.

    Attributes:
        path: Its directory.
    """

    def __init__(self, directory: str, context: Context, *, verify: bool = True) -> None:
        """Take a directory, in which nothing is read yet.

        Args:
            directory: The SavedModel's.
            context: Where it lies, and how much its files may ask for.
            verify: Whether checksums are compared, and a chunked SavedModel's hashes.
        """
        self.path = directory
        self._context = context
        self._verify = verify
        self._closed = False
        self._expected: Fingerprints | None = None
        self._broken: CheckpointError | None = None

    # The message

    @property
    def file(self) -> str | None:
        """Path of the `saved_model.pb`, `.pbtxt` or `.cpb` that counts, or None."""
        return find_saved_model_file(self._context.storage, self.path)

    @property
    def schema_version(self) -> int:
        """Version of the message's schema: 1 so far. Errors are those of `meta_graphs`."""
        with self._judged():
            return self._serialized.schema_version

    @cached_property
    def meta_graphs(self) -> list[MetaGraph]:
        """The meta graphs, in the order of the file.

        Raises:
            DataLossError: The file does not parse.
            CheckpointNotFoundError: It is not there.
            NotACheckpointError: Something else is in its place; `.identity` says what.
            LimitError: It asks for more than the limits allow.
        """
        with self._judged():
            return [
                MetaGraph(
                    data,
                    directory=self.path,
                    variables=Variables(self),
                    context=self._context,
                    path=self.file,
                    objects=self._serialized.objects,
                )
                for data in self._serialized.meta_graphs
            ]

    def meta_graph(self, *tags: str) -> MetaGraph:
        """Return the meta graph of exactly these tags, in any order.

        Without tags: that of no tags, else the only one.

        Raises:
            CheckpointNotFoundError: There is none.
            CheckpointError: As for `meta_graphs`.
        """
        for meta_graph in self.meta_graphs:
            if set(meta_graph.tags) == set(tags):
                return meta_graph
        if not tags and len(self.meta_graphs) == 1:
            return self.meta_graphs[0]
        present = ", ".join(repr(list(meta_graph.tags)) for meta_graph in self.meta_graphs)
        raise CheckpointNotFoundError(
            f"The SavedModel has no meta graph with the tags {list(tags)}",
            path=self.path,
            hint=f"It has {present}" if present else "It has none at all",
        )

    @property
    def assets(self) -> Mapping[str, str]:
        """The files that its graphs read: name -> real path, never outside the directory.

        Raises:
            MalformedError: A name leads out of the directory.
        """
        found: dict[str, str] = {}
        for meta_graph in self.meta_graphs:
            found |= meta_graph.assets
        return found

    @cached_property
    def effects(self) -> tuple[Effect, ...]:
        """What it would do beyond computing, if someone loaded or called it; nothing is run.

        The operations that read or write files, run Python, need a library, or reach the network
        or the host, wherever they stand: in the graphs, in functions inside of functions, in
        graphs that a graph carries as data, and in the code of Keras's `Lambda` layers. What
        every model has is told apart (`Effect.ordinary`).

        What cannot be read of Keras's metadata counts as hidden, and leaves the rest told.

        Raises:
            CheckpointError: As for `meta_graphs`.
        """
        from ckptparse.saved_model.keras_effects import find_keras_effects, hidden_effect

        found = [effect for meta_graph in self.meta_graphs for effect in meta_graph.effects]
        # All that is written, whichever of it a version of Keras reads, and twice under one path.
        try:
            written = self._keras_file()
        except CheckpointError:
            written = []
            found.append(hidden_effect("SavedMetadata", KERAS_METADATA_FILE))
        return (*found, *find_keras_effects((*written, *self._user_objects)))

    # The variables and the objects

    @cached_property
    def variables(self) -> Checkpoint:
        """The variables; empty if the model has none.

        Raises:
            CheckpointNotFoundError: They are not there, and the model has some.
            DataLossError: Their index is damaged.
            ClosedError: The model has been closed.
        """
        self._check_open()
        inventory = take_saved_model(self.path, Folders(self._context))
        meant = inventory.meant
        if meant is not None and meant.format == "graph":
            if self._may_have_variables():
                raise lost_variables(self.path, self._context)
            place = Candidate("v2", self._beside(_VARIABLES, _VARIABLES))
            opener = VariablesOpener(place, self.path, self._context, self._verify, self)
            return Checkpoint(Origin(opener, open_none(self._context)), place.path)
        return self._open_variables(inventory)

    @property
    def has_variables(self) -> bool:
        """Whether the graphs or the objects have variables; errors are those of `meta_graphs`."""
        return any(meta_graph.has_variables for meta_graph in self.meta_graphs)

    @cached_property
    def objects(self) -> SavedObjects | None:
        """The objects of a TF2 SavedModel; None for one of TF1. Raises as `meta_graphs` does."""
        found = (meta_graph.objects for meta_graph in self.meta_graphs)
        return next((objects for objects in found if objects is not None), None)

    @property
    def layers(self) -> list[Layer]:
        """The layers of the model, in its order, each with its weights.

        Names, classes and configurations are those that Keras 2 wrote. Where the SavedModel's own
        message is broken, the layers are those of the variables' object graph.
        """
        return self._layers[0]

    @property
    def layers_source(self) -> LayersSource | None:
        """What the layers were found by: `"keras_metadata"`, `"object_graph"` or `"names"`.

        None if damage hides them; never raises, as `layers` does, which says what is damaged.
        """
        try:
            return self._layers[1]
        except CheckpointError:
            return None

    @cached_property
    def optimizers(self) -> list[Optimizer]:
        """Every optimizer: its slots by variable, iterations, learning rate."""
        graph = self._graph
        return self.variables.optimizers if graph is None else list(find_optimizers(graph))

    @property
    def optimizer(self) -> Optimizer | None:
        """The optimizer, or None.

        Raises:
            AmbiguousError: There are several: `optimizers` has all.
        """
        return the_optimizer(self.optimizers, path=self.path)

    @cached_property
    def averages(self) -> Averages:
        """The moving averages of variables, by the variable; see `Checkpoint.averages`."""
        graph = self._graph
        if graph is None:
            return self.variables.averages
        return find_averages(graph, find_optimizers(graph))

    @property
    def step(self) -> int | None:
        """The training step; see `Checkpoint.step`."""
        return self.variables.step

    def tree(self, *, everything: bool = False) -> Tree:
        """Make the tree of objects, or of TF1 variables' scopes, to print or to walk.

        Args:
            everything: Whether objects are shown that keep nothing, nor any object below them.
        """
        graph = self._graph
        return self.variables.tree() if graph is None else object_tree(graph, everything=everything)

    # The other files

    @cached_property
    def fingerprint(self) -> Fingerprint | None:
        """The hashes in `fingerprint.pb`; None without one.

        Raises:
            MalformedError: It does not parse.
        """
        path = self._beside(FINGERPRINT_FILE)
        if not self._has_file(path):
            return None
        index = self._beside(_VARIABLES, _VARIABLES) + INDEX_SUFFIX
        return read_fingerprint(path, index, self._context)

    @cached_property
    def keras_metadata(self) -> Mapping[str, KerasObject] | None:
        """What Keras 2 wrote of its objects, by path (`root.layer-0`); None for another model.

        Raises:
            MalformedError: It does not parse.
        """
        found = self._keras_file()
        if not self._has_file(self._beside(KERAS_METADATA_FILE)):
            found = self._user_objects
        return {item.path: item for item in found} or None

    def _keras_file(self) -> list[KerasObject]:
        """Read `keras_metadata.pb`; nothing if there is none."""
        path = self._beside(KERAS_METADATA_FILE)
        return read_keras_metadata(path, self._context) if self._has_file(path) else []

    @property
    def is_hub_module(self) -> bool:
        """Whether it is a TF-Hub module of TF1."""
        return self._has_file(self._beside(HUB_FILE))

    def check_hub_module(self) -> None:
        """Refuse a TF-Hub module that needs more than reading a SavedModel.

        Raises:
            UnsupportedError: It has another format, or features that nobody here knows. A
                description that does not parse refuses nothing.
        """
        if self.is_hub_module:
            check_hub_module(self._beside(HUB_FILE), self._context)

    def close(self) -> None:
        """Close the variables, and open them no more."""
        self._closed = True
        opened = self.__dict__.get("variables")
        if opened is not None:
            opened.close()
        self._context.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle its path and options; in another process it is read again, part by part.

        Raises:
            ClosedError: It has been closed.
        """
        self._check_open()
        path, context = self._context.absolute(self.path), self._context.again()
        return SavedModel._reopen, (path, context, self._verify, self._fingerprints())

    def __copy__(self) -> SavedModel:
        """Return a copy, which is closed by itself."""
        self._check_open()
        context = self._context.again()
        return self._reopen(self.path, context, self._verify, self._fingerprints())

    def __deepcopy__(self, memo: dict[int, Any]) -> SavedModel:
        return self.__copy__()

    @classmethod
    def _reopen(
        cls,
        path: str,
        context: Context,
        verify: bool,  # noqa: FBT001 - as it is pickled
        expected: Fingerprints,
    ) -> SavedModel:
        model = cls(path, context, verify=verify)
        model._expected = expected
        return model

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("The SavedModel has been closed", path=self.path)

    def _repr_html_(self) -> str:
        """Show it in a notebook."""
        from ckptparse.rendering.notebook import model_html

        return model_html(self)

    def __repr__(self) -> str:
        return f"<SavedModel {self.path!r}>"

    @cached_property
    def _serialized(self) -> SerializedModel:
        if self._expected is not None and self.file is not None:
            from ckptparse.backend.reopening import check_unchanged

            found = fingerprint_path(self.file, self._context)
            check_unchanged(found, self._expected.message, self.file)
        return read_saved_model(self.path, self._context, verify=self._verify)

    @contextmanager
    def _judged(self) -> Iterator[None]:
        """Say what lies in place of a broken message, which is read no second time."""
        if self._broken is not None:
            raise self._broken
        try:
            yield
        except LimitError as error:
            self._broken = error
            raise
        except DataLossError as error:
            self._broken = judge_saved_model(self.file or self.path, error, self._context)
            if self._broken is error:
                raise
            raise self._broken from error

    @property
    def _graph(self) -> ObjectGraph | None:
        """The objects, or, if the message is broken, those of the variables' checkpoint."""
        try:
            return self.objects
        except LimitError:
            raise
        except CheckpointError:
            return self.variables.object_graph

    @cached_property
    def _layers(self) -> tuple[list[Layer], LayersSource]:
        graph = self._graph
        if graph is None:
            return self.variables.layers, self.variables.layers_source or "names"
        return find_layers(graph, Describer(self.keras_metadata or {}))

    def _open_variables(self, inventory: Inventory) -> Checkpoint:
        expected = None if self._expected is None else self._expected.variables
        if expected is not None and inventory.meant is not None:
            from ckptparse.backend.reopening import ReopenedBackend

            opener = VariablesOpener(inventory.meant, self.path, self._context, self._verify, self)
            origin = Origin(opener, ReopenedBackend(opener, expected), is_shared=True)
        else:
            meant, backend = open_inventory(inventory, self._context)
            opener = VariablesOpener(meant, self.path, self._context, self._verify, self)
            origin = Origin(opener, backend)
        return Checkpoint(origin, opener.path, verify=self._verify)

    def _fingerprints(self) -> Fingerprints:
        """Take those of the files that tell what the model is."""
        if self._expected is not None:
            return self._expected
        meant = take_saved_model(self.path, Folders(self._context)).meant
        index = None if meant is None or meant.format != "v2" else meant.index_path
        return Fingerprints(
            *(
                None if path is None else fingerprint_path(path, self._context)
                for path in (self.file, index)
            )
        )

    def _may_have_variables(self) -> bool:
        """Tell whether variables are to be expected; yes if nobody can say."""
        try:
            return self.has_variables
        except CheckpointError:
            return True

    def _beside(self, *names: str) -> str:
        path = self.path
        for name in names:
            path = self._context.storage.join(path, name)
        return path

    def _has_file(self, path: str) -> bool:
        return is_file(self._context.storage, path)

    @cached_property
    def _user_objects(self) -> list[KerasObject]:
        """Take the metadata that Keras kept in the objects before it had a file of its own."""
        try:
            return list_user_objects(self.objects)
        except LimitError:
            raise
        except CheckpointError:
            return []
