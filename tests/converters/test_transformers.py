"""Converters of transformers that import TensorFlow run unchanged on `ckptparse.tf`.

Each checkpoint is made by the independent builder, of small models and with the names that the
programs of these models have: BERT with slots of its optimizer, T5 in bfloat16.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from builder import Bundle

import ckptparse.tf

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    # Without these two nobody collects this file (`conftest.py`): what fails here is a failure.
    import torch
    import transformers
    from transformers.models.albert.modeling_albert import load_tf_weights_in_albert
    from transformers.models.bert.modeling_bert import load_tf_weights_in_bert
    from transformers.models.gpt2.modeling_gpt2 import load_tf_weights_in_gpt2
    from transformers.models.t5.modeling_t5 import load_tf_weights_in_t5

pytestmark = pytest.mark.filterwarnings("default")

Array = np.ndarray[Any, Any]
Names = Callable[[str], "tuple[str, bool] | None"]
"""Name of a parameter -> name in the checkpoint, and whether it is transposed; None: it is tied."""


def of_bert(name: str) -> tuple[str, bool] | None:
    if name == "cls.predictions.decoder.bias":
        return None
    path = name.replace("encoder.layer.", "encoder.layer_").replace(
        "albert_layer_groups.", "group_"
    )
    path = path.replace(".", "/")
    if "seq_relationship" in path:
        return path.replace("weight", "output_weights").replace("bias", "output_bias"), False
    if path == "cls/predictions/bias":
        return "cls/predictions/output_bias", False
    above, _, last = path.rpartition("/")
    if above.endswith("_embeddings"):
        return above, False
    if above.endswith("LayerNorm"):
        return f"{above}/{'gamma' if last == 'weight' else 'beta'}", False
    return (f"{above}/kernel", True) if last == "weight" else (path, False)


_ALBERT = {
    "albert.encoder.embedding_hidden_mapping_in": "bert/encoder/embedding_hidden_mapping_in",
    "albert.pooler": "bert/pooler/dense",
    "predictions.LayerNorm": "cls/predictions/transform/LayerNorm",
    "predictions.dense": "cls/predictions/transform/dense",
}
_GROUP = "albert.encoder.albert_layer_groups.0.albert_layers.0."
_INNER = "bert/encoder/transformer/group_0/inner_group_0/"
_ALBERT |= {
    f"{_GROUP}full_layer_layer_norm": f"{_INNER}LayerNorm_1",
    f"{_GROUP}attention.LayerNorm": f"{_INNER}LayerNorm",
    f"{_GROUP}attention.query": f"{_INNER}attention_1/self/query",
    f"{_GROUP}attention.key": f"{_INNER}attention_1/self/key",
    f"{_GROUP}attention.value": f"{_INNER}attention_1/self/value",
    f"{_GROUP}attention.dense": f"{_INNER}attention_1/output/dense",
    f"{_GROUP}ffn": f"{_INNER}ffn_1/intermediate/dense",
    f"{_GROUP}ffn_output": f"{_INNER}ffn_1/intermediate/output/dense",
}


def of_albert(name: str) -> tuple[str, bool] | None:
    above, _, last = name.rpartition(".")
    if name.startswith("albert.embeddings."):
        path = name.replace("albert", "bert", 1).replace(".", "/")
        if "LayerNorm" in path:
            return path.replace("weight", "gamma").replace("bias", "beta"), False
        return path.removesuffix("/weight"), False
    if name.startswith("sop_classifier"):
        return f"cls/seq_relationship/output_{last.replace('weight', 'weights')}", False
    if name == "predictions.bias":
        return "cls/predictions/output_bias", False
    if above == "predictions.decoder":
        return None
    path = _ALBERT[above]
    if "LayerNorm" in path:
        return f"{path}/{'gamma' if last == 'weight' else 'beta'}", False
    return (f"{path}/kernel", True) if last == "weight" else (f"{path}/bias", False)


def of_gpt2(name: str) -> tuple[str, bool] | None:
    path = name.replace("h.", "h", 1) if name.startswith("h.") else name
    above, _, last = path.replace(".", "/").rpartition("/")
    if above in ("wte", "wpe"):
        return f"model/{above}", False
    letter = "b" if last == "bias" else "g" if "ln_" in above else "w"
    return f"model/{above}/{letter}", False


def of_t5(name: str) -> tuple[str, bool] | None:
    path = name.replace(".", "/").removesuffix("/weight")
    for part in ("block", "layer"):
        for number in range(3):
            path = path.replace(f"/{part}/{number}/", f"/{part}_{number:03}/")
    if path == "shared":
        return "shared/embedding", False
    if path in ("encoder/embed_tokens", "decoder/embed_tokens", "lm_head"):
        return None
    return (f"{path}/scale", False) if path.endswith("layer_norm") else (path, True)


def small(kind: str, **more: int) -> Any:
    return getattr(transformers, f"{kind}Config")(vocab_size=11, **more)


BERT = {
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 6,
    "max_position_embeddings": 5,
}


MODELS: dict[str, tuple[Callable[[], Any], Names, Any, Any]] = {
    "bert": (
        lambda: transformers.BertForPreTraining(small("Bert", **BERT)),
        of_bert,
        load_tf_weights_in_bert,
        np.float32,
    ),
    "albert": (
        lambda: transformers.AlbertForPreTraining(
            small("Albert", **{**BERT, "embedding_size": 4, "num_hidden_groups": 1})
        ),
        of_albert,
        load_tf_weights_in_albert,
        np.float32,
    ),
    "gpt2": (
        lambda: transformers.GPT2Model(small("GPT2", n_embd=8, n_layer=2, n_head=2, n_positions=5)),
        of_gpt2,
        load_tf_weights_in_gpt2,
        np.float32,
    ),
    "t5": (
        lambda: transformers.T5ForConditionalGeneration(
            small("T5", d_model=8, d_kv=4, d_ff=6, num_layers=2, num_heads=2)
        ),
        of_t5,
        load_tf_weights_in_t5,
        ml_dtypes.bfloat16,
    ),
}


def make_checkpoint(model: Any, names: Names, kind: Any, prefix: Path) -> dict[str, Array]:
    """Write a checkpoint of random values; return what each parameter must become."""
    random = np.random.default_rng(7)
    bundle = Bundle()
    wanted: dict[str, Array] = {}
    for name, parameter in model.named_parameters():
        found = names(name)
        if found is None:
            continue
        stored, transposed = found
        value = random.normal(size=tuple(parameter.shape)).astype(kind)
        wanted[name] = value.astype(np.float32)
        array = np.ascontiguousarray(value.T) if transposed else value
        bundle.add(stored, array)
        if stored.startswith("bert/pooler"):
            bundle.add(f"{stored}/adam_m", np.zeros_like(array))
            bundle.add(f"{stored}/adam_v", np.zeros_like(array))
        if stored.endswith("SelfAttention/q"):
            bundle.add(f"{stored}_slot_vr", np.zeros(array.shape[:1], np.float32))
    if names is not of_gpt2:
        bundle.add("global_step", np.array(1_000_000, np.int64))
    bundle.write(prefix)
    return wanted


@pytest.mark.parametrize("name", MODELS)
def test_a_converter_finds_every_weight(name: str, tmp_path: Path) -> None:
    make, names, convert, kind = MODELS[name]
    model = make()
    wanted = make_checkpoint(model, names, kind, tmp_path / "model.ckpt")
    assert len(wanted) > 20
    before = set(sys.modules)
    with ckptparse.tf.as_tensorflow():
        converted = convert(model, model.config, str(tmp_path / "model.ckpt"))
    parameters = dict(converted.named_parameters())
    for parameter, value in wanted.items():
        np.testing.assert_array_equal(parameters[parameter].detach().numpy(), value, parameter)
    left = {module for module in set(sys.modules) - before if module.startswith("tensorflow")}
    assert left == set()


DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^<!-- run by: converters -->\n```python\n(.+?)^```$", re.MULTILINE | re.DOTALL)


def run_block(page: str, **names: Any) -> dict[str, Any]:
    """Run the block of a page that says it is run here, and return the names that it has made."""
    (code,) = BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))
    exec(code, names)  # noqa: S102 - the page's own
    return names


def test_the_page_of_the_drop_in_converts_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, names, _, kind = MODELS["bert"]
    model = make()
    (tmp_path / "bert").mkdir()
    wanted = make_checkpoint(model, names, kind, tmp_path / "bert" / "bert_model.ckpt")
    model.config.to_json_file(tmp_path / "bert" / "bert_config.json")
    monkeypatch.chdir(tmp_path)
    found = dict(run_block("tf.md", ckptparse=ckptparse)["model"].named_parameters())
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name].detach().numpy(), value, name)


def test_the_page_of_frameworks_takes_bfloat16_to_pytorch() -> None:
    array = np.array([1.5, -2.25, 3e38], ml_dtypes.bfloat16)
    tensor = run_block("frameworks.md", torch=torch, array=array)["tensor"]
    assert tensor.dtype is torch.bfloat16
    np.testing.assert_array_equal(tensor.float().numpy(), array.astype(np.float32))


def test_without_the_stand_in_a_converter_finds_no_tensorflow(tmp_path: Path) -> None:
    model = MODELS["gpt2"][0]()
    with pytest.raises((ImportError, AttributeError)):
        load_tf_weights_in_gpt2(model, model.config, str(tmp_path / "model.ckpt"))


def test_the_converters_are_those_of_the_release_that_had_them() -> None:
    assert importlib.metadata.version("transformers").startswith("4.46.")
    for _, _, convert, _ in MODELS.values():
        assert convert.__module__.startswith("transformers.models.")
