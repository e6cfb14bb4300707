"""TensorFlow's errors, as far as reading checkpoints raises them; each is one of ours as well.

    except tf.errors.NotFoundError        of old code catches a tensor or a file that is not there
    except ckptparse.CheckpointError      of new code catches the same

What is raised has both classes: `as_tensorflow_error` makes one of each pair that occurs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from ckptparse import errors
from ckptparse.tf.missing import no_attribute

__all__ = [
    "DATA_LOSS",
    "FAILED_PRECONDITION",
    "INTERNAL",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "OUT_OF_RANGE",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "UNIMPLEMENTED",
    "UNKNOWN",
    "DataLossError",
    "FailedPreconditionError",
    "InternalError",
    "InvalidArgumentError",
    "NotFoundError",
    "OpError",
    "OutOfRangeError",
    "PermissionDeniedError",
    "ResourceExhaustedError",
    "UnimplementedError",
    "UnknownError",
    "as_tensorflow_error",
    "translated",
]

UNKNOWN, INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED = 2, 3, 5, 7
RESOURCE_EXHAUSTED, FAILED_PRECONDITION, OUT_OF_RANGE = 8, 9, 11
UNIMPLEMENTED, INTERNAL, DATA_LOSS = 12, 13, 15


class OpError(errors.CheckpointError):
    """What TensorFlow raises if an operation fails.

    Attributes:
        message: What was expected and what was found.
        error_code: The number of its kind.
        node_def: None: there is no graph.
        op: None: there is no operation.
    """

    error_code: int = UNKNOWN
    node_def: None = None
    op: None = None


class InvalidArgumentError(OpError):
    """An argument that means nothing."""

    error_code = INVALID_ARGUMENT


class NotFoundError(OpError):
    """A file or a tensor is not there."""

    error_code = NOT_FOUND


class PermissionDeniedError(OpError):
    """A file is there and may not be read."""

    error_code = PERMISSION_DENIED


class ResourceExhaustedError(OpError):
    """A file asks for more than the limits allow."""

    error_code = RESOURCE_EXHAUSTED


class FailedPreconditionError(OpError):
    """The reader has been closed."""

    error_code = FAILED_PRECONDITION


class OutOfRangeError(OpError):
    """A file ends too early."""

    error_code = OUT_OF_RANGE


class UnimplementedError(OpError):
    """A file needs what is not known here."""

    error_code = UNIMPLEMENTED


class InternalError(OpError):
    """A tensor's kind of element has no numpy type."""

    error_code = INTERNAL


class UnknownError(OpError):
    """Anything else."""


class DataLossError(OpError):
    """A file is damaged, or is no checkpoint."""

    error_code = DATA_LOSS


_KINDS: tuple[tuple[type[errors.CheckpointError], tuple[type[Exception], ...]], ...] = (
    (errors.TensorNotFoundError, (NotFoundError,)),
    (errors.CheckpointNotFoundError, (NotFoundError,)),
    (errors.MissingShardError, (NotFoundError, DataLossError)),
    (errors.PermissionDeniedError, (PermissionDeniedError,)),
    # TensorFlow 1 raised the first, TensorFlow 2 raises a plain IndexError.
    (errors.TruncatedError, (OutOfRangeError, DataLossError, IndexError)),
    (errors.DataLossError, (DataLossError,)),
    (errors.NotACheckpointError, (DataLossError,)),
    (errors.AmbiguousError, (InvalidArgumentError,)),
    (errors.LimitError, (ResourceExhaustedError,)),
    (errors.UnsupportedError, (UnimplementedError,)),
    (errors.ClosedError, (FailedPreconditionError,)),
    (errors.CheckpointError, (UnknownError,)),
)
"""Our classes, the special before the general -> those that old code catches."""


def as_tensorflow_error(
    error: errors.CheckpointError, *more: type[Exception]
) -> errors.CheckpointError:
    """Return an error of both classes, ours and TensorFlow's, that says the same.

    Args:
        error: One of ours.
        more: Further classes that old code catches in this place.
    """
    if isinstance(error, OpError):
        return error
    return _make(_pair(type(error), more), error.args, error.__dict__)


def _make(
    kind: type[errors.CheckpointError], args: tuple[Any, ...], values: dict[str, Any]
) -> errors.CheckpointError:
    """Make an error without its constructor: those of our errors differ."""
    make: Any = OSError.__new__ if issubclass(kind, OSError) else Exception.__new__
    error: errors.CheckpointError = make(kind, *args)
    Exception.__init__(error, *args)
    error.__dict__.update(values)
    return error


@contextmanager
def translated(*more: type[Exception]) -> Iterator[None]:
    """Raise our errors as TensorFlow's."""
    try:
        yield
    except errors.CheckpointError as error:
        raise as_tensorflow_error(error, *more).with_traceback(error.__traceback__) from (
            error.__cause__
        )


_pairs: dict[tuple[type[Exception], ...], type[errors.CheckpointError]] = {}


def _pair(
    ours: type[errors.CheckpointError], more: tuple[type[Exception], ...]
) -> type[errors.CheckpointError]:
    """Return the class that is one of ours and of TensorFlow's; the same one each time."""
    known = _pairs.get((ours, *more))
    return _pairs.setdefault((ours, *more), _make_pair(ours, more)) if known is None else known


def _make_pair(
    ours: type[errors.CheckpointError], more: tuple[type[Exception], ...]
) -> type[errors.CheckpointError]:
    theirs = next(kinds for one, kinds in _KINDS if issubclass(ours, one))
    # An IndexError is no KeyError: what is both already is left out.
    bases = [*theirs, ours, *(kind for kind in more if not issubclass(ours, kind))]
    namespace: dict[str, Any] = {
        "__module__": __name__,
        "__doc__": ours.__doc__,
        "error_code": theirs[0].__dict__.get("error_code", UNKNOWN),
        "more": more,
        "__reduce__": _reduce,
    }
    # Ours has more of the general ones above it.
    bases.sort(key=lambda kind: kind.__module__ == "builtins")
    return type(theirs[0].__name__, tuple(bases), namespace)


def _reduce(self: errors.CheckpointError) -> tuple[Any, ...]:
    ours = next(kind for kind in type(self).__mro__ if kind.__module__ == errors.__name__)
    return _rebuild, (ours, type(self).more, self.args, self.__dict__)  # type: ignore[attr-defined]


def _rebuild(
    ours: type[errors.CheckpointError],
    more: tuple[type[Exception], ...],
    args: tuple[Any, ...],
    values: dict[str, Any],
) -> errors.CheckpointError:
    return _make(_pair(ours, more), args, values)


def __getattr__(name: str) -> NoReturn:
    raise no_attribute(__name__, name)
