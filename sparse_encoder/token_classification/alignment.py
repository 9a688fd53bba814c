"""Labels of words onto tokens: which token of a word carries its label, and which carry none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import index
from typing import Any, Literal, get_args

from sparse_encoder.token_classification.tags import split_tag
from sparse_encoder.tokenizer import UNLIMITED, TokenBatch, Tokenizer

Strategy = Literal["all", "first"]
IGNORED = -100
"""Label of tokens that teach nothing."""


def align_labels_with_tokens(
    labels: Sequence[int] | Sequence[str],
    word_ids: Sequence[int | None],
    *,
    label_names: Sequence[str] | None = None,
    strategy: str = "all",
    b_to_i: bool = True,
    starts_inside: bool = False,
    ends_inside: bool = False,
    ignore_index: int = IGNORED,
) -> list[int]:
    """Give the tokens of a sentence the labels of their words.

    The course of Hugging Face turns ``B`` into ``I`` by adding one to odd numbers; here it is done by name.

    Args:
        labels: Of the words, by number or by name.
        word_ids: Word of each token; None for special tokens and padding.
        label_names: Names by number. Needed for names, and to turn ``B`` into ``I``.
        strategy: ``"all"`` labels every token of a word, ``"first"`` the first one only.
        b_to_i: Whether the further tokens of a word labelled ``B-X`` are labelled ``I-X``, if there is such a label; so
            too in IOBES and BILOU, where a word ``S-X`` of three tokens is ``B-X``, ``I-X``, ``E-X``.
        starts_inside: Whether the first word begins before the first token, in a window before this one.
        ends_inside: Whether the last word ends behind the last token.
        ignore_index: Label of tokens that get none.

    Returns:
        A label for each token.

    Raises:
        TypeError: If the labels are no list.
        ValueError: If there is no label for a word, a label is unknown, ``strategy`` is, or names are missing or twice
            there.
    """
    numbers = _numbers(labels, label_names)
    if strategy not in get_args(Strategy):
        raise ValueError(f"unknown strategy {strategy!r}; choose from {sorted(get_args(Strategy))}")
    spelling = _Spelling.of(label_names, numbers, spelled=strategy == "all" and b_to_i)
    aligned: list[int] = []
    pieces = _runs(word_ids)
    words = [number for number, (word, _) in enumerate(pieces) if word is not None]
    for place, (word, count) in enumerate(pieces):
        if word is None:
            aligned += [ignore_index] * count
            continue
        if not 0 <= word < len(numbers):
            raise ValueError(f"there must be a label for each word, got {len(numbers)} labels and word {word}")
        before = starts_inside and place == words[0]
        behind = ends_inside and place == words[-1]
        if strategy == "first":
            aligned += [ignore_index if before else numbers[word]] + [ignore_index] * (count - 1)
        else:
            aligned += spelling.spread(numbers[word], count, before=before, behind=behind)
    return aligned


def _runs(word_ids: Sequence[int | None]) -> list[tuple[int | None, int]]:
    """Return each word, or None, and how many tokens in a row are its."""
    return [(word, len(list(run))) for word, run in groupby(word_ids)]


def _numbers(labels: Sequence[int] | Sequence[str], names: Sequence[str] | None) -> list[int]:
    """Return the numbers of labels; those of numpy and torch are numbers too.

    Raises:
        TypeError: If the labels are no list.
        ValueError: If one is unknown, naming its word.
    """
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        raise TypeError(f"labels must be a list, a label for each word, got {labels!r:.80}")
    known = {} if names is None else {name: number for number, name in enumerate(names)}
    if names is not None and len(known) < len(names):
        raise ValueError(f"label_names must have each name once, got {list(names)!r:.200}")
    numbers = []
    values: Iterable[Any] = labels  # Any: whatever has __index__
    for word, label in enumerate(values):
        if isinstance(label, str):
            if label not in known:
                raise ValueError(f"word {word}: unknown label {label!r}; choose from {list(known) or 'label_names'}")
            numbers.append(known[label])
            continue
        try:
            number = -1 if isinstance(label, bool) else index(label)
        except TypeError:
            number = -1
        if number < 0 or (known and number >= len(known)):
            most = f" and {len(known) - 1}" if known else ""
            raise ValueError(f"word {word}: a label must be a name or a number between 0{most}, got {label!r}")
        numbers.append(number)
    return numbers


@dataclass(frozen=True, slots=True)
class _Spelling:
    """How the label of a word is written on several tokens: an entity begins on the first one and ends on the last."""

    names: Sequence[str]
    known: dict[str, int]

    @classmethod
    def of(cls, names: Sequence[str] | None, numbers: Sequence[int], *, spelled: bool) -> _Spelling:
        """Make the spelling of some names; one that changes nothing unless it is ``spelled``.

        Raises:
            ValueError: If there are no names, and a label that may need another on further tokens.
        """
        if spelled and names is None and any(numbers):
            raise ValueError(
                "label_names are needed to write B- as I- on the further tokens of a word; pass them, or "
                "strategy='first', which labels none of these"
            )
        if not spelled or names is None:
            return cls((), {})
        return cls(names, {name: number for number, name in enumerate(names)})

    def spread(self, label: int, count: int, *, before: bool, behind: bool) -> list[int]:
        """Return the labels of the tokens of a word.

        Args:
            label: Of the word.
            count: Its tokens here.
            before: Whether it has tokens before these.
            behind: Whether it has tokens behind these.
        """
        if not self.known or (count == 1 and not before and not behind):
            return [label] * count
        prefix, kind = split_tag(self.names[label])
        begins, ends = prefix in ("B", "S", "U"), prefix in ("E", "L", "S", "U")
        last = {"S": "E", "U": "L"}.get(prefix, prefix) if ends else "I"
        spread = []
        for place in range(count):
            first_here = place == 0 and not before
            last_here = place == count - 1 and not behind
            wanted = "B" if begins and first_here else last if last_here else "I"
            spread.append(self.known.get(f"{wanted}-{kind}", label) if prefix and kind else label)
        return spread


def tokenize_and_align_labels(
    examples: Mapping[str, Sequence[Any]],  # Any: lists of words and of labels
    tokenizer: Tokenizer,
    *,
    label_names: Sequence[str] | None = None,
    words_column: str = "tokens",
    labels_column: str = "ner_tags",
    strategy: str = "all",
    max_length: int | None = None,
    stride: int | None = None,
) -> dict[str, list[Any]]:
    """Tokenize sentences of words and label their tokens; for ``Dataset.map(..., batched=True, remove_columns=...)``.

    A word that the tokenizer drops has no token, so its label teaches nothing. An empty sentence becomes its special
    tokens, none of them labelled.

    Args:
        examples: Columns of words and of labels, a list for each sentence.
        tokenizer: It truncates the sentences.
        label_names: As in :func:`align_labels_with_tokens`.
        words_column: Name of the column of words.
        labels_column: Name of the column of labels.
        strategy: As in :func:`align_labels_with_tokens`.
        max_length: Most tokens of a row; None takes the tokenizer's.
        stride: Tokens that rows of a long sentence have in common, so that no word is lost; None truncates, and what is
            cut off teaches nothing.

    Returns:
        ``input_ids``, ``attention_mask``, ``token_type_ids`` if the tokenizer has them, and ``labels``; with ``stride``
        also ``overflow_to_sample_mapping``, the number of the sentence of each row.

    Raises:
        TypeError: If the words or labels of a sentence are no list, or a word is no text.
        ValueError: If a column is missing, or words and labels of a sentence are not as many, or a label is unknown;
            both name the sentence.
    """
    for column in (words_column, labels_column):
        if column not in examples:
            raise ValueError(f"there is no column {column!r}; choose from {sorted(examples)}")
    sentences, labels = examples[words_column], examples[labels_column]
    _check_sentences(sentences, labels, words_column=words_column, labels_column=labels_column)
    batch = tokenizer.encode_windows(sentences, max_length=max_length, stride=stride, is_split_into_words=True)
    samples = list(range(len(batch))) if batch.samples is None else list(batch.samples)
    limit = tokenizer.model_max_length if max_length is None else max_length
    cut = _cut_words(tokenizer, batch, sentences, limit=limit, stride=stride)
    rows = []
    for row, (sample, (before, behind)) in enumerate(zip(samples, cut, strict=True)):
        try:
            aligned = align_labels_with_tokens(
                labels[sample],
                batch.word_ids[row],
                label_names=label_names,
                strategy=strategy,
                starts_inside=before,
                ends_inside=behind,
            )
        except ValueError as reason:
            raise ValueError(f"sentence {sample}: {reason}") from reason
        rows.append(aligned)
    columns: dict[str, list[Any]] = {"input_ids": batch.input_ids}
    if batch.token_type_ids is not None:
        columns["token_type_ids"] = batch.token_type_ids
    columns |= {"attention_mask": [[1] * length for length in batch.lengths], "labels": rows}
    return columns if stride is None else {**columns, "overflow_to_sample_mapping": samples}


def _check_sentences(sentences: Any, labels: Any, *, words_column: str, labels_column: str) -> None:  # noqa: ANN401 - anything, that is the question
    """Check that every sentence is a list of words with as many labels."""
    if len(sentences) != len(labels):
        raise ValueError(
            f"columns {words_column!r} and {labels_column!r} must be as long, got {len(sentences)} and {len(labels)}"
        )
    for number, (words, tags) in enumerate(zip(sentences, labels, strict=True)):
        for what, row in ((words_column, words), (labels_column, tags)):
            if isinstance(row, str) or not isinstance(row, Iterable):
                raise TypeError(f"sentence {number}: {what!r} must be a list, got {type(row).__name__}: {row!r:.80}")
        wrong = next((place for place, word in enumerate(words) if not isinstance(word, str)), None)
        if wrong is not None:
            raise TypeError(f"sentence {number}, word {wrong}: a word must be a text, got {words[wrong]!r:.80}")
        if len(words) != len(tags):
            raise ValueError(
                f"sentence {number} must have a label for each word, got {len(words)} words and {len(tags)} labels"
            )


def _cut_words(
    tokenizer: Tokenizer, batch: TokenBatch, sentences: Sequence[Sequence[str]], *, limit: int, stride: int | None
) -> list[tuple[bool, bool]]:
    """Say of each row whether its first word begins before it, and whether its last one goes on behind it.

    Offsets do not tell, for the bytes of one character share them: the tokens around are looked up in the whole
    sentence.
    """
    from_left = tokenizer.truncation_side == "left"
    rows: dict[int, list[int]] = {}
    for row, sample in enumerate(range(len(batch)) if batch.samples is None else batch.samples):
        rows.setdefault(sample, []).append(row)
    lengths = batch.lengths
    doubtful = [sample for sample, own in rows.items() if len(own) > 1 or lengths[own[0]] >= limit]
    whole = tokenizer.encode_windows(
        [sentences[sample] for sample in doubtful],
        max_length=UNLIMITED,
        is_split_into_words=True,
        add_special_tokens=False,
    )
    answers = [(False, False)] * len(batch)
    for words, sample in zip(whole.word_ids, doubtful, strict=True):
        room = sum(word is not None for word in batch.word_ids[rows[sample][0]])
        for number, row in enumerate(rows[sample]):
            moved = number * (room - (stride or 0))
            end = max(0, len(words) - moved) if from_left else min(len(words), moved + room)
            first = max(0, end - room) if from_left else moved
            answers[row] = (_within_a_word(words, first), _within_a_word(words, end))
    return answers


def _within_a_word(words: Sequence[int | None], place: int) -> bool:
    return 0 < place < len(words) and words[place - 1] == words[place]
