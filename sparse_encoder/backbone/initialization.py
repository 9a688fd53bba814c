"""Random weights, as the families draw them. Draws from torch's global generator, as torch's own layers do."""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sparse_encoder.backbone.attention import Attention
from sparse_encoder.backbone.config import TransformerConfig
from sparse_encoder.backbone.embeddings import Embeddings
from sparse_encoder.backbone.feed_forward import FeedForward
from sparse_encoder.backbone.heads import LinearHead, MaskedLanguageHead, VocabularyHead
from sparse_encoder.backbone.normalization import RMSNorm
from sparse_encoder.backbone.relative_bias import RelativeBias


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
    roles = roles_of(model)
    for module in model.modules():
        initialize_module(module, config, roles)


class Roles(NamedTuple):
    """Modules whose rule depends on their place in the model."""

    residual_writers: frozenset[nn.Module]
    """Their output is added to the residual stream, or starts the head."""
    position_tables: frozenset[nn.Module]
    queries: frozenset[nn.Module] = frozenset()
    """Projections to the queries of attention."""
    distance_tables: frozenset[nn.Module] = frozenset()
    """Biases of attention by distance."""


def roles_of(model: nn.Module) -> Roles:
    """Find the modules of a model whose place decides how they are drawn."""
    writers: set[nn.Module] = set()
    positions: set[nn.Module] = set()
    queries: set[nn.Module] = set()
    distances: set[nn.Module] = set()
    for module in model.modules():
        if isinstance(module, Attention):
            writers.add(module.output)
            if module.qkv is None:
                queries.add(module.q)
        elif isinstance(module, RelativeBias):
            distances.add(module.table)
        elif isinstance(module, FeedForward):
            writers.add(module.down)
        elif isinstance(module, MaskedLanguageHead):
            writers.add(module.dense)
        elif isinstance(module, Embeddings) and module.position is not None:
            positions.add(module.position)
    return Roles(frozenset(writers), frozenset(positions), frozenset(queries), frozenset(distances))


@torch.no_grad()
def initialize_module(module: nn.Module, config: TransformerConfig, roles: Roles) -> None:
    """Fill one module's own parameters as :func:`initialize` says; what it holds inside is left alone.

    Args:
        module: Of a kind without a rule it stays as it is.
        config: The rule.
        roles: Those of the model that it is in.
    """
    if isinstance(module, (nn.LayerNorm, RMSNorm)):
        module.reset_parameters()
        if config.initializer_by_width:
            module.weight.fill_(config.initializer_range)
    elif isinstance(module, (nn.Linear, nn.Conv1d, nn.Embedding)):
        _draw(module.weight, config, smaller=module in roles.residual_writers, width=_width_of(module, config, roles))
        if isinstance(module, (nn.Linear, nn.Conv1d)) and module.bias is not None:
            module.bias.zero_()
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            module.weight[module.padding_idx].zero_()
        if module in roles.position_tables and config.sinusoidal_positions:
            module.weight.copy_(sinusoids(*module.weight.shape))
    elif isinstance(module, VocabularyHead):
        if not config.tie_word_embeddings:
            _draw(module.weight, config, smaller=True)
        if module.bias is not None:
            module.bias.zero_()
        if isinstance(module, LinearHead) and module.logits_bias is not None:
            module.logits_bias.zero_()


def _width_of(module: nn.Module, config: TransformerConfig, roles: Roles) -> int:
    """Return what the deviation of a module's weight is divided by the root of, in families that do so."""
    if not config.initializer_by_width:
        return 1
    if module in roles.distance_tables:
        return config.hidden_size
    if not isinstance(module, nn.Linear):
        return 1
    return module.in_features * (config.head_size if module in roles.queries else 1)


def drawn_rows(
    table: Tensor, added: int, config: TransformerConfig, *, of_head: bool, generator: torch.Generator | None = None
) -> Tensor:
    """Draw rows for a table as :func:`initialize` draws it whole.

    Args:
        table: Rows that are there, (V, E).
        added: How many to draw.
        config: The rule.
        of_head: Whether it is the table of a head, not the word embeddings.
        generator: Of the table's device; None means torch's own.

    Returns:
        Tensor of shape (added, E), and of the table's dtype and device.
    """
    rows = table.new_empty(added, table.shape[1])
    _draw(rows, config, smaller=of_head, generator=generator)
    return rows


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


def _draw(
    weight: Tensor,
    config: TransformerConfig,
    *,
    smaller: bool,
    width: int = 1,
    generator: torch.Generator | None = None,
) -> None:
    deviation = config.initializer_range / sqrt(width)
    if config.initializer_cutoff is None:
        weight.normal_(0.0, deviation, generator=generator)
        return
    if smaller:
        deviation /= sqrt(2.0 * len(config.steps))
    edge = config.initializer_cutoff * deviation
    nn.init.trunc_normal_(weight, std=deviation, a=-edge, b=edge, generator=generator)
