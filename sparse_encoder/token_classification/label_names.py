"""Names of labels and their numbers: out of datasets and configurations, and into them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sparse_encoder.token_classification.tags import OUTSIDE

if TYPE_CHECKING:
    from datasets import Dataset


def sorted_names(names: Iterable[str]) -> list[str]:
    """Return label names in the order of numbers that nothing else gives: ``O`` first, then by the alphabet."""
    return sorted(set(names), key=lambda name: (name != OUTSIDE, name))


def get_label_names(dataset: Dataset, column: str = "ner_tags") -> list[str]:
    """Return the names of the labels of a column, in the order of their numbers.

    Args:
        dataset: Its column holds a list of labels for each row: class labels, or names.
        column: The column.

    Raises:
        ValueError: If there is no such column, or its labels are numbers without names.
    """
    if column not in dataset.column_names:
        raise ValueError(f"there is no column {column!r}; choose from {sorted(dataset.column_names)}")
    inner = getattr(dataset.features[column], "feature", None)
    names = getattr(inner, "names", None)
    if names:
        return list(names)
    if getattr(inner, "dtype", None) in ("string", "large_string"):
        return sorted_names(name for row in dataset[column] for name in row)
    raise ValueError(
        f"the labels of column {column!r} have no names ({dataset.features[column]}); "
        "cast it to List(ClassLabel(names=[...])), or pass the names"
    )


def label_maps(
    id2label: Mapping[Any, str] | Sequence[str] | None,  # Any: 3 or "3", as JSON has it
    label2id: Mapping[str, Any] | None = None,
    num_labels: int | None = None,
) -> tuple[dict[int, str], dict[str, int]]:
    """Bring the two maps of a configuration into one form, and check that they agree.

    Args:
        id2label: Names by numbers, which may be texts; or names in order; None takes ``label2id`` or counts.
        label2id: Numbers by names; may be None.
        num_labels: How many there must be; alone it makes ``LABEL_0``, ``LABEL_1`` and so on.

    Returns:
        Names by numbers 0, 1, ..., and the reverse.

    Raises:
        ValueError: If numbers are not 0 to n - 1, a name is doubled, or the arguments contradict each other.
    """
    if id2label is None and label2id is None:
        if num_labels is None:
            raise ValueError("the labels must be given: id2label, label2id or num_labels")
        id2label = {number: f"LABEL_{number}" for number in range(num_labels)}
    if id2label is None:
        names = {_number(value, "label2id"): name for name, value in (label2id or {}).items()}
    elif isinstance(id2label, Mapping):
        names = {_number(key, "id2label"): name for key, name in id2label.items()}
    else:
        names = dict(enumerate(id2label))
    if sorted(names) != list(range(len(names))) or not names:
        raise ValueError(f"labels must be numbered 0 to n - 1 without holes, got {sorted(names)[:20]}")
    if len(set(names.values())) < len(names) or not all(isinstance(name, str) for name in names.values()):
        raise ValueError(f"names of labels must be texts, each once, got {list(names.values())[:20]}")
    names = dict(sorted(names.items()))
    reverse = {name: number for number, name in names.items()}
    if label2id is not None and {name: _number(value, "label2id") for name, value in label2id.items()} != reverse:
        raise ValueError(f"label2id must be the reverse of id2label, got {dict(label2id)} and {names}")
    if num_labels is not None and num_labels != len(names):
        raise ValueError(f"num_labels must be the number of labels, {len(names)}, got {num_labels}; leave it out")
    return names, reverse


def _number(value: object, what: str) -> int:
    """Read the number of a label, which JSON may have made a text."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    raise ValueError(f"numbers of labels in {what} must be whole numbers, got {value!r}")
