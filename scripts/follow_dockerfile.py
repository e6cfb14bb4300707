"""Follows the Dockerfile of docs/container.md in a folder that holds a Debian, without Docker.

    python scripts/follow_dockerfile.py ROOT

ROOT is what debootstrap made, with python3-venv in it; it takes the place of the image that FROM
names: Python and pip are put into /usr/local, where that image has them. RUN, COPY, USER and CMD
are done as they stand. What CMD prints comes out, and how large what was installed is. As root.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```dockerfile\n(?P<steps>.+?)^```$", re.MULTILINE | re.DOTALL)
BIND = re.compile(r"--mount=type=bind,target=(?P<target>\S+) (?P<command>.+)")
SEEN = shutil.ignore_patterns(".*", "build", "dist")


class Image:
    """The folder, and who runs in it."""

    def __init__(self, root: Path) -> None:
        """Put Python and pip where the image has them."""
        self.root = root
        self.user = "root"
        self.run("python3", "-m", "venv", "/usr/local")

    def inside(self, path: str) -> Path:
        """Return where a path of the image lies."""
        return self.root / path.lstrip("/")

    def run(self, *command: str) -> None:
        """Run a command in it."""
        subprocess.run(["chroot", f"--userspec={self.user}", self.root, *command], check=True)

    def follow(self, step: str, rest: str) -> None:
        """Do one step.

        Raises:
            SystemExit: It is of a kind that is not known here.
        """
        if step == "FROM":
            print(f"FROM {rest}: {self.root} stands in for it", flush=True)
        elif step == "RUN":
            bound = BIND.fullmatch(rest)
            with self.bound(bound["target"] if bound else None):
                self.run("sh", "-c", bound["command"] if bound else rest)
        elif step == "COPY":
            source, target = rest.split()
            shutil.copytree(PROJECT / source, self.inside(target), dirs_exist_ok=True)
        elif step == "USER":
            self.user = rest
        elif step == "CMD":
            self.run(*json.loads(rest))
        else:
            raise SystemExit(f"the Dockerfile has a step that is not known here: {step}")

    @contextmanager
    def bound(self, target: str | None) -> Iterator[None]:
        """Let the project be seen at a path, as long as a step lasts."""
        if target is None:
            yield
            return
        shutil.copytree(PROJECT, self.inside(target), ignore=SEEN)
        try:
            yield
        finally:
            shutil.rmtree(self.inside(target))

    def installed(self) -> int:
        """Return the bytes of all packages, but for pip itself."""
        (packages,) = self.inside("/usr/local/lib").glob("python3*/site-packages")
        own = (path for path in packages.iterdir() if not path.name.startswith("pip"))
        return sum(
            file.lstat().st_size
            for path in own
            for file in (path.rglob("*") if path.is_dir() else [path])
        )


def steps_of(page: str) -> list[tuple[str, str]]:
    """Take the steps out of the page, each a word and the rest."""
    (found,) = BLOCK.finditer(page)
    lines = found["steps"].replace("\\\n", " ").splitlines()
    return [
        (line.partition(" ")[0], line.partition(" ")[2].strip()) for line in lines if line.strip()
    ]


def main(arguments: Sequence[str]) -> None:
    """Follow every step."""
    (root,) = arguments
    image = Image(Path(root).resolve())
    for step, rest in steps_of((PROJECT / "docs" / "container.md").read_text(encoding="utf-8")):
        print(f"$ {shlex.join([step])} {rest}", flush=True)
        image.follow(step, rest)
    print(f"installed: {image.installed() / 1e6:.0f} MB")


if __name__ == "__main__":
    main(sys.argv[1:])
