"""What a card says of a dataset: where it is from, its size and columns, samples, texts to try a model with.

A dataset is anything with rows by number, or a stream, of which no row is read. Nothing is fetched: what is known of
a dataset's origin is what it carries along.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from sparse_encoder.model_card_columns import NUM_ROWS, TokenCounter, look_at_rows
from sparse_encoder.model_card_markdown import clean, shorten

DatasetFacts = dict[str, Any]
"""Plain values by name: ``name``, ``id``, ``revision``, ``config``, ``split``, ``size`` and more, as far as known."""

NAME_COLUMN = "dataset_name"
"""A column that a trainer adds to tell datasets apart; not part of the data."""

_SOURCE = "hf://datasets/"
_LENGTH_OF_COMMIT = 40
_LONGEST_EXAMPLE = 500
_NUM_WIDGETS = 5
_NUM_DOCUMENTS = 3


class Examples(NamedTuple):
    """Texts to try a model with."""

    widget: list[dict[str, str]]
    """For the widget of the hub."""
    usage: list[str]
    """A query, and documents that it may be compared with; empty if there are too few texts."""


def describe_dataset(
    dataset: object, *, name: str | None = None, count_tokens: TokenCounter | None = None
) -> DatasetFacts:
    """Describe a dataset.

    Args:
        dataset: With rows, dicts, by number; or a stream.
        name: Its name among others; by default its own.
        count_tokens: Counts the tokens of texts; without it characters are counted.

    Returns:
        ``origin`` facts, ``size``, ``columns``; with rows also ``num_rows``, ``statistics`` and ``samples``.
    """
    facts = origin(dataset)
    if name is not None:
        facts["name"] = name
    size = num_rows(dataset)
    if size is not None:
        facts["size"] = size
    found = look_at_rows(_rows(dataset), count_tokens)
    columns = [column for column in found.columns or _column_names(dataset) if column != NAME_COLUMN]
    facts["columns"] = columns
    if found.num_rows:
        facts["num_rows"] = found.num_rows
        facts["statistics"] = {
            column: {"type": each.kind, "details": each.details}
            for column, each in found.columns.items()
            if column in columns
        }
        facts["samples"] = [{column: row.get(column, "") for column in columns} for row in found.samples]
    return facts


def origin(dataset: object) -> DatasetFacts:
    """Return name, hub id, revision, configuration and split of a dataset, as far as it carries them."""
    info = getattr(dataset, "info", None)
    split = getattr(dataset, "split", None)
    facts = {
        "name": getattr(info, "dataset_name", None),
        "config": getattr(info, "config_name", None),
        "split": None if split is None else str(split),
    }
    if facts["config"] == "default":
        facts["config"] = None
    checksums = getattr(info, "download_checksums", None) or {}
    source = next((str(each) for each in checksums if str(each).startswith(_SOURCE) and "@" in str(each)), None)
    if source is not None:
        facts["id"], _, rest = source.removeprefix(_SOURCE).partition("@")
        revision = rest.partition("/")[0]
        facts["revision"] = revision if len(revision) == _LENGTH_OF_COMMIT else None
    return {name: value for name, value in facts.items() if value}


def num_rows(dataset: object) -> int | None:
    """Return the number of rows, of a stream as far as its description has it; None if it is not known."""
    if _has_rows(dataset):
        size: int = dataset.__len__()  # type: ignore[attr-defined]
        return size
    splits = getattr(getattr(dataset, "info", None), "splits", None) or {}
    split = splits.get(str(getattr(dataset, "split", None)))
    return getattr(split, "num_examples", None) or None


def find_examples(datasets: Mapping[str, object]) -> Examples:
    """Choose short texts out of the first rows of datasets, the same ones every time.

    Args:
        datasets: By name; streams are left out.
    """
    rows: list[list[str]] = []
    for dataset in datasets.values():
        for row in _rows(dataset):
            texts = _texts(row)
            if texts:
                rows.append(texts)
    rows.sort(key=lambda texts: sum(map(len, texts)))  # stable
    firsts = list(dict.fromkeys(texts[0] for texts in rows))
    pairs = [texts for texts in rows if len(texts) > 1]
    widget = [{"text": text} for text in firsts[:_NUM_WIDGETS]]
    if pairs:
        query, documents = pairs[0][0], [texts[1] for texts in pairs]
    else:
        query, documents = (firsts or [""])[0], firsts[1:]
    usage = [query, *list(dict.fromkeys(documents))[:_NUM_DOCUMENTS]]
    return Examples(widget=widget, usage=usage if len(usage) > 1 else [])


def _texts(row: object) -> list[str]:
    """Return the texts of a row in the order of its columns; none if one of them is empty."""
    values = row.items() if isinstance(row, Mapping) else ()
    texts = [str(value) for name, value in values if isinstance(value, str) and name != NAME_COLUMN]
    return [clean(shorten(text, _LONGEST_EXAMPLE)) for text in texts] if all(map(str.strip, texts)) else []


def _has_rows(dataset: object) -> bool:
    return hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")


def _rows(dataset: Any) -> Iterator[object]:  # noqa: ANN401  (anything with rows by number, or a stream)
    """Yield the first rows; none of a stream."""
    if _has_rows(dataset):
        for index in range(min(len(dataset), NUM_ROWS)):
            yield dataset[index]


def _column_names(dataset: object) -> list[str]:
    """Return the columns that a stream or an empty dataset says it has."""
    names = getattr(dataset, "column_names", None) or getattr(dataset, "features", None) or ()
    return [str(name) for name in names]
