"""`ckptparse convert`: weights to another format, under other names, without the optimizer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any

import ckptparse
from ckptparse.cli.completion import complete_path, complete_rules
from ckptparse.cli.errors import UsageError
from ckptparse.cli.limits import LimitOption, read_limits
from ckptparse.cli.options import Option
from ckptparse.cli.output import Column, Output
from ckptparse.cli.parameters import (
    DryRunOption,
    ExcludeOption,
    FormatOption,
    IncludeOption,
    Naming,
    NamingOption,
    OutputArgument,
    OverwriteOption,
    ShardSizeOption,
    SourceArgument,
)
from ckptparse.cli.progress import working
from ckptparse.cli.running import GOOD, Run
from ckptparse.cli.sizes import parse_size, read_count
from ckptparse.cli.writing import check_outputs
from ckptparse.text import count, escape, shape_text, size_text

__all__ = ["convert"]

_FLOATS = ("DT_FLOAT", "DT_DOUBLE", "DT_HALF", "DT_BFLOAT16")
"""How the names of the kinds of floats begin."""


class Ema(str, Enum):
    """What becomes of moving averages."""

    PREFER = "prefer"
    ONLY = "only"
    DROP = "drop"


class Layout(str, Enum):
    """Whose layout kernels are given."""

    TORCH = "torch"


def convert(
    run: Run,
    path: SourceArgument,
    output: OutputArgument,
    *,
    format_: FormatOption = None,
    include: IncludeOption = None,
    exclude: ExcludeOption = None,
    rules: Annotated[
        str | None,
        Option(
            "--rules",
            metavar="FILE",
            help="Rules in TOML, or bert, albert, electra or t5.",
            complete=complete_rules,
        ),
    ] = None,
    rename: Annotated[
        list[str] | None,
        Option(
            "--rename",
            metavar="OLD=NEW",
            help="A regular expression, and the text that replaces it.",
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        Option("--dtype", metavar="KIND", help="Convert floats to this dtype, such as bfloat16."),
    ] = None,
    layout: Annotated[
        Layout | None,
        Option("--layout", help="Transpose kernels into the layout of this framework."),
    ] = None,
    split: Annotated[
        list[str] | None,
        Option(
            "--split",
            metavar="PART=A,B",
            help="Cut tensors along their last axis, such as qkv=q,k,v.",
        ),
    ] = None,
    drop_slots: Annotated[
        bool, Option("--drop-slots", help="Leave out what optimizers keep, and moving averages.")
    ] = False,
    ema: Annotated[
        Ema | None,
        Option("--ema", help="Moving averages: in place of their variables, alone, or not at all."),
    ] = None,
    max_shard_size: ShardSizeOption = None,
    store_bits: Annotated[
        bool,
        Option("--store-bits", help="Store dtypes that safetensors does not have as integers."),
    ] = False,
    naming: NamingOption = Naming.CHECKPOINT,
    undo: Annotated[
        str | None,
        Option(
            "--undo",
            metavar="ORIGINAL",
            help="Undo a conversion of ORIGINAL that had the same options.",
            complete=complete_path,
        ),
    ] = None,
    dry_run: DryRunOption = False,
    overwrite: OverwriteOption = False,
    limit: LimitOption = None,
) -> Converted:
    """Write tensors to another format, under other names.

    Formats: safetensors, npz, a directory of npy files, HDF5, and V2 again.

    ckptparse convert --dry-run --drop-slots training/model.ckpt-10 model.safetensors
    ckptparse convert --dtype bfloat16 training/model.ckpt-10 weights.npz
    """
    if rules is not None and rename:
        raise UsageError("Expected --rules or --rename, found both")
    limits = read_limits(limit)
    run.own.update(filter(None, (rules,)))
    if not dry_run:
        check_outputs([output.rstrip("/")], [path], overwrite=overwrite)
    chosen: dict[str, Any] = {
        "include": include,
        "exclude": exclude,
        "naming": naming.value,
        "rename": rules if rules is not None else _pairs(rename),
        "dtype": _float_kind(dtype),
        "layout": None if layout is None else "torch",
        "split": _splits(split),
        "drop_slots": drop_slots,
        "ema": None if ema is None else ema.value,
    }
    if undo is not None:
        chosen = {"rename": _reversal(undo, {**chosen, "limits": limits})}
    with working(f"converting {escape(path)}", quiet=run.quiet) as advance:
        conversion = ckptparse.convert(
            path,
            output,
            format=None if format_ is None else format_.value,
            max_shard_size=None if max_shard_size is None else parse_size(max_shard_size),
            store_bits=store_bits,
            overwrite=overwrite,
            dry_run=dry_run,
            progress=advance,
            cache=run.cache,
            limits=limits,
            **chosen,
        )
    for warning in conversion.warnings:
        run.warn(warning)
    return Converted(conversion)


def _float_kind(dtype: str | None) -> str | None:
    """Return the dtype that is asked for, if floats have it."""
    kinds = {
        ckptparse.element_name(kind) for kind in ckptparse.DataType if kind.name.startswith(_FLOATS)
    }
    if dtype is None or dtype in kinds:
        return dtype
    raise UsageError(
        f"dtype is one of {', '.join(sorted(kinds))}, not {dtype!r}",
        "say one of them after --dtype",
    )


def _reversal(original: str, chosen: dict[str, Any]) -> ckptparse.Reversal:
    """Return what undoes a conversion of that checkpoint with those options."""
    options: dict[str, Any] = {"format": "v2", "dry_run": True, "overwrite": True}
    done = ckptparse.convert(original, original, **options, **chosen)
    return done.reverse()


def _pairs(rename: list[str] | None) -> list[tuple[str, str]] | None:
    if not rename:
        return None
    pairs = []
    for rule in rename:
        old, mark, new = rule.partition("=")
        if not mark or not old:
            raise UsageError(f"Expected OLD=NEW, found '{rule}'")
        try:
            re.compile(old).sub(new, "")  # Which also parses the replacement.
        except (re.error, IndexError, OverflowError, RecursionError) as error:
            raise UsageError(
                f"Expected a regular expression and what replaces it: {error}"
            ) from None
        pairs.append((old, new))
    return pairs


def _splits(split: list[str] | None) -> dict[str, int | list[str]] | None:
    if not split:
        return None
    found: dict[str, int | list[str]] = {}
    for rule in split:
        part, mark, into = rule.partition("=")
        count = read_count(into)
        if not mark or not part or not into or count == 0 or (count is None and into.isdecimal()):
            raise UsageError(f"Expected PART=A,B or PART=3, found '{rule}'")
        found[part] = into.split(",") if count is None else count
    return found


@dataclass(frozen=True, slots=True)
class Converted:
    """What became of every tensor."""

    conversion: ckptparse.Conversion
    code: int = GOOD

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return self.conversion.to_dict()

    def write(self, out: Output) -> None:
        """Write a line for each tensor, and what was written."""
        columns = [
            Column("NAME", folds=True, style="cyan"),
            Column("TYPE"),
            Column("SHAPE"),
            Column("DONE", folds=True, prose=True),
        ]
        rows = self.conversion.rows
        if out.terminal:
            out.table(columns, map(_cells, rows))
        else:
            for row in rows:
                out.record(*_fields(row))
        kept = self.conversion.kept
        said = f"{count(len(kept), 'tensor')}, {size_text(self.conversion.nbytes)}"
        dropped = len(self.conversion.rows) - len(kept)
        said += f", {dropped:,} dropped" if dropped else ""
        if self.conversion.dry_run:
            out.summary(f"{said}; nothing was written")
        else:
            out.summary(f"{said}; in {_describe_target(self.conversion)}")


def _describe_target(conversion: ckptparse.Conversion) -> str:
    """Say where the tensors are now, and what that is if the name does not say it."""
    target, files = escape(conversion.target.rstrip("/")), conversion.files
    if conversion.format == "v2":
        return f"{target} (V2 checkpoint, {count(len(files), 'file')})"
    if conversion.format == "npy":
        return f"{target} (.npy files)"
    more = f" and {len(files) - 1:,} more" if len(files) > 1 else ""
    return f"{escape(files[0])}{more}"


def _fields(row: ckptparse.ConversionRow) -> list[str]:
    """Return a record: old name, new one, type, shape, what was done."""
    new = "-" if row.new is None else escape(row.new)
    done = f"dropped: {row.dropped}" if row.new is None else "; ".join(row.done) or "-"
    return [escape(row.old), new, row.dtype, shape_text(row.shape), done]


def _cells(row: ckptparse.ConversionRow) -> list[str]:
    """Return a line of the table: the name in the target, and what it was before."""
    old, new, kind, shape, done = _fields(row)
    if row.new is None:
        return [old, kind, shape, done]
    said = [*((f"was {old}",) if new != old else ()), *row.done]
    return [new, kind, shape, "; ".join(said)]
