"""Find all files of one checkpoint, damaged or whole: from a candidate to its `Survey`."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import closing
from itertools import islice

from ckptparse.errors import CheckpointError, PermissionDeniedError
from ckptparse.filenames import (
    INDEX_SUFFIX,
    META_SUFFIX,
    SAVED_MODEL_FILES,
    VARIABLES,
    find_step,
    is_apple_double,
    is_pattern,
    legacy_path,
    shard_path,
    split_data_path,
    split_legacy_path,
    split_part,
    strip_shard_suffix,
    strip_temp_directory,
    strip_temporary,
)
from ckptparse.identification.tables import may_be_legacy
from ckptparse.inventory.by_name import look_beside
from ckptparse.inventory.folders import MOST_NAMES, DataName, Folders, names_around
from ckptparse.inventory.inventory import By, Candidate
from ckptparse.inventory.legacy import find_legacy, list_shards
from ckptparse.inventory.survey import IndexFile, LegacyFile, Origin, Survey

__all__ = [
    "find_parts",
    "list_nearest",
    "list_others",
    "list_prefixes",
    "list_unfinished",
    "list_v1",
    "newest_first",
    "survey_candidate",
]

_MOST_LEGACY = 64
"""Files of a directory that are opened to see whether they are V1 checkpoints: a directory of data
may have a million files."""
_MOST_MISSING = 1024
"""Missing files of a V1 checkpoint that are listed at most. A name can state any number of them."""


def survey_candidate(candidate: Candidate, folders: Folders) -> Survey:
    """List the files of a checkpoint.

    Raises:
        PermissionDeniedError: A directory may not be listed.
    """
    look_beside(candidate.path, folders)
    if candidate.format == "v1":
        return _survey_legacy(candidate, folders)
    return _survey_bundle(candidate, folders)


def find_parts(path: str, folders: Folders, *, by: By = By.NAME) -> Candidate | None:
    """Find the checkpoint of which any file is at a path; None if there is none.

    Args:
        path: A prefix, or any file of a checkpoint, also a temporary one.
        folders: Where to look.
        by: How the path was found.
    """
    prefix = _prefix_of(path, folders)
    if _has_bundle(prefix, folders):
        return Candidate("v2", prefix, by)
    if folders.is_file(path) and _is_renamed_index(path, folders):
        return Candidate("v2", path, by, renamed_index=path)
    final = strip_temporary(path) or path
    if _has_legacy(final, folders):
        return Candidate("v1", final, by)
    return None


def _is_renamed_index(path: str, folders: Folders) -> bool:
    """Tell from its content whether a file is an index: rescue programs give files new names."""
    identity = folders.identify(path)
    cut = identity.kind == "truncated" and identity.detail.get("of") == "v2-index"
    return cut or identity.kind == "v2-index"


def newest_first(directory: str, folders: Folders) -> Iterator[Candidate]:
    """Iterate over the checkpoints of a directory of which any file is there, the newest first."""
    names, data = folders.saved(directory), folders.data_files(directory)
    bases = {base for name in names for base in _iter_bases(directory, name, folders, data)}
    for base in _by_step(bases):
        yield Candidate("v2", folders.join(directory, base), By.NEWEST)
    if bases:
        return
    waiting = {strip_temporary(name) for name in names} - {None}
    legacy = [folders.join(directory, name) for name in waiting if name]
    for path in (*_by_step(legacy), *reversed(list_v1(directory, folders))):
        if _has_legacy(path, folders):
            yield Candidate("v1", path, By.NEWEST)


def list_prefixes(directory: str, folders: Folders) -> list[str]:
    """Return the prefixes in a directory that have an index, by step and then by name."""
    files = folders.files(directory)
    bases = [name.removesuffix(INDEX_SUFFIX) for name in files if _is_index(name)]
    return [folders.join(directory, base) for base in reversed(_by_step(bases))]


def list_unfinished(directory: str, folders: Folders) -> list[str]:
    """Return the last parts of the prefixes of which there are only temporary files of a save."""
    found: set[str] = set()
    data = folders.data_files(directory)
    for name in folders.saved(directory):
        waiting = strip_temporary(name)
        if waiting or split_part(name) or strip_temp_directory(name):
            # Of a V1 file the name itself is left.
            found |= set(_iter_bases(directory, name, folders, data)) or {waiting or ""}
    there = folders.files(directory) if found else set()
    return sorted(one for one in found if one and not {one, one + INDEX_SUFFIX} & there)


def list_nearest(prefix: str, folders: Folders) -> list[str]:
    """Return the other prefixes of the directory that have an index, the nearest steps first."""
    directory, name = folders.split(prefix)
    step = _step(name)
    files = names_around(folders.files(directory), name)
    bases = {one.removesuffix(INDEX_SUFFIX) for one in files if _is_index(one)} - {name}
    nearest = sorted(bases, key=lambda one: (abs(_step(one) - step), _step(one), one))
    return [folders.join(directory, base) for base in nearest]


def list_others(survey: Survey, folders: Folders) -> list[str]:
    """Return the other checkpoints of the directory, of the same format; nearest steps first."""
    if survey.has_index:
        return list_nearest(survey.prefix, folders)
    step = _step_of(survey.prefix, folders)[0]
    others = [one for one in list_v1(survey.directory, folders) if one != survey.prefix]
    return sorted(others, key=lambda one: abs(_step_of(one, folders)[0] - step))


def list_v1(directory: str, folders: Folders) -> list[str]:
    """Return the V1 checkpoints of a directory, by step and then by name.

    If several files are one checkpoint: the part of their names before the numbers.
    """
    found: dict[str, None] = {}
    data = folders.data_files(directory)
    files = (name for name in folders.names(directory) if name not in data and _may_be_v1(name))
    for name in islice(files, _MOST_LEGACY):
        shard = split_legacy_path(name)
        path = folders.join(directory, shard[0] if shard else name)
        if path not in found and _looks_legacy(folders.join(directory, name), folders):
            found[path] = None
    return sorted(found, key=lambda path: _step_of(path, folders))


def _by_step(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: (_step(name), name), reverse=True)


def _step_of(path: str, folders: Folders) -> tuple[int, str]:
    return _step(folders.split(path)[1]), path


def _step(name: str) -> int:
    step = find_step(name)
    return -1 if step is None else step


def _is_index(name: str) -> bool:
    return name.endswith(INDEX_SUFFIX) and not is_apple_double(name) and split_part(name) is None


def _may_be_v1(name: str) -> bool:
    if name.endswith((INDEX_SUFFIX, META_SUFFIX)) or name in SAVED_MODEL_FILES:
        return False
    return not (is_apple_double(name) or strip_temporary(name))


def _iter_bases(
    directory: str, name: str, folders: Folders, data: Mapping[str, DataName]
) -> Iterator[str]:
    """Return the last part of the prefix that a file or directory of that name belongs to.

    Args:
        directory: Where it is.
        name: The name.
        folders: Where to look.
        data: What the names of the directory's data files say.
    """
    if is_apple_double(name):
        return
    plain = strip_temporary(name) or name
    part = split_part(plain)
    split = data.get(name) if plain is name else split_data_path(plain)
    folder = strip_temp_directory(name)
    if part:
        if part.base:
            yield part.base
    elif plain.endswith(INDEX_SUFFIX):
        yield plain.removesuffix(INDEX_SUFFIX)
    elif split:
        yield split[0]
    elif folder and any(_iter_parts(folders.join(directory, name), folders)):
        yield folder


def _prefix_of(path: str, folders: Folders) -> str:
    """Return the prefix for a path that may name any file of a checkpoint."""
    if folders.is_file(path + INDEX_SUFFIX):
        return path
    plain = strip_temporary(path) or path
    if folders.is_file(path):
        for suffix in (INDEX_SUFFIX, META_SUFFIX):
            if plain.endswith(suffix):
                return plain.removesuffix(suffix)
    data = split_data_path(plain)
    return data[0] if data else plain


# ---------------------------------------------------------------------------------- V2 prefixes


def _has_bundle(prefix: str, folders: Folders) -> bool:
    directory, base = folders.split(prefix)
    if any(True for _ in _iter_data_files(directory, base, folders)):
        return True
    if any(True for _ in _iter_leftovers(directory, base, folders)):
        return True
    return folders.is_file(prefix + INDEX_SUFFIX)


def _survey_bundle(candidate: Candidate, folders: Folders) -> Survey:
    prefix = candidate.path
    directory, base = folders.split(prefix)
    data = dict(_iter_data_files(directory, base, folders))
    leftovers, more = _few(_iter_leftovers(directory, base, folders))
    if candidate.parts_in is not None:
        own = tuple(path for path in leftovers if folders.split(path)[0] == candidate.parts_in)
        indexes = tuple(_iter_part_indexes(data, own, folders))
        return Survey("v2", prefix, directory, indexes, leftovers=own, more_leftovers=more)
    return Survey(
        "v2",
        prefix,
        directory,
        tuple(_iter_indexes(candidate, data, leftovers, folders)),
        data,
        leftovers=leftovers,
        more_leftovers=more,
        saved_model=candidate.saved_model or _saved_model_of(directory, base, folders),
    )


def _saved_model_of(directory: str, base: str, folders: Folders) -> str | None:
    """Return the directory of the SavedModel whose variables a prefix names; None if none."""
    parent, last = folders.split(directory)
    if not last == base == VARIABLES:
        return None
    try:
        marked = any(folders.is_file(folders.join(parent, name)) for name in SAVED_MODEL_FILES)
    except PermissionDeniedError:
        return None
    return parent if marked else None


def _iter_data_files(
    directory: str, base: str, folders: Folders
) -> Iterator[tuple[tuple[int, int], str]]:
    for name in folders.beginning(directory, f"{base}.data-"):
        split = split_data_path(name)
        if split is not None and split[0] == base:
            yield (split[1], split[2]), folders.join(directory, name)


def _iter_leftovers(directory: str, base: str, folders: Folders) -> Iterator[str]:
    for name in folders.list(directory):
        if base not in name:
            continue
        temporary = strip_temporary(name)
        part = split_part(name) if base else None
        if (temporary and _belongs(temporary, base)) or (part and part.base == base):
            yield folders.join(directory, name)
        elif base and strip_temp_directory(name) == base:
            yield from _iter_parts(folders.join(directory, name), folders)


def _few(paths: Iterator[str]) -> tuple[tuple[str, ...], bool]:
    """Return the first leftovers, and whether there are more: each is opened, and asked for."""
    return tuple(islice(paths, MOST_NAMES)), next(paths, None) is not None


def _belongs(name: str, base: str) -> bool:
    data = split_data_path(name)
    return name == base + INDEX_SUFFIX or (data is not None and data[0] == base)


def _iter_parts(directory: str, folders: Folders) -> Iterator[str]:
    for name in folders.list(directory):
        if split_part(name):
            yield folders.join(directory, name)


def _iter_indexes(
    candidate: Candidate,
    data: Mapping[tuple[int, int], str],
    leftovers: tuple[str, ...],
    folders: Folders,
) -> Iterator[IndexFile]:
    if folders.is_file(candidate.index_path):
        yield IndexFile(candidate.index_path)
    for path in leftovers:
        if strip_temporary(path) == candidate.path + INDEX_SUFFIX:
            yield IndexFile(path, None, Origin.TEMPORARY)
    yield from _iter_part_indexes(data, leftovers, folders)


def _iter_part_indexes(
    data: Mapping[tuple[int, int], str], leftovers: tuple[str, ...], folders: Folders
) -> Iterator[IndexFile]:
    """Find the data file of each part's index: beside it, or moved to its final name already."""
    final: dict[str | None, list[str]] = {}
    for path in leftovers:
        final.setdefault(strip_temporary(path), []).append(path)
    there = set(leftovers)
    for path in leftovers:
        part = split_part(folders.split(path)[1])
        if part is None or not part.is_index:
            continue
        own = shard_path((strip_temporary(path) or path).removesuffix(INDEX_SUFFIX), 0, 1)
        waiting = final.get(own, [])
        moved = data.get((part.number, part.count))
        present = [own] if own in there else [moved] if moved else waiting
        yield IndexFile(path, (present[0] if present else own,), Origin.PART)


# ------------------------------------------------------------------------------------------- V1


def _has_legacy(path: str, folders: Folders) -> bool:
    """Tell whether any file at a path is part of a V1 checkpoint, finished or not."""
    if folders.is_file(path) and _looks_legacy(path, folders):
        return True
    shards = list_shards(strip_shard_suffix(path), folders)
    files = [file for found in shards.values() for file in found]
    waiting, _ = _few(_iter_temporary(path, folders))
    return any(_looks_legacy(file, folders) for file in (*files, *waiting))


def _survey_legacy(candidate: Candidate, folders: Folders) -> Survey:
    path = candidate.path
    waiting, more = _few(_iter_temporary(path, folders))
    temporary = tuple(file for file in waiting if _looks_legacy(file, folders))
    files = tuple(_iter_legacy(path, folders))
    if not files:
        files = tuple(LegacyFile(file, origin=Origin.TEMPORARY) for file in temporary)
    if not files:
        # It was found, and its directory does not list it: nothing of it can be looked at.
        files = (LegacyFile(path, present=False),)
    directory = folders.split(path)[0]
    return Survey(
        "v1", path, directory, legacy_files=files, leftovers=temporary, more_leftovers=more
    )


def _iter_legacy(path: str, folders: Folders) -> Iterator[LegacyFile]:
    """Iterate over the files of a V1 checkpoint, also missing ones that others' names imply."""
    if not folders.is_file(path) and is_pattern(folders.split(path)[1]):
        # What matches, as `open` takes it.
        found = find_legacy(path, folders, is_file=False)
        for file in sorted({*found.present, *found.absent}):
            yield LegacyFile(file, file in found.present)
        return
    shard = split_legacy_path(path)
    if folders.is_file(path) and shard is None:
        yield LegacyFile(path)
        return
    prefix = shard[0] if shard else strip_shard_suffix(path)
    shards = list_shards(prefix, folders)
    count = shard[2] if shard else max(shards, default=0)
    present = shards.get(count, [])
    there = set(present)
    named = _named_legacy(prefix, count, there)
    # A number beyond the count, or of more digits, is one that `open` takes, too.
    for file in dict.fromkeys([*named, *present]):
        yield LegacyFile(file, file in there)


def _named_legacy(prefix: str, count: int, there: Container[str]) -> Iterator[str]:
    """Iterate over the files that a V1 checkpoint of so many has, in order, there or missing."""
    missing = 0
    for number in range(count):
        path = legacy_path(prefix, number, count)
        missing += path not in there
        if missing > _MOST_MISSING:
            return
        yield path


def _iter_temporary(path: str, folders: Folders) -> Iterator[str]:
    directory, name = folders.split(path)
    for other in folders.list(directory):
        if strip_temporary(other) == name:
            yield folders.join(directory, other)


def _looks_legacy(path: str, folders: Folders) -> bool:
    if split_data_path(path) or path.endswith(INDEX_SUFFIX):
        return False
    try:
        with closing(folders.context.storage.open(path)) as source:
            return may_be_legacy(source)
    except PermissionDeniedError:
        raise
    except CheckpointError:
        return False
