"""Arrays out of the tensors of batches, one after the other, filled up where need be; knows no models or datasets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[Any]  # any type of number
Columns = Array | dict[str, Array]
"""One array, or several by name."""


def as_array(tensor: Tensor) -> Array:
    """Return a tensor as an array; 16-bit floats as float32, as numpy has no bfloat16."""
    tensor = tensor.detach()
    if tensor.dtype in (torch.bfloat16, torch.float16):
        tensor = tensor.float()
    array: Array = tensor.cpu().numpy()
    return array


def concatenate(arrays: Sequence[Array], fill: float) -> Array:
    """Put the rows of arrays one after the other.

    Args:
        arrays: (B, ...) each, with the same number of axes.
        fill: Makes up for what an array lacks, at the ends of the axes behind the first.

    Returns:
        (N, ...), of one type of numbers that holds them all.

    Raises:
        ValueError: If they have different numbers of axes.
    """
    if len({array.ndim for array in arrays}) != 1:
        raise ValueError(f"batches have different numbers of axes: {sorted({array.ndim for array in arrays})}")
    shape = [max(sizes) for sizes in zip(*(array.shape[1:] for array in arrays), strict=True)]
    if all(list(array.shape[1:]) == shape for array in arrays):
        return np.concatenate(arrays)
    widths = [
        [(0, 0), *((0, size - own) for size, own in zip(shape, array.shape[1:], strict=True))] for array in arrays
    ]
    return np.concatenate(
        [np.pad(array, width, constant_values=fill) for array, width in zip(arrays, widths, strict=True)]
    )


def unwrapped(columns: dict[str, Array]) -> Columns:
    """Return the array of a single column, and several as they are."""
    return next(iter(columns.values())) if len(columns) == 1 else columns
