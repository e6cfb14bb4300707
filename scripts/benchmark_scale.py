"""How the cost of reading grows with the work, as a table and as a plot; needs matplotlib."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmark_inputs import make_small, write_shards, write_slices, write_stream

import ckptparse

__all__ = ["draw_scale"]

RUNS = 3
Points = list[tuple[int, float]]


LIMITS = ckptparse.Limits(small_tensors=1_000_000, single_entries=100_000, shards=4096)
"""So many tiny tensors and slices, in files so small, are refused by default."""


def read(path: str) -> None:
    ckptparse.read(path, limits=LIMITS)


@dataclass(frozen=True)
class Curve:
    """One kind of work, in several amounts."""

    title: str
    amounts: tuple[int, ...]
    write: Callable[[Path, int], None]
    work: Callable[[str], object] = read


def write_entries(prefix: Path, count: int) -> None:
    write_stream(prefix, make_small(count))


def write_rows(prefix: Path, count: int) -> None:
    write_slices(prefix, count=count, rows=1, columns=16)


def convert(path: str) -> None:
    ckptparse.convert(path, f"{path}-converted.safetensors", overwrite=True, limits=LIMITS)


def write(path: str) -> None:
    ckptparse.convert(path, f"{path}-written", overwrite=True, limits=LIMITS)


def compare(path: str) -> None:
    ckptparse.diff(path, path)


ENTRIES = (1_000, 4_000, 16_000, 64_000, 256_000, 1_000_000)
SHARDS = (1, 4, 16, 64, 256, 1024, 4096)
CURVES = (
    Curve("read entries", ENTRIES, write_entries),
    Curve("list entries", ENTRIES, write_entries, ckptparse.list_variables),
    Curve("verify entries", ENTRIES, write_entries, ckptparse.verify),
    Curve("compare entries", ENTRIES, write_entries, compare),
    Curve("convert entries", ENTRIES, write_entries, convert),
    Curve("write entries", ENTRIES, write_entries, write),
    Curve("read shards", SHARDS, write_shards),
    Curve("verify shards", SHARDS, write_shards, ckptparse.verify),
    Curve("compare shards", SHARDS, write_shards, compare),
    Curve("convert shards", SHARDS, write_shards, convert),
    Curve("write shards", SHARDS, write_shards, write),
    Curve("read slices of one variable", (1, 10, 100, 1_000, 10_000, 100_000), write_rows),
)


def draw_scale(target: str) -> None:
    """Measure every curve, print each point of it, and draw all of them into a picture."""
    import matplotlib as mpl

    mpl.use("Agg")
    draw({curve.title: measure(curve) for curve in CURVES}, target)


def measure(curve: Curve) -> Points:
    """Time the work for every amount, the least of some runs each."""
    points: Points = []
    for amount in curve.amounts:
        with tempfile.TemporaryDirectory() as folder:
            prefix = Path(folder) / "model"
            curve.write(prefix, amount)
            seconds = min(seconds_of(curve, prefix) for _ in range(RUNS))
        each = seconds / amount * 1e6
        print(
            f"{curve.title:<30} {amount:>9,} {seconds:>10.4f} s {each:>10.2f} us each", flush=True
        )
        points.append((amount, seconds))
    return points


def seconds_of(curve: Curve, prefix: Path) -> float:
    """Time the work once."""
    started = time.perf_counter()
    curve.work(str(prefix))
    return time.perf_counter() - started


def draw(curves: dict[str, Points], target: str) -> None:
    """Draw the curves over logarithmic axes, beside what is exactly proportional."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 6))
    # Twenty colours: there are more curves than the usual ten.
    axes.set_prop_cycle(color=plt.get_cmap("tab20").colors)
    for title, points in curves.items():
        amounts, seconds = zip(*points, strict=True)
        (line,) = axes.loglog(amounts, seconds, marker="o", label=title)
        first = seconds[-1] / amounts[-1] * amounts[0]
        ends = (amounts[0], amounts[-1]), (first, seconds[-1])
        axes.loglog(*ends, linestyle=":", color=line.get_color())
    axes.set_xlabel("how many")
    axes.set_ylabel("seconds (dotted: in proportion)")
    axes.legend()
    axes.grid(visible=True, which="both", alpha=0.3)
    figure.savefig(target, dpi=120)
