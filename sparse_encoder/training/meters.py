"""Running means of the loss and its terms, kept on the device; knows nothing of what they are logged for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from accelerate import Accelerator

Sums = dict[str, tuple[float, float]]
"""Weighted sums and their weights by name."""
Tables = list[list[list[Any]]]
"""Names that came together, their weighted sums, and their weights, once for every set of names."""


class LossMeter:
    """Add up scalars by name without waiting for the device; only reading the sums does.

    Args:
        filter_not_finite: Leave out a NaN or an infinity, as long as there is any other value of that name.
    """

    def __init__(self, *, filter_not_finite: bool) -> None:
        self.filter_not_finite = filter_not_finite
        self._sums: dict[tuple[str, ...], Tensor] = {}  # sums and weights of names that come together, (2, names)

    def add(self, values: Mapping[str, Tensor], weight: float = 1.0) -> None:
        """Add scalars by name, each ``weight`` times."""
        names = tuple(values)
        scalars = torch.stack(on_one_device([value.detach().float() for value in values.values()]))
        added = torch.stack([scalars * weight, torch.full_like(scalars, weight)])
        if self.filter_not_finite:
            added = added.where(scalars.isfinite(), 0.0)
        self._sums[names] = self._sums[names] + added if names in self._sums else added

    def sums(self) -> Sums:
        """Return sums and weights by name."""
        return sums_in(self.tables())

    def take_sums(self) -> Sums:
        """Return sums and weights by name, and start anew."""
        sums = self.sums()
        self._sums = {}
        return sums

    def tables(self) -> Tables:
        """Return what :meth:`load` goes on from to the same bits; JSON can hold it."""
        tables = ((names, table.tolist()) for names, table in self._sums.items())
        return [[list(names), sums, weights] for names, (sums, weights) in tables]

    def load(self, tables: Tables, device: torch.device) -> None:
        """Go on from what :meth:`tables` has returned."""
        self._sums = {tuple(names): torch.tensor([sums, weights], device=device) for names, sums, weights in tables}


def on_one_device(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors where the first one is; a model may lie on several devices."""
    return [each.to(tensors[0].device) for each in tensors]


def sums_in(tables: Tables) -> Sums:
    """Return sums and weights by name of what a meter holds."""
    return merge_sums(dict(zip(names, zip(sums, weights, strict=True), strict=True)) for names, sums, weights in tables)


def own_tables(of_all: Sequence[Tables], accelerator: Accelerator) -> Tables:
    """Return what this process goes on from; if there were more or fewer processes, the first one takes all."""
    if len(of_all) == accelerator.num_processes:
        own: Tables = of_all[accelerator.process_index]
        return own
    return [table for tables in of_all for table in tables] if accelerator.is_main_process else []


def merge_sums(many: Iterable[Sums]) -> Sums:
    """Add up sums of several processes; a name counts where it is."""
    merged: Sums = {}
    for sums in many:
        for name, (total, weight) in sums.items():
            before = merged.get(name, (0.0, 0.0))
            merged[name] = (before[0] + total, before[1] + weight)
    return merged


def means_of(sums: Sums) -> dict[str, float]:
    """Return the weighted means by name; NaN where nothing was finite."""
    return {name: total / weight if weight else math.nan for name, (total, weight) in sums.items()}


class TokenCount:
    """Count the tokens of batches on the device; only reading the count waits for it.

    Args:
        padding: Whether positions without a token count too.
    """

    def __init__(self, *, padding: bool) -> None:
        self.padding = padding
        self._on_device: Tensor | None = None
        self._known = 0

    def add(self, batch: Mapping[str, object]) -> None:
        """Count the tokens of all columns of a batch."""
        name = "input_ids" if self.padding else "attention_mask"
        for key, value in batch.items():
            if key.endswith(name) and isinstance(value, Tensor):
                if self.padding:
                    self._known += value.numel()
                else:
                    ones = value.sum()
                    self._on_device = ones if self._on_device is None else self._on_device + ones

    def take(self) -> int:
        """Return the tokens since the last call."""
        count = self._known + (0 if self._on_device is None else int(self._on_device))
        self._known, self._on_device = 0, None
        return count
