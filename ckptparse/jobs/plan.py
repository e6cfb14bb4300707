"""What becomes of each tensor: chosen, dropped, cut, turned, converted, renamed; none is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy.typing as npt

from ckptparse.checkpoint import Patterns, choose_names
from ckptparse.dtypes import DataType, element_name
from ckptparse.errors import (
    CheckpointError,
    TensorNotFoundError,
    UnsupportedError,
    name_not_found,
)
from ckptparse.jobs.conversion import ConversionRow
from ckptparse.jobs.derived import FLOATS, DerivedTensor, RenamedTensor, parse_dtype
from ckptparse.jobs.kernels import torch_layout
from ckptparse.jobs.layout import Layout, reorder_gates
from ckptparse.jobs.opening import Opened, check_work
from ckptparse.jobs.rules import NewNames, Renamer, RuleSet
from ckptparse.jobs.variables import Variables
from ckptparse.tensor import Tensor
from ckptparse.tensor_like import TensorLike
from ckptparse.text import count, escape

if TYPE_CHECKING:
    from ckptparse.jobs.ops import KernelOps

__all__ = ["Ema", "Planned", "Wishes", "find_warnings", "plan"]

_KERAS_OPTIMIZERS = ("optimizer/", "optimizer_weights/")
"""Where Keras keeps an optimizer's state in HDF5: Keras 3, and before."""
_KERAS_ENDING = ".weights.h5"
_MOST_NAMED = 5
"""Tensors that a warning names."""
Ema = Literal["prefer", "only", "drop"]
"""Moving averages take their variables' place, or are all that is kept, or are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the caller of `convert` asks for, besides rules."""

    names: Iterable[str] | None = None
    include: Patterns = None
    exclude: Patterns = None
    dtype: Any = None
    layout: str | None = None
    drop_slots: bool = False
    ema: Ema | None = None
    weight: int = 1
    """How many tensors each counts as, for `Limits.small_tensors`."""

    def __post_init__(self) -> None:
        if self.layout not in (None, "torch"):
            raise ValueError(f"layout is None or 'torch', not {self.layout!r}")
        if self.ema not in (None, "prefer", "only", "drop"):
            raise ValueError(f"ema is None, 'prefer', 'only' or 'drop', not {self.ema!r}")
        if isinstance(self.names, str):
            raise TypeError(f"names takes several names: did you mean [{self.names!r}]?")


@dataclass(frozen=True, slots=True)
class Planned:
    """What becomes of one tensor, or of one part of it.

    Attributes:
        old: Its name in the source.
        tensor: What is written; None if it is dropped.
        source: The tensor in the source.
        done: What was done with it, in a few words each.
        dropped: Why it is not written; empty if it is.
        axes: The new order of its axes; None if it was not turned.
        gates: The new order of the blocks of its last axis; None if they stayed.
        stored: Its name in the source's file, whatever the naming.
    """

    old: str
    tensor: TensorLike | None
    source: TensorLike
    done: tuple[str, ...] = ()
    dropped: str = ""
    axes: tuple[int, ...] | None = None
    gates: tuple[int, ...] | None = None
    stored: str = field(kw_only=True)
    layout: Layout | None = None
    """How it is to lie; None if nothing was to be said of it."""


@dataclass(slots=True)
class _State:
    """What the names of a checkpoint are, besides weights.

    Attributes:
        slots: Names of an optimizer's tensors, each with what it is.
        averages: Name of a variable -> name of its moving average.
        spare: Averages that nothing is the average of.
    """

    slots: set[str] = field(default_factory=set)
    averages: dict[str, str] = field(default_factory=dict)
    spare: set[str] = field(default_factory=set)


def plan(opened: Opened, rules: RuleSet, wishes: Wishes) -> list[Planned]:
    """Say what becomes of every tensor, in the order in which they are best read.

    Raises:
        TensorNotFoundError: One of the names that were asked for is not there.
        UnsupportedError: Two tensors would have one name; it lists them.
    """
    chosen = _choose(opened, wishes)
    _check_former(opened, rules)
    check_work(opened, chosen, weight=wishes.weight)
    state = _find_state(opened) if wishes.drop_slots or wishes.ema else _State()
    layout = wishes.layout or rules.layout
    kind = wishes.dtype if wishes.dtype is not None else rules.dtype
    turner = _Turner(rules, opened) if layout else _Turner(rules)
    maker = _Maker(rules, turner, None if kind is None else parse_dtype(kind))
    by_state = bool(state.slots or state.averages or state.spare or wishes.ema)
    rows: list[Planned] = []
    for name, tensor in opened.tensors.items():
        value, note, reason = tensor, "", ""
        if by_state:
            value, note, reason = _pick(name, tensor, opened.tensors, state, wishes)
        if name not in chosen:
            reason = "not chosen"
        elif not reason and rules.drops(name):
            reason = "by a rule"
        if reason:
            rows.append(Planned(name, None, tensor, dropped=reason, stored=tensor.name))
        else:
            rows.extend(maker.make(name, tensor.name, value, note))
    _check_collisions(rows)
    return rows


def _choose(opened: Opened, wishes: Wishes) -> set[str]:
    """Return the names that are wanted."""
    if wishes.names is None:
        keys: Iterable[str] = opened.tensors
    else:
        keys = [_find(opened, name) for name in wishes.names]
    found = set(choose_names(keys, wishes.include, wishes.exclude))
    if opened.tensors and not found and (wishes.include or wishes.exclude):
        raise TensorNotFoundError(
            f"None of {len(opened.tensors)} tensors is chosen by include and exclude",
            path=opened.path,
            hint=_hint_of_patterns(opened),
        )
    return found


def _hint_of_patterns(opened: Opened) -> str:
    """Say what patterns are compared with."""
    first = next(iter(opened.tensors))
    hint = f"A pattern must match a whole name, such as '{escape(first)}': '*kernel*' for a part"
    own = _own_names(opened).get(opened.tensors[first].name) or first
    more = "; naming='variable' takes the variables' own names, such as "
    return hint if own == first else f"{hint}{more}'{escape(own)}'"


def _check_former(opened: Opened, rules: RuleSet) -> None:
    """Refuse to undo a conversion that wrote none of the tensors.

    Raises:
        UnsupportedError: None has a name that it gave.
    """
    if rules.former and opened.tensors and not any(map(rules.former.__contains__, opened.tensors)):
        raise UnsupportedError(
            f"Expected tensors of the conversion that is to be undone: 0 of {len(opened.tensors)} "
            "have a name that it gave",
            path=opened.path,
            hint="Give the options that the conversion had, such as rename (--rules, --rename)",
        )


def find_warnings(
    opened: Opened, rules: RuleSet, planned: Sequence[Planned], target: str
) -> Iterator[str]:
    """Iterate over what may not be as the caller meant it."""
    yield from _rule_warnings(opened, rules)
    if target.endswith(_KERAS_ENDING):
        names = [one.tensor.name for one in planned if one.tensor is not None]
        if names and not any("vars" in name.split("/")[-2:-1] for name in names):
            yield (
                f"Keras loads a {_KERAS_ENDING} file only if its paths are Keras's own, such as "
                f"layers/dense/vars/0; found none, but {_listed(names[:1])}: it will load nothing "
                "of this file"
            )
    odd = _names_of(planned, lambda layout: layout.odd)
    if odd:
        yield (
            f"{count(len(odd), 'tensor')} of recurrent layers left as in the source: PyTorch has "
            f"their gates in another order, or no such layer: {_listed(odd)}"
        )
    unknown = _names_of(planned, lambda layout: layout.unknown)
    if unknown and rules.layout is None:  # Else a rule file asks for it, and knows its tensors.
        yield (
            f"{count(len(unknown), 'tensor')} with 2 or more axes left as in the source: nothing "
            f"tells whether PyTorch has them in another order: {_listed(unknown)}"
        )


def _rule_warnings(opened: Opened, rules: RuleSet) -> Iterator[str]:
    """Iterate over rules that are about nothing that is there."""
    if rules.former:
        fitting = sum(map(rules.former.__contains__, opened.tensors))
        if fitting < len(opened.tensors):
            yield (
                f"{fitting} of {len(opened.tensors)} tensors have a name that the conversion gave; "
                "the others are as they were"
            )
    if rules.source:
        if not any(map(rules.is_about, opened.tensors)):
            yield f"the rules {escape(rules.source)} are about none of the tensors"
    else:
        yield from _name_warnings(opened, rules)


def _name_warnings(opened: Opened, rules: RuleSet) -> Iterator[str]:
    """Iterate over names and expressions of the caller that no tensor has."""
    if isinstance(rules.rename, Renamer):
        for pattern in rules.rename.unused:
            yield f"nothing was renamed by {escape(pattern)!r}: no name matches"
    elif isinstance(rules.rename, NewNames):
        unknown = [old for old in rules.rename.unused if old not in opened.tensors]
        if unknown:
            yield f"rename has {count(len(unknown), 'name')} of no tensor: {_listed(unknown)}"


def _names_of(planned: Sequence[Planned], chosen: Callable[[Layout], bool]) -> list[str]:
    """Return the names of what is written in a layout of that kind."""
    return [one.old for one in planned if one.layout is not None and chosen(one.layout)]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(escape, names[:_MOST_NAMED])) + (", …" if len(names) > _MOST_NAMED else "")


def _find(opened: Opened, name: str) -> str:
    for key in (name, name.removesuffix(":0")):
        if key in opened.tensors:
            return key
    message = f"No tensor of that name among {len(opened.tensors)}"
    raise name_not_found(message, name, opened.tensors, path=opened.path)


def _find_state(opened: Opened) -> _State:
    """Find what is no weight, by the object graph or by the names of a checkpoint."""
    checkpoint = opened.checkpoint
    if checkpoint is None:
        slots = opened.tensors if opened.format == "hdf5" else ()
        return _State({name for name in slots if name.startswith(_KERAS_OPTIMIZERS)})
    by_stored = {tensor.name: key for key, tensor in opened.tensors.items()}
    state = _State()
    for optimizer in checkpoint.optimizers:
        state.slots.update(by_stored[name] for name in optimizer.tensors if name in by_stored)
    variables = _variables_by_name(opened, by_stored)
    for variable, averages in checkpoint.averages.by_variable().items():
        names = [by_stored[one.name] for one in averages if one.name in by_stored]
        owner = variables.get(variable)
        if owner is not None and names:
            state.averages[owner] = names[0]
            names = names[1:]
        state.spare.update(names)
    state.slots -= {*state.averages.values(), *state.spare}
    return state


def _variables_by_name(opened: Opened, by_stored: Mapping[str, str]) -> dict[str, str]:
    """Return the key of each variable by its stored name and by its own."""
    found = dict(by_stored)
    graph = opened.object_graph
    if graph is not None:
        for key, name in graph.names_by_key.items():
            if key in by_stored:
                found.setdefault(name, by_stored[key])
    return found


def _pick(
    name: str,
    tensor: TensorLike,
    tensors: Mapping[str, TensorLike],
    state: _State,
    wishes: Wishes,
) -> tuple[TensorLike, str, str]:
    """Choose whose values a name gets; return them, what was done, and why it is dropped."""
    average = state.averages.get(name)
    is_average = name in state.spare or name in state.averages.values()
    if is_average and wishes.ema == "drop":
        return tensor, "", "a moving average"
    if is_average and (wishes.ema is not None or wishes.drop_slots):
        kept = wishes.ema is not None and name not in state.spare
        why = "written under its variable's name" if kept else "not asked for"
        return tensor, "", f"a moving average, {why}"
    if average is not None and wishes.ema in ("prefer", "only"):
        return tensors[average], f"its moving average {average}", ""
    if wishes.ema == "only" and name not in state.slots:
        return tensor, "", "it has no moving average"
    if name in state.slots and (wishes.drop_slots or wishes.ema == "only"):
        return tensor, "", "state of an optimizer"
    return tensor, "", ""


class _Turner:
    """Chooses the order of axes: by a rule, or, of what lies in a source, as PyTorch has them."""

    def __init__(self, rules: RuleSet, opened: Opened | None = None) -> None:
        self._rules = rules
        self._variables: Variables | None = None
        self._ops: KernelOps | None = None
        self._failed = ""
        if opened is None:
            return
        from ckptparse.jobs.ops import KernelOps

        self._variables = Variables(
            {name: tensor.shape for name, tensor in opened.tensors.items()},
            _own_names(opened),
            {name: tensor.name for name, tensor in opened.tensors.items()},
        )
        try:
            graph = opened.find_graph()
            self._ops = None if graph is None else KernelOps(graph, _find_copies(opened))
        except CheckpointError as error:
            self._fail(error)

    @property
    def is_idle(self) -> bool:
        """Whether nothing but a rule turns axes."""
        return self._variables is None

    def layout(self, name: str, stored: str, shape: tuple[int, ...]) -> Layout | None:
        """Choose the layout of a tensor; None if there is nothing to say of it.

        Args:
            name: What it is called in the source.
            stored: Its name there, by which a graph knows it.
            shape: Its shape, or that of a part of it.
        """
        axes = self._rules.axes_of(name)
        if axes is not None and len(axes) == len(shape):
            return Layout(axes, "by a rule")
        known = self._variables
        if known is None:
            return None
        try:
            found = torch_layout(name, shape, stored=stored, variables=known, ops=self._ops)
        except CheckpointError as error:
            self._fail(error)
            found = torch_layout(name, shape, stored=stored, variables=known, ops=None)
        return replace(found, why=found.why + self._failed) if found is not None else None

    def _fail(self, error: CheckpointError) -> None:
        """Do without the graph from now on, and say so of every tensor."""
        self._ops = None
        self._failed = f"; the graph beside it cannot be read: {error.message}"


def _own_names(opened: Opened) -> dict[str, str]:
    """Return the own name of the variable under each key, of every copy too; none if it is lost."""
    try:
        graph = opened.object_graph
        attributes = () if graph is None else graph.iter_attributes()
        return {one.checkpoint_key: one.full_name for _, one in attributes}
    except CheckpointError:
        return {}  # The tensors may be whole all the same.


def _find_copies(opened: Opened) -> dict[str, list[str]]:
    """Find what is stored twice, as a Keras 3 export does, and computed with by one name alone.

    Copies have one own name in the object graph, one kind and shape, and one checksum.
    """
    graph, tensors = opened.object_graph, opened.tensors.values()
    if graph is None:
        return {}
    stored = {tensor.name: tensor for tensor in tensors if isinstance(tensor, Tensor)}
    groups: dict[tuple[object, ...], dict[str, None]] = {}
    for _, attribute in graph.iter_attributes():
        key = attribute.checkpoint_key
        tensor = stored.get(key)
        if tensor is not None and attribute.full_name and tensor.crc32c is not None:
            same = (attribute.full_name, tensor.data_type, tensor.shape, tensor.crc32c)
            groups.setdefault(same, {})[key] = None
    found = [list(group) for group in groups.values() if len(group) > 1]
    return {key: [one for one in group if one != key] for group in found for key in group}


class _Maker:
    """Makes what is written of a tensor."""

    def __init__(self, rules: RuleSet, turner: _Turner, dtype: DataType | None) -> None:
        self._rules = rules
        self._turner = turner
        self._dtype = dtype
        self._only_renames = (
            dtype is None
            and turner.is_idle
            and not (rules.transpose or rules.split or rules.former)
        )

    def make(self, name: str, stored: str, tensor: TensorLike, note: str) -> Iterable[Planned]:
        """Return what is made of one tensor."""
        if self._only_renames and not note:
            new = self._rules.rename(name)
            if new is not None:
                return (Planned(name, RenamedTensor(new, tensor), tensor, stored=stored),)
        return self._iter_made(name, stored, tensor, note)

    def _iter_made(
        self, name: str, stored: str, tensor: TensorLike, note: str
    ) -> Iterator[Planned]:
        former = self._rules.former.get(name)
        if former is not None:
            yield self._restore(name, stored, tensor, former)
            return
        notes = (note,) if note else ()
        for part, value, cut in self._cut(name, tensor):
            turned, layout = self._turn(name, stored, value)
            made, converted = self._convert(turned, self._dtype)
            new = self._rules.rename(part)
            if new is None:
                yield Planned(name, None, tensor, dropped="by a rule", stored=stored)
                continue
            said = () if layout is None else (layout.text,)
            done = (*notes, *cut, *said, *converted)
            yield Planned(
                name,
                RenamedTensor(new, made),
                tensor,
                done,
                axes=None if layout is None else layout.axes,
                gates=(None if layout is None else layout.gates) or None,
                stored=stored,
                layout=layout,
            )

    def _restore(self, name: str, stored: str, tensor: TensorLike, row: ConversionRow) -> Planned:
        """Give a tensor the name, the axes and the kind that it had before a conversion."""
        if tensor.shape != row.shape:
            raise UnsupportedError(
                f"Expected the shape {row.shape}, which the conversion gave it, found "
                f"{tensor.shape}",
                tensor=name,
                hint="Undo the conversion of a model of the same shapes",
            )
        value, done = tensor, ["restored"]
        if row.axes is not None or row.gates is not None:
            shape = row.stored.shape
            axes = tuple(range(len(shape))) if row.axes is None else row.axes
            back = _TurningBack(shape, axes, row.gates or ())
            value = DerivedTensor(name, tensor, shape, back)
            for what, order in (("axes", row.axes), ("gates", row.gates)):
                if order is not None:
                    done.append(f"{what} ({','.join(map(str, order))}) undone")
        kind = None if row.dtype == row.stored.dtype else parse_dtype(row.stored.dtype)
        made, converted = self._convert(value, kind)
        done.extend(converted)
        named = RenamedTensor(row.stored.name, made)
        return Planned(name, named, tensor, tuple(done), stored=stored)

    def _cut(
        self, name: str, tensor: TensorLike
    ) -> Iterator[tuple[str, TensorLike, tuple[str, ...]]]:
        """Cut a tensor along its last axis, if a rule says so; each part has a name of its own."""
        found = self._rules.find_split(name)
        if found is None or not tensor.shape:
            yield name, tensor, ()
            return
        names, length = found, tensor.shape[-1]
        if length % len(names):
            raise UnsupportedError(
                f"An axis of {length} cannot be cut into {len(names)} equal parts", tensor=name
            )
        size = length // len(names)
        for number, part in enumerate(names):
            start = number * size
            shape = (*tensor.shape[:-1], size)
            made = DerivedTensor(part, tensor, shape, _Slicer(start, start + size))
            yield part, made, (f"part {number + 1} of {len(names)}",)

    def _turn(self, name: str, stored: str, tensor: TensorLike) -> tuple[TensorLike, Layout | None]:
        layout = self._turner.layout(name, stored, tensor.shape)
        if layout is None or layout.is_idle:
            return tensor, layout
        shape = layout.shape(tensor.shape)
        return DerivedTensor(name, tensor, shape, layout.apply), layout

    def _convert(
        self, tensor: TensorLike, kind: DataType | None
    ) -> tuple[TensorLike, tuple[str, ...]]:
        if kind is None or tensor.data_type == kind or tensor.data_type not in FLOATS:
            return tensor, ()
        made = DerivedTensor(tensor.name, tensor, tensor.shape, _same, data_type=kind)
        return made, (f"from {element_name(tensor.data_type)}",)


@dataclass(frozen=True, slots=True)
class _Slicer:
    """Takes a run of the last axis."""

    start: int
    stop: int

    def __call__(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        part: npt.NDArray[Any] = array[..., self.start : self.stop]
        return part


@dataclass(frozen=True, slots=True)
class _TurningBack:
    """Gives an array the shape, the order of axes and that of gates that it had."""

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    gates: tuple[int, ...] = ()

    def __call__(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        apart: npt.NDArray[Any] = array.reshape([self.shape[axis] for axis in self.axes])
        back: npt.NDArray[Any] = apart.transpose(_inverse(self.axes))
        return reorder_gates(back, _inverse(self.gates))


def _inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    """Return the order that undoes an order."""
    return tuple(sorted(range(len(order)), key=order.__getitem__))


def _same(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array


def _check_collisions(rows: Sequence[Planned]) -> None:
    made = [row.tensor.name for row in rows if row.tensor is not None]
    if len(set(made)) == len(made):
        return
    owners: dict[str, list[str]] = {}
    for row in rows:
        if row.tensor is not None:
            owners.setdefault(row.tensor.name, []).append(row.old)
    twice = {new: old for new, old in owners.items() if len(old) > 1}
    if not twice:
        return
    listed = "; ".join(f"{new!r} of {', '.join(map(repr, old))}" for new, old in twice.items())
    raise UnsupportedError(
        f"{count(len(twice), 'name')} would be given twice: {listed}",
        hint="Change the rules so that each tensor has a name of its own",
    )
