"""Real broken checkpoints: a verdict on each that a person would find right.

What the reader must say is written here by hand, after looking at the files.
"""

from __future__ import annotations

import json

import corpus
import expected
import pytest
from corpus import Recorded

import ckptparse

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(corpus.directory() is None, reason="the corpus is not here"),
]

RECORDED = [record for record in corpus.checkpoints() if record.error or record.failed]
NAMES = {record.name for record in RECORDED}

NO_DATA = "the file is not there; the index expects"
NO_INDEX = "there is no index, so the tensors in 1 data file"
POINTER = "it is a Git LFS pointer: it stands for a file that was not downloaded."
KILLED = "the save ended before it was done"

VERDICTS = {
    # The data file was never published, or is too large for the corpus.
    "ConJones__TetrisDQN__old_agents_agent": (
        "shard.missing",
        f"{NO_DATA} 29 tensors in it, 5,002,606",
    ),
    "DIstha__NRMS_trained_model__root": (
        "shard.missing",
        f"{NO_DATA} 50 tensors in it, 78,385,249",
    ),
    "DavideCiGi__Probabilistic-Safety-Certifi__GP_phi_variables": (
        "shard.missing",
        f"{NO_DATA} 14 tensors in it, 3,561",
    ),
    "DavideCiGi__Probabilistic-Safety-Certifi__ckpt-1": (
        "shard.missing",
        f"{NO_DATA} 22 tensors in it, 20,720",
    ),
    "Hollisd12__Neural_Network_Charity_Analy__checkpoints_weights2.41hdf5": (
        "shard.missing",
        f"{NO_DATA} 27 tensors in it, 196,913",
    ),
    "SharmaSapan__Neural_Machine_Translation_T__weights": (
        "shard.missing",
        f"{NO_DATA} 89 tensors in it, 4,677,229",
    ),
    "SoftwareUnderstanding__rolf__weights_weights_graphs": (
        "shard.missing",
        f"{NO_DATA} 93 tensors in it, 21,366,851",
    ),
    "bakaInc__3d_catpcha_solve__checkpoints_cp.ckpt": (
        "shard.missing",
        f"{NO_DATA} 115 tensors in it, 5,057,956",
    ),
    "deepmind__sonnet__resnet50_checkpoint-1": (
        "shard.missing",
        f"{NO_DATA} 125 tensors in it, 32,225,543",
    ),
    "dotnet__machinelearning-testdata__crosoft.ML.TensorFlow.TestModels_mnist_model": (
        "shard.missing",
        f"{NO_DATA} 9 tensors in it, 13,098,544",
    ),
    "dotnet__machinelearning-testdata__oft.ML.TensorFlow.TestModels_sentiment_model": (
        "shard.missing",
        f"{NO_DATA} 24 tensors in it, 12,992,548",
    ),
    "fcuyttsai__overtoppingEve__root": ("shard.missing", f"{NO_DATA} 33 tensors in it, 10,249,800"),
    "fcuyttsai__overtoppingEve__root_57875ef": (
        "shard.missing",
        f"{NO_DATA} 25 tensors in it, 9,659,080",
    ),
    "incidunt__sentiment_analysis__log_model.ckpt-3": (
        "shard.missing",
        f"{NO_DATA} 7 tensors in it, 44,471,064",
    ),
    "rajarshihaldar__DL-Assignments__model_gs-5040": (
        "shard.missing",
        f"{NO_DATA} 27 tensors in it, 5,029,332",
    ),
    "tirthasheshpatel__TensorFlow2.0-Models__training_1_cp.ckpt": (
        "shard.missing",
        f"{NO_DATA} 4 tensors in it, 6,292,036",
    ),
    "yenchenlin__DeepLearningFlappyBird__saved_networks_bird-dqn-100000": (
        "shard.missing",
        f"{NO_DATA} 32 tensors in it, 10,784,672",
    ),
    # Parts of saves that were killed, published one by one.
    "bakaInc__3d_catpcha_solve__4d134d93b164e72e7518ee67_part-00000-of-00002": (
        "shard.missing",
        f"{NO_DATA} 109 tensors in it, 3,030,900",
    ),
    "bakaInc__3d_catpcha_solve__4d134d93b164e72e7518ee67_part-00001-of-00002": (
        "shard.missing",
        f"{NO_DATA} 1 tensor in it, 15,258",
    ),
    "bakaInc__3d_catpcha_solve__725d48d691e5800fdcce88b1_part-00000-of-00002": (
        "index.missing",
        f"{NO_INDEX} of 1,188,724 bytes",
    ),
    "bakaInc__3d_catpcha_solve__725d48d691e5800fdcce88b1_part-00001-of-00002": (
        "index.missing",
        f"{NO_INDEX} of 15,275 bytes",
    ),
    # The index was never published.
    "DavideCiGi__Probabilistic-Safety-Certifi__comp_ckpt-9": (
        "index.missing",
        f"{NO_INDEX} of 20,720 bytes",
    ),
    "DavideCiGi__Probabilistic-Safety-Certifi__models_GP_phi": (
        "index.missing",
        f"{NO_INDEX} of 3,561 bytes",
    ),
    # Something else lies in the place of the files.
    "rishsol__Varroa-Model-Hosted__models_varroa_detection": (
        "shard.foreign",
        f"{POINTER} The file itself has 66505406 bytes and the SHA-256 9e4d7337",
    ),
    "rishsol__Varroa-Model-Hosted__models_varroa_detection_v0": (
        "index.foreign",
        "it is an HTML page. A web page was downloaded in place of the file",
    ),
    "zack-carideo__tfhub_embeddings__root": ("index.foreign", POINTER),
}

KILLED_SAVES = {
    "bakaInc__3d_catpcha_solve__p.ckpt_temp_77aab38f4d134d93b164e72e7518ee67": {
        "set.unfinished": KILLED,
        "index.missing": "the tensors come from temporary files of the save",
        "shard.missing": f"{NO_DATA} 109 tensors in it, 3,030,900",
    },
    "bakaInc__3d_catpcha_solve__p.ckpt_temp_817b197f725d48d691e5800fdcce88b1": {
        "set.unfinished": KILLED,
        "index.footer": "it is an empty file. Its writer was interrupted",
    },
}


def messages(report: ckptparse.Report) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for problem in report.problems:
        found.setdefault(problem.code, []).append(problem.message)
    return found


@pytest.mark.parametrize("name", sorted(VERDICTS))
def test_the_verdict_on_a_broken_checkpoint_names_what_is_wrong(name: str) -> None:
    (record,) = (record for record in RECORDED if record.name == name)
    code, sentence = VERDICTS[name]
    report = ckptparse.verify(record.path)
    assert not report.ok
    said = messages(report)
    assert any(sentence in message for message in said.get(code, ())), said
    first = str(report).splitlines()[0]
    assert "  damaged  " in first


@pytest.mark.parametrize("name", sorted(KILLED_SAVES))
def test_the_verdict_on_a_killed_save_says_so(name: str) -> None:
    said = messages(ckptparse.verify(corpus.files(name)))
    for code, sentence in KILLED_SAVES[name].items():
        assert any(sentence in message for message in said.get(code, ())), said


def test_every_broken_checkpoint_has_a_verdict() -> None:
    killed = tuple(KILLED_SAVES)
    pointers = {"eastonhou__question-generator-nmt__checkpoint_model.ckpt"}
    assert {n for n in NAMES if not n.startswith(killed)} == set(VERDICTS) | pointers


def test_a_pointer_in_the_place_of_a_v1_file_was_never_a_checkpoint() -> None:
    name = "eastonhou__question-generator-nmt__checkpoint_model.ckpt"
    (record,) = (record for record in RECORDED if record.name == name)
    with pytest.raises(ckptparse.NotACheckpointError, match="Git LFS pointer") as caught:
        ckptparse.verify(record.path)
    assert caught.value.identity.kind == "lfs-pointer"


DERIVED = {
    # Scalars, and tensors that were never trained, follow from their checksums alone.
    "deepmind__sonnet__resnet50_checkpoint-1": 122,
    "yenchenlin__DeepLearningFlappyBird__saved_networks_bird-dqn-100000": 27,
    "fcuyttsai__overtoppingEve__root": 13,
    "rishsol__Varroa-Model-Hosted__models_varroa_detection": 9,
}


@pytest.mark.parametrize("name", sorted(DERIVED))
def test_tensors_without_a_byte_of_data_come_back_from_their_checksums(name: str) -> None:
    (record,) = (record for record in RECORDED if record.name == name)
    recovery = ckptparse.recover(record.path)
    assert recovery.report.counts["derived"] == DERIVED[name]
    for tensor in recovery.values():
        assert tensor.status == "derived" and tensor.read().shape == tensor.shape


def test_the_second_of_two_data_files_gives_35_of_38_tensors() -> None:
    name = "tirthasheshpatel__TensorFlow2.0-Models__training_1_cp.ckpt"
    (record,) = (record for record in RECORDED if record.name == name)
    recovery = ckptparse.recover(record.path)
    assert recovery.report.counts == {"verified": 35, "missing": 3}
    for key, tensor in recovery.items():
        expected.assert_matches(tensor.read(), record.tensors[key])


# TensorFlow opens the index of a save that was killed as a V1 file, and lists nothing.
TEMPORARY = [r for r in corpus.checkpoints() if ".tempstate" in r.path.name]
WHOLE = [r for r in corpus.checkpoints() if not (r.error or r.failed or r in TEMPORARY)]


@pytest.mark.parametrize("record", TEMPORARY, ids=lambda record: record.name)
def test_an_index_that_was_never_renamed_tells_of_a_killed_save(record: Recorded) -> None:
    said = messages(ckptparse.verify(record.path))
    assert any(KILLED in message for message in said["set.unfinished"])


@pytest.mark.parametrize("record", WHOLE, ids=lambda record: record.name)
def test_a_whole_checkpoint_is_verified_whole(record: Recorded) -> None:
    report = ckptparse.verify(record.path)
    damage = [p for p in report.problems if not p.code.startswith(("state.", "fingerprint."))]
    assert [p for p in damage if p.severity == "error"] == []
    assert {tensor.status for tensor in report.tensors.values()} <= {"verified"}
    assert set(report.tensors) == set(record.tensors)
    json.dumps(report.to_dict())
