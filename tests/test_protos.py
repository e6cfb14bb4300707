"""The messages, and the one place that parses them: depth, text, damage, on every runtime alike."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import builder as b
import pytest
from google.protobuf.internal import api_implementation
from google.protobuf.message import Message
from hypothesis import example, given, settings
from hypothesis import strategies as st

import ckptparse.proto
from ckptparse.errors import CheckpointError, LimitError, MalformedError
from ckptparse.limits import Limits
from ckptparse.proto import (
    attr_value_pb2,
    checkpoint_state_pb2,
    full_type_pb2,
    graph_pb2,
    meta_graph_pb2,
    node_def_pb2,
    struct_pb2,
    tensor_bundle_pb2,
    tensor_shape_pb2,
    wire,
)
from ckptparse.proto.parsing import parse_message, parse_text

pytestmark = pytest.mark.proto

BINDINGS = [
    name for _, name, _ in pkgutil.iter_modules(ckptparse.proto.__path__) if name.endswith("_pb2")
]

COMPILED = api_implementation.Type() == "upb"
START, END = 3, 4


def tag(number: int, wire_type: int) -> bytes:
    return b.varint(number << 3 | wire_type)


def full_types(depth: int, innermost: bytes = b"") -> bytes:
    """A FullTypeDef with so many FullTypeDefs inside one another."""
    for _ in range(depth):
        innermost = b.field(2, innermost)
    return innermost


def groups(depth: int, number: int = 15) -> bytes:
    return tag(number, START) * depth + tag(number, END) * depth


def dicts(depth: int, innermost: bytes = b"") -> bytes:
    """StructuredValues in dictionaries: each is a value, a map entry and a dictionary."""
    for _ in range(depth):
        innermost = b.field(53, b.field(1, b.field(1, b"key") + b.field(2, innermost)))
    return innermost


def outcome(message_type: type[Message], data: bytes, limits: Limits | None = None) -> str:
    try:
        parse_message(message_type, data, limits=limits or Limits())
    except CheckpointError as error:
        return type(error).__name__
    return "parsed"


# ---- the bindings


@pytest.mark.parametrize("name", BINDINGS)
def test_every_binding_loads_and_is_in_our_own_package(name: str) -> None:
    module = importlib.import_module(f"ckptparse.proto.{name}")
    assert module.DESCRIPTOR.package == "ckptparse.proto"


def test_importing_the_package_imports_no_binding(fresh_python: Callable[[str], str]) -> None:
    code = "import sys, ckptparse.proto; print([m for m in sys.modules if 'protobuf' in m])"
    assert fresh_python(code).strip() == "[]"


def test_reading_a_bundle_imports_few_messages(fresh_python: Callable[[str], str]) -> None:
    code = (
        "import sys, ckptparse.proto.parsing, ckptparse.proto.tensor_bundle_pb2\n"
        "print(*sorted(m for m in sys.modules if m.endswith('_pb2')))"
    )
    loaded = [name for name in fresh_python(code).split() if not name.startswith("google.")]
    assert [name.removeprefix("ckptparse.proto.") for name in loaded] == [
        "tensor_bundle_pb2",
        "tensor_shape_pb2",
        "tensor_slice_pb2",
        "types_pb2",
        "versions_pb2",
    ]


def test_unknown_enum_numbers_stay_numbers() -> None:
    entry = parse_message(tensor_bundle_pb2.BundleEntryProto, b.field(1, 999))
    assert entry.dtype == 999


def test_a_slice_tells_an_absent_length_from_one_of_zero() -> None:
    entry = parse_message(
        tensor_bundle_pb2.BundleEntryProto, b.field(7, b.field(1, b"") + b.field(1, b"\x10\x00"))
    )
    whole, empty = entry.slices[0].extent
    assert not whole.HasField("length")
    assert empty.HasField("length")
    assert empty.length == 0


def test_unknown_fields_are_skipped() -> None:
    data = b.field(9, b"new") + b.field(1, 1) + groups(2) + b.field32(11, 1) + b.field64(12, 1)
    assert parse_message(tensor_bundle_pb2.BundleEntryProto, data).dtype == 1


# ---- damage


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x12\x05ab", id="length past the end"),
        pytest.param(b"\x12\x80\x80\x80\x80\x10", id="length of 2**32"),
        pytest.param(b"\x12" + b"\xff" * 9 + b"\x01", id="length of 2**64 - 1"),
        pytest.param(b"\x12", id="length missing"),
        pytest.param(b"\x08", id="varint missing"),
        pytest.param(b"\x08\x80", id="varint cut off"),
        pytest.param(b"\x08" + b"\x80" * 10 + b"\x01", id="varint of eleven bytes"),
        pytest.param(b"\x7d\x00\x00\x00", id="fixed32 cut off"),
        pytest.param(b"\x79\x00\x00\x00\x00", id="fixed64 cut off"),
        pytest.param(b"\x00\x01", id="field 0"),
        pytest.param(b"\x0e\x01", id="wire type 6"),
        pytest.param(b"\x0f\x01", id="wire type 7"),
        pytest.param(b"\xf8\xff\xff\xff\xff\x01\x01", id="tag wider than 32 bits"),
        pytest.param(b"\x88\x80\x80\x80\x80\x80\x00\x01", id="tag of seven bytes"),
        pytest.param(tag(15, START), id="group without an end"),
        pytest.param(tag(15, END), id="end without a group"),
        pytest.param(tag(15, START) + tag(16, END), id="end of another group"),
        pytest.param(b.field(2, tag(15, START)) + tag(15, END), id="group across a message's end"),
    ],
)
def test_bytes_that_are_no_message_are_malformed(data: bytes) -> None:
    assert outcome(tensor_bundle_pb2.BundleEntryProto, data) == "MalformedError"
    with pytest.raises(MalformedError):
        wire.check_nesting(data, tensor_bundle_pb2.BundleEntryProto, allowed=100)


@pytest.mark.parametrize(
    "text", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"a\x80"]
)
@pytest.mark.parametrize(
    ("message_type", "wrap"),
    [
        pytest.param(checkpoint_state_pb2.CheckpointState, lambda s: b.field(1, s), id="string"),
        pytest.param(checkpoint_state_pb2.CheckpointState, lambda s: b.field(2, s), id="repeated"),
        pytest.param(attr_value_pb2.AttrValue, lambda s: b.field(9, s), id="oneof"),
        pytest.param(node_def_pb2.NodeDef, lambda s: b.field(5, b.field(1, s)), id="map key"),
    ],
)
def test_strings_that_are_not_utf8_are_malformed(
    message_type: type[Message], wrap: Callable[[bytes], bytes], text: bytes
) -> None:
    assert outcome(message_type, wrap(text)) == "MalformedError"


def test_an_error_says_what_was_expected_and_where() -> None:
    with pytest.raises(MalformedError, match="the object graph") as caught:
        parse_message(
            full_type_pb2.FullTypeDef, b"\x12\x05", path="a/b.index", what="the object graph"
        )
    assert caught.value.path == "a/b.index"
    with pytest.raises(MalformedError, match="FullTypeDef"):
        parse_message(full_type_pb2.FullTypeDef, b"\x12\x05")


def test_a_message_larger_than_the_limit_is_refused() -> None:
    data = b.field(1, 1)
    assert outcome(full_type_pb2.FullTypeDef, data, Limits(message_bytes=2)) == "parsed"
    with pytest.raises(LimitError, match="message_bytes allows 1"):
        parse_message(full_type_pb2.FullTypeDef, data, limits=Limits(message_bytes=1))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_kind_of_buffer_is_parsed(kind: Callable[[bytes], Any]) -> None:
    assert parse_message(full_type_pb2.FullTypeDef, kind(b.field(4, 7))).i == 7


# ---- nesting


@pytest.mark.parametrize(
    ("message_type", "at_limit", "beyond"),
    [
        pytest.param(full_type_pb2.FullTypeDef, full_types(100), full_types(101), id="messages"),
        pytest.param(full_type_pb2.FullTypeDef, groups(100), groups(101), id="groups"),
        pytest.param(
            full_type_pb2.FullTypeDef,
            full_types(60, groups(40)),
            full_types(60, groups(41)),
            id="groups in messages",
        ),
        pytest.param(
            tensor_bundle_pb2.BundleEntryProto,
            b.field(2, groups(99)),
            b.field(2, groups(100)),
            id="groups in what cannot nest",
        ),
        pytest.param(
            struct_pb2.StructuredValue, dicts(33, b.field(1, b"")), dicts(34), id="map entries"
        ),
    ],
)
def test_a_hundred_levels_of_messages_are_the_most(
    message_type: type[Message], at_limit: bytes, beyond: bytes
) -> None:
    # Of groups that it does not know, protobuf 7's pure Python runtime allows one level less.
    at_most = {"parsed"} if COMPILED else {"parsed", "MalformedError"}
    assert outcome(message_type, at_limit) in at_most
    assert outcome(message_type, beyond) == "LimitError"
    assert outcome(message_type, beyond, Limits(nesting=5000)) == "LimitError"


def test_a_lower_limit_of_nesting_counts() -> None:
    limits = Limits(nesting=3)
    padding = b.field(3, b"x" * 50)
    assert outcome(full_type_pb2.FullTypeDef, full_types(3, padding), limits) == "parsed"
    with pytest.raises(LimitError, match="at most 3 deep, found more, in FullTypeDef") as caught:
        parse_message(full_type_pb2.FullTypeDef, full_types(4, padding), limits=limits, path="p")
    assert caught.value.path == "p"
    assert caught.value.limit == "nesting"


def test_the_content_of_unknown_fields_is_no_nesting() -> None:
    assert outcome(tensor_shape_pb2.TensorShapeProto, b.field(9, full_types(500))) == "parsed"


def test_thousands_of_levels_take_no_stack() -> None:
    assert outcome(full_type_pb2.FullTypeDef, full_types(20_000)) == "LimitError"
    assert outcome(full_type_pb2.FullTypeDef, groups(200_000)) == "LimitError"


def test_a_shallow_stack_is_a_limit_not_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_stack(*_: object) -> None:
        raise RecursionError

    class Deep:
        DESCRIPTOR = full_type_pb2.FullTypeDef.DESCRIPTOR
        FromString = staticmethod(out_of_stack)

    with pytest.raises(LimitError, match="stack"):
        parse_message(Deep, b"")  # type: ignore[type-var]


@st.composite
def nested_messages(draw: st.DrawFn) -> bytes:
    """FullTypeDefs around the limit, of messages and groups mixed, some of them damaged."""
    data = draw(st.sampled_from([b"", b.field(4, 1), b.field(3, b"s")]))
    for level in draw(st.lists(st.sampled_from("mmmg"), min_size=90, max_size=110)):
        data = b.field(2, data) if level == "m" else tag(9, START) + data + tag(9, END)
    if draw(st.booleans()):
        damaged = bytearray(data)
        damaged[draw(st.integers(0, len(data) - 1))] ^= 1 << draw(st.integers(0, 7))
        data = bytes(damaged)
    return data


def strings_are_utf8(data: bytes) -> bool:
    messages = [data]
    while messages:
        message = messages.pop()
        for number, kind, first, last in wire.iter_fields(message):
            if (number, kind) == (2, wire.BYTES):
                messages.append(message[first:last])
            elif (number, kind) == (3, wire.BYTES) and not is_utf8(message[first:last]):
                return False
    return True


def is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def passes(check: Callable[[], object]) -> bool:
    return error_of(check) is None


def error_of(check: Callable[[], object]) -> Exception | None:
    try:
        check()
    except Exception as error:  # noqa: BLE001
        return error
    return None


@pytest.mark.skipif(not COMPILED, reason="the pure Python runtime stops nowhere")
@settings(max_examples=400)
@given(nested_messages())
@example(full_types(100))
@example(full_types(101))
@example(tag(9, START) + b"\x00\x05" + tag(9, END))
def test_the_compiled_runtimes_count_levels_as_the_walk_does(data: bytes) -> None:
    """Where it holds, nesting need not be checked before parsing: see `parsing`."""
    parsed = passes(lambda: full_type_pb2.FullTypeDef.FromString(data))
    error = error_of(lambda: wire.check_nesting(data, full_type_pb2.FullTypeDef, allowed=100))
    if error is None:
        assert parsed == strings_are_utf8(data)
    elif parsed:
        # Protobuf 7 lets a field number of zero pass in groups that it does not know.
        assert isinstance(error, MalformedError) and "Expected a field's tag" in error.message


@given(st.binary(max_size=60))
def test_any_bytes_parse_or_raise_an_error_of_ours(data: bytes) -> None:
    for message_type in (graph_pb2.GraphDef, struct_pb2.StructuredValue):
        outcome(message_type, data)


@given(st.text(max_size=60) | st.binary(max_size=60))
@example("s: '\ud800'")
@example("i: " + "1" * 5000)
@example("[type.googleapis.com/x] { }")
@example("args { args < s: 'x' }")
def test_any_text_parses_or_raises_an_error_of_ours(text: str | bytes) -> None:
    try:
        parse_text(full_type_pb2.FullTypeDef, text)
    except CheckpointError as error:
        str(error).encode()  # and its message can be printed


# ---- text


def test_text_is_parsed_from_str_and_from_bytes() -> None:
    for text in ('s: "\u00e9"', 's: "\u00e9"'.encode(), 's: "\\303\\251"'):
        assert parse_text(full_type_pb2.FullTypeDef, text).s == "\u00e9"


def test_of_a_text_field_given_twice_the_last_counts() -> None:
    text = 'model_checkpoint_path: "a" model_checkpoint_path: "b"'
    assert parse_text(checkpoint_state_pb2.CheckpointState, text).model_checkpoint_path == "b"


@pytest.mark.parametrize(
    "text",
    ["zz: 1", 's: "', "i: x", "args {", "}", "s: 1", 's: "\\377"', b's: "\xff"', b"\xff",
     "type_id: NOPE", "i: 99999999999999999999"],
)  # fmt: skip
def test_text_that_is_no_message_is_malformed(text: str | bytes) -> None:
    with pytest.raises(MalformedError, match="the state file") as caught:
        parse_text(full_type_pb2.FullTypeDef, text, path="checkpoint", what="the state file")
    assert caught.value.path == "checkpoint"


def test_an_any_of_an_unknown_type_in_text_is_malformed() -> None:
    text = "meta_info_def { any_info { [type.googleapis.com/a.B] { c: 1 } } }"
    with pytest.raises(MalformedError, match=r"a\.B"):
        parse_text(meta_graph_pb2.MetaGraphDef, text)


@pytest.mark.parametrize(("opening", "closing"), ["{}", "<>"])
def test_a_hundred_levels_of_text_are_the_most(opening: str, closing: str) -> None:
    def nested(depth: int) -> str:
        return f"args {opening} " * depth + closing * depth

    parse_text(full_type_pb2.FullTypeDef, nested(100))
    for depth in (101, 50_000):
        with pytest.raises(LimitError, match="at most 100 deep"):
            parse_text(full_type_pb2.FullTypeDef, nested(depth))
    with pytest.raises(LimitError, match="at most 3 deep"):
        parse_text(full_type_pb2.FullTypeDef, nested(4), limits=Limits(nesting=3))


@pytest.mark.parametrize(
    "text",
    [
        's: "{{{{"',
        "s: '<<<<'",
        "i: 1 # {{{{ <<<<",
        's: "\\"{{{{"',
        "s: '\\'{{{{'",
        "# it's {\ni: 1",
    ],
)
def test_brackets_in_strings_and_comments_are_no_nesting(text: str) -> None:
    parse_text(full_type_pb2.FullTypeDef, text, limits=Limits(nesting=1))


def test_a_string_cannot_hide_nesting() -> None:
    for text in ("s: 'a\\\\' " + "args { " * 5, 's: "a\'" ' + "args { " * 5):
        with pytest.raises(LimitError):
            parse_text(full_type_pb2.FullTypeDef, text, limits=Limits(nesting=4))


def test_text_longer_than_the_limit_is_refused() -> None:
    with pytest.raises(LimitError, match="message_bytes allows 3"):
        parse_text(full_type_pb2.FullTypeDef, "i: 1", limits=Limits(message_bytes=3))


# ---- the wire


def test_fields_are_iterated_in_order_with_their_places() -> None:
    data = b.field(1, 300) + b.field64(2, 1) + b.field(3, b"ab") + b.field32(4, 1)
    data += tag(5, START) + b.field(1, b"x") + tag(5, START) + tag(5, END) + tag(5, END)
    data += b.field(1000, 0)
    fields = [
        (number, kind, data[first:last]) for number, kind, first, last in wire.iter_fields(data)
    ]
    assert fields == [
        (1, wire.VARINT, b"\xac\x02"),
        (2, wire.FIXED64, b"\x01" + bytes(7)),
        (3, wire.BYTES, b"ab"),
        (4, wire.FIXED32, b"\x01\x00\x00\x00"),
        (5, wire.GROUP, b"\x0a\x01x\x2b\x2c"),
        (1000, wire.VARINT, b"\x00"),
    ]


def test_a_part_of_a_buffer_is_iterated_alone() -> None:
    data = b.field(1, 1) + b.field(2, 2) + b.field(3, 3)
    assert [number for number, *_ in wire.iter_fields(data, 2, 4)] == [2]
    with pytest.raises(MalformedError, match="cut off"):
        list(wire.iter_fields(data, 2, 3))


def test_groups_beyond_the_limit_are_not_iterated() -> None:
    assert len(list(wire.iter_fields(groups(100)))) == 1
    with pytest.raises(LimitError, match="at most 100 deep"):
        list(wire.iter_fields(groups(101)))


def test_a_submessage_is_found_by_its_path() -> None:
    data = b.field(1, b"no") + b.field(2, b.field(1, 5) + b.field(3, b"yes"))
    found = wire.find_submessage(data, 2, 3)
    assert found is not None
    assert bytes(found) == b"yes"
    assert wire.find_submessage(data, 2, 1) is None  # a varint is no submessage
    assert wire.find_submessage(data, 7, 1) is None


def test_a_submessage_given_twice_is_merged() -> None:
    data = b.field(2, b.field(1, 1)) + b.field(9, 9) + b.field(2, b.field(2, 2))
    found = wire.find_submessage(data, 2)
    assert found == b.field(1, 1) + b.field(2, 2)


@given(st.integers(0, (1 << 64) - 1), st.integers(0, 10))
def test_a_varint_is_read_in_any_width(value: int, width: int) -> None:
    data = b.varint(value, width=width)
    assert wire.read_varint(b"\xff" + data + b"\x01", 1, len(data) + 1) == (value, len(data) + 1)


def test_bits_of_a_varint_beyond_the_64th_are_dropped() -> None:
    assert wire.read_varint(b"\xff" * 9 + b"\x7f", 0, 10) == ((1 << 64) - 1, 10)
