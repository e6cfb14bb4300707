"""A path that is a file, or names several files: the name decides, or the content."""

from __future__ import annotations

from dataclasses import replace

from ckptparse.errors import CheckpointError, CheckpointNotFoundError
from ckptparse.filenames import INDEX_SUFFIX, META_SUFFIX, SAVED_MODEL_FILES, split_data_path
from ckptparse.files.storage import FileStat
from ckptparse.identification import identify_file
from ckptparse.inventory.absent import explain_absent, refuse
from ckptparse.inventory.by_model import take_saved_model
from ckptparse.inventory.by_name import look_beside
from ckptparse.inventory.by_state import take_state
from ckptparse.inventory.folders import Folders
from ckptparse.inventory.identities import explain_link
from ckptparse.inventory.inventory import Candidate, Inventory
from ckptparse.inventory.legacy import take_legacy
from ckptparse.inventory.parts import find_parts
from ckptparse.inventory.places import take_bundle

__all__ = ["take_file", "take_names", "take_special"]


def take_file(path: str, folders: Folders) -> Inventory:
    """Tell what a file means."""
    directory, name = folders.split(path)
    if name in SAVED_MODEL_FILES:
        return replace(take_saved_model(directory, folders), path=path)
    if name.endswith(INDEX_SUFFIX):
        return Inventory(path, take_bundle(path.removesuffix(INDEX_SUFFIX), folders))
    data = split_data_path(path)
    if data is not None and folders.is_file(data[0] + INDEX_SUFFIX):
        return Inventory(path, take_bundle(data[0], folders))
    return _of_content(path, folders)


def _of_content(path: str, folders: Folders) -> Inventory:
    """Read a file to see whether it is a V1 checkpoint, a graph, or leads to a checkpoint."""
    identity = folders.identify(path)
    if identity.kind == "v1":
        return take_legacy(path, folders, is_file=True)
    if path.endswith(META_SUFFIX) and identity.kind in ("meta-graph", "truncated", "unknown"):
        return _of_meta(path, folders)
    if identity.kind in ("graph", "meta-graph"):
        return Inventory(path, Candidate("graph", path, identity=identity))
    if identity.kind == "state-file":
        return take_state(path, folders)
    refusal = refuse(identity)
    if split_data_path(path) and identity.kind in ("v2-shard", "unknown"):
        refusal = _lost_index(path)
    return with_parts(Inventory(path, refusal=refusal), folders)


def _lost_index(path: str) -> CheckpointError:
    data = split_data_path(path)
    return CheckpointNotFoundError(
        "Expected an index beside the data file, found none",
        path=(data[0] if data else path) + INDEX_SUFFIX,
        hint="Copy the index beside it: only the index has the names of its tensors",
    )


def _of_meta(path: str, folders: Folders) -> Inventory:
    """Find the checkpoint beside a `.meta`. Its name does not have the number of a V1 file."""
    prefix = path.removesuffix(META_SUFFIX)
    if folders.is_file(prefix + INDEX_SUFFIX):
        return Inventory(path, take_bundle(prefix, folders))
    found = take_legacy(prefix, folders, is_file=folders.is_file(prefix))
    if found.refusal is not None or (found.meant and found.meant.files):
        return replace(found, path=path)
    refusal = CheckpointNotFoundError(
        "Expected a checkpoint beside the meta graph, found none",
        path=path,
        hint="ckptparse.open_graph reads the graph itself",
    )
    return with_parts(Inventory(path, refusal=refusal), folders)


def take_names(path: str, folders: Folders) -> Inventory:
    """Look for files whose names begin with a path, or that match it as a pattern."""
    look_beside(path, folders)
    data = split_data_path(path)
    if data is not None and folders.is_file(data[0] + INDEX_SUFFIX):
        return Inventory(path, take_bundle(data[0], folders))
    found = take_legacy(path, folders, is_file=False)
    files = found.meant.files if found.meant else ()
    if files:
        identity = identify_file(files[0], folders.context)
        if identity.kind == "v1":
            return found
        refusal = _misspelt_prefix(path, files) or refuse(identity)
        return with_parts(Inventory(path, refusal=refusal), folders)
    if found.refusal is not None:
        return found
    return with_parts(Inventory(path, refusal=explain_absent(path, folders)), folders)


def _misspelt_prefix(path: str, files: tuple[str, ...]) -> CheckpointError | None:
    """Return an error that names the V2 checkpoints whose data files a pattern matches."""
    split = [split_data_path(file) for file in files]
    prefixes = sorted({one[0] for one in split if one is not None})
    if not prefixes or None in split:
        return None
    return CheckpointNotFoundError(
        f"Expected the prefix of a checkpoint, found a pattern of {len(files)} data files",
        path=path,
        hint=f"Give the prefix: {' or '.join(map(repr, prefixes[:5]))}",
    )


def take_special(path: str, status: FileStat, folders: Folders) -> Inventory:
    """Refuse what is no file and no directory: a link to nothing, a FIFO, a device."""
    if status.kind == "dangling":
        refusal: CheckpointError = explain_link(path, status)
    else:
        refusal = refuse(identify_file(path, folders.context))
    return with_parts(Inventory(path, refusal=refusal), folders)


def with_parts(inventory: Inventory, folders: Folders) -> Inventory:
    """Add the checkpoint of which some files are at the path, though the strict reader refuses."""
    found = find_parts(inventory.path, folders)
    return inventory if found is None else replace(inventory, others=(found,))
