"""The contract of a format (`Backend`), and how a checkpoint is found again.

Bundles (V2) and V1 files have a `Backend` each. The constants of a graph, and the variables of a
model without any, are in memory already: `held`. A checkpoint that is pickled or
copied is opened again at its first use: `reopening`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy.typing as npt

from ckptparse.errors import StorageError
from ckptparse.slices import TensorSlice
from ckptparse.tensor import DEFAULT_OPTIONS, Payload, ReadOptions, Tensor

if TYPE_CHECKING:
    from ckptparse.backend.places import Places
    from ckptparse.files.context import Context
    from ckptparse.graph.graph import Graph

__all__ = [
    "OBJECT_GRAPH_KEY",
    "VARIABLE_SUFFIX",
    "Backend",
    "Format",
    "Opener",
    "Origin",
    "OrphanOrigin",
    "OrphanSlice",
]

OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
"""The name of the string that holds the object graph of a checkpoint. It is listed as no tensor."""
VARIABLE_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
"""What the key of a variable has after the path of the object, in a checkpoint of objects."""

Format = Literal["v2", "v1", "graph"]
"""How a checkpoint is stored; `"graph"`: as the constants of a frozen graph."""
OrphanSlice = tuple[str, TensorSlice, Tensor]
"""Name, slice and tensor of a slice that no tensor lists."""


class Backend(Protocol):
    """What a format gives, under stored names. Once closed, it raises `ClosedError`."""

    @property
    def format(self) -> Format:
        """Which format."""
        ...

    @property
    def num_shards(self) -> int:
        """The number of data files."""
        ...

    @property
    def byte_order(self) -> Literal["little", "big"]:
        """Of the stored elements."""
        ...

    @property
    def files(self) -> tuple[str, ...]:
        """Every path it consists of, there or not."""
        ...

    def data_sizes(self) -> Mapping[str, int]:
        """Every data file that holds a tensor, and how many bytes it must have at the least.

        None for files that were found whole when they were opened.
        """
        ...

    def names(self) -> Sequence[str]:
        """Every tensor's name, sorted as stored."""
        ...

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every tensor's name and shape, sorted as stored."""
        ...

    def find(self, name: str, options: ReadOptions) -> Tensor | None:
        """Return the lazy tensor of a name; None if there is none."""
        ...

    def iter_tensors(self, options: ReadOptions, *, without: str | None = None) -> Iterator[Tensor]:
        """Iterate over every tensor, in the order of `shapes`; faster than to find each.

        What one `Tensor` of a name has verified, every other one of that name remembers.

        Args:
            options: How they are read.
            without: A name to leave out.
        """
        ...

    def places(self) -> Places:
        """Return where the bytes of every tensor lie, in the order of `shapes`."""
        ...

    def read_many(self, names: Sequence[str], options: ReadOptions) -> list[npt.NDArray[Any]]:
        """Read whole tensors, in the order of the names, all of which exist."""
        ...

    def orphan_slices(self) -> list[OrphanSlice]:
        """Return the slices that no tensor lists."""
        ...

    def fingerprint(self) -> Hashable:
        """Return what differs if the files that were opened are replaced by others: no data files.

        Raises:
            ClosedError: They have been closed.
        """
        ...

    def check_open(self) -> None:
        """Raise `ClosedError` once closed."""
        ...

    def close(self) -> None:
        """Close every file. Closing twice is harmless."""
        ...


class Opener(Protocol):
    """How the files of a checkpoint are opened: a value, which can be hashed and pickled."""

    @property
    def path(self) -> str:
        """The path of the checkpoint."""
        ...

    @property
    def format(self) -> Format:
        """Its format."""
        ...

    @property
    def context(self) -> Context:
        """Where its files lie, and how much they may ask for."""
        ...

    def lasting(self) -> Opener:
        """Return the same, by paths that mean the same from every directory."""
        ...

    def find_training_graph(self) -> Graph | None:
        """Read the graph that was saved beside it; None if there is none.

        Raises:
            CheckpointError: It cannot be read.
        """
        ...

    def find_using_graph(self) -> Graph | None:
        """Read a graph whose ops use the tensors; None if there is none.

        Raises:
            CheckpointError: It cannot be read.
        """
        ...

    def open(self) -> Backend:
        """Open them.

        Raises:
            CheckpointError: They are not there any more, or are damaged.
        """
        ...


class Origin:
    """Where a tensor comes from: its checkpoint, in which it can be found again.

    Attributes:
        opener: How the checkpoint is opened.
        backend: Its open files, or those that are opened at first use.
    """

    __slots__ = ("_is_shared", "backend", "opener")

    def __init__(self, opener: Opener, backend: Backend, *, is_shared: bool = False) -> None:
        """Take how a checkpoint is opened, and its files, which others may share."""
        self.opener = opener
        self.backend = backend
        self._is_shared = is_shared

    def close(self) -> None:
        """Close the files, and the archive that they lie in unless others may read on in it."""
        self.backend.close()
        if not self._is_shared:
            self.opener.context.close()

    def check_open(self) -> None:
        """Raise `ClosedError` once it has been closed, though another may share its files."""
        self.backend.check_open()

    def find_payload(self, name: str) -> Payload:
        """Return how the values of a tensor are got, by its stored name."""
        return _found(self.backend.find(name, DEFAULT_OPTIONS), name, self.opener.path).payload

    def again(self) -> Origin:
        """Return the same checkpoint, to be opened anew at its first use.

        Raises:
            ClosedError: It has been closed.
        """
        return _reopen(self.opener.lasting(), self.backend.fingerprint())

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.opener.lasting(), self.backend.fingerprint())


def _reopen(opener: Opener, fingerprint: Hashable) -> Origin:
    from ckptparse.backend.reopening import ReopenedBackend

    return Origin(opener, ReopenedBackend(opener, fingerprint), is_shared=True)


class OrphanOrigin(NamedTuple):
    """Where a slice comes from that no tensor lists."""

    origin: Origin
    piece: TensorSlice

    def check_open(self) -> None:
        """Raise `ClosedError` once its checkpoint has been closed."""
        self.origin.check_open()

    def find_payload(self, name: str) -> Payload:
        """Return how its values are got, by the name of its tensor."""
        known = self.origin.backend.orphan_slices()
        found = (part for own, piece, part in known if (own, piece) == (name, self.piece))
        return _found(next(found, None), name, self.origin.opener.path).payload


def _found(tensor: Tensor | None, name: str, path: str) -> Tensor:
    if tensor is None:
        raise StorageError("The checkpoint has no such tensor any more", path=path, tensor=name)
    return tensor
