"""The training step: global_step, else an optimizer's iterations, else save_counter."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ckptparse.graph.object_graph import SAVE_COUNTER, ObjectGraph
from ckptparse.graph.optimizer import find_optimizers
from ckptparse.tensor import Tensor

__all__ = ["find_step"]

_GLOBAL_STEP = "global_step"
_ITERATIONS = ("iterations", "iteration", "iter")


def find_step(
    names: Callable[[], Iterable[str]],
    find: Callable[[str], Tensor | None],
    graph: ObjectGraph | None,
) -> int | None:
    """Read the training step.

    Args:
        names: Gives every stored name.
        find: Gives the tensor of a stored name.
        graph: The object graph, or None for a name-based checkpoint.

    Returns:
        The step, or None if the checkpoint has none, or several optimizers of different steps.

    Raises:
        DataLossError: The step's bytes are damaged.
    """
    if graph is None:
        return _named_step(names, find)
    for node_id, key in graph.keys_by_node.items():
        local = graph.path_of(node_id, at_most=1) or ""
        if _GLOBAL_STEP in (graph.node(node_id).full_name, local.rpartition("/")[2]):
            step = _integer(find(key))
            if step is not None:
                return step
    iterations = {optimizer.iterations for optimizer in find_optimizers(graph)} - {None}
    counter = graph.root.get(SAVE_COUNTER)
    if len(iterations) == 1:
        return iterations.pop()
    if iterations or counter is None or counter.checkpoint_key is None:
        return None
    return _integer(find(counter.checkpoint_key))


def _named_step(
    names: Callable[[], Iterable[str]], find: Callable[[str], Tensor | None]
) -> int | None:
    exact = _integer(find(_GLOBAL_STEP))
    if exact is not None:
        return exact
    sought = (_GLOBAL_STEP, *_ITERATIONS)
    some = [(name, name.rpartition("/")[2]) for name in names() if name.endswith(sought)]
    for wanted in sought:
        found = [name for name, last in some if last == wanted]
        step = _integer(find(found[0])) if len(found) == 1 else None
        if step is not None:
            return step
    return None


def _integer(tensor: Tensor | None) -> int | None:
    if tensor is None or tensor.shape != () or tensor.kind != "dense":
        return None
    return int(tensor.read()[()]) if tensor.dtype.kind in "iu" else None
