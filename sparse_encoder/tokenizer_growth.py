"""New tokens for a tokenizer that is there already; the model then needs ``resize_token_embeddings``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tokenizers import AddedToken

from sparse_encoder.tokenizer_check import rust_errors
from sparse_encoder.tokenizer_files import SPECIAL_NAMES
from sparse_encoder.tokenizer_vocabulary import Vocabulary

NewToken = str | AddedToken
EXTRA_NAMES = ("additional_special_tokens", "extra_special_tokens")
"""What transformers 4 and 5 call special tokens without a name of their own."""


class GrowingVocabulary(Vocabulary):
    """A vocabulary that tokens can be added to."""

    def get_added_vocab(self) -> dict[str, int]:
        """Return the id of each token that was added to the vocabulary proper, special ones included."""
        return {token.content: number for number, token in self.backend.get_added_tokens_decoder().items()}

    def add_tokens(self, new_tokens: NewToken | Sequence[NewToken], special_tokens: bool = False) -> int:
        """Add tokens, found in a text before anything else is; resize the embeddings of the model afterwards.

        ``model[0].auto_model.resize_token_embeddings(len(model.tokenizer))``

        Args:
            new_tokens: A token or several; one that is known stays what it is, but is found whole from now on.
            special_tokens: Whether they are special: neither normalised nor decoded as text.

        Returns:
            How many entries the vocabulary has more. transformers counts known tokens too.

        Raises:
            TypeError: If one is neither a text nor an ``AddedToken``.
        """
        tokens = [new_tokens] if isinstance(new_tokens, (str, AddedToken)) else list(new_tokens)
        for token in tokens:
            if not isinstance(token, (str, AddedToken)):
                raise TypeError(f"new_tokens must be texts or AddedTokens, got {type(token).__name__}: {token!r:.80}")
        before = self.vocab_size
        with self._engine.truncation(None), rust_errors("the tokens cannot be added"):
            if special_tokens:
                self.backend.add_special_tokens(tokens)
            else:
                self.backend.add_tokens(tokens)
        for name in ("_size", "fingerprint"):  # computed once
            self.__dict__.pop(name, None)
        return self.vocab_size - before

    def add_special_tokens(
        self,
        special_tokens_dict: Mapping[str, NewToken | Sequence[NewToken]],
        replace_extra_special_tokens: bool = True,
    ) -> int:
        """Add special tokens by their names, ``pad_token`` and so on, or as ``extra_special_tokens``.

        Args:
            special_tokens_dict: Names to tokens; ``additional_special_tokens`` (an older name) and
                ``extra_special_tokens`` to several. Nothing that encodes texts puts them in by itself.
            replace_extra_special_tokens: Whether extra ones that were there are special no longer by this list.

        Returns:
            How many entries the vocabulary has more.

        Raises:
            ValueError: If a name is unknown.
            TypeError: If a token is neither a text nor an ``AddedToken``.
        """
        if unknown := sorted(set(special_tokens_dict) - {*SPECIAL_NAMES, *EXTRA_NAMES}):
            raise ValueError(f"unknown special tokens {unknown}; choose from {[*SPECIAL_NAMES, EXTRA_NAMES[1]]}")
        lists = {
            name: [given] if isinstance(given, (str, AddedToken)) else list(given)
            for name, given in special_tokens_dict.items()
        }
        if several := [name for name in SPECIAL_NAMES if len(lists.get(name, [""])) != 1]:
            raise TypeError(f"{several[0]} must be one token, got {special_tokens_dict[several[0]]!r:.80}")
        count = self.add_tokens([token for tokens in lists.values() for token in tokens], special_tokens=True)
        named = {name: str(lists[name][0]) for name in SPECIAL_NAMES if name in lists}
        special = {**self.config.special_tokens, **named}
        extra = [str(token) for name in EXTRA_NAMES for token in lists.get(name, [])]
        if not set(EXTRA_NAMES) & set(lists):
            self.config = replace(self.config, special_tokens=special)
            return count
        kept = () if replace_extra_special_tokens else self.config.additional_special_tokens
        self.config = replace(
            self.config,
            special_tokens=special,
            additional_special_tokens=tuple(dict.fromkeys([*kept, *extra])),
            extra={key: value for key, value in self.config.extra.items() if key not in EXTRA_NAMES},
        )
        return count
