"""Tell whether the data of an index shows that all its blocks are of one save.

Of an index in an image, some blocks may be of another save of the same model
(`examination.tied_blocks`). Then their tensors lie in that save's data file, which is another part
of the image. If all of them lie among the tensors of the other blocks, at the same distances from
the data file to the image, all blocks say what one data file holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ckptparse.examination.index_view import IndexView
from ckptparse.recovery.imaging.laid_blocks import distance_of
from ckptparse.recovery.imaging.pieces import DataFile, Placement

__all__ = ["are_tied"]


def are_tied(
    view: IndexView, files: Sequence[DataFile], proved: Sequence[Sequence[Placement]]
) -> bool:
    """Tell whether all blocks of an index are of one save, as far as its data shows that.

    Args:
        view: What the index says.
        files: What belongs into its data files, by their numbers.
        proved: Where payloads of these were found, by checksum.
    """
    if not view.untied:
        return True
    sure: list[set[int]] = [set() for _ in files]
    doubted: list[set[int]] = [set() for _ in files]
    for shard, offset, block in _iter_proved(view):
        if shard < len(files):
            (doubted if block in view.untied else sure)[shard].add(offset)
    for shard, found in enumerate(proved):
        distances = {one.offset: distance_of(one) for one in found if one.size}
        others = {distances[offset] for offset in sure[shard] & distances.keys()}
        sought = {piece.offset for piece in files[shard].pieces} & doubted[shard]
        if any(distances.get(offset) not in others for offset in sought):
            return False
    return True


def _iter_proved(view: IndexView) -> Iterator[tuple[int, int, int | None]]:
    """Iterate over payloads of whole blocks: number of the data file, offset, and the block's."""
    rows = view.plain_rows()
    if view.rows is not None:
        columns = view.rows.columns
        for row in rows.values():
            block = view.rows.block(row).offset
            yield int(columns.shard_ids[row]), int(columns.offsets[row]), block
    for _, payload in view.iter_payloads(name for name in view.tensors if name not in rows):
        if payload.proved:
            yield payload.shard, payload.offset, payload.block
