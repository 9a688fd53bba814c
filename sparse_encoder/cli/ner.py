"""``sparse-encoder ner train|predict|evaluate``: fine-tune a tagger, use it, measure it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from sparse_encoder.checkpoint import write_json
from sparse_encoder.cli.ner_data import add_data_options, read_sentences
from sparse_encoder.cli.ner_tables import Painter, score_table
from sparse_encoder.cli.ner_training import add_training_options, train
from sparse_encoder.token_classification import (
    TokenClassificationPipeline,
    convert_tags,
    entity_scores,
    word_accuracy,
)
from sparse_encoder.token_classification.aggregation import STRATEGIES
from sparse_encoder.token_classification.metrics import MODES
from sparse_encoder.token_classification.tags import has_prefix, scheme_of_labels

CHUNK_LINES = 256
"""Lines that are tagged together; one by one where somebody types them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say which options there are."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    training = actions.add_parser("train", help="fine-tune a tagger on a file of tagged sentences")
    add_training_options(training)
    add_data_options(training)

    predicting = actions.add_parser("predict", help="tag texts, a line each: coloured on a terminal, else JSON lines")
    predicting.add_argument("model", help="folder or repository of a tagger")
    predicting.add_argument("texts", nargs="?", default="-", help="a file with a text a line (default: standard input)")
    predicting.add_argument(
        "--strategy", choices=STRATEGIES, default="first", help="how tokens become entities (default: %(default)s)"
    )
    predicting.add_argument("--threshold", type=float, default=0.0, help="least score of what is shown")
    predicting.add_argument("--batch-size", type=int)
    predicting.add_argument("--device", nargs="+", help="one device or several, as cuda:0 cuda:1")
    predicting.add_argument("--json", action="store_true", help="JSON lines on a terminal too")

    evaluating = actions.add_parser("evaluate", help="compare a tagger with a file of tagged sentences, word by word")
    evaluating.add_argument("model", help="folder or repository of a tagger")
    evaluating.add_argument("data", type=Path, help="a file of tagged sentences")
    evaluating.add_argument(
        "--mode", choices=MODES, default="default", help="strict: only entities of the scheme count"
    )
    evaluating.add_argument("--scheme", help="of the tags, for --mode strict")
    evaluating.add_argument("--batch-size", type=int)
    evaluating.add_argument("--device", nargs="+", help="one device or several, as cuda:0 cuda:1")
    evaluating.add_argument("--output", type=Path, metavar="FILE", help="write the scores as JSON")
    add_data_options(evaluating)


def run(options: argparse.Namespace) -> None:
    """Train, predict or evaluate.

    Raises:
        ValueError: If an option is out of range or a file is not in its format.
        FileNotFoundError: If a model or a file is not there.
        ImportError: If scores are wanted and seqeval is not installed.
    """
    {"train": train, "predict": predict, "evaluate": evaluate}[options.action](options)


def predict(options: argparse.Namespace) -> None:
    """Tag texts and print what is found as it is found."""
    coloured = sys.stdout.isatty() and not options.json
    tagger = TokenClassificationPipeline.from_pretrained(
        options.model,
        aggregation_strategy=options.strategy,
        threshold=options.threshold,
        batch_size=options.batch_size,
        device=options.device,
    )
    painter = Painter()
    with _opened(options.texts) as file:
        size = 1 if file.isatty() else CHUNK_LINES
        lines = tqdm(_lines(file), desc="texts", unit="text", disable=not sys.stderr.isatty() or sys.stdout.isatty())
        while texts := list(islice(lines, size)):
            for text, found in zip(texts, tagger(texts), strict=True):
                told = painter.paint(text, found) if coloured else json.dumps({"text": text, "entities": found})
                print(told, flush=True)


@contextmanager
def _opened(name: str) -> Iterator[TextIO]:
    """Open a file of texts; ``-`` is the standard input."""
    if name == "-":
        yield sys.stdin
    else:
        with Path(name).open(encoding="utf-8") as file:
            yield file


def _lines(file: TextIO) -> Iterator[str]:
    """Yield lines without their ends, and the first without a byte order mark."""
    for number, line in enumerate(file):
        yield (line.removeprefix("\ufeff") if number == 0 else line).rstrip("\r\n")


def evaluate(options: argparse.Namespace) -> None:
    """Print the scores of each type, and write them."""
    if options.output is not None and not options.output.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {options.output.parent} for --output")
    sentences = read_sentences(options.data, options)
    if sentences.entities:
        entity_scores([], [], mode=options.mode, scheme=options.scheme)  # what is wrong is known before the work
    elif options.mode != MODES[0] or options.scheme is not None:
        raise ValueError("--mode and --scheme are for tags of entities, and the file has tags of words")
    tagger = TokenClassificationPipeline.from_pretrained(
        options.model, batch_size=options.batch_size, device=options.device
    )
    known = set(tagger.model.id2label.values())
    tags = sentences.tags
    if sentences.entities:
        if not any(map(has_prefix, known)):
            raise ValueError(f"{options.data} has tags of entities, and {options.model} has labels of words")
        target = options.scheme or scheme_of_labels(known) or "IOB2"
        tags = [convert_tags(row, target) for row in tags]
    found = tagger.label_words(sentences.words, show_progress_bar=sys.stderr.isatty())
    report = (
        entity_scores(tags, found, mode=options.mode, scheme=options.scheme)
        if sentences.entities
        else {"overall_accuracy": word_accuracy(tags, found)}
    )
    unknown = sorted({tag for row in tags for tag in row} - known)
    print(f"{options.model} on {len(found)} sentences of {options.data}\n\n{score_table(report)}")
    if unknown:
        print(f"\ntags that the model does not know: {', '.join(unknown)}")
    if options.output is not None:
        facts = {"model": options.model, "data": str(options.data), "sentences": len(found), "unknown_tags": unknown}
        write_json(options.output, {**facts, "scores": report})
