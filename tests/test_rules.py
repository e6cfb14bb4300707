"""Rules: what becomes of names, by functions, mappings, expressions and rule files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptparse

ONE = np.float32([[1, 2]])


def renamed(values: dict[str, Any], tmp_path: Path, rename: Any, **options: Any) -> dict[str, Any]:
    source = tmp_path / "in"
    source.mkdir(exist_ok=True)
    prefix = ckptparse.write(source / "m", values, overwrite=True)
    done = ckptparse.convert(prefix, tmp_path / "x.npz", rename=rename, dry_run=True, **options)
    return {row.old: row.new for row in done.rows}


def test_a_function_renames_and_drops(tmp_path: Path) -> None:
    found = renamed({"a": ONE, "b": ONE}, tmp_path, lambda n: None if n == "a" else n.upper())
    assert found == {"a": None, "b": "B"}


def test_a_mapping_leaves_what_it_does_not_name(tmp_path: Path) -> None:
    assert renamed({"a": ONE, "b": ONE}, tmp_path, {"a": "c"}) == {"a": "c", "b": "b"}


def test_names_of_a_mapping_that_no_tensor_has_are_warned_of(tmp_path: Path) -> None:
    source = ckptparse.write(tmp_path / "m", {"a": ONE, "w": ONE, "w/Momentum": ONE})
    names = {"a": "a", "w": "v", "w/Momentum": "m", "nix": "x", "w:0": None}
    (warning,) = ckptparse.convert(
        source, tmp_path / "x.npz", rename=names, drop_slots=True, dry_run=True
    ).warnings
    assert warning == "rename has 2 names of no tensor: nix, w:0"


def test_expressions_are_applied_one_after_another(tmp_path: Path) -> None:
    rules = [(r"layer_(\d+)", r"layer.\1"), ("/", "."), (r"\.kernel$", ".weight")]
    assert renamed({"x/layer_12/kernel": ONE}, tmp_path, rules) == {
        "x/layer_12/kernel": "x.layer.12.weight"
    }


@pytest.mark.parametrize("pattern", ["a{99999999999999999999}", "(" * 9000 + ")" * 9000])
def test_an_expression_that_python_cannot_hold_is_malformed(pattern: str, tmp_path: Path) -> None:
    with pytest.raises(ckptparse.MalformedError, match="Bad regular expression"):
        renamed({"a": ONE}, tmp_path, [(pattern, "x")])


def test_an_expression_that_may_change_its_meaning_gives_no_warning(tmp_path: Path) -> None:
    assert renamed({"a": ONE}, tmp_path, [("[[a]", "x")]) == {"a": "x"}


@pytest.mark.parametrize("replacement", [r"\9", r"\g<x>", "\\"])
def test_a_replacement_that_names_no_group_is_malformed(replacement: str, tmp_path: Path) -> None:
    with pytest.raises(ckptparse.MalformedError, match="Bad replacement"):
        renamed({"a": ONE}, tmp_path, [("a", replacement)])


def test_a_bad_expression_is_named(tmp_path: Path) -> None:
    with pytest.raises(ckptparse.DataLossError, match=r"\('"):
        renamed({"a": ONE}, tmp_path, [("(", "x")])


needs_toml = pytest.mark.skipif(sys.version_info < (3, 11), reason="Python reads TOML from 3.11 on")


@needs_toml
def test_a_rule_file_renames_drops_turns_and_cuts(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(
        "drop = ['_slot$']\ndtype = 'float16'\n"
        "[[rename]]\npattern = '/'\nreplacement = '.'\n"
        "[[transpose]]\npattern = '/kernel$'\naxes = [1, 0]\n"
        "[[split]]\npattern = 'qk(?=/)'\nnames = ['q', 'k']\n"
    )
    values = {"a/qk/kernel": np.float32([[1, 2, 3, 4]]), "a/m_slot": ONE}
    assert set(renamed(values, tmp_path, rules).values()) == {"a.k.kernel", None}
    done = ckptparse.convert(tmp_path / "in" / "m", tmp_path / "x.npz", rename=rules)
    assert [(row.new, row.shape, row.dtype) for row in done.kept] == [
        ("a.q.kernel", (2, 1), "float16"),
        ("a.k.kernel", (2, 1), "float16"),
    ]
    with np.load(tmp_path / "x.npz") as found:
        assert found["a.k.kernel"].tolist() == [[3], [4]]


@needs_toml
@pytest.mark.parametrize(
    "text",
    [
        "= 1",
        "unknown = 1",
        "drop = 'x'",
        "drop = ['(']",
        "rename = 1",
        "[[rename]]\npattern = 'x'",
        "[[transpose]]\npattern = 'x'\naxes = [0, 2]",
        "[[transpose]]\npattern = 'x'\naxes = ['0', '1']",
        "[[transpose]]\npattern = 'x'\naxes = [false, true]",
        "[[split]]\npattern = 'x'\nnames = []",
        "dtype = 3",
        "dtype = 'int32'",
        "layout = 'x'",
    ],
)
def test_a_broken_rule_file_is_one_of_our_errors(text: str, tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(text)
    with pytest.raises(ckptparse.DataLossError) as caught:
        renamed({"a": ONE}, tmp_path, tmp_path / "rules.toml")
    assert caught.value.path == str(tmp_path / "rules.toml")


@needs_toml
def test_a_rule_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ckptparse.CheckpointNotFoundError):
        renamed({"a": ONE}, tmp_path, tmp_path / "none.toml")


@needs_toml
@pytest.mark.parametrize("name", ["bert", "albert", "electra", "t5"])
def test_a_rule_file_comes_along_and_is_found_by_its_name(name: str, tmp_path: Path) -> None:
    assert renamed({"x/kernel": ONE}, tmp_path, name)["x/kernel"].startswith("x.")


@needs_toml
def test_seven_names_of_bert_are_those_of_transformers(tmp_path: Path) -> None:
    names = {
        "bert/embeddings/word_embeddings": "bert.embeddings.word_embeddings.weight",
        "bert/encoder/layer_11/attention/self/query/kernel": (
            "bert.encoder.layer.11.attention.self.query.weight"
        ),
        "bert/encoder/layer_0/output/LayerNorm/gamma": (
            "bert.encoder.layer.0.output.LayerNorm.weight"
        ),
        "cls/predictions/output_bias": "cls.predictions.bias",
        "cls/seq_relationship/output_weights": "cls.seq_relationship.weight",
        "bert/pooler/dense/kernel/adam_m": None,
        "global_step": None,
    }
    assert renamed(dict.fromkeys(names, ONE), tmp_path, "bert") == names
