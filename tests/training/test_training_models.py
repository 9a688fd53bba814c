"""The trainer on the library's own encoders: SPLADE with dropout, a Router, an auto-encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from model_helpers import VOCABULARY, mixed_texts, write_encoder, write_masked_language_model
from torch import nn
from training_helpers import Anything, arguments, digest, rows_of, splade_loss

from sparse_encoder import SparseEncoder, SparseEncoderTrainer
from sparse_encoder.checkpoint import CheckpointError
from sparse_encoder.losses import SparseMultipleNegativesRankingLoss
from sparse_encoder.modules import (
    Normalize,
    Pooling,
    Router,
    SparseAutoEncoder,
    SparseStaticEmbedding,
    SpladePooling,
    Transformer,
)

DATA = [
    {"question": question, "answer": answer}
    for question, answer in zip(mixed_texts(21, seed=1, longest=8), mixed_texts(21, seed=2, longest=30), strict=True)
]
ROUTES = {"question": "query", "answer": "document"}


def splade(folder: Path, *, dropout: float = 0.2) -> SparseEncoder:
    write_masked_language_model(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    (folder / "config.json").write_text(json.dumps(config))
    return SparseEncoder(str(folder), device="cpu")


def routed(folder: Path) -> SparseEncoder:
    document = list(splade(folder))
    weight = torch.rand(len(VOCABULARY), generator=torch.Generator().manual_seed(9))
    query = SparseStaticEmbedding(tokenizer=document[0].tokenizer, weight=weight, frozen=False)
    router = Router.for_query_document(query_modules=[query], document_modules=document)
    return SparseEncoder(modules=[router], device="cpu")


def auto_encoder(folder: Path) -> SparseEncoder:
    write_encoder(folder)
    torch.manual_seed(8)
    parts = [Transformer(str(folder)), Pooling(12, pooling_mode="mean"), SparseAutoEncoder(12, 60, k=7, k_aux=20)]
    return SparseEncoder(modules=parts, device="cpu")


def train(
    model: SparseEncoder, folder: Path, *, resume: Path | None = None, **options: Anything
) -> SparseEncoderTrainer:
    loss = options.pop("loss", splade_loss)
    options = {"learning_rate": 1e-3, "gradient_accumulation_steps": 2, "num_train_epochs": 2, **options}
    trainer = SparseEncoderTrainer(model, arguments(folder, **options), DATA, loss=loss)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def assert_same(left: nn.Module, right: nn.Module) -> None:
    ours, theirs = digest(left), digest(right)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


CASES = [
    (splade, splade_loss, {}),
    (splade, splade_loss, {"bf16": True}),
    (splade, splade_loss, {"gradient_checkpointing": True}),
    (routed, splade_loss, {"router_mapping": ROUTES, "learning_rate_mapping": {r"SparseStaticEmbedding\.*": 0.1}}),
    (auto_encoder, SparseMultipleNegativesRankingLoss, {}),
]


@pytest.mark.parametrize(("build", "loss", "options"), CASES)
def test_a_resumed_run_ends_with_the_same_bits(
    tmp_path: Path, build: Anything, loss: Anything, options: dict[str, Any]
) -> None:
    saving = {"save_strategy": "steps", "save_steps": 4, "loss": loss, **options}
    straight = train(build(tmp_path / "plain"), tmp_path / "straight", **saving)
    before = digest(build(tmp_path / "plain"))
    assert any(not torch.equal(tensor, before[name]) for name, tensor in digest(straight.model).items())
    resumed = train(
        build(tmp_path / "plain"), tmp_path / "resumed", resume=tmp_path / "straight" / "checkpoint-4", **saving
    )
    assert_same(resumed.model, straight.model)
    assert rows_of(resumed)[:-1] == rows_of(straight)[:-1]
    loaded = SparseEncoder(str(tmp_path / "straight" / "checkpoint-6"), device="cpu")
    assert_same(loaded, straight.model)


class Named(SparseEncoder):
    """An encoder with a constructor of its own."""

    def __init__(self, title: str, parts: list[nn.Module], *, shift: float) -> None:
        super().__init__(modules=parts, device="cpu")
        self.title, self.shift = title, shift


def named(folder: Path) -> Named:
    return Named("a title", list(splade(folder)), shift=0.5)


def test_an_encoder_with_its_own_constructor_is_resumed(tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 4}
    straight = train(named(tmp_path / "plain"), tmp_path / "straight", **saving)
    checkpoint = tmp_path / "straight" / "checkpoint-4"
    resumed = train(named(tmp_path / "plain"), tmp_path / "resumed", resume=checkpoint, **saving)
    assert_same(resumed.model, straight.model)
    assert resumed.model.title == "a title"


def test_an_encoder_with_its_own_constructor_gets_its_best_weights(tmp_path: Path) -> None:
    evaluation = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    model = named(tmp_path / "plain")
    options = {**evaluation, "load_best_model_at_end": True, "metric_for_best_model": "loss", "learning_rate": 1e-3}
    args = arguments(tmp_path / "run", greater_is_better=True, max_steps=4, **options)  # so that the first is the best
    run = SparseEncoderTrainer(model, args, DATA, eval_dataset=DATA, loss=SparseMultipleNegativesRankingLoss)
    run.train()
    assert run.state.best_global_step == 2
    assert_same(model, SparseEncoder(str(tmp_path / "run" / "checkpoint-2"), device="cpu"))


def test_a_checkpoint_with_other_modules_is_refused(tmp_path: Path) -> None:
    train(splade(tmp_path / "plain"), tmp_path / "run", save_strategy="steps", save_steps=6)
    longer = SparseEncoder(modules=[*splade(tmp_path / "plain"), Normalize()], device="cpu")
    with pytest.raises(CheckpointError, match="the model has 3 modules, the saved one 2"):
        train(longer, tmp_path / "other", resume=tmp_path / "run" / "checkpoint-6")


def test_a_model_that_could_not_be_saved_is_refused_before_training(tmp_path: Path) -> None:
    class Own(SpladePooling):
        pass

    model = SparseEncoder(modules=[splade(tmp_path / "plain")[0], Own()], device="cpu")
    with pytest.raises(TypeError, match="a Own cannot be saved"):
        SparseEncoderTrainer(model, arguments(tmp_path / "run", save_strategy="steps"), DATA, loss=splade_loss)
    assert train(model, tmp_path / "run", max_steps=1, save_strategy="no").state.global_step == 1


def test_gradient_checkpointing_changes_no_loss(tmp_path: Path) -> None:
    plain, again = (
        train(splade(tmp_path / "plain"), tmp_path, gradient_checkpointing=on, save_strategy="no")
        for on in (False, True)
    )
    assert again.model.transformers_model.backbone.gradient_checkpointing
    losses = [[row["loss"] for row in run.state.log_history if "loss" in row] for run in (plain, again)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_every_route_is_trained(tmp_path: Path) -> None:
    model = routed(tmp_path / "plain")
    before = digest(model)
    train(model, tmp_path, router_mapping=ROUTES)
    moved = {name.split(".")[2] for name, tensor in digest(model).items() if not torch.equal(tensor, before[name])}
    assert moved == {"query", "document"}


def test_a_router_needs_to_know_its_routes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="router_mapping must say which route each column takes"):
        SparseEncoderTrainer(routed(tmp_path / "plain"), arguments(tmp_path), DATA)


def test_options_of_gradient_checkpointing_reach_the_model(tmp_path: Path) -> None:
    args = arguments(tmp_path, gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": True})
    with pytest.raises(ValueError, match="use_reentrant"):
        SparseEncoderTrainer(splade(tmp_path / "plain"), args, DATA)


def test_training_improves_the_model(tmp_path: Path) -> None:
    model = splade(tmp_path / "plain", dropout=0.0)
    answers = [row["answer"] for row in DATA]
    questions = [" ".join(answer.split()[:3]) for answer in answers]
    rows = [{"question": question, "answer": answer} for question, answer in zip(questions, answers, strict=True)]

    def right() -> int:
        scores = model.similarity(model.encode_query(questions), model.encode_document(answers))
        return int((scores.to_dense().argmax(dim=1) == torch.arange(len(DATA))).sum())

    before = right()
    args = arguments(tmp_path, learning_rate=1e-2, num_train_epochs=40, per_device_train_batch_size=21)
    SparseEncoderTrainer(model, args, rows, loss=SparseMultipleNegativesRankingLoss).train()
    assert before < 10 < 15 < right()


def test_a_trained_model_gets_a_readme_of_its_own(tmp_path: Path) -> None:
    splade(tmp_path / "plain").save_pretrained(str(tmp_path / "first"))
    readme = tmp_path / "first" / "README.md"
    readme.write_text(readme.read_text() + "\nWords about the first model.\n")
    model = SparseEncoder(str(tmp_path / "first"), device="cpu")
    model.save_pretrained(str(tmp_path / "before"))
    trainer = SparseEncoderTrainer(model, arguments(tmp_path / "run", max_steps=1), DATA, loss=splade_loss)
    trainer.train()
    trainer.save_model(str(tmp_path / "after"))
    assert "Words about the first model." in (tmp_path / "before" / "README.md").read_text()
    after = (tmp_path / "after" / "README.md").read_text()
    assert "Words about the first model." not in after
    assert "generated_from_trainer" in after


def test_pooling_is_the_only_thing_between_the_logits_and_the_loss(tmp_path: Path) -> None:
    calls: list[int] = []
    model = splade(tmp_path / "plain")
    (pooling,) = [part for part in model.modules() if isinstance(part, SpladePooling)]
    pooling.register_forward_hook(lambda *given: calls.append(len(given[1][0]["input_ids"])))
    args = arguments(tmp_path, num_train_epochs=1, per_device_train_batch_size=21)
    SparseEncoderTrainer(model, args, DATA, loss=splade_loss).train()
    assert calls == [21, 21]  # one forward for each column
