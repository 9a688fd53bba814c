"""Adapters in a SparseEncoder: encoding, saving, loading, training and resuming to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters_helpers import adapted, logits, model_named, randomise_adapters
from checkpoint_helpers import tree_of
from hub_server import writable_hub
from model_helpers import mixed_texts, write_masked_language_model
from safetensors.torch import load_file
from torch import Tensor, nn
from training_helpers import arguments, pairs, rows_of, splade_loss

from sparse_encoder import SparseEncoder
from sparse_encoder.backbone import LoraConfig, PretrainedModel
from sparse_encoder.checkpoint import CheckpointError
from sparse_encoder.modules import SparseStaticEmbedding
from sparse_encoder.training import SparseEncoderTrainer
from sparse_encoder.training.checkpoints.saving import load_weights

TEXTS = mixed_texts(5)


def backbone(model: SparseEncoder) -> PretrainedModel:
    found = model.transformers_model
    assert found is not None
    return found


def encoder(folder: Path, **options: Any) -> SparseEncoder:  # noqa: ANN401
    model = SparseEncoder(str(write_masked_language_model(folder / "base")), device="cpu")
    model.add_adapter(LoraConfig(**{"r": 2, "lora_alpha": 6, "lora_dropout": 0.2, **options}))
    return model


def on_base(adapter: Path, folder: Path) -> SparseEncoder:
    """Load an adapter on the base that :func:`encoder` has."""
    return SparseEncoder(str(adapter), device="cpu", model_kwargs={"base_model": str(folder / "base")})


def vectors(model: SparseEncoder) -> Tensor:
    dense: Tensor = model.encode(TEXTS, convert_to_tensor=True, convert_to_sparse_tensor=False)
    return dense


def test_methods_of_the_peer_reach_the_backbone(tmp_path: Path) -> None:
    model = encoder(tmp_path)
    randomise_adapters(model)
    changed = vectors(model)
    state = model.get_adapter_state_dict()
    backbone(model).save_adapter(tmp_path / "adapter")
    assert model.active_adapters() == ["default"] and model.active_adapter() == "default"
    fingerprint = model.fingerprint
    model.disable_adapters()
    plain, plain_fingerprint = vectors(model), model.fingerprint
    assert not torch.allclose(plain, changed) and fingerprint != plain_fingerprint
    assert plain_fingerprint == SparseEncoder(str(tmp_path / "base"), device="cpu").fingerprint
    model.enable_adapters()
    assert torch.equal(vectors(model), changed) and model.fingerprint == fingerprint
    model.load_adapter(tmp_path / "adapter", "second")
    assert torch.equal(vectors(model), changed) and model.fingerprint == fingerprint
    assert all(torch.equal(each, state[name]) for name, each in model.get_adapter_state_dict("second").items())
    model.set_adapter("default")
    model.delete_adapter(["second", "default"])
    assert torch.equal(vectors(model), plain) and model.has_peft_compatible_model()


def test_a_model_without_a_backbone_says_so(tmp_path: Path) -> None:
    tokenizer = SparseEncoder(str(write_masked_language_model(tmp_path)), device="cpu").tokenizer
    model = SparseEncoder(modules=[SparseStaticEmbedding(tokenizer)], device="cpu")
    assert not model.has_peft_compatible_model()
    for call in (model.check_peft_compatible_model, model.active_adapters, model.enable_adapters):
        with pytest.raises(ValueError, match="this model has no backbone that could have adapters"):
            call()


def test_a_saved_model_is_its_adapter_and_loads_with_its_base(tmp_path: Path) -> None:
    model = encoder(tmp_path)
    randomise_adapters(model)
    model.save_pretrained(str(tmp_path / "saved"))
    files = {path.name for path in (tmp_path / "saved").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "modules.json"} <= files
    assert not {"config.json", "model.safetensors"} & files
    loaded = on_base(tmp_path / "saved", tmp_path)
    assert torch.equal(vectors(loaded), vectors(model)) and loaded.fingerprint == model.fingerprint
    backbone(loaded).merge_and_unload()
    loaded.save_pretrained(str(tmp_path / "saved"))
    files = {path.name for path in (tmp_path / "saved").iterdir()}
    assert {"config.json", "model.safetensors"} <= files and not any("adapter" in name for name in files)
    torch.testing.assert_close(vectors(SparseEncoder(str(tmp_path / "saved"), device="cpu")), vectors(model))


def test_a_model_saved_over_its_own_base_still_loads(tmp_path: Path) -> None:
    model = encoder(tmp_path)
    randomise_adapters(model)
    model.save_pretrained(str(tmp_path / "base"))
    assert torch.equal(vectors(SparseEncoder(str(tmp_path / "base"), device="cpu")), vectors(model))


def test_a_folder_with_nothing_but_an_adapter_becomes_splade(tmp_path: Path) -> None:
    model = encoder(tmp_path)
    randomise_adapters(model)
    backbone(model).save_adapter(tmp_path / "adapter")
    loaded = on_base(tmp_path / "adapter", tmp_path)
    assert [type(module).__name__ for module in loaded] == ["Transformer", "SpladePooling"]
    assert torch.equal(vectors(loaded), vectors(model))


def test_adapter_and_base_come_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = encoder(tmp_path)
    randomise_adapters(model)
    model.save_pretrained(str(tmp_path / "saved"))
    about = tmp_path / "saved" / "adapter_config.json"
    with writable_hub(monkeypatch) as hub:
        revision = hub.add("org/base", tree_of(tmp_path / "base"))
        hub.add("org/base", {"config.json": b"{}"})  # what the branch has become since
        named = {**json.loads(about.read_text()), "base_model_name_or_path": "org/base", "revision": revision}
        hub.add("org/adapter", {**tree_of(tmp_path / "saved"), about.name: json.dumps(named).encode()})
        cache = tmp_path / "cache"
        loaded = SparseEncoder("org/adapter", device="cpu", cache_folder=str(cache))
        assert torch.equal(vectors(loaded), vectors(model))
        assert {path.name for path in cache.iterdir()} >= {"models--org--base", "models--org--adapter"}
        on_base = SparseEncoder(str(tmp_path / "base"), device="cpu")
        on_base.load_adapter("org/adapter", adapter_kwargs={"cache_dir": str(cache)})
        assert torch.equal(vectors(on_base), vectors(model))
        asked = len(hub.requests)
        offline = SparseEncoder("org/adapter", device="cpu", cache_folder=str(cache), local_files_only=True)
        assert torch.equal(vectors(offline), vectors(model)) and len(hub.requests) == asked


OPTIONS: dict[str, Any] = {
    "gradient_accumulation_steps": 2,
    "num_train_epochs": 2,
    "logging_steps": 1,
    "save_strategy": "steps",
    "save_steps": 1,
    "warmup_steps": 1,
    "weight_decay": 0.1,
}


def run(model: SparseEncoder, folder: Path, **options: Any) -> SparseEncoderTrainer:  # noqa: ANN401
    return SparseEncoderTrainer(model, arguments(folder, **{**OPTIONS, **options}), pairs(12), loss=splade_loss(model))


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: each.clone() for name, each in model.state_dict().items()}


def adapter_of(folder: Path, seed: int, **options: Any) -> SparseEncoder:  # noqa: ANN401
    torch.manual_seed(seed)
    model = SparseEncoder(str(folder / "base"), device="cpu")
    model.add_adapter(LoraConfig(**{"r": 2, "lora_alpha": 6, "lora_dropout": 0.2, **options}), "mine")
    return model


@pytest.mark.parametrize("options", [{}, {"bias": "all", "modules_to_save": ["head.dense"]}])
def test_training_moves_the_adapter_alone_and_is_resumed_to_the_bit(options: dict[str, Any], tmp_path: Path) -> None:
    write_masked_language_model(tmp_path / "base")
    model = adapter_of(tmp_path, 0, **options)
    before = state(model)
    straight = run(model, tmp_path / "straight")
    straight.train()
    trained = {name for name, each in model.named_parameters() if each.requires_grad}
    assert straight.optimizer is not None
    optimised = {id(each) for group in straight.optimizer.param_groups for each in group["params"]}
    assert optimised == {id(each) for each in model.parameters() if each.requires_grad}
    moved = {name for name, each in state(model).items() if not torch.equal(each, before[name])}
    assert moved >= {name for name in trained if ".lora_" in name}
    copies = {name for name in before if name.startswith("0.model.adapter_copies.mine.")}
    in_place = {name.rpartition(".")[2].replace(":", ".") for name in copies}
    assert moved - trained - copies <= {f"0.model.{name}" for name in in_place}
    checkpoint = tmp_path / "straight" / "checkpoint-2"
    assert (checkpoint / "adapter_model.safetensors").exists() and not (checkpoint / "model.safetensors").exists()
    other = adapter_of(tmp_path, 99, **options)
    torch.rand(3)
    resumed = run(other, tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(checkpoint))
    ours, theirs = state(other), state(model)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert rows_of(resumed)[:-1] == rows_of(straight)[:-1]
    last = on_base(tmp_path / "straight" / "checkpoint-4", tmp_path)
    assert torch.equal(vectors(last), vectors(model.eval()))


def test_a_frozen_base_is_trained_with_recomputed_activations(tmp_path: Path) -> None:
    write_masked_language_model(tmp_path / "base")
    ends = []
    for recompute in (False, True):
        model = adapter_of(tmp_path, 0)
        run(model, tmp_path / str(recompute), gradient_checkpointing=recompute, save_strategy="no").train()
        ends.append(state(model))
    for name, each in ends[0].items():
        torch.testing.assert_close(ends[1][name], each)
    start = state(adapter_of(tmp_path, 0))
    assert not torch.equal(
        ends[0]["0.model.backbone.layers.0.attention.q.lora_B.mine"],
        start["0.model.backbone.layers.0.attention.q.lora_B.mine"],
    )


def test_a_checkpoint_holds_no_more_than_the_adapter(tmp_path: Path) -> None:
    write_masked_language_model(tmp_path / "base")
    model = adapter_of(tmp_path, 0)
    run(model, tmp_path / "run", max_steps=1).train()
    tensors = load_file(tmp_path / "run" / "checkpoint-1" / "adapter_model.safetensors")
    assert sum(each.numel() for each in tensors.values()) == model.transformers_model.num_parameters(
        only_trainable=True
    )  # type: ignore[union-attr]


def test_weights_of_a_saved_adapter_go_to_the_active_one(tmp_path: Path) -> None:
    saved = adapted(bias="lora_only")
    saved.save_pretrained(tmp_path / "saved")
    model = model_named(seed=5)
    model.add_adapter(LoraConfig(r=3), "other")
    randomise_adapters(model, 9)
    other = model.get_adapter_state_dict("other")
    model.add_adapter(LoraConfig(r=2, lora_alpha=6, bias="lora_only"), "mine")
    load_weights(model, tmp_path / "saved")
    assert torch.equal(logits(model), logits(saved))
    assert all(torch.equal(each, other[name]) for name, each in model.get_adapter_state_dict("other").items())
    model.disable_adapters()
    assert torch.equal(logits(model), logits(model_named()))
    model.enable_adapters()
    saved.merge_and_unload().save_pretrained(tmp_path / "plain")
    with pytest.raises(CheckpointError, match="the saved model has no adapter"):
        load_weights(model, tmp_path / "plain")
    fewer = adapted(target_modules=["query"])
    fewer.save_pretrained(tmp_path / "fewer")
    with pytest.raises(CheckpointError, match="of another kind: bias was 'none' and is 'lora_only' now"):
        load_weights(model, tmp_path / "fewer")
    for layers, message in ((["query", "value", "key"], "it lacks backbone"), (["query"], "it also has backbone")):
        other_layers = model_named()
        other_layers.add_adapter(LoraConfig(r=2, lora_alpha=6, target_modules=layers))
        adapted().save_pretrained(tmp_path / "two")
        with pytest.raises(CheckpointError, match=f"of another kind: {message}"):
            load_weights(other_layers, tmp_path / "two")
