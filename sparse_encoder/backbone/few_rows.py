"""Products of a large weight with a few rows, as in a step of a decoder that has a cache. Knows nothing of layers.

Axes: B texts, T tokens, D width of what comes in, V width of what goes out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparse_encoder.backbone.tracing import is_traced

MOST_ROWS = 8
MOST_ENTRIES = 4608
"""Of all rows together: 18 KB, which stay in a first-level cache beside the weight that streams by."""
LEAST_WEIGHTS = 1 << 17
"""Below, a weight stays in the second-level cache from call to call, and the usual order is as fast."""


def linear(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``F.linear``, in the faster order where hidden states are few.

    Without gradients, on a CPU with MKL, one float32 token of each of a few texts is computed as :math:`(W x^T)^T`: for
    one text and the 32,000 words of a model of width 288 in 2.0 ms in place of 4.1, for 2 in 2.5 in place of 9.2, for 8
    in 4.9 in place of 7.8 (``examples/benchmarks/few_rows.py``; torch 2.13, one core of an AMD EPYC with AVX-512,
    2026-11-20). The last bits may differ; so texts of several tokens go the usual way, however few they are.

    Args:
        hidden: (.., D); few means (B, 1, D).
        weight: (V, D).
        bias: (V,).

    Returns:
        Tensor (.., V).
    """
    if weight.numel() < LEAST_WEIGHTS or torch.is_grad_enabled() or is_traced() or not are_few(hidden, weight):
        return F.linear(hidden, weight, bias)
    rows, count = hidden[:, 0], len(hidden)  # (B, D)
    if count == 1:  # MKL multiplies a matrix with two columns in half the time that it takes for one vector
        rows = torch.cat((rows, rows))
    columns = weight @ rows.t() if bias is None else torch.addmm(bias[:, None], weight, rows.t())  # (V, B)
    return columns.t()[:count].contiguous()[:, None]


def are_few(hidden: Tensor, weight: Tensor) -> bool:
    """Return whether hidden states (.., D) are so few, and of a kind, that they go to the right of a weight (V, D)."""
    if hidden.ndim != 3 or hidden.shape[1] != 1:
        return False
    rows, _, width = hidden.shape
    entries = (3 if rows == 1 else rows) * width  # one row becomes two, and gains less than two do
    return (
        1 <= rows <= MOST_ROWS
        and entries <= MOST_ENTRIES
        and hidden.is_cpu
        and hidden.dtype == weight.dtype == torch.float32
        and bool(torch.backends.mkl.is_available())  # type: ignore[no-untyped-call]
    )


class StepLinear(nn.Linear):
    """A linear layer of a model that writes: :func:`linear` for the few rows of a step, ``nn.Linear`` for more.

    Args:
        base: The layer; its parameters are shared, not copied.
    """

    def __init__(self, base: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight = base.weight
        self.register_parameter("bias", base.bias)
        self.training = base.training

    def forward(self, hidden: Tensor) -> Tensor:
        """Transform hidden states, (.., in) to (.., out)."""
        return linear(hidden, self.weight, self.bias)


def with_steps(module: nn.Module) -> None:
    """Let every plain linear layer in a module be a :class:`StepLinear`."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Linear:
                setattr(parent, name, StepLinear(child))
