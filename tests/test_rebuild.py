"""A lost index, rebuilt: layouts from graphs, siblings and shapes, laid over the data files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import builder
import numpy as np
import pytest
from google.protobuf import text_format
from index_encoding import encode_index, entries_of

import ckptparse
from ckptparse.dtypes import DataType
from ckptparse.errors import MalformedError
from ckptparse.files.memory import MemorySource
from ckptparse.graph.graph import Graph
from ckptparse.proto.meta_graph_pb2 import MetaGraphDef
from ckptparse.recovery.rebuild.counted import (
    count_strings,
    find_last_string,
    measure_strings,
    measure_variants,
)
from ckptparse.recovery.rebuild.fit import Fit, fit_layout
from ckptparse.recovery.rebuild.graphs import iter_layouts
from ckptparse.recovery.rebuild.layout import Layout, Payload, Rule, parse_slice_spec
from ckptparse.recovery.rebuild.shape_files import parse_shapes_text
from ckptparse.recovery.rebuild.shapes import (
    GivenTensor,
    KeyName,
    layouts_of_shapes,
    parse_shapes,
)
from ckptparse.slices import Extent, TensorSlice

FLOAT, INT64, STRING = DataType.DT_FLOAT, DataType.DT_INT64, DataType.DT_STRING

SAVED_MODELS = [
    "keras2_functional/model",
    "keras2_preprocessing/model",
    "keras2_sequential/model",
    "keras2_subclassed/model",
    "keras3_archive/model",
    "keras3_export/model",
    "module/model",
    "no_variables_tf2/model",
    "tf1_partitioned/model",
    "tf1_text/model",
    "tf1_two_meta_graphs/model",
]


def data_files(prefix: Path) -> list[MemorySource]:
    paths = sorted(prefix.parent.glob(f"{prefix.name}.data-*"))
    return [MemorySource(str(path), path.read_bytes()) for path in paths]


def check_against_index(fit: Fit, prefix: Path) -> None:
    """Compare the rebuilt index with the real one, byte for byte."""
    sources = data_files(prefix)
    index = encode_index(entries_of(fit, sources), len(sources))
    assert index == prefix.with_name(f"{prefix.name}.index").read_bytes()


# ---------------------------------------------------------------------------------------- graphs


def test_a_meta_graph_gives_the_index_of_a_sharded_partitioned_save(fixtures: Path) -> None:
    prefix = fixtures / "graphs" / "saver_to_rebuild" / "model"
    graph = Graph.from_meta_graph(prefix.with_suffix(".meta").read_bytes())
    (layout,) = iter_layouts([graph], "model.meta")
    fit = fit_layout(layout, data_files(prefix))
    assert fit is not None and fit.solved == 0 and layout.rule is Rule.SAVER
    check_against_index(fit, prefix)


def saved_model_directories(fixtures: Path) -> dict[str, Path]:
    found = (fixtures / "saved_model").glob("*/**/variables")
    return {path.parent.relative_to(fixtures / "saved_model").parts[0]: path for path in found}


@pytest.mark.parametrize("case", [name.partition("/")[0] for name in SAVED_MODELS])
def test_a_saved_model_gives_the_index_of_its_variables(case: str, fixtures: Path) -> None:
    variables = saved_model_directories(fixtures)[case]
    prefix = variables / "variables"
    with ckptparse.open_saved_model(variables.parent) as model:
        layouts = list(iter_layouts([meta.graph for meta in model.meta_graphs], "saved_model.pb"))
        fits = [fit_layout(layout, data_files(prefix)) for layout in layouts]
    exact = [fit for fit in fits if fit is not None]
    assert exact
    check_against_index(max(exact, key=lambda fit: len(fit.placed)), prefix)


def test_a_layout_that_leaves_or_lacks_a_byte_does_not_fit() -> None:
    layout = Layout(((Payload("a", FLOAT, (4,)),),), Rule.SAVER, "")
    assert fit_layout(layout, [MemorySource("x", bytes(16))]) is not None
    assert fit_layout(layout, [MemorySource("x", bytes(17))]) is None
    assert fit_layout(layout, [MemorySource("x", bytes(15))]) is None
    assert fit_layout(layout, [MemorySource("x", bytes(16)), MemorySource("y", b"")]) is None


def test_one_unknown_dimension_is_what_the_others_leave() -> None:
    payloads = (
        Payload("a", FLOAT, (4,)),
        Payload("t", FLOAT, (None, 3)),
        Payload("z", INT64, ()),
    )
    fit = fit_layout(Layout((payloads,), Rule.SAVER, ""), [MemorySource("x", bytes(16 + 60 + 8))])
    assert fit is not None and fit.solved == 1
    assert [(one.offset, one.payload.shape) for one in fit.placed] == [
        (0, (4,)),
        (16, (5, 3)),
        (76, ()),
    ]
    assert fit_layout(Layout((payloads,), Rule.SAVER, ""), [MemorySource("x", bytes(88))]) is None


def test_keys_and_values_of_a_table_have_as_many_rows() -> None:
    payloads = (
        Payload("t-keys", INT64, None, shared_count="t"),
        Payload("t-values", FLOAT, None, shared_count="t"),
    )
    fit = fit_layout(Layout((payloads,), Rule.SAVER, ""), [MemorySource("x", bytes(12 * 7))])
    assert fit is not None and [one.payload.shape for one in fit.placed] == [(7,), (7,)]


def test_two_unknown_sizes_beside_each_other_are_not_guessed() -> None:
    payloads = (Payload("a", FLOAT, None), Payload("b", FLOAT, None))
    assert fit_layout(Layout((payloads,), Rule.SAVER, ""), [MemorySource("x", bytes(16))]) is None


@pytest.mark.parametrize("shape", [None, (2,)])
def test_strings_between_tensors_of_unknown_sizes_divide_the_bytes(
    shape: tuple[int, ...] | None,
) -> None:
    rng = np.random.default_rng(4)
    arrays = {
        "a": rng.normal(0, 0.05, 700).astype("<f4"),
        "b": np.array([b"first words", b"and others"], object),
        "c": np.arange(4, dtype="<i8"),
        "d": rng.normal(0, 0.05, 900).astype("<f4"),
    }
    made = builder.Bundle()
    for name, array in arrays.items():
        made.add(name, array)
    source = MemorySource("x", bytes(made.shards[0]))
    known = {"b": Payload("b", STRING, shape), "c": Payload("c", INT64, (4,))}
    unknown = {name: Payload(name, FLOAT, None) for name in arrays}
    payloads = tuple(known.get(name, unknown[name]) for name in arrays)
    fit = fit_layout(Layout((payloads,), Rule.SAVER, ""), [source])
    assert fit is not None and fit.solved == 2
    assert [one.payload.shape for one in fit.placed] == [(700,), (2,), (4,), (900,)]
    fit = fit_layout(Layout((payloads[:2],), Rule.SAVER, ""), [cut(source, fit.placed[2].offset)])
    assert fit is not None and [one.payload.shape for one in fit.placed] == [(700,), (2,)]
    assert fit_layout(Layout(((*payloads, payloads[0]),), Rule.SAVER, ""), [source]) is None


def cut(source: MemorySource, size: int) -> MemorySource:
    return MemorySource(source.path, source.read_at(0, size))


def test_strings_of_unknown_number_end_where_their_lengths_have_their_checksum() -> None:
    words, _ = builder.string_payload([b"one", b"", b"three" * 50])
    data = words + bytes(8)
    payloads = (Payload("words", STRING, (None,)), Payload("step", INT64, ()))
    fit = fit_layout(Layout((payloads,), Rule.SAVER, ""), [MemorySource("x", data)])
    assert fit is not None and fit.anchors == 1
    assert fit.placed[0].payload.shape == (3,) and fit.placed[0].size == len(words)


# ----------------------------------------------------------------------------------- strings


def test_measured_strings_have_the_checksum_of_their_entry() -> None:
    words, crc = builder.string_payload([b"one", b"", b"x" * 300])
    source = MemorySource("x", b"abc" + words + b"more")
    counted = measure_strings(source, 3, 3)
    assert counted is not None and (counted.size, builder.mask(counted.crc)) == (len(words), crc)
    assert count_strings(source, 3, 1000) == counted
    assert measure_strings(source, 2, 3) is None and measure_strings(source, 3, 2) is None


def test_the_last_string_of_a_file_is_found_by_the_checksum_of_its_length() -> None:
    rng = np.random.default_rng(0)
    for size in (0, 1, 127, 128, 20_000, 3 << 20):
        head = rng.bytes(int(rng.integers(0, 5000)))
        text, _ = builder.string_payload([rng.bytes(size)])
        assert find_last_string(MemorySource("x", head + text)) == len(head)


def test_a_thousand_files_without_a_string_at_their_end_have_none() -> None:
    rng = np.random.default_rng(1)
    for _ in range(1000):
        assert find_last_string(MemorySource("x", rng.bytes(int(rng.integers(0, 4000))))) is None


def test_a_thousand_random_places_are_no_strings_and_no_variants() -> None:
    rng = np.random.default_rng(2)
    for _ in range(1000):
        source = MemorySource("x", rng.bytes(400))
        offset = int(rng.integers(0, 399))
        assert count_strings(source, offset, 400) is None
        assert measure_strings(source, offset, int(rng.integers(1, 9))) is None
        assert measure_variants(source, offset, int(rng.integers(1, 9))) is None


def test_measured_variants_have_the_checksum_of_their_entry() -> None:
    elements = [builder.variant_proto("tensorflow::Iterator", b"x" * n) for n in (0, 5, 300)]
    payload, crc = builder.variant_payload(elements)
    source = MemorySource("x", b"ab" + payload)
    counted = measure_variants(source, 2, 3)
    assert counted is not None and (counted.size, builder.mask(counted.crc)) == (len(payload), crc)
    assert measure_variants(source, 2, 4) is None


# ------------------------------------------------------------------------------------- slices


def test_the_text_of_a_slice_is_parsed() -> None:
    piece = TensorSlice((Extent(0, 2), Extent()))
    assert parse_slice_spec("6 3 0,2:-") == ((6, 3), piece)


@pytest.mark.parametrize(
    "spec", ["", "6 3", "6 3 0,2", "6 3 0,2:-:-", "x 3 0,2:-", "6 3 0:-", "6  3 0,2:-"]
)
def test_what_is_no_slice_is_refused(spec: str) -> None:
    with pytest.raises(MalformedError, match="Expected a shape and a slice"):
        parse_slice_spec(spec)


# ------------------------------------------------------------------------------------- shapes


def test_shapes_are_taken_over_in_every_notation() -> None:
    given = parse_shapes(
        {
            "a": [2, 3],
            "b": (),
            "c": np.zeros((4, 1), np.float16),
            "d": {"dtype": "BF16", "shape": [5], "data_offsets": [0, 10]},
            "e": {"shape": [1], "dtype": "bool"},
            "__metadata__": {"format": "tf"},
        }
    )
    assert given == [
        GivenTensor("a", None, (2, 3)),
        GivenTensor("b", None, ()),
        GivenTensor("c", DataType.DT_HALF, (4, 1)),
        GivenTensor("d", DataType.DT_BFLOAT16, (5,)),
        GivenTensor("e", DataType.DT_BOOL, (1,)),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "{",
        '{"a": "b"}',
        '{"a": [1, -2]}',
        '{"a": {"shape": [1], "dtype": "x"}}',
        '{"a": 3}',
    ],
)
def test_what_is_no_shape_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_shapes_text(text)


def test_given_shapes_are_tried_in_the_order_of_names_then_as_given() -> None:
    given = parse_shapes_text(json.dumps({"w": [3], "b": [2], "global_step": []}))
    layouts = list(layouts_of_shapes(given, [28]))
    assert [(layout.rule, layout.names) for layout in layouts] == [
        (Rule.SORTED_NAMES, ("b", "global_step", "w")),
        (Rule.GIVEN_ORDER, ("w", "b", "global_step")),
    ]
    assert all(fit_layout(layout, [MemorySource("x", bytes(28))]) for layout in layouts)


def test_given_shapes_fill_one_data_file_after_another() -> None:
    given = parse_shapes({"a": [3], "b": [2], "c": [4]})
    (layout,) = layouts_of_shapes(given, [20, 16])
    assert [[payload.name for payload in shard] for shard in layout.shards] == [["a", "b"], ["c"]]
    assert list(layouts_of_shapes(given, [16, 20])) == []


def test_an_object_graph_gives_order_and_keys_and_the_caller_the_shapes() -> None:
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    keys = [
        KeyName(f"model/kernel{suffix}", "dense/kernel"),
        KeyName(f"model/bias{suffix}", "dense/bias"),
        KeyName(f"save_counter{suffix}", "save_counter"),
    ]
    given = parse_shapes({"dense/bias": [2], "model/kernel": [3, 2]})
    layout = next(layouts_of_shapes(given, [0], keys))
    assert layout.rule is Rule.OBJECT_GRAPH
    text, _ = builder.string_payload([b"graph"])
    fit = fit_layout(layout, [MemorySource("x", bytes(24 + 8 + 8) + text)])
    assert fit is not None
    assert [(one.payload.name, one.offset) for one in fit.placed] == [
        (keys[0].key, 0),
        (keys[1].key, 24),
        (keys[2].key, 32),
        (builder.OBJECT_GRAPH, 40),
    ]


@pytest.mark.parametrize("where", ["beside", "named"])
def test_a_graph_in_text_gives_the_lost_index(where: str, fixtures: Path, tmp_path: Path) -> None:
    original = fixtures / "graphs" / "saver_to_rebuild"
    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir()
    other.mkdir()
    for path in original.glob("model.data-*"):
        (run / path.name).write_bytes(path.read_bytes())
    meta = MetaGraphDef.FromString((original / "model.meta").read_bytes())
    # An Estimator writes the graph alone, under this name.
    text = (run if where == "beside" else other) / "graph.pbtxt"
    text.write_text(text_format.MessageToString(meta.graph_def), encoding="utf-8")
    evidence = [] if where == "beside" else [str(text)]
    recovery = ckptparse.recover(str(run / "model"), evidence=evidence)
    whole = ckptparse.read(str(original / "model"))
    assert set(recovery) == set(whole)
    for name, tensor in recovery.items():
        assert str(tensor.evidence[0].rule) == "save op"
        assert tensor.evidence[0].path == str(text)
        assert np.array_equal(tensor.read(), whole[name])


def test_a_saved_model_in_text_gives_the_index_of_its_variables(
    fixtures: Path, tmp_path: Path
) -> None:
    original = fixtures / "saved_model" / "tf1_text"
    shutil.copytree(original, tmp_path / "m")
    (tmp_path / "m" / "variables" / "variables.index").unlink()
    recovery = ckptparse.recover(str(tmp_path / "m"))
    whole = ckptparse.read(str(original))
    assert set(recovery) == set(whole)
    assert all(np.array_equal(recovery[name].read(), value) for name, value in whole.items())


def test_damaged_lengths_of_strings_do_not_hide_the_other_tensors(tmp_path: Path) -> None:
    arrays = {
        "a": np.arange(600, dtype=np.float32),
        "words": np.array([b"one", b"three", b"fifteen"], object),
        "z": np.arange(300, dtype=np.int32),
    }
    for name in ("lost", "older"):
        made = builder.Bundle()
        for key, array in arrays.items():
            made.add(key, array)
        made.write(tmp_path / name)
    (tmp_path / "lost.index").unlink()
    data = bytearray((tmp_path / "lost.data-00000-of-00001").read_bytes())
    data[2400:2403] = bytes(3)  # the lengths
    (tmp_path / "lost.data-00000-of-00001").write_bytes(data)
    recovery = ckptparse.recover(tmp_path / "lost")
    for name in ("a", "z"):
        assert recovery[name].status == "unverified"
        assert (recovery[name].read() == arrays[name]).all()
