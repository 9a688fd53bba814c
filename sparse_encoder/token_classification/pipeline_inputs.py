"""What a pipeline is given: texts, lists of words, offsets of the caller's; checked, and by text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from sparse_encoder.token_batch import TokenBatch
from sparse_encoder.token_classification.aggregation import Scores
from sparse_encoder.token_classification.windows import Tokens, tokens_of

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
            return [(int(begin), int(end)) for begin, end in self.offsets[tokens.first : last]]
        if self.word_starts is None:
            return tokens.offsets
        starts = [self.word_starts[word or 0] for word in tokens.word_ids]
        return [(base + begin, base + end) for base, (begin, end) in zip(starts, tokens.offsets, strict=True)]


def text_of(row: Any, *, delimiter: str | None, offsets: Offsets | None) -> Text:  # noqa: ANN401 - checked by the tokenizer
    """Bring one input into its form.

    Args:
        row: A text, or with a delimiter a list of words.
        delimiter: Between words; None for a text.
        offsets: The caller's, or None.
    """
    if delimiter is None:
        return Text(row, None, offsets)
    words = list(row)
    ends = accumulate(len(word) + len(delimiter) for word in words)
    return Text(delimiter.join(words), [0, *ends], offsets)


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
    elif isinstance(inputs, bytes | Mapping) or not isinstance(inputs, Iterable):
        raise TypeError(f"inputs must be a text or texts, got {type(inputs).__name__}")
    rows = [inputs] if one or not isinstance(inputs, Iterable) else list(inputs)
    if not rows:
        raise ValueError("there must be at least one text, got an empty list")
    check_texts(rows, words=words)
    return rows, one


def check_texts(rows: Sequence[Any], *, words: bool) -> None:
    """Check that every row is a text, or a list of words.

    Raises:
        TypeError: If one is not, naming its place.
    """
    for number, row in enumerate(rows):
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
    pairs = bool(len(offsets)) and len(offsets[0]) == 2 and isinstance(offsets[0][0], int)
    lists = [offsets] if pairs else list(offsets)
    if len(lists) != num_texts:
        raise ValueError(f"offset_mapping must have a list for each of the {num_texts} texts, got {len(lists)}")
    return lists


def windows_by_text(batch: TokenBatch, scores: Sequence[Scores], num_texts: int) -> list[list[Tokens]]:
    """Return the windows of each text with their scores."""
    windows: list[list[Tokens]] = [[] for _ in range(num_texts)]
    samples = range(len(batch)) if batch.samples is None else batch.samples
    for sample, encoding, values in zip(samples, batch.encodings, scores, strict=True):
        windows[sample].append(tokens_of(encoding, values))
    return windows
