"""Keys and values of the tokens so far, in tensors that grow or have their size from the beginning. Knows no models.

Axes: B texts, H heads of keys and values, P tokens of the past, T new tokens, K head size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from torch import Tensor

from sparse_encoder.backbone.cache_layers import CacheSizes, Fixed, Growing, KeysAndValues, checked_crop, checked_pairs
from sparse_encoder.backbone.config import TransformerConfig

Layer = TypeVar("Layer", Growing, Fixed)


class TokenCache(Generic[Layer]):
    """Keep layers, in the order in which they first come.

    Args:
        config: That of the model, or None; keys of another one are refused then.

    Raises:
        TypeError: If the config is none of this library.
    """

    def __init__(self, config: TransformerConfig | None) -> None:
        self._sizes = CacheSizes.of(config)
        self._kept: list[Layer] = []

    def __len__(self) -> int:
        """Return the number of layers."""
        return len(self._kept)

    @property
    def num_rows(self) -> int | None:
        """How many texts there are, B, of a static cache also when they are forgotten; None before the first."""
        return self._kept[0].keys.shape[0] if self._kept else None

    @property
    def layers(self) -> tuple[KeysAndValues, ...]:
        """Keys and values of every layer, of a static cache all its columns: ``cache.layers[0].keys``."""
        return tuple(layer.kept() for layer in self._kept)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return how many tokens a layer keeps, P; 0 for one that has none yet."""
        return self._kept[layer_idx].length if layer_idx < len(self._kept) else 0

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Let each row become the row of this number, (B,)."""
        for layer in self._kept:
            layer.select(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row, (a, b) to (a, a, b, b)."""
        for layer in self._kept:
            layer.repeat(repeats)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows of these numbers, (rows,)."""
        self.reorder_cache(indices)

    def _is_new(self, key: Tensor, layer: int) -> bool:
        """Return whether a layer comes for the first time; raise a ValueError if the model has no such layer."""
        if layer != len(self._kept):
            return False
        if self._sizes is not None:
            self._sizes.check(key, layer)
        return True


class DynamicCache(TokenCache[Growing]):
    """Keep keys and values of a text that grows.

    Memory is taken ahead, so that most steps copy nothing but their own tokens. Where gradients are wanted, and while
    a graph is traced, tensors are joined instead.

    Args:
        pairs: Keys and values of every layer that it begins with, (B, H, P, K) each; None: of none.
        config: That of the model, ``model.config``; keys of another one are refused then.

    Raises:
        TypeError: If the config is none of this library, or the pairs are no pairs of tensors.
        ValueError: If keys and values are not of one shape of four axes, or are those of another model.
    """

    def __init__(
        self, pairs: Iterable[tuple[Tensor, Tensor]] | None = None, config: TransformerConfig | None = None
    ) -> None:
        super().__init__(config)
        for layer, (key, value) in enumerate(checked_pairs(pairs)):
            self.update(key, value, layer)

    @classmethod
    def from_tensors(cls, pairs: Iterable[tuple[Tensor, Tensor]]) -> DynamicCache:
        """Make a cache that begins with what is given.

        Args:
            pairs: Keys and values of every layer, (B, H, P, K) each; P may be 0.
        """
        return cls(pairs)

    def to_tensors(self) -> tuple[KeysAndValues, ...]:
        """Return keys and values of every layer, (B, H, P, K) each; they may share memory with the cache."""
        return self.layers

    def __getitem__(self, layer: int) -> KeysAndValues:
        """Return keys and values of a layer, (B, H, P, K) each."""
        return self._kept[layer].kept()

    def __iter__(self) -> Iterator[KeysAndValues]:
        """Go through the layers."""
        return iter(self.to_tensors())

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int) -> KeysAndValues:
        """Add new tokens of a layer; layers come in their order the first time.

        Args:
            key_states: Keys of the new tokens, (B, H, T, K).
            value_states: Their values, (B, H, T, K).
            layer_idx: Number of the step through a layer.

        Returns:
            Keys and values of old and new tokens, (B, H, P + T, K) each.
        """
        if self._is_new(key_states, layer_idx):
            self._kept.append(Growing(key_states, value_states))
            return KeysAndValues(key_states, value_states)
        return self._kept[layer_idx].add(key_states, value_states)

    def num_columns(self, num_tokens: int) -> int:
        """Return how many keys an update gives: as many as there are tokens."""
        return num_tokens

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

    def reset(self) -> None:
        """Forget everything."""
        self._kept = []


class StaticCache(TokenCache[Fixed]):
    """Keep keys and values in tensors of one size; columns that are not written are zero, and are to be hidden.

    Args:
        config: That of the model, ``model.config``; keys of another one are refused then. None takes any.
        max_cache_len: Tokens that it can hold.

    Raises:
        TypeError: If the config is none of this library.
        ValueError: If the number of tokens is no integer from 1 on.
    """

    def __init__(self, config: TransformerConfig | None = None, max_cache_len: int | None = None) -> None:
        super().__init__(config)
        if isinstance(max_cache_len, bool) or not isinstance(max_cache_len, int) or max_cache_len < 1:
            raise ValueError(f"max_cache_len must be an integer from 1 on, got {max_cache_len!r}")
        self.max_cache_len = max_cache_len

    def __getitem__(self, layer: int) -> KeysAndValues:
        """Return keys and values of a layer, as long as the cache, (B, H, max_cache_len, K) each."""
        return self._kept[layer].kept()

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int) -> KeysAndValues:
        """Write new tokens of a layer behind those that are there; layers come in their order the first time.

        Args:
            key_states: Keys of the new tokens, (B, H, T, K).
            value_states: Their values, (B, H, T, K).
            layer_idx: Number of the step through a layer.

        Returns:
            Keys and values, (B, H, max_cache_len, K) each.

        Raises:
            ValueError: If there is no room for them.
        """
        if self._is_new(key_states, layer_idx):
            self._kept.append(Fixed(key_states, value_states, self.max_cache_len))
        kept = self._kept[layer_idx]
        end = kept.length + key_states.shape[2]
        if end > self.max_cache_len:
            raise ValueError(f"max_cache_len must be at least {end} for so many tokens, got {self.max_cache_len}")
        return kept.add(key_states, value_states)

    def num_columns(self, num_tokens: int) -> int:
        """Return how many keys an update gives: always all."""
        return self.max_cache_len

    def crop(self, max_length: int) -> None:
        """Forget the last tokens; argument and errors as :meth:`DynamicCache.crop`."""
        count = checked_crop(max_length, self.get_seq_length())
        for layer in self._kept:
            layer.clear_from(layer.length - count)

    def reset(self) -> None:
        """Forget everything, and keep the memory for texts of the same number."""
        for layer in self._kept:
            layer.keys.detach_()
            layer.values.detach_()
            layer.clear_from(0)


def new_token_cache(kind: str, max_cache_len: int) -> DynamicCache | StaticCache:
    """Build an empty cache.

    Args:
        kind: ``"dynamic"`` or ``"static"``.
        max_cache_len: Tokens that a static one can hold.

    Raises:
        ValueError: If the kind is unknown.
    """
    if kind not in ("dynamic", "static"):
        raise ValueError(f"unknown cache {kind!r}; choose from ['dynamic', 'static']")
    return DynamicCache() if kind == "dynamic" else StaticCache(max_cache_len=max_cache_len)
