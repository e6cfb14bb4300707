"""What lookups in a block give whose checksum agrees and which breaks the format's rules.

The strict reader looks at one run of the block for a key, and gives what it finds there, whatever
is wrong elsewhere in the block. A listing refuses all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from ckptparse.errors import CheckpointError, MalformedError
from ckptparse.limits import Limits
from ckptparse.table.block import Block

__all__ = ["Lookups"]

_AN_ENTRY = 64
"""Entries of a run that count as one that is looked at: a writer's runs have 16, and one takes a
microsecond."""


class Lookups:
    """A block, of which each run is decoded once."""

    def __init__(self, contents: bytes, limits: Limits, take: Callable[[], bool]) -> None:
        """Take the block.

        Args:
            contents: Of the block.
            limits: Bounds on what keys may take.
            take: Counts some entries more; tells whether they may be looked at.
        """
        self._limits = limits
        self._take = take
        self._runs: dict[int, dict[bytes, bytes]] = {}
        self._block: Block | None = None
        with suppress(CheckpointError):
            self._block = Block.from_bytes(contents)

    def give(self, key: bytes, value: bytes) -> bool:
        """Tell whether a lookup gives this value for the key.

        The header has the empty key, and is not looked up: it is the first entry.
        """
        if self._block is None:
            return False
        try:
            if not key:
                return self._block.first() == (key, value)
            restart = self._block.find_restart(key)
        except MalformedError:
            return False
        return restart >= 0 and self._run(self._block, restart).get(key) == value

    def _run(self, block: Block, restart: int) -> dict[bytes, bytes]:
        if restart not in self._runs:
            self._runs[restart] = values = {}
            try:
                for key, start, end in block.iter_run(restart, limits=self._limits):
                    values[key] = block.contents[start:end]
                    if not len(values) % _AN_ENTRY and not self._take():
                        values.clear()
                        break
            except MalformedError:
                values.clear()
        return self._runs[restart]
