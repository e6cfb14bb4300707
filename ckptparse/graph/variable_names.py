"""The variables' own names in place of checkpoint keys.

    layer_with_weights-0/kernel/.ATTRIBUTES/VARIABLE_VALUE   ->   dense/kernel

The object graph tells a variable's name as its program knew it; a name-based checkpoint of the same
program has exactly these names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = ["name_variables"]


def name_variables(stored: Iterable[str], names: Mapping[str, str]) -> dict[str, str]:
    """Choose a name for each stored name: the variable's own if that is unique.

    Args:
        stored: The stored names, in their order.
        names: Stored name -> the variable's own name; no own name stands twice.

    Returns:
        Chosen name -> stored name, in the order of `stored`. The stored name itself is chosen where
        there is no own name, and where the own name is another tensor's stored name.
    """
    present = dict.fromkeys(stored)
    chosen: dict[str, str] = {}
    for key in present:
        name = names.get(key, key)
        chosen[key if name in present else name] = key
    return chosen
