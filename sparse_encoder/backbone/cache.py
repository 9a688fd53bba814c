"""Keys and values of tokens that were seen, so that a decoder computes them once. Knows nothing of models.

::

    DynamicCache          grows with the text
    StaticCache           has its size from the beginning
    EncoderDecoderCache   one of them for the tokens so far, one for the memory that they look at

Axes: B texts, H heads of keys and values, P tokens of the past, T new tokens, K head size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from sparse_encoder.backbone.cache_layers import (
    CacheSizes,
    Growing,
    KeysAndValues,
    checked_crop,
    is_read_only,
    selected,
)
from sparse_encoder.backbone.config import TransformerConfig


class KeyValueCache(Protocol):
    """What a decoder needs of a cache."""

    def update(self, key: Tensor, value: Tensor, layer: int) -> KeysAndValues:
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


class DynamicCache:
    """Keep keys and values of a text that grows.

    Memory is taken ahead, so that most steps copy nothing but their own tokens. Where gradients are wanted, and while
    a graph is traced, tensors are joined instead.

    Args:
        config: That of the model, ``model.config``; keys of another one are refused then.

    Raises:
        TypeError: If the config is none of this library.
    """

    def __init__(self, *, config: TransformerConfig | None = None) -> None:
        self._sizes = CacheSizes.of(config)
        self._kept: list[Growing] = []

    @classmethod
    def from_tensors(cls, pairs: Iterable[tuple[Tensor, Tensor]]) -> DynamicCache:
        """Make a cache that begins with what is given.

        Args:
            pairs: Keys and values of every layer, (B, H, P, K) each; P may be 0.
        """
        cache = cls()
        cache._kept = [Growing(key, value) for key, value in pairs]
        return cache

    def to_tensors(self) -> tuple[KeysAndValues, ...]:
        """Return keys and values of every layer, (B, H, P, K) each; they may share memory with the cache."""
        return tuple(layer.kept() for layer in self._kept)

    def __len__(self) -> int:
        """Return the number of layers."""
        return len(self._kept)

    def __getitem__(self, layer: int) -> KeysAndValues:
        """Return keys and values of a layer, (B, H, P, K) each."""
        return self._kept[layer].kept()

    def __iter__(self) -> Iterator[KeysAndValues]:
        """Go through the layers."""
        return iter(self.to_tensors())

    def update(self, key: Tensor, value: Tensor, layer: int) -> KeysAndValues:
        """Add new tokens of a layer; layers come in their order the first time.

        Args:
            key: Keys of the new tokens, (B, H, T, K).
            value: Their values, (B, H, T, K).
            layer: Number of the step through a layer.

        Returns:
            Keys and values of old and new tokens, (B, H, P + T, K) each.
        """
        if layer == len(self._kept):
            if self._sizes is not None:
                self._sizes.check(key, layer)
            self._kept.append(Growing(key, value))
            return KeysAndValues(key, value)
        return self._kept[layer].add(key, value)

    def get_seq_length(self) -> int:
        """Return how many tokens are kept, P."""
        return self._kept[0].length if self._kept else 0

    @property
    def num_rows(self) -> int | None:
        """How many texts there are, B; None before the first."""
        return self._kept[0].keys.shape[0] if self._kept else None

    def num_columns(self, num_tokens: int) -> int:
        """Return how many keys an update gives: as many as there are tokens."""
        return num_tokens

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Let each row become the row of this number, (B,)."""
        for layer in self._kept:
            layer.select(beam_idx)

    def crop(self, max_length: int) -> None:
        """Forget the last tokens.

        Args:
            max_length: Minus their number.

        Raises:
            ValueError: If it is positive, or says to forget more than there is.
        """
        count = checked_crop(max_length, self.get_seq_length())
        for layer in self._kept:
            layer.length -= count

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row, (a, b) to (a, a, b, b)."""
        for layer in self._kept:
            layer.repeat(repeats)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows of these numbers, (rows,)."""
        self.reorder_cache(indices)

    def reset(self) -> None:
        """Forget everything."""
        self._kept = []


class StaticCache:
    """Keep keys and values in tensors of one size; columns that are not written are zero, and are to be hidden.

    Args:
        config: That of the model, ``model.config``; keys of another one are refused then. None takes any.
        max_cache_len: Tokens that it can hold.

    Raises:
        TypeError: If the config is none of this library.
        ValueError: If the number of tokens is no integer from 1 on.
    """

    def __init__(self, config: TransformerConfig | None = None, max_cache_len: int | None = None) -> None:
        self._sizes = CacheSizes.of(config)
        if isinstance(max_cache_len, bool) or not isinstance(max_cache_len, int) or max_cache_len < 1:
            raise ValueError(f"max_cache_len must be an integer from 1 on, got {max_cache_len!r}")
        self.max_cache_len = max_cache_len
        self._kept: list[KeysAndValues] = []
        self._lengths: list[int] = []

    def __len__(self) -> int:
        """Return the number of layers."""
        return len(self._kept)

    def __getitem__(self, layer: int) -> KeysAndValues:
        """Return keys and values of a layer, as long as the cache, (B, H, max_cache_len, K) each."""
        return self._kept[layer]

    def update(self, key: Tensor, value: Tensor, layer: int) -> KeysAndValues:
        """Write new tokens of a layer behind those that are there; layers come in their order the first time.

        Args:
            key: Keys of the new tokens, (B, H, T, K).
            value: Their values, (B, H, T, K).
            layer: Number of the step through a layer.

        Returns:
            Keys and values, (B, H, max_cache_len, K) each.

        Raises:
            ValueError: If there is no room for them.
        """
        if layer == len(self._kept):
            if self._sizes is not None:
                self._sizes.check(key, layer)
            num_rows, num_heads, _, size = key.shape
            shape = (num_rows, num_heads, self.max_cache_len, size)
            self._kept.append(KeysAndValues(key.new_zeros(shape), value.new_zeros(shape)))
            self._lengths.append(0)
        start, end = self._lengths[layer], self._lengths[layer] + key.shape[2]
        if end > self.max_cache_len:
            raise ValueError(f"max_cache_len must be at least {end} for so many tokens, got {self.max_cache_len}")
        kept = self._kept[layer]
        if torch.is_grad_enabled() or is_read_only(kept.keys):  # what a backward pass needs may not be overwritten
            kept = self._kept[layer] = KeysAndValues(kept.keys.clone(), kept.values.clone())
        kept.keys[:, :, start:end] = key
        kept.values[:, :, start:end] = value
        self._lengths[layer] = end
        return kept

    def get_seq_length(self) -> int:
        """Return how many tokens are kept, P."""
        return self._lengths[0] if self._lengths else 0

    @property
    def num_rows(self) -> int | None:
        """How many texts it is for, B, also when they are forgotten; None before the first."""
        return self._kept[0].keys.shape[0] if self._kept else None

    def num_columns(self, num_tokens: int) -> int:
        """Return how many keys an update gives: always all."""
        return self.max_cache_len

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Let each row become the row of this number, (B,)."""
        self._kept = [selected(each, beam_idx) for each in self._kept]

    def crop(self, max_length: int) -> None:
        """Forget the last tokens; argument and errors as :meth:`DynamicCache.crop`."""
        count = checked_crop(max_length, self.get_seq_length())
        for layer, kept in enumerate(self._kept):
            self._lengths[layer] -= count
            kept.keys[:, :, self._lengths[layer] :] = 0
            kept.values[:, :, self._lengths[layer] :] = 0

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row, (a, b) to (a, a, b, b)."""
        self._kept = [
            KeysAndValues(each.keys.repeat_interleave(repeats, dim=0), each.values.repeat_interleave(repeats, dim=0))
            for each in self._kept
        ]

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows of these numbers, (rows,)."""
        self.reorder_cache(indices)

    def reset(self) -> None:
        """Forget everything, and keep the memory for texts of the same number."""
        for layer, kept in enumerate(self._kept):
            self._lengths[layer] = 0
            kept.keys.detach_().zero_()
            kept.values.detach_().zero_()


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

    def update(self, key: Tensor, value: Tensor, layer: int) -> KeysAndValues:
        """Add new tokens, as the cache of the tokens does."""
        return self.self_attention_cache.update(key, value, layer)

    def memory(self, layer: int) -> KeysAndValues | None:
        """Return a layer's keys and values of the memory, (B, H, S, K) each; None before they are computed."""
        return self.cross_attention_cache[layer] if self.is_updated.get(layer, False) else None

    def keep_memory(self, key: Tensor, value: Tensor, layer: int) -> KeysAndValues:
        """Keep a layer's keys and values of the memory, (B, H, S, K) each."""
        self.is_updated[layer] = True
        return self.cross_attention_cache.update(key, value, layer)

    def get_seq_length(self) -> int:
        """Return how many tokens are kept, P; those of the memory do not count."""
        return self.self_attention_cache.get_seq_length()

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
