"""The loss of models that write. Knows no model.

Axes: B texts, T tokens, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORED = -100
"""Label of tokens that the loss leaves out."""


def token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Judge the scores of tokens by those that follow.

    .. math:: -\frac{1}{n} \sum_{y \ne -100} \log \operatorname{softmax}(s)_y

    It is 0 with zero gradients, and not NaN, where no label counts. Computed in float32 under 16-bit logits.

    Args:
        logits: Scores, (B, T, V).
        labels: The token that each of them should prefer, -100 for none, (B, T).

    Returns:
        Scalar tensor.

    Raises:
        ValueError: If a label is no token; on an accelerator, which must not wait, torch itself finds it.
    """
    if labels.device.type == "cpu" and labels.numel():
        wrong = (labels != IGNORED) & ((labels < 0) | (labels >= logits.shape[-1]))
        if bool(wrong.any()):
            found = int(labels[wrong][0])
            raise ValueError(f"a label must be {IGNORED} or an id from 0 to {logits.shape[-1] - 1}, got {found}")
    flat = logits.flatten(0, 1)
    flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
    total = F.cross_entropy(flat, labels.flatten(), ignore_index=IGNORED, reduction="sum")
    return total / (labels != IGNORED).sum().clamp(min=1)
