r"""Sum over a text's tokens of their activated vocabulary logits, without the logits.

.. math:: y_{bv} = \sum_{t : m_{bt} = 1} f(w_v \cdot h_{bt} + c_v)

Every token has a gradient here, so the backward is dense; it computes each tile of logits a second time instead of
keeping it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparse_encoder.kernels.activations import activation_named
from sparse_encoder.kernels.tiles import (
    Tile,
    check_projection,
    compute_dtype,
    logit_tiles,
    reduced_dtype,
    tiling_for,
)


def sum_projection(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor, activation: str = "relu"
) -> Tensor:
    """Project tokens on the vocabulary, activate, and add up each term over the unmasked tokens.

    A text without any token has zeros. What lies in padding never matters, not even NaN.

    Args:
        hidden: Token states, (B, T, E).
        weight: Term vectors, (V, E).
        bias: Added to every logit of a term, (V,), or ``None``.
        mask: Nonzero for tokens that count, (B, T).
        activation: Name in :data:`~sparse_encoder.kernels.activations.ACTIVATIONS`.

    Returns:
        Sums, (B, V), in float32 for 16-bit inputs, else in the dtype of ``hidden``.

    Raises:
        ValueError: If a shape or dtype does not fit the others, or the activation is unknown.
    """
    check_projection(hidden, weight, bias, mask)
    activation_named(activation)
    dtype = compute_dtype(hidden, weight)
    with torch.autocast(hidden.device.type, enabled=False):
        tokens = hidden.masked_fill(~mask.bool().unsqueeze(2), 0)
        arguments = (tokens, weight, bias, mask.bool(), activation, dtype)
        summed: Tensor = _SumProjection.apply(*arguments)  # type: ignore[no-untyped-call]
        return summed


def _with_bias(tile: Tile, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return the logits of a tile in the dtype of the sums, (texts, T, terms)."""
    logits = tile.logits.to(dtype)
    return logits if bias is None else logits + bias[tile.terms].to(dtype)


class _SumProjection(torch.autograd.Function):
    """The sum with a backward that computes the logits again."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        mask: Tensor,
        activation: str,
        dtype: torch.dtype,
    ) -> Tensor:
        kept = reduced_dtype(dtype)
        function = activation_named(activation).apply
        summed = hidden.new_empty(hidden.shape[0], weight.shape[0], dtype=kept)
        padding = ~mask.unsqueeze(2)  # (B, T, 1)
        for tile in logit_tiles(hidden.to(dtype), weight, tiling_for(hidden.device, narrow=True)):
            active = function(_with_bias(tile, bias, kept)).masked_fill(padding[tile.texts], 0)
            summed[tile.texts, tile.terms] = active.sum(dim=1)
        ctx.save_for_backward(hidden, weight, bias, mask)
        ctx.activation, ctx.dtype = activation, dtype
        return summed

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401
        gradient: Tensor,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None, None]:
        hidden, weight, bias, mask = ctx.saved_tensors
        kept = reduced_dtype(ctx.dtype)
        slope = activation_named(ctx.activation).slope
        tokens = hidden.to(ctx.dtype)
        grad_hidden = torch.zeros_like(hidden, dtype=kept)
        grad_weight = torch.zeros_like(weight, dtype=kept)
        grad_bias = None if bias is None else torch.zeros_like(bias, dtype=kept)
        padding = ~mask.unsqueeze(2)
        for tile in logit_tiles(tokens, weight, tiling_for(hidden.device, narrow=True)):
            upstream = gradient[tile.texts, tile.terms].to(kept).unsqueeze(1)  # (texts, 1, terms)
            local = slope(_with_bias(tile, bias, kept)).mul_(upstream).masked_fill_(padding[tile.texts], 0)
            flat = local.to(ctx.dtype).flatten(0, 1)  # (texts * T, terms)
            grad_hidden[tile.texts] += (flat @ weight[tile.terms].to(ctx.dtype)).view_as(tokens[tile.texts]).to(kept)
            grad_weight[tile.terms] += (flat.mT @ tokens[tile.texts].flatten(0, 1)).to(kept)
            if grad_bias is not None:
                grad_bias[tile.terms] += local.sum(dim=(0, 1))
        return (
            grad_hidden.to(hidden.dtype),
            grad_weight.to(weight.dtype),
            None if grad_bias is None or bias is None else grad_bias.to(bias.dtype),
            None,
            None,
            None,
        )
