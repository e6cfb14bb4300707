"""Tables: one key, and all keys."""

from __future__ import annotations

from collections.abc import Iterator

from ckptparse.files.memory import MemorySource
from ckptparse.table.reader import Table
from fuzz import mutators, seeds
from fuzz.oracle import LIMITS, BrokenPromiseError, attempt
from fuzz.targets.target import Target

__all__ = ["TARGETS"]


def run_table(data: bytes) -> None:
    """Hold a listing to what a search gives, and to what the lenient reader finds."""
    source = MemorySource("table", data)

    def read() -> list[tuple[bytes, bytes]]:
        table = Table.open(source, limits=LIMITS)
        items = list(table.items())
        for key, value in items[:20]:
            if table.get(key) != value:
                raise BrokenPromiseError(f"a listing gives {key!r} another value than a search")
        return items

    attempt(read)


def table_seeds() -> Iterator[bytes]:
    """Give tables of both formats."""
    yield from seeds.files("*.index")
    yield from seeds.v1_files()


TARGETS = [Target("table", run_table, table_seeds, mutators.table)]
