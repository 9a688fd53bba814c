"""Checkpoints that transformers wrote with a head for a task give the states that its backbone gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from backbone_helpers import TINY_CONFIGS, batch, newest_spelling, randomise

from sparse_encoder.backbone import EncoderModel, MaskedLanguageModel
from sparse_encoder.backbone.families import read_config
from sparse_encoder.checkpoint import CheckpointError

transformers = pytest.importorskip("transformers")

TASKS = ("SequenceClassification", "TokenClassification", "QuestionAnswering", "MultipleChoice")
KNOWN = [
    (name, task)
    for name in sorted(TINY_CONFIGS)
    for task in TASKS
    if type(transformers.AutoConfig.for_model(**newest_spelling(TINY_CONFIGS[name])))
    in getattr(transformers, f"AutoModelFor{task}")._model_mapping
]


def test_most_families_have_most_tasks() -> None:
    assert len(KNOWN) > 2 * len(TINY_CONFIGS)


@pytest.mark.parametrize(("name", "task"), KNOWN)
def test_the_backbone_of_a_fine_tuned_model(name: str, task: str, tmp_path: Path) -> None:
    config = transformers.AutoConfig.for_model(**newest_spelling(TINY_CONFIGS[name]))
    peer = getattr(transformers, f"AutoModelFor{task}").from_config(config).eval()
    randomise(peer)
    peer.save_pretrained(tmp_path)
    loaded = EncoderModel.from_pretrained(tmp_path)
    ours = read_config(TINY_CONFIGS[name])
    features = batch(ours.num_token_types, pad=ours.pad_token_id or 0)
    is_token = features["attention_mask"].bool()
    with torch.no_grad():
        expected = peer.base_model(**features)[0][is_token]
        torch.testing.assert_close(loaded(**features)[is_token], expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(CheckpointError, match="missing"):
        MaskedLanguageModel.from_pretrained(tmp_path)
