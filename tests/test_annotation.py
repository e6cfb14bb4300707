"""`annotate` accounts for every byte of a file, and survives whatever happened to it."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import builder as b
import expected
import numpy as np
import pytest
import v1_builder

import ckptparse
from ckptparse import Annotation, Limits, annotate
from ckptparse.annotation import messages, tables
from ckptparse.bundle.columns import EntryColumns
from ckptparse.bundle.entry import BundleEntry
from ckptparse.proto import wire
from ckptparse.table.format import BlockHandle

MESSAGES = [
    "saver/my_model.meta",
    "graphs/frozen_tf1/frozen.pb",
    "saved_model/keras2_sequential/saved_model.pb",
]


def annotated_files() -> list[Path]:
    """Every index, data file and V1 file, and some messages."""
    found = [expected.FIXTURES / name for name in MESSAGES]
    for path in sorted(expected.FIXTURES.rglob("*")):
        if "crash" in path.parts or not path.is_file() or path.suffix in (".json", ".meta"):
            continue
        v1 = "v1" in path.parts and path.name != "checkpoint"
        if v1 or path.suffix == ".index" or ".data-" in path.name:
            found.append(path)
    return found


def name_of(path: Path) -> str:
    return path.relative_to(expected.FIXTURES).as_posix()


@pytest.mark.parametrize("path", annotated_files(), ids=name_of)
def test_every_byte_of_what_tensorflow_wrote_is_in_one_part_and_none_is_broken(path: Path) -> None:
    ends = [0]
    for part in annotate(path):
        assert not part.broken
        # What came before on this level ends here; what is around it does not end yet.
        if part.depth + 1 < len(ends):
            del ends[part.depth + 1 :]
        assert part.depth + 1 == len(ends), "one level deeper at a time"
        assert part.offset == ends[-1] if not part.depth else part.offset >= ends[-1]
        ends[-1] = part.offset + part.size
        if part.depth:
            assert ends[-1] <= ends[-2]
        ends.append(part.offset)
    assert ends[0] == path.stat().st_size


def test_an_index_is_taken_apart_down_to_the_fields_of_its_entries(fixtures: Path) -> None:
    parts = [(part.what, part.value) for part in annotate(fixtures / "saver" / "my_model")]
    start = parts.index(("entry", "'bias'"))
    assert parts[start : start + 12] == [
        ("entry", "'bias'"),
        ("shared", "0"),
        ("non-shared", "4"),
        ("value size", "15"),
        ("key", "'bias'"),
        ("value: BundleEntryProto", ""),
        ("dtype", "1 DT_FLOAT"),
        ("shape: TensorShapeProto", ""),
        ("dim: Dim", ""),
        ("size", "4"),
        ("size", "16"),
        ("crc32c", "0xfd03a51e (unmasked 0x5d232d40)"),
    ]


@pytest.mark.parametrize(
    "name", ["my_model.index", "my_model.data-00000-of-00001", "my_model.meta"]
)
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_less_depth_leaves_out_what_lies_deeper_and_nothing_else(
    name: str, depth: int, fixtures: Path
) -> None:
    path = fixtures / "saver" / name
    wanted = [part for part in annotate(path) if part.depth <= depth]
    assert list(annotate(path, depth=depth)) == wanted


def test_a_data_file_is_told_apart_by_the_index_beside_it(fixtures: Path) -> None:
    path = fixtures / "saver" / "my_model.data-00000-of-00001"
    found = [(part.offset, part.size, part.what) for part in annotate(path) if not part.depth]
    assert found == [(0, 16, "tensor bias"), (16, 48, "tensor weights")]


def test_the_object_graph_in_a_data_file_is_a_message(fixtures: Path) -> None:
    path = fixtures / "objects" / "write" / "model.data-00000-of-00001"
    assert "nodes: TrackableObject" in [part.what for part in annotate(path)]


def test_a_flipped_bit_marks_its_block_and_nothing_else(tmp_path: Path, fixtures: Path) -> None:
    data = bytearray((fixtures / "saver" / "my_model.index").read_bytes())
    data[20] ^= 1
    path = tmp_path / "my_model.index"
    path.write_bytes(data)
    broken = [part.what for part in annotate(path) if part.broken and not part.depth]
    assert broken == ["data block 0"]


def test_what_was_cut_off_a_data_file_is_said(tmp_path: Path, fixtures: Path) -> None:
    for name in ("my_model.index", "my_model.data-00000-of-00001"):
        (tmp_path / name).write_bytes((fixtures / "saver" / name).read_bytes())
    path = tmp_path / "my_model.data-00000-of-00001"
    path.write_bytes(path.read_bytes()[:40])
    last = [part for part in annotate(path) if not part.depth][-1]
    assert last.broken
    assert "24 bytes are beyond the end" in last.value


@pytest.mark.parametrize("case", ["saver/my_model.index", "v1/strings/model"])
def test_whatever_a_table_was_cut_to_or_turned_into_is_annotated_or_refused(
    case: str, tmp_path: Path, fixtures: Path
) -> None:
    whole = (fixtures / case).read_bytes()
    path = tmp_path / "damaged.index"
    variants = [whole[:size] for size in range(0, len(whole), 7)]
    for position in range(0, len(whole), 3):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        variants.append(bytes(flipped))
    for variant in variants:
        path.write_bytes(variant)
        try:
            parts = list(annotate(path))
        except ckptparse.CheckpointError:
            continue
        assert all(0 <= part.offset <= len(variant) for part in parts if not part.unpacked)


def test_what_is_no_checkpoints_file_is_refused_by_its_name(fixtures: Path) -> None:
    with pytest.raises(ckptparse.NotACheckpointError) as caught:
        list(annotate(fixtures / "saver" / "checkpoint"))
    assert caught.value.identity.kind == "state-file"


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_of_very_many_parts_the_first_are_told_of_and_the_last_says_so(
    suffix: str, tmp_path: Path
) -> None:
    made = b.Bundle()
    for number in range(300):
        made.add(f"w{number:03}", np.float32(number))
    path = made.write(tmp_path / "m") + suffix
    every = list(annotate(path))
    held = sum(file.stat().st_size for file in tmp_path.iterdir())
    enough = len(every) - (held >> 7)
    assert list(annotate(path, limits=Limits(parts=enough))) == every
    *parts, last = annotate(path, limits=Limits(parts=enough - 1))
    assert parts == every[:-1]
    size = Path(path).stat().st_size
    assert (last.offset, last.offset + last.size, last.broken) == (parts[-1].offset, size, False)
    assert last.what == "bytes that were not looked at"
    assert f"Limits.parts allows {enough - 1:,}" in last.value


def test_a_graph_of_very_many_parts_is_told_of_in_part(fixtures: Path) -> None:
    path = fixtures / MESSAGES[0]
    parts = list(annotate(path, limits=Limits(parts=10)))
    assert len(parts) == 10 + (path.stat().st_size >> 7) + 1
    assert "Limits.parts" in parts[-1].value


def test_parts_that_lie_deeper_than_is_wanted_are_not_made(fixtures: Path) -> None:
    path = fixtures / MESSAGES[0]
    assert len(list(annotate(path, depth=0, limits=Limits(parts=1)))) == 1
    few = len(list(annotate(path, depth=1)))
    assert "Limits" not in list(annotate(path, depth=1, limits=Limits(parts=few)))[-1].value


def test_of_very_many_blocks_the_first_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = b.Bundle()
    for number in range(50):
        made.add(f"w{number:03}", np.float32(number))
    path = made.write(tmp_path / "m", block_size=32)
    blocks = [part.what for part in annotate(path, depth=0) if part.what.startswith("data block")]
    looked: list[object] = []
    make = BlockHandle.from_bytes

    def count(*given: object) -> object:
        looked.append(given)
        return make(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(BlockHandle, "from_bytes", count)
    parts = list(annotate(path, depth=0, limits=Limits(blocks=9)))
    assert len(looked) < len(blocks)
    assert [part.what for part in parts if part.what.startswith("data block")] == blocks[:9]
    skipped = parts[9]
    assert skipped.what == "bytes that were not looked at"
    assert "Limits.blocks allows 9" in skipped.value
    assert not skipped.broken


def test_a_data_file_has_only_those_entries_made_that_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = b.Bundle()
    for number in range(300):
        made.add(f"w{number:03}", np.float32(number))
    path = made.write(tmp_path / "m") + ".data-00000-of-00001"
    rows: list[int] = []
    make = EntryColumns.entry

    def count(columns: EntryColumns, row: int) -> BundleEntry:
        rows.append(row)
        return make(columns, row)

    monkeypatch.setattr(EntryColumns, "entry", count)
    parts = annotate(path)
    for _ in range(5):
        next(parts)
    assert len(rows) == 3


def test_of_a_broken_packed_field_only_what_is_broken_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ckptparse.proto.tensor_pb2 import TensorProto

    decoded: list[int] = []
    read = wire.read_varint

    def count(data: bytes, position: int, end: int) -> tuple[int, int]:
        decoded.append(position)
        return read(data, position, end)

    monkeypatch.setattr(messages, "read_varint", count)
    for content, words in (
        (b"\1" * 1000 + b"\x80", "byte 1000, found one that is cut off"),
        (b"\1" * 900 + b"\x80" * 10 + b"\1" * 90 + b"\x80", "byte 900, found one that is longer"),
    ):
        data = b.field(7, content)
        walked = messages.annotate_message(
            data, TensorProto.DESCRIPTOR, base=0, depth=0, wanted=9, limits=Limits()
        )
        (part,) = walked
        assert part.broken
        assert words in part.value
    assert len(decoded) == 2


def test_a_part_is_a_frozen_value() -> None:
    part = Annotation(1, 2, 3, "what")
    assert part == Annotation(offset=1, size=2, depth=3, what="what", value="", broken=False)
    assert hash(part) == hash(Annotation(1, 2, 3, "what"))
    assert copy.copy(part) == part
    assert dataclasses.replace(part, size=5) == Annotation(1, 5, 3, "what")
    with pytest.raises(dataclasses.FrozenInstanceError):
        part.size = 4  # type: ignore[misc]


def test_what_lies_in_groups_counts_as_parts_that_are_not_told_of(tmp_path: Path) -> None:
    deep = b"\xa3\x06" * 90 + b"\xa4\x06" * 90
    made = v1_builder.LegacyFile()
    for number in range(50):
        listed = made.declare(f"w{number:02}", (), b.FLOAT)
        listed.slices.append(v1_builder.Slice([], deep + b"\x2a\x04\x00\x00\x80\x3f"))
    path = made.write(tmp_path / "m")
    every = list(annotate(path))
    groups = [part for part in every if part.what.endswith("(group)")]
    assert len(groups) == 50 and {part.size for part in groups} == {len(deep) - 2}
    counted = len(every) + 50 * ((len(deep) - 2) // 8) - path.stat().st_size // 128
    assert list(annotate(path, limits=Limits(parts=counted))) == every
    assert "8 bytes of a group" in list(annotate(path, limits=Limits(parts=counted - 1)))[-1].value


def test_long_names_of_slices_that_no_writer_writes_are_shown_as_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys that share their start are far longer, all together, than their block."""
    decoded: list[int] = []
    decode = tables.decode_slice_key

    def noted(key: bytes) -> Any:
        decoded.append(len(key))
        return decode(key)

    monkeypatch.setattr(tables, "decode_slice_key", noted)
    for name, told in ((b"n" * 3000, 500), (b"n\x00\xff" * 1000, 0)):
        end = b.slice_key(b"", [])[1:]
        body = b.entry(b"", b.Header().to_bytes(1)) + b.entry(b"\0" + name)
        body += b"".join(
            b.entry(b"%03d" % number + end, shared=1 + len(name)) for number in range(500)
        )
        block = b.Stored(b.close_block(body), key=b"\1")
        path = tmp_path / "m.index"
        path.write_bytes(b.assemble([block]).data)
        decoded.clear()
        parts = [part for part in annotate(path) if part.what == "entry"]
        assert sum("of a scalar of" in part.value for part in parts) - told in (0, 1, 2, 3)
        assert len(decoded) - told <= 5
