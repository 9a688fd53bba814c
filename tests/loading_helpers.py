"""Saved tiny models to load, and ways to change what is in their files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from backbone_helpers import TINY_CONFIGS, VARIANTS, randomise
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sparse_encoder.backbone import MaskedLanguageModel

CONFIGS = {**TINY_CONFIGS, **VARIANTS}
WEIGHTS = "model.safetensors"
WORDS, DECODER = "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"
BIAS, BIAS_COPY = "cls.predictions.bias", "cls.predictions.decoder.bias"
DENSE = "bert.encoder.layer.0.output.dense.bias"
Change = Callable[[dict[str, Tensor]], object]


def made(name: str = "bert", seed: int = 0, **config: Any) -> MaskedLanguageModel:  # noqa: ANN401
    """Make a model whose weights make a difference."""
    return _randomised({**CONFIGS[name], **config}, seed)


def saved(folder: Path, name: str = "bert", **config: Any) -> MaskedLanguageModel:  # noqa: ANN401
    """Save a model whose weights make a difference; returns it."""
    model = _randomised({**CONFIGS[name], **config})
    model.save_pretrained(folder)
    return model


def _randomised(config: dict[str, Any], seed: int = 0) -> MaskedLanguageModel:
    model = MaskedLanguageModel.from_config(config).eval()
    randomise(model, seed)
    return model


def change(folder: Path, by: Change, name: str = WEIGHTS) -> None:
    """Change the tensors of a file."""
    tensors = load_file(folder / name)
    by(tensors)
    save_file(tensors, folder / name, {"format": "pt"})


def renamed(old: str, new: str) -> Change:
    """Return a change that replaces a part of every name."""

    def rename(tensors: dict[str, Tensor]) -> None:
        for key in list(tensors):
            tensors[key.replace(old, new)] = tensors.pop(key)

    return rename


def assert_same(one: nn.Module, other: nn.Module) -> None:
    """Compare the parameters of two models bit by bit."""
    first, second = one.state_dict(), other.state_dict()
    assert list(first) == list(second)
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
