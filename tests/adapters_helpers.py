"""Tiny models with adapters whose numbers make a difference."""

from __future__ import annotations

from typing import Any

import torch
from backbone_helpers import TINY_CONFIGS, batch, randomise
from torch import Tensor, nn

from sparse_encoder.backbone import LoraConfig, MaskedLanguageModel
from sparse_encoder.backbone.adapters.book import COPIES
from sparse_encoder.backbone.adapters.layer import LowRank


def model_named(name: str = "bert", seed: int = 0, **config: Any) -> MaskedLanguageModel:  # noqa: ANN401
    """Make a model whose weights show in its logits."""
    model = MaskedLanguageModel.from_config({**TINY_CONFIGS[name], **config}).eval()
    randomise(model, seed)
    return model


def inputs_of(model: MaskedLanguageModel) -> dict[str, Tensor]:
    """Make a batch."""
    return batch(model.config.num_token_types, pad=model.config.pad_token_id or 0)


def adapted(name: str = "bert", adapter: str | None = None, **options: Any) -> MaskedLanguageModel:  # noqa: ANN401
    """Make a model with one adapter that changes its logits."""
    model = model_named(name)
    model.add_adapter(LoraConfig(**{"r": 2, "lora_alpha": 6, **options}), adapter)
    randomise_adapters(model)
    return model


@torch.no_grad()
def randomise_adapters(model: nn.Module, seed: int = 1) -> None:
    """Give the active adapters' numbers values that show."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, LowRank):
            for name in module.active:
                for part in (module.lora_A[name], module.lora_B[name]):
                    part.copy_(0.5 * torch.randn(part.shape, generator=generator))
    for name, parameter in model.named_parameters():
        if name.startswith(f"{COPIES}.") and "@base" not in name:
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))


def logits(model: MaskedLanguageModel) -> Tensor:
    """Run a model on its batch without gradients."""
    with torch.no_grad():
        output: Tensor = model(**inputs_of(model))
    return output
