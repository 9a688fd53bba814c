"""Adapters in runs: the base stays what it is in memory, checkpoints hold it, and what cannot be trained is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters_helpers import model_named, randomise_adapters
from model_helpers import write_masked_language_model
from torch import Tensor
from training_helpers import arguments, pairs, splade_loss

from sparse_encoder import SparseEncoder
from sparse_encoder.backbone import LoraConfig, MaskedLanguageModel, PretrainedModel
from sparse_encoder.checkpoint import CheckpointError
from sparse_encoder.modules import Router, SpladePooling, Transformer
from sparse_encoder.training import SparseEncoderTrainer
from sparse_encoder.training.checkpoints.saving import load_weights


def backbone(model: SparseEncoder) -> PretrainedModel:
    found = model.transformers_model
    assert found is not None
    return found


def encoder(folder: Path) -> SparseEncoder:
    if not (folder / "base").exists():
        write_masked_language_model(folder / "base")
    return SparseEncoder(str(folder / "base"), device="cpu")


def adapted_encoder(folder: Path, **options: Any) -> SparseEncoder:  # noqa: ANN401
    model = encoder(folder)
    torch.manual_seed(0)
    model.add_adapter(LoraConfig(**{"r": 2, "lora_alpha": 6, **options}))
    return model


def run(model: SparseEncoder, folder: Path, **options: Any) -> SparseEncoderTrainer:  # noqa: ANN401
    options = {"max_steps": 2, "save_steps": 1, "save_strategy": "steps", "learning_rate": 0.01, **options}
    return SparseEncoderTrainer(model, arguments(folder, **options), pairs(8), pairs(4), loss=splade_loss(model))


@torch.no_grad()
def train_fully(model: SparseEncoder) -> None:
    for each in backbone(model).parameters():
        each.data.add_(0.05)  # past torch's counters of versions


EDITS: dict[str, Callable[[SparseEncoder], object]] = {
    "trained": train_fully,
    "resized": lambda model: backbone(model).resize_token_embeddings(100),
    "pruned": lambda model: backbone(model).prune_heads({0: [0]}),
}


def base_of(model: SparseEncoder) -> dict[str, Tensor]:
    return {name: each.clone() for name, each in backbone(model).state_dict().items() if "lora" not in name}


def vectors(model: SparseEncoder) -> Tensor:
    dense: Tensor = model.encode(["rain tree"], convert_to_tensor=True, convert_to_sparse_tensor=False)
    return dense


@pytest.mark.parametrize("edit", EDITS)
def test_a_base_that_was_changed_before_stays_so_in_runs(edit: str, tmp_path: Path) -> None:
    def start() -> SparseEncoder:
        model = encoder(tmp_path)
        EDITS[edit](model)
        torch.manual_seed(0)
        model.add_adapter(LoraConfig(r=2, lora_alpha=6))
        return model

    model = start()
    base = base_of(model)
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 1}
    run(model, tmp_path / "run", **best).train()
    assert all(torch.equal(each, base[name]) for name, each in base_of(model).items())
    again = start()
    run(again, tmp_path / "run").train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1"))
    assert all(torch.equal(each, base[name]) for name, each in base_of(again).items())
    last = SparseEncoder(str(tmp_path / "run" / "checkpoint-2"), device="cpu")  # it has its base with it
    assert torch.equal(vectors(last), vectors(again))


def test_a_saved_base_goes_with_its_adapter_and_another_stays(tmp_path: Path) -> None:
    model = adapted_encoder(tmp_path)
    model.save_pretrained(str(tmp_path / "alone"))
    train_fully(model)
    changed = base_of(model)
    load_weights(model, tmp_path / "alone")
    assert all(torch.equal(each, changed[name]) for name, each in base_of(model).items())
    model.save_pretrained(str(tmp_path / "whole"))
    other = adapted_encoder(tmp_path)
    load_weights(other, tmp_path / "whole")
    assert all(torch.equal(each, changed[name]) for name, each in base_of(other).items())


def test_a_run_is_resumed_where_its_base_has_moved(tmp_path: Path) -> None:
    model = adapted_encoder(tmp_path)
    run(model, tmp_path / "run").train()
    (tmp_path / "base").rename(tmp_path / "moved")
    moved = SparseEncoder(str(tmp_path / "moved"), device="cpu")
    torch.manual_seed(3)
    moved.add_adapter(LoraConfig(r=2, lora_alpha=6))
    run(moved, tmp_path / "run").train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1"))
    assert torch.equal(vectors(moved), vectors(model))
    loaded = MaskedLanguageModel.from_pretrained(tmp_path / "moved")
    loaded.add_adapter(LoraConfig(r=2, lora_alpha=6))
    load_weights(loaded, tmp_path / "run" / "checkpoint-2")
    state = loaded.get_adapter_state_dict()
    assert all(torch.equal(each, state[name]) for name, each in moved.get_adapter_state_dict().items())


def test_two_routes_get_their_adapters_back_on_their_own_bases(tmp_path: Path) -> None:
    def routed(seed: int) -> SparseEncoder:
        parts = {}
        for number, name in enumerate(("query", "document")):
            folder = tmp_path / name
            if not folder.exists():
                write_masked_language_model(folder, seed=number)
            parts[name] = Transformer(str(folder), transformer_task="fill-mask")
            parts[name].model.add_adapter(LoraConfig(r=2))
            randomise_adapters(parts[name].model, seed + number)
        routes = {name: [part, SpladePooling(pooling_strategy="max")] for name, part in parts.items()}
        return SparseEncoder(modules=[Router(routes)], device="cpu")

    model, other = routed(1), routed(7)
    model.save_pretrained(str(tmp_path / "saved"))
    assert len(list((tmp_path / "saved").rglob("adapter_config.json"))) == 2
    assert not list((tmp_path / "saved").rglob("model.safetensors"))
    load_weights(other, tmp_path / "saved")
    state = model.state_dict()
    assert all(torch.equal(each, state[name]) for name, each in other.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora_alpha": 32}, "lora_alpha was 6 and is 32 now"),
        ({"use_rslora": True}, "use_rslora was False and is True now"),
        ({"lora_dropout": 0.5}, "lora_dropout was 0.0 and is 0.5 now"),
        ({"r": 3}, "r was 2 and is 3 now"),
        ({"target_modules": ["query"]}, "it also has"),
    ],
)
def test_a_run_is_not_resumed_on_another_adapter(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    adapted_encoder(tmp_path).save_pretrained(str(tmp_path / "saved"))
    other = adapted_encoder(tmp_path, **options)
    before = {name: each.clone() for name, each in other.state_dict().items()}
    with pytest.raises(CheckpointError, match=f"of another kind: {message}"):
        load_weights(other, tmp_path / "saved")
    assert all(torch.equal(each, before[name]) for name, each in other.state_dict().items())


def test_several_active_adapters_are_refused_before_a_run(tmp_path: Path) -> None:
    model = adapted_encoder(tmp_path)
    model.add_adapter(LoraConfig(r=2), "second")
    model.set_adapter(["default", "second"])
    with pytest.raises(ValueError, match=r"\['default', 'second'\] are active: call set_adapter\(\) with one"):
        run(model, tmp_path / "run").train()
    assert not (tmp_path / "run").exists()
    run(model, tmp_path / "unsaved", save_strategy="no", max_steps=1).train()
    model.set_adapter("default")
    run(model, tmp_path / "run", max_steps=1).train()


def test_a_model_of_which_nothing_is_trained_is_refused_before_a_run(tmp_path: Path) -> None:
    model = adapted_encoder(tmp_path)
    model.save_pretrained(str(tmp_path / "saved"))
    loaded = SparseEncoder(str(tmp_path / "saved"), device="cpu", model_kwargs={"base_model": str(tmp_path / "base")})
    trainer = run(loaded, tmp_path / "run", max_steps=1)
    assert "eval_loss" in trainer.evaluate()  # for which nothing needs to be trained
    with pytest.raises(ValueError, match=r"no parameter is trained: call model.set_adapter\('default'\), or load_adap"):
        trainer.train()
    model.disable_adapters()
    with pytest.raises(ValueError, match=r"no parameter is trained: the adapters are disabled; call model.enable_ad"):
        run(model, tmp_path / "run").train()
    model.enable_adapters()
    backbone(model).merge_adapter()
    with pytest.raises(ValueError, match=r"training: the weights have taken adapters in; call unmerge_adapter"):
        run(model, tmp_path / "run").train()
    frozen = encoder(tmp_path).requires_grad_(False)
    with pytest.raises(ValueError, match=r"no parameter is trained: all are frozen; call requires_grad_\(True\)"):
        run(frozen, tmp_path / "run").train()
    assert not (tmp_path / "run").exists()
    loaded.set_adapter("default")
    run(loaded, tmp_path / "run", max_steps=1).train()


def test_numbers_of_layers_that_are_not_there_are_refused() -> None:
    model = model_named()
    with pytest.raises(ValueError, match=r"layers_to_transform must hold numbers of layers .*; \[99\] are not there"):
        model.add_adapter(LoraConfig(r=2, layers_to_transform=[0, 99]))
    model.add_adapter(LoraConfig(r=2, layers_to_transform=[0, 2]))
    randomise_adapters(model)
    assert {name.split(".")[3] for name in model.get_adapter_state_dict()} == {"0", "2"}


def test_options_of_recomputed_activations_are_of_their_kinds() -> None:
    model = model_named()
    with pytest.raises(ValueError, match="preserve_rng_state must be true or false, got 'no'"):
        model.gradient_checkpointing_enable({"preserve_rng_state": "no"})
    with pytest.raises(ValueError, match="offload must be true or false, got 'yes'"):
        model.gradient_checkpointing_enable(offload="yes")
