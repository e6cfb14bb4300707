"""What the names of a name-based checkpoint say: variable, slot, moving average or counter.

    w                              a variable
    w/Adam, w/Adam_1               its slots: the optimizer's name, numbered for each variable
    train/w/Momentum               the optimizer ran in a scope
    w/t_0/Adagrad                  the slot of a partitioned variable `w`: TensorFlow cuts as many
                                   characters from `train/w/part_0/Adagrad` as `w/part_0/` has
    w/part_0/Ftrl                  the same with a longer scope
    w/adam_m, w/adam_v             BERT's AdamWeightDecay, LAMB
    w_slot_vr, w_slot_vc, w_slot_v Mesh TensorFlow's Adafactor
    training/Adam/w/m              tf.keras in TF1
    Adam/m/w                       Keras 2.11 and newer
    w/ExponentialMovingAverage     a moving average
    w/biased, w/local_step         what an average with zero_debias keeps beside it
    beta1_power, beta2_power       counters of Adam; numbered for each optimizer
    global_step                    the counter of steps

A name alone proves nothing: a slot or an average needs its variable in the checkpoint, with a shape
that fits. All else is a variable.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from ckptparse.graph.roles import GraphRoles, GraphSlot, NamedOptimizer, NameRoles

__all__ = [
    "AVERAGE_SLOTS",
    "find_roles",
    "is_average_name",
    "is_counter_name",
]

_MOST_SCOPES, _LONGEST_NAME = 64, 2000
"""Scopes and characters that a name may have to be looked at: more are no name of a program."""

_ADAM = ("m", "v")
_RMSPROP = ("rms", "momentum")
_RMSPROP_CENTERED = ("rms", "mg", "momentum")
_SLOTS: dict[str, tuple[str, ...]] = {
    "adadelta": ("accum", "accum_update"),
    "adafactor": ("v", "vc"),
    "adagrad": ("accumulator",),
    "adagradda": ("gradient_accumulator", "gradient_squared_accumulator"),
    "adam": _ADAM,
    "adamasync": _ADAM,
    "adamax": _ADAM,
    "adamw": _ADAM,
    "adamweightdecay": _ADAM,
    "addsign": ("m",),
    "ftrl": ("accum", "linear"),
    "lamb": _ADAM,
    "lars": ("momentum",),
    "lazyadam": _ADAM,
    "momentum": ("momentum",),
    "momentumw": ("momentum",),
    "nadam": _ADAM,
    "powersign": ("m",),
    "proximaladagrad": ("accumulator",),
    "rmsprop": _RMSPROP,
}
"""Names of optimizers, in lower case and bare -> what they keep, in the order they make it."""

_KERAS_OPTIMIZERS = {*_SLOTS, "adamw", "lion", "movingaverage", "sgd", "swa"}
_KERAS_SLOTS = {
    *("m", "v", "vhat", "momentum", "rms", "mg", "accumulator", "accum_grad", "accum_var"),
    *("linear", "accum", "velocity", "velocity_hat", "average", "average_gradient", "u", "slow"),
}
_AVERAGES = {"exponentialmovingaverage", "ema", "movingaverage"}
AVERAGE_SLOTS = {"average"}
"""Slots that are moving averages of their variables: of Keras's `use_ema`, of SWA."""

_HYPERPARAMETERS = {
    *("iter", "iterations", "iteration", "lr", "learning_rate", "decay", "beta_1", "beta_2"),
    *("rho", "momentum", "epsilon", "beta", "learning_rate_power", "weight_decay"),
    *("l1_regularization_strength", "l2_regularization_strength", "initial_accumulator_value"),
    *("m_schedule", "schedule_decay"),
}
_STEPS = {"iter", "iterations", "iteration"}

_NUMBERED = re.compile(r"(?s)(.+?)(?:_(\d{1,6}))?")
_PAIR = re.compile(r"(?s)([A-Za-z]\w*?)_([mv])(?:_(\d{1,6}))?")
_MESH = re.compile(r"(?s)(.+)_slot_(v|vr|vc|m)")
_BETA_POWER = re.compile(r"beta[12]_power(?:_(\d{1,6}))?")
_COUNTER = re.compile(r"(?i)(?:global|training|train|eval|local)_?step(?:_\d{1,6})?")
_LAST_DIGITS = re.compile(r"\d{1,9}$")
_UNNAMED = re.compile(r"Variable(?:_\d{1,6})?")

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    """A slot before it is known which of several optimizers of that name keeps it."""

    name: str
    variable: str
    scope: str
    label: str
    number: int
    slot: str | None = None
    """None if the optimizer's kind and the number tell it."""
    owner: str | None = None
    """The optimizer's name in the graph, if there is a graph."""


def find_roles(shapes: Mapping[str, Shape], graph: GraphRoles | None = None) -> NameRoles:
    """Tell variables, slots, moving averages and counters apart.

    Args:
        shapes: Shape of every stored tensor, by name.
        graph: What the checkpoint's graph says of them, which is believed before names are.
    """
    search = _Search(shapes, graph or GraphRoles())
    for name in shapes:
        search.look_at(name)
    return search.finish()


def is_average_name(name: str) -> bool:
    """Tell whether a name's last part is what TensorFlow calls a moving average."""
    label, _ = _split_number(name.rpartition("/")[2])
    return _bare(label) in _AVERAGES


def is_counter_name(name: str) -> bool:
    """Tell whether a name's last part is what programs call a counter of steps."""
    return _COUNTER.fullmatch(name.rpartition("/")[2]) is not None


class _Search:
    """Goes through the names once, then gathers what belongs together."""

    def __init__(self, shapes: Mapping[str, Shape], graph: GraphRoles) -> None:
        self._shapes = shapes
        self._graph = graph
        self._found: list[_Found] = []
        self._averages: dict[str, list[str]] = {}
        self._counters: list[str] = []
        self._beta_powers: list[tuple[str, str, int]] = []
        self._optimizers: dict[str, NamedOptimizer] = {}
        self._by_owner: dict[str, NamedOptimizer] = {}

    def look_at(self, name: str) -> None:
        """Find out what one name is."""
        if len(name) > _LONGEST_NAME or name.count("/") > _MOST_SCOPES:
            return
        base, _, leaf = name.rpartition("/")
        if self._shapes[name] == () and self._is_counter(name, base, leaf):
            return
        found = next(self._slots(name, base, leaf), None)
        known = self._graph.slots.get(name)
        if known is not None and self._fits(known.variable, self._shapes[name], ""):
            found = _from_graph(name, known, found)
        if found is not None:
            self._found.append(found)
        elif not self._is_average(name, base, leaf):
            self._is_helper(name, base, leaf)

    def finish(self) -> NameRoles:
        """Gather the slots by optimizer, and give each what counts for it."""
        groups: dict[tuple[str, str], list[_Found]] = {}
        for item in self._found:
            groups.setdefault((item.scope, item.label), []).append(item)
        for group in groups.values():
            self._gather(group)
        for scope, name, number in self._beta_powers:
            owner = self._owner_of_power(scope, name, number)
            (self._counters if owner is None else owner.others).append(name)
        for name in self._shapes:
            self._take_hyperparameter(name)
        for optimizer in self._optimizers.values():
            for variable, slots in optimizer.slots.items():
                averages = [name for slot, name in slots.items() if slot in AVERAGE_SLOTS]
                if averages:
                    self._averages.setdefault(variable, []).extend(averages)
        ordered = dict(sorted(self._optimizers.items(), key=lambda item: _split_number(item[0])))
        return NameRoles(ordered, self._averages, self._counters)

    # One name

    def _is_counter(self, name: str, base: str, leaf: str) -> bool:
        power = _BETA_POWER.fullmatch(leaf)
        if power is not None:
            self._beta_powers.append((base, name, int(power[1] or 0)))
        elif is_counter_name(leaf):
            self._counters.append(name)
        else:
            return False
        return True

    def _slots(self, name: str, base: str, leaf: str) -> Iterator[_Found]:
        """Iterate over what a name may be as a slot; the first that fits counts."""
        shape = self._shapes[name]
        mesh = _MESH.fullmatch(name) if "_slot_" in leaf else None
        if mesh is not None and self._fits(mesh[1], shape, "adafactor"):
            yield _Found(name, mesh[1], "", "Adafactor", 0, mesh[2])
        yield from self._keras_slots(name, base, leaf)
        label, number = _split_number(leaf)
        if _bare(label) in _SLOTS:
            for variable, scope in self._bases(base, shape, _bare(label)):
                yield _Found(name, variable, scope, label, number)
        pair = _PAIR.fullmatch(leaf)
        if pair is not None and _SLOTS.get(_bare(pair[1])) == _ADAM:
            for variable, scope in self._bases(base, shape, ""):
                yield _Found(name, variable, scope, pair[1], 2 * int(pair[3] or 0), pair[2])

    def _keras_slots(self, name: str, base: str, leaf: str) -> Iterator[_Found]:
        """Iterate over `scope/Adam/w/m` and `Adam/m/w`."""
        shape = self._shapes[name]
        if leaf in _KERAS_SLOTS:
            for variable, scope in self._bases(base, shape, ""):
                if self._is_keras_scope(scope):
                    above, _, label = scope.rpartition("/")
                    yield _Found(name, variable, above, label, 0, leaf)
        parts = name.split("/")
        for start in range(2, len(parts)):
            label, slot = parts[start - 2 : start]
            if slot not in _KERAS_SLOTS:
                continue
            above, variable = "/".join(parts[: start - 2]), "/".join(parts[start:])
            if self._fits(variable, shape, "") and self._is_keras_scope(_join(above, label)):
                yield _Found(name, variable, above, label, 0, slot)

    def _is_keras_scope(self, scope: str) -> bool:
        label, _ = _split_number(scope.rpartition("/")[2])
        return _bare(label) in _KERAS_OPTIMIZERS or self._has_steps(scope)

    def _is_average(self, name: str, base: str, leaf: str) -> bool:
        if not is_average_name(leaf):
            return False
        for variable, _ in self._bases(base, self._shapes[name], ""):
            self._averages.setdefault(variable, []).append(name)
            return True
        return False

    def _is_helper(self, name: str, base: str, leaf: str) -> None:
        """Take what an average with `zero_debias` keeps: its biased value beside a counter."""
        if leaf == "biased" and f"{base}/local_step" in self._shapes:
            bases = self._bases(base, self._shapes[name], "")
            if next(bases, None) is not None:
                self._counters.append(name)

    # What stands before a slot's own name

    def _bases(self, base: str, shape: Shape, kind: str) -> Iterator[tuple[str, str]]:
        """Iterate over variables whose slot may stand under `base`, with the scope before them."""
        parts = base.split("/")
        for start in range(len(parts)):
            variable = "/".join(parts[start:])
            if self._fits(variable, shape, kind):
                yield variable, "/".join(parts[:start])
        for end in range(len(parts) - 1, 0, -1):
            variable, rest = "/".join(parts[:end]), "/".join(parts[end:])
            if _is_cut_part(variable, rest) and self._fits(variable, shape, kind):
                yield variable, ""

    def _fits(self, variable: str, shape: Shape, kind: str) -> bool:
        """Tell whether a variable is there whose slot may have such a shape."""
        whole = self._shapes.get(variable)
        if whole is None or shape == whole:
            return whole is not None
        if kind != "adafactor" or len(shape) != len(whole) - 1:
            return False
        return any(whole[:axis] + whole[axis + 1 :] == shape for axis in range(len(whole)))

    # What belongs together

    def _gather(self, group: list[_Found]) -> None:
        """Share the slots of one name among the optimizers of that name.

        A graph tells them. Without one, the numbers do, if several have slots of one variable.
        """
        by_variable: dict[str, list[_Found]] = {}
        for item in sorted(group, key=lambda item: item.number):
            by_variable.setdefault(item.variable, []).append(item)
        kind = _bare(group[0].label)
        kinds = _slots_of(kind, by_variable.values())
        labels = _labels_of(group)
        for variable, items in by_variable.items():
            for item in items:
                instance, position = divmod(item.number, len(kinds)) if kinds else (0, 0)
                if item.slot is not None:
                    slot = item.slot
                elif kind == "adafactor":
                    slot = self._adafactor_slot(variable, item, position)
                else:
                    slot = kinds[position]
                self._place(item, slot, labels.get(item.owner, _number(item.label, instance)))

    def _place(self, item: _Found, slot: str, label: str) -> None:
        optimizer = self._optimizer(_join(item.scope, label))
        if item.owner is not None:
            self._by_owner.setdefault(item.owner, optimizer)
        slots = optimizer.slots.setdefault(item.variable, {})
        # Two names of one slot, of two parts of a variable perhaps: each is kept.
        if slot in slots:
            slot = item.name.removeprefix(f"{item.variable}/")
        slots[slot] = item.name

    def _adafactor_slot(self, variable: str, item: _Found, position: int) -> str:
        """Tell the slots of Adafactor by their shapes: the first factor lacks the last axis."""
        shape, whole = self._shapes[item.name], self._shapes[variable]
        if shape == whole:
            return "m" if f"{item.name}_1" in self._shapes else "v"
        others = (f"{item.name}_1", f"{item.name}_2")
        before = any(self._shapes.get(other) == whole[:-2] + whole[-1:] for other in others)
        return "vr" if shape == whole[:-1] and (position == 0 or before) else "vc"

    def _optimizer(self, name: str) -> NamedOptimizer:
        return self._optimizers.setdefault(name, NamedOptimizer(name))

    def _owner_of_power(self, scope: str, name: str, number: int) -> NamedOptimizer | None:
        """Find the optimizer of a beta power: that of its scope and number, else the only one."""
        owner = self._graph.others.get(name)
        if owner is not None and owner in self._by_owner:
            return self._by_owner[owner]
        adams = [one for one in self._optimizers.values() if _is_adam(one)]
        near = [one for one in adams if one.name.rpartition("/")[0] == scope] or adams
        return near[min(number, len(near) - 1)] if near else None

    def _take_hyperparameter(self, name: str) -> None:
        """Give an optimizer of tf.keras its hyperparameters, and slots that name no variable."""
        scope, _, leaf = name.rpartition("/")
        if leaf in _HYPERPARAMETERS and self._shapes[name] == ():
            if scope in self._optimizers or self._has_steps(scope):
                self._optimizer(self._known_as(scope)).others.append(name)
        elif _UNNAMED.fullmatch(leaf):
            # Keras 2 in TF1: `Adam/iterations`, and slots `training/Adam/Variable_3`.
            above, _, label = scope.rpartition("/")
            if above == "training" and self._has_steps(label):
                self._optimizer(self._known_as(label)).others.append(name)

    def _has_steps(self, scope: str) -> bool:
        return bool(scope) and any(f"{scope}/{step}" in self._shapes for step in _STEPS)

    def _known_as(self, scope: str) -> str:
        """Return the name of the optimizer that a scope is of: `Adam` is `training/Adam` too."""
        if scope in self._optimizers:
            return scope
        ends = [name for name in self._optimizers if name.endswith(f"/{scope}")]
        return ends[0] if len(ends) == 1 else scope


def _from_graph(name: str, known: GraphSlot, found: _Found | None) -> _Found:
    """Believe the graph, and call the optimizer as the names do if they say the same."""
    if found is not None and found.variable == known.variable:
        return replace(found, slot=found.slot or known.slot, owner=known.optimizer)
    scope, _, label = known.optimizer.rpartition("/")
    return _Found(name, known.variable, scope, label, 0, known.slot, known.optimizer)


def _labels_of(group: list[_Found]) -> dict[str | None, str]:
    """Name the optimizers that a graph tells apart, as it does if they are called as their slots.

    Of one optimizer, the numbers of its slots are no matter either.
    """
    label = group[0].label
    owners = sorted({item.owner for item in group if item.owner is not None})
    own = [owner.rpartition("/")[2] for owner in owners]
    called_so = all(_bare(_split_number(name)[0]) == _bare(label) for name in own)
    if len(owners) > 1 and not (called_so and len(set(own)) == len(own)):
        own = [_number(label, index) for index in range(len(owners))]
    elif len(owners) == 1:
        own = [label]
    return dict(zip(owners, own, strict=True))


def _number(label: str, number: int) -> str:
    return f"{label}_{number}" if number else label


def _join(scope: str, name: str) -> str:
    return f"{scope}/{name}" if scope else name


@lru_cache(maxsize=4096)
def _split_number(leaf: str) -> tuple[str, int]:
    """Split `Adam_1` into name and number; the first has none."""
    numbered = _NUMBERED.fullmatch(leaf)
    return (numbered[1], int(numbered[2] or 0)) if numbered else (leaf, 0)


@lru_cache(maxsize=4096)
def _bare(label: str) -> str:
    """Return an optimizer's name without what differs: `LAMBOptimizer` is `lamb`."""
    return label.lower().replace("_", "").removesuffix("optimizer")


def _is_adam(optimizer: NamedOptimizer) -> bool:
    """Tell whether an optimizer has beta powers, by what it keeps."""
    return any("m" in slots and "v" in slots for slots in optimizer.slots.values())


def _slots_of(kind: str, groups: Iterable[list[_Found]]) -> tuple[str, ...]:
    """Return what an optimizer of a kind keeps; a centered RMSProp keeps one more."""
    if kind != "rmsprop":
        return _SLOTS.get(kind, ())
    counts = {len(group) for group in groups}
    return _RMSPROP_CENTERED if all(count % 3 == 0 for count in counts) else _RMSPROP


def _is_cut_part(variable: str, rest: str) -> bool:
    """Tell whether `rest` is what a cut leaves of `SCOPE/VARIABLE/part_N`, from its end."""
    digits = _LAST_DIGITS.search(rest)
    if digits is None:
        return False
    whole = f"{variable}/part_{digits[0]}"
    return whole.endswith(rest) or rest.endswith(f"/{whole}")
