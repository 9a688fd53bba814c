"""Tokenizer: texts in, a TokenBatch out, on the Rust library ``tokenizers``. Knows no model and no pooling."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from tokenizers import Encoding
from tokenizers import Tokenizer as Backend

from sparse_encoder.checkpoint.errors import TokenizerError
from sparse_encoder.token_batch import TokenBatch, padded_length
from sparse_encoder.tokenizer_call import TokenizerOutput, call
from sparse_encoder.tokenizer_check import rust_errors
from sparse_encoder.tokenizer_engine import Engine, strings
from sparse_encoder.tokenizer_files import (
    UNLIMITED,
    TokenizerConfig,
    gives_token_types,
    read_tokenizer,
    write_tokenizer,
)

__all__ = ["UNLIMITED", "TokenBatch", "Tokenizer", "TokenizerConfig", "padded_length"]

CHUNK_TEXTS = 1024


class _SpecialToken:
    """Give a special token by its name and let it be set; the text, or with ``_id`` at the end its id."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name.removesuffix("_id")
        self.by_id = name.endswith("_id")

    def __get__(self, tokenizer: Tokenizer | None, owner: type) -> Any:  # noqa: ANN401 - a text or an id, or None
        if tokenizer is None:
            return self
        text = tokenizer.config.special_tokens.get(self.name)
        return text if not self.by_id or text is None else tokenizer.backend.token_to_id(text)

    def __set__(self, tokenizer: Tokenizer, value: str | int) -> None:
        text = tokenizer.backend.id_to_token(value) if isinstance(value, int) else value
        if text is None or tokenizer.backend.token_to_id(text) is None:
            raise ValueError(f"{self.name} must be in the vocabulary, got {value!r}")
        named = {**tokenizer.config.special_tokens, self.name: text}
        tokenizer.config = replace(tokenizer.config, special_tokens=named)


class Tokenizer:
    """Turn texts into token ids.

    Whatever truncation and padding the backend has is replaced by what each call asks for. Several threads may encode
    at once; those that want different lengths wait for each other.

    A text is cut before it is encoded to 16 characters for each token that may stay (4096 at least); where those are
    too few tokens, to 128 and at last to 1024 characters for each. The cut is made at a blank, so that the tokens are
    those of the whole text: only what lies beyond 1024 characters for each token is never seen. Lone surrogates, which
    no UTF-8 can hold, become U+FFFD, and two that make a character become that character.

    Args:
        backend: The tokenizer proper; this object owns it from now on.
        config: Special tokens, lengths and sides.

    Raises:
        TokenizerError: If the vocabulary lacks a special token.
    """

    bos_token, bos_token_id = _SpecialToken(), _SpecialToken()
    eos_token, eos_token_id = _SpecialToken(), _SpecialToken()
    unk_token, unk_token_id = _SpecialToken(), _SpecialToken()
    sep_token, sep_token_id = _SpecialToken(), _SpecialToken()
    pad_token, pad_token_id = _SpecialToken(), _SpecialToken()
    cls_token, cls_token_id = _SpecialToken(), _SpecialToken()
    mask_token, mask_token_id = _SpecialToken(), _SpecialToken()

    def __init__(self, backend: Backend, config: TokenizerConfig) -> None:
        for name, text in config.special_tokens.items():
            if backend.token_to_id(text) is None:
                raise TokenizerError(f"the vocabulary lacks {text!r}", field=name)
        self._engine = Engine(backend)
        self.backend = backend
        self.config = config
        self._single_types, pair_types = gives_token_types(backend)
        types = config.has_token_type_ids
        self.has_token_type_ids: bool = pair_types or self._single_types if types is None else types
        """Whether the model takes token types."""

    @classmethod
    def from_pretrained(cls, folder: Path | str, *, max_length: int | None = None) -> Tokenizer:
        """Read the tokenizer of a model folder.

        Args:
            folder: Holds ``tokenizer.json``, or ``vocab.txt``, or ``vocab.json`` and ``merges.txt``.
            max_length: Most tokens of a text; the folder may say fewer.

        Raises:
            FileNotFoundError: If the folder has no tokenizer.
            TokenizerError: If its files are damaged or contradict each other.
        """
        tokenizer = cls(*read_tokenizer(Path(folder)))
        if max_length is not None:
            tokenizer.model_max_length = min(max_length, tokenizer.model_max_length)
        return tokenizer

    @classmethod
    def of(cls, other: object) -> Tokenizer:
        """Take over a tokenizer of ``transformers`` or ``tokenizers`` by the files it saves; one of ours stays itself.

        Raises:
            TypeError: If it is neither.
        """
        if isinstance(other, cls):
            return other
        with TemporaryDirectory() as folder:
            if isinstance(other, Backend):
                other.save(str(Path(folder) / "tokenizer.json"))
            elif callable(save := getattr(other, "save_pretrained", None)):
                save(folder)
            else:
                raise TypeError(f"tokenizer must be a Tokenizer, got {type(other).__name__}")
            return cls.from_pretrained(folder)

    def save_pretrained(self, folder: Path | str) -> None:
        """Write ``tokenizer.json`` and ``tokenizer_config.json``; ``transformers.AutoTokenizer`` reads them."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        with self._engine.truncation(None):
            config = replace(self.config, has_token_type_ids=self.has_token_type_ids)
            write_tokenizer(Path(folder), self.backend, config)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle without the lock."""
        return (Tokenizer, (self.backend, self.config))

    # Vocabulary

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

    def convert_ids_to_tokens(self, ids: int | Sequence[int]) -> Any:  # noqa: ANN401 - a token or a list of them
        """Return the token of an id, or a list for a list; None where there is none."""
        if isinstance(ids, (int, np.integer)):
            return self.backend.id_to_token(int(ids))
        return [self.backend.id_to_token(int(number)) for number in ids]

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:  # noqa: ANN401 - an id or a list of them
        """Return the id of a token, or a list for a list; the unknown token's where it is not in the vocabulary."""
        if isinstance(tokens, str):
            found = self.backend.token_to_id(tokens)
            return self.unk_token_id if found is None else found
        return [self.convert_tokens_to_ids(token) for token in tokens]

    def decode(self, ids: int | Sequence[int], skip_special_tokens: bool = False) -> str:
        """Turn ids, or a single one, into a text."""
        numbers = np.atleast_1d(np.asarray(ids, dtype=np.int64)).tolist()
        with rust_errors("the ids cannot be decoded"):
            return self.backend.decode(numbers, skip_special_tokens=skip_special_tokens)

    def batch_decode(self, sequences: Iterable[Sequence[int]], skip_special_tokens: bool = False) -> list[str]:
        """Turn the ids of several texts into texts."""
        return [self.decode(ids, skip_special_tokens) for ids in sequences]

    def encode(self, text: str, text_pair: str | None = None, *, add_special_tokens: bool = True) -> list[int]:
        """Return the ids of a text or a pair of texts, not truncated."""
        ids: list[int] = self(text, text_pair, add_special_tokens=add_special_tokens)["input_ids"]
        return ids

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of a text, without special tokens and not truncated."""
        return self._details([text], None, None, False)[0].tokens

    # Lengths

    @property
    def model_max_length(self) -> int:
        """Most tokens of a text, special ones included; 10**30 if nothing limits them."""
        return self.config.model_max_length

    @model_max_length.setter
    def model_max_length(self, value: int) -> None:
        """Limit texts from now on."""
        self.config = replace(self.config, model_max_length=value)

    @property
    def padding_side(self) -> str:
        """Where padding goes, ``"right"`` or ``"left"``."""
        return self.config.padding_side

    @padding_side.setter
    def padding_side(self, value: str) -> None:
        """Pad on the other side from now on."""
        self.config = replace(self.config, padding_side=value)

    @property
    def truncation_side(self) -> str:
        """Which end is truncated, ``"right"`` or ``"left"``."""
        return self.config.truncation_side

    @truncation_side.setter
    def truncation_side(self, value: str) -> None:
        """Truncate at the other end from now on."""
        self.config = replace(self.config, truncation_side=value)

    def num_special_tokens(self, *, pair: bool = False) -> int:
        """Return how many tokens are added around a text, or a pair of texts."""
        return self.backend.num_special_tokens_to_add(pair)

    def _limit(self, max_length: int | None, pair: bool, add_special_tokens: bool) -> int | None:
        limit = self.model_max_length if max_length is None else max_length
        least = 1 + (self.num_special_tokens(pair=pair) if add_special_tokens else 0)
        if limit < least:
            raise ValueError(f"max_length must be at least {least}, special tokens and one more, got {limit}")
        return limit if limit < 2**31 else None

    # Encoding

    def encode_batch(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        *,
        max_length: int | None = None,
        add_special_tokens: bool = True,
    ) -> TokenBatch:
        """Encode texts, or pairs of texts, and truncate them.

        Args:
            texts: The texts, or the first ones of pairs.
            pairs: The second ones, as many; the longer of two is truncated first.
            max_length: Most tokens of a text or pair; None means :attr:`model_max_length`.
            add_special_tokens: Put the special tokens of the model around them.

        Raises:
            TypeError: If an item is not a string, naming its place.
            ValueError: If the lengths of ``texts`` and ``pairs`` differ, or ``max_length`` leaves room for no token.
            TokenizerError: If the tokenizer fails on a text.
        """
        texts = strings(texts, "texts")
        pairs = None if pairs is None else strings(pairs, "pairs")
        if pairs is not None and len(pairs) != len(texts):
            raise ValueError(f"texts and pairs must be as many, got {len(texts)} and {len(pairs)}")
        limit = self._limit(max_length, pairs is not None, add_special_tokens)
        with_types = self.has_token_type_ids and (pairs is not None or self._single_types)
        ids, types, counts = array("i"), array("i"), [0]
        for begin in range(0, len(texts), CHUNK_TEXTS):
            encodings = self._engine.encode(
                texts[begin : begin + CHUNK_TEXTS],
                None if pairs is None else pairs[begin : begin + CHUNK_TEXTS],
                limit=limit,
                side=self.truncation_side,
                add_special_tokens=add_special_tokens,
            )
            for encoding in encodings:
                ids.extend(encoding.ids)
                counts.append(len(encoding))
                if with_types:
                    types.extend(encoding.type_ids)
        return TokenBatch(
            flat_ids=np.frombuffer(ids, dtype=np.int32),
            starts=np.cumsum(counts, dtype=np.int64),
            flat_type_ids=np.frombuffer(types, dtype=np.int32) if with_types else None,
            has_token_type_ids=self.has_token_type_ids,
            pad_token_id=self.pad_token_id,
            padding_side=self.padding_side,
            recall=partial(self._details, texts, pairs, limit, add_special_tokens),
        )

    def _details(
        self, texts: list[str], pairs: list[str] | None, limit: int | None, add_special_tokens: bool
    ) -> list[Encoding]:
        return self._engine.encode(
            texts,
            pairs,
            limit=limit,
            side=self.truncation_side,
            add_special_tokens=add_special_tokens,
            details=True,
        )

    def __call__(
        self,
        text: str | Sequence[str],
        text_pair: str | Sequence[str] | None = None,
        *,
        padding: bool | str = False,
        truncation: bool | str = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        add_special_tokens: bool = True,
    ) -> TokenizerOutput:
        """Encode as scripts for Hugging Face tokenizers expect it.

        Args:
            text: A text or a list of them.
            text_pair: Second texts, in the same form.
            padding: True or ``"longest"`` pads to the longest, ``"max_length"`` to ``max_length``.
            truncation: Whether to truncate to ``max_length``.
            max_length: None means :attr:`model_max_length`.
            return_tensors: ``"pt"``, ``"np"`` or None for lists.
            add_special_tokens: Put the special tokens of the model around the texts.

        Returns:
            ``input_ids``, ``token_type_ids`` if the tokenizer has them, and ``attention_mask``, by key or attribute.

        Raises:
            ValueError: If an option has another value, or texts that become a tensor are not padded to one length.
        """
        return call(
            self,
            text,
            text_pair,
            padding=padding,
            truncation=truncation,
            max_length=max_length,
            return_tensors=return_tensors,
            add_special_tokens=add_special_tokens,
        )


def _canonical(value: object) -> object:
    """Leave out what versions of the library write or do not write: nulls, false, and how merges are put down."""
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items() if item is not None and item is not False}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    return value
