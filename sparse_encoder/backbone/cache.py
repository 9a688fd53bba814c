"""Keys and values of tokens that were seen, so that a decoder computes them once. Knows nothing of models.

::

    DynamicCache          grows with the text
    StaticCache           has its size from the beginning
    EncoderDecoderCache   one of them for the tokens so far, one for the memory that they look at

Axes: B texts, H heads of keys and values, P tokens of the past, T new tokens, K head size.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from sparse_encoder.backbone.cache_layers import KeysAndValues
from sparse_encoder.backbone.token_caches import DynamicCache, StaticCache


class KeyValueCache(Protocol):
    """What a decoder needs of a cache."""

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int) -> KeysAndValues:
        """Add what new tokens gave in a layer, (B, H, T, K) each, and return all there is, (B, H, columns, K)."""

    def get_seq_length(self) -> int:
        """Return how many tokens are kept, P."""

    def num_columns(self, num_tokens: int) -> int:
        """Return how many keys :meth:`update` will return when so many tokens, old and new, are kept."""

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Let each row become the row of this number, (B,)."""

    def crop(self, max_length: int) -> None:
        """Forget the last tokens: as many as the negative number says."""

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row, (a, b) to (a, a, b, b)."""

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows of these numbers."""

    def reset(self) -> None:
        """Forget everything."""


class EncoderDecoderCache:
    """Keep what the tokens so far gave, and what the memory gave, which is computed once for each layer.

    Args:
        self_attention_cache: Of the tokens.
        cross_attention_cache: Of the memory; a layer that it has already counts as computed.
    """

    def __init__(
        self, self_attention_cache: DynamicCache | StaticCache, cross_attention_cache: DynamicCache | None = None
    ) -> None:
        self.self_attention_cache = self_attention_cache
        self.cross_attention_cache = DynamicCache() if cross_attention_cache is None else cross_attention_cache
        self.is_updated: dict[int, bool] = dict.fromkeys(range(len(self.cross_attention_cache)), True)
        """Whether a layer's keys and values of the memory are there."""

    def __len__(self) -> int:
        """Return the number of layers."""
        return len(self.self_attention_cache)

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int) -> KeysAndValues:
        """Add new tokens, as the cache of the tokens does."""
        return self.self_attention_cache.update(key_states, value_states, layer_idx)

    def memory(self, layer: int) -> KeysAndValues | None:
        """Return a layer's keys and values of the memory, (B, H, S, K) each; None before they are computed."""
        return self.cross_attention_cache[layer] if self.is_updated.get(layer, False) else None

    def keep_memory(self, key: Tensor, value: Tensor, layer: int) -> KeysAndValues:
        """Keep a layer's keys and values of the memory, (B, H, S, K) each."""
        self.is_updated[layer] = True
        return self.cross_attention_cache.update(key, value, layer)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return how many tokens a layer keeps, P; those of the memory do not count."""
        return self.self_attention_cache.get_seq_length(layer_idx)

    @property
    def num_rows(self) -> int | None:
        """How many texts there are, B; None before the first."""
        return self.self_attention_cache.num_rows

    def num_columns(self, num_tokens: int) -> int:
        """Return how many keys of tokens an update gives."""
        return self.self_attention_cache.num_columns(num_tokens)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Let each row become the row of this number, (B,), in both caches."""
        self.self_attention_cache.reorder_cache(beam_idx)
        self.cross_attention_cache.reorder_cache(beam_idx)

    def crop(self, max_length: int) -> None:
        """Forget the last tokens; the memory stays."""
        self.self_attention_cache.crop(max_length)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row of both caches, (a, b) to (a, a, b, b)."""
        self.self_attention_cache.batch_repeat_interleave(repeats)
        self.cross_attention_cache.batch_repeat_interleave(repeats)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows of these numbers in both caches."""
        self.self_attention_cache.batch_select_indices(indices)
        self.cross_attention_cache.batch_select_indices(indices)

    def reset(self) -> None:
        """Forget everything, the memory too."""
        self.self_attention_cache.reset()
        self.cross_attention_cache.reset()
        self.is_updated = {}


class Decoding(NamedTuple):
    """What a decoder needs beside its tokens."""

    cache: KeyValueCache | None = None
    """Of the tokens before; it takes the new ones in. None computes the whole text."""
    memory: Tensor | None = None
    """What cross-attention looks at, hidden states of an encoder, (B, S, D). None when a cache has what it gave."""
    memory_mask: Tensor | None = None
    """1 for a token of the memory, 0 for padding, (B, S). None means no padding."""


__all__ = ["Decoding", "DynamicCache", "EncoderDecoderCache", "KeyValueCache", "StaticCache"]
