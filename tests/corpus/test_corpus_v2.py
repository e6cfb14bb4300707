"""Real V2 checkpoints, object-based ones and SavedModels' variables: as TensorFlow read them."""

from __future__ import annotations

import hashlib

import corpus
import pytest
from corpus import Recorded
from expected import assert_matches

import ckptparse
from ckptparse import (
    CheckpointError,
    CheckpointNotFoundError,
    MissingShardError,
    NotACheckpointError,
    TruncatedError,
)

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(corpus.directory() is None, reason="the corpus is not here"),
]

RECORDED = [record for record in corpus.checkpoints() if record.format == "v2"]
OPENED = [record for record in RECORDED if record.error is None]
REFUSED = [record for record in RECORDED if record.error is not None]

TENSORS_NOT_READ: dict[str, tuple[type[CheckpointError], str]] = {}
"""Checkpoints of which TensorFlow could list tensors that it could not read: our error for every
such tensor, and words of its message. A checkpoint that stands here with None is read whole."""

NOT_OPENED: dict[str, tuple[type[CheckpointError], str]] = {}
"""Checkpoints that TensorFlow could not open: our error, and words of its message."""


def by_name(records: list[Recorded]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("recorded", records, ids=[record.name for record in records])


def digest_of_string(value: bytes) -> str:
    return hashlib.sha256(len(value).to_bytes(8, "little") + value).hexdigest()


@by_name(OPENED)
def test_names_shapes_and_types_are_those_that_tensorflow_lists(recorded: Recorded) -> None:
    with ckptparse.open(recorded.path) as checkpoint:
        assert checkpoint.format == "v2"
        assert list(checkpoint) == sorted(recorded.tensors, key=lambda name: name.encode())
        for name, expected in recorded.tensors.items():
            assert checkpoint[name].shape == expected.shape
            assert checkpoint[name].dtype.name == expected.numpy_name
    listed = ckptparse.list_variables(recorded.path)
    assert listed == [(name, recorded.tensors[name].shape) for name, _ in listed]
    assert len(listed) == len(recorded.tensors)


@by_name(OPENED)
def test_every_tensor_that_tensorflow_read_is_identical(recorded: Recorded) -> None:
    with ckptparse.open(recorded.path) as checkpoint:
        for name, expected in recorded.tensors.items():
            if name not in recorded.failed:
                assert_matches(checkpoint[name].read(), expected)


@by_name([record for record in OPENED if not record.failed])
def test_read_gives_the_same_from_every_spelling_of_the_path(recorded: Recorded) -> None:
    spellings = [recorded.path, recorded.path.with_name(recorded.path.name + ".index")]
    spellings += sorted(recorded.path.parent.glob(recorded.path.name + ".data-*"))[:1]
    if recorded.kind == "savedmodel":
        spellings += [recorded.path.parent, recorded.path.parent.parent]
    for spelling in spellings:
        arrays = ckptparse.read(spelling)
        assert arrays.keys() == recorded.tensors.keys()
        for name, expected in recorded.tensors.items():
            assert_matches(arrays[name], expected)


@by_name([record for record in OPENED if record.object_graph is not None])
def test_the_object_graph_is_identical_and_no_tensor(recorded: Recorded) -> None:
    assert recorded.object_graph is not None
    with ckptparse.open(recorded.path) as checkpoint:
        assert corpus.OBJECT_GRAPH not in checkpoint
        if corpus.OBJECT_GRAPH in recorded.failed:
            with pytest.raises(CheckpointError):
                _ = checkpoint.object_graph
            return
        assert checkpoint.object_graph is not None
        assert digest_of_string(checkpoint.object_graph.serialized) == recorded.object_graph.sha256


@by_name([record for record in OPENED if record.failed])
def test_a_tensor_that_tensorflow_could_not_read_gets_an_error_that_says_why(
    recorded: Recorded,
) -> None:
    kind, words = TENSORS_NOT_READ[recorded.name]
    with ckptparse.open(recorded.path) as checkpoint:
        for name in recorded.failed.keys() - {corpus.OBJECT_GRAPH}:
            with pytest.raises(kind) as caught:
                checkpoint[name].read()
            assert type(caught.value) is kind
            assert words in str(caught.value)
            assert caught.value.tensor == name


@by_name(REFUSED)
def test_a_checkpoint_that_tensorflow_could_not_open_gets_an_error_that_says_why(
    recorded: Recorded,
) -> None:
    kind, words = NOT_OPENED[recorded.name]
    with pytest.raises(kind) as caught:
        ckptparse.read(recorded.path)
    assert type(caught.value) is kind
    assert words in str(caught.value)


def test_what_tensorflow_could_not_read_is_judged_item_by_item() -> None:
    assert TENSORS_NOT_READ.keys() == {record.name for record in OPENED if record.failed}
    assert NOT_OPENED.keys() == {record.name for record in REFUSED}
