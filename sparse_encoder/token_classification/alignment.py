"""Labels of words onto tokens: which token of a word carries its label, and which carry none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    ignore_index: int = IGNORED,
) -> list[int]:
    """Give the tokens of a sentence the labels of their words.

    The course of Hugging Face turns ``B`` into ``I`` by adding one to odd numbers; here it is done by name.

    Args:
        labels: Of the words, by number or by name.
        word_ids: Word of each token; None for special tokens and padding.
        label_names: Names by number. Needed for names, and to turn ``B`` into ``I``.
        strategy: ``"all"`` labels every token of a word, ``"first"`` the first one only.
        b_to_i: Whether the further tokens of a word labelled ``B-X`` are labelled ``I-X``, if there is such a label.
        starts_inside: Whether the first word begins before the first token, in a window before this one.
        ignore_index: Label of tokens that get none.

    Returns:
        A label for each token.

    Raises:
        ValueError: If there is no label for a word, a label is unknown, ``strategy`` is, or names are missing.
    """
    numbers = _numbers(labels, label_names)
    if strategy not in get_args(Strategy):
        raise ValueError(f"unknown strategy {strategy!r}; choose from {sorted(get_args(Strategy))}")
    inside = _inside(label_names, numbers, strategy, b_to_i)
    aligned = []
    before: int | None = None
    if starts_inside:
        before = next((word for word in word_ids if word is not None), None)
    for word in word_ids:
        if word is None:
            aligned.append(ignore_index)
            continue
        if not 0 <= word < len(numbers):
            raise ValueError(f"there must be a label for each word, got {len(numbers)} labels and word {word}")
        goes_on = word == before
        before = word
        if goes_on and strategy == "first":
            aligned.append(ignore_index)
        else:
            aligned.append(inside.get(numbers[word], numbers[word]) if goes_on else numbers[word])
    return aligned


def _numbers(labels: Sequence[int] | Sequence[str], names: Sequence[str] | None) -> list[int]:
    """Return the numbers of labels.

    Raises:
        ValueError: If one is unknown, naming its word.
    """
    known = {} if names is None else {name: number for number, name in enumerate(names)}
    numbers = []
    for word, label in enumerate(labels):
        if isinstance(label, str):
            if label not in known:
                raise ValueError(f"word {word}: unknown label {label!r}; choose from {list(known) or 'label_names'}")
            numbers.append(known[label])
        elif isinstance(label, bool) or not isinstance(label, int) or label < 0 or (known and label >= len(known)):
            most = f" and {len(known) - 1}" if known else ""
            raise ValueError(f"word {word}: a label must be a name or a number between 0{most}, got {label!r}")
        else:
            numbers.append(label)
    return numbers


def _inside(names: Sequence[str] | None, numbers: Sequence[int], strategy: str, b_to_i: bool) -> dict[int, int]:
    """Return the label that the further tokens of a word have, where it is another than its first one's."""
    if strategy == "first" or not b_to_i:
        return {}
    if names is None:
        if any(numbers):
            raise ValueError("label_names are needed to turn B- into I- by name; pass them, or b_to_i=False")
        return {}
    known = {name: number for number, name in enumerate(names)}
    inside = {}
    for name, number in known.items():
        prefix, kind = split_tag(name)
        if prefix == "B" and f"I-{kind}" in known:
            inside[number] = known[f"I-{kind}"]
    return inside


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
        ValueError: If a column is missing, or words and labels of a sentence are not as many, or a label is unknown;
            it names the sentence.
    """
    for column in (words_column, labels_column):
        if column not in examples:
            raise ValueError(f"there is no column {column!r}; choose from {sorted(examples)}")
    sentences, labels = examples[words_column], examples[labels_column]
    for number, (words, tags) in enumerate(zip(sentences, labels, strict=True)):
        if len(words) != len(tags):
            raise ValueError(
                f"sentence {number} must have a label for each word, got {len(words)} words and {len(tags)} labels"
            )
    batch = tokenizer.encode_windows(sentences, max_length=max_length, stride=stride, is_split_into_words=True)
    samples = list(range(len(batch))) if batch.samples is None else list(batch.samples)
    rows = []
    for row, (sample, inside) in enumerate(
        zip(samples, _starts_inside(tokenizer, batch, sentences, stride), strict=True)
    ):
        try:
            aligned = align_labels_with_tokens(
                labels[sample], batch.word_ids[row], label_names=label_names, strategy=strategy, starts_inside=inside
            )
        except ValueError as reason:
            raise ValueError(f"sentence {sample}: {reason}") from reason
        rows.append(aligned)
    columns: dict[str, list[Any]] = {"input_ids": batch.input_ids}
    if batch.token_type_ids is not None:
        columns["token_type_ids"] = batch.token_type_ids
    columns |= {"attention_mask": [[1] * length for length in batch.lengths], "labels": rows}
    return columns if stride is None else {**columns, "overflow_to_sample_mapping": samples}


def _starts_inside(
    tokenizer: Tokenizer, batch: TokenBatch, sentences: Sequence[Sequence[str]], stride: int | None
) -> list[bool]:
    """Say of each row whether its first token goes on with a word whose beginning is not in it.

    Offsets do not tell, for the bytes of one character share them: the token before is looked up in the whole sentence.
    """
    from_left = tokenizer.truncation_side == "left"
    rows: dict[int, list[int]] = {}
    for row, sample in enumerate(range(len(batch)) if batch.samples is None else batch.samples):
        rows.setdefault(sample, []).append(row)
    doubtful = [sample for sample, own in rows.items() if len(own) > 1 or from_left]
    whole = tokenizer.encode_windows(
        [sentences[sample] for sample in doubtful],
        max_length=UNLIMITED,
        is_split_into_words=True,
        add_special_tokens=False,
    )
    answers = [False] * len(batch)
    for words, sample in zip(whole.word_ids, doubtful, strict=True):
        room = sum(word is not None for word in batch.word_ids[rows[sample][0]])
        for number, row in enumerate(rows[sample]):
            moved = number * (room - (stride or 0))
            first = max(0, len(words) - room - moved) if from_left else moved
            answers[row] = 0 < first < len(words) and words[first - 1] == words[first]
    return answers
