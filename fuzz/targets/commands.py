"""Command lines, in a directory with a file of every kind, one of which is changed."""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import ckptparse
from fuzz import mutators, seeds
from fuzz.oracle import BrokenPromiseError
from fuzz.targets.archives import zipped
from fuzz.targets.sources import every_kind
from fuzz.targets.target import Target

__all__ = ["TARGETS"]

_UNEXPECTED = re.compile(r"unexpected \w+(Error|Exception|Warning)")
_ELSEWHERE = re.compile(r"(^|=)[/~]|\.\.|://")
"""What leads out of the directory. What is written there would stay, or be somebody's."""
_MOST_WORDS = 12

LINES = (
    "ls m|ls --long m|ls --tree m|ls --slots m|ls --json m *kernel*|ls --sort size m -x *Adam*",
    "ls --naming variable m|ls --tree model|ls --json model|ls v1|ls g.pb|ls m.meta|ls a.npz|ls .",
    "ls --sort shape --long v1|ls --tree --json m|ls --slots --json m|ls a.zip|ls d",
    "info m|info --json m|info v1|info model|info --json model|info m.meta|info g.pb|info a.zip",
    "show m dense/kernel[0:1]|show --stats m dense/kernel|show --full m dense/bias|show v1 w",
    "show --json m dense/kernel[0:2]|show m dense/kernel --npy out.npy|show m step|show model w",
    "show m text|show --stats m text|show --json v1 text|show --full --naming variable m step",
    "verify m|verify --map m|verify --json m|verify --hash --json m v1|verify model|verify g.pb",
    "verify --map --json v1|verify --quiet .|verify --verbose m.meta|verify a.zip|verify d",
    "identify m.index m.data-00000-of-00001 v1 g.pb m.meta a.npz a.safetensors checkpoint disk.img",
    "identify --json model/saved_model.pb a.zip shapes.json rules.toml r/out.npz|explain x",
    "diff m n|diff --json m n|diff --rtol 0.1 --atol 0.1 m n|diff m v1|diff m a.npz|diff m model",
    "diff --rules rules.toml m n|diff a.safetensors m|diff a.npz v1",
    "stats m|stats --json m *kernel*|stats v1|stats model|stats --naming variable m|stats a.npz",
    "recover m -o o/out|recover m -o o/out.npz --offer plausible|recover m -n|recover m -n --json",
    "recover v1 -o o/out.safetensors --fill 0|recover m -o o/out.h5 --keep-suspect",
    "recover d -n --map|recover --replay r/out.npz.report.json -o o/out.npz",
    "recover m -o o/out --report o/r.json --dfxml o/r.xml --hash",
    "recover --replay r/out.npz.report.json|recover m -n --from n",
    "recover m -n --from model --no-siblings",
    "recover d/b -n --shapes shapes.json|recover d/b -o o/out.npz --shapes a.npz --from m.meta",
    "recover d/b -n --from model/saved_model.pb|recover disk.img -n|recover disk.img -o o/out.npz",
    "recover m -o o/outdir --format npy --fill nan|recover m -n --from v1 --from a.zip --map",
    "convert m out.npz|convert m out.safetensors|convert m out.h5|convert m outdir|convert v1 out",
    "convert m out.npz --rules rules.toml|convert m out --rename dense=layer --drop-slots",
    "convert m out.safetensors --layout torch --dtype bfloat16|convert a.npz out|convert m o -f v2",
    "convert m out.npz --split kernel=a,b|convert m out --ema prefer|convert m out --ema only",
    "convert m out.npz --naming variable --include *kernel*|convert a.safetensors out.npz -n",
    "convert m out --max-shard-size 100|convert m out.safetensors --store-bits|convert model o.npz",
    "convert a.npz out --undo m|convert m out.npz --rules bert --json|convert m out --ema drop -n",
    "dump m.index|dump m.data-00000-of-00001|dump v1|dump --depth 1 m.index|dump --json m.meta",
    "dump g.pb|dump model/saved_model.pb|dump --json --depth 2 v1|dump model/fingerprint.pb",
    "latest .|latest --json .|scan disk.img|scan --json disk.img --state s.json",
    "scan disk.img --mapfile map.txt|recover disk.img -n --mapfile map.txt",
    "average m n -o o/out|average m n -o o/out -w 1 -w 3|average m m -o o/out --dry-run --json",
    "write a.npz out|write a.safetensors out --objects|write a.npz out --update-state --json",
    "write a.npz out --max-shard-size 100 -n|page m -o out.html|page v1 -o out.html --no-stats",
    "page model -o out.html|page g.pb -o out.html|page m.meta -o out.html --no-verify|page d -o o",
    "--version|--completion bash|--help|recover --help|lss m|diff|show m|--completion none",
    "show q strings|show --json q strings|show --json q k/18|show --json q k/14|show q one|info q",
    "show q k/10[...,0]|show --stats q k/1[0:2,1]|show --stats q k/1[::-1,::-1]|show q k/1[::0]",
    "show q k/1[x]|show --full q k/33|show --json q k/2[1]|show --stats q strings|show q k/1[9]",
    "ls --tree m *kernel*|ls --tree model *bias*|ls --tree --json q k/1|show --json --full q k/25",
    "COMPLETE show m d|COMPLETE show m|COMPLETE convert m o|COMPLETE convert m o --rules b",
    "COMPLETE ls i/|COMPLETE show nothing w|COMPLETE verify model/|COMPLETE show q k/",
)
_OPTIONS: tuple[str, ...] = (
    *("--json", "--quiet", "--verbose", "--debug", "--tree", "--stats", "--long", "--map"),
    *("--hash", "--overwrite", "-n", "-o", "-f", "m", "n", "v1", "o/out", ".", "--naming"),
    *("--include", "*", "--dtype", "float16", "--from", "model", "--shapes", "shapes.json", "d"),
    *("variable", "--fill", "nan", "o/out.npz", "out.h5", "--objects", "text[0]", "g.pb", "d/b"),
)


@cache
def files() -> dict[str, bytes]:
    """Make a file of every kind, all of them small: inputs lie in `i`, outputs go elsewhere."""
    found = {f"i/{name}": data for name, data in _originals()}
    with tempfile.TemporaryDirectory() as folder:
        lay_out(found, folder)
        _convert_some(Path(folder))
        for path in sorted(filter(Path.is_file, Path(folder).rglob("*"))):
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
    shard = found["i/m.data-00000-of-00001"]
    found["i/d/b.data-00000-of-00001"] = shard
    blocks = (b"", shard, found["i/m.index"], found["i/v1"])
    found["i/disk.img"] = b"".join(one.ljust(-(-len(one) // 4096) * 4096, b"\0") for one in blocks)
    found["i/a.zip"] = zipped([(f"run{name[1:]}", found[name]) for name in found if "/m." in name])
    found["o/x"] = b"outputs lie here"
    return found


def _originals() -> Iterator[tuple[str, bytes]]:
    """Give files of the fixtures under short names, and text."""
    root = seeds.FIXTURES
    for ending in (".index", ".data-00000-of-00001"):
        yield f"m{ending}", (root / f"objects/keras2_optimizer/ckpt-1{ending}").read_bytes()
    yield from every_kind().files("q").items()
    yield "v1", next(seeds.v1_files())
    model = root / "saved_model" / "keras2_functional"
    for path in sorted(model.rglob("*")):
        if path.is_file() and path.suffix != ".json":
            yield f"model/{path.relative_to(model).as_posix()}", path.read_bytes()
    yield "g.pb", (root / "graphs" / "frozen_tf1" / "frozen.pb").read_bytes()
    yield "m.meta", next(iter((root / "graphs" / "saver_to_rebuild").glob("*.meta"))).read_bytes()
    yield "checkpoint", b'model_checkpoint_path: "m"\nall_model_checkpoint_paths: "m"\n'
    yield "shapes.json", b'{"w": [2, 3], "b": {"shape": [3], "dtype": "float32"}}'
    yield "rules.toml", b'[[rename]]\nold = "kernel"\nnew = "weight"\n'
    yield "map.txt", b"# Mapfile\n0x0 ?\n0x0 0x1000 +\n0x1000 0x200 -\n0x1200 0x10000 +\n"


def _convert_some(folder: Path) -> None:
    """Write into a directory what the package makes of the checkpoint there."""
    values = ckptparse.read(folder / "i" / "m")
    floats = {name: array + 1 for name, array in values.items() if array.dtype.kind == "f"}
    ckptparse.write(folder / "i" / "n", {**values, **floats})
    numbers = [key for key, array in values.items() if array.dtype.kind in "fi"]
    needs = {"a.safetensors": "safetensors", "a.h5": "h5py"}
    for name in ("a.npz", *(name for name, package in needs.items() if find_spec(package))):
        ckptparse.convert(folder / "i" / "m", folder / "i" / name, names=numbers)
    with inside(folder):
        # Paths in its report are as they were given.
        Path("r").mkdir()
        ckptparse.recover("i/m").write("r/out.npz")


@contextlib.contextmanager
def inside(folder: str | Path) -> Iterator[None]:
    """Work in a directory."""
    here = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)


def lay_out(contents: dict[str, bytes], folder: str) -> None:
    """Write files into a directory."""
    for name, data in contents.items():
        Path(folder, name).parent.mkdir(parents=True, exist_ok=True)
        Path(folder, name).write_bytes(data)


@cache
def all_lines() -> list[list[str]]:
    """Return every line, as words, with names of files and tensors that are there."""
    lines = [line for row in LINES for line in row.split("|")]
    return [[named(word) for word in line.split()] for line in lines]


def named(word: str) -> str:
    """Return the path of an input for its short name, and a tensor's name for the word for it."""
    if word == ".":
        return "i"
    if any(re.match(f"i/{re.escape(word)}([./]|$)", name) for name in files()):
        return f"i/{word}"
    return re.sub("^dense/(kernel|bias)", lambda match: known_names()[match[1]], word)


@cache
def known_names() -> dict[str, str]:
    """Return the names of two tensors."""
    store = {name: data for name, data in files().items() if name.startswith("i/m.")}
    names = [name for name, shape in ckptparse.list_variables("i/m", store=store) if shape]
    return {"kernel": max(names, key=len), "bias": min(names, key=len)}


def run_command(data: bytes) -> None:
    """Run a command in this process: it ends with one of its exit codes, and no traceback."""
    from ckptparse.cli import main

    line, name, content = take_apart(data)
    words = line[:_MOST_WORDS]
    if any(_ELSEWHERE.search(word) for word in words):
        return
    contents = {**files(), **({name: content} if name in files() else {})}
    with tempfile.TemporaryDirectory() as folder:
        lay_out(contents, folder)
        with inside(folder):
            code, output = call(main, words, terminal=len(data) % 3 == 0)
        check_files(Path(folder), contents, words)
    traced = "Traceback" in output and "--debug" not in words
    if code not in (0, 1, 2, 3, None) or traced or _UNEXPECTED.search(output):
        raise BrokenPromiseError(f"{words} ends with {code}: {output[-2000:]}")


def take_apart(data: bytes) -> tuple[list[str], str, bytes]:
    """Return the words of the command line, which file is another one, and what it holds."""
    line, _, rest = data.partition(b"\0")
    name, _, content = rest.partition(b"\0")
    return line.decode("utf-8", "replace").split("\n"), name.decode("utf-8", "replace"), content


def check_files(folder: Path, before: dict[str, bytes], words: list[str]) -> None:
    """Hold what lies in a directory to what was asked for."""
    may_change = "--overwrite" in words or "--update-state" in words
    # A value may stand in one word with its option: -oNAME, --output=NAME.
    parts = ((word, word.removeprefix("-o"), word.partition("=")[2]) for word in words)
    named = [part for three in parts for part in three if part]
    for path in filter(Path.is_file, folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name in before:
            if not may_change and path.read_bytes() != before[name]:
                raise BrokenPromiseError(f"{words} changes {name}")
        elif name == "checkpoint" and "--update-state" in words:
            continue
        elif not any(name.startswith(Path(word).as_posix()) for word in named):
            raise BrokenPromiseError(f"{words} writes {name}")


class _Printed(io.TextIOWrapper):
    """What is printed, to a terminal or not."""

    terminal = False

    def isatty(self) -> bool:
        """Tell whether somebody looks at it."""
        return self.terminal


def call(
    main: Callable[[], None], arguments: list[str], *, terminal: bool = False
) -> tuple[object, str]:
    """Run the program with arguments; return its exit code and what it printed."""
    printed = io.BytesIO()
    out = _Printed(printed, encoding="utf-8", errors="surrogateescape")
    out.terminal = terminal
    before = sys.argv
    sys.argv = ["ckptparse", *arguments]
    code: object = None
    asked = completion_of(arguments)
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(out),
            mock.patch.dict(os.environ, asked),
        ):
            main()
    except SystemExit as error:
        code = error.code
    finally:
        sys.argv = before
    out.flush()
    return code, printed.getvalue().decode("utf-8", "replace")


def completion_of(words: list[str]) -> dict[str, str]:
    """Return what a shell sets to have a command line completed; nothing for another line."""
    if words[:1] != ["COMPLETE"]:
        return {}
    line = " ".join(shlex.quote(word.replace("\0", "")) for word in ["ckptparse", *words[1:]])
    number = str(max(1, len(words) - 1))
    return {"_CKPTPARSE_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": number}


def command_seeds() -> Iterator[bytes]:
    """Give every line with all files whole, and with the file it names cut short."""
    for words in all_lines():
        line = "\n".join(words).encode()
        yield line + b"\0\0"
        meant = [name for name in files() if any(name.startswith(word) for word in words[1:])]
        for name in meant[:2]:
            data = files()[name]
            yield line + b"\0" + name.encode() + b"\0" + data[: len(data) * 3 // 4]


def mutate_command(data: bytes, rng: random.Random) -> bytes:
    """Change a word of the line, or the file that it names."""
    words, name, content = take_apart(data)
    kind = rng.randrange(8)
    if kind == 0:
        words = list(rng.choice(all_lines()))
    elif kind == 1:
        words.insert(rng.randint(1, len(words)), named(rng.choice(_OPTIONS)))
    elif kind == 2 and len(words) > 1:
        del words[rng.randrange(1, len(words))]
    elif kind == 3:
        last = mutators.blind(words[-1].encode("utf-8", "replace"), rng).replace(b"\0", b"")
        words[-1] = last.decode("utf-8", "replace").replace("\n", "")
    elif name not in files() or not rng.randrange(4):
        meant = [one for one in files() if any(one.startswith(word) for word in words[1:])]
        name = rng.choice(meant or list(files()))
        content = files()[name]
    if kind > 3:
        content = mutator_of(name)(content, rng)
    return "\n".join(words).encode("utf-8", "replace") + b"\0" + name.encode() + b"\0" + content


def mutator_of(name: str) -> mutators.Change:
    """Return what changes a file of that name."""
    ending = name.rpartition(".")[2]
    if ending in ("pb", "meta"):
        return mutators.message
    if ending in ("json", "toml", "txt", "checkpoint"):
        return mutators.text
    return mutators.table if ending in ("index", "v1") else mutators.blind


TARGETS = [Target("command", run_command, command_seeds, mutate_command)]
