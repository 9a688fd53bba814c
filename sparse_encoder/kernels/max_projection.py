r"""Maximum over a text's tokens of their vocabulary logits, without the logits.

.. math:: y_{bv} = \max_{t : m_{bt} = 1} \; w_v \cdot h_{bt} + c_v

The projection is computed in tiles and reduced to (B, V) at once. Training remembers the winning token of each entry;
the gradient flows to that token alone, so the backward is two products with a sparse matrix whose entries are the
terms that have a gradient. Knows nothing of the activation that follows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparse_encoder.kernels.segments import segment_product
from sparse_encoder.kernels.tiles import check_projection, compute_dtype, logit_tiles, reduced_dtype, tiling_for


def max_projection(hidden: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor) -> Tensor:
    """Project tokens on the vocabulary and keep the largest logit of each term over the unmasked tokens.

    A tie between tokens is won by the first of them, which gets the whole gradient. A text without any token has
    ``-inf`` everywhere, the maximum of nothing, and passes no gradient on. What lies in padding never matters, not
    even NaN. Under autocast the products run in its dtype.

    Args:
        hidden: Token states, (B, T, E).
        weight: Term vectors, (V, E).
        bias: Added to every logit of a term, (V,), or ``None``.
        mask: Nonzero for tokens that count, (B, T).

    Returns:
        Largest logits, (B, V), in float32 for 16-bit inputs, else in the dtype of ``hidden``.

    Raises:
        ValueError: If a shape or dtype does not fit the others.
    """
    check_projection(hidden, weight, bias, mask)
    dtype = compute_dtype(hidden, weight)
    mask = mask.bool()
    with torch.autocast(hidden.device.type, enabled=False):
        if torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad):
            largest: Tensor = _MaxProjection.apply(hidden, weight, mask, dtype)  # type: ignore[no-untyped-call]
        else:
            largest = _largest_logits(_without_padding(hidden, mask).to(dtype), weight)
        if bias is not None:
            # adding a constant is monotone also in rounded arithmetic: the maximum commutes with it exactly
            largest = largest + bias.to(largest.dtype)
        return largest.masked_fill(~mask.any(dim=1, keepdim=True), float("-inf"))


def _without_padding(hidden: Tensor, mask: Tensor) -> Tensor:
    """Replace padding by the text's first token, which changes no maximum; (B, T, E)."""
    first = mask.int().argmax(dim=1)  # (B,)
    token = hidden[torch.arange(hidden.shape[0], device=hidden.device), first]  # (B, E)
    return torch.where(mask.unsqueeze(2), hidden, token.unsqueeze(1))


def _largest_logits(hidden: Tensor, weight: Tensor) -> Tensor:
    """Return the largest logit of each text and term, (B, V)."""
    largest = hidden.new_empty(hidden.shape[0], weight.shape[0], dtype=reduced_dtype(hidden.dtype))
    for tile in logit_tiles(hidden, weight, tiling_for(hidden.device)):
        largest[tile.texts, tile.terms] = tile.logits.amax(dim=1).to(largest.dtype)
    return largest


class _Winners(NamedTuple):
    """The largest logits and which token each came from, both (B, V); tokens as int32."""

    logits: Tensor
    tokens: Tensor


def _winning_tokens(hidden: Tensor, weight: Tensor) -> _Winners:
    """Return the largest logits with the first token that reaches each."""
    shape = (hidden.shape[0], weight.shape[0])
    largest = hidden.new_empty(shape, dtype=reduced_dtype(hidden.dtype))
    winners = hidden.new_empty(shape, dtype=torch.int32)
    for tile in logit_tiles(hidden, weight, tiling_for(hidden.device, narrow=True)):
        values, tokens = tile.logits.max(dim=1)
        largest[tile.texts, tile.terms] = values.to(largest.dtype)
        winners[tile.texts, tile.terms] = tokens.to(torch.int32)
    return _Winners(largest, winners)


class _MaxProjection(torch.autograd.Function):
    """The maximum with its sparse backward; autograd adds the bias outside."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, mask: Tensor, dtype: torch.dtype) -> Tensor:  # noqa: ANN401
        """Reduce the projection and remember the winners."""
        winners = _winning_tokens(_without_padding(hidden, mask).to(dtype), weight)
        ctx.save_for_backward(hidden, weight, mask, winners.tokens)
        return winners.logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # noqa: ANN401
        """Send the gradient of each term to the token that won it."""
        hidden, weight, mask, winners = ctx.saved_tensors
        num_texts, num_tokens, _ = hidden.shape
        gradient = gradient.masked_fill(~mask.any(dim=1, keepdim=True), 0)
        terms, texts = gradient.mT.nonzero(as_tuple=True)  # ascending by term
        values = gradient[texts, terms].to(reduced_dtype(hidden.dtype))
        tokens = _flat_tokens(winners, mask, texts, terms)
        grad_hidden = grad_weight = None
        if ctx.needs_input_grad[1]:
            flat = hidden.reshape(num_texts * num_tokens, -1)
            product = segment_product(terms, tokens, values, flat, num_rows=weight.shape[0])
            grad_weight = product.to(weight.dtype)
        if ctx.needs_input_grad[0]:
            tokens, order = tokens.sort(stable=True)
            product = segment_product(tokens, terms[order], values[order], weight, num_rows=num_texts * num_tokens)
            grad_hidden = product.view_as(hidden).to(hidden.dtype)
        return grad_hidden, grad_weight, None, None


def _flat_tokens(winners: Tensor, mask: Tensor, texts: Tensor, terms: Tensor) -> Tensor:
    """Return the winners of some entries as rows of the flattened batch, (n,); padding stands for the first token."""
    tokens = winners[texts, terms].long()
    first = mask.int().argmax(dim=1)
    return texts * mask.shape[1] + torch.where(mask[texts, tokens], tokens, first[texts])
