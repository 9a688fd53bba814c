"""``sparse-encoder ner``: from tagged sentences to a tagger, its texts and its scores."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from tagged_sentences import tagged_sentences
from token_classification_helpers import write_encoder

from sparse_encoder.cli.main import main
from sparse_encoder.cli.ner_tables import Painter, score_table
from sparse_encoder.token_classification import TokenClassificationModel, write_conll


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences in two formats, an encoder, and a tagger trained by the command."""
    folder = tmp_path_factory.mktemp("ner")
    words, tags = tagged_sentences(160, seed=1, part=0)
    write_conll(folder / "train.txt", words, tags)
    write_conll(folder / "test.txt", *tagged_sentences(30, seed=2, part=0))
    write_encoder(folder / "encoder", words, vocab_size=400)
    with pytest.warns(UserWarning, match="missing: classifier"):
        assert (
            ner("train", folder / "train.txt", "--model", folder / "encoder", "--output", folder / "out", *QUICK) == 0
        )
    return folder


QUICK = ("--epochs", 6, "--batch-size", 8, "--learning-rate", 1e-2)


def ner(*arguments: object) -> int:
    return main(["ner", *map(str, arguments)])


def test_training_saves_a_tagger_and_its_scores(place: Path) -> None:
    scores = json.loads((place / "out" / "scores.json").read_text())
    assert scores["overall_f1"] > 0.8
    assert {"LOC", "ORG", "PER"} <= set(scores)
    model = TokenClassificationModel.from_pretrained(place / "out" / "model")
    assert model.id2label[0] == "O"
    assert set(model.label2id) == {"O", *(f"{prefix}-{kind}" for prefix in "BI" for kind in ("LOC", "ORG", "PER"))}


def test_a_finished_run_goes_on_from_its_end(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads((place / "out" / "scores.json").read_text())
    with pytest.warns(UserWarning, match="missing: classifier"):
        assert ner("train", place / "train.txt", "--model", place / "encoder", "--output", place / "out", *QUICK) == 0
    assert json.loads((place / "out" / "scores.json").read_text()) == before
    assert "| all |" in capsys.readouterr().out


def test_a_chain_and_spans(place: Path, tmp_path: Path) -> None:
    rows = []
    for words, tags in zip(*tagged_sentences(40, seed=1, part=0), strict=True):
        text, spans = "", []
        for word, tag in zip(words, tags, strict=True):
            start = len(text)
            text += word + " "
            if tag.startswith("B-"):
                spans.append({"start": start, "end": start + len(word), "label": tag[2:]})
            elif tag.startswith("I-"):
                spans[-1]["end"] = start + len(word)
        rows.append(json.dumps({"text": text, "spans": spans}))
    (tmp_path / "spans.jsonl").write_text("\n".join(rows))
    options = ["--epochs", 1, "--crf", "--label-all-tokens", "--max-length", 12, "--evaluation", place / "test.txt"]
    with pytest.warns(UserWarning, match="missing: classifier"):
        assert ner("train", tmp_path / "spans.jsonl", "--model", place / "encoder", "--output", tmp_path, *options) == 0
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["use_crf"] is True


def test_texts_become_json_lines(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "texts").write_text("Ada Lovelace works for Acme Corp in Berlin .\n\nNothing of note happened .\n")
    assert ner("predict", place / "out" / "model", tmp_path / "texts") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["text"] for row in rows][1:] == ["", "Nothing of note happened ."]
    found = [(each["entity_group"], rows[0]["text"][each["start"] : each["end"]]) for each in rows[0]["entities"]]
    assert ("LOC", "Berlin") in found
    assert rows[1]["entities"] == []


def test_a_terminal_gets_colours(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("It rained in Berlin \x1b[31m.\n"))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert ner("predict", place / "out" / "model") == 0
    out = capsys.readouterr().out
    assert "m LOC\x1b[0m" in out
    assert "\x1b[31m" not in out  # what a text says to the terminal is not passed on


def test_a_tagger_is_measured_by_words(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "scores.json"
    options = ["--mode", "strict", "--scheme", "IOB2", "--output", target]
    assert ner("evaluate", place / "out" / "model", place / "test.txt", *options) == 0
    written = json.loads(target.read_text())
    assert written["sentences"] == 30
    assert written["scores"]["overall_f1"] > 0.7
    assert f"| all | {written['scores']['overall_precision']:.3f}" in capsys.readouterr().out


def test_tags_that_the_model_lacks_are_told(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_conll(tmp_path / "other", [["Ada", "sings"]], [["B-ARTIST", "O"]])
    assert ner("evaluate", place / "out" / "model", tmp_path / "other") == 0
    assert "tags that the model does not know: B-ARTIST" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "none.txt", "--model", "x", "--output", "y"], "No such file"),
        (["train", "{place}/train.txt", "--model", "x", "--output", "y", "--held-out", "0"], "leaves one side empty"),
        (["predict", "{place}/none"], "none"),
        (["predict", "{place}/out/model", "none.txt"], "No such file"),
        (["evaluate", "{place}/out/model", "{place}/test.txt", "--output", "{place}/none/x"], "no folder"),
        (["evaluate", "{place}/out/model", "{place}/test.txt", "--scheme", "IOB2"], "scheme needs"),
    ],
)
def test_mistakes_are_told(
    place: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert ner(*(argument.format(place=place) for argument in arguments)) == 2
    assert message in capsys.readouterr().err


def test_tables_and_colours() -> None:
    report = {
        "PER": {"precision": 0.5, "recall": 1.0, "f1": 2 / 3, "number": 2},
        "overall_precision": 0.5,
        "overall_recall": 1.0,
        "overall_f1": 2 / 3,
        "overall_accuracy": 0.9,
    }
    assert score_table(report).splitlines()[2:] == [
        "| PER | 0.500 | 1.000 | 0.667 | 2 |",
        "| all | 0.500 | 1.000 | 0.667 | 2 |",
        "",
        "words right: 0.900",
    ]
    painter = Painter()
    entities = [{"entity_group": "LOC", "start": 3, "end": 8}, {"entity_group": "PER", "start": 4, "end": 6}]
    assert painter.paint("in Paris!", entities) == "in \x1b[30;46mParis\x1b[2m LOC\x1b[0m!"
