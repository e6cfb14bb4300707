"""What each file of the corpus is, by content: above all those that are not what they say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import corpus
import pytest

from ckptparse import identify

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(corpus.directory() is None, reason="the corpus is not here"),
]

WORDS = {"git-lfs pointer": "lfs-pointer", "html page": "html", "empty": "empty"}
ODD = [
    (f"{item}:{row['file']}", corpus.files(item) / row["file"], WORDS[row["what"]])
    for item, answer in corpus.answers().items()
    for row in answer.get("odd_files", ())
]
ODD_PATHS = {path for _, path, _ in ODD}

KINDS_BY_NAME = [
    (r".*\.index", {"v2-index"}),
    (r".*\.data-\d{5}-of-\d{5}", {"v2-shard"}),
    (r".*\.meta", {"meta-graph"}),
    (r".*\.tempstate\d+", {"interrupted-save"}),
    (r"checkpoint", {"state-file"}),
    (r"graph\.pbtxt", {"graph"}),
    (r"tfhub_module\.pb", {"hub-module"}),
    (r"fingerprint\.pb", {"fingerprint", "unknown"}),
    (r"keras_metadata\.pb", {"keras-metadata", "unknown"}),
    # Two have nothing but a word of text in them.
    (r"saved_model\.pb", {"saved-model-pb", "unknown"}),
    (r"saved_model\.pbtxt", {"saved-model-pbtxt", "unknown"}),
]


def files() -> Iterator[tuple[str, Path]]:
    for item in corpus.answers():
        root = corpus.files(item)
        for path in sorted(root.rglob("*")):
            if path.is_file() and path not in ODD_PATHS:
                yield f"{item}:{path.relative_to(root)}", path


FILES = list(files()) if corpus.directory() else []


@pytest.mark.parametrize(("path", "kind"), [row[1:] for row in ODD], ids=[row[0] for row in ODD])
def test_a_file_that_is_not_what_its_name_says_is_known(path: Path, kind: str) -> None:
    identity = identify(path)
    assert identity.kind == kind
    assert identity.path == str(path)
    assert identity.advice
    if kind == "lfs-pointer":
        assert isinstance(identity.detail["size"], int)
        assert re.fullmatch(r"[0-9a-f]{64}", str(identity.detail["sha256"]))


@pytest.mark.parametrize("path", [row[1] for row in FILES], ids=[row[0] for row in FILES])
def test_every_other_file_is_what_its_name_says(path: Path) -> None:
    for pattern, kinds in KINDS_BY_NAME:
        if re.fullmatch(pattern, path.name):
            assert identify(path).kind in kinds
            return


@pytest.mark.parametrize(
    "record", [r for r in corpus.checkpoints() if r.error is None], ids=lambda r: r.name
)
def test_every_checkpoint_is_known_by_its_prefix(record: corpus.Recorded) -> None:
    kinds = {"v1"} if record.format == "v1" else {"v2-prefix"}
    if ".tempstate" in record.path.name:
        kinds = {"interrupted-save"}
    if record.path.is_dir():
        kinds = {"directory", "v2-prefix"}
    assert identify(record.path).kind in kinds


@pytest.mark.parametrize("item", corpus.answers())
def test_every_directory_has_an_answer(item: str) -> None:
    answer = corpus.answers()[item]
    identity = identify(corpus.files(item))
    assert identity.advice
    if answer["kind"] == "savedmodel":
        assert identity.kind in {"savedmodel", "hub-module", "lfs-pointer", "html", "directory"}
    else:
        assert identity.kind in {"directory", "interrupted-save"}
