"""Says which platforms install ckptparse without a compiler: asks pip for wheels of all it needs.

    python scripts/check_platforms.py                    what the core needs
    python scripts/check_platforms.py core ml_dtypes     and that extra, as in docs/platforms.md

Nothing is installed: pip is asked what it would take.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import tomllib

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"

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


def requirements(group: str) -> list[str]:
    """Return what the core, or an extra, needs."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    found: list[str] = project["dependencies"]
    return found if group == "core" else project["optional-dependencies"][group]


def has_wheels(wanted: Iterable[str], platform: Sequence[str], python: str) -> str | None:
    """Return None if every requirement has a wheel there, else the first that has none."""
    implementation, version, abis = PYTHONS[python]
    options = ["--implementation", implementation, "--python-version", version]
    options += [word for tag in platform for word in ("--platform", tag)]
    options += [word for abi in [*abis, "none"] for word in ("--abi", abi)]
    with tempfile.TemporaryDirectory() as folder:
        for requirement in wanted:
            # A marker would be judged by the Python that runs this.
            plain = requirement.partition(";")[0]
            command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--no-deps"]
            command += ["--only-binary=:all:", "--target", folder, *options, plain]
            if subprocess.run(command, capture_output=True, check=False).returncode:
                return plain
    return None


def main() -> None:
    """Print the table, a row a platform."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("groups", nargs="*", default=["core"], help="core, or names of extras")
    for group in parser.parse_args().groups:
        wanted = requirements(group)
        print(f"\n| {group} | {' | '.join(PYTHONS)} |")
        print("| --- |" + " --- |" * len(PYTHONS))
        for name, platform in PLATFORMS.items():
            cells = []
            for python in PYTHONS:
                missing = has_wheels(wanted, platform, python)
                cells.append("yes" if missing is None else f"no: {missing}")
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
