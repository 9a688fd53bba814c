"""A 64-bit hash of every value of every row, the same in every process; equal values have equal hashes."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparse_encoder.samplers.columns import is_table, read_columns

_PLAIN = (str, int, float, bool, bytes, type(None), np.integer, np.floating, np.bool_)
_MAPPED = "row_hashes"  # the column in which datasets.map returns them


def hash_rows(
    dataset: Any,  # noqa: ANN401  (a datasets.Dataset or rows by number)
    *,
    exclude: Collection[str],
    batch_size: int,
    num_proc: int,
) -> NDArray[np.int64]:
    """Hash the values of all rows.

    Args:
        dataset: A ``datasets.Dataset``, or anything with a length and rows by number.
        exclude: Columns that do not count.
        batch_size: Rows read at a time.
        num_proc: Processes that share the work; more than one by ``datasets.Dataset.map``.

    Returns:
        Hashes, (rows, columns).

    Raises:
        ValueError: If rows differ in their columns, or several processes shall read what is no ``datasets.Dataset``.
    """
    count = len(dataset)
    if num_proc > 1 and not is_table(dataset):
        raise ValueError(
            f"precompute_num_proc={num_proc} needs a datasets.Dataset; "
            f"a {type(dataset).__name__} is hashed by one process"
        )
    num_proc = min(num_proc, count // batch_size)  # no process without a batch of its own
    if num_proc > 1:
        return _hash_by_processes(dataset, exclude, batch_size, num_proc)
    starts = range(0, count, batch_size)
    parts = [_hash_columns(read_columns(dataset, row, min(row + batch_size, count)), exclude) for row in starts]
    widths = sorted({part.shape[1] for part in parts})
    if len(widths) > 1:
        raise ValueError(f"all rows must have the same columns, got rows with {widths[0]} and with {widths[-1]}")
    return np.concatenate(parts) if parts else np.zeros((0, 0), dtype=np.int64)


def value_text(value: Any) -> str:  # noqa: ANN401  (whatever a row holds)
    """Return what stands for a value when values are compared, as in the peer.

    Plain values are their ``str``, lists of plain values too; lists and dicts of others go by their items, and whatever
    else by a digest of its pickle, because its ``str`` may hold an address in memory.
    """
    if isinstance(value, _PLAIN):
        return str(value)
    if isinstance(value, list | tuple):
        if all(isinstance(item, _PLAIN) for item in value):
            return str(value)
        return "[" + ", ".join(map(value_text, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {value_text(item)}" for key, item in value.items()) + "}"
    encoded = getattr(value, "_hf_encoded", None)  # decoders of sound and films: what they decode
    try:
        return hashlib.sha256(pickle.dumps(value if encoded is None else encoded)).hexdigest()
    except (pickle.PicklingError, TypeError, AttributeError, ValueError):
        return str(value)  # cannot be pickled


def _hash_values(values: Sequence[Any]) -> NDArray[np.int64]:
    """Hash the values of one column."""
    from xxhash import xxh3_64_intdigest  # which comes with datasets

    texts = (value if type(value) is str else value_text(value) for value in values)
    digests = (xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")) for text in texts)
    return np.fromiter(digests, dtype=np.uint64, count=len(values)).view(np.int64)


def _hash_columns(columns: Any, exclude: Collection[str]) -> NDArray[np.int64]:  # noqa: ANN401  (a dict of columns)
    """Hash some rows, given by column; returns (rows, columns)."""
    count = len(next(iter(columns.values()), ()))
    hashes = [_hash_values(values) for name, values in columns.items() if name not in exclude]
    return np.stack(hashes, axis=1) if hashes else np.zeros((count, 0), dtype=np.int64)


def _hash_mapped(columns: Any, exclude: Collection[str]) -> dict[str, list[list[int]]]:  # noqa: ANN401  (as above)
    return {_MAPPED: _hash_columns(columns, exclude).tolist()}


def _hash_by_processes(
    dataset: Any,  # noqa: ANN401  (a datasets.Dataset)
    exclude: Collection[str],
    batch_size: int,
    num_proc: int,
) -> NDArray[np.int64]:
    """Hash the rows of a ``datasets.Dataset`` by several processes."""
    mapped = dataset.map(
        _hash_mapped,
        batched=True,
        batch_size=batch_size,
        num_proc=num_proc,
        remove_columns=dataset.column_names,
        fn_kwargs={"exclude": sorted(exclude)},
        desc="Hashing rows",
    )
    rows = mapped.data.column(_MAPPED).combine_chunks()
    values = rows.flatten().to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
    return np.asarray(values).reshape(len(dataset), -1)
