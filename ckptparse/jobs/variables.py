"""What a variable is called, and what lies beside it: its layer's other variables.

Three ways of naming come to one, a layer and what the variable is in it:

    dense/kernel                                     by name, whoever wrote it
    _operations/3/_kernel, whose own name is         by a key of an object graph, which knows the
      dense/kernel                                   variable's own name too
    layers/dense/vars/0                              by a number (Keras 3's .keras and .weights.h5),
                                                     which the layer's class gives a meaning
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Named", "Variables"]

_ATTRIBUTES = "/.ATTRIBUTES/"
_NUMBERED = re.compile(r"(?P<above>.+)/vars/(?P<number>[0-9])")
_OF_CLASS = tuple(
    (re.compile(classes), leaves)
    for classes, leaves in (
        (r"(?:lstm_|gru_|simple_rnn_)?cell", ("kernel", "recurrent_kernel", "bias")),
        (r"separable_conv[12]d", ("depthwise_kernel", "pointwise_kernel", "bias")),
        (r"depthwise_conv[12]d", ("depthwise_kernel", "bias")),
        (
            r"(?:query|key|value|output|einsum)_dense|dense|conv[1-3]d(?:_transpose)?",
            ("kernel", "bias"),
        ),
        (r"embedding", ("embeddings",)),
    )
)
"""Keras's classes, and what their variables are, in the order of their numbers."""
_COUNTED = re.compile(r"_[0-9]+$")


@dataclass(frozen=True, slots=True)
class Named:
    """One way of calling a variable.

    Attributes:
        above: The layer that it belongs to, with all that this lies in.
        leaf: What it is in the layer: `kernel`.
        numbered: What the layer's variables are, if numbers stand for them; else empty.
        suffix: What ends the name of each variable, such as `:0`.
        shapes: Those of all that is called so; None: several are called the same.
    """

    above: str
    leaf: str
    numbered: tuple[str, ...]
    suffix: str
    shapes: Mapping[str, tuple[int, ...] | None]

    @property
    def layer(self) -> str:
        """The layer's own name, in lower case, without what counts layers of one class."""
        return _COUNTED.sub("", self.above.rpartition("/")[2].lower())

    def beside(self, *leaves: str) -> tuple[int, ...] | None:
        """Return the shape of what the layer has under the first of these that it has."""
        for leaf in leaves:
            if not self.numbered:
                key = f"{self.above}/{leaf}" if self.above else leaf
            elif leaf in self.numbered:
                key = f"{self.above}/vars/{self.numbered.index(leaf)}"
            else:
                continue
            found = self.shapes.get(key + self.suffix)
            if found is not None:
                return found
        return None


class Variables:
    """The names of all that a source has, by which each is known."""

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        own: Mapping[str, str],
        stored: Mapping[str, str],
    ) -> None:
        """Take the names.

        Args:
            shapes: The shape of each tensor by what it is called.
            own: The names of variables themselves, by their keys in an object graph.
            stored: The key of each tensor by what it is called.
        """
        self._shapes = shapes
        self._own = own
        self._own_shapes: dict[str, tuple[int, ...] | None] = {}
        for name, shape in shapes.items():
            known = own.get(stored[name])
            if known and self._own_shapes.setdefault(known, shape) != shape:
                self._own_shapes[known] = None

    def of(self, name: str, stored: str) -> tuple[Named, ...]:
        """Return each way of calling a tensor, its variable's own name first.

        Args:
            name: What it is called.
            stored: Its key in the checkpoint.
        """
        own = self._own.get(stored, "")
        called = () if own in ("", name) else (_parse(own, self._own_shapes),)
        return (*called, _parse(name, self._shapes))


def _parse(name: str, shapes: Mapping[str, tuple[int, ...] | None]) -> Named:
    plain = name.partition(_ATTRIBUTES)[0].removesuffix(":0")
    suffix = name[len(plain) :]
    found = _NUMBERED.fullmatch(plain)
    if found is not None:
        named = Named(found["above"], found["number"], ("",), suffix, shapes)
        number = int(found["number"])
        for classes, leaves in _OF_CLASS:
            if classes.fullmatch(named.layer) and number < len(leaves):
                return Named(named.above, leaves[number], leaves, suffix, shapes)
        return named
    above, _, leaf = plain.rpartition("/")
    return Named(above, leaf, (), suffix, shapes)
