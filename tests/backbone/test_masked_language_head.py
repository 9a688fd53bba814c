"""The head by its formula, and whose weight it decodes with."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from backbone_helpers import TINY_CONFIGS, VARIANTS, B, D, T, V, batch, randomise
from torch.nn import functional as F

from sparse_encoder.backbone import MaskedLanguageHead, MaskedLanguageModel
from sparse_encoder.backbone.families import read_config


def test_the_head_by_its_formula() -> None:
    config = read_config(TINY_CONFIGS["electra"])
    head = MaskedLanguageHead(config)
    randomise(head)
    hidden = torch.randn(B, T, D)
    transformed = F.layer_norm(F.gelu(F.linear(hidden, head.dense.weight, head.dense.bias)), (8,), eps=1e-12)
    transformed = transformed * head.norm.weight + head.norm.bias
    torch.testing.assert_close(head.transform(hidden), transformed)
    assert head.transform(hidden).shape == (B, T, 8)
    assert head.weight.shape == (V, 8)
    assert head.bias is not None
    torch.testing.assert_close(head(hidden), transformed @ head.weight.mT + head.bias)


def test_a_head_may_lack_its_biases() -> None:
    config = read_config({**TINY_CONFIGS["modernbert"], "decoder_bias": False})
    head = MaskedLanguageHead(config)
    randomise(head)
    assert head.bias is None and head.dense.bias is None and head.norm.bias is None
    hidden = torch.randn(B, T, D)
    torch.testing.assert_close(head(hidden), head.transform(hidden) @ head.weight.mT)


@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_tied_weights_are_one_parameter_and_stay_so(name: str) -> None:
    model = MaskedLanguageModel.from_config(TINY_CONFIGS[name])
    for same in (model, deepcopy(model), model.double(), model.bfloat16()):
        assert same.head.weight is same.backbone.embeddings.word.weight
    names = [key for key, _ in model.named_parameters()]
    assert "head.weight" not in names and "backbone.embeddings.word.weight" in names


def test_both_uses_of_a_tied_weight_add_up_their_gradients() -> None:
    model = MaskedLanguageModel.from_config(TINY_CONFIGS["bert"]).eval()
    randomise(model)
    features = batch(2, pad=0)
    model(**features).square().sum().backward()
    untied = MaskedLanguageModel.from_config(VARIANTS["untied bert"]).eval()
    untied.load_state_dict(model.state_dict())
    assert untied.head.weight is not untied.backbone.embeddings.word.weight
    untied(**features).square().sum().backward()
    words, decoder, both = (
        weight.grad for weight in (untied.backbone.embeddings.word.weight, untied.head.weight, model.head.weight)
    )
    assert words is not None and decoder is not None and both is not None
    torch.testing.assert_close(both, words + decoder)
    assert decoder.abs().sum() > 0 and words.abs().sum() > 0
