"""The harnesses: one module each, or several of one kind in a module."""

from __future__ import annotations

from fuzz.targets import archives, checkpoints, examining, graphs, models, tables, words, writing
from fuzz.targets.target import Target

__all__ = ["TARGETS", "Target"]

TARGETS: dict[str, Target] = {
    target.name: target
    for module in (tables, checkpoints, graphs, models, words, archives, examining, writing)
    for target in module.TARGETS
}
"""Every harness by its name."""
