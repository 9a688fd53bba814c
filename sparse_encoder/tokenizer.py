"""Tokenizer: texts in, a TokenBatch out, on the Rust library ``tokenizers``. Knows no model and no pooling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import Encoding
from tokenizers import Tokenizer as Backend

from sparse_encoder.checkpoint.errors import TokenizerError
from sparse_encoder.token_batch import TokenBatch, padded_length
from sparse_encoder.tokenizer_call import CallOptions, TokenizerOutput, call
from sparse_encoder.tokenizer_decoding import TokenizerDecoding
from sparse_encoder.tokenizer_ends import TokenizerEnds
from sparse_encoder.tokenizer_engine import strings
from sparse_encoder.tokenizer_files import (
    UNLIMITED,
    TokenizerConfig,
    gives_token_types,
    read_tokenizer,
    write_tokenizer,
)
from sparse_encoder.tokenizer_growth import GrowingVocabulary
from sparse_encoder.tokenizer_publishing import TokenizerPublishing
from sparse_encoder.tokenizer_windows import BatchOptions, Windows, collect, encode

__all__ = ["UNLIMITED", "TokenBatch", "Tokenizer", "TokenizerConfig", "padded_length"]

CHUNK_TEXTS = 1024


class Tokenizer(GrowingVocabulary, TokenizerDecoding, TokenizerEnds, TokenizerPublishing):
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

    def __init__(self, backend: Backend, config: TokenizerConfig) -> None:
        for name, text in config.special_tokens.items():
            if backend.token_to_id(text) is None:
                raise TokenizerError(f"the vocabulary lacks {text!r}", field=name)
        super().__init__(backend, config)
        self._single_types, pair_types = gives_token_types(backend)
        types = config.has_token_type_ids
        self.has_token_type_ids: bool = pair_types or self._single_types if types is None else types
        """Whether the model takes token types."""

    @classmethod
    def from_pretrained(
        cls, folder: Path | str, *, max_length: int | None = None, padding_side: str | None = None
    ) -> Tokenizer:
        """Read the tokenizer of a model folder.

        Args:
            folder: Holds ``tokenizer.json``, or ``vocab.txt``, or ``vocab.json`` and ``merges.txt``.
            max_length: Most tokens of a text; the folder may say fewer.
            padding_side: ``"left"``, as for prompts of a decoder, or ``"right"``; None: as the folder says.

        Raises:
            FileNotFoundError: If the folder has no tokenizer.
            TokenizerError: If its files are damaged or contradict each other.
            ValueError: If the side is unknown.
        """
        tokenizer = cls(*read_tokenizer(Path(folder)))
        if padding_side is not None:
            tokenizer.padding_side = padding_side
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

        def encodings() -> Iterator[Encoding]:
            for begin in range(0, len(texts), CHUNK_TEXTS):
                yield from self._engine.encode(
                    texts[begin : begin + CHUNK_TEXTS],
                    None if pairs is None else pairs[begin : begin + CHUNK_TEXTS],
                    limit=limit,
                    side=self.truncation_side,
                    add_special_tokens=add_special_tokens,
                )

        recall = partial(self._details, texts, pairs, limit, add_special_tokens)
        return collect(encodings(), self._batch_options(pairs is not None), recall=recall)

    def encode_windows(
        self,
        texts: Sequence[str] | Sequence[Sequence[str]],
        *,
        max_length: int | None = None,
        stride: int | None = None,
        is_split_into_words: bool = False,
        add_special_tokens: bool = True,
    ) -> TokenBatch:
        """Encode texts or lists of words whole: what is too long for one row goes on in the next.

        A byte-level tokenizer gets a blank before each word of a list, the first one too, as with ``add_prefix_space``.

        Args:
            texts: The texts; with ``is_split_into_words`` lists of words, whose offsets count from each word's start.
            max_length: Most tokens of a row; None means :attr:`model_max_length`.
            stride: Tokens that a row has in common with the one before; None keeps the first row alone.
            is_split_into_words: Whether the texts are lists of words.
            add_special_tokens: Put the special tokens of the model around each row.

        Returns:
            The rows; ``samples`` says which text each belongs to.

        Raises:
            TypeError: If an item is not of its kind, naming its place.
            ValueError: If ``max_length`` leaves room for no token, or ``stride`` for no new one.
            TokenizerError: If the tokenizer fails on a text.
        """
        windows = Windows(
            limit=self._limit(max_length, False, add_special_tokens),
            stride=stride,
            side=self.truncation_side,
            is_split_into_words=is_split_into_words,
            add_special_tokens=add_special_tokens,
        )
        windows.check(self.num_special_tokens())
        encodings, samples = encode(self._engine, texts, windows)
        return collect(encodings, self._batch_options(False), samples=samples)

    def _batch_options(self, pair: bool) -> BatchOptions:
        return BatchOptions(
            with_types=self.has_token_type_ids and (pair or self._single_types),
            has_token_type_ids=self.has_token_type_ids,
            pad_token_id=self.pad_token_id,
            padding_side=self.padding_side,
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

    def __call__(  # house: peer signature
        self,
        text: str | Sequence[str] | Sequence[Sequence[str]],
        text_pair: str | Sequence[str] | None = None,
        *,
        padding: bool | str = False,
        truncation: bool | str = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        add_special_tokens: bool = True,
        is_split_into_words: bool = False,
        stride: int = 0,
        return_overflowing_tokens: bool = False,
        return_offsets_mapping: bool = False,
        return_special_tokens_mask: bool = False,
        padding_side: str | None = None,
    ) -> TokenizerOutput:
        """Encode as scripts for Hugging Face tokenizers expect it.

        Args:
            text: A text or a list of them; with ``is_split_into_words`` a list of words, or a list of such lists.
            text_pair: Second texts, in the same form.
            padding: True or ``"longest"`` pads to the longest, ``"max_length"`` to ``max_length``.
            truncation: Whether to truncate to ``max_length``.
            max_length: None means :attr:`model_max_length`.
            return_tensors: ``"pt"``, ``"np"`` or None for lists.
            add_special_tokens: Put the special tokens of the model around the texts.
            is_split_into_words: Whether a text is a list of words.
            stride: Tokens that a row has in common with the one before, with ``return_overflowing_tokens``.
            return_overflowing_tokens: Give what is truncated as rows of its own, and ``overflow_to_sample_mapping``.
            return_offsets_mapping: Give ``offset_mapping``: begin and end of each token, in characters of its text or
                word.
            return_special_tokens_mask: Give ``special_tokens_mask``: 1 for added tokens and padding.
            padding_side: ``"right"`` or ``"left"``; None means :attr:`padding_side`.

        Returns:
            ``input_ids``, ``token_type_ids`` if the tokenizer has them, and ``attention_mask``, by key or attribute;
            ``.word_ids(row)`` and ``.tokens(row)`` tell more of each row.

        Raises:
            ValueError: If an option has another value, two do not go together, or texts that become a tensor are not
                padded to one length.
        """
        options = CallOptions(
            padding=padding,
            truncation=truncation,
            max_length=max_length,
            return_tensors=return_tensors,
            add_special_tokens=add_special_tokens,
            is_split_into_words=is_split_into_words,
            stride=stride,
            return_overflowing_tokens=return_overflowing_tokens,
            return_offsets_mapping=return_offsets_mapping,
            return_special_tokens_mask=return_special_tokens_mask,
            padding_side=padding_side,
        )
        return call(self, text, text_pair, options)
