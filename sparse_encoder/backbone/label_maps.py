"""Names and numbers of the labels in a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MAX_LABELS = 1_000_000


def label_maps(
    id2label: Mapping[Any, str] | Sequence[str] | None,  # Any: 3 or "3", as JSON has it
    label2id: Mapping[str, Any] | None = None,
    *,
    num_labels: int | None = None,
) -> tuple[dict[int, str], dict[str, int]]:
    """Bring the two maps of a configuration into one form, and check that they agree.

    Args:
        id2label: Names by numbers, which may be texts; or names in order; None takes ``label2id`` or counts.
        label2id: Numbers by names; may be None. ``LABEL_0`` and so on, as many as there are other names, are those that
            transformers left in its files, and say nothing.
        num_labels: How many there must be; alone it makes ``LABEL_0``, ``LABEL_1`` and so on.

    Returns:
        Names by numbers 0, 1, ..., and the reverse.

    Raises:
        TypeError: If the names are one text.
        ValueError: If numbers are not 0 to n - 1, a name is doubled, or the arguments contradict each other.
    """
    if isinstance(id2label, str):
        raise TypeError(f"id2label must be a list of names, or a mapping of numbers to names, got {id2label!r:.80}")
    if id2label is None and label2id is None:
        if num_labels is None:
            raise ValueError("the labels must be given: id2label, label2id or num_labels")
        if not isinstance(num_labels, int) or isinstance(num_labels, bool) or not 1 <= num_labels <= MAX_LABELS:
            raise ValueError(f"num_labels must be a whole number from 1 to {MAX_LABELS}, got {num_labels!r:.100}")
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
    if label2id is not None and dict(label2id) == {f"LABEL_{number}": number for number in range(len(names))}:
        label2id = None
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
