"""Penalties by hand; over micro-batches; summed up; and in SpladeLoss."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparse_encoder.losses import (
    AntiZeroLoss,
    CSRReconstructionLoss,
    DFFlopsLoss,
    FlopsLoss,
    JointFlopsLoss,
    L1Loss,
    SparseMultipleNegativesRankingLoss,
    SparseTripletLoss,
    SpladeLoss,
    WeightedSumLoss,
    WeightedSumRegularizer,
)
from sparse_encoder.losses.global_batch import global_batch

ROWS, VOCABULARY = 12, 7
WEIGHTS = torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, 0.0]])


class Projection(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.project = nn.Linear(5, VOCABULARY, dtype=torch.float64)

    def get_embedding_dimension(self) -> int:
        return VOCABULARY

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": self.project(features["hidden"]).relu()}


def columns(rows: slice = slice(None)) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(4)
    hidden = torch.randn(3, ROWS, 5, generator=generator, dtype=torch.float64)
    return [{"hidden": column[rows]} for column in hidden]


def test_l1_by_hand() -> None:
    assert L1Loss(nn.Identity()).compute_loss_from_embeddings(WEIGHTS).item() == 3.0
    assert L1Loss(nn.Identity()).compute_loss_from_embeddings(-WEIGHTS).item() == 3.0


def test_anti_zero_by_hand() -> None:
    assert AntiZeroLoss(nn.Identity(), epsilon=1.0).compute_loss_from_embeddings(WEIGHTS).item() == 1 / 16
    empty = torch.zeros(2, 3, requires_grad=True)
    loss = AntiZeroLoss(nn.Identity(), epsilon=0.5).compute_loss_from_embeddings(empty.relu())
    loss.backward()
    assert loss.item() == 4.0
    assert empty.grad is not None and empty.grad.isfinite().all()


def test_joint_flops_by_hand() -> None:
    loss = JointFlopsLoss(nn.Identity())
    documents = torch.tensor([[2.0, 5.0, 0.0], [0.0, 7.0, 2.0]])
    # queries' means 2, 0, 1; documents' means 1, 6, 1
    assert loss.compute_loss_from_embeddings([WEIGHTS, documents]).item() == 2 * 1 + 0 * 6 + 1 * 1
    assert loss.compute_loss_from_embeddings([WEIGHTS, documents, 3 * documents]).item() == 2 * 3
    with pytest.raises(ValueError, match="JointFlopsLoss needs at least 2 columns, queries and documents, got 1"):
        loss.compute_loss_from_embeddings([WEIGHTS])


def test_weights_of_terms_by_their_share_of_documents() -> None:
    loss = DFFlopsLoss(nn.Identity(), alpha=0.25, beta=3.0, num_terms=4)
    found = loss.term_weights(torch.tensor([0.0, 0.25, 1.0, 0.5]))
    # log_0.25(2) = -1/2: a base of sqrt(2) - 1 at one half
    expected = [0.0, 0.5, 1.0, 1 / (1 + (2**0.5 - 1) ** 3)]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_document_frequencies_are_averaged_over_updates() -> None:
    loss = DFFlopsLoss(nn.Identity(), alpha=0.25, beta=3.0, momentum=0.75, num_terms=3)
    weights = WEIGHTS.clone().requires_grad_()
    found = loss.compute_loss_from_embeddings(weights)
    assert loss.document_frequencies.tolist() == [1.0, 0.0, 0.5]
    omega = loss.term_weights(torch.tensor([1.0, 0.0, 0.5]))
    torch.testing.assert_close(found, (omega * torch.tensor([2.0, 0.0, 1.0])).square().sum())
    with torch.no_grad():  # an evaluation teaches nothing
        loss.compute_loss_from_embeddings(weights * 0)
    loss.compute_loss_from_embeddings(weights * 0)
    assert loss.document_frequencies.tolist() == [0.75, 0.0, 0.375]
    again = DFFlopsLoss(nn.Identity(), num_terms=3)
    again.load_state_dict(loss.state_dict())
    assert torch.equal(again.document_frequencies, loss.document_frequencies)


def test_document_frequencies_of_a_collection() -> None:
    loss = DFFlopsLoss(Projection(), momentum=1.0)
    shares = torch.linspace(0, 1, VOCABULARY)
    loss.set_document_frequencies(shares)
    loss.compute_loss_from_embeddings(torch.ones(2, VOCABULARY, requires_grad=True))
    assert torch.equal(loss.document_frequencies, shares)
    with pytest.raises(ValueError, match=r"must be of shape \(7,\), got \(3,\)"):
        loss.set_document_frequencies(torch.ones(3))
    with pytest.raises(ValueError, match="between 0 and 1, got 0 to 2"):
        loss.set_document_frequencies(shares * 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, "alpha must be above 0 and below 1"),
        ({"alpha": 1.0}, "alpha must be above 0 and below 1"),
        ({"beta": 0.0}, "beta must be > 0"),
        ({"momentum": 1.5}, "momentum must be >= 0 and <= 1"),
        ({"num_terms": None}, "needs num_terms"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DFFlopsLoss(nn.Identity(), **{"num_terms": 3, **options})


OBJECTIVES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "l1": L1Loss,
    "anti-zero": AntiZeroLoss,
    "document frequency": partial(DFFlopsLoss, alpha=0.6, beta=2.0),
    "joint": JointFlopsLoss,
    "sum": lambda model: WeightedSumRegularizer(model, {"a": FlopsLoss(model), "b": AntiZeroLoss(model)}, {"b": 0.5}),
    "in splade": lambda model: SpladeLoss(
        model, JointFlopsLoss(model), 0.3, 0.5, document_regularizer=DFFlopsLoss(model), query_regularizer=L1Loss(model)
    ),
    "targets": lambda model: SpladeLoss(model, SparseTripletLoss(model), target_document_dims=2, target_query_dims=3),
}


def run(build: Callable[[nn.Module], nn.Module], sizes: list[int]) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Make two updates in micro-batches; returns what they leave behind: gradients, and the loss's own state."""
    model = Projection()
    objective = build(model)
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    batches = [columns(slice(start, start + size)) for start, size in zip(starts, sizes, strict=True)]

    def compute(index: int) -> Tensor:
        value = objective(batches[index])
        return torch.stack(list(value.values())).sum() if isinstance(value, dict) else value

    for _ in range(2):
        with global_batch(objective, [partial(compute, index) for index in range(len(sizes))]):
            for index in range(len(sizes)):
                (compute(index) / len(sizes)).backward()
        with torch.no_grad():
            model.project.bias -= 0.1
    assert model.project.weight.grad is not None and model.project.bias.grad is not None
    own = {name: value for name, value in objective.state_dict().items() if "project" not in name}
    return [model.project.weight.grad, model.project.bias.grad], own


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_micro_batches_give_gradients_and_state_of_the_whole_batch(name: str) -> None:
    gradients, state = run(OBJECTIVES[name], [4, 4, 4])
    expected, wanted = run(OBJECTIVES[name], [ROWS])
    torch.testing.assert_close(gradients, expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(state, wanted, rtol=1e-6, atol=1e-6)
    assert all(gradient.norm() > 0 for gradient in expected)
    if name in ("document frequency", "targets"):
        counted = [value.item() for key, value in wanted.items() if key.endswith("updates")]
        assert counted and set(counted) == {2}


def test_a_weighted_sum_names_its_terms() -> None:
    model = Projection()
    splade = SpladeLoss(model, SparseMultipleNegativesRankingLoss(model), 0.1, 0.2)
    loss = WeightedSumLoss(model, {"rank": splade, "joint": JointFlopsLoss(model), "l1": L1Loss(model)}, {"joint": 3.0})
    terms = loss(columns())
    assert list(terms) == [
        "rank_base_loss",
        "rank_document_regularizer_loss",
        "rank_query_regularizer_loss",
        "joint",
        "l1",
    ]
    torch.testing.assert_close(terms["joint"], 3 * JointFlopsLoss(model)(columns()))
    torch.testing.assert_close(terms["l1"], L1Loss(model)(columns()))  # of all columns together
    torch.testing.assert_close(terms["rank_base_loss"], splade(columns())["base_loss"])
    assert loss.get_config_dict() == {
        "losses": {"rank": "SpladeLoss", "joint": "JointFlopsLoss", "l1": "L1Loss"},
        "weights": {"rank": 1.0, "joint": 3.0, "l1": 1.0},
    }


def test_terms_of_one_name_are_refused() -> None:
    model = Projection()
    splade = SpladeLoss(model, SparseMultipleNegativesRankingLoss(model), 0.1)
    others = [("rank", splade), ("rank_base_loss", SparseMultipleNegativesRankingLoss(model))]
    for order, last in ((others, "rank_base_loss"), (others[::-1], "rank")):
        with pytest.raises(ValueError, match=f"two losses have a term 'rank_base_loss': '{last}' and one before it"):
            WeightedSumLoss(model, dict(order))(columns())


def test_a_sum_of_regularizers_by_hand() -> None:
    model = nn.Identity()
    both = WeightedSumRegularizer(model, {"flops": FlopsLoss(model), "l1": L1Loss(model)}, {"flops": 0.5})
    assert both.compute_loss_from_embeddings(WEIGHTS).item() == 0.5 * 5 + 3
    assert both.get_config_dict()["weights"] == {"flops": 0.5, "l1": 1.0}


@pytest.mark.parametrize(
    ("losses", "weights", "message"),
    [
        ({}, None, "at least one loss"),
        ({"a.b": FlopsLoss(nn.Identity())}, None, "'a.b' cannot be the name of a loss"),
        ({"keys": FlopsLoss(nn.Identity())}, None, "'keys' cannot be the name of a loss"),
        ({"a": nn.Identity()}, None, r"'a' must be a loss with compute_loss_from_embeddings\(.*\), got Identity"),
        ({"a": CSRReconstructionLoss(nn.Identity())}, None, "'a' must be a loss .*, got CSRReconstructionLoss"),
        ({"a": FlopsLoss(nn.Identity())}, {"b": 1.0}, r"weights for \['b'\], but only losses called \['a'\]"),
        ({"a": FlopsLoss(nn.Identity())}, {"a": -1.0}, "weight of 'a' must be >= 0"),
    ],
)
def test_sums_of_nothing_or_of_no_losses_are_refused(
    losses: dict[str, Any], weights: dict[str, float] | None, message: str
) -> None:
    for kind in (WeightedSumLoss, WeightedSumRegularizer):
        with pytest.raises(ValueError, match=message):
            kind(nn.Identity(), losses, weights)


def test_a_sum_of_regularizers_takes_no_other_loss() -> None:
    with pytest.raises(ValueError, match=r"\['a'\] are no regularizers"):
        WeightedSumRegularizer(nn.Identity(), {"a": JointFlopsLoss(nn.Identity())})  # type: ignore[dict-item]
