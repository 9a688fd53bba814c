r"""Attention with dropout on the CPU, without the probabilities of the whole batch.

.. math:: \frac{1}{1 - p} \bigl( M \odot \operatorname{softmax}(q k^T / \sqrt K + \text{bias}) \bigr) \, v

torch's fused kernel has no dropout on the CPU; what runs instead keeps several (B, H, T, S) matrices for the backward.
Here a few texts are attended at a time, the backward computes their probabilities a second time, and only the mask M
is kept, one byte each. Axes: B texts, H heads, T tokens, S that are looked at, K head size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparse_encoder.backbone.dropout import dropped_share, keep_mask

TILE_PROBABILITIES = 1 << 20
"""Most probabilities at a time, 4 MB in float32: they stay in the cache from the scores to the product."""


def dropout_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, dropout: float, *, factor: float | None = None
) -> Tensor:
    """Attend with dropout.

    Args:
        q: Queries, (B, H, T, K).
        k: Keys, (B, H, S, K), of as many tokens, or those of a past and a memory.
        v: Values, (B, H, S, K).
        bias: Added to the scores, (B, 1 or H, 1 or T, S).
        dropout: Share of the probabilities that is dropped, in (0, 1).
        factor: What scores are multiplied with in place of one over the root of K.

    Returns:
        Attended values, (B, H, T, K). The mask is drawn from torch's generator.
    """
    kept = keep_mask((*q.shape[:3], k.shape[2]), dropout)
    scale = 1 / (1 - dropped_share(dropout))
    factor = q.shape[-1] ** -0.5 if factor is None else factor
    with torch.autocast("cpu", enabled=False):
        q, k, bias = q.to(v.dtype), k.to(v.dtype), bias.to(v.dtype)
        attended: Tensor = _DropoutAttention.apply(q, k, v, bias, kept, scale, factor)  # type: ignore[no-untyped-call]
    return attended


def _tiles(shape: torch.Size, num_keys: int) -> Iterator[slice]:
    """Cut the texts of (B, H, T, K) queries into slices."""
    num_texts, num_heads, num_tokens, _ = shape
    step = max(1, TILE_PROBABILITIES // (num_heads * num_tokens * num_keys))
    return (slice(start, start + step) for start in range(0, num_texts, step))


def _probabilities(q: Tensor, k: Tensor, bias: Tensor, factor: float) -> Tensor:
    """Return softmax(factor q k^T + bias) in float32 or wider, (b, H, T, S)."""
    scores = (q @ k.mT).mul_(factor).add_(bias)
    return (scores if scores.dtype == torch.float64 else scores.float()).softmax(dim=-1)


class _DropoutAttention(torch.autograd.Function):
    """The formula with its gradient, a few texts at a time."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401  (torch's context has no public type)
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor,
        kept: Tensor,
        scale: float,
        factor: float,
    ) -> Tensor:
        """Attend, and remember only what went in and the mask."""
        ctx.save_for_backward(q, k, v, bias, kept)
        ctx.scale, ctx.factor = scale, factor
        attended = torch.empty_like(q)
        for texts in _tiles(q.shape, k.shape[2]):
            probabilities = _probabilities(q[texts], k[texts], bias[texts], factor).mul_(kept[texts])
            attended[texts] = (probabilities.to(v.dtype) @ v[texts]).mul_(scale)
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Compute the probabilities a second time, and send the gradient through them."""
        q, k, v, bias, kept = ctx.saved_tensors
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        grad_bias = torch.zeros_like(bias) if ctx.needs_input_grad[3] else None
        factor: float = ctx.factor
        for texts in _tiles(q.shape, k.shape[2]):
            probabilities = _probabilities(q[texts], k[texts], bias[texts], factor)
            scaled = gradient[texts] * ctx.scale
            grad_v[texts] = (probabilities * kept[texts]).to(v.dtype).mT @ scaled
            change = (scaled @ v[texts].mT).to(probabilities.dtype).mul_(kept[texts])
            mean = (change * probabilities).sum(dim=-1, keepdim=True)  # of the softmax's gradient, (b, H, T, 1)
            scores = change.sub_(mean).mul_(probabilities)
            if grad_bias is not None:
                grad_bias[texts] = scores.sum_to_size(grad_bias[texts].shape)
            scores = scores.mul_(factor).to(q.dtype)
            grad_q[texts] = scores @ k[texts]
            grad_k[texts] = scores.mT @ q[texts]
        return grad_q, grad_k, grad_v, grad_bias, None, None, None
