"""How much a file may ask for before it is refused with `LimitError`.

With the defaults, every checkpoint that TensorFlow is known to have written can be read, and a
small hostile file cannot cost more time and memory than the machine of a service has.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import SupportsIndex

from ckptparse.errors import LimitError

__all__ = [
    "CONSTANT_COUNTS_AS",
    "CONSTANT_TAKEN_AS",
    "DEFAULT_LIMITS",
    "FIELDS_A_NODE",
    "NUMBERS_AN_OBJECT",
    "PARTS_AN_OBJECT",
    "VALUES_AN_OBJECT",
    "Budget",
    "Limits",
    "Members",
    "Objects",
    "Singles",
    "check_all_strings",
    "check_legacy",
    "check_listed",
    "check_members",
    "check_small",
    "count_named",
    "limit_error",
    "most_members",
    "take_named",
]

CONSTANT_COUNTS_AS = 2
"""What a constant of a graph counts as, of `Limits.small_tensors`: a node and a message are taken
apart."""
CONSTANT_TAKEN_AS = 3
"""What it counts as for a job, which reads its value: one whose dtype comes last is taken apart
three times."""
FIELDS_A_NODE = 8
"""Fields of nodes, or arguments of a function, that count as one node of `Limits.nodes`."""
_NODE_BYTES = 128
"""Bytes of a graph for each node beyond `Limits.nodes`."""
_SMALL_BYTES = 512
"""Bytes of the files for each tensor beyond `Limits.small_tensors`."""
_NAME_LENGTH = 256
"""Characters of a name that count as one tensor of `Limits.small_tensors`."""
_LISTED_BYTES = 1 << 11
"""Bytes of the files for each tensor that is listed or written beyond an eighth of
`Limits.small_tensors`."""
_SINGLE_BYTES = 1 << 12
"""Bytes of the files for each entry beyond `Limits.single_entries`."""
_OBJECT_BYTES = 512
"""Bytes of the files for each object beyond `Limits.objects`."""
PARTS_AN_OBJECT, VALUES_AN_OBJECT, NUMBERS_AN_OBJECT = 4, 8, 32
"""Children, attributes and slots; values in a structure; dimensions and numbers of objects, that
count as one object; see `Limits.objects`."""
_MOST = 1 << 62
"""What a limit is at most: nothing has more bytes, and a sum of two is still a number that
`islice` takes."""
_LEAST_BYTES = 2
"""Bytes of an object in a message, at least: a tag and a length."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Limits:
    """Upper bounds, each inclusive. Sizes are in bytes.

    Raise one with `dataclasses.replace(DEFAULT_LIMITS, entries=...)` or `Limits(entries=...)`.
    """

    index_bytes: int = 1 << 30
    """Size of an index file, or of a V1 file's index block. An entry takes about 60 bytes, so 1 GiB
    holds more than 10 million of them."""
    entries: int = 20_000_000
    """Entries of one table. Each takes at least 3 bytes in the file, and some hundred in memory.
    Checkpoints of more than 100,000 tensors are rare. One block has at most 1/16 of these, or
    100,000: writers make blocks of 256 KiB."""
    key_bytes: int = 1 << 25
    """Bytes of a table's keys, in full, beyond 6 times its blocks. Keys share their first bytes
    with the one before, and TensorFlow stores a full key every 16 entries: names of 300 bytes take
    5 times their blocks. Without full keys they can grow with the square of the file. Those of one
    block take at most an eighth of `memory_bytes`, beyond twice the block."""
    blocks: int = 2048
    """Blocks of one table, beyond one for each 4 KiB of its file. Writers make blocks of 4 to 256
    KiB. A hostile table would have one for each 25 bytes, and each takes 30 to 150 µs. Chunks of a
    Riegeli file (a `.cpb`) are bounded likewise: writers make chunks of 1 MiB."""
    rank: int = 254
    """Dimensions of a tensor: 254 is TensorFlow's own bound."""
    shards: int = 4096
    """Data files of a checkpoint, beyond one for each 64 KiB of them. A header states any number in
    a few bytes, and each is looked for and listed. Real checkpoints have one for each device or
    host. So many indexes that saves left behind are looked at, too. A file of a V1 checkpoint
    counts four times, and there are no more for their size."""
    slices: int = 1_000_000
    """Slices of one tensor: each costs a Python object and a lookup. Real tensors have one for each
    device or parameter server."""
    strings: int = 1 << 26
    """Elements of one string or variant tensor. Each costs a Python object of 33 bytes or more, so
    64 million of them take some 3 GiB, from a file of 64 MiB. All tensors of a V1 checkpoint have
    1/256 as many, and one for each 8 bytes of the files: each is a field, and takes 1 µs. So have
    all constants of a graph that one call of `convert` or `average` takes."""
    message_bytes: int = (1 << 31) - 1
    """Size of one protobuf message: protobuf's own bound."""
    text_bytes: int = 1 << 25
    """Size of one message in text: a graph's `.pbtxt`, a state file. Text as protobuf prints it
    takes about a tenth of a second for each MiB. Of any other form (lists in brackets, `<`, single
    quotes) it takes seconds: 64 KiB of such text are read, or 1/128 of this if that is more. Of
    fields there may be 1/256 of this (at least 65,536), and one for each 16 bytes: one takes 1 to 2
    µs."""
    state_bytes: int = 1 << 20
    """Size of a state file. It lists a path and a time for each checkpoint, some 100 bytes: 1 MiB
    lists 10,000 checkpoints, and takes a second. A path counts as 100 bytes at least, any other
    value as 16. A rule file has half as many."""
    nesting: int = 100
    """Messages inside messages: every protobuf runtime accepts this depth, and some no more. Groups
    of a message have less than 10,000 fields: TensorFlow writes none."""
    fill_bytes: int = 1 << 28
    """Bytes that a few stored values may be repeated to fill, of all tensors that one call takes.
    A constant of a graph states any shape with one value."""
    decompressed_bytes: int = 1 << 30
    """Size of one compressed block or chunk when decompressed. The chunks of one SavedModel may sum
    to this, or to 16 times their file if that is more."""
    memory_bytes: int = 1 << 30
    """What the values of one call may take in memory beyond the size of its files, all together:
    elements, strings and their objects, values that repeat, tensors that share bytes; what an index
    lists (350 bytes for each entry, and twice its name); paths of an HDF5 file (four bytes for each
    character); what the JSON of a file becomes. Checkpoints that one call opens together share
    it."""
    single_entries: int = 4096
    """Entries that are looked at one by one, beyond one for each 4 KiB of the files. `verify` and
    `recover` do so with strings, slices, what a damaged block still has, and tensors of a V1 file
    that are damaged or in slices: the others are left out, and the report says so. `recover` does
    so with what other evidence describes of an index that is lost or damaged, too. `read` does so
    with tensors of a V2 checkpoint: variants, long strings, slices that are no whole rows; so do
    `read`, `verify`, `stats` and `diff` with constants of a graph that are strings or variants; and
    more slices than these are not listed (one counts once more for each 4 KiB of its tensor's name,
    which its key repeats). Each takes a tenth of a millisecond.
    Of entries in blocks with less than one key in full for 64 of them, 32 count as one, beyond
    one for each 128 bytes of the table: TensorFlow writes one for 16.
    A record of a V1 file may have 1/256 as many fields that TensorFlow does not write (or 16), and
    one for each 64 bytes. A map file of ddrescue has so many lines, beyond one for each 16
    bytes."""
    attempts: int = 256
    """Damaged tensors that `recover` tries to repair, beyond one for each 32 KiB of the files and
    the evidence: one takes a millisecond or two. One that is proved in the end, or of which no byte
    is there, counts as an eighth, and one that surely lies elsewhere in its file not at all. The
    others are reported, and nothing is got back of them. One without a checksum counts as a quarter
    if some elements may be wrong; of the others these are not marked. A damaged data file of which
    it is looked for what happened counts as 8, in `verify` too. Behind a shift, 500 checksums for
    each are compared at other distances, and one for each 16 bytes of the data file. Parts of
    damaged data files are looked for in each file of the evidence: 16 times as many pairs of one
    and the other may be."""
    steps: int = 10_000
    """Edges of a graph that are followed to answer one question, beyond one for each 128 bytes of
    the graph: who uses its variables, where names of files come from, what its Savers save. So many
    nodes may do something beyond computing, or call functions, each of which counts as 4. One takes
    10 µs. Real graphs have a node for each 200 bytes, and few of them are followed.
    Of an object graph, so many objects are looked at for its optimizers or its layers, beyond four
    for each object of 64 bytes: real ones take one."""
    nodes: int = 20_000
    """Nodes of a graph and its functions, beyond one for each 128 bytes of it. A function counts as
    8 nodes; 8 inputs, attributes or elements of a list, and 4 entries of collections, count as one.
    So do 8 fields of an attribute, or of the tensor that it is, that no writer writes so. Real
    graphs have a node for each 200 bytes, and one takes 10 µs."""
    objects: int = 20_000
    """What a file lists that becomes an object each, beyond one for each 512 bytes of the files of
    a checkpoint, or of the file of a SavedModel: objects of an object graph; assets, signatures
    with their tensors, functions; what Keras wrote of a layer; records of a chunked SavedModel, and
    the fields that they go to. A meta graph counts as 8; four children, attributes or slots of
    objects count as one, and so do 8 values in a structure, or 32 dimensions. One takes 10 to 40
    µs. A hostile file has one in two bytes; those of real ones take 64 bytes or more, beside
    tensors and graphs."""
    small_tensors: int = 20_000
    """Tensors that one call of `convert`, `average` or `stats` takes from files, beyond one for
    each 512 bytes of them, and `diff` from either side if no checksum tells that they are equal.
    The least takes 20 to 40 µs; on its way to an npz or HDF5 it counts twice, to a `.npy` file four
    times. Each 256 characters of a name count as one more: in memory names can take far more than
    in their index. Tensors of real checkpoints have more bytes; whoever has many that do not takes
    some at a time (`include`), or raises this. Each constant of a graph counts twice as much
    to be listed, three times to be read by one of these.
    Of the tensors of a V2 checkpoint that are damaged or share bytes, `verify` and `recover` look
    at so many. `read` takes so many that are strings from a V2 checkpoint, and an index may have so
    many entries that are not written as protobuf writes them (16 of them count as one if none has
    more than 16 fields, or one of them twice); of the others `verify` and `recover` look at some.
    `ls` lists so many. A report as JSON, or in a pipe, lists an eighth as many, and one for each 2
    KiB; the others are counted. `Recovery.write` and what converts or compares a recovery take as
    many; one in HDF5 counts three times, in a `.npy` file four times. `write` takes half as many
    from an open checkpoint. As many runs of bytes are mapped, if entries lie apart or over each
    other. `tf.print_tensors_in_checkpoint_file` prints a third as many, and 16 elements count as
    one more.
    A V1 checkpoint has a third as many that lie in one piece, beyond one for each KiB: each is a
    message, and takes up to 100 µs. A file of shapes has so many names, beyond one for each 40
    bytes, and the state file of a scan so many places, beyond one for each 24."""
    parts: int = 100_000
    """Parts of a file that `annotate` tells of, beyond one for each 128 bytes of the files. The
    index of a checkpoint has one for each 4 bytes, a graph one for each 10. A part takes 3 µs, and
    `dump` 2 to 5 µs more. What lies in a group counts, too: one for each 8 bytes. No message of
    TensorFlow has groups."""
    shared_bytes: int = 1 << 30
    """Bytes that tensors which are read together may take beyond the size of the data files.
    Entries of a small file may all refer to the same bytes."""

    members: int = 100_000
    """Members of an archive that a checkpoint lies in, arrays of an npz and tensors of a
    safetensors file (which count half), groups and datasets of an HDF5 file (which count one and a
    half; one that does not lie in one piece eight, and three pieces one more). A small file may
    have 10,000, or a tenth of this if that is more, and one for each KiB, as it is packed. A member
    takes 50 µs. A compressed file may have so many streams, one after the other; 128 bytes of extra
    fields of a zip count as a member. The JSON of a file has so many lists and objects, beyond one
    for each 16 bytes."""
    unpacked_bytes: int = 1 << 38
    """What the members of an archive take in temporary files when unpacked, all together. What
    unpacks to more than 32 times its size is bounded by an eighth of `decompressed_bytes`."""

    cache_bytes: int = 1 << 34
    """What `cache=` keeps on the disk, of all checkpoints together. The least recently used goes
    first."""

    def __post_init__(self) -> None:
        """Take more than can be of anything as a limit that is never reached.

        Raises:
            TypeError: One is no whole number.
            ValueError: One is negative.
        """
        for part in fields(self):
            value = getattr(self, part.name)
            if not isinstance(value, SupportsIndex):
                raise TypeError(
                    f"Expected Limits.{part.name} to be a whole number, found "
                    f"{type(value).__name__}"
                )
            if value.__index__() < 0:
                raise ValueError(f"Expected Limits.{part.name} to be 0 or more, found {value}")
            if value.__index__() > _MOST:
                object.__setattr__(self, part.name, _MOST)

    def __repr__(self) -> str:
        changed = [
            f"{part.name}={getattr(self, part.name)}"
            for part in fields(self)
            if getattr(self, part.name) != part.default
        ]
        return f"Limits({', '.join(changed)})"

    def check(self, field: str, found: int, what: str, *, path: str | None = None) -> None:
        """Raise `LimitError` if `found` is more than the field of that name allows."""
        if found > getattr(self, field):
            raise limit_error(self, field, found, what, path=path)

    def most_blocks(self, size: int) -> int:
        """Return how many blocks a table of so many bytes may have."""
        return self.blocks + (size >> 12)

    def most_nodes(self, size: int) -> int:
        """Return how many nodes a graph of so many bytes may have."""
        return self.nodes + size // _NODE_BYTES

    def check_nodes(self, found: int, size: int, what: str, *, path: str | None = None) -> None:
        """Raise `LimitError` if a graph of so many bytes may not have so many nodes.

        Args:
            found: How many, or what counts as so many.
            size: Of the graph, or of the message that lists them.
            what: What is counted: "The number of nodes of a graph".
            path: The file, for the error.
        """
        if found > self.nodes and found > self.most_nodes(size):
            beyond = found - size // _NODE_BYTES
            what = f"{what.rstrip(',')}, beyond one for each {_NODE_BYTES} bytes,"
            raise limit_error(self, "nodes", beyond, what, path=path)

    def most_parts(self, size: int) -> int:
        """Return how many parts of a file are told of, if the files have so many bytes."""
        return self.parts + (size >> 7)

    def most_small(self, size: int) -> int:
        """Return how many tensors may be taken one by one from files of so many bytes."""
        return self.small_tensors + size // _SMALL_BYTES

    def most_listed(self, size: int) -> int:
        """Return how many tensors a report lists, or a recovery writes, of files of that size."""
        return self.small_tensors // 8 + size // _LISTED_BYTES

    def take_small(self, names: Sequence[str], held: Callable[[], int]) -> Sequence[str]:
        """Return those of some names, from the first on, that may be taken one by one.

        Args:
            names: Of tensors.
            held: Gives the bytes of the files; asked if it matters.
        """
        found = count_named(names)
        if found <= self.small_tensors or found <= (most := self.most_small(held())):
            return names
        return take_named(names, most)

    def most_legacy(self, size: int) -> int:
        """Return how many tensors in one piece V1 files of so many bytes may have."""
        return self.small_tensors // 3 + (size >> 10)

    def most_strings(self, size: int) -> int:
        """Return how many strings V1 files, or constants, of so many bytes may have."""
        return (self.strings >> 8) + (size >> 3)

    def most_singles(self, size: int) -> int:
        """Return how many entries may be looked at one by one in files of so many bytes."""
        return self.single_entries + size // _SINGLE_BYTES


def limit_error(
    limits: Limits, field: str, found: int, what: str, *, path: str | None = None
) -> LimitError:
    """Make the error that says that `found` is more than the field of that name allows."""
    allowed: int = getattr(limits, field)
    return LimitError(
        f"{what} is {found}, and Limits.{field} allows {allowed}", limit=field, path=path
    )


def check_small(
    limits: Limits,
    count: int,
    held: Callable[[], int],
    *,
    weight: int = 1,
    what: str = "tensors",
    path: str | None = None,
) -> None:
    """Make sure that so many tensors may be taken one by one from files.

    Args:
        limits: `small_tensors` bounds them, beyond one for each 512 bytes that are held.
        count: How many they are.
        held: Gives the bytes of the files; asked if it matters.
        weight: How many each counts as.
        what: What the error calls them.
        path: What the error names.

    Raises:
        LimitError: They may not.
    """
    count *= weight
    if count > limits.small_tensors and count > (most := limits.most_small(held())):
        beyond = count - (most - limits.small_tensors)
        each = f"{weight} times the" if weight > 1 else "The"
        what = f"{each} number of {what}, beyond one for each {_SMALL_BYTES} bytes of the files,"
        raise limit_error(limits, "small_tensors", beyond, what, path=path)


def count_named(names: Collection[str]) -> int:
    """Return how many tensors of these names count as: one more for each 256 characters of one."""
    return len(names) + sum(len(name) // _NAME_LENGTH for name in names)


def take_named(names: Iterable[str], most: int) -> list[str]:
    """Return the first of some names that count as no more than `most` tensors."""
    taken = []
    for name in names:
        most -= 1 + len(name) // _NAME_LENGTH
        if most < 0:
            break
        taken.append(name)
    return taken


def check_listed(limits: Limits, count: int, size: int, *, weight: int = 1) -> None:
    """Make sure that so many tensors of a recovery may be written, or taken by a job.

    Args:
        limits: `small_tensors` bounds them.
        count: How many they are.
        size: Of the files that they come from, in bytes.
        weight: How many each counts as.

    Raises:
        LimitError: They may not.
    """
    if weight * count > limits.most_listed(size):
        what = (
            f"{8 * weight} times the number of recovered tensors, beyond one for each "
            f"{_LISTED_BYTES * weight} bytes of the files,"
        )
        beyond = 8 * (weight * count - size // _LISTED_BYTES)
        raise limit_error(limits, "small_tensors", beyond, what)


def check_legacy(limits: Limits, count: int, strings: int, size: int) -> None:
    """Refuse V1 files of `size` bytes with too many tensors, or strings.

    Args:
        limits: `small_tensors` and `strings` bound them.
        count: Tensors in one piece.
        strings: What all tensors have.
        size: Of the files, in bytes.

    Raises:
        LimitError: There are more.
    """
    if count > limits.most_legacy(size):
        what = (
            "Twice the number of tensors of a V1 checkpoint, beyond one for each KiB of the files,"
        )
        raise limit_error(limits, "small_tensors", 2 * (count - (size >> 10)), what)
    check_all_strings(limits, strings, size, "a V1 checkpoint")


def check_all_strings(limits: Limits, count: int, size: int, owner: str) -> None:
    """Refuse files of `size` bytes whose tensors have too many strings, all together.

    Args:
        limits: `strings` bounds them.
        count: How many they have.
        size: Of the files, in bytes.
        owner: What has them, for the error.

    Raises:
        LimitError: There are more.
    """
    if count > limits.most_strings(size):
        what = f"256 times the number of strings of {owner}, beyond one for each 8 bytes,"
        raise limit_error(limits, "strings", (count - (size >> 3)) << 8, what)


_FREE_MEMBERS = 10_000
"""Members that a file of any size may have."""


def most_members(limits: Limits, size: int) -> int:
    """Return how many members a file of so many bytes may have; see `Limits.members`."""
    return min(limits.members, max(_FREE_MEMBERS, limits.members // 10) + (size >> 10))


def check_members(
    limits: Limits, count: float, size: int, *, weight: float = 1, path: str | None = None
) -> None:
    """Refuse a file of `size` bytes that has more members than it may; see `Limits.members`.

    Args:
        limits: The bounds.
        count: How many members it has; one may count as half.
        size: Of the file, in bytes, as it is packed.
        weight: How many each counts as.
        path: The file.

    Raises:
        LimitError: There are more.
    """
    most = most_members(limits, size)
    if weight * count > most:
        raise LimitError(
            f"The file has more than {int(most / weight)} members, and Limits.members "
            f"({limits.members}) allows no more in {size} bytes",
            limit="members",
            path=path,
        )


class Members:
    """How many members of a file may still be looked at; see `Limits.members`."""

    __slots__ = ("_limits", "_most", "_path", "_size", "_taken")

    def __init__(self, limits: Limits, size: int, *, path: str | None = None) -> None:
        """Begin with none taken, of a file of so many bytes, as it is packed."""
        self._limits = limits
        self._size = size
        self._path = path
        self._most = most_members(limits, size)
        self._taken = 0.0

    def take(self, count: int = 1, weight: float = 1) -> None:
        """Take some more, each of which counts as `weight`.

        Raises:
            LimitError: There are more than the file may have.
        """
        if not self.try_take(count, weight):
            raise LimitError(
                f"What the file has counts as {int(self._taken + weight * count)} members or more, "
                f"and Limits.members ({self._limits.members}) allows {self._most} in "
                f"{self._size} bytes",
                limit="members",
                path=self._path,
            )

    def try_take(self, count: int = 1, weight: float = 1) -> bool:
        """Take some more if so many are left; tell whether they were."""
        taken = self._taken + weight * count
        if taken > self._most:
            return False
        self._taken = taken
        return True


DEFAULT_LIMITS = Limits()
"""The bounds used if the caller gives none."""


class Budget:
    """What the values of one call take in memory, against what its files hold."""

    __slots__ = ("_held", "_taken", "limits")

    def __init__(self, limits: Limits, held: Callable[[], int] | int) -> None:
        """Begin with nothing taken.

        Args:
            limits: `memory_bytes` bounds what is taken beyond what is held.
            held: Bytes of the files; a function is asked when it first matters.
        """
        self.limits = limits
        """The bounds."""
        self._held = held
        self._taken = 0

    def take(self, size: int) -> None:
        """Account for so many bytes more, before they are allocated.

        Raises:
            LimitError: It is more than `Limits.memory_bytes` beyond the files.
        """
        self._taken += size
        if self._taken > self.limits.memory_bytes:
            self.check(0)

    def check(self, size: int) -> None:
        """Make sure that so many bytes more may be allocated, which are given back soon.

        Raises:
            LimitError: It is more than `Limits.memory_bytes` beyond the files.
        """
        taken = self._taken + size
        if taken <= self.limits.memory_bytes:
            return
        if not isinstance(self._held, int):
            self._held = self._held()
        beyond = max(0, taken - self._held)
        self.limits.check(
            "memory_bytes", beyond, "What one call takes in memory beyond its files, in bytes,"
        )


class Objects:
    """How many objects are made of what one file lists."""

    __slots__ = ("_held", "_limits", "_path", "_taken", "is_idle")

    def __init__(
        self,
        limits: Limits,
        size: int,
        *,
        held: Callable[[], int] | None = None,
        path: str | None = None,
    ) -> None:
        """Begin with none made.

        Args:
            limits: `objects` bounds them, beyond one for each 512 bytes that are held.
            size: Bytes of the message that lists them.
            held: Gives the bytes of all the files; asked when it first matters. Those of the
                message if None.
            path: What the error names.
        """
        self._limits = limits
        self._held: Callable[[], int] | int = size if held is None else held
        self._path = path
        self._taken = 0.0
        self.is_idle = size <= _LEAST_BYTES * limits.objects
        """Whether the message is too small for too many."""

    def take(self, count: float = 1) -> None:
        """Count one more, or several, before they are made.

        Raises:
            LimitError: They are more than `Limits.objects` allows.
        """
        self._taken += count
        if self._taken <= self._limits.objects:
            return
        if not isinstance(self._held, int):
            self._held = self._held()
        beyond = int(self._taken) - self._held // _OBJECT_BYTES
        if beyond > self._limits.objects:
            what = f"The number of objects, beyond one for each {_OBJECT_BYTES} bytes of the files,"
            raise limit_error(self._limits, "objects", beyond, what, path=self._path)


class Singles:
    """How many entries of the indexes of one checkpoint may be looked at one by one."""

    __slots__ = ("_held", "_limits", "exceeded", "taken")

    def __init__(self, limits: Limits, held: Callable[[], int] | int) -> None:
        """Begin with none taken.

        Args:
            limits: `single_entries` bounds what is taken beyond one for each 4 KiB that are held.
            held: Bytes of the files; a function is asked when it first matters.
        """
        self._limits = limits
        self._held = held
        self.taken = 0
        """How many were asked for."""
        self.exceeded = False
        """Whether more were asked for than may be taken."""

    def take(self, count: int = 1) -> bool:
        """Count one more, or several; tell whether they may be looked at."""
        self.taken += count
        if self.taken > self._limits.single_entries:
            self.exceeded |= self.taken > self.most
        return not self.exceeded

    def check(self) -> None:
        """Count one more that is read.

        Raises:
            LimitError: It may not be looked at.
        """
        if not self.take():
            raise limit_error(
                self._limits,
                "single_entries",
                self.taken + self._limits.single_entries - self.most,
                "The number of tensors that are read one by one (strings, variants, slices), "
                "beyond one for each 4 KiB of the data files,",
            )

    @property
    def most(self) -> int:
        """How many may be taken in all."""
        if not isinstance(self._held, int):
            self._held = self._held()
        return self._limits.most_singles(self._held)

    def return_to(self, taken: int) -> None:
        """Go back to an earlier count, since what was taken after it is not kept."""
        self.taken = taken
        self.exceeded = False

    @property
    def message(self) -> str:
        """What to say if more were asked for."""
        return (
            f"{min(self.taken - 1, self.most):,} entries that are strings, slices, oddly written "
            "or parts of damaged blocks were looked at, and the others were not: "
            f"Limits.single_entries allows "
            f"{self._limits.single_entries:,}, and one for each 4 KiB of the files"
        )
