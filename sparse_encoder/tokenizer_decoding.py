"""From ids back to tokens and texts, in the way of transformers. Knows no padding and encodes nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from operator import index
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer as Backend
from tokenizers.models import BPE

from sparse_encoder.tokenizer_check import rust_errors

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from sparse_encoder.tokenizer_files import TokenizerConfig

    Ids = int | Sequence[int] | Sequence[Sequence[int]] | NDArray[Any] | Tensor

logger = logging.getLogger(__name__)

SPACED = (" .", " ?", " !", " ,")
"""What loses its blank when a decoded text is cleaned up, before the short forms of English."""
SHORT_FORMS = (" n't", " 'm", " 's", " 've", " 're")


class TokenizerDecoding:
    """Turn ids into tokens and texts."""

    backend: Backend
    config: TokenizerConfig
    unk_token_id: Any  # an id or None
    all_special_ids: Any  # a list of ids

    @property
    def clean_up_tokenization_spaces(self) -> bool:
        """Whether :meth:`decode` takes blanks before punctuation out unless it is told, as the files say."""
        return bool(self.config.extra.get("clean_up_tokenization_spaces", False))

    def convert_ids_to_tokens(self, ids: Ids, skip_special_tokens: bool = False) -> Any:  # noqa: ANN401
        """Return the token of an id, or a list for several; None where there is none.

        Args:
            ids: An id, or a list, array or tensor of them.
            skip_special_tokens: Leave special tokens out of a list.

        Raises:
            TypeError: If an id is no whole number.
        """
        numbers = plain_ids(ids)
        if isinstance(numbers, int):
            return self._token(numbers)
        left_out = set(self.all_special_ids) if skip_special_tokens else set()
        return [self._token(number) for number in numbers if number not in left_out]

    def _token(self, number: int) -> str | None:
        return self.backend.id_to_token(number) if 0 <= number < 2**32 else None

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:  # noqa: ANN401 - an id or a list of them
        """Return the id of a token, or a list for a list; the unknown token's where it is not in the vocabulary."""
        if isinstance(tokens, str):
            found = self.backend.token_to_id(tokens)
            return self.unk_token_id if found is None else found
        return [self.convert_tokens_to_ids(token) for token in tokens]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Put tokens together to a text, as the tokenizer's decoder does; with blanks if it has none."""
        decoder = self.backend.decoder
        return " ".join(tokens) if decoder is None else decoder.decode(list(tokens))

    def decode(
        self,
        token_ids: Ids,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> Any:  # noqa: ANN401 - a text or a list of them
        """Turn ids into a text, or those of several texts into a list of texts.

        Args:
            token_ids: An id; a list, array or tensor of them; or a list of such lists, or one of two axes.
            skip_special_tokens: Leave special tokens out.
            clean_up_tokenization_spaces: Take blanks before punctuation and in short forms out. None does as the files
                of the tokenizer say. A byte-pair tokenizer puts every blank back where it was, so that its texts are
                never changed, as in transformers 5.

        Raises:
            TypeError: If an id is no whole number.
            TokenizerError: If one is negative, or too large for any vocabulary.
        """
        numbers = plain_ids(token_ids)
        if isinstance(numbers, list) and numbers and isinstance(numbers[0], list):
            return [self.decode(row, skip_special_tokens, clean_up_tokenization_spaces) for row in numbers]
        with rust_errors("the ids cannot be decoded"):
            text = self.backend.decode(
                [numbers] if isinstance(numbers, int) else numbers, skip_special_tokens=skip_special_tokens
            )
        if isinstance(self.backend.model, BPE):
            if clean_up_tokenization_spaces:
                logger.warning("clean_up_tokenization_spaces=True changes nothing: a byte-pair tokenizer keeps blanks")
            return text
        asked = clean_up_tokenization_spaces
        return cleaned(text) if (self.clean_up_tokenization_spaces if asked is None else asked) else text

    def batch_decode(
        self,
        sequences: Ids | Iterable[Any],  # rows of any kind that decode takes
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> list[str]:
        """Turn the ids of several texts into texts; of a single list into a list of one text, as transformers 5 does.

        Args:
            sequences: Rows of ids, or an array or tensor of two axes.
            skip_special_tokens: As in :meth:`decode`.
            clean_up_tokenization_spaces: As in :meth:`decode`.

        Raises:
            TypeError: As :meth:`decode`.
            TokenizerError: As :meth:`decode`.
        """
        rows = plain_ids(sequences)
        texts = [] if rows == [] else self.decode(rows, skip_special_tokens, clean_up_tokenization_spaces)
        return [texts] if isinstance(texts, str) else texts


def plain_ids(ids: Any) -> Any:  # noqa: ANN401 - ids in any form; a number, a list of them, or a list of lists
    """Return ids as whole numbers of Python, in lists as deep as they came.

    Raises:
        TypeError: If one is no whole number.
    """
    if hasattr(ids, "tolist"):
        ids = ids.tolist()
    if isinstance(ids, str | bytes):
        raise TypeError(f"ids must be whole numbers, got the text {ids[:80]!r}")
    if isinstance(ids, Iterable):
        return [plain_ids(each) for each in ids]
    try:
        return index(ids)
    except TypeError as reason:
        raise TypeError(f"ids must be whole numbers, got {ids!r:.80}") from reason


def cleaned(text: str) -> str:
    """Take blanks before punctuation and in short forms of English out of a text."""
    for spaced in SPACED:
        text = text.replace(spaced, spaced[1:])
    text = text.replace(" ' ", "'")
    for spaced in SHORT_FORMS:
        text = text.replace(spaced, spaced[1:])
    return text
