"""Which of several datasets a row is from, added to the rows as they are read; the user's objects stay as they are."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeGuard

import datasets

from sparse_encoder.training.data.collator import DATASET_NAME

RESERVED_COLUMNS = (DATASET_NAME, "return_loss")
TABLE_FORMATS = ("arrow", "pandas", "polars")
_MARK = "_sparse_encoder_named"

Columns = Mapping[str, Any]  # values of some rows by column: lists, tensors, arrays
Transform = Callable[[Any], Any]  # columns to columns


class NamingSettings(Protocol):
    """What of the training arguments decides whether rows need the name of their dataset."""

    @property
    def prompts(self) -> Any:  # noqa: ANN401  (a string, or mappings of one or two levels)
        """Prompts for every column, by column, by dataset, or by both."""

    @property
    def router_mapping(self) -> Any:  # noqa: ANN401  (mappings of one or two levels)
        """Routes by column, or by dataset and column."""


class NamedDatasets(dict[str, Any]):
    """Several datasets by name, of which not all are ``datasets.Dataset`` or all ``datasets.IterableDataset``."""


class NamedRows:
    """Read rows by number, and give each the name of its dataset."""

    def __init__(self, rows: Any, dataset_name: str) -> None:  # noqa: ANN401  (anything with a length and rows)
        self.rows = rows
        self.dataset_name = dataset_name

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one row."""
        return {**self.rows[index], DATASET_NAME: self.dataset_name}


def is_named(dataset: object) -> bool:
    """Return whether :func:`add_dataset_name_column` has made this dataset, or these datasets."""
    return isinstance(dataset, NamedRows) or getattr(dataset, _MARK, False) is True


def should_dataset_name_column_be_added(dataset: object, args: NamingSettings, loss: object) -> bool:
    """Return whether rows need the name of their dataset.

    They do if there are several datasets, and losses by dataset, a dict of prompts, or routes by dataset.

    Args:
        dataset: One dataset, or several by name.
        args: Has the prompts and the routes.
        loss: One loss, or several by dataset.
    """
    return isinstance(dataset, Mapping) and _go_by_name(args.prompts, args.router_mapping, loss)


def add_dataset_name_transform(  # house: peer signature
    batch: Columns,
    dataset_name: str | None = None,
    transform: Transform | None = None,
    **format_kwargs: object,
) -> Columns:
    """Apply a transform to some rows, and add the name of their dataset.

    Args:
        batch: Values by column; not changed.
        dataset_name: Added as the column ``dataset_name``; ``None`` adds nothing.
        transform: The dataset's own transform, applied first.
        format_kwargs: Other options of the dataset's own format; as documented they change nothing.

    Returns:
        The values by column. Without columns, or without rows, nothing is added.
    """
    columns = batch if transform is None else transform(batch)
    first = next(iter(columns.values()), ())
    if dataset_name is None or len(first) == 0:
        return columns
    return {**columns, DATASET_NAME: [dataset_name] * len(first)}


def add_dataset_name_column(dataset: object, dataset_name: str | None = None) -> Any:  # noqa: ANN401  (as the dataset)
    """Return a view of a dataset whose rows have the name of the dataset as ``dataset_name``, added as they are read.

    The dataset itself, its format, transform and features stay as they are; the view keeps them.

    Args:
        dataset: One dataset of a supported kind, or several by name.
        dataset_name: The name of the one dataset; ``None`` adds nothing. Several have their own.

    Returns:
        A dataset, or several by name.

    Raises:
        ValueError: If the dataset is of no supported kind.
    """
    if isinstance(dataset, Mapping):
        views = same_kind({name: add_dataset_name_column(part, name) for name, part in dataset.items()})
        setattr(views, _MARK, True)
        return views
    if dataset_name is None or is_named(dataset):
        return dataset
    if is_listed(dataset):
        dataset = dataset_of(dataset, repr(dataset_name))
    if isinstance(dataset, datasets.Dataset):
        return _named_dataset(dataset, dataset_name)
    if isinstance(dataset, datasets.IterableDataset):
        return _named_stream(dataset, dataset_name)
    if hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__") and not isinstance(dataset, str):
        return NamedRows(dataset, dataset_name)
    raise ValueError(f"the dataset {dataset_name!r} is of no supported kind, {type(dataset).__name__}")


def maybe_add_dataset_name_column(
    dataset: object,
    prompts: object = None,
    router_mapping: object = None,
    dataset_name: str | None = None,
    *,
    args: NamingSettings,
    loss: object,
) -> Any:  # noqa: ANN401  (as the dataset)
    """Return :func:`add_dataset_name_column` of a dataset if something goes by the name, else the dataset itself.

    Args:
        dataset: One dataset, or several by name.
        prompts: ``None`` takes those of the arguments.
        router_mapping: ``None`` takes that of the arguments.
        dataset_name: The name of the one dataset; several have their own.
        args: The training arguments.
        loss: One loss, or several by dataset.
    """
    prompts = args.prompts if prompts is None else prompts
    router_mapping = args.router_mapping if router_mapping is None else router_mapping
    is_wanted = isinstance(dataset, Mapping) or dataset_name is not None
    if is_wanted and not is_named(dataset) and _go_by_name(prompts, router_mapping, loss):
        return add_dataset_name_column(dataset, dataset_name)
    return dataset


def preprocess_dataset(
    dataset: object = None,
    prompts: object = None,
    router_mapping: object = None,
    dataset_name: str | None = None,
    *,
    args: NamingSettings,
    loss: object,
) -> Any:  # noqa: ANN401  (as the dataset)
    """Check the names of a dataset's columns, and add the name of the dataset if something goes by it.

    A second call returns the result of the first. Nothing that the user holds is changed.

    Args:
        dataset: One dataset, several by name, or None.
        prompts: ``None`` takes those of the arguments.
        router_mapping: ``None`` takes that of the arguments.
        dataset_name: The name of the one dataset; several have their own.
        args: The training arguments.
        loss: One loss, or several by dataset.

    Returns:
        None for None; a plain dict of datasets becomes a ``DatasetDict`` or ``IterableDatasetDict``.

    Raises:
        ValueError: If a column has a reserved name.
    """
    if dataset is None or is_named(dataset):
        return dataset
    validate_column_names(dataset, dataset_name)
    if type(dataset) is dict:
        dataset = same_kind(dataset)
    return maybe_add_dataset_name_column(dataset, prompts, router_mapping, dataset_name, args=args, loss=loss)


def validate_column_names(dataset: object, dataset_name: str | None = None) -> None:
    """Refuse columns whose names have a meaning of their own.

    Raises:
        ValueError: If there is one; names it and the dataset.
    """
    if isinstance(dataset, Mapping):
        for name, part in dataset.items():
            validate_column_names(part, name)
    elif not is_named(dataset):
        check_not_reserved(getattr(dataset, "column_names", None) or (), repr(dataset_name or "the dataset"))


def check_not_reserved(columns: Sequence[str], name: str) -> None:
    """Refuse columns of a dataset, called ``name``, whose names have a meaning of their own."""
    if reserved := sorted(set(columns) & set(RESERVED_COLUMNS)):
        raise ValueError(f"{name} has columns with reserved names, {reserved}; rename them")


def is_listed(dataset: object) -> TypeGuard[Sequence[Mapping[str, Any]]]:
    """Return whether a dataset is a list of dicts, or another sequence of them."""
    return isinstance(dataset, Sequence) and len(dataset) > 0 and isinstance(dataset[0], Mapping)


def dataset_of(rows: Sequence[Mapping[str, Any]], name: str) -> datasets.Dataset:
    """Return rows of the same columns as a dataset.

    Raises:
        ValueError: If a row has other columns than the first one.
    """
    for number, row in enumerate(rows):
        if row.keys() != rows[0].keys():
            raise ValueError(
                f"row {number} of {name} has the columns {list(row)}, but row 0 has {list(rows[0])}; all rows need the "
                "same, and None where there is no value"
            )
    return datasets.Dataset.from_list([dict(row) for row in rows])


def same_kind(parts: Mapping[str, Any]) -> Any:  # noqa: ANN401  (one of three kinds of dict)
    """Return several datasets by name in the kind of dict that suits them."""
    if all(isinstance(part, datasets.Dataset) for part in parts.values()):
        return datasets.DatasetDict(parts)
    if all(isinstance(part, datasets.IterableDataset) for part in parts.values()):
        return datasets.IterableDatasetDict(parts)
    return NamedDatasets(parts)


def _go_by_name(prompts: object, router_mapping: object, loss: object) -> bool:
    """Return whether losses, prompts or routes may depend on the dataset."""
    nested = isinstance(router_mapping, Mapping) and any(isinstance(each, Mapping) for each in router_mapping.values())
    return isinstance(loss, Mapping) or (isinstance(prompts, Mapping) and bool(prompts)) or nested


def _named_dataset(dataset: datasets.Dataset, name: str) -> datasets.Dataset:
    """Return a shallow copy whose transform adds the name behind the dataset's own format."""
    own = dataset.format
    options = dict(own["format_kwargs"])
    transform: Transform | None = options.pop("transform", None)
    if own["type"] not in (None, "custom", *TABLE_FORMATS):
        transform = partial(_formatted, kind=own["type"], features=dataset.features, options=options)
    view = copy.copy(dataset)
    view.set_transform(
        partial(add_dataset_name_transform, dataset_name=name, transform=transform),
        columns=own["columns"],
        output_all_columns=own["output_all_columns"],
    )
    setattr(view, _MARK, True)
    return view


def _formatted(batch: Columns, *, kind: str, features: datasets.Features, options: Mapping[str, Any]) -> Columns:
    """Return some rows in a format of ``datasets``, such as torch."""
    rows = datasets.Dataset.from_dict(dict(batch), features=datasets.Features({name: features[name] for name in batch}))
    formatted: Columns = rows.with_format(kind, **options)[:]
    return formatted


def _named_stream(stream: datasets.IterableDataset, name: str) -> datasets.IterableDataset:
    """Return a stream whose rows have the name; its format is applied behind it."""
    if stream.features is None:
        raise ValueError(f"the stream {name!r} has no features; {features_wanted(stream)}")
    formatting = getattr(stream, "_formatting", None)
    view = stream.with_format(None).map(
        partial(add_dataset_name_transform, dataset_name=name),
        batched=True,
        features=datasets.Features({**stream.features, DATASET_NAME: datasets.Value("string")}),
    )
    if formatting is not None:
        view = view.with_format(formatting.format_type)
    setattr(view, _MARK, True)
    return view


def features_wanted(stream: datasets.IterableDataset) -> str:
    """Return what to write so that a stream has features, by its first row."""
    first = next(iter(stream.with_format(None).iter(1)), None)
    if first is None:
        return "and no rows"
    features = datasets.Dataset.from_dict(first).features
    return f"by its first row they could be given as stream.cast(datasets.Features({features!r}))"
