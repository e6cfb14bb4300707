"""The files of one checkpoint, also of an incomplete one, each with its origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Literal

__all__ = ["IndexFile", "LegacyFile", "Origin", "Survey"]


class Origin(Enum):
    """Where an index or a V1 file comes from."""

    FINAL = "final"
    """It has its final name."""
    TEMPORARY = "temporary"
    """A save wrote it and did not rename it yet: `P.index.tempstateN`, `F.tempstateN`."""
    PART = "part"
    """One worker's part of a save, not merged yet: `P_temp/part-00000-of-00002.index`."""
    REBUILT = "rebuilt"
    """There is no file: it was rebuilt from other evidence."""

    @property
    def is_leftover(self) -> bool:
        """Whether an unfinished save left it behind."""
        return self in (Origin.TEMPORARY, Origin.PART)


@dataclass(frozen=True, slots=True)
class IndexFile:
    """An index, or one that a save left behind.

    Attributes:
        path: The file.
        data_paths: Its data files by number; None if they follow from the prefix.
        origin: Where it comes from.
        laid: Bytes of a block of the image in which it lies, in parts of whole blocks; None if it
            is a file.
        untied: Where blocks of the table begin of which it is known that nothing ties them to the
            block before; in bytes.
        tied: Whether something else shows that all its blocks are of one save.
    """

    path: str
    data_paths: tuple[str, ...] | None = None
    origin: Origin = Origin.FINAL
    laid: int | None = None
    untied: tuple[int, ...] = ()
    tied: bool = False


@dataclass(frozen=True, slots=True)
class LegacyFile:
    """A file of a V1 checkpoint.

    Attributes:
        path: The file.
        present: Whether it is there.
        origin: Where it comes from.
        laid, untied: As of an `IndexFile`.
    """

    path: str
    present: bool = True
    origin: Origin = Origin.FINAL
    laid: int | None = None
    untied: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Survey:
    """The files of one checkpoint.

    Attributes:
        format: `"v2"` or `"v1"`.
        prefix: The prefix; of a V1 checkpoint its file, prefix or pattern.
        directory: Where its files are.
        indexes: The index first, if it is there, then leftovers of indexes.
        data_files: The data files of that prefix that are there, by shard and number of shards.
        legacy_files: The files of a V1 checkpoint by number.
        leftovers: Paths of the temporary files beside it,
        more_leftovers: and whether there are more, which are not looked at.
        saved_model: The directory of the SavedModel it belongs to, or None.
    """

    format: Literal["v2", "v1"]
    prefix: str
    directory: str
    indexes: tuple[IndexFile, ...] = ()
    data_files: Mapping[tuple[int, int], str] = field(
        default_factory=lambda: MappingProxyType[tuple[int, int], str]({})
    )
    legacy_files: tuple[LegacyFile, ...] = ()
    leftovers: tuple[str, ...] = ()
    more_leftovers: bool = False
    saved_model: str | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """Every file of it that is there, but for leftovers that no index names."""
        listing = [index.path for index in self.indexes]
        listing += [file.path for file in self.legacy_files]
        return (*listing, *self.data_files.values())

    @property
    def has_index(self) -> bool:
        """Whether its format lists the tensors in a file of their own; a V1 file lists its own."""
        return self.format == "v2"
