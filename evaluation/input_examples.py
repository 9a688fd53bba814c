"""Examples of texts with a label, as scripts for sentence-transformers hold them; knows no evaluator."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol


class InputExample(Protocol):
    """Texts that belong together: the peer's ``InputExample`` is one, and so is anything like it."""

    @property
    def texts(self) -> Sequence[str] | None:
        """The texts."""

    @property
    def label(self) -> Any:  # noqa: ANN401  (a number; whoever takes it checks it)
        """What is known of them."""


class Columns(NamedTuple):
    """What examples hold, column by column."""

    texts: list[list[str]]
    """A list of texts for each place in an example."""
    labels: list[Any]  # as the examples have them
    """One for each example."""


def columns_of(examples: Iterable[InputExample], num_texts: int) -> Columns:
    """Take examples apart.

    Args:
        examples: At least one.
        num_texts: How many texts each must have.

    Raises:
        TypeError: If they are no list, or an example has no ``texts``, naming its row.
        ValueError: If there are none, or one has another number of texts, naming its row.
    """
    if isinstance(examples, str) or not isinstance(examples, Iterable):
        raise TypeError(f"examples must be a list, got {type(examples).__name__}")
    rows = list(examples)
    if not rows:
        raise ValueError("examples must not be empty")
    for row, example in enumerate(rows):
        texts = getattr(example, "texts", None)
        if texts is None or isinstance(texts, str):
            raise TypeError(f"examples must have a list of texts, example {row} has {texts!r}")
        if len(texts) != num_texts:
            raise ValueError(f"examples must have {num_texts} texts, example {row} has {len(texts)}")
    columns = [[(example.texts or ())[place] for example in rows] for place in range(num_texts)]
    return Columns(columns, [example.label for example in rows])
