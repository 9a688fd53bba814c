"""One sparse matrix in dense form, for the tests of embeddings."""

from __future__ import annotations

import torch
from torch import Tensor

N, V = 5, 17


def matrix(seed: int = 0, rows: int = N) -> Tensor:
    """Return weights of which three in ten are not 0, (rows, V), and none of row 2."""
    draw = torch.Generator().manual_seed(seed)
    dense = torch.randn(rows, V, generator=draw) * (torch.rand(rows, V, generator=draw) < 0.3)
    dense[2:3] = 0
    return dense
