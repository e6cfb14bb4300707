"""Adds pages to the site: those that the pictures of the gallery show, made of the fixtures.

In the gallery of the site each picture becomes a link to its page.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

import ckptparse

GALLERY = "gallery.md"
FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
MODEL = FIXTURES / "saved_model" / "keras2_digits"
PICTURE = re.compile(r"!\[[^\]]+\]\(page/(?P<name>[\w-]+)\.png\)")
SHOWS = {"table": "saved-model", "tensor": "saved-model", "uses": "module"}
"""Pictures that show a part of another's page."""


def on_files(files: Files, config: Any) -> Files:
    """Add the pages; called while the site is built."""
    for name, text in pages():
        files.append(File.generated(config, f"gallery/{name}.html", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Make each picture of the gallery a link."""
    if page.file.src_uri != GALLERY:
        return markdown
    return PICTURE.sub(
        lambda found: f"[{found[0]}](gallery/{target(found['name'])}.html)", markdown
    )


def target(picture: str) -> str:
    """Name the page that a picture is of."""
    return SHOWS.get(picture, picture)


def pages() -> Iterator[tuple[str, str]]:
    """Iterate over names and pages."""
    first, second = (FIXTURES / "objects" / "nested" / f"ckpt-{number}" for number in (1, 2))
    with tempfile.TemporaryDirectory() as folder:
        sources = {
            "saved-model": MODEL,
            "module": FIXTURES / "saved_model" / "module",
            "damaged": damage(Path(folder)),
            "changes": ckptparse.diff(first, second),
        }
        for name, source in sources.items():
            out = Path(folder) / f"{name}.html"
            ckptparse.report_page(source, out)
            text = out.read_text(encoding="utf-8")
            # Where the page was made is nobody's concern.
            yield name, text.replace(f"{folder}/", "").replace(f"{FIXTURES.parent}/", "")


def damage(folder: Path) -> Path:
    """Copy the variables of the model, and write bad bytes into two tensors."""
    shutil.copytree(MODEL / "variables", folder / "run")
    prefix = folder / "run" / "variables"
    with ckptparse.open(prefix) as checkpoint:
        places = [
            tensor.location
            for name, tensor in checkpoint.items()
            if "layer_with_weights" in name and "/kernel" in name
        ]
    for place in places:
        if place is not None:
            with Path(place.path).open("r+b") as file:
                file.seek(place.offset + 1)
                file.write(b"\xff\x7f")
    return prefix
