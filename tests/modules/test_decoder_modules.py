"""A decoder as the backbone of a ``Transformer``: its direction, padding, begin token and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from decoder_encoder_helpers import DECODERS, config_of, write_decoder
from modules_helpers import CONFIG
from text_helpers import bert_tokenizer, llama_tokenizer

from sparse_encoder.backbone import MaskedLanguageModel
from sparse_encoder.checkpoint import ConfigError
from sparse_encoder.modules import Features, SpladePooling, Transformer
from sparse_encoder.modules.base import LoadSettings

TEXTS = ["spare a dense", "a"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_decoder(tmp_path / "decoder")


def sees_later_tokens(module: Transformer) -> bool:
    """Tell whether the first token's state depends on the last one."""
    features = module.preprocess(["a spare"])
    changed = {**features, "input_ids": features["input_ids"].clone()}
    changed["input_ids"][0, -1] = 7
    module.eval()
    with torch.no_grad():
        first, second = (module(each)["vocabulary_projection"].hidden[0, 0] for each in (features, changed))
    return not torch.equal(first, second)


@pytest.mark.parametrize("family", DECODERS)
def test_it_looks_back_unless_it_is_told_to_look_both_ways(family: str, tmp_path: Path) -> None:
    write_decoder(tmp_path / "plain", family)
    plain = Transformer(tmp_path / "plain", transformer_task="fill-mask")
    assert (plain.bidirectional, sees_later_tokens(plain)) == (False, False)
    for way in ({"model_kwargs": {"bidirectional": True}}, {"config_kwargs": {"is_causal": False}}):
        module = Transformer(tmp_path / "plain", transformer_task="fill-mask", **way)  # type: ignore[arg-type]
        assert (module.bidirectional, sees_later_tokens(module)) == (True, True)
        module.save(tmp_path / "saved")
        assert config_of(tmp_path / "saved")["is_causal"] is False
        again = Transformer.load(tmp_path / "saved")
        assert (again.bidirectional, sees_later_tokens(again)) == (True, True)
    back = Transformer(tmp_path / "saved", transformer_task="fill-mask", model_kwargs={"bidirectional": False})
    assert (back.bidirectional, sees_later_tokens(back)) == (False, False)


def test_states_without_a_head_look_both_ways_too(folder: Path) -> None:
    module = Transformer(folder, model_kwargs={"bidirectional": True})
    assert (module.transformer_task, module.bidirectional) == ("feature-extraction", True)
    assert module.get_config_dict()["transformer_task"] == "feature-extraction"


def test_wrong_directions_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="bidirectional must be True or False, got 'yes'"):
        Transformer(folder, model_kwargs={"bidirectional": "yes"})
    with pytest.raises(ValueError, match="bidirectional=True and is_causal=True contradict each other"):
        Transformer(folder, model_kwargs={"bidirectional": True}, config_kwargs={"is_causal": True})
    with pytest.raises(ValueError, match="choose from .*'bidirectional'"):
        Transformer(folder, model_kwargs={"bidirectonal": True})
    MaskedLanguageModel.from_config(CONFIG).save_pretrained(tmp_path / "bert")
    bert_tokenizer().save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match="are for decoders: in a 'bert' each token sees all others anyway"):
        Transformer(tmp_path / "bert", transformer_task="fill-mask", model_kwargs={"bidirectional": True})
    assert Transformer(tmp_path / "bert").bidirectional
    (folder / "config.json").write_text(json.dumps({**config_of(folder), "is_causal": "no"}))
    with pytest.raises(ConfigError, match="is_causal"):
        Transformer(folder)
    (folder / "sentence_bert_config.json").write_text(json.dumps({"model_kwargs": {"bidirectional": "yes"}}))
    with pytest.raises(ConfigError, match="bidirectional must be true or false, got 'yes'"):
        Transformer.load(folder)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_direction_that_a_file_says_holds_unless_the_caller_says_another(folder: Path, bidirectional: bool) -> None:
    said = {"transformer_task": "fill-mask", "model_kwargs": {"bidirectional": bidirectional}}
    (folder / "sentence_bert_config.json").write_text(json.dumps(said))
    assert Transformer.load(folder).bidirectional is bidirectional
    for settings in (
        LoadSettings(model_kwargs={"bidirectional": not bidirectional}),
        LoadSettings(config_kwargs={"is_causal": bidirectional}),
    ):
        assert Transformer.load(folder, settings).bidirectional is not bidirectional


@pytest.mark.parametrize("strategy", ["max", "sum"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_never_wins_to_the_bit(folder: Path, side: str, bidirectional: bool, strategy: str) -> None:
    """What stands at padding, ids and logits however large, changes nothing; nor does the fused step differ."""
    module = Transformer(
        folder,
        transformer_task="fill-mask",
        model_kwargs={"bidirectional": bidirectional},
        processor_kwargs={"padding_side": side},
    ).eval()
    pooling = SpladePooling(strategy)
    features = module.preprocess(TEXTS)
    mask = features["attention_mask"]
    assert mask[1].tolist().index(0) == (0 if side == "left" else mask[1].sum())
    other = {**features, "input_ids": torch.where(mask.bool(), features["input_ids"], 9)}
    with torch.no_grad():
        found, again = (pooling(module(each))["sentence_embedding"] for each in (features, other))
        out = module(features)
        hidden = torch.where(mask.bool()[:, :, None], out["vocabulary_projection"].hidden, 1e6)
        huge = pooling(Features({**out, "vocabulary_projection": out["vocabulary_projection"]._replace(hidden=hidden)}))
        alone = pooling(module(module.preprocess(TEXTS[1:])))["sentence_embedding"]
        logits = out["token_embeddings"]
        plain = pooling({"attention_mask": mask, "token_embeddings": logits})["sentence_embedding"]
    assert torch.equal(found, again)
    assert torch.equal(found, huge["sentence_embedding"])
    assert (found > 0).any(dim=1).all()
    torch.testing.assert_close(found[1:], alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_side_of_padding_changes_no_weight_and_no_gradient(family: str, tmp_path: Path) -> None:
    write_decoder(tmp_path, family)
    results = []
    for side in ("left", "right"):
        module = Transformer(tmp_path, transformer_task="fill-mask", processor_kwargs={"padding_side": side}).eval()
        weights = SpladePooling()(module(module.preprocess(TEXTS)))["sentence_embedding"]
        weights.square().sum().backward()
        results.append((weights.detach(), {name: each.grad for name, each in module.named_parameters()}))
    (left, left_grads), (right, right_grads) = results
    torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-5)
    for name, gradient in left_grads.items():
        assert gradient is not None and gradient.isfinite().all(), name
        torch.testing.assert_close(gradient, right_grads[name], atol=1e-3, rtol=1e-3)


def test_the_fused_gradient_is_that_of_the_logits(folder: Path) -> None:
    gradients = []
    for fused in (True, False):
        module = Transformer(folder, transformer_task="fill-mask", model_kwargs={"dtype": torch.float64}).eval()
        out = module(module.preprocess(TEXTS))
        if not fused:
            out = {"attention_mask": out["attention_mask"], "token_embeddings": out["token_embeddings"]}
        SpladePooling()(out)["sentence_embedding"].square().sum().backward()
        gradients.append({name: each.grad for name, each in module.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert gradient is not None and gradient.abs().sum() > 0, name
        torch.testing.assert_close(gradient, gradients[1][name])


def test_sixteen_bits_are_pooled_in_float32(folder: Path) -> None:
    exact = Transformer(folder, transformer_task="fill-mask").eval()
    short = Transformer(folder, transformer_task="fill-mask", model_kwargs={"dtype": torch.bfloat16}).eval()
    with torch.no_grad():
        found, wanted = (SpladePooling()(each(each.preprocess(TEXTS)))["sentence_embedding"] for each in (short, exact))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, atol=0.1, rtol=0.05)


class TestFiles:
    def test_the_task_is_written_as_the_peer_spells_it(self, folder: Path, tmp_path: Path) -> None:
        options: dict[str, Any] = {"text": {"max_length": 9, "add_special_tokens": False}}
        module = Transformer(folder, transformer_task="fill-mask", processing_kwargs=options, query_length=7)
        module.save(tmp_path)
        written = config_of(tmp_path, "sentence_bert_config.json")
        assert written == {
            "transformer_task": "text-generation",
            "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
            "module_output_name": "token_embeddings",
            "processing_kwargs": {"text": {"max_length": 9, "add_special_tokens": False, "logits_to_keep": 0}},
            "query_length": 7,
        }
        again = Transformer.load(tmp_path)
        assert (again.transformer_task, again.processing_kwargs) == ("fill-mask", options)
        assert again.get_config_dict() == written
        given = {**written, "modality_config": {**written["modality_config"], "message": {"method": "forward"}}}
        (tmp_path / "sentence_bert_config.json").write_text(json.dumps(given))
        assert Transformer.load(tmp_path).get_config_dict() == written

    @pytest.mark.parametrize("keep", [{}, {"text": {"logits_to_keep": 1}}, {"common": {"logits_to_keep": 3}}])
    def test_logits_of_the_last_tokens_alone_are_refused(self, folder: Path, keep: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="a text's terms are those of all its tokens"):
            Transformer(folder, transformer_task="text-generation", processing_kwargs=keep)
        config = {"transformer_task": "text-generation", "processing_kwargs": keep}
        (folder / "sentence_bert_config.json").write_text(json.dumps(config))
        with pytest.raises(ConfigError, match="a text's terms are those of all its tokens"):
            Transformer.load(folder)

    def test_an_encoder_generates_nothing(self, tmp_path: Path) -> None:
        MaskedLanguageModel.from_config(CONFIG).save_pretrained(tmp_path)
        bert_tokenizer().save_pretrained(tmp_path)
        options: dict[str, Any] = {"text": {"logits_to_keep": 0}}
        with pytest.raises(ValueError, match="'text-generation' is for decoders, not for a BertForMaskedLM"):
            Transformer(tmp_path, transformer_task="text-generation", processing_kwargs=options)

    def test_it_pads_with_its_end_token_and_says_so_in_its_files(self, folder: Path, tmp_path: Path) -> None:
        module = Transformer(folder, transformer_task="fill-mask")
        assert module.preprocess(TEXTS)["input_ids"][1, -1] == module.tokenizer.eos_token_id == 2
        module.save(tmp_path / "saved")
        assert config_of(tmp_path / "saved", "tokenizer_config.json")["pad_token"] == "</s>"
        named = Transformer(folder, transformer_task="fill-mask", processor_kwargs={"pad_token": "<unk>"})
        assert named.tokenizer.pad_token_id == 0

    @pytest.mark.parametrize("bos", [True, False])
    def test_the_begin_token_is_switched_and_saved(self, bos: bool, tmp_path: Path) -> None:
        plain = write_decoder(tmp_path / "plain", bos=not bos)
        module = Transformer(plain, transformer_task="fill-mask", processor_kwargs={"add_bos_token": bos})
        inside = llama_tokenizer(bos=False).encode("a")
        assert module.preprocess(["a"])["input_ids"].tolist() == [[1, *inside] if bos else inside]
        module.save(tmp_path / "saved")
        again = Transformer.load(tmp_path / "saved")
        assert again.preprocess(["a"])["input_ids"].tolist() == [[1, *inside] if bos else inside]
        both = Transformer(plain, processor_kwargs={"bos_token": "</s>", "add_bos_token": True, "add_eos_token": True})
        assert both.tokenizer.encode("a")[0] == 2 or not bos  # the token is named before it is put around texts
        assert both.tokenizer.encode("a")[-1] == 2
