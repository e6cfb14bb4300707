"""PyTorch's recurrent layers compute what Keras's do, with weights that `convert` gives them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recurrent_cases as cases

import ckptparse

torch = pytest.importorskip("torch")


def converted(cells: dict[str, cases.Weights], folder: Path) -> dict[str, Any]:
    """Convert the weights of cells, each under a name of its own; return tensors."""
    weights = {
        f"{cell}/{name}": np.array(value, np.float32)
        for cell, found in cells.items()
        for name, value in found.items()
    }
    ckptparse.write(folder / "m", weights)
    ckptparse.convert(folder / "m", folder / "m.npz", layout="torch")
    with np.load(folder / "m.npz") as found:
        return {name: torch.from_numpy(found[name].copy()) for name in weights}


def load(layer: Any, weights: dict[str, Any], cell: str, ending: str = "_l0") -> None:
    """Give a layer the weights of a cell. Keras's LSTM has one bias, PyTorch's two."""
    bias = weights[f"{cell}/bias"]
    rows = bias if bias.ndim == 2 else torch.stack([bias, torch.zeros_like(bias)])
    found = (weights[f"{cell}/kernel"], weights[f"{cell}/recurrent_kernel"], *rows)
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    with torch.no_grad():
        for kind, value in zip(kinds, found, strict=True):
            getattr(layer, kind + ending).copy_(value)


def outputs(layer: Any) -> Any:
    with torch.no_grad():
        return layer(torch.tensor([cases.INPUT]))[0][0].numpy()


@pytest.mark.parametrize(
    ("kind", "weights", "wanted"),
    [
        ("GRU", cases.GRU, cases.GRU_OUTPUT),
        ("LSTM", cases.LSTM, cases.LSTM_OUTPUT),
        ("RNN", cases.SIMPLE, cases.SIMPLE_OUTPUT),
    ],
)
def test_a_layer_gives_the_outputs_of_keras(
    kind: str, weights: cases.Weights, wanted: Any, tmp_path: Path
) -> None:
    layer = getattr(torch.nn, kind)(2, 2, batch_first=True)
    load(layer, converted({"cell": weights}, tmp_path), "cell")
    assert np.abs(outputs(layer) - np.array(wanted)).max() < 1e-5


def test_a_layer_of_both_directions_gives_the_outputs_of_keras(tmp_path: Path) -> None:
    layer = torch.nn.GRU(2, 2, batch_first=True, bidirectional=True)
    found = converted({"forward": cases.FORWARD, "backward": cases.BACKWARD}, tmp_path)
    load(layer, found, "forward")
    load(layer, found, "backward", "_l0_reverse")
    assert np.abs(outputs(layer) - np.array(cases.BOTH_OUTPUT)).max() < 1e-5
