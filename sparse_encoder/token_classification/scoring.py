"""Runs a tagger over encoded rows: rows of one padded length together, on one device or several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from sparse_encoder.token_batch import TokenBatch, padded_length
from sparse_encoder.token_classification.aggregation import Scores

BATCH_TOKENS = {"cpu": 2048}
MOST_TOKENS = 16_384
"""Places of a batch, padding too, by kind of device: memory does not depend on how many texts there are."""


def batches_of(
    lengths: Sequence[int], max_length: int, batch_size: int | None, *, most_tokens: int = MOST_TOKENS
) -> Iterator[tuple[int, list[int]]]:
    """Put rows of one padded length together, the longest first.

    A row's padded length is its own affair, so that its scores do not depend on its neighbours.

    Args:
        lengths: Tokens of each row.
        max_length: Most tokens that the model takes.
        batch_size: Most rows of a batch; None is as many as ``most_tokens`` allow.
        most_tokens: Places of a batch, padding too.

    Yields:
        The padded length and the rows of a batch.
    """
    widths: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        widths.setdefault(padded_length(length, max(max_length, length)), []).append(row)
    for width in sorted(widths, reverse=True):
        size = batch_size or max(1, most_tokens // width)
        rows = widths[width]
        for begin in range(0, len(rows), size):
            yield width, rows[begin : begin + size]


class Scorer:
    """Compute the probabilities of labels.

    Args:
        model: Called with ``input_ids``, ``attention_mask`` and ``token_type_ids``; its output has ``logits``.
        devices: Where to run; the model is copied to each but the first.
        takes_types: Whether the model takes token types.
    """

    def __init__(self, model: nn.Module, devices: Sequence[torch.device], *, takes_types: bool) -> None:
        self.replicas = [model.to(devices[0]), *(deepcopy(model).to(device) for device in devices[1:])]
        self.devices = list(devices)
        self.takes_types = takes_types

    def __call__(
        self,
        batch: TokenBatch,
        *,
        max_length: int,
        batch_size: int | None = None,
        show_progress_bar: bool = False,
    ) -> list[Scores]:
        """Score all rows.

        Args:
            batch: The rows.
            max_length: Most tokens that the model takes.
            batch_size: As in :func:`batches_of`.
            show_progress_bar: Show how many batches are done.

        Returns:
            Probabilities of each row, (T, labels) float32 without padding.
        """
        lengths = batch.lengths
        found: dict[int, Scores] = {}
        most_tokens = min(BATCH_TOKENS.get(device.type, MOST_TOKENS) for device in self.devices)
        work = list(batches_of(lengths, max_length, batch_size, most_tokens=most_tokens))

        def run(number: int) -> None:
            width, rows = work[number]
            replica = number % len(self.devices)
            features = batch.pad(rows, length=width, device=self.devices[replica])
            if not self.takes_types:
                features.pop("token_type_ids", None)
            scores = probabilities(self.replicas[replica], features)
            left = batch.padding_side == "left"
            for row, values in zip(rows, scores.cpu().numpy(), strict=True):
                found[row] = values[width - lengths[row] :] if left else values[: lengths[row]]

        bar = tqdm(total=len(work), desc="tagging", unit="batch", disable=not show_progress_bar)
        with bar, ThreadPoolExecutor(len(self.devices)) as pool:
            for _ in pool.map(run, range(len(work))) if len(self.devices) > 1 else map(run, range(len(work))):
                bar.update()
        return [found[row] for row in range(len(lengths))]


@torch.inference_mode()
def probabilities(model: nn.Module, features: dict[str, Tensor]) -> Tensor:
    """Return the probabilities of labels, (B, T, labels) float32."""
    scores: Tensor = model(**features)["logits"].float().softmax(dim=-1)
    return scores
