"""Sparse encoders of every family in sentence-transformers: saved here and loaded there, and the reverse."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from backbone_helpers import TINY_CONFIGS, VARIANTS
from model_helpers import VOCABULARY, mixed_texts, write_masked_language_model

from sparse_encoder import SparseEncoder

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    peer = pytest.importorskip("sentence_transformers")

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

NAMES = [*TINY_CONFIGS, *(name for name in VARIANTS if "gte" in name or "new" in name or "nomic" in name)]
TEXTS = [*mixed_texts(7), "", "rain"]


@pytest.mark.parametrize("name", NAMES)
def test_vectors_are_the_same_there_and_back(name: str, tmp_path: Path) -> None:
    padding = 1 if "mpnet" in name else 0  # MPNet counts places from it; the tokenizer here pads with 0
    special = {"pad_token_id": padding, "bos_token_id": None, "eos_token_id": None}
    config: dict[str, Any] = {**{**TINY_CONFIGS, **VARIANTS}[name], **special, "vocab_size": len(VOCABULARY)}
    config |= {"max_position_embeddings": 26, "initializer_range": 0.3}
    ours = SparseEncoder(str(write_masked_language_model(tmp_path / "plain", config=config)), device="cpu")
    expected = ours.encode(TEXTS).to_dense()
    assert (expected > 0).any(dim=1).all()
    ours.save_pretrained(str(tmp_path / "ours"))

    theirs = peer.SparseEncoder(str(tmp_path / "ours"), device="cpu")
    got = theirs.encode(TEXTS, convert_to_sparse_tensor=False)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)

    theirs.save_pretrained(str(tmp_path / "theirs"))
    back = SparseEncoder(str(tmp_path / "theirs"), device="cpu")
    assert torch.equal(back.encode(TEXTS).to_dense(), expected)
