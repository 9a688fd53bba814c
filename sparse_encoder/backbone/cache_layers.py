"""What a cache keeps of one layer, and how much of it there may be. Knows no cache.

Axes: B texts, H heads of keys and values, P tokens of the past, T new tokens, K head size.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from sparse_encoder.backbone.config import TransformerConfig
from sparse_encoder.backbone.tracing import is_traced

SPARE_TOKENS = 64
"""A growing cache makes room for at least so many more, and for a quarter of what it has."""


class KeysAndValues(NamedTuple):
    """Of one layer, both (B, H, tokens, K)."""

    keys: Tensor
    values: Tensor


class CacheSizes(NamedTuple):
    """Say what the keys of a model are like."""

    num_layers: int
    """Steps through layers."""
    head_size: int

    @classmethod
    def of(cls, config: TransformerConfig | None) -> CacheSizes | None:
        """Read the sizes of what writes, the decoder where there is an encoder; None of None.

        Raises:
            TypeError: If it is no config of this library.
        """
        if config is None:
            return None
        if not isinstance(config, TransformerConfig):
            kind = f"{type(config).__module__}.{type(config).__qualname__}"
            raise TypeError(f"config must be the config of a model of this library, got {kind}; pass model.config")
        config = config.decoder or config
        return cls(len(config.steps), config.head_size)

    def check(self, key: Tensor, layer: int) -> None:
        """Raise a ValueError for keys, (B, H, T, K), that no layer of the model gives."""
        if layer >= self.num_layers or key.shape[3] != self.head_size:
            raise ValueError(
                f"config says {self.num_layers} layers and a head size of {self.head_size}, and layer {layer} brought "
                f"keys of head size {key.shape[3]}: the cache is for another model; pass the config of this one"
            )


class LayerRows:
    """Keys and values of one layer, row by row.

    Args:
        keys: (B, H, columns, K).
        values: (B, H, columns, K).
        length: How many columns are written.
    """

    __slots__ = ("keys", "length", "values")

    def __init__(self, keys: Tensor, values: Tensor, length: int) -> None:
        self.keys = keys
        self.values = values
        self.length = length

    def select(self, rows: Tensor) -> None:
        """Keep the rows of these numbers."""
        self.keys, self.values = selected(KeysAndValues(self.keys, self.values), rows)

    def repeat(self, repeats: int) -> None:
        """Repeat each row, copies next to each other."""
        self.keys = self.keys.repeat_interleave(repeats, dim=0)
        self.values = self.values.repeat_interleave(repeats, dim=0)


class Growing(LayerRows):
    """Keys and values of one layer, with room behind them."""

    __slots__ = ()

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__(keys, values, keys.shape[2])

    def kept(self) -> KeysAndValues:
        """Return keys and values without the room behind them."""
        if self.length == self.keys.shape[2]:
            return KeysAndValues(self.keys, self.values)
        return KeysAndValues(self.keys[:, :, : self.length], self.values[:, :, : self.length])

    def add(self, key: Tensor, value: Tensor) -> KeysAndValues:
        """Add new tokens, and return all there are."""
        if is_traced() or torch.is_grad_enabled():
            old = self.kept()
            self.keys = torch.cat((old.keys, key), dim=2)
            self.values = torch.cat((old.values, value), dim=2)
            self.length = self.keys.shape[2]
            return KeysAndValues(self.keys, self.values)
        start, end = self.length, self.length + key.shape[2]
        if end > self.keys.shape[2] or is_read_only(self.keys):
            self._make_room(end + max(SPARE_TOKENS, end // 4))
        self.keys[:, :, start:end] = key
        self.values[:, :, start:end] = value
        self.length = end
        return KeysAndValues(self.keys[:, :, :end], self.values[:, :, :end])

    def _make_room(self, num_tokens: int) -> None:
        old = self.kept()
        self.keys, self.values = (_with_room(each, num_tokens) for each in old)


class Fixed(LayerRows):
    """Keys and values of one layer in a fixed number of columns; those that are not written are zero.

    Args:
        key: Keys of the first tokens, (B, H, T, K); only their shape, dtype and device count.
        value: Their values, (B, H, T, K), likewise.
        num_columns: How many there are.
    """

    __slots__ = ()

    def __init__(self, key: Tensor, value: Tensor, num_columns: int) -> None:
        num_rows, num_heads, _, size = key.shape
        shape = (num_rows, num_heads, num_columns, size)
        super().__init__(key.new_zeros(shape), value.new_zeros(shape), 0)

    def kept(self) -> KeysAndValues:
        """Return all columns."""
        return KeysAndValues(self.keys, self.values)

    def add(self, key: Tensor, value: Tensor) -> KeysAndValues:
        """Write new tokens behind the others, for which there is room, and return all columns."""
        start, end = self.length, self.length + key.shape[2]
        if torch.is_grad_enabled() or is_read_only(self.keys):  # what a backward pass needs may not be overwritten
            self.keys, self.values = self.keys.clone(), self.values.clone()
        self.keys[:, :, start:end] = key
        self.values[:, :, start:end] = value
        self.length = end
        return KeysAndValues(self.keys, self.values)

    def clear_from(self, length: int) -> None:
        """Forget what is written from a column on."""
        self.length = length
        self.keys[:, :, length:] = 0
        self.values[:, :, length:] = 0


def is_read_only(tensor: Tensor) -> bool:
    """Return whether a tensor was made in inference mode and may not be written to, as that is over."""
    return tensor.is_inference() and not torch.is_inference_mode_enabled()


def _with_room(tensor: Tensor, num_tokens: int) -> Tensor:
    """Copy keys or values into a tensor of more columns, whose last ones are not set."""
    num_rows, num_heads, length, size = tensor.shape
    roomy = tensor.new_empty(num_rows, num_heads, num_tokens, size)
    roomy[:, :, :length] = tensor
    return roomy


def selected(pair: KeysAndValues, rows: Tensor) -> KeysAndValues:
    """Return the rows of these numbers."""
    rows = rows.to(pair.keys.device)
    return KeysAndValues(pair.keys.index_select(0, rows), pair.values.index_select(0, rows))


def checked_crop(max_length: int, length: int) -> int:
    """Return how many tokens to forget; minus a number, of ``length`` tokens."""
    if max_length > 0:
        raise ValueError(f"crop takes minus the number of tokens to forget, got {max_length}")
    if -max_length > length:
        raise ValueError(f"crop can forget at most {length} tokens, got {max_length}")
    return -max_length


def checked_pairs(pairs: Iterable[tuple[Tensor, Tensor]] | None) -> list[KeysAndValues]:
    """Return what a cache begins with, layer by layer; None is none.

    Raises:
        TypeError: If it is a config, or no pairs of tensors.
        ValueError: If keys and values are not of one shape of four axes.
    """
    if isinstance(pairs, TransformerConfig):
        raise TypeError("pairs must be keys and values of each layer, got a config; pass it as config=model.config")
    if pairs is not None and not isinstance(pairs, Iterable):
        raise TypeError(f"pairs must be keys and values of each layer, got {pairs!r:.100}; None begins with none")
    return [_checked_pair(pair, layer) for layer, pair in enumerate(pairs or ())]


def _checked_pair(pair: object, layer: int) -> KeysAndValues:
    parts = list(pair) if isinstance(pair, tuple | list) else []
    if len(parts) != 2 or not all(isinstance(each, Tensor) for each in parts):
        kind = f"{type(pair).__name__} of {[type(each).__name__ for each in parts]}"
        raise TypeError(f"pairs must hold (keys, values) of each layer, got {kind:.100} for layer {layer}")
    keys, values = parts
    if keys.ndim != 4 or values.ndim != 4 or not is_traced() and keys.shape != values.shape:
        shapes = f"{tuple(keys.shape)} and {tuple(values.shape)}"
        raise ValueError(
            f"pairs must hold keys and values of one shape, (texts, heads, tokens, head size), got {shapes} for layer "
            f"{layer}; give what to_tensors() returned"
        )
    return KeysAndValues(keys, values)
