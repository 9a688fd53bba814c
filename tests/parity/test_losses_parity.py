"""Value and gradient of every loss against sentence-transformers, in float64 on random term weights.

Weights are what a relu leaves over, and gradients are those of what went into it: ours of a weight that is exactly 0
is 0 in the FLOPS penalty, the peer's is not, and no encoder can tell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparse_encoder import losses as ours

peers = pytest.importorskip("sentence_transformers.sparse_encoder.losses")
utilities = pytest.importorskip("sentence_transformers.util")

BATCH, VOCABULARY = 5, 17
ALL_DIRECTIONS = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")


def random_columns(count: int, seed: int = 0) -> list[Tensor]:
    """What goes into the relu, three quarters of it negative."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(count, BATCH, VOCABULARY, generator=generator, dtype=torch.float64)
    return [column.requires_grad_() for column in ((weights - 0.75) * 8).unbind()]


def value_and_gradients(compute: Callable[..., Any], columns: list[Tensor]) -> tuple[dict[str, Tensor], list[Tensor]]:
    result = compute([column.relu() for column in columns])
    terms = result if isinstance(result, dict) else {"loss": result}
    gradients = torch.autograd.grad(sum(terms.values()), columns, allow_unused=True)
    return terms, [torch.zeros_like(columns[0]) if gradient is None else gradient for gradient in gradients]


def assert_same(found: Callable[..., Any], expected: Callable[..., Any], columns: list[Tensor]) -> None:
    ours_terms, ours_gradients = value_and_gradients(found, columns)
    peer_terms, peer_gradients = value_and_gradients(expected, columns)
    assert list(ours_terms) == list(peer_terms)
    for name, term in peer_terms.items():
        torch.testing.assert_close(ours_terms[name], term, rtol=1e-10, atol=1e-10)
    for ours_gradient, peer_gradient in zip(ours_gradients, peer_gradients, strict=True):
        torch.testing.assert_close(ours_gradient, peer_gradient, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("num_columns", [2, 3, 4])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": 20.0, "similarity_fct": "cos_sim"},
        {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"},
        {"directions": ALL_DIRECTIONS, "scale": 0.5},
        {"directions": ("query_to_doc", "doc_to_doc")},
        {"directions": ("query_to_query", "query_to_doc")},
        {"hardness_mode": "in_batch_negatives", "hardness_strength": 0.7},
        {"hardness_mode": "hard_negatives", "hardness_strength": 0.7, "scale": 2.0},
        {"hardness_mode": "all_negatives", "hardness_strength": 0.7, "directions": ALL_DIRECTIONS},
    ],
)
def test_multiple_negatives(options: dict[str, Any], num_columns: int) -> None:
    if "similarity_fct" in options:
        options = options | {"similarity_fct": getattr(utilities, options["similarity_fct"])}
    found = ours.SparseMultipleNegativesRankingLoss(nn.Identity(), **options)
    expected = peers.SparseMultipleNegativesRankingLoss(nn.Identity(), **options)
    assert found.temperature == expected.temperature
    assert found.get_config_dict() == expected.get_config_dict()
    assert_same(
        found.compute_loss_from_embeddings,
        lambda columns: expected.compute_loss_from_embeddings(columns, None),
        random_columns(num_columns),
    )


@pytest.mark.parametrize("threshold", [None, 0, 4, 17])
def test_flops(threshold: int | None) -> None:
    found, expected = ours.FlopsLoss(nn.Identity(), threshold), peers.FlopsLoss(nn.Identity(), threshold)
    assert_same(
        lambda columns: found.compute_loss_from_embeddings(columns[0]),
        lambda columns: expected.compute_loss_from_embeddings(columns[0]),
        random_columns(1),
    )


@pytest.mark.parametrize(
    "options",
    [
        {"query_regularizer_weight": 0.3},
        {"query_regularizer_weight": None},
        {"query_regularizer_weight": 0.3, "document_regularizer_threshold": 4, "query_regularizer_threshold": 3},
        {"use_document_regularizer_only": True},
    ],
)
def test_splade(options: dict[str, Any]) -> None:
    found, expected = (
        module.SpladeLoss(
            nn.Identity(),
            module.SparseMultipleNegativesRankingLoss(nn.Identity()),
            document_regularizer_weight=0.2,
            **options,
        )
        for module in (ours, peers)
    )

    class Handed(nn.Module):  # the peer computes in forward only: hand it the columns as a model would
        def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"sentence_embedding": features["column"]}

    for loss in (found, expected):
        loss.model = Handed()
    assert_same(
        lambda columns: found([{"column": column} for column in columns]),
        lambda columns: expected([{"column": column} for column in columns], None),
        random_columns(3),
    )
