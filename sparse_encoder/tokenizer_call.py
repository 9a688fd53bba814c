"""A tokenizer called as those of transformers are: their options in, and out what answers by key and by attribute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sparse_encoder.tokenizer_files import UNLIMITED

if TYPE_CHECKING:
    from sparse_encoder.tokenizer import Tokenizer


class TokenizerOutput(dict[str, Any]):  # lists, tensors or arrays
    """What a call returns; ``output.input_ids`` is ``output["input_ids"]``."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as above
        """Return the value of a key."""
        if name not in self:
            raise AttributeError(f"there is no {name!r} in what the tokenizer made, only {sorted(self)}")
        return self[name]

    def to(self, device: torch.device | str | int) -> TokenizerOutput:
        """Return the same with its tensors on a device."""
        moved = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in self.items()}
        return TokenizerOutput(moved)


def call(
    tokenizer: Tokenizer,
    text: str | Sequence[str],
    text_pair: str | Sequence[str] | None,
    *,
    padding: bool | str,
    truncation: bool | str,
    max_length: int | None,
    return_tensors: str | None,
    add_special_tokens: bool,
) -> TokenizerOutput:
    """Encode texts; arguments, result and errors are those of ``Tokenizer.__call__``."""
    if padding not in (True, False, "longest", "max_length", "do_not_pad"):
        raise ValueError(f"unknown padding {padding!r}; choose True, False, 'longest' or 'max_length'")
    if truncation not in (True, False, "longest_first", "do_not_truncate"):
        raise ValueError(f"unknown truncation {truncation!r}; choose True, False or 'longest_first'")
    if return_tensors not in (None, "pt", "np"):
        raise ValueError(f"unknown return_tensors {return_tensors!r}; choose 'pt', 'np' or None")
    single = isinstance(text, str)
    texts = [text] if isinstance(text, str) else text
    pairs = [text_pair] if isinstance(text_pair, str) else text_pair
    length = tokenizer.model_max_length if max_length is None else max_length
    cut = truncation in (True, "longest_first")
    batch = tokenizer.encode_batch(
        texts, pairs, max_length=length if cut else UNLIMITED, add_special_tokens=add_special_tokens
    )
    padded = padding in (True, "longest", "max_length")
    if not padded and return_tensors is None:
        rows = [batch.pad([row]) for row in range(len(batch))]
        lists = {name: [row[name][0].tolist() for row in rows] for name in batch.names}
    else:
        if not padded and len(set(batch.lengths)) > 1:
            raise ValueError("texts of different lengths cannot be one tensor; pass padding=True")
        longest = max(batch.lengths, default=0)
        tensors = batch.pad(length=max(length, longest) if padding == "max_length" else None)
        if return_tensors is not None:
            as_arrays = return_tensors == "np"
            return TokenizerOutput({name: value.numpy() if as_arrays else value for name, value in tensors.items()})
        lists = {name: value.tolist() for name, value in tensors.items()}
    return TokenizerOutput({name: rows[0] for name, rows in lists.items()} if single else lists)
