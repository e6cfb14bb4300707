"""The tensors of a page as columns: a list for each property, small numbers where possible."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress, count
from typing import Any

import numpy as np

from ckptparse.backend import OBJECT_GRAPH_KEY, VARIABLE_SUFFIX
from ckptparse.dtypes import DataType, element_name, item_size
from ckptparse.errors import CheckpointError
from ckptparse.examination.report import TensorReport, VerifiedTensors
from ckptparse.problems import Status
from ckptparse.rendering.page.comparison import describe_changes, find_states
from ckptparse.rendering.page.numbers import small_number
from ckptparse.rendering.page.subject import Subject
from ckptparse.statistics.distribution import BINS
from ckptparse.statistics.gathering import Measured
from ckptparse.statistics.heat import HeatMap
from ckptparse.text import escape

__all__ = ["Column", "make_rows"]

_UNCHECKED = "not checked"
_MOST_RANGES = 50
"""Ranges of a partial tensor that the page lists; the report has all."""
_AT_ONCE = 1 << 10
"""Rows of counts that are scaled together."""
_MOST_COUNT = (1 << 63) // 256
"""A larger count would be none of 64 bits when it is scaled."""
_WIDTHS = {element_name(kind): width for kind in DataType if (width := item_size(kind)) is not None}


class Column:
    """A property of few different values: a list of those, and for each row a number in it."""

    def __init__(self) -> None:
        self.values: list[str] = []
        self.rows: list[int] = []
        self._numbers: dict[str, int] = {}

    def add(self, value: str) -> None:
        """Add the next row."""
        number = self._numbers.setdefault(value, len(self.values))
        if number == len(self.values):
            self.values.append(value)
        self.rows.append(number)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"values": self.values, "rows": self.rows}


def make_rows(
    subject: Subject,
    names: Sequence[str],
    measured: Mapping[str, Measured],
    files: Mapping[str, int],
) -> dict[str, Any]:
    """Make the columns of every tensor that is shown.

    Args:
        subject: What the page is made of.
        names: The stored name of each.
        measured: Statistics by stored name.
        files: Number of each file, by path.
    """
    reports = subject.report.tensors if subject.report is not None else {}
    became = find_states(subject.comparison) if subject.comparison is not None else {}
    all_whole = isinstance(reports, VerifiedTensors)
    known_places = _places_of(subject, files)
    aliases = _variable_names(subject)
    types, states, roles = Column(), Column(), Column()
    role_of = _roles(subject)
    shapes, sizes, places = [], [], []
    notes: dict[int, dict[str, Any]] = {}
    for number, name in enumerate(names):
        tensor = subject.tensors.get(name)
        # The report of a tensor that is whole tells nothing that the tensor does not.
        known = all_whole and tensor is not None and name in known_places
        report = None if known else reports.get(name)
        state = Status.VERIFIED.value if known else _state(subject, report)
        dtype, shape = _dtype(tensor, report), _shape(tensor, report)
        types.add(dtype)
        states.add(became.get(name) or state)
        roles.add(role_of.get(name, "variable" if subject.graph is None else "constant"))
        shapes.append(None if shape is None else list(shape))
        sizes.append(_bytes(tensor, dtype, shape, report))
        places.append(known_places[name] if known else _place(tensor, report, files))
        if report is not None and (note := _note(name, report, subject)):
            notes[number] = note
    return {
        "stored": names,
        "name": [escape(name.removesuffix(VARIABLE_SUFFIX)) for name in names],
        "alias": {
            number: escape(aliases[name]) for number, name in enumerate(names) if name in aliases
        },
        "dtype": types.to_dict(),
        "state": states.to_dict(),
        "role": roles.to_dict(),
        "shape": shapes,
        "bytes": sizes,
        "place": places,
        "notes": notes,
        "changes": describe_changes(subject.comparison, names) if subject.comparison else {},
        "stats": _statistics(names, measured),
    }


def _dtype(tensor: Any, report: TensorReport | None) -> str:
    if tensor is not None:
        return element_name(tensor.data_type)
    return (report.dtype if report is not None else None) or "unknown"


def _shape(tensor: Any, report: TensorReport | None) -> tuple[int, ...] | None:
    if tensor is not None:
        shape: tuple[int, ...] = tensor.shape
        return shape
    return report.shape if report is not None else None


def _bytes(
    tensor: Any, dtype: str, shape: tuple[int, ...] | None, report: TensorReport | None
) -> int:
    if tensor is not None:
        return int(tensor.nbytes)
    if shape is not None and dtype in _WIDTHS:
        return math.prod(shape) * _WIDTHS[dtype]
    return report.source.size if report is not None and report.source is not None else 0


def _state(subject: Subject, report: TensorReport | None) -> str:
    if report is not None:
        return report.status.value
    return "constant" if subject.graph is not None else _UNCHECKED


def _place(tensor: Any, report: TensorReport | None, files: Mapping[str, int]) -> list[Any] | int:
    """Return the file's number, offset, size and checksum; 0 if it lies in no one place."""
    try:
        location = getattr(tensor, "location", None)
        crc = getattr(tensor, "crc32c", None)
    except CheckpointError:
        location = crc = None
    if location is None and report is not None:
        location = report.source
    if location is None or location.path not in files:
        return 0
    checksum = [] if crc is None else [f"{crc:08x}"]
    return [files[location.path], location.offset, location.size, *checksum]


def _places_of(subject: Subject, files: Mapping[str, int]) -> dict[str, list[Any] | int]:
    """Return the places of what lies in one place of a checkpoint, as `_place` does, at once."""
    checkpoint = subject.checkpoint
    if checkpoint is None or checkpoint.format != "v2" or subject.recovery is not None:
        return {}
    found = subject.ask(checkpoint.places)
    if found is None:
        return {}
    if subject.left_out:
        rows = list(compress(count(), map(subject.tensors.__contains__, found.names)))
        found = found.take(rows, [found.names[row] for row in rows])
    numbers = [files.get(path, -1) for path in found.files]
    told_of = zip(
        found.names,
        found.are_told.tolist(),
        found.numbers.tolist(),
        found.offsets.tolist(),
        found.sizes.tolist(),
        found.crcs.tolist(),
        strict=True,
    )
    return {
        name: [numbers[number], offset, size, f"{crc:08x}"] if numbers[number] >= 0 else 0
        for name, told, number, offset, size, crc in told_of
        if told and name in subject.tensors
    }


def _variable_names(subject: Subject) -> dict[str, str]:
    """Return the variables' own names by stored name, if an object graph tells them."""
    checkpoint = subject.checkpoint
    graph = subject.ask(lambda: checkpoint.object_graph) if checkpoint is not None else None
    if graph is None:
        return {}
    found: dict[str, str] = {}
    for node in graph.walk():
        for attribute in graph.attributes_of(node.node_id):
            if attribute.full_name:
                found[attribute.checkpoint_key] = attribute.full_name
    return found


def _roles(subject: Subject) -> dict[str, str]:
    """Say of every tensor that is no variable of the model what it is."""
    checkpoint = subject.checkpoint
    if checkpoint is None or subject.left_out:
        return {}
    roles: dict[str, str] = {}
    for name in subject.tensors:
        last = name.removesuffix(VARIABLE_SUFFIX).rpartition("/")[2]
        if last in ("save_counter", "global_step", OBJECT_GRAPH_KEY):
            roles[name] = "counter"
    for optimizer in subject.ask(lambda: checkpoint.optimizers) or ():
        kept = subject.ask(lambda found=optimizer: found.tensors) or {}  # type: ignore[misc]
        roles.update(dict.fromkeys(kept, "counter"))
        slots = subject.ask(lambda found=optimizer: found.slots.stored_names) or {}  # type: ignore[misc]
        roles.update({name: "slot" for by_slot in slots.values() for name in by_slot.values()})
    averages = subject.ask(lambda: checkpoint.averages)
    if averages is not None:
        roles.update(dict.fromkeys(averages.stored_names, "average"))
    return roles


def _note(name: str, report: TensorReport, subject: Subject) -> dict[str, Any]:
    """Return what a report says of a tensor beyond its state; nothing if that is all."""
    told = {
        "cause": None if report.cause is None else report.cause.value,
        "method": report.method,
        "chance": report.chance,
        "note": escape(report.note),
        "ranges": [list(span) for span in report.ranges[:_MOST_RANGES]],
        "evidence": _evidence(subject, name),
    }
    kept = {key: value for key, value in told.items() if value not in (None, "", [])}
    return kept if kept.keys() - {"ranges"} else {}


def _evidence(subject: Subject, name: str) -> list[str]:
    tensor = subject.tensors.get(name) if subject.recovery is not None else None
    return [escape(str(step)) for step in getattr(tensor, "evidence", ())]


def _statistics(names: Iterable[str], measured: Mapping[str, Measured]) -> dict[str, Any]:
    rows, numbers, quantiles, exact = [], [], [], []
    counts: list[tuple[int, ...]] = []
    heat = {}
    for number, name in enumerate(names):
        found = measured.get(name)
        if found is None:
            continue
        rows.append(number)
        summary, how = found.summary, found.distribution
        numbers.append(
            [
                small_number(summary.smallest),
                small_number(summary.largest),
                small_number(summary.mean),
                small_number(summary.deviation),
                *(summary.elements, summary.zeros, summary.nan, summary.infinite),
            ]
        )
        counts.append(how.counts if how is not None else (0,) * BINS)
        quantiles.append([small_number(value, 4) for value in how.quantiles] if how else 0)
        exact.append(int(how is not None and how.exact))
        if found.heat_map is not None:
            heat[number] = _small_heat(found.heat_map)
    return {
        "rows": rows,
        "numbers": numbers,
        "bins": base64.b64encode(_small_counts(counts)).decode("ascii"),
        "quantiles": quantiles,
        "exact": exact,
        "heat": heat,
    }


def _small_counts(counts: Sequence[tuple[int, ...]]) -> bytes:
    """Scale the counts of each row to a byte each; a bin that is not empty stays so.

    Args:
        counts: Of each row, `BINS` whole numbers.
    """
    # Of small tensors, most have the same ones.
    different = list(dict.fromkeys(counts))
    scaled: dict[tuple[int, ...], bytes] = {}
    for start in range(0, len(different), _AT_ONCE):
        some = different[start : start + _AT_ONCE]
        table = np.array(some, np.int64)
        most = np.maximum(table.max(axis=1, keepdims=True), 1)
        if most.max() > _MOST_COUNT:
            made = [bytes(min(255, -(-n * 255 // (max(row) or 1))) for n in row) for row in some]
        else:
            made = list(map(bytes, np.minimum(255, -(-table * 255 // most)).astype(np.uint8)))
        scaled.update(zip(some, made, strict=True))
    return b"".join(map(scaled.__getitem__, counts))


def _small_heat(heat: HeatMap) -> list[Any]:
    """Return rows, columns, the ends of the scale, the matrix's shape, and a byte for each block.

    0 stands for NaN, and 1 to 255 for values from one end to the other.
    """
    means = heat.means
    finite = np.isfinite(means)
    low = float(means[finite].min()) if finite.any() else 0.0
    high = float(means[finite].max()) if finite.any() else 0.0
    with np.errstate(all="ignore"):
        shares = (means.astype(np.float64) - low) / ((high - low) or 1)
    levels = np.where(finite, np.clip(np.rint(1 + shares * 254), 1, 255), 0)
    data = np.nan_to_num(levels).astype(np.uint8).tobytes()
    text = base64.b64encode(data).decode("ascii")
    return [*means.shape, small_number(low), small_number(high), *heat.shape, text]
