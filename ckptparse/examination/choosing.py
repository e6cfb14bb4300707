"""Say in a report why this checkpoint was chosen for the path that the caller gave."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ckptparse.examination.report import Report
from ckptparse.examination.summary import sort_problems
from ckptparse.files.context import Context
from ckptparse.inventory.lenient import Choice
from ckptparse.problems import Problem

__all__ = ["explain_choice"]


def explain_choice(report: Report, choice: Choice, context: Context) -> Report:
    """Add to a report why this checkpoint was taken, if the path means another one or none.

    If it lies in an archive, what is damaged of that is added, too.

    If `ckptparse.open` refuses the path, the report is not `ok`, so that `verify PATH && deploy`
    never approves it.
    """
    problems = [*choice.problems, *_iter_archive(context)]
    if choice.refusal is not None and report.ok and not choice.problems:
        refusal = choice.refusal
        problems.append(Problem.of("path.refused", refusal.path or report.path, refusal.message))
    problems += choice.beside
    if not problems:
        return report
    # If the choice speaks of the state file, it says more than "state.stale" does.
    codes = {problem.code for problem in problems if problem.code.startswith("state.")}
    kept = [problem for problem in report.problems if problem.code not in codes]
    return replace(report, problems=sort_problems([*problems, *kept]))


def _iter_archive(context: Context) -> Iterator[Problem]:
    """Iterate over what is damaged of the archive that a checkpoint was read out of."""
    damage = {} if context.archive is None else context.archive.damage
    for path, error in damage.items():
        yield Problem.of("archive.damaged", path, error.message)
