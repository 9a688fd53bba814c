"""Vocabularies resized here and in transformers: one shape, tie, config, the same kept rows, new ones near the mean."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from backbone_helpers import TINY_CONFIGS, VARIANTS, V, batch, newest_spelling, randomise

from sparse_encoder.backbone import MaskedLanguageModel
from sparse_encoder.backbone.families import read_config
from sparse_encoder.backbone.resize import rows_near_the_mean

transformers = pytest.importorskip("transformers")

CONFIGS = {**TINY_CONFIGS, "untied bert": VARIANTS["untied bert"]}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def pair(name: str, folder: Path) -> tuple[MaskedLanguageModel, Any]:
    """Return one model twice, ours and the peer's."""
    config = transformers.AutoConfig.for_model(**newest_spelling(CONFIGS[name]))
    peer = transformers.AutoModelForMaskedLM.from_config(config).eval()
    randomise(peer)
    peer.save_pretrained(folder)
    return MaskedLanguageModel.from_pretrained(folder), peer


@pytest.mark.parametrize(("asked", "multiple"), [(V + 4, None), (V + 1, 8), (None, 8), (V - 3, None)])
@pytest.mark.parametrize("name", CONFIGS)
def test_resized_models_are_one_model(name: str, asked: int | None, multiple: int | None, tmp_path: Path) -> None:
    ours, peer = pair(name, tmp_path / "start")
    found = ours.resize_token_embeddings(asked, multiple)
    expected = peer.resize_token_embeddings(asked, multiple)
    assert found.weight.shape == expected.weight.shape
    assert found.num_embeddings == expected.num_embeddings
    assert found.padding_idx == expected.padding_idx or name.startswith("deberta")
    assert ours.config.vocab_size == ours.hf_config["vocab_size"] == peer.config.vocab_size
    their_head = peer.get_output_embeddings()
    assert ours.head.weight.shape == their_head.weight.shape
    assert (ours.head.weight is found.weight) == (their_head.weight is expected.weight)
    kept = min(V, len(found.weight))
    assert torch.equal(found.weight[:kept], expected.weight[:kept])
    assert torch.equal(ours.head.weight[:kept], their_head.weight[:kept])
    torch.testing.assert_close(found.weight, expected.weight, rtol=0, atol=1e-3)  # both near the mean
    torch.testing.assert_close(ours.head.weight, their_head.weight, rtol=0, atol=1e-3)
    if ours.head.bias is not None and their_head.bias is not None:
        same = kept if ours.config.tie_word_embeddings else None  # tied decoders get zeros in the peer, not the mean
        assert ours.head.bias.shape == their_head.bias.shape
        torch.testing.assert_close(ours.head.bias[:same], their_head.bias[:same])
    ours.save_pretrained(tmp_path / "ours")
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "ours").eval()
    config = read_config(CONFIGS[name])
    features = batch(config.num_token_types, pad=config.pad_token_id or 0)
    features["input_ids"] %= kept
    real = features["attention_mask"].bool()
    with torch.no_grad():
        got, wanted = ours(**features)[real], theirs(**features).logits[real]
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_random_numbers_are_the_peers_too() -> None:
    table = torch.randn(300, 6)
    words = torch.nn.Embedding.from_pretrained(table.clone())
    config = transformers.AutoConfig.for_model(**{**TINY_CONFIGS["bert"], "vocab_size": 300, "hidden_size": 6})
    peer = transformers.AutoModelForMaskedLM.from_config(config)
    peer.set_input_embeddings(words)
    torch.manual_seed(4)
    peer.tie_weights()
    expected = peer.resize_token_embeddings(305).weight
    torch.manual_seed(4)
    found = rows_near_the_mean(table, 5)
    assert (expected[300:] - table.mean(dim=0)).abs().max() > 0
    torch.testing.assert_close(found, expected[300:].detach(), rtol=0, atol=1e-3)
    deviations = [(rows - table.mean(dim=0)).std() for rows in (found, expected[300:])]
    assert 0.5 < deviations[0] / deviations[1] < 2
