"""Train one model on several datasets at once, each with its own loss and prompts.

Each file has JSON lines with the keys ``query`` and ``document``; its name without the ending is the dataset's name.
Every batch comes from one dataset, larger datasets more often; no text occurs twice in a batch. The second dataset is
shown with the prompts of questions.

    python examples/train_several_datasets.py titles.jsonl questions.jsonl --model path/to/checkpoint --output trained
"""

from __future__ import annotations

import argparse
from pathlib import Path

from datasets import Dataset, DatasetDict

from sparse_encoder import SparseEncoder, SparseEncoderTrainer, SparseEncoderTrainingArguments
from sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss


def main(arguments: list[str] | None = None) -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path, nargs=2)
    parser.add_argument("--model", required=True, help="a folder or a hub name")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    options = parser.parse_args(arguments)

    first, second = (path.stem for path in options.pairs)
    train = DatasetDict(
        {path.stem: Dataset.from_json(str(path)).select_columns(["query", "document"]) for path in options.pairs}
    )
    model = SparseEncoder(options.model)
    losses = {
        name: SpladeLoss(
            model,
            loss=SparseMultipleNegativesRankingLoss(model, scale=scale),
            document_regularizer_weight=3e-5,
            query_regularizer_weight=5e-5,
        )
        for name, scale in ((first, 1.0), (second, 0.5))
    }
    training = SparseEncoderTrainingArguments(
        output_dir=str(options.output / "checkpoints"),
        num_train_epochs=options.epochs,
        per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        warmup_steps=0.1,
        logging_steps=20,
        save_strategy="epoch",
        save_total_limit=1,
        batch_sampler="no_duplicates",
        multi_dataset_batch_sampler="proportional",
        prompts={second: {"query": "question: "}},
    )
    trainer = SparseEncoderTrainer(model=model, args=training, train_dataset=train, eval_dataset=train, loss=losses)
    trainer.train()
    for name, value in trainer.evaluate().items():
        print(f"{name}: {value:.4f}")
    model.save_pretrained(str(options.output / "model"))


if __name__ == "__main__":
    main()
