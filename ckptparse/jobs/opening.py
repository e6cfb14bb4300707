"""Whatever holds tensors, opened: a checkpoint, a recovery, a file of another format, a mapping."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ckptparse.backend import Origin
from ckptparse.backend.held import HeldTensors
from ckptparse.backend.places import Places
from ckptparse.checkpoint import Checkpoint, Naming
from ckptparse.files.context import Context
from ckptparse.files.storage import Storage, held_bytes
from ckptparse.foreign import INDEX_NAME
from ckptparse.graph.object_graph import ObjectGraph
from ckptparse.inventory.folders import Folders
from ckptparse.inventory.places import PathLike, choose_strictly
from ckptparse.limits import CONSTANT_TAKEN_AS, check_listed, check_small, count_named
from ckptparse.opening import open_checkpoint
from ckptparse.sources.stored import TensorSource
from ckptparse.tensor import Tensor
from ckptparse.tensor_like import TensorLike, as_tensors

if TYPE_CHECKING:
    from ckptparse.graph.graph import Graph

__all__ = [
    "Opened",
    "TensorsFrom",
    "check_constants",
    "check_work",
    "describe_source",
    "open_tensors",
]

TensorsFrom = PathLike | Mapping[str, Any]
"""What `convert` and its like take: a path, an open `Checkpoint`, a `Recovery`, any mapping."""

_FILE_MAGICS = {b"\x89HDF": "hdf5", b"PK\x03\x04": "archive", b"\x93NUM": "npy"}


@dataclass(slots=True)
class Opened:
    """Tensors, and what is known of them besides.

    Attributes:
        path: What was opened; None for values in memory.
        format: Which format it has.
        tensors: By name, in the order in which they are best read.
        metadata: What the file says of itself.
        files: Every path it consists of.
        checkpoint: The checkpoint, if it is one.
        places: Where its tensors lie.
    """

    path: str | None
    format: str
    tensors: Mapping[str, TensorLike]
    metadata: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    checkpoint: Checkpoint | None = None
    places: Places | None = None
    recovered: int | None = None
    """Bytes of the files that a recovery is of; None if it is none."""
    context: Context = field(kw_only=True)
    """Where the files lie, for a worker that opens them again."""

    @property
    def object_graph(self) -> ObjectGraph | None:
        """The object graph of a TF2 checkpoint."""
        return None if self.checkpoint is None else self.checkpoint.object_graph

    def find_graph(self) -> Graph | None:
        """Return a graph whose ops use the tensors of a checkpoint, if one lies beside it.

        Raises:
            CheckpointError: It cannot be read.
        """
        return None if self.checkpoint is None else self.checkpoint.find_using_graph()


@contextmanager
def open_tensors(
    source: TensorsFrom, context: Context, *, naming: Naming = "checkpoint", verify: bool = True
) -> Iterator[Opened]:
    """Open what holds tensors, for as long as the context lasts.

    What is open already is read as it was opened: `naming` and `verify` are for paths.

    Raises:
        CheckpointError: It is not there, is something else, or is damaged.
    """
    if isinstance(source, Checkpoint):
        yield _of_checkpoint(source, context)
        return
    if isinstance(source, Mapping):
        report = getattr(source, "report", None)
        if report is None:
            yield Opened(None, "values", as_tensors(source), context=context)
            return
        # Its tensors are made when they are asked for; a file that was converted is so once.
        size = sum(file.size or 0 for file in report.files.values())
        with getattr(source, "keep_open", nullcontext)():
            yield Opened(report.path, "recovery", source, recovered=size, context=context)
        return
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(f"Expected a path, found {type(source).__name__}")
    path = os.fsdecode(source)
    folders = Folders(context)
    kind = _kind_of_file(folders, path)
    if kind is None:
        inventory = choose_strictly(path, context, folders)
        with open_checkpoint(inventory, context, naming=naming, verify=verify) as checkpoint:
            yield _of_checkpoint(checkpoint, context)
        return
    opened = _open_file(kind, path, context)
    try:
        yield Opened(path, kind, opened.tensors, opened.metadata, opened.files, context=context)
    finally:
        opened.close()
        context.close()


def check_work(opened: Opened, names: Collection[str], *, weight: int = 1) -> None:
    """Make sure that a job may go through these tensors of files, each of which counts so much.

    Raises:
        LimitError: They are more than `Limits.small_tensors`, and more than their bytes allow; more
            constants are strings or variants than `Limits.single_entries` allows; or the values
            that repeat fill more than `Limits.fill_bytes`. Of a recovery: they are more than
            `Recovery.write` takes.
    """
    limits = opened.context.limits
    if opened.recovered is not None:
        check_listed(limits, count_named(names), opened.recovered, weight=weight)
    if not opened.files:
        return
    if opened.format == "graph":
        weight *= CONSTANT_TAKEN_AS
    check_small(
        limits,
        count_named(names),
        lambda: _held_bytes(opened),
        weight=weight,
        what="tensors, and of 256 characters of their names",
        path=opened.path,
    )
    check_constants(opened, names)


def check_constants(opened: Opened, names: Collection[str]) -> None:
    """Make sure that a job may read the values of these constants, if they are some of a graph.

    Raises:
        LimitError: More are strings or variants than `Limits.single_entries` allows, variants take
            more than `Limits.memory_bytes`, or the values that repeat fill more than
            `Limits.fill_bytes`.
    """
    if opened.format != "graph" or not names:
        return
    first = opened.tensors[next(iter(names))]
    origin = first.options.origin if isinstance(first, Tensor) else None
    if isinstance(origin, Origin) and isinstance(origin.backend, HeldTensors):
        origin.backend.check_fill(names)
        origin.backend.check_objects(names)


def _held_bytes(opened: Opened) -> int:
    """Return the bytes of the files that tensors lie in."""
    tensor, storage = next(iter(opened.tensors.values())), opened.context.storage
    if isinstance(tensor, Tensor) and isinstance(tensor.options.origin, Origin):
        # What is open already may lie elsewhere than the call's own storage leads.
        storage = tensor.options.origin.opener.context.storage
    return held_bytes(storage, opened.files)


def describe_source(opened: Opened) -> str:
    """Return the path, or what it is instead."""
    return opened.format if opened.path is None else opened.path


def _of_checkpoint(checkpoint: Checkpoint, context: Context) -> Opened:
    places = checkpoint.places()
    return Opened(
        checkpoint.path,
        checkpoint.format,
        _InFileOrder(checkpoint, places),
        files=checkpoint.files,
        checkpoint=checkpoint,
        places=places,
        context=context,
    )


class _InFileOrder(Mapping[str, TensorLike]):
    """The tensors of a checkpoint as their bytes lie, so that a disk reads on."""

    def __init__(self, checkpoint: Checkpoint, places: Places) -> None:
        self._checkpoint = checkpoint
        self._places = places

    @cached_property
    def _names(self) -> list[str]:
        return self._places.in_file_order()

    def __getitem__(self, name: str) -> TensorLike:
        return self._checkpoint[name]

    def __contains__(self, name: object) -> bool:
        return name in self._checkpoint.shapes()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._places.names)


def _kind_of_file(folders: Folders, path: str) -> str | None:
    """Tell the format of a file that is no checkpoint; None for whatever else lies there."""
    storage = folders.context.storage
    status = storage.stat(path)
    if status is None:
        return "safetensors" if _index_of_parts(path, storage) is not None else None
    if status.kind == "directory":
        names = folders.list(path)
        if INDEX_NAME in names or any(name.endswith(".npy") for name in names):
            return "npy"
        return "safetensors" if any(name.endswith(".safetensors") for name in names) else None
    if status.kind != "file":
        return None
    if path.endswith((".safetensors", ".safetensors.index.json")):
        return "safetensors"
    source = storage.open(path)
    try:
        magic = source.read_at(0, min(4, source.size))
    finally:
        source.close()
    kind = _FILE_MAGICS.get(magic)
    if kind == "archive":
        return "hdf5" if path.endswith(".keras") else "npz" if path.endswith(".npz") else None
    return kind


def _index_of_parts(path: str, storage: Storage) -> str | None:
    """Return the index beside a name under which a safetensors file was written in parts."""
    index = f"{path}.index.json"
    return index if path.endswith(".safetensors") and storage.stat(index) is not None else None


def _open_file(kind: str, path: str, context: Context) -> TensorSource:
    if kind == "hdf5":
        from ckptparse.sources.hdf5 import Hdf5Source

        return Hdf5Source.open(path, context)
    if kind == "safetensors":
        from ckptparse.sources.safetensors import SafetensorsSource

        return SafetensorsSource.open(_in_directory(path, context.storage), context)
    from ckptparse.sources.npy import NpySource

    return NpySource.open(path, context)


def _in_directory(path: str, storage: Storage) -> str:
    """Return the file that a directory of safetensors files means: the index, or the only one.

    A name under which parts were written means their index.
    """
    status = storage.stat(path)
    if status is None:
        return _index_of_parts(path, storage) or path
    if status.kind != "directory":
        return path
    names = [name for name in storage.list(path) if ".safetensors" in name]
    indexes = [name for name in names if name.endswith(".index.json")]
    files = [name for name in names if name.endswith(".safetensors")]
    chosen = indexes if len(indexes) == 1 else files
    if len(chosen) != 1:
        from ckptparse.errors import AmbiguousError

        raise AmbiguousError(
            f"Several files lie in the directory: {', '.join(names[:5])}",
            path=path,
            hint="Name one of them",
        )
    return storage.join(path, chosen[0])
