"""Tables whose blocks are named more often than they are there."""

from __future__ import annotations

from pathlib import Path

import builder as b
from attacking import attempt


def test_a_block_that_the_index_names_a_thousand_times_is_told_once(tmp_path: Path) -> None:
    one = b.Stored(b.block([(b"", b.Header().to_bytes(1)), (b"w", bytes(4_000))]), key=b"z")
    size = len(one.payload())
    keys = [f"{number:05d}".encode() for number in range(5_000)]
    index = b.Stored(b.block([(key, b.handle(0, size)) for key in keys]))
    path = tmp_path / "m.index"
    path.write_bytes(b.assemble([one], index=index).data)
    assert attempt(path, "annotate") == {"annotate": "value"}
    found = attempt(path, "list", "read", "verify", "recover")
    assert found == {"list": "MalformedError", "read": "MalformedError"} | dict.fromkeys(
        ("verify", "recover"), "value"
    )
