"""SPLADE on decoders against the formula on transformers' logits; folders to and from sentence-transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from decoder_encoder_helpers import DECODERS, TEXTS, config_of, write_decoder
from real_checkpoints import write_stories
from text_helpers import llama_tokenizer
from torch import Tensor

from sparse_encoder import SparseEncoder
from sparse_encoder.backbone import LoraConfig
from sparse_encoder.modules import SpladePooling, Transformer

transformers = pytest.importorskip("transformers")
peer = pytest.importorskip("sentence_transformers")

MAX_LENGTH = 20


def weights_of(
    folder: Path,
    *,
    bidirectional: bool,
    dtype: torch.dtype = torch.float32,
    adapter: Path | None = None,
    texts: Sequence[str] = TEXTS,
) -> Tensor:
    """Return log(1 + relu(.)) of the largest logit of each text alone, as transformers computes it, (B, V)."""
    config = transformers.AutoConfig.from_pretrained(folder)
    config.is_causal = not bidirectional
    options = {"config": config, "dtype": dtype, "attn_implementation": "eager"}
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, **options).eval()
    if adapter is not None:
        model = pytest.importorskip("peft").PeftModel.from_pretrained(model, adapter).eval()
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)  # AutoTokenizer forces Qwen's own on it
    rows = []
    for text in texts:
        ids = tokenizer(text, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            rows.append(torch.log1p(torch.relu(model(ids).logits[0])).amax(dim=0))
    return torch.stack(rows)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", DECODERS)
def test_weights_are_those_of_transformers_logits(family: str, bidirectional: bool, side: str, tmp_path: Path) -> None:
    write_decoder(tmp_path, family)
    model = SparseEncoder(
        str(tmp_path),
        processor_kwargs={"padding_side": side},
        model_kwargs={"bidirectional": bidirectional},
    )
    model.max_seq_length = MAX_LENGTH
    assert [type(module) for module in model] == [Transformer, SpladePooling]
    wanted = weights_of(tmp_path, bidirectional=bidirectional)
    found = model.encode(TEXTS, batch_size=3).to_dense()
    torch.testing.assert_close(torch.as_tensor(found), wanted, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        together = model(model.preprocess(TEXTS))["sentence_embedding"]
    torch.testing.assert_close(together, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", DECODERS)
def test_weights_in_double_precision(family: str, tmp_path: Path) -> None:
    write_decoder(tmp_path, family)
    options = {"dtype": torch.float64, "attn_implementation": "eager", "bidirectional": True}
    model = SparseEncoder(str(tmp_path), model_kwargs=options)
    model.max_seq_length = MAX_LENGTH
    wanted = weights_of(tmp_path, bidirectional=True, dtype=torch.float64)
    with torch.no_grad():
        found = model(model.preprocess(TEXTS))["sentence_embedding"]
    error = 1e-10 if family == "gpt2" else 1e-5  # angles and norms by root mean square are float32 in both
    torch.testing.assert_close(found, wanted, atol=error, rtol=error)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # of PEFT, at transformers
@pytest.mark.parametrize(("family", "modules_to_save"), [("llama", ["lm_head"]), ("qwen3", None), ("gpt2", None)])
def test_an_adapter_made_here_is_read_by_peft(family: str, modules_to_save: list[str] | None, tmp_path: Path) -> None:
    base = write_decoder(tmp_path / "base", family)
    model = SparseEncoder(str(base), model_kwargs={"bidirectional": True})
    model.max_seq_length = MAX_LENGTH
    torch.manual_seed(1)
    model.add_adapter(LoraConfig(r=3, lora_alpha=6, init_lora_weights=False, modules_to_save=modules_to_save))
    with torch.no_grad():
        model[0].auto_model.head.weight.mul_(1.5 if modules_to_save else 1.0)
    model[0].auto_model.save_adapter(tmp_path / "adapter")
    wanted = weights_of(base, bidirectional=True, adapter=tmp_path / "adapter")
    found = torch.as_tensor(model.encode(TEXTS).to_dense())
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found, weights_of(base, bidirectional=True), atol=1e-2)


@pytest.mark.fixture
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_real_llama(bidirectional: bool, tmp_path: Path) -> None:
    write_stories(tmp_path / "stories")
    texts = ["Once upon a time, there was a little girl named Lily.", "The dog ran home."]
    model = SparseEncoder(str(tmp_path / "stories"), model_kwargs={"bidirectional": bidirectional})
    model.max_seq_length = MAX_LENGTH
    found = torch.as_tensor(model.encode(texts).to_dense())
    torch.testing.assert_close(
        found, weights_of(tmp_path / "stories", bidirectional=bidirectional, texts=texts), atol=1e-4, rtol=1e-4
    )
    if not bidirectional:
        assert " time" in model.tokenizer.decode(found[0].topk(20).indices)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_what_is_saved_here_is_loaded_by_sentence_transformers(bidirectional: bool, tmp_path: Path) -> None:
    write_decoder(tmp_path / "plain")
    ours = SparseEncoder(
        str(tmp_path / "plain"),
        model_kwargs={"bidirectional": bidirectional},
        processor_kwargs={"add_bos_token": False, "model_max_length": MAX_LENGTH},
    )
    ours.save_pretrained(str(tmp_path / "saved"))
    theirs = peer.SparseEncoder(str(tmp_path / "saved"), device="cpu")
    assert theirs.max_seq_length == MAX_LENGTH
    texts = ["spare dense", "a", "spare a dense spare. é東 a dense"]  # it fails on a text without a token
    torch.testing.assert_close(
        torch.as_tensor(ours.encode(texts).to_dense()), theirs.encode(texts).to_dense(), atol=1e-5, rtol=1e-5
    )


def saved_by_peer(folder: Path, *, keep: dict[str, Any]) -> Any:  # noqa: ANN401 - a peer's class
    """Save a SPLADE of a decoder as sentence-transformers does when its modules are put together by hand."""
    write_decoder(folder / "plain")
    module = peer.sentence_transformer.modules.Transformer(
        str(folder / "plain"),
        transformer_task="text-generation",
        processor_kwargs={"pad_token": "</s>"},
        processing_kwargs=keep,
        modality_config={"text": {"method": "forward", "method_output_name": "logits"}},
        module_output_name="token_embeddings",
    )
    theirs = peer.SparseEncoder(
        modules=[module, peer.sparse_encoder.modules.SpladePooling("max")], device="cpu", similarity_fn_name="dot"
    )
    theirs.save_pretrained(str(folder / "theirs"))
    return theirs


def test_what_sentence_transformers_saves_is_loaded_here(tmp_path: Path) -> None:
    theirs = saved_by_peer(tmp_path, keep={"text": {"logits_to_keep": 0}})
    ours = SparseEncoder(str(tmp_path / "theirs"))
    assert ours[0].transformer_task == "fill-mask"
    assert not ours[0].bidirectional
    torch.testing.assert_close(
        torch.as_tensor(ours.encode(TEXTS[:4]).to_dense()), theirs.encode(TEXTS[:4]).to_dense(), atol=1e-5, rtol=1e-5
    )


def test_a_peer_that_keeps_the_last_logits_alone_is_refused(tmp_path: Path) -> None:
    saved_by_peer(tmp_path, keep={"text": {"max_length": 9}})
    with pytest.raises(ValueError, match=r"needs processing_kwargs=\{'text': \{'logits_to_keep': 0\}\}"):
        SparseEncoder(str(tmp_path / "theirs"))


def test_a_plain_decoder_is_an_auto_encoder_to_the_peer_and_splade_here(tmp_path: Path) -> None:
    """The one difference on purpose: here the head that is there is used."""
    write_decoder(tmp_path)
    theirs = peer.SparseEncoder(str(tmp_path), device="cpu")
    assert [type(module).__name__ for module in theirs] == ["Transformer", "Pooling", "SparseAutoEncoder"]
    assert [type(module).__name__ for module in SparseEncoder(str(tmp_path))] == ["Transformer", "SpladePooling"]


def test_tokenizers_with_begin_tokens_are_saved_so_that_transformers_does_the_same(tmp_path: Path) -> None:
    write_decoder(tmp_path / "plain")
    model = SparseEncoder(str(tmp_path / "plain"), processor_kwargs={"add_bos_token": False, "add_eos_token": True})
    model.save_pretrained(str(tmp_path / "saved"))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    plain = llama_tokenizer().encode("spare", add_special_tokens=False)
    assert theirs.encode("spare") == model.tokenizer.encode("spare") == [*plain, 2]
    assert theirs.pad_token == "</s>"
    assert json.dumps(config_of(tmp_path / "saved", "tokenizer_config.json"))
