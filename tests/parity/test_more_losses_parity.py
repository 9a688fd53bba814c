"""Value and gradient of the losses with labels, of triplets, of cached and of sparse codes against the peer's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparse_encoder import losses as ours
from sparse_encoder import similarity
from sparse_encoder.modules import SparseAutoEncoder

peers = pytest.importorskip("sentence_transformers.sparse_encoder.losses")
utilities = pytest.importorskip("sentence_transformers.util")
triplets = pytest.importorskip("sentence_transformers.sentence_transformer.losses.triplet")

BATCH, VOCABULARY = 5, 17
Compute = Callable[..., Any]  # a tensor, or tensors by name


class Handed(nn.Module):
    """Gives the columns that it is handed; what the peer's losses need of a model, and no more."""

    similarity_fn_name = "dot"

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        return {"sentence_embedding": features["column"]}


def random_columns(count: int, seed: int = 0) -> list[Tensor]:
    """What goes into the relu, three quarters of it negative."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(count, BATCH, VOCABULARY, generator=generator, dtype=torch.float64)
    return [column.requires_grad_() for column in ((weights - 0.75) * 8).unbind()]


def random_labels(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator) * 3  # float32, as a collator makes them


def assert_same(found: Compute, expected: Compute, count: int, labels: Tensor | None = None) -> None:
    """Compare two losses that are given the same columns, in value and in gradient."""

    def value_and_gradients(compute: Callable[..., Any]) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
        columns = random_columns(count)
        result = compute([column.relu() for column in columns], labels)
        terms = result if isinstance(result, dict) else {"loss": result}
        return terms, torch.autograd.grad(torch.stack(list(terms.values())).sum(), columns)

    terms, gradients = value_and_gradients(found)
    peer_terms, peer_gradients = value_and_gradients(expected)
    assert list(terms) == list(peer_terms)
    torch.testing.assert_close(terms, peer_terms, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradients, peer_gradients, rtol=1e-10, atol=1e-10)
    assert any(gradient.norm() > 1e-6 for gradient in gradients)


def compare(name: str, count: int, labels: Tensor, options: dict[str, Any]) -> None:
    """Compare a loss of both libraries, and what they write into model cards."""
    found, expected = (getattr(module, name)(Handed(), **options) for module in (ours, peers))
    assert found.get_config_dict() == expected.get_config_dict()
    assert_same(found.compute_loss_from_embeddings, expected.compute_loss_from_embeddings, count, labels)


SIMILARITIES = ["pairwise_dot_score", "pairwise_cos_sim", "pairwise_euclidean_sim"]


@pytest.mark.parametrize("similarity_fct", SIMILARITIES)
@pytest.mark.parametrize(("negatives", "shape"), [(1, (5,)), (1, (5, 1)), (1, (5, 2)), (3, (5, 3)), (3, (5, 4))])
def test_margin_mse(similarity_fct: str, negatives: int, shape: tuple[int, ...]) -> None:
    function = getattr(similarity, similarity_fct)
    compare("SparseMarginMSELoss", negatives + 2, random_labels(*shape), {"similarity_fct": function})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 1.0},
        {"student_temperature": 0.7},
        {"temperature": 3.0, "student_temperature": 1.5, "teacher_temperature": 0.5},
        {"similarity_fct": similarity.pairwise_cos_sim},
    ],
)
@pytest.mark.parametrize("documents", [2, 4])
def test_distilled_distribution(options: dict[str, Any], documents: int) -> None:
    compare("SparseDistillKLDivLoss", documents + 1, random_labels(BATCH, documents).double(), options)


@pytest.mark.parametrize("labels", [random_labels(BATCH), random_labels(BATCH, 1), torch.tensor([1, 0, 2, 1, 0])])
@pytest.mark.parametrize("options", [{}, {"scale": 3.0, "similarity_fct": similarity.pairwise_dot_score}])
def test_cosent(options: dict[str, Any], labels: Tensor) -> None:
    compare("SparseCoSENTLoss", 2, labels, options)


def test_cosent_of_booleans() -> None:
    compare("SparseCoSENTLoss", 2, torch.tensor([True, False, True, True, False]), {})


@pytest.mark.parametrize("scale", [20.0, 2.5])
def test_angle(scale: float) -> None:
    compare("SparseAnglELoss", 2, random_labels(BATCH), {"scale": scale})


@pytest.mark.parametrize("width", [6, 7])
def test_angle_similarity(width: int) -> None:
    x, y = torch.randn(2, BATCH, width, dtype=torch.float64).unbind()
    torch.testing.assert_close(
        similarity.pairwise_angle_sim(x, y), utilities.pairwise_angle_sim(x, y), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("options", [{}, {"loss_fct": nn.L1Loss(), "cos_score_transformation": nn.Sigmoid()}])
def test_cosine_similarity(options: dict[str, Any]) -> None:
    compare("SparseCosineSimilarityLoss", 2, random_labels(BATCH), options)


@pytest.mark.parametrize("metric", ["COSINE", "EUCLIDEAN", "MANHATTAN"])
@pytest.mark.parametrize("margin", [5, 0.3])
def test_triplet(metric: str, margin: float) -> None:
    found = ours.SparseTripletLoss(Handed(), getattr(ours.TripletDistanceMetric, metric), margin)
    expected = peers.SparseTripletLoss(Handed(), getattr(triplets.TripletDistanceMetric, metric), margin)
    assert found.get_config_dict() == expected.get_config_dict()
    assert_same(
        found.compute_loss_from_embeddings,
        lambda columns, _: expected.compute_loss_from_embeddings(columns, None),
        3,
    )


@pytest.mark.parametrize("shape", [(BATCH, VOCABULARY), (BATCH, 3, VOCABULARY)])
def test_mse(shape: tuple[int, ...]) -> None:
    found, expected = ours.SparseMSELoss(Handed()), peers.SparseMSELoss(Handed())

    assert_same(
        found.compute_loss_from_embeddings,
        lambda columns, labels: expected([{"column": column} for column in columns], labels),
        3,
        random_labels(*shape).double(),
    )


class Weighed(nn.Module):
    """Term weights of the columns handed, with parameters, so that the peer's caching has something to go back to."""

    similarity_fn_name = "dot"

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, VOCABULARY, dtype=torch.float64))

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        return {"sentence_embedding": (features["input_ids"] * self.scale).relu()}


@pytest.mark.parametrize("mini_batch", [{"mini_batch_size": 2}, {"mini_batch_size": 9}, {"mini_batch_num_tokens": 20}])
@pytest.mark.parametrize("weights", [{"query_regularizer_weight": 0.3}, {"use_document_regularizer_only": True}])
def test_cached_splade(mini_batch: dict[str, int], weights: dict[str, Any]) -> None:
    results = []
    for module in (ours, peers):
        model = Weighed()
        ranking = module.SparseMultipleNegativesRankingLoss(model, scale=0.1)
        loss = module.CachedSpladeLoss(model, ranking, 0.2, **weights, **mini_batch)
        columns = [
            {"input_ids": column.detach(), "attention_mask": torch.ones(BATCH, VOCABULARY, dtype=torch.int64)}
            for column in random_columns(3)
        ]
        terms = loss(columns, None)
        total = torch.stack([value.double() for value in terms.values()]).sum()
        total.backward()
        results.append((total.detach(), model.scale.grad, loss.get_config_dict().keys()))
    (found, gradient, config), (expected, peer_gradient, peer_config) = results
    # The peer takes its terms through float32; its gradient has not been there, nor has its loss without a cache.
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    model = Weighed()
    plain = peers.SpladeLoss(model, peers.SparseMultipleNegativesRankingLoss(model, scale=0.1), 0.2, **weights)
    exact = torch.stack(list(plain([{"input_ids": column.detach()} for column in random_columns(3)], None).values()))
    torch.testing.assert_close(found, exact.sum().detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradient, peer_gradient, rtol=1e-10, atol=1e-10)
    assert set(config) == set(peer_config)


@pytest.mark.parametrize("k_aux", [0, 8])
@pytest.mark.parametrize("options", [{}, {"beta": 0.7, "gamma": 0.4}])
def test_sparse_codes(options: dict[str, float], k_aux: int) -> None:
    torch.manual_seed(0)
    coder = SparseAutoEncoder(VOCABULARY, 24, k=3, k_aux=k_aux, dead_threshold=0).double()
    coder.stats_last_nonzero[::2] = 4

    class Coded(nn.Module):
        similarity_fn_name = "dot"

        def forward(self, features: dict[str, Any]) -> dict[str, Any]:
            return coder.eval()({"sentence_embedding": features["column"]})

    found, expected = ours.CSRLoss(Coded(), **options), peers.CSRLoss(Coded(), **options)
    assert found.get_config_dict() == expected.get_config_dict()
    assert_same(
        lambda columns, _: found([{"column": column} for column in columns]),
        lambda columns, _: expected([{"column": column} for column in columns], None),
        3,
    )


def test_every_loss_of_the_peer_is_there() -> None:
    assert [name for name in peers.__all__ if not hasattr(ours, name)] == []


@pytest.mark.parametrize("name", [name for name in peers.__all__ if name[0].isupper()])
def test_arguments_have_the_peers_names_and_order(name: str) -> None:
    import inspect

    found, expected = (list(inspect.signature(getattr(module, name).__init__).parameters) for module in (ours, peers))
    assert found[: len(expected)] == expected


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.05, "margin": 0.2},
        {"temperature": 0.5, "margin": 0.3, "margin_strategy": "relative", "contrast_anchors": False},
        {"temperature": 1.0, "contrast_positives": False},
    ],
)
def test_contrast_with_a_guide(options: dict[str, Any], count: int) -> None:
    """The peer has this loss for dense embeddings; its constructor asks for tokenizers, which it does not need here."""
    module = pytest.importorskip("sentence_transformers.sentence_transformer.losses.gist_embed")
    guided = [column.detach() for column in random_columns(count, seed=7)]

    class Guiding(nn.Module):
        def forward(self, features: dict[str, Any]) -> dict[str, Any]:
            return {"sentence_embedding": guided[features["place"]]}

    settings = {
        "margin_strategy": "absolute",
        "margin": 0.0,
        "contrast_anchors": True,
        "contrast_positives": True,
        "gather_across_devices": False,
    } | options
    expected = module.GISTEmbedLoss.__new__(module.GISTEmbedLoss)
    nn.Module.__init__(expected)
    expected.model, expected.guide, expected.must_retokenize = Handed(), Guiding(), False
    expected.similarity_fct, expected.cross_entropy_loss = nn.CosineSimilarity(dim=-1), nn.CrossEntropyLoss()
    for name, value in settings.items():
        setattr(expected, name, value)
    scale = 1 / settings.pop("temperature")
    found = ours.SparseGISTEmbedLoss(Handed(), Guiding(), scale, similarity_fct=similarity.cos_sim, **settings)

    def features(columns: list[Tensor]) -> list[dict[str, Any]]:
        return [{"column": column, "place": place} for place, column in enumerate(columns)]

    assert_same(
        lambda columns, _: found(features(columns)), lambda columns, _: expected(features(columns), None), count
    )
