"""Says which platforms install ckptparse without a compiler: asks pip for wheels of all it needs.

    python scripts/check_platforms.py             print the table
    python scripts/check_platforms.py --write     put it into docs/platforms.md

Nothing is installed: pip is asked what it would take for each platform, dependencies of
dependencies included. A cell names the extras for which there is no wheel; some minutes.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import tomllib
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = ROOT / "pyproject.toml"
PAGE = ROOT / "docs" / "platforms.md"
BEGIN, END = "<!-- platforms: begin -->\n", "<!-- platforms: end -->"

PLATFORMS = {
    "Linux x86_64 (glibc)": [
        "manylinux_2_28_x86_64",
        "manylinux_2_17_x86_64",
        "manylinux2014_x86_64",
    ],
    "Linux aarch64 (glibc)": [
        "manylinux_2_28_aarch64",
        "manylinux_2_17_aarch64",
        "manylinux2014_aarch64",
    ],
    "Linux x86_64 (musl, Alpine)": ["musllinux_1_2_x86_64", "musllinux_1_1_x86_64"],
    "Linux aarch64 (musl, Alpine)": ["musllinux_1_2_aarch64", "musllinux_1_1_aarch64"],
    "macOS arm64": ["macosx_14_0_arm64", "macosx_11_0_arm64"],
    "macOS x86_64": ["macosx_14_0_x86_64", "macosx_10_9_x86_64"],
    "Windows x86_64": ["win_amd64"],
    "Windows arm64": ["win_arm64"],
}
"""The tags of wheels that each platform takes."""

PYTHONS = {
    "3.10": ("cp", "310", ["cp310", "abi3"]),
    "3.11": ("cp", "311", ["cp311", "abi3"]),
    "3.12": ("cp", "312", ["cp312", "abi3"]),
    "3.13": ("cp", "313", ["cp313", "abi3"]),
    "3.14": ("cp", "314", ["cp314", "abi3"]),
    "3.14t": ("cp", "314", ["cp314t"]),
    "PyPy 3.11": ("pp", "311", ["pypy311_pp73"]),
}
"""Implementation, version and binary interfaces that pip is told."""

EXTRAS = ("cli", "page", "ml_dtypes", "chunked", "safetensors", "hdf5", "remote")


def requirements(groups: Iterable[str], python: str) -> list[str]:
    """Return what some extras and the core need on a Python, without the markers."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(line for name in groups for line in extras[name])]
    version = re.sub(r"(\d)(\d+)", r"\1.\2", PYTHONS[python][1])
    parsed = map(Requirement, wanted)
    return [
        f"{one.name}{one.specifier}"
        for one in parsed
        if one.marker is None or one.marker.evaluate({"python_version": version})
    ]


@cache
def missing(platform: str, python: str, *groups: str) -> str | None:
    """Return None if all has a wheel there, else the package that has none."""
    implementation, version, abis = PYTHONS[python]
    options = ["--implementation", implementation, "--python-version", version]
    options += [word for tag in PLATFORMS[platform] for word in ("--platform", tag)]
    options += [word for abi in [*abis, "none"] for word in ("--abi", abi)]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet"]
        command += ["--only-binary=:all:", "--target", folder, *options]
        command += requirements(groups, python)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.returncode:
        return None
    found = re.search(r"No matching distribution found for ([\w.-]+)", done.stderr)
    return found[1] if found else done.stderr.strip().splitlines()[-1]


def describe(platform: str, python: str) -> str:
    """Return the text of one cell."""
    if missing(platform, python, *EXTRAS) is None:
        return "all"
    lacking = missing(platform, python)
    if lacking is not None:
        return f"no: {lacking}"
    without = [extra for extra in EXTRAS if missing(platform, python, extra) is not None]
    return f"all but {', '.join(f'`{extra}`' for extra in without)}"


def table() -> Iterator[str]:
    """Iterate over the lines of the table, a row a platform."""
    yield f"| | {' | '.join(PYTHONS)} |"
    yield "| --- |" + " --- |" * len(PYTHONS)
    with ThreadPoolExecutor(2) as pool:
        for platform in PLATFORMS:
            names: Sequence[str] = list(PYTHONS)
            cells = pool.map(describe, [platform] * len(names), names)
            yield f"| {platform} | {' | '.join(cells)} |"


def main() -> None:
    """Print the table, and put it into its page if that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put it into docs/platforms.md")
    arguments = parser.parse_args()
    lines = []
    for line in table():
        print(line, flush=True)
        lines.append(line)
    if arguments.write:
        text = PAGE.read_text(encoding="utf-8")
        head, _, rest = text.partition(BEGIN)
        _, _, tail = rest.partition(END)
        whole = head + BEGIN + "".join(f"{line}\n" for line in lines) + END + tail
        PAGE.write_text(whole, encoding="utf-8")


if __name__ == "__main__":
    main()
