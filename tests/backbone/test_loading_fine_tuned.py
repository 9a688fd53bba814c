"""Backbones out of checkpoints that were fine-tuned with a head for a task; the head is left aside, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from backbone_helpers import TINY_CONFIGS, D, batch
from loading_helpers import change, saved
from model_helpers import write_encoder
from torch import Tensor

from sparse_encoder import SparseEncoder
from sparse_encoder.backbone import EncoderModel, MaskedLanguageModel
from sparse_encoder.checkpoint import CheckpointError

CLASSES = {"classifier.weight": (4, D), "classifier.bias": (4,)}
ANSWERS = {"qa_outputs.weight": (2, D), "qa_outputs.bias": (2,)}
TWO_LAYERS = {
    f"classifier.{part}.{kind}": shape
    for part, wide in (("dense", D), ("out_proj", 4))
    for kind, shape in (("weight", (wide, D)), ("bias", (wide,)))
}
BEFORE = {"pre_classifier.weight": (D, D), "pre_classifier.bias": (D,), **CLASSES}
SUMMARY = {"sequence_summary.summary.weight": (D, D), "sequence_summary.summary.bias": (D,), **CLASSES}
HEADS = {"classes": CLASSES, "answers": ANSWERS, "two layers": TWO_LAYERS, "layer before": BEFORE, "choices": SUMMARY}


def put_head(tensors: dict[str, Tensor], head: dict[str, tuple[int, ...]], prefix: str) -> None:
    for name in [name for name in tensors if not name.startswith(prefix)]:
        del tensors[name]
    tensors.update({name: torch.ones(shape) for name, shape in head.items()})


@pytest.mark.parametrize("head", sorted(HEADS))
@pytest.mark.parametrize("name", sorted(TINY_CONFIGS))
def test_the_backbone_loads_without_the_head_of_a_task(name: str, head: str, tmp_path: Path) -> None:
    model = saved(tmp_path, name)
    change(tmp_path, lambda tensors: put_head(tensors, HEADS[head], model.family.base_prefix))
    loaded = EncoderModel.from_pretrained(tmp_path)
    features = batch(model.config.num_token_types, pad=0)
    assert torch.equal(loaded(**features), model.backbone(**features))
    assert loaded.load_report is not None
    assert loaded.load_report.info()["unexpected_keys"] == sorted(HEADS[head])
    with pytest.raises(CheckpointError, match="missing"):
        MaskedLanguageModel.from_pretrained(tmp_path)


def test_other_names_are_refused_as_before(tmp_path: Path) -> None:
    saved(tmp_path)
    change(tmp_path, lambda tensors: tensors.update({"my_classifier.weight": torch.ones(4, D)}))
    with pytest.raises(CheckpointError, match="1 unexpected tensor: my_classifier.weight"):
        EncoderModel.from_pretrained(tmp_path)


def test_an_encoder_begins_with_a_fine_tuned_checkpoint(tmp_path: Path) -> None:
    write_encoder(tmp_path)
    plain = SparseEncoder(str(tmp_path), device="cpu")[0].model
    change(tmp_path, lambda tensors: tensors.update({name: torch.ones(shape) for name, shape in CLASSES.items()}))
    loaded = SparseEncoder(str(tmp_path), device="cpu")[0].model
    assert all(torch.equal(each, plain.get_parameter(name)) for name, each in loaded.named_parameters())
