"""Which tokens of a text a linear chain goes through: those that its training data labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparse_encoder.token_batch import TokenBatch
from sparse_encoder.token_classification.pieces import pieces_of
from sparse_encoder.token_classification.pipeline_inputs import Text, windows_by_text
from sparse_encoder.token_classification.windows import begins_of, joined
from sparse_encoder.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class LinkRule:
    """Which tokens are links."""

    which: str
    """``"first"`` for the first token of each word, ``"all"`` for all but special ones and blanks between words."""
    stride: int
    """Tokens that a window has in common with the one before."""
    tokenizer: Tokenizer


def links_of_rows(batch: TokenBatch, texts: Sequence[Text], rule: LinkRule) -> list[NDArray[np.bool_]]:
    """Return which tokens of each row are links, (T,); the beginning of a word is known across windows.

    Args:
        batch: The windows of all texts.
        texts: The texts.
        rule: Which tokens are links.
    """
    side = rule.tokenizer.truncation_side
    no_scores = [np.zeros((length, 1), dtype=np.float32) for length in batch.lengths]
    found: list[NDArray[np.bool_]] = []
    encodings = iter(batch.encodings)
    for text, windows in zip(texts, windows_by_text(batch, no_scores, len(texts)), strict=True):
        tokens = joined(windows, rule.stride, side)
        links = np.zeros(len(tokens.ids), dtype=np.bool_)
        for piece in pieces_of(text, tokens, rule.tokenizer.unk_token_id):
            first = piece.first_index - tokens.first
            last = piece.index - tokens.first if rule.which == "all" else first
            links[first : last + 1] = rule.which == "all" or not piece.goes_on
        lengths = [len(window.ids) for window in windows]
        for begin, length in zip(begins_of(lengths, rule.stride, side), lengths, strict=True):
            content = ~np.array(next(encodings).special_tokens_mask, dtype=np.bool_)
            row = np.zeros(len(content), dtype=np.bool_)
            row[content] = links[begin : begin + length]
            found.append(row)
    return found
