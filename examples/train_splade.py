"""Fine-tune a masked-language checkpoint into a SPLADE model on (query, document) pairs.

The pairs are JSON lines with the keys ``query`` and ``document``; the last ``--held-out`` of them are the evaluation.
Run it again with ``--resume`` after an interruption: the result is the same to the bit.

    python examples/train_splade.py pairs.jsonl --model path/to/checkpoint --output trained
"""

from __future__ import annotations

import argparse
from pathlib import Path

from datasets import Dataset

from sparse_encoder import SparseEncoder, SparseEncoderTrainer, SparseEncoderTrainingArguments
from sparse_encoder.evaluation import SparseInformationRetrievalEvaluator
from sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss


def main(arguments: list[str] | None = None) -> None:
    """Train, evaluate and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--model", required=True, help="a folder or a hub name")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--held-out", type=int, default=500)
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args(arguments)

    rows = Dataset.from_json(str(options.pairs)).select_columns(["query", "document"])
    train, held_out = (
        rows.select(range(len(rows) - options.held_out)),
        rows.select(range(len(rows))[-options.held_out :]),
    )
    evaluator = SparseInformationRetrievalEvaluator(
        queries={str(row): query for row, query in enumerate(held_out["query"])},
        corpus={str(row): document for row, document in enumerate(held_out["document"])},
        relevant_docs={str(row): {str(row)} for row in range(len(held_out))},
        name="held-out",
    )

    model = SparseEncoder(options.model)
    loss = SpladeLoss(
        model,
        loss=SparseMultipleNegativesRankingLoss(model),
        document_regularizer_weight=3e-5,
        query_regularizer_weight=5e-5,
    )
    training = SparseEncoderTrainingArguments(
        output_dir=str(options.output / "checkpoints"),
        num_train_epochs=options.epochs,
        per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        warmup_steps=0.1,
        logging_steps=20,
        save_steps=200,
        save_total_limit=2,
    )
    trainer = SparseEncoderTrainer(model=model, args=training, train_dataset=train, loss=loss, evaluator=evaluator)
    trainer.train(resume_from_checkpoint=options.resume)
    for name, value in evaluator(model, output_path=str(options.output)).items():
        print(f"{name}: {value:.4f}")
    model.save_pretrained(str(options.output / "model"))


if __name__ == "__main__":
    main()
