"""Text as protobuf prints it is parsed apart from protobuf's parser, to the same message."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google.protobuf
import pytest
from google.protobuf import text_format
from google.protobuf.message import Message
from hypothesis import example, given, settings
from hypothesis import strategies as st

import ckptparse
from ckptparse.errors import LimitError, MalformedError
from ckptparse.limits import Limits
from ckptparse.proto import fingerprint_pb2, full_type_pb2, graph_pb2, parsing, plain_text
from ckptparse.proto.meta_graph_pb2 import MetaGraphDef
from ckptparse.proto.parsing import parse_text
from ckptparse.proto.plain_text import find_plain
from ckptparse.proto.saved_model_pb2 import SavedModel
from ckptparse.proto.struct_pb2 import StructuredValue

pytestmark = pytest.mark.proto

FIXTURES = Path(__file__).parents[1] / "fixtures"
TEXTS = {
    "graphs/frozen_tf1/frozen.pbtxt": graph_pb2.GraphDef,
    "graphs/meta_graph/without_variables.meta.pbtxt": MetaGraphDef,
    "saved_model/tf1_text/saved_model.pbtxt": SavedModel,
}
GRAPH = """
node {
  name: "a/b"
  op: "Const"
  input: "^c"
  attr {
    key: "value"
    value {
      tensor {
        dtype: DT_FLOAT
        tensor_shape { dim { size: -1 name: "n" } unknown_rank: true }
        tensor_content: "\\000\\377\\n\\t\\"\\'\\\\ab"
        float_val: 1.5 float_val: -0.0 float_val: 1e+30 float_val: inf float_val: nan
        double_val: -1e-300 int_val: -2147483648 int64_val: 9223372036854775807
        uint64_val: 18446744073709551615 bool_val: true bool_val: false half_val: 0x10
      }
    }
  }
}
# a comment { "
versions: { producer: 21 min_consumer: 0 }
"""
PIECES = [
    *'{}<>[]:;,#"\\\'\n \t-+.0179exfnN_',
    "name", "op", "node", "input", "attr", "key", "value", "i: 1", "b: true", "f: nan", "s: ''",
    "type: DT_INT8", "type: 1", "list", "tensor", "shape { }", "dtype: DT_FLOAT", "int_val: 010",
    "float_val: 01", "float_val: 1.0f", "float_val: 1e999", "float_val: 1e39", "float_val: -inf",
    "float_val: infinity", "float_val: 1_0", "int_val: 1_0", "int_val: 2147483648", "\\x4",
    "\\400", "\\u00e9", "\\8", "é", "\x85", "\u2028", "\r", "unknown: 1", "NODE { }",
    'op: "a" "b"', "i:\n1", "name:\n", 'op:"a"i:1', "true.5", "- 1", "[a.b] { }",
]  # fmt: skip


def parsed(message_type: type[Message], text: str) -> Message | None:
    """What protobuf's own parser gives, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return text_format.Merge(parsing._ESCAPED.sub(parsing._double, text), message_type())
    except (text_format.ParseError, ValueError, KeyError):
        return None


def find(message_type: type[Message], text: str) -> Message | None:
    return find_plain(message_type, text, nesting=100)


def same(one: Message | None, other: Message | None) -> bool:
    if one is None or other is None:
        return one is other
    # Of a NaN the bytes are compared: it is no other's equal.
    return one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)


@pytest.mark.parametrize("name", TEXTS)
def test_texts_that_tensorflow_wrote_are_parsed_so(name: str) -> None:
    text = (FIXTURES / name).read_text()
    found = find(TEXTS[name], text)
    assert found is not None
    assert same(found, parsed(TEXTS[name], text))


def test_every_kind_of_value_is_parsed_so() -> None:
    found = find(graph_pb2.GraphDef, GRAPH)
    assert isinstance(found, graph_pb2.GraphDef)
    tensor = found.node[0].attr["value"].tensor
    assert tensor.tensor_content == b"\0\xff\n\t\"'\\ab"
    assert math.isnan(tensor.float_val[4])
    assert same(found, parsed(graph_pb2.GraphDef, GRAPH))
    text = "saved_model_checksum: 18446744073709551615 version { producer: 1 }"
    found = find(fingerprint_pb2.FingerprintDef, text)
    assert found is not None
    assert same(found, parsed(fingerprint_pb2.FingerprintDef, text))


def made(message: Any, chance: random.Random, depth: int = 0) -> Any:
    """Set fields of every type at random."""
    for field in message.DESCRIPTOR.fields:
        if chance.random() > (0.4 if depth else 0.9):
            continue
        held = getattr(message, field.name)
        if field.message_type is None:
            value = made_value(field, chance)
            if hasattr(held, "insert"):
                held.extend([value] * chance.randrange(3))
            else:
                setattr(message, field.name, value)
        elif depth <= 3 and not field.message_type.full_name.startswith("google."):
            made_inside(held, field, chance, depth)
    return message


def made_inside(held: Any, field: Any, chance: random.Random, depth: int) -> None:
    if field.message_type.GetOptions().map_entry:
        made_entry(held, field.message_type.fields_by_name, chance, depth)
    elif hasattr(held, "insert") or hasattr(held, "add"):
        for _ in range(chance.randrange(3)):
            made(held.add(), chance, depth + 1)
    else:
        held.SetInParent()
        made(held, chance, depth + 1)


def made_entry(held: Any, kinds: Any, chance: random.Random, depth: int) -> None:
    key = made_value(kinds["key"], chance)
    if kinds["value"].message_type is None:
        held[key] = made_value(kinds["value"], chance)
    else:
        made(held[key], chance, depth + 1)


def made_value(field: Any, chance: random.Random) -> Any:
    if field.type == field.TYPE_BYTES:
        return chance.randbytes(4)
    if field.enum_type is not None:
        return chance.choice(field.enum_type.values).number
    return {
        field.CPPTYPE_STRING: chance.choice(["", "a", "a/b:0", "é\n\u2028", 'q"\\', "\x00\x7f"]),
        field.CPPTYPE_BOOL: chance.random() < 0.5,
        field.CPPTYPE_FLOAT: chance.choice([0.0, -1.5, 3e38, math.inf, math.nan, 0.1]),
        field.CPPTYPE_DOUBLE: chance.choice([0.0, -1.5, 1e300, -math.inf, math.nan, 0.1]),
    }.get(field.cpp_type, chance.randrange(100))


PRINTERS: list[Callable[[Message], str]] = [
    text_format.MessageToString,
    lambda message: text_format.MessageToString(message, as_utf8=True),
    lambda message: text_format.MessageToString(message, as_one_line=True),
]
if not google.protobuf.__version__.startswith("5."):
    # There it leaves quotes and backslashes in bytes as they are.
    PRINTERS.append(str)


@pytest.mark.parametrize(
    "number", [0, 1, -1, 69, (1 << 63) - 1, -(1 << 63), 1 << 63, -(1 << 63) - 1]
)
def test_signed_numbers_are_parsed_so(number: int) -> None:
    text = f"int64_value: {number}"
    found, known = find(StructuredValue, text), parsed(StructuredValue, text)
    assert (found is None) == (not -(1 << 63) <= number < 1 << 63)
    assert same(found, known)


@given(st.integers(0, 1 << 32), st.sampled_from([MetaGraphDef, SavedModel, graph_pb2.GraphDef]))
@settings(max_examples=40, deadline=None)
def test_whatever_protobuf_prints_is_parsed_so(seed: int, message_type: type[Message]) -> None:
    message = made(message_type(), random.Random(seed))
    for show in PRINTERS:
        text = show(message)
        found = find(message_type, text)
        assert found is not None, text
        assert same(found, parsed(message_type, text))


@given(st.lists(st.tuples(st.integers(0, len(GRAPH)), st.integers(0, 3), st.sampled_from(PIECES))))
@example([(12, 0, '"x" ')])
@settings(max_examples=300, deadline=None)
def test_changed_text_is_parsed_to_the_same_or_left(
    changes: list[tuple[int, int, str]],
) -> None:
    text = GRAPH
    for place, removed, piece in changes[:4]:
        text = text[:place] + piece + text[place + removed :]
    found = find(graph_pb2.GraphDef, text)
    assert found is None or same(found, parsed(graph_pb2.GraphDef, text)), text


@given(st.lists(st.sampled_from([*PIECES, "type: ", 's: "', '" ', "args { "]), max_size=12))
@settings(max_examples=300, deadline=None)
def test_pieces_of_text_are_parsed_to_the_same_or_left(pieces: list[str]) -> None:
    text = "".join(pieces)
    for message_type in (full_type_pb2.FullTypeDef, graph_pb2.GraphDef):
        found = find(message_type, text)
        assert found is None or same(found, parsed(message_type, text)), text


@pytest.mark.parametrize(
    "text",
    [
        'node { attr { key: "a" value { i: 1 } } attr { key: "a" value { s: "x" } } }',
        'node { attr { key: "a" value { shape { dim { size: 1 } } tensor { } shape { } } } }',
        'node { attr { value { i: 1 } value { f: 2 } key: "b" key: "a" } attr { } }',
        'node { attr { key: "a" value { func { name: "f" } func { attr { key: "x" } } } } }',
        "versions { producer: 1 } versions { min_consumer: 2 } version: 1 version: 2",
    ],
)
def test_fields_that_are_given_twice_merge_as_protobuf_merges_them(text: str) -> None:
    found = find(graph_pb2.GraphDef, text)
    assert found is not None
    assert same(found, parsed(graph_pb2.GraphDef, text))


@pytest.mark.parametrize(
    "text", ["node <>", "node [{}]", 'node { name: "a" "b" }', "node { name: 'a' }", "node {};"]
)
def test_text_of_another_form_is_left_to_protobuf(text: str) -> None:
    assert find(graph_pb2.GraphDef, text) is None
    assert same(parse_text(graph_pb2.GraphDef, text), parsed(graph_pb2.GraphDef, text))


def test_printed_text_costs_protobufs_parser_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    meta = MetaGraphDef()
    text_format.Merge(GRAPH, meta.graph_def)
    text = text_format.MessageToString(meta)
    monkeypatch.setattr(text_format, "Merge", None)
    assert parse_text(MetaGraphDef, text * 100).graph_def.node


def test_text_of_another_form_is_bounded_and_says_so() -> None:
    short, long = "node {};" * (1 << 12), "node {};" * (1 << 16)
    assert (
        len(parse_text(graph_pb2.GraphDef, short, limits=Limits(text_bytes=1 << 20)).node) == 4096
    )
    with pytest.raises(LimitError, match="form that protobuf prints is 524288") as caught:
        parse_text(graph_pb2.GraphDef, long)
    assert caught.value.limit == "text_bytes"
    assert parse_text(graph_pb2.GraphDef, long, limits=Limits(text_bytes=1 << 26)).node
    # What is wrong early in a long text is told.
    with pytest.raises(LimitError, match="nested at most"):
        parse_text(graph_pb2.GraphDef, "node <" * (1 << 20))


def test_wrong_text_has_protobufs_reason() -> None:
    with pytest.raises(MalformedError, match='no field named "zz"'):
        parse_text(graph_pb2.GraphDef, "zz: 1")


def test_a_graph_in_printed_text_has_the_nodes_of_its_binary_form() -> None:
    text = ckptparse.open_graph(FIXTURES / "graphs/frozen_tf1/frozen.pbtxt")
    binary = ckptparse.open_graph(FIXTURES / "graphs/frozen_tf1/frozen.pb")
    assert list(text.nodes) == list(binary.nodes)


@pytest.mark.parametrize("field", ["node{}", "node{#\n}", "library{}versions{producer:1}"])
def test_text_of_very_many_small_fields_is_refused_before_it_is_parsed(
    field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = sum(map(field.count, ":{#"))
    most = -(-(1 << 16) // marks)
    parsed = []
    find_plain = plain_text.find_plain

    def look(*args: Any, **options: Any) -> Any:
        parsed.append(args)
        return find_plain(*args, **options)

    monkeypatch.setattr(plain_text, "find_plain", look)
    limits = Limits(text_bytes=1 << 24)
    with pytest.raises(LimitError, match="fields") as caught:
        parse_text(graph_pb2.GraphDef, field * 4 * most, limits=limits)
    assert caught.value.limit == "text_bytes"
    assert not parsed
    parse_text(graph_pb2.GraphDef, field * (most - 1), limits=limits)
    parse_text(graph_pb2.GraphDef, field * (most - 1) + " " * 2000 + field, limits=limits)
