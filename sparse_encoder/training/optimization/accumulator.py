"""Sums of gradients over several batches; knows neither models nor optimizers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class GradientAccumulator:
    """Add up the gradients of several batches, each a list of tensors in one order.

    k batches of b rows add up to k times the gradient of one batch of k b rows if the loss is a mean over rows. They
    do not if rows of a batch are compared with each other, as in losses with in-batch negatives.
    """

    def __init__(self) -> None:
        self._gradients: list[Tensor | None] | None = None
        self._step = 0

    @property
    def step(self) -> int:
        """How many lists have been added since the last :meth:`reset`."""
        return self._step

    @property
    def gradients(self) -> list[Tensor | None]:
        """The sums; None where a parameter has not had any gradient.

        Raises:
            ValueError: If nothing has been added yet.
        """
        if self._gradients is None:
            raise ValueError("no gradients have been added yet; call the accumulator with those of a batch first")
        return list(self._gradients)

    @torch.no_grad()
    def __call__(self, gradients: Sequence[Tensor | None]) -> None:
        """Add the gradients of a batch; they are copied, not kept.

        Raises:
            ValueError: If their number is not the one of the first call.
        """
        if self._gradients is None:
            self._gradients = [None] * len(gradients)
        if len(gradients) != len(self._gradients):
            raise ValueError(f"expected {len(self._gradients)} gradients, got {len(gradients)}")
        for index, gradient in enumerate(gradients):
            if gradient is not None:
                total = self._gradients[index]
                self._gradients[index] = gradient.detach().clone() if total is None else total + gradient
        self._step += 1

    def reset(self) -> None:
        """Set the sums to zero and begin to count anew; the number of gradients stays the one of the first call."""
        self._step = 0
        if self._gradients is not None:
            self._gradients = [None if each is None else torch.zeros_like(each) for each in self._gradients]
