"""Rows of text in, the features of a batch out; knows neither tokenizers nor losses.

A batch is flat: the feature ``input_ids`` of the column ``anchor`` is ``anchor_input_ids``, in the order of the
columns, which is what losses go by. :func:`split_columns` undoes it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

logger = logging.getLogger(__name__)

LABEL_COLUMNS = ("label", "labels", "score", "scores")
LABEL = "label"
_MARKERS = ("_input_ids", "_sentence_embedding")  # every column of a batch has one of these features
_USUAL_ORDERS = (
    ("anchor", "positive", "negative"),
    ("question", "answer"),
    ("query", "response"),
    ("hypothesis", "entailment", "contradiction"),
)

Batch = dict[str, Any]  # tensors, and plain values that a module's preprocessing adds


@dataclass
class SparseEncoderDataCollator:
    """Tokenize each text column of some rows, once, and collect their labels.

    Args:
        preprocess_fn: Called as ``preprocess_fn(texts, prompt=, task=)``, with ``max_length=`` where it is set; returns
            the features of one column.
        valid_label_columns: Names of label columns; the first one present becomes ``label``.
        router_mapping: The task of each column, for models with a Router.
        prompts: A prompt for every column, or prompts by column.
        max_length: Most tokens of a text, for every column or by task; ``None`` leaves it to ``preprocess_fn``.
    """

    preprocess_fn: Callable[..., Mapping[str, Any]]
    valid_label_columns: Sequence[str] = LABEL_COLUMNS
    router_mapping: dict[str, str] | None = field(default_factory=dict, repr=False)
    prompts: str | dict[str, str] | None = field(default_factory=dict, repr=False)
    max_length: int | dict[str, int] | None = field(default=None, repr=False)
    _columns_seen: set[tuple[str, ...]] = field(default_factory=set, init=False, repr=False)

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> Batch:  # a row holds texts, pairs, labels
        """Return the batch of some rows, all with the columns of the first; no rows give an empty batch."""
        if not features:
            return {}
        columns = list(features[0])
        if tuple(columns) not in self._columns_seen:
            self._columns_seen.add(tuple(columns))
            warn_about_columns([name for name in columns if name not in self.valid_label_columns])
        batch: Batch = {}
        label_column = next((name for name in self.valid_label_columns if name in columns), None)
        if label_column is not None:
            columns.remove(label_column)
            batch[LABEL] = _labels([row[label_column] for row in features])
        for column in columns:
            batch.update(self._preprocess(column, [row[column] for row in features]))
        return batch

    def _preprocess(self, column: str, values: list[Any]) -> Batch:  # texts or pairs of texts
        """Return the features of one column under their names in the batch."""
        task = (self.router_mapping or {}).get(column)
        prompt = self.prompts if isinstance(self.prompts, str) else (self.prompts or {}).get(column)
        max_length = self.max_length
        if isinstance(max_length, dict):
            max_length = None if task is None else max_length.get(task)
        limit = {} if max_length is None else {"max_length": max_length}
        features = self.preprocess_fn(values, prompt=prompt, task=task, **limit)
        batch = {f"{column}_{key}": value for key, value in features.items()}
        if task is not None:
            batch[f"{column}_task"] = task
        return batch


def split_columns(batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the features of each column of a batch, in the order of the columns.

    A key belongs to the longest column name it begins with, so ``text`` and ``text_pair`` stay apart.
    """
    names = dict.fromkeys(key.removesuffix(marker) for key in batch for marker in _MARKERS if key.endswith(marker))
    columns: dict[str, dict[str, Any]] = {name: {} for name in names}
    for key, value in batch.items():
        owners = [name for name in names if key.startswith(f"{name}_")]
        if owners:
            owner = max(owners, key=len)
            columns[owner][key[len(owner) + 1 :]] = value
    return list(columns.values())


def num_tokens(batch: Mapping[str, Any]) -> int:
    """Count the token positions of a batch, padding included."""
    return sum(value.numel() for key, value in batch.items() if key.endswith("_input_ids"))


def num_texts(batch: Mapping[str, Any]) -> int:
    """Count the rows of a batch."""
    return next((len(value) for key, value in batch.items() if isinstance(value, torch.Tensor) and value.ndim), 0)


def warn_about_columns(columns: Sequence[str]) -> None:
    """Say what looks like a mistake: columns in an unusual order, and ids that would be read as text."""
    ids = [name for name in columns if name == "id" or name.endswith(("_id", "_ids", "_idx"))]
    if ids:
        logger.warning(
            "the columns %s look like ids, but are tokenized and trained on as text; "
            "put the texts in their place, or remove them",
            ids,
        )
    for usual in _USUAL_ORDERS:
        if any(name in columns and columns.index(name) != place for place, name in enumerate(usual)):
            logger.warning(
                "the columns come as %s, usually as %s; losses go by the order, the first column is the query. "
                "dataset.select_columns(%s) would put them in order",
                list(columns),
                list(usual),
                [name for name in usual if name in columns],
            )
            return


def _labels(values: list[Any]) -> torch.Tensor:  # numbers, lists of numbers or tensors
    """Return the labels of a batch as one tensor."""
    return torch.stack(values) if isinstance(values[0], torch.Tensor) else torch.tensor(values)
