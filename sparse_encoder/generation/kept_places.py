"""Which places of a text are scored. Knows no model."""

from __future__ import annotations

import torch
from torch import Tensor


def keeps_all(logits_to_keep: int | Tensor) -> bool:
    """Return whether every place is scored.

    Args:
        logits_to_keep: How many of the last places, 0 for all; or which places, (K,).

    Raises:
        ValueError: If it is a number below 0, or a tensor of anything but places.
    """
    if isinstance(logits_to_keep, Tensor):
        if logits_to_keep.ndim != 1 or logits_to_keep.dtype not in (torch.int64, torch.int32):
            kind = f"{logits_to_keep.dtype} of shape {tuple(logits_to_keep.shape)}"
            raise ValueError(f"logits_to_keep must hold places, int64 and of one axis, got {kind}")
        return False
    if isinstance(logits_to_keep, bool) or logits_to_keep < 0:
        raise ValueError(f"logits_to_keep must be 0 for all places, or a number of them, got {logits_to_keep}")
    return logits_to_keep == 0


def kept_places(hidden: Tensor, logits_to_keep: int | Tensor) -> Tensor:
    """Return the hidden states that are scored.

    Args:
        hidden: Of every place, (B, T, D).
        logits_to_keep: As :func:`keeps_all`.
    """
    if keeps_all(logits_to_keep):
        return hidden
    if isinstance(logits_to_keep, Tensor):
        return hidden[:, logits_to_keep.to(hidden.device)]
    return hidden[:, -logits_to_keep:]
