"""Tokens of a text as pieces of its words: by the tokenizer's words, or as transformers guesses them."""

from __future__ import annotations

import warnings

from sparse_encoder.token_classification.aggregation import Aggregation, Piece, trimmed
from sparse_encoder.token_classification.pipeline_inputs import Text
from sparse_encoder.token_classification.windows import Tokens
from sparse_encoder.tokenizer import Tokenizer


def pieces_of(text: Text, tokens: Tokens, unknown: int | None) -> list[Piece]:
    """Put together what is known of each token.

    A token goes on with the word of the one before if the tokenizer says so and the text has no blank in between: a
    tokenizer that does not split texts calls all of one a word. A token of nothing but blanks is none of its own; it
    leads the next one.

    Args:
        text: The text.
        tokens: Of the text.
        unknown: Number of the token for what is not in the vocabulary; it is shown as the text has it.
    """
    pieces: list[Piece] = []
    lead: list[str] = []
    word: int | None = None
    for place, (begin, end) in enumerate(text.places(tokens)):
        start, stop = trimmed(text.text, begin, end)
        if start == stop:
            lead.append(tokens.texts[place])
            continue
        goes_on = bool(pieces) and tokens.word_ids[place] == word
        if goes_on and text.word_starts is None:
            between = text.text[pieces[-1].end : start]
            goes_on = not any(map(str.isspace, between))
        word = tokens.word_ids[place]
        pieces.append(
            Piece(
                token=text.text[start:stop] if tokens.ids[place] == unknown else tokens.texts[place],
                scores=tokens.scores[place],
                start=start,
                end=stop,
                index=tokens.first + place,
                goes_on=goes_on,
                lead=tuple(lead),
                is_link=tokens.links is None or bool(tokens.links[place]),
            )
        )
        lead.clear()
    return pieces


def legacy_pieces_of(text: Text, tokens: Tokens, tokenizer: Tokenizer, how: Aggregation) -> list[Piece]:
    """Put together what is known of each token; a token goes on with a word if lengths or blanks suggest it.

    Args:
        text: The text.
        tokens: Of the text.
        tokenizer: Theirs.
        how: Says whether a warning is due.
    """
    prefixed = getattr(tokenizer.backend.model, "continuing_subword_prefix", None)
    if not prefixed and how.strategy in ("first", "average", "max"):
        warnings.warn("the tokenizer does not mark pieces of words; they are guessed from blanks", stacklevel=2)
    pieces: list[Piece] = []
    for place, (start, end) in enumerate(text.places(tokens)):
        token, own = tokens.texts[place], text.text[start:end]
        goes_on = len(token) != len(own) if prefixed else start > 0 and " " not in text.text[start - 1 : start + 1]
        if tokens.ids[place] == tokenizer.unk_token_id:
            token, goes_on = own, False
        is_link = tokens.links is None or bool(tokens.links[place])
        pieces.append(Piece(token, tokens.scores[place], start, end, tokens.first + place, goes_on, is_link=is_link))
    return pieces
