"""What a page is made of: a path, or a value that the caller has already."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ckptparse.checkpoint import Checkpoint
from ckptparse.errors import CheckpointError, CheckpointNotFoundError
from ckptparse.examination.report import Report
from ckptparse.examination.verify import verify_path
from ckptparse.files.context import Context
from ckptparse.graph.graph import Graph
from ckptparse.identification import Identity
from ckptparse.inventory.folders import Folders
from ckptparse.inventory.identities import identify_path
from ckptparse.inventory.models import find_graph, find_saved_model
from ckptparse.inventory.places import choose_strictly
from ckptparse.jobs.diff import Diff
from ckptparse.limits import Limits
from ckptparse.model import SavedModel
from ckptparse.opening import open_checkpoint, read_graph
from ckptparse.recovery.result import Recovery

__all__ = ["Subject", "open_subject"]

_SAVED_MODELS = frozenset(
    {"savedmodel", "hub-module", "saved-model-pb", "saved-model-pbtxt", "saved-model-cpb"}
)
_GRAPHS = frozenset({"graph", "meta-graph"})
_FORMATS = {
    "v2": "V2 checkpoint (tensor bundle)",
    "v1": "V1 checkpoint",
    "graph": "constants of a frozen graph",
}
_VALUES_EACH = 5
"""Tensors of which values are shown, for each that other jobs take: more take a second to list."""
Value = TypeVar("Value")


@dataclass
class Subject:
    """What a page is made of; a part that cannot be had is None, and `errors` says why.

    Attributes:
        kind: What it is, in a few words.
        path: Where it lies.
        tensors: Every tensor whose values may be read, by its stored name.
        files: The files that were read.
        errors: What could not be read, as messages.
        left_out: How many tensors are too many to be shown; `tensors` has the others then.
    """

    kind: str
    path: str
    tensors: Mapping[str, Any] = field(default_factory=dict)
    report: Report | None = None
    recovery: Recovery | None = None
    checkpoint: Checkpoint | None = None
    model: SavedModel | None = None
    graph: Graph | None = None
    comparison: Diff | None = None
    files: tuple[str, ...] = ()
    errors: list[str] = field(default_factory=list)
    left_out: int = 0

    def ask(self, question: Callable[[], Value]) -> Value | None:
        """Ask for one part; if it is damaged or missing, note that and go on without it."""
        try:
            return question()
        except (CheckpointError, OSError) as error:
            message = error.message if isinstance(error, CheckpointError) else str(error)
            if message not in self.errors:
                self.errors.append(message)
            return None


@contextmanager
def open_subject(source: Any, context: Context, *, check: bool) -> Iterator[Subject]:
    """Open what the caller named, and close it afterwards; a value stays open.

    Args:
        source: A path, or a value.
        context: Where a path leads, how much its files may ask for, and who is told how far the
            check has come.
        check: Whether every checksum of a path is checked.

    Raises:
        CheckpointError: Nothing at the path can be shown.
        TypeError: A page cannot be made of such a value.
    """
    if isinstance(source, str):
        with _open_path(source, context, check=check) as subject:
            yield subject
        return
    if isinstance(source, Diff):
        with _open_second(source, context) as subject:
            yield subject
        return
    for kind, take in _VALUES.items():
        if isinstance(source, kind):
            # Of a recovery, a file that was converted is so once.
            with getattr(source, "keep_open", nullcontext)():
                yield take(source)
            return
    names = ", ".join([*(kind.__name__ for kind in _VALUES), "Diff"])
    raise TypeError(f"A page is made of a path, or of a {names}; not of a {type(source).__name__}")


@contextmanager
def _open_path(path: str, context: Context, *, check: bool) -> Iterator[Subject]:
    folders = Folders(context)
    identity = _identify(path, folders)
    kind = "" if identity is None else identity.kind
    if identity is not None and kind in _GRAPHS:
        # What lies at the path itself is not identified twice.
        found = identity if identity.path == path else find_graph(path, context)
        yield _of_graph(read_graph(found, context))
        return
    if kind in _SAVED_MODELS:
        with SavedModel(find_saved_model(path, context), context, verify=False) as model:
            model.check_hub_module()
            subject = _of_model(model)
            if check and subject.checkpoint is not None:
                subject.report = subject.ask(lambda: verify_path(path, context))
            yield subject
        return
    report = verify_path(path, context, folders=folders) if check else None
    with _open_damaged(path, report, folders) as subject:
        yield subject


@contextmanager
def _open_damaged(path: str, report: Report | None, folders: Folders) -> Iterator[Subject]:
    """Open a checkpoint; if it does not open, or has too many tensors, the report is all."""
    context = folders.context
    if report is not None:
        told = _too_many(len(report.tensors) + report.left_out, report, context.limits)
        if told:
            yield _of_report(report, told)
            return
    try:
        # Unverified: the report says what is damaged, and damaged values are shown as they are.
        checkpoint = open_checkpoint(choose_strictly(path, context, folders), context, verify=False)
    except CheckpointError as error:
        if report is None:
            raise
        yield _of_report(report, error.message)
        return
    with checkpoint:
        # A report leaves out what is damaged beyond a limit.
        count = 0 if report is None else _count(checkpoint)
        if report is not None and (told := _too_many(count, report, context.limits)):
            yield _of_report(report, told)
            return
        subject = _of_checkpoint(checkpoint)
        subject.report = report
        yield subject


def _count(checkpoint: Checkpoint) -> int:
    """Return how many tensors are listed; 0 if that cannot be told."""
    try:
        # As columns: to count them needs no name -> shape.
        return len(checkpoint.places().names if checkpoint.format == "v2" else checkpoint)
    except (CheckpointError, OSError):
        return 0


def _too_many(count: int, report: Report, limits: Limits) -> str:
    """Say why the values of so many tensors are not shown; nothing if they are."""
    if count <= _VALUES_EACH * limits.small_tensors:
        return ""
    size = sum(file.size or 0 for file in report.files.values())
    if count <= _VALUES_EACH * limits.most_small(size):
        return ""
    return (
        f"No values are shown of {count:,} tensors: Limits.small_tensors allows {_VALUES_EACH} "
        f"times {limits.small_tensors:,}, and {_VALUES_EACH} for each 512 bytes of the files"
    )


@contextmanager
def _open_second(comparison: Diff, context: Context) -> Iterator[Subject]:
    """Open the second of what was compared; if it does not open, the comparison is all there is."""
    before, after = comparison.paths
    kind = f"what changed since {before}"
    try:
        checkpoint = open_checkpoint(choose_strictly(after, context), context, verify=False)
    except CheckpointError:
        yield Subject(kind, after, comparison=comparison)
        return
    with checkpoint:
        subject = _of_checkpoint(checkpoint)
        subject.kind, subject.comparison = kind, comparison
        yield subject


def _identify(path: str, folders: Folders) -> Identity | None:
    """Say what lies at a path; if nothing does, opening says it better."""
    try:
        return identify_path(path, folders)
    except CheckpointNotFoundError:
        return None


def _of_checkpoint(checkpoint: Checkpoint) -> Subject:
    subject = Subject(_FORMATS[checkpoint.format], checkpoint.path, checkpoint=checkpoint)
    subject.tensors = subject.ask(lambda: _by_stored_name(checkpoint)) or {}
    subject.files = checkpoint.files
    return subject


def _of_model(model: SavedModel) -> Subject:
    subject = Subject("SavedModel", model.path, model=model)
    subject.files = (model.file,) if model.file else ()
    if subject.ask(lambda: model.has_variables) is not False:
        subject.checkpoint = subject.ask(lambda: model.variables)
    if subject.checkpoint is not None:
        checkpoint = subject.checkpoint
        subject.tensors = subject.ask(lambda: _by_stored_name(checkpoint)) or {}
        subject.files += checkpoint.files
    return subject


def _of_graph(graph: Graph) -> Subject:
    kind = "meta graph" if graph.is_meta_graph else "graph"
    subject = Subject(kind, graph.path or "(a graph in memory)", graph=graph)
    subject.tensors = subject.ask(lambda: dict(graph.constants)) or {}
    subject.files = (graph.path,) if graph.path else ()
    return subject


def _of_report(report: Report, *errors: str) -> Subject:
    kind = f"report on a {_FORMATS[report.format]}"
    files = tuple(report.files)
    return Subject(kind, report.path, report=report, files=files, errors=list(errors))


def _of_recovery(recovery: Recovery) -> Subject:
    report = recovery.report
    kind = f"what was got back of a {_FORMATS[report.format]}"
    return Subject(kind, report.path, recovery, report, recovery, files=tuple(report.files))


def _by_stored_name(checkpoint: Checkpoint) -> Mapping[str, Any]:
    names = list(checkpoint)
    if checkpoint.format == "v1" or (
        checkpoint.format == "v2" and names == list(checkpoint.places().names)
    ):
        return checkpoint
    return {tensor.name: tensor for tensor in checkpoint.values()}


_VALUES: Mapping[type, Callable[[Any], Subject]] = {
    Checkpoint: _of_checkpoint,
    SavedModel: _of_model,
    Graph: _of_graph,
    Report: _of_report,
    Recovery: _of_recovery,
}
