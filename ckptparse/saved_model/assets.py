"""Assets: files that a SavedModel's graph reads (docs/format.md, section 8.1).

Names come from the file `saved_model.pb` and may be anything; paths that are given out lie in the
directory `assets`, symbolic links followed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ckptparse.errors import MalformedError
from ckptparse.files.storage import Storage

__all__ = ["asset_paths", "find_leading_out"]

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
    paths = _Paths(storage, directory)
    return {name: paths.of_asset(name) for name in dict.fromkeys(filenames)}


def find_leading_out(storage: Storage, directory: str, filenames: Iterable[str]) -> set[str]:
    """Return the names of assets that lead out of the directory of their SavedModel."""
    paths = _Paths(storage, directory)
    return {name for name in dict.fromkeys(filenames) if paths.lead_out(name)}


class _Paths:
    """Real paths of assets: what lies on the way to several is looked at once."""

    def __init__(self, storage: Storage, directory: str) -> None:
        self._storage = storage
        self._root = storage.real(directory)
        self._inside = storage.join(self._root, "")
        # What a storage cannot tell, its `real` follows.
        self._finds_no_link: Callable[[str], bool | None] = getattr(
            storage, "finds_no_link", lambda _: False
        )
        self._no_links: dict[str, bool | None] = {}

    def of_asset(self, name: str) -> str:
        """Return the real path of an asset.

        Raises:
            MalformedError: It leads out of the directory.
        """
        # A backslash separates on Windows alone, and the same file must not lead elsewhere there.
        parts = name.replace("\\", "/").split("/")
        # An empty part stands first in the name of an absolute path, a colon in that of a drive.
        if "\0" in name or ":" in parts[0] or not {"..", ""}.isdisjoint(parts):
            raise _leads_out(self._root, name)
        path = self._real([_ASSETS, *parts])
        if not path.startswith(self._inside) or path == self._inside:
            raise _leads_out(self._root, name)
        return path

    def lead_out(self, name: str) -> bool:
        """Tell whether an asset leads out of the directory."""
        try:
            self.of_asset(name)
        except MalformedError:
            return True
        return False

    def _real(self, parts: list[str]) -> str:
        """Return the real path of a file below the root, by its names."""
        path, is_there = self._root, True
        for part in parts:
            path = self._storage.join(path, part)
            # Below what is not there is nothing, and no link either.
            if is_there and path not in self._no_links:
                self._no_links[path] = self._finds_no_link(path)
            is_there = is_there and self._no_links[path] is not None
            if is_there and not self._no_links[path]:
                break
        else:
            if "." not in parts:
                return path
        path = self._root
        for part in parts:
            path = self._storage.join(path, part)
        return self._storage.real(path)


def _leads_out(root: str, name: str) -> MalformedError:
    return MalformedError(
        f"Expected the name of a file among the assets, found {name!r}",
        path=root,
        hint="The name leads out of the SavedModel, so it gets no path: do not trust this model",
    )
