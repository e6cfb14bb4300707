"""SavedModels without Keras: `tf.Module`, the TF1 builder, TF-Hub modules."""

from __future__ import annotations

from typing import Any

import numpy as np

from fixture_cases.common import EVERY_VERSION, Output, case, tf, tf1
from fixture_cases.signatures import describe_saved_model
from fixture_cases.slices import initializer_from, numbers

tags = tf1.saved_model.tag_constants


class Module(tf.Module):
    """A module with variables, a constant, a table filled from an asset, and two signatures."""

    def __init__(self, vocabulary: str) -> None:
        super().__init__(name="module")
        self.w = tf.Variable(numbers(2, 3), name="w")
        self.steps = tf.Variable(7, dtype=tf.int64, trainable=False, name="steps")
        self.half = tf.Variable([1.5, -2.5], dtype=tf.bfloat16, name="half")
        self.captured = tf.constant([[10.0], [20.0], [30.0]])
        self.asset = tf.saved_model.Asset(vocabulary)
        initializer = tf.lookup.TextFileInitializer(
            self.asset,
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        self.table = tf.lookup.StaticHashTable(initializer, -1)
        self.nested = {"list": [tf.Variable(1.0, name="one")], "empty": {}}

    @tf.function(input_signature=[tf.TensorSpec((None, 2), tf.float32, name="x")])
    def scores(self, x: Any) -> dict[str, Any]:
        """Multiply with the variable and with the constant."""
        return {"scores": x @ self.w, "sum": tf.matmul(x @ self.w, self.captured)}

    @tf.function(input_signature=[tf.TensorSpec(None, tf.string, name="words")])
    def lookup(self, words: Any) -> dict[str, Any]:
        """Look words up in the table."""
        return {"ids": self.table.lookup(words)}


@case(
    "saved_model/module",
    "A tf.Module with signatures `serving_default` and `lookup`, a constant, a table with its "
    "vocabulary among the assets, an input of unknown rank, a bfloat16 variable, a fingerprint, "
    "and a file in `assets.extra`.",
    checklist=(121,),
    versions=EVERY_VERSION,
)
def module(out: Output) -> None:
    source = out.root.with_name(out.root.name + "-vocabulary.txt")
    source.write_text("a\nключ\nc\n")
    model = Module(str(source))
    tf.saved_model.save(
        model, out.path("."), signatures={"serving_default": model.scores, "lookup": model.lookup}
    )
    source.unlink()
    extra = out.root / "assets.extra"
    extra.mkdir()
    (extra / "note.txt").write_text("Loaders leave this file alone.\n")
    out.checkpoint("variables/variables")
    describe_saved_model(out)


@case(
    "saved_model/no_variables_tf2",
    "A TF2 SavedModel without variables: its bundle holds nothing but the object graph.",
    checklist=(120,),
)
def no_variables_tf2(out: Output) -> None:
    root = tf.Module()
    root.double = tf.function(
        lambda x: {"y": 2 * x}, input_signature=[tf.TensorSpec((None,), tf.int32, name="x")]
    )
    tf.saved_model.save(root, out.path("."), signatures=root.double)
    out.checkpoint("variables/variables")
    describe_saved_model(out)


@case(
    "saved_model/sharded",
    "A TF2 SavedModel saved in shards of at most 64 bytes, so that one variable is cut by rows.",
    checklist=(94, 112),
)
def sharded(out: Output) -> None:
    root = tf.Module()
    root.big = tf.Variable(numbers(10, 4), name="big")
    root.small = tf.Variable([1, 2], name="small")
    policy = tf.train.experimental.MaxShardSizePolicy(64)
    options = tf.saved_model.SaveOptions(experimental_sharding_callback=policy)
    tf.saved_model.save(root, out.path("."), options=options)
    out.checkpoint("variables/variables")
    describe_saved_model(out)


def build_tf1(out: Output) -> None:
    """Write a TF1 SavedModel of two meta graphs, for training and for serving."""
    builder = tf1.saved_model.Builder(out.path("."))
    for train in (True, False):
        with tf1.Graph().as_default(), tf1.Session() as session:
            signature = serving_signature(train=train)
            session.run(tf1.global_variables_initializer())
            if train:
                builder.add_meta_graph_and_variables(session, [tags.TRAINING, tags.GPU])
            else:
                builder.add_meta_graph([tags.SERVING], signature_def_map=signature)
    builder.save()


def serving_signature(*, train: bool) -> dict[str, Any]:
    """Build a small graph in the default graph and return its signature."""
    x = tf1.placeholder(tf.float32, (None, 2), name="x")
    w = tf1.get_variable("dense/w", initializer=numbers(2, 3), use_resource=False)
    b = tf1.get_variable("dense/b", initializer=np.float32([1, 2, 3]), use_resource=True)
    y = tf.add(tf.matmul(x, w), b, name="y")
    if train:
        tf.reduce_mean(y, name="loss")
    signature = tf1.saved_model.predict_signature_def({"features": x}, {"scores": y})
    return {"serving_default": signature}


@case(
    "saved_model/tf1_two_meta_graphs",
    "A TF1 SavedModel of two meta graphs, tagged `train` and `gpu`, and `serve`, which share "
    "variables under their names; no fingerprint.",
    checklist=(119,),
)
def tf1_two_meta_graphs(out: Output) -> None:
    build_tf1(out)
    out.checkpoint("variables/variables", {"dense/b": np.float32([1, 2, 3])})
    describe_saved_model(out)


@case(
    "saved_model/tf1_text",
    "A TF1 SavedModel as text, `saved_model.pbtxt`, with an asset named by a collection.",
    checklist=(118,),
)
def tf1_text(out: Output) -> None:
    source = out.root.with_name("vocabulary.txt")
    source.write_text("one\ntwo\n")
    builder = tf1.saved_model.Builder(out.path("."))
    with tf1.Graph().as_default(), tf1.Session() as session:
        filename = tf1.constant(str(source), name="vocabulary")
        tf1.add_to_collection(tf1.GraphKeys.ASSET_FILEPATHS, filename)
        tf1.get_variable("w", initializer=np.float32([1, 2]), use_resource=False)
        session.run(tf1.global_variables_initializer())
        builder.add_meta_graph_and_variables(
            session,
            [tags.SERVING],
            assets_collection=tf1.get_collection(tf1.GraphKeys.ASSET_FILEPATHS),
        )
    builder.save(as_text=True)
    source.unlink()
    path = out.root / "saved_model.pbtxt"
    path.write_text(path.read_text().replace(str(source), "/home/user/vocabulary.txt"))
    out.checkpoint("variables/variables", {"w": np.float32([1, 2])})
    describe_saved_model(out)


@case(
    "saved_model/tf1_partitioned",
    "A TF1 SavedModel with a variable in three parts, saved by a sharded Saver, and a constant; "
    "its tag set is empty, as in some TF-Hub modules, and `tfhub_module.pb` makes it one.",
    checklist=(94,),
)
def tf1_partitioned(out: Output) -> None:
    parted = numbers(6, 2)
    builder = tf1.saved_model.Builder(out.path("."))
    with tf1.Graph().as_default(), tf1.Session() as session:
        tf1.get_variable(
            "module/parted",
            (6, 2),
            partitioner=tf1.fixed_size_partitioner(3),
            initializer=initializer_from(parted),
            use_resource=False,
        )
        tf1.constant([1.5, 2.5], name="module/constant")
        session.run(tf1.global_variables_initializer())
        builder.add_meta_graph_and_variables(session, [])
        builder.add_meta_graph([tags.TRAINING])
    builder.save()
    (out.root / "tfhub_module.pb").write_bytes(b"\x08\x03")
    out.checkpoint("variables/variables", {"module/parted": parted})
    describe_saved_model(out)


@case(
    "saved_model/tf1_no_variables",
    "A TF1 SavedModel without variables: there is no `variables` directory.",
)
def tf1_no_variables(out: Output) -> None:
    builder = tf1.saved_model.Builder(out.path("."))
    with tf1.Graph().as_default(), tf1.Session() as session:
        x = tf1.placeholder(tf.float32, (), name="x")
        signature = tf1.saved_model.predict_signature_def({"x": x}, {"y": tf.add(x, 1, name="y")})
        builder.add_meta_graph_and_variables(
            session, [tags.SERVING], signature_def_map={"serving_default": signature}
        )
    builder.save()
    describe_saved_model(out)
