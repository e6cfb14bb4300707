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

ONE_SHARD = (MissingShardError, "Data file number 1 of 1 is missing")
FIRST_OF_TWO = (MissingShardError, "Data file number 1 of 2 is missing")
NO_INDEX = (CheckpointNotFoundError, "Expected an index beside the data files, found none")
BOTH_OF_TWO = (MissingShardError, " of 2 is missing")

TENSORS_NOT_READ: dict[str, tuple[type[CheckpointError], str]] = {
    # Each has its index; the data file was never published, or is too large for the corpus.
    "ConJones__TetrisDQN__old_agents_agent": ONE_SHARD,
    "DIstha__NRMS_trained_model__root": ONE_SHARD,
    "DavideCiGi__Probabilistic-Safety-Certifi__GP_phi_variables": ONE_SHARD,
    "DavideCiGi__Probabilistic-Safety-Certifi__ckpt-1": ONE_SHARD,
    "Hollisd12__Neural_Network_Charity_Analy__checkpoints_weights2.41hdf5": ONE_SHARD,
    "SharmaSapan__Neural_Machine_Translation_T__weights": ONE_SHARD,
    "SoftwareUnderstanding__rolf__weights_weights_graphs": ONE_SHARD,
    "deepmind__sonnet__resnet50_checkpoint-1": ONE_SHARD,
    "dotnet__machinelearning-testdata__crosoft.ML.TensorFlow.TestModels_mnist_model": ONE_SHARD,
    "dotnet__machinelearning-testdata__oft.ML.TensorFlow.TestModels_sentiment_model": ONE_SHARD,
    "incidunt__sentiment_analysis__log_model.ckpt-3": ONE_SHARD,
    "rajarshihaldar__DL-Assignments__model_gs-5040": ONE_SHARD,
    "yenchenlin__DeepLearningFlappyBird__saved_networks_bird-dqn-100000": ONE_SHARD,
    # Parts of saves that were killed: the data of these parts is not there.
    "bakaInc__3d_catpcha_solve__4d134d93b164e72e7518ee67_part-00000-of-00002": ONE_SHARD,
    "bakaInc__3d_catpcha_solve__4d134d93b164e72e7518ee67_part-00001-of-00002": ONE_SHARD,
    "bakaInc__3d_catpcha_solve__p.ckpt_temp_77aab38f4d134d93b164e72e7518ee67"
    ":cp.ckpt_temp_77aab38f4d134d93b164e72e7518ee67/part-00000-of-00002": ONE_SHARD,
    "bakaInc__3d_catpcha_solve__p.ckpt_temp_77aab38f4d134d93b164e72e7518ee67"
    ":cp.ckpt_temp_77aab38f4d134d93b164e72e7518ee67/part-00001-of-00002": ONE_SHARD,
    # Only the first shard is missing: what lies in the second is read.
    "bakaInc__3d_catpcha_solve__checkpoints_cp.ckpt": FIRST_OF_TWO,
    "tirthasheshpatel__TensorFlow2.0-Models__training_1_cp.ckpt": FIRST_OF_TWO,
    "fcuyttsai__overtoppingEve__root": BOTH_OF_TWO,
    "fcuyttsai__overtoppingEve__root_57875ef": BOTH_OF_TWO,
    # The data file is a Git LFS pointer of 133 bytes.
    "rishsol__Varroa-Model-Hosted__models_varroa_detection": (
        TruncatedError,
        "found a file of 133 bytes",
    ),
}
"""Checkpoints that list tensors which TensorFlow could not read: our error for every one of them,
and words of its message."""

NOT_OPENED: dict[str, tuple[type[CheckpointError], str]] = {
    # The data file is there, its index is not.
    "DavideCiGi__Probabilistic-Safety-Certifi__comp_ckpt-9": NO_INDEX,
    "DavideCiGi__Probabilistic-Safety-Certifi__models_GP_phi": NO_INDEX,
    "bakaInc__3d_catpcha_solve__725d48d691e5800fdcce88b1_part-00000-of-00002": NO_INDEX,
    "bakaInc__3d_catpcha_solve__725d48d691e5800fdcce88b1_part-00001-of-00002": NO_INDEX,
    "bakaInc__3d_catpcha_solve__p.ckpt_temp_817b197f725d48d691e5800fdcce88b1"
    ":cp.ckpt_temp_817b197f725d48d691e5800fdcce88b1/part-00000-of-00002": NO_INDEX,
    "bakaInc__3d_catpcha_solve__p.ckpt_temp_817b197f725d48d691e5800fdcce88b1"
    ":cp.ckpt_temp_817b197f725d48d691e5800fdcce88b1/part-00001-of-00002": NO_INDEX,
    # The index is an HTML page.
    "rishsol__Varroa-Model-Hosted__models_varroa_detection_v0": (NotACheckpointError, "HTML"),
    # Every file is a Git LFS pointer.
    "zack-carideo__tfhub_embeddings__root": (NotACheckpointError, "Git LFS pointer"),
}
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
