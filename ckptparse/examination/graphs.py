"""Check a graph: whether it parses, and whether its constants decode.

A graph stores no checksum, so nothing in it can be verified: what decodes is `unverified`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from ckptparse.backend.small import Sized, iter_batches, read_small
from ckptparse.dtypes import DataType, dtype_name
from ckptparse.errors import CheckpointError, DataLossError, LimitError, UnsupportedError
from ckptparse.examination.outcome import Outcome
from ckptparse.examination.report import FileRange, FileReport, Report, TensorReport
from ckptparse.files.context import Context
from ckptparse.graph.attributes import ConstantPayload
from ckptparse.graph.graph import Graph
from ckptparse.inventory.inventory import Candidate
from ckptparse.limits import Budget, Singles
from ckptparse.opening import read_candidate_graph
from ckptparse.problems import Cause, Problem, Status
from ckptparse.tensor import Tensor, check_rank

__all__ = ["verify_graph"]


def verify_graph(candidate: Candidate, context: Context) -> Report:
    """Check a graph: it parses, and each of its constants decodes.

    Raises:
        CheckpointNotFoundError: It is of a SavedModel that has no constants.
        NotACheckpointError: Something else is in its place.
    """
    path = candidate.path
    problems: list[Problem] = []
    tensors: dict[str, TensorReport] = {}
    try:
        graph = read_candidate_graph(candidate, context)
    except (DataLossError, LimitError, UnsupportedError) as error:
        problems.append(_problem(path, error))
    else:
        check = _Check(graph)
        try:
            check.check_all()
        except LimitError as error:
            problems.append(_problem(path, error))
        tensors = check.found
        problems += [Problem.of("limit.reached", path, message) for message in check.left_out()]
        problems += [
            Problem.of("graph.damaged", f"{path}: {name}", tensor.note)
            for name, tensor in tensors.items()
            if tensor.status is Status.CORRUPT
        ]
    files = {path: _describe_file(path, context, ok=not problems)}
    return Report(path, "graph", tensors, files, tuple(problems), limits=context.limits)


class _Check:
    """The constants of a graph that were looked at, and what limits left out.

    Attributes:
        found: What is said of each.
    """

    def __init__(self, graph: Graph) -> None:
        self.found: dict[str, TensorReport] = {}
        self._graph = graph
        self._singles = Singles(graph.limits, graph.nbytes)
        self._variants = Budget(graph.limits, graph.nbytes)
        self._limit: str | None = None

    def check_all(self) -> None:
        """Check every constant; small ones are read together, and of others as many as allowed.

        Raises:
            LimitError: There are more than `Limits.small_tensors` allows.
        """
        headers: list[Sized] = []
        constants = self._graph.constants
        for name in constants:
            try:
                tensor = constants[name]
            except CheckpointError as error:  # noqa: PERF203 - of each that is broken it is said
                if self._singles.take():
                    self.found[name] = _describe_broken(name, None, error)
            else:
                self.found[name] = _describe(tensor)
                headers.append(Sized.of(name, tensor))
        for batch in iter_batches(headers):
            for one, array in zip(batch, read_small(batch), strict=True):
                if array is None and isinstance(one.tensor, Tensor):
                    self._check_one(one.name, one.tensor)

    def _check_one(self, name: str, tensor: Tensor) -> None:
        """Correct the report of a constant that is read by itself; remove it if it may not be."""
        if not self._singles.take():
            del self.found[name]
            return
        try:
            _decode(tensor, self._variants)
        except LimitError as error:
            del self.found[name]
            self._limit = self._limit or error.message
        except CheckpointError as error:
            self.found[name] = _describe_broken(name, tensor, error)

    def left_out(self) -> Iterator[str]:
        """Iterate over what is to be said of constants that were not looked at."""
        if self._singles.exceeded:
            yield self._singles.message
        if self._limit is not None:
            yield f"Constants were left out, the first since: {self._limit}"


def _describe(tensor: Tensor) -> TensorReport:
    """Make the report of a constant that decodes."""
    elements = ((0, tensor.size),) if tensor.size else ()
    outcome = Outcome(Status.UNVERIFIED, Cause.NO_CHECKSUM, ranges=elements)
    return TensorReport(outcome, tensor.name, dtype_name(tensor.data_type), tensor.shape)


def _describe_broken(name: str, tensor: Tensor | None, error: CheckpointError) -> TensorReport:
    """Make the report of a constant that does not decode, or has no dtype or shape."""
    if isinstance(error, UnsupportedError):
        outcome = Outcome(Status.UNVERIFIED, Cause.NO_CHECKSUM, note=error.message)
        if tensor is None:
            return TensorReport(outcome, name, None, None)
        return TensorReport(outcome, name, dtype_name(tensor.data_type), tensor.shape)
    outcome = Outcome(Status.CORRUPT, Cause.ENTRY, note=error.message)
    return TensorReport(outcome, name, None, None)


def _decode(tensor: Tensor, variants: Budget) -> None:
    """Raise what reading a constant raises: a few bytes may stand for very many elements."""
    payload = tensor.payload
    if isinstance(payload, ConstantPayload):
        check_rank(len(tensor.shape))
        payload.check(variants if tensor.data_type == DataType.DT_VARIANT else None)
    else:
        tensor.read()


def _problem(path: str, error: CheckpointError) -> Problem:
    code = "limit.reached" if isinstance(error, LimitError) else "graph.damaged"
    return Problem.of(code, path, error.message)


def _describe_file(path: str, context: Context, *, ok: bool) -> FileReport:
    with closing(context.storage.open(path)) as source:
        size = source.size
    return FileReport(path, "graph", size, (FileRange(0, size, "unverified" if ok else "bad"),))
