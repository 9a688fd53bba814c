"""Rows of text in, the features of a batch out; knows neither tokenizers nor losses.

A batch is flat: the feature ``input_ids`` of the column ``anchor`` is ``anchor_input_ids``, in the order of the
columns, which is what losses go by. :func:`split_columns` undoes it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

logger = logging.getLogger(__name__)

LABEL_COLUMNS = ("label", "labels", "score", "scores")
LABEL = "label"
DATASET_NAME = "dataset_name"
COLUMN_FEATURES = "column_features"
_MARKERS = ("_input_ids", "_sentence_embedding")  # every column of a batch has one of these features
_FEATURES = (
    "attention_mask",
    "input_ids",
    "position_ids",
    "prompt_length",
    "sentence_embedding",
    "task",
    "token_type_ids",
)
_USUAL_ORDERS = (
    ("anchor", "positive", "negative"),
    ("question", "answer"),
    ("query", "response"),
    ("hypothesis", "entailment", "contradiction"),
)

Batch = dict[str, Any]  # tensors, and plain values that a module's preprocessing adds
ByColumn = Mapping[str, str]
Prompts = str | Mapping[str, str | ByColumn] | None
Routes = Mapping[str, str | ByColumn] | None


@dataclass
class SparseEncoderDataCollator:
    """Tokenize each text column of some rows, once, and collect their labels.

    The column ``dataset_name``, which says where rows are from, is kept as one string. A mapping of prompts goes by
    dataset if it has the name of this one, else by column; so does one of routes if it holds mappings.

    Args:
        preprocess_fn: Called as ``preprocess_fn(texts, prompt=, task=)``, with ``max_length=`` where it is set; returns
            the features of one column.
        valid_label_columns: Names of label columns; the first one present becomes ``label``.
        router_mapping: The task of each column, for models with a Router; or such mappings by dataset.
        prompts: A prompt for every column, or prompts by column; or either of them by dataset.
        max_length: Most tokens of a text, for every column or by task; ``None`` leaves it to ``preprocess_fn``.
    """

    preprocess_fn: Callable[..., Mapping[str, Any]]
    valid_label_columns: Sequence[str] = LABEL_COLUMNS
    router_mapping: Routes = field(default_factory=dict, repr=False)
    prompts: Prompts = field(default_factory=dict, repr=False)
    max_length: int | dict[str, int] | None = field(default=None, repr=False)
    _columns_seen: set[tuple[str, ...]] = field(default_factory=set, init=False, repr=False)

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> Batch:  # a row holds texts, pairs, labels
        """Return the batch of some rows; no rows give an empty batch.

        Raises:
            ValueError: If the rows differ in their columns or datasets, a label is missing, no number or NaN, rows
                have different numbers of labels, or prompts go by dataset and rows have no name of one.
        """
        if not features:
            return {}
        columns = list(features[0])
        _check_columns(features)
        batch: Batch = {}
        if DATASET_NAME in columns:
            columns.remove(DATASET_NAME)
            batch[DATASET_NAME] = _one_name(features)
        if tuple(columns) not in self._columns_seen:
            self._columns_seen.add(tuple(columns))
            warn_about_columns([name for name in columns if name not in self.valid_label_columns])
        label_column = next((name for name in self.valid_label_columns if name in columns), None)
        if label_column is not None:
            columns.remove(label_column)
            batch[LABEL] = labels_of(features, label_column)
        prompts = prompts_for(self.prompts, batch.get(DATASET_NAME))
        tasks = tasks_for(self.router_mapping, batch.get(DATASET_NAME))
        parts = {}
        for column in columns:
            prompt = prompts if isinstance(prompts, str) else prompts.get(column)
            parts[column] = self._preprocess([row[column] for row in features], prompt, tasks.get(column))
        return batch | _flat(parts)

    def _preprocess(
        self,
        values: list[Any],  # texts or pairs of texts
        prompt: str | None,
        task: str | None,
    ) -> Batch:
        """Return the features of one column."""
        max_length = self.max_length
        if isinstance(max_length, dict):
            max_length = None if task is None else max_length.get(task)
        limit = {} if max_length is None else {"max_length": max_length}
        features = self.preprocess_fn(values, prompt=prompt, task=task, **limit)
        return {**features} if task is None else {**features, "task": task}


def prompts_for(prompts: Prompts, dataset_name: str | None) -> str | ByColumn:
    """Return the prompt, or the prompts by column, of the rows of one dataset.

    Args:
        prompts: For every column, by column, by dataset, or by dataset and column. A key that is the name of both a
            dataset and a column is that of the dataset.
        dataset_name: Where the rows are from; None if there is only one dataset.

    Raises:
        ValueError: If prompts go by dataset and there is only one dataset.
    """
    if prompts is None or isinstance(prompts, str):
        return {} if prompts is None else prompts
    if dataset_name is not None and dataset_name in prompts:
        return prompts[dataset_name]
    by_column = {column: prompt for column, prompt in prompts.items() if isinstance(prompt, str)}
    if len(by_column) == len(prompts):
        return by_column
    if dataset_name is None:
        raise ValueError(
            f"prompts are nested, by dataset and column, with the keys {list(prompts)}, but there is one dataset and "
            "it has no name; give prompts by column, or a dict of datasets"
        )
    return {}


def tasks_for(router_mapping: Routes, dataset_name: str | None) -> ByColumn:
    """Return the task of each column of the rows of one dataset.

    Args:
        router_mapping: By column, or by dataset and column.
        dataset_name: Where the rows are from; None if there is only one dataset.
    """
    routes = router_mapping or {}
    by_column = {column: task for column, task in routes.items() if isinstance(task, str)}
    if len(by_column) == len(routes):
        return by_column
    found = routes.get(dataset_name) if dataset_name is not None else None
    return {} if found is None or isinstance(found, str) else found


def _flat(parts: Mapping[str, Batch]) -> Batch:
    """Return the features of all columns under their names in the batch.

    Where names alone do not tell which column a feature is of, the batch says it under ``column_features``.

    Raises:
        ValueError: If features of two columns would have one name.
    """
    batch: Batch = {}
    for column, features in parts.items():
        for feature, value in features.items():
            if f"{column}_{feature}" in batch:
                raise ValueError(f"two columns have a feature {column}_{feature}; rename one of {list(parts)}")
            batch[f"{column}_{feature}"] = value
    names = {column: list(features) for column, features in parts.items()}
    guessed = {column: list(features) for column, features in _guessed_columns(batch).items()}
    return batch if guessed == names else {**batch, COLUMN_FEATURES: names}


def split_columns(batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the features of each column of a batch, in the order of the columns.

    A batch says under ``column_features`` which column has which, if that may be mistaken. Without it a key belongs to
    the column that leaves the name of a known feature, else to the longest column it begins with, so ``text``,
    ``text_pair`` and ``text_input`` stay apart. The name of the dataset belongs to none.
    """
    named: Mapping[str, Sequence[str]] = batch.get(COLUMN_FEATURES) or {}
    if not named:
        return list(_guessed_columns(batch).values())
    return [{feature: batch[f"{column}_{feature}"] for feature in features} for column, features in named.items()]


def _guessed_columns(batch: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the features of each column by the names of the keys alone."""
    names = dict.fromkeys(key.removesuffix(marker) for key in batch for marker in _MARKERS if key.endswith(marker))
    columns: dict[str, dict[str, Any]] = {name: {} for name in names}
    for key, value in batch.items():
        owners = sorted((name for name in names if key.startswith(f"{name}_")), key=len, reverse=True)
        if owners and key != DATASET_NAME:
            owner = next((name for name in owners if key[len(name) + 1 :] in _FEATURES), owners[0])
            columns[owner][key[len(owner) + 1 :]] = value
    return columns


def num_texts(batch: Mapping[str, Any]) -> int:
    """Count the rows of a batch."""
    return next((len(value) for key, value in batch.items() if isinstance(value, torch.Tensor) and value.ndim), 0)


def warn_about_columns(columns: Sequence[str]) -> None:
    """Say what looks like a mistake: columns in an unusual order, and ids that would be read as text."""
    ids = [name for name in columns if name == "id" or name.endswith(("_id", "_ids", "_idx"))]
    if ids:
        logger.warning(
            "the columns %s look like ids, but are tokenized and trained on as text; "
            "put the texts in their place, as sparse_encoder.util.resolve_ids does, or remove them",
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


def labels_of(rows: Sequence[Mapping[str, Any]], column: str) -> torch.Tensor:  # rows of texts and labels
    """Return the labels of some rows as one tensor, (B,) or (B, labels of a row).

    Args:
        rows: Of a batch.
        column: The one that holds them: numbers, lists of numbers, arrays or tensors.

    Raises:
        ValueError: If one is missing, no number or not finite, or rows have different numbers of them.
    """
    values = [row[column] for row in rows]
    first = None
    for number, value in enumerate(values):
        if value is None:
            raise ValueError(f"column {column!r} is empty in {_tell(rows, number)}")
        try:
            count = tuple(np.shape(value))
        except ValueError as reason:
            raise ValueError(f"column {column!r} holds lists of different lengths in {_tell(rows, number)}") from reason
        first = count if first is None else first
        if count != first:
            raise ValueError(
                f"column {column!r} has {count} values in {_tell(rows, number)}, but {first} in the first one; "
                "all rows of a batch need as many"
            )
    try:
        if isinstance(values[0], torch.Tensor):
            labels = torch.stack(values)
        else:
            labels = torch.tensor(np.stack(values) if isinstance(values[0], np.ndarray | np.generic) else values)
    except (TypeError, ValueError) as reason:
        raise ValueError(f"column {column!r} must hold numbers, got {values[0]!r}") from reason
    bad = (~torch.isfinite(labels)).reshape(len(rows), -1).any(dim=1)
    if bad.any():
        row = int(bad.nonzero()[0])
        raise ValueError(f"column {column!r} is {values[row]}, not finite, in {_tell(rows, row)}")
    return labels


def _tell(rows: Sequence[Mapping[str, Any]], number: int) -> str:
    """Return the position of a row in its batch, and its first text to find it by."""
    text = next((f", {name}={value[:60]!r}" for name, value in rows[number].items() if isinstance(value, str)), "")
    return f"row {number} of a batch{text}"


def _check_columns(rows: Sequence[Mapping[str, Any]]) -> None:
    first = rows[0].keys()
    for number, row in enumerate(rows):
        if row.keys() != first:
            raise ValueError(
                f"{_tell(rows, number)} has the columns {list(row)}, but the first row of it has {list(first)}; "
                "all rows of a batch need the same"
            )


def _one_name(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the name of the dataset that all rows are from."""
    names = {str(row[DATASET_NAME]) for row in rows}
    if len(names) > 1:
        raise ValueError(f"a batch has rows of several datasets, {sorted(names)}; each needs batches of its own")
    return names.pop()
