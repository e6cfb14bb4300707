"""The lenient choice: a checkpoint is taken, damaged or whole, and the reason is given.

`verify` and `recover` make it from the same inventory as `open`. They refuse only a path that can
mean several checkpoints, and files that were never part of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ckptparse.errors import CheckpointError, CheckpointNotFoundError, NotACheckpointError
from ckptparse.filenames import split_data_path
from ckptparse.files.context import Context
from ckptparse.identification import identify_file
from ckptparse.inventory.folders import Folders
from ckptparse.inventory.inventory import By, Candidate, Inventory
from ckptparse.inventory.legacy import lists_tensors
from ckptparse.inventory.parts import list_unfinished
from ckptparse.inventory.places import take_inventory
from ckptparse.problems import Problem, Severity

__all__ = ["Choice", "as_it_is", "choose_leniently", "refuse_graph"]

_MOST_UNFINISHED = 4
"""Unfinished saves that are named, each in a problem of its own."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The checkpoint that is taken, which may be damaged.

    Attributes:
        candidate: Which it is.
        problems: Why it was taken, if the path means another one or none.
        refusal: Why `ckptparse.open` takes nothing at that path; None if it takes this one.
    """

    candidate: Candidate
    problems: tuple[Problem, ...] = ()
    beside: tuple[Problem, ...] = ()
    """Saves that were left unfinished in the directory that the path means."""
    refusal: CheckpointError | None = None


def choose_leniently(path: str, folders: Folders) -> Choice:
    """Return the checkpoint of which anything is there.

    Raises:
        CheckpointNotFoundError: No file of one is there.
        NotACheckpointError: The file there was never part of one, or the path can mean several.
        PermissionDeniedError: It may not be read.
    """
    inventory = take_inventory(path, folders)
    choice = _choose(inventory, folders)
    if choice.candidate.by in (By.NAME, By.SAVED_MODEL):
        return choice
    return replace(choice, beside=tuple(_iter_unfinished(choice.candidate, folders)))


def _choose(inventory: Inventory, folders: Folders) -> Choice:
    refusal, taken = inventory.refusal, inventory.meant
    if refusal is None and taken is not None:
        return Choice(as_it_is(taken, folders), tuple(_iter_remarks(inventory)))
    if refusal is not None and (inventory.ambiguous or not inventory.others):
        raise refusal
    taken = inventory.others[0]
    return Choice(taken, tuple(_iter_reasons(inventory, taken)), refusal=refusal)


def refuse_graph(path: str, context: Context) -> NotACheckpointError:
    """Return an error that says that a graph cannot be mended."""
    identity = identify_file(path, context)
    return NotACheckpointError(
        f"Expected a checkpoint, found {identity.meaning}. A graph has no checksums, so nothing in "
        "it can be mended",
        path=path,
        identity=identity,
        hint="ckptparse.verify tells whether its constants decode; ckptparse.read reads them",
    )


def as_it_is(candidate: Candidate, folders: Folders) -> Candidate:
    """Return a checkpoint with its true format: a V1 file may have a name that ends in `.index`.

    It is V1 if its list names a tensor and there is no data file beside it. A damaged header of an
    index can look like an empty list.
    """
    if candidate.format != "v2" or not folders.is_file(candidate.index_path):
        return candidate
    directory, name = folders.split(candidate.path)
    beside = folders.beginning(directory, f"{name}.data-")
    if any((split_data_path(one) or ("",))[0] == name for one in beside):
        return candidate
    if not lists_tensors(candidate.index_path, folders.context):
        return candidate
    path = candidate.index_path
    return Candidate("v1", path, candidate.by, files=(path,))


def _iter_unfinished(taken: Candidate, folders: Folders) -> Iterator[Problem]:
    """Say which other saves were left unfinished in the directory of a checkpoint."""
    directory, name = folders.split(taken.path)
    if not folders.are_listed:
        return
    found = [one for one in list_unfinished(directory, folders) if one != name]
    for one in found[:_MOST_UNFINISHED]:
        prefix = folders.join(directory, one)
        message = (
            "a save was left unfinished, or still goes on, and this report is not about it: "
            f"`ckptparse recover {prefix}` gets back what it wrote"
        )
        yield Problem.of("leftover.beside", prefix, message)
    if len(found) > _MOST_UNFINISHED:
        message = f"{len(found) - _MOST_UNFINISHED:,} more saves were left unfinished there"
        yield Problem.of("leftover.beside", directory, message)


def _iter_remarks(inventory: Inventory) -> Iterator[Problem]:
    if inventory.elsewhere is not None and inventory.state_path is not None:
        yield Problem.of("state.elsewhere", inventory.state_path, inventory.elsewhere)


def _iter_reasons(inventory: Inventory, taken: Candidate) -> Iterator[Problem]:
    """Say why a checkpoint is taken that the path does not name."""
    refusal = inventory.refusal
    if refusal is None or taken.by in (By.NAME, By.SAVED_MODEL):
        return
    why = f"{refusal.message}. This report is about {taken.path}, because {taken.by.value}"
    where = inventory.state_path or inventory.path
    code = "path.taken"
    if inventory.state_path is not None:
        is_absent = isinstance(refusal, CheckpointNotFoundError)
        code = "state.stale" if is_absent else "state.damaged"
    yield Problem.of(code, where, why, severity=Severity.ERROR)
