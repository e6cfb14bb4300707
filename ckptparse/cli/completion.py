"""What a shell offers for a word that is being typed: paths of checkpoints, names of tensors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import ckptparse
from ckptparse.cli.text import prefix_of
from ckptparse.text import escape

__all__ = ["RULE_FILES", "complete_name", "complete_path", "complete_rules"]

RULE_FILES = ("albert", "bert", "electra", "t5")
"""The rule files that come along."""
_MOST = 500
"""Words that are offered: a shell shows no more at once, and waits for all."""


def complete_path(_known: Mapping[str, Any], incomplete: str) -> list[str]:
    """Offer what lies there: directories, files, and the prefixes of checkpoints for theirs."""
    directory, name = os.path.split(incomplete)
    try:
        with os.scandir(directory or os.curdir) as entries:
            found = [_offer(entry) for entry in entries if entry.name.startswith(name)]
    except OSError:
        return []
    hidden = name.startswith(".")
    offered = dict.fromkeys(entry for entry in sorted(found) if hidden or entry[0] != ".")
    return [os.path.join(directory, entry) for entry in offered]


def _offer(entry: os.DirEntry[str]) -> str:
    return f"{entry.name}/" if entry.is_dir() else prefix_of(entry.name)


def complete_rules(known: Mapping[str, Any], incomplete: str) -> list[str]:
    """Offer the rule files that come along, and those that lie there."""
    shipped = [name for name in RULE_FILES if name.startswith(incomplete)]
    return [*shipped, *complete_path(known, incomplete)]


def complete_name(known: Mapping[str, Any], incomplete: str) -> list[str]:
    """Offer the names of the tensors of the checkpoint that stands before."""
    try:
        with ckptparse.open(known["path"]) as checkpoint:
            names = [name for name in map(escape, checkpoint) if name.startswith(incomplete)]
    except (ckptparse.CheckpointError, KeyError, TypeError):
        return []
    return names[:_MOST]
