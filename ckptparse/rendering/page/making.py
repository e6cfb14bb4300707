"""`report_page`: everything gathered, and one file written."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import closing
from functools import cache
from importlib import import_module, resources
from typing import Any

from ckptparse.checkpoint import Checkpoint
from ckptparse.errors import UnsupportedError
from ckptparse.examination.report import Report
from ckptparse.files.context import Cache, Context, Progress, Store, begin_with, find_target
from ckptparse.files.placing import check_absent, place_file
from ckptparse.graph.graph import Graph
from ckptparse.jobs.diff import Diff
from ckptparse.limits import DEFAULT_LIMITS, Limits
from ckptparse.model import SavedModel
from ckptparse.recovery.result import Recovery
from ckptparse.rendering.page.choosing import choose_shown
from ckptparse.rendering.page.files import make_files, number_files
from ckptparse.rendering.page.measuring import measure_all
from ckptparse.rendering.page.model import (
    make_effects,
    make_facts,
    make_model,
    make_problems,
    make_verdict,
)
from ckptparse.rendering.page.rows import make_rows
from ckptparse.rendering.page.subject import Subject, open_subject
from ckptparse.rendering.page.uses import make_uses
from ckptparse.statistics.gathering import Measured
from ckptparse.text import escape

__all__ = ["render_page", "report_page"]

_WEB = "web"
_LIBRARIES = ("d3-hierarchy.min.js", "dagre.min.js")
_SCRIPTS = ("common.js", "table.js", "detail.js", "treemap.js", "filemap.js", "uses.js", "main.js")
_MOST_PROBLEMS = 200
"""Problems that the page lists; it counts the rest, which the JSON report has."""
# In a script's text these would end it, begin a comment of markup, or end a line of old scripts.
_IN_SCRIPTS = {
    "<": "\\u003c",
    ">": "\\u003e",
    "&": "\\u0026",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
}

Source = str | os.PathLike[str] | Checkpoint | SavedModel | Graph | Report | Recovery | Diff
"""What a page can be made of: a path, or what was opened, found or got back."""


def report_page(
    source: Source,
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    statistics: bool = True,
    verify: bool = True,
    threads: int | None = None,
    progress: Progress | None = None,
    store: Store = None,
    cache: Cache = None,
    limits: Limits = DEFAULT_LIMITS,
) -> None:
    """Make one page that shows what is in a checkpoint, and which of it is broken.

    The page is one file that asks for nothing from anywhere: it opens from disk and can be mailed.
    It shows every tensor with its statistics, what each range of the files is, layers, optimizers,
    signatures, the graph of variables and who uses them, and what the model would do if it ran.
    Tensors are read piece by piece; memory stays small. Of more than 10,000 tensors, and one for
    each 4 KiB of the files, it shows so many: the damaged ones, then the first. It says so. Of
    very many in a small file (380,000 in 10 MB) it shows fewer, and of a `Recovery` a third.

    Args:
        source: Whatever `open`, `open_saved_model` or `open_graph` takes, also if it is damaged; or
            a value of theirs, a `Report`, a `Recovery`, a `Diff`. Of a `Report` there
            are no values to show; of a `Diff`, those of the second checkpoint.
        out: The file to write.
        overwrite: Whether a file that is there may be replaced.
        statistics: Whether the values of tensors are read and summed up.
        verify: Whether every checksum of a path is checked first.
        threads: How many threads sum up; None picks.
        progress: Called now and then with the bytes done, and the bytes to do; once for checking,
            then once more for the statistics.
        store: Where the path leads, as for `open`, and those of a `Diff`. The page is written on
            this machine, or where the URL leads that `out` is.
        cache: As for `open`.
        limits: Bounds on what the files may ask for.

    Raises:
        OutputExistsError: Something is there, and `overwrite` is false.
        CheckpointError: Nothing at the path can be shown.
        UnsupportedError: Jinja2 is not installed.
    """
    shown, context = begin_with(source, store=store, cache=cache, limits=limits, progress=progress)
    target, storage = find_target(out, None)
    if not overwrite:
        check_absent(target, storage)
    with closing(context), open_subject(shown, context, check=verify) as subject:
        content = _gather(subject, statistics=statistics, threads=threads, context=context)
    with place_file(target, overwrite=overwrite, storage=storage) as file:
        file.write(render_page(content).encode("utf-8"))


def render_page(content: Mapping[str, Any]) -> str:
    """Return the page of what was gathered."""
    template = _template()
    libraries = _LIBRARIES if content["uses"] and content["uses"]["nodes"] else _LIBRARIES[:1]
    script = "\n".join(map(_web, (*libraries, *_SCRIPTS)))
    style = _web("page.css")
    page = template.render(
        content,
        style=style,
        script=script,
        version=_version(),
        style_hash=_hash(style),
        script_hash=_hash(script),
        data=_as_script(content),
        licences=_web("LICENCES.txt"),
    )
    return str(page)


@cache
def _template() -> Any:
    """Return the template, which is compiled once."""
    try:
        import jinja2
    except ImportError as error:
        raise UnsupportedError(
            "A page needs the package jinja2, which is not installed",
            hint="pip install 'ckptparse[page]'",
        ) from error
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_web("page.html.j2"))


def _gather(
    subject: Subject, *, statistics: bool, threads: int | None, context: Context
) -> dict[str, Any]:
    numbers = number_files(subject)
    files = make_files(subject, numbers, context)
    stored = sum(file["size"] or 0 for file in files)
    names, left_out = choose_shown(subject, stored)
    tensors = {name: subject.tensors[name] for name in names if name in subject.tensors}
    subject.tensors, subject.left_out = tensors, left_out
    measured: dict[str, Measured] = {}
    if statistics:
        measured = measure_all(tensors, stored=stored, threads=threads, progress=context.progress)
    rows = make_rows(subject, names, measured, numbers)
    by_name = {name: number for number, name in enumerate(rows.pop("stored"))}
    content = {
        "title": escape(os.path.basename(subject.path.rstrip("/\\")) or subject.path),
        "path": escape(subject.path),
        "measured": statistics and bool(measured),
        "compared": subject.comparison is not None,
        "tensors": rows,
        "left_out": left_out,
        "facts": make_facts(subject, rows),
        "files": files,
        "model": make_model(subject, by_name),
        "effects": make_effects(subject),
        "uses": make_uses(subject),
    }
    # Last: what could not be read until here is told among the problems.
    problems = make_problems(subject)
    content["problems"] = problems[:_MOST_PROBLEMS]
    content["more_problems"] = max(0, len(problems) - _MOST_PROBLEMS)
    content["verdict"] = make_verdict(subject)
    content["next_step"] = escape(subject.report.next_step) if subject.report is not None else ""
    return content


def _version() -> str:
    return str(import_module("ckptparse").__version__)


def _web(name: str) -> str:
    """Return a file of the page's own."""
    folder = resources.files("ckptparse.rendering.page") / _WEB
    return (folder / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return what the page's policy allows a script or a style by."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def _as_script(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character, code in _IN_SCRIPTS.items():
        text = text.replace(character, code)
    return text
