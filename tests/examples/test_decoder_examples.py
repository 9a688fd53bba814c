"""The example of a sparse encoder on a decoder runs offline: its tiny Llama learns, is saved and loaded."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from example_helpers import example

from sparse_encoder import SparseEncoder

PAIRS = [
    ("what does an inverted index map?", "The inverted index maps every term to the documents that contain it."),
    ("what are hidden states?", "A transformer turns tokens into hidden states."),
    ("how is a word weighed?", "A word is weighed by its frequency and its rarity."),
    ("what is red?", "The red planet is called Mars."),
]


@pytest.mark.parametrize("merge", [False, True])
def test_a_decoder_becomes_splade(merge: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs, output = tmp_path / "pairs.jsonl", tmp_path / "trained"
    rows = [{"query": query, "document": document} for query, document in PAIRS] * 4
    pairs.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    command = [str(pairs), "--output", str(output), "--steps", "20", "--batch-size", "4", "--learning-rate", "1e-2"]
    example("train_decoder_splade").main(command + (["--merge"] if merge else []))
    told = re.search(r"loss: ([\d.]+) -> ([\d.]+)", capsys.readouterr().out)
    assert told is not None and float(told[2]) < 0.7 * float(told[1])
    base = None if merge else {"base_model": str(output / "tiny")}
    model = SparseEncoder(str(output / "model"), model_kwargs=base)
    assert model[0].auto_model.has_adapters != merge
    assert model[0].bidirectional and not model.tokenizer.add_bos_token
    queries, documents = (model.encode(list(texts)) for texts in zip(*PAIRS, strict=True))
    assert model.similarity(queries, documents).argmax(dim=1).tolist() == [0, 1, 2, 3]
