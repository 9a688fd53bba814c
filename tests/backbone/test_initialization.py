"""Random weights: their spread, and what starts at zero or one."""

from __future__ import annotations

from math import cos, sin, sqrt

import pytest
import torch
from backbone_helpers import TINY_CONFIGS
from torch import nn

from sparse_encoder.backbone import MaskedLanguageModel

LARGE = {"vocab_size": 500, "initializer_range": 0.1}


@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_biases_are_zero_norms_do_nothing_and_padding_is_zero(name: str) -> None:
    model = MaskedLanguageModel.from_config(TINY_CONFIGS[name])
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.LayerNorm)) and module.bias is not None:
            assert not module.bias.any()
        if isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all()
    assert model.head.bias is not None and not model.head.bias.any()
    words = model.backbone.embeddings.word
    assert words.padding_idx is not None
    assert not words.weight[words.padding_idx].any()
    assert words.weight[words.padding_idx + 1].all()
    assert not any(parameter.is_meta for parameter in model.parameters())
    assert model.load_report is None


def test_matrices_and_tables_are_normal() -> None:
    torch.manual_seed(0)
    model = MaskedLanguageModel.from_config({**TINY_CONFIGS["bert"], **LARGE})
    weights = torch.cat([weight.flatten() for weight in model.parameters() if weight.ndim == 2])
    assert weights.std().item() == pytest.approx(0.1, rel=0.05)
    assert weights.abs().max() > 0.3


def test_modernbert_cuts_off_and_writes_less_into_the_residual_stream() -> None:
    torch.manual_seed(0)
    hf_config = {**TINY_CONFIGS["modernbert"], **LARGE, "hidden_size": 64, "intermediate_size": 96}
    model = MaskedLanguageModel.from_config({**hf_config, "tie_word_embeddings": False})
    layer, smaller = model.backbone.layers[0], 0.1 / sqrt(2 * 5)
    # Cut off at two deviations, a normal keeps 0.774 of its variance.
    for weight, deviation in (
        (model.backbone.embeddings.word.weight[1:], 0.1),
        (layer.attention.qkv.weight, 0.1),
        (layer.feed_forward.up.weight, 0.1),
        (layer.attention.output.weight, smaller),
        (layer.feed_forward.down.weight, smaller),
        (model.head.dense.weight, smaller),
        (model.head.weight, smaller),
    ):
        assert weight.abs().max() <= 2 * deviation
        assert weight.std().item() == pytest.approx(sqrt(0.774) * deviation, rel=0.05)


def test_a_position_table_may_start_with_waves() -> None:
    table = MaskedLanguageModel.from_config({**TINY_CONFIGS["distilbert"], "sinusoidal_pos_embds": True}).backbone
    assert table.embeddings.position is not None
    weight = table.embeddings.position.weight
    for place, pair in ((0, 0), (1, 0), (7, 4), (25, 5)):
        angle = place / 10_000 ** (2 * pair / 12)
        assert weight[place, 2 * pair].item() == pytest.approx(sin(angle), abs=1e-6)
        assert weight[place, 2 * pair + 1].item() == pytest.approx(cos(angle), abs=1e-6)


def test_the_global_seed_decides() -> None:
    models = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        models.append(MaskedLanguageModel.from_config(TINY_CONFIGS["albert"]).state_dict())
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])
    assert not torch.equal(models[0]["head.weight"], models[2]["head.weight"])
