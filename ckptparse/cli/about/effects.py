"""What `info` tells of what a model would do beyond computing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import ckptparse
from ckptparse.cli.about.common import Row
from ckptparse.text import clean, count, escape

__all__ = ["describe_effects", "effect_rows"]


def describe_effects(effects: Iterable[ckptparse.Effect]) -> dict[str, Any]:
    """Describe effects as JSON has them: what every model has is only counted."""
    listed = list(effects)
    return {
        "ordinary": sum(effect.ordinary for effect in listed),
        "others": [effect.to_dict() for effect in listed if not effect.ordinary],
    }


def effect_rows(effects: dict[str, Any] | None) -> Iterator[Row]:
    """Iterate over a line for what is ordinary, and one for each other thing."""
    if effects is None:
        return
    others, ordinary = effects["others"], effects["ordinary"]
    if others:
        things = count(len(others), "thing")
        yield "if run", f"{things} that no ordinary model needs; ckptparse ran none of them"
    elif ordinary:
        yield "if run", "reads and writes its own variables and assets, nothing else"
    else:
        yield "if run", "computes, nothing else"
    alike: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for effect in others:
        key = (effect["kind"], effect["op"], effect["path"], effect["reason"], effect["called"])
        alike.setdefault(key, []).append(effect)
    for group in alike.values():
        yield "  beware", _tell(group)


def _tell(group: list[dict[str, Any]]) -> str:
    first = group[0]
    where = escape(first["node"])
    if first["function"] is not None:
        where += f" in function {escape(first['function'])}"
    where += "".join(f", inside of {escape(node)}" for node in reversed(first["within"]))
    if len(group) > 1:
        where += f" and {len(group) - 1:,} more"
    path = "" if first["path"] is None else f": '{escape(first['path'])}'"
    uncalled = "" if first["called"] else "; nothing in the model calls it"
    return (
        f"{first['kind']}  {escape(first['op'])}  {where}  {clean(first['reason'])}{path}{uncalled}"
    )
