"""`diff`: what changed between two checkpoints; by checksums first, data only if they differ."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import pairwise, repeat
from operator import eq
from typing import Any

import numpy as np
import numpy.typing as npt

from ckptparse.backend import Origin
from ckptparse.backend.places import find_places
from ckptparse.backend.small import Sized, hold_small, iter_batches
from ckptparse.dtypes import DataType, element_name, is_numeric
from ckptparse.errors import UnsupportedError, located
from ckptparse.files.context import Cache, Context, Progress, Store, begin_with
from ckptparse.files.storage import Storage
from ckptparse.jobs.derived import readable
from ckptparse.jobs.distances import Distance, Tolerance, measure_distance, measure_distances
from ckptparse.jobs.opening import (
    Opened,
    TensorsFrom,
    check_work,
    describe_source,
    open_tensors,
)
from ckptparse.jobs.rules import Rename, RuleSet, make_rules
from ckptparse.limits import DEFAULT_LIMITS, Limits, take_named
from ckptparse.statistics.gathering import iter_pieces
from ckptparse.tensor import Tensor
from ckptparse.tensor_like import ArrayTensor, TensorLike
from ckptparse.text import escape, shape_text

__all__ = ["Change", "Diff", "diff"]

_MOST_LINES = 10_000
"""Tensors of each kind that a text names; each 256 characters of a name count as one more."""
_BY_CHECKSUM = "by their stored checksums; their data was not read"
"""How those are equal that `Diff.unread` names."""
_PIECE = 1 << 20
"""Bytes of the first tensor that are compared at once: memory stays small for any tensor."""


@dataclass(frozen=True, slots=True)
class Change:
    """How one tensor differs.

    Attributes:
        dtype: Its kinds of element, before and after.
        shape: Its shapes, before and after.
        largest: The largest difference of two elements; None unless both are numbers of one shape.
        mean: The mean difference, of all elements; None likewise.
        share: The share of elements that differ, from 0 to 1; None if the shapes do.
    """

    dtype: tuple[str, str]
    shape: tuple[tuple[int, ...], tuple[int, ...]]
    largest: float | None = None
    mean: float | None = None
    share: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON holds them."""
        return {
            "dtype": list(self.dtype),
            "shape": [list(shape) for shape in self.shape],
            "largest": _finite(self.largest),
            "mean": _finite(self.mean),
            "share": self.share,
        }

    def __str__(self) -> str:
        said = []
        if self.dtype[0] != self.dtype[1]:
            said.append(f"{self.dtype[0]} -> {self.dtype[1]}")
        if self.shape[0] != self.shape[1]:
            said.append(f"{shape_text(self.shape[0])} -> {shape_text(self.shape[1])}")
        if self.largest is not None and self.mean is not None:
            said.append(f"largest {self.largest:.6g}, mean {self.mean:.6g}")
        if self.share is not None:
            said.append(f"{100 * self.share:.4g}% of the elements")
        return "; ".join(said)


def _finite(value: float | None) -> float | None:
    """Return a number that JSON has; None for any other."""
    return value if value is not None and math.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class Diff:
    """What changed.

    Attributes:
        paths: What was compared.
        added: Names that only the second has.
        removed: Names that only the first has.
        renamed: Old and new name of what is the same, by shape and stored checksum, under another
            name.
        changed: What is different, by name: by that of the first, as the rules rename it.
        equal: Names of what is equal.
        unread: Those of `equal` whose stored checksums are equal: their data is there, and was not
            read.
    """

    paths: tuple[str, str]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]
    changed: Mapping[str, Change]
    equal: tuple[str, ...]
    unread: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not (self.added or self.removed or self.renamed or self.changed)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON holds them."""
        return {
            "paths": list(self.paths),
            "same": self.same,
            "added": list(self.added),
            "removed": list(self.removed),
            "renamed": [list(names) for names in self.renamed],
            "changed": {name: change.to_dict() for name, change in self.changed.items()},
            "equal": list(self.equal),
            "unread": list(self.unread),
        }

    def _repr_html_(self) -> str:
        """Show it in a notebook."""
        from ckptparse.rendering.notebook import diff_html

        return diff_html(self)

    def __str__(self) -> str:
        lines = _lines("+", self.added, escape)
        lines += _lines("-", self.removed, escape)
        new = dict(self.renamed)
        lines += _lines(">", new, lambda old: f"{escape(old)} -> {escape(new[old])}")
        lines += _lines("~", self.changed, lambda name: f"{escape(name)}  {self.changed[name]}")
        counts = (
            f"{len(found):,} {word}"
            for word, found in [
                ("added", self.added),
                ("removed", self.removed),
                ("renamed", self.renamed),
                ("changed", self.changed),
                ("equal", self.equal),
            ]
        )
        if self.unread:
            lines.append(f"{len(self.unread):,} equal {_BY_CHECKSUM}")
        lines.append(", ".join(counts))
        return "\n".join(lines)


def _lines(mark: str, names: Collection[str], say: Callable[[str], str]) -> list[str]:
    """Return a line for each name; of very many, for as many as a person may want to read."""
    shown = take_named(names, _MOST_LINES)
    lines = [f"{mark} {say(name)}" for name in shown]
    if len(shown) < len(names):
        lines.append(f"{mark} … and {len(names) - len(shown):,} more: `to_dict()` has all of them")
    return lines


def diff(
    a: TensorsFrom,
    b: TensorsFrom,
    *,
    rtol: float = 0,
    atol: float = 0,
    rename: Rename = None,
    read_data: bool = False,
    progress: Progress | None = None,
    store: Store = None,
    cache: Cache = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Diff:
    """Compare two checkpoints, or whatever else `convert` takes.

    Tensors of V2 checkpoints whose stored checksums are equal are equal, and their data is not
    read: two checkpoints that are the same take as long as their indexes. Their data files must be
    there, and long enough. Of others each is read once, by the piece, unchecked: call `verify`
    first if damage is to be told from change.

    Args:
        a, b: The first and the second.
        rtol: Numbers are equal if they differ by at most `atol + rtol * abs(second)`.
        atol: See `rtol`. NaN equals NaN.
        rename: What the names of the first are in the second, as for `convert`. What rules do with
            axes, parts and kinds is done, too.
        read_data: Whether to compare the data of tensors whose stored checksums are equal, too.
        progress: Told how many bytes have been compared, and how many there are.
        store: Where both paths lead, as for `open`; a URL leads where it says.
        cache: As for `open`.
        limits: Bounds on what the files may ask for. `small_tensors` bounds how many tensors are
            compared that checksums do not tell equal.

    Raises:
        CheckpointError: As for `open`; or a data file is not there, or too short.
        ValueError: A tolerance is below 0, or NaN.
    """
    if not (rtol >= 0 and atol >= 0):
        raise ValueError(f"Expected tolerances of 0 or more, found rtol={rtol} and atol={atol}")
    a, a_context = begin_with(a, store=store, cache=cache, limits=limits, progress=progress)
    b, b_context = begin_with(b, store=store, cache=cache, limits=limits, progress=progress)
    rules = make_rules(rename, None, limits)
    # Both are open at the same time: each may take half of what one call may.
    a_context, b_context = a_context.share(2), b_context.share(2)
    with open_tensors(a, a_context) as first, _open_second(b, b_context, first) as second:
        paths = (describe_source(first), describe_source(second))
        if rename is None and not read_data and _are_told_equal(first, second):
            _check_held(first)
            _check_held(second)
            equal = tuple(sorted(first.tensors if first.places is None else first.places.names))
            return Diff(paths, (), (), (), {}, equal, equal)
        before = _renamed(first, rules)
        after = _Side.of(second, {name: name for name in second.tensors})
        pending = _list_shared(before, after) if read_data else _list_pending(before, after)
        for opened in (first, second):
            check_work(opened, pending)
        how = _Comparison(Tolerance(rtol, atol), progress)
        found = _compare_all(paths, before, after, pending, how)
        _check_held(first, [before.names[name] for name in found.unread])
        _check_held(second, found.unread)
        return found


def _open_second(
    source: TensorsFrom, context: Context, first: Opened
) -> AbstractContextManager[Opened]:
    """Open the second; names that it shares with the first are in memory once."""
    names = () if first.places is None else first.places.names
    return open_tensors(source, replace(context, known_names=names))


def _renamed(first: Opened, rules: RuleSet) -> _Side:
    """Return the first, as its rules name its tensors and change them."""
    names: dict[str, str] = {}
    made: dict[str, TensorLike] = {}
    if not rules.only_names:
        from ckptparse.jobs.plan import Wishes, plan

        for planned in plan(first, rules, Wishes()):
            if planned.tensor is not None:
                names[planned.tensor.name] = planned.old
                made[planned.tensor.name] = planned.tensor
        return replace(_Side.of(first, names), made=made)
    for old in first.tensors:
        new = rules.rename(old)
        if new is None or rules.drops(old):
            continue
        if new in names:
            raise UnsupportedError(
                f"Two tensors of the first checkpoint would have the name {new!r}"
            )
        names[new] = old
    return _Side.of(first, names)


@dataclass(frozen=True, slots=True)
class _Comparison:
    tolerance: Tolerance
    progress: Progress | None


def _are_told_equal(first: Opened, second: Opened) -> bool:
    """Whether two checkpoints are equal by what their indexes tell, looked at as a whole."""
    one, other = first.places, second.places
    if one is None or other is None or first.checkpoint is None or second.checkpoint is None:
        return False
    return (
        first.checkpoint.byte_order == second.checkpoint.byte_order
        and bool(one.are_told.all())
        and bool(other.are_told.all())
        and _are_same(one.names, other.names)
        and _are_same(one.data_types, other.data_types)
        and _are_same(one.shapes, other.shapes)
        and np.array_equal(one.sizes, other.sizes)
        and np.array_equal(one.crcs, other.crcs)
    )


def _are_same(one: Sequence[object], other: Sequence[object]) -> bool:
    if type(one) is type(other):
        return one == other
    return len(one) == len(other) and all(map(eq, one, other))


def _check_held(opened: Opened, names: Collection[str] | None = None) -> None:
    """Make sure that the data is there of tensors whose checksums alone are compared.

    Each file is looked for once; only its size is asked.

    Args:
        opened: What holds them.
        names: Their names; None: all that lie in files.

    Raises:
        CheckpointError: A file is not there, or too short: the error that reading gives.
    """
    wanted = opened.tensors.keys() if names is None else set(names)
    places = opened.places or find_places(_list_stored(opened, wanted))
    rows = np.arange(len(places.names))
    if names is not None:
        rows = rows[[name in wanted for name in places.names]]
    if not len(rows):
        return
    rows = rows[np.argsort(places.numbers[rows], kind="stable")]
    numbers, sizes = places.numbers[rows], places.sizes[rows]
    stops = np.where(sizes > 0, places.offsets[rows] + sizes, 0)
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    ends = np.maximum.reduceat(stops, starts)
    edges = pairwise([*starts.tolist(), len(rows)])
    storage: Storage | None = None
    for (start, stop), end in zip(edges, ends.tolist(), strict=True):
        # Of each file the first tensor that ends last.
        at = start + int((stops[start:stop] == end).argmax())
        name = places.names[int(rows[at])]
        if storage is None:
            storage = _storage_of(opened, name)
        if storage is None:
            return
        status = storage.stat(places.files[int(numbers[at])])
        if status is None or status.kind != "file" or status.size < end:
            opened.tensors[name].read()


def _storage_of(opened: Opened, name: str) -> Storage | None:
    """Return where the files of a tensor lie."""
    # To look a name up takes a table of all names; the first tensor takes none.
    if opened.checkpoint is None:
        tensor = opened.tensors[name]
    else:
        tensor = next(iter(opened.checkpoint.values()))
    origin = tensor.options.origin if isinstance(tensor, Tensor) else None
    return origin.opener.context.storage if isinstance(origin, Origin) else None


def _list_stored(opened: Opened, names: Iterable[str]) -> list[Tensor]:
    """List those of some tensors that lie in files."""
    tensors = map(opened.tensors.__getitem__, names)
    return [tensor for tensor in tensors if isinstance(tensor, Tensor)]


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two, under the names that are compared.

    Attributes:
        names: Each of them, and the name that it has there.
        tensors: By the names that they have there.
        proofs: By these names too: what two tensors of the same content share, as an index tells
            it. None if it tells nothing.
        made: What rules made of tensors, by the names that are compared.
    """

    names: Mapping[str, str]
    tensors: Mapping[str, TensorLike]
    proofs: Mapping[str, tuple[Any, ...] | None]
    made: Mapping[str, TensorLike] = field(default_factory=dict)

    @classmethod
    def of(cls, opened: Opened, names: Mapping[str, str]) -> _Side:
        """Take what was opened."""
        tensors, checkpoint, places = opened.tensors, opened.checkpoint, opened.places
        if checkpoint is None or places is None:
            return cls(names, tensors, {name: _proof(tensors[name]) for name in names.values()})
        proofs: dict[str, tuple[Any, ...] | None] = dict(
            zip(
                places.names,
                zip(
                    places.data_types,
                    places.shapes,
                    places.sizes.tolist(),
                    places.crcs.tolist(),
                    repeat(checkpoint.byte_order),
                    strict=False,
                ),
                strict=True,
            )
        )
        for row in np.flatnonzero(~places.are_told).tolist():
            proofs[places.names[row]] = None
        return cls(names, tensors, proofs)

    def tensor(self, name: str) -> TensorLike:
        """Return a tensor by the name that is compared."""
        made = self.made.get(name)
        return self.tensors[self.names[name]] if made is None else made

    def proof(self, name: str) -> tuple[Any, ...] | None:
        """Return a proof by the name that is compared."""
        return None if name in self.made else self.proofs[self.names[name]]


def _list_shared(before: _Side, after: _Side) -> list[str]:
    return [name for name in after.names if name in before.names]


def _list_pending(before: _Side, after: _Side) -> list[str]:
    """List the names of both whose tensors may differ: their values are to be compared."""
    shared = _list_shared(before, after)
    proofs = zip(shared, map(before.proof, shared), map(after.proof, shared), strict=True)
    return [name for name, one, other in proofs if one is None or one != other]


def _compare_all(
    paths: tuple[str, str],
    before: _Side,
    after: _Side,
    pending: Collection[str],
    how: _Comparison,
) -> Diff:
    total = sum(after.tensor(name).nbytes for name in pending)
    changed: dict[str, Change] = {}
    done = 0
    for name, change, size in _iter_changes(pending, before, after, how):
        if change is not None:
            changed[name] = change
        done += size
        if how.progress is not None:
            how.progress(done, total)
    removed = [name for name in before.names if name not in after.names]
    added = [name for name in after.names if name not in before.names]
    renamed = dict(_find_renamed(before, removed, after, added))
    unread = set(_list_shared(before, after)).difference(pending)
    return Diff(
        paths,
        tuple(sorted(set(added) - set(renamed.values()))),
        tuple(sorted(set(removed) - renamed.keys())),
        tuple(sorted(renamed.items())),
        dict(sorted(changed.items())),
        tuple(sorted(set(_list_shared(before, after)) - changed.keys())),
        tuple(sorted(unread)),
    )


def _iter_changes(
    names: Iterable[str], before: _Side, after: _Side, how: _Comparison
) -> Iterator[tuple[str, Change | None, int]]:
    """Iterate over names, how their tensors differ, and the bytes of the second."""
    for batch in iter_batches(Sized.of(name, after.tensor(name)) for name in names):
        firsts = [Sized.of(one.name, before.tensor(one.name)) for one in batch]
        sides = [hold_small(firsts), hold_small(batch)]
        rows = [row for row, pair in enumerate(zip(*sides, strict=True)) if _are_numbers(*pair)]
        pairs = [(sides[0][row].read(), sides[1][row].read()) for row in rows]
        known = dict(zip(rows, measure_distances(pairs, how.tolerance), strict=True))
        for row, (one, first, second) in enumerate(zip(batch, *sides, strict=True)):
            if row in known:
                change = _change(first, second, second.read().size, known[row])
            else:
                with located(tensor=one.name):
                    change = _compare(first, second, how)
            yield one.name, change, one.nbytes


def _are_numbers(first: TensorLike, second: TensorLike) -> bool:
    """Tell whether two tensors are in memory, and numbers of one shape."""
    return (
        type(first) is type(second) is ArrayTensor
        and first.shape == second.shape
        and is_numeric(first.data_type)
        and is_numeric(second.data_type)
    )


def _proof(tensor: TensorLike) -> tuple[Any, ...] | None:
    """Return what two tensors of the same content share, as an index tells it; None if none does.

    The checksum of numbers is that of their bytes, in whichever order they are stored.
    """
    if not isinstance(tensor, Tensor) or tensor.crc32c is None or tensor.location is None:
        return None
    origin = tensor.options.origin
    if not isinstance(origin, Origin):
        return None
    order = origin.backend.byte_order
    return tensor.data_type, tensor.shape, tensor.location.size, tensor.crc32c, order


def _find_renamed(
    before: _Side, removed: Iterable[str], after: _Side, added: Iterable[str]
) -> Iterator[tuple[str, str]]:
    """Pair names whose tensors are the same, and of which there is one on either side."""
    old, new = _by_proof(before, removed), _by_proof(after, added)
    for proof, names in old.items():
        others = new.get(proof, [])
        if len(names) == len(others) == 1:
            yield names[0], others[0]


def _by_proof(side: _Side, names: Iterable[str]) -> dict[tuple[Any, ...], list[str]]:
    found: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for name in names:
        proof = side.proof(name)
        if proof is not None:
            found[proof].append(name)
    return found


def _compare(first: TensorLike, second: TensorLike, how: _Comparison) -> Change | None:
    """Compare two tensors' data; None if they are equal."""
    kinds = (element_name(first.data_type), element_name(second.data_type))
    shapes = (first.shape, second.shape)
    if first.shape != second.shape:
        return Change(kinds, shapes)
    if not (is_numeric(first.data_type) and is_numeric(second.data_type)):
        return _compare_objects(first, second, kinds)
    elements, distance = 0, Distance()
    for one, other in _iter_pairs(readable(first), readable(second)):
        elements += one.size
        distance = distance.plus(measure_distance(one, other, how.tolerance))
    return _change(first, second, elements, distance)


def _change(
    first: TensorLike, second: TensorLike, elements: int, distance: Distance
) -> Change | None:
    """Say how numbers of one shape differ; None if they are equal."""
    differing, largest, total = distance
    if not differing and first.data_type == second.data_type:
        return None
    kinds = (element_name(first.data_type), element_name(second.data_type))
    mean, share = (total / elements, differing / elements) if elements else (0.0, 0.0)
    return Change(kinds, (first.shape, second.shape), largest, mean, share)


def _iter_pairs(
    first: TensorLike, second: TensorLike
) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Iterate over as many elements of both at once."""
    width = max(1, first.dtype.itemsize)
    others = iter_pieces(second, max(1, _PIECE // width) * max(1, second.dtype.itemsize))
    return zip(iter_pieces(first, _PIECE), others, strict=True)


def _compare_objects(
    first: TensorLike, second: TensorLike, kinds: tuple[str, str]
) -> Change | None:
    shapes = (first.shape, second.shape)
    if first.data_type != second.data_type:
        return Change(kinds, shapes)
    one, other = first.read().reshape(-1), second.read().reshape(-1)
    if first.data_type == DataType.DT_STRING:
        unequal = int(np.count_nonzero(one != other))
    else:
        unequal = sum(map(_differs, one, other))
    return Change(kinds, shapes, share=unequal / one.size) if unequal else None


def _differs(a: object, b: object) -> bool:
    from ckptparse.tensor_encoding import encode_variant
    from ckptparse.tensor_proto import Variant

    if isinstance(a, Variant) and isinstance(b, Variant):
        return encode_variant(a) != encode_variant(b)
    return a != b
