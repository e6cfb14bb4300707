"""What an object graph tells of the tensors in a data file: their order, and which are as large.

    order     nodes by number, attributes in order; Python's own states behind all others
    scalars   the save counter, and what an optimizer's object holds itself
    groups    a variable and its slots; the statistics of a normalization

No size and no type is in the graph (docs/format.md, section 6.6): each rule that gives one is a
guess, and named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

from ckptparse.crc.inversion import is_counter
from ckptparse.dtypes import DataType, item_size
from ckptparse.graph.object_graph import ObjectGraph
from ckptparse.graph.object_node import VARIABLE_VALUE, ObjectNode
from ckptparse.graph.slot_search import find_slots
from ckptparse.problems import EvidenceRule

__all__ = [
    "PYTHON_STATE",
    "STEM_PARTS",
    "TABLE_KEYS",
    "TABLE_VALUES",
    "Item",
    "iter_items",
    "split_stem",
]

PYTHON_STATE = "py_state"
"""What the graph calls a string of Python's own; these are stored behind all else."""
_TABLE = "/table"
TABLE_KEYS, TABLE_VALUES = "/table-keys", "/table-values"
"""What the names of a lookup table's tensors end with; the graph has the stem alone."""
_ITERATOR, _ITERATOR_STATE = "/ITERATOR", "_STATE"
"""The same of an iterator over a dataset."""
STEM_PARTS = {"table": ("-keys", "-values"), "ITERATOR": (_ITERATOR_STATE,)}
"""What the names of tensors end with of which the graph has but the stem: tables, iterators."""
_MOST_OPTIMIZERS = 64
"""Optimizers of one graph: to find the slots of one may take a walk over the whole graph."""
_MEANS = frozenset({"m", "momentum"})
_SQUARES = frozenset({"v", "velocity"})
"""What Keras and TensorFlow 1 call Adam's slots."""
_NORMALIZATION = frozenset({"gamma", "beta", "moving_mean", "moving_variance"})
_KERNELS = ("kernel", "_kernel")
_STEPS = frozenset({"step", "epoch"})
"""What loops of one's own call their counters, by their paths: of 32 bits unless asked for."""
_METRICS, _OF_MEANS = "keras_api/metrics/", frozenset({"total", "count"})
"""Keras 2 keeps a mean of the loss, and what it calls the variables of that."""
_LOSS_STEPS, _LOSS_SCALES = frozenset({"step_counter", "good_steps"}), "current_loss_scale"
"""What Keras 3 and Keras 2 call the steps since the scale of the loss was changed, and what Keras 2
calls that scale: it keeps both in an object of their own."""
_SEED = "seed_generator_state"
_SEED_WORDS = 2
"""Elements of a Keras 3 seed generator's state: seed and counter."""


@dataclass(frozen=True, slots=True)
class Item:
    """One tensor in the order of the data file."""

    key: str
    data_type: int | None
    """As it most likely is; None if nothing tells that."""
    count: int | None
    """How many elements; None if no rule of the graph alone tells that."""
    rule: EvidenceRule | None
    """The rule that told `count`."""
    group: int
    """A number that it shares with the tensors of as many elements."""
    partner: EvidenceRule | None = None
    """Why it is as large as those of its group."""
    slot: str = ""
    """`mean` or `square`, of Adam's slots; else the slot's own name. Empty if it is none."""
    full_name: str = ""
    """Of the variable."""
    kernel: int | None = None
    """Of a bias: the group of its kernel, whose size is a multiple of its own."""

    @property
    def held(self) -> tuple[str, str]:
        """The path of the object that holds it, and what that calls it.

        Keras 3 has the trained variables in a list of the optimizer's, and calls them `_kernel`.
        """
        holder, _, name = self.key.partition("/.ATTRIBUTES/")[0].rpartition("/")
        if name.isdecimal() and self.full_name:
            holder, _, name = self.full_name.rpartition("/")
        return holder, name.lstrip("_")

    @property
    def width(self) -> int | None:
        """Bytes of an element."""
        return None if self.data_type is None else item_size(self.data_type)


def iter_items(graph: ObjectGraph) -> Iterator[Item]:
    """Iterate over the tensors that an object graph names, in the order of the data file.

    Raises:
        MalformedError: A node refers to one that is not there.
    """
    seen: set[str] = set()
    known = _Known(graph)
    last: list[Item] = []
    for number, attribute in graph.iter_attributes():
        if attribute.checkpoint_key in seen:
            continue
        seen.add(attribute.checkpoint_key)
        if attribute.name == PYTHON_STATE:
            last.append(known.state(attribute.checkpoint_key, number))
        elif attribute.name == VARIABLE_VALUE:
            yield known.variable(attribute.checkpoint_key, attribute.full_name, number)
        else:
            # A stem of several keys, or what another program's saver writes.
            yield Item(attribute.checkpoint_key, None, None, None, known.group_of(number))
    yield from last


def split_stem(item: Item) -> tuple[Item, ...]:
    """Return the tensors that a key stands for; others as they are.

    These are the two of a lookup table, which have as many elements, and the state of an iterator.
    Keras's vocabularies have strings as keys, and numbers as values.
    """
    told = item.data_type is not None or item.rule is not None
    if not told and item.key.endswith(_ITERATOR):
        return (replace(item, key=item.key + _ITERATOR_STATE, data_type=DataType.DT_VARIANT),)
    if told or not item.key.endswith(_TABLE):
        return (item,)
    stem = item.key.removesuffix(_TABLE)
    keys = replace(item, key=stem + TABLE_KEYS)
    return keys, replace(item, key=stem + TABLE_VALUES, data_type=DataType.DT_INT64)


class _Known:
    """What the graph tells of its variables."""

    def __init__(self, graph: ObjectGraph) -> None:
        self._graph = graph
        self._groups = list(range(graph.node_count))
        self._partners: dict[int, EvidenceRule] = {}
        self._slots: dict[int, str] = {}
        self._scalars: set[int] = set()
        self._kernels: dict[int, int] = {}
        optimizers = (node for node in graph.nodes() if graph.is_optimizer(node.node_id))
        for node in islice(optimizers, _MOST_OPTIMIZERS):
            self._take_optimizer(node)
        for node in graph.nodes():
            self._take_layer(node)

    def group_of(self, number: int) -> int:
        """Return the lowest number of a group."""
        while self._groups[number] != number:
            self._groups[number] = self._groups[self._groups[number]]
            number = self._groups[number]
        return number

    def state(self, key: str, number: int) -> Item:
        """Describe a state of Python's own: a string."""
        return Item(key, DataType.DT_STRING, 1, EvidenceRule.STRING_SIZE, self.group_of(number))

    def variable(self, key: str, full_name: str, number: int) -> Item:
        """Describe a variable."""
        group = self.group_of(number)
        path = key.partition("/.ATTRIBUTES/")[0]
        own_name = path.rpartition("/")[2]
        if (is_counter(key) or own_name in _LOSS_STEPS) and number not in self._slots:
            return Item(key, DataType.DT_INT64, 1, EvidenceRule.COUNTER_SIZE, group)
        if number not in self._slots and path in _STEPS:
            return Item(key, None, None, EvidenceRule.STEP_SIZE, group)
        of_mean = _METRICS in key and own_name in _OF_MEANS
        if number in self._scalars or of_mean or own_name == _LOSS_SCALES:
            return Item(key, DataType.DT_FLOAT, 1, EvidenceRule.SCALAR_SIZE, group)
        if full_name.rpartition("/")[2] == _SEED:
            return Item(key, DataType.DT_UINT32, _SEED_WORDS, EvidenceRule.SEED_SIZE, group)
        kernel = self._kernels.get(number)
        return Item(
            key,
            DataType.DT_FLOAT,
            None,
            None,
            group,
            self._partners.get(number),
            self._slots.get(number, ""),
            full_name,
            None if kernel is None else self.group_of(kernel),
        )

    def _take_optimizer(self, optimizer: ObjectNode) -> None:
        slots = find_slots(optimizer)
        for variable, by_slot in slots.items():
            for name, slot in by_slot.items():
                self._join(variable, slot, EvidenceRule.SLOT_SIZE)
                kind = name.rpartition("/")[2]
                alike = "mean" if kind in _MEANS else "square" if kind in _SQUARES else kind
                self._slots[slot] = alike
        own = {slot for by_slot in slots.values() for slot in by_slot.values()}
        held = {child.node_id for child in optimizer.children.values() if child.is_variable}
        self._scalars |= held - own - slots.keys()

    def _take_layer(self, node: ObjectNode) -> None:
        children = _own_variables(node)
        first, *rest = [*(children[name] for name in sorted(_NORMALIZATION & children.keys())), -1]
        for other in rest[:-1]:
            self._join(first, other, EvidenceRule.LAYER_SIZE)
        kernel = next((children[name] for name in _KERNELS if name in children), None)
        if kernel is not None and "bias" in children:
            self._kernels[children["bias"]] = kernel

    def _join(self, first: int, second: int, rule: EvidenceRule) -> None:
        low, high = sorted((self.group_of(first), self.group_of(second)))
        self._groups[high] = low
        self._partners.setdefault(first, rule)
        self._partners.setdefault(second, rule)


def _own_variables(node: ObjectNode) -> Mapping[str, int]:
    """Return the numbers of an object's variables by their local names."""
    message = node.graph.message(node.node_id)
    return {
        child.local_name: child.node_id
        for child in message.children
        if child.node_id < node.graph.node_count and node.graph.is_variable(child.node_id)
    }
