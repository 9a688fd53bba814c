"""ArrayEmbeddings: the rows of SparseEmbeddings in numpy arrays, for processes that do not import torch.

Everything that needs torch is answered by :class:`SparseEmbeddings`, made of the same arrays when it is first asked
for. Axes: N rows, V columns, Z stored entries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray
from safetensors.numpy import save_file
from scipy import sparse

from sparse_encoder.checkpoint.atomic import staged_folder

if TYPE_CHECKING:
    from sparse_encoder.embeddings import SparseEmbeddings


class Arrays(NamedTuple):
    """The arrays of a CSR matrix.

    Attributes:
        starts: Start of each row and, last, the number of entries, (N + 1) int64.
        columns: Column of each entry, rising within a row, (Z) int32.
        values: Each entry, (Z) floating point.
        dim: Number of columns.
    """

    starts: NDArray[np.int64]
    columns: NDArray[np.int32]
    values: NDArray[np.floating[Any]]
    dim: int


class ArrayEmbeddings:
    """Hold sparse rows as CSR in numpy arrays; where torch is imported, ``isinstance`` calls it SparseEmbeddings.

    Rows by integer, slice, list and mask, numpy, scipy, dicts, files and search work without torch. Any other member of
    :class:`SparseEmbeddings` (``to_torch``, ``to_dense``, ``indices``, functions of torch, arithmetic other than with a
    number) imports torch.

    Args:
        arrays: The entries; they are not checked.
        single: Whether this is one row of the shape ``(V,)``.
    """

    __array_priority__ = 1000

    def __init__(self, arrays: Arrays, *, single: bool = False) -> None:
        self.arrays = arrays
        self._single = single
        self._torch: SparseEmbeddings | None = None

    @classmethod
    def from_dense(cls, dense: NDArray[Any], *, max_active_dims: int | None = None) -> ArrayEmbeddings:
        """Compress a dense matrix, (N, V).

        Args:
            dense: Term weights; Any: a floating type.
            max_active_dims: Keep only this many entries of each row, those of greatest absolute value; of equals the
                first columns stay.
        """
        rows, columns = np.nonzero(dense)
        starts = np.zeros(dense.shape[0] + 1, dtype=np.int64)
        np.cumsum(np.bincount(rows, minlength=dense.shape[0]), out=starts[1:])
        made = cls(Arrays(starts, columns.astype(np.int32), dense[rows, columns], dense.shape[1]))
        return made if max_active_dims is None else made.top_k(max_active_dims)

    @classmethod
    def from_pairs(cls, columns: NDArray[Any], weights: NDArray[Any], dim: int) -> ArrayEmbeddings:
        """Compress indices and weights of k entries a row, (N, k) each; entries of weight 0 are dropped.

        Args:
            columns: Column of each entry, different ones within a row; Any: an integer type.
            weights: Each entry; Any: a floating type.
            dim: Number of columns V.

        Raises:
            ValueError: If a column is outside the V, or comes twice in a row.
        """
        order = np.argsort(columns, axis=1, kind="stable")
        columns, weights = np.take_along_axis(columns, order, axis=1), np.take_along_axis(weights, order, axis=1)
        if columns.size and not 0 <= columns[:, 0].min() <= columns[:, -1].max() < dim:
            low, high = columns[:, 0].min(), columns[:, -1].max()
            raise ValueError(f"columns must be between 0 and {dim - 1}, got {low} to {high}")
        is_double = columns[:, 1:] == columns[:, :-1]
        if is_double.any():
            row, place = np.argwhere(is_double)[0]
            raise ValueError(f"columns must be different ones within a row, row {row} has {columns[row, place]} twice")
        keep = weights != 0
        starts = np.zeros(len(columns) + 1, dtype=np.int64)
        np.cumsum(keep.sum(axis=1), out=starts[1:])
        return cls(Arrays(starts, columns[keep].astype(np.int32), weights[keep], dim))

    @classmethod
    def concatenate(cls, parts: Sequence[ArrayEmbeddings], dim: int) -> ArrayEmbeddings:
        """Put the rows of several embeddings of ``dim`` columns below each other; none give no rows."""
        arrays = [part.arrays for part in parts]
        counts = [np.zeros(0, dtype=np.int64), *(np.diff(each.starts) for each in arrays)]
        starts = np.concatenate([np.zeros(1, dtype=np.int64), np.concatenate(counts).cumsum()])
        columns = np.concatenate([np.zeros(0, dtype=np.int32), *(each.columns for each in arrays)])
        values = np.concatenate([np.zeros(0, dtype=np.float32), *(each.values for each in arrays)])
        return cls(Arrays(starts, columns, values, dim))

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the arrays."""
        return _rebuild, (tuple(self.arrays), self._single)

    # Form

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, V)``, or ``(V,)`` of a single row."""
        dim = self.arrays.dim
        return (dim,) if self._single else (len(self.arrays.starts) - 1, dim)

    @property
    def ndim(self) -> int:
        """Two, or one for a single row."""
        return len(self.shape)

    @property
    def nnz(self) -> int:
        """Number of stored entries."""
        return len(self.arrays.values)

    def __len__(self) -> int:
        """Return the first length: of a matrix its rows, of a single row its columns."""
        return self.shape[0]

    def __repr__(self) -> str:
        """Name shape, entries and type."""
        return f"ArrayEmbeddings(shape={self.shape}, nnz={self.nnz}, dtype={self.arrays.values.dtype})"

    # Rows

    def __getitem__(self, index: object) -> Any:  # noqa: ANN401 - rows, a row, or what torch makes of other indices
        """Pick a row by an integer, rows by a slice, integers or a mask of N; other indices are torch's affair."""
        count = len(self)
        whole = isinstance(index, (int, np.integer)) and not isinstance(index, bool)
        if self._single or isinstance(index, tuple) or not (whole or isinstance(index, (slice, list, np.ndarray))):
            return self.to_embeddings()[index]
        if whole and not -count <= index < count:  # type: ignore[operator]  # an integer, as `whole` says
            raise IndexError(f"index {index} is out of range for length {count}")
        if isinstance(index, list) and not index:
            index = slice(0, 0)
        if isinstance(index, (list, np.ndarray)) and np.ndim(index) > 1:
            told = f"{np.asarray(index).dtype} of shape {np.shape(index)}"
            raise IndexError(f"expected integers or a mask of length {count}, got {told}")
        chosen: Any = index  # one of what numpy takes
        places = np.atleast_1d(np.arange(count)[chosen])
        return self._rows(places, single=whole)

    def _rows(self, places: NDArray[np.int64], *, single: bool = False) -> ArrayEmbeddings:
        starts, columns, values, dim = self.arrays
        counts = starts[1:][places] - starts[:-1][places]
        ends = np.concatenate([np.zeros(1, dtype=np.int64), counts.cumsum()])
        source = np.arange(ends[-1]) + np.repeat(starts[:-1][places] - ends[:-1], counts)
        return ArrayEmbeddings(Arrays(ends, columns[source], values[source], dim), single=single)

    def __iter__(self) -> Iterator[Any]:  # Any: rows, or the scalars of a single row
        """Go through the rows."""
        if self._single:
            yield from self.numpy()
            return
        for row in range(len(self)):
            yield self[row]

    def top_k(self, k: int) -> ArrayEmbeddings:
        """Keep the ``k`` entries of greatest absolute value of each row; of equals the first columns stay.

        Raises:
            ValueError: If ``k`` is below 1.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        starts, columns, values, dim = self.arrays
        rows = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        order = np.lexsort((columns, -np.abs(values), rows))
        keep = np.zeros(len(values), dtype=bool)
        keep[order] = np.arange(len(values)) - starts[:-1][rows] < k
        ends = np.concatenate([np.zeros(1, dtype=np.int64), keep.cumsum()])[starts]
        return ArrayEmbeddings(Arrays(ends, columns[keep], values[keep], dim), single=self._single)

    # To other forms

    def to_scipy(self) -> sparse.csr_array:
        """Return a scipy CSR array that shares the arrays, (N, V), or (1, V) of a single row."""
        starts, columns, values, dim = self.arrays
        return sparse.csr_array((values, columns, starts), shape=(len(starts) - 1, dim))

    def numpy(self) -> NDArray[Any]:  # Any: the floating type of the values
        """Return the dense matrix, (N, V), or vector, (V,)."""
        dense: NDArray[Any] = self.to_scipy().toarray()
        return dense[0] if self._single else dense

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
        if not self._single:
            raise ValueError("to_dict() is for a single row; use to_list_of_dicts()")
        return self.to_list_of_dicts()[0]

    def to_list_of_dicts(self) -> list[dict[int, float]]:
        """Return a dict of column to value for each row; a single row gives a list of one."""
        bounds, columns, values = (array.tolist() for array in self.arrays[:3])
        pairs = zip(bounds[:-1], bounds[1:], strict=True)
        return [dict(zip(columns[begin:end], values[begin:end], strict=True)) for begin, end in pairs]

    def save(self, path: str | PathLike[str]) -> None:
        """Write the embeddings to the file that :meth:`SparseEmbeddings.load` reads."""
        starts, columns, values, _ = self.arrays
        tensors = {"crow": starts, "col": columns, "values": values, "shape": np.array(self.shape, dtype=np.int64)}
        target = Path(path)
        with staged_folder(target.parent) as stage:
            save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, stage / target.name)

    def to_embeddings(self) -> SparseEmbeddings:
        """Return :class:`SparseEmbeddings` of the same arrays; imports torch."""
        if self._torch is None:
            from sparse_encoder.embeddings import SparseEmbeddings

            matrix = SparseEmbeddings.from_scipy(self.to_scipy())
            self._torch = matrix[0] if self._single else matrix
        return self._torch

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., object],
        types: Sequence[type],
        arguments: Sequence[object] = (),
        options: Mapping[str, object] | None = None,
    ) -> object:
        """Let functions of torch take the rows."""
        from sparse_encoder.embeddings_torch import call

        return call(function, arguments, options or {})

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any member of SparseEmbeddings
        """Answer as :class:`SparseEmbeddings` does."""
        if name.startswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.to_embeddings(), name)


def _rebuild(arrays: tuple[Any, ...], single: bool) -> ArrayEmbeddings:  # Any: what Arrays holds
    return ArrayEmbeddings(Arrays(*arrays), single=single)


_OPERATORS = ["abs", "neg", "mul", "rmul", "truediv", "add", "radd", "sub", "rsub", "matmul", "rmatmul"]
_OF_VALUES = {"__abs__", "__neg__", "__mul__", "__rmul__", "__truediv__"}
"""With numbers these change the values alone, which takes no torch."""


def _operator(name: str) -> Any:  # noqa: ANN401 - a method
    def apply(self: ArrayEmbeddings, *operands: object) -> object:
        if name in _OF_VALUES and all(isinstance(each, Real) for each in operands):
            numbers = [float(each) for each in operands if isinstance(each, Real)]
            values = getattr(self.arrays.values, name)(*numbers)
            return ArrayEmbeddings(self.arrays._replace(values=values), single=self._single)
        plain = [each.to_embeddings() if isinstance(each, ArrayEmbeddings) else each for each in operands]
        return getattr(self.to_embeddings(), name)(*plain)

    apply.__name__ = name
    apply.__doc__ = f"Do what ``SparseEmbeddings.{name}`` does."
    return apply


for _name in _OPERATORS:
    setattr(ArrayEmbeddings, f"__{_name}__", _operator(f"__{_name}__"))
