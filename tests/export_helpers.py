"""Tiny models to export, of one layer where that shows all, and a graph run by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from backbone_helpers import TINY_CONFIGS, randomise
from model_helpers import bert_config, write_masked_language_model

from sparse_encoder import SparseEncoder
from sparse_encoder.backbone import MaskedLanguageModel
from sparse_encoder.modules import SpladePooling, Transformer

SHALLOW = {
    "bert": {"num_hidden_layers": 1},
    "modernbert": {"num_hidden_layers": 2},
    "deberta-v2": {"num_hidden_layers": 1},
    "gpt2": {"n_layer": 1},
    "llama": {"num_hidden_layers": 1},
}


def shallow(configs: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    """Return a config of few layers."""
    return {**configs[name], **SHALLOW[name]}


def tiny_language_model(name: str = "bert") -> MaskedLanguageModel:
    """Return a random model whose every weight shows."""
    model = MaskedLanguageModel.from_config(shallow(TINY_CONFIGS, name))
    randomise(model)
    return model.eval()


def tiny_encoder(folder: Path, *, strategy: str = "max", activation: str = "relu") -> SparseEncoder:
    """Return a sparse encoder of one layer, from a checkpoint written into the folder."""
    write_masked_language_model(folder, config=bert_config(layers=1))
    modules = [
        Transformer(str(folder), transformer_task="fill-mask"),
        SpladePooling(strategy, activation_function=activation),
    ]
    return SparseEncoder(modules=modules)


def run_graph(path: Path, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Run a graph on onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    values = session.run(names, {name: tensor.numpy() for name, tensor in inputs.items()})
    return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}
