"""Texts in the place of their ids, looked up while a dataset is read; knows neither models nor tokens."""

from __future__ import annotations

import ast
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

LABEL_COLUMNS = ("label", "labels", "score", "scores")
_INDEXED_ROWS = 50_000  # read at a time
_LONGEST_KEY = 128  # bytes of an id, 4 for a character; numpy gives every id the space of the longest

Columns = dict[str, Any]  # values of some rows by column
Lookups = Mapping[str, "Dataset | tuple[Dataset, str] | tuple[Dataset, str, str]"]


class RowNumbers:
    """Find the row of an id; of an id that occurs twice, the last.

    Numbers and short strings are kept in a sorted array: a dict of nine million of them takes a gigabyte, and every
    worker of a loader would come to have its own.

    Args:
        ids: Of the rows, in order.
    """

    def __init__(self, ids: list[Any]) -> None:
        keys = np.asarray(ids) if len(set(map(type, ids))) == 1 and isinstance(ids[0], int | str) else np.zeros(())
        is_short = keys.dtype.kind in "iU" and keys.itemsize <= _LONGEST_KEY
        self.by_id: dict[Any, int] | None = None
        if not is_short or any(isinstance(each, str) and each.endswith("\0") for each in ids):  # numpy would cut it
            self.by_id = {each: row for row, each in enumerate(ids)}
            self.num_ids = len(self.by_id)
            return
        self.rows = np.argsort(keys, kind="stable")
        self.ids = keys[self.rows]
        self.num_ids = 1 + int(np.count_nonzero(self.ids[1:] != self.ids[:-1]))

    def find(self, ids: list[Any]) -> list[int]:
        """Return the row of each id.

        Raises:
            KeyError: If there is no such id; its argument.
            TypeError: If an id is an array, a list or a tensor.
        """
        if self.by_id is not None:
            return [self.by_id[each] for each in ids]
        for each in ids:
            hash(each)
        wanted, kind = np.asarray(ids), self.ids.dtype.kind
        if wanted.dtype.kind != kind or len(set(map(type, ids))) > 1:
            for each in ids:  # numpy would make a string of a number among strings
                if np.asarray(each).dtype.kind != kind:
                    raise KeyError(each)
        places = np.searchsorted(self.ids, wanted, side="right") - 1  # of equal ids the last
        missing = self.ids[places] != wanted
        if missing.any():
            raise KeyError(ids[int(missing.argmax())])
        found: list[int] = self.rows[places].tolist()
        return found


class Lookup(NamedTuple):
    """Where the ids of one column are found."""

    column: str
    """Holds ids."""
    values: Dataset
    """Has the values as its only column."""
    rows: RowNumbers

    def find(self, ids: list[Any]) -> list[Any]:
        """Return the value of each id.

        Raises:
            KeyError: If there is no such id.
            TypeError: If an id is an array or tensor.
        """
        try:
            rows = self.rows.find(ids) if ids else []
        except KeyError as missing:
            raise KeyError(f"the id {missing.args[0]!r} of column {self.column!r} is not in its lookup") from None
        except TypeError as reason:
            raise TypeError(
                f"column {self.column!r} holds ids that cannot be looked up, {type(ids[0]).__name__}; "
                "take the dataset's format away, dataset.with_format(None)"
            ) from reason
        (name,) = self.values.column_names
        found: list[Any] = list(self.values[rows][name]) if rows else []
        return found


def resolve_ids(
    lookups: Lookups,
    keep_columns: Sequence[str] = LABEL_COLUMNS,
    max_list_length: int | None = None,
    output_format: Literal["columns", "lists"] = "columns",
) -> Callable[[Columns], Columns]:
    """Return a transform that puts texts in the place of ids, for datasets that name their texts by number.

    ``dataset.set_transform(resolve_ids({"query_id": queries, "document_ids": documents}))`` gives rows with the columns
    ``query``, ``document_1``, ``document_2``, ...; ``dataset.map(..., batched=True, remove_columns=[...])`` does the
    same once and for all. The transform can be pickled, for the workers of a loader.

    Args:
        lookups: For each column of ids, in the order in which losses want the texts: a dataset, or ``(dataset, its id
            column)``, or ``(dataset, its id column, its value column)``. The id column is the one called ``id`` or
            ``..._id``, the value column the only other one. A row of ids may be one id, a list, or a list as a string.
        keep_columns: Columns that stay as they are; all others are dropped.
        max_list_length: Cut longer lists, of ids and in the columns that stay.
        output_format: ``"columns"`` spreads a list over numbered columns, ``"lists"`` keeps it, under a plural name.

    Raises:
        ValueError: If an argument is not one of these, or a column cannot be inferred or does not exist. In the
            transform: if lists differ in length, are empty, or two results have the same name.
        TypeError: If a lookup is no ``datasets.Dataset``.
    """
    if isinstance(keep_columns, str):
        raise TypeError(f"keep_columns must be a list of names, got the string {keep_columns!r}")
    if max_list_length is not None and max_list_length < 1:
        raise ValueError(f"max_list_length must be at least 1, got {max_list_length}")
    if output_format not in ("columns", "lists"):
        raise ValueError(f"output_format must be 'columns' or 'lists', got {output_format!r}")
    indices: dict[tuple[int, str], RowNumbers] = {}  # one for all columns with the same lookup
    found = [_lookup(column, given, indices) for column, given in lookups.items()]
    return partial(
        _resolve,
        lookups=tuple(found),
        keep_columns=tuple(keep_columns),
        max_list_length=max_list_length,
        as_lists=output_format == "lists",
    )


def _lookup(column: str, given: object, indices: dict[tuple[int, str], RowNumbers]) -> Lookup:
    """Return the lookup of one column; its index may be there already."""
    from datasets import Dataset

    parts = given if isinstance(given, tuple) else (given,)
    if not 1 <= len(parts) <= 3:
        raise ValueError(f"lookups[{column!r}] must be (dataset, id column, value column), got {len(parts)} parts")
    dataset, *names = parts
    if not isinstance(dataset, Dataset):
        raise TypeError(f"lookups[{column!r}] must be a datasets.Dataset, got {type(dataset).__name__}")
    columns = dataset.column_names
    for name in names:
        if name not in columns:
            raise ValueError(f"lookups[{column!r}] has no column {name!r}; it has {sorted(columns)}")
    id_columns = names[:1] or [name for name in columns if name == "id" or name.endswith("_id")]
    if len(id_columns) != 1:
        raise ValueError(f"lookups[{column!r}] must name its id column: candidates are {id_columns or 'none'}")
    value_columns = names[1:] or [name for name in columns if name != id_columns[0]]
    if len(value_columns) != 1:
        raise ValueError(f"lookups[{column!r}] must name its value column: candidates are {value_columns or 'none'}")
    plain = dataset.with_format(None)
    key = (id(dataset), id_columns[0])
    if key not in indices:
        indices[key] = RowNumbers(list(_values_of(plain, id_columns[0])))
        if hidden := len(plain) - indices[key].num_ids:
            logger.warning("%d rows of lookups[%r] have an id that a later row has too", hidden, column)
    return Lookup(column, plain.select_columns(value_columns), indices[key])


def _values_of(dataset: Dataset, column: str) -> Iterator[Any]:
    for batch in dataset.select_columns([column]).iter(_INDEXED_ROWS):
        yield from batch[column]


def _resolve(
    batch: Columns,
    *,
    lookups: tuple[Lookup, ...],
    keep_columns: tuple[str, ...],
    max_list_length: int | None,
    as_lists: bool,
) -> Columns:
    """Return some rows with texts in the place of ids."""
    if not isinstance(batch, Mapping):
        raise TypeError(
            f"resolve_ids needs rows as a dict of columns, got {type(batch).__name__}; take the dataset's format away, "
            "dataset.with_format(None)"
        )
    resolved: Columns = {}
    for lookup in lookups:
        ids = _rows_of(batch[lookup.column], lookup.column, max_list_length)
        for name, values in _resolve_column(lookup, ids, as_lists):
            _add(resolved, name, values)
    for column in keep_columns:
        if column in batch:
            _add(resolved, column, _rows_of(batch[column], column, max_list_length))
    return resolved


def _resolve_column(lookup: Lookup, ids: Any, as_lists: bool) -> Iterator[tuple[str, list[Any]]]:  # noqa: ANN401
    """Yield the columns that one column of ids becomes."""
    name = singular_name(lookup.column)
    if not len(ids) or not isinstance(ids[0], list | tuple):
        yield name, lookup.find(list(ids))
        return
    texts = iter(lookup.find([each for row in ids for each in row]))
    rows = [[next(texts) for _ in row] for row in ids]
    if as_lists:
        yield plural_name(lookup.column), rows
        return
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1:
        raise ValueError(
            f"the lists of column {lookup.column!r} have different lengths, {lengths}; cut them with max_list_length, "
            "or keep them with output_format='lists'"
        )
    if lengths == [0]:
        raise ValueError(f"the lists of column {lookup.column!r} are empty; leave such rows out")
    for position, texts_there in enumerate(zip(*rows, strict=True), start=1):
        yield f"{name}_{position}", list(texts_there)


def _rows_of(values: Any, column: str, max_list_length: int | None) -> Any:  # noqa: ANN401  (lists, tensors, arrays)
    """Return the values of a column, strings that hold lists as lists, and none longer than the limit."""
    if len(values) and isinstance(values[0], str) and values[0].lstrip().startswith("["):
        values = [_list_in(value, column) for value in values]
    is_long = len(values) and not isinstance(values[0], str | bytes) and hasattr(values[0], "__len__")
    return values if max_list_length is None or not is_long else [row[:max_list_length] for row in values]


def _list_in(text: str, column: str) -> list[Any]:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError) as reason:
        raise ValueError(f"column {column!r} seems to hold lists as strings, but not in {text[:100]!r}") from reason
    if not isinstance(value, list | tuple):
        raise ValueError(f"column {column!r} seems to hold lists as strings, but not in {text[:100]!r}")
    return list(value)


def _add(resolved: Columns, name: str, values: Any) -> None:  # noqa: ANN401  (as above)
    if name in resolved:
        raise ValueError(f"two columns would be called {name!r}; rename the columns of ids")
    resolved[name] = values


def singular_name(column: str) -> str:
    """Return what the texts of a column of ids are called: ``query`` of ``query_id``, ``document`` of document_ids."""
    for ending in ("_ids", "_id", "_idx"):
        if column.endswith(ending):
            return column.removesuffix(ending)
    return column


def plural_name(column: str) -> str:
    """Return what lists of texts of a column of ids are called: ``documents`` of document_ids, ``queries``."""
    for ending, plural in (("y_ids", "ies"), ("_ids", "s"), ("_id", ""), ("_idx", "")):
        if column.endswith(ending):
            return column.removesuffix(ending) + plural
    return column
