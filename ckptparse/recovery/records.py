"""Where the elements of a record lie: of a V1 file, in a block whose checksum fails.

A packed field of fixed width holds them as they are, at the end of the record. Numbers of variable
width are not found so: where some of their bytes are lost, there are too many or too few of them.
"""

from __future__ import annotations

from dataclasses import replace

from ckptparse.errors import CheckpointError
from ckptparse.examination.check import read_record
from ckptparse.examination.payload import Payload
from ckptparse.examination.readers import DataFiles

__all__ = ["find_elements"]


def find_elements(files: DataFiles, payload: Payload) -> Payload | None:
    """Return where the elements of a record lie in its file, as a payload of their own.

    None if its block is compressed, or if they do not lie there as they are.
    """
    record = payload.record
    if record is None or record.value is None:
        return None
    try:
        values = read_record(files, payload, record)
    except CheckpointError:
        return None
    if values.dtype.hasobject:
        return None
    elements = values.astype(values.dtype.newbyteorder("<")).tobytes()
    block = bytes(files.read(payload.file, payload.offset, payload.size))
    start = block.find(record.value)
    if not elements or start < 0 or not record.value.endswith(elements):
        return None
    offset = payload.offset + start + len(record.value) - len(elements)
    return replace(payload, offset=offset, size=len(elements), crc32c=None, record=None)
