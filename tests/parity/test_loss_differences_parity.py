"""Where a loss differs from the peer's on purpose: what ours does, and what theirs does as long as it does."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparse_encoder import losses as ours

peers = pytest.importorskip("sentence_transformers.sparse_encoder.losses")

BATCH, VOCABULARY = 5, 17


class Handed(nn.Module):
    """Gives the columns that it is handed."""

    def __init__(self) -> None:
        super().__init__()
        self.similarity_fn_name = "dot"

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        return {"sentence_embedding": features["column"]}


def random_columns(count: int, *shape: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return list((torch.rand(count, BATCH, *shape, generator=generator, dtype=torch.float64) - 0.4).relu().unbind())


@pytest.mark.parametrize("name", ["SparseCoSENTLoss", "SparseAnglELoss", "SparseCosineSimilarityLoss"])
def test_a_loss_leaves_the_similarity_of_the_model_alone(name: str) -> None:
    model, peer_model = Handed(), Handed()
    getattr(ours, name)(model)
    getattr(peers, name)(peer_model)
    assert (model.similarity_fn_name, peer_model.similarity_fn_name) == ("dot", "cosine")


def test_cosines_are_compared_with_labels_in_full_precision() -> None:
    columns, labels = random_columns(2, VOCABULARY), torch.linspace(0, 1, BATCH, dtype=torch.float64) / 3
    exact = nn.functional.mse_loss(torch.cosine_similarity(*columns), labels)
    rounded = nn.functional.mse_loss(torch.cosine_similarity(*columns), labels.float().double())
    found = ours.SparseCosineSimilarityLoss(Handed()).compute_loss_from_embeddings(columns, labels)
    assert found.item() == pytest.approx(exact.item(), rel=1e-14)
    peers_value = peers.SparseCosineSimilarityLoss(Handed()).compute_loss_from_embeddings(columns, labels)
    assert peers_value.item() == pytest.approx(rounded.item(), rel=1e-14)
    assert abs(exact - rounded) > 1e-12


@pytest.mark.parametrize("shape", [(VOCABULARY,), (2, VOCABULARY)])
def test_embeddings_of_a_teacher_are_the_labels_of_rows_inside_a_splade_loss(shape: tuple[int, ...]) -> None:
    columns, (labels,) = random_columns(2, VOCABULARY), random_columns(1, *shape)
    both = labels.unbind(dim=1) if labels.ndim == 3 else (labels, labels)
    expected = torch.stack([nn.functional.mse_loss(*pair) for pair in zip(columns, both, strict=True)]).mean()
    loss = ours.SpladeLoss(Handed(), ours.SparseMSELoss(Handed()), document_regularizer_weight=1e-3)
    found = loss([{"column": column} for column in columns], labels)["base_loss"]
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=0)
    if labels.ndim == 2:  # the peer takes rows of the labels for columns
        theirs = peers.SpladeLoss(Handed(), peers.SparseMSELoss(Handed()), document_regularizer_weight=1e-3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = theirs([{"column": column} for column in columns], labels)["base_loss"]
        rows = torch.stack(
            [nn.functional.mse_loss(c, row.expand_as(c)) for c, row in zip(columns, labels[:2], strict=True)]
        ).mean()
        torch.testing.assert_close(value, rows, rtol=1e-14, atol=0)
