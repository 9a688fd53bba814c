"""``sparse-encoder ner`` on words that become several tokens, on tags of all kinds, and on awkward texts."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tagged_sentences import tagged_sentences
from token_classification_helpers import write_encoder

from sparse_encoder.cli.main import main
from sparse_encoder.token_classification import (
    TokenClassificationModel,
    convert_tags,
    entity_scores,
    tags_of_spans,
    write_conll,
)
from sparse_encoder.token_classification.spans import Span

QUICK = ("--epochs", 1, "--batch-size", 8, "--learning-rate", 1e-2)
WORDS, TAGS = tagged_sentences(80, seed=1, part=0)
TEST_WORDS, TEST_TAGS = tagged_sentences(40, seed=2, part=0)


def ner(*arguments: object) -> int:
    return main(["ner", *map(str, arguments)])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder whose words are several tokens, mostly."""
    folder = tmp_path_factory.mktemp("ner_tags")
    write_encoder(folder / "encoder", WORDS, vocab_size=90, max_positions=160)
    write_conll(folder / "test", TEST_WORDS, TEST_TAGS)
    return folder


@pytest.fixture(scope="module")
def trained(place: Path) -> Callable[..., Path]:
    """Train on the sentences with some tags, and return the folder of the tagger."""

    def run(name: str, tags: list[list[str]], *options: object) -> Path:
        write_conll(place / name, WORDS, tags)
        with pytest.warns(UserWarning, match="missing: classifier"):
            output = place / f"{name}-out"
            assert ner("train", place / name, "--model", place / "encoder", "--output", output, *QUICK, *options) == 0
        return output / "model"

    return run


def test_what_is_predicted_scores_what_is_evaluated(
    trained: Callable[..., Path], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = trained("entities", TAGS, "--epochs", 5)
    assert ner("evaluate", model, place / "test", "--output", place / "scores.json") == 0
    wanted = json.loads((place / "scores.json").read_text())["scores"]["overall_f1"]
    (place / "texts").write_text("\n".join(" ".join(row) for row in TEST_WORDS))
    capsys.readouterr()
    assert ner("predict", model, place / "texts") == 0
    predicted = []
    for line in capsys.readouterr().out.splitlines():
        row = json.loads(line)
        spans = [Span(each["start"], each["end"], each["entity_group"]) for each in row["entities"]]
        words, tags = tags_of_spans(row["text"], spans)
        predicted.append(tags)
        assert words == row["text"].split()
    assert entity_scores(TEST_TAGS, predicted)["overall_f1"] == pytest.approx(wanted)
    assert wanted > 0.3


@pytest.mark.parametrize("scheme", ["IOB1", "IOBES", "BILOU"])
def test_tags_of_all_schemes_are_learnt_as_one(scheme: str, trained: Callable[..., Path], place: Path) -> None:
    model = trained(scheme, [convert_tags(row, scheme) for row in TAGS])
    kinds = ("LOC", "ORG", "PER")
    labels = TokenClassificationModel.from_pretrained(model).label2id
    assert set(labels) == {"O", *(f"{prefix}-{kind}" for prefix in "BI" for kind in kinds)}
    write_conll(place / f"{scheme}-test", TEST_WORDS, [convert_tags(row, scheme) for row in TEST_TAGS])
    scores = []
    for file in ("test", f"{scheme}-test"):
        assert ner("evaluate", model, place / file, "--output", place / "scores.json") == 0
        scores.append(json.loads((place / "scores.json").read_text())["scores"])
    assert scores[0] == scores[1]


def test_one_wrong_tag_is_named_and_may_be_read_leniently(
    trained: Callable[..., Path], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = next(number for number, tags in enumerate(TAGS) if tags[0] == "O")
    wrong = [[("I-LOC" if number == row and not word else tag) for word, tag in enumerate(tags)]
             for number, tags in enumerate(TAGS)]  # fmt: skip
    write_conll(place / "stray", WORDS, wrong)
    assert ner("train", place / "stray", "--model", place / "encoder", "--output", place / "stray-out") == 2
    told = capsys.readouterr().err
    assert f"sentence {row}, word 0: 'I-LOC' needs" in told
    assert "--tags lenient" in told
    model = trained("lenient", wrong, "--tags", "lenient")
    assert "I-LOC" in TokenClassificationModel.from_pretrained(model).label2id
    model = trained("words", wrong, "--tags", "words")
    assert set(json.loads((model.parent / "scores.json").read_text())) == {"overall_accuracy"}


def test_parts_of_speech_are_counted_by_words(
    trained: Callable[..., Path], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def parts(sentences: list[list[str]]) -> list[list[str]]:
        return [["NNP" if word[0].isupper() else "VB" for word in row] for row in sentences]

    model = trained("parts", parts(WORDS))
    assert set(TokenClassificationModel.from_pretrained(model).label2id) == {"NNP", "VB"}
    write_conll(place / "parts-test", TEST_WORDS, parts(TEST_WORDS))
    capsys.readouterr()
    assert ner("evaluate", model, place / "parts-test", "--output", place / "scores.json") == 0
    scores = json.loads((place / "scores.json").read_text())["scores"]
    assert set(scores) == {"overall_accuracy"}
    assert scores["overall_accuracy"] > 0.9
    told = capsys.readouterr().out
    assert f"words right: {scores['overall_accuracy']:.3f}" in told
    assert "|" not in told
    assert ner("evaluate", model, place / "parts-test", "--mode", "strict") == 2
    assert "--mode and --scheme are for tags of entities" in capsys.readouterr().err
    options = ["--evaluation", place / "test", "--model", place / "encoder", "--output", place / "x"]
    assert ner("train", place / "parts", *options) == 2
    assert "has tags of entities and" in capsys.readouterr().err


def test_awkward_texts(
    trained: Callable[..., Path],
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = trained("plain", TAGS)
    (place / "mark").write_text("\ufeffBerlin\n\ufeffx\n", encoding="utf-8")
    capsys.readouterr()
    assert ner("predict", model, place / "mark") == 0
    assert [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()] == ["Berlin", "\ufeffx"]
    assert ner("predict", model, place) == 2
    assert "directory" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.StringIO("\ufeffIt rained all day in Berlin .\n"))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert ner("predict", model, "--strategy", "none") == 0
    told = capsys.readouterr().out
    assert "\ufeff" not in told
    assert not any(f"\x1b[2m {kind}\x1b" in told for kind in ("LOC", "PER", "ORG"))  # tokens have tags, not types
