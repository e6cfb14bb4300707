"""Real graphs, frozen ones and text, and the meta graphs of real checkpoints."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import corpus
import numpy as np
import pytest

import ckptparse
from ckptparse import NotACheckpointError
from ckptparse.dtypes import DataType

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(corpus.directory() is None, reason="the corpus is not here"),
]

GRAPHS = [
    (f"{item}:{row['file']}", corpus.files(item) / row["file"], row)
    for item, answer in corpus.answers().items()
    for row in answer.get("graphs", ())
]
# The last is no graph: a message of other kind, which protobuf takes for a GraphDef of no nodes.
READ = [row for row in GRAPHS if "error" not in row[2] and row[2]["nodes"]]
OTHERS = {
    "dnn_v2.pb": "saved-model-pb",
    "varroa_model.pb": "html",
    "api_report.pb": "unknown",
    "penguin.tensorflow_stats.pb": "unknown",
}
METAS = [
    (f"{item}:{file}", corpus.files(item) / file, row)
    for item, answer in corpus.answers().items()
    for file, row in (answer.get("meta") or {}).items()
]


def digest(array: np.ndarray[Any, Any]) -> str:
    if array.dtype != object:
        return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    found = hashlib.sha256()
    for value in array.reshape(-1):
        found.update(len(value).to_bytes(8, "little") + value)
    return found.hexdigest()


def by_name(rows: list[tuple[str, Path, dict[str, Any]]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("path", "row"), [r[1:] for r in rows], ids=[r[0] for r in rows])


@pytest.mark.checklist(123)
@by_name(READ)
def test_every_constant_is_identical(path: Path, row: dict[str, Any]) -> None:
    graph = ckptparse.open_graph(path)
    assert len(graph.nodes) == row["nodes"]
    assert len(graph.functions) == row["functions"]
    assert (graph.producer, graph.min_consumer) == (row["producer"], row["min_consumer"])
    assert list(graph.constants) == [constant["name"] for constant in row["consts"]]
    for constant in row["consts"]:
        tensor = graph.constants[constant["name"]]
        assert DataType(tensor.data_type).name == constant["dtype"]
        assert tensor.shape == tuple(constant["shape"])
        assert digest(tensor.read()) == constant["sha256"]


@by_name(READ)
def test_the_constants_are_read_as_a_checkpoint(path: Path, row: dict[str, Any]) -> None:
    with ckptparse.open(path) as checkpoint:
        assert checkpoint.format == "graph"
        assert list(checkpoint) == sorted(constant["name"] for constant in row["consts"])
    arrays = ckptparse.read(path)
    for constant in row["consts"]:
        assert digest(arrays[constant["name"]]) == constant["sha256"]


@by_name(READ)
def test_every_node_variable_and_saver_can_be_looked_at(path: Path, row: dict[str, Any]) -> None:
    graph = ckptparse.open_graph(path)
    for node in graph.nodes.values():
        assert node.op
        for name in node.inputs:
            assert name.lstrip("^").partition(":")[0] in graph.nodes
        assert len(list(node.attributes.values())) == len(node.attributes)
    saved = [name for saver in graph.savers for name in saver.names]
    assert all(saved)
    for name in graph.variables:
        assert all(node.path for node in graph.consumers(name))


@by_name([row for row in GRAPHS if row not in READ])
def test_what_is_no_graph_is_named(path: Path, row: dict[str, Any]) -> None:
    with pytest.raises(NotACheckpointError) as caught:
        ckptparse.open_graph(path)
    assert caught.value.identity.kind == OTHERS[path.name]


@by_name(METAS)
def test_meta_graphs_tell_version_nodes_and_saver(path: Path, row: dict[str, Any]) -> None:
    graph = ckptparse.open_graph(path)
    assert graph.is_meta_graph
    assert (graph.tensorflow_version or "") == row["tensorflow_version"]
    assert len(graph.nodes) == row["nodes"]
    assert graph.producer == row["producer"]
    definition = graph.savers[0].definition
    assert definition is not None
    assert definition.version == row["saver_version"]
    assert definition.sharded == row["saver_sharded"]


@by_name(METAS)
def test_the_saver_names_what_the_checkpoint_beside_it_holds(
    path: Path, row: dict[str, Any]
) -> None:
    saver = ckptparse.open_graph(path).savers[0]
    prefix = path.with_name(path.name.removesuffix(".meta"))
    try:
        listed = {name for name, _ in ckptparse.list_variables(prefix)}
    except ckptparse.CheckpointNotFoundError:
        pytest.skip("the checkpoint is not in the corpus")
    assert set(saver.names) == listed
    for tensor in [tensor for op in saver.ops for tensor in op.tensors]:
        assert tensor.variable is not None or tensor.shape is not None
