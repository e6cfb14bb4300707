r"""The grammar of file names: which checkpoint a name belongs to, and as which part of it.

    P.index                                  the index of a V2 checkpoint whose prefix is P
    P.data-00000-of-00002                    one of its data files
    P.meta                                   the graph beside a checkpoint
    F                                        a V1 file: any name
    F-00000-of-00002   F-?????-of-00002      one of several V1 files; the pattern of all of them
    checkpoint                               the state file of a directory
    saved_model.pb   variables/variables.*   a SavedModel

A killed save leaves files that it had not renamed yet (docs/format.md, section 2.10):

    X.tempstateN                             file X, complete or cut
    P_temp/part-00000-of-00002.index         a part that was not merged yet; beside it its data
    P_temp_UUID/part-…   P.part-…            the same, of older versions and of s3://

Names can change on the way from one machine to another:

    variables\variables.index                one name: unpacked from an archive made on Windows
    P (1).index                              downloaded a second time by a browser
    ._P.index                                attributes that macOS keeps of P.index

This module works on strings only; `inventory` asks which files are there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = [
    "INDEX_SUFFIX",
    "META_SUFFIX",
    "SAVED_MODEL_FILES",
    "STATE_FILE_NAME",
    "VARIABLES",
    "Part",
    "belongs_to",
    "find_step",
    "is_apple_double",
    "is_data_file",
    "is_pattern",
    "keep_saved",
    "last_part",
    "legacy_path",
    "may_be_data_file",
    "shard_path",
    "split_data_path",
    "split_legacy_path",
    "split_part",
    "strip_copy_number",
    "strip_shard_suffix",
    "strip_temp_directory",
    "strip_temporary",
]

INDEX_SUFFIX = ".index"
META_SUFFIX = ".meta"
STATE_FILE_NAME = "checkpoint"
SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt", "saved_model.cpb")
"""If several are there, the first of these is used."""
VARIABLES = "variables"
"""Both the directory of a SavedModel's variables and their prefix in it."""

# Compiled when first used: most calls use one or two of them. A damaged header can have negative
# numbers, and `shard_path` makes such names of them. In a large directory nearly no name matches:
# a part of the pattern that is plain text is looked for first. Numbers have 19 digits at most, as
# those of 64 bits do: names in archives and state files may be much longer than those of a disk.
_DATA_PATH = r"(?s)(.*)\.data-(-?\d{5,19})-of-(-?\d{5,19})"
_LEGACY_PATH = r"(?s)(.*)-(\d{5,19})-of-(\d{5,19})"
_SHARD_SUFFIX = r"-[\d?]+-of-\d+$"
_TEMPORARY = r"(?s)(.*)\.tempstate\d+"
_TEMP_DIRECTORY = r"(?s)(.*)_temp(?:_[0-9a-f]{32})?"
_PART = r"(?s)(?:(.*)\.)?part-(\d{5,19})-of-(\d{5,19})(\.index|\.data-.*?)(?:\.tempstate\d+)?"
_STEP = r"(?s).*?-(\d{1,19})"
_COPY = r"(?s)(.+) \(\d+\)"
_DATA_MARK = ".data-"
_RENAMED = (".data", ".bak", ".part", ".tmp")
"""Endings that programs and people give to files which they copy, download or keep."""
_SAVED = r"\.index|\.data-|part-|_temp|\.tempstate"
"""What one of the names has at least that are taken to pieces here, but for those of V1 files."""
_WILD = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Part:
    """The name of a part of a save, not merged yet.

    Attributes:
        base: The last part of the prefix if the name tells it, as it does beside the checkpoint.
        number: Which of the parts.
        count: How many there are.
        is_index: Whether it is the part's index; else it is its data file.
    """

    base: str | None
    number: int
    count: int
    is_index: bool


def shard_path(prefix: str, shard_id: int, num_shards: int) -> str:
    """Return the path of a data file of a V2 checkpoint."""
    return f"{prefix}.data-{shard_id:05d}-of-{num_shards:05d}"


def legacy_path(prefix: str, number: int, count: int) -> str:
    """Return the path of one of several V1 files."""
    return f"{prefix}-{number:05d}-of-{count:05d}"


def split_data_path(path: str) -> tuple[str, int, int] | None:
    """Return prefix, shard number and number of shards of a data file's path; None for others."""
    match = re.fullmatch(_DATA_PATH, path) if _DATA_MARK in path else None
    return (match[1], int(match[2]), int(match[3])) if match else None


def is_data_file(path: str) -> bool:
    """Tell the name of a data file, whatever follows it: `P.data-00000-of-00001.tempstate5`."""
    return _DATA_MARK in path and _DATA_MARK in last_part(path)


def may_be_data_file(name: str) -> bool:
    """Tell a name that a data file may have after somebody renamed it."""
    return is_data_file(name) or name.endswith(_RENAMED)


def keep_saved(names: Iterable[str]) -> list[str]:
    """Return those of some names that an index, a data file, a part or a leftover may have.

    Of 100,000 names in a directory nearly none are such; each of the functions here takes as long
    to tell as this one for all of them.
    """
    may_be = re.compile(_SAVED).search
    return [name for name in names if may_be(name)]


def belongs_to(name: str, base: str) -> bool:
    """Tell whether a name is that of an index, a data file or a graph of the prefix `base`."""
    if name == base + INDEX_SUFFIX:
        return True
    return name.startswith((base + _DATA_MARK, base + META_SUFFIX))


def split_legacy_path(path: str) -> tuple[str, int, int] | None:
    """Return prefix, number and count of one of several V1 files; None for other names.

    A data file's name has the same end: look for that first.
    """
    match = re.fullmatch(_LEGACY_PATH, path)
    return (match[1], int(match[2]), int(match[3])) if match else None


def strip_shard_suffix(path: str) -> str:
    """Take `-00000-of-00002` or `-?????-of-00002` off a path."""
    return re.sub(_SHARD_SUFFIX, "", path)


def strip_temporary(path: str) -> str | None:
    """Return the final path of a file that a save did not rename yet; None for other names."""
    match = re.fullmatch(_TEMPORARY, path) if ".tempstate" in path else None
    return match[1] if match else None


def strip_temp_directory(path: str) -> str | None:
    """Return the prefix whose parts a directory such as `P_temp` keeps; None for other names."""
    match = re.fullmatch(_TEMP_DIRECTORY, path) if "_temp" in path else None
    return match[1] if match else None


def split_part(name: str) -> Part | None:
    """Take the name of a part of a save to pieces; None for other names."""
    match = re.fullmatch(_PART, name) if "part-" in name else None
    if match is None:
        return None
    return Part(match[1], int(match[2]), int(match[3]), match[4] == INDEX_SUFFIX)


def strip_copy_number(name: str) -> str | None:
    """Return `P` of the name `P (1)` that a browser gives a second download; None for others."""
    # Every checkpoint that is opened is asked: compiling the pattern takes longer than the rest.
    match = re.fullmatch(_COPY, name) if name.endswith(")") else None
    return match[1] if match else None


def find_step(name: str) -> int | None:
    """Return the number that the last part of a prefix ends in: 100 of `model.ckpt-100`."""
    match = re.fullmatch(_STEP, name)
    return int(match[1]) if match else None


def is_apple_double(name: str) -> bool:
    """Tell a name that macOS gives a file of attributes, beside the file they belong to."""
    return name.startswith("._") and len(name) > 2


def is_pattern(name: str) -> bool:
    """Tell whether a name may be a pattern, such as `ckpt-3-?????-of-00002`."""
    return not _WILD.isdisjoint(name)


def last_part(path: str) -> str:
    r"""Return the last name of a path of any system: a state file may come from Windows."""
    return re.split(r"[/\\]", path)[-1]
