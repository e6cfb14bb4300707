"""Every command on every real checkpoint: an answer of the schema, or an error of one sentence."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import corpus
import pytest

pytest.importorskip("click")
pytest.importorskip("rich")
fastjsonschema = pytest.importorskip("fastjsonschema")

pytestmark = pytest.mark.corpus

COMMANDS = [
    "info",
    "ls",
    "ls --long --naming variable",
    "ls --tree",
    "ls --slots",
    "verify",
    "recover --dry-run",
    "identify",
]


def paths() -> list[Path]:
    """List every item's directory and every checkpoint in it."""
    root = corpus.directory()
    if root is None:
        return []
    items = [root / item for item in corpus.answers()]
    return [*items, *(recorded.path for recorded in corpus.checkpoints())]


@pytest.fixture(scope="module")
def validate(project: Path) -> Callable[[Any], Any]:
    schema = json.loads((project / "docs" / "cli.schema.json").read_text())
    compiled: Callable[[Any], Any] = fastjsonschema.compile(schema)
    return compiled


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_answers_for_every_checkpoint(
    command: str,
    validate: Callable[[Any], Any],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from ckptparse.cli import main

    if not paths():
        pytest.skip("no corpus")
    for path in paths():
        monkeypatch.setattr(sys, "argv", ["ckptparse", *command.split(), "--json", str(path)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capfd.readouterr()
        answer = json.loads(out)
        validate(answer)
        assert answer["exit"] == stop.value.code
        kinds = {error["kind"] for error in answer["errors"]}
        assert all(kind.endswith("Error") for kind in kinds)
        assert "unexpected" not in err, f"{path}: {err}"
        assert "Traceback" not in err
