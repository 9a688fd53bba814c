"""Adapters on a model: what they compute, what is trained, switched, merged and forgotten."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from adapters_helpers import adapted, inputs_of, logits, model_named, randomise_adapters
from backbone_helpers import TINY_CONFIGS, D, V
from torch import nn

from sparse_encoder.backbone import LoraConfig, MaskedLanguageModel
from sparse_encoder.backbone.adapters import LoraLinear


def layers_of(model: nn.Module) -> list[str]:
    return [name for name, part in model.named_modules() if isinstance(part, LoraLinear)]


def test_a_layer_adds_what_the_formula_says() -> None:
    base = nn.Linear(3, 5)
    layer = LoraLinear(base)
    layer.add("a", 2, scaling=1.5, dropout=0.0)
    layer.add("b", 1, scaling=0.5, dropout=0.0)
    for name in "ab":
        layer.initialize(name, False)
    x = torch.randn(4, 3)
    assert torch.equal(layer(x), base(x))
    layer.active = ("a", "b")
    weight = base.weight + 1.5 * layer.lora_B["a"] @ layer.lora_A["a"] + 0.5 * layer.lora_B["b"] @ layer.lora_A["b"]
    torch.testing.assert_close(layer(x), x @ weight.T + base.bias)
    assert layer.weight is base.weight and layer.bias is base.bias


def test_the_scale_is_alpha_by_rank_or_by_its_root() -> None:
    assert LoraConfig(r=4).scaling(4, 6) == 1.5
    assert LoraConfig(r=4, use_rslora=True).scaling(4, 6) == 3


def test_dropout_acts_in_training_only() -> None:
    model = adapted(lora_dropout=0.5)
    still = logits(model)
    assert torch.equal(logits(model), still)
    layer = model.backbone.layers[0].attention.q
    assert isinstance(layer, LoraLinear)
    layer.train()
    x = torch.randn(4000, D)
    torch.manual_seed(5)
    kept = layer.lora_dropout["default"](x)
    torch.manual_seed(5)
    torch.testing.assert_close(layer(x), x @ layer.weight.T + layer.bias + kept @ layer.change("default").T)
    assert 0.45 < (kept == 0).float().mean() < 0.55


@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_a_fresh_adapter_changes_nothing_and_a_trained_one_does(name: str) -> None:
    model = model_named(name)
    before = logits(model)
    model.add_adapter(LoraConfig(r=2))
    assert torch.equal(logits(model), before)
    randomise_adapters(model)
    assert not torch.allclose(logits(model), before)
    model.disable_adapters()
    assert torch.equal(logits(model), before)


def test_what_an_adapter_starts_with() -> None:
    torch.manual_seed(0)
    model = model_named(hidden_size=64)
    model.add_adapter(LoraConfig(r=8, init_lora_weights="gaussian"), "normal")
    model.add_adapter(LoraConfig(r=8), "usual")
    model.add_adapter(LoraConfig(r=8, init_lora_weights=False), "uniform")
    layer = model.backbone.layers[0].attention.q
    assert isinstance(layer, LoraLinear)
    assert layer.lora_A["normal"].std().item() == pytest.approx(1 / 8, rel=0.15)
    assert layer.lora_A["usual"].abs().max().item() <= 1 / 8 + 1e-6 and layer.lora_A["usual"].std() > 0.06
    assert layer.lora_B["normal"].count_nonzero() == layer.lora_B["usual"].count_nonzero() == 0
    assert layer.lora_B["uniform"].std() > 0.1


def test_only_the_adapter_gets_a_gradient() -> None:
    model = adapted(target_modules=["query", "down"])
    model(**inputs_of(model)).sum().backward()
    trained = {name for name, each in model.named_parameters() if each.requires_grad}
    assert trained == {name for name, each in model.named_parameters() if each.grad is not None}
    assert len(trained) == 2 * 6 and all(".lora_A." in name or ".lora_B." in name for name in trained)
    assert model.num_parameters(only_trainable=True) == 3 * (2 * (D + D) + 2 * (20 + D))


def test_a_16_bit_model_has_adapters_of_32_bits() -> None:
    model = model_named().to(torch.bfloat16)
    model.add_adapter(LoraConfig(r=2))
    layer = model.backbone.layers[0].attention.q
    assert isinstance(layer, LoraLinear)
    assert layer.lora_A["default"].dtype == torch.float32
    assert model(**inputs_of(model)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("targets", "count"),
    [
        (["query", "value"], 6),
        (["q", "v"], 6),
        (["attention.q"], 3),
        (["attention.output.dense"], 3),
        (["dense"], 10),
        (r".*layer\.[02]\.attention\.self\.(query|key)", 4),
        (r"backbone\.layers\.1\..*", 6),
        ("all-linear", 19),
        (None, 6),
    ],
)
def test_layers_are_found_by_the_names_of_files_and_by_ours(targets: str | list[str] | None, count: int) -> None:
    model = adapted(target_modules=targets)
    assert len(layers_of(model)) == count
    written = model.peft_config["default"].target_modules
    assert written is not None and not any("backbone" in each for each in written)


def test_layers_are_left_out_and_have_their_own_ranks() -> None:
    model = adapted(
        target_modules=["query", "key"],
        exclude_modules=["layers.2.attention.q"],
        rank_pattern={"key": 1, "layers.0.attention.q": 3},
        alpha_pattern={r"layer\.1\.attention\.self\.key": 7},
    )
    ranks = {
        name.removeprefix("backbone.layers."): (part.lora_A["default"].shape[0], part.scaling["default"])
        for name, part in model.named_modules()
        if isinstance(part, LoraLinear)
    }
    assert ranks == {
        "0.attention.q": (3, 2.0),
        "0.attention.k": (1, 6.0),
        "1.attention.q": (2, 3.0),
        "1.attention.k": (1, 7.0),
        "2.attention.k": (1, 6.0),
    }
    numbered = adapted(target_modules=["query"], layers_to_transform=[0, 2], layers_pattern="layer")
    assert layers_of(numbered) == ["backbone.layers.0.attention.q", "backbone.layers.2.attention.q"]
    assert layers_of(adapted(target_modules=["query"], layers_to_transform=1)) == ["backbone.layers.1.attention.q"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_modules": ["querry"]}, r"target_modules 'querry' finds no linear layer; choose from \["),
        ({"target_modules": ["decoder"]}, "names cls.predictions.decoder, the table that scores .* in decoders only"),
        ({"target_modules": r".*(query|decoder)"}, "names cls.predictions.decoder, the table that scores"),
        ({"target_modules": ["word_embeddings"]}, "finds no linear layer"),
        ({"exclude_modules": ["none"]}, "exclude_modules 'none' finds no"),
        ({"target_modules": ["query"], "exclude_modules": ["query"]}, "finds no linear layer"),
        ({"rank_pattern": {"key": 2}}, "rank_pattern 'key' finds none"),
        ({"modules_to_save": ["classifier"]}, "modules_to_save names 'classifier'"),
    ],
)
def test_what_finds_nothing_is_refused_and_the_model_stays_as_it_was(options: dict[str, object], message: str) -> None:
    model = model_named()
    names = list(model.state_dict())
    with pytest.raises(ValueError, match=message):
        model.add_adapter(LoraConfig(**options))  # type: ignore[arg-type]
    assert list(model.state_dict()) == names and not model.has_adapters
    assert all(each.requires_grad for each in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r": 0}, "r must be an integer of at least 1, got 0"),
        ({"r": True}, "r must be"),
        ({"lora_alpha": float("nan")}, "lora_alpha must be a number up to 1e"),
        ({"lora_dropout": 1.0}, "lora_dropout must be at least 0 and below 1"),
        ({"bias": "some"}, "bias must be one of"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights must be one of"),
        ({"init_lora_weights": 1}, "init_lora_weights must be one of"),
        ({"target_modules": [1]}, "target_modules must be a text or a list of names"),
        ({"modules_to_save": "head"}, "modules_to_save must be a list"),
        ({"layers_to_transform": [-1]}, "layers_to_transform must hold numbers"),
        ({"layers_to_transform": 1, "target_modules": "all-linear"}, "as a list of names"),
        ({"layers_pattern": "layer"}, "give both or neither"),
        ({"rank_pattern": {"a": 0}}, "rank_pattern must be an integer"),
    ],
)
def test_a_config_is_checked_when_it_is_made(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoraConfig(**options)  # type: ignore[arg-type]


def test_fields_of_peft_that_would_do_something_are_refused_by_name() -> None:
    plain = {"peft_type": "LORA", "r": 4, "use_dora": False, "loftq_config": {}, "peft_version": "1", "new_field": None}
    assert LoraConfig.from_dict(plain) == LoraConfig(r=4)
    assert LoraConfig.from_dict({**plain, "fan_in_fan_out": True}) == LoraConfig(r=4)  # how GPT-2's matrices lie
    for name, value in (
        ("use_dora", True),
        ("layer_replication", [[0, 2]]),
        ("new_field", 1),
    ):
        with pytest.raises(ValueError, match=f"{name} is not supported"):
            LoraConfig.from_dict({**plain, name: value})
    with pytest.raises(ValueError, match="peft_type must be 'LORA', got 'LOHA'"):
        LoraConfig.from_dict({**plain, "peft_type": "LOHA"})
    with pytest.raises(TypeError, match="unexpected keyword argument 'use_dora'"):
        LoraConfig(use_dora=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="adapter_config must be a LoraConfig, got dict"):
        model_named().add_adapter({"r": 2})
    foreign = SimpleNamespace(peft_type="LORA", to_dict=lambda: {**plain, "target_modules": {"value", "query"}})
    model = model_named()
    model.add_adapter(foreign)
    assert model.peft_config["default"].target_modules == ["query", "value"]


def test_adapters_are_switched_by_name() -> None:
    model = model_named()
    plain = logits(model)
    assert model.peft_config == {}
    with pytest.raises(ValueError, match="there is no adapter on the model"):
        model.active_adapters()
    model.add_adapter(LoraConfig(r=2), "one")
    randomise_adapters(model, 1)
    first = logits(model)
    model.add_adapter(LoraConfig(r=3, target_modules=["key", "query"]), "two")
    randomise_adapters(model, 2)
    second = logits(model)
    assert model.active_adapters() == ["two"] and model.active_adapter() == "two"
    model.set_adapter("one")
    assert torch.equal(logits(model), first)
    assert {name.split(".")[-1] for name, each in model.named_parameters() if each.requires_grad} == {"one"}
    model.set_adapter(["one", "two"])
    both = logits(model)
    assert not torch.allclose(both, first) and not torch.allclose(both, second)
    model.disable_adapters()
    assert torch.equal(logits(model), plain) and model.active_adapters() == ["one", "two"]
    assert not any(each.requires_grad for each in model.parameters())
    model.enable_adapters()
    assert torch.equal(logits(model), both)
    model.delete_adapter("one")
    assert torch.equal(logits(model), second) and model.active_adapters() == ["two"]
    assert len(layers_of(model)) == 6
    model.delete_adapter(["two"])
    assert torch.equal(logits(model), plain) and layers_of(model) == [] and not model.has_adapters
    assert all(each.requires_grad for each in model.parameters())


def test_wrong_names_of_adapters_are_refused() -> None:
    model = adapted()
    for wrong in ("default", "a.b", "", "@base", "keys", "x" * 101):
        with pytest.raises(ValueError, match="already" if wrong == "default" else "an adapter's name must be"):
            model.add_adapter(LoraConfig(), wrong)
    for call in (model.set_adapter, model.delete_adapter):
        with pytest.raises(ValueError, match=r"no adapters \['other'\]; choose from \['default'\]"):
            call("other")
    with pytest.raises(ValueError, match="several different ones"):
        model.set_adapter([])


@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_merged_weights_compute_the_same_and_unmerged_are_the_very_bits(name: str) -> None:
    model = adapted(name, target_modules="all-linear")
    with_adapter, before = logits(model), {key: each.clone() for key, each in model.state_dict().items()}
    model.merge_adapter()
    changed = [key for key, each in model.state_dict().items() if not torch.equal(each, before[key])]
    assert changed == [f"{layer}.weight" for layer in layers_of(model)]
    torch.testing.assert_close(logits(model), with_adapter, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"call unmerge_adapter\(\) first"):
        model.merge_adapter()
    model.unmerge_adapter()
    assert all(torch.equal(each, before[key]) for key, each in model.state_dict().items())
    assert torch.equal(logits(model), with_adapter)


def test_half_precision_is_merged_with_one_rounding_and_unmerged_exactly() -> None:
    model = adapted().to(torch.bfloat16)
    layer = model.backbone.layers[0].attention.q
    assert isinstance(layer, LoraLinear)
    before = layer.weight.clone()
    model.merge_adapter()
    assert torch.equal(layer.weight, (before.float() + layer.change("default")).to(torch.bfloat16))
    model.unmerge_adapter()
    assert torch.equal(layer.weight, before)


def test_a_merged_model_can_be_disabled_and_unloaded() -> None:
    model = adapted()
    with_adapter = logits(model)
    model.disable_adapters()
    plain = logits(model)
    model.enable_adapters()
    model.merge_adapter()
    model.disable_adapters()
    assert torch.equal(logits(model), plain)
    model.enable_adapters()
    names = list(model_named().state_dict())
    assert model.merge_and_unload() is model
    assert list(model.state_dict()) == names and not model.has_adapters
    assert all(each.requires_grad for each in model.parameters())
    assert model.head.weight is model.backbone.embeddings.word.weight
    torch.testing.assert_close(logits(model), with_adapter, rtol=1e-4, atol=1e-4)


def test_an_adapter_has_its_own_biases_and_modules() -> None:
    model = model_named()
    plain, base_bias = logits(model), model.head.bias
    model.add_adapter(LoraConfig(r=2, bias="all", modules_to_save=["cls.predictions.transform"]), "one")
    trained = {name for name, each in model.named_parameters() if each.requires_grad}
    assert {"head.dense.weight", "head.norm.weight", "head.bias", "backbone.layers.1.feed_forward.up.bias"} <= trained
    assert "backbone.layers.1.feed_forward.up.weight" not in trained
    randomise_adapters(model)
    first = logits(model)
    model.disable_adapters()
    assert torch.equal(logits(model), plain) and model.head.bias is base_bias
    model.enable_adapters()
    assert torch.equal(logits(model), first)
    model.add_adapter(LoraConfig(r=1, bias="lora_only"), "two")
    assert torch.equal(logits(model), plain)
    with pytest.raises(ValueError, match="two have copies of"):
        model.set_adapter(["one", "two"])
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        other.set_adapter("one")
        assert torch.equal(logits(other), first)
        other.merge_and_unload()
        torch.testing.assert_close(logits(other), first, rtol=1e-4, atol=1e-4)
    model.set_adapter("one")
    model.to(torch.float64)
    assert {each.dtype for each in model.parameters()} == {torch.float64}
    model.delete_adapter(["one", "two"])
    assert model.head.bias is base_bias and list(model.state_dict()) == list(model_named().state_dict())
    torch.testing.assert_close(logits(model), plain.double(), rtol=1e-3, atol=1e-4)


def test_training_reaches_the_adapter_through_recomputed_activations() -> None:
    gradients = []
    for recompute in (False, True):
        model = adapted().train()
        if recompute:
            model.gradient_checkpointing_enable()
        torch.manual_seed(7)
        model(**inputs_of(model)).square().sum().backward()
        gradients.append({name: each.grad for name, each in model.named_parameters() if each.requires_grad})
    assert gradients[0].keys() == gradients[1].keys()
    for name, each in gradients[0].items():
        assert each is not None and each.count_nonzero() > 0
        other = gradients[1][name]
        assert other is not None
        torch.testing.assert_close(other, each)


def test_adding_draws_from_the_generator_and_loading_does_not() -> None:
    model = adapted()
    state = model.get_adapter_state_dict()
    other: MaskedLanguageModel = model_named()
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    other.load_adapter(peft_config=model.peft_config["default"], adapter_state_dict=state)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(logits(other), logits(model))


def test_a_vocabulary_of_which_an_adapter_has_a_copy_is_not_resized() -> None:
    model = adapted(bias="all")
    with pytest.raises(ValueError, match=r"adapters have copies of \['head.bias'\], of 17 tokens; merge or delete"):
        model.resize_token_embeddings(20)
    other = adapted()
    before = logits(other)
    other.resize_token_embeddings(20)
    torch.testing.assert_close(logits(other)[..., :17], before)


@pytest.mark.parametrize("untied", [False, True])
@pytest.mark.parametrize("module", ["cls", "decoder", "word_embeddings"])
def test_a_table_is_copied_alone_also_if_it_is_tied(module: str, untied: bool, tmp_path: Path) -> None:
    model = model_named()
    if untied:
        model.set_output_embeddings(nn.Linear(D, V))
    model.save_pretrained(tmp_path / "base")
    plain = logits(model)
    model.add_adapter(LoraConfig(r=2, modules_to_save=[module]))
    randomise_adapters(model)
    words, head = model.backbone.embeddings.word.weight, model.head.weight
    assert words is not head
    learnt = logits(model)
    model.save_adapter(tmp_path / "adapter")
    other = MaskedLanguageModel.from_pretrained(tmp_path / "base")
    other.load_adapter(tmp_path / "adapter")
    assert torch.equal(logits(other), learnt) and not torch.equal(learnt, plain)
    other.disable_adapters()
    assert torch.equal(logits(other), plain)
    assert (other.backbone.embeddings.word.weight is other.head.weight) is not untied
    model.double().float()
    assert torch.equal(logits(model), learnt)
    merged = model.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    assert not merged.config.tie_word_embeddings
    for each in (merged, MaskedLanguageModel.from_pretrained(tmp_path / "merged")):
        torch.testing.assert_close(logits(each), learnt)


@pytest.mark.parametrize("module", ["decoder", "word_embeddings"])
def test_what_is_tied_in_the_base_stays_so_when_parameters_become_new_ones(module: str) -> None:
    model = model_named()
    plain = logits(model)
    model.add_adapter(LoraConfig(r=2, modules_to_save=[module]))
    randomise_adapters(model)
    learnt = logits(model)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        model.double().float()
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)
    torch.testing.assert_close(logits(model), learnt)
    model.delete_adapter("default")
    assert model.head.weight is model.backbone.embeddings.word.weight
    torch.testing.assert_close(logits(model), plain)


def test_the_default_layers_are_named_shortly() -> None:
    for name, wanted in {"bert": ["query", "value"], "distilbert": ["q_lin", "v_lin"], "modernbert": ["Wqkv"]}.items():
        assert adapted(name).peft_config["default"].target_modules == wanted


@pytest.mark.parametrize(
    "values",
    [
        {"rank_pattern": {"(": 2}},
        {"alpha_pattern": {"[": 2}},
        {"target_modules": "("},
        {"exclude_modules": "*"},
        {"layers_to_transform": [0], "layers_pattern": "(layer"},
        {"layers_to_transform": [0], "layers_pattern": ["layer", "(h"]},
    ],
)
def test_what_is_no_expression_is_refused_at_once(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is no regular expression"):
        LoraConfig(r=2, **values)
