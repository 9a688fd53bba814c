"""Dense pooling: one vector of hidden size for each text, out of those of its tokens.

Axes: B texts, T tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from sparse_encoder.modules.base import Module, checked_flag, checked_integer
from sparse_encoder.modules.features import Features
from sparse_encoder.renamed import older_arguments, renamed_argument

LEGACY_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""How older files name the modes: one flag for each, in the order in which they were joined."""


def _mode_of_flags(arguments: dict[str, Any]) -> None:  # of any type
    """Turn flags of older scripts and files into ``pooling_mode``, which wins over them."""
    flags = {name: arguments.pop(name) for name in LEGACY_FLAGS if name in arguments}
    if flags and "pooling_mode" not in arguments:
        arguments["pooling_mode"] = [mode for name, mode in LEGACY_FLAGS.items() if flags.get(name)] or "mean"


class Pooling(Module):
    """Pool token embeddings into one dense embedding for each text.

    Sums are kept in float32 under 16-bit embeddings. A text without tokens that count becomes zeros. Older scripts may
    name modes by flags, as in ``pooling_mode_cls_token=True``.

    Args:
        embedding_dimension: Width D of the token embeddings.
        pooling_mode: A name in :data:`POOLINGS`, or several, whose results are joined.
        include_prompt: Whether tokens of the prompt, and special ones before it, count.

    Raises:
        ValueError: If a mode is unknown or there is none.
    """

    config_keys: ClassVar[tuple[str, ...]] = ("embedding_dimension", "pooling_mode", "include_prompt")
    config_key_renames: ClassVar[dict[str, str]] = {"word_embedding_dimension": "embedding_dimension"}

    @renamed_argument("word_embedding_dimension", "embedding_dimension")
    @older_arguments(_mode_of_flags)
    def __init__(
        self, embedding_dimension: int, pooling_mode: str | Sequence[str] = "mean", include_prompt: bool = True
    ) -> None:
        super().__init__()
        modes = (pooling_mode,) if isinstance(pooling_mode, str) else tuple(pooling_mode)
        for mode in modes:
            if mode not in POOLINGS:
                raise ValueError(f"unknown pooling_mode {mode!r}; choose from {sorted(POOLINGS)}")
        if not modes:
            raise ValueError(f"pooling_mode must name at least one of {sorted(POOLINGS)}")
        self.embedding_dimension = checked_integer("embedding_dimension", embedding_dimension)
        self.modes = modes
        self.include_prompt = checked_flag("include_prompt", include_prompt)

    @property
    def pooling_mode(self) -> str | tuple[str, ...]:
        """The mode, or a tuple of them."""
        return self.modes[0] if len(self.modes) == 1 else self.modes

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """Pool a batch.

        Args:
            features: ``token_embeddings`` (B, T, D), ``attention_mask`` (B, T), and ``prompt_length`` if there is a
                prompt.

        Returns:
            The features with ``sentence_embedding``, (B, D) or the widths of several modes together.
        """
        tokens: Tensor = features["token_embeddings"]
        attended = features["attention_mask"].bool()
        start = attended.int().argmax(dim=1, keepdim=True)  # (B, 1): where left padding ends
        places = torch.arange(tokens.shape[1], device=tokens.device) - start  # (B, T): 0 for the first token
        counted = attended
        if not self.include_prompt and "prompt_length" in features:
            length = torch.as_tensor(features["prompt_length"], device=tokens.device).reshape(-1, 1)
            counted = attended & (places >= length)
        pooled = [POOLINGS[mode](tokens, counted, places) for mode in self.modes]
        return Features({**features, "sentence_embedding": torch.cat(pooled, dim=1)})

    def get_embedding_dimension(self) -> int | None:
        """Return the width of what is made."""
        return len(self.modes) * self.embedding_dimension

    @classmethod
    def load_config(cls, folder: Path) -> dict[str, Any]:
        """Read the configuration file; flags of older files become ``pooling_mode``."""
        config = super().load_config(folder)
        _mode_of_flags(config)
        return config


def _sum(tokens: Tensor, weights: Tensor) -> Tensor:
    """Add up tokens (B, T, D) with their weights (B, T), 0 for those that do not count, in float32 at least."""
    kept = tokens.masked_fill(weights.eq(0).unsqueeze(2), 0).to(weights.dtype)
    return (kept * weights.unsqueeze(2)).sum(dim=1)


def _weights(tokens: Tensor, counted: Tensor) -> Tensor:
    return counted.to(torch.promote_types(tokens.dtype, torch.float32))


def _first(tokens: Tensor, counted: Tensor, places: Tensor) -> Tensor:
    return _pick(tokens, counted, counted.int().argmax(dim=1))


def _last(tokens: Tensor, counted: Tensor, places: Tensor) -> Tensor:
    return _pick(tokens, counted, tokens.shape[1] - 1 - counted.flip(1).int().argmax(dim=1))


def _pick(tokens: Tensor, counted: Tensor, index: Tensor) -> Tensor:
    picked = tokens[torch.arange(tokens.shape[0], device=tokens.device), index]
    return picked.masked_fill(~counted.any(dim=1, keepdim=True), 0)


def _max(tokens: Tensor, counted: Tensor, places: Tensor) -> Tensor:
    largest = tokens.masked_fill(~counted.unsqueeze(2), float("-inf")).amax(dim=1)
    return largest.masked_fill(~counted.any(dim=1, keepdim=True), 0)


def _mean(tokens: Tensor, counted: Tensor, places: Tensor) -> Tensor:
    weights = _weights(tokens, counted)
    return (_sum(tokens, weights) / weights.sum(dim=1, keepdim=True).clamp(min=1)).to(tokens.dtype)


def _mean_sqrt(tokens: Tensor, counted: Tensor, places: Tensor) -> Tensor:
    weights = _weights(tokens, counted)
    return (_sum(tokens, weights) / weights.sum(dim=1, keepdim=True).clamp(min=1).sqrt()).to(tokens.dtype)


def _weighted_mean(tokens: Tensor, counted: Tensor, places: Tensor) -> Tensor:
    """Weigh each token by its place, counted from 1 at the first token of the text."""
    weights = _weights(tokens, counted) * (places + 1)
    return (_sum(tokens, weights) / weights.sum(dim=1, keepdim=True).clamp(min=1)).to(tokens.dtype)


POOLINGS: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "cls": _first,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt,
    "weightedmean": _weighted_mean,
    "lasttoken": _last,
}
"""Functions of tokens (B, T, D), those that count (B, T) and their places (B, T); each gives (B, D)."""
