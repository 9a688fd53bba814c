"""Fine-tune a tagger with a loop of one's own on `accelerate`, the way `sparse-encoder ner train` does with a Trainer.

The sentences are columns of words and tags (CoNLL). Start it with python, torchrun or accelerate launch:

    python examples/train_tagger_loop.py train.txt test.txt --model path/to/encoder --output tagger
    torchrun --standalone --nproc-per-node 2 examples/train_tagger_loop.py train.txt test.txt ...
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from sparse_encoder.token_classification import (
    DataCollatorForTokenClassification,
    TokenClassificationModel,
    entity_scores,
    get_label_names,
    load_conll,
    tokenize_and_align_labels,
)
from sparse_encoder.token_classification.metrics import predicted_labels
from sparse_encoder.tokenizer import Tokenizer
from sparse_encoder.training import get_scheduler


@torch.no_grad()
def evaluate(
    model: torch.nn.Module, batches: DataLoader, accelerator: Accelerator, names: list[str]
) -> dict[str, float]:
    """Return the overall scores; every sentence counts once, whatever the number of processes."""
    model.eval()
    references, predictions = [], []
    for batch in batches:
        best = model(**batch)["logits"].argmax(dim=-1)
        best = accelerator.pad_across_processes(best, dim=1, pad_index=-100)
        labels = accelerator.pad_across_processes(batch["labels"], dim=1, pad_index=-100)
        best, labels = accelerator.gather_for_metrics((best, labels))
        truth, guessed = predicted_labels(best.cpu().numpy(), labels.cpu().numpy(), label_names=names)
        references += truth
        predictions += guessed
    report = entity_scores(references, predictions)
    return {key.removeprefix("overall_"): report[key] for key in report if key.startswith("overall_")} | {
        "sentences": len(references)
    }


def main(arguments: list[str] | None = None) -> None:
    """Train, evaluate after each epoch and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--model", type=Path, required=True, help="a folder with an encoder")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--cpu", action="store_true")
    options = parser.parse_args(arguments)

    accelerator = Accelerator(cpu=options.cpu)
    set_seed(options.seed)
    columns = {"tokens": 0, "ner_tags": -1}
    train = load_conll(options.train, columns=columns)
    names = get_label_names(train)
    test = load_conll(options.test, columns=columns, label_names={"ner_tags": names})
    tokenizer = Tokenizer.from_pretrained(options.model)
    model = TokenClassificationModel.from_pretrained(options.model, id2label=names)
    prepare = partial(
        tokenize_and_align_labels, tokenizer=tokenizer, label_names=names, max_length=min(256, model.config.max_tokens)
    )
    loader = partial(
        DataLoader, batch_size=options.batch_size, collate_fn=DataCollatorForTokenClassification(tokenizer)
    )
    with accelerator.main_process_first():
        train = train.map(prepare, batched=True, remove_columns=train.column_names)
        test = test.map(prepare, batched=True, remove_columns=test.column_names)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate)
    model, optimizer, train_batches, test_batches = accelerator.prepare(
        model, optimizer, loader(train, shuffle=True), loader(test)
    )
    updates = options.epochs * len(train_batches)  # known only now: each process has its share
    schedule = get_scheduler("linear", optimizer=optimizer, num_warmup_steps=0, num_training_steps=updates)
    bar = tqdm(total=updates, disable=not accelerator.is_main_process)
    for epoch in range(options.epochs):
        model.train()
        for batch in train_batches:
            accelerator.backward(model(**batch)["loss"])
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            bar.update()
        scores = evaluate(model, test_batches, accelerator, names)
        accelerator.print(f"epoch {epoch + 1}: " + ", ".join(f"{name} {value:.3f}" for name, value in scores.items()))
    accelerator.wait_for_everyone()
    accelerator.unwrap_model(model).save_pretrained(options.output, is_main_process=accelerator.is_main_process)
    if accelerator.is_main_process:
        tokenizer.save_pretrained(options.output)
    accelerator.end_training()


if __name__ == "__main__":
    main()
