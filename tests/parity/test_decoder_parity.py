"""Decoders against transformers in float64: logits, states, gradients, caches, and files both ways.

transformers computes norms by the root mean square in float32 whatever the weights are; its formula is evaluated in
float64 here, so that a difference can be told from rounding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from backbone_helpers import randomise
from decoder_helpers import BIDIRECTIONAL, DECODER_CONFIGS, DECODER_VARIANTS, places, prompts
from peer_norms import make_norms_exact

from sparse_encoder.backbone import EncoderModel, MaskedLanguageModel
from sparse_encoder.backbone.adapters.names import file_names, is_transposed
from sparse_encoder.generation import CausalLanguageModel, DynamicCache

transformers = pytest.importorskip("transformers")

CAUSAL = {**DECODER_CONFIGS, **DECODER_VARIANTS}
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(autouse=True)
def exact_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    make_norms_exact(monkeypatch, "llama", "mistral", "qwen2", "qwen3", "eurobert")


def peer_of(folder: Path, auto: str = "AutoModelForCausalLM") -> Any:  # noqa: ANN401
    """Load what we saved, with no name left over on either side."""
    peer, info = getattr(transformers, auto).from_pretrained(
        folder, output_loading_info=True, attn_implementation="sdpa"
    )
    assert not any(info.values()), info
    return peer.double().eval()


def ours_of(config: dict[str, Any], folder: Path) -> CausalLanguageModel:
    model = CausalLanguageModel.from_config(config)
    randomise(model)
    model.save_pretrained(folder)
    return model.double().eval()


@pytest.mark.parametrize("name", CAUSAL)
def test_logits_states_and_caches_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    ours, features = ours_of(CAUSAL[name], tmp_path), prompts("left")
    peer, where = peer_of(tmp_path), places(features["attention_mask"])
    seen = features["attention_mask"].bool()
    with torch.no_grad():
        expected = peer(**features, position_ids=where, output_hidden_states=True)
        got = ours(**features, position_ids=where, output_hidden_states=True)
        torch.testing.assert_close(got.logits[seen], expected.logits[seen], **CLOSE)
        assert len(got.hidden_states) == len(expected.hidden_states)
        for state, theirs in zip(got.hidden_states, expected.hidden_states, strict=True):
            torch.testing.assert_close(state[seen], theirs[seen], **CLOSE)
        for cache in (DynamicCache(), ours.new_cache("static", 15)):
            pieces = [
                ours(
                    features["input_ids"][:, start:end],
                    features["attention_mask"][:, :end],
                    where[:, start:end],
                    cache,
                ).logits
                for start, end in ((0, 5), (5, 8), (8, 9), (9, 10), (10, 11))
            ]
            torch.testing.assert_close(torch.cat(pieces, dim=1)[seen], expected.logits[seen], **CLOSE)
        unmasked = {"input_ids": prompts("right")["input_ids"]}
        torch.testing.assert_close(ours(**unmasked).logits, peer(**unmasked).logits, **CLOSE)


@pytest.mark.parametrize("name", DECODER_CONFIGS)
def test_hidden_places_behind_a_token_see_what_transformers_shows_them(name: str, tmp_path: Path) -> None:
    ours, features = ours_of(CAUSAL[name], tmp_path), prompts("right")
    features["attention_mask"][0, 2:4] = 0
    peer = peer_of(tmp_path)
    with torch.no_grad():
        got, expected = ours(**features).logits, peer(**features).logits
    torch.testing.assert_close(got[0], expected[0], **CLOSE)
    if name != "mistral":  # a window may show nothing at all
        torch.testing.assert_close(got, expected, **CLOSE)
    blank = ours(**{**features, "attention_mask": torch.zeros_like(features["attention_mask"])}).logits
    assert blank.isfinite().all()


@pytest.mark.parametrize("name", DECODER_CONFIGS)
def test_losses_and_gradients_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    ours, features = ours_of(CAUSAL[name], tmp_path), prompts("right")
    peer = peer_of(tmp_path)
    labels = features["input_ids"].masked_fill(features["attention_mask"] == 0, -100)
    loss, expected = ours(**features, labels=labels).loss, peer(**features, labels=labels).loss
    assert loss is not None
    torch.testing.assert_close(loss, expected.double(), rtol=1e-6, atol=1e-6)  # theirs is computed in float32
    ours(**features).logits[features["attention_mask"].bool()].square().sum().backward()
    peer.zero_grad()
    peer(**features).logits[features["attention_mask"].bool()].square().sum().backward()
    theirs = {key: each.grad for key, each in peer.named_parameters()}
    names = file_names(ours)
    for name_of_ours, parameter in ours.named_parameters():
        grad = theirs[names[name_of_ours]]
        expected_grad = grad.T if is_transposed(ours, name_of_ours) else grad
        torch.testing.assert_close(parameter.grad, expected_grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", BIDIRECTIONAL)
def test_a_decoder_may_look_both_ways(name: str, side: str, tmp_path: Path) -> None:
    ours, features = MaskedLanguageModel.from_config(BIDIRECTIONAL[name]), prompts(side)
    randomise(ours)
    ours.save_pretrained(tmp_path)
    peer, ours = peer_of(tmp_path), ours.double().eval()
    seen, where = features["attention_mask"].bool(), places(features["attention_mask"])
    with torch.no_grad():
        expected = peer(**features, position_ids=where).logits
        torch.testing.assert_close(ours(**features, position_ids=where)[seen], expected[seen], **CLOSE)


def test_eurobert_is_an_encoder_of_the_same_parts(tmp_path: Path) -> None:
    ours = MaskedLanguageModel.from_config({**DECODER_CONFIGS["llama"], "model_type": "eurobert", "pad_token_id": 0})
    randomise(ours)
    ours.save_pretrained(tmp_path)
    peer, ours, features = peer_of(tmp_path, "AutoModelForMaskedLM"), ours.double().eval(), prompts("right")
    seen = features["attention_mask"].bool()
    with torch.no_grad():
        torch.testing.assert_close(ours(**features)[seen], peer(**features).logits[seen], **CLOSE)


@pytest.mark.parametrize("name", DECODER_CONFIGS)
@pytest.mark.parametrize("with_head", [True, False])
def test_files_of_transformers_load_with_no_name_left_over(name: str, with_head: bool, tmp_path: Path) -> None:
    values = {key: value for key, value in CAUSAL[name].items() if key != "model_type"}
    config = transformers.AutoConfig.for_model(name, **values)
    auto = transformers.AutoModelForCausalLM if with_head else transformers.AutoModel
    torch.manual_seed(3)
    peer = auto.from_config(config).double().eval()
    peer.save_pretrained(tmp_path, max_shard_size="4KB")
    features = {"input_ids": prompts()["input_ids"]}
    if with_head:
        ours, info = CausalLanguageModel.from_pretrained(tmp_path, output_loading_info=True)
        assert not any(info.values()), info
        with torch.no_grad():
            torch.testing.assert_close(ours(**features).logits, peer(**features).logits, **CLOSE)
        assert ours.architecture == type(peer).__name__
    else:
        encoder = EncoderModel.from_pretrained(tmp_path)
        with torch.no_grad():
            torch.testing.assert_close(encoder(**features), peer(**features).last_hidden_state, **CLOSE)
        assert encoder.architecture == type(peer).__name__


@pytest.mark.parametrize("name", DECODER_CONFIGS)
def test_attention_probabilities_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    ours, ids = ours_of(CAUSAL[name], tmp_path), prompts()["input_ids"]
    peer = peer_of(tmp_path)
    peer.set_attn_implementation("eager")
    with torch.no_grad():
        got, expected = (model(ids, output_attentions=True).attentions for model in (ours, peer))
    assert len(got) == len(expected)
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)  # its softmax is of float32
