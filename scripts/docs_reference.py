"""Adds a page to the site: the reference of every public name, from the docstrings.

The list is the package's own (`ckptparse.__all__`), so a new public name is on the page at once.
"""

from __future__ import annotations

import inspect
from typing import Any

from mkdocs.structure.files import File, Files

import ckptparse

PAGE = "reference.md"
INTRODUCTION = """# Reference

Every public name, as `ckptparse.NAME`. Names begin with a small letter if they are functions.
"""


def on_files(files: Files, config: Any) -> Files:
    """Add the page; called while the site is built."""
    files.append(File.generated(config, PAGE, content=reference()))
    return files


def reference() -> str:
    """Write the page: functions first, then values and errors."""
    groups: dict[str, list[str]] = {"Functions": [], "Classes": [], "Errors": [], "Constants": []}
    for name in ckptparse.__all__:
        groups[group_of(getattr(ckptparse, name))].append(f"::: {home_of(name)}.{name}\n")
    sections = (f"## {title}\n\n" + "\n".join(names) for title, names in groups.items())
    return "\n".join([INTRODUCTION, *sections])


def group_of(value: object) -> str:
    """Say under which heading a public name stands."""
    if inspect.isclass(value):
        return "Errors" if issubclass(value, BaseException) else "Classes"
    return "Functions" if callable(value) else "Constants"


def home_of(name: str) -> str:
    """Name the module that defines a public name, as the package's own table says."""
    return f"ckptparse.{vars(ckptparse)['_HOME'][name]}"
