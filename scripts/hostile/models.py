"""SavedModels, in any of their three files, Keras's metadata, and object graphs."""

# What a kind is: the text of a function says what it writes, not what it does.
# ruff: noqa: ARG005

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import builder as b
import graph_builder as g
import numpy as np
import riegeli_builder as r

from ckptparse.limits import DEFAULT_LIMITS
from hostile.graphs import fill

__all__ = ["KINDS"]

field = b.field
GRAPH = g.graph([g.node("n", "NoOp")])
INFO = field(1, field(4, b"serve") + field(5, b"2.21.0"))


# Object graphs in checkpoints


def child(number: int, name: str) -> bytes:
    return field(1, field(1, number) + field(2, name.encode()))


def slot(variable: int, name: str, kept: int) -> bytes:
    return field(3, field(1, variable) + field(2, name.encode()) + field(3, kept))


def value(key: str, name: str = "") -> bytes:
    full = field(2, name.encode()) if name else b""
    return field(2, field(1, b"VARIABLE_VALUE") + full + field(3, key.encode()))


def objects(*nodes: bytes) -> bytes:
    return b"".join(field(1, node) for node in nodes)


def _checkpoint(
    directory: Path, graph: bytes, keys: Iterable[str] = ("a",), *, padding: int = 0
) -> Path:
    bundle = b.Bundle()
    for key in sorted(set(keys)):
        bundle.add(key, np.float32(1))
    if padding:
        bundle.add("padding", np.zeros(padding, np.uint8))
    bundle.add_strings(b.OBJECT_GRAPH, [graph], ())
    return Path(bundle.write(directory / "m"))


def _chain(size: int) -> list[bytes]:
    """Objects of which each holds the next, and the last a variable."""
    made = fill(size, lambda n: child(n + 1, "a"))
    return [*made, value("a", "a")]


def _star(size: int) -> list[bytes]:
    """The root holds variables, all of one key."""
    kept = fill(size * 2 // 3, lambda n: value("a", str(n)))
    return [b"".join(child(n + 1, str(n)) for n in range(len(kept))), *kept]


def _dense(size: int) -> list[bytes]:
    """Some hundred layers, and each holds every other."""
    count = int((size / 10) ** 0.5)
    all_of_them = b"".join(child(n + 1, f"layer-{n}") for n in range(count))
    return [all_of_them] * (count + 1)


def _lattice(size: int) -> list[bytes]:
    """Two objects that both hold two objects that ...: paths double at each step."""
    made = [child(1, "a") + child(2, "b")]
    for number in range(1, size // 40):
        first = 2 * number + 1
        made += [child(first, "a") + child(first + 1, "b")] * 2
    return [*made, value("a"), value("a")]


def _one_child(size: int) -> list[bytes]:
    """The root holds one object very often, under as many names."""
    return [b"".join(fill(size, lambda n: child(1, str(n)))), value("a", "a")]


def _same_name(size: int) -> list[bytes]:
    """The root holds objects that all have one name."""
    made = fill(size // 2, lambda n: value("a", "a"))
    return [b"".join(child(n + 1, "a") for n in range(len(made))), *made]


def _self(size: int) -> list[bytes]:
    """Objects that all hold themselves and the root."""
    made = fill(size // 2, lambda n: child(n + 1, "_self") + child(0, "root"))
    return [b"".join(child(n + 1, str(n)) for n in range(len(made))), *made]


def _empty(size: int) -> list[bytes]:
    """Objects of nothing that nothing leads to."""
    return [b""] * (size // 2)


def _slots(size: int) -> list[bytes]:
    """An optimizer that keeps very many slots of one variable, all in one object."""
    made = b"".join(fill(size, lambda n: slot(1, str(n), 2)))
    return [child(1, "v") + child(3, "optimizer"), value("a", "a"), value("a"), made]


def _optimizers(size: int) -> list[bytes]:
    """Very many optimizers, each with a slot of every one of some variables."""
    variables = 20
    slots = b"".join(slot(n + 1, "m", n + 1) for n in range(variables))
    made = fill(size, lambda n: slots)
    first = variables + 1
    root = b"".join(child(n + 1, f"v{n}") for n in range(variables))
    root += b"".join(child(first + n, f"o{n}") for n in range(len(made)))
    return [root, *(value("a", f"v{n}") for n in range(variables)), *made]


def _nested_optimizers(size: int) -> list[bytes]:
    """Optimizers in optimizers, each with a slot."""
    made = fill(size, lambda n: child(n + 3, "inner") + slot(1, "m", 1))
    return [child(1, "v") + child(2, "o"), value("a", "v"), *made, b""]


def _listed_slots(size: int) -> list[bytes]:
    """Optimizers of Keras 3 that all share one long list of variables."""
    names = [str(n) for n in range(size // 40)]
    elements = b"".join(child(1, name) for name in names)
    parts = "_trainable_variables", "_variables", "_iterations", "_momentums", "_velocities"
    made = fill(size // 2, lambda n: b"".join(child(2, part) for part in parts))
    root = b"".join(child(3 + n, f"o{n}") for n in range(len(made)))
    return [root, value("a", "v"), elements, *made]


def _named_slots(size: int) -> list[bytes]:
    """An optimizer of Keras 2.11 whose slots have names of very many parts."""
    made = fill(size, lambda n: value("a", "a/" * 5000 + str(n)))
    elements = b"".join(child(3 + n, str(n)) for n in range(len(made)))
    optimizer = child(2, "_variables") + child(2, "_iterations")
    return [child(1, "o"), optimizer, elements, *made]


def _averages(size: int) -> list[bytes]:
    """Variables, each with a moving average."""
    name = "v{}/ExponentialMovingAverage"
    made = fill(size * 2 // 3, lambda n: value("a", name.format(n // 2) if n % 2 else f"v{n // 2}"))
    return [b"".join(child(n + 1, str(n)) for n in range(len(made))), *made]


def _layers(size: int) -> list[bytes]:
    """Layers, each with a kernel, in one model."""
    made = fill(size // 2, lambda n: child(1, "kernel"))
    layers = b"".join(child(n + 2, f"layer-{n}") for n in range(len(made)))
    return [layers + child(0, "keras_api"), value("a", "a"), *made]


def _nested_layers(size: int) -> list[bytes]:
    """Layers in layers, each with a kernel."""
    made = fill(
        size, lambda n: child(1, "kernel") + child(n + 3, "layer-0") + child(0, "keras_api")
    )
    return [child(2, "layer-0"), value("a", "a"), *made, b""]


def _long_names(size: int) -> list[bytes]:
    """A chain of objects whose names have 1,000 letters that are escaped."""
    made = fill(size, lambda n: child(n + 1, "./" * 500))
    return [*made, value("a", "a")]


def _deep_star(size: int) -> list[bytes]:
    """Variables below a chain of objects with very long names."""
    depth = 30
    made = [child(n + 1, "a" * (size // 2 // depth)) for n in range(depth)]
    kept = fill(size // 3, lambda n: value("a", str(n)))
    star = b"".join(child(depth + 1 + n, str(n)) for n in range(len(kept)))
    return [*made, star, *kept]


def _deep_layers(size: int) -> list[bytes]:
    """Layers below a chain of objects with very long names."""
    depth = 30
    chain = [child(n + 1, "a" * (size // 2 // depth)) for n in range(depth)]
    made = fill(size // 4, lambda n: child(depth + 1, "kernel"))
    layers = b"".join(child(n + depth + 2, f"layer-{n}") for n in range(len(made)))
    return [*chain, layers + child(0, "keras_api"), value("a"), *made]


def _stems(size: int) -> list[bytes]:
    """Attributes whose keys are stems of every stored name."""
    made = fill(size // 2, lambda n: field(2, field(1, b"table") + field(3, b"a")))
    return [child(1, "t"), *made]


def _attributes(size: int) -> list[bytes]:
    """One variable that states very many keys."""
    return [child(1, "v"), b"".join(fill(size, lambda n: value("a")))]


_OBJECTS = {
    "chain": _chain,
    "star": _star,
    "dense": _dense,
    "lattice": _lattice,
    "one child": _one_child,
    "same name": _same_name,
    "self": _self,
    "empty": _empty,
    "slots": _slots,
    "optimizers": _optimizers,
    "nested optimizers": _nested_optimizers,
    "listed slots": _listed_slots,
    "named slots": _named_slots,
    "averages": _averages,
    "layers": _layers,
    "nested layers": _nested_layers,
    "long names": _long_names,
    "deep star": _deep_star,
    "deep layers": _deep_layers,
    "attributes": _attributes,
}


def _in_checkpoint(make: Callable[[int], list[bytes]]) -> Callable[[Path, int], Path]:
    def write(directory: Path, size: int) -> Path:
        return _checkpoint(directory, objects(*make(size)))

    write.__doc__ = make.__doc__
    return write


def _within(make: Callable[[int], list[bytes]], size: int, allowed: int) -> list[bytes]:
    """Make about as many objects as are allowed, in so many bytes at most."""
    wanted = min(size, 20 * allowed)
    while True:
        nodes = make(wanted)
        found = len(nodes) + sum(len(_fields(node)) for node in nodes) // 4
        if found <= allowed and (found > allowed * 0.97 or wanted == size):
            return nodes
        wanted = min(size, int(wanted * allowed * 0.99 / found))


def _allowed(size: int) -> int:
    """Return how many objects a graph may have in files of so many bytes, without a few."""
    return DEFAULT_LIMITS.objects + size // 512 - 100


def _allowed_in_checkpoint(make: Callable[[int], list[bytes]]) -> Callable[[Path, int], Path]:
    """Write as many objects as a checkpoint may have, and a tensor that fills it up."""

    def write(directory: Path, size: int) -> Path:
        graph = objects(*_within(make, size, _allowed(size)))
        return _checkpoint(directory, graph, padding=max(0, size - len(graph)))

    write.__doc__ = make.__doc__
    return write


def _allowed_in_model(make: Callable[[int], list[bytes]]) -> Callable[[Path, int], Path]:
    """Write as many objects as a SavedModel and its checkpoint may have, and what fills them up."""

    def write(directory: Path, size: int) -> Path:
        nodes = _within(make, size // 2, _allowed(size // 2))
        saved = field(7, objects(*map(_saved_object, nodes)))
        filled = field(
            2, field(1, field(1, b"n") + field(2, b"A" * max(0, size // 2 - len(saved))))
        )
        return _write(
            directory,
            INFO + filled + saved,
            variables=objects(*nodes),
            padding=max(0, size // 2 - len(objects(*nodes))),
        )

    write.__doc__ = make.__doc__
    return write


def stems(directory: Path, size: int) -> Path:
    """Attributes whose keys are stems of every stored name."""
    names = [f"a-{number}" for number in range(size // 200)]
    return _checkpoint(directory, objects(*_stems(size // 2)), names)


# SavedModels


def _write(
    directory: Path,
    *meta_graphs: bytes,
    variables: bytes | None = None,
    files: Mapping[str, bytes] = {},
    padding: int = 0,
) -> Path:
    message = field(1, 1) + b"".join(field(2, one) for one in meta_graphs)
    (directory / "saved_model.pb").write_bytes(message)
    for name, data in files.items():
        (directory / name).write_bytes(data)
    if variables is not None:
        (directory / "variables").mkdir()
        _checkpoint(directory / "variables", variables, padding=padding)
        for path in (directory / "variables").iterdir():
            path.rename(path.with_name(path.name.replace("m", "variables", 1)))
    return directory


def _meta_graph(*parts: bytes, graph: bytes = GRAPH) -> bytes:
    return INFO + field(2, graph) + b"".join(parts)


def _saved_object(node: bytes) -> bytes:
    """The object of a SavedModel for one of a checkpoint: what keeps a value is a variable."""
    parts = _fields(node)
    kept = b"".join(field(number, part) for number, part in parts if number != 2)
    is_variable = any(number == 2 for number, _ in parts)
    return kept + (
        field(7, field(1, b.FLOAT) + field(2, b"") + field(6, b"v")) if is_variable else b""
    )


def _fields(data: bytes) -> list[tuple[int, bytes]]:
    """The fields of a message that has none but bytes."""
    found, at = [], 0
    while at < len(data):
        number, at = data[at] >> 3, at + 1
        length = shift = 0
        while True:
            length |= (data[at] & 127) << shift
            shift += 7
            at += 1
            if data[at - 1] < 128:
                break
        found.append((number, data[at : at + length]))
        at += length
    return found


def _in_model(make: Callable[[int], list[bytes]]) -> Callable[[Path, int], Path]:
    def write(directory: Path, size: int) -> Path:
        nodes = make(size // 2)
        saved = objects(*map(_saved_object, nodes))
        return _write(directory, _meta_graph(field(7, saved)), variables=objects(*nodes))

    write.__doc__ = make.__doc__
    return write


def _model(make: Callable[[int], Sequence[bytes]]) -> Callable[[Path, int], Path]:
    """Write a SavedModel of one meta graph with these parts."""

    def write(directory: Path, size: int) -> Path:
        return _write(directory, _meta_graph(*make(size)))

    write.__doc__ = make.__doc__
    return write


@_model
def assets(size: int) -> Sequence[bytes]:
    """Assets, each of its own name."""
    return [field(6, part) for part in fill(size, lambda n: field(1, b"") + field(2, b"%d" % n))]


@_model
def asset_nodes(size: int) -> Sequence[bytes]:
    """Assets of nodes of their own."""
    return [
        field(6, part)
        for part in fill(size, lambda n: field(1, field(1, b"n%d" % n)) + field(2, b"%d" % n))
    ]


@_model
def deep_assets(size: int) -> Sequence[bytes]:
    """Assets in directories in directories, 1,000 deep."""
    return [field(6, part) for part in fill(size, lambda n: field(2, b"a/" * 1000 + b"%d" % n))]


@_model
def bad_assets(size: int) -> Sequence[bytes]:
    """Assets whose names lead out."""
    return [field(6, part) for part in fill(size, lambda n: field(2, b"../%d" % n))]


@_model
def signatures(size: int) -> Sequence[bytes]:
    """Signatures of one input each."""
    info = field(2, field(1, b"x:0") + field(2, 1))
    one = field(1, field(1, b"x") + info)
    return [field(5, part) for part in fill(size, lambda n: field(1, b"%d" % n) + field(2, one))]


@_model
def signature_inputs(size: int) -> Sequence[bytes]:
    """One signature of very many inputs."""
    made = fill(size, lambda n: field(1, b"%d" % n) + field(2, b""))
    return [field(5, field(1, b"s") + field(2, b"".join(field(1, part) for part in made)))]


@_model
def signature_defaults(size: int) -> Sequence[bytes]:
    """One signature of very many arguments with a value."""
    default = field(2, b.tensor_proto(b.FLOAT, [], field(5, bytes(4))))
    made = fill(size, lambda n: field(1, b"%d" % n) + default)
    return [field(5, field(1, b"s") + field(2, b"".join(field(4, part) for part in made)))]


@_model
def components(size: int) -> Sequence[bytes]:
    """A signature of an input of very many components."""
    info = field(5, b"".join([field(2, b"")] * (size // 2)))
    return [field(5, field(1, b"s") + field(2, field(1, field(1, b"x") + field(2, info))))]


@_model
def dims(size: int) -> Sequence[bytes]:
    """A signature of an input of very many dimensions."""
    info = field(3, b"\x12\x00" * (size // 2))
    return [field(5, field(1, b"s") + field(2, field(1, field(1, b"x") + field(2, info))))]


@_model
def unknown_fields(size: int) -> Sequence[bytes]:
    """Nothing but unknown fields of two bytes."""
    return [b"\x7a\x00" * (size // 2)]


@_model
def aliases(size: int) -> Sequence[bytes]:
    """Aliases of functions."""
    made = fill(size, lambda n: field(1, b"%d" % n) + field(2, b"a"))
    return [field(1, b"".join(field(6, part) for part in made))]


@_model
def tags(size: int) -> Sequence[bytes]:
    """Very many tags."""
    return [field(1, b"\x22\x00" * (size // 2))]


@_model
def concrete_functions(size: int) -> Sequence[bytes]:
    """Functions that objects call, each with what it takes."""
    spec = field(3, field(33, field(1, b"x")))
    made = fill(size, lambda n: field(1, b"%d" % n) + field(2, field(2, 0) + spec))
    return [field(7, field(1, b"") + b"".join(field(2, part) for part in made))]


@_model
def bound_inputs(size: int) -> Sequence[bytes]:
    """A function that is bound to one asset very often, and reads as many files."""
    one = field(1, b"f") + field(2, field(2, b"\x01" * size))
    return [field(7, objects(b"", field(5, b"")) + field(2, one))]


@_model
def structures(size: int) -> Sequence[bytes]:
    """A function that takes a list of very many empty values."""
    values = field(51, b"\x0a\x00" * (size // 2))
    return [field(7, field(1, b"") + field(2, field(1, b"f") + field(2, field(3, values))))]


@_model
def static_tables(size: int) -> Sequence[bytes]:
    """Tables that all have their keys from one function of very many arguments."""
    tables = size // 20
    root = b"".join(child(n + 2, str(n)) for n in range(tables))
    table = child(1, "_initialize") + field(10, b"")
    function = field(6, field(1, b"f"))
    made = objects(root, function, *[table] * tables)
    bound = field(2, field(1, b"f") + field(2, field(2, b"\x00" * (size // 4))))
    return [field(7, made + bound)]


@_model
def constants(size: int) -> Sequence[bytes]:
    """Objects that are all one constant of the graph."""
    made = fill(size // 2, lambda n: field(9, field(1, b"c")))
    root = b"".join(child(n + 1, str(n)) for n in range(len(made)))
    return [field(2, g.graph([g.constant("c", dims=[0])])), field(7, objects(root, *made))]


@_model
def user_objects(size: int) -> Sequence[bytes]:
    """Objects of Keras with metadata of their own, in a chain."""
    user = field(4, field(1, b"_tf_keras_layer") + field(3, b'{"name":"a"}'))
    made = fill(size, lambda n: user + child(n + 1, "a"))
    return [field(7, objects(*made, b""))]


@_model
def deep_user_objects(size: int) -> Sequence[bytes]:
    """Objects of Keras with metadata of their own, below a chain of very long names."""
    depth = 100
    chain = [child(n + 1, "a" * (size // 2 // depth)) for n in range(depth)]
    user = field(4, field(1, b"_tf_keras_layer") + field(3, b'{"name":"a"}'))
    made = fill(size // 4, lambda n: user)
    star = b"".join(child(n + depth + 1, str(n)) for n in range(len(made)))
    return [field(7, objects(*chain, star, *made))]


def meta_graphs(directory: Path, size: int) -> Path:
    """Meta graphs that say nothing."""
    return _write(directory, *[b""] * (size // 2))


def meta_graphs_of_objects(directory: Path, size: int) -> Path:
    """Meta graphs, each with an object and a tag of its own."""
    made = fill(size, lambda n: field(1, field(4, b"%d" % n)) + field(7, field(1, field(7, b""))))
    return _write(directory, *made)


# Keras's metadata


def _keras(metadata: Callable[[int], Iterable[str]]) -> Callable[[Path, int], Path]:
    """A model of layers, and what Keras wrote of each."""

    def write(directory: Path, size: int) -> Path:
        texts = list(metadata(size))
        nodes = [b"".join(child(n + 1, f"layer-{n}") for n in range(len(texts)))]
        nodes += [field(4, field(1, b"_tf_keras_layer"))] * len(texts)
        items = (
            field(2, n + 1)
            + field(3, b"root.layer-%d" % n)
            + field(4, b"_tf_keras_layer")
            + field(5, text.encode())
            for n, text in enumerate(texts)
        )
        file = b"".join(field(1, item) for item in items)
        meta_graph = _meta_graph(field(7, objects(*nodes)))
        return _write(directory, meta_graph, files={"keras_metadata.pb": file})

    return write


def _lambda(text: str) -> str:
    return json.dumps({"class_name": "Lambda", "name": "a", "config": {"function": text}})


_KERAS = {
    "keras layers": lambda size: ['{"name":"a","class_name":"Dense"}'] * (size // 100),
    "keras wide": lambda size: ['{"name":"a","config":{"a":[' + "1," * (size // 2) + "1]}}"],
    "keras objects": lambda size: ['{"config":[' + "{}," * (size // 3) + "{}]}"],
    "keras deep": lambda size: ["[" * size],
    "keras nested": lambda size: ['{"config":' * 900 + "1" + "}" * 900] * (size // 10_000),
    "keras string": lambda size: ['{"name":"' + "a" * size + '"}'],
    "keras escapes": lambda size: ['{"name":"' + "\\u0001" * (size // 6) + '"}'],
    "keras number": lambda size: ['{"name":' + "1" * 4000 + "}"] * (size // 4100),
    "keras bad": lambda size: ["{"] * (size // 60),
    "keras lambdas": lambda size: [_lambda("x")] * (size // 150),
    "keras code": lambda size: [_lambda("4wAA" * (size // 4))],
    "keras named lambdas": lambda size: [
        '{"name":"m","class_name":"Lambda","config":{"name":"'
        + "a" * (size // 2)
        + '","layers":['
        + '{"class_name":"Lambda","config":{"name":"a","function":"x"}},' * (size // 130)
        + "{}]}}"
    ],
    "keras nested names": lambda size: [
        f'{{"class_name":"Lambda","config":{{"function":"f","name":"{"a" * (size // 200)}","l":'
        * 200
        + "[]"
        + "}}" * 200
    ],
    "keras lists": lambda size: ['{"config":[' + "[]," * (size // 3) + "[]]}"],
    "keras model": lambda size: [
        '{"name":"m","class_name":"Functional","config":{"layers":['
        + '{"class_name":"Lambda","config":{"name":"a"}},' * (size // 45)
        + "{}]}}"
    ],
}


# Chunked


def _chunked(make: Callable[[int], bytes]) -> Callable[[Path, int], Path]:
    def write(directory: Path, size: int) -> Path:
        (directory / "saved_model.cpb").write_bytes(make(size))
        return directory

    write.__doc__ = make.__doc__
    return write


NODE_TAG = (2, "#0", 2, 1)


@_chunked
def _chunks(size: int) -> bytes:
    """Chunks of one node each."""
    base = field(1, 1) + field(2, _meta_graph())
    nodes = [(r.MESSAGE, g.node(f"n{number}x", "NoOp")) for number in range(size // 45)]
    fields = (
        r.chunked_field((*NODE_TAG, f"#{number + 1}"), r.chunked_message(number + 1))
        for number in range(len(nodes))
    )
    plan = r.chunked_message(0, fields)
    return r.chunked_file([(r.MESSAGE, base), *nodes], plan, compression="none")


@_chunked
def _one_chunk(size: int) -> bytes:
    """One chunk of 60 KiB that is merged very often into what it was merged into."""
    base = field(1, 1) + field(2, _meta_graph())
    again = field(2, _meta_graph(graph=g.graph(fill(60_000, lambda n: g.node(str(n), "A")))))
    plan = r.chunked_message(0, [r.chunked_field((), r.chunked_message(1))] * (size // 6))
    return r.chunked_file([(r.MESSAGE, base), (r.MESSAGE, again)], plan)


@_chunked
def _long_tags(size: int) -> bytes:
    """Fields whose tags lead 90 messages deep, through components of components."""
    base = field(1, 1) + field(2, _meta_graph())
    tag = (2, "#0", 5, ("s", "s"), 1, ("s", "x"), *((5, 2, "#0") * 40))
    plan = r.chunked_message(
        0, [r.chunked_field(tag, r.chunked_message(1)) for _ in range(size // 900)]
    )
    return r.chunked_file([(r.MESSAGE, base), (r.MESSAGE, b"")], plan)


@_chunked
def _set_again(size: int) -> bytes:
    """One content of 60 KiB that is set very often."""
    base = field(1, 1) + field(2, _meta_graph(graph=g.graph([g.constant("c", dims=[0])])))
    tag = (*NODE_TAG, "#0", 5, ("s", "value"), 8, 4)
    plan = r.chunked_message(0, [r.chunked_field(tag, r.chunked_message(1))] * (size // 60))
    return r.chunked_file([(r.MESSAGE, base), (r.BYTES, bytes(60_000))], plan)


@_chunked
def _many_chunks(size: int) -> bytes:
    """Riegeli's own chunks, each of one empty record."""
    base = field(1, 1) + field(2, _meta_graph())
    empty = [(r.BYTES, b"")] * (size // 60)
    plan = r.chunked_message(len(empty))
    return r.chunked_file([*empty, (r.MESSAGE, base)], plan, records_per_chunk=1)


@_chunked
def _empty_records(size: int) -> bytes:
    """Very many records of nothing, which the plan does not name."""
    base = field(1, 1) + field(2, _meta_graph())
    empty = [(r.BYTES, b"")] * size
    plan = r.chunked_message(0)
    return r.chunked_file([(r.MESSAGE, base), *empty], plan, infos=lambda infos: infos[:1])


_CHUNKED = {
    "chunks": _chunks,
    "one chunk": _one_chunk,
    "long tags": _long_tags,
    "set again": _set_again,
    "many chunks": _many_chunks,
    "empty records": _empty_records,
}


# Text, and small files


def _text(make: Callable[[int], str]) -> Callable[[Path, int], Path]:
    def write(directory: Path, size: int) -> Path:
        (directory / "saved_model.pbtxt").write_text(make(size))
        return directory

    return write


_TEXTS = {
    "text meta graphs": lambda size: "meta_graphs{}" * (size // 13),
    "text nodes": lambda size: "meta_graphs{graph_def{" + "node{}" * (size // 6) + "}}",
    "text spaced nodes": lambda size: (
        "meta_graphs{graph_def{" + 'node{name:"a"               }' * (size // 30) + "}}"
    ),
    "text objects": lambda size: (
        "meta_graphs{graph_def{}object_graph_def{" + "nodes{}" * (size // 7) + "}}"
    ),
    "text unknown": lambda size: "meta_graphs{}" + "zz{}" * (size // 4),
}


def fingerprint(directory: Path, size: int) -> Path:
    """A fingerprint of nothing but unknown fields."""
    file = b"\x7a\x00" * (size // 2)
    return _write(directory, _meta_graph(), variables=b"", files={"fingerprint.pb": file})


def frozen(directory: Path, size: int) -> Path:
    """A model without variables whose graph has very many constants."""
    nodes = fill(size, lambda n: g.constant(f"c{n}", dims=[0]))
    return _write(directory, _meta_graph(graph=g.graph(nodes)))


KINDS: Mapping[str, Callable[[Path, int], Path]] = {
    **{f"objects: {name}": _in_checkpoint(make) for name, make in _OBJECTS.items()},
    "objects: stems": stems,
    **{f"objects allowed: {name}": _allowed_in_checkpoint(m) for name, m in _OBJECTS.items()},
    **{f"model: {name}": _in_model(make) for name, make in _OBJECTS.items()},
    **{f"model allowed: {name}": _allowed_in_model(make) for name, make in _OBJECTS.items()},
    "assets": assets,
    "asset nodes": asset_nodes,
    "deep assets": deep_assets,
    "bad assets": bad_assets,
    "signatures": signatures,
    "signature inputs": signature_inputs,
    "signature defaults": signature_defaults,
    "components": components,
    "dims": dims,
    "unknown fields": unknown_fields,
    "aliases": aliases,
    "tags": tags,
    "concrete functions": concrete_functions,
    "bound inputs": bound_inputs,
    "structures": structures,
    "static tables": static_tables,
    "constants": constants,
    "user objects": user_objects,
    "deep user objects": deep_user_objects,
    "meta graphs": meta_graphs,
    "meta graphs of objects": meta_graphs_of_objects,
    **{name: _keras(make) for name, make in _KERAS.items()},
    **_CHUNKED,
    **{name: _text(make) for name, make in _TEXTS.items()},
    "fingerprint": fingerprint,
    "frozen": frozen,
}
