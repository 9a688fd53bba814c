"""Masks that weigh attention heads. Knows shapes, no model.

A head's mask is one number, so that it may weigh the attended values as well as the probabilities: the same product,
with fused kernels too.
"""

from __future__ import annotations

import torch
from torch import Tensor


def head_mask_by_layer(
    mask: Tensor | None, num_layers: int, dtype: torch.dtype, *, is_attention_chunked: bool = False
) -> Tensor | list[None]:
    """Bring a mask of heads into the shape that attention probabilities are multiplied with.

    Args:
        mask: 1 keeps a head and 0 takes it out, (H,) or (L, H); (L, 1 or B, H, 1, 1) is that shape already; or None.
        num_layers: Layers, L.
        dtype: Of the result.
        is_attention_chunked: Add a last axis.

    Returns:
        Mask of shape (L, 1 or B, H, 1, 1), or with one more axis; without a mask a list of so many None.

    Raises:
        ValueError: If the mask has another number of axes or layers.
    """
    if mask is None:
        return [None] * num_layers
    shape = tuple(mask.shape)
    if mask.ndim == 1:
        mask = mask.expand(num_layers, -1)
    if mask.ndim == 2:
        mask = mask[:, None, :, None, None]
    if mask.ndim != 5 or mask.shape[0] != num_layers or mask.shape[3:] != (1, 1):
        raise ValueError(f"a head mask must be of shape (heads,) or ({num_layers} layers, heads), got {shape}")
    mask = mask.to(dtype)
    return mask.unsqueeze(-1) if is_attention_chunked else mask


def check_num_heads(by_layer: Tensor | list[None], num_heads: int) -> None:
    """Refuse a mask, as :func:`head_mask_by_layer` makes it, of another number of heads.

    Raises:
        ValueError: If it has one.
    """
    if isinstance(by_layer, Tensor) and by_layer.shape[2] != num_heads:
        raise ValueError(f"head_mask must have {num_heads} heads, got {by_layer.shape[2]}")
