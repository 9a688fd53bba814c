"""Where a loss differs from the peer's on purpose: what ours does, and what theirs does as long as it does."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparse_encoder import losses as ours
from sparse_encoder import similarity

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


@pytest.mark.parametrize("strategy", ["absolute", "relative"])
def test_a_guide_with_a_negative_margin_lets_no_text_be_its_own_negative(strategy: str) -> None:
    module = pytest.importorskip("sentence_transformers.sentence_transformer.losses.gist_embed")
    columns = random_columns(2, VOCABULARY)

    class Alike(nn.Module):
        def forward(self, features: dict[str, Any]) -> dict[str, Any]:
            return {"sentence_embedding": torch.ones(BATCH, 3, dtype=torch.float64)}

    # All is 1 for the guide and the limit is 1.5, so nothing is left out but, in ours, a text beside itself.
    theirs = module.GISTEmbedLoss.__new__(module.GISTEmbedLoss)
    nn.Module.__init__(theirs)
    theirs.model, theirs.guide, theirs.must_retokenize, theirs.temperature = Handed(), Alike(), False, 1.0
    theirs.similarity_fct, theirs.cross_entropy_loss = nn.CosineSimilarity(dim=-1), nn.CrossEntropyLoss()
    theirs.margin_strategy, theirs.margin, theirs.gather_across_devices = strategy, -0.5, False
    theirs.contrast_anchors = theirs.contrast_positives = True
    loss = ours.SparseGISTEmbedLoss(
        Handed(), Alike(), margin_strategy=strategy, margin=-0.5, similarity_fct=similarity.cos_sim
    )
    features = [{"column": column} for column in columns]
    queries, documents = (nn.functional.normalize(column, dim=1) for column in columns)
    itself = torch.eye(BATCH, dtype=torch.bool)
    for found, diagonal in ((loss(features), -torch.inf), (theirs(features, None), 1.0)):
        among = [(each @ each.mT).masked_fill(itself, diagonal) for each in (queries, documents)]
        logits = torch.cat([queries @ documents.mT, *among], dim=1)
        expected = nn.functional.cross_entropy(logits, torch.arange(BATCH))
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


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
