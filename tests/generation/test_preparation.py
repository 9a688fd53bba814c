"""What a model is called with: masks, places, rows, caches and lengths."""

from __future__ import annotations

import warnings
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from generate_helpers import CountingCache, TableModel, random_table

PADDED = torch.tensor([[0, 0, 3], [4, 1, 2]])
MASK = torch.tensor([[0, 0, 1], [1, 1, 1]])


model = partial(TableModel, random_table(11))


def test_the_mask_grows_by_ones_and_places_go_on() -> None:
    table = model()
    table.generate(PADDED, attention_mask=MASK, max_new_tokens=3)
    assert [call["attention_mask"].tolist() for call in table.calls] == [
        [[0, 0, 1], [1, 1, 1]],
        [[0, 0, 1, 1], [1, 1, 1, 1]],
        [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]],
    ]
    assert [call["position_ids"].tolist() for call in table.calls] == [
        [[0, 0, 0], [0, 1, 2]],
        [[1], [3]],
        [[2], [4]],
    ]


def test_a_mask_grows_past_what_it_takes_at_once() -> None:
    table = model()
    table.config.max_positions = 1000
    table.generate(PADDED, attention_mask=MASK, max_new_tokens=300)
    last = table.calls[-1]["attention_mask"]
    assert last.shape == (2, 302)
    assert last.sum(1).tolist() == [300, 302]


def test_without_a_cache_all_tokens_and_places_are_read_again() -> None:
    table = model()
    table.generate(PADDED, attention_mask=MASK, max_new_tokens=2, use_cache=False)
    second = table.calls[1]
    assert second["input_ids"].shape == (2, 4)
    assert second["position_ids"].tolist() == [[0, 0, 0, 1], [0, 1, 2, 3]]
    assert second["past_key_values"] is None
    assert second["use_cache"] is False


def test_where_all_tokens_count_places_are_left_to_the_model() -> None:
    for mask in (None, torch.ones(2, 3)):
        table = model()
        table.generate(PADDED, attention_mask=mask, max_new_tokens=2)
        assert all(call["position_ids"] is None for call in table.calls)
        assert [call["attention_mask"].tolist() for call in table.calls] == [[[1] * 3] * 2, [[1] * 4] * 2]


def test_padding_is_told_by_its_token_where_no_mask_is_given() -> None:
    table = model(pad_token_id=0, eos_token_id=5)
    table.generate(PADDED, max_new_tokens=1)
    assert table.calls[0]["attention_mask"].tolist() == MASK.tolist()


def test_padding_that_also_ends_texts_is_text_and_a_warning_tells() -> None:
    table = model(pad_token_id=0, eos_token_id=[5, 0])
    with pytest.warns(UserWarning, match="padding cannot be told from the end token"):
        table.generate(PADDED, max_new_tokens=1)
    assert table.calls[0]["attention_mask"].all()


def test_a_missing_pad_token_is_told_of_a_batch_without_mask_and_of_nothing_else() -> None:
    with pytest.warns(UserWarning, match="pass attention_mask"):
        model(eos_token_id=5).generate(PADDED, max_new_tokens=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(eos_token_id=5).generate(PADDED[:1], max_new_tokens=1)
        model(eos_token_id=5).generate(PADDED, attention_mask=MASK, max_new_tokens=1)


@pytest.mark.parametrize("mask", [None, MASK.flip(1)])
def test_padding_on_the_right_is_told(mask: torch.Tensor | None) -> None:
    with pytest.warns(UserWarning, match="padding_side='left'"):
        model(pad_token_id=0, eos_token_id=5).generate(PADDED.flip(1), attention_mask=mask, max_new_tokens=1)


def test_a_single_text_is_never_padded_on_the_wrong_side() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model(pad_token_id=0).generate(torch.tensor([[3, 0]]), max_new_tokens=1).shape == (1, 3)


def test_rows_of_a_text_stand_next_to_each_other() -> None:
    table = model(pad_token_id=0, eos_token_id=5)
    table.generate(PADDED, attention_mask=MASK, max_new_tokens=1, num_beams=2)
    call = table.calls[0]
    assert call["input_ids"].tolist() == [[0, 0, 3], [0, 0, 3], [4, 1, 2], [4, 1, 2]]
    assert call["attention_mask"].tolist() == [[0, 0, 1], [0, 0, 1], [1, 1, 1], [1, 1, 1]]
    assert call["position_ids"].tolist() == [[0, 0, 0], [0, 0, 0], [0, 1, 2], [0, 1, 2]]


def test_places_that_are_given_are_taken_and_go_on() -> None:
    table = model()
    table.generate(PADDED, position_ids=torch.tensor([[4, 5, 6], [7, 8, 9]]), max_new_tokens=2)
    assert [call["position_ids"].tolist() for call in table.calls] == [[[4, 5, 6], [7, 8, 9]], [[7], [10]]]


def test_only_the_last_logits_are_asked_for() -> None:
    table = model()
    table.generate(PADDED, max_new_tokens=2, return_dict_in_generate=True, output_attentions=True)
    assert [call["logits_to_keep"] for call in table.calls] == [1, 1]
    assert all(call["output_attentions"] and not call["output_hidden_states"] for call in table.calls)


def test_a_cache_has_a_row_for_each_beam_and_a_place_for_all_but_the_last_token() -> None:
    for settings, rows, expected in (
        ({"max_new_tokens": 4, "num_beams": 3}, 6, ("dynamic", 6)),
        ({"max_length": 9, "cache_implementation": "static"}, 2, ("static", 8)),
        ({"max_length": 9, "cache_implementation": "static", "max_cache_len": 32}, 2, ("static", 32)),
        ({"max_length": 9, "cache_implementation": "static", "max_cache_len": 4}, 2, ("static", 8)),
        ({"max_length": 9, "cache_implementation": "dynamic"}, 2, ("dynamic", 8)),
    ):
        table = model()
        table.generate(PADDED, **settings)
        assert table.caches == [expected]
        assert table.calls[-1]["past_key_values"].history.shape[0] == rows


def test_only_what_a_cache_does_not_hold_is_read() -> None:
    for given in ("all", "new"):
        table = model()
        cache = CountingCache(2)
        first = table.generate(PADDED, attention_mask=MASK, past_key_values=cache, max_new_tokens=2)
        assert cache.length == 4
        more = torch.cat([first, torch.tensor([[6, 7], [8, 9]])], dim=1)  # 7 tokens, 4 of them read
        mask = torch.cat([MASK, torch.ones(2, 4, dtype=torch.int64)], dim=1)
        table.calls.clear()
        ids = more if given == "all" else more[:, 4:]
        second = table.generate(ids, attention_mask=mask, past_key_values=cache, max_new_tokens=2)
        assert table.calls[0]["input_ids"].tolist() == more[:, 4:].tolist()
        assert table.calls[0]["attention_mask"].tolist() == mask.tolist()
        assert table.calls[0]["position_ids"].tolist() == [[2, 3, 4], [4, 5, 6]]
        assert table.calls[1]["position_ids"].tolist() == [[5], [7]]
        assert second[:, : ids.shape[1]].tolist() == ids.tolist()
        assert cache.length == 8


def test_a_full_text_behind_a_cache_needs_no_mask() -> None:
    table = model()
    cache = CountingCache(2)
    first = table.generate(PADDED, past_key_values=cache, max_new_tokens=2)
    table.calls.clear()
    table.generate(torch.cat([first, first[:, :1]], dim=1), past_key_values=cache, max_new_tokens=1)
    assert table.calls[0]["input_ids"].shape == (2, 2)


class EmbeddingTable(TableModel):
    """Read embeddings too: their first number names the token."""

    def __call__(self, **values: Any) -> Any:  # noqa: ANN401
        embeds = values["inputs_embeds"]
        if embeds is not None:
            assert values["input_ids"] is None
            output = super().__call__(**{**values, "input_ids": embeds[..., 0].long()})
            self.calls[-1] = values
            return output
        return super().__call__(**values)


def test_embeddings_are_read_once_and_only_new_tokens_are_returned() -> None:
    embeds = torch.tensor([[[0.0], [3.0]], [[4.0], [1.0]]])
    ids = embeds[..., 0].long()
    expected = EmbeddingTable(random_table(11)).generate(ids, max_new_tokens=3)
    table = EmbeddingTable(random_table(11))
    written = table.generate(inputs_embeds=embeds, max_new_tokens=3, use_cache=False)  # a cache is there all the same
    assert written.tolist() == expected[:, 2:].tolist()
    assert [call["inputs_embeds"] is None for call in table.calls] == [False, True, True]
    assert table.calls[1]["input_ids"].shape == (2, 1)
    both = EmbeddingTable(random_table(11)).generate(ids, inputs_embeds=embeds, max_new_tokens=3)
    assert both.tolist() == expected.tolist()


def test_a_length_set_by_the_user_counts_embeddings() -> None:
    embeds = torch.ones(1, 4, 1)
    table = EmbeddingTable(random_table(11))
    assert table.generate(inputs_embeds=embeds, max_length=9).shape == (1, 5)
    assert table.generate(inputs_embeds=embeds).shape == (1, 20)
    static = EmbeddingTable(random_table(11))
    static.generate(inputs_embeds=embeds, max_new_tokens=3, cache_implementation="static")
    assert static.caches == [("static", 6)]


def test_settings_none_switches_defaults_off() -> None:
    assert model().generate(PADDED, max_new_tokens=1, top_k=None, num_beams=None, do_sample=None).shape == (2, 4)


class WritingPair(TableModel):
    """A table behind an encoder that repeats what it reads."""

    is_encoder_decoder = True

    def encode(self, input_ids: Any, attention_mask: Any, **values: Any) -> Any:  # noqa: ANN401
        self.calls.append({"encoded": input_ids, "mask": attention_mask, **values})
        ids = input_ids if input_ids is not None else values["inputs_embeds"][..., 0].long()
        return SimpleNamespace(last_hidden_state=ids[..., None].float(), hidden_states=None, attentions=None)

    def __call__(self, **values: Any) -> Any:  # noqa: ANN401
        output = super().__call__(**{**values, "input_ids": values["decoder_input_ids"]})
        fields = {"decoder_attentions": None, "cross_attentions": None, "decoder_hidden_states": None}
        return SimpleNamespace(logits=output.logits, **fields)


pair = partial(WritingPair, random_table(11))


def test_a_decoder_behind_an_encoder_begins_with_its_start_token() -> None:
    writer = pair(decoder_start_token_id=7)
    written = writer.generate(PADDED, attention_mask=MASK, max_new_tokens=2)
    assert written[:, 0].tolist() == [7, 7]
    assert writer.calls[0]["encoded"].tolist() == PADDED.tolist()
    assert [call["decoder_input_ids"].shape for call in writer.calls[1:]] == [(2, 1), (2, 1)]
    assert all(call["attention_mask"].tolist() == MASK.tolist() for call in writer.calls[1:])


def test_the_start_token_may_differ_by_text_and_falls_back_to_the_begin_token() -> None:
    mask = torch.ones(2, 3)
    written = pair().generate(PADDED, attention_mask=mask, decoder_start_token_id=[7, 8], max_new_tokens=1)
    assert written[:, 0].tolist() == [7, 8]
    assert pair(bos_token_id=3).generate(PADDED, attention_mask=mask, max_new_tokens=1)[:, 0].tolist() == [3, 3]
    with pytest.raises(ValueError, match="decoder_start_token_id must be one token or one for each of 2 texts, got 3"):
        pair().generate(PADDED, decoder_start_token_id=[7, 8, 9])
    with pytest.raises(ValueError, match="needs decoder_start_token_id or bos_token_id"):
        pair().generate(PADDED)


def test_the_start_token_is_put_in_front_only_if_no_row_has_it() -> None:
    mask = torch.tensor([[1, 0], [1, 1]])
    writer = pair(decoder_start_token_id=7)
    given = torch.tensor([[1, 2], [3, 4]])
    written = writer.generate(PADDED, decoder_input_ids=given, decoder_attention_mask=mask, max_new_tokens=1)
    assert written[:, :3].tolist() == [[7, 1, 2], [7, 3, 4]]
    assert writer.calls[1]["decoder_attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    given = torch.tensor([[1, 2], [7, 4]])
    assert (
        pair(decoder_start_token_id=7).generate(PADDED, decoder_input_ids=given, max_new_tokens=1)[:, :2].tolist()
        == given.tolist()
    )


def test_what_the_encoder_made_is_repeated_for_beams_and_can_be_given() -> None:
    writer = pair(decoder_start_token_id=7)
    by_ids = writer.generate(PADDED, attention_mask=MASK, num_beams=2, max_new_tokens=3)
    states = writer.calls[1]["encoder_outputs"].last_hidden_state
    assert states[..., 0].tolist() == PADDED.repeat_interleave(2, dim=0).tolist()
    assert writer.calls[1]["attention_mask"].tolist() == MASK.repeat_interleave(2, dim=0).tolist()
    given = pair(decoder_start_token_id=7)
    outputs = SimpleNamespace(last_hidden_state=PADDED[..., None].float(), hidden_states=None, attentions=None)
    by_outputs = given.generate(encoder_outputs=outputs, attention_mask=MASK, num_beams=2, max_new_tokens=3)
    assert by_outputs.tolist() == by_ids.tolist()
    assert "encoded" not in given.calls[0]


def test_an_encoder_reads_ids_or_embeddings() -> None:
    embeds = PADDED[..., None].float()
    writer = pair(decoder_start_token_id=7)
    written = writer.generate(inputs_embeds=embeds, max_new_tokens=2)
    assert writer.calls[0]["encoded"] is None
    assert written.tolist() == pair(decoder_start_token_id=7).generate(PADDED, max_new_tokens=2).tolist()
    with pytest.raises(ValueError, match="input_ids and inputs_embeds are both given; an encoder reads one of them"):
        writer.generate(PADDED, inputs_embeds=embeds)


def test_lengths_behind_an_encoder_count_the_tokens_of_the_decoder() -> None:
    assert pair(decoder_start_token_id=7).generate(PADDED, max_length=5).shape == (2, 5)
    with pytest.raises(ValueError, match="decoder_input_ids is 1 tokens long, and max_length=1"):
        pair(decoder_start_token_id=7).generate(PADDED, max_length=1)
    with pytest.raises(ValueError, match="attention_mask must cover the 3 tokens of the encoder, got 2"):
        pair(decoder_start_token_id=7).generate(PADDED, attention_mask=torch.ones(2, 2))


def test_padding_is_not_penalised_as_repeated() -> None:
    table = torch.full((11, 11), -1.0)
    table[:, 0], table[:, 4] = 4.0, 3.0
    prompt = torch.tensor([[0, 0, 5], [0, 0, 5]])
    settings = {"repetition_penalty": 2.0, "max_new_tokens": 1, "eos_token_id": 9, "pad_token_id": 0}
    padded = TableModel(table).generate(prompt, attention_mask=torch.tensor([[0, 0, 1]] * 2), **settings)
    assert padded[:, -1].tolist() == [0, 0]  # not yet written, so 4.0 stays above 3.0
    whole = TableModel(table).generate(prompt, attention_mask=torch.ones(2, 3), **settings)
    assert whole[:, -1].tolist() == [4, 4]  # written in the prompt: 4.0 / 2.0


def test_no_pair_of_tokens_comes_twice_where_none_may() -> None:
    for settings in ({}, {"num_beams": 3}, {"do_sample": True, "generator": torch.Generator().manual_seed(0)}):
        written = model().generate(PADDED[1:], no_repeat_ngram_size=2, max_new_tokens=30, **settings)[0].tolist()
        pairs = list(zip(written, written[1:], strict=False))
        assert len(set(pairs)) == len(pairs)
