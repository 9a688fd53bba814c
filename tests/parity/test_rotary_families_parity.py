"""GTE and Nomic BERT against transformers over random options: states, logits, gradients, files both ways."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from backbone_helpers import randomise
from torch import Tensor

from sparse_encoder.backbone import MaskedLanguageModel

transformers = pytest.importorskip("transformers")

FAMILIES = ("gte", "new", "nomic_bert", "older nomic_bert")


def draw_config(family: str, seed: int) -> dict[str, Any]:
    """Draw the options of a tiny model."""
    draw = random.Random(f"{family} {seed}")
    heads, layers, vocabulary = draw.choice([1, 2, 3]), draw.choice([1, 2, 4]), draw.choice([17, 23, 40])
    width = heads * draw.choice([2, 4, 10])
    theta = draw.choice([30.0, 1000.0, 160_000.0])
    shared = {"vocab_size": vocabulary, "tie_word_embeddings": draw.random() < 0.5, "pad_token_id": draw.choice([0, 1])}
    if family == "older nomic_bert":
        biases = {"qkv_proj_bias": False, "mlp_fc1_bias": False, "mlp_fc2_bias": False}
        sizes = {
            "n_embd": width,
            "n_layer": layers,
            "n_head": heads,
            "n_inner": draw.choice([20, 300]),
            "n_positions": 31,
        }
        gate = draw.choice(["swiglu", "geglu"])
        rotary = {"rotary_emb_base": theta, "rotary_emb_fraction": 1.0}
        types = {"type_vocab_size": draw.choice([1, 2]), "activation_function": gate}
        return {"model_type": "nomic_bert", **shared, **biases, **sizes, **rotary, **types}
    config = {
        **shared,
        "model_type": family,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": draw.choice([5, 20]),
        "max_position_embeddings": 31,
        "layer_norm_eps": draw.choice([1e-12, 1e-5]),
        "hidden_act": "gelu" if family == "new" else draw.choice(["gelu", "relu", "silu", "gelu_new"]),
        "type_vocab_size": draw.choice([1, 2] if family == "nomic_bert" else [0, 1, 3]),
    }
    if family == "new":
        scaling = draw.choice([None, {"type": "ntk", "factor": 2.0}, {"rope_type": "ntk", "factor": 8}])
        return {**config, "rope_theta": theta, "rope_scaling": scaling}
    linear = {"rope_type": "linear", "rope_theta": theta, "factor": draw.choice([1.0, 1.5, 4.0])}
    return {**config, "rope_parameters": draw.choice([{"rope_type": "default", "rope_theta": theta}, linear])}


def draw_batch(model: MaskedLanguageModel, seed: int) -> dict[str, Tensor]:
    """Draw texts of several lengths, padded on either side."""
    generator = torch.Generator().manual_seed(seed)
    config, lengths = model.config, torch.randint(1, 32, (4, 1), generator=generator)
    places = torch.arange(int(lengths.max()))
    mask = (places < lengths).long()
    ids = torch.randint(2, config.vocab_size, mask.shape, generator=generator)
    features = {"input_ids": ids.masked_fill(mask == 0, config.pad_token_id or 0), "attention_mask": mask}
    if config.num_token_types:
        features["token_type_ids"] = torch.randint(0, config.num_token_types, mask.shape, generator=generator)
    return {key: value.flip(1) for key, value in features.items()} if seed % 2 else features


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("family", FAMILIES)
def test_random_options(family: str, seed: int, tmp_path: Path) -> None:
    hf_config = draw_config(family, seed)
    ours = MaskedLanguageModel.from_config(hf_config, dtype="float64").eval()
    randomise(ours)
    ours.save_pretrained(tmp_path / "ours")
    peer, info = transformers.AutoModelForMaskedLM.from_pretrained(
        tmp_path / "ours", dtype="float64", output_loading_info=True
    )
    assert not any(info.values()), info
    features = draw_batch(ours, seed)
    seen = features["attention_mask"].bool()
    states = peer.base_model(**features)[0]
    torch.testing.assert_close(ours.backbone(**features)[seen], states[seen], rtol=0, atol=1e-10)
    expected, got = peer(**features).logits[seen], ours(**features)[seen]
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)
    pull = torch.randn(got.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    (expected * pull).sum().backward()
    (got * pull).sum().backward()
    words = peer.get_input_embeddings().weight.grad
    accuracy = 1e-10 * max(1.0, words.abs().max().item())
    torch.testing.assert_close(ours.backbone.embeddings.word.weight.grad, words, rtol=0, atol=accuracy)
    peer.save_pretrained(tmp_path / "theirs")
    back = MaskedLanguageModel.from_pretrained(tmp_path / "theirs")
    assert back.config == ours.config
    assert torch.equal(back(**features), ours(**features))
