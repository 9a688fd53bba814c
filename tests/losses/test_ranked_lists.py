"""Losses on ranked lists: by hand, and against a second implementation in loops."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparse_encoder import losses
from sparse_encoder.losses import checks
from sparse_encoder.losses.ranked_lists import gains_of, ideal_dcg

QUERIES, DOCUMENTS, VOCABULARY = 3, 5, 7


def batch(seed: int = 0) -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    columns = torch.rand(DOCUMENTS + 1, QUERIES, VOCABULARY, generator=generator, dtype=torch.float64)
    labels = torch.randint(4, (QUERIES, DOCUMENTS), generator=generator)
    return list((columns - 0.3).relu().unbind()), labels


MODEL = nn.Identity()


def lists(columns: list[Tensor], labels: Tensor) -> list[tuple[list[float], list[float]]]:
    scores = torch.stack([(columns[0] * each).sum(dim=1) for each in columns[1:]], dim=1)
    return list(zip(scores.tolist(), labels.tolist(), strict=True))


def discounted(gains: list[float]) -> float:
    return sum(gain / math.log2(2 + place) for place, gain in enumerate(gains))


def gain_of(label: float, kind: str) -> float:
    return 2 ** max(label, 0) - 1 if kind == "exponential" else max(label, 0)


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_rank_net(scale: float) -> None:
    columns, labels = batch()
    pairs = [
        math.log1p(math.exp(-scale * (scores[i] - scores[j])))
        for scores, given in lists(columns, labels)
        for i in range(DOCUMENTS)
        for j in range(DOCUMENTS)
        if given[i] > given[j]
    ]
    found = losses.SparseRankNetLoss(MODEL, scale=scale).compute_loss_from_embeddings(columns, labels)
    assert found.item() == pytest.approx(sum(pairs) / len(pairs), rel=1e-12)


@pytest.mark.parametrize("gain", ["exponential", "linear"])
def test_lambda_rank_counts_pairs_by_what_a_swap_would_change(gain: str) -> None:
    columns, labels = batch(1)
    total = 0.0
    for scores, given in lists(columns, labels):
        gains = [gain_of(label, gain) for label in given]
        order = sorted(range(DOCUMENTS), key=lambda i: -scores[i])
        ideal = discounted(sorted(gains, reverse=True))
        before = discounted([gains[i] for i in order]) / ideal
        for i in range(DOCUMENTS):
            for j in range(DOCUMENTS):
                if given[i] > given[j]:
                    swapped = [{i: j, j: i}.get(each, each) for each in order]
                    change = abs(discounted([gains[each] for each in swapped]) / ideal - before)
                    total += change * math.log1p(math.exp(-(scores[i] - scores[j])))
    found = losses.SparseLambdaRankLoss(MODEL, gain=gain).compute_loss_from_embeddings(columns, labels)
    assert found.item() == pytest.approx(total / QUERIES, rel=1e-10)


@pytest.mark.parametrize("gain", ["exponential", "linear"])
def test_approximate_ndcg(gain: str) -> None:
    columns, labels = batch(2)
    missed = []
    for scores, given in lists(columns, labels):
        gains = [gain_of(label, gain) for label in given]
        dcg = 0.0
        for i in range(DOCUMENTS):
            ahead = sum(1 / (1 + math.exp(-(scores[j] - scores[i]) / 0.7)) for j in range(DOCUMENTS) if j != i)
            dcg += gains[i] / math.log2(2 + ahead)
        missed.append(1 - dcg / discounted(sorted(gains, reverse=True)))
    loss = losses.SparseApproxNDCGLoss(MODEL, temperature=0.7, gain=gain)
    assert loss.compute_loss_from_embeddings(columns, labels).item() == pytest.approx(sum(missed) / QUERIES, rel=1e-10)


def test_a_low_temperature_gives_ndcg_itself() -> None:
    columns, labels = batch(3)
    true = []
    for scores, given in lists(columns, labels):
        gains = [gain_of(label, "exponential") for label in given]
        order = sorted(range(DOCUMENTS), key=lambda i: -scores[i])
        true.append(discounted([gains[i] for i in order]) / discounted(sorted(gains, reverse=True)))
    found = losses.SparseApproxNDCGLoss(MODEL, temperature=1e-4).compute_loss_from_embeddings(columns, labels)
    assert found.item() == pytest.approx(1 - sum(true) / QUERIES, abs=1e-9)


NAMES = ["SparseRankNetLoss", "SparseLambdaRankLoss", "SparseApproxNDCGLoss"]


def test_large_labels_count_as_they_are() -> None:
    labels = torch.tensor([[3.0, 0.0, 1.0, 2.5], [300.0, 0.0, 299.0, 2.0], [130.0, 129.0, 0.0, 128.0]])
    for dtype in (torch.float32, torch.float64):
        gains = gains_of(labels.to(dtype), "exponential")
        assert gains.isfinite().all()
        assert torch.equal(gains[0], labels[0].to(dtype).exp2() - 1)  # to the bit
        shares = gains / ideal_dcg(gains)
        exact = [2**300, 0, 2**299, 3]  # beside 2 ** 300 a 1 is nothing
        expected = [gain / (exact[0] + exact[2] / math.log2(3) + exact[3] / 2) for gain in exact]
        assert shares[1].tolist() == pytest.approx(expected, rel=1e-6, abs=1e-30)
    assert gains_of(torch.full((1, 3), 20.0, dtype=torch.float16), "exponential").isfinite().all()  # at most 65504


@pytest.mark.parametrize("name", ["SparseLambdaRankLoss", "SparseApproxNDCGLoss"])
def test_large_labels_give_finite_losses_and_gradients(name: str) -> None:
    columns, labels = batch()
    columns = [column.float().detach().requires_grad_() for column in columns]
    loss = getattr(losses, name)(nn.Identity()).compute_loss_from_embeddings(columns, 200 + labels.float())
    loss.backward()
    assert 0 < loss.item() < math.inf
    assert all(column.grad is not None and column.grad.isfinite().all() for column in columns)
    assert any(bool(column.grad.any()) for column in columns if column.grad is not None)


@pytest.mark.parametrize("name", NAMES)
def test_labels_that_order_nothing_teach_nothing(name: str) -> None:
    columns, labels = batch()
    weights = columns[0].requires_grad_()
    loss = getattr(losses, name)(MODEL).compute_loss_from_embeddings([weights, *columns[1:]], torch.zeros_like(labels))
    loss.backward()
    assert loss.item() == 0.0
    assert weights.grad is not None and weights.grad.abs().sum() == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_label_of_nan_is_seen_in_loss_and_gradient(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "is_at_hand", lambda _: False)  # as on an accelerator, which nobody waits for
    columns, labels = batch()
    given = labels.double()
    given[1, 2] = math.nan
    weights = columns[0].requires_grad_()
    loss = getattr(losses, name)(MODEL).compute_loss_from_embeddings([weights, *columns[1:]], given)
    loss.backward()
    assert loss.isnan()
    assert weights.grad is not None and weights.grad.isnan().any()


@pytest.mark.parametrize("name", NAMES)
def test_a_step_down_the_gradient_puts_documents_in_order(name: str) -> None:
    labels = torch.tensor([[0.0, 1.0, 3.0]])
    query = torch.ones(1, 3)
    documents = [torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[1.0, 0.5, 0.0]]), torch.tensor([[0.5, 0.2, 0.2]])]
    for each in documents:
        each.requires_grad_()
    getattr(losses, name)(MODEL).compute_loss_from_embeddings([query, *documents], labels).backward()
    gradients = [float(each.grad.sum()) for each in documents if each.grad is not None]
    assert gradients[0] > 0 > gradients[2]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_missing_is_named(name: str) -> None:
    columns, labels = batch()
    with pytest.raises(ValueError, match=f"{name} needs at least 3 columns, a query and two or more documents, got 2"):
        getattr(losses, name)(MODEL).compute_loss_from_embeddings(columns[:2], labels[:, :1])
    with pytest.raises(ValueError, match=f"{name} needs labels"):
        getattr(losses, name)(MODEL).compute_loss_from_embeddings(columns)
    with pytest.raises(ValueError, match=rf"{name} .* of shape \(3, 5\), got \(3, 4\)"):
        getattr(losses, name)(MODEL).compute_loss_from_embeddings(columns, labels[:, :4])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("SparseRankNetLoss", {"scale": 0.0}, "scale must be > 0"),
        ("SparseLambdaRankLoss", {"scale": -1.0}, "scale must be > 0"),
        ("SparseLambdaRankLoss", {"gain": "cubic"}, r"unknown gain 'cubic'; choose from \('exponential', 'linear'\)"),
        ("SparseApproxNDCGLoss", {"temperature": math.nan}, "temperature must be > 0"),
        ("SparseApproxNDCGLoss", {"gain": "cubic"}, "unknown gain"),
    ],
)
def test_settings_out_of_range_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(losses, name)(MODEL, **options)


@pytest.mark.parametrize(
    ("name", "settings"), [(NAMES[0], {"scale"}), (NAMES[1], {"gain"}), (NAMES[2], {"temperature"})]
)
def test_model_card(name: str, settings: set[str]) -> None:
    loss = getattr(losses, name)(MODEL)
    assert loss.get_config_dict()["similarity_fct"] == "pairwise_dot_score"
    assert settings <= set(loss.get_config_dict())
    assert loss.citation.strip().startswith("@")
