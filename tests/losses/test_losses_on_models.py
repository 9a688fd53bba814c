"""Losses on whole encoders: caching, sparse codes, a guide that reads texts, learned idf weights, several processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from distributed_helpers import in_processes
from model_helpers import VOCABULARY, mixed_texts, write_encoder, write_masked_language_model
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sparse_encoder import SparseEncoder
from sparse_encoder.losses import (
    CachedSpladeLoss,
    CSRLoss,
    SparseGISTEmbedLoss,
    SparseMultipleNegativesRankingLoss,
    SpladeLoss,
    TeacherEnsemble,
)
from sparse_encoder.modules import Pooling, Router, SparseAutoEncoder, SparseStaticEmbedding, Transformer
from sparse_encoder.training import SparseEncoderTrainer, SparseEncoderTrainingArguments

QUERIES, DOCUMENTS = mixed_texts(7, seed=1, longest=8), mixed_texts(7, seed=2, longest=30)


def splade(folder: Path, *, dropout: float = 0.0) -> SparseEncoder:
    write_masked_language_model(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    (folder / "config.json").write_text(json.dumps(config))
    return SparseEncoder(str(folder), device="cpu")


def features(model: SparseEncoder) -> list[dict[str, Any]]:
    return [model.preprocess(texts) for texts in (QUERIES, DOCUMENTS)]


def ranking(model: nn.Module) -> SparseMultipleNegativesRankingLoss:
    return SparseMultipleNegativesRankingLoss(model, scale=0.1)


def terms_and_gradients(loss: nn.Module, model: SparseEncoder) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    model.zero_grad()
    terms = loss(features(model))
    torch.stack(list(terms.values())).sum().backward()
    gradients = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    return {name: term.detach() for name, term in terms.items()}, gradients


@pytest.mark.parametrize("options", [{"mini_batch_size": 2}, {"mini_batch_num_tokens": 25}])
def test_caching_changes_nothing(tmp_path: Path, options: dict[str, int]) -> None:
    model = splade(tmp_path).train()
    found = terms_and_gradients(CachedSpladeLoss(model, ranking(model), 0.3, 0.5, **options), model)
    expected = terms_and_gradients(SpladeLoss(model, ranking(model), 0.3, 0.5), model)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert len(expected[1]) > 10


def test_caching_draws_dropout_once(tmp_path: Path) -> None:
    model = splade(tmp_path, dropout=0.3).train()
    loss = CachedSpladeLoss(model, ranking(model), 0.3, 0.5, mini_batch_size=50)
    torch.manual_seed(4)
    found = terms_and_gradients(loss, model)
    torch.manual_seed(4)
    expected = terms_and_gradients(SpladeLoss(model, ranking(model), 0.3, 0.5), model)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    torch.manual_seed(5)
    other, _ = terms_and_gradients(loss, model)
    assert other["base_loss"] != found[0]["base_loss"]


def test_caching_computes_twice_in_the_same_precision(tmp_path: Path) -> None:
    model = splade(tmp_path).train()
    results = []
    for loss in (CachedSpladeLoss(model, ranking(model), 0.3, 0.5), SpladeLoss(model, ranking(model), 0.3, 0.5)):
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            total = torch.stack(list(loss(features(model)).values())).sum()
        total.backward()  # outside, as a trainer does
        gradients = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
        results.append((total.detach(), gradients))
    torch.testing.assert_close(results[0], results[1], rtol=0.02, atol=1e-3)


def test_sparse_codes(tmp_path: Path) -> None:
    write_encoder(tmp_path)
    torch.manual_seed(8)
    coder = SparseAutoEncoder(12, 60, k=7, k_aux=20)
    parts = [Transformer(str(tmp_path)), Pooling(12, pooling_mode="mean"), coder]
    model = SparseEncoder(modules=parts, device="cpu").train()
    terms, gradients = terms_and_gradients(CSRLoss(model), model)
    assert list(terms) == ["reconstruction_loss_k", "reconstruction_loss_4k", "reconstruction_loss_aux", "base_loss"]
    assert all(term.isfinite() for term in terms.values())
    assert gradients["2.pre_bias"].norm() > 0


def test_a_whole_encoder_is_a_guide_and_a_teacher(tmp_path: Path) -> None:
    model, guide = splade(tmp_path / "model"), splade(tmp_path / "guide").train()
    loss = SparseGISTEmbedLoss(model, guide, margin=0.05)
    value = loss(features(model))
    value.backward()
    assert value.isfinite()
    assert not guide.training
    assert all(each.grad is None for each in guide.parameters())
    scores = TeacherEnsemble([guide], model, score_scale=None).scores(features(model))
    texts = [model.tokenizer.batch_decode(column["input_ids"], skip_special_tokens=True) for column in features(model)]
    expected = guide.similarity(guide.encode_query(texts[0]), guide.encode_document(texts[1]))
    torch.testing.assert_close(scores, expected)


def test_idf_weights_learn_at_their_own_rate(tmp_path: Path) -> None:
    document = list(splade(tmp_path / "model"))
    weight = torch.rand(len(VOCABULARY), generator=torch.Generator().manual_seed(9))
    query = SparseStaticEmbedding(tokenizer=document[0].tokenizer, weight=weight.clone(), frozen=False)
    router = Router.for_query_document(query_modules=[query], document_modules=document)
    model = SparseEncoder(modules=[router], device="cpu")
    before = {name: each.detach().clone() for name, each in model.named_parameters()}
    args = SparseEncoderTrainingArguments(
        str(tmp_path / "run"),
        max_steps=1,
        per_device_train_batch_size=7,
        learning_rate=1e-4,
        learning_rate_mapping={r"SparseStaticEmbedding\.*": 0.1},
        router_mapping={"question": "query", "answer": "document"},
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    data = Dataset.from_dict({"question": QUERIES, "answer": DOCUMENTS})
    loss = SpladeLoss(model, SparseMultipleNegativesRankingLoss(model), document_regularizer_weight=1e-3)
    SparseEncoderTrainer(model, args, data, loss=loss).train()
    moved = {name: (each.detach() - before[name]).abs().max().item() for name, each in model.named_parameters()}
    idf = [name for name in moved if moved[name] > 1e-2]
    assert len(idf) == 1
    assert torch.equal(before[idf[0]], weight)
    assert moved.pop(idf[0]) == pytest.approx(0.1, rel=1e-2)  # AdamW's first step is the rate
    assert 0 < max(moved.values()) < 3e-4


class Step(nn.Module):
    """One forward of a loss, as the trainer wraps it."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, columns: list[dict[str, Any]]) -> Tensor:
        return torch.stack(list(self.loss(columns).values())).sum()


def work(rank: int, folder: str) -> dict[str, Tensor]:
    """Return the averaged gradients of this rank's rows."""
    model = SparseEncoder(f"{folder}/model", device="cpu").train()
    loss = CachedSpladeLoss(model, ranking(model), 0.3, 0.5, mini_batch_size=2)
    own = slice(0, 4) if rank == 0 else slice(4, 7)
    columns = [model.preprocess(texts[own]) for texts in (QUERIES, DOCUMENTS)]
    step = DistributedDataParallel(Step(loss), find_unused_parameters=True)
    step(columns).backward()
    return {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


@pytest.mark.slow
def test_caching_in_two_processes_averages_gradients(tmp_path: Path) -> None:
    splade(tmp_path / "model")
    by_rank = in_processes(work, ranks=2, folder=tmp_path)
    model = SparseEncoder(str(tmp_path / "model"), device="cpu").train()
    loss = SpladeLoss(model, ranking(model), 0.3, 0.5)
    for own in (slice(0, 4), slice(4, 7)):
        columns = [model.preprocess(texts[own]) for texts in (QUERIES, DOCUMENTS)]
        (torch.stack(list(loss(columns).values())).sum() / 2).backward()
    expected = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    for gradients in by_rank:
        torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-6)
