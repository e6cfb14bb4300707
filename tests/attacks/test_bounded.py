"""V1 checkpoints, state files and archives that once cost far more than their size: all counted."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest
import v1_builder as v1
from test_costs import counted

import ckptparse
from ckptparse import DEFAULT_LIMITS
from ckptparse.bundle.payload import StringPayload
from ckptparse.coding import checksum
from ckptparse.examination import (
    checking,
    diagnose,
    encodings,
    intact,
    legacy_view,
    plain_rows,
    salvaged_table,
    tensor_checks,
)
from ckptparse.examination.index_view import IndexView
from ckptparse.examination.readers import DataFiles
from ckptparse.examination.report import ExaminedTensors
from ckptparse.files import local
from ckptparse.files.archives import choosing
from ckptparse.files.archives.listing import Member
from ckptparse.graph import state
from ckptparse.identification import tables
from ckptparse.inventory import folders, legacy, parts
from ckptparse.legacy import metadata
from ckptparse.recovery import outlook, replaying, siblings
from ckptparse.recovery.imaging.mapfile import Mapfile
from ckptparse.recovery.rebuild import fit

FEW = replace(DEFAULT_LIMITS, single_entries=3)
BROKEN = b"\x2a\x7f\x00"
"""Values that break off within their field."""


def scalars(count: int, values: bytes = b"\x2a\x04\x00\x00\x80\x3f") -> v1.LegacyFile:
    made = v1.LegacyFile()
    for number in range(count):
        listed = made.declare(f"w{number:03}", (), b.FLOAT)
        listed.slices.append(v1.Slice([], values))
    return made


def limits_of(report: ckptparse.Report) -> list[str]:
    return [one.message for one in report.problems if one.code == "limit.reached"]


def test_records_that_do_not_decode_are_looked_at_up_to_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlook, "_look_ahead", lambda *_: None)
    made = scalars(50, BROKEN)
    made.add("v", np.float32(2))
    made.tensors.insert(0, made.tensors.pop())
    path = made.write(tmp_path / "m")
    checked = counted(monkeypatch, tensor_checks, "check_payload")
    report = ckptparse.verify(path, limits=FEW)
    # One more would need 4 KiB.
    assert len(checked.given) == 3
    assert len(limits_of(report)) == 1
    assert "47 more tensors" in limits_of(report)[0]
    assert set(report.tensors) == {"v", "w000", "w001", "w002"}
    assert report.tensors["v"].status is ckptparse.Status.VERIFIED
    assert not report.ok


def test_as_many_damaged_records_as_are_allowed_reach_no_limit(tmp_path: Path) -> None:
    path = scalars(3, BROKEN).write(tmp_path / "m")
    report = ckptparse.verify(path, limits=FEW)
    assert not limits_of(report)
    assert report == ckptparse.verify(path)


def test_tensors_in_a_damaged_block_are_looked_at_up_to_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlook, "_look_ahead", lambda *_: None)
    table = b.table(scalars(50).pairs(), block_size=1024)
    offset, size = table.blocks[1]
    (tmp_path / "m").write_bytes(table.flip(offset + size // 2))
    accepted = counted(monkeypatch, legacy_view._Reader, "_looks_right")
    made = counted(monkeypatch, legacy_view, "ListedTensor")
    report = ckptparse.verify(tmp_path / "m", limits=FEW)
    # One more would need 4 KiB.
    assert len(accepted.given) <= 5
    assert len(made.given) == 3
    assert limits_of(report)


def test_slices_are_looked_at_up_to_a_number(tmp_path: Path) -> None:
    made = v1.LegacyFile()
    listed = made.declare("w", (50,), b.FLOAT)
    for number in range(50):
        made.add_slice(listed, [(number, 1)], np.float32([number]))
    path = made.write(tmp_path / "m")
    assert ckptparse.verify(path).ok
    report = ckptparse.verify(path, limits=FEW)
    assert not report.tensors
    assert limits_of(report)


def test_the_text_of_a_report_makes_no_report_of_a_tensor_that_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = scalars(50)
    made.declare("x", (), b.FLOAT).slices.append(v1.Slice([], BROKEN))
    report = ckptparse.verify(made.write(tmp_path / "m"))
    assert report.noted_names() == ["x"]
    tensors = report.tensors
    assert isinstance(tensors, ExaminedTensors)
    asked = counted(monkeypatch, tensors.rows, "make")
    assert "50 verified" in str(report)
    assert not asked.given


@pytest.mark.parametrize(
    "text",
    [
        "all_model_checkpoint_timestamps: [" + "1," * 400 + "1]",
        'all_model_checkpoint_paths: "m"' + '""' * 400,
        'all_model_checkpoint_paths: "' + "\\141" * 400 + '"',
    ],
)
def test_a_state_file_of_many_values_is_refused_unparsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "m"\n{text}\n')
    limits = replace(DEFAULT_LIMITS, state_bytes=2000)
    parsed = counted(monkeypatch, state, "parse_text")
    with pytest.raises(ckptparse.LimitError) as caught:
        ckptparse.read(tmp_path, limits=limits)
    assert caught.value.limit == "state_bytes"
    assert not parsed.given


@pytest.mark.parametrize("brackets", [False, True])
def test_paths_of_a_state_file_count_as_a_hundred_bytes(tmp_path: Path, brackets: bool) -> None:
    field = "all_model_checkpoint_paths: "
    paths = ['"m"'] * 21
    text = field + "[" + ",".join(paths) + "]" if brackets else field + f"\n{field}".join(paths)
    (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "m"\n{text}\n')
    with pytest.raises(ckptparse.LimitError, match="100 bytes for each of its paths"):
        ckptparse.read(tmp_path, limits=replace(DEFAULT_LIMITS, state_bytes=2099))


def test_patterns_without_files_are_not_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    v1.LegacyFile().write(tmp_path / "m-00000-of-00001")
    lines = [f'all_model_checkpoint_paths: "n{n}-?????-of-00001"\n' for n in range(50)]
    text = 'model_checkpoint_path: "m-?????-of-00001"\n' + "".join(lines)
    (tmp_path / "checkpoint").write_text(text)
    compiled = counted(monkeypatch, legacy.fnmatch, "filter")
    assert ckptparse.latest_checkpoint(tmp_path) == str(tmp_path / "m-?????-of-00001")
    ckptparse.identify(tmp_path)
    assert 0 < len(compiled.given) < 10


def test_checkpoints_of_an_archive_are_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = {f"d/m{n}.index": Member("file") for n in range(50)}
    split = counted(monkeypatch, choosing.posixpath, "dirname")
    assert len(choosing.find_checkpoints(members)) == 50
    assert len(split.given) <= 150


def test_short_members_of_gzip_are_unpacked_many_at_a_time() -> None:
    data = gzip.compress(b"a") * 1000
    unpacker = encodings._Gzip()
    found, taken, _ = unpacker.convert(data, unpacker.start(), last=True)
    assert found == b"a" * 1000
    assert taken == len(data)


def in_slices(count: int, directory: Path) -> Path:
    """One tensor of V1 in slices of a number each."""
    made = v1.LegacyFile()
    listed = made.declare("w", (count,), b.FLOAT)
    for number in range(count):
        listed.slices.append(v1.Slice([(number, 1)], b"\x2a\x04\x00\x00\x80\x3f"))
    return made.write(directory / "m")


def test_read_verify_and_recover_allow_equally_many_v1_slices(tmp_path: Path) -> None:
    path = in_slices(100, tmp_path)
    allowed = 100 - (path.stat().st_size >> 12)
    enough = replace(DEFAULT_LIMITS, single_entries=allowed)
    assert ckptparse.read(path, limits=enough)["w"].tolist() == [1] * 100
    assert ckptparse.verify(path, limits=enough).ok
    assert ckptparse.recover(path, limits=enough)["w"].read().tolist() == [1] * 100
    few = replace(DEFAULT_LIMITS, single_entries=allowed - 1)
    with pytest.raises(ckptparse.LimitError) as caught:
        ckptparse.open(path, limits=few)
    assert caught.value.limit == "single_entries"
    report = ckptparse.verify(path, limits=few)
    assert len(limits_of(report)) == 1
    assert not report.ok
    assert "w" not in ckptparse.recover(path, limits=few)


def test_v1_slices_of_many_dimensions_count_as_more_and_are_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = v1.LegacyFile()
    listed = made.declare("w", (20, *[1] * 15), b.FLOAT)
    for number in range(20):
        extents: list[tuple[int, int] | None] = [(number, 1), *[(0, 1)] * 15]
        listed.slices.append(v1.Slice(extents, b"\x2a\x04\x00\x00\x80\x3f"))
    path = made.write(tmp_path / "m")
    # 16 dimensions are two eights.
    allowed = 3 * 20 - DEFAULT_LIMITS.most_singles(path.stat().st_size)
    allowed += DEFAULT_LIMITS.single_entries
    enough = replace(DEFAULT_LIMITS, single_entries=allowed)
    assert ckptparse.read(path, limits=enough)["w"].shape == (20, *[1] * 15)
    assert ckptparse.verify(path, limits=enough).ok
    few = replace(DEFAULT_LIMITS, single_entries=allowed - 1)
    decoded = counted(monkeypatch, metadata._ListDecoder, "_decode_slice")
    with pytest.raises(ckptparse.LimitError, match=r"Limits\.single_entries"):
        ckptparse.open(path, limits=few)
    report = ckptparse.verify(path, limits=few)
    assert ["Limits.single_entries" in message for message in limits_of(report)] == [True]
    assert not report.tensors
    assert not decoded.given


def test_whole_v1_tensors_are_no_slices_however_many(tmp_path: Path) -> None:
    path = scalars(50).write(tmp_path / "m")
    assert len(ckptparse.read(path, limits=replace(DEFAULT_LIMITS, single_entries=0))) == 50
    assert ckptparse.verify(path, limits=replace(DEFAULT_LIMITS, single_entries=0)).ok


def test_read_verify_and_recover_allow_equally_many_v1_tensors(tmp_path: Path) -> None:
    path = scalars(200).write(tmp_path / "m")
    allowed = 3 * (200 - (path.stat().st_size >> 10))
    enough = replace(DEFAULT_LIMITS, small_tensors=allowed)
    assert len(ckptparse.read(path, limits=enough)) == 200
    assert ckptparse.verify(path, limits=enough).ok
    assert len(ckptparse.recover(path, limits=enough)) == 200
    few = replace(DEFAULT_LIMITS, small_tensors=allowed - 1)
    with pytest.raises(ckptparse.LimitError) as caught:
        ckptparse.open(path, limits=few)
    assert caught.value.limit == "small_tensors"
    report = ckptparse.verify(path, limits=few)
    assert len(limits_of(report)) == 1
    assert "Limits.small_tensors" in limits_of(report)[0]
    assert not report.ok
    assert not report.complete
    assert not report.tensors
    assert not ckptparse.recover(path, limits=few)


def test_a_list_and_records_beyond_every_bound_are_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = scalars(4000).write(tmp_path / "m", block_size=1000)
    size = path.stat().st_size
    most = 9 + 3 + size // 1024 + size // 4096
    few = replace(DEFAULT_LIMITS, small_tensors=27, single_entries=3)
    decoded = counted(monkeypatch, metadata._ListDecoder, "decode")
    with pytest.raises(ckptparse.LimitError):
        ckptparse.read(path, limits=few)
    assert len(decoded.given) <= most < 1000
    taken = counted(monkeypatch, salvaged_table._Scan, "_take")
    report = ckptparse.verify(path, limits=few)
    assert limits_of(report)
    assert not report.tensors
    # A block has some twenty records, and is decoded whole.
    assert len(taken.given) < most / 10
    assert ckptparse.identify(path, limits=few).kind == "v1"


def test_read_and_verify_allow_equally_many_v1_files(tmp_path: Path) -> None:
    for number in range(4):
        made = v1.LegacyFile()
        made.add(f"w{number}", np.float32(number))
        made.write(tmp_path / f"m-{number:05}-of-00004")
    enough, few = (replace(DEFAULT_LIMITS, shards=shards) for shards in (16, 15))
    assert len(ckptparse.read(tmp_path / "m", limits=enough)) == 4
    assert ckptparse.verify(tmp_path / "m", limits=enough).ok
    with pytest.raises(ckptparse.LimitError, match=r"Limits\.shards"):
        ckptparse.read(tmp_path / "m", limits=few)
    report = ckptparse.verify(tmp_path / "m", limits=few)
    assert ["Limits.shards allows 15" in message for message in limits_of(report)] == [True]
    assert not report.complete
    assert not report.tensors


def test_the_size_of_all_v1_files_is_not_asked_for_with_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        made = v1.LegacyFile()
        made.add(f"w{number}", np.float32(number))
        made.write(tmp_path / f"m-{number:05}-of-00040")
    asked = counted(monkeypatch, DataFiles, "_size_of")
    assert ckptparse.verify(tmp_path / "m").ok
    assert len(asked.given) <= 40 * 6


def _call_jobs(source: object, out: Path, limits: ckptparse.Limits) -> None:
    ckptparse.convert(source, out / "m.safetensors", limits=limits, overwrite=True)  # type: ignore[arg-type]
    ckptparse.stats(source, limits=limits)  # type: ignore[arg-type]
    ckptparse.average([source], limits=limits)  # type: ignore[list-item]


def test_a_job_goes_through_as_many_tensors_as_the_files_have_bytes_for(tmp_path: Path) -> None:
    prefix = ckptparse.write(tmp_path / "m", {f"w{n:03}": np.float16(n) for n in range(200)})
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    allowed = 200 - size // 512
    assert 0 < allowed < 200
    _call_jobs(prefix, tmp_path, replace(DEFAULT_LIMITS, small_tensors=allowed))
    few = replace(DEFAULT_LIMITS, small_tensors=allowed - 1)
    for job in (
        lambda: ckptparse.convert(prefix, tmp_path / "n", limits=few),
        lambda: ckptparse.stats(prefix, limits=few),
        lambda: ckptparse.average([prefix], limits=few),
    ):
        with pytest.raises(ckptparse.LimitError) as caught:
            job()
        assert caught.value.limit == "small_tensors"
    made = ckptparse.convert(prefix, tmp_path / "n", include="w00*", limits=few)
    assert len([row for row in made.rows if row.new is not None]) == 10


@pytest.mark.parametrize(("ending", "weight"), [(".npz", 2), ("/", 4), (".h5", 2), ("", 1)])
def test_a_tensor_counts_more_if_its_target_is_a_member_or_a_file(
    ending: str, weight: int, tmp_path: Path
) -> None:
    prefix = ckptparse.write(tmp_path / "m", {f"w{n:03}": np.float16(n) for n in range(200)})
    allowed = 200 * weight - sum(path.stat().st_size for path in tmp_path.iterdir()) // 512
    few = replace(DEFAULT_LIMITS, small_tensors=allowed - 1)
    with pytest.raises(ckptparse.LimitError, match="number of tensors") as caught:
        ckptparse.convert(prefix, f"{tmp_path}/n{ending}", limits=few)
    assert caught.value.limit == "small_tensors"
    enough = replace(DEFAULT_LIMITS, small_tensors=allowed)
    assert len(ckptparse.convert(prefix, f"{tmp_path}/n{ending}", limits=enough).rows) == 200


@pytest.mark.parametrize("ending", [".npz", "/", ".h5"])
def test_strings_are_read_together_on_their_way_to_members_and_files(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = b.Bundle()
    for number in range(100):
        made.add(f"w{number:03}", np.array(b"%d" % number, object))
    prefix = made.write(tmp_path / "m")
    read = counted(monkeypatch, StringPayload, "read")
    ckptparse.convert(prefix, f"{tmp_path}/n{ending}")
    assert not read.given
    found = ckptparse.convert(f"{tmp_path}/n{ending}", tmp_path / "again")
    assert [row.new for row in found.rows] == [f"w{number:03}" for number in range(100)]


def test_what_is_in_memory_or_open_elsewhere_is_counted_by_its_own_bytes(tmp_path: Path) -> None:
    values = {f"w{n:03}": np.zeros(128, np.float32) for n in range(50)}
    none = replace(DEFAULT_LIMITS, small_tensors=0)
    _call_jobs(values, tmp_path, none)
    prefix = ckptparse.write(tmp_path / "m", values)
    files = {path.name: path.read_bytes() for path in tmp_path.glob("m.*-*")}
    files["m.index"] = Path(f"{prefix}.index").read_bytes()
    with ckptparse.open("m", store=files) as opened:
        _call_jobs(opened, tmp_path, none)


def image_of_scalars(directory: Path, count: int) -> Path:
    """An image that holds nothing but one checkpoint of scalars."""
    made = b.Bundle()
    for number in range(count):
        made.add(f"w{number:04}", np.float32(number))
    made.add("global_step", np.int64(7))
    data = [bytes(one) for one in made.files("m").values()]
    image = directory / "disk.img"
    image.write_bytes(b"".join(one + bytes(-len(one) % 4096) for one in data))
    return image


def test_a_scan_makes_no_objects_of_small_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = image_of_scalars(tmp_path, 1500)
    made = counted(monkeypatch, plain_rows.PlainRows, "payload")
    applied = counted(monkeypatch, checksum, "_apply")
    checksum._byte_tables.cache_clear()
    (found,) = ckptparse.scan(image)
    assert (found.tensors, found.share, found.step) == (1501, 1.0, 7)
    # The counter of steps alone, and a table for each size.
    assert len(made.given) <= 2
    assert len(applied.given) <= 800


@pytest.mark.parametrize("size", [1, 4, 8, 37, 63, 64, 65])
def test_checksums_of_short_runs_are_combined_as_those_of_long_ones(size: int) -> None:
    first, second = checksum.crc32c(b"before"), checksum.crc32c(b"x" * size)
    assert checksum.combine_crc(first, second, size) == checksum.crc32c(b"before" + b"x" * size)


def test_of_indexes_that_saves_left_behind_as_many_are_looked_at_as_of_data_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = ckptparse.write(tmp_path / "m", {"w": np.arange(4.0)})
    for number in range(30):
        (tmp_path / f"m.index.tempstate{number}").touch()
    monkeypatch.setattr(outlook, "_look_ahead", lambda *_: None)
    read = counted(monkeypatch, checking, "read_view")
    assert not limits_of(ckptparse.verify(prefix))
    assert len(read.given) == 31
    report = ckptparse.verify(prefix, limits=replace(DEFAULT_LIMITS, shards=10))
    assert len(read.given) == 31 + 10
    assert ["21 more indexes" in message for message in limits_of(report)] == [True]
    assert report.tensors["w"].status is ckptparse.Status.VERIFIED


def test_a_directory_of_checkpoints_is_not_listed_for_each_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        prefix = ckptparse.write(tmp_path / f"m-{number}", {"w": np.arange(4.0)})
    (tmp_path / "m-19.data-00000-of-00001").write_bytes(bytes(32))
    monkeypatch.setattr(outlook, "_look_ahead", lambda *_: None)
    listed = counted(monkeypatch, local.LocalStorage, "list")
    assert len(ckptparse.verify(prefix).others) == 16
    assert len(listed.given) <= 4


def test_v1_strings_are_as_many_as_the_files_have_bytes_for(tmp_path: Path) -> None:
    made = v1.LegacyFile()
    for name in ("a", "b"):
        listed = made.declare(name, (2000,), b.STRING)
        listed.slices.append(v1.Slice([None], b"\x42\x00" * 2000))
    path = made.write(tmp_path / "m")
    allowed = 4000 - path.stat().st_size // 8 << 8
    enough = replace(DEFAULT_LIMITS, strings=allowed)
    assert ckptparse.read(path, limits=enough)["b"].tolist() == [b""] * 2000
    assert ckptparse.verify(path, limits=enough).ok
    few = replace(DEFAULT_LIMITS, strings=allowed - 256)
    with pytest.raises(ckptparse.LimitError) as caught:
        ckptparse.open(path, limits=few)
    assert caught.value.limit == "strings"
    report = ckptparse.verify(path, limits=few)
    assert ["Limits.strings" in message for message in limits_of(report)] == [True]
    assert not report.tensors


def test_a_map_file_has_as_many_lines_as_its_bytes_allow() -> None:
    lines = b"0 ? 1\n" + b"".join(b"%d 1 -\n" % (2 * number) for number in range(200))
    allowed = 201 - len(lines) // 16
    found = Mapfile.from_bytes(lines, limits=replace(DEFAULT_LIMITS, single_entries=allowed))
    assert len(found.bad) == 200
    with pytest.raises(ckptparse.LimitError, match=r"Limits\.single_entries"):
        Mapfile.from_bytes(lines, limits=replace(DEFAULT_LIMITS, single_entries=allowed - 1))


def test_of_a_map_file_those_ranges_are_looked_at_that_lie_within() -> None:
    class Counted(tuple[tuple[int, int], ...]):
        __slots__ = ()
        taken = 0

        def __getitem__(self, number: Any) -> Any:
            type(self).taken += 1
            return super().__getitem__(number)

    bad = Counted((4 * number, 4 * number + 2) for number in range(10_000))
    assert Mapfile(bad).within(20_001, 20_010) == [(0, 1), (3, 5), (7, 9)]
    assert Counted.taken < 30


def test_ranges_of_a_map_file_that_overlap_are_one() -> None:
    found = Mapfile.from_bytes(b"0 ? 1\n8 4 -\n0 9 -\n3 2 +\n20 1 ?\n")
    assert found.bad == ((0, 12), (20, 21))


def image_and_state(directory: Path, **changed: object) -> tuple[Path, Path]:
    image = image_of_scalars(directory, 20)
    ckptparse.scan(image, state=directory / "state")
    told = json.loads((directory / "state").read_bytes())
    (directory / "state").write_text(json.dumps({**told, **changed}))
    return image, directory / "state"


def test_a_scan_takes_as_many_places_of_its_state_file_as_that_has_bytes_for(
    tmp_path: Path,
) -> None:
    image, state = image_and_state(tmp_path, placements=[[0, 0, 4, 1]] * 200)
    tables = len(json.loads(state.read_bytes())["tables"])
    allowed = 200 + tables - state.stat().st_size // 24
    enough = replace(DEFAULT_LIMITS, small_tensors=allowed)
    few = replace(DEFAULT_LIMITS, small_tensors=allowed - 1)
    before = state.read_bytes()
    assert ckptparse.scan(image, state=state, limits=enough)
    state.write_bytes(before)
    with pytest.raises(ckptparse.LimitError) as caught:
        ckptparse.scan(image, state=state, limits=few)
    assert caught.value.limit == "small_tensors"


@pytest.mark.parametrize(
    "changed",
    [
        {"tables": [["0", 48, "v2"]]},
        {"tables": [[0, [], "v2"]]},
        {"tables": [[-1, 48, "v2"]]},
        {"tables": [[0, 1 << 40, "v2"]]},
        {"tables": [[0, 48, ["v2"]]]},
        {"tables": [[0, 48, "v3"]]},
        {"tables": [[0, 48, "v2", 1]]},
        {"tables": [3]},
        {"placements": [["0", 0, 4, 1]]},
        {"placements": [[0, None, 4, 1]]},
        {"placements": [[0, -1, 4, 1]]},
        {"placements": [[0, 0, 4, 1 << 40]]},
        {"placements": [[0, 0, 1.5, 1]]},
        {"placements": [[0, 0, 4]]},
    ],
)
def test_a_state_file_of_other_things_than_places_is_malformed(
    tmp_path: Path, changed: dict[str, object]
) -> None:
    image, state = image_and_state(tmp_path, **changed)
    with pytest.raises(ckptparse.MalformedError, match="state file of a scan"):
        ckptparse.scan(image, state=state)


def test_a_file_of_shapes_has_as_many_names_as_its_bytes_allow(tmp_path: Path) -> None:
    prefix = ckptparse.write(tmp_path / "m", {"w": np.arange(4, dtype=np.float32)})
    Path(f"{prefix}.index").unlink()
    text = json.dumps({"w": [4], **{f"x{number}": [0] for number in range(200)}})
    shapes = tmp_path / "shapes.json"
    shapes.write_text(text)
    allowed = 201 - len(text) // 40
    enough = replace(DEFAULT_LIMITS, small_tensors=allowed)
    assert ckptparse.recover(prefix, shapes=shapes, limits=enough)["w"].read().tolist() == [
        0,
        1,
        2,
        3,
    ]
    few = replace(DEFAULT_LIMITS, small_tensors=allowed - 1)
    with pytest.raises(ckptparse.LimitError, match=r"Limits\.small_tensors"):
        ckptparse.recover(prefix, shapes=shapes, limits=few)


def test_a_report_that_names_a_file_again_and_again_has_it_hashed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    prefix = ckptparse.write(tmp_path / "in" / "m", {"w": np.arange(4.0)})
    ckptparse.recover(prefix, hashes=True).write(tmp_path / "out", report=tmp_path / "report.json")
    told = json.loads((tmp_path / "report.json").read_bytes())
    told["report"]["inputs"] *= 100
    (tmp_path / "report.json").write_text(json.dumps(told))
    hashed = counted(monkeypatch, replaying, "hash_files")
    ckptparse.replay(tmp_path / "report.json")
    assert len(hashed.given) == len(told["report"]["inputs"]) // 100


def test_what_names_tell_is_asked_of_as_many_as_the_files_have_bytes_for(tmp_path: Path) -> None:
    values = {f"w{n:03}/Adam": np.float16(n) for n in range(100)}
    values |= {f"w{n:03}": np.float16(n) for n in range(100)}
    prefix = ckptparse.write(tmp_path / "m", values)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    allowed = 200 - size // 512
    with ckptparse.open(prefix, limits=replace(DEFAULT_LIMITS, small_tensors=allowed)) as opened:
        assert len(list(opened.tree())) >= 200
        assert opened.layers
        assert opened.optimizers
        assert not opened.averages
    few = replace(DEFAULT_LIMITS, small_tensors=allowed - 1)
    with ckptparse.open(prefix, limits=few) as opened:
        assert opened.step is None
        assert len(opened.places().names) == 200
        for ask in (
            opened.tree,
            lambda: opened.layers,
            lambda: opened.optimizers,
            lambda: opened.averages,
        ):
            with pytest.raises(ckptparse.LimitError) as caught:
                ask()
            assert caught.value.limit == "small_tensors"
    page = tmp_path / "page.html"
    ckptparse.report_page(prefix, page, limits=few)
    assert "Limits.small_tensors" in page.read_text()


@pytest.mark.parametrize("lost", ["index", "bytes"])
def test_of_another_checkpoint_only_so_many_tensors_are_evidence(
    lost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {f"w{number:03}": np.float32(number) for number in range(100)}
    prefix = Path(ckptparse.write(tmp_path / "m", values))
    (tmp_path / "other").mkdir()
    other = ckptparse.write(tmp_path / "other" / "m", values)
    if lost == "index":
        (tmp_path / "m.index").unlink()
    else:
        data = tmp_path / "m.data-00000-of-00001"
        data.write_bytes(b"\xff" * 8 + data.read_bytes()[8:])
    size = sum(path.stat().st_size for path in (tmp_path / "other").iterdir())

    def recovered(allowed: int) -> int:
        limits = replace(DEFAULT_LIMITS, small_tensors=allowed - size // 512)
        return len(ckptparse.recover(prefix, evidence=[other], siblings=False, limits=limits))

    assert recovered(100) == 100
    placed = counted(monkeypatch, fit._Shard, "place")
    saves: list[siblings._Save] = []
    make = siblings._Save

    def keep(view: IndexView, most: int, *moved: Any) -> siblings._Save:
        saves.append(make(view, most, *moved))
        return saves[-1]

    monkeypatch.setattr(siblings, "_Save", keep)
    assert recovered(99) == (0 if lost == "index" else 100)
    assert not placed.given
    assert [len(save._numbers) for save in saves] == ([] if lost == "index" else [99])


def test_the_index_of_many_data_files_of_the_evidence_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {f"w{number:03}": np.float32(number) for number in range(20)}
    prefix = Path(ckptparse.write(tmp_path / "m", values))
    (tmp_path / "m.index").unlink()
    made = b.Bundle()
    for number in range(30):
        made.add(f"v{number:03}", np.float32(number), shard=number)
    (tmp_path / "other").mkdir()
    made.write(tmp_path / "other" / "m")
    opened = counted(monkeypatch, tables, "_open_index")
    ckptparse.recover(prefix, evidence=[tmp_path / "other"], siblings=False)
    assert sum("other" in str(given) for given in opened.given) == 1


def test_as_many_strings_are_read_as_the_files_have_bytes_for(tmp_path: Path) -> None:
    values = {f"w{number:03}": np.array([b"abc", b""], object) for number in range(200)}
    prefix = ckptparse.write(tmp_path / "m", values | {"x": np.float32(1)})
    allowed = 200 - sum(path.stat().st_size for path in tmp_path.iterdir()) // 512
    enough = replace(DEFAULT_LIMITS, small_tensors=allowed)
    assert ckptparse.read(prefix, limits=enough)["w199"].tolist() == [b"abc", b""]
    few = replace(DEFAULT_LIMITS, small_tensors=allowed - 1)
    with pytest.raises(ckptparse.LimitError, match="number of tensors") as caught:
        ckptparse.read(prefix, limits=few)
    assert caught.value.limit == "small_tensors"
    assert len(ckptparse.read(prefix, include="w00*", limits=few)) == 10


def test_as_many_entries_are_written_oddly_as_the_files_have_bytes_for(tmp_path: Path) -> None:
    made = b.Bundle()
    for number in range(200):
        # More fields than are read together with those of other entries.
        made.add(f"w{number:03}", np.float32(number), extra=b.field(15, 1) * 16)
    prefix = made.write(tmp_path / "m")
    allowed = 200 - sum(path.stat().st_size for path in tmp_path.iterdir()) // 512
    enough = replace(DEFAULT_LIMITS, small_tensors=allowed, single_entries=20)
    assert len(ckptparse.read(prefix, limits=enough)) == 200
    assert ckptparse.verify(prefix, limits=enough).ok
    few = replace(enough, small_tensors=allowed - 1)
    with pytest.raises(ckptparse.LimitError, match="not written as protobuf writes") as caught:
        ckptparse.read(prefix, limits=few)
    assert caught.value.limit == "small_tensors"
    for job in (ckptparse.verify, lambda *a, **o: ckptparse.recover(*a, **o).report):
        report = job(prefix, limits=few)
        assert {one.code for one in report.problems} >= {"limit.reached"}
        assert 20 <= len(report.tensors) < 30


def test_as_many_sound_strings_are_checked_as_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {f"w{number:03}": np.array([b"abc", b""], object) for number in range(200)}
    prefix = ckptparse.write(tmp_path / "m", values)
    allowed = 200 - sum(path.stat().st_size for path in tmp_path.iterdir()) // 512
    enough = replace(DEFAULT_LIMITS, small_tensors=allowed, single_entries=20)
    assert ckptparse.verify(prefix, limits=enough).ok
    looked = counted(monkeypatch, intact, "check_payload")
    report = ckptparse.verify(prefix, limits=replace(enough, small_tensors=allowed - 1))
    assert not looked.given and 20 <= len(report.tensors) < 30
    assert "limit.reached" in {one.code for one in report.problems}


def test_of_very_many_files_beside_a_damaged_checkpoint_the_nearest_by_name_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        ckptparse.write(tmp_path / f"m-{number:02}", {"w": np.arange(number, number + 20.0)})
    data = tmp_path / "m-20.data-00000-of-00001"
    # It is whole in the files of the next one.
    swapped = tmp_path / "m-21.data-00000-of-00001"
    held, other = data.read_bytes(), swapped.read_bytes()
    data.write_bytes(other)
    swapped.write_bytes(held)
    listed = counted(monkeypatch, local.LocalStorage, "list")
    report = ckptparse.verify(tmp_path / "m-20")
    # Seven times, once.
    assert len(listed.given) <= 3
    assert "limit.reached" not in {problem.code for problem in report.problems}
    for module in (folders, diagnose):
        monkeypatch.setattr(module, "MOST_NAMES", 10)
    found = ckptparse.verify(tmp_path / "m-20")
    (problem,) = [one for one in found.problems if one.code == "limit.reached"]
    assert problem.message.startswith("70 of the files beside it were not looked at")
    rest = [one.code for one in found.problems if one is not problem]
    assert rest == [one.code for one in report.problems]


@pytest.mark.parametrize("examine", [ckptparse.verify, lambda path: ckptparse.recover(path).report])
def test_of_very_many_temporary_files_the_first_are_looked_at(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    examine: Callable[[Path], ckptparse.Report],
) -> None:
    ckptparse.write(tmp_path / "m", {"w": np.arange(20.0)})
    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(8))
    for number in range(30):
        (tmp_path / f"m.data-00000-of-00001.tempstate{number:02}").write_bytes(b"x")
    monkeypatch.setattr(parts, "MOST_NAMES", 10)
    monkeypatch.setattr(outlook, "_look_ahead", lambda *_: None)
    listed = counted(monkeypatch, local.LocalStorage, "list")
    opened = counted(monkeypatch, local.os, "open")
    report = examine(tmp_path / "m")
    (problem,) = [one for one in report.problems if one.code == "leftover.temporary"]
    assert "more than 10 temporary files, of which so many were looked at" in problem.message
    waiting = {path for path in opened.given if "tempstate" in path}
    assert waiting == {f"{tmp_path}/m.data-00000-of-00001.tempstate{n:02}" for n in range(10)}
    assert len(listed.given) == 1


def shuffled(directory: Path, count: int) -> str:
    """Write a checkpoint of small tensors whose data file has them in another order."""
    rng = np.random.default_rng(0)
    values = {
        f"w{number:04}": rng.normal(size=int(rng.integers(20, 40))) for number in range(count)
    }
    prefix = ckptparse.write(directory / "m", values)
    order = rng.permutation(list(values)).tolist()
    data = Path(f"{prefix}.data-00000-of-00001")
    data.write_bytes(b"".join(values[name].tobytes() for name in order))
    return prefix


def test_tensors_are_compared_at_a_bounded_number_of_distances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = shuffled(tmp_path, 3000)
    compared = counted(monkeypatch, diagnose.Place, "hold_rows")
    report = ckptparse.verify(prefix)
    many = len(compared.given)
    assert not any("all distances" in told for told in limits_of(report))
    compared.given.clear()
    monkeypatch.setattr(diagnose, "_COMPARED", 1)
    monkeypatch.setattr(diagnose, "_COMPARED_BYTES", 1 << 20)
    (told,) = limits_of(ckptparse.verify(prefix))
    assert "not all tensors were sought at all distances" in told and "Limits.attempts" in told
    assert 0 < len(compared.given) < many / 2
