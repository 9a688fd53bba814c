"""What SparseEmbeddings share with a torch sparse tensor: the vocabulary that reads and does not write.

Everything answers as the coalesced COO tensor would: members named here, and any other public member of
``torch.Tensor`` that does not write in place. Knows no file and no numpy.

Axes: N rows, V columns, Z stored entries.
"""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Callable, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sparse_encoder.csr import Csr, drop_zeros, matrix_product, row_numbers

if TYPE_CHECKING:
    from typing_extensions import Self


class SparseTensorVocabulary(metaclass=ABCMeta):  # noqa: B024  (so that ArrayEmbeddings count as these)
    """Answer like a coalesced torch sparse COO tensor.

    Args:
        csr: The entries; for a single row, those of a matrix of one row.
        shape: ``(N, V)``, or ``(V,)`` for a single row.
    """

    is_sparse = True
    layout = torch.sparse_coo
    requires_grad = False
    __array_priority__ = 1000  # so that numpy's scalars leave operators to us, as they do for tensors

    def __init__(self, csr: Csr, shape: torch.Size) -> None:
        self._csr = csr
        self.shape = shape

    def _like(self, csr: Csr, shape: Sequence[int] | None = None) -> Self:
        """Make embeddings of arrays that need no check."""
        made = type(self).__new__(type(self))
        SparseTensorVocabulary.__init__(made, csr, torch.Size(self.shape if shape is None else shape))
        return made

    # Form

    @property
    def dtype(self) -> torch.dtype:
        """The type of the values."""
        return self._csr.values.dtype

    @property
    def device(self) -> torch.device:
        """Where the arrays are."""
        return self._csr.values.device

    @property
    def ndim(self) -> int:
        """Two, or one for a single row."""
        return len(self.shape)

    def dim(self) -> int:
        """Return the number of dimensions."""
        return len(self.shape)

    def size(self, dim: int | None = None) -> torch.Size | int:
        """Return the shape, or one length of it."""
        return self.shape if dim is None else self.shape[dim]

    def numel(self) -> int:
        """Return how many entries the dense matrix would have."""
        return self.shape.numel()

    def __len__(self) -> int:
        """Return the first length: of a matrix its rows, of a single row its columns."""
        return self.shape[0]

    def __repr__(self) -> str:
        """Name shape, entries, type and device."""
        return (
            f"{type(self).__name__}(shape={tuple(self.shape)}, nnz={self.nnz}, dtype={self.dtype}, "
            f"device='{self.device}')"
        )

    # Entries

    @property
    def nnz(self) -> int:
        """Number of stored entries."""
        return self._csr.values.numel()

    def _nnz(self) -> int:
        return self._csr.values.numel()

    def crow_indices(self) -> Tensor:
        """Return where each row starts and last the number of entries, (N + 1) int64."""
        return self._csr.crow

    def col_indices(self) -> Tensor:
        """Return the column of each entry, (Z) int32."""
        return self._csr.col

    def values(self) -> Tensor:
        """Return the stored entries, (Z), by row and then by column."""
        return self._csr.values

    def indices(self) -> Tensor:
        """Return row and column of each entry, (2, Z) int64; of a single row the column only, (1, Z)."""
        col = self._csr.col.long()
        return col.unsqueeze(0) if self.ndim == 1 else torch.stack([row_numbers(self._csr.crow), col])

    _indices = indices
    _values = values

    def coalesce(self) -> Self:
        """Return itself: entries are sorted and unique."""
        return self

    def is_coalesced(self) -> bool:
        """Tell that entries are sorted and unique."""
        return True

    def count_nonzero(self, dim: int | None = None) -> Tensor:
        """Count entries that are not zero: all, scalar, or along a dimension, (N) or (V)."""
        csr = drop_zeros(self._csr)
        if dim is None or self.ndim == 1:
            return torch.tensor(csr.values.numel(), device=self.device)
        if dim % 2 == 1:
            return csr.crow.diff()
        return torch.bincount(csr.col, minlength=self.shape[1])

    def sum(self, dim: int | None = None) -> Tensor:
        """Add up everything, scalar, or along a dimension, as a sparse vector (N) or (V)."""
        return torch.sum(self.to_torch()) if dim is None else torch.sum(self.to_torch(), dim)

    # To other forms

    @property
    def T(self) -> Tensor:
        """The transposed COO tensor, (V, N)."""
        return self.to_torch().T

    def to_torch(self, layout: torch.layout = torch.sparse_coo) -> Tensor:
        """Return a torch tensor, coalesced COO or CSR; the values are shared.

        Raises:
            ValueError: If the layout is another one, or CSR is asked for a single row.
        """
        if layout == torch.sparse_coo:
            return torch.sparse_coo_tensor(
                self.indices(), self._csr.values, self.shape, is_coalesced=True, check_invariants=False
            )
        if layout != torch.sparse_csr or self.ndim == 1:
            raise ValueError(f"layout must be sparse_coo, or sparse_csr of a matrix, got {layout} of {self.ndim}-D")
        return torch.sparse_csr_tensor(
            self._csr.crow, self._csr.col.long(), self._csr.values, self.shape, check_invariants=False
        )

    def to_sparse(self) -> Tensor:
        """Return the coalesced torch COO tensor."""
        return self.to_torch()

    def to_dense(self) -> Tensor:
        """Return the dense matrix, (N, V), or vector, (V,)."""
        dense = torch.zeros(self.shape, dtype=self.dtype, device=self.device)
        places = self.indices()
        dense[tuple(places)] = self._csr.values
        return dense

    def tolist(self) -> list[Any]:  # Any: floats, or lists of them
        """Return the dense matrix as nested lists."""
        dense: list[Any] = self.to_dense().tolist()
        return dense

    def to(
        self,
        target: torch.device | torch.dtype | str | int | Tensor | SparseTensorVocabulary | None = None,
        dtype: torch.dtype | None = None,
        *,
        device: torch.device | str | int | None = None,
        non_blocking: bool = False,
    ) -> Self:
        """Move the arrays to a device, or change the type of the values, or both.

        Args:
            target: A device, a dtype, or something whose device and dtype to take.
            dtype: Floating type of the values.
            device: Where to.
            non_blocking: Do not wait for the copy.

        Raises:
            ValueError: If the dtype is not floating point.
        """
        if isinstance(target, torch.dtype):
            dtype = target
        elif isinstance(target, (Tensor, SparseTensorVocabulary)):
            device, dtype = target.device, target.dtype
        elif target is not None:
            device = target
        if dtype is not None and not dtype.is_floating_point:
            raise ValueError(f"dtype must be floating point, got {dtype}")
        crow, col, values = self._csr
        moved = Csr(
            crow.to(device, non_blocking=non_blocking),
            col.to(device, non_blocking=non_blocking),
            values.to(device, dtype, non_blocking=non_blocking),
        )
        return self if all(new is old for new, old in zip(moved, self._csr, strict=True)) else self._like(moved)

    def cpu(self) -> Self:
        """Return the embeddings in main memory."""
        return self.to("cpu")

    def cuda(self, device: torch.device | str | int | None = None) -> Self:
        """Return the embeddings on a CUDA device."""
        return self.to(torch.device("cuda") if device is None else device)

    def float(self) -> Self:
        """Return the embeddings with float32 values."""
        return self.to(torch.float32)

    def double(self) -> Self:
        """Return the embeddings with float64 values."""
        return self.to(torch.float64)

    def half(self) -> Self:
        """Return the embeddings with float16 values."""
        return self.to(torch.float16)

    def bfloat16(self) -> Self:
        """Return the embeddings with bfloat16 values."""
        return self.to(torch.bfloat16)

    def detach(self) -> Self:
        """Return itself: embeddings carry no gradient."""
        return self

    def clone(self) -> Self:
        """Copy the arrays."""
        return self._like(Csr(*(array.clone() for array in self._csr)))

    # Arithmetic

    def abs(self) -> Self:
        """Return absolute values."""
        return self._with_values(self._csr.values.abs())

    __abs__ = abs

    def __neg__(self) -> Self:
        """Return negated values."""
        return self._with_values(-self._csr.values)

    def __mul__(self, other: object) -> Self | Tensor:
        """Scale by a number; anything else multiplies as torch does."""
        if isinstance(other, Real):
            return self._with_values(self._csr.values * float(other))
        return self._binary(torch.mul, self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: object) -> Self | Tensor:
        """Divide by a number; anything else divides as torch does."""
        if isinstance(other, Real):
            return self._with_values(self._csr.values / float(other))
        return self._binary(torch.div, self, other)

    def __add__(self, other: object) -> Tensor:
        """Add: sparse and sparse gives sparse, sparse and dense gives dense."""
        return self._binary(torch.add, other, self)

    __radd__ = __add__

    def __sub__(self, other: Tensor | SparseTensorVocabulary) -> Tensor:
        """Subtract, with results as :meth:`__add__`."""
        return self._binary(torch.add, -other, self)

    def __rsub__(self, other: object) -> Tensor:
        """Subtract from a tensor."""
        return self._binary(torch.sub, other, self)

    def __matmul__(self, other: object) -> Tensor:
        """Multiply as matrices: by dense gives dense, by sparse gives sparse."""
        return self._binary(matrix_product, self, other)

    def __rmatmul__(self, other: object) -> Tensor:
        """Multiply as matrices from the left."""
        return self._binary(matrix_product, other, self)

    def _binary(self, function: Callable[[Any, Any], Tensor], left: object, right: object) -> Tensor:  # Any: operands
        return function(as_tensor(left), as_tensor(right))

    def _with_values(self, values: Tensor) -> Self:
        return self._like(self._csr._replace(values=values))

    if not TYPE_CHECKING:  # so that type checkers still find misspelt names

        def __getattr__(self, name: str) -> object:
            """Find any other public member of a torch tensor that does not write in place."""
            if name.startswith("_") or name.endswith("_") or not hasattr(Tensor, name):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            return getattr(self.to_torch(), name)


def as_tensor(value: Any) -> Any:  # noqa: ANN401 - an argument of a torch function
    """Replace embeddings by their COO tensors, also inside lists, tuples and dicts."""
    if isinstance(value, SparseTensorVocabulary):
        return value.to_torch()
    if type(value) in (list, tuple):
        return type(value)(as_tensor(item) for item in value)
    if type(value) is dict:
        return {key: as_tensor(item) for key, item in value.items()}
    return value
