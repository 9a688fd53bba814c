"""Models of both libraries that hand out the same rows, and what evaluators are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_helpers import DIM
from torch import Tensor

from sparse_encoder import SparseEmbeddings
from sparse_encoder.similarity import SimilarityFunction

peer_models = pytest.importorskip("sentence_transformers.sparse_encoder")
utilities = pytest.importorskip("sentence_transformers.util")

TEXTS = [f"text {number}" for number in range(60)]


class Card:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}

    def set_evaluation_metrics(
        self, evaluator: object, metrics: dict[str, float], epoch: float = 0, step: int = 0
    ) -> None:
        self.metrics = dict(metrics)


class Rows:
    """Hands out given rows, as the class says."""

    def __init__(self, rows: dict[str, Tensor], similarity_fn_name: str) -> None:
        self.rows = rows
        self.similarity_fn_name = similarity_fn_name
        self.model_card_data = Card()

    def encode(self, texts: list[str], **options: Any) -> Any:  # noqa: ANN401
        return self._encode("", texts, options)

    def encode_query(self, texts: list[str], **options: Any) -> Any:  # noqa: ANN401
        return self._encode("query: ", texts, options)

    def encode_document(self, texts: list[str], **options: Any) -> Any:  # noqa: ANN401
        return self._encode("document: ", texts, options)

    def _encode(self, kind: str, texts: list[str], options: dict[str, Any]) -> Any:  # noqa: ANN401
        rows = torch.stack([self.rows[kind + text] for text in texts])
        if options["max_active_dims"] is not None:
            rows = utilities.select_max_active_dims(rows, options["max_active_dims"])
        return self.given(rows, options)

    def given(self, rows: Tensor, options: dict[str, Any]) -> Any:  # noqa: ANN401
        return SparseEmbeddings.from_dense(rows)

    @property
    def similarity(self) -> Callable[..., Tensor]:
        return SimilarityFunction.to_similarity_fn(self.similarity_fn_name)


class PeerRows(Rows):
    """The same as torch tensors, in the form the peer's evaluator asks for."""

    def given(self, rows: Tensor, options: dict[str, Any]) -> Any:  # noqa: ANN401
        embeddings = rows.to_sparse() if options["convert_to_sparse_tensor"] else rows
        return embeddings if options.get("convert_to_tensor", True) else list(embeddings)

    @property
    def similarity(self) -> Callable[..., Tensor]:
        function: Callable[..., Tensor] = utilities.SimilarityFunction.to_similarity_fn(self.similarity_fn_name)
        return function

    @staticmethod
    def sparsity(embeddings: Tensor) -> dict[str, float]:
        sparsity: dict[str, float] = peer_models.SparseEncoder.sparsity(embeddings)
        return sparsity


def models(similarity: str = "dot", seed: int = 0) -> tuple[Rows, PeerRows]:
    """Make both models; weights are quarters, so that sums are exact and scores often equal."""
    generator = torch.Generator().manual_seed(seed)
    rows = {}
    for kind in ("", "query: ", "document: "):
        weights = (torch.rand(len(TEXTS), DIM, generator=generator) * 4).ceil() / 4
        weights[torch.rand(len(TEXTS), DIM, generator=generator) > 0.3] = 0
        weights[:, 0] = 0.25  # nothing is empty
        rows |= {kind + text: row for text, row in zip(TEXTS, weights, strict=True)}
    return Rows(rows, similarity), PeerRows(rows, similarity)


def pick(count: int, seed: int) -> list[str]:
    return [TEXTS[place] for place in np.random.default_rng(seed).integers(0, len(TEXTS), count)]


def pairs(count: int = 40) -> tuple[list[str], list[str]]:
    return pick(count, 1), pick(count, 2)


def scores(count: int = 40) -> list[float]:
    return [float(value) for value in np.random.default_rng(3).integers(0, 6, count)]


def samples() -> list[dict[str, Any]]:
    random = np.random.default_rng(4)
    found: list[dict[str, Any]] = []
    for number in range(15):
        texts = pick(12, 100 + number)
        cut = int(random.integers(0, 4))
        found.append({"query": texts[-1], "positive": texts[:cut], "negative": texts[cut : cut + 7]})
    found[3]["positive"] = "text 7"
    found[5]["negative"] = []
    found[6]["negative"] = "text 9"
    return found


def found_by(seed: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    orders = [random.permutation(30) for _ in range(12)]
    wanted = np.random.default_rng(5)
    rows = []
    for number, order in enumerate(orders):
        positive: Any = [f"d{place}" for place in wanted.integers(0, 40, int(wanted.integers(1, 4)))]
        rows.append(
            {
                "query_id": f"q{number}",
                "query": f"query {number}",
                "positive": positive[0] if number == 2 else list(dict.fromkeys(positive)),
                "documents": [f"d{place}" for place in order[: int(random.integers(5, 20))]],
            }
        )
    return rows
