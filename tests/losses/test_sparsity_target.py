"""A weight that finds its own way: by hand, over many updates, in SpladeLoss, in a trainer and its checkpoints."""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from training_helpers import pairs, tiny_encoder

from sparse_encoder.losses import (
    CachedSpladeLoss,
    FlopsLoss,
    SparseMultipleNegativesRankingLoss,
    SparsityTarget,
    SpladeLoss,
)
from sparse_encoder.losses import sparsity_target as settings
from sparse_encoder.training import SparseEncoderTrainer, SparseEncoderTrainingArguments, TrainerCallback


def rows(active: int, width: int = 40) -> Tensor:
    """Return two rows with that many active terms."""
    weights = torch.zeros(2, width)
    weights[:, :active] = 1.0
    return weights.requires_grad_()


def test_the_first_weights_by_hand() -> None:
    target = SparsityTarget(10)
    penalty, ranking = torch.tensor(4.0), torch.tensor(2.0)
    first = target(penalty, rows(20), ranking)
    # The aim has gone one step from 20 towards 10; the weighted penalty was to begin at START times the ranking loss.
    error = settings.PACE
    z = math.log(settings.START * 2.0 / 4.0) + settings.INTEGRAL * error
    assert first.item() == pytest.approx(4.0 * math.exp(z + settings.PROPORTIONAL * error), rel=1e-5)
    second = target(penalty, rows(16), ranking)
    measured = settings.SMOOTHING * math.log(20) + (1 - settings.SMOOTHING) * math.log(16)
    error = measured - (math.log(20) - 2 * settings.PACE)
    z += settings.INTEGRAL * max(-settings.FALL, error + settings.LOOK_AHEAD * (measured - math.log(20)))
    assert second.item() == pytest.approx(4.0 * math.exp(z + settings.PROPORTIONAL * error), rel=1e-4)
    assert int(target.updates) == 2


def test_the_penalty_has_a_gradient_and_the_weight_has_none() -> None:
    weights = rows(20)
    target = SparsityTarget(10)
    penalty = FlopsLoss(nn.Identity()).compute_loss_from_embeddings(weights)
    target(penalty, weights, torch.tensor(2.0, requires_grad=True)).backward()
    assert weights.grad is not None
    torch.testing.assert_close(weights.grad[:, :20], target.weight * torch.ones(2, 20))
    assert [name for name, _ in target.named_parameters()] == []


def test_evaluations_use_the_weight_and_leave_it() -> None:
    target = SparsityTarget(10)
    target(torch.tensor(4.0), rows(20), torch.tensor(2.0))
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with torch.no_grad():
        found = target(torch.tensor(3.0), rows(5), torch.tensor(7.0))
    assert found.item() == pytest.approx(3.0 * target.weight.item())
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_the_weight_stops_where_more_would_do_nothing() -> None:
    target = SparsityTarget(10)
    for _ in range(600):
        weighted = target(torch.tensor(4.0), rows(40), torch.tensor(2.0))
    highest = settings.CEILING * 2.0 * math.exp(settings.PROPORTIONAL * settings.LEAD)
    assert weighted.item() == pytest.approx(highest, rel=1e-3)
    for _ in range(100):  # and it is down again in no time
        weighted = target(torch.tensor(4.0), rows(5), torch.tensor(2.0))
    assert weighted.item() < 0.1


@pytest.mark.parametrize(("active", "penalty", "ranking"), [(0, 0.0, 2.0), (40, 4.0, 0.0), (0, 0.0, 0.0)])
def test_nothing_to_go_by_leaves_it_where_it_was(active: int, penalty: float, ranking: float) -> None:
    target = SparsityTarget(10)
    for _ in range(3):
        assert target(torch.tensor(penalty), rows(active), torch.tensor(ranking)).item() == 0
    assert all(value == 0 for value in target.state_dict().values())
    for _ in range(600):  # then it is as if it began now
        weighted = target(torch.tensor(4.0), rows(40), torch.tensor(2.0))
    highest = settings.CEILING * 2.0 * math.exp(settings.PROPORTIONAL * settings.LEAD)
    assert weighted.item() == pytest.approx(highest, rel=1e-3)
    for _ in range(100):
        weighted = target(torch.tensor(4.0), rows(5), torch.tensor(2.0))
    assert weighted.item() < 0.1


@pytest.mark.parametrize(("penalty", "ranking"), [(1e-20, 2.0), (4.0, 1e-20), (1e20, 2.0)])
def test_a_strange_first_update_does_not_decide_for_ever(penalty: float, ranking: float) -> None:
    target = SparsityTarget(10)
    target(torch.tensor(penalty), rows(40), torch.tensor(ranking))
    for _ in range(1500):
        weighted = target(torch.tensor(4.0), rows(40), torch.tensor(2.0))
        assert weighted.item() < 1.01 * settings.CEILING * 2.0 * math.exp(settings.PROPORTIONAL * settings.LEAD)
    assert weighted.item() > settings.CEILING * 2.0
    for _ in range(100):
        weighted = target(torch.tensor(4.0), rows(5), torch.tensor(2.0))
    assert weighted.item() < 0.1


def test_an_absent_penalty_makes_no_weight_that_is_infinite() -> None:
    target = SparsityTarget(10)
    target(torch.tensor(4.0), rows(40), torch.tensor(2.0))
    for _ in range(2000):
        assert target(torch.tensor(0.0), rows(40), torch.tensor(2.0)).item() == 0
    assert (target.log_weight - target.origin).item() == pytest.approx(settings.RANGE)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("which", ["penalty", "ranking"])
@pytest.mark.parametrize("before", [0, 3])
def test_an_update_that_is_not_finite_is_as_if_it_had_not_been(bad: float, which: str, before: int) -> None:
    target, spared = SparsityTarget(10), SparsityTarget(10)
    values = {"penalty": 4.0, "ranking": 2.0}
    for step in range(before + 3):
        if step == before:
            penalty, ranking = (values | {which: bad}).values()
            target(torch.tensor(penalty), rows(30), torch.tensor(ranking))
        for each in (target, spared):
            each(torch.tensor(4.0), rows(30 - step), torch.tensor(2.0))
    assert int(target.updates) == before + 3
    assert target.weight > 0
    expected = spared.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in target.state_dict().items())


def test_a_saved_state_goes_on_as_if_nothing_had_been() -> None:
    straight, again = SparsityTarget(10), SparsityTarget(10)
    for step in range(5):
        straight(torch.tensor(4.0), rows(30 - step), torch.tensor(2.0))
    again.load_state_dict(straight.state_dict())
    for target in (straight, again):
        target(torch.tensor(3.0), rows(20), torch.tensor(2.0))
    assert torch.equal(straight.weight, again.weight)


@pytest.mark.parametrize("dims", [0, -3, math.nan, math.inf])
def test_a_target_that_is_none_is_refused(dims: float) -> None:
    with pytest.raises(ValueError, match="target of active terms must be > 0"):
        SparsityTarget(dims)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs a document_regularizer_weight or, in its place, target_document_dims"),
        ({"query_regularizer_weight": 0.1}, "needs a document_regularizer_weight"),
        ({"document_regularizer_weight": 0.1, "target_document_dims": 9}, "document.* exclude each other"),
        (
            {"target_document_dims": 9, "query_regularizer_weight": 0.1, "target_query_dims": 9},
            "query_regularizer_weight and target_query_dims exclude each other",
        ),
        (
            {"target_document_dims": 9, "target_query_dims": 9, "use_document_regularizer_only": True},
            "nothing for a query regularizer",
        ),
    ],
)
def test_contradictions_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpladeLoss(nn.Identity(), SparseMultipleNegativesRankingLoss(nn.Identity()), **options)


def test_model_card_settings() -> None:
    loss = SpladeLoss(
        nn.Identity(),
        SparseMultipleNegativesRankingLoss(nn.Identity()),
        target_document_dims=9,
        query_regularizer_weight=0.25,
    )
    assert loss.get_config_dict() == {
        "loss": loss.loss,
        "query_regularizer_weight": 0.25,
        "target_document_dims": 9.0,
    }
    cached = CachedSpladeLoss(nn.Identity(), loss.loss, target_document_dims=9, target_query_dims=4)
    assert cached.get_config_dict()["target_query_dims"] == 4.0
    assert list(cached.weights_in_use()) == ["document_regularizer_weight", "query_regularizer_weight"]


def trainer(folder: Path, options: dict[str, Any]) -> SparseEncoderTrainer:
    model = tiny_encoder()
    arguments: dict[str, Any] = {
        "per_device_train_batch_size": 4,
        "max_steps": 6,
        "logging_steps": 1,
        "logging_first_step": True,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    args = SparseEncoderTrainingArguments(str(folder), **arguments, **options)
    loss = SpladeLoss(
        model, SparseMultipleNegativesRankingLoss(model), target_document_dims=5, query_regularizer_weight=0.01
    )
    return SparseEncoderTrainer(model, args, pairs(24), loss=loss)


class Rows(TrainerCallback):
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_log(self, *_: object, logs: dict[str, float] | None = None, **context: object) -> None:
        self.rows.append(dict(logs or {}))

    def weights(self, kind: str) -> list[float]:
        return [row[f"{kind}_regularizer_weight"] for row in self.rows if "loss" in row]


def test_a_trainer_logs_saves_and_resumes_the_weight_and_schedules_only_the_other(tmp_path: Path) -> None:
    straight, logged = trainer(tmp_path / "straight", {"save_strategy": "steps", "save_steps": 3}), Rows()
    straight.add_callback(logged)
    straight.train()
    found = logged.weights("document")
    assert len(set(found)) == 6
    assert all(weight > 0 for weight in found)  # no schedule takes it down to 0
    assert logged.weights("query")[0] == 0
    assert logged.weights("query")[-1] == 0.01
    saved = load_file(tmp_path / "straight" / "checkpoint-3" / "loss.safetensors")
    assert int(saved["document_target.updates"]) == 3
    resumed, again = trainer(tmp_path / "resumed", {"save_strategy": "no"}), Rows()
    resumed.add_callback(again)
    resumed.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-3"))
    assert again.weights("document") == found[3:]
    ours, theirs = resumed.model.state_dict(), straight.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_nothing_is_said_of_a_schedule_where_there_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_encoder()
    loss = SpladeLoss(model, SparseMultipleNegativesRankingLoss(model), target_document_dims=5, target_query_dims=4)
    args = SparseEncoderTrainingArguments(str(tmp_path), max_steps=2, report_to="none", use_cpu=True, disable_tqdm=True)
    SparseEncoderTrainer(model, args, pairs(24), loss=loss).train()
    assert "SpladeRegularizerWeightSchedulerCallback" not in caplog.text
    assert loss.document_regularizer_weight is None
    assert loss.query_regularizer_weight is None


def test_micro_batches_are_one_update(tmp_path: Path) -> None:
    run = trainer(tmp_path, {"gradient_accumulation_steps": 3, "save_strategy": "no"})
    run.train()
    assert int(run.loss.document_target.updates) == 6


class OnceNaN(SparseMultipleNegativesRankingLoss):
    """Is NaN in its third update."""

    calls = 0

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        self.calls += 1
        value = super().compute_loss_from_embeddings(embeddings, labels)
        return value * math.nan if self.calls == 3 else value


def test_a_run_survives_one_loss_that_is_nan(tmp_path: Path) -> None:
    run = trainer(tmp_path, {"save_strategy": "no"})
    run.loss.loss = OnceNaN(run.model)
    logged = Rows()
    run.add_callback(logged)
    run.train()
    assert run.state.global_step == 6
    assert int(run.loss.document_target.updates) == 5
    found = logged.weights("document")
    assert found[2] == found[1]
    assert all(0 < weight < math.inf for weight in found)
    assert len(set(found)) == 5
    assert all(value.isfinite().all() for value in run.model.state_dict().values())


Pairs = list[tuple[str, str]]
STEPS, SEEDS = 500, (0, 1)


class Topics:
    """Makes texts of words of a topic and of words that are common to all, by Zipf's law."""

    def __init__(self, seed: int, topics: int, words: int, common: float) -> None:
        self.draw = random.Random(seed)
        self.topics, self.words, self.common = topics, words, common
        self.odds = [1 / (rank + 1) for rank in range(300)]

    def text(self, topic: int, count: int) -> list[str]:
        return [self._word(topic) for _ in range(count)]

    def _word(self, topic: int) -> str:
        if self.draw.random() < self.common:
            return f"common{self.draw.choices(range(300), self.odds)[0]}"
        return f"topic{topic}word{self.draw.randrange(self.words)}"


def headings() -> Pairs:
    """Two to four words with a line on the same of 150 topics: few words are common to all."""
    made = Topics(seed=1, topics=150, words=12, common=0.15)
    found = []
    for _ in range(2500):
        topic, sizes = made.draw.randrange(made.topics), (made.draw.randint(2, 4), made.draw.randint(6, 12))
        found.append((" ".join(made.text(topic, sizes[0])), " ".join(made.text(topic, sizes[1]))))
    return found


def paragraphs() -> Pairs:
    """A dozen words with the 28 after them, on one of 40 topics: half of the words are common to all."""
    made = Topics(seed=2, topics=40, words=60, common=0.5)
    texts = [made.text(made.draw.randrange(made.topics), 40) for _ in range(1500)]
    return [(" ".join(text[:12]), " ".join(text[12:])) for text in texts]


class Words(nn.Module):
    """Words, hashed to tokens and mixed with their mean, through a projection; the largest logit of each term."""

    def __init__(self, width: int, terms: int) -> None:
        super().__init__()
        self.words = nn.Embedding(3000, width)
        self.mix = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, terms)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        is_word = (features["input_ids"] > 0).unsqueeze(2)  # (B, T, 1)
        words = self.words(features["input_ids"]) * is_word
        mean = words.sum(dim=1, keepdim=True) / is_word.sum(dim=1, keepdim=True)
        logits = self.project(self.norm(words + self.mix(mean).tanh())).masked_fill(~is_word, -torch.inf)
        return {"sentence_embedding": logits.amax(dim=1).relu().log1p()}


@cache
def tokens(text: str) -> list[int]:
    return [zlib.crc32(word.encode()) % 2999 + 1 for word in text.lower().split()]


def column(texts: list[str]) -> dict[str, Tensor]:
    ids = [tokens(text) for text in texts]
    width = max(map(len, ids))
    return {"input_ids": torch.tensor([row + [0] * (width - len(row)) for row in ids])}


def active_after_training(texts: Pairs, targets: tuple[float, float], terms: int, seed: int) -> tuple[float, float]:
    """Train with targets for queries and documents; returns the active terms of texts that were held out."""
    texts = list(texts)
    random.Random(seed).shuffle(texts)
    held_out, texts = texts[: len(texts) // 5], texts[len(texts) // 5 :]
    torch.manual_seed(seed)
    model = Words(32, terms)
    ranking = SparseMultipleNegativesRankingLoss(model)
    loss = SpladeLoss(model, ranking, target_query_dims=targets[0], target_document_dims=targets[1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(STEPS):
        batch = [texts[(step * 32 + row) % len(texts)] for row in range(32)]
        torch.stack(list(loss([column(list(each)) for each in zip(*batch, strict=True)]).values())).sum().backward()
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1.0, 2 * (1 - step / STEPS))
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        queries, documents = (
            (model(column(list(each)))["sentence_embedding"] > 0).sum(dim=1).float().mean().item()
            for each in zip(*held_out, strict=True)
        )
    return queries, documents


@pytest.mark.slow
@pytest.mark.parametrize(("read", "targets", "terms"), [(headings, (30.0, 60.0), 400), (paragraphs, (50.0, 90.0), 500)])
def test_two_unlike_collections_reach_their_targets(
    read: Callable[[], Pairs], targets: tuple[float, float], terms: int
) -> None:
    texts = read()
    runs = [active_after_training(texts, targets, terms, seed) for seed in SEEDS]
    for target, found in zip(targets, zip(*runs, strict=True), strict=True):
        assert list(found) == pytest.approx([target] * len(SEEDS), rel=0.1)
