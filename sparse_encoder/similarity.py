"""Similarities between rows of embeddings: dense, torch sparse, or :class:`SparseEmbeddings`, in any mixture.

It knows nothing of models. A distance is returned negative, so that larger always means more alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparse_encoder.embeddings import SparseEmbeddings
from sparse_encoder.similarity_names import SimilarityFunction as SimilarityFunction

Embeddings: TypeAlias = (
    "Tensor | SparseEmbeddings | NDArray[np.generic] | scipy.sparse.sparray | scipy.sparse.spmatrix | Sequence[object]"
)
"""What the functions of this module accept: one embedding (V,), or a matrix or list of them, (N, V)."""

CHUNK_ELEMENTS = 1 << 24
"""Most elements of a dense intermediate that sparse rows are expanded to (64 MB in float32)."""


def cos_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Return the cosine of every row of ``a`` with every row of ``b``, (N, M); a zero row scores 0."""
    return _dot(normalized(as_matrix(a)), normalized(as_matrix(b)))


def dot_score(a: Embeddings, b: Embeddings) -> Tensor:
    """Return the dot product of every row of ``a`` with every row of ``b``, (N, M)."""
    return _dot(as_matrix(a), as_matrix(b))


def euclidean_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Return the negative Euclidean distance of every row of ``a`` to every row of ``b``, (N, M).

    Of sparse rows it is ``-sqrt(|a|^2 + |b|^2 - 2 ab)`` in float64, so that equal rows come out within 1e-6 of 0.
    """
    rows, columns = as_matrix(a), as_matrix(b)
    if isinstance(rows, Tensor) and isinstance(columns, Tensor):
        return -torch.cdist(*_same_dtype(rows, columns), p=2.0)
    rows, columns = _wide(rows), _wide(columns)
    squares = _row_sums(rows, 2).unsqueeze(1) + _row_sums(columns, 2) - 2 * _dot(rows, columns)
    return -squares.clamp(min=0).sqrt().float()


def manhattan_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Return the negative Manhattan distance of every row of ``a`` to every row of ``b``, (N, M)."""
    rows, columns = as_matrix(a), as_matrix(b)
    if isinstance(rows, Tensor) and isinstance(columns, Tensor):
        return -torch.cdist(*_same_dtype(rows, columns), p=1.0)
    rows, columns = _sparse(rows), _sparse(columns)
    crow, terms = columns.crow_indices(), columns.col_indices().long()
    wide = _widest(crow.device)
    weights = columns.values().to(wide)
    owners = torch.repeat_interleave(torch.arange(len(crow) - 1, device=crow.device), crow.diff())
    distances = torch.empty(rows.shape[0], columns.shape[0], dtype=wide, device=crow.device)
    for row, distance in zip(_dense_rows(rows), distances, strict=True):
        # Off the support of b the distance is |a|; on it |a - b| takes the place of |a|.
        change = (row[terms] - weights).abs() - row[terms].abs()
        distance.copy_(row.abs().sum() + torch.zeros_like(distance).index_add_(0, owners, change))
    return -distances.float()


def pairwise_cos_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Return the cosine of each row of ``a`` with the same row of ``b``, (N,)."""
    return _pairwise(torch.cosine_similarity, a, b)


def pairwise_dot_score(a: Embeddings, b: Embeddings) -> Tensor:
    """Return the dot product of each row of ``a`` with the same row of ``b``, (N,)."""
    return _pairwise(lambda x, y: (x * y).sum(dim=-1), a, b)


def pairwise_euclidean_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Return the negative Euclidean distance of each row of ``a`` to the same row of ``b``, (N,)."""
    return _pairwise(lambda x, y: -torch.linalg.vector_norm(x - y, dim=-1), a, b)


def pairwise_manhattan_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Return the negative Manhattan distance of each row of ``a`` to the same row of ``b``, (N,)."""
    return _pairwise(lambda x, y: -(x - y).abs().sum(dim=-1), a, b)


def pairwise_angle_sim(x: Embeddings, y: Embeddings) -> Tensor:
    r"""Return the angle similarity of each row of ``x`` with the same row of ``y``, (N,).

    With rows of length 1, whose first half is the real part and whose second half is the imaginary one, and a
    column of zeros at the end if V is odd,

    .. math:: \Bigl| \sum_j x_j y_j + \sum_{j \le V/2} (x_{j + V/2} y_j - x_j y_{j + V/2}) \Bigr|

    Source: Li and Li, 2023, https://arxiv.org/abs/2309.12871.
    """
    return _pairwise(_angle, x, y)


FUNCTIONS = {
    SimilarityFunction.COSINE: (cos_sim, pairwise_cos_sim),
    SimilarityFunction.DOT_PRODUCT: (dot_score, pairwise_dot_score),
    SimilarityFunction.EUCLIDEAN: (euclidean_sim, pairwise_euclidean_sim),
    SimilarityFunction.MANHATTAN: (manhattan_sim, pairwise_manhattan_sim),
}
"""What compares all rows with all rows, and row with row, by name."""


def as_embeddings(embeddings: Embeddings) -> Tensor | SparseEmbeddings:
    """Bring embeddings of any accepted kind to a dense float tensor or to :class:`SparseEmbeddings`.

    A torch sparse tensor that takes part in a gradient becomes dense, because rows of CSR carry none.

    Args:
        embeddings: One embedding (V,), or a matrix or list of embeddings, (N, V).

    Returns:
        A dense tensor or sparse rows, of the same number of axes.

    Raises:
        TypeError: If it is none of the kinds of :data:`Embeddings`.
    """
    if isinstance(embeddings, SparseEmbeddings):
        return embeddings
    if isinstance(embeddings, Tensor):
        if embeddings.layout is not torch.strided:
            return embeddings.to_dense() if embeddings.requires_grad else SparseEmbeddings.from_torch(embeddings)
        return embeddings if embeddings.is_floating_point() else embeddings.float()
    if isinstance(embeddings, (scipy.sparse.sparray, scipy.sparse.spmatrix)):
        return SparseEmbeddings.from_scipy(embeddings)
    if isinstance(embeddings, np.ndarray):
        return as_embeddings(torch.as_tensor(embeddings))
    if isinstance(embeddings, Sequence) and not isinstance(embeddings, (str, bytes)):
        return _stacked(embeddings)
    raise TypeError(
        f"embeddings must be a tensor, an array, SparseEmbeddings or a list of these, got {type(embeddings).__name__}"
    )


def _stacked(rows: Sequence[object]) -> Tensor | SparseEmbeddings:
    """Join a list of embeddings, or of numbers, which is one embedding."""
    if not rows or all(isinstance(value, (int, float)) for value in rows):
        return torch.tensor(rows, dtype=torch.float32)
    parts = [as_embeddings(row) for row in rows]  # type: ignore[arg-type]  # checked by as_embeddings itself
    if all(isinstance(part, SparseEmbeddings) for part in parts):
        return SparseEmbeddings.concatenate([_sparse(_rows(part)) for part in parts])
    return torch.stack([part.to_dense() for part in parts])


def _rows(embeddings: Tensor | SparseEmbeddings) -> Tensor | SparseEmbeddings:
    """Make a matrix of one row out of a single embedding."""
    if embeddings.ndim == 2:
        return embeddings
    if isinstance(embeddings, Tensor):
        return embeddings.reshape(-1, embeddings.shape[-1])
    ends = torch.tensor([0, len(embeddings.values())], device=embeddings.device)
    return SparseEmbeddings(
        ends, embeddings.col_indices(), embeddings.values(), torch.Size((1, embeddings.shape[0])), validate=False
    )


def as_matrix(embeddings: Embeddings) -> Tensor | SparseEmbeddings:
    """Bring embeddings of any accepted kind to a matrix, (N, V); sparse ones to float32.

    Args:
        embeddings: One embedding (V,), or a matrix or list of embeddings.
    """
    matrix = _rows(as_embeddings(embeddings))
    return matrix if isinstance(matrix, Tensor) else matrix.float()


def _sparse(matrix: Tensor | SparseEmbeddings) -> SparseEmbeddings:
    return matrix if isinstance(matrix, SparseEmbeddings) else SparseEmbeddings.from_dense(matrix)


def _wide(matrix: Tensor | SparseEmbeddings) -> Tensor | SparseEmbeddings:
    """Give a matrix values of the widest type that its device has."""
    return matrix.to(dtype=_widest(matrix.device))


def _widest(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


def _same_dtype(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(a.dtype, b.dtype)
    return a.to(dtype), b.to(dtype)


def _dot(a: Tensor | SparseEmbeddings, b: Tensor | SparseEmbeddings) -> Tensor:
    """Multiply all rows with all rows, (N, V) and (M, V) to (N, M)."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        a, b = _same_dtype(a, b)
        return a @ b.mT
    if isinstance(a, Tensor):
        return _dot(b, a).mT
    if isinstance(b, Tensor):
        product: Tensor = torch.sparse.mm(a.to_torch(layout=torch.sparse_coo), b.to(a.dtype).mT)
        return product
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"embeddings must have the same width, got {a.shape[1]} and {b.shape[1]}")
    if a.device.type != "cpu":
        return torch.mm(a.to_torch(layout=torch.sparse_coo), b.to_torch(layout=torch.sparse_coo).t()).to_dense()
    left, right = a.to_scipy(), b.to_scipy().T.tocsr()
    step = max(1, CHUNK_ELEMENTS // max(1, b.shape[0]))
    blocks = [(left[start : start + step] @ right).toarray() for start in range(0, a.shape[0], step)]
    return torch.from_numpy(np.concatenate(blocks)) if blocks else torch.zeros(0, b.shape[0], dtype=a.dtype)


def _row_sums(matrix: Tensor | SparseEmbeddings, power: int) -> Tensor:
    """Sum a power of the values of each row, (N,)."""
    if isinstance(matrix, Tensor):
        return matrix.pow(power).sum(dim=1)
    crow = matrix.crow_indices()
    owners = torch.repeat_interleave(torch.arange(len(crow) - 1, device=crow.device), crow.diff())
    values = matrix.values()
    return values.new_zeros(len(crow) - 1).index_add_(0, owners, values.pow(power))


def normalized(matrix: Tensor | SparseEmbeddings) -> Tensor | SparseEmbeddings:
    """Scale one embedding (V,), or each row of several, (N, V), to length 1; a row of zeros stays."""
    if isinstance(matrix, Tensor):
        return torch.nn.functional.normalize(matrix, p=2.0, dim=-1)
    lengths = _row_sums(matrix, 2).sqrt().clamp(min=1e-12)
    scale = torch.repeat_interleave(lengths, matrix.crow_indices().diff())
    return SparseEmbeddings(
        matrix.crow_indices(), matrix.col_indices(), matrix.values() / scale, matrix.shape, validate=False
    )


def _dense_rows(matrix: SparseEmbeddings) -> Iterator[Tensor]:
    """Yield the rows, (V,) each, in the widest type, expanding a bounded number at a time."""
    step = max(1, CHUNK_ELEMENTS // max(1, matrix.shape[1]))
    for start in range(0, matrix.shape[0], step):
        yield from matrix[start : start + step].to_dense().to(_widest(matrix.device))


def _angle(x: Tensor, y: Tensor) -> Tensor:
    """Compare two embeddings, (V,), or the rows of two matrices, (N, V), by angle."""
    if x.shape[-1] % 2:
        x, y = torch.nn.functional.pad(x, (0, 1)), torch.nn.functional.pad(y, (0, 1))
    x, y = torch.nn.functional.normalize(x, dim=-1), torch.nn.functional.normalize(y, dim=-1)
    (x_real, x_imaginary), (y_real, y_imaginary) = x.chunk(2, dim=-1), y.chunk(2, dim=-1)
    turned = x_imaginary * y_real - x_real * y_imaginary  # (N, V / 2)
    return ((x * y).sum(dim=-1) + turned.sum(dim=-1)).abs()


def _pairwise(function: Callable[[Tensor, Tensor], Tensor], a: Embeddings, b: Embeddings) -> Tensor:
    """Apply a dense row-by-row function; sparse rows are expanded a bounded number at a time."""
    left, right = as_embeddings(a), as_embeddings(b)
    if left.shape != right.shape:
        raise ValueError(f"pairwise similarity needs equal shapes, got {tuple(left.shape)} and {tuple(right.shape)}")
    if (isinstance(left, Tensor) and isinstance(right, Tensor)) or left.ndim == 1:
        return function(*_same_dtype(left.to_dense(), right.to_dense()))
    step = max(1, CHUNK_ELEMENTS // max(1, left.shape[1]))
    chunks = [slice(start, start + step) for start in range(0, max(1, left.shape[0]), step)]
    return torch.cat([function(*_same_dtype(left[at].to_dense(), right[at].to_dense())) for at in chunks])
