"""Rules that writers of bundles keep, as a reader meets them."""

from __future__ import annotations

from pathlib import Path

import builder as b
import numpy as np
import pytest

import ckptparse
from ckptparse import CheckpointError, MalformedError, UnsupportedError


def two_tensors(header: b.Header | None = None) -> b.Bundle:
    bundle = b.Bundle(header=header)
    bundle.add("first", np.float32(1))
    bundle.add("second", np.float32(2))
    return bundle


@pytest.mark.checklist(25)
def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    bundle = two_tensors()
    prefix = bundle.write(tmp_path / "x")
    pairs = [pair for pair in bundle.pairs() for _ in range(1 + (pair[0] == b"first"))]
    Path(f"{prefix}.index").write_bytes(b.table(pairs).data)
    with pytest.raises(MalformedError, match="key"):
        ckptparse.read(prefix)


@pytest.mark.checklist(31)
def test_the_three_breaches_of_the_version_rule_have_three_errors(tmp_path: Path) -> None:
    breaches = {
        "too new": (b.version_proto(1, 2), UnsupportedError),
        "no version": (b.version_proto(-1, 0), MalformedError),
        "excluded": (b.version_proto(1, 0, [1]), UnsupportedError),
    }
    messages = set()
    for name, (version, kind) in breaches.items():
        prefix = two_tensors(b.Header(version=version)).write(tmp_path / name)
        with pytest.raises(CheckpointError) as caught:
            ckptparse.read(prefix)
        assert type(caught.value) is kind
        messages.add(caught.value.message)
    assert len(messages) == 3


@pytest.mark.checklist(111)
def test_an_object_graph_alone_in_the_last_of_four_shards_is_found(tmp_path: Path) -> None:
    bundle = b.Bundle()
    for worker in range(3):
        bundle.add(f"v{worker}/.ATTRIBUTES/VARIABLE_VALUE", np.float32(worker), shard=worker)
    root_without_children = b"\x0a\x00"
    bundle.add(b.OBJECT_GRAPH, root_without_children, shard=3)
    with ckptparse.open(bundle.write(tmp_path / "x")) as checkpoint:
        assert checkpoint.num_shards == 4
        assert [array.item() for array in checkpoint.read().values()] == [0, 1, 2]
        assert checkpoint.object_graph is not None
        assert checkpoint.object_graph.serialized == root_without_children
