"""Text against that of transformers, token for token, from the same tiny random models of every kind.

Weights are float64, so that both round to the same float32 scores and no near tie decides. What is behind the first end
token of a beam is not compared: transformers fills it with the end token where padding is token 0, ours with padding.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import cache
from itertools import combinations, product
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
import torch
from peer_norms import make_norms_exact
from torch import Tensor

from sparse_encoder.generation import CausalLanguageModel, Seq2SeqModel

transformers = pytest.importorskip("transformers")

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is not set with a batched input"),
    pytest.mark.filterwarnings("ignore:Using the model-agnostic default"),
    pytest.mark.filterwarnings("ignore:several texts came without attention_mask"),
]

V = 23
SEEDS = {"qwen3": 2}
"""Where 8 gives texts that never end."""
_ROTARY = {
    "vocab_size": V,
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": V,
        "n_positions": 64,
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "llama": {"model_type": "llama", **_ROTARY},
    "qwen3": {"model_type": "qwen3", **_ROTARY, "head_dim": 6},
    "mistral": {"model_type": "mistral", **_ROTARY, "sliding_window": 5},
    "bart": {
        "model_type": "bart",
        "vocab_size": V,
        "d_model": 16,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 20,
        "decoder_ffn_dim": 20,
        "max_position_embeddings": 64,
        "bos_token_id": 3,
        "pad_token_id": 0,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
        "forced_eos_token_id": 2,
    },
    "t5": {
        "model_type": "t5",
        "vocab_size": V,
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 20,
        "num_layers": 2,
        "num_heads": 2,
        "pad_token_id": 0,
        "eos_token_id": 2,
        "decoder_start_token_id": 0,
    },
}
PAIRS = ("bart", "t5")
KINDS = ("gpt2", "llama", "bart", "t5")
"""One of each kind of positions and stacks."""
EVERY_STEP = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}


class Both(NamedTuple):
    ours: Any  # a CausalLanguageModel or a Seq2SeqModel
    peer: Any  # a peer's class


@cache
def both(name: str, dtype: torch.dtype = torch.float64) -> Both:
    """Return one model twice; its weights are far from those that training begins with."""
    kind = Seq2SeqModel if name in PAIRS else CausalLanguageModel
    ours = kind.from_config(CONFIGS[name]).to(dtype).eval()
    generator = torch.Generator().manual_seed(SEEDS.get(name, 8))
    with torch.no_grad():
        for parameter_name, tensor in ours.named_parameters():
            centre = 1.0 if "norm" in parameter_name and parameter_name.endswith("weight") else 0.0
            tensor.copy_(centre + 0.5 * torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype))
    with TemporaryDirectory() as folder:
        ours.save_pretrained(Path(folder))
        auto = transformers.AutoModelForSeq2SeqLM if name in PAIRS else transformers.AutoModelForCausalLM
        peer = auto.from_pretrained(folder, dtype=dtype).eval()
    return Both(ours, peer)


@pytest.fixture(autouse=True)
def exact_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    make_norms_exact(monkeypatch, "t5", "llama", "qwen3", "mistral")


def prompts(rows: int) -> dict[str, Tensor]:
    """Return one prompt, or three padded on the left."""
    ids = torch.tensor([[7, 8, 9, 10]]) if rows == 1 else torch.tensor([[0, 0, 5, 6], [7, 8, 9, 10], [0, 11, 12, 13]])
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def trimmed(row: list[int], prompt: int, ends: list[int]) -> list[int]:
    """Return a row up to its first end token behind the prompt."""
    for place in range(prompt, len(row)):
        if row[place] in ends:
            return row[: place + 1]
    return row


def assert_same_text(
    name: str, settings: dict[str, Any], rows: int = 3, seed: int | None = None, pair: Both | None = None
) -> Any:  # noqa: ANN401
    """Generate with both, compare all there is, and return what both gave."""
    pair, features = pair or both(name), prompts(rows)
    asked = {"max_new_tokens": 8, "pad_token_id": 0, **EVERY_STEP, **settings}
    results = []
    for model in pair:
        if seed is not None:
            torch.manual_seed(seed)
        results.append(model.generate(**features, **asked))
    ours, theirs = results
    ends = asked.get("eos_token_id", CONFIGS[name]["eos_token_id"])
    ends = ends if isinstance(ends, list) else [ends]
    prompt = 1 if name in PAIRS else features["input_ids"].shape[1]
    if "beam_indices" in theirs:
        assert torch.equal(ours.beam_indices, theirs.beam_indices)
        torch.testing.assert_close(ours.sequences_scores, theirs.sequences_scores, rtol=0, atol=1e-6)
        assert ours.sequences.shape == theirs.sequences.shape
        got, expected = ([trimmed(row, prompt, ends) for row in result.sequences.tolist()] for result in (ours, theirs))
        assert got == expected
    else:
        assert ours.sequences.tolist() == theirs.sequences.tolist()
    for kept in ("scores", "logits"):
        assert len(ours[kept]) == len(theirs[kept])
        for mine, yours in zip(ours[kept], theirs[kept], strict=True):
            assert mine.dtype == yours.dtype == torch.float32
            torch.testing.assert_close(mine, yours, rtol=1e-5, atol=1e-5)
    return ours, theirs


FACTORS: dict[str, tuple[Any, ...]] = {
    "num_beams": (1, 2, 4),
    "num_return_sequences": (1, 2),
    "length_penalty": (1.0, -1.0, 0.0, 0.5, 2.0),
    "early_stopping": (False, True, "never"),
    "repetition_penalty": (1.0, 1.3),
    "no_repeat_ngram_size": (0, 2, 3),
    "min_new_tokens": (None, 5),
    "bad_words_ids": (None, [[4], [6, 7]]),
    "eos_token_id": (2, [2, 4, 9, 13, 19], None),
    "rows": (1, 3),
}


def covering_rows() -> Iterator[dict[str, Any]]:
    """Yield settings until every two values of two factors have come together."""
    draw = Random(0)
    missing = {
        ((first, str(one)), (second, str(two)))
        for first, second in combinations(FACTORS, 2)
        for one in FACTORS[first]
        for two in FACTORS[second]
    }
    while missing:
        candidates = [{name: draw.choice(values) for name, values in FACTORS.items()} for _ in range(40)]
        met = [missing & set(combinations(((key, str(value)) for key, value in row.items()), 2)) for row in candidates]
        best = max(range(len(candidates)), key=lambda number: len(met[number]))
        if met[best]:
            missing -= met[best]
            yield candidates[best]


GRID = tuple(covering_rows())


def meaningful(row: dict[str, Any]) -> dict[str, Any]:
    """Leave out what has no meaning for one beam, or is not set; keep what takes the model's end token away."""
    settings = {name: value for name, value in row.items() if name != "rows"}
    if row["num_beams"] == 1:
        for name in ("num_beams", "num_return_sequences", "length_penalty", "early_stopping"):
            del settings[name]
    return {name: value for name, value in settings.items() if value is not None or name == "eos_token_id"}


def test_the_grid_brings_every_two_values_together() -> None:
    together = {pair for row in GRID for pair in combinations(((name, str(row[name])) for name in FACTORS), 2)}
    for first, second in combinations(FACTORS, 2):
        for one, two in product(FACTORS[first], FACTORS[second]):
            assert ((first, str(one)), (second, str(two))) in together
    assert len(GRID) <= 40


@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_and_beam_search_write_the_same_over_the_grid(name: str) -> None:
    lengths = set()
    for row in GRID:
        ours, _ = assert_same_text(name, meaningful(row), rows=row["rows"])
        lengths.add(len(ours.scores))
    assert len(lengths) > 1  # some of them end early


SAMPLING: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 0.7},
    {"temperature": 2.0, "top_k": 5},
    {"top_k": 0, "top_p": 0.8},
    {"top_k": None, "min_p": 0.1},
    {"temperature": 1.5, "typical_p": 0.8},
    {"top_p": 0.9, "min_p": 0.05, "top_k": 7, "temperature": 0.9},
    {"epsilon_cutoff": 0.02, "eta_cutoff": 0.01, "renormalize_logits": True},
    {"num_return_sequences": 2, "repetition_penalty": 1.3, "top_k": 3},
)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("num_beams", [1, 3])
def test_sampling_draws_the_same_under_one_seed(num_beams: int, name: str) -> None:
    for number, settings in enumerate(SAMPLING):
        beams = {} if num_beams == 1 else {"num_beams": num_beams}
        assert_same_text(name, {"do_sample": True, **beams, **settings}, seed=number)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("settings", [{}, {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 2.0}])
def test_transition_scores_are_the_same_and_make_up_sequence_scores(name: str, settings: dict[str, Any]) -> None:
    ours, theirs = assert_same_text(name, settings)
    pair = both(name)
    for normalize in (False, True):
        got, expected = (
            model.compute_transition_scores(
                result.sequences, result.scores, getattr(result, "beam_indices", None), normalize_logits=normalize
            )
            for model, result in zip(pair, (ours, theirs), strict=True)
        )
        if not settings:
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
            continue
        alive = ours.beam_indices >= 0
        torch.testing.assert_close(got[alive], expected[alive], rtol=0, atol=1e-5)
        if not normalize:
            torch.testing.assert_close(got.sum(1) / alive.sum(1) ** 2.0, ours.sequences_scores)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("num_beams", [1, 2])
def test_what_layers_saw_is_returned_the_same(num_beams: int, name: str) -> None:
    pair = both(name, torch.float32)  # in float64 transformers' eager attention gives NaN for padding
    settings = {"output_attentions": True, "output_hidden_states": True, "num_beams": num_beams}
    names = ["hidden_states", "attentions"]
    if name in PAIRS:
        names = ["decoder_hidden_states", "decoder_attentions", "cross_attentions"]
    pair.peer.set_attn_implementation("eager")
    ours, theirs = assert_same_text(name, settings, pair=pair)
    assert set(ours.keys()) == set(theirs.keys())
    for kept in names:
        assert len(ours[kept]) == len(theirs[kept]) == len(ours.scores)
        for step, (mine, yours) in enumerate(zip(ours[kept], theirs[kept], strict=True)):
            assert len(mine) == len(yours)
            for one, other in zip(mine, yours, strict=True):
                if name == "mistral" and kept == "attentions":  # transformers forgets what no window reaches
                    one = one[..., -other.shape[-1] :]
                assert one.shape == other.shape
                if step:  # the first has places of padding
                    torch.testing.assert_close(one, other, rtol=0, atol=1e-4)
    for kept in ("encoder_hidden_states", "encoder_attentions") if name in PAIRS else ():
        assert [tuple(layer.shape) for layer in ours[kept]] == [tuple(layer.shape) for layer in theirs[kept]]


@pytest.mark.parametrize("name", KINDS)
def test_other_ways_to_call_write_the_same(name: str) -> None:
    for settings in (
        {"use_cache": False},
        {"use_cache": False, "num_beams": 2},
        {"cache_implementation": "static"},
        {"cache_implementation": "static", "num_beams": 2},
        {"encoder_no_repeat_ngram_size": 2, "encoder_repetition_penalty": 1.2},
        {"suppress_tokens": [3, 4], "begin_suppress_tokens": [5], "forced_eos_token_id": 2},
        {"sequence_bias": {(6,): 4.0, (6, 7): -9.0}, "exponential_decay_length_penalty": (3, 1.5)},
        {"prefix_allowed_tokens_fn": lambda number, ids: list(range(2 + number, V))},
        {"min_length": 7},
    ):
        assert_same_text(name, dict(settings))


@pytest.mark.parametrize("name", KINDS)
def test_a_batch_without_a_mask_is_read_the_same(name: str) -> None:
    pair, features = both(name), prompts(3)
    for settings in ({"pad_token_id": 0}, {"pad_token_id": 2}):
        texts = [model.generate(features["input_ids"], max_new_tokens=6, **settings) for model in pair]
        assert texts[0].tolist() == texts[1].tolist()


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_embeddings_are_read_the_same(name: str) -> None:
    pair, features = both(name), prompts(3)
    embeds = pair.peer.get_input_embeddings()(features["input_ids"]).detach()
    given = {"inputs_embeds": embeds, "attention_mask": features["attention_mask"]}
    for settings in ({}, {"num_beams": 3, "num_return_sequences": 2}, {"num_beams": 2, "do_sample": True, "top_k": 9}):
        texts = []
        for model in pair:
            torch.manual_seed(5)
            texts.append(model.generate(**given, max_new_tokens=6, pad_token_id=0, eos_token_id=None, **settings))
        assert texts[0].shape[1] == 6
        assert texts[0].tolist() == texts[1].tolist()


@pytest.mark.parametrize("name", KINDS)
def test_twenty_tokens_are_the_default_of_both(name: str) -> None:
    pair, features = both(name), prompts(1)
    texts = [model.generate(**features, eos_token_id=None, pad_token_id=0) for model in pair]
    assert texts[0].shape[1] == 20 + (1 if name in PAIRS else 4)
    assert texts[0].tolist() == texts[1].tolist()


def test_generate_has_the_arguments_of_transformers_in_their_order() -> None:
    ours, theirs = (
        list(inspect.signature(model.generate).parameters)
        for model in (CausalLanguageModel, transformers.LlamaForCausalLM)
    )
    assert [name for name in ours if name not in ("tokenizer", "generator")] == theirs
    ours, theirs = (
        list(inspect.signature(model.compute_transition_scores).parameters)
        for model in (CausalLanguageModel, transformers.LlamaForCausalLM)
    )
    assert ours[: len(theirs)] == theirs
