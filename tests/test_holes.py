"""Pages of zeros that touch a run of bytes: told of short runs without a look at whole pages."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ckptparse.examination.readers import DataFile, DataFiles, find_holes
from ckptparse.files.context import Context

PAGE = 4096


def pages_of_zeros(data: bytes, offset: int, size: int) -> tuple[tuple[int, int], ...]:
    """Find them the slow way."""
    spans: list[tuple[int, int]] = []
    for start in range(0, len(data), PAGE):
        stop = min(start + PAGE, len(data))
        low, high = max(start, offset), min(stop, offset + size)
        if low < high and not any(data[start:stop]):
            if spans and spans[-1][1] == low - offset:
                spans[-1] = (spans[-1][0], high - offset)
            else:
                spans.append((low - offset, high - offset))
    return tuple(spans)


@settings(max_examples=150)
@given(
    pages=st.lists(st.sampled_from(["zeros", "first", "last", "full"]), min_size=1, max_size=4),
    offset=st.integers(0, 9000),
    size=st.integers(1, 5000),
    rest=st.integers(0, 300),
)
@example(pages=["full", "zeros"], offset=4000, size=200, rest=0)
@example(pages=["zeros", "full"], offset=4000, size=200, rest=0)
@example(pages=["zeros", "last"], offset=4096, size=4096, rest=0)
def test_holes_are_the_pages_of_zeros_that_a_run_touches(
    tmp_path_factory: pytest.TempPathFactory, pages: list[str], offset: int, size: int, rest: int
) -> None:
    kinds = {
        "zeros": bytes(PAGE),
        "first": b"\1".ljust(PAGE, b"\0"),
        "last": b"\1".rjust(PAGE, b"\0"),
        "full": b"\1" * PAGE,
    }
    data = b"".join(kinds[page] for page in pages) + bytes(rest)
    offset = min(offset, len(data) - 1)
    size = min(size, len(data) - offset)
    expected = pages_of_zeros(data, offset, size)
    path = tmp_path_factory.mktemp("holes") / "m"
    path.write_bytes(data)
    with closing(DataFiles(Context())) as files:
        assert find_holes(files, DataFile(str(path)), offset, size) == expected


def test_of_small_tensors_here_and_there_not_much_more_is_read(tmp_path: Path) -> None:
    """Each place that does not follow the one before took a read of 1 MiB."""
    path = tmp_path / "m"
    path.write_bytes(np.random.default_rng(1).bytes(8 << 20))
    told: list[int] = []
    context = Context(progress=lambda done, _: told.append(done))
    with closing(DataFiles(context)) as files:
        files.begin(1 << 40)
        file = DataFile(str(path))
        for number in range(100):
            at = (number * 5 % 8 << 20) + 4 * number
            assert files.read(file, at, 64) == path.read_bytes()[at : at + 64]
        assert told[-1] < 4 << 20
        told.clear()
        files.begin(1 << 40)
        for at in range(0, 8 << 20, 1 << 12):
            files.read(file, at, 1 << 12)
        assert told[-1] <= 8 << 20
        assert len(told) <= 10  # From start to end, the file is read in large pieces.
