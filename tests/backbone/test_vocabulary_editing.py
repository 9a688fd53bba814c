"""The tables of the vocabulary: given, taken, and tied whatever happens to the model."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from backbone_helpers import TINY_CONFIGS, VARIANTS, D, V, batch, randomise
from torch import nn

from sparse_encoder.backbone import EncoderModel, MaskedLanguageModel, TransformerConfig


def tied(name: str = "bert") -> MaskedLanguageModel:
    model = MaskedLanguageModel.from_config({**TINY_CONFIGS, **VARIANTS}[name]).eval()
    randomise(model)
    return model


def is_tied(model: MaskedLanguageModel) -> bool:
    return model.head.weight is model.backbone.embeddings.word.weight


def test_what_the_accessors_give() -> None:
    model = tied()
    assert model.get_input_embeddings() is model.backbone.embeddings.word
    assert model.get_output_embeddings() is model.head
    assert (model.head.in_features, model.head.out_features) == (D, V)
    assert model.base_model is getattr(model, model.base_model_prefix) is model.backbone
    assert model.main_input_name == "input_ids" and model.config_class is TransformerConfig
    assert model.supports_gradient_checkpointing


def test_a_config_of_another_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="config must be a TransformerConfig, got dict"):
        EncoderModel({}, TINY_CONFIGS["bert"])  # type: ignore[arg-type]


def test_new_input_embeddings_are_tied_too() -> None:
    model, words = tied(), nn.Embedding(V, D)
    model.set_input_embeddings(words)
    assert model.get_input_embeddings() is words and is_tied(model)
    apart = tied("untied bert")
    decoder = apart.head.weight
    apart.set_input_embeddings(words)
    assert apart.head.weight is decoder and not is_tied(apart)
    with pytest.raises(ValueError, match=r"input embeddings must be of shape \(17, 12\), got \(18, 12\); resize_token"):
        model.set_input_embeddings(nn.Embedding(V + 1, D))
    with pytest.raises(TypeError, match=r"must be an nn\.Embedding, got Linear"):
        model.set_input_embeddings(nn.Linear(D, V))  # type: ignore[arg-type]


def test_new_output_embeddings_are_saved_and_untie(tmp_path: Path) -> None:
    model, decoder = tied(), nn.Linear(D, V)
    model.set_output_embeddings(decoder)
    assert model.head.weight is decoder.weight and model.head.bias is decoder.bias
    assert not model.config.tie_word_embeddings and model.backbone.config is model.config
    model.tie_weights()
    assert model.head.weight is decoder.weight
    model.save_pretrained(tmp_path)
    loaded = MaskedLanguageModel.from_pretrained(tmp_path)
    assert torch.equal(loaded.head.weight, decoder.weight) and not is_tied(loaded)
    model.set_output_embeddings(model.get_input_embeddings())
    assert is_tied(model) and model.config.tie_word_embeddings and model.hf_config["tie_word_embeddings"] is True
    assert torch.equal(model.head.bias, torch.zeros(V))
    config = model.config
    model.set_output_embeddings(model.head)
    assert model.config is config and is_tied(model)


def test_output_embeddings_that_do_not_fit_are_refused() -> None:
    model = tied()
    with pytest.raises(ValueError, match=r"output embeddings must be of shape \(17, 12\), got \(17, 8\)"):
        model.set_output_embeddings(nn.Linear(8, V))
    with pytest.raises(TypeError, match="must be a module with a weight, got ReLU"):
        model.set_output_embeddings(nn.ReLU())
    bare = MaskedLanguageModel.from_config({**TINY_CONFIGS["modernbert"], "decoder_bias": False})
    with pytest.raises(ValueError, match=r"the bias of output embeddings must be as the head's, None, got \(17,\)"):
        bare.set_output_embeddings(nn.Linear(D, V))


def test_a_model_without_a_head_has_no_output_embeddings() -> None:
    model = EncoderModel.from_config(TINY_CONFIGS["bert"])
    assert model.get_output_embeddings() is None
    with pytest.warns(UserWarning, match="EncoderModel has no output embeddings; nothing is set"):
        model.set_output_embeddings(nn.Linear(D, V))
    model.tie_weights()


def test_a_tie_outlives_conversions_and_copies() -> None:
    model = tied()
    for change in (
        lambda each: each.to(torch.float64),
        lambda each: each.half(),
        lambda each: each.float(),
        deepcopy,
        lambda each: each.to("meta"),
        lambda each: each.to_empty(device="cpu"),
    ):
        model = change(model)
        assert is_tied(model), change


def test_a_tie_outlives_conversions_that_make_new_parameters() -> None:
    model = tied()
    before = model.head.weight
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        nn.Sequential(model).to(torch.float64)
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)
    assert model.head.weight is not before and is_tied(model)


def test_a_tie_outlives_sharing_out() -> None:
    dist = pytest.importorskip("torch.distributed")
    from torch.distributed.fsdp import fully_shard

    model, features = tied(), batch(2, pad=0)
    expected = model(**features).detach()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        for module in (*model.backbone.layers, model):
            fully_shard(module)
        assert is_tied(model)
        with pytest.raises(ValueError, match="shared out among processes cannot be resized"):
            model.resize_token_embeddings(V + 1)
        with pytest.raises(ValueError, match="shared out among processes cannot be pruned"):
            model.prune_heads({0: [0]})
        for _ in range(2):
            with torch.no_grad():
                torch.testing.assert_close(model(**features), expected)
            model.tie_weights()
            assert is_tied(model)
    finally:
        dist.destroy_process_group()


def test_tied_weights_are_trained_as_one_after_a_conversion() -> None:
    model = tied().to(torch.float64).train()
    model(**batch(2, pad=0)).square().sum().backward()
    grad = model.get_input_embeddings().weight.grad
    assert grad is not None and grad is model.head.weight.grad
