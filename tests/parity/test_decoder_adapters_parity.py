"""Adapters of decoders' heads and vocabulary tables against PEFT, and of bidirectional decoders against the peers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from adapters_helpers import randomise_adapters
from backbone_helpers import randomise
from decoder_encoder_helpers import config_of, write_decoder
from decoder_helpers import DECODER_CONFIGS, prompts
from safetensors.torch import load_file
from seq2seq_helpers import SEQ2SEQ_CONFIGS, decoder_ids, encoder_batch, randomise_pair
from torch import Tensor

from sparse_encoder import SparseEncoder
from sparse_encoder.backbone import LoraConfig, MaskedLanguageModel
from sparse_encoder.checkpoint import CheckpointError
from sparse_encoder.generation import CausalLanguageModel, Seq2SeqModel

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:::peft", "ignore:::transformers")

TIED = {**DECODER_CONFIGS["llama"], "tie_word_embeddings": True}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {**DECODER_CONFIGS["llama"], "tie_word_embeddings": False},
    "tied llama": TIED,
    "gpt2": DECODER_CONFIGS["gpt2"],
    "qwen2": DECODER_CONFIGS["qwen2"],
}
OPTIONS: dict[str, dict[str, Any]] = {
    "low rank": {"use_rslora": True},
    "an expression": {"expression": True},
    "copy": {"modules_to_save": ["lm_head"]},
    "words": {"modules_to_save": ["words"]},
}
INPUTS = {"input_ids": prompts("right")["input_ids"]}


def config_for(name: str, option: str) -> dict[str, Any]:
    options = {"r": 2, "lora_alpha": 5, **OPTIONS[option]}
    query, words = ("c_attn", "wte") if name == "gpt2" else ("q_proj", "embed_tokens")
    if options.pop("expression", False):
        options["target_modules"] = rf".*({query}|lm_head)"
    elif "modules_to_save" in options:
        options["target_modules"] = [query]
        options["modules_to_save"] = [each.replace("words", words) for each in options["modules_to_save"]]
    else:
        options["target_modules"] = [query, "lm_head"]
    return options


def logits_of(model: Any) -> Tensor:  # noqa: ANN401 - ours or a peer's
    with torch.no_grad():
        found: Tensor = model(**INPUTS).logits
    return found


def assert_same(found: Tensor, wanted: Tensor) -> None:
    scale = wanted.abs().max()
    torch.testing.assert_close(found / scale, wanted / scale, atol=1e-5, rtol=0)


def write_base(folder: Path, name: str) -> Path:
    model = CausalLanguageModel.from_config(CONFIGS[name])
    randomise(model)
    model.save_pretrained(folder)
    return folder


@torch.no_grad()
def randomised(model: Any) -> Any:  # noqa: ANN401 - a peer's class
    torch.manual_seed(3)
    for each in model.parameters():
        if each.requires_grad:
            each.add_(0.3 * torch.randn(each.shape))
    return model.eval()


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", CONFIGS)
def test_heads_and_words_of_peft_are_read_and_written(name: str, option: str, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", name)
    options = config_for(name, option)
    peer = transformers.AutoModelForCausalLM.from_pretrained(base)
    theirs = randomised(peft.get_peft_model(peer, peft.LoraConfig(task_type="CAUSAL_LM", **options)))
    theirs.save_pretrained(tmp_path / "theirs")
    wanted = logits_of(theirs)
    ours = CausalLanguageModel.from_pretrained(tmp_path / "theirs", base_model=base)
    plain = logits_of(CausalLanguageModel.from_pretrained(base))
    assert_same(logits_of(ours), wanted)
    assert (wanted - plain).abs().max() > 0.1

    fresh = CausalLanguageModel.from_pretrained(base)
    fresh.add_adapter(LoraConfig(**options))
    randomise_adapters(fresh)
    fresh.save_pretrained(tmp_path / "ours")
    stored = load_file(tmp_path / "ours" / "adapter_model.safetensors")
    assert any("lm_head" in key or "embed_tokens" in key or "wte" in key for key in stored)
    peer = transformers.AutoModelForCausalLM.from_pretrained(base)
    again = peft.PeftModel.from_pretrained(peer, tmp_path / "ours").eval()
    assert_same(logits_of(fresh), logits_of(again))

    learnt = logits_of(fresh)
    merged = fresh.merge_and_unload()
    assert_same(logits_of(merged), learnt)
    merged.save_pretrained(tmp_path / "merged")
    for kind in (CausalLanguageModel, transformers.AutoModelForCausalLM):
        assert_same(logits_of(kind.from_pretrained(tmp_path / "merged").eval()), learnt)


@pytest.mark.parametrize("name", ["t5", "t5 v1.1", "bart"])
def test_heads_of_pairs(name: str, tmp_path: Path) -> None:
    model = Seq2SeqModel.from_config(SEQ2SEQ_CONFIGS[name])
    randomise_pair(model)
    model.save_pretrained(tmp_path / "base")
    peer = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "base")
    targets = ["q", "lm_head"] if name.startswith("t5") else ["q_proj", "lm_head"]
    theirs = randomised(peft.get_peft_model(peer, peft.LoraConfig(r=2, target_modules=targets)))
    theirs.save_pretrained(tmp_path / "theirs")
    ours = Seq2SeqModel.from_pretrained(tmp_path / "theirs", base_model=tmp_path / "base")
    inputs = {
        **encoder_batch(left=False, pad=SEQ2SEQ_CONFIGS[name]["pad_token_id"]),
        "decoder_input_ids": decoder_ids(),
    }
    with torch.no_grad():
        wanted = theirs(**inputs).logits
        torch.testing.assert_close(ours(**inputs).logits, wanted, atol=1e-4, rtol=1e-5)
        merged = ours.merge_and_unload()
        torch.testing.assert_close(merged(**inputs).logits, wanted, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_tables_that_peft_writes_beside_changes_of_the_head_are_the_base_s(tied: bool, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", "tied llama" if tied else "llama")
    peer = transformers.AutoModelForCausalLM.from_pretrained(base)
    theirs = randomised(peft.get_peft_model(peer, peft.LoraConfig(r=2, target_modules=["lm_head", "q_proj"])))
    theirs.save_pretrained(tmp_path / "theirs", save_embedding_layers=True)
    stored = load_file(tmp_path / "theirs" / "adapter_model.safetensors")
    assert "base_model.model.lm_head.base_layer.weight" in stored
    ours = CausalLanguageModel.from_pretrained(tmp_path / "theirs", base_model=base)
    assert_same(logits_of(ours), logits_of(theirs))
    other = CausalLanguageModel.from_config(CONFIGS["tied llama"])
    with pytest.raises(CheckpointError, match="are not those of the model it is put on"):
        other.load_adapter(tmp_path / "theirs")


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
def test_a_bidirectional_adapter_is_saved_alone_and_tells_so(family: str, tmp_path: Path) -> None:
    peers = pytest.importorskip("sentence_transformers")
    base = write_decoder(tmp_path / "base", family)
    model = SparseEncoder(str(base), model_kwargs={"bidirectional": True})
    model.add_adapter(LoraConfig(r=4, target_modules="all-linear"))
    randomise_adapters(model)
    texts = ["spare dense", "a", "spare a dense spare. é東 a dense"]
    wanted = torch.as_tensor(model.encode(texts).to_dense())
    saved = tmp_path / "saved"
    model.save_pretrained(str(saved))
    assert not (saved / "config.json").exists() and not (saved / "model.safetensors").exists()
    about = config_of(saved, "adapter_config.json")
    assert about["base_model_name_or_path"] == str(base) and about["auto_mapping"]["is_causal"] is False
    assert config_of(saved, "sentence_bert_config.json")["model_kwargs"] == {"bidirectional": True}

    named = {"base_model": str(base)}
    ours = SparseEncoder(str(saved), model_kwargs=named)
    assert ours[0].bidirectional and ours.fingerprint == model.fingerprint
    assert torch.equal(torch.as_tensor(ours.encode(texts).to_dense()), wanted)
    alone = MaskedLanguageModel.from_pretrained(saved, base_model=base)
    assert not alone.config.causal
    causal = CausalLanguageModel.from_pretrained(base)
    with pytest.raises(
        CheckpointError, match="sees all others, and here it sees those before it alone: load the base with"
    ):
        causal.load_adapter(saved)
    for asked in ({"model_kwargs": {**named, "bidirectional": False}}, {"config_kwargs": {"is_causal": True}}):
        assert not SparseEncoder(str(saved), **{"model_kwargs": named, **asked})[0].bidirectional

    with pytest.raises(TypeError, match="unexpected keyword argument 'bidirectional'"):  # better than other vectors
        peers.SparseEncoder(str(saved), device="cpu")
    SparseEncoder(str(base), model_kwargs={"bidirectional": True}).save_pretrained(str(tmp_path / "turned"))
    turned = SparseEncoder(str(tmp_path / "turned"))
    turned.add_adapter(LoraConfig(r=4, target_modules="all-linear"))
    randomise_adapters(turned)
    turned.save_pretrained(str(saved))
    theirs = peers.SparseEncoder(str(saved), device="cpu")
    by_them = torch.cat([theirs.encode([text]).to_dense() for text in texts])
    torch.testing.assert_close(by_them, wanted, atol=1e-4, rtol=1e-4)
    theirs.save_pretrained(str(tmp_path / "theirs"))
    back = SparseEncoder(str(tmp_path / "theirs"), model_kwargs=named)  # on the base that is causal: the adapter tells
    torch.testing.assert_close(torch.as_tensor(back.encode(texts).to_dense()), wanted, atol=1e-4, rtol=1e-4)


def test_batches_of_the_peer_depend_on_padding_where_places_are_learned(tmp_path: Path) -> None:
    """sentence-transformers pads decoders on the left and GPT-2 of transformers counts places from the padding."""
    peers = pytest.importorskip("sentence_transformers")
    texts = ["a", "spare dense", "spare a dense spare. é東 a dense"]
    for family in ("gpt2", "llama"):
        SparseEncoder(str(write_decoder(tmp_path / family, family))).save_pretrained(str(tmp_path / f"{family} saved"))
        ours = SparseEncoder(str(tmp_path / f"{family} saved"))
        theirs = peers.SparseEncoder(str(tmp_path / f"{family} saved"), device="cpu")
        wanted = torch.as_tensor(ours.encode(texts).to_dense())
        alone = torch.cat([theirs.encode([text]).to_dense() for text in texts])
        torch.testing.assert_close(alone, wanted, atol=1e-5, rtol=1e-5)
        together = theirs.encode(texts).to_dense()
        if family == "llama":
            torch.testing.assert_close(together, wanted, atol=1e-5, rtol=1e-5)
            continue
        assert (together - alone).abs().max() > 0.1
        batch = theirs[0].preprocess(texts)
        assert batch["attention_mask"][0, 0] == 0 and "position_ids" not in batch
        batch["position_ids"] = (batch["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
        with torch.no_grad():
            logits = theirs[0].auto_model(
                **{key: batch[key] for key in ("input_ids", "attention_mask", "position_ids")}
            )
        largest = logits.logits.masked_fill(batch["attention_mask"][:, :, None] == 0, float("-inf")).amax(dim=1)
        torch.testing.assert_close(torch.log1p(torch.relu(largest)), wanted, atol=1e-5, rtol=1e-5)
