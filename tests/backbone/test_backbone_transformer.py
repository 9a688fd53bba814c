"""Properties that every family's transformer has."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from backbone_helpers import TINY_CONFIGS, VARIANTS, B, D, T, V, batch, randomise
from torch import Tensor, nn

from sparse_encoder.backbone import EncoderModel, MaskedLanguageModel, Transformer, TransformerConfig
from sparse_encoder.backbone.families import read_config

CONFIGS = {**TINY_CONFIGS, **VARIANTS}
WIDE = TransformerConfig(
    vocab_size=97,
    hidden_size=64,
    num_layers=2,
    num_heads=4,
    intermediate_size=96,
    max_positions=64,
    embedding_dropout=0.1,
)


def model_of(name: str, attn_implementation: str = "sdpa", dtype: str = "float32") -> MaskedLanguageModel:
    model = MaskedLanguageModel.from_config(CONFIGS[name], attn_implementation=attn_implementation, dtype=dtype).eval()
    randomise(model)
    return model


def features_of(model: MaskedLanguageModel) -> dict[str, Tensor]:
    return batch(model.config.num_token_types, pad=model.config.pad_token_id or 0)


@pytest.mark.parametrize("name", CONFIGS)
def test_shapes(name: str) -> None:
    model = model_of(name)
    features = features_of(model)
    assert model.backbone(**features).shape == (B, T, D)
    assert model(**features).shape == (B, T, V)


@pytest.mark.parametrize("name", CONFIGS)
def test_fused_attention_equals_plain_attention(name: str) -> None:
    fused, plain = model_of(name, dtype="float64"), model_of(name, "eager", dtype="float64")
    features = features_of(fused)
    seen = features["attention_mask"].bool()
    torch.testing.assert_close(fused(**features)[seen], plain(**features)[seen], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", CONFIGS)
def test_padding_changes_nothing(name: str) -> None:
    model = model_of(name, dtype="float64")
    features = features_of(model)
    whole = model(**features)
    for row, length in enumerate(features["attention_mask"].sum(dim=1).tolist()):
        alone = model(**{key: value[row : row + 1, :length] for key, value in features.items()})
        torch.testing.assert_close(whole[row, :length], alone[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_stands_in_the_padding_changes_nothing(name: str) -> None:
    model = model_of(name)
    features = features_of(model)
    seen = features["attention_mask"].bool()
    other = {**features, "input_ids": features["input_ids"].masked_fill(~seen, 5)}
    if "token_type_ids" in features and model.config.num_token_types > 1:
        other["token_type_ids"] = features["token_type_ids"].masked_fill(~seen, 1)
    assert torch.equal(model(**features)[seen], model(**other)[seen])


@pytest.mark.parametrize("kind", ["absolute", "after_padding", "rotary", "local"])
def test_a_text_has_the_same_bits_in_every_batch(kind: str) -> None:
    torch.manual_seed(0)
    config = replace(WIDE, layer_types=("local", "global"), local_window=5) if kind == "local" else WIDE
    config = replace(config, position_kind="rotary" if kind == "local" else kind)
    model = Transformer(config).eval()
    for num_tokens in (16, 48):
        input_ids = torch.randint(1, 97, (9, num_tokens))
        attention_mask = (torch.arange(num_tokens) < torch.randint(num_tokens - 15, num_tokens + 1, (9, 1))).long()
        attention_mask[4] = 1  # nothing is padded here, alone or not
        with torch.no_grad():
            together = model(input_ids, attention_mask)
            for size in (1, 2, 4):
                parts = zip(input_ids.split(size), attention_mask.split(size), strict=True)
                assert torch.equal(torch.cat([model(*part) for part in parts]), together)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_gradient_reaches_every_parameter(name: str, checkpointing: bool) -> None:
    model = model_of(name).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    features = features_of(model)
    logits = model(**features)[features["attention_mask"].bool()]
    (logits * torch.linspace(-1, 1, V)).square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        # a bias of keys adds one number to all scores of a query: no effect, no gradient
        if not key.endswith(("attention.k.bias", "positions.k.bias")):
            assert parameter.grad.abs().sum() > 1e-3, key


def gradients(model: EncoderModel, features: dict[str, Tensor]) -> list[Tensor]:
    torch.manual_seed(3)
    model.zero_grad()
    model(**features)[features["attention_mask"].bool()].square().sum().backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def test_checkpointing_keeps_gradients_and_dropout_and_runs_layers_twice() -> None:
    model = EncoderModel.from_config(TINY_CONFIGS["bert"]).train()
    randomise(model)
    features = batch(2, pad=0)
    calls: list[nn.Module] = []
    for layer in model.backbone.layers:
        layer.attention.register_forward_hook(lambda module, inputs, output: calls.append(module))
    expected = gradients(model, features)
    assert len(calls) == 3
    model.gradient_checkpointing_enable()
    for got, wanted in zip(gradients(model, features), expected, strict=True):
        torch.testing.assert_close(got, wanted)
    assert len(calls) == 3 + 6

    model.eval()(**features).sum().backward()  # in training only
    model.train().gradient_checkpointing_disable()
    gradients(model, features)
    assert len(calls) == 9 + 3 + 3


def test_shared_layers_run_as_often_as_the_config_says() -> None:
    model = EncoderModel.from_config(TINY_CONFIGS["albert"]).eval()
    calls = [0, 0]
    for index, layer in enumerate(model.backbone.layers):
        layer.register_forward_hook(lambda *_, index=index: calls.__setitem__(index, calls[index] + 1))
    model(**batch(2, pad=0))
    assert calls == [3, 2]


@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_dropout_is_active_in_training_only(name: str) -> None:
    hf_config = {
        **TINY_CONFIGS[name],
        "hidden_dropout_prob": 0.5,
        "dropout": 0.5,
        "embedding_dropout": 0.5,
    }
    model = EncoderModel.from_config(hf_config)
    features = batch(model.config.num_token_types, pad=model.config.pad_token_id or 0)
    assert not torch.equal(model.train()(**features), model(**features))
    assert torch.equal(model.eval()(**features), model(**features))


@pytest.mark.parametrize(
    "field",
    [
        "embedding_dropout",
        "attention_dropout",
        "attention_output_dropout",
        "feed_forward_dropout",
        "feed_forward_output_dropout",
    ],
)
def test_every_dropout_is_applied(field: str) -> None:
    config = replace(read_config(TINY_CONFIGS["modernbert"]), **{field: 0.5})
    model, features = Transformer(config).train(), batch(0, pad=0)
    randomise(model)
    assert not torch.equal(model(**features), model(**features))
    still = Transformer(replace(config, **{field: 0.0})).train()
    assert torch.equal(still(**features), still(**features))
    for module in model.modules():  # as scripts switch dropout off
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    assert torch.equal(model(**features), model(**features))


def test_positions_are_counted_as_the_family_does() -> None:
    absolute, behind = (EncoderModel.from_config(TINY_CONFIGS[name]).eval() for name in ("bert", "roberta"))
    input_ids = torch.tensor([[7, 8, 9, 1, 1]])
    mask = torch.ones_like(input_ids)
    assert torch.equal(
        absolute(input_ids, mask), absolute(input_ids, mask, position_ids=torch.tensor([[0, 1, 2, 3, 4]]))
    )
    assert torch.equal(behind(input_ids, mask), behind(input_ids, mask, position_ids=torch.tensor([[2, 3, 4, 1, 1]])))
    assert behind.backbone.embeddings.position is not None
    assert behind.backbone.embeddings.position.weight.shape == (26, D)
    assert not torch.equal(absolute(input_ids, mask), absolute(input_ids, mask, position_ids=torch.arange(5).flip(0)))


def test_token_types_are_zero_if_left_out() -> None:
    model = EncoderModel.from_config(TINY_CONFIGS["bert"]).eval()
    randomise(model)
    features = batch(0, pad=0)
    zeros = torch.zeros_like(features["input_ids"])
    torch.testing.assert_close(model(**features), model(**features, token_type_ids=zeros))
    assert not torch.allclose(model(**features), model(**features, token_type_ids=zeros + 1))


def test_a_call_that_does_not_fit_is_refused() -> None:
    bert, modernbert = (EncoderModel.from_config(TINY_CONFIGS[name]) for name in ("bert", "modernbert"))
    ids, mask = torch.ones(2, 27, dtype=torch.long), torch.ones(2, 27)
    with pytest.raises(ValueError, match="at most 26 tokens, got 27"):
        bert(ids, mask)
    assert modernbert(ids, mask).shape == (2, 27, D)  # rotation has no table that ends
    with pytest.raises(ValueError, match=r"one shape \(texts, tokens\), got \(2, 27\) and \(2, 26\)"):
        bert(ids, mask[:, :26])
    with pytest.raises(ValueError, match="one shape"):
        bert(ids[0], mask[0])
    with pytest.raises(ValueError, match="no token types"):
        modernbert(ids, mask, torch.zeros_like(ids))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near(dtype: torch.dtype) -> None:
    for name in ("bert", "modernbert"):
        exact = model_of(name)
        features = features_of(exact)
        seen = features["attention_mask"].bool()
        expected = exact(**features)[seen]
        got = exact.to(dtype)(**features)[seen]
        assert got.dtype == dtype
        assert (got.float() - expected).abs().mean() < 0.05 * expected.abs().mean()


@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_under_autocast_logits_stay_near(name: str) -> None:
    model = model_of(name)
    features = features_of(model)
    expected = model(**features)[features["attention_mask"].bool()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = model(**features)[features["attention_mask"].bool()]
    assert (got.float() - expected).abs().mean() < 0.05 * expected.abs().mean()


def test_shapes_are_known_without_numbers() -> None:
    with torch.device("meta"):
        model = Transformer(read_config(TINY_CONFIGS["modernbert"]))
        assert model(torch.ones(2, 7, dtype=torch.long), torch.ones(2, 7)).shape == (2, 7, D)


def test_no_row_looks_at_another() -> None:
    model = model_of("modernbert")
    features = features_of(model)
    first = model(**features)
    features["input_ids"][1:] = 6
    assert torch.equal(model(**features)[0], first[0])
