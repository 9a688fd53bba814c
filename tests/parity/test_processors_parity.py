"""Every processor and warper gives what transformers' class of its name gives, over all settings and several steps."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sparse_encoder import generation as ours
from sparse_encoder.generation.config import GenerationConfig
from sparse_encoder.generation.config_fields import DEFAULTS
from sparse_encoder.generation.processors_building import ProcessorFacts, build_logits_processors

pytest.importorskip("transformers")
from transformers import generation as peer

B, V, T = 6, 23, 5
ENDS = [2, 21]
Anything = Any  # a module or an argument


def scores_of(seed: int) -> Tensor:
    """Scores with ties, minus infinities, rows that are sure, and rows that are flat."""
    scores = torch.randn(B, V, generator=torch.Generator().manual_seed(seed)) * 3
    scores[0] = scores[0].round()  # ties
    scores[1, 3:15] = -torch.inf
    scores[2, 7] = 40.0
    scores[3] = 0.5
    scores[4, ::2] = -torch.inf
    return scores


def ids_of(seed: int, length: int = T) -> Tensor:
    ids = torch.randint(0, 5, (B, length), generator=torch.Generator().manual_seed(seed + 100))
    ids[5] = torch.arange(length) + 8
    return ids


def check(make: Callable[[Anything], Callable[[Tensor, Tensor], Tensor]]) -> None:
    """Compare over steps whose texts grow; nothing that goes in may be changed."""
    mine, theirs = make(ours), make(peer)
    for step in range(4):
        ids, scores = ids_of(step, T + step), scores_of(step)
        before = ids.clone(), scores.clone()
        found = mine(ids, scores)
        assert torch.equal(ids, before[0])
        assert torch.equal(scores, before[1])
        torch.testing.assert_close(found, theirs(ids, scores.clone()), rtol=1e-6, atol=1e-6, equal_nan=True)
        assert torch.equal(found.isneginf(), theirs(ids, scores.clone()).isneginf())


WARPERS = {
    "TemperatureLogitsWarper": [(0.1,), (0.7,), (1.0,), (3.0,)],
    "TopKLogitsWarper": [(1,), (2,), (5,), (V,), (V + 5,)],
    "TopPLogitsWarper": [(0.0,), (0.1,), (0.5,), (0.9,), (0.999,), (1.0,)],
    "MinPLogitsWarper": [(0.0,), (0.05,), (0.4,), (1.0,)],
    "TypicalLogitsWarper": [(0.1,), (0.5,), (0.95,)],
    "EpsilonLogitsWarper": [(0.001,), (0.05,), (0.3,), (0.9,)],
    "EtaLogitsWarper": [(0.001,), (0.05,), (0.3,), (0.9,)],
}
KEPT = [(name, args, kept) for name, all_args in WARPERS.items() for args in all_args for kept in (1, 2, 4)]


@pytest.mark.parametrize(("name", "args", "kept"), KEPT)
def test_warpers(name: str, args: tuple[float, ...], kept: int) -> None:
    keeps = {} if name == "TemperatureLogitsWarper" else {"min_tokens_to_keep": kept}
    check(lambda module: getattr(module, name)(*args, **keeps))


@pytest.mark.parametrize("top_h", [0.1, 0.4, 0.9, 1.0])
def test_top_h(top_h: float) -> None:
    from transformers.generation.logits_process import TopHLogitsWarper

    check(lambda module: ours.TopHLogitsWarper(top_h) if module is ours else TopHLogitsWarper(top_h))


@pytest.mark.parametrize("filter_value", [-50.0])
def test_filter_value(filter_value: float) -> None:
    for name, args in (("TopKLogitsWarper", (3,)), ("TopPLogitsWarper", (0.6,)), ("MinPLogitsWarper", (0.3,))):
        check(lambda module, name=name, args=args: getattr(module, name)(*args, filter_value=filter_value))


OTHERS: dict[str, Callable[[Anything], Anything]] = {
    **{f"repetition {p}": lambda m, p=p: m.RepetitionPenaltyLogitsProcessor(p) for p in (0.5, 1.0, 1.3, 4.0)},
    "repetition behind 2": lambda m: m.RepetitionPenaltyLogitsProcessor(1.7, prompt_ignore_length=2),
    "repetition behind padding": lambda m: m.RepetitionPenaltyLogitsProcessor(
        1.7, prompt_ignore_length=torch.tensor([0, 1, 2, 5, 9, 3])
    ),
    **{
        f"encoder repetition {p} of {rows}": lambda m, p=p, rows=rows: m.EncoderRepetitionPenaltyLogitsProcessor(
            p, ids_of(7)[:rows]
        )
        for p, rows in itertools.product((0.5, 1.5), (2, 3, 6))
    },
    **{f"ngram {n}": lambda m, n=n: m.NoRepeatNGramLogitsProcessor(n) for n in (1, 2, 3, 6, 9)},
    **{
        f"encoder ngram {n} of {rows}": lambda m, n=n, rows=rows: m.EncoderNoRepeatNGramLogitsProcessor(
            n, ids_of(7, 9)[:rows]
        )
        for n, rows in itertools.product((1, 2, 3, 12), (2, 3, 6))
    },
    "bias": lambda m: m.SequenceBiasLogitsProcessor({(3,): -2.0, (1, 4): 5.0, (0, 4): 1.0, (1, 2, 3): 0.5, (4,): 1.5}),
    "bias as pairs": lambda m: m.SequenceBiasLogitsProcessor([[[3], -2.0], [[1, 4], 5.0]]),
    "bad words": lambda m: m.NoBadWordsLogitsProcessor([[1, 3], [0], [2], [2, 2], [1, 2, 3, 4, 0, 1, 2]], ENDS),
    "bad words without ends": lambda m: m.NoBadWordsLogitsProcessor([[1, 3], [0], [2]]),
    **{f"min length {n}": lambda m, n=n: m.MinLengthLogitsProcessor(n, ENDS) for n in (0, 6, 20)},
    **{f"min new {n}": lambda m, n=n: m.MinNewTokensLengthLogitsProcessor(T, n, ENDS) for n in (0, 2, 20)},
    "prefix": lambda m: m.PrefixConstrainedLogitsProcessor(lambda text, ids: [3, 5, 7 + text, int(ids[-1])], 2),
    "forced bos": lambda m: m.ForcedBOSTokenLogitsProcessor(4),
    **{f"forced eos {n}": lambda m, n=n: m.ForcedEOSTokenLogitsProcessor(n, ENDS) for n in (T + 1, T + 3, 30)},
    "finite": lambda m: m.InfNanRemoveLogitsProcessor(),
    **{f"decay {f}": lambda m, f=f: m.ExponentialDecayLengthPenalty((1, f), ENDS, T) for f in (0.5, 1.0, 1.6)},
    "suppress": lambda m: m.SuppressTokensLogitsProcessor([1, 3, 500]),
    "suppress at begin": lambda m: m.SuppressTokensAtBeginLogitsProcessor([1, 3, 500], T + 1),
    "normalise": lambda m: m.LogitNormalization(),
}


@pytest.mark.parametrize("name", OTHERS)
def test_processors(name: str) -> None:
    check(OTHERS[name])


def test_what_is_not_finite() -> None:
    scores = torch.tensor([[torch.nan, torch.inf, -torch.inf, 1.0], [0.0, -1.0, torch.nan, torch.inf]])
    ids = torch.zeros(2, 1, dtype=torch.long)
    expected = peer.InfNanRemoveLogitsProcessor()(ids, scores.clone())
    assert torch.equal(ours.InfNanRemoveLogitsProcessor()(ids, scores), expected)
    expected = peer.ForcedBOSTokenLogitsProcessor(2)(ids, scores.clone())
    assert torch.equal(ours.ForcedBOSTokenLogitsProcessor(2)(ids, scores), expected)


def test_ids_beyond_the_vocabulary_are_passed_over() -> None:
    ids = torch.tensor([[1, 40, 2], [40, 40, 40]])
    scores = torch.randn(2, V, generator=torch.Generator().manual_seed(3))
    for make in (
        lambda m: m.RepetitionPenaltyLogitsProcessor(1.4),
        lambda m: m.NoRepeatNGramLogitsProcessor(1),
        lambda m: m.NoRepeatNGramLogitsProcessor(2),
    ):
        assert torch.equal(make(ours)(ids, scores), make(peer)(ids, scores.clone()))


def test_prefix_with_beams_that_have_nothing_left() -> None:
    scores = torch.full((4, V), -torch.inf)
    scores[2, 5] = 1.0
    ids = torch.zeros(4, 2, dtype=torch.long)

    def allowed(text: int, row: Tensor) -> list[int]:
        return [5, 6] if text == 0 else [5, 9]

    mine = ours.PrefixConstrainedLogitsProcessor(allowed, 2)(ids, scores)
    assert torch.equal(mine, peer.PrefixConstrainedLogitsProcessor(allowed, 2)(ids, scores.clone()))


CONFIGS: list[dict[str, Anything]] = [
    {"temperature": 0.7, "do_sample": True, "top_h": 0.9, "top_k": 9, "top_p": 0.9, "min_p": 0.01, "typical_p": 0.9},
    {"do_sample": True, "epsilon_cutoff": 0.01, "eta_cutoff": 0.02, "num_beams": 3, "renormalize_logits": True},
    {
        "sequence_bias": {(1,): 2.0},
        "encoder_repetition_penalty": 1.2,
        "repetition_penalty": 1.3,
        "no_repeat_ngram_size": 3,
        "encoder_no_repeat_ngram_size": 3,
        "bad_words_ids": [[4]],
        "min_length": 9,
        "min_new_tokens": 3,
        "forced_bos_token_id": 3,
        "forced_eos_token_id": 4,
        "remove_invalid_values": True,
        "exponential_decay_length_penalty": (1, 1.1),
        "suppress_tokens": [8],
        "begin_suppress_tokens": [9],
        "renormalize_logits": True,
    },
    {},
]


@pytest.mark.parametrize("values", CONFIGS)
@pytest.mark.parametrize("prompt", [1, T])
def test_the_order_and_the_whole(values: dict[str, Anything], prompt: int) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    theirs = peer.GenerationConfig(**values)
    theirs.update(**theirs._get_default_generation_params(), defaults_only=True)
    theirs._eos_token_tensor = torch.tensor(ENDS)
    ids, mask = ids_of(0, prompt), torch.ones(B, prompt, dtype=torch.long)
    if prompt > 1:
        mask[1, :2] = 0
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=4, vocab_size=V))
    custom = peer.LogitsProcessorList()
    expected = model._get_logits_processor(
        theirs, prompt, ids, lambda text, row: list(range(1, 20)), custom, "cpu", {"attention_mask": mask}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        config = GenerationConfig(**values)
        config.update(defaults_only=True, **DEFAULTS)
    facts = ProcessorFacts(prompt, ids, mask, torch.tensor(ENDS))
    found = build_logits_processors(config, facts, lambda text, row: list(range(1, 20)))
    assert [type(each).__name__ for each in found] == [type(each).__name__ for each in expected]
    for step in range(3):
        rows = torch.cat([ids, ids_of(9)[:, :step]], dim=1)
        scores = scores_of(step)
        torch.testing.assert_close(found(rows, scores), expected(rows, scores.clone()), rtol=1e-5, atol=1e-5)
