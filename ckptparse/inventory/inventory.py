"""What is at a path, as a value: the checkpoint it means, others, and why nothing is opened.

The strict choice (`open`, `read`, `list_variables`) and the lenient one (`verify`, `recover`) are
made from this value. So they cannot disagree on which checkpoint is meant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Literal

from ckptparse.errors import CheckpointError
from ckptparse.filenames import INDEX_SUFFIX

if TYPE_CHECKING:
    from ckptparse.identification import Identity

__all__ = ["By", "Candidate", "Inventory"]


class By(Enum):
    """How a path leads to a checkpoint."""

    NAME = "the path names it"
    SAVED_MODEL = "it holds the variables of the SavedModel"
    STATE = "the state file names it as the newest"
    LISTED = "it is the newest in the state file of which any file is there"
    ONLY = "it is the only one in the directory"
    NEWEST = "nothing in the directory has a higher step"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A checkpoint that a path may mean.

    Attributes:
        format: `"v2"`, `"v1"` or `"graph"`.
        path: The prefix of a V2 checkpoint; the file, prefix or pattern of any other.
        by: How the path leads to it.
        files: The files of a V1 checkpoint that are there and that are read.
        renamed_index: The index of a V2 checkpoint if it is not `path + ".index"`, else None.
        saved_model: The directory of the SavedModel that it belongs to, or None.
        parts_in: A directory of parts, such as `P_temp`, if only these are meant; else None.
        identity: What kind of file a graph is; None if it was not read.
    """

    format: Literal["v2", "v1", "graph"]
    path: str
    by: By = By.NAME
    files: tuple[str, ...] = ()
    renamed_index: str | None = None
    saved_model: str | None = None
    parts_in: str | None = None
    identity: Identity | None = None

    @property
    def index_path(self) -> str:
        """Path of a V2 checkpoint's index."""
        return self.renamed_index or self.path + INDEX_SUFFIX

    def at(self, place: Callable[[str], str]) -> Candidate:
        """Return the same checkpoint as if it had been named, by what a function makes of paths."""
        index, model, parts = self.renamed_index, self.saved_model, self.parts_in
        return replace(
            self,
            path=place(self.path),
            by=By.NAME,
            files=tuple(map(place, self.files)),
            renamed_index=None if index is None else place(index),
            saved_model=None if model is None else place(model),
            parts_in=None if parts is None else place(parts),
            identity=None,
        )


@dataclass(frozen=True, slots=True)
class Inventory:
    """What is at a path.

    Attributes:
        path: The path.
        meant: The checkpoint that it means; None if it means none.
        refusal: Why the strict reader opens nothing; None if it opens `meant`.
        ambiguous: Whether it is refused because the path can mean several checkpoints.
        others: Other checkpoints to which it leads, damaged or whole, the best choice first.
        state_path: The state file that led to it, or None.
        elsewhere: A warning if `meant` is not in the directory of the state file, or None.
        warning: Another warning about `meant`, or None.
    """

    path: str
    meant: Candidate | None = None
    refusal: CheckpointError | None = None
    ambiguous: bool = False
    others: tuple[Candidate, ...] = ()
    state_path: str | None = None
    elsewhere: str | None = None
    warning: str | None = None

    @property
    def checkpoint_path(self) -> str:
        """Path of the checkpoint that the path means."""
        return self.path if self.meant is None else self.meant.path
