"""Put files of two saves of one model together, damaged besides, in many ways.

`make` makes a case of a seed: the checkpoint `m` of several data files, with its own index or that
of the other save, one to three faults of its data files, and beside it, or in a directory of
evidence, files of either save. What `m` held is always the first save. `Case.is_told` says whether
its data files still hold what tells the two apart; if not, no reader can tell whose they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import builder
import numpy as np
import other_saves

Random = np.random.Generator
Arrays = dict[str, Any]
STEM = "m"
LEAST = 64
DAMAGES = ["none", "bit", "zeros", "noise", "page", "cut", "zero tail", "put in", "left out"]
PLACEMENTS = ["none", "none", "swapped", "swapped", "lost", "lost", "doubled", "renamed", "emptied"]


@dataclass
class Case:
    """Files of two saves.

    Attributes:
        this: The save that is to be got back.
        other: The other one.
        happened: What happened, in words.
        prefix: The checkpoint.
        evidence: What the caller names.
        is_told: Whether the checkpoint's own files show whose they are.
    """

    this: Arrays
    other: Arrays
    happened: list[str]
    prefix: Path
    evidence: list[Path] = field(default_factory=list)
    is_told: bool = False


def make(seed: int, directory: Path) -> Case:
    """Make the files of a case."""
    rng = np.random.default_rng([seed, 91])
    this, other = _two_saves(rng)
    shards = int(rng.choice([1, 2, 2, 3, 3]))
    made = [bundle_of(arrays, shards, seed) for arrays in (this, other)]
    case = Case(this, other, [], directory / STEM)
    anothers_index = bool(rng.random() < 0.6)
    case.happened.append("index of the other" if anothers_index else "own index")
    made[anothers_index].write(case.prefix, block_size=300)
    for path in directory.glob(f"{STEM}.data-*"):
        path.unlink()
    held = _damaged(rng, made, case, anothers_index=anothers_index)
    # With its own index, what was lost is known wherever a file that is its own is left.
    differs = _differing(made)
    left = [held[n] for n in held if not ("renamed" in case.happened and n == max(held))]
    own, others = (
        any(one in data for one in differs[number] for data in left) for number in (0, 1)
    )
    case.is_told = own and not (anothers_index and others)
    for number, data in held.items():
        name = f"{STEM}.data-{number:05d}-of-{shards:05d}"
        if "renamed" in case.happened and number == max(held):
            name = f"x.data-{number:05d}-of-{shards:05d}"
        (directory / name).write_bytes(data)
    _surround(rng, made, case, directory)
    return case


def bundle_of(arrays: Arrays, shards: int, seed: int) -> builder.Bundle:
    """Store a save over data files; some tensors are sliced over them."""
    rng = np.random.default_rng([seed, 3])
    bundle = builder.Bundle()
    bundle.shards = {n: bytearray() for n in range(shards)}
    for number, (name, value) in enumerate(sorted(arrays.items())):
        array = np.asarray(value)
        shard = int(rng.integers(shards))
        if number % 5 == 4 and array.ndim and len(array) >= 4 and array.dtype != object:
            slices = builder.split_rows(len(array), 3, array.ndim)
            bundle.add_sliced(name, array, slices, shards=[n % shards for n in range(3)])
        else:
            bundle.add(name, array, shard=shard)
    return bundle


def _two_saves(rng: Random) -> tuple[Arrays, Arrays]:
    frozen = float(rng.choice([0.0, 0.0, 0.3, 0.6]))
    this: Arrays = {}
    other: Arrays = {}
    equal = bool(rng.random() < 0.3)
    for number in range(int(rng.integers(3, 10))):
        kind = "f4" if rng.random() < 0.5 else str(rng.choice(other_saves.KINDS))
        shape = [(), (3,), (40,), (int(rng.integers(16, 2000)),), (30, 37), (24, 40)][
            rng.integers(6)
        ]
        if equal and np.prod(shape) > 3:
            kind, shape = "f4", (24, 40)
        if kind == "text" and np.prod(shape) > 40:
            shape = (4,)
        name = f"{rng.choice(['a', 'm', 'z'])}{number}"
        seeds = rng.integers(1 << 30, size=2)
        this[name] = other_saves.values(kind, shape, np.random.default_rng(seeds[0]))
        same = rng.random() < frozen
        other[name] = other_saves.values(kind, shape, np.random.default_rng(seeds[int(not same)]))
    first = int(rng.choice([7, 1000, 70_000, 1 << 33]))
    this["step"], other["step"] = np.int64(first), np.int64(first + int(rng.integers(1, 300)))
    return this, other


def _damaged(
    rng: Random, made: list[builder.Bundle], case: Case, *, anothers_index: bool
) -> dict[int, bytes]:
    """Return the data files of the checkpoint, with one to three faults."""
    held = {number: bytes(data) for number, data in made[0].shards.items()}
    if not anothers_index and rng.random() < 0.6 and len(held) > 1:
        number = int(rng.choice(list(held)))
        held[number] = bytes(made[1].shards[number])
        case.happened.append(f"{number} of the other")
    for _ in range(int(rng.choice([0, 1, 1, 2]))):
        name = str(rng.choice(PLACEMENTS))
        if _place(held, name, [int(one) for one in rng.permutation(list(held))]):
            case.happened.append(name)
    for number in list(held):
        if rng.random() < 0.5:
            damage = str(rng.choice(DAMAGES))
            held[number] = other_saves.DAMAGE[damage](held[number], rng)
            case.happened.append(f"{damage} in {number}")
    return held


def _place(held: dict[int, bytes], name: str, numbers: list[int]) -> bool:
    """Put a data file in the place of another, or nothing; return whether that was done."""
    several = len(numbers) > 1
    if name == "swapped" and several:
        first, second = numbers[:2]
        held[first], held[second] = held[second], held[first]
    elif name == "doubled" and several:
        held[numbers[0]] = held[numbers[1]]
    elif name == "lost" and several:
        del held[numbers[0]]
    elif name == "emptied" and numbers:
        held[numbers[0]] = b""
    else:
        return name == "renamed"
    return True


def _surround(rng: Random, made: list[builder.Bundle], case: Case, directory: Path) -> None:
    """Write files of either save beside the checkpoint, or as evidence."""
    for number in range(int(rng.choice([0, 1, 1, 2]))):
        whose = int(rng.integers(2))
        kind = str(rng.choice(["sibling", "sibling", "copy", "no index", "beside", "npz"]))
        case.happened.append(f"{kind} of {('this', 'the other')[whose]}")
        bundle = made[whose]
        if kind == "npz":
            case.evidence.append(directory / f"e{number}.npz")
            arrays = (case.this, case.other)[whose]
            plain = {k: v for k, v in arrays.items() if np.asarray(v).dtype != object}
            np.savez(case.evidence[-1], **plain)
            continue
        place = directory / (f"ev{number}" if kind in ("copy", "no index") else "")
        stem = STEM if kind in ("copy", "no index") else f"{STEM}-{number}"
        place.mkdir(exist_ok=True)
        bundle.write(place / stem, block_size=300)
        if kind in ("no index", "beside"):
            (place / f"{stem}.index").unlink()
        if place != directory:
            case.evidence.append(place)
        if rng.random() < 0.3:
            damaged = str(rng.choice(DAMAGES))
            path = min(place.glob(f"{stem}.data-*"))
            path.write_bytes(other_saves.DAMAGE[damaged](path.read_bytes(), rng))
            case.happened.append(f"{damaged} there")


def _differing(made: list[builder.Bundle]) -> list[list[bytes]]:
    """Return the bytes of float tensors, and of slices, that differ, of either save."""
    found: list[list[bytes]] = [[], []]
    for one in made[0].entries.values():
        if not isinstance(one, builder.Entry) or one.slices or one.size < LEAST:
            continue
        both = [bytes(b.shards[one.shard][one.offset : one.offset + one.size]) for b in made]
        if both[0] != both[1] and one.dtype in (1, 2):
            for number in (0, 1):
                found[number].append(both[number])
    return found
