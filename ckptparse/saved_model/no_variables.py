"""The variables of a SavedModel that has none, and no file for them either."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy.typing as npt

from ckptparse.bundle.slices import TensorSlice
from ckptparse.tensor import ReadOptions, Tensor

__all__ = ["NoVariables"]


class NoVariables:
    """A checkpoint without tensors."""

    @property
    def format(self) -> Literal["v2"]:
        """The format that variables of a SavedModel have."""
        return "v2"

    @property
    def num_shards(self) -> int:
        """No data file."""
        return 0

    @property
    def byte_order(self) -> Literal["little"]:
        """Always little-endian."""
        return "little"

    @property
    def files(self) -> tuple[str, ...]:
        """No file."""
        return ()

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Return no names."""
        return {}

    def find(self, name: str, options: ReadOptions) -> Tensor | None:  # noqa: ARG002 - a Backend's face
        """Return None, whatever the name."""
        return None

    def find_all(self, options: ReadOptions) -> dict[str, Tensor]:  # noqa: ARG002 - a Backend's face
        """Return no tensors."""
        return {}

    def read_many(
        self,
        names: Sequence[str],  # noqa: ARG002 - a Backend's face
        options: ReadOptions,  # noqa: ARG002 - a Backend's face
    ) -> list[npt.NDArray[Any]]:
        """Return no arrays: there are no names to ask for."""
        return []

    def orphan_slices(
        self,
        options: ReadOptions,  # noqa: ARG002 - a Backend's face
    ) -> list[tuple[str, TensorSlice, Tensor]]:
        """Return no slices."""
        return []

    def close(self) -> None:
        """Do nothing: nothing is open."""
