"""Tagged sentences for ``sparse-encoder ner``: which file is read how."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sparse_encoder.token_classification import convert_tags, detect_scheme, get_label_names, load_conll, load_spans
from sparse_encoder.token_classification.label_names import sorted_names
from sparse_encoder.token_classification.tags import OUTSIDE, has_prefix

if TYPE_CHECKING:
    from datasets import Dataset

TAGS = "ner_tags"
TOKENS = "tokens"
FORMATS = ("auto", "conll", "spans")
KINDS = ("auto", "entities", "lenient", "words")


@dataclass(frozen=True, kw_only=True, slots=True)
class TaggedSentences:
    """Words and tags of sentences; those of entities in IOB2."""

    words: list[list[str]]
    tags: list[list[str]]
    entities: bool
    """Whether the tags are those of entities; else of words, as parts of speech."""

    @property
    def label_names(self) -> list[str]:
        """The tags that occur, ``O`` first, which entities always have."""
        return sorted_names(tag for row in [*self.tags, [OUTSIDE] * self.entities] for tag in row)

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
        return replace(self, words=[self.words[row] for row in rows], tags=[self.tags[row] for row in rows])

    def dataset(self) -> Dataset:
        """Return the columns ``tokens`` and ``ner_tags``, the tags by name."""
        from datasets import Dataset

        return Dataset.from_dict({TOKENS: self.words, TAGS: self.tags})


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Say how files of sentences are read."""
    data = parser.add_argument_group("data")
    data.add_argument("--format", choices=FORMATS, default="auto", help="auto: spans for .json and .jsonl, else conll")
    data.add_argument("--column", type=int, default=-1, help="number of the column with the tags (default: the last)")
    data.add_argument(
        "--tags",
        choices=KINDS,
        default="auto",
        help="entities in any scheme; lenient: entities whose tags break their scheme; words: parts of speech and the "
        "like; auto: entities if a tag has a prefix, as B- (default)",
    )
    data.add_argument("--separator", help="between columns (default: any blank)")


def read_sentences(path: Path, options: argparse.Namespace) -> TaggedSentences:
    """Read a file; tags of entities, in whatever scheme, become IOB2.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is not in its format; names the line. If tags of entities keep no scheme; names the sentence.
    """
    spans = path.suffix in (".json", ".jsonl") if options.format == "auto" else options.format == "spans"
    if spans:
        data = load_spans(path)
    else:
        data = load_conll(path, columns={TOKENS: 0, TAGS: options.column}, separator=options.separator)
    names = get_label_names(data, TAGS)
    tags = [[names[tag] for tag in row] for row in data[TAGS]]
    kind = options.tags
    if kind == "auto":
        kind = "entities" if any(has_prefix(tag) for row in tags for tag in row) else "words"
    if kind != "words":
        tags = _in_iob2(tags, path, lenient=kind == "lenient")
    return TaggedSentences(words=data[TOKENS][:], tags=tags, entities=kind != "words")


def _in_iob2(tags: list[list[str]], path: Path, *, lenient: bool) -> list[list[str]]:
    """Write tags of entities in the scheme that taggers learn.

    Raises:
        ValueError: If they keep no scheme; names the sentence.
    """
    if not lenient:
        try:
            detect_scheme(tags)
        except ValueError as reason:
            raise ValueError(
                f"{path}: {reason}; --tags lenient reads them as the CoNLL script does, --tags words takes them for "
                "tags of words"
            ) from reason
    converted = []
    for number, row in enumerate(tags):
        try:
            converted.append(convert_tags(row, "IOB2"))
        except ValueError as reason:
            raise ValueError(f"{path}: sentence {number}, {reason}") from reason
    return converted
