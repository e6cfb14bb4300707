"""`ckptparse ls`: names, kinds of element, shapes and sizes; as a list, a tree, or slots."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any

import ckptparse
from ckptparse.cli.errors import UsageError
from ckptparse.cli.limits import LimitOption, read_limits
from ckptparse.cli.options import Argument, Option
from ckptparse.cli.output import Column, Output
from ckptparse.cli.parameters import Naming, NamingOption, PathArgument
from ckptparse.cli.progress import working
from ckptparse.cli.running import GOOD, Answer, Run
from ckptparse.cli.slots import Slot, iter_slots
from ckptparse.cli.tensors import describe_totals, list_columns, tensor_cells, tensor_to_json
from ckptparse.cli.text import describe_opened
from ckptparse.cli.trees import choose_branches, tree_to_json, write_tree
from ckptparse.text import count, escape, shape_text, size_text

__all__ = ["ls"]


class Sort(str, Enum):
    """What a listing is sorted by."""

    NAME = "name"
    SIZE = "size"
    SHAPE = "shape"


def ls(
    run: Run,
    path: PathArgument,
    *,
    globs: Annotated[
        list[str] | None,
        Argument(
            metavar="GLOB",
            help="Only names that match one of these patterns; '*' also matches '/'.",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        Option(
            "--exclude",
            "-x",
            metavar="GLOB",
            help="Leave out names that match this pattern; may be given several times.",
        ),
    ] = None,
    sort: Annotated[
        Sort | None,
        Option("--sort", help="By name, by size or by shape, the largest first."),
    ] = None,
    long: Annotated[
        bool, Option("--long", "-l", help="Show kind, shard, offset and checksum as well.")
    ] = False,
    tree: Annotated[
        bool, Option("--tree", help="Draw a tree: of objects, or of the scopes in the names.")
    ] = False,
    slots: Annotated[
        bool,
        Option("--slots", help="Only slots of optimizers and moving averages, by variable."),
    ] = False,
    naming: NamingOption = Naming.CHECKPOINT,
    limit: LimitOption = None,
) -> Answer:
    """List the tensors of a checkpoint: name, type, shape, size.

    ckptparse ls model.ckpt-1000
    ckptparse ls --sort size model.ckpt-1000 '*weights*' --exclude '*Adam*'
    ckptparse ls --tree saved_model
    """
    if long + tree + slots > 1:
        raise UsageError("Expected one of --long, --tree and --slots, found several")
    if tree and sort is not None:
        raise UsageError("Expected --sort or --tree, found both", "leave one of them out")
    wanted = _matcher(globs or (), exclude or ())
    limits = read_limits(limit)
    listing = working(f"listing {escape(path)}", quiet=run.quiet)
    opening = ckptparse.open(path, naming=naming.value, cache=run.cache, limits=limits)
    with listing, opening as checkpoint:
        run.detail(describe_opened(checkpoint))
        if not slots:
            _check_globs(checkpoint, globs or ())
        if tree:
            entries = list(checkpoint.tree())
            return TreeListing(
                checkpoint.path, choose_branches(entries, wanted) if globs or exclude else entries
            )
        if slots:
            found = tuple(slot for slot in iter_slots(checkpoint) if wanted(slot.variable))
            order = sorted(found, key=lambda slot: _ORDERS[sort](slot.variable, slot.tensor))
            return SlotListing(checkpoint.path, tuple(order))
        names = list(checkpoint)
        if globs or exclude:
            names = list(filter(wanted, names))
        listed = _choose_listed(run, checkpoint, names, limits)
        rows = [(name, checkpoint[name]) for name in listed]
        rows.sort(key=lambda row: _ORDERS[sort](*row))
        return Listing(checkpoint.path, checkpoint.format, tuple(rows), long)


def _choose_listed(
    run: Run, checkpoint: ckptparse.Checkpoint, names: list[str], limits: ckptparse.Limits
) -> Sequence[str]:
    """Return the names of the tensors that are listed; say it if they are not all."""
    listed = limits.take_small(names, lambda: checkpoint.held_bytes)
    if len(listed) < len(names):
        needed = len(names) + sum(len(name) // _NAME_LENGTH for name in names)
        run.warn(
            f"{len(listed):,} of {len(names):,} tensors are listed, the first of the index: "
            f"Limits.small_tensors allows {limits.small_tensors:,}, and one for each 512 bytes of "
            f"the files; --limit small_tensors={needed} lists all of them"
        )
    return listed


_NAME_LENGTH = 256
"""Characters of a name that count as one tensor more."""
_ORDERS: dict[Sort | None, Callable[[str, ckptparse.Tensor], Any]] = {
    None: lambda _name, _tensor: 0,
    Sort.NAME: lambda name, _: _natural(name),
    Sort.SIZE: lambda name, tensor: (-tensor.nbytes, _natural(name)),
    Sort.SHAPE: lambda name, tensor: ([-size for size in tensor.shape], _natural(name)),
}
"""What a tensor is sorted by; None leaves the order of the index."""


def _natural(name: str) -> list[tuple[int, str]]:
    """Return what sorts `layer_2` before `layer_10`: numbers in a name by their value."""
    # Numbers of more digits than these are longer than any that counts something.
    parts = re.split(r"([0-9]{1,19})", name)
    return [(int(part) if place % 2 else -1, part) for place, part in enumerate(parts)]


def _is_path(text: str) -> bool:
    """Tell whether a text without marks of a pattern is the path of something."""
    try:
        return not re.search(r"[*?\[]", text) and bool(ckptparse.identify(text))
    except (ckptparse.CheckpointError, OSError):
        return False


def _check_globs(checkpoint: ckptparse.Checkpoint, globs: Sequence[str]) -> None:
    """Raise an error if a pattern matches no name: a misspelt one is told."""
    for glob in globs:
        if not any(_fits(name, glob) for name in checkpoint):
            if _is_path(glob):
                raise UsageError(
                    f"No name among {len(checkpoint)} matches the pattern '{escape(glob)}', which "
                    "is a path",
                    "list one checkpoint at a time: what follows it are patterns of names",
                )
            from ckptparse.cli.selection import pattern_not_found

            raise pattern_not_found(
                f"No name among {len(checkpoint)} matches the pattern",
                glob,
                path=checkpoint.path,
                closest=_closest(checkpoint, glob),
            )


def _closest(checkpoint: ckptparse.Checkpoint, glob: str) -> tuple[str, ...]:
    try:
        checkpoint[glob]
    except ckptparse.TensorNotFoundError as error:
        return error.closest
    return ()


def _matcher(globs: Sequence[str], exclude: Sequence[str]) -> Callable[[str], bool]:
    def matches(name: str) -> bool:
        included = not globs or any(_fits(name, glob) for glob in globs)
        return included and not any(_fits(name, glob) for glob in exclude)

    return matches


def _fits(name: str, glob: str) -> bool:
    """Tell whether a glob matches a name, or is that name letter by letter (`w[0]`)."""
    return name == glob or fnmatch.fnmatchcase(name, glob)


@dataclass(frozen=True, slots=True)
class Listing:
    """The tensors that were found, by their keys."""

    path: str
    format: str
    rows: tuple[tuple[str, ckptparse.Tensor], ...]
    long: bool
    code: int = GOOD

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "path": self.path,
            "format": self.format,
            "tensors": [tensor_to_json(name, tensor) for name, tensor in self.rows],
            "elements": sum(tensor.size for _, tensor in self.rows),
            "bytes": sum(tensor.nbytes for _, tensor in self.rows),
        }

    def write(self, out: Output) -> None:
        """Write a row for each tensor, and the totals."""
        rows = (
            tensor_cells(name, tensor, long=self.long, exact=not out.terminal)
            for name, tensor in self.rows
        )
        out.table(list_columns(long=self.long), rows)
        out.summary(describe_totals([tensor for _, tensor in self.rows]))


@dataclass(frozen=True, slots=True)
class TreeListing:
    """The tree of objects, or of scopes."""

    path: str
    entries: list[ckptparse.TreeEntry]
    code: int = GOOD

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"path": self.path, "tree": tree_to_json(self.entries)}

    def write(self, out: Output) -> None:
        """Draw the tree, and write the totals."""
        write_tree(out, self.entries)
        tensors = {
            name: tensor for entry in self.entries for name, tensor in (entry.tensors or {}).items()
        }
        out.summary(describe_totals([t for t in tensors.values() if t is not None]))


@dataclass(frozen=True, slots=True)
class SlotListing:
    """What is kept beside each variable."""

    path: str
    slots: tuple[Slot, ...]
    code: int = GOOD

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "path": self.path,
            "slots": [
                {
                    "variable": slot.variable,
                    "slot": slot.slot,
                    "optimizer": slot.optimizer,
                    "tensor": tensor_to_json(slot.tensor.name, slot.tensor),
                }
                for slot in self.slots
            ],
        }

    def write(self, out: Output) -> None:
        """Write a row for each slot, and the totals."""
        several = len({slot.optimizer for slot in self.slots}) > 1
        columns = (
            *([Column("OPTIMIZER", folds=True)] if several else []),
            Column("VARIABLE", folds=True, style="cyan"),
            Column("SLOT"),
            Column("TYPE", style="green"),
            Column("SHAPE", folds=True),
            Column("SIZE", "right"),
            Column("NAME", folds=True),
        )
        out.table(columns, self._cells(several=several, exact=not out.terminal))
        tensors = [slot.tensor for slot in self.slots]
        variables = len({slot.variable for slot in self.slots})
        of = f"slots of {count(variables, 'variable')}"
        out.summary(f"{of}: {describe_totals(tensors)}" if tensors else "no slots")

    def _cells(self, *, several: bool, exact: bool) -> Iterator[list[str]]:
        for slot in self.slots:
            size = slot.tensor.nbytes
            yield [
                *([escape(slot.optimizer or "-")] if several else []),
                escape(slot.variable),
                escape(slot.slot),
                ckptparse.element_name(slot.tensor.data_type),
                shape_text(slot.tensor.shape),
                str(size) if exact else size_text(size),
                escape(slot.tensor.name),
            ]
