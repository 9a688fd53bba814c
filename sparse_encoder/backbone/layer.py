"""One layer of a transformer: attention and feed-forward, each with its norm, dropout and residual."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sparse_encoder.backbone.attention import Attention, AttentionContext
from sparse_encoder.backbone.dropout import Dropout
from sparse_encoder.backbone.feed_forward import FeedForward


class CrossAttention(NamedTuple):
    """What a layer looks at a memory with."""

    attention: Attention
    norm: nn.Module


class Layer(nn.Module):
    r"""Apply attention and feed-forward around a residual stream.

    .. math:: h' = n_1(h + a(h)),\; n_2(h' + f(h')) \quad\text{or}\quad h' = h + a(n_1(h)),\; h' + f(n_2(h'))

    With cross-attention, a third block of the same kind stands between the two.

    Args:
        attention: Mixes tokens.
        feed_forward: Transforms each token.
        attention_norm: Before the attention, or behind its sum; None leaves it out.
        feed_forward_norm: The same for the feed-forward block.
        pre_norm: Whether the norms stand before the blocks.
        attention_dropout: On what the attention adds.
        feed_forward_dropout: On what the feed-forward block adds.
        cross: Attention to a memory and its norm; None for a layer without. It drops out as the attention does.
    """

    def __init__(
        self,
        attention: Attention,
        feed_forward: FeedForward,
        *,
        attention_norm: nn.Module | None,
        feed_forward_norm: nn.Module,
        pre_norm: bool = False,
        attention_dropout: float = 0.0,
        feed_forward_dropout: float = 0.0,
        cross: CrossAttention | None = None,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.attention_norm = attention_norm
        self.attention_dropout = Dropout(attention_dropout)
        self.cross_attention = None if cross is None else cross.attention
        self.cross_attention_norm = None if cross is None else cross.norm
        self.feed_forward = feed_forward
        self.feed_forward_norm = feed_forward_norm
        self.feed_forward_dropout = Dropout(feed_forward_dropout)
        self.pre_norm = pre_norm
        self.guards_float16 = False
        """Whether what each block makes is brought back into the range of float16."""

    def forward(self, hidden: Tensor, context: AttentionContext) -> Tensor:
        """Pass hidden states through the layer.

        Args:
            hidden: Hidden states, (B, T, D).
            context: What the attention needs beside them.

        Returns:
            Hidden states, (B, T, D).
        """
        if self.pre_norm:
            normed = hidden if self.attention_norm is None else self.attention_norm(hidden)
            hidden = self._guarded(hidden + self.attention_dropout(self.attention(normed, context)))
            hidden = self._with_memory(hidden, context)
            changed: Tensor = hidden + self.feed_forward_dropout(self.feed_forward(self.feed_forward_norm(hidden)))
            return self._guarded(changed)
        hidden = hidden + self.attention_dropout(self.attention(hidden, context))
        if self.attention_norm is not None:
            hidden = self.attention_norm(hidden)
        hidden = self._with_memory(hidden, context)
        output: Tensor = self.feed_forward_norm(hidden + self.feed_forward_dropout(self.feed_forward(hidden)))
        return output

    def _with_memory(self, hidden: Tensor, context: AttentionContext) -> Tensor:
        """Add what cross-attention sees, in a layer that has it."""
        if self.cross_attention is None or self.cross_attention_norm is None:
            return hidden
        assert context.cross is not None  # the transformer has looked
        if self.pre_norm:
            seen = self.cross_attention.look_at(self.cross_attention_norm(hidden), context.cross)
            added: Tensor = hidden + self.attention_dropout(seen)
            return self._guarded(added)
        summed: Tensor = hidden + self.attention_dropout(self.cross_attention.look_at(hidden, context.cross))
        normed: Tensor = self.cross_attention_norm(summed)
        return normed

    def _guarded(self, hidden: Tensor) -> Tensor:
        """Bring infinities of float16 back into its range, in a layer that does; one is a little below the largest."""
        if not self.guards_float16 or hidden.dtype != torch.float16:
            return hidden
        limit = torch.finfo(torch.float16).max
        largest = torch.where(hidden.isinf().any(), limit - 1000, limit)
        return hidden.clamp(-largest, largest)
