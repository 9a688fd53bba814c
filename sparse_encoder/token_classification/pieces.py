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
    tokenizer that does not split texts calls all of one a word. A token of nothing but blanks is no piece: it leads the
    next one, and if it begins that one's word its scores count for the word, as they do in training.

    Args:
        text: The text.
        tokens: Of the text.
        unknown: Number of the token for what is not in the vocabulary; it is shown as the text has it.
    """
    pieces: list[Piece] = []
    behind = 0  # the token behind the last piece
    word: int | None = None
    words, blanks_split = tokens.word_ids, text.word_starts is None
    for place, (begin, end) in enumerate(text.places(tokens)):
        start, stop = trimmed(text.text, begin, end)
        if start == stop:
            continue
        goes_on = bool(pieces) and words[place] == word
        if goes_on and blanks_split:
            goes_on = not any(map(str.isspace, text.text[pieces[-1].end : start]))
        word = words[place]
        first = place
        while not goes_on and first > behind and words[first - 1] == word:
            first -= 1
        counted = [each for each in range(first, place + 1) if tokens.links is None or tokens.links[each]]
        own = not counted or counted[-1] == place
        pieces.append(
            Piece(
                token=text.text[start:stop] if tokens.ids[place] == unknown else tokens.texts[place],
                scores=tokens.scores[place if own else counted[0]],
                start=start,
                end=stop,
                index=tokens.first + place,
                goes_on=goes_on,
                lead=tuple(tokens.texts[behind:place]),
                opening=tuple(tokens.scores[each] for each in counted[:-1]) if own else (),
                is_link=bool(counted),
                first_index=tokens.first + first,
            )
        )
        behind = place + 1
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
