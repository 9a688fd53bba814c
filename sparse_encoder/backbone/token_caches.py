"""Keys and values of the tokens so far, in tensors that grow or have their size from the beginning. Knows no models.

Axes: B texts, H heads of keys and values, P tokens of the past, T new tokens, K head size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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
