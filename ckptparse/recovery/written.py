"""The output of a recovery: its files, their hashes, and what was left out or filled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal

from ckptparse.examination.inputs import HashedFile
from ckptparse.examination.outcome import Span

__all__ = ["GraphOrigin", "Offer", "Written"]

Offer = Literal["proved", "plausible"]
"""Which tensors are written: those that are proved, or all that were got back."""


GraphOrigin = Literal["stored", "reduced", "made"]
"""Where the object graph of an output comes from."""


@dataclass(frozen=True, slots=True, repr=False)
class Written:
    """What `Recovery.write` has written.

    Attributes:
        path: The path that was asked for.
        format: Its format, a word of `ckptparse.convert`.
        offer: Which tensors were to be written.
        fill: The value of elements that are missing or look wrong.
        keep_suspect: Whether elements that look wrong were kept.
        files: The files, each with its SHA-256.
        report: The path of the report; None if none was to be written.
        digests: By name the SHA-256 of each tensor's bytes, as a V2 data file holds them.
        filled: The elements that were filled, by name: (first, one past the last) in C order.
        masks: The array that is True at filled elements, by name; only in formats of numpy.
        withheld: The tensors that are not proved, if only proved ones were asked for.
        left_out: The tensors that could not be written, or of which every element would be filled;
            each with the reason.
        object_graph: `"stored"`: the object graph of a V2 checkpoint is the one that was stored;
            `"reduced"`: it is, without the keys of tensors that were not written; `"made"`: it was
            lost, and made again of the tensors' names. It then lacks objects without values, and
            further names of an object. None: there is none.
    """

    path: str
    format: str
    offer: Offer
    fill: Any = 0
    keep_suspect: bool = False
    files: tuple[HashedFile, ...] = ()
    report: str | None = None
    digests: Mapping[str, str] = field(default_factory=dict)
    filled: Mapping[str, tuple[Span, ...]] = field(default_factory=dict)
    masks: Mapping[str, str] = field(default_factory=dict)
    withheld: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    object_graph: GraphOrigin | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON holds them."""
        return {
            "path": self.path,
            "format": self.format,
            "offer": self.offer,
            "fill": _plain(self.fill),
            "keep_suspect": self.keep_suspect,
            "files": [file.to_dict() for file in self.files],
            "report": self.report,
            "digests": dict(self.digests),
            "filled": {name: [list(span) for span in spans] for name, spans in self.filled.items()},
            "masks": dict(self.masks),
            "withheld": list(self.withheld),
            "left_out": dict(self.left_out),
            "object_graph": self.object_graph,
        }

    def __repr__(self) -> str:
        return f"<Written {self.path!r}: {len(self.digests)} tensors, {self.format}>"


def _plain(fill: Any) -> Any:
    """Return a number as JSON holds it: NaN and infinities as words."""
    if isinstance(fill, bytes):
        return fill.decode("latin-1")
    value = fill.item() if hasattr(fill, "item") else fill
    if isinstance(value, float) and not isfinite(value):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    return value
