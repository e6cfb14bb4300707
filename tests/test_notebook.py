"""How values show in a notebook: small tables, no scripts, nothing read, nothing raised."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import ckptparse

HOSTILE = "<script>alert(1)</script>\"'&\u202e\x1b[31m\n"


def rows_of(shown: str) -> int:
    return shown.count("<tr>")


def assert_harmless(shown: str) -> None:
    tags = set(re.findall(r"</?([a-zA-Z]+)", shown))
    assert tags <= {"div", "p", "b", "br", "table", "thead", "tbody", "tr", "th", "td"}
    assert not re.search(r"\son\w+=|javascript:|[\x00-\x1f\u202e]", shown)
    assert rows_of(shown) <= 202


@pytest.fixture
def many(tmp_path: Path) -> Path:
    values = {f"layer_{number}/w": np.zeros(2, np.float32) for number in range(500)}
    ckptparse.write(tmp_path / "m", values | {HOSTILE: np.zeros(3, np.float32)})
    return tmp_path / "m"


def test_a_checkpoint_shows_its_first_tensors(many: Path) -> None:
    with ckptparse.open(many) as checkpoint:
        shown = checkpoint._repr_html_() or ""
    assert_harmless(shown)
    assert rows_of(shown) == 201
    assert "… and 301 more" in shown
    assert "&lt;script&gt;" in shown


def test_a_closed_checkpoint_and_its_tensors_show_plainly(many: Path) -> None:
    checkpoint = ckptparse.open(many)
    tensor = checkpoint["layer_0/w"]
    checkpoint.close()
    for value in (checkpoint, tensor):
        shown = value._repr_html_()
        assert shown is None or "layer_0/w" in shown


def test_a_tensor_shows_its_place_and_checksum(many: Path) -> None:
    with ckptparse.open(many) as checkpoint:
        shown = checkpoint[HOSTILE]._repr_html_() or ""
    assert_harmless(shown)
    assert "float32 [3]" in shown
    assert "CRC-32C" in shown


def test_a_report_and_a_recovery_show_what_is_broken_first(fixtures: Path) -> None:
    path = fixtures / "slices" / "hole" / "model"
    report, recovery = ckptparse.verify(path), ckptparse.recover(path)
    for shown in (report._repr_html_(), recovery._repr_html_()):
        assert_harmless(shown)
        assert "damaged" in shown
        assert "slice.missing" in shown
        assert shown.index(">partial<") < shown.index(">verified<")
    assert "got back" in recovery._repr_html_()


def test_a_long_report_stays_short(many: Path) -> None:
    (many.parent / "m.data-00000-of-00001").write_bytes(b"")
    report = ckptparse.verify(many)
    shown = report._repr_html_()
    assert_harmless(shown)
    assert len(shown) < 100_000


def test_a_model_and_its_layers_show_signatures_and_weights(fixtures: Path) -> None:
    with ckptparse.open_saved_model(fixtures / "saved_model" / "keras2_sequential") as model:
        shown = model._repr_html_()
        layer = model.layers[0]._repr_html_()
    assert_harmless(shown)
    assert "serving_default" in shown
    assert "Dense" in shown
    assert_harmless(layer)
    assert "float32" in layer


def test_a_damaged_model_says_so_in_its_place(fixtures: Path, tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"\xff" * 20)
    with ckptparse.open_saved_model(tmp_path) as model:
        assert_harmless(model._repr_html_())


def test_a_name_of_a_million_letters_is_cut(tmp_path: Path) -> None:
    ckptparse.write(tmp_path / "m", {"x" * 100_000: np.zeros(1, np.float32)})
    with ckptparse.open(tmp_path / "m") as checkpoint:
        assert len(checkpoint._repr_html_() or "") < 2000


def test_a_comparison_shows_what_changed(fixtures: Path, many: Path, tmp_path: Path) -> None:
    nested = fixtures / "objects" / "nested"
    shown = ckptparse.diff(nested / "ckpt-1", nested / "ckpt-2")._repr_html_()
    assert_harmless(shown)
    assert "8 tensors equal" in shown
    ckptparse.write(tmp_path / "other", {"w": np.zeros(1, np.float32)})
    shown = ckptparse.diff(many, tmp_path / "other")._repr_html_()
    assert_harmless(shown)
    assert "more" in shown
