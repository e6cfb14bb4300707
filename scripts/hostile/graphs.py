"""Graphs: GraphDef and MetaGraphDef, binary and text, and what they hold."""

# What a kind is: the text of a function says what it writes, not what it does.
# ruff: noqa: ARG001

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import builder as b
import graph_builder as g

import ckptparse

__all__ = ["KINDS"]

LIMITS = ckptparse.DEFAULT_LIMITS
ONE = b.field(5, b"\x00\x00\x80\x3f")
"""The value of a constant, of one float."""
GRAPH = g.graph([g.node("n", "NoOp")])


def _write(directory: Path, data: bytes, name: str = "g.pb") -> Path:
    path = directory / name
    path.write_bytes(data)
    return path


def fill(size: int, make: Callable[[int], bytes]) -> list[bytes]:
    """Make one after another until they take so many bytes."""
    made: list[bytes] = []
    taken = 0
    while taken < size:
        made.append(make(len(made)))
        taken += len(made[-1]) + 3
    return made


def _count(size: int, each: int) -> range:
    return range(max(1, size // each))


_MADE: dict[Callable[[Path, int], Path], Callable[[int], bytes]] = {}
"""What the nodes of the graphs are made by."""


def _graph_of(make: Callable[[int], bytes]) -> Callable[[Path, int], Path]:
    """Write a graph of as many nodes as fit."""

    def write(directory: Path, size: int) -> Path:
        return _write(directory, g.graph(fill(size, make)))

    write.__doc__ = make.__doc__
    _MADE[write] = make
    return write


def _within(make: Callable[[int], bytes]) -> Callable[[Path, int], Path]:
    """Write a graph of as many nodes as the limits allow, and one constant that fills the rest."""

    def write(directory: Path, size: int) -> Path:
        most, left = LIMITS.most_nodes(size), size  # Beside the last node are the versions.
        if b"\x12\x05Const" in make(0):
            most = LIMITS.most_small(size) // 2
        nodes: list[bytes] = []
        while len(nodes) < most - 3 and left > 0:
            nodes.append(make(len(nodes)))
            left -= len(b.field(1, nodes[-1]))
        rest = max(0, left - 50)
        nodes.append(g.constant("rest", b.field(4, b"\xff" * rest), number=4, dims=[rest]))
        return _write(directory, g.graph(nodes))

    return write


# Constants


@_graph_of
def empty_constants(number: int) -> bytes:
    """Constants of no element: each is a tensor, an object and a row of every report."""
    return g.constant(f"c{number}", dims=[0])


@_graph_of
def scalar_constants(number: int) -> bytes:
    """Constants of one element."""
    return g.constant(f"c{number}", ONE)


@_graph_of
def filling_constants(number: int) -> bytes:
    """Constants of a shape of 64 KiB and one value, which is repeated."""
    return g.constant(f"c{number}", ONE, dims=[1 << 14])


@_graph_of
def large_filling_constants(number: int) -> bytes:
    """Constants of a shape of 64 MiB and one value, which is repeated."""
    return g.constant(f"c{number}", ONE, dims=[1 << 24])


@_graph_of
def deep_constants(number: int) -> bytes:
    """Constants of names of 100 parts that begin alike: trees of names are deep."""
    return g.constant("a/" * 100 + str(number), ONE)


@_graph_of
def string_constants(number: int) -> bytes:
    """Constants of three empty strings."""
    return g.strings(f"c{number}", b"", b"", b"")


@_graph_of
def valueless_constants(number: int) -> bytes:
    """Constants without a value: each is an error."""
    return g.node(f"c{number}", "Const")


@_graph_of
def ranked_constants(number: int) -> bytes:
    """Constants of 254 dimensions."""
    return g.constant(f"c{number}", ONE, dims=[1] * 254)


@_graph_of
def variant_constants(number: int) -> bytes:
    """Constants of one variant each."""
    return g.constant(f"c{number}", b.field(15, b.variant_proto("t")), number=b.VARIANT)


def packed_numbers(directory: Path, size: int) -> Path:
    """One constant of numbers of one byte each, packed."""
    count = size
    constant = g.constant("c", b.field(10, b"\x01" * count), number=b.INT64, dims=[count])
    return _write(directory, g.graph([constant]))


def unpacked_numbers(directory: Path, size: int) -> Path:
    """One constant of numbers of two bytes each, every one with its tag."""
    count = size // 2
    constant = g.constant("c", b"\x50\x01" * count, number=b.INT64, dims=[count])
    return _write(directory, g.graph([constant]))


def empty_strings(directory: Path, size: int) -> Path:
    """One constant of empty strings of two bytes each."""
    count = size // 2
    constant = g.constant("c", b"\x42\x00" * count, number=b.STRING, dims=[count])
    return _write(directory, g.graph([constant]))


def empty_variants(directory: Path, size: int) -> Path:
    """One constant of empty variants of two bytes each."""
    count = size // 2
    constant = g.constant("c", b"\x7a\x00" * count, number=b.VARIANT, dims=[count])
    return _write(directory, g.graph([constant]))


def nested_variants(directory: Path, size: int) -> Path:
    """A constant of a variant that holds a tensor that holds a variant, 30 deep, many times."""
    inner = b.tensor_proto(b.FLOAT, [], ONE)
    for _ in range(30):
        inner = b.tensor_proto(b.VARIANT, [], b.field(15, b.variant_proto("t", tensors=[inner])))
    nodes = fill(size, lambda number: g.node(f"c{number}", "Const", value=b.field(8, inner)))
    return _write(directory, g.graph(nodes))


def text_dims(directory: Path, size: int) -> Path:
    """One constant that states very many dimensions."""
    constant = g.constant("c", ONE, dims=[1] * (size // 4))
    return _write(directory, g.graph([constant]))


@_graph_of
def frozen_weights(number: int) -> bytes:
    """Weights as a frozen graph has them, of a few bytes each, each with what passes it on."""
    if number % 2:
        return g.node(f"l/{number - 1}/read", "Identity", f"l/{number - 1}", T=g.of_type(b.FLOAT))
    return g.constant(f"l/{number}", b.field(4, b"\0" * 8), dims=[2])


@_graph_of
def resource_constants(number: int) -> bytes:
    """Constants of a handle of a resource, which no array holds: each is an error."""
    return g.constant(f"c{number}", b.field(14, b.field(1, b"cpu")), number=20)


@_graph_of
def unknown_constants(number: int) -> bytes:
    """Constants of kinds that nobody knows: each is an error."""
    return g.constant(f"c{number}", ONE, number=99)


@_graph_of
def cut_constants(number: int) -> bytes:
    """Constants of fewer bytes than their shape takes: each is an error."""
    return g.constant(f"c{number}", b.field(4, b"abc"), dims=[2])


@_graph_of
def scattered_constants(number: int) -> bytes:
    """Constants whose shape is in two parts, and their dtype last: they are read one by one."""
    shape = b.field(2, b.shape_proto([1]))
    value = b.field(8, shape + shape + ONE + b.field(1, b.FLOAT))
    return g.node(f"c{number}", "Const", value=value)


@_graph_of
def content_strings(number: int) -> bytes:
    """Constants of strings whose lengths are in their content."""
    return g.constant(f"c{number}", b.field(4, b"\1a"), number=b.STRING, dims=[1])


@_graph_of
def shaped_strings(number: int) -> bytes:
    """Constants of a thousand strings, all of which are one that is stored."""
    return g.constant(f"c{number}", b.field(8, b"a"), number=b.STRING, dims=[1000])


def content_string(directory: Path, size: int) -> Path:
    """One constant of very many strings whose lengths are in its content."""
    content = b.field(4, b"\0" * size)
    return _write(directory, g.graph([g.constant("c", content, number=b.STRING, dims=[size])]))


def empty_handles(directory: Path, size: int) -> Path:
    """One constant of very many empty handles of resources."""
    count = size // 2
    constant = g.constant("c", b"\x72\x00" * count, number=20, dims=[count])
    return _write(directory, g.graph([constant]))


def constants_of_functions(directory: Path, size: int) -> Path:
    """Functions of one constant each."""
    body = [g.constant("c", ONE)]
    library = fill(size, lambda number: g.function(f"f{number}", [], body))
    return _write(directory, g.graph([], library))


# Nodes and edges


@_graph_of
def chain(number: int) -> bytes:
    """Each node takes the one before."""
    return g.node(f"n{number}", "Relu", *([f"n{number - 1}"] if number else []))


@_graph_of
def passing_chain(number: int) -> bytes:
    """A variable, and nodes that pass it on, each to the next: all are seen through."""
    if not number:
        return g.variable("n0", 1)
    return g.node(f"n{number}", "Identity", f"n{number - 1}")


@_graph_of
def smallest_nodes(number: int) -> bytes:
    """Nodes of a name and nothing else: most nodes for their bytes."""
    return b.field(1, f"{number:x}".encode())


@_graph_of
def ring(number: int) -> bytes:
    """Nodes that pass on what passes round: each two take each other."""
    return g.node(f"n{number}", "Identity", f"n{number ^ 1}", f"n{number // 2}")


@_graph_of
def star(number: int) -> bytes:
    """All take one variable."""
    if not number:
        return g.variable("v", 1)
    return g.node(f"n{number}", "Relu", "v")


@_graph_of
def variables(number: int) -> bytes:
    """Variables, each with one reader."""
    if number % 2:
        return g.node(f"r{number}", "ReadVariableOp", f"v{number - 1}")
    return g.variable(f"v{number}", 1)


@_graph_of
def shared_variables(number: int) -> bytes:
    """All nodes are one variable: what takes it is asked of each node."""
    return g.variable(f"v{number}", 1, shared="s")


@_graph_of
def passed_on(number: int) -> bytes:
    """Many variables, and one node that passes each on to one that all share."""
    if number % 2:
        return g.node(f"p{number}", "Identity", f"v{number - 1}", "p1")
    return g.variable(f"v{number}", 1)


def all_to_all(directory: Path, size: int) -> Path:
    """Many variables into one chain of nodes that pass on: each is seen through to the end."""
    half = size // 2
    made = fill(half, lambda number: g.variable(f"v{number}", 1))
    count = len(made)
    made.append(g.node("n0", "Identity", *(f"v{number}" for number in range(count))))
    made += fill(half // 2, lambda number: g.node(f"n{number + 1}", "Identity", f"n{number}"))
    return _write(directory, g.graph(made))


def fan_in(directory: Path, size: int) -> Path:
    """One node of very many inputs."""
    inputs = [f"n{number}" for number in _count(size, 16)]
    nodes = [g.node(name, "") for name in inputs[: len(inputs) // 2]]
    return _write(directory, g.graph([*nodes, g.node("m", "AddN", *inputs)]))


def same_input(directory: Path, size: int) -> Path:
    """Two nodes, of which one takes the other very often."""
    nodes = [g.variable("a", 1), g.node("m", "AddN", *["a"] * (size // 3))]
    return _write(directory, g.graph(nodes))


def fan_of_two(directory: Path, size: int) -> Path:
    """Ladders: each two nodes take both of the two before."""
    nodes = [g.variable("a0", 1), g.variable("b0", 1)]
    for number in _count(size, 2 * 26):
        pair = f"a{number}", f"b{number}"
        nodes.append(g.node(f"a{number + 1}", "Add", *pair))
        nodes.append(g.node(f"b{number + 1}", "Add", *pair))
    return _write(directory, g.graph(nodes))


def square(directory: Path, size: int) -> Path:
    """Some hundred variables and nodes, of which each takes every one."""
    count = int((size / 6) ** 0.5)
    inputs = [f"v{number}" for number in range(count)]
    nodes = [g.variable(name, 1) for name in inputs]
    nodes += [g.node(f"m{number}", "AddN", *inputs) for number in range(count)]
    return _write(directory, g.graph(nodes))


@_graph_of
def swapped_heads(number: int) -> bytes:
    """Nodes whose op comes before their name, after fields that nobody knows."""
    return b"\x78\x01" * 4 + b.field(2, b"Relu") + b.field(1, b"n%d" % number)


@_graph_of
def groups(number: int) -> bytes:
    """Nodes that begin with groups within groups, which are skipped."""
    return b"\x7b" * 90 + b"\x7c" * 90 + g.node(f"n{number}", "Relu")


@_graph_of
def frames(number: int) -> bytes:
    """Loops as TF1 writes them: a variable enters, goes round, and comes out again."""
    frame, part = divmod(number, 6)
    name, ops = f"w{frame}/", ("Enter", "Merge", "Switch", "Identity", "NextIteration", "Exit")
    inputs = (["v"], ["0", "4"], ["1", "1"], ["2:1"], ["3"], ["2"])[part]
    if not number:
        return g.variable("v", 1)
    return g.node(name + str(part), ops[part], *(i if i == "v" else name + i for i in inputs))


@_graph_of
def nested_frames(number: int) -> bytes:
    """Loops in loops: each enters what the one before gives, and goes round."""
    name = f"n{number}"
    if not number:
        return g.variable(name, 1)
    return g.node(name, ("Merge", "Enter", "Identity")[number % 3], f"n{number - 1}", name)


@_graph_of
def devices(number: int) -> bytes:
    """Nodes with a device each, in words."""
    return g.node(f"n{number}", "Relu", device=f"/job:worker/task:{number}/device:GPU:0")


@_graph_of
def control_edges(number: int) -> bytes:
    """Nodes that only order one another."""
    return g.node(f"n{number}", "NoOp", *[f"^n{number // 2}"] * 8)


def one_control(directory: Path, size: int) -> Path:
    """One node of very many inputs of the least bytes."""
    return _write(directory, g.graph([g.node("n", "Relu", *["^"] * (size // 3))]))


@_graph_of
def odd_names(number: int) -> bytes:
    """Nodes whose names are no UTF-8."""
    return b.field(1, b"\xff\xfe%d" % number) + b.field(2, b"VarHandleOp")


@_graph_of
def queues(number: int) -> bytes:
    """Variables that a function of long name takes, which is not there."""
    return g.node(f"n{number}", "PartitionedCall", f"n{number // 3}", f=g.of_function("f" * 1000))


@_graph_of
def long_names(number: int) -> bytes:
    """Names of 10,000 letters."""
    return g.node("n" * 10_000 + str(number), "VarHandleOp")


@_graph_of
def slashes(number: int) -> bytes:
    """Variables of names of 1,000 parts."""
    return g.variable("a/" * 1000 + str(number), 1)


def one_long_name(directory: Path, size: int) -> Path:
    """One variable whose name is nothing but slashes, and one that begins like it."""
    name = "a/" * (size // 4)
    return _write(directory, g.graph([g.variable(name + "x", 1), g.variable(name + "y", 1)]))


@_graph_of
def same_name(number: int) -> bytes:
    """All nodes have one name."""
    return g.node("n", "Relu")


@_graph_of
def unknown_ops(number: int) -> bytes:
    """Operations that no TensorFlow has: each is an effect."""
    return g.node(f"n{number}", "Zz")


@_graph_of
def reading_ops(number: int) -> bytes:
    """Operations that read a file whose name comes through the one before."""
    return g.node(f"n{number}", "ReadFile", f"n{max(0, number - 1)}")


def one_file_name(directory: Path, size: int) -> Path:
    """Operations that read files, whose name all come through one long chain."""
    nodes = [g.strings("n0", b"/etc/passwd")]
    nodes += fill(size // 2, lambda n: g.node(f"n{n + 1}", "Identity", f"n{n}"))
    last = f"n{len(nodes) - 1}"
    nodes += fill(size // 2, lambda n: g.node(f"r{n}", "ReadFile", last))
    return _write(directory, g.graph(nodes))


def many_file_names(directory: Path, size: int) -> Path:
    """Operations that read files, whose names are joined of very many, all together."""
    names = fill(size // 2, lambda n: g.strings(f"s{n}", b"x"))
    joined = g.node("j", "Pack", *(f"s{n}" for n in range(len(names))))
    reads = fill(size // 4, lambda n: g.node(f"r{n}", "ReadFile", "j"))
    return _write(directory, g.graph([*names, joined, *reads]))


# Attributes


def list_attribute(directory: Path, size: int) -> Path:
    """A list of very many numbers."""
    value = b.field(1, b.field(3, b"\x01" * size))
    return _write(directory, g.graph([g.node("n", "VarHandleOp", shape=value, dtype=value)]))


def string_attributes(directory: Path, size: int) -> Path:
    """A list of very many strings, as the names of files."""
    value = b.field(1, b"\x12\x00" * (size // 2))
    node = g.node("n", "ReaderV2", file_pattern=value, shared_name=value)
    return _write(directory, g.graph([node]))


@_graph_of
def function_lists(number: int) -> bytes:
    """Calls of functions that are not there, many in each node."""
    value = b.field(1, b.field(9, b.field(1, b"f")) * 100)
    return g.node(f"n{number}", "Case", branches=value)


@_graph_of
def nested_functions(number: int) -> bytes:
    """Attributes that are functions with attributes that are functions, 30 deep."""
    value = g.of_function("f")
    for _ in range(30):
        value = g.of_function("f", a=value)
    return g.node(f"n{number}", "Zz", f=value)


def many_attributes(directory: Path, size: int) -> Path:
    """One node of very many attributes."""
    pairs = {f"a{number}": g.of_type(1) for number in _count(size, 13)}
    return _write(directory, g.graph([g.node("n", "Zz", **pairs)]))


def empty_fields(directory: Path, size: int) -> Path:
    """A graph of nothing but unknown fields of two bytes."""
    return _write(directory, g.graph([g.node("n", "NoOp")]) + b"\x7a\x00" * (size // 2))


def _list_of(element: bytes, op: str = "VarHandleOp") -> Callable[[Path, int], Path]:
    """Write a node of one attribute, a list of very many of one element."""

    def write(directory: Path, size: int) -> Path:
        value = b.field(1, element * (size // len(element)))
        return _write(directory, g.graph([g.node("n", op, shape=value, dtype=value, f=value)]))

    return write


def _call_lists(directory: Path, size: int) -> Path:
    """Calls of functions, of which each node names very many that are there."""
    value = b.field(1, b.field(9, b.field(1, b"f")) * (size // 10))
    nodes = [
        g.variable("v", 1),
        *(g.node(f"c{n}", "Case", "v", "v", branches=value) for n in (1, 2)),
    ]
    return _write(directory, g.graph(nodes, [g.function("f", ["x"], [g.node("r", "Relu", "x")])]))


# Functions


def _functions(make: Callable[[int], bytes], *nodes: bytes) -> Callable[[Path, int], Path]:
    def write(directory: Path, size: int) -> Path:
        return _write(directory, g.graph(list(nodes), fill(size, make)))

    return write


def _call(name: str, function: str, *inputs: str) -> bytes:
    return g.node(name, "PartitionedCall", *inputs, f=g.of_function(function))


def _chained(number: int) -> bytes:
    inner = [_call("c", f"f{number + 1}", "x")]
    return g.function(f"f{number}", ["x"], inner, {"y": "c:output:0"})


def _doubled(number: int) -> bytes:
    inner = [_call("c", f"f{number + 1}", "x"), _call("d", f"f{number + 1}", "c:output:0")]
    return g.function(f"f{number}", ["x"], inner, {"y": "d:output:0"})


def _circle(number: int) -> bytes:
    inner = [_call("c", f"f{number ^ 1}", "x"), _call("d", "f0", "x")]
    return g.function(f"f{number}", ["x"], inner, {"y": "c:output:0"})


def reads_in_functions(directory: Path, size: int) -> Path:
    """Functions that double what they call, each with a file whose name the caller gives."""
    variable = g.variable("v", 1)

    def make(number: int) -> bytes:
        inner = [
            _call("c", f"f{number + 1}", "x"),
            _call("d", f"f{number + 1}", "c:output:0"),
            g.node("r", "ReadFile", "d:output:0"),
        ]
        return g.function(f"f{number}", ["x"], inner, {"y": "d:output:0"})

    return _functions(make, variable, _call("c", "f0", "v"))(directory, size)


def calls_of_one_function(directory: Path, size: int) -> Path:
    """Very many calls of one function of many nodes: each use of each is in it."""
    body = fill(size // 4, lambda number: g.node(f"b{number}", "Relu", "x"))
    nodes = []
    for number in _count(size * 3 // 4, 90):
        nodes.append(g.variable(f"v{number}", 1))
        nodes.append(_call(f"c{number}", "f", f"v{number}"))
    return _write(directory, g.graph(nodes, [g.function("f", ["x"], body)]))


def reads_of_one_argument(directory: Path, size: int) -> Path:
    """A function that reads many files whose name is its argument, called very often."""
    body = fill(size // 2, lambda number: g.node(f"b{number}", "ReadFile", "x"))
    nodes = [g.strings("s", b"/etc/passwd")]
    nodes += fill(size // 2, lambda number: _call(f"c{number}", "f", "s"))
    return _write(directory, g.graph(nodes, [g.function("f", ["x"], body)]))


def many_arguments(directory: Path, size: int) -> Path:
    """A function of very many arguments, with a variable for each."""
    count = size // 60
    inputs = [f"a{number}" for number in range(count)]
    body = [g.node(f"n{number}", "Relu", name) for number, name in enumerate(inputs)]
    nodes = [g.variable("v", 1), _call("c", "f", *["v"] * count)]
    return _write(directory, g.graph(nodes, [g.function("f", inputs, body)]))


def carried_graphs(directory: Path, size: int) -> Path:
    """Datasets from one graph that a constant carries: it is looked at for each."""
    inner = g.graph(fill(size // 2, lambda number: g.node(f"n{number}", "Zz")))
    nodes = [g.strings("s", inner)]
    nodes += fill(size // 2, lambda number: g.node(f"d{number}", "DatasetFromGraph", "s"))
    return _write(directory, g.graph(nodes))


def gradients(directory: Path, size: int) -> Path:
    """A library of nothing but gradients."""
    pairs = fill(size, lambda n: b.field(1, b"%d" % n) + b.field(2, b"%d" % (n + 1)))
    library = b"".join(b.field(2, pair) for pair in pairs)
    return _write(directory, g.graph([g.node("n", "NoOp")]) + b.field(2, library))


def gradients_of_functions(directory: Path, size: int) -> Path:
    """Functions that are each other's gradients, and all implement one thing."""

    def make(number: int) -> bytes:
        implements = g.of_string(b"x")
        return g.function(f"f{number}", [], [g.node("n", "Zz")], api_implements=implements)

    library = fill(size, make)
    pairs = (b.field(1, b"f%d" % n) + b.field(2, b"f%d" % (n + 1)) for n in range(len(library)))
    found = b"".join(b.field(1, one) for one in library) + b"".join(
        b.field(2, one) for one in pairs
    )
    return _write(directory, g.graph([_call("c", "f0")]) + b.field(2, found))


def many_results(directory: Path, size: int) -> Path:
    """A function of very many results, of which each call may be any."""
    inner = g.strings("s", b"/etc/passwd")
    results = {f"r{number}": "s:output:0" for number in _count(size, 40)}
    nodes = [_call("c", "f"), *(g.node(f"r{n}", "ReadFile", "c") for n in _count(size, 40))]
    return _write(directory, g.graph(nodes, [g.function("f", [], [inner], results)]))


def signature_of_function(directory: Path, size: int) -> Path:
    """Functions of signatures that say much of each argument."""
    argument = b.field(2, b.field(1, b"x") + b.field(2, b"d" * 20) + b.field(3, 1))

    def make(number: int) -> bytes:
        return b.field(1, b.field(1, b"f%d" % number) + argument * 20)

    return _write(directory, g.graph([_call("c", "f0")], fill(size, make)))


def arguments_said(directory: Path, size: int) -> Path:
    """One function of arguments of the least bytes."""
    function = b.field(1, b.field(1, b"f") + b"\x12\x00" * (size // 2))
    return _write(directory, g.graph([g.variable("v", 1), _call("c", "f", "v")], [function]))


def libraries(directory: Path, size: int) -> Path:
    """Very many libraries of one function each."""
    made = fill(size, lambda number: b.field(1, g.function(f"f{number}", [], [])))
    return _write(directory, b"".join(b.field(2, one) for one in made))


def long_function_names(directory: Path, size: int) -> Path:
    """Functions of one node each, with long names, which stand before the names of their nodes."""
    name = "f" * 5000
    body = [g.constant("c", ONE)]
    library = fill(size, lambda number: g.function(f"{name}{number}", [], body))
    return _write(directory, g.graph([_call("c", name + "0")], library))


# Fields without end

FORMS = {
    "varints": b"\x78\x01",
    "strings": b"\x7a\x00",
    "groups": b"\x7b\x7c",
    "long tags": b"\xfa\x01\x00",
}
"""Fields that no message has, of the least bytes."""


def _plain_constant(tensor: bytes) -> bytes:
    return g.graph([g.node("c", "Const", dtype=g.of_type(b.FLOAT), value=b.field(8, tensor))])


def _attribute(value: bytes, op: str = "Zz") -> bytes:
    return g.graph([g.variable("v", 1), g.node("n", op, "v", shape=value, f=value)])


_TENSOR = b.tensor_proto(b.FLOAT, [1], ONE)
_PLACES: dict[str, Callable[[bytes], bytes]] = {
    "node": lambda fields: g.graph([g.node("n", "VarHandleOp") + fields]),
    "entry": lambda fields: g.graph(
        [g.node("n", "Const") + b.field(5, g.entry("value", b.field(8, _TENSOR)) + fields)]
    ),
    "value": lambda fields: g.graph([g.node("n", "Const", value=b.field(8, _TENSOR) + fields)]),
    "shape": lambda fields: _attribute(b.field(7, fields), "VarHandleOp"),
    "tensor": lambda fields: _plain_constant(_TENSOR + fields),
    "string tensor": lambda fields: _plain_constant(
        b.tensor_proto(b.STRING, [1], b.field(8, b"s")) + fields
    ),
    "tensor's shape": lambda fields: _plain_constant(
        b.field(1, b.FLOAT) + b.field(2, b.shape_proto([1]) + fields) + ONE
    ),
    "call": lambda fields: _attribute(b.field(10, b.field(1, b"f") + fields)),
    "list": lambda fields: _attribute(b.field(1, b.field(3, b"\1") + fields)),
    "function": lambda fields: g.graph([], [g.function("f", [], []) + fields]),
    "function's signature": lambda fields: g.graph(
        [], [b.field(1, b.field(1, b"f") + fields) + b.field(3, g.node("n", "NoOp"))]
    ),
    "function's result": lambda fields: g.graph(
        [g.node("n", "NoOp")], [g.function("f", [], []) + b.field(4, fields)]
    ),
    "collection": lambda fields: g.meta_graph(GRAPH) + b.field(4, b.field(1, b"c") + fields),
    "saver": lambda fields: g.meta_graph(GRAPH, saver=fields),
    "versions": lambda fields: GRAPH + b.field(4, fields),
}
"""Where fields that nobody knows are added."""


def _endless(place: Callable[[bytes], bytes], form: bytes) -> Callable[[Path, int], Path]:
    def write(directory: Path, size: int) -> Path:
        name = "g.meta" if place in (_PLACES["collection"], _PLACES["saver"]) else "g.pb"
        return _write(directory, place(form * (size // len(form))), name)

    return write


def _tensor_of(number: int, turns: bytes) -> Callable[[Path, int], Path]:
    """Write a tensor of fields that it has, by turns: none is a run."""

    def write(directory: Path, size: int) -> Path:
        return _write(directory, _plain_constant(b.field(1, number) + turns * (size // len(turns))))

    return write


def versions_in_parts(directory: Path, size: int) -> Path:
    """A graph's versions in very many parts, which are one message."""
    part = b.field(4, b.field(1, 1) * 65)
    return _write(directory, GRAPH + part * (size // len(part)))


def _events(part: bytes) -> Callable[[Path, int], Path]:
    """Write one record of TensorBoard of very many of one field."""

    def write(directory: Path, size: int) -> Path:
        data = part * (size // len(part))
        head = struct.pack("<Q", len(data))
        record = head + struct.pack("<I", b.masked_crc(head)) + data
        return _write(directory, record + struct.pack("<I", b.masked_crc(data)), EVENTS)

    return write


EVENTS = "events.out.tfevents.1.host"


# Meta graphs


def _meta(directory: Path, graph: bytes, **options: object) -> Path:
    return _write(directory, g.meta_graph(graph, **options), "g.meta")  # type: ignore[arg-type]


def saves(directory: Path, size: int) -> Path:
    """Very many SaveV2, all with one long list of names."""
    names = g.strings("names", *(b"%d" % number for number in _count(size // 4, 6)))
    nodes = [names, g.variable("v", 1)]
    nodes += fill(
        size * 3 // 4, lambda number: g.node(f"s{number}/S", "SaveV2", "p", "names", "names", "v")
    )
    return _write(directory, g.graph(nodes))


def save_of_many(directory: Path, size: int) -> Path:
    """One SaveV2 of very many tensors."""
    count = size // 12
    names = g.strings("names", *(b"%d" % number for number in range(count)))
    save = g.node("s", "SaveV2", "p", "names", "names", *["v"] * count)
    return _write(directory, g.graph([names, g.variable("v", 1), save]))


def saves_in_functions(directory: Path, size: int) -> Path:
    """Calls of one function that saves, of which each is another place."""
    save = g.node("s", "SaveV2", "p", "n", "n", *["x"] * (size // 20))
    nodes = [g.strings("n", b"a"), g.variable("v", 1)]
    nodes += fill(size // 2, lambda number: _call(f"c{number}", "f", "v"))
    calls = [f"c{number}" for number in range(len(nodes) - 2)]
    nodes.append(g.node("all", "NoOp", *(f"^{name}" for name in calls)))
    saver = b.field(1, b"p:0") + b.field(2, b"all:0")
    library = [g.function("f", ["x"], [save, g.strings("n", b"a")])]
    return _meta(directory, g.graph(nodes, library), saver=saver)


def savers(directory: Path, size: int) -> Path:
    """Very many Savers in a collection, each of which begins at one end of the graph."""
    nodes = [g.node("n0", "SaveV2", "p", "q", "r", "v")]
    nodes += fill(size // 2, lambda number: g.node(f"n{number + 1}", "Relu", f"n{number}"))
    last = f"n{len(nodes) - 1}".encode()
    items = fill(size // 2, lambda n: b.field(1, b"%d" % n) + b.field(2, last))
    collection = b.field(2, b"".join(b.field(1, item) for item in items))
    return _meta(directory, g.graph(nodes), collections={"savers": collection})


def collections(directory: Path, size: int) -> Path:
    """Very many collections of one node each."""
    value = b.field(1, b.field(1, b"n"))
    names = {f"c{number}": value for number in _count(size, 17)}
    return _meta(directory, g.graph([g.node("n", "NoOp")]), collections=names)


def long_collection(directory: Path, size: int) -> Path:
    """A collection of very many empty names."""
    value = b.field(1, b"\x0a\x00" * (size // 2))
    return _meta(directory, g.graph([g.node("n", "NoOp")]), collections={"c": value})


def variable_collections(directory: Path, size: int) -> Path:
    """Variables that five collections describe."""
    items = fill(size // 10, lambda number: b.field(1, b"v%d:0" % number))
    value = b.field(2, b"".join(b.field(1, item) for item in items))
    names = ("variables", "trainable_variables", "local_variables", "model_variables", "x")
    nodes = [g.variable(f"v{number}", 1) for number in range(len(items) // 2)]
    return _meta(directory, g.graph(nodes), collections=dict.fromkeys(names, value))


def _collection_of(number: int, element: bytes, name: str = "c") -> Callable[[Path, int], Path]:
    """Write a collection of one kind, of very many of one element."""

    def write(directory: Path, size: int) -> Path:
        value = b.field(number, element * (size // len(element)))
        return _meta(directory, g.graph([g.node("n", "NoOp")]), collections={name: value})

    return write


def graphs_in_parts(directory: Path, size: int) -> Path:
    """A meta graph whose graph is in very many parts, of one node each."""
    parts = fill(size, lambda n: b.field(1, g.node(f"n{n}", "Relu")))
    data = g.meta_graph(b"") + b"".join(b.field(2, part) for part in parts)
    return _write(directory, data, "g.meta")


def meta_graphs(directory: Path, size: int) -> Path:
    """Very many meta graphs in one file, one after another: a message is all of them merged."""
    parts = fill(size, lambda n: g.meta_graph(b.field(1, g.node(f"n{n}", "Relu"))))
    return _write(directory, b"".join(parts), "g.meta")


def tags(directory: Path, size: int) -> Path:
    """Very many empty tags, and operations of which each is an effect that has them."""
    info = b.field(1, b"\x22\x00" * (size // 4))
    nodes = fill(size // 2, lambda n: g.node(f"n{n}", "Zz"))
    return _write(directory, info + b.field(2, g.graph(nodes)), "g.meta")


def stripped_ops(directory: Path, size: int) -> Path:
    """A list of very many operations that the graph is said to use."""
    info = b.field(1, b.field(2, b"\x0a\x00" * (size // 2)))
    return _write(directory, info + b.field(2, g.graph([g.node("n", "NoOp")])), "g.meta")


def signatures(directory: Path, size: int) -> Path:
    """Very many signatures."""
    pairs = fill(size, lambda n: g.entry(f"s{n}", b.field(3, b"m")))
    data = g.meta_graph(g.graph([g.node("n", "NoOp")])) + b"".join(b.field(5, p) for p in pairs)
    return _write(directory, data, "g.meta")


def savers_apart(directory: Path, size: int) -> Path:
    """Very many Savers in a collection, each with an op of its own."""
    nodes: list[bytes] = [g.strings("names", b"a"), g.variable("v", 1)]
    nodes += fill(size // 2, lambda n: g.node(f"s{n}", "SaveV2", "p", "names", "names", "v"))
    items = fill(size // 4, lambda n: b.field(1, b"p%d" % n) + b.field(2, b"s%d" % n))
    collection = b.field(2, b"".join(b.field(1, item) for item in items))
    return _meta(directory, g.graph(nodes), collections={"savers": collection})


# Text


def _text(make: Callable[[int], Iterable[str]], name: str = "g.pbtxt") -> Callable[..., Path]:
    def write(directory: Path, size: int) -> Path:
        return _write(directory, "".join(make(size)).encode(), name)

    return write


def _text_nodes(size: int) -> Iterable[str]:
    return (f'node{{name:"{number}"op:"Const"}}\n' for number in _count(size, 32))


def _text_inputs(size: int) -> Iterable[str]:
    yield 'node{name:"n"op:"NoOp"'
    yield from ('input:""' for _ in _count(size, 8))
    yield "}"


def _text_numbers(size: int) -> Iterable[str]:
    yield 'node{name:"n"op:"NoOp"attr{key:"a"value{list{i:['
    yield from ("1," for _ in _count(size, 2))
    yield "1]}}}}"


def _text_values(size: int) -> Iterable[str]:
    yield 'node{name:"n"op:"NoOp"attr{key:"a"value{list{'
    yield from ("i:1 " for _ in _count(size, 4))
    yield "}}}}"


def _text_line(size: int) -> Iterable[str]:
    yield 'node { name: "'
    yield "n" * size
    yield '" op: "NoOp" }'


def _text_escapes(size: int) -> Iterable[str]:
    yield 'node { name: "'
    yield "\\\\l" * (size // 3)
    yield '" op: "NoOp" }'


def _text_strings(size: int) -> Iterable[str]:
    yield "node { name: "
    yield '""' * (size // 2)
    yield ' op: "NoOp" }'


def _text_comments(size: int) -> Iterable[str]:
    yield 'node { name: "n" op: "NoOp" }\n'
    yield "#\n" * (size // 2)


def _text_blank(size: int) -> Iterable[str]:
    yield 'node { name: "n" op: "NoOp" }'
    yield " \n" * (size // 2)


def _text_open(size: int) -> Iterable[str]:
    yield 'node { name: "n" op: "NoOp" }'
    yield '"' + "\\" * size


def _text_empty(size: int) -> Iterable[str]:
    yield from ("node{}" for _ in _count(size, 6))


def _text_unknown(size: int) -> Iterable[str]:
    yield 'node { name: "n" op: "NoOp" }\n'
    yield from ("zz{}\n" for _ in _count(size, 5))


def _text_deep(size: int) -> Iterable[str]:
    func = 'attr{key:"a"value{func{'
    one = 'node{name:"%d"op:"X"' + func * 30 + "}}}" * 30 + "}"
    yield from (one % number for number in _count(size, len(one)))


def _text_printed(size: int) -> Iterable[str]:
    one = """node {
  name: "layer/%d/kernel"
  op: "Const"
  attr {
    key: "dtype"
    value {
      type: DT_FLOAT
    }
  }
  attr {
    key: "value"
    value {
      tensor {
        dtype: DT_FLOAT
        tensor_shape {
          dim {
            size: 1
          }
        }
        float_val: 1.5
      }
    }
  }
}
"""
    return (one % number for number in _count(size, len(one)))


def _text_floats(size: int) -> Iterable[str]:
    yield 'node{name:"n"op:"Const"attr{key:"value"value{tensor{dtype:DT_FLOAT tensor_shape{}'
    yield from ("float_val:1 " for _ in _count(size, 12))
    yield "}}}}"


def _text_octal(size: int) -> Iterable[str]:
    yield 'node{name:"n"op:"Const"attr{key:"value"value{tensor{dtype:DT_UINT8 tensor_content:"'
    yield "\\001" * (size // 4)
    yield '"}}}}'


def _text_short_escapes(size: int) -> Iterable[str]:
    yield 'node{name:"n"op:"Const"attr{key:"value"value{tensor{dtype:DT_STRING '
    yield from ('string_val:"\\0\u00e9"' for _ in _count(size, 17))
    yield "}}}}"


def _text_collection(size: int) -> Iterable[str]:
    yield 'graph_def{node{name:"n"op:"NoOp"}}collection_def{key:"c"value{node_list{'
    yield from ('value:""' for _ in _count(size, 8))
    yield "}}}"


def _text_functions(size: int) -> Iterable[str]:
    yield 'node{name:"n"op:"NoOp"}library{'
    yield from (f'function{{signature{{name:"{n}"}}}}' for n in _count(size, 30))
    yield "}"


def _text_words(size: int) -> Iterable[str]:
    yield 'node{name:"n"op:"NoOp"attr{key:"a"value{list{'
    yield from ("type:DT_INT8 " for _ in _count(size, 13))
    yield "}}}}"


def _text_late(size: int) -> Iterable[str]:
    yield from _text_printed(size)
    yield "node { name: 'n' op: \"NoOp\" }"


KINDS = {
    "empty constants": empty_constants,
    "scalar constants": scalar_constants,
    "filling constants": filling_constants,
    "large filling constants": large_filling_constants,
    "deep constants": deep_constants,
    "string constants": string_constants,
    "valueless constants": valueless_constants,
    "ranked constants": ranked_constants,
    "variant constants": variant_constants,
    "packed numbers": packed_numbers,
    "unpacked numbers": unpacked_numbers,
    "empty strings": empty_strings,
    "empty variants": empty_variants,
    "nested variants": nested_variants,
    "dims": text_dims,
    "frozen weights": frozen_weights,
    "resource constants": resource_constants,
    "unknown constants": unknown_constants,
    "cut constants": cut_constants,
    "scattered constants": scattered_constants,
    "content strings": content_strings,
    "shaped strings": shaped_strings,
    "content string": content_string,
    "empty handles": empty_handles,
    "constants of functions": constants_of_functions,
    "chain": chain,
    "passing chain": passing_chain,
    "smallest nodes": smallest_nodes,
    "ring": ring,
    "star": star,
    "variables": variables,
    "shared variables": shared_variables,
    "passed on": passed_on,
    "all to all": all_to_all,
    "fan in": fan_in,
    "same input": same_input,
    "fan of two": fan_of_two,
    "square": square,
    "swapped heads": swapped_heads,
    "groups": groups,
    "frames": frames,
    "nested frames": nested_frames,
    "devices": devices,
    "control edges": control_edges,
    "one control": one_control,
    "odd names": odd_names,
    "queues": queues,
    "long names": long_names,
    "slashes": slashes,
    "one long name": one_long_name,
    "same name": same_name,
    "unknown ops": unknown_ops,
    "reading ops": reading_ops,
    "one file name": one_file_name,
    "many file names": many_file_names,
    "list attribute": list_attribute,
    "string attributes": string_attributes,
    "function lists": function_lists,
    "nested functions": nested_functions,
    "many attributes": many_attributes,
    "empty fields": empty_fields,
    "list of shapes": _list_of(b"\x3a\x00"),
    "list of functions": _list_of(b"\x4a\x00", "Zz"),
    "list of tensors": _list_of(b"\x42\x00", "Zz"),
    "list of types": _list_of(b"\x30\x01"),
    "list of numbers": _list_of(b"\x18\x01", "Zz"),
    "list of strings": _list_of(b"\x12\x00", "Zz"),
    "lists of calls": _call_lists,
    "chained functions": _functions(_chained, g.variable("v", 1), _call("c", "f0", "v")),
    "doubled functions": _functions(_doubled, g.variable("v", 1), _call("c", "f0", "v")),
    "functions in circles": _functions(_circle, g.variable("v", 1), _call("c", "f0", "v")),
    "empty functions": _functions(lambda number: g.function(f"f{number}", [], [])),
    "reads in functions": reads_in_functions,
    "calls of one function": calls_of_one_function,
    "reads of one argument": reads_of_one_argument,
    "many arguments": many_arguments,
    "carried graphs": carried_graphs,
    "gradients": gradients,
    "gradients of functions": gradients_of_functions,
    "many results": many_results,
    "signature of function": signature_of_function,
    "arguments said": arguments_said,
    "libraries": libraries,
    "long function names": long_function_names,
    "saves": saves,
    "save of many": save_of_many,
    "saves in functions": saves_in_functions,
    "savers": savers,
    "collections": collections,
    "long collection": long_collection,
    "variable collections": variable_collections,
    "node list": _collection_of(1, b"\x0a\x00"),
    "bytes list": _collection_of(2, b"\x0a\x00"),
    "int64 list": _collection_of(3, b"\x08\x01"),
    "float list": _collection_of(4, b"\x0d\x00\x00\x00\x00"),
    "any list": _collection_of(5, b"\x0a\x00"),
    "empty savers": _collection_of(2, b"\x0a\x00", "savers"),
    "empty variables": _collection_of(2, b"\x0a\x00", "variables"),
    "graphs in parts": graphs_in_parts,
    "meta graphs": meta_graphs,
    "tags": tags,
    "stripped ops": stripped_ops,
    "signatures": signatures,
    "savers apart": savers_apart,
    "turns of types and shapes": _tensor_of(b.FLOAT, b"\x08\x01\x12\x00"),
    "turns of types and numbers": _tensor_of(b.INT64, b"\x08\x09\x50\x01"),
    "turns of types and strings": _tensor_of(b.STRING, b"\x08\x07\x42\x00"),
    "turns of strings": _tensor_of(b.STRING, b"\x42\x00" * 33 + b.field(8, b"a" * 16)),
    "packed in parts": _tensor_of(b.INT64, b"\x52\x01\x01"),
    "packed of nothing": _tensor_of(b.INT64, b"\x52\x00"),
    "versions in parts": versions_in_parts,
    "event of graphs": _events(b"\x22\x00"),
    "event of meta graphs": _events(b"\x4a\x00"),
    "event of fields": _events(b"\x08\x00"),
    "text nodes": _text(_text_nodes),
    "text inputs": _text(_text_inputs),
    "text numbers": _text(_text_numbers),
    "text values": _text(_text_values),
    "text line": _text(_text_line),
    "text escapes": _text(_text_escapes),
    "text strings": _text(_text_strings),
    "text comments": _text(_text_comments),
    "text blank": _text(_text_blank),
    "text open": _text(_text_open),
    "text empty": _text(_text_empty),
    "text unknown": _text(_text_unknown),
    "text deep": _text(_text_deep),
    "text printed": _text(_text_printed),
    "text floats": _text(_text_floats),
    "text octal": _text(_text_octal),
    "text short escapes": _text(_text_short_escapes),
    "text collection": _text(_text_collection, "g.meta.pbtxt"),
    "text functions": _text(_text_functions),
    "text words": _text(_text_words),
    "text late": _text(_text_late),
}
KINDS |= {
    f"endless {form} in {place}": _endless(make, fields)
    for place, make in _PLACES.items()
    for form, fields in FORMS.items()
}
KINDS |= {f"{name} within": _within(_MADE[kind]) for name, kind in KINDS.items() if kind in _MADE}
