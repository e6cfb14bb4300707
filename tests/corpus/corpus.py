"""The corpus: real checkpoints of ten years by others, and what TensorFlow 2.21 read from each.

It is no part of the project. It lies where CKPTPARSE_CORPUS says, or in ../shared/corpus beside the
checkout; without it there is nothing to test. `<item>/` holds an item's files and `<item>.json`
TensorFlow's answer, whose digests are made as those of `fixtures/` (`expected.digest`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from expected import ExpectedTensor

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


@dataclass(frozen=True, slots=True)
class Recorded:
    """One checkpoint of an item, and what TensorFlow read from it.

    name: `item` or, where an item holds several checkpoints, `item:prefix`.
    path: The prefix (of a V2 checkpoint) or the file (of a V1 one).
    tensors: What TensorFlow listed, in its order, the object graph left out.
    failed: What TensorFlow said of each tensor that it listed and could not read.
    object_graph: The entry of the object graph; None where there is none.
    attributes: The object graph's attributes: `node`, `full_name`, `checkpoint_key`, ...; None
        where TensorFlow could not read it.
    error: What TensorFlow said of the whole; None where it could open it.
    """

    name: str
    item: str
    kind: str
    format: str
    path: Path
    tensors: dict[str, ExpectedTensor]
    failed: dict[str, str]
    object_graph: ExpectedTensor | None
    attributes: list[dict[str, Any]] | None
    error: str | None


def directory() -> Path | None:
    """Find the corpus; None where there is none."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "corpus"
    found = Path(os.environ.get("CKPTPARSE_CORPUS") or beside)
    return found.resolve() if found.is_dir() else None


@cache
def answers() -> dict[str, dict[str, Any]]:
    """Load TensorFlow's answer to each item, by the item's name; empty without a corpus."""
    root = directory()
    paths = sorted(root.glob("*.json")) if root else []
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def files(item: str) -> Path:
    """Return the directory of an item's files."""
    root = directory()
    if root is None:
        raise FileNotFoundError("no corpus")
    return root / item


@cache
def checkpoints() -> tuple[Recorded, ...]:
    """Return every checkpoint of the corpus, those inside SavedModels among them."""
    return tuple(record for item, answer in answers().items() for record in _of_item(item, answer))


def _of_item(item: str, answer: dict[str, Any]) -> Iterator[Recorded]:
    rows = list(answer.get("checkpoints", ()))
    rows += [m["variables"] for m in answer.get("saved_models", ()) if m.get("variables")]
    for row in rows:
        name = item if len(rows) == 1 else f"{item}:{row['prefix']}"
        yield _recorded(name, item, answer["kind"], row)


def _recorded(name: str, item: str, kind: str, row: dict[str, Any]) -> Recorded:
    listed = {entry["name"]: entry for entry in row.get("tensors") or ()}
    tensors = {key: ExpectedTensor.from_json(entry) for key, entry in listed.items()}
    graph = row.get("object_graph")
    return Recorded(
        name=name,
        item=item,
        kind=kind,
        format=row.get("format") or "v2",
        path=files(item) / row["prefix"],
        object_graph=tensors.pop(OBJECT_GRAPH, None),
        tensors=tensors,
        failed={key: _message(entry) for key, entry in listed.items() if "error" in entry},
        attributes=graph["attributes"] if graph else None,
        error=_message(row) if row.get("error") else None,
    )


def _message(row: dict[str, Any]) -> str:
    error = row["error"]
    return error if isinstance(error, str) else f"{error['class']}: {error['message']}"
