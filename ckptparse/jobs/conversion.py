"""What became of every tensor of a conversion, and what undoes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ckptparse.errors import UnsupportedError
from ckptparse.text import count, escape, shape_text, size_text

__all__ = ["Conversion", "ConversionRow", "Reversal", "StoredTensor", "TargetFormat"]

TargetFormat = Literal["v2", "safetensors", "npz", "npy", "hdf5"]
"""The formats that `convert` writes; `npy` is a directory."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """What a tensor is in the file that it is read from.

    Attributes:
        name: Its name there, whatever the naming.
        dtype: Its kind of element.
        shape: Its shape.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON holds them."""
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}


@dataclass(frozen=True, slots=True)
class ConversionRow:
    """What became of one tensor, or of one part of it.

    Attributes:
        old: Its name in the source.
        new: Its name in the target; None if it was dropped.
        dtype: Its kind of element, as it is written; of one that was dropped, as it is stored.
        shape: Its shape, likewise.
        nbytes: Bytes of its data, likewise.
        done: What was done with it, in a few words each.
        dropped: Why it is not in the target; empty if it is.
        axes: The order that its axes were given; None if they stayed. After that some may have been
            joined, as those of a depthwise kernel are.
        stored: What it was in the source: name in the file, kind of element, and shape.
        gates: The order that the equal blocks of its last axis were given, before axes; None if
            they stayed. A GRU's have another order in PyTorch.
    """

    old: str
    new: str | None
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    done: tuple[str, ...]
    dropped: str
    axes: tuple[int, ...] | None
    stored: StoredTensor
    gates: tuple[int, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON holds them."""
        return {
            "old": self.old,
            "new": self.new,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "nbytes": self.nbytes,
            "done": list(self.done),
            "dropped": self.dropped,
            "axes": None if self.axes is None else list(self.axes),
            "gates": None if self.gates is None else list(self.gates),
            "stored": self.stored.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class Reversal:
    """What undoes a conversion: names, axes and kinds of elements as they were before.

    `Conversion.reverse` makes it, and `rename` of `convert` takes it. Names that it does not know
    stay as they are.

    Attributes:
        rows: Name that a tensor was given -> what became of it.
    """

    rows: Mapping[str, ConversionRow]

    def __repr__(self) -> str:
        return f"<Reversal of {len(self.rows)} tensors>"


@dataclass(frozen=True, slots=True)
class Conversion:
    """What became of every tensor.

    Attributes:
        source: Where they came from.
        target: The path that was asked for.
        format: The format of the target.
        rows: One for each tensor of the source, or for each part that it was cut into.
        files: The files that were written; none after a dry run.
        dry_run: Whether nothing was to be written.
        warnings: What may not be as it was meant: rules that are about no tensor, kernels that
            nothing tells the layout of.
    """

    source: str
    target: str
    format: TargetFormat
    rows: tuple[ConversionRow, ...]
    files: tuple[str, ...]
    dry_run: bool
    warnings: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of all that is written."""
        return sum(row.nbytes for row in self.rows if row.new is not None)

    @property
    def kept(self) -> tuple[ConversionRow, ...]:
        """The rows of what is written."""
        return tuple(row for row in self.rows if row.new is not None)

    def reverse(self) -> Reversal:
        """Return what undoes it: `convert(target, dst, rename=conversion.reverse())`.

        Names become those of the source's file, axes and kinds of elements what they were. What was
        dropped does not come back, nor what a narrower kind has rounded off.

        Raises:
            UnsupportedError: A tensor was cut into parts, so that it is not one to one.
        """
        counts = Counter(row.stored.name for row in self.kept)
        cut = [name for name, number in counts.items() if number > 1]
        if cut:
            raise UnsupportedError(
                f"What was cut into parts cannot be put together again: {', '.join(cut[:5])}",
                tensor=cut[0],
            )
        return Reversal({row.new: row for row in self.kept if row.new is not None})

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON holds them."""
        return {
            "source": self.source,
            "target": self.target,
            "format": self.format,
            "dry_run": self.dry_run,
            "files": list(self.files),
            "nbytes": self.nbytes,
            "tensors": [row.to_dict() for row in self.rows],
            "warnings": list(self.warnings),
        }

    def __str__(self) -> str:
        lines = [f"{escape(self.source)} -> {escape(self.target)} ({self.format})"]
        for row in self.rows:
            if row.new is None:
                lines.append(f"  {escape(row.old)}  dropped: {row.dropped}")
                continue
            what = f"{row.dtype} {shape_text(row.shape)}"
            name = escape(row.old)
            if row.new != row.old:
                name += f" -> {escape(row.new)}"
            done = f"  ({'; '.join(row.done)})" if row.done else ""
            lines.append(f"  {name}  {what}{done}")
        dropped = len(self.rows) - len(self.kept)
        end = f", {dropped:,} dropped" if dropped else ""
        lines.extend(f"warning: {one}" for one in self.warnings)
        lines.append(f"{count(len(self.kept), 'tensor')}, {size_text(self.nbytes)}{end}")
        return "\n".join(lines)
