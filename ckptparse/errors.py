"""The errors: one root class, and each is also the standard exception that a caller may catch.

    CheckpointError(Exception)
    ├── CheckpointNotFoundError   (FileNotFoundError)     nothing at that path
    ├── PermissionDeniedError     (PermissionError)       it is there, but may not be read
    ├── OutputExistsError         (FileExistsError)       the output exists already
    ├── OutputError               (OSError)               a result could not be written: .errno
    ├── StorageError              (OSError)               a storage or network failed
    ├── ClosedError               (ValueError)            the checkpoint has been closed
    ├── NotACheckpointError       (ValueError)            something else is there: .identity
    ├── TensorNotFoundError       (KeyError)              with the closest names
    ├── AmbiguousError            (ValueError)            there are several: .candidates names them
    ├── DataLossError             (ValueError)            the checkpoint is damaged
    │   ├── ChecksumError                                 .stored, .computed
    │   ├── TruncatedError        (EOFError)
    │   ├── MissingShardError     (FileNotFoundError)
    │   └── MalformedError                                bytes that break the format's rules
    ├── LimitError                (ValueError)            a file asks for more than the Limits allow
    └── UnsupportedError          (NotImplementedError)

A message says what was expected and what was found. `path`, `offset`, `size` and `tensor` say
where. `hint` says what to do. `located` adds a place that only the caller of a function knows.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

__all__ = [
    "AmbiguousError",
    "CheckpointError",
    "CheckpointNotFoundError",
    "ChecksumError",
    "ClosedError",
    "DataLossError",
    "LimitError",
    "MalformedError",
    "MissingShardError",
    "NotACheckpointError",
    "OutputError",
    "OutputExistsError",
    "PermissionDeniedError",
    "StorageError",
    "TensorNotFoundError",
    "TruncatedError",
    "UnsupportedError",
    "closest_names",
    "located",
    "name_not_found",
]

_MOST_COMPARED_NAMES = 2000
"""Names that are compared for similarity: with more, an error would take long to make."""
_MOST_CLOSEST = 3
_ATTRIBUTES = "/.ATTRIBUTES/"
"""Parts the path of an object from its attribute's name, in the keys of TensorFlow 2."""


class CheckpointError(Exception):
    """A checkpoint, or a part of it, cannot be read. All errors of this package are of this class.

    Message and hint are safe to print: what a terminal would obey in the text of a file is escaped.

    Attributes:
        message: What was expected and what was found.
        path: The file, or None if no file is involved.
        offset: Byte offset in that file, or None.
        size: Number of bytes concerned, or None.
        tensor: Name of the tensor, or None.
        hint: What to try, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        offset: int | None = None,
        size: int | None = None,
        tensor: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.message = message
        super().__init__(self.message)
        self.path = path
        self.offset = offset
        self.size = size
        self.tensor = tensor
        self.hint = hint

    @property
    def message(self) -> str:
        """What was expected and what was found."""
        return self._message

    @message.setter
    def message(self, text: str) -> None:
        self._message = _safe(text)

    @property
    def hint(self) -> str | None:
        """What to try, or None."""
        return self._hint

    @hint.setter
    def hint(self, text: str | None) -> None:
        self._hint = None if text is None else _safe(text)

    def __str__(self) -> str:
        where = ", ".join(self._where())
        text = f"{self.message} ({where})" if where else self.message
        return f"{text}. {self.hint}" if self.hint else text

    def _where(self) -> Iterator[str]:
        if self.tensor is not None:
            yield f"tensor {self.tensor!r}"
        if self.path is not None:
            yield f"file {self.path!r}"
        if self.offset is not None:
            yield f"offset {self.offset}"
        if self.size is not None:
            yield f"{self.size} bytes"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message), self.__dict__


def _safe(text: str) -> str:
    """Escape what a terminal would obey: a sentence may quote what a file holds."""
    if text.isprintable():
        return text
    from ckptparse.text import clean

    return clean(text)


def _rebuild(kind: type[CheckpointError], message: str) -> CheckpointError:
    """Make an unpickled error; its attributes are in the pickled `__dict__`."""
    return kind(message)


class _PathError(CheckpointError, OSError):
    """An error for handlers of `OSError` too: it has `errno`, and the path as `filename`."""

    _number: int

    @property
    def errno(self) -> int:  # type: ignore[override] # OSError has it writable
        """The operating system's number for this error."""
        return self._number

    @property
    def filename(self) -> str | None:
        """The path."""
        return self.path


class CheckpointNotFoundError(_PathError, FileNotFoundError):
    """There is nothing at that path."""

    _number = errno.ENOENT


class PermissionDeniedError(_PathError, PermissionError):
    """There is something at that path, but the caller may not read or write it."""

    _number = errno.EACCES


class OutputExistsError(_PathError, FileExistsError):
    """The output exists already, and the caller did not ask to replace it."""

    _number = errno.EEXIST


class OutputError(_PathError, OSError):
    """A result could not be written: the disk is full, or the system refuses for another reason.

    Attributes:
        errno: The system's number for the reason.
    """

    def __init__(self, message: str, *, number: int | None = None, **where: Any) -> None:
        super().__init__(message, **where)
        self._number = errno.EIO if number is None else number


class StorageError(_PathError, OSError):
    """A storage cannot be read: the network failed, or the object was replaced meanwhile.

    This does not mean that the checkpoint is damaged.
    """

    _number = errno.EIO


class ClosedError(CheckpointError, ValueError):
    """The checkpoint was closed; open it again to read from it."""


class NotACheckpointError(CheckpointError, ValueError):
    """There is something at that path, and it is no checkpoint.

    Attributes:
        identity: What it is instead (`ckptparse.Identity`); None if it was not identified.
    """

    def __init__(self, message: str, *, identity: Any = None, **where: Any) -> None:
        super().__init__(message, **where)
        self.identity = identity


class TensorNotFoundError(CheckpointError, KeyError):
    """The checkpoint holds no tensor of that name.

    Attributes:
        closest: The most similar names in it, best first.
    """

    def __init__(self, message: str, *, closest: tuple[str, ...] = (), **where: Any) -> None:
        super().__init__(message, **where)
        self.closest = closest


class AmbiguousError(CheckpointError, ValueError):
    """One thing was asked for, and there are several.

    Attributes:
        candidates: Their names.
    """

    def __init__(self, message: str, *, candidates: tuple[str, ...] = (), **where: Any) -> None:
        super().__init__(message, **where)
        self.candidates = candidates


class DataLossError(CheckpointError, ValueError):
    """The checkpoint is damaged."""


class ChecksumError(DataLossError):
    """The CRC-32C of bytes is not the stored one.

    Attributes:
        stored: The checksum in the file, unmasked, or None if it is not known.
        computed: The checksum of the bytes that were read, or None if it is not known.
    """

    def __init__(
        self,
        message: str,
        *,
        stored: int | None = None,
        computed: int | None = None,
        **where: Any,
    ) -> None:
        super().__init__(message, **where)
        self.stored = stored
        self.computed = computed


class TruncatedError(DataLossError, EOFError):
    """A file ends before the bytes that it should have."""


class MissingShardError(DataLossError, _PathError, FileNotFoundError):
    """A data file that the index refers to is not there."""

    _number = errno.ENOENT


class MalformedError(DataLossError):
    """Bytes break the rules of their format."""


class LimitError(CheckpointError, ValueError):
    """A file asks for more than the `Limits` allow.

    Attributes:
        limit: Name of the field of `Limits` that was reached, or None.
    """

    def __init__(self, message: str, *, limit: str | None = None, **where: Any) -> None:
        super().__init__(message, **where)
        self.limit = limit
        if limit is not None and self.hint is None:
            self.hint = f"If the file can be trusted, pass limits=Limits({limit}=...) with more"


class UnsupportedError(CheckpointError, NotImplementedError):
    """The file is whole, but this reader or its installed dependencies cannot read it."""


def closest_names(name: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return the names most similar to a missing one; of very many, those with its last part.

    Of keys of objects the paths are compared: what follows, `/.ATTRIBUTES/VARIABLE_VALUE`, is the
    same for nearly all of them, and nobody types it.
    """
    import difflib

    known, wanted = list(names), name.partition(_ATTRIBUTES)[0]
    if len(known) > _MOST_COMPARED_NAMES:
        last = wanted.rsplit("/", 1)[-1].removesuffix(":0").lower()
        known = [one for one in known if last and last in one.lower()][:_MOST_COMPARED_NAMES]
    by_path: dict[str, list[str]] = {}
    for one in known:
        by_path.setdefault(one.partition(_ATTRIBUTES)[0], []).append(one)
    if wanted in by_path:
        found = [wanted]
    else:
        found = difflib.get_close_matches(wanted, by_path, n=_MOST_CLOSEST, cutoff=0.5)
    return tuple(one for path in found for one in by_path[path])[:_MOST_CLOSEST]


def name_not_found(
    message: str, name: str, names: Iterable[str], *, path: str | None
) -> TensorNotFoundError:
    """Return the error for a name that is not in `names`, with the closest of these."""
    closest = closest_names(name, names)
    return TensorNotFoundError(
        message,
        closest=closest,
        tensor=name,
        path=path,
        hint=f"Closest: {', '.join(map(repr, closest))}" if closest else None,
    )


class located:  # noqa: N801 - a context manager, used as a function
    """Add the place that the caller knows to a `CheckpointError` that is raised inside.

    A class, since every read enters some: a generator takes three times as long.
    """

    __slots__ = ("_offset", "_path", "_tensor")

    def __init__(
        self, *, path: str | None = None, offset: int | None = None, tensor: str | None = None
    ) -> None:
        self._path = path
        self._offset = offset
        self._tensor = tensor

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, CheckpointError):
            error.path = self._path if error.path is None else error.path
            error.offset = self._offset if error.offset is None else error.offset
            error.tensor = self._tensor if error.tensor is None else error.tensor
