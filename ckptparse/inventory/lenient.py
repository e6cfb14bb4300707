"""The lenient choice: what is there is taken, broken or whole, and said why.

`verify` and `recover` take it from the same inventory as `open` does. They refuse only what means
several checkpoints alike, and what was never part of one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from ckptparse.errors import CheckpointError, CheckpointNotFoundError, NotACheckpointError
from ckptparse.filenames import split_data_path
from ckptparse.files.context import Context
from ckptparse.identification import identify_file
from ckptparse.inventory.folders import Folders
from ckptparse.inventory.inventory import By, Candidate, Inventory
from ckptparse.inventory.legacy import lists_tensors
from ckptparse.inventory.places import PathLike, take_inventory
from ckptparse.problems import Problem, Severity

__all__ = ["Choice", "as_it_is", "choose_leniently", "refuse_graph"]


@dataclass(frozen=True, slots=True)
class Choice:
    """The checkpoint that is taken though it may be broken.

    Attributes:
        candidate: Which it is.
        problems: Why it was taken, if the path means another one or none.
        refusal: Why `ckptparse.open` takes nothing at that path; None if it takes this one.
    """

    candidate: Candidate
    problems: tuple[Problem, ...] = ()
    refusal: CheckpointError | None = None


def choose_leniently(path: PathLike, folders: Folders) -> Choice:
    """Return the checkpoint of which anything is there.

    Raises:
        CheckpointNotFoundError: Nothing of one is there.
        NotACheckpointError: What is there was never part of one, or belongs to several alike.
        PermissionDeniedError: It may not be read.
    """
    inventory = take_inventory(os.fsdecode(path), folders)
    refusal, taken = inventory.refusal, inventory.meant
    if refusal is None and taken is not None:
        return Choice(as_it_is(taken, folders), tuple(_iter_remarks(inventory)))
    if refusal is not None and (inventory.ambiguous or not inventory.others):
        raise refusal
    taken = inventory.others[0]
    return Choice(taken, tuple(_iter_reasons(inventory, taken)), refusal)


def refuse_graph(path: str, context: Context) -> NotACheckpointError:
    """Say that nothing in a graph can be mended."""
    identity = identify_file(path, context)
    return NotACheckpointError(
        f"Expected a checkpoint, found {identity.meaning}. A graph has no checksums, so that "
        "nothing in it can be mended",
        path=path,
        identity=identity,
        hint="ckptparse.verify tells whether its constants decode, ckptparse.read reads them",
    )


def as_it_is(candidate: Candidate, folders: Folders) -> Candidate:
    """Return a checkpoint in the format that it has: a V1 file may be named as an index is.

    It is one if its list names a tensor and no data file lies beside it: a damaged header of an
    index can look like an empty list.
    """
    if candidate.format != "v2" or not folders.is_file(candidate.index_path):
        return candidate
    directory, name = folders.split(candidate.path)
    if any((split_data_path(one) or ("",))[0] == name for one in folders.list(directory)):
        return candidate
    if not lists_tensors(candidate.index_path, folders.context):
        return candidate
    path = candidate.index_path
    return Candidate("v1", path, candidate.by, files=(path,))


def _iter_remarks(inventory: Inventory) -> Iterator[Problem]:
    if inventory.elsewhere is not None and inventory.state_path is not None:
        yield Problem.of("state.elsewhere", inventory.state_path, inventory.elsewhere)


def _iter_reasons(inventory: Inventory, taken: Candidate) -> Iterator[Problem]:
    """Say why another checkpoint is taken than the path means."""
    refusal = inventory.refusal
    if refusal is None or taken.by in (By.NAME, By.SAVED_MODEL):
        return
    why = f"{refusal.message}. This is about {taken.path}, because {taken.by.value}"
    where = inventory.state_path or inventory.path
    code = "path.taken"
    if inventory.state_path is not None:
        is_absent = isinstance(refusal, CheckpointNotFoundError)
        code = "state.stale" if is_absent else "state.damaged"
    yield Problem.of(code, where, why, severity=Severity.ERROR)
