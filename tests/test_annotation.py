"""`annotate` accounts for every byte of a file, and survives whatever happened to it."""

from __future__ import annotations

from pathlib import Path

import expected
import pytest

import ckptparse
from ckptparse import annotate

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
