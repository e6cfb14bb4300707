"""One face over all formats: a `Checkpoint` is a mapping from names to lazy tensors.

A format takes part by a `Backend` (`ckptparse.backend`). Names, patterns and keys are those of the
chosen naming; `Tensor.name` is always as stored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, ItemsView, Iterable, Iterator, Mapping, ValuesView
from dataclasses import replace
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy.typing as npt

from ckptparse.backend import (
    OBJECT_GRAPH_KEY,
    Backend,
    Format,
    Origin,
    OrphanOrigin,
    OrphanSlice,
)
from ckptparse.dtypes import DataType
from ckptparse.errors import (
    CheckpointError,
    ClosedError,
    MalformedError,
    TensorNotFoundError,
    name_not_found,
)
from ckptparse.files.storage import held_bytes
from ckptparse.limits import check_small, count_named
from ckptparse.tensor import DEFAULT_OPTIONS, ReadOptions, Tensor

if TYPE_CHECKING:
    import re

    from typing_extensions import Self

    from ckptparse.backend.places import Places
    from ckptparse.graph.graph import Graph
    from ckptparse.graph.layers import Layer, LayersSource
    from ckptparse.graph.object_graph import ObjectGraph
    from ckptparse.graph.optimizer import Averages, Optimizer
    from ckptparse.graph.roles import GraphRoles, NameRoles
    from ckptparse.graph.tree import Tree

__all__ = ["Checkpoint", "Naming", "Patterns"]

Naming = Literal["checkpoint", "variable"]
"""Whose names are used: those that are stored, or the variables' own."""
Patterns = str | Iterable[str] | None
"""One glob, or several; `*` crosses `/`. None for no choice."""

_NAMINGS = get_args(Naming)
_FEW_NAMES = 64
"""Up to so many names are looked up singly; for more, a listing of the index takes less time."""


class Checkpoint(Mapping[str, Tensor]):
    """An open checkpoint: a mapping from names to lazy tensors, and a context manager.

    Iteration is in the order of the index (names sorted by their bytes). The object graph of a TF2
    checkpoint is structure, not a tensor, and not among the keys.

    Attributes:
        path: What was opened: a prefix or a file.
    """

    def __init__(
        self,
        origin: Origin,
        path: str,
        *,
        naming: Naming = "checkpoint",
        mmap: bool = False,
        verify: bool = True,
        threads: int | None = None,
    ) -> None:
        """Take open files, and how they are opened again.

        Raises:
            ValueError: Not a naming, or fewer than one thread.
        """
        if naming not in _NAMINGS:
            raise ValueError(f"naming is one of {_NAMINGS}, not {naming!r}")
        if threads is not None and threads < 1:
            raise ValueError(f"threads is None or at least 1, not {threads}")
        self.path = path
        self._backend = origin.backend
        self._naming = naming
        self._origin = origin
        self._options = ReadOptions(verify, mmap, threads, origin)
        self._tensors: dict[str, Tensor] = {}
        self._closed = False
        self._shapes: dict[str, tuple[int, ...]] | None = None
        self._source = _StoredTensors(origin, self._options)

    @property
    def format(self) -> Format:
        """`"v2"`, `"v1"` or `"graph"`."""
        return self._backend.format

    @property
    def num_shards(self) -> int:
        """The number of data files."""
        return self._backend.num_shards

    @property
    def byte_order(self) -> Literal["little", "big"]:
        """Of the stored elements; arrays are in native byte order always."""
        return self._backend.byte_order

    @property
    def files(self) -> tuple[str, ...]:
        """Every path the checkpoint consists of, there or not."""
        return self._backend.files

    @property
    def held_bytes(self) -> int:
        """The bytes of those files that are there."""
        return held_bytes(self._origin.opener.context.storage, self.files)

    @property
    def orphan_slices(self) -> list[OrphanSlice]:
        """Name, slice and tensor of each stored slice that no tensor lists."""
        found = []
        for name, piece, tensor in self._opened.orphan_slices():
            options = replace(self._options, origin=OrphanOrigin(self._origin, piece))
            found.append((name, piece, tensor.with_options(options)))
        return found

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Return every key and its shape, without a `Tensor` each."""
        shapes = self._shapes
        if shapes is None:
            shapes = dict(self._opened.shapes())
            shapes.pop(OBJECT_GRAPH_KEY, None)
            chosen = self._chosen_names
            if chosen is not None:
                shapes = {name: shapes[stored] for name, stored in chosen.items()}
            self._shapes = shapes
            if self._closed:  # By another thread meanwhile, which forgot what had been found.
                self._shapes = None
        return shapes

    def places(self) -> Places:
        """Return where the bytes of every tensor lie and their checksums, as columns.

        No data is read. It takes a tenth of the time of asking each tensor.

        Raises:
            DataLossError: The index is damaged.
        """
        places = self._opened.places()
        chosen = self._chosen_names
        if chosen is None and OBJECT_GRAPH_KEY not in places.names:
            return places
        rows = {name: row for row, name in enumerate(places.names) if name != OBJECT_GRAPH_KEY}
        if chosen is None:
            return places.take([*rows.values()], [*rows])
        return places.take([rows[name] for name in chosen.values()], [*chosen])

    @cached_property
    def object_graph(self) -> ObjectGraph | None:
        """The objects that a TF2 checkpoint was made of; None for a name-based checkpoint.

        Its nodes find their tensors here, under stored names whatever the naming.

        Raises:
            DataLossError: Its bytes are damaged.
            LimitError: It has more objects than `Limits.objects` allows.
        """
        from ckptparse.graph.object_graph import ObjectGraph

        tensor = self._opened.find(OBJECT_GRAPH_KEY, DEFAULT_OPTIONS)
        if tensor is None:
            return None
        if tensor.shape != () or tensor.data_type != DataType.DT_STRING:
            raise MalformedError(
                f"Expected a scalar string for the object graph, found {tensor!r}", path=self.path
            )
        data: bytes = tensor.read().item()
        context = self._origin.opener.context

        def held() -> int:
            return sum(found.size for found in map(context.storage.stat, self.files) if found)

        return ObjectGraph.from_bytes(
            data, tensors=self._source, limits=context.limits, path=self.path, held=held
        )

    @property
    def layers(self) -> list[Layer]:
        """The layers of the model that was saved, each with its weights.

        Slots of optimizers, moving averages and counters are not among the weights. An object graph
        tells the layers, and their order as far as it is stored. Without one there is a layer for
        each scope of the variables' names, in the order of the graph (a `.meta` beside the
        checkpoint, or the SavedModel's), else in that of the names. A plain checkpoint holds
        neither their classes nor their configurations, but for what Keras of 2019 wrote.

        Raises:
            LimitError: It has no object graph, and more tensors than `Limits.small_tensors` allows;
                `optimizers` and `averages` raise it, too.
        """
        return self._layers[0]

    @property
    def layers_source(self) -> LayersSource | None:
        """What the layers were found by: `"object_graph"`, or `"names"`; None if damage hides them.

        Never raises: `layers` does, and says what is damaged.
        """
        try:
            return self._layers[1]
        except CheckpointError:
            return None

    @cached_property
    def optimizers(self) -> list[Optimizer]:
        """Every optimizer: its slots by variable, iterations, learning rate.

        They are those of the object graph. Of a name-based checkpoint they are what the names tell
        (`w/Adam`, `train/w/Momentum`, `w_slot_vr`), and a graph beside it, which alone can tell
        apart two optimizers of one kind that train different variables.
        """
        from ckptparse.graph.optimizer import NameOptimizer, find_optimizers

        if self.object_graph is not None:
            return list(find_optimizers(self.object_graph))
        named = self._roles.optimizers.values()
        return [NameOptimizer(found, self._stored, path=self.path) for found in named]

    @property
    def optimizer(self) -> Optimizer | None:
        """The optimizer, or None.

        Raises:
            AmbiguousError: There are several: `optimizers` has all.
        """
        from ckptparse.graph.optimizer import the_optimizer

        return the_optimizer(self.optimizers, path=self.path)

    @cached_property
    def averages(self) -> Averages:
        """The moving averages of variables, by the variable: `averages["dense/kernel"].read()`.

        TF1 stores them as `w/ExponentialMovingAverage`, Keras's `use_ema` as slots `average`.
        """
        from ckptparse.graph.optimizer import Averages, find_averages, find_optimizers

        if self.object_graph is not None:
            return find_averages(self.object_graph, find_optimizers(self.object_graph))
        return Averages(self._roles.averages, self._stored, path=self.path)

    @property
    def step(self) -> int | None:
        """The training step: global_step, else an optimizer's iterations, else save_counter."""
        from ckptparse.graph.step import find_step

        return find_step(self._source.names, self._source.find, self.object_graph)

    def find_training_graph(self) -> Graph | None:
        """Read the graph that was saved beside it: a `.meta`, or the SavedModel's own.

        Returns:
            None if there is none.

        Raises:
            CheckpointError: It cannot be read.
        """
        self._check_open()
        return self._origin.opener.find_training_graph()

    def find_using_graph(self) -> Graph | None:
        """Read a graph whose ops use its tensors.

        It is the `.meta` beside it, that of the SavedModel whose variables they are, or, of a
        frozen graph, that graph.

        Returns:
            None if there is none.

        Raises:
            CheckpointError: It cannot be read.
        """
        self._check_open()
        if self.format == "graph":
            from ckptparse.backend.held import HeldTensors

            backend = self._origin.backend
            if isinstance(backend, HeldTensors) and backend.graph is not None:
                graph: Graph = backend.graph
                return graph
        return self._origin.opener.find_using_graph()

    def tree(self, *, everything: bool = False) -> Tree:
        """Make the tree of objects, or of a name-based checkpoint's scopes, to print or to walk.

        Args:
            everything: Whether objects are shown that keep nothing, nor any object below them.

        Raises:
            LimitError: It has no object graph, and more tensors than `Limits.small_tensors` allows.
        """
        from ckptparse.graph.tree import name_tree, object_tree

        if self.object_graph is None:
            self._check_count()
            return name_tree(self._source.names(), self._source.find)
        return object_tree(self.object_graph, everything=everything)

    def read(
        self,
        names: Iterable[str] | None = None,
        *,
        include: Patterns = None,
        exclude: Patterns = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """Read many tensors at once; faster than one after another.

        Args:
            names: Exactly these, in this order; all if None.
            include: Of those, only the ones that match a glob.
            exclude: Of those, none that matches a glob.

        Returns:
            New writable arrays by key. `scope/w:0` in `names` is stored `scope/w`, and comes under
            that key.

        Raises:
            TensorNotFoundError: One of `names` is not there, or a pattern of `include` matches
                nothing.
            DataLossError: A tensor's bytes are damaged or missing.
        """
        keys = self._all_keys() if names is None else dict.fromkeys(self._keys_of(_names(names)))
        if include is not None and not isinstance(include, str):
            include = tuple(include)
        self._check_patterns(keys, include)
        everything = include is None and exclude is None
        chosen = list(keys if everything else choose_names(keys, include, exclude))
        stored_names = self._chosen_names
        stored = chosen if stored_names is None else [stored_names[key] for key in chosen]
        return dict(zip(chosen, self._opened.read_many(stored, self._options), strict=True))

    def _all_keys(self) -> Collection[str]:
        """Return every key; as stored, they need no table of their shapes."""
        if self._naming != "checkpoint":
            return self.shapes()
        names = self._opened.names()
        return [*self._source.names()] if OBJECT_GRAPH_KEY in names else names

    def _check_patterns(self, keys: Collection[str], include: Patterns) -> None:
        """Raise `TensorNotFoundError` if a pattern matches nothing: a misspelt one is told."""
        patterns = [include] if isinstance(include, str) else list(include or ())
        for pattern in patterns:
            if next(iter(choose_names(keys, pattern, None)), None) is None:
                message = f"No name among {len(keys)} matches the pattern {pattern!r}"
                raise name_not_found(message, pattern, keys, path=self.path)

    def close(self) -> None:
        """Close every file. Arrays that were read stay; all else raises `ClosedError` from now on.

        What was closed can still say what it was: `path`, `format`, `files` and the like.
        """
        self._closed = True
        self._origin.close()
        # What was found is forgotten, so that nothing is given that one had asked for before.
        self._tensors, self._shapes = {}, None

    def values(self) -> ValuesView[Tensor]:
        """Every tensor, in the order of the index."""
        self._check_open()
        return _Values(self, self._iter_tensors)

    def items(self) -> ItemsView[str, Tensor]:
        """Every key and its tensor, in the order of the index."""
        self._check_open()
        return _Items(self, self._iter_tensors)

    def __getitem__(self, key: str) -> Tensor:
        tensor = self._tensors.get(key)
        if tensor is None and isinstance(key, str):
            tensor = self._find_tensor(key)
        return self._tensor(self._key_of(key)) if tensor is None else tensor

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._find_key(key) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes())

    def __len__(self) -> int:
        return len(self.shapes())

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
        """Pickle how it was opened; in another process it is opened again at its first use.

        Raises:
            ClosedError: It has been closed.
        """
        self._check_open()
        return _reopened, (self._origin, self.path, self._how())

    def __copy__(self) -> Checkpoint:
        """Return a copy, which is closed by itself."""
        self._check_open()
        return _reopened(self._origin.again(), self.path, self._how())

    def __deepcopy__(self, memo: dict[int, Any]) -> Checkpoint:
        return self.__copy__()

    def _ipython_key_completions_(self) -> list[str]:
        """Complete keys in a notebook; none once it is closed, or if it is damaged."""
        try:
            return list(self)
        except CheckpointError:
            return []

    def _repr_html_(self) -> str | None:
        """Show it in a notebook; None, and so the plain form, if it is closed or damaged."""
        from ckptparse.rendering.notebook import checkpoint_html

        try:
            return checkpoint_html(self)
        except CheckpointError:
            return None

    def __repr__(self) -> str:
        return f"<Checkpoint {self.path!r} {self.format}>"

    def _how(self) -> dict[str, Any]:
        """Return how it was opened, as arguments of another of the kind."""
        options = self._options
        return {
            "naming": self._naming,
            "verify": options.verify,
            "mmap": options.mmap,
            "threads": options.threads,
        }

    @property
    def _opened(self) -> Backend:
        self._check_open()
        return self._backend

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(
                "The checkpoint has been closed", path=self.path, hint="Open it again to read on"
            )

    def _iter_tensors(self) -> Iterator[Tensor]:
        """Iterate over the tensor of every key, which is faster than to find each.

        They are not kept: 100,000 objects more are a quarter of a listing's time, since Python's
        garbage collector looks at them again and again.
        """
        kept = self._tensors
        found = self._opened.iter_tensors(self._options, without=OBJECT_GRAPH_KEY)
        chosen = self._chosen_names
        if chosen is not None:
            stored = {tensor.name: tensor for tensor in found}
            return (kept.get(key, stored[name]) for key, name in chosen.items())
        # Most often nothing was asked for before: then nothing is looked up for each of them.
        return (kept.get(tensor.name, tensor) for tensor in found) if kept else found

    def _keys_of(self, names: Iterable[str]) -> list[str]:
        """Return the keys that names mean; of many, by the whole index."""
        wanted = list(names)
        if len(wanted) <= _FEW_NAMES:
            return list(map(self._key_of, wanted))
        shapes = self.shapes()
        return [name if name in shapes else self._key_of(name) for name in wanted]

    def _key_of(self, name: str) -> str:
        """Return the key that a name means, which may be the name of TensorFlow's tensor `w:0`."""
        if not isinstance(name, str):
            raise TypeError(f"A tensor's name is a str, not {type(name).__name__}")
        key = self._find_key(name)
        if key is None:
            raise self._not_found(name)
        return key

    def _find_key(self, name: str) -> str | None:
        if self._find_tensor(name) is not None:
            return name
        key = name.removesuffix(":0")
        return key if key != name and self._find_tensor(key) is not None else None

    def _tensor(self, key: str) -> Tensor:
        tensor = self._find_tensor(key)
        if tensor is None:
            raise self._not_found(key)
        return tensor

    def _find_tensor(self, key: str) -> Tensor | None:
        # Once another thread has closed it, nothing is found among those that are kept.
        kept = self._tensors
        tensor = kept.get(key)
        if tensor is None:
            self._check_open()
            # Asked of every tensor that is looked up: as stored, no name is looked for.
            chosen = None if self._naming == "checkpoint" else self._chosen_names
            stored = key if chosen is None else chosen.get(key)
            tensor = None if stored is None else self._source.find(stored)
            if tensor is not None:
                kept[key] = tensor
        return tensor

    @cached_property
    def _chosen_names(self) -> dict[str, str] | None:
        """Chosen name -> stored name; None if names are as stored."""
        if self._naming == "checkpoint" or self.object_graph is None:
            return None
        from ckptparse.graph.variable_names import name_variables

        return name_variables(self._source.names(), self.object_graph.names_by_key)

    @cached_property
    def _layers(self) -> tuple[list[Layer], LayersSource]:
        from ckptparse.graph.layers import find_layers, layers_by_name

        if self.object_graph is not None:
            return find_layers(self.object_graph)
        state = self._roles.state()
        order = dict.fromkeys((*self._graph_roles.order, *self._source.names()))
        return layers_by_name(
            (name for name in order if name not in state), self._source.find
        ), "names"

    @cached_property
    def _roles(self) -> NameRoles:
        """What the names of a name-based checkpoint are."""
        from ckptparse.graph.name_roles import find_roles

        self._check_count()
        return find_roles(self._backend.shapes(), self._graph_roles)

    def _check_count(self) -> None:
        """Make sure that so many names may be gone through one by one."""
        limits = self._origin.opener.context.limits
        check_small(
            limits,
            count_named(self._backend.shapes()),
            lambda: self.held_bytes,
            what="tensors, and of 256 characters of their names",
            path=self.path,
        )

    @cached_property
    def _graph_roles(self) -> GraphRoles:
        """What the graph beside a name-based checkpoint says; nothing if it cannot be read."""
        from ckptparse.graph.roles import GraphRoles

        try:
            graph = self.find_training_graph()
            if graph is None:
                return GraphRoles()
            from ckptparse.graph.training import read_graph_roles

            return read_graph_roles(graph)
        except CheckpointError:
            return GraphRoles()

    def _stored(self, name: str) -> Tensor:
        """Return the tensor of a stored name."""
        tensor = self._source.find(name)
        if tensor is None:
            raise name_not_found("No tensor of that name", name, (), path=self.path)
        return tensor

    def _not_found(self, name: str) -> TensorNotFoundError:
        message = f"No tensor of that name among {len(self)}"
        error = name_not_found(message, name, self, path=self.path)
        other = self._other_naming(name.removesuffix(":0"))
        if other is not None:
            error.hint = other
        return error

    def _other_naming(self, name: str) -> str | None:
        """Say what to do about a name of the other naming; None if it is none."""
        try:
            graph = self.object_graph
        except CheckpointError:
            return None
        own = {} if graph is None else graph.names_by_key
        if self._naming == "variable":
            found = next(
                (key for key, kept in (self._chosen_names or {}).items() if kept == name), None
            )
            if found is None:
                return None
            return f"It is a stored name: open it with naming='checkpoint', or ask for {found!r}"
        key = next((key for key, variable in own.items() if variable == name), None)
        if key is None:
            return None
        return f"It is the variable's own name: open it with naming='variable', or ask for {key!r}"


class _Values(ValuesView[Tensor]):
    """What `Checkpoint.values` gives."""

    def __init__(self, keys: Mapping[str, Tensor], tensors: Callable[[], Iterator[Tensor]]) -> None:
        super().__init__(keys)
        self._tensors = tensors

    def __iter__(self) -> Iterator[Tensor]:
        return self._tensors()


class _Items(ItemsView[str, Tensor]):
    """What `Checkpoint.items` gives."""

    def __init__(self, keys: Mapping[str, Tensor], tensors: Callable[[], Iterator[Tensor]]) -> None:
        super().__init__(keys)
        self._keys, self._tensors = keys, tensors

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        return zip(self._keys, self._tensors(), strict=True)


def _reopened(origin: Origin, path: str, how: Mapping[str, Any]) -> Checkpoint:
    return Checkpoint(origin, path, **how)


class _StoredTensors:
    """The tensors of a backend under stored names, for what looks at them by itself."""

    def __init__(self, origin: Origin, options: ReadOptions) -> None:
        self._origin = origin
        self._backend = origin.backend
        self._options = options

    def find(self, name: str) -> Tensor | None:
        """Return the tensor of a stored name, or None if there is none."""
        if name == OBJECT_GRAPH_KEY:
            return None
        return self._backend.find(name, self._options)

    def __reduce__(self) -> tuple[Any, ...]:
        return _StoredTensors, (self._origin, self._options)

    def names(self) -> Iterator[str]:
        """Iterate over every stored name but the object graph's, sorted as stored."""
        return (name for name in self._backend.names() if name != OBJECT_GRAPH_KEY)


def _names(names: Iterable[str]) -> Iterable[str]:
    if isinstance(names, str):
        raise TypeError(f"names takes several names, not one string: did you mean [{names!r}]?")
    return names


def choose_names(keys: Iterable[str], include: Patterns, exclude: Patterns) -> Iterator[str]:
    """Iterate over the keys that match a glob of the one, and none of the other.

    A glob matches the key that it is letter by letter, too: `w[0]` is a name.
    """
    included, excluded = _compile(include), _compile(exclude)
    if included is None and excluded is None:
        yield from keys
        return
    for key in keys:
        if included is not None and not included.match(key):
            continue
        if excluded is not None and excluded.match(key):
            continue
        yield key


def _compile(patterns: Patterns) -> re.Pattern[str] | None:
    if patterns is None:
        return None
    import fnmatch
    import re

    globs = [patterns] if isinstance(patterns, str) else list(patterns)
    literal = [rf"{re.escape(glob)}\Z" for glob in globs if "[" in glob]
    # No pattern at all matches nothing.
    return re.compile("|".join([*map(fnmatch.translate, globs), *literal]) or r"(?!)")
