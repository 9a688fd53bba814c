"""What `generate` refuses: the error names the argument, the rule and the value."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from generate_helpers import CountingCache, TableModel, random_table

from sparse_encoder.generation import GenerationConfig

IDS = torch.tensor([[3, 1], [2, 4]])


model = partial(TableModel, random_table(11))


def cache_of(length: int) -> CountingCache:
    cache = CountingCache(2)
    cache.length = length
    return cache


class ForeignConfig:
    """Stands for that of transformers, which has the same name there."""

    def to_diff_dict(self) -> dict[str, int]:
        return {}


VALUE_ERRORS = {
    "both inputs": ({"inputs": IDS, "input_ids": IDS}, "inputs and input_ids"),
    "a typing error": ({"max_new_token": 3}, r"does not know \['max_new_token'\].*look for typing errors"),
    "several unknown names": ({"zeta": 1, "alpha": 2}, r"\['alpha', 'zeta'\]"),
    "an encoder's argument": ({"decoder_input_ids": IDS}, "decoder_input_ids"),
    "another device policy": ({"synced_gpus": True}, "synced_gpus is not supported"),
    "a second model": ({"assistant_model": object()}, "assistant_model is not supported"),
    "a second prompt": ({"negative_prompt_ids": IDS}, "negative_prompt_ids is not supported"),
    "its mask": ({"negative_prompt_attention_mask": IDS}, "negative_prompt_attention_mask is not supported"),
    "foreign code": ({"custom_generate": "folder"}, "custom_generate is not supported"),
    "trust in it": ({"trust_remote_code": True}, "trust_remote_code is not supported"),
    "token types": ({"token_type_ids": IDS}, "token_type_ids is not supported"),
    "head masks": ({"head_mask": IDS}, "head_mask is not supported"),
    "groups of beams": ({"num_beams": 4, "num_beam_groups": 2}, "num_beam_groups is not offered"),
    "contrastive search": ({"penalty_alpha": 0.6}, "penalty_alpha is not offered"),
    "guidance": ({"guidance_scale": 1.5}, "guidance_scale is not offered"),
    "prompt lookup": ({"prompt_lookup_num_tokens": 3}, "prompt_lookup_num_tokens is not offered"),
    "chunks of a prompt": ({"prefill_chunk_size": 3}, "prefill_chunk_size is not offered"),
    "a processor that loses rows": (
        {"logits_processor": [lambda ids, scores: scores[:1]]},
        r"<lambda>.* must return scores of shape \(2, 11\), got torch.float32 of shape \(1, 11\)",
    ),
    "a processor that returns tokens": (
        {"logits_processor": [lambda ids, scores: scores.argsort()]},
        r"<lambda>.* must return scores of shape \(2, 11\), got torch.int64",
    ),
    "an exhausted length": ({"max_length": 2}, "input_ids is 2 tokens long, and max_length=2 counts them"),
    "nothing to write": ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
    "fewer beams than results": ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences must be at most"),
    "results of one beam": ({"num_return_sequences": 3}, "num_return_sequences must be 1"),
    "no beams": ({"num_beams": 0}, "num_beams must be at least 1"),
    "an unknown cache": ({"cache_implementation": "quantized"}, "cache_implementation must be one of"),
    "an early stop": ({"early_stopping": "always", "num_beams": 2}, "early_stopping must be true, false or 'never'"),
    "a streamer of beams": (
        {"num_beams": 2, "streamer": SimpleNamespace(put=print, end=print)},
        "a streamer needs num_beams=1, got 2",
    ),
    "strings without a tokenizer": ({"stop_strings": "x"}, "tokenizer"),
    "a mask of three axes": ({"attention_mask": torch.ones(2, 1, 2)}, "attention_mask must have two axes"),
    "a mask of other texts": ({"attention_mask": torch.ones(3, 2)}, "attention_mask must have a row for each of 2"),
    "a mask of another length": ({"attention_mask": torch.ones(2, 5)}, "attention_mask must cover the 2 tokens"),
    "places of other texts": (
        {"position_ids": torch.ones_like(IDS)[[0, 0, 0]]},
        "position_ids must have a row for each of 2",
    ),
    "too few places": ({"position_ids": IDS[:, :1]}, "position_ids must name 2 places"),
    "places below the first": ({"position_ids": IDS - 2}, "position_ids must be at least 0, got -1"),
    "places beyond the table": ({"position_ids": IDS + 61}, "position_ids must be below 64, .*got 65"),
    "a mask of more than begin tokens": (
        {"inputs": None, "attention_mask": torch.ones(2, 4), "bos_token_id": 1},
        r"attention_mask must have one column where nothing is given but the begin token, got shape \(2, 4\)",
    ),
    "more tokens than the table has places": (
        {"max_new_tokens": 64},
        "positions for 64 tokens, and behind this prompt for 63 more: max_new_tokens must be at most 63, got 64",
    ),
    "a longer text than the table has places": ({"max_length": 70}, "max_length must be at most 65, got 70"),
    "a tuple for a cache": ({"past_key_values": ((IDS, IDS),)}, "past_key_values must be a cache, got a tuple"),
    "two caches": ({"past_key_values": cache_of(0), "cache_implementation": "static"}, "past_key_values is given"),
    "a cache without use": ({"past_key_values": cache_of(0), "use_cache": False}, "past_key_values is given"),
    "nothing new behind a cache": ({"past_key_values": cache_of(2)}, "holds 2 tokens and the input 2: nothing is new"),
    "embeddings of two axes": ({"inputs_embeds": torch.ones(2, 2)}, "inputs_embeds must be floating point of shape"),
    "embeddings of other tokens": ({"inputs_embeds": torch.ones(2, 3, 4)}, "must name the same tokens"),
}


@pytest.mark.parametrize("case", VALUE_ERRORS)
def test_a_value_that_cannot_be_is_refused(case: str) -> None:
    arguments, message = VALUE_ERRORS[case]
    inputs = {} if "inputs" in arguments else {"inputs": IDS}
    with pytest.raises(ValueError, match=message):
        model().generate(**{**inputs, **arguments})


TYPE_ERRORS = {
    "a list of ids": ({"inputs": [[1, 2]]}, "input_ids must be a tensor, got list"),
    "ids that are no integers": ({"inputs": torch.ones(1, 2)}, "input_ids must hold token ids of dtype int64"),
    "a dict for a config": ({"generation_config": {}}, r"got builtins.dict; use .*\.from_dict"),
    "another library's config": (
        {"generation_config": ForeignConfig()},
        r"got .*ForeignConfig; use .*\(other\.to_diff_dict\(\)\)",
    ),
    "places that are no integers": ({"position_ids": IDS.float()}, "position_ids must hold places of dtype int64"),
    "a processor that returns nothing": (
        {"logits_processor": [lambda ids, scores: None]},
        r"<lambda>.* must return scores of shape \(2, 11\), got NoneType",
    ),
    "one processor": ({"logits_processor": max}, "logits_processor must be a list of callables"),
    "a processor that cannot be called": ({"logits_processor": [1]}, "logits_processor must hold callables, got int"),
    "one criterion": ({"stopping_criteria": max}, "stopping_criteria must be a list of callables"),
    "a prefix that is no function": ({"prefix_allowed_tokens_fn": [1]}, "prefix_allowed_tokens_fn must be a function"),
    "a seed for a generator": ({"generator": 7}, r"generator must be a torch.Generator, got int"),
    "a function for a streamer": ({"streamer": print}, "streamer must have the methods put and end"),
    "no cache": ({"past_key_values": 3}, "past_key_values must be a cache such as DynamicCache, got int"),
}


@pytest.mark.parametrize("case", TYPE_ERRORS)
def test_a_value_of_a_wrong_type_is_refused(case: str) -> None:
    arguments, message = TYPE_ERRORS[case]
    with pytest.raises(TypeError, match=message):
        model().generate(**{"inputs": IDS, **arguments})


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.tensor([3, 1]), r"input_ids must have two axes, \(texts, tokens\), got shape \(2,\)"),
        (torch.zeros(1, 0, dtype=torch.int64), "input_ids must hold at least one token"),
        (torch.zeros(0, 3, dtype=torch.int64), "input_ids must hold at least one token"),
        (torch.tensor([[3, 11]]), "input_ids must lie between 0 and 10, the vocabulary of the model, got 3 to 11"),
        (torch.tensor([[-1, 3]]), "input_ids must lie between 0 and 10, the vocabulary of the model, got -1 to 3"),
    ],
)
def test_ids_that_no_model_can_read_are_refused(ids: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model().generate(ids)


def test_without_input_and_begin_token_there_is_nothing_to_begin_with() -> None:
    with pytest.raises(ValueError, match="bos_token_id is None"):
        model().generate()


def test_a_prompt_longer_than_the_positions_is_refused() -> None:
    long = torch.ones(1, 65, dtype=torch.int64)
    with pytest.raises(ValueError, match="input_ids is 65 tokens long, and this model has positions for 64"):
        model().generate(long, max_new_tokens=3)


def test_a_cache_that_cannot_be_put_in_order_is_refused_for_beams() -> None:
    cache = SimpleNamespace(get_seq_length=lambda: 0)
    with pytest.raises(ValueError, match="num_beams=2 needs a cache with a method reorder_cache"):
        model().generate(IDS, past_key_values=cache, num_beams=2)


def test_arguments_of_the_call_are_no_fields_of_a_config() -> None:
    with pytest.raises(ValueError, match="streamer"):
        GenerationConfig(streamer=None)


def test_what_is_not_supported_may_be_switched_off_by_name() -> None:
    settings = {"synced_gpus": False, "assistant_model": None, "negative_prompt_ids": None, "guidance_scale": 1.0}
    assert model().generate(IDS, max_new_tokens=1, **settings).shape == (2, 3)


def test_transition_scores_need_scores() -> None:
    with pytest.raises(ValueError, match="output_scores=True"):
        model().compute_transition_scores(IDS, None)
