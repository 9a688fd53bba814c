"""From the inputs of a call to tokens: prompts, pairs of texts, and how many tokens a prompt takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from sparse_encoder.tokenizer import TokenBatch, Tokenizer


@dataclass(frozen=True)
class PromptedTokenBatch(TokenBatch):
    """Tokens of texts that begin with a prompt.

    Args:
        prompt_length: Number of tokens that the prompt and the special tokens before it take, or 0.
    """

    prompt_length: int = 0

    def pad(
        self,
        rows: Sequence[int] | None = None,
        *,
        length: int | None = None,
        device: torch.device | str | None = None,
    ) -> dict[str, Tensor]:
        """Pad as :meth:`TokenBatch.pad`, and add the feature ``prompt_length`` (B,) if there is a prompt."""
        features = super().pad(rows, length=length, device=device)
        if self.prompt_length:
            num_texts = features["input_ids"].shape[0]
            features["prompt_length"] = torch.full((num_texts,), self.prompt_length, device=device)
        return features


def tokenize(
    tokenizer: Tokenizer,
    inputs: str | Sequence[Any],  # texts or pairs of texts
    *,
    prompt: str | None,
    max_length: int | None,
    add_special_tokens: bool = True,
) -> TokenBatch:
    """Tokenise texts, or pairs of texts, with a prompt before each.

    Args:
        tokenizer: The tokenizer.
        inputs: Strings; or lists or tuples of two strings each; or a single string.
        prompt: Put before each text, or before the first of each pair, as it is.
        max_length: Most tokens; ``None`` for the tokenizer's own limit, which it cannot exceed.
        add_special_tokens: Put the special tokens of the model around them.

    Raises:
        TypeError: If an input is neither, or only some are pairs; names its position.
    """
    texts, pairs = _texts_and_pairs([inputs] if isinstance(inputs, str) else inputs)
    limit = tokenizer.model_max_length if max_length is None else min(max_length, tokenizer.model_max_length)
    with_prompt = texts if not prompt else [prompt + text for text in texts]
    batch = tokenizer.encode_batch(with_prompt, pairs, max_length=limit, add_special_tokens=add_special_tokens)
    if not prompt:
        return batch
    length = _prompt_length(tokenizer, prompt, limit, add_special_tokens)
    parts = {each.name: getattr(batch, each.name) for each in fields(TokenBatch)}
    return PromptedTokenBatch(**parts, prompt_length=length)


def _prompt_length(tokenizer: Tokenizer, prompt: str, limit: int, add_special_tokens: bool) -> int:
    """Count the tokens of a prompt and the special ones before it, not those that end a text."""
    ids = tokenizer.encode_batch([prompt], max_length=limit, add_special_tokens=add_special_tokens).input_ids[0]
    return len(ids) - 1 if ids and ids[-1] in tokenizer.all_special_ids else len(ids)


def _texts_and_pairs(inputs: Sequence[Any]) -> tuple[list[str], list[str] | None]:
    """Split pairs into first and second texts."""
    if not any(isinstance(item, (list, tuple)) for item in inputs):
        return list(inputs), None  # the tokenizer names an item that is no string
    for index, item in enumerate(inputs):
        is_pair = isinstance(item, (list, tuple)) and len(item) == 2 and all(isinstance(text, str) for text in item)
        if not is_pair:
            raise TypeError(f"inputs[{index}] must be a pair of strings as others are, got {item!r:.80}")
    return [first for first, _ in inputs], [second for _, second in inputs]
