"""An encoder with a decoder: what it is called with, its cache, its words, and what changes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from seq2seq_helpers import SEQ2SEQ_CONFIGS, B, D, S, T, V, decoder_ids, encoder_batch, randomise_pair
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sparse_encoder.backbone import LoraConfig
from sparse_encoder.backbone.cache import DynamicCache, EncoderDecoderCache
from sparse_encoder.checkpoint import CheckpointError, ConfigError
from sparse_encoder.generation.outputs import EncoderOutput
from sparse_encoder.generation.seq2seq_call import shift_right
from sparse_encoder.generation.seq2seq_model import Seq2SeqModel
from sparse_encoder.generation.token_loss import token_loss

NAMES = ["t5", "bart"]


def model_of(name: str, **changes: Any) -> Seq2SeqModel:  # noqa: ANN401 - JSON
    model = Seq2SeqModel.from_config({**SEQ2SEQ_CONFIGS[name], **changes}).eval()
    randomise_pair(model)
    return model


def given(name: str) -> dict[str, Tensor]:
    return encoder_batch(left=True, pad=SEQ2SEQ_CONFIGS[name]["pad_token_id"])


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_labels_are_shifted_by_hand() -> None:
    labels = torch.tensor([[5, 6, 7, 1], [8, -100, 9, -100]])
    expected = torch.tensor([[3, 5, 6, 7], [3, 8, 0, 9]])
    assert torch.equal(shift_right(labels, start=3, pad=0), expected)
    assert labels[1, 1] == -100  # what was given is left alone


@pytest.mark.parametrize("name", NAMES)
def test_labels_stand_for_the_decoders_input_and_give_the_loss(name: str) -> None:
    model, labels = model_of(name), decoder_ids()
    labels[1, 2:] = -100
    start, pad = model.hf_config["decoder_start_token_id"], model.hf_config["pad_token_id"]
    shifted = torch.cat([torch.full((B, 1), start), labels[:, :-1]], dim=1)
    shifted[shifted == -100] = pad
    with torch.no_grad():
        got = model(**given(name), labels=labels)
        logits = model(**given(name), decoder_input_ids=shifted).logits
    close(got.logits, logits)
    chosen = logits.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    counted = labels != -100
    assert got.loss is not None
    close(got.loss, -chosen[counted].mean())
    assert got.past_key_values is None


def test_a_loss_without_labels_is_nothing_and_one_in_half_precision_is_summed_in_float32() -> None:
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    nothing = token_loss(logits, torch.full((2, 3), -100))
    nothing.backward()
    assert nothing.item() == 0 and logits.grad is not None and not logits.grad.any()
    labels = torch.tensor([[0, 1, 2], [3, 4, -100]])
    half = token_loss(logits.detach().bfloat16(), labels)
    assert half.dtype == torch.float32
    close(half, token_loss(logits.detach().bfloat16().float(), labels))
    with pytest.raises(ValueError, match="a label must be -100 or an id from 0 to 4, got 5"):
        token_loss(logits, labels + 1)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("name", SEQ2SEQ_CONFIGS)
def test_token_by_token_with_a_cache_is_the_whole_text(name: str, kind: str) -> None:
    model, ids = model_of(name), decoder_ids()
    encoded = model.encode(**given(name))
    mask = given(name)["attention_mask"]
    cache = model.new_cache(kind, 8)
    with torch.no_grad():
        whole = model(**given(name), decoder_input_ids=ids, use_cache=False)
        assert whole.past_key_values is None
        for place in range(T):
            step = model(
                encoder_outputs=encoded,
                attention_mask=mask,
                decoder_input_ids=ids[:, place : place + 1],
                past_key_values=cache,
            )
            close(step.logits[:, 0], whole.logits[:, place])
    assert step.past_key_values is cache and cache.get_seq_length() == T


def test_the_encoders_keys_are_computed_once_and_follow_the_beams() -> None:
    model = model_of("t5")
    encoded, mask, ids = model.encode(**given("t5")), given("t5")["attention_mask"], decoder_ids()
    rows = torch.tensor([2, 0, 0])
    calls: list[int] = []
    attention = model.decoder.layers[1].cross_attention.k  # type: ignore[union-attr]
    attention.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[union-attr]
    with torch.no_grad():
        cache = model(encoder_outputs=encoded, attention_mask=mask, decoder_input_ids=ids[:, :3]).past_key_values
        cache.reorder_cache(rows)
        chosen = EncoderOutput(last_hidden_state=encoded.last_hidden_state[rows])
        step = model(
            encoder_outputs=chosen,
            attention_mask=mask[rows],
            decoder_input_ids=ids[rows, 3:4],
            past_key_values=cache,
        )
        assert len(calls) == 1
        whole = model(encoder_outputs=chosen, attention_mask=mask[rows], decoder_input_ids=ids[rows, :4]).logits
    close(step.logits[:, 0], whole[:, 3])


@pytest.mark.parametrize("name", NAMES)
def test_padding_of_the_encoder_changes_nothing(name: str) -> None:
    """In t5, which knows distances only, at both sides; bart counts places from the first column on."""
    model, ids = model_of(name), decoder_ids()
    left = name == "t5"
    batch = encoder_batch(left=left, pad=SEQ2SEQ_CONFIGS[name]["pad_token_id"])
    with torch.no_grad():
        together = model(**batch, decoder_input_ids=ids).logits
        for row, length in enumerate((S, 4, 2)):
            tokens = slice(S - length, S) if left else slice(0, length)
            alone = model(batch["input_ids"][row : row + 1, tokens], decoder_input_ids=ids[row : row + 1]).logits
            close(alone[0], together[row])


@pytest.mark.parametrize("name", NAMES)
def test_words_are_in_memory_once_and_in_the_file_once(name: str, tmp_path: Path) -> None:
    model = model_of(name)
    words = model.get_input_embeddings().weight
    assert model.head.weight is words
    assert [key for key, each in model.named_parameters(remove_duplicate=False) if each is words] == [
        "backbone.embeddings.word.weight",
        "head.weight",
    ]
    assert sum(each.shape == (V, D) for each in model.parameters()) == 1
    model.save_pretrained(tmp_path)
    assert sum(each.shape == (V, D) for each in load_file(tmp_path / "model.safetensors").values()) == 1
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == [f"{'T5' if name == 't5' else 'Bart'}ForConditionalGeneration"]
    back = Seq2SeqModel.from_pretrained(tmp_path)
    assert back.head.weight is back.get_input_embeddings().weight
    assert back.config == model.config and back.hf_config["decoder_start_token_id"] in (0, 2)


def test_a_missing_tensor_of_the_decoder_is_named(tmp_path: Path) -> None:
    model = model_of("bart")
    state = model.state_dict()
    del state["decoder.layers.1.cross_attention.q.weight"]
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(CheckpointError, match=r"cross_attention\.q\.weight|decoder\.layers\.1\.encoder_attn\.q_proj"):
        Seq2SeqModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("rows", [23, 11])
@pytest.mark.parametrize("name", ["t5", "t5 v1.1", "bart", "bart with a head of its own"])
def test_the_vocabulary_grows_and_shrinks_in_both_stacks(name: str, rows: int, tmp_path: Path) -> None:
    model = model_of(name)
    ids = decoder_ids() % 8 + 3
    batch = {**given(name), "input_ids": given(name)["input_ids"] % 8 + 3}
    with torch.no_grad():
        before = model(**batch, decoder_input_ids=ids).logits
        model.resize_token_embeddings(rows, mean_resizing=False)
        after = model(**batch, decoder_input_ids=ids).logits
    kept = min(V, rows)
    assert after.shape == (B, T, rows)
    close(after[..., :kept], before[..., :kept])
    assert model.config.vocab_size == rows and model.decoder.config.vocab_size == rows
    assert model.hf_config["vocab_size"] == rows
    model.save_pretrained(tmp_path)
    back = Seq2SeqModel.from_pretrained(tmp_path)
    with torch.no_grad():
        close(back(**batch, decoder_input_ids=ids).logits, after)


def test_gradients_flow_to_every_parameter_with_and_without_recomputing() -> None:
    for name in NAMES:
        model, labels = model_of(name), decoder_ids()
        model.train()
        for module in model.modules():
            if type(module).__name__ == "Dropout":
                module.p = 0.0
        model(**given(name), labels=labels).loss.backward()
        expected = {key: each.grad.clone() for key, each in model.named_parameters() if each.grad is not None}
        assert expected.keys() == {key for key, _ in model.named_parameters()}
        model.zero_grad()
        model.gradient_checkpointing_enable()
        assert model.decoder.gradient_checkpointing
        model(**given(name), labels=labels).loss.backward()
        for key, each in model.named_parameters():
            assert each.grad is not None
            close(each.grad, expected[key])
        model.gradient_checkpointing_disable()
        assert not model.decoder.gradient_checkpointing


def test_heads_of_the_encoder_can_be_taken_out(tmp_path: Path) -> None:
    model = model_of("t5")
    model.prune_heads({0: [1]})
    model.save_pretrained(tmp_path)
    back = Seq2SeqModel.from_pretrained(tmp_path)
    ids = decoder_ids()
    with torch.no_grad():
        close(back(**given("t5"), decoder_input_ids=ids).logits, model(**given("t5"), decoder_input_ids=ids).logits)
    assert back.config.pruned_heads == ((1,), ())


def test_only_the_last_logits_on_demand() -> None:
    model, ids = model_of("bart"), decoder_ids()
    with torch.no_grad():
        whole = model(**given("bart"), decoder_input_ids=ids).logits
        last = model(**given("bart"), decoder_input_ids=ids, logits_to_keep=1).logits
    assert last.shape == (B, 1, V)
    close(last, whole[:, -1:])


def test_states_and_attentions_are_given_when_asked_for() -> None:
    model, ids = model_of("bart"), decoder_ids()
    with torch.no_grad():
        plain = model(**given("bart"), decoder_input_ids=ids)
        full = model(**given("bart"), decoder_input_ids=ids, output_attentions=True, output_hidden_states=True)
        encoded = model.encode(**given("bart"), output_attentions=True, output_hidden_states=True)
    close(full.logits, plain.logits)
    assert plain.cross_attentions is None and plain.encoder_hidden_states is None
    assert [each.shape for each in full.cross_attentions] == [(B, 3, T, S)] * 3
    assert [each.shape for each in full.decoder_attentions] == [(B, 3, T, T)] * 3
    assert [each.shape for each in encoded.attentions] == [(B, 2, S, S)] * 2
    assert [each.shape for each in encoded.hidden_states] == [(B, S, D)] * 3
    close(full.cross_attentions[0].sum(-1), torch.ones(B, 3, T))
    assert full.cross_attentions[0][2, :, :, : S - 2].abs().max() == 0  # padding is not looked at


def test_a_cache_is_made_as_the_config_says_but_not_in_training() -> None:
    ids = decoder_ids()
    model = model_of("t5")
    assert model(**given("t5"), decoder_input_ids=ids).past_key_values.get_seq_length() == T
    assert model(**given("t5"), decoder_input_ids=ids, use_cache=False).past_key_values is None
    assert model_of("t5", use_cache=False)(**given("t5"), decoder_input_ids=ids).past_key_values is None
    assert model.train()(**given("t5"), decoder_input_ids=ids).past_key_values is None


BAD_CALLS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "ids and embeddings": (
        {"inputs_embeds": torch.zeros(B, S, D)},
        ValueError,
        "exactly one of input_ids, inputs_embeds or encoder_outputs; got 2 of them",
    ),
    "ids and what the encoder made": (
        {"encoder_outputs": (torch.zeros(B, S, D),)},
        ValueError,
        "exactly one of input_ids, inputs_embeds or encoder_outputs; got 2 of them",
    ),
    "nothing for the encoder": ({"input_ids": None}, ValueError, "encoder_outputs; got none"),
    "nothing for the decoder": (
        {"decoder_input_ids": None},
        ValueError,
        "decoder_input_ids or decoder_inputs_embeds, or labels to make them from; got none",
    ),
    "both for the decoder": (
        {"decoder_inputs_embeds": torch.zeros(B, T, D)},
        ValueError,
        "decoder_input_ids or decoder_inputs_embeds, .*; got 2 of them",
    ),
    "a tuple for a cache": ({"past_key_values": ()}, TypeError, "must be an EncoderDecoderCache, got tuple"),
    "a cache of one stack": ({"past_key_values": DynamicCache()}, TypeError, "got DynamicCache"),
    "a cache that is not used": (
        {"past_key_values": EncoderDecoderCache(DynamicCache()), "use_cache": False},
        ValueError,
        "use_cache is False",
    ),
    "labels of another shape": (
        {"labels": torch.zeros(B, T + 1, dtype=torch.long)},
        ValueError,
        r"labels must be .*\(3, 5\)",
    ),
    "labels that are no ids": ({"labels": torch.zeros(B, T)}, ValueError, "labels must be token ids"),
    "labels and few logits": (
        {"labels": torch.zeros(B, T, dtype=torch.long), "logits_to_keep": 1},
        ValueError,
        "labels need the logits of all places",
    ),
    "logits below none": ({"logits_to_keep": -1}, ValueError, "logits_to_keep must be 0 .* got -1"),
    "a mask that is too long": (
        {"decoder_attention_mask": torch.ones(B, T + 2, dtype=torch.long)},
        ValueError,
        "attention_mask must",
    ),
    "outputs of something else": (
        {"input_ids": None, "encoder_outputs": "text"},
        TypeError,
        "encoder_outputs must be what model.encode returns, got str",
    ),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_a_call_that_cannot_be_meant_is_refused(case: str) -> None:
    changes, error, message = BAD_CALLS[case]
    call = {**given("t5"), "decoder_input_ids": decoder_ids(), **changes}
    with pytest.raises(error, match=message):
        model_of("t5")(**call)


def test_encode_takes_one_input() -> None:
    model = model_of("t5")
    with pytest.raises(ValueError, match="exactly one of input_ids or inputs_embeds; got none"):
        model.encode()
    with pytest.raises(ValueError, match="got 2 of them"):
        model.encode(given("t5")["input_ids"], inputs_embeds=torch.zeros(B, S, D))


def test_a_decoder_without_a_start_token_says_what_is_missing() -> None:
    config = {key: value for key, value in SEQ2SEQ_CONFIGS["t5"].items() if key != "decoder_start_token_id"}
    model = Seq2SeqModel.from_config(config)
    with pytest.raises(ValueError, match="decoder_start_token_id must be in the config to make decoder_input_ids"):
        model(**given("t5"), labels=decoder_ids())


def test_an_unknown_cache_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"unknown cache 'quantized'; choose from \['dynamic', 'static'\]"):
        model_of("t5").new_cache("quantized", 3)


def test_a_text_longer_than_the_table_of_places_is_refused() -> None:
    model = model_of("bart")
    with pytest.raises(ValueError, match="at most 26 tokens, got 27"):
        model(torch.full((1, 27), 5), decoder_input_ids=decoder_ids()[:1])
    with pytest.raises(ValueError, match="at most 26 tokens, got 27"):
        model(torch.full((1, 3), 5), decoder_input_ids=torch.full((1, 27), 5))


def test_how_a_model_writes_comes_from_its_config_and_is_saved_beside_the_weights(tmp_path: Path) -> None:
    model = model_of("bart")
    settings = model.generation_config
    assert (settings.decoder_start_token_id, settings.forced_eos_token_id, settings.eos_token_id) == (2, 2, 2)
    settings.max_new_tokens, settings.num_beams = 7, 3
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "generation_config.json").read_text())["num_beams"] == 3
    back = Seq2SeqModel.from_pretrained(tmp_path)
    assert (back.generation_config.num_beams, back.generation_config.max_new_tokens) == (3, 7)
    assert torch.equal(back.generate(**given("bart")), model.generate(**given("bart"), num_beams=3, max_new_tokens=7))
    (tmp_path / "generation_config.json").unlink()
    assert Seq2SeqModel.from_pretrained(tmp_path).generation_config.num_beams is None


def test_a_config_that_would_do_nothing_is_not_saved(tmp_path: Path) -> None:
    model = model_of("t5")
    model.generation_config.temperature = 0.5
    with pytest.raises(ValueError, match="temperature"):
        model.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new/config.json").exists()


def test_a_damaged_generation_config_is_refused_by_its_field(tmp_path: Path) -> None:
    model_of("t5").save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"num_beams": "many"}')
    with pytest.raises(ConfigError, match="num_beams"):
        Seq2SeqModel.from_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="num_beams") as caught:
        Seq2SeqModel.from_config({**SEQ2SEQ_CONFIGS["t5"], "num_beams": "many"})
    assert caught.value.field == "num_beams"


@pytest.mark.parametrize("name", NAMES)
def test_it_writes_the_same_with_and_without_caches(name: str) -> None:
    model = model_of(name)
    assert Seq2SeqModel.can_generate()
    for settings in ({}, {"num_beams": 3}):
        expected = model.generate(**given(name), max_new_tokens=6, use_cache=False, **settings)
        assert torch.equal(model.generate(**given(name), max_new_tokens=6, **settings), expected)
        static = model.generate(**given(name), max_new_tokens=6, cache_implementation="static", **settings)
        assert torch.equal(static, expected)


@pytest.mark.parametrize("name", SEQ2SEQ_CONFIGS)
def test_operations_are_those_that_torch_counts(name: str) -> None:
    model = Seq2SeqModel.from_config(SEQ2SEQ_CONFIGS[name], attn_implementation="eager")
    batch = {**given(name), "decoder_input_ids": decoder_ids()}
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        model.eval()(**batch, use_cache=False)
    assert model.floating_point_ops(batch, count_products=True, backward=False) == counted.get_total_flops()
    assert model.floating_point_ops(batch, count_products=True) == 3 * counted.get_total_flops()
    labelled = {**given(name), "labels": decoder_ids()}
    assert model.floating_point_ops(labelled, count_products=True) == 3 * counted.get_total_flops()
    tokens = B * (S + T)
    assert model.floating_point_ops(batch) == 6 * tokens * model.num_parameters(exclude_embeddings=True)
    with pytest.raises(ValueError, match="count_products needs input_ids, and decoder_input_ids or labels"):
        model.floating_point_ops(given(name), count_products=True)


@pytest.mark.parametrize("name", NAMES)
def test_an_adapter_on_both_stacks_is_saved_and_loaded(name: str, tmp_path: Path) -> None:
    model = model_of(name)
    model.save_pretrained(tmp_path / "base")
    model = Seq2SeqModel.from_pretrained(tmp_path / "base")
    model.add_adapter(LoraConfig(target_modules=["q", "v"] if name == "t5" else ["q_proj", "v_proj"], r=2))
    changed = [key for key, _ in model.named_parameters() if ".lora_B." in key]
    assert any(key.startswith("backbone.") for key in changed) and any(".cross_attention." in key for key in changed)
    with torch.no_grad():
        before = model(**given(name), labels=decoder_ids()).logits
        for key in changed:
            model.get_parameter(key).normal_(generator=torch.Generator().manual_seed(len(key)))
        after = model(**given(name), labels=decoder_ids()).logits
        model.save_pretrained(tmp_path / "adapter")
        back = Seq2SeqModel.from_pretrained(tmp_path / "adapter", base_model=tmp_path / "base")
        close(back(**given(name), labels=decoder_ids()).logits, after)
    assert not torch.allclose(before, after, atol=1e-3)
