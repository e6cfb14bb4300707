"""Tensors that an executor works out, a few before they are asked for.

Workers that are threads share what is open. To others, which may be processes on this machine or
elsewhere, a piece of work is sent as what can be pickled: which file, which tensor of it, and what
is done with that; each opens the file once. Values that lie in no file are sent themselves.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from ckptparse.backend.small import Sized
from ckptparse.bundle.content import Content, content_of_array
from ckptparse.errors import CheckpointError, StorageError
from ckptparse.files.context import Context
from ckptparse.files.storage import FileStat, Storage
from ckptparse.jobs.derived import DerivedTensor, RenamedTensor, Step
from ckptparse.jobs.opening import Opened, open_tensors
from ckptparse.limits import Limits
from ckptparse.locks import make_lock
from ckptparse.tensor import Tensor
from ckptparse.tensor_like import ArrayTensor, TensorLike

__all__ = ["SOURCES", "Workplace", "find_place", "waiting", "work_ahead"]

_MOST_BYTES = 64 << 20
_MOST_TENSORS = 32
"""So much is worked out before it is asked for: enough for 32 workers, and memory stays small."""
_MOST_OPEN = 4
"""Files that a worker keeps open."""


def work_ahead(
    tensors: Sequence[TensorLike], executor: Executor, opened: Opened
) -> list[TensorLike]:
    """Let an executor work out tensors that are changed, a few before they are asked for.

    They are to be asked for in this order. Those that are only copied are left as they are.
    """
    ahead = _Ahead(executor, opened)
    made: list[TensorLike] = []
    for tensor in tensors:
        original = tensor.original if isinstance(tensor, RenamedTensor) else None
        if isinstance(tensor, RenamedTensor) and isinstance(original, DerivedTensor):
            made.append(ahead.take(tensor, original))
        else:
            made.append(tensor)
    return made


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where a worker finds a source.

    Attributes:
        path: Its path.
        verify: Whether checksums are checked.
        limits, storage: Its context.
        files: What its files were when it was opened: others of the same names are not meant.
    """

    path: str
    verify: bool
    limits: Limits
    storage: Storage
    files: tuple[tuple[str, FileStat | None], ...]

    @property
    def key(self) -> tuple[object, ...]:
        """What two places of one source have in common."""
        return self.path, self.verify, self.limits, self.files


def find_place(opened: Opened) -> Workplace | None:
    """Return where a source can be opened again; None if it lies in no file."""
    if opened.path is None or not opened.files:
        return None
    storage, tensor = opened.context.storage, next(iter(opened.tensors.values()), None)
    verify = tensor.options.verify if isinstance(tensor, Tensor) else True
    files = tuple((path, storage.stat(path)) for path in opened.files)
    return Workplace(opened.path, verify, opened.context.limits, storage, files)


class _Ahead:
    """Tensors in the order they will be asked for, the next few of them under way."""

    def __init__(self, executor: Executor, opened: Opened) -> None:
        self._executor = executor
        self._waiting: deque[_AheadTensor] = deque()
        self._running: dict[str, Future[npt.NDArray[Any]]] = {}
        self._held: dict[str, int] = {}
        self._shared = isinstance(executor, ThreadPoolExecutor)
        # As it is found here, whatever the naming: by the name in the file.
        self._place = None if self._shared else find_place(opened)

    def take(self, tensor: RenamedTensor, derived: DerivedTensor) -> TensorLike:
        made = _AheadTensor(tensor, derived, self)
        self._waiting.append(made)
        return made

    def read(self, tensor: _AheadTensor) -> npt.NDArray[Any]:
        """Return the values of a tensor, and see to it that the next ones are under way."""
        self._submit()
        future = self._running.pop(tensor.name, None)
        self._held.pop(tensor.name, None)
        self._submit()
        if future is None:
            return tensor.original.read()
        with waiting(f"tensor {tensor.name!r}", shared=self._shared):
            return future.result()

    def _submit(self) -> None:
        while self._waiting and len(self._running) < _MOST_TENSORS:
            size = self._waiting[0].nbytes
            if self._running and sum(self._held.values()) + size > _MOST_BYTES:
                return
            tensor = self._waiting.popleft()
            self._running[tensor.name] = self._start(tensor.derived)
            self._held[tensor.name] = size

    def _start(self, tensor: DerivedTensor) -> Future[npt.NDArray[Any]]:
        if self._shared:
            return self._executor.submit(tensor.read)
        source, steps = tensor.source, tensor.steps
        if self._place is not None:
            return self._executor.submit(_work, self._place, source.name, steps)
        held = ArrayTensor(source.name, source.read(), source.data_type)
        return self._executor.submit(_apply, held, steps)


@contextmanager
def waiting(what: str, *, shared: bool) -> Iterator[None]:
    """Say which part of the work failed if it is the worker that did, and not the work.

    Args:
        what: The part.
        shared: Whether workers are threads: what they raise is told as it is.
    """
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        if shared and not isinstance(error, BrokenExecutor):
            raise
        raise StorageError(
            f"A worker failed at {what}: {type(error).__name__}: {error}",
            hint="What a worker gets must be picklable, and it must reach the files by the same "
            "path",
        ) from error


def _apply(tensor: TensorLike, steps: Sequence[Step]) -> npt.NDArray[Any]:
    for step in steps:
        tensor = step.apply(tensor)
    return tensor.read()


def _work(place: Workplace, name: str, steps: Sequence[Step]) -> npt.NDArray[Any]:
    """Work out a tensor in a worker, which opens the source for itself."""
    with SOURCES.borrow(place) as opened:
        return _apply(opened.tensors[name], steps)


class _Sources:
    """What a worker has opened; the least recently used is closed beyond a bound."""

    def __init__(self) -> None:
        self._lock = make_lock()
        self._open: OrderedDict[tuple[object, ...], tuple[Opened, ExitStack]] = OrderedDict()
        self._users: Counter[tuple[object, ...]] = Counter()

    @contextmanager
    def borrow(self, place: Workplace) -> Iterator[Opened]:
        """Give what lies there, opened if it was not, for as long as the context lasts."""
        with self._lock:
            if place.key not in self._open:
                self._open[place.key] = _open(place)
            self._open.move_to_end(place.key)
            self._users[place.key] += 1
            opened, _ = self._open[place.key]
        try:
            yield opened
        finally:
            with self._lock:
                self._users[place.key] -= 1
                idle = [key for key in self._open if not self._users[key]]
                for key in idle[: max(0, len(self._open) - _MOST_OPEN)]:
                    self._open.pop(key)[1].close()
                    del self._users[key]


def _open(place: Workplace) -> tuple[Opened, ExitStack]:
    stack = ExitStack()
    context = Context(storage=place.storage, limits=place.limits)
    opened = stack.enter_context(open_tensors(place.path, context, verify=place.verify))
    return opened, stack


SOURCES = _Sources()
"""What this process has opened for others."""


class _AheadTensor(RenamedTensor):
    """A tensor that is worked out ahead."""

    __slots__ = ("_ahead", "derived")

    def __init__(self, tensor: RenamedTensor, derived: DerivedTensor, ahead: _Ahead) -> None:
        super().__init__(tensor.name, tensor)
        self.derived = derived
        self._ahead = ahead

    @classmethod
    def read_together(cls, batch: Sequence[Sized]) -> list[npt.NDArray[Any] | None]:
        """Leave each to its turn: the next ones are under way then."""
        return [None] * len(batch)

    def read(self) -> npt.NDArray[Any]:
        """Read the whole."""
        return self._ahead.read(self)

    def content(self) -> Content:
        """Return its bytes, when they have been worked out."""
        return content_of_array(self.read(), self.data_type)
