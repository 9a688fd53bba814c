"""A tokenizer called as those of transformers are: their options in, and out what answers by key and by attribute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tokenizers import Encoding

from sparse_encoder.token_batch import TokenBatch
from sparse_encoder.tokenizer_files import UNLIMITED

if TYPE_CHECKING:
    import torch

    from sparse_encoder.tokenizer import Tokenizer


class TokenizerOutput(dict[str, Any]):  # lists, tensors or arrays
    """What a call returns; ``output.input_ids`` is ``output["input_ids"]``.

    Args:
        values: The values by key.
        batch: The rows they were made of.
    """

    def __init__(self, values: dict[str, Any], batch: TokenBatch) -> None:
        super().__init__(values)
        self._batch = batch

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as above
        """Return the value of a key."""
        if name not in self:
            raise AttributeError(f"there is no {name!r} in what the tokenizer made, only {sorted(self)}")
        return self[name]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the values; what the rows were is told by the process that made them."""
        return (dict, (dict(self),))

    @property
    def is_fast(self) -> bool:
        """True: offsets and words of tokens are known."""
        return True

    @property
    def encodings(self) -> list[Encoding]:
        """Everything that is known of each row, without padding."""
        return self._batch.encodings

    def tokens(self, batch_index: int = 0) -> list[str | None]:
        """Return the tokens of a row; None for padding."""
        return self._filled(self.encodings[batch_index].tokens, batch_index)

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """Return the number of the word that each token of a row belongs to; None for added tokens and padding."""
        return self._filled(self.encodings[batch_index].word_ids, batch_index)

    def _filled(self, values: list[Any], row: int) -> list[Any]:
        """Put None where a row is padded."""
        ids = self["input_ids"]
        several = len(ids) and not isinstance(ids[0], int)
        missing = [None] * ((len(ids[row]) if several else len(ids)) - len(values))
        return missing + values if self._batch.padding_side == "left" else values + missing

    def to(self, device: torch.device | str | int) -> TokenizerOutput:
        """Return the same with its tensors on a device."""
        from torch import Tensor

        moved = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in self.items()}
        return TokenizerOutput(moved, self._batch)


@dataclass(frozen=True, kw_only=True, slots=True)
class CallOptions:
    """The options of ``Tokenizer.__call__``, which explains them.

    Raises:
        ValueError: If one has another value, or two do not go together.
    """

    padding: bool | str
    truncation: bool | str
    max_length: int | None
    return_tensors: str | None
    add_special_tokens: bool
    is_split_into_words: bool
    stride: int
    return_overflowing_tokens: bool
    return_offsets_mapping: bool
    return_special_tokens_mask: bool
    padding_side: str | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        if self.padding not in (True, False, "longest", "max_length", "do_not_pad"):
            raise ValueError(f"unknown padding {self.padding!r}; choose True, False, 'longest' or 'max_length'")
        if self.truncation not in (True, False, "longest_first", "do_not_truncate"):
            raise ValueError(f"unknown truncation {self.truncation!r}; choose True, False or 'longest_first'")
        if self.return_tensors not in (None, "pt", "np"):
            raise ValueError(f"unknown return_tensors {self.return_tensors!r}; choose 'pt', 'np' or None")
        if self.padding_side not in (None, "right", "left"):
            raise ValueError(f"unknown padding_side {self.padding_side!r}; choose 'right', 'left' or None")
        if self.stride and not (self.return_overflowing_tokens and self.cuts):
            raise ValueError("stride needs truncation=True and return_overflowing_tokens=True: it overlaps their rows")

    @property
    def pads(self) -> bool:
        """Whether rows are padded."""
        return self.padding in (True, "longest", "max_length")

    @property
    def cuts(self) -> bool:
        """Whether rows are truncated."""
        return self.truncation in (True, "longest_first")


def call(
    tokenizer: Tokenizer,
    text: Any,  # noqa: ANN401 - a text, a list of texts or of words
    text_pair: str | Sequence[str] | None,
    options: CallOptions,
) -> TokenizerOutput:
    """Encode texts; arguments, result and errors are those of ``Tokenizer.__call__``."""
    words = options.is_split_into_words
    single = isinstance(text, str) or (words and _is_one_sentence(text))
    texts = [text] if single else text
    length = tokenizer.model_max_length if options.max_length is None else options.max_length
    limit = length if options.cuts else UNLIMITED
    windows = options.return_overflowing_tokens and options.cuts
    if words or windows:
        if text_pair is not None:
            raise ValueError("text_pair does not go with is_split_into_words or return_overflowing_tokens")
        batch = tokenizer.encode_windows(
            texts,
            max_length=limit,
            stride=options.stride if windows else None,
            is_split_into_words=words,
            add_special_tokens=options.add_special_tokens,
        )
    else:
        pairs = [text_pair] if isinstance(text_pair, str) else text_pair
        batch = tokenizer.encode_batch(texts, pairs, max_length=limit, add_special_tokens=options.add_special_tokens)
    if options.padding_side is not None:
        batch = replace(batch, padding_side=options.padding_side)
    values = _values(batch, options, length)
    if options.return_overflowing_tokens:
        values["overflow_to_sample_mapping"] = list(range(len(batch)) if batch.samples is None else batch.samples)
    elif single and options.return_tensors is None:
        values = {name: rows[0] for name, rows in values.items()}
    if options.return_tensors is not None:
        import torch

        as_tensors = {name: torch.as_tensor(rows) for name, rows in values.items()}
        values = as_tensors if options.return_tensors == "pt" else {n: t.numpy() for n, t in as_tensors.items()}
    return TokenizerOutput(values, batch)


def _is_one_sentence(words: object) -> bool:
    return isinstance(words, (list, tuple)) and (not words or isinstance(words[0], str))


def _values(batch: TokenBatch, options: CallOptions, length: int) -> dict[str, Any]:  # Any: lists and tensors
    """Return a list or a tensor for each key, padded if the options say so."""
    longest = max(batch.lengths, default=0)
    width = max(length, longest) if options.padding == "max_length" else longest
    if not options.pads and options.return_tensors is not None and len(set(batch.lengths)) > 1:
        raise ValueError("texts of different lengths cannot be one tensor; pass padding=True")
    values: dict[str, Any]
    if options.pads or options.return_tensors is not None:
        tensors = batch.pad(length=width)
        values = {name: value if options.return_tensors else value.tolist() for name, value in tensors.items()}
    else:
        types = batch.token_type_ids
        values = {"input_ids": batch.input_ids}
        if types is not None:
            values["token_type_ids"] = types
        values["attention_mask"] = [[1] * count for count in batch.lengths]
    more: dict[str, tuple[list[list[Any]], Any]] = {}
    if options.return_special_tokens_mask:
        more["special_tokens_mask"] = (batch.special_tokens_mask, 1)
    if options.return_offsets_mapping:
        more["offset_mapping"] = (batch.offsets, (0, 0))
    for name, (rows, filler) in more.items():
        missing = [[filler] * (width - len(row) if options.pads else 0) for row in rows]
        pairs = zip(rows, missing, strict=True)
        left = batch.padding_side == "left"
        values[name] = [rest + row if left else row + rest for row, rest in pairs]
    return values
