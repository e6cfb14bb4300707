"""Checkpoints of the name-based `tf.compat.v1.train.Saver`, format V2."""

from __future__ import annotations

import numpy as np

from fixture_cases.common import EVERY_VERSION, Output, case, tf, tf1


@case(
    "saver/my_model",
    "Two variables, `weights` and `bias`, saved by a Saver: the smallest everyday checkpoint.",
    versions=EVERY_VERSION,
    flat=True,
)
def my_model(out: Output) -> None:
    weights = out.random().normal(size=(3, 4)).astype(np.float32)
    bias = np.array([0.5, -1.0, 2.0, 0.0], np.float32)
    with tf1.Graph().as_default(), tf1.Session() as session:
        tf1.get_variable("weights", initializer=weights)
        tf1.get_variable("bias", initializer=bias)
        session.run(tf1.global_variables_initializer())
        tf1.train.Saver().save(session, out.path("my_model"))
    out.checkpoint("my_model", {"weights": weights, "bias": bias})
    relative_state(out)
    out.state()


@case(
    "saver/scopes",
    "Three steps of a model with `scope1/weights` and `scope2/weights` in one directory, with the "
    "state file and a `.meta` for each; the step is in `global_step` too.",
    versions=EVERY_VERSION,
    checklist=(78,),
)
def scopes(out: Output) -> None:
    rng = out.random()
    with tf1.Graph().as_default(), tf1.Session() as session:
        one = tf1.get_variable("scope1/weights", shape=(2, 3), dtype=np.float32)
        two = tf1.get_variable("scope2/weights", shape=(3,), dtype=np.float64)
        step = tf1.train.get_or_create_global_step()
        saver = tf1.train.Saver(max_to_keep=5)
        for number in (1, 2, 10):
            values = {
                "scope1/weights": rng.normal(size=(2, 3)).astype(np.float32),
                "scope2/weights": rng.normal(size=3),
                "global_step": np.int64(number),
            }
            one.load(values["scope1/weights"], session)
            two.load(values["scope2/weights"], session)
            step.load(number, session)
            saver.save(session, out.path("model.ckpt"), global_step=step)
            out.checkpoint(f"model.ckpt-{number}", values, step=number)
    relative_state(out)
    out.state()


@case(
    "saver/renamed",
    "A Saver with a dictionary of names: the keys are the dictionary's, not the variables' own; "
    "two Savers in one graph, the second of which wrote `other`.",
    checklist=(87, 90),
)
def renamed(out: Output) -> None:
    with tf1.Graph().as_default(), tf1.Session() as session:
        one = tf1.get_variable("scope/one", initializer=np.float32([1, 2]))
        two = tf1.get_variable("scope/two", initializer=np.int64(3))
        session.run(tf1.global_variables_initializer())
        saver = tf1.train.Saver({"renamed/one": one, "two": two})
        other = tf1.train.Saver([two])
        for each in (saver, other):
            tf1.add_to_collection(tf1.GraphKeys.SAVERS, each)
        saver.save(session, out.path("model"))
        other.save(session, out.path("other"), latest_filename="other_state")
    out.checkpoint("model", {"renamed/one": np.float32([1, 2]), "two": np.int64(3)})
    out.checkpoint("other", {"scope/two": np.int64(3)})
    relative_state(out)
    relative_state(out, "other_state")
    out.state()
    out.state(filename="other_state")


@case(
    "saver/moved",
    "A directory after it was moved: the state file has absolute paths that no longer exist, to "
    "two of three steps; `.meta` was not written.",
    checklist=(65, 74, 80, 82),
)
def moved(out: Output) -> None:
    with tf1.Graph().as_default(), tf1.Session() as session:
        variable = tf1.get_variable("w", initializer=np.float32([0, 0]))
        saver = tf1.train.Saver(max_to_keep=2)
        for step in (100, 200, 300):
            value = np.float32([step, -step])
            variable.load(value, session)
            saver.save(session, out.path("model.ckpt"), step, write_meta_graph=False)
            if step > 100:
                out.checkpoint(f"model.ckpt-{step}", {"w": value})
    path = out.root / "checkpoint"
    path.write_text(path.read_text().replace(str(out.root), "/home/user/elsewhere/run-1"))
    out.state()


@case(
    "saver/hash_table",
    "A MutableHashTable in a Saver: `words-keys` and `words-values` beside a variable.",
    checklist=(92,),
)
def hash_table(out: Output) -> None:
    values = {
        "words-keys": np.array([b"one"], object),
        "words-values": np.array([1], np.int64),
        "bias": np.float32(0.5),
    }
    with tf1.Graph().as_default(), tf1.Session() as session:
        tf1.get_variable("bias", initializer=values["bias"])
        table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1, name="words")
        session.run([tf1.global_variables_initializer(), table.insert(["one"], np.int64([1]))])
        tf1.train.Saver().save(session, out.path("model"))
    out.checkpoint("model", values)
    relative_state(out)
    out.state()


def relative_state(out: Output, filename: str = "checkpoint") -> None:
    """Take the directory out of the state file: it names the machine that ran this script."""
    path = out.root / filename
    path.write_text(path.read_text().replace(f"{out.root}/", ""))
