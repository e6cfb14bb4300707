"""Tells what is built where the project lives: the address that the checkout was cloned from.

No file of the project holds this address, so a move needs no edit. It becomes the `urls` of the
metadata, and the README's links become absolute, for readers who do not have the files. A checkout
that comes from nowhere has no `urls`, and the links stay as they are. What is built from an sdist
has the address of the sdist.
"""

from __future__ import annotations

import re
from email.parser import HeaderParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hatchling.metadata.plugin.interface import MetadataHookInterface

PAGES = {
    "Source": "",
    "Documentation": "/tree/HEAD/docs",
    "Changelog": "/blob/HEAD/CHANGELOG.md",
    "Issues": "/issues",
}
# Git takes names in any case, quotes around a value, and a comment after it.
ORIGIN = re.compile(
    r'^[ \t]*\[(?i:remote) "origin"\][^\[]*?'
    r'^\s*(?i:url)[ \t]*=[ \t]*"?([^\s"#;]+)"?[ \t\r]*([#;].*)?$',
    re.MULTILINE,
)
BY_SSH = re.compile(r"[\w.-]+@(?P<host>[\w.-]+):(?P<path>[^/].*)")
HOST = re.compile(r"(?=.*[A-Za-z])[\w-]+(\.[\w-]+)+")
LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>(?!https?:|#)[^)\s]+)\)")


class AddressHook(MetadataHookInterface):
    """Gives the URLs and the README; hatchling calls it."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Put both into the project's metadata."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        source = find_source(Path(self.root))
        version = str(metadata.get("version", ""))
        if source is not None:
            text = absolute(text, source, f"v{version}" if version else "HEAD")
            metadata["urls"] = {name: source + page for name, page in PAGES.items()}
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def find_source(root: Path) -> str | None:
    """Return the address of the project's page, without a slash at its end; None if unknown."""
    packed, config = root / "PKG-INFO", root / ".git" / "config"
    if packed.is_file():
        stated = HeaderParser().parsestr(read(packed))
        urls = [str(value).partition(", ") for value in stated.get_all("Project-URL", [])]
        return next((url for name, _, url in urls if name == "Source" and url), None)
    found = ORIGIN.search(read(config)) if config.is_file() else None
    return None if found is None else page_of(found[1])


def read(path: Path) -> str:
    """Read a text of which only a few lines matter: a name in it may have any encoding."""
    return path.read_text(encoding="utf-8-sig", errors="replace")


def page_of(remote: str) -> str | None:
    """Return the page of a repository by the address that git uses; None if it is not public.

    A name and a password in it are left out.
    """
    by_ssh = BY_SSH.fullmatch(remote)
    try:
        parts = urlsplit(f"ssh://{by_ssh['host']}/{by_ssh['path']}" if by_ssh else remote)
        host = parts.hostname or ""
    except ValueError:  # Such as a bracket that nothing closes.
        return None
    if parts.scheme not in ("https", "ssh", "git") or not HOST.fullmatch(host):
        return None
    path = parts.path.strip("/").removesuffix(".git")
    return f"https://{host}/{path}" if path else None


def absolute(text: str, source: str, commit: str) -> str:
    """Let every link lead to a file of a commit: pictures as they are, all else as a page."""

    def lead(found: re.Match[str]) -> str:
        kind = "raw" if found["picture"] else "blob"
        return f"{found['picture']}[{found['text']}]({source}/{kind}/{commit}/{found['target']})"

    return LINK.sub(lead, text)
