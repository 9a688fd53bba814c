"""Self-attention over padded batches, in a fast form and a plain twin. Knows nothing of layers, norms and residuals."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_encoder.backbone.disentangled import PositionScores, RelativeRows, attend_with_scores
from sparse_encoder.backbone.dropout import Dropout
from sparse_encoder.backbone.dropout_attention import dropout_attention
from sparse_encoder.backbone.rope import Rotation, rotate


class AttentionContext(NamedTuple):
    """What the layers of one kind share in one forward pass."""

    bias: Tensor
    """Added to the scores: 0 where a token may look, hugely negative elsewhere; (B, 1, 1, T) or (B, 1, T, T).
    A relative bias is in it, for all heads that there were at first: (B, H, T, T)."""
    rotation: Rotation | None
    """Angles of the places, for rotary positions."""
    head_mask: Tensor | None = None
    """What each head's part is multiplied with, all heads that there were at first, (1 or B, H, 1, 1)."""
    relative: RelativeRows | None = None
    """Relative positions, where contents are scored against places."""


def attention_bias(attention_mask: Tensor, dtype: torch.dtype, window: int | None = None) -> Tensor:
    """Turn a padding mask into numbers that are added to attention scores.

    There is always a bias, also when nothing is padded: then a text's numbers do not depend on its neighbours. It is
    finite, so that a text of padding only gives no NaN.

    Args:
        attention_mask: 1 or True for a token, 0 for padding, (B, T).
        dtype: Of the scores.
        window: Largest distance that is seen, in tokens; None sees everything.

    Returns:
        Tensor of the given dtype, (B, 1, 1, T), or (B, 1, T, T) when the window hides something.
    """
    device = attention_mask.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    visible = attention_mask.bool()[:, None, None, :]  # (B, 1, 1, T)
    num_tokens = attention_mask.shape[1]
    if window is not None and window < num_tokens - 1:
        places = torch.arange(num_tokens, device=attention_mask.device)
        visible = visible & ((places[:, None] - places).abs() <= window)  # (B, 1, T, T)
    hidden = torch.finfo(dtype).min
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, hidden)


def sdpa_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, dropout: float) -> Tensor:
    """Attend with fused kernels; arguments and result as :func:`eager_attention`."""
    if dropout > 0 and q.device.type == "cpu":  # torch's kernel for the CPU knows no dropout
        return dropout_attention(q, k, v, bias, dropout)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)


def eager_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, dropout: float) -> Tensor:
    r"""Attend by the formula, to check the fused kernels against.

    .. math:: \operatorname{softmax}(q k^T / \sqrt K + \text{bias}) \, v

    Args:
        q: Queries, (B, H, T, K).
        k: Keys, (B, H, T, K).
        v: Values, (B, H, T, K).
        bias: Added to the scores, (B, 1 or H, 1 or T, T).
        dropout: Share of the attention probabilities that is dropped.

    Returns:
        Attended values, (B, H, T, K).
    """
    scores = (q @ k.mT) * q.shape[-1] ** -0.5 + bias  # (B, H, T, T)
    probabilities = scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(v.dtype)
    return F.dropout(probabilities, dropout, training=dropout > 0) @ v


ATTENTIONS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]] = {
    "eager": eager_attention,
    "sdpa": sdpa_attention,
}


class Attention(nn.Module):
    """Let every token of a text look at the others.

    Source: Vaswani et al., 2017, https://arxiv.org/abs/1706.03762.

    Args:
        hidden_size: Width of the hidden states, D.
        num_heads: Heads, H; D is a multiple of it.
        bias: Whether the projections have a bias.
        fused_qkv: Whether queries, keys and values come out of one matrix, (3D, D), in this order.
        dropout: On the attention probabilities, in training.
        implementation: A name in :data:`ATTENTIONS`.
        positions: Scores places as well; then the projections are not fused.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        *,
        bias: bool = True,
        fused_qkv: bool = False,
        dropout: float = 0.0,
        implementation: str = "sdpa",
        positions: PositionScores | None = None,
    ) -> None:
        super().__init__()
        if implementation not in ATTENTIONS:
            raise ValueError(f"unknown attention {implementation!r}; choose from {sorted(ATTENTIONS)}")
        self.num_heads = num_heads
        """Heads that are there."""
        self.head_size = hidden_size // num_heads
        self.pruned_heads: tuple[int, ...] = ()
        """Numbers of the heads that were taken out."""
        self.dropout = Dropout(dropout)  # a module, so that scripts which set `p` on all of them reach this one
        self.attend = ATTENTIONS[implementation]
        if fused_qkv:
            self.qkv: nn.Linear | None = nn.Linear(hidden_size, 3 * hidden_size, bias=bias)
        else:
            self.qkv = None
            self.q = nn.Linear(hidden_size, hidden_size, bias=bias)
            self.k = nn.Linear(hidden_size, hidden_size, bias=bias)
            self.v = nn.Linear(hidden_size, hidden_size, bias=bias)
        self.output = nn.Linear(hidden_size, hidden_size, bias=bias)
        self.positions = positions

    @property
    def kept_heads(self) -> list[int]:
        """First numbers of the heads that are there, in order."""
        return [head for head in range(self.num_heads + len(self.pruned_heads)) if head not in self.pruned_heads]

    @property
    def all_head_size(self) -> int:
        """Width of all heads together."""
        return self.num_heads * self.head_size

    def forward(self, hidden: Tensor, context: AttentionContext) -> Tensor:
        """Mix the tokens of each text.

        Args:
            hidden: Hidden states, (B, T, D).
            context: Who sees whom, and the angles of the places.

        Returns:
            Mixed hidden states, (B, T, D).
        """
        num_texts, num_tokens, _ = hidden.shape
        joined = (self.q(hidden), self.k(hidden), self.v(hidden)) if self.qkv is None else self.qkv(hidden).chunk(3, -1)
        q, k, v = (part.view(num_texts, num_tokens, self.num_heads, -1) for part in joined)  # (B, T, H, K)
        if context.rotation is not None:
            q, k = rotate(q, context.rotation), rotate(k, context.rotation)
        mixed = self._attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), context)
        if context.head_mask is not None:  # one number a head: the same product as with its probabilities
            mask = context.head_mask[:, self.kept_heads] if self.pruned_heads else context.head_mask
            mixed = mixed * mask.to(mixed.dtype)
        output: Tensor = self.output(mixed.transpose(1, 2).reshape(num_texts, num_tokens, self.all_head_size))
        return output

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext) -> Tensor:
        """Attend by contents, and by places where those are scored; shapes as :func:`eager_attention`."""
        dropout, bias = self.dropout.p if self.training else 0.0, context.bias
        if self.pruned_heads and bias.shape[1] > 1:
            bias = bias[:, self.kept_heads]
        if self.positions is None or context.relative is None:
            return self.attend(q, k, v, bias, dropout)
        places = self.positions.project(context.relative.rows, self.q, self.k, self.head_size)
        score = partial(self.positions, places=places, row_of=context.relative.row_of)
        return attend_with_scores(self.attend, q * self.positions.factor, k, v, bias, dropout, score=score)
