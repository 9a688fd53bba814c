"""The READMEs that a trainer writes while it trains."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from huggingface_hub import ModelCard
from model_helpers import mixed_texts, write_masked_language_model
from torch import Tensor, nn

from sparse_encoder import SparseEncoder, SparseEncoderTrainer, SparseEncoderTrainingArguments
from sparse_encoder.evaluation import SparseInformationRetrievalEvaluator
from sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss
from sparse_encoder.training import Trainer, TrainerCallback, TrainerState, TrainingArguments


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_masked_language_model(tmp_path_factory.mktemp("splade"))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("something wants to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def pairs(count: int, seed: int) -> Dataset:
    texts = mixed_texts(2 * count, seed=seed, longest=12)
    return Dataset.from_dict({"anchor": texts[:count], "positive": texts[count:]})


def trainer(source: Path, folder: Path) -> SparseEncoderTrainer:
    model = SparseEncoder(str(source), device="cpu", similarity_fn_name="dot")
    args = SparseEncoderTrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=4,
        max_steps=4,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=2,
        save_steps=2,
        hub_token="hf_secret",
        prompts={"anchor": "query: "},
        use_cpu=True,
        disable_tqdm=True,
    )
    evaluator = SparseInformationRetrievalEvaluator(
        queries={"1": "rain"}, corpus={"a": "rain", "b": "bread"}, relevant_docs={"1": {"a"}}, name="tiny"
    )
    data = {"one": pairs(12, 1), "two": pairs(8, 2)}
    losses = {
        name: SpladeLoss(
            model,
            SparseMultipleNegativesRankingLoss(model, scale=scale),
            document_regularizer_weight=weight,
            query_regularizer_weight=5e-5,
        )
        for name, scale, weight in (("one", 1.0, 3e-5), ("two", 2.0, 7e-5))
    }
    return SparseEncoderTrainer(model, args, data, data, losses, evaluator)


def log_of(folder: Path) -> list[str]:
    text = ModelCard.load(folder / "README.md").text
    return text.split("### Training log")[1].split("###")[0].strip().splitlines()


@pytest.mark.filterwarnings("ignore:a second callback")
def test_every_checkpoint_tells_the_run_up_to_it(source: Path, tmp_path: Path) -> None:
    first = trainer(source, tmp_path / "run")
    first.train()
    first.save_model(str(tmp_path / "final"))
    card = ModelCard.load(tmp_path / "final" / "README.md")
    assert [len(log_of(tmp_path / "run" / f"checkpoint-{step}")) for step in (2, 4)] == [4, 6]
    assert log_of(tmp_path / "final")[0] == "| Epoch | Step | Training Loss | one loss | two loss | tiny_dot_ndcg@10 |"
    assert "dataset_size:20" in card.data.tags
    for line in (
        "* Size: 12 training samples",
        "* Size: 8 training samples",
        "* Size: 12 evaluation samples",
        '      "document_regularizer_weight": 3e-05,',
        '      "document_regularizer_weight": 7e-05,',
        "- `prompts`: <code>{'anchor': 'query: '}</code>",
    ):
        assert line in card.text.splitlines(), line
    assert "hf_secret" not in card.content
    assert str(tmp_path) not in card.content

    resumed = trainer(source, tmp_path / "run")
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    resumed.save_model(str(tmp_path / "resumed"))
    assert log_of(tmp_path / "resumed") == log_of(tmp_path / "final")


def test_a_card_on_demand(source: Path, tmp_path: Path) -> None:
    made = trainer(source, tmp_path / "run")
    made.create_model_card(language="en", dataset_tags=["me/one", "me/two"], tasks="feature-extraction")
    card = ModelCard.load(tmp_path / "run" / "README.md")
    assert card.data.datasets == ["me/one", "me/two"]
    assert "- **Training datasets:** [one](https://huggingface.co/datasets/me/one), [two](" in card.text


class Tagger(nn.Module):
    """A label for every token."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 3)

    def forward(self, input_ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.words(input_ids)
        return {"loss": nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()), "logits": logits}


def test_the_card_of_another_model_tells_the_run_too(tmp_path: Path) -> None:
    data = Dataset.from_dict({"input_ids": [[1, 2, 3], [4, 5, 6]] * 4, "labels": [[0, 1, 2], [2, 1, 0]] * 4})
    args = TrainingArguments(
        str(tmp_path),
        max_steps=2,
        logging_steps=1,
        eval_strategy="steps",
        save_strategy="no",
        hub_token="hf_secret",
        use_cpu=True,
        disable_tqdm=True,
    )
    made = Trainer(Tagger(), args, train_dataset=data, eval_dataset=data)
    made.train()
    made.create_model_card(tasks="token-classification", dataset_tags="me/tags")
    card = ModelCard.load(tmp_path / "README.md")
    assert {(each.task_type, each.dataset_type, each.metric_type) for each in card.data.eval_results} == {
        ("token-classification", "me/tags", "loss")
    }
    assert card.data.pipeline_tag == "token-classification"
    assert len(log_of(tmp_path)) == 4
    assert log_of(tmp_path)[0] == "| Epoch | Step | Training Loss | Validation Loss |"
    assert "* Size: 8 training samples" in card.text.splitlines()
    assert "- `max_steps`: 2" in card.text.split("#### All")[0].splitlines()
    assert "hf_secret" not in card.content


class Steps:
    """Finds the step it is asked at, and tells the card."""

    name, primary_metric, description, greater_is_better = "toy", "toy_x", "Toy", False

    def __call__(
        self, model: SparseEncoder, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        found = {"toy_x": float(steps)}
        model.model_card_data.set_evaluation_metrics(self, found, epoch, steps)
        return found


class Stop(TrainerCallback):
    """Ends a run behind the save of its third update."""

    def on_save(self, args: object, state: TrainerState, control: object, **_: object) -> None:
        if state.global_step == 3:
            raise KeyboardInterrupt


def small(source: Path, folder: Path, **options: Any) -> SparseEncoderTrainer:  # noqa: ANN401  (settings)
    model = SparseEncoder(str(source), device="cpu", similarity_fn_name="dot")
    callbacks = [Stop()] if options.pop("stopped", False) else []
    settings = {"eval_strategy": "steps", "eval_steps": 2, "logging_steps": 4, "use_cpu": True, "disable_tqdm": True}
    args = SparseEncoderTrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=4, **{**settings, "max_steps": 5, **options}
    )
    loss = SparseMultipleNegativesRankingLoss(model)
    return SparseEncoderTrainer(model, args, pairs(24, 1), pairs(8, 2), loss, Steps(), callbacks=callbacks)


def readme_of(given: SparseEncoderTrainer, folder: Path) -> str:
    given.save_model(str(folder))
    return (folder / "README.md").read_text()


def test_results_are_those_of_the_weights_and_later_ones_leave_the_log_alone(source: Path, tmp_path: Path) -> None:
    best = {"load_best_model_at_end": True, "metric_for_best_model": "toy_x", "greater_is_better": False}
    given = small(source, tmp_path / "run", save_steps=2, max_steps=4, **best)
    given.train()
    assert given.state.best_global_step == 2
    text = readme_of(given, tmp_path / "best")
    assert re.search(r"\| \*\*x\*\* +\| \*\*2(\.0)?\*\* +\|", text)
    log = text.split("### Training log")[1].split("###")[0]
    given.evaluate()
    later = readme_of(given, tmp_path / "later")
    assert later.split("### Training log")[1].split("###")[0] == log
    assert re.search(r"\| \*\*x\*\* +\| \*\*4(\.0)?\*\* +\|", later)


def test_the_card_of_a_resumed_run_tells_what_was_found_before(source: Path, tmp_path: Path) -> None:
    whole = small(source, tmp_path / "whole", save_steps=1)
    whole.train()
    with pytest.raises(KeyboardInterrupt):
        small(source, tmp_path / "run", save_steps=1, stopped=True).train()
    resumed = small(source, tmp_path / "run", save_steps=1)
    resumed.train(resume_from_checkpoint=tmp_path / "run" / "checkpoint-2")
    for step in (3, 5):
        texts = [(tmp_path / name / f"checkpoint-{step}" / "README.md").read_text() for name in ("whole", "run")]
        for part in ("## Evaluation", "### Training log"):
            found = [text.split(part)[1].split("\n## " if part[2] == " " else "\n###")[0] for text in texts]
            assert found[0] == found[1], part
        assert "since it was resumed at step 2" in texts[1]
        assert "since it was resumed" not in texts[0]
