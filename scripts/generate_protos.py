"""Generate the protobuf bindings in ckptparse/proto from protos/ckptparse/proto.

    python scripts/generate_protos.py           write the *_pb2.py and *_pb2.pyi files
    python scripts/generate_protos.py --check   write nothing; name the files that are out of date

Needs grpcio-tools in exactly the version below: code from its protoc (25) loads on every protobuf
runtime from 3.20.3 on, whereas newer ones generate code that demands a runtime as new as they are.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
PACKAGE = Path("ckptparse/proto")
GENERATOR_VERSION = "1.62.3"


def generated_files(directory: Path) -> dict[str, bytes]:
    """Return the generated files in a directory by name."""
    paths = [*directory.glob("*_pb2.py"), *directory.glob("*_pb2.pyi")]
    return {path.name: path.read_bytes() for path in sorted(paths)}


def check_generator() -> None:
    """Exit unless grpcio-tools is the one version whose code every runtime loads."""
    try:
        found = importlib.metadata.version("grpcio-tools")
    except importlib.metadata.PackageNotFoundError:
        found = "none"
    if found != GENERATOR_VERSION:
        sys.exit(f"generate_protos.py needs grpcio-tools=={GENERATOR_VERSION}, found {found}")


def generate() -> dict[str, bytes]:
    """Run protoc over all of our protos; return what it makes, by file name."""
    import grpc_tools
    from grpc_tools import protoc

    well_known = Path(grpc_tools.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as out:
        arguments = ["protoc", f"-I{PROTOS}", f"-I{well_known}"]
        arguments += [f"--python_out={out}", f"--pyi_out={out}"]
        arguments += [str(path) for path in sorted((PROTOS / PACKAGE).glob("*.proto"))]
        if protoc.main(arguments) != 0:
            sys.exit("protoc failed")
        return generated_files(Path(out) / PACKAGE)


def out_of_date(wanted: dict[str, bytes], present: dict[str, bytes]) -> list[str]:
    """Name the files that differ, are missing, or that no proto makes any more."""
    names = sorted(wanted.keys() | present.keys())
    return [name for name in names if wanted.get(name) != present.get(name)]


def write(wanted: dict[str, bytes], stale: list[str]) -> None:
    """Bring the package up to date: write what is wanted, remove what is not."""
    for name in stale:
        target = ROOT / PACKAGE / name
        if name in wanted:
            target.write_bytes(wanted[name])
        else:
            target.unlink()
        print(f"{PACKAGE / name}: {'written' if name in wanted else 'removed'}")


def main() -> int:
    """Generate or check, as the command line says; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say what is out of date")
    check = parser.parse_args().check
    check_generator()
    wanted = generate()
    stale = out_of_date(wanted, generated_files(ROOT / PACKAGE))
    if not check:
        write(wanted, stale)
        return 0
    for name in stale:
        print(f"{PACKAGE / name}: out of date; run scripts/generate_protos.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
