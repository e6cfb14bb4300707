"""The page: one file that asks for nothing, is small, and says what is so, of every fixture."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("jinja2")

import builder
import expected
import graph_builder as g

import ckptparse
from ckptparse.examination.report import FileRange, FileReport
from ckptparse.graph.graph import Graph
from ckptparse.rendering.page import choosing
from ckptparse.rendering.page.numbers import small_number

SUBJECTS = {
    "saved model": "saved_model/keras2_sequential",
    "Keras 3 export": "saved_model/keras3_export",
    "TF1 SavedModel": "saved_model/tf1_partitioned",
    "module with an asset": "saved_model/module",
    "V2": "saver/my_model",
    "every kind of element": "dtypes/every_kind/model",
    "ends of the range": "dtypes/floats/model",
    "below a byte": "dtypes/below_a_byte/model",
    "variants": "dtypes/variant_tensor_lists/two_lists",
    "strings": "dtypes/strings/model",
    "object-based": "objects/nested",
    "slots": "objects/tf1_optimizer",
    "sliced": "slices/partitioned_variable",
    "several shards": "shards/max_size/model",
    "V1": "v1/every_dtype/model",
    "V1 of several files": "v1/sharded/model.ckpt-7",
    "odd names": "names/odd/model",
    "not UTF-8": "names/not_utf8/model",
    "an endless tensor": "slices/many_starts/model",
    "a hole": "slices/hole/model",
    "truncated index": "crash/truncated_index/model",
    "data without an index": "crash/data_without_index/model",
    "graph": "graphs/functions/graph.pb",
    "frozen graph": "graphs/frozen_tf1/frozen.pb",
    "meta graph": "graphs/meta_graph/graph.meta",
}
HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"'`${alert(1)}&amp;&#x27;",
    "a\u202egnp.exe\u2066/\u200b\ufeff",
    "\x00\x1b[31m\n\r\t\x7f",
    "]]><!--\u2028\u2029",
    "{{ 7*7 }}{% raw %}",
)


class Parsed(HTMLParser):
    """What of a page could reach outside, or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("script", "style"):
            self.texts.setdefault(self._open[-1], []).append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:
                pass


def make(source: Any, to: Path, **options: Any) -> str:
    out = to / "page.html"
    ckptparse.report_page(source, out, overwrite=True, **options)
    return out.read_text(encoding="utf-8")


def data_of(text: str) -> dict[str, Any]:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    loaded: dict[str, Any] = json.loads(found)
    return loaded


def subject(fixtures: Path, name: str) -> Path:
    return fixtures / SUBJECTS[name]


@pytest.fixture(scope="module", params=SUBJECTS)
def made(
    request: pytest.FixtureRequest, fixtures: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str]:
    name: str = request.param
    return name, make(subject(fixtures, name), tmp_path_factory.mktemp("page"))


def test_a_page_asks_for_nothing_and_runs_only_its_own_script(made: tuple[str, str]) -> None:
    parsed = Parsed(made[1])
    for tag, attributes in parsed.tags:
        assert not {"src", "srcset", "action", "background", "poster", "style"} & attributes.keys()
        assert not any(name.startswith("on") for name in attributes), tag
        assert tag not in ("iframe", "object", "embed", "link", "base", "form")
        if tag == "a":
            assert (attributes["href"] or "").startswith("#")
    (policy,) = [
        attributes["content"] or ""
        for tag, attributes in parsed.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        text = parsed.texts[tag][-1]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_a_page_is_small(made: tuple[str, str]) -> None:
    assert len(made[1].encode()) < 700_000


def test_a_page_tells_every_tensor(made: tuple[str, str], fixtures: Path) -> None:
    name, text = made
    data = data_of(text)
    path = subject(fixtures, name)
    try:
        if "graph" in name and "meta" not in name:
            expected = len(ckptparse.open_graph(path).constants)
        else:
            with ckptparse.open(path) as checkpoint:
                expected = len(checkpoint)
    except ckptparse.CheckpointError:
        return
    rows = data["tensors"]
    if "graph" not in name:
        assert len(rows["name"]) == expected
    for column in ("shape", "bytes", "place"):
        assert len(rows[column]) == len(rows["name"])
    for column in ("dtype", "state", "role"):
        assert len(rows[column]["rows"]) == len(rows["name"])
    stats = rows["stats"]
    assert len(base64.b64decode(stats["bins"])) == 64 * len(stats["rows"])


def paths_of(name: str) -> list[Path]:
    """What a page can be made of in a case: its folder if it is a model, and each checkpoint."""
    case = expected.load(name)
    whole = [case.root] if (case.root / "saved_model.pb").exists() else []
    whole += [case.root / file for file in case.files if file.endswith((".meta", "frozen.pb"))]
    return whole + [one.path for one in case.checkpoints]


@pytest.mark.parametrize("name", expected.names())
def test_a_page_is_made_of_every_fixture(name: str, tmp_path: Path) -> None:
    for path in paths_of(name):
        text = make(path, tmp_path)
        data = data_of(text)
        assert len(text.encode()) < 700_000
        assert len(data["tensors"]["name"]) == len(data["tensors"]["shape"])
        assert data["verdict"]["word"] in ("ok", "warnings", "damaged", "unknown")


def test_damage_is_told(fixtures: Path, tmp_path: Path) -> None:
    text = make(fixtures / "slices" / "hole" / "model", tmp_path)
    data = data_of(text)
    assert data["verdict"]["word"] == "damaged"
    assert "partial" in data["tensors"]["state"]["values"]
    assert "slice.missing" in text


def test_statistics_are_those_of_the_values(fixtures: Path, tmp_path: Path) -> None:
    path = fixtures / "saver" / "my_model"
    rows = data_of(make(path, tmp_path))["tensors"]
    values = ckptparse.read(path)["weights"]
    row = rows["name"].index("weights")
    numbers = rows["stats"]["numbers"][rows["stats"]["rows"].index(row)]
    assert numbers[0] == pytest.approx(values.min(), rel=1e-5)
    assert numbers[2] == pytest.approx(values.mean(), rel=1e-4)
    rows_of_blocks, columns, *_ = rows["stats"]["heat"][str(row)]
    assert (rows_of_blocks, columns) == values.shape


@pytest.mark.parametrize("digits", [3, 4, 6])
def test_numbers_of_few_digits_are_numbers_that_json_has(digits: int) -> None:
    largest = float(np.finfo(np.float64).max)
    for value in (largest, -largest, 5e-324, 0.0, -0.0, 1e300, 1 << 62, 123456789):
        found = small_number(value, digits)
        json.dumps(found, allow_nan=False)
        assert found == pytest.approx(value, rel=0.01)
    assert small_number(float("nan")) is None
    assert small_number(float("inf")) is None
    assert small_number(None) is None


def test_without_statistics_and_checks_nothing_is_read(fixtures: Path, tmp_path: Path) -> None:
    data = data_of(make(fixtures / "saver" / "my_model", tmp_path, statistics=False, verify=False))
    assert data["tensors"]["stats"]["rows"] == []
    assert data["tensors"]["state"]["values"] == ["not checked"]
    assert data["verdict"]["word"] == "unknown"


def test_a_page_is_made_of_values_too(fixtures: Path, tmp_path: Path) -> None:
    hole = fixtures / "slices" / "hole" / "model"
    report = data_of(make(ckptparse.verify(hole), tmp_path))
    assert report["tensors"]["stats"]["rows"] == []
    recovery = data_of(make(ckptparse.recover(hole), tmp_path))
    assert recovery["tensors"]["name"] == report["tensors"]["name"]
    assert recovery["tensors"]["stats"]["rows"]
    with ckptparse.open(fixtures / "saver" / "my_model") as checkpoint:
        assert data_of(make(checkpoint, tmp_path))["tensors"]["name"] == ["bias", "weights"]
    with ckptparse.open_saved_model(fixtures / "saved_model" / "module") as model:
        assert data_of(make(model, tmp_path))["effects"]["others"] == []


def test_of_anything_else_no_page_is_made(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="Checkpoint, SavedModel"):
        ckptparse.report_page(3, tmp_path / "x.html")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_replaced_unasked(fixtures: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    out.write_text("mine")
    with pytest.raises(ckptparse.OutputExistsError):
        ckptparse.report_page(fixtures / "saver" / "my_model", out)
    assert out.read_text() == "mine"


def test_a_path_with_nothing_there_gives_the_error_of_opening(tmp_path: Path) -> None:
    with pytest.raises(ckptparse.CheckpointNotFoundError):
        ckptparse.report_page(tmp_path / "absent", tmp_path / "x.html")
    assert not list(tmp_path.iterdir())


def test_layers_optimizer_and_signatures_are_told(fixtures: Path, tmp_path: Path) -> None:
    data = data_of(make(fixtures / "saved_model" / "keras2_sequential", tmp_path))
    names = data["tensors"]["name"]
    assert [layer["name"] for layer in data["model"]["layers"]] == ["hidden", "dense"]
    for layer in data["model"]["layers"]:
        assert all(0 <= row < len(names) for row in layer["rows"])
    (optimizer,) = data["model"]["optimizers"]
    assert optimizer["iterations"] == 2
    assert {slot for _, slots in optimizer["slots"] for slot, _ in slots} == {"m", "v"}
    signatures = {found["name"] for found in data["model"]["graphs"][0]["signatures"]}
    assert "serving_default" in signatures
    assert set(data["tensors"]["role"]["values"]) >= {"variable", "slot", "counter"}


def test_the_graph_of_uses_has_variables_and_who_takes_them(fixtures: Path, tmp_path: Path) -> None:
    uses = data_of(make(fixtures / "saved_model" / "keras2_sequential", tmp_path))["uses"]
    names = {node[1]: node[0] for node in uses["nodes"]}
    assert names["hidden/kernel"] in ("variable", "shared")
    assert "scope" in names.values()
    assert all(max(edge) < len(uses["nodes"]) for edge in uses["edges"])


def test_a_variable_of_two_users_is_marked(tmp_path: Path) -> None:
    nodes = [
        g.variable("w", 2, 2),
        g.node("read", "ReadVariableOp", "w"),
        g.node("left/MatMul", "MatMul", "x", "read"),
        g.node("right/MatMul", "MatMul", "left/MatMul", "read"),
        g.variable("b", 2),
        g.node("right/Add", "AddV2", "right/MatMul", "b"),
    ]
    uses = data_of(make(Graph.from_graph_def(g.graph(nodes)), tmp_path))["uses"]
    assert {node[1]: node[0] for node in uses["nodes"]} == {
        "w": "shared", "left": "scope", "right": "scope", "b": "variable",
    }  # fmt: skip
    numbers = {node[1]: number for number, node in enumerate(uses["nodes"])}
    assert [numbers["left"], numbers["right"]] in uses["edges"]


def test_a_graph_of_thousands_of_variables_is_cut_to_what_can_be_drawn(tmp_path: Path) -> None:
    nodes = []
    for number in range(1500):
        nodes.append(g.variable(f"block{number}/layer/w", 2))
        nodes.append(g.node(f"block{number}/layer/MatMul", "MatMul", f"block{number}/layer/w"))
    uses = data_of(make(Graph.from_graph_def(g.graph(nodes)), tmp_path))["uses"]
    assert len(uses["nodes"]) <= 200
    assert uses["more"] > 0


def test_what_was_mended_is_cut_out_of_the_ranges_of_a_file() -> None:
    file = FileReport("x", "shard", 100, (FileRange(0, 40, "verified"), FileRange(40, 100, "bad")))
    ranges = file.patched([(30, 50), (10, 20), (90, 100)]).ranges
    assert [(part.start, part.stop, part.kind) for part in ranges] == [
        (0, 10, "verified"), (10, 20, "patched"), (20, 30, "verified"), (30, 40, "patched"),
        (40, 50, "patched"), (50, 90, "bad"), (90, 100, "patched"),
    ]  # fmt: skip


# Hostile


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    values = {name: np.ones((2, 2), np.float32) for name in HOSTILE}
    values["é/名前/שם"] = np.zeros(3, np.float32)
    ckptparse.write(tmp_path / "m", values)
    return tmp_path / "m"


def test_hostile_names_do_no_harm(hostile: Path, tmp_path: Path) -> None:
    text = make(hostile, tmp_path)
    assert "alert(1)</script>" not in text
    assert "<img src=x" not in text
    parsed = Parsed(text)
    assert sum(tag == "script" for tag, _ in parsed.tags) == 2
    data = data_of(text)
    assert len(data["tensors"]["name"]) == len(HOSTILE) + 1
    for name in data["tensors"]["name"]:
        assert name.isprintable()
    assert "49" not in data["tensors"]["name"]
    assert "é/名前/שם" in data["tensors"]["name"]
    for character in "\u202e\u2066\u2028\u2029\x00\x1b":
        assert character not in text


def test_hostile_nodes_do_no_harm_either(tmp_path: Path) -> None:
    name = "<script>alert(1)</script>\u202e"
    nodes = [g.strings("path", name.encode()), g.node(name, "WriteFile", "path", "path")]
    text = make(Graph.from_graph_def(g.graph(nodes)), tmp_path)
    assert "<script>alert" not in text
    assert "\u202e" not in text
    assert "writes-file" in text


def test_a_file_that_cannot_be_read_leaves_the_rest_told(fixtures: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(fixtures / "saved_model" / "keras2_sequential", model)
    (model / "saved_model.pb").write_bytes(b"\xff" * 40)
    text = make(ckptparse.open_saved_model(model), tmp_path)
    data = data_of(text)
    assert data["verdict"]["word"] == "damaged"
    assert data["problems"]
    assert len(data["tensors"]["name"]) > 10


# Size


@pytest.mark.parametrize(("tensors", "most"), [(300, 700_000)])
def test_the_page_of_many_tensors_stays_within_its_size(
    tensors: int, most: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    values = {
        f"model/encoder/layer_{number // 4:03d}/attention/output/dense_{number % 4}/kernel": (
            rng.standard_normal((40, 40)).astype(np.float32)
        )
        for number in range(tensors)
    }
    ckptparse.write(tmp_path / "m", values)
    text = make(tmp_path / "m", tmp_path)
    assert len(text.encode()) < most
    assert len(data_of(text)["tensors"]["stats"]["heat"]) > 90


# Two checkpoints


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    same, grown = np.ones(3, np.float32), np.zeros((2, 2), np.float32)
    moved = np.arange(7, dtype=np.float32)
    first = {"same": same, "grown": grown, "gone": moved[:5], "reshaped": grown, "old": moved}
    second = {"same": same, "grown": grown + 0.5, "new": moved[:2], "reshaped": same}
    second["renamed"] = moved
    ckptparse.write(tmp_path / "a", first)
    ckptparse.write(tmp_path / "b", second)
    return tmp_path / "a", tmp_path / "b"


def test_a_comparison_tells_what_became_of_each_tensor(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    data = data_of(make(ckptparse.diff(*two), tmp_path))
    rows = data["tensors"]
    states = [rows["state"]["values"][number] for number in rows["state"]["rows"]]
    assert dict(zip(rows["name"], states, strict=True)) == {
        "same": "equal", "grown": "changed", "new": "added", "gone": "removed",
        "reshaped": "changed", "renamed": "renamed",
    }  # fmt: skip
    grown = rows["changes"][str(rows["name"].index("grown"))]
    assert (grown["largest"], grown["mean"], grown["share"]) == (0.5, 0.5, 1)
    assert rows["changes"][str(rows["name"].index("reshaped"))]["shape"] == [[2, 2], [3]]
    assert rows["changes"][str(rows["name"].index("renamed"))] == {"was": "old"}
    assert data["verdict"] == {
        "word": "differs", "text": "1 tensor equal; 2 changed, 1 added, 1 removed, 1 renamed"
    }  # fmt: skip
    assert data["compared"]


def test_a_comparison_of_the_same_says_so(two: tuple[Path, Path], tmp_path: Path) -> None:
    data = data_of(make(ckptparse.diff(two[0], two[0]), tmp_path))
    assert data["verdict"]["word"] == "same"


def test_a_comparison_whose_files_are_gone_is_shown_all_the_same(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    found = ckptparse.diff(*two)
    for file in tmp_path.iterdir():
        file.unlink()
    data = data_of(make(found, tmp_path))
    assert len(data["tensors"]["name"]) == 6


def _page_of_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A page of 60 tensors, one of them damaged, of which 8 and one for each 4 KiB are shown."""
    monkeypatch.setattr(choosing, "_MOST", 8)
    prefix = ckptparse.write(
        tmp_path / "m", {f"layer/w{number:02}": np.full(9, number, "f4") for number in range(60)}
    )
    with open(f"{prefix}.data-00000-of-00001", "r+b") as data:
        data.seek(50 * 36)
        data.write(b"\xff\xff")
    return data_of(make(prefix, tmp_path))


def test_of_too_many_tensors_the_damaged_and_the_first_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _page_of_many(tmp_path, monkeypatch)
    size = sum(file["size"] for file in found["files"])
    most = 8 + size // 4096
    # The damaged one counts twice.
    first = [f"layer/w{number:02}" for number in range(most - 2)]
    assert found["tensors"]["name"] == [*first, "layer/w50"]
    assert found["tensors"]["state"]["values"] == ["verified", "corrupt"]
    assert len(found["tensors"]["stats"]["rows"]) == most - 1
    assert found["left_out"] == 60 - (most - 1)


def test_strings_are_shown_half_as_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "_MOST", 8)
    values = {f"w{number:02}": np.array([b"abc"], object) for number in range(20)}
    prefix = ckptparse.write(tmp_path / "m", values)
    found = data_of(make(prefix, tmp_path))
    size = sum(file["size"] for file in found["files"])
    assert len(found["tensors"]["name"]) == (8 + size // 4096) // 2


def test_constants_are_shown_half_as_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "_MOST", 8)
    nodes = [g.constant(f"c{number:02}", b"\x22\x04\0\0\x80?") for number in range(20)]
    path = tmp_path / "frozen.pb"
    path.write_bytes(g.graph(nodes))
    for subject in (path, ckptparse.open_graph(path)):
        assert len(data_of(make(subject, tmp_path))["tensors"]["name"]) == 4


def test_a_page_that_leaves_tensors_out_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _page_of_many(tmp_path, monkeypatch)
    assert dict(map(tuple, found["facts"]))["tensors"] == "60"
    assert "are theirs" in dict(map(tuple, found["facts"]))["shown"]
    assert found["model"]["layers"] == []
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert f"{found['left_out']} more are not shown" in text


def test_of_a_comparison_what_changed_is_shown_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "_MOST", 3)
    values = {f"w{number:02}": np.float32(number) for number in range(20)}
    first = ckptparse.write(tmp_path / "a", values)
    second = ckptparse.write(tmp_path / "b", {**values, "w15": np.float32(3)})
    found = data_of(make(ckptparse.diff(first, second), tmp_path))
    assert found["tensors"]["name"] == ["w00", "w15"]
    assert found["left_out"] == 18


def test_of_very_many_tensors_fewer_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "_MOST", 30)
    monkeypatch.setattr(choosing, "_LISTED", 20)
    monkeypatch.setattr(choosing, "_LEAST", 5)
    values = {f"w{number:02}": np.float32(number) for number in range(80)}
    prefix = ckptparse.write(tmp_path / "m", values)
    for each, shown in ((10, 24), (2, 5)):
        monkeypatch.setattr(choosing, "_LISTED_EACH", each)
        found = data_of(make(prefix, tmp_path))
        assert len(found["tensors"]["name"]) == shown
        assert found["left_out"] == 80 - shown


def test_of_far_too_many_tensors_no_values_are_shown(tmp_path: Path) -> None:
    values = {f"w{number:03}": np.float32(number) for number in range(200)}
    prefix = ckptparse.write(tmp_path / "m", values)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    for allowed, shown in ((40 - size // 512, True), (39 - size // 512, False)):
        limits = ckptparse.Limits(small_tensors=allowed)
        found = data_of(make(prefix, tmp_path, limits=limits))
        assert len(found["tensors"]["name"]) == 200
        assert found["measured"] is shown
        told = [one["message"] for one in found["problems"] if "No values" in one["message"]]
        assert bool(told) is not shown


def test_tensors_that_the_report_leaves_out_count_among_those_that_are_too_many(
    tmp_path: Path,
) -> None:
    made = builder.Bundle()
    for number in range(200):
        made.add(f"w{number:03}", np.float32(number))
        made.change(f"w{number:03}", crc=7)
    prefix = str(made.write(tmp_path / "m"))
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    for allowed, shown in ((40 - size // 512, True), (39 - size // 512, False)):
        limits = ckptparse.Limits(small_tensors=allowed, attempts=4)
        found = data_of(make(prefix, tmp_path, limits=limits))
        told = [one["message"] for one in found["problems"] if "No values" in one["message"]]
        assert found["measured"] is shown and bool(told) is not shown
        assert [one for one in found["problems"] if "more tensors are damaged" in one["message"]]
