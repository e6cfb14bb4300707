"""The rule files that come along, against the model classes of transformers: nothing is left over.

The names are those that the models' own repositories store; the shapes are small ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptparse

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

Shapes = dict[str, tuple[int, ...]]
HIDDEN, WIDE, WORDS, PLACES, KINDS, LAYERS = 8, 12, 30, 16, 2, 2
SIZES = {
    "vocab_size": WORDS,
    "hidden_size": HIDDEN,
    "intermediate_size": WIDE,
    "num_attention_heads": 2,
    "num_hidden_layers": LAYERS,
    "max_position_embeddings": PLACES,
    "type_vocab_size": KINDS,
}


def dense(name: str, rows: int, columns: int) -> Shapes:
    return {f"{name}/kernel": (rows, columns), f"{name}/bias": (columns,)}


def norm(name: str, size: int) -> Shapes:
    return {f"{name}/gamma": (size,), f"{name}/beta": (size,)}


def embeddings(model: str, size: int) -> Shapes:
    rows = {"word": WORDS, "position": PLACES, "token_type": KINDS}
    shapes: Shapes = {f"{model}/embeddings/{n}_embeddings": (r, size) for n, r in rows.items()}
    return shapes | norm(f"{model}/embeddings/LayerNorm", size)


def encoder(model: str) -> Shapes:
    shapes: Shapes = {}
    for number in range(LAYERS):
        layer = f"{model}/encoder/layer_{number}"
        for part in ("query", "key", "value"):
            shapes |= dense(f"{layer}/attention/self/{part}", HIDDEN, HIDDEN)
        shapes |= dense(f"{layer}/attention/output/dense", HIDDEN, HIDDEN)
        shapes |= norm(f"{layer}/attention/output/LayerNorm", HIDDEN)
        shapes |= dense(f"{layer}/intermediate/dense", HIDDEN, WIDE)
        shapes |= dense(f"{layer}/output/dense", WIDE, HIDDEN)
        shapes |= norm(f"{layer}/output/LayerNorm", HIDDEN)
    return shapes


def bert() -> Shapes:
    shapes = embeddings("bert", HIDDEN) | encoder("bert")
    shapes |= dense("bert/pooler/dense", HIDDEN, HIDDEN)
    shapes |= dense("cls/predictions/transform/dense", HIDDEN, HIDDEN)
    shapes |= norm("cls/predictions/transform/LayerNorm", HIDDEN)
    shapes |= {"cls/predictions/output_bias": (WORDS,)}
    shapes |= {"cls/seq_relationship/output_weights": (2, HIDDEN)}
    return shapes | {"cls/seq_relationship/output_bias": (2,)}


def albert() -> Shapes:
    small = 6
    shapes = embeddings("bert", small)
    shapes |= dense("bert/encoder/embedding_hidden_mapping_in", small, HIDDEN)
    layer = "bert/encoder/transformer/group_0/inner_group_0"
    for part in ("query", "key", "value"):
        shapes |= dense(f"{layer}/attention_1/self/{part}", HIDDEN, HIDDEN)
    shapes |= dense(f"{layer}/attention_1/output/dense", HIDDEN, HIDDEN)
    shapes |= norm(f"{layer}/LayerNorm", HIDDEN) | norm(f"{layer}/LayerNorm_1", HIDDEN)
    shapes |= dense(f"{layer}/ffn_1/intermediate/dense", HIDDEN, WIDE)
    shapes |= dense(f"{layer}/ffn_1/intermediate/output/dense", WIDE, HIDDEN)
    shapes |= dense("bert/pooler/dense", HIDDEN, HIDDEN)
    shapes |= dense("cls/predictions/transform/dense", HIDDEN, small)
    shapes |= norm("cls/predictions/transform/LayerNorm", small)
    shapes |= {"cls/predictions/output_bias": (WORDS,)}
    shapes |= {"cls/seq_relationship/output_weights": (2, HIDDEN)}
    return shapes | {"cls/seq_relationship/output_bias": (2,)}


def electra() -> Shapes:
    small = 6
    shapes = embeddings("electra", small) | encoder("electra")
    shapes |= dense("electra/embeddings_project", small, HIDDEN)
    shapes |= dense("discriminator_predictions/dense", HIDDEN, HIDDEN)
    shapes |= dense("discriminator_predictions/dense_1", HIDDEN, 1)
    return shapes | dense("generator_predictions/dense", HIDDEN, small)


def t5() -> Shapes:
    shapes: Shapes = {"shared/embedding": (WORDS, HIDDEN)}
    for side, parts in (
        ("encoder", ("SelfAttention", "DenseReluDense")),
        ("decoder", ("SelfAttention", "EncDecAttention", "DenseReluDense")),
    ):
        for number in range(LAYERS):
            for place, part in enumerate(parts):
                layer = f"{side}/block_{number:03}/layer_{place:03}"
                shapes |= dict(t5_layer(f"{layer}/{part}", part))
                shapes[f"{layer}/layer_norm/scale"] = (HIDDEN,)
        first = f"{side}/block_000/layer_000/SelfAttention"
        shapes[f"{first}/relative_attention_bias"] = (2, 32)
        shapes[f"{side}/final_layer_norm/scale"] = (HIDDEN,)
    return shapes


def t5_layer(name: str, part: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    if part == "DenseReluDense":
        yield f"{name}/wi/kernel", (HIDDEN, WIDE)
        yield f"{name}/wo/kernel", (WIDE, HIDDEN)
    else:
        for one in "qkv":
            yield f"{name}/{one}", (HIDDEN, 10)
        yield f"{name}/o", (10, HIDDEN)


FACTORED = {**SIZES, "embedding_size": 6}
MODELS: dict[str, tuple[Shapes, str, str, dict[str, Any]]] = {
    "bert": (bert(), "BertConfig", "BertForPreTraining", SIZES),
    "albert": (albert(), "AlbertConfig", "AlbertForPreTraining", FACTORED),
    "electra": (
        electra(),
        "ElectraConfig",
        "ElectraForPreTraining",
        {**SIZES, "embedding_size": 6},
    ),
    "t5": (
        t5(),
        "T5Config",
        "T5ForConditionalGeneration",
        {
            "vocab_size": WORDS,
            "d_model": HIDDEN,
            "d_kv": 5,
            "d_ff": WIDE,
            "num_heads": 2,
            "num_layers": LAYERS,
            "num_decoder_layers": LAYERS,
        },
    ),
}
STATE = {"bert": "adam_m", "albert": "adam_v", "electra": "adam_m", "t5": "_slot_vr"}


def make_values(name: str, shapes: Shapes) -> dict[str, Any]:
    chance = np.random.default_rng(5)
    values: dict[str, Any] = {
        key: chance.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()
    }
    first = next(iter(shapes))
    end = STATE[name] if STATE[name].startswith("_") else f"/{STATE[name]}"
    return {**values, f"{first}{end}": values[first], "global_step": np.int64(7)}


@pytest.mark.parametrize("name", MODELS)
def test_every_tensor_finds_its_place_and_no_place_is_left(name: str, tmp_path: Path) -> None:
    shapes, config, model_class, sizes = MODELS[name]
    prefix = ckptparse.write(tmp_path / "model.ckpt", make_values(name, shapes))
    target = tmp_path / "model.safetensors"
    done = ckptparse.convert(prefix, target, rename=name)
    model = getattr(transformers, model_class)(getattr(transformers, config)(**sizes))
    from safetensors.torch import load_file

    found = load_file(target)
    missing, unexpected = model.load_state_dict(found, strict=False)
    kept = {key: tensor for key, tensor in model.state_dict().items() if key in found}
    assert not unexpected
    # What is missing is what shares the memory of something that is there, or is no weight.
    given = {tensor.data_ptr() for tensor in kept.values()}
    state = model.state_dict()
    assert [
        key for key in missing if state[key].data_ptr() not in given and "_ids" not in key
    ] == []
    assert all(torch.equal(state[key], tensor) for key, tensor in found.items())
    dropped = [row.old for row in done.rows if row.new is None and not row.old.startswith("gener")]
    assert len(dropped) == 2


def test_a_dense_layer_computes_what_it_did(tmp_path: Path) -> None:
    chance = np.random.default_rng(3)
    kernel, bias = chance.standard_normal((5, 3)), chance.standard_normal(3)
    inputs = chance.standard_normal((2, 5))
    prefix = ckptparse.write(tmp_path / "m", {"dense/kernel": kernel, "dense/bias": bias})
    rules = [("/kernel$", "/weight"), ("dense/", "")]
    ckptparse.convert(prefix, tmp_path / "m.safetensors", rename=rules, layout="torch")
    from safetensors.torch import load_file

    layer = torch.nn.Linear(5, 3).double()
    layer.load_state_dict(load_file(tmp_path / "m.safetensors"))
    got = layer(torch.from_numpy(inputs)).detach().numpy()
    assert np.allclose(got, inputs @ kernel + bias, atol=1e-12)


def convolve(inputs: Any, kernel: Any) -> Any:
    """Convolve (rows, columns, in) with (rows, columns, in, out), without padding."""
    high, wide = kernel.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(inputs, (high, wide), axis=(0, 1))
    return np.einsum("xyihw,hwio->xyo", windows, kernel)


def test_convolutions_compute_what_they_did(tmp_path: Path) -> None:
    chance = np.random.default_rng(3)
    inputs = chance.standard_normal((6, 7, 4))
    plain = chance.standard_normal((3, 2, 4, 5))
    depthwise = chance.standard_normal((3, 2, 4, 2))
    values = {"conv/kernel": plain, "deep/depthwise_kernel": depthwise}
    prefix = ckptparse.write(tmp_path / "m", values)
    ckptparse.convert(prefix, tmp_path / "m.safetensors", layout="torch")
    from safetensors.torch import load_file

    found = load_file(tmp_path / "m.safetensors")
    image = torch.from_numpy(inputs).permute(2, 0, 1)[None]
    got = torch.nn.functional.conv2d(image, found["conv/kernel"])[0].permute(1, 2, 0).numpy()
    assert np.allclose(got, convolve(inputs, plain), atol=1e-12)
    got = torch.nn.functional.conv2d(image, found["deep/depthwise_kernel"], groups=4)
    each = [convolve(inputs[..., n : n + 1], depthwise[:, :, n : n + 1]) for n in range(4)]
    wanted = np.concatenate(each, axis=-1)
    assert np.allclose(got[0].permute(1, 2, 0).numpy(), wanted, atol=1e-12)
