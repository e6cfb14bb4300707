"""Words for what the command line alone says: paths that were opened, values as JSON has them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import ckptparse
from ckptparse.text import count, escape

__all__ = ["describe_opened", "prefix_of", "to_json"]


def prefix_of(name: str) -> str:
    """Take the endings of a checkpoint's files off a name; other names stay as they are."""
    return re.sub(r"\.index$|\.data-\d{5,}-of-\d{5,}$", "", name)


def describe_opened(checkpoint: ckptparse.Checkpoint) -> str:
    """Say what a path turned out to mean."""
    shards = count(checkpoint.num_shards, "shard")
    return f"opened {escape(checkpoint.path)}: {checkpoint.format}, {shards}"


def to_json(value: Any) -> Any:
    """Return a value of whatever makes as JSON has it: bytes as text, the unknown by its text."""
    if isinstance(value, Mapping):
        return {str(key): to_json(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(part) for part in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
