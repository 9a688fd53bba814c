"""Entity scores by seqeval, and word accuracy."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest

from sparse_encoder.token_classification.metrics import (
    EntityMetrics,
    WordMetrics,
    entity_scores,
    labels_of_words,
    predicted_labels,
    word_accuracy,
)
from sparse_encoder.token_classification.tags import convert_tags

GOLD = ["B-ORG", "O", "B-MISC", "O", "O", "O", "B-MISC", "O", "O"]
PREDICTED = ["B-ORG", "O", "O", "O", "O", "O", "B-MISC", "O", "O"]
NAMES = ["O", "B-ORG", "I-ORG", "B-MISC"]


def test_the_documented_sentence() -> None:
    report = entity_scores([GOLD], [PREDICTED])
    assert report == {
        "MISC": {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "number": 2},
        "ORG": {"precision": 1.0, "recall": 1.0, "f1": 1.0, "number": 1},
        "overall_precision": 1.0,
        "overall_recall": pytest.approx(2 / 3),
        "overall_f1": pytest.approx(0.8),
        "overall_accuracy": pytest.approx(8 / 9),
    }
    json.dumps(report)  # plain numbers


def test_a_wrong_prefix_counts_only_where_it_is_asked_for() -> None:
    gold, predicted = [["B-PER", "I-PER"]], [["I-PER", "I-PER"]]
    assert entity_scores(gold, predicted)["overall_f1"] == 1.0
    assert entity_scores(gold, predicted, mode="strict", scheme="IOB2")["overall_f1"] == 0.0
    assert entity_scores(gold, gold, mode="strict", scheme="BIO")["overall_f1"] == 1.0


@pytest.mark.parametrize("zero", [0, 1])
def test_sentences_without_entities(zero: int) -> None:
    assert entity_scores([["O", "O"], []], [["O", "O"], []]) == {
        "overall_precision": 0.0,
        "overall_recall": 0.0,
        "overall_f1": 0.0,
        "overall_accuracy": 1.0,
    }
    report = entity_scores([["O", "O"]], [["B-X", "O"]], zero_division=zero)
    assert (report["overall_precision"], report["overall_recall"]) == (0.0, float(zero))


def test_a_trainer_gets_four_numbers_and_those_of_each_type() -> None:
    labels = np.array([[NAMES.index(tag) for tag in GOLD] + [-100], [-100] * 10])
    scores = np.full((2, 10, 4), -1.0)
    for place, tag in enumerate(PREDICTED):
        scores[0, place, NAMES.index(tag)] = 3.0
    assert EntityMetrics(NAMES)((scores, labels)) == pytest.approx(
        {"precision": 1.0, "recall": 2 / 3, "f1": 0.8, "accuracy": 8 / 9}
    )
    assert EntityMetrics(NAMES, per_entity=True)((scores, labels))["MISC_recall"] == 0.5
    assert WordMetrics(NAMES)((scores.argmax(-1), labels)) == {"accuracy": pytest.approx(8 / 9)}


def test_words_have_the_label_of_their_first_token_and_lost_ones_are_outside() -> None:
    labels = ["O", "B-PER", "I-PER", "B-LOC", "O"]
    assert labels_of_words(labels, [None, 0, 0, 2, None], num_words=4) == ["B-PER", "O", "B-LOC", "O"]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([["O"]], []), {}, "as many sentences, got 1 and 0"),
        (([["O"], ["O"]], [["O"], ["O", "O"]]), {}, "sentence 1 must have as many predictions as words, got 2 for 1"),
        (([], []), {"mode": "lenient"}, "unknown mode 'lenient'; choose from"),
        (([], []), {"zero_division": 2}, "zero_division must be 0 or 1"),
        (([], []), {"scheme": "IOB2"}, "scheme needs mode='strict'"),
        (([], []), {"scheme": "IOX", "mode": "strict"}, "unknown scheme 'IOX'"),
    ],
)
def test_bad_arguments_are_refused(arguments: Any, options: dict[str, Any], message: str) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match=message):
        entity_scores(*arguments, **options)


def test_labels_and_scores_must_fit() -> None:
    with pytest.raises(ValueError, match=r"got \(2, 3\) and \(2, 4\)"):
        predicted_labels(np.zeros((2, 3)), np.zeros((2, 4)), label_names=NAMES)
    with pytest.raises(ValueError, match="a label must be between 0 and 3, got 0 to 9"):
        predicted_labels(np.zeros((1, 2, 4)), np.array([[0, 9]]), label_names=NAMES)
    with pytest.raises(ValueError, match="a prediction must be between 0 and 3, got 4"):
        predicted_labels(np.eye(5)[None, 4:], np.array([[0]]), label_names=NAMES)
    assert word_accuracy([], []) == 0.0


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "seqeval.metrics", None)
    with pytest.raises(ImportError, match=r"pip install 'sparse-encoder\[ner\]'"):
        entity_scores([["B-X"]], [["B-X"]])


def test_all_schemes_are_read_without_saying_which() -> None:
    iob = [["B-PER", "B-PER", "I-PER", "O", "B-LOC", "I-LOC", "I-LOC"], ["B-LOC", "O"]]
    guess = [["B-PER", "I-PER", "I-PER", "O", "B-LOC", "I-LOC", "I-LOC"], ["B-LOC", "O"]]
    wanted = entity_scores(iob, guess)
    assert wanted["overall_f1"] == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))
    for scheme in ("IOBES", "BILOU"):
        sides = [[convert_tags(tags, scheme) for tags in side] for side in (iob, guess)]
        found = entity_scores(*sides)
        assert {name: found[name] for name in found if name != "overall_accuracy"} == {
            name: wanted[name] for name in wanted if name != "overall_accuracy"
        }
    assert entity_scores([["U-PER", "U-PER"]], [["U-PER", "U-PER"]])["PER"]["number"] == 2


def test_a_scheme_that_cannot_be_guessed_is_asked_for() -> None:
    with pytest.raises(ValueError, match="guessed by the prefixes .* name it, scheme= one of"):
        entity_scores([["I-A", "O"]], [["I-A", "O"]], mode="strict")
    assert entity_scores([["I-A", "O"]], [["I-A", "O"]], mode="strict", scheme="IOB1")["overall_f1"] == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "foo"}, "unknown mode"),
        ({"scheme": "IOB2"}, "scheme needs"),
        ({"mode": "strict", "scheme": "foo"}, "unknown scheme"),
        ({"zero_division": 2}, "zero_division must be"),
    ],
)
def test_options_of_metrics_are_checked_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EntityMetrics(NAMES, **options)


def test_names_of_metrics_and_their_library_are_checked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (EntityMetrics, WordMetrics):
        with pytest.raises(TypeError, match="label_names must be a list"):
            kind("abc")
    monkeypatch.setitem(sys.modules, "seqeval.metrics", None)
    with pytest.raises(ImportError, match=r"sparse-encoder\[ner\]"):
        EntityMetrics(NAMES)


def test_what_a_class_without_entities_scores_is_chosen() -> None:
    scores, labels = np.eye(4)[None, [0, 0]], np.array([[1, 0]])  # nothing is found
    assert EntityMetrics(NAMES)((scores, labels))["precision"] == 0.0
    assert EntityMetrics(NAMES, zero_division=1)((scores, labels))["precision"] == 1.0


def test_tags_of_words_are_no_entities() -> None:
    with pytest.raises(ValueError, match="prediction 1 must have tags of entities.* got 'NN'; .* word_accuracy"):
        entity_scores([["O"], ["B-X"]], [["O"], ["NN"]])
    with pytest.raises(ValueError, match="label_names must have tags of entities.* got 'NN'.* WordMetrics"):
        EntityMetrics(["O", "NN"])
    with pytest.raises(TypeError, match="reference 0 must be a list of tags, got 'O O'"):
        entity_scores(["O O"], ["O O"])


def test_words_of_tokens_must_be_there() -> None:
    with pytest.raises(ValueError, match="between 0 and 2, got 5"):
        labels_of_words(["O", "B"], [0, 5], num_words=3)
    with pytest.raises(ValueError, match="a label for each token, got 1 and 2"):
        labels_of_words(["O"], [0, 1], num_words=3)
