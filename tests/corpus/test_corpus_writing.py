"""Real checkpoints, written again: as they are, and by way of every other format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import corpus
import pytest
from corpus import Recorded
from rewriting import rewrite

import ckptparse
from ckptparse.coding.checksum import crc32c
from ckptparse.table.format import FOOTER_SIZE, TRAILER_SIZE, BlockHandle, Compression, Footer

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(corpus.directory() is None, reason="the corpus is not here"),
]

WHOLE = [
    record
    for record in corpus.checkpoints()
    if record.format == "v2" and record.error is None and not record.failed
]
"""The checkpoints of which TensorFlow read everything."""

COMPRESSED = {
    "deepmind__sonnet__layer_norm_1_1x3_2_checkpoint-1",
    "deepmind__sonnet__lstm_8_projected_1_checkpoint-1",
    "deepmind__sonnet__mean_2x2_checkpoint-1",
    "deepmind__sonnet__mlp_3x4x5_1x3_checkpoint-1",
    "tensorflow__tfx__model_tfma_saved_model",
    "tensorflow__tfx__model_tfma_saved_model_bc89f6e",
    "tensorflow__tfx__model_trained_saved_model",
}
"""The blocks of their indexes are compressed with Snappy wherever that saves an eighth. Whoever
wrote them had built TensorFlow so: no release since 1.2 compresses, as its writer says
`kNoCompression`. What we write are the bytes of the releases: the same blocks, not compressed."""

ENDINGS = {"v2": "", "safetensors": ".safetensors", "npz": ".npz", "npy": "/", "hdf5": ".h5"}


def by_name(records: list[Recorded]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("recorded", records, ids=[record.name for record in records])


def blocks_of(index: bytes) -> list[tuple[Compression, bytes]]:
    """Return how the blocks of an index are stored, and what they hold, one after another."""
    import snappy

    footer = Footer.from_bytes(index[-FOOTER_SIZE:])
    found: list[tuple[Compression, bytes]] = []

    def take(handle: BlockHandle) -> bytes:
        stored = index[handle.offset : handle.offset + handle.size]
        kind = Compression(index[handle.offset + handle.size])
        contents = snappy.uncompress(stored) if kind == Compression.SNAPPY else stored
        found.append((kind, contents))
        return contents

    # These indexes have one data block, which fills the file up to the metaindex.
    take(BlockHandle(0, footer.metaindex.offset - TRAILER_SIZE))
    take(footer.metaindex)
    assert len(take(footer.index)) > 0
    return found


@by_name([record for record in WHOLE if record.name not in COMPRESSED])
def test_a_checkpoint_is_written_again_byte_for_byte(recorded: Recorded) -> None:
    made = rewrite(recorded.path)
    assert len(made) > 1
    for path, data in made.items():
        assert data == Path(path).read_bytes(), path


@by_name([record for record in WHOLE if record.name in COMPRESSED])
def test_of_a_compressed_index_every_block_is_the_same_but_for_that(recorded: Recorded) -> None:
    made = rewrite(recorded.path)
    for path, data in made.items():
        real = Path(path).read_bytes()
        if not path.endswith(".index"):
            assert data == real
            continue
        theirs, ours = blocks_of(real), blocks_of(data)
        assert [kind for kind, _ in theirs] == [Compression.SNAPPY, *[Compression.NONE] * 2]
        assert {kind for kind, _ in ours} == {Compression.NONE}
        # The block of the index, the last, tells the place of the data block, which is another.
        assert [contents for _, contents in theirs[:2]] == [contents for _, contents in ours[:2]]


def test_the_compressed_ones_are_known() -> None:
    assert {record.name for record in WHOLE} >= COMPRESSED


def facts(checkpoint: ckptparse.Checkpoint) -> dict[str, tuple[int, tuple[int, ...], int | None]]:
    """Return the kind, the shape and the checksum of every tensor: whole, as it would be written.

    The checksum of slices is that of the tensor put together.
    """
    found = {}
    for name, tensor in checkpoint.items():
        crc = tensor.crc32c
        if crc is None and tensor.kind == "sliced":
            crc = crc32c(tensor.read().tobytes())
        found[name] = (int(tensor.data_type), tensor.shape, crc)
    return found


@pytest.mark.parametrize("format", ENDINGS)
@by_name(WHOLE)
def test_by_way_of_another_format_every_tensor_comes_back(
    recorded: Recorded, format: Any, tmp_path: Path
) -> None:
    target = f"{tmp_path / 'x'}{ENDINGS[format]}"
    with ckptparse.open(recorded.path) as source:
        ckptparse.convert(source, target, format=format, store_bits=True)
        ckptparse.convert(target, tmp_path / "back")
        with ckptparse.open(tmp_path / "back") as back:
            assert facts(back) == facts(source)
    assert ckptparse.verify(tmp_path / "back").ok


@by_name([record for record in WHOLE if record.object_graph is not None])
def test_an_object_graph_is_taken_over(recorded: Recorded, tmp_path: Path) -> None:
    ckptparse.convert(recorded.path, tmp_path / "m")
    with ckptparse.open(recorded.path) as source, ckptparse.open(tmp_path / "m") as made:
        assert source.object_graph is not None and made.object_graph is not None
        assert made.object_graph.serialized == source.object_graph.serialized


V1 = [
    record
    for record in corpus.checkpoints()
    if record.format == "v1" and record.error is None and ".tempstate" not in record.path.name
]


@by_name(V1)
def test_a_v1_file_becomes_a_v2_checkpoint_of_the_same_values(
    recorded: Recorded, tmp_path: Path
) -> None:
    ckptparse.convert(recorded.path, tmp_path / "m")
    wanted, got = ckptparse.read(recorded.path), ckptparse.read(tmp_path / "m")
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        assert (got[name].dtype, got[name].shape) == (value.dtype, value.shape)
        same = got[name].tolist() if value.dtype == object else got[name].tobytes()
        assert same == (value.tolist() if value.dtype == object else value.tobytes()), name
