"""What belongs to whom: variables, slots, moving averages and counters, as the program knows.

`roles` in the expected values: `optimizers` (name -> variable -> slot -> stored name), `others`
(what else each keeps), `averages`, `layers` (each a list of stored names, in their order).
"""

# ruff: noqa: SLF001 - Keras has no other names for the lists of an optimizer

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fixture_cases import keras2, keras3
from fixture_cases.common import EVERY_VERSION, Output, case, tf, tf1

VALUE = "{}/.ATTRIBUTES/VARIABLE_VALUE".format


def weights(scope: str, rows: int, cols: int) -> list[Any]:
    """Make a kernel and a bias, in this order."""
    with tf1.variable_scope(scope):
        kernel = tf1.get_variable("kernel", (rows, cols), initializer=tf1.ones_initializer())
        return [kernel, tf1.get_variable("bias", (cols,), initializer=tf1.ones_initializer())]


def minimize(optimizer: Any, variables: Iterable[Any]) -> None:
    """Make the ops that train some variables; they need not run."""
    variables = list(variables)
    loss = tf.add_n([tf.reduce_sum(variable**2) for variable in variables])
    optimizer.minimize(loss, var_list=variables)


def slots_of(optimizer: Any, variables: Iterable[Any]) -> dict[str, dict[str, str]]:
    """Return the names of slots, as the optimizer itself gives them."""
    found: dict[str, dict[str, str]] = {}
    for variable in variables:
        for slot in sorted(optimizer.get_slot_names()):
            value = optimizer.get_slot(variable, slot)
            if value is not None:
                found.setdefault(variable.op.name, {})[slot] = value.op.name
    return found


def save(out: Output, *, meta: bool = True, variables: Any = None) -> None:
    """Save every variable of the graph in a session of its own."""
    with tf1.Session() as session:
        session.run(tf1.global_variables_initializer())
        saver = tf1.train.Saver(variables)
        saver.save(session, out.path("model.ckpt"), write_meta_graph=meta, write_state=False)
    out.checkpoint("model.ckpt")


def note(
    out: Output,
    optimizers: Mapping[str, Any],
    *,
    others: Mapping[str, list[str]] | None = None,
    averages: Mapping[str, str] | None = None,
    layers: list[list[str]],
) -> None:
    """Store what belongs to whom."""
    out.note(
        roles={
            "optimizers": dict(optimizers),
            "others": {name: sorted((others or {}).get(name, [])) for name in optimizers},
            "averages": dict(averages or {}),
            "layers": layers,
        }
    )


def names(variables: Iterable[Any]) -> list[str]:
    """Return the names of variables in the checkpoint."""
    return [variable.op.name for variable in variables]


@case(
    "roles/adam_and_average",
    "Adam, a moving average of each weight, and the counter of steps, with the graph: its order of "
    "the weights is not that of their names.",
)
def adam_and_average(out: Output) -> None:
    with tf1.Graph().as_default():
        first, second = weights("z_first", 2, 3), weights("a_second", 3, 1)
        trained = first + second
        tf1.train.get_or_create_global_step()
        adam = tf1.train.AdamOptimizer()
        minimize(adam, trained)
        average = tf1.train.ExponentialMovingAverage(0.9)
        average.apply(trained)
        save(out)
    note(
        out,
        {"Adam": slots_of(adam, trained)},
        others={"Adam": ["beta1_power", "beta2_power"]},
        averages={one.op.name: average.average_name(one) for one in trained},
        layers=[names(first), names(second)],
    )


@case(
    "roles/scoped",
    "A Momentum optimizer that ran in the scope `train`, an Adam in `optim/x`, and averages made "
    "in the scope `ema`: the scopes stand before the names of the variables. Without the graph.",
)
def scoped(out: Output) -> None:
    with tf1.Graph().as_default():
        first, second = weights("first", 2, 3), weights("second", 3, 1)
        momentum, adam = tf1.train.MomentumOptimizer(0.1, 0.9), tf1.train.AdamOptimizer()
        with tf1.variable_scope("train"):
            minimize(momentum, first)
        with tf1.variable_scope("optim/x"):
            minimize(adam, second)
        with tf1.variable_scope("ema"):
            average = tf1.train.ExponentialMovingAverage(0.9)
            average.apply(first)
        powers = [v.op.name for v in tf1.global_variables() if "_power" in v.op.name]
        save(out, meta=False)
    averages = {one.op.name: average.average(one).op.name for one in first}
    note(
        out,
        {"train/Momentum": slots_of(momentum, first), "optim/x/Adam": slots_of(adam, second)},
        others={"optim/x/Adam": powers},
        averages=averages,
        layers=[sorted(names(first)), sorted(names(second))],
    )


@case(
    "roles/two_adams",
    "Two Adams: of the generator, of the discriminator, and both of what they share. The names "
    "`Adam`, `Adam_1` are the same for both: only the graph tells them apart.",
)
def two_adams(out: Output) -> None:
    with tf1.Graph().as_default():
        shared = weights("shared", 2, 2)
        generator, discriminator = weights("generator", 2, 2), weights("discriminator", 2, 1)
        one, two = tf1.train.AdamOptimizer(), tf1.train.AdamOptimizer()
        minimize(one, shared + generator)
        minimize(two, shared + discriminator)
        save(out)
    note(
        out,
        {
            "Adam": slots_of(one, shared + generator),
            "Adam_1": slots_of(two, shared + discriminator),
        },
        others={
            "Adam": ["beta1_power", "beta2_power"],
            "Adam_1": ["beta1_power_1", "beta2_power_1"],
        },
        layers=[names(shared), names(generator), names(discriminator)],
    )


@case(
    "roles/kinds",
    "One variable for each optimizer of TF1, with what each keeps. Without the graph.",
    versions=EVERY_VERSION,
)
def kinds(out: Output) -> None:
    train = tf1.train
    found: dict[str, Any] = {}
    with tf1.Graph().as_default():
        step = train.get_or_create_global_step()
        optimizers = {
            "Adadelta": train.AdadeltaOptimizer(),
            "Adagrad": train.AdagradOptimizer(0.1),
            "AdagradDA": train.AdagradDAOptimizer(0.1, step),
            "Adam": train.AdamOptimizer(),
            "Ftrl": train.FtrlOptimizer(0.1),
            "Momentum": train.MomentumOptimizer(0.1, 0.9),
            "ProximalAdagrad": train.ProximalAdagradOptimizer(0.1),
            "RMSProp": train.RMSPropOptimizer(0.1),
        }
        for name, optimizer in optimizers.items():
            variable = tf1.get_variable(f"of_{name}/w", (2,))
            minimize(optimizer, [variable])
            found[name] = slots_of(optimizer, [variable])
        save(out, meta=False)
    others = {"Adam": ["beta1_power", "beta2_power"]}
    note(out, found, others=others, layers=[[f"of_{name}/w"] for name in sorted(optimizers)])


@case("roles/centered", "A centered RMSProp keeps three slots of each variable. Without the graph.")
def centered(out: Output) -> None:
    with tf1.Graph().as_default():
        trained = weights("dense", 2, 2)
        optimizer = tf1.train.RMSPropOptimizer(0.1, momentum=0.9, centered=True)
        minimize(optimizer, trained)
        save(out, meta=False)
    note(out, {"RMSProp": slots_of(optimizer, trained)}, layers=[sorted(names(trained))])


@case(
    "roles/partitioned",
    "Partitioned variables whose optimizers ran in scopes of 3, 6 and 11 letters: TensorFlow cuts "
    "the names of their slots to `w/t_0/Adagrad`, `w/part_0/Ftrl`, `w/de/w/part_0/Adagrad`.",
)
def partitioned(out: Output) -> None:
    found: dict[str, Any] = {}
    layers = []
    with tf1.Graph().as_default():
        makers = {
            "dnn": tf1.train.AdagradOptimizer(0.1),
            "linear": tf1.train.FtrlOptimizer(0.1),
            "a_long_name": tf1.train.AdagradOptimizer(0.1),
        }
        for scope, optimizer in makers.items():
            with tf1.variable_scope(scope):
                with tf1.variable_scope("inside"):
                    whole = tf1.get_variable("w", (4, 2), partitioner=tf1.fixed_size_partitioner(1))
                minimize(optimizer, list(whole))
            layers.append([f"{scope}/inside/w"])
        save(out, meta=False)
    checkpoint = out.data["checkpoints"][0]
    stored = [row["name"] for row in checkpoint["tensors"]]
    for scope, optimizer in makers.items():
        kind = type(optimizer).__name__.removesuffix("Optimizer")
        keeps = {"Adagrad": ["accumulator"], "Ftrl": ["accum", "linear"]}[kind]
        variable = f"{scope}/inside/w"
        slots = sorted(name for name in stored if name.startswith(f"{variable}/"))
        found.setdefault(kind, {})[variable] = dict(zip(keeps, slots, strict=True))
    note(out, found, layers=sorted(layers))


@case(
    "roles/by_hand",
    "Names that programs make by hand: BERT's `adam_m`, Mesh TensorFlow's `_slot_vr`, Keras 2 "
    "in TF1; and variables that only look like slots: their base is not there, or does not fit.",
)
def by_hand(out: Output) -> None:
    shapes: dict[str, tuple[int, ...]] = {
        "bert/dense/kernel": (2, 3),
        "bert/dense/kernel/adam_m": (2, 3),
        "bert/dense/kernel/adam_v": (2, 3),
        "t5/q": (2, 3),
        "t5/q_slot_vr": (2,),
        "t5/q_slot_vc": (3,),
        "t5/scale": (3,),
        "t5/scale_slot_v": (3,),
        "keras/kernel": (2, 2),
        "training/SGD/keras/kernel/momentum": (2, 2),
        "training/SGD/iter": (),
        "training/SGD/learning_rate": (),
        # What only looks like a slot.
        "Adam/kernel": (2, 2),
        "alone/Momentum": (2,),
        "other/w": (2, 2),
        "other/w/Adam": (3,),
        "t5/alone_slot_vr": (2,),
        "t5/scale_slot_vc": (7,),
        "norm/moments/mean/ExponentialMovingAverage": (3,),
        "keras/kernel/m": (2, 2),
    }
    with tf1.Graph().as_default():
        for name, shape in shapes.items():
            tf1.get_variable(name, shape, initializer=tf1.ones_initializer())
        save(out, meta=False)
    adam = {"m": "bert/dense/kernel/adam_m", "v": "bert/dense/kernel/adam_v"}
    q = {"vr": "t5/q_slot_vr", "vc": "t5/q_slot_vc"}
    momentum = "training/SGD/keras/kernel/momentum"
    note(
        out,
        {
            "adam": {"bert/dense/kernel": adam},
            "Adafactor": {"t5/q": q, "t5/scale": {"v": "t5/scale_slot_v"}},
            "training/SGD": {"keras/kernel": {"momentum": momentum}},
        },
        others={"training/SGD": ["training/SGD/iter", "training/SGD/learning_rate"]},
        layers=[
            ["Adam/kernel"],
            ["alone/Momentum"],
            ["bert/dense/kernel"],
            ["keras/kernel"],
            ["keras/kernel/m"],
            ["norm/moments/mean/ExponentialMovingAverage"],
            ["other/w"],
            ["other/w/Adam"],
            ["t5/alone_slot_vr", "t5/q", "t5/scale", "t5/scale_slot_vc"],
        ],
    )


# Objects


def key_of(checkpoint: dict[str, Any], value: Any) -> str:
    """Return the stored name of the only tensor that has a value's bytes."""
    from fixture_cases import describe

    wanted = describe.describe_tensor("", tf.as_dtype(value.dtype).name, value)["sha256"]
    (found,) = [row["name"] for row in checkpoint["tensors"] if row.get("sha256") == wanted]
    return str(found)


def train(optimizer: Any, variables: Any) -> None:
    """Give every variable a gradient of its own, so that no two slots have the same values."""
    gradients = [
        tf.constant(
            np.arange(1, 1 + v.shape.num_elements()).reshape(v.shape) * (i + 1) * 0.1, v.dtype
        )
        for i, v in enumerate(variables)
    ]
    optimizer.apply_gradients(zip(gradients, variables, strict=True))


@case(
    "roles/gan",
    "A generator and a discriminator, each with a Keras 2 optimizer of its own.",
    versions=EVERY_VERSION,
)
def gan(out: Output) -> None:
    keras = keras2.keras()
    parts = {}
    for name, rate in (("generator", 0.01), ("discriminator", 0.02)):
        model = keras.Sequential([keras.layers.Dense(2, name=name, input_shape=(3,))])
        optimizer = keras.optimizers.legacy.Adam(rate)
        train(optimizer, model.trainable_variables)
        parts[name], parts[f"{name}_optimizer"] = model, optimizer
    tf.train.Checkpoint(**parts).write(out.path("model"))
    out.checkpoint("model")
    note(
        out,
        {
            f"{name}_optimizer": {
                f"{name}/{part}": {
                    slot: VALUE(
                        f"{name}/layer_with_weights-0/{part}/.OPTIMIZER_SLOT/{name}_optimizer/{slot}"
                    )
                    for slot in ("m", "v")
                }
                for part in ("kernel", "bias")
            }
            for name in ("discriminator", "generator")
        },
        others={
            f"{name}_optimizer": [
                VALUE(f"{name}_optimizer/{one}")
                for one in ("beta_1", "beta_2", "decay", "iter", "learning_rate")
            ]
            for name in ("discriminator", "generator")
        },
        layers=[
            [VALUE(f"{name}/layer_with_weights-0/{part}") for part in ("kernel", "bias")]
            for name in ("discriminator", "generator")
        ],
    )


@case("roles/keras2_average", "Keras 2 with `use_ema`: a moving average of each weight.")
def keras2_average(out: Output) -> None:
    keras = keras2.keras()
    model = keras.Sequential([keras.layers.Dense(2, name="d", input_shape=(3,))])
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True)
    optimizer.build(model.trainable_variables)
    average(out, model, optimizer, optimizer._model_variables_moving_average, optimizer.momentums)


@case("roles/keras3_average", "Keras 3 with `use_ema`: a moving average of each weight.")
def keras3_average(out: Output) -> None:
    keras = keras3.keras3()
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="d")])
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True)
    optimizer.build(model.trainable_variables)
    averages = optimizer._model_variables_moving_average
    average(out, model, optimizer, averages, optimizer.momentums)


def average(out: Output, model: Any, optimizer: Any, averages: Any, momentums: Any) -> None:
    """Save a model with its optimizer, and say which values are averages."""
    for number, one in enumerate((*model.trainable_variables, *averages, *momentums)):
        one.assign(np.full(one.shape, number, np.float32))
    tf.train.Checkpoint(model=model, optimizer=optimizer).write(out.path("model"))
    described = out.checkpoint("model")
    weights = (
        ("d/kernel", "d/bias")
        if "keras2" in out.name
        else ("sequential/d/kernel", "sequential/d/bias")
    )
    own = [np.asarray(variable) for variable in model.trainable_variables]
    slots: dict[str, Any] = {}
    for name, one, momentum in zip(weights, averages, momentums, strict=True):
        slots[name] = {
            "average": key_of(described, np.asarray(one)),
            "momentum" if "keras3" in out.name else "m": key_of(described, np.asarray(momentum)),
        }
    counters = [row["name"] for row in described["tensors"] if row["shape"] == []]
    note(
        out,
        {"optimizer": slots},
        others={"optimizer": [name for name in counters if name.startswith("optimizer")]},
        averages={name: found["average"] for name, found in slots.items()},
        layers=[[key_of(described, value) for value in own]],
    )


class Sharded(tf.Module):
    """Two sharded embeddings of one shape, and a kernel between them."""

    def __init__(self, parts: Any) -> None:
        super().__init__()
        self.first, self.dense, self.last = parts


def sharded_variables() -> list[Any]:
    """Make variables as a partitioner of a parameter server does."""
    from tensorflow.python.distribute import sharded_variable

    def shards(name: str) -> Any:
        parts = [
            tf.Variable(np.ones((rows, 2), np.float32), name=f"{name}/part_{i}")
            for i, rows in enumerate((3, 2))
        ]
        return sharded_variable.ShardedVariable(parts, name=name)

    dense = tf.Variable(np.ones((2, 2), np.float32), name="dense/kernel")
    return [shards("first/embeddings"), dense, shards("last/embeddings")]


@case(
    "roles/sharded_current",
    "ShardedVariables with an optimizer of Keras 2.11: their slots are all called "
    "`ShardedVariable`, and only the order of the optimizer's lists tells whose they are.",
)
def sharded_current(out: Output) -> None:
    parts = sharded_variables()
    optimizer = keras2.keras().optimizers.Adam(0.1)
    optimizer.build(parts)
    for number, one in enumerate((*optimizer._momentums, *optimizer._velocities)):
        one.assign(
            tf.fill(one.shape, float(number))
            if not hasattr(one, "variables")
            else np.full(one.shape, number, np.float32)
        )
    checkpoint = tf.train.Checkpoint(model=Sharded(parts), optimizer=optimizer)
    checkpoint.write(out.path("model"))
    out.checkpoint("model")
    variables = ("first/embeddings", "dense/kernel", "last/embeddings")
    found = {
        name: {
            slot: VALUE(f"optimizer/_variables/{1 + 2 * number + offset}")
            for offset, slot in enumerate("mv")
        }
        for number, name in enumerate(variables)
    }
    others = [VALUE("optimizer/_iterations"), VALUE("optimizer/_learning_rate")]
    note(
        out,
        {"optimizer": found},
        others={"optimizer": others},
        layers=[[VALUE(f"model/{one}")] for one in ("first", "dense", "last")],
    )


@case(
    "roles/sharded_legacy",
    "ShardedVariables with an optimizer of Keras 2.10: their slots have the variables' names.",
)
def sharded_legacy(out: Output) -> None:
    parts = sharded_variables()
    optimizer = keras2.keras().optimizers.legacy.Adam(0.1)
    trained = [one for part in parts for one in getattr(part, "variables", [part])]
    with tf.device("CPU:0"):
        train(optimizer, trained)
    checkpoint = tf.train.Checkpoint(model=Sharded(parts), optimizer=optimizer)
    checkpoint.write(out.path("model"))
    out.checkpoint("model")
    names_ = {"first": "first/embeddings", "dense": "dense/kernel", "last": "last/embeddings"}
    keys = {
        full: {slot: VALUE(f"model/{name}/.OPTIMIZER_SLOT/optimizer/{slot}") for slot in ("m", "v")}
        for name, full in names_.items()
    }
    hyper = ("beta_1", "beta_2", "decay", "iter", "learning_rate")
    note(
        out,
        {"optimizer": keys},
        others={"optimizer": [VALUE(f"optimizer/{one}") for one in hyper]},
        layers=[[VALUE(f"model/{one}")] for one in ("first", "dense", "last")],
    )


class Part(tf.Module):
    """A part that points back to the whole, and to its neighbour."""

    def __init__(self, whole: Any, name: str) -> None:
        super().__init__(name=name)
        self.root = whole
        with self.name_scope:
            self.w = tf.Variable([1.0], name="w")


class Whole(tf.Module):
    """Parts that know each other, in attributes, and in a list under another name."""

    def __init__(self) -> None:
        super().__init__(name="whole")
        self.a, self.b = Part(self, "a"), Part(self, "b")
        self.a.neighbour, self.b.neighbour = self.b, self.a
        self.parts = [self.a, self.b]


@case(
    "roles/points_back",
    "Modules that point to the model they are parts of, and to each other: each layer has its own "
    "weight alone.",
)
def points_back(out: Output) -> None:
    tf.train.Checkpoint(model=Whole()).write(out.path("model"))
    out.checkpoint("model")
    note(out, {}, layers=[[VALUE("model/a/w")], [VALUE("model/b/w")]])


@case("roles/root_is_a_layer", "A Keras layer that is itself the root of the checkpoint.")
def root_is_a_layer(out: Output) -> None:
    layer = keras2.keras().layers.Dense(2, name="alone")
    layer.build((None, 3))
    tf.train.Checkpoint(root=layer).write(out.path("model"))
    out.checkpoint("model")
    note(out, {}, layers=[[VALUE("kernel"), VALUE("bias")]])


class Wrapped(tf.Module):
    """A policy as TF-Agents saves it: its parts in pairs in `_all_assets`, its variables again."""

    def __init__(self) -> None:
        super().__init__()
        names = ("QNetwork/dense_1", "QNetwork/dense_2", "value")
        parts = [tf.Module() for _ in names]
        for part, name in zip(parts, names, strict=True):
            part.kernel = tf.Variable([1.0], name=f"{name}/kernel")
        self._all_assets = [("_q_network", {"layers": parts[:2]}), ("_value", parts[2])]
        self.model_variables = [part.kernel for part in parts]
        self.train_step = tf.Variable(3, dtype=tf.int64, name="train_step")


@case(
    "roles/wrapped",
    "Layers wrapped in tuples, lists and dictionaries beside a list of the same variables, as "
    "TF-Agents saves a policy: the names tell where layers end.",
)
def wrapped(out: Output) -> None:
    policy = Wrapped()
    tf.train.Checkpoint(policy=policy).write(out.path("model"))
    described = out.checkpoint("model")
    keys = [row["name"] for row in described["tensors"] if "train_step" not in row["name"]]
    note(out, {}, layers=[[key] for key in keys])


@case(
    "roles/lookup",
    "A Keras 2 model that looks words up, and its optimizer-free checkpoint: the table of counts "
    "is stored, the vocabulary is not, so the first layer has no weights here.",
)
def lookup(out: Output) -> None:
    keras = keras2.keras()
    words = keras.layers.TextVectorization(5)
    words.adapt(["one two", "two"])
    model = keras.Sequential([words, keras.layers.Embedding(5, 2, name="emb")])
    model(tf.constant([["two"]]))
    tf.train.Checkpoint(root=model).write(out.path("model"))
    out.checkpoint("model")
    note(out, {}, layers=[[], [VALUE("layer_with_weights-1/embeddings")]])
