"""Check every byte of a checkpoint that can be checked. Damage is a value, and no exception."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from ckptparse.examination.checking import check_all, open_case
from ckptparse.examination.choosing import explain_choice
from ckptparse.examination.converted import choose
from ckptparse.examination.diagnose import diagnose
from ckptparse.examination.inputs import describe_limits, list_inputs
from ckptparse.examination.intact import Rows, find_intact
from ckptparse.examination.neighbours import find_others
from ckptparse.examination.readers import DataFiles
from ckptparse.examination.report import Report
from ckptparse.examination.summary import make_report
from ckptparse.files.context import Context
from ckptparse.files.noted import NotedStorage
from ckptparse.inventory.folders import Folders
from ckptparse.inventory.parts import survey_candidate
from ckptparse.inventory.survey import Survey

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["verify_path", "verify_survey"]


def verify_path(
    path: str,
    context: Context,
    *,
    hashes: bool = False,
    executor: Executor | None = None,
    rows: Rows | None = None,
    neighbours: bool = True,
    folders: Folders | None = None,
) -> Report:
    """Check the checkpoint that a path means; see `ckptparse.verify`.

    Args:
        path: The path.
        context: Where it leads.
        hashes, executor: As for `ckptparse.verify`.
        rows: As for `verify_survey`.
        neighbours: Whether other checkpoints are looked at if this one is damaged.
        folders: The directories, if some of them were listed already.
    """
    noted = NotedStorage(context.storage)
    folders = (folders or Folders(context)).beside(replace(context, storage=noted))
    choice = choose(path, folders)
    survey = None
    if choice.candidate.format == "graph":
        from ckptparse.examination.graphs import verify_graph

        report = verify_graph(choice.candidate, folders.context)
    else:
        survey = survey_candidate(choice.candidate, folders)
        report = verify_survey(survey, folders.context, executor, rows=rows, folders=folders)
        if survey.saved_model is not None:
            from ckptparse.examination.models import add_model

            report = add_model(report, survey.saved_model, choice.candidate, folders.context)
    roles = {file.path: file.role for file in report.files.values()}
    report = replace(
        explain_choice(report, choice, context),
        options={"job": "verify", "path": path, "limits": describe_limits(context.limits)},
        inputs=list_inputs(noted, roles, hashes=hashes),
    )
    if report.ok or survey is None or not neighbours:
        return report
    return replace(report, others=find_others(survey, context, folders))


def verify_survey(
    survey: Survey,
    context: Context,
    executor: Executor | None = None,
    *,
    rows: Rows | None = None,
    folders: Folders | None = None,
) -> Report:
    """Check a checkpoint whose files are known.

    Args:
        survey: Its files.
        context: Where they lie.
        executor: As for `verify`.
        rows: Of which tensors the bytes are read; those of others are taken for right. None: all.
        folders: The directories, if some of them were listed already.
    """
    files = DataFiles(context)
    with closing(files):
        report = find_intact(survey, files, executor, rows)
        if report is not None:
            return report
        case = open_case(survey, context, files=files)
        check_all(case)
        return make_report(case, diagnose(case, deep=False, folders=folders).problems)
