"""Tiny models to export, of one layer where that shows all, and a graph run by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from backbone_helpers import TINY_CONFIGS, randomise
from model_helpers import bert_config, write_masked_language_model

from sparse_encoder import SparseEncoder
from sparse_encoder.backbone import MaskedLanguageModel
from sparse_encoder.export.graph import Graph
from sparse_encoder.export.state import traceable
from sparse_encoder.export.tracing import _capture, quiet
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


def check_trace(graph: Graph) -> None:
    """Hold what torch.export makes of a graph's module against the model on every case, all of other shapes.

    That is the first half of an export and a quarter of its time; the other half turns operators into others.
    """
    with quiet(), traceable(graph.module):
        run = _capture(graph).module(check_guards=False)
    assert len(graph.cases) > 2
    for case in graph.cases:
        with torch.no_grad():
            expected = graph.reference(case.inputs)
            found = run(*(case.inputs[name] for name in graph.inputs))
        found = dict(zip(graph.outputs, found, strict=True))
        torch.testing.assert_close(found, {name: expected[name] for name in found}, atol=1e-4, rtol=1e-4)
