"""The constants of a graph as a checkpoint: a frozen model keeps its weights in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy.typing as npt

from ckptparse.bundle.naming import encode_name
from ckptparse.bundle.slices import TensorSlice
from ckptparse.graph.graph import Graph
from ckptparse.tensor import ReadOptions, Tensor

__all__ = ["GraphBackend"]


class GraphBackend:
    """What a graph gives as a checkpoint."""

    def __init__(self, graph: Graph, path: str) -> None:
        self._constants = graph.constants
        self._path = path

    @property
    def format(self) -> Literal["graph"]:
        """Always `"graph"`."""
        return "graph"

    @property
    def num_shards(self) -> int:
        """Always one: the file of the graph."""
        return 1

    @property
    def byte_order(self) -> Literal["little"]:
        """Always little-endian."""
        return "little"

    @property
    def files(self) -> tuple[str, ...]:
        """The file of the graph."""
        return (self._path,)

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every constant's name and shape, sorted by the name's bytes."""
        return {
            name: self._constants[name].shape for name in sorted(self._constants, key=encode_name)
        }

    def find(self, name: str, options: ReadOptions) -> Tensor | None:
        """Return the lazy tensor of a constant, or None where there is none."""
        if name not in self._constants:
            return None
        return self._constants[name].with_options(options)

    def find_all(self, options: ReadOptions) -> dict[str, Tensor]:
        """Return every constant, sorted by the name's bytes."""
        return {name: self._constants[name].with_options(options) for name in self.shapes()}

    def read_many(
        self,
        names: Sequence[str],
        options: ReadOptions,  # noqa: ARG002 - there are no checksums
    ) -> list[npt.NDArray[Any]]:
        """Read whole constants, in the order of the names, all of which exist."""
        return [self._constants[name].read() for name in names]

    def orphan_slices(
        self,
        options: ReadOptions,  # noqa: ARG002 - there are no checksums
    ) -> list[tuple[str, TensorSlice, Tensor]]:
        """Return nothing: constants have no slices."""
        return []

    def close(self) -> None:
        """Do nothing: the graph is in memory."""
