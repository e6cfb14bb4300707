"""What surrounds the tensors of a page: layers, optimizers, signatures, assets, effects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ckptparse.dtypes import element_name
from ckptparse.errors import CheckpointError
from ckptparse.graph.effects.effect import Effect
from ckptparse.graph.layers import Layer
from ckptparse.graph.optimizer import Optimizer
from ckptparse.rendering.page.comparison import tell_comparison
from ckptparse.rendering.page.subject import Subject
from ckptparse.saved_model.meta_graph import MetaGraph
from ckptparse.saved_model.signatures import TensorInfo
from ckptparse.text import clean, count, escape, open_shape_text, size_text

__all__ = ["make_effects", "make_facts", "make_model", "make_problems", "make_verdict"]

_MOST_EFFECTS = 500
"""Effects that the page lists: the page stays small, whatever a hostile graph does."""
_VERDICTS = {
    "ok": "Every byte that can be checked is as it was written.",
    "warnings": "Nothing is lost, but there are warnings.",
    "damaged": "",
}
_UNCHECKED = "Its checksums were not checked."


def make_verdict(subject: Subject) -> dict[str, str]:
    """Return a word for the verdict (`ok`, `warnings`, `damaged`, `unknown`), and a sentence."""
    report = subject.report
    if subject.comparison is not None:
        return tell_comparison(subject.comparison)
    if report is None:
        word = "damaged" if subject.errors else "unknown"
        text = "It could not be read whole." if subject.errors else _UNCHECKED
        return {"word": word, "text": text if subject.graph is None or subject.errors else ""}
    said = ", ".join(f"{number:,} {state}" for state, number in report.counts.items())
    return {"word": report.verdict, "text": f"{_VERDICTS[report.verdict]} {said}".strip()}


def make_problems(subject: Subject) -> list[dict[str, str]]:
    """Return what is wrong, the worst first."""
    report = subject.report
    found = [
        {
            "severity": problem.severity.value,
            "code": problem.code,
            "where": escape(problem.where),
            "message": clean(problem.message),
        }
        for problem in (report.problems if report is not None else ())
    ]
    known = {problem["message"] for problem in found}
    messages = [message for message in map(clean, subject.errors) if message not in known]
    # First what the page itself could not show: of very many problems it names some.
    return [
        *({"severity": "error", "code": "", "where": "", "message": one} for one in messages),
        *found,
    ]


def make_facts(subject: Subject, rows: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what the page says first: names and values."""
    return list(_facts(subject, rows))


def _facts(subject: Subject, rows: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    checkpoint = subject.checkpoint
    yield "is", subject.kind
    writer = _writer(subject)
    if writer:
        yield "written by", writer
    step = subject.ask(lambda: checkpoint.step) if checkpoint is not None else None
    if step is not None:
        yield "step", f"{step:,}"
    shown = len(rows["name"])
    yield "tensors", f"{shown + subject.left_out:,}"
    if subject.left_out:
        yield "shown", f"{shown:,} of them; parameters and bytes are theirs"
    yield "parameters", _parameters(rows)
    yield "bytes", size_text(sum(rows["bytes"]))
    if checkpoint is not None:
        yield (
            "stored in",
            f"{count(checkpoint.num_shards, 'shard')}, {checkpoint.byte_order}-endian",
        )
    if subject.model is not None:
        model = subject.model
        mark = subject.ask(lambda: model.fingerprint)
        if mark is not None:
            fits = subject.ask(lambda: mark.matches_checkpoint)
            said = "fits the variables" if fits else "DOES NOT FIT the variables"
            yield "fingerprint", "not checked" if fits is None else said
    if subject.recovery is not None:
        report = subject.recovery.report
        yield "got back", f"{len(subject.recovery):,} of {len(report.tensors):,} tensors"


def _parameters(rows: Mapping[str, Any]) -> str:
    """Count elements by what they are for."""
    totals: dict[str, int] = {}
    names = rows["role"]["values"]
    for shape, role in zip(rows["shape"], rows["role"]["rows"], strict=True):
        elements = 1
        for size in shape or (0,):
            elements *= size
        if shape == []:
            elements = 1
        totals[names[role]] = totals.get(names[role], 0) + elements
    first = totals.pop("variable", None)
    said = [] if first is None else [f"{first:,} in variables"]
    said += [f"{number:,} in {role}s" for role, number in totals.items() if number]
    return ", ".join(said) or "0"


def _writer(subject: Subject) -> str:
    model = subject.model
    if model is not None:
        graphs = subject.ask(lambda: model.meta_graphs) or []
        versions = {graph.tensorflow_version for graph in graphs if graph.tensorflow_version}
        return f"TensorFlow {', '.join(sorted(versions))}" if versions else ""
    if subject.graph is not None:
        version = subject.graph.tensorflow_version
        return f"TensorFlow {version}" if version else f"producer {subject.graph.producer}"
    checkpoint = subject.checkpoint
    if checkpoint is None or checkpoint.format == "graph":
        return ""
    by_objects = subject.ask(lambda: checkpoint.object_graph) is not None
    return (
        "tf.train.Checkpoint, or Keras (by objects)"
        if by_objects
        else "tf.train.Saver, or an Estimator (by names)"
    )


def make_model(subject: Subject, rows: Mapping[str, int]) -> dict[str, Any]:
    """Describe layers, optimizers, signatures and assets.

    Args:
        subject: What the page is made of.
        rows: Row of each tensor, by stored name.
    """
    source = subject.model if subject.model is not None else subject.checkpoint
    checkpoint = subject.checkpoint
    if subject.left_out:
        source = checkpoint = None
    layers = subject.ask(lambda: source.layers) if source is not None else None
    optimizers = subject.ask(lambda: checkpoint.optimizers) if checkpoint is not None else None
    return {
        "layers": [_describe_layer(layer, rows) for layer in layers or ()],
        "optimizers": [_describe_optimizer(subject, item, rows) for item in optimizers or ()],
        "graphs": [_describe_graph(subject, graph) for graph in _meta_graphs(subject)],
    }


def _meta_graphs(subject: Subject) -> Sequence[MetaGraph]:
    model = subject.model
    return (subject.ask(lambda: model.meta_graphs) or []) if model is not None else []


def _describe_layer(layer: Layer, rows: Mapping[str, int]) -> dict[str, Any]:
    try:
        weights = [rows[tensor.name] for tensor in layer.weights if tensor.name in rows]
    except CheckpointError:
        weights = []
    return {"name": escape(layer.name), "kind": escape(layer.class_name or ""), "rows": weights}


def _describe_optimizer(
    subject: Subject, optimizer: Optimizer, rows: Mapping[str, int]
) -> dict[str, Any]:
    slots = subject.ask(lambda: optimizer.slots.stored_names) or {}
    rate = subject.ask(lambda: optimizer.learning_rate)
    return {
        "name": escape(optimizer.name),
        "iterations": subject.ask(lambda: optimizer.iterations),
        "rate": None if rate is None else f"{rate:.6g}",
        "slots": [
            [
                escape(variable),
                [[escape(slot), rows.get(name, -1)] for slot, name in by_slot.items()],
            ]
            for variable, by_slot in slots.items()
        ],
    }


def _describe_graph(subject: Subject, graph: MetaGraph) -> dict[str, Any]:
    return {
        "tags": [escape(tag) for tag in graph.tags],
        "nodes": subject.ask(lambda: len(graph.graph.nodes)),
        "functions": subject.ask(lambda: len(graph.graph.functions)),
        "assets": [escape(name) for name in subject.ask(lambda: graph.assets) or ()],
        "signatures": [
            {
                "name": escape(name),
                "method": escape(signature.method_name),
                "inputs": _describe_tensors(signature.inputs),
                "outputs": _describe_tensors(signature.outputs),
            }
            for name, signature in graph.signatures.items()
        ],
    }


def _describe_tensors(infos: Mapping[str, TensorInfo]) -> list[list[str]]:
    return [
        [escape(key), element_name(info.data_type), open_shape_text(info.shape), escape(info.name)]
        for key, info in infos.items()
    ]


def make_effects(subject: Subject) -> dict[str, Any] | None:
    """Describe what the model would do beyond computing; None for what has no graph."""
    holder = subject.model if subject.model is not None else subject.graph
    if holder is None:
        return None
    effects = subject.ask(lambda: holder.effects)
    if effects is None:
        return None
    others = [effect for effect in effects if not effect.ordinary]
    return {
        "ordinary": len(effects) - len(others),
        "others": [_describe_effect(effect) for effect in others[:_MOST_EFFECTS]],
        "more": max(0, len(others) - _MOST_EFFECTS),
    }


def _describe_effect(effect: Effect) -> dict[str, Any]:
    return {
        "kind": str(effect.kind),
        "op": escape(effect.op),
        "node": escape(effect.node),
        "function": None if effect.function is None else escape(effect.function),
        "within": [escape(node) for node in effect.within],
        "path": None if effect.path is None else escape(effect.path),
        "reason": clean(effect.reason),
        "called": effect.called,
        "source": effect.source,
    }
