"""Attention over padded batches, in a fast form and a plain twin. Knows nothing of layers and residuals.

Axes: B texts, H heads, T tokens that look, S tokens that are looked at (T, or P + T with a past of P), K head size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_encoder.backbone.disentangled import PositionScores, RelativeRows, attend_with_scores
from sparse_encoder.backbone.dropout import Dropout
from sparse_encoder.backbone.dropout_attention import dropout_attention
from sparse_encoder.backbone.normalization import RMSNorm
from sparse_encoder.backbone.rope import Rotation, rotate
from sparse_encoder.backbone.tracing import is_traced

if TYPE_CHECKING:
    from sparse_encoder.backbone.cache import EncoderDecoderCache, KeyValueCache


Keep = Callable[[Tensor], object]


class AttentionContext(NamedTuple):
    """What the layers of one kind share in one forward pass."""

    bias: Tensor
    """Added to the scores: 0 where a token may look, hugely negative elsewhere; (B, 1, 1, S) or (B, 1, T, S).
    A relative bias is in it, for all heads that there were at first: (B, H, T, S)."""
    rotation: Rotation | None
    """Angles of the places, for rotary positions."""
    head_mask: Tensor | None = None
    """What each head's part is multiplied with, all heads that there were at first, (1 or B, H, 1, 1)."""
    relative: RelativeRows | None = None
    """Relative positions, where contents are scored against places."""
    step: int = 0
    """Number of the step through a layer, which a cache goes by."""
    cache: KeyValueCache | None = None
    """Keys and values of the tokens before, which takes in the new ones."""
    keep: Keep | None = None
    """Takes the attention probabilities, (B, H, T, S) of each step; None for nobody who wants them."""
    cross: MemoryContext | None = None
    """What cross-attention needs, in a layer that has it."""


class MemoryContext(NamedTuple):
    """What the layers share that look at a memory, the hidden states of an encoder."""

    bias: Tensor
    """Added to the scores: 0 for a token of the memory, hugely negative for padding, (B, 1, 1, S)."""
    memory: Tensor | None
    """Hidden states, (B, S, D); None when the cache has their keys and values."""
    cache: EncoderDecoderCache | None = None
    step: int = 0
    keep: Keep | None = None
    """As in :class:`AttentionContext`."""


def attention_bias(
    attention_mask: Tensor,
    dtype: torch.dtype,
    window: int | None = None,
    *,
    num_queries: int | None = None,
    num_columns: int | None = None,
    causal: bool = False,
) -> Tensor:
    """Turn a padding mask into numbers that are added to attention scores.

    There is always a bias, also when nothing is padded: then a text's numbers do not depend on its neighbours. It is
    finite, so that a text of padding only gives no NaN; and in a causal one of several queries a token that would see
    nothing, such as padding before a text, sees itself, so that it has no wild states.

    Args:
        attention_mask: 1 or True for a token, 0 for padding, (B, S).
        dtype: Of the scores.
        window: Largest distance that is seen, in tokens; None sees everything.
        num_queries: Tokens that look, the last T of the mask; None: all.
        num_columns: Keys that there are; those beyond the mask are hidden. None: as the mask has.
        causal: Hide what comes behind the token that looks.

    Returns:
        Tensor of the given dtype, (B, 1, 1, S), or (B, 1, T, S) when the window or the order hides something.
    """
    device = attention_mask.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    visible = attention_mask.bool()[:, None, None, :]  # (B, 1, 1, S)
    num_tokens = attention_mask.shape[1]
    if num_columns is not None and num_columns != num_tokens:
        visible = F.pad(visible, (0, num_columns - num_tokens))
    if causal:
        visible = _hide_later(visible, num_tokens, num_tokens if num_queries is None else num_queries, window)
    elif window is not None and window < num_tokens - 1:
        places = torch.arange(num_tokens, device=attention_mask.device)
        visible = visible & ((places[:, None] - places).abs() <= window)  # (B, 1, T, T)
    hidden = torch.finfo(dtype).min
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, hidden)


def _hide_later(visible: Tensor, num_tokens: int, num_queries: int, window: int | None) -> Tensor:
    """Hide from the last tokens what comes behind each, and what lies before its window.

    Args:
        visible: (B, 1, 1, S).
        num_tokens: Old and new ones.
        num_queries: New ones, T.
        window: Largest distance that is seen; None for all.
    """
    if not is_traced():
        window = None if window is not None and window >= num_tokens - 1 else window
        if num_queries == 1 and window is None:
            return visible
    columns = torch.arange(visible.shape[-1], device=visible.device)
    places = torch.arange(num_tokens - num_queries, num_tokens, device=visible.device)[:, None]  # (T, 1)
    seen = columns <= places
    if window is not None:
        seen = seen & (columns >= places - window)
    seen = visible & seen  # (B, 1, T, S)
    return seen | ((columns == places) & ~seen.any(dim=-1, keepdim=True))


class Attend(Protocol):
    """Mixes values; see :func:`eager_attention`."""

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, dropout: float, *, scale: float | None = None
    ) -> Tensor:
        """Return attended values, (B, H, T, K)."""


def sdpa_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, dropout: float, *, scale: float | None = None
) -> Tensor:
    """Attend with fused kernels; arguments and result as :func:`eager_attention`."""
    if dropout > 0 and q.device.type == "cpu":  # torch's kernel for the CPU knows no dropout
        return dropout_attention(q, _for_all_heads(k, q), _for_all_heads(v, q), bias, dropout, factor=scale)
    shared = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout, scale=scale, enable_gqa=shared)


def eager_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, dropout: float, *, scale: float | None = None
) -> Tensor:
    r"""Attend by the formula, to check the fused kernels against.

    .. math:: \operatorname{softmax}(s \, q k^T + \text{bias}) \, v

    Args:
        q: Queries, (B, H, T, K).
        k: Keys, (B, H, S, K), or fewer heads, each for several of the queries.
        v: Values, of the shape of the keys.
        bias: Added to the scores, (B, 1 or H, 1 or T, S).
        dropout: Share of the attention probabilities that is dropped.
        scale: What the scores are multiplied with, s; None: one over the root of K.

    Returns:
        Attended values, (B, H, T, K).
    """
    probabilities = attention_probabilities(q, k, bias, scale=scale).to(v.dtype)
    return F.dropout(probabilities, dropout, training=dropout > 0) @ _for_all_heads(v, q)


def attention_probabilities(q: Tensor, k: Tensor, bias: Tensor, *, scale: float | None = None) -> Tensor:
    """Return how much each token looks at each, in float32 or wider, (B, H, T, S); as :func:`eager_attention`."""
    scores = (q @ _for_all_heads(k, q).mT) * (q.shape[-1] ** -0.5 if scale is None else scale) + bias  # (B, H, T, S)
    return scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))


def _for_all_heads(shared: Tensor, q: Tensor) -> Tensor:
    """Repeat keys or values, (B, H', S, K), so that each head of queries has its own, (B, H, S, K)."""
    num_texts, num_heads, num_tokens, head_size = shared.shape
    repeats = q.shape[1] // num_heads
    if repeats == 1:
        return shared
    repeated = shared[:, :, None].expand(num_texts, num_heads, repeats, num_tokens, head_size)
    return repeated.reshape(num_texts, num_heads * repeats, num_tokens, head_size)


ATTENTIONS: dict[str, Attend] = {
    "eager": eager_attention,
    "sdpa": sdpa_attention,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadOptions:
    """Say in what heads differ from the usual; checked by the config that has the same fields."""

    num_kv_heads: int | None = None
    """Heads of keys and values; None: as many as of queries."""
    head_size: int | None = None
    """K; None: hidden size by heads."""
    scale: float | None = None
    """What scores are multiplied with; None: one over the root of K."""
    norm_eps: float | None = None
    """Given, queries and keys are normalised head by head by their root mean square."""
    output_bias: bool | None = None
    """Whether the last projection has a bias; None: as the others."""


PLAIN_HEADS = HeadOptions()


class Attention(nn.Module):
    """Let every token of a text look at the others.

    Source: Vaswani et al., 2017, https://arxiv.org/abs/1706.03762.

    Args:
        hidden_size: Width of the hidden states, D.
        num_heads: Heads of queries, H.
        bias: Whether the projections have a bias.
        fused_qkv: Whether queries, keys and values come out of one matrix, (3D, D), in this order.
        dropout: On the attention probabilities, in training.
        implementation: A name in :data:`ATTENTIONS`.
        positions: Scores places as well; then the projections are not fused.
        heads: In what they differ from the usual.
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
        heads: HeadOptions = PLAIN_HEADS,
    ) -> None:
        super().__init__()
        self.set_implementation(implementation)
        self.num_heads = num_heads
        """Heads that are there."""
        self.num_kv_heads = num_heads if heads.num_kv_heads is None else heads.num_kv_heads
        self.head_size = hidden_size // num_heads if heads.head_size is None else heads.head_size
        self.scale = heads.scale
        self.pruned_heads: tuple[int, ...] = ()
        """Numbers of the heads that were taken out."""
        self.dropout = Dropout(dropout)  # a module, so that scripts which set `p` on all of them reach this one
        if fused_qkv:
            self.qkv: nn.Linear | None = nn.Linear(hidden_size, 3 * self.all_head_size, bias=bias)
        else:
            self.qkv = None
            self.q = nn.Linear(hidden_size, self.all_head_size, bias=bias)
            self.k = nn.Linear(hidden_size, self.num_kv_heads * self.head_size, bias=bias)
            self.v = nn.Linear(hidden_size, self.num_kv_heads * self.head_size, bias=bias)
        output_bias = bias if heads.output_bias is None else heads.output_bias
        self.output = nn.Linear(self.all_head_size, hidden_size, bias=output_bias)
        self.positions = positions
        self.q_norm = None if heads.norm_eps is None else RMSNorm(self.head_size, eps=heads.norm_eps)
        self.k_norm = None if heads.norm_eps is None else RMSNorm(self.head_size, eps=heads.norm_eps)

    def set_implementation(self, implementation: str) -> None:
        """Compute in another way from now on.

        Args:
            implementation: A name in :data:`ATTENTIONS`.

        Raises:
            ValueError: If there is none of the name.
        """
        if implementation not in ATTENTIONS:
            raise ValueError(f"unknown attention {implementation!r}; choose from {sorted(ATTENTIONS)}")
        self.attend = ATTENTIONS[implementation]

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
        joined = (self.q(hidden), self.k(hidden), self.v(hidden)) if self.qkv is None else self.qkv(hidden).chunk(3, -1)
        q, k, v = (self._by_head(part) for part in joined)  # (B, T, H, K)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if context.rotation is not None:
            q, k = rotate(q, context.rotation), rotate(k, context.rotation)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if context.cache is not None:
            k, v = context.cache.update(k, v, context.step)
        mixed = self._attend(q, k, v, context)
        if context.head_mask is not None:  # one number a head: the same product as with its probabilities
            mask = context.head_mask[:, self.kept_heads] if self.pruned_heads else context.head_mask
            mixed = mixed * mask.to(mixed.dtype)
        return self._joined(mixed)

    def look_at(self, hidden: Tensor, context: MemoryContext) -> Tensor:
        """Mix a memory into each token, whose keys and values are computed once where there is a cache.

        Args:
            hidden: Hidden states that look, (B, T, D).
            context: The memory.

        Returns:
            Mixed hidden states, (B, T, D).
        """
        q = self._by_head(self.q(hidden)).transpose(1, 2)
        kept = None if context.cache is None else context.cache.memory(context.step)
        if kept is not None:
            k, v = kept
        else:
            assert context.memory is not None  # the transformer has looked
            k = self._by_head(self.k(context.memory)).transpose(1, 2)
            v = self._by_head(self.v(context.memory)).transpose(1, 2)
            if context.cache is not None:
                k, v = context.cache.keep_memory(k, v, context.step)
        return self._joined(self._mix(q, k, v, bias=context.bias, keep=context.keep))

    def _by_head(self, part: Tensor) -> Tensor:
        num_texts, num_tokens, _ = part.shape
        return part.view(num_texts, num_tokens, -1, self.head_size)  # (B, T, H, K)

    def _joined(self, mixed: Tensor) -> Tensor:
        """Join the heads, (B, H, T, K), into hidden states, (B, T, D)."""
        num_texts, _, num_tokens, _ = mixed.shape
        output: Tensor = self.output(mixed.transpose(1, 2).reshape(num_texts, num_tokens, self.all_head_size))
        return output

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext) -> Tensor:
        """Attend by contents, and by places where those are scored; shapes as :func:`eager_attention`."""
        bias = context.bias
        if self.pruned_heads and bias.shape[1] > 1:
            bias = bias[:, self.kept_heads]
        if self.positions is None or context.relative is None:
            return self._mix(q, k, v, bias=bias, keep=context.keep)
        places = self.positions.project(context.relative.rows, self.q, self.k, self.head_size)
        score = partial(self.positions, places=places, row_of=context.relative.row_of)
        attend = self.attend if context.keep is None else partial(_attend_and_keep, keep=context.keep)
        return attend_with_scores(attend, q * self.positions.factor, k, v, bias, self._dropped(), score=score)

    def _mix(self, q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor, keep: Keep | None) -> Tensor:
        if keep is not None:
            return _attend_and_keep(q, k, v, bias, self._dropped(), scale=self.scale, keep=keep)
        return self.attend(q, k, v, bias, self._dropped(), scale=self.scale)

    def _dropped(self) -> float:
        return self.dropout.p if self.training else 0.0


def _attend_and_keep(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, dropout: float, *, keep: Keep, scale: float | None = None
) -> Tensor:
    """Attend by the formula and hand the probabilities over; the rest as :func:`eager_attention`."""
    kept = F.dropout(attention_probabilities(q, k, bias, scale=scale).to(v.dtype), dropout, training=dropout > 0)
    keep(kept)
    return kept @ _for_all_heads(v, q)
