from __future__ import annotations

import pytest
import torch
from backbone_helpers import TINY_CONFIGS, V

from sparse_encoder.backbone import EncoderModel, MaskedLanguageModel


def test_the_bias_of_the_head_is_given_and_taken() -> None:
    model = MaskedLanguageModel.from_config(TINY_CONFIGS["bert"])
    assert model.get_lm_head() is model.head
    found = model.get_bias()
    assert found is not None and list(found) == ["head.bias"] and found["head.bias"] is model.head.bias
    model.set_bias({"head.bias": torch.arange(V)})
    assert torch.equal(model.head.bias, torch.arange(V, dtype=torch.float32))
    assert model.head.bias.requires_grad
    with pytest.raises(ValueError, match=r"head.bias must be of shape \(17,\), got \(18,\); resize_token_embeddings"):
        model.set_bias({"head.bias": torch.zeros(V + 1)})
    with pytest.raises(ValueError, match=r"set_bias takes \['head.bias'\], got \['bias'\]"):
        model.set_bias({"bias": torch.zeros(V)})


def test_a_model_without_a_head_has_no_bias() -> None:
    model = EncoderModel.from_config(TINY_CONFIGS["bert"])
    assert model.get_lm_head() is None and model.get_bias() is None
    with pytest.raises(ValueError, match=r"set_bias takes \[\], got \['head.bias'\]"):
        model.set_bias({"head.bias": torch.zeros(V)})
