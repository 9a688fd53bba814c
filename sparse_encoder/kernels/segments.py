"""A sparse matrix times a dense one, both ways a sparse gradient needs it; knows no projection."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def segment_product(rows: Tensor, columns: Tensor, values: Tensor, matrix: Tensor, *, num_rows: int) -> Tensor:
    """Multiply the sparse matrix of n entries by a dense one: row r of the result is the sum of its entries' rows.

    Nothing of size (n, E) is made, and the order of every sum is the order of the entries.

    Args:
        rows: Row of each entry, ascending, (n,).
        columns: Column of each entry, a row of ``matrix``, (n,).
        values: The entries, (n,), in float32 or float64.
        matrix: Dense factor, (C, E); 16-bit rows are widened, only those in use.
        num_rows: Number of rows R of the result.

    Returns:
        The product, (R, E), in the dtype of ``values``.
    """
    if rows.numel() == 0:
        return values.new_zeros(num_rows, matrix.shape[1])
    if matrix.dtype != values.dtype:
        used, columns = torch.unique(columns, return_inverse=True)
        matrix = matrix.index_select(0, used).to(values.dtype)
    starts = torch.searchsorted(rows, torch.arange(num_rows, device=rows.device, dtype=rows.dtype))
    return functional.embedding_bag(columns, matrix, starts, mode="sum", per_sample_weights=values)
