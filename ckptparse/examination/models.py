"""Whether the SavedModel around a checkpoint can be opened: its message, without its variables."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

from ckptparse.errors import (
    CheckpointError,
    LimitError,
    PermissionDeniedError,
    StorageError,
    UnsupportedError,
)
from ckptparse.examination.report import FileRange, FileReport, Report
from ckptparse.examination.summary import sort_problems
from ckptparse.files.context import Context
from ckptparse.inventory.inventory import By, Candidate
from ckptparse.problems import Problem, Severity
from ckptparse.saved_model.reading import find_saved_model_file

__all__ = ["add_model"]


def add_model(report: Report, directory: str, candidate: Candidate, context: Context) -> Report:
    """Add to the report on a SavedModel's variables whether the model itself can be opened.

    That it cannot is an error if the path means the SavedModel, so that `verify MODEL && deploy`
    never approves it. It is a warning if the path names the checkpoint, which opens without it.
    A model that needs a package that is not installed is not judged.
    """
    path = find_saved_model_file(context.storage, directory)
    if path is None:
        return report
    problems = list(report.problems)
    error = _find_error(path, directory, context)
    if error is not None:
        severity = Severity.ERROR if candidate.by is By.SAVED_MODEL else Severity.WARNING
        message = f"the SavedModel does not open: {error.message}"
        problems.append(Problem.of(_code(error), path, message, severity=severity))
    found = context.storage.stat(path)
    size = 0 if found is None else found.size
    ranges = (FileRange(0, size, "unverified" if error is None else "bad"),) if size else ()
    files = dict(report.files) | {path: FileReport(path, "graph", size, ranges)}
    return replace(report, problems=sort_problems(problems), files=files)


def _find_error(path: str, directory: str, context: Context) -> CheckpointError | None:
    try:
        if path.endswith(".cpb"):
            _check_container(path, context)
        else:
            _check_message(directory, context)
    except StorageError:
        raise
    except CheckpointError as error:
        return None if isinstance(error, UnsupportedError) else error
    return None


def _check_message(directory: str, context: Context) -> None:
    """Read the meta graphs, and find the nodes of each graph."""
    from ckptparse.model import SavedModel

    with SavedModel(directory, context, verify=False) as model:
        for meta_graph in model.meta_graphs:
            len(meta_graph.graph.nodes)


def _check_container(path: str, context: Context) -> None:
    """Check the headers of every chunk; the chunks may be as large as the weights."""
    from ckptparse.saved_model.riegeli import RecordReader

    with closing(context.storage.open(path)) as source:
        len(RecordReader.from_source(source, limits=context.limits, verify=False).chunks)


def _code(error: CheckpointError) -> str:
    if isinstance(error, LimitError):
        return "limit.reached"
    return "file.unreadable" if isinstance(error, PermissionDeniedError) else "graph.damaged"
