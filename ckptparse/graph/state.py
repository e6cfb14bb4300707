"""The state file `checkpoint` of a directory: which checkpoints it has (docs/format.md, section 5).

The file is a CheckpointState message as text:

    model_checkpoint_path: "ckpt-3"                       the newest prefix
    all_model_checkpoint_paths: "ckpt-2"                  every prefix, oldest first
    all_model_checkpoint_paths: "ckpt-3"
    all_model_checkpoint_timestamps: 1795337513.3563564   seconds, beside the paths
    last_preserved_timestamp: 1795337512.316562

Relative paths are relative to the directory of the state file. Absolute ones survive a move of
that directory only by their last part, which is then looked for beside the state file. The path of
a V1 checkpoint of several files is a pattern, `ckpt-3-?????-of-00002`.
"""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from ckptparse.errors import CheckpointError, MalformedError, UnsupportedError
from ckptparse.files.local import LocalSource
from ckptparse.legacy.naming import match_pattern
from ckptparse.limits import DEFAULT_LIMITS, Limits
from ckptparse.proto.checkpoint_state_pb2 import CheckpointState as CheckpointStateProto
from ckptparse.proto.parsing import parse_text
from ckptparse.text import brief_repr

__all__ = [
    "STATE_FILE_NAME",
    "CheckpointState",
    "add_to_state",
    "checkpoint_exists",
    "checkpoint_state",
    "find_listed",
    "iter_newest_first",
    "latest_checkpoint",
    "read_state",
]

STATE_FILE_NAME = "checkpoint"

_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True, slots=True, repr=False)
class CheckpointState:
    """What a state file lists. Relative paths are joined to its directory."""

    latest: str
    """Prefix of the newest checkpoint."""
    paths: tuple[str, ...]
    """Prefixes of every listed checkpoint, oldest first."""
    timestamps: tuple[float, ...]
    """Seconds since the epoch beside `paths`; empty where the writer kept none."""
    last_preserved: float | None
    """When a checkpoint was last kept for good, in seconds since the epoch."""

    def __repr__(self) -> str:
        return brief_repr(self)


def checkpoint_state(
    directory: str | os.PathLike[str],
    latest_filename: str | None = None,
    *,
    limits: Limits = DEFAULT_LIMITS,
) -> CheckpointState | None:
    """Read the state file of a directory.

    Args:
        directory: Where the state file lies.
        latest_filename: Its name, `checkpoint` unless told.
        limits: Bounds on its size.

    Returns:
        None where there is no state file, and with a `UserWarning` where its text is not that of
        a state file.

    Raises:
        MalformedError: The state file names no newest checkpoint, as an empty one does.
    """
    path = os.path.join(os.fspath(directory), latest_filename or STATE_FILE_NAME)
    if not os.path.isfile(path):
        return None
    try:
        message = _read_message(path, limits=limits)
    except CheckpointError as error:
        warnings.warn(f"{path} is not a readable state file: {error}", UserWarning, stacklevel=2)
        return None
    return _decode_state(message, path)


def read_state(path: str, *, limits: Limits = DEFAULT_LIMITS) -> CheckpointState:
    """Read one state file.

    Raises:
        CheckpointNotFoundError: Nothing is there.
        MalformedError: It is not the text of a state file, or names no newest checkpoint.
    """
    return _decode_state(_read_message(path, limits=limits), path)


def latest_checkpoint(
    directory: str | os.PathLike[str],
    latest_filename: str | None = None,
    *,
    limits: Limits = DEFAULT_LIMITS,
) -> str | None:
    """Find the newest checkpoint that the state file of a directory lists and that exists.

    Only existence is tested: of a V2 checkpoint's index, or of a V1 file. A path that does not
    exist is tried by its last part in the directory itself, so that a moved directory still works.

    Returns:
        The prefix; the pattern unexpanded for a V1 checkpoint of several files. A `UserWarning`
        says so where it is not the newest that is listed. None where no listed checkpoint exists,
        where there is no state file, and with a `UserWarning` where it cannot be parsed.

    Raises:
        MalformedError: The state file names no newest checkpoint, as an empty one does.
    """
    state = checkpoint_state(directory, latest_filename, limits=limits)
    if state is None:
        return None
    for path in iter_newest_first(state):
        found = find_listed(directory, path)
        if found is None:
            continue
        if path != state.latest:
            warnings.warn(
                f"The newest checkpoint that is listed, {state.latest}, does not exist; "
                f"{found} is the newest that does",
                UserWarning,
                stacklevel=2,
            )
        return found
    return None


def iter_newest_first(state: CheckpointState) -> Iterator[str]:
    """Iterate over the listed prefixes, the newest first, each once."""
    yield from dict.fromkeys((state.latest, *reversed(state.paths)))


def find_listed(directory: str | os.PathLike[str], path: str) -> str | None:
    """Return where a listed checkpoint exists: at its path, or by its last part in the directory.

    Returns:
        The prefix or pattern under which it exists; None where it does not.
    """
    # A state file written on Windows holds backslashes, whatever system reads it.
    name = re.split(r"[/\\]", path)[-1]
    for candidate in (path, os.path.join(os.fspath(directory), name)):
        if name and checkpoint_exists(candidate):
            return candidate
    return None


def checkpoint_exists(prefix: str) -> bool:
    """Tell whether a prefix, a V1 file or a pattern of V1 files names something that exists."""
    if "\0" in prefix:
        return False
    return (
        os.path.isfile(f"{prefix}.index") or os.path.isfile(prefix) or bool(match_pattern(prefix))
    )


def add_to_state(data: bytes, prefix: str, *, path: str, limits: Limits = DEFAULT_LIMITS) -> str:
    """Make the text of a state file that names one more checkpoint, as its newest.

    What it lists already stays as it is, but for the new one if that was listed.

    Args:
        data: The state file so far; empty if there is none.
        prefix: Of the new checkpoint, relative to the directory of the state file.
        path: The state file, for errors.
        limits: Bounds on its nesting.

    Raises:
        MalformedError: It is not the text of a state file.
        UnsupportedError: The prefix is not UTF-8.
    """
    message = _parse_state(data, path, limits=limits)
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


def _read_message(path: str, *, limits: Limits) -> CheckpointStateProto:
    with LocalSource.open(path) as source:
        limits.check("message_bytes", source.size, "The size of the state file", path=path)
        data = source.read_at(0, source.size)
    return _parse_state(data, path, limits=limits)


def _parse_state(data: bytes, path: str, *, limits: Limits) -> CheckpointStateProto:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError(
            f"Expected the text of a state file in UTF-8, found the byte {data[error.start]:#04x}",
            path=path,
            offset=error.start,
        ) from None
    text = text.removeprefix(_BYTE_ORDER_MARK)
    return parse_text(CheckpointStateProto, text, limits=limits, path=path, what="the state file")


def _decode_state(message: CheckpointStateProto, path: str) -> CheckpointState:
    if not message.model_checkpoint_path:
        raise MalformedError(
            "Expected a state file with a model_checkpoint_path, found none in it",
            path=path,
            hint="Pass the prefix of a checkpoint in that directory instead of the directory",
        )
    directory = os.path.dirname(path)
    return CheckpointState(
        latest=os.path.join(directory, message.model_checkpoint_path),
        paths=tuple(
            os.path.join(directory, listed) for listed in message.all_model_checkpoint_paths
        ),
        timestamps=tuple(message.all_model_checkpoint_timestamps),
        last_preserved=message.last_preserved_timestamp or None,
    )
