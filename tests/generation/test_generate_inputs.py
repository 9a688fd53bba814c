"""What `generate` of tiny real models makes of inputs at the edge: filled caches, long texts, places."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import pytest
import torch
from decoder_helpers import DECODER_CONFIGS
from seq2seq_helpers import SEQ2SEQ_CONFIGS, randomise_pair
from torch import Tensor

from sparse_encoder.generation import (
    CausalLanguageModel,
    DynamicCache,
    EncoderDecoderCache,
    GenerationConfig,
    Seq2SeqModel,
    StaticCache,
)

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
ENDLESS = {"eos_token_id": None, "pad_token_id": 0, "forced_eos_token_id": None}
PAIRS = ("t5", "bart")


@cache
def model(name: str) -> Any:  # noqa: ANN401  # a CausalLanguageModel or a Seq2SeqModel
    is_pair = name in PAIRS
    built: Any = (Seq2SeqModel if is_pair else CausalLanguageModel).from_config(
        SEQ2SEQ_CONFIGS[name] if is_pair else DECODER_CONFIGS[name]
    )
    randomise_pair(built, seed=4)
    return built.eval()


def write(name: str, ids: Tensor | None = IDS, **settings: Any) -> list[list[int]]:  # noqa: ANN401 - of generate
    return model(name).generate(ids, **{"max_new_tokens": 5, **ENDLESS, **settings}).tolist()


def longer(text: Tensor) -> Tensor:
    return torch.cat([text, text], dim=1)


@pytest.mark.parametrize("build", [DynamicCache, lambda config: StaticCache(config=config, max_cache_len=20)])
@pytest.mark.parametrize("settings", [{"num_beams": 2}, {"do_sample": True, "num_return_sequences": 2, "top_k": 1}])
def test_a_filled_cache_must_have_a_row_for_each_that_is_written(build: Any, settings: dict[str, Any]) -> None:  # noqa: ANN401
    config = model("llama").config
    kept = DynamicCache(config=config) if build is DynamicCache else build(config)
    with torch.no_grad():
        model("llama")(IDS[:, :3], past_key_values=kept)
    with pytest.raises(ValueError, match=r"past_key_values holds 2 rows, and this call writes 4 .*interleave\(2\)"):
        write("llama", past_key_values=kept, **settings)
    with pytest.raises(ValueError, match="past_key_values holds 2 rows, and this call writes 1 .*of this batch"):
        write("llama", IDS[:1], past_key_values=kept)
    kept.batch_repeat_interleave(2)
    assert write("llama", past_key_values=kept, **settings) == write("llama", **settings)


@pytest.mark.parametrize("name", PAIRS)
def test_a_cache_answers_for_the_text_that_its_encoder_read(name: str) -> None:
    kept = EncoderDecoderCache(DynamicCache(config=model(name).config))
    first = model(name).generate(IDS, max_new_tokens=3, past_key_values=kept, **ENDLESS)
    with pytest.raises(ValueError, match="what the encoder made of 4 tokens, and its input has 8: .*reset"):
        write(name, longer(IDS), decoder_input_ids=first, past_key_values=kept)
    with pytest.raises(ValueError, match="past_key_values holds 2 rows, and this call writes 1"):
        write(name, IDS[:1], decoder_input_ids=first[:1], past_key_values=kept)
    old = write(name, IDS, decoder_input_ids=first)
    assert write(name, IDS.flip(1), decoder_input_ids=first, past_key_values=kept) == old  # as transformers
    kept.reset()
    assert write(name, longer(IDS), past_key_values=kept) == write(name, longer(IDS))


@pytest.mark.parametrize(("name", "prompt", "room"), [("gpt2", 4, 37), ("bart", 1, 26)])
def test_as_much_is_written_as_a_learned_table_has_places(name: str, prompt: int, room: int) -> None:
    assert len(write(name, max_new_tokens=room)[0]) == prompt + room
    told = f"behind this prompt for {room} more: "
    with pytest.raises(ValueError, match=rf"{told}max_new_tokens must be at most {room}, got {room + 2}"):
        write(name, max_new_tokens=room + 2)
    with pytest.raises(ValueError, match=rf"{told}max_length must be at most {prompt + room}, got {prompt + room + 1}"):
        write(name, max_new_tokens=None, max_length=prompt + room + 1)


def test_padding_takes_no_place_of_a_learned_table() -> None:
    mask = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])
    assert len(write("gpt2", attention_mask=mask, max_new_tokens=38)[0]) == 42
    with pytest.raises(ValueError, match="max_new_tokens must be at most 38, got 39"):
        write("gpt2", attention_mask=mask, max_new_tokens=39)
    written = write("gpt2", attention_mask=mask, max_new_tokens=38, num_beams=2)
    assert len(written[0]) == 42


def test_a_length_that_nobody_set_ends_with_the_table() -> None:
    embeds = model("gpt2").get_input_embeddings()(torch.cat([IDS] * 9, dim=1)).detach()
    assert len(write("gpt2", None, inputs_embeds=embeds, max_new_tokens=None)[0]) == 5
    with pytest.raises(ValueError, match="max_length must be at most 41, got 60"):
        write("gpt2", None, inputs_embeds=embeds, max_new_tokens=None, max_length=60)


@pytest.mark.filterwarnings("ignore:fields of the generation config have no effect")
@pytest.mark.parametrize("pad", [-1, 99])
def test_a_pad_token_outside_the_vocabulary_matters_only_where_the_model_reads_it(pad: int) -> None:
    asked = {"max_new_tokens": 9, "eos_token_id": None}
    plain = write("llama", **asked)
    assert write("llama", **asked, pad_token_id=pad) == plain
    end = plain[0][5]
    assert end not in plain[1][4:6]
    assert write("llama", IDS[:1], eos_token_id=end, pad_token_id=pad)[0] == plain[0][:6]
    with pytest.raises(ValueError, match=rf"pad_token_id must lie between 0 and 16, .* got {pad}; pass pad_token_id"):
        write("llama", eos_token_id=end, pad_token_id=pad, max_new_tokens=9)
    fits = {"eos_token_id": end, "num_beams": 2, "max_new_tokens": 9}
    expected = write("llama", **fits, pad_token_id=0)
    got = write("llama", **fits, pad_token_id=pad)
    assert [[token for token in row if token != pad] for row in got] == [
        row[: row.index(end, 4) + 1] if end in row[4:] else row for row in expected
    ]


def test_begin_tokens_are_counted_by_what_is_given() -> None:
    begun = write("bart", None, decoder_input_ids=IDS)
    assert begun == write("bart", torch.zeros(2, 1, dtype=torch.int64), decoder_input_ids=IDS)
    with pytest.raises(ValueError, match="attention_mask must have one column where nothing is given"):
        write("bart", None, attention_mask=torch.ones(2, 4, dtype=torch.int64))


def test_places_of_one_row_are_those_of_every_text() -> None:
    for name in ("gpt2", "llama"):
        places = torch.tensor([[3, 5, 6, 9]])
        assert write(name, position_ids=places) == write(name, position_ids=places.expand(2, -1))
        assert write(name, position_ids=places, num_beams=2) == write(
            name, position_ids=places.expand(2, -1), num_beams=2
        )


@pytest.mark.parametrize("name", PAIRS)
def test_what_an_encoder_made_may_be_a_tuple(name: str) -> None:
    expected = write(name)
    hidden = model(name).encode(IDS).last_hidden_state
    assert write(name, None, encoder_outputs=(hidden,)) == expected
    assert write(name, None, encoder_outputs=[hidden], num_beams=2) == write(name, num_beams=2)
    with pytest.raises(TypeError, match="encoder_outputs must be what model.encode returns, got tuple"):
        write(name, None, encoder_outputs=())


def test_ids_beside_embeddings_are_not_penalised_as_the_input() -> None:
    embeds = model("llama").get_input_embeddings()(IDS).detach()
    plain = write("llama", inputs_embeds=embeds)
    assert plain == write("llama")
    with pytest.warns(UserWarning, match="encoder_repetition_penalty needs the tokens of the input"):
        assert write("llama", inputs_embeds=embeds, encoder_repetition_penalty=5.0) == plain
    assert write("llama", encoder_repetition_penalty=5.0) != plain


@pytest.mark.parametrize("name", ["gpt2", "llama", *PAIRS])
def test_embeddings_of_another_dtype_are_refused(name: str) -> None:
    """Unless autocast settles it."""
    embeds = model(name).get_input_embeddings()(IDS).detach()
    with pytest.raises(ValueError, match=r"inputs_embeds must be .*float32, got .*bfloat16; use inputs_embeds\.to"):
        write(name, None, inputs_embeds=embeds.bfloat16())
    if name == "gpt2":
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            assert len(write(name, None, inputs_embeds=embeds.bfloat16(), max_new_tokens=2)[0]) == 2
    if name in PAIRS:
        with pytest.raises(ValueError, match="decoder_inputs_embeds must be of the model's dtype"):
            model(name)(IDS, decoder_inputs_embeds=embeds.double())


def test_prefixes_are_asked_for_texts_and_where_rows_are_drawn_for_rows() -> None:
    heard: list[int] = []

    def allowed(number: int, ids: Tensor) -> list[int]:
        heard.append(number)
        return list(range(17))

    asked = {"prefix_allowed_tokens_fn": allowed, "max_new_tokens": 1}
    write("llama", **asked, num_beams=2)
    assert heard == [0, 0, 1, 1]
    heard.clear()
    write("llama", **asked, do_sample=True, num_return_sequences=2)
    assert heard == [0, 1, 2, 3]


def test_a_model_takes_no_foreign_generation_config() -> None:
    fresh = CausalLanguageModel.from_config(DECODER_CONFIGS["llama"])
    with pytest.raises(TypeError, match=r"got builtins\.dict; use GenerationConfig\.from_dict"):
        fresh.generation_config = {"max_new_tokens": 3}  # type: ignore[assignment]
    fresh.generation_config = GenerationConfig(max_new_tokens=3)
    assert fresh.eval().generate(IDS).shape == (2, 7)


WARNED: dict[str, dict[str, Any]] = {
    "both lengths": {"max_length": 9},
    "both minima": {"min_length": 2, "min_new_tokens": 1},
    "a minimum beyond the end": {"min_new_tokens": 9},
    "a config and settings": {"generation_config": GenerationConfig()},
    "a field without effect": {"temperature": 0.5},
    "no mask": {"eos_token_id": 2, "pad_token_id": None},
    "padding on the right": {"pad_token_id": 8},
}


@pytest.mark.parametrize("case", WARNED)
def test_warnings_point_at_the_call(case: str) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        write("llama", **WARNED[case])
    assert [warning.filename for warning in seen] == [__file__]


def test_a_config_warns_where_it_is_built() -> None:
    with pytest.warns(UserWarning, match="temperature") as seen:
        GenerationConfig(temperature=0.5).validate()
    assert {warning.filename for warning in seen} == {__file__}
