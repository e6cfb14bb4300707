"""Open the checkpoint that a path means, or say why it cannot be opened.

Only the newest checkpoint that a state file names is opened. If it is not whole, the error names
the newest one that is.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from ckptparse.backend import Backend, Format, Origin
from ckptparse.bundle.naming import encode_name
from ckptparse.bundle.reader import BundleReader
from ckptparse.checkpoint import Checkpoint, Naming
from ckptparse.errors import CheckpointError, CheckpointNotFoundError, DataLossError
from ckptparse.filenames import (
    INDEX_SUFFIX,
    META_SUFFIX,
    VARIABLES,
    find_step,
    last_part,
    strip_shard_suffix,
)
from ckptparse.files.context import Context
from ckptparse.files.storage import is_file
from ckptparse.inventory.folders import Folders
from ckptparse.inventory.inventory import By, Candidate, Inventory

if TYPE_CHECKING:
    from ckptparse.graph.graph import Graph
    from ckptparse.identification import Identity
    from ckptparse.saved_model.meta_graph import MetaGraph

__all__ = [
    "CandidateOpener",
    "GraphBeside",
    "judge_saved_model",
    "lost_variables",
    "name_whole",
    "open_candidate",
    "open_checkpoint",
    "open_inventory",
    "read_candidate_graph",
    "read_graph",
]

_MOST_BESIDE = 4
"""Checkpoints beside a damaged one that are opened to see whether they are whole: with more of
them, an error could take seconds."""
_JUDGED_BY_ITS_READER = ("v2-index", "truncated", "empty", "zeros", "unknown")


def open_checkpoint(
    inventory: Inventory,
    context: Context,
    *,
    naming: Naming = "checkpoint",
    mmap: bool = False,
    verify: bool = True,
    threads: int | None = None,
) -> Checkpoint:
    """Open what a path means; arguments and errors are those of `ckptparse.open`."""
    meant, backend = open_inventory(inventory, context)
    return Checkpoint(
        Origin(CandidateOpener(meant, context), backend),
        inventory.checkpoint_path,
        naming=naming,
        mmap=mmap,
        verify=verify,
        threads=threads,
    )


class CandidateOpener(NamedTuple):
    """How the files of a checkpoint are opened, in another process too."""

    candidate: Candidate
    context: Context

    @property
    def path(self) -> str:
        """The path of the checkpoint."""
        return self.candidate.path

    @property
    def format(self) -> Format:
        """Its format."""
        return self.candidate.format

    def open(self) -> Backend:
        """Open them; raises as `open_inventory` does."""
        return open_candidate(self.candidate, self.context)

    def find_training_graph(self) -> Graph | None:
        """Read the `.meta` beside it; see `GraphBeside`."""
        return GraphBeside(self.path, self.context).find_training_graph()

    def find_using_graph(self) -> Graph | None:
        """Read a graph whose ops use the tensors; see `GraphBeside`."""
        return GraphBeside(self.path, self.context).find_using_graph(self.format)

    def lasting(self) -> CandidateOpener:
        """Return the same, by paths that mean the same from every directory."""
        candidate = self.candidate.at(self.context.absolute)
        return CandidateOpener(candidate, self.context.again())


def open_inventory(inventory: Inventory, context: Context) -> tuple[Candidate, Backend]:
    """Open what a path means; return which checkpoint that is, and its files.

    Raises:
        CheckpointNotFoundError: A state file names a checkpoint that is not there.
        NotACheckpointError: The index is something else, or the path can mean several checkpoints.
        DataLossError: The checkpoint is damaged.
        UnsupportedError: It needs a newer reader.
        LimitError: It asks for more than the limits allow.
    """
    try:
        if inventory.meant is None or inventory.refusal is not None:
            raise inventory.refusal or CheckpointNotFoundError(
                "No such checkpoint", path=inventory.path
            )
        return inventory.meant, open_candidate(inventory.meant, context)
    except CheckpointError as error:
        name_whole(error, inventory, context)
        raise


def name_whole(error: CheckpointError, inventory: Inventory, context: Context) -> None:
    """Add to an error the name of another checkpoint that is whole, if there is one."""
    listed = [one for one in inventory.others if one.by is By.LISTED]
    whole = _find_newest(listed, inventory, context)
    if whole is not None:
        what = "The newest whole one that is listed"
        if whole.by is not By.LISTED:
            what = "The newest whole one there, which the state file does not list"
        error.hint = _join(error.hint, f"{what}: {whole.path}")
    elif isinstance(error, FileNotFoundError) and not listed:
        beside = _find_beside(inventory, context)
        if beside is not None:
            error.hint = _join(error.hint, f"A whole one lies beside it: {beside}")


def _find_newest(
    listed: Sequence[Candidate], inventory: Inventory, context: Context
) -> Candidate | None:
    """Return the whole one with the highest step, of those listed and those beside a state file.

    A state file that was not copied with the rest, or not written any more, lists older ones.
    """
    found = {one.path: one for one in listed}
    for one in _list_unlisted(inventory, context):
        found.setdefault(one.path, one)
    if inventory.meant is not None:
        found.pop(inventory.meant.path, None)
    # Of those of one step, or of none, the first that is listed comes first.
    ordered = sorted(found.values(), key=lambda one: _step(one.path), reverse=True)
    return next((one for one in ordered if _is_whole(one, context)), None)


def _step(path: str) -> int:
    step = find_step(path)
    return -1 if step is None else step


def _list_unlisted(inventory: Inventory, context: Context) -> list[Candidate]:
    """List the newest checkpoints that lie beside a state file, under the name that it gives."""
    if inventory.state_path is None:
        return []
    from ckptparse.graph.state import read_state
    from ckptparse.inventory.parts import newest_first

    folders = Folders(context)
    try:
        named = read_state(inventory.state_path, context).latest
        step = find_step(named)
        if step is None:
            return []
        name = last_part(named).removesuffix(str(step))
        found = newest_first(folders.split(inventory.state_path)[0], folders)
        named_so = (one for one in found if folders.split(one.path)[1].startswith(name))
        return list(islice(named_so, _MOST_BESIDE))
    except CheckpointError:
        return []


def _find_beside(inventory: Inventory, context: Context) -> str | None:
    """Return the whole checkpoint with the nearest step beside a damaged one; None if none is."""
    from ckptparse.inventory.parts import list_nearest

    broken = inventory.meant or next(iter(inventory.others), None)
    if broken is None or broken.format != "v2" or broken.saved_model is not None:
        return None
    try:
        found = list_nearest(broken.path, Folders(context))[:_MOST_BESIDE]
    except CheckpointError:
        return None
    return next((one for one in found if _is_whole(Candidate("v2", one), context)), None)


class GraphBeside(NamedTuple):
    """The `.meta` beside a checkpoint, read if somebody asks."""

    path: str
    """Of the checkpoint."""
    context: Context

    def find_training_graph(self) -> Graph | None:
        """Read it; None if there is none.

        Raises:
            CheckpointError: It cannot be read.
        """
        meta = strip_shard_suffix(self.path) + META_SUFFIX
        if not is_file(self.context.storage, meta):
            return None
        from ckptparse.inventory.models import find_graph

        return read_graph(find_graph(meta, self.context), self.context)

    def find_using_graph(self, format: Format) -> Graph | None:
        """Read a graph whose ops use the tensors; None if there is none.

        It is the `.meta` beside them, that of the SavedModel whose variables they are, or, if they
        are the constants of a graph (`format`), that graph.

        Raises:
            CheckpointError: It cannot be read.
        """
        from ckptparse.saved_model.reading import find_saved_model_file

        if format == "graph":
            return self._find_own_graph()
        graph = self.find_training_graph()
        if graph is not None:
            return graph
        storage = self.context.storage
        directory, base = storage.split(self.path)
        above, last = storage.split(directory)
        owners = [directory, above] if last == VARIABLES else [directory]
        for owner in owners if base == VARIABLES else ():
            if find_saved_model_file(storage, owner) is not None:
                return _choose_serving(_read_meta_graphs(owner, self.path, self.context)).graph
        return None

    def _find_own_graph(self) -> Graph:
        from ckptparse.identification import identify_file

        identity = identify_file(self.path, self.context)
        if identity.kind in ("graph", "meta-graph"):
            return read_graph(identity, self.context)
        directory, _ = self.context.storage.split(self.path)
        return _choose_serving(_read_meta_graphs(directory, self.path, self.context)).graph


def judge_saved_model(path: str, error: DataLossError, context: Context) -> CheckpointError:
    """Say what a `saved_model.pb` is that does not parse: damaged, or a file of another kind."""
    from ckptparse.identification import identify_file
    from ckptparse.inventory.absent import refuse

    identity = identify_file(path, context)
    if identity.kind in _JUDGED_BY_ITS_READER or identity.kind.startswith("saved-model"):
        if identity.kind == "truncated":
            error.hint = _join(error.hint, identity.advice)
        return error
    return refuse(identity, "a SavedModel")


def lost_variables(directory: str, context: Context) -> CheckpointNotFoundError:
    """Return an error that says that a SavedModel has lost its variables."""
    join = context.storage.join
    return CheckpointNotFoundError(
        "The SavedModel's variables are missing: its graph has variables, but there is no index",
        path=join(join(directory, VARIABLES), VARIABLES) + INDEX_SUFFIX,
        hint="Copy the whole directory `variables` again",
    )


def read_candidate_graph(candidate: Candidate, context: Context) -> Graph:
    """Read the graph whose constants the path means: that of a file, or of a SavedModel.

    Raises:
        CheckpointNotFoundError: It is of a SavedModel that has variables, or no constants.
        DataLossError: It does not parse.
    """
    from ckptparse.identification import identify_file

    if candidate.saved_model is not None:
        return _read_frozen(candidate.saved_model, candidate.path, context)
    identity = candidate.identity or identify_file(candidate.path, context)
    return read_graph(identity, context)


def read_graph(identity: Identity, context: Context) -> Graph:
    """Read a file that was identified as a graph or a meta graph."""
    from ckptparse.graph.graph import Graph

    path, limits = identity.path, context.limits
    data = context.read_whole(path, "message_bytes", "The size of the graph")
    is_meta = identity.kind == "meta-graph"
    if identity.detail["encoding"] == "text":
        return Graph.from_text(data, is_meta=is_meta, limits=limits, path=path)
    decode = Graph.from_meta_graph if is_meta else Graph.from_graph_def
    return decode(data, limits=limits, path=path)


def open_candidate(candidate: Candidate, context: Context) -> Backend:
    """Open the files of a checkpoint; raises as `open_inventory` does."""
    if candidate.format == "v1":
        return _open_legacy(candidate.files, context)
    if candidate.format == "graph":
        graph = read_candidate_graph(candidate, context)
        names = sorted(graph.constants, key=encode_name)
        tensors = {name: graph.constants[name] for name in names}
        from ckptparse.backend.held import HeldTensors
        from ckptparse.files.fingerprint import fingerprint_path

        return HeldTensors(
            "graph",
            (candidate.path,),
            tensors,
            limits=context.limits,
            held=graph.nbytes,
            fingerprint=partial(fingerprint_path, candidate.path, context),
            graph=graph if candidate.saved_model is None else None,
        )
    try:
        return BundleReader.open(candidate.path, context, index_path=candidate.renamed_index)
    except DataLossError as error:
        return _reconsider(candidate, error, context)


def _open_legacy(files: tuple[str, ...], context: Context) -> Backend:
    from ckptparse.legacy.reader import LegacyReader

    try:
        return LegacyReader.open(files, context)
    except DataLossError as error:
        from ckptparse.identification import identify_file
        from ckptparse.inventory.absent import refuse

        identity = identify_file(error.path or files[0], context)
        if identity.kind in ("v1", *_JUDGED_BY_ITS_READER) and identity.kind != "truncated":
            raise
        raise refuse(identity) from error


def _reconsider(candidate: Candidate, error: DataLossError, context: Context) -> Backend:
    """Identify a file that is named as an index and is none: a V1 file, or a web page."""
    from ckptparse.identification import identify_file
    from ckptparse.inventory.absent import refuse
    from ckptparse.inventory.lenient import as_it_is

    actual = as_it_is(candidate, Folders(context))
    if actual.format == "v1":
        return _open_legacy(actual.files, context)
    identity = identify_file(candidate.index_path, context)
    if identity.kind not in (*_JUDGED_BY_ITS_READER, "v1"):
        raise refuse(identity) from error
    if identity.kind not in ("v2-index", "v1"):
        error.hint = _join(error.hint, identity.advice)
    raise error


class _NoVariables:
    """The variables of a SavedModel that has none, as its objects ask for them."""

    def find(self, name: str) -> None:
        """Return None, whatever the name."""

    def names(self) -> tuple[str, ...]:
        """Return no names."""
        return ()

    def find_graph(self) -> None:
        """Return None: nothing was saved of the objects."""


def _read_frozen(directory: str, path: str, context: Context) -> Graph:
    """Read the graph of a SavedModel without variables: a frozen one has its weights there."""
    try:
        graphs = _read_meta_graphs(directory, path, context)
        has_variables = any(graph.has_variables for graph in graphs)
    except DataLossError as error:
        judged = judge_saved_model(path, error, context)
        if judged is not error:
            raise judged from error
        raise CheckpointNotFoundError(
            f"The SavedModel has no variables, and its graph cannot be read: {error.message}",
            path=path,
            hint=error.hint,
        ) from error
    if has_variables:
        raise lost_variables(directory, context)
    chosen = _choose_serving(graphs).graph
    if not chosen.constants:
        raise CheckpointNotFoundError(
            "The SavedModel has no variables, and no constants either",
            path=path,
            hint="ckptparse.open_saved_model reads its graph",
        )
    return chosen


def _read_meta_graphs(directory: str, path: str, context: Context) -> list[MetaGraph]:
    """Read the meta graphs of a SavedModel; its variables are left alone."""
    from ckptparse.saved_model.meta_graph import MetaGraph
    from ckptparse.saved_model.reading import read_saved_model

    model = read_saved_model(directory, context, verify=True)
    nothing = _NoVariables()
    return [
        MetaGraph(
            data,
            directory=directory,
            variables=nothing,
            context=context,
            path=path,
            objects=model.objects,
        )
        for data in model.meta_graphs
    ]


def _choose_serving(graphs: list[MetaGraph]) -> MetaGraph:
    return min(graphs, key=lambda graph: "serve" not in graph.tags)


def _is_whole(candidate: Candidate, context: Context) -> bool:
    """Tell whether an index can be read and its data files are there, as long as it says."""
    try:
        with closing(open_candidate(candidate, context)) as backend:
            present = all(is_file(context.storage, path) for path in backend.files)
            return present and all(
                _size(path, context) >= size for path, size in backend.data_sizes().items()
            )
    except CheckpointError:
        return False


def _size(path: str, context: Context) -> int:
    status = context.storage.stat(path)
    return 0 if status is None else status.size


def _join(hint: str | None, more: str) -> str:
    return f"{hint.rstrip('.')}. {more}" if hint else more
