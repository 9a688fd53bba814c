"""Random weights, as the families draw them. Draws from torch's global generator, as torch's own layers do."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn

from sparse_encoder.backbone.attention import Attention
from sparse_encoder.backbone.config import TransformerConfig
from sparse_encoder.backbone.embeddings import Embeddings
from sparse_encoder.backbone.feed_forward import FeedForward
from sparse_encoder.backbone.heads import MaskedLanguageHead


@torch.no_grad()
def initialize(model: nn.Module, config: TransformerConfig) -> None:
    """Fill a model with random weights.

    Matrices and tables are normal, biases and padding rows zero, norms do nothing.

    With ``initializer_cutoff`` the normal is cut off there, and matrices whose output is added to the residual stream
    (or starts the head) are smaller by the square root of twice the depth. With ``sinusoidal_positions`` the position
    table is not random.

    Args:
        model: Its parameters are overwritten.
        config: The rule.
    """
    smaller = _residual_writers(model) if config.initializer_cutoff is not None else set()
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.reset_parameters()
        elif isinstance(module, (nn.Linear, nn.Embedding)):
            _draw(module.weight, config, smaller=module in smaller)
            if isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.zero_()
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx].zero_()
        elif isinstance(module, MaskedLanguageHead):
            if not config.tie_word_embeddings:
                _draw(module.weight, config, smaller=config.initializer_cutoff is not None)
            if module.bias is not None:
                module.bias.zero_()
    for module in model.modules():
        if isinstance(module, Embeddings) and module.position is not None and config.sinusoidal_positions:
            module.position.weight.copy_(sinusoids(*module.position.weight.shape))


def sinusoids(num_positions: int, size: int) -> Tensor:
    r"""Compute a position table of waves.

    .. math:: \sin(p \, 10000^{-2i/E}), \; \cos(p \, 10000^{-2i/E})

    in turns, for pairs of features i.

    Source: Vaswani et al., 2017, https://arxiv.org/abs/1706.03762.

    Args:
        num_positions: Rows, P.
        size: Columns, E.

    Returns:
        Tensor of shape (P, E).
    """
    features = torch.arange(size, dtype=torch.float64)
    angles = torch.arange(num_positions, dtype=torch.float64)[:, None] / 10_000 ** (features // 2 * 2 / size)
    return torch.where(features % 2 == 0, angles.sin(), angles.cos()).float()


def _residual_writers(model: nn.Module) -> set[nn.Module]:
    writers: set[nn.Module] = set()
    for module in model.modules():
        if isinstance(module, Attention):
            writers.add(module.output)
        elif isinstance(module, FeedForward):
            writers.add(module.down)
        elif isinstance(module, MaskedLanguageHead):
            writers.add(module.dense)
    return writers


def _draw(weight: Tensor, config: TransformerConfig, *, smaller: bool) -> None:
    deviation = config.initializer_range
    if smaller:
        deviation /= sqrt(2.0 * len(config.steps))
    if config.initializer_cutoff is None:
        weight.normal_(0.0, deviation)
    else:
        edge = config.initializer_cutoff * deviation
        nn.init.trunc_normal_(weight, std=deviation, a=-edge, b=edge)
