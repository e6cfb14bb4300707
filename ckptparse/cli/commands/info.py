"""`ckptparse info`: what a checkpoint, a SavedModel or a graph is, in a page."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import ckptparse
from ckptparse.cli.about.checkpoint import checkpoint_rows, describe_checkpoint
from ckptparse.cli.about.common import Row
from ckptparse.cli.about.graph import describe_graph, graph_rows
from ckptparse.cli.about.saved_model import describe_saved_model, saved_model_rows
from ckptparse.cli.output import Output
from ckptparse.cli.parameters import PathArgument
from ckptparse.cli.progress import working
from ckptparse.cli.running import DAMAGE, GOOD, NOT_RUN, Run
from ckptparse.text import escape

__all__ = ["info"]

_SAVED_MODELS = frozenset(
    {"savedmodel", "hub-module", "saved-model-pb", "saved-model-pbtxt", "saved-model-cpb"}
)
_GRAPHS = frozenset({"graph", "meta-graph"})
_MOST_OF_A_SORT = 25
"""Lines of one sort, such as layers: the answer stays about a page. `-v` shows all."""
_ROWS: dict[str, Callable[[dict[str, Any]], Iterator[Row]]] = {
    "checkpoint": checkpoint_rows,
    "graph": graph_rows,
    "saved_model": saved_model_rows,
}


def info(run: Run, path: PathArgument) -> Info:
    """Tell what it is: format, writer, step, signatures, layers.

    ckptparse info model.ckpt-1000
    ckptparse info saved_model
    ckptparse info model.ckpt-1000.meta
    """
    with working(f"reading {escape(path)}", quiet=run.quiet):
        return _describe(run, path)


def _describe(run: Run, path: str) -> Info:
    kind = _identify(run, path)
    if kind in _SAVED_MODELS:
        with ckptparse.open_saved_model(path, cache=run.cache) as model:
            return _answer(run, "saved_model", describe_saved_model(run, model))
    if kind in _GRAPHS:
        return _answer(
            run, "graph", describe_graph(run, ckptparse.open_graph(path, cache=run.cache))
        )
    with ckptparse.open(path, cache=run.cache) as checkpoint:
        return _answer(run, "checkpoint", describe_checkpoint(run, checkpoint))


def _identify(run: Run, path: str) -> str:
    """Say what lies at a path; if nothing does, `open` says it better."""
    try:
        return ckptparse.identify(path, cache=run.cache).kind
    except ckptparse.CheckpointNotFoundError:
        return ""


def _answer(run: Run, kind: str, about: dict[str, Any]) -> Info:
    damaged = any(isinstance(error, ckptparse.DataLossError) for error in run.errors)
    code = DAMAGE if damaged else NOT_RUN if run.errors else GOOD
    return Info(kind, about, run.verbose, code)


@dataclass(frozen=True, slots=True)
class Info:
    """What something is: `about` is that part of JSON's answer."""

    kind: str
    about: dict[str, Any]
    everything: bool
    code: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"kind": self.kind, self.kind: self.about}

    def write(self, out: Output) -> None:
        """Write a line for each thing that is known."""
        rows = _ROWS[self.kind](self.about)
        out.fields(_shorten(rows) if out.terminal and not self.everything else rows)


def _shorten(rows: Iterable[Row]) -> Iterator[Row]:
    """Leave out what would fill more than a page: the later ones of many of a sort."""
    for name, group in itertools.groupby(rows, key=lambda row: row[0]):
        listed = list(group)
        yield from listed[:_MOST_OF_A_SORT]
        more = len(listed) - _MOST_OF_A_SORT
        if more > 0:
            yield name, f"… and {more:,} more: -v shows all of them"
