"""`Effect`: one thing that a model would do beyond computing, if someone ran it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ckptparse.text import brief_repr

__all__ = ["Effect", "EffectKind", "PathOrigin"]


class EffectKind(str, enum.Enum):
    """What is done; compares equal to the plain string."""

    READS_FILE = "reads-file"
    WRITES_FILE = "writes-file"
    RUNS_PYTHON = "runs-python"
    NEEDS_LIBRARY = "needs-library"
    """Code of a library: an operation that TensorFlow does not bring, or native code by name."""
    RUNS_HIDDEN_CODE = "runs-hidden-code"
    """A graph or a program that the graph carries as data, which no list of nodes shows."""
    NETWORK = "network"
    HOST = "host"
    """The process or the machine itself: it is ended, shut down, or set up otherwise."""

    def __str__(self) -> str:
        return self.value


class PathOrigin(str, enum.Enum):
    """Where the name of a file or an address comes from; compares equal to the plain string."""

    SAVER = "saver"
    """The checkpoint's own name, as the Saver of the graph is given it."""
    ASSET = "asset"
    """One of the model's own assets."""
    LITERAL = "literal"
    """It stands in the graph."""
    CALLER = "caller"
    """Who calls the model gives it."""
    COMPUTED = "computed"
    """It is made while the model runs."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True, repr=False)
class Effect:
    """One thing that a model would do beyond computing, if someone loaded or called it.

    Attributes:
        kind: What is done.
        ordinary: Whether every model has such a thing: it reads or writes its own variables under
            the name that its Saver is given, or reads its own assets.
        op: The operation; of a Keras object its class, such as `Lambda`.
        node: The node; of a Keras object its path, such as `root.layer-1`.
        function: The function of the library that the node is part of; None for the graph itself.
        within: Nodes whose data hold the graph that the node is part of, outermost first.
        path: The name of the file, or the address, that stands in the graph; None if none does.
        origin: Where that name comes from; None if the operation takes none.
        reason: What is done, in a sentence.
        source: Where the operation is described: an address, or a file of TensorFlow's or Keras's.
        tags: Of the meta graph it stands in; empty for a graph by itself.
        called: False if it stands in a function that nothing in the model calls.
    """

    kind: EffectKind
    ordinary: bool
    op: str
    node: str
    function: str | None
    within: tuple[str, ...]
    path: str | None
    origin: PathOrigin | None
    reason: str
    source: str
    tags: tuple[str, ...] = ()
    called: bool = True

    def to_dict(self) -> dict[str, object]:
        """Return it as JSON has it."""
        return {
            "kind": str(self.kind),
            "ordinary": self.ordinary,
            "op": self.op,
            "node": self.node,
            "function": self.function,
            "within": list(self.within),
            "path": self.path,
            "origin": None if self.origin is None else str(self.origin),
            "reason": self.reason,
            "source": self.source,
            "tags": list(self.tags),
            "called": self.called,
        }

    def __repr__(self) -> str:
        return brief_repr(self)
