"""`verify`, `recover` with evidence, `scan` and `annotate`: damage is a value, no exception."""

from __future__ import annotations

import bz2
import lzma
import random
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import ckptparse
from fuzz import mutators, seeds
from fuzz.oracle import LIMITS, BrokenPromiseError, agree, attempt, check_printable, examine
from fuzz.packing import pack, unpack
from fuzz.targets.checkpoints import bundle_store
from fuzz.targets.target import Target

__all__ = ["TARGETS"]


def run_verify(data: bytes) -> None:
    """A report is safe to print, and can be kept, whatever the checkpoint holds."""  # noqa: D401
    store = {"d/m": data} if zlib.crc32(data) % 4 == 0 else bundle_store(data)
    report = attempt(ckptparse.verify, "d/m", store=store, limits=LIMITS)
    if isinstance(report, ckptparse.Report):
        check_printable(str(report))
        report.to_dict()


def verify_seeds() -> Iterator[bytes]:
    """Give bundles, among them a large one, one of many shapes, and one of shared bytes."""
    yield from seeds.bundles()
    yield seeds.large_bundle()
    yield seeds.shaped_bundle()
    yield seeds.sharing_bundle()


def run_recover(data: bytes) -> None:
    """Recover never gives another value than read; every value can be read or says why not."""
    store = bundle_store(data)
    read = attempt(ckptparse.read, "d/m", store=store, limits=LIMITS)
    report = attempt(examine, "d/m", store)
    recovery = attempt(ckptparse.recover, "d/m", store=store, limits=LIMITS)
    if isinstance(recovery, ckptparse.Recovery):
        for tensor in recovery.values():
            attempt(tensor.read)
            attempt(tensor.read, fill=0)
        check_printable(str(recovery.report))
    agree(read, report, recovery)


_MANY = replace(LIMITS, attempts=48)
"""So many that in a large file they are sought together."""


def run_evidence(data: bytes) -> None:
    """Recover a damaged checkpoint, with a file of any kind as evidence."""
    index, shard, evidence = unpack(data, 3)
    store = {"d/m.index": index, "d/m.data-00000-of-00001": shard, "e/file": evidence}
    found = attempt(ckptparse.recover, "d/m", store=store, evidence=["e/file"], limits=_MANY)
    if isinstance(found, ckptparse.Recovery):
        for tensor in found.values():
            attempt(tensor.read)


def evidence_seeds() -> Iterator[bytes]:
    """Give bundles cut off, each with itself, with another file, and a V1 file; one is lost."""
    yield seeds.lost_in_large_file()
    others = [*seeds.files("*.meta", "saved_model.pb"), *seeds.v1_files()]
    for number, packed in enumerate(seeds.bundles()):
        index, shard, _ = unpack(packed, 3)
        cut = shard[: len(shard) // 2]
        yield pack([index, cut, shard])
        yield pack([index, cut, (bz2, lzma)[number % 2].compress(shard)])
        yield pack([index[:-20], cut, others[number % len(others)]])


def mutate_evidence(data: bytes, rng: random.Random) -> bytes:
    """Change one of the three files."""
    index, shard, evidence = unpack(data, 3)
    kind = rng.randrange(3)
    if kind == 0:
        index, shard = unpack(mutators.bundle(pack([index, shard, b""]), rng), 2)
    elif kind == 1:
        evidence = rng.choice([mutators.table, mutators.message])(evidence, rng)
    else:
        shard, evidence = mutators.blind(shard, rng), mutators.blind(evidence, rng)
    return pack([index, shard, evidence])


def run_scan(data: bytes) -> None:
    """Find checkpoints in an image, and recover them."""
    store = {"disk.img": bytes(4096) + data + bytes(4096)}
    found = attempt(ckptparse.scan, "disk.img", store=store, limits=LIMITS)
    if isinstance(found, ckptparse.Scan):
        for one in list(found)[:2]:
            attempt(one.recover)
        check_printable(str(found))
        if not zlib.crc32(data) % 4:
            scan_again(store, str(found))


def scan_again(store: dict[str, bytes], said: str) -> None:
    """Scan with a state file: a scan that goes on finds the same; a changed file is refused."""
    again = partial(ckptparse.scan, "disk.img", store=store, limits=LIMITS)
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder, "state.json")
        for _ in range(2):
            found = attempt(again, state=state)
            if str(found) != said:
                raise BrokenPromiseError(f"a scan with a state file: {found}, and without: {said}")
        rng = random.Random(said)
        for _ in range(3):
            state.write_bytes(mutators.text(state.read_bytes(), rng))
            attempt(again, state=state)


def scan_seeds() -> Iterator[bytes]:
    """Give the files of bundles, at places where a file system would have them, and V1 files."""
    yield from seeds.v1_files()
    for packed in seeds.bundles():
        index, shard, _ = unpack(packed, 3)
        yield shard.ljust(-(-len(shard) // 4096) * 4096, b"\0") + index
    yield from map(seeds.scattered_image, range(_IMAGES))


_IMAGES = 12
"""Scattered ones: gaps of noise or zeros, the index before or behind, the file's end first."""


def mutate_scan(data: bytes, rng: random.Random) -> bytes:
    """Change a table that stands in a block of its own, or move blocks."""
    blocks = [data[n : n + 4096] for n in range(0, len(data), 4096)] or [b""]
    kind = rng.randrange(4)
    place = rng.randrange(len(blocks))
    if kind == 0:
        blocks[-1] = mutators.table(blocks[-1], rng)
    elif kind == 1:
        blocks.insert(place, rng.choice(blocks))
    elif kind == 2:
        blocks[place] = mutators.blind(blocks[place], rng)
    else:
        return mutators.table(data, rng)
    return b"".join(blocks)


ANNOTATED: tuple[str, ...] = (
    "m.index",
    "m.data-00000-of-00001",
    "m",
    "g.pb",
    "m.meta",
    "saved_model.pb",
)
ANNOTATED += ("fingerprint.pb", "keras_metadata.pb")


def run_annotate(data: bytes) -> None:
    """Every byte of a file is told once at the first level, in order; `verify` says the same."""
    name = ANNOTATED[data[0] % len(ANNOTATED)] if data else "m"
    index, shard, *_ = unpack(data[1:], 2)
    store = {name: data[1:]}
    if ".data" in name:
        store = {name: shard, "m.index": index}
    parts = attempt(lambda: list(ckptparse.annotate(name, store=store, limits=LIMITS)))
    if isinstance(parts, ckptparse.CheckpointError):
        return
    check_cover(parts, len(store[name]))
    if name in ("m", "m.index"):
        check_verdicts(parts, attempt(examine, name, store))


def check_cover(parts: list[ckptparse.Annotation], size: int) -> None:
    """Hold the parts of a file to what they promise."""
    position = 0
    for part in parts:
        check_printable(str(part))
        if part.depth or part.unpacked or not part.size:
            continue
        if part.offset != position:
            raise BrokenPromiseError(f"annotate goes from {position} to {part}")
        position += part.size
    if position != size:
        raise BrokenPromiseError(f"annotate ends at {position} of {size}")


def check_verdicts(
    parts: list[ckptparse.Annotation], report: ckptparse.Report | ckptparse.CheckpointError
) -> None:
    """Hold what `annotate` calls broken in a table to what `verify` says of the same blocks."""
    if isinstance(report, ckptparse.CheckpointError):
        return
    codes = Counter(
        one.code.partition(".")[2]
        for one in report.problems
        if one.code.startswith(("index.", "v1."))
    )
    broken = [part for part in parts if part.broken]
    if broken and report.ok and not codes:
        raise BrokenPromiseError(f"annotate says {broken[0]}, and verify that all is well")
    if not broken and codes.keys() & _OF_BLOCKS:
        raise BrokenPromiseError(f"verify says {report.problems}, and annotate that all is well")
    damaged = Counter(map(_code_of, _damaged_blocks(parts)))
    # Without them `verify` looks for blocks itself, wherever they lie. If carriage returns were
    # lost, it puts them back: what follows them lies elsewhere then.
    if codes["footer"] or codes["text"]:
        return
    # Nor if its keys do not rise: neighbours may then be told as one block.
    if damaged["index_block"] or codes["index_block"]:
        del damaged["block"]
    for code, count in damaged.items():
        if codes[code] < count:
            raise BrokenPromiseError(f"annotate: {count} {code}, and verify {report.problems}")


_OF_BLOCKS = {"footer", "index_block", "block", "metaindex", "order"}
"""What `verify` says of blocks and their keys, whatever their entries mean."""


def _damaged_blocks(parts: list[ckptparse.Annotation]) -> Iterator[str]:
    """Name the blocks whose checksum does not match."""
    block = ""
    for part in parts:
        if not part.depth:
            block = part.what
        elif part.depth == 1 and part.what == "checksum" and part.broken:
            yield block


def _code_of(block: str) -> str:
    return {"metaindex block": "metaindex", "index block": "index_block"}.get(block, "block")


def annotate_seeds() -> Iterator[bytes]:
    """Give a file of each kind, behind the number of its name."""
    patterns = ("*.index", "", "", "*.pb", "*.meta", "saved_model.pb", "fingerprint.pb")
    for number, pattern in enumerate((*patterns, "keras_metadata.pb")):
        if pattern:
            yield from (bytes([number]) + data for data in seeds.files(pattern))
    yield from (b"\1" + packed for packed in seeds.bundles())
    yield from (b"\2" + data for data in seeds.v1_files())


def mutate_annotate(data: bytes, rng: random.Random) -> bytes:
    """Change a file by the ways of its kind."""
    kind = data[0] % len(ANNOTATED) if data else 0
    ways = {0: mutators.table, 1: mutators.bundle, 2: mutators.table}
    return bytes([kind]) + ways.get(kind, mutators.message)(data[1:], rng)


TARGETS = [
    Target("verify", run_verify, verify_seeds, mutators.bundle),
    Target("recover", run_recover, seeds.small_bundles, mutators.bundle),
    Target("evidence", run_evidence, evidence_seeds, mutate_evidence),
    Target("scan", run_scan, scan_seeds, mutate_scan),
    Target("annotate", run_annotate, annotate_seeds, mutate_annotate),
]
