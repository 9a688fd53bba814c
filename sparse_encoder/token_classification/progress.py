"""A bar that counts texts while their windows are scored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from tqdm.auto import tqdm

from sparse_encoder.token_batch import TokenBatch


def text_bar(total: int | None, *, shown: bool) -> tqdm[Any]:
    """Return what shows how many texts are done."""
    return tqdm(total=total, desc="tagging", unit="text", disable=not shown)


def window_counter(batch: TokenBatch, bar: tqdm[Any]) -> Callable[[Sequence[int]], None] | None:
    """Return what is told the rows that are done, and moves the bar on when all windows of a text are."""
    if bar.disable:
        return None
    samples = range(len(batch)) if batch.samples is None else batch.samples
    left = Counter(samples)

    def count(rows: Sequence[int]) -> None:
        for row in rows:
            left[samples[row]] -= 1
            bar.update(left[samples[row]] == 0)

    return count
