"""What taggers learn on a few sentences: names, parts of speech, and two models on one backbone."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from model_helpers import write_masked_language_model
from tagged_sentences import tagged_sentences
from token_classification_helpers import word_pieces

from sparse_encoder import SparseEncoder, SparseEncoderTrainer, SparseEncoderTrainingArguments
from sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss
from sparse_encoder.token_classification import (
    DataCollatorForTokenClassification,
    EntityMetrics,
    TokenClassificationModel,
    WordMetrics,
    tokenize_and_align_labels,
)
from sparse_encoder.tokenizer import Tokenizer
from sparse_encoder.training import Trainer, TrainingArguments

WORDS, TAGS = tagged_sentences(40, seed=3, part=0)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("learning")
    (folder / "vocab.txt").write_text("\n".join(word_pieces(WORDS, vocab_size=170)))
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false, "model_max_length": 64}')
    return Tokenizer.from_pretrained(folder)


def encoder_config(vocabulary: int) -> dict[str, Any]:
    return {
        "model_type": "bert",
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }


def learn(
    model: TokenClassificationModel, tokenizer: Tokenizer, tags: list[list[str]], folder: Path, *, steps: int
) -> Trainer:
    """Train on the sentences, 8 at a time."""
    names = list(model.id2label.values())
    prepare = partial(tokenize_and_align_labels, tokenizer=tokenizer, label_names=names, strategy="first")
    data = Dataset.from_dict({"tokens": WORDS, "ner_tags": tags})
    rows = data.map(prepare, batched=True, remove_columns=["tokens", "ner_tags"])
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder),
            max_steps=steps,
            learning_rate=1e-2,
            per_device_train_batch_size=8,
            save_strategy="no",
            report_to="none",
            seed=1,
        ),
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=DataCollatorForTokenClassification(tokenizer),
        compute_metrics=EntityMetrics(names) if "O" in names else WordMetrics(names),
    )
    trainer.train()
    return trainer


def new_tagger(tokenizer: Tokenizer, tags: list[list[str]]) -> TokenClassificationModel:
    torch.manual_seed(0)
    names = sorted({tag for row in tags for tag in row}, key=lambda tag: (tag != "O", tag))
    config = encoder_config(tokenizer.vocab_size)
    return TokenClassificationModel.from_config({**config, "id2label": dict(enumerate(names))})


@pytest.mark.parametrize("use_crf", [False, True])
def test_forty_sentences_are_learnt_by_heart_in_sixty_steps(
    tokenizer: Tokenizer, tmp_path: Path, use_crf: bool
) -> None:
    torch.manual_seed(0)
    config = {**encoder_config(tokenizer.vocab_size), "use_crf": use_crf, "crf_links": "first"}
    names = sorted({tag for row in TAGS for tag in row}, key=lambda tag: (tag != "O", tag))
    model = TokenClassificationModel.from_config({**config, "id2label": dict(enumerate(names))})
    assert learn(model, tokenizer, TAGS, tmp_path, steps=60).evaluate()["eval_f1"] == 1.0


def test_parts_of_speech_are_learnt(tokenizer: Tokenizer, tmp_path: Path) -> None:
    kinds = {".": "PUNCT", ",": "PUNCT", '"': "PUNCT", "in": "ADP", "for": "ADP", "on": "ADP", "after": "ADP"}
    tags = [[kinds.get(word, "PROPN" if word[0].isupper() else "X") for word in row] for row in WORDS]
    model = new_tagger(tokenizer, tags)
    assert learn(model, tokenizer, tags, tmp_path, steps=60).evaluate()["eval_accuracy"] > 0.99


def test_two_models_on_one_backbone_are_trained_in_turn(tmp_path: Path) -> None:
    encoder = SparseEncoder(str(write_masked_language_model(tmp_path / "model")))
    tagger = TokenClassificationModel.from_backbone(encoder[0].auto_model, id2label=["O", "B-X", "I-X"])
    assert encoder.backbone is tagger.backbone
    texts = ["a b c", "d e f", "g h i", "k l m"]

    def vectors() -> torch.Tensor:
        return encoder.encode_document(texts, convert_to_sparse_tensor=False)

    def train_tagger() -> None:
        rows = {"tokens": [text.split() for text in texts], "ner_tags": [["B-X", "I-X", "O"]] * len(texts)}
        prepare = partial(tokenize_and_align_labels, tokenizer=encoder.tokenizer, label_names=["O", "B-X", "I-X"])
        arguments = TrainingArguments(
            output_dir=str(tmp_path), max_steps=15, learning_rate=1e-2, save_strategy="no", report_to="none"
        )
        Trainer(
            model=tagger,
            args=arguments,
            train_dataset=Dataset.from_dict(rows).map(prepare, batched=True, remove_columns=["tokens", "ner_tags"]),
            data_collator=DataCollatorForTokenClassification(encoder.tokenizer),
        ).train()

    def train_encoder() -> None:
        loss = SpladeLoss(
            encoder,
            loss=SparseMultipleNegativesRankingLoss(encoder),
            document_regularizer_weight=1e-4,
            query_regularizer_weight=1e-4,
        )
        arguments = SparseEncoderTrainingArguments(
            output_dir=str(tmp_path), max_steps=3, learning_rate=1e-3, save_strategy="no", report_to="none"
        )
        rows = Dataset.from_dict({"query": texts, "document": texts[::-1]})
        SparseEncoderTrainer(model=encoder, args=arguments, train_dataset=rows, loss=loss).train()

    def scores() -> torch.Tensor:
        features = encoder.tokenizer(texts, padding=True, return_tensors="pt")
        with torch.no_grad():
            logits: torch.Tensor = tagger.eval()(**features).logits
        return logits

    before = vectors()
    train_tagger()
    assert scores()[:, 1:4].argmax(-1).tolist() == [[1, 2, 0]] * len(texts)
    after_tagger = vectors()
    assert not torch.allclose(before, after_tagger)  # what trains one changes the other
    told = scores()
    train_encoder()
    assert not torch.allclose(after_tagger, vectors())
    assert not torch.allclose(told, scores())
    tagger.backbone.requires_grad_(False)
    kept = vectors()
    train_tagger()  # the classifier alone
    assert torch.equal(kept, vectors())
    assert encoder.backbone is tagger.backbone
