"""Batches of one padded length each. It sees numbers of tokens only.

The padded length of a text depends on that text alone, and a batch holds one padded length. On CPU in float32 a text's
vector is then the same to the bit whatever else is in the batch.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from sparse_encoder.token_batch import padded_length

TOKEN_BUDGET = 16_384
"""Most padded tokens of one batch: 32 texts of 512 tokens, so that the default batch size is never cut."""


CHUNK_TEXTS = 8_192
"""Texts that are tokenised, and sorted by length, at a time: memory does not grow with the corpus."""


class Batch(NamedTuple):
    """Rows that are run together."""

    rows: list[int]
    """Positions of the texts."""
    length: int
    """Tokens each of them is padded to."""


def plan_batches(
    lengths: Sequence[int], *, max_length: int | None, batch_size: int, token_budget: int = TOKEN_BUDGET
) -> list[Batch]:
    """Sort texts into batches, the longest first.

    Args:
        lengths: Number of tokens of each text, after truncation.
        max_length: Number of tokens at which texts are cut, where padding stops too; ``None`` for no limit.
        batch_size: Most texts of a batch.
        token_budget: Most padded tokens of a batch that has more than one text.

    Returns:
        Batches in which each row comes once; within a length the rows keep their order.
    """
    limit = sys.maxsize if max_length is None else max_length
    buckets: defaultdict[int, list[int]] = defaultdict(list)
    for row, length in enumerate(lengths):
        buckets[max(length, padded_length(length, limit))].append(row)
    return [
        batch
        for length in sorted(buckets, reverse=True)
        for batch in split_batch(Batch(buckets[length], length), batch_size=batch_size, token_budget=token_budget)
    ]


def split_batch(batch: Batch, *, batch_size: int, token_budget: int) -> list[Batch]:
    """Cut a batch into pieces of at most ``batch_size`` texts and ``token_budget`` tokens, at least one text each."""
    size = max(1, min(batch_size, token_budget // max(1, batch.length)))
    return [Batch(batch.rows[start : start + size], batch.length) for start in range(0, len(batch.rows), size)]
