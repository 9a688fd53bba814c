"""Counts the terms that texts activate, on the device, told apart by the column they are from; judges nothing.

Axes: B texts of one call of a model, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sparse_encoder.training.processes import world_size

QUERIES, DOCUMENTS, TEXTS = KINDS = ("queries", "documents", "texts")
ONE_OF = {QUERIES: "query", DOCUMENTS: "document"}
"""What one of them is called, in names of settings and figures."""
_BUCKETS = 20  # of the histogram: 0 terms, 1, 2-3, 4-7, ... up to half a million
# Places in a tally, before the histogram.
_ROWS, _NOT_FINITE, _ACTIVE, _EMPTY, _DENSE, _STOP_MASS, _MASS = range(7)
_SIZE = _MASS + 1 + _BUCKETS

Features = Mapping[str, Any]  # tensors, and what is said of the texts as a whole


@dataclass(frozen=True, kw_only=True, slots=True)
class ActiveTerms:
    """What the texts between two judgements activated, in all processes together."""

    step: int
    texts: str
    """``queries``, ``documents``, or ``texts`` if nobody could tell which they are."""
    rows: int
    """Texts with finite weights, of which all that follows is told but for ``not_finite``."""
    active: float
    """Terms of a text, in the mean."""
    empty: float
    """Part of the texts without any."""
    dense: float
    """Part of the vocabulary that a text activates, in the mean."""
    stop_word_mass: float
    """Part of all weight that lies on stop words; 0 if they are not known."""
    histogram: tuple[int, ...]
    """Texts with 0 terms, 1, 2 to 3, 4 to 7, and so on in powers of two."""
    not_finite: int = 0
    """Texts with a weight that is NaN or infinite."""


class ColumnTracker:
    """Tell of the features that a model is given which column of a batch they are from.

    A mini-batch of a column shares its memory, so it is found however a loss cuts and orders its columns. Each row is
    told once: what is run again, for gradients that were not kept, is not told a second time.
    """

    def __init__(self) -> None:
        self._left: dict[int, tuple[str, int]] = {}  # by memory: what the texts are, and how many are to come

    def begin(self, columns: object) -> None:
        """Take note of the columns of a micro-batch, the query column first; anything else is forgotten."""
        self._left = {}
        for index, column in enumerate(columns if isinstance(columns, list | tuple) else ()):
            for tensor in _tensors(column):
                self._left.setdefault(_memory(tensor), (QUERIES if index == 0 else DOCUMENTS, len(tensor)))

    def take(self, features: object, rows: int) -> tuple[str, int]:
        """Return what the texts of a call are, and how many of its rows have not been told yet."""
        found = [place for place in map(_memory, _tensors(features)) if place in self._left]
        if not found:
            return TEXTS, rows
        texts, left = self._left[found[0]]
        for place in found:
            self._left[place] = (texts, max(0, left - rows))
        return texts, min(left, rows)


class Tallies:
    """Add up what texts activate until it is asked for."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}  # by what the texts are

    def add(self, texts: str, weights: Tensor, stop_ids: Tensor | None) -> None:
        """Count some rows.

        Args:
            texts: What they are.
            weights: Their term weights, (B, V).
            stop_ids: Columns of stop words.
        """
        sums = _count(weights, stop_ids)
        self._sums[texts] = self._sums[texts] + sums if texts in self._sums else sums

    def take(self, step: int, device: torch.device) -> list[ActiveTerms]:
        """Return what there is in all processes, which must all call this, and begin anew; in one transfer."""
        sums, self._sums = self._sums, {}
        several = world_size() > 1
        if not sums and not several:
            return []
        nothing = torch.zeros(_SIZE, device=device)
        table = torch.stack([sums.get(kind, nothing).to(device) for kind in KINDS])  # (kinds, 7 + buckets)
        if several:
            dist.all_reduce(table)
        return [
            _read(step, kind, row)
            for kind, row in zip(KINDS, table.tolist(), strict=True)
            if row[_ROWS] + row[_NOT_FINITE]
        ]


def _count(weights: Tensor, stop_ids: Tensor | None) -> Tensor:
    """Return rows, those not finite, active terms, empty rows, parts, masses and the histogram, (7 + buckets,).

    Rows that are not finite are in no other count.
    """
    magnitudes = weights.abs()
    is_finite = magnitudes.isfinite().all(dim=1)  # (B,)
    magnitudes = magnitudes.where(is_finite.unsqueeze(1), 0)
    active = (magnitudes > 0).sum(dim=1)  # (B,)
    mass = magnitudes.sum(dtype=torch.float32)
    on_stop_words = torch.zeros_like(mass)
    if stop_ids is not None:
        on_stop_words = magnitudes.index_select(1, stop_ids).sum(dtype=torch.float32)
    buckets = (active.float().log2().floor() + 1).clamp(min=0, max=_BUCKETS - 1)  # 0 terms give -inf, so bucket 0
    places = torch.arange(_BUCKETS, device=weights.device)
    histogram = ((buckets.unsqueeze(1) == places) & is_finite.unsqueeze(1)).sum(dim=0)
    terms = active.sum().float()
    empty = ((active == 0) & is_finite).sum().float()
    rows, not_finite = is_finite.sum().float(), (~is_finite).sum().float()
    head = [rows, not_finite, terms, empty, terms / weights.shape[1], on_stop_words, mass]
    return torch.cat([torch.stack(head), histogram.float()])


def _read(step: int, texts: str, sums: list[float]) -> ActiveTerms:
    """Return what sums say."""
    rows = max(1.0, sums[_ROWS])
    return ActiveTerms(
        step=step,
        texts=texts,
        rows=int(sums[_ROWS]),
        not_finite=int(sums[_NOT_FINITE]),
        active=sums[_ACTIVE] / rows,
        empty=sums[_EMPTY] / rows,
        dense=sums[_DENSE] / rows,
        stop_word_mass=sums[_STOP_MASS] / sums[_MASS] if sums[_MASS] else 0.0,
        histogram=tuple(int(each) for each in sums[_MASS + 1 :]),
    )


def _tensors(features: object) -> list[Tensor]:
    """Return the tensors of features that have a row for each text."""
    values = features.values() if isinstance(features, Mapping) else ()
    return [value for value in values if isinstance(value, Tensor) and value.ndim > 0 and value.numel() > 0]


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
