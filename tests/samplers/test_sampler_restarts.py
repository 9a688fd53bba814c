"""A sampler goes on at any step: it draws the order of that epoch alone, and only the rows that are left are read."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from accelerate import skip_first_batches
from samplers_helpers import Rows
from torch.utils.data import BatchSampler, ConcatDataset, DataLoader

from sparse_encoder import samplers

EPOCH, SKIPPED = 3, 2


class Counted(Rows):
    """Rows that count how often one is read."""

    def __init__(self, start: int, count: int) -> None:
        super().__init__([{"a": row, "label": row % 3} for row in range(start, start + count)])
        self.reads = 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.reads += 1
        return super().__getitem__(index)


def default(parts: list[Counted], kind: Callable[..., BatchSampler] = samplers.DefaultBatchSampler) -> BatchSampler:
    return kind(parts[0], 4, False, ["label"], seed=5)


def several(parts: list[Counted], kind: Callable[..., BatchSampler]) -> BatchSampler:
    inner = [samplers.DefaultBatchSampler(part, 4, False, seed=5) for part in parts]
    return kind(ConcatDataset(parts), inner, seed=5)


MAKE: dict[str, tuple[Callable[[list[Counted]], BatchSampler], int]] = {  # and how many rows are looked at beforehand
    "default": (default, 0),
    "no duplicates": (partial(default, kind=samplers.NoDuplicatesBatchSampler), 40),
    "by label": (partial(default, kind=samplers.GroupByLabelBatchSampler), 41),
    "by length": (
        partial(default, kind=partial(samplers.LengthBucketBatchSampler, max_tokens=60, lengths=list(range(1, 41)))),
        0,
    ),
    "in turn": (partial(several, kind=samplers.RoundRobinBatchSampler), 0),
    "proportional": (partial(several, kind=samplers.ProportionalBatchSampler), 0),
    "temperature": (partial(several, kind=partial(samplers.TemperatureBatchSampler, temperature=2)), 0),
    "capped": (partial(several, kind=partial(samplers.CappedProportionalBatchSampler, max_rows_per_dataset=12)), 0),
}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many numbers each random order had."""
    sizes: list[int] = []
    draw = torch.randperm

    def counting(
        count: int, *, generator: torch.Generator, dtype: torch.dtype | None = None, device: torch.device
    ) -> torch.Tensor:
        sizes.append(count)
        return draw(count, generator=generator, dtype=dtype, device=device)

    monkeypatch.setattr(torch, "randperm", counting)
    return sizes


@pytest.mark.parametrize("name", MAKE)
def test_a_restart_repeats_no_epoch_and_reads_no_row_that_is_done(name: str, drawn: list[int]) -> None:
    make, looked_at = MAKE[name]
    parts = [Counted(0, 40), Counted(40, 16)]
    straight = make(parts)
    expected = []
    for epoch in range(EPOCH + 1):
        drawn.clear()
        straight.set_epoch(epoch)  # type: ignore[attr-defined]
        expected = list(iter(straight))  # list() would ask for the length, too
    of_the_epoch = list(drawn)

    drawn.clear()
    parts = [Counted(0, 40), Counted(40, 16)]
    restarted = make(parts)
    restarted.set_epoch(EPOCH)  # type: ignore[attr-defined]
    rows: Any = parts[0] if name in list(MAKE)[:4] else ConcatDataset(parts)
    rest = skip_first_batches(DataLoader(rows, batch_sampler=restarted, collate_fn=list), SKIPPED)
    found = [[row["a"] for row in batch] for batch in rest]
    assert found == expected[SKIPPED:]
    assert len(found) > 1
    assert drawn == of_the_epoch
    assert sum(part.reads for part in parts) == looked_at + sum(map(len, found))
