"""Says which platforms install ckptparse without a compiler: which have wheels of all it needs.

    pip install uv packaging
    python scripts/check_platforms.py             print the table
    python scripts/check_platforms.py --write     put it into docs/platforms.md

Nothing is installed: uv is asked what it would take for each platform and Python, dependencies of
dependencies included; of interpreters that uv does not know by name, pip is asked. A cell names the
extras for which there is no wheel.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

import tomllib
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = ROOT / "pyproject.toml"
PAGE = ROOT / "docs" / "platforms.md"
BEGIN, END = "<!-- platforms: begin -->\n", "<!-- platforms: end -->"


class Platform(NamedTuple):
    """One platform: its name for uv, and the tags of wheels that it takes."""

    uv: str
    tags: list[str]


def _linux(kind: str, machine: str, oldest: int, newest: int) -> list[str]:
    major = 2 if kind == "manylinux" else 1
    tags = [f"{kind}_{major}_{minor}_{machine}" for minor in range(newest, oldest - 1, -1)]
    return tags + ([f"manylinux2014_{machine}"] if kind == "manylinux" else [])


PLATFORMS = {
    "Linux x86_64 (glibc 2.28)": Platform(
        "x86_64-manylinux_2_28", _linux("manylinux", "x86_64", 17, 28)
    ),
    "Linux aarch64 (glibc 2.28)": Platform(
        "aarch64-manylinux_2_28", _linux("manylinux", "aarch64", 17, 28)
    ),
    "Linux x86_64 (musl, Alpine)": Platform(
        "x86_64-unknown-linux-musl", _linux("musllinux", "x86_64", 1, 2)
    ),
    "Linux aarch64 (musl, Alpine)": Platform(
        "aarch64-unknown-linux-musl", _linux("musllinux", "aarch64", 1, 2)
    ),
    "macOS 14 arm64": Platform(
        "aarch64-apple-darwin",
        [f"macosx_{n}_0_{m}" for n in (14, 13, 12, 11) for m in ("arm64", "universal2")],
    ),
    "macOS 14 x86_64": Platform(
        "x86_64-apple-darwin",
        [
            *(f"macosx_{n}_0_{m}" for n in (14, 13, 12, 11) for m in ("x86_64", "universal2")),
            *(f"macosx_10_{n}_{m}" for n in range(16, 8, -1) for m in ("x86_64", "universal2")),
        ],
    ),
    "Windows x86_64": Platform("x86_64-pc-windows-msvc", ["win_amd64"]),
    "Windows arm64": Platform("aarch64-pc-windows-msvc", ["win_arm64"]),
}

CPYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
OTHERS = {
    "3.14t": ("cp", "314", ["cp314t"]),
    "PyPy 3.11": ("pp", "311", ["pypy311_pp73"]),
}
"""Implementation, version and binary interfaces that pip is told."""

EXTRAS = ("cli", "page", "ml-dtypes", "chunked", "safetensors", "hdf5", "remote")


def requirements(groups: Iterable[str]) -> list[str]:
    """Return what some extras and the core need."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    return [*project["dependencies"], *(line for name in groups for line in extras[name])]


@cache
def missing(platform: str, python: str, *groups: str) -> str | None:
    """Return None if all has a wheel there, else the package that has none."""
    wanted = requirements(groups)
    ask = _ask_pip if python in OTHERS else _ask_uv
    done = ask(PLATFORMS[platform], python, wanted)
    if not done.returncode:
        return None
    found = re.search(
        r"No matching distribution found for ([\w.-]+)|required for `([\w.-]+)`", done.stderr
    )
    return (found[1] or found[2]) if found else done.stderr.strip().splitlines()[-1]


def _ask_uv(platform: Platform, python: str, wanted: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--only-binary", ":all:"]
    command += ["--python-platform", platform.uv, "--python-version", python, "-"]
    text = "\n".join(wanted)
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def _ask_pip(
    platform: Platform, python: str, wanted: list[str]
) -> subprocess.CompletedProcess[str]:
    implementation, version, abis = OTHERS[python]
    options = ["--implementation", implementation, "--python-version", version]
    options += [word for tag in platform.tags for word in ("--platform", tag)]
    options += [word for abi in [*abis, "none"] for word in ("--abi", abi)]
    spoken = {"python_version": f"{version[0]}.{version[1:]}"}
    # Pip would judge the markers by the Python that runs this.
    parsed = [
        one for one in map(Requirement, wanted) if not one.marker or one.marker.evaluate(spoken)
    ]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet"]
        command += ["--only-binary=:all:", "--target", folder, *options]
        command += [f"{one.name}{one.specifier}" for one in parsed]
        return subprocess.run(command, capture_output=True, text=True, check=False)


def describe(platform: str, python: str) -> str:
    """Return the text of one cell."""
    if missing(platform, python, *EXTRAS) is None:
        return "all"
    lacking = missing(platform, python)
    if lacking is not None:
        return f"no: {lacking}"
    if python in OTHERS:
        # Pip would look through every old release of every package.
        return "core"
    without = [extra for extra in EXTRAS if missing(platform, python, extra) is not None]
    return f"all but {', '.join(f'`{extra}`' for extra in without)}"


def table() -> Iterator[str]:
    """Iterate over the lines of the table, a row a platform."""
    pythons = [*CPYTHONS, *OTHERS]
    yield f"| | {' | '.join(pythons)} |"
    yield "| --- |" + " --- |" * len(pythons)
    with ThreadPoolExecutor(4) as pool:
        for platform in PLATFORMS:
            cells = pool.map(describe, [platform] * len(pythons), pythons)
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
