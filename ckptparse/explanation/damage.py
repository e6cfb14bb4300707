"""Messages about bytes of a checkpoint that changed after they were written."""

from __future__ import annotations

import re

from ckptparse.explanation.value import VERIFY, Explanation, row

__all__ = ["DAMAGE"]

_WIDTH_RATIOS = (2, 4, 8, 16)
"""Elements have 1, 2, 4, 8 or 16 bytes (complex128), so their sizes differ by these factors."""


def _explain_entry_size(match: re.Match[str]) -> Explanation:
    """Explain "stored size A; expected size B" of a bundle entry: another type, or damage."""
    stored, expected = int(match.group(1)), int(match.group(2))
    small, large = sorted((stored, expected))
    if not small or large % small or large // small not in _WIDTH_RATIOS:
        return _ENTRY
    wider = "wider" if stored > expected else "narrower"
    return Explanation(
        "type.mismatch",
        f"A tensor is stored in {stored:,} bytes, and the program expects {expected:,}: the stored "
        f"elements are {large // small} times {wider} than those of the program's variable.",
        "The program uses another type than the checkpoint (half precision and float32, float32 "
        "and float64). TensorFlow before 1.11 did not compare the types first. The checkpoint is "
        "usually not damaged.",
        "Compare with `ckptparse.list_variables(path)` and `ckptparse.open(path)[name].dtype`; "
        f"read the values and cast them. To rule out damage: {VERIFY}.",
    )


_ENTRY = Explanation(
    "index.entry",
    "An entry of the index breaks the format's rules.",
    "The index is damaged although its blocks' checksums may agree, or another program wrote it.",
    f"{VERIFY}.",
)
_COMPRESSED = Explanation(
    "index.block",
    "A block of the index (or of a V1 checkpoint) could not be decompressed.",
    "The file is compressed with Snappy and this TensorFlow was built without it, or the file is "
    "damaged.",
    "ckptparse reads Snappy: try `ckptparse.read(path)`. If that fails too, the file is damaged: "
    f"{VERIFY}.",
)
_BLOCK = Explanation(
    "index.block",
    "A block of the index (or of a V1 checkpoint) is damaged.",
    "Some bytes of the file changed after it was written, or a part of it is missing.",
    f"Copy the `.index` again. If there is no other copy, {VERIFY}. Each block has its own "
    "checksum, so the others can still be used.",
)
_RECORD = Explanation(
    "format.other",
    "A record of a TFRecord file (training data, events) is damaged or cut off, or the file is no "
    "TFRecord file.",
    "Its bytes changed after they were written, its end is missing, or a checkpoint or compressed "
    "file was given to a reader of TFRecords.",
    f"`ckptparse.identify(path)` tells what the file is; copy it again. If it is a checkpoint: "
    f"{VERIFY}.",
)
_SHORT = Explanation(
    "index.footer",
    "The file is shorter than 48 bytes, and every index and V1 checkpoint ends with 48 such bytes.",
    "It is empty or was cut off: a save that was killed, a full disk, an interrupted copy.",
    f"Copy it again. If the save was interrupted: {VERIFY}, from temporary files too.",
)
_FOOTER = Explanation(
    "index.footer",
    "The file does not end with the eight bytes that end every index and V1 checkpoint.",
    "It is no checkpoint (a Git LFS pointer, an HTML page, a PyTorch or HDF5 file), or a `.data-` "
    "or `.meta` file was given instead of the prefix, or its end is cut off.",
    "Give the prefix, without `.index` or `.data-…`. Look at the first bytes of the file with "
    f"`ckptparse.identify(path)`. If it is a checkpoint that was cut off: {VERIFY}.",
)
_UNOPENED = Explanation(
    "index.footer",
    "The checkpoint's index (or the V1 file) is there, but it cannot be opened as a table.",
    "It is damaged, cut off, or no checkpoint; or a `.data-` or `.meta` file was given instead of "
    "the prefix.",
    "Give the prefix, without an extension. `ckptparse.identify(path)` tells what the file is; "
    f"{VERIFY}.",
)
_SHARD = Explanation(
    "shard.truncated",
    "A data file ends before the bytes that the index says it holds.",
    "It was cut off (an interrupted copy or download, a full disk, a killed save), or it is a Git "
    "LFS pointer of about 130 bytes.",
    "Compare its size with the original and copy it again. All tensors before the cut are whole: "
    f"{VERIFY}.",
)
_DUPLICATE = Explanation(
    "name.duplicate",
    "Two parts of a save have the same name, so TensorFlow did not put them together.",
    "Several workers saved the same variable: each wrote its part, and the save ended before the "
    "parts became one checkpoint. The values may differ from part to part.",
    "The parts are still in the directory `…_temp`: `ckptparse.recover(directory)` reads them. In "
    "the program, let one worker (the chief) save, or give each worker a prefix of its own.",
)
_NO_INDEX = Explanation(
    "index.missing",
    "The SavedModel has no `variables/variables.index`, so none of its variables were restored.",
    "The directory `variables/` was not copied or downloaded, or the model was read while it was "
    "still being written. A model that has only constants says so too.",
    "Copy the whole directory again, `variables/` too; write it elsewhere and move it into place "
    "when it is whole. `ckptparse.open_saved_model(path).has_variables` tells whether the graph "
    "has variables.",
)

DAMAGE = (
    row(
        r"checksum does not match|checksum error",
        Explanation(
            "tensor.checksum",
            "The bytes of a tensor do not have the checksum that is stored for them.",
            "A data file is damaged, or the index belongs to another save.",
            f"Copy the checkpoint's files again, all of one save; {VERIFY}.",
        ),
        needs=r"checksum does not match|restored bytes|checkpoint|ckpt|data ?loss",
    ),
    row(r"duplicate tensor keyed by|tensor .{1,200}? has already been (?:added|saved)", _DUPLICATE),
    row(r"savedmodel has no variables", _NO_INDEX),
    row(r"corrupted compressed block contents|snappy", _COMPRESSED, needs=r"table|data ?loss|ckpt"),
    row(
        r"block checksum mismatch|corrupted compressed block|bad entry in block|"
        r"bad block contents|bad block type|truncated block read",
        _BLOCK,
    ),
    row(r"corrupted record at|truncated record at", _RECORD),
    row(r"file is too short to be an sstable", _SHORT),
    row(r"not an sstable|bad table magic", _FOOTER),
    row(r"bad magic number", _FOOTER, needs=r"sstable|table|ckpt|checkpoint|index"),
    row(r"unsuccessful tensorslicereader constructor|unable to open table file", _UNOPENED),
    row(
        r"read (?:less|fewer) bytes than requested|outofrangeerror[^\n]*\bread\b[^\n]*bytes",
        _SHARD,
    ),
    row(r"stored size (\d+); expected size (\d+)", _explain_entry_size),
    row(
        r"invalid (?:size|shape|offset|tensor) in bundle entry|invalid bundle entry|"
        r"in bundle entry|could not parse .{0,40}entry|"
        r"error parsing message.{0,40}bundle(?:entry|header)|failed to parse (?:bundle|tensor)",
        _ENTRY,
    ),
)
