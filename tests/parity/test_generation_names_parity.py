"""What scripts import from transformers' generation, and how they make it, is found here by the same names."""

from __future__ import annotations

import inspect
import re

import pytest
import torch
from decoder_helpers import DECODER_CONFIGS
from seq2seq_helpers import SEQ2SEQ_CONFIGS

from sparse_encoder import generation
from sparse_encoder.generation import (
    CausalLanguageModel,
    GenerationConfig,
    GenerationMode,
    Seq2SeqModel,
    SequenceBiasLogitsProcessor,
)

transformers = pytest.importorskip("transformers")

NOT_OFFERED = re.compile(
    "Assist|Candidate|Alternating|Bayesian|Guidance|Compile|Confidence|Continuous|Diffusion|Scheduler|SynthID|Watermark"
    "|Whisper"
)
"""What is about assistants, watermarks, guidance, sound, compilers and servers."""


def public_classes() -> list[str]:
    import transformers.generation as peer

    names = {name for name in dir(peer) if inspect.isclass(getattr(peer, name))}
    return sorted(name for name in names if not NOT_OFFERED.search(name))


def test_every_class_of_transformers_has_its_name_here() -> None:
    assert public_classes()
    assert [name for name in public_classes() if not hasattr(generation, name)] == []


@pytest.mark.parametrize("name", [name for name in generation.__all__ if re.search("Processor|Warper|Criteria", name)])
def test_constructors_take_what_those_of_transformers_take(name: str) -> None:
    import transformers.generation as peer

    theirs = inspect.signature(getattr(peer, name)).parameters
    assert list(inspect.signature(getattr(generation, name)).parameters)[: len(theirs)] == list(theirs)


@pytest.mark.parametrize(
    "values",
    [{}, {"do_sample": True}, {"num_beams": 2}, {"num_beams": 2, "do_sample": True}, {"num_beams": 1}],
    ids=str,
)
def test_modes(values: dict[str, object]) -> None:
    mode = GenerationConfig(**values).get_generation_mode()
    assert isinstance(mode, GenerationMode)
    assert mode == transformers.GenerationConfig(**values).get_generation_mode().value


def test_attributes_of_processors() -> None:
    words = [[1], [4], [1, 0]]
    assert generation.NoBadWordsLogitsProcessor(words).bad_word_ids == words
    assert SequenceBiasLogitsProcessor([[[4, 6], -0.6], [[8], 1.2]]).sequence_bias == {(4, 6): -0.6, (8,): 1.2}
    scores = torch.zeros(1, 3)
    beginning = generation.SuppressTokensAtBeginLogitsProcessor([2], begin_index=4)
    beginning.set_begin_index(1)
    assert beginning(torch.ones(1, 1, dtype=torch.long), scores).tolist() == [[0.0, 0.0, -torch.inf]]
    assert beginning(torch.ones(1, 4, dtype=torch.long), scores).tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_places_to_score_are_a_number_or_named(name: str) -> None:
    kind, values = (CausalLanguageModel, DECODER_CONFIGS) if name == "gpt2" else (Seq2SeqModel, SEQ2SEQ_CONFIGS)
    model, ids = kind.from_config(values[name]).eval(), torch.tensor([[5, 6, 7, 4], [9, 10, 8, 3]])
    given = {} if name == "gpt2" else {"decoder_input_ids": ids}
    with torch.no_grad():
        every = model(ids, **given).logits
        for kept, expected in ((2, every[:, 2:]), (torch.tensor([0, 3]), every[:, [0, 3]]), (0, every)):
            torch.testing.assert_close(model(ids, logits_to_keep=kept, **given).logits, expected)
    for wrong in (-1, True, torch.tensor([[1]]), torch.tensor([1.0])):
        with pytest.raises(ValueError, match="logits_to_keep must"):
            model(ids, logits_to_keep=wrong, **given)
    with pytest.raises(ValueError, match="labels|logits_to_keep"):
        model(ids, labels=ids, logits_to_keep=torch.tensor([0]), **given)


@pytest.mark.parametrize("ends", [-1, [-1], torch.tensor([-1])], ids=str)
def test_an_end_of_minus_one_takes_the_ends_of_the_model_away(ends: object) -> None:
    torch.manual_seed(0)
    model = CausalLanguageModel.from_config(DECODER_CONFIGS["llama"]).eval()
    ids = torch.tensor([[5, 6, 7], [9, 10, 8]])
    first = model.generate(ids, max_new_tokens=1, eos_token_id=None, pad_token_id=0)[:, -1]
    model.generation_config.eos_token_id = first  # each row ends at once
    assert model.generation_config.eos_token_id == first.tolist()
    settings = {"max_new_tokens": 4, "attention_mask": torch.ones_like(ids), "pad_token_id": 0}
    assert model.generate(ids, **settings).shape == (2, 4)
    endless = model.generate(ids, eos_token_id=ends, **settings)
    assert endless.shape == (2, 7)
    config = GenerationConfig(eos_token_id=ends)
    with pytest.warns(UserWarning, match="are both given"):
        assert torch.equal(model.generate(ids, generation_config=config, **settings), endless)
    model.generation_config.eos_token_id = ends
    assert torch.equal(model.generate(ids, **settings), endless)
