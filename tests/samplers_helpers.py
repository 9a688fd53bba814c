"""Small datasets and second, simple implementations for the tests of the samplers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class Rows:
    """Rows by number, as few things as a sampler may count on."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


def greedy(values: list[set[Any]], batch_size: int) -> list[list[int]]:
    """Fill one batch after another, going through all that is left each time; batches of any size."""
    left = list(range(len(values)))
    batches = []
    while left:
        batch: list[int] = []
        seen: set[Any] = set()
        for row in left:
            if len(batch) < batch_size and not seen & values[row]:
                batch.append(row)
                seen |= values[row]
        batches.append(batch)
        left = [row for row in left if row not in batch]
    return batches


def interleaved(sampler: Any) -> tuple[list[list[int]], list[list[int]]]:  # noqa: ANN401  (any sampler)
    """Return two passes that were taken at the same time, a batch of each in turn."""
    first, second = iter(sampler), iter(sampler)
    found: tuple[list[list[int]], list[list[int]]] = ([], [])
    open_passes: list[tuple[int, Iterator[list[int]]]] = [(0, first), (1, second), (1, second)]
    while open_passes:
        for entry in list(open_passes):
            batch = next(entry[1], None)
            if batch is None:
                open_passes = [each for each in open_passes if each[0] != entry[0]]
            else:
                found[entry[0]].append(batch)
    return found
