"""Damaged, odd and hostile graphs: an error of ours, or an answer; never another exception."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import builder
import graph_builder as g
import pytest
from builder import field, field32
from hypothesis import given
from hypothesis import strategies as st
from instruments import MEGABYTE
from packages import tracemalloc

import ckptparse
from ckptparse import (
    CheckpointError,
    DataLossError,
    LimitError,
    Limits,
    MalformedError,
    TruncatedError,
)
from ckptparse.graph.graph import Graph

pytestmark = pytest.mark.proto

SMALL = g.graph(
    [
        g.variable("v", 2),
        g.constant("w", field(4, b"\0\0\x80?\0\0\0@"), dims=[2]),
        g.node("y", "Add", "w", "v"),
    ],
    [g.function("f", ["x"], [g.constant("c", field32(5, 0)), g.node("n", "Neg", "x")])],
)
META = g.meta_graph(
    g.graph(
        [
            g.variable("w", 2, op="VariableV2"),
            g.strings("names", b"w"),
            g.strings("specs", b""),
            g.constant("save/Const", field(8, b"model"), number=builder.STRING),
            g.node("save/SaveV2", "SaveV2", "save/Const", "names", "specs", "w"),
            g.node("call", "PartitionedCall", "w", f=g.of_function("f")),
        ],
        [g.function("f", ["x"], [g.node("n", "Neg", "x")])],
    ),
    saver=field(2, b"save/SaveV2:0"),
    collections={
        "variables": field(2, field(1, field(1, b"w:0") + field(7, 1))),
        "numbers": field(3, field(1, b"\x01\x02")),
    },
)


def look_at_everything(graph: Graph) -> dict[str, Any]:
    """Touch all that a graph tells; return its constants."""
    for table in graph.tables():
        for node in table.values():
            list(node.attributes.values())
    for name in graph.nodes:
        graph.consumers(name)
    assert all(isinstance(saver.names, tuple) for saver in graph.savers)
    assert isinstance(graph.tags, tuple)
    assert len(graph.collections) >= 0
    return {name: tensor.read().tolist() for name, tensor in graph.constants.items()}


def judge(path: Path, data: bytes) -> type[CheckpointError] | dict[str, Any]:
    path.write_bytes(data)
    try:
        return look_at_everything(ckptparse.open_graph(path))
    except CheckpointError as error:
        return type(error)


@pytest.mark.parametrize("data", [SMALL, META], ids=["graph", "meta graph"])
def test_a_truncation_is_found_unless_whole_fields_are_left(tmp_path: Path, data: bytes) -> None:
    whole = judge(tmp_path / "g", data)
    assert isinstance(whole, dict)
    boundaries = 0
    for size in range(len(data)):
        verdict = judge(tmp_path / "g", data[:size])
        if isinstance(verdict, dict):
            # There is no checksum: where a node ends, a graph may end.
            boundaries += 1
            assert verdict.items() <= whole.items()
    assert boundaries <= 12


def test_a_cut_graph_says_so(tmp_path: Path) -> None:
    (tmp_path / "g.pb").write_bytes(SMALL[:-1])
    for function in [ckptparse.open_graph, ckptparse.read, ckptparse.open]:
        with pytest.raises(TruncatedError, match="cut off") as caught:
            function(tmp_path / "g.pb")
        assert caught.value.path == str(tmp_path / "g.pb")


@pytest.mark.bitflips
@pytest.mark.parametrize("data", [SMALL, META], ids=["graph", "meta graph"])
def test_every_flipped_bit_gives_an_error_of_ours_or_an_answer(tmp_path: Path, data: bytes) -> None:
    for offset in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[offset] ^= 1 << bit
            judge(tmp_path / "g", bytes(flipped))


@given(
    st.sampled_from([SMALL, META]),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_changed_bytes_give_an_error_of_ours_or_an_answer(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, changes: list[tuple[int, int]]
) -> None:
    changed = bytearray(data)
    for offset, value in changes:
        changed[offset % len(data)] = value
    judge(tmp_path_factory.mktemp("any") / "g", bytes(changed))


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_give_an_error_of_ours_or_a_graph(data: bytes, meta: bool) -> None:
    decode = Graph.from_meta_graph if meta else Graph.from_graph_def
    with suppress(CheckpointError):
        look_at_everything(decode(data))


@given(st.text(max_size=200), st.booleans())
def test_any_text_gives_an_error_of_ours_or_a_graph(text: str, meta: bool) -> None:
    with suppress(CheckpointError):
        look_at_everything(Graph.from_text(text.encode("utf-8", "replace"), is_meta=meta))


def test_two_nodes_of_one_name_are_refused() -> None:
    with pytest.raises(MalformedError, match="the name 'w'"):
        Graph.from_graph_def(g.graph([g.node("w", "A"), g.node("w", "B")]))
    with pytest.raises(MalformedError, match="the name 'f'"):
        Graph.from_graph_def(g.graph([], [g.function("f", [], []), g.function("f", [], [])]))


ODD = {
    "type": g.of_string(b"x"),
    "shape": g.of_type(1),
    "list": field(1, field(2, b"a")),
    "tensor": g.of_tensor(field32(5, 0)),
    "function": g.of_function("f"),
    "boolean": field(5, 1),
    "nothing": b"",
}


@pytest.mark.parametrize("value", ODD.values(), ids=ODD)
@pytest.mark.parametrize("name", ["dtype", "shape", "shared_name", "container", "f", "dtypes", "T"])
def test_attributes_of_another_kind_than_their_name_says_are_no_trouble(
    name: str, value: bytes
) -> None:
    nodes = [
        g.node("v", "VarHandleOp", **{"shared_name": g.of_string(b"s"), name: value}),
        g.node("u", "VariableV2", **{name: value}),
        g.node("call", "PartitionedCall", "v", **{name: value}),
        g.node("save/SaveV2", "SaveV2", "call", "v", "u", "v", **{name: value}),
    ]
    with suppress(CheckpointError):
        look_at_everything(Graph.from_graph_def(g.graph(nodes)))


# ---- what a small file may ask for


def test_a_fill_beyond_the_limit_is_refused_before_it_is_made() -> None:
    data = g.graph([g.constant("huge", field32(5, 0x3F800000), dims=[1 << 40])])
    tensor = Graph.from_graph_def(data).constants["huge"]
    assert tensor.shape == (1 << 40,)
    tracemalloc.start()
    for read in [tensor.read, lambda: tensor[:3]]:
        with pytest.raises(LimitError) as caught:
            read()
        assert caught.value.limit == "fill_bytes"
    assert tracemalloc.get_traced_memory()[1] < MEGABYTE
    tracemalloc.stop()


@pytest.mark.parametrize(
    "parts",
    [
        [field(4, b"\0" * 7)],
        [field(4, b"\0" * 12)],
    ],
    ids=["too short", "too long"],
)
def test_content_of_another_size_is_malformed(parts: list[bytes]) -> None:
    graph = Graph.from_graph_def(g.graph([g.constant("w", *parts, dims=[2])]), path="g.pb")
    with pytest.raises(DataLossError) as caught:
        graph.constants["w"].read()
    assert (caught.value.tensor, caught.value.path) == ("w", "g.pb")


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        (Limits(nodes=2), "nodes"),
        (Limits(message_bytes=50), "message_bytes"),
        (Limits(rank=0), "rank"),
    ],
)
def test_each_limit_is_checked(tmp_path: Path, limits: Limits, name: str) -> None:
    (tmp_path / "g.pb").write_bytes(SMALL)
    with pytest.raises(LimitError) as caught:
        look_at_everything(ckptparse.open_graph(tmp_path / "g.pb", limits=limits))
    assert caught.value.limit == name


def test_functions_in_functions_in_attributes_cost_no_stack() -> None:
    value = g.of_function("f")
    for _ in range(5000):
        value = field(10, field(1, b"f") + field(2, g.entry("a", value)))
    graph = Graph.from_graph_def(g.graph([g.node("n", "Op", deep=value)]))
    call = graph.nodes["n"].attributes["deep"]
    for _ in range(10):
        call = call.attributes["a"]
    listed = field(1, field(9, field(1, b"f") + field(2, g.entry("a", value))))
    graph = Graph.from_graph_def(g.graph([g.node("n", "Op", deep=listed)]))
    with pytest.raises((LimitError, MalformedError)):
        graph.nodes["n"].attributes["deep"]


def test_text_that_nests_deep_is_refused() -> None:
    text = b"node { attr { value { " + b"list { func { attr { value { " * 2000
    with pytest.raises((LimitError, MalformedError)):
        Graph.from_text(text, is_meta=False)


def test_many_nodes_are_opened_quickly() -> None:
    nodes = [g.variable("v", 2)]
    nodes += [g.node(f"n{number}", "Add", f"n{number - 1}", "v") for number in range(10_000)]
    graph = Graph.from_graph_def(g.graph(nodes))
    assert len(graph.nodes) == 10_001
    assert len(graph.consumers("v")) == 10_000
    assert graph.nodes["n9999"].inputs == ("n9998", "v")
