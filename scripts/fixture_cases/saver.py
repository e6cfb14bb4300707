"""Checkpoints of the name-based `tf.compat.v1.train.Saver`, format V2."""

from __future__ import annotations

import numpy as np

from fixture_cases.common import EVERY_VERSION, Output, case, tf1


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


def relative_state(out: Output) -> None:
    """Take the directory out of the state file: it names the machine that ran this script."""
    path = out.root / "checkpoint"
    path.write_text(path.read_text().replace(f"{out.root}/", ""))
