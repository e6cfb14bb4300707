"""Values as HTML for notebooks: small tables, no scripts, every text escaped.

A notebook keeps what it shows in its file: never more than 200 rows, whatever the value. What is
shown reads no tensor; a part that is damaged or closed says so in its place.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ckptparse.dtypes import element_name
from ckptparse.errors import CheckpointError
from ckptparse.text import clean, count, shape_text, size_text

if TYPE_CHECKING:
    from ckptparse.checkpoint import Checkpoint
    from ckptparse.examination.report import Report
    from ckptparse.graph.layers import Layer
    from ckptparse.jobs.diff import Diff
    from ckptparse.model import SavedModel
    from ckptparse.tensor import Tensor

__all__ = [
    "checkpoint_html",
    "diff_html",
    "layer_html",
    "model_html",
    "report_html",
    "tensor_html",
]

_MOST_ROWS = 200
_MOST_PROBLEMS = 50
_LONGEST_CELL = 200
"""Rows, problems, characters of a cell: a notebook keeps what it shows, some 100 KiB at most."""
_LEFT = ' style="text-align:left"'
_TENSOR = ("name", "type", "shape", "size")


def tensor_html(tensor: Tensor) -> str:
    """Show what is known of a tensor without its values."""
    where = tensor.location
    place = (
        ""
        if where is None
        else f"{where.path}, bytes {where.offset} to {where.offset + where.size}"
    )
    crc = "" if tensor.crc32c is None else f"{tensor.crc32c:08x}"
    return _show(
        _facts(
            tensor.name,
            [
                ("", f"{element_name(tensor.data_type)} {shape_text(tensor.shape)}"),
                ("", size_text(tensor.nbytes)),
                ("", tensor.kind),
                ("in", place),
                ("CRC-32C", crc),
            ],
        )
    )


def checkpoint_html(checkpoint: Checkpoint) -> str:
    """Show a checkpoint's tensors."""
    title = [("", f"{checkpoint.format}, {count(checkpoint.num_shards, 'shard')}")]
    rows = (_tensor_row(name, tensor) for name, tensor in checkpoint.items())
    said = [*title, ("", count(len(checkpoint), "tensor"))]
    return _show(_facts(checkpoint.path, said), _table(_TENSOR, rows, total=len(checkpoint)))


def model_html(model: SavedModel) -> str:
    """Show a SavedModel's signatures and layers."""
    return _show(
        _facts(model.path, []),
        _attempt(
            lambda: _table(
                ("signature", "way", "name", "type", "shape"), _signatures(model), most=50
            )
        ),
        _attempt(
            lambda: _table(
                ("layer", "class", "weights"),
                map(_layer_row, model.layers),
                total=len(model.layers),
                most=100,
            )
        ),
    )


def layer_html(layer: Layer) -> str:
    """Show a layer's weights."""
    rows = _attempt(
        lambda: _table(_TENSOR, (_tensor_row(item.name, item) for item in layer.weights))
    )
    return _show(_facts(layer.name, [("", layer.class_name or ""), ("at", layer.path or "")]), rows)


def report_html(report: Report, *, title: str = "") -> str:
    """Show what is wrong, then the tensors, those that are not whole first."""
    said = ", ".join(f"{number:,} {state}" for state, number in report.counts.items())
    problems = _table(
        ("severity", "code", "where", "what"),
        ((p.severity.value, p.code, p.where, p.message) for p in report.problems),
        total=len(report.problems),
        most=_MOST_PROBLEMS,
    )
    # Of a hundred thousand those are made that are shown.
    doubtful = report.doubtful_names()
    names = itertools.chain(
        (name for name in report.tensors if name in doubtful),
        (name for name in report.tensors if name not in doubtful),
    )
    rows = (
        (
            tensor.name,
            tensor.dtype or "?",
            "?" if tensor.shape is None else shape_text(tensor.shape),
            tensor.status.value,
            "" if tensor.cause is None else tensor.cause.value,
        )
        for tensor in map(report.tensors.__getitem__, names)
    )
    most = _MOST_ROWS - min(_MOST_PROBLEMS, len(report.problems))
    columns = ("name", "type", "shape", "status", "cause")
    table = _table(columns, rows, total=len(report.tensors), most=most)
    return _show(
        _facts(report.path, [("", title), ("", report.verdict), ("", said)]), problems, table
    )


def diff_html(found: Diff) -> str:
    """Show what changed, then what came, went, or was renamed."""
    rows = [(name, "changed", str(change)) for name, change in found.changed.items()]
    rows += [(name, "added", "") for name in found.added]
    rows += [(name, "removed", "") for name in found.removed]
    rows += [(old, "renamed", new) for old, new in found.renamed]
    said = [("since", found.paths[0]), ("", f"{count(len(found.equal), 'tensor')} equal")]
    table = _table(("name", "what", "how"), rows, total=len(rows))
    return _show(_facts(found.paths[1], said), table)


def _signatures(model: SavedModel) -> Iterator[tuple[str, ...]]:
    for graph in model.meta_graphs:
        for name, signature in graph.signatures.items():
            for way, infos in (("input", signature.inputs), ("output", signature.outputs)):
                for key, info in infos.items():
                    shape = "[?...]" if info.shape is None else _open_shape(info.shape)
                    yield name, way, key, element_name(info.data_type), shape


def _open_shape(shape: Sequence[int | None]) -> str:
    return "[" + ",".join("?" if size is None else str(size) for size in shape) + "]"


def _layer_row(layer: Layer) -> tuple[str, ...]:
    try:
        weights = layer.weights
    except CheckpointError as error:
        return layer.name, layer.class_name or "", error.message
    kinds = (f"{element_name(item.data_type)} {shape_text(item.shape)}" for item in weights[:8])
    return layer.name, layer.class_name or "", ", ".join(kinds) + (" …" if len(weights) > 8 else "")


def _tensor_row(name: str, tensor: Tensor) -> tuple[str, ...]:
    kind = element_name(tensor.data_type)
    return name, kind, shape_text(tensor.shape), size_text(tensor.nbytes)


# Pieces of HTML


def _show(*parts: str) -> str:
    return f"<div>{''.join(parts)}</div>"


def _text(value: str) -> str:
    """Return a text as HTML, with what would hide or turn it around escaped."""
    short = value if len(value) <= _LONGEST_CELL else value[: _LONGEST_CELL - 1] + "…"
    return html.escape(clean(short))


def _facts(title: str, pairs: Iterable[tuple[str, str]]) -> str:
    said = "; ".join(_text(f"{name} {value}".strip()) for name, value in pairs if value)
    return f"<p><b>{_text(title)}</b>{'<br>' if said else ''}{said}</p>"


def _attempt(make: Callable[[], str]) -> str:
    """Make a part; of one that cannot be had, say why."""
    try:
        return make()
    except CheckpointError as error:
        return f"<p>{_text(error.message)}</p>"


def _table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    total: int | None = None,
    most: int = _MOST_ROWS,
) -> str:
    """Make a table of the first rows, which are taken no further than they are shown."""
    body = "".join(map(_row, itertools.islice(rows, most)))
    if not body:
        return ""
    heads = "".join(f"<th{_LEFT}>{_text(column)}</th>" for column in columns)
    left = 0 if total is None else max(0, total - most)
    more = f"<p>… and {left:,} more</p>" if left else ""
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>{more}"


def _row(cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<td{_LEFT}>{_text(cell)}</td>" for cell in cells) + "</tr>"
