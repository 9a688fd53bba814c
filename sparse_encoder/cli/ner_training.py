"""``sparse-encoder ner train``: a tagger out of a file of tagged sentences."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from sparse_encoder.checkpoint import fetch_model_folder, write_json
from sparse_encoder.cli.ner_data import TAGS, TOKENS, TaggedSentences, read_sentences
from sparse_encoder.cli.ner_tables import score_table
from sparse_encoder.token_classification import (
    DataCollatorForTokenClassification,
    EntityMetrics,
    TokenClassificationModel,
    TokenClassificationPipeline,
    WordMetrics,
    entity_scores,
    tokenize_and_align_labels,
    word_accuracy,
)
from sparse_encoder.token_classification.tagging_pipeline import OVERLAP
from sparse_encoder.token_classification.tags import OUTSIDE
from sparse_encoder.tokenizer import Tokenizer

MODEL, CHECKPOINTS, SCORES = "model", "checkpoints", "scores.json"


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Say how a tagger is trained."""
    parser.add_argument("data", type=Path, help="a file of tagged sentences: columns, or JSON lines with spans")
    parser.add_argument("--model", required=True, help="folder or repository of an encoder, of any family")
    parser.add_argument("--output", type=Path, required=True, help=f"gets {MODEL}/, {CHECKPOINTS}/ and {SCORES}")
    held_out = parser.add_mutually_exclusive_group()
    held_out.add_argument("--evaluation", type=Path, metavar="FILE", help="another file, to choose the best epoch by")
    held_out.add_argument("--held-out", type=float, default=0.1, metavar="SHARE", help="default: %(default)s")
    training = parser.add_argument_group("training")
    training.add_argument("--epochs", type=float, default=3.0, help="default: %(default)s")
    training.add_argument("--batch-size", type=int, default=16, help="default: %(default)s")
    training.add_argument("--learning-rate", type=float, default=5e-5, help="default: %(default)s")
    training.add_argument("--max-length", type=int, help="most tokens of a row; longer sentences become several")
    training.add_argument("--label-all-tokens", action="store_true", help="label all tokens of a word, not the first")
    training.add_argument("--crf", action="store_true", help="put a linear chain on top")
    training.add_argument("--seed", type=int, default=42, help="default: %(default)s")


def train(options: argparse.Namespace) -> None:
    """Read, train, choose the best epoch, save, and print the scores; a run that was stopped goes on.

    Raises:
        ValueError: If an option is out of range or a file is not in its format.
        FileNotFoundError: If the model or a file is not there.
        ImportError: If tags are those of entities and seqeval is not installed.
    """
    from sparse_encoder.training import Trainer, TrainingArguments

    sentences, held_out = _data(options)
    entities = sentences.entities
    names = replace(sentences, words=[], tags=[*sentences.tags, *held_out.tags]).label_names
    metrics = EntityMetrics(names, per_entity=True) if entities else WordMetrics(names)
    folder = fetch_model_folder(options.model)
    tokenizer = Tokenizer.from_pretrained(folder, max_length=options.max_length)
    labelling = "all" if options.label_all_tokens else "first"
    model = TokenClassificationModel.from_pretrained(
        folder, id2label=names, use_crf=options.crf or None, crf_links=labelling
    )
    tokenizer.model_max_length = min(tokenizer.model_max_length, model.config.max_tokens)
    prepare = partial(
        tokenize_and_align_labels,
        tokenizer=tokenizer,
        label_names=names,
        strategy=labelling,
        stride=max(0, (tokenizer.model_max_length - tokenizer.num_special_tokens()) // OVERLAP),
    )
    metric = "f1" if entities else "accuracy"
    arguments = TrainingArguments(
        output_dir=str(options.output / CHECKPOINTS),
        num_train_epochs=options.epochs,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        seed=options.seed,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model=metric,
        greater_is_better=True,
        logging_steps=20,
        report_to="none",
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=_rows(sentences, prepare),
        eval_dataset=_rows(held_out, prepare),
        data_collator=DataCollatorForTokenClassification(tokenizer),
        processing_class=tokenizer,
        compute_metrics=metrics,
    )
    print(f"training on {len(sentences.words)} sentences with {len(names)} labels, {len(held_out.words)} held out")
    trainer.train(resume_from_checkpoint=any((options.output / CHECKPOINTS).glob("checkpoint-*")))
    trainer.save_model(str(options.output / MODEL))
    _report(options, TokenClassificationPipeline(model, tokenizer), held_out, entities=entities)


def _data(options: argparse.Namespace) -> tuple[TaggedSentences, TaggedSentences]:
    sentences = read_sentences(options.data, options)
    if options.evaluation is not None:
        held_out = read_sentences(options.evaluation, options)
        if held_out.entities and not sentences.entities:
            raise ValueError(f"{options.evaluation} has tags of entities and {options.data} has none")
        if sentences.entities and not held_out.entities and any(tag != OUTSIDE for row in held_out.tags for tag in row):
            raise ValueError(f"{options.data} has tags of entities and {options.evaluation} has others")
        return sentences, held_out
    return sentences.split(options.held_out, options.seed)


def _rows(sentences: TaggedSentences, prepare: partial[dict[str, list[object]]]) -> object:
    """Return tokenized rows, as a dataset."""
    data = sentences.dataset().map(prepare, batched=True, remove_columns=[TOKENS, TAGS])
    return data.remove_columns("overflow_to_sample_mapping")


def _report(
    options: argparse.Namespace, tagger: TokenClassificationPipeline, held_out: TaggedSentences, *, entities: bool
) -> None:
    """Measure the saved model word by word, print and write it."""
    found = tagger.label_words(held_out.words, show_progress_bar=sys.stderr.isatty())
    report = (
        entity_scores(held_out.tags, found) if entities else {"overall_accuracy": word_accuracy(held_out.tags, found)}
    )
    print(f"\n{score_table(report)}\n\nsaved to {options.output / MODEL}")
    write_json(options.output / SCORES, report)
