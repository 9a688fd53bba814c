"""The rows that a metric is computed on, whatever holds them, as batches of tensors; knows no model and no metric."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from sparse_encoder.training.outputs import IGNORED

Tensors = dict[str, Tensor] | Tensor


class MetricBatch(NamedTuple):
    """What a model gets, and the labels if the data keeps them apart."""

    inputs: Tensors
    labels: Tensors | None


class MetricData:
    """Read data in order, without shuffling; the last batch may be smaller.

    Args:
        data: A ``DataLoader``, which is used as it is; a dataset whose rows are read by number or one after the other
            (dicts, pairs of inputs and labels, or arrays); a dict of columns; a pair of inputs and labels, each of them
            an array or a dict of columns; or an array. Columns that are no numbers are left out.
        batch_size: Rows of a batch; needed for all but a ``DataLoader``, which has its own.
        label_columns: Names of the columns that are labels; None finds them by their usual names.

    Raises:
        ValueError: If there is no batch size, no row, or no label.
    """

    def __init__(self, data: object, *, batch_size: int | None, label_columns: Sequence[str] | None) -> None:
        self.data, self.label_columns = data, label_columns
        if isinstance(data, DataLoader):
            self.batch_size = 0
            return
        if batch_size is None or batch_size < 1:
            raise ValueError(f"batch_size must be at least 1 for an eval_dataset without batches, got {batch_size}")
        self.batch_size = batch_size
        first = next(iter(self.batches(pad_token_id=0)), None)
        if first is None:
            raise ValueError("eval_dataset has no rows")
        self.labels(first)

    def batches(self, pad_token_id: int) -> Iterator[MetricBatch]:
        """Yield all batches.

        Args:
            pad_token_id: Makes up for what a text lacks in ``input_ids``; labels get -100, all else 0.
        """
        if isinstance(self.data, DataLoader):
            for batch in self.data:
                yield _parted(batch, lambda part: _tensors(part, pad_token_id))
        elif isinstance(self.data, Mapping | tuple | Tensor | np.ndarray):
            length = _length(self.data)
            for begin in range(0, length, self.batch_size):
                rows = slice(begin, min(begin + self.batch_size, length))
                yield _parted(self.data, lambda part, rows=rows: _tensors(_cut(part, rows), pad_token_id))
        else:
            rows_left = iter(_rows(self.data))
            while some := list(islice(rows_left, self.batch_size)):
                yield _parted(_turned(some), lambda part: _tensors(part, pad_token_id))

    def labels(self, batch: MetricBatch) -> dict[str, Tensor]:
        """Return the labels of a batch by name.

        Raises:
            ValueError: If a named column is missing, or there is none with a usual name.
        """
        inputs = batch.inputs if isinstance(batch.inputs, dict) else {}
        apart = batch.labels if isinstance(batch.labels, dict) else {}
        if self.label_columns is not None:
            known = {**inputs, **apart}
            if missing := [name for name in self.label_columns if name not in known]:
                raise ValueError(f"label_cols {missing} are not in eval_dataset, which has {sorted(known)}")
            return {name: known[name] for name in self.label_columns}
        if batch.labels is not None:
            return apart if isinstance(batch.labels, dict) else {"labels": batch.labels}
        for names in (("labels",), ("start_positions", "end_positions"), ("label",)):
            if all(name in inputs for name in names):
                return {name: inputs[name] for name in names}
        raise ValueError(
            f"eval_dataset has no labels: neither pairs of inputs and labels, nor a column labels, label, or "
            f"start_positions and end_positions among {sorted(inputs)}; name the columns in label_cols"
        )


def _parted(batch: Any, convert: Any) -> MetricBatch:  # noqa: ANN401  (what datasets hold; a function)
    """Tell inputs from labels where they come as a pair."""
    if isinstance(batch, tuple | list):
        if len(batch) != 2:
            raise ValueError(
                f"a batch must be a dict, a tensor, or a pair of inputs and labels, got {len(batch)} parts"
            )
        return MetricBatch(convert(batch[0]), convert(batch[1]))
    return MetricBatch(convert(batch), None)


def _tensors(part: Any, pad_token_id: int) -> Tensors:  # noqa: ANN401  (columns or an array)
    """Return columns of numbers, or one array, as tensors."""
    if not isinstance(part, Mapping):
        return _padded(part, 0)
    fills = {"input_ids": pad_token_id, "labels": IGNORED, "label": IGNORED}
    return {name: _padded(column, fills.get(name, 0)) for name, column in part.items() if _is_numeric(column)}


def _padded(column: Any, fill: int) -> Tensor:  # noqa: ANN401  (a tensor, an array, or a list of rows)
    """Return the rows of a column as one tensor, (B, ...), those that are shorter filled up."""
    if isinstance(column, Tensor):
        return column
    if isinstance(column, np.ndarray) and column.dtype != object:
        return torch.from_numpy(np.ascontiguousarray(column))
    rows = [torch.as_tensor(row) for row in column]
    shape = [max(sizes) for sizes in zip(*(row.shape for row in rows), strict=True)]
    if all(list(row.shape) == shape for row in rows):
        return torch.stack(rows)
    result = rows[0].new_full((len(rows), *shape), fill)
    for target, row in zip(result, rows, strict=True):
        target[tuple(slice(size) for size in row.shape)] = row
    return result


def _is_numeric(column: Any) -> bool:  # noqa: ANN401  (as above)
    if isinstance(column, Tensor):
        return True
    if isinstance(column, np.ndarray) and column.dtype != object:
        return column.dtype.kind in "biuf"
    value: Any = column
    while isinstance(value, list | tuple | np.ndarray) and len(value):
        value = value[0]
    return isinstance(value, int | float | np.number | Tensor) or (isinstance(value, np.ndarray) and not len(value))


def _length(data: Any) -> int:  # noqa: ANN401  (columns, an array, or a pair)
    """Return how many rows there are.

    Raises:
        ValueError: If columns differ in length, or are datasets of their own.
    """
    if isinstance(data, tuple):
        lengths = {_length(part) for part in data}
    elif isinstance(data, Mapping):
        if any(hasattr(column, "column_names") for column in data.values()):
            raise ValueError(f"eval_dataset must be one dataset, got several: {sorted(data)}")
        lengths = {len(column) for column in data.values()}
    else:
        lengths = {len(data)}
    if len(lengths) > 1:
        raise ValueError(f"the columns of eval_dataset have different lengths: {sorted(lengths)}")
    return lengths.pop() if lengths else 0


def _cut(part: Any, rows: slice) -> Any:  # noqa: ANN401  (columns or an array)
    return {name: column[rows] for name, column in part.items()} if isinstance(part, Mapping) else part[rows]


def _rows(data: Any) -> Iterable[Any]:  # noqa: ANN401  (a dataset)
    """Return the rows of a dataset, by number if it has a length.

    Raises:
        TypeError: If it is no dataset.
    """
    if hasattr(data, "__len__") and hasattr(data, "__getitem__"):
        return (data[index] for index in range(len(data)))
    if not isinstance(data, Iterable):
        raise TypeError(f"eval_dataset must be a dataset, a DataLoader, columns, a pair or an array, got {data!r}")
    return data


def _turned(rows: list[Any]) -> Any:  # noqa: ANN401  (rows of a dataset become columns of a batch)
    """Return rows as columns: dicts as one dict, pairs as a pair, and other rows as they are."""
    first = rows[0]
    if isinstance(first, Mapping):
        return {name: [row[name] for row in rows] for name in first}
    if isinstance(first, tuple):
        return tuple(_turned(list(part)) for part in zip(*rows, strict=True))
    return np.stack([np.asarray(row) for row in rows])
