"""How far a scan has come, and the file that keeps it, so that an interrupted one can go on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ckptparse.errors import LimitError, MalformedError
from ckptparse.json_text import NOT_AS_EXPECTED
from ckptparse.limits import Limits, limit_error
from ckptparse.recovery.imaging import extents
from ckptparse.recovery.imaging.tables import FoundTable
from ckptparse.table.format import FOOTER_SIZE

__all__ = ["Pass", "ScanState"]

_STATE_FORMAT = 2
"""Version of the state file; a file of another version is refused."""
_PLACE_BYTES = 24
"""Of a place in a state file, for each beyond `Limits.small_tensors`; most take 30 or more."""


@dataclass(slots=True)
class Pass:
    """How far the search for tensors has come, at the multiples of one size of blocks."""

    segments: int = 0
    placements: list[tuple[int, extents.Placement]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return it as a state file has it."""
        placements = [[number, *placement] for number, placement in self.placements]
        return {"segments": self.segments, "placements": placements}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], size: int) -> Pass:
        """Take it from a state file; `size` is that of the image."""
        placements = [_read_placement(size, *one) for one in value["placements"]]
        return cls(int(value["segments"]), placements)


@dataclass(slots=True)
class ScanState:
    """How far a scan has come."""

    size: int
    image: str = ""
    """What tells the image from others, and from itself before a change."""
    searched: int = 0
    tables: list[FoundTable] = field(default_factory=list)
    coarse: Pass = field(default_factory=Pass)
    fine: Pass = field(default_factory=Pass)

    def to_json(self) -> bytes:
        """Return it in the form of a state file."""
        value = {
            "format": _STATE_FORMAT,
            "size": self.size,
            "image": self.image,
            "searched": self.searched,
            "tables": [list(table) for table in self.tables],
            **self.coarse.to_dict(),
            "fine": self.fine.to_dict(),
        }
        return json.dumps(value).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes, fresh: ScanState, path: str, limits: Limits) -> ScanState:
        """Read a state file.

        Args:
            data: What it holds.
            fresh: The state of a scan of the same image that has just begun.
            path: Its path.
            limits: Bounds on what it may list.

        Raises:
            MalformedError: It is no state file, or the one of another image.
            LimitError: It lists more places than `Limits.small_tensors`, beyond one for each 24
                bytes.
        """
        size = fresh.size
        try:
            value = json.loads(data)
            if value["format"] != _STATE_FORMAT:
                raise ValueError("that of another version")
            if value["size"] != size or value["image"] != fresh.image:
                raise ValueError("that of another image, or this one has changed")
            fine = value.get("fine") or Pass().to_dict()
            places = len(value["tables"]) + len(value["placements"]) + len(fine["placements"])
            _check_places(places, len(data), limits, path)
            return cls(
                size,
                fresh.image,
                int(value["searched"]),
                [_read_table(size, *table) for table in value["tables"]],
                Pass.from_dict(value, size),
                Pass.from_dict(fine, size),
            )
        except LimitError:
            raise
        except NOT_AS_EXPECTED as error:
            raise MalformedError(
                f"Expected the state file of a scan of this image, found something else: {error}",
                path=path,
                hint="Remove it, or give the path of a file that does not exist: the scan then "
                "starts again.",
            ) from None


def _check_places(places: int, size: int, limits: Limits, path: str) -> None:
    """Check that a state file of so many bytes lists no more places than it may."""
    beyond = places - size // _PLACE_BYTES
    if beyond > limits.small_tensors:
        what = f"The number of places, beyond one for each {_PLACE_BYTES} bytes,"
        raise limit_error(limits, "small_tensors", beyond, what, path=path)


def _read_table(image: int, start: int, size: int, kind: str) -> FoundTable:
    """Check a table of a state file; `image` is the size of the image."""
    # It may be longer than what lies before its end.
    whole = type(start) is type(size) is int
    if not whole or size > image or not FOOTER_SIZE <= start + size <= image:
        raise ValueError(f"a table of {size!r} bytes at {start!r}")
    if kind not in ("v1", "v2", "damaged"):
        raise ValueError(f"a table of kind {kind!r}")
    return FoundTable(start, size, kind)


def _read_placement(
    image: int, file: int, offset: int, size: int, position: int
) -> tuple[int, extents.Placement]:
    """Check where a state file says that bytes lie; `image` is the size of the image."""
    if not type(file) is type(offset) is type(size) is type(position) is int:
        raise TypeError("a place that is no number")
    if offset < 0 or not 0 <= position <= position + size <= image:
        raise ValueError(f"{size} bytes at {position}")
    return file, extents.Placement(offset, size, position)
