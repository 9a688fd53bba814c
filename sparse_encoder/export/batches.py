"""Token ids to trace and to compare graphs with. Knows no model, but what a configuration says of lengths.

Axes: B texts, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sparse_encoder.backbone import TransformerConfig
from sparse_encoder.export.graph import Case, Tensors

EXAMPLE_LENGTH = 8
LARGEST_EXAMPLE = 1024
"""Tokens; what only shows in longer texts is not in a graph, and comparing tells it."""
SHAPES = ((1, 1), (1, 2), (2, 7), (3, 31), (5, 64))


class Vocabulary(NamedTuple):
    """Which ids there are."""

    size: int
    pad_id: int


def vocabulary_of(config: TransformerConfig) -> Vocabulary:
    """Return the ids that a model knows."""
    return Vocabulary(config.vocab_size, config.pad_token_id or 0)


def example_length(config: TransformerConfig) -> int:
    """Return a length at which a model does all that it does for long texts, as hiding distant tokens from each other.

    Args:
        config: Of the backbone.
    """
    length = EXAMPLE_LENGTH
    if config.layer_types is not None and "local" in config.layer_types:
        length = max(length, config.local_window + 3)
    if config.disentangled is not None:
        length = max(length, config.disentangled.span + 2)
    return max(1, min(length, LARGEST_EXAMPLE, config.max_tokens))


def draw_ids(shape: tuple[int, int], vocabulary: Vocabulary, *, seed: int = 0) -> Tensor:
    """Draw token ids other than that of padding, (B, T) int64."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, max(1, vocabulary.size - 1), shape, generator=generator)
    return ids if vocabulary.size < 2 else ids + (ids >= vocabulary.pad_id).long()


def text_batch(
    shape: tuple[int, int], vocabulary: Vocabulary, *, padding: Sequence[int] = (), left: bool = False, seed: int = 0
) -> Tensors:
    """Draw ids and a mask.

    Args:
        shape: B and T.
        vocabulary: Which ids there are.
        padding: How many places of each of the first texts are padding.
        left: Whether padding lies before the text.
        seed: Of the ids.
    """
    ids, mask = draw_ids(shape, vocabulary, seed=seed), torch.ones(shape, dtype=torch.int64)
    for text, count in enumerate(padding[: shape[0]]):
        hidden = slice(None, count) if left else slice(shape[1] - count, None)
        ids[text, hidden], mask[text, hidden] = vocabulary.pad_id, 0
    return {"input_ids": ids, "attention_mask": mask}


def text_cases(vocabulary: Vocabulary, longest: int, *, num_token_types: int = 0, left: bool = False) -> list[Case]:
    """Make batches of several shapes: a text alone, a single token, padded rows.

    Args:
        vocabulary: Which ids there are.
        longest: Most tokens of a text; longer shapes are cut.
        num_token_types: Draw token types below this; 0 for none.
        left: Whether padding lies before texts.
    """
    cases = []
    for seed, (texts, tokens) in enumerate(SHAPES, start=1):
        shape = texts, min(tokens, longest)
        padding = [min(shape[1] - 1, 2 * shape[1] // 3), shape[1] // 3] if texts > 1 else []
        inputs = text_batch(shape, vocabulary, padding=padding, left=left, seed=seed)
        if num_token_types:
            inputs["token_type_ids"] = with_types(inputs["input_ids"], num_token_types)
        cases.append(Case("padded rows" if padding else "a text alone", inputs))
    return cases


def with_types(ids: Tensor, num_token_types: int) -> Tensor:
    """Return token types for ids, (B, T): the first half of a row is of the first type, the rest of the last."""
    places = torch.arange(ids.shape[1])
    return (places >= (ids.shape[1] + 1) // 2).long().mul(num_token_types - 1).expand(ids.shape).contiguous()
