"""Each limit holds for every public function, however the path is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest
from test_hostile import AT_LIMIT, small_bundle

import ckptparse
import ckptparse.tf
from ckptparse import DEFAULT_LIMITS, LimitError, Limits

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def read_by_tf(path: str, **options: Any) -> list[Any]:
    """Read every tensor as a converter does that calls TensorFlow."""
    reader = ckptparse.tf.train.load_checkpoint(path, **options)
    return [reader.get_tensor(name) for name in reader.get_variable_to_shape_map()]


STRICT: dict[str, Callable[..., Any]] = {
    "read": ckptparse.read,
    "open": lambda path, **options: list(ckptparse.open(path, **options).values()),
    "list_variables": ckptparse.list_variables,
    "stats": ckptparse.stats,
    "diff": lambda path, **options: ckptparse.diff(path, path, **options),
    "average": lambda path, **options: ckptparse.average([path, path], **options),
    "tf.train.load_checkpoint": read_by_tf,
}
REPORTING: dict[str, Callable[..., ckptparse.Report]] = {
    "verify": ckptparse.verify,
    "recover": lambda path, **options: ckptparse.recover(path, **options).report,
}
OF_THE_INDEX = [limit for limit in AT_LIMIT if limit != "fill_bytes"]
TRAIN = ckptparse.tf.train
ALL: dict[str, Callable[..., Any]] = {
    **STRICT,
    **REPORTING,
    "tf.train.list_variables": TRAIN.list_variables,
    "tf.train.load_variable": lambda path, **options: TRAIN.load_variable(path, "w", **options),
    "tf.train.NewCheckpointReader": TRAIN.NewCheckpointReader,
    "tf.train.latest_checkpoint": TRAIN.latest_checkpoint,
    "tf.train.get_checkpoint_state": TRAIN.get_checkpoint_state,
    "tf.train.checkpoint_exists": TRAIN.checkpoint_exists,
    "tf.train.get_checkpoint_mtimes": lambda path, **o: TRAIN.get_checkpoint_mtimes([path], **o),
    "tf.train.wait_for_new_checkpoint": TRAIN.wait_for_new_checkpoint,
    "tf.train.checkpoints_iterator": lambda path, **o: next(TRAIN.checkpoints_iterator(path, **o)),
    "scan": ckptparse.scan,
    "report_page": lambda path, **o: ckptparse.report_page(path, f"{path}.html", **o),
    "identify": ckptparse.identify,
    "annotate": ckptparse.annotate,
    "open_graph": ckptparse.open_graph,
    "open_saved_model": ckptparse.open_saved_model,
    "latest_checkpoint": ckptparse.latest_checkpoint,
    "checkpoint_state": ckptparse.checkpoint_state,
}


@pytest.fixture(params=["prefix", "index", "directory", "memory"])
def hostile(request: Any, tmp_path: Path) -> tuple[str, dict[str, Any]]:
    """A path that means a small bundle, and where it leads."""
    prefix = str(small_bundle().write(tmp_path / "x"))
    if request.param == "memory":
        return "x", {"store": {path.name: path.read_bytes() for path in tmp_path.iterdir()}}
    paths = {"prefix": prefix, "index": f"{prefix}.index", "directory": str(tmp_path)}
    return paths[request.param], {}


@pytest.mark.parametrize("limit", OF_THE_INDEX)
@pytest.mark.parametrize("name", STRICT)
def test_what_asks_for_more_is_refused(
    name: str, limit: str, hostile: tuple[str, dict[str, Any]]
) -> None:
    path, where = hostile
    with pytest.raises(LimitError) as caught:
        STRICT[name](path, limits=replace(DEFAULT_LIMITS, **{limit: AT_LIMIT[limit] - 1}), **where)
    assert caught.value.limit == limit
    assert STRICT[name](path, limits=replace(DEFAULT_LIMITS, **{limit: AT_LIMIT[limit]}), **where)


@pytest.mark.parametrize("limit", OF_THE_INDEX)
@pytest.mark.parametrize("name", REPORTING)
def test_what_asks_for_more_is_reported(
    name: str, limit: str, hostile: tuple[str, dict[str, Any]]
) -> None:
    path, where = hostile
    limits = replace(DEFAULT_LIMITS, **{limit: AT_LIMIT[limit] - 1})
    report = REPORTING[name](path, limits=limits, **where)
    assert not report.ok
    assert any(f"Limits.{limit} allows" in problem.message for problem in report.problems)
    limits = replace(DEFAULT_LIMITS, **{limit: AT_LIMIT[limit]})
    assert REPORTING[name](path, limits=limits, **where).ok


def iter_messages(fixtures: Path) -> Iterable[tuple[str, Callable[[Limits], Any]]]:
    frozen = fixtures / "graphs" / "frozen_tf2" / "frozen.pb"
    model = fixtures / "saved_model" / "module"
    yield "open_graph", lambda limits: ckptparse.open_graph(frozen, limits=limits)
    yield "read", lambda limits: ckptparse.read(frozen, limits=limits)
    yield "list", lambda limits: ckptparse.list_variables(frozen, limits=limits)
    yield "verify", lambda limits: ckptparse.verify(frozen, limits=limits)
    yield "model", lambda limits: ckptparse.open_saved_model(model, limits=limits).meta_graphs
    yield "state", lambda limits: ckptparse.open(fixtures / "saver", limits=limits)


def test_a_file_that_is_one_message_is_bounded_before_it_is_read(fixtures: Path) -> None:
    for name, call in iter_messages(fixtures):
        call(DEFAULT_LIMITS)
        if name == "verify":
            assert not call(Limits(message_bytes=20)).ok
            continue
        with pytest.raises(LimitError) as caught:
            call(Limits(message_bytes=20))
        assert caught.value.limit == "message_bytes", name


def test_a_state_file_beyond_the_limit_is_none_with_a_warning(fixtures: Path) -> None:
    with pytest.warns(UserWarning, match=r"Limits\.message_bytes"):
        assert (
            ckptparse.checkpoint_state(fixtures / "saver", limits=Limits(message_bytes=9)) is None
        )


@pytest.mark.parametrize("name", ALL)
def test_limits_of_another_type_are_refused_at_once(name: str, tmp_path: Path) -> None:
    """Before anything is looked for: the path leads nowhere."""
    for wrong in (3, None, {"entries": 3}):
        with pytest.raises(TypeError, match=r"Expected limits to be a ckptparse\.Limits"):
            ALL[name](tmp_path / "no", limits=wrong)


@pytest.mark.parametrize("name", ALL)
def test_a_store_of_another_type_is_refused_at_once(name: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="Expected store to be a"):
        ALL[name](tmp_path / "no", store=3)


@pytest.mark.parametrize("limit", OF_THE_INDEX)
def test_a_page_is_bound_by_the_limits_too(
    limit: str, hostile: tuple[str, dict[str, Any]], tmp_path: Path
) -> None:
    path, where = hostile
    out = tmp_path / "page.html"
    limits = replace(DEFAULT_LIMITS, **{limit: AT_LIMIT[limit] - 1})
    ckptparse.report_page(path, out, limits=limits, **where)
    assert f"Limits.{limit} allows" in out.read_text("utf-8")
    limits = replace(DEFAULT_LIMITS, **{limit: AT_LIMIT[limit]})
    ckptparse.report_page(path, out, overwrite=True, limits=limits, **where)
    assert "Limits." not in out.read_text("utf-8")


def test_a_scan_is_bound_by_the_limits(tmp_path: Path) -> None:
    small_bundle().write(tmp_path / "x")
    assert len(ckptparse.scan(tmp_path)) == 1
    assert not len(ckptparse.scan(tmp_path, limits=Limits(index_bytes=10)))


def test_a_rule_file_is_bound_by_the_limits(tmp_path: Path) -> None:
    small_bundle().write(tmp_path / "x")
    rules = tmp_path / "rules.toml"
    rules.write_text("drop = ['dense']\n")
    for call in (
        lambda **options: ckptparse.diff(tmp_path / "x", tmp_path / "x", rename=rules, **options),
        lambda **options: ckptparse.convert(
            tmp_path / "x", tmp_path / "y.npz", rename=rules, dry_run=True, **options
        ),
    ):
        with pytest.raises(LimitError, match="rule file"):
            call(limits=Limits(state_bytes=10))


@pytest.mark.parametrize("damaged", [False, True])
def test_what_is_kept_of_each_tensor_is_bounded_when_a_checkpoint_is_verified(
    tmp_path: Path, damaged: bool
) -> None:
    made = b.Bundle()
    for number in range(400):
        made.add(f"t{number:03}", np.float32(number), **({"crc": 1} if damaged else {}))
    path = made.write(tmp_path / "m")
    little = Limits(memory_bytes=100_000)
    for call in REPORTING.values():
        report = call(path, limits=little)
        assert [problem.code for problem in report.problems] == ["limit.reached"]
        assert call(path, limits=Limits(memory_bytes=2_000_000)).tensors


def test_what_lengths_of_strings_take_is_bounded_when_they_are_verified(tmp_path: Path) -> None:
    made = b.Bundle()
    made.add("s", np.array([b""] * 50_000, object))
    path = made.write(tmp_path / "m")
    with pytest.raises(LimitError, match="memory_bytes"):
        ckptparse.verify(path, limits=Limits(memory_bytes=500_000))
    assert ckptparse.verify(path, limits=Limits(memory_bytes=1_000_000)).ok


def test_what_is_kept_of_all_indexes_in_an_image_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        for number in range(4):
            made = b.Bundle()
            for one in range(100):
                made.add(f"{number}/{one:03}", np.float32(one))
            index = made.index()
            file.write(index.ljust(-(-len(index) // 4096) * 4096, b"\0"))
    assert len(ckptparse.scan(path)) == 4
    with pytest.raises(LimitError, match="memory_bytes"):
        ckptparse.scan(path, limits=Limits(memory_bytes=600_000))


def test_text_is_bounded_before_it_is_parsed() -> None:
    graph = b'node { name: "a" op: "NoOp" }\n'
    for call, path, data in (
        (ckptparse.open_graph, "g.pbtxt", graph),
        (
            lambda *a, **o: ckptparse.open_saved_model(*a, **o).meta_graphs,
            "saved_model.pbtxt",
            graph,
        ),
    ):
        with pytest.raises(LimitError, match="text_bytes"):
            call(path, store={path: data}, limits=Limits(text_bytes=len(data) - 1))
    state = {"checkpoint": b'model_checkpoint_path: "a"\n'}
    with pytest.warns(UserWarning, match="text_bytes"):
        assert ckptparse.checkpoint_state("", store=state, limits=Limits(text_bytes=20)) is None
    assert ckptparse.open_graph(
        "g.pbtxt", store={"g.pbtxt": graph}, limits=Limits(text_bytes=len(graph))
    ).nodes


def test_tensors_over_each_other_are_mapped_if_the_size_of_the_file_allows_so_many(
    tmp_path: Path,
) -> None:
    made = b.Bundle()
    for number in range(40):
        made.add(f"t{number:02}", np.zeros(2, np.float32), at=4 * number)
    made.write(tmp_path / "m")
    with pytest.raises(LimitError, match="runs of bytes") as caught:
        ckptparse.read(tmp_path / "m", mmap=True, limits=Limits(small_tensors=39))
    assert caught.value.limit == "small_tensors"
    for limits, mmap in ((Limits(small_tensors=40), True), (Limits(small_tensors=39), False)):
        assert len(ckptparse.read(tmp_path / "m", mmap=mmap, limits=limits)) == 40


HIGHEST = dict.fromkeys((part.name for part in fields(Limits)), 10**30)


@pytest.mark.parametrize("limit", HIGHEST)
@pytest.mark.parametrize("value", [0, 10**30])
def test_no_limit_is_too_low_or_too_high_to_be_one(tmp_path: Path, limit: str, value: int) -> None:
    prefix = small_bundle().write(tmp_path / "m")
    limits = Limits(**{limit: value})
    for call in (ckptparse.identify, ckptparse.read, *REPORTING.values(), ckptparse.scan):
        for path in (prefix, f"{prefix}.index"):
            with suppress(ckptparse.CheckpointError):
                call(path, limits=limits)
    with suppress(ckptparse.CheckpointError):
        list(ckptparse.annotate(f"{prefix}.index", limits=limits))
    with suppress(ckptparse.CheckpointError):
        ckptparse.recover(prefix, evidence=[f"{prefix}.index"], limits=limits)


def test_limits_beyond_all_sizes_are_the_same_one() -> None:
    assert Limits(**HIGHEST) == Limits(**dict.fromkeys(HIGHEST, 10**20))
    assert Limits(entries=10**12).entries == 10**12


@pytest.mark.parametrize(
    ("value", "error"), [(-1, ValueError), (1.5, TypeError), ("7", TypeError), (None, TypeError)]
)
def test_what_is_no_number_of_things_is_no_limit(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"Limits\.entries"):
        Limits(entries=value)
