"""Tensors that can be described before they are read: those of a folder, or a mapping that is given."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor

from sparse_encoder.checkpoint import CheckpointError
from sparse_encoder.checkpoint.safetensors_file import TensorInfo


class TensorSource(Protocol):
    """What a model can be loaded from."""

    tensors: dict[str, TensorInfo]
    """Type and shape of every tensor by its name."""
    stated_dtype: str | None
    """What an index says the type of the tensors is."""

    def stream(self, names: Collection[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        """Read tensors, all or those named, one at a time."""


class GivenTensors:
    """A mapping in place of files; what is loaded is a copy.

    Args:
        tensors: Tensors by name, on any device.

    Raises:
        TypeError: If something else is in the mapping.
    """

    stated_dtype: str | None = None

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            if not isinstance(name, str) or not isinstance(tensor, Tensor):
                raise TypeError(f"state_dict must map names to tensors, got {type(tensor).__name__} for {name!r:.100}")
            if tensor.is_meta:
                raise ValueError(f"{name!r} in state_dict has no values: it is on the meta device")
        self._tensors = dict(tensors)
        self.tensors = {name: TensorInfo(each.dtype, tuple(each.shape)) for name, each in tensors.items()}

    def stream(self, names: Collection[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        """Copy tensors one at a time.

        Raises:
            CheckpointError: If one has NaN or infinite values.
        """
        for name, tensor in self._tensors.items():
            if names is None or name in names:
                if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                    raise CheckpointError("has NaN or infinite values", field=name)
                yield name, tensor.detach().clone()


class TransposedSource:
    """A source some of whose matrices are handed out with rows and columns changed about, one at a time.

    Args:
        source: Where they come from.
        names: Which these are, by the names in the files.
    """

    def __init__(self, source: TensorSource, names: Collection[str]) -> None:
        self._source = source
        self.turned = frozenset(names)
        """Names of these matrices."""
        self.stated_dtype = source.stated_dtype
        self.tensors = {
            name: info._replace(shape=info.shape[::-1]) if name in self.turned else info
            for name, info in source.tensors.items()
        }

    def stream(self, names: Collection[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        """Read tensors, all or those named, one at a time."""
        for name, tensor in self._source.stream(names):
            yield name, tensor.t().contiguous() if name in self.turned and tensor.ndim == 2 else tensor


class PeekedSource:
    """A source some of whose tensors had to be looked at early; each is read once nevertheless.

    Args:
        source: Where the others come from.
    """

    def __init__(self, source: TensorSource) -> None:
        self._source = source
        self._held: dict[str, Tensor] = {}

    def peek(self, *names: str) -> list[Tensor]:
        """Read tensors and keep them."""
        self._held |= dict(self._source.stream({name for name in names if name not in self._held}))
        return [self._held[name] for name in names]

    def stream(self, names: Collection[str]) -> Iterator[tuple[str, Tensor]]:
        """Hand out tensors: first what is held, which is then forgotten."""
        peeked = set(self._held)
        for name in peeked - set(names):
            del self._held[name]  # looked at, and not wanted
        for name in list(self._held):
            yield name, self._held.pop(name)
        yield from self._source.stream({name for name in names if name not in peeked})
