"""Pickles in, safetensors out: what a converted model computes, what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from backbone_helpers import TINY_CONFIGS, V, batch, randomise
from hostile_helpers import Run
from safetensors.torch import load_file

from sparse_encoder.backbone import LoraConfig, MaskedLanguageModel
from sparse_encoder.cli.main import main

WORDS, DECODER = "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"


@pytest.fixture
def model(tmp_path: Path) -> MaskedLanguageModel:
    """Return a model that is saved in ``tmp_path / "old"`` as older versions of transformers did."""
    torch.manual_seed(5)
    model = MaskedLanguageModel.from_config(TINY_CONFIGS["bert"]).eval()
    randomise(model)
    model.save_pretrained(tmp_path / "old")
    tensors = load_file(tmp_path / "old/model.safetensors")
    tensors[DECODER] = tensors[WORDS]  # one memory under two names, as a tied model's state has
    tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"]
    (tmp_path / "old/model.safetensors").unlink()
    torch.save(tensors, tmp_path / "old/pytorch_model.bin")
    return model


def test_a_tied_model_is_written_beside_its_pickle(
    model: MaskedLanguageModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(tmp_path / "old")]) == 0
    names = set(load_file(tmp_path / "old/model.safetensors"))
    assert WORDS in names and not {DECODER, "cls.predictions.decoder.bias"} & names
    assert f"{tmp_path / 'old'}: {len(names)} tensors" in capsys.readouterr().out
    loaded = MaskedLanguageModel.from_pretrained(tmp_path / "old", use_safetensors=True)
    assert torch.equal(loaded(**batch(pad=0)), model(**batch(pad=0)))
    assert main(["convert", str(tmp_path / "old")]) == 2
    assert "safetensors beside its pickle already" in capsys.readouterr().err


def test_a_model_that_is_not_tied_keeps_both_of_two_names(model: MaskedLanguageModel, tmp_path: Path) -> None:
    path = tmp_path / "old/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tie_word_embeddings": False}))
    assert main(["convert", str(tmp_path / "old")]) == 0
    assert {WORDS, DECODER, "cls.predictions.decoder.bias"} <= set(load_file(tmp_path / "old/model.safetensors"))
    loaded = MaskedLanguageModel.from_pretrained(tmp_path / "old")
    assert torch.equal(loaded(**batch(pad=0)), model(**batch(pad=0)))
    assert loaded.head.weight is not loaded.backbone.embeddings.word.weight


def test_an_adapter_beside_a_pickle_stays(model: MaskedLanguageModel, tmp_path: Path) -> None:
    model.add_adapter(LoraConfig(init_lora_weights=False))
    model.save_adapter(tmp_path / "old")
    assert main(["convert", str(tmp_path / "old")]) == 0
    assert {"adapter_config.json", "adapter_model.safetensors", "model.safetensors"} < set(os.listdir(tmp_path / "old"))
    loaded = MaskedLanguageModel.from_pretrained(tmp_path / "old")
    assert torch.equal(loaded(**batch(pad=0)), model(**batch(pad=0)))


def test_a_copy_has_everything_but_the_pickles(model: MaskedLanguageModel, tmp_path: Path) -> None:
    (tmp_path / "old/1_Dense").mkdir()
    state = {"linear.weight": torch.arange(6.0).view(2, 3)}
    torch.save({**state, "twin": state["linear.weight"]}, tmp_path / "old/1_Dense/pytorch_model.bin")
    (tmp_path / "old/1_Dense/config.json").write_text(json.dumps({"in_features": 3}))
    assert main(["convert", str(tmp_path / "old"), "--output", str(tmp_path / "new")]) == 0
    found = {path.relative_to(tmp_path / "new").as_posix() for path in (tmp_path / "new").rglob("*") if path.is_file()}
    assert found == {"config.json", "model.safetensors", "1_Dense/config.json", "1_Dense/model.safetensors"}
    assert sorted(load_file(tmp_path / "new/1_Dense/model.safetensors")) == ["linear.weight", "twin"]
    assert not (tmp_path / "old/model.safetensors").exists()
    loaded = MaskedLanguageModel.from_pretrained(tmp_path / "new")
    assert torch.equal(loaded.head.bias, model.head.bias) and loaded.head.bias.shape == (V,)


def test_what_cannot_be_converted_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(tmp_path / "none")]) == 2
    assert "is no folder with a model" in capsys.readouterr().err
    assert main(["convert", str(tmp_path)]) == 2
    assert "there is nothing to convert" in capsys.readouterr().err
    torch.save({"a": Run()}, tmp_path / "pytorch_model.bin")
    assert main(["convert", str(tmp_path), "--output", str(tmp_path)]) == 2
    assert "is there and not an empty folder" in capsys.readouterr().err
    assert main(["convert", str(tmp_path)]) == 2
    assert "cannot be read by torch.load(weights_only=True)" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["pytorch_model.bin"] and not Path("pwned").exists()


def test_a_link_out_of_the_model_is_not_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "old").mkdir()
    torch.save({"a": torch.ones(2)}, tmp_path / "old/pytorch_model.bin")
    (tmp_path / "secret").write_text("x")
    (tmp_path / "old/vocab.txt").symlink_to("../secret")
    assert main(["convert", str(tmp_path / "old"), "--output", str(tmp_path / "new")]) == 2
    assert "is a link that leads out of the folder" in capsys.readouterr().err
    assert not (tmp_path / "new/vocab.txt").exists()


def test_variants_are_converted_each_under_its_name(model: MaskedLanguageModel, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="is a pickle"):
        model.save_pretrained(tmp_path / "old", safe_serialization=False, variant="fp16")
    assert main(["convert", str(tmp_path / "old"), "--output", str(tmp_path / "new")]) == 0
    assert sorted(os.listdir(tmp_path / "new")) == ["config.json", "model.fp16.safetensors", "model.safetensors"]
    assert main(["convert", str(tmp_path / "old")]) == 0
    for folder in ("old", "new"):
        converted = MaskedLanguageModel.from_pretrained(tmp_path / folder, variant="fp16")
        with torch.no_grad():
            assert torch.equal(converted(**batch(pad=0)), model(**batch(pad=0)))
