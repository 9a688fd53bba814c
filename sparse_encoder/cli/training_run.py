"""Trains an encoder on the questions and documents of a corpus. Knows nothing of measuring."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sparse_encoder.cli.docstrings import Corpus
from sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss
from sparse_encoder.model import SparseEncoder
from sparse_encoder.training import SparseEncoderTrainer, SparseEncoderTrainingArguments


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How to train."""

    epochs: float = 3.0
    batch_size: int = 64
    learning_rate: float = 5e-4
    scale: float = 3.0
    """Multiplies the scores in the loss: weights start small, so scores do too."""
    document_regularizer_weight: float = 0.0
    query_regularizer_weight: float = 0.0
    seed: int = 0


FROM_SCRATCH = Recipe()
"""For the small model."""
FROM_CHECKPOINT = Recipe(
    epochs=1.0,
    batch_size=16,
    learning_rate=2e-5,
    scale=1.0,
    document_regularizer_weight=3e-5,
    query_regularizer_weight=5e-5,
)
"""For a model that somebody has trained before."""


def train(model: SparseEncoder, corpus: Corpus, recipe: Recipe, *, folder: Path) -> None:
    """Train a model on the training questions, each with its document; others of the batch are the negatives.

    Args:
        model: Changed in place.
        corpus: Its held-out questions are not touched.
        recipe: How.
        folder: For checkpoints of the run; it goes on from the last one that is there.
    """
    rows = [
        {"query": question.text, "document": corpus.docstrings[question.document].document}
        for question in corpus.training
    ]
    loss = SpladeLoss(
        model,
        loss=SparseMultipleNegativesRankingLoss(model, scale=recipe.scale),
        document_regularizer_weight=recipe.document_regularizer_weight,
        query_regularizer_weight=recipe.query_regularizer_weight,
    )
    arguments = SparseEncoderTrainingArguments(
        output_dir=str(folder),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        warmup_steps=0.1,
        adam_beta2=0.98,
        logging_steps=0.1,
        save_steps=0.1,
        save_total_limit=1,
        seed=recipe.seed,
        run_name="training",
    )
    trainer = SparseEncoderTrainer(model=model, args=arguments, train_dataset=rows, loss=loss)
    trainer.train(resume_from_checkpoint=any(folder.glob("checkpoint-*")))
