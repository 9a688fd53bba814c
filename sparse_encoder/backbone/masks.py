"""Attention masks as places, and as numbers that are added to scores, for code written for other libraries.

The backbone makes its own numbers in :mod:`sparse_encoder.backbone.attention`.
Axes: B texts, T tokens, P tokens of the past.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def places_behind_padding(attention_mask: Tensor) -> Tensor:
    """Count places from the first token of each text, whatever padding is before it.

    Args:
        attention_mask: 1 for tokens, 0 for padding, (B, T).

    Returns:
        Places, (B, T); 0 for padding on the left, and for any other the place of the last token before it.
    """
    return (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)


def extended_attention_mask(
    attention_mask: Tensor, input_shape: Sequence[int], *, dtype: torch.dtype, is_decoder: bool = False
) -> Tensor:
    r"""Turn a mask of ones and zeros into a bias.

    .. math:: (1 - m) \min

    with the least finite number, so that a row that sees nothing gives no NaN.

    Args:
        attention_mask: 1 where a token may be seen, (B, P + T) or (B, T, P + T).
        input_shape: Texts and tokens, B and T, of the tokens that look.
        dtype: Of the scores.
        is_decoder: Hide what lies behind each token as well, in a mask of two axes.

    Returns:
        Bias, (B, 1, 1, T), for a decoder (B, 1, T, P + T), and of a mask of three axes (B, 1, T, P + T).

    Raises:
        ValueError: If the mask has neither two nor three axes, or fewer columns than tokens.
    """
    if attention_mask.ndim == 3:
        seen = attention_mask[:, None]
    elif attention_mask.ndim == 2:
        seen = attention_mask[:, None, None, :]
        if is_decoder:
            seen = seen * _causal(attention_mask, num_tokens=input_shape[1])
    else:
        raise ValueError(
            "attention_mask must be of shape (texts, tokens) or (texts, tokens, tokens), "
            f"got {tuple(attention_mask.shape)} for inputs of shape {tuple(input_shape)}"
        )
    return _bias(seen, dtype)


def _causal(attention_mask: Tensor, num_tokens: int) -> Tensor:
    """Return 1 where a token does not lie behind the one that looks, (T, P + T)."""
    num_columns = attention_mask.shape[1]
    past = num_columns - num_tokens
    if past < 0:
        raise ValueError(f"attention_mask must have a column for each token, got {num_columns} for {num_tokens} tokens")
    columns = torch.arange(num_columns, device=attention_mask.device)
    return (columns <= columns[past:, None]).to(attention_mask.dtype)


def inverted_attention_mask(encoder_attention_mask: Tensor, *, dtype: torch.dtype) -> Tensor:
    """Turn the mask of an encoder's tokens into a bias for the tokens of a decoder that look at them.

    Args:
        encoder_attention_mask: 1 where a token may be seen, (B, T) or (B, S, T).
        dtype: Of the scores.

    Returns:
        Bias, (B, 1, 1, T) or (B, 1, S, T).

    Raises:
        ValueError: If the mask has neither two nor three axes.
    """
    shape = tuple(encoder_attention_mask.shape)
    return extended_attention_mask(encoder_attention_mask, shape, dtype=dtype)


def _bias(seen: Tensor, dtype: torch.dtype) -> Tensor:
    return (1.0 - seen.to(dtype)) * torch.finfo(dtype).min
