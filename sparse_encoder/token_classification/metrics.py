"""How well words are tagged: entities by seqeval, words by accuracy. Names of labels in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparse_encoder.token_classification.alignment import IGNORED
from sparse_encoder.token_classification.tags import OUTSIDE, SCHEMES, has_prefix, scheme_named, split_tag

MODES = ("default", "strict")
_PARTS = {"precision": "precision", "recall": "recall", "f1": "f1-score", "number": "support"}
_BILOU = {"L": "E", "U": "S"}
_SUMS = ("micro avg", "macro avg", "weighted avg")

Report = dict[str, Any]
"""By type ``{"precision", "recall", "f1", "number"}``; and ``overall_precision``, ``_recall``, ``_f1`` and
``_accuracy``."""


def entity_scores(
    references: Sequence[Sequence[str]],
    predictions: Sequence[Sequence[str]],
    *,
    mode: str = "default",
    scheme: str | None = None,
    zero_division: int = 0,
) -> Report:
    """Compare the entities of sentences with the true ones, by seqeval.

    Overall numbers count all entities alike (micro averages); the accuracy counts words, those outside too.

    Args:
        references: True tags of each sentence.
        predictions: Predicted ones, as many.
        mode: ``"default"`` reads tags of all schemes as the CoNLL script does, where a wrong prefix may still make the
            right entity; ``"strict"`` takes only what keeps the scheme.
        scheme: Of the tags, for ``"strict"``: a name as in ``detect_scheme``; None lets seqeval guess by the prefixes.
        zero_division: What a score is where nothing was predicted, or there was nothing to predict: 0 or 1.

    Returns:
        Scores of each type and overall, plain numbers.

    Raises:
        ImportError: If seqeval is not installed.
        TypeError: If a sentence is a text.
        ValueError: If sentences are not as many or as long, naming the first, a tag is none of entities, an option has
            another value, or the scheme cannot be guessed.
    """
    _check_options(mode, scheme, zero_division)
    _check_lengths(references, predictions)
    for what, side in (("reference", references), ("prediction", predictions)):
        for number, tags in enumerate(side):
            _check_entities(tags, f"{what} {number}")
    seqeval = _seqeval()
    options: dict[str, Any] = {"output_dict": True, "zero_division": zero_division}
    if mode == "strict":
        chosen = None if scheme is None else getattr(seqeval.scheme, scheme_named(scheme))
        options |= {"mode": "strict", "scheme": chosen}
    report: Report = {}
    micro: dict[str, float] = {"precision": 0.0, "recall": 0.0, "f1-score": 0.0}
    rows, guesses = [list(tags) for tags in references], [list(tags) for tags in predictions]
    if any(tag != OUTSIDE for tags in (*rows, *guesses) for tag in tags):  # seqeval fails where there is no entity
        found = _found(seqeval, rows, guesses, options)
        micro = found["micro avg"]
        for kind, values in found.items():
            if kind not in _SUMS:
                report[kind] = {name: _plain(values[theirs]) for name, theirs in _PARTS.items()}
    for name in ("precision", "recall", "f1"):
        report[f"overall_{name}"] = float(micro[_PARTS[name]])
    report["overall_accuracy"] = word_accuracy(rows, guesses)
    return report


def _check_options(mode: str, scheme: str | None, zero_division: int) -> None:
    if mode not in MODES:
        raise ValueError(f"unknown mode {mode!r}; choose from {sorted(MODES)}")
    if zero_division not in (0, 1):
        raise ValueError(f"zero_division must be 0 or 1, got {zero_division!r}")
    if scheme is not None:
        scheme_named(scheme)
        if mode != "strict":
            raise ValueError("scheme needs mode='strict'; the default mode reads all schemes")


def _check_entities(tags: Sequence[str], what: str) -> None:
    """Check that tags are those of entities, of which seqeval makes others without a word."""
    if isinstance(tags, str):
        raise TypeError(f"{what} must be a list of tags, got {tags!r:.80}")
    wrong = next((tag for tag in tags if tag != OUTSIDE and not has_prefix(tag)), None)
    if wrong is not None:
        raise ValueError(
            f"{what} must have tags of entities, {OUTSIDE} or with a prefix as B-PER, got {wrong!r}; for tags of words "
            "there are word_accuracy and WordMetrics"
        )


def _found(seqeval: Any, rows: list[list[str]], guesses: list[list[str]], options: dict[str, Any]) -> Report:  # noqa: ANN401 - a module without types
    """Return seqeval's report.

    Raises:
        ValueError: If it has to guess the scheme and cannot.
    """
    if "mode" not in options:  # seqeval then knows E and S, but not what BILOU calls them
        rows, guesses = ([[_spelled(tag) for tag in tags] for tags in side] for side in (rows, guesses))
    elif options["scheme"] is None:
        try:
            seqeval.scheme.auto_detect(rows, False)
        except ValueError as reason:
            prefixes = sorted({split_tag(tag)[0] for tags in rows for tag in tags})
            raise ValueError(
                f"the scheme cannot be guessed by the prefixes {prefixes} of the references; "
                f"name it, scheme= one of {sorted(SCHEMES)}"
            ) from reason
    report: Report = seqeval.metrics.classification_report(rows, guesses, **options)
    return report


def _spelled(tag: str) -> str:
    """Write a tag of BILOU as IOBES does."""
    prefix, kind = split_tag(tag)
    return f"{_BILOU[prefix]}-{kind}" if prefix in _BILOU else tag


def word_accuracy(references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]]) -> float:
    """Return the share of words with the right label; 0 if there are no words.

    Args:
        references: True labels of each sentence.
        predictions: Predicted ones, as many.

    Raises:
        ValueError: If sentences are not as many or as long, naming the first.
    """
    _check_lengths(references, predictions)
    pairs = [pair for sentence in zip(references, predictions, strict=True) for pair in zip(*sentence, strict=True)]
    return sum(one == other for one, other in pairs) / len(pairs) if pairs else 0.0


def _check_lengths(references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]]) -> None:
    if len(references) != len(predictions):
        raise ValueError(
            f"references and predictions must be as many sentences, got {len(references)} and {len(predictions)}"
        )
    for number, (one, other) in enumerate(zip(references, predictions, strict=True)):
        if len(one) != len(other):
            raise ValueError(
                f"sentence {number} must have as many predictions as words, got {len(other)} for {len(one)}"
            )


def _plain(value: Any) -> float | int:  # noqa: ANN401 - numpy's numbers
    return int(value) if isinstance(value, int | np.integer) else float(value)


def _seqeval() -> Any:  # noqa: ANN401 - a module without types
    try:
        import seqeval.metrics
        import seqeval.scheme
    except ImportError as reason:
        raise ImportError("entity scores need seqeval: pip install 'sparse-encoder[ner]'") from reason
    return seqeval


def predicted_labels(
    predictions: NDArray[Any], labels: NDArray[Any], *, label_names: Sequence[str], ignore_index: int = IGNORED
) -> tuple[list[list[str]], list[list[str]]]:
    """Turn scores of tokens into names of labels, where there is a true one.

    Args:
        predictions: Scores, (B, T, labels), or numbers of labels, (B, T).
        labels: Numbers of the true labels, (B, T).
        label_names: Names by number.
        ignore_index: Label of what is left out.

    Returns:
        True and predicted names of each row.

    Raises:
        ValueError: If shapes do not fit, or a label has no name.
    """
    scores, truth = np.asarray(predictions), np.asarray(labels)
    chosen = scores.argmax(-1) if scores.ndim == truth.ndim + 1 else scores
    if chosen.shape != truth.shape:
        raise ValueError(
            "predictions must be (texts, tokens, labels) to labels (texts, tokens), "
            f"got {scores.shape} and {truth.shape}"
        )
    kept = truth != ignore_index
    for what, values in (("label", truth[kept]), ("prediction", chosen[kept])):
        if values.size and not 0 <= values.min() <= values.max() < len(label_names):
            raise ValueError(
                f"a {what} must be between 0 and {len(label_names) - 1}, got {values.min()} to {values.max()}"
            )
    names = np.asarray(label_names, dtype=object)
    pairs = [
        (names[row[mask]].tolist(), names[guess[mask]].tolist())
        for row, guess, mask in zip(truth, chosen, kept, strict=True)
    ]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _check_names(names: Sequence[str]) -> None:
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"label_names must be a list of texts, got {names!r:.80}")


@dataclass(frozen=True)
class EntityMetrics:
    """Compute what a trainer reports of a tagger: give it as ``compute_metrics``.

    Args:
        label_names: Names by number.
        mode: As in :func:`entity_scores`.
        scheme: As in :func:`entity_scores`.
        zero_division: As in :func:`entity_scores`.
        per_entity: Also report ``{type}_precision``, ``_recall``, ``_f1`` and ``_number`` of each type.

    Raises:
        ImportError: If seqeval is not installed.
        TypeError: If the names are one text.
        ValueError: If they are not those of entities, or an option has another value.
    """

    label_names: Sequence[str]
    _: KW_ONLY
    mode: str = "default"
    scheme: str | None = None
    per_entity: bool = False
    zero_division: int = 0

    def __post_init__(self) -> None:
        """Check everything before a training starts."""
        _check_names(self.label_names)
        _check_entities(self.label_names, "label_names")
        _check_options(self.mode, self.scheme, self.zero_division)
        _seqeval()

    def __call__(self, eval_preds: Any) -> dict[str, float]:  # noqa: ANN401 - a pair, or transformers' or our own object
        """Return ``precision``, ``recall``, ``f1`` and ``accuracy``.

        Args:
            eval_preds: Scores and labels, as a trainer gathers them.
        """
        predictions, labels = eval_preds
        report = entity_scores(
            *predicted_labels(predictions, labels, label_names=self.label_names),
            mode=self.mode,
            scheme=self.scheme,
            zero_division=self.zero_division,
        )
        metrics = {
            name.removeprefix("overall_"): value for name, value in report.items() if name.startswith("overall_")
        }
        if self.per_entity:
            for kind, values in report.items():
                if isinstance(values, dict):
                    metrics |= {f"{kind}_{name}": value for name, value in values.items()}
        return metrics


@dataclass(frozen=True)
class WordMetrics:
    """Compute the accuracy of a tagger of words (parts of speech): give it as ``compute_metrics``.

    Args:
        label_names: Names by number.
    """

    label_names: Sequence[str]

    def __post_init__(self) -> None:
        """Check the names."""
        _check_names(self.label_names)

    def __call__(self, eval_preds: Any) -> dict[str, float]:  # noqa: ANN401 - as above
        """Return ``accuracy``; arguments as in :class:`EntityMetrics`."""
        predictions, labels = eval_preds
        return {"accuracy": word_accuracy(*predicted_labels(predictions, labels, label_names=self.label_names))}


def labels_of_words(token_labels: Sequence[str], word_ids: Sequence[int | None], *, num_words: int) -> list[str]:
    """Give each word the label of its first token; words without one, also those cut off, are outside.

    So sentences are compared word by word, whatever the tokenizer and its limit: what figures for CoNLL mean.

    Args:
        token_labels: Label of each token.
        word_ids: Word of each token; None for special tokens.
        num_words: Words of the sentence.

    Raises:
        ValueError: If labels and tokens are not as many, or a token belongs to a word that the sentence has not.
    """
    if len(token_labels) != len(word_ids):
        raise ValueError(f"there must be a label for each token, got {len(token_labels)} and {len(word_ids)} tokens")
    words = [OUTSIDE] * num_words
    seen: set[int] = set()
    for label, word in zip(token_labels, word_ids, strict=True):
        if word is not None and word not in seen:
            if not 0 <= word < num_words:
                raise ValueError(f"a word must be between 0 and {num_words - 1}, got {word}")
            seen.add(word)
            words[word] = label
    return words
