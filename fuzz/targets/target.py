"""What a harness is."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fuzz.oracle import attempt

__all__ = ["Target", "look"]


@dataclass(frozen=True, slots=True)
class Target:
    """One harness.

    Attributes:
        name: What it is called by.
        run: Runs one input; raises what is wrong.
        seeds: Gives the inputs to begin with.
        mutate: Changes an input.
        warms: Whether some inputs may run before the process is forked.
    """

    name: str
    run: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]
    mutate: Callable[[bytes, random.Random], bytes]
    warms: bool = True


def look(thing: object, *names: str) -> None:
    """Ask a thing for its properties, one after the other."""
    for name in names:
        attempt(getattr, thing, name)
