r"""Rules: what becomes of names, and of the tensors that have them.

A rule file is TOML. Every pattern is a regular expression, looked for anywhere in the name that the
source has; those of `rename` are replaced wherever they are found, one after another:

    drop = ['adam_[mv]$', 'global_step']
    [[rename]]
    pattern = 'layer_(\d+)'
    replacement = 'layer.\1'
    [[transpose]]
    pattern = '.*/kernel'
    axes = [1, 0]
    [[split]]
    pattern = 'qkv(?=/kernel)'
    names = ['query', 'key', 'value']

`expect`, a list of patterns, says which names the rules are meant for: if no name has any, a
warning comes.
What a pattern of `split` matches is replaced by each of the names.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

from ckptparse.dtypes import element_name
from ckptparse.errors import (
    CheckpointNotFoundError,
    LimitError,
    MalformedError,
    UnsupportedError,
    located,
)
from ckptparse.files.context import Context, begin
from ckptparse.inventory.nearby import open_named
from ckptparse.jobs.conversion import ConversionRow, Reversal
from ckptparse.jobs.derived import FLOATS
from ckptparse.limits import Limits, check_members

__all__ = ["NewNames", "Rename", "Renamer", "RuleSet", "Split", "load_rules", "make_rules"]

Rename = (
    Callable[[str], str | None]
    | Mapping[str, str | None]
    | Sequence[tuple[str, str]]
    | str
    | os.PathLike[str]
    | Reversal
    | None
)
"""What `rename` takes: a function, old names to new ones, expressions, a file of rules, or what
undoes a conversion."""

_SHIPPED = "rule_files"
_STRINGS = re.compile(r"""'[^']*'?|"(?:\\.|[^"\\])*"?|#.*""")
"""Strings of one line, whether they end or not, and a comment."""
_KNOWN = {"about", "tested", "expect", "drop", "rename", "transpose", "split", "dtype", "layout"}


@dataclass(frozen=True, slots=True)
class RuleSet:
    """What a caller and a rule file want.

    Attributes:
        rename: Gives a new name for an old one; None drops the tensor.
        drop: Patterns of names that are dropped.
        transpose: Patterns, and the order of axes of what matches.
        split: Patterns, and the names of the equal parts that a tensor is cut into along its last
            axis: each stands where the pattern was found.
        dtype: What floats are converted to; None leaves them.
        layout: The layout of kernels that is wanted; None leaves them.
        former: What became of tensors that were given these names: it is undone.
        expect: Patterns of names that the rules of a file are meant for; without any, they are
            meant for all.
        source: The rule file; empty if there is none.
    """

    rename: Callable[[str], str | None] = field(default=lambda name: name)
    drop: tuple[re.Pattern[str], ...] = ()
    transpose: tuple[tuple[re.Pattern[str], tuple[int, ...]], ...] = ()
    split: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = ()
    dtype: str | None = None
    layout: str | None = None
    former: Mapping[str, ConversionRow] = field(default_factory=dict)
    expect: tuple[re.Pattern[str], ...] = ()
    source: str = ""

    def is_about(self, name: str) -> bool:
        """Tell whether the rules of a file are meant for a name, or do something to it."""
        if self.expect:
            return any(pattern.search(name) for pattern in self.expect)
        told = self.drops(name) or self.axes_of(name) is not None
        return told or self.find_split(name) is not None or self.rename(name) != name

    @property
    def only_names(self) -> bool:
        """Whether tensors keep their axes, their parts and their kinds."""
        changes = (self.transpose, self.split, self.former, self.dtype, self.layout)
        return not any(changes)

    def drops(self, name: str) -> bool:
        """Tell whether a name is dropped."""
        return bool(self.drop) and any(pattern.search(name) for pattern in self.drop)

    def axes_of(self, name: str) -> tuple[int, ...] | None:
        """Return the order of axes that a rule gives a name."""
        return next((axes for found, axes in self.transpose if found.search(name)), None)

    def find_split(self, name: str) -> list[str] | None:
        """Return the names of the parts that a name's tensor is cut into; None if it is not."""
        for pattern, parts in self.split:
            found = pattern.search(name)
            if found is not None:
                return [name[: found.start()] + part + name[found.end() :] for part in parts]
        return None


Split = Mapping[str, int | Sequence[str]] | None
"""What `split` takes: a part of names, and into how many parts, or under which names."""


def make_rules(rename: Rename, split: Split, limits: Limits) -> RuleSet:
    """Make the rules of one call. A rule file is the caller's own: it lies on this machine.

    Raises:
        MalformedError: A rule file, or an expression, is broken.
        CheckpointNotFoundError: There is no such rule file.
        LimitError: A tensor would be cut into more parts than `Limits.small_tensors`.
    """
    rules = RuleSet()
    if isinstance(rename, (str, os.PathLike)):
        rules = replace(load_rules(*begin(rename, limits=limits)), source=os.fsdecode(rename))
    elif isinstance(rename, Reversal):
        from ckptparse.graph.object_graph_making import key_of

        # A checkpoint with an object graph that was made has a key for each name.
        keys = {key_of(name): row for name, row in rename.rows.items()}
        rules = RuleSet(former={**keys, **rename.rows})
    elif callable(rename):
        rules = RuleSet(rename)
    elif isinstance(rename, Mapping):
        rules = RuleSet(NewNames(rename))
    elif rename is not None:
        rules = RuleSet(Renamer([(_compile(old), new) for old, new in rename], limits))
    if not split:
        return rules
    cuts = tuple(_cut(part, into, limits) for part, into in split.items())
    return replace(rules, split=cuts + rules.split)


def _cut(
    part: str, into: int | Sequence[str], limits: Limits
) -> tuple[re.Pattern[str], tuple[str, ...]]:
    """Return a rule for a part of names: `qkv` stands in `layer_0/qkv/kernel`, not in `qkv_2/w`."""
    if isinstance(into, int):
        limits.check("small_tensors", into, f"The number of parts of {part!r}")
    names = tuple(f"{part}_{n}" for n in range(into)) if isinstance(into, int) else tuple(into)
    if not names or isinstance(into, str):
        raise ValueError(f"split gives a number of parts, or their names, not {into!r}")
    return re.compile(rf"(?<![^/.]){re.escape(part)}(?![^/.])"), names


class NewNames:
    """Gives the names of a mapping; others stay as they are."""

    def __init__(self, names: Mapping[str, str | None]) -> None:
        self._names = names
        self._used: set[str] = set()

    def __call__(self, name: str) -> str | None:
        """Return the new name; None drops the tensor."""
        new = self._names.get(name, name)
        if new != name:
            self._used.add(name)
        return new

    @property
    def unused(self) -> list[str]:
        """The old names that were not asked for so far."""
        return [old for old, new in self._names.items() if new != old and old not in self._used]


class Renamer:
    """Replaces what expressions match, one after another.

    A rule may give each name many times its characters, and so may the next one.
    """

    def __init__(self, rules: Sequence[tuple[re.Pattern[str], str]], limits: Limits) -> None:
        self._rules = rules
        self._used: set[int] = set()
        self._limits = limits
        self._left = limits.key_bytes

    def __call__(self, name: str) -> str:
        """Return the new name.

        Raises:
            LimitError: Names get more than `Limits.key_bytes` characters more, all together.
            MalformedError: A replacement is broken.
        """
        for number, (pattern, replacement) in enumerate(self._rules):
            self._check(pattern, replacement, name)
            new, found = _replace(pattern, replacement, name)
            if found:
                self._used.add(number)
                self._left -= max(0, len(new) - len(name))
                name = new
        return name

    def _check(self, pattern: re.Pattern[str], replacement: str, name: str) -> None:
        # No part that a backslash names is longer than all of the name.
        most = len(replacement) + replacement.count("\\") * len(name)
        if most * (len(name) + 1) <= self._left:
            return
        if most * sum(1 for _ in pattern.finditer(name)) > self._left:
            raise LimitError(
                "The new names may get more characters than Limits.key_bytes "
                f"({self._limits.key_bytes}) allows: {pattern.pattern!r:.60} is replaced by "
                f"{replacement!r:.60}",
                limit="key_bytes",
            )

    @property
    def unused(self) -> list[str]:
        """The expressions that have matched no name so far."""
        rules = enumerate(self._rules)
        return [pattern.pattern for number, (pattern, _) in rules if number not in self._used]


def _replace(pattern: re.Pattern[str], replacement: str, name: str) -> tuple[str, int]:
    try:
        return pattern.subn(replacement, name)
    except (re.error, IndexError) as error:
        raise MalformedError(f"Bad replacement {replacement!r}: {error}") from None


def _compile(pattern: object) -> re.Pattern[str]:
    if not isinstance(pattern, str):
        raise MalformedError(f"Expected a regular expression, found {pattern!r}")
    try:
        with warnings.catch_warnings():
            # Of what may mean something else one day.
            warnings.simplefilter("ignore")
            return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise MalformedError(f"Bad regular expression {pattern!r}: {error}") from None


def load_rules(path: str, context: Context) -> RuleSet:
    """Read a rule file, or one of those that come along, by its name: `bert`.

    Raises:
        MalformedError: It is no TOML, or holds what no rule is.
        LimitError: It is larger than half of `Limits.state_bytes`, or has more rules than
            `Limits.members` allows, or tables in tables beyond `Limits.nesting`.
        CheckpointNotFoundError: There is no such file.
    """
    with located(path=path):
        data, limits = _read(path, context), context.limits
        content = _parse_toml(data, limits)
        # An expression takes 20 µs to compile.
        count = sum(len(rules) for rules in content.values() if isinstance(rules, list))
        check_members(limits, count, len(data), path=path)
        return _decode(content, limits)


def _read(path: str, context: Context) -> bytes:
    shipped = {}
    if re.fullmatch(r"[a-z0-9_]+", path):
        from importlib import resources

        files = (resources.files("ckptparse.jobs") / _SHIPPED).iterdir()
        shipped = {file.name.removesuffix(".toml"): file for file in files}
        if path in shipped:
            with shipped[path].open("rb") as stream:
                return stream.read()
    try:
        source = open_named(path, context)
    except CheckpointNotFoundError as error:
        if shipped:
            error.hint = f"Rule files that come along: {', '.join(sorted(shipped))}"
        raise
    with closing(source):
        # Python's parser takes most of a second for 1 MiB of numbers.
        context.limits.check("state_bytes", 2 * source.size, "Twice the size of the rule file")
        return source.read_at(0, source.size)


def _parse_toml(data: bytes, limits: Limits) -> dict[str, Any]:
    try:
        toml: Any = import_module("tomllib")
    except ImportError:
        raise UnsupportedError(
            "Rule files are TOML, which Python reads from 3.11 on",
            hint="Pass the same rules as a list: rename=[(pattern, replacement), ...]",
        ) from None
    try:
        text = data.decode("utf-8")
        # What a key of many parts takes grows with the square of their number.
        deepest = max(_STRINGS.sub("", line).count(".") for line in text.split("\n"))
        limits.check("nesting", deepest, "The number of dots in a line of the rule file")
        content: dict[str, Any] = toml.loads(text)
    except LimitError:
        raise
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"Expected a rule file in TOML: {error}") from None
    return content


def _decode(content: dict[str, Any], limits: Limits) -> RuleSet:
    unknown = content.keys() - _KNOWN
    if unknown:
        raise MalformedError(
            f"No rule is called {min(unknown)!r}; rules are {', '.join(sorted(_KNOWN))}"
        )
    renames = [(_pattern(rule), _text(rule, "replacement")) for rule in _tables(content, "rename")]
    return RuleSet(
        Renamer(renames, limits),
        _expressions(content, "drop"),
        tuple(
            (_compile(rule.get("pattern")), _axes(rule)) for rule in _tables(content, "transpose")
        ),
        tuple((_compile(rule.get("pattern")), _names(rule)) for rule in _tables(content, "split")),
        _one_of(content, "dtype", sorted(map(element_name, FLOATS))),
        _one_of(content, "layout", ["torch"]),
        expect=_expressions(content, "expect"),
    )


def _expressions(content: dict[str, Any], key: str) -> tuple[re.Pattern[str], ...]:
    found = content.get(key, [])
    if not isinstance(found, list):
        raise MalformedError(f"Expected a list of expressions under {key}, found {found!r}")
    return tuple(map(_compile, found))


def _tables(content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = content.get(key, [])
    if not isinstance(found, list) or not all(isinstance(rule, dict) for rule in found):
        raise MalformedError(f"Expected tables [[{key}]], found {found!r}")
    return found


def _pattern(rule: dict[str, Any]) -> re.Pattern[str]:
    return _compile(rule.get("pattern"))


def _text(rule: dict[str, Any], key: str) -> str:
    value = rule.get(key)
    if not isinstance(value, str):
        raise MalformedError(f"Expected text under {key!r}, found {value!r}")
    return value


def _one_of(content: dict[str, Any], key: str, known: Sequence[str]) -> str | None:
    if key not in content:
        return None
    value = _text(content, key)
    if value not in known:
        raise MalformedError(f"Expected {' or '.join(known)} under {key!r}, found {value!r}")
    return value


def _axes(rule: dict[str, Any]) -> tuple[int, ...]:
    axes: Any = rule.get("axes")
    are_whole = isinstance(axes, list) and all(type(axis) is int for axis in axes)
    if not are_whole or sorted(axes) != list(range(len(axes))):
        raise MalformedError(f"Expected the axes of a tensor in a new order, found {axes!r}")
    return tuple(axes)


def _names(rule: dict[str, Any]) -> tuple[str, ...]:
    names = rule.get("names")
    if not isinstance(names, list) or not names or not all(isinstance(one, str) for one in names):
        raise MalformedError(f"Expected the names of the parts, found {names!r}")
    return tuple(names)
