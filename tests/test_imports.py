"""What `import ckptparse` and a plain read import, and what they must not."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import ckptparse

FIXTURE = Path(__file__).resolve().parent.parent / "fixtures" / "saver" / "my_model"

PLAIN_READ = [
    "ckptparse",
    "ckptparse.api",
    "ckptparse.backend",
    "ckptparse.bundle",
    "ckptparse.bundle.columns",
    "ckptparse.bundle.decoding",
    "ckptparse.bundle.entry",
    "ckptparse.bundle.index",
    "ckptparse.bundle.naming",
    "ckptparse.bundle.payload",
    "ckptparse.bundle.reader",
    "ckptparse.bundle.regions",
    "ckptparse.bundle.shards",
    "ckptparse.bundle.sliced",
    "ckptparse.bundle.strings",
    "ckptparse.checkpoint",
    "ckptparse.coding",
    "ckptparse.coding.checksum",
    "ckptparse.coding.ordered_code",
    "ckptparse.coding.varint",
    "ckptparse.dtypes",
    "ckptparse.elements",
    "ckptparse.errors",
    "ckptparse.filenames",
    "ckptparse.files",
    "ckptparse.files.context",
    "ckptparse.files.local",
    "ckptparse.files.pool",
    "ckptparse.files.storage",
    "ckptparse.inventory",
    "ckptparse.inventory.folders",
    "ckptparse.inventory.inventory",
    "ckptparse.inventory.places",
    "ckptparse.limits",
    "ckptparse.locks",
    "ckptparse.opening",
    "ckptparse.parallel",
    "ckptparse.slices",
    "ckptparse.table",
    "ckptparse.table.block",
    "ckptparse.table.columns",
    "ckptparse.table.format",
    "ckptparse.table.part",
    "ckptparse.table.reader",
    "ckptparse.tensor",
]
"""Add to it only what every read needs: each module costs every process its time."""

SLOW_ONES = {
    "argparse",
    "concurrent.futures",
    "difflib",
    "email",
    "importlib.metadata",
    "ml_dtypes",
    "numpy.ma",
    "snappy",
    "typing_extensions",
}


def imported_by(program: str) -> set[str]:
    """Return the modules that a program adds to those of `import numpy`."""
    whole = (
        "import json, sys, numpy\n"
        "before = set(sys.modules)\n"
        f"{program}\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def ours(modules: set[str]) -> list[str]:
    return sorted(name for name in modules if name.split(".")[0] == "ckptparse")


def test_importing_the_package_imports_nothing_but_the_package() -> None:
    found = {name.split(".")[0] for name in imported_by("import ckptparse")}
    # Old releases of numpy have not imported `typing` themselves.
    assert found <= {"ckptparse", "__future__", "typing", "_typing"}


def test_a_plain_read_imports_only_what_it_needs() -> None:
    found = imported_by(f"import ckptparse; ckptparse.read({str(FIXTURE)!r})")
    assert ours(found) == PLAIN_READ


def test_a_plain_read_imports_nothing_slow() -> None:
    found = imported_by(f"import ckptparse; ckptparse.read({str(FIXTURE)!r})")
    # Messages of the common form need no bindings, and those take a third of the time.
    assert not found & (SLOW_ONES | {"google.protobuf"})


@pytest.mark.parametrize("call", ["verify(P)", "recover(P)", "stats(P)", "diff(P, P)"])
def test_a_call_on_a_small_whole_checkpoint_imports_nothing_slow(call: str) -> None:
    found = imported_by(f"import ckptparse; P = {str(FIXTURE)!r}; ckptparse.{call}")
    assert not found & SLOW_ONES


@pytest.mark.parametrize("call", ["list_variables", "read", "verify", "recover", "stats"])
def test_a_call_on_many_tensors_of_different_shapes_imports_nothing_slow(
    call: str, tmp_path: Path
) -> None:
    shapes = {f"t{n}": (n % 7 + 1, n % 5 + 1)[: n % 3] for n in range(3000)}
    ckptparse.write(tmp_path / "m", {name: np.zeros(shape) for name, shape in shapes.items()})
    found = imported_by(f"import ckptparse; ckptparse.{call}({str(tmp_path / 'm')!r})")
    assert not found & SLOW_ONES


def test_recovering_damaged_floats_and_integers_imports_nothing_slow(tmp_path: Path) -> None:
    arrays = {"floats": np.linspace(-1, 1, 5000, dtype=np.float32), "integers": np.arange(5000)}
    ckptparse.write(tmp_path / "m", arrays)
    data = bytearray((tmp_path / "m.data-00000-of-00001").read_bytes())
    data[4000:4700] = bytes(range(7)) * 100
    data[40_000:40_700] = bytes(range(7)) * 100
    (tmp_path / "m.data-00000-of-00001").write_bytes(data)
    call = f"found = ckptparse.recover({str(tmp_path / 'm')!r}); assert not found.report.ok"
    assert not imported_by(f"import ckptparse; {call}") & SLOW_ONES


@pytest.mark.parametrize("first", ["ckptparse.coding.checksum", "crc32c"])
def test_the_extension_for_checksums_is_taken_without_and_beside_its_package(first: str) -> None:
    program = (
        f"import {first}\n"
        "import crc32c, ckptparse.coding.checksum as ours\n"
        "data = b'123456789'\n"
        "assert ours.crc32c(data) == crc32c.crc32c(data) == 0xE3069283"
    )
    imported_by(program)


def test_where_no_extension_is_found_as_a_file_the_package_gives_checksums(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import crc32c

    from ckptparse.coding import checksum

    monkeypatch.delitem(sys.modules, "crc32c")
    monkeypatch.setattr(checksum.PathFinder, "find_spec", lambda *_: None)
    monkeypatch.setattr(sys, "meta_path", [_Frozen(crc32c)])
    assert checksum._load_extension() is crc32c


class _Frozen:
    """An importer that has a module in memory."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name == self.module.__name__ else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        pass
