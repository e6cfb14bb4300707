"""URLs of files on this machine: `file:///model/ckpt-1` is `/model/ckpt-1`."""

from __future__ import annotations

import os

from ckptparse.errors import UnsupportedError

__all__ = ["local_path"]

_SCHEME = "file://"
_HOSTS = ("", "localhost")


def local_path(path: str) -> str:
    """Return the path that a `file://` URL means; of what is none, the same.

    Raises:
        UnsupportedError: It names a file of another machine, or no whole path.
    """
    if path[: len(_SCHEME)].lower() != _SCHEME or "::" in path:
        return path
    host, slash, rest = path[len(_SCHEME) :].partition("/")
    if host.lower() not in _HOSTS or not slash:
        raise UnsupportedError(
            "Expected a file:// URL with three slashes and a whole path, such as file:///model/m",
            path=path,
            hint="A path needs no file:// before it",
        )
    from urllib.parse import unquote_to_bytes

    found = os.fsdecode(unquote_to_bytes(os.fsencode(slash + rest)))
    # Of Windows: `file:///C:/model` is `C:/model`.
    return found[1:] if os.name == "nt" and found[2:3] == ":" else found
