"""The variables of a SavedModel: as its objects ask for them, and how they are opened again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ckptparse.backend import Backend, Format
from ckptparse.backend.held import HeldTensors
from ckptparse.errors import CheckpointError, LimitError
from ckptparse.files.context import Context
from ckptparse.files.fingerprint import Fingerprint
from ckptparse.graph.object_graph import ObjectGraph
from ckptparse.inventory.inventory import Candidate
from ckptparse.opening import GraphBeside, open_candidate
from ckptparse.tensor import Tensor

if TYPE_CHECKING:
    from ckptparse.graph.graph import Graph
    from ckptparse.model import SavedModel

__all__ = ["Fingerprints", "Variables", "VariablesOpener", "open_none"]


class Variables:
    """The variables of a SavedModel as an object graph asks for them, opened when first asked."""

    def __init__(self, model: SavedModel) -> None:
        self._model = model

    def find(self, name: str) -> Tensor | None:
        """Return the tensor of a stored name, or None; errors are those of opening."""
        variables = self._model.variables
        # Not `get`: an error that is thrown away would look for the closest names.
        if name not in variables:
            return None
        return variables[name]

    def names(self) -> Iterable[str]:
        """Iterate over every stored name; none if the variables cannot be opened."""
        try:
            return list(self._model.variables)
        except CheckpointError:
            return ()

    def find_graph(self) -> ObjectGraph | None:
        """Return the object graph of the variables; None if it cannot be read.

        Raises:
            LimitError: It has more objects than `Limits.objects` allows.
        """
        try:
            return self._model.variables.object_graph
        except LimitError:
            raise
        except CheckpointError:
            return None


class Fingerprints(NamedTuple):
    """Of the files of a model that was pickled or copied; None for one that was not there."""

    message: Fingerprint | None
    """Of `saved_model.pb`, or what stands for it."""
    variables: Fingerprint | None
    """Of the index of the variables."""


@dataclass(frozen=True, slots=True)
class VariablesOpener:
    """How the variables of a SavedModel are opened, in another process too."""

    candidate: Candidate
    directory: str
    context: Context
    verify: bool
    model: SavedModel | None = field(default=None, compare=False, repr=False)
    """The open model, whose graphs are parsed already; None in another process."""

    @property
    def path(self) -> str:
        """The prefix of the variables."""
        return self.candidate.path

    @property
    def format(self) -> Format:
        """Their format."""
        return self.candidate.format

    def open(self) -> Backend:
        """Open them; raises as `open_inventory` does."""
        if self.candidate.saved_model is None:
            return open_none(self.context)
        return open_candidate(self.candidate, self.context)

    def lasting(self) -> VariablesOpener:
        """Return the same, by paths that mean the same from every directory."""
        absolute = self.context.absolute
        candidate, directory = self.candidate.at(absolute), absolute(self.directory)
        return VariablesOpener(candidate, directory, self.context.again(), self.verify)

    def find_using_graph(self) -> Graph | None:
        """Read the graph that serves; see `GraphBeside`."""
        return GraphBeside(self.path, self.context).find_using_graph(self.format)

    def find_training_graph(self) -> Graph | None:
        """Return the graph; of several that with the most nodes: training knows more."""
        from ckptparse.model import SavedModel

        model = self.model or SavedModel(self.directory, self.context, verify=self.verify)
        graphs = [meta_graph.graph for meta_graph in model.meta_graphs]
        return max(graphs, key=lambda graph: len(graph.nodes), default=None)


def open_none(context: Context) -> Backend:
    """Return the files of a model without variables: none."""
    return HeldTensors("v2", (), {}, limits=context.limits)
