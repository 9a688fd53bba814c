"""T5 in float16: as near to float32 as transformers is, also where hidden states outgrow its range."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from seq2seq_helpers import SEQ2SEQ_CONFIGS, decoder_ids, encoder_batch, randomise_pair
from torch import Tensor

from sparse_encoder.backbone import EncoderModel
from sparse_encoder.backbone.pretrained import PretrainedModel
from sparse_encoder.generation.seq2seq_model import Seq2SeqModel

transformers = pytest.importorskip("transformers")

NAMES = ["t5", "t5 v1.1", "mt5"]


def folder_of(name: str, folder: Path, *, scale: float) -> Path:
    """Save a model in float32 whose feed-forward networks write hidden states of about this scale."""
    model = Seq2SeqModel.from_config(SEQ2SEQ_CONFIGS[name])
    randomise_pair(model)
    with torch.no_grad():
        for stack in (model.backbone, model.decoder):
            for layer in stack.layers:
                layer.feed_forward.down.weight.mul_(scale)
    model.save_pretrained(folder)
    return folder


def given(name: str) -> dict[str, Any]:
    batch = encoder_batch(left=False, pad=SEQ2SEQ_CONFIGS[name]["pad_token_id"])
    return {**batch, "decoder_input_ids": decoder_ids()}


def logits(model: torch.nn.Module, name: str) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(**given(name)).logits
    return found.float()


@pytest.mark.parametrize("scale", [1.0, 1e5])
@pytest.mark.parametrize("name", NAMES)
def test_float16_is_near_float32(name: str, scale: float, tmp_path: Path) -> None:
    folder = folder_of(name, tmp_path, scale=scale)
    exact = logits(Seq2SeqModel.from_pretrained(folder), name)
    half = Seq2SeqModel.from_pretrained(folder, dtype="float16")
    peer = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float16).eval()
    got, theirs = logits(half, name), logits(peer, name)
    assert got.isfinite().all()
    assert (got - exact).norm() / exact.norm() < 1e-2
    assert (got - theirs).norm() / exact.norm() < 1e-2
    states = half.encode(**{key: value for key, value in given(name).items() if not key.startswith("decoder")})
    assert half.dtype == states.last_hidden_state.dtype == torch.float16


@pytest.mark.parametrize("kind", [Seq2SeqModel, EncoderModel])
@pytest.mark.parametrize("name", NAMES)
def test_the_same_matrices_stay_wide_as_in_transformers(name: str, kind: type[PretrainedModel], tmp_path: Path) -> None:
    folder = folder_of(name, tmp_path / "float32", scale=1.0)
    model = kind.from_pretrained(folder, dtype="float16")
    wide = {each for each, tensor in model.state_dict().items() if tensor.dtype == torch.float32}
    assert wide == {each for each in model.state_dict() if each.endswith("feed_forward.down.weight")} != set()
    model.save_pretrained(tmp_path / "ours")
    written = load_file(tmp_path / "ours" / "model.safetensors")
    auto = transformers.AutoModelForSeq2SeqLM if kind is Seq2SeqModel else transformers.AutoModelForTextEncoding
    peer = auto.from_pretrained(tmp_path / "ours", dtype="auto")
    peer.save_pretrained(tmp_path / "theirs")
    theirs = load_file(tmp_path / "theirs" / "model.safetensors")
    assert {key: tensor.dtype for key, tensor in written.items()} == {key: each.dtype for key, each in theirs.items()}
    again = kind.from_pretrained(tmp_path / "ours")
    assert again.dtype == torch.float16
    for key, tensor in again.state_dict().items():
        assert tensor.dtype == model.state_dict()[key].dtype
        assert torch.equal(tensor, model.state_dict()[key])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_other_types_hold_for_every_matrix(dtype: str, tmp_path: Path) -> None:
    model = Seq2SeqModel.from_pretrained(folder_of("t5", tmp_path, scale=1.0), dtype=dtype)
    assert {each.dtype for each in model.parameters()} == {getattr(torch, dtype)}


def test_a_cast_holds_for_every_matrix_and_infinities_are_brought_back(tmp_path: Path) -> None:
    model = Seq2SeqModel.from_pretrained(folder_of("t5", tmp_path, scale=6e4)).half()
    assert {each.dtype for each in model.parameters()} == {torch.float16}
    assert logits(model, "t5").isfinite().all()


def test_random_weights_of_float16_are_wide_in_the_same_places() -> None:
    model = Seq2SeqModel.from_config(SEQ2SEQ_CONFIGS["t5"], dtype="float16")
    wide = [name for name, each in model.named_parameters() if each.dtype == torch.float32]
    assert len(wide) == 5 and all(name.endswith("feed_forward.down.weight") for name in wide)
    assert logits(model.eval(), "t5").isfinite().all()
