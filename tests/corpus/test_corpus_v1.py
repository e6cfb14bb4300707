"""Real V1 checkpoints, from November 2015 on: as TensorFlow read them."""

from __future__ import annotations

import corpus
import pytest
from corpus import Recorded
from expected import assert_matches

import ckptparse
from ckptparse import NotACheckpointError

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(corpus.directory() is None, reason="the corpus is not here"),
]

RECORDED = [record for record in corpus.checkpoints() if record.format == "v1"]
# TensorFlow opens the index of an interrupted save as a V1 file of no tensors: it has no footing.
LEFTOVERS = [record for record in RECORDED if ".tempstate" in record.path.name]
REFUSED = [record for record in RECORDED if record.error is not None]
OPENED = [record for record in RECORDED if record not in LEFTOVERS and record not in REFUSED]


def by_name(records: list[Recorded]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("recorded", records, ids=[record.name for record in records])


@pytest.mark.checklist(61)
@by_name(OPENED)
def test_every_tensor_is_identical(recorded: Recorded) -> None:
    with ckptparse.open(recorded.path) as checkpoint:
        assert checkpoint.format == "v1"
        assert checkpoint.files == (str(recorded.path),)
        assert list(checkpoint) == list(recorded.tensors)
        for name, expected in recorded.tensors.items():
            assert checkpoint[name].shape == expected.shape
            assert name not in recorded.failed
            assert_matches(checkpoint[name].read(), expected)


@by_name(OPENED)
def test_read_and_list_agree_with_open(recorded: Recorded) -> None:
    arrays = ckptparse.read(recorded.path)
    assert arrays.keys() == recorded.tensors.keys()
    for name, expected in recorded.tensors.items():
        assert_matches(arrays[name], expected)
    listed = ckptparse.list_variables(recorded.path)
    assert listed == [(name, tensor.shape) for name, tensor in recorded.tensors.items()]


@by_name(
    [
        r
        for r in OPENED
        if r.path.with_name(r.path.name + ".meta").is_file() and "-of-" not in r.name
    ]
)
def test_the_meta_graph_beside_it_leads_to_it(recorded: Recorded) -> None:
    meta = recorded.path.with_name(recorded.path.name + ".meta")
    assert ckptparse.read(meta).keys() == recorded.tensors.keys()


@by_name([record for record in OPENED if "-of-" in record.path.name])
def test_a_pattern_and_a_prefix_lead_to_the_same(recorded: Recorded) -> None:
    stem, _, rest = recorded.path.name.rpartition("-00000-")
    for spelling in [f"{stem}-?????-{rest}", stem]:
        arrays = ckptparse.read(recorded.path.with_name(spelling))
        assert arrays.keys() == recorded.tensors.keys()


@by_name(LEFTOVERS)
def test_the_index_of_an_interrupted_save_is_told_from_a_v1_file(recorded: Recorded) -> None:
    with pytest.raises(NotACheckpointError) as caught:
        ckptparse.read(recorded.path)
    assert caught.value.identity.kind == "interrupted-save"
    assert caught.value.identity.detail["of"] == "v2-index"


@by_name(REFUSED)
def test_what_tensorflow_refused_is_named(recorded: Recorded) -> None:
    with pytest.raises(NotACheckpointError) as caught:
        ckptparse.read(recorded.path)
    assert caught.value.identity.kind == "lfs-pointer"
    assert caught.value.identity.detail["size"] == 247582522


def test_there_are_files_of_every_age() -> None:
    assert len(OPENED) >= 22
    assert len(REFUSED) == 1
