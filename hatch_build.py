"""Makes the links of the README absolute in what is built, where it is read without the files.

They become those of the project's `Source` among `[project.urls]`; as long as that is not there,
they stay as they are.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>(?!https?:|#)[^)\s]+)\)")


class ReadmeHook(MetadataHookInterface):
    """Gives the README; hatchling calls it."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Put the README into the project's metadata."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        source = metadata.get("urls", {}).get("Source")
        version = str(metadata.get("version", ""))
        if source:
            text = absolute(text, source.rstrip("/"), f"v{version}" if version else "HEAD")
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def absolute(text: str, source: str, commit: str) -> str:
    """Let every link lead to a file of a commit: pictures as they are, all else as a page."""

    def lead(found: re.Match[str]) -> str:
        kind = "raw" if found["picture"] else "blob"
        return f"{found['picture']}[{found['text']}]({source}/{kind}/{commit}/{found['target']})"

    return LINK.sub(lead, text)
