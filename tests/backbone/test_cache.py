"""Caches by themselves: what comes back, growth, rows, cropping, and what is refused."""

from __future__ import annotations

import pytest
import torch
from decoder_helpers import DECODER_CONFIGS
from torch import Tensor

from sparse_encoder.backbone.cache import (
    DynamicCache,
    EncoderDecoderCache,
    KeyValueCache,
    StaticCache,
)
from sparse_encoder.backbone.cache_layers import SPARE_TOKENS
from sparse_encoder.backbone.config import TransformerConfig
from sparse_encoder.generation import CausalLanguageModel

B, H, K = 2, 3, 4


def pieces(*lengths: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(B, H, length, K, generator=generator), torch.randn(B, H, length, K, generator=generator))
        for length in lengths
    ]


def joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([key for key, _ in parts], dim=2), torch.cat([value for _, value in parts], dim=2)


@torch.no_grad()
def test_a_dynamic_cache_returns_all_tokens_in_their_order() -> None:
    cache, parts = DynamicCache(), pieces(5, 1, 3, 1)
    for count in range(1, 5):
        for layer in range(2):
            got = cache.update(*parts[count - 1], layer)
            for tensor, expected in zip(got, joined(parts[:count]), strict=True):
                assert torch.equal(tensor, expected)
    assert (cache.get_seq_length(), len(cache), cache.num_columns(10)) == (10, 2, 10)
    assert torch.equal(cache[1].keys, joined(parts)[0])
    assert torch.equal(cache[1].values, joined(parts)[1])


@torch.no_grad()
def test_most_steps_copy_nothing_but_their_own_token() -> None:
    cache, parts = DynamicCache(), pieces(5, *[1] * (SPARE_TOKENS + 2))
    places = {cache.update(*part, 0).keys.data_ptr() for part in parts[1:]}
    first = {cache.update(*part, 1).keys.data_ptr() for part in parts[:1]}
    assert len(places) == 2  # the first token is kept as it came, then room is made twice
    assert not places & first


@torch.no_grad()
def test_what_was_returned_before_stays_as_it_was() -> None:
    cache, parts = DynamicCache(), pieces(3, 2, 1)
    cache.update(*parts[0], 0)
    before = cache.update(*parts[1], 0).keys
    kept = before.clone()
    cache.update(*parts[2], 0)
    assert torch.equal(before, kept)


def test_gradients_go_through_every_piece() -> None:
    keys = [part[0].requires_grad_() for part in pieces(3, 2, 1)]
    cache = DynamicCache()
    got = [cache.update(key, key.detach(), 0).keys for key in keys]
    (got[1].square().sum() + got[2].sum()).backward()
    torch.testing.assert_close(keys[0].grad, 2 * keys[0].detach() + 1)
    torch.testing.assert_close(keys[2].grad, torch.ones_like(keys[2]))


def test_a_cache_of_inference_mode_goes_on_outside() -> None:
    parts = pieces(3, 2, 1)
    for cache in (DynamicCache(), StaticCache(max_cache_len=8)):
        with torch.inference_mode():
            cache.update(*parts[0], 0)
            cache.update(*parts[1], 0)
        with torch.no_grad():
            got = cache.update(*parts[2], 0).keys
        assert torch.equal(got[:, :, :6], joined(parts)[0])


@torch.no_grad()
def test_a_cache_from_tensors_gives_them_back() -> None:
    pairs = pieces(4, 4)
    cache = DynamicCache.from_tensors(pairs)
    assert (len(cache), cache.get_seq_length()) == (2, 4)
    for got, expected in zip(cache.to_tensors(), pairs, strict=True):
        assert torch.equal(got.keys, expected[0])
        assert torch.equal(got.values, expected[1])
    empty = DynamicCache.from_tensors([(torch.zeros(B, H, 0, K),) * 2])
    assert empty.get_seq_length() == 0
    assert torch.equal(empty.update(*pairs[0], 0).keys, pairs[0][0])
    assert [layer.keys.shape[2] for layer in cache] == [4, 4]


@torch.no_grad()
def test_a_static_cache_has_its_size_from_the_beginning_and_zeros_behind() -> None:
    cache, parts = StaticCache(max_cache_len=9), pieces(5, 1, 3)
    for part in parts:
        keys, values = cache.update(*part, 0)
    for tensor, expected in zip((keys, values), joined(parts), strict=True):
        assert torch.equal(tensor, expected)
    assert (cache.get_seq_length(), cache.num_columns(3), len(cache)) == (9, 9, 1)
    with pytest.raises(ValueError, match="max_cache_len must be at least 10 for so many tokens, got 9"):
        cache.update(*pieces(1)[0], 0)
    cache.crop(-4)
    assert cache.get_seq_length() == 5
    assert torch.equal(cache[0].keys[:, :, :5], parts[0][0])
    assert not cache[0].keys[:, :, 5:].any()
    place = cache[0].keys.data_ptr()
    cache.reset()
    assert (cache.get_seq_length(), cache[0].keys.any().item(), cache[0].keys.data_ptr()) == (0, False, place)


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "8"])
def test_a_static_cache_needs_a_size(value: object) -> None:
    with pytest.raises(ValueError, match="max_cache_len must be an integer from 1 on"):
        StaticCache(max_cache_len=value)  # type: ignore[arg-type]


def config_of(layers: int, head_size: int) -> TransformerConfig:
    return CausalLanguageModel.from_config(
        {**DECODER_CONFIGS["llama"], "num_hidden_layers": layers, "head_dim": head_size}
    ).config


@torch.no_grad()
def test_a_cache_that_knows_the_config_refuses_the_keys_of_another_model() -> None:
    for build in (
        lambda config: DynamicCache(config=config),
        lambda config: StaticCache(config=config, max_cache_len=9),
        lambda config: StaticCache(config, 9),
    ):
        cache = build(config_of(2, K))
        for layer in range(2):
            cache.update(*pieces(3)[0], layer)
        assert (cache.get_seq_length(), cache.num_rows) == (3, B)
        with pytest.raises(ValueError, match=r"config says 2 layers and a head size of 4, and layer 2"):
            cache.update(*pieces(3)[0], 2)
        with pytest.raises(ValueError, match=r"a head size of 6, and layer 0 brought keys of head size 4"):
            build(config_of(2, 6)).update(*pieces(3)[0], 0)
    for kind in ({}, "llama"):
        with pytest.raises(TypeError, match=r"got builtins\.(dict|str); pass model\.config"):
            StaticCache(config=kind, max_cache_len=4)  # type: ignore[arg-type]


def test_a_static_cache_of_a_config_needs_its_length_too() -> None:
    with pytest.raises(ValueError, match="max_cache_len must be an integer from 1 on, got None"):
        StaticCache(config=config_of(2, K))


def filled(kind: str) -> KeyValueCache:
    cache: KeyValueCache = DynamicCache() if kind == "dynamic" else StaticCache(max_cache_len=9)
    if kind == "pair":
        cache = EncoderDecoderCache(DynamicCache())
    for part in pieces(4, 1):
        cache.update(*part, 0)
    return cache


def keys_of(cache: KeyValueCache) -> Tensor:
    inner = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
    assert isinstance(inner, DynamicCache | StaticCache)
    return inner[0].keys[:, :, : cache.get_seq_length()]


@pytest.mark.parametrize("kind", ["dynamic", "static", "pair"])
@torch.no_grad()
def test_rows_are_reordered_repeated_and_chosen(kind: str) -> None:
    expected = joined(pieces(4, 1))[0]
    cache = filled(kind)
    cache.reorder_cache(torch.tensor([1, 1]))
    assert torch.equal(keys_of(cache), expected[[1, 1]])
    cache = filled(kind)
    cache.batch_repeat_interleave(2)
    assert torch.equal(keys_of(cache), expected[[0, 0, 1, 1]])
    cache.batch_select_indices(torch.tensor([3, 0, 2]))
    assert torch.equal(keys_of(cache), expected[[1, 0, 1]])
    cache.update(torch.ones(3, H, 1, K), torch.ones(3, H, 1, K), 0)
    assert torch.equal(keys_of(cache)[:, :, -1], torch.ones(3, H, K))
    cache.reset()
    assert cache.get_seq_length() == 0


@pytest.mark.parametrize("kind", ["dynamic", "static", "pair"])
@torch.no_grad()
def test_the_last_tokens_are_forgotten(kind: str) -> None:
    cache, expected = filled(kind), joined(pieces(4, 1))[0]
    cache.crop(-2)
    assert torch.equal(keys_of(cache), expected[:, :, :3])
    cache.crop(0)
    more = torch.full((B, H, 1, K), 7.0)
    cache.update(more, more, 0)
    assert torch.equal(keys_of(cache), torch.cat((expected[:, :, :3], more), dim=2))
    with pytest.raises(ValueError, match="minus the number of tokens to forget, got 3"):
        cache.crop(3)
    with pytest.raises(ValueError, match="at most 4 tokens, got -5"):
        cache.crop(-5)


@torch.no_grad()
def test_the_memory_is_kept_once_for_each_layer() -> None:
    cache, (memory, other) = EncoderDecoderCache(DynamicCache()), pieces(6, 6)
    assert cache.memory(0) is None
    cache.keep_memory(*memory, 0)
    cache.keep_memory(*other, 1)
    assert cache.is_updated == {0: True, 1: True}
    kept = cache.memory(1)
    assert kept is not None
    assert torch.equal(kept.values, other[1])
    assert (cache.get_seq_length(), len(cache)) == (0, 0)
    cache.reorder_cache(torch.tensor([1, 0]))
    kept = cache.memory(0)
    assert kept is not None
    assert torch.equal(kept.keys, memory[0][[1, 0]])
    again = EncoderDecoderCache(DynamicCache(), cache.cross_attention_cache)
    assert again.is_updated == {0: True, 1: True}
    cache.reset()
    assert cache.memory(0) is None


def test_names_of_arguments_and_layers_are_those_of_transformers() -> None:
    keys, values = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 4)
    cache = DynamicCache([(keys, values)])
    assert (cache.get_seq_length(0), cache.get_seq_length(layer_idx=1)) == (5, 0)
    torch.testing.assert_close(cache.layers[0].keys, keys)
    torch.testing.assert_close(cache.layers[0].values, values)
    cache.update(key_states=keys[:, :, :1], value_states=values[:, :, :1], layer_idx=0)
    assert cache.layers[0].keys.shape == (2, 3, 6, 4)
    fixed = StaticCache(max_cache_len=7)
    fixed.update(key_states=keys, value_states=values, layer_idx=0)
    assert (fixed.layers[0].values.shape, fixed.get_seq_length(0)) == ((2, 3, 7, 4), 5)
    assert EncoderDecoderCache(fixed, DynamicCache()).get_seq_length(0) == 5


def test_what_a_cache_begins_with_is_checked_as_its_updates_are() -> None:
    config = CausalLanguageModel.from_config(DECODER_CONFIGS["llama"]).config
    size, layers = config.head_size, len(config.steps)
    right = [(torch.randn(B, H, 5, size), torch.randn(B, H, 5, size)) for _ in range(layers)]
    cache = DynamicCache(right, config=config)
    assert (len(cache), cache.get_seq_length()) == (layers, 5)
    assert torch.equal(cache[layers - 1].values, right[-1][1])
    for wrong in ([*right, right[0]], [tuple(each[..., 1:] for each in right[0])]):
        with pytest.raises(ValueError, match="the cache is for another model"):
            DynamicCache(wrong, config=config)  # type: ignore[arg-type]
    key, value = right[0]
    for pair in ((key[0, 0], value[0, 0]), (key, value[:, :, 1:])):
        with pytest.raises(ValueError, match=r"pairs must hold keys and values of one shape.*for layer 0; give what"):
            DynamicCache([pair])
    for none in ([key], [(key,)], [(key, None)], [(key, value, key)]):
        with pytest.raises(TypeError, match=r"pairs must hold \(keys, values\) of each layer, got .* for layer 0"):
            DynamicCache(none)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"pairs must be .* got a config; pass it as config=model.config"):
        DynamicCache(config)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="pairs must be keys and values of each layer, got 3; None begins with none"):
        DynamicCache(3)  # type: ignore[arg-type]
