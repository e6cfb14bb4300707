"""Find the graph, or the SavedModel, that a path means."""

from __future__ import annotations

import os

from ckptparse.filenames import (
    INDEX_SUFFIX,
    META_SUFFIX,
    SAVED_MODEL_FILES,
    split_data_path,
    strip_shard_suffix,
)
from ckptparse.files.context import Context
from ckptparse.identification import Identity, identify_file
from ckptparse.inventory.absent import explain_absent, refuse
from ckptparse.inventory.folders import Folders
from ckptparse.inventory.identities import identify_path

__all__ = ["find_graph", "find_saved_model"]


def find_graph(path: str | os.PathLike[str], context: Context) -> Identity:
    """Find the graph that a path means.

    Args:
        path: A graph; or the prefix or a file of a checkpoint that has a `.meta` beside it.
        context: Where files lie.

    Returns:
        The file. Its kind is `graph` or `meta-graph`; `detail["encoding"]` is `binary` or `text`.

    Raises:
        CheckpointNotFoundError: Nothing is there.
        NotACheckpointError: Something else is there.
        DataLossError: The file there was cut off.
    """
    folders = Folders(context)
    text = os.fsdecode(path)
    data = split_data_path(text)
    prefix = text.removesuffix(INDEX_SUFFIX) if data is None else data[0]
    beside = strip_shard_suffix(prefix) + META_SUFFIX
    status = None if "\0" in text else folders.stat(text)
    if status is None and folders.is_file(beside):
        text, status = beside, folders.stat(beside)
    identity = identify_path(text, folders)
    if identity.kind in ("v1", "v2-index", "v2-shard") and folders.is_file(beside):
        identity = identify_file(beside, context)
    if identity.kind not in ("graph", "meta-graph"):
        raise refuse(identity, "a graph")
    return identity


def find_saved_model(path: str | os.PathLike[str], context: Context) -> str:
    """Find the directory of the SavedModel that a path means.

    Args:
        path: The directory, or its `saved_model.pb`, `.pbtxt` or `.cpb`.
        context: Where files lie.

    Raises:
        CheckpointNotFoundError: Nothing is there.
        NotACheckpointError: Something else is there.
    """
    folders = Folders(context)
    text = os.fsdecode(path)
    directory, name = folders.split(text)
    if name in SAVED_MODEL_FILES and folders.is_file(text):
        return directory or "."
    files = folders.files(text)
    if any(one in files for one in SAVED_MODEL_FILES):
        return text
    if folders.stat(text) is None:
        raise explain_absent(text, folders, "SavedModel")
    raise refuse(identify_path(text, folders), "a SavedModel")
