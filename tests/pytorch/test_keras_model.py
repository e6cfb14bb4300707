"""A module of PyTorch computes what a Keras model does, with the weights that `convert` gives it.

The model and what it gave for an input lie in `fixtures/saved_model/keras3_kernels`; its graph
tells which axes are turned.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import expected
import numpy as np
import pytest

import ckptparse

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
CASE = expected.load("saved_model/keras3_kernels")
functional = torch.nn.functional

RULES = [
    (r"^lstm/lstm_cell/kernel$", "lstm.weight_ih_l0"),
    (r"^lstm/lstm_cell/recurrent_kernel$", "lstm.weight_hh_l0"),
    (r"^lstm/lstm_cell/bias$", "lstm.bias_ih_l0"),
    (r"^norm/gamma$", "norm.weight"),
    (r"^norm/beta$", "norm.bias"),
    (r"^norm/moving_mean$", "norm.running_mean"),
    (r"^norm/moving_variance$", "norm.running_var"),
    (r"^separable/depthwise_kernel$", "separable.0.weight"),
    (r"^separable/pointwise_kernel$", "separable.1.weight"),
    (r"^separable/bias$", "separable.1.bias"),
    (r"^embedding/embeddings$", "embedding.weight"),
    (r"^attention/(\w+)/kernel$", r"attention.\1.weight"),
    (r"^attention/(\w+)/bias$", r"attention.\1.bias"),
    (r"^(\w+)/kernel$", r"\1.weight"),
    (r"^(\w+)/bias$", r"\1.bias"),
]


class Attention(torch.nn.Module):  # type: ignore[misc]
    """Attention of two heads of three, as four matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (torch.nn.Linear(4, 6) for _ in range(3))
        self.attention_output = torch.nn.Linear(6, 4)

    def forward(self, words: Any) -> Any:
        heads = [
            one(words).unflatten(-1, (2, 3)).transpose(1, 2)
            for one in (self.query, self.key, self.value)
        ]
        found = functional.scaled_dot_product_attention(*heads)
        return self.attention_output(found.transpose(1, 2).flatten(2))


class Kernels(torch.nn.Module):  # type: ignore[misc]
    """The model of the fixture."""

    def __init__(self) -> None:
        super().__init__()
        nn = torch.nn
        self.conv = nn.Conv2d(3, 4, 3, padding="same")
        self.norm = nn.BatchNorm2d(4, eps=1e-3)
        self.depthwise = nn.Conv2d(4, 8, 2, groups=4)
        self.separable = nn.Sequential(nn.Conv2d(8, 8, 2, groups=8, bias=False), nn.Conv2d(8, 3, 1))
        self.up = nn.ConvTranspose2d(3, 2, 3, stride=2)
        self.embedding = nn.Embedding(7, 4)
        self.attention = Attention()
        self.narrow = nn.Conv1d(4, 5, 2)
        self.wide = nn.Linear(5, 3)
        self.lstm = nn.LSTM(3, 2, batch_first=True)
        self.head = nn.Linear(4, 4)

    def forward(self, image: Any, words: Any) -> Any:
        seen = self.norm(functional.relu(self.conv(image)))
        seen = self.up(self.separable(self.depthwise(seen))).mean((2, 3))
        read = self.attention(self.embedding(words))
        read = torch.tanh(self.wide(self.narrow(read.transpose(1, 2)).transpose(1, 2)))
        read = self.lstm(read)[0][:, -1]
        return self.head(torch.cat([seen, read], 1))


def load(converted: Path) -> Kernels:
    from safetensors.torch import load_file

    weights = load_file(converted)
    model = Kernels().eval()
    state = model.state_dict()
    # Biases of heads have an axis for the head; Keras's LSTM has one bias, PyTorch's two.
    found = {name: value.reshape(state[name].shape) for name, value in weights.items()}
    found["lstm.bias_hh_l0"] = torch.zeros(8)
    missing, unexpected = model.load_state_dict(found, strict=False)
    assert missing == unexpected == []
    return model


def outputs(model: Kernels) -> Any:
    image, words = (np.array(one) for one in CASE.data["inputs"])
    pixels = image.reshape(1, 6, 6, 3).transpose(0, 3, 1, 2).astype(np.float32)
    with torch.no_grad():
        given = model(torch.from_numpy(pixels.copy()), torch.from_numpy(words.reshape(1, 5)))
    return given.numpy().ravel()


def convert(folder: Path) -> ckptparse.Conversion:
    return ckptparse.convert(
        CASE.root,
        folder / "m.safetensors",
        naming="variable",
        exclude=["*seed_generator*", "_all_variables/*"],
        rename=RULES,
        layout="torch",
    )


def test_the_module_gives_the_outputs_of_the_keras_model(tmp_path: Path) -> None:
    done = convert(tmp_path)
    assert {row.new for row in done.kept} < {*Kernels().state_dict()}
    got = outputs(load(tmp_path / "m.safetensors"))
    assert np.abs(got - np.array(CASE.data["outputs"])).max() < 1e-5


def test_weights_come_back_from_the_module_as_they_were(tmp_path: Path) -> None:
    done = convert(tmp_path)
    back = tmp_path / "back"
    ckptparse.convert(tmp_path / "m.safetensors", back, rename=done.reverse())
    wanted, got = ckptparse.read(CASE.root), ckptparse.read(back)
    assert len(got) == len(done.kept)
    for name, value in got.items():
        assert np.array_equal(value, wanted[name]), name
