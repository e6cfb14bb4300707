"""Chunked SavedModels: cut in every way the plan can say, merged back, and plans that lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from riegeli_builder import (
    BYTES,
    MESSAGE,
    Tag,
    chunk_info,
    chunked_field,
    chunked_file,
    chunked_message,
    field,
)

from ckptparse.errors import CheckpointError, LimitError, MalformedError, UnsupportedError
from ckptparse.files.local import LocalSource
from ckptparse.limits import DEFAULT_LIMITS, Limits
from ckptparse.proto.saved_model_pb2 import SavedModel
from ckptparse.saved_model.chunked import read_chunked_message

pytestmark = pytest.mark.proto

COMPRESSIONS = ["none", "brotli", "zstd", "snappy"]
CONTENT: list[Tag] = [2, "#0", 2, 1, "#7", 5, ("s", "value"), 8, 4]
"""meta_graphs[0].graph_def.node[7].attr["value"].tensor.tensor_content"""


def original(content: bytes = b"abcd" * 100) -> SavedModel:
    model = SavedModel(saved_model_schema_version=1)
    meta_graph = model.meta_graphs.add()
    meta_graph.meta_info_def.tags.append("serve")
    for index in range(9):
        meta_graph.graph_def.node.add(name=f"node{index}", op="Const")
    meta_graph.graph_def.node[7].attr["value"].tensor.tensor_content = content
    meta_graph.graph_def.node[7].attr["dtype"].type = 1
    for index in range(4):
        meta_graph.graph_def.library.function.add().signature.name = f"function{index}"
    meta_graph.signature_def["serving_default"].method_name = "predict"
    return model


def merge(
    path: Path, data: bytes, *, limits: Limits = DEFAULT_LIMITS, verify: bool = True
) -> SavedModel:
    path.write_bytes(data)
    with LocalSource.open(str(path)) as source:
        return read_chunked_message(SavedModel, source, limits=limits, verify=verify)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "saved_model.cpb"


def cut_content(content: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Cut out the one large constant: the chunks, and the plan."""
    rest = original(content)
    rest.meta_graphs[0].graph_def.node[7].attr["value"].tensor.ClearField("tensor_content")
    plan = chunked_message(0, [chunked_field(CONTENT, chunked_message(1))])
    return [(MESSAGE, rest.SerializeToString()), (BYTES, content)], plan


def one_plan(
    tags: Sequence[Tag], payload: bytes, *, kind: int = MESSAGE, base: SavedModel | None = None
) -> bytes:
    """A file of a base message and one chunk merged at some tag."""
    rest = original() if base is None else base
    plan = chunked_message(0, [chunked_field(tags, chunked_message(1))])
    return chunked_file([(MESSAGE, rest.SerializeToString()), (kind, payload)], plan)


# Merging


@pytest.mark.checklist(122)
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("records_per_chunk", [None, 1, 2])
@pytest.mark.parametrize("size", [0, 400, 200_000])
def test_the_merged_model_equals_the_original(
    file: Path, compression: str, records_per_chunk: int | None, size: int
) -> None:
    content = bytes(index * index % 253 for index in range(size))
    chunks, plan = cut_content(content)
    data = chunked_file(chunks, plan, compression=compression, records_per_chunk=records_per_chunk)
    assert merge(file, data) == original(content)


@pytest.mark.parametrize("count", [1000, 200])
def test_a_plan_has_no_more_fields_than_the_bytes_of_its_file_allow(file: Path, count: int) -> None:
    tags = (2, "#0", 2, 1, "#7", 5, ("s", "value"), 8) if count < 1000 else ()
    field = chunked_field(tags, chunked_message(1))
    rest = original().SerializeToString()
    data = chunked_file([(MESSAGE, rest), (MESSAGE, b"")], chunked_message(0, [field] * count))
    with pytest.raises(LimitError) as caught:
        merge(file, data, limits=Limits(objects=890))
    assert caught.value.limit == "objects"
    assert merge(file, data, limits=Limits(objects=1000)) == original()


def test_nested_plans_merge_into_messages_that_are_chunks_themselves(file: Path) -> None:
    whole = original()
    node = whole.meta_graphs[0].graph_def.node[7]
    tensor = node.attr["value"].tensor.tensor_content
    rest = original()
    rest.meta_graphs[0].graph_def.node[7].Clear()
    hollow = original().meta_graphs[0].graph_def.node[7]
    hollow.attr["value"].tensor.ClearField("tensor_content")
    inner = chunked_message(1, [chunked_field([5, ("s", "value"), 8, 4], chunked_message(2))])
    plan = chunked_message(0, [chunked_field([2, "#0", 2, 1, "#7"], inner)])
    chunks = [
        (MESSAGE, rest.SerializeToString()),
        (MESSAGE, hollow.SerializeToString()),
        (BYTES, tensor),
    ]
    assert merge(file, chunked_file(chunks, plan)) == whole


def test_an_empty_tag_appends_to_the_repeated_fields_of_the_message_itself(file: Path) -> None:
    whole = original()
    rest = original()
    del rest.meta_graphs[0].graph_def.library.function[1:]
    parts = []
    for part in whole.meta_graphs[0].graph_def.library.function[1:]:
        library = type(rest.meta_graphs[0].graph_def.library)(function=[part])
        parts.append((MESSAGE, library.SerializeToString()))
    into_itself = [chunked_field([], chunked_message(index + 1)) for index in range(3)]
    library_plan = chunked_field([2, "#0", 2, 2], chunked_message(None, into_itself))
    data = chunked_file(
        [(MESSAGE, rest.SerializeToString()), *parts], chunked_message(0, [library_plan])
    )
    assert merge(file, data) == whole


def test_fields_are_merged_in_the_order_of_their_tags(file: Path) -> None:
    whole = original()
    functions = whole.meta_graphs[0].graph_def.library.function
    rest = original()
    rest.meta_graphs[0].graph_def.ClearField("library")
    fields = [
        chunked_field([2, "#0", 2, 2, 1, f"#{index}"], chunked_message(index + 1))
        for index in (3, 1, 2, 0)
    ]
    chunks = [(MESSAGE, rest.SerializeToString())]
    chunks += [(MESSAGE, function.SerializeToString()) for function in functions]
    assert merge(file, chunked_file(chunks, chunked_message(0, fields))) == whole


def test_a_plan_without_a_chunk_of_its_own_starts_with_an_empty_message(file: Path) -> None:
    whole = original()
    plan = chunked_message(None, [chunked_field([2, "#0"], chunked_message(0))])
    data = chunked_file([(MESSAGE, whole.meta_graphs[0].SerializeToString())], plan)
    whole.ClearField("saved_model_schema_version")
    assert merge(file, data) == whole


@pytest.mark.parametrize(
    ("tags", "payload", "expected"),
    [
        ([1], b"42", lambda model: model.saved_model_schema_version == 42),
        ([2, "#0", 1, 5], b"2.21.0", lambda m: m.meta_graphs[0].meta_info_def.tensorflow_version),
        ([2, "#0", 1, 7], b"true", lambda m: m.meta_graphs[0].meta_info_def.stripped_default_attrs),
        ([2, "#0", 1, 4, "#0"], b"gpu", lambda m: m.meta_graphs[0].meta_info_def.tags == ["gpu"]),
        ([2, "#0", 1, 4, "#1"], b"gpu", lambda m: len(m.meta_graphs[0].meta_info_def.tags) == 2),
        (
            [2, "#0", 1, 8, ("s", "f")],
            b"alias",
            lambda m: m.meta_graphs[0].meta_info_def.function_aliases["f"] == "alias",
        ),
        (
            [2, "#0", 3, 6],
            b"0.5",
            lambda m: m.meta_graphs[0].saver_def.keep_checkpoint_every_n_hours == 0.5,
        ),
        ([2, "#0", 3, 7], b"V2", lambda m: m.meta_graphs[0].saver_def.version == 2),
        (
            [2, "#0", 2, 1, "#0", 5, ("s", "x"), 3],
            b"-7",
            lambda m: m.meta_graphs[0].graph_def.node[0].attr["x"].i == -7,
        ),
    ],
)
def test_fields_that_are_no_messages_are_set_from_text(
    file: Path, tags: list[Tag], payload: bytes, expected: Callable[[SavedModel], bool]
) -> None:
    assert expected(merge(file, one_plan(tags, payload, kind=BYTES)))


@settings(max_examples=40, deadline=None)
@given(cut=st.sets(st.integers(0, 8)), compression=st.sampled_from(COMPRESSIONS), data=st.data())
def test_any_set_of_nodes_cut_out_comes_back(
    tmp_path_factory: pytest.TempPathFactory, cut: set[int], compression: str, data: st.DataObject
) -> None:
    whole, rest = original(), original()
    chunks, fields = [(MESSAGE, b"")], []
    for index in data.draw(st.permutations(sorted(cut))):
        node = rest.meta_graphs[0].graph_def.node[index]
        fields.append(chunked_field([2, "#0", 2, 1, f"#{index}"], chunked_message(len(chunks))))
        chunks.append((MESSAGE, node.SerializeToString()))
        node.Clear()
    chunks[0] = (MESSAGE, rest.SerializeToString())
    built = chunked_file(chunks, chunked_message(0, fields), compression=compression)
    assert merge(tmp_path_factory.mktemp("chunked") / "f", built) == whole


# Lies


@pytest.mark.parametrize(
    "tags",
    [
        [99],  # no such field
        ["#0"],  # an index without a field
        [("s", "x")],
        [2],  # a repeated field without an index
        [2, "#5"],  # an element far beyond the end
        [2, f"#{2**62}"],
        [2, "#0", "#0"],
        [2, ("s", "key")],  # a key for a field that is no map
        [2, "#0", 5],  # a map without a key
        [2, "#0", 5, "#0"],  # an index for a map
        [2, "#0", 5, ("i64", 3)],  # a key of another type
        [2, "#0", 5, ("boolean", True)],
        [1, "#0"],
        [1, 1],  # into a number
        [2, "#0", 1, 5, 1],  # into a string
    ],
)
@pytest.mark.parametrize("kind", [MESSAGE, BYTES])
def test_tags_that_do_not_fit_the_type_are_malformed(
    file: Path, tags: list[Tag], kind: int
) -> None:
    with pytest.raises(MalformedError) as caught:
        merge(file, one_plan(tags, b"", kind=kind))
    assert caught.value.path == str(file)


def test_an_empty_step_in_a_tag_is_malformed(file: Path) -> None:
    for step in (b"", field(2, b"")):
        empty = field(1, field(1, 2)) + field(1, step) + field(3, chunked_message(1))
        data = chunked_file([(MESSAGE, b""), (MESSAGE, b"")], chunked_message(0, [empty]))
        with pytest.raises(MalformedError):
            merge(file, data)


@pytest.mark.parametrize(
    ("tags", "payload"),
    [
        ([1], b""),
        ([1], b"x"),
        ([1], b"1_0"),
        ([1], b"99999999999999999999"),
        ([1], b"9" * 5000),
        ([2, "#0", 1, 5], b"\xff"),
        ([2, "#0", 1, 7], b"1"),
        ([2, "#0", 3, 4], b"99999999999"),
        ([2, "#0", 3, 6], b"half"),
        ([2, "#0", 3, 7], b"V9"),
        ([2, "#0", 1, 4, "#2"], b"gpu"),
    ],
)
def test_values_that_are_none_of_their_field_are_malformed(
    file: Path, tags: list[Tag], payload: bytes
) -> None:
    with pytest.raises(MalformedError):
        merge(file, one_plan(tags, payload, kind=BYTES))


def test_a_chunk_of_the_other_type_is_malformed(file: Path) -> None:
    with pytest.raises(MalformedError, match="of type"):
        merge(file, one_plan([2, "#0"], b"", kind=BYTES))
    with pytest.raises(MalformedError, match="of type"):
        merge(file, one_plan([1], b"1", kind=MESSAGE))


def test_a_chunk_index_out_of_range_is_malformed(file: Path) -> None:
    for index in (2, 1 << 40, (1 << 64) - 1):
        plan = chunked_message(0, [chunked_field([2, "#0"], chunked_message(index))])
        with pytest.raises(MalformedError, match=f"found index {index}"):
            merge(file, chunked_file([(MESSAGE, b""), (MESSAGE, b"")], plan))


def test_a_chunk_that_does_not_parse_is_malformed(file: Path) -> None:
    with pytest.raises(MalformedError, match="chunk 1"):
        merge(file, one_plan([2, "#0"], b"\xff\xff"))


def test_a_field_that_is_no_message_needs_a_chunk(file: Path) -> None:
    for message in (chunked_message(None), chunked_message(1, [chunked_field([], b"")])):
        plan = chunked_message(0, [chunked_field([1], message)])
        with pytest.raises(MalformedError, match="Expected a chunk"):
            merge(file, chunked_file([(MESSAGE, b""), (BYTES, b"1")], plan))


@pytest.mark.parametrize(
    ("size", "offset"), [(3, 64), (5, 64), (1 << 63, 64), (4, 63), (4, 1 << 62)]
)
def test_the_metadata_must_tell_where_a_chunk_is_and_how_large(
    file: Path, size: int, offset: int
) -> None:
    data = chunked_file(
        [(MESSAGE, b"\x08\x01\x08\x02")],
        chunked_message(0),
        infos=lambda infos: [chunk_info(MESSAGE, size, offset)],
    )
    with pytest.raises(MalformedError if size < 1 << 40 else LimitError):
        merge(file, data)


def test_metadata_that_does_not_parse_is_malformed(file: Path) -> None:
    from riegeli_builder import RiegeliBuilder

    builder = RiegeliBuilder()
    builder.add_records([b"\xff\xff"])
    with pytest.raises(MalformedError, match="metadata of a chunked message"):
        merge(file, bytes(builder.data))


def test_a_merger_that_the_file_calls_bad_is_not_used(file: Path) -> None:
    from riegeli_builder import RiegeliBuilder

    builder = RiegeliBuilder()
    builder.add_records([field(1, field(1, 1) + field(3, 0))])
    with pytest.raises(UnsupportedError):
        merge(file, bytes(builder.data))


def test_one_chunk_merged_many_times_counts_every_time(file: Path) -> None:
    payload = original(bytes(1000)).SerializeToString()
    fields = [chunked_field([], chunked_message(0))] * 500
    data = chunked_file([(MESSAGE, payload)], chunked_message(0, fields))
    with pytest.raises(LimitError, match="decompressed_bytes"):
        merge(file, data, limits=Limits(decompressed_bytes=100_000))


def test_chunks_that_are_merged_again_are_bounded_by_the_file(file: Path) -> None:
    payload = original(bytes(1000)).SerializeToString()

    def times(number: int) -> bytes:
        fields = [chunked_field([], chunked_message(0))] * number
        return chunked_file([(MESSAGE, payload)], chunked_message(0, fields))

    assert len(merge(file, times(50)).meta_graphs) == 51 * len(original().meta_graphs)
    with pytest.raises(LimitError, match="merged again"):
        merge(file, times(500))


def test_the_depth_of_the_merged_message_is_bounded(file: Path) -> None:
    deep = SavedModel()
    value = deep.meta_graphs.add().object_graph_def.nodes.add().function.function_spec.fullargspec
    for _ in range(20):
        value = value.list_value.values.add()
    data = chunked_file([(MESSAGE, deep.SerializeToString())], chunked_message(0))
    assert merge(file, data) == deep
    with pytest.raises(LimitError):
        merge(file, data, limits=Limits(nesting=20))
    path: list[Tag] = [2, "#0", 7, 1, "#0", 6, 2, 1]
    path += [51, 1, "#0"] * 20
    spread = one_plan(path, b"", base=SavedModel())
    assert merge(file, spread).meta_graphs[0].object_graph_def.nodes
    with pytest.raises(LimitError, match="nesting"):
        merge(file, spread, limits=Limits(nesting=30))


def test_plans_nested_without_end_are_refused(file: Path) -> None:
    plan = chunked_message(0)
    for _ in range(300):
        plan = chunked_message(None, [chunked_field([], plan)])
    with pytest.raises(CheckpointError):
        merge(file, chunked_file([(MESSAGE, b"")], plan))


@pytest.mark.checklist(122)
@pytest.mark.parametrize("compression", ["none", "brotli"])
def test_damage_anywhere_is_detected(file: Path, compression: str) -> None:
    chunks, plan = cut_content(b"abcd" * 4)
    data = chunked_file(chunks, plan, compression=compression)
    for index in range(0, len(data), 3):
        damaged = bytearray(data)
        damaged[index] ^= 1 << index % 8
        with pytest.raises(CheckpointError):
            merge(file, bytes(damaged))
    for size in range(len(data)):
        with pytest.raises(CheckpointError):
            merge(file, data[:size])


def test_without_verify_damage_gives_a_model_or_an_error_of_ours(file: Path) -> None:
    chunks, plan = cut_content(b"abcd" * 4)
    data = chunked_file(chunks, plan)
    for index in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[index] ^= 1 << bit
            try:
                merge(file, bytes(damaged), verify=False)
            except CheckpointError:
                continue
