"""Losses that ask another encoder about a batch: what it is given, what is made of its answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed_helpers import in_processes
from torch import Tensor, nn

from sparse_encoder import losses
from sparse_encoder.losses import (
    CachedSpladeLoss,
    CSRLoss,
    Guide,
    SparseDistillKLDivLoss,
    SparseGISTEmbedLoss,
    SparseInBatchDistillKLDivLoss,
    SparseInBatchMarginMSELoss,
    SparseMarginMSELoss,
    SparseMultipleNegativesRankingLoss,
    SpladeLoss,
    TaughtLoss,
    TeacherEnsemble,
    WeightedSumLoss,
    ensemble_scores,
    min_max_per_query,
)
from sparse_encoder.similarity import cos_sim, dot_score

ROWS, WIDTH, TOKENS = 3, 5, 11
WORDS = ["<pad>", *(f"w{index}" for index in range(1, TOKENS))]


class Words:
    """A tokenizer as far as it decodes."""

    def batch_decode(self, sequences: Sequence[Sequence[int]], skip_special_tokens: bool = False) -> list[str]:
        assert skip_special_tokens
        return [" ".join(WORDS[each] for each in ids) for ids in sequences]


class Bag(nn.Module):
    """Adds up a vector per token."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.words = nn.Embedding(TOKENS, WIDTH, dtype=torch.float64)
        self.tokenizer = Words()
        self.calls = 0

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        self.calls += 1
        weights = self.words(features["input_ids"]) * features["attention_mask"].unsqueeze(2)
        return {"sentence_embedding": weights.sum(dim=1)}


class Reader:
    """Encodes texts; notes them."""

    def __init__(self, seed: int = 9) -> None:
        self.bag = Bag(seed)
        self.texts: list[tuple[str, list[str]]] = []

    def _encode(self, kind: str, texts: list[str]) -> Tensor:
        self.texts.append((kind, texts))
        ids = [[WORDS.index(word) for word in text.split()] for text in texts]
        return torch.stack([self.bag.words.weight[each].sum(dim=0) for each in ids]).detach()

    def encode(self, texts: list[str], show_progress_bar: bool = True) -> Any:  # noqa: ANN401  (as of an encoder)
        assert not show_progress_bar
        return self._encode("text", texts).numpy()


class QueryReader(Reader):
    """Tells queries from documents, and has a similarity of its own."""

    def encode_query(self, texts: list[str], show_progress_bar: bool = True) -> Tensor:
        return self._encode("query", texts)

    def encode_document(self, texts: list[str], show_progress_bar: bool = True) -> Tensor:
        return self._encode("document", texts)

    def similarity(self, a: Tensor, b: Tensor) -> Tensor:
        return cos_sim(a, b)


def columns(count: int, rows: int = ROWS) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, TOKENS, (count, rows, 4), generator=generator)
    ids[:, 1, 2:] = 0
    return [{"input_ids": each, "attention_mask": (each > 0).long()} for each in ids]


def embeddings(model: nn.Module, count: int) -> list[Tensor]:
    return [model(column)["sentence_embedding"].detach() for column in columns(count)]


def test_a_module_is_given_the_features() -> None:
    guide = Bag(2).train()
    found = Guide(guide, Bag(1)).embed(columns(2))
    assert not guide.training
    assert not any(each.requires_grad for each in found)
    torch.testing.assert_close(found, embeddings(guide, 2))


@pytest.mark.parametrize(("kind", "names"), [(Reader, ["text", "text"]), (QueryReader, ["query", "document"])])
def test_an_encoder_is_given_texts(kind: type[Reader], names: list[str]) -> None:
    reader = kind()
    found = Guide(reader, Bag(1)).embed(columns(2))
    torch.testing.assert_close(found, embeddings(reader.bag, 2))
    assert [name for name, _ in reader.texts] == names
    ids = columns(2)[0]["input_ids"][1, :2].tolist()
    assert reader.texts[0][1][1] == " ".join(WORDS[each] for each in ids)  # without padding


def test_what_is_no_guide_is_refused() -> None:
    with pytest.raises(TypeError, match=r"must have encode\(\) or be a module, got int"):
        Guide(3, Bag(1))
    with pytest.raises(ValueError, match="needs a model with a tokenizer"):
        Guide(Reader(), nn.Identity())


def test_scores_from_0_to_1() -> None:
    scores = torch.tensor([[1.0, 3.0, 2.0], [5.0, 5.0, 5.0]])
    assert min_max_per_query(scores).tolist() == [[0.0, 1.0, 0.5], [0.0, 0.0, 0.0]]


def test_nan_is_not_made_a_score() -> None:
    found = min_max_per_query(torch.tensor([[1.0, math.nan, 3.0], [2.0, 4.0, 3.0]]))
    assert found[0].isnan().all()
    assert found[1].tolist() == [0.0, 1.0, 0.5]


class Broken(Bag):
    """Is not finite in one text."""

    def __init__(self, value: float, column: int, row: int) -> None:
        super().__init__(2)
        self.value, self.column, self.row = value, column, row

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        made = super().forward(features)
        if self.calls == self.column + 1:
            made["sentence_embedding"][self.row, 3] = self.value
        return made


class Overflowing(Reader):
    """Has sound embeddings, and scores that are not."""

    def similarity(self, a: Tensor, b: Tensor) -> Tensor:
        scores = dot_score(a, b)
        scores[2, 1] = math.inf
        return scores


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("column", "row"), [(0, 2), (1, 0), (2, 1)])
def test_a_teacher_that_is_not_finite_is_named(value: float, column: int, row: int) -> None:
    model = Bag(1)
    ensemble = TeacherEnsemble([Bag(3), Broken(value, column, row)], model)
    for loss in (
        TaughtLoss(model, SparseMarginMSELoss(model), ensemble),
        SparseInBatchMarginMSELoss(model, ensemble),
    ):
        ensemble.guides[1].encoder.calls = 0
        with pytest.raises(ValueError, match=f"^teacher 1, Broken, is not finite in row {row} of column {column}$"):
            loss(columns(3))


def test_scores_that_are_not_finite_are_named() -> None:
    with pytest.raises(ValueError, match="^teacher 0, Overflowing, is not finite in the scores of row 2$"):
        TeacherEnsemble([Overflowing()], Bag(1), score_scale=None).scores(columns(2))


def test_an_ensemble_by_hand() -> None:
    first, second = torch.tensor([[0.0, 1.0, 4.0]]), torch.tensor([[30.0, 10.0, 20.0]])
    found = ensemble_scores([first, second], [3.0, 1.0], score_scale=8.0)
    expected = [(3 * 0 + 1 * 1) / 4, (3 * 0.25 + 0) / 4, (3 * 1 + 0.5) / 4]
    assert found.tolist() == [[8 * each for each in expected]]
    assert ensemble_scores([first]).tolist() == [[0.0, 7.5, 30.0]]
    for scores, weights in (([], None), ([first, second[:, :2]], None), ([first], [1.0, 2.0]), ([first], [0.0])):
        with pytest.raises(ValueError, match="teacher"):
            ensemble_scores(scores, weights)


def test_an_ensemble_scores_all_pairs_of_a_batch() -> None:
    bag, reader = Bag(2), QueryReader()
    found = TeacherEnsemble([bag, reader], Bag(1), [1.0, 2.0], score_scale=6.0).scores(columns(3))
    raw = []
    for encoder, compare in ((bag, dot_score), (reader.bag, cos_sim)):
        queries, *documents = embeddings(encoder, 3)
        raw.append(min_max_per_query(compare(queries, torch.cat(documents))))
    torch.testing.assert_close(found, 6.0 * (raw[0] + 2 * raw[1]) / 3)
    assert found.shape == (ROWS, 2 * ROWS)


def test_ensembles_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one teacher"):
        TeacherEnsemble([], Bag(1))
    with pytest.raises(ValueError, match="scores of 2 teachers must be normalised"):
        TeacherEnsemble([Bag(1), Bag(2)], Bag(3), score_scale=None)
    with pytest.raises(ValueError, match="1 teachers and 2 weights"):
        TeacherEnsemble([Bag(1)], Bag(3), [1.0, 1.0])


def own_scores(encoder: nn.Module, count: int) -> Tensor:
    queries, *documents = embeddings(encoder, count)
    return torch.stack([(queries * each).sum(dim=1) for each in documents], dim=1)


@pytest.mark.parametrize("kind", [SparseMarginMSELoss, SparseDistillKLDivLoss])
def test_a_taught_loss_has_the_teachers_scores_as_labels(kind: Any) -> None:  # noqa: ANN401  (a class)
    model, teacher = Bag(1), Bag(2)
    loss = TaughtLoss(model, kind(model), TeacherEnsemble([teacher], model, score_scale=None))
    expected = kind(model)(columns(4), own_scores(teacher, 4))
    torch.testing.assert_close(loss(columns(4)), expected)
    assert not any("teacher" in name for name, _ in loss.named_parameters())


def all_scores(encoder: nn.Module, count: int) -> Tensor:
    queries, *documents = embeddings(encoder, count)
    return queries @ torch.cat(documents).mT


def test_margins_over_all_documents_of_the_batch() -> None:
    model, teacher = Bag(1), Bag(2)
    student, wanted = all_scores(model, 3).tolist(), all_scores(teacher, 3).tolist()
    missed = [
        ((student[i][i] - student[i][j]) - (wanted[i][i] - wanted[i][j])) ** 2
        for i in range(ROWS)
        for j in range(2 * ROWS)
        if j != i
    ]
    expected = sum(missed) / len(missed)
    found = SparseInBatchMarginMSELoss(model, TeacherEnsemble([teacher], model, score_scale=None))(columns(3))
    assert found.item() == pytest.approx(expected, rel=1e-10)
    without = SparseInBatchMarginMSELoss(model)(columns(3), all_scores(teacher, 3))
    assert without.item() == pytest.approx(expected, rel=1e-10)


def test_divergence_over_all_documents_of_the_batch() -> None:
    model, teacher = Bag(1), Bag(2)
    student = (all_scores(model, 2) / 1.5).softmax(dim=1)
    wanted = (all_scores(teacher, 2) / 4.0).softmax(dim=1)
    expected = 1.5**2 * (wanted * (wanted / student).log()).sum() / ROWS
    loss = SparseInBatchDistillKLDivLoss(
        model,
        TeacherEnsemble([teacher], model, score_scale=None),
        student_temperature=1.5,
        teacher_temperature=4.0,
    )
    torch.testing.assert_close(loss(columns(2)), expected)
    assert loss.get_config_dict()["teachers"] == ["Bag"]


def test_labels_of_all_pairs_are_needed_without_a_teacher() -> None:
    with pytest.raises(ValueError, match=r"needs labels: a teacher's scores of all queries with all .* \(3, 6\)"):
        SparseInBatchMarginMSELoss(Bag(1))(columns(3))
    with pytest.raises(ValueError, match="needs at least 2 columns"):
        SparseInBatchDistillKLDivLoss(Bag(1))(columns(1), torch.ones(3, 3))
    with pytest.raises(ValueError, match="student_temperature must be > 0"):
        SparseInBatchDistillKLDivLoss(Bag(1), student_temperature=0.0)


def gist_by_loops(model: nn.Module, guide: nn.Module, count: int, options: dict[str, Any]) -> float:
    """Add up by hand what is kept."""
    student, guided = embeddings(model, count), embeddings(guide, count)

    def similar(one: Tensor, other: Tensor) -> float:
        return float(cos_sim(one, other))

    total = 0.0
    for i in range(ROWS):
        reference = similar(guided[0][i], guided[1][i])
        margin = options.get("margin", 0.0)
        limit = reference - margin * (abs(reference) if options.get("margin_strategy") == "relative" else 1.0)
        pairs = [(0, i, column, j) for column in range(1, count) for j in range(ROWS) if (column, j) != (1, i)]
        if options.get("contrast_anchors", True):
            pairs += [(0, i, 0, j) for j in range(ROWS) if j != i]
        if options.get("contrast_positives", True):
            pairs += [(1, i, 1, j) for j in range(ROWS) if j != i]
        scale = options.get("scale", 1.0)
        positive = scale * float(student[0][i] @ student[1][i])
        kept = [
            scale * float(student[a][x] @ student[b][y])
            for a, x, b, y in pairs
            if similar(guided[a][x], guided[b][y]) <= limit
        ]
        assert len(kept) < len(pairs) or i > 0  # something is left out
        total += math.log(math.fsum(math.exp(each - positive) for each in [positive, *kept]))
    return total / ROWS


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize(
    "options",
    [
        {"margin": 0.3},
        {"scale": 0.5, "margin": 0.2, "margin_strategy": "relative"},
        {"contrast_anchors": False, "margin": 0.5},
        {"contrast_positives": False, "margin": 0.3},
    ],
)
def test_what_the_guide_finds_as_good_is_left_out(count: int, options: dict[str, Any]) -> None:
    model, guide = Bag(1), Bag(3)
    found = SparseGISTEmbedLoss(model, guide, **options)(columns(count))
    assert found.item() == pytest.approx(gist_by_loops(model, guide, count, options), rel=1e-9)


class GuideOf(nn.Module):
    """A guide with given embeddings of each column."""

    def __init__(self, *embeddings: Tensor) -> None:
        super().__init__()
        self.embeddings = list(embeddings)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": self.embeddings[int(features["place"][0])]}


class Given(nn.Module):
    """Hands the embeddings on that it gets."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features["weights"]}


@pytest.mark.parametrize(("margin", "is_left_out"), [(0.0, False), (0.1, False), (0.5, True)])
def test_a_relative_margin_lowers_a_negative_limit_too(margin: float, is_left_out: bool) -> None:
    # For the guide, each query is -0.8 like its own document and -0.96 like the other one. By hand, the limit is
    # -0.8 - 0.8 margin: -0.88 keeps the other one, -1.2 does not; -0.8 (1 - margin) = -0.4 would keep it.
    own, other = math.acos(-0.8), math.acos(-0.96)

    def at(angle: float) -> list[float]:
        return [math.cos(angle), math.sin(angle)]

    queries = torch.tensor([at(0.0), at(own + other)], dtype=torch.float64)
    documents = torch.tensor([at(own), at(other)], dtype=torch.float64)
    weights = torch.eye(2, dtype=torch.float64)
    batch = [{"weights": weights, "place": torch.full((2, 1), place)} for place in range(2)]
    options = {"contrast_anchors": False, "contrast_positives": False, "margin_strategy": "relative", "margin": margin}
    loss = SparseGISTEmbedLoss(Given(), GuideOf(queries, documents), **options)
    # The student scores the own document 1 and the other one 0.
    assert loss(batch).item() == pytest.approx(0.0 if is_left_out else math.log(1 + math.exp(-1)), abs=1e-12)


def gathered(rank: int, folder: str) -> tuple[Tensor, Tensor | None]:
    """Compute the loss and gradient of this rank's rows."""
    model = Bag(1)
    own = [{name: value[2 * rank : 2 * rank + 2] for name, value in column.items()} for column in columns(3, rows=4)]
    loss = SparseGISTEmbedLoss(model, Bag(3), margin=0.2, contrast_anchors=False, gather_across_devices=True)
    value = loss(own)
    value.backward()
    return value.detach(), model.words.weight.grad


@pytest.mark.slow
def test_processes_compare_with_the_documents_of_all(tmp_path: Path) -> None:
    by_rank = in_processes(gathered, ranks=2, folder=tmp_path)
    model = Bag(1)
    expected = SparseGISTEmbedLoss(model, Bag(3), margin=0.2, contrast_anchors=False)(columns(3, rows=4))
    expected.backward()
    torch.testing.assert_close(torch.stack([value for value, _ in by_rank]).mean(), expected.detach())
    torch.testing.assert_close(torch.stack([gradient for _, gradient in by_rank]).mean(dim=0), model.words.weight.grad)


def test_an_unknown_strategy_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown margin_strategy 'half'"):
        SparseGISTEmbedLoss(Bag(1), Bag(2), margin_strategy="half")  # type: ignore[arg-type]


def test_a_guided_loss_cannot_judge_embeddings_alone() -> None:
    model = Bag(1)
    for loss in (
        SparseGISTEmbedLoss(model, Bag(2)),
        TaughtLoss(model, SparseMarginMSELoss(model), TeacherEnsemble([Bag(2)], model)),
        SparseInBatchMarginMSELoss(model, TeacherEnsemble([Bag(2)], model)),
    ):
        with pytest.raises(RuntimeError, match=f"{type(loss).__name__} asks another encoder about the texts"):
            loss.compute_loss_from_embeddings(embeddings(model, 3))


def test_losses_made_of_a_guided_one_show_it_the_batch() -> None:
    model, guide = Bag(1), Bag(3)
    alone = SparseGISTEmbedLoss(model, guide)(columns(2))
    guided = SparseGISTEmbedLoss(model, guide)
    for loss in (SpladeLoss(model, guided, 0.1), CachedSpladeLoss(model, guided, 0.1, mini_batch_size=2)):
        torch.testing.assert_close(loss(columns(2))["base_loss"], alone)
    mixed = WeightedSumLoss(model, {"gist": guided, "plain": SparseMultipleNegativesRankingLoss(model)}, {"gist": 2.0})
    torch.testing.assert_close(mixed(columns(2))["gist"], 2 * alone)
    assert "guide" not in "".join(mixed.state_dict())

    class Coded(Bag):
        def forward(self, features: dict[str, Any]) -> dict[str, Any]:
            made = super().forward(features)
            rebuilt = dict.fromkeys(("sentence_embedding_backbone", "decoded_embedding_k"), made["sentence_embedding"])
            others = dict.fromkeys(("decoded_embedding_4k", "decoded_embedding_k_pre_bias"), made["sentence_embedding"])
            return {**made, **rebuilt, **others, "decoded_embedding_aux": None}

    terms = CSRLoss(Coded(1), guided, gamma=0.5)(columns(2))
    torch.testing.assert_close(terms["base_loss"], alone / 2)


def test_sparse_codes_need_an_autoencoder() -> None:
    with pytest.raises(ValueError, match="a model that ends in a SparseAutoEncoder; its outputs lack"):
        losses.CSRReconstructionLoss(Bag(1))(columns(1))
    with pytest.raises(ValueError, match="at least 1 column, got 0"):
        losses.CSRReconstructionLoss(Bag(1))([])
    with pytest.raises(ValueError, match="beta must be >= 0"):
        CSRLoss(Bag(1), beta=-1.0)
    with pytest.raises(ValueError, match="must be a ranking loss"):
        CSRLoss(Bag(1), losses.FlopsLoss(Bag(1)))  # type: ignore[arg-type]
