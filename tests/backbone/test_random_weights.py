"""Parameters without values are drawn by the family's rule; those that have some are never touched."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from backbone_helpers import TINY_CONFIGS, VARIANTS, D, V
from torch import Tensor, nn

from sparse_encoder.backbone import EncoderModel, MaskedLanguageModel, TransformerConfig
from sparse_encoder.backbone.initialization import sinusoids

CONFIGS = {**TINY_CONFIGS, **VARIANTS}


def wide(name: str = "bert", **config: Any) -> dict[str, Any]:  # noqa: ANN401
    sizes = {"dim": 96} if name == "distilbert" else {"hidden_size": 96}
    return {**CONFIGS[name], **sizes, "vocab_size": 301, **config}


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def built(kind: type[MaskedLanguageModel] | type[EncoderModel], hf_config: dict[str, Any]) -> Any:  # noqa: ANN401
    """Build a model whose parameters are all 7 and unmarked."""
    made = kind.from_config(hf_config)
    model = kind(made.config, hf_config)
    for parameter in model.parameters():
        nn.init.constant_(parameter, 7.0)
    return model


@pytest.mark.parametrize("name", CONFIGS)
def test_the_same_numbers_as_a_new_model(name: str) -> None:
    torch.manual_seed(5)
    expected = MaskedLanguageModel.from_config(CONFIGS[name])
    model = built(MaskedLanguageModel, CONFIGS[name])
    torch.manual_seed(5)
    model.init_weights()
    for key, value in model.state_dict().items():
        assert torch.equal(value, expected.state_dict()[key]), key


def test_statistics_of_what_is_drawn() -> None:
    model = built(MaskedLanguageModel, wide(pad_token_id=3, initializer_range=0.05))
    model.post_init()
    layer = model.backbone.layers[1]
    for weight in (layer.attention.q.weight, layer.feed_forward.up.weight, model.get_input_embeddings().weight):
        torch.testing.assert_close(weight.std(), torch.tensor(0.05), rtol=0.06, atol=0)
        assert weight.mean().abs() < 3e-3
    assert layer.attention.q.bias.count_nonzero() == model.head.bias.count_nonzero() == 0
    words = model.get_input_embeddings().weight
    assert words[3].count_nonzero() == 0 and words[4].count_nonzero() > 0
    assert torch.equal(layer.attention_norm.weight, torch.ones(96)) and layer.attention_norm.bias.count_nonzero() == 0
    assert model.head.weight is words
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_sines_stay_sines() -> None:
    model = built(EncoderModel, {**CONFIGS["distilbert"], "sinusoidal_pos_embds": True})
    model.init_weights()
    assert torch.equal(model.backbone.embeddings.position.weight, sinusoids(26, D))


def test_what_is_drawn_once_is_not_drawn_again() -> None:
    model = MaskedLanguageModel.from_config(CONFIGS["bert"])
    before = values(model)
    for draw in (model.init_weights, model.initialize_weights, model.post_init):
        draw()
    for module in model.modules():
        assert isinstance(module, nn.Module)
    after = values(model)
    assert all(torch.equal(after[key], before[key]) for key in before)


@pytest.mark.parametrize("copied", [False, True])
def test_loaded_parameters_keep_their_values_also_in_a_copy(copied: bool, tmp_path: Path) -> None:
    MaskedLanguageModel.from_config(CONFIGS["bert"]).save_pretrained(tmp_path)
    model = MaskedLanguageModel.from_pretrained(tmp_path)
    model = deepcopy(model) if copied else model
    model = model.to(torch.float64).to(torch.float32)
    before = values(model)
    model.init_weights()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_only_what_is_not_marked_is_drawn() -> None:
    model = built(MaskedLanguageModel, CONFIGS["untied bert"])
    fresh = {"head.weight", "head.dense.bias", "backbone.layers.1.attention.q.weight"}
    model.mark_initialized(name for name, _ in model.named_parameters() if name not in fresh)
    model.init_weights()
    for name, parameter in model.named_parameters():
        assert bool((parameter == 7.0).all()) == (name not in fresh), name
    assert model.head.dense.bias.count_nonzero() == 0


def test_a_tied_parameter_is_marked_under_either_name() -> None:
    model = built(MaskedLanguageModel, CONFIGS["bert"])
    model.mark_initialized(["head.weight"])
    model.init_weights()
    assert (model.get_input_embeddings().weight == 7.0).all() and (model.head.bias == 0).all()


class Classifier(EncoderModel):
    """A model with a part of its own, and a rule for it that heeds nothing."""

    def __init__(
        self, config: TransformerConfig, hf_config: Mapping[str, Any], *, attn_implementation: str = "sdpa"
    ) -> None:
        super().__init__(config, hf_config, attn_implementation=attn_implementation)
        self.scale = nn.Bilinear(3, 4, 5)

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Bilinear):
            nn.init.constant_(module.weight, 2.0)
            nn.init.constant_(module.bias, 3.0)


def test_a_model_may_have_a_rule_of_its_own() -> None:
    model = Classifier.from_config(CONFIGS["bert"])
    assert (model.scale.weight == 2.0).all() and (model.scale.bias == 3.0).all()


def test_a_rule_that_heeds_no_marks_touches_no_marked_parameter() -> None:
    model = built(Classifier, CONFIGS["bert"])
    model.mark_initialized(["scale.bias"])
    model.init_weights()
    assert (model.scale.weight == 2.0).all() and (model.scale.bias == 7.0).all()


class Outer(EncoderModel):
    """A model with a model inside."""

    def __init__(
        self, config: TransformerConfig, hf_config: Mapping[str, Any], *, attn_implementation: str = "sdpa"
    ) -> None:
        super().__init__(config, hf_config, attn_implementation=attn_implementation)
        inner = read(wide(initializer_range=0.5))
        self.inner = EncoderModel(inner, wide(initializer_range=0.5))


def read(hf_config: dict[str, Any]) -> Any:  # noqa: ANN401
    return EncoderModel.from_config(hf_config).config


def test_a_model_inside_follows_its_own_rule_and_keeps_the_marks_of_the_outer_one() -> None:
    model = built(Outer, wide(initializer_range=0.01))
    model.mark_initialized(["inner.backbone.layers.0.attention.k.weight"])
    model.inner.mark_initialized(["backbone.layers.0.attention.v.weight"])
    model.init_weights()
    own, inner = model.backbone.layers[0].attention, model.inner.backbone.layers[0].attention
    torch.testing.assert_close(own.q.weight.std(), torch.tensor(0.01), rtol=0.06, atol=0)
    torch.testing.assert_close(inner.q.weight.std(), torch.tensor(0.5), rtol=0.06, atol=0)
    assert (inner.k.weight == 7.0).all() and (inner.v.weight == 7.0).all()
    before = values(model)
    model.inner.init_weights()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_parameters_without_memory_are_passed_over_and_drawn_later() -> None:
    config = MaskedLanguageModel.from_config(CONFIGS["bert"]).config
    with torch.device("meta"):
        model = MaskedLanguageModel(config, CONFIGS["bert"])
    model.init_weights()
    assert all(parameter.is_meta for parameter in model.parameters())
    model.to_empty(device="cpu").init_weights()
    assert 0.01 < model.get_input_embeddings().weight.std() < 0.03


def test_new_rows_are_kept() -> None:
    model = MaskedLanguageModel.from_config(CONFIGS["bert"])
    model.resize_token_embeddings(V + 4)
    before = values(model)
    model.init_weights()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
