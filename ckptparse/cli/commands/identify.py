"""`ckptparse identify`: what a file is, by its content."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import ckptparse
from ckptparse.cli.completion import complete_path
from ckptparse.cli.options import Argument
from ckptparse.cli.output import Output
from ckptparse.cli.running import GOOD, NOT_RUN, Run
from ckptparse.cli.text import to_json
from ckptparse.text import clean, escape

__all__ = ["identify"]


def identify(
    run: Run,
    files: Annotated[
        list[str],
        Argument(metavar="FILE", help="Files, directories, prefixes.", complete=complete_path),
    ],
) -> Identities:
    """Tell what files are by their content, and what to do.

    ckptparse identify model.ckpt-1000.index
    ckptparse identify *
    """
    found = []
    for file in files:
        with run.reporting():
            found.append((file, ckptparse.identify(file, cache=run.cache)))
    return Identities(tuple(found), GOOD if len(found) == len(files) else NOT_RUN)


@dataclass(frozen=True, slots=True)
class Identities:
    """What each file was found to be, beside the path that was asked for."""

    found: tuple[tuple[str, ckptparse.Identity], ...]
    code: int

    def to_dict(self) -> dict[str, Any]:
        """Return them as JSON has them."""
        return {
            "files": [
                {
                    "asked": asked,
                    "path": identity.path,
                    "kind": identity.kind,
                    "meaning": identity.meaning,
                    "detail": to_json(identity.detail),
                    "advice": identity.advice,
                    "contains": list(identity.contains),
                }
                for asked, identity in self.found
            ]
        }

    def write(self, out: Output) -> None:
        """Write a paragraph for each in a terminal, a record piped."""
        for number, (asked, identity) in enumerate(self.found):
            if not out.terminal:
                out.record(escape(asked), identity.kind, clean(identity.meaning))
                continue
            if number:
                out.line()
            out.line(escape(asked), "bold")
            out.fields((f"  {name}", text) for name, text in _rows(asked, identity))


def _rows(asked: str, identity: ckptparse.Identity) -> Iterator[tuple[str, str]]:
    yield "kind", identity.kind
    yield "is", clean(identity.meaning)
    if identity.path != asked:
        yield "by", escape(identity.path)
    for name, value in identity.detail.items():
        if value not in ((), "", None):
            yield name.replace("_", " "), clean(_text(value))
    yield "do", clean(identity.advice)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)
