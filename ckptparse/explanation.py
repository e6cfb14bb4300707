"""What a message that TensorFlow printed means, and what its numbers tell.

Two checksums in a message are evidence by themselves: a computed one that is the checksum of n zero
bytes names a hole in the file; two that differ like one flipped bit near the end name that.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is known about a message.

    Attributes:
        code: A key of `ckptparse.PROBLEM_CODES` where the message is about damage, another stable
            word where it is about use (`path.wrong`, `name.missing`, `name.unused`,
            `shape.mismatch`, `format.other`, `version.mismatch`), None where nothing is known.
        meaning: What the message says, in plain words.
        cause: What most likely happened.
        advice: What to check or to do.
    """

    code: str | None
    meaning: str
    cause: str
    advice: str

    def __str__(self) -> str:
        head = f"[{self.code}] " if self.code else ""
        return f"{head}{self.meaning}\nCause: {self.cause}\nAdvice: {self.advice}"


_VERIFY = (
    "`ckptparse.verify(path)` tells which tensors are whole, `ckptparse.recover(path)` saves them"
)

_UNKNOWN = Explanation(
    None,
    "This message is not one that is known here.",
    "Unknown.",
    f"If it came up while reading a checkpoint: {_VERIFY}.",
)


def explain(text: str) -> Explanation:
    """Explain a message that TensorFlow (or Keras) printed about a checkpoint.

    The whole output may be given, traceback and all: the most telling message in it is used.
    """
    for pattern, answer in _ANSWERS:
        match = pattern.search(text)
        if match:
            return answer if isinstance(answer, Explanation) else answer(match)
    return _UNKNOWN


def _explain_checksum(match: re.Match[str]) -> Explanation:
    """Explain "Checksum does not match: stored A vs. calculated on the restored bytes B"."""
    stored, computed = (int(number) & 0xFFFFFFFF for number in match.groups())
    return (
        _as_zeros(computed)
        or _as_flipped_bit(stored, computed)
        or Explanation(
            "tensor.checksum",
            "The bytes of a tensor in the data file do not have the checksum that the index "
            "stores for them.",
            "The data file was damaged after it was written, or it and the index come from "
            "different saves (a copy that was interrupted or taken while saving).",
            "Compare the size and hash of the `.data-` file with its origin and copy it again "
            f"together with the `.index`; {_VERIFY}.",
        )
    )


def _as_zeros(computed: int) -> Explanation | None:
    from ckptparse.crc.flips import HIGHEST_CHANCE
    from ckptparse.crc.inversion import chance_of_zeros, find_zeros

    size = find_zeros(computed)
    if size is None or chance_of_zeros(size) > HIGHEST_CHANCE:
        return None
    return Explanation(
        "tensor.zeros",
        f"The bytes that were read are {size:,} zero bytes ({_elements(size)}), where the index "
        "knows of other values: the calculated checksum is that of zeros.",
        "The data file has a hole: space was reserved for it and never filled. Interrupted "
        "downloads and copies, sparse files, a full disk and a crash before the data was flushed "
        "leave such files, which have the right size.",
        "Download or copy the `.data-` file again and compare its hash, not its size. "
        f"Tensors outside the hole are whole: {_VERIFY}.",
    )


def _elements(size: int) -> str:
    return f"{size // 4:,} elements of 4 bytes" if size % 4 == 0 else f"{size} elements of 1 byte"


def _as_flipped_bit(stored: int, computed: int) -> Explanation | None:
    """Recognise one flipped bit near the end: where the size is not known, only there it counts."""
    from ckptparse.crc.flips import chance_of_bit, find_bit

    change = find_bit(stored, computed, 1 << 19)
    if change is None:
        return None
    from_end = (1 << 19) - 1 - change.offset
    chance = chance_of_bit(from_end + 1)
    return Explanation(
        "tensor.checksum",
        f"The two checksums differ as if bit {change.bit} of the byte {from_end:,} bytes before "
        "the tensor's end had flipped.",
        f"A single flipped bit, as faulty memory or storage leaves it (or other damage: it looks "
        f"like this with chance {chance:.1e}).",
        "`ckptparse.recover(path)` corrects it and proves the result with the checksum. Test the "
        "machine's memory and disk.",
    )


def _explain_no_file(match: re.Match[str]) -> Explanation:
    shard, count = int(match.group(1)), int(match.group(2))
    return Explanation(
        "shard.missing",
        f"Data file number {shard + 1} of {count} is not there.",
        "It was not copied or downloaded (ignore rules and upload limits often leave out `.data-` "
        "files), or the save stopped before it was written.",
        "Fetch it from where the checkpoint comes from, under exactly that name. "
        f"What the other files hold is not lost: {_VERIFY}.",
    )


_Answer = Explanation | Callable[[re.Match[str]], Explanation]


def _answer(pattern: str, answer: _Answer) -> tuple[re.Pattern[str], _Answer]:
    return re.compile(pattern, re.IGNORECASE | re.DOTALL), answer


_ANSWERS: tuple[tuple[re.Pattern[str], _Answer], ...] = (
    _answer(
        r"checksum does not match: stored (\d+) vs\.? calculated on the restored bytes:? (\d+)",
        _explain_checksum,
    ),
    _answer(
        r"checksum does not match|checksum error",
        Explanation(
            "tensor.checksum",
            "The bytes of a tensor do not have the checksum that is stored for them.",
            "A data file is damaged, or the index belongs to another save.",
            f"Copy the checkpoint's files again, all of one save; {_VERIFY}.",
        ),
    ),
    _answer(
        r"block checksum mismatch|corrupted compressed block|bad entry in block|"
        r"bad block contents|bad block type|truncated block read|corrupt(ed)? block",
        Explanation(
            "index.block",
            "A block of the index (or of a V1 checkpoint) is damaged.",
            "Some bytes of the file changed after it was written, or a part of it is missing.",
            f"Copy the `.index` again; without another copy, {_VERIFY}: blocks have checksums of "
            "their own, so the others stay usable.",
        ),
    ),
    _answer(
        r"corrupted record at|truncated record at",
        Explanation(
            "format.other",
            "A record of a TFRecord file (training data, events) is damaged or cut off, or the "
            "file is none.",
            "Its bytes changed after they were written, its end is missing, or a checkpoint or "
            "compressed file was given to a reader of TFRecords.",
            "`ckptparse.identify(path)` tells what the file is; copy it again. If it is a "
            f"checkpoint: {_VERIFY}.",
        ),
    ),
    _answer(
        r"file is too short to be an sstable",
        Explanation(
            "index.footer",
            "The file is shorter than the 48 bytes with which every index and V1 checkpoint ends.",
            "It is empty or was cut off: a save that was killed, a full disk, an interrupted copy.",
            f"Copy it again. If the save was interrupted: {_VERIFY}, from temporary files too.",
        ),
    ),
    _answer(
        r"not an sstable|bad magic number|bad table magic",
        Explanation(
            "index.footer",
            "The file does not end in the eight bytes that every index and V1 checkpoint ends in.",
            "It is no checkpoint (a Git LFS pointer, an HTML page, a PyTorch or HDF5 file), or a "
            "`.data-` or `.meta` file was given for the prefix, or its end is cut off.",
            "Give the prefix, without `.index` or `.data-…`; look at the first bytes of the file "
            f"with `ckptparse.identify(path)`. If it is a checkpoint that was cut off: {_VERIFY}.",
        ),
    ),
    _answer(r"\.data-(\d{5,})-of-(\d{5,})[^\n]*?(?:no such file|not found)", _explain_no_file),
    _answer(
        r"(?:no such file or directory|not found)[^\n]*?\.data-(\d{5,})-of-(\d{5,})",
        _explain_no_file,
    ),
    _answer(
        r"permission denied|permissiondeniederror|access is denied",
        Explanation(
            "file.unreadable",
            "The system does not let this program read (or write) the file.",
            "It belongs to another user, its mode or that of a directory above it does not allow "
            "it, or credentials of a remote store are lacking. This tells of no damage.",
            "Look at the owner and mode of the file and its directories (`ls -l`), or copy it to "
            "where you may read it.",
        ),
    ),
    _answer(
        r"is a directory",
        Explanation(
            "path.wrong",
            "A directory was given where the prefix of a checkpoint is expected.",
            "The path ends before the checkpoint's own name.",
            "Give `directory/ckpt-1` rather than `directory`; `ckptparse.open` takes both.",
        ),
    ),
    _answer(
        r"(?:unsuccessful tensorslicereader constructor: )?failed to (?:find any|get) matching "
        r"files (?:for|on)",
        Explanation(
            "path.wrong",
            "There is no `<path>.index`, and no V1 checkpoint at the path itself.",
            "The path is misspelled or relative to another directory, names a `.data-` file or a "
            "directory, the `checkpoint` file names a place that has moved, or the save stopped "
            "before its index was written.",
            "Give the prefix (`model.ckpt-1000`, no extension). If `.data-` files are there and "
            "the `.index` is not, `ckptparse.recover(path)` looks for what the save left behind.",
        ),
    ),
    _answer(
        r"unsuccessful tensorslicereader constructor",
        Explanation(
            "index.footer",
            "The checkpoint's index (or the V1 file) cannot be opened.",
            "It is damaged, cut off, or no checkpoint.",
            f"`ckptparse.identify(path)` tells what the file is; {_VERIFY}.",
        ),
    ),
    _answer(
        r"unable to open table file",
        Explanation(
            "index.footer",
            "The checkpoint's index (or the V1 file) is there and cannot be opened as a table.",
            "It is damaged, cut off, or no checkpoint; or a `.data-` or `.meta` file was given "
            "for the prefix.",
            "Give the prefix, without an extension; `ckptparse.identify(path)` tells what the "
            f"file is; {_VERIFY}.",
        ),
    ),
    _answer(
        r"read (?:less|fewer) bytes than requested|out of range: (?:reading|read)|"
        r"OutOfRangeError[^\n]*read",
        Explanation(
            "shard.truncated",
            "A data file ends before the bytes that the index says it holds.",
            "It was cut off: an interrupted copy or download, a full disk, a killed save; or it is "
            "a Git LFS pointer of some 130 bytes.",
            "Compare its size with the original and copy it again. All tensors before the cut are "
            f"whole: {_VERIFY}.",
        ),
    ),
    _answer(
        r"saved_?model file does not exist|cannot find .*saved_model\.pb|"
        r"metagraphdef associated with tags .* could not be found",
        Explanation(
            "path.wrong",
            "There is no SavedModel with what was asked for in that directory.",
            "The directory holds a checkpoint rather than a SavedModel, lacks `saved_model.pb`, or "
            "was exported under other tags.",
            "`ckptparse.identify(path)` tells what it holds; `ckptparse.open(path)` reads the "
            "variables of either.",
        ),
    ),
    _answer(
        r"assign requires shapes of both tensors to match|shape(?:s)? .{0,80}(?:incompatible|"
        r"mismatch|does not match|must match)|tensor's shape .* is not compatible",
        Explanation(
            "shape.mismatch",
            "A tensor of the checkpoint has another shape than the variable it is restored into.",
            "The model was built with other settings (classes, layers, vocabulary) than the one "
            "that was saved. The checkpoint is not damaged.",
            "Compare with `ckptparse.list_variables(path)`, and leave the tensors that differ out.",
        ),
    ),
    _answer(
        r"value in checkpoint could not be found in the restored object|"
        r"unresolved object in checkpoint|deleted with unrestored values",
        Explanation(
            "name.unused",
            "The checkpoint holds values that no object of the program took.",
            "The program has not built all of the objects that were saved (an optimizer, layers "
            "that are made at the first call), or it only wants the weights. The checkpoint is "
            "not damaged.",
            "Where nothing is missing in the model, `status.expect_partial()` silences this; "
            "`ckptparse.list_variables(path)` lists what the checkpoint holds.",
        ),
    ),
    _answer(
        r"key .{1,300}? not found in checkpoint|tensor name .{1,300}? not found in checkpoint|"
        r"restoring from checkpoint failed.*variable name|"
        r"some variables .{0,60}were not found|were not bound to checkpointed values",
        Explanation(
            "name.missing",
            "The model asks for a name that the checkpoint does not have.",
            "The model's code or the version of Keras names its variables differently, the "
            "optimizer's slots were not saved, or it is another model's checkpoint. Checkpoints "
            "that are damaged can raise this too: TensorFlow skips index blocks it cannot read.",
            f"Compare with `ckptparse.list_variables(path)`; to rule out damage: {_VERIFY}.",
        ),
    ),
    _answer(
        r"checkpoint (?:version|was produced)|min_consumer|bad_consumer|"
        r"requires .{0,40}consumer|tensor bundle.{0,40}version",
        Explanation(
            "version.mismatch",
            "The file's version numbers say that this TensorFlow should not read it.",
            "A newer TensorFlow wrote it, or the header is damaged.",
            f"Read it with the TensorFlow that wrote it; to rule out damage: {_VERIFY}.",
        ),
    ),
    _answer(
        r"invalid (?:size|shape|offset|tensor) in bundle entry|invalid bundle entry|"
        r"in bundle entry|corrupted? .{0,30}entry|"
        r"could not parse .{0,40}entry|error parsing message.{0,40}bundle(?:entry|header)|"
        r"failed to parse (?:bundle|tensor)",
        Explanation(
            "index.entry",
            "An entry of the index breaks the format's rules.",
            "The index is damaged although its blocks' checksums may hold, or another program "
            "wrote it.",
            f"{_VERIFY}.",
        ),
    ),
    _answer(
        r"error parsing .{0,60}saved_?model|cannot parse file .{0,200}saved_model",
        Explanation(
            "format.other",
            "`saved_model.pb` is no SavedModel message.",
            "It is a frozen graph, a Git LFS pointer or an HTML page, or was cut off.",
            "`ckptparse.identify(path)` tells which; frozen graphs open with `open_graph`.",
        ),
    ),
    _answer(
        r"can'?t load save_path when it is none|not a valid checkpoint|"
        r"no checkpoint (?:was )?found|could not find .{0,60}checkpoint",
        Explanation(
            "path.wrong",
            "There is no checkpoint at that path, or `latest_checkpoint` found none.",
            "The directory is wrong or empty, or its `checkpoint` file is absent or names files "
            "that have moved.",
            "`ckptparse.latest_checkpoint(directory)` also finds checkpoints that were moved "
            "together with their `checkpoint` file.",
        ),
    ),
    _answer(
        r"file format not supported[^\n]*keras 3 only supports",
        Explanation(
            "format.other",
            "Keras 3 was asked to load a SavedModel or a TensorFlow checkpoint as a `.keras` file.",
            "Keras 3 reads `.keras` and `.h5` files only; the file may be whole.",
            "`ckptparse.identify(path)` tells what it is; `ckptparse.read(path)` gives its values.",
        ),
    ),
    _answer(
        r"no space left on device|disk quota exceeded",
        Explanation(
            "set.unfinished",
            "The disk was full while a checkpoint was saved.",
            "What was being written is cut off or still bears a temporary name; checkpoints that "
            "were saved before are as they were.",
            f"Make room and save again; of what was written: {_VERIFY}.",
        ),
    ),
    _answer(
        r"unable to open file \(file signature not found\)|unable to (?:synchronously )?open file",
        Explanation(
            "format.other",
            "HDF5 was asked to open a file that is not HDF5.",
            "A TensorFlow checkpoint was given to a loader of `.h5` or `.keras` files.",
            "`ckptparse.identify(path)` tells what it is; `ckptparse.read(prefix)` reads "
            "TensorFlow checkpoints.",
        ),
    ),
    _answer(
        r"error parsing message|failed to parse .{0,60}(?:message|proto)",
        Explanation(
            "format.other",
            "Bytes that should be a protobuf message are none of the kind that was expected.",
            "A `.pb`, `.meta` or other graph file is damaged, cut off, a Git LFS pointer or a file "
            "of another kind; in a checkpoint, an entry of the index or the object graph is "
            "damaged.",
            f"`ckptparse.identify(path)` tells what a file is; of a checkpoint: {_VERIFY}.",
        ),
    ),
)
