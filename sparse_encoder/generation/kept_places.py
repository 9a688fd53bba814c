"""Which places of a text are scored. Knows no model."""

from __future__ import annotations

import torch
from torch import Tensor

from sparse_encoder.backbone.tracing import is_traced


def keeps_all(logits_to_keep: int | Tensor) -> bool:
    """Return whether every place is scored.

    Args:
        logits_to_keep: How many of the last places, 0 for all; or which places, (K,).

    Raises:
        TypeError: If it is neither an integer nor a tensor.
        ValueError: If it is a number below 0, or a tensor of anything but places.
    """
    if isinstance(logits_to_keep, Tensor):
        if logits_to_keep.ndim != 1 or logits_to_keep.dtype not in (torch.int64, torch.int32):
            kind = f"{logits_to_keep.dtype} of shape {tuple(logits_to_keep.shape)}"
            raise ValueError(f"logits_to_keep must hold places, int64 and of one axis, got {kind}")
        if logits_to_keep.numel() == 0:
            raise ValueError("logits_to_keep must hold at least one place, got an empty tensor; pass 0 to score all")
        return False
    if not isinstance(logits_to_keep, int):
        raise TypeError(f"logits_to_keep must be an integer or a tensor, got {logits_to_keep!r:.100}; 0 scores all")
    if isinstance(logits_to_keep, bool) or logits_to_keep < 0:
        raise ValueError(f"logits_to_keep must be 0 for all places, or a number of them, got {logits_to_keep}")
    return logits_to_keep == 0


def kept_places(hidden: Tensor, logits_to_keep: int | Tensor) -> Tensor:
    """Return the hidden states that are scored.

    Args:
        hidden: Of every place, (B, T, D).
        logits_to_keep: As :func:`keeps_all`.

    Raises:
        TypeError: As :func:`keeps_all`.
        ValueError: As :func:`keeps_all`, or if a place is not in the text.
    """
    if keeps_all(logits_to_keep):
        return hidden
    if isinstance(logits_to_keep, Tensor):
        return hidden[:, _inside(logits_to_keep, hidden.shape[1]).to(hidden.device)]
    return hidden[:, -logits_to_keep:]


def _inside(places: Tensor, length: int) -> Tensor:
    """Return places of a text that has so many; on other processors torch finds out, as asking would wait for them."""
    if places.device.type == "cpu" and not is_traced() and (places.min() < -length or places.max() >= length):
        rule = f"from {-length} to {length - 1}, which this call has"
        raise ValueError(f"logits_to_keep must hold places {rule}, got {places.tolist()!s:.100}; leave out the others")
    return places
