"""Runs a tagger over encoded rows: rows of one padded length together, on one device or several."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sparse_encoder.token_batch import TokenBatch
from sparse_encoder.token_batches import TOKEN_BUDGET, plan_batches
from sparse_encoder.token_classification.aggregation import Scores

BATCH_TOKENS = {"cpu": 1024}
"""Places of a batch, padding too, by kind of device: memory does not depend on how many texts there are."""


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
        links: Sequence[NDArray[np.bool_]] | None = None,
        as_paths: bool = False,
        on_rows: Callable[[Sequence[int]], None] | None = None,
    ) -> list[Scores]:
        """Score all rows. Padding goes to the right whatever the tokenizer says: so it moves no position.

        Args:
            batch: The rows.
            max_length: Most tokens that the model takes.
            batch_size: Most rows of a batch; None is as many as a number of tokens for the device allows.
            links: Which tokens of each row a linear chain goes through, (T,); None for a model without one.
            as_paths: Give 1 to the labels of the likeliest sequence and 0 to others; with ``links`` only.
            on_rows: Called with the rows of each batch that is done.

        Returns:
            Probabilities of each row, (T, labels) float32 without padding.
        """
        lengths = batch.lengths
        batch = replace(batch, padding_side="right")
        found: dict[int, Scores] = {}
        most_tokens = min(BATCH_TOKENS.get(device.type, TOKEN_BUDGET) for device in self.devices)
        work = plan_batches(
            lengths,
            max_length=max_length,
            batch_size=batch_size or sys.maxsize,
            token_budget=sys.maxsize if batch_size else most_tokens,
        )

        def run(number: int) -> list[int]:
            rows, width = work[number]
            replica = number % len(self.devices)
            features = batch.pad(rows, length=width, device=self.devices[replica])
            if not self.takes_types:
                features.pop("token_type_ids", None)
            if links is not None:
                features["chain_mask"] = _stacked([links[row] for row in rows], width).to(self.devices[replica])
            score = path_scores if as_paths else probabilities
            scores = score(self.replicas[replica], features).cpu().numpy()
            for row, values in zip(rows, scores, strict=True):
                found[row] = values[: lengths[row]]
            return rows

        with ThreadPoolExecutor(len(self.devices)) as pool:
            for rows in pool.map(run, range(len(work))) if len(self.devices) > 1 else map(run, range(len(work))):
                if on_rows is not None:
                    on_rows(rows)
        return [found[row] for row in range(len(lengths))]


def _stacked(links: Sequence[NDArray[np.bool_]], width: int) -> Tensor:
    """Return the links of some rows, (B, T)."""
    mask = np.zeros((len(links), width), dtype=np.bool_)
    for row, own in zip(mask, links, strict=True):
        row[: len(own)] = own
    return torch.from_numpy(mask)


@torch.inference_mode()
def path_scores(model: Any, features: dict[str, Tensor]) -> Tensor:  # noqa: ANN401 - a tagger with a linear chain
    """Return 1 for the labels of each chain's likeliest sequence and 0 elsewhere, (B, T, labels) float32."""
    mask = features["chain_mask"]
    paths: list[list[int]] = model.decode(**features)
    scores = torch.zeros(*mask.shape, model.num_labels)
    rows, places = mask.cpu().nonzero(as_tuple=True)
    labels = torch.tensor([label for path in paths for label in path], dtype=torch.long)
    scores[rows, places, labels] = 1.0
    return scores


@torch.inference_mode()
def probabilities(model: nn.Module, features: dict[str, Tensor]) -> Tensor:
    """Return the probabilities of labels, (B, T, labels) float32."""
    scores: Tensor = model(**features)["logits"].float().softmax(dim=-1)
    return scores
