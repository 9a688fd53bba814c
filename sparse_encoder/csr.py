"""Arithmetic on rows compressed the CSR way, as plain torch tensors on any device; knows no text and no model.

Axes: N rows, V columns, Z stored entries. ``crow`` (N + 1) int64 says where each row starts, ``col`` (Z) int32 and
``values`` (Z) hold the entries, sorted by column within a row.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from scipy import sparse
from torch import Tensor

MAX_COLUMNS = 2**31 - 1
"""Columns are numbered in 32 bits."""


class Csr(NamedTuple):
    """The three arrays of a CSR matrix.

    Attributes:
        crow: Start of each row and, last, the number of entries, (N + 1) int64.
        col: Column of each entry, (Z) int32.
        values: Each entry, (Z) floating point.
    """

    crow: Tensor
    col: Tensor
    values: Tensor


def row_numbers(crow: Tensor) -> Tensor:
    """Return the row of each entry, (Z) int64, for row starts (N + 1)."""
    rows = torch.arange(crow.numel() - 1, device=crow.device)
    return torch.repeat_interleave(rows, crow.diff())


def row_starts(counts: Tensor) -> Tensor:
    """Return where each row starts, (N + 1) int64, for entries per row (N)."""
    starts = torch.zeros(counts.numel() + 1, dtype=torch.int64, device=counts.device)
    torch.cumsum(counts, dim=0, out=starts[1:])
    return starts


def check_csr(csr: Csr, shape: tuple[int, int]) -> None:
    """Refuse arrays that are not a CSR matrix of this shape.

    Args:
        csr: The arrays.
        shape: Rows and columns.

    Raises:
        ValueError: If dtypes, sizes or devices disagree, row starts fall, columns are out of range, unsorted or doubled
            within a row, or a value is not finite.
    """
    if csr.col.dtype != torch.int32:
        raise ValueError(f"columns must be int32, got {csr.col.dtype}")
    _check_layout(csr, shape)
    _check_starts(csr)
    check_entries(csr, shape[1])
    _check_rising(csr)


def canonical(csr: Csr, shape: tuple[int, int]) -> Csr:
    """Bring arrays from outside to the form that :func:`check_csr` wants, without stored zeros.

    Args:
        csr: The arrays; columns may be of another integer type and unsorted.
        shape: Rows and columns.

    Raises:
        ValueError: As :func:`check_csr`.
    """
    _check_layout(csr, shape)
    _check_starts(csr)
    check_entries(csr, shape[1])
    csr = csr._replace(col=csr.col.to(torch.int32))
    if not bool(_rising(csr).all()):
        csr = sort_rows(csr)
        _check_rising(csr)
    return drop_zeros(csr)


def _check_starts(csr: Csr) -> None:
    first, last = csr.crow[[0, -1]].tolist()
    if first != 0 or last != csr.col.numel():
        raise ValueError(f"row starts must go from 0 to {csr.col.numel()}, got {first} to {last}")
    row = _first(csr.crow.diff() < 0)
    if row is not None:
        raise ValueError(f"row starts must not fall, row {row} goes from {csr.crow[row]} to {csr.crow[row + 1]}")


def _rising(csr: Csr) -> Tensor:
    """Tell of each entry but the first whether its column may follow the one before, (Z - 1) bool."""
    rising = csr.col.diff() > 0
    first = csr.crow[1:-1]  # a new row may start anywhere
    rising[first[(first > 0) & (first < csr.col.numel())] - 1] = True
    return rising


def _check_rising(csr: Csr) -> None:
    place = _first(~_rising(csr))
    if place is not None:
        found = csr.col[place : place + 2].tolist()
        raise ValueError(f"columns must rise within a row, row {_row_of(csr, place)} has {found}")


def _check_layout(csr: Csr, shape: tuple[int, int]) -> None:
    crow, col, values = csr
    if min(shape) < 0 or shape[1] > MAX_COLUMNS:
        raise ValueError(f"shape must be rows and at most {MAX_COLUMNS} columns, got {tuple(shape)}")
    if crow.dtype != torch.int64 or col.is_floating_point() or not values.is_floating_point():
        raise ValueError(
            "row starts must be int64, columns integers and values floating point, "
            f"got {crow.dtype}, {col.dtype} and {values.dtype}"
        )
    if crow.shape != (shape[0] + 1,) or col.ndim != 1 or col.shape != values.shape:
        raise ValueError(
            f"{shape[0]} rows need {shape[0] + 1} row starts and as many columns as values, "
            f"got shapes {tuple(crow.shape)}, {tuple(col.shape)} and {tuple(values.shape)}"
        )
    if not crow.device == col.device == values.device:
        raise ValueError(f"all arrays must be on one device, got {crow.device}, {col.device} and {values.device}")


class NotFiniteError(ValueError):
    """Weights that are NaN or infinite.

    Args:
        message: Says where.
        row: Position of the first row, or text, that has some.
    """

    def __init__(self, message: str, row: int | None = None) -> None:
        super().__init__(message)
        self.row = row


def check_entries(csr: Csr, num_columns: int) -> None:
    """Refuse columns outside ``[0, num_columns)`` and values that are not finite.

    Raises:
        ValueError: Naming the row of the first offender.
    """
    place = _first((csr.col < 0) | (csr.col >= num_columns))
    if place is not None:
        raise ValueError(f"columns must lie in [0, {num_columns}), row {_row_of(csr, place)} has {int(csr.col[place])}")
    check_finite(csr)


def check_finite(csr: Csr) -> None:
    """Refuse values that are not finite.

    Raises:
        NotFiniteError: Naming row and column of the first offender.
    """
    place = _first(~csr.values.isfinite())
    if place is not None:
        value, column = float(csr.values[place]), int(csr.col[place])
        row = _row_of(csr, place)
        raise NotFiniteError(f"values must be finite, row {row} has {value} in column {column}", row)


def _first(wrong: Tensor) -> int | None:
    return int(wrong.nonzero()[0]) if bool(wrong.any()) else None


def _row_of(csr: Csr, place: int) -> int:
    return int(torch.searchsorted(csr.crow, place, right=True)) - 1


def sort_rows(csr: Csr) -> Csr:
    """Sort the entries of each row by column; doubled columns stay, for :func:`check_csr` to find."""
    order = csr.col.argsort(stable=True)
    order = order[row_numbers(csr.crow)[order].argsort(stable=True)]
    return Csr(csr.crow, csr.col[order], csr.values[order])


def keep_entries(csr: Csr, keep: Tensor) -> Csr:
    """Keep the entries marked in ``keep``, (Z) bool."""
    kept = torch.zeros(keep.numel() + 1, dtype=torch.int64, device=keep.device)
    torch.cumsum(keep, dim=0, out=kept[1:])
    return Csr(kept[csr.crow], csr.col[keep], csr.values[keep])


def drop_zeros(csr: Csr) -> Csr:
    """Remove stored zeros; returns the same arrays when there are none."""
    keep = csr.values != 0
    return csr if bool(keep.all()) else keep_entries(csr, keep)


def compress(dense: Tensor) -> Csr:
    """Compress the non-zero entries of a dense matrix, (N, V)."""
    num_rows, num_columns = dense.shape
    flat = dense.reshape(-1)
    places = flat.nonzero()[:, 0]  # (Z)
    bounds = torch.arange(num_rows + 1, device=dense.device) * num_columns
    crow = torch.searchsorted(places, bounds)
    return Csr(crow, (places % max(num_columns, 1)).to(torch.int32), flat.index_select(0, places))


def compress_largest(dense: Tensor, k: int) -> Csr:
    """Compress the ``k`` entries of greatest absolute value of each row of a dense matrix, (N, V), zeros left out."""
    col = dense.abs().topk(min(k, dense.shape[1]), dim=1, sorted=False).indices.sort(dim=1).values  # (N, k)
    values = dense.gather(1, col)
    mask = values != 0
    return Csr(row_starts(mask.sum(dim=1)), col[mask].to(torch.int32), values[mask])


def keep_largest(csr: Csr, k: int) -> Csr:
    """Keep the ``k`` entries of greatest absolute value of each row; of equals the first columns stay."""
    if csr.crow.numel() == 1 or int(csr.crow.diff().max()) <= k:
        return csr
    rows = row_numbers(csr.crow)
    order = csr.values.abs().argsort(descending=True, stable=True)
    order = order[rows[order].argsort(stable=True)]  # by row, and in a row from great to small
    rank = torch.arange(order.numel(), device=order.device) - csr.crow[rows]
    keep = torch.zeros(order.numel(), dtype=torch.bool, device=order.device)
    keep[order] = rank < k
    return keep_entries(csr, keep)


def gather_rows(csr: Csr, rows: Tensor) -> Csr:
    """Pick rows by number, (M) int64, in the order given, repeats allowed."""
    first = csr.crow[rows]
    starts = row_starts(csr.crow[rows + 1] - first)
    shift = torch.repeat_interleave(first - starts[:-1], starts.diff())
    places = torch.arange(shift.numel(), device=shift.device) + shift
    return Csr(starts, csr.col[places], csr.values[places])


def slice_rows(csr: Csr, start: int, stop: int) -> Csr:
    """Take the rows from ``start`` up to ``stop``; the entries are views, not copies."""
    begin, end = int(csr.crow[start]), int(csr.crow[stop])
    return Csr(csr.crow[start : stop + 1] - begin, csr.col[begin:end], csr.values[begin:end])


def csr_of(tensor: Tensor) -> Csr:
    """Compress a torch tensor of any layout, (N, V), or (V,) as one row; doubled COO entries are summed.

    Raises:
        ValueError: If the layout is neither dense, COO nor CSR, or there are other than one or two dimensions.
    """
    if tensor.ndim not in (1, 2):
        raise ValueError(f"expected a matrix or a vector, got shape {tuple(tensor.shape)}")
    if tensor.layout == torch.strided:
        return compress(tensor.reshape(-1, tensor.shape[-1]))
    if tensor.layout == torch.sparse_csr:
        return Csr(tensor.crow_indices().long(), tensor.col_indices().to(torch.int32), tensor.values())
    if tensor.layout != torch.sparse_coo:
        raise ValueError(f"expected a dense, COO or CSR tensor, got layout {tensor.layout}")
    tensor = tensor.coalesce()
    places = tensor.indices()  # (2, Z), or (1, Z) for a vector
    if tensor.ndim == 1:
        counts = torch.tensor([tensor.values().numel()], device=tensor.device)
    else:
        counts = torch.bincount(places[0], minlength=tensor.shape[0])
    return Csr(row_starts(counts), places[-1].to(torch.int32), tensor.values())


def align(left: Csr, right: Csr, num_columns: int) -> tuple[Tensor, Tensor]:
    """Return the values of two matrices at each place where one of them has an entry, zero where it has none."""
    places = torch.cat([row_numbers(csr.crow) * num_columns + csr.col for csr in (left, right)])
    union, numbers = places.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    dtype = torch.promote_types(left.values.dtype, right.values.dtype)
    split = left.col.numel()
    pair = []
    for csr, at in ((left, numbers[:split]), (right, numbers[split:])):
        pair.append(torch.zeros(union.numel(), dtype=dtype, device=places.device))
        pair[-1][at] = csr.values.to(dtype)
    return pair[0], pair[1]


def matrix_product(left: Tensor, right: Tensor) -> Tensor:
    """Multiply two matrices of which one or both are sparse COO; two sparse ones give a sparse COO matrix.

    On the CPU scipy multiplies two sparse matrices: torch goes through its CSR layout there, and warns about it.
    """
    both_sparse = left.is_sparse and right.is_sparse
    if not (both_sparse and left.ndim == right.ndim == 2 and left.device.type == "cpu" == right.device.type):
        return torch.matmul(left, right)
    if left.shape[1] != right.shape[0]:
        raise RuntimeError(f"cannot multiply matrices of shapes {tuple(left.shape)} and {tuple(right.shape)}")
    dtype = torch.promote_types(left.dtype, right.dtype)
    wide = dtype if dtype in (torch.float32, torch.float64) else torch.float32
    factors = [
        sparse.coo_array((m.values().to(wide).numpy(), tuple(m.indices().numpy())), shape=tuple(m.shape)).tocsr()
        for m in (left.coalesce(), right.coalesce())
    ]
    product = (factors[0] @ factors[1]).tocoo()
    places = torch.stack([torch.from_numpy(axis.astype("int64")) for axis in product.coords])
    values = torch.from_numpy(product.data).to(dtype)
    return torch.sparse_coo_tensor(places, values, product.shape, check_invariants=False).coalesce()
