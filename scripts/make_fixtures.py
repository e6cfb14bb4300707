"""Write `fixtures/` with TensorFlow, and beside each case what TensorFlow says it holds.

Run it once for each TensorFlow version, in an environment of that version::

    python3.11 -m venv tf221 && tf221/bin/pip install tensorflow-cpu==2.21.0 tf_keras==2.21.0
    tf221/bin/python scripts/make_fixtures.py

    python3.11 -m venv tf212 && tf212/bin/pip install tensorflow-cpu==2.12.0
    tf212/bin/python scripts/make_fixtures.py

The script looks at the version: the newest writes `fixtures/<family>/<case>/`, an older one writes
`fixtures/tf<version>/<family>/<case>/`, for which fewer cases are chosen. 2.12 is the oldest that
Python 3.11 installs. Names of cases or families as arguments write only those::

    tf221/bin/python scripts/make_fixtures.py saver v1/sharded

Beside each case stands `<case>.json` with the expected values (`fixture_cases/describe.py` says
how they are written), and `fixtures/README.md` lists all cases. Every case has its own process and
its own seed. What cannot be the same twice: timestamps, the random ids in SavedModels, and so their
sizes by a few bytes.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import tensorflow as tf
from fixture_cases import (
    crashes,
    dtypes,
    graphs,
    keras3,
    objects,
    plain_saved_models,
    roles,
    saved_models,
    saver,
    slices,
    v1,
)
from fixture_cases.common import CASES, NEWEST, TF_VERSION, Case, Output
from fixture_cases.describe import dump_json

FAMILIES = (
    saver,
    dtypes,
    slices,
    objects,
    v1,
    graphs,
    saved_models,
    keras3,
    plain_saved_models,
    roles,
    crashes,
)
FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"


def main() -> int:
    """Write the chosen cases and the list of all."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser(description="Write the fixtures with TensorFlow.")
    parser.add_argument("only", nargs="*", help="cases or families (default: all)")
    parser.add_argument("--out", type=Path, default=FIXTURES, help="where to write")
    arguments = parser.parse_args()
    failed = [case.name for case in chosen(arguments.only) if not run(case, arguments.out)]
    write_readme(arguments.out)
    if failed:
        print("failed:", " ".join(failed), file=sys.stderr)
    return 1 if failed else 0


def chosen(only: list[str]) -> list[Case]:
    """Return the cases of this TensorFlow version that were asked for."""
    cases = [case for case in CASES.values() if TF_VERSION in case.versions]
    if not only:
        return cases
    return [case for case in cases if case.name in only or case.name.split("/")[0] in only]


def base_directory(out: Path) -> Path:
    """Return the directory of this TensorFlow version's cases."""
    return out if TF_VERSION == NEWEST else out / "tf{}.{}".format(*TF_VERSION)


def run(case: Case, out: Path) -> bool:
    """Write one case in a child process: TensorFlow's state is one per process."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            write(case, out.resolve())
            code = 0
        except Exception:  # noqa: BLE001 - the next case has its own process
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return status == 0


def write(case: Case, out: Path) -> None:
    """Write the files of one case and its expected values."""
    path = base_directory(out) / case.name
    root = path.parent if case.flat else path
    clear(case, path)
    root.mkdir(parents=True, exist_ok=True)
    tf.random.set_seed(1)
    output = Output(case.name, root)
    case.write(output)
    files = case_files(case, path)
    described = {
        "case": case.name,
        "shows": case.shows,
        "tensorflow": tf.__version__,
        "root": str(root.relative_to(out)),
        "checklist": list(case.checklist),
        "files": {str(file.relative_to(root)): file.stat().st_size for file in files},
        **output.data,
    }
    expected = path.with_name(path.name + ".json")
    expected.write_text(dump_json(described) + "\n")
    size = sum(described["files"].values())
    print(f"{case.name:48} {size:8} bytes, expected {expected.stat().st_size}", flush=True)


def clear(case: Case, path: Path) -> None:
    """Remove what an earlier run wrote."""
    if not case.flat:
        shutil.rmtree(path, ignore_errors=True)
        return
    for file in case_files(case, path):
        file.unlink()


def case_files(case: Case, path: Path) -> list[Path]:
    """Return the files of a case: its directory's, or those that begin with its name."""
    if not case.flat:
        return sorted(file for file in path.rglob("*") if file.is_file())
    siblings = path.parent.glob("*") if path.parent.exists() else iter(())
    return sorted(file for file in siblings if is_flat_file(file, path.name))


def is_flat_file(file: Path, name: str) -> bool:
    """Tell whether a file of the family's directory belongs to the flat case `name`."""
    if file.name == "checkpoint":
        return True
    return file.is_file() and file.name.startswith(name + ".") and file.suffix != ".json"


def write_readme(out: Path) -> None:
    """List every case that is there, from the expected files."""
    lines = [
        "# Checkpoints written by TensorFlow",
        "",
        "Generated by `scripts/make_fixtures.py`: do not edit. Beside each case stands its",
        "`.json`, with every tensor's dtype, shape, SHA-256 and, where it is small, values;",
        "`tests/expected.py` loads it. Numbers in brackets: bytes, without the `.json`.",
    ]
    family = ""
    for case, described in expected_files(out):
        if case.rsplit("/", 1)[0] != family:
            family = case.rsplit("/", 1)[0]
            lines += ["", f"## {family}", ""]
        size = sum(described["files"].values())
        writer = f"TensorFlow {described['tensorflow']}"
        lines.append(f"- `{case}` ({writer}, {size}): {described['shows']}")
    (out / "README.md").write_text("\n".join(lines) + "\n")


def expected_files(out: Path) -> Iterable[tuple[str, dict]]:
    """Yield the path and the content of every case's expected file."""
    for path in sorted(out.rglob("*.json"), key=lambda path: (path.parent, path.name)):
        described = json.loads(path.read_text()) if path.stat().st_size else {}
        if isinstance(described, dict) and "shows" in described and "case" in described:
            yield str(path.relative_to(out).with_suffix("")), described


if __name__ == "__main__":
    sys.exit(main())
