"""What lookups give in a block that breaks the rules: what the strict reader finds."""

from __future__ import annotations

import random
from collections.abc import Callable

import builder as b
import pytest

from ckptparse.errors import CheckpointError
from ckptparse.examination.lookups import Lookups
from ckptparse.limits import DEFAULT_LIMITS
from ckptparse.table.block import Block


def always() -> bool:
    return True


def lookups(contents: bytes, take: Callable[[], bool] = always) -> Lookups:
    return Lookups(contents, DEFAULT_LIMITS, take)


def strictly(contents: bytes, key: bytes) -> bytes | None:
    try:
        return Block.from_bytes(contents).find(key, limits=DEFAULT_LIMITS)
    except CheckpointError:
        return None


@pytest.mark.parametrize("seed", range(60))
def test_what_a_lookup_gives_is_what_the_strict_reader_finds(seed: int) -> None:
    rng = random.Random(seed)
    pairs = [(b"%02d" % number, b"v%d" % number) for number in range(rng.randint(1, 40))]
    contents = bytearray(b.block(pairs, restart_interval=rng.choice([1, 4, 16])))
    for _ in range(rng.randint(0, 3)):
        contents[rng.randrange(len(contents))] = rng.randrange(256)
    asked = lookups(bytes(contents))
    for key, value in pairs:
        found = strictly(bytes(contents), key)
        assert asked.give(key, value) == (found == value)
        assert not asked.give(key, b"another")
        if found is not None:
            assert asked.give(key, found)


def test_the_header_is_the_first_entry_whatever_comes_after_it() -> None:
    broken = b.close_block(b.entry(b"", b"header") + b"\x05\x05\x05")
    assert lookups(broken).give(b"", b"header")
    assert not lookups(broken).give(b"", b"other")
    assert not lookups(b"\x07").give(b"", b"header")
    other = b.close_block(b.entry(b"a", b"header") + b"\x05\x05\x05")
    assert not lookups(other).give(b"", b"header")


def test_a_run_is_decoded_once_for_all_its_keys_and_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pairs = [(b"%04d" % number, b"v") for number in range(1000)]
    contents = b.block(pairs, restart_interval=1000)
    runs: list[int] = []
    iterate = Block.iter_run
    monkeypatch.setattr(
        Block,
        "iter_run",
        lambda one, restart, *, limits: (
            runs.append(restart),
            iterate(one, restart, limits=limits),
        )[1],
    )
    taken: list[None] = []
    asked = lookups(contents, lambda: taken.append(None) is None)
    assert all(asked.give(key, value) for key, value in pairs)
    assert runs == [0] and len(taken) == 1000 // 64
    taken.clear()
    refused = lookups(contents, lambda: bool(taken.append(None)) or len(taken) < 3)
    assert not any(refused.give(key, value) for key, value in pairs)
    assert len(taken) == 3, "what lies beyond is not decoded"
