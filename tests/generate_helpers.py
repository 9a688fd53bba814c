"""A model that knows nothing but the last token, for tests of loops: its logits are a row of a table."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from sparse_encoder.generation.config import GenerationConfig
from sparse_encoder.generation.mixin import GenerationMixin
from sparse_encoder.generation.outputs import CausalLanguageModelOutput


class CountingCache:
    """Count tokens and remember in which order rows were put."""

    def __init__(self, rows: int = 1) -> None:
        self.length = 0
        self.history = torch.zeros(rows, 0, dtype=torch.int64)
        self.reordered: list[list[int]] = []

    def get_seq_length(self) -> int:
        return self.length

    def read(self, ids: Tensor) -> None:
        self.history = torch.cat([self.history, ids], dim=1) if self.length else ids
        self.length += ids.shape[1]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.reordered.append(beam_idx.tolist())
        self.history = self.history[beam_idx]


class TableModel(GenerationMixin):
    """Give ``table[last token]`` as logits of the next one; keeps what it was called with.

    Args:
        table: Logits, (V, V).
        settings: Fields of the model's generation config.
    """

    is_encoder_decoder = False
    device = torch.device("cpu")

    def __init__(self, table: Tensor, **settings: Any) -> None:  # noqa: ANN401
        self.table = table
        self.generation_config = GenerationConfig.from_dict(settings)
        positions = {"max_positions": 64, "position_kind": "absolute"}
        self.config: Any = SimpleNamespace(vocab_size=table.shape[0], decoder=None, **positions)
        self.calls: list[dict[str, Any]] = []
        self.caches: list[tuple[str, int]] = []

    def new_cache(self, kind: str, max_cache_len: int) -> CountingCache:
        self.caches.append((kind, max_cache_len))
        return CountingCache()

    def __call__(self, **values: Any) -> CausalLanguageModelOutput:  # noqa: ANN401
        self.calls.append(values)
        ids, cache = values["input_ids"], values["past_key_values"]
        if cache is not None:
            cache.read(ids)
        return CausalLanguageModelOutput(logits=self.table[ids[:, -1:]], past_key_values=cache)


def random_table(size: int, seed: int = 0, spread: float = 1.0) -> Tensor:
    """Return logits that differ from each other."""
    return torch.randn(size, size, generator=torch.Generator().manual_seed(seed)) * spread
