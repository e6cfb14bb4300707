"""Whether a path leads to an archive, or into one; a look that costs little for all other paths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckptparse.errors import PermissionDeniedError
from ckptparse.filenames import INDEX_SUFFIX, split_data_path
from ckptparse.files.archives.magic import HEAD_SIZE, guess_packing
from ckptparse.files.storage import Storage, is_file
from ckptparse.limits import Limits

if TYPE_CHECKING:
    from ckptparse.files.archives.storage import ArchiveStorage

__all__ = ["enter_archive"]

_SUFFIXES = (".zip", ".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tzst", ".gz", ".bz2", ".xz", ".zst")
"""What an archive is usually called: above a path it is looked for under such names only. Whether
it is one, its content tells."""


def enter_archive(
    path: str, storage: Storage, limits: Limits, *, choose: bool = True, lenient: bool = False
) -> tuple[str, ArchiveStorage] | None:
    """Return path and storage of what a path means that is, or leads into, an archive; else None.

    Args:
        path: What the caller named.
        storage: Where that leads.
        limits: Bounds on the archive.
        choose: Whether the path of an archive means the checkpoint in it.
        lenient: Whether what comes before damage is taken.

    Raises:
        NotACheckpointError: Several checkpoints are in it, and the path names none.
        DataLossError: It is damaged.
        LimitError: It asks for more than the limits allow.
        UnsupportedError: What unpacks it is not installed.
    """
    status = storage.stat(path)
    if status is None:
        return _enter_above(path, storage, limits, lenient=lenient)
    name = storage.split(path)[1]
    known = name.endswith(INDEX_SUFFIX) or split_data_path(name) is not None
    if not choose or known or status.kind != "file":
        return None
    archive = _open_archive(path, storage, limits, lenient=lenient)
    if archive is None:
        return None
    from ckptparse.files.archives.choosing import choose as choose_in

    try:
        chosen = choose_in(archive)
    except BaseException:
        archive.close()
        raise
    if chosen is None:
        archive.close()
        return None
    return chosen, archive


def _open_archive(
    path: str, storage: Storage, limits: Limits, *, lenient: bool
) -> ArchiveStorage | None:
    """Open a file as an archive; None if it is none."""
    source = storage.open(path)
    try:
        if guess_packing(source.read_at(0, min(HEAD_SIZE, source.size))) is None:
            return None
        from ckptparse.files.archives.storage import ArchiveStorage
        from ckptparse.files.archives.unpacking import find_packing

        if find_packing(source, limits) is None:
            return None
    finally:
        source.close()
    return ArchiveStorage(storage, path, limits, lenient=lenient)


def _enter_above(
    path: str, storage: Storage, limits: Limits, *, lenient: bool
) -> tuple[str, ArchiveStorage] | None:
    """Look for an archive among the directories of a path at which nothing lies."""
    place = path.rstrip("/")
    while True:
        above, name = storage.split(place)
        if not name or above == place:
            return None
        place = above
        if not place.lower().endswith(_SUFFIXES):
            continue
        try:
            archive = None
            if is_file(storage, place):
                archive = _open_archive(place, storage, limits, lenient=lenient)
        except PermissionDeniedError:
            return None
        if archive is not None:
            rest = path[len(place) :].replace("\\", "/").strip("/")
            archive.listing()
            return f"{place}/{rest}", archive
