"""What can be trained on, brought into one form; the user's objects stay as they are."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch

from sparse_encoder.training.data.names import features_wanted, is_named
from sparse_encoder.training.data.rows import Rows, checked_columns, readable, row_columns
from sparse_encoder.training.data.streams import stream_fingerprint


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrainingData:
    """One dataset or several, all with numbered rows or all streams."""

    name: str
    """What errors call it."""
    parts: dict[str, Any]
    """What rows are read from, by the name of the dataset; of a single one it is the empty string."""
    is_mapping: bool
    """Several datasets by name, perhaps only one of them."""
    is_stream: bool
    """``datasets.IterableDataset``; else rows are read by number."""

    def name_of(self, part: str) -> str:
        """Return what errors call one of the datasets."""
        return f"{self.name}[{part!r}]" if self.is_mapping else self.name

    def select(self, part: str) -> TrainingData:
        """Return one of several datasets.

        Raises:
            ValueError: If there is none of this name.
        """
        if not self.is_mapping or part not in self.parts:
            known = f"it has {list(self.parts)}" if self.is_mapping else "it is a single one"
            raise ValueError(f"{self.name} has no dataset {part!r}; {known}")
        return TrainingData(
            name=self.name_of(part), parts={"": self.parts[part]}, is_mapping=False, is_stream=self.is_stream
        )


def as_training_data(dataset: object, name: str) -> TrainingData:
    """Check what was given as data and bring it into one form.

    Args:
        dataset: A ``datasets.Dataset``, a list of dicts, an object whose rows, dicts, are read by number, or a dict or
            ``DatasetDict`` of them; a ``datasets.IterableDataset``, or a dict or ``IterableDatasetDict`` of them. None
            of them is changed.
        name: What errors call it.

    Returns:
        The data; already such data are returned as they are.

    Raises:
        ValueError: If the data are of another kind, both kinds in one dict, empty, a stream without features, without
            a text column, or with a column of a reserved name; names the dataset.
    """
    if isinstance(dataset, TrainingData):
        return dataset
    is_mapping = isinstance(dataset, Mapping)
    parts = dict(dataset) if isinstance(dataset, Mapping) else {"": dataset}
    if not parts:
        raise ValueError(f"{name} is a dict without datasets")
    streams = {key for key, part in parts.items() if isinstance(part, datasets.IterableDataset)}
    if streams and len(streams) < len(parts):
        raise ValueError(
            f"{name} has streams, {sorted(streams)}, beside datasets whose rows have numbers, "
            f"{sorted(parts.keys() - streams)}; give one kind, for example dataset.to_iterable_dataset()"
        )
    checked = {}
    for key, part in parts.items():
        label = f"{name}[{key!r}]" if is_mapping else name
        if isinstance(part, Mapping):
            raise ValueError(f"{label} holds several datasets, but dicts of datasets have one level")
        checked[key] = _checked_stream(part, label) if streams else _checked_rows(part, label)
    return TrainingData(name=name, parts=checked, is_mapping=is_mapping, is_stream=bool(streams))


def fingerprint(data: TrainingData) -> str:
    """Return a digest of names, numbers of rows, columns and a few rows: enough to tell most other data.

    Rows are read, but from no iterator of the user's, and the random generators are left as they were.
    """
    digest = hashlib.sha256(f"{data.is_mapping} {data.is_stream}".encode())
    for key, part in data.parts.items():
        with kept_randomness():
            if data.is_stream:
                found = stream_fingerprint(part)
            else:
                found = Rows(part, seed=0, name=data.name_of(key)).fingerprint()
        digest.update(f"{key!r} {found}\n".encode())
    return digest.hexdigest()


def num_rows(data: TrainingData) -> int | None:
    """Count the rows of all datasets; ``None`` for streams."""
    return None if data.is_stream else sum(len(part) for part in data.parts.values())


@contextmanager
def kept_randomness() -> Iterator[None]:
    """Put the generators of Python, numpy and torch on the CPU back to where they were."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _checked_rows(dataset: object, name: str) -> Any:  # noqa: ANN401  (anything with a length and rows by number)
    rows = readable(dataset, name)
    row_columns(rows, name)
    return rows


def _checked_stream(stream: datasets.IterableDataset, name: str) -> datasets.IterableDataset:
    if stream.features is None:
        raise ValueError(f"{name} is a stream without features; {features_wanted(stream)}")
    if getattr(stream, "_starting_state_dict", None) is not None:
        raise ValueError(
            f"{name} was told to start at a place by load_state_dict, but every epoch is a pass over the whole stream; "
            "give the stream without it, or leave rows out with stream.skip(count)"
        )
    checked_columns(list(stream.features), name, is_named=is_named(stream))
    return stream
