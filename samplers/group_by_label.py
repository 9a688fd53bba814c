"""Batches that hold several labels and at least two rows of each, for losses that find triplets within a batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator

import torch

from sparse_encoder.samplers.columns import RowsByNumber, column_names, read_column
from sparse_encoder.samplers.default import DefaultBatchSampler
from sparse_encoder.samplers.randomness import shuffled

_FEWEST = 4  # two rows of each of two labels


class GroupByLabelBatchSampler(DefaultBatchSampler):
    """Let the labels take turns, two rows at a time, and cut the stream into batches.

    The rows of each label and, in each round, the labels are in random order. A label leaves when it has less than
    two rows left, and the pass ends when less than two labels remain. The batches are the peer's.

    Args:
        dataset: A ``datasets.Dataset``, or anything with a length and rows, dicts, by number.
        batch_size: Rows of a batch: an even number, at least 4.
        drop_last: Leave out a last batch that is not full. Otherwise it is kept if it has at least 4 rows.
        valid_label_columns: The first of these names that is a column holds the labels.
        generator: Tells the device to draw on; ``None`` is the CPU. Its state is neither read nor changed.
        seed: Of epoch 0.

    Raises:
        TypeError: If ``seed`` is not an integer, a label is not hashable, or a sampler takes the dataset's place.
        ValueError: If ``batch_size`` is odd or less than 4, there is no label column, a label is None or NaN, or less
            than two labels have two rows.
    """

    def __init__(
        self,
        dataset: RowsByNumber,
        batch_size: int,
        drop_last: bool,
        valid_label_columns: list[str] | None = None,
        generator: torch.Generator | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(dataset, batch_size, drop_last, valid_label_columns, generator, seed)
        if batch_size < _FEWEST or batch_size % 2:
            raise ValueError(f"batch_size must be an even number >= {_FEWEST} to group by label, got {batch_size}")
        groups = _rows_by_label(dataset, valid_label_columns or [])
        self.groups = {label: rows for label, rows in groups.items() if len(rows) >= 2}
        if len(self.groups) < 2:
            raise ValueError(
                f"grouping by label needs two labels with two rows each; of {len(groups)} labels in {len(dataset)} "
                f"rows, these have two: {list(self.groups)}"
            )
        pairs = sorted((len(rows) // 2 for rows in self.groups.values()), reverse=True)
        self._rows_of_a_pass = 2 * sum(min(count, pairs[1]) for count in pairs)  # ends when one label is left

    def __len__(self) -> int:
        """Count the batches of a pass: the same in every epoch."""
        full, rest = divmod(self._rows_of_a_pass, self.batch_size)
        return full + (rest >= _FEWEST and not self.drop_last)

    def draw(self, generator: torch.Generator, epoch: int) -> Iterator[list[int]]:
        """Yield the batches of a pass, from a generator that is seeded for the epoch first, as the peer's is."""
        generator.manual_seed(self.seed + epoch)
        waiting: dict[Hashable, Iterator[int]] = {}
        left: dict[Hashable, int] = {}
        for label, rows in self.groups.items():
            left[label] = len(rows) // 2
            waiting[label] = iter([rows[place] for place in shuffled(len(rows), generator)])
        labels, last = list(waiting), None
        batch: list[int] = []
        while len(labels) >= 2:
            labels = [labels[place] for place in shuffled(len(labels), generator)]
            if batch and labels[0] == last:  # an open batch does not get four rows of a label in a row
                labels[0], labels[1] = labels[1], labels[0]
            for label in labels:
                left[label] -= 1
                batch += (next(waiting[label]), next(waiting[label]))
                if len(batch) == self.batch_size:
                    yield batch
                    batch = []
            last = labels[-1]
            labels = [label for label in labels if left[label]]
        if len(batch) >= _FEWEST and not self.drop_last:
            yield batch


def _rows_by_label(dataset: RowsByNumber, valid_label_columns: list[str]) -> dict[Hashable, list[int]]:
    """Return the row numbers of each label, labels in the order of their first row."""
    columns = column_names(dataset)
    column = next((name for name in valid_label_columns if name in columns), None)
    if column is None:
        raise ValueError(f"grouping by label needs a label column, one of {valid_label_columns}; there are {columns}")
    groups: defaultdict[Hashable, list[int]] = defaultdict(list)
    for row, label in enumerate(read_column(dataset, column)):
        if not isinstance(label, Hashable):
            raise TypeError(f"labels must be hashable to group by them, row {row} has {label!r} in {column!r}")
        if label is None or label != label:
            raise ValueError(f"every row needs a label to group by, row {row} has {label!r} in {column!r}")
        groups[label].append(row)
    return groups
