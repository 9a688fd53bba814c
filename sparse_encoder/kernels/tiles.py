"""How a vocabulary projection is cut into tiles, which bounds the memory it needs; knows no reduction.

On a CPU the width of a tile is a constant, so that a text's numbers come out of matrix products of the same width
whatever else is in the batch, and a tile stays in the cache until it is reduced.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Tiling(NamedTuple):
    """The largest tile: this many tokens by this many vocabulary entries."""

    tokens: int
    terms: int


CPU_TILING = Tiling(tokens=4096, terms=512)
"""8 MiB of float32 logits."""
CPU_NARROW_TILING = Tiling(tokens=4096, terms=256)
"""Half as wide, for reductions that pass over a tile more than once, as one that remembers the argmax does."""
ACCELERATOR_TILING = Tiling(tokens=32_768, terms=2048)
"""256 MiB of float32 logits; few, large launches."""


def tiling_for(device: torch.device, *, narrow: bool = False) -> Tiling:
    """Choose the tile for a device; a narrow one where the reduction passes over it more than once."""
    if device.type != "cpu":
        return ACCELERATOR_TILING
    return CPU_NARROW_TILING if narrow else CPU_TILING


def text_slices(num_texts: int, num_tokens: int, tiling: Tiling) -> list[slice]:
    """Cut a batch of padded texts into groups that fit a tile; a group holds at least one text."""
    per_group = max(1, tiling.tokens // max(1, num_tokens))
    return [slice(start, min(start + per_group, num_texts)) for start in range(0, num_texts, per_group)]


def term_slices(num_terms: int, tiling: Tiling) -> list[slice]:
    """Cut the vocabulary into ranges of nearly one width, each a multiple of 16 but for the last."""
    count = -(-num_terms // tiling.terms)
    if count == 0:
        return []
    width = -(-num_terms // (16 * count)) * 16
    return [slice(start, min(start + width, num_terms)) for start in range(0, num_terms, width)]


class Tile(NamedTuple):
    """Logits of some texts for some terms, (texts, T, terms); overwritten when the next tile is asked for."""

    texts: slice
    terms: slice
    logits: Tensor


def logit_tiles(hidden: Tensor, weight: Tensor, tiling: Tiling) -> Iterator[Tile]:
    """Yield ``hidden @ weight.T`` tile by tile, all texts of one range of terms before the next range.

    Args:
        hidden: Token states in the dtype to compute in, (B, T, E), contiguous.
        weight: Term vectors, (V, E); each range is cast to the dtype of ``hidden``.
        tiling: The largest tile.

    Yields:
        Tiles that share one buffer.
    """
    num_texts, num_tokens, _ = hidden.shape
    groups = text_slices(num_texts, num_tokens, tiling)
    ranges = term_slices(weight.shape[0], tiling)
    if not groups or not ranges:
        return
    largest = (groups[0].stop - groups[0].start) * num_tokens * (ranges[0].stop - ranges[0].start)
    buffer = hidden.new_empty(largest)
    for terms in ranges:
        rows = weight[terms].to(hidden.dtype).mT  # (E, terms)
        for texts in groups:
            tokens = hidden[texts].flatten(0, 1)  # (texts * T, E)
            flat = buffer[: tokens.shape[0] * rows.shape[1]].view(tokens.shape[0], rows.shape[1])
            torch.mm(tokens, rows, out=flat)
            yield Tile(texts, terms, flat.view(-1, num_tokens, rows.shape[1]))


def check_projection(hidden: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor) -> None:
    """Check that the arguments of a projection fit together.

    Raises:
        ValueError: If a shape or dtype does not fit the others.
    """
    if hidden.ndim != 3 or weight.ndim != 2 or hidden.shape[2] != weight.shape[1]:
        raise ValueError(
            f"hidden must be (B, T, E) and weight (V, E), got {tuple(hidden.shape)} and {tuple(weight.shape)}"
        )
    if mask.shape != hidden.shape[:2]:
        raise ValueError(f"mask must be {tuple(hidden.shape[:2])} as hidden is, got {tuple(mask.shape)}")
    if hidden.shape[1] == 0:
        raise ValueError("hidden must hold at least one token per text, padding included, got T = 0")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must be ({weight.shape[0]},) as weight has rows, got {tuple(bias.shape)}")


def compute_dtype(hidden: Tensor, weight: Tensor) -> torch.dtype:
    """Return the dtype the matrix products run in: autocast's, where it is on, else the one of both tensors.

    Raises:
        ValueError: If the two differ and autocast does not settle it.
    """
    device_type = hidden.device.type
    if torch.is_autocast_enabled(device_type) and hidden.dtype != torch.float64:
        return torch.get_autocast_dtype(device_type)
    if hidden.dtype != weight.dtype:
        raise ValueError(f"hidden and weight must have one dtype, got {hidden.dtype} and {weight.dtype}")
    return hidden.dtype


def reduced_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype sums and results are kept in: float32 for 16-bit numbers, else the same."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype
