"""Properties of transformers whose attention knows distances: the same bits, 16 bits, recomputing, padding alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from backbone_helpers import TINY_CONFIGS, VARIANTS, batch, randomise
from torch import Tensor

from sparse_encoder.backbone import EncoderModel, MaskedLanguageModel, Transformer, TransformerConfig
from sparse_encoder.backbone.config import FieldError
from sparse_encoder.backbone.convolution import ConvolutionConfig
from sparse_encoder.backbone.disentangled import DisentangledConfig
from sparse_encoder.backbone.relative_bias import RelativeBiasConfig

WIDE = TransformerConfig(
    vocab_size=97, hidden_size=64, num_layers=2, num_heads=4, intermediate_size=96, max_positions=128
)
PLACES = DisentangledConfig(
    content_to_position=True, position_to_content=True, max_distance=128, num_buckets=32, norm=True
)
MECHANISMS = {
    "a relative bias": replace(WIDE, relative_bias=RelativeBiasConfig(), position_kind="after_padding"),
    "scores of places": replace(WIDE, disentangled=PLACES, position_kind="none"),
    "scores by the tokens' projections": replace(WIDE, disentangled=replace(PLACES, shared_projections=True)),
    "a convolution": replace(WIDE, disentangled=PLACES, convolution=ConvolutionConfig()),
    "a convolution in groups": replace(WIDE, convolution=ConvolutionConfig(window=5, groups=2)),
    "near layers": replace(WIDE, disentangled=PLACES, layer_types=("local", "global"), local_window=5),
    "narrow embeddings": replace(
        WIDE, disentangled=PLACES, embedding_size=24, norm_after_projection=True, projection_bias=False
    ),
}
NAMES = [name for name in {**TINY_CONFIGS, **VARIANTS} if "deberta" in name or "mpnet" in name]


def model_of(name: str, attention: str = "sdpa") -> MaskedLanguageModel:
    config = {**TINY_CONFIGS, **VARIANTS}[name]
    model = MaskedLanguageModel.from_config(config, attn_implementation=attention).eval()
    randomise(model)
    return model


def features_of(model: MaskedLanguageModel | EncoderModel) -> dict[str, Tensor]:
    return batch(model.config.num_token_types, pad=model.config.pad_token_id or 0)


@pytest.mark.parametrize("num_tokens", [16, 48, 128])
@pytest.mark.parametrize("name", MECHANISMS)
def test_a_text_has_the_same_bits_in_every_batch(name: str, num_tokens: int) -> None:
    torch.manual_seed(0)
    model = Transformer(MECHANISMS[name]).eval()
    input_ids = torch.randint(1, 97, (9, num_tokens))
    attention_mask = (torch.arange(num_tokens) < torch.randint(num_tokens - 15, num_tokens + 1, (9, 1))).long()
    attention_mask[4] = 1  # nothing is padded here, alone or not
    with torch.no_grad():
        together = model(input_ids, attention_mask)
        order = torch.randperm(9)
        assert torch.equal(model(input_ids[order], attention_mask[order]), together[order])
        for size in (1, 2, 4):
            parts = zip(input_ids.split(size), attention_mask.split(size), strict=True)
            assert torch.equal(torch.cat([model(*part) for part in parts]), together)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_stays_near_and_finite(name: str, attention: str, dtype: torch.dtype) -> None:
    exact = model_of(name, attention)
    features = features_of(exact)
    features["attention_mask"][2] = 0  # nothing but padding
    features["input_ids"][2] = exact.config.pad_token_id or 0
    seen = features["attention_mask"].bool()
    expected = exact(**features)[seen]
    half = exact.to(dtype)
    found = half(**features)
    assert found.dtype == dtype and found.isfinite().all()
    assert (found[seen].float() - expected).abs().mean() < 0.05 * expected.abs().mean()
    found.float().square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in half.parameters())


@pytest.mark.parametrize("name", ["mpnet", "deberta-v2", "deberta-v2 with projections of its own"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_recomputing_keeps_gradients_and_dropout(name: str, attention: str) -> None:
    model = model_of(name, attention).train()
    features = features_of(model)

    def gradients() -> list[Tensor]:
        torch.manual_seed(3)
        model.zero_grad()
        model(**features)[features["attention_mask"].bool()].square().sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    expected = gradients()
    model.gradient_checkpointing_enable()
    for found, wanted in zip(gradients(), expected, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", NAMES)
def test_no_gradient_is_needed_for_the_same_numbers(name: str) -> None:
    model = model_of(name)
    features = features_of(model)
    with torch.no_grad():
        without = model(**features)
    torch.testing.assert_close(model(**features), without, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_head_may_be_taken_apart(name: str) -> None:
    model = model_of(name)
    hidden = model.backbone(**features_of(model))
    scored = model.head.transform(hidden) @ model.head.weight.mT
    assert model.head.bias is not None
    torch.testing.assert_close(scored + model.head.bias, model(**features_of(model)), rtol=0, atol=1e-5)


def test_a_bias_may_be_masked_by_head_and_layer() -> None:
    model = EncoderModel.from_config(TINY_CONFIGS["deberta-v2"]).eval()
    randomise(model)
    features = features_of(model)
    full = model(**features)
    assert torch.equal(model(**features, head_mask=torch.ones(3, 4)), full)
    assert not torch.allclose(model(**features, head_mask=torch.tensor([1.0, 0.0, 1.0, 1.0])), full)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"disentangled": PLACES, "position_kind": "rotary"}, "disentangled cannot go with rotary"),
        ({"disentangled": PLACES, "fused_qkv": True}, "disentangled cannot go with rotary positions or fused"),
        ({"disentangled": PLACES, "relative_bias": RelativeBiasConfig()}, "cannot go with a relative bias"),
        ({"convolution": ConvolutionConfig(groups=5)}, "convolution must have groups that divide the hidden size 64"),
    ],
)
def test_mechanisms_that_do_not_go_together_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(FieldError, match=message):
        replace(WIDE, **fields)  # type: ignore[arg-type]
