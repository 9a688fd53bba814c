"""Mini-batches give the values and gradients of the whole batch, with the activations of one at a time."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparse_encoder.losses import CachedSpladeLoss, SparseMultipleNegativesRankingLoss, SpladeLoss
from sparse_encoder.losses.global_batch import global_batch
from sparse_encoder.losses.mini_batches import MiniBatchSize, mini_batches

TOKENS, HIDDEN, VOCABULARY = 31, 6, 17
LENGTHS = [3, 11, 2, 24, 5, 9, 1]


class Encoder(nn.Module):
    """Tokens through dropout and a projection; notes how it is called and which activations are alive."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.words = nn.Embedding(TOKENS, HIDDEN, dtype=torch.float64)
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(HIDDEN, VOCABULARY, dtype=torch.float64)
        self.shapes: list[tuple[int, ...]] = []
        self.alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
        self.most_alive = 0

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        ids, mask = features["input_ids"], features["attention_mask"]
        self.shapes.append(tuple(ids.shape))
        hidden = self.dropout(self.words(ids)).tanh()  # (B, T, D), kept for the backward
        self.alive.add(hidden)
        self.most_alive = max(self.most_alive, len(self.alive))
        logits = self.project(hidden).masked_fill(mask.unsqueeze(2) == 0, -torch.inf)
        return {**features, "sentence_embedding": logits.amax(dim=1).relu()}


def texts(seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS).unsqueeze(1)
    ids = torch.randint(1, TOKENS, mask.shape, generator=generator) * mask
    return {"input_ids": ids, "attention_mask": mask.long(), "task": "query"}


COLUMNS = [texts(seed) for seed in range(3)]
WEIGHTS = {"document_regularizer_weight": 0.3, "query_regularizer_weight": 0.5}


def ranking(model: nn.Module) -> SparseMultipleNegativesRankingLoss:
    return SparseMultipleNegativesRankingLoss(model, scale=0.1)


def result(loss: nn.Module, model: Encoder) -> tuple[dict[str, Tensor], list[Tensor]]:
    terms = loss(COLUMNS)
    torch.stack(list(terms.values())).sum().backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return {name: term.detach() for name, term in terms.items()}, gradients


@pytest.mark.parametrize("options", [{"mini_batch_size": 2}, {"mini_batch_size": 50}, {"mini_batch_num_tokens": 14}])
@pytest.mark.parametrize(
    "weights", [WEIGHTS, {"document_regularizer_weight": 0.2, "document_regularizer_threshold": 4}]
)
def test_terms_and_gradient_are_those_of_the_whole_batch(options: dict[str, int], weights: dict[str, Any]) -> None:
    cached_model, plain_model = Encoder(), Encoder()
    found = result(CachedSpladeLoss(cached_model, ranking(cached_model), **weights, **options), cached_model)
    expected = result(SpladeLoss(plain_model, ranking(plain_model), **weights), plain_model)
    assert list(found[0]) == list(expected[0])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert len(expected[1]) == 3


def test_dropout_is_drawn_once() -> None:
    cached_model, plain_model = Encoder(dropout=0.5), Encoder(dropout=0.5)
    torch.manual_seed(8)
    found = result(CachedSpladeLoss(cached_model, ranking(cached_model), **WEIGHTS, mini_batch_size=3), cached_model)
    after = torch.rand(1)
    torch.manual_seed(8)
    parts = [mini_batches(column, MiniBatchSize(texts=3)) for column in COLUMNS]
    embeddings = [torch.cat([plain_model(part)["sentence_embedding"] for part in each]) for each in parts]
    terms = SpladeLoss(plain_model, ranking(plain_model), **WEIGHTS).compute_loss_from_embeddings(embeddings)
    torch.stack(list(terms.values())).sum().backward()
    gradients = [parameter.grad for parameter in plain_model.parameters()]
    expected = ({name: term.detach() for name, term in terms.items()}, gradients)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert torch.equal(after, torch.rand(1))  # the backward leaves the state of the generator as it was


def test_each_term_has_its_own_gradient() -> None:
    model = Encoder()
    terms = CachedSpladeLoss(model, ranking(model), **WEIGHTS, mini_batch_size=2)(COLUMNS)
    for name, term in terms.items():
        (gradient,) = torch.autograd.grad(term, [model.project.weight], retain_graph=True)
        plain = Encoder()
        expected = SpladeLoss(plain, ranking(plain), **WEIGHTS)(COLUMNS)[name]
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, [plain.project.weight])[0])


def test_activations_of_one_mini_batch_are_alive() -> None:
    model = Encoder()
    result(CachedSpladeLoss(model, ranking(model), **WEIGHTS, mini_batch_size=1), model)
    assert len(model.shapes) == 2 * 3 * len(LENGTHS)  # each mini-batch twice
    assert model.most_alive <= 2
    plain = Encoder()
    result(SpladeLoss(plain, ranking(plain), **WEIGHTS), plain)
    assert plain.most_alive == 3
    assert not model.alive


def test_without_gradients_the_model_runs_once() -> None:
    model = Encoder()
    with torch.no_grad():
        CachedSpladeLoss(model, ranking(model), **WEIGHTS, mini_batch_size=4)(COLUMNS)
    assert len(model.shapes) == 3 * 2


def test_penalties_are_those_of_all_micro_batches() -> None:
    halves = [[{k: v[s] if k != "task" else v for k, v in c.items()} for c in COLUMNS] for s in (slice(4), slice(4, 7))]
    results = []
    for build in (SpladeLoss, lambda *a, **k: CachedSpladeLoss(*a, **k, mini_batch_size=2)):
        model = Encoder()
        loss = build(model, ranking(model), **WEIGHTS)
        with global_batch(loss, [lambda loss=loss, half=half: loss(half) for half in halves]):
            values = [torch.stack(list(loss(half).values())) for half in halves]
            (torch.stack(values).sum() / 2).backward()
        results.append((torch.stack(values).detach(), model.project.weight.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-12)


def test_mini_batches_by_texts_are_as_wide_as_their_longest_text() -> None:
    parts = mini_batches(COLUMNS[0], MiniBatchSize(texts=3))
    assert [tuple(part["input_ids"].shape) for part in parts] == [(3, 16), (3, 24), (1, 8)]
    assert all(part["task"] == "query" for part in parts)
    rows = [row[row > 0].tolist() for part in parts for row in part["input_ids"]]
    assert rows == [row[row > 0].tolist() for row in COLUMNS[0]["input_ids"]]


def test_mini_batches_by_tokens_hold_no_more_unless_one_text_does() -> None:
    parts = mini_batches(COLUMNS[0], MiniBatchSize(tokens=14))
    counts = [part["attention_mask"].sum(dim=1).tolist() for part in parts]
    assert counts == [[3, 11], [2], [24], [5, 9], [1]]


def test_padding_in_front_stays() -> None:
    flipped = {name: value.flip(1) for name, value in COLUMNS[0].items() if name != "task"}
    parts = mini_batches(flipped, MiniBatchSize(texts=3))
    assert [part["input_ids"].shape[1] for part in parts] == [24, 24, 24]


def test_features_without_a_mask_are_cut_by_texts() -> None:
    parts = mini_batches({"weights": torch.arange(14).view(7, 2), "length": torch.tensor(3)}, MiniBatchSize(texts=4))
    assert [part["weights"].tolist() for part in parts] == [
        [[0, 1], [2, 3], [4, 5], [6, 7]],
        [[8, 9], [10, 11], [12, 13]],
    ]
    assert all(part["length"].item() == 3 for part in parts)


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no tensor that could be cut .*'task'"):
        mini_batches({"task": "query"}, MiniBatchSize())
    with pytest.raises(ValueError, match="counts the 'attention_mask' of texts"):
        mini_batches({"weights": torch.ones(7, 2)}, MiniBatchSize(tokens=4))
    for options, name in (({"mini_batch_size": 0}, "size"), ({"mini_batch_num_tokens": 0}, "num_tokens")):
        with pytest.raises(ValueError, match=f"mini_batch_{name} must be >= 1"):
            CachedSpladeLoss(Encoder(), ranking(Encoder()), **WEIGHTS, **options)


def test_model_card_settings(capsys: pytest.CaptureFixture[str]) -> None:
    model = Encoder()
    loss = CachedSpladeLoss(model, ranking(model), 0.1, mini_batch_num_tokens=40, show_progress_bar=True)
    assert loss.get_config_dict() == {
        "loss": loss.loss,
        "document_regularizer_weight": 0.1,
        "mini_batch_size": 32,
        "mini_batch_num_tokens": 40,
    }
    assert "2101.06983" in loss.citation and "2205.04733" in loss.citation
    loss(COLUMNS)
    assert "Embed mini-batches" in capsys.readouterr().err
