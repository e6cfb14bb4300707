"""Object-based checkpoints: `tf.train.Checkpoint` of modules, containers, tables and optimizers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from fixture_cases.common import EVERY_VERSION, Output, case, tf, tf1

VALUE = "{}/.ATTRIBUTES/VARIABLE_VALUE".format
COUNTER = VALUE("save_counter")


def variable(*values: float, name: str = "v") -> Any:
    """Return a float32 variable."""
    return tf.Variable(np.array(values, np.float32), name=name)


class Dense(tf.Module):
    """A layer with the usual attribute names and variable names."""

    def __init__(self, rng: np.random.Generator, rows: int, cols: int, name: str) -> None:
        super().__init__(name=name)
        with self.name_scope:
            kernel = rng.normal(size=(rows, cols)).astype(np.float32)
            self.kernel = tf.Variable(kernel, name="kernel")
            self.bias = tf.Variable(np.zeros(cols, np.float32), name="bias", trainable=False)


class Model(tf.Module):
    """Layers in a list, a dictionary and a tuple, and one of them again under a second name."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(name="model")
        self.layers = [Dense(rng, 2, 3, "first"), Dense(rng, 3, 1, "second")]
        self.heads = {"a": variable(1, 2, name="head_a"), "b": {"deep": variable(3, name="deep")}}
        self.pair = (variable(4, name="left"), variable(5, name="right"))
        self.alias = self.layers[0]


@case(
    "objects/nested",
    "A tf.Module with layers in a list, a dictionary and a tuple, one under two names, saved "
    "twice: the state file names only the newest; `save_counter` counts.",
    checklist=(98, 101),
    versions=EVERY_VERSION,
)
def nested(out: Output) -> None:
    model = Model(out.random())
    checkpoint = tf.train.Checkpoint(model=model, step=tf.Variable(5, dtype=tf.int64))
    for number in (1, 2):
        checkpoint.step.assign_add(10)
        checkpoint.save(out.path("ckpt"))
        out.checkpoint(
            f"ckpt-{number}",
            {
                COUNTER: np.int64(number),
                VALUE("step"): np.int64(5 + 10 * number),
                VALUE("model/alias/kernel"): model.layers[0].kernel.numpy(),
                VALUE("model/heads/b/deep"): np.array([3], np.float32),
            },
            step=number,
        )
    out.state()


class Named(tf.Module):
    """An object whose children are named by hand."""

    def __init__(self, **children: Any) -> None:
        super().__init__()
        for name, child in children.items():
            self.add(name, child)

    def add(self, name: str, child: Any) -> Named:
        """Track a child under any name, one that is no attribute too."""
        self._track_trackable(child, name)
        return self


@case(
    "objects/names_to_escape",
    "Children named `a/b/c`, `c/`, `.S`, `.ATTRIBUTES/f`, `.ATTRIBUTES`, `x.y`, `..`, and "
    "dictionary keys with slashes and non-ASCII: their keys escape dots and slashes.",
    checklist=(95, 96),
)
def names_to_escape(out: Output) -> None:
    names = ("a/b/c", "c/", "d/.S", "d/.ATTRIBUTES/f", ".S", "..", "x.y", "p/q", "plain", "ключ")
    root = Named()
    for number, name in enumerate(names):
        root.add(name, variable(number, name=f"v{number}"))
    root.add(".ATTRIBUTES", Named(a=variable(20)))
    root.add("dict", Named(k=variable(21)).add("k/1", variable(22)))
    checkpoint = tf.train.Checkpoint(root=root)
    checkpoint.write(out.path("model"))
    escaped = ("a.Sb.Sc", "c.S", "d.S..S", "d.S..ATTRIBUTES.Sf", "..S", "....", "x..y", "p.Sq")
    values = {VALUE(key): np.array([i], np.float32) for i, key in enumerate(escaped)}
    values[VALUE("..ATTRIBUTES/a")] = np.array([20], np.float32)
    out.checkpoint("model", values)


@case(
    "objects/loop",
    "Two modules that hold each other, and a root that holds itself: each variable is saved once.",
    checklist=(97, 98),
)
def loop(out: Output) -> None:
    one, two = Named(v=variable(1)), Named(w=variable(2))
    one.add("other", two)
    two.add("other", one)
    root = Named(one=one, second_name=one)
    root.add("self", root)
    tf.train.Checkpoint(root=root).write(out.path("model"))
    out.checkpoint("model", {VALUE("one/v"): np.array([1], np.float32)})


@case(
    "objects/empty_containers",
    "A root with empty lists, dictionaries and modules beside one variable: nodes without values.",
    checklist=(100, 106),
)
def empty_containers(out: Output) -> None:
    holder = tf.train.Checkpoint(
        empty_list=[], empty_dict={}, module=tf.Module(), nested=[[], {"x": []}], v=variable(1)
    )
    holder.write(out.path("model"))
    out.checkpoint("model", {VALUE("v"): np.array([1], np.float32)})


@case(
    "objects/root_and_attributes",
    "`Checkpoint(root=module, w=...)`, whose keys are as if `w` were an attribute of the module, "
    "and a variable that is itself the root: its key begins with a slash.",
    checklist=(102,),
)
def root_and_attributes(out: Output) -> None:
    tf.train.Checkpoint(root=Named(v=variable(1)), w=variable(2)).write(out.path("model"))
    values = {VALUE("v"): np.array([1], np.float32), VALUE("w"): np.array([2], np.float32)}
    out.checkpoint("model", values)
    tf.train.Checkpoint(root=variable(3, name="alone")).write(out.path("variable"))
    out.checkpoint("variable", {VALUE(""): np.array([3], np.float32)})


@case(
    "objects/python_state",
    "An object with Python state: its `py_state` string is stored after all variables.",
    checklist=(113,),
)
def python_state(out: Output) -> None:
    class Counter(tf.train.experimental.PythonState):
        def serialize(self) -> bytes:
            return b"{'count': 3}"

        def deserialize(self, string_value: bytes) -> None:
            raise NotImplementedError

    holder = tf.train.Checkpoint(counter=Counter(), a=variable(1), z=variable(2))
    holder.write(out.path("model"))
    out.checkpoint("model", {"counter/.ATTRIBUTES/py_state": np.array(b"{'count': 3}", object)})


@case(
    "objects/registered_saver",
    "An object with a registered saver, whose keys no attribute names, and which lie in a shard of "
    "their own, before the others.",
    checklist=(114,),
)
def registered_saver(out: Output) -> None:
    from tensorflow.python.saved_model import registration

    class Stack(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = variable(9)

    def save(trackables: dict[str, Any], file_prefix: Any) -> list[Any]:
        names = [f"{name}/custom" for name in trackables]
        values = [tf.constant([7.0, 8.0]) for _ in trackables]
        tf.raw_ops.SaveV2(
            prefix=file_prefix,
            tensor_names=names,
            shape_and_slices=[""] * len(names),
            tensors=values,
        )
        return [file_prefix]

    registration.register_checkpoint_saver(
        package="Fixture",
        name="stack",
        predicate=lambda x: isinstance(x, Stack),
        save_fn=save,
        restore_fn=lambda *_: None,
    )
    tf.train.Checkpoint(s=Stack(), v=variable(1)).write(out.path("model"))
    shards = len(list(out.root.glob("model.data-*")))
    out.checkpoint("model", {VALUE("v"): np.array([1], np.float32)}, shards=shards)


@case(
    "objects/iterator_and_tables",
    "A dataset iterator, a MutableHashTable and a DenseHashTable: the object graph gives stems, "
    "the bundle has the keys with `-keys`, `-values` and `_STATE`.",
    checklist=(115,),
)
def iterator_and_tables(out: Output) -> None:
    lookup = tf.lookup.experimental
    table = lookup.MutableHashTable(tf.string, tf.int64, default_value=-1)
    table.insert(tf.constant(["one"]), tf.constant([1], tf.int64))
    dense = lookup.DenseHashTable(
        tf.int64, tf.float32, default_value=0.0, empty_key=-1, deleted_key=-2, initial_num_buckets=4
    )
    dense.insert(tf.constant([3], tf.int64), tf.constant([0.5]))
    iterator = iter(tf.data.Dataset.range(5))
    next(iterator)
    holder = tf.train.Checkpoint(iterator=iterator, table=table, dense=dense, v=variable(1))
    holder.write(out.path("model"))
    out.checkpoint("model", {VALUE("v"): np.array([1], np.float32)})


@case(
    "objects/manager",
    "A CheckpointManager's directory after five saves, each 2,000 seconds after the last, with "
    "max_to_keep=2 and one kept every hour: timestamps, `ckpt-2` on disk but not in the state "
    "file.",
    checklist=(74, 75),
    versions=EVERY_VERSION,
)
def manager(out: Output) -> None:
    from tensorflow.python.checkpoint import checkpoint_management

    now = 1_600_000_000.25
    checkpoint_management.time = SimpleNamespace(time=lambda: now)
    checkpoint = tf.train.Checkpoint(v=variable(0))
    kept = tf.train.CheckpointManager(
        checkpoint, out.path("."), max_to_keep=2, keep_checkpoint_every_n_hours=1
    )
    for number in range(1, 6):
        now += 2000
        checkpoint.v.assign([number])
        kept.save()
    for path in sorted(out.root.glob("*.index")):
        number = int(path.stem.split("-")[1])
        out.checkpoint(path.stem, {VALUE("v"): np.array([number], np.float32)}, step=number)
    out.state()


@case(
    "objects/write",
    "`Checkpoint.write` with options: no state file, no `save_counter`.",
    checklist=(105,),
)
def write(out: Output) -> None:
    options = tf.train.CheckpointOptions(experimental_io_device="/job:localhost")
    tf.train.Checkpoint(v=variable(1, 2)).write(out.path("model"), options=options)
    out.checkpoint("model", {VALUE("v"): np.array([1, 2], np.float32)})


@case(
    "objects/asynchronous",
    "An asynchronous save after `sync()`: the same files as of any other.",
    checklist=(108,),
)
def asynchronous(out: Output) -> None:
    options = tf.train.CheckpointOptions(experimental_enable_async_checkpoint=True)
    checkpoint = tf.train.Checkpoint(v=variable(1, 2))
    checkpoint.save(out.path("ckpt"), options=options)
    checkpoint.sync()
    out.checkpoint("ckpt-1", {VALUE("v"): np.array([1, 2], np.float32)}, step=1)
    out.state()


@case(
    "objects/tf1_optimizer",
    "A tf.compat.v1 AdamOptimizer after two steps: slot variables `m` and `v` of each variable, "
    "and the powers of beta as children of the optimizer.",
    versions=EVERY_VERSION,
)
def tf1_optimizer(out: Output) -> None:
    model = Dense(out.random(), 2, 2, "dense")
    optimizer = tf1.train.AdamOptimizer(0.1)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer)
    for _ in range(2):
        optimizer.minimize(lambda: tf.reduce_sum(model.kernel**2), var_list=[model.kernel])
    checkpoint.save(out.path("ckpt"))
    slots = {
        name: optimizer.get_slot(model.kernel, name).numpy() for name in optimizer.get_slot_names()
    }
    key = "model/kernel/.OPTIMIZER_SLOT/optimizer/{}/.ATTRIBUTES/VARIABLE_VALUE".format
    out.checkpoint("ckpt-1", {key(name): value for name, value in slots.items()}, step=1)
    out.state()
