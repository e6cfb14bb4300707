"""Which files belong to the checkpoint at a path, whatever is missing of them.

Besides the checkpoint's own files these are what a save leaves behind when it is killed
(docs/format.md, section 2.10):

    P.index.tempstateN   P.data-00000-of-00001.tempstateN          complete, not yet renamed, or cut
    P_temp/part-00000-of-00002.index   ….data-00000-of-00001       parts that were not yet merged
    P_temp_UUID/part-…   P.part-…                                  of older versions, of s3://
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from ckptparse.bundle.naming import INDEX_SUFFIX, shard_path, split_data_path
from ckptparse.errors import CheckpointError, CheckpointNotFoundError, NotACheckpointError
from ckptparse.graph.state import STATE_FILE_NAME, CheckpointState, iter_newest_first, read_state
from ckptparse.identification import Identity, identify
from ckptparse.inventory.survey import IndexFile, LegacyFile, Origin, Survey
from ckptparse.limits import Limits
from ckptparse.table.format import MAGIC

__all__ = [
    "find_step",
    "identity_of",
    "list_legacy",
    "list_prefixes",
    "survey_path",
]

_SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt", "saved_model.cpb")
_TEMPSTATE = re.compile(r"(?s)(.*)\.tempstate\d+")
_TEMP_DIRECTORY = re.compile(r"(?s)(.*)_temp(?:_[0-9a-f]{32})?")
_PART = re.compile(
    r"(?s)(?:(.*)\.)?part-(\d{5,})-of-(\d{5,})(\.index|\.data-.*?)(?:\.tempstate\d+)?"
)
_LEGACY_SHARD = re.compile(r"(?s)(.*)-(\d{5,})-of-(\d{5,})")
_STEP = re.compile(r"(?s).*?-(\d+)")
_CHECKPOINT_KINDS = frozenset({"v1", "v2-index", "v2-shard", "interrupted-save", "truncated"})


def survey_path(path: str | os.PathLike[str], *, limits: Limits) -> Survey:
    """Find the files of the checkpoint that a path means.

    Raises:
        CheckpointNotFoundError: Nothing of one is there.
        NotACheckpointError: What is there was never part of one.
    """
    text = os.fsdecode(path)
    if "\0" in text:
        raise CheckpointNotFoundError("No such checkpoint", path=text)
    directory_files = (*_SAVED_MODEL_FILES, STATE_FILE_NAME)
    if os.path.isdir(text) and not os.path.isfile(text + INDEX_SUFFIX):
        found = _survey_directory(text.rstrip(os.sep) or text, limits)
    elif os.path.basename(text) in directory_files and os.path.isfile(text):
        found = _survey_directory(os.path.dirname(text) or os.curdir, limits)
    else:
        found = _survey_prefix(_prefix_of(text)) or _survey_legacy(text)
    if found is not None:
        return found
    if os.path.lexists(text):
        identity = identity_of(text)
        if identity is not None and identity.kind in ("savedmodel", "hub-module"):
            raise NotACheckpointError(
                f"Expected a checkpoint, found {identity.meaning} that has no variables",
                path=text,
                identity=identity,
                hint="Its constants can be read with ckptparse.open_saved_model",
            )
        raise NotACheckpointError(
            f"Expected a checkpoint, found {identity.meaning if identity else 'something else'}",
            path=text,
            identity=identity,
            hint=identity.advice if identity else None,
        )
    raise CheckpointNotFoundError("No such checkpoint, nor any part of one", path=text)


def identity_of(path: str) -> Identity | None:
    """Identify a file; None where it cannot be read."""
    try:
        return identify(path)
    except CheckpointError:
        return None


def find_step(prefix: str) -> int | None:
    """Return the number that a prefix ends in."""
    match = _STEP.fullmatch(os.path.basename(prefix))
    return int(match[1]) if match else None


def list_prefixes(directory: str) -> list[str]:
    """Return the prefixes of which an index lies in a directory, by step and then by name."""
    names = [name for name in _names(directory) if name.endswith(INDEX_SUFFIX)]
    prefixes = [_join(directory, name.removesuffix(INDEX_SUFFIX)) for name in names]
    return sorted(prefixes, key=lambda prefix: (find_step(prefix) or -1, prefix))


def list_legacy(directory: str) -> list[str]:
    """Return the V1 files of a directory that are no shards, by step and then by name."""
    names = [name for name in _names(directory) if not _LEGACY_SHARD.fullmatch(name)]
    paths = [_join(directory, name) for name in names if not _TEMPSTATE.fullmatch(name)]
    found = [path for path in paths if os.path.isfile(path) and _looks_legacy(path)]
    return sorted(found, key=lambda path: (find_step(path) or -1, path))


def _prefix_of(text: str) -> str:
    """Take the suffix of any file of a checkpoint off a path that names one."""
    if os.path.isfile(text + INDEX_SUFFIX):
        return text
    temporary = _TEMPSTATE.fullmatch(text)
    plain = temporary[1] if temporary else text
    if os.path.isfile(text):
        for suffix in (INDEX_SUFFIX, ".meta"):
            if plain.endswith(suffix):
                return plain.removesuffix(suffix)
    data = split_data_path(plain)
    return data[0] if data else plain


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory or os.curdir))
    except OSError:
        return []


def _join(directory: str, name: str) -> str:
    return name if directory in ("", os.curdir) else os.path.join(directory, name)


# ---------------------------------------------------------------------------------- V2 prefixes


def _survey_prefix(
    prefix: str, *, saved_model: str | None = None, names: list[str] | None = None
) -> Survey | None:
    """Find what there is of a V2 prefix; None where there is nothing."""
    directory, base = os.path.split(prefix)
    names = _names(directory) if names is None else names
    data = dict(_iter_data_files(directory, base, names))
    leftovers = tuple(_iter_leftovers(directory, base, names))
    indexes = list(_iter_indexes(prefix, data, leftovers))
    if not (indexes or data or leftovers):
        return None
    if saved_model is None and os.path.basename(directory) == base == "variables":
        parent = os.path.dirname(directory) or os.curdir
        if any(os.path.isfile(os.path.join(parent, name)) for name in _SAVED_MODEL_FILES):
            saved_model = parent
    return Survey(
        "v2",
        prefix,
        directory or os.curdir,
        tuple(indexes),
        data,
        leftovers=leftovers,
        saved_model=saved_model,
    )


def _iter_data_files(
    directory: str, base: str, names: Iterable[str]
) -> Iterator[tuple[tuple[int, int], str]]:
    for name in names:
        split = split_data_path(name) if name.startswith(f"{base}.data-") else None
        if split is not None and split[0] == base:
            yield (split[1], split[2]), _join(directory, name)


def _iter_leftovers(directory: str, base: str, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        temporary = _TEMPSTATE.fullmatch(name)
        if temporary and _belongs(temporary[1], base):
            yield _join(directory, name)
        part = _PART.fullmatch(name)
        if part and base and part[1] == base:
            yield _join(directory, name)
        folder = _TEMP_DIRECTORY.fullmatch(name)
        if folder and base and folder[1] == base:
            yield from _iter_parts(_join(directory, name))


def _belongs(name: str, base: str) -> bool:
    data = split_data_path(name)
    return name == base + INDEX_SUFFIX or (data is not None and data[0] == base)


def _iter_parts(folder: str) -> Iterator[str]:
    for name in _names(folder):
        if _PART.fullmatch(name):
            yield os.path.join(folder, name)


def _iter_indexes(
    prefix: str, data: Mapping[tuple[int, int], str], leftovers: tuple[str, ...]
) -> Iterator[IndexFile]:
    if os.path.isfile(prefix + INDEX_SUFFIX):
        yield IndexFile(prefix + INDEX_SUFFIX)
    for path in leftovers:
        temporary = _TEMPSTATE.fullmatch(path)
        if temporary and temporary[1] == prefix + INDEX_SUFFIX:
            yield IndexFile(path, None, Origin.TEMPORARY)
    yield from _iter_part_indexes(data, leftovers)


def _iter_part_indexes(
    data: Mapping[tuple[int, int], str], leftovers: tuple[str, ...]
) -> Iterator[IndexFile]:
    """Give each part's index its data file: in the same place, or moved to its final name."""
    for path in leftovers:
        part = _PART.fullmatch(os.path.basename(path))
        if part is None or part[4] != INDEX_SUFFIX:
            continue
        temporary = _TEMPSTATE.fullmatch(path)
        own = shard_path((temporary[1] if temporary else path).removesuffix(INDEX_SUFFIX), 0, 1)
        number, count = int(part[2]), int(part[3])
        waiting = [p for p in leftovers if p.startswith(f"{own}.tempstate")]
        moved = data.get((number, count))
        present = [own] if own in leftovers else [moved] if moved else waiting
        yield IndexFile(path, (present[0] if present else own,), Origin.PART)


# ---------------------------------------------------------------------------------- directories


def _survey_directory(directory: str, limits: Limits) -> Survey | None:
    names = _names(directory)
    variables = os.path.join(directory, "variables")
    if any(name in _SAVED_MODEL_FILES for name in names):
        prefix = os.path.join(variables, "variables")
        found = _survey_prefix(prefix, saved_model=directory)
        if found is not None:
            return found
    if f"variables{INDEX_SUFFIX}" in names or any(n.startswith("variables.data-") for n in names):
        return _survey_prefix(variables)
    if _TEMP_DIRECTORY.fullmatch(os.path.basename(directory)) and any(map(_PART.fullmatch, names)):
        return _survey_temporary(directory)
    return _survey_state(directory, limits) or _survey_newest(directory, names)


def _survey_temporary(directory: str) -> Survey | None:
    """Take a directory of parts for the checkpoint that they were to become."""
    match = _TEMP_DIRECTORY.fullmatch(directory)
    prefix = match[1] if match else directory
    whole = _survey_prefix(prefix)
    if whole is None:
        return None
    own = tuple(path for path in whole.leftovers if os.path.dirname(path) == directory)
    indexes = tuple(_iter_part_indexes(whole.data_files, own))
    return Survey("v2", prefix, os.path.dirname(prefix) or os.curdir, indexes, {}, leftovers=own)


def _survey_state(directory: str, limits: Limits) -> Survey | None:
    """Take the newest checkpoint that the state file names and of which something is there."""
    state = _read_state(os.path.join(directory, STATE_FILE_NAME), limits)
    for listed in iter_newest_first(state) if state else ():
        name = re.split(r"[/\\]", listed)[-1]
        for prefix in (listed, os.path.join(directory, name)):
            found = (_survey_prefix(prefix) or _survey_legacy(prefix)) if name else None
            if found is not None:
                return found
    return None


def _read_state(path: str, limits: Limits) -> CheckpointState | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read_state(path, limits=limits)
    except CheckpointError:
        return None


def _survey_newest(directory: str, names: list[str]) -> Survey | None:
    """Take the checkpoint of the highest step, whole or not."""
    bases = {base for name in names for base in _iter_bases(directory, name)}
    for base in _newest_first(bases):
        found = _survey_prefix(_join(directory, base), names=names)
        if found is not None:
            return found
    for name in _newest_first(names):
        found = _survey_legacy(_join(directory, name)) if _is_table(directory, name) else None
        if found is not None:
            return found
    return None


def _newest_first(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: (find_step(name) or -1, name), reverse=True)


def _iter_bases(directory: str, name: str) -> Iterator[str]:
    """Give the basename of the prefix that a file or directory of that name belongs to."""
    plain = _TEMPSTATE.sub(r"\1", name)
    data = split_data_path(plain)
    folder = _TEMP_DIRECTORY.fullmatch(name)
    if plain.endswith(INDEX_SUFFIX):
        yield plain.removesuffix(INDEX_SUFFIX)
    elif data:
        yield data[0]
    elif folder and any(_iter_parts(os.path.join(directory, name))):
        yield folder[1]


def _is_table(directory: str, name: str) -> bool:
    path = os.path.join(directory, name)
    return os.path.isfile(path) and _looks_legacy(path)


# ------------------------------------------------------------------------------------------- V1


def _survey_legacy(text: str) -> Survey | None:
    """Find the files of a V1 checkpoint: one, or all that the number in their names tells of."""
    renamed = _TEMPSTATE.fullmatch(text)
    text = renamed[1] if renamed else text
    temporary = [path for path in _legacy_leftovers(text) if _looks_legacy(path)]
    directory, name = os.path.split(text)
    if os.path.isfile(text) and _looks_legacy(text):
        shard = _LEGACY_SHARD.fullmatch(text)
        files = _legacy_set(shard[1], int(shard[3])) if shard else (LegacyFile(text),)
        return Survey(
            "v1", text, directory or os.curdir, legacy_files=files, leftovers=tuple(temporary)
        )
    stem = re.sub(r"-[\d?]{5,}-of-\d{5,}$", "", name)
    for other in _names(directory):
        shard = _LEGACY_SHARD.fullmatch(other)
        if shard and shard[1] == stem and _looks_legacy(_join(directory, other)):
            files = _legacy_set(_join(directory, stem), int(shard[3]))
            return Survey("v1", _join(directory, stem), directory or os.curdir, legacy_files=files)
    if temporary:
        files = tuple(LegacyFile(path, origin=Origin.TEMPORARY) for path in temporary)
        return Survey(
            "v1", text, directory or os.curdir, legacy_files=files, leftovers=tuple(temporary)
        )
    return None


def _legacy_leftovers(text: str) -> list[str]:
    directory, name = os.path.split(text)
    return [
        _join(directory, other)
        for other in _names(directory)
        if other.startswith(f"{name}.tempstate") and _TEMPSTATE.fullmatch(other)
    ]


def _legacy_set(prefix: str, count: int) -> tuple[LegacyFile, ...]:
    paths = (f"{prefix}-{number:05d}-of-{count:05d}" for number in range(min(count, 100_000)))
    return tuple(LegacyFile(path, os.path.isfile(path)) for path in paths)


@lru_cache(maxsize=256)
def _looks_legacy_at(path: str, size: int, changed: int) -> bool:  # noqa: ARG001 - cache key
    """Tell whether a file is, or was once, a V1 checkpoint: by its end, or by its start."""
    from ckptparse.files.local import LocalSource

    try:
        with LocalSource.open(path) as source:
            head = source.read_at(0, min(64, size))
            tail = source.read_at(max(0, size - len(MAGIC)), min(size, len(MAGIC)))
    except CheckpointError:
        return False
    if split_data_path(path) or path.endswith(INDEX_SUFFIX):
        return False
    # The first entry: nothing shared, no key, and a value that starts with a message's field 1.
    starts = head[:2] == b"\0\0" and b"\x0a" in head[3:8]
    return tail == MAGIC or starts


def _looks_legacy(path: str) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    return _looks_legacy_at(path, status.st_size, status.st_mtime_ns)
