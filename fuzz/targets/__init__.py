"""The harnesses: one module each, or several of one kind in a module."""

from __future__ import annotations

from fuzz.targets import (
    archives,
    asking,
    checkpoints,
    commands,
    damage,
    examining,
    folders,
    graphs,
    jobs,
    models,
    places,
    rebuilding,
    remote,
    situations,
    sources,
    tables,
    wishes,
    words,
    writing,
)
from fuzz.targets.target import Target

__all__ = ["TARGETS", "Target"]

_MODULES = (
    tables,
    checkpoints,
    graphs,
    models,
    rebuilding,
    words,
    archives,
    examining,
    damage,
    situations,
    folders,
    writing,
    sources,
    wishes,
    remote,
    jobs,
    asking,
    places,
    commands,
)

TARGETS: dict[str, Target] = {
    target.name: target for module in _MODULES for target in module.TARGETS
}
"""Every harness by its name."""
