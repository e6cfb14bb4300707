"""What is sought in an image, and where it was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ckptparse.dtypes import DataType, item_size

__all__ = ["DataFile", "Piece", "Placement"]


class Piece(NamedTuple):
    """A payload that belongs into a data file."""

    offset: int
    size: int
    crc: int
    """Its unmasked CRC-32C."""
    data_type: int = DataType.DT_INVALID
    """DataType number of its elements."""
    lead: int = 0
    """Bytes before its first element."""

    @property
    def width(self) -> int:
        """Bytes of an element."""
        return item_size(self.data_type) or 1


@dataclass(frozen=True, slots=True)
class DataFile:
    """A data file, as an index describes it."""

    size: int
    pieces: tuple[Piece, ...]
    """By offset."""


class Placement(NamedTuple):
    """Where some bytes of a data file lie in the image."""

    offset: int
    """In the data file."""
    size: int
    position: int
    """In the image."""
