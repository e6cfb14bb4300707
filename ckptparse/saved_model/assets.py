"""Assets: files that a SavedModel's graph reads (docs/format.md, section 8.1).

Names come from the file `saved_model.pb` and may be anything; paths that are given out lie in the
directory `assets`, symbolic links followed.
"""

from __future__ import annotations

from collections.abc import Iterable

from ckptparse.errors import MalformedError
from ckptparse.files.storage import Storage

__all__ = ["asset_paths", "leads_out"]

_ASSETS = "assets"


def asset_paths(storage: Storage, directory: str, filenames: Iterable[str]) -> dict[str, str]:
    """Give the path of each asset.

    Args:
        storage: Where the SavedModel lies.
        directory: Of the SavedModel.
        filenames: Names relative to its `assets`.

    Returns:
        Name -> real path, which need not exist.

    Raises:
        MalformedError: A name leads out of the directory.
    """
    root = storage.real(directory)
    return {name: _asset_path(storage, root, name) for name in dict.fromkeys(filenames)}


def leads_out(storage: Storage, directory: str, name: str) -> bool:
    """Tell whether the name of an asset leads out of the directory of its SavedModel."""
    try:
        _asset_path(storage, storage.real(directory), name)
    except MalformedError:
        return True
    return False


def _asset_path(storage: Storage, root: str, name: str) -> str:
    # A backslash separates on Windows alone, and the same file must not lead elsewhere there.
    parts = name.replace("\\", "/").split("/")
    # An empty part stands first in the name of an absolute path, a colon in that of a drive.
    if "\0" in name or ":" in parts[0] or not {"..", ""}.isdisjoint(parts):
        raise _leads_out(root, name)
    path = storage.join(root, _ASSETS)
    for part in parts:
        path = storage.join(path, part)
    path = storage.real(path)
    inside = storage.join(root, "")
    if not path.startswith(inside) or path == inside:
        raise _leads_out(root, name)
    return path


def _leads_out(root: str, name: str) -> MalformedError:
    return MalformedError(
        f"Expected the name of a file among the assets, found {name!r}",
        path=root,
        hint="The name leads out of the SavedModel, so it gets no path: do not trust this model",
    )
