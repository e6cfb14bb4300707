"""Save something, to be killed meanwhile: `killed_save.py HOW PREFIX OFFSET` (see crashes.py)."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fixture_cases import crashes
from fixture_cases.common import tf, tf1


def save_v2(prefix: str, offset: int) -> None:
    """Save with the SaveV2 op itself, as an unsharded Saver does."""
    tensors = crashes.tensors(offset)
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )


def v1(prefix: str, offset: int) -> None:
    """Save in the V1 format."""
    tensors = crashes.tensors(offset)
    tf.raw_ops.Save(filename=prefix, tensor_names=list(tensors), data=list(tensors.values()))


def objects(prefix: str, offset: int) -> None:
    """Write an object-based checkpoint."""
    variables = {name: tf.Variable(value) for name, value in crashes.tensors(offset).items()}
    tf.train.Checkpoint(**variables).write(prefix)


def many_objects(prefix: str, offset: int) -> None:
    """Write an object-based checkpoint with an index of several thousand bytes."""
    values = crashes.many_object_values()
    variables = {
        key.removesuffix(crashes.VALUE("")): tf.Variable(value + offset)
        for key, value in values.items()
    }
    tf.train.Checkpoint(**variables).write(prefix)


def second_save(prefix: str, offset: int) -> None:
    """Restore the first save of a checkpoint and save it again with other values."""
    variables = {name: tf.Variable(value) for name, value in crashes.tensors(offset).items()}
    checkpoint = tf.train.Checkpoint(**variables)
    checkpoint.restore(f"{prefix}-1")
    for name, value in crashes.tensors(offset).items():
        variables[name].assign(value)
    checkpoint.save(prefix)


def sharded(prefix: str, offset: int) -> None:
    """Save with a sharded Saver, one shard for each tensor."""
    config = tf1.ConfigProto(device_count={"CPU": 2})
    with tf1.Graph().as_default(), tf1.Session(config=config) as session:
        for number, (name, value) in enumerate(crashes.tensors(offset).items()):
            with tf.device(f"/cpu:{number}"):
                tf1.get_variable(name, initializer=value)
        session.run(tf1.global_variables_initializer())
        tf1.train.Saver(sharded=True).save(session, prefix)


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
