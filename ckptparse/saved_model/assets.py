"""Assets: files that a SavedModel's graph reads (docs/format.md, section 8.1).

Names come from the file `saved_model.pb` and may be anything; paths that are given out lie in the
directory `assets`, symbolic links followed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from ckptparse.errors import MalformedError

__all__ = ["asset_paths"]

_ASSETS = "assets"


def asset_paths(directory: str, filenames: Iterable[str]) -> dict[str, str]:
    """Give the path of each asset.

    Args:
        directory: Of the SavedModel.
        filenames: Names relative to its `assets`.

    Returns:
        Name -> real path, which need not exist.

    Raises:
        MalformedError: A name leads out of the directory.
    """
    root = os.path.realpath(directory)
    return {name: _asset_path(root, name) for name in dict.fromkeys(filenames)}


def _asset_path(root: str, name: str) -> str:
    # A backslash separates on Windows alone, where the same file must not lead elsewhere.
    parts = name.replace("\\", "/").split("/")
    plain = "\0" not in name and not os.path.isabs(name) and ":" not in parts[0]
    if not plain or not parts[-1] or not {"..", ""}.isdisjoint(parts):
        raise _leads_out(root, name)
    path = os.path.realpath(os.path.join(root, _ASSETS, *parts))
    if os.path.commonpath([root, path]) != root or path == root:
        raise _leads_out(root, name)
    return path


def _leads_out(root: str, name: str) -> MalformedError:
    return MalformedError(
        f"Expected the name of a file among the assets, found {name!r}",
        path=root,
        hint="Such a name would lead out of the SavedModel; no path is given for it",
    )
