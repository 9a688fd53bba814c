"""What a pipeline is given: texts, lists of words, offsets of the caller's; checked, and by text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import index
from typing import Any, Protocol, SupportsIndex, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sparse_encoder.token_batch import TokenBatch
from sparse_encoder.token_classification.aggregation import Scores
from sparse_encoder.token_classification.windows import Tokens, tokens_of
from sparse_encoder.tokenizer_engine import well_formed

Offsets = Sequence[Sequence[int]]
"""Begin and end of each token, special ones too."""


@dataclass(frozen=True, slots=True)
class Text:
    """One text, where its words begin if it came in words, and the caller's offsets."""

    text: str
    word_starts: list[int] | None
    offsets: Offsets | None

    def places(self, tokens: Tokens) -> list[tuple[int, int]]:
        """Return begin and end of each token in the text.

        Raises:
            ValueError: If the caller's offsets are not as many as the tokens.
        """
        if self.offsets is not None:
            last = tokens.first + len(tokens.ids)
            if len(self.offsets) < last:
                raise ValueError(
                    f"offset_mapping must have a pair for each token, special ones too, at least {last}, "
                    f"got {len(self.offsets)}"
                )
            return [(begin, end) for begin, end in self.offsets[tokens.first : last]]
        if self.word_starts is None:
            return tokens.offsets
        starts = [self.word_starts[word or 0] for word in tokens.word_ids]
        return [(base + begin, base + end) for base, (begin, end) in zip(starts, tokens.offsets, strict=True)]


def text_of(row: Any, *, delimiter: str | None, offsets: Offsets | None) -> Text:  # noqa: ANN401 - checked by the tokenizer
    """Bring one input into its form.

    Args:
        row: A text, or with a delimiter a list of words; as :func:`mended`.
        delimiter: Between words; None for a text.
        offsets: The caller's, or None.

    Raises:
        ValueError: If the caller's offsets are no places of the text.
    """
    if delimiter is None:
        text = Text(row, None, offsets)
    else:
        ends = accumulate(len(word) + len(delimiter) for word in row)
        text = Text(delimiter.join(row), [0, *ends], offsets)
    for number, (begin, end) in enumerate(offsets or ()):
        if not 0 <= begin <= end <= len(text.text):
            raise ValueError(
                f"offset_mapping must have places of the text, between 0 and {len(text.text)}, "
                f"got ({begin}, {end}) for token {number}"
            )
    return text


def mended(row: Any) -> Any:  # noqa: ANN401 - a text or a list of words
    """Return a text, or words, of which halves of characters are put together: what offsets count in."""
    return well_formed(row) if isinstance(row, str) else [well_formed(word) for word in row]


def checked_inputs(inputs: object, *, words: bool) -> tuple[list[Any], bool]:
    """Return the inputs as a list, and whether there is one alone.

    Raises:
        TypeError: If they are no texts, naming the first that is none.
        ValueError: If there are none.
    """
    one = isinstance(inputs, str)
    if words:
        if one:
            raise TypeError("with is_split_into_words a text must be a list of words, got a str")
        one = isinstance(inputs, Sequence) and len(inputs) > 0 and isinstance(inputs[0], str)
    rows = [inputs] if one else items_of(inputs)
    if not rows:
        raise ValueError("there must be at least one text, got an empty list")
    check_texts(rows, words=words)
    return rows, one


def items_of(inputs: object) -> list[Any]:
    """Return the items of a list, of an iterable, or of a dataset: what has a length and items by number.

    Raises:
        TypeError: If it is none of them.
    """
    if not isinstance(inputs, str | bytes | Mapping):
        if isinstance(inputs, Iterable):
            return list(inputs)
        if isinstance(inputs, SupportsItems):
            return [inputs[number] for number in range(len(inputs))]
    raise TypeError(f"inputs must be a text or texts, got {type(inputs).__name__}")


@runtime_checkable
class SupportsItems(Protocol):
    """What has a length and items by number, as the datasets of torch."""

    def __len__(self) -> int:
        """Return how many items there are."""

    def __getitem__(self, number: int) -> Any:  # noqa: ANN401 - checked by the caller
        """Return an item."""


def check_texts(rows: Sequence[Any], *, words: bool, first: int = 0) -> None:
    """Check that every row is a text, or a list of words.

    Args:
        rows: The texts.
        words: Whether they are lists of words.
        first: Texts before them, in what errors name.

    Raises:
        TypeError: If one is not, naming its place.
    """
    for number, row in enumerate(rows, first):
        if not words and not isinstance(row, str):
            hint = "; pass the column, dataset['text']" if isinstance(row, Mapping) else ""
            raise TypeError(f"inputs[{number}] must be a text, got {type(row).__name__}: {row!r:.80}{hint}")
        if words and (isinstance(row, str) or not isinstance(row, Sequence)):
            raise TypeError(f"inputs[{number}] must be a list of words, got {type(row).__name__}: {row!r:.80}")
        if words and not all(isinstance(word, str) for word in row):
            wrong = next(place for place, word in enumerate(row) if not isinstance(word, str))
            raise TypeError(f"inputs[{number}][{wrong}] must be a word, got {row[wrong]!r:.80}")


def checked_offsets(offsets: Sequence[Any] | None, num_texts: int) -> list[Offsets | None]:
    """Return the caller's offsets of each text; a list of pairs is that of a single text.

    Raises:
        ValueError: If there are not as many lists as texts.
    """
    if offsets is None:
        return [None] * num_texts
    plain = [each.tolist() if isinstance(each, np.ndarray | Tensor) else each for each in offsets]
    pairs = bool(plain) and len(plain[0]) == 2 and isinstance(plain[0][0], SupportsIndex)
    lists = [plain] if pairs else plain
    if len(lists) != num_texts:
        raise ValueError(f"offset_mapping must have a list for each of the {num_texts} texts, got {len(lists)}")
    return [[(index(begin), index(end)) for begin, end in each] for each in lists]


def windows_by_text(
    batch: TokenBatch, scores: Sequence[Scores], num_texts: int, links: Sequence[NDArray[np.bool_]] | None = None
) -> list[list[Tokens]]:
    """Return the windows of each text with their scores."""
    windows: list[list[Tokens]] = [[] for _ in range(num_texts)]
    samples = range(len(batch)) if batch.samples is None else batch.samples
    for row, (sample, encoding, values) in enumerate(zip(samples, batch.encodings, scores, strict=True)):
        windows[sample].append(tokens_of(encoding, values, None if links is None else links[row]))
    return windows
