"""Tables whose blocks are named more often than they are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builder as b
import numpy as np
import pytest
from attacking import attempt

import ckptparse
from ckptparse.table.format import BlockHandle


def test_a_block_that_the_index_names_a_thousand_times_is_told_once(tmp_path: Path) -> None:
    one = b.Stored(b.block([(b"", b.Header().to_bytes(1)), (b"w", bytes(4_000))]), key=b"z")
    size = len(one.payload())
    keys = [f"{number:05d}".encode() for number in range(2_000)]
    index = b.Stored(b.block([(key, b.handle(0, size)) for key in keys]))
    path = tmp_path / "m.index"
    path.write_bytes(b.assemble([one], index=index).data)
    assert attempt(path, "annotate") == {"annotate": "value"}
    found = attempt(path, "list", "read", "verify", "recover")
    assert found == {"list": "MalformedError", "read": "MalformedError"} | dict.fromkeys(
        ("verify", "recover"), "value"
    )


def test_handles_are_read_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of all that is before each would take the square of their number."""
    one = b.Stored(b.block([(b"", b.Header().to_bytes(1))]), key=b"z")
    handle = b.handle(0, len(one.payload()))
    contents = b.block([(f"{number:05d}".encode(), handle) for number in range(200)])
    path = tmp_path / "m.index"
    path.write_bytes(b.assemble([one], index=b.Stored(contents)).data)
    read = BlockHandle.from_bytes
    sizes = []

    def noted(data: bytes, *places: Any) -> Any:
        sizes.append(len(data))
        return read(data, *places)

    monkeypatch.setattr(BlockHandle, "from_bytes", noted)
    handles = [one for one in ckptparse.annotate(path) if one.what == "block handle"]
    assert len(handles) == 200
    assert sizes.count(len(contents)) >= 400
    assert len(set(sizes)) < 5


def swollen(count: int) -> bytes:
    """A table whose keys each add a byte to the one before: count entries, count**2 / 2 bytes."""
    header = b.entry(b"", b.Header().to_bytes(1))
    value = b.Entry(b.FLOAT, (0,), crc=b.mask(0)).to_bytes()
    entries = b"".join(b.entry(b"x", value, shared=number) for number in range(count))
    return b.assemble([b.Stored(b.close_block(header + entries), key=b"y")]).data


def test_keys_that_share_all_but_a_byte_are_refused_before_they_are_written_out(
    tmp_path: Path,
) -> None:
    path = tmp_path / "m.index"
    path.write_bytes(swollen(30_000))
    assert path.stat().st_size < 600_000
    found = attempt(path)
    assert found["list"] == found["read"] == "LimitError"


def test_such_keys_are_told_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "m.index"
    path.write_bytes(swollen(30_000))
    told = ckptparse.annotate(path, limits=ckptparse.Limits(parts=1_000_000))
    parts = [part for part in told if part.depth == 1 and not part.unpacked]
    (rest,) = [part for part in parts if part.what == "bytes"]
    assert rest.broken and "key_bytes" in rest.value


def test_a_name_that_is_not_there_costs_no_more(tmp_path: Path) -> None:
    path = tmp_path / "m.index"
    path.write_bytes(swollen(30_000))
    assert attempt(path, "missing") == {"missing": "LimitError"}


def test_millions_of_bytes_of_entries_that_nothing_covers_cost_little(tmp_path: Path) -> None:
    value = b.Entry(b.FLOAT, (1,), 0, 0, 4, 12_345).to_bytes()
    one = b.entry(b"x", value)
    falling = b"".join(b.entry(b"%07d" % number, value) for number in range(100_000, 0, -1))
    stored = b.Stored(b.block([(b"k", value)]), key=b"z").payload() + bytes(5)
    for contents in (one * 150_000, falling, stored * 80_000):
        (tmp_path / "m.index").write_bytes(contents)
        (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(range(256)))
        assert attempt(tmp_path / "m", "recover") == {"recover": "value"}


@pytest.mark.parametrize("place", [(1 << 40, 9), (20, 1 << 40), (100, 60)])
def test_every_byte_is_told_once_whatever_a_handle_says(
    tmp_path: Path, place: tuple[int, int]
) -> None:
    made = b.Bundle()
    made.add("w", [1.0])
    table = made.table()
    for footer in (b.Footer(place, table.index), b.Footer(table.metaindex, place)):
        path = tmp_path / "m.index"
        path.write_bytes(table.data[:-48] + footer.to_bytes())
        parts = [part for part in ckptparse.annotate(path, depth=0) if part.size]
        assert [part.offset for part in parts[1:]] == [a.offset + a.size for a in parts[:-1]]
        assert parts[-1].offset + parts[-1].size == path.stat().st_size


def test_a_small_image_whose_index_tells_of_terabytes_costs_little(tmp_path: Path) -> None:
    made = b.Bundle()
    made.add("w", np.arange(2000, dtype=np.float32))
    made.entries[b"z"] = b.Entry(b.INT8, (1 << 44,), 0, 20_000, 1 << 44, 123)
    files = made.files("m")
    data = files["m.data-00000-of-00001"].ljust(8192, b"\0")
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(4096) + data + files["m.index"] + bytes(4096))
    assert attempt(path, "recover") == {"recover": "value"}
    (found,) = ckptparse.scan(path)
    assert found.nbytes == 20_000 + (1 << 44)
    assert list(found.recover()["w"].read()) == list(range(2000))


PAIRS = [(b"", b.Header().to_bytes(1)), (b"a", b"")]
"""Entries that begin at the bytes 0 and 9 of their block."""


def write_block(folder: Path, contents: bytes) -> Path:
    path = folder / "m.index"
    path.write_bytes(b.assemble([b.Stored(contents, key=b"z")]).data)
    return path


@pytest.mark.parametrize("restarts", [(), (9,), (0, 9, 9), (0, 1 << 20), (9, 0), (0, 4)])
def test_restarts_that_verify_calls_wrong_are_marked(
    tmp_path: Path, restarts: tuple[int, ...]
) -> None:
    path = write_block(tmp_path, b.block(PAIRS, restart_interval=1, restarts=restarts))
    assert "index.block" in {one.code for one in ckptparse.verify(path).problems}
    broken = [part.what for part in ckptparse.annotate(path) if part.broken]
    assert broken == ["restarts" if restarts else "number of restarts"]


def test_an_entry_that_shares_bytes_at_a_restart_is_marked(tmp_path: Path) -> None:
    body = b"".join(b.entry(*pair) for pair in PAIRS) + b.entry(b"b", b"", shared=1)
    path = write_block(tmp_path, b.close_block(body, [0, 13]))
    assert attempt(path, "list") == {"list": "MalformedError"}
    broken = [part for part in ckptparse.annotate(path) if part.broken]
    assert [(part.what, part.value) for part in broken] == [("entry", "'ab'")]
