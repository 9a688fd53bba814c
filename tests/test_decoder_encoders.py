"""Sparse encoders on decoders: opened from plain checkpoints, trained with adapters, saved and loaded."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from decoder_encoder_helpers import DECODERS, TEXTS, config_of, write_decoder
from text_helpers import llama_tokenizer

from sparse_encoder import SparseEncoder, SparseEncoderTrainer, SparseEncoderTrainingArguments
from sparse_encoder.backbone import EncoderModel, LoraConfig
from sparse_encoder.losses import SparseMultipleNegativesRankingLoss, SpladeLoss
from sparse_encoder.modules import Pooling, SparseAutoEncoder, SpladePooling, Transformer

PAIRS = {"query": ["spare", "a dense", "dense dense", "a ."], "document": ["spare a", "dense", "spare .", "é a"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_decoder(tmp_path / "decoder")


def bidirectional(folder: Path) -> SparseEncoder:
    return SparseEncoder(str(folder), model_kwargs={"bidirectional": True}, processor_kwargs={"add_bos_token": False})


@pytest.mark.parametrize("family", DECODERS)
def test_a_plain_checkpoint_becomes_splade_and_is_saved_as_such(family: str, tmp_path: Path) -> None:
    write_decoder(tmp_path / "plain", family)
    model = SparseEncoder(str(tmp_path / "plain"))
    first, pooling = model
    assert isinstance(first, Transformer) and isinstance(pooling, SpladePooling)
    assert (first.transformer_task, pooling.pooling_strategy) == ("fill-mask", "max")
    assert model.max_seq_length == 48
    assert model.get_embedding_dimension() == 277
    embeddings = model.encode(TEXTS)
    model.save_pretrained(str(tmp_path / "saved"))
    again = SparseEncoder(str(tmp_path / "saved"))
    assert torch.equal(torch.as_tensor(again.encode(TEXTS).to_dense()), torch.as_tensor(embeddings.to_dense()))
    assert again.fingerprint == model.fingerprint
    assert config_of(tmp_path / "saved")["architectures"] == DECODERS[family]["architectures"]


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_vector_does_not_depend_on_its_neighbours_to_the_bit(folder: Path, side: str) -> None:
    model = SparseEncoder(str(folder), processor_kwargs={"padding_side": side}, model_kwargs={"bidirectional": True})
    together = torch.as_tensor(model.encode(TEXTS).to_dense())
    one_by_one = torch.cat([torch.as_tensor(model.encode([text]).to_dense()) for text in TEXTS])
    backwards = torch.as_tensor(model.encode(TEXTS[::-1], batch_size=2).to_dense()).flip(0)
    assert torch.equal(together, one_by_one)
    assert torch.equal(together, backwards)


def test_a_text_without_any_token_has_no_terms(folder: Path) -> None:
    embeddings = torch.as_tensor(bidirectional(folder).encode(["", "a"]).to_dense())
    assert (embeddings > 0).any(dim=1).tolist() == [False, True]


def test_direction_begin_token_and_prompts_are_saved_and_told_by_the_fingerprint(folder: Path, tmp_path: Path) -> None:
    plain, model = SparseEncoder(str(folder)), bidirectional(folder)
    model.prompts = {"query": "spare "}
    assert model.fingerprint != plain.fingerprint
    found = torch.as_tensor(model.encode(["dense a"], prompt_name="query").to_dense())
    assert not torch.equal(found, torch.as_tensor(plain.encode(["spare dense a"]).to_dense()))
    model.save_pretrained(str(tmp_path / "saved"))
    again = SparseEncoder(str(tmp_path / "saved"))
    assert again[0].bidirectional and not again.tokenizer.add_bos_token
    assert torch.equal(torch.as_tensor(again.encode(["dense a"], prompt_name="query").to_dense()), found)
    assert again.fingerprint == model.fingerprint
    causal = SparseEncoder(str(tmp_path / "saved"), model_kwargs={"bidirectional": False})
    assert causal.fingerprint != model.fingerprint


def test_bfloat16_and_a_limit_of_tokens(folder: Path) -> None:
    model = SparseEncoder(str(folder), model_kwargs={"dtype": "bfloat16", "bidirectional": True})
    exact = SparseEncoder(str(folder), model_kwargs={"bidirectional": True})
    model.max_seq_length = exact.max_seq_length = 8
    found, wanted = (torch.as_tensor(each.encode(TEXTS).to_dense()).float() for each in (model, exact))
    assert (found - wanted).abs().mean() < 0.02 * wanted.mean()
    assert model.preprocess(["dense " * 30])["input_ids"].shape == (1, 8)


def test_the_readme_tells_of_the_decoder(folder: Path, tmp_path: Path) -> None:
    bidirectional(folder).save_pretrained(str(tmp_path / "saved"))
    readme = (tmp_path / "saved" / "README.md").read_text()
    told = "a decoder, `LlamaForCausalLM`, each token of which sees all others; texts have no begin token\n"
    assert f"- **Backbone:** {told}" in readme
    assert "SPLADE" in readme
    SparseEncoder(str(folder)).save_pretrained(str(tmp_path / "plain"))
    assert "each token of which sees those before it\n" in (tmp_path / "plain" / "README.md").read_text()


def train(
    model: SparseEncoder, output: Path, *, save_steps: int | None = None, resume: Path | None = None
) -> list[float]:
    """Train on four pairs for six steps and return the losses."""
    loss = SpladeLoss(
        model,
        loss=SparseMultipleNegativesRankingLoss(model),
        document_regularizer_weight=1e-4,
        query_regularizer_weight=1e-4,
    )
    arguments = SparseEncoderTrainingArguments(
        output_dir=str(output),
        max_steps=6,
        per_device_train_batch_size=4,
        learning_rate=0.03,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy="no" if save_steps is None else "steps",
        save_steps=save_steps or 500,
        report_to=[],
        use_cpu=True,
    )
    trainer = SparseEncoderTrainer(model=model, args=arguments, train_dataset=Dataset.from_dict(PAIRS), loss=loss)
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize(
    ("family", "modules_to_save"), [("llama", None), ("llama", ["lm_head"]), ("qwen2", None), ("gpt2", None)]
)
def test_an_adapter_learns_is_saved_loaded_and_merged(
    family: str, modules_to_save: list[str] | None, tmp_path: Path
) -> None:
    write_decoder(tmp_path / "plain", family)
    model = bidirectional(tmp_path / "plain")
    before = torch.as_tensor(model.encode(TEXTS).to_dense())
    torch.manual_seed(0)
    model.add_adapter(LoraConfig(r=4, lora_alpha=8, modules_to_save=modules_to_save))
    assert torch.equal(torch.as_tensor(model.encode(TEXTS).to_dense()), before)
    frozen = {name: each.clone() for name, each in model.named_parameters() if not each.requires_grad}
    losses = train(model, tmp_path / "run")
    assert losses[-1] < 0.9 * losses[0]
    for name, parameter in model.named_parameters():
        assert name not in frozen or torch.equal(parameter, frozen[name]), name
    learnt = torch.as_tensor(model.encode(TEXTS).to_dense())
    assert not torch.allclose(learnt, before, atol=1e-2)

    model.save_pretrained(str(tmp_path / "saved"))  # the adapter alone, which says that all tokens are seen
    assert not (tmp_path / "saved" / "config.json").exists()
    base = {"base_model": str(tmp_path / "plain")}
    again = SparseEncoder(str(tmp_path / "saved"), model_kwargs=base)
    assert again[0].bidirectional and not again.tokenizer.add_bos_token
    assert torch.equal(torch.as_tensor(again.encode(TEXTS).to_dense()), learnt)
    causal = SparseEncoder(str(tmp_path / "saved"), model_kwargs={"bidirectional": False, **base})
    assert not causal[0].bidirectional

    again[0].auto_model.merge_and_unload()
    again.save_pretrained(str(tmp_path / "merged"))
    merged = SparseEncoder(str(tmp_path / "merged"))
    assert merged[0].bidirectional
    torch.testing.assert_close(torch.as_tensor(merged.encode(TEXTS).to_dense()), learnt, atol=1e-5, rtol=1e-5)


def test_a_run_goes_on_from_its_checkpoint_to_the_bit(folder: Path, tmp_path: Path) -> None:
    found = []
    for output, resume in ((tmp_path / "run", None), (tmp_path / "again", tmp_path / "run" / "checkpoint-3")):
        model = bidirectional(folder)
        torch.manual_seed(0)
        model.add_adapter(LoraConfig(r=4, modules_to_save=["lm_head"]))
        train(model, output, save_steps=3, resume=resume)
        assert not list(output.glob("**/model.safetensors"))  # 16 GB each, of a model of 8B
        found.append(torch.as_tensor(model.encode(TEXTS).to_dense()))
    assert torch.equal(*found)


def test_an_adapter_is_saved_alone_if_its_base_was_made_bidirectional_before(folder: Path, tmp_path: Path) -> None:
    bidirectional(folder).save_pretrained(str(tmp_path / "base"))
    model = SparseEncoder(str(tmp_path / "base"))
    model.add_adapter(LoraConfig(r=4, init_lora_weights=False))
    model.save_pretrained(str(tmp_path / "adapter"))
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    again = SparseEncoder(str(tmp_path / "adapter"), model_kwargs={"base_model": str(tmp_path / "base")})
    assert again[0].bidirectional and not again.tokenizer.add_bos_token
    assert torch.equal(torch.as_tensor(again.encode(TEXTS).to_dense()), torch.as_tensor(model.encode(TEXTS).to_dense()))


def test_all_of_a_decoder_is_trained_without_an_adapter(folder: Path, tmp_path: Path) -> None:
    model = bidirectional(folder)
    losses = train(model, tmp_path / "run")
    assert losses[-1] < 0.9 * losses[0]


def test_a_decoder_without_its_head_gets_an_auto_encoder_as_of_the_peer(folder: Path, tmp_path: Path) -> None:
    EncoderModel.from_pretrained(folder).save_pretrained(tmp_path / "headless")
    llama_tokenizer().save_pretrained(tmp_path / "headless")
    model = SparseEncoder(str(tmp_path / "headless"), model_kwargs={"bidirectional": True})
    assert [type(module) for module in model] == [Transformer, Pooling, SparseAutoEncoder]
    assert model[0].bidirectional


def test_recomputing_layers_gives_the_same_gradient(folder: Path) -> None:
    gradients = []
    for recompute in (False, True):
        model = bidirectional(folder).train()
        if recompute:
            model.gradient_checkpointing_enable()
        model(model.preprocess(TEXTS))["sentence_embedding"].square().sum().backward()
        gradients.append([each.grad for each in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert plain is not None and plain.abs().sum() > 0
        torch.testing.assert_close(plain, recomputed)


class TestHeads:
    def test_a_head_that_is_not_trained_is_told_of(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        model = SparseEncoder(str(folder))
        with caplog.at_level(logging.WARNING):
            model.add_adapter(LoraConfig(r=2, modules_to_save=["lm_head"]))
        assert "lm_head" not in caplog.text
        assert model[0].auto_model.head.weight.requires_grad
        model.delete_adapter("default")
        model.add_adapter(LoraConfig(r=2))
        assert "does not train lm_head" in caplog.text
        assert "give LoraConfig(..., modules_to_save=['lm_head'])" in caplog.text
        assert "untie" not in caplog.text

    @pytest.mark.parametrize("options", [{"modules_to_save": ["lm_head"]}, {"target_modules": ["q_proj", "lm_head"]}])
    def test_of_a_tied_head_too_which_may_be_trained_alone(
        self, options: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        write_decoder(tmp_path / "base", "qwen2")
        model = SparseEncoder(str(tmp_path / "base"))
        model.add_adapter(LoraConfig(r=2))
        assert "does not train lm_head" in caplog.text and "or name it in target_modules" in caplog.text
        model.delete_adapter("default")
        caplog.clear()
        model.add_adapter(LoraConfig(r=2, init_lora_weights=False, **options))
        assert "lm_head" not in caplog.text
        backbone = model[0].auto_model
        words = backbone.backbone.embeddings.word.weight.clone()
        train(model, tmp_path / "run")
        assert torch.equal(backbone.backbone.embeddings.word.weight, words)
        learnt = torch.as_tensor(model.encode(TEXTS).to_dense())
        model.save_pretrained(str(tmp_path / "saved"))
        assert not (tmp_path / "saved" / "config.json").exists()
        again = SparseEncoder(str(tmp_path / "saved"), model_kwargs={"base_model": str(tmp_path / "base")})
        assert torch.equal(torch.as_tensor(again.encode(TEXTS).to_dense()), learnt)
