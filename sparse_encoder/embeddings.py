"""SparseEmbeddings: rows of a CSR matrix; slice, mask, convert, save. Knows no tokenizer and no model.

Axes: N rows, V columns, Z stored entries.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from safetensors.torch import save_file
from scipy import sparse
from torch import Tensor

from sparse_encoder.checkpoint.atomic import staged_folder
from sparse_encoder.checkpoint.errors import LoadError
from sparse_encoder.checkpoint.safetensors_file import read_safetensors
from sparse_encoder.csr import (
    MAX_COLUMNS,
    Csr,
    canonical,
    check_csr,
    check_finite,
    compress,
    compress_largest,
    csr_of,
    gather_rows,
    keep_largest,
    row_numbers,
    row_starts,
    slice_rows,
)
from sparse_encoder.embeddings_arrays import ArrayEmbeddings
from sparse_encoder.embeddings_torch import below_each_other, call
from sparse_encoder.embeddings_vocabulary import SparseTensorVocabulary

if TYPE_CHECKING:
    from typing_extensions import Self


class SparseEmbeddings(SparseTensorVocabulary):
    """Hold sparse rows as CSR, and answer like the torch sparse tensor that the peer returns.

    For ``isinstance`` they are no ``torch.Tensor``; :meth:`to_torch`, or ``encode`` with ``convert_to_tensor=True``,
    gives one. Functions of torch take them as they are.

    A single row has the shape ``(V,)`` and one dimension. Where a torch sparse tensor has to give up, this does not:
    rows by slice, list or boolean mask, numpy, scipy and dicts. No operation goes through a dense (N, V) matrix but
    :meth:`to_dense` and :meth:`numpy`.

    Args:
        crow_indices: Where each row starts, and last the number of entries, (N + 1) int64.
        col_indices: Column of each entry, rising within a row, (Z) int32.
        values: Each entry, (Z), floating point.
        shape: ``(N, V)``, or ``(V,)`` for a single row.
        validate: Check the arrays; leave it on for whatever was not computed here.

    Raises:
        ValueError: If the arrays are no CSR matrix of this shape, or a value is not finite.
    """

    def __init__(
        self,
        crow_indices: Tensor,
        col_indices: Tensor,
        values: Tensor,
        shape: Sequence[int],
        *,
        validate: bool = True,
    ) -> None:
        if len(shape) not in (1, 2):
            raise ValueError(f"shape must be (rows, columns), or (columns,) for one row, got {tuple(shape)}")
        super().__init__(Csr(crow_indices, col_indices, values), torch.Size(shape))
        if validate:
            check_csr(self._csr, (self._num_rows, self.shape[-1]))

    @property
    def _num_rows(self) -> int:
        return self.shape[0] if self.ndim == 2 else 1

    @classmethod
    def _of(cls, csr: Csr, shape: Sequence[int]) -> Self:
        return cls(*csr, shape, validate=False)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the arrays; they are checked when they come back."""
        return type(self), (*self._csr, tuple(self.shape))

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Copy the arrays."""
        return self.clone()

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., object],
        types: Sequence[type],
        arguments: Sequence[object] = (),
        options: Mapping[str, object] | None = None,
    ) -> object:
        """Let functions of torch take embeddings."""
        return call(function, arguments, options or {})

    # Constructors

    @classmethod
    def empty(cls, dim: int) -> Self:
        """Make zero rows of ``dim`` columns."""
        return cls(torch.zeros(1, dtype=torch.int64), torch.zeros(0, dtype=torch.int32), torch.zeros(0), (0, dim))

    @classmethod
    def from_dense(cls, dense: Tensor, *, max_active_dims: int | None = None) -> Self:
        """Compress a dense matrix or vector.

        Args:
            dense: Term weights, (N, V) or (V,); what is not floating point becomes float32.
            max_active_dims: Keep only this many entries of each row, those of greatest absolute value.

        Raises:
            ValueError: If a value is not finite, or ``max_active_dims`` is below 1.
        """
        if max_active_dims is not None and max_active_dims < 1:
            raise ValueError(f"max_active_dims must be at least 1, got {max_active_dims}")
        if dense.ndim not in (1, 2) or dense.layout != torch.strided:
            raise ValueError(
                f"expected a dense (N, V) or (V,) tensor, got {dense.layout} of shape {tuple(dense.shape)}"
            )
        floating = dense.detach() if dense.is_floating_point() else dense.float()
        matrix = floating if dense.ndim == 2 else floating.unsqueeze(0)
        csr = compress(matrix) if max_active_dims is None else compress_largest(matrix, max_active_dims)
        check_finite(csr)
        return cls._of(csr, dense.shape)

    @classmethod
    def from_torch(cls, tensor: Tensor) -> Self:
        """Take over a torch sparse tensor, COO or CSR, (N, V) or (V,); doubled COO entries are summed, zeros dropped.

        Raises:
            ValueError: If the tensor has another layout or a value that is not finite.
        """
        if tensor.layout == torch.strided:
            raise ValueError("expected a sparse COO or CSR tensor, got a dense one; use from_dense")
        csr = csr_of(tensor.detach())
        values = csr.values if csr.values.is_floating_point() else csr.values.float()
        shape = (csr.crow.numel() - 1, tensor.shape[-1])
        return cls._of(canonical(csr._replace(values=values), shape), tensor.shape)

    @classmethod
    def from_scipy(cls, matrix: sparse.sparray | sparse.spmatrix) -> Self:
        """Take over a scipy sparse matrix, (N, V); columns are sorted, zeros dropped, arrays shared where they fit.

        Raises:
            ValueError: If a row holds a column twice, an index is out of range or a value is not finite.
        """
        csr = sparse.csr_array(matrix)  # type: ignore[call-overload]  # the stubs ask for a known dtype
        if csr.ndim != 2:
            raise ValueError(f"expected a matrix, got shape {csr.shape}")
        data = csr.data if csr.data.dtype in (np.float16, np.float32, np.float64) else csr.data.astype(np.float32)
        arrays = (np.require(array, requirements=["C", "W"]) for array in (csr.indptr, csr.indices, data))
        crow, col, values = (torch.from_numpy(array) for array in arrays)
        return cls._of(canonical(Csr(crow.long(), col, values), csr.shape), csr.shape)

    @classmethod
    def from_rows(cls, rows: Sequence[Mapping[int, float]], dim: int) -> Self:
        """Build float32 rows from dicts of column to weight; zeros are dropped.

        Args:
            rows: One mapping for each row.
            dim: Number of columns.

        Raises:
            TypeError: If a column is not an integer.
            ValueError: If a column is out of range or a weight is not finite.
        """
        for number, row in enumerate(rows):
            for column in row:
                if isinstance(column, bool) or not isinstance(column, (int, np.integer)):
                    raise TypeError(f"columns must be integers, row {number} has {column!r}")
                if not 0 <= column < dim:
                    raise ValueError(f"columns must lie in [0, {dim}), row {number} has {column}")
        counts = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        col = torch.tensor([int(column) for row in rows for column in row], dtype=torch.int32)
        values = torch.tensor([float(weight) for row in rows for weight in row.values()], dtype=torch.float64)
        shape = (len(rows), dim)
        return cls._of(canonical(Csr(row_starts(counts), col, values.float()), shape), shape)

    @classmethod
    def concatenate(cls, parts: Sequence[SparseEmbeddings]) -> SparseEmbeddings:
        """Put the rows of several embeddings below each other; a single row counts as a matrix of one.

        Raises:
            ValueError: If there are no parts or their dimensions differ.
        """
        return below_each_other(parts)

    # Rows

    @overload
    def __getitem__(
        self, index: slice | Sequence[int] | NDArray[Any] | Tensor
    ) -> Self: ...  # Any: integers or booleans

    @overload
    def __getitem__(self, index: object) -> Any: ...  # noqa: ANN401 - a row, or a scalar of one

    def __getitem__(self, index: object) -> object:
        """Pick rows, in the ways of numpy and with the same result as on the dense matrix.

        Args:
            index: An integer for a single row; a slice, integers, or a boolean mask of N for a matrix. On a single row,
                and as second of two indices, an integer column, which gives a tensor of dense values.

        Raises:
            IndexError: If a row or column is out of range, or a mask has another length than N.
            TypeError: If the index is none of these.
        """
        if isinstance(index, tuple):
            if len(index) != self.ndim:
                raise IndexError(f"expected {self.ndim} indices, got {len(index)}")
            picked = self[index[0]]
            return picked if self.ndim == 1 else picked._column(index[1])
        if self.ndim == 1:
            return self._column(index)
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                return self._gather(torch.tensor(range(start, stop, step), dtype=torch.int64))
            stop = max(start, stop)
            return self._like(slice_rows(self._csr, start, stop), (stop - start, self.shape[1]))
        rows = integer_index(index, len(self))
        if isinstance(rows, int):
            return self._like(slice_rows(self._csr, rows, rows + 1), self.shape[1:])
        return self._gather(rows)

    def _gather(self, rows: Tensor) -> Self:
        return self._like(gather_rows(self._csr, rows.to(self.device)), (rows.numel(), self.shape[1]))

    def _column(self, index: object) -> object:
        """Return one column of each row, (N), of a single row a scalar; all columns for ``:``."""
        if isinstance(index, slice) and index == slice(None):
            return self
        column = integer_index(index, self.shape[-1])
        if not isinstance(column, int):
            raise TypeError("columns are picked one at a time; use to_scipy() or to_dense() for more")
        dense = torch.zeros(self._num_rows, dtype=self.dtype, device=self.device)
        hits = self._csr.col == column
        dense[row_numbers(self._csr.crow)[hits]] = self._csr.values[hits]
        return dense[0] if self.ndim == 1 else dense

    def __iter__(self) -> Iterator[Any]:  # Any: rows, or the scalars of a single row
        """Go through the rows."""
        if self.ndim == 1:
            yield from self.to_dense()
            return
        for begin, end in pairwise(self._csr.crow.tolist()):
            crow = torch.tensor([0, end - begin], device=self.device)
            yield self._like(Csr(crow, self._csr.col[begin:end], self._csr.values[begin:end]), self.shape[1:])

    def top_k(self, k: int) -> Self:
        """Keep the ``k`` entries of greatest absolute value of each row; of equals the first columns stay.

        Raises:
            ValueError: If ``k`` is below 1.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        return self._like(keep_largest(self._csr, k))

    def equal(self, other: SparseEmbeddings | Tensor) -> bool:
        """Tell whether shapes, dtypes and all values are equal."""
        return torch.equal(self, other)  # type: ignore[arg-type]

    def allclose(self, other: SparseEmbeddings | Tensor, *, rtol: float = 1e-5, atol: float = 1e-8) -> bool:
        """Tell whether all values are close, in the sense of ``torch.allclose``."""
        return torch.allclose(self, other, rtol=rtol, atol=atol)  # type: ignore[arg-type]

    # To other forms

    def to_scipy(self) -> sparse.csr_array:
        """Return a scipy CSR array, (N, V), or (1, V) of a single row; on the CPU values and columns are shared.

        Values of 16 bits become float32.
        """
        csr = self._csr
        values = csr.values if csr.values.dtype in (torch.float32, torch.float64) else csr.values.float()
        crow = csr.crow.int() if self.nnz <= MAX_COLUMNS else csr.crow  # or scipy widens, that is copies, the columns
        arrays = (values.cpu().numpy(), csr.col.cpu().numpy(), crow.cpu().numpy())
        return sparse.csr_array(arrays, shape=(self._num_rows, self.shape[-1]))

    def numpy(self) -> NDArray[Any]:  # Any: the floating type of the values
        """Return the dense matrix as a numpy array; bfloat16 becomes float32."""
        dense = self.to_dense().cpu()
        return (dense.float() if dense.dtype == torch.bfloat16 else dense).numpy()

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:  # Any: as numpy
        """Let numpy functions take the dense matrix.

        Raises:
            ValueError: If numpy asks for an array without a copy.
        """
        if copy is False:
            raise ValueError("a dense array of sparse embeddings is always a copy")
        return self.numpy().astype(dtype, copy=False) if dtype is not None else self.numpy()

    def to_dict(self) -> dict[int, float]:
        """Return a single row as a dict of column to value.

        Raises:
            ValueError: If this is a matrix.
        """
        if self.ndim != 1:
            raise ValueError("to_dict() is for a single row; use to_list_of_dicts()")
        return self.to_list_of_dicts()[0]

    def to_list_of_dicts(self) -> list[dict[int, float]]:
        """Return a dict of column to value for each row; a single row gives a list of one."""
        crow, col, values = (array.tolist() for array in self._csr)
        return [dict(zip(col[begin:end], values[begin:end], strict=True)) for begin, end in pairwise(crow)]

    # Files

    def save(self, path: str | PathLike[str]) -> None:
        """Write the embeddings to one safetensors file; a crash leaves the old file or the new one."""
        tensors = {**self._csr._asdict(), "shape": torch.tensor(self.shape)}
        target = Path(path)
        with staged_folder(target.parent) as stage:
            save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, stage / target.name)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read embeddings that :meth:`save` wrote, into main memory.

        Raises:
            LoadError: If the file is damaged or something else.
            FileNotFoundError: If there is none.
        """
        tensors = read_safetensors(Path(path))
        expected = {"shape", *Csr._fields}
        if tensors.keys() != expected:
            raise LoadError(f"expected the tensors {sorted(expected)}, got {sorted(tensors)}", path=path)
        shape = tensors.pop("shape")
        if shape.dtype != torch.int64 or shape.ndim != 1:
            raise LoadError(
                f"must be a list of integers, got {shape.dtype} of {shape.ndim}-D", path=path, field="shape"
            )
        try:
            return cls(*Csr(**tensors), shape.tolist())
        except ValueError as reason:
            raise LoadError(str(reason), path=path) from reason


# What torch.save wrote, a plain torch.load may read: the constructor checks what it is given.
torch.serialization.add_safe_globals([SparseEmbeddings])
SparseEmbeddings.register(ArrayEmbeddings)  # which answers as these do


def integer_index(index: object, length: int) -> int | Tensor:
    """Resolve an integer, integers or a boolean mask to places in ``[0, length)``.

    Returns:
        An integer for an integer, else an int64 tensor on the index's device.

    Raises:
        IndexError: If a place is out of range or a mask has another length.
        TypeError: If the index is none of these.
    """
    kind = getattr(index, "dtype", type(index))
    if getattr(index, "ndim", 0) == 0 and hasattr(index, "__index__") and kind not in (bool, np.bool_, torch.bool):
        place = operator.index(index)
        if not -length <= place < length:
            raise IndexError(f"index {place} is out of range for length {length}")
        return place % length
    if not isinstance(index, (Sequence, np.ndarray, Tensor)) or isinstance(index, (str, bytes)):
        raise TypeError(f"expected an integer, a slice, integers or a boolean mask, got {type(index).__name__}")
    places = torch.as_tensor(index if len(index) else [], dtype=None if len(index) else torch.int64)
    if places.dtype == torch.bool and places.shape == (length,):
        return places.nonzero()[:, 0]
    if places.ndim != 1 or places.dtype == torch.bool or places.is_floating_point() or places.is_complex():
        raise IndexError(
            f"expected integers or a mask of length {length}, got {places.dtype} of shape {tuple(places.shape)}"
        )
    places = places.long()
    if places.numel() and not -length <= int(places.min()) <= int(places.max()) < length:
        raise IndexError(f"indices {int(places.min())} to {int(places.max())} are out of range for length {length}")
    return torch.where(places < 0, places + length, places)
