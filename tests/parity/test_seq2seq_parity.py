"""Encoders with decoders against those of transformers: the same numbers, and files that both read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from peer_norms import make_norms_exact
from safetensors.torch import load_file, save_file
from seq2seq_helpers import SEQ2SEQ_CONFIGS, B, S, T, V, decoder_ids, encoder_batch, randomise_pair
from torch import Tensor

from sparse_encoder.backbone import EncoderModel
from sparse_encoder.backbone.cache import EncoderDecoderCache
from sparse_encoder.backbone.families import read_config
from sparse_encoder.backbone.weights import names_of
from sparse_encoder.checkpoint import CheckpointError
from sparse_encoder.generation.seq2seq_model import Seq2SeqModel

transformers = pytest.importorskip("transformers")

CONFIGS = SEQ2SEQ_CONFIGS


@pytest.fixture(autouse=True)
def exact_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    make_norms_exact(monkeypatch, "t5", "mt5")


class Pair(NamedTuple):
    ours: Seq2SeqModel
    peer: Any  # a peer's class


def peer_from(folder: Path, dtype: torch.dtype = torch.float32) -> Any:  # noqa: ANN401 - a peer's class
    """Load with transformers, which must have no key left over."""
    peer, info = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, output_loading_info=True, dtype=dtype)
    assert not any(info.values()), info
    return peer.eval()


def pair_of(name: str, folder: Path, dtype: torch.dtype = torch.float64) -> Pair:
    ours = Seq2SeqModel.from_config(CONFIGS[name]).to(dtype).eval()
    randomise_pair(ours)
    ours.save_pretrained(folder)
    return Pair(ours, peer_from(folder, dtype))


def features(name: str, *, left: bool) -> dict[str, Tensor]:
    return encoder_batch(left=left, pad=CONFIGS[name]["pad_token_id"])


def assert_same(got: Tensor, expected: Tensor, where: Tensor | None = None) -> None:
    assert got.dtype == expected.dtype == torch.float64
    if where is not None:
        got, expected = got[where.bool()], expected[where.bool()]
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("name", CONFIGS)
def test_all_states_logits_and_the_loss_are_the_same(name: str, left: bool, tmp_path: Path) -> None:
    ours, peer = pair_of(name, tmp_path)
    given = features(name, left=left)
    labels = decoder_ids()
    labels[1, 3:] = -100
    asked = {"labels": labels, "output_hidden_states": True, "output_attentions": True}
    peer.set_attn_implementation("eager")
    with torch.no_grad():
        expected, got = peer(**given, **asked), ours(**given, **asked)
    assert got.past_key_values is None and got.loss is not None
    assert_same(got.loss, expected.loss)
    assert_same(got.logits, expected.logits)
    tokens = given["attention_mask"]
    assert_same(got.encoder_last_hidden_state, expected.encoder_last_hidden_state, tokens)
    for each in ("encoder_hidden_states", "decoder_hidden_states", "decoder_attentions", "cross_attentions"):
        mine, theirs = got[each], expected[each]
        assert len(mine) == len(theirs)
        for one, other in zip(mine, theirs, strict=True):
            assert_same(one, other, tokens if each.startswith("encoder") else None)
    for one, other in zip(got.encoder_attentions, expected.encoder_attentions, strict=True):
        assert_same(one.transpose(1, 2), other.transpose(1, 2), tokens)


@pytest.mark.parametrize("name", CONFIGS)
def test_masks_of_the_decoder_count_the_same(name: str, tmp_path: Path) -> None:
    ours, peer = pair_of(name, tmp_path)
    given = features(name, left=False)
    ids, mask = decoder_ids(), torch.ones(B, T, dtype=torch.long)
    mask[0, :2], mask[2, 3:] = 0, 0
    with torch.no_grad():
        expected = peer(**given, decoder_input_ids=ids, decoder_attention_mask=mask).logits
        got = ours(**given, decoder_input_ids=ids, decoder_attention_mask=mask).logits
        unmasked = ours(**given, decoder_input_ids=ids).logits
    assert_same(got, expected, mask)
    assert not torch.allclose(got[0, 2:], unmasked[0, 2:])


@pytest.mark.parametrize("name", CONFIGS)
def test_embeddings_in_the_place_of_ids_are_taken_as_they_are(name: str, tmp_path: Path) -> None:
    ours, peer = pair_of(name, tmp_path)
    generator = torch.Generator().manual_seed(3)
    encoder = torch.randn(B, S, 12, generator=generator, dtype=torch.float64)
    decoder = torch.randn(B, T, 12, generator=generator, dtype=torch.float64)
    mask = features(name, left=True)["attention_mask"]
    given = {"inputs_embeds": encoder, "attention_mask": mask, "decoder_inputs_embeds": decoder}
    with torch.no_grad():
        assert_same(ours(**given).logits, peer(**given).logits)


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_of_every_parameter_are_the_same(name: str, tmp_path: Path) -> None:
    ours, peer = pair_of(name, tmp_path)
    given, labels = features(name, left=False), decoder_ids()
    labels[0, 2] = -100
    ours(**given, labels=labels).loss.backward()
    peer(**given, labels=labels).loss.backward()
    table = names_of(ours.family, ours.config, ours.head_rows(ours.family)).own
    theirs = {key: parameter.grad for key, parameter in peer.named_parameters()}
    if "model.encoder.embed_tokens.weight" in theirs:  # each stack has a table there once the head has its own
        stacks = [theirs.pop(f"model.{stack}.embed_tokens.weight") for stack in ("encoder", "decoder")]
        theirs["model.shared.weight"] = stacks[0] + stacks[1]
    mine = {table.theirs(key): parameter.grad for key, parameter in ours.named_parameters()}
    assert sorted(mine) == sorted(theirs)
    for key, gradient in mine.items():
        assert gradient is not None and theirs[key] is not None, key
        tolerance = 1e-10 * max(1.0, theirs[key].abs().max().item())
        torch.testing.assert_close(gradient, theirs[key], rtol=0, atol=tolerance, msg=key)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_text_in_pieces_through_a_cache_is_the_whole_text(name: str, tmp_path: Path) -> None:
    ours, peer = pair_of(name, tmp_path)
    given, ids = features(name, left=True), decoder_ids(tokens=6)
    mask = torch.ones(B, 6, dtype=torch.long)
    mask[1, :2] = 0
    with torch.no_grad():
        whole = peer(**given, decoder_input_ids=ids, decoder_attention_mask=mask, use_cache=False).logits
        encoded = ours.encode(**given)
        cache, parts, seen = None, [], 0
        for length in (3, 1, 2):
            step = ours(
                encoder_outputs=encoded,
                attention_mask=given["attention_mask"],
                decoder_input_ids=ids[:, seen : seen + length],
                decoder_attention_mask=mask[:, : seen + length],
                past_key_values=cache,
            )
            parts.append(step.logits)
            cache, seen = step.past_key_values, seen + length
            assert isinstance(cache, EncoderDecoderCache) and cache.get_seq_length() == seen
    assert_same(torch.cat(parts, dim=1), whole, mask)


@pytest.mark.parametrize("name", CONFIGS)
def test_saved_there_loads_here_and_is_written_again_name_for_name(name: str, tmp_path: Path) -> None:
    ours, peer = pair_of(name, tmp_path / "ours", torch.float32)
    peer.save_pretrained(tmp_path / "theirs")
    written, again = load_file(tmp_path / "ours/model.safetensors"), load_file(tmp_path / "theirs/model.safetensors")
    assert sorted(written) == sorted(again)
    assert all(torch.equal(written[key], again[key]) for key in written)
    back = Seq2SeqModel.from_pretrained(tmp_path / "theirs")
    assert back.load_report is not None and not back.load_report.missing
    assert set(back.load_report.ignored) == back.load_report.second_names
    assert back.config == ours.config
    for (key, value), (_, expected) in zip(back.state_dict().items(), ours.state_dict().items(), strict=True):
        assert torch.equal(value, expected), key
    given, ids = features(name, left=True), decoder_ids()
    with torch.no_grad():
        expected = peer(**given, decoder_input_ids=ids).logits
        torch.testing.assert_close(back(**given, decoder_input_ids=ids).logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_shards_load_there(name: str, tmp_path: Path) -> None:
    ours = Seq2SeqModel.from_config(CONFIGS[name]).eval()
    randomise_pair(ours)
    ours.save_pretrained(tmp_path, max_shard_size="3KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 3
    peer = peer_from(tmp_path)
    given, ids = features(name, left=True), decoder_ids()
    with torch.no_grad():
        expected = peer(**given, decoder_input_ids=ids).logits
        torch.testing.assert_close(ours(**given, decoder_input_ids=ids).logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["t5", "t5 v1.1", "bart"])
def test_words_stored_again_for_each_stack_are_read_once(name: str, tmp_path: Path) -> None:
    """As files of transformers 4 had them."""
    ours, peer = pair_of(name, tmp_path, torch.float32)
    tensors = load_file(tmp_path / "model.safetensors")
    prefix = "model." if name == "bart" else ""
    words = tensors[f"{prefix}shared.weight"]
    for stack in ("encoder", "decoder"):
        tensors[f"{prefix}{stack}.embed_tokens.weight"] = words.clone()
    if CONFIGS[name].get("tie_word_embeddings", True):
        tensors["lm_head.weight"] = words.clone()
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    back = Seq2SeqModel.from_pretrained(tmp_path)
    assert all(torch.equal(one, other) for one, other in zip(back.parameters(), ours.parameters(), strict=True))
    del tensors[f"{prefix}shared.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    back = Seq2SeqModel.from_pretrained(tmp_path)
    assert all(torch.equal(one, other) for one, other in zip(back.parameters(), ours.parameters(), strict=True))


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_tables_of_the_stacks_that_differ_are_refused(name: str, tmp_path: Path) -> None:
    prefix = "model." if name == "bart" else ""
    pair_of(name, tmp_path, torch.float32)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors[f"{prefix}decoder.embed_tokens.weight"] = tensors[f"{prefix}shared.weight"] + 1
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    message = f"'{prefix}shared.weight' and '{prefix}decoder.embed_tokens.weight' are one table of words and differ"
    with pytest.raises(CheckpointError, match=message):
        Seq2SeqModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_a_model_without_a_head_of_theirs_loads_with_one_that_is_tied(name: str, tmp_path: Path) -> None:
    peer = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**CONFIGS[name]))
    randomise_pair(peer)
    peer.save_pretrained(tmp_path)
    ours = Seq2SeqModel.from_pretrained(tmp_path)
    given, ids = features(name, left=True), decoder_ids()
    with torch.no_grad():
        expected = peer.eval()(**given, decoder_input_ids=ids).encoder_last_hidden_state
        got = ours(**given, decoder_input_ids=ids).encoder_last_hidden_state
    where = given["attention_mask"].bool()
    torch.testing.assert_close(got[where], expected[where], rtol=0, atol=1e-5)


def test_an_encoder_of_t5_alone_loads_there_and_back(tmp_path: Path) -> None:
    whole = Seq2SeqModel.from_config(CONFIGS["t5 v1.1"]).eval()
    randomise_pair(whole)
    whole.save_pretrained(tmp_path / "whole")
    alone = EncoderModel.from_pretrained(tmp_path / "whole")
    alone.save_pretrained(tmp_path / "alone")
    assert json.loads((tmp_path / "alone/config.json").read_text())["architectures"] == ["T5EncoderModel"]
    peer, info = transformers.T5EncoderModel.from_pretrained(tmp_path / "alone", output_loading_info=True)
    assert not any(info.values()), info
    given = features("t5", left=True)
    where = given["attention_mask"].bool()
    with torch.no_grad():
        expected = peer(**given).last_hidden_state
        torch.testing.assert_close(alone(**given)[where], expected[where], rtol=0, atol=1e-5)
        assert torch.equal(alone(**given), whole.encode(**given).last_hidden_state)
    peer.save_pretrained(tmp_path / "theirs")
    back = EncoderModel.from_pretrained(tmp_path / "theirs")
    with torch.no_grad():
        assert torch.equal(back(**given), alone(**given))


@pytest.mark.parametrize("model_type", ["t5", "bart"])
def test_missing_keys_stand_for_what_transformers_takes(model_type: str) -> None:
    everything = transformers.AutoConfig.for_model(model_type).to_dict()
    assert read_config({"model_type": model_type}) == read_config(everything)


@pytest.mark.parametrize("name", ["t5", "t5 of one depth", "bart"])
def test_random_weights_are_spread_as_in_transformers(name: str, tmp_path: Path) -> None:
    wider = {"vocab_size": 400, "d_model": 48, "d_kv": 16, "d_ff": 96, "init_std": 0.3, "initializer_factor": 0.7}
    hf_config = CONFIGS[name] | {key: value for key, value in wider.items() if name != "bart" or "_k" not in key}
    hf_config |= {"max_position_embeddings": 300, "relative_attention_num_buckets": 256}
    hf_config |= {"relative_attention_max_distance": 900}
    torch.manual_seed(0)
    Seq2SeqModel.from_config(hf_config).save_pretrained(tmp_path / "ours")
    torch.manual_seed(1)
    peer_config = transformers.AutoConfig.for_model(**hf_config)
    transformers.AutoModelForSeq2SeqLM.from_config(peer_config).save_pretrained(tmp_path / "theirs")
    mine, theirs = load_file(tmp_path / "ours/model.safetensors"), load_file(tmp_path / "theirs/model.safetensors")
    assert sorted(mine) == sorted(theirs)
    for key, tensor in mine.items():
        if tensor.ndim == 1 or tensor.numel() < 500:
            assert tensor.mean().item() == pytest.approx(theirs[key].mean().item(), abs=0.2), key
        else:
            assert tensor.std().item() == pytest.approx(theirs[key].std().item(), rel=0.15), key


def test_labels_become_the_decoders_input_as_there(tmp_path: Path) -> None:
    for name in ("t5", "bart"):
        ours, peer = pair_of(name, tmp_path / name)
        labels = decoder_ids()
        labels[0, 1:3] = -100
        expected = peer.prepare_decoder_input_ids_from_labels(labels=labels)
        assert torch.equal(ours.prepare_decoder_input_ids_from_labels(labels), expected)
        assert int(labels.max()) < V
