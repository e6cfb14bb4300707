"""Checkpoints by every way to read them, whose answers must agree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import ckptparse
from fuzz import mutators, seeds
from fuzz.oracle import (
    LIMITS,
    BrokenPromiseError,
    agree,
    agree_singly,
    attempt,
    examine,
    same_values,
)
from fuzz.packing import unpack
from fuzz.targets.target import Target, look

__all__ = ["TARGETS", "bundle_store"]

_LOOKED_AT = ("object_graph", "layers", "optimizers", "averages", "step", "orphan_slices")


def bundle_store(data: bytes) -> dict[str, bytes]:
    """Give the files of a packed bundle their names."""
    index, first, second = unpack(data, 3)
    store = {"d/m.index": index, "d/m.data-00000-of-00001": first}
    if second:
        del store["d/m.data-00000-of-00001"]
        store["d/m.data-00000-of-00002"] = first
        store["d/m.data-00001-of-00002"] = second
    return store


def run_bundle(data: bytes) -> None:
    """Read a bundle by every way."""
    compare("d/m", bundle_store(data))


def bundle_seeds() -> Iterator[bytes]:
    """Give small bundles, one of many shapes, and one of shared bytes."""
    yield from seeds.small_bundles()
    yield seeds.shaped_bundle()
    yield seeds.sharing_bundle()


def run_legacy(data: bytes) -> None:
    """Read a V1 file by every way."""
    compare("d/m", {"d/m": data})


def compare(path: str, store: Mapping[str, bytes]) -> None:
    """Read a checkpoint by every way, and hold the answers to each other."""
    read = attempt(ckptparse.read, path, store=store, limits=LIMITS)
    opened = attempt(read_each, path, store)
    if isinstance(read, dict):
        if not isinstance(opened, dict) or list(opened) != list(read):
            raise BrokenPromiseError(f"read gives {list(read)}, and open {opened!r}")
        for name, array in read.items():
            if not same_values(array, opened[name]):
                raise BrokenPromiseError(f"read and open give {name!r} different values")
        listed = attempt(ckptparse.list_variables, path, store=store, limits=LIMITS)
        if listed != [(name, array.shape) for name, array in read.items()]:
            raise BrokenPromiseError(f"read gives {list(read)}, and list_variables {listed!r}")
    report = attempt(examine, path, store)
    graph = attempt(lambda: ckptparse.open(path, store=store, limits=LIMITS).object_graph)
    lost = isinstance(graph, ckptparse.DataLossError)
    if lost and isinstance(report, ckptparse.Report) and report.ok:
        raise BrokenPromiseError(f"the object graph: {graph!r}, and verify says that all is well")
    # That `recover` agrees is for the harness of that name: it is slow.
    agree(read, report, read if isinstance(read, dict) else {})
    if isinstance(report, ckptparse.Report):
        agree_singly(path, store, report)


def read_each(path: str, store: Mapping[str, bytes]) -> dict[str, Any]:
    """Read tensor after tensor, and a part of each; the last error is raised."""
    found: dict[str, Any] = {}
    error: ckptparse.CheckpointError | None = None
    with ckptparse.open(path, store=store, limits=LIMITS) as checkpoint:
        for name, tensor in checkpoint.items():
            value = attempt(tensor.read)
            if isinstance(value, ckptparse.CheckpointError):
                error = value
                continue
            found[name] = value
            if tensor.shape:
                part = attempt(tensor.__getitem__, slice(-1, None))
                if not isinstance(part, ckptparse.CheckpointError | int) and not same_values(
                    part, value[-1:]
                ):
                    raise BrokenPromiseError(f"a part of {name!r} is {part!r}")
        look(checkpoint, *_LOOKED_AT)
        attempt(lambda: str(checkpoint.tree()))
        attempt(checkpoint._repr_html_)
    if error is not None:
        raise error
    return found


TARGETS = [
    Target("bundle", run_bundle, bundle_seeds, mutators.bundle),
    Target("legacy", run_legacy, partial(seeds.v1_files, seeds.SMALL), mutators.table),
]
