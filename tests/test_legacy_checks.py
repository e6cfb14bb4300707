"""The checks of the V1 reader, each by the smallest input that needs it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import builder
import numpy as np
import pytest
from v1_builder import LegacyFile

import ckptparse
from ckptparse import ClosedError, LimitError, Limits, MalformedError
from ckptparse.backend import DEFAULT_OPTIONS
from ckptparse.files.context import Context
from ckptparse.files.fingerprint import fingerprint_of
from ckptparse.files.local import LOCAL
from ckptparse.files.memory import MemorySource, MemoryStorage
from ckptparse.legacy.metadata import decode_metadata, read_metadata
from ckptparse.legacy.reader import LegacyReader, RecordPayload
from ckptparse.limits import DEFAULT_LIMITS, Budget
from ckptparse.table.reader import Table

pytestmark = pytest.mark.proto


def write(path: Path, *names: str) -> Path:
    made = LegacyFile()
    for name in names:
        made.add(name, np.arange(3, dtype=np.float32))
    return made.write(path)


def meta(*fields: bytes) -> bytes:
    return builder.field(1, b"".join(fields) + builder.field(2, builder.version_proto()))


def listed(name: bytes, *rest: bytes) -> bytes:
    """SavedSliceMeta: name, shape [2], DataType 3, one slice that is all of it, and more."""
    whole = builder.slice_proto([None])
    parts = (builder.field(1, name), builder.field(2, builder.shape_proto([2])))
    return builder.field(1, b"".join((*parts, builder.field(3, 3), builder.field(4, whole), *rest)))


def test_a_file_without_a_list_is_malformed(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(builder.table([(b"\x00a", b"x")]).data)
    table = Table.open(LOCAL.open(str(tmp_path / "m")), limits=DEFAULT_LIMITS)
    with pytest.raises(MalformedError, match="empty key"):
        read_metadata(table, limits=DEFAULT_LIMITS)


def test_as_many_tensors_as_the_limit_says_are_listed_and_no_more() -> None:
    value = meta(listed(b"a"), listed(b"b"))
    assert len(decode_metadata(value, limits=Limits(entries=2))) == 2
    with pytest.raises(LimitError) as caught:
        decode_metadata(value, limits=Limits(entries=1))
    assert caught.value.limit == "entries"


def test_fields_that_are_unknown_count_for_nothing() -> None:
    """Numbers and messages of other fields: the DataType and the versions stay as they are."""
    value = meta(
        listed(b"a", builder.field(9, 77), builder.field(10, b"\xff")), builder.field(9, b"\xff")
    )
    (found,) = decode_metadata(value, limits=DEFAULT_LIMITS)
    assert (found.name, found.data_type, found.shape) == ("a", 3, (2,))


def test_a_data_type_that_is_no_number_counts_for_nothing() -> None:
    (found,) = decode_metadata(meta(listed(b"a", builder.field(3, b"\x07"))), limits=DEFAULT_LIMITS)
    assert found.data_type == 3


def test_each_way_to_ask_a_closed_reader_is_an_error_that_names_its_file(tmp_path: Path) -> None:
    names = [str(write(tmp_path / "m-00000-of-00002", "a")), str(write(tmp_path / "n", "b"))]
    reader = LegacyReader.open(names, Context())
    tensor = reader.find("b", DEFAULT_OPTIONS)
    assert tensor is not None
    reader.close()
    for ask in (
        reader.shapes,
        lambda: reader.find("a", DEFAULT_OPTIONS),
        lambda: list(reader.iter_tensors(DEFAULT_OPTIONS)),
        reader.fingerprint,
        reader.check_open,
    ):
        with pytest.raises(ClosedError) as caught:
            ask()
        assert caught.value.path == names[0]
    with pytest.raises(ClosedError) as caught:
        tensor.read()
    assert caught.value.path == names[1]


def test_a_record_that_was_read_is_not_read_again_to_verify_it(tmp_path: Path) -> None:
    reader = LegacyReader.open([str(write(tmp_path / "m", "a", "b"))], Context())
    read, unread = (reader._make_payload(name, reader._tensors[name]) for name in ("a", "b"))
    assert isinstance(read, RecordPayload)
    read.read(DEFAULT_OPTIONS)
    reader.close()
    read.verify(DEFAULT_OPTIONS)
    with pytest.raises(ClosedError):
        unread.verify(DEFAULT_OPTIONS)


def test_a_part_of_a_tensor_takes_all_of_its_record_whole_or_in_slices(tmp_path: Path) -> None:
    made = LegacyFile()
    made.add("whole", np.arange(4, dtype=np.float32))
    parts = made.declare("parts", (4,), builder.FLOAT)
    for start in (0, 2):
        made.add_slice(parts, [(start, 2)], np.arange(start, start + 2, dtype=np.float32))
    with ckptparse.open(made.write(tmp_path / "m")) as checkpoint:
        for name in ("whole", "parts"):
            assert checkpoint[name][1:3].tolist() == [1, 2]
            assert checkpoint[name].payload.is_read_whole


def test_tensors_of_one_call_share_a_budget_and_one_alone_has_its_own(tmp_path: Path) -> None:
    made = LegacyFile()
    for name in ("a", "b"):
        made.add(name, np.array([b"ab"] * 20_000, object))
    path = made.write(tmp_path / "m")
    one, both = 1_200_000, 2_400_000
    assert len(ckptparse.read(path, limits=Limits(memory_bytes=both))) == 2
    with pytest.raises(LimitError, match="memory_bytes"):
        ckptparse.read(path, limits=Limits(memory_bytes=one))
    with ckptparse.open(path, limits=Limits(memory_bytes=one)) as checkpoint:
        assert len(checkpoint["a"].read()) == len(checkpoint["b"].read()) == 20_000
    with (
        ckptparse.open(path, limits=Limits(memory_bytes=one // 4)) as checkpoint,
        pytest.raises(LimitError, match="memory_bytes"),
    ):
        checkpoint["a"].read()


def refuse_order(pairs: list[builder.Pair], path: Path) -> None:
    """See that a file of one block with these entries is refused when it is opened."""
    path.write_bytes(builder.assemble([builder.Stored(builder.block(pairs), key=b"\xff")]).data)
    with pytest.raises(MalformedError, match="strictly increase"):
        LegacyReader.open([str(path)], Context())


def test_a_key_twice_in_a_block_is_an_error_for_who_reads_one_tensor(tmp_path: Path) -> None:
    made = LegacyFile()
    for name in "abcd":
        made.add(name, np.float32(1))
    pairs = made.pairs()
    pairs.insert(3, pairs[3])
    refuse_order(pairs, tmp_path / "m")


def test_keys_out_of_order_across_blocks_are_an_error_for_who_reads_one_tensor(
    tmp_path: Path,
) -> None:
    """Each block by itself is right, and the name that is asked for lies in the first of them."""
    made = LegacyFile()
    for name in "abcd":
        made.add(name, np.float32(1))
    pairs = made.pairs()
    blocks = [
        builder.Stored(builder.block(part), key=key)
        for part, key in ((pairs[:3], b""), (pairs[3:], b"\xff"))
    ]
    path = tmp_path / "m"
    path.write_bytes(builder.assemble(blocks).data)
    with pytest.raises(MalformedError, match="strictly increase"), ckptparse.open(path) as opened:
        opened["a"].read()


def test_a_key_twice_at_two_restarts_is_an_error_for_who_reads_another(tmp_path: Path) -> None:
    """A search looks at 16 entries. The ones that are wrong are others."""
    made = LegacyFile()
    for number in range(40):
        made.add(f"t{number:02}", np.float32(number))
    pairs = made.pairs()
    pairs.insert(36, pairs[36])
    refuse_order(pairs, tmp_path / "m")


def test_as_many_files_as_the_limit_says_are_opened_and_no_more(tmp_path: Path) -> None:
    names = [str(write(tmp_path / name, name)) for name in "ab"]
    opened = LegacyReader.open(names, Context(limits=Limits(shards=8)))
    assert list(opened.shapes()) == ["a", "b"]
    opened.close()
    with pytest.raises(LimitError) as caught:
        LegacyReader.open(names, Context(limits=Limits(shards=7)))
    assert caught.value.limit == "shards"


def test_a_closed_reader_of_files_in_memory_has_no_fingerprint(tmp_path: Path) -> None:
    """Their bytes can still be read, since they belong to the caller."""
    data = write(tmp_path / "m", "a").read_bytes()
    reader = LegacyReader.open(["m"], Context(storage=MemoryStorage({"m": data})))
    assert reader.fingerprint() == (fingerprint_of(MemorySource("m", data)),)
    reader.close()
    with pytest.raises(ClosedError):
        reader.fingerprint()


def test_every_file_of_a_reader_is_closed_with_it(tmp_path: Path) -> None:
    closed: list[str] = []

    class Closing(MemorySource):
        def close(self) -> None:
            closed.append(self.path)

    class Files(MemoryStorage):
        def open(self, path: str) -> Closing:
            return Closing(path, (tmp_path / path).read_bytes())

    for name in "ab":
        write(tmp_path / name, name)
    reader = LegacyReader.open(["a", "b"], Context(storage=Files({})))
    assert closed == []
    reader.close()
    assert closed == ["a", "b"]
    # If one of them is no checkpoint, those that were opened before are closed, and it is, too.
    (tmp_path / "b").write_bytes(b"")
    with pytest.raises(ckptparse.CheckpointError):
        LegacyReader.open(["a", "b"], Context(storage=Files({})))
    assert sorted(closed) == ["a", "a", "b", "b"]


def test_a_tensor_takes_from_the_budget_that_it_is_read_with(tmp_path: Path) -> None:
    reader = LegacyReader.open([str(write(tmp_path / "m", "a"))], Context())
    payload = reader._make_payload("a", reader._tensors["a"])
    assert payload.read(replace(DEFAULT_OPTIONS, budget=None)).tolist() == [0, 1, 2]
    budget = Budget(Limits(memory_bytes=12), 0)
    assert payload.read(replace(DEFAULT_OPTIONS, budget=budget)).tolist() == [0, 1, 2]
    with pytest.raises(LimitError, match="memory_bytes"):
        payload.read(replace(DEFAULT_OPTIONS, budget=budget))
    reader.close()
