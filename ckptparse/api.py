"""The functions that most people call: open a checkpoint, read it, list it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from ckptparse.checkpoint import Checkpoint, Naming, Patterns
from ckptparse.errors import DataLossError
from ckptparse.files.context import Cache, Store, begin
from ckptparse.inventory.places import PathLike, choose_strictly
from ckptparse.limits import DEFAULT_LIMITS, Limits
from ckptparse.opening import name_whole, open_checkpoint, read_graph

if TYPE_CHECKING:
    from ckptparse.graph.graph import Graph
    from ckptparse.model import SavedModel

__all__ = ["list_variables", "open", "open_graph", "open_saved_model", "read"]


def open(
    path: PathLike,
    *,
    naming: Naming = "checkpoint",
    mmap: bool = False,
    verify: bool = True,
    threads: int | None = None,
    store: Store = None,
    cache: Cache = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Checkpoint:
    """Open a checkpoint, to look inside and to read parts of it.

    Only the index's first and last blocks are read. Close it, or use it in a `with` statement.

    Args:
        path: A prefix, its `.index`, any of its data files, a V1 file, a frozen graph, a directory
            with a `checkpoint` state file, a SavedModel directory or its `variables/`.
        naming: `"checkpoint"` for the stored names; `"variable"` for the variables' own names
            where the object graph of a TF2 checkpoint tells them.
        mmap: Map data files copy-on-write rather than read them, up to 64 at a time. Fast and
            lean; but whoever truncates the file in place while it is mapped kills the process.
        verify: Check the stored checksums of tensors that are read whole.
        threads: How many threads may read and verify tensors; None picks.
        store: Where the path leads: a `Storage`, an obstore store, an fsspec file system, or a
            mapping of names to bytes or file objects. None: to a file of this machine, or where
            the URL leads that the path is.
        cache: Directory that keeps what is read of a bucket, a web server or an fsspec file system,
            and gives it again as long as the file has the same ETag. `limits.cache_bytes` bounds
            it. It has no effect on files of this machine or of a mapping.
        limits: Bounds on what the file may ask for.

    Raises:
        CheckpointNotFoundError: Nothing is there.
        NotACheckpointError: Something else is there; `.identity` says what.
        DataLossError: The checkpoint is damaged.
        LimitError: It asks for more than `limits` allow.
        UnsupportedError: It needs a newer reader.
    """
    place, context = begin(path, store=store, cache=cache, limits=limits)
    inventory = choose_strictly(place, context)
    return open_checkpoint(
        inventory, context, naming=naming, mmap=mmap, verify=verify, threads=threads
    )


def read(
    path: PathLike,
    names: Iterable[str] | None = None,
    *,
    include: Patterns = None,
    exclude: Patterns = None,
    naming: Naming = "checkpoint",
    mmap: bool = False,
    verify: bool = True,
    threads: int | None = None,
    store: Store = None,
    cache: Cache = None,
    limits: Limits = DEFAULT_LIMITS,
) -> dict[str, npt.NDArray[Any]]:
    """Read a checkpoint's variables.

    Args:
        path: As for `open`; so are `naming`, `mmap`, `verify`, `threads`, `store` and `limits`.
        names: Exactly these; all if None.
        include: Only names that match a glob, or one of several; `*` crosses `/`.
        exclude: No name that matches a glob, or one of several.

    Returns:
        Arrays by name, in the order of the index: writable, C-ordered, in native byte order, and
        the caller's own. Several may be views into one buffer of at most 16 MiB, which lives as
        long as any of them; copy one that is to outlive the others. Strings are object arrays of
        `bytes`; a scalar's shape is `()`.

    Raises:
        TensorNotFoundError: One of `names` is not there, or a pattern of `include` matches
            nothing.
        ChecksumError: Bytes are not those that were written.
        CheckpointError: As for `open`.
    """
    place, context = begin(path, store=store, cache=cache, limits=limits)
    inventory = choose_strictly(place, context)
    with open_checkpoint(
        inventory, context, naming=naming, mmap=mmap, verify=verify, threads=threads
    ) as checkpoint:
        try:
            return checkpoint.read(names, include=include, exclude=exclude)
        except DataLossError as error:
            name_whole(error, inventory, context)
            raise


def list_variables(
    path: PathLike,
    *,
    naming: Naming = "checkpoint",
    store: Store = None,
    cache: Cache = None,
    limits: Limits = DEFAULT_LIMITS,
) -> list[tuple[str, tuple[int, ...]]]:
    """List names and shapes, sorted by the stored name's bytes.

    Args and errors are those of `open`. No data file is touched.
    """
    with open(path, naming=naming, store=store, cache=cache, limits=limits) as checkpoint:
        return list(checkpoint.shapes().items())


def open_graph(
    path: PathLike, *, store: Store = None, cache: Cache = None, limits: Limits = DEFAULT_LIMITS
) -> Graph:
    """Open a graph: a GraphDef or a MetaGraphDef, binary or text.

    The whole file is read and kept in memory; nodes and constants are decoded when asked for.

    Args:
        path: A frozen graph (`.pb`), its text (`.pbtxt`), a `.meta`, or the checkpoint beside one.
        store: As for `open`.
        cache: As for `open`.
        limits: Bounds on what the file may ask for.

    Raises:
        CheckpointNotFoundError: Nothing is there, or no `.meta` beside the checkpoint.
        NotACheckpointError: Something else is there; `.identity` says what.
        DataLossError: The file is damaged, or was cut off.
        LimitError: It asks for more than `limits` allow.
    """
    from ckptparse.inventory.models import find_graph

    place, context = begin(path, store=store, cache=cache, limits=limits)
    return read_graph(find_graph(place, context), context)


def open_saved_model(
    path: PathLike,
    *,
    verify: bool = True,
    store: Store = None,
    cache: Cache = None,
    limits: Limits = DEFAULT_LIMITS,
) -> SavedModel:
    """Open a SavedModel: its signatures, graphs, objects, layers, variables and assets.

    Nothing of the model is run, and each part is read when asked for: a broken `saved_model.pb`
    leaves the variables and their layers readable. Close it, or use it in a `with` statement.

    Args:
        path: The directory, or its `saved_model.pb`, `.pbtxt` or `.cpb`.
        verify: Check the stored checksums of tensors that are read whole, and the hashes of a
            chunked SavedModel's data (about 8 MB a second); those of headers always are.
        store: As for `open`.
        cache: As for `open`.
        limits: Bounds on what the files may ask for.

    Raises:
        CheckpointNotFoundError: Nothing is there.
        NotACheckpointError: Something else is there; `.identity` says what.
        UnsupportedError: It is a TF-Hub module with features that nobody here knows.
    """
    from ckptparse.inventory.models import find_saved_model
    from ckptparse.model import SavedModel

    place, context = begin(path, store=store, cache=cache, limits=limits)
    model = SavedModel(find_saved_model(place, context), context, verify=verify)
    model.check_hub_module()
    return model
