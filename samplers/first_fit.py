"""Which batch a row goes to when no value may occur twice in a batch: the first that has room and none of its values.

Rows come one by one, in a given order. This is the same as filling one batch after another and going through all that
is left each time, which takes N² / batch_size steps where much is left over; here a row finds its batch in a few steps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ROWS_AT_A_TIME = 65_536  # as Python lists, which are large
_STRIDE = 1 << 40  # more than there are batches


def first_fit(values: NDArray[np.integer], num_values: int, batch_size: int) -> NDArray[np.int64]:
    """Assign rows to batches.

    Rows all of whose values occur once in the data are poured into the first open batch many at a time; only the
    others are looked at one by one.

    Args:
        values: Numbers below ``num_values`` that stand for the values of the rows, in the order of the rows,
            (rows, columns).
        num_values: Bound of these numbers.
        batch_size: Most rows of a batch.

    Returns:
        The batch of each row, (rows,).
    """
    count = len(values)
    repeated = np.bincount(values.ravel(), minlength=num_values) > 1
    watched = repeated[values].any(axis=1) if values.shape[1] else np.zeros(count, dtype=np.bool_)
    places = np.flatnonzero(watched)
    batches = _OpenBatches(num_values, batch_size)
    before = np.diff(places, prepend=-1) - 1  # free rows since the watched row before
    assigned: list[int] = []
    for start in range(0, len(places), _ROWS_AT_A_TIME):
        part = slice(start, start + _ROWS_AT_A_TIME)
        for free, row in zip(before[part].tolist(), values[places[part]].tolist(), strict=True):
            if free:
                batches.pour(free)
            assigned.append(batches.place(row))
    batches.pour(count - 1 - int(places[-1]) if len(places) else count)
    result = np.empty(count, dtype=np.int64)
    result[places] = assigned
    result[~watched] = np.repeat(
        np.array(batches.poured_into, dtype=np.int64), np.array(batches.poured_rows, dtype=np.int64)
    )
    return result


class _OpenBatches:
    """How full the batches are, and which values they hold.

    All batches before ``first`` are full. ``latest[v]`` is the last batch that holds the value v, and while that lies
    before ``first`` nothing else needs to be known of v. The others are in ``after``, a forest with path compression:
    under ``v * _STRIDE + k`` it has a later batch than k, if batch k holds v. Being full is one more value.
    """

    def __init__(self, num_values: int, batch_size: int) -> None:
        self.batch_size = batch_size
        self.first = 0
        self.sizes = [0]
        self.latest = [-1] * (num_values + 1)
        self.after: dict[int, int] = {}
        self.full = num_values
        self.poured_into: list[int] = []
        self.poured_rows: list[int] = []

    def pour(self, count: int) -> None:
        """Add rows that are in nobody's way."""
        while count:
            taken = min(count, self.batch_size - self.sizes[self.first])
            self.poured_into.append(self.first)
            self.poured_rows.append(taken)
            self.sizes[self.first] += taken
            count -= taken
            self._advance()

    def place(self, values: list[int]) -> int:
        """Add one row; returns its batch."""
        first, latest = self.first, self.latest
        for value in values:
            if latest[value] >= first:
                return self._place_from(first, values)
        for value in values:
            latest[value] = first
        self.sizes[first] += 1
        if self.sizes[first] == self.batch_size:
            self._advance()
        return first

    def _place_from(self, first: int, values: list[int]) -> int:
        """Add a row one of whose values is in a batch from ``first`` on."""
        batch, start = first, -1
        while batch != start:
            start = batch
            batch = self._without(self.full, batch)
            for value in values:
                batch = self._without(value, batch)
        for value in values:
            last = self.latest[value]
            if last < batch:
                if last >= first:
                    self._mark(value, last)
                self.latest[value] = batch
            elif last > batch:
                self._mark(value, batch)
        if batch == len(self.sizes):
            self.sizes.append(0)
        self.sizes[batch] += 1
        if self.sizes[batch] == self.batch_size:
            if batch == first:
                self._advance()
            else:
                self._mark(self.full, batch)
        return batch

    def _without(self, value: int, batch: int) -> int:
        """Return the first batch, from a given one on, that does not hold a value."""
        base = value * _STRIDE
        passed = []
        while (later := self.after.get(base + batch)) is not None:
            passed.append(base + batch)
            batch = later
        for key in passed:
            self.after[key] = batch
        return batch + 1 if self.latest[value] == batch else batch

    def _mark(self, value: int, batch: int) -> None:
        """Note that a batch holds a value."""
        self.after[value * _STRIDE + batch] = batch + 1

    def _advance(self) -> None:
        """Pass over full batches."""
        while self.sizes[self.first] == self.batch_size:
            self.first += 1
            if self.first == len(self.sizes):
                self.sizes.append(0)
