"""Every example runs, on a tiny model, and does what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from example_helpers import example
from token_classification_helpers import word_pieces

from sparse_encoder import SparseEncoder
from sparse_encoder.backbone import MaskedLanguageModel

DOCUMENTS = [
    "The inverted index maps every term to the documents that contain it.",
    "A transformer turns tokens into hidden states.",
    "A word is weighed by its frequency and its rarity.",
    "The red planet is called Mars.",
]
QUERIES = ["what does an inverted index map?", "what are hidden states?", "how is a word weighed?", "what is red?"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    pieces = word_pieces([re.findall(r"\w+|\?|\.", text.lower()) for text in DOCUMENTS + QUERIES], vocab_size=150)
    config = {
        "model_type": "bert",
        "architectures": ["BertForMaskedLM"],
        "vocab_size": len(pieces),
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
    }
    torch.manual_seed(0)
    MaskedLanguageModel.from_config(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    return folder


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    file = tmp_path / "corpus.txt"
    file.write_text("\n".join(DOCUMENTS), encoding="utf-8")
    return file


def test_training_saves_a_model_that_loads(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"query": query, "document": document} for query, document in zip(QUERIES, DOCUMENTS, strict=True)] * 4
    pairs.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    output = tmp_path / "trained"
    command = [str(pairs), "--model", str(checkpoint), "--output", str(output), "--held-out", "4", "--batch-size", "4"]
    example("train_splade").main(command)
    assert "held-out_dot_ndcg@10" in capsys.readouterr().out
    start, trained = SparseEncoder(str(checkpoint)), SparseEncoder(str(output / "model"))
    query = QUERIES[0]
    assert not (start.encode_query(query).to_dense() == trained.encode_query(query).to_dense()).all()
    assert (output / "checkpoints").is_dir()


def test_search_finds_the_line_by_bm25(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example("search").main([str(corpus), "--query", "which planet is red", "--top-k", "1"])
    assert "4: The red planet is called Mars." in capsys.readouterr().out


def test_search_prints_as_many_lines_as_asked_for_with_a_model(
    checkpoint: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example("search").main([str(corpus), "--model", str(checkpoint), "--query", "a", "--query", "b", "--top-k", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith("  ")] == ["a", "b"]
    assert len(lines) == 6


def test_an_inference_free_query_has_only_its_own_words(checkpoint: Path, corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "inference-free"
    example("inference_free").main([str(corpus), "--model", str(checkpoint), "--output", str(output)])
    model = SparseEncoder(str(output))
    words = {token for token, _ in model.decode(model.encode_query("the red planet"))}
    assert words == set(
        model.tokenizer.convert_ids_to_tokens(
            model.tokenizer.encode_batch(["the red planet"], add_special_tokens=False).input_ids[0]
        )
    )


def test_several_datasets_are_trained_on(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = []
    for name, count in (("titles", 6), ("questions", 3)):
        files.append(tmp_path / f"{name}.jsonl")
        rows = zip(QUERIES * count, DOCUMENTS * count, strict=True)
        files[-1].write_text("\n".join(json.dumps({"query": q, "document": d}) for q, d in rows), encoding="utf-8")
    output = tmp_path / "several"
    example("train_several_datasets").main(
        [*map(str, files), "--model", str(checkpoint), "--output", str(output), "--batch-size", "3"]
    )
    printed = capsys.readouterr().out
    assert "eval_titles_loss" in printed and "eval_questions_loss" in printed
    assert SparseEncoder(str(output / "model")).encode(DOCUMENTS).shape[0] == len(DOCUMENTS)


def test_a_language_model_is_adapted(
    checkpoint: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus.write_text("\n".join(DOCUMENTS * 10), encoding="utf-8")
    options = ["--epochs", "12", "--learning-rate", "1e-2", "--output", str(tmp_path / "adapted")]
    example("adapt_language_model").main([str(corpus), "--model", str(checkpoint), *options])
    told = [line for line in capsys.readouterr().out.splitlines() if line.endswith("of the blanks right")]
    shares = [float(line.split(": ")[1].split("%")[0]) for line in told]
    assert len(shares) == 12 and shares[0] + 10 < shares[-1] <= 100
    assert SparseEncoder(str(tmp_path / "adapted" / "model")).encode(DOCUMENTS).shape[0] == len(DOCUMENTS)


def test_a_story_learnt_by_heart_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    module = example("tell_a_story")
    module.main(["--prompt", "Once upon a time, a small lamp", "--max-new-tokens", "40"])
    told = capsys.readouterr().out.strip()
    assert module.STORY.startswith(told) and len(told) > 80


def test_an_exported_model_finds_what_its_torch_model_finds(
    checkpoint: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    queries = ["--query", "which planet is red", "--query", "hidden states"]
    example("search").main([str(corpus), "--model", str(checkpoint), *queries])
    expected = capsys.readouterr().out
    served = tmp_path / "served"
    example("export_and_serve").main([str(corpus), "--model", str(checkpoint), "--output", str(served), *queries])
    assert capsys.readouterr().out == expected
    assert (served / "onnx" / "model.onnx").is_file()
