"""Directories, and prefixes: paths at which there is nothing but files that begin with them.

Leftovers of a save that was interrupted (docs/format.md, section 2.10):

    P.data-00000-of-00001.tempstateN   P.index.tempstateN   F.tempstateN
    P_temp/part-00000-of-00002.index   P_temp_UUID/part-00000-of-00002.data-00000-of-00001
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from itertools import islice

from ckptparse.bundle.naming import INDEX_SUFFIX, shard_path, split_data_path
from ckptparse.errors import CheckpointError, CheckpointNotFoundError
from ckptparse.graph.state import STATE_FILE_NAME, find_listed, iter_newest_first, read_state
from ckptparse.identification.identity import Finding, Identity
from ckptparse.identification.tables import is_table
from ckptparse.legacy.naming import match_pattern

__all__ = ["identify_absent", "identify_directory", "is_leftover_name"]

_MOST_NAMES = 100_000
_MOST_OPENED = 64
_SAVED_MODELS = ("saved_model.pb", "saved_model.pbtxt", "saved_model.cpb")
_LEFTOVER = re.compile(r"(?s).*\.tempstate\d+")
_PART = re.compile(r"part-\d{5,}-of-\d{5,}\.(index|data-.*)")
_TEMP_DIRECTORY = re.compile(r"(?s).*_temp(_[0-9a-f]{32})?")

IdentifyFile = Callable[[str], Identity]


def is_leftover_name(name: str) -> bool:
    """Tell the name of a file that a save gives it until it is complete."""
    return bool(_LEFTOVER.fullmatch(name))


def identify_directory(path: str, identify_file: IdentifyFile) -> Identity:
    """Identify a directory by what it holds."""
    names = list_names(path)
    model = _identify_saved_model(path, names, identify_file)
    if model is not None:
        return model
    if os.path.isfile(f"{path}{INDEX_SUFFIX}"):
        return identify_absent(path, identify_file)
    found = _find_prefixes(names) | _find_listed_names(path, names) | _find_tables(path, names)
    prefixes = tuple(sorted(found))
    leftovers = tuple(name for name in names if _is_leftover(os.path.join(path, name)))
    parts = tuple(name for name in names if _PART.fullmatch(name))
    if parts and all(name.startswith("part-") for name in prefixes):
        return Identity.of(Finding("interrupted-save", {"files": parts}), path)
    if leftovers and not prefixes:
        return Identity.of(Finding("interrupted-save", {"files": leftovers}), path)
    state_file = STATE_FILE_NAME in names
    detail: dict[str, object] = {"state_file": state_file, "leftovers": leftovers}
    if not prefixes:
        detail["advice"] = "No checkpoint lies directly in it: look in its subdirectories."
    return Identity.of(Finding("directory", detail, prefixes), path)


def identify_absent(path: str, identify_file: IdentifyFile) -> Identity:
    """Identify the files that begin with a path, where nothing has that name itself.

    Raises:
        CheckpointNotFoundError: There are none.
    """
    if os.path.isfile(f"{path}{INDEX_SUFFIX}"):
        return _identify_prefix(path, identify_file(f"{path}{INDEX_SUFFIX}"))
    directory, name = os.path.split(path)
    names = list_names(directory or os.curdir)
    several = match_pattern(path) or _match(rf"{re.escape(name)}-\d{{5,}}-of-\d{{5,}}", path, names)
    if several:
        first = identify_file(several[0])
        files = {"files": tuple(several)}
        return Identity.of(Finding("v1", files), path) if first.kind == "v1" else first
    leftovers = _match(
        rf"{re.escape(name)}(_temp.*|\..*\.tempstate\d+|\.tempstate\d+)", path, names
    )
    data = _match(rf"{re.escape(name)}\.data-\d{{5,}}-of-\d{{5,}}", path, names)
    if leftovers:
        return Identity.of(Finding("interrupted-save", {"files": (*leftovers, *data)}), path)
    if data:
        return Identity.of(_without_index(data), path)
    raise CheckpointNotFoundError(
        "Expected a file, a directory or the prefix of a checkpoint, found nothing of that name",
        path=path,
        hint=_suggest(names, directory),
    )


def list_names(directory: str) -> list[str]:
    """List what is in a directory, up to a bound; nothing where it cannot be listed."""
    try:
        with os.scandir(directory) as entries:
            return sorted(entry.name for entry in islice(entries, _MOST_NAMES))
    except (OSError, ValueError):
        return []


def _identify_saved_model(
    path: str, names: list[str], identify_file: IdentifyFile
) -> Identity | None:
    """Identify a directory by the graph file of a SavedModel; None where it has none."""
    name = next((name for name in _SAVED_MODELS if name in names), None)
    if name is None:
        return None
    graph = identify_file(os.path.join(path, name))
    index = os.path.join(path, "variables", f"variables{INDEX_SUFFIX}")
    variables = os.path.isfile(index) and identify_file(index).kind == "v2-index"
    detail: dict[str, object] = {"graph": name, "variables": variables}
    if not graph.kind.startswith("saved-model-"):
        if not variables:
            return None if graph.kind == "unknown" else graph
        detail["damage"] = f"{name} is {graph.meaning}"
    kind = "hub-module" if "tfhub_module.pb" in names else "savedmodel"
    return Identity.of(Finding(kind, detail), path)


def _identify_prefix(path: str, index: Identity) -> Identity:
    if index.kind != "v2-index":
        return index
    detail = dict(index.detail)
    num_shards = detail.get("num_shards")
    if isinstance(num_shards, int) and 0 < num_shards <= _MOST_NAMES:
        paths = (shard_path(path, shard_id, num_shards) for shard_id in range(num_shards))
        missing = tuple(shard for shard in paths if not os.path.isfile(shard))
        if missing:
            detail["missing"] = missing
            detail["advice"] = (
                f"{len(missing)} of its {num_shards} data files are not there: copy them beside "
                "its index, or get back the rest with ckptparse.recover."
            )
    return Identity.of(Finding("v2-prefix", detail), path)


def _without_index(data: list[str]) -> Finding:
    advice = (
        "Its index is not there: copy it beside the data files. Nothing else names the values in "
        "them."
    )
    return Finding("v2-prefix", {"index": "missing", "files": tuple(data), "advice": advice})


def _find_prefixes(names: list[str]) -> set[str]:
    """Return the V2 prefixes that names of files speak of."""
    prefixes = {name.removesuffix(INDEX_SUFFIX) for name in names if name.endswith(INDEX_SUFFIX)}
    data = (split_data_path(name) for name in names)
    return prefixes | {parts[0] for parts in data if parts is not None}


def _find_listed_names(directory: str, names: list[str]) -> set[str]:
    """Return the checkpoints that the state file lists and that are in the directory."""
    if STATE_FILE_NAME not in names:
        return set()
    try:
        state = read_state(os.path.join(directory, STATE_FILE_NAME))
    except CheckpointError:
        return set()
    found = (find_listed(directory, path) for path in iter_newest_first(state))
    return {os.path.basename(path) for path in found if path and os.path.dirname(path) == directory}


def _find_tables(directory: str, names: list[str]) -> set[str]:
    """Return the V1 files among the first files of a directory."""
    candidates = [name for name in names if not name.endswith((INDEX_SUFFIX, ".meta"))]
    return {
        name
        for name in candidates[:_MOST_OPENED]
        if not is_leftover_name(name) and is_table(os.path.join(directory, name))
    }


def _is_leftover(path: str) -> bool:
    if is_leftover_name(path):
        return True
    if not _TEMP_DIRECTORY.fullmatch(path) or not os.path.isdir(path):
        return False
    return any(_PART.match(name) for name in list_names(path))


def _match(pattern: str, path: str, names: list[str]) -> list[str]:
    directory = os.path.dirname(path)
    return [
        os.path.join(directory, name) for name in names if re.fullmatch(pattern, name, re.DOTALL)
    ]


def _suggest(names: list[str], directory: str) -> str | None:
    prefixes = sorted(_find_prefixes(names))
    if not prefixes:
        return None
    listed = ", ".join(os.path.join(directory, name) for name in _most(prefixes, 5))
    return f"There is: {listed}"


def _most(items: list[str], count: int) -> Iterator[str]:
    yield from items[:count]
    if len(items) > count:
        yield f"… ({len(items) - count} more)"
