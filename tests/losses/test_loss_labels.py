"""Losses with labels: values worked out by hand or by a second implementation, and what they refuse."""

from __future__ import annotations

import logging
import math
import re

import pytest
import torch
from torch import Tensor, nn

from sparse_encoder import losses
from sparse_encoder.losses import checks
from sparse_encoder.losses.cosent import ordered_by_labels
from sparse_encoder.losses.csr import relative_error
from sparse_encoder.similarity import pairwise_angle_sim

BATCH, VOCABULARY = 4, 7


def columns(count: int, seed: int = 0, batch: int = BATCH) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list((torch.rand(count, batch, VOCABULARY, generator=generator) - 0.4).relu().unbind())


MODEL = nn.Identity()


def test_margin_mse_by_hand() -> None:
    query, positive, negative = torch.tensor([[[1.0, 2.0]], [[3.0, 1.0]], [[1.0, 0.0]]])
    loss = losses.SparseMarginMSELoss(MODEL)
    # scores 5 and 1, margin 4; the teacher's 2.5
    assert loss.compute_loss_from_embeddings([query, positive, negative], torch.tensor([2.5])).item() == 1.5**2
    assert loss.compute_loss_from_embeddings([query, positive, negative], torch.tensor([[7.0, 4.0]])).item() == 1.0


def test_divergence_by_hand() -> None:
    query, first, second = torch.tensor([[[1.0]], [[2.0]], [[0.0]]])
    loss = losses.SparseDistillKLDivLoss(MODEL, temperature=2.0)
    found = loss.compute_loss_from_embeddings([query, first, second], torch.tensor([[0.0, 2.0 * math.log(3.0)]]))
    student = math.e / (math.e + 1)  # softmax of (2, 0) / 2
    teacher = 0.25
    expected = teacher * math.log(teacher / student) + (1 - teacher) * math.log((1 - teacher) / (1 - student))
    assert found.item() == pytest.approx(4 * expected, rel=1e-6)


def test_a_teacher_that_is_too_sure_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    loss = losses.SparseDistillKLDivLoss(MODEL, teacher_temperature=0.01)
    for _ in range(2):
        loss.compute_loss_from_embeddings(columns(3), torch.tensor([[0.0, 5.0]] * BATCH))
    assert caplog.text.count("4 of 8 of the teacher's scores") == 1
    assert "above 0.05" in caplog.text


def test_a_document_taken_out_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        scores = torch.tensor([[0.0, 1.0, -torch.inf]] * BATCH)
        found = losses.SparseDistillKLDivLoss(MODEL).compute_loss_from_embeddings(columns(4), scores)
    assert caplog.text == ""
    assert found.isfinite()


def test_a_teacher_of_nan_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "is_at_hand", lambda _: False)  # as on an accelerator: looked at once
    with pytest.raises(ValueError, match="labels of SparseDistillKLDivLoss, a teacher's scores, hold NaN"):
        losses.SparseDistillKLDivLoss(MODEL).compute_loss_from_embeddings(columns(3), torch.full((BATCH, 2), math.nan))


@pytest.mark.parametrize("name", ["temperature", "student_temperature", "teacher_temperature"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_temperatures_are_above_0(name: str, value: float) -> None:
    with pytest.raises(ValueError, match="temperature must be > 0 and finite"):
        losses.SparseDistillKLDivLoss(MODEL, **{name: value})


NO_NUMBERS: list[tuple[str, str]] = [
    ("AntiZeroLoss", "epsilon"),
    ("SparseAnglELoss", "scale"),
    ("SparseApproxNDCGLoss", "temperature"),
    ("SparseCoSENTLoss", "scale"),
    ("SparseDistillKLDivLoss", "temperature"),
    ("SparseInBatchDistillKLDivLoss", "student_temperature"),
    ("SparseMultipleNegativesRankingLoss", "scale"),
    ("SparseRankNetLoss", "scale"),
    ("SparseTripletLoss", "triplet_margin"),
]


@pytest.mark.parametrize("value", ["x", True, None, [1.0]])
@pytest.mark.parametrize(("name", "setting"), NO_NUMBERS)
def test_settings_that_are_no_numbers_are_refused_by_name(name: str, setting: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"^{setting} must be a number, got {re.escape(repr(value))}$"):
        getattr(losses, name)(MODEL, **{setting: value})


@pytest.mark.parametrize("name", ["SparseCoSENTLoss", "SparseAnglELoss"])
@pytest.mark.parametrize("value", [0, -3, math.nan, math.inf])
def test_scales_are_above_0(name: str, value: float) -> None:
    with pytest.raises(ValueError, match="^scale must be > 0 and finite"):
        getattr(losses, name)(MODEL, scale=value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_margins_are_finite(value: float) -> None:
    with pytest.raises(ValueError, match="^triplet_margin must be finite"):
        losses.SparseTripletLoss(MODEL, triplet_margin=value)
    with pytest.raises(ValueError, match="^margin must be finite"):
        losses.SparseGISTEmbedLoss(MODEL, nn.Identity(), margin=value)


def pairwise(scores: Tensor, labels: Tensor) -> Tensor:
    """The definition, over all pairs."""
    differences = scores.unsqueeze(0) - scores.unsqueeze(1)  # (i, j): s_j - s_i
    wrong = differences[labels.unsqueeze(1) > labels.unsqueeze(0)]
    return torch.cat([scores.new_zeros(1), wrong]).logsumexp(dim=0)


@pytest.mark.parametrize("levels", [1, 2, 5, 1000])
def test_cosent_is_the_sum_over_all_pairs(levels: int) -> None:
    generator = torch.Generator().manual_seed(levels)
    scores = torch.randn(50, generator=generator, dtype=torch.float64) * 10
    labels = torch.randint(levels, (50,), generator=generator).double()
    first, second = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    found, expected = ordered_by_labels(first, labels), pairwise(second, labels)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    found.backward()
    expected.backward()
    torch.testing.assert_close(first.grad, second.grad, rtol=1e-10, atol=1e-12)


def test_cosent_needs_memory_for_rows_not_for_pairs() -> None:
    scores, labels = torch.randn(4096, requires_grad=True), torch.randn(4096)
    largest = 0

    def note(tensor: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        ordered_by_labels(scores, labels).backward()
    assert 4096 <= largest <= 2 * 4096


def test_angle_by_hand() -> None:
    x, y = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]])
    # of length 1: (.6, .8) and (1, 0): cosine .6, and .8 * 1 - .6 * 0 turned
    assert pairwise_angle_sim(x, y).item() == pytest.approx(1.4)
    assert pairwise_angle_sim(y, x).item() == pytest.approx(abs(0.6 - 0.8))


def test_triplet_by_hand() -> None:
    query, positive, negative = torch.tensor([[[0.0, 0.0]], [[3.0, 4.0]], [[0.0, 7.0]]])
    assert losses.SparseTripletLoss(MODEL).compute_loss_from_embeddings([query, positive, negative]).item() == 3.0
    loss = losses.SparseTripletLoss(MODEL, distance_metric=losses.TripletDistanceMetric.MANHATTAN, triplet_margin=1)
    assert loss.compute_loss_from_embeddings([query, positive, negative]).item() == 1.0
    assert loss.get_config_dict() == {"distance_metric": "TripletDistanceMetric.MANHATTAN", "triplet_margin": 1}


def test_mse_by_hand() -> None:
    first, second = torch.tensor([[[1.0, 0.0]], [[0.0, 3.0]]])
    loss = losses.SparseMSELoss(MODEL)
    assert loss.compute_loss_from_embeddings([first, second], torch.tensor([[1.0, 1.0]])).item() == (0.5 + 2.5) / 2
    both = torch.tensor([[[1.0, 2.0], [0.0, 3.0]]])
    assert loss.compute_loss_from_embeddings([first, second], both).item() == 1.0


def test_cosine_by_hand() -> None:
    first, second = torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[2.0, 0.0], [1.0, 0.0]])
    found = losses.SparseCosineSimilarityLoss(MODEL).compute_loss_from_embeddings(
        [first, second], torch.tensor([0.5, 0.0])
    )
    assert found.item() == pytest.approx((0.25 + 0.5) / 2)


def test_error_in_units_of_the_mean() -> None:
    wanted = torch.tensor([[0.0, 2.0], [4.0, 2.0]])  # the mean (2, 2) misses by 4 in 2 of 4 entries
    assert relative_error(torch.zeros(2, 2), wanted).item() == (0 + 4 + 16 + 4) / 4 / 2
    assert relative_error(torch.zeros(2, 2), torch.full((2, 2), 3.0)).item() == 9.0


ARITY: list[tuple[str, int, tuple[int, ...] | None, str]] = [
    ("SparseMarginMSELoss", 2, (BATCH,), "SparseMarginMSELoss needs at least 3 columns, a query, a positive and neg"),
    ("SparseMarginMSELoss", 3, None, "SparseMarginMSELoss needs labels: a teacher's margins"),
    ("SparseMarginMSELoss", 4, (BATCH,), r"of shape \(4, 2\) or \(4, 3\), got \(4,\)"),
    ("SparseDistillKLDivLoss", 2, (BATCH, 1), "SparseDistillKLDivLoss needs at least 3 columns, .* got 2"),
    ("SparseDistillKLDivLoss", 3, None, "SparseDistillKLDivLoss needs labels"),
    ("SparseDistillKLDivLoss", 3, (BATCH, 3), r"of shape \(4, 2\), got \(4, 3\)"),
    ("SparseCoSENTLoss", 3, (BATCH,), "SparseCoSENTLoss needs 2 columns, .* got 3"),
    ("SparseCoSENTLoss", 2, (BATCH, 2), r"labels of SparseCoSENTLoss are one number per row, .* got \(4, 2\)"),
    ("SparseCoSENTLoss", 2, None, "SparseCoSENTLoss needs labels: one number per row, of shape"),
    ("SparseAnglELoss", 1, (BATCH,), "SparseAnglELoss needs 2 columns"),
    ("SparseAnglELoss", 2, None, "SparseAnglELoss needs labels"),
    ("SparseCosineSimilarityLoss", 1, (BATCH,), "SparseCosineSimilarityLoss needs 2 columns"),
    ("SparseCosineSimilarityLoss", 2, (3,), r"SparseCosineSimilarityLoss .* got \(3,\)"),
    ("SparseTripletLoss", 2, None, "SparseTripletLoss needs 3 columns, a query, a positive and a negative, got 2"),
    ("SparseTripletLoss", 4, None, "SparseTripletLoss needs 3 columns"),
    ("SparseMSELoss", 1, None, "SparseMSELoss needs labels: a teacher's embeddings"),
    ("SparseMSELoss", 0, (BATCH, VOCABULARY), "SparseMSELoss needs at least 1 column, .* got 0"),
    ("SparseMSELoss", 2, (BATCH, 3, VOCABULARY), r"SparseMSELoss .* of shape \(4, 7\) or \(4, 2, 7\), got \(4, 3, 7\)"),
    ("SparseMultipleNegativesRankingLoss", 1, None, "SparseMultipleNegativesRankingLoss needs at least 2 columns"),
]


@pytest.mark.parametrize(("name", "count", "shape", "message"), ARITY)
def test_what_is_missing_is_named(name: str, count: int, shape: tuple[int, ...] | None, message: str) -> None:
    labels = None if shape is None else torch.zeros(shape)
    with pytest.raises(ValueError, match=message):
        getattr(losses, name)(MODEL).compute_loss_from_embeddings(columns(count), labels)


def test_columns_of_several_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"columns of SparseTripletLoss must have one shape, got .*\(3, 7\)"):
        losses.SparseTripletLoss(MODEL).compute_loss_from_embeddings([*columns(2), *columns(1, batch=3)])


class Handed(nn.Module):
    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features["weights"].bfloat16()}


CALLS: list[tuple[str, int, tuple[int, ...] | None]] = [
    ("SparseMarginMSELoss", 4, (BATCH, 2)),
    ("SparseDistillKLDivLoss", 3, (BATCH, 2)),
    ("SparseCoSENTLoss", 2, (BATCH,)),
    ("SparseAnglELoss", 2, (BATCH,)),
    ("SparseCosineSimilarityLoss", 2, (BATCH,)),
    ("SparseTripletLoss", 3, None),
    ("SparseMSELoss", 2, (BATCH, VOCABULARY)),
]


@pytest.mark.parametrize(("name", "count", "shape"), CALLS)
def test_every_loss_works_alone_and_counts_in_float32(name: str, count: int, shape: tuple[int, ...] | None) -> None:
    labels = None if shape is None else torch.linspace(-1, 2, math.prod(shape)).reshape(shape)
    loss = getattr(losses, name)(Handed())
    found = loss([{"weights": column} for column in columns(count)], labels)
    expected = loss.compute_loss_from_embeddings([column.bfloat16().double() for column in columns(count)], labels)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
