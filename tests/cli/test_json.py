"""`--json` gives what docs/cli.schema.json says, for answers and for errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest
from golden_cases import CASES

import ckptparse
from ckptparse.cli.app import COMMANDS

ERRORS = {
    "nothing there": "ls fixtures/saver/nix",
    "no checkpoint": "ls fixtures/README.md",
    "no such tensor": "show fixtures/saver/my_model weihgts",
    "damage": "show fixtures/slices/hole/model holed",
    "bad index": "show fixtures/saver/my_model 'weights[x]'",
}


@pytest.fixture(scope="session")
def schema(project: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((project / "docs" / "cli.schema.json").read_text())
    return loaded


@pytest.fixture(scope="session")
def validate(schema: dict[str, Any]) -> Callable[[Any], Any]:
    compiled: Callable[[Any], Any] = fastjsonschema.compile(schema)
    return compiled


@pytest.mark.parametrize("name", CASES)
def test_an_answer_is_as_the_schema_says(
    name: str, call: Callable[[str], Any], validate: Callable[[Any], Any]
) -> None:
    done = call(f"ckptparse {CASES[name]} --json")
    answer = json.loads(done.out)
    validate(answer)
    assert answer["exit"] == done.code
    assert answer["command"] == CASES[name].split()[0]


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_as_the_schema_says(
    name: str, call: Callable[[str], Any], validate: Callable[[Any], Any]
) -> None:
    done = call(f"ckptparse {ERRORS[name]} --json")
    answer = json.loads(done.out)
    validate(answer)
    assert answer["exit"] == done.code > 0
    assert answer["result"] is None
    assert answer["errors"]
    assert "Traceback" not in done.err


USAGE = {
    "no argument": ("ls", "ls"),
    "no such option": ("ls --nix fixtures/saver/my_model", "ls"),
    "no such command": ("nix fixtures/saver/my_model", None),
    "a number that is none": ("dump --depth x fixtures/saver/my_model.index", "dump"),
    "a choice that is none": ("ls --naming nix fixtures/saver/my_model", "ls"),
}


@pytest.mark.parametrize("name", USAGE)
def test_a_wrong_command_line_is_answered_as_the_schema_says(
    name: str, call: Callable[[str], Any], validate: Callable[[Any], Any]
) -> None:
    command, told = USAGE[name]
    done = call(f"ckptparse {command} --json")
    answer = json.loads(done.out)
    validate(answer)
    assert answer["exit"] == done.code == 2
    assert answer["command"] == told
    assert [error["kind"] for error in answer["errors"]] == ["UsageError"]
    assert "Traceback" not in done.err


def test_a_name_after_two_dashes_is_no_option(call: Callable[[str], Any]) -> None:
    done = call("ckptparse show fixtures/saver/my_model -- --json")
    assert done.code == 1
    assert "--json" in done.err and not done.out


def test_the_schema_knows_every_command(schema: dict[str, Any]) -> None:
    assert schema["properties"]["command"]["enum"] == [*COMMANDS, None]


def test_the_schema_refuses_a_field_that_is_not_in_it(
    call: Callable[[str], Any], validate: Callable[[Any], Any]
) -> None:
    answer = json.loads(call("ckptparse ls fixtures/saver/my_model --json").out)
    answer["result"]["tensors"][0]["more"] = 1
    with pytest.raises(fastjsonschema.JsonSchemaException):
        validate(answer)


def test_a_name_that_is_not_utf8_survives(call: Callable[[str], Any], fixtures: Path) -> None:
    answer = json.loads(call("ckptparse ls fixtures/names/not_utf8/model --json").out)
    names = [tensor["name"] for tensor in answer["result"]["tensors"]]
    assert names == list(ckptparse.open(fixtures / "names" / "not_utf8" / "model"))


def test_a_closest_name_is_given(call: Callable[[str], Any]) -> None:
    answer = json.loads(call("ckptparse show fixtures/saver/my_model weihgts --json").out)
    (error,) = answer["errors"]
    assert error["closest"] == ["weights"]


@pytest.mark.parametrize("case", ["floats", "integers", "complex", "strings", "below_a_byte"])
def test_values_of_every_kind_are_json(
    case: str, call: Callable[[str], Any], fixtures: Path
) -> None:
    path = f"fixtures/dtypes/{case}/model"
    with ckptparse.open(fixtures / "dtypes" / case / "model") as checkpoint:
        for name, tensor in checkpoint.items():
            try:
                assert tensor.dtype is not None
            except ckptparse.UnsupportedError:
                continue
            answer = json.loads(call(f"ckptparse show --json --full {path} '{name}'").out)
            values = answer["result"]["values"]
            for size in tensor.shape:
                assert len(values) == size
                if not size:
                    break
                values = values[0]
