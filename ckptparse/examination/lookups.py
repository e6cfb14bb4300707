"""What lookups in a block give whose checksum agrees and which breaks the format's rules.

The strict reader looks at one run of the block for a key, and gives what it finds there, whatever
is wrong elsewhere in the block. A listing refuses all of it.
"""

from __future__ import annotations

from contextlib import suppress

from ckptparse.errors import CheckpointError, MalformedError
from ckptparse.limits import Limits
from ckptparse.table.block import Block

__all__ = ["Lookups"]


class Lookups:
    """A block, of which each run is decoded once."""

    def __init__(self, contents: bytes, limits: Limits) -> None:
        self._limits = limits
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
            try:
                found = block.iter_run(restart, limits=self._limits)
                values = {key: block.contents[start:end] for key, start, end in found}
            except MalformedError:
                values = {}
            self._runs[restart] = values
        return self._runs[restart]
