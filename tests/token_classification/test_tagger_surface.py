"""What scripts read of a tagger: its configuration, its outputs by place, and what it refuses to be trained with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from token_classification_helpers import LABELS, config, tagger

from sparse_encoder.backbone.dropout import Dropout
from sparse_encoder.checkpoint import ConfigError
from sparse_encoder.token_classification import TokenClassificationModel
from sparse_encoder.training import Trainer, TrainingArguments

IDS = torch.tensor([[2, 4, 5, 6, 3]])
TRUTH = torch.tensor([[-100, 1, 2, -100, -100]])


def test_the_configuration_tells_of_labels_too() -> None:
    model = tagger()
    assert model.config.num_labels == 5
    assert model.config.id2label == dict(enumerate(LABELS))
    assert model.config.label2id == {name: number for number, name in enumerate(LABELS)}
    assert model.config.hidden_size == 12
    other = TokenClassificationModel.from_backbone(model, id2label=["O", "B-X", "I-X"])
    assert other.config.num_labels == 3
    assert model.config.num_labels == 5
    model.resize_token_embeddings(20)
    assert (model.config.vocab_size, model.config.num_labels) == (20, 5)


def test_labels_that_transformers_left_at_its_defaults(tmp_path: Path) -> None:
    tagger().save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    written["label2id"] = {f"LABEL_{number}": number for number in range(5)}
    (tmp_path / "config.json").write_text(json.dumps(written))
    assert TokenClassificationModel.from_pretrained(tmp_path).label2id["I-LOC"] == 4


def test_a_file_of_transformers_with_names_alone(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    values = {key: value for key, value in config().items() if key != "model_type"}
    theirs = transformers.BertForTokenClassification(transformers.BertConfig(**values, num_labels=3))
    theirs.config.id2label = {0: "O", 1: "B-X", 2: "I-X"}
    theirs.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["label2id"]["LABEL_2"] == 2
    assert TokenClassificationModel.from_pretrained(tmp_path).id2label == {0: "O", 1: "B-X", 2: "I-X"}


def test_outputs_by_place() -> None:
    model = tagger()
    output = model(IDS, torch.ones_like(IDS), labels=TRUTH)
    assert output[0] is output.loss is output["loss"]
    assert output[1] is output.logits
    assert output[:2] == output.to_tuple()
    assert model(IDS, torch.ones_like(IDS))[0].shape == (1, 5, 5)
    with pytest.raises(IndexError):
        _ = output[2]


@pytest.mark.parametrize("make", [lambda m: m.backbone, lambda m: object(), lambda m: None])
def test_a_tagger_is_put_on_models_only(make: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match=r"as encoder\[0\].auto_model of a sparse encoder, got"):
        TokenClassificationModel.from_backbone(make(tagger()), id2label=LABELS)


def test_weights_of_labels_do_not_go_with_a_chain(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="class_weights do not go with use_crf"):
        tagger(class_weights=[1.0] * 5, use_crf=True)
    tagger(use_crf=True).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="class_weights do not go with use_crf"):
        TokenClassificationModel.from_pretrained(tmp_path, class_weights=[1.0] * 5)


@pytest.mark.parametrize(
    ("options", "part"), [({"use_crf": True}, "use_crf"), ({"class_weights": [1.0] * 5}, "class_weights")]
)
def test_labels_are_not_smoothed_where_the_loss_would_be_another(
    options: dict[str, Any], part: str, tmp_path: Path
) -> None:
    arguments = TrainingArguments(output_dir=str(tmp_path), label_smoothing_factor=0.1, report_to="none")
    Trainer(model=tagger(), args=arguments)
    with pytest.raises(ValueError, match=f"label_smoothing_factor does not go with {part}"):
        Trainer(model=tagger(**options), args=arguments)
    with pytest.raises(ValueError, match=f"label_smoothing_factor does not go with {part}"):
        Trainer(model_init=lambda: tagger(**options), args=arguments).train()


@pytest.mark.parametrize("use_crf", [False, True])
def test_decoding_knows_no_dropout_and_leaves_the_mode(use_crf: bool) -> None:
    model = tagger(use_crf=use_crf)
    mask = torch.ones_like(IDS)
    wanted = model.decode(IDS, mask)
    for module in model.modules():
        if isinstance(module, Dropout):
            module.p = 0.9
    model.train()
    model.head.eval()
    assert all(model.decode(IDS, mask) == wanted for _ in range(5))
    assert model.training
    assert not model.head.training


def test_labels_and_switches_are_what_they_must_be() -> None:
    with pytest.raises(ValueError, match="labels must be whole numbers, got torch.float32"):
        tagger()(IDS, torch.ones_like(IDS), labels=TRUTH.float())
    with pytest.raises(TypeError, match="use_crf must be true or false, got 'yes'"):
        tagger(use_crf="yes")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="use_crf must be true or false, got 'yes'"):
        TokenClassificationModel.from_config({**config(), "use_crf": "yes"})
