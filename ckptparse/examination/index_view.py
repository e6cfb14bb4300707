"""What one index, whole or broken, says of tensors, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass, field

from ckptparse.bundle.entry import BundleHeader
from ckptparse.coding.checksum import unmask_crc
from ckptparse.examination.payload import ListedTensor, PartName, Payload
from ckptparse.examination.plain_rows import PlainRows
from ckptparse.examination.report import FileReport
from ckptparse.examination.row_mapping import RowMapping
from ckptparse.examination.salvaged import SalvagedTable, TableCodes
from ckptparse.examination.survey import identity_of
from ckptparse.files.context import Context
from ckptparse.identification.identity import fetching_commands
from ckptparse.inventory.survey import Origin
from ckptparse.limits import Limits
from ckptparse.problems import Problem
from ckptparse.slices import TensorSlice

__all__ = ["NO_CHECKSUM", "IndexView", "name_foreign", "report_left"]

NO_CHECKSUM = unmask_crc(0)
"""The checksum of an entry that has none: its field is 0, as protobuf reads an absent field, and
TensorFlow compares with it all the same (docs/format.md, section 2.3)."""


@dataclass(slots=True)
class IndexView:
    """What one index says, or what all files of a V1 checkpoint say together.

    Attributes:
        path: The index; of a V1 checkpoint its file, or its prefix.
        origin: Where it comes from.
        header: Its header, or None.
        num_shards: As its header says; without one, as the names of the data files say.
        tensors: By name, in the order of the index.
        orphans: Slices that no tensor lists.
        complete: Whether nothing of it is missing.
        problems: What is wrong with it.
        files: The maps of its own files, by path.
        unplaced: Names that an object graph has, if nothing tells where their tensors lie.
        rows: Those of `tensors` that are rows of columns; None if none are.
        untied: Where its blocks begin, of an index in an image, that may be of another save.
    """

    path: str
    origin: Origin
    header: BundleHeader | None = None
    num_shards: int = 1
    tensors: MutableMapping[str, ListedTensor] = field(default_factory=dict)
    orphans: list[tuple[str, TensorSlice, Payload]] = field(default_factory=list)
    complete: bool = False
    problems: list[Problem] = field(default_factory=list)
    files: dict[str, FileReport] = field(default_factory=dict)
    unplaced: tuple[str, ...] = ()
    rows: PlainRows | None = None
    untied: frozenset[int] = frozenset()

    def plain_rows(self) -> dict[str, int]:
        """Return the rows of the tensors that are rows, by name."""
        if self.rows is None or not isinstance(self.tensors, RowMapping):
            return {}
        return self.tensors.rows()

    def report(self, code: str, where: str, message: str) -> None:
        """Add a problem."""
        self.problems.append(Problem.of(code, where, message))

    @property
    def is_limited(self) -> bool:
        """Whether it asks for more than the limits allow."""
        return any(problem.code == "limit.reached" for problem in self.problems)

    def iter_payloads(
        self, names: Iterable[str] | None = None
    ) -> Iterator[tuple[PartName, Payload]]:
        """Iterate over the payloads of all tensors, or of some, each with its name."""
        for name in self.tensors if names is None else names:
            tensor = self.tensors[name]
            if tensor.payload is not None:
                yield PartName(name), tensor.payload
            for piece, payload in tensor.slices:
                if payload is not None:
                    yield PartName(name, piece), payload


def name_foreign(table: SalvagedTable, codes: TableCodes, context: Context) -> list[Problem]:
    """Return a table's problems; if it has no entry, say what kind of file it is instead."""
    if table.found:
        return table.problems
    path = table.file.path
    identity = identity_of(path, context)
    if identity is None or identity.kind in ("v2-index", "v1", "truncated", "unknown"):
        return table.problems
    what = f"it is {identity.meaning}. {identity.advice}"
    if identity.kind in ("empty", "zeros", "interrupted-save"):
        return [*table.problems, Problem.of(codes.footer, path, what)][-1:]
    return [Problem.of(codes.foreign, path, what, fetch=fetching_commands(identity.kind))]


def report_left(view: IndexView, count: int, limits: Limits) -> None:
    """Report that so many tensors of a V1 checkpoint, which are not whole, are not looked at."""
    what = (
        f"{count:,} more tensors are damaged, or in slices, and were not looked at: "
        f"Limits.single_entries allows {limits.single_entries:,}, and one for each 4 KiB of the "
        "files"
    )
    view.report("limit.reached", view.path, what)
    view.complete = False
