"""`ckptparse show`: the values of a tensor, of some of its rows, their statistics, or a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

import ckptparse
from ckptparse.cli.completion import complete_name
from ckptparse.cli.errors import UsageError
from ckptparse.cli.options import Argument, Option
from ckptparse.cli.output import Output
from ckptparse.cli.parameters import Naming, NamingOption, OverwriteOption, PathArgument
from ckptparse.cli.progress import working
from ckptparse.cli.running import GOOD, Run
from ckptparse.cli.selection import Part, Selection, find_tensor
from ckptparse.cli.tensors import tensor_to_json
from ckptparse.cli.text import describe_opened
from ckptparse.cli.values import draw_histogram, format_values, summary_rows, values_to_json
from ckptparse.cli.writing import check_outputs, write_npy
from ckptparse.text import escape, shape_text, size_text

__all__ = ["show"]


def show(
    run: Run,
    path: PathArgument,
    *,
    name: Annotated[
        str,
        Argument(
            metavar="NAME[ROWS]",
            help="The name of a tensor, perhaps with a part: 'w[0:3, :]'.",
            complete=complete_name,
        ),
    ],
    stats: Annotated[
        bool, Option("--stats", help="Show statistics: smallest, largest, mean and more.")
    ] = False,
    full: Annotated[
        bool, Option("--full", help="Show every value, even if there are many.")
    ] = False,
    npy: Annotated[
        str | None, Option("--npy", metavar="FILE", help="Write the values to a .npy file.")
    ] = None,
    overwrite: OverwriteOption = False,
    naming: NamingOption = Naming.CHECKPOINT,
) -> Values:
    """Show a tensor's values; of a part, only those bytes are read.

    ckptparse show model.ckpt-1000 'weights[0:2, :]'
    ckptparse show --stats model.ckpt-1000 weights
    """
    with ckptparse.open(path, naming=naming.value, cache=run.cache) as checkpoint:
        run.detail(describe_opened(checkpoint))
        if npy is not None:
            if not npy.endswith(".npy"):
                raise UsageError(
                    f"Expected the name of a .npy file, found '{npy}'",
                    "give a name that ends in .npy",
                )
            check_outputs([npy], [*checkpoint.files, path], overwrite=overwrite)
        selection = find_tensor(checkpoint, name)
        source = _source(selection)
        array, summary = None, None
        with working(f"reading {escape(selection.key)}", quiet=run.quiet) as advance:
            if npy is not None or not stats:
                array = source.read()
            if stats:
                values = {selection.key: source}
                summary = ckptparse.stats(values, histogram=True, progress=advance)[selection.key]
        if npy is not None and array is not None:
            plain = _plain(array)
            write_npy(npy, plain, overwrite=overwrite)
            wider = "" if plain.dtype == array.dtype else f" as {plain.dtype}"
            run.note(f"wrote {npy}{wider if array.dtype != object else ''}")
        return Values(checkpoint.path, selection, source.shape, array, summary, full, npy)


def _source(selection: Selection) -> ckptparse.Tensor | Part:
    """Return what is read: the tensor, or a part of it."""
    if selection.index is None:
        return selection.tensor
    try:
        return Part(selection.tensor, selection.index)
    except IndexError as error:
        raise UsageError(
            f"{error}: the shape of '{escape(selection.key)}' is "
            f"{shape_text(selection.tensor.shape)}"
        ) from None


def _plain(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the values in a type that a .npy file can hold: the same, or a wider one."""
    return _as_fixed_strings(array) if array.dtype == object else ckptparse.plain_values(array)


def _as_fixed_strings(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Turn strings into numpy's fixed-width kind, if that keeps every byte."""
    elements = array.ravel().tolist()
    if any(not isinstance(element, bytes) or element.endswith(b"\0") for element in elements):
        raise UsageError(
            "A .npy file cannot hold these values: some are variants, or strings that end in a "
            "zero byte"
        )
    return np.array(elements, dtype=bytes).reshape(array.shape)


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """The values of a tensor, or of a part of it."""

    path: str
    selection: Selection
    shape: tuple[int, ...]
    array: npt.NDArray[Any] | None
    statistics: ckptparse.Summary | None
    full: bool
    written: str | None
    code: int = GOOD

    def to_dict(self) -> dict[str, Any]:
        """Return them as JSON has them; without the values if statistics or a file were asked for.

        Values beyond the first 1,000 come with `--full` only, as in a terminal.
        """
        wanted = self.statistics is None and self.written is None
        array = self.array if wanted else None
        return {
            "path": self.path,
            "tensor": tensor_to_json(self.selection.key, self.selection.tensor),
            "shape": list(self.shape),
            "values": None if array is None else values_to_json(array, full=self.full),
            "statistics": None if self.statistics is None else self.statistics.to_dict(),
            "written": self.written,
        }

    def write(self, out: Output) -> None:
        """Write a head and the values in a terminal; piped, the values alone."""
        if out.terminal:
            out.line(self._head(), "bold")
        if self.statistics is not None:
            out.fields(self._statistics_rows(self.statistics, drawn=out.terminal))
        elif self.written is None and self.array is not None:
            for line in format_values(self.array, full=self.full, width=_width(out)):
                out.line(line)

    def _statistics_rows(
        self, summary: ckptparse.Summary, *, drawn: bool
    ) -> Iterator[tuple[str, str]]:
        yield from summary_rows(summary)
        bars = draw_histogram(summary) if drawn else ""
        if bars:
            yield "histogram", bars

    def _head(self) -> str:
        tensor = self.selection.tensor
        part = "" if self.selection.index is None else f", {shape_text(self.shape)} of it"
        return (
            f"{escape(self.selection.key)}  {ckptparse.element_name(tensor.data_type)} "
            f"{shape_text(tensor.shape)}  {size_text(tensor.nbytes)}{part}"
        )


def _width(out: Output) -> int:
    return out.width if out.terminal else 80
