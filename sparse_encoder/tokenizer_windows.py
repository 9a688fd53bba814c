"""Texts and lists of words as windows: every token with its offsets and its word, and long texts in overlapping rows.

Knows the Rust library's encodings and :class:`TokenBatch`, and no model.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from tokenizers import Encoding

from sparse_encoder.token_batch import TokenBatch
from sparse_encoder.tokenizer_check import rust_errors
from sparse_encoder.tokenizer_engine import CHARACTERS_PER_TOKEN, Engine, strings, well_formed


@dataclass(frozen=True, kw_only=True, slots=True)
class Windows:
    """How texts are cut into windows."""

    limit: int | None
    """Most tokens of a window, special ones included; None cuts nothing."""
    stride: int | None = None
    """Tokens that a window has in common with the one before; None drops what is beyond the first."""
    side: str = "right"
    """Which end is truncated; the windows of a text start at the other one."""
    is_split_into_words: bool = False
    """Whether each text is a list of words."""
    add_special_tokens: bool = True

    def check(self, num_special_tokens: int) -> None:
        """Refuse what the Rust library would panic at.

        Raises:
            ValueError: If the windows would not move on.
        """
        if self.stride is None:
            return
        room = None if self.limit is None else self.limit - (num_special_tokens if self.add_special_tokens else 0)
        if self.stride < 0 or (room is not None and self.stride >= room):
            most = "at least 0" if room is None else f"between 0 and {room - 1}, so that windows move on"
            raise ValueError(f"stride must be {most}, got {self.stride}")


def encode(
    engine: Engine,
    texts: Iterable[Any],
    windows: Windows,  # Any: texts or lists of words, checked here
) -> tuple[list[Encoding], list[int]]:
    """Encode texts or lists of words with offsets and word numbers.

    Args:
        engine: Runs the backend.
        texts: Texts, or with ``is_split_into_words`` lists of words.
        windows: How they are cut.

    Returns:
        The windows of all texts in order, and the number of the text that each belongs to.

    Raises:
        TypeError: If an item is not what ``is_split_into_words`` says, naming its place.
        TokenizerError: If the backend fails on a text.
    """
    inputs: list[Any] = _words(texts, windows.limit) if windows.is_split_into_words else strings(texts, "texts")
    if windows.stride is None and not windows.is_split_into_words:
        encodings = engine.encode(
            inputs,
            limit=windows.limit,
            side=windows.side,
            add_special_tokens=windows.add_special_tokens,
            details=True,
        )
        return encodings, list(range(len(encodings)))
    mended = [well_formed(text) if isinstance(text, str) else list(map(well_formed, text)) for text in inputs]
    words = windows.is_split_into_words
    setting = engine.truncation(windows.limit, windows.side, windows.stride or 0, words=words)
    with setting as backend, rust_errors("a text cannot be encoded"):
        encodings = backend.encode_batch(mended, is_pretokenized=words, add_special_tokens=windows.add_special_tokens)
    if windows.stride is None:
        return encodings, list(range(len(encodings)))
    rows = [(number, each) for number, first in enumerate(encodings) for each in (first, *first.overflowing)]
    return [each for _, each in rows], [number for number, _ in rows]


def _words(sentences: Iterable[object], limit: int | None) -> list[list[str]]:
    """Check lists of words, and cut words that are longer than any text may be."""
    if isinstance(sentences, (str, bytes, dict)) or not isinstance(sentences, Iterable):
        raise TypeError(f"a list of lists of words is wanted, got {type(sentences).__name__}")
    checked = []
    for number, sentence in enumerate(sentences):
        if isinstance(sentence, str) or not isinstance(sentence, Iterable):
            raise TypeError(f"texts[{number}] must be a list of words, got {type(sentence).__name__}: {sentence!r:.80}")
        words = strings(sentence, f"texts[{number}]")
        checked.append(words if limit is None else [word[: limit * CHARACTERS_PER_TOKEN[-1]] for word in words])
    return checked


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchOptions:
    """What a tokenizer's configuration says about its batches."""

    with_types: bool
    """Whether encodings have token types other than 0."""
    has_token_type_ids: bool
    pad_token_id: int | None
    padding_side: str


def collect(
    encodings: Iterable[Encoding],
    options: BatchOptions,
    *,
    recall: Callable[[], list[Encoding]] | None = None,
    samples: Sequence[int] | None = None,
) -> TokenBatch:
    """Put encodings into a batch.

    Args:
        encodings: Read once.
        options: Of the tokenizer.
        recall: Finds them again with all details; None keeps them.
        samples: Number of the text that each one belongs to; None for one each.
    """
    kept: list[Encoding] = []
    ids, types, counts = array("i"), array("i"), [0]
    for encoding in encodings:
        ids.extend(encoding.ids)
        counts.append(len(encoding))
        if options.with_types:
            types.extend(encoding.type_ids)
        if recall is None:
            kept.append(encoding)
    return TokenBatch(
        flat_ids=np.frombuffer(ids, dtype=np.int32),
        starts=np.cumsum(counts, dtype=np.int64),
        flat_type_ids=np.frombuffer(types, dtype=np.int32) if options.with_types else None,
        has_token_type_ids=options.has_token_type_ids,
        pad_token_id=options.pad_token_id,
        padding_side=options.padding_side,
        recall=partial(list, kept) if recall is None else recall,
        samples=None if samples is None else tuple(samples),
    )
