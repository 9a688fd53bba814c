"""What losses refuse: labels that are missing, of another shape, no tensor or NaN; too few columns; wrong names."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparse_encoder import losses
from sparse_encoder.losses import checks
from sparse_encoder.modules import SparseAutoEncoder

BATCH, VOCABULARY = 4, 7


class Handed(nn.Module):
    """Gives the columns that it is handed."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features["weights"]}


class Coded(nn.Module):
    """Gives what an autoencoder makes of the columns."""

    def __init__(self) -> None:
        super().__init__()
        self.coder = SparseAutoEncoder(VOCABULARY, 24, k=3, k_aux=4)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Any]:
        return self.coder({"sentence_embedding": features["weights"]})


class Broken(Handed):
    """Is not a number in the second text of the column it is called on as the second."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        self.calls += 1
        weights = features["weights"].clone()
        if self.calls == 2:
            weights[1, 3] = math.nan
        return {"sentence_embedding": weights}


MODEL = Handed()
TEACHER = losses.TeacherEnsemble([Handed()], MODEL, score_scale=None)
Make = Callable[[], nn.Module]
MAKE: dict[str, Make] = {
    "SparseMultipleNegativesRankingLoss": lambda: losses.SparseMultipleNegativesRankingLoss(MODEL),
    "SparseMarginMSELoss": lambda: losses.SparseMarginMSELoss(MODEL),
    "SparseDistillKLDivLoss": lambda: losses.SparseDistillKLDivLoss(MODEL),
    "SparseCoSENTLoss": lambda: losses.SparseCoSENTLoss(MODEL),
    "SparseAnglELoss": lambda: losses.SparseAnglELoss(MODEL),
    "SparseCosineSimilarityLoss": lambda: losses.SparseCosineSimilarityLoss(MODEL),
    "SparseTripletLoss": lambda: losses.SparseTripletLoss(MODEL),
    "SparseMSELoss": lambda: losses.SparseMSELoss(MODEL),
    "SparseRankNetLoss": lambda: losses.SparseRankNetLoss(MODEL),
    "SparseLambdaRankLoss": lambda: losses.SparseLambdaRankLoss(MODEL),
    "SparseApproxNDCGLoss": lambda: losses.SparseApproxNDCGLoss(MODEL),
    "SparseInBatchMarginMSELoss": lambda: losses.SparseInBatchMarginMSELoss(MODEL),
    "SparseInBatchDistillKLDivLoss": lambda: losses.SparseInBatchDistillKLDivLoss(MODEL),
    "SparseGISTEmbedLoss": lambda: losses.SparseGISTEmbedLoss(MODEL, Handed()),
    "CSRReconstructionLoss": lambda: losses.CSRReconstructionLoss(Coded()),
    "CSRLoss": lambda: losses.CSRLoss(Coded()),
    "SpladeLoss": lambda: losses.SpladeLoss(MODEL, losses.SparseMSELoss(MODEL), 1e-3),
    "CachedSpladeLoss": lambda: losses.CachedSpladeLoss(MODEL, losses.SparseMSELoss(MODEL), 1e-3),
    "FlopsLoss": lambda: losses.FlopsLoss(MODEL),
    "L1Loss": lambda: losses.L1Loss(MODEL),
    "AntiZeroLoss": lambda: losses.AntiZeroLoss(MODEL),
    "DFFlopsLoss": lambda: losses.DFFlopsLoss(MODEL, num_terms=VOCABULARY),
    "JointFlopsLoss": lambda: losses.JointFlopsLoss(MODEL),
    "TaughtLoss": lambda: losses.TaughtLoss(MODEL, losses.SparseMarginMSELoss(MODEL), TEACHER),
    "WeightedSumLoss": lambda: losses.WeightedSumLoss(MODEL, {"flops": losses.FlopsLoss(MODEL)}),
}


def columns(count: int) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    weights = (torch.rand(count, BATCH, VOCABULARY, generator=generator) - 0.3).relu()
    return [{"weights": column} for column in weights.unbind()]


def test_the_list_is_complete() -> None:
    parts = {"EmbeddingLoss", "Regularizer", "SparsityTarget", "WeightedSumRegularizer"}
    modules = {
        name
        for name in losses.__all__
        if isinstance(getattr(losses, name), type) and issubclass(getattr(losses, name), nn.Module)
    }
    assert set(MAKE) == modules - parts


FEWEST = {
    1: ["SparseMSELoss", "CSRReconstructionLoss", "FlopsLoss", "L1Loss", "AntiZeroLoss", "DFFlopsLoss"],
    3: ["SparseMarginMSELoss", "SparseDistillKLDivLoss", "SparseTripletLoss", "SparseRankNetLoss"]
    + ["SparseLambdaRankLoss", "SparseApproxNDCGLoss"],
}


@pytest.mark.parametrize("name", sorted(MAKE))
def test_a_batch_without_columns_is_refused(name: str) -> None:
    named = "CSRReconstructionLoss" if name == "CSRLoss" else name
    with pytest.raises(ValueError, match=f"^{named} needs at least (one|1) column"):
        MAKE[name]()([], None)


@pytest.mark.parametrize("name", sorted(MAKE))
def test_fewer_columns_than_a_loss_needs_are_counted(name: str) -> None:
    fewest = next((count for count, names in FEWEST.items() if name in names), 2)
    if name == "WeightedSumLoss" or fewest == 1:
        return  # one column is enough, as for each of the regularizers in it
    told = {
        "CSRLoss": "SparseMultipleNegativesRankingLoss needs at least 2 columns",
        "SpladeLoss": "SpladeLoss needs a query column and document columns, got 1",
        "CachedSpladeLoss": "CachedSpladeLoss needs a query column and document columns, got 1",
        "TaughtLoss": "a teacher needs at least 2 columns, a query and a document, got 1",
    }
    with pytest.raises(ValueError, match=told.get(name, f"^{name} needs (at least )?{fewest} columns, .*, got ")):
        MAKE[name]()(columns(fewest - 1), None)


LABELLED: list[tuple[str, int, tuple[int, ...], str]] = [
    ("SparseMarginMSELoss", 4, (BATCH, 2), "a teacher's margins"),
    ("SparseDistillKLDivLoss", 3, (BATCH, 2), "a teacher's scores"),
    ("SparseCoSENTLoss", 2, (BATCH,), "one number per row"),
    ("SparseAnglELoss", 2, (BATCH, 1), "one number per row"),
    ("SparseCosineSimilarityLoss", 2, (BATCH,), "one number per row"),
    ("SparseMSELoss", 2, (BATCH, VOCABULARY), "a teacher's embeddings"),
    ("SparseRankNetLoss", 3, (BATCH, 2), "judgements of the documents"),
    ("SparseLambdaRankLoss", 3, (BATCH, 2), "judgements of the documents"),
    ("SparseApproxNDCGLoss", 3, (BATCH, 2), "judgements of the documents"),
    ("SparseInBatchMarginMSELoss", 3, (BATCH, 2 * BATCH), "a teacher's scores of all queries"),
    ("SparseInBatchDistillKLDivLoss", 3, (BATCH, 2 * BATCH), "a teacher's scores of all queries"),
]


@pytest.mark.parametrize(("name", "count", "shape", "what"), LABELLED)
def test_labels_that_cannot_be_learnt_from_are_named(name: str, count: int, shape: tuple[int, ...], what: str) -> None:
    loss, given = MAKE[name](), columns(count)
    good = torch.linspace(0, 1, math.prod(shape)).reshape(shape)
    assert loss(given, good).isfinite()
    bad = good.clone()
    bad[2] = math.nan
    for labels, error, message in (
        (None, ValueError, f"^{name} needs labels: {what}.*; the batch has none$"),
        (good[:-1], ValueError, f"^the labels of {name} are {what}.*, got {re.escape(str((BATCH - 1, *shape[1:])))}$"),
        (bad, ValueError, f"^the labels of {name}, {what}.*, hold NaN in row 2$"),
        (good.tolist(), TypeError, f"^the labels of {name} must be a tensor, {what}.*, got list$"),
    ):
        with pytest.raises(error, match=message):
            loss(given, labels)


@pytest.mark.parametrize("name", ["SparseCoSENTLoss", "SparseAnglELoss"])
def test_nan_that_nobody_looked_at_comes_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "is_at_hand", lambda _: False)  # as on an accelerator
    assert MAKE[name]()(columns(2), torch.tensor([0.0, 1.0, math.nan, 2.0])).isnan()


def test_a_guide_that_is_not_finite_is_refused() -> None:
    loss = losses.SparseGISTEmbedLoss(MODEL, Broken())
    message = "^the guide of SparseGISTEmbedLoss, Broken, is not finite in row 1 of column 1$"
    with pytest.raises(ValueError, match=message):
        loss(columns(3))
    assert loss(columns(3)).isfinite()  # which it is the next time


NAMED: list[tuple[str, str, str]] = [
    ("SparseTripletLoss", "distance_metric", "TripletDistanceMetric.COSINE, TripletDistanceMetric.EUCLIDEAN"),
    ("SparseMultipleNegativesRankingLoss", "similarity_fct", "dot_score"),
    ("SparseInBatchMarginMSELoss", "similarity_fct", "dot_score"),
    ("SparseInBatchDistillKLDivLoss", "similarity_fct", "dot_score"),
    ("SparseMarginMSELoss", "similarity_fct", "pairwise_dot_score"),
    ("SparseDistillKLDivLoss", "similarity_fct", "pairwise_dot_score"),
    ("SparseCoSENTLoss", "similarity_fct", "pairwise_dot_score"),
    ("SparseRankNetLoss", "similarity_fct", "pairwise_dot_score"),
    ("SparseLambdaRankLoss", "similarity_fct", "pairwise_dot_score"),
    ("SparseApproxNDCGLoss", "similarity_fct", "pairwise_dot_score"),
    ("SparseCosineSimilarityLoss", "loss_fct", "torch.nn"),
    ("SparseCosineSimilarityLoss", "cos_score_transformation", "torch.nn"),
]


@pytest.mark.parametrize(("name", "setting", "known"), NAMED)
def test_a_name_in_the_place_of_a_function_is_refused_at_construction(name: str, setting: str, known: str) -> None:
    with pytest.raises(ValueError, match=f"^unknown {setting} 'cosin'; give .*{re.escape(known)}"):
        getattr(losses, name)(MODEL, **{setting: "cosin"})


def test_a_name_is_no_similarity_of_a_guided_loss() -> None:
    with pytest.raises(ValueError, match="^unknown similarity_fct 'dot'; give .*dot_score"):
        losses.SparseGISTEmbedLoss(MODEL, Handed(), similarity_fct="dot")
