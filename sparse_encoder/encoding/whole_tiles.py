"""Matrix products whose rows do not depend on how many there are.

The CPU multiplies few rows by another way than many, with other roundings: products of 1 to 3 rows differ from those of
16 in the last bits, with two threads those of up to 11 rows too. Sixteen rows, or a multiple, are all computed alike.
Token by token that is so anyhow, because padded lengths are multiples of 16; layers on one vector per text are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sparse_encoder.modules import Dense, Features, SparseAutoEncoder

ROWS = 16
EMBEDDING = "sentence_embedding"


@contextmanager
def whole_tiles(model: nn.Module) -> Iterator[None]:
    """Let the layers on one vector per text see a multiple of 16 rows on the CPU; what is added is taken away again."""
    layers = [module for module in model.modules() if isinstance(module, (Dense, SparseAutoEncoder))]
    hooks = [layer.register_forward_pre_hook(_add_rows) for layer in layers]
    hooks += [layer.register_forward_hook(_take_rows) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _add_rows(module: nn.Module, inputs: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
    """Fill ``sentence_embedding`` (B, D) up with rows of zeros."""
    features, *others = inputs
    vectors: Tensor | None = features.get(EMBEDDING)
    if vectors is None or vectors.device.type != "cpu":
        return inputs
    added = vectors.new_zeros(-vectors.shape[0] % ROWS, vectors.shape[1])
    return Features({**features, EMBEDDING: torch.cat([vectors, added])}), *others


def _take_rows(module: nn.Module, inputs: tuple[dict[str, Any], ...], output: dict[str, Any]) -> dict[str, Any]:
    """Keep the rows of the texts, of which there are as many as of the attention mask, (B, T)."""
    if EMBEDDING not in output:
        return output
    return Features({**output, EMBEDDING: output[EMBEDDING][: output["attention_mask"].shape[0]]})
