"""Tokens and ids of a tokenizer, and its special tokens by name. Encodes nothing."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer as Backend

from sparse_encoder.tokenizer_engine import Engine
from sparse_encoder.tokenizer_files import TokenizerConfig


class SpecialToken:
    """Give a special token by its name and let it be set; the text, or with ``_id`` at the end its id."""

    def __set_name__(self, owner: type, name: str) -> None:
        """Take the name that the class gives."""
        self.name = name.removesuffix("_id")
        self.by_id = name.endswith("_id")

    def __get__(self, tokenizer: Vocabulary | None, owner: type) -> Any:  # noqa: ANN401 - a text or an id, or None
        """Return the token or its id."""
        if tokenizer is None:
            return self
        text = tokenizer.config.special_tokens.get(self.name)
        return text if not self.by_id or text is None else tokenizer.backend.token_to_id(text)

    def __set__(self, tokenizer: Vocabulary, value: str | int) -> None:
        """Choose another token of the vocabulary.

        Raises:
            ValueError: If it is not in the vocabulary.
        """
        text = tokenizer.backend.id_to_token(value) if isinstance(value, int) else value
        if text is None or tokenizer.backend.token_to_id(text) is None:
            raise ValueError(f"{self.name} must be in the vocabulary, got {value!r}")
        named = {**tokenizer.config.special_tokens, self.name: text}
        tokenizer.config = replace(tokenizer.config, special_tokens=named)


class Vocabulary:
    """What a tokenizer knows of tokens without encoding.

    Args:
        backend: The tokenizer proper.
        config: Special tokens, lengths and sides.
    """

    bos_token, bos_token_id = SpecialToken(), SpecialToken()
    eos_token, eos_token_id = SpecialToken(), SpecialToken()
    unk_token, unk_token_id = SpecialToken(), SpecialToken()
    sep_token, sep_token_id = SpecialToken(), SpecialToken()
    pad_token, pad_token_id = SpecialToken(), SpecialToken()
    cls_token, cls_token_id = SpecialToken(), SpecialToken()
    mask_token, mask_token_id = SpecialToken(), SpecialToken()

    def __init__(self, backend: Backend, config: TokenizerConfig) -> None:
        self._engine = Engine(backend)
        self.backend = backend
        self.config = config

    @property
    def is_fast(self) -> bool:
        """True: offsets and words of tokens are known."""
        return True

    @property
    def vocab_size(self) -> int:
        """Rows that an embedding needs: the largest id and one, added tokens included."""
        return self._size

    @cached_property
    def _size(self) -> int:
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    def __len__(self) -> int:
        """Return :attr:`vocab_size`."""
        return self.vocab_size

    def get_vocab(self) -> dict[str, int]:
        """Return the id of each token, added ones included."""
        return self.backend.get_vocab(with_added_tokens=True)

    @property
    def vocab(self) -> dict[str, int]:
        """What :meth:`get_vocab` returns."""
        return self.get_vocab()

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that decides the ids, in hex: the same after saving and loading."""
        with self._engine.truncation(None):
            content = json.loads(self.backend.to_str())
        del content["version"]
        return hashlib.sha256(json.dumps(_canonical(content), sort_keys=True).encode()).hexdigest()

    @property
    def all_special_tokens(self) -> list[str]:
        """Texts of all special tokens, each once."""
        return list(dict.fromkeys([*self.config.special_tokens.values(), *self.config.additional_special_tokens]))

    @property
    def all_special_ids(self) -> list[int]:
        """Ids of all special tokens, each once."""
        ids = (self.backend.token_to_id(text) for text in self.all_special_tokens)
        return [number for number in ids if number is not None]


def _canonical(value: object) -> object:
    """Leave out what versions of the library write or do not write: nulls, false, and how merges are put down."""
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items() if item is not None and item is not False}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    return value
