"""Messages about files that are not there, cannot be read, or cannot be written."""

from __future__ import annotations

import re

from ckptparse.explanation.value import VERIFY, Explanation, row

__all__ = ["PATHS"]

_CHECKPOINT = (
    r"checkpoint|ckpt|\.index\b|\.data-\d|\.meta\b|\.pb\b|\.pbtxt\b|saved_?model|tensorslice|"
    r"restore|\.h5\b|\.hdf5\b|\.keras\b|tempstate|variables[/\\]|PermissionDeniedError|"
    r"PERMISSION_DENIED|restore operator|FAILED_PRECONDITION|weights"
)
"""Words in a line that is about the files of a model."""
_ABSENT = (
    r"no such file or directory|not found|the system cannot find the (?:file|path) specified|"
    r"does not exist"
)


def _explain_shard(match: re.Match[str]) -> Explanation:
    shard, count = int(match.group(1)), int(match.group(2))
    return Explanation(
        "shard.missing",
        f"Data file number {shard + 1} of {count} is not there.",
        "It was not copied or downloaded (ignore rules and upload limits often leave out `.data-` "
        "files), or the save stopped before it was written.",
        "Copy or download it again, and give it exactly that name. "
        f"Tensors in the other files are not lost: {VERIFY}.",
    )


def _explain_scheme(match: re.Match[str]) -> Explanation:
    scheme = match.group(1)
    if scheme == "[local]":
        return _LOCAL
    if scheme.lower() in ("http", "https"):
        return _WEB
    return Explanation(
        "scheme.unsupported",
        f"This TensorFlow cannot read `{scheme}://` paths.",
        "Its build has no support for that file system, or the package that adds it "
        "(`tensorflow-io`) is not installed or not imported. Nothing is damaged.",
        "Copy the files to a local directory and give its path, or install that package.",
    )


_LOCAL = Explanation(
    "scheme.unsupported",
    "A TPU worker was asked for a file of this machine, which it cannot see.",
    "The program runs on a TPU: its worker is another machine and reads from Google Cloud Storage "
    "only. The checkpoint is not damaged.",
    "Put the checkpoint in a bucket and give its `gs://` path, or read it on this machine: with "
    '`experimental_io_device="/job:localhost"` in the load or checkpoint options, or with '
    "`ckptparse.read(path)`.",
)
_WEB = Explanation(
    "scheme.unsupported",
    "A web address was given, and TensorFlow cannot open web addresses.",
    "Checkpoints are several files, which are read from a disk or a bucket.",
    "Download the `.index` and all `.data-` files into one directory and give their prefix.",
)
_DENIED = Explanation(
    "file.unreadable",
    "The system does not let this program read (or write) the file.",
    "It belongs to another user, its mode or that of a directory above it does not allow it, or "
    "access rights for a bucket are missing. Nothing is damaged.",
    "Look at the owner and mode of the file and its directories (`ls -l`), or copy it to a place "
    "where you may read it.",
)
_FULL = Explanation(
    "set.unfinished",
    "The disk was full while a checkpoint was saved.",
    "The files of this save are cut off, or still have temporary names. Earlier checkpoints are "
    "not changed.",
    f"Make room and save again. For the unfinished files: {VERIFY}.",
)
_SAVE = Explanation(
    "save.failed",
    "A checkpoint could not be written: its file cannot be made there.",
    "The directory does not exist or may not be written to, or (on Windows) the path mixes `/` and "
    "`\\`, is longer than 260 characters, or another program holds the file.",
    "Make the directory first, and give a short path with one kind of slash "
    "(`os.path.normpath`). Earlier checkpoints are not changed.",
)
_DIRECTORY = Explanation(
    "path.wrong",
    "A directory was given, but the prefix of a checkpoint is expected.",
    "The path ends before the checkpoint's own name.",
    "Give `directory/ckpt-1` rather than `directory`; `ckptparse.open` takes both.",
)
_STATE = Explanation(
    "state.damaged",
    "The `checkpoint` file, which names the newest checkpoint, cannot be read as text of its kind.",
    'It was edited by hand: a path in it is not in double quotes ("), or has a single `\\` instead '
    "of two.",
    'Write `model_checkpoint_path: "model.ckpt-1000"` in it, or give the checkpoint\'s prefix '
    "itself: the checkpoint is not damaged.",
)
_INDEX_GIVEN = Explanation(
    "path.wrong",
    "The path of the `.index` file was given; TensorFlow then finds no name in it.",
    "TensorFlow takes `model.ckpt.index` for a checkpoint of another format.",
    "Give the prefix, without `.index`. `ckptparse.open` takes either.",
)
_DATA_GIVEN = Explanation(
    "path.wrong",
    "The path of a `.data-` file was given, but the prefix of the checkpoint is expected.",
    "TensorFlow takes a data file for a checkpoint of another format. It need not be damaged.",
    "Give the prefix, without `.data-…` (`model.ckpt-1000`). `ckptparse.open` takes either.",
)
_NOTHING = Explanation(
    "path.wrong",
    "There is no `<path>.index`, and no V1 checkpoint at the path itself.",
    "The path is misspelled, is relative to another directory, or names a `.data-` file or a "
    "directory. Or the `checkpoint` file names a directory that was moved, or the save stopped "
    "before its index was written.",
    "Give the prefix (`model.ckpt-1000`, no extension). If `.data-` files are there and the "
    "`.index` is not, `ckptparse.recover(path)` looks for what the save left behind.",
)
_NO_CHECKPOINT = Explanation(
    "path.wrong",
    "There is no checkpoint at that path, or `latest_checkpoint` found none.",
    "The directory is wrong or empty, or its `checkpoint` file is absent or names files that have "
    "moved.",
    "Look at what is there with `ckptparse.identify(path)`. "
    "`ckptparse.latest_checkpoint(directory)` also finds checkpoints that were moved together with "
    "their `checkpoint` file.",
)
_ONE_FILE = Explanation(
    "path.wrong",
    "The file is not there.",
    "The path is misspelled or relative to another directory than the one the program runs in, or "
    "the file was not downloaded.",
    "Give the whole path. If a checkpoint is several files, all of them must be there.",
)
_IN_USE = Explanation(
    "file.locked",
    "Another program has the file open.",
    "On Windows a file that a program has open can often not be opened, renamed or replaced by "
    "another: a training that still runs, a virus scanner, a folder that is being synchronised.",
    "End the other program or wait, then try again. Nothing is damaged.",
)

PATHS = (
    row(r"file system scheme '?([^'\s]+)'? not implemented", _explain_scheme),
    row(r"being used by another process", _IN_USE, needs=_CHECKPOINT),
    row(r"no space left on device|disk quota exceeded", _FULL, needs=_CHECKPOINT + "|save"),
    row(
        r"failed to create a newwriteablefile|parent directory of .{1,300}? doesn't exist|"
        r"failed to rename: .{1,400}?tempstate|tempstate\d+[;:] (?:input/output error|no such)",
        _SAVE,
    ),
    row(
        r"permission denied|permissiondeniederror|access is denied|does not have storage\.objects",
        _DENIED,
        needs=_CHECKPOINT,
    ),
    row(r"\.data-(\d{5,})-of-(\d{5,})(?!\.tempstate)[^\n]*?(?:" + _ABSENT + ")", _explain_shard),
    row(r"(?:" + _ABSENT + r")[^\n]*?\.data-(\d{5,})-of-(\d{5,})", _explain_shard),
    row(r"is a directory", _DIRECTORY, needs=_CHECKPOINT),
    row(r"parseerror[^\n]*model_checkpoint_path|checkpoint: checkpoint ignored", _STATE),
    row(r"not found in checkpoint files \S+\.index\b", _INDEX_GIVEN),
    row(r"unable to open table file \S+\.data-\d{5,}-of-\d{5,}", _DATA_GIVEN),
    row(
        r"failed to (?:find any|get) matching files (?:for|on)",
        _NOTHING,
    ),
    row(
        r"can'?t load save_path when it is none|save_path is not a valid checkpoint|"
        r"couldn'?t find 'checkpoint' file|no checkpoint (?:was )?found (?:in|at|for)|"
        r"could not find .{0,60}checkpoint|\bfile \S+\.meta does not exist",
        _NO_CHECKPOINT,
    ),
    row(
        r"http response code 404|errno 2\] no such file|no such file or directory: |"
        r"newrandomaccessfile failed to create/open|; no such file or directory",
        _ONE_FILE,
        needs=r"ckpt|checkpoint|\.index\b|\.meta\b|\.h5\b|\.hdf5\b|\.keras\b|saved_model\.pb|"
        r"frozen\w*\.pb|variables[/\\]variables",
    ),
)
