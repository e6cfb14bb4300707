"""The state file `checkpoint` of a directory: which checkpoints it has (docs/format.md, section 5).

The file is a CheckpointState message as text:

    model_checkpoint_path: "ckpt-3"                       the newest prefix
    all_model_checkpoint_paths: "ckpt-2"                  every prefix, oldest first
    all_model_checkpoint_paths: "ckpt-3"
    all_model_checkpoint_timestamps: 1795337513.3563564   seconds, beside the paths
    last_preserved_timestamp: 1795337512.316562

Relative paths are relative to the directory of the state file. Where the checkpoints that it names
lie today, `inventory.listed` finds out.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from ckptparse.errors import MalformedError, UnsupportedError
from ckptparse.files.context import Context
from ckptparse.proto.checkpoint_state_pb2 import CheckpointState as CheckpointStateProto
from ckptparse.proto.parsing import parse_text
from ckptparse.text import brief_repr

__all__ = [
    "CheckpointState",
    "StateFile",
    "add_to_state",
    "decode_state",
    "parse_state",
    "read_message",
    "read_state",
]

_VALUE_BYTES = 16
"""Fewest bytes that a value counts as, for lists in brackets, strings in pieces, escapes:
parsing one takes as long as so many bytes of lines."""
_PATH_BYTES = 100
"""What a path counts as, which is looked for in two directories: as `Limits.state_bytes` says."""
_BYTE_ORDER_MARK = "\ufeff"
_PATH_FIELDS = ("model_checkpoint_path", "all_model_checkpoint_paths")
_CURLY = frozenset("\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb")
_WINDOWS = re.compile(r"[A-Za-z]:\\|\\\\?[A-Za-z]")
_MOST_QUOTED = 120
"""Characters of a state file that an error quotes: about a line."""


@dataclass(frozen=True, slots=True, repr=False)
class CheckpointState:
    """What a state file lists. Relative paths are joined to its directory."""

    latest: str
    """Prefix of the newest checkpoint."""
    paths: tuple[str, ...]
    """Prefixes of every listed checkpoint, oldest first."""
    timestamps: tuple[float, ...]
    """Seconds since the epoch beside `paths`; empty if the writer kept none."""
    last_preserved: float | None
    """When a checkpoint was last kept for good, in seconds since the epoch."""

    def __repr__(self) -> str:
        return brief_repr(self)


@dataclass(frozen=True, slots=True)
class StateFile:
    """A state file, its paths as they are written.

    Attributes:
        path: The file.
        directory: Where it lies, which relative paths are relative to.
        latest: The newest checkpoint.
        paths: Every listed checkpoint, oldest first.
        timestamps: Seconds since the epoch beside `paths`.
        last_preserved: When a checkpoint was last kept for good.
    """

    path: str
    directory: str
    latest: str
    paths: tuple[str, ...] = ()
    timestamps: tuple[float, ...] = ()
    last_preserved: float | None = None

    def newest_first(self) -> Iterator[str]:
        """Iterate over the listed paths, the newest first, each once."""
        yield from dict.fromkeys((self.latest, *reversed(self.paths)))


def read_state(path: str, context: Context) -> StateFile:
    """Read a state file.

    Raises:
        CheckpointNotFoundError: Nothing is there.
        PermissionDeniedError: It may not be read.
        MalformedError: It is not the text of a state file, or names no newest checkpoint.
        LimitError: It is larger than the limits allow.
    """
    return decode_state(read_message(path, context), path, context)


def read_message(path: str, context: Context) -> CheckpointStateProto:
    """Read the message in a state file; errors are those of `read_state`."""
    with closing(context.storage.open(path)) as source:
        context.limits.check("state_bytes", source.size, "The size of the state file", path=path)
        data = source.read_at(0, source.size)
    return parse_state(data, path, context)


def decode_state(message: CheckpointStateProto, path: str, context: Context) -> StateFile:
    """Take what a message lists.

    Raises:
        MalformedError: It names no newest checkpoint, as an empty one does.
    """
    if not message.model_checkpoint_path:
        raise MalformedError(
            "Expected a state file with a model_checkpoint_path, found none in it",
            path=path,
            hint="Pass the prefix of a checkpoint in that directory instead of the directory",
        )
    return StateFile(
        path,
        context.storage.split(path)[0],
        message.model_checkpoint_path,
        tuple(message.all_model_checkpoint_paths),
        tuple(message.all_model_checkpoint_timestamps),
        message.last_preserved_timestamp or None,
    )


def add_to_state(data: bytes, prefix: str, *, path: str, context: Context) -> str:
    """Make the text of a state file that names one more checkpoint, as its newest.

    What it lists already stays as it is, but for the new one if that was listed.

    Args:
        data: The state file so far; empty if there is none.
        prefix: Of the new checkpoint, relative to the directory of the state file.
        path: The state file, for errors.
        context: Bounds on its nesting.

    Raises:
        MalformedError: It is not the text of a state file.
        UnsupportedError: The prefix is not UTF-8.
    """
    message = parse_state(data, path, context)
    listed = list(message.all_model_checkpoint_paths)
    times = list(message.all_model_checkpoint_timestamps)
    if len(times) != len(listed):
        times = []
    kept = [number for number, known in enumerate(listed) if known != prefix]
    try:
        message.model_checkpoint_path = prefix
    except (UnicodeEncodeError, ValueError):
        raise UnsupportedError(
            f"A state file holds text, and the prefix {prefix!r} is not UTF-8", path=path
        ) from None
    message.all_model_checkpoint_paths[:] = [*(listed[number] for number in kept), prefix]
    now = [time.time()] if times else []
    message.all_model_checkpoint_timestamps[:] = [times[n] for n in kept if times] + now
    from google.protobuf import text_format

    text: str = text_format.MessageToString(message)
    return text


def parse_state(data: bytes, path: str, context: Context) -> CheckpointStateProto:
    """Parse the bytes of a state file.

    Raises:
        MalformedError: They are not the text of one.
        LimitError: They are too many.
    """
    context.limits.check("state_bytes", len(data), "The size of the state file", path=path)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        found = _quote(data.decode("utf-16", "replace"))
        raise MalformedError(
            f"Expected a state file in UTF-8, found one in UTF-16: {found}",
            path=path,
            offset=0,
            hint="Save it as UTF-8; PowerShell's `>` writes UTF-16",
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError(
            f"Expected the text of a state file in UTF-8, found the byte {data[error.start]:#04x}",
            path=path,
            offset=error.start,
        ) from None
    text = text.removeprefix(_BYTE_ORDER_MARK)
    limits = context.limits
    _check_counts(text, path, context)
    try:
        message = parse_text(
            CheckpointStateProto, text, limits=limits, path=path, what="the state file"
        )
    except MalformedError as error:
        raise _explain_text(text, error, path) from None
    # A list in brackets has the name of its field once.
    _check_paths(len(message.all_model_checkpoint_paths), path, context)
    return message


def _check_counts(text: str, path: str, context: Context) -> None:
    """Refuse a text of so many values that parsing it takes longer than its size allows."""
    values = text.count(",") + sum(map(text.count, ('"', "'", "\\"))) // 2
    what = f"The size of the state file, with {_VALUE_BYTES} bytes for each of its values,"
    context.limits.check("state_bytes", values * _VALUE_BYTES, what, path=path)
    _check_paths(text.count(_PATH_FIELDS[1]), path, context)


def _check_paths(count: int, path: str, context: Context) -> None:
    what = f"The size of the state file, with {_PATH_BYTES} bytes for each of its paths,"
    context.limits.check("state_bytes", count * _PATH_BYTES, what, path=path)


def _explain_text(text: str, error: MalformedError, path: str) -> MalformedError:
    """Say which of the ways in which people write a state file by hand it was, if it is known."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        value = value.strip()
        if name.strip() not in _PATH_FIELDS or not value:
            continue
        if not _CURLY.isdisjoint(value):
            found, hint = "one with curly quotes", 'Write straight quotes: "model.ckpt-1"'
        elif _WINDOWS.search(value):
            found, hint = "a Windows path", "Write each backslash twice, or `/` instead"
        elif value[0] not in ("'", '"', "{"):
            found, hint = "one without quotes", 'Write it between quotes: "model.ckpt-1"'
        else:
            continue
        return MalformedError(
            f"Expected a path between straight quotes in the state file, found {found}: "
            f"{_quote(line)}",
            path=path,
            hint=hint,
        )
    return error


def _quote(text: str) -> str:
    line = text.lstrip(_BYTE_ORDER_MARK).strip().partition("\n")[0].strip()
    return line if len(line) <= _MOST_QUOTED else f"{line[:_MOST_QUOTED]}…"
