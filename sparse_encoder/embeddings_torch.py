"""Functions of torch called on SparseEmbeddings: ours for what COO tensors cannot do or do badly, else torch's own.

Axes: N rows, V columns, Z stored entries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from sparse_encoder.csr import Csr, align, csr_of, drop_zeros, gather_rows, matrix_product, row_starts
from sparse_encoder.embeddings_vocabulary import SparseTensorVocabulary, as_tensor

Operand = SparseTensorVocabulary | Tensor
Rows = TypeVar("Rows", bound=SparseTensorVocabulary)


def call(function: Callable[..., object], arguments: Sequence[object], options: Mapping[str, object]) -> object:
    """Call a torch function some of whose arguments are embeddings.

    Args:
        function: What was called.
        arguments: Its positional arguments.
        options: Its named arguments.

    Returns:
        What the function gives for COO tensors; embeddings where that is rows of some.
    """
    own = _FUNCTIONS.get(function)
    result = NotImplemented if own is None else own(*arguments, **options)
    if result is NotImplemented:
        return function(*as_tensor(tuple(arguments)), **as_tensor(dict(options)))
    return result


def _entries(value: Operand) -> Csr:
    return value._csr if isinstance(value, SparseTensorVocabulary) else csr_of(value)


def _equal(input: Operand, other: Operand) -> bool:
    if input.shape != other.shape or input.dtype != other.dtype:
        return False
    pairs = zip(drop_zeros(_entries(input)), drop_zeros(_entries(other)), strict=True)
    return all(torch.equal(mine, yours) for mine, yours in pairs)


def _allclose(
    input: Operand,
    other: Operand,
    rtol: float = 1e-5,
    atol: float = 1e-8,
    equal_nan: bool = False,
) -> bool:
    if input.shape != other.shape:
        raise ValueError(f"shapes must be equal, got {tuple(input.shape)} and {tuple(other.shape)}")
    mine, yours = align(_entries(input), _entries(other), input.shape[-1])
    return torch.allclose(mine, yours, rtol=rtol, atol=atol, equal_nan=equal_nan)


def _index_select(input: Operand, dim: int, index: Tensor) -> object:
    if not isinstance(input, SparseTensorVocabulary) or input.ndim == 1 or dim not in (0, -2):
        return NotImplemented
    if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < len(input):
        raise IndexError(f"rows must lie in [0, {len(input)}), got {int(index.min())} to {int(index.max())}")
    return input._like(gather_rows(input._csr, index.reshape(-1)), (index.numel(), input.shape[1]))


def _concatenate(tensors: Sequence[Operand], dim: int = 0) -> object:
    parts = [part for part in tensors if isinstance(part, SparseTensorVocabulary) and part.ndim == 2]
    return below_each_other(parts) if dim == 0 and len(parts) == len(tensors) else NotImplemented


def _stack(tensors: Sequence[Operand], dim: int = 0) -> object:
    parts = [part for part in tensors if isinstance(part, SparseTensorVocabulary) and part.ndim == 1]
    return below_each_other(parts) if dim == 0 and len(parts) == len(tensors) else NotImplemented


def below_each_other(parts: Sequence[Rows]) -> Rows:
    """Put the rows of several embeddings below each other; a single row counts as a matrix of one.

    Raises:
        ValueError: If there are no parts or their dimensions differ.
    """
    dims = sorted({part.shape[-1] for part in parts})
    if len(dims) != 1:
        raise ValueError(f"expected parts of one dimension, got dimensions {dims}")
    counts = torch.cat([part._csr.crow.diff() for part in parts])
    col = torch.cat([part._csr.col for part in parts])
    values = torch.cat([part._csr.values for part in parts])
    return parts[0]._like(Csr(row_starts(counts), col, values), (counts.numel(), dims[0]))


def _product(input: Operand, mat2: Operand) -> Tensor:
    return matrix_product(as_tensor(input), as_tensor(mat2))


_FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {  # Any: signatures differ
    torch.equal: _equal,
    torch.allclose: _allclose,
    torch.index_select: _index_select,
    torch.cat: _concatenate,
    torch.concat: _concatenate,
    torch.concatenate: _concatenate,
    torch.vstack: _concatenate,
    torch.stack: _stack,
    torch.mm: _product,
    torch.matmul: _product,
    torch.Tensor.matmul: _product,
    torch.sparse.mm: _product,
    torch.abs: SparseTensorVocabulary.abs,
    torch.count_nonzero: SparseTensorVocabulary.count_nonzero,
    torch.numel: SparseTensorVocabulary.numel,
}
