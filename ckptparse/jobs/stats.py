"""`stats`: smallest, largest, mean and the like of every tensor, streamed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from ckptparse.backend.small import Sized, iter_batches, read_small
from ckptparse.checkpoint import Naming, Patterns, choose_names
from ckptparse.errors import located, name_not_found
from ckptparse.files.context import Cache, Progress, Store, begin_with
from ckptparse.jobs.derived import readable
from ckptparse.jobs.opening import Opened, TensorsFrom, check_work, open_tensors
from ckptparse.limits import DEFAULT_LIMITS, Limits
from ckptparse.statistics.gathering import Measured, measure
from ckptparse.statistics.summary import Summary
from ckptparse.statistics.together import measure_together
from ckptparse.tensor import Tensor
from ckptparse.tensor_like import TensorLike

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["measure_each", "stats"]


def stats(
    path: TensorsFrom,
    names: Iterable[str] | None = None,
    *,
    include: Patterns = None,
    exclude: Patterns = None,
    naming: Naming = "checkpoint",
    verify: bool = True,
    histogram: bool = False,
    progress: Progress | None = None,
    executor: Executor | None = None,
    store: Store = None,
    cache: Cache = None,
    limits: Limits = DEFAULT_LIMITS,
) -> dict[str, Summary]:
    """Sum up the values of every tensor: smallest, largest, mean, deviation, zeros, NaN and more.

    Tensors are read by the piece: memory is a few MiB. Of complex numbers the magnitudes are
    measured, of strings the lengths in bytes.

    Args:
        path: Whatever `convert` takes.
        names: Exactly these.
        include, exclude: Of those, what matches one glob, and what does not match another.
        naming: As for `open`.
        verify: Whether each tensor's checksum is checked first.
        histogram: Whether a histogram is made of each tensor.
        progress: Told how many bytes have been read, and how many there are.
        executor: Who measures: threads, processes, `dask.distributed`'s `Client.get_executor()`,
            loky. The statistics are the same. None: this thread.
        store: Where the path leads, as for `open`.
        cache: As for `open`.
        limits: Bounds on what the file may ask for.

    Raises:
        TensorNotFoundError: One of `names` is not there.
        StorageError: A worker failed; the error names its tensors.
        CheckpointError: As for `open` and for reading.
    """
    source, context = begin_with(path, store=store, cache=cache, limits=limits, progress=progress)
    with open_tensors(source, context, naming=naming, verify=verify) as opened:
        wanted = opened.tensors if names is None else _named(names, opened)
        chosen = list(choose_names(wanted, include, exclude))
        check_work(opened, chosen)
        tensors = [Sized.of(name, opened.tensors[name]) for name in chosen]
        sizes = {one.name: one.nbytes for one in tensors}
        total = sum(sizes.values())
        if executor is None:
            rows = measure_each(tensors, verify=verify, histogram=histogram)
        else:
            from ckptparse.jobs.spread_stats import spread

            rows = spread(opened, chosen, executor, verify=verify, histogram=histogram)
        found: dict[str, Summary] = {}
        done = 0
        for row in rows:
            found.update(row)
            done += sum(sizes[name] for name, _ in row)
            if progress is not None:
                progress(done, total)
        return {name: found[name] for name in sorted(found)}


def measure_each(
    tensors: Iterable[Sized], *, verify: bool, histogram: bool
) -> Iterator[list[tuple[str, Summary]]]:
    """Iterate over names and statistics, one tensor at a time, in the order of the tensors.

    Args:
        tensors: Each, and what it is called.
        verify: Whether checksums are checked first.
        histogram: Whether histograms are made.

    Raises:
        CheckpointError: As for reading.
    """
    for batch in iter_batches(tensors):
        arrays = read_small(batch, verify=verify, variants=True)
        small = [array for array in arrays if array is not None]
        together = iter(measure_together(small, histogram=histogram))
        for one, array in zip(batch, arrays, strict=True):
            if array is None:
                made = _measure_one(one.tensor, one.name, verify=verify, histogram=histogram)
                yield [(one.name, made)]
            else:
                yield [(one.name, _summary_of(next(together)))]


def _measure_one(tensor: TensorLike, name: str, *, verify: bool, histogram: bool) -> Summary:
    """Check a tensor's checksum, if asked to, and sum up its values."""
    with located(tensor=name):
        if verify and isinstance(tensor, Tensor):
            tensor.verify()
        measured = measure(readable(tensor), histogram=histogram)
    return _summary_of(measured)


def _summary_of(measured: Measured) -> Summary:
    if measured.distribution is None:
        return measured.summary
    return replace(measured.summary, histogram=measured.distribution.counts)


def _named(names: Iterable[str], opened: Opened) -> list[str]:
    """Return the names that a caller asks for, all of which are there."""
    if isinstance(names, str):
        raise TypeError(f"names takes several names, not one string: did you mean [{names!r}]?")
    wanted = list(names)
    for name in wanted:
        if name not in opened.tensors:
            message = f"No tensor of that name among {len(opened.tensors)}"
            raise name_not_found(message, name, opened.tensors, path=opened.path)
    return wanted
