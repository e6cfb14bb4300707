"""Write what a bundle holds once more, in its order and its data files, into memory."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import closing
from typing import Any, BinaryIO

from ckptparse.bundle.content import content_of, content_of_array
from ckptparse.bundle.entry import BundleEntry
from ckptparse.bundle.reader import BundleReader
from ckptparse.bundle.writer import BundleWriter
from ckptparse.files.context import Context
from ckptparse.slices import TensorSlice
from ckptparse.tensor import DEFAULT_OPTIONS


class MemoryFiles:
    """Files that are kept when they are closed."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}

    def open(self, path: str) -> BinaryIO:
        keep = self.content

        class File(io.BytesIO):
            def close(self) -> None:
                if not self.closed:
                    keep[path] = self.getvalue()
                super().close()

        return File()


def rewrite(prefix: str | os.PathLike[str], *, decode: bool = False) -> dict[str, bytes]:
    """Return the files by path; `decode`: by way of arrays, not of bytes."""
    prefix = os.fspath(prefix)
    files = MemoryFiles()
    with closing(BundleReader.open(prefix, Context())) as reader:
        writer = BundleWriter(files, prefix, num_shards=reader.num_shards)
        for name, shape, piece, entry in sorted(iter_payloads(reader), key=place):
            tensor = reader.make_tensor(name, entry, DEFAULT_OPTIONS)
            content = content_of(tensor)
            if decode:
                content = content_of_array(tensor.read(), tensor.data_type)
            rest: Any = {"shard": entry.shard_id}
            if piece is None:
                writer.add(name, entry.data_type, shape, content, **rest)
            else:
                writer.add_slice(name, entry.data_type, shape, piece, content, **rest)
        writer.finish()
    return files.content


def iter_payloads(
    reader: BundleReader,
) -> Iterator[tuple[str, tuple[int, ...], TensorSlice | None, BundleEntry]]:
    listing = reader.index.listing()
    for name, row in listing.rows.items():
        entry = listing.columns.entry(row)
        for piece in entry.slices:
            found = reader.index.find_slice(name, piece)
            assert found is not None
            yield name, entry.shape, piece, found
        if not entry.slices:
            yield name, entry.shape, None, entry


def place(payload: tuple[Any, Any, Any, BundleEntry]) -> tuple[int, int, int]:
    entry = payload[-1]
    return entry.shard_id, entry.offset, entry.size
