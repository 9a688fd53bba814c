"""Decoders: what a token may see, caches, padding, short dtypes, rows that files turn about, and bad configs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from backbone_helpers import V, randomise
from decoder_helpers import BIDIRECTIONAL, DECODER_CONFIGS, DECODER_VARIANTS, places, prompts

from sparse_encoder.backbone import MaskedLanguageModel, load_sharded_checkpoint
from sparse_encoder.backbone.families import read_config
from sparse_encoder.checkpoint import CheckpointError, ConfigError, open_weights
from sparse_encoder.generation import CausalLanguageModel, DynamicCache

CONFIGS = {**DECODER_CONFIGS, **DECODER_VARIANTS}


def model_of(name: str, dtype: torch.dtype = torch.float64) -> CausalLanguageModel:
    model = CausalLanguageModel.from_config(CONFIGS[name])
    randomise(model)
    return model.to(dtype).eval()


@pytest.mark.parametrize("name", DECODER_CONFIGS)
@torch.no_grad()
def test_later_tokens_change_nothing_before_them(name: str) -> None:
    model, ids = model_of(name), prompts("right")["input_ids"]
    changed = ids.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % V
    before, after = model(ids).logits, model(changed).logits
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_a_row_padded_on_the_left_is_the_row_alone(name: str) -> None:
    model, features = model_of(name), prompts("left")
    where = places(features["attention_mask"])
    together = model(**features, position_ids=where).logits
    assert bool(together.isfinite().all())
    for row, length in enumerate((11, 7, 2)):
        alone = model(features["input_ids"][row : row + 1, -length:]).logits
        torch.testing.assert_close(together[row, -length:], alone[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_a_cache_changes_nothing(name: str, kind: str) -> None:
    model, features = model_of(name), prompts("left")
    where, cache = places(features["attention_mask"]), model.new_cache(kind, 12)
    whole = model(**features, position_ids=where, use_cache=False)
    assert whole.past_key_values is None
    for start, end in ((0, 6), (6, 7), (7, 9), (9, 10), (10, 11)):
        ids, mask = features["input_ids"][:, start:end], features["attention_mask"][:, :end]
        got = model(ids, mask, where[:, start:end], cache).logits
        seen = mask[:, start:end].bool()
        torch.testing.assert_close(got[seen], whole.logits[:, start:end][seen], rtol=1e-12, atol=1e-12)
    assert cache.get_seq_length() == 11


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("name", DECODER_CONFIGS)
@torch.no_grad()
def test_short_dtypes_stay_near_and_finite(name: str, implementation: str, dtype: torch.dtype) -> None:
    exact, features = model_of(name), prompts("left")
    short = CausalLanguageModel.from_config(CONFIGS[name], dtype=dtype, attn_implementation=implementation).eval()
    short.load_state_dict(exact.state_dict())
    got = short(**features).logits
    assert got.dtype == dtype
    assert bool(got.isfinite().all())
    seen, expected = features["attention_mask"].bool(), exact(**features).logits
    assert float((got.double() - expected)[seen].abs().mean()) < 0.06 * float(expected[seen].abs().mean())


def test_a_decoder_that_looks_both_ways_sees_later_tokens() -> None:
    model = MaskedLanguageModel.from_config(BIDIRECTIONAL["llama"]).eval()
    ids = prompts("right")["input_ids"]
    changed = ids.clone()
    changed[:, -1] = (changed[:, -1] + 1) % V
    assert not torch.allclose(model(ids)[:, 0], model(changed)[:, 0])
    with pytest.raises(ConfigError, match="is_causal"):
        CausalLanguageModel.from_config(BIDIRECTIONAL["llama"])


def test_gpt2_is_saved_with_its_columns_first_in_every_shard(tmp_path: Path) -> None:
    model = model_of("gpt2", torch.float32)
    model.save_pretrained(tmp_path, max_shard_size="2KB")
    files = open_weights(tmp_path)
    assert files.tensors["transformer.h.0.attn.c_attn.weight"].shape == (12, 36)
    stored = dict(files.stream({"transformer.h.1.mlp.c_fc.weight"}))["transformer.h.1.mlp.c_fc.weight"]
    assert torch.equal(stored, model.backbone.layers[1].feed_forward.up.weight.detach().T)  # type: ignore[union-attr]
    again = CausalLanguageModel.from_config(CONFIGS["gpt2"])
    load_sharded_checkpoint(again, tmp_path)
    for loaded in (again, CausalLanguageModel.from_pretrained(tmp_path)):
        for key, value in model.state_dict().items():
            assert torch.equal(value, loaded.state_dict()[key])
    by_our_names = CausalLanguageModel.from_pretrained(None, config=model.hf_config, state_dict=model.state_dict())
    assert torch.equal(
        by_our_names.backbone.layers[0].attention.qkv.weight, model.backbone.layers[0].attention.qkv.weight
    )  # type: ignore[union-attr]


def test_a_turned_tensor_of_gpt2_is_refused_in_the_files_own_shape() -> None:
    model = model_of("gpt2", torch.float32)
    tensors = dict(model._tensors_to_save())
    tensors["transformer.h.0.mlp.c_fc.weight"] = tensors["transformer.h.0.mlp.c_fc.weight"].T
    with pytest.raises(CheckpointError, match=r"c_fc.weight is \(20, 12\), the config says \(12, 20\)"):
        CausalLanguageModel.from_pretrained(None, config=model.hf_config, state_dict=tensors)


YARN = {"rope_type": "yarn", "factor": 4.0}


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("llama", {"num_key_value_heads": 4}, "num_key_value_heads.*must divide the 6 heads, got 4"),
        ("llama", {"head_dim": 5}, "head_dim.*even head size"),
        ("llama", {"num_key_value_heads": 0}, "num_key_value_heads.*between 1"),
        ("llama", {"head_dim": 1 << 20}, "head_dim.*between 1"),
        ("llama", {"rms_norm_eps": 0.0}, "rms_norm_eps.*greater than 0"),
        ("llama", {"is_causal": "no"}, "is_causal.*true or false"),
        ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "unknown scaling.*'dynamic'; .*'yarn'"),
        ("llama", {"rope_scaling": {"rope_type": "yarn"}}, "factor.*must be given"),
        ("llama", {"rope_scaling": {**YARN, "factor": 0.5}}, "factor must be between 1 and"),
        ("llama", {"rope_scaling": {**YARN, "factor": "4"}}, "factor.*must be a number"),
        ("llama", {"rope_scaling": {**YARN, "beta_fast": 0.5}}, "slow must be below fast.* got 1.0 and 0.5"),
        ("llama", {"rope_scaling": {**YARN, "beta_slow": 1e-320}}, "slow must be below fast"),
        ("llama", {"rope_scaling": {**YARN, "attention_factor": 0.0}}, "amplitude must be .*greater than 0, got 0.0"),
        ("llama", {"rope_scaling": {**YARN, "mscale": -50.0, "mscale_all_dim": 1.0}}, "amplitude must be"),
        ("llama", {"rope_scaling": {**YARN, "truncate": 1}}, "truncate.*true or false"),
        ("llama", {"rope_scaling": {**YARN, "original_max_position_embeddings": 0}}, "between 1 and"),
        ("llama", {"rope_scaling": YARN, "rope_theta": 1.0}, "rope_theta.*must be above 1"),
        ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "low_freq_factor"),
        ("llama", {"architectures": ["GPT2LMHeadModel"]}, "unknown architecture"),
        ("mistral", {"sliding_window": 0}, "sliding_window.*between 1"),
        ("qwen2", {"layer_types": ["sliding_attention"] * 3}, "use_sliding_window is false"),
        ("qwen2", {"layer_types": ["other"] * 3}, "unknown layer types"),
        ("gpt2", {"n_head": 5}, "n_head.*must divide the hidden size 12, got 5"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("gpt2", {"reorder_and_upcast_attn": True}, "reorder_and_upcast_attn"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention"),
        ("gpt2", {"n_inner": -3}, "intermediate_size.*between 1"),
    ],
)
def test_a_bad_value_is_refused_by_its_name(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_config({**CONFIGS[name], **changes})


def test_a_call_that_does_not_fit_is_refused() -> None:
    model, ids = model_of("gpt2"), prompts()["input_ids"]
    embeds, cache = torch.zeros(3, 11, 12, dtype=torch.float64), DynamicCache()
    with pytest.raises(ValueError, match="got both"):
        model(ids, inputs_embeds=embeds)
    with pytest.raises(ValueError, match="got neither"):
        model()
    with pytest.raises(ValueError, match="logits_to_keep must be 0 with labels"):
        model(ids, labels=ids, logits_to_keep=1)
    with pytest.raises(TypeError, match="past_key_values must be a DynamicCache or a StaticCache, got a tuple"):
        model(ids, past_key_values=())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="use_cache=False"):
        model(ids, past_key_values=cache, use_cache=False)
    model(ids, past_key_values=cache)
    with pytest.raises(ValueError, match="a column for each of 11 tokens in the cache and of 11 new ones, got 11"):
        model(ids, torch.ones_like(ids), past_key_values=cache)
    with pytest.raises(ValueError, match="at most 40 tokens, got 44"):
        for _ in range(3):
            model(ids, past_key_values=cache)
    with pytest.raises(ValueError, match="labels must be of the shape"):
        model(ids, labels=ids[:, 1:])
    with pytest.raises(ValueError, match="unknown cache 'paged'"):
        model.new_cache("paged", 4)
    model.train()
    model.gradient_checkpointing_enable()
    with pytest.raises(ValueError, match="a cache cannot go with gradient checkpointing"):
        model(ids, use_cache=True)
    assert model(ids, labels=ids).past_key_values is None


@torch.no_grad()
def test_embeddings_stand_for_ids_and_only_the_last_places_are_scored() -> None:
    model, ids = model_of("qwen3"), prompts()["input_ids"]
    whole = model(ids).logits
    embedded = model(inputs_embeds=model.get_input_embeddings()(ids), logits_to_keep=2).logits
    assert embedded.shape == (3, 2, V)
    torch.testing.assert_close(embedded, whole[:, -2:])


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_facts_and_edits_hold_for_decoders(name: str, tmp_path: Path) -> None:
    model, ids = model_of(name, torch.float32), prompts()["input_ids"]
    assert model.can_generate()
    model.resize_token_embeddings(V + 3)
    assert model(ids).logits.shape == (3, 11, V + 3)
    model.save_pretrained(tmp_path)
    assert CausalLanguageModel.from_pretrained(tmp_path).config.vocab_size == V + 3
    if name == "llama":
        with pytest.raises(ValueError, match="the 6 heads of a layer share 2 pairs of keys"):
            model.prune_heads({0: [1]})
    else:
        model.prune_heads({0: [1]})
        cache = DynamicCache()
        whole = model(ids, use_cache=False).logits
        pieces = [model(ids[:, :5], past_key_values=cache).logits, model(ids[:, 5:], past_key_values=cache).logits]
        torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-4, atol=1e-4)
