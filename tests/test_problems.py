"""Problems as values, and the words that statuses are."""

from __future__ import annotations

import json

import pytest

from ckptparse.problems import PROBLEM_CODES, Cause, Problem, Severity, Status


def test_a_status_equals_and_prints_as_its_plain_word() -> None:
    assert Status.VERIFIED == "verified" and str(Status.VERIFIED) == "verified"
    assert f"{Cause.MIXED}" == "mixed save" and {Status.PARTIAL: 1}["partial"] == 1
    assert json.dumps(Status.MISSING) == '"missing"'


def test_exactly_the_three_proved_statuses_are_promises() -> None:
    assert {status for status in Status if status.proved} == {"verified", "corrected", "derived"}


def test_every_code_is_two_words_and_documented_in_a_sentence() -> None:
    for code, meaning in PROBLEM_CODES.items():
        assert code.count(".") == 1 and code == code.lower()
        assert meaning[0].isupper() and meaning.endswith(".")


def test_the_codes_cannot_be_changed_by_a_caller() -> None:
    with pytest.raises(TypeError):
        PROBLEM_CODES["index.footer"] = ""  # type: ignore[index]


def test_a_problem_takes_the_severity_of_its_code_unless_told_otherwise() -> None:
    assert Problem.of("index.footer", "m.index", "cut off").severity == "error"
    assert Problem.of("shard.trailing", "m.data", "7 bytes").severity == "warning"
    told = Problem.of("index.footer", "old.index", "cut off", severity=Severity.WARNING)
    assert told.severity is Severity.WARNING


def test_a_problem_becomes_plain_strings() -> None:
    problem = Problem.of("shard.missing", "m.data-00000-of-00001", "not there")
    assert json.loads(json.dumps(problem.to_dict())) == {
        "code": "shard.missing",
        "severity": "error",
        "where": "m.data-00000-of-00001",
        "message": "not there",
    }
    assert str(problem) == "error: shard.missing: m.data-00000-of-00001: not there"
