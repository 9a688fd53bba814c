"""Tagged sentences for ``sparse-encoder ner``: which file is read how."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sparse_encoder.token_classification import detect_scheme, get_label_names, load_conll, load_spans

if TYPE_CHECKING:
    from datasets import Dataset

TAGS = "ner_tags"
TOKENS = "tokens"
FORMATS = ("auto", "conll", "spans")


@dataclass(frozen=True, kw_only=True, slots=True)
class TaggedSentences:
    """Words and tags of sentences."""

    words: list[list[str]]
    tags: list[list[str]]

    @property
    def label_names(self) -> list[str]:
        """The tags that occur, ``O`` first."""
        return sorted({"O", *(tag for row in self.tags for tag in row)}, key=lambda tag: (tag != "O", tag))

    def split(self, share: float, seed: int) -> tuple[TaggedSentences, TaggedSentences]:
        """Return the sentences without a share of them, and these.

        Raises:
            ValueError: If one of the two would be empty.
        """
        import numpy as np

        number = round(len(self.words) * share)
        if not 0 < number < len(self.words):
            raise ValueError(f"--held-out {share} of {len(self.words)} sentences leaves one side empty")
        order = np.random.default_rng(seed).permutation(len(self.words)).tolist()
        return self._chosen(sorted(order[number:])), self._chosen(sorted(order[:number]))

    def _chosen(self, rows: list[int]) -> TaggedSentences:
        return TaggedSentences(words=[self.words[row] for row in rows], tags=[self.tags[row] for row in rows])

    def dataset(self) -> Dataset:
        """Return the columns ``tokens`` and ``ner_tags``, the tags by name."""
        from datasets import Dataset

        return Dataset.from_dict({TOKENS: self.words, TAGS: self.tags})


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Say how files of sentences are read."""
    data = parser.add_argument_group("data")
    data.add_argument("--format", choices=FORMATS, default="auto", help="auto: spans for .json and .jsonl, else conll")
    data.add_argument("--column", type=int, default=-1, help="number of the column with the tags (default: the last)")
    data.add_argument("--separator", help="between columns (default: any blank)")


def read_sentences(path: Path, options: argparse.Namespace) -> TaggedSentences:
    """Read a file.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is not in its format; names the line.
    """
    spans = path.suffix in (".json", ".jsonl") if options.format == "auto" else options.format == "spans"
    if spans:
        data = load_spans(path)
    else:
        data = load_conll(path, columns={TOKENS: 0, TAGS: options.column}, separator=options.separator)
    names = get_label_names(data, TAGS)
    return TaggedSentences(words=data[TOKENS][:], tags=[[names[tag] for tag in row] for row in data[TAGS]])


def has_entities(sentences: TaggedSentences) -> bool:
    """Return whether tags are those of entities: they keep a scheme, and not all words are outside."""
    try:
        detect_scheme(sentences.tags)
    except ValueError:
        return False
    return any(tag != "O" for row in sentences.tags for tag in row)
