"""Train a masked-language checkpoint further on the texts of a domain, before it becomes a sparse encoder.

The texts are the lines of a file; the last tenth of them is held out. A callback fills in the held-out blanks after
each epoch and counts how many words come out right, as text.

    python examples/adapt_language_model.py corpus.txt --model path/to/checkpoint --output adapted
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn

from sparse_encoder.backbone import MaskedLanguageModel
from sparse_encoder.tokenizer import Tokenizer
from sparse_encoder.training import DataCollatorWithPadding, MetricCallback, Trainer, TrainingArguments

IGNORED = -100
Batch = dict[str, Tensor]
Rows = list[dict[str, Any]]  # lists of token ids


def blank_out(rows: Rows, tokenizer: Tokenizer, share: float) -> Batch:
    """Replace some words by the mask token; these become the labels."""
    batch = DataCollatorWithPadding(tokenizer)(rows)
    special = torch.isin(batch["input_ids"], torch.tensor(tokenizer.all_special_ids))
    chosen = (torch.rand(batch["input_ids"].shape) < share) & ~special
    labels = batch["input_ids"].masked_fill(~chosen, IGNORED)
    return {**batch, "input_ids": batch["input_ids"].masked_fill(chosen, tokenizer.mask_token_id), "labels": labels}


def mean_over_blanks(logits: Tensor, labels: Tensor, num_items_in_batch: Tensor | None = None) -> Tensor:
    """Return the cross-entropy of the blanks of a batch, divided by those of the whole update."""
    count = (labels != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
    total = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    return total / torch.as_tensor(count, device=total.device).clamp(min=1)


def words_right(predictions: np.ndarray, labels: np.ndarray, *, tokenizer: Tokenizer) -> dict[str, float]:
    """Compare the words of the blanks, as text."""
    blanks = labels != IGNORED
    guessed = tokenizer.convert_ids_to_tokens(predictions.argmax(-1)[blanks].tolist())
    meant = tokenizer.convert_ids_to_tokens(labels[blanks].tolist())
    right = sum(one == other for one, other in zip(guessed, meant, strict=True))
    return {"words_right": right / max(1, len(meant))}


def main(arguments: list[str] | None = None) -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--model", type=Path, required=True, help="a folder with a masked-language checkpoint")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    options = parser.parse_args(arguments)

    tokenizer = Tokenizer.from_pretrained(options.model)
    model = MaskedLanguageModel.from_pretrained(options.model)
    lines = [line for line in options.texts.read_text(encoding="utf-8").splitlines() if line.strip()]
    ids = tokenizer.encode_batch(lines, max_length=min(256, model.config.max_tokens)).input_ids
    held_out = max(1, len(ids) // 10)
    rows = Dataset.from_dict({"input_ids": ids})
    train, test = rows.select(range(len(ids) - held_out)), rows.select(range(len(ids) - held_out, len(ids)))

    collate = partial(blank_out, tokenizer=tokenizer, share=0.15)
    torch.manual_seed(0)
    blanks = torch.utils.data.DataLoader(
        [blank_out([row], tokenizer, share=0.3) for row in test for _ in range(4)], batch_size=None
    )
    metric = MetricCallback(partial(words_right, tokenizer=tokenizer), blanks, label_cols=["labels"])
    training = TrainingArguments(
        output_dir=str(options.output / "checkpoints"),
        num_train_epochs=options.epochs,
        per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        save_strategy="epoch",
        save_total_limit=1,
        logging_steps=20,
    )
    trainer = Trainer(
        model=model,
        args=training,
        train_dataset=train,
        data_collator=collate,
        processing_class=tokenizer,
        compute_loss_func=mean_over_blanks,
        callbacks=[metric],
    )
    trainer.train()
    for row in trainer.state.log_history:
        if "eval_words_right" in row:
            print(f"epoch {row['epoch']:.0f}: {row['eval_words_right']:.1%} of the blanks right")
    trainer.save_model(str(options.output / "model"))


if __name__ == "__main__":
    main()
