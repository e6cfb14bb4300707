"""Graphs of very many small things: what is counted before it is looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import builder as b
import graph_builder as g
import pytest

import ckptparse
from ckptparse import tensor_proto, typed_fields
from ckptparse.graph import attributes, meta_graph
from ckptparse.graph.graph import Graph
from ckptparse.graph.nodes import NodeTable
from ckptparse.proto import wire

pytestmark = [pytest.mark.proto]


def is_just_allowed(data: bytes, nodes: int) -> bool:
    """Tell whether a graph is read if it may have so many nodes, and refused with one less."""
    with bytes_that_allow_nothing():
        Graph.from_graph_def(data, limits=ckptparse.Limits(nodes=nodes))
        with pytest.raises(ckptparse.LimitError) as caught:
            Graph.from_graph_def(data, limits=ckptparse.Limits(nodes=nodes - 1))
    return caught.value.limit == "nodes"


@contextmanager
def bytes_that_allow_nothing() -> Iterator[None]:
    """Let a graph have no node for its bytes beyond `Limits.nodes`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ckptparse.limits._NODE_BYTES", 1 << 40)
        yield


def count_walked(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> list[object]:
    """Collect the fields that a module walks one by one."""
    walked: list[object] = []
    iterate = module.iter_fields

    def count(*args: object) -> Iterator[object]:
        for one in iterate(*args):
            walked.append(one)
            yield one

    monkeypatch.setattr(module, "iter_fields", count)
    return walked


def test_nodes_are_counted_before_they_are_indexed(monkeypatch: pytest.MonkeyPatch) -> None:
    data = g.graph([g.node(f"n{number}", "NoOp") for number in range(3000)])
    assert is_just_allowed(data, 3001)  # The versions are a field, too.
    monkeypatch.setattr(NodeTable, "__init__", None)
    with pytest.raises(ckptparse.LimitError, match="beyond one for each 128 bytes"):
        Graph.from_graph_def(data, limits=ckptparse.Limits(nodes=100))


def test_a_function_counts_as_several_nodes() -> None:
    library = [g.function(f"f{number}", [], [g.node("n", "NoOp")]) for number in range(100)]
    # Eight for each, its field in the library, its signature and its node; and two of the graph.
    assert is_just_allowed(g.graph([], library), 100 * (8 + 1 + 2) + 2)


def test_fields_of_nodes_are_counted_by_eights() -> None:
    data = g.graph([g.node("n", "Relu", *["a"] * 7998)])
    assert is_just_allowed(data, 1000)
    # What looks like fields, and is a tensor, is not counted.
    data = g.graph([g.constant("c", b.field(4, b"\x1a" * 8000), number=4, dims=[8000])])
    assert is_just_allowed(data, 2)


CONSTANT = b.tensor_proto(b.FLOAT, [1], b.field(5, b"\x00\x00\x80\x3f"))
UNKNOWN = b"\x78\x01\x7a\x00" * 500


@pytest.mark.parametrize(
    "attribute",
    [
        g.entry("value", b.field(8, CONSTANT)) + UNKNOWN,
        g.entry("value", b.field(8, CONSTANT) + UNKNOWN),
        g.entry("value", b.field(8, CONSTANT + UNKNOWN)),
        g.entry("value", b.field(8, b"\x08\x09\x50\x01" * 500)),
        g.entry("value", b.field(8, b"\x08\x07\x42\x00" * 500)),
        g.entry("value", b.field(10, b.field(1, b"f") + UNKNOWN)),
        g.entry("value", b.field(10, b.field(2, g.entry("a", b.field(8, CONSTANT + UNKNOWN))))),
    ],
)
def test_fields_of_attributes_are_counted_as_those_of_nodes(attribute: bytes) -> None:
    data = g.graph([g.node("c", "Const") + b.field(5, attribute)])
    few = ckptparse.Limits(nodes=100 - len(data) // 128)
    with pytest.raises(ckptparse.LimitError, match="fields of a graph's nodes, 8 as one") as caught:
        Graph.from_graph_def(data, limits=few)
    assert caught.value.limit == "nodes"
    Graph.from_graph_def(data)


def test_calls_in_lists_are_nodes_of_all_lists_together() -> None:
    value = b.field(1, b.field(9, b.field(1, b"f")) * 100)
    data = g.graph([g.node(f"n{number}", "Case", branches=value) for number in range(10)])
    with pytest.raises(ckptparse.LimitError, match="fields of a graph's nodes, 8 as one"):
        Graph.from_graph_def(data, limits=ckptparse.Limits(nodes=150 - len(data) // 128))
    Graph.from_graph_def(data, limits=ckptparse.Limits(nodes=1010 - len(data) // 128))


def test_fields_of_attributes_of_functions_are_counted() -> None:
    attribute = b.field(5, g.entry("a", b.field(8, CONSTANT + UNKNOWN)))
    data = g.graph([], [g.function("f", [], []) + attribute])
    with pytest.raises(ckptparse.LimitError, match="fields of a graph's nodes, 8 as one"):
        Graph.from_graph_def(data, limits=ckptparse.Limits(nodes=100 - len(data) // 128))
    Graph.from_graph_def(data)


@pytest.mark.parametrize(
    "value",
    [
        b.field(8, b.tensor_proto(b.FLOAT, [400], b"\x2d\x00\x00\x00\x00" * 400)),
        b.field(8, b.tensor_proto(b.INT64, [400], b"\x50\x01" * 400)),
        b.field(8, b.tensor_proto(b.STRING, [400], b"\x42\x01a" * 400)),
        b.field(8, b.tensor_proto(b.STRING, [400], b.field(8, b"a" * 20) * 400)),
        b.field(8, b.tensor_proto(b.INT64, [400], b.field(10, b"\x01" * 400))),
        b.field(1, b.field(3, b"\x01" * 400)),
        b.field(7, b.shape_proto([1] * 100)),
    ],
)
def test_an_attribute_as_writers_write_it_counts_as_few_fields(value: bytes) -> None:
    data = g.graph([g.node("n", "Op", a=value, b=value)])
    with bytes_that_allow_nothing():
        graph = Graph.from_graph_def(data, limits=ckptparse.Limits(nodes=10))
        assert len(graph.nodes["n"].attributes) == 2


def test_unknown_fields_of_tensors_in_a_list_are_not_walked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    value = b.field(1, b.field(8, CONSTANT + b"\x1a\x00" * 4000))
    graph = Graph.from_graph_def(g.graph([g.node("n", "Op", a=value)]))
    walked = count_walked(monkeypatch, typed_fields)
    (tensor,) = graph.nodes["n"].attributes["a"]
    assert tensor.read().tolist() == [1]
    assert len(walked) < 100


def test_versions_in_very_many_parts_are_joined_once() -> None:
    part = b.field(4, b.field(1, 7) * 100)
    limits = ckptparse.Limits(nodes=200_000)
    # Joined one by one, these took seconds of copying: 100,000 parts of 200 bytes each.
    graph = Graph.from_graph_def(g.graph([]) + part * 100_000, limits=limits)
    assert graph.producer == 7


def test_groups_of_a_message_share_what_they_may_have() -> None:
    few, many = b"\x7b\x7c" * 9999, b"\x7b\x7c" * 10_001
    assert len(list(wire.iter_fields(few))) == 9999
    with pytest.raises(ckptparse.LimitError) as caught:
        list(wire.iter_fields(many))
    assert caught.value.limit == "nesting"


def test_what_is_broken_in_a_node_is_said_when_it_is_asked_for() -> None:
    broken = g.node("n", "Relu", *["a"] * 800) + b"\x1a\x7f"
    graph = Graph.from_graph_def(g.graph([broken]), limits=ckptparse.Limits(nodes=100))
    with pytest.raises(ckptparse.MalformedError):
        _ = graph.nodes["n"]


@pytest.mark.parametrize(
    ("element", "each"), [(b"\x3a\x00", 1), (b"\x4a\x00", 1), (b"\x30\x01", 8), (b"\x18\x01", 8)]
)
def test_a_list_is_counted_before_its_elements_are_made(element: bytes, each: int) -> None:
    value = b.field(1, element * 800)
    data, limits = g.graph([g.node("n", "Op", a=value)]), ckptparse.Limits(nodes=800 // each - 14)
    # Calls are counted when it is opened, the others when they are asked for.
    with pytest.raises(ckptparse.LimitError) as caught:
        _ = Graph.from_graph_def(data, limits=limits).nodes["n"].attributes["a"]
    assert caught.value.limit == "nodes"
    graph = Graph.from_graph_def(g.graph([g.node("n", "Op", a=value)]))
    assert len(graph.nodes["n"].attributes["a"]) == 800


def test_constants_are_counted_before_they_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "g.pb"
    path.write_bytes(g.graph([g.constant(f"c{number}", dims=[0]) for number in range(200)]))
    few = ckptparse.Limits(small_tensors=399 - path.stat().st_size // 512)
    enough = ckptparse.Limits(small_tensors=400 - path.stat().st_size // 512)
    assert len(ckptparse.read(path, limits=enough)) == 200
    for call in (ckptparse.read, ckptparse.list_variables, ckptparse.stats):
        with pytest.raises(ckptparse.LimitError) as caught:
            call(path, limits=few)
        assert caught.value.limit == "small_tensors"
    report = ckptparse.verify(path, limits=few)
    assert [problem.code for problem in report.problems] == ["limit.reached"]
    assert not report.ok


def test_attributes_that_hold_no_function_are_not_decoded_to_find_functions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = {f"a{number}": g.of_type(1) for number in range(50)}
    data = g.graph([g.node("n", "Zz", **plain, f=g.of_function("ReadFile"))])
    decoded: list[object] = []
    decode = attributes._decode_value
    monkeypatch.setattr(
        attributes, "_decode_value", lambda *args: decoded.append(args) or decode(*args)
    )
    assert len(Graph.from_graph_def(data).effects) == 2
    assert len(decoded) == 1


def test_edges_to_the_users_of_a_node_are_counted() -> None:
    nodes = [g.variable("v", 1), *(g.node(f"n{number}", "Relu", "v") for number in range(300))]
    data = g.graph(nodes)
    for steps in (300, 299):
        limits = ckptparse.Limits(steps=steps - len(data) // 128)
        graph = Graph.from_graph_def(data, limits=limits)
        if steps == 300:
            assert len(graph.consumers("v")) == 300
            assert len(graph.consumers("v")) == 300
        else:
            with pytest.raises(ckptparse.LimitError) as caught:
                graph.consumers("v")
            assert caught.value.limit == "steps"


def _compare(path: Path, limits: ckptparse.Limits) -> ckptparse.Diff:
    """Compare constants with themselves: of two, either may take half of the memory."""
    return ckptparse.diff(path, path, limits=limits)


def test_strings_are_read_one_by_one_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "g.pb"
    nodes = [g.strings(f"s{number}", b"a") for number in range(30)]
    path.write_bytes(g.graph([*nodes, g.constant("c", b.field(4, b"\1"), number=4, dims=[1])]))
    held = path.stat().st_size >> 12
    enough = ckptparse.Limits(single_entries=30 - held)
    few = ckptparse.Limits(single_entries=29 - held)
    report = ckptparse.verify(path, limits=few)
    assert [problem.code for problem in report.problems] == ["limit.reached"]
    assert len(report.tensors) == 30
    assert len(ckptparse.verify(path, limits=enough).tensors) == 31
    assert len(ckptparse.read(path, limits=enough)) == 31
    calls: list[Callable[..., object]] = [ckptparse.read, ckptparse.stats, _compare]
    for call in calls:
        call(path, limits=enough)
        with pytest.raises(ckptparse.LimitError) as caught:
            call(path, limits=few)
        assert caught.value.limit == "single_entries"


def test_a_collection_is_counted_and_a_meta_graph_split_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    split = meta_graph.iter_fields
    monkeypatch.setattr(
        meta_graph, "iter_fields", lambda data, *at: passes.append(len(data)) or split(data, *at)
    )
    path = tmp_path / "g.meta"
    for number, element in ((1, b"\x0a\x00"), (2, b"\x0a\x00"), (5, b"\x0a\x00")):
        value = b.field(number, element * 4000)
        path.write_bytes(g.meta_graph(g.graph([]), collections={"c": value}))
        allowed = 1000 - path.stat().st_size // 128
        found = ckptparse.open_graph(path, limits=ckptparse.Limits(nodes=allowed))
        assert len(found.collections["c"]) == 4000
        with pytest.raises(ckptparse.LimitError) as caught:
            ckptparse.open_graph(path, limits=ckptparse.Limits(nodes=allowed - 1))
        assert caught.value.limit == "nodes"
    assert len(passes) == 12  # The whole, and the collection, of six.


@pytest.mark.parametrize("number", [b.STRING, b.VARIANT])
def test_short_elements_are_found_together(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    field, contents = {b.STRING: (8, (b"", b"ab", b"c" * 15)), b.VARIANT: (15, (b"",))}[number]
    values = [contents[place % len(contents)] for place in range(9000)]
    values[5000] = b"a long string that stands among them" if number == b.STRING else b""
    data = b.tensor_proto(number, [9000], *(b.field(field, value) for value in values))
    walked = count_walked(monkeypatch, typed_fields)
    found = tensor_proto.decode_tensor_bytes(data)
    assert len(walked) < 1000
    if number == b.STRING:
        assert found.tolist() == values
    else:
        assert {value.type_name for value in found.tolist()} == {""}
    # One more than the shape has is dropped, and one that is cut off is an error.
    more = data + b.field(field, b"")
    assert tensor_proto.decode_tensor_bytes(more).shape == (9000,)
    with pytest.raises(ckptparse.MalformedError):
        tensor_proto.decode_tensor_bytes(data + bytes([field << 3 | 2, 5, 0]))


def test_long_strings_do_not_end_a_run_of_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [b"a" * 16 if place % 34 == 0 else b"" for place in range(9000)]
    data = b.tensor_proto(b.STRING, [9000], *(b.field(8, value) for value in values))
    walked = count_walked(monkeypatch, typed_fields)
    assert tensor_proto.decode_tensor_bytes(data).tolist() == values
    assert len(walked) < 1000


def test_empty_strings_are_counted_and_not_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b.tensor_proto(b.STRING, [70_000], b"\x42\x00" * 70_000)
    found: list[int] = []
    iterate = typed_fields._iter_listed
    monkeypatch.setattr(
        typed_fields,
        "_iter_listed",
        lambda *args: (found.append(len(pieces)) or pieces for pieces in iterate(*args)),
    )
    assert tensor_proto.decode_tensor_bytes(data).tolist() == [b""] * 70_000
    assert len(found) < 50


def test_jobs_take_so_many_strings_of_all_constants(tmp_path: Path) -> None:
    path = tmp_path / "g.pb"
    nodes = [g.strings(name, *[b"a"] * 500) for name in "ab"]
    path.write_bytes(g.graph(nodes))
    few, enough = (1000 - path.stat().st_size // 8 - less for less in (1, 0))
    ckptparse.convert(
        path, tmp_path / "m", format="v2", limits=ckptparse.Limits(strings=enough << 8)
    )
    with pytest.raises(ckptparse.LimitError, match="strings of the constants") as caught:
        ckptparse.convert(
            path, tmp_path / "n", format="v2", limits=ckptparse.Limits(strings=few << 8)
        )
    assert caught.value.limit == "strings"
    assert (
        ckptparse.read(path, limits=ckptparse.Limits(strings=few << 8))["a"].tolist()
        == [b"a"] * 500
    )


def test_variants_of_all_constants_take_from_one_budget(tmp_path: Path) -> None:
    path = tmp_path / "g.pb"
    inner = b.tensor_proto(b.FLOAT, [], b.field(5, b"\0\0\x80\x3f"))
    value = b.field(15, b.variant_proto("t", tensors=[inner]))
    nodes = [g.constant(f"c{number}", value, number=b.VARIANT) for number in range(100)]
    path.write_bytes(g.graph(nodes))
    limits = ckptparse.Limits(memory_bytes=1 << 21)
    report = ckptparse.verify(path, limits=limits)
    assert [problem.code for problem in report.problems] == ["limit.reached"]
    assert 0 < len(report.tensors) < 60
    calls: list[Callable[..., object]] = [ckptparse.read, ckptparse.stats, _compare]
    for call in calls:
        with pytest.raises(ckptparse.LimitError) as caught:
            call(path, limits=limits)
        assert caught.value.limit == "memory_bytes"
        call(path, limits=ckptparse.DEFAULT_LIMITS)
    assert ckptparse.verify(path).ok


def test_values_that_repeat_are_not_written_to_be_compared(tmp_path: Path) -> None:
    path = tmp_path / "g.pb"
    nodes = [
        g.constant(f"c{number}", b.field(5, b"\0\0\x80\x3f"), dims=[1000]) for number in range(10)
    ]
    path.write_bytes(g.graph(nodes))
    assert not _compare(path, ckptparse.DEFAULT_LIMITS).changed
    with pytest.raises(ckptparse.LimitError) as caught:
        _compare(path, ckptparse.Limits(fill_bytes=10_000))
    assert caught.value.limit == "fill_bytes"


def test_what_is_no_array_is_decoded_once_to_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "g.pb"
    count = 600_000  # As numbers of 8 bytes, several pieces.
    value = b"\x50\x01" * count
    path.write_bytes(g.graph([g.constant("c", value, number=b.INT64, dims=[count])]))
    decoded: list[object] = []
    decode = tensor_proto.decode_scalars
    monkeypatch.setattr(
        tensor_proto, "decode_scalars", lambda *args: decoded.append(args) or decode(*args)
    )
    assert ckptparse.stats(path)["c"].mean == 1
    assert len(decoded) <= 2


@pytest.mark.parametrize("job", ["diff", "average", "convert"])
def test_a_constant_that_is_read_counts_three_times(tmp_path: Path, job: str) -> None:
    path = tmp_path / "g.pb"
    path.write_bytes(
        g.graph([g.constant(f"c{number:03}", b.field(5, b"\0\0\x80\x3f")) for number in range(100)])
    )

    def run(allowed: int) -> None:
        limits = ckptparse.Limits(small_tensors=allowed)
        if job == "diff":
            ckptparse.diff(path, path, rename={}, atol=1.0, limits=limits)
        elif job == "average":
            ckptparse.average([path, path], limits=limits)
        else:
            ckptparse.convert(path, tmp_path / "out.safetensors", limits=limits)

    with pytest.raises(ckptparse.LimitError) as caught:
        run(280 - path.stat().st_size // 512)
    assert caught.value.limit == "small_tensors"
    run(800)
