"""Heads taken out and heads weighed: against each other, and against columns of the output set to zero."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from backbone_helpers import TINY_CONFIGS, VARIANTS, D, batch, randomise
from decoder_helpers import DECODER_CONFIGS, prompts
from torch import Tensor, nn

from sparse_encoder.backbone import EncoderModel, MaskedLanguageModel
from sparse_encoder.backbone.families import read_config
from sparse_encoder.checkpoint import ConfigError

HEADS = 4
FOUR = {
    name: {**TINY_CONFIGS[name], "num_attention_heads": HEADS, **({"hidden_size": 16} if name == "modernbert" else {})}
    for name in ("albert", "bert", "deberta-v2", "modernbert")
}
"""With enough heads to prune several of a layer."""
CONFIGS = {**TINY_CONFIGS, **VARIANTS, **{f"{name} with four heads": config for name, config in FOUR.items()}}
PRUNED = {0: [1], 1: [0, 3]}


def model_of(name: str, attention: str = "sdpa") -> MaskedLanguageModel:
    config = FOUR[name] if name in FOUR else CONFIGS[name]
    model = MaskedLanguageModel.from_config(config, attn_implementation=attention).eval()
    randomise(model)
    return model


def features_of(model: MaskedLanguageModel) -> dict[str, Tensor]:
    return batch(model.config.num_token_types, pad=model.config.pad_token_id or 0)


def pruned_of(name: str) -> dict[int, list[int]]:
    config = model_of(name).config
    pruned = PRUNED if config.num_heads == HEADS else {0: [1], 1: [0]}
    return {layer: heads for layer, heads in pruned.items() if layer < config.num_layers}


def without_columns(model: MaskedLanguageModel, pruned: dict[int, list[int]]) -> MaskedLanguageModel:
    """Set what the heads add to the output to zero."""
    size = model.config.head_size
    for layer, heads in pruned.items():
        for head in heads:
            model.backbone.layers[layer].attention.output.weight.data[:, head * size : (head + 1) * size] = 0
    return model


def mask_of(model: MaskedLanguageModel, pruned: dict[int, list[int]]) -> Tensor:
    mask = torch.ones(len(model.config.steps), model.config.num_heads)
    for step, layer in enumerate(model.config.steps):
        mask[step, pruned.get(layer, [])] = 0
    return mask


@pytest.mark.parametrize(
    ("name", "attention"), [*((name, "sdpa") for name in CONFIGS), *((name, "eager") for name in TINY_CONFIGS)]
)
def test_pruned_is_unpruned_with_those_columns_zero_and_masked(name: str, attention: str) -> None:
    model = model_of(name, attention)
    features = features_of(model)
    whole = model(**features)
    masked = model(**features, head_mask=mask_of(model, pruned_of(name)))
    expected = without_columns(model_of(name, attention), pruned_of(name))(**features)
    model.prune_heads(pruned_of(name))
    found = model(**features)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=3e-5)
    torch.testing.assert_close(masked, expected, rtol=1e-5, atol=3e-5)
    assert (found - whole).abs().max() > 1e-2


@pytest.mark.parametrize("name", CONFIGS)
def test_a_pruned_model_is_saved_and_loaded(name: str, tmp_path: Path) -> None:
    model = model_of(name)
    model.prune_heads(pruned_of(name))
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["pruned_heads"] == {
        str(layer): heads for layer, heads in pruned_of(name).items()
    }
    loaded = MaskedLanguageModel.from_pretrained(tmp_path)
    assert loaded.config == model.config and loaded.hf_config["pruned_heads"] == model.hf_config["pruned_heads"]
    features = features_of(model)
    assert torch.equal(loaded(**features), model(**features))
    encoder = EncoderModel.from_pretrained(tmp_path)
    assert torch.equal(encoder(**features), model.backbone(**features))


@pytest.mark.parametrize("name", FOUR)
def test_a_loaded_model_is_pruned_further(name: str, tmp_path: Path) -> None:
    model = model_of(name)
    model.prune_heads(PRUNED)
    model.save_pretrained(tmp_path)
    loaded = MaskedLanguageModel.from_pretrained(tmp_path)
    loaded.prune_heads({0: [2]})
    features = features_of(model)
    expected = without_columns(model_of(name), {**PRUNED, 0: [1, 2]})(**features)
    torch.testing.assert_close(loaded(**features), expected, rtol=1e-5, atol=3e-5)


def test_shapes_numbers_and_parameters() -> None:
    model = model_of("bert")
    attention = model.backbone.layers[1].attention
    weights = dict(attention.named_parameters())
    model(**features_of(model)).sum().backward()
    model.prune_heads({1: [0, 3]})
    assert (attention.num_heads, attention.all_head_size, attention.kept_heads) == (2, 6, [1, 2])
    assert (attention.q.out_features, attention.output.in_features, attention.output.out_features) == (6, 6, D)
    shapes = {name: tuple(parameter.shape) for name, parameter in attention.named_parameters()}
    assert shapes == {
        **{f"{part}.weight": (6, D) for part in "qkv"},
        **{f"{part}.bias": (6,) for part in "qkv"},
        "output.weight": (D, 6),
        "output.bias": (D,),
    }
    for name, parameter in attention.named_parameters():
        assert parameter is weights[name]
        assert parameter.grad is None or name == "output.bias"
    assert model.backbone.layers[0].attention.kept_heads == [0, 1, 2, 3]
    model.train()(**features_of(model)).sum().backward()
    assert attention.q.weight.grad is not None and attention.q.weight.grad.shape == (6, D)


def test_fused_projections_lose_the_rows_of_all_three() -> None:
    model = model_of("modernbert")
    attention = model.backbone.layers[2].attention
    before = attention.qkv.weight.detach().view(3, HEADS, 4, 16)
    model.prune_heads({2: [2]})
    assert torch.equal(attention.qkv.weight, before[:, [0, 1, 3]].reshape(36, 16))


def test_heads_keep_their_first_numbers_and_add_up() -> None:
    at_once, bit_by_bit = model_of("bert"), model_of("bert")
    at_once.prune_heads({0: [3, 1], 2: [0]})
    for step in ({0: [1]}, {}, {0: [3, 1]}, {2: [0]}, {2: []}):
        bit_by_bit.prune_heads(step)
    assert at_once.config == bit_by_bit.config
    assert at_once.config.pruned_heads == at_once.backbone.config.pruned_heads == ((1, 3), (), (0,))
    assert at_once.hf_config["pruned_heads"] == bit_by_bit.hf_config["pruned_heads"] == {"0": [1, 3], "2": [0]}
    features = features_of(at_once)
    assert torch.equal(at_once(**features), bit_by_bit(**features))


@pytest.mark.parametrize(
    ("heads", "error", "message"),
    [
        ({3: [0]}, ValueError, "layers are numbered from 0 to 2, got 3"),
        ({"0": [0]}, ValueError, "layers are numbered from 0 to 2, got '0'"),
        ({0: [4]}, ValueError, r"must name heads below 4, got \(4,\) in layer 0"),
        ({0: [-1]}, ValueError, r"must name heads below 4, got \(-1,\) in layer 0"),
        ({1: [True]}, TypeError, "heads must be integers, got True in layer 1"),
        ({2: [0, 1, 2, 3]}, ValueError, "must leave layer 2 a head, got all 4"),
    ],
)
def test_what_cannot_be_pruned_is_refused_and_changes_nothing(
    heads: dict[int, list[int]], error: type[Exception], message: str
) -> None:
    model = model_of("bert")
    model.prune_heads({2: [3]})
    config, weight = model.config, model.backbone.layers[0].attention.q.weight.clone()
    with pytest.raises(error, match=message):
        model.prune_heads({0: [1], **heads})
    assert model.config is config and torch.equal(model.backbone.layers[0].attention.q.weight, weight)


def test_wrapped_projections_are_refused() -> None:
    model = model_of("bert")
    attention = model.backbone.layers[1].attention
    attention.v = nn.Sequential(attention.v)
    with pytest.raises(ValueError, match="merge or remove adapters first"):
        model.prune_heads({0: [0], 1: [0]})
    assert model.backbone.layers[0].attention.num_heads == HEADS
    attention.v = attention.v[0]
    attention.extra = nn.Parameter(torch.zeros(HEADS))
    with pytest.raises(ValueError, match=r"plain projections only.*\['extra'\]"):
        model.prune_heads({1: [0]})


def test_layers_that_are_shared_are_pruned_once() -> None:
    model = model_of("albert")
    assert model.config.num_layers == 2 and len(model.config.steps) == 5
    model.prune_heads({1: [0]})
    assert [layer.attention.num_heads for layer in model.backbone.layers] == [4, 3]
    with pytest.raises(ValueError, match="layers are numbered from 0 to 1, got 2"):
        model.prune_heads({2: [0]})


@pytest.mark.parametrize("nothing", [{}, None])
def test_a_config_may_say_that_nothing_is_pruned(nothing: object) -> None:
    assert read_config({**FOUR["bert"], "pruned_heads": nothing}).pruned_heads is None
    assert read_config({**FOUR["bert"], "pruned_heads": {"1": [2, 0, 2]}}).pruned_heads == ((), (0, 2), ())
    assert read_config({**FOUR["bert"], "pruned_heads": {1: [2]}}).pruned_heads == ((), (2,), ())


@pytest.mark.parametrize(
    ("pruned", "message"),
    [
        ([1], r"must be an object, got \[1\]"),
        ({"3": [0]}, "must name layers from 0 to 2, got '3'"),
        ({"-1": [0]}, "must name layers from 0 to 2, got '-1'"),
        ({"9" * 5000: [0]}, "must name layers from 0 to 2"),
        ({"0": 1}, "must list the numbers of heads, got 1"),
        ({"0": ["1"]}, "must list the numbers of heads"),
        ({"0": [True]}, "must list the numbers of heads"),
        ({"0": [4]}, r"must name heads below 4, got \(4,\) in layer 0"),
        ({"1": [0, 1, 2, 3]}, "must leave layer 1 a head, got all 4"),
    ],
)
def test_damaged_lists_of_pruned_heads_are_config_errors(pruned: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_config({**FOUR["bert"], "pruned_heads": pruned})
    assert caught.value.field == "pruned_heads"


@pytest.mark.parametrize("shape", [(HEADS,), (3, HEADS), (3, 1, HEADS, 1, 1)])
def test_shapes_of_head_masks(shape: tuple[int, ...]) -> None:
    model = model_of("bert").bfloat16()
    mask = torch.rand(shape)
    found = model.get_head_mask(mask, 3)
    assert isinstance(found, Tensor)
    assert found.shape == (3, 1, HEADS, 1, 1) and found.dtype is torch.bfloat16
    rows = mask.expand(3, -1) if mask.ndim == 1 else mask.reshape(3, HEADS)
    assert torch.equal(found[:, 0, :, 0, 0], rows.bfloat16())
    chunked = model.get_head_mask(mask, 3, is_attention_chunked=True)
    assert isinstance(chunked, Tensor) and chunked.shape == (3, 1, HEADS, 1, 1, 1)
    assert model.get_head_mask(None, 3) == [None, None, None]


@pytest.mark.parametrize("shape", [(), (2, HEADS), (3, 1, HEADS), (3, 1, HEADS, 2, 1)])
def test_masks_of_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    model = model_of("bert")
    with pytest.raises(ValueError, match=r"a head mask must be of shape \(heads,\) or \(3 layers, heads\)"):
        model.get_head_mask(torch.ones(shape), 3)
    with pytest.raises(ValueError, match="head_mask must have 4 heads, got 5"):
        model.get_head_mask(torch.ones(5), 3)
    with pytest.raises(ValueError, match="head_mask must have 4 heads, got 5"):
        model(**features_of(model), head_mask=torch.ones(5))


@pytest.mark.parametrize("name", ["bert", "albert", "modernbert"])
def test_fused_kernels_heed_masks_as_the_formula_does(name: str) -> None:
    results = []
    for attention in ("sdpa", "eager"):
        model = model_of(name, attention)
        mask = torch.rand(
            len(model.config.steps), HEADS, generator=torch.Generator().manual_seed(3), requires_grad=True
        )
        features = features_of(model)
        logits = model(**features, head_mask=mask)[features["attention_mask"].bool()]
        logits.square().sum().backward()
        assert mask.grad is not None and (mask.grad != 0).all()
        results.append((logits, mask.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_a_mask_weighs_probabilities() -> None:
    model = model_of("bert", "eager")
    attention, seen = model.backbone.layers[0].attention, []
    attention.output.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].unflatten(-1, (HEADS, -1))))
    features, mask = features_of(model), torch.tensor([1.0, 0.0, 0.25, 2.0])
    model(**features)
    model(**features, head_mask=mask)
    torch.testing.assert_close(seen[1], seen[0] * mask[:, None])


def test_masks_name_heads_by_their_first_numbers_after_pruning() -> None:
    model = model_of("bert")
    features, mask = features_of(model), torch.rand(3, HEADS)
    expected = model(**features, head_mask=mask * mask_of(model, PRUNED))
    model.prune_heads(PRUNED)
    torch.testing.assert_close(model(**features, head_mask=mask), expected, rtol=1e-5, atol=1e-5)


def test_a_mask_may_differ_from_text_to_text() -> None:
    model = model_of("bert")
    features = features_of(model)
    masks = torch.rand(3, 3, HEADS)  # (layers, texts, heads)
    together = model(**features, head_mask=masks[:, :, :, None, None])
    for text in range(3):
        alone = {key: value[text : text + 1] for key, value in features.items()}
        torch.testing.assert_close(model(**alone, head_mask=masks[:, text]), together[text : text + 1])


def test_ones_change_nothing_and_gradients_of_masks_outlive_checkpointing() -> None:
    model = model_of("bert").train()
    features = features_of(model)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    assert torch.equal(model(**features, head_mask=torch.ones(HEADS)), model(**features))
    gradients = []
    for on in (False, True):
        if on:
            model.gradient_checkpointing_enable()
        mask = torch.full((3, HEADS), 0.7, requires_grad=True)
        model(**features, head_mask=mask).square().sum().backward()
        gradients.append(mask.grad)
    torch.testing.assert_close(*gradients)


def test_heads_may_be_integers_of_any_kind() -> None:
    model = model_of("bert")
    model.prune_heads({np.int64(0): [np.int32(1)], 2: torch.tensor([0, 3])})
    assert model.config.pruned_heads == ((1,), (), (0, 3))
    assert all(type(head) is int for heads in model.config.pruned_heads for head in heads)
    with pytest.raises(TypeError, match="heads must be integers"):
        model.prune_heads({1: [torch.tensor(1.0)]})


def test_heads_that_share_keys_and_values_are_refused_with_what_silences_them() -> None:
    model = MaskedLanguageModel.from_config(DECODER_CONFIGS["llama"]).eval()
    inputs = prompts()
    before = model(**inputs)
    with pytest.raises(ValueError, match="the 6 heads of a layer share 2 pairs of keys and values .*; head_mask of"):
        model.prune_heads({0: [1], 1: [0]})
    assert torch.equal(model(**inputs), before)
    mask = torch.ones(3, 6)
    mask[0, 1] = 0
    silenced = model(**inputs, head_mask=mask)
    with torch.no_grad():
        model.backbone.layers[0].attention.output.weight[:, 4:8] = 0  # heads are 4 wide
    torch.testing.assert_close(silenced, model(**inputs))
    assert not torch.allclose(silenced, before)
