"""The benchmark runs and reports; what it measures is nobody's condition here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmark needs /proc")


def test_the_benchmark_prints_a_table_and_writes_what_it_measured(
    project: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    command = [
        sys.executable, project / "scripts" / "benchmark.py", "strings", "start", "--rounds", "1",
        "--directory", tmp_path, "--json", report,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    head, _, *rows = done.stdout.splitlines()
    assert head.startswith("| work | ckptparse | limit |")
    works = [row.split("|")[1].strip()[:13] for row in rows]
    assert works == ["**read**", "read 200,000 ", "whole process"]
    jobs = json.loads(report.read_text())["jobs"]
    assert jobs["start"]["ckptparse"]["runs"] == 3
    assert {"ckptparse", "limit"} <= jobs["strings"].keys()
    ours = jobs["strings"]["ckptparse"]
    assert 0 < ours["least"] <= ours["seconds"] <= ours["most"]
    assert ours["peak_total_bytes"] >= ours["peak_anonymous_bytes"] > 0
