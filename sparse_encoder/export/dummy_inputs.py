"""Inputs that a graph is traced with, made of a tokenizer's unknown token. Knows nothing of models.

Axes: B texts, C choices, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sparse_encoder.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class DummyShape:
    """Say how large a batch is.

    Raises:
        TypeError: If a number is no integer.
        ValueError: If it is 0.
    """

    batch_size: int
    num_tokens: int
    """Special ones included."""
    num_choices: int | None = None
    """Texts of one row; None for tasks without choices."""
    is_pair: bool = False
    """Whether each row is two texts."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("batch_size", "num_tokens", "num_choices"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise TypeError(f"{name} must be an integer, got {value!r:.80}")
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


class _Template(NamedTuple):
    """What a tokenizer puts around texts."""

    before: list[int]
    between: list[int]
    after: list[int]


def fixed_size(value: int, default: int) -> int:
    """Return a size; zero and below stand for the default."""
    return default if isinstance(value, int) and value <= 0 else value


def dummy_batch(preprocessor: object, shape: DummyShape) -> dict[str, Tensor]:
    """Make a batch of unknown tokens between special ones.

    Args:
        preprocessor: A tokenizer; one of ``transformers`` is taken over.
        shape: Of the batch.

    Returns:
        ``input_ids``, ``attention_mask`` and ``token_type_ids``, (B, T) int64, or (B, C, T).

    Raises:
        ValueError: If the special tokens alone are more than the batch has.
    """
    tokenizer = Tokenizer.of(preprocessor)
    unknown = _unknown_id(tokenizer)
    template = _template(tokenizer, is_pair=shape.is_pair)
    free = shape.num_tokens - sum(map(len, template))
    if free < 0:
        count = shape.num_tokens - free
        raise ValueError(f"seq_length must be at least {count}, the special tokens of a text, got {shape.num_tokens}")
    first = free - free // 2 if shape.is_pair else free
    head = [*template.before, *[unknown] * first, *template.between]
    row = [*head, *[unknown] * (free - first), *template.after]
    types = [0] * len(head) + [int(shape.is_pair)] * (len(row) - len(head))
    rows = shape.batch_size * (shape.num_choices or 1)
    values = {"input_ids": row, "attention_mask": [1] * len(row), "token_type_ids": types}
    size = (shape.batch_size, shape.num_choices, len(row)) if shape.num_choices else (rows, len(row))
    return {name: torch.tensor([value] * rows).reshape(size) for name, value in values.items()}


def _unknown_id(tokenizer: Tokenizer) -> int:
    """Return the id of the unknown token, else the first that is no special token."""
    if tokenizer.unk_token_id is not None:
        return int(tokenizer.unk_token_id)
    special = set(tokenizer.all_special_ids)
    return next((number for number in range(len(tokenizer)) if number not in special), 0)


def _template(tokenizer: Tokenizer, *, is_pair: bool) -> _Template:
    """Find out what is put around texts, by a text of one ordinary token."""
    text = _ordinary_text(tokenizer)
    plain = tokenizer.encode(text, add_special_tokens=False)
    whole = tokenizer.encode(text, text if is_pair else None)
    start = _find(whole, plain, 0)
    if not is_pair:
        return _Template(whole[:start], [], whole[start + len(plain) :])
    second = _find(whole, plain, start + len(plain))
    return _Template(whole[:start], whole[start + len(plain) : second], whole[second + len(plain) :])


def _ordinary_text(tokenizer: Tokenizer) -> str:
    """Return a text that becomes tokens of which none is special."""
    special = set(tokenizer.all_special_ids)
    for text in ("a", "the", "x", "1"):
        ids = tokenizer.encode(text, add_special_tokens=False)
        if ids and not special.intersection(ids):
            return text
    return "a"


def _find(whole: list[int], part: list[int], start: int) -> int:
    """Return where a part begins, or ``start`` if there is nothing to find."""
    places = range(start, len(whole) - len(part) + 1)
    return next((place for place in places if part and whole[place : place + len(part)] == part), start)
